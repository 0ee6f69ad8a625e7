//! A ZooKeeper 3.9: the operations that 3.5 has not.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use elkfk_tests::peers;
use elkfk_tests::process::Process;

/// Its jars, which tests/setup installs.
pub(crate) fn jars() -> Option<PathBuf> {
    let directory = elkfk_tests::test_tools().join("zookeeper-3.9");
    directory.join(".complete-1").exists().then_some(directory)
}

/// Starts a real 3.9 on the zoo.cfg in `dir`, with what it takes as system properties.
pub(crate) fn start(jars: &Path, dir: &Path, properties: &[&str]) -> Result<(Process, String)> {
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
