//! The line: files → topic, and topic → parsed → indexed, on our boxes and on the real ones.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use elkfk_tests::line::Up;
use elkfk_tests::peers::{self, kafka_tool};
use elkfk_tests::process::{Process, elkfk};

use crate::table::{Better, head, row};

/// Lines of one file per second until the broker holds them all, CPU seconds and MiB of the shipper.
fn ship(bootstrap: &str, dir: &Path, lines: &Path, count: usize) -> Result<(f64, f64, f64)> {
    let topic = "ship";
    kafka_tool(
        "kafka-topics",
        &["--bootstrap-server", bootstrap, "--create", "--topic", topic, "--partitions", "3"],
        "",
    )?;
    let config = dir.join("filebeat.yml");
    let text = format!(
        "filebeat.inputs:\n  - type: filestream\n    id: bench\n    paths: ['{}']\npath.data: {}\noutput.kafka:\n  hosts: ['{bootstrap}']\n  topic: {topic}\n  required_acks: -1\n  compression: zstd\n",
        lines.display(),
        dir.join("registry").display()
    );
    std::fs::write(&config, text)?;
    let begun = Instant::now();
    let mut process = Process::start(
        "elkfk shipper",
        Command::new(elkfk()).args(["shipper", "-c"]).arg(&config),
        &dir.join("shipper.log"),
    )?;
    let mut held = 0;
    let ends = |_: &Process| {
        let output = Command::new("kcat")
            .args([
                "-Q",
                "-b",
                bootstrap,
                "-t",
                &format!("{topic}:0:-1"),
                "-t",
                &format!("{topic}:1:-1"),
                "-t",
                &format!("{topic}:2:-1"),
            ])
            .output();
        held = output.map_or(0, |output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
        });
        held >= count
    };
    process.wait_until(Duration::from_secs(300), ends)?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok((
        count as f64 / seconds,
        process.cpu().as_secs_f64(),
        process.resident_bytes() as f64 / f64::from(1 << 20),
    ))
}

/// Lines per second from a complete file to the index, and MiB of `elkfk up`.
fn whole(dir: &Path, lines: &Path, count: usize, args: &[&str]) -> Result<(f64, f64)> {
    std::fs::create_dir_all(dir)?;
    let begun = Instant::now();
    let watch = lines.display().to_string();
    let up = Up::start(dir, &[&["--watch", &watch], args].concat())?;
    up.index().wait_for(count as u64, Duration::from_secs(120))?;
    Ok((
        count as f64 / begun.elapsed().as_secs_f64(),
        up.process.resident_bytes() as f64 / f64::from(1 << 20),
    ))
}

pub(crate) fn run() -> Result<()> {
    let count = crate::line_count(1_000_000);
    let lines = crate::lines("nginx", count)?;
    let dir = tempfile::tempdir()?;
    let zookeeper = peers::zookeeper(&dir.path().join("zookeeper"), "")?;
    let kafka = peers::kafka(&dir.path().join("kafka"), &zookeeper.addr.to_string(), &[])?;
    let elasticsearch = peers::elasticsearch(&dir.path().join("elasticsearch"), &[])?;
    let (bootstrap, url) = (kafka.addr.to_string(), format!("http://{}", elasticsearch.addr));

    let shipped = dir.path().join("shipped");
    std::fs::create_dir_all(&shipped)?;
    let (rate, cpu, memory) = ship(&bootstrap, &shipped, &lines, count)?;
    let theirs = whole(
        &dir.path().join("real"),
        &lines,
        count,
        &["--bootstrap-server", &bootstrap, "--elasticsearch", &url],
    )?;
    drop((elasticsearch, kafka, zookeeper));
    let ours = whole(&dir.path().join("ours"), &lines, count, &[]).context("elkfk up")?;

    println!(
        "Shipper, {count} nginx lines of one file → Kafka 3.4.1, acks=all, zstd: {rate:.0} lines/s, {cpu:.1} CPU s, {memory:.0} MiB\n"
    );
    head("with Kafka 3.4.1 and Elasticsearch 8.19");
    row("file → parsed → indexed", "lines/s", ours.0, theirs.0, Better::More);
    println!(
        "\nMemory of `elkfk up`: {:.0} MiB with all boxes, {:.0} MiB with the real broker and index beside it.",
        ours.1, theirs.1
    );
    Ok(())
}
