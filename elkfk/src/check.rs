//! `elkfk check`: reads files as their boxes would and names every mistake.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use elkfk_autoscaler::shell::Settings;
use elkfk_base::Mistakes;
use elkfk_sink::event::Timestamp;
use elkfk_sink::pipeline::Pipeline;
use serde_json::Map;

use crate::plan::AUTOSCALER_JSON;
use crate::say::{asideln, sayln};

/// What a file's name says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Coordinator,
    Broker,
    Shipper,
    Pipeline,
    Autoscaler,
}

fn kind(path: &Path) -> Option<Kind> {
    if path.file_name().is_some_and(|name| name == AUTOSCALER_JSON) {
        return Some(Kind::Autoscaler);
    }
    Some(match path.extension()?.to_str()? {
        "cfg" => Kind::Coordinator,
        "properties" => Kind::Broker,
        "yml" | "yaml" => Kind::Shipper,
        "conf" => Kind::Pipeline,
        _ => return None,
    })
}

/// What a path stands for: one file, or the parts of one pipeline.
#[derive(Debug)]
struct Unit {
    kind: Kind,
    path: PathBuf,
}

/// The units of a path that was asked for. A directory is searched: one with `*.conf` is a pipeline in
/// parts, as Logstash reads it; below any other, everything that is known by its name.
fn units(path: &Path) -> Result<Vec<Unit>> {
    if !path.is_dir() {
        let Some(kind) = kind(path) else {
            bail!(
                "{}: cannot tell what it is; the name should end in .cfg (zoo.cfg), .properties (server.properties), .yml (filebeat.yml) or .conf (a pipeline), or be autoscaler.json",
                path.display()
            );
        };
        return Ok(vec![Unit { kind, path: path.to_owned() }]);
    }
    let mut units = Vec::new();
    search(path, 0, &mut units)?;
    if units.is_empty() {
        bail!(
            "{}: holds no zoo.cfg, server.properties, filebeat.yml, autoscaler.json and no pipeline (*.conf)",
            path.display()
        );
    }
    Ok(units)
}

/// What a sample's lines are read under: as in the tests of the pipelines that come with the program, so
/// that expected.jsonl is the same for both. Dates without a year are measured against this moment.
const RECEIVED: &str = "2026-11-24T00:00:00Z";
const TIME_ZONE: &str = "UTC";
const SAMPLE_PATH: &str = "/var/log/sample.log";

/// DIR/examples/nginx/pipeline.conf lies this deep in what `init` writes.
const DEPTH_MAX: usize = 2;

fn search(dir: &Path, depth: usize, units: &mut Vec<Unit>) -> Result<()> {
    let list = || format!("list {}", dir.display());
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir)
        .with_context(list)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .with_context(list)?;
    entries.sort();
    let parts = entries.iter().filter(|path| kind(path) == Some(Kind::Pipeline)).count();
    if parts > 1 {
        units.push(Unit { kind: Kind::Pipeline, path: dir.to_owned() });
    }
    for path in entries {
        // `data` of a configuration directory holds what boxes keep: none of it is configuration.
        if path.is_dir() {
            let is_data = path.file_name().is_some_and(|name| name == "data");
            if depth < DEPTH_MAX && !is_data {
                search(&path, depth + 1, units)?;
            }
        } else if let Some(kind) = kind(&path).filter(|kind| parts < 2 || *kind != Kind::Pipeline) {
            units.push(Unit { kind, path });
        }
    }
    Ok(())
}

/// Whether every file is right; prints a line for each, the mistakes to standard error.
pub(crate) fn run(paths: &[PathBuf]) -> Result<bool> {
    let mut is_right = true;
    for path in paths {
        if !path.exists() {
            bail!("{}: no such file", path.display());
        }
        for Unit { kind, path } in units(path)? {
            match check(kind, &path)? {
                Ok(()) => sayln!("{}: right", path.display()),
                Err(mistakes) => {
                    is_right = false;
                    asideln!("{mistakes}");
                    continue;
                }
            }
            if kind == Kind::Pipeline {
                is_right &= run_sample(&path)?;
            }
        }
    }
    Ok(is_right)
}

