//! Three coordinators that agree, ours and ZooKeeper's: writes and reads, a leader that dies, a million znodes, five
//! thousand sessions.
//!
//! `ELKFK_BENCH_ZNODES` (1000000) and `ELKFK_BENCH_SESSIONS` (5000) make it shorter, for a try.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use elkfk_tests::ensemble::{Ensemble, Kind};
use elkfk_tests::peers;

use crate::boxes::mib;
use crate::coordinator::{LOADS, parse};
use crate::table::{Better, Side, Table};

const SERVERS: usize = 3;
/// As in ZooKeeper's sample configuration; also what detects a dead leader.
const EXTRA: &str = "tickTime=2000\nmaxClientCnxns=0";
const FAILOVER_SECONDS: u64 = 15;
const PATIENCE: Duration = Duration::from_secs(120);

fn kind(side: Side) -> Kind {
    match side {
        Side::Ours => Kind::Elkfk,
        Side::Theirs => Kind::ZooKeeper,
    }
}

pub(crate) fn run() -> Result<()> {
    let mut table = Table::against("ZooKeeper 3.5.7");
    for round in 0..crate::rounds() {
        let dir = tempfile::tempdir()?;
        for side in Side::order(round) {
            let at = dir.path().join(format!("{side:?}"));
            small(&mut table, side, &at.join("small"))?;
            alike(&mut table, side, &at.join("alike"))?;
            large(&mut table, side, &at.join("large"))?;
        }
    }
    println!(
        "Three servers each on one machine, values of 100 bytes, tickTime 2000; both sync to disk on a majority before \
         they answer a write.\n"
    );
    table.print();
    Ok(())
}

fn bench(at: &str, args: &[&str]) -> Command {
    let mut command = Command::new("bash");
    command.arg(peers::scripts().join("kafka/zk-bench")).arg(at).args(args);
    command
}

/// Loads, then what happens when the leader dies.
fn small(table: &mut Table, side: Side, dir: &Path) -> Result<()> {
    let begun = Instant::now();
    let mut ensemble = Ensemble::start(kind(side), dir, SERVERS, EXTRA)?;
    let start = begun.elapsed().as_secs_f64();
    table.add(side, "start to all three serving", "s", Better::Less, start);
    let at = ensemble.connect_string();
    let seconds = crate::seconds(5).to_string();
    for (what, operation, sessions, window) in LOADS {
        let args = [operation, &seconds, sessions, window, "100"];
        let output = bench(&at, &args).output().context("run zk-bench")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let load =
            parse(&text).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        table.add(side, what, "ops/s", Better::More, load.operations_per_second);
        table.add(side, &format!("{what}: p99"), "ms", Better::Less, load.p99_ms);
    }
    memory(table, side, &ensemble, "after the loads")?;
    for _ in 0..2 {
        failover(table, side, &mut ensemble, &at)?;
    }
    Ok(())
}

/// What a server takes in memory where both sides hold the same: the loads above leave the faster one with more.
fn alike(table: &mut Table, side: Side, dir: &Path) -> Result<()> {
    const ZNODES: usize = 20_000;
    let ensemble = Ensemble::start(kind(side), dir, SERVERS, EXTRA)?;
    let at = ensemble.connect_string();
    Many::start(&at, &["znodes", &ZNODES.to_string()])?.wait()?;
    let seconds = crate::seconds(5).to_string();
    for (_, operation, sessions, window) in LOADS {
        if operation != "create" {
            let output = bench(&at, &[operation, &seconds, sessions, window, "100"]).output()?;
            parse(&String::from_utf8_lossy(&output.stdout))?;
        }
    }
    memory(table, side, &ensemble, &format!("with {ZNODES} znodes, after sets and gets"))
}

fn memory(table: &mut Table, side: Side, ensemble: &Ensemble, when: &str) -> Result<()> {
    let (mut all, mut most) = (0, 0);
    for at in 0..ensemble.len() {
        let resident = ensemble.process(at)?.resident_bytes();
        all += resident;
        most = most.max(resident);
    }
    let mean = mib(all) / ensemble.len() as f64;
    table.add(side, &format!("memory of a server {when}"), "MiB", Better::Less, mean);
    table.add(side, &format!("memory of the largest {when}"), "MiB", Better::Less, mib(most));
    Ok(())
}

/// `kill -9` of the leader while eight sessions write one at a time.
fn failover(table: &mut Table, side: Side, ensemble: &mut Ensemble, at: &str) -> Result<()> {
    let seconds = FAILOVER_SECONDS.to_string();
    let mut clients = bench(at, &["failover", &seconds, "8", "1", "100"]);
    let mut clients = clients.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut lines = BufReader::new(clients.stdout.take().context("its output")?).lines();
    ensure!(lines.next().context("zk-bench says ready")?? == "ready");
    std::thread::sleep(Duration::from_secs(3));
    let leader = ensemble.wait_for_leader(PATIENCE)?;
    ensemble.kill(leader);
    let begun = Instant::now();
    ensemble.wait_for_leader(PATIENCE)?;
    let elected = begun.elapsed().as_secs_f64();
    let mut gaps = Vec::new();
    for line in lines {
        gaps.push(gap_ms(&line?)?);
    }
    clients.wait()?;
    ensure!(gaps.len() == 8, "{} sessions of 8 reported", gaps.len());
    gaps.sort_by(f64::total_cmp);
    table.add(side, "leader killed: another says it leads", "s", Better::Less, elected);
    let what = "leader killed: longest time without a write, median session";
    table.add(side, what, "s", Better::Less, gaps[gaps.len() / 2] / 1000.0);
    let what = "leader killed: longest time without a write, worst session";
    table.add(side, what, "s", Better::Less, gaps[gaps.len() - 1] / 1000.0);
    let begun = Instant::now();
    ensemble.start_again(leader)?;
    ensemble.wait_for(leader)?;
    let back = begun.elapsed().as_secs_f64();
    table.add(side, "killed server: start to serving again", "s", Better::Less, back);
    Ok(())
}

