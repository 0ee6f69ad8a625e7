//! Reading a log: where an offset or a timestamp lies, and whole batches from there.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use elkfk_wire::kafka::records::{HEADER_BYTES, LeaderEpoch, Offset, batches, peek};

use super::files::Files;
use super::partition_log::Log;
use super::scan::{ScanError, Scanner};
use super::segment::{SegmentFiles, sealed_offset_before, sealed_position};

/// The records of one batch may grow to this when a timestamp is looked for in them.
const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;

/// Where the last reads of a partition ended: consumers go on there.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    /// Segment, offset, and the position of its batch.
    ends: VecDeque<(Offset, Offset, u64)>,
}

/// As many consumers of one partition as find their place without an index.
const CURSORS_KEPT: usize = 16;

impl Cursors {
    fn find(&self, segment: Offset, offset: Offset) -> Option<u64> {
        self.ends.iter().find(|end| (end.0, end.1) == (segment, offset)).map(|end| end.2)
    }

    pub(super) fn clear(&mut self) {
        self.ends.clear();
    }
}

/// Which batches to read, made under the log's lock and run without it.
#[derive(Debug)]
pub struct ReadPlan {
    files: Arc<Files>,
    segment: Arc<SegmentFiles>,
    /// `None`: search the index in its file.
    start: Option<u64>,
    /// Bytes of the segment that are whole batches.
    end: u64,
    from: Offset,
    /// No batch that reaches this offset is read.
    upper: Offset,
    max_bytes: usize,
    is_one_wanted: bool,
    truncations: u64,
    /// Where reading goes on if this segment has nothing at or after `from`.
    pub next_segment: Option<Offset>,
}

/// Whole batches.
#[derive(Debug)]
pub struct ReadBatches {
    pub bytes: Vec<u8>,
    /// Segment, next offset and its position, for [`Log::note_read`].
    cursor: Option<(Offset, Offset, u64)>,
    truncations: u64,
    /// True where the segment ends before the offset asked for.
    pub is_beyond: bool,
}

impl Log {
    /// Plans to read batches from the one that holds `from`, below `upper`, of `max_bytes`
    /// together; if `is_one_wanted`, the first one even if it is larger (KIP-74).
    ///
    /// `from` lies within the log.
    pub fn plan_read(
        &self,
        from: Offset,
        upper: Offset,
        max_bytes: usize,
        is_one_wanted: bool,
    ) -> ReadPlan {
        let active = self.active.base_offset();
        let below = self.sealed.range(..=from).next_back().filter(|_| from < active);
        let (segment, start, end, next_segment) = match below {
            Some((&base, sealed)) => {
                let known = self.cursors.find(base, from);
                let next =
                    self.sealed.range(base.next()..).next().map_or(active, |(&next, _)| next);
                (&sealed.files, known, sealed.bytes, Some(next))
            }
            None => {
                let known = self.cursors.find(active, from);
                let start = known.unwrap_or_else(|| self.active.position(from));
                (&self.active.files, Some(start), self.active.bytes, None)
            }
        };
        ReadPlan {
            files: self.files.clone(),
            segment: segment.clone(),
            start,
            end,
            from,
            upper,
            max_bytes,
            is_one_wanted,
            truncations: self.truncations,
            next_segment,
        }
    }

    /// Remembers where a read ended.
    pub fn note_read(&mut self, read: &ReadBatches) {
        let Some(end) = read.cursor.filter(|_| read.truncations == self.truncations) else {
            return;
        };
        if self.cursors.find(end.0, end.1).is_none() {
            if self.cursors.ends.len() == CURSORS_KEPT {
                self.cursors.ends.pop_front();
            }
            self.cursors.ends.push_back(end);
        }
    }

    /// All of `from..upper`, for the loading of internal topics and for tests.
    pub fn read_all(&self, mut from: Offset, upper: Offset) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while from < upper {
            let plan = self.plan_read(from, upper, 1 << 20, true);
            let read = plan.run()?;
            match (batches(&read.bytes).flatten().last(), plan.next_segment) {
                (Some(last), _) => from = last.next_offset(),
                (None, Some(next)) if next > from => from = next,
                (None, _) => break,
            }
            bytes.extend_from_slice(&read.bytes);
        }
        Ok(bytes)
    }

    /// Plans to find the first record below `upper` that is at least as young as `timestamp_ms`.
    pub fn plan_timestamp(
        &mut self,
        timestamp_ms: i64,
        upper: Offset,
    ) -> Result<TimestampPlan, LookupError> {
        let mut candidates = Vec::new();
        for sealed in self.sealed.values_mut() {
            if sealed.largest_timestamp_ms(&self.files)? >= timestamp_ms {
                candidates.push((sealed.files.clone(), sealed.bytes, None));
            }
        }
        if self.active.largest_timestamp_ms() >= timestamp_ms {
            let start = self.active.position(self.active.offset_before(timestamp_ms));
            candidates.push((self.active.files.clone(), self.active.bytes, Some(start)));
        }
        let (files, log_start) = (self.files.clone(), self.log_start);
        Ok(TimestampPlan { files, candidates, timestamp_ms, upper, log_start })
    }

    /// The same for the youngest record below `upper`, the first of those where several are equal;
    /// `None` where no record has a timestamp.
    pub fn plan_largest_timestamp(
        &mut self,
        upper: Offset,
    ) -> Result<Option<TimestampPlan>, LookupError> {
        let mut largest = self.active.largest_timestamp_ms();
        for sealed in self.sealed.values_mut() {
            largest = largest.max(sealed.largest_timestamp_ms(&self.files)?);
        }
        if largest < 0 { Ok(None) } else { self.plan_timestamp(largest, upper).map(Some) }
    }
}

