//! One entry of `filebeat.inputs`.

use std::time::Duration;

use elkfk_base::Mistakes;
use regex::Regex;
use serde_json::{Map, Value};

use super::reader::Section;
use super::{merge, set};
use crate::harvester::container::ContainerSettings;
use crate::harvester::encoding::Encoding;
use crate::harvester::multiline::{Grouping, MultilineSettings, Side};
use crate::harvester::ndjson::NdjsonSettings;
use crate::harvester::{LineSettings, Parsers};
use crate::processors::Processor;

/// How often the directories are listed where the file does not say; inotify wakes in between.
pub(super) const DEFAULT_CHECK_INTERVAL: Duration = Duration::from_secs(10);
const DEFAULT_CLOSE_INACTIVE: Duration = Duration::from_secs(5 * 60);
const DEFAULT_MAX_BYTES: u64 = 10 << 20;

/// Files to read and how.
#[derive(Debug, Clone)]
pub struct InputConfig {
    /// Names the input in the registry: another id reads the same files again. Where the file gives
    /// none, it is made of the kind and the paths.
    pub id: String,
    /// `input.type` of every event: `filestream`, `log` or `container`.
    pub kind: String,
    /// Patterns with `*`, `?`, `[…]`, `{a,b}` and `**`.
    pub paths: Vec<String>,
    pub exclude_files: Vec<Regex>,
    /// Where not empty, one of these must match as well.
    pub include_files: Vec<Regex>,
    pub symlinks: bool,
    /// Whether `**` descends directories.
    pub recursive_glob: bool,
    pub check_interval: Duration,
    /// Files last written longer ago are not begun.
    pub ignore_older: Option<Duration>,
    pub start_at: StartAt,
    pub close: CloseConfig,
    /// Whether compressed files are read; else they are left alone.
    pub decompress: bool,
    pub lines: LineSettings,
    pub fields: Map<String, Value>,
    pub fields_under_root: bool,
    pub tags: Vec<String>,
    pub processors: Vec<Processor>,
    pub disable_host: bool,
}

/// Where a file that is met for the first time is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAt {
    #[default]
    Beginning,
    /// At its end, if it was there when the shipper first started (`tail_files`).
    End,
    /// At its end, if it was last written before the shipper started.
    SinceStart,
    /// At its end, if it was last written before the shipper started for the first time.
    SinceFirstStart,
}

/// When an idle file's descriptor is given back. Its place is never forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseConfig {
    pub inactive: Duration,
    pub renamed: bool,
    pub removed: bool,
    pub eof: bool,
}

impl Default for InputConfig {
    fn default() -> Self {
        Self {
            id: "default".into(),
            kind: "filestream".into(),
            paths: Vec::new(),
            exclude_files: Vec::new(),
            include_files: Vec::new(),
            symlinks: false,
            recursive_glob: true,
            check_interval: DEFAULT_CHECK_INTERVAL,
            ignore_older: None,
            start_at: StartAt::Beginning,
            close: CloseConfig {
                inactive: DEFAULT_CLOSE_INACTIVE,
                renamed: false,
                removed: false,
                eof: false,
            },
            decompress: true,
            lines: LineSettings::default(),
            fields: Map::new(),
            fields_under_root: false,
            tags: Vec::new(),
            processors: Vec::new(),
            disable_host: false,
        }
    }
}

impl InputConfig {
    /// Whether `id` is one that a file did not give. Earlier versions counted such inputs.
    pub(crate) fn is_derived(id: &str) -> bool {
        ["log", "filestream", "container"].iter().any(|kind| {
            let rest = id.strip_prefix(kind).unwrap_or_default();
            let number = rest.strip_prefix('-').unwrap_or_default();
            rest.starts_with(':')
                || !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
        })
    }

