//! Reads the tables in `wire/schema/`, whose notation `wire/schema/README.md` explains.
//!
//! Shared by the build script, which makes Rust of them, and by the tests, which make random
//! frames of them.

use std::path::Path;

/// Inclusive; `u16::MAX` stands for "and every later one".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl Versions {
    pub(crate) const ALL: Self = Self { first: 0, last: u16::MAX };

    pub(crate) fn contains(self, version: u16) -> bool {
        self.first <= version && version <= self.last
    }

    /// Whether every version of `other` is one of ours.
    pub(crate) fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self { first: self.first.max(other.first), last: self.last.min(other.last) }
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(first) = text.strip_suffix('+') {
            return Some(Self { first: first.parse().ok()?, last: u16::MAX });
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(Self { first: first.parse().ok()?, last: last.parse().ok()? })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    Bool,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    F64,
    Uuid,
    String,
    Bytes,
    Array(Box<Type>),
    Struct(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) ty: Type,
    pub(crate) versions: Versions,
    /// Versions in which the value may be null; `None` if never.
    pub(crate) nullable: Option<Versions>,
    pub(crate) tag: Option<u32>,
    /// As written after `=`; `None` stands for zero, false or empty.
    pub(crate) default: Option<String>,
    /// A version without this field cannot carry any value but the default.
    pub(crate) must: bool,
    pub(crate) note: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// The API's key; -1 for a record that is kept in a topic.
    pub(crate) key: i16,
    pub(crate) versions: Versions,
    /// First version with compact lengths and tagged fields.
    pub(crate) flexible: Option<u16>,
    /// The message itself first, then the structs in it.
    pub(crate) structs: Vec<Struct>,
}

impl Message {
    pub(crate) fn name(&self) -> &str {
        &self.structs[0].name
    }

    pub(crate) fn find(&self, name: &str) -> &Struct {
        self.structs
            .iter()
            .find(|s| s.name == name)
            .unwrap_or_else(|| panic!("{}: no struct {name}", self.name()))
    }

    pub(crate) fn is_flexible(&self, version: u16) -> bool {
        self.flexible.is_some_and(|first| first <= version)
    }

    /// Fewest bytes that a value of `ty` takes in `version`.
    pub(crate) fn min_size(&self, ty: &Type, version: u16) -> usize {
        let compact = self.is_flexible(version);
        match ty {
            Type::Bool | Type::I8 => 1,
            Type::I16 | Type::U16 => 2,
            Type::I32 | Type::U32 => 4,
            Type::I64 | Type::F64 => 8,
            Type::Uuid => 16,
            Type::String => {
                if compact {
                    1
                } else {
                    2
                }
            }
            Type::Bytes | Type::Array(_) => {
                if compact {
                    1
                } else {
                    4
                }
            }
            Type::Struct(name) => {
                let fields = &self.find(name).fields;
                let present =
                    fields.iter().filter(|f| f.tag.is_none() && f.versions.contains(version));
                present.map(|f| self.min_size(&f.ty, version)).sum::<usize>() + usize::from(compact)
            }
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) key: i16,
    pub(crate) name: String,
    pub(crate) versions: Versions,
    pub(crate) flexible: Option<u16>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) apis: Vec<Api>,
    pub(crate) messages: Vec<Message>,
}

/// Every `*.txt` of the folder.
///
/// # Panics
///
/// On a line that is not in the notation, naming it.
pub(crate) fn read(folder: &Path) -> Table {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("list {}: {e}", folder.display()))
        .map(|entry| entry.expect("folder entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    let mut table = Table::default();
    for file in files {
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|e| panic!("read {}: {e}", file.display()));
        Parser { table: &mut table, api: None, open: Vec::new() }.file(&file, &text);
    }
    table.apis.sort_by_key(|api| api.key);
    table.messages.sort_by(|a, b| a.name().cmp(b.name()));
    table
}

struct Parser<'t> {
    table: &'t mut Table,
    api: Option<Api>,
    /// The structs whose rows may follow, outermost first: indentation of the rows, struct index.
    open: Vec<(usize, usize)>,
}

