//! Filebeat's processors, the few that need no outside world.

use elkfk_base::Mistakes;
use elkfk_base::mistakes::did_you_mean;
use regex::Regex;
use serde_json::{Map, Value};

use crate::config::Section;
use crate::event::format::lookup;

/// One step of `processors`, and when it applies.
#[derive(Debug, Clone)]
pub struct Processor {
    action: Action,
    when: Option<Condition>,
}

#[derive(Debug, Clone)]
enum Action {
    AddFields { target: String, fields: Map<String, Value> },
    AddTags { target: String, tags: Vec<String> },
    DropFields(Vec<String>),
    Rename(Vec<(String, String)>),
    DropEvent,
}

#[derive(Debug, Clone)]
enum Condition {
    Equals(Vec<(String, String)>),
    Contains(Vec<(String, String)>),
    Matches(Vec<(String, Regex)>),
    HasFields(Vec<String>),
    Not(Box<Condition>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
}

const NAMES: [&str; 6] =
    ["add_fields", "add_tags", "add_labels", "drop_fields", "rename", "drop_event"];
/// They describe the machine; `host.name` and `agent` are always there, the rest is left out.
const METADATA: [&str; 5] = [
    "add_host_metadata",
    "add_cloud_metadata",
    "add_docker_metadata",
    "add_kubernetes_metadata",
    "add_process_metadata",
];

impl Processor {
    /// `item` is one entry of the list: `- name: {settings}`.
    pub(crate) fn read(
        item: &Section<'_>,
        warnings: &mut Vec<String>,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let name = item.value.as_object().and_then(|map| map.keys().next());
        let Some(name) = name else {
            item.complain("", "a processor is written as - name: {settings}", mistakes);
            return None;
        };
        if METADATA.contains(&name.as_str()) {
            warnings.push(format!(
                "{}:{}: {name} has no effect: only host.name is added",
                item.document.file,
                item.document.line(&item.at(name))
            ));
            return None;
        }
        let empty = Value::Object(Map::new());
        let value = item.get(name).unwrap_or(&empty);
        let section = Section { document: item.document, path: item.at(name), value };
        let (known, ignored): (&[&str], &[&str]) = match name.as_str() {
            "add_fields" => (&["target", "fields", "when"], &[]),
            "add_labels" => (&["labels", "when"], &[]),
            "add_tags" => (&["target", "tags", "when"], &[]),
            // A field that is not there is no mistake here.
            "drop_fields" => (&["fields", "when"], &["ignore_missing"]),
            "rename" => (&["fields", "when"], &["ignore_missing", "fail_on_error"]),
            _ => (&["when"], &[]),
        };
        if NAMES.contains(&name.as_str()) {
            section.allow(known, ignored, warnings, mistakes);
        }
        if name == "rename" {
            for pair in section.items("fields") {
                pair.allow(&["from", "to"], &[], warnings, mistakes);
            }
        }
        let pairs = |key: &str| -> Vec<(String, String)> {
            section
                .items(key)
                .iter()
                .filter_map(|pair| {
                    let text = |key: &str| pair.get(key)?.as_str().map(str::to_string);
                    Some((text("from")?, text("to")?))
                })
                .collect()
        };
        let action = match name.as_str() {
            "add_fields" => Action::AddFields {
                target: section.text("target", mistakes).unwrap_or_else(|| "fields".into()),
                fields: section.map("fields", mistakes),
            },
            "add_labels" => Action::AddFields {
                target: "labels".into(),
                fields: section.map("labels", mistakes),
            },
            "add_tags" => Action::AddTags {
                target: section.text("target", mistakes).unwrap_or_else(|| "tags".into()),
                tags: section.texts("tags", mistakes).unwrap_or_default(),
            },
            "drop_fields" => {
                let mut fields = section.texts("fields", mistakes).unwrap_or_default();
                fields.retain(|field| field != "@timestamp" && field != "type");
                Action::DropFields(fields)
            }
            "rename" => Action::Rename(pairs("fields")),
            "drop_event" => Action::DropEvent,
            other => {
                let hint = did_you_mean(other, NAMES);
                let text = format!("processor \"{other}\" is not supported{hint}");
                item.complain(other, text, mistakes);
                return None;
            }
        };
        let when = match section.child("when") {
            None => None,
            Some(when) => Some(Condition::read(&when, mistakes)?),
        };
        if when.is_none() && matches!(action, Action::DropEvent) {
            section.complain("", "drop_event without a condition drops everything", mistakes);
        }
        Some(Self { action, when })
    }

