//! One segment: a stretch of the log in a file, with its two indexes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use elkfk_wire::kafka::records::{Batch, HEADER_BYTES, Offset, peek};

use super::config::TopicConfig;
use super::disk::DiskFile;
use super::files::{Files, LazyFile, file_name};
use super::index::{ActiveIndex, IndexEntry, OffsetEntry, TimeEntry, entry_in_file, floor_in_file};
use super::scan::{ScanError, Scanner};

pub(super) const LOG: &str = ".log";
pub(super) const OFFSET_INDEX: &str = ".index";
pub(super) const TIME_INDEX: &str = ".timeindex";
pub(super) const SNAPSHOT: &str = ".snapshot";
pub(super) const ABORTED_INDEX: &str = ".txnindex";
/// Appended to the names of files that are no longer part of the log.
pub(super) const DELETED: &str = ".deleted";

/// Index entries kept back from the file: half a kilobyte, some 256 KiB of log.
const UNWRITTEN_ENTRIES_MAX: usize = 64;

/// The files of a segment, shared with readers.
#[derive(Debug)]
pub(super) struct SegmentFiles {
    pub(super) base_offset: Offset,
    pub(super) log: Arc<LazyFile>,
    pub(super) offset_index: Arc<LazyFile>,
    pub(super) time_index: Arc<LazyFile>,
}

impl SegmentFiles {
    pub(super) fn new(directory: &Arc<Path>, base_offset: Offset) -> Arc<Self> {
        let file = |suffix| LazyFile::new(directory.clone(), base_offset, suffix);
        Arc::new(Self {
            base_offset,
            log: file(LOG),
            offset_index: file(OFFSET_INDEX),
            time_index: file(TIME_INDEX),
        })
    }

    fn close(&self) {
        for file in [&self.log, &self.offset_index, &self.time_index] {
            file.close();
        }
    }

    /// Takes the files out of the log under names that every start removes. Returns those names.
    pub(super) fn retire(&self, files: &Files, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.close();
        let mut retired = Vec::new();
        for suffix in [LOG, OFFSET_INDEX, TIME_INDEX, ABORTED_INDEX, SNAPSHOT] {
            let from = directory.join(file_name(self.base_offset, suffix));
            let to = directory.join(file_name(self.base_offset, suffix) + DELETED);
            match files.disk.rename(&from, &to) {
                Ok(()) => retired.push(to),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(retired)
    }
}

/// A segment that is no longer appended to.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) files: Arc<SegmentFiles>,
    pub(super) bytes: u64,
    pub(super) modified_ms: i64,
    /// Of the last entry of the time index; read when first asked for. -1: no record has one.
    largest_timestamp_ms: Option<i64>,
}

impl Sealed {
    pub(super) fn new(files: Arc<SegmentFiles>, bytes: u64, modified_ms: i64) -> Self {
        Self { files, bytes, modified_ms, largest_timestamp_ms: None }
    }

    /// The largest timestamp of its records, -1 where there is none.
    pub(super) fn largest_timestamp_ms(&mut self, files: &Files) -> io::Result<i64> {
        if let Some(known) = self.largest_timestamp_ms {
            return Ok(known);
        }
        let index = self.files.time_index.get(files)?;
        let entries = index.size()? / TimeEntry::BYTES as u64;
        let last = match entries.checked_sub(1) {
            Some(last) => entry_in_file::<TimeEntry>(&*index, last)?,
            None => None,
        };
        let largest = last.map_or(-1, |entry| entry.timestamp_ms);
        self.largest_timestamp_ms = Some(largest);
        Ok(largest)
    }
}

/// Where in the segment to start looking for `target`; the file is searched.
pub(super) fn sealed_position(
    files: &Files,
    segment: &SegmentFiles,
    target: Offset,
) -> io::Result<u64> {
    let relative = target.0 - segment.base_offset.0;
    let index = segment.offset_index.get(files)?;
    let found = floor_in_file(&*index, index.size()?, |entry: OffsetEntry| {
        i64::from(entry.relative_offset) <= relative
    })?;
    Ok(found.map_or(0, |entry| entry.position.into()))
}

/// The last offset known to be followed only by records of at least `timestamp_ms`.
pub(super) fn sealed_offset_before(
    files: &Files,
    segment: &SegmentFiles,
    timestamp_ms: i64,
) -> io::Result<Offset> {
    let index = segment.time_index.get(files)?;
    let found = floor_in_file(&*index, index.size()?, |entry: TimeEntry| {
        entry.timestamp_ms < timestamp_ms
    })?;
    Ok(segment.base_offset.plus(found.map_or(0, |entry| entry.relative_offset.into())))
}

/// The segment that is appended to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) files: Arc<SegmentFiles>,
    /// Held open for as long as the segment is active: an error of a sync must not go missing.
    pub(super) log: Arc<dyn DiskFile>,
    pub(super) bytes: u64,
    pub(super) created_ms: i64,
    pub(super) modified_ms: i64,
    /// Of the first batch; segments roll by it.
    first_timestamp_ms: Option<i64>,
    /// The largest timestamp and the last offset of its batch.
    largest: Option<(i64, Offset)>,
    offset_index: ActiveIndex<OffsetEntry>,
    time_index: ActiveIndex<TimeEntry>,
    bytes_since_entry: u64,
    index_interval_bytes: u64,
}

