//! Child processes that end with the test, and waiting for what they say.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A child process whose output goes to a file; dropped, it is ended.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints, on both streams, is appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { child, name: name.into(), log: log.into() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All it has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until `is_ready` holds; fails when the process ends before or `limit` passes.
    pub fn wait_until(
        &mut self,
        limit: Duration,
        mut is_ready: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        while !is_ready(self) {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended with {status} before it was ready:\n{}",
                    self.name,
                    tail(&self.output())
                );
            }
            if start.elapsed() > limit {
                bail!("{} is not ready after {limit:?}:\n{}", self.name, tail(&self.output()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id() as i32).context("a child has a process id")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// Whether a SIGSTOP has reached every thread.
    pub fn is_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id()));
        tasks.is_ok_and(|tasks| {
            tasks.flatten().all(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                // Behind the name in parentheses; a thread that has just ended has no such file.
                stat.rsplit(')')
                    .next()
                    .is_some_and(|rest| rest.is_empty() || rest.trim_start().starts_with('T'))
            })
        })
    }

    /// `kill -9` and the wait for it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop as Ctrl-C does, and waits; killed after `limit`, which is an error.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::INT)?;
        self.wait(limit)
    }

    /// Waits for its end; killed after `limit`, which is an error.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                self.kill();
                bail!("{} did not end within {limit:?}:\n{}", self.name, tail(&self.output()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Resident memory in bytes, as the kernel counts it; 0 once it has ended.
    pub fn resident_bytes(&self) -> u64 {
        status_bytes(self.id(), "VmRSS:")
    }

    /// The most memory in bytes that was ever resident; 0 once it has ended.
    pub fn peak_bytes(&self) -> u64 {
        status_bytes(self.id(), "VmHWM:")
    }

    /// User and system time it has used.
    pub fn cpu(&self) -> Duration {
        cpu(self.id())
    }

    /// What it and all that it started use.
    pub fn family(&self) -> Usage {
        let (mut family, mut usage) = (vec![self.id()], Usage::default());
        while let Some(pid) = family.pop() {
            usage.resident_bytes += status_bytes(pid, "VmRSS:");
            usage.peak_bytes += status_bytes(pid, "VmHWM:");
            usage.cpu += cpu(pid);
            family.extend(children(pid));
        }
        usage
    }
}

/// Memory and time of a process and its children.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub resident_bytes: u64,
    /// The sum of each process's peak.
    pub peak_bytes: u64,
    pub cpu: Duration,
}

/// A size of `/proc/PID/status`, in bytes.
fn status_bytes(pid: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.unwrap_or(0u64) * 1024
}

/// Those that any of its threads started: a JVM starts them from threads other than its first.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return vec![] };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().flat_map(str::parse).collect::<Vec<u32>>())
        .collect()
}

fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The command's name stands in parentheses and may hold spaces.
    let ticks: u64 = stat
        .rsplit(')')
        .next()
        .map(|rest| {
            rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
        })
        .unwrap_or(0);
    Duration::from_millis(ticks * 10)
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.signal(Signal::TERM);
            if self.wait(Duration::from_secs(5)).is_err() {
                self.kill();
            }
        }
    }
}

fn tail(text: &str) -> &str {
    let from = text.char_indices().rev().nth(3000).map_or(0, |(at, _)| at);
    &text[from..]
}

/// Our binary: `ELKFK_BIN`, or the one cargo built beside the tests, built where it is missing.
pub fn elkfk() -> PathBuf {
    if let Some(path) = std::env::var_os("ELKFK_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    // target/PROFILE/deps/TEST-HASH → target/PROFILE/elkfk
    let profile = test.parent().and_then(Path::parent).expect("tests stand in target/PROFILE/deps");
    let binary = profile.join("elkfk");
    if !binary.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "-q", "-p", "elkfk"]).current_dir(crate::workspace());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("run cargo").success(), "build elkfk");
    }
    binary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_holds_what_other_threads_started() {
        // A test runs in a thread that is not the process's first.
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
