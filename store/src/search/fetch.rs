//! From a hit to its JSON: `_source` filtered or as it came, `fields`, highlights, sort values.

use std::fmt::Write;

use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use tantivy::schema::document::Value as _;
use tantivy::{DocAddress, TantivyDocument};

use crate::dates;
use crate::error::EsError;
use crate::index::document;
use crate::mapping::{Kind, Mapping, Resolved, wildcard};
use crate::search::dsl::text_of;
use crate::search::request::{FieldSpec, Request, SourceFilter};
use crate::search::sort::Candidate;
use crate::search::{View, highlight};

/// A document as it was stored.
#[derive(Debug)]
pub struct Stored {
    pub id: String,
    /// JSON as it came.
    pub source: String,
}

/// Reads a document from the store.
pub fn load(view: &View, address: DocAddress) -> Result<Stored, EsError> {
    let fields = view.index.fields;
    let document: TantivyDocument = view.searcher.doc(address)?;
    let id = document
        .get_first(fields.id)
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default();
    let source = document
        .get_first(fields.source)
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default();
    Ok(Stored { id, source })
}

/// Writes one hit.
pub fn render(
    view: &View,
    candidate: &Candidate,
    sort: &[Value],
    request: &Request,
    _now_ms: i64,
) -> Result<String, EsError> {
    let stored = load(view, DocAddress::new(candidate.segment, candidate.doc))?;
    let mut out = String::with_capacity(stored.source.len() + 200);
    let _ = write!(
        out,
        "{{\"_index\":{},\"_id\":{}",
        Value::from(view.index.name.as_str()),
        Value::from(stored.id.as_str())
    );
    if request.shows_version {
        let segment = view.searcher.segment_reader(candidate.segment);
        let version = segment.fast_fields().column_opt::<u64>(document::VERSION)?;
        let version = version.and_then(|column| column.first(candidate.doc)).unwrap_or(1);
        let _ = write!(out, ",\"_version\":{version}");
    }
    if request.shows_seq_no {
        let _ = write!(out, ",\"_seq_no\":{},\"_primary_term\":1", candidate.seq_no);
    }
    if request.is_by_score() || request.tracks_scores {
        let score = serde_json::Number::from_f64(f64::from(candidate.score))
            .map_or(Value::Null, Value::Number);
        let _ = write!(out, ",\"_score\":{score}");
    } else {
        out.push_str(",\"_score\":null");
    }
    if request.source.is_whole() {
        let _ = write!(out, ",\"_source\":{}", stored.source);
    } else if !request.source.is_off {
        let _ = write!(out, ",\"_source\":{}", filter_source(&parse(&stored), &request.source));
    }
    if !request.fields.is_empty() || !request.docvalue_fields.is_empty() {
        let fields =
            show_fields(&view.mapping, &parse(&stored), &request.fields, &request.docvalue_fields);
        if !fields.is_empty() {
            let _ = write!(out, ",\"fields\":{}", Value::Object(fields));
        }
    }
    if let Some(highlight) = &request.highlight {
        let marked =
            highlight::highlight(&view.mapping, &parse(&stored), &request.query, highlight);
        if !marked.is_empty() {
            let _ = write!(out, ",\"highlight\":{}", Value::Object(marked));
        }
    }
    if !sort.is_empty() {
        let _ = write!(out, ",\"sort\":{}", Value::Array(sort.to_vec()));
    }
    out.push('}');
    Ok(out)
}

fn parse(stored: &Stored) -> Value {
    serde_json::from_str(&stored.source).unwrap_or(Value::Null)
}

/// The parts of a document that a filter lets through.
pub fn filter_source(source: &Value, filter: &SourceFilter) -> Value {
    fn walk(value: &Value, path: &str, filter: &SourceFilter, is_included: bool) -> Option<Value> {
        match value {
            Value::Object(map) => {
                let mut kept = Map::new();
                for (key, value) in map {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    if filter.excludes.iter().any(|pattern| wildcard(pattern, &path)) {
                        continue;
                    }
                    let is_included = is_included
                        || filter.includes.iter().any(|pattern| wildcard(pattern, &path));
                    // Something below may be asked for.
                    let may_hold = is_included
                        || filter.includes.iter().any(|pattern| {
                            pattern.starts_with(&format!("{path}.")) || pattern.contains('*')
                        });
                    if !may_hold {
                        continue;
                    }
                    match value {
                        Value::Object(_) | Value::Array(_) => {
                            if let Some(value) = walk(value, &path, filter, is_included) {
                                kept.insert(key.clone(), value);
                            }
                        }
                        value if is_included => {
                            kept.insert(key.clone(), value.clone());
                        }
                        _ => {}
                    }
                }
                (!kept.is_empty() || (map.is_empty() && is_included)).then_some(Value::Object(kept))
            }
            Value::Array(list) => {
                let kept: Vec<Value> = list
                    .iter()
                    .filter_map(|value| walk(value, path, filter, is_included))
                    .collect();
                (!kept.is_empty() || (list.is_empty() && is_included)).then_some(Value::Array(kept))
            }
            value => is_included.then(|| value.clone()),
        }
    }
    walk(source, "", filter, filter.includes.is_empty())
        .unwrap_or_else(|| Value::Object(Map::new()))
}

