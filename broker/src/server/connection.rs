//! One connection: frames in, answers out, in order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::frame::{Frame, Patience, read_body};
use super::greeting::{Greeting, HTTP_ANSWER, recognise};
use super::{Server, Share};
use crate::api::{self, Context, Pending, Refusal};
use crate::metrics;
use elkfk_wire::kafka::messages::api_key;

/// Produce requests of one connection read and not yet answered; a client that sends more waits.
const PIPELINE_MAX: usize = 100;
/// Requests without records are this long at most: their parts become many times larger in memory.
const PLAIN_REQUEST_BYTES_MAX: usize = 8 << 20;
/// How much larger: two bytes of a topic's empty name become a string, an entry and its answer.
const DECODED_RATIO: usize = 32;
/// Below this nobody counts what a request becomes.
const SMALL_REQUEST_BYTES: usize = 16 << 10;
/// Who stalls within a frame holds memory, and gets less time than who says nothing.
const PATIENCE: Patience =
    Patience { stall: Duration::from_secs(10), whole: Duration::from_secs(60) };
/// Small requests are read in few system calls; bodies of produce requests bypass the buffer.
const READ_BUFFER_BYTES: usize = 8 << 10;
/// What a client left behind when it hung up (its offsets, its goodbye) is still done, this long.
const LINGER: Duration = Duration::from_secs(5);
/// What was appended when the broker is stopped is still acknowledged, this long: a producer that
/// sends it again would find it neither missing nor, five batches later, remembered.
const DRAIN: Duration = Duration::from_secs(1);

/// Serves until the client leaves, misbehaves or the broker stops. The error says why.
pub(super) async fn serve(
    server: &Arc<Server>,
    stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    listener: String,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (read, write) = stream.into_split();
    let (queue, pending) = mpsc::channel(PIPELINE_MAX);
    let context = Arc::new(Context { broker: server.broker.clone(), peer, local, listener });
    let mut reader = Reader {
        server,
        context,
        stream: BufReader::with_capacity(READ_BUFFER_BYTES, read),
        queue,
    };
    let mut writer = Box::pin(write_answers(write, pending, server.tasks.token()));
    let (ended, limit) = tokio::select! {
        () = server.tasks.stopping() => (Ok(()), DRAIN),
        // The writer ends first only if an answer could not be made or sent.
        ended = &mut writer => return ended.map_err(|error| explain(server, peer, error)),
        ended = reader.run() => (ended, LINGER),
    };
    let Reader { queue, mut stream, .. } = reader;
    drop(queue);
    let _ = timeout(limit, async {
        let written = writer.await;
        // The writer's end is the stream's: the client reads the last answer and then that nothing
        // follows. Requests of its that nobody reads would turn our close into a reset, which
        // takes along what it has not received yet.
        if written.is_ok() {
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    })
    .await;
    ended
}

struct Reader<'a> {
    server: &'a Arc<Server>,
    context: Arc<Context>,
    stream: BufReader<OwnedReadHalf>,
    queue: mpsc::Sender<Pending>,
}

