//! `_search`, `_msearch`, `_count`, scrolls, points in time, `_validate/query`, `_analyze`.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use elkfk_base::units::parse_duration;
use serde_json::{Value, json};

use crate::analysis;
use crate::api::{Call, parse_json};
use crate::dates;
use crate::engine::{Engine, Options};
use crate::error::{EsError, check_answer};
use crate::http::Answer;
use crate::search::request::{self, Request, SortSpec, Track};
use crate::search::{Found, View, dsl, execute, fetch};

/// Searches in one `_msearch`.
const MSEARCH_MAX: usize = 100;

pub(super) fn search(engine: &Arc<Engine>, call: &Call, index: &str) -> Result<Answer, EsError> {
    let body = call.json()?.unwrap_or(Value::Null);
    let source = String::from_utf8_lossy(&call.body);
    let mut request = request::parse(&body, &source)?;
    request.take_parameters(|key| call.parameter(key).map(str::to_owned))?;
    let as_int = call.flag("rest_total_hits_as_int");
    if let Some(scroll) = call.parameter("scroll") {
        return scroll_start(engine, index, request, scroll, call.options(), as_int);
    }
    if let Some(id) = request.pit.clone() {
        return in_pit(engine, request, &body, &id, as_int);
    }
    let views = open(engine, index, call.options())?;
    check(&request, &views, index)?;
    let found = execute(engine, &views, &request)?;
    let text = render(&views, &request, &found, &Extras { as_int, ..Extras::default() })?;
    Ok(Answer { status: 200, body: text.into_bytes(), ..Answer::default() })
}

fn open(engine: &Engine, expression: &str, options: Options) -> Result<Vec<View>, EsError> {
    engine.resolve(expression, options)?.iter().map(View::open).collect()
}

/// Refuses what the shards would refuse.
fn check(request: &Request, views: &[View], expression: &str) -> Result<(), EsError> {
    let name = views.first().map_or(expression, |view| view.index.name.as_str());
    request.check_window().map_err(|error| error.on_shards(name))
}

#[derive(Default)]
struct Extras<'a> {
    as_int: bool,
    scroll_id: Option<&'a str>,
    pit_id: Option<&'a str>,
    status: Option<u16>,
}

fn render(
    views: &[View],
    request: &Request,
    found: &Found,
    extras: &Extras<'_>,
) -> Result<String, EsError> {
    let mut out = String::with_capacity(256 + found.hits.len() * 1024);
    out.push('{');
    if let Some(id) = extras.scroll_id {
        let _ = write!(out, "\"_scroll_id\":\"{id}\",");
    }
    if let Some(id) = extras.pit_id {
        let _ = write!(out, "\"pit_id\":\"{id}\",");
    }
    let _ = write!(out, "\"took\":{},\"timed_out\":{}", found.took.as_millis(), found.is_timed_out);
    if extras.as_int && request.size == 0 {
        out.push_str(",\"terminated_early\":false");
    }
    let _ = write!(
        out,
        ",\"_shards\":{{\"total\":{0},\"successful\":{0},\"skipped\":0,\"failed\":0}},\"hits\":{{",
        found.shards
    );
    let (value, relation) = match request.track {
        Track::UpTo(limit) if found.total > limit => (limit, "gte"),
        _ => (found.total, "eq"),
    };
    if extras.as_int {
        let total = if request.track == Track::None { -1 } else { found.total as i64 };
        let _ = write!(out, "\"total\":{total},");
    } else if request.track != Track::None {
        let _ = write!(out, "\"total\":{{\"value\":{value},\"relation\":\"{relation}\"}},");
    }
    match found.max_score {
        Some(score) if request.is_by_score() && request.size > 0 => {
            let _ = write!(out, "\"max_score\":{}", json!(score));
        }
        // Elasticsearch says 0.0 where no index was asked.
        _ if views.is_empty() => out.push_str("\"max_score\":0.0"),
        _ => out.push_str("\"max_score\":null"),
    }
    out.push_str(",\"hits\":[");
    let now_ms = dates::now_ms();
    for (i, hit) in found.hits.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&fetch::render(
            &views[hit.candidate.index],
            &hit.candidate,
            &hit.sort,
            request,
            now_ms,
        )?);
        check_answer(out.len())?;
    }
    out.push_str("]}");
    if !found.aggregations.is_null() {
        let _ = write!(out, ",\"aggregations\":{}", found.aggregations);
    }
    if let Some(status) = extras.status {
        let _ = write!(out, ",\"status\":{status}");
    }
    out.push('}');
    Ok(out)
}