    pub(super) fn read(
        section: &Section<'_>,
        top: &Section<'_>,
        warnings: &mut Vec<String>,
        mistakes: &mut Mistakes,
    ) -> Self {
        let mut input = Self::default();
        let kind = section.text("type", mistakes).unwrap_or_else(|| "log".into());
        if !matches!(kind.as_str(), "filestream" | "log" | "container") {
            let text = format!("input type \"{kind}\" is not supported; use filestream");
            section.complain("type", text, mistakes);
        }
        input.paths = section.texts("paths", mistakes).unwrap_or_default();
        input.id = section.text("id", mistakes).unwrap_or_else(|| derived_id(&kind, &input.paths));
        if input.paths.is_empty() {
            section.complain(
                "paths",
                "input without paths; give paths: [/var/log/*.log]",
                mistakes,
            );
        }
        for path in &input.paths {
            if let Err(error) = crate::discovery::Pattern::parse(path, true) {
                section.complain("paths", format!("path {path:?}: {error}"), mistakes);
            }
        }
        input.exclude_files = section.regexes("exclude_files", mistakes);
        input.exclude_files.extend(section.regexes("prospector.scanner.exclude_files", mistakes));
        input.include_files = section.regexes("prospector.scanner.include_files", mistakes);
        for key in ["symlinks", "prospector.scanner.symlinks"] {
            set(&mut input.symlinks, section.bool(key, mistakes));
        }
        for key in ["recursive_glob.enabled", "prospector.scanner.recursive_glob"] {
            set(&mut input.recursive_glob, section.bool(key, mistakes));
        }
        for key in ["scan_frequency", "prospector.scanner.check_interval"] {
            set(&mut input.check_interval, section.duration(key, mistakes));
        }
        input.check_interval = input.check_interval.max(Duration::from_millis(100));
        input.ignore_older = section.duration("ignore_older", mistakes).filter(|d| !d.is_zero());
        if section.bool("tail_files", mistakes) == Some(true) {
            input.start_at = StartAt::End;
        }
        match section.text("ignore_inactive", mistakes).as_deref() {
            None | Some("") => {}
            Some("since_last_start") => input.start_at = StartAt::SinceStart,
            Some("since_first_start") => input.start_at = StartAt::SinceFirstStart,
            Some(other) => {
                let text = format!(
                    "ignore_inactive: {other:?} is neither since_first_start nor since_last_start"
                );
                section.complain("ignore_inactive", text, mistakes);
            }
        }
        let close = &mut input.close;
        for key in ["close_inactive", "close.on_state_change.inactive"] {
            set(&mut close.inactive, section.duration(key, mistakes));
        }
        for key in ["close_renamed", "close.on_state_change.renamed"] {
            set(&mut close.renamed, section.bool(key, mistakes));
        }
        for key in ["close_removed", "close.on_state_change.removed"] {
            set(&mut close.removed, section.bool(key, mistakes));
        }
        for key in ["close_eof", "close.reader.on_eof"] {
            set(&mut close.eof, section.bool(key, mistakes));
        }
        match section.text("compression", mistakes).as_deref() {
            None | Some("auto" | "gzip") => {}
            Some("" | "none") => input.decompress = false,
            Some(other) => {
                let text = format!("compression: {other:?} is neither auto, gzip nor none");
                section.complain("compression", text, mistakes);
            }
        }
        input.lines = read_lines(section, &kind, warnings, mistakes);
        input.kind = kind;

        merge(&mut input.fields, &top.map("fields", mistakes));
        merge(&mut input.fields, &section.map("fields", mistakes));
        input.fields_under_root = section
            .bool("fields_under_root", mistakes)
            .or_else(|| top.bool("fields_under_root", mistakes))
            .unwrap_or(false);
        input.tags = top.texts("tags", mistakes).unwrap_or_default();
        input.tags.extend(section.texts("tags", mistakes).unwrap_or_default());
        for (section, key) in [(section, "processors"), (top, "processors")] {
            for item in section.items(key) {
                input.processors.extend(Processor::read(&item, warnings, mistakes));
            }
        }
        input.disable_host =
            section.bool("publisher_pipeline.disable_host", mistakes).unwrap_or(false);
        input
    }
}

/// What names an input that the file does not name: not its place, which changes with the others'.
fn derived_id(kind: &str, paths: &[String]) -> String {
    let mut paths = paths.to_vec();
    paths.sort();
    format!("{kind}:{}", paths.join(","))
}

