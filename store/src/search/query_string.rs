//! Lucene's query syntax as `query_string` takes it, and the smaller `simple_query_string`.
//!
//! Fields, phrases with slop, groups, ranges (`[a TO b}`, `>=5`), wildcards, `/regular expressions/`,
//! fuzzy words, `AND OR NOT && || ! + -`, `_exists_:field`. Boosts are read and not applied.
//! The parser goes down a bounded depth and never backtracks, so any text costs time linear in
//! its length.

use serde_json::Value;

use crate::search::dsl::{Bool, Match, MatchKind, Query, Range};

/// Deepest nesting of parentheses.
const DEPTH_MAX: usize = 30;
/// Clauses of one text.
const CLAUSES_MAX: usize = 1024;

#[derive(Debug, Clone)]
pub struct Options {
    /// Asked where the text names no field; may hold wildcards.
    pub fields: Vec<String>,
    pub needs_all: bool,
    pub is_lenient: bool,
}

/// Why a text does not parse, in the words of Lucene's parser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conjunction {
    None,
    And,
    Or,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occur {
    Should,
    Must,
    MustNot,
}

/// Parses the syntax of `query_string`.
pub fn parse(text: &str, options: &Options) -> Result<Query, SyntaxError> {
    if text.trim().is_empty() {
        return Ok(Query::None);
    }
    let mut parser = Parser { text, at: 0, options, clauses: 0 };
    let query = parser.clauses(None, 0)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(query),
        Some(_) => Err(parser.unexpected()),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    options: &'a Options,
    clauses: usize,
}

