//! The tables of the Kafka protocol against the definitions inside Kafka's own jars.
//!
//! Each message, struct and field of ours must be theirs, in the same order, with the same type,
//! versions, nullability, tag and default. This is the oracle for what `kafka-protocol` does not
//! have: the APIs between brokers and the records of internal topics.

#[path = "../../wire/build/table.rs"]
#[allow(dead_code, reason = "the build script of wire uses the rest of it")]
mod table;

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use elkfk_tests::peers::{self, Peer};
use serde_json::Value;
use table::{Field, Message, Type, Versions};

fn jars() -> PathBuf {
    let programs = std::env::var_os("ELKFK_PEERS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/elkfk-peers"),
        PathBuf::from,
    );
    programs.join("kafka/libs")
}

#[test]
fn every_row_of_the_tables_is_kafkas() {
    if !peers::have("every_row_of_the_tables_is_kafkas", &[Peer::Kafka]) {
        return;
    }
    let mut theirs = definitions(&jars().join("kafka-clients-3.4.1.jar"));
    theirs.extend(definitions(&jars().join("kafka_2.13-3.4.1.jar")));
    let ours = table::read(&elkfk_tests::workspace().join("wire/schema"));
    assert!(ours.messages.len() > 110, "the tables hold {} messages", ours.messages.len());
    let mut fields = 0;
    for message in &ours.messages {
        let their =
            theirs.get(message.name()).unwrap_or_else(|| panic!("Kafka has no {}", message.name()));
        let valid = versions(&their["validVersions"]).unwrap();
        assert!(valid.covers(message.versions), "{}: Kafka has {valid:?}", message.name());
        let flexible = versions(&their["flexibleVersions"]).map(|v| v.first);
        let flexible = flexible.filter(|first| *first <= message.versions.last);
        assert_eq!(message.flexible, flexible, "{}: flexible", message.name());
        if message.key >= 0 {
            assert_eq!(
                Some(i64::from(message.key)),
                their["apiKey"].as_i64(),
                "{}",
                message.name()
            );
        }
        let structs = Structs { message, shared: their["commonStructs"].as_array() };
        fields += structs.compare(message.name(), &their["fields"], message.versions);
    }
    println!("{fields} fields compared");
}

struct Structs<'m> {
    message: &'m Message,
    /// Structs that are used in more than one place.
    shared: Option<&'m Vec<Value>>,
}

impl Structs<'_> {
    /// Compares a struct and those in it, as far as `within`; returns how many fields.
    fn compare(&self, name: &str, their_fields: &Value, within: Versions) -> usize {
        let place = format!("{}/{name}", self.message.name());
        let their_fields = their_fields.as_array().unwrap_or_else(|| panic!("{place}: no fields"));
        let present = |field: &&Value| {
            let versions = versions(&field["versions"]).expect("a field has versions").and(within);
            versions.first <= versions.last
        };
        let their_fields: Vec<&Value> = their_fields.iter().filter(present).collect();
        let our_fields = &self.message.find(name).fields;
        let names = |fields: &[&Value]| -> Vec<String> {
            fields.iter().map(|field| snake(field["name"].as_str().unwrap())).collect()
        };
        let our_names: Vec<String> = our_fields.iter().map(|field| field.name.clone()).collect();
        assert_eq!(our_names, names(&their_fields), "{place}: fields");
        let mut count = 0;
        for (ours, theirs) in our_fields.iter().zip(their_fields) {
            count += 1 + self.compare_field(&place, ours, theirs, within);
        }
        count
    }

    fn compare_field(&self, place: &str, ours: &Field, theirs: &Value, within: Versions) -> usize {
        let place = format!("{place}.{}", ours.name);
        let range = versions(&theirs["versions"]).unwrap().and(within);
        assert_eq!(ours.versions.and(within), range, "{place}: versions");
        let ty = theirs["type"].as_str().unwrap();
        assert_eq!(type_name(&ours.ty), ty.replace("records", "bytes"), "{place}: type");
        let nullable = theirs.get("nullableVersions").and_then(versions).map(|v| v.and(range));
        let nullable = nullable.filter(|v| v.first <= v.last);
        assert_eq!(ours.nullable.map(|v| v.and(range)), nullable, "{place}: nullable");
        assert_eq!(ours.tag.map(u64::from), theirs["tag"].as_u64(), "{place}: tag");
        assert_eq!(ours.default, default(&theirs["default"]), "{place}: default");
        let is_partial = range != within;
        let must = is_partial && ours.tag.is_none() && theirs["ignorable"].as_bool() != Some(true);
        assert_eq!(ours.must, must, "{place}: must");
        let name = match &ours.ty {
            Type::Struct(name) => name,
            Type::Array(element) => match &**element {
                Type::Struct(name) => name,
                _ => return 0,
            },
            _ => return 0,
        };
        let fields = match theirs.get("fields") {
            Some(fields) => fields,
            None => {
                let shared = self.shared.into_iter().flatten();
                &shared.clone().find(|s| s["name"] == name.as_str()).expect("a shared struct")["fields"]
            }
        };
        // A shared struct is written once, for every place that uses it.
        let is_shared = theirs.get("fields").is_none();
        self.compare(name, fields, if is_shared { self.message.versions } else { range })
    }
}

