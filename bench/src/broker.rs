//! Produce and consume: the same clients, the same lines, the same durability.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use elkfk_tests::peers::{self, kafka_tool};
use elkfk_tests::process::{Process, elkfk};

use crate::table::{Better, head, row};

/// What one broker did.
#[derive(Debug, Default)]
struct Round {
    /// (what, MB/s)
    rates: Vec<(&'static str, f64)>,
    cpu_seconds: f64,
    resident_mib: f64,
}

const STEPS: [(&str, &str); 2] =
    [("none", "kcat produces, acks=all"), ("zstd", "kcat produces zstd, acks=all")];

fn measure(bootstrap: &str, process: &Process, lines: &Path) -> Result<Round> {
    let bytes = std::fs::metadata(lines)?.len() as f64;
    let mut round = Round::default();
    let cpu = process.cpu();
    for (codec, what) in STEPS {
        let topic = format!("bench-{codec}");
        let made = kafka_tool(
            "kafka-topics",
            &["--bootstrap-server", bootstrap, "--create", "--topic", &topic, "--partitions", "3"],
            "",
        )?;
        ensure!(made.status.success(), "create {topic}: {}", String::from_utf8_lossy(&made.stdout));
        let begun = Instant::now();
        let status = Command::new("kcat")
            .args([
                "-P",
                "-q",
                "-b",
                bootstrap,
                "-t",
                &topic,
                "-X",
                "acks=-1",
                "-X",
                "linger.ms=10",
                "-z",
                codec,
            ])
            .args(["-X", "queue.buffering.max.messages=1000000", "-l"])
            .arg(lines)
            .status()
            .context("run kcat")?;
        ensure!(status.success(), "kcat: {status}");
        round.rates.push((what, bytes / begun.elapsed().as_secs_f64() / 1e6));
        let begun = Instant::now();
        let output = Command::new("kcat")
            .args([
                "-C",
                "-q",
                "-e",
                "-b",
                bootstrap,
                "-t",
                &topic,
                "-o",
                "beginning",
                "-X",
                "fetch.message.max.bytes=4194304",
            ])
            .output()
            .context("run kcat")?;
        // A record without its line's end, read back with one: the same bytes, in another order.
        ensure!(
            output.stdout.len() as f64 == bytes,
            "{} of {bytes} bytes came back",
            output.stdout.len()
        );
        let what = if codec == "none" { "kcat consumes" } else { "kcat consumes zstd" };
        round.rates.push((what, bytes / begun.elapsed().as_secs_f64() / 1e6));
    }
    let count = crate::line_count(1_000_000).to_string();
    for (acks, what) in
        [("all", "kafka-producer-perf-test, acks=all"), ("1", "kafka-producer-perf-test, acks=1")]
    {
        let topic = format!("perf-{acks}");
        kafka_tool(
            "kafka-topics",
            &["--bootstrap-server", bootstrap, "--create", "--topic", &topic, "--partitions", "3"],
            "",
        )?;
        let servers = format!("bootstrap.servers={bootstrap}");
        let acks = format!("acks={acks}");
        let output = kafka_tool(
            "kafka-producer-perf-test",
            &[
                "--topic",
                &topic,
                "--num-records",
                &count,
                "--throughput",
                "-1",
                "--record-size",
                "200",
                "--producer-props",
                &servers,
                &acks,
                "batch.size=131072",
                "linger.ms=10",
            ],
            "",
        )?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rate = text
            .lines()
            .last()
            .and_then(|line| line.split('(').nth(1)?.split(" MB/sec").next()?.parse::<f64>().ok());
        round.rates.push((what, rate.with_context(|| format!("no rate in {text}"))? * 1.048_576));
    }
    round.cpu_seconds = (process.cpu() - cpu).as_secs_f64();
    round.resident_mib = process.resident_bytes() as f64 / f64::from(1 << 20);
    Ok(round)
}

fn compare(durability: &str, ours: &[&str], theirs: &[&str], lines: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let zookeeper = peers::zookeeper(&dir.path().join("zookeeper"), "")?;
    let at = zookeeper.addr.to_string();
    let kafka = peers::kafka(
        &dir.path().join("kafka"),
        &format!("{at}/kafka"),
        &[theirs, &["log.segment.bytes=268435456"]].concat(),
    )?;
    let kafka_round = measure(&kafka.addr.to_string(), &kafka.process, lines)?;
    drop(kafka);

    let port = elkfk_tests::free_port();
    let config = dir.path().join("server.properties");
    let text = format!(
        "broker.id=0\nlisteners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={}\nzookeeper.connect={at}/elkfk\noffsets.topic.replication.factor=1\nlog.segment.bytes=268435456\n{}\n",
        dir.path().join("broker").display(),
        ours.join("\n")
    );
    std::fs::write(&config, text)?;
    let mut process = Process::start(
        "elkfk broker",
        Command::new(elkfk()).arg("broker").arg(&config),
        &dir.path().join("broker.log"),
    )?;
    process.wait_until(Duration::from_secs(30), |_| {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })?;
    let our_round = measure(&format!("127.0.0.1:{port}"), &process, lines)?;

    println!("Durability: {durability}\n");
    head("Kafka 3.4.1");
    for ((what, ours), (_, theirs)) in our_round.rates.iter().zip(&kafka_round.rates) {
        row(what, "MB/s", *ours, *theirs, Better::More);
    }
    row(
        "CPU of the broker for all of it",
        "s",
        our_round.cpu_seconds,
        kafka_round.cpu_seconds,
        Better::Less,
    );
    row("memory after it", "MiB", our_round.resident_mib, kafka_round.resident_mib, Better::Less);
    println!();
    Ok(())
}

pub(crate) fn run() -> Result<()> {
    let lines = crate::lines("nginx", crate::line_count(1_000_000))?;
    compare("the page cache (Kafka's default)", &["elkfk.durability=kafka"], &[], &lines)?;
    compare(
        "fdatasync before the acknowledgement (elkfk's default; log.flush.interval.messages=1)",
        &["elkfk.durability=group"],
        &["log.flush.interval.messages=1"],
        &lines,
    )
}
