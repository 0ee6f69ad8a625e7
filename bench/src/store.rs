//! Documents per second into the index, by the same bulk client.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use elkfk_tests::line::Index;
use elkfk_tests::peers;
use elkfk_tests::process::{Process, elkfk};

use crate::startup::family_bytes;
use crate::table::{Better, head, row};

#[derive(Debug)]
struct Round {
    docs_per_second: Vec<f64>,
    resident_mib: f64,
    search_ms: f64,
}

const CONNECTIONS: [&str; 2] = ["1", "4"];

fn measure(url: &str, pid: u32, lines: &Path, count: usize) -> Result<Round> {
    let loader = peers::scripts().join("elasticsearch/bulk-load.go");
    let mut docs_per_second = Vec::new();
    for (n, connections) in CONNECTIONS.iter().enumerate() {
        let output = Command::new("go")
            .arg("run")
            .arg(&loader)
            .args(["-c", connections, "-index", &format!("logs-bench-{n}"), "-op", "create", url])
            .arg(lines)
            .output()
            .context("run the bulk loader with go")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "bulk-load: {text}");
        let words: Vec<_> = text.split_whitespace().collect();
        let at = words
            .iter()
            .position(|word| word.starts_with("docs/s"))
            .with_context(|| format!("no rate in {text}"))?;
        docs_per_second.push(
            words[at - 1].replace(',', "").parse().with_context(|| format!("no rate in {text}"))?,
        );
    }
    let index = Index::new(url);
    index.wait_for((count * CONNECTIONS.len()) as u64, Duration::from_secs(120))?;
    let query = serde_json::json!({"size": 100, "sort": [{"@timestamp": "desc"}], "query": {"query_string": {"query": "message:Firefox AND message:products"}}});
    let mut times: Vec<f64> = (0..20)
        .map(|_| {
            let begun = Instant::now();
            index.post("/logs-*/_search", &query).map(|_| begun.elapsed().as_secs_f64() * 1000.0)
        })
        .collect::<Result<_>>()?;
    times.sort_by(f64::total_cmp);
    Ok(Round {
        docs_per_second,
        resident_mib: family_bytes(pid) as f64 / f64::from(1 << 20),
        search_ms: times[10],
    })
}

pub(crate) fn run() -> Result<()> {
    let count = crate::line_count(300_000);
    let lines = crate::lines("nginx", count)?;
    let dir = tempfile::tempdir()?;
    let elasticsearch = peers::elasticsearch(&dir.path().join("elasticsearch"), &[])?;
    let theirs = measure(
        &format!("http://{}", elasticsearch.addr),
        elasticsearch.process.id(),
        &lines,
        count,
    )?;
    drop(elasticsearch);

    let listen = format!("127.0.0.1:{}", elkfk_tests::free_port());
    let mut command = Command::new(elkfk());
    command.args(["store", "--listen", &listen, "--data"]).arg(dir.path().join("store"));
    let mut process = Process::start("elkfk store", &mut command, &dir.path().join("store.log"))?;
    process
        .wait_until(Duration::from_secs(30), |_| std::net::TcpStream::connect(&listen).is_ok())?;
    let ours = measure(&format!("http://{listen}"), process.id(), &lines, count)?;

    head("Elasticsearch 8.19");
    for ((connections, ours), theirs) in
        CONNECTIONS.iter().zip(&ours.docs_per_second).zip(&theirs.docs_per_second)
    {
        row(
            &format!("_bulk create, {connections} connections, durable"),
            "docs/s",
            *ours,
            *theirs,
            Better::More,
        );
    }
    row("two words, newest 100 of all, p50", "ms", ours.search_ms, theirs.search_ms, Better::Less);
    row("memory after it", "MiB", ours.resident_mib, theirs.resident_mib, Better::Less);
    Ok(())
}
