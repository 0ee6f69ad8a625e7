//! Aliases, `_resolve/index`, `_rollover`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::{Call, acknowledged};
use crate::dates;
use crate::engine::{Engine, Options};
use crate::error::EsError;
use crate::http::Answer;
use crate::mapping::wildcard;

pub(super) fn get(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
    name: Option<&str>,
) -> Result<Answer, EsError> {
    let indices = engine.resolve(expression, Options { takes_closed: true, ..call.options() })?;
    let patterns: Vec<&str> = name.unwrap_or("*").split(',').collect();
    let mut answer = Map::new();
    for index in &indices {
        let aliases: Map<String, Value> = index
            .info()
            .aliases
            .into_iter()
            .filter(|(alias, _)| patterns.iter().any(|pattern| wildcard(pattern, alias)))
            .collect();
        if !aliases.is_empty() || (name.is_none() && !index.name.starts_with('.')) {
            answer.insert(index.name.clone(), json!({"aliases": aliases}));
        }
    }
    let missing: Vec<&str> = patterns
        .iter()
        .filter(|pattern| {
            !pattern.contains('*')
                && !indices.iter().any(|index| index.info().aliases.contains_key(**pattern))
        })
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(Answer::json(200, &Value::Object(answer)));
    }
    let text = if missing.len() == 1 {
        format!("alias [{}] missing", missing[0])
    } else {
        format!("aliases [{}] missing", missing.join(","))
    };
    Err(EsError::text(404, text, true))
}

pub(super) fn update(engine: &Arc<Engine>, call: &Call) -> Result<Answer, EsError> {
    let body = call.required_json()?;
    let names = |action: &Value, one: &str, many: &str| -> Vec<String> {
        let value = action.get(one).or(action.get(many));
        match value {
            Some(Value::Array(list)) => {
                list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
            }
            Some(Value::String(text)) => vec![text.clone()],
            _ => Vec::new(),
        }
    };
    for item in body.get("actions").and_then(Value::as_array).into_iter().flatten() {
        for (verb, action) in item.as_object().into_iter().flatten() {
            let indices = names(action, "index", "indices").join(",");
            if verb == "remove_index" {
                engine.delete(&indices)?;
                continue;
            }
            let aliases = names(action, "alias", "aliases");
            for index in engine.resolve(
                &indices,
                Options { takes_closed: true, refuses_none: true, ..Options::default() },
            )? {
                match verb.as_str() {
                    "add" => {
                        let mut options = action.as_object().cloned().unwrap_or_default();
                        options.retain(|key, _| {
                            matches!(
                                key.as_str(),
                                "filter"
                                    | "is_write_index"
                                    | "is_hidden"
                                    | "index_routing"
                                    | "search_routing"
                            )
                        });
                        index.update_info(|info| {
                            for alias in &aliases {
                                info.aliases.insert(alias.clone(), Value::Object(options.clone()));
                            }
                        })?;
                    }
                    "remove" => {
                        let info = index.info();
                        let gone = aliases
                            .iter()
                            .find(|alias| !info.aliases.keys().any(|known| wildcard(alias, known)));
                        if let Some(gone) = gone
                            && action.get("must_exist").and_then(Value::as_bool) != Some(false)
                        {
                            return Err(EsError::new(
                                404,
                                "aliases_not_found_exception",
                                format!("aliases [{gone}] missing"),
                            ));
                        }
                        index.update_info(|info| {
                            info.aliases.retain(|known, _| {
                                !aliases.iter().any(|alias| wildcard(alias, known))
                            })
                        })?;
                    }
                    other => {
                        return Err(EsError::illegal_argument(format!(
                            "[aliases] unknown field [{other}]"
                        )));
                    }
                }
            }
        }
    }
    Ok(Answer::json(200, &json!({"acknowledged": true, "errors": false})))
}

pub(super) fn put(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
    alias: &str,
) -> Result<Answer, EsError> {
    let options = call.json()?.unwrap_or(json!({}));
    for index in engine.resolve(expression, Options { refuses_none: true, ..Options::default() })? {
        index.update_info(|info| {
            info.aliases.insert(alias.to_owned(), options.clone());
        })?;
    }
    Ok(acknowledged())
}

pub(super) fn delete(
    engine: &Arc<Engine>,
    expression: &str,
    alias: &str,
) -> Result<Answer, EsError> {
    let mut removed = 0;
    for index in engine.resolve(expression, Options::default())? {
        index.update_info(|info| {
            let before = info.aliases.len();
            info.aliases.retain(|known, _| !wildcard(alias, known));
            removed += before - info.aliases.len();
        })?;
    }
    if removed == 0 {
        return Err(EsError::new(
            404,
            "aliases_not_found_exception",
            format!("aliases [{alias}] missing"),
        ));
    }
    Ok(acknowledged())
}

