//! The tutorial: what every newcomer to Kafka types, through our tools and through the real ones,
//! against our broker and the real one. All four print the same.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use elkfk_tests::line::TestDir;
use elkfk_tests::peers::{self, Peer};
use elkfk_tests::process::elkfk;

/// Whose tools are typed.
#[derive(Debug, Clone, Copy)]
enum Tools {
    Ours,
    Real,
}

impl Tools {
    fn run(self, name: &str, args: &[&str], input: &str) -> Output {
        match self {
            Self::Real => peers::kafka_tool(name, args, input).unwrap(),
            Self::Ours => {
                let mut command = Command::new(elkfk());
                command.arg(format!("{name}.sh")).args(args);
                with_input(command, input)
            }
        }
    }
}

fn with_input(mut command: Command, input: &str) -> Output {
    use std::io::Write;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A tool that has already ended leaves a closed pipe; its answer says why.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// What a command printed, with the topic's random id masked, and its exit status.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let masked: Vec<String> = text
        .split('\t')
        .map(|field| match field.strip_prefix("TopicId: ") {
            Some(_) => "TopicId: <id>".to_owned(),
            None => field.to_owned(),
        })
        .collect();
    format!("{}exit {:?}\n", masked.join("\t"), output.status.code())
}

/// Types the tutorial, with three mistakes that newcomers make. Returns what was seen.
fn type_it(tools: Tools, bootstrap: &str) -> String {
    let mut seen = String::new();
    let mut topics = |args: &[&str]| {
        let output =
            tools.run("kafka-topics", &[&["--bootstrap-server", bootstrap], args].concat(), "");
        let said = said(&output);
        seen += &format!("$ kafka-topics {}\n{said}", args.join(" "));
        said
    };
    let create = ["--create", "--topic", "test1", "--partitions", "3", "--replication-factor", "1"];
    topics(&create);
    topics(&create);
    topics(&["--list"]);
    let produce = ["--bootstrap-server", bootstrap, "--topic", "test1"];
    let output = tools.run("kafka-console-producer", &produce, "one\ntwo\nthree\n");
    let produced = said(&output);
    let consume = [&produce[..], &["--from-beginning", "--max-messages", "3"]].concat();
    let output = tools.run("kafka-console-consumer", &consume, "");
    // Which partition a line went to is chance, and between partitions there is no order.
    let consumed = said(&output);
    let mut lines: Vec<&str> = consumed.lines().collect();
    lines.sort_unstable();
    let consumed = lines.join("\n");
    topics(&["--describe", "--topic", "test1"]);
    topics(&["--alter", "--topic", "test1", "--partitions", "6"]);
    topics(&["--alter", "--topic", "test1", "--partitions", "3"]);
    topics(&["--describe", "--topic", "test1"]);
    topics(&["--describe", "--topic", "test2"]);
    topics(&["--delete", "--topic", "test1"]);
    let list = ["--bootstrap-server", bootstrap, "--list"];
    // A deletion is answered when it has begun.
    let deadline = Instant::now() + Duration::from_secs(60);
    let listed = loop {
        let listed = said(&tools.run("kafka-topics", &list, ""));
        if !listed.contains("test1") {
            break listed;
        }
        assert!(Instant::now() < deadline, "test1 is still listed: {listed}");
    };
    format!("{seen}$ produce\n{produced}$ consume\n{consumed}\n$ list\n{listed}")
}

/// The tool by its link, as in Kafka's `bin/`.
fn list_by_link(dir: &Path, bootstrap: &str) -> String {
    let link = dir.join("kafka-topics.sh");
    std::os::unix::fs::symlink(elkfk(), &link).unwrap();
    let mut command = Command::new(&link);
    command.args(["--bootstrap-server", bootstrap, "--list"]);
    said(&with_input(command, ""))
}

async fn start_ours(dir: &Path) -> (elkfk_coordinator::Running, elkfk_broker::Running) {
    let mut config = elkfk_coordinator::Config::embedded(dir.join("coordinator"));
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let coordinator = elkfk_coordinator::start(config).await.unwrap();
    let (data, zookeeper) =
        (dir.join("broker").display().to_string(), coordinator.local_addr().to_string());
    let config = elkfk_broker::Config::from_pairs([
        ("broker.id", "0"),
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("log.dirs", data.as_str()),
        ("zookeeper.connect", zookeeper.as_str()),
        ("group.initial.rebalance.delay.ms", "0"),
        ("offsets.topic.num.partitions", "3"),
    ]);
    (coordinator, elkfk_broker::start(config.unwrap()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorial_prints_the_same_whosoever_tools_and_broker() {
    let name = "the_tutorial_prints_the_same_whosoever_tools_and_broker";
    if !peers::have(name, &[Peer::Kafka, Peer::ZooKeeper]) {
        return;
    }
    let dir = TestDir::new();
    let zookeeper = peers::zookeeper(&dir.path().join("zookeeper"), "").unwrap();
    let place = dir.path().join("kafka");
    let overrides = ["offsets.topic.num.partitions=3"];
    let kafka = peers::kafka(&place, &zookeeper.addr.to_string(), &overrides).unwrap();
    let (coordinator, broker) = start_ours(&dir.path()).await;
    let (real, ours) = (kafka.addr.to_string(), broker.local_addr().to_string());
    let place = dir.path();
    tokio::task::spawn_blocking(move || {
        // The first question about a group creates the topic of offsets: all lists should have it.
        for bootstrap in [&real, &ours] {
            let ask = ["--bootstrap-server", bootstrap, "--describe", "--group", "nobody"];
            peers::kafka_tool("kafka-consumer-groups", &ask, "").unwrap();
        }
        let expected = type_it(Tools::Real, &real);
        let count = |status: &str| expected.matches(status).count();
        assert_eq!((count("exit Some(0)"), count("exit Some(1)")), (9, 3), "{expected}");
        assert!(expected.contains("\none\nthree\ntwo\n"), "{expected}");
        for (whose, tools, bootstrap) in [
            ("our tools on the real broker", Tools::Ours, &real),
            ("real tools on our broker", Tools::Real, &ours),
            ("our tools on our broker", Tools::Ours, &ours),
        ] {
            let found = type_it(tools, bootstrap);
            assert_eq!(found, expected, "{whose}:\n{found}\ninstead of\n{expected}");
        }
        let args = ["--bootstrap-server", ours.as_str(), "--list"];
        let by_name = said(&Tools::Ours.run("kafka-topics", &args, ""));
        assert_eq!(list_by_link(&place, &ours), by_name);
    })
    .await
    .unwrap();
    broker.stop().await;
    coordinator.stop().await;
}
