//! ZooKeeper's own Java tests (of 3.5.7) on our server: what passes on a real ZooKeeper, in a process of its own, passes
//! here.
//!
//! They were written for a server in their own JVM. The classes in `coordinator_java_suite/src` stand before theirs on
//! the class path and start the server as a process for each test; what reaches into a server's objects
//! cannot pass that way on either side and is not in `passes.txt`. `ELKFK_JAVA_SUITE=all` runs all of that list;
//! without it the slow and the repeated classes are left out. `ELKFK_JAVA_SUITE=zookeeper` runs the list on a real
//! one, and with `UPDATE_GOLDEN=1` writes it.
//!
//! Exceptions are listed, with their reasons, in [`EXCEPTIONS`].

mod ensemble_support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use elkfk_tests::ensemble::Kind;
use elkfk_tests::peers::{self, Peer};
use ensemble_support::suite;

/// What passes on a ZooKeeper and not here.
const EXCEPTIONS: [(&str, &str); 2] = [
    ("test.ClientSkipACLTest#testACLs", SKIP_ACL),
    ("test.ClientSkipACLTest#testNullAuthId", SKIP_ACL),
];
const SKIP_ACL: &str = "skipACL is refused: ACLs are always checked";

/// Every class whose tests ask a server for something as a client does.
const CLASSES: [&str; 33] = [
    "RemoveWatchesCmdTest",
    "RemoveWatchesTest",
    "ZooKeeperTest",
    "server.CreateContainerTest",
    "server.CreateTTLTest",
    "server.Emulate353TTLTest",
    "test.ACLRootTest",
    "test.AsyncOpsTest",
    "test.AuthTest",
    "test.ChrootAsyncTest",
    "test.ChrootClientTest",
    "test.ChrootTest",
    "test.ClientHammerTest",
    "test.ClientRetryTest",
    "test.ClientSkipACLTest",
    "test.ClientTest",
    "test.CreateTest",
    "test.DisconnectedWatcherTest",
    "test.FourLetterWordsTest",
    "test.FourLetterWordsWhiteListTest",
    "test.GetChildren2Test",
    "test.MaxCnxnsTest",
    "test.MultiAsyncTransactionTest",
    "test.MultiTransactionTest",
    "test.NullDataTest",
    "test.ServerCnxnTest",
    "test.SessionInvalidationTest",
    "test.SessionTimeoutTest",
    "test.StatTest",
    "test.SyncCallTest",
    "test.WatcherFuncTest",
    "test.WatcherTest",
    "test.ZooKeeperQuotaTest",
];

/// Slow, or the tests of another class once more.
const NOT_IN_SHARE: [&str; 7] = [
    "RemoveWatchesTest",
    "test.ChrootAsyncTest",
    "test.ChrootClientTest",
    "test.ClientHammerTest",
    "test.ClientSkipACLTest",
    "test.DisconnectedWatcherTest",
    "test.WatcherTest",
];

/// System properties of ZooKeeper that are keys of our zoo.cfg too.
const KNOWN_KEYS: &str = "extendedTypesEnabled,DigestAuthenticationProvider.superDigest";

#[test]
fn zookeepers_own_java_tests_pass_as_on_zookeeper() {
    let test = "zookeepers_own_java_tests_pass_as_on_zookeeper";
    if !libs().exists() {
        return peers::skip(test, "ZooKeeper's own tests (tests/setup)");
    }
    // The client they use is that of the peer.
    if !peers::have(test, &[Peer::ZooKeeper]) {
        return;
    }
    match std::env::var("ELKFK_JAVA_SUITE").as_deref() {
        Ok("zookeeper") => run_on_zookeeper().unwrap(),
        asked => run_on_ours(asked == Ok("all")).unwrap(),
    }
}

fn libs() -> PathBuf {
    elkfk_tests::test_tools().join("java-suite/libs")
}

fn beside() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/coordinator_java_suite")
}

