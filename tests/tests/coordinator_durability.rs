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

/// Znodes `/{from}` to `/{to}`, each holding its path.
async fn create_numbered(addr: SocketAddr, from: usize, to: usize) -> Result<()> {
    let client = connect(addr).await?;
    for number in from..to {
        let path = format!("/{number}");
        client.create(&path, path.as_bytes(), CreateMode::Persistent).await?;
    }
    client.close().await;
    Ok(())
}

async fn has_numbered(addr: SocketAddr, to: usize) -> Result<()> {
    let client = connect(addr).await?;
    for number in 0..to {
        let path = format!("/{number}");
        assert_eq!(client.get(&path).await?.0, path.as_bytes());
    }
    client.close().await;
    Ok(())
}

/// Where the records of a log end and the reserved room begins.
fn log_end(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    last.next_multiple_of(8)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_end_is_told_and_cut_off_and_damage_before_it_is_refused() {
    survive_a_torn_end().await.unwrap();
}

async fn survive_a_torn_end() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut coordinator = Coordinator::start(dir.path(), "")?;
    create_numbered(coordinator.addr, 0, 50).await?;
    coordinator.kill();
    let log = coordinator.newest_log()?;
    let mut bytes = std::fs::read(&log)?;
    let end = log_end(&bytes);
    bytes[end..end + 300].fill(0xa5);
    std::fs::write(&log, &bytes)?;

    coordinator.start_again()?;
    let output = coordinator.output();
    ensure!(output.contains("the end of the log was torn by a crash and is cut off"), "{output}");
    has_numbered(coordinator.addr, 50).await?;
    create_numbered(coordinator.addr, 50, 60).await?;
    coordinator.kill();
    coordinator.start_again()?;
    has_numbered(coordinator.addr, 60).await?;
    coordinator.kill();

    let mut bytes = std::fs::read(&log)?;
    let middle = log_end(&bytes) / 2;
    bytes[middle] ^= 1;
    std::fs::write(&log, &bytes)?;
    let said = coordinator.fail_to_start()?;
    let name = log.file_name().unwrap().to_str().unwrap();
    ensure!(said.contains(&format!("{name} is damaged at byte ")), "{said}");
    ensure!(said.contains("acknowledged changes are lost"), "{said}");
    bytes[middle] ^= 1;
    std::fs::write(&log, &bytes)?;
    coordinator.start_again()?;
    has_numbered(coordinator.addr, 60).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_not_looked_for_where_it_is_not() {
    move_the_log().await.unwrap();
}

async fn move_the_log() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let apart = format!("dataLogDir={}", dir.path().join("log").display());
    // The key added.
    let mut coordinator = Coordinator::start(&dir.path().join("one"), "#dataLogDir")?;
    create_numbered(coordinator.addr, 0, 3).await?;
    coordinator.stop()?;
    coordinator.replace_in_config("#dataLogDir", &apart)?;
    let said = coordinator.fail_to_start()?;
    ensure!(said.contains("move the files log-* there"), "{said}");
    coordinator.replace_in_config(&apart, "")?;
    coordinator.start_again()?;
    has_numbered(coordinator.addr, 3).await?;

    // And removed.
    let apart = format!("{apart}2");
    let mut coordinator = Coordinator::start(&dir.path().join("two"), &apart)?;
    create_numbered(coordinator.addr, 0, 3).await?;
    coordinator.stop()?;
    coordinator.replace_in_config(&apart, "#dataLogDir")?;
    let said = coordinator.fail_to_start()?;
    ensure!(said.contains("set dataLogDir as it was"), "{said}");
    coordinator.replace_in_config("#dataLogDir", &apart)?;
    coordinator.start_again()?;
    has_numbered(coordinator.addr, 3).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_late_costs_little_memory_and_gets_every_answer() {
    read_late().await.unwrap();
}

async fn read_late() -> Result<()> {
    const READS: usize = 3000;
    let dir = tempfile::tempdir()?;
    let mut coordinator = Coordinator::start(dir.path(), "tickTime=3000")?;
    let client = connect(coordinator.addr).await?;
    let large = vec![7; 900_000];
    client.create("/large", &large, CreateMode::Persistent).await?;

    let mut stream = TcpStream::connect(coordinator.addr).await?;
    let handshake =
        [&[0, 0, 0, 44][..], &[0; 12], &[0, 0, 0xea, 0x60], &[0; 8], &[0, 0, 0, 16], &[0; 16]];
    stream.write_all(&handshake.concat()).await?;
    stream.read_exact(&mut [0; 40]).await?;
    let mut requests = Vec::new();
    for xid in 0..READS as u32 {
        requests.extend([0, 0, 0, 19]);
        requests.extend(xid.to_be_bytes());
        requests.extend([0, 0, 0, 4, 0, 0, 0, 6]);
        requests.extend(b"/large\0");
    }
    // All of it is taken before the first answer is read.
    stream.write_all(&requests).await?;
    for xid in 0..READS as u32 {
        let length = timeout(PATIENCE, stream.read_u32()).await??;
        let mut frame = vec![0; length as usize];
        timeout(PATIENCE, stream.read_exact(&mut frame)).await??;
        assert_eq!(frame[..4], xid.to_be_bytes());
        assert_eq!(frame.len(), 16 + 4 + large.len() + 68);
    }
    let peak = coordinator.peak_bytes()?;
    ensure!(peak < 150 << 20, "{peak} bytes");
    client.close().await;
    coordinator.stop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_the_one_listed_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut coordinator = Coordinator::start(dir.path(), "server.1=localhost:2888:3888").unwrap();
    coordinator.stop().unwrap();
    std::fs::write(coordinator.data_dir().join("myid"), "2\n").unwrap();
    let said = coordinator.fail_to_start().unwrap();
    assert!(said.contains("this is server 2"), "{said}");
    std::fs::write(coordinator.data_dir().join("myid"), "1\n").unwrap();
    coordinator.start_again().unwrap();
}
