//! The write-ahead log: batches of Raft entries, each durable before anyone is told.
//!
//! A batch is one record with one checksum, written in one piece and followed by one fdatasync. The
//! next batch is written only after that returned. So a damaged record with a whole one after it was
//! once durable, and to cut it off would lose what was acknowledged: such a log is refused. A
//! damaged record with nothing after it is what a crash left of a batch nobody was told of: it is
//! cut off and reported.
//!
//! Room is reserved ahead of the writing, so that a full disk shows before a batch is accepted, not
//! after.

pub(crate) mod disk;

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use tracing::warn;

use disk::Disk;

use crate::metrics;

/// A segment is closed when it is this large.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 20;
/// Room is reserved in pieces of this size, or of a segment's where that is smaller.
const RESERVE_BYTES: u64 = 8 << 20;
/// With less room than this left, the log counts as full; it bounds what may be in flight.
const ROOM_BYTES_MIN: u64 = 4 << 20;

const MAGIC: u32 = 0x656c_6b57;
/// Magic, length of the payload, checksum of all that follows it, sequence number.
const HEADER_BYTES: usize = 20;
/// Records start at multiples of this, so that one can be looked for.
const ALIGNMENT: usize = 8;

/// What Raft must not forget beside its entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Vote {
    pub(crate) term: u64,
    pub(crate) vote: u64,
    pub(crate) commit: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub(crate) term: u64,
    pub(crate) index: u64,
    /// Raft's own number for the kind of entry.
    pub(crate) kind: u8,
    pub(crate) data: Bytes,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) vote: Vote,
    pub(crate) entries: Vec<LogEntry>,
    /// A snapshot takes the place of everything up to this index, whatever the log had there.
    pub(crate) restored: Option<u64>,
}