const EXPECTED: &str = "Was expecting one of:\n    <AND> ...\n    <OR> ...\n    <NOT> ...\n    \"+\" ...\n    \"-\" ...\n    <BAREOPER> ...\n    \"(\" ...\n    \")\" ...\n    \"*\" ...\n    \"^\" ...\n    <QUOTED> ...\n    <TERM> ...\n    <FUZZY_SLOP> ...\n    <PREFIXTERM> ...\n    <WILDTERM> ...\n    <REGEXPTERM> ...\n    \"[\" ...\n    \"{\" ...\n    <NUMBER> ...\n    ";

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn error(&self, message: &str) -> SyntaxError {
        SyntaxError { message: format!("Cannot parse '{}': {message}", self.text) }
    }

    fn unexpected(&self) -> SyntaxError {
        let column = self.text[..self.at].chars().count();
        let found = match self.peek() {
            None => "\"<EOF>\"".to_owned(),
            Some(c) => format!("\" \"{c}\" \"{c} \"\""),
        };
        self.error(&format!("Encountered {found} at line 1, column {column}.\n{EXPECTED}"))
    }

    /// A list of clauses up to the end or a closing parenthesis.
    fn clauses(&mut self, field: Option<&str>, depth: usize) -> Result<Query, SyntaxError> {
        if depth > DEPTH_MAX {
            return Err(self.error(&format!("nested deeper than {DEPTH_MAX}")));
        }
        let mut list: Vec<(Occur, Query)> = Vec::new();
        loop {
            self.skip_space();
            let conjunction = self.conjunction(list.is_empty())?;
            self.skip_space();
            let modifier = self.modifier();
            self.skip_space();
            match self.peek() {
                Some(c) if c != ')' => {}
                _ if conjunction == Conjunction::None && modifier == Occur::Should => break,
                _ => return Err(self.unexpected()),
            }
            self.clauses += 1;
            if self.clauses > CLAUSES_MAX {
                return Err(self.error(&format!("too many clauses, at most {CLAUSES_MAX}")));
            }
            let query = self.clause(field, depth)?;
            // As Lucene's classic parser: AND pulls in the clause before it.
            if let Some((occur, _)) = list.last_mut() {
                match conjunction {
                    Conjunction::And if *occur != Occur::MustNot => *occur = Occur::Must,
                    Conjunction::Or if self.options.needs_all && *occur == Occur::Must => {
                        *occur = Occur::Should
                    }
                    _ => {}
                }
            }
            let occur = match modifier {
                Occur::MustNot => Occur::MustNot,
                Occur::Must => Occur::Must,
                Occur::Should if self.options.needs_all && conjunction != Conjunction::Or => {
                    Occur::Must
                }
                Occur::Should if !self.options.needs_all && conjunction == Conjunction::And => {
                    Occur::Must
                }
                Occur::Should => Occur::Should,
            };
            list.push((occur, query));
        }
        Ok(combine(list))
    }

    fn conjunction(&mut self, is_first: bool) -> Result<Conjunction, SyntaxError> {
        let start = self.at;
        let found = if self.take_word("AND") || self.take("&&") {
            Conjunction::And
        } else if self.take_word("OR") || self.take("||") {
            Conjunction::Or
        } else {
            Conjunction::None
        };
        if is_first && found != Conjunction::None {
            self.at = start;
            return Err(self.unexpected());
        }
        Ok(found)
    }

    fn modifier(&mut self) -> Occur {
        if self.take("+") {
            Occur::Must
        } else if self.take("-") || self.take_word("NOT") || self.take("!") {
            Occur::MustNot
        } else {
            Occur::Should
        }
    }

    /// Takes an operator that must end where a word could.
    fn take_word(&mut self, word: &str) -> bool {
        let Some(after) = self.rest().strip_prefix(word) else { return false };
        if after.chars().next().is_none_or(|c| c.is_whitespace() || c == '(') {
            self.at += word.len();
            return true;
        }
        false
    }

    fn clause(&mut self, field: Option<&str>, depth: usize) -> Result<Query, SyntaxError> {
        let named = self.field_name();
        if named.is_some() {
            self.skip_space();
        }
        let field = named.as_deref().or(field);
        let query = match self.peek() {
            None => return Err(self.unexpected()),
            Some('(') => {
                self.at += 1;
                let query = self.clauses(field, depth + 1)?;
                self.skip_space();
                if !self.take(")") {
                    return Err(self.unexpected());
                }
                query
            }
            Some('"') => {
                let text = self.quoted('"')?;
                let slop = if self.take("~") { self.number().unwrap_or(0.0) as u32 } else { 0 };
                if field == Some("_exists_") {
                    Query::Exists(text)
                } else {
                    self.spread(field, |field, options| {
                        let mut query =
                            Match::new(field, Value::String(text.clone()), MatchKind::Phrase);
                        (query.slop, query.is_lenient) = (slop, options.is_lenient);
                        Query::Match(query)
                    })
                }
            }
            Some('/') => {
                let pattern = self.quoted('/')?;
                self.spread(field, |field, _| Query::Regexp {
                    field: field.to_owned(),
                    pattern: pattern.clone(),
                    folds_case: false,
                })
            }
            Some('[' | '{') => self.range(field)?,
            Some('>' | '<') => self.comparison(field)?,
            Some(_) => self.word(field)?,
        };
        if self.take("^") && self.number().is_none() {
            return Err(self.unexpected());
        }
        Ok(query)
    }

    /// `name:` where it follows.
    fn field_name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((offset, c)) = characters.next() {
            match c {
                '\\' => name.push(characters.next()?.1),
                ':' if !name.is_empty() => {
                    self.at += offset + 1;
                    return Some(name);
                }
                c if c.is_whitespace() || "():\"[]{}^~+!/<>=&|".contains(c) => return None,
                c => name.push(c),
            }
        }
        None
    }

    /// Reads up to the closing mark; a backslash keeps what follows it.
    fn quoted(&mut self, mark: char) -> Result<String, SyntaxError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                '\\' => {
                    let Some(next) = self.peek() else { break };
                    self.at += next.len_utf8();
                    if mark == '/' && next != '/' {
                        text.push('\\');
                    }
                    text.push(next);
                }
                c if c == mark => return Ok(text),
                c => text.push(c),
            }
        }
        let column = self.text[..self.at].chars().count();
        let rest = &self.text[start..];
        Err(self.error(&format!(
            "Lexical error at line 1, column {}.  Encountered: <EOF> after : {rest:?}",
            column + 1
        )))
    }

    fn number(&mut self) -> Option<f64> {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = rest[..length].parse().ok()?;
        self.at += length;
        Some(number)
    }

    fn range(&mut self, field: Option<&str>) -> Result<Query, SyntaxError> {
        let includes_low = self.peek() == Some('[');
        self.at += 1;
        let low = self.bound()?;
        self.skip_space();
        if !self.take_word("TO") {
            return Err(self.unexpected());
        }
        let high = self.bound()?;
        self.skip_space();
        let includes_high = match self.peek() {
            Some(']') => true,
            Some('}') => false,
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        let bound = |text: &str| (text != "*").then(|| Value::String(text.to_owned()));
        Ok(self.spread(field, |field, options| {
            let (low, high) = (bound(&low), bound(&high));
            let mut range = Range {
                field: field.to_owned(),
                is_lenient: options.is_lenient,
                ..Range::default()
            };
            *(if includes_low { &mut range.gte } else { &mut range.gt }) = low;
            *(if includes_high { &mut range.lte } else { &mut range.lt }) = high;
            Query::Range(range)
        }))
    }

    fn bound(&mut self) -> Result<String, SyntaxError> {
        self.skip_space();
        if self.peek() == Some('"') {
            return self.quoted('"');
        }
        let rest = self.rest();
        let end =
            rest.find(|c: char| c.is_whitespace() || c == ']' || c == '}').unwrap_or(rest.len());
        if end == 0 {
            return Err(self.unexpected());
        }
        self.at += end;
        Ok(rest[..end].replace('\\', ""))
    }

    /// `>5`, `>=5`, `<5`, `<=5`
    fn comparison(&mut self, field: Option<&str>) -> Result<Query, SyntaxError> {
        let is_lower = self.peek() == Some('>');
        self.at += 1;
        let includes = self.take("=");
        self.skip_space();
        let value = if self.peek() == Some('"') { self.quoted('"')? } else { self.plain_word().0 };
        if value.is_empty() {
            return Err(self.unexpected());
        }
        Ok(self.spread(field, |field, options| {
            let mut range = Range {
                field: field.to_owned(),
                is_lenient: options.is_lenient,
                ..Range::default()
            };
            let bound = match (is_lower, includes) {
                (true, true) => &mut range.gte,
                (true, false) => &mut range.gt,
                (false, true) => &mut range.lte,
                (false, false) => &mut range.lt,
            };
            *bound = Some(Value::String(value.clone()));
            Query::Range(range)
        }))
    }

    /// A bare word with its escapes resolved, and its pattern where it has wildcards, in which an
    /// escaped character keeps its backslash.
    fn plain_word(&mut self) -> (String, Option<String>) {
        let (mut word, mut pattern, mut has_wildcard) = (String::new(), String::new(), false);
        while let Some(c) = self.peek() {
            match c {
                '\\' => {
                    self.at += 1;
                    let next = self.peek().unwrap_or('\\');
                    if self.at < self.text.len() {
                        self.at += next.len_utf8();
                    }
                    word.push(next);
                    pattern.push('\\');
                    pattern.push(next);
                    continue;
                }
                c if c.is_whitespace() || "()\"[]{}^~".contains(c) => break,
                '*' | '?' => has_wildcard = true,
                _ => {}
            }
            word.push(c);
            pattern.push(c);
            self.at += c.len_utf8();
        }
        (word, has_wildcard.then_some(pattern))
    }

    fn word(&mut self, field: Option<&str>) -> Result<Query, SyntaxError> {
        let (word, pattern) = self.plain_word();
        if word.is_empty() {
            return Err(self.unexpected());
        }
        if let Some(pattern) = pattern {
            if pattern == "*" {
                return Ok(match field {
                    None | Some("*") => Query::All,
                    Some("_exists_") => Query::None,
                    Some(field) => Query::Exists(field.to_owned()),
                });
            }
            return Ok(self.spread(field, |field, _| Query::Wildcard {
                field: field.to_owned(),
                pattern: pattern.clone(),
                folds_case: false,
            }));
        }
        if field == Some("_exists_") {
            return Ok(Query::Exists(word));
        }
        if self.take("~") {
            let distance = self.number().map_or_else(
                || crate::search::dsl::fuzziness(None, &word),
                |n| n.clamp(0.0, 2.0) as u8,
            );
            return Ok(self.spread(field, |field, _| Query::Fuzzy {
                field: field.to_owned(),
                value: word.clone(),
                distance,
                prefix: 0,
            }));
        }
        Ok(self.spread(field, |field, options| {
            let mut query = Match::new(field, Value::String(word.clone()), MatchKind::Words);
            (query.is_lenient, query.needs_all) = (options.is_lenient, options.needs_all);
            Query::Match(query)
        }))
    }

    /// One query per default field where the text names none.
    fn spread(&self, field: Option<&str>, make: impl Fn(&str, &Options) -> Query) -> Query {
        spread(field, self.options, make)
    }
}

