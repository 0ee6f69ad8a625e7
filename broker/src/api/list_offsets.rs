//! ListOffsets, versions 1 to 7: the offset at a timestamp, or at an end of the log.

use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest};
use elkfk_wire::kafka::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use elkfk_wire::kafka::records::LeaderEpoch;

use super::fetch::refusal;
use super::{Answer, Context, Request, code};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// The record of the largest timestamp (KIP-734).
const LARGEST_TIMESTAMP: i64 = -3;

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let is_lookup = {
        let message: ListOffsetsRequest<'_> = request.decode()?;
        let mut wanted = message.topics.iter().flat_map(|topic| &topic.partitions);
        wanted.any(|wanted| !matches!(wanted.timestamp, LATEST | EARLIEST))
    };
    if !is_lookup {
        return answer(&context, &request);
    }
    // Segments are walked and batches decompressed for these.
    let answered = tokio::task::spawn_blocking(move || answer(&context, &request)).await;
    match answered {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and with it the connection.
            Err(_) => Ok(None),
        },
    }
}

fn answer(context: &Context, request: &Request) -> Answer {
    let message: ListOffsetsRequest<'_> = request.decode()?;
    let is_committed = message.isolation_level == 1;
    let topics = message.topics.iter().map(|topic| ListOffsetsTopicResponse {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|wanted| match find(context, &topic.name, wanted, is_committed) {
                Ok((timestamp, offset, epoch)) => ListOffsetsPartitionResponse {
                    partition_index: wanted.partition_index,
                    error_code: 0,
                    timestamp,
                    offset,
                    // Before version 4 there is no place for it.
                    leader_epoch: epoch
                        .filter(|_| request.version >= 4)
                        .map_or(-1, |epoch| epoch.0),
                },
                Err(error) => ListOffsetsPartitionResponse {
                    partition_index: wanted.partition_index,
                    error_code: code(error),
                    ..Default::default()
                },
            })
            .collect(),
    });
    let topics = topics.collect();
    request.answer(&ListOffsetsResponse { throttle_time_ms: 0, topics })
}

/// Timestamp, offset and epoch; -1 stands for none, as on the wire.
fn find(
    context: &Context,
    topic: &str,
    wanted: &ListOffsetsPartition,
    is_committed: bool,
) -> Result<(i64, i64, Option<LeaderEpoch>), ErrorCode> {
    let partition = context.broker.partition(topic, wanted.partition_index)?;
    let explain = |error| refusal(topic, wanted.partition_index, &error);
    let required =
        (wanted.current_leader_epoch >= 0).then_some(LeaderEpoch(wanted.current_leader_epoch));
    let current = partition.check_leader(required).map_err(explain)?;
    let found = match wanted.timestamp {
        LATEST => {
            let end = match is_committed {
                true => partition.last_stable(),
                false => partition.positions().high_watermark,
            };
            return Ok((-1, end.0, Some(current)));
        }
        EARLIEST => {
            let start = partition.positions().log_start;
            return Ok((-1, start.0, partition.epoch_of(start)));
        }
        LARGEST_TIMESTAMP => partition.find_largest_timestamp(),
        timestamp => partition.find_timestamp(timestamp),
    };
    let found = found.map_err(explain)?;
    Ok(found.map_or((-1, -1, None), |found| {
        (found.timestamp_ms, found.offset.0, partition.epoch_of(found.offset))
    }))
}
