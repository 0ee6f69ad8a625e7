//! From the JSON of a document to what is indexed, in one walk and without a tree.
//!
//! A value that does not fit its field: refused, as Elasticsearch does, where the field was mapped
//! explicitly or is `@timestamp`, or where an object meets a leaf; else kept in `_source` only,
//! because one odd line must not cost its neighbours a dead letter.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::tz::TimeZone;

use crate::dates;
use crate::error::EsError;
use crate::index::document::{Data, Fields, Prepared};
use crate::json::{JsonError, Quoted, Reader, Token, line_column};
use crate::mapping::{Child, Field, KEYWORD_BYTES_MAX, Kind, Mapping, Place, ROOT, Sample};
use crate::metrics;

/// The mapping of an index, which grows while documents are read.
#[derive(Debug)]
pub struct SharedMapping {
    current: Mutex<Arc<Mapping>>,
}

impl SharedMapping {
    pub fn new(mapping: Mapping) -> Self {
        Self { current: Mutex::new(Arc::new(mapping)) }
    }

    pub fn get(&self) -> Arc<Mapping> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where a key leads that the mapping did not know when it was last looked at; it is mapped by
    /// `sample` where it is to be. Also the mapping as it now is.
    fn child(
        &self,
        node: u32,
        key: &str,
        sample: Sample<'_>,
    ) -> Result<(Child, Arc<Mapping>), EsError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let known = current.child(node, key, &mut 0).or_else(|| current.known(node, key));
        if let Some(child) = known {
            return Ok((child, current.clone()));
        }
        let mut changed = Mapping::clone(&current);
        let child = changed.add_dynamic(node, key, sample)?;
        *current = Arc::new(changed);
        Ok((child, current.clone()))
    }

    /// Changes the mapping, or leaves it as it was where `change` fails.
    pub fn update<T>(
        &self,
        change: impl FnOnce(&mut Mapping) -> Result<T, EsError>,
    ) -> Result<T, EsError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Mapping::clone(&current);
        let result = change(&mut changed)?;
        *current = Arc::new(changed);
        Ok(result)
    }
}

/// Reads one document that is `range` of `body`.
///
/// # Errors
/// 400 as Elasticsearch words it; `id` is named in it where it is known.
pub fn parse(
    body: &Arc<String>,
    range: Range<usize>,
    shared: &SharedMapping,
    mapping: &mut Arc<Mapping>,
    fields: Fields,
    id: &str,
) -> Result<Prepared, EsError> {
    let text = &body[range.clone()];
    let mut walk = Walk {
        reader: Reader::new(text),
        text,
        base: range.start as u32,
        shared,
        id,
        prepared: Prepared {
            body: body.clone(),
            source: range.start as u32..range.end as u32,
            own: String::new(),
            mapping: mapping.clone(),
            values: Vec::with_capacity(24),
            timestamp: None,
            id: id.into(),
            seq_no: 0,
            version: 1,
            fields,
        },
    };
    match walk.document() {
        Ok(()) => {
            *mapping = walk.prepared.mapping.clone();
            Ok(walk.prepared)
        }
        Err(Refusal::Json(error)) => Err(malformed(text, walk.reader.last_token, &error)),
        Err(Refusal::Es(error)) => Err(*error),
    }
}

enum Refusal {
    Json(JsonError),
    Es(Box<EsError>),
}

impl From<JsonError> for Refusal {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

impl From<EsError> for Refusal {
    fn from(error: EsError) -> Self {
        Self::Es(Box::new(error))
    }
}

fn malformed(text: &str, last_token: usize, error: &JsonError) -> EsError {
    let (line, column) = line_column(text, error.at);
    let (token_line, token_column) = line_column(text, last_token);
    let shown: String = text.chars().take(500).collect();
    let jackson = format!(
        "{}\n at [Source: (byte[])\"{shown}\"; line: {line}, column: {column}]",
        error.text
    );
    let parse =
        EsError::new(400, "x_content_parse_exception", format!("[{line}:{column}] {jackson}"));
    let kind = if error.is_end { "json_e_o_f_exception" } else { "json_parse_exception" };
    EsError::new(
        400,
        "document_parsing_exception",
        format!("[{token_line}:{token_column}] failed to parse: {}", parse.reason()),
    )
    .caused_by(parse.caused_by(EsError::new(400, kind, jackson)))
}

struct Walk<'a> {
    reader: Reader<'a>,
    text: &'a str,
    /// Where `text` starts in the body.
    base: u32,
    shared: &'a SharedMapping,
    id: &'a str,
    prepared: Prepared,
}

