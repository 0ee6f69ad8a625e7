//! YAML as Beats reads it: dotted and nested keys are one tree, `${VAR}` comes from the environment.

use std::collections::HashMap;

use elkfk_base::{Mistake, Mistakes};
use serde_json::{Map, Value};

/// A file's tree with all dotted keys taken apart, and the lines its keys stand on.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) file: String,
    pub(crate) root: Value,
    lines: HashMap<String, usize>,
}

impl Document {
    /// `variable` looks up an environment variable.
    pub(crate) fn parse(
        file: &str,
        text: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Mistakes> {
        let parsed: Value = serde_norway::from_str(text).map_err(|error| {
            let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
            Mistakes(vec![Mistake::new(file, line, column, format!("not YAML: {error}"))])
        })?;
        let lines = key_lines(text);
        let mut document = Self { file: file.into(), root: Value::Null, lines };
        let mut mistakes = Mistakes::default();
        let root = document.expand("", parsed, variable, &mut mistakes);
        document.root = match root {
            Value::Null => Value::Object(Map::new()),
            root => root,
        };
        mistakes.or(document)
    }

    /// The line of the key at `path`, or of its nearest ancestor; 0 when none is known.
    pub(crate) fn line(&self, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            // Of a key that is only written as a part of dotted ones, the first of these.
            let below =
                |key: &&String| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
            if let Some(line) = self.lines.keys().filter(below).map(|key| self.lines[key]).min() {
                return line;
            }
            match path.rfind('.') {
                Some(dot) => path = &path[..dot],
                None => return 0,
            }
        }
    }

    pub(crate) fn mistake(&self, path: &str, text: impl Into<String>) -> Mistake {
        Mistake::new(self.file.clone(), self.line(path), 0, text)
    }

