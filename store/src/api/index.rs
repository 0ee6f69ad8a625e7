//! One index or several: create, delete, look at, mappings, settings, statistics, refresh, merge.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::{Call, acknowledged};
use crate::cluster::{index_settings, merge};
use crate::engine::{Engine, Options};
use crate::error::EsError;
use crate::http::Answer;
use crate::index::Index;
use crate::mapping::wildcard;

/// Internal number of the version, as settings show it.
const CREATED_VERSION: &str = "8536000";

pub(super) fn create(engine: &Arc<Engine>, call: &Call, name: &str) -> Result<Answer, EsError> {
    let body = call.json()?.unwrap_or(json!({}));
    if engine.all().iter().any(|index| index.info().aliases.contains_key(name)) {
        return Err(EsError::new(
            400,
            "invalid_index_name_exception",
            format!("Invalid index name [{name}], already exists as alias"),
        )
        .with("index_uuid", "_na_")
        .with("index", name));
    }
    engine.create(name, &body, None)?;
    Ok(Answer::json(
        200,
        &json!({"acknowledged": true, "shards_acknowledged": true, "index": name}),
    ))
}

pub(super) fn delete(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
) -> Result<Answer, EsError> {
    if expression.contains('*') || expression == "_all" {
        return Err(EsError::illegal_argument(
            "Wildcard expressions or all indices are not allowed",
        ));
    }
    for name in expression.split(',') {
        if engine.get(name).is_none() {
            if call.flag("ignore_unavailable") {
                continue;
            }
            if engine.all().iter().any(|index| index.info().aliases.contains_key(name)) {
                return Err(EsError::illegal_argument(format!(
                    "The provided expression [{name}] matches an alias, specify the corresponding concrete indices instead."
                )));
            }
            return Err(EsError::no_such_index(name));
        }
    }
    for name in expression.split(',') {
        if engine.get(name).is_some() {
            engine.delete(name)?;
        }
    }
    Ok(acknowledged())
}

fn resolve(engine: &Engine, call: &Call, expression: &str) -> Result<Vec<Arc<Index>>, EsError> {
    engine.resolve(expression, Options { takes_closed: true, ..call.options() })
}

pub(super) fn head(engine: &Arc<Engine>, call: &Call, expression: &str) -> Result<Answer, EsError> {
    let exists = resolve(engine, call, expression).is_ok_and(|found| !found.is_empty());
    Ok(Answer { status: if exists { 200 } else { 404 }, ..Answer::default() })
}

/// The settings of an index with those that it was given by itself.
fn settings_json(index: &Index) -> Value {
    let info = index.info();
    let mut settings = info.settings.clone();
    settings.insert("creation_date".into(), info.created_ms.to_string().into());
    settings.insert("uuid".into(), info.uuid.into());
    settings.insert("version".into(), json!({"created": CREATED_VERSION}));
    settings.insert("provided_name".into(), index.name.clone().into());
    merge(
        &mut settings,
        json!({"routing": {"allocation": {"include": {"_tier_preference": "data_content"}}}})
            .as_object()
            .cloned()
            .unwrap_or_default(),
    );
    json!({"index": settings})
}

pub(super) fn get(engine: &Arc<Engine>, call: &Call, expression: &str) -> Result<Answer, EsError> {
    let mut answer = Map::new();
    for index in resolve(engine, call, expression)? {
        answer.insert(
            index.name.clone(),
            json!({"aliases": index.info().aliases, "mappings": index.mapping.get().to_json(), "settings": settings_json(&index)}),
        );
    }
    Ok(Answer::json(200, &Value::Object(answer)))
}

pub(super) fn mapping(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
) -> Result<Answer, EsError> {
    let indices = resolve(engine, call, expression)?;
    let answer: Map<String, Value> = indices
        .iter()
        .map(|index| (index.name.clone(), json!({"mappings": index.mapping.get().to_json()})))
        .collect();
    Ok(Answer::json(200, &Value::Object(answer)))
}

pub(super) fn field_mapping(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
    pattern: &str,
) -> Result<Answer, EsError> {
    let mut answer = Map::new();
    for index in resolve(engine, call, expression)? {
        let mapping = index.mapping.get();
        let mut fields = Map::new();
        for field in &mapping.fields {
            if pattern.split(',').any(|pattern| wildcard(pattern, &field.path)) {
                let name = field.path.rsplit('.').next().unwrap_or(&field.path);
                fields.insert(
                    field.path.to_string(),
                    json!({"full_name": &*field.path, "mapping": {name: field.definition()}}),
                );
            }
        }
        answer.insert(index.name.clone(), json!({"mappings": fields}));
    }
    Ok(Answer::json(200, &Value::Object(answer)))
}

