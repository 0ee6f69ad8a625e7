//! A tree compiled to instructions for the backtracking machine.
//!
//! Each choice carries the bytes with which its ways may go on, so that most choices are decided by
//! the next byte and leave nothing to come back to.

use super::{
    class::{ByteSet, Class, Other},
    parse::{Assertion, Ast, Mode},
};

pub(super) type Pc = u32;

/// Instructions beyond this are refused: `(a{1000}){1000}` and the like.
const INSTRUCTIONS_MAX: usize = 50_000;

#[derive(Debug, Clone)]
pub(super) enum Inst {
    Byte(u8),
    /// Several bytes in a row.
    Literal(Box<[u8]>),
    Class(u32),
    /// One class repeated `min` to `max` times; `follow` is what may come after.
    Span {
        class: u32,
        min: u32,
        max: u32,
        mode: Mode,
        follow: u32,
    },
    /// Goes on at `first`, and at `second` if that fails.
    Split {
        first: Pc,
        second: Pc,
        first_set: u32,
        second_set: u32,
    },
    Jump(Pc),
    Save(u32),
    Assert(Assertion),
    /// The character before, or after, is one of the class (or is not).
    Near {
        class: u32,
        is_ahead: bool,
        is_negative: bool,
    },
    Look {
        arms: Box<[(u32, Pc)]>,
        is_ahead: bool,
        is_negative: bool,
        next: Pc,
    },
    /// What `body` matches first, without coming back to it.
    Atomic {
        body: Pc,
        next: Pc,
    },
    AtomicEnd,
    /// Remembers where a turn of a loop began whose body may match nothing.
    TurnStart(u32),
    /// Leaves the loop where the turn matched nothing.
    TurnEnd {
        slot: u32,
        again: Pc,
        exit: Pc,
    },
    Accept,
}

/// A compiled expression.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) insts: Vec<Inst>,
    pub(super) classes: Vec<Class>,
    pub(super) sets: Vec<ByteSet>,
    /// Two for each capture, then one for each loop that may match nothing.
    pub(super) slots: usize,
    /// Bytes with which a match may begin.
    pub(super) start: ByteSet,
    pub(super) anchor: Anchor,
}

/// Where a match can begin at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Anywhere,
    /// `^`
    Line,
    /// `\A`, or `.*` which would have begun there.
    Text,
}

/// Compiles `ast`; only captures whose index is `true` in `wanted` are recorded.
pub(super) fn compile(ast: &Ast, wanted: &[bool]) -> Result<Program, String> {
    let mut compiler =
        Compiler { insts: Vec::new(), classes: Vec::new(), slots: wanted.len() * 2, wanted };
    compiler.emit(ast)?;
    compiler.insts.push(Inst::Accept);
    Ok(compiler.finish())
}

struct Compiler<'a> {
    insts: Vec<Inst>,
    classes: Vec<Class>,
    slots: usize,
    wanted: &'a [bool],
}

