//! Other people's clients against our broker: what one of them produces every other one consumes,
//! and a group of them goes on when one is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use elkfk_tests::line::TestDir;
use elkfk_tests::peers::{self, Peer};
use elkfk_tests::process::Process;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};

const LONG: Duration = Duration::from_secs(90);
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// A program that is no part of elkfk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Kcat,
    KafkaPython,
    ConfluentKafka,
    /// Kafka's own console tools.
    Java,
}

use Client::{ConfluentKafka, Java, KafkaPython, Kcat};

/// The Python that has the clients, as `tests/setup` installs it.
fn python() -> PathBuf {
    let tools = std::env::var_os("ELKFK_TEST_TOOLS").map_or_else(
        || {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_default())
                .join(".cache/elkfk-test-tools")
        },
        PathBuf::from,
    );
    tools.join("python/bin/python")
}

/// Whether all clients are here; reports `test` as skipped if not.
fn have_clients(test: &str, peers_needed: &[Peer]) -> bool {
    let runs = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if !runs(Command::new("kcat").arg("-V")) {
        peers::skip(test, "kcat");
        return false;
    }
    let imports = "import kafka, confluent_kafka, lz4.frame, snappy, zstandard";
    if !runs(Command::new(python()).args(["-c", imports])) {
        peers::skip(test, "the Python clients that tests/setup installs");
        return false;
    }
    peers::have(test, peers_needed)
}

/// One record: key, value, headers.
type Record = (Option<String>, String, Vec<(String, String)>);

/// Records of one producer under one codec, half of them bare.
fn sample(client: Client, codec: &str) -> Vec<Record> {
    (0..20)
        .map(|number| {
            let value = format!("{client:?} {codec} {number} {}", "x".repeat(number * 10));
            if number < 10 {
                let headers = vec![
                    ("trace".to_owned(), "abc".to_owned()),
                    ("codec".to_owned(), codec.to_owned()),
                ];
                (Some(format!("key-{number}")), value, headers)
            } else {
                (None, value, Vec::new())
            }
        })
        .collect()
}

fn script(words: &[&str]) -> Command {
    let mut command = Command::new(python());
    command.arg(elkfk_tests::workspace().join("tests/tests/broker_foreign_clients.py")).args(words);
    command
}

