//! `_field_caps`: which fields there are over several indices, of which types, and what can be done with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::Call;
use crate::engine::Engine;
use crate::error::EsError;
use crate::http::Answer;
use crate::mapping::{Kind, Place, wildcard};
use crate::search::dsl::text_of;

/// Name, searchable, aggregatable.
const METADATA: &[(&str, bool, bool)] = &[
    ("_data_stream_timestamp", false, false),
    ("_field_names", true, false),
    ("_id", true, false),
    ("_ignored", true, true),
    ("_ignored_source", false, false),
    ("_index", true, true),
    ("_index_mode", true, true),
    ("_nested_path", true, false),
    ("_routing", true, false),
    ("_seq_no", true, true),
    ("_source", false, false),
];

/// Type → searchable, aggregatable, the indices that have it.
type Kinds<'a> = BTreeMap<String, (bool, bool, BTreeSet<&'a str>)>;

pub(super) fn field_caps(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
) -> Result<Answer, EsError> {
    let body = call.json()?.unwrap_or(Value::Null);
    let wanted: Vec<String> = match body.get("fields") {
        Some(Value::Array(list)) => list.iter().map(text_of).collect(),
        Some(one) => text_of(one).split(',').map(str::to_owned).collect(),
        None => call
            .parameter("fields")
            .unwrap_or_default()
            .split(',')
            .filter(|f| !f.is_empty())
            .map(str::to_owned)
            .collect(),
    };
    if wanted.is_empty() {
        return Err(EsError::illegal_argument("specified fields can't be null or empty"));
    }
    let is_wanted = |path: &str| wanted.iter().any(|pattern| wildcard(pattern, path));
    let filters: Vec<&str> = call.parameter("filters").unwrap_or_default().split(',').collect();
    let takes_metadata = !filters.contains(&"-metadata");
    let indices = engine.resolve(expression, call.options())?;
    let names: Vec<&str> = indices.iter().map(|index| index.name.as_str()).collect();
    // path → type → (searchable, aggregatable, indices)
    let mut fields: BTreeMap<String, Kinds<'_>> = BTreeMap::new();
    for index in &indices {
        let mapping = index.mapping.get();
        let mut objects = BTreeSet::new();
        for (path, resolved) in mapping.all() {
            // Objects that lead to a wanted field are shown with it.
            let mut parent = resolved.path;
            while let Some((upper, _)) = parent.rsplit_once('.') {
                if is_wanted(&path) || is_wanted(upper) {
                    objects.insert(upper.to_owned());
                }
                parent = upper;
            }
            if !is_wanted(&path) {
                continue;
            }
            let is_searchable = resolved.place != Place::Nowhere;
            let is_aggregatable =
                resolved.is_aggregatable() && is_searchable && resolved.place != Place::Message;
            let kind = match resolved.kind {
                Kind::Opaque => resolved.type_name,
                _ => match resolved.type_name {
                    "match_only_text" => "text",
                    "constant_keyword" | "wildcard" => "keyword",
                    other => other,
                },
            };
            let entry = fields.entry(path).or_default().entry(kind.to_owned()).or_insert((
                true,
                true,
                BTreeSet::new(),
            ));
            entry.0 &= is_searchable;
            entry.1 &= is_aggregatable;
            entry.2.insert(&index.name);
        }
        for object in objects {
            fields
                .entry(object)
                .or_default()
                .entry("object".into())
                .or_insert((false, false, BTreeSet::new()))
                .2
                .insert(&index.name);
        }
    }
    let takes_unmapped = call.flag("include_unmapped");
    let mut shown = Map::new();
    for (path, types) in fields {
        let mapped: BTreeSet<&str> =
            types.values().flat_map(|(_, _, names)| names.iter().copied()).collect();
        let is_split = types.len() > 1 || (takes_unmapped && mapped.len() < names.len());
        let mut kinds = Map::new();
        for (kind, (is_searchable, is_aggregatable, within)) in types {
            let mut caps = json!({"type": kind, "metadata_field": false, "searchable": is_searchable, "aggregatable": is_aggregatable});
            if is_split {
                caps["indices"] = json!(within);
            }
            kinds.insert(kind, caps);
        }
        if takes_unmapped && mapped.len() < names.len() {
            let missing: Vec<&&str> =
                names.iter().filter(|name| !mapped.contains(**name)).collect();
            kinds.insert("unmapped".into(), json!({"type": "unmapped", "metadata_field": false, "searchable": false, "aggregatable": false, "indices": missing}));
        }
        shown.insert(path, Value::Object(kinds));
    }
    if takes_metadata && !indices.is_empty() {
        let mut put = |name: &str, kind: &str, is_searchable: bool, is_aggregatable: bool| {
            if is_wanted(name) {
                shown.insert(
                    name.to_owned(),
                    json!({kind: {"type": kind, "metadata_field": true, "searchable": is_searchable, "aggregatable": is_aggregatable}}),
                );
            }
        };
        for (name, is_searchable, is_aggregatable) in METADATA {
            put(name, name, *is_searchable, *is_aggregatable);
        }
        put("_doc_count", "integer", false, false);
        put("_tier", "keyword", true, true);
        put("_version", "_version", false, true);
    }
    Ok(Answer::json(200, &json!({"indices": names, "fields": shown})))
}
