//! The same requests to our coordinator and to a real ZooKeeper 3.5.7, every answer compared; and
//! ZooKeeper's own command line client on ours.

#[path = "coordinator_process/mod.rs"]
mod coordinator_process;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coordinator_process::Coordinator;
use elkfk_coordinator_client::{
    Acl, Client, Config, CreateMode, Error, EventKind, Op, OpResult, SessionId, Stat, Watch,
};
use elkfk_tests::peers::{self, Peer};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// One server with a few sessions on it, and what makes its answers comparable.
struct Side {
    addr: String,
    clients: Vec<Client>,
    base: i64,
    watches: BTreeMap<usize, Watch>,
}

const CLIENTS: usize = 2;
const PATHS: [&str; 8] = ["/a", "/b", "/a/x", "/a/y", "/a/x/1", "/a/x/2", "/b/z", "/zookeeper/q"];
const READ_ONLY: Acl<'static> = Acl {
    perms: 1,
    scheme: std::borrow::Cow::Borrowed("world"),
    id: std::borrow::Cow::Borrowed("anyone"),
};

#[derive(Debug, Clone)]
enum Step {
    Create(&'static str, CreateMode, bool),
    Delete(&'static str, Option<i32>),
    Set(&'static str, usize, Option<i32>),
    Get(&'static str),
    Exists(&'static str),
    Children(&'static str),
    SetAcl(&'static str, bool, Option<i32>),
    GetAcl(&'static str),
    Multi(Vec<Op>),
    Watch(usize, &'static str),
    /// Ends the session and begins another.
    Reconnect,
}

fn path(random: &mut StdRng) -> &'static str {
    PATHS.choose(random).expect("there are paths")
}

fn version(random: &mut StdRng) -> Option<i32> {
    random.random_bool(0.6).then(|| random.random_range(0..3))
}

fn mode(random: &mut StdRng) -> CreateMode {
    *[
        CreateMode::Persistent,
        CreateMode::Persistent,
        CreateMode::Ephemeral,
        CreateMode::PersistentSequential,
        CreateMode::EphemeralSequential,
    ]
    .choose(random)
    .expect("there are modes")
}

fn step(random: &mut StdRng) -> Step {
    match random.random_range(0..100) {
        0..30 => Step::Create(path(random), mode(random), random.random_bool(0.1)),
        30..42 => Step::Delete(path(random), version(random)),
        42..54 => Step::Set(path(random), random.random_range(0..20), version(random)),
        54..60 => Step::Get(path(random)),
        60..66 => Step::Exists(path(random)),
        66..72 => Step::Children(if random.random_bool(0.2) { "/" } else { path(random) }),
        72..75 => Step::SetAcl(path(random), random.random_bool(0.3), version(random)),
        75..78 => Step::GetAcl(path(random)),
        78..88 => {
            let ops = (0..random.random_range(0..4)).map(|_| match random.random_range(0..4) {
                0 => Op::create(path(random), "m", mode(random)),
                1 => Op::set(path(random), "mm", version(random)),
                2 => Op::delete(path(random), version(random)),
                _ => Op::check(path(random), version(random)),
            });
            Step::Multi(ops.collect())
        }
        88..98 => Step::Watch(random.random_range(0..3), path(random)),
        _ => Step::Reconnect,
    }
}

impl Side {
    async fn start(addr: String) -> Result<Self> {
        let mut side = Self { addr, clients: Vec::new(), base: 0, watches: BTreeMap::new() };
        for _ in 0..CLIENTS {
            let client = side.connect().await?;
            side.clients.push(client);
        }
        side.clients[0].create("/base", [], CreateMode::Persistent).await?;
        side.base = side.clients[0].last_zxid().0;
        Ok(side)
    }

    async fn connect(&self) -> Result<Client> {
        let config = Config::parse(&self.addr)?.with_session_timeout(Duration::from_secs(10));
        Ok(Client::connect(config).await?)
    }

    /// A stat without what differs between any two servers.
    fn stat(&self, stat: &Stat) -> String {
        let zxid =
            |zxid: i64| if zxid == 0 { "first".into() } else { (zxid - self.base).to_string() };
        let owner = match stat.ephemeral_owner {
            SessionId(0) => "nobody".to_owned(),
            owner => self
                .clients
                .iter()
                .position(|client| client.session_id() == owner)
                .map_or("stranger".to_owned(), |at| format!("client {at}")),
        };
        format!(
            "c{} m{} p{} v{} cv{} av{} {owner} {} bytes {} children",
            zxid(stat.czxid.0),
            zxid(stat.mzxid.0),
            zxid(stat.pzxid.0),
            stat.version,
            stat.cversion,
            stat.aversion,
            stat.data_length,
            stat.num_children,
        )
    }

    fn error(error: &Error) -> String {
        match error {
            Error::Refused { code, .. } => format!("{code:?}"),
            Error::Multi { index, code, .. } => format!("{index}: {code:?}"),
            other => format!("{other:?}"),
        }
    }

    /// What a step answers, in words that are the same for equal servers.
    async fn answer(&mut self, at: usize, number: usize, step: &Step) -> Result<String> {
        let client = self.clients[at].clone();
        let stat = |stat: Stat| self.stat(&stat);
        let told = match step.clone() {
            Step::Create(path, mode, is_read_only) => {
                let acl = if is_read_only { READ_ONLY } else { Acl::OPEN };
                client
                    .create_with(path, Some(b"data"), &[acl], mode)
                    .await
                    .map(|(path, made)| format!("{path} {}", stat(made)))
            }
            Step::Delete(path, version) => {
                client.delete(path, version).await.map(|()| "deleted".to_owned())
            }
            Step::Set(path, bytes, version) => {
                client.set(path, vec![7; bytes], version).await.map(stat)
            }
            Step::Get(path) => {
                client.get(path).await.map(|(data, found)| format!("{data:?} {}", stat(found)))
            }
            Step::Exists(path) => {
                client.exists(path).await.map(|found| found.map_or("none".to_owned(), stat))
            }
            Step::Children(path) => client.children(path).await.map(|(mut names, found)| {
                names.sort();
                format!("{names:?} {}", stat(found))
            }),
            Step::SetAcl(path, is_read_only, version) => {
                let acl = if is_read_only { READ_ONLY } else { Acl::OPEN };
                client.set_acl(path, &[acl], version).await.map(stat)
            }
            Step::GetAcl(path) => {
                client.get_acl(path).await.map(|(acl, found)| format!("{acl:?} {}", stat(found)))
            }
            Step::Multi(ops) => client.multi(&ops).await.map(|results| {
                let tell = |result: OpResult| match result {
                    OpResult::Created { path } => path,
                    OpResult::Set(made) => stat(made),
                    other => format!("{other:?}"),
                };
                results.into_iter().map(tell).collect::<Vec<_>>().join("; ")
            }),
            Step::Watch(kind, path) => {
                let watched = match kind {
                    0 => client.exists_watch(path).await.map(|(_, watch)| watch),
                    1 => client.get_watch(path).await.map(|(_, _, watch)| watch),
                    _ => client.children_watch(path).await.map(|(_, _, watch)| watch),
                };
                watched.map(|watch| {
                    self.watches.insert(number, watch);
                    "watched".to_owned()
                })
            }
            Step::Reconnect => {
                client.close().await;
                self.clients[at] = self.connect().await?;
                Ok("again".to_owned())
            }
        };
        let told = told.unwrap_or_else(|error| Self::error(&error));
        // The other session sees it all after a sync, and so do the watches.
        for client in &self.clients {
            client.sync("/").await?;
        }
        let fired = self.fired();
        let zxid = self.clients[at].last_zxid().0 - self.base;
        Ok(format!("{told} | zxid {zxid} | {fired:?}"))
    }

    /// Watches that fired, by the step that set them. Those of a closed session are not compared.
    fn fired(&mut self) -> Vec<(usize, EventKind, String)> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut fired = Vec::new();
        self.watches.retain(|number, watch| {
            match std::future::Future::poll(std::pin::Pin::new(watch), &mut context) {
                std::task::Poll::Pending => true,
                std::task::Poll::Ready(event) => {
                    fired.push((*number, event.kind, event.path.into_owned()));
                    false
                }
            }
        });
        fired
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_zookeepers() {
    if peers::have("answers_are_zookeepers", &[Peer::ZooKeeper]) {
        compare().await.unwrap();
    }
}

async fn compare() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let zookeeper = peers::zookeeper(&dir.path().join("theirs"), "tickTime=500\nmaxClientCnxns=0")?;
    let coordinator = Coordinator::start(&dir.path().join("ours"), "tickTime=500")?;
    let mut theirs = Side::start(zookeeper.addr.to_string()).await?;
    let mut ours = Side::start(coordinator.addr.to_string()).await?;
    let seed = std::env::var("ELKFK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = StdRng::seed_from_u64(seed);
    let (mut refused, mut fired) = (0, 0);
    for number in 0..3000 {
        let at = random.random_range(0..CLIENTS);
        let step = step(&mut random);
        let expected = theirs.answer(at, number, &step).await?;
        let answer = ours.answer(at, number, &step).await?;
        assert_eq!(answer, expected, "seed {seed}, step {number}, client {at}: {step:?}");
        refused += usize::from(!answer.contains(" v") && !answer.starts_with("deleted"));
        fired += usize::from(!answer.ends_with("[]"));
    }
    println!("{refused} of 3000 without a stat, {fired} fired watches");
    ensure!(fired > 50, "only {fired} watches fired");
    Ok(())
}

#[test]
fn zookeepers_command_line_client_works() {
    if peers::have("zookeepers_command_line_client_works", &[Peer::ZooKeeper]) {
        run_zk_cli().unwrap();
    }
}

/// Records four-letter words and a session of zkCli on our server as `record-zk` did on theirs.
fn run_zk_cli() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let coordinator = Coordinator::start(&dir.path().join("zk"), "tickTime=2000")?;
    let out = dir.path().join("out");
    let status = Command::new("bash")
        .arg(peers::scripts().join("kafka/record-zk"))
        .arg(&out)
        .env("ZOOKEEPER", coordinator.addr.to_string())
        .status()
        .context("run record-zk")?;
    ensure!(status.success(), "record-zk: {status}");
    for name in ["zk-4lw.txt", "zk-cli.txt"] {
        let read = |path| std::fs::read_to_string(path).context("read a recording");
        let theirs = read(peers::scripts().join("kafka/golden").join(name))?;
        let ours = read(out.join(name))?;
        let (theirs, ours) = (comparable(&theirs), comparable(&ours));
        for (theirs, ours) in theirs.iter().zip(&ours) {
            assert_eq!(ours, theirs, "{name}");
        }
        assert_eq!(ours.len(), theirs.len(), "{name}");
    }
    Ok(())
}

/// What was asked and answered, piece by piece, without what differs by design or by chance.
fn comparable(text: &str) -> Vec<String> {
    let mut section = "";
    let mut whole = String::new();
    for line in text.lines() {
        if let Some(word) = line.strip_prefix("=== ") {
            section = word;
        }
        // The table of sessions is worded otherwise. Events are printed
        // whenever they come, even in the middle of a line. Which child deleteall meets first is
        // the order of children, which ZooKeeper leaves open.
        let is_left_out = section == "dump"
            || line.starts_with("Authentication is not valid : /a/s-")
            || line.starts_with("WATCHER::")
            || line.starts_with("WatchedEvent state:SyncConnected");
        if !is_left_out {
            whole.push_str(line.split_once("3.5.7-").map_or(line, |(before, _)| before));
        }
    }
    let whole = whole.replace("serverId=1", "serverId=0").replace(' ', "");
    whole.replace("===", "\n===").replace("[zk:", "\n[zk:").lines().map(str::to_owned).collect()
}