/// `7+`, `0-3`, `5`; none for `none`.
fn versions(text: &Value) -> Option<Versions> {
    let text = text.as_str()?;
    if text == "none" {
        return None;
    }
    let (first, last) = match text.strip_suffix('+') {
        Some(first) => (first, None),
        None => match text.split_once('-') {
            Some((first, last)) => (first, Some(last)),
            None => (text, Some(text)),
        },
    };
    let last = last.map_or(u16::MAX, |last| last.parse().unwrap());
    Some(Versions { first: first.parse().unwrap(), last })
}

fn default(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.as_str() {
        "" | "0" | "false" | "null" => None,
        text => Some(match text.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16).unwrap().to_string(),
            None => text.to_owned(),
        }),
    }
}

fn type_name(ty: &Type) -> String {
    match ty {
        Type::Bool => "bool".into(),
        Type::I8 => "int8".into(),
        Type::I16 => "int16".into(),
        Type::U16 => "uint16".into(),
        Type::I32 => "int32".into(),
        Type::U32 => "uint32".into(),
        Type::I64 => "int64".into(),
        Type::F64 => "float64".into(),
        Type::Uuid => "uuid".into(),
        Type::String => "string".into(),
        Type::Bytes => "bytes".into(),
        Type::Array(element) => format!("[]{}", type_name(element)),
        Type::Struct(name) => name.clone(),
    }
}

/// `ThrottleTimeMs` becomes `throttle_time_ms`, `isKRaftController` `is_kraft_controller`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    let chars: Vec<char> = name.replace("KRaft", "Kraft").chars().collect();
    for (i, c) in chars.iter().enumerate() {
        let after_lower = i > 0 && !chars[i - 1].is_uppercase();
        let before_lower = chars.get(i + 1).is_some_and(|next| next.is_lowercase());
        if c.is_uppercase() && i > 0 && (after_lower || before_lower) {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// The definitions in a jar, by message.
fn definitions(jar: &Path) -> HashMap<String, Value> {
    let bytes = std::fs::read(jar).unwrap_or_else(|e| panic!("read {}: {e}", jar.display()));
    let mut found = HashMap::new();
    for (name, entry) in entries(&bytes) {
        let message = name.strip_prefix("common/message/").and_then(|n| n.strip_suffix(".json"));
        let Some(message) = message else { continue };
        let text = without_comments(&entry());
        let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        found.insert(message.to_owned(), json);
    }
    found
}

/// JSON without `//` comments and without commas before a closing bracket.
fn without_comments(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut in_string = false;
        let mut previous = ' ';
        for (at, c) in line.char_indices() {
            match c {
                '"' if previous != '\\' => in_string = !in_string,
                '/' if !in_string && line[at..].starts_with("//") => break,
                _ => {}
            }
            let is_closing = !in_string && (c == ']' || c == '}');
            if is_closing && out.trim_end().ends_with(',') {
                out.truncate(out.trim_end().len() - 1);
            }
            previous = c;
            out.push(c);
        }
        out.push('\n');
    }
    out
}

/// Names in a zip file, each with a reader of its text.
fn entries(zip: &[u8]) -> Vec<(String, impl Fn() -> String)> {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([zip[at], zip[at + 1]]));
    let u32_at = |at: usize| u16_at(at) | u16_at(at + 2) << 16;
    let end = zip.windows(4).rposition(|w| w == b"PK\x05\x06").expect("a zip file");
    let mut at = u32_at(end + 16);
    let mut found = Vec::new();
    for _ in 0..u16_at(end + 10) {
        let (method, size, offset) = (u16_at(at + 10), u32_at(at + 20), u32_at(at + 42));
        let (name_len, extra_len, note_len) = (u16_at(at + 28), u16_at(at + 30), u16_at(at + 32));
        let name = String::from_utf8_lossy(&zip[at + 46..at + 46 + name_len]).into_owned();
        let data = offset + 30 + u16_at(offset + 26) + u16_at(offset + 28);
        let data = &zip[data..data + size];
        found.push((name, move || {
            let mut text = String::new();
            match method {
                0 => text.push_str(&String::from_utf8_lossy(data)),
                _ => {
                    flate2::read::DeflateDecoder::new(data)
                        .read_to_string(&mut text)
                        .expect("text");
                }
            }
            text
        }));
        at += 46 + name_len + extra_len + note_len;
    }
    found
}
