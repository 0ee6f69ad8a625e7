//! Takes a text apart at its delimiters: `%{ts} %{+ts} %{host} %{prog}[%{?pid}]: %{msg}`.
//!
//! Fields: `%{name}`, `%{}` and `%{?name}` skipped, `%{+name}` and `%{+name/2}` appended with the
//! delimiter before it, `%{&name}` under the name found by `%{?name}`, `%{name->}` with repeated
//! delimiters after it.

use memchr::memmem;

use super::{Context, Filter, Verdict, tag_all};
use crate::{
    config::{Located, Options},
    event::{Datum, Event, FieldRef, Span},
};

#[derive(Debug)]
pub(crate) struct Dissect {
    mappings: Vec<(FieldRef, Dissection)>,
    conversions: Vec<(FieldRef, Conversion)>,
    tags_on_failure: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Conversion {
    Int,
    Float,
}

/// A compiled pattern: fields in order, each with the delimiter before and after it.
#[derive(Debug)]
struct Dissection {
    fields: Vec<Field>,
    /// The text before the first field.
    start: Box<str>,
    /// Indices of the fields to set, appended ones last and in their order.
    order: Vec<usize>,
}

#[derive(Debug)]
struct Field {
    kind: Kind,
    /// Empty for the last.
    after: Box<str>,
    finder: Option<memmem::Finder<'static>>,
    /// `->`: the delimiter after it may repeat.
    is_padded: bool,
}

#[derive(Debug)]
enum Kind {
    Skip,
    /// Kept under a name for `%{&name}`.
    Named(Box<str>),
    Normal(FieldRef),
    Append {
        field: FieldRef,
        order: Option<u32>,
        before: Box<str>,
    },
    /// The index of the field that holds the name, or a field of the event.
    Indirect(Result<usize, FieldRef>),
}

impl Dissect {
    pub(crate) fn read(options: &mut Options<'_>) -> Option<Self> {
        let mut mappings = Vec::new();
        for (source, setting) in options.hash("mapping") {
            let Some(source) = options.field_of(&source) else { continue };
            for text in options.texts_of("mapping", &setting) {
                match Dissection::compile(options, &text) {
                    Ok(dissection) => mappings.push((source.clone(), dissection)),
                    Err(reason) => options.mistake(&text.place, reason),
                }
            }
        }
        let mut conversions = Vec::new();
        for (field, setting) in options.hash("convert_datatype") {
            let Some(field) = options.field_of(&field) else { continue };
            match setting.as_text() {
                Some("int") => conversions.push((field, Conversion::Int)),
                Some("float") => conversions.push((field, Conversion::Float)),
                _ => options.mistake(&setting.place, "convert_datatype knows int and float"),
            }
        }
        let tags = options.list("tag_on_failure");
        let tags_on_failure = if options.has("tag_on_failure") {
            tags.into_iter().map(|tag| tag.value).collect()
        } else {
            vec!["_dissectfailure".to_owned()]
        };
        Some(Self { mappings, conversions, tags_on_failure })
    }