impl Compiler<'_> {
    fn push(&mut self, inst: Inst) -> Result<Pc, String> {
        if self.insts.len() >= INSTRUCTIONS_MAX {
            return Err("the expression is too large; repeat less".to_owned());
        }
        self.insts.push(inst);
        Ok(self.insts.len() as Pc - 1)
    }

    fn here(&self) -> Pc {
        self.insts.len() as Pc
    }

    fn class(&mut self, class: &Class) -> u32 {
        let at = self.classes.iter().position(|held| held == class).unwrap_or_else(|| {
            self.classes.push(class.clone());
            self.classes.len() - 1
        });
        at as u32
    }

    fn emit(&mut self, ast: &Ast) -> Result<(), String> {
        match ast {
            Ast::Empty => {}
            Ast::Class(class) => self.emit_class(class)?,
            Ast::Concat(items) => {
                let mut literal = Vec::new();
                for item in items {
                    match literal_char(item) {
                        Some(c) => literal.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                        None => {
                            self.flush(&mut literal)?;
                            self.emit(item)?;
                        }
                    }
                }
                self.flush(&mut literal)?;
            }
            Ast::Alternate(arms) => self.emit_alternate(arms)?,
            Ast::Repeat { inner, min, max, mode } => self.emit_repeat(inner, *min, *max, *mode)?,
            Ast::Capture(index, inner) if self.wanted[*index] => {
                self.push(Inst::Save(*index as u32 * 2))?;
                self.emit(inner)?;
                self.push(Inst::Save(*index as u32 * 2 + 1))?;
            }
            Ast::Capture(_, inner) => self.emit(inner)?,
            Ast::Atomic(inner) => self.emit_atomic(inner)?,
            Ast::Look { is_ahead, is_negative, inner } => {
                self.emit_look(*is_ahead, *is_negative, inner)?;
            }
            Ast::Assert(assertion) => {
                self.push(Inst::Assert(*assertion))?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, literal: &mut Vec<u8>) -> Result<(), String> {
        match literal.as_slice() {
            [] => {}
            [byte] => {
                self.push(Inst::Byte(*byte))?;
            }
            bytes => {
                self.push(Inst::Literal(bytes.into()))?;
            }
        }
        literal.clear();
        Ok(())
    }

    fn emit_class(&mut self, class: &Class) -> Result<(), String> {
        if let Some(byte) = class.single_ascii() {
            self.push(Inst::Byte(byte))?;
        } else {
            let class = self.class(class);
            self.push(Inst::Class(class))?;
        }
        Ok(())
    }

    fn split(&mut self) -> Result<Pc, String> {
        self.push(Inst::Split { first: 0, second: 0, first_set: 0, second_set: 0 })
    }

    fn set_split(&mut self, at: Pc, prefer: Pc, other: Pc) {
        if let Inst::Split { first, second, .. } = &mut self.insts[at as usize] {
            (*first, *second) = (prefer, other);
        }
    }

    fn emit_alternate(&mut self, arms: &[Ast]) -> Result<(), String> {
        let mut exits = Vec::new();
        for (i, arm) in arms.iter().enumerate() {
            if i + 1 == arms.len() {
                self.emit(arm)?;
                break;
            }
            let split = self.split()?;
            self.emit(arm)?;
            exits.push(self.push(Inst::Jump(0))?);
            let next = self.here();
            self.set_split(split, split + 1, next);
        }
        let end = self.here();
        for exit in exits {
            self.insts[exit as usize] = Inst::Jump(end);
        }
        Ok(())
    }

    fn emit_repeat(
        &mut self,
        inner: &Ast,
        min: u32,
        max: Option<u32>,
        mode: Mode,
    ) -> Result<(), String> {
        if let Some(class) = single_class(inner) {
            let class = self.class(class);
            let max = max.unwrap_or(u32::MAX);
            self.push(Inst::Span { class, min, max, mode, follow: 0 })?;
            return Ok(());
        }
        if mode == Mode::Possessive {
            let greedy =
                Ast::Repeat { inner: Box::new(inner.clone()), min, max, mode: Mode::Greedy };
            return self.emit_atomic(&greedy);
        }
        for _ in 0..min {
            self.emit(inner)?;
        }
        match max {
            None => {
                let may_be_empty = is_nullable(inner);
                let split = self.split()?;
                let slot = self.slots as u32;
                if may_be_empty {
                    self.slots += 1;
                    self.push(Inst::TurnStart(slot))?;
                }
                self.emit(inner)?;
                if may_be_empty {
                    let end = self.push(Inst::Accept)?;
                    let exit = self.here();
                    self.insts[end as usize] = Inst::TurnEnd { slot, again: split, exit };
                } else {
                    self.push(Inst::Jump(split))?;
                }
                let exit = self.here();
                self.set_split_by(mode, split, split + 1, exit);
            }
            Some(max) => {
                let mut splits = Vec::new();
                for _ in min..max {
                    splits.push(self.split()?);
                    self.emit(inner)?;
                }
                let exit = self.here();
                for split in splits {
                    self.set_split_by(mode, split, split + 1, exit);
                }
            }
        }
        Ok(())
    }

    fn set_split_by(&mut self, mode: Mode, split: Pc, body: Pc, exit: Pc) {
        if mode == Mode::Lazy {
            self.set_split(split, exit, body);
        } else {
            self.set_split(split, body, exit);
        }
    }

    fn emit_atomic(&mut self, inner: &Ast) -> Result<(), String> {
        match inner {
            // What has no choice in it is atomic as it is.
            Ast::Class(_) | Ast::Empty | Ast::Assert(_) => return self.emit(inner),
            Ast::Repeat { inner, min, max, mode: Mode::Greedy }
                if single_class(inner).is_some() =>
            {
                return self.emit_repeat(inner, *min, *max, Mode::Possessive);
            }
            _ => {}
        }
        let atomic = self.push(Inst::Accept)?;
        self.emit(inner)?;
        self.push(Inst::AtomicEnd)?;
        let next = self.here();
        self.insts[atomic as usize] = Inst::Atomic { body: atomic + 1, next };
        Ok(())
    }

    fn emit_look(&mut self, is_ahead: bool, is_negative: bool, inner: &Ast) -> Result<(), String> {
        if let Some(class) = single_class(inner) {
            let class = self.class(class);
            self.push(Inst::Near { class, is_ahead, is_negative })?;
            return Ok(());
        }
        let look = self.push(Inst::Accept)?;
        let arms: Vec<&Ast> = match inner {
            Ast::Alternate(arms) if !is_ahead => arms.iter().collect(),
            other => vec![other],
        };
        let mut compiled = Vec::with_capacity(arms.len());
        for arm in arms {
            let width = if is_ahead {
                0
            } else {
                width(arm).ok_or(
                    "a look-behind must have one length; write its lengths as alternatives",
                )?
            };
            compiled.push((width, self.here()));
            self.emit(arm)?;
            self.push(Inst::Accept)?;
        }
        let next = self.here();
        let arms = compiled.into();
        self.insts[look as usize] = Inst::Look { arms, is_ahead, is_negative, next };
        Ok(())
    }

    /// Fills in what may follow each choice.
    fn finish(mut self) -> Program {
        let class_sets: Vec<ByteSet> = self.classes.iter().map(ByteSet::of).collect();
        let firsts = self.firsts(&class_sets);
        let mut sets: Vec<ByteSet> = Vec::new();
        let mut intern = |set: ByteSet| {
            let at = sets.iter().position(|held| *held == set).unwrap_or_else(|| {
                sets.push(set);
                sets.len() - 1
            });
            at as u32
        };
        for pc in 0..self.insts.len() {
            match &mut self.insts[pc] {
                Inst::Split { first, second, first_set, second_set } => {
                    *first_set = intern(firsts[*first as usize]);
                    *second_set = intern(firsts[*second as usize]);
                }
                Inst::Span { class, mode, follow, .. } => {
                    let set = firsts[pc + 1];
                    *follow = intern(set);
                    // Where nothing that follows is of the class, giving some back never helps.
                    if *mode == Mode::Greedy
                        && !set.is_open
                        && !set.meets(&class_sets[*class as usize])
                    {
                        *mode = Mode::Possessive;
                    }
                }
                _ => {}
            }
        }
        let anchor = self.anchor();
        let start = firsts[0];
        Program { insts: self.insts, classes: self.classes, sets, slots: self.slots, start, anchor }
    }

    fn anchor(&self) -> Anchor {
        let first = self.insts.iter().find(|inst| !matches!(inst, Inst::Save(_)));
        match first {
            Some(Inst::Assert(Assertion::TextStart)) => Anchor::Text,
            Some(Inst::Assert(Assertion::LineStart)) => Anchor::Line,
            Some(Inst::Span { class, min: 0, max: u32::MAX, mode, .. })
                if *mode != Mode::Possessive && self.classes[*class as usize] == Class::ANY =>
            {
                Anchor::Text
            }
            _ => Anchor::Anywhere,
        }
    }

    /// For each instruction, the bytes with which a match may go on from there: the least solution,
    /// by repetition from nothing.
    fn firsts(&self, class_sets: &[ByteSet]) -> Vec<ByteSet> {
        let mut firsts = vec![ByteSet::default(); self.insts.len()];
        loop {
            let mut has_changed = false;
            for pc in (0..self.insts.len()).rev() {
                let next = |pc: usize| firsts[pc];
                let set = match &self.insts[pc] {
                    Inst::Byte(byte) => ByteSet::byte(*byte),
                    Inst::Literal(bytes) => ByteSet::byte(bytes[0]),
                    Inst::Class(class) => class_sets[*class as usize],
                    Inst::Span { class, min, .. } => {
                        let mut set = class_sets[*class as usize];
                        if *min == 0 {
                            set.add(next(pc + 1));
                        }
                        set
                    }
                    Inst::Split { first, second, .. } => {
                        let mut set = next(*first as usize);
                        set.add(next(*second as usize));
                        set
                    }
                    Inst::Jump(to) => next(*to as usize),
                    // What is atomic matches without regard to what follows, which may then fail.
                    Inst::AtomicEnd => ByteSet::open(),
                    Inst::Atomic { body, .. } => next(*body as usize),
                    Inst::Look { next: to, .. } => next(*to as usize),
                    Inst::Save(_) | Inst::Assert(_) | Inst::Near { .. } | Inst::TurnStart(_) => {
                        next(pc + 1)
                    }
                    Inst::TurnEnd { again, exit, .. } => {
                        let mut set = next(*again as usize);
                        set.add(next(*exit as usize));
                        set
                    }
                    Inst::Accept => ByteSet::open(),
                };
                if set != firsts[pc] {
                    firsts[pc] = set;
                    has_changed = true;
                }
            }
            if !has_changed {
                return firsts;
            }
        }
    }
}

/// The class, where `ast` is nothing but one character of it.
fn single_class(ast: &Ast) -> Option<&Class> {
    match ast {
        Ast::Class(class) => Some(class),
        _ => None,
    }
}

/// The character, where `ast` can only be that one.
fn literal_char(ast: &Ast) -> Option<char> {
    match ast {
        Ast::Class(class) => match class.other {
            Other::Range(from, to) if from == to && class.ascii == 0 => Some(from),
            _ => class.single_ascii().map(char::from),
        },
        _ => None,
    }
}

pub(super) fn is_nullable(ast: &Ast) -> bool {
    match ast {
        Ast::Empty | Ast::Look { .. } | Ast::Assert(_) => true,
        Ast::Class(_) => false,
        Ast::Concat(items) => items.iter().all(is_nullable),
        Ast::Alternate(arms) => arms.iter().any(is_nullable),
        Ast::Repeat { inner, min, .. } => *min == 0 || is_nullable(inner),
        Ast::Capture(_, inner) | Ast::Atomic(inner) => is_nullable(inner),
    }
}

/// The number of characters, where it is always the same.
fn width(ast: &Ast) -> Option<u32> {
    match ast {
        Ast::Empty | Ast::Look { .. } | Ast::Assert(_) => Some(0),
        Ast::Class(_) => Some(1),
        Ast::Concat(items) => items.iter().map(width).sum(),
        Ast::Alternate(arms) => {
            let first = width(arms.first()?)?;
            arms.iter().all(|arm| width(arm) == Some(first)).then_some(first)
        }
        Ast::Repeat { inner, min, max, .. } if *max == Some(*min) => {
            width(inner)?.checked_mul(*min)
        }
        Ast::Repeat { .. } => None,
        Ast::Capture(_, inner) | Ast::Atomic(inner) => width(inner),
    }
}
