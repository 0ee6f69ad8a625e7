//! Produce and consume: the same clients, the same lines, the same durability.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use elkfk_tests::peers::{self, kafka_tool};
use elkfk_tests::process::Process;

use crate::boxes::{self, create_topic, mib};
use crate::table::{Better, Side, Table};

const RECORD_BYTES: usize = 200;

/// MB/s of `1000000 records sent, 690131.1 records/sec (131.63 MB/sec), …`; Kafka's MB are MiB.
fn parse_perf_test(text: &str) -> Option<f64> {
    let line = text.lines().rfind(|line| line.contains("records sent"))?;
    let mebibytes = line.split('(').nth(1)?.split(" MB/sec").next()?.parse::<f64>().ok()?;
    Some(mebibytes * 1.048_576)
}

fn kcat(table: &mut Table, side: Side, bootstrap: &str, lines: &Path, codec: &str) -> Result<()> {
    let bytes = std::fs::metadata(lines)?.len();
    let topic = format!("bench-{codec}");
    create_topic(bootstrap, &topic)?;
    let suffix = if codec == "none" { "" } else { ", zstd" };
    let rate = |begun: Instant| bytes as f64 / begun.elapsed().as_secs_f64() / 1e6;

    let begun = Instant::now();
    let status = Command::new("kcat")
        .args(["-P", "-q", "-b", bootstrap, "-t", &topic, "-z", codec, "-X", "acks=-1"])
        .args(["-X", "linger.ms=10", "-X", "queue.buffering.max.messages=1000000", "-l"])
        .arg(lines)
        .status()
        .context("run kcat")?;
    ensure!(status.success(), "kcat: {status}");
    let what = format!("kcat produces{suffix}, acks=all");
    table.add(side, &what, "MB/s", Better::More, rate(begun));

    let begun = Instant::now();
    let mut child = Command::new("kcat")
        .args(["-C", "-q", "-e", "-b", bootstrap, "-t", &topic, "-o", "beginning"])
        .args(["-X", "fetch.message.max.bytes=4194304"])
        .stdout(Stdio::piped())
        .spawn()
        .context("run kcat")?;
    let mut output = child.stdout.take().context("kcat's output is piped")?;
    let came = std::io::copy(&mut output, &mut std::io::sink())?;
    let status = child.wait()?;
    // A record without its line's end, read back with one: the same bytes, in another order.
    ensure!(status.success() && came == bytes, "kcat: {status}, {came} of {bytes} bytes came back");
    table.add(side, &format!("kcat consumes{suffix}"), "MB/s", Better::More, rate(begun));
    Ok(())
}

fn perf_test(
    table: &mut Table,
    side: Side,
    bootstrap: &str,
    count: usize,
    acks: &str,
) -> Result<()> {
    let topic = format!("perf-{acks}");
    create_topic(bootstrap, &topic)?;
    let (servers, acks) = (format!("bootstrap.servers={bootstrap}"), format!("acks={acks}"));
    let (count, size) = (count.to_string(), RECORD_BYTES.to_string());
    let mut args = vec!["--topic", &topic, "--num-records", &count, "--throughput", "-1"];
    args.extend(["--record-size", &size, "--producer-props", &servers, &acks]);
    args.extend(["batch.size=131072", "linger.ms=10"]);
    let output = kafka_tool("kafka-producer-perf-test", &args, "")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rate = parse_perf_test(&text)
        .with_context(|| format!("no rate in {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    let what = format!("kafka-producer-perf-test, {acks}");
    table.add(side, &what, "MB/s", Better::More, rate);
    Ok(())
}

fn measure(
    table: &mut Table,
    side: Side,
    bootstrap: &str,
    process: &Process,
    lines: &Path,
    count: usize,
) -> Result<()> {
    let before = process.family();
    for codec in ["none", "zstd"] {
        kcat(table, side, bootstrap, lines, codec)?;
    }
    for acks in ["all", "1"] {
        perf_test(table, side, bootstrap, count, acks)?;
    }
    let usage = process.family();
    table.add(
        side,
        "CPU of the broker for all of it",
        "s",
        Better::Less,
        boxes::cpu_since(process, before),
    );
    table.add(side, "memory, peak", "MiB", Better::Less, mib(usage.peak_bytes));
    table.add(side, "memory after it", "MiB", Better::Less, mib(usage.resident_bytes));
    Ok(())
}

fn compare(ours: &str, theirs: &[&str], lines: &Path, count: usize) -> Result<()> {
    let segments = "log.segment.bytes=268435456";
    let mut table = Table::against("Kafka 3.4.1");
    for round in 0..crate::rounds() {
        let dir = tempfile::tempdir()?;
        let zookeeper = peers::zookeeper(&dir.path().join("zookeeper"), "")?;
        let at = zookeeper.addr.to_string();
        for side in Side::order(round) {
            if side == Side::Theirs {
                let overrides = [theirs, &[segments]].concat();
                let kafka =
                    peers::kafka(&dir.path().join("kafka"), &format!("{at}/kafka"), &overrides)?;
                let bootstrap = kafka.addr.to_string();
                measure(&mut table, side, &bootstrap, &kafka.process, lines, count)?;
            } else {
                let overrides = [ours, segments];
                let broker =
                    boxes::broker(&dir.path().join("ours"), &format!("{at}/elkfk"), &overrides)?;
                let bootstrap = broker.addr.to_string();
                measure(&mut table, side, &bootstrap, &broker.process, lines, count)?;
            }
        }
    }
    table.print();
    Ok(())
}

pub(crate) fn run() -> Result<()> {
    let count = crate::line_count(1_000_000);
    let lines = crate::lines("nginx", count)?;
    println!(
        "{count} nginx lines by kcat, {count} records of {RECORD_BYTES} bytes by Kafka's perf test; 3 partitions, replication factor 1, a real ZooKeeper beneath both.\n"
    );
    println!("Durability: the page cache (`elkfk.durability=kafka`; Kafka's default)\n");
    compare("elkfk.durability=kafka", &[], &lines, count)?;
    println!(
        "Durability: fdatasync before the acknowledgement (elkfk's default; `log.flush.interval.messages=1`)\n"
    );
    compare("elkfk.durability=group", &["log.flush.interval.messages=1"], &lines, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_perf_test_is_understood() {
        let text = "500000 records sent, 99980.0 records/sec (19.07 MB/sec), 1.0 ms avg latency, 2.0 ms max latency.\n\
                    1000000 records sent, 690131.1 records/sec (100.00 MB/sec), 4.00 ms avg latency, 9.00 ms max latency, 4 ms 50th, 5 ms 95th, 6 ms 99th, 7 ms 99.9th.\n";
        let rate = parse_perf_test(text).unwrap();
        assert!((rate - 104.857_6).abs() < 1e-6, "{rate}");
        assert_eq!(parse_perf_test("org.apache.kafka.common.errors.TimeoutException"), None);
    }
}
