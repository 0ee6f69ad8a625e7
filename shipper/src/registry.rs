//! What outlives a restart: each generation's file, identity and acknowledged position.
//!
//! An append-only journal of whole entries, one line each: CRC-32, space, JSON. The newest entry of a
//! generation counts. A torn tail is cut and reported; what is damaged in between is skipped.

use std::collections::HashMap;
use std::io;

use elkfk_wire::source_id::Generation;
use serde::{Deserialize, Serialize};

use crate::identity::{FileId, Guard, Head};

/// Version of the journal's format.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// One generation of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileState {
    #[serde(with = "generation_text")]
    pub generation: Generation,
    /// Id of the input that reads it.
    pub input: String,
    /// The file that holds it; none once it was truncated or deleted.
    pub file: Option<FileId>,
    /// The file it was in when that was found to be gone: it may come back, with its mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was_in: Option<FileId>,
    /// Where that file was seen last.
    pub path: String,
    pub head: Head,
    /// What stands before some position at or below `position`.
    pub guard: Option<Guard>,
    /// Everything before is acknowledged.
    pub position: u64,
    /// Ends that time decided, beyond `position`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<u64>,
    /// From where on its events carry a time of which day, ascending. An event that is read again
    /// keeps its day, and so meets itself in the index of that day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Day>,
    /// After a clean stop: no event that begins here or beyond was sent yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_to: Option<u64>,
    /// The partition its events go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// Whether `file` holds it compressed; positions count the bytes within.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compressed: bool,
    /// Where the contents of a compressed file end, once all of it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_end: Option<u64>,
    /// Of `file` when this was written, in nanoseconds since 1970.
    #[serde(default)]
    pub modified_ns: u64,
    /// Since when no file holds it, in milliseconds since 1970; 0 while one does.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gone_ms: u64,
    /// Not to be read on: a binary file, or the rest of it was given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_finished: bool,
}

/// Where a day begins in a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Day {
    pub from: u64,
    /// Days since 1970, in UTC, by which indices are named.
    pub day: u64,
}

const DAY_MS: u64 = 24 * 3600 * 1000;

impl Day {
    pub(crate) fn of(unix_ms: u64) -> u64 {
        unix_ms / DAY_MS
    }