impl<'a> Walk<'a> {
    fn document(&mut self) -> Result<(), Refusal> {
        match self.reader.value()? {
            Token::ObjectStart => self.object(ROOT)?,
            _ => {
                return Err(EsError::new(
                    400,
                    "document_parsing_exception",
                    "[1:1] failed to parse: expected START_OBJECT",
                )
                .into());
            }
        }
        if self.reader.is_finished() {
            Ok(())
        } else {
            let at = self.reader.position();
            let (line, column) = line_column(self.text, at);
            Err(EsError::new(
                400,
                "document_parsing_exception",
                format!("[{line}:{column}] failed to parse: found text after the document"),
            )
            .into())
        }
    }

    fn object(&mut self, node: u32) -> Result<(), Refusal> {
        let (mut is_first, mut guess) = (true, 0);
        while let Some(key) = self.reader.key(is_first)? {
            is_first = false;
            let token = self.reader.value()?;
            if key.is_escaped {
                let key = key.to_text();
                self.entry(node, &key, token, &mut guess)?;
            } else {
                self.entry(node, key.raw, token, &mut guess)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn entry(
        &mut self,
        node: u32,
        key: &str,
        token: Token<'a>,
        guess: &mut usize,
    ) -> Result<(), Refusal> {
        match self.prepared.mapping.child(node, key, guess) {
            Some(child) => self.child(child, token),
            None => {
                if self.prepared.mapping.is_enabled(node) && !key.is_empty() {
                    self.unknown(node, key, token)
                } else {
                    Ok(self.reader.skip(token)?)
                }
            }
        }
    }

    fn child(&mut self, child: Child, token: Token<'a>) -> Result<(), Refusal> {
        match child {
            Child::Object(object) => match token {
                Token::ObjectStart => self.object(object),
                Token::Null => Ok(()),
                Token::ArrayStart => {
                    let mut is_first = true;
                    while self.reader.element(is_first)? {
                        is_first = false;
                        let token = self.reader.value()?;
                        self.child(child, token)?;
                    }
                    Ok(())
                }
                _ => {
                    let (line, column) = line_column(self.text, self.reader.last_token);
                    let path = self.prepared.mapping.node_path(object);
                    let name = path.rsplit('.').next().unwrap_or(path);
                    Err(EsError::new(
                        400,
                        "document_parsing_exception",
                        format!("[{line}:{column}] object mapping for [{path}] tried to parse field [{name}] as object, but found a concrete value"),
                    )
                    .into())
                }
            },
            Child::Leaf(leaf) => self.leaf(leaf, token),
            Child::Ignored => Ok(self.reader.skip(token)?),
        }
    }

    /// Maps a key seen for the first time by its value, then goes on as if it had been known.
    fn unknown(&mut self, node: u32, key: &str, token: Token<'a>) -> Result<(), Refusal> {
        let rewritten;
        let sample = match token {
            Token::Null => return Ok(()),
            Token::ArrayStart => {
                let mut is_first = true;
                while self.reader.element(is_first)? {
                    is_first = false;
                    let token = self.reader.value()?;
                    self.entry(node, key, token, &mut 0)?;
                }
                return Ok(());
            }
            Token::ObjectStart => Sample::Object,
            Token::String(text) if text.is_escaped => {
                rewritten = text.to_text();
                Sample::String(&rewritten)
            }
            Token::String(text) => Sample::String(text.raw),
            Token::Number(digits) if digits.parse::<i64>().is_ok() => Sample::Integer,
            Token::Number(_) => Sample::Float,
            Token::Bool(_) => Sample::Boolean,
        };
        let known = self.prepared.mapping.known(node, key);
        let child = match known {
            Some(child) => child,
            None => {
                let (child, mapping) = self.shared.child(node, key, sample).map_err(|error| {
                    let (line, column) = line_column(self.text, self.reader.last_token);
                    EsError::new(
                        error.status,
                        "document_parsing_exception",
                        format!("[{line}:{column}] {}", error.reason()),
                    )
                })?;
                self.prepared.mapping = mapping;
                child
            }
        };
        if child == Child::Ignored {
            metrics::UNMAPPED_FIELDS.inc();
        }
        self.child(child, token)
    }

    fn leaf(&mut self, leaf: u32, token: Token<'a>) -> Result<(), Refusal> {
        if let Token::ArrayStart = token {
            let mut is_first = true;
            while self.reader.element(is_first)? {
                is_first = false;
                let token = self.reader.value()?;
                self.leaf(leaf, token)?;
            }
            return Ok(());
        }
        let start = self.reader.last_token;
        // The mapping outlives this call, but not as the borrow checker sees it.
        let mapping = self.prepared.mapping.clone();
        let field = &mapping.fields[leaf as usize];
        let fault = match (token, field.place) {
            (Token::Null, _) => return Ok(()),
            (Token::ObjectStart, _) => {
                self.reader.skip(token)?;
                if field.kind == Kind::Opaque {
                    return Ok(());
                }
                let (line, column) = line_column(self.text, start);
                let at = self.reader.position() - 1;
                let fault = EsError::illegal_argument(format!(
                    "Expected text at {line}:{column} but found START_OBJECT"
                ));
                return Err(self.refuse(field, at, &preview(&self.text[start..=at]), fault));
            }
            (_, Place::Nowhere) => return Ok(()),
            (_, Place::Keyword) if field.kind == Kind::Ip => self.ip(leaf, token),
            (_, Place::Message | Place::Text | Place::Keyword) => {
                self.string(leaf, field, token);
                Ok(())
            }
            (_, Place::Timestamp | Place::Number) => self.number(leaf, field, token),
        };
        match fault {
            Ok(()) => Ok(()),
            Err(_)
                if field.ignores_malformed
                    || (field.is_dynamic && field.place != Place::Timestamp) =>
            {
                metrics::IGNORED_VALUES.inc();
                Ok(())
            }
            Err(fault) => {
                let shown = match token {
                    Token::String(text) => text.to_text(),
                    Token::Number(digits) => digits.to_owned(),
                    Token::Bool(value) => value.to_string(),
                    _ => String::new(),
                };
                Err(self.refuse(field, start, &shown, fault))
            }
        }
    }

    fn refuse(&self, field: &Field, at: usize, shown: &str, fault: EsError) -> Refusal {
        let (line, column) = line_column(self.text, at);
        let reason = format!(
            "[{line}:{column}] failed to parse field [{}] of type [{}] in document with id '{}'. Preview of field's value: '{shown}'",
            field.path, field.type_name, self.id
        );
        EsError::new(400, "document_parsing_exception", reason).caused_by(fault).into()
    }

    fn push_own(&mut self, write: impl FnOnce(&mut String)) -> Data {
        let start = self.prepared.own.len() as u32;
        write(&mut self.prepared.own);
        Data::Own(start..self.prepared.own.len() as u32)
    }

    fn slice(&self, part: &str) -> Data {
        // `part` is a slice of `text`, so the distance of their starts is its offset.
        let offset = (part.as_ptr() as usize - self.text.as_ptr() as usize) as u32 + self.base;
        Data::Body(offset..offset + part.len() as u32)
    }

    fn string(&mut self, leaf: u32, field: &Field, token: Token<'a>) {
        let (data, bytes, characters) = match token {
            Token::String(Quoted { raw, is_escaped: false }) => (self.slice(raw), raw.len(), raw),
            Token::String(text) => {
                let data = self.push_own(|own| text.unescape_into(own));
                (data, text.raw.len(), text.raw)
            }
            Token::Number(digits) => (self.slice(digits), digits.len(), digits),
            Token::Bool(value) => {
                (self.push_own(|own| own.push_str(if value { "true" } else { "false" })), 5, "")
            }
            _ => return,
        };
        let place = if field.place == Place::Keyword {
            let limit = field.ignore_above as usize;
            let fits = bytes <= limit
                || (characters.chars().count() <= limit && bytes < KEYWORD_BYTES_MAX as usize);
            match (fits, field.kind) {
                (true, _) => Place::Keyword,
                (false, Kind::Text) => Place::Text,
                (false, _) => return,
            }
        } else {
            field.place
        };
        self.prepared.values.push((leaf, place, data));
        if place != Place::Keyword {
            // So that `exists` has a column to ask.
            self.prepared.values.push((leaf, Place::Number, Data::I64(1)));
        }
    }

    fn ip(&mut self, leaf: u32, token: Token<'a>) -> Result<(), EsError> {
        let text = match token {
            Token::String(text) => text.to_text(),
            Token::Number(digits) => digits.to_owned(),
            Token::Bool(value) => value.to_string(),
            _ => return Ok(()),
        };
        let address: IpAddr = text.parse().map_err(|_| {
            EsError::illegal_argument(format!("'{text}' is not an IP string literal."))
        })?;
        let data = self.push_own(|own| own.push_str(&ip_key(address)));
        self.prepared.values.push((leaf, Place::Keyword, data));
        Ok(())
    }

    fn number(&mut self, leaf: u32, field: &Field, token: Token<'a>) -> Result<(), EsError> {
        let rewritten;
        let text = match token {
            Token::String(text) if text.is_escaped => {
                rewritten = text.to_text();
                rewritten.as_str()
            }
            Token::String(text) => text.raw,
            Token::Number(digits) => digits,
            Token::Bool(true) => "true",
            Token::Bool(false) => "false",
            _ => return Ok(()),
        };
        let data = match field.kind {
            Kind::Boolean => match text {
                "true" => Data::I64(1),
                "false" | "" => Data::I64(0),
                _ => {
                    return Err(EsError::illegal_argument(format!(
                        "Failed to parse value [{text}] as only [true] or [false] are allowed."
                    )));
                }
            },
            Kind::Date => Data::I64(parse_date(text, &field.format)?),
            Kind::Float => Data::F64(
                text.parse::<f64>()
                    .ok()
                    .filter(|number| number.is_finite() && !matches!(token, Token::Bool(_)))
                    .ok_or_else(|| not_a_number(text))?,
            ),
            _ => Data::I64(parse_integer(text, &field.type_name)?),
        };
        if field.place == Place::Timestamp {
            if let Data::I64(ms) = data {
                self.prepared.timestamp.get_or_insert(ms);
            }
            return Ok(());
        }
        self.prepared.values.push((leaf, Place::Number, data));
        Ok(())
    }
}

fn not_a_number(text: &str) -> EsError {
    EsError::illegal_argument(if text.is_empty() {
        "empty String".to_owned()
    } else {
        format!("For input string: \"{text}\"")
    })
}

fn parse_integer(text: &str, type_name: &str) -> Result<i64, EsError> {
    let number = match text.parse::<i64>() {
        Ok(number) => number,
        // As Elasticsearch coerces: 1.9 into a long is 1.
        Err(_) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() && number.abs() < 9.3e18 => number as i64,
            Ok(_) => {
                return Err(EsError::illegal_argument(format!(
                    "Value [{text}] is out of range for a {type_name}"
                )));
            }
            Err(_) => return Err(not_a_number(text)),
        },
    };
    let fits = match type_name {
        "integer" => i32::try_from(number).is_ok(),
        "short" => i16::try_from(number).is_ok(),
        "byte" => i8::try_from(number).is_ok(),
        _ => true,
    };
    if fits {
        Ok(number)
    } else {
        Err(EsError::illegal_argument(format!("Value [{text}] is out of range for a {type_name}")))
    }
}

fn parse_date(text: &str, format: &str) -> Result<i64, EsError> {
    dates::parse(text, format, &TimeZone::UTC).map(|(ms, _)| ms).ok_or_else(|| {
        EsError::illegal_argument(format!(
            "failed to parse date field [{text}] with format [{}]",
            if format == dates::DEFAULT_FORMAT { dates::DEFAULT_FORMAT } else { format }
        ))
        .caused_by(EsError::new(
            400,
            "date_time_parse_exception",
            "Failed to parse with all enclosed parsers",
        ))
    })
}

/// An address as a string that sorts as addresses do, IPv4 ones as IPv6 with the prefix `::ffff:`:
/// `1` and 8 hexadecimal digits of an IPv4 address, `0` or `2` and 32 of an IPv6 address before or
/// after those.
pub fn ip_key(address: IpAddr) -> String {
    const V4_FIRST: u128 = 0xffff_0000_0000;
    const V4_LAST: u128 = 0xffff_ffff_ffff;
    let number = match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    };
    match number {
        V4_FIRST..=V4_LAST => format!("1{:08x}", number - V4_FIRST),
        _ if number < V4_FIRST => format!("0{number:032x}"),
        _ => format!("2{number:032x}"),
    }
}

/// The inverse of [`ip_key`].
pub fn ip_of_key(key: &str) -> Option<IpAddr> {
    let (class, digits) = key.split_at_checked(1)?;
    Some(if class == "1" {
        IpAddr::V4(u32::from_str_radix(digits, 16).ok()?.into())
    } else {
        IpAddr::V6(u128::from_str_radix(digits, 16).ok()?.into())
    })
}

/// An object as Java prints a map, the way Elasticsearch quotes it.
fn preview(json: &str) -> String {
    fn write(value: &serde_json::Value, out: &mut String) {
        match value {
            serde_json::Value::Object(map) => {
                out.push('{');
                for (i, (key, value)) in map.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    out.push_str(key);
                    out.push('=');
                    write(value, out);
                }
                out.push('}');
            }
            serde_json::Value::String(text) => out.push_str(text),
            other => out.push_str(&other.to_string()),
        }
    }
    let mut out = String::new();
    match serde_json::from_str(json) {
        Ok(value) => write(&value, &mut out),
        Err(_) => out.push_str(json),
    }
    if out.chars().count() > 200 { out.chars().take(200).collect::<String>() + "..." } else { out }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::index::document;

