//! Our boxes alone, as a bench starts them, and when a server counts as started: at the first answer
//! to the same request on both sides.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use elkfk_tests::line::Index;
use elkfk_tests::peers;
use elkfk_tests::process::{Process, Usage, elkfk};

/// Also for an ancestor on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A request whose first right answer ends a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// ZooKeeper's four-letter word `srvr`.
    Srvr,
    /// Kafka's Metadata, asked by kcat, with a broker in it.
    Metadata,
    /// HTTP 200 on `/_cluster/health`.
    Health,
    /// HTTP 200 on `/`.
    Page,
}

impl Answer {
    pub(crate) fn is_given_at(self, addr: SocketAddr) -> bool {
        match self {
            Self::Srvr => peers::srvr(addr).contains("Mode:"),
            Self::Metadata => Command::new("kcat")
                .args(["-L", "-m", "2", "-b", &addr.to_string()])
                .output()
                .is_ok_and(|output| {
                    String::from_utf8_lossy(&output.stdout).contains(&format!(" at {addr}"))
                }),
            Self::Health => is_ok(addr, "/_cluster/health"),
            Self::Page => is_ok(addr, "/"),
        }
    }

    pub(crate) fn wait(self, process: &mut Process, addr: SocketAddr) -> Result<()> {
        process.wait_until(START_LIMIT, |_| self.is_given_at(addr))
    }
}

fn is_ok(addr: SocketAddr, path: &str) -> bool {
    Index::new(&format!("http://{addr}")).is_ok(path)
}

/// A box of ours that answers.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) addr: SocketAddr,
}

fn start(dir: &Path, args: &[&str], port: u16, answer: Answer) -> Result<Running> {
    std::fs::create_dir_all(dir)?;
    let log = dir.join(format!("elkfk-{}.log", args[0]));
    let mut process = Process::start("elkfk", Command::new(elkfk()).args(args), &log)?;
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    answer.wait(&mut process, addr)?;
    Ok(Running { process, addr })
}

/// `elkfk coordinator` with its data below `dir`.
pub(crate) fn coordinator(dir: &Path) -> Result<Running> {
    let port = elkfk_tests::free_port();
    let config = written(
        dir,
        "zoo.cfg",
        &format!(
            "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n",
            dir.join("coordinator").display()
        ),
    )?;
    start(dir, &["coordinator", &config.display().to_string()], port, Answer::Srvr)
}

/// `elkfk broker` on a ZooKeeper, with `extra` keys of server.properties.
pub(crate) fn broker(dir: &Path, zookeeper: &str, extra: &[&str]) -> Result<Running> {
    let port = elkfk_tests::free_port();
    let config = written(
        dir,
        "server.properties",
        &format!(
            "broker.id=0\nlisteners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={}\nzookeeper.connect={zookeeper}\noffsets.topic.replication.factor=1\ngroup.initial.rebalance.delay.ms=0\n{}\n",
            dir.join("broker").display(),
            extra.join("\n")
        ),
    )?;
    start(dir, &["broker", &config.display().to_string()], port, Answer::Metadata)
}

/// `elkfk store` with its data below `dir`.
pub(crate) fn store(dir: &Path) -> Result<Running> {
    let port = elkfk_tests::free_port();
    let listen = format!("127.0.0.1:{port}");
    let data = dir.join("store").display().to_string();
    start(dir, &["store", "--data", &data, "--listen", &listen], port, Answer::Health)
}

fn written(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// A new topic of three partitions.
pub(crate) fn create_topic(bootstrap: &str, topic: &str) -> Result<()> {
    let output = Command::new(elkfk())
        .args(["kafka-topics.sh", "--bootstrap-server", bootstrap, "--create", "--topic", topic])
        .args(["--partitions", "3", "--replication-factor", "1"])
        .output()
        .context("run elkfk kafka-topics.sh")?;
    ensure!(
        output.status.success(),
        "create {topic}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Records in a topic of three partitions, by its end offsets.
pub(crate) fn records(bootstrap: &str, topic: &str) -> usize {
    let mut kcat = Command::new("kcat");
    kcat.args(["-Q", "-b", bootstrap]);
    for partition in 0..3 {
        kcat.args(["-t", &format!("{topic}:{partition}:-1")]);
    }
    kcat.output().map_or(0, |output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
    })
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What a process and its children used since `before`, CPU only; the peaks are of its whole life.
pub(crate) fn cpu_since(process: &Process, before: Usage) -> f64 {
    process.family().cpu.saturating_sub(before.cpu).as_secs_f64()
}
