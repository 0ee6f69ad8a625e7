//! Fetch, versions 4 to 13.
//!
//! Waits until `min_bytes` are readable or `max_wait_ms` has passed, as Kafka does.
//! Differs: fetch sessions (KIP-227) are declined, so clients name every partition each time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use elkfk_wire::kafka::messages::fetch_request::FetchRequest;
use elkfk_wire::kafka::messages::fetch_response::{
    EpochEndOffset, FetchResponse, FetchableTopicResponse, PartitionData,
};
use elkfk_wire::kafka::records::{LeaderEpoch, Offset};
use elkfk_wire::kafka::{ErrorCode, Uuid};
use tokio::sync::watch;
use tracing::warn;

use super::{Answer, Context, Request, code};
use crate::metrics;
use crate::partition::{Isolation, Partition, Positions, ReadError, ReadInfo};

/// No client waits longer than this for nothing.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// One partition asked for.
struct Wanted {
    index: i32,
    epoch: LeaderEpoch,
    from: Offset,
    /// -1: not said.
    last_epoch: i32,
    max_bytes: usize,
    partition: Result<Arc<Partition>, ErrorCode>,
}

struct WantedTopic {
    name: String,
    id: Uuid,
    partitions: Vec<Wanted>,
}

struct Plan {
    topics: Vec<WantedTopic>,
    isolation: Isolation,
    min_bytes: usize,
    max_bytes: usize,
    wait: Duration,
}

#[derive(Default)]
struct Found {
    code: ErrorCode,
    diverging: Option<(LeaderEpoch, Offset)>,
    info: Option<ReadInfo>,
}

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let plan = {
        let message: FetchRequest<'_> = request.decode()?;
        if message.session_id != 0 {
            // A session that this broker never gave: the client starts anew.
            let error_code = code(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
            return request.answer(&FetchResponse { error_code, ..Default::default() });
        }
        plan(&context, &message, request.version)
    };
    let reply = request.release();
    let deadline = tokio::time::Instant::now() + plan.wait;
    // Subscribed before the first read: nothing that comes after it is missed.
    let mut positions = plan.positions();
    let found = loop {
        for positions in &mut positions {
            positions.borrow_and_update();
        }
        let found = read(&plan);
        if is_enough(&plan, &found) || plan.wait.is_zero() {
            break found;
        }
        if tokio::time::timeout_at(deadline, any_changed(&mut positions)).await.is_err() {
            break found;
        }
    };
    let bytes: usize =
        found.iter().filter_map(|found| found.info.as_ref()).map(|info| info.bytes.len()).sum();
    metrics::FETCHED_BYTES.inc_by(bytes as u64);
    let mut found = found.iter();
    let responses = plan.topics.iter().map(|topic| FetchableTopicResponse {
        topic: topic.name.as_str().into(),
        topic_id: topic.id,
        partitions: topic
            .partitions
            .iter()
            .map(|wanted| data(wanted.index, found.next().expect("one for each that was wanted")))
            .collect(),
    });
    let response = FetchResponse { responses: responses.collect(), ..Default::default() };
    reply.answer_sized(&response, bytes)
}

fn data(partition_index: i32, found: &Found) -> PartitionData<'_> {
    let mut data = PartitionData {
        partition_index,
        error_code: code(found.code),
        high_watermark: -1,
        records: Some((&[][..]).into()),
        ..Default::default()
    };
    if let Some(info) = &found.info {
        data.high_watermark = info.high_watermark.0;
        data.last_stable_offset = info.last_stable.0;
        data.log_start_offset = info.log_start.0;
        data.records = Some((&info.bytes[..]).into());
    }
    if let Some((epoch, end)) = found.diverging {
        data.diverging_epoch = EpochEndOffset { epoch: epoch.0, end_offset: end.0 };
    }
    data
}

