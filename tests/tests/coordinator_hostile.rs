//! What strangers, mistakes and full disks do to coordinators: those who are served go on being served, what is held
//! is bounded, and the log says what it was and what to do.

#[path = "coordinator_process/mod.rs"]
mod coordinator_process;
mod ensemble_support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use coordinator_process::Coordinator;
use elkfk_coordinator_client::{Client, Config, CreateMode, Error, ErrorCode};
use elkfk_tests::ensemble::{Ensemble, Kind};
use elkfk_tests::peers::{self, Peer};
use elkfk_tests::process::{Process, elkfk};
use elkfk_tests::raw::{Offer, Raw, say};
use elkfk_wire::jute::{Acl, CreateKind, Request};

const LONG: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// Connections that make a storm.
const STORM: usize = 5000;

async fn connect(addr: SocketAddr) -> Result<Client> {
    let config = Config::parse(&addr.to_string())?.with_session_timeout(Duration::from_secs(10));
    Ok(Client::connect(config).await?)
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn peak_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(peak.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// What comes back before the connection is closed; `None` where it stays open for `patience`.
fn send(addr: SocketAddr, bytes: &[u8], patience: Duration) -> Result<Option<Vec<u8>>> {
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(patience))?;
    // It may be closed before all is sent.
    let _ = stream.write_all(bytes);
    rest(&mut stream)
}

/// The same once a session is there.
fn send_in_session(addr: SocketAddr, bytes: &[u8], patience: Duration) -> Result<Option<Vec<u8>>> {
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(LONG))?;
    stream.write_all(&handshake())?;
    stream.read_exact(&mut [0; 40])?;
    stream.set_read_timeout(Some(patience))?;
    let _ = stream.write_all(bytes);
    rest(&mut stream)
}

fn rest(stream: &mut TcpStream) -> Result<Option<Vec<u8>>> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        _ => Ok(Some(answer)),
    }
}

/// Asks for a session as a client does.
fn handshake() -> Vec<u8> {
    let timeout = 10_000i32.to_be_bytes();
    [&[0, 0, 0, 44][..], &[0; 12], &timeout, &[0; 8], &[0, 0, 0, 16], &[0; 16]].concat()
}

