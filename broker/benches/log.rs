//! Appends to and reads from one partition, in MB/s of batches.
//!
//! `cargo bench -p elkfk-broker --bench log [MEGABYTES]`; axes are named in each line. With
//! `fsync=on` sixteen appends are in flight, each awaited until it is durable. The directory is
//! `ELKFK_BENCH_DIR`, or one of the system's temporary ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use elkfk_broker::log::{Durability, LogConfig, LogManager, TopicConfig};
use elkfk_broker::partition::{AppendOptions, BrokerId, Isolation, Partition};
use elkfk_wire::kafka::records::{BatchBuilder, Compression, LeaderEpoch, Offset, batches};

const IN_FLIGHT: usize = 16;

fn batch(bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    let value = vec![b'v'; 1000];
    while builder.plain_bytes() + value.len() < bytes {
        builder.push(1_760_000_000_000, None, Some(&value), &[]);
    }
    builder.build().unwrap()
}

async fn append(partition: &Arc<Partition>, batch: &[u8], count: usize, is_synced: bool) {
    let mut waiting = VecDeque::new();
    for _ in 0..count {
        // The copy stands for the one a server makes out of its request.
        let info = partition.append(batch.to_vec(), AppendOptions::default()).unwrap();
        if is_synced {
            waiting.push_back(info.next_offset);
            if waiting.len() == IN_FLIGHT {
                partition.durable(waiting.pop_front().unwrap()).await.unwrap();
            }
        }
    }
    if let Some(last) = waiting.pop_back() {
        partition.durable(last).await.unwrap();
    }
}

fn read(partition: &Partition, max_bytes: usize) -> usize {
    let (mut from, mut total) = (Offset::ZERO, 0);
    loop {
        let read = partition.read(from, max_bytes, true, Isolation::Uncommitted).unwrap();
        let Some(last) = batches(&read.bytes).flatten().last() else { return total };
        from = last.next_offset();
        total += read.bytes.len();
    }
}

fn main() {
    let megabytes = std::env::args().skip(1).find_map(|it| it.parse().ok()).unwrap_or(512usize);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for durability in [Durability::Kafka, Durability::Group] {
        for batch_kib in [1, 16, 64, 256] {
            let root =
                std::env::var_os("ELKFK_BENCH_DIR").unwrap_or_else(|| std::env::temp_dir().into());
            let directory = tempfile::tempdir_in(root).unwrap();
            let manager = LogManager::open(LogConfig {
                directories: vec![directory.path().into()],
                durability,
                reserve_bytes: 0,
                ..LogConfig::default()
            })
            .unwrap();
            let partition = manager.create("bench", None, 0, TopicConfig::default()).unwrap();
            partition.become_leader(BrokerId(0), LeaderEpoch(0), &[]).unwrap();
            let batch = batch(batch_kib * 1024 + 200);
            let is_synced = durability == Durability::Group;
            // Small batches would take for ever to show the same.
            let megabytes = if batch_kib == 1 { megabytes / 8 } else { megabytes };
            let count = (megabytes << 20) / batch.len();
            let started = Instant::now();
            runtime.block_on(append(&partition, &batch, count, is_synced));
            let rate = |bytes: usize, started: Instant| {
                bytes as f64 / 1e6 / started.elapsed().as_secs_f64()
            };
            let appended = rate(count * batch.len(), started);
            let fsync = if is_synced { "on" } else { "off" };
            println!("append/batch={batch_kib}KiB/fsync={fsync}  {appended:.0} MB/s");
            if !is_synced {
                for max_kib in [64, 1024] {
                    let started = Instant::now();
                    let bytes = read(&partition, max_kib * 1024);
                    println!(
                        "read/batch={batch_kib}KiB/fetch={max_kib}KiB  {:.0} MB/s",
                        rate(bytes, started)
                    );
                }
            }
            manager.shutdown();
        }
    }
}
