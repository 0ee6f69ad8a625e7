//! Clients write down what they ask an ensemble and what they are told, while its servers are killed and paused; then
//! Go's porcupine looks for an order in which it could all have happened (`tests/porcupine` has the model).
//!
//! A read is a sync and a get. ZooKeeper promises no more than that such a read sees every write which a leader knew
//! of; a leader that is deposed and does not know it yet may answer a sync. So on a ZooKeeper (to compare, under
//! `ELKFK_CHAOS_ZOOKEEPER=1`) servers are killed, and on ours paused too. `ELKFK_CHAOS_SECONDS` (30), `ELKFK_SEED`.

mod ensemble_support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use elkfk_coordinator_client::{Acl, Client, Config, CreateMode, Error, Stat};
use elkfk_tests::ensemble::{Ensemble, Kind};
use elkfk_tests::peers;
use ensemble_support::chaos::{self, Fault, PROCESS_FAULTS};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const CLIENTS: usize = 8;
const KEYS: usize = 4;
/// Then other znodes are used: every call without an answer makes the search for an order longer.
const ROUND: Duration = Duration::from_secs(8);
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);

#[test]
fn histories_of_ours_are_linearizable() {
    run("histories_of_ours_are_linearizable", Kind::Elkfk, &PROCESS_FAULTS).unwrap();
}

#[test]
fn histories_of_zookeeper_are_linearizable() {
    if std::env::var("ELKFK_CHAOS_ZOOKEEPER").as_deref() == Ok("1") {
        let faults = [Fault::Kill, Fault::KillLeader, Fault::KillAll, Fault::Restart];
        run("histories_of_zookeeper_are_linearizable", Kind::ZooKeeper, &faults).unwrap();
    }
}

/// The checker, built; `None` where there is no Go.
fn porcupine(test: &str, dir: &Path) -> Result<Option<PathBuf>> {
    let Ok(version) = Command::new("go").arg("version").output() else {
        peers::skip(test, "go");
        return Ok(None);
    };
    ensure!(version.status.success(), "go version: {}", version.status);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("porcupine");
    // The checker must itself refuse what is not linearizable.
    for args in [&["test", "./..."][..], &["build", "-o"][..]] {
        let mut go = Command::new("go");
        go.args(args).current_dir(&source);
        if args[0] == "build" {
            go.arg(dir.join("porcupine"));
        }
        let output = go.output()?;
        ensure!(
            output.status.success(),
            "go {}: {}{}",
            args[0],
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(Some(dir.join("porcupine")))
}

fn run(test: &str, kind: Kind, faults: &[Fault]) -> Result<()> {
    if !ensemble_support::have(test, kind, &[]) {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let Some(porcupine) = porcupine(test, dir.path())? else { return Ok(()) };
    let seed = ensemble_support::seed(test);
    // Snapshots often, so that servers also come back by one.
    let mut ensemble = Ensemble::start(kind, dir.path(), 3, "snapCount=1000")?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build()?;
    let is_over = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let connect = ensemble.connect_string();
    let recorders: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let recorder = Recorder::new(number, seed, &connect, begun);
            runtime.spawn(recorder.record(is_over.clone()))
        })
        .collect();
    let mut random = StdRng::seed_from_u64(seed);
    let time = ensemble_support::chaos_time(30);
    let done = chaos::run(&mut ensemble, &mut random, faults, time, SESSION_TIMEOUT * 3 / 2);
    std::thread::sleep(Duration::from_secs(2));
    is_over.store(true, Ordering::Relaxed);
    let done = done?;
    let mut history = Vec::new();
    for recorder in recorders {
        history.extend(runtime.block_on(recorder)??);
    }
    let told = history.iter().filter(|call| call["result"] == "ok").count();
    let untold = history.iter().filter(|call| call["result"] == "unknown").count();
    ensure!(told > 1000, "only {told} calls succeeded");
    let path = dir.path().join("history.jsonl");
    write(&path, &history)?;
    let (is_lawful, said) = check(&porcupine, &path)?;
    if !is_lawful {
        let kept = std::env::temp_dir().join(format!("elkfk-history-{seed}.jsonl"));
        std::fs::copy(&path, &kept)?;
        anyhow::bail!("seed {seed}, {done:?}: {said}; the history is kept as {}", kept.display());
    }
    eprintln!(
        "{test}: seed {seed}, {} faults, {untold} calls without an answer; {said}",
        done.len()
    );

    // And the same with one read of what was never written is refused.
    let read = history.iter().position(|call| call["op"] == "get" && call["result"] == "ok");
    history[read.context("a read")?]["got_value"] = "never written".into();
    write(&path, &history)?;
    let (is_lawful, said) = check(&porcupine, &path)?;
    ensure!(!is_lawful, "a forged history passes: {said}");
    Ok(())
}

fn write(path: &Path, history: &[Value]) -> Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for call in history {
        writeln!(file, "{call}")?;
    }
    Ok(file.flush()?)
}