fn plan(context: &Context, message: &FetchRequest<'_>, version: i16) -> Plan {
    let broker = &context.broker;
    let image = broker.cluster.image();
    let size = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
    let topics = message.topics.iter().map(|topic| {
        // From version 13 topics are known by id alone.
        let name = match version >= 13 {
            true => image.names.get(&topic.topic_id).cloned(),
            false => Some(topic.topic.to_string()),
        };
        let partitions = topic.partitions.iter().map(|wanted| Wanted {
            index: wanted.partition,
            epoch: LeaderEpoch(wanted.current_leader_epoch),
            from: Offset(wanted.fetch_offset),
            last_epoch: wanted.last_fetched_epoch,
            max_bytes: size(wanted.partition_max_bytes),
            partition: match &name {
                Some(name) => broker.partition(name, wanted.partition),
                None => Err(ErrorCode::UNKNOWN_TOPIC_ID),
            },
        });
        let partitions = partitions.collect();
        WantedTopic { name: name.unwrap_or_default(), id: topic.topic_id, partitions }
    });
    let wait = Duration::from_millis(message.max_wait_ms.max(0).unsigned_abs().into());
    Plan {
        topics: topics.collect(),
        isolation: match message.isolation_level {
            1 => Isolation::Committed,
            _ => Isolation::Uncommitted,
        },
        min_bytes: size(message.min_bytes),
        max_bytes: size(message.max_bytes).min(broker.config.fetch_bytes_max),
        wait: wait.min(WAIT_MAX),
    }
}

/// Reads all partitions in the order of the request, until `max_bytes` are together.
fn read(plan: &Plan) -> Vec<Found> {
    let mut left = plan.max_bytes;
    let mut is_one_wanted = true;
    let wanted = plan
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|wanted| (&topic.name, wanted)));
    wanted
        .map(|(topic, wanted)| {
            let found = read_one(topic, wanted, plan.isolation, left, is_one_wanted);
            if let Some(info) = &found.info {
                left = left.saturating_sub(info.bytes.len());
                // The first batch is sent however large it is, or its reader would be stuck (KIP-74).
                is_one_wanted &= info.bytes.is_empty();
            }
            found
        })
        .collect()
}

fn read_one(
    topic: &str,
    wanted: &Wanted,
    isolation: Isolation,
    left: usize,
    is_one_wanted: bool,
) -> Found {
    let refused = |code| Found { code, ..Found::default() };
    let partition = match &wanted.partition {
        Ok(partition) => partition,
        Err(code) => return refused(*code),
    };
    let required = (wanted.epoch.0 >= 0).then_some(wanted.epoch);
    if let Err(error) = partition.check_leader(required) {
        return refused(refusal(topic, wanted.index, &error));
    }
    if wanted.last_epoch >= 0 {
        let last = LeaderEpoch(wanted.last_epoch);
        match partition.epoch_end(last) {
            Some((epoch, end)) if epoch < last || end < wanted.from => {
                return Found { diverging: Some((epoch, end)), ..Found::default() };
            }
            _ => {}
        }
    }
    let max_bytes = wanted.max_bytes.min(left);
    match partition.read(wanted.from, max_bytes, is_one_wanted, isolation) {
        Ok(info) => Found { info: Some(info), ..Found::default() },
        Err(error) => refused(refusal(topic, wanted.index, &error)),
    }
}

/// The code of a read that failed.
pub(super) fn refusal(topic: &str, partition: i32, error: &ReadError) -> ErrorCode {
    match error {
        ReadError::NotLeader => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ReadError::Epoch { given, current } if given < current => ErrorCode::FENCED_LEADER_EPOCH,
        ReadError::Epoch { .. } => ErrorCode::UNKNOWN_LEADER_EPOCH,
        ReadError::OutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
        ReadError::Deleted => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ReadError::DirectoryFailed { .. } => ErrorCode::KAFKA_STORAGE_ERROR,
        ReadError::Io(_) | ReadError::Lookup(_) => {
            warn!(topic, partition, %error, "read failed");
            ErrorCode::KAFKA_STORAGE_ERROR
        }
    }
}

fn is_enough(plan: &Plan, found: &[Found]) -> bool {
    let has_news = found.iter().any(|found| !found.code.is_none() || found.diverging.is_some());
    let bytes: usize =
        found.iter().filter_map(|found| found.info.as_ref()).map(|info| info.bytes.len()).sum();
    has_news || bytes >= plan.min_bytes || found.is_empty()
}

impl Plan {
    fn positions(&self) -> Vec<watch::Receiver<Positions>> {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions
            .filter_map(|wanted| wanted.partition.as_ref().ok())
            .map(|it| it.changed())
            .collect()
    }
}

/// Resolves when some partition moved. One that is gone says so once, and the next read why.
async fn any_changed(positions: &mut [watch::Receiver<Positions>]) {
    let mut waits: Vec<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = positions
        .iter_mut()
        .map(|positions| {
            let wait = async move {
                let _ = positions.changed().await;
            };
            Box::pin(wait) as Pin<Box<dyn Future<Output = ()> + Send + '_>>
        })
        .collect();
    std::future::poll_fn(|context| {
        match waits.iter_mut().any(|wait| wait.as_mut().poll(context).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}