/// Every leaf of a document with its dotted path, in order.
pub fn leaves(source: &Value) -> Vec<(String, Value)> {
    fn walk(value: &Value, path: &str, out: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(value, &path, out);
                }
            }
            Value::Array(list) => list.iter().for_each(|value| walk(value, path, out)),
            Value::Null => {}
            value => out.push((path.to_owned(), value.clone())),
        }
    }
    let mut out = Vec::new();
    walk(source, "", &mut out);
    out
}

fn show_fields(
    mapping: &Mapping,
    source: &Value,
    fields: &[FieldSpec],
    docvalues: &[FieldSpec],
) -> Map<String, Value> {
    let leaves = leaves(source);
    let mut shown: Map<String, Value> = Map::new();
    let mut put =
        |path: &str, resolved: Option<Resolved<'_>>, format: Option<&str>, is_docvalue: bool| {
            let origin = resolved.map_or(path, |resolved| resolved.path);
            let mut values: Vec<Value> = leaves
                .iter()
                .filter(|(leaf, _)| leaf == origin)
                .filter_map(|(_, value)| show_value(value, resolved, format))
                .collect();
            if is_docvalue {
                values.sort_by_key(text_of);
            }
            if !values.is_empty() {
                shown.insert(path.to_owned(), Value::Array(values));
            }
        };
    let all = mapping.all();
    for (specs, is_docvalue) in [(fields, false), (docvalues, true)] {
        for spec in specs {
            for (path, resolved) in &all {
                if wildcard(&spec.pattern, path) && (!is_docvalue || resolved.is_aggregatable()) {
                    put(path, Some(*resolved), spec.format.as_deref(), is_docvalue);
                }
            }
        }
    }
    shown
}

fn show_value(
    value: &Value,
    resolved: Option<Resolved<'_>>,
    format: Option<&str>,
) -> Option<Value> {
    let Some(resolved) = resolved else { return Some(value.clone()) };
    let text = text_of(value);
    Some(match resolved.kind {
        Kind::Date => {
            let (ms, _) = dates::parse(&text, resolved.format, &TimeZone::UTC)?;
            dates::format(ms, format.unwrap_or(resolved.format), &TimeZone::UTC).into()
        }
        Kind::Integer => match text.parse::<i64>() {
            Ok(number) => number.into(),
            Err(_) => (text.parse::<f64>().ok()? as i64).into(),
        },
        Kind::Float => serde_json::Number::from_f64(text.parse().ok()?).map(Value::Number)?,
        Kind::Boolean => (text == "true").into(),
        Kind::Keyword if text.chars().count() > resolved.ignore_above as usize => return None,
        Kind::Keyword | Kind::Text => text.into(),
        Kind::Ip => text.parse::<std::net::IpAddr>().ok()?.to_string().into(),
        Kind::Opaque => value.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::search::request::parse_source;

    #[test]
    fn source_filters_keep_and_leave_out() {
        let source = json!({"http": {"request": {"method": "GET"}, "response": {"bytes": 1, "code": 200}}, "tags": ["a"], "x": 1});
        let check = |filter: Value, expected: Value| {
            assert_eq!(filter_source(&source, &parse_source(&filter)), expected, "{filter}")
        };
        check(
            json!({"includes": ["http.*", "tags"], "excludes": ["*.bytes"]}),
            json!({"http": {"request": {"method": "GET"}, "response": {"code": 200}}, "tags": ["a"]}),
        );
        check(json!("http.response.code"), json!({"http": {"response": {"code": 200}}}));
        check(json!(["http"]), json!({"http": source["http"]}));
        check(json!("none"), json!({}));
        check(json!({"excludes": ["http"]}), json!({"tags": ["a"], "x": 1}));
    }
}
