//! A real file system that fills up below our coordinator.

#[path = "coordinator_process/mod.rs"]
mod coordinator_process;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coordinator_process::Coordinator;
use elkfk_coordinator_client::{Client, Config, CreateMode, ErrorCode};
use elkfk_tests::peers;

/// Its data is on a file system of this size, in a mount namespace of its own.
const MOUNT: &str = "size=40m";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_keeps_reads_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    match Coordinator::start_on_tmpfs(dir.path(), MOUNT, "tickTime=1000") {
        Some(coordinator) => fill(coordinator.unwrap()).await.unwrap(),
        None => peers::skip(
            "a_full_disk_refuses_writes_keeps_reads_and_heals",
            "the right to mount a tmpfs",
        ),
    }
}

async fn fill(mut coordinator: Coordinator) -> Result<()> {
    let mut config = Config::parse(&coordinator.addr.to_string())?;
    config = config.with_session_timeout(Duration::from_secs(4));
    let client = Client::connect(config).await?;
    client.create("/full", "before", CreateMode::Persistent).await?;
    client.create("/full/alive", [], CreateMode::Ephemeral).await?;

    // Seen from outside its namespace, the mount is below the process's own root.
    let filler = PathBuf::from(format!("/proc/{}/root", coordinator.id()))
        .join(coordinator.data_dir().strip_prefix("/")?)
        .join("filler");
    let mut file = File::create(&filler).context("create a file in the mount")?;
    while file.write_all(&[1; 4096]).is_ok() {}

    // The room that was reserved is used up, then every write is refused; none is half done.
    let mut acknowledged = Vec::new();
    let refused = loop {
        let path = format!("/full/{}", acknowledged.len());
        match client.create(&path, vec![2; 500_000], CreateMode::Persistent).await {
            Ok(path) => acknowledged.push(path),
            Err(error) => break error,
        }
        ensure!(acknowledged.len() < 100, "the disk is not full");
    };
    assert_eq!(refused.code(), Some(ErrorCode::ConnectionLoss), "{refused}");
    ensure!(coordinator.output().contains("writes are refused, reads go on"));
    assert_eq!(&client.get("/full").await?.0[..], b"before");
    // Longer than the session's timeout.
    tokio::time::sleep(Duration::from_secs(6)).await;
    ensure!(client.exists("/full/alive").await?.is_some());
    client.set("/full", "during", None).await.unwrap_err();

    drop(file);
    std::fs::remove_file(&filler)?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while client.set("/full", "after", None).await.is_err() {
        ensure!(tokio::time::Instant::now() < deadline, "it does not heal");
    }
    ensure!(coordinator.output().contains("writes are taken again"));
    for path in &acknowledged {
        assert_eq!(client.get(path).await?.0.len(), 500_000);
    }
    ensure!(client.exists("/full/alive").await?.is_some());
    client.close().await;
    coordinator.stop()
}
