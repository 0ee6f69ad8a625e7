//! Opening a log: after an orderly stop, after a crash, after a truncation.
//!
//! After an orderly stop only the last segment's tail is read. After a crash the segments from the
//! recovery point on are walked with their checksums, indexes and producers rebuilt. A batch damaged
//! at or above the recovery point was torn by the crash and never acknowledged as durable: the log
//! ends before it. Below the recovery point damage is bit rot, not a torn write, and nothing is ever
//! cut for it: the batch is kept, or where it leads nowhere the partition stays offline.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use elkfk_wire::kafka::records::{BatchError, Offset};

use super::checkpoint::CheckpointError;
use super::config::TopicConfig;
use super::epochs::LeaderEpochs;
use super::files::{Files, file_name, parse_file_name};
use super::partition_log::{EPOCH_FILE, Log};
use super::producers::Producers;
use super::read::Cursors;
use super::scan::{ScanError, Scanner};
use super::segment::{
    ABORTED_INDEX, Active, DELETED, LOG, OFFSET_INDEX, SNAPSHOT, Sealed, SegmentFiles, TIME_INDEX,
};

/// Why a log cannot be opened. The log stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{action} {path}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{path} has batches of an old format ({source}); convert them with a Kafka of 2.x or \
         delete the topic"
    )]
    OldFormat { path: PathBuf, source: BatchError },
    #[error(
        "{path} is damaged at position {position}, below offset {recovery_point} that was durable \
         ({source}); restore it from a copy, or remove {path} to give its records up"
    )]
    Damaged { path: PathBuf, position: u64, recovery_point: Offset, source: BatchError },
    #[error("read {path}")]
    Checkpoint { path: PathBuf, source: CheckpointError },
}

/// What is known of a log before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenHints {
    /// The broker was stopped in order: no segment needs to be walked.
    pub is_clean: bool,
    /// Of `recovery-point-offset-checkpoint`.
    pub recovery_point: Offset,
    /// Of `log-start-offset-checkpoint`.
    pub log_start: Offset,
    /// Of `cleaner-offset-checkpoint`.
    pub cleaned_to: Offset,
}

/// What opening a log had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Bytes walked with their checksums.
    pub walked_bytes: u64,
    /// Bytes cut off the end: torn, or after something torn.
    pub cut_bytes: u64,
    /// Damaged batches that stay, below the recovery point.
    pub damaged_batches: u64,
    /// Offsets from the log end to the recovery point: they were durable, and are not there.
    pub missing_offsets: u64,
}

impl Log {
    /// Opens the log in `directory`, which exists; an empty one becomes a new log.
    pub fn open(
        files: Arc<Files>,
        directory: &Path,
        config: TopicConfig,
        hints: OpenHints,
        now_ms: i64,
    ) -> Result<(Self, Recovery), LogError> {
        let directory: Arc<Path> = directory.into();
        let at = |action, source| LogError::Io { action, path: directory.to_path_buf(), source };
        let mut found = survey(&files, &directory).map_err(|source| at("list", source))?;
        if !config.is_compacted {
            drop_empty(&files, &directory, &mut found).map_err(|source| at("tidy", source))?;
        }
        let epochs = read_epochs(&files, &directory)?;
        let mut opening = Opening {
            files: &files,
            directory: &directory,
            config: &config,
            recovery_point: hints.recovery_point,
            now_ms,
            recovery: Recovery::default(),
            unsynced: Vec::new(),
        };
        let (sealed, active, log_end) = opening.segments(&found, hints)?;
        let (mut recovery, unsynced) = (opening.recovery, opening.unsynced);
        // A copy from before, or a file taken away: the log cannot know, and its operator should.
        let missing = hints.recovery_point.0.saturating_sub(log_end.0).max(0);
        recovery.missing_offsets = missing.unsigned_abs();

        let first = sealed.keys().next().copied().unwrap_or(active.base_offset());
        let mut log = Self {
            log_start: hints.log_start.max(first).min(log_end),
            log_end,
            recovery_point: log_end,
            cleaned_to: hints.cleaned_to.min(log_end),
            directory: directory.clone(),
            files,
            config,
            sealed,
            active,
            epochs,
            producers: Producers::default(),
            unsynced,
            is_parent_unsynced: found.segments.is_empty(),
            is_epoch_unwritten: false,
            is_directory_unsynced: found.segments.is_empty() || !hints.is_clean,
            truncations: 0,
            cursors: Cursors::default(),
        };
        let is_changed =
            log.epochs.truncate_end(log_end) | log.epochs.truncate_start(log.log_start);
        if is_changed {
            log.write_epochs().map_err(|source| at("write epochs in", source))?;
        }
        log.remove_stray_snapshots(&found.snapshots).map_err(|source| at("tidy", source))?;
        log.reload_producers().map_err(|source| at("read producers in", source))?;
        // A new log holds nothing to lose: its files are synced with its first records.
        let is_young = found.segments.is_empty();
        if !is_young && (!hints.is_clean || !log.unsynced.is_empty()) {
            // What is read back now may still be on its way to the disk. Nobody may see it before
            // it would survive the next crash too.
            log.unsynced.push(log.active.log.clone());
            let work = log.begin_sync().expect("files are unsynced");
            work.run().map_err(|source| at("sync", source))?;
            log.end_sync(&work);
        }
        Ok((log, recovery))
    }