pub(super) fn put_mapping(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
) -> Result<Answer, EsError> {
    let body = call.required_json()?;
    for index in resolve(engine, call, expression)? {
        index.mapping.update(|mapping| mapping.merge(&body))?;
        index.save_mapping()?;
    }
    Ok(acknowledged())
}

pub(super) fn settings(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
) -> Result<Answer, EsError> {
    let indices = resolve(engine, call, expression)?;
    let answer: Map<String, Value> = indices
        .iter()
        .map(|index| (index.name.clone(), json!({"settings": settings_json(index)})))
        .collect();
    Ok(Answer::json(200, &Value::Object(answer)))
}

pub(super) fn put_settings(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
) -> Result<Answer, EsError> {
    let body = call.required_json()?;
    let body = body.get("settings").unwrap_or(&body);
    let settings = index_settings(body);
    if settings.contains_key("number_of_shards") {
        return Err(EsError::illegal_argument(
            "Can't update non dynamic settings [[index.number_of_shards]] for open indices",
        ));
    }
    for index in resolve(engine, call, expression)? {
        index.update_info(|info| merge(&mut info.settings, settings.clone()))?;
    }
    Ok(acknowledged())
}

pub(super) fn stats(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
) -> Result<Answer, EsError> {
    let indices = engine.resolve(expression, call.options())?;
    let (mut all_docs, mut all_bytes) = (0, 0);
    let mut each = Map::new();
    for index in &indices {
        let searcher = index.searcher()?;
        let deleted: u32 =
            searcher.segment_readers().iter().map(|segment| segment.num_deleted_docs()).sum();
        let bytes = index.disk_bytes();
        all_docs += searcher.num_docs();
        all_bytes += bytes;
        let one = json!({
            "docs": {"count": searcher.num_docs(), "deleted": deleted}, "store": {"size_in_bytes": bytes},
            "segments": {"count": searcher.segment_readers().len()},
        });
        each.insert(
            index.name.clone(),
            json!({"uuid": index.info().uuid, "primaries": one, "total": one}),
        );
    }
    let all =
        json!({"docs": {"count": all_docs, "deleted": 0}, "store": {"size_in_bytes": all_bytes}});
    Ok(Answer::json(
        200,
        &json!({"_shards": shards(&indices), "_all": {"primaries": all, "total": all}, "indices": each}),
    ))
}

fn shards(indices: &[Arc<Index>]) -> Value {
    let replicas: usize = indices
        .iter()
        .map(|index| {
            index
                .info()
                .settings
                .get("number_of_replicas")
                .and_then(Value::as_str)
                .and_then(|n| n.parse().ok())
                .unwrap_or(0usize)
        })
        .sum();
    json!({"total": indices.len() + replicas, "successful": indices.len(), "failed": 0})
}

/// Nothing to do: whatever was answered is durable and searchable.
pub(super) fn refresh(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
) -> Result<Answer, EsError> {
    let indices = engine.resolve(expression, call.options())?;
    Ok(Answer::json(200, &json!({"_shards": shards(&indices)})))
}

pub(super) fn force_merge(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
) -> Result<Answer, EsError> {
    let indices = engine.resolve(expression, call.options())?;
    for index in &indices {
        index.force_merge()?;
    }
    Ok(Answer::json(200, &json!({"_shards": shards(&indices)})))
}

pub(super) fn open_or_close(
    engine: &Arc<Engine>,
    expression: &str,
    closes: bool,
) -> Result<Answer, EsError> {
    let indices =
        engine.resolve(expression, Options { takes_closed: true, ..Options::default() })?;
    let mut closed = Map::new();
    for index in &indices {
        index.update_info(|info| info.is_closed = closes)?;
        if closes {
            index.close_writer();
            index.close_reader();
            closed.insert(index.name.clone(), json!({"closed": true}));
        }
    }
    let mut answer = json!({"acknowledged": true, "shards_acknowledged": true});
    if closes {
        answer["indices"] = Value::Object(closed);
    }
    Ok(Answer::json(200, &answer))
}