/// Reads `session 3: ok=2210 failed=4 longest gap=1873ms`.
fn gap_ms(line: &str) -> Result<f64> {
    let text = line.rsplit_once("gap=").map(|(_, gap)| gap.trim_end_matches("ms"));
    text.and_then(|text| text.parse().ok()).with_context(|| format!("no gap in {line:?}"))
}

/// A million znodes and thousands of sessions.
fn large(table: &mut Table, side: Side, dir: &Path) -> Result<()> {
    let znodes: usize = crate::from_env("ELKFK_BENCH_ZNODES", 1_000_000);
    let sessions: usize = crate::from_env("ELKFK_BENCH_SESSIONS", 5_000);
    let mut ensemble = Ensemble::start(kind(side), dir, SERVERS, EXTRA)?;
    let at = ensemble.connect_string();
    let empty: u64 = resident(&ensemble)?;

    // Snapshots fall into this load: the longest wait of a write is that of the worst of them.
    let begun = Instant::now();
    let mut many = Many::start(&at, &["znodes", &znodes.to_string()])?;
    let longest = many.number("longest write ms")?;
    table.add(
        side,
        "creating znodes, snapshots meanwhile",
        "znodes/s",
        Better::More,
        znodes as f64 / begun.elapsed().as_secs_f64(),
    );
    table.add(side, "longest wait of a write meanwhile", "ms", Better::Less, longest);
    many.wait()?;
    let bytes = resident(&ensemble)?.saturating_sub(empty) as f64 / SERVERS as f64 / znodes as f64;
    table.add(side, "memory for each znode and server", "bytes", Better::Less, bytes);
    memory(table, side, &ensemble, "with all znodes")?;

    // A follower, then all at once.
    let leader = ensemble.wait_for_leader(PATIENCE)?;
    let follower = (leader + 1) % SERVERS;
    ensemble.stop(follower)?;
    let begun = Instant::now();
    ensemble.start_again(follower)?;
    ensemble.wait_for(follower)?;
    let took = begun.elapsed().as_secs_f64();
    table.add(side, "a follower's restart with all znodes", "s", Better::Less, took);
    for at in 0..SERVERS {
        ensemble.kill(at);
    }
    let begun = Instant::now();
    for at in 0..SERVERS {
        ensemble.start_again(at)?;
    }
    for at in 0..SERVERS {
        ensemble.wait_for(at)?;
    }
    let took = begun.elapsed().as_secs_f64();
    table.add(side, "all killed: start to all serving, with all znodes", "s", Better::Less, took);

    let before = resident(&ensemble)?;
    let begun = Instant::now();
    let mut many = Many::start(&at, &["sessions", &sessions.to_string()])?;
    many.number("connected")?;
    let took = begun.elapsed().as_secs_f64();
    table.add(side, "sessions opened", "sessions/s", Better::More, sessions as f64 / took);
    let p99 = many.number("read p99 ms")?;
    table.add(side, "read from each session: p99", "ms", Better::Less, p99);
    let grown = mib(resident(&ensemble)?.saturating_sub(before)) / SERVERS as f64;
    // Less than a page in all is no figure to divide by.
    table.add(side, "memory of a server for the sessions", "MiB", Better::Less, grown.max(0.01));
    many.wait()
}

fn resident(ensemble: &Ensemble) -> Result<u64> {
    (0..ensemble.len()).map(|at| Ok(ensemble.process(at)?.resident_bytes())).sum()
}

/// A load that `zk-bench` does not know, in Java with the same client; see `Many.java`.
struct Many {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Many {
    fn start(at: &str, args: &[&str]) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/Many.java");
        let libs = format!("{}/*", peers::programs().join("zookeeper/libs").display());
        let mut java = Command::new("java");
        java.args(["-Xmx3g", "-Xss256k", "-cp", &libs])
            .arg(format!(
                "-Dlog4j.configuration=file:{}",
                peers::scripts().join("kafka/log4j.properties").display()
            ))
            .arg("-Dpeers.log.level=OFF")
            .arg(source)
            .arg(at)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = java.spawn().context("run java")?;
        let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        Ok(Self { child, lines })
    }

    /// Waits for the line `NAME: NUMBER`.
    fn number(&mut self, name: &str) -> Result<f64> {
        for line in self.lines.by_ref() {
            let line = line?;
            if let Some((before, number)) = line.split_once(": ")
                && before == name
            {
                return number.parse().with_context(|| format!("the number of {line:?}"));
            }
        }
        anyhow::bail!("the load ended without a line {name:?}")
    }

    fn wait(mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "the load ended with {status}");
        Ok(())
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_read() {
        assert_eq!(gap_ms("session 3: ok=2210 failed=4 longest gap=1873ms").unwrap(), 1873.0);
        gap_ms("session 3: ok=2210").unwrap_err();
    }
}