pub(super) fn resolve(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
) -> Result<Answer, EsError> {
    let matches = |name: &str| {
        expression.split(',').any(|pattern| pattern == "_all" || wildcard(pattern, name))
    };
    let found = engine.resolve(expression, Options { takes_closed: true, ..call.options() })?;
    let mut indices = Vec::new();
    let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut streams: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for index in &found {
        let info = index.info();
        if matches(&index.name) && (info.data_stream.is_none() || expression.starts_with('.')) {
            let mut one = json!({"name": index.name, "attributes": [if info.is_closed { "closed" } else { "open" }]});
            if !info.aliases.is_empty() {
                one["aliases"] = json!(info.aliases.keys().collect::<Vec<_>>());
            }
            if let Some(stream) = &info.data_stream {
                one["data_stream"] = stream.clone().into();
            }
            indices.push(one);
        }
        for alias in info.aliases.keys().filter(|alias| matches(alias)) {
            aliases.entry(alias.clone()).or_default().push(index.name.clone());
        }
        if let Some(stream) = info.data_stream.filter(|stream| matches(stream)) {
            streams.entry(stream).or_default().push(index.name.clone());
        }
    }
    let aliases: Vec<Value> = aliases
        .into_iter()
        .map(|(name, indices)| json!({"name": name, "indices": indices}))
        .collect();
    let streams: Vec<Value> = streams
        .into_iter()
        .map(|(name, indices)| json!({"name": name, "backing_indices": indices, "timestamp_field": "@timestamp"}))
        .collect();
    Ok(Answer::json(200, &json!({"indices": indices, "aliases": aliases, "data_streams": streams})))
}

/// The name after this one: its number at the end plus one, in six digits.
fn next_name(name: &str) -> Option<String> {
    let (stem, number) = name.rsplit_once('-')?;
    Some(format!("{stem}-{:06}", number.parse::<u64>().ok()?.checked_add(1)?))
}

pub(super) fn rollover(
    engine: &Arc<Engine>,
    call: &Call,
    alias: &str,
    new_name: Option<&str>,
) -> Result<Answer, EsError> {
    let body = call.json()?.unwrap_or(json!({}));
    let target = engine.target(alias, false)?;
    let old = target.index;
    if old.name == alias {
        return Err(EsError::illegal_argument(format!("rollover target [{alias}] does not exist")));
    }
    let new_name =
        new_name.map(str::to_owned).or_else(|| next_name(&old.name)).ok_or_else(|| {
            EsError::illegal_argument(format!(
                "index name [{}] does not match pattern '^.*-\\d+$'",
                old.name
            ))
        })?;
    let info = old.info();
    let documents = old.searcher()?.num_docs();
    let age_ms = dates::now_ms() - info.created_ms;
    let mut conditions = Map::new();
    for (name, limit) in body.get("conditions").and_then(Value::as_object).into_iter().flatten() {
        let text = crate::search::dsl::text_of(limit);
        let is_met = match name.as_str() {
            "max_docs" => text.parse::<u64>().is_ok_and(|limit| documents >= limit),
            "min_docs" => text.parse::<u64>().is_ok_and(|limit| documents >= limit),
            "max_age" => {
                elkfk_base::units::parse_duration(&text, std::time::Duration::from_millis(1))
                    .is_some_and(|limit| age_ms as u128 >= limit.as_millis())
            }
            "max_size" | "max_primary_shard_size" => {
                elkfk_base::units::parse_bytes(&text).is_some_and(|limit| old.disk_bytes() >= limit)
            }
            other => {
                return Err(EsError::illegal_argument(format!(
                    "[conditions] unknown field [{other}]"
                )));
            }
        };
        conditions.insert(format!("[{name}: {text}]"), is_met.into());
    }
    let is_due =
        conditions.is_empty() || conditions.values().any(|met| met.as_bool() == Some(true));
    let is_dry = call.flag("dry_run");
    let rolls = is_due && !is_dry;
    if rolls {
        let new = engine.create(&new_name, &body, info.data_stream.as_deref())?;
        if info.data_stream.is_none() {
            new.update_info(|info| {
                info.aliases.insert(alias.to_owned(), json!({"is_write_index": true}));
            })?;
            let writes =
                info.aliases.get(alias).and_then(|options| options.get("is_write_index")).is_some();
            old.update_info(|info| {
                if writes {
                    info.aliases.insert(alias.to_owned(), json!({"is_write_index": false}));
                } else {
                    info.aliases.remove(alias);
                }
            })?;
        }
    }
    Ok(Answer::json(
        200,
        &json!({
            "acknowledged": rolls, "shards_acknowledged": rolls, "old_index": old.name, "new_index": new_name, "rolled_over": rolls,
            "dry_run": is_dry, "lazy": false, "conditions": conditions,
        }),
    ))
}