    fn expand(
        &self,
        path: &str,
        value: Value,
        variable: &dyn Fn(&str) -> Option<String>,
        mistakes: &mut Mistakes,
    ) -> Value {
        match value {
            Value::Object(map) => {
                let mut tree = Map::new();
                for (key, value) in map {
                    let at = join(path, &key);
                    let value = self.expand(&at, value, variable, mistakes);
                    if !insert(&mut tree, &key, value) {
                        mistakes.push(self.mistake(&at, format!("{key:?} is given twice")));
                    }
                }
                Value::Object(tree)
            }
            Value::Array(items) => items
                .into_iter()
                .enumerate()
                .map(|(i, item)| self.expand(&join(path, &i.to_string()), item, variable, mistakes))
                .collect(),
            Value::String(text) if text.contains("${") => {
                match expand_variables(&text, variable) {
                    // What a variable holds is read as if it stood in the file.
                    Ok(text) => match serde_norway::from_str(&text) {
                        Ok(scalar @ (Value::Bool(_) | Value::Number(_))) => scalar,
                        _ => Value::String(text),
                    },
                    Err(problem) => {
                        mistakes.push(self.mistake(path, problem));
                        Value::String(text)
                    }
                }
            }
            value => value,
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.into() } else { format!("{path}.{key}") }
}

/// Puts `value` at the dotted `key`; false when a scalar stands there already.
fn insert(tree: &mut Map<String, Value>, key: &str, value: Value) -> bool {
    // Only identifiers are split: a key such as "a b" or a pattern stays whole.
    if let Some((first, rest)) = key.split_once('.').filter(|(a, b)| !a.is_empty() && !b.is_empty())
    {
        let child = tree.entry(first).or_insert_with(|| Value::Object(Map::new()));
        return match child {
            Value::Object(child) => insert(child, rest, value),
            _ => false,
        };
    }
    match (tree.get_mut(key), value) {
        (None, value) => {
            tree.insert(key.into(), value);
            true
        }
        (Some(Value::Object(old)), Value::Object(new)) => {
            new.into_iter().fold(true, |ok, (key, value)| insert(old, &key, value) && ok)
        }
        (Some(_), _) => false,
    }
}

fn expand_variables(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let end =
            rest[start..].find('}').ok_or_else(|| format!("{text:?} lacks a closing brace"))?;
        let inside = &rest[start + 2..start + end];
        let (name, default) = match inside.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        match (variable(name), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) if default.starts_with('?') => return Err(default[1..].into()),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err(format!(
                    "environment variable {name} is not set; set it or write ${{{name}:default}}"
                ));
            }
        }
        rest = &rest[start + end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Where each key of block-style YAML stands: dotted path (list items by number) → line from 1.
///
/// Keys inside `{…}` are not seen; they share the line of the key that holds them.
fn key_lines(text: &str) -> HashMap<String, usize> {
    struct Level {
        indent: usize,
        path: String,
        next_item: usize,
    }
    let mut lines = HashMap::new();
    let mut levels: Vec<Level> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut rest = line.trim_start();
        let mut indent = line.len() - rest.len();
        if rest.is_empty() || rest.starts_with('#') {
            continue;
        }
        // A dash opens an item of the nearest key that is not further right.
        while let Some(after) =
            rest.strip_prefix('-').filter(|a| a.is_empty() || a.starts_with(' '))
        {
            while levels.last().is_some_and(|level| level.indent > indent) {
                levels.pop();
            }
            if levels.last().is_some_and(|l| {
                l.indent == indent
                    && l.path.ends_with(|c: char| c.is_ascii_digit())
                    && l.next_item == usize::MAX
            }) {
                levels.pop();
            }
            let Some(parent) = levels.last_mut() else { break };
            let path = join(&parent.path, &parent.next_item.to_string());
            parent.next_item += 1;
            lines.insert(path.clone(), number + 1);
            levels.push(Level { indent, path, next_item: usize::MAX });
            let inner = after.trim_start();
            indent += rest.len() - inner.len();
            rest = inner;
        }
        let Some(end) = rest.find(": ").or_else(|| rest.trim_end().strip_suffix(':').map(str::len))
        else {
            continue;
        };
        let key = rest[..end].trim().trim_matches(['"', '\'']);
        while levels.last().is_some_and(|level| level.indent >= indent) {
            levels.pop();
        }
        let path = levels.last().map_or_else(|| key.into(), |level| join(&level.path, key));
        lines.entry(path.clone()).or_insert(number + 1);
        levels.push(Level { indent, path, next_item: 0 });
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<Document, Mistakes> {
        Document::parse("filebeat.yml", text, &|name| {
            (name == "HOST").then(|| "10.0.0.7".to_string())
        })
    }

    #[test]
    fn dotted_and_nested_keys_are_one_tree() {
        let document = parse("filebeat.inputs:\n- type: log\n  close.on_state_change:\n    inactive: 5m\n  close.reader.on_eof: true\noutput.kafka.hosts: [a]\noutput:\n  kafka:\n    topic: t\n").unwrap();
        assert_eq!(
            document.root,
            json!({
                "filebeat": {"inputs": [{"type": "log", "close": {"on_state_change": {"inactive": "5m"}, "reader": {"on_eof": true}}}]},
                "output": {"kafka": {"hosts": ["a"], "topic": "t"}},
            })
        );
    }

    #[test]
    fn keys_are_found_by_line() {
        let text = "filebeat.inputs:\n- type: log\n  paths:\n    - /a\n- type: filestream\n  idd: x\n\noutput.kafka:\n  # where\n  hosts: [a]\n";
        let document = parse(text).unwrap();
        for (path, line) in [
            ("filebeat.inputs.0.type", 2),
            ("filebeat.inputs.0.paths", 3),
            ("filebeat.inputs.1.idd", 6),
            ("output.kafka.hosts", 10),
            ("output.kafka.nothing", 8),
        ] {
            assert_eq!(document.line(path), line, "{path}");
        }
        let indented =
            parse("filebeat:\n  inputs:\n    - type: log\n      x: 1\n    - y: 2\n").unwrap();
        assert_eq!(indented.line("filebeat.inputs.0.x"), 4);
        assert_eq!(indented.line("filebeat.inputs.1.y"), 5);
    }

    #[test]
    fn variables_come_from_the_environment_or_their_default() {
        let document = parse("a: ${HOST}:9092\nb: ${PORT:9092}\nc: ${X:}\n").unwrap();
        assert_eq!(document.root, json!({"a": "10.0.0.7:9092", "b": 9092, "c": ""}));
        let mistakes = parse("k: 1\na: ${NOWHERE}\nb: ${Z:?set Z}\n").unwrap_err();
        assert_eq!(
            mistakes.to_string(),
            "filebeat.yml:2: environment variable NOWHERE is not set; set it or write ${NOWHERE:default}\nfilebeat.yml:3: set Z"
        );
    }

    #[test]
    fn what_is_not_yaml_is_named_by_place() {
        let mistakes = parse("a: [1\nb: 2\n").unwrap_err();
        assert!(mistakes.0[0].line > 0, "{mistakes}");
    }
}
