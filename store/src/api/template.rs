//! Templates (obeyed), ingest pipelines and lifecycle policies (kept and shown, not run).

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::Method;
use serde_json::{Map, Value, json};

use crate::api::{Call, acknowledged};
use crate::cluster::{Cluster, index_settings, merge};
use crate::dates;
use crate::engine::Engine;
use crate::error::EsError;
use crate::http::Answer;
use crate::mapping::{Mapping, wildcard};

fn wrong(call: &Call) -> EsError {
    EsError::text(
        405,
        format!(
            "Incorrect HTTP method for uri [{}] and method [{}], allowed: [DELETE, GET, HEAD, PUT]",
            call.path, call.method
        ),
        true,
    )
}

pub(super) fn templates(
    engine: &Arc<Engine>,
    call: &Call,
    family: &str,
    parts: &[&str],
) -> Result<Answer, EsError> {
    let name = parts.first().copied();
    let mut cluster = engine.cluster();
    match (call.method.clone(), name) {
        (Method::GET | Method::HEAD, name) => show(&cluster, call, family, name),
        (Method::PUT | Method::POST, Some(name)) => {
            let body = call.required_json()?;
            let stored = checked(&cluster, family, name, &body)?;
            let kept = kept(&mut cluster, family);
            if call.flag("create") && kept.contains_key(name) {
                return Err(EsError::illegal_argument(format!(
                    "index template [{name}] already exists"
                )));
            }
            kept.insert(name.to_owned(), stored);
            cluster.save()?;
            Ok(acknowledged())
        }
        (Method::DELETE, Some(name)) => {
            let kept = kept(&mut cluster, family);
            let before = kept.len();
            kept.retain(|known, _| !wildcard(name, known));
            if kept.len() == before && !name.contains('*') {
                return Err(missing(family, name));
            }
            cluster.save()?;
            Ok(acknowledged())
        }
        _ => Err(wrong(call)),
    }
}

fn kept<'a>(cluster: &'a mut Cluster, family: &str) -> &'a mut BTreeMap<String, Value> {
    match family {
        "_index_template" => &mut cluster.index_templates,
        "_component_template" => &mut cluster.component_templates,
        _ => &mut cluster.legacy_templates,
    }
}

fn missing(family: &str, name: &str) -> EsError {
    match family {
        "_component_template" => EsError::new(
            404,
            "resource_not_found_exception",
            format!("component template matching [{name}] not found"),
        ),
        "_index_template" => EsError::new(
            404,
            "resource_not_found_exception",
            format!("index template matching [{name}] not found"),
        ),
        _ => EsError::new(
            404,
            "index_template_missing_exception",
            format!("index_template [{name}] missing"),
        ),
    }
}

fn show(
    cluster: &Cluster,
    call: &Call,
    family: &str,
    name: Option<&str>,
) -> Result<Answer, EsError> {
    let all = match family {
        "_index_template" => &cluster.index_templates,
        "_component_template" => &cluster.component_templates,
        _ => &cluster.legacy_templates,
    };
    let found: Vec<(&String, &Value)> = all
        .iter()
        .filter(|(known, _)| {
            name.is_none_or(|name| name.split(',').any(|pattern| wildcard(pattern, known)))
        })
        .collect();
    let is_missing = found.is_empty() && name.is_some_and(|name| !name.contains('*'));
    if family == "_template" {
        let body: Map<String, Value> =
            found.into_iter().map(|(name, template)| (name.clone(), template.clone())).collect();
        return Ok(Answer::json(if is_missing { 404 } else { 200 }, &Value::Object(body)));
    }
    if is_missing {
        if call.method == Method::HEAD {
            return Ok(Answer { status: 404, ..Answer::default() });
        }
        return Err(missing(family, name.unwrap_or_default()));
    }
    let (list, one) = if family == "_index_template" {
        ("index_templates", "index_template")
    } else {
        ("component_templates", "component_template")
    };
    let shown: Vec<Value> =
        found.into_iter().map(|(name, template)| json!({"name": name, one: template})).collect();
    Ok(Answer::json(200, &json!({list: shown})))
}

/// What is stored of a template: with settings in their canonical form.
fn checked(cluster: &Cluster, family: &str, name: &str, body: &Value) -> Result<Value, EsError> {
    let mut stored = body.clone();
    let canonical = |part: &mut Value| -> Result<(), EsError> {
        if let Some(settings) = part.get("settings").cloned() {
            part["settings"] = json!({"index": index_settings(&settings)});
        }
        if let Some(mappings) = part.get("mappings") {
            Mapping::from_json(mappings)?;
        }
        Ok(())
    };
    if family == "_template" {
        canonical(&mut stored)?;
        let patterns = crate::cluster::patterns(&stored);
        stored["index_patterns"] = json!(patterns);
        for (key, default) in [
            ("order", json!(0)),
            ("settings", json!({})),
            ("mappings", json!({})),
            ("aliases", json!({})),
        ] {
            if stored.get(key).is_none() {
                stored[key] = default;
            }
        }
        return Ok(stored);
    }
    if let Some(template) = stored.get_mut("template") {
        canonical(template)?;
    }
    if family == "_component_template" {
        if stored.get("template").is_none() {
            return Err(EsError::new(
                400,
                "x_content_parse_exception",
                "[1:2] Required [template]",
            ));
        }
        return Ok(stored);
    }
    let patterns = crate::cluster::patterns(&stored);
    if patterns.is_empty() {
        return Err(EsError::new(
            400,
            "x_content_parse_exception",
            "[1:2] Required [index_patterns]",
        ));
    }
    stored["index_patterns"] = json!(patterns);
    let unknown: Vec<&str> = stored
        .get("composed_of")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|component| !cluster.component_templates.contains_key(*component))
        .filter(|component| {
            let ignored = body.get("ignore_missing_component_templates").and_then(Value::as_array);
            !ignored.into_iter().flatten().any(|name| name.as_str() == Some(component))
        })
        .collect();
    if !unknown.is_empty() {
        return Err(EsError::new(
            400,
            "invalid_index_template_exception",
            format!(
                "index_template [{name}] invalid, cause [index template [{name}] specifies component templates [{}] that do not exist]",
                unknown.join(",")
            ),
        ));
    }
    if let Some((other, template)) = cluster.conflict(name, &stored) {
        let theirs = crate::cluster::patterns(template).join(", ");
        let priority = stored.get("priority").and_then(Value::as_i64).unwrap_or(0);
        return Err(EsError::illegal_argument(format!(
            "index template [{name}] has index patterns [{}] matching patterns from existing templates [{other}] with patterns ({other} => [{theirs}]) that have the same priority [{priority}], multiple index templates may not match during index creation, please use a different priority",
            patterns.join(", ")
        )));
    }
    if stored.get("composed_of").is_none() {
        stored["composed_of"] = json!([]);
    }
    Ok(stored)
}

