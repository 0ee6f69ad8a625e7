//! A generation of a file while the shipper knows it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::compressed::Stream;
use crate::event::SourceText;
use crate::harvester::{Harvester, InFlight};
use crate::identity::{FileId, GUARD_BYTES, HEAD_BYTES};
use crate::registry::{Day, FileState};

use super::FileStatus;

#[derive(Debug)]
pub(super) struct Source<F> {
    pub(super) input: usize,
    pub(super) state: FileState,
    pub(super) path: PathBuf,
    /// Open; kept until everything read from it is acknowledged or can be read again.
    pub(super) file: Option<Arc<F>>,
    /// Of a compressed file: what it holds, up to the harvester's position.
    pub(super) stream: Option<Stream>,
    pub(super) harvester: Option<Harvester>,
    /// Where a new harvester has to begin.
    pub(super) resume: u64,
    /// The last bytes before the harvester's position.
    pub(super) tail: Vec<u8>,
    /// The first bytes, while there are fewer than take part in the identity.
    pub(super) head: Vec<u8>,
    pub(super) in_flight: InFlight,
    /// No event that begins here or beyond was sent yet; none where an earlier run left that open.
    pub(super) sent_to: Option<u64>,
    pub(super) text: SourceText,
    /// Whether it is known to be neither binary nor a copy of another.
    pub(super) is_resolved: bool,
    /// Which entry of the journal says that it exists.
    pub(super) durable_with: u64,
    /// Size and modification time when it was looked at last.
    pub(super) size: u64,
    pub(super) modified_ns: u64,
    pub(super) last_growth: Instant,
    pub(super) is_active: bool,
    /// The last look at its file brought nothing.
    pub(super) is_at_end: bool,
    /// Size of its file just before that look.
    pub(super) looked_up_to: u64,
    pub(super) stood: Stood,
    /// Something happened to its file since it was looked at.
    pub(super) has_changed: bool,
    pub(super) is_dirty: bool,
    /// Found under another name than the one it was begun with, or under none that matches.
    pub(super) is_renamed: bool,
    /// No pattern matches it any more; only its open descriptor leads to it.
    pub(super) is_detached: bool,
    pub(super) is_deleted: bool,
    /// Until when a copy with the rest of it is looked for.
    pub(super) wanted_until: Option<Instant>,
    /// Candidates that are not its copy.
    pub(super) rejected: HashSet<(FileId, u64)>,
    pub(super) retry_at: Option<Instant>,
    /// Bytes its events may have, as far as the broker has shown.
    pub(super) message_bytes: usize,
    pub(super) is_assigned: bool,
    pub(super) last_error: Option<String>,
    /// Said once of each file.
    pub(super) was_cut_reported: bool,
    pub(super) was_encoding_reported: bool,
}

/// How far a file reached at a look, and when it had last been written to: what was there then and is
/// read block by block has at least that age.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stood {
    to: u64,
    at_ms: u64,
}

impl Stood {
    /// How long what stands at `position` has stood there, at least. `end` is the file's as it is now.
    pub(super) fn waited_ms(&mut self, position: u64, end: Self, now_ms: u64) -> u64 {
        if position >= self.to || end.to < self.to {
            *self = end;
        }
        now_ms.saturating_sub(self.at_ms)
    }

    pub(super) fn new(to: u64, modified_ns: u64) -> Self {
        Self { to, at_ms: modified_ns / 1_000_000 }
    }
}

/// A copy of a file that is still being written: not read as long as that one goes on.
#[derive(Debug)]
pub(super) struct Shadow {
    pub(super) of: usize,
    pub(super) size: u64,
    pub(super) modified_ns: u64,
    pub(super) since: Instant,
}

/// A file that is not read.
#[derive(Debug)]
pub(super) struct Ignored {
    pub(super) why: Why,
    pub(super) size: u64,
    pub(super) modified_ns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Binary,
    Unreadable,
    /// Not written to for longer than the input cares for.
    Old,
    /// Compressed, and the input wants none.
    Compressed,
    Damaged,
}

impl<F> Source<F> {
    pub(super) fn new(input: usize, state: FileState, next_number: u64, now: Instant) -> Self {
        let path = PathBuf::from(&state.path);
        let id = state.file.unwrap_or(FileId { device: 0, inode: 0, birth_ns: 0 });
        Self {
            input,
            sent_to: None,
            text: SourceText::new(state.generation, &path, id),
            path,
            file: None,
            stream: None,
            harvester: None,
            resume: state.position,
            tail: Vec::new(),
            head: Vec::new(),
            in_flight: InFlight::starting_at(state.position, next_number),
            is_resolved: false,
            durable_with: u64::MAX,
            size: 0,
            modified_ns: 0,
            last_growth: now,
            is_active: false,
            is_at_end: false,
            looked_up_to: 0,
            stood: Stood::default(),
            has_changed: true,
            is_dirty: false,
            is_renamed: false,
            is_detached: false,
            is_deleted: false,
            wanted_until: None,
            rejected: HashSet::new(),
            retry_at: None,
            message_bytes: usize::MAX,
            is_assigned: false,
            last_error: None,
            was_cut_reported: false,
            was_encoding_reported: false,
            state,
        }
    }