fn read_lines(
    section: &Section<'_>,
    kind: &str,
    warnings: &mut Vec<String>,
    mistakes: &mut Mistakes,
) -> LineSettings {
    let mut lines = LineSettings::default();
    if let Some(name) = section.text("encoding", mistakes) {
        match Encoding::named(&name) {
            Some(encoding) => lines.encoding = encoding,
            None => section.complain(
                "encoding",
                format!(
                    "encoding: {name:?} is not known; use a name such as utf-8, latin1, utf-16le"
                ),
                mistakes,
            ),
        }
    }
    let mut max_bytes = DEFAULT_MAX_BYTES;
    for key in ["max_bytes", "message_max_bytes"] {
        set(&mut max_bytes, section.bytes(key, mistakes));
    }
    lines.max_bytes = max_bytes.clamp(64, 1 << 30) as usize;
    lines.include = section.regexes("include_lines", mistakes).iter().map(over_bytes).collect();
    lines.exclude = section.regexes("exclude_lines", mistakes).iter().map(over_bytes).collect();
    match section.text("line_terminator", mistakes).as_deref() {
        None | Some("auto" | "line_feed" | "carriage_return_line_feed") => {}
        Some(other) => {
            let text = format!("line_terminator: {other:?} is not supported; lines end with \\n");
            section.complain("line_terminator", text, mistakes);
        }
    }
    let parsers = &mut lines.parsers;
    if section.get("multiline").is_some() {
        parsers.multiline = read_multiline(section, "multiline.", mistakes);
    }
    if section.get("json").is_some() {
        parsers.ndjson = Some(NdjsonSettings {
            target: match section.bool("json.keys_under_root", mistakes) {
                Some(true) => String::new(),
                _ => "json".into(),
            },
            message_key: section.text("json.message_key", mistakes),
            overwrite_keys: section.bool("json.overwrite_keys", mistakes).unwrap_or(false),
            expand_keys: section.bool("json.expand_keys", mistakes).unwrap_or(false),
            add_error_key: section.bool("json.add_error_key", mistakes).unwrap_or(false),
            ignore_decoding_error: section
                .bool("json.ignore_decoding_error", mistakes)
                .unwrap_or(false),
        });
    }
    if kind == "container" {
        parsers.container = Some(read_container(section, "", mistakes));
    }
    read_parsers(section, parsers, warnings, mistakes);
    lines
}

const MULTILINE_KEYS: [&str; 9] = [
    "type",
    "pattern",
    "negate",
    "match",
    "flush_pattern",
    "max_lines",
    "timeout",
    "count_lines",
    "skip_newline",
];
const NDJSON_KEYS: [&str; 7] = [
    "target",
    "message_key",
    "overwrite_keys",
    "expand_keys",
    "add_error_key",
    "ignore_decoding_error",
    "document_id",
];

fn read_parsers(
    section: &Section<'_>,
    parsers: &mut Parsers,
    warnings: &mut Vec<String>,
    mistakes: &mut Mistakes,
) {
    // The stages run in one order: container, multiline, ndjson. Another order is refused.
    let mut last = 0;
    for item in section.items("parsers") {
        let Some((name, _)) = item.value.as_object().and_then(|map| map.iter().next()) else {
            item.complain("", "a parser is written as - name: {settings}", mistakes);
            continue;
        };
        if let Some(settings) = item.child(name) {
            let (known, ignored): (&[&str], &[&str]) = match name.as_str() {
                "container" => (&["stream"], &["format"]),
                "multiline" => (&MULTILINE_KEYS, &[]),
                _ => (&NDJSON_KEYS, &[]),
            };
            if matches!(name.as_str(), "container" | "multiline" | "ndjson") {
                settings.allow(known, ignored, warnings, mistakes);
            }
        }
        let prefix = format!("{name}.");
        let rank = match name.as_str() {
            "container" => {
                parsers.container = Some(read_container(&item, &prefix, mistakes));
                1
            }
            "multiline" => {
                parsers.multiline = read_multiline(&item, &prefix, mistakes);
                2
            }
            "ndjson" => {
                let text =
                    |key: &str, mistakes: &mut _| item.text(&format!("{prefix}{key}"), mistakes);
                let flag = |key: &str, mistakes: &mut _| {
                    item.bool(&format!("{prefix}{key}"), mistakes).unwrap_or(false)
                };
                parsers.ndjson = Some(NdjsonSettings {
                    target: text("target", mistakes).unwrap_or_default(),
                    message_key: text("message_key", mistakes),
                    overwrite_keys: flag("overwrite_keys", mistakes),
                    expand_keys: flag("expand_keys", mistakes),
                    add_error_key: flag("add_error_key", mistakes),
                    ignore_decoding_error: flag("ignore_decoding_error", mistakes),
                });
                if text("document_id", mistakes).is_some() {
                    let key = format!("{prefix}document_id");
                    warnings.push(format!(
                        "{}:{}: {key} has no effect: the _id is the line's place in its file",
                        item.document.file,
                        item.document.line(&item.at(&key))
                    ));
                }
                3
            }
            other => {
                let text = format!(
                    "parser \"{other}\" is not supported; use container, multiline, ndjson"
                );
                item.complain(other, text, mistakes);
                continue;
            }
        };
        if rank <= last {
            let text = "parsers run in the order container, multiline, ndjson, each once";
            item.complain(name, text, mistakes);
        }
        last = rank;
    }
}

