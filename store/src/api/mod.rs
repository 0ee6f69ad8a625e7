//! Elasticsearch's REST API: from method and path to the file that answers.

mod alias;
pub(crate) mod bulk;
mod cat;
mod cluster;
mod document;
mod field_caps;
mod index;
mod query_ops;
mod search;
mod template;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, Uri};
use serde_json::{Value, json};

use crate::engine::{Engine, Options};
use crate::error::EsError;
use crate::http::Answer;
use crate::mapping::wildcard;

/// A request, taken apart.
#[derive(Debug)]
pub(crate) struct Call {
    pub method: Method,
    /// As it came, for messages.
    pub path: String,
    /// Its parts, percent-decoded.
    pub parts: Vec<String>,
    pub parameters: HashMap<String, String>,
    pub body: Bytes,
    pub wants_text: bool,
    pub wants_json: bool,
}

impl Call {
    pub(crate) fn new(method: &Method, uri: &Uri) -> Result<Self, EsError> {
        let decode = |text: &str| percent_decode(text, false);
        let parts = uri
            .path()
            .split('/')
            .filter(|part| !part.is_empty())
            .map(decode)
            .collect::<Result<_, _>>()?;
        let mut parameters = HashMap::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters.insert(percent_decode(key, true)?, percent_decode(value, true)?);
        }
        Ok(Self {
            method: method.clone(),
            path: uri.path().to_owned(),
            parts,
            parameters,
            body: Bytes::new(),
            wants_text: false,
            wants_json: false,
        })
    }

    /// The family of the call, for metrics and limits.
    pub(crate) fn api(&self) -> &'static str {
        let has = |name: &str| self.parts.iter().any(|part| part == name);
        if has("_bulk") {
            "bulk"
        } else if has("_search") || has("_msearch") || has("_count") {
            "search"
        } else if has("_doc") || has("_create") || has("_update") || has("_mget") {
            "document"
        } else if has("_cat") {
            "cat"
        } else {
            "other"
        }
    }

    pub(crate) fn is_pretty(&self) -> bool {
        self.flag("pretty")
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// `?x` and `?x=true`
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), Some("" | "true"))
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            ignores_unavailable: self.flag("ignore_unavailable"),
            refuses_none: self.parameter("allow_no_indices") == Some("false"),
            takes_closed: false,
        }
    }

    /// The body as JSON; `None` where it is empty.
    pub(crate) fn json(&self) -> Result<Option<Value>, EsError> {
        parse_json(&self.body)
    }

    /// The body, which must be there.
    pub(crate) fn required_json(&self) -> Result<Value, EsError> {
        self.json()?.ok_or_else(|| EsError::new(400, "parse_exception", "request body is required"))
    }
}

/// Parses a request's body.
///
/// # Errors
/// As Elasticsearch words a body that is not JSON.
pub(crate) fn parse_json(bytes: &[u8]) -> Result<Option<Value>, EsError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let not_utf8 = |_| EsError::new(400, "parse_exception", "request body is not UTF-8");
    let text = std::str::from_utf8(bytes).map_err(not_utf8)?;
    match serde_json::from_str(text) {
        Ok(value) => Ok(Some(value)),
        Err(_) => {
            let mut reader = crate::json::Reader::new(text);
            let error = reader.value().and_then(|token| reader.skip(token)).err();
            let Some(error) = error else {
                return Err(EsError::new(400, "parse_exception", "request body is not JSON"));
            };
            let (line, column) = reader.line_column(error.at);
            let shown: String = text.chars().take(500).collect();
            let message = format!(
                "{}\n at [Source: (byte[])\"{shown}\"; line: {line}, column: {column}]",
                error.text
            );
            let (outer, inner, reason) = if error.is_end {
                (
                    "x_content_e_o_f_exception",
                    "json_e_o_f_exception",
                    format!("[{line}:{column}] Unexpected end of file"),
                )
            } else {
                (
                    "x_content_parse_exception",
                    "json_parse_exception",
                    format!("[{line}:{column}] {message}"),
                )
            };
            Err(EsError::new(400, outer, reason).caused_by(EsError::new(400, inner, message)))
        }
    }
}

