//! Three coordinators that agree: real ZooKeepers or ours, from the same zoo.cfg, to be killed, paused and
//! cut off from each other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::network::Network;
use crate::peers;
use crate::process::{Process, elkfk};

/// How long a server may take to start and join on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Whose servers they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A real ZooKeeper 3.5.7.
    ZooKeeper,
    Elkfk,
}

impl Kind {
    /// Its name in what a test or a bench prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::ZooKeeper => "ZooKeeper 3.5.7",
            Self::Elkfk => "elkfk",
        }
    }

    /// The command that runs one server; the path of its zoo.cfg follows as the last argument.
    pub fn command(self) -> Vec<String> {
        match self {
            Self::ZooKeeper => {
                let script = peers::scripts().join("kafka/zookeeper-server");
                vec!["bash".into(), script.display().to_string()]
            }
            Self::Elkfk => vec![elkfk().display().to_string(), "coordinator".into()],
        }
    }
}

/// Where it listens: for clients, for the other servers, for elections.
#[derive(Debug, Clone, Copy)]
struct Place {
    ip: IpAddr,
    client: u16,
    peer: u16,
    election: u16,
    is_observer: bool,
}

impl Place {
    fn on_loopback(is_observer: bool) -> Self {
        Self {
            ip: Ipv4Addr::LOCALHOST.into(),
            client: quiet_port(),
            peer: quiet_port(),
            election: quiet_port(),
            is_observer,
        }
    }
}

/// A free port below those that outgoing connections take: while a server is down, nobody else shall have it.
fn quiet_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..30_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// As ours says it, and as Java does.
fn is_in_use(output: &str) -> bool {
    let output = output.to_lowercase();
    output.contains("address in use") || output.contains("address already in use")
}

/// Servers 1 to N, by their indices 0 to N-1. Dropped, they are killed.
#[derive(Debug)]
pub struct Ensemble {
    kind: Kind,
    dir: PathBuf,
    extra: String,
    places: Vec<Place>,
    /// `None` while a server is stopped.
    processes: Vec<Option<Process>>,
    /// Where each has a network namespace of its own. After the processes, so that it outlives them.
    network: Option<Network>,
}

impl Ensemble {
    /// Starts `count` servers on loopback, with their data below `dir` and `extra` lines in each zoo.cfg, and
    /// waits until they serve. One is no ensemble: its zoo.cfg names no servers.
    pub fn start(kind: Kind, dir: &Path, count: usize, extra: &str) -> Result<Self> {
        Self::start_observed(kind, dir, count, 0, extra)
    }

