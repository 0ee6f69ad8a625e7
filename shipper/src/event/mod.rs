//! The event document as Filebeat writes it, straight into one buffer.

pub(crate) mod format;

use std::path::Path;
use std::sync::Arc;

use elkfk_wire::source_id::{Generation, SourceId};
use serde_json::{Map, Value, json};

use crate::config::{Config, InputConfig};
use crate::harvester::container::Origin;
use crate::harvester::ndjson::{self, NdjsonSettings};
use crate::harvester::{Flags, floor_char};
use crate::identity::FileId;
use crate::processors::Processor;

/// The Beats version whose event format this is.
const VERSION: &str = "8.19.0";
/// A generation's share of a source id's text: 12 bytes are 16 digits of base64.
const GENERATION_CHARS: usize = 16;

/// What the events of one input have in common.
#[derive(Debug)]
pub(crate) struct Template {
    /// Every field that is the same in all events.
    pub(crate) fields: Map<String, Value>,
    /// `,"input":{…},…}`: the same, ready to end an event.
    tail: Vec<u8>,
    ndjson: Option<NdjsonSettings>,
    processors: Vec<Processor>,
    /// Whether events need a tree: the fast way writes text only.
    pub(crate) is_plain: bool,
}

impl Template {
    pub(crate) fn new(config: &Config, input: &InputConfig, agent_id: &str) -> Arc<Self> {
        let mut fields = Map::new();
        fields.insert("input".into(), json!({"type": input.kind}));
        if !input.disable_host {
            fields.insert("host".into(), json!({"name": config.name}));
        }
        fields.insert(
            "agent".into(),
            json!({
                "name": config.name, "type": "filebeat", "version": VERSION,
                "id": agent_id, "ephemeral_id": agent_id,
            }),
        );
        fields.insert("ecs".into(), json!({"version": "8.0.0"}));
        if !input.tags.is_empty() {
            fields.insert("tags".into(), json!(input.tags));
        }
        if !input.fields.is_empty() {
            if input.fields_under_root {
                for (key, value) in &input.fields {
                    fields.insert(key.clone(), value.clone());
                }
            } else {
                fields.insert("fields".into(), Value::Object(input.fields.clone()));
            }
        }
        let mut processors = input.processors.clone();
        // The first ones that do the same to every event are done once, here.
        let fixed = processors.iter().take_while(|processor| processor.is_static()).count();
        for processor in processors.drain(..fixed) {
            processor.apply(&mut fields);
        }
        let mut tail = Value::Object(fields.clone()).to_string().into_bytes();
        tail[0] = b',';
        let ndjson = input.lines.parsers.ndjson.clone();
        // A field of the user's may have the name of one we write per event.
        let collides =
            ["@timestamp", "@metadata", "message", "log"].iter().any(|n| fields.contains_key(*n));
        let is_plain = ndjson.is_none() && processors.is_empty() && !collides;
        Arc::new(Self { fields, tail, ndjson, processors, is_plain })
    }
}

/// What the events of one file have in common.
#[derive(Debug, Default)]
pub(crate) struct SourceText {
    /// From after the time to the generation's part of the id.
    metadata: Vec<u8>,
    /// From after the id to the line's position.
    log: Vec<u8>,
    file: Value,
}

impl SourceText {
    pub(crate) fn new(generation: Generation, path: &Path, id: FileId) -> Self {
        let text = SourceId { generation, position: 0 }.to_text();
        let mut metadata = format!(
            r#"Z","@metadata":{{"beat":"filebeat","type":"_doc","version":"{VERSION}","_id":""#
        )
        .into_bytes();
        metadata.extend_from_slice(&text[..GENERATION_CHARS]);
        let file = json!({
            "path": path.to_string_lossy(),
            "device_id": id.device.to_string(),
            "inode": id.inode.to_string(),
        });
        let log = format!(r#""}},"log":{{"file":{file},"offset":"#).into_bytes();
        Self { metadata, log, file }
    }
}

/// One event, about to be written.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) id: SourceId,
    pub(crate) text: &'a [u8],
    pub(crate) flags: Flags,
    pub(crate) origin: Option<&'a Origin>,
    /// When it was read, in milliseconds since 1970.
    pub(crate) read_ms: i64,
}

impl Draft<'_> {
    pub(crate) fn time_ms(&self) -> i64 {
        self.origin.and_then(|origin| origin.time_ms).unwrap_or(self.read_ms)
    }
}

/// What became of a draft.
#[derive(Debug, PartialEq)]
pub(crate) enum Written {
    /// The event stands in the buffer; so many bytes of its text were left out to fit the limit.
    Event { dropped_bytes: u64 },
    /// A processor dropped it.
    Dropped,
}

/// Writes events. Holds the time it wrote last, as text.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    time_ms: i64,
    time: [u8; 23],
    /// The tree of the last event that needed one, for topics and keys that name its fields.
    pub(crate) tree: Map<String, Value>,
}

