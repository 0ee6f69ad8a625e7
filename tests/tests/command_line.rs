//! The command line: `init`, `check`, `up --config` and its flags, exit codes, help, closed pipes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use elkfk_tests::line::{Index, TestDir, Up};
use elkfk_tests::process::elkfk;
use elkfk_tests::{free_port, workspace};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

fn run(args: &[&str]) -> Output {
    Command::new(elkfk()).args(args).stdin(Stdio::null()).output().unwrap()
}

/// The exit code, and what is said on both streams.
fn said(args: &[&str]) -> (Option<i32>, String) {
    let output = run(args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

/// A configuration of `init` that follows one file of its own.
fn initialised(dir: &TestDir) -> (PathBuf, PathBuf) {
    let (config, log) = (dir.path().join("conf"), dir.path().join("app.log"));
    let (code, text) = said(&["init", config.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
    fs::write(&log, "first line\n").unwrap();
    edit(&config.join("filebeat.yml"), "/var/log/**", log.to_str().unwrap());
    (config, log)
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{} has no {from}", file.display());
    fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn what_init_writes_is_right_and_runs_with_its_data_beside_it() {
    let dir = TestDir::new();
    let (config, _) = initialised(&dir);
    let at = config.to_str().unwrap();
    let (code, text) = said(&["check", at]);
    assert_eq!(code, Some(0), "{text}");
    for file in ["zoo.cfg", "server.properties", "filebeat.yml", "pipelines/default/pipeline.conf"]
    {
        assert!(text.contains(&format!("{at}/{file}: right")), "{file}: {text}");
    }
    assert!(text.contains("pipelines/default/sample.log: as expected"), "{text}");

    // Other ports than 2181 and so on: flags over files. Nothing may land in the user's own data.
    let elsewhere = dir.path().join("xdg");
    let env = [("XDG_DATA_HOME", elsewhere.to_str().unwrap())];
    let mut up = Up::start_with(&dir.path(), &["--config", at], &env).unwrap();
    up.index().wait_for(1, PATIENCE).unwrap();
    // The ports of the test are in force, in place of those that the files name.
    let ports = fs::read_to_string(dir.path().join("ports")).unwrap();
    let ports: Vec<&str> = ports.split(' ').collect();
    assert_eq!(up.coordinator, format!("127.0.0.1:{}", ports[0]));
    assert_eq!(up.bootstrap, format!("127.0.0.1:{}", ports[1]));
    assert!(up.process.stop(Duration::from_secs(10)).unwrap().success());
    assert!(!elsewhere.exists(), "data was kept elsewhere");
    for kept in ["coordinator", "broker", "shipper", "store", "sink/instance"] {
        assert!(config.join("data").join(kept).exists(), "{kept}");
    }
    // Again, and what was indexed is there.
    let up = Up::start_with(&dir.path(), &["--config", at], &env).unwrap();
    up.index().wait_for(1, PATIENCE).unwrap();
}

#[test]
fn flags_win_over_files() {
    let dir = TestDir::new();
    let (config, _) = initialised(&dir);
    let other = dir.path().join("other.log");
    fs::write(&other, "line of the other file\n").unwrap();
    edit(&config.join("filebeat.yml"), "\"logs\"", "\"of-the-file\"");
    let (at, watch) = (config.to_str().unwrap(), other.to_str().unwrap());
    let args = ["--config", at, "--topic", "of-the-flag", "--watch", watch, "--demo"];
    let up = Up::start_with(&dir.path(), &args, &[]).unwrap();
    // The demo's lines are beside it, and may come before.
    up.index().wait_for_more(20, PATIENCE).unwrap();
    let begun = Instant::now();
    let mut lines = up.index().lines().unwrap();
    while !lines.contains_key("line of the other file") {
        assert!(begun.elapsed() < PATIENCE, "no line of the other file");
        std::thread::sleep(Duration::from_millis(100));
        lines = up.index().lines().unwrap();
    }
    assert!(!lines.contains_key("first line"));
    let (code, topics) = said(&["kafka-topics.sh", "--bootstrap-server", &up.bootstrap, "--list"]);
    assert_eq!(code, Some(0), "{topics}");
    assert!(topics.contains("of-the-flag") && !topics.contains("of-the-file"), "{topics}");
}

#[test]
fn a_topic_of_the_file_is_created_and_read() {
    let dir = TestDir::new();
    let (config, _) = initialised(&dir);
    edit(&config.join("filebeat.yml"), "\"logs\"", "\"of-the-file\"");
    let args = ["--config", config.to_str().unwrap()];
    let up = Up::start_with(&dir.path(), &args, &[]).unwrap();
    up.index().wait_for(1, PATIENCE).unwrap();
    assert!(up.process.output().contains("topic of-the-file, 3 partitions"));
}

/// `elkfk up --config` of what `init` wrote, with one line changed, is refused in these words.
fn refused(file: &str, from: &str, to: &str, args: &[&str], wanted: &[&str]) {
    let dir = TestDir::new();
    let (config, _) = initialised(&dir);
    edit(&config.join(file), from, to);
    let mut all = vec!["up", "--config", config.to_str().unwrap()];
    all.extend(["--store-port", "0", "--dashboard-port", "0"]);
    all.extend(args);
    let (code, text) = said(&all);
    assert_eq!(code, Some(2), "{text}");
    for wanted in wanted {
        assert!(text.contains(wanted), "{wanted:?} is not in: {text}");
    }
    assert!(!config.join("data/broker").exists(), "something was started");
}

#[test]
fn a_contradiction_between_flags_and_files_is_named() {
    let own = ["--coordinator-port", "0", "--broker-port", "0"];
    refused(
        "server.properties",
        "zookeeper.connect=127.0.0.1:2181",
        "zookeeper.connect=zk1:2181/kafka",
        &own,
        &["server.properties", "zk1:2181 is not the coordinator", "--zookeeper zk1:2181/kafka"],
    );
    refused(
        "filebeat.yml",
        "hosts: [\"127.0.0.1:9092\"]",
        "hosts: [\"kafka1:9092\"]",
        &own,
        &["filebeat.yml", "kafka1:9092 is not the broker", "--bootstrap-server kafka1:9092"],
    );
    refused(
        "server.properties",
        "listeners=PLAINTEXT://127.0.0.1:9092",
        "listeners=PLAINTEXT://127.0.0.1:9092,INSIDE://127.0.0.1:9093\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT",
        &own,
        &["2 listeners", "--broker-port"],
    );
    refused(
        "filebeat.yml",
        "  - type: filestream\n    id: up",
        "  - type: filestream\n    id: one\n    paths: [/nowhere]\n  - type: filestream\n    id: up",
        &["--watch", "/elsewhere"],
        &["filebeat.yml has 2 inputs", "--watch"],
    );
    refused(
        "zoo.cfg",
        "tickTime=2000",
        "tickTime=2000",
        &["--data", "/nonexistent/data"],
        &["--data /nonexistent/data", "dataDir of zoo.cfg", "leave --data out"],
    );
}

#[test]
fn the_port_of_a_file_is_checked_before_anything_starts() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let dir = TestDir::new();
    let (config, _) = initialised(&dir);
    edit(&config.join("server.properties"), "127.0.0.1:9092", &format!("127.0.0.1:{port}"));
    edit(&config.join("filebeat.yml"), "127.0.0.1:9092", &format!("127.0.0.1:{port}"));
    let at = config.to_str().unwrap();
    let mut args = vec!["up", "--config", at, "--coordinator-port", "0"];
    args.extend(["--store-port", "0", "--dashboard-port", "0"]);
    let (code, text) = said(&args);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains(&format!("broker: listen on 127.0.0.1:{port}")), "{text}");
    assert!(text.contains("--broker-port"), "{text}");
}

#[test]
fn check_runs_the_sample_beside_a_pipeline() {
    let dir = TestDir::new();
    let folder = dir.path().join("nginx");
    fs::create_dir(&folder).unwrap();
    for name in ["pipeline.conf", "sample.log", "expected.jsonl"] {
        fs::copy(workspace().join("pipelines/nginx").join(name), folder.join(name)).unwrap();
    }
    let pipeline = folder.join("pipeline.conf");
    for path in [&pipeline, &folder] {
        let (code, text) = said(&["check", path.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("sample.log: as expected"), "{text}");
    }
    edit(&folder.join("expected.jsonl"), "nginx.access", "nginx.excess");
    let (code, text) = said(&["check", pipeline.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("sample.log:1: ") && text.contains("expected: "), "{text}");
    // Nothing is expected: what comes out is shown.
    fs::remove_file(folder.join("expected.jsonl")).unwrap();
    let (code, text) = said(&["check", pipeline.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\"nginx.access\""), "{text}");
}

#[test]
fn the_sink_alone_finds_pipelines_as_up_does() {
    let dir = TestDir::new();
    let (config, _) = initialised(&dir);
    edit(&config.join("pipelines/default/pipeline.conf"), "json {", "jsonn {");
    let pipelines = config.join("pipelines");
    let (code, text) = said(&["sink", "-f", pipelines.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("default/pipeline.conf:") && text.contains("jsonn"), "{text}");
}

#[test]
fn config_prints_what_is_in_force_and_where_it_came_from() {
    let dir = TestDir::new();
    let (config, _) = initialised(&dir);
    let check = |kind: &str, file: &str, wanted: &[(&str, &str, &str)]| {
        let path = config.join(file);
        let (code, text) = said(&["config", kind, path.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{text}");
        for (key, value, origin) in wanted {
            let line = text.lines().find(|line| line.split_whitespace().next() == Some(*key));
            let line = line.unwrap_or_else(|| panic!("no {key} in {text}"));
            assert!(line.contains(value) && line.trim_end().ends_with(origin), "{line}");
        }
    };
    check(
        "broker",
        "server.properties",
        &[
            ("broker.id", "0", "server.properties:4"),
            ("log.segment.bytes", "1073741824", "server.properties:25"),
            ("message.max.bytes", "1048588", "default"),
        ],
    );
    check(
        "coordinator",
        "zoo.cfg",
        &[("tickTime", "2000", "zoo.cfg:4"), ("maxSessionTimeout", "40000", "default")],
    );
    check(
        "shipper",
        "filebeat.yml",
        &[
            ("output.kafka.topic", "logs", "filebeat.yml:18"),
            ("output.kafka.client_id", "", "default"),
        ],
    );
}

#[test]
fn a_slip_of_the_pen_is_answered_with_2() {
    for args in [&["upp"][..], &["up", "--wacth", "x"], &["kafka-topic.sh"], &["check"], &[]] {
        let (code, text) = said(args);
        assert_eq!(code, Some(2), "{args:?}: {text}");
    }
    assert!(said(&["upp"]).1.contains("did you mean \"up\"?"));
    let (code, text) = said(&["coordinator", "stauts"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("stauts") && text.contains("neither a command (status, import)"),
        "{text}"
    );
    let (code, text) = said(&["check", "/nonexistent/zoo.cfg"]);
    assert_eq!(code, Some(2), "{text}");
}

#[test]
fn autoscale_simulate_runs_scenarios_and_recorded_loads() {
    let (code, text) = said(&["autoscale", "simulate", "growth", "--log"]);
    assert_eq!(code, Some(0), "{text}");
    let row = |policy: &str| text.lines().find(|line| line.trim_start().starts_with(policy));
    assert!(row("ladder").is_some_and(|row| row.contains("partitions  32")), "{text}");
    assert!(row("naive").is_some_and(|row| row.contains("partitions  64")), "{text}");
    assert!(text.contains("  partitions "), "no step in the log: {text}");

    let dir = TestDir::new();
    let file = dir.path().join("load.json");
    let trace = r#"{"seconds": 3600, "arrival": [{"at_s": 0, "per_s": 20000}]}"#;
    fs::write(&file, trace).unwrap();
    let at = file.to_str().unwrap();
    let (code, text) = said(&["autoscale", "simulate", at, "--policy", "ladder", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["changes"]), (Some(0), &0.into()), "{text}");

    fs::write(&file, r#"{"partitions": 0}"#).unwrap();
    let (code, text) = said(&["autoscale", "simulate", at]);
    assert!(code == Some(2) && text.contains("partitions = 0"), "{text}");
    let (code, text) = said(&["autoscale", "simulate", "grwth"]);
    assert!(code == Some(2) && text.contains("did you mean \"growth\""), "{text}");
    let (code, text) = said(&["autoscale", "simulate", "--policy", "laddr"]);
    assert!(code == Some(2) && text.contains("did you mean \"ladder\""), "{text}");
}

#[test]
fn help_is_as_reviewed() {
    let golden = workspace().join("tests/testdata/help.txt");
    let mut text = String::new();
    let commands =
        ["", "up", "init", "check", "config", "shipper", "broker", "coordinator", "znode", "sink"];
    for command in
        commands.into_iter().chain(["store", "dashboard", "autoscale", "replay", "healthcheck"])
    {
        let args: Vec<&str> = [command, "--help"].into_iter().filter(|a| !a.is_empty()).collect();
        let output = Command::new(elkfk()).args(&args).env("COLUMNS", "100").output().unwrap();
        assert!(output.status.success(), "{args:?}");
        text += &format!("$ elkfk {}\n", args.join(" "));
        text += &String::from_utf8(output.stdout).unwrap();
        text += "\n";
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        fs::write(&golden, &text).unwrap();
    }
    let wanted = fs::read_to_string(&golden).unwrap();
    for (n, (found, wanted)) in text.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(found, wanted, "line {} of {}", n + 1, golden.display());
    }
    assert_eq!(text.lines().count(), wanted.lines().count(), "{}", golden.display());
}

#[test]
fn a_closed_pipe_ends_nothing_and_breaks_nothing() {
    let dir = TestDir::new();
    let (config, log) = initialised(&dir);
    // A command that is done in a moment: its exit status is that of its work.
    for (args, code) in [
        (vec!["check", config.to_str().unwrap()], 0),
        (vec!["check", "/nonexistent/zoo.cfg"], 2),
        (vec!["healthcheck", "--coordinator", "127.0.0.1:1"], 1),
        (vec!["init", config.to_str().unwrap()], 0),
    ] {
        let mut child = Command::new(elkfk())
            .args(&args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(code), "{args:?}");
    }

    // `elkfk up 2>&1 | head -1`: it goes on, and stops when it is asked to.
    let ports = [(); 4].map(|()| free_port());
    let mut command = Command::new(elkfk());
    command.args(["up", "--data"]).arg(dir.path().join("data")).arg("--watch").arg(&log);
    for (flag, port) in ["--coordinator-port", "--broker-port", "--store-port", "--dashboard-port"]
        .iter()
        .zip(ports)
    {
        command.arg(flag).arg(port.to_string());
    }
    let mut child = command
        .env("ELKFK_LOG", "debug")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    assert!(first.starts_with("coordinator"), "{first}");
    drop((lines, child.stderr.take()));
    let index = Index::new(&format!("http://127.0.0.1:{}", ports[2]));
    index.wait_for(1, PATIENCE).unwrap();
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::INT).unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it does not stop");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn replay_answers_no_when_records_are_left() {
    let dir = TestDir::new();
    let up = Up::start(&dir.path(), &["--watch", "/nonexistent"]).unwrap();
    let at = ["--bootstrap-server", up.bootstrap.as_str()];
    let create = ["kafka-topics.sh", at[0], at[1], "--create", "--topic", "logs.dead"];
    let (code, text) = said(&create);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = said(&["replay", "logs", at[0], at[1]]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("nothing to send again"), "{text}");
    // Somebody else's record, without the headers of a dead letter.
    let mut producer = Command::new(elkfk())
        .args(["kafka-console-producer.sh", at[0], at[1], "--topic", "logs.dead"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut producer.stdin.take().unwrap(), b"no dead letter\n").unwrap();
    assert!(producer.wait().unwrap().success());
    let (code, text) = said(&["replay", "logs", at[0], at[1]]);
    assert!(text.contains("1 records left: no dead letters"), "{text}");
    assert_eq!(code, Some(1), "{text}");
}