pub(super) fn msearch(
    engine: &Arc<Engine>,
    call: &Call,
    default_index: &str,
) -> Result<Answer, EsError> {
    let started = Instant::now();
    // One for all: they hold one place among the searches.
    let deadline = started + engine.config.search_timeout;
    let text = std::str::from_utf8(&call.body)
        .map_err(|_| EsError::new(400, "parse_exception", "request body is not UTF-8"))?;
    if text.is_empty() {
        return Err(EsError::new(400, "parse_exception", "request body is required"));
    }
    if !text.ends_with('\n') {
        return Err(EsError::illegal_argument(
            "The msearch request must be terminated by a newline [\\n]",
        ));
    }
    let mut lines = text.lines();
    let mut out = String::from("{\"responses\":[");
    let mut count = 0;
    while let Some(header) = lines.next() {
        let Some(body) = lines.next() else { break };
        count += 1;
        if count > MSEARCH_MAX {
            return Err(EsError::illegal_argument(format!(
                "more than [{MSEARCH_MAX}] searches in one _msearch"
            )));
        }
        if count > 1 {
            out.push(',');
        }
        check_answer(out.len())?;
        match one_of_many(engine, header, body, default_index, deadline) {
            Ok(answer) => out.push_str(&answer),
            Err(error) => out.push_str(&error.body().to_string()),
        }
    }
    let _ = write!(out, "],\"took\":{}}}", started.elapsed().as_millis());
    Ok(Answer { status: 200, body: out.into_bytes(), ..Answer::default() })
}

fn one_of_many(
    engine: &Arc<Engine>,
    header: &str,
    body: &str,
    default_index: &str,
    deadline: Instant,
) -> Result<String, EsError> {
    let header = parse_json(header.as_bytes())?.unwrap_or(Value::Null);
    let index = match header.get("index").or(header.get("indices")) {
        Some(Value::String(index)) => index.clone(),
        Some(Value::Array(list)) => list.iter().map(dsl::text_of).collect::<Vec<_>>().join(","),
        _ => default_index.to_owned(),
    };
    let options = Options {
        ignores_unavailable: header.get("ignore_unavailable").and_then(Value::as_bool)
            == Some(true),
        refuses_none: header.get("allow_no_indices").and_then(Value::as_bool) == Some(false),
        takes_closed: false,
    };
    let json = parse_json(body.as_bytes())?.unwrap_or(Value::Null);
    let mut request = request::parse(&json, body)?;
    let left = deadline.saturating_duration_since(Instant::now()).as_millis() as u64;
    request.timeout_ms = Some(request.timeout_ms.map_or(left, |timeout| timeout.min(left)));
    let views = open(engine, &index, options)?;
    check(&request, &views, &index)?;
    let found = execute(engine, &views, &request)?;
    render(&views, &request, &found, &Extras { status: Some(200), ..Extras::default() })
}

