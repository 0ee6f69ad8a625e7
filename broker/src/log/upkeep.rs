//! What the logs of a broker need from time to time: retention, cleaning, checkpoints, removals.

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use elkfk_base::errors::in_one_line;
use elkfk_base::{Tasks, now_ms};
use elkfk_wire::kafka::records::Offset;

use super::checkpoint::{OffsetCheckpoint, encode_offsets};
use super::directory::Durability;
use super::files::lock;
use super::manager::{CLEANED_TO, HIGH_WATERMARKS, LOG_STARTS, LogManager, RECOVERY_POINTS};
use crate::partition::Partition;

/// `log.cleaner.backoff.ms`.
const CLEANER_PAUSE: Duration = Duration::from_secs(15);

impl LogManager {
    /// Starts retention, checkpoints and removals. Topics have their configurations by now.
    pub fn start(self: &Arc<Self>, tasks: &Tasks) {
        self.start_cleaner(tasks);
        let manager = self.clone();
        let stop = tasks.token();
        tasks.spawn("log upkeep", async move {
            let mut upkeep = Upkeep::new(Instant::now());
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    _ = ticks.tick() => {}
                }
                let manager = manager.clone();
                let work = move || {
                    upkeep.run(&manager, Instant::now());
                    upkeep
                };
                match tokio::task::spawn_blocking(work).await {
                    Ok(after) => upkeep = after,
                    Err(error) => {
                        tracing::error!(%error, "log upkeep failed");
                        break;
                    }
                }
            }
        });
    }

    /// Starts the cleaner, apart from other upkeep: a large log may keep it busy.
    fn start_cleaner(self: &Arc<Self>, tasks: &Tasks) {
        let manager = self.clone();
        let stop = tasks.token();
        tasks.spawn("log cleaner", async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(CLEANER_PAUSE) => {}
                }
                let manager = manager.clone();
                if let Err(error) = tokio::task::spawn_blocking(move || manager.clean()).await {
                    tracing::error!(%error, "log cleaner failed, it is tried again");
                }
            }
        });
    }

    /// Applies retention to every partition, now.
    pub fn apply_retention(&self, now_ms: i64) {
        let expiration = i64::try_from(self.config.producer_expiration.as_millis());
        let oldest_ms = now_ms.saturating_sub(expiration.unwrap_or(i64::MAX));
        for partition in self.partitions() {
            if partition.directory().failed().is_some() {
                continue;
            }
            if let Err(error) = partition.tidy(now_ms, oldest_ms) {
                tracing::warn!(%error, topic = partition.topic(), partition = partition.partition(), "retention failed, it is tried again");
            }
        }
    }

    /// Cleans the compacted logs that are dirty. Blocks, for long where there is much.
    pub fn clean(&self) {
        let mut is_cleaned = false;
        for partition in self.partitions() {
            if partition.directory().failed().is_some() {
                continue;
            }
            let (topic, number) = (partition.topic(), partition.partition());
            // A panic over what one log holds must not keep the others from being cleaned: it happens
            // where nothing is locked, and leaves a temporary file at most.
            let cleaned = std::panic::catch_unwind(AssertUnwindSafe(|| partition.clean(now_ms())));
            let Ok(cleaned) = cleaned else {
                tracing::error!(topic, partition = number, "log cleaner failed over this log");
                continue;
            };
            match cleaned {
                Ok(None) => {}
                Ok(Some((before, after))) => {
                    is_cleaned = true;
                    tracing::info!(
                        topic,
                        partition = number,
                        before_bytes = before,
                        after_bytes = after,
                        "log cleaned"
                    );
                }
                // One partition that cannot be cleaned holds no other one up.
                Err(error) => {
                    tracing::error!(error = %in_one_line(&error), topic, partition = number, "log cannot be cleaned, it goes on growing");
                }
            }
        }
        if is_cleaned && let Err((path, error)) = self.checkpoint_cleaned() {
            tracing::warn!(%error, path = %path.display(), "checkpoint not written yet");
        }
    }

    fn checkpoint_cleaned(&self) -> Result<(), (PathBuf, io::Error)> {
        for directory in &self.directories {
            let offsets = self
                .partitions()
                .iter()
                .filter(|it| Arc::ptr_eq(it.directory(), directory))
                .filter_map(|it| {
                    let cleaned_to = it.cleaned_to().filter(|offset| *offset > Offset::ZERO)?;
                    Some(((it.topic().to_owned(), it.partition()), cleaned_to))
                })
                .collect();
            self.write_offsets(directory.path().join(CLEANED_TO), &offsets)?;
        }
        Ok(())
    }

    /// Writes all checkpoints that have changed.
    pub(super) fn checkpoint_all(&self) -> Result<(), (PathBuf, io::Error)> {
        self.checkpoint(true, true)
    }

    pub(super) fn checkpoint(
        &self,
        with_watermarks: bool,
        with_points: bool,
    ) -> Result<(), (PathBuf, io::Error)> {
        for directory in &self.directories {
            if directory.failed().is_some() {
                continue;
            }
            let (mut points, mut starts, mut watermarks) =
                (OffsetCheckpoint::new(), OffsetCheckpoint::new(), OffsetCheckpoint::new());
            for partition in self.partitions() {
                if !Arc::ptr_eq(partition.directory(), directory) {
                    continue;
                }
                let key = (partition.topic().to_owned(), partition.partition());
                let (point, start, watermark) = partition.checkpoint();
                points.insert(key.clone(), point);
                if let Some(start) = start {
                    starts.insert(key.clone(), start);
                }
                watermarks.insert(key, watermark);
            }
            // What is known of logs that could not be opened stays known.
            for (key, offline) in lock(&self.offline).iter() {
                if !Arc::ptr_eq(&offline.directory, directory) {
                    continue;
                }
                points.insert(key.clone(), offline.hints.recovery_point);
                if offline.hints.log_start > Offset::ZERO {
                    starts.insert(key.clone(), offline.hints.log_start);
                }
                watermarks.insert(key.clone(), offline.high_watermark);
            }
            if with_watermarks {
                self.write_offsets(directory.path().join(HIGH_WATERMARKS), &watermarks)?;
            }
            if with_points {
                self.write_offsets(directory.path().join(RECOVERY_POINTS), &points)?;
                self.write_offsets(directory.path().join(LOG_STARTS), &starts)?;
            }
        }
        Ok(())
    }

    fn write_offsets(
        &self,
        path: PathBuf,
        offsets: &OffsetCheckpoint,
    ) -> Result<(), (PathBuf, io::Error)> {
        let text = encode_offsets(offsets);
        let mut written = lock(&self.written);
        if written.get(&path) != Some(&text) {
            match self.disk().replace(&path, text.as_bytes()) {
                Ok(()) => drop(written.insert(path, text)),
                Err(error) => return Err((path, error)),
            }
        }
        Ok(())
    }
}

