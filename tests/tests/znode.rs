//! `elkfk znode` and `elkfk coordinator status`, on a real ZooKeeper and on our coordinator.

#[path = "coordinator_process/mod.rs"]
mod coordinator_process;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

use coordinator_process::Coordinator;
use elkfk_tests::free_port;
use elkfk_tests::peers::{self, Peer};
use elkfk_tests::process::elkfk;
use rustix::process::{Pid, Signal, kill_process};

fn znode(at: &str, args: &[&str]) -> Output {
    let mut command = Command::new(elkfk());
    command.args(["znode", "--zookeeper", at]).args(args).env("TZ", "UTC");
    command.stdin(Stdio::null()).output().unwrap()
}

/// What it prints; it must end well.
fn yes(at: &str, args: &[&str]) -> String {
    let output = znode(at, args);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {:?} {told}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// What it says on standard error where the answer is no.
fn no(at: &str, args: &[&str]) -> String {
    let output = znode(at, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn commands_on_our_coordinator() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), "").unwrap();
    run(&coordinator.addr.to_string());
}

#[test]
fn commands_on_a_real_zookeeper() {
    if peers::have("commands_on_a_real_zookeeper", &[Peer::ZooKeeper]) {
        let dir = tempfile::tempdir().unwrap();
        let zookeeper = peers::zookeeper(dir.path(), "").unwrap();
        run(&zookeeper.addr.to_string());
    }
}

fn run(at: &str) {
    assert_eq!(yes(at, &["create", "/a", "data"]), "/a\n");
    assert_eq!(yes(at, &["create", "-p", "/a/b/c"]), "/a/b/c\n");
    assert_eq!(yes(at, &["create", "-s", "/a/b/n-", "x"]), "/a/b/n-0000000001\n");
    assert_eq!(yes(at, &["create", "-c", "/box"]), "/box\n");
    assert_eq!(yes(at, &["ls", "/"]), "a\nbox\nzookeeper\n");
    assert_eq!(yes(at, &["ls", "-R", "/a"]), "/a\n/a/b\n/a/b/c\n/a/b/n-0000000001\n");
    // To the byte, and nothing more.
    assert_eq!(yes(at, &["get", "/a"]), "data");
    // What is forgotten does not empty it.
    assert_eq!(znode(at, &["set", "/a"]).status.code(), Some(2));
    assert_eq!(yes(at, &["get", "/a"]), "data");
    yes(at, &["set", "/a", "more data", "-v", "0"]);
    let stat = yes(at, &["stat", "/a"]);
    let names: Vec<_> = stat.lines().map(|line| line.split(" = ").next().unwrap()).collect();
    let expected = [
        "cZxid",
        "ctime",
        "mZxid",
        "mtime",
        "pZxid",
        "cversion",
        "dataVersion",
        "aclVersion",
        "ephemeralOwner",
        "dataLength",
        "numChildren",
    ];
    assert_eq!(names, expected);
    assert!(stat.contains("dataVersion = 1\n") && stat.contains("dataLength = 9\n"), "{stat}");
    assert!(stat.contains(" UTC 20"), "{stat}");
    assert_eq!(yes(at, &["get", "-s", "/a"]), format!("more data\n{stat}"));
    let json: serde_json::Value = serde_json::from_str(&yes(at, &["get", "/a", "--json"])).unwrap();
    assert_eq!((&json["data"], &json["stat"]["version"]), (&"more data".into(), &1.into()));

    let tree = yes(at, &["tree", "/a"]);
    let expected = "BYTES  BELOW  ZNODES  ZNODE\n    9     10       4  /a\n    0      1       3    b\n    0      0       1      c\n    1      1       1      n-0000000001\n";
    assert_eq!(tree, expected);
    assert_eq!(yes(at, &["tree", "/a", "-L", "1"]).lines().count(), 3);

    for (args, wanted) in [
        (&["get", "/nope"][..], "no such znode"),
        (&["stat", "/nope"], "no such znode"),
        (&["create", "/a"], "znode exists"),
        (&["set", "/a", "x", "-v", "7"], "version does not match"),
        (&["delete", "/a"], "delete -r"),
        (&["delete", "/nope"], "no such znode"),
        (&["ls", "a"], "path must start with /"),
        (&["create", "/x", "--acl", "auth::cdrwa"], "invalid ACL"),
    ] {
        let told = no(at, args);
        assert!(told.contains(wanted), "{args:?}: {told}");
        assert!(told.contains(at) || wanted.contains("path"), "{told}");
    }

    // What one user has created another may not touch.
    let mine = ["--auth", "bob:secret"];
    yes(at, &[&["create", "/bobs", "x", "--acl", "auth::cdrwa"][..], &mine].concat());
    assert!(no(at, &["get", "/bobs"]).contains("--auth USER:PASSWORD"));
    assert_eq!(yes(at, &[&["get", "/bobs"][..], &mine].concat()), "x");

    watch(at);
    ephemeral(at);
    assert_eq!(yes(at, &["delete", "-r", "/a"]), "4 deleted\n");
    assert!(no(at, &["ls", "/a"]).contains("no such znode"));

    let output =
        Command::new(elkfk()).args(["coordinator", "status", "--zookeeper", at]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "Mode: standalone\n");
}

/// Events come while it runs, and it ends after those that were asked for.
fn watch(at: &str) {
    let mut child = Command::new(elkfk())
        .args(["znode", "--zookeeper", at, "watch", "/w", "--count", "4"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.contains("which is not there"), "{line}");
    let mut events = BufReader::new(child.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        events.read_line(&mut line).unwrap();
        line.split_once(' ').map(|(_, event)| event.trim_end().to_owned()).unwrap_or_default()
    };
    yes(at, &["create", "/w"]);
    assert_eq!(next(), "created /w version 0");
    yes(at, &["set", "/w", "12345"]);
    assert_eq!(next(), "data /w version 1, 5 bytes");
    yes(at, &["create", "/w/x"]);
    assert_eq!(next(), "children /w +x");
    yes(at, &["delete", "-r", "/w"]);
    let last = next();
    assert!(last == "children /w -x" || last == "deleted /w", "{last}");
    assert!(child.wait().unwrap().success());
}

/// It is there until Ctrl-C.
fn ephemeral(at: &str) {
    let mut child = Command::new(elkfk())
        .args(["znode", "--zookeeper", at, "create", "-e", "/here"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "/here\n");
    assert!(yes(at, &["tree", "/here"]).contains("(ephemeral of 0x"));
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert!(no(at, &["stat", "/here"]).contains("no such znode"));
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let at = format!("127.0.0.1:{}", free_port());
    let output =
        Command::new(elkfk()).args(["coordinator", "status", "--zookeeper", &at]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("Error contacting service. It is probably not running.\n"), "{text}");

    // Of several, each has its line.
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), "").unwrap();
    let both = format!("{},{at}", coordinator.addr);
    let output = Command::new(elkfk())
        .args(["coordinator", "status", "--zookeeper", &both])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("  Mode: standalone  Zxid: 0x"), "{text}");
    assert!(text.lines().nth(1).is_some_and(|line| line.contains("Error: connect")), "{text}");
    // By its file.
    let file = dir.path().join("zoo.cfg");
    let output = Command::new(elkfk())
        .args(["coordinator", "status", "--config", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "Mode: standalone\n");
}
