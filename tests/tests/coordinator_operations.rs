//! Every operation, asked of our coordinator and of real ZooKeepers: those of 3.5 of a 3.5.7, those
//! that came later of a 3.9. All answers are compared, with their zxids, and all events.

#[path = "coordinator_process/mod.rs"]
mod coordinator_process;
#[path = "coordinator_raw/mod.rs"]
mod coordinator_raw;
#[path = "coordinator_raw/script.rs"]
mod script;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use coordinator_process::Coordinator;
use elkfk_tests::peers::{self, Peer};
use elkfk_tests::process::Process;

/// The jars of a ZooKeeper 3.9, which tests/setup installs.
fn zookeeper_39() -> Option<PathBuf> {
    let peers = std::env::var_os("ELKFK_PEERS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/elkfk-peers"),
        PathBuf::from,
    );
    let directory = peers.join("zookeeper-3.9");
    directory.join(".complete").exists().then_some(directory)
}

/// Starts a real 3.9 on the zoo.cfg in `dir`, with what it takes as system properties.
fn start_39(jars: &Path, dir: &Path, properties: &[&str]) -> Result<(Process, String)> {
    std::fs::create_dir_all(dir.join("data"))?;
    let port = elkfk_tests::free_port();
    let text = format!(
        "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\nmaxClientCnxns=0\n4lw.commands.whitelist=*\n",
        dir.join("data").display()
    );
    let config = dir.join("zoo.cfg");
    std::fs::write(&config, text)?;
    let mut command = Command::new("java");
    command
        .arg("-Xmx256m")
        .args(properties.iter().map(|property| format!("-Dzookeeper.{property}")));
    command.arg("-cp").arg(jars.join("libs/*"));
    command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(&config);
    let mut process = Process::start("zookeeper-3.9", &mut command, &dir.join("zookeeper.log"))?;
    let addr = format!("127.0.0.1:{port}");
    let socket = addr.parse()?;
    process.wait_until(Duration::from_secs(120), |_| peers::srvr(socket).contains("Mode:"))?;
    Ok((process, addr))
}

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
    let Some(jars) = zookeeper_39() else {
        return peers::skip("later_operations_are_answered_as_by_3_9", "zookeeper 3.9");
    };
    let dir = tempfile::tempdir().unwrap();
    let (_theirs, addr) = start_39(&jars, &dir.path().join("theirs"), &OPTIONS).unwrap();
    let ours = Coordinator::start(&dir.path().join("ours"), &OPTIONS.join("\n")).unwrap();
    compare("3.9", &addr, &ours.addr.to_string(), true).unwrap();
}
