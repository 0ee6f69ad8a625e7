//! Ruby's regular expressions (Oniguruma's syntax) → a tree, with grok's `%{NAME:field}` in place.
//!
//! As in Ruby: `\d \w \s \h` are ASCII, `\b` and POSIX brackets are Unicode, `^` and `$` match at
//! lines, and plain groups capture only where no group is named.

use super::class::{self, Class, Kind};

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ast {
    Empty,
    Class(Class),
    Concat(Vec<Ast>),
    Alternate(Vec<Ast>),
    Repeat {
        inner: Box<Ast>,
        min: u32,
        max: Option<u32>,
        mode: Mode,
    },
    /// The index among the captures.
    Capture(usize, Box<Ast>),
    Atomic(Box<Ast>),
    Look {
        is_ahead: bool,
        is_negative: bool,
        inner: Box<Ast>,
    },
    Assert(Assertion),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Greedy,
    Lazy,
    Possessive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Assertion {
    TextStart,
    TextEnd,
    /// At the end, or before a newline that ends the text.
    TextEndOrNewline,
    LineStart,
    LineEnd,
    WordBoundary,
    NotWordBoundary,
}

/// What a capture stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CaptureName {
    /// A plain group, by its number from 1.
    Number(usize),
    /// `(?<name>…)`, or `%{PATTERN:name}`.
    Name(String),
    /// `%{PATTERN}` without a name.
    Pattern(String),
}

/// Gives the definition of a grok pattern.
pub(crate) trait Definitions {
    fn definition(&self, name: &str) -> Option<&str>;
    /// What to add to "unknown pattern X": the nearest known.
    fn hint(&self, name: &str) -> String;
}

/// A parsed expression.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    pub(crate) ast: Ast,
    pub(crate) captures: Vec<CaptureName>,
}

/// How to read an expression.
#[derive(Clone, Copy)]
pub(crate) struct Syntax<'a> {
    /// Whether `%{NAME}` refers to a definition; else it is text.
    pub(crate) definitions: Option<&'a dyn Definitions>,
    /// `.` matches a newline.
    pub(crate) is_dot_all: bool,
}

/// Groups nested deeper than this, and definitions within definitions, are refused.
const DEPTH_MAX: usize = 64;
/// A count in braces beyond this is refused, as Oniguruma does.
const REPEAT_MAX: u32 = 100_000;

pub(crate) fn parse(text: &str, syntax: Syntax<'_>) -> Result<Parsed, String> {
    let mut state = State {
        syntax,
        captures: Vec::new(),
        // Where grok or names capture, plain groups only group.
        has_names: syntax.definitions.is_some() || text.contains("(?<") && names_a_group(text),
        open: Vec::new(),
    };
    let flags = Flags { is_dot_all: syntax.is_dot_all, is_folding: false, is_extended: false };
    let ast = parse_whole(text, flags, &mut state, 0)?;
    Ok(Parsed { ast, captures: state.captures })
}

fn names_a_group(text: &str) -> bool {
    text.match_indices("(?<").any(|(at, _)| !text[at + 3..].starts_with(['=', '!']))
}

struct State<'a> {
    syntax: Syntax<'a>,
    captures: Vec<CaptureName>,
    has_names: bool,
    /// Names of the definitions being expanded, to find one that refers to itself.
    open: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
struct Flags {
    is_dot_all: bool,
    is_folding: bool,
    is_extended: bool,
}

struct Parser<'t, 's, 'd> {
    chars: std::iter::Peekable<std::str::Chars<'t>>,
    flags: Flags,
    state: &'s mut State<'d>,
    depth: usize,
}

fn parse_whole(
    text: &str,
    flags: Flags,
    state: &mut State<'_>,
    depth: usize,
) -> Result<Ast, String> {
    let mut parser = Parser { chars: text.chars().peekable(), flags, state, depth };
    let ast = parser.alternation()?;
    match parser.chars.next() {
        None => Ok(ast),
        Some(c) => Err(format!("unmatched {c}")),
    }
}