pub(super) fn count(engine: &Arc<Engine>, call: &Call, index: &str) -> Result<Answer, EsError> {
    let body = call.json()?.unwrap_or(Value::Null);
    let source = String::from_utf8_lossy(&call.body);
    for key in body.as_object().into_iter().flatten().map(|(key, _)| key) {
        if key != "query" {
            let (line, column) = dsl::locate(&source, key);
            return Err(EsError::new(
                400,
                "parsing_exception",
                format!("request does not support [{key}]"),
            )
            .with("line", line)
            .with("col", column));
        }
    }
    let mut request = request::parse(&body, &source)?;
    request.take_parameters(|key| call.parameter(key).map(str::to_owned))?;
    (request.size, request.from, request.track) = (0, 0, Track::All);
    let views = open(engine, index, call.options())?;
    let found = execute(engine, &views, &request)?;
    // There is no place in the answer to say that it is a part.
    if found.is_timed_out {
        return Err(EsError::new(504, "search_timeout_exception", "Time exceeded"));
    }
    let shards =
        json!({"total": found.shards, "successful": found.shards, "skipped": 0, "failed": 0});
    Ok(Answer::json(200, &json!({"count": found.total, "_shards": shards})))
}

fn keep_alive(text: &str) -> Result<Duration, EsError> {
    parse_duration(text, Duration::from_millis(1)).ok_or_else(|| {
        EsError::illegal_argument(format!(
            "failed to parse setting [keep_alive] with value [{text}] as a time value"
        ))
    })
}

/// Added to the sort of a scroll or point in time so that pages follow each other exactly.
fn tie_breaker() -> SortSpec {
    SortSpec {
        field: "_shard_doc".into(),
        is_descending: false,
        missing_first: false,
        format: None,
        has_unmapped_type: true,
    }
}

fn scroll_start(
    engine: &Arc<Engine>,
    index: &str,
    mut request: Request,
    scroll: &str,
    options: Options,
    as_int: bool,
) -> Result<Answer, EsError> {
    let keep = keep_alive(scroll)?;
    let views = open(engine, index, options)?;
    check(&request, &views, index)?;
    if request.from > 0 {
        return Err(EsError::new(
            400,
            "action_request_validation_exception",
            "Validation Failed: 1: using [from] is not allowed in a scroll context;",
        ));
    }
    request.track = Track::All;
    let (shown, _) = scroll_page(engine, &views, &mut request, None)?;
    let id =
        engine.contexts.open(views.clone(), Some(request.clone()), shown.last.clone(), keep)?;
    let text = render(
        &views,
        &request,
        &shown,
        &Extras { as_int, scroll_id: Some(&id), ..Extras::default() },
    )?;
    Ok(Answer { status: 200, body: text.into_bytes(), ..Answer::default() })
}

/// Runs one page; the tie breaker is sorted by but not shown.
fn scroll_page(
    engine: &Engine,
    views: &[View],
    request: &mut Request,
    after: Option<Vec<Value>>,
) -> Result<(Found, bool), EsError> {
    let mut page = request.clone();
    let shown = page.sort.len();
    if page.sort.is_empty() {
        page.sort.push(SortSpec { field: "_score".into(), is_descending: true, ..tie_breaker() });
    }
    page.sort.push(tie_breaker());
    page.search_after = after;
    let mut found = execute(engine, views, &page)?;
    for hit in &mut found.hits {
        hit.sort.truncate(shown);
    }
    let is_empty = found.hits.is_empty();
    Ok((found, is_empty))
}

