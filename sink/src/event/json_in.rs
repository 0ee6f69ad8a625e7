//! JSON text → fields, in one pass over the bytes.
//!
//! Strings without escapes stay where they are in the copied text; others are unescaped behind it.
//! Accepts what Jackson accepts for Logstash: strict JSON; a key given twice keeps its last value.

use std::collections::HashMap;

use super::{
    Datum, Event, List, NONE, NodeId, Span, TIMESTAMP, Timestamp, scan::next_special, tag,
};

/// Why a text is not the JSON that was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("invalid JSON at byte {0}")]
    Syntax(usize),
    #[error("JSON nested deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("JSON larger than {} bytes", super::TEXT_BYTES_MAX)]
    TooLarge,
    #[error("JSON is not an object")]
    NotAnObject,
}

/// Nesting beyond this is refused; every reader of the tree recurses no deeper.
const DEPTH_MAX: usize = 128;

/// Objects up to this size are searched for a repeated key as they grow, larger ones once at the end.
const LINEAR_KEYS_MAX: usize = 32;

impl Event {
    /// Reads an object as Logstash's json codec does: `@timestamp` becomes a time, or `received`
    /// where it is missing; `@metadata` is kept apart on output; `@version` is added.
    ///
    /// Bytes that are not UTF-8 are replaced. A time that cannot be read moves to `_@timestamp` and
    /// the event is tagged `_timestampparsefailure`, as in Logstash.
    pub fn from_json(json: &[u8], received: Timestamp) -> Result<Self, JsonError> {
        let mut event = Self::parse_json(json)?;
        if !matches!(event.datum(super::ROOT), Datum::Object(_)) {
            return Err(JsonError::NotAnObject);
        }
        event.complete(received);
        Ok(event)
    }

    /// Reads an array of objects, or one object, as several events. They are handed over one by one,
    /// and none before all were found to be objects: a megabyte of `{},{},…` would be hundreds of
    /// them if all were held at once.
    pub fn several_from_json(
        json: &[u8],
        received: Timestamp,
        each: &mut dyn FnMut(Event),
    ) -> Result<(), JsonError> {
        let mut whole = Self::parse_json(json)?;
        match whole.datum(super::ROOT) {
            Datum::Object(_) => {
                whole.complete(received);
                each(whole);
                Ok(())
            }
            Datum::Array(_) => {
                let is_object = |id: NodeId| matches!(whole.datum(id), Datum::Object(_));
                if !whole.children(super::ROOT).all(is_object) {
                    return Err(JsonError::NotAnObject);
                }
                for id in whole.children(super::ROOT) {
                    // Each gets text of its own, so that none keeps the whole record alive.
                    let mut one = Self::parse_json(whole.view(id).to_json().as_bytes())?;
                    one.complete(received);
                    each(one);
                }
                Ok(())
            }
            _ => Err(JsonError::NotAnObject),
        }
    }

    fn parse_json(json: &[u8]) -> Result<Self, JsonError> {
        if json.len() > super::TEXT_BYTES_MAX / 2 {
            return Err(JsonError::TooLarge);
        }
        let mut event = Self::empty();
        // Room for what escapes and filters add, so that most events never grow their buffers.
        event.text = String::with_capacity(json.len() * 2 + 256);
        event.nodes.reserve((json.len() / 8).clamp(8, 48));
        match std::str::from_utf8(json) {
            Ok(text) => event.push_text(text),
            Err(_) => event.push_text(&String::from_utf8_lossy(json)),
        };
        let end = event.text.len();
        let datum = parse_within(&mut event, 0, end)?;
        event.nodes[0].datum = datum;
        Ok(event)
    }

    /// Parses a JSON text held by a field; strings are spans of it where they can be.
    pub(crate) fn parse_span(&mut self, span: Span) -> Result<Datum, JsonError> {
        let nodes = self.nodes.len();
        let parsed = parse_within(self, span.start as usize, span.end as usize);
        if parsed.is_err() {
            self.nodes.truncate(nodes);
        }
        parsed
    }