/// What a log held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) vote: Vote,
    /// Those after the index that was asked for, without gaps.
    pub(crate) entries: VecDeque<LogEntry>,
    /// What a crash left of a batch that nobody was told of.
    pub(crate) torn: Option<Torn>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Torn {
    pub(crate) segment: String,
    pub(crate) offset: u64,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error("read {name}")]
    Read { name: String, source: io::Error },
    #[error("list the log's directory")]
    List(#[source] io::Error),
    #[error("make a segment of the log")]
    Create(#[source] io::Error),
    #[error("cut off the torn end of {name}")]
    Cut { name: String, source: io::Error },
    #[error(
        "{name} is damaged at byte {offset}, below what was acknowledged: acknowledged changes are lost; \
         restore the data directory from a backup, or start with an empty one if a fresh tree will do"
    )]
    Damaged { name: String, offset: u64 },
    #[error(
        "the log has a gap: {name} does not go on from where the one before ends; \
         restore the missing files or start with an empty data directory"
    )]
    Gap { name: String },
    #[error(
        "the log begins at entry {first}, the newest whole snapshot ends at {snapshot}: entries between are missing; \
         restore them or start with an empty data directory"
    )]
    Missing { first: u64, snapshot: u64 },
    #[error(
        "there is a snapshot up to entry {snapshot}, but no log: what was acknowledged after it would be lost; \
         put the files log-* back, or start with an empty data directory"
    )]
    NoLog { snapshot: u64 },
    #[error(
        "the log ends at entry {last}, before the newest snapshot at {snapshot}: it is not the log of that snapshot; \
         put the right files log-* back, or start with an empty data directory"
    )]
    Behind { last: u64, snapshot: u64 },
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// Nothing of it counts; the same batch can be tried again.
    #[error("no room for the log")]
    Full(#[source] io::Error),
    /// What is on the disk is unknown. After this nothing may be appended, ever.
    #[error("the log can no longer be trusted")]
    Failed(#[source] io::Error),
}

#[derive(Debug)]
struct Segment {
    name: String,
    /// Index of the last entry in it, or of the one before where it has none.
    last_index: u64,
}

#[derive(Debug)]
pub(crate) struct Wal<D> {
    disk: D,
    /// The last one is being written.
    segments: VecDeque<Segment>,
    offset: u64,
    reserved: u64,
    next_sequence: u64,
    segment_bytes: u64,
    is_failed: bool,
}

fn segment_name(sequence: u64, first_index: u64) -> String {
    format!("log-{sequence:016x}-{first_index:016x}")
}

fn parse_segment_name(name: &str) -> Option<(u64, u64)> {
    let (sequence, first_index) = name.strip_prefix("log-")?.split_once('-')?;
    let number = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?;
    Some((number(sequence)?, number(first_index)?))
}

/// Whether a segment among these files begins with this entry.
pub(crate) fn begins_at(names: &[String], index: u64) -> bool {
    names.iter().filter_map(|name| parse_segment_name(name)).any(|(_, first)| first == index)
}

pub(crate) fn holds_log(names: &[String]) -> bool {
    names.iter().any(|name| parse_segment_name(name).is_some())
}

impl<D: Disk> Wal<D> {
    pub(crate) fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Opens or starts the log; entries up to `snapshot_index` are not asked for.
    pub(crate) fn open(
        disk: D,
        snapshot_index: u64,
        segment_bytes: u64,
    ) -> Result<(Self, Recovered), WalError> {
        let names = disk.list().map_err(WalError::List)?;
        let mut found: Vec<_> = names
            .into_iter()
            .filter_map(|name| parse_segment_name(&name).map(|numbers| (numbers, name)))
            .collect();
        found.sort_unstable();
        let mut wal = Self {
            disk,
            segments: VecDeque::new(),
            offset: 0,
            reserved: 0,
            next_sequence: found.first().map_or(1, |((sequence, _), _)| *sequence),
            segment_bytes,
            is_failed: false,
        };
        let mut recovered = Recovered::default();
        let mut skipped = Vec::new();
        let mut records = 0;
        // What is before a segment that goes on from the snapshot, or from below, only waits to be purged:
        // it ends there, or a snapshot that was received has taken its place, whatever it held.
        let needed =
            found.iter().rposition(|((_, first), _)| *first <= snapshot_index + 1).unwrap_or(0);
        for at in 0..found.len() {
            let ((sequence, _), name) = &found[at];
            if at < needed
                && let Some(((next_sequence, next_first), _)) = found.get(at + 1)
            {
                let last_index = (next_first - 1).min(snapshot_index);
                wal.segments.push_back(Segment { name: name.clone(), last_index });
                skipped.push((wal.next_sequence, name));
                wal.next_sequence = *next_sequence;
                continue;
            }
            if *sequence != wal.next_sequence {
                return Err(WalError::Gap { name: name.clone() });
            }
            let is_last = at + 1 == found.len();
            wal.read_segment(name, is_last, snapshot_index, &mut recovered)?;
            records += wal.next_sequence - sequence;
        }
        if records == 0 {
            // A crash right after a segment was begun leaves what was promised in the one before.
            recovered.vote = wal.last_vote(&skipped)?;
        }
        // What a snapshot that cannot be read stood for is in no segment.
        let end = recovered.entries.back().map_or(snapshot_index, |entry| entry.index);
        match wal.segments.back() {
            // A snapshot is taken of what is in the log, and the last segment is never purged.
            Some(last) if last.last_index < snapshot_index => {
                let (last, snapshot) = (last.last_index, snapshot_index);
                return Err(WalError::Behind { last, snapshot });
            }
            Some(last) if last.last_index > end => {
                return Err(WalError::Missing { first: last.last_index + 1, snapshot: end });
            }
            Some(_) => {}
            None if snapshot_index > 0 => {
                return Err(WalError::NoLog { snapshot: snapshot_index });
            }
            None => wal.start_segment(1).map_err(WalError::Create)?,
        }
        Ok((wal, recovered))
    }

    fn last_vote(&self, skipped: &[(u64, &String)]) -> Result<Vote, WalError> {
        for (sequence, name) in skipped.iter().rev() {
            let bytes = self.disk.read(name);
            let bytes =
                bytes.map_err(|source| WalError::Read { name: name.to_string(), source })?;
            let (mut offset, mut sequence, mut vote) = (0, *sequence, None);
            while let Some((batch, length)) = record_at(&bytes, offset, sequence) {
                vote = Some(batch.vote);
                offset += length;
                sequence += 1;
            }
            if bytes[offset..].iter().any(|byte| *byte != 0) {
                // What follows may be a newer promise.
                return Err(WalError::Damaged { name: name.to_string(), offset: offset as u64 });
            }
            if let Some(vote) = vote {
                return Ok(vote);
            }
        }
        Ok(Vote::default())
    }

    fn read_segment(
        &mut self,
        name: &str,
        is_last: bool,
        snapshot_index: u64,
        recovered: &mut Recovered,
    ) -> Result<(), WalError> {
        let bytes = self
            .disk
            .read(name)
            .map_err(|source| WalError::Read { name: name.to_owned(), source })?;
        let before = parse_segment_name(name).map_or(0, |(_, first_index)| first_index - 1);
        let mut last_index = before;
        let mut offset = 0;
        while let Some((batch, length)) = record_at(&bytes, offset, self.next_sequence) {
            recovered.vote = batch.vote;
            for entry in batch.entries {
                last_index = entry.index;
                if entry.index <= snapshot_index {
                    // What came after it was of an older leader, and was never committed.
                    recovered.entries.clear();
                    continue;
                }
                // A leader of a newer term may have written over what was not committed.
                while recovered.entries.back().is_some_and(|last| last.index >= entry.index) {
                    recovered.entries.pop_back();
                }
                let expected =
                    recovered.entries.back().map_or(snapshot_index, |last| last.index) + 1;
                if entry.index != expected {
                    let (first, snapshot) = (entry.index, expected - 1);
                    return Err(WalError::Missing { first, snapshot });
                }
                recovered.entries.push_back(entry);
            }
            offset += length;
            self.next_sequence += 1;
        }
        let is_clean = bytes[offset..].iter().all(|byte| *byte == 0);
        if !is_clean {
            let damaged = WalError::Damaged { name: name.to_owned(), offset: offset as u64 };
            if !is_last || has_record_after(&bytes, offset, self.next_sequence) {
                return Err(damaged);
            }
            let torn = Torn { segment: name.to_owned(), offset: offset as u64 };
            let torn_bytes =
                bytes[offset..].iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            metrics::LOG_TORN_BYTES.inc_by(torn_bytes as u64);
            warn!(
                segment = name,
                offset, torn_bytes, "the end of the log was torn by a crash and is cut off"
            );
            recovered.torn = Some(torn);
            // Zeros, or a shorter batch written here could leave the torn one's end behind it.
            let zeros = vec![0; bytes.len() - offset];
            let cut = |source| WalError::Cut { name: name.to_owned(), source };
            self.disk.write_at(name, offset as u64, &zeros).map_err(cut)?;
            self.disk.sync(name).map_err(cut)?;
        }
        self.offset = offset as u64;
        self.reserved = bytes.len() as u64;
        self.segments.push_back(Segment { name: name.to_owned(), last_index });
        Ok(())
    }

    fn start_segment(&mut self, first_index: u64) -> io::Result<()> {
        let name = segment_name(self.next_sequence, first_index);
        self.disk.create(&name)?;
        self.segments.push_back(Segment { name, last_index: first_index - 1 });
        (self.offset, self.reserved) = (0, 0);
        Ok(())
    }

    /// Makes all of `batches` durable with one write and one fdatasync; with one more where a
    /// snapshot takes the place of the log.
    pub(crate) fn append(&mut self, batches: &[Batch]) -> Result<(), AppendError> {
        if self.is_failed {
            return Err(AppendError::Failed(io::Error::other("it failed before")));
        }
        let restored = batches.iter().rposition(|batch| batch.restored.is_some());
        let (before, after) = batches.split_at(restored.unwrap_or(0));
        if let Some(index) = after.first().and_then(|batch| batch.restored) {
            if !before.is_empty() {
                self.append_to_segment(before)?;
            }
            // What is in the segments so far is never looked at again.
            let name = segment_name(self.next_sequence, index + 1);
            if self.segments.back().is_none_or(|last| last.name != name) {
                self.start_segment(index + 1).map_err(full_or_failed)?;
            }
        } else {
            self.roll().map_err(full_or_failed)?;
        }
        self.append_to_segment(after)
    }

    fn append_to_segment(&mut self, batches: &[Batch]) -> Result<(), AppendError> {
        let mut bytes = Vec::new();
        let mut sequence = self.next_sequence;
        for batch in batches {
            put_record(&mut bytes, sequence, batch);
            sequence += 1;
        }
        let segment = self.segments.back_mut().expect("a log has a segment");
        let end = self.offset + bytes.len() as u64;
        if end > self.reserved {
            let reserved = end.next_multiple_of(RESERVE_BYTES.min(self.segment_bytes));
            self.disk.reserve(&segment.name, reserved).map_err(full_or_failed)?;
            self.reserved = reserved;
        }
        self.disk.write_at(&segment.name, self.offset, &bytes).map_err(full_or_failed)?;
        if let Err(error) = self.disk.sync(&segment.name) {
            // The kernel may have dropped the pages and would report success the next time.
            self.is_failed = true;
            return Err(AppendError::Failed(error));
        }
        self.offset = end;
        self.next_sequence = sequence;
        if let Some(entry) = batches.iter().rev().find_map(|batch| batch.entries.last()) {
            segment.last_index = entry.index;
        }
        Ok(())
    }

    /// Goes on in a new segment where the one being written is large enough.
    fn roll(&mut self) -> io::Result<()> {
        if self.offset < self.segment_bytes {
            return Ok(());
        }
        let next = self.segments.back().map_or(0, |segment| segment.last_index) + 1;
        self.start_segment(next)
    }

    /// Makes sure that as much as may be in flight finds room, in the next segment where the one
    /// being written is done.
    pub(crate) fn keep_room(&mut self) -> Result<(), AppendError> {
        self.roll().map_err(full_or_failed)?;
        let room_bytes_min = ROOM_BYTES_MIN.min(self.segment_bytes / 2);
        if self.reserved - self.offset >= room_bytes_min {
            return Ok(());
        }
        let reserved = self.reserved + RESERVE_BYTES.min(self.segment_bytes);
        let segment = self.segments.back().expect("a log has a segment");
        self.disk.reserve(&segment.name, reserved).map_err(full_or_failed)?;
        self.reserved = reserved;
        Ok(())
    }

    /// Removes segments that hold nothing after `index`.
    pub(crate) fn purge(&mut self, index: u64) -> io::Result<usize> {
        let mut purged = 0;
        while self.segments.len() > 1 && self.segments[0].last_index <= index {
            self.disk.remove(&self.segments[0].name)?;
            self.segments.pop_front();
            purged += 1;
        }
        Ok(purged)
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.segments.len() as u64 - 1) * self.segment_bytes + self.offset
    }
}

