//! The harvester: bytes of one file generation in, events out. Pure: no file, no socket, no clock.
//!
//! Positions count bytes from the start of the generation. Reading the same bytes again from any
//! position the registry held gives the same events with the same starts, whatever the blocks: only
//! ends that time decided ([`Event::is_cut`]) have to be remembered, and are given back as `cuts`.

pub(crate) mod container;
pub(crate) mod encoding;
mod in_flight;
pub(crate) mod multiline;
pub(crate) mod ndjson;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use memchr::memchr_iter;
use regex::bytes::Regex;

use self::container::{ContainerSettings, Joiner, Origin};
use self::encoding::{Encoding, LineEnd};
pub(crate) use self::in_flight::InFlight;
use self::multiline::{Assembler, MultilineSettings};
use self::ndjson::NdjsonSettings;

/// How the lines of an input are read.
#[derive(Debug, Clone)]
pub struct LineSettings {
    pub encoding: Encoding,
    /// Bytes of one event's text; what exceeds them is dropped, flagged and counted.
    pub max_bytes: usize,
    /// Where not empty, events that match none are dropped.
    pub include: Vec<Regex>,
    pub exclude: Vec<Regex>,
    pub parsers: Parsers,
}

#[derive(Debug, Clone, Default)]
pub struct Parsers {
    pub container: Option<ContainerSettings>,
    pub multiline: Option<MultilineSettings>,
    pub ndjson: Option<NdjsonSettings>,
}

impl Default for LineSettings {
    fn default() -> Self {
        Self {
            encoding: Encoding::Utf8,
            max_bytes: 10 << 20,
            include: Vec::new(),
            exclude: Vec::new(),
            parsers: Parsers::default(),
        }
    }
}

/// What happens to a harvester.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// Bytes from [`Harvester::position`] on. Some may be left for a later read: look there again.
    Read(&'a [u8]),
    /// Nothing but NUL bytes stands between the position and this one.
    Hole(u64),
    /// Time passed.
    Tick,
    /// The generation will not grow: what is left is its last line.
    Finish,
}

/// What a harvester asks for, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Event(Event),
    /// Everything before this position needs no further record.
    Covered(u64),
}

/// One event: one line, or those that belong together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Of its first byte; with the generation, its identity.
    pub start: u64,
    /// Where the next event begins.
    pub end: u64,
    /// Its text within [`Outputs::text`]; UTF-8, without the line end.
    pub text: Range<usize>,
    pub flags: Flags,
    pub origin: Option<Box<Origin>>,
    /// Time, not the bytes, ended it: `end` must be durable before the event is sent.
    pub is_cut: bool,
}

/// `log.flags` of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags {
    pub truncated: bool,
    pub multiline: bool,
    /// Bytes that were no text were replaced by U+FFFD.
    pub invalid: bool,
}

/// Outputs of some steps; cleared and filled again, so that their memory is kept.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    pub text: Vec<u8>,
    pub list: Vec<Output>,
    pub counts: Counts,
}

/// What was read and what was not passed on, since the last clear.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub lines: u64,
    pub bytes: u64,
    pub empty_lines: u64,
    pub filtered_events: u64,
    pub truncated_events: u64,
    pub truncated_bytes: u64,
    pub invalid_events: u64,
    pub hole_bytes: u64,
}

impl Outputs {
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.list.clear();
        self.counts = Counts::default();
    }

    pub(crate) fn text_of(&self, event: &Event) -> &[u8] {
        &self.text[event.text.clone()]
    }
}

/// A line or several, on the way through the parsers.
#[derive(Debug)]
pub(super) struct Piece {
    start: u64,
    end: u64,
    text: Vec<u8>,
    flags: Flags,
    origin: Option<Box<Origin>>,
    dropped_bytes: u64,
}

impl Piece {
    fn new(start: u64, end: u64, text: Vec<u8>) -> Self {
        Self { start, end, text, flags: Flags::default(), origin: None, dropped_bytes: 0 }
    }
}

