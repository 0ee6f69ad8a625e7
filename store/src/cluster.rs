//! What a cluster remembers besides its indices: templates, pipelines, policies, settings.
//!
//! Templates are obeyed when an index is made; pipelines and policies are only kept and shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use elkfk_base::durable;
use serde_json::{Map, Value, json};

use crate::error::EsError;
use crate::mapping::wildcard;

type Named = BTreeMap<String, Value>;

/// `cluster.json` in the data directory.
#[derive(Debug)]
pub struct Cluster {
    file: PathBuf,
    pub uuid: String,
    pub index_templates: Named,
    pub component_templates: Named,
    pub legacy_templates: Named,
    pub pipelines: Named,
    pub policies: Named,
    pub settings: Map<String, Value>,
}

/// What a template gives to a new index.
#[derive(Debug, Default)]
pub struct Template {
    /// Under `index`, values as texts.
    pub settings: Map<String, Value>,
    /// Each to be merged after the one before it.
    pub mappings: Vec<Value>,
    pub aliases: Map<String, Value>,
    pub is_data_stream: bool,
}

impl Cluster {
    pub fn open(directory: &Path) -> Result<Self, EsError> {
        let file = directory.join("cluster.json");
        let json: Value = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| EsError::internal(format!("read {}: {error}", file.display())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => json!({}),
            Err(error) => return Err(error.into()),
        };
        let named = |key: &str| -> Named {
            json.get(key)
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect()
        };
        let is_new = json.get("uuid").is_none();
        let cluster = Self {
            uuid: json.get("uuid").and_then(Value::as_str).map_or_else(random_id, str::to_owned),
            index_templates: named("index_templates"),
            component_templates: named("component_templates"),
            legacy_templates: named("legacy_templates"),
            pipelines: named("pipelines"),
            policies: named("policies"),
            settings: json.get("settings").and_then(Value::as_object).cloned().unwrap_or_default(),
            file,
        };
        if is_new {
            cluster.save()?;
        }
        Ok(cluster)
    }

    /// Makes it durable.
    pub fn save(&self) -> Result<(), EsError> {
        let json = json!({
            "uuid": self.uuid, "index_templates": self.index_templates, "component_templates": self.component_templates,
            "legacy_templates": self.legacy_templates, "pipelines": self.pipelines, "policies": self.policies,
            "settings": self.settings,
        });
        let text = serde_json::to_vec_pretty(&json)
            .map_err(|error| EsError::internal(error.to_string()))?;
        Ok(durable::replace(&self.file, &text)?)
    }

    /// The index template of the highest priority that matches, else the legacy ones in their order.
    pub fn template_for(&self, name: &str) -> Template {
        let matching =
            |template: &Value| patterns(template).iter().any(|pattern| wildcard(pattern, name));
        let best =
            self.index_templates.values().filter(|template| matching(template)).max_by_key(
                |template| template.get("priority").and_then(Value::as_i64).unwrap_or(0),
            );
        let mut result = Template::default();
        if let Some(template) = best {
            for component in
                template.get("composed_of").and_then(Value::as_array).into_iter().flatten()
            {
                let component =
                    component.as_str().and_then(|name| self.component_templates.get(name));
                if let Some(body) = component.and_then(|component| component.get("template")) {
                    result.take(body);
                }
            }
            if let Some(body) = template.get("template") {
                result.take(body);
            }
            result.is_data_stream = template.get("data_stream").is_some();
            return result;
        }
        let mut legacy: Vec<&Value> =
            self.legacy_templates.values().filter(|template| matching(template)).collect();
        legacy.sort_by_key(|template| template.get("order").and_then(Value::as_i64).unwrap_or(0));
        legacy.into_iter().for_each(|template| result.take(template));
        result
    }

    /// A template of other name with the same patterns and priority, which Elasticsearch refuses.
    pub fn conflict(&self, name: &str, template: &Value) -> Option<(&String, &Value)> {
        let priority =
            |template: &Value| template.get("priority").and_then(Value::as_i64).unwrap_or(0);
        let own = patterns(template);
        self.index_templates.iter().find(|(other, known)| {
            other.as_str() != name
                && priority(known) == priority(template)
                && patterns(known).iter().any(|theirs| own.iter().any(|ours| overlap(ours, theirs)))
        })
    }
}

