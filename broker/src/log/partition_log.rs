//! The log of one partition: segments in order, of which the last is appended to.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use elkfk_wire::kafka::records::{BatchMut, LeaderEpoch, NO_PRODUCER_ID, Offset, batches};

use super::config::TopicConfig;
use super::disk::{Disk, DiskFile};
use super::epochs::LeaderEpochs;
use super::files::{Files, file_name};
use super::producers::Producers;
use super::segment::{Active, SNAPSHOT, Sealed};
use super::validate::{AppendError, Origin, Validated};

pub(super) const EPOCH_FILE: &str = "leader-epoch-checkpoint";
pub(super) const METADATA_FILE: &str = "partition.metadata";

/// The log of one partition. Calls block on the disk; the caller locks.
///
/// `log_start <= recovery_point <= log_end`. Offsets below `recovery_point` survive a power cut.
#[derive(Debug)]
pub struct Log {
    pub(super) directory: Arc<Path>,
    pub(super) files: Arc<Files>,
    pub(super) config: TopicConfig,
    /// By base offset; all below that of `active`.
    pub(super) sealed: BTreeMap<Offset, Sealed>,
    pub(super) active: Active,
    pub(super) log_start: Offset,
    pub(super) log_end: Offset,
    pub(super) recovery_point: Offset,
    /// Below it the cleaner has been.
    pub(super) cleaned_to: Offset,
    pub(super) epochs: LeaderEpochs,
    pub(super) producers: Producers,
    /// Files of sealed segments that the next sync must cover besides the active one.
    pub(super) unsynced: Vec<Arc<dyn DiskFile>>,
    /// True where files were created since the directory was last synced.
    pub(super) is_directory_unsynced: bool,
    /// True where the directory itself may not be durable: it is as young as the log.
    pub(super) is_parent_unsynced: bool,
    /// True where the current epoch has appended nothing yet, and is not in its file either.
    pub(super) is_epoch_unwritten: bool,
    /// Truncations so far: a sync that one overtook says nothing.
    pub(super) truncations: u64,
    pub(super) cursors: super::read::Cursors,
}

/// What became of appended batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendInfo {
    /// The offset of the first record.
    pub base_offset: Offset,
    /// The offset after the last record: durable once the log is durable up to here.
    pub next_offset: Offset,
    /// The timestamp the records were given, where the topic is of `LogAppendTime`.
    pub log_append_time_ms: Option<i64>,
    pub log_start: Offset,
    /// True where the batch was in the log already: nothing was appended.
    pub is_duplicate: bool,
}

impl Log {
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The first readable offset.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The next offset to be written.
    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    /// What lies below is durable.
    pub fn recovery_point(&self) -> Offset {
        self.recovery_point
    }

    /// Bytes of all segments, without their indexes.
    pub fn bytes(&self) -> u64 {
        self.sealed.values().map(|segment| segment.bytes).sum::<u64>() + self.active.bytes
    }

    pub fn segment_count(&self) -> usize {
        self.sealed.len() + 1
    }

    pub fn config(&self) -> &TopicConfig {
        &self.config
    }

    pub fn configure(&mut self, config: TopicConfig) {
        self.config = config;
    }

    pub fn epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Forgets producers that wrote nothing since `oldest_ms`.
    pub fn expire_producers(&mut self, oldest_ms: i64) {
        self.producers.expire(oldest_ms);
    }

    /// The base offset of the oldest segment: below it nothing is on disk.
    pub fn first_base_offset(&self) -> Offset {
        self.sealed.keys().next().copied().unwrap_or(self.active.base_offset())
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.files.disk
    }

    /// Notes that the leader of `epoch` appends from here on.
    ///
    /// It is written with the first append: a broker that comes back leads hundreds of partitions
    /// anew, most of which see none for long.
    pub fn start_epoch(&mut self, epoch: LeaderEpoch) {
        self.is_epoch_unwritten |= self.epochs.assign(epoch, self.log_end);
    }

    pub(super) fn write_epochs(&mut self) -> io::Result<()> {
        let text = self.epochs.encode();
        self.disk().replace(&self.directory.join(EPOCH_FILE), text.as_bytes())?;
        self.is_epoch_unwritten = false;
        Ok(())
    }

