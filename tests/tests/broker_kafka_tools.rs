//! Kafka's own command line tools against our broker on a real ZooKeeper: they print what they
//! printed against a real Kafka, as recorded in the peers' golden files.

use std::fmt::Write;
use std::net::SocketAddr;

use elkfk_tests::line::TestDir;
use elkfk_tests::peers::{self, Peer};

/// Steps of the recording that one broker can repeat, in its order. Three brokers were recorded:
/// replication factors become 1.
const STEPS: &[&str] = &[
    "001-list-none",
    "002-create",
    "003-list",
    "005-create-exists",
    "009-alter-shrink",
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
    // The step between, which adds partitions, is not repeated here.
    let text = text.replace("currently has 6 partitions", "currently has 3 partitions");
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
    Golden { command, stdout: stdout.to_owned(), exit }
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
    for step in STEPS {
        let Golden { command, stdout, exit } = golden(step);
        let words: Vec<String> =
            command.iter().map(|word| word.replace("$BOOTSTRAP", &addr.to_string())).collect();
        let args: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let output = peers::kafka_tool(&words[0], &args, "").unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        if printed != stdout || output.status.code() != Some(exit) {
            let errors = String::from_utf8_lossy(&output.stderr);
            write!(
                wrong,
                "{step}: exit {:?} for {exit}\n{printed}instead of\n{stdout}{errors}",
                output.status.code()
            )
            .unwrap();
        }
    }
    // Three lines in, three lines out.
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
    wrong
}