/// Starts the log of a snapshot that was made without one.
pub(crate) fn start_after(mut disk: impl Disk, snapshot_index: u64) -> io::Result<()> {
    disk.create(&segment_name(1, snapshot_index + 1))
}

fn full_or_failed(error: io::Error) -> AppendError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppendError::Full(error),
        _ => AppendError::Failed(error),
    }
}

fn put_record(out: &mut Vec<u8>, sequence: u64, batch: &Batch) {
    let start = out.len();
    out.extend(MAGIC.to_be_bytes());
    out.extend([0; 8]);
    out.extend(sequence.to_be_bytes());
    for number in [batch.vote.term, batch.vote.vote, batch.vote.commit] {
        out.extend(number.to_be_bytes());
    }
    out.extend((batch.entries.len() as u32).to_be_bytes());
    for entry in &batch.entries {
        out.extend(entry.term.to_be_bytes());
        out.extend(entry.index.to_be_bytes());
        out.push(entry.kind);
        out.extend((entry.data.len() as u32).to_be_bytes());
        out.extend_from_slice(&entry.data);
    }
    let length = (out.len() - start - HEADER_BYTES) as u32;
    out[start + 4..start + 8].copy_from_slice(&length.to_be_bytes());
    let crc = crc32fast::hash(&out[start + 12..]);
    out[start + 8..start + 12].copy_from_slice(&crc.to_be_bytes());
    out.resize(start + (out.len() - start).next_multiple_of(ALIGNMENT), 0);
}

