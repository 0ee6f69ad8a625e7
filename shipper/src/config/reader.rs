//! Typed access to a tree of keys; what cannot be read becomes a mistake with its place.

use std::time::Duration;

use elkfk_base::mistakes::did_you_mean;
use elkfk_base::{Mistakes, units};
use regex::Regex;
use serde_json::{Map, Value};

use super::keys::{self, Key, Treatment};
use super::yaml::Document;

/// The keys below one place of a file.
pub(crate) struct Section<'a> {
    pub(crate) document: &'a Document,
    /// Dotted; empty for the whole file.
    pub(crate) path: String,
    pub(crate) value: &'a Value,
}

impl<'a> Section<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        key.split('.').try_fold(self.value, |value, name| value.get(name)).filter(|v| !v.is_null())
    }

    pub(crate) fn child(&self, key: &str) -> Option<Section<'a>> {
        let value = self.get(key)?;
        Some(Section { document: self.document, path: self.at(key), value })
    }

    pub(crate) fn items(&self, key: &str) -> Vec<Section<'a>> {
        let items = self.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items
            .iter()
            .enumerate()
            .map(|(i, value)| Section {
                document: self.document,
                path: format!("{}.{i}", self.at(key)),
                value,
            })
            .collect()
    }

    pub(crate) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    pub(crate) fn complain(&self, key: &str, text: impl Into<String>, mistakes: &mut Mistakes) {
        mistakes.push(self.document.mistake(&self.at(key), text));
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        mistakes: &mut Mistakes,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let result = read(value);
        if result.is_none() {
            self.complain(key, format!("{key}: {value} is not {expected}"), mistakes);
        }
        result
    }

    pub(crate) fn bool(&self, key: &str, mistakes: &mut Mistakes) -> Option<bool> {
        self.typed(key, "true or false", mistakes, |value| match value {
            Value::Bool(value) => Some(*value),
            Value::String(text) => text.parse().ok(),
            _ => None,
        })
    }

    pub(crate) fn text(&self, key: &str, mistakes: &mut Mistakes) -> Option<String> {
        self.typed(key, "a text", mistakes, scalar_text)
    }

    pub(crate) fn number(&self, key: &str, mistakes: &mut Mistakes) -> Option<u64> {
        self.typed(key, "a number", mistakes, |value| match value {
            Value::String(text) => text.parse().ok(),
            value => value.as_u64(),
        })
    }

    pub(crate) fn bytes(&self, key: &str, mistakes: &mut Mistakes) -> Option<u64> {
        self.typed(key, "a size such as 10MB", mistakes, |value| match value {
            Value::String(text) => units::parse_bytes(text),
            value => value.as_u64(),
        })
    }

    /// Bare numbers are seconds, as in Beats.
    pub(crate) fn duration(&self, key: &str, mistakes: &mut Mistakes) -> Option<Duration> {
        self.typed(key, "a duration such as 10s", mistakes, |value| {
            units::parse_duration(&scalar_text(value)?, Duration::from_secs(1))
        })
    }

    /// One text or a list of them.
    pub(crate) fn texts(&self, key: &str, mistakes: &mut Mistakes) -> Option<Vec<String>> {
        self.typed(key, "a list of texts", mistakes, |value| match value {
            Value::Array(items) => items.iter().map(scalar_text).collect(),
            value => scalar_text(value).map(|text| vec![text]),
        })
    }

    pub(crate) fn regexes(&self, key: &str, mistakes: &mut Mistakes) -> Vec<Regex> {
        let patterns = self.texts(key, mistakes).unwrap_or_default();
        patterns.iter().filter_map(|text| self.regex(key, text, mistakes)).collect()
    }

    pub(crate) fn regex(&self, key: &str, text: &str, mistakes: &mut Mistakes) -> Option<Regex> {
        Regex::new(text)
            .map_err(|error| {
                let last = error.to_string();
                let last = last.lines().last().unwrap_or_default().trim();
                self.complain(key, format!("{key}: pattern {text:?}: {last}"), mistakes);
            })
            .ok()
    }

    pub(crate) fn map(&self, key: &str, mistakes: &mut Mistakes) -> Map<String, Value> {
        self.typed(key, "a group of keys", mistakes, |value| value.as_object().cloned())
            .unwrap_or_default()
    }

    /// Holds the keys of a parser, a processor or the like against those it has; `ignored` ones have no
    /// effect and become warnings.
    pub(crate) fn allow(
        &self,
        known: &[&str],
        ignored: &[&str],
        warnings: &mut Vec<String>,
        mistakes: &mut Mistakes,
    ) {
        let Some(map) = self.value.as_object() else {
            if !self.value.is_null() {
                self.complain("", "holds keys, not a value", mistakes);
            }
            return;
        };
        for key in map.keys() {
            if ignored.contains(&key.as_str()) {
                let (file, line) = (&self.document.file, self.document.line(&self.at(key)));
                warnings.push(format!("{file}:{line}: {key} has no effect"));
            } else if !known.contains(&key.as_str()) {
                let hint = did_you_mean(key, known.iter().copied());
                self.complain(key, format!("unknown key \"{key}\"{hint}"), mistakes);
            }
        }
    }

    /// Holds every key of the section against `table`.
    ///
    /// Unknown keys are mistakes; known ones without effect go to `ignored`, refused ones to `refused`.
    pub(super) fn check(&self, table: &'static [Key], found: &mut Found) {
        if let Some(map) = self.value.as_object() {
            self.check_below(table, "", map, found);
        }
    }

    fn check_below(
        &self,
        table: &'static [Key],
        prefix: &str,
        map: &Map<String, Value>,
        found: &mut Found,
    ) {
        for (name, value) in map {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let line = self.document.line(&self.at(&path));
            let is_inner = keys::is_inner(table, &path);
            if let Value::Object(inner) = value
                && is_inner
            {
                self.check_below(table, &path, inner, found);
                continue;
            }
            match keys::find(table, &path) {
                Some(Treatment::Honoured) => {}
                Some(Treatment::Ignored(why)) => {
                    found.ignored.push(format!(
                        "{}:{line}: {path} has no effect: {why}",
                        self.document.file
                    ));
                }
                Some(Treatment::Refused(why)) => found.refused.push((line, self.at(&path), why)),
                None if is_inner && value.is_null() => {}
                None if is_inner => {
                    let text = format!("{path} holds keys, not a value");
                    self.complain(&path, text, &mut found.mistakes);
                }
                None => {
                    let known: Vec<&str> = keys::names(table).collect();
                    // Written in full or relative to where it stands, whichever is nearer.
                    let hint = did_you_mean(&path, known.iter().copied());
                    self.complain(
                        &path,
                        format!("unknown key \"{path}\"{hint}"),
                        &mut found.mistakes,
                    );
                }
            }
        }
    }
}

/// What holding a file against the tables of keys brought up.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) mistakes: Mistakes,
    pub(crate) ignored: Vec<String>,
    /// Line, key, reason.
    pub(crate) refused: Vec<(usize, String, &'static str)>,
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}
