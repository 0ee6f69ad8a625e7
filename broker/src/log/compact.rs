//! The log cleaner: of a compacted log it keeps the last record of each key.
//!
//! Two passes over sealed segments. The first notes the last offset of each key, as many keys as
//! fit the bound; the second writes the segments anew without the records that a later one of the
//! same key replaces. Offsets stay as they are, so gaps open. Records cleaned away may come back
//! after a crash, never the other way round.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use elkfk_wire::kafka::records::{Batch, BatchBuilder, Offset, Record};

use super::config::TopicConfig;
use super::files::{Files, file_name};
use super::partition_log::Log;
use super::producers::Producers;
use super::scan::{ScanError, Scanner};
use super::segment::{Active, LOG, SegmentFiles};

/// Bytes of keys noted in one pass; what comes after waits for the next.
const KEYS_BYTES_MAX: usize = 64 << 20;
/// What a noted key costs besides its bytes.
const KEY_OVERHEAD_BYTES: usize = 64;
const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;
/// `min.cleanable.dirty.ratio`, in percent.
const DIRTY_PERCENT_MIN: u64 = 50;
/// `delete.retention.ms`: a tombstone stays for this long after it was cleaned, for slow readers.
const TOMBSTONES_MS: i64 = 24 * 60 * 60 * 1000;
const CLEANED: &str = ".cleaned";
const SWAP: &str = ".swap";

/// The last offset of each key.
type LastOffsets = HashMap<Box<[u8]>, Offset>;

/// Why a log was not cleaned. It stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    #[error("clean the log")]
    Io(#[from] io::Error),
    #[error("walk segment {segment}: {cause}")]
    Damaged { segment: Offset, cause: String },
}

/// A segment as it is cleaned.
#[derive(Debug)]
struct Old {
    files: Arc<SegmentFiles>,
    bytes: u64,
    modified_ms: i64,
}

/// What to clean, taken under the log's lock; run without it.
#[derive(Debug)]
pub struct CleanPlan {
    files: Arc<Files>,
    directory: Arc<Path>,
    config: TopicConfig,
    segments: Vec<Old>,
    log_start: Offset,
    /// Below it each key is there once, but for what was appended since.
    cleaned_to: Offset,
    /// Where the sealed segments end.
    end: Offset,
    producers: Producers,
    truncations: u64,
    now_ms: i64,
}

/// Cleaned segments that wait to take the place of the old ones.
#[derive(Debug)]
pub struct Cleaned {
    groups: Vec<Group>,
    cleaned_to: Offset,
    truncations: u64,
}

#[derive(Debug)]
struct Group {
    /// The new segment, still under its temporary name.
    segment: Active,
    /// Base offsets of those it replaces.
    replaced: Vec<Offset>,
    modified_ms: i64,
}

impl Log {
    /// Below it the log is clean.
    pub fn cleaned_to(&self) -> Offset {
        self.cleaned_to
    }

    /// Plans to clean the log, if it is to be compacted and enough of it is dirty.
    pub fn plan_clean(&self, high_watermark: Offset, now_ms: i64) -> Option<CleanPlan> {
        if !self.config.is_compacted {
            return None;
        }
        let ends = self.sealed.keys().skip(1).copied().chain([self.active.base_offset()]);
        let segments: Vec<_> =
            self.sealed.values().zip(ends).take_while(|(_, end)| *end <= high_watermark).collect();
        let end = segments.last()?.1;
        let total: u64 = segments.iter().map(|(sealed, _)| sealed.bytes).sum();
        let dirty: u64 = segments
            .iter()
            .filter(|(_, end)| *end > self.cleaned_to)
            .map(|(sealed, _)| sealed.bytes)
            .sum();
        if dirty == 0 || dirty * 100 < total * DIRTY_PERCENT_MIN {
            return None;
        }
        Some(CleanPlan {
            files: self.files.clone(),
            directory: self.directory.clone(),
            config: self.config.clone(),
            segments: segments
                .into_iter()
                .map(|(sealed, _)| Old {
                    files: sealed.files.clone(),
                    bytes: sealed.bytes,
                    modified_ms: sealed.modified_ms,
                })
                .collect(),
            log_start: self.log_start,
            cleaned_to: self.cleaned_to,
            end,
            producers: self.producers.clone(),
            truncations: self.truncations,
            now_ms,
        })
    }

