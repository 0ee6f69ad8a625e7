//! Kafka's APIs, one file each under Kafka's name.
//!
//! [`begin`] reads a request's header and starts it. Produce requests are appended right there; any
//! other runs when its turn to be answered comes.

mod acls;
mod alter_configs;
mod api_versions;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sync_group;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use elkfk_wire::kafka::messages::api_key;
use elkfk_wire::kafka::{
    DecodeError, EncodeError, ErrorCode, Message, Reader, RequestHeader, ResponseHeader, api,
    header, response_header_version,
};

use tokio::sync::oneshot;

use crate::broker::Broker;
use crate::metrics;
use crate::server::{Frame, Share};

pub(crate) use api_versions::ADVERTISED;

/// Who asks.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) broker: Arc<Broker>,
    pub(crate) peer: SocketAddr,
    /// The address the client came to.
    pub(crate) local: SocketAddr,
    /// The listener it came through.
    pub(crate) listener: String,
}

/// Why a connection is closed instead of being answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("request header is malformed: {0}; is the client a Kafka client?")]
    Header(DecodeError),
    #[error("API key {0} is not known; is the client a Kafka client?")]
    UnknownApi(i16),
    #[error(
        "{api} version {version} is not supported ({range}); update the client or have it ask for ApiVersions"
    )]
    Version { api: &'static str, version: i16, range: String },
    #[error("{api} version {version} is malformed: {source}")]
    Body { api: &'static str, version: i16, source: DecodeError },
    /// An error of a request with acks=0, which has no answer to put it in.
    #[error("{api} with acks=0 failed: {code}")]
    Unacknowledged { api: &'static str, code: ErrorCode },
    #[error("answer to {api}: {source}")]
    Answer { api: &'static str, source: EncodeError },
}

/// An answer with its frame around it; `None` where the client wants none.
pub(crate) type Answer = Result<Option<Outgoing>, Refusal>;

/// A frame to be sent, and its share of the broker's memory.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) bytes: Vec<u8>,
    _memory: Share,
}

impl From<Vec<u8>> for Outgoing {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, _memory: Share::default() }
    }
}

/// An answer to come.
pub(crate) struct Pending {
    future: Pin<Box<dyn Future<Output = Answer> + Send>>,
    is_append: bool,
    /// Dropped once the answer is sent.
    answered: Option<oneshot::Sender<()>>,
}

impl Pending {
    pub(crate) fn new(future: impl Future<Output = Answer> + Send + 'static) -> Self {
        Self { future: Box::pin(future), is_append: false, answered: None }
    }

    pub(crate) fn ready(answer: Vec<u8>) -> Self {
        Self::new(std::future::ready(Ok(Some(answer.into()))))
    }

    /// The answer to what is in the log already, or refused: requests behind it need not wait.
    fn of_append(future: impl Future<Output = Answer> + Send + 'static) -> Self {
        Self { is_append: true, ..Self::new(future) }
    }

    pub(crate) fn is_append(&self) -> bool {
        self.is_append
    }

    /// Tells when the answer is sent; `None` where nobody needs to wait for that.
    pub(crate) fn answered(&mut self) -> Option<oneshot::Receiver<()>> {
        if self.is_append {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.answered = Some(sender);
        Some(receiver)
    }

    /// To be dropped when the answer is sent.
    pub(crate) fn take_answered(&mut self) -> Option<oneshot::Sender<()>> {
        self.answered.take()
    }
}

impl Future for Pending {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Answer> {
        self.future.as_mut().poll(context)
    }
}

/// One request: its header, and its body still in the frame.
pub(crate) struct Request {
    frame: Frame,
    pub(crate) api: &'static str,
    pub(crate) version: i16,
    correlation_id: i32,
    pub(crate) client_id: String,
    body_at: usize,
}

impl Request {
    /// The message, borrowing from the frame.
    pub(crate) fn decode<'a, M: Message<'a>>(&'a self) -> Result<M, Refusal> {
        let refuse = |source| Refusal::Body { api: self.api, version: self.version, source };
        let mut reader = Reader::new(self.body());
        let message = M::decode(&mut reader, self.version).map_err(refuse)?;
        reader.finish().map_err(refuse)?;
        Ok(message)
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.frame.bytes[self.body_at..]
    }

    /// What is needed for the answer, without the frame: that is freed.
    pub(crate) fn release(self) -> Reply {
        Reply { api: self.api, version: self.version, correlation_id: self.correlation_id }
    }

    pub(crate) fn answer<'a>(&self, message: &impl Message<'a>) -> Answer {
        let Self { api, version, correlation_id, .. } = *self;
        Reply { api, version, correlation_id }.answer(message)
    }
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    api: &'static str,
    pub(crate) version: i16,
    correlation_id: i32,
}

