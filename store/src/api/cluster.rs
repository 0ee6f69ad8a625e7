//! The cluster as a whole: `/`, health, settings, nodes, licence.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::Call;
use crate::cluster::merge;
use crate::engine::{Engine, Options};
use crate::error::{EsError, NODE_ID};
use crate::http::Answer;

/// The version whose API this is.
pub(super) const VERSION: &str = "8.19.8";

pub(super) fn root(engine: &Arc<Engine>) -> Result<Answer, EsError> {
    Ok(Answer::json(
        200,
        &json!({
            "name": engine.config.node_name, "cluster_name": engine.config.cluster_name, "cluster_uuid": engine.cluster().uuid,
            "version": {
                "number": VERSION, "build_flavor": "default", "build_type": "tar", "build_hash": env!("CARGO_PKG_VERSION"),
                "build_date": "2026-01-01T00:00:00.000Z", "build_snapshot": false, "lucene_version": "9.12.2",
                "minimum_wire_compatibility_version": "7.17.0", "minimum_index_compatibility_version": "7.0.0",
            },
            "tagline": "You Know, for Search",
        }),
    ))
}

/// Primaries, replicas that have no second node to be on, and the colour that follows.
pub(super) fn shard_counts(
    engine: &Engine,
    expression: &str,
) -> Result<(usize, usize, &'static str), EsError> {
    let indices =
        engine.resolve(expression, Options { ignores_unavailable: true, ..Options::default() })?;
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
    Ok((indices.len(), replicas, if replicas == 0 { "green" } else { "yellow" }))
}

pub(super) fn health(
    engine: &Arc<Engine>,
    _call: &Call,
    expression: &str,
) -> Result<Answer, EsError> {
    // Backing indices of data streams count too.
    let expression = if expression.is_empty() { "*,.*" } else { expression };
    let (active, unassigned, status) = shard_counts(engine, expression)?;
    let percent = if active + unassigned == 0 {
        100.0
    } else {
        active as f64 * 100.0 / (active + unassigned) as f64
    };
    Ok(Answer::json(
        200,
        &json!({
            "cluster_name": engine.config.cluster_name, "status": status, "timed_out": false, "number_of_nodes": 1,
            "number_of_data_nodes": 1, "active_primary_shards": active, "active_shards": active, "relocating_shards": 0,
            "initializing_shards": 0, "unassigned_shards": unassigned, "unassigned_primary_shards": 0,
            "delayed_unassigned_shards": 0, "number_of_pending_tasks": 0, "number_of_in_flight_fetch": 0,
            "task_max_waiting_in_queue_millis": 0, "active_shards_percent_as_number": percent,
        }),
    ))
}

pub(super) fn settings(engine: &Arc<Engine>, call: &Call) -> Result<Answer, EsError> {
    let mut cluster = engine.cluster();
    if call.method == hyper::Method::PUT {
        let body = call.required_json()?;
        if let Some(persistent) = body.get("persistent").and_then(Value::as_object) {
            merge(&mut cluster.settings, persistent.clone());
            cluster.save()?;
        }
        return Ok(Answer::json(
            200,
            &json!({"acknowledged": true, "persistent": body.get("persistent").unwrap_or(&json!({})), "transient": {}}),
        ));
    }
    Ok(Answer::json(200, &json!({"persistent": cluster.settings, "transient": {}})))
}

pub(super) fn stats(engine: &Arc<Engine>) -> Result<Answer, EsError> {
    let all = engine.all();
    let mut documents = 0;
    for index in &all {
        documents += index.searcher()?.num_docs();
    }
    let bytes: u64 = all.iter().map(|index| index.disk_bytes()).sum();
    Ok(Answer::json(
        200,
        &json!({
            "cluster_name": engine.config.cluster_name, "cluster_uuid": engine.cluster().uuid,
            "indices": {"count": all.len(), "docs": {"count": documents}, "store": {"size_in_bytes": bytes}},
            "nodes": {"count": {"total": 1}, "versions": [VERSION]},
        }),
    ))
}

pub(super) fn license(engine: &Arc<Engine>) -> Result<Answer, EsError> {
    Ok(Answer::json(
        200,
        &json!({"license": {
            "status": "active", "uid": "00000000-0000-0000-0000-000000000000", "type": "basic", "issue_date": "2026-01-01T00:00:00.000Z",
            "issue_date_in_millis": 1_767_225_600_000_i64, "max_nodes": 1000, "max_resource_units": null,
            "issued_to": engine.config.cluster_name, "issuer": "elasticsearch", "start_date_in_millis": -1,
        }}),
    ))
}

pub(super) fn xpack() -> Result<Answer, EsError> {
    Ok(Answer::json(
        200,
        &json!({
            "build": {"hash": env!("CARGO_PKG_VERSION"), "date": "2026-01-01T00:00:00.000Z"},
            "license": {"uid": "00000000-0000-0000-0000-000000000000", "type": "basic", "mode": "basic", "status": "active"},
            "features": {"ilm": {"available": true, "enabled": true}, "security": {"available": false, "enabled": false}},
            "tagline": "You know, for X",
        }),
    ))
}

const ROLES: &[&str] = &[
    "data",
    "data_cold",
    "data_content",
    "data_frozen",
    "data_hot",
    "data_warm",
    "ingest",
    "master",
    "ml",
    "remote_cluster_client",
    "transform",
];

pub(super) fn nodes(engine: &Arc<Engine>, parts: &[&str]) -> Result<Answer, EsError> {
    let address = engine.config.listen.to_string();
    let mut node = json!({
        "name": engine.config.node_name, "transport_address": address, "host": engine.config.listen.ip().to_string(),
        "ip": engine.config.listen.ip().to_string(), "version": VERSION, "build_flavor": "default", "build_type": "tar", "roles": ROLES,
        "http": {"bound_address": [address], "publish_address": address, "max_content_length_in_bytes": engine.config.body_bytes_max},
    });
    if parts.contains(&"ingest") {
        node["ingest"] = json!({"processors": []});
    }
    if parts.contains(&"stats") {
        let documents: u64 = engine
            .all()
            .iter()
            .filter_map(|index| index.searcher().ok())
            .map(|searcher| searcher.num_docs())
            .sum();
        node["indices"] = json!({"docs": {"count": documents}});
    }
    Ok(Answer::json(
        200,
        &json!({"_nodes": {"total": 1, "successful": 1, "failed": 0}, "cluster_name": engine.config.cluster_name, "nodes": {NODE_ID: node}}),
    ))
}