    /// Puts cleaned segments in the place of the old ones, whose renamed files are returned.
    ///
    /// Nothing happens where the log was truncated or segments expired meanwhile.
    pub fn install_cleaned(&mut self, cleaned: Cleaned) -> io::Result<Vec<PathBuf>> {
        let mut gone = Vec::new();
        for mut group in cleaned.groups {
            let base_offset = group.segment.base_offset();
            let place = self.directory.join(file_name(base_offset, LOG));
            let (temporary, swap) = (with_suffix(&place, CLEANED), with_suffix(&place, SWAP));
            let is_stale = cleaned.truncations != self.truncations
                || group.replaced.iter().any(|base| !self.sealed.contains_key(base));
            if is_stale {
                self.disk().remove_file(&temporary)?;
                continue;
            }
            // From this name on a start puts the segment in place even if we do not get to it.
            self.disk().rename(&temporary, &swap)?;
            self.disk().sync_directory(&self.directory)?;
            for base in &group.replaced {
                if let Some(old) = self.sealed.remove(base) {
                    gone.extend(old.files.retire(&self.files, &self.directory)?);
                }
            }
            self.disk().rename(&swap, &place)?;
            self.unsynced.extend(group.segment.finish(&self.files)?);
            self.is_directory_unsynced = true;
            let mut sealed = group.segment.seal();
            sealed.modified_ms = group.modified_ms;
            self.sealed.insert(base_offset, sealed);
            self.cursors.clear();
        }
        if cleaned.truncations == self.truncations {
            self.cleaned_to = self.cleaned_to.max(cleaned.cleaned_to);
        }
        Ok(gone)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl CleanPlan {
    /// Writes the cleaned segments beside the old ones.
    pub fn run(&self) -> Result<Cleaned, CleanError> {
        let (keys, cleaned_to) = self.note_keys()?;
        let mut groups: Vec<Group> = Vec::new();
        let mut rest = self.segments.as_slice();
        while let [first, ..] = rest {
            if first.files.base_offset >= cleaned_to {
                break;
            }
            let limit = self.config.segment_bytes_max.min(i32::MAX as u64);
            let mut bytes = 0;
            let fitting = rest
                .iter()
                .take_while(|old| {
                    bytes += old.bytes;
                    let reach = old.files.base_offset.0 - first.files.base_offset.0;
                    old.files.base_offset < cleaned_to
                        && bytes <= limit
                        // The reach of a whole segment is left for its last one.
                        && reach <= i64::from(i32::MAX / 2)
                })
                .count();
            let (group, after) = rest.split_at(fitting.max(1));
            groups.extend(self.clean_group(group, &keys)?);
            rest = after;
        }
        Ok(Cleaned { groups, cleaned_to, truncations: self.truncations })
    }

    /// The last offset of each key that is dirty, and how far these reach.
    fn note_keys(&self) -> Result<(LastOffsets, Offset), CleanError> {
        let mut keys = LastOffsets::new();
        let mut bytes = 0;
        for old in &self.segments {
            let segment = old.files.base_offset;
            let mut scanner = Scanner::new(old.files.log.get(&self.files)?, 0, old.bytes);
            while let Some((_, batch)) = scanner.next_batch().map_err(|it| damaged(segment, it))? {
                if batch.last_offset() < self.cleaned_to || batch.is_control() {
                    continue;
                }
                batch.check().map_err(|error| damaged_by(segment, &error))?;
                let records =
                    batch.records(DECOMPRESSED_BYTES_MAX).map_err(|it| damaged_by(segment, &it))?;
                for record in &records {
                    let record = record.map_err(|error| damaged_by(segment, &error))?;
                    let Some(key) = record.key else { continue };
                    if let Some(last) = keys.get_mut(key) {
                        *last = record.offset;
                    } else {
                        bytes += key.len() + KEY_OVERHEAD_BYTES;
                        keys.insert(key.into(), record.offset);
                    }
                }
                // A whole batch is noted or none of it: what comes after is dirty still.
                if bytes > KEYS_BYTES_MAX {
                    return Ok((keys, batch.next_offset()));
                }
            }
        }
        Ok((keys, self.end))
    }

    /// Writes one segment from several. `None` where nothing would change.
    fn clean_group(&self, group: &[Old], keys: &LastOffsets) -> Result<Option<Group>, CleanError> {
        let base_offset = group[0].files.base_offset;
        let place = self.directory.join(file_name(base_offset, LOG));
        let temporary = with_suffix(&place, CLEANED);
        let log = self.files.disk.open(&temporary, true)?;
        log.set_len(0)?;
        let target = SegmentFiles::new(&self.directory, base_offset);
        let mut segment = Active::over(target, log, 0, &self.config, self.now_ms);
        let mut pending = Vec::new();
        let mut is_changed = group.len() > 1;
        for old in group {
            let from = old.files.base_offset;
            let tombstones_go = old.modified_ms + TOMBSTONES_MS < self.now_ms;
            let mut scanner = Scanner::new(old.files.log.get(&self.files)?, 0, old.bytes);
            while let Some((_, batch)) = scanner.next_batch().map_err(|it| damaged(from, it))? {
                batch.check().map_err(|error| damaged_by(from, &error))?;
                let keep = |record: &Record<'_>| {
                    let Some(key) = record.key else { return false };
                    let is_last = keys.get(key).is_none_or(|&last| last <= record.offset);
                    let is_past_tombstone =
                        record.value.is_none() && tombstones_go && record.offset < self.cleaned_to;
                    is_last && !is_past_tombstone && record.offset >= self.log_start
                };
                let cleaned =
                    self.clean_batch(&batch, keep).map_err(|it| damaged_by(from, &*it))?;
                is_changed |= cleaned.as_deref() != Some(batch.bytes());
                pending.extend_from_slice(&cleaned.unwrap_or_default());
                if pending.len() >= 1 << 20 {
                    write_batches(&mut segment, &mut pending, self.now_ms)?;
                }
            }
        }
        write_batches(&mut segment, &mut pending, self.now_ms)?;
        if !is_changed {
            self.files.disk.remove_file(&temporary)?;
            return Ok(None);
        }
        segment.log.sync_data()?;
        Ok(Some(Group {
            segment,
            replaced: group.iter().map(|old| old.files.base_offset).collect(),
            modified_ms: group.iter().map(|old| old.modified_ms).max().unwrap_or(self.now_ms),
        }))
    }

    /// The batch with the records that stay; `None` where none does.
    fn clean_batch(
        &self,
        batch: &Batch<'_>,
        keep: impl Fn(&Record<'_>) -> bool,
    ) -> Result<Option<Vec<u8>>, Box<dyn std::error::Error>> {
        // The last batch of a producer carries its sequence over the next restart.
        if batch.is_control() || self.producers.is_remembered(batch) {
            return Ok(Some(batch.bytes().to_vec()));
        }
        let records = batch.records(DECOMPRESSED_BYTES_MAX)?;
        let mut builder = BatchBuilder::new(batch.compression()?)
            .base_offset(batch.base_offset())
            .leader_epoch(batch.leader_epoch())
            .producer(batch.producer_id(), batch.producer_epoch(), batch.base_sequence())
            .timestamp_type(batch.timestamp_type())
            .transactional(batch.is_transactional());
        for record in &records {
            let record = record?;
            if keep(&record) {
                let delta = (record.offset.0 - batch.base_offset().0) as i32;
                let headers = record.headers().map(|header| (header.key, header.value));
                builder.push_at(delta, record.timestamp_ms, record.key, record.value, headers)?;
            }
        }
        if builder.count() == batch.count() {
            return Ok(Some(batch.bytes().to_vec()));
        }
        builder.cover_to(batch.last_offset_delta());
        // Without records there is nothing to build, and nothing to keep.
        Ok(builder.build().ok())
    }
}

fn write_batches(segment: &mut Active, pending: &mut Vec<u8>, now_ms: i64) -> io::Result<()> {
    let mut position = segment.bytes;
    segment.write(pending, now_ms)?;
    for batch in elkfk_wire::kafka::records::batches(pending).flatten() {
        segment.note(position, &batch);
        position += batch.len() as u64;
    }
    pending.clear();
    Ok(())
}

fn damaged(segment: Offset, error: ScanError) -> CleanError {
    match error {
        ScanError::Io { source, .. } => CleanError::Io(source),
        ScanError::Batch { position, source } => {
            CleanError::Damaged { segment, cause: format!("position {position}: {source}") }
        }
    }
}

fn damaged_by(segment: Offset, error: &dyn std::error::Error) -> CleanError {
    CleanError::Damaged { segment, cause: error.to_string() }
}