fn check(porcupine: &Path, history: &Path) -> Result<(bool, String)> {
    let output = Command::new(porcupine).arg(history).arg("120").output()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok((true, said)),
        Some(1) => Ok((false, said)),
        _ => anyhow::bail!("porcupine: {said}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// One client: it asks one thing at a time and writes down when and what.
struct Recorder {
    number: usize,
    connect: String,
    begun: Instant,
    random: StdRng,
    history: Vec<Value>,
    /// The version last seen of each znode of this round, to ask for.
    seen: [i32; KEYS],
    count: usize,
}

/// What is known of a call before it is made.
struct Asked {
    kind: &'static str,
    key: String,
    value: String,
    version: Option<i32>,
    call: u64,
}

impl Recorder {
    fn new(number: usize, seed: u64, connect: &str, begun: Instant) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number as u64));
        let connect = connect.to_owned();
        Self { number, connect, begun, random, history: vec![], seen: [0; KEYS], count: 0 }
    }

    fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    /// Until told to stop; starts another session when one is over.
    async fn record(mut self, is_over: Arc<AtomicBool>) -> Result<Vec<Value>> {
        let mut client = None;
        while !is_over.load(Ordering::Relaxed) {
            let Some(session) = client.clone() else {
                let config = Config::parse(&self.connect)?.with_session_timeout(SESSION_TIMEOUT);
                client = Client::connect(config).await.ok();
                continue;
            };
            if self.ask(&session).await? {
                session.close().await;
                client = None;
            }
            let pause = self.random.random_range(0..8);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Ok(self.history)
    }

    /// One call; whether the session is over after it.
    async fn ask(&mut self, client: &Client) -> Result<bool> {
        let round = self.begun.elapsed().as_secs() / ROUND.as_secs();
        let slot = self.random.random_range(0..KEYS);
        self.count += 1;
        let mut asked = Asked {
            kind: "get",
            key: format!("/round{round}-{slot}"),
            value: format!("{}-{}", self.number, self.count),
            version: Some(self.seen[slot]),
            call: self.now(),
        };
        let (key, value) = (asked.key.clone(), asked.value.clone());
        let answer = match self.random.random_range(0..100) {
            0..35 => match client.sync(&key).await {
                Ok(()) => client.get(&key).await.map(|(data, stat)| (Some(data), Some(stat))),
                Err(error) => Err(error),
            },
            35..60 => {
                asked.kind = "set";
                let set = client.set(&key, value, asked.version).await;
                set.map(|stat| (None, Some(stat)))
            }
            60..70 => {
                (asked.kind, asked.version) = ("set", None);
                client.set(&key, value, None).await.map(|stat| (None, Some(stat)))
            }
            70..88 => {
                asked.kind = "create";
                let made = client.create_with(
                    &key,
                    Some(value.as_bytes()),
                    &[Acl::OPEN],
                    CreateMode::Persistent,
                );
                made.await.map(|(_, stat)| (None, Some(stat)))
            }
            _ => {
                asked.kind = "delete";
                client.delete(&key, asked.version).await.map(|()| (None, None))
            }
        };
        if let Ok((_, Some(stat))) = &answer {
            self.seen[slot] = stat.version;
        }
        let is_over = answer.as_ref().is_err_and(Error::is_session_over);
        self.note(asked, answer)?;
        Ok(is_over)
    }

    fn note<B: AsRef<[u8]>>(
        &mut self,
        asked: Asked,
        answer: Result<(Option<B>, Option<Stat>), Error>,
    ) -> Result<()> {
        let now = self.now();
        let mut end = Some(now);
        let (mut data, mut stat) = (String::new(), None);
        let result = match answer {
            Ok((got, of)) => {
                data = got
                    .map(|bytes| String::from_utf8_lossy(bytes.as_ref()).into_owned())
                    .unwrap_or_default();
                stat = of;
                "ok"
            }
            Err(error) if error.is_no_node() => "nonode",
            Err(error) if error.is_node_exists() => "exists",
            Err(error) if error.is_bad_version() => "badversion",
            // A read that was not answered says nothing.
            Err(_) if asked.kind == "get" => return Ok(()),
            Err(
                Error::ConnectionLost
                | Error::SessionExpired
                | Error::Closed
                | Error::NoConnection { .. },
            ) => {
                end = None;
                "unknown"
            }
            // Asked again after the session moved, or while there is no room on the disk: undone or done, who knows.
            Err(Error::Refused { .. }) => {
                end = None;
                "unknown"
            }
            Err(error) => {
                return Err(error).with_context(|| format!("{} {}", asked.kind, asked.key));
            }
        };
        self.history.push(json!({
            "client": self.number,
            "key": asked.key,
            "op": asked.kind,
            "value": asked.value,
            "version": asked.version.unwrap_or(-1),
            "call": asked.call,
            "return": end,
            "result": result,
            "got_value": data,
            "got_version": stat.as_ref().map_or(0, |stat| stat.version),
            "zxid": stat.map_or(0, |stat| stat.mzxid.0),
        }));
        Ok(())
    }
}
