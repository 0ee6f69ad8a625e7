//! An ensemble of our servers, each a process: who leads, where sessions and their ephemerals go, and what is left of
//! them when servers die, stand still, lose their disks, come and go.

mod ensemble_support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use elkfk_coordinator_client::{Client, Config, CreateMode, SessionState};
use elkfk_tests::ensemble::{Ensemble, Kind};
use elkfk_tests::raw::{Offer, Raw, say};
use elkfk_wire::jute::{CreateKind, ErrorCode, Reader, Request, Response, Zxid};

const LONG: Duration = Duration::from_secs(60);
/// The shortest that tickTime=1000 allows.
const SHORT_SESSION_MS: i32 = 2000;
const SESSION: Duration = Duration::from_secs(10);
/// What may pass from the death of a leader to the next write. Alone on a machine it is well below one second.
const FAIL_OVER_LIMIT: Duration = Duration::from_secs(2);
/// The digest of `super:secret`.
const SUPER_DIGEST: &str =
    "DigestAuthenticationProvider.superDigest=super:lK75jTNcA+U9vtVEw5vB51mj/w4=";

fn start(dir: &tempfile::TempDir, extra: &str) -> Result<Ensemble> {
    Ensemble::start(Kind::Elkfk, dir.path(), 3, extra)
}

async fn client(ensemble: &Ensemble, at: usize) -> Result<Client> {
    let config = Config::parse(&ensemble.addr(at).to_string())?.with_session_timeout(SESSION);
    Client::connect(config).await.with_context(|| format!("connect to server {}", at + 1))
}

fn others(ensemble: &Ensemble, at: usize) -> Vec<usize> {
    (0..ensemble.len()).filter(|other| *other != at).collect()
}