    /// Has the next sync cover a file that belongs to the log.
    pub(crate) fn sync_with_next(&mut self, file: Arc<dyn DiskFile>) {
        self.unsynced.push(file);
    }

    /// True where the recovery point waits for sealed segments.
    pub fn has_unsynced_segments(&self) -> bool {
        !self.unsynced.is_empty()
    }

    /// Appends batches as the leader of `epoch`: their offsets are assigned here.
    ///
    /// A batch that an idempotent producer sent before is answered as it was then.
    ///
    /// # Errors
    /// Nothing was appended.
    pub fn append(
        &mut self,
        mut validated: Validated,
        epoch: LeaderEpoch,
        origin: Origin,
        now_ms: i64,
    ) -> Result<AppendInfo, AppendError> {
        if let Some(duplicate) = self.check_producers(&validated, origin)? {
            return Ok(duplicate);
        }
        if self.is_epoch_unwritten {
            self.write_epochs().map_err(append_error)?;
        }
        let base_offset = self.log_end;
        let next_offset = base_offset.plus(validated.records);
        let mut offset = base_offset;
        let mut at = 0;
        while at < validated.bytes.len() {
            let mut batch =
                BatchMut::parse(&mut validated.bytes[at..]).map_err(AppendError::Batch)?;
            batch.set_base_offset(offset);
            batch.set_leader_epoch(epoch);
            offset = batch.view().next_offset();
            at += batch.view().len();
        }
        self.append_assigned(&validated.bytes, next_offset, validated.max_timestamp_ms, now_ms)?;
        Ok(AppendInfo {
            base_offset,
            next_offset,
            log_append_time_ms: validated.log_append_time_ms,
            log_start: self.log_start,
            is_duplicate: false,
        })
    }

    /// Appends batches as a follower: they keep the offsets and epochs of their leader.
    pub fn append_replicated(&mut self, bytes: &[u8], now_ms: i64) -> Result<(), AppendError> {
        let mut next_offset = self.log_end;
        let mut max_timestamp_ms = -1;
        for batch in batches(bytes) {
            let batch = batch.map_err(AppendError::Batch)?;
            batch.check().map_err(AppendError::Batch)?;
            // A gap is what compaction on the leader leaves; going back is not.
            if batch.base_offset() < next_offset {
                return Err(AppendError::NotContiguous {
                    given: batch.base_offset(),
                    log_end: next_offset,
                });
            }
            next_offset = batch.next_offset();
            max_timestamp_ms = max_timestamp_ms.max(batch.max_timestamp_ms());
        }
        for batch in batches(bytes).flatten() {
            if self.epochs.assign(batch.leader_epoch(), batch.base_offset()) {
                self.write_epochs().map_err(append_error)?;
            }
        }
        self.append_assigned(bytes, next_offset, max_timestamp_ms, now_ms)
    }

    fn check_producers(
        &self,
        validated: &Validated,
        origin: Origin,
    ) -> Result<Option<AppendInfo>, AppendError> {
        if origin != Origin::Client {
            return Ok(None);
        }
        // With a producer there is one batch only: validate() saw to that.
        let Some(Ok(batch)) = batches(&validated.bytes).next() else { return Ok(None) };
        if batch.producer_id() == NO_PRODUCER_ID {
            return Ok(None);
        }
        if let Some(known) = self.producers.duplicate_of(&batch) {
            return Ok(Some(AppendInfo {
                base_offset: known.first_offset(),
                next_offset: known.last_offset.next(),
                log_append_time_ms: validated.log_append_time_ms.map(|_| known.timestamp_ms),
                log_start: self.log_start,
                is_duplicate: true,
            }));
        }
        self.producers.check(&batch)?;
        Ok(None)
    }

    fn append_assigned(
        &mut self,
        bytes: &[u8],
        next_offset: Offset,
        max_timestamp_ms: i64,
        now_ms: i64,
    ) -> Result<(), AppendError> {
        let last_offset = next_offset.plus(-1);
        if self.active.must_roll(bytes.len(), last_offset, max_timestamp_ms, now_ms, &self.config) {
            self.roll(now_ms).map_err(append_error)?;
        }
        let mut position = self.active.bytes;
        self.active.write(bytes, now_ms).map_err(append_error)?;
        for batch in batches(bytes).flatten() {
            self.active.note(position, &batch);
            self.producers.appended(&batch);
            position += batch.len() as u64;
        }
        self.log_end = next_offset;
        // The indexes are rebuilt where they fall behind; the batches are in the log already.
        if let Err(error) = self.active.write_indexes_sometimes(&self.files) {
            tracing::debug!(%error, path = %self.directory.display(), "index not written yet");
        }
        Ok(())
    }

