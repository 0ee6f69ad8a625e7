//! Output `stdout`, with the codecs `rubydebug` (the default), `json_lines`, `json` and `dots`.

use std::io::Write as _;
use std::sync::Arc;

use elkfk_base::Mistakes;
use elkfk_base::mistakes::did_you_mean;
use tokio::sync::mpsc;

use crate::config::{Options, Plugin};
use crate::delivery::chunk::{Chunk, Placed, Slice};
use crate::event::{Event, METADATA, TIMESTAMP};
use crate::metrics::Meters;

/// How an event is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdout {
    RubyDebug { with_metadata: bool },
    JsonLines,
    Dots,
}

const CODECS: [&str; 4] = ["rubydebug", "json_lines", "json", "dots"];

impl Stdout {
    /// Reads the plugin; `None` after noting what was wrong.
    pub fn read(plugin: &Plugin, mistakes: &mut Mistakes) -> Option<Self> {
        let before = mistakes.0.len();
        let mut options = Options::new(plugin, mistakes);
        let codec = options.codec("codec");
        options.ignored(&["id", "enable_metric", "workers"]);
        options.finish();
        let read = match codec {
            None => Self::RubyDebug { with_metadata: false },
            Some(codec) => {
                let mut options = Options::new(&codec, mistakes);
                let read = match codec.name.as_str() {
                    "rubydebug" => {
                        Self::RubyDebug { with_metadata: options.boolean("metadata", false) }
                    }
                    "json_lines" | "json" => {
                        options.refused(&["delimiter"]);
                        Self::JsonLines
                    }
                    "dots" => Self::Dots,
                    other => {
                        let hint = did_you_mean(other, CODECS);
                        let text = format!(
                            "codec \"{other}\" of output \"stdout\" is not supported{hint}; supported are {}",
                            CODECS.join(", ")
                        );
                        options.mistake(&codec.place, text);
                        return None;
                    }
                };
                options.ignored(&["charset", "ecs_compatibility", "id", "enable_metric"]);
                options.finish();
                read
            }
        };
        (mistakes.0.len() == before).then_some(read)
    }

    /// Appends the event as it is printed.
    pub fn write(self, event: &Event, out: &mut Vec<u8>) {
        match self {
            Self::JsonLines => {
                event.write_source(out);
                out.push(b'\n');
            }
            Self::Dots => out.push(b'.'),
            Self::RubyDebug { with_metadata } => {
                let value: serde_json::Value =
                    serde_json::from_str(&event.to_source()).unwrap_or_default();
                let mut text = String::new();
                ruby(&value, 0, true, &mut text);
                if with_metadata
                    && let Ok(field) = crate::event::FieldRef::parse(METADATA)
                    && let Some(metadata) = event.get(&field)
                    && let Ok(metadata) = serde_json::from_str(&metadata.to_json())
                {
                    let end = text.trim_end_matches(['\n', '}']).len();
                    text.truncate(end);
                    text.push_str(",\n    \"@metadata\" => ");
                    ruby(&metadata, 1, false, &mut text);
                    text.push_str("\n}");
                }
                out.extend_from_slice(text.as_bytes());
                out.push(b'\n');
            }
        }
    }
}