fn percent_decode(text: &str, plus_is_space: bool) -> Result<String, EsError> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digits =
                    bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                out.push(byte.ok_or_else(|| {
                    EsError::illegal_argument(format!("invalid percent encoding in [{text}]"))
                })?);
                at += 3;
                continue;
            }
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out)
        .map_err(|_| EsError::illegal_argument(format!("invalid UTF-8 in [{text}]")))
}

/// Answers a call.
pub(crate) fn answer(engine: &Arc<Engine>, mut call: Call) -> Answer {
    let filter = call.parameter("filter_path").map(str::to_owned);
    let is_filtered_already = call.api() == "bulk";
    // A bulk request's documents are slices of its body, which they keep: it is handed over, not copied.
    let body = if is_filtered_already { std::mem::take(&mut call.body) } else { Bytes::new() };
    let answer = route(engine, &call, body).unwrap_or_else(Answer::from);
    match filter {
        Some(filter) if !answer.is_text && !is_filtered_already => filtered(answer, &filter),
        _ => answer,
    }
}

fn filtered(mut answer: Answer, filter: &str) -> Answer {
    if let Ok(value) = serde_json::from_slice::<Value>(&answer.body) {
        answer.body = filter_path(value, filter).to_string().into_bytes();
    }
    answer
}

/// Keeps what the comma-separated paths name: `*` is one key, `**` any, `-` in front leaves out.
pub(crate) fn filter_path(value: Value, filter: &str) -> Value {
    let paths = |excluded: bool| -> Vec<Vec<&str>> {
        let chosen = filter
            .split(',')
            .map(str::trim)
            .filter(|path| !path.is_empty() && path.starts_with('-') == excluded);
        chosen.map(|path| path.trim_start_matches('-').split('.').collect()).collect()
    };
    let (included, excluded) = (paths(false), paths(true));
    let mut value = value;
    if !included.is_empty() {
        let paths: Vec<&[&str]> = included.iter().map(Vec::as_slice).collect();
        value = keep(value, &paths).unwrap_or_else(|| json!({}));
    }
    if !excluded.is_empty() {
        let paths: Vec<&[&str]> = excluded.iter().map(Vec::as_slice).collect();
        value = leave_out(value, &paths).unwrap_or_else(|| json!({}));
    }
    value
}

