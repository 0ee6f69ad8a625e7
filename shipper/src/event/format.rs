//! Beats' format strings: `logs-%{[fields.app]:none}-%{+yyyy.MM.dd}`.

use serde_json::{Map, Value};

/// A parsed format string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A field by its dotted name, and what stands for it where it is missing.
    Field {
        name: String,
        default: Option<String>,
    },
    /// A date pattern of `yyyy MM dd HH mm ss` and separators.
    Date(String),
}

impl Format {
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some(start) = rest.find("%{") {
            if start > 0 {
                parts.push(Part::Text(rest[..start].into()));
            }
            let end =
                rest[start..].find('}').ok_or_else(|| format!("{text:?} lacks a closing brace"))?;
            let inside = &rest[start + 2..start + end];
            parts.push(parse_reference(inside).ok_or_else(|| {
                format!("%{{{inside}}} is not a reference such as %{{[fields.name]}} or %{{+yyyy.MM.dd}}")
            })?);
            rest = &rest[start + end + 1..];
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self { parts })
    }

    /// The text itself, where nothing in it varies.
    pub fn fixed(&self) -> Option<&str> {
        match &self.parts[..] {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Replaces references to fields of `known` by their values, and, where `is_last`, those that
    /// are missing by their defaults.
    pub fn resolve(&self, known: &Map<String, Value>) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        for part in &self.parts {
            let part = match part {
                Part::Field { name, .. } => match lookup(known, name) {
                    Some(value) => Part::Text(value),
                    None => part.clone(),
                },
                part => part.clone(),
            };
            match (parts.last_mut(), part) {
                (Some(Part::Text(text)), Part::Text(more)) => text.push_str(&more),
                (_, part) => parts.push(part),
            }
        }
        Self { parts }
    }

    /// The text for one event; `None` where a field without default is missing.
    pub fn render(&self, event: &Map<String, Value>, time_ms: i64) -> Option<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Field { name, default } => {
                    text.push_str(&lookup(event, name).or_else(|| default.clone())?);
                }
                Part::Date(pattern) => text.push_str(&date(pattern, time_ms)),
            }
        }
        Some(text)
    }
}

fn parse_reference(inside: &str) -> Option<Part> {
    if let Some(pattern) = inside.strip_prefix('+') {
        return Some(Part::Date(pattern.into()));
    }
    let (name, default) = match inside.find("]:") {
        Some(at) => (&inside[..=at], Some(inside[at + 2..].to_string())),
        None => (inside, None),
    };
    let name = name.strip_prefix('[')?.strip_suffix(']')?.replace("][", ".");
    (!name.is_empty()).then_some(Part::Field { name, default })
}

/// The field at a dotted path, as text.
pub(crate) fn lookup(event: &Map<String, Value>, path: &str) -> Option<String> {
    if let Some(value) = event.get(path) {
        return scalar(value);
    }
    let (first, rest) = path.split_once('.')?;
    lookup(event.get(first)?.as_object()?, rest)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

fn date(pattern: &str, time_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(time_ms)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_zoned(jiff::tz::TimeZone::UTC);
    let mut text = String::new();
    let mut rest = pattern;
    while let Some(letter) = rest.chars().next() {
        let length = rest.len() - rest.trim_start_matches(letter).len();
        match letter {
            'y' | 'Y' => text.push_str(&format!("{:04}", time.year())),
            'M' => text.push_str(&format!("{:02}", time.month())),
            'd' => text.push_str(&format!("{:02}", time.day())),
            'H' => text.push_str(&format!("{:02}", time.hour())),
            'm' => text.push_str(&format!("{:02}", time.minute())),
            's' => text.push_str(&format!("{:02}", time.second())),
            _ => text.push_str(&rest[..length]),
        }
        rest = &rest[length..];
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(format: &str, event: Value, expected: Option<&str>) {
        let event = event.as_object().unwrap();
        let format = Format::parse(format).unwrap();
        assert_eq!(format.render(event, 1_772_323_200_000).as_deref(), expected);
        assert_eq!(
            format.resolve(event).render(&Map::new(), 1_772_323_200_000).as_deref(),
            expected
        );
    }

    #[test]
    fn references_become_values() {
        check("logs", json!({}), Some("logs"));
        check("logs-%{[fields.app]}", json!({"fields": {"app": "shop"}}), Some("logs-shop"));
        check("%{[fields][app]}", json!({"fields": {"app": 7}}), Some("7"));
        check("%{[x]:none}-%{+yyyy.MM.dd}", json!({}), Some("none-2026.03.01"));
        check("%{[x]}", json!({}), None);
        assert!(Format::parse("%{x").is_err() && Format::parse("%{x}").is_err());
    }
}