impl Writer {
    /// Writes `draft` to `json`, which is cleared; the result has at most `limit` bytes.
    pub(crate) fn write(
        &mut self,
        json: &mut Vec<u8>,
        template: &Template,
        source: &SourceText,
        draft: &Draft<'_>,
        limit: usize,
    ) -> Written {
        if !template.is_plain || draft.origin.is_some() {
            return self.write_tree(json, template, source, draft, limit);
        }
        self.write_plain(json, template, source, draft, draft.text, draft.flags);
        if json.len() <= limit {
            return Written::Event { dropped_bytes: 0 };
        }
        let flags = Flags { truncated: true, ..draft.flags };
        self.write_plain(json, template, source, draft, b"", flags);
        let room = limit.saturating_sub(json.len());
        let keep = floor_char(draft.text, fitting(draft.text, room));
        self.write_plain(json, template, source, draft, &draft.text[..keep], flags);
        Written::Event { dropped_bytes: (draft.text.len() - keep) as u64 }
    }

    fn write_plain(
        &mut self,
        json: &mut Vec<u8>,
        template: &Template,
        source: &SourceText,
        draft: &Draft<'_>,
        text: &[u8],
        flags: Flags,
    ) {
        json.clear();
        json.extend_from_slice(br#"{"@timestamp":""#);
        self.push_time(json, draft.read_ms);
        json.extend_from_slice(&source.metadata);
        push_position_digits(json, draft.id);
        json.extend_from_slice(&source.log);
        push_number(json, draft.id.position);
        if flags != Flags::default() {
            json.extend_from_slice(br#","flags":"#);
            json.extend_from_slice(flag_names(flags).to_string().as_bytes());
        }
        json.extend_from_slice(br#"},"message":""#);
        push_escaped(json, text);
        json.push(b'"');
        json.extend_from_slice(&template.tail);
    }

    fn write_tree(
        &mut self,
        json: &mut Vec<u8>,
        template: &Template,
        source: &SourceText,
        draft: &Draft<'_>,
        limit: usize,
    ) -> Written {
        let mut text = draft.text;
        let mut flags = draft.flags;
        loop {
            json.clear();
            let mut time = Vec::with_capacity(24);
            self.push_time(&mut time, draft.time_ms());
            time.push(b'Z');
            let event = &mut self.tree;
            event.clear();
            event.insert("@timestamp".into(), String::from_utf8_lossy(&time).into());
            event.insert(
                "@metadata".into(),
                json!({"beat": "filebeat", "type": "_doc", "version": VERSION, "_id": draft.id.to_string()}),
            );
            let mut log = json!({"file": source.file, "offset": draft.id.position});
            if flags != Flags::default() {
                log["flags"] = flag_names(flags);
            }
            event.insert("log".into(), log);
            event.insert("message".into(), String::from_utf8_lossy(text).into());
            if let Some(origin) = draft.origin.filter(|origin| !origin.stream.is_empty()) {
                event.insert("stream".into(), origin.stream.clone().into());
            }
            for (key, value) in &template.fields {
                event.insert(key.clone(), value.clone());
            }
            if let Some(settings) = &template.ndjson {
                ndjson::decode(settings, text, event);
            }
            for processor in &template.processors {
                if !processor.apply(event) {
                    return Written::Dropped;
                }
            }
            // A tree of texts, numbers and lists always has a text.
            let _ = serde_json::to_writer(&mut *json, &*event);
            if json.len() <= limit || text.is_empty() {
                return Written::Event { dropped_bytes: (draft.text.len() - text.len()) as u64 };
            }
            flags.truncated = true;
            let excess = json.len() - limit;
            let keep = text.len().saturating_sub(excess.max(text.len() / 8 + 1));
            text = &text[..floor_char(text, keep)];
        }
    }

    /// `2026-11-23T22:41:01.123`
    fn push_time(&mut self, json: &mut Vec<u8>, time_ms: i64) {
        if self.time_ms != time_ms || self.time[0] == 0 {
            let time =
                jiff::Timestamp::from_millisecond(time_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            let text = format!("{time:.3}");
            if let Some(text) = text.as_bytes().get(..23) {
                self.time.copy_from_slice(text);
            }
            self.time_ms = time_ms;
        }
        json.extend_from_slice(&self.time);
    }
}

fn flag_names(flags: Flags) -> Value {
    let names = [
        (flags.truncated, "truncated"),
        (flags.multiline, "multiline"),
        (flags.invalid, "invalid_encoding"),
    ];
    names.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect()
}

fn push_position_digits(json: &mut Vec<u8>, id: SourceId) {
    json.extend_from_slice(&id.to_text()[GENERATION_CHARS..]);
}

fn push_number(json: &mut Vec<u8>, number: u64) {
    let (mut digits, mut at, mut rest) = ([0u8; 20], 20, number);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    json.extend_from_slice(&digits[at..]);
}

/// Appends `text`, which is UTF-8, as the inside of a JSON string.
fn push_escaped(json: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let run = plain_run(rest);
        json.extend_from_slice(&rest[..run]);
        let Some(byte) = rest.get(run) else { return };
        match byte {
            b'"' => json.extend_from_slice(b"\\\""),
            b'\\' => json.extend_from_slice(b"\\\\"),
            b'\n' => json.extend_from_slice(b"\\n"),
            b'\r' => json.extend_from_slice(b"\\r"),
            b'\t' => json.extend_from_slice(b"\\t"),
            other => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                json.extend_from_slice(b"\\u00");
                json.push(HEX[usize::from(other >> 4)]);
                json.push(HEX[usize::from(other & 15)]);
            }
        }
        rest = &rest[run + 1..];
    }
}

/// How many bytes come before the first that needs an escape. Eight bytes are looked at together.
fn plain_run(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let zero_bytes = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
    let mut at = 0;
    for chunk in text.chunks_exact(8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("a chunk of eight has eight"));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let hits = control
            | zero_bytes(word ^ (ONES * u64::from(b'"')))
            | zero_bytes(word ^ (ONES * u64::from(b'\\')));
        if hits != 0 {
            // A borrow can only mark bytes above the first true hit.
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let needs_escape = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    text[at..].iter().position(needs_escape).map_or(text.len(), |rest| at + rest)
}

/// How many bytes of `text` take at most `room` bytes once escaped.
fn fitting(text: &[u8], room: usize) -> usize {
    let mut used = 0;
    for (at, byte) in text.iter().enumerate() {
        used += match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
            0..0x20 => 6,
            _ => 1,
        };
        if used > room {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source() -> (SourceId, SourceText) {
        let generation = Generation::new(1_772_323_200_000, 7);
        let id = FileId { device: 64768, inode: 131, birth_ns: 1 };
        (
            SourceId { generation, position: 4711 },
            SourceText::new(generation, Path::new("/var/log/a \"b\".log"), id),
        )
    }

    fn draft(id: SourceId, text: &[u8]) -> Draft<'_> {
        Draft { id, text, flags: Flags::default(), origin: None, read_ms: 1_772_323_200_123 }
    }

    fn template(input: InputConfig) -> Arc<Template> {
        let config = Config { name: "web1".into(), ..Config::default() };
        Template::new(&config, &input, "a-b")
    }

    #[test]
    fn the_event_is_filebeats() {
        let (id, source) = source();
        let mut input = InputConfig { tags: vec!["t".into()], ..InputConfig::default() };
        input.fields.insert("app".into(), "shop".into());
        let mut json = Vec::new();
        Writer::default().write(
            &mut json,
            &template(input),
            &source,
            &draft(id, b"GET \"/\""),
            1 << 20,
        );
        let event: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            event,
            json!({
                "@timestamp": "2026-03-01T00:00:00.123Z",
                "@metadata": {"beat": "filebeat", "type": "_doc", "version": "8.19.0", "_id": id.to_string()},
                "log": {"offset": 4711, "file": {"path": "/var/log/a \"b\".log", "device_id": "64768", "inode": "131"}},
                "message": "GET \"/\"",
                "input": {"type": "filestream"},
                "host": {"name": "web1"},
                "agent": {"name": "web1", "type": "filebeat", "version": "8.19.0", "id": "a-b", "ephemeral_id": "a-b"},
                "ecs": {"version": "8.0.0"},
                "tags": ["t"],
                "fields": {"app": "shop"},
            })
        );
    }

    #[test]
    fn an_event_never_exceeds_the_limit() {
        let (id, source) = source();
        let text = "é\"\u{1}x".repeat(1000).into_bytes();
        let ndjson = Some(NdjsonSettings::default());
        let mut tree = InputConfig::default();
        tree.lines.parsers.ndjson = ndjson;
        for input in [InputConfig::default(), tree] {
            let template = template(input);
            for limit in 1000..1040 {
                let mut json = Vec::new();
                let written = Writer::default().write(
                    &mut json,
                    &template,
                    &source,
                    &draft(id, &text),
                    limit,
                );
                assert!(json.len() <= limit, "{} > {limit}", json.len());
                let event: Value = serde_json::from_slice(&json).unwrap();
                assert_eq!(event["log"]["flags"], json!(["truncated"]));
                let kept = event["message"].as_str().unwrap().len();
                assert_eq!(written, Written::Event { dropped_bytes: (text.len() - kept) as u64 });
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_survives(text in any::<String>()) {
            let (id, source) = source();
            let template = template(InputConfig::default());
            let mut json = Vec::new();
            Writer::default().write(&mut json, &template, &source, &draft(id, text.as_bytes()), 1 << 20);
            let event: Value = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(event["message"].as_str().unwrap(), text);
        }

        #[test]
        fn the_two_ways_of_writing_agree(text in any::<String>(), truncated in any::<bool>()) {
            let (id, source) = source();
            let template = template(InputConfig::default());
            let draft = Draft { flags: Flags { truncated, ..Flags::default() }, ..draft(id, text.as_bytes()) };
            let (mut fast, mut slow, mut writer) = (Vec::new(), Vec::new(), Writer::default());
            writer.write(&mut fast, &template, &source, &draft, 1 << 20);
            writer.write_tree(&mut slow, &template, &source, &draft, 1 << 20);
            let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
            prop_assert_eq!(parse(&fast), parse(&slow));
        }
    }
}
