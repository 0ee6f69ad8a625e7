//! kill -9, bad input and a full disk: what was acknowledged stays, and nothing takes the server down.

#[path = "coordinator_process/mod.rs"]
mod coordinator_process;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use coordinator_process::Coordinator;
use elkfk_coordinator_client::{Client, Config, CreateMode, ErrorCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(30);

async fn connect(addr: SocketAddr) -> Result<Client> {
    let mut config = Config::parse(&addr.to_string())?;
    config = config.with_session_timeout(Duration::from_secs(20));
    Ok(Client::connect(config).await?)
}

/// Creates children of `parent` one after another until told to stop; returns those acknowledged.
async fn create_all(
    client: Client,
    parent: String,
    stop: tokio_util::sync::CancellationToken,
) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let path = format!("{parent}/{number}");
        // Lost with the connection: done or not, so it does not count.
        if client.create(&path, path.as_bytes(), CreateMode::Persistent).await.is_ok() {
            acknowledged.push(path);
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_that_was_acknowledged() {
    survive_kills().await.unwrap();
}

async fn survive_kills() -> Result<()> {
    let dir = tempfile::tempdir()?;
    // Snapshots often, so that kills fall into them too.
    let mut coordinator = Coordinator::start(dir.path(), "tickTime=1000\nsnapCount=2000")?;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut writers = tokio::task::JoinSet::new();
    let mut clients = Vec::new();
    for writer in 0..12 {
        let client = connect(coordinator.addr).await?;
        let parent = format!("/writer{writer}");
        client.create(&parent, [], CreateMode::Persistent).await?;
        client.create(&format!("/alive{writer}"), [], CreateMode::Ephemeral).await?;
        clients.push((client.clone(), client.session_id()));
        writers.spawn(create_all(client, parent, stop.clone()));
    }
    for pause_ms in [900, 350, 1400, 20, 700, 1100] {
        sleep(Duration::from_millis(pause_ms)).await;
        coordinator.kill();
        coordinator.start_again()?;
    }
    sleep(Duration::from_secs(1)).await;
    stop.cancel();
    let mut acknowledged = Vec::new();
    while let Some(paths) = writers.join_next().await {
        acknowledged.extend(paths?);
    }
    coordinator.kill();
    coordinator.start_again()?;
    let reader = connect(coordinator.addr).await?;
    println!("{} creates acknowledged", acknowledged.len());
    ensure!(acknowledged.len() > 1000, "only {} creates", acknowledged.len());
    for path in &acknowledged {
        let (data, _) = reader.get(path).await?;
        assert_eq!(data, path.as_bytes());
    }
    for (writer, (client, session)) in clients.iter().enumerate() {
        assert_eq!(client.session_id(), *session, "sessions live through kills");
        ensure!(reader.exists(&format!("/alive{writer}")).await?.is_some());
    }
    let output = coordinator.output();
    ensure!(output.contains("snapshot written"), "no snapshot was taken: {output}");
    ensure!(!output.contains("ERROR") && !output.contains("panicked"), "{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_told_and_does_no_harm() {
    take_bad_input().await.unwrap();
}

/// Sends `bytes` and returns what comes back until the server closes.
async fn send(addr: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(addr).await?;
    // The server may have closed before all is sent: that is its answer.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await?;
    Ok(answer)
}

async fn take_bad_input() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut coordinator = Coordinator::start(dir.path(), "tickTime=500")?;
    let addr = coordinator.addr;
    let witness = connect(addr).await?;
    witness.create("/witness", [], CreateMode::Ephemeral).await?;
    let mut random = vec![0u8; 4096];
    for (at, byte) in random.iter_mut().enumerate() {
        *byte = (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] | 0x40;
    }
    let cases: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "an HTTP request on ZooKeeper's client port"),
        (&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00], "a TLS hello on the plain client port"),
        (&[0x7f, 0xff, 0xff, 0xff], "frame announces 2147483647 bytes, jute.maxbuffer is 1048575"),
        (&[0xff, 0xff, 0xff, 0xff], "frame announces -1 bytes"),
        (&random, "not a ZooKeeper client"),
        (&[0, 0, 0, 4, 1, 2, 3, 4], "not a ZooKeeper client: record ends"),
    ];
    for (bytes, said) in cases {
        assert_eq!(send(addr, bytes).await?, b"", "{said}");
        ensure!(coordinator.output().contains(said), "{said}: {}", coordinator.output());
    }
    // After a proper handshake: nonsense requests are answered or the connection ends, no more.
    let handshake =
        [&[0, 0, 0, 44][..], &[0; 12], &[0, 0, 0x27, 0x10], &[0; 8], &[0, 0, 0, 16], &[0; 16]]
            .concat();
    for request in
        [&[0u8, 0, 0, 1, 9][..], &[0x7f, 0, 0, 0], &[0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0x99, 0x99]]
    {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(&handshake).await?;
        let mut response = [0; 40];
        timeout(PATIENCE, stream.read_exact(&mut response)).await??;
        stream.write_all(request).await?;
        let mut header = [0; 20];
        if let Ok(Ok(_)) = timeout(PATIENCE, stream.read_exact(&mut header)).await {
            let error = i32::from_be_bytes([header[16], header[17], header[18], header[19]]);
            assert_eq!(ErrorCode::from_code(error), Some(ErrorCode::Unimplemented));
        }
    }
    // Many half-open connections hold nobody up.
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(TcpStream::connect(addr).await?);
    }
    for word in [
        "ruok", "srvr", "stat", "mntr", "conf", "cons", "isro", "envi", "wchs", "wchc", "dump",
        "dirs",
    ] {
        ensure!(!send(addr, word.as_bytes()).await?.is_empty(), "{word}");
    }
    assert_eq!(send(addr, b"ruok").await?, b"imok");
    drop(open);
    ensure!(witness.exists("/witness").await?.is_some());
    // A request over the limit ends its connection, not the session or the server.
    let large = vec![0; 2 << 20];
    witness.create("/large", &large, CreateMode::Persistent).await.unwrap_err();
    ensure!(witness.exists("/large").await?.is_none());
    ensure!(witness.exists("/witness").await?.is_some());
    ensure!(!coordinator.output().contains("panicked"), "{}", coordinator.output());
    coordinator.stop()
}