/// Waits until `is_so`; what is waited for is told when it never comes.
async fn until(ensemble: &Ensemble, what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !is_so() {
        ensure!(begun.elapsed() < LONG, "{what}: not after {LONG:?}\n{}", ensemble.tails());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Waits until one of these leads and all others follow or observe; returns the leader.
async fn whole(ensemble: &Ensemble, these: &[usize]) -> Result<usize> {
    let mut leader = None;
    until(ensemble, &format!("servers {these:?} are whole"), || {
        let modes: Vec<_> = these.iter().map(|at| (*at, ensemble.mode(*at))).collect();
        let leaders: Vec<_> = modes.iter().filter(|(_, mode)| mode == "leader").collect();
        leader = leaders.first().map(|(at, _)| *at);
        leaders.len() == 1 && modes.iter().all(|(_, mode)| !mode.is_empty())
    })
    .await?;
    leader.context("a leader")
}

/// Waits until the trees of these servers have the same digest at the same zxid.
async fn alike(ensemble: &Ensemble, these: &[usize]) -> Result<()> {
    until(ensemble, "trees are alike", || {
        let hashes: Vec<_> = these.iter().map(|at| say(ensemble.addr(*at), "hash")).collect();
        hashes[0].contains(": ") && hashes.iter().all(|hash| *hash == hashes[0])
    })
    .await
}

/// What became of writes one after the other.
#[derive(Debug, Default)]
struct Written {
    /// Longest time without a success.
    gap: Duration,
    done: i32,
    failed: i32,
}

/// Writes one after the other during `fault` until one succeeds after it.
async fn write_during(client: &Client, fault: impl FnOnce()) -> Result<Written> {
    let is_over = Arc::new(AtomicBool::new(false));
    let (writer, over) = (client.clone(), is_over.clone());
    let writing = tokio::spawn(async move {
        let (mut last, mut written) = (Instant::now(), Written::default());
        loop {
            let ends = over.load(Ordering::Relaxed);
            if writer.set("/gap", "", None).await.is_ok() {
                written.gap = written.gap.max(last.elapsed());
                written.done += 1;
                last = Instant::now();
                if ends {
                    return written;
                }
            } else {
                written.failed += 1;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    tokio::task::block_in_place(fault);
    tokio::time::sleep(Duration::from_millis(200)).await;
    is_over.store(true, Ordering::Relaxed);
    tokio::time::timeout(LONG, writing).await.context("no write succeeds any more")?.context("join")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_elect_one_and_another_within_a_second_of_its_death() {
    fail_over().await.unwrap();
}

async fn fail_over() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut ensemble = start(&dir, "")?;
    let leader = whole(&ensemble, &[0, 1, 2]).await?;
    let [follower, other] = others(&ensemble, leader)[..] else { bail!("three servers") };
    let writer = client(&ensemble, follower).await?;
    writer.create("/gap", "first", CreateMode::Persistent).await?;
    writer.create("/alive", "", CreateMode::Ephemeral).await?;
    for at in 0..3 {
        let reader = client(&ensemble, at).await?;
        reader.sync("/").await?;
        ensure!(reader.get("/gap").await?.0 == "first", "server {}", at + 1);
        ensure!(reader.exists("/alive").await?.is_some(), "server {}", at + 1);
        reader.close().await;
    }
    let idle = client(&ensemble, other).await?;
    idle.create("/idle", "", CreateMode::Ephemeral).await?;
    let mut idle_state = idle.state();
    idle_state.mark_unchanged();
    let session = writer.session_id();

    let before = writer.exists("/gap").await?.context("/gap")?.version;
    let killed = write_during(&writer, || ensemble.kill(leader)).await?;
    let after = writer.exists("/gap").await?.context("/gap")?.version;
    ensure!(killed.failed == 0, "a change of the leader is not told to clients: {killed:?}");
    ensure!(after - before == killed.done, "from {before} to {after}: {killed:?}");
    ensure!(writer.session_id() == session && writer.exists("/alive").await?.is_some());
    ensure!(!idle_state.has_changed()?, "a client that asked nothing was cut off");
    ensure!(idle.exists("/idle").await?.is_some());
    ensure!(killed.gap < FAIL_OVER_LIMIT, "{killed:?} without a write after kill -9 of the leader");

    ensemble.start_again(leader)?;
    let leader = whole(&ensemble, &[0, 1, 2]).await?;
    let writer = client(&ensemble, others(&ensemble, leader)[0]).await?;
    let mut stopped = Ok(());
    let handed = write_during(&writer, || stopped = ensemble.stop(leader)).await?;
    stopped?;
    ensure!(ensemble.output(leader).contains("leadership is handed over"));
    ensure!(handed.gap < FAIL_OVER_LIMIT, "{handed:?} without a write while the leader stops");
    eprintln!("at kill -9 of the leader {killed:?}, at its stop {handed:?}");
    Ok(())
}

fn create_ephemeral(path: &'static str) -> Request<'static> {
    Request::Create {
        kind: CreateKind::Create,
        path: path.into(),
        data: Some(b""[..].into()),
        acl: Some(vec![elkfk_wire::jute::Acl::OPEN]),
        flags: 1,
        ttl_ms: 0,
    }
}

fn set(path: &'static str, data: &'static str) -> Request<'static> {
    Request::SetData { path: path.into(), data: Some(data.as_bytes().into()), version: -1 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_moves_by_its_password_and_by_nothing_else() {
    move_session().await.unwrap();
}

async fn move_session() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ensemble = start(&dir, "")?;
    let witness = client(&ensemble, 2).await?;
    witness.create("/data", "", CreateMode::Persistent).await?;
    let mut old = Raw::open(ensemble.addr(0), &Offer::new(10_000))?;
    ensure!(old.ask(&create_ephemeral("/mine"))?.code == 0);
    let offer = old.offer();

    let mut new = Raw::open(ensemble.addr(1), &offer)?;
    ensure!(new.session == offer.session && new.timeout_ms == 10_000, "{new:?}");
    // What comes late over the old connection is refused, or the connection is gone already.
    let late = old.send(&set("/data", "late")).and_then(|number| old.answer(number));
    let is_moved = |code| code == ErrorCode::SessionMoved.code();
    ensure!(late.as_ref().map_or(true, |answer| is_moved(answer.code)), "{late:?}");
    ensure!(new.ask(&set("/data", "new"))?.code == 0);
    witness.sync("/").await?;
    ensure!(witness.get("/data").await?.0 == "new");
    ensure!(witness.exists("/mine").await?.context("/mine")?.ephemeral_owner == offer.session);

    // Back and forth, so that neither server remembers too much.
    let mut at = 1;
    for _ in 0..6 {
        at = (at + 1) % 3;
        new = Raw::open(ensemble.addr(at), &offer)?;
        ensure!(new.session == offer.session, "moving to server {}", at + 1);
        ensure!(new.ask(&set("/data", "new"))?.code == 0);
    }

    let wrong = Offer { password: vec![7; 16], ..offer.clone() };
    let unknown = Offer { session: elkfk_wire::jute::SessionId(0x77), ..offer.clone() };
    let without = Offer { password: Vec::new(), ..offer.clone() };
    for at in 0..3 {
        for offer in [&wrong, &unknown, &without] {
            let refused = Raw::open(ensemble.addr(at), offer)?;
            ensure!((refused.timeout_ms, refused.session.0) == (0, 0), "{offer:?}: {refused:?}");
        }
        let ahead = Offer { seen: Zxid(1 << 50), ..offer.clone() };
        ensure!(Raw::open(ensemble.addr(at), &ahead).is_err(), "a client that has seen more");
    }
    ensure!(new.ask(&set("/data", "still"))?.code == 0, "refusals did the session harm");

    ensure!(new.ask(&Request::CloseSession)?.code == 0);
    for at in 0..3 {
        let over = Raw::open(ensemble.addr(at), &offer)?;
        ensure!(over.timeout_ms == 0, "a closed session goes on at server {}: {over:?}", at + 1);
    }
    witness.sync("/").await?;
    ensure!(witness.exists("/mine").await?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stood_still_has_nothing_to_say() {
    stand_still().await.unwrap();
}

async fn stand_still() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ensemble = start(&dir, "")?;
    let leader = whole(&ensemble, &[0, 1, 2]).await?;
    let follower = others(&ensemble, leader)[0];
    for victim in [follower, leader] {
        let paused = pause(&ensemble, victim).await;
        paused
            .with_context(|| format!("server {} stood still\n{}", victim + 1, ensemble.tails()))?;
    }
    Ok(())
}

async fn pause(ensemble: &Ensemble, victim: usize) -> Result<()> {
    let rest = others(ensemble, victim);
    let writer = client(ensemble, rest[0]).await?;
    let _ = writer.create("/x", "", CreateMode::Persistent).await;
    writer.set("/x", "before", None).await?;
    let mut moving = Raw::open(ensemble.addr(victim), &Offer::new(SHORT_SESSION_MS))?;
    ensure!(moving.ask(&create_ephemeral("/moved"))?.code == 0);
    let mut staying = Raw::open(ensemble.addr(victim), &Offer::new(SHORT_SESSION_MS))?;
    ensure!(staying.ask(&create_ephemeral("/left"))?.code == 0);
    // So that the one that will stand still has it too.
    let x = Request::GetData { path: "/x".into(), watch: false };
    ensure!(staying.ask(&Request::Sync { path: "/".into() })?.code == 0);
    ensure!(staying.ask(&x)?.code == 0);

    ensemble.pause(victim)?;
    let begun = Instant::now();
    let mut moved = loop {
        match Raw::open(ensemble.addr(rest[1]), &moving.offer()) {
            Ok(moved) => break moved,
            // There may be nobody who leads yet.
            Err(error) if begun.elapsed() > LONG => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    ensure!(moved.session == moving.session, "{moved:?}");
    while writer.set("/x", "after", None).await.is_err() {
        ensure!(begun.elapsed() < LONG, "no write without it: {}", ensemble.tails());
    }
    let write = staying.send(&set("/x", "stale"))?;
    let read = staying.send(&x)?;
    let late = moving.send(&set("/x", "stale"))?;
    while writer.exists("/left").await?.is_some() {
        ensure!(begun.elapsed() < LONG, "the session does not end: {}", ensemble.tails());
        ensure!(moved.ask(&Request::Ping)?.code == 0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensemble.resume(victim)?;

    // Their sessions are over or elsewhere.
    for (name, raw, number) in [("stayed", &mut staying, write), ("moved", &mut moving, late)] {
        let answer = raw.answer(number);
        ensure!(answer.as_ref().map_or(true, |answer| answer.code != 0), "{name}: {answer:?}");
    }
    if let Ok(answer) = staying.answer(read) {
        let data =
            Response::decode(elkfk_wire::jute::OpCode::GetData, &mut Reader::new(&answer.body));
        ensure!(answer.code != 0, "read after the end of the session: {data:?}");
    }
    ensure!(moved.ask(&Request::Ping)?.code == 0);
    whole(ensemble, &[0, 1, 2]).await?;
    let reader = client(ensemble, victim).await?;
    reader.sync("/").await?;
    ensure!(reader.get("/x").await?.0 == "after");
    ensure!(reader.exists("/moved").await?.context("/moved")?.ephemeral_owner == moved.session);
    reader.set("/x", "served", None).await?;
    ensure!(moved.ask(&Request::CloseSession)?.code == 0);
    alike(ensemble, &[0, 1, 2]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_and_damaged_disks_are_copied_from_the_others() {
    copy().await.unwrap();
}

fn files(ensemble: &Ensemble, at: usize, begin: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(ensemble.data_dir(at).join("elkfk"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begin)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

async fn copy() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut ensemble = start(&dir, "snapCount=40")?;
    let leader = whole(&ensemble, &[0, 1, 2]).await?;
    let [follower, other] = others(&ensemble, leader)[..] else { bail!("three servers") };
    let writer = client(&ensemble, leader).await?;
    writer.create("/large", "", CreateMode::Persistent).await?;

    // A disk that is lost.
    ensemble.kill(follower);
    std::fs::remove_dir_all(ensemble.data_dir(follower).join("elkfk"))?;
    writer.create("/without", "", CreateMode::Persistent).await?;
    ensemble.start_again(follower)?;
    whole(&ensemble, &[0, 1, 2]).await?;
    ensure!(ensemble.output(follower).contains("this server votes from now on"));
    alike(&ensemble, &[0, 1, 2]).await?;

    // It votes: with it and one other there is a majority.
    ensemble.kill(leader);
    whole(&ensemble, &[follower, other]).await?;
    let writer = client(&ensemble, follower).await?;
    writer.create("/voted", "", CreateMode::Persistent).await?;

    // More than the others keep in memory for one that is away.
    for number in 0..55u8 {
        writer.set("/large", vec![number; 700_000], None).await?;
    }
    ensemble.start_again(leader)?;
    whole(&ensemble, &[0, 1, 2]).await?;
    ensure!(ensemble.output(leader).contains("state of another server taken over"));
    alike(&ensemble, &[0, 1, 2]).await?;

    // A byte that flipped in what was acknowledged.
    ensemble.kill(other);
    let log = files(&ensemble, other, "log-0")?.pop().context("a log")?;
    let mut bytes = std::fs::read(&log)?;
    let end = bytes.iter().rposition(|byte| *byte != 0).context("something in the log")?;
    bytes[end / 2] ^= 0x10;
    std::fs::write(&log, bytes)?;
    ensemble.start_again(other)?;
    whole(&ensemble, &[0, 1, 2]).await?;
    ensure!(ensemble.output(other).contains("what is on the disk is damaged: it is set aside"));
    ensure!(files(&ensemble, other, "damaged-1")?.len() == 1);
    alike(&ensemble, &[0, 1, 2]).await?;
    let reader = client(&ensemble, other).await?;
    reader.sync("/").await?;
    ensure!(reader.get("/large").await?.0 == vec![54; 700_000]);
    for path in ["/without", "/voted"] {
        ensure!(reader.exists(path).await?.is_some(), "{path}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_histories_are_not_mixed() {
    begin_anew().await.unwrap();
}

async fn begin_anew() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut ensemble = start(&dir, "")?;
    whole(&ensemble, &[0, 1, 2]).await?;
    let writer = client(&ensemble, 0).await?;
    writer.create("/first", "", CreateMode::Persistent).await?;
    drop(writer);
    // The majority loses its disks while the rest is away: after a while it begins a new ensemble.
    for at in 0..3 {
        ensemble.kill(at);
    }
    for at in [1, 2] {
        std::fs::remove_dir_all(ensemble.data_dir(at).join("elkfk"))?;
        ensemble.start_again(at)?;
    }
    whole(&ensemble, &[1, 2]).await?;
    let writer = client(&ensemble, 1).await?;
    writer.create("/second", "", CreateMode::Persistent).await?;
    // Who has the old history ends and says what to do; the others do not listen to it.
    ensemble.start_again(0)?;
    until(&ensemble, "the old server ends", || {
        let said = ensemble.output(0);
        said.contains("have begun another ensemble") && said.contains("coordinator stopped")
    })
    .await?;
    ensure!(writer.exists("/first").await?.is_none() && writer.exists("/second").await?.is_some());
    std::fs::remove_dir_all(ensemble.data_dir(0).join("elkfk"))?;
    ensemble.kill(0);
    ensemble.start_again(0)?;
    whole(&ensemble, &[0, 1, 2]).await?;
    alike(&ensemble, &[0, 1, 2]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_serves_and_counts_for_nothing() {
    observe().await.unwrap();
}

async fn observe() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut ensemble = Ensemble::start_observed(Kind::Elkfk, dir.path(), 3, 1, "syncLimit=2")?;
    let leader = whole(&ensemble, &[0, 1, 2, 3]).await?;
    ensure!(ensemble.mode(3) == "observer");
    let observer = client(&ensemble, 3).await?;
    observer.create("/seen", "1", CreateMode::Persistent).await?;
    observer.create("/alive", "", CreateMode::Ephemeral).await?;
    let voter = client(&ensemble, leader).await?;
    voter.set("/seen", "2", None).await?;
    observer.sync("/").await?;
    ensure!(observer.get("/seen").await?.0 == "2");
    voter.close().await;

    let gone: Vec<_> = (0..3).filter(|at| *at != leader).collect();
    gone.iter().for_each(|at| ensemble.kill(*at));
    // A majority of all four is not there, and of those with a vote neither.
    observer.set("/seen", "3", None).await.expect_err("a write without a majority of voters");
    until(&ensemble, "both send their clients away", || {
        [leader, 3]
            .iter()
            .all(|at| say(ensemble.addr(*at), "srvr").contains("not currently serving requests"))
    })
    .await?;
    ensemble.start_again(gone[0])?;
    whole(&ensemble, &[leader, gone[0], 3]).await?;
    // The write that was not answered may have been done or not: as ever.
    observer.set("/seen", "4", None).await?;
    ensure!(observer.exists("/alive").await?.is_some(), "the observer's session is gone");
    alike(&ensemble, &[leader, gone[0], 3]).await
}

fn reconfig(joining: Option<&str>, leaving: Option<&str>, version: i64) -> Request<'static> {
    Request::Reconfig {
        joining: joining.map(|text| text.to_owned().into()),
        leaving: leaving.map(|text| text.to_owned().into()),
        members: None,
        config_version: version,
    }
}

/// Asks until the change before it is through.
async fn change(admin: &mut Raw, request: &Request<'_>) -> Result<()> {
    let begun = Instant::now();
    loop {
        let answer = admin.ask(request)?;
        if answer.code == 0 {
            return Ok(());
        }
        let is_busy = answer.code == ErrorCode::ReconfigInProgress.code();
        ensure!(is_busy && begun.elapsed() < LONG, "{request:?}: {}", answer.code);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_come_and_go_while_clients_write() {
    come_and_go().await.unwrap();
}

async fn come_and_go() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut ensemble = start(&dir, &format!("reconfigEnabled=true\n{SUPER_DIGEST}"))?;
    let leader = whole(&ensemble, &[0, 1, 2]).await?;
    let [near, other] = others(&ensemble, leader)[..] else { bail!("three servers") };
    let writer = client(&ensemble, near).await?;
    writer.create("/gap", "", CreateMode::Persistent).await?;
    let watcher = client(&ensemble, other).await?;
    // The first leader lists the servers within a moment.
    let begun = Instant::now();
    while watcher.get("/zookeeper/config").await?.0.is_empty() && begun.elapsed() < LONG {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (before, _, watch) = watcher.get_watch("/zookeeper/config").await?;
    let before = String::from_utf8(before.to_vec())?;
    ensure!(before.contains(&ensemble.line(0)) && !before.contains("server.4="), "{before}");

    let mut admin = Raw::open(ensemble.addr(near), &Offer::new(10_000))?;
    let fourth = ensemble.add()?;
    let joining = format!("{};{}", ensemble.line(fourth), ensemble.addr(fourth));
    let join = |version| reconfig(Some(&joining), None, version);
    let code = |answer: Result<elkfk_tests::raw::Answer>| answer.map(|answer| answer.code);
    ensure!(code(admin.ask(&join(-1)))? == ErrorCode::NoAuth.code());
    let auth = Request::Auth { scheme: "digest".into(), auth: Some(b"super:secret"[..].into()) };
    ensure!(code(admin.ask(&auth))? == 0);
    ensure!(code(admin.ask(&join(4711)))? == ErrorCode::BadVersion.code());
    // Until it is a member, nobody listens to it.
    until(&ensemble, "the new server is told why it is refused", || {
        ensemble.output(fourth).contains("server 4 is no member of the ensemble")
    })
    .await?;

    // Both at once: the second finds the first on its way, or done.
    let mut codes = Ok((0, 0));
    let written = write_during(&writer, || {
        codes = (|| {
            let first = admin.send(&join(-1))?;
            let second = admin.send(&reconfig(None, Some("3"), 0))?;
            Ok::<_, anyhow::Error>((admin.answer(first)?.code, admin.answer(second)?.code))
        })();
    });
    let written = written.await?;
    let (first, second) = codes?;
    let refused = [ErrorCode::ReconfigInProgress, ErrorCode::BadVersion].map(ErrorCode::code);
    ensure!(first == 0 && refused.contains(&second), "{first} and {second}");
    ensure!(written.gap < FAIL_OVER_LIMIT, "{written:?} without a write while a server joins");
    let told = tokio::time::timeout(LONG, watch).await.context("the watch on the servers")?;
    ensure!(told.kind == elkfk_wire::jute::EventKind::DataChanged, "{told:?}");
    ensemble.wait_for(fourth)?;
    ensure!(ensemble.mode(fourth) == "follower");
    let reader = client(&ensemble, fourth).await?;
    reader.sync("/").await?;
    let config = String::from_utf8(reader.get("/zookeeper/config").await?.0.to_vec())?;
    ensure!(config.contains("server.4="), "{config}");

    // The one that leads goes.
    let leaving = (leader + 1).to_string();
    change(&mut admin, &reconfig(None, Some(&leaving), -1)).await?;
    let rest = others(&ensemble, leader);
    whole(&ensemble, &rest).await?;
    write_during(&writer, || {}).await?;
    // With it, two of the three that are left would not be enough; without it they are.
    ensemble.kill(leader);
    ensemble.kill(other);
    whole(&ensemble, &[near, fourth]).await?;
    write_during(&writer, || {}).await?;
    drop((writer, watcher, reader));

    // After a start the change holds, whatever zoo.cfg says.
    ensemble.kill(near);
    ensemble.kill(fourth);
    for at in 0..ensemble.len() {
        ensemble.start_again(at)?;
    }
    whole(&ensemble, &rest).await?;
    alike(&ensemble, &rest).await?;
    let reader = client(&ensemble, other).await?;
    let config = String::from_utf8(reader.get("/zookeeper/config").await?.0.to_vec())?;
    let is_gone = !config.contains(&format!("server.{leaving}="));
    ensure!(is_gone && config.contains("server.4="), "{config}");
    let said = format!("server {leaving} is no member of the ensemble");
    until(&ensemble, "the one that left is told so", || ensemble.output(leader).contains(&said))
        .await?;
    ensure!(ensemble.mode(leader).is_empty(), "the one that left serves");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_exchanged_for_another_server_in_one_change() {
    exchange().await.unwrap();
}

async fn exchange() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut ensemble = start(&dir, &format!("reconfigEnabled=true\n{SUPER_DIGEST}"))?;
    let leader = whole(&ensemble, &[0, 1, 2]).await?;
    let near = others(&ensemble, leader)[0];
    let writer = client(&ensemble, near).await?;
    writer.create("/gap", "", CreateMode::Persistent).await?;
    let mut admin = Raw::open(ensemble.addr(near), &Offer::new(10_000))?;
    let auth = Request::Auth { scheme: "digest".into(), auth: Some(b"super:secret"[..].into()) };
    ensure!(admin.ask(&auth)?.code == 0);
    let fourth = ensemble.add()?;
    let (joining, leaving) = (ensemble.line(fourth), (leader + 1).to_string());
    let request = reconfig(Some(&joining), Some(&leaving), -1);
    let mut changed = Ok(0);
    let written = write_during(&writer, || changed = admin.ask(&request).map(|answer| answer.code));
    let written = written.await.with_context(|| ensemble.tails())?;
    ensure!(changed? == 0);
    let rest = others(&ensemble, leader);
    whole(&ensemble, &rest).await?;
    // Those that stay are enough without the one that left.
    ensemble.kill(leader);
    write_during(&writer, || {}).await.with_context(|| ensemble.tails())?;
    ensure!(written.gap < FAIL_OVER_LIMIT, "{written:?} without a write");
    alike(&ensemble, &rest).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn linearizable_reads_see_what_was_acknowledged_elsewhere() {
    read_everywhere().await.unwrap();
}

async fn read_everywhere() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ensemble = start(&dir, "linearizableReads=true")?;
    whole(&ensemble, &[0, 1, 2]).await?;
    let mut clients = Vec::new();
    for at in 0..3 {
        clients.push(client(&ensemble, at).await?);
    }
    clients[0].create("/x", "", CreateMode::Persistent).await?;
    for number in 0..150 {
        let text = number.to_string();
        let writer = number % 3;
        clients[writer].set("/x", text.as_bytes(), None).await?;
        for reader in [writer + 1, writer + 2] {
            let (data, _) = clients[reader % 3].get("/x").await?;
            ensure!(data == text, "server {} has {data:?}, not {text}", reader % 3 + 1);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_clients_are_sent_away_and_their_sessions_wait() {
    lose_the_majority().await.unwrap();
}

async fn lose_the_majority() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut ensemble = start(&dir, "syncLimit=2")?;
    let leader = whole(&ensemble, &[0, 1, 2]).await?;
    let [follower, other] = others(&ensemble, leader)[..] else { bail!("three servers") };
    let stranded = client(&ensemble, other).await?;
    stranded.create("/alive", "", CreateMode::Ephemeral).await?;
    let session = stranded.session_id();
    let mut state = stranded.state();

    ensemble.kill(leader);
    ensemble.kill(follower);
    let begun = Instant::now();
    let away = state.wait_for(|state| matches!(state, SessionState::Disconnected(_)));
    tokio::time::timeout(LONG, away).await??;
    // After syncLimit ticks: 2 s. On a busy machine a question may be answered late.
    let after = begun.elapsed();
    ensure!(after < Duration::from_secs(4), "sent away after {after:?}");
    for word in ["srvr", "stat", "mntr"] {
        let said = say(ensemble.addr(other), word);
        ensure!(said.contains("not currently serving requests"), "{word}: {said}");
    }
    ensure!(Raw::open(ensemble.addr(other), &Offer::new(10_000)).is_err(), "a client is taken");
    ensure!(!state.borrow().is_over());

    ensemble.start_again(follower)?;
    whole(&ensemble, &[follower, other]).await?;
    let owner = stranded.exists("/alive").await?.context("/alive")?.ephemeral_owner;
    ensure!(owner == session && stranded.session_id() == session);
    stranded.create("/again", "", CreateMode::Persistent).await?;
    Ok(())
}
