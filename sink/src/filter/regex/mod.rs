//! Regular expressions as Ruby writes them (Oniguruma's syntax), since that is what pipelines hold.
//!
//! A text is parsed to a tree, the tree compiled twice: to a program for a backtracking machine that
//! captures as Oniguruma does but within a budget of steps, and to a widened expression for the
//! linear-time `regex` crate, whose "no" is proof and costs the same whatever the expression.

mod class;
mod linear;
mod machine;
mod parse;
mod program;
#[cfg(test)]
pub(crate) mod sample;

use std::sync::OnceLock;

use parse::Syntax;
use program::{Anchor, Program};

pub(crate) use machine::{Exhausted, STEPS_MAX, Scratch, UNSET};
pub(crate) use parse::{CaptureName, Definitions};

/// A first attempt at the start of a text may take this many steps before the linear look is taken.
const STEPS_FIRST: u64 = 4_000;

/// A long text may take more steps than others, in proportion.
const STEPS_PER_BYTE: u64 = 32;

/// A widened expression may take this much memory.
const GATE_BYTES_MAX: usize = 16 << 20;

/// A compiled expression that finds its captures.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    program: Program,
    /// The widened expression, and what the `regex` crate made of it once a line needed it: most
    /// expressions of a long pipeline never do. None where even that form is too large, so that the
    /// machine's budget has to do.
    widened: String,
    gate: OnceLock<Option<regex::bytes::Regex>>,
    captures: Vec<CaptureName>,
}

impl Expression {
    /// An expression of grok: `.` matches newlines, `%{NAME}` refers to `definitions`, and only what
    /// `is_wanted` names is captured.
    pub(crate) fn grok(
        text: &str,
        definitions: &dyn Definitions,
        is_wanted: impl Fn(&CaptureName) -> bool,
    ) -> Result<Self, String> {
        Self::compile(text, Syntax { definitions: Some(definitions), is_dot_all: true }, is_wanted)
    }

    fn compile(
        text: &str,
        syntax: Syntax<'_>,
        is_wanted: impl Fn(&CaptureName) -> bool,
    ) -> Result<Self, String> {
        let parsed = parse::parse(text, syntax)?;
        let wanted: Vec<bool> = parsed.captures.iter().map(is_wanted).collect();
        let program = program::compile(&parsed.ast, &wanted)?;
        let widened = linear::widened(&parsed.ast);
        Ok(Self { program, widened, gate: OnceLock::new(), captures: parsed.captures })
    }

    fn gate(&self) -> Option<&regex::bytes::Regex> {
        let build = || {
            let mut builder = regex::bytes::RegexBuilder::new(&self.widened);
            builder.unicode(false).size_limit(GATE_BYTES_MAX).build().ok()
        };
        self.gate.get_or_init(build).as_ref()
    }

    /// Names of the captures, in the order of their slots.
    pub(crate) fn captures(&self) -> &[CaptureName] {
        &self.captures
    }

    /// Finds the first match; its captures are in `scratch`.
    pub(crate) fn find(&self, text: &str, scratch: &mut Scratch) -> Result<bool, Exhausted> {
        let begins_here_only = match self.program.anchor {
            Anchor::Text => true,
            Anchor::Line => memchr::memchr(b'\n', text.as_bytes()).is_none(),
            Anchor::Anywhere => false,
        };
        // Nearly every line that matches does so from its start and without much searching.
        if self.program.start.allows(text.as_bytes(), 0) {
            match self.program.match_at(text, 0, scratch, STEPS_FIRST) {
                Ok(Some(_)) => return Ok(true),
                Ok(None) if begins_here_only => return Ok(false),
                Ok(None) | Err(Exhausted) => {}
            }
        } else if begins_here_only {
            return Ok(false);
        }
        if self.gate().is_some_and(|gate| !gate.is_match(text.as_bytes())) {
            return Ok(false);
        }
        self.search(text, scratch)
    }

    /// Finds the first match without the linear look.
    pub(crate) fn search(&self, text: &str, scratch: &mut Scratch) -> Result<bool, Exhausted> {
        self.program.find(text, 0, scratch, STEPS_MAX).map(|found| found.is_some())
    }
}

/// A compiled expression of a condition, of gsub and their like: matches, and finds what it captures.
#[derive(Debug, Clone)]
pub struct Pattern {
    program: Program,
    /// The same in linear time, where the `regex` crate can say it.
    linear: Option<regex::Regex>,
    captures: Vec<CaptureName>,
}

impl Pattern {
    /// # Errors
    /// What is wrong with the expression, on one line.
    pub fn new(text: &str) -> Result<Self, String> {
        let syntax = Syntax { definitions: None, is_dot_all: false };
        let parsed = parse::parse(text, syntax)?;
        let wanted = vec![true; parsed.captures.len()];
        let program = program::compile(&parsed.ast, &wanted)?;
        let linear = linear::exact(&parsed.ast).and_then(|text| regex::Regex::new(&text).ok());
        Ok(Self { program, linear, captures: parsed.captures })
    }

    /// Whether it matches anywhere; an expression that takes too long does not.
    pub fn is_match(&self, text: &str) -> bool {
        match &self.linear {
            Some(regex) => regex.is_match(text),
            None => {
                let found = self.program.find(text, 0, &mut Scratch::default(), STEPS_MAX);
                matches!(found, Ok(Some(_)))
            }
        }
    }

    /// The place of the first match from `from` on; captures are in `scratch`.
    pub(crate) fn find_at(
        &self,
        text: &str,
        from: usize,
        scratch: &mut Scratch,
    ) -> Result<Option<(usize, usize)>, Exhausted> {
        // Where it begins is found in linear time if it can be: trying each place in turn, as the
        // machine does, takes the square of the length on a text like a long word before a `=`.
        let from = match &self.linear {
            Some(regex) if from <= text.len() => match regex.find_at(text, from) {
                Some(found) => found.start(),
                None => return Ok(None),
            },
            _ => from,
        };
        let steps_max = STEPS_MAX.max(text.len() as u64 * STEPS_PER_BYTE);
        self.program.find(text, from, scratch, steps_max)
    }

    pub(crate) fn captures(&self) -> &[CaptureName] {
        &self.captures
    }
}

#[cfg(test)]
mod tests;