    /// Ends the active segment and starts another at the log end. An empty one stays.
    pub(super) fn roll(&mut self, now_ms: i64) -> io::Result<()> {
        let base_offset = self.log_end;
        if self.active.base_offset() == base_offset {
            return Ok(());
        }
        let finished = self.active.finish(&self.files)?;
        let next = Active::create(&self.files, &self.directory, base_offset, &self.config, now_ms)
            .inspect_err(|_| Active::discard(&self.files, &self.directory, base_offset))?;
        let sealed = std::mem::replace(&mut self.active, next).seal();
        self.sealed.insert(sealed.files.base_offset, sealed);
        self.unsynced.extend(finished);
        self.is_directory_unsynced = true;
        match self.write_snapshot(base_offset) {
            Ok(file) => self.unsynced.push(file),
            // Without it the next start reads more of the log, nothing else.
            Err(error) => {
                tracing::warn!(%error, path = %self.directory.display(), "producer snapshot not written");
            }
        }
        Ok(())
    }

    /// Writes the producers as they are at `offset`, not yet durably.
    pub(super) fn write_snapshot(&self, offset: Offset) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk().open(&self.directory.join(file_name(offset, SNAPSHOT)), true)?;
        let bytes = self.producers.encode();
        file.set_len(bytes.len() as u64)?;
        file.write_at(0, &bytes)?;
        Ok(file)
    }

    /// What a sync has to cover so that all that is appended now becomes durable.
    ///
    /// `None` where it is already. Run it without the lock, then call [`Log::end_sync`].
    pub fn begin_sync(&mut self) -> Option<SyncWork> {
        if self.recovery_point >= self.log_end && self.unsynced.is_empty() {
            return None;
        }
        let mut files = std::mem::take(&mut self.unsynced);
        files.push(self.active.log.clone());
        let mut directories = Vec::new();
        if std::mem::take(&mut self.is_directory_unsynced) {
            directories.push(self.directory.to_path_buf());
        }
        if std::mem::take(&mut self.is_parent_unsynced) {
            directories.extend(self.directory.parent().map(Path::to_path_buf));
        }
        Some(SyncWork {
            up_to: self.log_end,
            files,
            directories,
            disk: self.files.disk.clone(),
            truncations: self.truncations,
        })
    }

    /// Notes that `work` has succeeded. Returns what is durable now.
    ///
    /// A failed one is never noted nor run again: the kernel may have dropped the pages and would
    /// call the next one a success.
    pub fn end_sync(&mut self, work: &SyncWork) -> Offset {
        if work.truncations == self.truncations {
            self.recovery_point = self.recovery_point.max(work.up_to);
        }
        self.recovery_point
    }

    /// Makes all durable and leaves the files as an orderly stop should.
    pub fn close(&mut self) -> io::Result<()> {
        if self.is_epoch_unwritten {
            self.write_epochs()?;
        }
        let finished = self.active.finish(&self.files)?;
        self.unsynced.extend(finished);
        self.unsynced.push(self.write_snapshot(self.log_end)?);
        self.is_directory_unsynced = true;
        if let Some(work) = self.begin_sync() {
            work.run()?;
            self.end_sync(&work);
        }
        Ok(())
    }
}

/// Tells a full disk, which heals, from a broken one.
pub(super) fn append_error(error: io::Error) -> AppendError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppendError::DiskFull,
        _ => AppendError::Io(error),
    }
}

/// See [`Log::begin_sync`].
#[derive(Debug)]
pub struct SyncWork {
    /// What becomes durable.
    pub up_to: Offset,
    files: Vec<Arc<dyn DiskFile>>,
    directories: Vec<PathBuf>,
    disk: Arc<dyn Disk>,
    truncations: u64,
}

impl SyncWork {
    pub fn run(&self) -> io::Result<()> {
        for file in &self.files {
            file.sync_data()?;
        }
        // Last: a name that leads to bytes not yet there would be the worse half.
        self.directories.iter().try_for_each(|directory| self.disk.sync_directory(directory))
    }
}
