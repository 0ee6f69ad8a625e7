//! The recorded calls of Elasticsearch 8.19, in their order, against an empty store.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use elkfk_tests::peers;

#[expect(dead_code, reason = "other tests use the rest")]
mod store_support;

use store_support::Store;

/// Calls whose answers differ, each with why.
const DIFFERENT: [(&str, &str); 6] = [
    ("149-pipeline-simulate", "ingest pipelines are kept, not run"),
    ("151-pipeline-result", "ingest pipelines are kept, not run"),
    ("154-ilm-get", "recorded without the lifecycle module, which shippers ask for"),
    ("168-client-grafana-fields", "message.keyword is not kept, so it cannot be aggregated"),
    ("180-nodes-ingest", "no ingest processors"),
    ("181-xpack", "recorded as the failure of a build without the module"),
];

#[test]
fn answers_equal_those_of_elasticsearch() {
    let folder = peers::scripts().join("elasticsearch");
    let (run, golden) = (folder.join("golden-run"), folder.join("golden"));
    if !run.exists() || !golden.exists() {
        return peers::skip("answers_equal_those_of_elasticsearch", "recorded answers");
    }
    let expected: BTreeSet<String> = DIFFERENT.iter().map(|(name, _)| (*name).to_owned()).collect();
    let (mut failed, mut text) = check(&run, &golden);
    // The recorder knows an index by its random id, if there is a digit in it: one in forty has none.
    if failed != expected && text.contains("] already exists'") {
        (failed, text) = check(&run, &golden);
    }
    assert_eq!(failed, expected, "{text}");
    let summary = text.lines().last().unwrap_or_default();
    assert_eq!(summary, format!("{} passed, {} failed", 188 - DIFFERENT.len(), DIFFERENT.len()));
}

/// The calls that a fresh store answers differently, and what was printed about them.
fn check(run: &Path, golden: &Path) -> (BTreeSet<String>, String) {
    let store = Store::start(|config| config.cluster_name = "peer".into());
    let output = Command::new("python3")
        .arg(run)
        .args(["check", &store.address.to_string()])
        .args([golden, golden])
        .output()
        .expect("run golden-run with python3");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_whole = text.lines().last().is_some_and(|summary| summary.ends_with("failed"));
    assert!(is_whole, "{text}{}", String::from_utf8_lossy(&output.stderr));
    let names = text.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name.into());
    (names.collect(), text)
}