impl Active {
    /// A new, empty segment. Whatever lay under its names is emptied.
    pub(super) fn create(
        files: &Files,
        directory: &Arc<Path>,
        base_offset: Offset,
        config: &TopicConfig,
        now_ms: i64,
    ) -> io::Result<Self> {
        let segment = SegmentFiles::new(directory, base_offset);
        let log = segment.log.create(files)?;
        log.set_len(0)?;
        let mut active = Self::over(segment, log, 0, config, now_ms);
        active.write_indexes(files)?;
        Ok(active)
    }

    /// Takes away what a [`Active::create`] that failed has made: at the next start an empty
    /// segment would hide the records that went on into the one before it.
    pub(super) fn discard(files: &Files, directory: &Path, base_offset: Offset) {
        for suffix in [LOG, OFFSET_INDEX, TIME_INDEX] {
            // If this fails too, the next start leaves the empty file out.
            let _ = files.disk.remove_file(&directory.join(file_name(base_offset, suffix)));
        }
    }

    /// A segment whose batches will be noted one by one.
    pub(super) fn over(
        files: Arc<SegmentFiles>,
        log: Arc<dyn DiskFile>,
        bytes: u64,
        config: &TopicConfig,
        now_ms: i64,
    ) -> Self {
        Self {
            files,
            log,
            bytes,
            created_ms: now_ms,
            modified_ms: now_ms,
            first_timestamp_ms: None,
            largest: None,
            offset_index: ActiveIndex::empty(),
            time_index: ActiveIndex::empty(),
            bytes_since_entry: 0,
            index_interval_bytes: config.index_interval_bytes,
        }
    }

    /// Takes over indexes that an orderly stop left behind, of a log of `bytes`.
    ///
    /// Returns where the batches not covered by them start. `None` where they do not fit the log.
    pub(super) fn load_indexes(
        &mut self,
        files: &Files,
        config: &TopicConfig,
    ) -> Result<Option<u64>, ScanError> {
        let io = |source| ScanError::Io { position: 0, source };
        let load = || {
            let offsets = self.files.offset_index.create(files)?;
            let times = self.files.time_index.create(files)?;
            Ok((
                ActiveIndex::load(&*offsets, config.index_bytes_max)?,
                ActiveIndex::load(&*times, config.index_bytes_max)?,
            ))
        };
        let (offsets, times): (ActiveIndex<OffsetEntry>, ActiveIndex<TimeEntry>) =
            load().map_err(io)?;
        if self.bytes > 0 {
            let mut scanner = Scanner::new(self.log.clone(), 0, self.bytes);
            if let Ok(Some((_, first))) = scanner.next_batch() {
                self.first_timestamp_ms = Some(first.max_timestamp_ms());
            }
        }
        let Some(last) = offsets.last() else { return Ok(Some(0)) };
        let position = u64::from(last.position);
        let head = self.log.read_at(position, HEADER_BYTES).map_err(io)?;
        let fits = peek(&head).is_ok_and(|head| {
            head.last_offset == self.files.base_offset.plus(last.relative_offset.into())
        });
        if !fits {
            return Ok(None);
        }
        self.offset_index = offsets;
        self.time_index = times;
        self.largest = self.time_index.last().map(|entry| {
            (entry.timestamp_ms, self.files.base_offset.plus(entry.relative_offset.into()))
        });
        // The entry's own batch is noted again: it is left out of the index, as it is in there.
        Ok(Some(position))
    }