    fn convert(event: &mut Event, field: &FieldRef, conversion: Conversion) -> bool {
        let Some(id) = event.find(field) else { return true };
        let span = event.span_of_text(id);
        let text = event.str_at(span).trim();
        let Ok(number) = text.parse::<f64>() else { return false };
        event.nodes[id as usize].datum = match conversion {
            Conversion::Int => match text.parse() {
                Ok(int) => Datum::Int(int),
                Err(_) => Datum::Int(number as i64),
            },
            Conversion::Float => Datum::Float(number),
        };
        true
    }
}

impl Filter for Dissect {
    fn apply(&self, event: &mut Event, _context: &mut Context) -> Verdict {
        let mut is_matched = true;
        for (source, dissection) in &self.mappings {
            // A missing field is passed over, as by Logstash, and counts as no failure.
            let Some(id) = event.find(source) else { continue };
            let is_dissected = match event.datum(id) {
                Datum::Text(span) if !span.is_empty() => dissection.apply(event, span),
                _ => false,
            };
            if !is_dissected {
                is_matched = false;
                tag_all(event, &self.tags_on_failure);
            }
        }
        for (field, conversion) in &self.conversions {
            if !Self::convert(event, field, *conversion) {
                is_matched = false;
                event.tag(&format!(
                    "_dataconversionuncoercible_{field}_{}",
                    match conversion {
                        Conversion::Int => "int",
                        Conversion::Float => "float",
                    }
                ));
            }
        }
        if is_matched { Verdict::Matched } else { Verdict::Unmatched }
    }
}

impl Dissection {
    fn compile(options: &mut Options<'_>, text: &Located<String>) -> Result<Self, String> {
        let pattern = text.value.as_str();
        let mut fields: Vec<Field> = Vec::new();
        let (mut rest, mut start) = (pattern, None::<&str>);
        let mut before = "";
        while let Some(open) = rest.find("%{") {
            let delimiter = &rest[..open];
            let Some(close) = rest[open..].find('}') else {
                return Err(format!("\"{pattern}\" has a %{{ that is never closed"));
            };
            match fields.last_mut() {
                None => start = Some(delimiter),
                Some(_) if delimiter.is_empty() => {
                    return Err(format!(
                        "\"{pattern}\" has two fields without a delimiter between them"
                    ));
                }
                Some(last) => last.end_with(delimiter),
            }
            if start.is_some() && !fields.is_empty() {
                before = delimiter;
            }
            let field =
                Field::compile(options, text, &rest[open + 2..open + close], before, &fields)?;
            fields.push(field);
            rest = &rest[open + close + 1..];
        }
        if fields.is_empty() {
            return Err(format!("\"{pattern}\" has no %{{field}}"));
        }
        if !rest.is_empty() {
            // What must follow the last field ends it; whatever comes after is not looked at.
            if let Some(last) = fields.last_mut() {
                last.end_with(rest);
            }
            fields.push(Field {
                kind: Kind::Skip,
                after: "".into(),
                finder: None,
                is_padded: false,
            });
        }
        let mut order: Vec<usize> = (0..fields.len())
            .filter(|i| !matches!(fields[*i].kind, Kind::Skip | Kind::Named(_)))
            .collect();
        order.sort_by_key(|i| match &fields[*i].kind {
            Kind::Append { order, .. } => (1, order.unwrap_or(u32::MAX)),
            Kind::Indirect(_) => (2, 0),
            _ => (0, 0),
        });
        Ok(Self { fields, start: start.unwrap_or_default().into(), order })
    }

    fn apply(&self, event: &mut Event, source: Span) -> bool {
        let text = event.str_at(source);
        if !text.starts_with(&*self.start) {
            return false;
        }
        let mut at = self.start.len();
        let mut spans = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            let Some(finder) = &field.finder else {
                spans.push(source.part(at, text.len()));
                break;
            };
            let Some(found) = finder.find(&text.as_bytes()[at..]) else { return false };
            spans.push(source.part(at, at + found));
            at += found + field.after.len();
            while field.is_padded && text[at..].starts_with(&*field.after) {
                at += field.after.len();
            }
        }
        for i in &self.order {
            if !self.set(event, *i, &spans) {
                return false;
            }
        }
        true
    }

    fn set(&self, event: &mut Event, i: usize, spans: &[Span]) -> bool {
        let value = spans[i];
        match &self.fields[i].kind {
            Kind::Skip | Kind::Named(_) => true,
            Kind::Normal(field) => event.set(field, Datum::Text(value)).is_ok(),
            Kind::Append { field, before, .. } => {
                let held = event.find(field).map(|id| event.span_of_text(id));
                let text = match held {
                    None => value,
                    Some(held) => {
                        let before = if before.is_empty() { " " } else { before };
                        let joined = [event.str_at(held), before, event.str_at(value)].concat();
                        event.push_text(&joined)
                    }
                };
                event.set(field, Datum::Text(text)).is_ok()
            }
            Kind::Indirect(name) => {
                let name = match name {
                    Ok(named) => spans[*named],
                    Err(field) => match event.find(field) {
                        Some(id) => event.span_of_text(id),
                        None => return true,
                    },
                };
                // A name found in the text may be anything; only one in brackets is a path.
                let name = event.str_at(name);
                let field = FieldRef::parse(name).unwrap_or_else(|_| FieldRef::top(name));
                name.is_empty() || event.set(&field, Datum::Text(value)).is_ok()
            }
        }
    }
}

impl Field {
    fn end_with(&mut self, delimiter: &str) {
        self.after = delimiter.into();
        self.finder = Some(memmem::Finder::new(delimiter).into_owned());
    }

