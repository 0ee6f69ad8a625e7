//! znode writes and reads, one server, a forced sync before each answer on both sides.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use elkfk_tests::peers;
use elkfk_tests::process::Process;

use crate::boxes::{self, mib};
use crate::table::{Better, Side, Table};

/// (what, operation, sessions, requests in flight of each)
pub(crate) const LOADS: [(&str, &str, &str, &str); 5] = [
    ("create, 1 session, one at a time", "create", "1", "1"),
    ("create, 16 sessions, one at a time", "create", "16", "1"),
    ("set, 4 sessions, 100 in flight", "set", "4", "100"),
    ("get, 16 sessions, one at a time", "get", "16", "1"),
    ("get, 4 sessions, 100 in flight", "get", "4", "100"),
];

/// What `zk-bench` prints of a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    pub(crate) operations_per_second: f64,
    pub(crate) p99_ms: f64,
}

/// Reads `create sessions=1 … ops=12060 errors=0 ops/s=2412 p50=0.39ms p99=4.00ms max=31.20ms`.
pub(crate) fn parse(text: &str) -> Result<Load> {
    let value = |key: &str| {
        text.split_whitespace()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .with_context(|| format!("no {key}= in {text:?}"))
    };
    let number = |key: &str| {
        value(key)?
            .trim_end_matches("ms")
            .parse::<f64>()
            .with_context(|| format!("{key} in {text:?}"))
    };
    ensure!(value("errors")? == "0", "zk-bench saw errors: {text:?}");
    Ok(Load { operations_per_second: number("ops/s")?, p99_ms: number("p99")? })
}

fn measure(table: &mut Table, side: Side, at: &str, process: &Process) -> Result<()> {
    let before = process.family();
    for (what, operation, sessions, window) in LOADS {
        let output = Command::new("bash")
            .arg(peers::scripts().join("kafka/zk-bench"))
            .args([at, operation, &crate::seconds(5).to_string(), sessions, window, "100"])
            .output()
            .context("run zk-bench")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "zk-bench: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let load = parse(&text)?;
        table.add(side, what, "ops/s", Better::More, load.operations_per_second);
        table.add(side, &format!("{what}: p99"), "ms", Better::Less, load.p99_ms);
    }
    let usage = process.family();
    table.add(side, "CPU for all of it", "s", Better::Less, boxes::cpu_since(process, before));
    table.add(side, "memory, peak", "MiB", Better::Less, mib(usage.peak_bytes));
    table.add(side, "memory after it", "MiB", Better::Less, mib(usage.resident_bytes));
    Ok(())
}

pub(crate) fn run() -> Result<()> {
    let mut table = Table::against("ZooKeeper 3.5.7");
    for round in 0..crate::rounds() {
        let dir = tempfile::tempdir()?;
        for side in Side::order(round) {
            if side == Side::Theirs {
                let server = peers::zookeeper(&dir.path().join("zookeeper"), "")?;
                measure(&mut table, side, &server.addr.to_string(), &server.process)?;
            } else {
                let ours = boxes::coordinator(&dir.path().join("ours"))?;
                measure(&mut table, side, &ours.addr.to_string(), &ours.process)?;
            }
        }
    }
    println!("Values of 100 bytes; both sync to disk before they answer a write.\n");
    table.print();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_generator_is_understood() {
        let line = "create sessions=1 window=1 bytes=100 ops=12060 errors=0 ops/s=2412 p50=0.39ms p99=4.00ms max=31.20ms\n";
        let load = parse(line).unwrap();
        assert_eq!(load, Load { operations_per_second: 2412.0, p99_ms: 4.0 });
        for wrong in [
            line.replace("errors=0", "errors=3"),
            line.replace("p99=", "p98="),
            line.replace("ops/s=2412", "ops/s=-"),
            String::new(),
        ] {
            parse(&wrong).unwrap_err();
        }
    }
}
