//! JSON as ZooKeeper's AdminServer lays it out.

use serde_json::Value;

/// Two blanks for each level of objects, arrays in the line they begin in.
pub(super) fn pretty(value: &Value) -> String {
    let mut out = String::new();
    put(&mut out, value, 0);
    out
}

fn put(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(fields) if fields.is_empty() => out.push_str("{ }"),
        Value::Object(fields) => {
            out.push('{');
            for (at, (name, value)) in fields.iter().enumerate() {
                out.push_str(if at > 0 { ",\n" } else { "\n" });
                out.push_str(&"  ".repeat(depth + 1));
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push_str(" : ");
                put(out, value, depth + 1);
            }
            out.push('\n');
            out.push_str(&"  ".repeat(depth));
            out.push('}');
        }
        Value::Array(values) if values.is_empty() => out.push_str("[ ]"),
        Value::Array(values) => {
            out.push_str("[ ");
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                put(out, value, depth);
            }
            out.push_str(" ]");
        }
        plain => out.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn it_is_laid_out_as_zookeepers() {
        let value =
            json!({ "a": [{ "b": 1, "c": "x" }], "d": [1, 2], "e": {}, "f": [], "g": null });
        let expected = "{\n  \"a\" : [ {\n    \"b\" : 1,\n    \"c\" : \"x\"\n  } ],\n  \"d\" : [ 1, 2 ],\n  \"e\" : { },\n  \"f\" : [ ],\n  \"g\" : null\n}";
        assert_eq!(super::pretty(&value), expected);
    }
}