    fn prepare(mapping: &serde_json::Value, text: &str) -> Result<Prepared, EsError> {
        let shared = SharedMapping::new(Mapping::from_json(mapping).unwrap());
        let mut current = shared.get();
        let body = Arc::new(text.to_owned());
        parse(&body, 0..text.len(), &shared, &mut current, document::schema().1, "x1")
    }

    #[track_caller]
    fn refused(properties: serde_json::Value, text: &str, reason: &str) {
        let error = prepare(&json!({"properties": properties}), text).unwrap_err();
        assert_eq!(error.reason(), reason);
    }

    #[test]
    fn refusals_read_as_elasticsearch_writes_them() {
        refused(
            json!({"http": {"properties": {"response": {"properties": {"status_code": {"type": "long"}}}}}}),
            r#"{"http": {"response": {"status_code": "not a number"}}}"#,
            "[1:39] failed to parse field [http.response.status_code] of type [long] in document with id 'x1'. Preview of field's value: 'not a number'",
        );
        refused(
            json!({"message": {"type": "text"}}),
            r#"{"message": {"nested": "object"}}"#,
            "[1:32] failed to parse field [message] of type [text] in document with id 'x1'. Preview of field's value: '{nested=object}'",
        );
        refused(
            json!({"url": {"properties": {"path": {"type": "keyword"}}}}),
            r#"{"url": "was an object"}"#,
            "[1:9] object mapping for [url] tried to parse field [url] as object, but found a concrete value",
        );
    }

