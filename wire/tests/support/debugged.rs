//! Reads what `{:?}` printed, so that two codecs' structs can be compared by field name.

use std::collections::BTreeMap;

use elkfk_wire::kafka::Uuid;

/// A printed value, without the names of newtypes and of structs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `None`, and also an empty string, list or `Some` of one: which of them it was shows in the
    /// bytes, not here.
    Empty,
    Fields(BTreeMap<String, Value>),
    List(Vec<Value>),
    Text(String),
    /// Numbers, booleans.
    Word(String),
}

pub(crate) fn parse(text: &str) -> Value {
    let mut parser = Parser { rest: text };
    let value = parser.value();
    assert_eq!(parser.rest, "", "left over of {text}");
    value
}

struct Parser<'t> {
    rest: &'t str,
}

impl Parser<'_> {
    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn value(&mut self) -> Value {
        if self.eat("[") {
            let mut items = Vec::new();
            while !self.eat("]") {
                items.push(self.value());
                self.eat(",");
            }
            return if items.is_empty() { Value::Empty } else { Value::List(items) };
        }
        if self.rest.starts_with('"') {
            let text = String::from_utf8(self.quoted()).expect("a string is UTF-8");
            return if text.is_empty() { Value::Empty } else { Value::Text(text) };
        }
        if self.rest.starts_with("b\"") {
            self.rest = &self.rest[1..];
            let bytes = self.quoted();
            let items: Vec<Value> = bytes.iter().map(|b| Value::Word(b.to_string())).collect();
            return if items.is_empty() { Value::Empty } else { Value::List(items) };
        }
        let word = self.word();
        if self.eat("{") {
            let mut fields = BTreeMap::new();
            while !self.eat("}") {
                let name = self.word();
                if name.is_empty() {
                    panic!("field expected at {}", self.rest);
                }
                assert!(self.eat(":"), "`:` expected at {}", self.rest);
                fields.insert(name.trim_start_matches('_').to_owned(), self.value());
                self.eat(",");
            }
            return Value::Fields(fields);
        }
        if word == "Uuid" && self.eat("(") {
            let (id, rest) = self.rest.split_once(')').expect("closing parenthesis");
            self.rest = rest.trim_start();
            return Value::Word(hex(&Uuid::parse(id).expect("a uuid").0));
        }
        if self.eat("(") {
            let inner = self.value();
            assert!(self.eat(")"), "`)` expected at {}", self.rest);
            return inner;
        }
        match word.as_str() {
            "None" => Value::Empty,
            id if id.len() == 36 && id.matches('-').count() == 4 => {
                Value::Word(id.replace('-', ""))
            }
            _ => Value::Word(word),
        }
    }

    fn word(&mut self) -> String {
        let end = self
            .rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-' || c == '.'))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word.to_owned()
    }

    fn quoted(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = self.rest[at + 1..].trim_start();
                    return out;
                }
                '\\' => match chars.next().expect("an escaped character").1 {
                    'x' => {
                        let digits: String = chars.by_ref().take(2).map(|(_, c)| c).collect();
                        out.push(u8::from_str_radix(&digits, 16).expect("two hex digits"));
                    }
                    'n' => out.push(b'\n'),
                    'r' => out.push(b'\r'),
                    't' => out.push(b'\t'),
                    '0' => out.push(0),
                    other => out.extend(other.to_string().bytes()),
                },
                other => out.extend(other.to_string().bytes()),
            }
        }
        panic!("unclosed quote");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
