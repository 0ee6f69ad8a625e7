//! A configuration as parsed: sections of plugins and branches, each with its place in the file.

use std::{fmt, sync::Arc};

use elkfk_base::Mistake;

use crate::event::FieldRef;

/// Where something stands: `nginx/pipeline.conf:12:3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Place {
    /// A mistake made here.
    pub fn mistake(&self, text: impl Into<String>) -> Mistake {
        Mistake::new(&*self.file, self.line, self.column, text)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Which part of a pipeline a plugin belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Section {
    Input,
    Filter,
    Output,
    Codec,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Section::Input => "input",
            Section::Filter => "filter",
            Section::Output => "output",
            Section::Codec => "codec",
        })
    }
}

/// All files of a pipeline, their sections joined in the order of the files.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub inputs: Vec<Statement>,
    pub filters: Vec<Statement>,
    pub outputs: Vec<Statement>,
}

#[derive(Debug, Clone)]
pub enum Statement {
    Plugin(Plugin),
    Branch(Branch),
}

/// `if … {} else if … {} else {}`.
#[derive(Debug, Clone)]
pub struct Branch {
    /// `if` and each `else if`, in order. Never empty.
    pub arms: Vec<(Condition, Vec<Statement>)>,
    /// `else`; empty where there is none.
    pub otherwise: Vec<Statement>,
}

/// A plugin and its options as written, environment variables already put in.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
    pub section: Section,
    pub name: String,
    pub place: Place,
    /// Each name once: what was given several times is merged as Logstash does.
    pub attributes: Vec<Attribute>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Attribute {
    pub name: String,
    pub place: Place,
    pub value: Setting,
}

/// A value of an option.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    pub place: Place,
    pub kind: SettingKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SettingKind {
    /// A bareword or a string.
    Text(String),
    /// A number, as written.
    Number(String),
    Array(Vec<Setting>),
    /// In the order written; a key may repeat only where several attributes were merged.
    Hash(Vec<(String, Setting)>),
    /// `codec => json {}`.
    Plugin(Plugin),
}

impl Setting {
    /// The text of a string, bareword or number.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            SettingKind::Text(text) | SettingKind::Number(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for an error message.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            SettingKind::Text(_) => "a string",
            SettingKind::Number(_) => "a number",
            SettingKind::Array(_) => "an array",
            SettingKind::Hash(_) => "a hash",
            SettingKind::Plugin(_) => "a plugin",
        }
    }
}

/// What an `if` asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Xor(Box<Condition>, Box<Condition>),
    Nand(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
    Truthy(Operand),
    Compare(Operand, Comparison, Operand),
    /// `=~`; the pattern and where it stands.
    Matches(Operand, String, Place),
    In(Operand, Operand),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    Text(String),
    Int(i64),
    Float(f64),
    Field(FieldRef),
    Array(Vec<Operand>),
}