fn spread(field: Option<&str>, options: &Options, make: impl Fn(&str, &Options) -> Query) -> Query {
    match (field, options.fields.as_slice()) {
        (Some(field), _) => make(field, options),
        (None, [field]) => make(field, options),
        (None, fields) => Query::Any(fields.iter().map(|field| make(field, options)).collect()),
    }
}

fn combine(mut list: Vec<(Occur, Query)>) -> Query {
    if let [(Occur::Should | Occur::Must, _)] = list.as_slice() {
        return list.pop().map_or(Query::None, |(_, query)| query);
    }
    let mut query = Bool::default();
    for (occur, clause) in list {
        match occur {
            Occur::Must => query.must.push(clause),
            Occur::Should => query.should.push(clause),
            Occur::MustNot => query.must_not.push(clause),
        }
    }
    if query.must.is_empty() && query.should.is_empty() && query.must_not.is_empty() {
        return Query::None;
    }
    Query::Bool(Box::new(query))
}

/// Parses `simple_query_string`, which takes any text: `+` and, `|` or, `-` not, `"phrase"`, `word*`,
/// `(group)`, `word~2`.
pub fn parse_simple(text: &str, options: &Options) -> Query {
    let mut parser = Simple { text, at: 0, options, clauses: 0 };
    let mut queries = Vec::new();
    while parser.at < text.len() {
        queries.push(parser.clauses(0));
        // A closing parenthesis without an opening one is skipped.
        parser.at += usize::from(parser.at < text.len());
    }
    let mut queries: Vec<Query> = queries.into_iter().flatten().collect();
    match queries.len() {
        0 => Query::None,
        1 => queries.remove(0),
        _ => Query::Bool(Box::new(Bool { should: queries, ..Bool::default() })),
    }
}