    fn complete(&mut self, received: Timestamp) {
        match self.child(super::ROOT, TIMESTAMP) {
            None => self.set_timestamp(received),
            Some(id) => {
                let held = self.datum(id);
                let parsed = match held {
                    Datum::Text(span) => Timestamp::parse_iso8601(self.str_at(span)),
                    _ => None,
                };
                let time = parsed.unwrap_or(received);
                self.nodes[id as usize].datum = Datum::Time(time.seconds, time.nanos);
                if parsed.is_none() {
                    self.tag("_timestampparsefailure");
                    self.set_child(super::ROOT, "_@timestamp", held);
                }
            }
        }
        if self.child(super::ROOT, "@version").is_none() {
            self.set_root_text("@version", "1");
        }
    }
}

fn parse_within(event: &mut Event, start: usize, end: usize) -> Result<Datum, JsonError> {
    if end - start > super::TEXT_BYTES_MAX / 2
        || event.text.len() + (end - start) > super::TEXT_BYTES_MAX
    {
        return Err(JsonError::TooLarge);
    }
    let mut parser = Parser { event, at: start, end };
    parser.skip_space();
    let datum = parser.value(0)?;
    parser.skip_space();
    if parser.at == end { Ok(datum) } else { Err(JsonError::Syntax(parser.at)) }
}

