//! Lines that are JSON objects: their keys become fields of the event. Filebeat's rules.

use serde_json::{Map, Value, json};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NdjsonSettings {
    /// Where the keys go; empty for the top of the event.
    pub target: String,
    /// The key whose text becomes `message`.
    pub message_key: Option<String>,
    /// Whether keys of the line replace the event's own.
    pub overwrite_keys: bool,
    /// Whether dotted keys become nested ones.
    pub expand_keys: bool,
    /// Whether a line that is not an object gets `error.message`.
    pub add_error_key: bool,
    pub ignore_decoding_error: bool,
}

/// Puts the keys of `line` into `event`, whose `message` is the whole line so far.
///
/// Returns whether the line was an object.
pub(crate) fn decode(
    settings: &NdjsonSettings,
    line: &[u8],
    event: &mut Map<String, Value>,
) -> bool {
    let parsed: Result<Map<String, Value>, _> = serde_json::from_slice(line);
    let keys = match parsed {
        Ok(keys) => keys,
        Err(error) => {
            if settings.add_error_key && !settings.ignore_decoding_error {
                let text = format!("Error decoding JSON: {error}");
                event.insert("error".into(), json!({"message": text, "type": "json"}));
            }
            return false;
        }
    };
    match settings.message_key.as_deref().and_then(|key| keys.get(key)) {
        Some(Value::String(message)) => {
            event.insert("message".into(), Value::String(message.clone()));
        }
        // Filebeat drops the raw line once its keys are fields.
        _ => {
            event.remove("message");
        }
    }
    let keys = if settings.expand_keys { expand(keys) } else { keys };
    if !settings.target.is_empty() {
        event.insert(settings.target.clone(), Value::Object(keys));
        return true;
    }
    for (key, value) in keys {
        if settings.message_key.as_deref() == Some(key.as_str()) && key == "message" {
            continue;
        }
        if key == "@metadata" || (!settings.overwrite_keys && event.contains_key(&key)) {
            continue;
        }
        if key == "@timestamp"
            && value.as_str().is_none_or(|t| t.parse::<jiff::Timestamp>().is_err())
        {
            continue;
        }
        event.insert(key, value);
    }
    true
}

fn expand(keys: Map<String, Value>) -> Map<String, Value> {
    let mut tree = Map::new();
    for (key, value) in keys {
        let value = match value {
            Value::Object(inner) => Value::Object(expand(inner)),
            value => value,
        };
        put(&mut tree, &key, value);
    }
    tree
}

fn put(tree: &mut Map<String, Value>, key: &str, value: Value) {
    if let Some((first, rest)) = key.split_once('.')
        && let Value::Object(child) = tree.entry(first).or_insert_with(|| Value::Object(Map::new()))
    {
        put(child, rest, value);
        return;
    }
    tree.insert(key.into(), value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(settings: &NdjsonSettings, line: &str, expected: Value) {
        let mut event = Map::new();
        event.insert("message".into(), line.into());
        event.insert("host".into(), json!({"name": "h"}));
        decode(settings, line.as_bytes(), &mut event);
        assert_eq!(Value::Object(event), expected);
    }

    #[test]
    fn keys_go_where_the_settings_say() {
        let top = NdjsonSettings { message_key: Some("msg".into()), ..Default::default() };
        check(
            &top,
            r#"{"msg":"m","a.b":1,"host":"x"}"#,
            json!({"message":"m","msg":"m","a.b":1,"host":{"name":"h"}}),
        );
        let expanded = NdjsonSettings { expand_keys: true, overwrite_keys: true, ..top };
        check(&expanded, r#"{"a.b":1,"host":"x"}"#, json!({"host":"x","a":{"b":1}}));
        let target = NdjsonSettings { target: "json".into(), ..Default::default() };
        check(&target, r#"{"a":1}"#, json!({"host":{"name":"h"},"json":{"a":1}}));
    }

    #[test]
    fn a_line_that_is_no_object_stays_whole() {
        check(&NdjsonSettings::default(), "plain", json!({"message":"plain","host":{"name":"h"}}));
    }
}