struct Simple<'a> {
    text: &'a str,
    at: usize,
    options: &'a Options,
    clauses: usize,
}

impl Simple<'_> {
    fn clauses(&mut self, depth: usize) -> Option<Query> {
        // Consecutive clauses join by the operator between them; the left ones bind first.
        let mut result: Option<Query> = None;
        let (mut is_and, mut is_not) = (self.options.needs_all, false);
        while let Some(c) = self.text[self.at..].chars().next() {
            let clause = match c {
                ')' => break,
                c if c.is_whitespace() => {
                    self.at += c.len_utf8();
                    continue;
                }
                '+' => {
                    self.at += 1;
                    is_and = true;
                    continue;
                }
                '|' => {
                    self.at += 1;
                    is_and = false;
                    continue;
                }
                '-' => {
                    self.at += 1;
                    is_not = true;
                    continue;
                }
                '(' => {
                    self.at += 1;
                    let inner = if depth < DEPTH_MAX { self.clauses(depth + 1) } else { None };
                    if self.text[self.at..].starts_with(')') {
                        self.at += 1;
                    }
                    inner
                }
                '"' => self.phrase(),
                _ => self.word(),
            };
            self.clauses += 1;
            let Some(mut clause) = clause.filter(|_| self.clauses <= CLAUSES_MAX) else { continue };
            if std::mem::take(&mut is_not) {
                clause = Query::Bool(Box::new(Bool { must_not: vec![clause], ..Bool::default() }));
            }
            result = Some(match result {
                None => clause,
                Some(Query::Bool(mut left))
                    if is_and && left.should.is_empty() && left.must_not.is_empty() =>
                {
                    left.must.push(clause);
                    Query::Bool(left)
                }
                Some(Query::Bool(mut left))
                    if !is_and && left.must.is_empty() && left.must_not.is_empty() =>
                {
                    left.should.push(clause);
                    Query::Bool(left)
                }
                Some(left) if is_and => {
                    Query::Bool(Box::new(Bool { must: vec![left, clause], ..Bool::default() }))
                }
                Some(left) => {
                    Query::Bool(Box::new(Bool { should: vec![left, clause], ..Bool::default() }))
                }
            });
            is_and = self.options.needs_all;
        }
        result
    }

    fn phrase(&mut self) -> Option<Query> {
        self.at += 1;
        let rest = &self.text[self.at..];
        let end = rest.find('"').unwrap_or(rest.len());
        let text = rest[..end].to_owned();
        self.at += (end + 1).min(rest.len());
        let slop = self.tilde().unwrap_or(0);
        Some(spread(None, self.options, |field, _| {
            let mut query = Match::new(field, Value::String(text.clone()), MatchKind::Phrase);
            (query.slop, query.is_lenient) = (slop, true);
            Query::Match(query)
        }))
    }

    fn tilde(&mut self) -> Option<u32> {
        let rest = self.text[self.at..].strip_prefix('~')?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        self.at += 1 + digits;
        Some(rest[..digits].parse().unwrap_or(1))
    }

    fn word(&mut self) -> Option<Query> {
        let mut word = String::new();
        while let Some(c) = self.text[self.at..].chars().next() {
            if c.is_whitespace() || "+|()\"~".contains(c) {
                break;
            }
            self.at += c.len_utf8();
            if c == '\\' {
                if let Some(next) = self.text[self.at..].chars().next() {
                    self.at += next.len_utf8();
                    word.push(next);
                }
                continue;
            }
            word.push(c);
        }
        let distance = self.tilde();
        if word.is_empty() {
            // A lone mark such as `~`: step over it so that the loop goes on.
            return None;
        }
        if let Some(distance) = distance {
            return Some(spread(None, self.options, |field, _| Query::Fuzzy {
                field: field.to_owned(),
                value: word.clone(),
                distance: distance.min(2) as u8,
                prefix: 0,
            }));
        }
        if word == "*" {
            return Some(Query::All);
        }
        if let Some(prefix) = word.strip_suffix('*') {
            return Some(spread(None, self.options, |field, _| Query::Prefix {
                field: field.to_owned(),
                value: prefix.to_lowercase(),
                folds_case: false,
            }));
        }
        Some(spread(None, self.options, |field, options| {
            let mut query = Match::new(field, Value::String(word.clone()), MatchKind::Words);
            (query.is_lenient, query.needs_all) = (true, options.needs_all);
            Query::Match(query)
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options() -> Options {
        Options { fields: vec!["message".into()], needs_all: false, is_lenient: true }
    }

    /// A short form: `+must -not should`, fields and words.
    fn shown(query: &Query) -> String {
        match query {
            Query::All => "*:*".into(),
            Query::None => "none".into(),
            Query::Match(m) if m.kind == MatchKind::Phrase => {
                format!("{}:{:?}~{}", m.field, m.text(), m.slop)
            }
            Query::Match(m) => format!("{}:{}", m.field, m.text()),
            Query::Wildcard { field, pattern, .. } => format!("{field}:{pattern}"),
            Query::Regexp { field, pattern, .. } => format!("{field}:/{pattern}/"),
            Query::Exists(field) => format!("exists:{field}"),
            Query::Fuzzy { field, value, distance, .. } => format!("{field}:{value}~{distance}"),
            Query::Prefix { field, value, .. } => format!("{field}:{value}*"),
            Query::Range(r) => {
                let text = |v: &Option<Value>| {
                    v.as_ref().map_or("*".into(), |v| v.as_str().unwrap_or_default().to_owned())
                };
                let (open, low) = if r.gt.is_some() { ('{', &r.gt) } else { ('[', &r.gte) };
                let (close, high) = if r.lt.is_some() { ('}', &r.lt) } else { (']', &r.lte) };
                format!("{}:{open}{} TO {}{close}", r.field, text(low), text(high))
            }
            Query::Bool(b) => {
                let list = |mark: &str, queries: &[Query]| {
                    queries.iter().map(|q| format!("{mark}{}", shown(q))).collect::<Vec<_>>()
                };
                let all =
                    [list("+", &b.must), list("", &b.should), list("-", &b.must_not)].concat();
                format!("({})", all.join(" "))
            }
            other => format!("{other:?}"),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(shown(&parse(text, &options()).unwrap()), expected, "{text}");
    }

    #[test]
    fn operators_bind_as_in_lucene() {
        check("a b", "(message:a message:b)");
        check("a AND b", "(+message:a +message:b)");
        check("a OR b AND c", "(+message:b +message:c message:a)");
        check("+a -b c", "(+message:a message:c -message:b)");
        check("NOT a", "(-message:a)");
        check("a AND NOT b", "(+message:a -message:b)");
        check("status:(a OR b) c", "((status:a status:b) message:c)");
        check("android", "message:android");
    }

    #[test]
    fn every_kind_of_clause() {
        check("http.status:[400 TO 599]", "http.status:[400 TO 599]");
        check("a:{1 TO *]", "a:{1 TO *]");
        check("a:>=5", "a:[5 TO *]");
        check("a:<\"2026-03-01T00:00:00Z\"", "a:[* TO 2026-03-01T00:00:00Z}");
        check("client.ip:\"10.0.0.3\"", "client.ip:\"10.0.0.3\"~0");
        check("\"x y\"~2^3", "message:\"x y\"~2");
        check("message:item*", "message:item*");
        check("url:*", "exists:url");
        check("_exists_:url.path", "exists:url.path");
        check("*", "*:*");
        check("*:*", "*:*");
        check("a:/x[0-9]+/", "a:/x[0-9]+/");
        check("quikc~", "message:quikc~1");
        check("a\\:b", "message:a:b");
        check("http\\://x", "message:http://x");
    }

    #[test]
    fn mistakes_are_worded_as_lucene_words_them() {
        let error = parse("message:(unclosed", &options()).unwrap_err();
        assert!(error.message.starts_with("Cannot parse 'message:(unclosed': Encountered \"<EOF>\" at line 1, column 17.\nWas expecting one of:"));
        for text in ["a AND", "AND a", "\"open", "[1 TO", "a:", "(", ")", "a ^", "+", "a:[1 2]"] {
            assert!(parse(text, &options()).is_err(), "{text}");
        }
    }

    #[test]
    fn simple_texts_are_always_taken() {
        let simple = |text: &str| shown(&parse_simple(text, &options()));
        assert_eq!(simple("+login -post"), "(message:login (-message:post))");
        assert_eq!(simple("a + b"), "(+message:a +message:b)");
        assert_eq!(simple("a | (b c*)"), "(message:a (message:b message:c*))");
        assert_eq!(simple("\"x y\"~1 )) z"), "(message:\"x y\"~1 message:z)");
        assert_eq!(simple(""), "none");
    }

    #[test]
    fn depth_is_bounded() {
        assert!(parse(&"(".repeat(100_000), &options()).is_err());
        parse_simple(&"(".repeat(100_000), &options());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse(&text, &options());
            parse_simple(&text, &options());
        }

        #[test]
        fn no_query_like_text_panics(text in r#"[a-c:()"\[\]{}*?\\/~^+&|!<>= \-ANDORTO\u{e9}]{0,30}"#) {
            let _ = parse(&text, &options());
            parse_simple(&text, &options());
        }
    }
}
