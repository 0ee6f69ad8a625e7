//! The ancestors: real Kafka, ZooKeeper and Elasticsearch as child processes.
//!
//! Their start scripts stand in `ELKFK_PEER_SCRIPTS` (default `../shared/peers`), their programs in
//! `ELKFK_PEERS` (default `~/.cache/elkfk-peers`). Where one is absent the test that needs it says so
//! and is counted as skipped; under `ELKFK_REQUIRE_PEERS=1` that is a failure.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::raw::say;
use crate::{free_port, workspace};

/// How long an ancestor may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(300);
/// How long a killed broker's session may last: many times what the tests configure.
const FORGET_LIMIT: Duration = Duration::from_secs(90);

/// A program that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Kafka,
    ZooKeeper,
    Elasticsearch,
    OpenSearch,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::ZooKeeper => "zookeeper",
            Self::Elasticsearch => "elasticsearch",
            Self::OpenSearch => "opensearch",
        }
    }

    fn script(self) -> PathBuf {
        let folder = if self == Self::ZooKeeper { "kafka" } else { self.name() };
        scripts().join(folder).join(format!("{}-server", self.name()))
    }

    /// Whether it can be started here.
    pub fn is_here(self) -> bool {
        self.script().exists() && programs().join(self.name()).join(".complete").exists()
    }
}

pub fn scripts() -> PathBuf {
    std::env::var_os("ELKFK_PEER_SCRIPTS")
        .map_or_else(|| workspace().join("../shared/peers"), PathBuf::from)
}

/// Where `tests/setup` installs the ancestors' programs.
pub fn programs() -> PathBuf {
    std::env::var_os("ELKFK_PEERS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/elkfk-peers"),
        PathBuf::from,
    )
}

/// Whether all of `peers` are here; if not, `test` is reported as skipped.
///
/// # Panics
/// Under `ELKFK_REQUIRE_PEERS=1`, when one is absent.
pub fn have(test: &str, peers: &[Peer]) -> bool {
    let absent: Vec<_> =
        peers.iter().filter(|peer| !peer.is_here()).map(|peer| peer.name()).collect();
    if !absent.is_empty() {
        skip(test, &absent.join(", "));
    }
    absent.is_empty()
}

/// Reports `test` as skipped because `what` is absent.
///
/// # Panics
/// Under `ELKFK_REQUIRE_PEERS=1`.
pub fn skip(test: &str, what: &str) {
    assert!(
        std::env::var("ELKFK_REQUIRE_PEERS").as_deref() != Ok("1"),
        "{test} needs {what}, which is absent"
    );
    // Not print!: the test harness would keep it to itself when the test passes.
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {what} absent");
}

/// Whether the ancestors run with the heaps of their own start scripts.
static HAS_OWN_HEAPS: AtomicBool = AtomicBool::new(false);

/// Lets every ancestor started from now on have the heap that its own scripts give it, as a bench must.
/// Tests give less, for several servers share a machine.
pub fn use_their_own_heaps() {
    HAS_OWN_HEAPS.store(true, Ordering::Relaxed);
}

/// Sets a heap for a test, unless the ancestor's own or one from the environment is wanted.
pub(crate) fn small_heap(command: &mut Command, variable: &str, value: &str) {
    if !HAS_OWN_HEAPS.load(Ordering::Relaxed) && std::env::var_os(variable).is_none() {
        command.env(variable, value);
    }
}

/// What a ZooKeeper at `addr` says to the four-letter word `srvr`; empty when it does not answer.
pub fn srvr(addr: SocketAddr) -> String {
    say(addr, "srvr")
}