impl Parser<'_, '_, '_> {
    /// Alternatives up to the end or a closing parenthesis, which is left.
    fn alternation(&mut self) -> Result<Ast, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("groups or patterns nested deeper than {DEPTH_MAX}"));
        }
        let outer = self.flags;
        let mut arms = vec![self.sequence()?];
        while self.chars.next_if_eq(&'|').is_some() {
            arms.push(self.sequence()?);
        }
        self.flags = outer;
        self.depth -= 1;
        Ok(if arms.len() == 1 { arms.remove(0) } else { Ast::Alternate(arms) })
    }

    fn sequence(&mut self) -> Result<Ast, String> {
        let mut items = Vec::new();
        loop {
            match self.chars.peek() {
                None | Some('|' | ')') => break,
                Some('#') if self.flags.is_extended => {
                    while self.chars.next_if(|c| *c != '\n').is_some() {}
                }
                Some(c) if self.flags.is_extended && c.is_ascii_whitespace() => {
                    self.chars.next();
                }
                Some(_) => {
                    let Some(atom) = self.atom()? else { continue };
                    items.push(self.quantified(atom)?);
                }
            }
        }
        Ok(match items.len() {
            0 => Ast::Empty,
            1 => items.remove(0),
            _ => Ast::Concat(items),
        })
    }

    fn quantified(&mut self, mut atom: Ast) -> Result<Ast, String> {
        loop {
            if self.flags.is_extended {
                while self.chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            }
            let (min, max, is_braces) = match self.chars.peek() {
                Some('*') => (0, None, false),
                Some('+') => (1, None, false),
                Some('?') => (0, Some(1), false),
                Some('{') => match self.braces()? {
                    Some((min, max)) => (min, max, true),
                    None => return Ok(atom),
                },
                _ => return Ok(atom),
            };
            if !is_braces {
                self.chars.next();
            }
            let mode = if self.chars.next_if_eq(&'?').is_some() {
                Mode::Lazy
            } else if !is_braces && self.chars.next_if_eq(&'+').is_some() {
                Mode::Possessive
            } else {
                Mode::Greedy
            };
            // In Ruby `x{n}?` makes the whole optional instead of lazy.
            if is_braces && mode == Mode::Lazy && max == Some(min) {
                let inner = Ast::Repeat { inner: Box::new(atom), min, max, mode: Mode::Greedy };
                atom = Ast::Repeat {
                    inner: Box::new(inner),
                    min: 0,
                    max: Some(1),
                    mode: Mode::Greedy,
                };
                continue;
            }
            atom = match (atom, min, max) {
                // An assertion repeated is that assertion, or nothing.
                (atom @ (Ast::Assert(_) | Ast::Look { .. }), 1.., _) => atom,
                (Ast::Assert(_) | Ast::Look { .. }, 0, _) => Ast::Empty,
                (atom, _, _) => Ast::Repeat { inner: Box::new(atom), min, max, mode },
            };
        }
    }

    /// `{n}`, `{n,}`, `{n,m}`, `{,m}`; nothing is consumed where it is none of these.
    fn braces(&mut self) -> Result<Option<(u32, Option<u32>)>, String> {
        let mut ahead = self.chars.clone();
        ahead.next();
        let mut body = String::new();
        loop {
            match ahead.next() {
                Some('}') => break,
                Some(c) if c.is_ascii_digit() || c == ',' => body.push(c),
                _ => return Ok(None),
            }
        }
        let number = |text: &str| -> Result<u32, String> {
            text.parse()
                .ok()
                .filter(|count| *count <= REPEAT_MAX)
                .ok_or_else(|| format!("{{{body}}} repeats more than {REPEAT_MAX} times"))
        };
        let counts = match body.split_once(',') {
            None if body.is_empty() => return Ok(None),
            None => (number(&body)?, Some(number(&body)?)),
            Some(("", "")) => return Ok(None),
            Some((_, max)) if max.contains(',') => return Ok(None),
            Some((min, "")) => (number(min)?, None),
            Some(("", max)) => (0, Some(number(max)?)),
            Some((min, max)) => (number(min)?, Some(number(max)?)),
        };
        if counts.1.is_some_and(|max| max < counts.0) {
            return Err(format!("{{{body}}} has its counts in the wrong order"));
        }
        self.chars = ahead;
        Ok(Some(counts))
    }

    /// One thing to which a quantifier may apply; none for flags and comments.
    fn atom(&mut self) -> Result<Option<Ast>, String> {
        let Some(c) = self.chars.next() else { return Ok(None) };
        Ok(Some(match c {
            '(' => return self.group(),
            '[' => Ast::Class(self.fold(self.flags)(self.class()?)),
            '.' if self.flags.is_dot_all => Ast::Class(Class::ANY),
            '.' => Ast::Class(Class::char('\n').negated()),
            '^' => Ast::Assert(Assertion::LineStart),
            '$' => Ast::Assert(Assertion::LineEnd),
            '\\' => self.escape()?,
            '%' if self.state.syntax.definitions.is_some() && self.chars.peek() == Some(&'{') => {
                match self.reference()? {
                    Some(ast) => ast,
                    None => self.literal('%'),
                }
            }
            '*' | '+' | '?' => return Err(format!("nothing to repeat before {c}")),
            c => self.literal(c),
        }))
    }

    fn literal(&self, c: char) -> Ast {
        Ast::Class(self.fold(self.flags)(Class::char(c)))
    }

    fn fold(&self, flags: Flags) -> impl Fn(Class) -> Class + use<> {
        move |class| if flags.is_folding { class.folded() } else { class }
    }

    fn group(&mut self) -> Result<Option<Ast>, String> {
        if self.chars.next_if_eq(&'?').is_none() {
            if self.state.has_names {
                return self.close().map(Some);
            }
            let number = self.state.captures.len() + 1;
            return self.capture(CaptureName::Number(number)).map(Some);
        }
        let look = |is_ahead, is_negative| {
            move |inner: Ast| Ast::Look { is_ahead, is_negative, inner: Box::new(inner) }
        };
        Ok(Some(match self.chars.next() {
            Some(':') => self.close()?,
            Some('>') => Ast::Atomic(Box::new(self.close()?)),
            Some('=') => look(true, false)(self.close()?),
            Some('!') => look(true, true)(self.close()?),
            Some('<') => match self.chars.peek() {
                Some('=') => {
                    self.chars.next();
                    look(false, false)(self.close()?)
                }
                Some('!') => {
                    self.chars.next();
                    look(false, true)(self.close()?)
                }
                _ => {
                    let name = self.until('>')?;
                    self.capture(CaptureName::Name(name))?
                }
            },
            Some('\'') => {
                let name = self.until('\'')?;
                self.capture(CaptureName::Name(name))?
            }
            Some('#') => {
                self.until(')')?;
                return Ok(None);
            }
            Some(c) => return self.flag_group(c),
            None => return Err("unclosed group".to_owned()),
        }))
    }

    fn capture(&mut self, name: CaptureName) -> Result<Ast, String> {
        let index = self.state.captures.len();
        self.state.captures.push(name);
        Ok(Ast::Capture(index, Box::new(self.close()?)))
    }

    /// The rest of a group and its closing parenthesis.
    fn close(&mut self) -> Result<Ast, String> {
        let ast = self.alternation()?;
        match self.chars.next() {
            Some(')') => Ok(ast),
            _ => Err("unclosed group".to_owned()),
        }
    }

    fn until(&mut self, end: char) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.chars.next() {
                Some(c) if c == end => return Ok(text),
                Some(c) => text.push(c),
                None => return Err(format!("no {end} to close a group's name")),
            }
        }
    }

    /// `(?i)`, `(?mi-x:…)`.
    fn flag_group(&mut self, first: char) -> Result<Option<Ast>, String> {
        let (mut flags, mut is_on, mut c) = (self.flags, true, first);
        loop {
            match c {
                '-' => is_on = false,
                'i' => flags.is_folding = is_on,
                'm' => flags.is_dot_all = is_on,
                'x' => flags.is_extended = is_on,
                'a' | 'u' | 'd' => {}
                // Holds to the end of the enclosing group, where alternation() resets it.
                ')' => {
                    self.flags = flags;
                    return Ok(None);
                }
                ':' => {
                    let outer = std::mem::replace(&mut self.flags, flags);
                    let ast = self.close()?;
                    self.flags = outer;
                    return Ok(Some(ast));
                }
                c => return Err(format!("unknown group (?{c}")),
            }
            c = self.chars.next().ok_or("unclosed group")?;
        }
    }

    fn escape(&mut self) -> Result<Ast, String> {
        let Some(c) = self.chars.peek().copied() else {
            return Err("a \\ at the end of the expression".to_owned());
        };
        let assertion = match c {
            'A' => Some(Assertion::TextStart),
            'z' => Some(Assertion::TextEnd),
            'Z' => Some(Assertion::TextEndOrNewline),
            'b' => Some(Assertion::WordBoundary),
            'B' => Some(Assertion::NotWordBoundary),
            _ => None,
        };
        if let Some(assertion) = assertion {
            self.chars.next();
            return Ok(Ast::Assert(assertion));
        }
        if c.is_ascii_digit() && c != '0' {
            return Err(format!("\\{c}: references back to a group are not supported"));
        }
        if matches!(c, 'k' | 'g' | 'G' | 'K' | 'R' | 'X') {
            return Err(format!("\\{c} is not supported"));
        }
        let class = self.escaped_class()?;
        Ok(Ast::Class(self.fold(self.flags)(class)))
    }

    /// What follows a backslash, in a class or out of it.
    fn escaped_class(&mut self) -> Result<Class, String> {
        let c = self.chars.next().ok_or("a \\ at the end of the expression")?;
        Ok(match c {
            'd' => Class::ascii(class::DIGIT),
            'D' => Class::ascii(class::DIGIT).negated(),
            'w' => Class::ascii(class::WORD),
            'W' => Class::ascii(class::WORD).negated(),
            's' => Class::ascii(class::SPACE),
            'S' => Class::ascii(class::SPACE).negated(),
            'h' => Class::ascii(class::HEX),
            'H' => Class::ascii(class::HEX).negated(),
            'p' | 'P' => {
                if self.chars.next() != Some('{') {
                    return Err(format!("\\{c} without {{"));
                }
                let name = self.until('}')?;
                let (name, is_negative) = match name.strip_prefix('^') {
                    Some(name) => (name, c == 'p'),
                    None => (name.as_str(), c == 'P'),
                };
                let kind =
                    Kind::parse(name).ok_or_else(|| format!("unknown property \\p{{{name}}}"))?;
                let class = Class::kind(kind);
                if is_negative { class.negated() } else { class }
            }
            c => Class::char(self.escaped_char(c)?),
        })
    }

    fn escaped_char(&mut self, c: char) -> Result<char, String> {
        Ok(match c {
            't' => '\t',
            'n' => '\n',
            'r' => '\r',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'a' => '\u{7}',
            'e' => '\u{1b}',
            'b' => '\u{8}',
            '0' => self.digits(8, 2).and_then(char::from_u32).unwrap_or('\0'),
            'x' => {
                let code = if self.chars.next_if_eq(&'{').is_some() {
                    let code = self.digits(16, 8);
                    if self.chars.next() != Some('}') {
                        return Err("\\x{ is not closed".to_owned());
                    }
                    code
                } else {
                    self.digits(16, 2)
                };
                code.and_then(char::from_u32).ok_or("\\x without a character's number")?
            }
            'u' => {
                self.digits(16, 4).and_then(char::from_u32).ok_or("\\u without four hex digits")?
            }
            'c' => {
                let c = self.chars.next().ok_or("\\c at the end of the expression")?;
                char::from_u32(c as u32 & 0x1f).unwrap_or('\0')
            }
            c => c,
        })
    }

    fn digits(&mut self, radix: u32, max: usize) -> Option<u32> {
        let mut value: Option<u32> = None;
        for _ in 0..max {
            let Some(digit) = self.chars.peek().and_then(|c| c.to_digit(radix)) else { break };
            self.chars.next();
            value = Some(value.unwrap_or(0).checked_mul(radix)?.checked_add(digit)?);
        }
        value
    }

    /// A class after its opening bracket.
    fn class(&mut self) -> Result<Class, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("character classes nested deeper than {DEPTH_MAX}"));
        }
        let is_negative = self.chars.next_if_eq(&'^').is_some();
        let (mut class, mut left, mut is_first) = (Class::NONE, None::<Class>, true);
        loop {
            let c = self.chars.next().ok_or("unclosed character class")?;
            match c {
                ']' if !is_first => break,
                '[' if self.chars.peek() == Some(&':') => match self.posix()? {
                    Some(posix) => class.add(posix),
                    None => class.add(Class::char('[')),
                },
                '[' => {
                    let nested = self.class()?;
                    class.add(nested);
                }
                '&' if self.chars.peek() == Some(&'&') => {
                    self.chars.next();
                    let held = std::mem::replace(&mut class, Class::NONE);
                    left = Some(match left {
                        Some(left) => left.and(held),
                        None => held,
                    });
                }
                c => self.class_item(c, &mut class)?,
            }
            is_first = false;
        }
        self.depth -= 1;
        if let Some(left) = left {
            class = left.and(class);
        }
        Ok(if is_negative { class.negated() } else { class })
    }

    /// A character, a range or an escape within a class.
    fn class_item(&mut self, c: char, class: &mut Class) -> Result<(), String> {
        let from = if c == '\\' {
            let is_set = matches!(
                self.chars.peek(),
                Some('d' | 'D' | 'w' | 'W' | 's' | 'S' | 'h' | 'H' | 'p' | 'P')
            );
            if is_set {
                let set = self.escaped_class()?;
                class.add(set);
                return Ok(());
            }
            let c = self.chars.next().ok_or("unclosed character class")?;
            self.escaped_char(c)?
        } else {
            c
        };
        let mut ahead = self.chars.clone();
        let is_range = ahead.next() == Some('-') && !matches!(ahead.peek(), None | Some(']' | '['));
        if !is_range {
            class.add(Class::char(from));
            return Ok(());
        }
        let to_escape = ahead.peek() == Some(&'\\');
        if to_escape {
            let mut after = ahead.clone();
            after.next();
            if matches!(
                after.peek(),
                Some('d' | 'D' | 'w' | 'W' | 's' | 'S' | 'h' | 'H' | 'p' | 'P')
            ) {
                // `[a-\d]` is a, - and the digits.
                class.add(Class::char(from));
                return Ok(());
            }
        }
        self.chars = ahead;
        let c = self.chars.next().ok_or("unclosed character class")?;
        let to = if c == '\\' {
            let c = self.chars.next().ok_or("unclosed character class")?;
            self.escaped_char(c)?
        } else {
            c
        };
        if to < from {
            return Err(format!("range {from}-{to} in a character class is empty"));
        }
        class.add(Class::range(from, to));
        Ok(())
    }

    /// `[:alpha:]`, after its first bracket; none, and nothing consumed, where it is no such thing.
    fn posix(&mut self) -> Result<Option<Class>, String> {
        let mut ahead = self.chars.clone();
        ahead.next();
        let is_negative = ahead.next_if_eq(&'^').is_some();
        let mut name = String::new();
        while let Some(c) = ahead.next_if(char::is_ascii_alphabetic) {
            name.push(c);
        }
        if ahead.next() != Some(':') || ahead.next() != Some(']') {
            return Ok(None);
        }
        self.chars = ahead;
        let class = match name.as_str() {
            "xdigit" => Class::ascii(class::HEX),
            "ascii" => Class::ascii(u128::MAX),
            "blank" => Class::ascii(1 << b' ' | 1 << b'\t'),
            name => match Kind::parse(name) {
                Some(kind) if name.len() > 2 => Class::kind(kind),
                _ => return Err(format!("unknown class [:{name}:]")),
            },
        };
        Ok(Some(if is_negative { class.negated() } else { class }))
    }

    /// `%{NAME}`, `%{NAME:field:type}`, `%{NAME:field=definition}`, after the percent sign; text
    /// between the name and the brace is ignored, as in Logstash. None where it is no reference.
    fn reference(&mut self) -> Result<Option<Ast>, String> {
        let mut ahead = self.chars.clone();
        ahead.next();
        let mut name = String::new();
        // Logstash's class is [A-z0-9], which takes in the characters between Z and a.
        while let Some(c) = ahead.next_if(|c| c.is_ascii_alphanumeric() || "[\\]^_`".contains(*c)) {
            name.push(c);
        }
        if name.is_empty() {
            return Ok(None);
        }
        let mut field = String::new();
        if ahead.peek() == Some(&':') {
            ahead.next();
            while let Some(c) =
                ahead.next_if(|c| c.is_ascii_alphanumeric() || "@[\\]^_`:.-".contains(*c))
            {
                field.push(c);
            }
        }
        let mut inline = None;
        if ahead.peek() == Some(&'=') {
            ahead.next();
            let (mut text, mut open) = (String::new(), 0);
            loop {
                match ahead.peek() {
                    None => return Ok(None),
                    Some('}') if open == 0 => break,
                    Some('{') => open += 1,
                    Some('}') => open -= 1,
                    _ => {}
                }
                let Some(c) = ahead.next() else { return Ok(None) };
                text.push(c);
                if c == '\\' {
                    text.extend(ahead.next());
                }
            }
            inline = Some(text);
        }
        loop {
            match ahead.next() {
                Some('}') => break,
                Some(_) => {}
                None => return Ok(None),
            }
        }
        self.chars = ahead;
        self.expand(name, field, inline).map(Some)
    }

    fn expand(
        &mut self,
        name: String,
        field: String,
        inline: Option<String>,
    ) -> Result<Ast, String> {
        let Some(definitions) = self.state.syntax.definitions else { return Ok(Ast::Empty) };
        let text = match &inline {
            Some(text) => text.as_str(),
            None => definitions
                .definition(&name)
                .ok_or_else(|| format!("unknown pattern %{{{name}}}{}", definitions.hint(&name)))?,
        };
        if self.state.open.contains(&name) && inline.is_none() {
            return Err(format!("pattern {name} refers to itself"));
        }
        let index = self.state.captures.len();
        self.state.captures.push(if field.is_empty() {
            CaptureName::Pattern(name.clone())
        } else {
            CaptureName::Name(field)
        });
        self.state.open.push(name);
        // Each definition is read with the flags of the whole, as if in a group of its own.
        let flags = Flags {
            is_dot_all: self.state.syntax.is_dot_all,
            is_folding: self.flags.is_folding,
            is_extended: self.flags.is_extended,
        };
        let ast = parse_whole(text, flags, self.state, self.depth + 1)?;
        self.state.open.pop();
        Ok(Ast::Capture(index, Box::new(ast)))
    }
}
