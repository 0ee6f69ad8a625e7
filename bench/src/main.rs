//! Ours and the ancestor in turn, on one machine, the same data and the same durability.
//!
//! `bench/run [startup|broker|coordinator|ensemble|store|line]…` prints a section in Markdown, to be put into
//! `bench/RESULTS.md` as it is: the machine, the versions, and a table for each scenario with median,
//! spread, ratio and losses. Rates and times on a shared machine are noisy: the ratio is what to read.
//!
//! `ELKFK_BENCH_ROUNDS` (3), `ELKFK_BENCH_LINES` (1000000) and `ELKFK_BENCH_SECONDS` (5, of each load on
//! the coordinator) make it shorter, for a try.

mod boxes;
mod broker;
mod coordinator;
mod ensemble;
mod line;
mod machine;
mod startup;
mod store;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

type Scenario = fn() -> Result<()>;
const SCENARIOS: [(&str, &str, Scenario); 6] = [
    ("startup", "Start-up", startup::run),
    ("broker", "Broker", broker::run),
    ("coordinator", "Coordinator", coordinator::run),
    ("ensemble", "Ensemble", ensemble::run),
    ("store", "Store", store::run),
    ("line", "The line", line::run),
];

fn main() -> Result<ExitCode> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    for name in &asked {
        if !SCENARIOS.iter().any(|(known, ..)| known == name) {
            bail!(
                "no scenario {name}; there are: {}",
                SCENARIOS.map(|(known, ..)| known).join(", ")
            );
        }
    }
    elkfk_tests::peers::use_their_own_heaps();
    machine::print(&asked)?;
    let mut failed = false;
    for (name, title, scenario) in SCENARIOS {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            eprintln!("bench: {name}");
            println!("### {title}\n");
            // What the other scenarios measured is worth having.
            if let Err(error) = scenario() {
                failed = true;
                eprintln!("bench {name}: {error:#}");
                println!("Failed: {error:#}\n");
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A file of `count` lines from the log generator, made once and kept beside the build.
fn lines(kind: &str, count: usize) -> Result<PathBuf> {
    let dir = elkfk_tests::workspace().join("target/bench-data");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{kind}-{count}.log"));
    if !path.exists() {
        let text = elkfk_tests::gen_logs("bench", kind, count, 1).context("the log generator")?;
        // Under its name only once it is whole.
        let part = path.with_extension("part");
        std::fs::write(&part, text)?;
        std::fs::rename(&part, &path)?;
    }
    Ok(path)
}

fn from_env<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Lines asked for, else `default`.
fn line_count(default: usize) -> usize {
    from_env("ELKFK_BENCH_LINES", default)
}

/// How often each figure is taken.
fn rounds() -> usize {
    from_env("ELKFK_BENCH_ROUNDS", 3).max(1)
}

/// Seconds of one load, else `default`.
fn seconds(default: u64) -> u64 {
    from_env("ELKFK_BENCH_SECONDS", default)
}
