//! Partitions through the manager, on a real disk.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use elkfk_wire::kafka::records::{BatchBuilder, Compression, LeaderEpoch, Offset};

use super::*;
use crate::log::{Disk, DiskFile, Entry, LogConfig, LogManager, OpenError, SystemDisk};

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

/// The system's disk, until it is told to fail every sync; it counts them, and can hold them up.
#[derive(Debug, Default)]
pub(crate) struct FailingDisk {
    system: SystemDisk,
    pub(crate) told: Arc<Told>,
}

#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) is_failing: AtomicBool,
    /// Syncs asked for since it fails.
    failed_syncs: AtomicUsize,
    syncs: AtomicUsize,
    /// Syncs wait while this is set.
    is_held: Mutex<bool>,
    /// Signalled when `is_held` or `syncs` changed.
    changed: Condvar,
}

impl Told {
    fn hold(&self, is_held: bool) {
        *lock(&self.is_held) = is_held;
        self.changed.notify_all();
    }

    /// Waits until one more sync than `before` was asked for.
    fn await_sync_after(&self, before: usize) {
        let mut held = lock(&self.is_held);
        while self.syncs.load(Ordering::SeqCst) <= before {
            held = self.changed.wait(held).unwrap();
        }
    }
}

#[derive(Debug)]
struct FailingFile {
    file: Arc<dyn DiskFile>,
    told: Arc<Told>,
}

impl Disk for FailingDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.system.open(path, create)?;
        Ok(Arc::new(FailingFile { file, told: self.told.clone() }))
    }
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.system.create_directory(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.system.list(path)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.system.read(path)
    }
    fn replace(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        self.system.replace(path, contents)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.system.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.system.remove_file(path)
    }
    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.system.remove_directory(path)
    }
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.system.sync_directory(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn std::fmt::Debug + Send + Sync>> {
        self.system.lock(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.system.free_bytes(path)
    }
}

impl DiskFile for FailingFile {
    fn read_at(&self, position: u64, length: usize) -> io::Result<Vec<u8>> {
        self.file.read_at(position, length)
    }
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(position, bytes)
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        let told = &self.told;
        let mut held = lock(&told.is_held);
        told.syncs.fetch_add(1, Ordering::SeqCst);
        told.changed.notify_all();
        while *held {
            held = told.changed.wait(held).unwrap();
        }
        drop(held);
        if told.is_failing.load(Ordering::SeqCst) {
            told.failed_syncs.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::other("input/output error"));
        }
        self.file.sync_data()
    }
}

#[tokio::test]
async fn a_failed_sync_fails_the_directory_and_is_never_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FailingDisk::default();
    let told = disk.told.clone();
    let config = LogConfig { disk: Arc::new(disk), ..config(directory.path()) };
    let manager = LogManager::open(config).unwrap();
    let (first, second) = (leader(&manager, "first"), leader(&manager, "second"));
    let info = first.append(batch(&["a"]), AppendOptions::default()).unwrap();
    first.durable(info.next_offset).await.unwrap();
    told.is_failing.store(true, Ordering::SeqCst);
    let info = first.append(batch(&["b"]), AppendOptions::default()).unwrap();
    let lost = first.durable(info.next_offset).await.unwrap_err();
    assert!(matches!(lost, AppendError::DirectoryFailed { .. }), "{lost}");
    let (path, cause) = manager.failed().await;
    assert_eq!(path, directory.path());
    assert!(cause.contains("sync first-0: input/output error"), "{cause}");
    // The disk works again, as far as anyone can tell: nothing is believed any more.
    told.is_failing.store(false, Ordering::SeqCst);
    for partition in [&first, &second] {
        let refused = partition.append(batch(&["c"]), AppendOptions::default()).unwrap_err();
        assert!(matches!(refused, AppendError::DirectoryFailed { .. }), "{refused}");
        let refused = partition.read(Offset(0), 100, true, Isolation::Uncommitted).unwrap_err();
        assert!(matches!(refused, ReadError::DirectoryFailed { .. }), "{refused}");
    }
    manager.shutdown();
    assert_eq!(told.failed_syncs.load(Ordering::SeqCst), 1);
    assert!(!directory.path().join(".kafka_cleanshutdown").exists());
}