fn read_container(
    section: &Section<'_>,
    prefix: &str,
    mistakes: &mut Mistakes,
) -> ContainerSettings {
    let stream = section.text(&format!("{prefix}stream"), mistakes).filter(|s| s != "all");
    if let Some(other) = stream.as_deref().filter(|s| !matches!(*s, "stdout" | "stderr")) {
        let text = format!("stream: {other:?} is neither all, stdout nor stderr");
        section.complain(&format!("{prefix}stream"), text, mistakes);
    }
    ContainerSettings { stream }
}

fn read_multiline(
    section: &Section<'_>,
    prefix: &str,
    mistakes: &mut Mistakes,
) -> Option<MultilineSettings> {
    let key = |name: &str| format!("{prefix}{name}");
    let kind = section.text(&key("type"), mistakes).unwrap_or_else(|| "pattern".into());
    let pattern = section.text(&key("pattern"), mistakes);
    let pattern = pattern.and_then(|text| section.regex(&key("pattern"), &text, mistakes));
    let pattern = pattern.as_ref().map(over_bytes);
    let negate = section.bool(&key("negate"), mistakes).unwrap_or(false);
    let grouping = match (kind.as_str(), pattern) {
        ("pattern", Some(pattern)) => {
            let side = match section.text(&key("match"), mistakes).as_deref() {
                None | Some("after") => Side::After,
                Some("before") => Side::Before,
                Some(other) => {
                    let text = format!("multiline.match: {other:?} is neither after nor before");
                    section.complain(&key("match"), text, mistakes);
                    Side::After
                }
            };
            Grouping::Pattern { pattern, negate, side }
        }
        ("while_pattern", Some(pattern)) => Grouping::While { pattern, negate },
        ("count", _) => match section.number(&key("count_lines"), mistakes) {
            Some(lines) if lines > 0 => Grouping::Count { lines: lines as usize },
            _ => {
                section.complain(&key("count_lines"), "multiline.count_lines is missing", mistakes);
                return None;
            }
        },
        ("pattern" | "while_pattern", None) => {
            section.complain(&key("pattern"), "multiline.pattern is missing", mistakes);
            return None;
        }
        (other, _) => {
            let text =
                format!("multiline.type: {other:?} is neither pattern, count nor while_pattern");
            section.complain(&key("type"), text, mistakes);
            return None;
        }
    };
    let mut settings = MultilineSettings::new(grouping);
    let flush = section.text(&key("flush_pattern"), mistakes);
    let flush = flush.and_then(|text| section.regex(&key("flush_pattern"), &text, mistakes));
    settings.flush_pattern = flush.as_ref().map(over_bytes);
    if let Some(lines) = section.number(&key("max_lines"), mistakes) {
        settings.max_lines = lines as usize;
    }
    set(&mut settings.timeout, section.duration(&key("timeout"), mistakes));
    set(&mut settings.skip_newline, section.bool(&key("skip_newline"), mistakes));
    Some(settings)
}

/// The same pattern for lines, which are bytes until they are written out.
fn over_bytes(regex: &Regex) -> regex::bytes::Regex {
    regex::bytes::Regex::new(regex.as_str()).expect("a pattern over text is one over bytes")
}
