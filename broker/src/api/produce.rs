//! Produce, versions 3 to 9; 0 to 2 are advertised and refused (see `api_versions.rs`).
//!
//! Batches are appended while the request is read, in the order of the connection, so that requests
//! behind this one share its fdatasync; the answer waits for that where acks=all.
//! Differs: transactions are refused, and message sets of before Kafka 0.11.

use std::sync::Arc;
use std::time::Duration;

use elkfk_wire::kafka::messages::produce_request::ProduceRequest;
use elkfk_wire::kafka::messages::produce_response::{
    PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use elkfk_wire::kafka::records::Offset;
use elkfk_wire::kafka::{ErrorCode, Reader};
use tracing::warn;

use super::{Answer, Context, Pending, Refusal, Reply, Request, code};
use crate::cluster::is_internal;
use crate::config::Durability;
use crate::log::{AppendError, Origin, ProducerError};
use crate::metrics;
use crate::partition::{AppendOptions, Partition};

/// What became of one partition of the request.
struct Outcome {
    index: i32,
    code: ErrorCode,
    message: Option<String>,
    base_offset: i64,
    log_append_time_ms: i64,
    log_start: i64,
    /// To be waited for before the answer.
    awaited: Option<(Arc<Partition>, Offset)>,
}

impl Outcome {
    fn refused(index: i32, code: ErrorCode, message: Option<String>) -> Self {
        metrics::APPEND_ERRORS.inc();
        Self {
            index,
            code,
            message,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start: -1,
            awaited: None,
        }
    }
}

pub(super) async fn begin(context: Arc<Context>, request: Request) -> Result<Pending, Refusal> {
    if request.version < 3 {
        return refuse_old(&context, request);
    }
    let (acks, timeout, topics) = {
        let message: ProduceRequest<'_> = request.decode()?;
        let topics: Vec<(String, Vec<Outcome>)> = message
            .topic_data
            .into_iter()
            .map(|topic| {
                let is_transactional = message.transactional_id.is_some();
                let outcomes = topic.partition_data.into_iter().map(|partition| {
                    let records = partition.records.map(|records| records.into_owned());
                    append(
                        &context,
                        &topic.name,
                        partition.index,
                        records,
                        message.acks,
                        is_transactional,
                    )
                });
                let outcomes = outcomes.collect();
                (topic.name.into_owned(), outcomes)
            })
            .collect();
        (
            message.acks,
            Duration::from_millis(message.timeout_ms.max(0).unsigned_abs().into()),
            topics,
        )
    };
    let api = request.api;
    let reply = request.release();
    if acks == 0 {
        let failed = topics
            .iter()
            .flat_map(|(_, outcomes)| outcomes)
            .find(|outcome| !outcome.code.is_none());
        // There is no answer to put the error in: as Kafka, closing is how the client learns of it.
        return match failed {
            Some(outcome) => Err(Refusal::Unacknowledged { api, code: outcome.code }),
            None => Ok(Pending::of_append(std::future::ready(Ok(None)))),
        };
    }
    Ok(Pending::of_append(answer(reply, topics, timeout)))
}

fn append(
    context: &Context,
    topic: &str,
    index: i32,
    records: Option<Vec<u8>>,
    acks: i16,
    is_transactional: bool,
) -> Outcome {
    let refused = |code| Outcome::refused(index, code, None);
    if !(-1..=1).contains(&acks) {
        return refused(ErrorCode::INVALID_REQUIRED_ACKS);
    }
    if is_transactional {
        let message = Some("transactions are not supported yet".into());
        return Outcome::refused(index, ErrorCode::INVALID_TXN_STATE, message);
    }
    if is_internal(topic) {
        return refused(ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
    let broker = &context.broker;
    let partition = match broker.partition(topic, index) {
        Ok(partition) => partition,
        Err(code) => return refused(code),
    };
    let bytes = records.as_ref().map_or(0, Vec::len);
    let options = AppendOptions { acks, required_epoch: None, origin: Origin::Client };
    match partition.append(records.unwrap_or_default(), options) {
        Ok(appended) => {
            metrics::APPENDED_BYTES.inc_by(bytes as u64);
            let is_awaited =
                acks == -1 || acks == 1 && broker.config.durability == Durability::Always;
            Outcome {
                index,
                code: ErrorCode::NONE,
                message: None,
                base_offset: appended.base_offset.0,
                log_append_time_ms: appended.log_append_time_ms.unwrap_or(-1),
                log_start: appended.log_start.0,
                awaited: is_awaited.then_some((partition, appended.next_offset)),
            }
        }
        Err(error) => {
            let (code, message) = explain(&error);
            if matches!(error, AppendError::Io(_) | AppendError::DirectoryFailed { .. }) {
                warn!(topic, partition = index, %error, "append failed");
            }
            Outcome::refused(index, code, message)
        }
    }
}

/// The code of an error, and a text where the code alone does not say enough.
pub(super) fn explain(error: &AppendError) -> (ErrorCode, Option<String>) {
    let code = match error {
        AppendError::NotLeader => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        AppendError::Epoch { given, current } if given < current => ErrorCode::FENCED_LEADER_EPOCH,
        AppendError::Epoch { .. } => ErrorCode::UNKNOWN_LEADER_EPOCH,
        AppendError::NotEnoughReplicas { .. } => ErrorCode::NOT_ENOUGH_REPLICAS,
        AppendError::Batch(elkfk_wire::kafka::records::BatchError::OldMagic { .. }) => {
            ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT
        }
        AppendError::Batch(_) | AppendError::Records(_) => ErrorCode::CORRUPT_MESSAGE,
        AppendError::Empty | AppendError::Invalid { .. } | AppendError::NotContiguous { .. } => {
            ErrorCode::INVALID_RECORD
        }
        AppendError::TooLarge { .. } => ErrorCode::MESSAGE_TOO_LARGE,
        AppendError::LargerThanSegment { .. } => ErrorCode::RECORD_LIST_TOO_LARGE,
        AppendError::Timestamp { .. } => ErrorCode::INVALID_TIMESTAMP,
        AppendError::Producer(error) => match error {
            ProducerError::OutOfOrder { .. } => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
            _ => ErrorCode::INVALID_PRODUCER_EPOCH,
        },
        // Retriable in every client, unlike the codes that name the disk.
        AppendError::DiskFull => ErrorCode::NOT_ENOUGH_REPLICAS,
        AppendError::DirectoryFailed { .. } | AppendError::Io(_) => ErrorCode::KAFKA_STORAGE_ERROR,
        AppendError::Deleted => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    };
    (code, Some(error.to_string()))
}

async fn answer(
    reply: Reply,
    mut topics: Vec<(String, Vec<Outcome>)>,
    timeout: Duration,
) -> Answer {
    let deadline = tokio::time::Instant::now() + timeout;
    for outcome in topics.iter_mut().flat_map(|(_, outcomes)| outcomes) {
        let Some((partition, up_to)) = outcome.awaited.take() else { continue };
        let durable = tokio::time::timeout_at(deadline, partition.durable(up_to)).await;
        (outcome.code, outcome.message) = match durable {
            Ok(Ok(())) => continue,
            Ok(Err(AppendError::NotLeader)) => (ErrorCode::NOT_LEADER_OR_FOLLOWER, None),
            Ok(Err(error)) => explain(&error),
            Err(_) => (ErrorCode::REQUEST_TIMED_OUT, None),
        };
        (outcome.base_offset, outcome.log_append_time_ms, outcome.log_start) = (-1, -1, -1);
    }
    let responses = topics.iter().map(|(name, outcomes)| TopicProduceResponse {
        name: name.as_str().into(),
        partition_responses: outcomes
            .iter()
            .map(|outcome| PartitionProduceResponse {
                index: outcome.index,
                error_code: code(outcome.code),
                base_offset: outcome.base_offset,
                log_append_time_ms: outcome.log_append_time_ms,
                log_start_offset: outcome.log_start,
                record_errors: Vec::new(),
                error_message: outcome.message.as_deref().map(Into::into),
            })
            .collect(),
    });
    reply.answer(&ProduceResponse { responses: responses.collect(), throttle_time_ms: 0 })
}

/// Versions 0 to 2 carry message sets of before Kafka 0.11, which no log here holds.
fn refuse_old(context: &Context, request: Request) -> Result<Pending, Refusal> {
    let refuse = |source| Refusal::Body { api: request.api, version: request.version, source };
    let mut reader = Reader::new(request.body());
    let acks = reader.i16().map_err(refuse)?;
    reader.i32().map_err(refuse)?;
    let mut body = Vec::new();
    let topics = reader.i32().map_err(refuse)?;
    body.extend(topics.to_be_bytes());
    for _ in 0..topics.max(0) {
        let name = reader.string(false).map_err(refuse)?;
        let partitions = reader.i32().map_err(refuse)?;
        body.extend((name.len() as u16).to_be_bytes());
        body.extend(name.as_bytes());
        body.extend(partitions.to_be_bytes());
        for _ in 0..partitions.max(0) {
            let index = reader.i32().map_err(refuse)?;
            reader.nullable_bytes(false).map_err(refuse)?;
            body.extend(index.to_be_bytes());
            body.extend(code(ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT).to_be_bytes());
            body.extend((-1i64).to_be_bytes());
            if request.version >= 2 {
                body.extend((-1i64).to_be_bytes());
            }
        }
    }
    if request.version >= 1 {
        body.extend(0i32.to_be_bytes());
    }
    warn!(
        peer = %context.peer,
        client = request.client_id,
        "Produce version {} is refused: its format is older than Kafka 0.11; update the client or set its broker version to 0.11 or newer",
        request.version
    );
    if acks == 0 {
        return Ok(Pending::of_append(std::future::ready(Ok(None))));
    }
    let reply = request.release();
    Ok(Pending::of_append(std::future::ready(reply.answer_raw(&body))))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use elkfk_wire::kafka::Message;
    use elkfk_wire::kafka::records::{BatchBuilder, Compression, LeaderEpoch};

    use super::*;
    use crate::log::{LogConfig, LogManager, TopicConfig};
    use crate::partition::BrokerId;
    use crate::partition::tests::FailingDisk;

    /// Appends, as the API does, and answers; error code and base offset of the answer.
    async fn produce(partition: &Arc<Partition>) -> (ErrorCode, i64) {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(1_700_000_000_000, None, Some(b"value"), &[]);
        let appended =
            partition.append(builder.build().unwrap(), AppendOptions::default()).unwrap();
        let outcome = Outcome {
            index: 0,
            code: ErrorCode::NONE,
            message: None,
            base_offset: appended.base_offset.0,
            log_append_time_ms: -1,
            log_start: 0,
            awaited: Some((partition.clone(), appended.next_offset)),
        };
        let reply = Reply { api: "Produce", version: 8, correlation_id: 1 };
        let topics = vec![("logs".to_owned(), vec![outcome])];
        let frame = answer(reply, topics, Duration::from_secs(60)).await.unwrap().unwrap();
        // Length and correlation id go before the body.
        let body = ProduceResponse::decode(&mut Reader::new(&frame.bytes[8..]), 8).unwrap();
        let one = &body.responses[0].partition_responses[0];
        (ErrorCode(one.error_code), one.base_offset)
    }

    #[tokio::test]
    async fn what_the_disk_did_not_take_is_not_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FailingDisk::default();
        let told = disk.told.clone();
        let config = LogConfig {
            directories: vec![directory.path().into()],
            reserve_bytes: 0,
            disk: Arc::new(disk),
            ..LogConfig::default()
        };
        let manager = LogManager::open(config).unwrap();
        let partition = manager.create("logs", None, 0, TopicConfig::default()).unwrap();
        partition.become_leader(BrokerId(0), LeaderEpoch(0), &[]).unwrap();
        assert_eq!(produce(&partition).await, (ErrorCode::NONE, 0));
        told.is_failing.store(true, Ordering::SeqCst);
        assert_eq!(produce(&partition).await, (ErrorCode::KAFKA_STORAGE_ERROR, -1));
        manager.shutdown();
    }
}
