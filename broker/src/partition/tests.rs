//! Partitions through the manager, on a real disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use elkfk_wire::kafka::records::{BatchBuilder, Compression, LeaderEpoch, Offset};

use super::*;
use crate::log::{LogConfig, LogManager, OpenError};

const LOCAL: BrokerId = BrokerId(0);

fn config(path: &Path) -> LogConfig {
    LogConfig { directories: vec![path.into()], reserve_bytes: 0, ..LogConfig::default() }
}

fn batch(values: &[&str]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(1_700_000_000_000, None, Some(value.as_bytes()), &[]);
    }
    builder.build().unwrap()
}

fn leader(manager: &Arc<LogManager>, topic: &str) -> Arc<Partition> {
    let partition = manager.create(topic, Some([7; 16]), 0, TopicConfig::default()).unwrap();
    partition.become_leader(LOCAL, LeaderEpoch(0), &[]).unwrap();
    partition
}

#[tokio::test]
async fn acknowledged_records_are_read_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let manager = LogManager::open(config(directory.path())).unwrap();
    let partition = leader(&manager, "logs");
    let info = partition.append(batch(&["a", "b"]), AppendOptions::default()).unwrap();
    assert_eq!((info.base_offset, info.next_offset), (Offset(0), Offset(2)));
    partition.durable(info.next_offset).await.unwrap();
    let read = partition.read(Offset(0), 1000, true, Isolation::Uncommitted).unwrap();
    assert_eq!((read.high_watermark, read.log_end), (Offset(2), Offset(2)));
    for is_orderly in [false, true] {
        // The first time the manager is dropped as a crash would leave it.
        let manager = if is_orderly {
            let manager = LogManager::open(config(directory.path())).unwrap();
            manager.shutdown();
            assert!(directory.path().join(".kafka_cleanshutdown").exists());
            drop(manager);
            LogManager::open(config(directory.path())).unwrap()
        } else {
            crash(&manager);
            LogManager::open(config(directory.path())).unwrap()
        };
        assert!(!directory.path().join(".kafka_cleanshutdown").exists());
        let partition = manager.partition("logs", 0).unwrap();
        assert_eq!(partition.topic_id(), Some([7; 16]));
        assert!(matches!(
            partition.append(batch(&["c"]), AppendOptions::default()),
            Err(AppendError::NotLeader)
        ));
        partition.become_leader(LOCAL, LeaderEpoch(1), &[]).unwrap();
        let again = partition.read(Offset(0), 1000, true, Isolation::Uncommitted).unwrap();
        assert_eq!(again.bytes, read.bytes);
        crash(&manager);
    }
}

/// Frees the locks without writing anything, as the kernel does for a killed process.
fn crash(manager: &LogManager) {
    manager.abandon();
}

#[tokio::test]
async fn long_polls_wake_when_the_high_watermark_rises() {
    let directory = tempfile::tempdir().unwrap();
    let manager = LogManager::open(config(directory.path())).unwrap();
    let partition = leader(&manager, "logs");
    let mut changed = partition.changed();
    let waiting = tokio::spawn(async move {
        changed
            .wait_for(|positions| positions.high_watermark >= Offset(1))
            .await
            .unwrap()
            .high_watermark
    });
    // acks=1 too becomes visible, once it is durable.
    let options = AppendOptions { acks: 1, ..AppendOptions::default() };
    partition.append(batch(&["a"]), options).unwrap();
    assert_eq!(waiting.await.unwrap(), Offset(1));
    assert_eq!(partition.checkpoint().0, Offset(1));
    manager.shutdown();
}