pub(super) fn scroll_next(
    engine: &Arc<Engine>,
    call: &Call,
    id: Option<&str>,
) -> Result<Answer, EsError> {
    let body = call.json()?.unwrap_or(Value::Null);
    let text = |key: &str| {
        body.get(key).and_then(Value::as_str).or_else(|| call.parameter(key)).map(str::to_owned)
    };
    let id = text("scroll_id").or(id.map(str::to_owned));
    let id = id.ok_or_else(|| {
        EsError::new(
            400,
            "action_request_validation_exception",
            "Validation Failed: 1: scrollId is missing;",
        )
    })?;
    let keep = text("scroll").map(|text| keep_alive(&text)).transpose()?;
    let (views, request, after) = engine.contexts.get(&id, keep)?;
    let mut request =
        request.ok_or_else(|| EsError::illegal_argument(format!("[{id}] is not a scroll")))?;
    request.aggs = crate::aggs::request::Aggs::default();
    let found = match after {
        Some(after) => {
            let (found, is_empty) = scroll_page(engine, &views, &mut request, Some(after))?;
            if !is_empty {
                engine.contexts.advance(&id, found.last.clone());
            }
            found
        }
        None => Found { hits: Vec::new(), ..scroll_page(engine, &views, &mut request, None)?.0 },
    };
    let extras = Extras {
        as_int: call.flag("rest_total_hits_as_int"),
        scroll_id: Some(&id),
        ..Extras::default()
    };
    Ok(Answer {
        status: 200,
        body: render(&views, &request, &found, &extras)?.into_bytes(),
        ..Answer::default()
    })
}

pub(super) fn scroll_clear(
    engine: &Arc<Engine>,
    call: &Call,
    id: Option<&str>,
) -> Result<Answer, EsError> {
    let body = call.json()?.unwrap_or(Value::Null);
    let ids: Vec<String> = match body.get("scroll_id") {
        Some(Value::String(id)) => vec![id.clone()],
        Some(Value::Array(list)) => list.iter().map(dsl::text_of).collect(),
        _ => id.map(|id| id.split(',').map(str::to_owned).collect()).unwrap_or_default(),
    };
    let freed = if ids.iter().any(|id| id == "_all") {
        engine.contexts.close_all()
    } else {
        ids.iter().filter(|id| engine.contexts.close(id)).count()
    };
    Ok(Answer::json(
        if freed > 0 { 200 } else { 404 },
        &json!({"succeeded": true, "num_freed": freed}),
    ))
}

pub(super) fn pit_open(engine: &Arc<Engine>, call: &Call, index: &str) -> Result<Answer, EsError> {
    let keep = call.parameter("keep_alive").ok_or_else(|| {
        EsError::new(
            400,
            "action_request_validation_exception",
            "Validation Failed: 1: [keep_alive] is not specified;",
        )
    })?;
    let views = open(engine, index, call.options())?;
    let shards = views.len();
    let id = engine.contexts.open(views, None, None, keep_alive(keep)?)?;
    Ok(Answer::json(
        200,
        &json!({"id": id, "_shards": {"total": shards, "successful": shards, "skipped": 0, "failed": 0}}),
    ))
}

pub(super) fn pit_close(engine: &Arc<Engine>, call: &Call) -> Result<Answer, EsError> {
    let id = call.required_json()?.get("id").map(dsl::text_of).unwrap_or_default();
    let freed = usize::from(engine.contexts.close(&id));
    Ok(Answer::json(
        if freed > 0 { 200 } else { 404 },
        &json!({"succeeded": freed > 0, "num_freed": freed}),
    ))
}

fn in_pit(
    engine: &Arc<Engine>,
    mut request: Request,
    body: &Value,
    id: &str,
    as_int: bool,
) -> Result<Answer, EsError> {
    let keep = body
        .get("pit")
        .and_then(|pit| pit.get("keep_alive"))
        .and_then(Value::as_str)
        .map(keep_alive)
        .transpose()?;
    let (views, _, _) = engine.contexts.get(id, keep)?;
    if !request.sort.is_empty() && !request.sort.iter().any(|sort| sort.field == "_shard_doc") {
        request.sort.push(tie_breaker());
        // A client may leave the tie breaker out of the page it goes on from.
        if let Some(after) = &mut request.search_after
            && after.len() + 1 == request.sort.len()
        {
            after.push(Value::from(i64::MAX));
        }
    }
    check(&request, &views, "")?;
    let found = execute(engine, &views, &request)?;
    let text = render(
        &views,
        &request,
        &found,
        &Extras { as_int, pit_id: Some(id), ..Extras::default() },
    )?;
    Ok(Answer { status: 200, body: text.into_bytes(), ..Answer::default() })
}