/// Whether some name matches both patterns; exact where one is a plain name or both end in `*`.
fn overlap(a: &str, b: &str) -> bool {
    let stem = |pattern: &str| pattern.split('*').next().unwrap_or_default().to_owned();
    match (a.contains('*'), b.contains('*')) {
        (false, _) => wildcard(b, a),
        (_, false) => wildcard(a, b),
        _ => stem(a).starts_with(&stem(b)) || stem(b).starts_with(&stem(a)),
    }
}

impl Template {
    fn take(&mut self, body: &Value) {
        if let Some(settings) = body.get("settings") {
            merge(&mut self.settings, index_settings(settings));
        }
        if let Some(mappings) = body.get("mappings") {
            self.mappings.push(mappings.clone());
        }
        for (alias, value) in body.get("aliases").and_then(Value::as_object).into_iter().flatten() {
            self.aliases.insert(alias.clone(), value.clone());
        }
    }
}

pub fn patterns(template: &Value) -> Vec<String> {
    match template.get("index_patterns") {
        Some(Value::String(pattern)) => vec![pattern.clone()],
        Some(Value::Array(list)) => {
            list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

/// Settings as Elasticsearch shows them: nested under `index`, scalars as texts.
pub fn index_settings(settings: &Value) -> Map<String, Value> {
    let mut flat = Vec::new();
    flatten(settings, "", &mut flat);
    let mut nested = Map::new();
    for (key, value) in flat {
        let key = key.strip_prefix("index.").unwrap_or(&key);
        // From the innermost key outwards, then merged into what is there.
        let mut parts = key.rsplit('.');
        let Some(last) = parts.next() else { continue };
        let mut one = Map::new();
        one.insert(last.to_owned(), value);
        for part in parts {
            let inner = std::mem::take(&mut one);
            one.insert(part.to_owned(), Value::Object(inner));
        }
        merge(&mut nested, one);
    }
    nested
}

fn flatten(value: &Value, prefix: &str, out: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(value, &path, out);
            }
        }
        Value::String(_) | Value::Null => out.push((prefix.to_owned(), value.clone())),
        Value::Array(list) => {
            let texts = list
                .iter()
                .map(|v| v.as_str().map_or_else(|| v.to_string().into(), |s| s.into()))
                .collect();
            out.push((prefix.to_owned(), Value::Array(texts)));
        }
        other => out.push((prefix.to_owned(), other.to_string().into())),
    }
}

/// Merges deeply; `from` wins.
pub fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// 22 characters as Elasticsearch's uuids have.
pub fn random_id() -> String {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bits = u128::from_be_bytes(bytes);
    let mut text = String::with_capacity(22);
    for _ in 0..22 {
        text.push(char::from(digits[(bits & 63) as usize]));
        bits >>= 6;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_priority_template_is_obeyed_with_its_components() {
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::open(directory.path()).unwrap();
        cluster
            .component_templates
            .insert("c".into(), json!({"template": {"settings": {"number_of_shards": 1}}}));
        cluster.index_templates.insert(
            "low".into(),
            json!({"index_patterns": "logs-*", "template": {"aliases": {"no": {}}}}),
        );
        cluster.index_templates.insert(
            "high".into(),
            json!({"index_patterns": ["logs-*"], "priority": 5, "composed_of": ["c"], "template": {"settings": {"index.refresh_interval": "5s"}}}),
        );
        cluster.save().unwrap();
        let cluster = Cluster::open(directory.path()).unwrap();
        let template = cluster.template_for("logs-1");
        assert!(template.aliases.is_empty());
        assert_eq!(
            Value::Object(template.settings),
            json!({"number_of_shards": "1", "refresh_interval": "5s"})
        );
        assert!(
            cluster.conflict("x", &json!({"index_patterns": ["logs-a*"], "priority": 5})).is_some()
        );
        assert!(
            cluster
                .conflict("x", &json!({"index_patterns": ["metrics-*"], "priority": 5}))
                .is_none()
        );
    }
}
