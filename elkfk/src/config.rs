//! `elkfk config`: what is in force for a box, and where each value came from.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use elkfk_broker::config::{KEYS, Kind, Status};

use crate::args::{Config, Of};
use crate::say::sayln;

/// A key, the value in force and its origin: `server.properties:4` or `default`.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    key: String,
    value: String,
    origin: String,
}

pub(crate) fn run(args: &Config) -> Result<()> {
    let settings = match args.of {
        Of::Broker => broker(&args.file)?,
        Of::Coordinator => coordinator(&args.file)?,
        Of::Shipper => shipper(&args.file)?,
    };
    if args.json {
        let rows: Vec<_> = settings
            .iter()
            .map(
                |row| serde_json::json!({"key": row.key, "value": row.value, "origin": row.origin}),
            )
            .collect();
        sayln!("{}", serde_json::Value::Array(rows));
        return Ok(());
    }
    let width = |of: fn(&Setting) -> &str| {
        settings.iter().map(|row| of(row).chars().count()).max().unwrap_or(0)
    };
    let (keys, values) = (width(|row| &row.key), width(|row| &row.value).min(60));
    for Setting { key, value, origin } in &settings {
        sayln!("{key:<keys$}  {value:<values$}  {origin}");
    }
    Ok(())
}

fn read(path: &Path) -> Result<(String, String)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok((path.display().to_string(), text))
}

/// Rows of `found`, each with the line of its key, or of the nearest key above it, in `lines`.
fn rows(
    name: &str,
    lines: &BTreeMap<String, usize>,
    found: impl IntoIterator<Item = (impl Into<String>, String)>,
) -> Vec<Setting> {
    let origin = |key: &str| match lines.get(key) {
        Some(line) => format!("{name}:{line}"),
        None => "default".to_owned(),
    };
    found
        .into_iter()
        .map(|(key, value)| {
            let key = key.into();
            Setting { origin: origin(&key), key, value }
        })
        .collect()
}

/// The last line of each key of a properties file, which is the one that counts.
fn property_lines(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    let mut is_continued = false;
    for (number, line) in text.lines().enumerate() {
        let (begins, content) = (!is_continued, line.trim_start());
        is_continued = !content.starts_with(['#', '!'])
            && content.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1;
        if begins && !content.is_empty() && !content.starts_with(['#', '!']) {
            let key = content.split(['=', ':', ' ', '\t']).next().unwrap_or_default();
            lines.insert(key.to_owned(), number + 1);
        }
    }
    lines
}

/// The line of each key of a YAML file in block style, by its path: `output.kafka.topic`,
/// `filebeat.inputs.0.paths`.
fn yaml_lines(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    // (column, path) of the keys that are open, and how many items each list has had.
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut items: BTreeMap<String, usize> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let mut content = line.trim_start();
        let mut column = line.len() - content.len();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        while let Some(rest) = content.strip_prefix("- ") {
            // A list may stand in the column of its key.
            while open.last().is_some_and(|(at, path)| {
                *at > column || (*at == column && path.rsplit('.').next().is_some_and(is_number))
            }) {
                open.pop();
            }
            let parent = open.last().map(|(_, path)| path.clone()).unwrap_or_default();
            let item = items.entry(parent.clone()).or_insert(0);
            open.push((column, join(&parent, &item.to_string())));
            *item += 1;
            let inner = rest.trim_start();
            column += content.len() - inner.len();
            content = inner;
        }
        let Some((key, _)) = content.split_once(':') else { continue };
        if key.contains(['"', '\'', '{', '[', ' ']) {
            continue;
        }
        while open.last().is_some_and(|(at, path)| {
            *at > column || (*at == column && !path.rsplit('.').next().is_some_and(is_number))
        }) {
            open.pop();
        }
        let path = join(open.last().map_or("", |(_, path)| path), key);
        lines.insert(path.clone(), number + 1);
        open.push((column, path));
    }
    lines
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

fn broker(path: &Path) -> Result<Vec<Setting>> {
    let (name, text) = read(path)?;
    let config = elkfk_broker::Config::from_text(&name, &text, &[])?;
    let shown = KEYS
        .iter()
        .filter(|key| key.status == Status::Honoured || config.given(key.name).is_some());
    let found = shown.map(|key| {
        let value = config.value(key.name).unwrap_or("null");
        let hidden = key.kind == Kind::Password && config.given(key.name).is_some();
        (key.name, if hidden { "[hidden]".to_owned() } else { value.to_owned() })
    });
    Ok(rows(&name, &property_lines(&text), found))
}

