//! ZooKeeper's command line clients, of 3.5.7 and of 3.9, on our coordinator and on a real ZooKeeper: the same
//! session typed into both, every command's answer compared.
//!
//! `coordinator_zkcli/session.txt` is for both clients, and its answers are those of a ZooKeeper 3.5.7.
//! `session-3.9.txt` holds the commands that came with 3.6 and later; there each answer is that of a ZooKeeper 3.9.

#[path = "coordinator_later/mod.rs"]
mod coordinator_later;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use elkfk_tests::ensemble::{Ensemble, Kind};
use elkfk_tests::peers::{self, Peer};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cli {
    /// Of the installed peer.
    V3_5,
    /// Of `tests/setup`.
    V3_9,
}

/// Printed by a command that needs no server, after each command of the session: what is before it is the answer.
const END: &str = "printwatches is on\n";

impl Cli {
    /// Its jars, all but the line editor: that one prints prompts and what was typed between the answers.
    fn class_path(self) -> Option<String> {
        let dir = match self {
            Self::V3_5 => peers::programs().join("zookeeper/libs"),
            Self::V3_9 => coordinator_later::jars()?.join("libs"),
        };
        let jars: Vec<String> = std::fs::read_dir(dir)
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ext| ext == "jar"))
            .map(|path| path.display().to_string())
            .filter(|path| !path.contains("jline"))
            .collect();
        (!jars.is_empty()).then(|| jars.join(":"))
    }

    /// Types `session` and returns each command with its answer.
    fn run(self, addr: &str, session: &str) -> Result<Vec<(String, String)>> {
        use std::io::Write;
        let mut java = Command::new("java");
        java.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-Duser.timezone=UTC"])
            .arg(format!(
                "-Dlog4j.configuration=file:{}",
                peers::scripts().join("kafka/log4j.properties").display()
            ))
            .arg("-Dpeers.log.level=OFF")
            .args(["-cp", &self.class_path().context("the client's jars")?])
            .args(["org.apache.zookeeper.ZooKeeperMain", "-server", addr]);
        // Answers go to one stream and errors to the other, in the order of one terminal.
        let (mut read, write) = std::io::pipe()?;
        java.stdin(Stdio::piped()).stdout(write.try_clone()?).stderr(write);
        let mut child = java.spawn().context("start zkCli")?;
        drop(java);
        let mut input = child.stdin.take().context("its input")?;
        let commands: Vec<&str> = session.lines().collect();
        let typed: String =
            commands.iter().map(|command| format!("{command}\nprintwatches\n")).collect();
        let typed = format!("printwatches\n{typed}");
        let writer = std::thread::spawn(move || input.write_all(typed.as_bytes()));
        let mut text = String::new();
        std::io::Read::read_to_string(&mut read, &mut text)?;
        writer.join().expect("no panic")?;
        child.wait()?;
        let text = without_events(&text);
        let answers: Vec<&str> = text.split(END).collect();
        ensure!(answers.len() == commands.len() + 2, "{} answers: {text}", answers.len());
        let told = commands.iter().zip(&answers[1..]);
        Ok(told.map(|(command, answer)| ((*command).to_owned(), (*answer).to_owned())).collect())
    }
}