pub(super) fn validate(engine: &Arc<Engine>, call: &Call, index: &str) -> Result<Answer, EsError> {
    let body = call.json()?.unwrap_or(json!({"query": {"match_all": {}}}));
    let source = String::from_utf8_lossy(&call.body);
    let views = open(engine, index, call.options())?;
    let query = match body.get("query") {
        Some(query) => dsl::parse(query, &source),
        None => Ok(dsl::Query::All),
    };
    let deadline = std::time::Instant::now() + engine.config.search_timeout;
    let mut explanations = Vec::new();
    let mut is_valid = true;
    for view in &views {
        let checked = query.clone().and_then(|query| {
            crate::search::compile::Compiler::new(
                &view.index,
                &view.mapping,
                dates::now_ms(),
                deadline,
            )
            .compile(&query)
        });
        is_valid &= checked.is_ok();
        explanations.push(match checked {
            Ok(_) => {
                json!({"index": view.index.name, "valid": true, "explanation": explain(&body)})
            }
            Err(error) => {
                json!({"index": view.index.name, "valid": false, "error": error.reason()})
            }
        });
    }
    let shards = json!({"total": views.len(), "successful": views.len(), "failed": 0});
    let mut answer = json!({"_shards": shards, "valid": is_valid});
    if call.flag("explain") {
        answer["explanations"] = explanations.into();
    }
    Ok(Answer::json(200, &answer))
}

/// Lucene's words for the simplest queries, the query itself for the others.
fn explain(body: &Value) -> String {
    let term =
        body.pointer("/query/term").and_then(Value::as_object).and_then(|term| term.iter().next());
    match term {
        Some((field, Value::Bool(value))) => format!("{field}:{}", if *value { "T" } else { "F" }),
        Some((field, value)) if !value.is_object() => format!("{field}:{}", dsl::text_of(value)),
        _ => body.get("query").map(Value::to_string).unwrap_or_default(),
    }
}

pub(super) fn analyze(call: &Call) -> Result<Answer, EsError> {
    let body = call.required_json()?;
    let texts: Vec<String> = match body.get("text") {
        Some(Value::Array(list)) => list.iter().map(dsl::text_of).collect(),
        Some(text) => vec![dsl::text_of(text)],
        None => {
            return Err(EsError::new(
                400,
                "action_request_validation_exception",
                "Validation Failed: 1: text is missing;",
            ));
        }
    };
    let analyzer = body.get("analyzer").and_then(Value::as_str).unwrap_or("standard");
    let mut tokens = Vec::new();
    let (mut position, mut base) = (0, 0);
    for text in &texts {
        match analyzer {
            "keyword" => {
                tokens.push(json!({"token": text, "start_offset": base, "end_offset": base + utf16(text), "type": "word", "position": position}));
                position += 1;
            }
            "standard" => {
                let mut at = 0;
                while let Some((start, end)) = analysis::next_word(text, at) {
                    let word = &text[start..end];
                    let kind = if word.chars().all(|c| c.is_numeric() || !c.is_alphanumeric()) {
                        "<NUM>"
                    } else {
                        "<ALPHANUM>"
                    };
                    tokens.push(json!({
                        "token": analysis::lowercase(word), "start_offset": base + utf16(&text[..start]),
                        "end_offset": base + utf16(&text[..end]), "type": kind, "position": position,
                    }));
                    position += 1;
                    at = end;
                }
            }
            other => {
                return Err(EsError::illegal_argument(format!(
                    "failed to find global analyzer [{other}]"
                )));
            }
        }
        base += utf16(text) + 1;
        position += 100;
    }
    Ok(Answer::json(200, &json!({"tokens": tokens})))
}

/// Offsets count as Java counts characters.
fn utf16(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}