impl Parser<'_> {
    fn file(mut self, file: &Path, text: &str) {
        for (i, line) in text.lines().enumerate() {
            let bad = |why: &str| -> ! { panic!("{}:{}: {why}: {line}", file.display(), i + 1) };
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let done = if line.starts_with(' ') { self.row(line) } else { self.heading(line) };
            if let Err(why) = done {
                bad(&why);
            }
        }
    }

    fn heading(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let flexible = |words: &[&str]| match words {
            [] => Ok(None),
            ["flexible", first] => first.parse().map(Some).map_err(|_| "bad version".to_owned()),
            _ => Err("expected `flexible VERSION`".to_owned()),
        };
        match words.as_slice() {
            ["api", key, name, versions, rest @ ..] => {
                let api = Api {
                    key: key.parse().map_err(|_| "bad key")?,
                    name: (*name).to_owned(),
                    versions: Versions::parse(versions).ok_or("bad versions")?,
                    flexible: flexible(rest)?,
                };
                self.table.apis.push(api.clone());
                self.api = Some(api);
            }
            ["request" | "response"] => {
                let api = self.api.clone().ok_or("no `api` line before")?;
                let suffix = if words[0] == "request" { "Request" } else { "Response" };
                self.message(api.key, format!("{}{suffix}", api.name), api.versions, api.flexible);
            }
            ["record", name, versions, rest @ ..] => {
                let versions = Versions::parse(versions).ok_or("bad versions")?;
                self.message(-1, (*name).to_owned(), versions, flexible(rest)?);
            }
            ["struct", name] => {
                let message = self.table.messages.last_mut().ok_or("no message before")?;
                let known = message.structs.iter().position(|s| s.name == *name);
                self.open = vec![(2, known.ok_or("no field of this type before")?)];
            }
            _ => return Err("expected api, request, response, record or struct".to_owned()),
        }
        Ok(())
    }

    fn message(&mut self, key: i16, name: String, versions: Versions, flexible: Option<u16>) {
        let structs = vec![Struct { name, fields: Vec::new() }];
        self.table.messages.push(Message { key, versions, flexible, structs });
        self.open = vec![(2, 0)];
    }

    fn row(&mut self, line: &str) -> Result<(), String> {
        let (line, note) = line.split_once(" -- ").unwrap_or((line, ""));
        let indent = line.len() - line.trim_start().len();
        while self.open.last().is_some_and(|(depth, _)| *depth > indent) {
            self.open.pop();
        }
        let (depth, index) = *self.open.last().ok_or("row outside of a message")?;
        if depth != indent {
            return Err("indented under a field that is not a struct".to_owned());
        }
        let message = self.table.messages.last_mut().ok_or("no message before")?;
        let mut words = line.split_whitespace();
        let name = words.next().ok_or("no name")?.to_owned();
        let (ty, null_from) = parse_type(words.next().ok_or("no type")?)?;
        let mut field = Field {
            name,
            ty,
            versions: message.versions,
            nullable: None,
            tag: None,
            default: None,
            must: false,
            note: note.trim().to_owned(),
        };
        while let Some(word) = words.next() {
            match word {
                "tag" => field.tag = words.next().and_then(|n| n.parse().ok()),
                "=" => field.default = words.next().map(str::to_owned),
                "must" => field.must = true,
                versions => {
                    field.versions =
                        Versions::parse(versions).ok_or("bad versions")?.and(message.versions);
                }
            }
        }
        field.nullable = null_from.map(|from| from.and(field.versions));
        let element = match &field.ty {
            Type::Array(element) => element,
            other => other,
        };
        if let Type::Struct(name) = element
            && !message.structs.iter().any(|s| s.name == *name)
        {
            message.structs.push(Struct { name: name.clone(), fields: Vec::new() });
            self.open.push((indent + 2, message.structs.len() - 1));
        }
        message.structs[index].fields.push(field);
        Ok(())
    }
}

/// `[i32]?7+` is an array that may be null from version 7.
fn parse_type(text: &str) -> Result<(Type, Option<Versions>), String> {
    let (text, nullable) = match text.split_once('?') {
        None => (text, None),
        Some((text, "")) => (text, Some(Versions::ALL)),
        Some((text, from)) => (text, Some(Versions::parse(from).ok_or("bad nullable versions")?)),
    };
    let ty = match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(element) => Type::Array(Box::new(parse_type(element)?.0)),
        None => match text {
            "bool" => Type::Bool,
            "i8" => Type::I8,
            "i16" => Type::I16,
            "u16" => Type::U16,
            "i32" => Type::I32,
            "u32" => Type::U32,
            "i64" => Type::I64,
            "f64" => Type::F64,
            "uuid" => Type::Uuid,
            "string" => Type::String,
            "bytes" | "records" => Type::Bytes,
            name if name.starts_with(|c: char| c.is_ascii_uppercase()) => {
                Type::Struct(name.to_owned())
            }
            _ => return Err("unknown type".to_owned()),
        },
    };
    Ok((ty, nullable))
}
