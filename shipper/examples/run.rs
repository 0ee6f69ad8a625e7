//! `run FILEBEAT_YML`: the shipper alone, until Ctrl-C or SIGTERM.

use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    elkfk_base::telemetry::init("info");
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: run FILEBEAT_YML");
        std::process::exit(2);
    };
    let config = match elkfk_shipper::Config::read(Path::new(&path), false) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            std::process::exit(2);
        }
    };
    let shipper = match elkfk_shipper::start(config).await {
        Ok(shipper) => shipper,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    };
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be waited for");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        error = shipper.failed() => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
    shipper.stop().await;
    if std::env::var_os("ELKFK_METRICS").is_some() {
        print!("{}", elkfk_base::telemetry::metrics_text());
    }
}
