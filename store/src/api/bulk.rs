//! `_bulk`: index, create, update, delete, each item with its own verdict.
//!
//! Answered when everything accepted is on disk and searchable, so `refresh` only changes what
//! the answer says. Honoured: `refresh`, `filter_path`, `pipeline` (an unknown one fails the item; a
//! known one is not run), `require_alias`. Ignored: `routing`, `timeout`, `wait_for_active_shards`.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::api::{Call, filter_path};
use crate::engine::{Engine, Target};
use crate::error::EsError;
use crate::http::Answer;
use crate::index::{Op, OpResult, Outcome, parse};
use crate::json::{Reader, Token};
use crate::metrics;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Create,
    Index,
    Update,
    Delete,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Index => "index",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

struct Item {
    action: Action,
    index: Arc<str>,
    id: Option<Box<str>>,
    /// The document's line within the body.
    source: std::ops::Range<usize>,
    requires_alias: bool,
    pipeline: Option<String>,
    /// The concrete index, known when it was written to.
    concrete: Option<Arc<str>>,
    shards: u32,
    verdict: Option<Result<Verdict, EsError>>,
}

struct Verdict {
    result: &'static str,
    status: u16,
    version: u64,
    seq_no: u64,
}

pub(super) fn bulk(
    engine: &Arc<Engine>,
    call: &Call,
    body: Bytes,
    default_index: Option<&str>,
) -> Result<Answer, EsError> {
    let started = Instant::now();
    if body.is_empty() {
        return Err(EsError::new(400, "parse_exception", "request body is required"));
    }
    // Validated once, so that every slice of it is text without further looking.
    let body = String::from_utf8(body.into()).map_err(|error| {
        EsError::new(
            400,
            "parse_exception",
            format!("Invalid UTF-8 at byte {}", error.utf8_error().valid_up_to()),
        )
    })?;
    let body = Arc::new(body);
    let mut items = read_items(&body, default_index, call)?;
    if items.is_empty() {
        return Err(EsError::new(400, "parse_exception", "request body is required"));
    }
    let mut groups: Vec<(Arc<str>, Vec<usize>)> = Vec::new();
    let mut by_name: HashMap<Arc<str>, usize> = HashMap::new();
    for (i, item) in items.iter_mut().enumerate() {
        if let Some(pipeline) = item.pipeline.as_deref()
            && pipeline != "_none"
            && !engine.cluster().pipelines.contains_key(pipeline)
        {
            item.verdict = Some(Err(EsError::illegal_argument(format!(
                "pipeline with id [{pipeline}] does not exist"
            ))));
            continue;
        }
        let group = *by_name.entry(item.index.clone()).or_insert_with(|| {
            groups.push((item.index.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push(i);
    }
    for (_, members) in &groups {
        write_group(engine, &body, &mut items, members);
    }
    engine.merge();
    if engine.has_too_many_writers() {
        engine.trim(std::time::Duration::MAX);
    }
    Ok(respond(call, &items, started))
}

/// Where the documents of a body stand in it.
pub(crate) fn sources(
    body: &Arc<String>,
    call: &Call,
) -> Result<Vec<std::ops::Range<usize>>, EsError> {
    Ok(read_items(body, Some("logs"), call)?.into_iter().map(|item| item.source).collect())
}

/// Items of one request; each takes some hundred bytes besides its document, and more if it fails.
const ITEMS_MAX: usize = 100_000;

/// Takes the body apart into its items.
fn read_items(
    body: &Arc<String>,
    default_index: Option<&str>,
    call: &Call,
) -> Result<Vec<Item>, EsError> {
    if !body.ends_with('\n') {
        return Err(EsError::illegal_argument(
            "The bulk request must be terminated by a newline [\\n]",
        ));
    }
    let default_index: Option<Arc<str>> = default_index.map(Arc::from);
    let (mut items, mut at, mut line_number) = (Vec::new(), 0, 0);
    let bytes = body.as_bytes();
    let mut next_line = || -> Option<std::ops::Range<usize>> {
        let end = at + memchr::memchr(b'\n', &bytes[at..])?;
        let line = at..end - usize::from(end > at && bytes[end - 1] == b'\r');
        at = end + 1;
        line_number += 1;
        Some(line)
    };
    let mut previous: Option<Arc<str>> = None;
    let mut missing = Vec::new();
    let mut line_at = 0;
    while let Some(line) = next_line() {
        line_at += 1;
        if line.is_empty() {
            continue;
        }
        if items.len() >= ITEMS_MAX {
            metrics::REJECTED.with_label_values(&["items"]).inc();
            let reason = format!("more than [{ITEMS_MAX}] items in one _bulk");
            return Err(EsError::new(413, "illegal_argument_exception", reason));
        }
        let mut item = read_action(&body[line], line_at, &mut previous)?;
        if item.index.is_empty() {
            match &default_index {
                Some(index) => item.index = index.clone(),
                None => missing.push(items.len() + 1),
            }
        }
        item.requires_alias |= call.flag("require_alias");
        if item.pipeline.is_none() {
            item.pipeline = call.parameter("pipeline").map(str::to_owned);
        }
        if item.action != Action::Delete {
            let Some(source) = next_line() else {
                return Err(EsError::illegal_argument(
                    "The bulk request must be terminated by a newline [\\n]",
                ));
            };
            line_at += 1;
            item.source = source;
        }
        items.push(item);
    }
    if missing.is_empty() {
        Ok(items)
    } else {
        let mut reason = "Validation Failed: ".to_owned();
        for (i, _) in missing.iter().enumerate() {
            let _ = write!(reason, "{}: index is missing;", i + 1);
        }
        Err(EsError::new(400, "action_request_validation_exception", reason))
    }
}

fn read_action(
    line: &str,
    number: usize,
    previous: &mut Option<Arc<str>>,
) -> Result<Item, EsError> {
    let malformed = |reason: String| {
        EsError::illegal_argument(format!("Malformed action/metadata line [{number}], {reason}"))
    };
    let broken = |error: crate::json::JsonError| {
        let (line_, column) = crate::json::line_column(line, error.at.saturating_sub(1));
        EsError::new(400, "x_content_parse_exception", format!("[{line_}:{column}] {}", error.text))
    };
    let mut reader = Reader::new(line);
    match reader.value().map_err(broken)? {
        Token::ObjectStart => {}
        other => {
            return Err(malformed(format!(
                "expected START_OBJECT but found [{}]",
                token_name(other)
            )));
        }
    }
    let Some(key) = reader.key(true).map_err(broken)? else {
        return Err(malformed("expected FIELD_NAME but found [END_OBJECT]".into()));
    };
    let action = match key.raw {
        "create" => Action::Create,
        "index" => Action::Index,
        "update" => Action::Update,
        "delete" => Action::Delete,
        other => {
            return Err(malformed(format!(
                "expected field [create], [delete], [index] or [update] but found [{other}]"
            )));
        }
    };
    let mut item = Item {
        action,
        index: Arc::from(""),
        id: None,
        source: 0..0,
        requires_alias: false,
        pipeline: None,
        concrete: None,
        shards: 1,
        verdict: None,
    };
    match reader.value().map_err(broken)? {
        Token::ObjectStart => {}
        other => {
            return Err(malformed(format!(
                "expected START_OBJECT but found [{}]",
                token_name(other)
            )));
        }
    }
    let mut is_first = true;
    while let Some(key) = reader.key(is_first).map_err(broken)? {
        is_first = false;
        let value = reader.value().map_err(broken)?;
        match (key.raw, value) {
            ("_index", Token::String(text)) => {
                // Mostly the same as in the line before.
                item.index = match previous {
                    Some(known) if !text.is_escaped && **known == *text.raw => known.clone(),
                    _ => Arc::from(text.to_text()),
                };
                *previous = Some(item.index.clone());
            }
            ("_id", Token::String(text)) => {
                item.id =
                    Some(text.to_text()).filter(|id| !id.is_empty()).map(String::into_boxed_str)
            }
            ("_id", Token::Number(digits)) => item.id = Some(digits.into()),
            ("_id", Token::Null) => {}
            ("require_alias", Token::Bool(value)) => item.requires_alias = value,
            ("pipeline", Token::String(text)) => item.pipeline = Some(text.to_text()),
            ("op_type", Token::String(text)) if text.raw == "create" && action == Action::Index => {
                item.action = Action::Create
            }
            (
                "_type"
                | "routing"
                | "_routing"
                | "version"
                | "version_type"
                | "if_seq_no"
                | "if_primary_term"
                | "retry_on_conflict"
                | "dynamic_templates"
                | "list_executed_pipelines"
                | "require_data_stream"
                | "op_type",
                token,
            ) => reader.skip(token).map_err(broken)?,
            (key, _) => {
                return Err(EsError::illegal_argument(format!(
                    "Action/metadata line [{number}] contains an unknown parameter [{key}]"
                )));
            }
        }
    }
    Ok(item)
}

fn token_name(token: Token<'_>) -> &'static str {
    match token {
        Token::ObjectStart => "START_OBJECT",
        Token::ArrayStart => "START_ARRAY",
        Token::String(_) => "VALUE_STRING",
        Token::Number(_) => "VALUE_NUMBER",
        Token::Bool(_) => "VALUE_BOOLEAN",
        Token::Null => "VALUE_NULL",
    }
}

/// Writes all items of one index name.
fn write_group(engine: &Arc<Engine>, body: &Arc<String>, items: &mut [Item], members: &[usize]) {
    let mut members = members.to_vec();
    // An item whose demand for an alias fails leaves the others alone.
    for is_strict in [true, false] {
        let strict: Vec<usize> =
            members.iter().copied().filter(|i| items[*i].requires_alias == is_strict).collect();
        let Some(first) = strict.first() else { continue };
        let name = items[*first].index.clone();
        let target = engine.check_disk(&name).and_then(|()| engine.target(&name, is_strict));
        match target {
            Ok(target) => write_to(engine, &target, body, items, &strict),
            Err(error) => strict.iter().for_each(|i| items[*i].verdict = Some(Err(error.clone()))),
        }
        members.retain(|i| items[*i].requires_alias != is_strict);
    }
}

fn write_to(
    engine: &Arc<Engine>,
    target: &Target,
    body: &Arc<String>,
    items: &mut [Item],
    members: &[usize],
) {
    let index = &target.index;
    let concrete: Arc<str> = Arc::from(index.name.as_str());
    let replicas = index
        .info()
        .settings
        .get("number_of_replicas")
        .and_then(Value::as_str)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0u32);
    let mut is_written = |&i: &usize| {
        if target.is_data_stream && items[i].action != Action::Create {
            items[i].verdict = Some(Err(EsError::illegal_argument(
                "only write ops with an op_type of create are allowed in data streams",
            )));
            return false;
        }
        items[i].concrete = Some(concrete.clone());
        items[i].shards = 1 + replicas;
        true
    };
    let members: Vec<usize> = members.iter().copied().filter(&mut is_written).collect();
    // An update reads what is there, so everything before it must be there.
    let is_update: Vec<bool> = items.iter().map(|item| item.action == Action::Update).collect();
    for run in members.chunk_by(|a, b| !is_update[*a] && !is_update[*b]) {
        if let [i] = run
            && is_update[*i]
        {
            let id = items[*i].id.clone().unwrap_or_default();
            let verdict = update(engine, index, &id, &body[items[*i].source.clone()]);
            items[*i].verdict = Some(verdict);
        } else {
            write_run(engine, target, body, items, run);
        }
    }
}

/// Writes items none of which is an update.
fn write_run(
    engine: &Arc<Engine>,
    target: &Target,
    body: &Arc<String>,
    items: &mut [Item],
    run: &[usize],
) {
    let index = &target.index;
    let mut mapping = index.mapping.get();
    let bytes = run.iter().map(|i| items[*i].source.len()).sum();
    // Items whose documents could be read, in the order of their outcomes.
    let mut applied = Vec::with_capacity(run.len());
    let ops = run.iter().filter_map(|&i| {
        let item = &mut items[i];
        if item.action == Action::Delete {
            applied.push(i);
            let id = item.id.clone().unwrap_or_default();
            return Some(Op::Delete { id, expects: None });
        }
        let is_auto_id = item.id.is_none();
        let id = item.id.get_or_insert_with(|| engine.new_id());
        match prepare(engine, target, body, item.source.clone(), &mut mapping, id) {
            Ok(document) => {
                applied.push(i);
                let is_create = item.action == Action::Create;
                let document = Box::new(document);
                Some(Op::Put { document, is_create, is_auto_id, expects: None })
            }
            Err(error) => {
                item.verdict = Some(Err(error));
                None
            }
        }
    });
    let outcomes = index.apply(ops, bytes);
    match outcomes {
        Ok(outcomes) => {
            for (i, outcome) in applied.into_iter().zip(outcomes) {
                let id = items[i].id.as_deref().unwrap_or_default();
                items[i].verdict = Some(verdict(index, id, &outcome));
            }
            metrics::INDEXED_BYTES.inc_by(bytes as u64);
        }
        Err(error) => {
            for i in run {
                items[*i].verdict.get_or_insert_with(|| Err(error.clone()));
            }
        }
    }
}

fn prepare(
    engine: &Engine,
    target: &Target,
    body: &Arc<String>,
    source: std::ops::Range<usize>,
    mapping: &mut Arc<crate::mapping::Mapping>,
    id: &str,
) -> Result<crate::index::document::Prepared, EsError> {
    if source.len() > engine.config.document_bytes_max {
        metrics::REJECTED.with_label_values(&["document"]).inc();
        return Err(EsError::new(
            413,
            "document_parsing_exception",
            format!(
                "document of {} bytes exceeds the limit of {} bytes",
                source.len(),
                engine.config.document_bytes_max
            ),
        ));
    }
    if id.len() > 512 {
        return Err(EsError::illegal_argument(format!(
            "id [{id}] is too long, must be no longer than 512 bytes but was: {}",
            id.len()
        )));
    }
    let index = &target.index;
    let end = source.len();
    let document = parse::parse(body, source.clone(), &index.mapping, mapping, index.fields, id)?;
    if target.is_data_stream && document.timestamp.is_none() {
        let reason = "data stream timestamp field [@timestamp] is missing";
        return Err(EsError::new(
            400,
            "document_parsing_exception",
            format!("[1:{end}] failed to parse: {reason}"),
        )
        .caused_by(EsError::illegal_argument(reason)));
    }
    Ok(document)
}

fn verdict(index: &crate::index::Index, id: &str, outcome: &Outcome) -> Result<Verdict, EsError> {
    let (result, status) = match outcome.result {
        OpResult::Created => ("created", 201),
        OpResult::Updated => ("updated", 200),
        OpResult::Deleted => ("deleted", 200),
        OpResult::NotFound => ("not_found", 404),
        OpResult::Conflict => return Err(conflict(index, id, outcome.version)),
    };
    Ok(Verdict { result, status, version: outcome.version, seq_no: outcome.seq_no })
}

/// The 409 of a `create` whose id exists.
pub(super) fn conflict(index: &crate::index::Index, id: &str, version: u64) -> EsError {
    EsError::new(
        409,
        "version_conflict_engine_exception",
        format!("[{id}]: version conflict, document already exists (current version [{version}])"),
    )
    .with("index_uuid", index.info().uuid)
    .with("shard", "0")
    .with("index", index.name.clone())
}

/// One update: the document as it is, changed by `doc`, or `upsert` where there is none.
fn update(
    engine: &Arc<Engine>,
    index: &crate::index::Index,
    id: &str,
    request: &str,
) -> Result<Verdict, EsError> {
    let request = crate::api::parse_json(request.as_bytes())?.unwrap_or(Value::Null);
    crate::api::document::apply_update(engine, index, id, &request).map(|(result, outcome)| {
        Verdict {
            result,
            status: if result == "created" { 201 } else { 200 },
            version: outcome.version,
            seq_no: outcome.seq_no,
        }
    })
}

fn respond(call: &Call, items: &[Item], started: Instant) -> Answer {
    let has_errors = items.iter().any(|item| matches!(item.verdict, Some(Err(_)) | None));
    count(items);
    let filter = call.parameter("filter_path");
    let known = |part: &str| matches!(part, "errors" | "items.*.error" | "items.*.status");
    let (wants, is_simple) = match filter {
        None => (Wants { errors: true, status: true, error: true, rest: true }, true),
        Some(filter) if filter.split(',').all(known) => {
            let has = |name: &str| filter.split(',').any(|part| part == name);
            (
                Wants {
                    errors: has("errors"),
                    status: has("items.*.status"),
                    error: has("items.*.error"),
                    rest: false,
                },
                true,
            )
        }
        Some(_) => (Wants { errors: true, status: true, error: true, rest: true }, false),
    };
    let is_forced = call.flag("refresh");
    let mut out = String::with_capacity(64 + items.len() * if wants.rest { 200 } else { 28 });
    out.push('{');
    if wants.errors {
        let _ = write!(out, "\"errors\":{has_errors}");
    }
    if wants.rest {
        let _ = write!(out, ",\"took\":{}", started.elapsed().as_millis());
        if call.parameter("pipeline").is_some() {
            out.push_str(",\"ingest_took\":0");
        }
    }
    if wants.status || (wants.error && has_errors) {
        out.push_str(if out.len() > 1 { ",\"items\":[" } else { "\"items\":[" });
        let mut is_first = true;
        for item in items {
            if !wants.status && matches!(item.verdict, Some(Ok(_))) {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                out.push(',');
            }
            write_item(&mut out, item, &wants, is_forced);
        }
        out.push(']');
    }
    out.push('}');
    if let (false, Some(filter), Ok(value)) = (is_simple, filter, serde_json::from_str(&out)) {
        out = filter_path(value, filter).to_string();
    }
    Answer { status: 200, body: out.into_bytes(), ..Answer::default() }
}

struct Wants {
    errors: bool,
    status: bool,
    error: bool,
    rest: bool,
}

fn write_item(out: &mut String, item: &Item, wants: &Wants, is_forced: bool) {
    let _ = write!(out, "{{\"{}\":{{", item.action.name());
    let index = item.concrete.as_deref().unwrap_or(&item.index);
    match &item.verdict {
        Some(Ok(verdict)) => {
            if wants.rest {
                let _ = write!(
                    out,
                    "\"_index\":{},\"_id\":{},",
                    quoted(index),
                    quoted(item.id.as_deref().unwrap_or_default())
                );
                let _ = write!(
                    out,
                    "\"_version\":{},\"result\":\"{}\",",
                    verdict.version, verdict.result
                );
                if is_forced {
                    out.push_str("\"forced_refresh\":true,");
                }
                let _ = write!(
                    out,
                    "\"_shards\":{{\"total\":{},\"successful\":1,\"failed\":0}},\"_seq_no\":{},\"_primary_term\":1,",
                    item.shards, verdict.seq_no
                );
            }
            let _ = write!(out, "\"status\":{}", verdict.status);
        }
        failed => {
            let lost;
            let error = match failed {
                Some(Err(error)) => error,
                _ => {
                    lost = EsError::internal("item was not processed");
                    &lost
                }
            };
            if wants.rest {
                let id = item.id.as_deref().map_or(Value::Null, Value::from);
                let _ = write!(out, "\"_index\":{},\"_id\":{id},", quoted(index));
            }
            if wants.status {
                let _ = write!(out, "\"status\":{}", error.status);
            }
            if wants.error {
                let comma = if wants.status { "," } else { "" };
                let cause: &Map<String, Value> = &error.cause;
                let _ = write!(out, "{comma}\"error\":{}", json!(cause));
            }
        }
    }
    out.push_str("}}");
}

fn quoted(text: &str) -> String {
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        format!("\"{text}\"")
    } else {
        Value::from(text).to_string()
    }
}

fn count(items: &[Item]) {
    let (mut done, mut conflicts, mut failed) = (0, 0, 0);
    for item in items {
        match &item.verdict {
            Some(Ok(_)) => done += 1,
            Some(Err(error)) if error.status == 409 => conflicts += 1,
            _ => failed += 1,
        }
    }
    metrics::DOCUMENTS.with_label_values(&["done"]).inc_by(done);
    metrics::DOCUMENTS.with_label_values(&["conflict"]).inc_by(conflicts);
    metrics::DOCUMENTS.with_label_values(&["failed"]).inc_by(failed);
}