    /// The last moment of a day.
    pub(crate) fn end_ms(day: u64) -> u64 {
        (day + 1) * DAY_MS - 1
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

mod generation_text {
    use super::*;

    pub(super) fn serialize<S: serde::Serializer>(
        value: &Generation,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&value.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Generation, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        parse(&text).ok_or_else(|| serde::de::Error::custom("a generation has 24 hex digits"))
    }

    fn parse(text: &str) -> Option<Generation> {
        let mut bytes = [0; 12];
        if text.len() != 24 || !text.is_ascii() {
            return None;
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Generation(bytes))
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Entry {
    State(Box<FileState>),
    Forget(#[serde(with = "generation_text")] Generation),
    /// When the registry was begun, in milliseconds since 1970; and the agent's id.
    Begun {
        at_ms: u64,
        agent: String,
    },
}

/// Where entries are kept. Bytes appended are durable once a later `sync` returned.
pub(crate) trait Journal {
    fn append(&mut self, bytes: &[u8]);
    fn sync(&mut self) -> io::Result<()>;
    /// Puts `bytes` in place of all entries so far, whole or not at all.
    fn replace(&mut self, bytes: &[u8]);
    /// Length of the journal, in bytes.
    fn len(&self) -> u64;
}

/// Appends the entry for `state` to `bytes`.
pub(crate) fn write_state(state: &FileState, bytes: &mut Vec<u8>) {
    write_entry(&Entry::State(Box::new(state.clone())), bytes);
}

pub(crate) fn write_forget(generation: Generation, bytes: &mut Vec<u8>) {
    write_entry(&Entry::Forget(generation), bytes);
}

pub(crate) fn write_begun(at_ms: u64, agent: &str, bytes: &mut Vec<u8>) {
    write_entry(&Entry::Begun { at_ms, agent: agent.into() }, bytes);
}

fn write_entry(entry: &Entry, bytes: &mut Vec<u8>) {
    let json = serde_json::to_vec(entry).expect("an entry of texts and numbers has a JSON text");
    bytes.extend_from_slice(format!("{:08x} ", crc32fast::hash(&json)).as_bytes());
    bytes.extend_from_slice(&json);
    bytes.push(b'\n');
}

/// Of entries that follow each other, those that count: the newest of each generation.
pub(crate) fn newest(entries: &[u8]) -> Vec<u8> {
    let mut kept: HashMap<Option<Generation>, (usize, &[u8])> = HashMap::new();
    for (at, line) in entries.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let generation = match parse_entry(line.strip_suffix(b"\n").unwrap_or(line)) {
            Some(Entry::State(state)) => Some(state.generation),
            Some(Entry::Forget(generation)) => Some(generation),
            Some(Entry::Begun { .. }) => None,
            None => continue,
        };
        kept.insert(generation, (at, line));
    }
    let mut lines: Vec<_> = kept.into_values().collect();
    lines.sort_unstable();
    lines.into_iter().flat_map(|(_, line)| line).copied().collect()
}

/// What a journal holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub states: HashMap<Generation, FileState>,
    /// 0 for a new registry.
    pub begun_ms: u64,
    pub agent: String,
    /// How many bytes of the journal are good; what follows is a torn tail.
    pub good_bytes: u64,
    pub torn_bytes: u64,
    /// Entries within that were damaged.
    pub damaged_entries: u64,
}

/// Reads a whole journal.
pub(crate) fn read(bytes: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let mut at = 0;
    let mut damaged_since_good = 0;
    while at < bytes.len() {
        let Some(length) = memchr::memchr(b'\n', &bytes[at..]) else { break };
        match parse_entry(&bytes[at..at + length]) {
            Some(entry) => {
                contents.damaged_entries += damaged_since_good;
                damaged_since_good = 0;
                contents.good_bytes = (at + length + 1) as u64;
                match entry {
                    Entry::State(state) => {
                        contents.states.insert(state.generation, *state);
                    }
                    Entry::Forget(generation) => {
                        contents.states.remove(&generation);
                    }
                    Entry::Begun { at_ms, agent } => {
                        contents.begun_ms = at_ms;
                        contents.agent = agent;
                    }
                }
            }
            None => damaged_since_good += 1,
        }
        at += length + 1;
    }
    contents.torn_bytes = bytes.len() as u64 - contents.good_bytes;
    contents
}

fn parse_entry(line: &[u8]) -> Option<Entry> {
    let (crc, json) = (line.get(..8)?, line.get(9..)?);
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
    if crc32fast::hash(json) != crc {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(number: u64, position: u64) -> FileState {
        FileState {
            generation: Generation::new(1, number),
            input: "web".into(),
            file: Some(FileId { device: 1, inode: number, birth_ns: 2 }),
            was_in: None,
            path: "/var/log/\u{e9}.log".into(),
            head: Head::of(b"start"),
            guard: Some(Guard::of(b"guard", 5)),
            position,
            cuts: vec![7],
            days: vec![Day { from: 0, day: 1 }],
            sent_to: None,
            partition: Some(2),
            compressed: false,
            stream_end: None,
            modified_ns: 3,
            gone_ms: 0,
            is_finished: false,
        }
    }

    fn journal() -> Vec<u8> {
        let mut bytes = Vec::new();
        write_begun(42, "agent", &mut bytes);
        for position in [0, 10, 20] {
            write_state(&state(1, position), &mut bytes);
            write_state(&state(2, position), &mut bytes);
        }
        write_forget(Generation::new(1, 2), &mut bytes);
        bytes
    }

    #[test]
    fn the_newest_entry_counts() {
        let contents = read(&journal());
        assert_eq!(contents.states.values().collect::<Vec<_>>(), [&state(1, 20)]);
        assert_eq!((contents.begun_ms, contents.torn_bytes), (42, 0));
    }

    #[test]
    fn of_many_entries_the_newest_say_the_same() {
        let bytes = journal();
        let kept = newest(&bytes);
        assert_eq!(kept.iter().filter(|byte| **byte == b'\n').count(), 3);
        let (all, few) = (read(&bytes), read(&kept));
        assert_eq!((all.states, all.begun_ms, all.agent), (few.states, few.begun_ms, few.agent));
    }

    #[test]
    fn a_journal_cut_anywhere_is_read_up_to_its_last_whole_entry() {
        let whole = journal();
        for length in 0..whole.len() {
            let contents = read(&whole[..length]);
            assert!(contents.good_bytes <= length as u64);
            assert_eq!(contents.good_bytes + contents.torn_bytes, length as u64);
            assert!(contents.good_bytes == 0 || whole[contents.good_bytes as usize - 1] == b'\n');
            let next = whole[contents.good_bytes as usize..].iter().position(|byte| *byte == b'\n');
            assert!(contents.good_bytes + next.unwrap() as u64 >= length as u64);
        }
    }

    #[test]
    fn a_damaged_entry_costs_no_other() {
        let mut bytes = journal();
        let second_line = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 30;
        bytes[second_line] ^= 1;
        let contents = read(&bytes);
        assert_eq!(contents.damaged_entries, 1);
        assert_eq!(contents.states.values().collect::<Vec<_>>(), [&state(1, 20)]);
    }
}
