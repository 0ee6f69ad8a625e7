//! The sockets between the servers of an ensemble.
//!
//! Each server connects to each other one, and sends on its own connection only; what comes back on
//! it says that the other is there. A snapshot has a connection of its own. A connection opens with
//! who calls and who is called, so that servers that were given the same number, or each other's
//! addresses, are told so.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use elkfk_base::Tasks;
use elkfk_base::errors::in_one_line;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::complaints::Complaints;
use crate::consensus::Message;
use crate::ensemble::Server;
use crate::machine::Machine;
use crate::replica::{FRAME_OVERHEAD_BYTES, PeerMessage};
use crate::snapshots::SnapshotReceiver;
use crate::wal::disk::Directory;

const MAGIC: &[u8; 8] = b"elkfkpr1";
/// Magic, what for, from, to, and which life of the caller.
const CALL_BYTES: usize = 8 + 1 + 8 + 8 + 8;
const FOR_MESSAGES: u8 = 1;
const FOR_SNAPSHOT: u8 = 2;
/// An answer's text; nobody needs more.
const REFUSAL_BYTES_MAX: usize = 512;
/// What may wait for a server that does not read; then the connection is given up, and with it
/// what waited.
const UNSENT_BYTES_MAX: usize = 64 << 20;
/// A connection is tried again after this long.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// After a refusal, which does not pass by itself.
const RETRY_REFUSED: Duration = Duration::from_secs(3);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// The other is asked this often whether it is there, and given up after that long without answer.
const PING_INTERVAL: Duration = Duration::from_millis(250);
const SILENCE_LIMIT: Duration = Duration::from_secs(3);
/// Another connection of the same server counts as alive while it was heard of this lately.
const ALIVE: Duration = Duration::from_secs(2);
const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;
const SNAPSHOT_SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// What the connections tell the node.
#[derive(Debug)]
pub(super) enum PeerInput {
    /// What is sent to this server arrives from now on.
    Up {
        id: u64,
    },
    /// What was sent may be lost. `is_gone`: its process has ended, as far as the socket tells.
    Down {
        id: u64,
        is_gone: bool,
    },
    Message {
        from: u64,
        message: PeerMessage,
    },
    /// A snapshot has come, and is durable.
    Snapshot {
        from: u64,
        message: Message,
        machine: Box<Machine>,
    },
    SnapshotSent {
        to: u64,
        is_whole: bool,
    },
}

/// What the tasks of all connections share.
#[derive(Debug)]
pub(super) struct Peers {
    id: u64,
    /// Another one in each life of this server.
    boot: u64,
    inputs: mpsc::Sender<PeerInput>,
    /// By the server they go to.
    others: RwLock<HashMap<u64, Other>>,
    message_bytes_max: usize,
    snapshots: PathBuf,
    callers: Mutex<HashMap<u64, Caller>>,
    complaints: Complaints,
    /// One snapshot at a time.
    receiving: Mutex<()>,
    tasks: Tasks,
}

/// One of the other servers.
#[derive(Debug)]
struct Other {
    server: Server,
    outlet: Arc<Outlet>,
    /// One connection of it at a time hands on what it says.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// It has called, so it can be called.
    has_called: Arc<Notify>,
    /// It is no member any more, or has another address.
    left: CancellationToken,
}

/// The connection on which a server talks to us.
#[derive(Debug)]
struct Caller {
    boot: u64,
    from: SocketAddr,
    heard: Instant,
    /// Told when another connection of this server takes over: what is left on this one would
    /// come after what is newer.
    over: CancellationToken,
}

/// What waits to be sent to one server.
#[derive(Debug, Default)]
struct Outlet {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    is_open: bool,
    /// Something was dropped: the connection is to be closed, so that both sides know.
    is_broken: bool,
}

impl Outlet {
    fn push(&self, frame: Vec<u8>) {
        let mut queue = self.queue.lock().expect("no panic while held");
        if !queue.is_open {
            return;
        }
        if queue.bytes > 0 && queue.bytes + frame.len() > UNSENT_BYTES_MAX {
            queue.is_broken = true;
        } else {
            queue.bytes += frame.len();
            queue.frames.push_back(frame);
        }
        drop(queue);
        self.wake.notify_one();
    }

