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
use crate::server::{Memory, Share};

/// No client waits longer than this for nothing.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Records are in memory as they were read, and in the frame.
const COPIES: usize = 2;
/// Answers that are not counted: as many as there are connections.
const SHORT_ANSWER_BYTES: usize = 64 << 10;
/// How long an answer waits for the memory to become a long one.
const MEMORY_WAIT: Duration = Duration::from_millis(500);

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
    let (found, bytes, memory) = 'reading: loop {
        let marks: Vec<Positions> =
            positions.iter_mut().map(|positions| *positions.borrow_and_update()).collect();
        let log_bytes = plan.log_bytes();
        let (mut memory, max_bytes) = plan.memory(&context.broker.answers).await;
        let found = read(&plan, max_bytes);
        let bytes: usize =
            found.iter().filter_map(|found| found.info.as_ref()).map(|info| info.bytes.len()).sum();
        memory.shrink(bytes * COPIES);
        if is_enough(&plan, &found, bytes) || plan.wait.is_zero() {
            break (found, bytes, memory);
        }
        loop {
            if tokio::time::timeout_at(deadline, any_changed(&mut positions)).await.is_err() {
                break 'reading (found, bytes, memory);
            }
            // Reading all of it again for every record that comes would cost the square of it.
            let is_same = |(mark, now): (&Positions, &watch::Receiver<Positions>)| {
                Positions { high_watermark: mark.high_watermark, ..*now.borrow() } == *mark
            };
            let grown = plan.log_bytes().saturating_sub(log_bytes);
            let hoped = bytes.saturating_add(usize::try_from(grown).unwrap_or(usize::MAX));
            if hoped >= plan.min_bytes || !marks.iter().zip(&positions).all(is_same) {
                break;
            }
        }
    };
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
    reply.answer_sized(&response, bytes, memory)
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
    let max_bytes = size(message.max_bytes).min(broker.config.fetch_bytes_max);
    Plan {
        topics: topics.collect(),
        isolation: match message.isolation_level {
            1 => Isolation::Committed,
            _ => Isolation::Uncommitted,
        },
        // More than may be sent never comes together.
        min_bytes: size(message.min_bytes).min(max_bytes),
        max_bytes,
        wait: wait.min(WAIT_MAX),
    }
}

/// Reads all partitions in the order of the request, until `max_bytes` are together.
fn read(plan: &Plan, max_bytes: usize) -> Vec<Found> {
    let mut left = max_bytes;
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

fn is_enough(plan: &Plan, found: &[Found], bytes: usize) -> bool {
    let has_news = found.iter().any(|found| !found.code.is_none() || found.diverging.is_some());
    has_news || bytes >= plan.min_bytes || found.is_empty()
}

impl Plan {
    fn partitions(&self) -> impl Iterator<Item = (&Wanted, &Partition)> {
        let wanted = self.topics.iter().flat_map(|topic| &topic.partitions);
        wanted.filter_map(|it| Some((it, &**it.partition.as_ref().ok()?)))
    }

    /// Bytes of the logs, where it matters by how much they grow.
    fn log_bytes(&self) -> u64 {
        match self.min_bytes {
            ..=1 => 0,
            _ => self.partitions().map(|(_, partition)| partition.bytes()).sum(),
        }
    }

    /// Memory for the answer, and how long it may become with that. While too many others wait for
    /// slow consumers to take theirs, it becomes a short one.
    async fn memory(&self, memory: &Memory) -> (Share, usize) {
        let has_news = |(wanted, partition): &(&Wanted, &Partition)| {
            partition.positions().high_watermark > wanted.from
        };
        let most = self
            .partitions()
            .filter(has_news)
            .fold(0usize, |sum, (wanted, _)| sum.saturating_add(wanted.max_bytes));
        let most = most.min(self.max_bytes);
        if most <= SHORT_ANSWER_BYTES {
            return (Share::default(), self.max_bytes);
        }
        let share = memory.take(most.saturating_mul(COPIES));
        match tokio::time::timeout(MEMORY_WAIT, share).await {
            Ok(share) => (share, self.max_bytes),
            Err(_) => (Share::default(), SHORT_ANSWER_BYTES.min(self.max_bytes)),
        }
    }

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