/// Runs a program to its end; its standard output.
fn run(mut command: Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that ends early leaves a closed pipe; its answer says why.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn produce(client: Client, bootstrap: &str, codec: &str, records: &[Record]) {
    let name = match client {
        KafkaPython => "kafka-python",
        ConfluentKafka => "confluent-kafka",
        // These give one set of headers to all records of a run.
        Kcat | Java => {
            for with_keys in [true, false] {
                let part: Vec<&Record> =
                    records.iter().filter(|record| record.0.is_some() == with_keys).collect();
                match client {
                    Kcat => kcat_produce(bootstrap, codec, &part, with_keys),
                    _ => java_produce(bootstrap, codec, &part, with_keys),
                }
            }
            return;
        }
    };
    let lines: String =
        records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect();
    run(script(&["produce", name, bootstrap, "all", codec]), &lines);
}

fn kcat_produce(bootstrap: &str, codec: &str, records: &[&Record], with_keys: bool) {
    let mut command = Command::new("kcat");
    command.args([
        "-P",
        "-b",
        bootstrap,
        "-t",
        "all",
        "-p",
        "0",
        "-z",
        codec,
        "-X",
        "linger.ms=50",
    ]);
    let mut lines = String::new();
    for (key, value, headers) in records {
        if let Some(key) = key {
            lines += &format!("{key}:");
            if lines.lines().count() == 1 {
                for (name, value) in headers {
                    command.args(["-H", &format!("{name}={value}")]);
                }
            }
        }
        lines += &format!("{value}\n");
    }
    if with_keys {
        command.args(["-K", ":"]);
    }
    run(command, &lines);
}

fn java_produce(bootstrap: &str, codec: &str, records: &[&Record], with_keys: bool) {
    let mut lines = String::new();
    for (key, value, headers) in records {
        if let Some(key) = key {
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| format!("{name}:{value}")).collect();
            lines += &format!("{}\t{key}\t", headers.join(","));
        }
        lines += &format!("{value}\n");
    }
    let mut args = vec!["--bootstrap-server", bootstrap, "--topic", "all"];
    args.extend(["--compression-codec", codec]);
    if with_keys {
        args.extend(["--property", "parse.key=true", "--property", "parse.headers=true"]);
    }
    let output = peers::kafka_tool("kafka-console-producer", &args, &lines).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn consume(client: Client, bootstrap: &str, count: usize) -> Vec<Record> {
    let count_word = count.to_string();
    let lines = match client {
        KafkaPython => run(script(&["consume", "kafka-python", bootstrap, "all", &count_word]), ""),
        ConfluentKafka => {
            run(script(&["consume", "confluent-kafka", bootstrap, "all", &count_word]), "")
        }
        Kcat => {
            let mut command = Command::new("kcat");
            command.args(["-C", "-b", bootstrap, "-t", "all", "-p", "0", "-o", "beginning"]);
            command.args(["-c", &count_word, "-J", "-q", "-X", "check.crcs=true"]);
            return run(command, "").lines().map(from_kcat).collect();
        }
        Java => {
            let mut args = vec!["--bootstrap-server", bootstrap, "--topic", "all"];
            args.extend(["--from-beginning", "--timeout-ms", "60000"]);
            args.extend(["--max-messages", &count_word]);
            args.extend(["--property", "print.headers=true", "--property", "print.key=true"]);
            let output = peers::kafka_tool("kafka-console-consumer", &args, "").unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{errors}");
            return String::from_utf8(output.stdout).unwrap().lines().map(from_java).collect();
        }
    };
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// kcat's JSON; headers are names and values in turn.
fn from_kcat(line: &str) -> Record {
    let found: serde_json::Value = serde_json::from_str(line).unwrap();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let headers: Vec<String> =
        found["headers"].as_array().into_iter().flatten().filter_map(text).collect();
    let headers = headers.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    (text(&found["key"]), text(&found["payload"]).unwrap(), headers)
}

/// `name:value,name:value`, key and value with tabs between.
fn from_java(line: &str) -> Record {
    let fields: Vec<&str> = line.split('\t').collect();
    let [headers, key, value] = fields[..] else { panic!("{line}") };
    let headers = match headers {
        "NO_HEADERS" => Vec::new(),
        headers => headers
            .split(',')
            .map(|header| header.split_once(':').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    };
    ((key != "null").then(|| key.to_owned()), value.to_owned(), headers)
}

async fn start_broker(dir: &Path, zookeeper: &str) -> elkfk_broker::Running {
    let data = dir.join("broker").display().to_string();
    let config = elkfk_broker::Config::from_pairs([
        ("broker.id", "7"),
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("log.dirs", data.as_str()),
        ("zookeeper.connect", zookeeper),
        ("group.initial.rebalance.delay.ms", "0"),
        ("offsets.topic.num.partitions", "4"),
    ]);
    elkfk_broker::start(config.unwrap()).await.unwrap()
}

async fn start_coordinator(dir: &Path) -> elkfk_coordinator::Running {
    let mut config = elkfk_coordinator::Config::embedded(dir.join("coordinator"));
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    elkfk_coordinator::start(config).await.unwrap()
}

async fn create(bootstrap: &str, topic: &str, partitions: i32) {
    let admin: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for result in admin.create_topics([&topic], &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
}

/// Every client produces under every codec; every client must then read the same.
fn exchange(bootstrap: &str) {
    let mut expected = Vec::new();
    for client in [Kcat, KafkaPython, ConfluentKafka, Java] {
        for codec in CODECS {
            let records = sample(client, codec);
            produce(client, bootstrap, codec, &records);
            expected.extend(records);
        }
    }
    for client in [Kcat, KafkaPython, ConfluentKafka, Java] {
        let found = consume(client, bootstrap, expected.len());
        let wrong = expected.iter().zip(&found).position(|(one, other)| one != other);
        let wrong = wrong.map(|at| (&expected[at], &found[at]));
        assert_eq!((found.len(), wrong), (expected.len(), None), "read by {client:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_reads_what_every_client_wrote_on_our_coordinator() {
    let name = "every_client_reads_what_every_client_wrote_on_our_coordinator";
    if !have_clients(name, &[Peer::Kafka]) {
        return;
    }
    let dir = TestDir::new();
    let coordinator = start_coordinator(&dir.path()).await;
    let broker = start_broker(&dir.path(), &coordinator.local_addr().to_string()).await;
    let bootstrap = broker.local_addr().to_string();
    create(&bootstrap, "all", 1).await;
    tokio::task::spawn_blocking(move || exchange(&bootstrap)).await.unwrap();
    broker.stop().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_reads_what_every_client_wrote_on_a_real_zookeeper() {
    let name = "every_client_reads_what_every_client_wrote_on_a_real_zookeeper";
    if !have_clients(name, &[Peer::Kafka, Peer::ZooKeeper]) {
        return;
    }
    let dir = TestDir::new();
    let zookeeper = peers::zookeeper(&dir.path().join("zookeeper"), "").unwrap();
    let broker = start_broker(&dir.path(), &zookeeper.addr.to_string()).await;
    let bootstrap = broker.local_addr().to_string();
    create(&bootstrap, "all", 1).await;
    tokio::task::spawn_blocking(move || exchange(&bootstrap)).await.unwrap();
    broker.stop().await;
}

const PARTITIONS: i32 = 6;

/// A member of a group in a process of its own; it prints `PARTITION VALUE` for each record.
fn start_member(
    dir: &Path,
    client: Client,
    number: usize,
    bootstrap: &str,
    group: &str,
    strategy: &str,
) -> Process {
    let mut command = match client {
        Kcat => {
            let mut command = Command::new("kcat");
            command.args(["-b", bootstrap, "-u", "-q", "-f", "%p %s\n"]);
            command.args(["-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000"]);
            command.args(["-X", &format!("partition.assignment.strategy={strategy}")]);
            command.args(["-X", "heartbeat.interval.ms=500", "-G", group, group]);
            command
        }
        KafkaPython => script(&["member", "kafka-python", bootstrap, group, group, strategy]),
        ConfluentKafka => script(&["member", "confluent-kafka", bootstrap, group, group, strategy]),
        Java => unreachable!("its start takes longer than a session"),
    };
    let log = dir.join(format!("{group}-{number}-{client:?}.log"));
    Process::start("member", &mut command, &log).unwrap()
}

/// What a member has printed: values by partition.
fn seen(member: &Process) -> BTreeMap<i32, BTreeSet<u32>> {
    let mut seen: BTreeMap<i32, BTreeSet<u32>> = BTreeMap::new();
    for line in member.output().lines() {
        let Some((partition, value)) = line.split_once(' ') else { continue };
        // Other lines are what the clients complain about.
        if let (Ok(partition), Ok(value)) = (partition.parse(), value.parse()) {
            seen.entry(partition).or_default().insert(value);
        }
    }
    seen
}

fn values(seen: &BTreeMap<i32, BTreeSet<u32>>) -> BTreeSet<u32> {
    seen.values().flatten().copied().collect()
}

/// Three members; one is killed as by a power cut, and the others take its partitions over.
async fn kill_one_of_three(bootstrap: &str, dir: &Path, strategy: &str, members: [Client; 3]) {
    // Topic and group are of one name.
    let group = format!("group-{strategy}");
    create(bootstrap, &group, PARTITIONS).await;
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let mut next = 0u32;
    // One record for each partition.
    let produce_round = async |next: &mut u32| {
        for partition in 0..PARTITIONS {
            let value = next.to_string();
            let record = FutureRecord::<(), _>::to(&group).partition(partition).payload(&value);
            producer.send(record, LONG).await.map_err(|(error, _)| error).unwrap();
            *next += 1;
        }
    };
    let mut members: Vec<Process> = members
        .iter()
        .enumerate()
        .map(|(number, client)| start_member(dir, *client, number, bootstrap, &group, strategy))
        .collect();
    // Until each has got something of one round: then all three are in, with partitions of their own.
    let deadline = Instant::now() + LONG;
    loop {
        let from = next;
        produce_round(&mut next).await;
        let shares = || -> Vec<usize> {
            let shares = members.iter().map(|member| values(&seen(member)).range(from..).count());
            shares.collect()
        };
        let patience = Instant::now() + Duration::from_secs(2);
        while shares().iter().sum::<usize>() < PARTITIONS as usize && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let shares = shares();
        if shares.iter().all(|share| *share > 0) {
            break;
        }
        assert!(Instant::now() < deadline, "{strategy}: shares stay {shares:?}");
    }
    // It says no goodbye: only the end of its session tells.
    members[0].kill();
    let killed = Instant::now();
    let from = next;
    for _ in 0..20 {
        produce_round(&mut next).await;
    }
    let wanted: BTreeSet<u32> = (from..next).collect();
    let survivors = || -> BTreeSet<u32> {
        members[1..].iter().flat_map(|member| values(&seen(member))).collect()
    };
    while !survivors().is_superset(&wanted) {
        let taken = wanted.intersection(&survivors()).count();
        assert!(killed.elapsed() < LONG, "{strategy}: {taken} of {} taken over", wanted.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all: BTreeSet<u32> = members.iter().flat_map(|member| values(&seen(member))).collect();
    let lost: Vec<u32> = (0..next).filter(|number| !all.contains(number)).collect();
    assert_eq!(lost, Vec::<u32>::new(), "{strategy}: lost");
    let owners: Vec<BTreeSet<i32>> = members[1..]
        .iter()
        .map(|member| {
            let late = next - PARTITIONS as u32;
            let seen = seen(member);
            let of_late = seen.iter().filter(|(_, values)| values.range(late..).next().is_some());
            of_late.map(|(partition, _)| *partition).collect()
        })
        .collect();
    let owned: BTreeSet<i32> = owners.iter().flatten().copied().collect();
    assert_eq!(owned, (0..PARTITIONS).collect(), "{strategy}: every partition has a reader");
    assert!(owners.iter().all(|owned| !owned.is_empty()), "{strategy}: shared: {owners:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_three_processes_loses_nothing_when_one_is_killed() {
    let name = "a_group_of_three_processes_loses_nothing_when_one_is_killed";
    if !have_clients(name, &[]) {
        return;
    }
    let dir = TestDir::new();
    let coordinator = start_coordinator(&dir.path()).await;
    let broker = start_broker(&dir.path(), &coordinator.local_addr().to_string()).await;
    let bootstrap = broker.local_addr().to_string();
    // A group of strangers, who have one strategy in common; and one that rebalances by increments.
    let (place, mixed) = (dir.path(), [KafkaPython, ConfluentKafka, Kcat]);
    tokio::join!(
        kill_one_of_three(&bootstrap, &place, "range", mixed),
        kill_one_of_three(&bootstrap, &place, "cooperative-sticky", [ConfluentKafka; 3]),
    );
    broker.stop().await;
    coordinator.stop().await;
}