    /// The same with so many observers after `voters` servers that vote.
    pub fn start_observed(
        kind: Kind,
        dir: &Path,
        voters: usize,
        observers: usize,
        extra: &str,
    ) -> Result<Self> {
        let mut last = None;
        // A free port may be taken by somebody else before the server binds it.
        for attempt in 0..4 {
            let places = (0..voters + observers).map(|at| Place::on_loopback(at >= voters));
            let dir = dir.join(format!("ensemble{attempt}"));
            let mut ensemble = Self::new(kind, &dir, places.collect(), extra, None);
            match ensemble.start_all() {
                Ok(()) => return Ok(ensemble),
                Err(error) if is_in_use(&ensemble.outputs()) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.context("no attempt to start")?)
    }

    /// The same with each server in a network namespace of its own, so that they can be cut off. `None`, and
    /// `test` reported as skipped, where such namespaces may not be made.
    pub fn start_apart(
        test: &str,
        kind: Kind,
        dir: &Path,
        count: usize,
        extra: &str,
    ) -> Result<Option<Self>> {
        let Some(network) = Network::new(count)? else {
            peers::skip(test, "the right to make network namespaces");
            return Ok(None);
        };
        let places = (0..count)
            .map(|at| Place {
                ip: network.ip(at),
                client: 2181,
                peer: 2888,
                election: 3888,
                is_observer: false,
            })
            .collect();
        let mut ensemble = Self::new(kind, &dir.join("apart"), places, extra, Some(network));
        ensemble.start_all()?;
        Ok(Some(ensemble))
    }

    fn new(
        kind: Kind,
        dir: &Path,
        places: Vec<Place>,
        extra: &str,
        network: Option<Network>,
    ) -> Self {
        let processes = places.iter().map(|_| None).collect();
        Self { kind, dir: dir.into(), extra: extra.into(), places, processes, network }
    }

    fn start_all(&mut self) -> Result<()> {
        for at in 0..self.len() {
            self.configure(at)?;
            self.spawn(at)?;
        }
        for at in 0..self.len() {
            self.wait_for(at)?;
        }
        Ok(())
    }

    fn configure(&self, at: usize) -> Result<()> {
        let (dir, place) = (self.server_dir(at), self.places[at]);
        std::fs::create_dir_all(dir.join("data"))?;
        std::fs::write(dir.join("data/myid"), format!("{}\n", at + 1))?;
        let mut text = format!(
            "tickTime=1000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={}\nclientPortAddress={}\n\
             maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=*\n",
            dir.join("data").display(),
            place.client,
            place.ip
        );
        // A key given twice is the caller's: that of theirs which is in force differs between the two kinds.
        let has = |key: &str| self.extra.lines().any(|line| line.split('=').next() == Some(key));
        text = text
            .lines()
            .filter(|line| !has(line.split('=').next().unwrap_or_default()))
            .map(|line| format!("{line}\n"))
            .collect();
        if self.len() > 1 {
            for at in 0..self.len() {
                text += &format!("{}\n", self.line(at));
            }
        }
        if place.is_observer {
            text += "peerType=observer\n";
        }
        std::fs::write(dir.join("zoo.cfg"), format!("{text}{}\n", self.extra))?;
        Ok(())
    }

    /// The line of zoo.cfg that names it.
    pub fn line(&self, at: usize) -> String {
        let Place { ip, peer, election, is_observer, .. } = self.places[at];
        let role = if is_observer { ":observer" } else { "" };
        format!("server.{}={ip}:{peer}:{election}{role}", at + 1)
    }

    /// Starts one more server, whose zoo.cfg lists all; the others know nothing of it. Returns its index, without
    /// waiting until it serves.
    pub fn add(&mut self) -> Result<usize> {
        let at = self.len();
        self.places.push(Place::on_loopback(false));
        self.processes.push(None);
        self.configure(at)?;
        self.spawn(at)?;
        Ok(at)
    }

    fn spawn(&mut self, at: usize) -> Result<()> {
        let mut words = Vec::new();
        if let Some(network) = &self.network {
            words.extend(network.inside(at));
        }
        words.extend(self.kind.command());
        words.push(self.server_dir(at).join("zoo.cfg").display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        peers::small_heap(&mut command, "ZK_HEAP_OPTS", "-Xmx256m");
        let name = format!("{} server {}", self.kind.name(), at + 1);
        self.processes[at] = Some(Process::start(&name, &mut command, &self.log(at))?);
        Ok(())
    }

    /// Waits until it serves as a member of the ensemble.
    pub fn wait_for(&mut self, at: usize) -> Result<()> {
        let addr = self.addr(at);
        let process = self.processes[at].as_mut().context("a server that was started")?;
        process.wait_until(START_LIMIT, |_| peers::srvr(addr).contains("Mode:"))
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where clients reach it.
    pub fn addr(&self, at: usize) -> SocketAddr {
        SocketAddr::new(self.places[at].ip, self.places[at].client)
    }

    /// `host:port,host:port,…`
    pub fn connect_string(&self) -> String {
        let addrs: Vec<_> = (0..self.len()).map(|at| self.addr(at).to_string()).collect();
        addrs.join(",")
    }

    fn server_dir(&self, at: usize) -> PathBuf {
        self.dir.join(format!("server{}", at + 1))
    }

    /// Its dataDir.
    pub fn data_dir(&self, at: usize) -> PathBuf {
        self.server_dir(at).join("data")
    }

    fn log(&self, at: usize) -> PathBuf {
        self.server_dir(at).join("server.log")
    }

    /// All it has printed since its first start.
    pub fn output(&self, at: usize) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log(at)).unwrap_or_default()).into_owned()
    }

