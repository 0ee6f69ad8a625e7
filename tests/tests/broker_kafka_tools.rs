//! Kafka's own command line tools against our broker on a real ZooKeeper: they print what they
//! printed against a real Kafka, as recorded in the peers' golden files.

use std::fmt::Write;
use std::net::SocketAddr;

use elkfk_tests::line::TestDir;
use elkfk_tests::peers::{self, Peer};

/// Steps of the recording that one broker can repeat, in its order. Three brokers were recorded:
/// replication factors become 1. Topic ids and broker numbers are masked in the recording, and here.
const STEPS: &[&str] = &[
    "001-list-none",
    "002-create",
    "003-list",
    "004-describe",
    "005-create-exists",
    "006-create-exists-if-not-exists",
    "007-alter-partitions",
    "008-describe-6",
    "009-alter-shrink",
    "010-alter-same",
    "011-alter-unknown",
    "012-alter-unknown-if-exists",
    "013-describe-unknown",
    "014-delete-unknown",
    "015-create-replicas-too-many",
    "017-create-bad-name",
    "019-create-dotted-name",
    "020-create-colliding-name",
    "021-create-unknown-config",
    "023-create-configs",
    "030-topic-describe",
    "032-topic-alter-add",
    "033-topic-alter-delete",
    "034-topic-describe-changed",
    "035-topic-alter-unknown-config",
    "067-describe-unknown",
    "068-delete-unknown",
];

/// After three lines were produced and consumed.
const LAST_STEPS: &[&str] = &["100-delete", "101-list-after-delete"];

/// Topics of the recording that other steps of it have made.
const NOT_MADE_HERE: [&str; 5] =
    ["__transaction_state\n", "assigned\n", "assigned2\n", "auto1\n", "auto2\n"];

/// A recorded step: the command's words, what went to standard output, the exit status.
struct Golden {
    command: Vec<String>,
    stdout: String,
    exit: i32,
}

fn golden(step: &str) -> Golden {
    let path = peers::scripts().join("kafka/golden").join(format!("{step}.txt"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = text.replace("--replication-factor 2", "--replication-factor 1");
    let text = text.replace("--replication-factor 3", "--replication-factor 1");
    let text = text.replace("available brokers: 3", "available brokers: 1");
    let text = text.replace("ReplicationFactor: 2", "ReplicationFactor: 1");
    let (command, rest) = text.split_once("\n--- stdout\n").unwrap();
    let (stdout, rest) = rest.split_once("--- stderr\n").unwrap();
    let exit = rest.rsplit_once("--- exit ").unwrap().1.trim().parse().unwrap();
    let command = match step {
        // The recording does not show its quotes.
        "017-create-bad-name" => {
            let words = [
                "kafka-topics",
                "--bootstrap-server",
                "$BOOTSTRAP",
                "--create",
                "--topic",
                "bad name!",
            ];
            words
                .map(str::to_owned)
                .into_iter()
                .chain(["--partitions".into(), "1".into()])
                .collect()
        }
        _ => command.trim_start_matches("$ ").split_whitespace().map(str::to_owned).collect(),
    };
    let mut stdout = stdout.to_owned();
    if step == "101-list-after-delete" {
        for topic in NOT_MADE_HERE {
            stdout = stdout.replacen(topic, "", 1);
        }
    }
    Golden { command, stdout, exit }
}

/// As the recording was masked: topic ids, broker numbers, blanks at the end of lines.
fn masked(stdout: &str) -> String {
    let mask = |field: &str| match field.split_once(": ") {
        Some(("TopicId", _)) => "TopicId: <topic-id>".to_owned(),
        Some((name @ ("Leader" | "Replicas" | "Isr"), number)) => {
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            format!("{name}: {}", if is_number { "<n>" } else { number })
        }
        _ => field.to_owned(),
    };
    let lines = stdout.split('\n').map(|line| {
        let fields: Vec<String> = line.split('\t').map(mask).collect();
        fields.join("\t").trim_end_matches(' ').to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn kafkas_tools_print_what_they_print_against_kafka() {
    if !peers::have(
        "kafkas_tools_print_what_they_print_against_kafka",
        &[Peer::Kafka, Peer::ZooKeeper],
    ) {
        return;
    }
    let dir = TestDir::new();
    let zookeeper = peers::zookeeper(&dir.path().join("zookeeper"), "").unwrap();
    let data = dir.path().join("data").display().to_string();
    // A chroot that nobody made yet, as in many installations.
    let connect = format!("{}/kafka/test", zookeeper.addr);
    let config = elkfk_broker::Config::from_pairs([
        ("broker.id", "1"),
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("log.dirs", &data),
        ("zookeeper.connect", &connect),
        ("group.initial.rebalance.delay.ms", "0"),
        ("offsets.topic.num.partitions", "3"),
    ]);
    let broker = elkfk_broker::start(config.unwrap()).await.unwrap();
    let addr = broker.local_addr();
    let wrong = tokio::task::spawn_blocking(move || run(addr)).await.unwrap();
    assert_eq!(wrong, "");
    broker.stop().await;
}

/// What differs from the recording.
fn run(addr: SocketAddr) -> String {
    let mut wrong = String::new();
    repeat(STEPS, addr, &mut wrong);
    produce_and_consume(addr, &mut wrong);
    repeat(LAST_STEPS, addr, &mut wrong);
    wrong
}

fn repeat(steps: &[&str], addr: SocketAddr, wrong: &mut String) {
    for step in steps {
        let Golden { command, stdout, exit } = golden(step);
        let words: Vec<String> =
            command.iter().map(|word| word.replace("$BOOTSTRAP", &addr.to_string())).collect();
        let args: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let output = peers::kafka_tool(&words[0], &args, "").unwrap();
        let printed = masked(&String::from_utf8_lossy(&output.stdout));
        if printed != masked(&stdout) || output.status.code() != Some(exit) {
            let errors = String::from_utf8_lossy(&output.stderr);
            write!(
                wrong,
                "{step}: exit {:?} for {exit}\n{printed}instead of\n{stdout}{errors}",
                output.status.code()
            )
            .unwrap();
        }
    }
}

/// Three lines in, three lines out.
fn produce_and_consume(addr: SocketAddr, wrong: &mut String) {
    let bootstrap = addr.to_string();
    let produce = ["--bootstrap-server", &bootstrap, "--topic", "test1"];
    let output =
        peers::kafka_tool("kafka-console-producer", &produce, "one\ntwo\nthree\n").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let consume = ["--bootstrap-server", &bootstrap, "--topic", "test1", "--group", "g1"];
    let consume = [&consume[..], &["--from-beginning", "--max-messages", "3"]].concat();
    let output = peers::kafka_tool("kafka-console-consumer", &consume, "").unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<&str> = printed.lines().collect();
    lines.sort_unstable();
    if lines != ["one", "three", "two"] {
        write!(wrong, "consumed {lines:?}").unwrap();
    }
    let describe = ["--bootstrap-server", &bootstrap, "--describe", "--group", "g1"];
    let output = peers::kafka_tool("kafka-consumer-groups", &describe, "").unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let committed: i64 = printed
        .lines()
        .filter(|line| line.starts_with("g1"))
        .filter_map(|line| line.split_whitespace().nth(3)?.parse::<i64>().ok())
        .sum();
    if committed != 3 {
        write!(wrong, "committed {committed} of 3:\n{printed}").unwrap();
    }
}