#[test]
fn garbage_is_answered_as_by_zookeeper() {
    let test = "garbage_is_answered_as_by_zookeeper";
    if !peers::have(test, &[Peer::ZooKeeper]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let theirs = peers::zookeeper(&dir.path().join("theirs"), "maxClientCnxns=0").unwrap();
    let ours = Coordinator::start(&dir.path().join("ours"), "").unwrap();
    let cases: [(&str, bool, &[u8]); 9] = [
        ("HTTP", false, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("TLS", false, &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00]),
        ("a first frame too large", false, &[0x7f, 0xff, 0xff, 0xff]),
        ("a first frame of less than nothing", false, &[0xff, 0xff, 0xff, 0xff]),
        ("a frame one byte over jute.maxbuffer", true, &[0, 0x10, 0, 0]),
        ("a frame of less than nothing", true, &[0xff, 0xff, 0xff, 0xff]),
        ("half a header", true, &[0, 0, 0, 5, 0, 0, 0, 1, 0]),
        ("a word in a session", true, b"ruok"),
        ("an operation nobody knows", true, &[0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0x99, 0x99]),
    ];
    let patience = Duration::from_millis(700);
    for (name, is_in_session, bytes) in cases {
        let ask = |addr| match is_in_session {
            true => send_in_session(addr, bytes, patience).unwrap(),
            false => send(addr, bytes, patience).unwrap(),
        };
        let (mut ours, mut theirs) = (ask(ours.addr), ask(theirs.addr));
        for answer in [&mut ours, &mut theirs].into_iter().flatten() {
            // Of what was not done theirs tells zxid -1, and ours the newest; no client looks at it.
            answer.iter_mut().skip(8).take(8).for_each(|byte| *byte = 0);
        }
        assert_eq!(ours, theirs, "{name}: ours, theirs");
    }
    assert!(!ours.output().contains("panicked"), "{}", ours.output());
}

#[test]
fn small_requests_for_large_answers_are_refused() {
    let ask_much = || -> Result<()> {
        let dir = tempfile::tempdir()?;
        let coordinator = Coordinator::start(dir.path(), "")?;
        let mut client = Raw::open(coordinator.addr, &Offer::new(10_000))?;
        let data = Some(vec![7; 900_000].into());
        let made = client.ask(&Request::Create {
            kind: CreateKind::Create,
            path: "/large".into(),
            data,
            acl: Some(vec![Acl::OPEN]),
            flags: 0,
            ttl_ms: 0,
        })?;
        ensure!(made.code == 0, "{}", made.code);
        let before = peak_bytes(coordinator.id())?;
        let get = || Request::GetData { path: "/large".into(), watch: false };
        let all =
            |count: usize| Request::MultiRead(std::iter::repeat_with(get).take(count).collect());
        // More than a length can say, of 100 KB of requests.
        let refused = client.ask(&all(3000))?;
        ensure!(refused.code == ErrorCode::MarshallingError.code(), "{}", refused.code);
        let taken = client.ask(&all(4))?;
        ensure!(taken.code == 0 && taken.body.len() > 3_600_000, "{}", taken.body.len());
        let grown = peak_bytes(coordinator.id())? - before;
        ensure!(grown < 32 << 20, "{grown} bytes more");
        ensure!(client.ask(&get())?.code == 0);
        Ok(())
    };
    ask_much().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_half_open_connections_hold_nobody_up() {
    half_open().await.unwrap();
}

async fn half_open() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut coordinator = Coordinator::start(dir.path(), "")?;
    let witness = connect(coordinator.addr).await?;
    witness.create("/witness", [], CreateMode::Ephemeral).await?;
    let (before, files) = (peak_bytes(coordinator.id())?, descriptors(coordinator.id()));
    let mut open = Vec::new();
    for number in 0..1000 {
        let mut stream = TcpStream::connect(coordinator.addr)?;
        match number % 3 {
            0 => {}
            // A megabyte is announced, and 60 bytes of it come.
            1 => stream.write_all(&[&[0, 0x0f, 0xff, 0xff][..], &[0; 60]].concat())?,
            // A session, and half a request.
            _ => stream.write_all(&[handshake(), vec![0, 0x0f, 0xff, 0xff, 0, 0]].concat())?,
        }
        open.push(stream);
    }
    let begun = Instant::now();
    for number in 0..100 {
        witness.set("/witness", format!("{number}"), None).await?;
    }
    let each = begun.elapsed() / 100;
    ensure!(each < Duration::from_millis(200), "{each:?} a write beside them");
    connect(coordinator.addr).await?.close().await;
    let more = peak_bytes(coordinator.id())?.saturating_sub(before);
    // Some 40 KiB each.
    ensure!(more < 48 * MIB, "{} MiB for a thousand connections", more / MIB);
    drop(open);
    let begun = Instant::now();
    while descriptors(coordinator.id()) > files {
        ensure!(begun.elapsed() < LONG, "{} descriptors", descriptors(coordinator.id()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(witness.exists("/witness").await?.is_some());
    witness.close().await;
    coordinator.stop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_connections_leaves_no_trace() {
    storm().await.unwrap();
}

async fn storm() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut coordinator = Coordinator::start(dir.path(), "")?;
    let addr = coordinator.addr;
    let witness = connect(addr).await?;
    witness.create("/witness", [], CreateMode::Ephemeral).await?;
    let (before, files) = (peak_bytes(coordinator.id())?, descriptors(coordinator.id()));
    let (is_over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let storming: Vec<_> = (0..4)
        .map(|kind| {
            let (is_over, count) = (is_over.clone(), count.clone());
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    // Ports run out now and then.
                    let Ok(mut stream) = TcpStream::connect(addr) else { continue };
                    let _ = match kind {
                        0 => Ok(()),
                        1 => stream.write_all(b"GET / HTTP/1.1\r\n\r\n"),
                        2 => stream.write_all(&[0, 0, 0, 44, 0]),
                        _ => stream.write_all(b"ruok"),
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let begun = Instant::now();
    let (mut longest, mut writes) = (Duration::ZERO, 0);
    // On a busy machine it takes longer until it is one.
    while begun.elapsed() < Duration::from_secs(3)
        || count.load(Ordering::Relaxed) < STORM && begun.elapsed() < LONG
    {
        let asked = Instant::now();
        witness.set("/witness", format!("{writes}"), None).await?;
        longest = longest.max(asked.elapsed());
        writes += 1;
    }
    is_over.store(true, Ordering::Relaxed);
    for thread in storming {
        ensure!(thread.join().is_ok());
    }
    let (count, seconds) = (count.load(Ordering::Relaxed), begun.elapsed().as_secs() as usize);
    let rate = count / seconds;
    eprintln!("{rate} connections a second; {writes} writes beside them, the longest {longest:?}");
    ensure!(count >= STORM, "{count} connections are no storm");
    ensure!(longest < Duration::from_secs(2), "a write took {longest:?}");
    let begun = Instant::now();
    while descriptors(coordinator.id()) > files {
        ensure!(begun.elapsed() < LONG, "{} descriptors", descriptors(coordinator.id()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let more = peak_bytes(coordinator.id())?.saturating_sub(before);
    ensure!(more < 64 * MIB, "{} MiB more", more / MIB);
    // It is told, but does not fill the disk.
    let said = coordinator.output();
    ensure!(said.contains("an HTTP request on ZooKeeper's client port"), "{said}");
    ensure!(said.contains("more were refused than are told here"), "{said}");
    let lines = said.lines().count();
    ensure!(lines < 100 + 25 * seconds, "{lines} lines in {seconds} s");
    witness.close().await;
    coordinator.stop()
}

/// What `elkfk coordinator` says of a zoo.cfg that it cannot start with.
fn refused(dir: &Path, text: &str, myid: Option<&str>) -> Result<String> {
    let data = dir.join("data");
    let _ = std::fs::remove_dir_all(&data);
    std::fs::create_dir_all(&data)?;
    if let Some(myid) = myid {
        std::fs::write(data.join("myid"), myid)?;
    }
    let config = dir.join("zoo.cfg");
    std::fs::write(&config, format!("dataDir={}\n{text}", data.display()))?;
    let log = dir.join("said");
    let _ = std::fs::remove_file(&log);
    let mut command = Command::new(elkfk());
    let mut process = Process::start("coordinator", command.arg("coordinator").arg(&config), &log)?;
    let status = process.wait(LONG)?;
    ensure!(status.code() == Some(2), "ended with {status}: {}", process.output());
    Ok(process.output())
}

#[test]
fn every_mistake_is_named_with_its_line_and_its_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let text = "tickTime=soon\nclientPrt=2181\nserver.1=zoo1:2888\nserver.2=zoo2:2888:3888:boss\n\
        secureClientPort=2281\npeerType=watcher\nmaxClientCnxns=-3\nskipACL=yes\n";
    let said = refused(dir.path(), text, Some("1")).unwrap();
    for wanted in [
        "zoo.cfg:2:1: tickTime=soon: give a whole number from 1 on",
        "zoo.cfg:3:1: unknown key \"clientPrt\", did you mean \"clientPort\"?",
        "zoo.cfg:4:1: server.1=zoo1:2888: \"\" is no election port; give host:peerPort:electionPort",
        "zoo.cfg:5:1: server.2=zoo2:2888:3888:boss: \"boss\" is no role; give participant or observer",
        "zoo.cfg:6:1: secureClientPort is refused: TLS is not there yet",
        "zoo.cfg:7:1: peerType=watcher: give participant or observer",
        "zoo.cfg:8:1: maxClientCnxns=-3: give a whole number from 0 on",
        "zoo.cfg:9:1: skipACL is refused: ACLs are always checked; remove the line",
    ] {
        assert!(said.contains(wanted), "{wanted:?} is not in {said}");
    }

    let two = "server.1=127.0.0.1:1:2\nserver.2=127.0.0.1:3:4\n";
    for (text, myid, wanted) in [
        (two, Some("7"), "this is server 7, but"),
        (two, Some("7"), "lists server.1, server.2; make them the same"),
        (two, Some("x1"), "myid:1:1: \"x1\" is not a number from 1 to 255"),
        (two, None, "this file says which of them this is: write its number into it"),
        (&format!("{two}peerType=observer\n"), Some("2"), "add :observer to its line"),
    ] {
        let said = refused(dir.path(), text, myid).unwrap();
        assert!(said.contains(wanted), "{wanted:?} is not in {said}");
    }
}

/// The peer port of server `at`, as its line says.
fn peer_addr(ensemble: &Ensemble, at: usize) -> Result<SocketAddr> {
    let line = ensemble.line(at);
    let mut parts = line.split(['=', ':']).skip(1);
    let (host, port) = (parts.next().context("a host")?, parts.next().context("a port")?);
    Ok(format!("{host}:{port}").parse()?)
}

async fn until(what: &str, ensemble: &Ensemble, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !is_so() {
        ensure!(begun.elapsed() < LONG, "{what}: not after {LONG:?}\n{}", ensemble.tails());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_on_the_peer_port_and_a_double_do_no_harm() {
    strangers().await.unwrap();
}

async fn strangers() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut ensemble = Ensemble::start(Kind::Elkfk, dir.path(), 3, "")?;
    let client = connect(ensemble.addr(0)).await?;
    client.create("/x", "", CreateMode::Persistent).await?;
    let port = peer_addr(&ensemble, 0)?;
    let before = peak_bytes(ensemble.process(0)?.id())?;

    let zookeepers = [&[0u8; 8][..], &[0; 64]].concat();
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: zoo1:2888\r\nAccept: */*\r\n\r\n".to_vec(),
        vec![0xff; 5000],
        zookeepers,
        handshake(),
    ] {
        let answer = send(port, &bytes, LONG)?;
        ensure!(answer == Some(Vec::new()), "{answer:?}");
    }
    until("it is told", &ensemble, || {
        ensemble.output(0).contains("is not from a server of this program, closing")
    })
    .await?;

    // Somebody with the number of one that is there.
    let call = |from: u64, to: u64| {
        let mut header = b"elkfkpr1\x01".to_vec();
        [from, to, 4711].iter().for_each(|number| header.extend(number.to_be_bytes()));
        header
    };
    for (from, to, said) in [
        (2, 1, "two servers have the number 2: one at 127.0.0.1"),
        (1, 1, "two servers have the number 1: correct the myid"),
        (2, 3, "server 3 was called, but this is server 1: compare the lines server.N and myid"),
        (
            9,
            1,
            "server 9 is no member of the ensemble that server 1 knows: add it to every zoo.cfg",
        ),
    ] {
        let answer = send(port, &call(from, to), LONG)?.context("an answer")?;
        let told = String::from_utf8_lossy(&answer[2.min(answer.len())..]).into_owned();
        ensure!(told.contains(said), "{told:?} to a call from {from} to {to}");
        ensure!(ensemble.output(0).contains(said), "{said}: {}", ensemble.tails());
    }

    // A server that is away is feigned: too long a message, and one that is none.
    ensemble.kill(1);
    for (bytes, said) in [
        (vec![0xff, 0xff, 0xff, 0xf0, 1, 2, 3], "a message of 4294967280 bytes, where"),
        (vec![0, 0, 0, 3, 99, 1, 2], "server sends what is no message, closing"),
        (vec![0, 0, 0, 1, 2], "server sends what is no message, closing"),
    ] {
        let begun = Instant::now();
        loop {
            // The real one counts as alive for a moment.
            let answer = send(port, &[call(2, 1), bytes.clone()].concat(), LONG)?;
            if answer.as_deref().is_some_and(|answer| answer.starts_with(&[0, 0])) {
                break;
            }
            ensure!(begun.elapsed() < LONG, "{said}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        until(said, &ensemble, || ensemble.output(0).contains(said)).await?;
    }
    client.set("/x", "on", None).await?;
    ensemble.start_again(1)?;
    ensemble.wait_for(1)?;
    let more = peak_bytes(ensemble.process(0)?.id())?.saturating_sub(before);
    ensure!(more < 48 * MIB, "{} MiB more", more / MIB);

    // A double of server 2, with a disk and ports of its own.
    let double = dir.path().join("double");
    std::fs::create_dir_all(double.join("data"))?;
    std::fs::write(double.join("data/myid"), "2\n")?;
    let own =
        format!("server.2=127.0.0.1:{}:{}", elkfk_tests::free_port(), elkfk_tests::free_port());
    let text = format!(
        "dataDir={}\nclientPort={}\nadmin.enableServer=false\n{}\n{own}\n{}\n",
        double.join("data").display(),
        elkfk_tests::free_port(),
        ensemble.line(0),
        ensemble.line(2)
    );
    std::fs::write(double.join("zoo.cfg"), text)?;
    let mut command = Command::new(elkfk());
    command.arg("coordinator").arg(double.join("zoo.cfg"));
    let process = Process::start("double", &mut command, &double.join("log"))?;
    let said = "two servers have the number 2: one at 127.0.0.1";
    until("the double is told", &ensemble, || process.output().contains(said)).await?;
    ensure!(process.output().contains("correct the myid of one"), "{}", process.output());
    for number in 0..20 {
        client.set("/x", format!("{number}"), None).await?;
    }
    for at in 0..3 {
        ensure!(!ensemble.mode(at).is_empty(), "server {} does not serve", at + 1);
    }
    ensure!(!ensemble.outputs().contains("panicked"), "{}", ensemble.outputs());
    Ok(())
}

/// A small file system, where one may be mounted.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=72m", "tmpfs"]).arg(at);
        mount.output().is_ok_and(|output| output.status.success()).then(|| Self(at.into()))
    }

    /// Leaves no byte of room.
    fn fill(&self) -> Result<()> {
        let mut file = File::create(self.0.join("filler"))?;
        while file.write_all(&[1; 4096]).is_ok() {}
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.0.join("filler"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_stop_writes_only_where_all_are_full() {
    full_disks().await.unwrap();
}

async fn full_disks() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut ensemble = Ensemble::start(Kind::Elkfk, dir.path(), 3, "snapCount=50")?;
    let mut disks = Vec::new();
    // One after the other gets a small disk, and on it a copy of all.
    for at in 0..3 {
        ensemble.stop(at)?;
        let Some(disk) = SmallDisk::mount(&ensemble.data_dir(at)) else {
            peers::skip(
                "full_disks_stop_writes_only_where_all_are_full",
                "the right to mount a tmpfs",
            );
            return Ok(());
        };
        disks.push(disk);
        std::fs::write(ensemble.data_dir(at).join("myid"), format!("{}\n", at + 1))?;
        ensemble.start_again(at)?;
        ensemble.wait_for(at)?;
    }
    let result = fill(&ensemble, &disks).await;
    // The servers first, as they hold the disks.
    drop(ensemble);
    result
}

/// Writes until it goes through; tells how long that took.
async fn write_through(client: &Client, data: &[u8]) -> Result<Duration> {
    let begun = Instant::now();
    while let Err(error) = client.set("/x", data, None).await {
        ensure!(begun.elapsed() < LONG, "no write goes through: {error}");
        ensure!(!error.is_session_over(), "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(begun.elapsed())
}

/// Done or not, a client is to look again.
fn is_lost(error: &Error) -> bool {
    *error == Error::ConnectionLost || error.code() == Some(ErrorCode::ConnectionLoss)
}

async fn fill(ensemble: &Ensemble, disks: &[SmallDisk]) -> Result<()> {
    let is_refusing = |at: usize| ensemble.output(at).contains("writes are refused, reads go on");
    let large = vec![7; 400_000];
    let leader = ensemble.wait_for_leader(LONG)?;
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let client = connect(ensemble.addr(other)).await?;
    client.create("/x", "", CreateMode::Persistent).await?;
    client.create("/alive", "", CreateMode::Ephemeral).await?;
    let reader = connect(ensemble.addr(follower)).await?;
    reader.sync("/").await?;

    // A follower's is full: only who asks this server to write is refused.
    disks[follower].fill()?;
    for _ in 0..30 {
        client.set("/x", &large[..], None).await.context("a write while a follower is full")?;
    }
    until("the follower refuses", ensemble, || is_refusing(follower)).await?;
    ensure!(reader.exists("/x").await?.is_some());
    let refused = reader.set("/x", "", None).await.expect_err("a write by a server without room");
    ensure!(is_lost(&refused), "{refused}");
    disks[follower].free()?;
    alike(ensemble).await?;

    // The leader's is full: another leads.
    let leader = ensemble.wait_for_leader(LONG)?;
    disks[leader].fill()?;
    let mut longest = Duration::ZERO;
    for _ in 0..30 {
        longest = longest.max(write_through(&client, &large).await?);
    }
    eprintln!("the longest write while the leader's disk was full: {longest:?}");
    ensure!(longest < Duration::from_secs(10), "{longest:?} for a write");
    ensure!(is_refusing(leader), "{}", ensemble.tails());
    let now = ensemble.wait_for_leader(LONG)?;
    ensure!(now != leader, "a server without room leads");
    disks[leader].free()?;
    alike(ensemble).await?;

    // All are full.
    for disk in disks {
        disk.fill()?;
    }
    let begun = Instant::now();
    let refused = loop {
        if let Err(error) = client.set("/x", &large[..], None).await {
            break error;
        }
        ensure!(begun.elapsed() < LONG, "the disks are not full");
    };
    ensure!(is_lost(&refused), "{refused}");
    let Ok(read) = tokio::time::timeout(LONG, client.get("/x")).await else {
        bail!("no reads while the disks are full\n{}", ensemble.tails())
    };
    ensure!(read?.0 == large);
    for disk in disks {
        disk.free()?;
    }
    let healed = write_through(&client, b"healed").await?;
    eprintln!("writes are taken again after {healed:?}");
    ensure!(client.exists("/alive").await?.is_some(), "the session is gone");
    alike(ensemble).await
}

async fn alike(ensemble: &Ensemble) -> Result<()> {
    until("trees are alike", ensemble, || {
        let hashes: Vec<_> = (0..ensemble.len()).map(|at| say(ensemble.addr(at), "hash")).collect();
        hashes[0].contains(": ") && hashes.iter().all(|hash| *hash == hashes[0])
    })
    .await
}