fn check(kind: Kind, path: &Path) -> Result<Result<(), String>> {
    let name = path.display().to_string();
    let text = || std::fs::read_to_string(path).with_context(|| format!("read {name}"));
    let checked: Result<(), Mistakes> = match kind {
        Kind::Autoscaler => {
            let read = Settings::parse(&name, &text()?, Map::new());
            return Ok(read.map(drop).map_err(|mistakes| mistakes.to_string()));
        }
        Kind::Coordinator => elkfk_coordinator::Config::from_file(path).map(drop),
        Kind::Broker => elkfk_broker::Config::from_text(&name, &text()?, &[]).map(drop),
        Kind::Shipper => {
            elkfk_shipper::Config::parse(&name, &text()?, false, &|name| std::env::var(name).ok())
                .map(drop)
        }
        Kind::Pipeline => elkfk_sink::check(&elkfk_sink::Config {
            files: vec![path.to_owned()],
            ..Default::default()
        }),
    };
    Ok(checked.map_err(|mistakes| mistakes.to_string()))
}

/// Runs the sample.log beside a pipeline.conf, and compares with the expected.jsonl beside both;
/// without that, prints the documents.
fn run_sample(path: &Path) -> Result<bool> {
    let beside = |name: &str| path.with_file_name(name);
    let (sample, expected) = (beside("sample.log"), beside("expected.jsonl"));
    if path.file_name().is_none_or(|name| name != "pipeline.conf") || !sample.exists() {
        return Ok(true);
    }
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
    };
    let env = |name: &str| match name {
        "TZ" => Some(TIME_ZONE.to_owned()),
        _ => std::env::var(name).ok(),
    };
    let pipeline = Pipeline::load(&[path.to_owned()], &env)?;
    let text = read(&sample)?;
    let received = Timestamp::parse_iso8601(RECEIVED).context("the moment of samples is a time")?;
    let found = elkfk_sink::run_sample(&pipeline, &text, Some(SAMPLE_PATH), received);
    if !expected.exists() {
        sayln!("{}: gives", sample.display());
        crate::say::and_go_on(&found);
        return Ok(true);
    }
    let wanted = read(&expected)?;
    let mut differs = 0;
    let (mut found, mut wanted) = (found.lines(), wanted.lines());
    for (number, line) in text.lines().enumerate() {
        let (found, wanted) = (found.next().unwrap_or(""), wanted.next().unwrap_or(""));
        if !is_equal(found, wanted) {
            differs += 1;
            let number = number + 1;
            asideln!(
                "{}:{number}: {line}\n  expected: {wanted}\n  found:    {found}",
                sample.display()
            );
        }
    }
    let surplus = wanted.count();
    if surplus > 0 {
        differs += 1;
        asideln!("{}: {surplus} lines more than the sample has", expected.display());
    }
    if differs == 0 {
        sayln!("{}: as expected, {} lines", sample.display(), text.lines().count());
    }
    Ok(differs == 0)
}

/// Whether two lines hold the same document, whatever the order of its fields.
fn is_equal(found: &str, wanted: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    found == wanted || (parse(found).is_some() && parse(found) == parse(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_searched_for_what_is_known_and_data_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "zoo.cfg",
            "autoscaler.json",
            "other.json",
            "README",
            "pipelines/default/pipeline.conf",
            "pipelines/default/sample.log",
            "parts/10-input.conf",
            "parts/20-output.conf",
            "data/broker/x.properties",
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found: Vec<_> = units(dir.path())
            .unwrap()
            .into_iter()
            .map(|unit| unit.path.strip_prefix(dir.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(
            found,
            ["autoscaler.json", "parts", "pipelines/default/pipeline.conf", "zoo.cfg"]
        );
        assert!(units(&dir.path().join("data/broker")).is_ok());
        assert!(units(&dir.path().join("README")).is_err());
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        assert!(units(&dir.path().join("empty")).is_err());
    }

    #[test]
    fn mistakes_of_autoscaler_json_come_all_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(AUTOSCALER_JSON);
        let told = |text: &str| {
            std::fs::write(&path, text).unwrap();
            check(kind(&path).unwrap(), &path).unwrap()
        };
        assert_eq!(told(r#"{"mode": "auto", "consumers_max": 8, "topics": {"a": {}}}"#), Ok(()));
        let wrong = told(r#"{"hot_s": 0, "topics": {"a": {"partition_max": 4}}}"#).unwrap_err();
        assert!(
            wrong.contains("hot_s = 0 must be between") && wrong.contains("partition_max"),
            "{wrong}"
        );
    }
}
