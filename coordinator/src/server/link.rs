//! One client's socket: frames in, bytes out, both bounded.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use elkfk_wire::jute::{ConnectRequest, FrameError, frame_in};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::complaints::Complaints;
use super::words;
use crate::metrics;
use crate::service::{ANSWER_BYTES_MAX, ConnectionId, cost_of};

/// Bytes of requests one client may have unanswered; more wait in its socket.
const IN_FLIGHT_BYTES_MAX: usize = 1 << 20;
/// Bytes a client may leave unread before it is cut off; its session can come back. Only what comes
/// unasked gets there, events above all: requests wait long before.
const UNSENT_BYTES_MAX: usize = 32 << 20;
/// How long the last answers may take to be sent: of a connection that is closed, and when we stop.
const LAST_ANSWERS_LIMIT: Duration = Duration::from_secs(10);
const LAST_ANSWERS_LIMIT_AT_STOP: Duration = Duration::from_secs(1);
/// How long a new connection may take to say what it wants.
const FIRST_FRAME_LIMIT: Duration = Duration::from_secs(10);
/// Room for what arrives at once.
const READ_BYTES: usize = 16 << 10;

/// What connections tell the node.
#[derive(Debug)]
pub(super) enum Input {
    /// A first frame: the request for a session.
    Connect {
        connection: ConnectionId,
        link: Arc<Link>,
        frame: Bytes,
    },
    /// Whole frames with their lengths.
    Frames {
        connection: ConnectionId,
        frames: Bytes,
    },
    /// The client has read enough for what waits.
    Room {
        connection: ConnectionId,
    },
    Gone {
        connection: ConnectionId,
    },
    Word {
        word: words::Asked,
        peer: SocketAddr,
        connections: usize,
        answer: oneshot::Sender<String>,
    },
}

/// What the connection's tasks and the node share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: SocketAddr,
    unsent: Mutex<Unsent>,
    wake: Notify,
    in_flight: AtomicUsize,
    room: Notify,
    /// It was cut off.
    closed: CancellationToken,
    /// Nothing follows what is queued.
    ending: CancellationToken,
}

#[derive(Debug, Default)]
struct Unsent {
    pieces: VecDeque<Vec<u8>>,
    /// Of `pieces` and of the one being written.
    bytes: usize,
    /// Requests wait until there are fewer.
    is_awaited: bool,
    /// Nothing follows.
    is_last: bool,
}

/// What the connection's writer does next.
enum Next {
    Write(Vec<u8>),
    /// Tell the node that there is room.
    TellRoom,
    End,
    Wait,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) inputs: mpsc::Sender<Input>,
    /// Bytes of requests all clients together may have unanswered.
    pub(super) budget: Semaphore,
    pub(super) frame_bytes_max: usize,
    pub(super) words: words::Whitelist,
    pub(super) open: AtomicUsize,
    pub(super) next: AtomicU64,
    pub(super) complaints: Complaints,
    pub(super) stop: CancellationToken,
}

impl Shared {
    /// What the node tells; `None` when it is about to stop.
    pub(crate) async fn ask(&self, word: words::Asked, peer: SocketAddr) -> Option<String> {
        let (answer, answered) = oneshot::channel();
        let connections = self.open.load(Ordering::Relaxed);
        self.inputs.send(Input::Word { word, peer, connections, answer }).await.ok()?;
        answered.await.ok()
    }
}

impl Link {
    /// Queues bytes for the client; cuts it off where it has left too much unread.
    ///
    /// Where requests wait for room (`is_awaited`), the node is told when there is.
    pub(super) fn send(&self, bytes: Vec<u8>, is_awaited: bool, is_last: bool) {
        let mut unsent = self.unsent.lock().expect("no panic while held");
        if unsent.bytes > 0 && unsent.bytes + bytes.len() > UNSENT_BYTES_MAX {
            warn!(peer = %self.peer, bytes = unsent.bytes, "client does not read its answers, closing");
            unsent.pieces.clear();
            self.closed.cancel();
        } else if !bytes.is_empty() {
            unsent.bytes += bytes.len();
            unsent.pieces.push_back(bytes);
        }
        unsent.is_awaited |= is_awaited;
        unsent.is_last |= is_last;
        drop(unsent);
        if is_last {
            self.ending.cancel();
        }
        self.wake.notify_one();
    }

