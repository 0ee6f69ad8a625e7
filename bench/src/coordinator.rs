//! znode writes and reads, one server, a forced sync before each answer on both sides.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use elkfk_tests::peers;
use elkfk_tests::process::{Process, elkfk};

use crate::table::{Better, head, row};

/// (what, operation, sessions, requests in flight of each)
const LOADS: [(&str, &str, &str, &str); 5] = [
    ("create, 1 session, one at a time", "create", "1", "1"),
    ("create, 16 sessions, one at a time", "create", "16", "1"),
    ("set, 4 sessions, 100 in flight", "set", "4", "100"),
    ("get, 16 sessions, one at a time", "get", "16", "1"),
    ("get, 4 sessions, 100 in flight", "get", "4", "100"),
];

/// (operations per second, p99 in ms) of each load.
fn measure(at: &str) -> Result<Vec<(f64, f64)>> {
    LOADS
        .iter()
        .map(|(_, operation, sessions, window)| {
            let output = Command::new("bash")
                .arg(peers::scripts().join("kafka/zk-bench"))
                .args([at, operation, "5", sessions, window, "100"])
                .output()
                .context("run zk-bench")?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(
                output.status.success(),
                "zk-bench: {text}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let number_before = |word: &str| {
                let words: Vec<_> = text.split_whitespace().collect();
                let at = words.iter().position(|each| each.starts_with(word))?;
                words.get(at.checked_sub(1)?)?.replace(',', "").parse::<f64>().ok()
            };
            let number_after = |word: &str| {
                let words: Vec<_> = text.split_whitespace().collect();
                let at = words.iter().position(|each| each.trim_end_matches([':', '=']) == word)?;
                words.get(at + 1)?.trim_end_matches([',', 'm', 's']).parse::<f64>().ok()
            };
            let rate = number_before("ops/s")
                .or_else(|| number_after("ops/s"))
                .with_context(|| format!("no rate in {text}"))?;
            Ok((rate, number_after("p99").unwrap_or(f64::NAN)))
        })
        .collect()
}

pub(crate) fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let zookeeper = peers::zookeeper(&dir.path().join("zookeeper"), "")?;
    let theirs = measure(&zookeeper.addr.to_string())?;
    let their_memory = zookeeper.process.resident_bytes() as f64 / f64::from(1 << 20);
    drop(zookeeper);

    let port = elkfk_tests::free_port();
    let config = dir.path().join("zoo.cfg");
    std::fs::write(
        &config,
        format!(
            "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n",
            dir.path().join("data").display()
        ),
    )?;
    let mut process = Process::start(
        "elkfk coordinator",
        Command::new(elkfk()).arg("coordinator").arg(&config),
        &dir.path().join("log"),
    )?;
    process.wait_until(Duration::from_secs(30), |_| {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })?;
    let ours = measure(&format!("127.0.0.1:{port}"))?;
    let our_memory = process.resident_bytes() as f64 / f64::from(1 << 20);

    head("ZooKeeper 3.5.7");
    for (((what, ..), (ours, our_p99)), (theirs, their_p99)) in LOADS.iter().zip(ours).zip(theirs) {
        row(what, "ops/s", ours, theirs, Better::More);
        row(&format!("{what}: p99"), "ms", our_p99, their_p99, Better::Less);
    }
    row("memory after it", "MiB", our_memory, their_memory, Better::Less);
    Ok(())
}