    #[test]
    fn an_odd_value_of_a_dynamic_field_stays_in_the_source() {
        let shared = SharedMapping::new(Mapping::default());
        let mut mapping = shared.get();
        for (text, values) in [(r#"{"n": 1}"#, 1), (r#"{"n": "many"}"#, 0), (r#"{"n": "7"}"#, 1)] {
            let body = Arc::new(text.to_owned());
            let prepared =
                parse(&body, 0..text.len(), &shared, &mut mapping, document::schema().1, "x")
                    .unwrap();
            assert_eq!(prepared.values.len(), values, "{text}");
        }
    }

    #[test]
    fn addresses_sort_as_numbers() {
        let key = |text: &str| ip_key(text.parse().unwrap());
        assert!(key("10.0.0.9") < key("10.0.0.10"));
        assert!(key("::1") < key("0.0.0.0") && key("255.255.255.255") < key("2001:db8::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_eq!(ip_of_key(&key("10.0.0.1")).unwrap().to_string(), "10.0.0.1");
        assert_eq!(ip_of_key(&key("2001:db8::1")).unwrap().to_string(), "2001:db8::1");
    }

    proptest! {
        #[test]
        fn no_document_panics(text in r#"(\{("[a-c.]{0,4}":([0-9.e-]{1,5}|"[\\a-z\PC]{0,6}"|\[1,"a"\]|\{"b":1\}|null|true),?){0,4}\}|\PC{0,20})"#) {
            let _ = prepare(&json!({}), &text);
        }
    }

    #[test]
    fn keys_that_are_not_mapped_leave_no_trace() {
        let read = |shared: &SharedMapping, text: String| {
            let mut current = shared.get();
            let body = Arc::new(text);
            parse(&body, 0..body.len(), shared, &mut current, document::schema().1, "x1").unwrap()
        };
        // Beyond the limit of fields, and where fields are not added.
        let full: String =
            (0..2 * crate::mapping::FIELDS_MAX).map(|n| format!("\"f{n}\":1,")).collect();
        let crowded = SharedMapping::new(Mapping::default());
        read(&crowded, format!("{{{full}\"o\":{{\"a\":1}}}}"));
        let closed = SharedMapping::new(
            Mapping::from_json(&json!({"dynamic": false, "properties": {"o": {"properties": {"n": {"type": "long"}}}}}))
                .unwrap(),
        );
        let strings = SharedMapping::new(Mapping::default());
        read(&strings, json!({"o": {"n": 1}}).to_string());
        for (shared, key) in [(&crowded, "k"), (&closed, "k"), (&strings, &"k".repeat(4096))] {
            let before = shared.get();
            for n in 0..50 {
                let fields = json!({
                    format!("{key}{n}"): "text", format!("o.{key}{n}.x"): 1, "o": {format!("{key}{n}"): {"deep": [1, 2]}},
                    format!("{key}{n}.a.b"): true,
                });
                let prepared = read(shared, fields.to_string());
                assert!(prepared.values.is_empty());
            }
            assert!(Arc::ptr_eq(&before, &shared.get()), "the mapping was changed by {key:.10}");
        }
    }
}
