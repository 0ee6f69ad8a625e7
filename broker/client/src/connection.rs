//! One connection to a broker: requests go out in order, answers find their callers by
//! correlation id, so that many may be in flight.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use elkfk_wire::kafka::messages::{ApiVersionsRequest, ApiVersionsResponse, api_key};
use elkfk_wire::kafka::{
    EncodeError, ErrorCode, Message, Reader, RequestHeader, ResponseHeader, frame, header,
    response_header_version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::ClientError;

/// Largest answer taken, in bytes: above what `fetch.max.bytes` allows by default (50 MiB).
const FRAME_BYTES_MAX: usize = 100 << 20;
/// Requests waiting to be written. Callers wait for room beyond that.
const QUEUE_FRAMES: usize = 64;

/// An open connection whose broker has said what it understands.
#[derive(Debug)]
pub struct Connection {
    address: String,
    client_id: String,
    timeout: Duration,
    /// Per API key the first and last version that the broker understands.
    versions: HashMap<i16, (i16, i16)>,
    next_correlation_id: AtomicI32,
    outgoing: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Waiting>,
    tasks: [JoinHandle<()>; 2],
}

/// Who waits for which answer.
#[derive(Debug, Default)]
struct Waiting(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    callers: HashMap<i32, oneshot::Sender<Bytes>>,
    is_closed: bool,
}

impl Waiting {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody will answer any more: callers see their channel close.
    fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.callers.clear();
    }
}

impl Connection {
    /// Connects to `host:port` and asks for the versions there.
    ///
    /// # Errors
    ///
    /// If nobody listens, or who listens is no Kafka broker.
    pub async fn open(
        address: &str,
        client_id: &str,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let io = |cause| ClientError::Io { address: address.to_owned(), cause };
        let stream = tokio::time::timeout(timeout, TcpStream::connect(address))
            .await
            .map_err(|_| ClientError::Timeout { address: address.to_owned(), after: timeout })?
            .map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        let (read_half, write_half) = stream.into_split();
        let (outgoing, queue) = mpsc::channel(QUEUE_FRAMES);
        let waiting = Arc::new(Waiting::default());
        let tasks = [
            tokio::spawn(write_frames(write_half, queue, Arc::clone(&waiting))),
            tokio::spawn(read_frames(read_half, Arc::clone(&waiting), address.to_owned())),
        ];
        let mut connection = Self {
            address: address.to_owned(),
            client_id: client_id.to_owned(),
            timeout,
            versions: HashMap::new(),
            next_correlation_id: AtomicI32::new(0),
            outgoing,
            waiting,
            tasks,
        };
        connection.versions = connection.ask_versions().await?;
        Ok(connection)
    }

    /// As given to `open`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether requests can no longer be sent.
    pub fn is_closed(&self) -> bool {
        self.waiting.lock().is_closed
    }

    /// Per API key the first and last version that the broker understands.
    pub fn broker_versions(&self) -> &HashMap<i16, (i16, i16)> {
        &self.versions
    }