    /// Bytes the client has not taken yet.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent.lock().expect("no panic while held").bytes
    }

    /// Requests were answered: more may be read.
    pub(super) fn release(&self, bytes: usize, budget: &Semaphore) {
        let before = self.in_flight.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more was released than was taken");
        budget.add_permits(bytes);
        self.room.notify_one();
    }

    /// The connection is gone, and with it whatever it still waited for.
    pub(super) fn release_all(&self, budget: &Semaphore) {
        budget.add_permits(self.in_flight.swap(0, Ordering::Relaxed));
    }

    fn next(&self) -> Next {
        let mut unsent = self.unsent.lock().expect("no panic while held");
        if unsent.is_awaited && unsent.bytes < ANSWER_BYTES_MAX / 2 {
            unsent.is_awaited = false;
            return Next::TellRoom;
        }
        match unsent.pieces.pop_front() {
            Some(piece) => Next::Write(piece),
            None if unsent.is_last => Next::End,
            None => Next::Wait,
        }
    }

    fn written(&self, bytes: usize) {
        self.unsent.lock().expect("no panic while held").bytes -= bytes;
    }
}

/// Serves one accepted connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, stream: tokio::net::TcpStream, peer: SocketAddr) {
    // Answers are small and someone waits for each.
    let _ = stream.set_nodelay(true);
    let (mut reader, writer) = stream.into_split();
    let mut input = BytesMut::with_capacity(READ_BYTES);
    let first = timeout(FIRST_FRAME_LIMIT, first_frame(&shared, &mut reader, &mut input));
    let first = tokio::select! {
        first = first => first,
        () = shared.stop.cancelled() => return,
    };
    let refuse = |why: &str| {
        metrics::REFUSED_CONNECTIONS.inc();
        if shared.complaints.may_tell(Instant::now()) {
            warn!(%peer, why, "connection refused");
        }
    };
    match first {
        Ok(Ok(First::Session(frame))) => session(shared, reader, writer, input, frame, peer).await,
        Ok(Ok(First::Word(word))) => answer_word(&shared, word, writer, peer).await,
        Ok(Ok(First::Nothing)) => debug!(%peer, "connection closed before a request"),
        Ok(Ok(First::Refused(why))) => refuse(&why),
        Ok(Err(error)) => debug!(%peer, %error, "connection lost before a request"),
        Err(_) => refuse("no request within 10 seconds"),
    }
}

/// What a connection turned out to be.
enum First {
    Session(Bytes),
    Word(words::Asked),
    Nothing,
    Refused(String),
}

async fn first_frame(
    shared: &Shared,
    reader: &mut OwnedReadHalf,
    input: &mut BytesMut,
) -> io::Result<First> {
    loop {
        if let Some(word) = words::find(input) {
            return Ok(First::Word(word));
        }
        match frame_in(input, shared.frame_bytes_max) {
            Ok(Some(frame)) => {
                let length = frame.len();
                let frame = input.split_to(4 + length).freeze().slice(4..);
                return Ok(match ConnectRequest::decode(&frame) {
                    Ok(_) => First::Session(frame),
                    Err(error) => First::Refused(format!("not a ZooKeeper client: {error}")),
                });
            }
            Ok(None) => {}
            // What is not allowed is refused without waiting for what belongs to it.
            Err(_) if words::is_partial(input) => {
                let word = words::Asked::Word(words::SET_TRACE_MASK);
                if !shared.words.allows(&word) {
                    return Ok(First::Word(word));
                }
            }
            Err(error) => return Ok(First::Refused(diagnose(input, error))),
        }
        if reader.read_buf(input).await? == 0 {
            return Ok(match input.is_empty() {
                true => First::Nothing,
                false => First::Refused(format!("closed after {} bytes of a request", input.len())),
            });
        }
    }
}

