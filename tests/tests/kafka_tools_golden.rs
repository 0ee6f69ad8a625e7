//! Our `kafka-*.sh` against the real ones: through the recorded scenario on a real cluster, and
//! side by side where the recording does not reach.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use elkfk_tests::KAFKA_TOOLS;
use elkfk_tests::peers::{self, Peer};
use elkfk_tests::process;

/// Steps of tools of ours that we refuse: quotas and SCRAM users come with a later issue.
const REFUSED: [&str; 6] = [
    "quota-alter",
    "quota-describe",
    "quota-delete",
    "scram-alter",
    "scram-describe",
    "scram-delete",
];

/// The first of a hundred ports of which those that a cluster of one ZooKeeper and three brokers
/// takes are free. Below the range from which systems hand out ports.
fn base_port() -> u16 {
    let start = u16::try_from(std::process::id() % 100).unwrap_or(0);
    let bases = (0..100).map(|i| 12_000 + (start + i) % 100 * 100);
    let is_free = |base: &u16| {
        [1, 91, 92, 93].iter().all(|n| TcpListener::bind(("127.0.0.1", base + n)).is_ok())
    };
    bases.into_iter().find(is_free).expect("a hundred free ports")
}

/// One cluster at a time: with two, the servers of both and each real tool's JVM share the cores, and a
/// tool's own time limits decide what is compared.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tool, answer: what a step's file is compared by.
fn comparable(text: &str) -> String {
    // The order of an ISR is not fixed after a reassignment.
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        lines.push(match line.split_once("\tIsr: ") {
            Some((rest, isr)) => {
                let mut isr: Vec<&str> = isr.split(',').collect();
                isr.sort_unstable();
                format!("{rest}\tIsr: {}", isr.join(","))
            }
            None => line.to_owned(),
        });
    }
    lines.join("\n")
}

#[test]
fn tools_answer_as_recorded_from_kafka() {
    let _alone = alone();
    let test = "tools_answer_as_recorded_from_kafka";
    if !peers::have(test, &[Peer::ZooKeeper, Peer::Kafka]) {
        return;
    }
    let scripts = peers::scripts().join("kafka");
    let dir = tempfile::tempdir().unwrap();
    // The recorder calls the tool beside it: ours, and the real ones for what we do not have and
    // whose effects later steps show.
    fs::copy(scripts.join("record-golden"), dir.path().join("record-golden")).unwrap();
    let switch = format!(
        "#!/bin/sh\ncase $1 in\n{}) exec {} \"$@\";;\nkafka-reassign-partitions|kafka-transactions) exec {} \"$@\";;\nesac\n",
        KAFKA_TOOLS.join("|"),
        process::elkfk().display(),
        scripts.join("kafka-tool").display(),
    );
    fs::write(dir.path().join("kafka-tool"), switch).unwrap();
    for name in ["kafka-tool", "record-golden"] {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let out = dir.path().join("out");
    let recorded = Command::new(scripts.join("with-cluster"))
        .arg(dir.path().join("cluster"))
        .args(["1", "3"])
        .arg(dir.path().join("record-golden"))
        .arg(&out)
        .env("BASE_PORT", base_port().to_string())
        .env("KAFKA_HEAP_OPTS", "-Xms128m -Xmx384m")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(recorded.status.success(), "{}", String::from_utf8_lossy(&recorded.stderr));
    compare(&scripts.join("golden"), &out);
}

fn compare(golden: &Path, out: &Path) {
    let mut compared = 0;
    let mut wrong = BTreeMap::new();
    for entry in fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let expected = fs::read_to_string(&path).unwrap();
        let tool = expected.strip_prefix("$ ").and_then(|rest| rest.split(' ').next());
        let is_ours = tool.is_some_and(|tool| KAFKA_TOOLS.contains(&tool));
        if !is_ours || REFUSED.iter().any(|refused| name.ends_with(&format!("-{refused}.txt"))) {
            continue;
        }
        compared += 1;
        let got = fs::read_to_string(out.join(&name)).unwrap_or_default();
        if comparable(&got) != comparable(&expected) {
            wrong.insert(name, format!("--- Kafka's:\n{expected}--- ours:\n{got}"));
        }
    }
    assert!(compared >= 75, "only {compared} steps compared");
    let texts: Vec<String> = wrong.iter().map(|(name, text)| format!("{name}\n{text}")).collect();
    assert!(wrong.is_empty(), "{} of {compared} steps differ:\n{}", wrong.len(), texts.join("\n"));
}