fn class(name: &str) -> &str {
    name.split('#').next().unwrap_or(name)
}

fn run_on_ours(is_whole: bool) -> Result<()> {
    let passes = suite::names(&beside().join("passes.txt"))?;
    for (name, _) in EXCEPTIONS {
        ensure!(passes.contains(name), "an exception that does not pass on a ZooKeeper: {name}");
    }
    let is_wanted = |name: &&String| {
        (is_whole || !NOT_IN_SHARE.contains(&class(name)))
            && !EXCEPTIONS.iter().any(|(other, _)| other == *name)
    };
    let wanted: BTreeSet<String> = passes.iter().filter(is_wanted).cloned().collect();
    let dir = tempfile::tempdir()?;
    let classes = compiled(dir.path())?;
    suite::must_pass(dir.path(), &wanted, |select, results| {
        let select = suite::names(select)?;
        junit(dir.path(), &classes, Kind::Elkfk, &select, results)
    })
}

fn run_on_zookeeper() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let compiled = compiled(dir.path())?;
    let list = beside().join("passes.txt");
    if std::env::var("UPDATE_GOLDEN").as_deref() == Ok("1") {
        let results = dir.path().join("results");
        let all = CLASSES.map(str::to_owned).into();
        junit(dir.path(), &compiled, Kind::ZooKeeper, &all, &results)?;
        let results = suite::results(&results)?;
        let passed = results.iter().filter(|(_, outcome)| outcome.has_passed());
        return suite::write(&list, &passed.map(|(name, _)| name.clone()).collect());
    }
    suite::must_pass(dir.path(), &suite::names(&list)?, |select, results| {
        junit(dir.path(), &compiled, Kind::ZooKeeper, &suite::names(select)?, results)
    })
}

fn class_path() -> String {
    format!("{}/*:{}/*", libs().display(), peers::programs().join("zookeeper/libs").display())
}

/// Our classes, compiled.
fn compiled(dir: &Path) -> Result<PathBuf> {
    let classes = dir.join("classes");
    let src = beside().join("src");
    let sources =
        ["elkfk/Runner.java", "elkfk/Server.java", "org/apache/zookeeper/test/ClientBase.java"];
    let output = Command::new("javac")
        .args(["-nowarn", "-cp", &class_path(), "-d"])
        .arg(&classes)
        .args(sources.map(|source| src.join(source)))
        .output()
        .context("run javac")?;
    ensure!(output.status.success(), "javac: {}", String::from_utf8_lossy(&output.stderr));
    Ok(classes)
}

/// Runs the classes of `names`. That tests fail is no error.
fn junit(
    dir: &Path,
    classes: &Path,
    kind: Kind,
    names: &BTreeSet<String>,
    results: &Path,
) -> Result<()> {
    let log = results.with_extension("log");
    let out = std::fs::File::create(&log)?;
    let wanted: BTreeSet<&str> = names.iter().map(|name| class(name)).collect();
    let temporary = dir.join("servers");
    std::fs::create_dir_all(&temporary)?;
    let mut java = Command::new("java");
    java.arg("-Xmx400m")
        .arg(format!(
            "-Dlog4j.configuration=file:{}",
            peers::scripts().join("kafka/log4j.properties").display()
        ))
        .arg("-Dpeers.log.level=OFF")
        .arg(format!("-Djava.io.tmpdir={}", temporary.display()))
        .arg(format!("-Delkfk.server={}", kind.command().join(" ")))
        .env("ZK_HEAP_OPTS", "-Xmx256m");
    if kind == Kind::Elkfk {
        java.arg(format!("-Delkfk.keys={KNOWN_KEYS}"));
    }
    java.args(["-cp", &format!("{}:{}", classes.display(), class_path()), "elkfk.Runner"])
        .arg(results)
        .arg("300")
        .args(wanted)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out);
    java.status().context("run java")?;
    ensure!(results.exists(), "no test ran:\n{}", std::fs::read_to_string(&log)?);
    Ok(())
}