/// When which upkeep was done last.
#[derive(Debug)]
struct Upkeep {
    retention: Instant,
    checkpoint: Instant,
    high_watermarks: Instant,
    synced: Instant,
}

impl Upkeep {
    fn new(now: Instant) -> Self {
        Self { retention: now, checkpoint: now, high_watermarks: now, synced: now }
    }

    fn run(&mut self, manager: &LogManager, now: Instant) {
        let is_due = |last: &mut Instant, interval: Duration| {
            let is_due = now.duration_since(*last) >= interval;
            if is_due {
                *last = now;
            }
            is_due
        };
        for directory in &manager.directories {
            directory.remove_due(now);
        }
        if manager.config.durability == Durability::Kafka {
            // `synced` counts from the tick at which nothing was due: at most a second too late.
            let unsynced_for = now.duration_since(self.synced);
            let due: Vec<_> = manager
                .partitions()
                .into_iter()
                .filter(|partition| partition.is_sync_due(unsynced_for))
                .collect();
            if !due.is_empty() {
                self.synced = now;
            }
            due.iter().for_each(Partition::request_sync);
        }
        if is_due(&mut self.retention, manager.config.retention_check_interval) {
            manager.apply_retention(now_ms());
        }
        let points = is_due(&mut self.checkpoint, manager.config.checkpoint_interval);
        if (is_due(&mut self.high_watermarks, manager.config.high_watermark_interval) || points)
            && let Err((path, error)) = manager.checkpoint(true, points)
        {
            tracing::warn!(%error, path = %path.display(), "checkpoint not written, it is tried again");
        }
    }
}