fn ours(args: &[&str], stdin: &str) -> Output {
    use std::io::Write;
    let mut child = Command::new(process::elkfk())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

/// Runs both tools; their output and exit codes must be equal, and the first line of what they say
/// on standard error (usage texts and stack frames follow).
fn check(args: &[&str]) {
    let ours = ours(args, "");
    let theirs = peers::kafka_tool(args[0], &args[1..], "").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // Without the time before a line of log.
    let first = |bytes: &[u8]| {
        let line = text(bytes).lines().next().unwrap_or_default().to_owned();
        match line.split_once("] ") {
            Some((time, rest)) if time.starts_with("[20") => rest.to_owned(),
            _ => line,
        }
    };
    let line = args.join(" ");
    assert_eq!(text(&ours.stdout), text(&theirs.stdout), "stdout of {line}");
    assert_eq!(first(&ours.stderr), first(&theirs.stderr), "stderr of {line}");
    assert_eq!(ours.status.code(), theirs.status.code(), "exit code of {line}");
}

#[test]
fn tools_answer_as_kafkas_do_side_by_side() {
    let _alone = alone();
    let test = "tools_answer_as_kafkas_do_side_by_side";
    if !peers::have(test, &[Peer::ZooKeeper, Peer::Kafka]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let zookeeper = peers::zookeeper(&dir.path().join("zk"), "").unwrap();
    let kafka = peers::kafka(&dir.path().join("kafka"), &zookeeper.addr.to_string(), &[]).unwrap();
    let bootstrap = kafka.addr.to_string();
    let at = ["--bootstrap-server", bootstrap.as_str()];

    // What old tutorials type, and mistakes on the command line.
    check(&["kafka-topics", "--zookeeper", "localhost:2181", "--list"]);
    check(&["kafka-topics", "--list"]);
    check(&["kafka-topics", at[0], at[1], "--create"]);
    check(&["kafka-topics", at[0], at[1], "--list", "--describe"]);
    check(&["kafka-topics", at[0], at[1], "--create", "--topic", "t", "--partitions", "many"]);
    check(&["kafka-console-consumer", "--zookeeper", "localhost:2181", "--topic", "t"]);
    check(&["kafka-console-producer", "--topic", "t"]);
    check(&["kafka-consumer-groups", "--list"]);
    check(&["kafka-consumer-groups", at[0], at[1], "--describe"]);

    // More topics, partitions and groups than the recording has: their order is that of hash maps.
    for (topic, partitions) in [("orders", "7"), ("clicks", "12"), ("a", "1"), ("payments_eu", "5")]
    {
        let created = ours(
            &[
                "kafka-topics.sh",
                at[0],
                at[1],
                "--create",
                "--topic",
                topic,
                "--partitions",
                partitions,
            ],
            "",
        );
        assert!(created.status.success(), "{created:?}");
    }
    let lines: String = (0..500).map(|n| format!("{n}:value {n}\n")).collect();
    for topic in ["orders", "clicks"] {
        let args = [
            "kafka-console-producer.sh",
            at[0],
            at[1],
            "--topic",
            topic,
            "--property",
            "parse.key=true",
            "--property",
            "key.separator=:",
        ];
        assert!(ours(&args, &lines).status.success());
    }
    for group in ["g1", "readers", "sink", "billing", "x", "other-group"] {
        let mut args =
            vec!["kafka-consumer-groups.sh", at[0], at[1], "--reset-offsets", "--group", group];
        args.extend(["--topic", "orders", "--topic", "clicks", "--to-latest", "--execute"]);
        assert!(ours(&args, "").status.success());
    }
    let groups = ["kafka-consumer-groups", at[0], at[1]];
    check(&["kafka-topics", at[0], at[1], "--describe", "--exclude-internal"]);
    check(&[
        "kafka-topics",
        at[0],
        at[1],
        "--describe",
        "--topic",
        "or.*|a",
        "--at-min-isr-partitions",
    ]);
    check(&["kafka-get-offsets", at[0], at[1], "--topic-partitions", "orders:2-5,clicks:1,a"]);
    check(&[&groups[..], &["--list"]].concat());
    check(&[&groups[..], &["--describe", "--group", "g1", "--group", "sink"]].concat());
    check(
        &[
            &groups[..],
            &["--reset-offsets", "--group", "g1", "--all-topics", "--shift-by", "-3", "--dry-run"],
        ]
        .concat(),
    );
    check(
        &[
            &groups[..],
            &[
                "--reset-offsets",
                "--group",
                "g1",
                "--topic",
                "clicks:0,3,9",
                "--to-offset",
                "2",
                "--export",
                "--dry-run",
            ],
        ]
        .concat(),
    );
}