/// Events are printed by a thread of their own, in several lines that others may come between. Whether they come is
/// tested where they are looked at one by one; here they are left out.
fn without_events(text: &str) -> String {
    text.lines()
        .filter(|line| {
            !line.is_empty() && *line != "WATCHER::" && !line.starts_with("WatchedEvent state:")
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

fn hex_after<'a>(line: &'a str, key: &str) -> Option<(&'a str, u64)> {
    let (before, value) = line.split_once(" = 0x")?;
    before.ends_with(key).then_some(())?;
    Some((before, u64::from_str_radix(value, 16).ok()?))
}

/// The answers without what differs between any two servers: zxids become their rank among all that were
/// shown, times vanish, a session's id becomes a word.
fn comparable(answers: &[(String, String)]) -> Vec<(String, String)> {
    let lines = answers.iter().flat_map(|(_, answer)| answer.lines());
    let zxids: BTreeSet<u64> = lines.filter_map(|line| Some(hex_after(line, "Zxid")?.1)).collect();
    let ranks: BTreeMap<u64, usize> = zxids.into_iter().zip(0..).collect();
    let line = |line: &str| {
        if let Some((before, zxid)) = hex_after(line, "Zxid") {
            return format!("{before} = zxid {}", ranks[&zxid]);
        }
        match hex_after(line, "ephemeralOwner") {
            Some((before, id)) if id != 0 => return format!("{before} = a session"),
            _ => {}
        }
        for key in ["ctime = ", "mtime = "] {
            if let Some((before, _)) = line.split_once(key) {
                return format!("{before}{key}then");
            }
        }
        line.to_owned()
    };
    answers
        .iter()
        .map(|(command, answer)| {
            (command.clone(), answer.lines().map(line).collect::<Vec<_>>().join("\n"))
        })
        .collect()
}

fn session(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/coordinator_zkcli").join(name);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

fn have(test: &str) -> bool {
    if Cli::V3_9.class_path().is_none() {
        peers::skip(test, "zkCli 3.9 (tests/setup)");
        return false;
    }
    peers::have(test, &[Peer::ZooKeeper])
}

#[test]
fn every_command_of_zookeepers_client_is_answered_as_by_zookeeper() {
    if have("every_command_of_zookeepers_client_is_answered_as_by_zookeeper") {
        compare().unwrap();
    }
}

fn compare() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let typed = session("session.txt")?;
    for cli in [Cli::V3_5, Cli::V3_9] {
        let mut answers = Vec::new();
        for kind in [Kind::ZooKeeper, Kind::Elkfk] {
            let at = dir.path().join(format!("{cli:?}-{kind:?}"));
            let server = Ensemble::start(kind, &at, 1, "")?;
            let told = cli.run(&server.addr(0).to_string(), &typed)?;
            answers.push(comparable(&told));
        }
        let (theirs, ours) = (&answers[0], &answers[1]);
        let mut different = Vec::new();
        for ((command, expected), (_, answer)) in theirs.iter().zip(ours) {
            if expected != answer {
                different.push(format!("{command}\n  theirs: {expected:?}\n  ours:   {answer:?}"));
            }
        }
        ensure!(different.is_empty(), "{cli:?}:\n{}", different.join("\n"));
        // What is compared must not be two servers that refuse everything.
        let shown: usize = theirs.iter().filter(|(_, answer)| answer.contains("zxid")).count();
        ensure!(shown > 5, "only {shown} answers with a stat: {theirs:?}");
    }
    Ok(())
}

#[test]
fn commands_of_3_9_are_answered_as_by_3_9() {
    if have("commands_of_3_9_are_answered_as_by_3_9") {
        compare_newer().unwrap();
    }
}

fn compare_newer() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let typed = session("session-3.9.txt")?;
    let newest = {
        let jars = coordinator_later::jars().context("the server's jars")?;
        let (_process, addr) = coordinator_later::start(&jars, &dir.path().join("newest"), &[])?;
        comparable(&Cli::V3_9.run(&addr, &typed)?)
    };
    let server = Ensemble::start(Kind::Elkfk, &dir.path().join("ours"), 1, "")?;
    let ours = comparable(&Cli::V3_9.run(&server.addr(0).to_string(), &typed)?);
    let mut different = Vec::new();
    for ((command, expected), (_, answer)) in newest.iter().zip(&ours) {
        if expected != answer {
            different.push(format!("{command}\n  3.9:  {expected:?}\n  ours: {answer:?}"));
        }
    }
    ensure!(different.is_empty(), "{}", different.join("\n"));
    Ok(())
}
