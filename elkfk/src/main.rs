//! The one binary: `elkfk up` wires every box in one process, a subcommand runs one.

mod alone;
mod args;
mod autoscale;
mod check;
mod config;
mod coordinator;
mod demo;
mod files;
mod healthcheck;
mod kafka_tools;
mod lag;
mod plan;
mod say;
mod signals;
mod top;
mod up;
mod znode;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use args::{AutoscaleCommand, Cli, Command};
use say::asideln;

/// The system's keeps what a peak took, in an arena per thread: 450 MiB after a million lines, where
/// this one keeps 35. How soon it gives back: `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    // A link named kafka-topics.sh is that tool.
    if let Some(tool) = kafka_tools::tool_name(&program.to_string_lossy()) {
        return kafka_tools::run(tool, args.collect());
    }
    let cli = Cli::parse();
    if let Command::Tool(words) = &cli.command {
        return tool(words);
    }
    elkfk_base::telemetry::init(&default_filter(&cli.command));
    match run(cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            asideln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// A subcommand that clap does not know: one of Kafka's tools, or a slip of the pen.
fn tool(words: &[OsString]) -> ExitCode {
    let name = words.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some(tool) = kafka_tools::tool_name(&name) {
        return kafka_tools::run(tool, words[1..].to_vec());
    }
    let known = [
        "up",
        "init",
        "check",
        "config",
        "shipper",
        "broker",
        "coordinator",
        "znode",
        "sink",
        "store",
        "dashboard",
        "lag",
        "top",
        "autoscale",
        "replay",
        "healthcheck",
    ];
    let hint = elkfk_base::mistakes::did_you_mean(
        &name,
        known.into_iter().chain(kafka_tools::tool_names()),
    );
    asideln!("error: no command {name:?}{hint}; elkfk --help lists them");
    ExitCode::from(2)
}

/// In one process with all boxes, the diary of each would drown what matters.
fn default_filter(command: &Command) -> String {
    match command {
        Command::Up(_) => "warn".into(),
        // What it has to say is its answer.
        Command::Znode(_) => "error".into(),
        _ => "info".into(),
    }
}

fn run(command: Command) -> Result<bool> {
    match command {
        Command::Init(args) => return files::init(&args.dir).map(|()| true),
        Command::Check(args) => return check::run(&args.files),
        Command::Config(args) => return config::run(&args).map(|()| true),
        Command::Autoscale(args::Autoscale { command: AutoscaleCommand::Simulate(args) }) => {
            return autoscale::simulate(&args).map(|()| true);
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match command {
            Command::Up(args) => up::run(args).await.map(|()| true),
            Command::Shipper(args) => alone::shipper(args).await.map(|()| true),
            Command::Broker(args) => alone::broker(args).await.map(|()| true),
            Command::Coordinator(args) => coordinator::run(args).await,
            Command::Znode(args) => znode::run(args).await,
            Command::Sink(args) => alone::sink(args).await.map(|()| true),
            Command::Store(args) => alone::store(args).await.map(|()| true),
            Command::Dashboard(args) => alone::dashboard(args).await.map(|()| true),
            Command::Lag(args) => lag::run(args).await,
            Command::Top(args) => top::run(args).await.map(|()| true),
            Command::Autoscale(args) => autoscale::run(args.command).await,
            Command::Replay(args) => alone::replay(args).await,
            Command::Healthcheck(args) => healthcheck::run(args).await,
            Command::Init(_) | Command::Check(_) | Command::Config(_) | Command::Tool(_) => {
                Ok(true)
            }
        }
    });
    // A blocking task that still runs (a file on a dead disk, say) must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}