impl Reply {
    pub(crate) fn answer<'a>(&self, message: &impl Message<'a>) -> Answer {
        self.answer_in(self.version, message)
    }

    fn answer_in<'a>(&self, version: i16, message: &impl Message<'a>) -> Answer {
        let api = self.api;
        header::response_frame_in(self.correlation_id, version, message)
            .map(|frame| Some(frame.into()))
            .map_err(|source| Refusal::Answer { api, source })
    }

    /// As [`Reply::answer`], with room for so many bytes of records from the start, and their share
    /// of the memory for answers.
    fn answer_sized<'a, M: Message<'a>>(
        &self,
        message: &M,
        record_bytes: usize,
        memory: Share,
    ) -> Answer {
        let refuse = |source| Refusal::Answer { api: self.api, source };
        let mut frame = Vec::with_capacity(record_bytes + SIZE_BESIDES_RECORDS);
        frame.extend([0; 4]);
        let header_version = response_header_version(M::API_KEY, self.version);
        ResponseHeader { correlation_id: self.correlation_id }.encode(&mut frame, header_version);
        message.encode(&mut frame, self.version).map_err(refuse)?;
        let len = frame.len() - 4;
        let length =
            i32::try_from(len).map_err(|_| refuse(EncodeError::TooLong { field: "frame", len }))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(Some(Outgoing { bytes: frame, _memory: memory }))
    }

    /// A body made by hand, for versions that the codec does not have.
    fn answer_raw(&self, body: &[u8]) -> Answer {
        let length = i32::try_from(body.len() + 4).unwrap_or(i32::MAX);
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend_from_slice(&self.correlation_id.to_be_bytes());
        frame.extend_from_slice(body);
        Ok(Some(frame.into()))
    }
}

/// What a fetch answer holds besides records, mostly.
const SIZE_BESIDES_RECORDS: usize = 1024;

/// Reads the header and starts the request.
///
/// # Errors
/// When there is nothing to answer and the connection should be closed.
pub(crate) async fn begin(context: &Arc<Context>, frame: Frame) -> Result<Pending, Refusal> {
    let mut reader = Reader::new(&frame.bytes);
    let header = RequestHeader::decode(&mut reader).map_err(Refusal::Header)?;
    let body_at = frame.bytes.len() - reader.remaining();
    let api = api(header.api_key).ok_or(Refusal::UnknownApi(header.api_key))?;
    let client_id = header.client_id.as_deref().unwrap_or_default().to_owned();
    let (key, version, correlation_id) =
        (header.api_key, header.api_version, header.correlation_id);
    let request = Request { frame, api: api.name, version, correlation_id, client_id, body_at };
    metrics::REQUESTS.with_label_values(&[api.name]).inc();
    let advertised = ADVERTISED.iter().find(|advertised| advertised.0 == key);
    let is_supported =
        advertised.is_some_and(|(_, least, most)| (*least..=*most).contains(&version));
    if !is_supported {
        if key == api_key::API_VERSIONS {
            return Ok(Pending::new(api_versions::refuse(request.release())));
        }
        let range = match advertised {
            Some((_, least, most)) => format!("{least} to {most} are"),
            None => "no version is".to_owned(),
        };
        return Err(Refusal::Version { api: api.name, version, range });
    }
    let context = context.clone();
    Ok(match key {
        api_key::PRODUCE => produce::begin(context, request).await?,
        api_key::FETCH => Pending::new(fetch::handle(context, request)),
        api_key::LIST_OFFSETS => Pending::new(list_offsets::handle(context, request)),
        api_key::METADATA => Pending::new(metadata::handle(context, request)),
        api_key::OFFSET_COMMIT => Pending::new(offset_commit::handle(context, request)),
        api_key::OFFSET_FETCH => Pending::new(offset_fetch::handle(context, request)),
        api_key::FIND_COORDINATOR => Pending::new(find_coordinator::handle(context, request)),
        api_key::JOIN_GROUP => Pending::new(join_group::handle(context, request)),
        api_key::HEARTBEAT => Pending::new(heartbeat::handle(context, request)),
        api_key::LEAVE_GROUP => Pending::new(leave_group::handle(context, request)),
        api_key::SYNC_GROUP => Pending::new(sync_group::handle(context, request)),
        api_key::DESCRIBE_GROUPS => Pending::new(describe_groups::handle(context, request)),
        api_key::LIST_GROUPS => Pending::new(list_groups::handle(context, request)),
        api_key::API_VERSIONS => Pending::new(api_versions::handle(request)),
        api_key::CREATE_TOPICS => Pending::new(create_topics::handle(context, request)),
        api_key::DELETE_TOPICS => Pending::new(delete_topics::handle(context, request)),
        api_key::DELETE_RECORDS => Pending::new(delete_records::handle(context, request)),
        api_key::INIT_PRODUCER_ID => Pending::new(init_producer_id::handle(context, request)),
        api_key::OFFSET_FOR_LEADER_EPOCH => {
            Pending::new(offset_for_leader_epoch::handle(context, request))
        }
        api_key::DESCRIBE_CONFIGS => Pending::new(describe_configs::handle(context, request)),
        api_key::ALTER_CONFIGS => Pending::new(alter_configs::replace(context, request)),
        api_key::DESCRIBE_LOG_DIRS => Pending::new(describe_log_dirs::handle(context, request)),
        api_key::CREATE_PARTITIONS => Pending::new(create_partitions::handle(context, request)),
        api_key::DELETE_GROUPS => Pending::new(delete_groups::handle(context, request)),
        api_key::INCREMENTAL_ALTER_CONFIGS => {
            Pending::new(alter_configs::increment(context, request))
        }
        api_key::OFFSET_DELETE => Pending::new(offset_delete::handle(context, request)),
        api_key::DESCRIBE_CLUSTER => Pending::new(describe_cluster::handle(context, request)),
        api_key::DESCRIBE_ACLS => Pending::new(acls::describe(request)),
        _ => return Err(Refusal::UnknownApi(key)),
    })
}

/// The code as messages carry it.
pub(crate) fn code(code: ErrorCode) -> i16 {
    code.0
}
