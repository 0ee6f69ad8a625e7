//! Our client on a real ZooKeeper.

#[path = "coordinator_later/mod.rs"]
mod coordinator_later;
#[path = "coordinator_proxy/mod.rs"]
mod coordinator_proxy;
#[path = "coordinator_suite/mod.rs"]
mod coordinator_suite;

use elkfk_tests::peers::{self, Peer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_ours_server_zookeeper() {
    if !peers::have("client_ours_server_zookeeper", &[Peer::ZooKeeper]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = peers::zookeeper(dir.path(), "tickTime=200\nmaxSessionTimeout=60000").unwrap();
    coordinator_suite::run(&server.addr.to_string()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_ours_server_zookeeper_39() {
    let Some(jars) = coordinator_later::jars() else {
        return peers::skip("client_ours_server_zookeeper_39", "zookeeper 3.9");
    };
    let dir = tempfile::tempdir().unwrap();
    let options = ["extendedTypesEnabled=true"];
    let (_server, addr) = coordinator_later::start(&jars, dir.path(), &options).unwrap();
    coordinator_suite::run_later(&addr).await.unwrap();
}
