//! Serves a store: `serve [LISTEN] [DATA_DIR] [CLUSTER_NAME]`. Ends on Ctrl-C.

use elkfk_store::Config;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    elkfk_base::telemetry::init("info");
    let mut arguments = std::env::args().skip(1);
    let mut config = Config::default();
    if let Some(listen) = arguments.next() {
        config.listen = listen.parse()?;
    }
    if let Some(data_dir) = arguments.next() {
        config.data_dir = data_dir.into();
    }
    if let Some(name) = arguments.next() {
        config.cluster_name = name;
    }
    let running = elkfk_store::start(config).await?;
    println!("ready: http://{} (pid {})", running.local_addr(), std::process::id());
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        reason = running.failed() => eprintln!("store failed: {reason}"),
    }
    running.stop().await;
    Ok(())
}
