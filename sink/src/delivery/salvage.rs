//! Makes a document fit a mapping that refused one of its fields.
//!
//! The field moves to `unmapped.<name>` as text, so the rest of the event can still be found, and
//! the tag `_mapping_conflict` says that this happened.

use serde_json::{Map, Value};

/// Tag of an event one of whose fields was moved.
pub const TAG: &str = "_mapping_conflict";

/// The bulk lines of one document with `field` (dotted) moved away.
///
/// `None` where that cannot help: the field is not there, or is one of those that were moved.
pub fn salvage(lines: &[u8], field: &str) -> Option<Vec<u8>> {
    let action_end = memchr::memchr(b'\n', lines)? + 1;
    let (action, source) = lines.split_at(action_end);
    let Value::Object(mut document) = serde_json::from_slice(source).ok()? else { return None };
    if field == "@timestamp" || field == "unmapped" || field.starts_with("unmapped.") {
        return None;
    }
    let value = remove(&mut document, field)?;
    let unmapped =
        document.entry("unmapped").or_insert_with(|| Value::Object(Map::new())).as_object_mut()?;
    // A dot would make an object of it, which could be refused in turn.
    unmapped.insert(field.trim_matches('.').replace('.', "_"), Value::String(text_of(value)));
    add_tag(&mut document);
    let mut salvaged = action.to_vec();
    serde_json::to_writer(&mut salvaged, &document).ok()?;
    salvaged.push(b'\n');
    Some(salvaged)
}

/// Takes out `a.b.c`, wherever its dots are: between objects or within a name.
fn remove(object: &mut Map<String, Value>, field: &str) -> Option<Value> {
    if let Some(value) = object.shift_remove(field) {
        return Some(value);
    }
    for (dot, _) in field.match_indices('.') {
        let rest = &field[dot + 1..];
        match object.get_mut(&field[..dot]) {
            Some(Value::Object(inner)) => {
                if let Some(value) = remove(inner, rest) {
                    return Some(value);
                }
            }
            // The values of an array of objects share one mapping.
            Some(Value::Array(elements)) => {
                let values: Vec<Value> = elements
                    .iter_mut()
                    .filter_map(|element| remove(element.as_object_mut()?, rest))
                    .collect();
                if !values.is_empty() {
                    return Some(Value::Array(values));
                }
            }
            _ => {}
        }
    }
    None
}

fn text_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn add_tag(document: &mut Map<String, Value>) {
    let tag = Value::String(TAG.into());
    match document.get_mut("tags") {
        Some(Value::Array(tags)) => tags.push(tag),
        Some(other) => *other = Value::Array(vec![other.take(), tag]),
        None => {
            document.insert("tags".into(), Value::Array(vec![tag]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &str, field: &str, expected: Option<&str>) {
        let lines = format!("{{\"create\":{{}}}}\n{document}\n");
        let salvaged = salvage(lines.as_bytes(), field).map(|lines| {
            let text = String::from_utf8(lines).unwrap();
            text.strip_prefix("{\"create\":{}}\n").unwrap().trim_end().to_owned()
        });
        assert_eq!(salvaged.as_deref(), expected);
    }

    #[test]
    fn field_moves_as_text_and_the_event_is_tagged() {
        check(
            r#"{"a":1,"n":"x"}"#,
            "n",
            Some(r#"{"a":1,"unmapped":{"n":"x"},"tags":["_mapping_conflict"]}"#),
        );
        check(
            r#"{"n":{"b":[1]},"tags":["t"]}"#,
            "n",
            Some(r#"{"tags":["t","_mapping_conflict"],"unmapped":{"n":"{\"b\":[1]}"}}"#),
        );
        check(
            r#"{"h":{"n":5},"tags":"t"}"#,
            "h.n",
            Some(r#"{"h":{},"tags":["t","_mapping_conflict"],"unmapped":{"h_n":"5"}}"#),
        );
        check(
            r#"{"a.b":{"c":1}}"#,
            "a.b.c",
            Some(r#"{"a.b":{},"unmapped":{"a_b_c":"1"},"tags":["_mapping_conflict"]}"#),
        );
        check(
            r#"{"l":[{"x":1},{"x":2},{"y":3}]}"#,
            "l.x",
            Some(
                r#"{"l":[{},{},{"y":3}],"unmapped":{"l_x":"[1,2]"},"tags":["_mapping_conflict"]}"#,
            ),
        );
    }

    #[test]
    fn what_cannot_help_is_not_tried() {
        check(r#"{"a":1}"#, "b", None);
        check(r#"{"@timestamp":"x"}"#, "@timestamp", None);
        check(r#"{"unmapped":{"n":1}}"#, "unmapped.n", None);
        check(r#"not json"#, "a", None);
    }
}
