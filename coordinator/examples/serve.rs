//! Runs a coordinator alone: `serve ZOO.CFG`, until Ctrl-C.

use std::path::Path;
use std::process::ExitCode;

use elkfk_coordinator::{Config, start};

#[tokio::main]
async fn main() -> ExitCode {
    elkfk_base::telemetry::init("info");
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: serve ZOO.CFG");
        return ExitCode::from(2);
    };
    let config = match Config::from_file(Path::new(&path)) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(2);
        }
    };
    let running = match start(config).await {
        Ok(running) => running,
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            eprint!("{error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!();
            return ExitCode::from(2);
        }
    };
    println!("ready {}", running.local_addr());
    let failure = tokio::select! {
        why = running.failed() => Some(why),
        _ = tokio::signal::ctrl_c() => None,
    };
    running.stop().await;
    match failure {
        Some(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
        None => ExitCode::SUCCESS,
    }
}
