//! Every operation, asked of our coordinator and of real ZooKeepers: those of 3.5 of a 3.5.7, those
//! that came later of a 3.9. All answers are compared, with their zxids, and all events.

#[path = "coordinator_later/mod.rs"]
mod coordinator_later;
#[path = "coordinator_process/mod.rs"]
mod coordinator_process;
#[path = "coordinator_raw/mod.rs"]
mod coordinator_raw;
#[path = "coordinator_raw/script.rs"]
mod script;

use std::process::Command;

use anyhow::{Context, Result};
use coordinator_process::Coordinator;
use elkfk_tests::peers::{self, Peer};

fn compare(told: &str, theirs: &str, ours: &str, is_new: bool) -> Result<()> {
    let theirs = script::run(theirs, is_new).context("on theirs")?;
    let ours = script::run(ours, is_new).context("on ours")?;
    let mut differing = 0;
    for (theirs, ours) in theirs.iter().zip(&ours) {
        if theirs != ours {
            differing += 1;
            println!("{told} theirs: {theirs}\n{told}   ours: {ours}");
        }
    }
    assert_eq!((differing, ours.len()), (0, theirs.len()));
    println!("{} answers alike", ours.len());
    Ok(())
}

const OPTIONS: [&str; 3] =
    ["extendedTypesEnabled=true", "enforceQuota=true", script::SUPER_DIGEST_OPTION];

#[test]
fn operations_of_3_5_are_answered_as_by_3_5_7() {
    if !peers::have("operations_of_3_5_are_answered_as_by_3_5_7", &[Peer::ZooKeeper]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = OPTIONS.join("\n");
    let theirs =
        peers::zookeeper(&dir.path().join("theirs"), &format!("maxClientCnxns=0\n{options}"));
    let theirs = theirs.unwrap();
    let ours = Coordinator::start(&dir.path().join("ours"), &options).unwrap();
    compare("3.5.7", &theirs.addr.to_string(), &ours.addr.to_string(), false).unwrap();
}

#[test]
fn later_operations_are_answered_as_by_3_9() {
    let Some(jars) = coordinator_later::jars() else {
        return peers::skip("later_operations_are_answered_as_by_3_9", "zookeeper 3.9");
    };
    let dir = tempfile::tempdir().unwrap();
    let (_theirs, addr) =
        coordinator_later::start(&jars, &dir.path().join("theirs"), &OPTIONS).unwrap();
    let ours = Coordinator::start(&dir.path().join("ours"), &OPTIONS.join("\n")).unwrap();
    compare("3.9", &addr, &ours.addr.to_string(), true).unwrap();
}

/// The Java client of 3.9, with what its library keeps of watches, on ours.
#[test]
fn client_java_39_server_ours() {
    let Some(jars) = coordinator_later::jars() else {
        return peers::skip("client_java_39_server_ours", "zookeeper 3.9");
    };
    let dir = tempfile::tempdir().unwrap();
    let ours = Coordinator::start(dir.path(), &format!("tickTime=500\n{}", OPTIONS.join("\n")));
    let output = Command::new("java")
        .args(["-Xmx128m", "-cp"])
        .arg(jars.join("libs/*"))
        .arg(elkfk_tests::workspace().join("tests/tests/coordinator_later/Later.java"))
        .arg(ours.unwrap().addr.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && text.ends_with("done\n"), "{text}\n{errors}");
}
