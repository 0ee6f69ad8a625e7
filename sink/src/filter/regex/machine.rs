//! Runs a program over a text, backtracking as Oniguruma does, within a budget of steps.
//!
//! After a while it remembers which choices have failed where, so that no expression takes time
//! beyond its choices times the length of the text; and past the budget it gives up.

use memchr::{memchr, memrchr};

use super::{
    class::{Class, is_word},
    parse::{Assertion, Mode},
    program::{Anchor, Inst, Pc, Program},
};

/// Not set.
pub(crate) const UNSET: u32 = u32::MAX;

/// Steps one search may take, then it is given up: about 10 ms.
pub(crate) const STEPS_MAX: u64 = 1_000_000;

/// Steps after which failed choices are remembered.
const STEPS_BEFORE_MEMO: u64 = 20_000;

/// Bits of memory for failed choices, one for each choice and place: 8 MiB.
const MEMO_BITS_MAX: usize = 64 << 20;

/// The budget was used up before an answer was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted;

/// What a machine works with; kept from search to search.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    stack: Vec<Frame>,
    /// Starts and ends of captures in bytes, [`UNSET`] where there is none.
    pub(crate) slots: Vec<u32>,
    memo: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Frame {
    /// Go on at an instruction.
    Branch { pc: Pc, at: u32 },
    /// Put back a slot.
    Slot { slot: u32, old: u32 },
    /// A span may give back, down to `low`.
    Greedy { pc: Pc, low: u32, high: u32 },
    /// A span may take up to `left` more.
    Lazy { pc: Pc, at: u32, left: u32 },
}

struct Machine<'a> {
    program: &'a Program,
    text: &'a [u8],
    string: &'a str,
    scratch: &'a mut Scratch,
    steps: u64,
    steps_max: u64,
    /// Look-arounds we are in; failures there depend on more than the place.
    looks: u32,
    has_memo: bool,
}

impl Program {
    /// Looks for the first match that begins at `from` or after; its place. Captures are left in `scratch`.
    pub(super) fn find(
        &self,
        string: &str,
        from: usize,
        scratch: &mut Scratch,
        steps_max: u64,
    ) -> Result<Option<(usize, usize)>, Exhausted> {
        let mut machine = self.machine(string, scratch, steps_max);
        machine.search(from)
    }

    /// The end of the match that begins at `at`.
    pub(super) fn match_at(
        &self,
        string: &str,
        at: usize,
        scratch: &mut Scratch,
        steps_max: u64,
    ) -> Result<Option<usize>, Exhausted> {
        let mut machine = self.machine(string, scratch, steps_max);
        machine.begin();
        machine.run(0, at)
    }

    fn machine<'a>(
        &'a self,
        string: &'a str,
        scratch: &'a mut Scratch,
        steps_max: u64,
    ) -> Machine<'a> {
        Machine {
            program: self,
            text: string.as_bytes(),
            string,
            scratch,
            steps: 0,
            steps_max,
            looks: 0,
            has_memo: false,
        }
    }
}