    /// The newest version of `Q` that both sides know.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn version<'q, Q: Message<'q>>(&self) -> Result<i16, ClientError> {
        self.version_up_to::<Q>(i16::MAX)
    }

    /// As [`Connection::version`], not above `limit`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn version_up_to<'q, Q: Message<'q>>(&self, limit: i16) -> Result<i16, ClientError> {
        let ours = Q::VERSIONS;
        let (first, last) = self.versions.get(&Q::API_KEY).copied().unwrap_or((0, -1));
        let version = last.min(*ours.end()).min(limit);
        if version < first.max(*ours.start()) {
            let address = self.address.clone();
            return Err(ClientError::Version { address, api_key: Q::API_KEY, ours });
        }
        Ok(version)
    }

    /// Sends a request and waits for its answer, whose error codes are left to the caller.
    ///
    /// # Errors
    ///
    /// If the request cannot be written in `version`, or no answer comes in time.
    pub async fn send<'q, Q: Message<'q>>(
        &self,
        request: &Q,
        version: i16,
    ) -> Result<Reply, ClientError> {
        let encode = |cause: EncodeError| ClientError::Encode { api_key: Q::API_KEY, cause };
        let correlation_id = self.next_correlation_id.fetch_add(1, Ordering::Relaxed);
        let header = RequestHeader {
            api_key: Q::API_KEY,
            api_version: version,
            correlation_id,
            client_id: Some(self.client_id.as_str().into()),
        };
        let frame = header::request_frame(&header, request).map_err(encode)?;
        let (answer, answered) = oneshot::channel();
        let closed = || ClientError::Closed { address: self.address.clone() };
        {
            let mut state = self.waiting.lock();
            if state.is_closed {
                return Err(closed());
            }
            state.callers.insert(correlation_id, answer);
        }
        // A caller that gives up must not leave its place taken.
        let _place = Place { waiting: &self.waiting, correlation_id };
        let exchange = async {
            self.outgoing.send(frame).await.map_err(|_| closed())?;
            answered.await.map_err(|_| closed())
        };
        let body = tokio::time::timeout(self.timeout, exchange).await.map_err(|_| {
            ClientError::Timeout { address: self.address.clone(), after: self.timeout }
        })??;
        Ok(Reply { address: self.address.clone(), api_key: Q::API_KEY, version, body })
    }

    async fn ask_versions(&self) -> Result<HashMap<i16, (i16, i16)>, ClientError> {
        let request = ApiVersionsRequest {
            client_software_name: "elkfk".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        // A broker that does not know the version answers in version 0 and says so.
        let mut reply = self.send(&request, 3).await?;
        if reply.first_i16() == Some(ErrorCode::UNSUPPORTED_VERSION.0) {
            reply = self.send(&ApiVersionsRequest::default(), 0).await?;
        }
        let response: ApiVersionsResponse<'_> = reply.read()?;
        if response.error_code != 0 {
            let what = format!("ask {} for its versions", self.address);
            return Err(ClientError::refused(what, response.error_code));
        }
        let versions = response.api_keys.iter();
        Ok(versions.map(|api| (api.api_key, (api.min_version, api.max_version))).collect())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Takes a caller off the list when it is dropped.
struct Place<'w> {
    waiting: &'w Waiting,
    correlation_id: i32,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.lock().callers.remove(&self.correlation_id);
    }
}

/// An answer, from which a message can be read that borrows from it.
#[derive(Debug, Clone)]
pub struct Reply {
    address: String,
    api_key: i16,
    version: i16,
    /// The frame without its length.
    body: Bytes,
}

impl Reply {
    /// The version in which question and answer were written.
    pub fn version(&self) -> i16 {
        self.version
    }

    /// # Errors
    ///
    /// If the bytes are not `M`.
    pub fn read<'a, M: Message<'a>>(&'a self) -> Result<M, ClientError> {
        let decode = |cause| ClientError::Decode {
            address: self.address.clone(),
            api_key: self.api_key,
            cause,
        };
        let mut r = Reader::new(&self.body);
        let header_version = response_header_version(self.api_key, self.version);
        ResponseHeader::decode(&mut r, header_version).map_err(decode)?;
        M::decode(&mut r, self.version).map_err(decode)
    }

    /// What stands after the correlation id: the error code in an answer to ApiVersions.
    fn first_i16(&self) -> Option<i16> {
        debug_assert_eq!(self.api_key, api_key::API_VERSIONS);
        Reader::new(self.body.get(4..)?).i16().ok()
    }
}

async fn write_frames(
    mut stream: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Vec<u8>>,
    waiting: Arc<Waiting>,
) {
    while let Some(frame) = queue.recv().await {
        if stream.write_all(&frame).await.is_err() {
            break;
        }
    }
    waiting.close();
}

async fn read_frames(mut stream: OwnedReadHalf, waiting: Arc<Waiting>, address: String) {
    let mut buffer = BytesMut::with_capacity(16 << 10);
    loop {
        match frame::next(&mut buffer, FRAME_BYTES_MAX) {
            Ok(Some(body)) => {
                let Ok(correlation_id) = Reader::new(&body).i32() else { break };
                // Nobody waits where the caller has given up.
                if let Some(caller) = waiting.lock().callers.remove(&correlation_id) {
                    let _ = caller.send(body);
                }
            }
            Ok(None) => match stream.read_buf(&mut buffer).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(peer = %address, %error, "connection to broker failed");
                    break;
                }
            },
            Err(error) => {
                tracing::warn!(peer = %address, %error, "broker sent no frame");
                break;
            }
        }
    }
    waiting.close();
}
