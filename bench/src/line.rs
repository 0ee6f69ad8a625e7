//! The line: files → topic, topic → parsed → indexed, and the whole of it, on our boxes and on the real ones.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use elkfk_tests::line::{Index, Up};
use elkfk_tests::process::{Process, elkfk};
use elkfk_tests::{peers, workspace};

use crate::boxes::{self, create_topic, mib, records};
use crate::table::{Better, Side, Table};

const LIMIT: Duration = Duration::from_secs(600);

fn count_as(table: &mut Table, side: Side, what: &str, count: usize, begun: Instant) {
    table.add(side, what, "lines/s", Better::More, count as f64 / begun.elapsed().as_secs_f64());
}

fn usage(table: &mut Table, side: Side, of: &str, processes: &[&Process]) {
    let (mut cpu, mut peak) = (Duration::ZERO, 0);
    for process in processes {
        let usage = process.family();
        cpu += usage.cpu;
        peak += usage.peak_bytes;
    }
    table.add(side, &format!("CPU of {of}"), "s", Better::Less, cpu.as_secs_f64());
    table.add(side, &format!("memory of {of}, peak"), "MiB", Better::Less, mib(peak));
}

/// Lines per second of one complete file, from the shipper's start until the broker holds them all.
fn ship(
    table: &mut Table,
    side: Side,
    command: &mut Command,
    dir: &Path,
    bootstrap: &str,
    topic: &str,
    count: usize,
) -> Result<()> {
    create_topic(bootstrap, topic)?;
    let begun = Instant::now();
    let mut process = Process::start("shipper", command, &dir.join("shipper.log"))?;
    process.wait_until(LIMIT, |_| {
        // kcat takes a share of the machine too: not asked more often than the figure needs.
        std::thread::sleep(Duration::from_millis(100));
        records(bootstrap, topic) >= count
    })?;
    count_as(table, side, "file → topic", count, begun);
    usage(table, side, "the shipper", &[&process]);
    Ok(())
}

fn our_shipper(dir: &Path, bootstrap: &str, topic: &str, lines: &Path) -> Result<Command> {
    std::fs::create_dir_all(dir)?;
    let config = dir.join("filebeat.yml");
    let text = format!(
        "filebeat.inputs:\n  - type: filestream\n    id: bench\n    paths: ['{}']\npath.data: {}\noutput.kafka:\n  hosts: ['{bootstrap}']\n  topic: {topic}\n  required_acks: -1\n  compression: zstd\n",
        lines.display(),
        dir.join("registry").display()
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new(elkfk());
    command.args(["shipper", "-c"]).arg(&config);
    Ok(command)
}

/// rsyslog's imfile and omkafka; `None` where Debian's packages are not installed. Without the larger queue and
/// the two switches for failures it drops lines as soon as it is faster than the broker.
fn rsyslog(dir: &Path, bootstrap: &str, topic: &str, lines: &Path) -> Result<Option<Command>> {
    let (Some(program), true) = (rsyslogd(), has_omkafka()) else { return Ok(None) };
    std::fs::create_dir_all(dir)?;
    let config = dir.join("rsyslog.conf");
    let text = format!(
        r#"global(workDirectory="{}" maxMessageSize="64k")
module(load="imfile" mode="inotify")
module(load="omkafka")
template(name="raw" type="string" string="%msg%")
input(type="imfile" File="{}" Tag="nginx:" ruleset="k" reopenOnTruncate="on")
ruleset(name="k") {{ action(type="omkafka" broker=["{bootstrap}"] topic="{topic}" template="raw" partitions.auto="on" confParam=["acks=all", "compression.codec=zstd", "queue.buffering.max.messages=1000000"] resubmitOnFailure="on" keepFailedMessages="on" action.resumeRetryCount="-1") }}
"#,
        dir.display(),
        lines.display()
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new(program);
    command.args(["-n", "-i"]).arg(dir.join("pid")).arg("-f").arg(&config);
    Ok(Some(command))
}

fn rsyslogd() -> Option<&'static str> {
    ["/usr/sbin/rsyslogd", "/usr/bin/rsyslogd"].into_iter().find(|path| Path::new(path).exists())
}

fn has_omkafka() -> bool {
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/usr/lib64"]
        .iter()
        .any(|lib| Path::new(lib).join("rsyslog/omkafka.so").exists())
}

/// Events per second from a filled topic until the index counts them all.
fn parse(
    table: &mut Table,
    side: Side,
    dir: &Path,
    bootstrap: &str,
    topic: &str,
    url: &str,
    count: usize,
) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let begun = Instant::now();
    let process = Process::start(
        "elkfk sink",
        Command::new(elkfk())
            .args(["sink", "-f"])
            .arg(workspace().join("pipelines/nginx/pipeline.conf"))
            .env("ELKFK_BOOTSTRAP", bootstrap)
            .env("ELKFK_TOPIC", topic)
            .env("ELKFK_ELASTICSEARCH", url)
            .env("ELKFK_GROUP", format!("bench-{side:?}-{topic}")),
        &dir.join("sink.log"),
    )?;
    Index::new(url)
        .wait_for(count as u64, Duration::from_secs(60))
        .with_context(|| process.output())?;
    count_as(table, side, "topic → parsed → `_bulk`", count, begun);
    usage(table, side, "the sink", &[&process]);
    Ok(())
}