    /// Whether it does the same to every event.
    pub(crate) fn is_static(&self) -> bool {
        self.when.is_none()
            && matches!(self.action, Action::AddFields { .. } | Action::AddTags { .. })
    }

    /// Returns whether the event is kept.
    pub(crate) fn apply(&self, event: &mut Map<String, Value>) -> bool {
        if self.when.as_ref().is_some_and(|when| !when.holds(event)) {
            return true;
        }
        match &self.action {
            Action::AddFields { target, fields } => {
                for (key, value) in fields {
                    let path =
                        if target.is_empty() { key.clone() } else { format!("{target}.{key}") };
                    put(event, &path, value.clone());
                }
            }
            Action::AddTags { target, tags } => {
                let list = event.entry(target.clone()).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    for tag in tags {
                        if !list.iter().any(|old| old == tag) {
                            list.push(Value::String(tag.clone()));
                        }
                    }
                }
            }
            Action::DropFields(fields) => fields.iter().for_each(|field| {
                take(event, field);
            }),
            Action::Rename(pairs) => {
                for (from, to) in pairs {
                    if lookup_value(event, to).is_none()
                        && let Some(value) = take(event, from)
                    {
                        put(event, to, value);
                    }
                }
            }
            Action::DropEvent => return false,
        }
        true
    }
}

impl Condition {
    fn read(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Self> {
        let (name, value) = section.value.as_object()?.iter().next()?;
        let inner = Section { document: section.document, path: section.at(name), value };
        let pairs = || -> Vec<(String, String)> { flatten("", value) };
        let conditions = |mistakes: &mut _| -> Option<Vec<Self>> {
            section.items(name).iter().map(|item| Self::read(item, mistakes)).collect()
        };
        Some(match name.as_str() {
            "equals" => Self::Equals(pairs()),
            "contains" => Self::Contains(pairs()),
            "regexp" => Self::Matches(
                pairs()
                    .into_iter()
                    .filter_map(|(field, text)| {
                        Some((field.clone(), inner.regex(&field, &text, mistakes)?))
                    })
                    .collect(),
            ),
            "has_fields" => Self::HasFields(section.texts(name, mistakes)?),
            "not" => Self::Not(Box::new(Self::read(&inner, mistakes)?)),
            "and" => Self::And(conditions(mistakes)?),
            "or" => Self::Or(conditions(mistakes)?),
            other => {
                let known = ["equals", "contains", "regexp", "has_fields", "not", "and", "or"];
                let text =
                    format!("condition \"{other}\" is not supported{}", did_you_mean(other, known));
                section.complain(other, text, mistakes);
                return None;
            }
        })
    }

    fn holds(&self, event: &Map<String, Value>) -> bool {
        let field = |name: &str| lookup(event, name);
        match self {
            Self::Equals(pairs) => {
                pairs.iter().all(|(name, text)| field(name).is_some_and(|value| value == *text))
            }
            Self::Contains(pairs) => {
                pairs.iter().all(|(name, text)| match lookup_value(event, name) {
                    Some(Value::Array(items)) => items.iter().any(|item| item == text),
                    _ => field(name).is_some_and(|value| value.contains(text)),
                })
            }
            Self::Matches(pairs) => pairs
                .iter()
                .all(|(name, regex)| field(name).is_some_and(|value| regex.is_match(&value))),
            Self::HasFields(names) => names.iter().all(|name| lookup_value(event, name).is_some()),
            Self::Not(inner) => !inner.holds(event),
            Self::And(all) => all.iter().all(|inner| inner.holds(event)),
            Self::Or(any) => any.iter().any(|inner| inner.holds(event)),
        }
    }
}

fn flatten(prefix: &str, value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&path, value)
            })
            .collect(),
        Value::String(text) => vec![(prefix.into(), text.clone())],
        other => vec![(prefix.into(), other.to_string())],
    }
}

fn lookup_value<'a>(event: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = event.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    lookup_value(event.get(first)?.as_object()?, rest)
}

fn put(event: &mut Map<String, Value>, path: &str, value: Value) {
    if let Some((first, rest)) = path.split_once('.') {
        let child = event.entry(first).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(child) = child {
            put(child, rest, value);
        }
        return;
    }
    event.insert(path.into(), value);
}

fn take(event: &mut Map<String, Value>, path: &str) -> Option<Value> {
    if let Some(value) = event.remove(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    take(event.get_mut(first)?.as_object_mut()?, rest)
}
