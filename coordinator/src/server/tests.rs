//! The shell over real sockets, its log on a simulated disk.

use elkfk_wire::jute::{
    Acl, ConnectRequest, ConnectResponse, CreateKind, OpCode, Reader, ReplyHeader, Request,
    RequestHeader, Response, SessionId, Zxid, end_frame, start_frame, xid,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::wal::simulated::SimulatedDisk;

/// What takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves what `disk` holds. Its snapshots are on that disk too, but none is taken here.
async fn serve_on(disk: &SimulatedDisk, segment_bytes: u64, started: Instant) -> Running {
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        tick_time: Duration::from_secs(1),
        client_connections_max: 0,
        ..Config::embedded("/nonexistent")
    };
    let members = ensemble::members(&[], 1);
    let recovered = recover(disk.clone(), disk.clone(), 1, &members, segment_bytes).unwrap();
    let listener = listen(config.listen).await.unwrap();
    let (listeners, config) = ((listener, None), Arc::new(config));
    serve_recovered(listeners, Vec::new(), config, recovered, disk.clone(), started).await.unwrap()
}

async fn serve(disk: &SimulatedDisk) -> Running {
    serve_on(disk, SEGMENT_BYTES, Instant::now()).await
}

struct Client {
    stream: TcpStream,
    session: SessionId,
    password: Vec<u8>,
}

impl Client {
    async fn connect(running: &Running) -> Self {
        Self::resume(running, SessionId(0), &[0; 16]).await
    }

    async fn resume(running: &Running, session: SessionId, password: &[u8]) -> Self {
        let mut stream = TcpStream::connect(running.local_addr()).await.unwrap();
        let mut out = Vec::new();
        let start = start_frame(&mut out);
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid(0),
            timeout_ms: 10_000,
            session,
            password,
            read_only: Some(false),
        };
        request.encode(&mut out);
        end_frame(&mut out, start);
        stream.write_all(&out).await.unwrap();
        let frame = read_frame(&mut stream).await.unwrap();
        let response = ConnectResponse::decode(&frame).unwrap();
        let (session, password) = (response.session, response.password.to_vec());
        Self { stream, session, password }
    }

    async fn send(&mut self, xid: i32, request: &Request<'_>) {
        let mut out = Vec::new();
        let start = start_frame(&mut out);
        RequestHeader { xid, op: request.op().code() }.encode(&mut out);
        request.encode(&mut out);
        end_frame(&mut out, start);
        self.stream.write_all(&out).await.unwrap();
    }

    /// Number and error of the next answer; `None` where the server closed.
    async fn answer(&mut self) -> Option<(i32, i32)> {
        let frame = read_frame(&mut self.stream).await?;
        let header = ReplyHeader::decode(&mut Reader::new(&frame)).unwrap();
        Some((header.xid, header.error))
    }

    async fn data(&mut self, path: &str) -> Option<Vec<u8>> {
        self.send(1, &Request::GetData { path: path.into(), watch: false }).await;
        let frame = read_frame(&mut self.stream).await?;
        let mut reader = Reader::new(&frame);
        if ReplyHeader::decode(&mut reader).unwrap().error != 0 {
            return None;
        }
        match Response::decode(OpCode::GetData, &mut reader) {
            Ok(Response::Data(data, _)) => data.map(|data| data.into_owned()),
            other => panic!("{other:?}"),
        }
    }
}

async fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let read = async {
        let length = stream.read_i32().await?;
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await.map(|_| frame)
    };
    timeout(PATIENCE, read).await.expect("an answer or the end in time").ok()
}

fn create(path: &str, data: &[u8]) -> Request<'static> {
    Request::Create {
        kind: CreateKind::Create,
        path: path.to_owned().into(),
        data: Some(data.to_vec().into()),
        acl: Some(vec![Acl::OPEN]),
        flags: 0,
        ttl_ms: 0,
    }
}

async fn stop(running: Running) {
    timeout(PATIENCE, running.stop()).await.expect("it stops");
}

