//! One connection: frames in, answers out, in order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::error;

use super::greeting::{Greeting, HTTP_ANSWER, recognise};
use super::{Frame, Server, frame};
use crate::api::{self, Context, Pending, Refusal};
use crate::metrics;

/// Requests of one connection read and not yet answered; a client that sends more waits.
const PIPELINE_MAX: usize = 100;
/// Small requests are read in few system calls; bodies of produce requests bypass the buffer.
const READ_BUFFER_BYTES: usize = 8 << 10;
/// What a client left behind when it hung up (its offsets, its goodbye) is still done, this long.
const LINGER: Duration = Duration::from_secs(5);

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
    let mut writer = Box::pin(write_answers(write, pending));
    let ended = tokio::select! {
        () = server.tasks.stopping() => return Ok(()),
        // The writer ends first only if an answer could not be made or sent.
        ended = &mut writer => return ended.map_err(|error| explain(server, peer, error)),
        ended = reader.run() => ended,
    };
    drop(reader);
    let _ = timeout(LINGER, writer).await;
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
            let frame = self.frame(length).await?;
            let pending = api::begin(&self.context, frame).await.map_err(|refusal| {
                metrics::MALFORMED_REQUESTS.inc();
                let peer = self.context.peer;
                let text = format!("connection from {peer} closed: {refusal}");
                self.server.complain(&text);
                text
            })?;
            is_first = false;
            if self.queue.send(pending).await.is_err() {
                return Err("answers cannot be sent".into());
            }
        }
        Ok(())
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

    /// Reads a frame once there is room for it.
    async fn frame(&mut self, length: usize) -> Result<Frame, String> {
        let server = self.server;
        let kib = u32::try_from(length >> 10)
            .unwrap_or(u32::MAX)
            .saturating_add(1)
            .min(server.memory_kib);
        let memory = server
            .memory
            .clone()
            .acquire_many_owned(kib)
            .await
            .map_err(|error| error.to_string())?;
        let place =
            server.queue.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        // Who stalls within a frame holds memory, and gets no longer than who says nothing.
        let idle = server.broker.config.connection_idle_max.min(Duration::from_secs(60));
        let body = timeout(idle, frame::read_body(&mut self.stream, length)).await;
        let bytes = body
            .map_err(|_| "stalled within a request".to_owned())?
            .map_err(|error| error.to_string())?;
        metrics::REQUEST_BYTES.inc_by(bytes.len() as u64);
        Ok(Frame { bytes, _memory: memory, _place: place })
    }
}

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
) -> Result<(), WriteError> {
    while let Some(pending) = pending.recv().await {
        let Some(answer) = pending.await.map_err(WriteError::Refused)? else { continue };
        metrics::RESPONSE_BYTES.inc_by(answer.len() as u64);
        stream.write_all(&answer).await.map_err(WriteError::Io)?;
    }
    Ok(())
}