/// As Ruby's awesome_print shows a hash: names right-aligned, four spaces a level.
fn ruby(value: &serde_json::Value, level: usize, is_root: bool, out: &mut String) {
    use serde_json::Value;
    let indent = |level: usize| " ".repeat(level * 4);
    match value {
        Value::Null => out.push_str("nil"),
        Value::Object(fields) if fields.is_empty() => out.push_str("{}"),
        Value::Object(fields) => {
            let width = fields.keys().map(|name| name.chars().count() + 2).max().unwrap_or(0);
            out.push_str("{\n");
            for (n, (name, value)) in fields.iter().enumerate() {
                if n > 0 {
                    out.push_str(",\n");
                }
                let name_and_quotes = format!("\"{name}\"");
                out.push_str(&format!("{}{name_and_quotes:>width$} => ", indent(level + 1)));
                match value {
                    // A time is no string in Ruby.
                    Value::String(time) if is_root && name == TIMESTAMP => out.push_str(time),
                    value => ruby(value, level + 1, false, out),
                }
            }
            out.push_str(&format!("\n{}}}", indent(level)));
        }
        Value::Array(elements) if elements.is_empty() => out.push_str("[]"),
        Value::Array(elements) => {
            out.push_str("[\n");
            for (n, element) in elements.iter().enumerate() {
                if n > 0 {
                    out.push_str(",\n");
                }
                out.push_str(&format!("{}[{n}] ", indent(level + 1)));
                ruby(element, level + 1, false, out);
            }
            out.push_str(&format!("\n{}]", indent(level)));
        }
        other => out.push_str(&other.to_string()),
    }
}

/// Collects what one batch prints.
#[derive(Debug)]
pub struct Printed {
    stdout: Stdout,
    body: Vec<u8>,
    documents: Vec<Placed>,
}

impl Printed {
    pub fn new(stdout: Stdout) -> Self {
        Self { stdout, body: Vec::new(), documents: Vec::new() }
    }

    pub fn add(&mut self, event: &Event, record: u32) {
        self.stdout.write(event, &mut self.body);
        self.documents.push(Placed { end: self.body.len() as u32, record });
    }

    /// Takes back what was added of a record, the last one.
    pub fn forget(&mut self, record: u32) {
        while self.documents.last().is_some_and(|document| document.record == record) {
            self.documents.pop();
        }
        self.body.truncate(self.documents.last().map_or(0, |document| document.end as usize));
    }

    /// Hands out what was collected and begins anew; `None` where there is nothing.
    pub fn finish(&mut self, batch: &Arc<crate::delivery::chunk::Batch>) -> Option<Arc<Chunk>> {
        let documents = std::mem::take(&mut self.documents);
        let body = std::mem::take(&mut self.body).into();
        (!documents.is_empty()).then(|| {
            Arc::new(Chunk {
                index: "stdout".into(),
                body,
                documents,
                batch: batch.clone(),
                credit: None,
            })
        })
    }
}

/// Prints until the pipeline lets go of `chunks`. Blocks: wants a thread of its own.
///
/// A closed pipe ends the printing, not the pipeline: what was to be printed counts as delivered.
pub fn print(mut chunks: mpsc::Receiver<Vec<Arc<Chunk>>>, meters: &Meters) {
    let mut is_open = true;
    while let Some(printed) = chunks.blocking_recv() {
        for slice in printed.into_iter().filter_map(Slice::all) {
            if is_open {
                let mut out = std::io::stdout().lock();
                is_open = out.write_all(&slice.body()).and_then(|()| out.flush()).is_ok();
            }
            slice.acknowledge();
            meters.on_printed(slice.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;

    #[test]
    fn rubydebug_looks_like_rubys() {
        let json = br#"{"message":"a","@timestamp":"2026-11-23T00:00:00.000Z","n":{"x":[1,"y"]},"@metadata":{"k":"v"}}"#;
        let event = Event::from_json(json, Timestamp::from_millis(0)).unwrap();
        let mut out = Vec::new();
        Stdout::RubyDebug { with_metadata: true }.write(&event, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("{\n"), "{text}");
        assert!(text.contains("       \"message\" => \"a\",\n"), "{text}");
        assert!(text.contains("    \"@timestamp\" => 2026-11-23T00:00:00.000Z"), "{text}");
        assert!(text.contains("             \"n\" => {\n        \"x\" => [\n            [0] 1,\n            [1] \"y\"\n        ]\n    }"), "{text}");
        assert!(
            text.ends_with(",\n    \"@metadata\" => {\n        \"k\" => \"v\"\n    }\n}\n"),
            "{text}"
        );
    }
}