#[derive(Debug)]
pub(crate) struct Harvester {
    settings: Arc<LineSettings>,
    encoding: Encoding,
    position: u64,
    /// Where the unfinished line began; equals `position` when there is none.
    line_start: u64,
    /// Bytes of the unfinished line, no more than `max_bytes` and a little.
    pending: Vec<u8>,
    /// How many more it had.
    pending_dropped: u64,
    joiner: Option<Joiner>,
    assembler: Option<Assembler>,
    /// Ends that time decided in an earlier run, ascending, beyond `position`.
    cuts: VecDeque<u64>,
}

impl Harvester {
    /// Reads on from `position`. `head` is how the generation begins, for its byte order mark.
    pub(crate) fn new(
        settings: Arc<LineSettings>,
        position: u64,
        head: &[u8],
        cuts: &[u64],
    ) -> Self {
        let mut harvester = Self {
            encoding: settings.encoding,
            position,
            line_start: position,
            pending: Vec::new(),
            pending_dropped: 0,
            joiner: settings.parsers.container.clone().map(|s| Joiner::new(s, settings.max_bytes)),
            assembler: settings
                .parsers
                .multiline
                .clone()
                .map(|s| Assembler::new(s, settings.max_bytes)),
            cuts: cuts.iter().copied().filter(|cut| *cut > position).collect(),
            settings,
        };
        if position > 0 {
            harvester.recognise_encoding(head);
        }
        harvester
    }

    /// The byte to read next.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Where the first byte stands that no output has covered yet.
    pub(crate) fn open_start(&self) -> u64 {
        let opened = [
            self.assembler.as_ref().and_then(Assembler::open_start),
            self.joiner.as_ref().and_then(Joiner::open_start),
        ];
        opened.into_iter().flatten().fold(self.line_start, u64::min)
    }

    pub(crate) fn has_partial_line(&self) -> bool {
        self.line_start < self.position
    }

