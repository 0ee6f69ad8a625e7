//! Bytes of a record → events.

use elkfk_base::{Mistakes, mistakes::did_you_mean};

use crate::{
    config::{Options, Plugin},
    event::{Event, FieldRef, Timestamp},
};

/// Every codec that an input may name.
pub const SUPPORTED: [&str; 4] = ["json", "json_lines", "line", "plain"];

/// How an input reads the bytes of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Codec {
    /// The whole record is `message`.
    Plain,
    /// Each line is a `message`.
    Line,
    /// The record is a JSON object, or an array of them; placed under `target` where given.
    Json { target: Option<FieldRef> },
    /// Each line is a JSON object.
    JsonLines { target: Option<FieldRef> },
}

impl Codec {
    /// Compiles `codec => name { … }`.
    pub fn read(plugin: &Plugin, mistakes: &mut Mistakes) -> Option<Self> {
        if !SUPPORTED.contains(&plugin.name.as_str()) {
            let hint = did_you_mean(&plugin.name, SUPPORTED);
            let text = format!(
                "codec \"{}\" is not supported{hint}; supported are {}",
                plugin.name,
                SUPPORTED.join(", ")
            );
            mistakes.push(plugin.place.mistake(text));
            return None;
        }
        let mut options = Options::new(plugin, mistakes);
        options.ignored(&["id", "enable_metric", "ecs_compatibility"]);
        let charset = options.located("charset");
        if let Some(charset) = charset
            && !matches!(charset.value.as_str(), "UTF-8" | "US-ASCII" | "BINARY" | "ASCII-8BIT")
        {
            options.mistake(
                &charset.place,
                "charset other than UTF-8 is not supported; convert at the source",
            );
        }
        let codec = match plugin.name.as_str() {
            "json" => Self::Json { target: options.field("target") },
            "json_lines" => {
                options.refused(&["delimiter"]);
                options.ignored(&["decode_size_limit_bytes"]);
                Self::JsonLines { target: options.field("target") }
            }
            "line" => {
                options.refused(&["delimiter", "format"]);
                Self::Line
            }
            _ => {
                options.refused(&["format"]);
                Self::Plain
            }
        };
        options.finish();
        Some(codec)
    }

    /// Hands over the events in `bytes` one by one: a record can hold very many small ones. Nothing
    /// fails: what is not JSON becomes `message` with the tag `_jsonparsefailure`, as in Logstash;
    /// bytes that are not UTF-8 are replaced.
    pub fn decode(&self, bytes: &[u8], received: Timestamp, each: &mut dyn FnMut(Event)) {
        match self {
            Self::Plain => {
                each(Event::from_message(&String::from_utf8_lossy(bytes), received));
            }
            Self::Line => {
                for line in lines(bytes) {
                    each(Event::from_message(&String::from_utf8_lossy(line), received));
                }
            }
            Self::Json { target } => json(bytes, target.as_ref(), received, each),
            Self::JsonLines { target } => {
                for line in lines(bytes) {
                    json(line, target.as_ref(), received, each);
                }
            }
        }
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
}

fn json(bytes: &[u8], target: Option<&FieldRef>, received: Timestamp, each: &mut dyn FnMut(Event)) {
    let mut place = |event: Event| {
        each(match target {
            Some(target) => event_under(target, event, received),
            None => event,
        });
    };
    if Event::several_from_json(bytes, received, &mut place).is_err() {
        let mut event = Event::from_message(&String::from_utf8_lossy(bytes), received);
        event.tag("_jsonparsefailure");
        each(event);
    }
}

fn event_under(target: &FieldRef, event: Event, received: Timestamp) -> Event {
    let mut outer = Event::empty();
    outer.set_timestamp(received);
    outer.set_root_text("@version", "1");
    let held: serde_json::Value = serde_json::from_str(&event.to_source()).unwrap_or_default();
    // The outer event is new, so only a target within @timestamp could refuse; then it stays as read.
    if outer.set_json(target, &held).is_ok() { outer } else { event }
}