struct Parser<'e> {
    event: &'e mut Event,
    at: usize,
    end: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        if self.at < self.end { self.event.text.as_bytes().get(self.at).copied() } else { None }
    }

    fn error<T>(&self) -> Result<T, JsonError> {
        Err(JsonError::Syntax(self.at))
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Datum, JsonError> {
        match self.peek() {
            Some(b'"') => self.string().map(Datum::Text),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Datum::Bool(true)),
            Some(b'f') => self.word("false", Datum::Bool(false)),
            Some(b'n') => self.word("null", Datum::Null),
            _ => self.error(),
        }
    }

    fn word(&mut self, word: &str, datum: Datum) -> Result<Datum, JsonError> {
        let rest = &self.event.text.as_bytes()[self.at..self.end];
        if rest.starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(datum)
        } else {
            self.error()
        }
    }

    fn object(&mut self, depth: usize) -> Result<Datum, JsonError> {
        if depth >= DEPTH_MAX {
            return Err(JsonError::TooDeep);
        }
        self.at += 1;
        let (mut list, mut count) = (List::default(), 0);
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Datum::Object(list));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return self.error();
            }
            let key = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return self.error();
            }
            self.at += 1;
            self.skip_space();
            let datum = self.value(depth + 1)?;
            match self.same_key(list, key, count) {
                Some(id) => self.event.nodes[id as usize].datum = datum,
                None => {
                    self.event.push_to(&mut list, key, datum);
                    count += 1;
                }
            }
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return self.error(),
            }
        }
        self.at += 1;
        if count > LINEAR_KEYS_MAX {
            list = self.without_repeats(list);
        }
        Ok(Datum::Object(list))
    }

    fn same_key(&self, list: List, key: Span, count: usize) -> Option<NodeId> {
        if count > LINEAR_KEYS_MAX {
            return None;
        }
        let wanted = self.event.str_at(key);
        self.event.child_of(list, wanted, tag(wanted))
    }

    /// The list with the last value of each key, at the place of its first.
    fn without_repeats(&mut self, list: List) -> List {
        let mut firsts: HashMap<&str, NodeId> = HashMap::new();
        let (mut at, mut moves) = (list.first, Vec::new());
        while at != NONE {
            let node = &self.event.nodes[at as usize];
            if let Some(first) = firsts.get(&self.event.text[node.key.range()]) {
                moves.push((at, *first));
            } else {
                firsts.insert(&self.event.text[node.key.range()], at);
            }
            at = node.next;
        }
        if moves.is_empty() {
            return list;
        }
        let mut repeats: std::collections::HashSet<NodeId> = Default::default();
        for (repeat, first) in moves {
            self.event.nodes[first as usize].datum = self.event.nodes[repeat as usize].datum;
            repeats.insert(repeat);
        }
        let (mut kept, mut at) = (List::default(), list.first);
        while at != NONE {
            let next = self.event.nodes[at as usize].next;
            if !repeats.contains(&at) {
                if kept.last == NONE {
                    kept.first = at;
                } else {
                    self.event.nodes[kept.last as usize].next = at;
                }
                kept.last = at;
                self.event.nodes[at as usize].next = NONE;
            }
            at = next;
        }
        kept
    }

    fn array(&mut self, depth: usize) -> Result<Datum, JsonError> {
        if depth >= DEPTH_MAX {
            return Err(JsonError::TooDeep);
        }
        self.at += 1;
        let mut list = List::default();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Datum::Array(list));
        }
        loop {
            self.skip_space();
            let datum = self.value(depth + 1)?;
            self.event.push_to(&mut list, Span::default(), datum);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return self.error(),
            }
        }
        self.at += 1;
        Ok(Datum::Array(list))
    }

    fn number(&mut self) -> Result<Datum, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let digits = self.digits();
        if digits == 0 || (digits > 1 && self.event.text.as_bytes()[self.at - digits] == b'0') {
            self.at = start;
            return self.error();
        }
        let mut is_integer = true;
        if self.peek() == Some(b'.') {
            is_integer = false;
            self.at += 1;
            if self.digits() == 0 {
                return self.error();
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            is_integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if self.digits() == 0 {
                return self.error();
            }
        }
        let text = &self.event.text[start..self.at];
        let big = Datum::BigNumber(Span { start: start as u32, end: self.at as u32 });
        Ok(if is_integer {
            text.parse().map_or(big, Datum::Int)
        } else {
            match text.parse::<f64>() {
                Ok(float) if float.is_finite() => Datum::Float(float),
                _ => big,
            }
        })
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - start
    }

    /// A string from its opening quote on; the span of its unescaped text.
    fn string(&mut self) -> Result<Span, JsonError> {
        self.at += 1;
        let start = self.at;
        let bytes = &self.event.text.as_bytes()[..self.end];
        let at = next_special(bytes, start);
        self.at = at;
        match bytes.get(at) {
            Some(b'"') => {
                self.at += 1;
                Ok(Span { start: start as u32, end: at as u32 })
            }
            Some(b'\\') => self.escaped_string(start),
            _ => self.error(),
        }
    }

    /// The rest of a string that holds escapes, copied behind the text.
    fn escaped_string(&mut self, mut copied: usize) -> Result<Span, JsonError> {
        let out_start = self.event.text.len();
        loop {
            let bytes = &self.event.text.as_bytes()[..self.end];
            let at = next_special(bytes, self.at);
            let byte = bytes.get(at).copied();
            self.at = at;
            self.event.text.extend_from_within(copied..at);
            match byte {
                Some(b'"') => {
                    self.at += 1;
                    let out_end = self.event.text.len();
                    return Ok(Span { start: out_start as u32, end: out_end as u32 });
                }
                Some(b'\\') => {
                    let c = self.escape()?;
                    self.event.text.push(c);
                    copied = self.at;
                }
                _ => return self.error(),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        self.at += 1;
        let Some(byte) = self.peek() else { return self.error() };
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex4()?;
                match unit {
                    // Half of a pair; alone it stands for no character and is replaced.
                    0xD800..=0xDBFF => {
                        let rest = &self.event.text.as_bytes()[self.at..self.end];
                        if !rest.starts_with(b"\\u") {
                            return Ok(char::REPLACEMENT_CHARACTER);
                        }
                        let mark = self.at;
                        self.at += 2;
                        let low = self.hex4()?;
                        if (0xDC00..=0xDFFF).contains(&low) {
                            let code = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
                        } else {
                            self.at = mark;
                            char::REPLACEMENT_CHARACTER
                        }
                    }
                    _ => char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER),
                }
            }
            _ => {
                self.at -= 1;
                return self.error();
            }
        })
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let mut value = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(16)) else {
                return self.error();
            };
            value = value << 4 | digit;
            self.at += 1;
        }
        Ok(value)
    }
}