impl Reader<'_> {
    async fn run(&mut self) -> Result<(), String> {
        let mut is_first = true;
        while let Some(length) = self.length(is_first).await? {
            // Before anything is kept for the request, and before it is begun: nothing may come
            // between an append and its answer.
            let queue = self.queue.clone();
            let Ok(queued) = queue.reserve().await else {
                return Err("answers cannot be sent".into());
            };
            let frame = self.frame(length).await?;
            let begun = self.server.queue.acquire().await;
            let mut pending = api::begin(&self.context, frame).await.map_err(|refusal| {
                metrics::MALFORMED_REQUESTS.inc();
                let peer = self.context.peer;
                let text = format!("connection from {peer} closed: {refusal}");
                self.server.complain(&text);
                text
            })?;
            drop(begun);
            is_first = false;
            let answered = pending.answered();
            queued.send(pending);
            if let Some(answered) = answered
                && !self.wait_until(answered).await
            {
                break;
            }
        }
        Ok(())
    }

    /// Waits for an answer to be sent; false where the client has hung up before.
    async fn wait_until(&mut self, mut answered: oneshot::Receiver<()>) -> bool {
        tokio::select! {
            biased;
            _ = &mut answered => return true,
            more = self.stream.fill_buf() => match more {
                Ok(bytes) if !bytes.is_empty() => {}
                _ => return false,
            }
        }
        // The next request is here, or a part of it: it has its turn.
        let _ = answered.await;
        true
    }

    /// The next frame's length; `None` at the end of the stream.
    async fn length(&mut self, is_first: bool) -> Result<Option<usize>, String> {
        let mut first = [0; 4];
        let idle = self.server.broker.config.connection_idle_max;
        let read = timeout(idle, self.stream.read_exact(&mut first)).await;
        match read {
            Err(_) => return Err("idle for connections.max.idle.ms".into()),
            Ok(Err(_)) => return Ok(None),
            Ok(Ok(_)) => {}
        }
        if is_first {
            self.greet(first).await?;
        }
        let limit = self.server.broker.config.request_bytes_max;
        match usize::try_from(i32::from_be_bytes(first)) {
            Ok(length) if length <= limit => Ok(Some(length)),
            Ok(length) => self.refuse(&format!(
                "a request of {length} bytes was announced, socket.request.max.bytes={limit}; \
                 is the client a Kafka client?"
            )),
            Err(_) => self.refuse(
                "a request of negative length was announced; is the client a Kafka client?",
            ),
        }
    }

    fn refuse<T>(&self, why: &str) -> Result<T, String> {
        metrics::MALFORMED_REQUESTS.inc();
        let text = format!("connection from {} closed: {why}", self.context.peer);
        self.server.complain(&text);
        Err(text)
    }

    async fn greet(&mut self, first: [u8; 4]) -> Result<(), String> {
        match recognise(first) {
            Greeting::Kafka => Ok(()),
            Greeting::Tls => self.refuse(
                "the client speaks TLS, this listener is PLAINTEXT; set security.protocol=PLAINTEXT in the client",
            ),
            Greeting::Http => {
                self.queue.send(Pending::ready(HTTP_ANSWER.to_vec())).await.map_err(|error| error.to_string())?;
                self.refuse("the client speaks HTTP, this port speaks the Kafka protocol; connect a Kafka client")
            }
        }
    }

    /// Reads a frame as there is room for it.
    async fn frame(&mut self, length: usize) -> Result<Frame, String> {
        let server = self.server;
        let mut start = [0; 2];
        let start = &mut start[..length.min(2)];
        let read = timeout(PATIENCE.stall, self.stream.read_exact(start)).await;
        read.map_err(|_| STALLED)?.map_err(|error| error.to_string())?;
        let has_records = *start == api_key::PRODUCE.to_be_bytes();
        if !has_records && length > PLAIN_REQUEST_BYTES_MAX {
            return self.refuse(&format!(
                "a request of {length} bytes was announced, {PLAIN_REQUEST_BYTES_MAX} is the limit of \
                 those without records; split it"
            ));
        }
        let (stream, memory) = (&mut self.stream, &server.memory);
        let (bytes, memory) = read_body(stream, start, length, memory, PATIENCE).await.map_err(
            |error| match error.kind() {
                io::ErrorKind::TimedOut => STALLED.to_owned(),
                _ => error.to_string(),
            },
        )?;
        metrics::REQUEST_BYTES.inc_by(bytes.len() as u64);
        let decoded = match length {
            _ if has_records => Share::default(),
            ..=SMALL_REQUEST_BYTES => Share::default(),
            _ => server.decoded.take(length * DECODED_RATIO).await,
        };
        Ok(Frame { bytes, _memory: memory, _decoded: decoded })
    }
}

const STALLED: &str = "stalled within a request";

/// Why no more answers are sent.
enum WriteError {
    Refused(Refusal),
    /// The client is gone.
    Io(io::Error),
}

fn explain(server: &Server, peer: SocketAddr, error: WriteError) -> String {
    let refusal = match error {
        WriteError::Io(error) => return error.to_string(),
        WriteError::Refused(refusal) => refusal,
    };
    metrics::MALFORMED_REQUESTS.inc();
    let text = format!("connection from {peer} closed: {refusal}");
    match refusal {
        // An answer that has no bytes is our fault, what cannot be read is the client's.
        Refusal::Answer { .. } => error!("{text}"),
        _ => server.complain(&text),
    }
    text
}

async fn write_answers(
    mut stream: OwnedWriteHalf,
    mut pending: mpsc::Receiver<Pending>,
    stop: CancellationToken,
) -> Result<(), WriteError> {
    while let Some(mut pending) = pending.recv().await {
        let _answered = pending.take_answered();
        let answer = if pending.is_append() {
            pending.await
        } else {
            // Once the broker stops only appends are worth waiting for.
            tokio::select! {
                biased;
                answer = pending => answer,
                () = stop.cancelled() => return Ok(()),
            }
        };
        let Some(answer) = answer.map_err(WriteError::Refused)? else { continue };
        metrics::RESPONSE_BYTES.inc_by(answer.bytes.len() as u64);
        stream.write_all(&answer.bytes).await.map_err(WriteError::Io)?;
    }
    Ok(())
}