fn coordinator(path: &Path) -> Result<Vec<Setting>> {
    let (name, text) = read(path)?;
    let config = elkfk_coordinator::Config::from_file(path)?;
    let found = [
        ("tickTime", config.tick_time.as_millis().to_string()),
        ("dataDir", config.data_dir.display().to_string()),
        (
            "dataLogDir",
            config.data_log_dir.as_ref().unwrap_or(&config.data_dir).display().to_string(),
        ),
        ("clientPort", config.listen.port().to_string()),
        ("clientPortAddress", config.listen.ip().to_string()),
        ("maxClientCnxns", config.client_connections_max.to_string()),
        ("minSessionTimeout", config.session_timeout_min().as_millis().to_string()),
        ("maxSessionTimeout", config.session_timeout_max().as_millis().to_string()),
        ("4lw.commands.whitelist", config.words.join(", ")),
        ("jute.maxbuffer", config.frame_bytes_max.to_string()),
        ("snapCount", config.snap_count.to_string()),
        ("autopurge.snapRetainCount", config.snapshots_kept.to_string()),
        ("admin.enableServer", config.admin.is_enabled.to_string()),
        ("admin.serverAddress", config.admin.listen.ip().to_string()),
        ("admin.serverPort", config.admin.listen.port().to_string()),
        ("admin.commandURL", config.admin.url.clone()),
        ("admin.idleTimeout", config.admin.idle.as_millis().to_string()),
    ];
    let mut rows = rows(&name, &property_lines(&text), found);
    if let Some(id) = config.server_id {
        let origin = config.data_dir.join("myid").display().to_string();
        rows.push(Setting { key: "myid".into(), value: id.to_string(), origin });
    }
    Ok(rows)
}

fn shipper(path: &Path) -> Result<Vec<Setting>> {
    let (name, text) = read(path)?;
    let config =
        elkfk_shipper::Config::parse(&name, &text, true, &|name| std::env::var(name).ok())?;
    // The registry's folder stands below path.data.
    let data = config.data.parent().unwrap_or(&config.data).display().to_string();
    let mut found = vec![("path.data".to_owned(), data)];
    found.push(("name".to_owned(), config.name.clone()));
    for (n, input) in config.inputs.iter().enumerate() {
        let patterns = |list: &[regex::Regex]| {
            list.iter().map(|pattern| pattern.as_str()).collect::<Vec<_>>().join(", ")
        };
        for (key, value) in [
            ("type", input.kind.clone()),
            ("id", input.id.clone()),
            ("paths", input.paths.join(", ")),
            ("exclude_files", patterns(&input.exclude_files)),
            ("tags", input.tags.join(", ")),
        ] {
            found.push((format!("filebeat.inputs.{n}.{key}"), value));
        }
    }
    let output = &config.output;
    for (key, value) in [
        ("hosts", output.hosts.join(", ")),
        ("topic", output.topic.fixed().unwrap_or("(made from each event)").to_owned()),
        ("compression", output.compression.name().to_owned()),
        ("max_message_bytes", output.max_message_bytes.to_string()),
        ("client_id", output.client_id.clone()),
        ("username", output.username.clone().unwrap_or_default()),
    ] {
        found.push((format!("output.kafka.{key}"), value));
    }
    let mut lines = yaml_lines(&text);
    // `output: {kafka: …}` written as a tree has the same paths; scanner options stand under prospector.
    for n in 0..config.inputs.len() {
        let long = format!("filebeat.inputs.{n}.prospector.scanner.exclude_files");
        if let Some(line) = lines.get(&long).copied() {
            lines.insert(format!("filebeat.inputs.{n}.exclude_files"), line);
        }
    }
    Ok(rows(&name, &lines, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_counts_is_found() {
        let text = "# a=1\na = 1\nb:2\nc=x\\\n  a=not a key\na=3\n";
        let lines = property_lines(text);
        let found: Vec<_> = lines.iter().map(|(key, line)| (key.as_str(), *line)).collect();
        assert_eq!(found, [("a", 6), ("b", 3), ("c", 4)]);
    }

    #[test]
    fn yaml_keys_are_found_by_their_path() {
        let text = "filebeat.inputs:\n  - type: filestream\n    id: a\n    paths:\n      - /var/log/x: y\n  # no key: here\n  - type: log\n    paths: ['/b']\noutput.kafka:\n  hosts: [\"h:1\"]\npath:\n  data: /d\nlist:\n- id: 1\n- id: 2\n";
        let lines = yaml_lines(text);
        for (path, line) in [
            ("filebeat.inputs.0.type", 2),
            ("filebeat.inputs.0.paths", 4),
            ("filebeat.inputs.1.type", 7),
            ("filebeat.inputs.1.paths", 8),
            ("output.kafka.hosts", 10),
            ("path.data", 12),
            ("list.0.id", 14),
            ("list.1.id", 15),
        ] {
            assert_eq!(lines.get(path), Some(&line), "{path}: {lines:?}");
        }
    }
}
