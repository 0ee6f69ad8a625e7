//! Ours and the ancestor in turn, on one machine, the same data and the same durability.
//!
//! `bench/run [startup|broker|coordinator|store|line]…` prints a Markdown table for each scenario;
//! `bench/RESULTS.md` keeps what was printed, with the commit and the versions. Rates and times of
//! one run on a shared machine are noisy: the ratio is what to read.

mod broker;
mod coordinator;
mod line;
mod startup;
mod store;
mod table;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

type Scenario = fn() -> Result<()>;
const SCENARIOS: [(&str, Scenario); 5] = [
    ("startup", startup::run),
    ("broker", broker::run),
    ("coordinator", coordinator::run),
    ("store", store::run),
    ("line", line::run),
];

fn main() -> Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    for name in &asked {
        if !SCENARIOS.iter().any(|(known, _)| known == name) {
            bail!(
                "no scenario {name}; there are: {}",
                SCENARIOS.map(|(known, _)| known).join(", ")
            );
        }
    }
    println!("commit {}, {} cores", output("git", &["rev-parse", "--short", "HEAD"])?, cores());
    for (name, scenario) in SCENARIOS {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            println!("\n### {name}\n");
            scenario().with_context(|| format!("bench {name}"))?;
        }
    }
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

fn output(program: &str, args: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(args).output().with_context(|| format!("run {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A file of `count` lines from the log generator, made once and kept beside the build.
fn lines(kind: &str, count: usize) -> Result<PathBuf> {
    let dir = elkfk_tests::workspace().join("target/bench-data");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{kind}-{count}.log"));
    if !path.exists() {
        let text = elkfk_tests::gen_logs("bench", kind, count, 1).context("the log generator")?;
        std::fs::write(&path, text)?;
    }
    Ok(path)
}

/// Lines asked for by `ELKFK_BENCH_LINES`, else `default`.
fn line_count(default: usize) -> usize {
    std::env::var("ELKFK_BENCH_LINES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
