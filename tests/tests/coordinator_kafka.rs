//! A real Kafka 3.4.1 on our coordinator.

#[path = "coordinator_process/mod.rs"]
mod coordinator_process;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coordinator_process::Coordinator;
use elkfk_coordinator_client::{Client, Config};
use elkfk_tests::free_port;
use elkfk_tests::peers::{self, Peer, Server};

const PATIENCE: Duration = Duration::from_secs(60);

fn tool(name: &str, kafka: &Server, args: &[&str], stdin: &str) -> Result<String> {
    let addr = kafka.addr.to_string();
    let mut all = vec!["--bootstrap-server", addr.as_str()];
    all.extend(args);
    let output = peers::kafka_tool(name, &all, stdin)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{name} {args:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

fn produce(kafka: &Server, topic: &str, lines: &str) -> Result<()> {
    tool("kafka-console-producer", kafka, &["--topic", topic], lines).map(drop)
}

/// What the group reads that it has not read before.
fn consume(kafka: &Server, topic: &str, group: &str, count: usize) -> Result<Vec<String>> {
    let count = count.to_string();
    let args = [
        "--topic",
        topic,
        "--group",
        group,
        "--from-beginning",
        "--max-messages",
        &count,
        "--timeout-ms",
        "30000",
    ];
    let mut lines: Vec<_> =
        tool("kafka-console-consumer", kafka, &args, "")?.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broker_kafka_coordinator_ours() {
    if peers::have("broker_kafka_coordinator_ours", &[Peer::Kafka]) {
        live_through_kills().await.unwrap();
    }
}

async fn live_through_kills() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut coordinator = Coordinator::start(&dir.path().join("zk"), "tickTime=2000")?;
    let port = free_port();
    let kafka_dir = dir.path().join("kafka");
    let overrides = ["zookeeper.session.timeout.ms=6000"];
    let zookeeper = coordinator.addr.to_string();
    let start_kafka = || peers::kafka_at(&kafka_dir, port, &zookeeper, &overrides);
    let mut kafka = start_kafka()?;

    // Topics, records, a group.
    let topics = |args: &[&str]| tool("kafka-topics", &kafka, args, "");
    topics(&["--create", "--topic", "test1", "--partitions", "3"])?;
    topics(&["--create", "--topic", "gone"])?;
    ensure!(topics(&["--list"])?.split_whitespace().eq(["gone", "test1"]));
    produce(&kafka, "test1", "one\ntwo\nthree\n")?;
    assert_eq!(consume(&kafka, "test1", "readers", 3)?, ["one", "three", "two"]);
    topics(&["--delete", "--topic", "gone"])?;
    let client =
        Client::connect(Config::parse(&zookeeper)?.with_session_timeout(Duration::from_secs(30)))
            .await?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while client.exists("/brokers/topics/gone").await?.is_some() {
        ensure!(tokio::time::Instant::now() < deadline, "topic gone is not deleted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (broker, registration) = client.get("/brokers/ids/0").await?;
    ensure!(std::str::from_utf8(&broker)?.contains(&format!("127.0.0.1:{port}")));

    // The coordinator is killed: the broker comes back to the same session within its timeout.
    coordinator.kill();
    coordinator.start_again()?;
    client.sync("/").await?;
    let (_, again) = client.get("/brokers/ids/0").await?;
    assert_eq!(again.czxid, registration.czxid, "the broker's session was resumed");
    assert_eq!(again.ephemeral_owner, registration.ephemeral_owner);
    tool("kafka-topics", &kafka, &["--create", "--topic", "after-kill"], "")?;
    produce(&kafka, "after-kill", "four\n")?;
    assert_eq!(consume(&kafka, "after-kill", "readers", 1)?, ["four"]);
    // The session outlives its timeout, so it is pinged and not only remembered.
    tokio::time::sleep(Duration::from_secs(8)).await;
    ensure!(client.exists("/brokers/ids/0").await?.is_some_and(|stat| stat == again));

    die_while_kafka_works(&mut coordinator, &client, &kafka).await?;

    // The broker is killed: its session expires, and it registers anew.
    kafka.process.kill();
    // It may have had a new session, and been about to register, when it was killed.
    let mut gone_since = tokio::time::Instant::now();
    while gone_since.elapsed() < Duration::from_secs(7) {
        let (stat, watch) = client.exists_watch("/brokers/ids/0").await?;
        if stat.is_some() {
            tokio::time::timeout(PATIENCE, watch).await.context("the broker's session expires")?;
            gone_since = tokio::time::Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(client.exists("/controller").await?.is_none());
    kafka = start_kafka().with_context(|| coordinator.output())?;
    let (_, anew) = client.get("/brokers/ids/0").await?;
    ensure!(anew.czxid > registration.czxid);
    produce(&kafka, "test1", "five\n")?;
    assert_eq!(consume(&kafka, "test1", "readers", 1)?, ["five"]);

    // Both are stopped and started again, in order.
    let stopped = kafka.process.stop(PATIENCE).context("stop kafka")?;
    // 130: by a signal, in order.
    ensure!(matches!(stopped.code(), Some(0 | 130 | 143)), "kafka ended with {stopped}");
    let left = client.exists("/brokers/ids/0").await?;
    ensure!(left.is_none(), "kafka's session is not over: {left:?}\n{}", coordinator.output());
    coordinator.stop()?;
    coordinator.start_again()?;
    kafka = start_kafka().with_context(|| coordinator.output())?;
    let list = tool("kafka-topics", &kafka, &["--list"], "")?;
    let expected = ["__consumer_offsets", "after-kill", "made-in-a-kill", "test1"];
    ensure!(list.split_whitespace().eq(expected), "{list}");
    produce(&kafka, "test1", "six\n")?;
    assert_eq!(consume(&kafka, "test1", "readers", 1)?, ["six"]);
    let log = kafka.process.output();
    for line in log.lines().filter(|line| line.contains("KeeperErrorCode")) {
        ensure!(EXPECTED.iter().any(|code| line.contains(code)), "kafka: {line}");
    }
    ensure!(!log.contains("Session expired") && !log.contains("FATAL"), "{log}");
    ensure!(!coordinator.output().contains("ERROR"), "{}", coordinator.output());
    Ok(())
}

/// What a broker may meet: a server that is away. Everything else would be our mistake.
const EXPECTED: [&str; 1] = ["KeeperErrorCode = ConnectionLoss"];

/// The coordinator is killed as soon as a watch tells that the broker is at work on a request: while
/// it makes a topic, changes a configuration, adds partitions. Records are produced all the while.
async fn die_while_kafka_works(
    coordinator: &mut Coordinator,
    client: &Client,
    kafka: &Server,
) -> Result<()> {
    let create = ["--create", "--topic", "made-in-a-kill", "--partitions", "4"];
    let (_, _, watch) = client.children_watch("/brokers/topics").await?;
    die_during(coordinator, kafka, "kafka-topics", &create, watch, "one").await?;

    let entity = ["--entity-type", "topics", "--entity-name", "made-in-a-kill"];
    let change = [&["--alter", "--add-config", "retention.ms=1234567"][..], &entity].concat();
    let (_, _, watch) = client.children_watch("/config/changes").await?;
    die_during(coordinator, kafka, "kafka-configs", &change, watch, "two").await?;

    let alter = ["--alter", "--topic", "made-in-a-kill", "--partitions", "6"];
    let (_, _, watch) = client.get_watch("/brokers/topics/made-in-a-kill").await?;
    die_during(coordinator, kafka, "kafka-topics", &alter, watch, "three").await?;

    // Nothing of it was lost, and every partition has a leader.
    let describe = ["--describe", "--topic", "made-in-a-kill"];
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let text = loop {
        let text = tool("kafka-topics", kafka, &describe, "")?;
        if text.matches("Leader: 0").count() == 6 {
            break text;
        }
        ensure!(tokio::time::Instant::now() < deadline, "{text}");
    };
    ensure!(text.contains("PartitionCount: 6") && text.contains("retention.ms=1234567"), "{text}");
    assert_eq!(consume(kafka, "test1", "readers", 3)?, ["one", "three", "two"]);
    produce(kafka, "made-in-a-kill", "a\nb\nc\n")?;
    assert_eq!(consume(kafka, "made-in-a-kill", "readers", 3)?, ["a", "b", "c"]);
    Ok(())
}

async fn die_during(
    coordinator: &mut Coordinator,
    kafka: &Server,
    name: &str,
    args: &[&str],
    watch: impl Future,
    line: &str,
) -> Result<()> {
    let (worked, produced) = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let work = scope.spawn(|| tool(name, kafka, args, ""));
            let produce = scope.spawn(|| produce(kafka, "test1", &format!("{line}\n")));
            let begun = tokio::runtime::Handle::current()
                .block_on(async { tokio::time::timeout(PATIENCE, watch).await });
            let killed = begun.context("the broker begins").and_then(|_| {
                coordinator.kill();
                coordinator.start_again()
            });
            let joined = (work.join().expect("no panic"), produce.join().expect("no panic"));
            killed.map(|()| joined)
        })
    })?;
    produced?;
    match worked {
        // The answer to its first try was lost with the connection.
        Err(error) if error.to_string().contains("already exists") => Ok(()),
        worked => worked.map(drop),
    }
}