    fn compile(
        options: &mut Options<'_>,
        text: &Located<String>,
        name: &str,
        before: &str,
        fields: &[Field],
    ) -> Result<Self, String> {
        let (name, is_padded) = match name.strip_suffix("->") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let mut reference = |name: &str| {
            let located = Located { value: name.to_owned(), place: text.place.clone() };
            options.field_of(&located).unwrap_or_else(|| FieldRef::top(name))
        };
        let kind = if name.is_empty() {
            Kind::Skip
        } else if let Some(name) = name.strip_prefix('?') {
            Kind::Named(name.into())
        } else if let Some(name) = name.strip_prefix('+') {
            let (name, order) = match name.rsplit_once('/') {
                Some((name, order)) => {
                    let order = order
                        .parse()
                        .map_err(|_| format!("%{{+{name}/{order}}}: the order is no number"))?;
                    (name, Some(order))
                }
                None => (name, None),
            };
            Kind::Append { field: reference(name), order, before: before.into() }
        } else if let Some(name) = name.strip_prefix('&') {
            let named = fields
                .iter()
                .position(|field| matches!(&field.kind, Kind::Named(held) if **held == *name));
            Kind::Indirect(named.ok_or_else(|| reference(name)))
        } else {
            Kind::Normal(reference(name))
        };
        Ok(Self { kind, after: "".into(), finder: None, is_padded })
    }
}

#[cfg(test)]
mod tests {
    use crate::filter::testing::{check, refused};

    fn one(mapping: &str, message: &str, wanted: &str) {
        let json = serde_json::json!({ "m": message }).to_string();
        check(
            &format!("dissect {{ mapping => {{ m => '{mapping}' }} remove_field => m }}"),
            &json,
            wanted,
        );
    }

    #[test]
    fn delimiters_take_a_text_apart() {
        one("%{a} %{b}", "x y z", r#"{"a":"x","b":"y z"}"#);
        one("[%{a}]: %{[o][b]}", "[x]: y", r#"{"a":"x","o":{"b":"y"}}"#);
        one("%{a},%{b},%{c}", "1,,3", r#"{"a":"1","b":"","c":"3"}"#);
        one("%{a->} %{b}", "1    3", r#"{"a":"1","b":"3"}"#);
        one("%{a} %{} %{?skip} %{b}", "1 2 3 4", r#"{"a":"1","b":"4"}"#);
        one("%{ts} %{+ts} %{+ts} %{h}", "Nov 23 10:00 host", r#"{"ts":"Nov 23 10:00","h":"host"}"#);
        one("%{+a/2} %{+a/1} %{+a/4} %{+a/3}", "1 2 3 go", r#"{"a":"2 1 go 3"}"#);
        one("%{a}/%{+a}-%{+a}", "1/2-3", r#"{"a":"1/2-3"}"#);
        one("%{?k}: %{&k}", "google: 77.98", r#"{"google":"77.98"}"#);
        one("%{a}|%{b};", "1|2;rest", r#"{"a":"1","b":"2"}"#);
        one("é%{a}ü%{b}", "é1ü2", r#"{"a":"1","b":"2"}"#);
        one("%{a}", "all of it", r#"{"a":"all of it"}"#);
    }

    #[test]
    fn a_text_of_another_shape_is_tagged_and_left() {
        for (mapping, message) in
            [("%{a}: %{b}", "no colon"), ("[%{a}]", "x]"), ("%{a} %{b};", "1 2")]
        {
            let json = serde_json::json!({ "m": message }).to_string();
            check(
                &format!("dissect {{ mapping => {{ m => '{mapping}' }} add_tag => ok }}"),
                &json,
                &serde_json::json!({ "m": message, "tags": ["_dissectfailure"] }).to_string(),
            );
        }
        check(
            "dissect { mapping => { m => '%{a}' } }",
            r#"{"m":5}"#,
            r#"{"m":5,"tags":["_dissectfailure"]}"#,
        );
        check("dissect { mapping => { nope => '%{a}' } }", r#"{"m":5}"#, r#"{"m":5}"#);
    }

    #[test]
    fn values_are_converted() {
        check(
            "dissect { mapping => { m => '%{a} %{b} %{c}' } convert_datatype => { a => int b => float c => int } remove_field => m }",
            r#"{"m":"12 1.5 2.9"}"#,
            r#"{"a":12,"b":1.5,"c":2}"#,
        );
        check(
            "dissect { convert_datatype => { a => int } }",
            r#"{"a":"x"}"#,
            r#"{"a":"x","tags":["_dataconversionuncoercible_a_int"]}"#,
        );
    }

    #[test]
    fn mistakes_are_told() {
        assert_eq!(
            refused("dissect { mapping => { m => '%{a}%{b}' } }"),
            "1:38: \"%{a}%{b}\" has two fields without a delimiter between them"
        );
        assert_eq!(
            refused("dissect { mapping => { m => 'x %{a' } }"),
            "1:38: \"x %{a\" has a %{ that is never closed"
        );
        assert_eq!(refused("dissect { mapping => { m => 'x' } }"), "1:38: \"x\" has no %{field}");
    }
}