    /// Whether a file is there to be read.
    pub(super) fn is_readable(&self) -> bool {
        self.state.file.is_some() && !self.state.is_finished && self.retry_at.is_none()
    }

    /// The next byte to be read.
    pub(super) fn position(&self) -> u64 {
        self.harvester.as_ref().map_or(self.resume, Harvester::position)
    }

    /// Drops the harvester; the next one begins at `resume`.
    pub(super) fn drop_harvester(&mut self, resume: u64) {
        if self.position() != resume {
            // It stands before another position.
            self.tail.clear();
            self.is_at_end = false;
        }
        self.resume = resume;
        self.harvester = None;
        self.stream = None;
    }

    /// Brings the state up to what is acknowledged.
    pub(super) fn note_progress(&mut self) {
        let progress = self.in_flight.progress();
        self.state.position = progress.position;
        if progress.guard.is_some() {
            self.state.guard = progress.guard;
        }
        self.state.cuts.retain(|cut| *cut > progress.position);
        let days = &mut self.state.days;
        let passed = days.iter().take_while(|day| day.from <= progress.position).count();
        days.drain(..passed.saturating_sub(1));
        self.state.path = self.path.to_string_lossy().into_owned();
        self.state.modified_ns = self.modified_ns;
    }

    /// The time of the event that begins at `start`: now, unless it may have been sent on another day.
    pub(super) fn time_ms(&self, start: u64, now_ms: u64) -> u64 {
        if self.sent_to.is_some_and(|sent_to| start >= sent_to) {
            return now_ms;
        }
        let mark = self.state.days.iter().rev().find(|day| day.from <= start);
        match mark.filter(|mark| mark.day != Day::of(now_ms)) {
            Some(mark) => Day::end_ms(mark.day),
            None => now_ms,
        }
    }

    /// Marks the day of the event at `start`, which is about to be sent for the first time. Returns
    /// whether the state says something new that must be durable before.
    pub(super) fn mark_day(&mut self, start: u64, now_ms: u64) -> bool {
        if self.sent_to.is_none_or(|sent_to| start < sent_to) {
            return false;
        }
        let day = Day::of(now_ms);
        let was_closed = self.state.sent_to.take().is_some();
        if self.state.days.last().is_some_and(|last| last.day == day) {
            return was_closed;
        }
        self.state.days.retain(|day| day.from < start);
        self.state.days.push(Day { from: start, day });
        true
    }

    /// Takes note of bytes that follow the position the tail stands for.
    pub(super) fn note_tail(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(GUARD_BYTES)..];
        let excess = (self.tail.len() + bytes.len()).saturating_sub(GUARD_BYTES);
        self.tail.drain(..excess.min(self.tail.len()));
        self.tail.extend_from_slice(bytes);
    }

    pub(super) fn has_whole_head(&self) -> bool {
        usize::from(self.state.head.bytes) >= HEAD_BYTES
    }

    pub(super) fn lag_bytes(&self) -> u64 {
        // Of a compressed file only the compressed size is known.
        if self.state.compressed || self.state.is_finished {
            return 0;
        }
        self.size.saturating_sub(self.in_flight.acked())
    }

    pub(super) fn status(&self, input: &str) -> Option<FileStatus> {
        self.state.file?;
        Some(FileStatus {
            path: self.path.clone(),
            input: input.into(),
            generation: self.state.generation,
            position: self.position(),
            acked: self.in_flight.acked(),
            size: self.size,
            lag_bytes: self.lag_bytes(),
            partition: self.state.partition,
            is_open: self.file.is_some(),
            last_error: self.last_error.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_block_by_block_has_the_age_of_the_look_that_found_it() {
        let mut stood = Stood::default();
        let at = |to, ms: u64| Stood::new(to, ms * 1_000_000);
        assert_eq!(stood.waited_ms(0, at(100, 5_000), 5_010), 10);
        // The file grows meanwhile; what is read was there before.
        assert_eq!(stood.waited_ms(60, at(200, 6_000), 6_000), 1_000);
        assert_eq!(stood.waited_ms(100, at(300, 7_000), 7_001), 1);
        // Truncated.
        assert_eq!(stood.waited_ms(0, at(50, 8_000), 8_002), 2);
        assert_eq!(stood.waited_ms(50, at(60, 9_000), 8_000), 0, "a clock that was set back");
    }
}
