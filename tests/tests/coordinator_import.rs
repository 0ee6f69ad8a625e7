//! `elkfk coordinator import` of what a real ZooKeeper 3.5.7 wrote, its znodes compared one by one.

#[path = "coordinator_process/mod.rs"]
mod coordinator_process;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coordinator_process::Coordinator;
use elkfk_coordinator_client::{Acl, Client, Config, CreateMode, Op};
use elkfk_tests::peers::{self, Peer, Server};
use elkfk_tests::process::elkfk;

const SESSION: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(90);

async fn connect(at: &str, auth: &[&str]) -> Result<Client> {
    let mut config = Config::parse(at)?.with_session_timeout(SESSION);
    for auth in auth {
        config.auth.push(("digest".into(), auth.as_bytes().to_vec()));
    }
    Ok(Client::connect(config).await?)
}

fn import(from: &Path, to: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(elkfk());
    command.args(["coordinator", "import", "--from"]).arg(from).arg("--to").arg(to).args(more);
    command.output().unwrap()
}

fn imported(from: &Path, to: &Path) -> Result<String> {
    let output = import(from, to, &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// Every znode with its data, ACL and whole stat, a line each.
async fn dump(client: &Client) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut waiting = vec!["/".to_owned()];
    while let Some(path) = waiting.pop() {
        let (mut children, _) = client.children(&path).await.context("children")?;
        let (data, stat) = client.get(&path).await.with_context(|| format!("get {path}"))?;
        let (acl, _) = client.get_acl(&path).await.with_context(|| format!("acl {path}"))?;
        lines.push(format!("{path} {data:?} {acl:?} {stat:?}"));
        children.sort();
        let parent = if path == "/" { "" } else { path.as_str() };
        waiting.extend(children.iter().map(|name| format!("{parent}/{name}")));
    }
    lines.sort();
    Ok(lines)
}

/// All kinds of znodes, with changes and deletions over several logs and snapshots.
async fn fill(at: &str) -> Result<Client> {
    let client = connect(at, &["bob:secret"]).await?;
    for n in 0..150 {
        let path = format!("/many/{:02}/{n}", n % 10);
        client.create_all(&path).await?;
        client.set(&path, vec![b'x'; n], None).await?;
    }
    for n in (0..150).step_by(3) {
        client.delete(&format!("/many/{:02}/{n}", n % 10), None).await?;
    }
    client.create_with("/null", None, &[Acl::OPEN], CreateMode::Persistent).await?;
    client.create_with("/bobs", Some(b"b"), &[Acl::CREATOR], CreateMode::Persistent).await?;
    client.set_acl("/bobs", &[Acl::CREATOR, Acl { perms: 1, ..Acl::OPEN }], Some(0)).await?;
    client.create("/queue", [], CreateMode::Persistent).await?;
    for _ in 0..5 {
        client.create("/queue/job-", "j", CreateMode::PersistentSequential).await?;
    }
    client.delete("/queue/job-0000000004", None).await?;
    client.create_with("/box", Some(b""), &[Acl::OPEN], CreateMode::Container).await?;
    client.create("/box/x", [], CreateMode::Persistent).await?;
    client.create("/ephemeral", "e", CreateMode::Ephemeral).await?;
    let ops = [
        Op::create("/multi", "m", CreateMode::Persistent),
        Op::set("/multi", "mm", Some(0)),
        Op::create("/multi/seq-", "s", CreateMode::EphemeralSequential),
        Op::delete("/many/01/1", None),
    ];
    client.multi(&ops).await?;
    let failing = [Op::delete("/multi", None), Op::check("/nope", None)];
    ensure!(client.multi(&failing).await.is_err());
    ensure!(client.create("/multi", "m", CreateMode::Persistent).await.is_err());
    let ttl = CreateMode::PersistentWithTtl { ttl_ms: 86_400_000 };
    client.create("/ttl", "t", ttl).await?;
    // A session that ends takes its ephemerals along.
    let short = connect(at, &[]).await?;
    short.create("/many/gone", [], CreateMode::Ephemeral).await?;
    short.close().await;
    client.create("/ünïcode ☃", "é".as_bytes(), CreateMode::Persistent).await?;
    Ok(client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_zookeepers_tree_is_here_with_every_stat() {
    let test = "a_killed_zookeepers_tree_is_here_with_every_stat";
    if peers::have(test, &[Peer::ZooKeeper]) {
        take_over().await.unwrap();
    }
}

async fn take_over() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let theirs = dir.path().join("theirs");
    // A snapshot every two hundred transactions or so, and a log apart.
    let extra = format!(
        "snapCount=200\nextendedTypesEnabled=true\nmaxClientCnxns=0\ndataLogDir={}",
        dir.path().join("log").display()
    );
    fs::create_dir_all(dir.path().join("log"))?;
    let mut zookeeper = peers::zookeeper(&theirs, &extra)?;
    let client = fill(&zookeeper.addr.to_string()).await?;
    let session = client.session_id();
    zookeeper.process.kill();
    client.abandon().await;
    let (from, log) = (theirs.join("data"), dir.path().join("log"));
    ensure!(fs::read_dir(from.join("version-2"))?.count() > 1, "one snapshot only");

    let ours = dir.path().join("ours");
    let log_dir = ["--log-dir", log.to_str().unwrap()];
    let output = import(&from, &ours.join("data"), &log_dir);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(text.contains(" 1 session,") && text.contains("2 ephemerals"), "{text}");

    let mut coordinator = Coordinator::start(&ours, "")?;
    let on_ours = connect(&coordinator.addr.to_string(), &["bob:secret"]).await?;
    let ours_dump = dump(&on_ours).await?;
    let again = peers::zookeeper_at(&theirs, zookeeper.addr.port(), &extra)?;
    let on_theirs = connect(&again.addr.to_string(), &["bob:secret"]).await?;
    let theirs_dump = dump(&on_theirs).await?;
    for (ours, theirs) in ours_dump.iter().zip(&theirs_dump) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours_dump.len(), theirs_dump.len());
    ensure!(ours_dump.len() > 120, "{} znodes", ours_dump.len());
    ensure!(ours_dump.iter().any(|line| line.starts_with("/ephemeral ")));

    // Both go on alike: the next name, and zxids above all that were there.
    let create = |client: Client| async move {
        client.create("/queue/job-", [], CreateMode::PersistentSequential).await
    };
    assert_eq!(create(on_ours.clone()).await?, create(on_theirs.clone()).await?);
    let (_, stat) = on_ours.get("/queue/job-0000000005").await?;
    let newest = theirs_dump.len() as i64;
    ensure!(stat.czxid.0 >> 32 > 0 && stat.czxid.0 > newest, "{stat:?}");

    // The session that lived ends here too, after its timeout, and takes its ephemerals along.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while let Some(stat) = on_ours.exists("/ephemeral").await? {
        assert_eq!(stat.ephemeral_owner, session);
        ensure!(tokio::time::Instant::now() < deadline, "the session does not end");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // And it is all there after a kill.
    coordinator.kill();
    coordinator.start_again()?;
    on_ours.sync("/").await?;
    ensure!(on_ours.exists("/ephemeral").await?.is_none());
    ensure!(on_ours.exists("/queue/job-0000000005").await?.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torn_and_damaged_logs_of_a_zookeeper() {
    if peers::have("torn_and_damaged_logs_of_a_zookeeper", &[Peer::ZooKeeper]) {
        damage().await.unwrap();
    }
}

async fn damage() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut zookeeper = peers::zookeeper(&dir.path().join("theirs"), "")?;
    let client = connect(&zookeeper.addr.to_string(), &[]).await?;
    for n in 0..20 {
        client.create(&format!("/n{n:02}"), vec![b'd'; 50], CreateMode::Persistent).await?;
    }
    zookeeper.process.kill();
    client.abandon().await;
    let from = dir.path().join("theirs/data");
    let (log, bytes) = newest_log(&from)?;
    let end = bytes.iter().rposition(|byte| *byte != 0).context("a log")? + 1;
    let zxid = |text: &str| {
        let hex = text.split("zxid 0x").nth(1).and_then(|rest| rest.split_whitespace().next());
        i64::from_str_radix(hex.unwrap_or_default(), 16).context("a zxid")
    };
    let whole = zxid(&imported(&from, &dir.path().join("whole"))?)?;

    // The last transaction half written.
    fs::write(&log, &bytes[..end - 20])?;
    let output = import(&from, &dir.path().join("torn"), &[]);
    ensure!(output.status.success(), "{output:?}");
    ensure!(String::from_utf8_lossy(&output.stderr).contains("what a crash left"), "{output:?}");
    assert_eq!(zxid(&String::from_utf8_lossy(&output.stdout))?, whole - 1);

    // A bit flipped in the middle.
    let mut damaged = bytes.clone();
    damaged[end / 2] ^= 0x10;
    fs::write(&log, &damaged)?;
    let to = dir.path().join("damaged");
    let output = import(&from, &to, &[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    ensure!(text.contains("damaged at byte") && text.contains(log.to_str().unwrap()), "{text}");
    ensure!(!to.exists(), "something was written");
    let last = text.split("--zxid ").nth(1).context("a remedy")?.trim();
    let output = import(&from, &to, &["--zxid", last]);
    ensure!(output.status.success(), "{output:?}");
    assert_eq!(format!("0x{:x}", zxid(&String::from_utf8_lossy(&output.stdout))?), last);

    // Nothing is written over, and what is not there is said.
    let output = import(&from, &to, &["--zxid", last]);
    ensure!(String::from_utf8_lossy(&output.stderr).contains("holds data of this program"));
    let output = import(&dir.path().join("torn"), &dir.path().join("x"), &[]);
    ensure!(String::from_utf8_lossy(&output.stderr).contains("holds no snapshot"), "{output:?}");
    Ok(())
}

fn newest_log(data: &Path) -> Result<(PathBuf, Vec<u8>)> {
    let mut logs: Vec<_> = fs::read_dir(data.join("version-2"))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"log."))
        })
        .collect();
    logs.sort();
    let path = logs.pop().context("a log")?;
    let bytes = fs::read(&path)?;
    Ok((path, bytes))
}