    /// Updates indexes and timestamps for a batch that lies at `position`.
    pub(super) fn note(&mut self, position: u64, batch: &Batch<'_>) {
        let (last_offset, timestamp_ms) = (batch.last_offset(), batch.max_timestamp_ms());
        self.first_timestamp_ms.get_or_insert(timestamp_ms);
        if timestamp_ms >= 0 && self.largest.is_none_or(|(largest, _)| timestamp_ms > largest) {
            self.largest = Some((timestamp_ms, last_offset));
        }
        if self.bytes_since_entry > self.index_interval_bytes {
            let relative_offset = (last_offset.0 - self.files.base_offset.0) as u32;
            self.offset_index.push(OffsetEntry { relative_offset, position: position as u32 });
            self.push_time_entry();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += batch.len() as u64;
    }

    fn push_time_entry(&mut self) {
        if let Some((timestamp_ms, offset)) = self.largest {
            let relative_offset = (offset.0 - self.files.base_offset.0) as u32;
            self.time_index.push(TimeEntry { timestamp_ms, relative_offset });
        }
    }

    /// Writes batches at the end; [`Active::note`] them afterwards.
    ///
    /// # Errors
    /// Then the segment is as it was before, as far as the disk lets it.
    pub(super) fn write(&mut self, bytes: &[u8], now_ms: i64) -> io::Result<()> {
        if let Err(error) = self.log.write_at(self.bytes, bytes) {
            // What got through must not be found by a recovery. If this fails too, the next
            // append overwrites it.
            let _ = self.log.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += bytes.len() as u64;
        self.modified_ms = now_ms;
        Ok(())
    }

    /// Writes index entries out once there are some: they are a convenience of the next start.
    pub(super) fn write_indexes_sometimes(&mut self, files: &Files) -> io::Result<()> {
        if self.offset_index.unwritten() >= UNWRITTEN_ENTRIES_MAX {
            self.write_indexes(files)?;
        }
        Ok(())
    }

    pub(super) fn write_indexes(&mut self, files: &Files) -> io::Result<()> {
        self.offset_index.write(&*self.files.offset_index.create(files)?)?;
        self.time_index.write(&*self.files.time_index.create(files)?)
    }

    /// Completes the indexes, as the last act of an active segment or of an orderly stop.
    ///
    /// Returns the files to sync before the log may forget that they are young.
    pub(super) fn finish(&mut self, files: &Files) -> io::Result<Vec<Arc<dyn DiskFile>>> {
        self.push_time_entry();
        self.write_indexes(files)?;
        Ok(vec![
            self.log.clone(),
            self.files.offset_index.get(files)?,
            self.files.time_index.get(files)?,
        ])
    }

    pub(super) fn seal(self) -> Sealed {
        Sealed {
            files: self.files,
            bytes: self.bytes,
            modified_ms: self.modified_ms,
            largest_timestamp_ms: Some(self.largest.map_or(-1, |(timestamp, _)| timestamp)),
        }
    }

    pub(super) fn base_offset(&self) -> Offset {
        self.files.base_offset
    }

    /// -1 where no record has a timestamp.
    pub(super) fn largest_timestamp_ms(&self) -> i64 {
        self.largest.map_or(-1, |(timestamp, _)| timestamp)
    }

    /// True if `bytes` that end at `last_offset` want a new segment first.
    pub(super) fn must_roll(
        &self,
        bytes: usize,
        last_offset: Offset,
        timestamp_ms: i64,
        now_ms: i64,
        config: &TopicConfig,
    ) -> bool {
        let limit = config.segment_bytes_max.min(i32::MAX as u64);
        let is_beyond_relative = last_offset.0 - self.base_offset().0 > i64::from(i32::MAX);
        if self.bytes == 0 {
            return is_beyond_relative;
        }
        self.bytes + bytes as u64 > limit
            || is_beyond_relative
            || self.is_aged(timestamp_ms, now_ms, config)
            || is_full(&self.offset_index, config.index_bytes_max)
            || is_full(&self.time_index, config.index_bytes_max)
    }

    /// True if the records span `segment.ms`: by their own timestamps, which a replayed backlog
    /// brings along, or by the clock where they have none.
    pub(super) fn is_aged(&self, timestamp_ms: i64, now_ms: i64, config: &TopicConfig) -> bool {
        let age = match self.first_timestamp_ms {
            _ if self.bytes == 0 => return false,
            Some(first) if first >= 0 => timestamp_ms - first,
            _ => now_ms - self.created_ms,
        };
        age > i64::try_from(config.segment_age_max.as_millis()).unwrap_or(i64::MAX)
    }

    /// Where to start looking for `target`.
    pub(super) fn position(&self, target: Offset) -> u64 {
        let relative = target.0 - self.base_offset().0;
        self.offset_index
            .floor(|entry| i64::from(entry.relative_offset) <= relative)
            .map_or(0, |entry| entry.position.into())
    }

    /// As [`sealed_offset_before`].
    pub(super) fn offset_before(&self, timestamp_ms: i64) -> Offset {
        let found = self.time_index.floor(|entry| entry.timestamp_ms < timestamp_ms);
        self.base_offset().plus(found.map_or(0, |entry| entry.relative_offset.into()))
    }

    /// Cuts the file at `position`; the batches below it, and no others, have been noted.
    pub(super) fn cut(&mut self, files: &Files, position: u64) -> io::Result<()> {
        self.log.set_len(position)?;
        self.bytes = position;
        self.write_indexes(files)
    }
}

fn is_full<E: IndexEntry>(index: &ActiveIndex<E>, index_bytes_max: u64) -> bool {
    // One place stays free for the entry that seals a time index.
    (index.len() as u64 + 1) * E::BYTES as u64 >= index_bytes_max.max(2 * E::BYTES as u64)
}
