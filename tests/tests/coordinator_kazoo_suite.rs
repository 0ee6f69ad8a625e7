//! kazoo's own test suite (2.10.0) on three of our servers: what passes on three real ZooKeepers 3.5.7 passes here.
//!
//! The suite runs as it is installed; `coordinator_kazoo_suite/elkfk_servers.py` stands in for the part of it that
//! starts ZooKeepers, and `passes.txt` is what passed on real ones (484 of 489 tests; the others need TLS, SASL or
//! Kerberos, which the runs there did not have). `ELKFK_KAZOO_SUITE=all` runs all of them; without it a share is left
//! out: the same tests again with gevent's and eventlet's handlers, and what needs no server.
//! `ELKFK_KAZOO_SUITE=zookeeper` runs it on real ones instead, and with `UPDATE_GOLDEN=1` writes the list.
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
const EXCEPTIONS: [(&str, &str); 3] = [
    (
        "test_connection.py::TestReadOnlyMode::test_read_only",
        "read-only mode is not offered: a server without its ensemble serves nobody",
    ),
    ("test_sasl.py::TestSASLDigestAuthentication::test_invalid_sasl_auth", "SASL is not offered"),
    (
        "test_sasl.py::TestLegacySASLDigestAuthentication::test_invalid_sasl_auth",
        "SASL is not offered",
    ),
];

/// Keys the suite sets that ours refuses, for it does not do what they ask.
const LEFT_OUT: &str = "localSessionsEnabled,localSessionsUpgradingEnabled";

#[test]
fn kazoos_own_suite_passes_as_on_zookeeper() {
    let test = "kazoos_own_suite_passes_as_on_zookeeper";
    let python = elkfk_tests::test_tools().join("kazoo-suite/bin/python");
    if !python.exists() {
        return peers::skip(test, "kazoo's suite (tests/setup)");
    }
    let asked = std::env::var("ELKFK_KAZOO_SUITE").unwrap_or_default();
    if asked == "zookeeper" {
        if peers::have(test, &[Peer::ZooKeeper]) {
            run_on_zookeeper(&python).unwrap();
        }
    } else {
        run_on_ours(&python, asked == "all").unwrap();
    }
}

fn beside() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/coordinator_kazoo_suite")
}

fn is_in_share(name: &str) -> bool {
    let files = [
        "test_gevent_handler.py",
        "test_eventlet_handler.py",
        "test_selectors_select.py",
        "test_threading_handler.py",
        "test_interrupt.py",
    ];
    !files.iter().any(|file| name.starts_with(file))
}

fn run_on_ours(python: &Path, is_whole: bool) -> Result<()> {
    let passes = suite::names(&beside().join("passes.txt"))?;
    for (name, _) in EXCEPTIONS {
        ensure!(passes.contains(name), "an exception that does not pass on a ZooKeeper: {name}");
    }
    let is_wanted = |name: &&String| {
        (is_whole || is_in_share(name)) && !EXCEPTIONS.iter().any(|(other, _)| other == *name)
    };
    let wanted: BTreeSet<String> = passes.iter().filter(is_wanted).cloned().collect();
    let dir = tempfile::tempdir()?;
    suite::must_pass(dir.path(), &wanted, |select, results| {
        pytest(python, Kind::Elkfk, Some(select), results)
    })
}

fn run_on_zookeeper(python: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let list = beside().join("passes.txt");
    if std::env::var("UPDATE_GOLDEN").as_deref() == Ok("1") {
        let results = dir.path().join("results");
        pytest(python, Kind::ZooKeeper, None, &results)?;
        let results = suite::results(&results)?;
        let passed = results.iter().filter(|(_, outcome)| outcome.has_passed());
        return suite::write(&list, &passed.map(|(name, _)| name.clone()).collect());
    }
    suite::must_pass(dir.path(), &suite::names(&list)?, |select, results| {
        pytest(python, Kind::ZooKeeper, Some(select), results)
    })
}

/// One run of the suite. That tests of it fail is no error.
fn pytest(python: &Path, kind: Kind, select: Option<&Path>, results: &Path) -> Result<()> {
    let log = results.with_extension("log");
    let out = std::fs::File::create(&log)?;
    let servers = std::env::var("ELKFK_KAZOO_SERVERS").unwrap_or("3".into());
    let mut pytest = Command::new(python);
    pytest
        .args(["-m", "pytest", "-q", "-p", "elkfk_servers", "-p", "no:cacheprovider"])
        .args(["--timeout", "120", "--timeout-method", "signal", "--pyargs", "kazoo.tests"])
        .current_dir(log.parent().context("a folder")?)
        .env("PYTHONPATH", beside())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("ELKFK_KAZOO_SERVER", kind.command().join(" "))
        .env("ELKFK_KAZOO_RESULTS", results)
        .env("ZOOKEEPER_CLUSTER_SIZE", servers)
        // Whose tests they are: some ask for it.
        .env("ZOOKEEPER_VERSION", "3.5.7")
        .env("CI", "true")
        .env("ZK_HEAP_OPTS", "-Xmx256m")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out);
    if let Some(select) = select {
        pytest.env("ELKFK_KAZOO_SELECT", select);
    }
    if kind == Kind::Elkfk {
        pytest.env("ELKFK_KAZOO_LEAVE_OUT", LEFT_OUT);
    }
    pytest.status().context("run pytest")?;
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    // Where a test failed, what it said is of use.
    let failures =
        said.lines().filter(|line| line.starts_with("E  ") || line.starts_with("FAILED"));
    for line in failures.take(40) {
        eprintln!("{line}");
    }
    ensure!(results.exists(), "no test ran:\n{said}");
    Ok(())
}