#[test]
fn a_kafka_goes_on_after_its_zookeeper_was_imported() {
    let test = "a_kafka_goes_on_after_its_zookeeper_was_imported";
    if peers::have(test, &[Peer::ZooKeeper, Peer::Kafka]) {
        move_kafka().unwrap();
    }
}

fn tool(name: &str, kafka: &Server, args: &[&str], stdin: &str) -> Result<String> {
    let addr = kafka.addr.to_string();
    let output =
        peers::kafka_tool(name, &[&["--bootstrap-server", &addr][..], args].concat(), stdin)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{name} {args:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

fn move_kafka() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (theirs, ours, broker) =
        (dir.path().join("theirs"), dir.path().join("ours"), dir.path().join("kafka"));
    let mut zookeeper = peers::zookeeper(&theirs, "")?;
    let mut kafka = peers::kafka(&broker, &zookeeper.addr.to_string(), &[])?;
    let create =
        ["--create", "--topic", "kept", "--partitions", "3", "--config", "retention.ms=7654321"];
    tool("kafka-topics", &kafka, &create, "")?;
    tool("kafka-topics", &kafka, &["--create", "--topic", "gone"], "")?;
    tool("kafka-topics", &kafka, &["--delete", "--topic", "gone"], "")?;
    tool("kafka-console-producer", &kafka, &["--topic", "kept"], "one\ntwo\n")?;
    let describe = ["--describe", "--topic", "kept"];
    let before = tool("kafka-topics", &kafka, &describe, "")?;
    kafka.process.stop(PATIENCE).ok();
    zookeeper.process.stop(PATIENCE).ok();

    imported(&theirs.join("data"), &ours.join("data"))?;
    let coordinator = Coordinator::start(&ours, "tickTime=2000")?;
    let kafka = peers::kafka_at(&broker, kafka.addr.port(), &coordinator.addr.to_string(), &[])?;
    assert_eq!(tool("kafka-topics", &kafka, &describe, "")?, before);
    let list = tool("kafka-topics", &kafka, &["--list"], "")?;
    ensure!(!list.contains("gone"), "{list}");
    tool("kafka-topics", &kafka, &["--create", "--topic", "new"], "")?;
    tool("kafka-console-producer", &kafka, &["--topic", "kept"], "three\n")?;
    let consume =
        ["--topic", "kept", "--from-beginning", "--max-messages", "3", "--timeout-ms", "30000"];
    let text = tool("kafka-console-consumer", &kafka, &consume, "")?;
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "three", "two"]);
    Ok(())
}
