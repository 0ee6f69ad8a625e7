//! Several lines, one event: stack traces and the like. Filebeat's rules.

use std::time::{Duration, Instant};

use regex::bytes::Regex;

use super::Piece;

const DEFAULT_MAX_LINES: usize = 500;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct MultilineSettings {
    pub grouping: Grouping,
    /// A line that matches ends its event.
    pub flush_pattern: Option<Regex>,
    /// Lines beyond are dropped from the event and counted.
    pub max_lines: usize,
    /// An event that has not grown for so long is complete.
    pub timeout: Duration,
    /// Joins the lines without a line feed.
    pub skip_newline: bool,
}

impl MultilineSettings {
    pub fn new(grouping: Grouping) -> Self {
        Self {
            grouping,
            flush_pattern: None,
            max_lines: DEFAULT_MAX_LINES,
            timeout: DEFAULT_TIMEOUT,
            skip_newline: false,
        }
    }
}

/// Which lines belong together.
#[derive(Debug, Clone)]
pub enum Grouping {
    /// A line that matches (does not match, under `negate`) belongs to the one on its `side`.
    Pattern {
        pattern: Regex,
        negate: bool,
        side: Side,
    },
    /// Consecutive lines that match (do not match) belong together; others stand alone.
    While {
        pattern: Regex,
        negate: bool,
    },
    Count {
        lines: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// To the line before it.
    After,
    /// To the line after it.
    Before,
}

/// Collects lines until their event is complete.
#[derive(Debug)]
pub(super) struct Assembler {
    settings: MultilineSettings,
    max_bytes: usize,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    piece: Piece,
    lines: usize,
    /// Whether the last line asks for the next one.
    wants_next: bool,
    grown: Instant,
}

/// What one line led to; both may be there: an event it showed to be complete, and its own.
pub(super) type Completed = [Option<Piece>; 2];

impl Assembler {
    pub(super) fn new(settings: MultilineSettings, max_bytes: usize) -> Self {
        Self { settings, max_bytes, open: None }
    }

    pub(super) fn push(&mut self, now: Instant, line: Piece) -> Completed {
        let is_match = match &self.settings.grouping {
            Grouping::Pattern { pattern, .. } | Grouping::While { pattern, .. } => {
                pattern.is_match(&line.text)
            }
            Grouping::Count { .. } => true,
        };
        let flush = self.settings.flush_pattern.as_ref();
        let mut before = None;
        let (joins, mut ends, wants_next) = match &self.settings.grouping {
            Grouping::Pattern { negate, side: Side::After, .. } => {
                (is_match != *negate, false, false)
            }
            Grouping::Pattern { negate, side: Side::Before, .. } => {
                let wants_next = is_match != *negate;
                (self.open.as_ref().is_some_and(|open| open.wants_next), !wants_next, wants_next)
            }
            Grouping::While { negate, .. } => (is_match != *negate, is_match == *negate, false),
            Grouping::Count { lines } => {
                let held = self.open.as_ref().map_or(0, |open| open.lines);
                (true, held + 1 >= *lines, false)
            }
        };
        ends |= flush.is_some_and(|pattern| pattern.is_match(&line.text));
        match &mut self.open {
            Some(open) if joins => {
                open.add(line, &self.settings, self.max_bytes);
                open.grown = now;
                open.wants_next = wants_next;
            }
            _ => {
                before = self.open.take().map(|open| open.piece);
                self.open = Some(Open { piece: line, lines: 1, wants_next, grown: now });
            }
        }
        let own = if ends { self.open.take().map(|open| open.piece) } else { None };
        [before, own]
    }

    /// When the open event will be complete by time alone.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.grown + self.settings.timeout)
    }

    /// The open event, however incomplete.
    pub(super) fn flush(&mut self) -> Option<Piece> {
        self.open.take().map(|open| open.piece)
    }

    pub(super) fn open_start(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.piece.start)
    }
}

impl Open {
    fn add(&mut self, line: Piece, settings: &MultilineSettings, max_bytes: usize) {
        self.lines += 1;
        self.piece.end = line.end;
        self.piece.flags.multiline = true;
        self.piece.flags.invalid |= line.flags.invalid;
        self.piece.flags.truncated |= line.flags.truncated;
        let room = max_bytes.saturating_sub(self.piece.text.len());
        if self.lines > settings.max_lines || room == 0 {
            self.piece.flags.truncated = true;
            self.piece.dropped_bytes += line.text.len() as u64;
            return;
        }
        if !settings.skip_newline {
            self.piece.text.push(b'\n');
        }
        let keep = super::floor_char(&line.text, room);
        self.piece.text.extend_from_slice(&line.text[..keep]);
        if keep < line.text.len() {
            self.piece.flags.truncated = true;
            self.piece.dropped_bytes += (line.text.len() - keep) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Joins `lines` under `settings` and shows the events, line feeds as `|`.
    fn check(settings: MultilineSettings, lines: &str, expected: &[&str]) {
        let mut assembler = Assembler::new(settings, 1 << 20);
        let now = Instant::now();
        let mut events = Vec::new();
        let mut at = 0;
        for line in lines.split('|') {
            let end = at + line.len() as u64 + 1;
            let piece = Piece::new(at, end, line.as_bytes().to_vec());
            events.extend(assembler.push(now, piece).into_iter().flatten());
            at = end;
        }
        events.extend(assembler.flush());
        let texts: Vec<_> = events
            .iter()
            .map(|event| String::from_utf8_lossy(&event.text).replace('\n', "|"))
            .collect();
        assert_eq!(texts, expected);
        // Events follow each other without a gap.
        let mut position = 0;
        for event in events {
            assert_eq!(event.start, position);
            position = event.end;
        }
    }

    fn pattern(text: &str, negate: bool, side: Side) -> MultilineSettings {
        let pattern = Regex::new(text).unwrap();
        MultilineSettings::new(Grouping::Pattern { pattern, negate, side })
    }

    #[test]
    fn matching_lines_follow_the_one_before() {
        let settings = pattern(r"^\s", false, Side::After);
        check(settings, "Error| at a| at b|next|last", &["Error| at a| at b", "next", "last"]);
    }

    #[test]
    fn lines_that_do_not_match_follow_the_one_that_does() {
        let settings = pattern(r"^\[", true, Side::After);
        check(settings, "[1] a|b|c|[2] d", &["[1] a|b|c", "[2] d"]);
    }

    #[test]
    fn a_continuation_mark_asks_for_the_next_line() {
        let settings = pattern(r"\\$", false, Side::Before);
        check(settings, r"a\|b\|c|d", &[r"a\|b\|c", "d"]);
    }

    #[test]
    fn a_flush_pattern_ends_the_event() {
        let mut settings = pattern("^start", true, Side::After);
        settings.flush_pattern = Some(Regex::new("^end").unwrap());
        check(settings, "start|x|end|y|start", &["start|x|end", "y", "start"]);
    }

    #[test]
    fn lines_are_counted_or_taken_while_they_match() {
        check(MultilineSettings::new(Grouping::Count { lines: 2 }), "a|b|c", &["a|b", "c"]);
        let pattern = Regex::new(r"^\{").unwrap();
        let settings = MultilineSettings::new(Grouping::While { pattern, negate: false });
        check(settings, "{1|{2|x|y|{3", &["{1|{2", "x", "y", "{3"]);
    }

    #[test]
    fn lines_beyond_the_limit_are_dropped_from_the_event() {
        let mut settings = pattern(r"^\s", false, Side::After);
        settings.max_lines = 2;
        check(settings, "a| b| c|d", &["a| b", "d"]);
    }
}
