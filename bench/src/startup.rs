//! From the start of a process to its first answer, and its memory when idle.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use elkfk_tests::peers;
use elkfk_tests::process::{Process, elkfk};

use crate::table::{Better, head, row};

/// Seconds to the first answer and MiB of memory after a second of rest.
type Start = (f64, f64);

fn settled(process: &Process, begun: Instant) -> Start {
    let seconds = begun.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_secs(1));
    (seconds, process.resident_bytes() as f64 / f64::from(1 << 20))
}

fn ours(dir: &Path, args: &[&str], port: u16) -> Result<Start> {
    let begun = Instant::now();
    let mut process =
        Process::start("elkfk", Command::new(elkfk()).args(args), &dir.join("elkfk.log"))?;
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    process.wait_until(Duration::from_secs(30), |_| {
        TcpStream::connect_timeout(&addr, Duration::from_millis(100)).is_ok()
    })?;
    Ok(settled(&process, begun))
}

fn print(name: &str, ours: Start, theirs: Start) {
    row(&format!("{name}: start-up"), "s", ours.0, theirs.0, Better::Less);
    row(&format!("{name}: memory, idle"), "MiB", ours.1, theirs.1, Better::Less);
}

pub(crate) fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    head("ancestor");

    let begun = Instant::now();
    let zookeeper = peers::zookeeper(&dir.join("zookeeper"), "")?;
    let theirs = settled(&zookeeper.process, begun);
    let port = elkfk_tests::free_port();
    let config = dir.join("zoo.cfg");
    std::fs::write(
        &config,
        format!(
            "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n",
            dir.join("coordinator").display()
        ),
    )?;
    print(
        "coordinator, ZooKeeper 3.5.7",
        ours(dir, &["coordinator", &config.display().to_string()], port)?,
        theirs,
    );

    let begun = Instant::now();
    let kafka = peers::kafka(&dir.join("kafka"), &zookeeper.addr.to_string(), &[])?;
    let theirs = settled(&kafka.process, begun);
    drop(kafka);
    let port = elkfk_tests::free_port();
    let config = dir.join("server.properties");
    std::fs::write(
        &config,
        format!(
            "broker.id=1\nlisteners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={}\nzookeeper.connect={}/elkfk\noffsets.topic.replication.factor=1\n",
            dir.join("broker").display(),
            zookeeper.addr
        ),
    )?;
    print(
        "broker, Kafka 3.4.1",
        ours(dir, &["broker", &config.display().to_string()], port)?,
        theirs,
    );

    let begun = Instant::now();
    let elasticsearch = peers::elasticsearch(&dir.join("elasticsearch"), &[])?;
    let seconds = begun.elapsed().as_secs_f64();
    let memory = family_bytes(elasticsearch.process.id()) as f64 / f64::from(1 << 20);
    drop(elasticsearch);
    let port = elkfk_tests::free_port();
    let listen = format!("127.0.0.1:{port}");
    let data = dir.join("store").display().to_string();
    print(
        "store, Elasticsearch 8.19",
        ours(dir, &["store", "--data", &data, "--listen", &listen], port)?,
        (seconds, memory),
    );
    Ok(())
}

/// Resident memory of a process and everything it started.
pub(crate) fn family_bytes(root: u32) -> u64 {
    let mut family = vec![root];
    let mut bytes = 0;
    while let Some(pid) = family.pop() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let kib: u64 = status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok()
            })
            .unwrap_or(0);
        bytes += kib * 1024;
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    bytes
}