impl Machine<'_> {
    fn begin(&mut self) {
        self.scratch.stack.clear();
        self.scratch.slots.clear();
        self.scratch.slots.resize(self.program.slots, UNSET);
    }

    fn search(&mut self, from: usize) -> Result<Option<(usize, usize)>, Exhausted> {
        let start = &self.program.start;
        let single = start.single();
        self.begin();
        let mut at = from;
        let is_anchored = self.program.anchor == Anchor::Text;
        loop {
            if self.program.anchor == Anchor::Line
                && at > 0
                && self.text.get(at - 1) != Some(&b'\n')
            {
                let Some(found) = memchr(b'\n', &self.text[at.min(self.text.len())..]) else {
                    return Ok(None);
                };
                at += found + 1;
            }
            if !start.is_open {
                let rest = &self.text[at.min(self.text.len())..];
                let found = match single {
                    Some(byte) => memchr(byte, rest),
                    None => rest.iter().position(|byte| start.has(*byte)),
                };
                match found {
                    Some(skipped) if skipped == 0 || !is_anchored => at += skipped,
                    _ => return Ok(None),
                }
                self.steps += found.unwrap_or(0) as u64 / 16;
            }
            // Bytes within a character begin nothing.
            if self.string.is_char_boundary(at)
                && let Some(end) = self.run(0, at)?
            {
                return Ok(Some((at, end)));
            }
            // A failed run has put back every slot.
            at += 1;
            if at > self.text.len() || is_anchored {
                return Ok(None);
            }
        }
    }

    /// Runs from an instruction; the place where it accepts.
    fn run(&mut self, mut pc: Pc, mut at: usize) -> Result<Option<usize>, Exhausted> {
        let base = self.scratch.stack.len();
        let program = self.program;
        let text = self.text;
        loop {
            self.steps += 1;
            let goes_on = match &program.insts[pc as usize] {
                Inst::Byte(byte) => {
                    let is_here = text.get(at) == Some(byte);
                    at += 1;
                    pc += 1;
                    is_here
                }
                Inst::Literal(bytes) => {
                    let is_here = text[at..].starts_with(bytes);
                    at += bytes.len();
                    pc += 1;
                    is_here
                }
                Inst::Class(class) => match self.one(&program.classes[*class as usize], at) {
                    Some(end) => {
                        at = end;
                        pc += 1;
                        true
                    }
                    None => false,
                },
                Inst::Span { .. } => match self.span(pc, at) {
                    Some(end) => {
                        at = end;
                        pc += 1;
                        true
                    }
                    None => false,
                },
                Inst::Split { first, second, first_set, second_set } => {
                    let may_first = program.sets[*first_set as usize].allows(text, at);
                    let may_second = program.sets[*second_set as usize].allows(text, at);
                    if may_first && may_second {
                        self.scratch.stack.push(Frame::Branch { pc: *second, at: at as u32 });
                    }
                    pc = if may_first { *first } else { *second };
                    may_first || may_second
                }
                Inst::Jump(to) => {
                    pc = *to;
                    true
                }
                Inst::Save(slot) | Inst::TurnStart(slot) => {
                    self.set_slot(*slot, at as u32);
                    pc += 1;
                    true
                }
                Inst::TurnEnd { slot, again, exit } => {
                    let is_empty = self.scratch.slots[*slot as usize] == at as u32;
                    pc = if is_empty { *exit } else { *again };
                    true
                }
                Inst::Assert(assertion) => {
                    pc += 1;
                    self.holds(*assertion, at)
                }
                Inst::Near { class, is_ahead, is_negative } => {
                    pc += 1;
                    let class = &program.classes[*class as usize];
                    let is_near = if *is_ahead {
                        self.one(class, at).is_some()
                    } else {
                        self.before(at).is_some_and(|c| class.has(c))
                    };
                    is_near != *is_negative
                }
                Inst::Look { arms, is_ahead, is_negative, next } => {
                    let is_found = self.look(arms, *is_ahead, *is_negative, at)?;
                    pc = *next;
                    is_found != *is_negative
                }
                Inst::Atomic { body, next } => {
                    let mark = self.scratch.stack.len();
                    match self.run(*body, at)? {
                        Some(end) => {
                            self.forget_choices(mark);
                            at = end;
                            pc = *next;
                            true
                        }
                        None => false,
                    }
                }
                Inst::AtomicEnd | Inst::Accept => return Ok(Some(at)),
            };
            if goes_on {
                continue;
            }
            match self.resume(base)? {
                Some((back_pc, back_at)) => (pc, at) = (back_pc, back_at),
                None => return Ok(None),
            }
        }
    }

    /// Goes back to the last choice made since `base`.
    fn resume(&mut self, base: usize) -> Result<Option<(Pc, usize)>, Exhausted> {
        loop {
            self.steps += 1;
            if self.steps > self.steps_max {
                return Err(Exhausted);
            }
            if self.scratch.stack.len() <= base {
                return Ok(None);
            }
            let Some(frame) = self.scratch.stack.pop() else { return Ok(None) };
            match frame {
                Frame::Slot { slot, old } => self.scratch.slots[slot as usize] = old,
                Frame::Branch { pc, at } => {
                    if !self.has_failed(pc, at) {
                        return Ok(Some((pc, at as usize)));
                    }
                }
                Frame::Greedy { pc, low, high } => {
                    if let Some(at) = self.give_back(pc, low as usize, high as usize)
                        && !self.has_failed(pc + 1, at as u32)
                    {
                        return Ok(Some((pc + 1, at)));
                    }
                }
                Frame::Lazy { pc, at, left } => {
                    if let Some(at) = self.take_more(pc, at as usize, left)
                        && !self.has_failed(pc + 1, at as u32)
                    {
                        return Ok(Some((pc + 1, at)));
                    }
                }
            }
        }
    }

    /// Whether going on here has failed before; notes that it is tried now.
    fn has_failed(&mut self, pc: Pc, at: u32) -> bool {
        if self.looks > 0 || self.steps < STEPS_BEFORE_MEMO {
            return false;
        }
        let bits = self.program.insts.len() * (self.text.len() + 1);
        if !self.has_memo {
            if bits > MEMO_BITS_MAX {
                return false;
            }
            self.has_memo = true;
            self.scratch.memo.clear();
            self.scratch.memo.resize(bits.div_ceil(64), 0);
        }
        let bit = pc as usize * (self.text.len() + 1) + at as usize;
        let Some(word) = self.scratch.memo.get_mut(bit / 64) else { return false };
        let mask = 1 << (bit % 64);
        let was_set = *word & mask != 0;
        *word |= mask;
        was_set
    }

    fn set_slot(&mut self, slot: u32, value: u32) {
        let old = std::mem::replace(&mut self.scratch.slots[slot as usize], value);
        self.scratch.stack.push(Frame::Slot { slot, old });
    }

    /// Drops the choices made since `mark`, but keeps what puts back slots.
    fn forget_choices(&mut self, mark: usize) {
        let mut kept = mark;
        for i in mark..self.scratch.stack.len() {
            if let frame @ Frame::Slot { .. } = self.scratch.stack[i] {
                self.scratch.stack[kept] = frame;
                kept += 1;
            }
        }
        self.scratch.stack.truncate(kept);
    }

    fn look(
        &mut self,
        arms: &[(u32, Pc)],
        is_ahead: bool,
        is_negative: bool,
        at: usize,
    ) -> Result<bool, Exhausted> {
        let mark = self.scratch.stack.len();
        self.looks += 1;
        let mut is_found = false;
        for (width, body) in arms {
            let from = if is_ahead { Some(at) } else { self.chars_back(at, *width) };
            let Some(from) = from else { continue };
            if self.run(*body, from)?.is_some() {
                is_found = true;
                break;
            }
        }
        self.looks -= 1;
        if is_negative {
            while self.scratch.stack.len() > mark {
                if let Some(Frame::Slot { slot, old }) = self.scratch.stack.pop() {
                    self.scratch.slots[slot as usize] = old;
                }
            }
        } else {
            self.forget_choices(mark);
        }
        Ok(is_found)
    }

    fn chars_back(&self, at: usize, count: u32) -> Option<usize> {
        (0..count).try_fold(at, |at, _| self.before(at).map(|c| at - c.len_utf8()))
    }

    fn before(&self, at: usize) -> Option<char> {
        match self.text[..at].last() {
            Some(byte) if byte.is_ascii() => Some(char::from(*byte)),
            Some(_) => self.string[..at].chars().next_back(),
            None => None,
        }
    }

    fn after(&self, at: usize) -> Option<char> {
        match self.text.get(at) {
            Some(byte) if byte.is_ascii() => Some(char::from(*byte)),
            Some(_) => self.string[at..].chars().next(),
            None => None,
        }
    }

    /// The place after one character of the class.
    fn one(&self, class: &Class, at: usize) -> Option<usize> {
        let byte = *self.text.get(at)?;
        if byte.is_ascii() {
            return class.has_ascii(byte).then_some(at + 1);
        }
        let c = self.string[at..].chars().next()?;
        class.other.has(c).then(|| at + c.len_utf8())
    }

    fn span(&mut self, pc: Pc, at: usize) -> Option<usize> {
        let Inst::Span { class, min, max, mode, .. } = self.program.insts[pc as usize] else {
            return None;
        };
        let class = &self.program.classes[class as usize];
        let low = if min == 0 { at } else { self.exactly(class, at, min)? };
        if mode == Mode::Lazy {
            return self.lazy(pc, low, max - min);
        }
        let high = self.at_most(class, low, max.saturating_sub(min));
        self.steps += (high - low) as u64 / 16;
        if mode == Mode::Possessive || high == low {
            return Some(high);
        }
        self.give_back_from(pc, low, high)
    }

    fn exactly(&self, class: &Class, at: usize, count: u32) -> Option<usize> {
        if count == 1 {
            return self.one(class, at);
        }
        (0..count).try_fold(at, |at, _| self.one(class, at))
    }

    fn at_most(&self, class: &Class, mut at: usize, count: u32) -> usize {
        if count == u32::MAX && *class == Class::ANY {
            return self.text.len();
        }
        let mut left = count;
        while left > 0 {
            match self.text.get(at) {
                Some(byte) if byte.is_ascii() => {
                    if !class.has_ascii(*byte) {
                        break;
                    }
                    at += 1;
                }
                _ => match self.one(class, at) {
                    Some(end) => at = end,
                    None => break,
                },
            }
            left -= 1;
        }
        at
    }

    /// The highest place down to `low`, `high` included, where what follows may go on.
    fn give_back_from(&mut self, pc: Pc, low: usize, high: usize) -> Option<usize> {
        let Inst::Span { follow, .. } = self.program.insts[pc as usize] else { return None };
        let follow = &self.program.sets[follow as usize];
        let mut at = high;
        if !follow.is_open {
            self.steps += 1;
            if !follow.allows(self.text, at) {
                let before = &self.text[low..at];
                let found = match follow.single() {
                    Some(byte) => memrchr(byte, before),
                    None => before.iter().rposition(|byte| follow.has(*byte)),
                };
                self.steps += (before.len() - found.unwrap_or(0)) as u64 / 16;
                at = low + found?;
            }
        }
        while !self.string.is_char_boundary(at) {
            at -= 1;
        }
        if at > low {
            self.scratch.stack.push(Frame::Greedy { pc, low: low as u32, high: at as u32 });
        }
        Some(at)
    }

    fn give_back(&mut self, pc: Pc, low: usize, high: usize) -> Option<usize> {
        let mut at = high - 1;
        while !self.string.is_char_boundary(at) {
            at -= 1;
        }
        self.give_back_from(pc, low, at)
    }

    /// The first place from `at` on where what follows may go on, taking at most `left` more.
    fn lazy(&mut self, pc: Pc, mut at: usize, mut left: u32) -> Option<usize> {
        let Inst::Span { class, follow, .. } = self.program.insts[pc as usize] else { return None };
        let class = &self.program.classes[class as usize];
        let follow = &self.program.sets[follow as usize];
        if !follow.is_open {
            if left > self.text.len() as u32
                && *class == Class::ANY
                && let Some(byte) = follow.single()
            {
                let rest = self.text.get(at..)?;
                let found = memchr(byte, rest);
                self.steps += found.unwrap_or(rest.len()) as u64 / 16;
                at += found?;
            } else {
                while !follow.allows(self.text, at) {
                    if left == 0 {
                        return None;
                    }
                    at = self.one(class, at)?;
                    left -= u32::from(left != u32::MAX);
                    self.steps += 1;
                }
            }
        }
        if left > 0 && at < self.text.len() {
            self.scratch.stack.push(Frame::Lazy { pc, at: at as u32, left });
        }
        Some(at)
    }

    fn take_more(&mut self, pc: Pc, at: usize, left: u32) -> Option<usize> {
        let Inst::Span { class, .. } = self.program.insts[pc as usize] else { return None };
        let at = self.one(&self.program.classes[class as usize], at)?;
        self.lazy(pc, at, if left == u32::MAX { left } else { left - 1 })
    }

    fn holds(&self, assertion: Assertion, at: usize) -> bool {
        let text = self.text;
        match assertion {
            Assertion::TextStart => at == 0,
            Assertion::TextEnd => at == text.len(),
            Assertion::TextEndOrNewline => {
                at == text.len() || (at + 1 == text.len() && text[at] == b'\n')
            }
            Assertion::LineStart => at == 0 || (text[at - 1] == b'\n' && at < text.len()),
            Assertion::LineEnd => at == text.len() || text[at] == b'\n',
            Assertion::WordBoundary => self.is_boundary(at),
            Assertion::NotWordBoundary => !self.is_boundary(at),
        }
    }

    fn is_boundary(&self, at: usize) -> bool {
        self.before(at).is_some_and(is_word) != self.after(at).is_some_and(is_word)
    }
}
