//! Runs one pipeline until it is interrupted: `run FILE…`, for tests that kill it.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    elkfk_base::telemetry::init("info");
    let files = std::env::args().skip(1).map(Into::into).collect();
    let running = match elkfk_sink::start(elkfk_sink::Config { files, ..Default::default() }).await
    {
        Ok(running) => running,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        reason = running.failed() => {
            eprintln!("{reason}");
            return ExitCode::FAILURE;
        }
    }
    running.stop().await;
    ExitCode::SUCCESS
}