    /// Rebuilds the producers from the newest snapshot that can be read, and the log after it.
    pub(super) fn reload_producers(&mut self) -> io::Result<()> {
        let mut from = self.log_start;
        self.producers.clear();
        let mut snapshots: Vec<Offset> = self
            .disk()
            .list(&self.directory)?
            .iter()
            .filter_map(|entry| parse_file_name(&entry.name, SNAPSHOT))
            .filter(|&offset| offset <= self.log_end)
            .collect();
        snapshots.sort();
        while let Some(offset) = snapshots.pop() {
            let path = self.directory.join(file_name(offset, SNAPSHOT));
            match Producers::decode(&self.disk().read(&path)?) {
                Ok(producers) => {
                    self.producers = producers;
                    from = offset;
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "producer snapshot left out");
                    self.disk().remove_file(&path)?;
                }
            }
        }
        let segments: Vec<_> = self
            .sealed
            .values()
            .map(|sealed| (sealed.files.clone(), sealed.bytes))
            .chain([(self.active.files.clone(), self.active.bytes)])
            .collect();
        for (index, (segment, end)) in segments.iter().enumerate() {
            let is_before =
                segments.get(index + 1).is_some_and(|(next, _)| next.base_offset <= from);
            if is_before || from >= self.log_end {
                continue;
            }
            let mut scanner = Scanner::new(segment.log.get(&self.files)?, 0, *end);
            loop {
                match scanner.next_batch() {
                    Ok(Some((_, batch))) if batch.base_offset() >= from => {
                        self.producers.appended(&batch);
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(ScanError::Io { source, .. }) => return Err(source),
                    // Older segments are not walked with checksums: their producers are long gone.
                    Err(ScanError::Batch { position, source }) => {
                        let path = segment.log.path();
                        tracing::error!(error = %source, position, path = %path.display(), "segment is damaged");
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Keeps the snapshots at the start of segments and the newest: others help nobody.
    fn remove_stray_snapshots(&self, snapshots: &BTreeSet<Offset>) -> io::Result<()> {
        let newest = snapshots.range(..=self.log_end).next_back().copied();
        for &offset in snapshots {
            let is_at_segment =
                self.sealed.contains_key(&offset) || self.active.base_offset() == offset;
            if offset > self.log_end || (!is_at_segment && Some(offset) != newest) {
                remove_if_there(self.disk(), &self.directory.join(file_name(offset, SNAPSHOT)))?;
            }
        }
        Ok(())
    }

    /// Cuts the log so that it ends at `offset` at the latest, where a batch starts.
    pub fn truncate_to(&mut self, offset: Offset, now_ms: i64) -> Result<(), LogError> {
        if offset >= self.log_end {
            return Ok(());
        }
        if offset <= self.first_base_offset() {
            return self.truncate_fully(offset, now_ms);
        }
        self.note_truncation();
        let directory = self.directory.clone();
        let at =
            |source| LogError::Io { action: "truncate", path: directory.to_path_buf(), source };
        if self.active.base_offset() >= offset {
            // The segment that holds the new end becomes the active one, the rest goes.
            let base = *self.sealed.range(..offset).next_back().expect("a segment starts below").0;
            let above = self.sealed.split_off(&base.next());
            let sealed = self.sealed.remove(&base).expect("just found");
            let log = sealed.files.log.get(&self.files).map_err(at)?;
            let reopened = Active::over(sealed.files, log, sealed.bytes, &self.config, now_ms);
            let old = std::mem::replace(&mut self.active, reopened);
            for gone in above.values().map(|sealed| &sealed.files).chain([&old.files]) {
                self.discard(gone).map_err(at)?;
            }
        }
        let segment = self.active.files.clone();
        let mut rebuilt =
            Active::over(segment, self.active.log.clone(), self.active.bytes, &self.config, now_ms);
        let mut scanner = Scanner::new(rebuilt.log.clone(), 0, rebuilt.bytes);
        let mut log_end = offset;
        let mut end = rebuilt.bytes;
        loop {
            match scanner.next_batch() {
                Ok(Some((position, batch))) if batch.last_offset() >= offset => {
                    end = position;
                    log_end = offset.min(batch.base_offset());
                    break;
                }
                Ok(Some((position, batch))) => rebuilt.note(position, &batch),
                Ok(None) => break,
                Err(ScanError::Io { source, .. }) => return Err(at(source)),
                Err(ScanError::Batch { position, source }) => {
                    return Err(LogError::Damaged {
                        path: rebuilt.files.log.path(),
                        position,
                        recovery_point: self.recovery_point,
                        source,
                    });
                }
            }
        }
        rebuilt.cut(&self.files, end).map_err(at)?;
        self.active = rebuilt;
        self.log_end = log_end;
        self.recovery_point = self.recovery_point.min(log_end);
        self.log_start = self.log_start.min(log_end);
        self.cleaned_to = self.cleaned_to.min(log_end);
        if self.epochs.truncate_end(log_end) {
            self.write_epochs().map_err(at)?;
        }
        self.drop_snapshots_after(log_end).map_err(at)?;
        self.reload_producers().map_err(at)
    }

    /// Removes all there is and starts anew at `offset`.
    pub fn truncate_fully(&mut self, offset: Offset, now_ms: i64) -> Result<(), LogError> {
        self.note_truncation();
        let directory = self.directory.clone();
        let at =
            |source| LogError::Io { action: "truncate", path: directory.to_path_buf(), source };
        for sealed in std::mem::take(&mut self.sealed).values() {
            self.discard(&sealed.files).map_err(at)?;
        }
        self.discard(&self.active.files).map_err(at)?;
        self.active = Active::create(&self.files, &self.directory, offset, &self.config, now_ms)
            .map_err(at)?;
        self.is_directory_unsynced = true;
        (self.log_start, self.log_end, self.recovery_point) = (offset, offset, offset);
        self.cleaned_to = offset;
        self.epochs.clear();
        self.write_epochs().map_err(at)?;
        self.producers.clear();
        self.drop_snapshots_after(Offset(-1)).map_err(at)
    }

    fn note_truncation(&mut self) {
        self.truncations += 1;
        self.unsynced.clear();
        self.cursors.clear();
    }

    fn discard(&self, segment: &SegmentFiles) -> io::Result<()> {
        for path in segment.retire(&self.files, &self.directory)? {
            self.disk().remove_file(&path)?;
        }
        Ok(())
    }

    fn drop_snapshots_after(&self, offset: Offset) -> io::Result<()> {
        for entry in self.disk().list(&self.directory)? {
            if parse_file_name(&entry.name, SNAPSHOT).is_some_and(|found| found > offset) {
                self.disk().remove_file(&self.directory.join(entry.name))?;
            }
        }
        Ok(())
    }
}

/// What lies in the directory of a log.
#[derive(Debug, Default)]
struct Survey {
    /// Bytes and time of change of each segment's log.
    segments: BTreeMap<Offset, (u64, i64)>,
    /// Bytes of the indexes found.
    offset_indexes: BTreeMap<Offset, u64>,
    time_indexes: BTreeMap<Offset, u64>,
    snapshots: BTreeSet<Offset>,
}

/// Lists the directory, and removes what a crash left half done.
fn survey(files: &Files, directory: &Path) -> io::Result<Survey> {
    let disk = &*files.disk;
    let mut found = Survey::default();
    let mut entries = disk.list(directory)?;
    // A cleaner (Kafka's, or ours) had finished these and was putting them in place: its log file
    // comes last. Without one the old segments are still whole.
    let is_swapping = entries.iter().any(|entry| entry.name.ends_with(".log.swap"));
    if is_swapping {
        finish_swap(files, directory, &entries)?;
        entries = disk.list(directory)?;
    }
    for entry in entries {
        let name = entry.name.as_str();
        if [DELETED, ".cleaned", ".swap", ".tmp"].iter().any(|suffix| name.ends_with(suffix)) {
            disk.remove_file(&directory.join(name))?;
        } else if let Some(base) = parse_file_name(name, LOG) {
            found.segments.insert(base, (entry.bytes, entry.modified_ms));
        } else if let Some(base) = parse_file_name(name, OFFSET_INDEX) {
            found.offset_indexes.insert(base, entry.bytes);
        } else if let Some(base) = parse_file_name(name, TIME_INDEX) {
            found.time_indexes.insert(base, entry.bytes);
        } else if let Some(offset) = parse_file_name(name, SNAPSHOT) {
            found.snapshots.insert(offset);
        }
    }
    for (indexes, suffix) in
        [(&found.offset_indexes, OFFSET_INDEX), (&found.time_indexes, TIME_INDEX)]
    {
        for &base in indexes.keys().filter(|base| !found.segments.contains_key(base)) {
            disk.remove_file(&directory.join(file_name(base, suffix)))?;
        }
    }
    Ok(found)
}

/// Removes empty segments beside others: a roll that failed half way left them, and the records
/// went on into the one before, where nobody would look for them. (Cleaning leaves empty ones too,
/// whose base offsets count.)
fn drop_empty(files: &Files, directory: &Path, found: &mut Survey) -> io::Result<()> {
    let Some((&first, _)) = found.segments.first_key_value() else { return Ok(()) };
    let is_empty = |(base, (bytes, _)): (&Offset, &(u64, i64))| {
        (*bytes == 0 && *base > first).then_some(*base)
    };
    let empty: Vec<Offset> = found.segments.iter().filter_map(is_empty).collect();
    for base in empty {
        for suffix in [LOG, OFFSET_INDEX, TIME_INDEX] {
            remove_if_there(&*files.disk, &directory.join(file_name(base, suffix)))?;
        }
        found.segments.remove(&base);
        found.offset_indexes.remove(&base);
        found.time_indexes.remove(&base);
    }
    Ok(())
}

/// Puts cleaned segments in the place of those whose offsets they cover.
fn finish_swap(files: &Files, directory: &Path, entries: &[super::disk::Entry]) -> io::Result<()> {
    let disk = &*files.disk;
    for swap in entries.iter().filter(|entry| entry.name.ends_with(".log.swap")) {
        let name = swap.name.trim_end_matches(".swap");
        let Some(base) = parse_file_name(name, LOG) else { continue };
        let file = disk.open(&directory.join(&swap.name), false)?;
        let mut scanner = Scanner::new(file, 0, swap.bytes);
        let mut end = base;
        let is_whole = loop {
            match scanner.next_batch() {
                Ok(Some((_, batch))) if batch.check().is_ok() => end = batch.next_offset(),
                Ok(None) => break true,
                Ok(Some(_)) | Err(_) => break false,
            }
        };
        if !is_whole {
            continue;
        }
        for old in entries.iter().filter_map(|entry| parse_file_name(&entry.name, LOG)) {
            if old > base && old < end {
                for suffix in [LOG, OFFSET_INDEX, TIME_INDEX, ABORTED_INDEX] {
                    remove_if_there(disk, &directory.join(file_name(old, suffix)))?;
                }
            }
        }
        for suffix in [OFFSET_INDEX, TIME_INDEX] {
            // Rebuilt from the log: cheaper than to find out which of both would fit.
            remove_if_there(disk, &directory.join(file_name(base, suffix)))?;
        }
        disk.rename(&directory.join(&swap.name), &directory.join(name))?;
    }
    disk.sync_directory(directory)
}

fn remove_if_there(disk: &dyn super::disk::Disk, path: &Path) -> io::Result<()> {
    match disk.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read_epochs(files: &Files, directory: &Path) -> Result<LeaderEpochs, LogError> {
    let path = directory.join(EPOCH_FILE);
    match files.disk.read(&path) {
        Ok(bytes) => LeaderEpochs::decode(&String::from_utf8_lossy(&bytes))
            .map_err(|source| LogError::Checkpoint { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LeaderEpochs::default()),
        Err(source) => Err(LogError::Io { action: "read", path, source }),
    }
}

/// The segments of a log that is being opened.
struct Opening<'o> {
    files: &'o Arc<Files>,
    directory: &'o Arc<Path>,
    config: &'o TopicConfig,
    recovery_point: Offset,
    now_ms: i64,
    recovery: Recovery,
    unsynced: Vec<Arc<dyn super::disk::DiskFile>>,
}

impl Opening<'_> {
    /// Sealed segments, the active one, and the log end.
    fn segments(
        &mut self,
        found: &Survey,
        hints: OpenHints,
    ) -> Result<(BTreeMap<Offset, Sealed>, Active, Offset), LogError> {
        let mut sealed = BTreeMap::new();
        let Some((&last, _)) = found.segments.last_key_value() else {
            let active = Active::create(
                self.files,
                self.directory,
                hints.log_start,
                self.config,
                self.now_ms,
            )
            .map_err(|source| self.io("create segment in", self.directory, source))?;
            return Ok((sealed, active, hints.log_start));
        };
        // The segment that holds the recovery point is walked too: its indexes are not synced.
        let walk_from = match hints.is_clean {
            true => None,
            false => {
                let holder = found.segments.range(..=hints.recovery_point).next_back();
                Some(holder.or(found.segments.first_key_value()).map_or(last, |(&base, _)| base))
            }
        };
        let bases: Vec<Offset> = found.segments.keys().copied().collect();
        for (index, &base) in bases.iter().enumerate() {
            let (bytes, modified_ms) = found.segments[&base];
            let is_walked = walk_from.is_some_and(|from| base >= from);
            let is_last = base == last;
            if !is_walked && !is_last {
                let segment = SegmentFiles::new(self.directory, base);
                if !has_indexes(found, base) {
                    let (mut active, _) = self.walk(segment.clone(), bytes, false)?;
                    let synced = active
                        .finish(self.files)
                        .map_err(|source| self.io("write index in", self.directory, source))?;
                    self.unsynced.extend(synced);
                }
                sealed.insert(base, Sealed::new(segment, bytes, modified_ms));
                continue;
            }
            let segment = SegmentFiles::new(self.directory, base);
            let (mut active, log_end) = match is_walked {
                true => self.walk(segment, bytes, true)?,
                false => self.tail(segment, bytes)?,
            };
            active.modified_ms = modified_ms;
            // A tail lost at a batch's end leaves no torn batch, only a gap before the segment that
            // followed. Compaction leaves such gaps too, and only in what is durable.
            let has_gap = is_walked
                && bases.get(index + 1).is_some_and(|&next| next > log_end)
                && log_end >= self.recovery_point
                && !self.config.is_compacted;
            let is_cut = active.bytes < bytes || has_gap;
            if is_last || is_cut {
                // After a cut nothing that follows continues the log.
                for &gone in &bases[index + 1..] {
                    self.recovery.cut_bytes += found.segments[&gone].0;
                    let retired = SegmentFiles::new(self.directory, gone)
                        .retire(self.files, self.directory)
                        .and_then(|paths| {
                            paths.iter().try_for_each(|path| self.files.disk.remove_file(path))
                        });
                    retired
                        .map_err(|source| self.io("remove segment in", self.directory, source))?;
                }
                return Ok((sealed, active, log_end));
            }
            let synced = active
                .finish(self.files)
                .map_err(|source| self.io("write index in", self.directory, source))?;
            self.unsynced.extend(synced);
            sealed.insert(base, active.seal());
        }
        unreachable!("the last segment returns")
    }

    /// Reads the tail of the last segment after an orderly stop.
    fn tail(
        &mut self,
        segment: Arc<SegmentFiles>,
        bytes: u64,
    ) -> Result<(Active, Offset), LogError> {
        let path = segment.log.path();
        let log = segment.log.get(self.files).map_err(|source| self.io("open", &path, source))?;
        let mut active = Active::over(segment.clone(), log, bytes, self.config, self.now_ms);
        let start = match active.load_indexes(self.files, self.config) {
            Ok(Some(start)) => start,
            Ok(None) => return self.walk(segment, bytes, true),
            Err(error) => return Err(self.scan_error(&path, error)),
        };
        let mut scanner = Scanner::new(active.log.clone(), start, bytes);
        let mut log_end = active.base_offset();
        loop {
            match scanner.next_batch() {
                Ok(Some((position, batch))) if batch.check().is_ok() => {
                    log_end = batch.next_offset();
                    active.note(position, &batch);
                }
                Ok(None) => return Ok((active, log_end)),
                Err(error @ ScanError::Io { .. }) => return Err(self.scan_error(&path, error)),
                // Not as clean as it was said to be.
                Ok(Some(_)) | Err(_) => return self.walk(segment, bytes, true),
            }
        }
    }

    /// Walks a segment with its checksums and rebuilds its indexes.
    ///
    /// If `may_cut`, it ends before the first damaged batch at or above the recovery point.
    fn walk(
        &mut self,
        segment: Arc<SegmentFiles>,
        bytes: u64,
        may_cut: bool,
    ) -> Result<(Active, Offset), LogError> {
        let path = segment.log.path();
        let log = segment.log.get(self.files).map_err(|source| self.io("open", &path, source))?;
        let mut active = Active::over(segment, log, bytes, self.config, self.now_ms);
        let mut scanner = Scanner::new(active.log.clone(), 0, bytes);
        let mut log_end = active.base_offset();
        let damage = loop {
            match scanner.next_batch() {
                Ok(Some((position, batch))) => {
                    let follows = batch.base_offset() >= log_end;
                    match batch.check() {
                        Ok(()) if follows => {}
                        // Bit rot: framed as it should be, and certainly once durable.
                        Err(source)
                            if follows
                                && (!may_cut || batch.last_offset() < self.recovery_point)
                                && matches!(source, BatchError::Crc { .. }) =>
                        {
                            self.recovery.damaged_batches += 1;
                            tracing::error!(error = %source, position, path = %path.display(), offset = batch.base_offset().0, "batch is damaged, it is kept for what it is");
                        }
                        Ok(()) => {
                            let base_offset = batch.base_offset().0;
                            break Some((position, BatchError::BaseOffset { base_offset }));
                        }
                        Err(source) => break Some((position, source)),
                    }
                    log_end = batch.next_offset();
                    active.note(position, &batch);
                }
                Ok(None) => break None,
                Err(ScanError::Batch { position, source }) => break Some((position, source)),
                Err(error @ ScanError::Io { .. }) => return Err(self.scan_error(&path, error)),
            }
        };
        self.recovery.walked_bytes += scanner.position();
        if let Some((position, source)) = damage {
            // Formats do not change within a segment: further on it is damage.
            if position == 0 && matches!(source, BatchError::OldMagic { .. }) {
                return Err(LogError::OldFormat { path, source });
            }
            if !may_cut || log_end < self.recovery_point {
                return Err(LogError::Damaged {
                    path,
                    position,
                    recovery_point: self.recovery_point,
                    source,
                });
            }
            tracing::warn!(error = %source, position, path = %path.display(), offset = log_end.0, cut_bytes = bytes - position, "log ends here, what follows was torn by a crash");
            self.recovery.cut_bytes += bytes - position;
            active.cut(self.files, position).map_err(|source| self.io("cut", &path, source))?;
        }
        active
            .write_indexes(self.files)
            .map_err(|source| self.io("write index of", &path, source))?;
        Ok((active, log_end))
    }

    fn io(&self, action: &'static str, path: &Path, source: io::Error) -> LogError {
        LogError::Io { action, path: path.into(), source }
    }

    fn scan_error(&self, path: &Path, error: ScanError) -> LogError {
        match error {
            ScanError::Io { source, .. } => self.io("read", path, source),
            ScanError::Batch { position, source } => LogError::Damaged {
                path: path.into(),
                position,
                recovery_point: self.recovery_point,
                source,
            },
        }
    }
}

/// True if both indexes of a sealed segment are there and whole entries long.
fn has_indexes(found: &Survey, base: Offset) -> bool {
    let is_whole = |indexes: &BTreeMap<Offset, u64>, entry_bytes: u64| {
        indexes.get(&base).is_some_and(|bytes| bytes % entry_bytes == 0)
    };
    is_whole(&found.offset_indexes, 8) && is_whole(&found.time_indexes, 12)
}