/// What an index of this name would get.
pub(super) fn simulate(engine: &Arc<Engine>, name: &str) -> Result<Answer, EsError> {
    let template = engine.cluster().template_for(name);
    let mut mapping = Mapping::default();
    for part in &template.mappings {
        mapping.merge(part)?;
    }
    let mut settings = template.settings;
    merge(
        &mut settings,
        json!({"routing": {"allocation": {"include": {"_tier_preference": "data_content"}}}})
            .as_object()
            .cloned()
            .unwrap_or_default(),
    );
    Ok(Answer::json(
        200,
        &json!({"template": {"settings": {"index": settings}, "mappings": mapping.to_json(), "aliases": template.aliases}, "overlapping": []}),
    ))
}

pub(super) fn pipelines(
    engine: &Arc<Engine>,
    call: &Call,
    parts: &[&str],
) -> Result<Answer, EsError> {
    let mut cluster = engine.cluster();
    let name = parts.first().copied();
    match (call.method.clone(), name) {
        (Method::GET | Method::HEAD, name) => {
            let pattern = name.unwrap_or("*");
            let found: Map<String, Value> = cluster
                .pipelines
                .iter()
                .filter(|(known, _)| pattern.split(',').any(|pattern| wildcard(pattern, known)))
                .map(|(name, pipeline)| (name.clone(), pipeline.clone()))
                .collect();
            let status = if found.is_empty() && !pattern.contains('*') { 404 } else { 200 };
            Ok(Answer::json(status, &Value::Object(found)))
        }
        (Method::PUT, Some(name)) => {
            let body = call.required_json()?;
            if body.get("processors").and_then(Value::as_array).is_none() {
                return Err(EsError::new(
                    400,
                    "parse_exception",
                    "[processors] required property is missing",
                )
                .with("property_name", "processors"));
            }
            cluster.pipelines.insert(name.to_owned(), body);
            cluster.save()?;
            Ok(acknowledged())
        }
        (Method::DELETE, Some(name)) => {
            let before = cluster.pipelines.len();
            cluster.pipelines.retain(|known, _| !wildcard(name, known));
            if cluster.pipelines.len() == before && !name.contains('*') {
                return Err(EsError::new(
                    404,
                    "resource_not_found_exception",
                    format!("pipeline [{name}] is missing"),
                ));
            }
            cluster.save()?;
            Ok(acknowledged())
        }
        _ => Err(wrong(call)),
    }
}

pub(super) fn policies(
    engine: &Arc<Engine>,
    call: &Call,
    parts: &[&str],
) -> Result<Answer, EsError> {
    let mut cluster = engine.cluster();
    let name = parts.first().copied();
    match (call.method.clone(), name) {
        (Method::GET | Method::HEAD, name) => {
            let pattern = name.unwrap_or("*");
            let found: Map<String, Value> = cluster
                .policies
                .iter()
                .filter(|(known, _)| wildcard(pattern, known))
                .map(|(name, policy)| (name.clone(), policy.clone()))
                .collect();
            if found.is_empty() && !pattern.contains('*') {
                return Err(EsError::new(
                    404,
                    "resource_not_found_exception",
                    format!("Lifecycle policy not found: {pattern}"),
                ));
            }
            Ok(Answer::json(200, &Value::Object(found)))
        }
        (Method::PUT, Some(name)) => {
            let body = call.required_json()?;
            let version = cluster
                .policies
                .get(name)
                .and_then(|known| known.get("version"))
                .and_then(Value::as_u64)
                .unwrap_or(0)
                + 1;
            let policy = body.get("policy").cloned().unwrap_or_default();
            let stored = json!({
                "version": version, "modified_date": dates::format_utc(dates::now_ms()), "policy": policy,
                "in_use_by": {"indices": [], "data_streams": [], "composable_templates": []},
            });
            cluster.policies.insert(name.to_owned(), stored);
            cluster.save()?;
            Ok(acknowledged())
        }
        (Method::DELETE, Some(name)) => {
            if cluster.policies.remove(name).is_none() {
                return Err(EsError::new(
                    404,
                    "resource_not_found_exception",
                    format!("Lifecycle policy not found: {name}"),
                ));
            }
            cluster.save()?;
            Ok(acknowledged())
        }
        _ => Err(wrong(call)),
    }
}