#[tokio::test]
async fn upkeep_expires_records_and_removes_what_was_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let config = LogConfig { retention_check_interval: Duration::ZERO, ..config(directory.path()) };
    let manager = LogManager::open(config).unwrap();
    let (kept, gone) = (leader(&manager, "kept"), leader(&manager, "gone"));
    let topic = TopicConfig {
        // The records of these tests are years old.
        retention: Some(Duration::from_secs(60)),
        delete_delay: Duration::ZERO,
        ..TopicConfig::default()
    };
    manager.configure("kept", &topic);
    manager.configure("gone", &topic);
    let info = kept.append(batch(&["a", "b"]), AppendOptions::default()).unwrap();
    kept.durable(info.next_offset).await.unwrap();
    drop(gone);
    manager.delete("gone", 0).unwrap();
    let mut changed = kept.changed();
    let tasks = elkfk_base::Tasks::new();
    manager.start(&tasks);
    changed.wait_for(|positions| positions.log_start == Offset(2)).await.unwrap();
    let files = || -> Vec<String> {
        let all = std::fs::read_dir(directory.path()).unwrap();
        all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    while files().iter().any(|name| name.ends_with("-delete")) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tasks.shutdown().await;
    manager.shutdown();
    assert!(files().contains(&"kept-0".to_owned()));
}

#[tokio::test]
async fn a_damaged_partition_is_offline_and_stays_so_through_orderly_stops() {
    let directory = tempfile::tempdir().unwrap();
    let manager = LogManager::open(config(directory.path())).unwrap();
    let (damaged, sound) = (leader(&manager, "damaged"), leader(&manager, "sound"));
    for partition in [&damaged, &sound] {
        let info = partition.append(batch(&["a"]), AppendOptions::default()).unwrap();
        partition.durable(info.next_offset).await.unwrap();
    }
    manager.shutdown();
    // As after a crash, and with a length that leads nowhere below what was durable.
    std::fs::remove_file(directory.path().join(".kafka_cleanshutdown")).unwrap();
    let log = directory.path().join("damaged-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[8] ^= 0x40;
    std::fs::write(&log, &bytes).unwrap();
    for _ in 0..2 {
        let manager = LogManager::open(config(directory.path())).unwrap();
        assert!(manager.partition("damaged", 0).is_none());
        let offline = manager.offline();
        assert!(offline[&("damaged".to_owned(), 0)].contains("position 0"), "{offline:?}");
        assert!(manager.create("damaged", None, 0, TopicConfig::default()).is_err());
        let sound = leader(&manager, "sound");
        assert_eq!(sound.log_end(), Offset(1));
        manager.shutdown();
    }
    assert_eq!(std::fs::read(&log).unwrap(), bytes);
}

#[test]
fn deleting_a_partition_under_its_sync_fails_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FailingDisk::default();
    let told = disk.told.clone();
    let config = LogConfig { disk: Arc::new(disk), ..config(directory.path()) };
    let manager = LogManager::open(config).unwrap();
    for round in 0..20 {
        let topic = format!("t{round}");
        let partition = leader(&manager, &topic);
        let before = told.syncs.load(Ordering::SeqCst);
        told.hold(true);
        let options = AppendOptions { acks: 1, ..AppendOptions::default() };
        partition.append(batch(&["a"]), options).unwrap();
        // The files are being synced; their directory comes next, under its old name.
        told.await_sync_after(before);
        std::thread::scope(|scope| {
            let deleting = scope.spawn(|| manager.delete(&topic, 0).unwrap());
            // Some of the rounds let go while the delete has just begun.
            if round % 2 == 0 {
                std::thread::yield_now();
            }
            told.hold(false);
            deleting.join().unwrap();
        });
        // A sync that was queued meanwhile finds nothing to do.
        partition.sync().unwrap();
    }
    let kept = leader(&manager, "kept");
    kept.append(batch(&["b"]), AppendOptions::default()).unwrap();
    kept.sync().unwrap();
    assert_eq!(kept.directory().failed(), None);
    manager.shutdown();
}