/// The rests of the paths after a key; a path that ends here is an empty rest.
fn advance<'p>(paths: &[&'p [&'p str]], key: &str) -> Vec<&'p [&'p str]> {
    let mut rests = Vec::new();
    for path in paths {
        match path {
            ["**"] => rests.push(&path[1..]),
            ["**", rest @ ..] => {
                rests.push(*path);
                if wildcard(rest[0], key) {
                    rests.push(&rest[1..]);
                }
            }
            [first, rest @ ..] if wildcard(first, key) => rests.push(rest),
            _ => {}
        }
    }
    rests
}

fn keep(value: Value, paths: &[&[&str]]) -> Option<Value> {
    match value {
        Value::Object(map) => {
            let mut kept = serde_json::Map::new();
            for (key, value) in map {
                let rests = advance(paths, &key);
                if rests.iter().any(|rest| rest.is_empty()) {
                    kept.insert(key, value);
                } else if !rests.is_empty()
                    && let Some(value) = keep(value, &rests)
                {
                    kept.insert(key, value);
                }
            }
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(list) => {
            let kept: Vec<Value> =
                list.into_iter().filter_map(|value| keep(value, paths)).collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        _ => None,
    }
}

fn leave_out(value: Value, paths: &[&[&str]]) -> Option<Value> {
    match value {
        Value::Object(map) => {
            let mut kept = serde_json::Map::new();
            for (key, value) in map {
                let rests = advance(paths, &key);
                if rests.iter().any(|rest| rest.is_empty()) {
                    continue;
                }
                let value = if rests.is_empty() { Some(value) } else { leave_out(value, &rests) };
                if let Some(value) = value {
                    kept.insert(key, value);
                }
            }
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(list) => {
            let kept: Vec<Value> =
                list.into_iter().filter_map(|value| leave_out(value, paths)).collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        other => Some(other),
    }
}

fn route(engine: &Arc<Engine>, call: &Call, body: Bytes) -> Result<Answer, EsError> {
    let parts: Vec<&str> = call.parts.iter().map(String::as_str).collect();
    let (get, post, put, head, delete) = (
        call.method == Method::GET,
        call.method == Method::POST,
        call.method == Method::PUT,
        call.method == Method::HEAD,
        call.method == Method::DELETE,
    );
    let read = get || head;
    let write = post || put;
    let ask = get || post;
    match parts.as_slice() {
        [] if read => cluster::root(engine),
        ["_bulk"] if write => bulk::bulk(engine, call, body, None),
        [index, "_bulk"] if write => bulk::bulk(engine, call, body, Some(index)),
        ["_search", "scroll"] if ask => search::scroll_next(engine, call, None),
        ["_search", "scroll", id] if ask => search::scroll_next(engine, call, Some(id)),
        ["_search", "scroll"] if delete => search::scroll_clear(engine, call, None),
        ["_search", "scroll", id] if delete => search::scroll_clear(engine, call, Some(id)),
        ["_search"] if ask => search::search(engine, call, ""),
        [index, "_search"] if ask => search::search(engine, call, index),
        ["_msearch"] if ask => search::msearch(engine, call, ""),
        [index, "_msearch"] if ask => search::msearch(engine, call, index),
        ["_count"] if ask => search::count(engine, call, ""),
        [index, "_count"] if ask => search::count(engine, call, index),
        [index, "_pit"] if post => search::pit_open(engine, call, index),
        ["_pit"] if delete => search::pit_close(engine, call),
        ["_validate", "query"] if ask => search::validate(engine, call, ""),
        [index, "_validate", "query"] if ask => search::validate(engine, call, index),
        ["_analyze"] if ask => search::analyze(call),
        [_, "_analyze"] if ask => search::analyze(call),
        [index, "_delete_by_query"] if post => query_ops::delete_by_query(engine, call, index),
        [index, "_update_by_query"] if post => query_ops::update_by_query(engine, call, index),
        ["_field_caps"] if ask => field_caps::field_caps(engine, call, ""),
        [index, "_field_caps"] if ask => field_caps::field_caps(engine, call, index),
        ["_mget"] if ask => document::mget(engine, call, None),
        [index, "_mget"] if ask => document::mget(engine, call, Some(index)),
        [index, "_doc"] if post => document::put(engine, call, index, None, false),
        [index, "_doc", id] if write => document::put(
            engine,
            call,
            index,
            Some(id),
            call.parameter("op_type") == Some("create"),
        ),
        [index, "_create", id] if write => document::put(engine, call, index, Some(id), true),
        [index, "_doc", id] if read => document::get(engine, call, index, id),
        [index, "_source", id] if read => document::source(engine, call, index, id),
        [index, "_doc", id] if delete => document::delete(engine, call, index, id),
        [index, "_update", id] if post => document::update(engine, call, index, id),
        ["_cat", what, rest @ ..] if get => cat::cat(engine, call, what, rest.first().copied()),
        ["_cluster", "health"] if get => cluster::health(engine, call, ""),
        ["_cluster", "health", index] if get => cluster::health(engine, call, index),
        ["_cluster", "settings"] if get || put => cluster::settings(engine, call),
        ["_cluster", "stats"] if get => cluster::stats(engine),
        ["_license"] if get => cluster::license(engine),
        ["_xpack"] if get => cluster::xpack(),
        ["_nodes", rest @ ..] if get => cluster::nodes(engine, rest),
        ["_index_template", "_simulate_index", name] if post => template::simulate(engine, name),
        ["_index_template" | "_component_template" | "_template", rest @ ..] => {
            template::templates(engine, call, parts[0], rest)
        }
        ["_ingest", "pipeline", rest @ ..] if !post => template::pipelines(engine, call, rest),
        ["_ilm", "policy", rest @ ..] if !post => template::policies(engine, call, rest),
        ["_alias" | "_aliases", rest @ ..] if read => {
            alias::get(engine, call, "", rest.first().copied())
        }
        ["_aliases"] if post => alias::update(engine, call),
        [index, "_alias" | "_aliases", rest @ ..] if read => {
            alias::get(engine, call, index, rest.first().copied())
        }
        [index, "_alias" | "_aliases", name] if write => alias::put(engine, call, index, name),
        [index, "_alias" | "_aliases", name] if delete => alias::delete(engine, index, name),
        ["_resolve", "index", name] if get => alias::resolve(engine, call, name),
        [alias, "_rollover"] if post => alias::rollover(engine, call, alias, None),
        [alias, "_rollover", name] if post => alias::rollover(engine, call, alias, Some(name)),
        ["_mapping" | "_mappings"] if get => index::mapping(engine, call, ""),
        [name, "_mapping" | "_mappings"] if get => index::mapping(engine, call, name),
        [name, "_mapping" | "_mappings"] if write => index::put_mapping(engine, call, name),
        ["_mapping", "field", field] if get => index::field_mapping(engine, call, "", field),
        [name, "_mapping", "field", field] if get => {
            index::field_mapping(engine, call, name, field)
        }
        ["_settings"] if get => index::settings(engine, call, ""),
        [name, "_settings", ..] if get => index::settings(engine, call, name),
        [name, "_settings"] if put => index::put_settings(engine, call, name),
        ["_stats", ..] if get => index::stats(engine, call, ""),
        [name, "_stats", ..] if get => index::stats(engine, call, name),
        ["_refresh" | "_flush"] if ask => index::refresh(engine, call, ""),
        [name, "_refresh" | "_flush"] if ask => index::refresh(engine, call, name),
        ["_forcemerge"] if post => index::force_merge(engine, call, ""),
        [name, "_forcemerge"] if post => index::force_merge(engine, call, name),
        [name, action @ ("_close" | "_open")] if post => {
            index::open_or_close(engine, name, *action == "_close")
        }
        [name] if !name.starts_with('_') || *name == "_all" => match () {
            () if get => index::get(engine, call, name),
            () if head => index::head(engine, call, name),
            () if put => index::create(engine, call, name),
            () if delete => index::delete(engine, call, name),
            () => Err(wrong_method(call, &["DELETE", "GET", "HEAD", "PUT"])),
        },
        [name] if get => {
            Err(crate::engine::check_name(name).err().unwrap_or_else(|| no_handler(call)))
        }
        // What an Elasticsearch without these modules says: the path looks like /INDEX/_doc without one.
        ["_data_stream" | "_security", ..] if !post => Err(wrong_method(call, &["POST"])),
        [_, "_search" | "_count" | "_msearch"] => Err(wrong_method(call, &["GET", "POST"])),
        [_, "_bulk"] | ["_bulk"] => Err(wrong_method(call, &["POST", "PUT"])),
        _ => Err(no_handler(call)),
    }
}

fn no_handler(call: &Call) -> EsError {
    EsError::text(
        400,
        format!("no handler found for uri [{}] and method [{}]", call.path, call.method),
        false,
    )
}

fn wrong_method(call: &Call, allowed: &[&str]) -> EsError {
    let allowed = allowed.join(", ");
    let text = format!(
        "Incorrect HTTP method for uri [{}] and method [{}], allowed: [{allowed}]",
        call.path, call.method
    );
    let mut error = EsError::text(405, text, true);
    error.allow = Some(allowed.replace(", ", ","));
    error
}

/// `{"acknowledged": true}`
pub(crate) fn acknowledged() -> Answer {
    Answer::json(200, &json!({"acknowledged": true}))
}

#[cfg(test)]
mod tests;
