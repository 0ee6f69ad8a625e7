//! Our coordinator as a process of its own, to be killed.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use elkfk_tests::free_port;
use elkfk_tests::process::Process;

const PATIENCE: Duration = Duration::from_secs(30);

/// The serve example, with its data in a directory of its own.
pub(crate) struct Coordinator {
    pub(crate) addr: SocketAddr,
    dir: PathBuf,
    process: Process,
}

impl Coordinator {
    /// Starts it; `extra` lines go into its zoo.cfg.
    pub(crate) fn start(dir: &Path, extra: &str) -> Result<Self> {
        let addr = configure(dir, extra)?;
        let process = spawn(dir)?;
        let mut coordinator = Self { addr, dir: dir.into(), process };
        coordinator.wait()?;
        Ok(coordinator)
    }

    /// The same, with its data on a tmpfs that only it has; `None` where that may not be mounted.
    pub(crate) fn start_on_tmpfs(dir: &Path, options: &str, extra: &str) -> Option<Result<Self>> {
        let data = dir.join("data");
        std::fs::create_dir_all(&data).ok()?;
        let mount = format!("mount -t tmpfs -o {options} tmpfs '{}'", data.display());
        let unshared = |script: &str| {
            let mut command = Command::new("unshare");
            command.args(["-rm", "bash", "-c", script]);
            command
        };
        if !unshared(&mount).output().is_ok_and(|output| output.status.success()) {
            return None;
        }
        Some((|| {
            let addr = configure(dir, extra)?;
            let serve = format!(
                "{mount} && exec '{}' coordinator '{}'",
                elkfk_tests::process::elkfk().display(),
                dir.join("zoo.cfg").display()
            );
            let log = dir.join("coordinator.log");
            let process = Process::start("coordinator", &mut unshared(&serve), &log)?;
            let mut coordinator = Self { addr, dir: dir.into(), process };
            coordinator.wait()?;
            Ok(coordinator)
        })())
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn wait(&mut self) -> Result<()> {
        let seen = std::fs::read_to_string(self.dir.join("starts")).unwrap_or_default().len();
        self.process.wait_until(PATIENCE, |process| {
            process.output().matches("coordinator  127").count() > seen
        })?;
        std::fs::write(self.dir.join("starts"), "x".repeat(seen + 1))?;
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Ctrl-C.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let status = self.process.stop(PATIENCE)?;
        anyhow::ensure!(status.success(), "{}", self.output());
        Ok(())
    }

    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.process = spawn(&self.dir)?;
        self.wait()
    }

    /// Starts it in vain; returns what it says, once it has ended as a program that could not run.
    pub(crate) fn fail_to_start(&mut self) -> Result<String> {
        let before = self.output().len();
        self.process = spawn(&self.dir)?;
        let status = self.process.wait(PATIENCE)?;
        let said = self.output()[before..].to_owned();
        anyhow::ensure!(status.code() == Some(2), "ended with {status}: {said}");
        Ok(said)
    }

    /// Writes its zoo.cfg anew, with `from` replaced by `to`.
    pub(crate) fn replace_in_config(&self, from: &str, to: &str) -> Result<()> {
        let path = self.dir.join("zoo.cfg");
        let text = std::fs::read_to_string(&path)?;
        anyhow::ensure!(text.contains(from), "{from} is not in {text}");
        Ok(std::fs::write(&path, text.replace(from, to))?)
    }

    /// The newest file of its log.
    pub(crate) fn newest_log(&self) -> Result<PathBuf> {
        let mut logs = Vec::new();
        for entry in std::fs::read_dir(self.data_dir().join("elkfk"))? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"log-0")) {
                logs.push(path);
            }
        }
        logs.sort();
        logs.pop().context("a log")
    }

    /// The most memory it has had.
    pub(crate) fn peak_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = peak.context("VmHWM")?.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// What it has logged since its first start.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }
}

fn configure(dir: &Path, extra: &str) -> Result<SocketAddr> {
    std::fs::create_dir_all(dir)?;
    let port = free_port();
    let config = format!(
        "dataDir={}\nclientPort={port}\nmaxClientCnxns=0\n4lw.commands.whitelist=*\nadmin.enableServer=false\n{extra}\n",
        dir.join("data").display()
    );
    std::fs::write(dir.join("zoo.cfg"), config)?;
    Ok(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn spawn(dir: &Path) -> Result<Process> {
    let mut command = Command::new(elkfk_tests::process::elkfk());
    command.arg("coordinator").arg(dir.join("zoo.cfg"));
    Process::start("coordinator", &mut command, &dir.join("coordinator.log"))
}