#[tokio::test]
async fn one_sync_covers_the_appends_that_wait() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FailingDisk::default();
    let told = disk.told.clone();
    let config = LogConfig { disk: Arc::new(disk), ..config(directory.path()) };
    let manager = LogManager::open(config).unwrap();
    let partition = leader(&manager, "logs");
    let before = told.syncs.load(Ordering::SeqCst);
    told.hold(true);
    partition.append(batch(&["first"]), AppendOptions::default()).unwrap();
    told.await_sync_after(before);
    for _ in 0..100 {
        partition.append(batch(&["x"]), AppendOptions::default()).unwrap();
    }
    // Nothing is acknowledged, nor shown to a consumer, before the disk has it.
    assert_eq!(partition.positions().high_watermark, Offset(0));
    told.hold(false);
    partition.durable(Offset(101)).await.unwrap();
    // The first also covers the topic id and the epoch; the second all that came meanwhile.
    let syncs = told.syncs.load(Ordering::SeqCst) - before;
    assert!(syncs <= 5, "{syncs} syncs for 101 appends");
    manager.shutdown();
}

#[test]
fn a_segment_that_somebody_removed_is_an_error_not_a_loop() {
    let directory = tempfile::tempdir().unwrap();
    let small = TopicConfig { segment_bytes_max: 200, retention: None, ..TopicConfig::default() };
    let topics = [("logs".to_owned(), small)].into();
    let config = LogConfig { topics, ..config(directory.path()) };
    let manager = LogManager::open(config.clone()).unwrap();
    let partition = manager.create("logs", None, 0, manager.topic_config("logs")).unwrap();
    partition.become_leader(LOCAL, LeaderEpoch(0), &[]).unwrap();
    for _ in 0..10 {
        partition.append(batch(&["a"]), AppendOptions::default()).unwrap();
    }
    manager.shutdown();
    let manager = LogManager::open(config).unwrap();
    std::fs::remove_file(directory.path().join("logs-0/00000000000000000000.log")).unwrap();
    let partition = manager.partition("logs", 0).unwrap();
    partition.become_leader(LOCAL, LeaderEpoch(1), &[]).unwrap();
    let error = partition.read(Offset(0), 100, true, Isolation::Uncommitted).unwrap_err();
    assert!(matches!(&error, ReadError::Io(it) if it.kind() == io::ErrorKind::NotFound), "{error}");
    manager.shutdown();
}

#[test]
fn a_log_that_cannot_be_cleaned_holds_no_other_up() {
    let directory = tempfile::tempdir().unwrap();
    let manager = LogManager::open(config(directory.path())).unwrap();
    let small = TopicConfig { segment_bytes_max: 500, retention: None, ..TopicConfig::default() };
    let keyed = |_| {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(1_700_000_000_000, Some(b"k"), Some(b"v"), &[]);
        builder.push(1_700_000_000_000, Some(b"k"), Some(b"v"), &[]);
        builder.build().unwrap()
    };
    let made = ["bad", "good"].map(|topic| {
        let partition = manager.create(topic, None, 0, small.clone()).unwrap();
        partition.become_leader(LOCAL, LeaderEpoch(0), &[]).unwrap();
        for mut bytes in (0..50).map(keyed) {
            if topic == "bad" {
                // Both records claim the first offset: nobody looks, while nothing is compacted.
                let second = bytes.len() - (bytes.len() - 61) / 2;
                bytes[second + 3] = 0;
                let crc = crc32c::crc32c(&bytes[21..]);
                bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            }
            partition.append(bytes, AppendOptions::default()).unwrap();
        }
        partition.sync().unwrap();
        partition.configure(TopicConfig { is_compacted: true, ..small.clone() });
        partition
    });
    let before = made.each_ref().map(|partition| partition.bytes());
    manager.clean();
    let after = made.each_ref().map(|partition| partition.bytes());
    assert_eq!(after[0], before[0], "stays as it is");
    assert!(after[1] < before[1] / 5, "{before:?} → {after:?}");
    manager.shutdown();
}