#[tokio::test]
async fn deleting_frees_the_name_and_wakes_those_who_wait() {
    let directory = tempfile::tempdir().unwrap();
    let manager = LogManager::open(config(directory.path())).unwrap();
    let partition = leader(&manager, "logs");
    let waiting = tokio::spawn({
        let partition = partition.clone();
        async move { partition.durable(Offset(1)).await }
    });
    tokio::task::yield_now().await;
    manager.delete("logs", 0).unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(AppendError::Deleted)));
    assert!(matches!(
        partition.read(Offset(0), 1, true, Isolation::Uncommitted),
        Err(ReadError::Deleted)
    ));
    let again = manager.create("logs", Some([8; 16]), 0, TopicConfig::default()).unwrap();
    assert_eq!((again.log_end(), again.topic_id()), (Offset(0), Some([8; 16])));
    let other = manager.create("logs", Some([9; 16]), 0, TopicConfig::default());
    assert!(other.is_err());
    manager.shutdown();
}

#[test]
fn a_directory_belongs_to_one_broker_of_one_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let ours = LogConfig { cluster_id: Some("one".to_owned()), ..config(directory.path()) };
    let manager = LogManager::open(ours.clone()).unwrap();
    let second = LogManager::open(ours.clone()).unwrap_err();
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    manager.shutdown();
    let other = LogManager::open(LogConfig { broker_id: 5, ..ours.clone() }).unwrap_err();
    assert!(matches!(other, OpenError::OtherBroker { found: 0, configured: 5, .. }), "{other}");
    let other = LogManager::open(LogConfig { cluster_id: Some("two".to_owned()), ..ours.clone() });
    assert!(matches!(other, Err(OpenError::OtherCluster { .. })), "{other:?}");
    LogManager::open(ours).unwrap().shutdown();
}

#[test]
fn epochs_and_ranges_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    let manager = LogManager::open(config(directory.path())).unwrap();
    let partition = leader(&manager, "logs");
    partition.become_leader(LOCAL, LeaderEpoch(3), &[]).unwrap();
    let stale = AppendOptions { required_epoch: Some(LeaderEpoch(2)), ..AppendOptions::default() };
    assert!(matches!(
        partition.append(batch(&["a"]), stale),
        Err(AppendError::Epoch { given: LeaderEpoch(2), current: LeaderEpoch(3) })
    ));
    assert!(matches!(
        partition.read(Offset(1), 1, true, Isolation::Uncommitted),
        Err(ReadError::OutOfRange { .. })
    ));
    partition.configure(TopicConfig { min_insync_replicas: 2, ..TopicConfig::default() });
    assert!(matches!(
        partition.append(batch(&["a"]), AppendOptions::default()),
        Err(AppendError::NotEnoughReplicas { in_sync: 1, minimum: 2 })
    ));
    manager.shutdown();
}

#[test]
fn a_full_disk_refuses_appends_and_heals() {
    let directory = tempfile::tempdir().unwrap();
    let full = LogConfig { reserve_bytes: u64::MAX, ..config(directory.path()) };
    let manager = LogManager::open(full).unwrap();
    let partition = leader(&manager, "logs");
    assert!(matches!(
        partition.append(batch(&["a"]), AppendOptions::default()),
        Err(AppendError::DiskFull)
    ));
    assert!(partition.directory().is_full());
    partition.read(Offset(0), 1, true, Isolation::Uncommitted).unwrap();
    manager.shutdown();
    // Space again.
    let manager = LogManager::open(config(directory.path())).unwrap();
    let partition = leader(&manager, "logs");
    partition.append(batch(&["a"]), AppendOptions::default()).unwrap();
    manager.shutdown();
}

#[test]
fn appends_from_many_threads_are_dense() {
    let directory = tempfile::tempdir().unwrap();
    let manager = LogManager::open(config(directory.path())).unwrap();
    let partition = leader(&manager, "logs");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    partition.append(batch(&["x", "y"]), AppendOptions::default()).unwrap();
                }
            });
        }
    });
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), partition.durable(Offset(400)))
            .await
            .unwrap()
            .unwrap();
    });
    let mut from = Offset(0);
    while from < Offset(400) {
        let read = partition.read(from, 500, true, Isolation::Uncommitted).unwrap();
        for batch in elkfk_wire::kafka::records::batches(&read.bytes) {
            let batch = batch.unwrap();
            assert_eq!(batch.base_offset(), from);
            from = batch.next_offset();
        }
    }
    manager.shutdown();
}