    fn set_open(&self, is_open: bool) {
        let mut queue = self.queue.lock().expect("no panic while held");
        *queue = Queue { is_open, ..Queue::default() };
    }

    /// What is to be written next, in one piece; `None` where the connection is to be closed.
    fn take(&self) -> Option<Vec<u8>> {
        let mut queue = self.queue.lock().expect("no panic while held");
        if queue.is_broken {
            return None;
        }
        let mut piece = queue.frames.pop_front().unwrap_or_default();
        while piece.len() < SNAPSHOT_PIECE_BYTES
            && let Some(frame) = queue.frames.pop_front()
        {
            piece.extend_from_slice(&frame);
        }
        queue.bytes -= piece.len();
        Some(piece)
    }
}

impl Peers {
    pub(super) fn new(
        id: u64,
        boot: u64,
        message_bytes_max: usize,
        snapshots: PathBuf,
        inputs: mpsc::Sender<PeerInput>,
        tasks: Tasks,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            boot,
            inputs,
            others: RwLock::default(),
            message_bytes_max: message_bytes_max + FRAME_OVERHEAD_BYTES,
            snapshots,
            callers: Mutex::default(),
            complaints: Complaints::default(),
            receiving: Mutex::default(),
            tasks,
        })
    }

    /// Accepts and makes connections until the tasks are stopped.
    pub(super) fn start(self: &Arc<Self>, listener: TcpListener, servers: &[Server]) {
        // First, or those who call early would be told that nobody knows them.
        self.update(servers);
        self.tasks.spawn("coordinator peers accept", self.clone().accept(listener));
    }

    /// From now on there are connections to these servers and no others.
    pub(super) fn update(self: &Arc<Self>, servers: &[Server]) {
        let mut others = self.others.write().expect("no panic while held");
        others.retain(|_, other| {
            let stays = servers.contains(&other.server);
            if !stays {
                other.left.cancel();
            }
            stays
        });
        for server in servers {
            if server.id == self.id || others.contains_key(&server.id) {
                continue;
            }
            let other = Other {
                server: server.clone(),
                outlet: Arc::default(),
                turn: Arc::default(),
                has_called: Arc::default(),
                left: CancellationToken::new(),
            };
            let (outlet, has_called) = (other.outlet.clone(), other.has_called.clone());
            let calling = self.clone().call(server.clone(), outlet, has_called);
            let left = other.left.clone();
            self.tasks.spawn("coordinator peer", async move {
                tokio::select! {
                    () = left.cancelled() => {}
                    () = calling => {}
                }
            });
            others.insert(server.id, other);
        }
    }

    fn with<T>(&self, id: u64, take: impl FnOnce(&Other) -> T) -> Option<T> {
        self.others.read().expect("no panic while held").get(&id).map(take)
    }

    /// Queues a message; where there is no way to the server it is dropped.
    pub(super) fn send(&self, to: u64, message: &PeerMessage) {
        if let Some(outlet) = self.with(to, |other| other.outlet.clone()) {
            let mut frame = vec![0; 4];
            message.encode(&mut frame);
            let length = (frame.len() - 4) as u32;
            frame[..4].copy_from_slice(&length.to_be_bytes());
            outlet.push(frame);
        }
    }

    fn call_header(&self, purpose: u8, to: u64) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        header.put_u8(purpose);
        for number in [self.id, to, self.boot] {
            header.put_u64(number);
        }
        header
    }

    /// Keeps a connection to one server.
    async fn call(self: Arc<Self>, server: Server, outlet: Arc<Outlet>, has_called: Arc<Notify>) {
        let mut pause = RETRY;
        let mut told = String::new();
        loop {
            let connected = tokio::select! {
                () = self.tasks.stopping() => return,
                connected = self.connect(&server, FOR_MESSAGES) => connected,
            };
            match connected {
                Ok(stream) => {
                    (pause, told) = (RETRY, String::new());
                    info!(server = server.id, host = server.host, "connected to server");
                    outlet.set_open(true);
                    let id = server.id;
                    if self.inputs.send(PeerInput::Up { id }).await.is_err() {
                        return;
                    }
                    let is_gone = tokio::select! {
                        () = self.tasks.stopping() => return,
                        is_gone = self.talk(stream, &outlet) => is_gone,
                    };
                    outlet.set_open(false);
                    info!(server = id, is_gone, "connection to server lost");
                    if self.inputs.send(PeerInput::Down { id, is_gone }).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let text = error.to_string();
                    let is_refused = error.kind() == io::ErrorKind::PermissionDenied;
                    if text != told {
                        match is_refused {
                            true => error!(
                                server = server.id,
                                host = server.host,
                                port = server.peer_port,
                                "{text}"
                            ),
                            false => warn!(
                                server = server.id,
                                host = server.host,
                                port = server.peer_port,
                                error = text,
                                "server cannot be reached, trying on"
                            ),
                        }
                        told = text;
                    }
                    pause = if is_refused { RETRY_REFUSED } else { (pause * 2).min(RETRY_MAX) };
                }
            }
            tokio::select! {
                () = self.tasks.stopping() => return,
                () = sleep(pause) => {}
                () = has_called.notified() => {}
            }
        }
    }

    /// Connects and is accepted; a refusal is `PermissionDenied`, with what the other said.
    async fn connect(&self, server: &Server, purpose: u8) -> io::Result<TcpStream> {
        let connect = async {
            let mut stream = TcpStream::connect((&*server.host, server.peer_port)).await?;
            stream.set_nodelay(true)?;
            stream.write_all(&self.call_header(purpose, server.id)).await?;
            let length = stream.read_u16().await? as usize;
            if length > 0 {
                let mut why = vec![0; length.min(REFUSAL_BYTES_MAX)];
                stream.read_exact(&mut why).await?;
                let why = String::from_utf8_lossy(&why).into_owned();
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
            }
            Ok(stream)
        };
        match timeout(CONNECT_LIMIT, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 2 seconds")),
        }
    }

    /// Sends what is queued until the connection ends; whether the other's process has ended too.
    async fn talk(&self, stream: TcpStream, outlet: &Outlet) -> bool {
        let (mut reader, mut writer) = stream.into_split();
        let writing = async {
            let mut pings = interval(PING_INTERVAL);
            pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = outlet.wake.notified() => {}
                    // An empty frame asks whether anybody is there.
                    _ = pings.tick() => writer.write_all(&[0; 4]).await?,
                }
                loop {
                    let piece = outlet.take().ok_or(io::ErrorKind::OutOfMemory)?;
                    if piece.is_empty() {
                        break;
                    }
                    writer.write_all(&piece).await?;
                }
            }
            #[expect(unreachable_code, reason = "names the type")]
            io::Result::Ok(())
        };
        let reading = async {
            let mut answers = [0; 64];
            loop {
                match timeout(SILENCE_LIMIT, reader.read(&mut answers)).await {
                    Err(_) => return false,
                    Ok(Ok(0)) => return true,
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return error.kind() == io::ErrorKind::ConnectionReset,
                }
            }
        };
        tokio::select! {
            is_gone = reading => is_gone,
            written = writing => {
                let kind = written.err().map(|error| error.kind());
                matches!(kind, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
            }
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        while let Some((stream, from)) = super::next_connection(&listener, &self.tasks).await {
            let peers = self.clone();
            self.tasks.spawn("coordinator peer in", async move {
                tokio::select! {
                    () = peers.tasks.stopping() => {}
                    result = peers.clone().serve(stream, from) => if let Err(error) = result {
                        debug!(%from, %error, "connection of a server ended");
                    },
                }
            });
        }
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream, from: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut header = [0; CALL_BYTES];
        let read = timeout(CONNECT_LIMIT, stream.read_exact(&mut header)).await;
        if !matches!(read, Ok(Ok(_))) || !header.starts_with(MAGIC) {
            if self.complaints.may_tell(Instant::now()) {
                warn!(%from, "connection on the peer port is not from a server of this program, closing");
            }
            return Ok(());
        }
        let mut header = &header[MAGIC.len()..];
        let purpose = header.get_u8();
        let (id, to, boot) = (header.get_u64(), header.get_u64(), header.get_u64());
        if let Some(why) = self.objection(id, to, boot, from) {
            if self.complaints.may_tell(Instant::now()) {
                warn!(%from, why, "server refused");
            }
            let mut answer = Vec::new();
            answer.put_u16(why.len() as u16);
            answer.extend_from_slice(why.as_bytes());
            return stream.write_all(&answer).await;
        }
        stream.write_all(&[0; 2]).await?;
        match purpose {
            FOR_SNAPSHOT => self.receive_snapshot(stream, id).await,
            _ => self.listen_to(stream, id, boot, from).await,
        }
    }

    /// Why a caller is not listened to.
    fn objection(&self, id: u64, to: u64, boot: u64, from: SocketAddr) -> Option<String> {
        if id == self.id {
            return Some(format!(
                "two servers have the number {id}: correct the myid of the one at {}, or of this one",
                from.ip()
            ));
        }
        if to != self.id {
            return Some(format!(
                "server {to} was called, but this is server {}: compare the lines server.N and myid of both",
                self.id
            ));
        }
        if self.with(id, |_| ()).is_none() {
            return Some(format!(
                "server {id} is no member of the ensemble that server {} knows: add it to every zoo.cfg, or with reconfig; where reconfig has removed it, stop it",
                self.id
            ));
        }
        let callers = self.callers.lock().expect("no panic while held");
        let other = callers.get(&id)?;
        (other.boot != boot && other.heard.elapsed() < ALIVE).then(|| {
            format!(
                "two servers have the number {id}: one at {}, one at {}; correct the myid of one",
                other.from, from
            )
        })
    }

    /// Takes a server's messages until its connection ends.
    async fn listen_to(
        &self,
        mut stream: TcpStream,
        id: u64,
        boot: u64,
        from: SocketAddr,
    ) -> io::Result<()> {
        let over = CancellationToken::new();
        let caller = Caller { boot, from, heard: Instant::now(), over: over.clone() };
        let before = self.callers.lock().expect("no panic while held").insert(id, caller);
        if let Some(before) = before {
            before.over.cancel();
        }
        // Whoever was about to hand on a message of the connection before has done so, or never will.
        let turn = self.with(id, |other| {
            other.has_called.notify_one();
            (other.turn.clone(), other.left.clone())
        });
        let (turn, left) = turn.ok_or(io::ErrorKind::NotFound)?;
        let turn = turn.lock().await;
        let hear = || {
            let mut callers = self.callers.lock().expect("no panic while held");
            if let Some(caller) = callers.get_mut(&id).filter(|_| !over.is_cancelled()) {
                caller.heard = Instant::now();
            }
        };
        let mut input = BytesMut::with_capacity(64 << 10);
        let result = loop {
            let frame = match next_frame(&mut input, self.message_bytes_max) {
                Ok(frame) => frame,
                Err(error) => {
                    warn!(server = id, %error, "server sends what is no message, closing");
                    break Err(error);
                }
            };
            match frame {
                Some(frame) if frame.is_empty() => {
                    hear();
                    if let Err(error) = stream.write_all(&[1]).await {
                        break Err(error);
                    }
                }
                Some(frame) => match PeerMessage::decode(frame) {
                    Ok(message) => {
                        let input = PeerInput::Message { from: id, message };
                        let sent = tokio::select! {
                            biased;
                            () = over.cancelled() => break Ok(()),
                            sent = self.inputs.send(input) => sent,
                        };
                        if sent.is_err() {
                            break Ok(());
                        }
                    }
                    Err(error) => {
                        warn!(server = id, %error, "server sends what is no message, closing");
                        break Ok(());
                    }
                },
                None => {
                    let read = tokio::select! {
                        () = over.cancelled() => break Ok(()),
                        () = left.cancelled() => break Ok(()),
                        read = timeout(SILENCE_LIMIT, stream.read_buf(&mut input)) => read,
                    };
                    match read {
                        Ok(Ok(0)) => break Ok(()),
                        Ok(Ok(_)) => {}
                        Ok(Err(error)) => break Err(error),
                        Err(_) => break Err(io::ErrorKind::TimedOut.into()),
                    }
                }
            }
        };
        drop(turn);
        let mut callers = self.callers.lock().expect("no panic while held");
        if !over.is_cancelled() {
            callers.remove(&id);
        }
        result
    }

    /// Sends the snapshot that `message` announces, with the message.
    pub(super) fn send_snapshot(self: &Arc<Self>, to: u64, message: Message, index: u64) {
        let peers = self.clone();
        self.tasks.spawn("coordinator snapshot out", async move {
            let sent = tokio::select! {
                () = peers.tasks.stopping() => return,
                sent = peers.send_file(to, &message, index) => sent,
            };
            if let Err(error) = &sent {
                warn!(server = to, index, %error, "snapshot was not sent, trying again");
                // Or the same would be tried at once.
                sleep(RETRY).await;
            }
            let is_whole = sent.is_ok();
            let _ = peers.inputs.send(PeerInput::SnapshotSent { to, is_whole }).await;
        });
    }

    async fn send_file(&self, to: u64, message: &Message, index: u64) -> io::Result<()> {
        let server = self.with(to, |other| other.server.clone());
        let server = server.ok_or(io::ErrorKind::NotFound)?;
        let path = self.snapshots.join(crate::snapshots::name(index));
        let mut file = tokio::fs::File::open(path).await?;
        let length = file.metadata().await?.len();
        let mut stream = self.connect(&server, FOR_SNAPSHOT).await?;
        let mut head = vec![0; 4];
        PeerMessage::Raft(message.clone()).encode(&mut head);
        let message_bytes = (head.len() - 4) as u32;
        head[..4].copy_from_slice(&message_bytes.to_be_bytes());
        head.put_u64(length);
        stream.write_all(&head).await?;
        info!(server = to, index, bytes = length, "snapshot is sent");
        let mut piece = vec![0; SNAPSHOT_PIECE_BYTES];
        loop {
            let read = file.read(&mut piece).await?;
            if read == 0 {
                break;
            }
            timeout(SNAPSHOT_SILENCE_LIMIT, stream.write_all(&piece[..read])).await??;
        }
        // The other answers when it has it for good, which takes longer than to send it.
        let answer = timeout(SNAPSHOT_SILENCE_LIMIT * 6, stream.read_u8()).await??;
        if answer == 1 { Ok(()) } else { Err(io::Error::other("the other server did not take it")) }
    }

    async fn receive_snapshot(self: Arc<Self>, stream: TcpStream, from: u64) -> io::Result<()> {
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(SNAPSHOT_SILENCE_LIMIT))?;
        let peers = self.clone();
        self.tasks.spawn_blocking(move || {
            if let Err(error) = peers.receive(stream, from) {
                warn!(server = from, error = in_one_line(&error), "snapshot was not received");
            }
        });
        Ok(())
    }

    fn receive(&self, mut stream: std::net::TcpStream, from: u64) -> io::Result<()> {
        let _one = self.receiving.try_lock().map_err(|_| io::ErrorKind::ResourceBusy)?;
        let mut number = [0; 8];
        stream.read_exact(&mut number[..4])?;
        let length = u32::from_be_bytes([number[0], number[1], number[2], number[3]]) as usize;
        if length > self.message_bytes_max {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut message = vec![0; length];
        stream.read_exact(&mut message)?;
        let message = match PeerMessage::decode(message.into()) {
            Ok(PeerMessage::Raft(message)) => message,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let index = message.snapshot_index().ok_or(io::ErrorKind::InvalidData)?;
        stream.read_exact(&mut number)?;
        let mut left = u64::from_be_bytes(number);
        let mut receiver = SnapshotReceiver::start(Directory::new(&self.snapshots), index)?;
        let mut piece = vec![0; SNAPSHOT_PIECE_BYTES];
        while left > 0 {
            if self.tasks.token().is_cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let room = (piece.len() as u64).min(left) as usize;
            let read = stream.read(&mut piece[..room])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            receiver.write(&piece[..read])?;
            left -= read as u64;
        }
        let machine = Box::new(receiver.finish().map_err(io::Error::other)?);
        let input = PeerInput::Snapshot { from, message, machine };
        self.inputs.blocking_send(input).map_err(io::Error::other)?;
        stream.write_all(&[1])
    }
}

/// Takes a whole frame off `input`, where one is there.
fn next_frame(input: &mut BytesMut, bytes_max: usize) -> io::Result<Option<Bytes>> {
    let Some(length) = input.first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > bytes_max {
        let why = format!("a message of {length} bytes, where {bytes_max} are the most");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    if input.len() < 4 + length {
        input.reserve(4 + length - input.len());
        return Ok(None);
    }
    input.advance(4);
    Ok(Some(input.split_to(length).freeze()))
}