#[tokio::test]
async fn what_is_acknowledged_survives_a_power_cut() {
    let disk = SimulatedDisk::new(5);
    let running = serve(&disk).await;
    let mut client = Client::connect(&running).await;
    for number in 0..20 {
        client.send(number, &create(&format!("/{number}"), &[number as u8])).await;
        assert_eq!(client.answer().await, Some((number, 0)));
    }
    disk.lose_power();
    // The old process is gone with the power; what it still holds must not reach the disk.
    disk.fail_sync_after(0);
    stop(running).await;
    disk.fail_sync_after(u32::MAX);
    let running = serve(&disk).await;
    let mut client = Client::connect(&running).await;
    for number in 0..20u8 {
        assert_eq!(client.data(&format!("/{number}")).await, Some(vec![number]));
    }
    stop(running).await;
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_durable_and_writers_share_a_sync() {
    const WRITERS: usize = 100;
    let disk = SimulatedDisk::new(5);
    let running = serve(&disk).await;
    let mut clients = Vec::new();
    for _ in 0..WRITERS {
        clients.push(Client::connect(&running).await);
    }
    disk.hold_syncs(true);
    let before = disk.syncs();
    for (at, client) in clients.iter_mut().enumerate() {
        client.send(1, &create(&format!("/{at}"), b"x")).await;
        client.send(xid::PING, &Request::Ping).await;
        // A ping overtakes what waits for the disk, so the write before it has come, and waits.
        assert_eq!(client.answer().await, Some((xid::PING, 0)));
    }
    disk.hold_syncs(false);
    for client in &mut clients {
        assert_eq!(client.answer().await, Some((1, 0)));
    }
    // The first writes, and all that came while they were on their way.
    let syncs = disk.syncs() - before;
    assert!(syncs <= 3, "{syncs} syncs for {WRITERS} writes");
    stop(running).await;
}

#[tokio::test]
async fn a_failed_sync_is_told_acknowledges_nothing_and_ends() {
    let disk = SimulatedDisk::new(5);
    let running = serve(&disk).await;
    let mut client = Client::connect(&running).await;
    disk.fail_sync_after(0);
    client.send(1, &create("/lost", b"x")).await;
    let why = timeout(PATIENCE, running.failed()).await.expect("it fails");
    assert!(why.starts_with("write to the log: "), "{why}");
    stop(running).await;
    assert_eq!(client.answer().await, None);
}

#[tokio::test]
async fn it_stops_while_a_batch_waits_for_a_full_disk() {
    let disk = SimulatedDisk::new(5);
    let running = serve_on(&disk, 16 << 10, Instant::now()).await;
    let mut client = Client::connect(&running).await;
    disk.set_capacity(0);
    // More than was reserved: the log's thread waits for room with it.
    client.send(1, &create("/large", &[1; 100_000])).await;
    // It was told so by the second time, and has been refusing writes since.
    while disk.denials() < 2 {
        client.send(xid::PING, &Request::Ping).await;
        assert_eq!(client.answer().await, Some((xid::PING, 0)));
    }
    stop(running).await;
    assert_eq!(client.answer().await, None);
    // It was never acknowledged, and what is there goes on.
    disk.set_capacity(u64::MAX);
    stop(serve(&disk).await).await;
}

#[tokio::test]
async fn the_time_of_a_long_recovery_is_not_held_against_sessions() {
    let disk = SimulatedDisk::new(5);
    let running = serve(&disk).await;
    let mut client = Client::connect(&running).await;
    // Only a later batch says that the session is committed: it is there before it serves then.
    for number in 0..3 {
        client.send(number, &create(&format!("/{number}"), &[])).await;
        assert_eq!(client.answer().await, Some((number, 0)));
    }
    stop(running).await;
    // As if reading the log back had taken longer than any session may be silent.
    let started = Instant::now().checked_sub(Duration::from_secs(100)).expect("up for so long");
    let running = serve_on(&disk, SEGMENT_BYTES, started).await;
    let again = Client::resume(&running, client.session, &client.password).await;
    assert_eq!(again.session, client.session);
    stop(running).await;
}

#[tokio::test]
async fn answers_on_their_way_are_sent_before_it_ends() {
    let disk = SimulatedDisk::new(5);
    let running = serve(&disk).await;
    let mut client = Client::connect(&running).await;
    disk.hold_syncs(true);
    client.send(1, &create("/last", b"x")).await;
    client.send(xid::PING, &Request::Ping).await;
    assert_eq!(client.answer().await, Some((xid::PING, 0)));
    let stopping = tokio::spawn(stop(running));
    disk.hold_syncs(false);
    assert_eq!(client.answer().await, Some((1, 0)));
    assert_eq!(client.answer().await, None);
    stopping.await.unwrap();
}

#[tokio::test]
async fn the_end_of_its_task_is_told() {
    let disk = SimulatedDisk::new(5);
    let mut running = serve(&disk).await;
    // As a panic of the task leaves it.
    running.failed = watch::channel(None).1;
    let why = timeout(PATIENCE, running.failed()).await.expect("it fails");
    assert!(why.contains("ended"), "{why}");
    stop(running).await;
}
