//! Single documents: `_doc`, `_create`, `_source`, `_update`, `_mget`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::{Call, bulk};
use crate::cluster::merge;
use crate::engine::Engine;
use crate::error::{EsError, check_answer};
use crate::http::Answer;
use crate::index::{Index, Op, OpResult, Outcome, parse};
use crate::search::request::{SourceFilter, parse_source};
use crate::search::{View, fetch};

fn shards(index: &Index) -> Value {
    let replicas: u32 = index
        .info()
        .settings
        .get("number_of_replicas")
        .and_then(Value::as_str)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    json!({"total": 1 + replicas, "successful": 1, "failed": 0})
}

fn written(
    index: &Index,
    id: &str,
    result: &str,
    outcome: &Outcome,
    call: &Call,
    status: u16,
) -> Answer {
    let mut answer =
        json!({"_index": index.name, "_id": id, "_version": outcome.version, "result": result});
    if call.flag("refresh") {
        answer["forced_refresh"] = true.into();
    }
    answer["_shards"] = shards(index);
    answer["_seq_no"] = outcome.seq_no.into();
    answer["_primary_term"] = 1.into();
    Answer::json(status, &answer)
}

pub(super) fn put(
    engine: &Arc<Engine>,
    call: &Call,
    name: &str,
    id: Option<&str>,
    is_create: bool,
) -> Result<Answer, EsError> {
    if call.body.is_empty() {
        return Err(EsError::new(400, "parse_exception", "request body is required"));
    }
    let text = std::str::from_utf8(&call.body)
        .map_err(|_| EsError::new(400, "parse_exception", "request body is not UTF-8"))?;
    engine.check_disk(name)?;
    let target = engine.target(name, call.flag("require_alias"))?;
    if target.is_data_stream && !is_create && id.is_some() {
        return Err(EsError::illegal_argument(
            "only write ops with an op_type of create are allowed in data streams",
        ));
    }
    let (outcome, id) = write(engine, &target.index, text.trim(), id, is_create, None)?;
    match outcome.result {
        OpResult::Conflict => Err(conflict(&target.index, &id, outcome.version)),
        OpResult::Created => Ok(written(&target.index, &id, "created", &outcome, call, 201)),
        _ => Ok(written(&target.index, &id, "updated", &outcome, call, 200)),
    }
}

fn conflict(index: &Index, id: &str, version: u64) -> EsError {
    bulk::conflict(index, id, version)
}

/// Writes one document.
fn write(
    engine: &Arc<Engine>,
    index: &Index,
    text: &str,
    id: Option<&str>,
    is_create: bool,
    expects: Option<u64>,
) -> Result<(Outcome, Box<str>), EsError> {
    if text.len() > engine.config.document_bytes_max {
        return Err(EsError::new(
            413,
            "document_parsing_exception",
            format!("document of {} bytes exceeds the limit", text.len()),
        ));
    }
    let body = Arc::new(text.to_owned());
    let mut mapping = index.mapping.get();
    let (id, is_auto_id) = id.map_or_else(|| (engine.new_id(), true), |id| (id.into(), false));
    let document =
        parse::parse(&body, 0..body.len(), &index.mapping, &mut mapping, index.fields, &id)?;
    let op = Op::Put { document: Box::new(document), is_create, is_auto_id, expects };
    let outcome =
        index.apply(vec![op], text.len())?.pop().ok_or_else(|| EsError::internal("no outcome"))?;
    Ok((outcome, id))
}

struct Present {
    version: u64,
    seq_no: u64,
    source: String,
}

fn read(index: &Arc<Index>, id: &str) -> Result<Option<Present>, EsError> {
    let view = View::open(index)?;
    let Some(found) = index.find(&view.searcher, id)? else { return Ok(None) };
    let stored = fetch::load(&view, found.address)?;
    Ok(Some(Present { version: found.version, seq_no: found.seq_no, source: stored.source }))
}