/// Where to look for a timestamp, found out under the log's lock; run without it.
#[derive(Debug)]
pub struct TimestampPlan {
    files: Arc<Files>,
    /// Segments in order, their bytes, and where to start; `None`: ask the indexes in their files.
    candidates: Vec<(Arc<SegmentFiles>, u64, Option<u64>)>,
    timestamp_ms: i64,
    upper: Offset,
    log_start: Offset,
}

impl TimestampPlan {
    /// Walks batches and decompresses them. Blocks.
    ///
    /// # Errors
    /// [`LookupError::is_gone`] where a segment was removed meanwhile.
    pub fn run(&self) -> Result<Option<TimestampOffset>, LookupError> {
        for (segment, end, start) in &self.candidates {
            let start = match start {
                Some(start) => *start,
                None => {
                    let before = sealed_offset_before(&self.files, segment, self.timestamp_ms)?;
                    sealed_position(&self.files, segment, before)?
                }
            };
            let mut scanner = Scanner::new(segment.log.get(&self.files)?, start, *end);
            while let Some((_, batch)) = scanner.next_batch().map_err(LookupError::from)? {
                if batch.base_offset() >= self.upper {
                    return Ok(None);
                }
                let is_possible = batch.max_timestamp_ms() >= self.timestamp_ms
                    && batch.last_offset() >= self.log_start;
                if !is_possible {
                    continue;
                }
                let records = batch.records(DECOMPRESSED_BYTES_MAX).map_err(LookupError::from)?;
                for record in &records {
                    let record = record.map_err(LookupError::from)?;
                    if record.offset >= self.upper {
                        return Ok(None);
                    }
                    if record.timestamp_ms >= self.timestamp_ms && record.offset >= self.log_start {
                        return Ok(Some(TimestampOffset {
                            offset: record.offset,
                            timestamp_ms: record.timestamp_ms,
                            leader_epoch: batch.leader_epoch(),
                        }));
                    }
                }
            }
        }
        Ok(None)
    }
}

/// A record found by its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    pub offset: Offset,
    pub timestamp_ms: i64,
    pub leader_epoch: LeaderEpoch,
}

/// Why a timestamp could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("read the log")]
    Io(#[from] io::Error),
    #[error("walk the log: {0}")]
    Damaged(String),
}

impl LookupError {
    /// True where a segment was removed between plan and lookup.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl From<ScanError> for LookupError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Io { source, .. } => Self::Io(source),
            ScanError::Batch { position, source } => {
                Self::Damaged(format!("position {position}: {source}"))
            }
        }
    }
}

impl From<elkfk_wire::kafka::records::RecordError> for LookupError {
    fn from(error: elkfk_wire::kafka::records::RecordError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl ReadPlan {
    pub(crate) fn is_of_same_segment(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.segment, &other.segment)
    }

    /// Reads. Nothing found is no error.
    ///
    /// # Errors
    /// `NotFound` where the segment was removed meanwhile.
    pub fn run(&self) -> io::Result<ReadBatches> {
        let empty = ReadBatches {
            bytes: Vec::new(),
            cursor: None,
            truncations: self.truncations,
            is_beyond: false,
        };
        let log = self.segment.log.get(&self.files)?;
        let guess = match self.start {
            Some(position) => position,
            None => sealed_position(&self.files, &self.segment, self.from)?,
        };
        // A damaged index is worth a slower search, not an error.
        let Some((position, first_bytes)) = (match self.locate(&*log, guess)? {
            Located::At(position, bytes) => Some((position, bytes)),
            Located::Beyond => None,
            Located::Lost => match self.locate(&*log, 0)? {
                Located::At(position, bytes) => Some((position, bytes)),
                Located::Beyond => None,
                Located::Lost => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!(
                            "{}: no batches before offset {}",
                            self.segment.log.path().display(),
                            self.from
                        ),
                    ));
                }
            },
        }) else {
            return Ok(ReadBatches { is_beyond: true, ..empty });
        };
        let left = usize::try_from(self.end - position).unwrap_or(usize::MAX);
        let mut length = left.min(self.max_bytes);
        if length < first_bytes {
            if !self.is_one_wanted || first_bytes > left {
                return Ok(empty);
            }
            length = first_bytes;
        }
        let mut bytes = log.read_at(position, length)?;
        let mut whole = 0;
        let mut next = self.from;
        for batch in batches(&bytes).map_while(Result::ok) {
            if batch.next_offset() > self.upper {
                break;
            }
            whole += batch.len();
            next = batch.next_offset();
        }
        bytes.truncate(whole);
        let cursor = (whole > 0).then(|| (self.segment.base_offset, next, position + whole as u64));
        Ok(ReadBatches { bytes, cursor, ..empty })
    }

    /// Finds the first batch that ends at or after `from`, stepping on from `position`.
    fn locate(&self, log: &dyn super::disk::DiskFile, mut position: u64) -> io::Result<Located> {
        let mut is_first = true;
        while position < self.end {
            let head = log.read_at(position, HEADER_BYTES)?;
            let Ok(head) = peek(&head) else { return Ok(Located::Lost) };
            if head.last_offset >= self.from {
                // Stepping must start before the target, or at the start of the segment.
                let is_plausible = !is_first || position == 0 || head.base_offset <= self.from;
                return Ok(if is_plausible {
                    Located::At(position, head.total_bytes)
                } else {
                    Located::Lost
                });
            }
            is_first = false;
            position += head.total_bytes as u64;
        }
        Ok(Located::Beyond)
    }
}

enum Located {
    /// The position, and the bytes of the batch there.
    At(u64, usize),
    /// The segment ends before.
    Beyond,
    /// No batch starts where one should.
    Lost,
}