    /// What all have printed.
    pub fn outputs(&self) -> String {
        (0..self.len()).map(|at| format!("server {}:\n{}\n", at + 1, self.output(at))).collect()
    }

    /// The end of what each has printed.
    pub fn tails(&self) -> String {
        let tail = |at| {
            let text = self.output(at);
            let from = text.char_indices().rev().nth(2500).map_or(0, |(at, _)| at);
            format!("server {} ({}):\n{}\n", at + 1, self.mode(at), &text[from..])
        };
        (0..self.len()).map(tail).collect()
    }

    /// `leader`, `follower`, `standalone`; empty while it does not serve.
    pub fn mode(&self, at: usize) -> String {
        let text = peers::srvr(self.addr(at));
        let mode = text.lines().find_map(|line| line.strip_prefix("Mode: "));
        mode.unwrap_or_default().to_owned()
    }

    /// The index of the one that says it leads (or stands alone).
    pub fn leader(&self) -> Option<usize> {
        (0..self.len()).find(|at| {
            self.processes[*at].is_some() && ["leader", "standalone"].contains(&&*self.mode(*at))
        })
    }

    /// Waits until one leads, and returns its index.
    pub fn wait_for_leader(&self, limit: Duration) -> Result<usize> {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.leader() {
                return Ok(at);
            }
            ensure!(begun.elapsed() < limit, "no leader after {limit:?}:\n{}", self.tails());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn is_running(&self, at: usize) -> bool {
        self.processes[at].is_some()
    }

    pub fn process(&self, at: usize) -> Result<&Process> {
        self.processes[at].as_ref().context("a server that runs")
    }

    /// `kill -9`.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.processes[at].take() {
            process.kill();
        }
    }

    /// SIGTERM, as a service manager stops it, and the wait for its end.
    pub fn stop(&mut self, at: usize) -> Result<()> {
        if let Some(mut process) = self.processes[at].take() {
            process.signal(Signal::TERM)?;
            process.wait(Duration::from_secs(30))?;
        }
        Ok(())
    }

    /// Starts it on the data it has, without waiting until it serves.
    pub fn start_again(&mut self, at: usize) -> Result<()> {
        if self.processes[at].is_some() {
            bail!("server {} runs already", at + 1);
        }
        self.spawn(at)
    }

    /// SIGSTOP: it stands still, its connections stay open.
    pub fn pause(&self, at: usize) -> Result<()> {
        let process = self.process(at)?;
        process.signal(Signal::STOP)?;
        // On a busy machine its threads go on for some milliseconds.
        let begun = Instant::now();
        while !process.is_stopped() {
            ensure!(begun.elapsed() < START_LIMIT, "server {} does not stand still", at + 1);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub fn resume(&self, at: usize) -> Result<()> {
        self.process(at)?.signal(Signal::CONT)
    }

    fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("servers in namespaces of their own")
    }

    /// Drops all that `from` sends to `to`; what `to` sends still arrives.
    pub fn cut(&self, from: usize, to: usize) -> Result<()> {
        self.network()?.cut(from, to)
    }

    /// Drops all between `at` and the other servers; its clients still reach it.
    pub fn cut_off_from_servers(&self, at: usize) -> Result<()> {
        for other in (0..self.len()).filter(|other| *other != at) {
            self.cut(at, other)?;
            self.cut(other, at)?;
        }
        Ok(())
    }

    /// The same, and nothing from or to clients either.
    pub fn cut_off(&self, at: usize) -> Result<()> {
        self.cut_off_from_servers(at)?;
        self.network()?.cut_clients(at)
    }

    /// Every link works again.
    pub fn heal(&self) -> Result<()> {
        self.network()?.heal()
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        // At once and with no farewell: a test that fails leaves them in any state, paused ones too.
        for at in 0..self.len() {
            self.kill(at);
        }
    }
}