/// What came instead of a ZooKeeper client.
fn diagnose(input: &[u8], error: FrameError) -> String {
    const METHODS: [&[u8]; 7] = [b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PATC"];
    if input.starts_with(&[0x16, 0x03]) {
        return "a TLS hello on the plain client port; connect without TLS".to_owned();
    }
    if METHODS.iter().any(|method| input.starts_with(method)) {
        return "an HTTP request on ZooKeeper's client port".to_owned();
    }
    format!("not a ZooKeeper client: {error}")
}

async fn answer_word(
    shared: &Shared,
    word: words::Asked,
    mut writer: OwnedWriteHalf,
    peer: SocketAddr,
) {
    let text = if !shared.words.allows(&word) {
        // To the letter what ZooKeeper says, as scripts look for it.
        format!("{} is not executed because it is not in the whitelist.\n", word.word())
    } else {
        let stopping = "This ZooKeeper instance is not currently serving requests\n";
        shared.ask(word, peer).await.unwrap_or_else(|| stopping.to_owned())
    };
    let _ = timeout(FIRST_FRAME_LIMIT, writer.write_all(text.as_bytes())).await;
    let _ = writer.shutdown().await;
}

async fn session(
    shared: Arc<Shared>,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    input: BytesMut,
    frame: Bytes,
    peer: SocketAddr,
) {
    let connection = shared.next.fetch_add(1, Ordering::Relaxed);
    let link = Arc::new(Link {
        peer,
        unsent: Mutex::default(),
        wake: Notify::new(),
        in_flight: AtomicUsize::new(0),
        room: Notify::new(),
        closed: CancellationToken::new(),
        ending: CancellationToken::new(),
    });
    let connect = Input::Connect { connection, link: link.clone(), frame };
    if shared.inputs.send(connect).await.is_err() {
        return;
    }
    let reading = read(&shared, &link, connection, reader, input);
    let mut writing = pin!(write(&shared, &link, connection, writer));
    let is_stopping = tokio::select! {
        result = reading => match result {
            Ok(()) => {
                debug!(%peer, "connection closed by the client");
                false
            }
            Err(error) => {
                debug!(%peer, %error, "connection lost");
                // Or nobody takes requests any more: those before may have answers on their way.
                shared.inputs.is_closed()
            }
        },
        result = &mut writing => {
            if let Err(error) = result {
                debug!(%peer, %error, "connection lost");
            }
            false
        }
        () = link.closed.cancelled() => false,
        // Or one who reads nothing would keep its socket for ever.
        () = async {
            link.ending.cancelled().await;
            sleep(LAST_ANSWERS_LIMIT).await;
        } => false,
        () = shared.stop.cancelled() => true,
    };
    if is_stopping && timeout(LAST_ANSWERS_LIMIT_AT_STOP, writing).await.is_err() {
        debug!(%peer, "last answers were not taken in time");
    }
    // The node is told in any case, or it would keep what it knows of this connection.
    let _ = shared.inputs.send(Input::Gone { connection }).await;
}

async fn read(
    shared: &Shared,
    link: &Link,
    connection: ConnectionId,
    mut reader: OwnedReadHalf,
    mut input: BytesMut,
) -> io::Result<()> {
    loop {
        let (whole, cost) = match whole_frames(&input, shared.frame_bytes_max) {
            Ok(found) => found,
            Err(error) => {
                warn!(peer = %link.peer, %error, "closing");
                return Ok(());
            }
        };
        if whole > 0 {
            while link.in_flight.load(Ordering::Relaxed) > IN_FLIGHT_BYTES_MAX {
                link.room.notified().await;
            }
            // One frame more than a client may have unanswered at the most, so never more than exists.
            let permits = shared.budget.acquire_many(cost as u32).await;
            permits.map_err(io::Error::other)?.forget();
            link.in_flight.fetch_add(cost, Ordering::Relaxed);
            let frames = input.split_to(whole).freeze();
            let frames = Input::Frames { connection, frames };
            shared.inputs.send(frames).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            continue;
        }
        input.reserve(READ_BYTES);
        if reader.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

/// Bytes of the whole frames `input` begins with, and what they count for: as many as a client may have
/// unanswered. Those after them are looked at next.
fn whole_frames(input: &[u8], frame_bytes_max: usize) -> Result<(usize, usize), FrameError> {
    let (mut whole, mut all) = (0, 0);
    while all < IN_FLIGHT_BYTES_MAX
        && let Some(frame) = frame_in(&input[whole..], frame_bytes_max)?
    {
        whole += 4 + frame.len();
        all += cost_of(frame);
    }
    Ok((whole, all))
}

async fn write(
    shared: &Shared,
    link: &Link,
    connection: ConnectionId,
    mut writer: OwnedWriteHalf,
) -> io::Result<()> {
    loop {
        match link.next() {
            Next::Write(piece) => {
                writer.write_all(&piece).await?;
                link.written(piece.len());
            }
            Next::TellRoom => {
                // Where the node is gone, what is queued is sent all the same.
                let _ = shared.inputs.send(Input::Room { connection }).await;
            }
            Next::End => return writer.shutdown().await,
            Next::Wait => link.wake.notified().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::cost;

    #[test]
    fn many_small_frames_are_taken_a_share_at_a_time() {
        // The smallest there are, and a rest.
        let mut input = vec![0; 1 << 20];
        input.extend([0, 0, 0, 9, 1]);
        let mut rest = &input[..];
        let mut shares = 0;
        loop {
            let (whole, all) = whole_frames(rest, 1 << 20).unwrap();
            if whole == 0 {
                break;
            }
            assert_eq!(all, cost(&rest[..whole]));
            assert!(all < IN_FLIGHT_BYTES_MAX + cost_of(&[]), "{all}");
            rest = &rest[whole..];
            shares += 1;
        }
        assert_eq!((rest.len(), shares > 50), (5, true));
    }

    #[test]
    fn a_large_frame_is_taken_whole() {
        let mut input = (3u32 << 20).to_be_bytes().to_vec();
        input.resize(4 + (3 << 20), 1);
        let whole = whole_frames(&input, 4 << 20).unwrap();
        assert_eq!(whole, (input.len(), cost(&input)));
    }
}