/// Waits until the ZooKeeper at `addr` has forgotten broker 0, which was killed: until its session
/// ends, a new one of its number finds it registered, and gives up. The word `dump` must be allowed there.
pub fn wait_until_broker_is_forgotten(addr: SocketAddr) -> Result<()> {
    let begun = Instant::now();
    loop {
        let text = say(addr, "dump");
        ensure!(text.contains("phemeral"), "no answer to dump: {text}");
        if !text.contains("/brokers/ids/0") {
            return Ok(());
        }
        ensure!(begun.elapsed() < FORGET_LIMIT, "the broker's session never ends: {text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A running ancestor.
#[derive(Debug)]
pub struct Server {
    pub process: Process,
    /// Where clients reach it.
    pub addr: SocketAddr,
    /// Its data and configuration.
    pub dir: PathBuf,
}

/// Starts a real ZooKeeper with its data in `dir`; `extra` lines go into its zoo.cfg.
pub fn zookeeper(dir: &Path, extra: &str) -> Result<Server> {
    zookeeper_at(dir, free_port(), extra)
}

/// The same on a port of the caller's choice, such as the one it had before.
pub fn zookeeper_at(dir: &Path, port: u16, extra: &str) -> Result<Server> {
    let mut server = zookeeper_starting(dir, port, extra)?;
    let addr = server.addr;
    // It listens before it serves.
    server.process.wait_until(START_LIMIT, |_| srvr(addr).contains("Mode:"))?;
    Ok(server)
}

/// The same without the wait: it does not serve yet.
pub fn zookeeper_starting(dir: &Path, port: u16, extra: &str) -> Result<Server> {
    std::fs::create_dir_all(dir)?;
    let config = dir.join("zoo.cfg");
    let text = format!(
        "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n{extra}\n",
        dir.join("data").display()
    );
    std::fs::create_dir_all(dir.join("data"))?;
    std::fs::write(&config, text)?;
    let mut command = Command::new("bash");
    command.arg(Peer::ZooKeeper.script()).arg(&config);
    small_heap(&mut command, "ZK_HEAP_OPTS", "-Xmx256m");
    let process = Process::start("zookeeper", &mut command, &dir.join("zookeeper.log"))?;
    Ok(Server { process, addr: SocketAddr::from(([127, 0, 0, 1], port)), dir: dir.into() })
}

/// Starts a real Kafka broker 0 on `zookeeper`; `overrides` are `key=value` of its server.properties.
pub fn kafka(dir: &Path, zookeeper: &str, overrides: &[&str]) -> Result<Server> {
    kafka_at(dir, free_port(), zookeeper, overrides)
}

/// The same on a port of the caller's choice, such as the one it had before.
pub fn kafka_at(dir: &Path, port: u16, zookeeper: &str, overrides: &[&str]) -> Result<Server> {
    let log = dir.join("kafka.log");
    let starts = count_starts(&log);
    let mut server = kafka_starting(dir, port, zookeeper, overrides)?;
    server.process.wait_until(START_LIMIT, |_| count_starts(&log) > starts)?;
    Ok(server)
}

/// The same without the wait: it does not serve yet.
pub fn kafka_starting(
    dir: &Path,
    port: u16,
    zookeeper: &str,
    overrides: &[&str],
) -> Result<Server> {
    std::fs::create_dir_all(dir)?;
    let mut command = Command::new("bash");
    command
        .arg(Peer::Kafka.script())
        .arg(dir)
        .arg(format!("listeners=PLAINTEXT://127.0.0.1:{port}"))
        .arg(format!("zookeeper.connect={zookeeper}"))
        .args(overrides);
    small_heap(&mut command, "KAFKA_HEAP_OPTS", "-Xms256m -Xmx512m");
    let process = Process::start("kafka", &mut command, &dir.join("kafka.log"))?;
    Ok(Server { process, addr: SocketAddr::from(([127, 0, 0, 1], port)), dir: dir.into() })
}

fn count_starts(log: &Path) -> usize {
    std::fs::read_to_string(log)
        .unwrap_or_default()
        .matches("started (kafka.server.KafkaServer)")
        .count()
}

/// Starts a real Elasticsearch; `settings` are `key=value` of its elasticsearch.yml.
pub fn elasticsearch(dir: &Path, settings: &[&str]) -> Result<Server> {
    http_peer(Peer::Elasticsearch, dir, free_port(), settings)
}

/// The same on a port of the caller's choice, such as the one it had before.
pub fn elasticsearch_at(dir: &Path, port: u16, settings: &[&str]) -> Result<Server> {
    http_peer(Peer::Elasticsearch, dir, port, settings)
}

/// Starts a real OpenSearch; `settings` are `key=value` of its opensearch.yml.
pub fn opensearch(dir: &Path, settings: &[&str]) -> Result<Server> {
    http_peer(Peer::OpenSearch, dir, free_port(), settings)
}

/// The same without the wait: it does not serve yet.
pub fn elasticsearch_starting(dir: &Path, port: u16, settings: &[&str]) -> Result<Server> {
    http_peer_starting(Peer::Elasticsearch, dir, port, settings)
}

fn http_peer(peer: Peer, dir: &Path, port: u16, settings: &[&str]) -> Result<Server> {
    let mut server = http_peer_starting(peer, dir, port, settings)?;
    server
        .process
        .wait_until(START_LIMIT, |process| process.output().contains("ready: http"))
        .with_context(|| logs(&dir.join("logs")))?;
    Ok(server)
}

fn http_peer_starting(peer: Peer, dir: &Path, port: u16, settings: &[&str]) -> Result<Server> {
    std::fs::create_dir_all(dir)?;
    let mut command = Command::new("bash");
    command.arg(peer.script()).arg(dir).arg(port.to_string()).args(settings);
    small_heap(&mut command, "ELKFK_PEER_HEAP", "700m");
    let log = dir.join("server.log");
    let _ = std::fs::remove_file(&log);
    let process = Process::start(peer.name(), &mut command, &log)?;
    Ok(Server { process, addr: SocketAddr::from(([127, 0, 0, 1], port)), dir: dir.into() })
}

/// The ends of what a server wrote in `dir`: its own output says little of why it did not start.
fn logs(dir: &Path) -> String {
    let mut text = String::new();
    for name in ["console.log", "peer.log"] {
        let log = std::fs::read(dir.join(name)).unwrap_or_default();
        let end = String::from_utf8_lossy(&log[log.len().saturating_sub(3000)..]);
        text.push_str(&format!("{name}:\n{end}\n"));
    }
    text
}

/// Runs one of Kafka's own command line tools to its end, with `stdin` as its input.
pub fn kafka_tool(name: &str, args: &[&str], stdin: &str) -> Result<Output> {
    use std::io::Write;
    let mut command = Command::new("bash");
    command.arg(scripts().join("kafka/kafka-tool")).arg(name).args(args);
    // A heap that the environment gives is meant for the broker.
    command.env_remove("KAFKA_HEAP_OPTS");
    if !HAS_OWN_HEAPS.load(Ordering::Relaxed) {
        command.env("KAFKA_HEAP_OPTS", "-Xmx256m");
    }
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .with_context(|| format!("start {name}"))?;
    if let Some(mut input) = child.stdin.take() {
        // A tool that has already ended leaves a closed pipe; its answer says why.
        let _ = input.write_all(stdin.as_bytes());
    }
    child.wait_with_output().with_context(|| format!("run {name}"))
}