/// The record with this sequence number at `offset` and the bytes it takes, if a whole one is there.
fn record_at(bytes: &[u8], offset: usize, sequence: u64) -> Option<(Batch, usize)> {
    let (found, payload) = checked_payload(bytes, offset)?;
    if found != sequence {
        return None;
    }
    let mut rest = payload;
    let mut take = |count: usize| -> Option<&[u8]> {
        let (taken, after) = rest.split_at_checked(count)?;
        rest = after;
        Some(taken)
    };
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
    let short = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    let vote = Vote { term: number(take(8)?), vote: number(take(8)?), commit: number(take(8)?) };
    let count = short(take(4)?);
    let mut entries = Vec::new();
    for _ in 0..count {
        let (term, index) = (number(take(8)?), number(take(8)?));
        let kind = take(1)?[0];
        let length = short(take(4)?) as usize;
        entries.push(LogEntry { term, index, kind, data: Bytes::copy_from_slice(take(length)?) });
    }
    let length = (HEADER_BYTES + payload.len()).next_multiple_of(ALIGNMENT);
    // The last record's padding may be beyond what a crash left of the file.
    Some((Batch { vote, entries, restored: None }, length.min(bytes.len() - offset)))
}

/// Sequence number and payload of the record at `offset`, if its checksum holds.
fn checked_payload(bytes: &[u8], offset: usize) -> Option<(u64, &[u8])> {
    let header: &[u8; HEADER_BYTES] = bytes.get(offset..)?.first_chunk()?;
    let number = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if number(0) != MAGIC {
        return None;
    }
    let end = offset.checked_add(HEADER_BYTES)?.checked_add(number(4) as usize)?;
    let checked = bytes.get(offset + 12..end)?;
    if crc32fast::hash(checked) != number(8) {
        return None;
    }
    let sequence = u64::from(number(12)) << 32 | u64::from(number(16));
    Some((sequence, &checked[8..]))
}

/// Whether a whole record of this log follows, which was written after the one at `offset` was durable.
fn has_record_after(bytes: &[u8], offset: usize, sequence: u64) -> bool {
    let mut at = (offset + 1).next_multiple_of(ALIGNMENT);
    while at + HEADER_BYTES <= bytes.len() {
        if bytes[at..at + 4] == MAGIC.to_be_bytes()
            && checked_payload(bytes, at).is_some_and(|(found, _)| found > sequence)
        {
            return true;
        }
        at += ALIGNMENT;
    }
    false
}

#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;