/// Lines per second from a complete file to the index.
fn whole(
    table: &mut Table,
    side: Side,
    dir: &Path,
    lines: &Path,
    count: usize,
    args: &[&str],
    beside: &[&Process],
) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let begun = Instant::now();
    let watch = lines.display().to_string();
    let up = Up::start(dir, &[&["--watch", &watch], args].concat())?;
    up.index().wait_for(count as u64, Duration::from_secs(120))?;
    count_as(table, side, "file → topic → parsed → indexed", count, begun);
    let all = [&[&up.process], beside].concat();
    usage(table, side, "all processes, their start included", &all);
    Ok(())
}

pub(crate) fn run() -> Result<()> {
    let count = crate::line_count(1_000_000);
    let lines = crate::lines("nginx", count)?;
    let mut shipped = Table::against("rsyslog (imfile, omkafka)");
    let mut brokers = Table::of("into elkfk's broker", "into Kafka 3.4.1");
    let mut parsed = Table::of("into elkfk's store", "into Elasticsearch 8.19");
    let mut wholes =
        Table::of("all boxes elkfk's", "Kafka 3.4.1 and Elasticsearch 8.19 in their places");
    let mut has_peer = true;
    for round in 0..crate::rounds() {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        let zookeeper = peers::zookeeper(&at("zookeeper"), "")?;
        let zookeeper_at = zookeeper.addr.to_string();
        let kafka = peers::kafka(&at("kafka"), &format!("{zookeeper_at}/kafka"), &[])?;
        let bootstrap = kafka.addr.to_string();
        for side in Side::order(round) {
            let (folder, topic) = (at(&format!("ship-{side:?}")), format!("ship-{side:?}"));
            let command = match side {
                Side::Ours => Some(our_shipper(&folder, &bootstrap, &topic, &lines)?),
                Side::Theirs => rsyslog(&folder, &bootstrap, &topic, &lines)?,
            };
            match command {
                Some(mut command) => {
                    ship(&mut shipped, side, &mut command, &folder, &bootstrap, &topic, count)?;
                }
                None => has_peer = false,
            }
        }
        {
            let broker = boxes::broker(&at("broker"), &format!("{zookeeper_at}/elkfk"), &[])?;
            let ours = broker.addr.to_string();
            for side in Side::order(round) {
                let bootstrap = if side == Side::Ours { &ours } else { &bootstrap };
                let (folder, topic) = (at(&format!("to-{side:?}")), "to-broker");
                let mut command = our_shipper(&folder, bootstrap, topic, &lines)?;
                ship(&mut brokers, side, &mut command, &folder, bootstrap, topic, count)?;
            }
        }
        for side in Side::order(round) {
            let folder = at(&format!("sink-{side:?}"));
            // Each from the start of the topic that our shipper has filled in the first comparison.
            let topic = format!("ship-{:?}", Side::Ours);
            if side == Side::Ours {
                let store = boxes::store(&folder)?;
                let url = format!("http://{}", store.addr);
                parse(&mut parsed, side, &folder, &bootstrap, &topic, &url, count)?;
            } else {
                let server = peers::elasticsearch(&folder.join("elasticsearch"), &[])?;
                let url = format!("http://{}", server.addr);
                parse(&mut parsed, side, &folder, &bootstrap, &topic, &url, count)?;
            }
        }
        drop((kafka, zookeeper));
        for side in Side::order(round) {
            if side == Side::Theirs {
                let zookeeper = peers::zookeeper(&at("zookeeper-2"), "")?;
                let kafka = peers::kafka(&at("kafka-2"), &zookeeper.addr.to_string(), &[])?;
                let server = peers::elasticsearch(&at("elasticsearch"), &[])?;
                let (bootstrap, url) = (kafka.addr.to_string(), format!("http://{}", server.addr));
                let args = ["--bootstrap-server", &bootstrap, "--elasticsearch", &url];
                let beside = [&zookeeper.process, &kafka.process, &server.process];
                whole(&mut wholes, side, &at("whole-real"), &lines, count, &args, &beside)?;
            } else {
                whole(&mut wholes, side, &at("whole-ours"), &lines, count, &[], &[])?;
            }
        }
    }

    println!(
        "{count} nginx lines of one complete file, 3 partitions, acks=all, zstd; times run from the start of the process.\n"
    );
    println!(
        "**File → topic**, on the same Kafka 3.4.1. elkfk sends Filebeat's JSON with a source id, rsyslog the bare line.\n"
    );
    shipped.print();
    if !has_peer {
        println!("rsyslog was not measured: apt-get install rsyslog rsyslog-kafka.\n");
    }
    println!(
        "**elkfk's shipper into either broker**, each with its default durability: elkfk syncs before it acknowledges, Kafka does not.\n"
    );
    brokers.print();
    println!(
        "**Topic → parsed → `_bulk`**: `elkfk sink` with `pipelines/nginx` (grok, date) from the same Kafka 3.4.1.\n"
    );
    parsed.print();
    println!("**The whole line**: `elkfk up`.\n");
    wholes.print();
    Ok(())
}