    /// When a tick will have an effect.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.assembler.as_ref().and_then(Assembler::deadline)
    }

    /// Advances by one input. Outputs are to be performed in order.
    pub(crate) fn step(&mut self, now: Instant, input: Input<'_>, outputs: &mut Outputs) {
        match input {
            Input::Read(bytes) => self.on_read(now, bytes, outputs),
            Input::Hole(to) => {
                if self.has_partial_line() {
                    let start = self.line_start;
                    self.end_line(now, start, self.position, outputs);
                }
                outputs.counts.hole_bytes += to.saturating_sub(self.position);
                self.position = self.position.max(to);
                self.line_start = self.position;
                self.cover(self.position, outputs);
            }
            Input::Tick => {
                if self.deadline().is_some_and(|deadline| deadline <= now) {
                    self.flush_assembler(true, outputs);
                }
            }
            Input::Finish => {
                if self.has_partial_line() {
                    let start = self.line_start;
                    let from = outputs.list.len();
                    self.end_line(now, start, self.position, outputs);
                    for output in &mut outputs.list[from..] {
                        if let Output::Event(event) = output {
                            event.is_cut = true;
                        }
                    }
                }
                self.flush_parsers(now, true, outputs);
            }
        }
    }

    fn recognise_encoding(&mut self, head: &[u8]) -> usize {
        match Encoding::of_byte_order_mark(head) {
            Some((found, length))
                if self.encoding == Encoding::Utf8 || self.encoding.is_utf16() =>
            {
                self.encoding = found;
                length
            }
            _ => 0,
        }
    }

    fn on_read(&mut self, now: Instant, bytes: &[u8], outputs: &mut Outputs) {
        let mut rest = bytes;
        let begin = self.position;
        if self.position == 0 {
            if matches!(rest, [0xef] | [0xef, 0xbb] | [0xff] | [0xfe]) {
                // Half a byte order mark, perhaps: what follows will tell.
                return;
            }
            let mark = self.recognise_encoding(rest);
            rest = &rest[mark..];
            self.position = mark as u64;
            self.line_start = self.position;
        }
        if self.encoding.is_utf16() {
            // Units stay whole: an odd byte is read again with its other half.
            rest = &rest[..rest.len() / 2 * 2];
        } else {
            // NULs at the end may be space that a writer has yet to fill.
            let filled = rest.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            rest = &rest[..filled];
        }
        while let Some(cut) =
            self.cuts.front().copied().filter(|cut| *cut <= self.position + rest.len() as u64)
        {
            self.cuts.pop_front();
            let (before, after) = rest.split_at(cut.saturating_sub(self.position) as usize);
            self.split_lines(now, before, outputs);
            if self.has_partial_line() {
                let start = self.line_start;
                self.end_line(now, start, self.position, outputs);
            }
            self.flush_parsers(now, false, outputs);
            rest = after;
        }
        self.split_lines(now, rest, outputs);
        outputs.counts.bytes += self.position - begin;
    }

    fn split_lines(&mut self, now: Instant, bytes: &[u8], outputs: &mut Outputs) {
        let base = self.position;
        let mut from = 0;
        // Most blocks are valid as a whole: then no line has to be looked at again.
        let valid_to = match self.encoding {
            Encoding::Utf8 => match std::str::from_utf8(bytes) {
                Ok(_) => bytes.len(),
                Err(error) => error.valid_up_to(),
            },
            _ => 0,
        };
        for at in memchr_iter(b'\n', bytes) {
            let LineEnd::At { content, next } = self.encoding.is_line_end(bytes, at) else {
                continue;
            };
            let end = base + next as u64;
            if self.pending.is_empty() && self.pending_dropped == 0 {
                let start = self.line_start;
                let is_valid = content <= valid_to;
                self.on_line(
                    now,
                    start,
                    end,
                    &bytes[from..content.max(from)],
                    0,
                    is_valid,
                    outputs,
                );
            } else {
                self.add_pending(&bytes[from..content.max(from)]);
                let start = self.line_start;
                self.end_line(now, start, end, outputs);
            }
            self.line_start = end;
            from = next;
        }
        let mut rest = &bytes[from..];
        if self.line_start == base + from as u64 && !self.encoding.is_utf16() {
            // A hole before the line does not belong to it.
            let nuls = leading_nuls(rest);
            self.line_start += nuls as u64;
            rest = &rest[nuls..];
        }
        self.add_pending(rest);
        self.position = base + bytes.len() as u64;
    }

    fn add_pending(&mut self, bytes: &[u8]) {
        // Two more than the limit, so that a line end of two bytes does not truncate a fitting line.
        let room = (self.settings.max_bytes + 2).saturating_sub(self.pending.len());
        let keep = bytes.len().min(room);
        self.pending.extend_from_slice(&bytes[..keep]);
        self.pending_dropped += (bytes.len() - keep) as u64;
    }

    /// Ends the pending line at `end`.
    fn end_line(&mut self, now: Instant, start: u64, end: u64, outputs: &mut Outputs) {
        let raw = std::mem::take(&mut self.pending);
        let dropped = std::mem::take(&mut self.pending_dropped);
        let raw_content = match self.encoding {
            Encoding::Utf16Be if raw.ends_with(&[0]) && raw.len() % 2 == 1 => &raw[..raw.len() - 1],
            _ => &raw[..],
        };
        self.on_line(now, start, end, raw_content, dropped, false, outputs);
        self.line_start = end;
        if raw.capacity() <= 64 << 10 {
            self.pending = raw;
            self.pending.clear();
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a line has that many sides, and this is the hot path"
    )]
    fn on_line(
        &mut self,
        now: Instant,
        mut start: u64,
        end: u64,
        mut raw: &[u8],
        mut dropped: u64,
        is_valid: bool,
        outputs: &mut Outputs,
    ) {
        outputs.counts.lines += 1;
        if raw.first() == Some(&0) && !self.encoding.is_utf16() {
            let nuls = leading_nuls(raw);
            raw = &raw[nuls..];
            start += nuls as u64;
            outputs.counts.hole_bytes += nuls as u64;
        }
        let from = outputs.text.len();
        let invalid = if is_valid {
            outputs.text.extend_from_slice(raw);
            false
        } else {
            self.encoding.decode(raw, &mut outputs.text)
        };
        if dropped == 0 && outputs.text.len() > from && outputs.text.last() == Some(&b'\r') {
            outputs.text.pop();
        }
        let length = outputs.text.len() - from;
        if length > self.settings.max_bytes {
            let keep = floor_char(&outputs.text[from..], self.settings.max_bytes);
            outputs.text.truncate(from + keep);
            dropped += (length - keep) as u64;
        }
        let flags = Flags { truncated: dropped > 0, multiline: false, invalid };
        if self.joiner.is_none() && self.assembler.is_none() {
            let text = from..outputs.text.len();
            self.emit(
                Event { start, end, text, flags, origin: None, is_cut: false },
                dropped,
                outputs,
            );
            return;
        }
        let mut piece = Piece::new(start, end, outputs.text[from..].to_vec());
        outputs.text.truncate(from);
        piece.flags = flags;
        piece.dropped_bytes = dropped;
        self.on_piece(now, piece, outputs);
    }

    fn on_piece(&mut self, now: Instant, piece: Piece, outputs: &mut Outputs) {
        let piece = match &mut self.joiner {
            None => piece,
            Some(joiner) => match joiner.push(piece) {
                Ok(Some(piece)) => piece,
                Ok(None) => return,
                Err(other) => {
                    outputs.counts.filtered_events += 1;
                    self.cover(other.end, outputs);
                    return;
                }
            },
        };
        self.assemble(now, piece, outputs);
    }

    fn assemble(&mut self, now: Instant, piece: Piece, outputs: &mut Outputs) {
        match &mut self.assembler {
            None => self.emit_piece(piece, false, outputs),
            Some(assembler) => {
                for piece in assembler.push(now, piece).into_iter().flatten() {
                    self.emit_piece(piece, false, outputs);
                }
            }
        }
    }

    fn flush_parsers(&mut self, now: Instant, is_cut: bool, outputs: &mut Outputs) {
        if let Some(piece) = self.joiner.as_mut().and_then(Joiner::flush) {
            let from = outputs.list.len();
            self.assemble(now, piece, outputs);
            for output in &mut outputs.list[from..] {
                if let Output::Event(event) = output {
                    event.is_cut |= is_cut;
                }
            }
        }
        self.flush_assembler(is_cut, outputs);
    }

    fn flush_assembler(&mut self, is_cut: bool, outputs: &mut Outputs) {
        if let Some(piece) = self.assembler.as_mut().and_then(Assembler::flush) {
            self.emit_piece(piece, is_cut, outputs);
        }
    }

    fn emit_piece(&mut self, piece: Piece, is_cut: bool, outputs: &mut Outputs) {
        let from = outputs.text.len();
        outputs.text.extend_from_slice(&piece.text);
        let event = Event {
            start: piece.start,
            end: piece.end,
            text: from..outputs.text.len(),
            flags: piece.flags,
            origin: piece.origin,
            is_cut,
        };
        self.emit(event, piece.dropped_bytes, outputs);
    }

    fn emit(&mut self, event: Event, dropped_bytes: u64, outputs: &mut Outputs) {
        let text = &outputs.text[event.text.clone()];
        let is_empty = text.is_empty();
        let is_wanted = !is_empty
            && (self.settings.include.is_empty()
                || self.settings.include.iter().any(|pattern| pattern.is_match(text)))
            && !self.settings.exclude.iter().any(|pattern| pattern.is_match(text));
        if !is_wanted {
            if is_empty {
                outputs.counts.empty_lines += 1;
            } else {
                outputs.counts.filtered_events += 1;
            }
            outputs.text.truncate(event.text.start);
            self.cover(event.end, outputs);
            return;
        }
        outputs.counts.truncated_events += u64::from(event.flags.truncated);
        outputs.counts.truncated_bytes += dropped_bytes;
        outputs.counts.invalid_events += u64::from(event.flags.invalid);
        outputs.list.push(Output::Event(event));
    }

    /// Nothing before `end` needs a record, except what is still being assembled.
    fn cover(&mut self, end: u64, outputs: &mut Outputs) {
        let opened = [
            self.assembler.as_ref().and_then(Assembler::open_start),
            self.joiner.as_ref().and_then(Joiner::open_start),
        ];
        let end = opened.into_iter().flatten().fold(end, u64::min);
        match outputs.list.last_mut() {
            Some(Output::Covered(last)) => *last = (*last).max(end),
            _ => outputs.list.push(Output::Covered(end)),
        }
    }
}

fn leading_nuls(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())
}

/// The longest length up to `max` that does not cut a character of UTF-8 `text`.
pub(super) fn floor_char(text: &[u8], max: usize) -> usize {
    if text.len() <= max {
        return text.len();
    }
    (0..=max).rev().find(|at| text[*at] & 0xc0 != 0x80).unwrap_or(0)
}

#[cfg(test)]
mod tests;
