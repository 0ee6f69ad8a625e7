//! Our coordinator, asked by our client as a real ZooKeeper is.

#[path = "coordinator_proxy/mod.rs"]
mod coordinator_proxy;
#[path = "coordinator_suite/mod.rs"]
mod coordinator_suite;

use std::time::Duration;

use elkfk_coordinator::Config;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_ours_server_ours() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        tick_time: Duration::from_millis(200),
        session_timeout_max: Some(Duration::from_secs(60)),
        extended_types: true,
        ..Config::embedded(dir.path())
    };
    let running = elkfk_coordinator::start(config).await.unwrap();
    let addr = running.local_addr().to_string();
    coordinator_suite::run(&addr).await.unwrap();
    coordinator_suite::run_later(&addr).await.unwrap();
    running.stop().await;
}
