//! The threads that wait for the disk, so that nobody else does.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::metrics;
use crate::recovery::forget_joining;
use crate::snapshots::{self, SnapshotWriter};
use crate::wal::disk::Disk;
use crate::wal::{AppendError, Batch, Wal};

/// What the log's thread is asked for.
#[derive(Debug)]
pub(super) enum LogTask {
    Append {
        number: u64,
        batch: Batch,
    },
    /// This server is a full member of its ensemble.
    Joined,
    /// Entries up to this index are in every snapshot that is kept.
    Purge {
        index: u64,
    },
}

/// What the threads tell the node.
#[derive(Debug)]
pub(super) enum Notice {
    /// Batches up to this number are durable.
    Persisted {
        number: u64,
        log_bytes: u64,
    },
    /// The disk is full; what is in flight waits.
    Full(String),
    Room,
    /// The log is lost to this process.
    Failed(String),
    Snapshot {
        index: u64,
        result: Result<Written, String>,
    },
}

#[derive(Debug)]
pub(super) struct Written {
    pub(super) bytes: u64,
    /// The log is needed from here on; 0 where that is not known.
    pub(super) oldest_index: u64,
}

/// How often a full disk is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// Writes batches until the node is gone. All that wait are written with one fdatasync.
///
/// `snapshots` is where they are kept: one that was received takes its place with the batch that
/// says so.
pub(super) fn write_log<D: Disk>(
    mut wal: Wal<D>,
    mut snapshots: D,
    tasks: &Receiver<LogTask>,
    notices: &mpsc::Sender<Notice>,
) {
    let mut is_full = false;
    loop {
        let task = match is_full {
            false => tasks.recv().map_err(|_| RecvTimeoutError::Disconnected),
            true => tasks.recv_timeout(RETRY),
        };
        let mut batches = Vec::new();
        let mut last = None;
        let mut purge = None;
        let mut has_joined = false;
        let mut take = |task| match task {
            LogTask::Append { number, batch } => {
                last = Some(number);
                batches.push(batch);
            }
            LogTask::Joined => has_joined = true,
            LogTask::Purge { index } => purge = Some(index),
        };
        match task {
            Ok(task) => take(task),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Ok(task) = tasks.try_recv() {
            take(task);
        }
        if has_joined {
            // Before anything is promised in a batch.
            forget_joining(wal.disk_mut());
        }
        if let Some(number) = last {
            if !append(&mut wal, &batches, &mut is_full, notices) {
                return;
            }
            if let Some(index) = batches.iter().rev().find_map(|batch| batch.restored)
                && let Err(error) = snapshots::take_over(&mut snapshots, index)
            {
                return fail(&error, notices);
            }
            let log_bytes = wal.bytes();
            if notices.blocking_send(Notice::Persisted { number, log_bytes }).is_err() {
                return;
            }
        }
        if let Some(index) = purge {
            match wal.purge(index) {
                Ok(0) => {}
                Ok(segments) => info!(segments, "old segments of the log removed"),
                Err(error) => warn!(%error, "old segments of the log cannot be removed"),
            }
        }
        let told = match (wal.keep_room(), is_full) {
            (Err(AppendError::Failed(error)), _) => return fail(&error, notices),
            (Err(AppendError::Full(error)), false) => Some((true, Notice::Full(error.to_string()))),
            (Ok(()), true) => Some((false, Notice::Room)),
            _ => None,
        };
        if let Some((now_full, notice)) = told {
            is_full = now_full;
            if notices.blocking_send(notice).is_err() {
                return;
            }
        }
    }
}

/// Appends, however long it takes until there is room. `false` where the thread must end.
fn append<D: Disk>(
    wal: &mut Wal<D>,
    batches: &[Batch],
    is_full: &mut bool,
    notices: &mpsc::Sender<Notice>,
) -> bool {
    let bytes: usize =
        batches.iter().flat_map(|batch| &batch.entries).map(|entry| entry.data.len()).sum();
    loop {
        let started = Instant::now();
        match wal.append(batches) {
            Ok(()) => {
                metrics::SYNC_SECONDS.observe(started.elapsed().as_secs_f64());
                metrics::LOGGED_BYTES.inc_by(bytes as u64);
                return true;
            }
            Err(AppendError::Full(error)) => {
                if !*is_full {
                    *is_full = true;
                    if notices.blocking_send(Notice::Full(error.to_string())).is_err() {
                        return false;
                    }
                }
                if notices.is_closed() {
                    return false;
                }
                std::thread::sleep(RETRY);
            }
            Err(AppendError::Failed(error)) => {
                fail(&error, notices);
                return false;
            }
        }
    }
}

fn fail(error: &std::io::Error, notices: &mpsc::Sender<Notice>) {
    error!(%error, "write to the log failed: nothing more is acknowledged");
    let why = format!("write to the log: {error}; check the disk, then start again");
    let _ = notices.blocking_send(Notice::Failed(why));
}

/// Writes one snapshot from the pieces that come, and removes old ones. A sender that is dropped
/// before the last piece gives it up.
pub(super) fn write_snapshot<D: Disk>(
    disk: D,
    mut purged_disk: D,
    index: u64,
    kept: usize,
    mut pieces: mpsc::Receiver<(Vec<u8>, bool)>,
    notices: &mpsc::Sender<Notice>,
) {
    let write = || -> Result<Option<u64>, std::io::Error> {
        let mut writer = SnapshotWriter::start(disk, index)?;
        while let Some((piece, is_last)) = pieces.blocking_recv() {
            writer.write(&piece)?;
            if is_last {
                return writer.finish().map(Some);
            }
        }
        Ok(None)
    };
    let written = write();
    if !matches!(written, Ok(Some(_))) {
        // At once: on a full disk the log waits for this room.
        snapshots::remove_given_up(&mut purged_disk);
    }
    let result = match written {
        Ok(None) => return,
        Ok(Some(bytes)) => {
            let oldest_index = snapshots::purge(&mut purged_disk, kept).unwrap_or_else(|error| {
                warn!(%error, "old snapshots cannot be removed");
                0
            });
            Ok(Written { bytes, oldest_index })
        }
        Err(error) => Err(error.to_string()),
    };
    let _ = notices.blocking_send(Notice::Snapshot { index, result });
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use bytes::Bytes;

    use super::*;
    use crate::machine::Machine;
    use crate::wal::LogEntry;
    use crate::wal::simulated::SimulatedDisk;

    const SEGMENT_BYTES: u64 = 1 << 20;

    fn batch(index: u64) -> Batch {
        let data = Bytes::from(vec![index as u8; 100]);
        Batch {
            vote: Default::default(),
            entries: vec![LogEntry { term: 1, index, kind: 0, data }],
            restored: None,
        }
    }

    /// Runs the log's thread over these tasks to its end; returns what it told.
    fn run(disk: &SimulatedDisk, tasks: impl IntoIterator<Item = LogTask>) -> Vec<Notice> {
        let (wal, _) = Wal::open(disk.clone(), 0, SEGMENT_BYTES).unwrap();
        let (sender, receiver) = sync_channel(100);
        let (notifier, mut notices) = mpsc::channel(100);
        tasks.into_iter().for_each(|task| sender.send(task).unwrap());
        drop(sender);
        write_log(wal, disk.clone(), &receiver, &notifier);
        drop(notifier);
        std::iter::from_fn(|| notices.blocking_recv()).collect()
    }

    fn entries(disk: &SimulatedDisk) -> usize {
        Wal::open(disk.clone(), 0, SEGMENT_BYTES).unwrap().1.entries.len()
    }

    #[test]
    fn what_is_told_as_persisted_survives_a_power_cut() {
        let disk = SimulatedDisk::new(3);
        let notices = run(&disk, [LogTask::Append { number: 7, batch: batch(1) }]);
        assert!(matches!(notices[..], [Notice::Persisted { number: 7, .. }]), "{notices:?}");
        disk.lose_power();
        assert_eq!(entries(&disk), 1);
    }

    #[test]
    fn batches_that_wait_together_share_one_sync() {
        let disk = SimulatedDisk::new(3);
        let tasks = (1..=50).map(|number| LogTask::Append { number, batch: batch(number) });
        let notices = run(&disk, tasks);
        assert!(matches!(notices[..], [Notice::Persisted { number: 50, .. }]), "{notices:?}");
        assert_eq!(disk.syncs(), 1);
        disk.lose_power();
        assert_eq!(entries(&disk), 50);
    }

    #[test]
    fn after_a_failed_sync_nothing_is_told_as_persisted() {
        let disk = SimulatedDisk::new(3);
        disk.fail_sync_after(0);
        let tasks = [LogTask::Append { number: 1, batch: batch(1) }];
        let notices = run(&disk, tasks);
        assert!(matches!(notices[..], [Notice::Failed(_)]), "{notices:?}");
    }

    #[test]
    fn a_snapshot_that_fails_leaves_no_room_taken() {
        let disk = SimulatedDisk::new(3);
        disk.set_capacity(20);
        let (pieces, receiver) = mpsc::channel(4);
        let (notifier, mut notices) = mpsc::channel(4);
        pieces.try_send((Machine::new().start_image(), false)).unwrap();
        pieces.try_send((vec![1; 100], true)).unwrap();
        write_snapshot(disk.clone(), disk.clone(), 5, 3, receiver, &notifier);
        let notice = notices.blocking_recv();
        assert!(
            matches!(notice, Some(Notice::Snapshot { index: 5, result: Err(_) })),
            "{notice:?}"
        );
        assert!(disk.list().unwrap().is_empty());

        // Given up half way, as at a stop.
        disk.set_capacity(u64::MAX);
        let (pieces, receiver) = mpsc::channel(4);
        pieces.try_send((vec![1; 100], false)).unwrap();
        drop(pieces);
        write_snapshot(disk.clone(), disk.clone(), 5, 3, receiver, &notifier);
        assert!(disk.list().unwrap().is_empty());
    }
}
