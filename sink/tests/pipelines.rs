//! The pipelines we ship, over their samples. `UPDATE_GOLDEN=1` rewrites what is expected.

use std::path::{Path, PathBuf};

use elkfk_sink::{event::Timestamp, pipeline::Pipeline, run_sample};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines")
}

fn load(name: &str) -> Pipeline {
    let env = |name: &str| (name == "TZ").then(|| "UTC".to_owned());
    Pipeline::load(&[directory().join(name)], &env).unwrap_or_else(|error| panic!("{error}"))
}

fn check(name: &str) {
    let folder = directory().join(name);
    let sample = std::fs::read_to_string(folder.join("sample.log")).unwrap();
    let received = Timestamp::parse_iso8601("2026-11-24T00:00:00Z").unwrap();
    let found = run_sample(&load(name), &sample, Some("/var/log/sample.log"), received);
    let path = folder.join("expected.jsonl");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
        return;
    }
    let wanted = std::fs::read_to_string(&path).unwrap();
    assert_eq!(found.lines().count(), sample.lines().count());
    for ((line, found), wanted) in sample.lines().zip(found.lines()).zip(wanted.lines()) {
        assert_eq!(found, wanted, "{name}: {line}");
    }
    assert_eq!(found, wanted);
}

#[test]
fn nginx() {
    check("nginx");
}

#[test]
fn apache() {
    check("apache");
}

#[test]
fn syslog() {
    check("syslog");
}

#[test]
fn json() {
    check("json");
}

#[test]
fn default() {
    check("default");
}

#[test]
fn every_pipeline_reads_from_kafka_and_writes_to_elasticsearch() {
    for name in ["nginx", "apache", "syslog", "json", "default"] {
        let pipeline = load(name);
        let names = |plugins: &[elkfk_sink::config::Plugin]| {
            plugins.iter().map(|plugin| plugin.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(pipeline.inputs()), ["kafka"], "{name}");
        assert_eq!(names(pipeline.outputs()), ["elasticsearch"], "{name}");
    }
}
