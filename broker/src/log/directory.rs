//! One of `log.dirs`: its flushers, its free space, whether it has failed.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::files::{Files, lock};
use super::validate::AppendError;
use crate::partition::Partition;

/// When an append counts as safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Once an fdatasync has covered it; one covers all that waited meanwhile.
    #[default]
    Group,
    /// Once the operating system has it, as Kafka does; synced by `flush.messages`, `flush.ms`
    /// and at the end of each segment.
    Kafka,
}

/// Syncs of different partitions that run at once: their journal commits are shared.
const FLUSHERS: usize = 4;

/// How long the answer to "is the disk full" is believed.
const SPACE_CHECK_MS: i64 = 500;

/// One of `log.dirs`. Shared by the partitions in it.
#[derive(Debug)]
pub struct LogDirectory {
    path: PathBuf,
    files: Arc<Files>,
    /// Appends are refused below this, so that indexes, checkpoints and deletes still find room.
    reserve_bytes: u64,
    is_full: AtomicBool,
    space_checked_ms: AtomicI64,
    failure: watch::Sender<Option<String>>,
    syncs: Mutex<Syncs>,
    /// Signalled when `syncs` changed.
    synced: Condvar,
    flushers: Mutex<Vec<JoinHandle<()>>>,
    /// Files and directories to remove, and when.
    doomed: Mutex<VecDeque<(Instant, PathBuf)>>,
}

#[derive(Debug, Default)]
struct Syncs {
    /// Each partition stands here once at most.
    waiting: VecDeque<Arc<Partition>>,
    is_stopping: bool,
}

impl LogDirectory {
    pub(super) fn new(path: &Path, files: Arc<Files>, reserve_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            path: path.into(),
            files,
            reserve_bytes,
            is_full: AtomicBool::new(false),
            space_checked_ms: AtomicI64::new(0),
            failure: watch::Sender::new(None),
            syncs: Mutex::default(),
            synced: Condvar::new(),
            flushers: Mutex::default(),
            doomed: Mutex::default(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// Why the directory has failed, if it has.
    pub fn failed(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// Tells when the directory fails.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }

    /// Gives the directory up: nothing in it is read or written until a restart.
    pub(crate) fn fail(&self, cause: &str) {
        self.failure.send_if_modified(|failure| {
            let is_first = failure.is_none();
            if is_first {
                tracing::error!(path = %self.path.display(), cause, "log directory has failed, its partitions are offline until a restart");
                *failure = Some(cause.to_owned());
            }
            is_first
        });
    }

    /// True while appends are refused for want of space.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Refuses appends while less than the reserve is free; looks again every half second.
    pub(crate) fn check_space(&self, now_ms: i64) -> Result<(), AppendError> {
        let checked_ms = self.space_checked_ms.load(Ordering::Relaxed);
        if (now_ms - checked_ms).abs() >= SPACE_CHECK_MS {
            self.space_checked_ms.store(now_ms, Ordering::Relaxed);
            // A disk that cannot say is asked by writing to it.
            let free = self.files.disk.free_bytes(&self.path).unwrap_or(u64::MAX);
            self.set_full(free < self.reserve_bytes, free);
        }
        if self.is_full() { Err(AppendError::DiskFull) } else { Ok(()) }
    }

    /// Notes that a write found no space.
    pub(crate) fn note_full(&self, now_ms: i64) {
        self.space_checked_ms.store(now_ms, Ordering::Relaxed);
        self.set_full(true, 0);
    }

    fn set_full(&self, is_full: bool, free_bytes: u64) {
        if self.is_full.swap(is_full, Ordering::Relaxed) == is_full {
            return;
        }
        let path = self.path.display();
        if is_full {
            tracing::error!(%path, free_bytes, reserve_bytes = self.reserve_bytes, "disk is full, appends are refused until there is space");
        } else {
            tracing::info!(%path, free_bytes, "disk has space again, appends go on");
        }
    }

    pub(crate) fn queue_sync(&self, partition: Arc<Partition>) {
        lock(&self.syncs).waiting.push_back(partition);
        self.synced.notify_one();
    }

    /// Starts the threads that sync what partitions have appended.
    pub(super) fn start_flushers(self: &Arc<Self>) -> io::Result<()> {
        for _ in 0..FLUSHERS {
            let directory = self.clone();
            let flusher = std::thread::Builder::new()
                .name("log-flusher".to_owned())
                .spawn(move || directory.flush_until_stopped())?;
            lock(&self.flushers).push(flusher);
        }
        Ok(())
    }

    fn flush_until_stopped(&self) {
        loop {
            let mut syncs = lock(&self.syncs);
            while syncs.waiting.is_empty() && !syncs.is_stopping {
                syncs = self.synced.wait(syncs).unwrap_or_else(PoisonError::into_inner);
            }
            let Some(partition) = syncs.waiting.pop_front() else { return };
            drop(syncs);
            // After a failure never again: the kernel may have dropped what it could not write,
            // and would report the next sync a success.
            if self.failed().is_none()
                && let Err(error) = partition.sync()
            {
                let name = format!("{}-{}", partition.topic(), partition.partition());
                self.fail(&format!("sync {name}: {error}"));
            }
        }
    }

    /// Stops the flushers once they have synced what waits.
    pub(super) fn stop_flushers(&self) {
        lock(&self.syncs).is_stopping = true;
        self.synced.notify_all();
        for flusher in std::mem::take(&mut *lock(&self.flushers)) {
            let _ = flusher.join();
        }
    }

    /// Removes files or directories after `delay`, when no reader can be using them.
    pub(crate) fn remove_later(&self, paths: Vec<PathBuf>, delay: Duration) {
        let due = Instant::now() + delay;
        lock(&self.doomed).extend(paths.into_iter().map(|path| (due, path)));
    }

    /// Removes what is due. A next start removes the rest.
    pub(super) fn remove_due(&self, now: Instant) {
        loop {
            let path = {
                let mut doomed = lock(&self.doomed);
                let Some(index) = doomed.iter().position(|(due, _)| *due <= now) else { return };
                doomed.remove(index).expect("just found").1
            };
            let is_directory =
                path.extension().is_some_and(|it| it.to_string_lossy().ends_with("-delete"));
            let disk = &self.files.disk;
            let removed =
                if is_directory { disk.remove_directory(&path) } else { disk.remove_file(&path) };
            match removed {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "not removed, the next start will try again")
                }
            }
        }
    }
}