fn one(engine: &Engine, name: &str) -> Result<Arc<Index>, EsError> {
    let mut indices = engine.resolve(name, crate::engine::Options::default())?;
    match indices.len() {
        1 => Ok(indices.remove(0)),
        0 => Err(EsError::no_such_index(name)),
        _ => Err(EsError::illegal_argument(format!(
            "alias [{name}] has more than one index associated with it, can't execute a single index op"
        ))),
    }
}

fn source_filter(call: &Call) -> SourceFilter {
    let list = |key: &str| -> Vec<String> {
        call.parameter(key)
            .map(|text| text.split(',').map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let mut filter = match call.parameter("_source") {
        Some("false") => SourceFilter { is_off: true, ..SourceFilter::default() },
        Some("" | "true") | None => SourceFilter::default(),
        Some(_) => SourceFilter { includes: list("_source"), ..SourceFilter::default() },
    };
    filter.includes.extend(list("_source_includes"));
    filter.excludes.extend(list("_source_excludes"));
    filter
}

fn shown_source(source: &str, filter: &SourceFilter) -> Option<Value> {
    let value: Value = serde_json::from_str(source).unwrap_or(Value::Null);
    if filter.is_off {
        None
    } else if filter.is_whole() {
        Some(value)
    } else {
        Some(fetch::filter_source(&value, filter))
    }
}

fn found_json(index: &Index, id: &str, present: &Present, filter: &SourceFilter) -> Value {
    let mut answer = json!({
        "_index": index.name, "_id": id, "_version": present.version, "_seq_no": present.seq_no, "_primary_term": 1, "found": true,
    });
    if let Some(source) = shown_source(&present.source, filter) {
        answer["_source"] = source;
    }
    answer
}

pub(super) fn get(
    engine: &Arc<Engine>,
    call: &Call,
    name: &str,
    id: &str,
) -> Result<Answer, EsError> {
    let index = one(engine, name)?;
    index.settle(id)?;
    Ok(match read(&index, id)? {
        Some(present) => Answer::json(200, &found_json(&index, id, &present, &source_filter(call))),
        None => Answer::json(404, &json!({"_index": index.name, "_id": id, "found": false})),
    })
}

pub(super) fn source(
    engine: &Arc<Engine>,
    call: &Call,
    name: &str,
    id: &str,
) -> Result<Answer, EsError> {
    let index = one(engine, name)?;
    index.settle(id)?;
    let present = read(&index, id)?.ok_or_else(|| {
        EsError::new(
            404,
            "resource_not_found_exception",
            format!("Document not found [{name}]/[{id}]"),
        )
    })?;
    let filter = source_filter(call);
    if filter.is_whole() {
        return Ok(Answer { status: 200, body: present.source.into_bytes(), ..Answer::default() });
    }
    Ok(Answer::json(200, &shown_source(&present.source, &filter).unwrap_or(Value::Null)))
}

pub(super) fn delete(
    engine: &Arc<Engine>,
    call: &Call,
    name: &str,
    id: &str,
) -> Result<Answer, EsError> {
    let index = one(engine, name)?;
    let outcome = index
        .apply(vec![Op::Delete { id: id.into(), expects: None }], 0)?
        .pop()
        .ok_or_else(|| EsError::internal("no outcome"))?;
    Ok(match outcome.result {
        OpResult::Deleted => written(&index, id, "deleted", &outcome, call, 200),
        _ => written(&index, id, "not_found", &outcome, call, 404),
    })
}

pub(super) fn update(
    engine: &Arc<Engine>,
    call: &Call,
    name: &str,
    id: &str,
) -> Result<Answer, EsError> {
    let request = call.required_json()?;
    let target = engine.target(name, false)?;
    let (result, outcome) = apply_update(engine, &target.index, id, &request)?;
    Ok(written(
        &target.index,
        id,
        result,
        &outcome,
        call,
        if result == "created" { 201 } else { 200 },
    ))
}

/// Changes a document by `doc`, or makes it from `upsert` or, with `doc_as_upsert`, from `doc`.
pub(super) fn apply_update(
    engine: &Arc<Engine>,
    index: &Index,
    id: &str,
    request: &Value,
) -> Result<(&'static str, Outcome), EsError> {
    if request.get("script").is_some() {
        return Err(EsError::illegal_argument("scripted updates are not supported by this store"));
    }
    // Read and written again until nobody came between.
    for _ in 0..10 {
        index.settle(id)?;
        let searcher = index.searcher()?;
        let found = index.find(&searcher, id)?;
        let Some(found) = found else {
            let upsert = match request.get("doc_as_upsert").and_then(Value::as_bool) {
                Some(true) => request.get("doc"),
                _ => request.get("upsert"),
            };
            let upsert = upsert.ok_or_else(|| {
                EsError::new(404, "document_missing_exception", format!("[{id}]: document missing"))
                    .with("index_uuid", index.info().uuid)
                    .with("shard", "0")
                    .with("index", index.name.clone())
            })?;
            let (outcome, _) = write(engine, index, &upsert.to_string(), Some(id), true, None)?;
            if outcome.result == OpResult::Conflict {
                continue;
            }
            return Ok(("created", outcome));
        };
        let document: tantivy::TantivyDocument = searcher.doc(found.address)?;
        let text = {
            use tantivy::schema::document::Value as _;
            document
                .get_first(index.fields.source)
                .and_then(|value| value.as_str().map(str::to_owned))
                .unwrap_or_default()
        };
        let mut current: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
        let before = current.clone();
        if let Some(change) = request.get("doc").and_then(Value::as_object) {
            merge(&mut current, change.clone());
        }
        if current == before && request.get("detect_noop").and_then(Value::as_bool) != Some(false) {
            return Ok((
                "noop",
                Outcome { result: OpResult::Updated, version: found.version, seq_no: found.seq_no },
            ));
        }
        let text = Value::Object(current).to_string();
        let (outcome, _) = write(engine, index, &text, Some(id), false, Some(found.seq_no))?;
        if outcome.result == OpResult::Conflict {
            continue;
        }
        return Ok(("updated", outcome));
    }
    Err(EsError::new(
        409,
        "version_conflict_engine_exception",
        format!("[{id}]: version conflict, document changes too often"),
    ))
}

pub(super) fn mget(
    engine: &Arc<Engine>,
    call: &Call,
    default_index: Option<&str>,
) -> Result<Answer, EsError> {
    let body = call.required_json()?;
    let mut wanted: Vec<(String, String, SourceFilter)> = Vec::new();
    for id in body.get("ids").and_then(Value::as_array).into_iter().flatten() {
        wanted.push((
            default_index.unwrap_or_default().to_owned(),
            crate::search::dsl::text_of(id),
            source_filter(call),
        ));
    }
    for doc in body.get("docs").and_then(Value::as_array).into_iter().flatten() {
        let index = doc.get("_index").and_then(Value::as_str).or(default_index).unwrap_or_default();
        let id = doc.get("_id").map(crate::search::dsl::text_of).unwrap_or_default();
        let filter = doc.get("_source").map_or_else(|| source_filter(call), parse_source);
        wanted.push((index.to_owned(), id, filter));
    }
    if wanted.len() > 10_000 {
        return Err(EsError::illegal_argument("more than [10000] documents in one _mget"));
    }
    let (mut docs, mut bytes) = (Vec::with_capacity(wanted.len()), 0);
    for (name, id, filter) in wanted {
        let result = one(engine, &name).and_then(|index| {
            Ok(match read(&index, &id)? {
                Some(present) => {
                    bytes += present.source.len();
                    found_json(&index, &id, &present, &filter)
                }
                None => json!({"_index": index.name, "_id": id, "found": false}),
            })
        });
        docs.push(result.unwrap_or_else(
            |error| json!({"_index": name, "_id": id, "error": error.body()["error"]}),
        ));
        check_answer(bytes)?;
    }
    Ok(Answer::json(200, &json!({"docs": docs})))
}
