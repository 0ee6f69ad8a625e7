//! Documents per second into the index, by the same bulk client, and the searches of a log view.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use elkfk_tests::line::Index;
use elkfk_tests::peers;
use elkfk_tests::process::Process;
use serde_json::json;

use crate::boxes::{self, mib};
use crate::table::{Better, Side, Table};

const CONNECTIONS: [&str; 2] = ["1", "4"];
const SEARCHED: &str = "logs-bench-4";

/// Documents per second of `c=4 … bulks=80 failed=0 12.3s 81300 docs/s 19.4 raw MB/s`.
fn parse_load(text: &str) -> Result<f64> {
    let words: Vec<_> = text.split_whitespace().collect();
    ensure!(words.contains(&"failed=0"), "bulk requests failed: {text:?}");
    let at = words.iter().position(|word| *word == "docs/s");
    at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok())
        .with_context(|| format!("no docs/s in {text:?}"))
}

/// Name, median in ms, and hits of each search; no median where the server gave no hits.
fn parse_searches(text: &str) -> Vec<(String, Option<f64>, String)> {
    text.lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(" p50 ")?;
            let (times, hits) = rest.split_once(" hits ")?;
            let median = times.split_whitespace().next()?.parse().ok();
            let is_answered = hits.contains("'value'");
            Some((name.trim().to_owned(), median.filter(|_| is_answered), hits.to_owned()))
        })
        .collect()
}

/// One shard, no replica, strings as keywords and the line as text: the same on both sides.
fn template() -> serde_json::Value {
    json!({
        "index_patterns": ["logs-bench-*"],
        "template": {
            "settings": {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "5s"},
            "mappings": {
                "dynamic_templates": [{"strings": {"match_mapping_type": "string", "mapping": {"type": "keyword"}}}],
                "properties": {
                    "@timestamp": {"type": "date"},
                    "message": {"type": "text", "norms": false},
                    "source": {"properties": {"ip": {"type": "ip"}}},
                },
            },
        },
    })
}

/// The searches, with the hits of each for a comparison.
fn measure(
    table: &mut Table,
    side: Side,
    addr: &str,
    process: &Process,
    loader: &Path,
    lines: &Path,
    count: usize,
) -> Result<Vec<(String, String)>> {
    let url = format!("http://{addr}");
    let index = Index::new(&url);
    let made = index.put("/_index_template/bench", &template())?;
    ensure!(made["acknowledged"] == true, "index template: {made}");
    let before = process.family();
    for connections in CONNECTIONS {
        let output = Command::new(loader)
            .args(["-c", connections, "-index", &format!("logs-bench-{connections}")])
            .args(["-op", "create", &url])
            .arg(lines)
            .output()
            .context("run the bulk loader")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "bulk-load: {text}");
        let what = format!("_bulk create, {connections} connections, durable");
        table.add(side, &what, "docs/s", Better::More, parse_load(&text)?);
    }
    index.wait_for((count * CONNECTIONS.len()) as u64, Duration::from_secs(120))?;
    let documents = (count * CONNECTIONS.len()) as f64;
    let cpu = boxes::cpu_since(process, before) * 1e6 / documents;
    table.add(side, "CPU for each document", "µs", Better::Less, cpu);

    let output = Command::new("python3")
        .arg(peers::scripts().join("elasticsearch/search-times"))
        .args([addr, SEARCHED, "20"])
        .output()
        .context("run search-times with python3")?;
    ensure!(output.status.success(), "search-times: {}", String::from_utf8_lossy(&output.stderr));
    let mut hits = Vec::new();
    for (name, median, found) in parse_searches(&String::from_utf8_lossy(&output.stdout)) {
        if let Some(median) = median {
            let what = format!("search: {name}, p50");
            table.add(side, &what, "ms", Better::Less, median);
        }
        hits.push((name, found));
    }
    ensure!(!hits.is_empty(), "search-times printed no search");
    let usage = process.family();
    table.add(side, "memory, peak", "MiB", Better::Less, mib(usage.peak_bytes));
    table.add(side, "memory after it", "MiB", Better::Less, mib(usage.resident_bytes));
    Ok(hits)
}

/// The bulk client, built once.
fn loader(dir: &Path) -> Result<PathBuf> {
    let program = dir.join("bulk-load");
    let output = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(peers::scripts().join("elasticsearch/bulk-load.go"))
        .output()
        .context("build the bulk client with go (apt-get install golang-go)")?;
    ensure!(output.status.success(), "go build: {}", String::from_utf8_lossy(&output.stderr));
    Ok(program)
}

pub(crate) fn run() -> Result<()> {
    let count = crate::line_count(1_000_000);
    let lines = crate::lines("nginx", count)?;
    let tools = tempfile::tempdir()?;
    let loader = loader(tools.path())?;
    let mut table = Table::against("Elasticsearch 8.19");
    let (mut our_hits, mut their_hits) = (Vec::new(), Vec::new());
    for round in 0..crate::rounds() {
        let dir = tempfile::tempdir()?;
        for side in Side::order(round) {
            if side == Side::Theirs {
                let server = peers::elasticsearch(&dir.path().join("elasticsearch"), &[])?;
                let addr = server.addr.to_string();
                their_hits =
                    measure(&mut table, side, &addr, &server.process, &loader, &lines, count)?;
            } else {
                let store = boxes::store(&dir.path().join("ours"))?;
                let addr = store.addr.to_string();
                our_hits =
                    measure(&mut table, side, &addr, &store.process, &loader, &lines, count)?;
            }
        }
    }
    println!(
        "{count} documents of 14 fields from nginx lines, twice; bulks of 5 MB, one shard, each bulk synced before its answer.\n"
    );
    table.print();
    for ((name, ours), (_, theirs)) in our_hits.iter().zip(&their_hits) {
        if ours != theirs {
            println!("Search “{name}”: elkfk answers {ours}; Elasticsearch {theirs}\n");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bulk_client_and_the_searches_are_understood() {
        let line = "c=4 gzip=false docs=1000 raw=0.2MB json=0.8MB sent=0.8MB bulks=1 failed=0 0.1s 81300 docs/s 19.4 raw MB/s\n";
        assert_eq!(parse_load(line).unwrap(), 81300.0);
        parse_load(&line.replace("failed=0", "failed=2")).unwrap_err();
        parse_load("exit status 1").unwrap_err();
        let searches = "newest 500                     p50     26.5 min     16.6 max     30.0 ms  hits {'value': 10000, 'relation': 'gte'}\n\
                        cardinality of urls            p50      1.0 min      1.0 max      1.0 ms  hits {'error': 'no'}\n";
        assert_eq!(
            parse_searches(searches),
            [
                ("newest 500".into(), Some(26.5), "{'value': 10000, 'relation': 'gte'}".into()),
                ("cardinality of urls".into(), None, "{'error': 'no'}".into()),
            ]
        );
    }
}
