//! OffsetForLeaderEpoch, versions 2 to 4: where a leader epoch ended (KIP-101, KIP-320).

use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
};
use elkfk_wire::kafka::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use elkfk_wire::kafka::records::LeaderEpoch;

use super::fetch::refusal;
use super::{Answer, Context, Request, code};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: OffsetForLeaderEpochRequest<'_> = request.decode()?;
    let topics = message.topics.iter().map(|topic| OffsetForLeaderTopicResult {
        topic: topic.topic.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|wanted| {
                let partition = wanted.partition;
                match find(&context, &topic.topic, wanted) {
                    Ok((leader_epoch, end_offset)) => {
                        EpochEndOffset { error_code: 0, partition, leader_epoch, end_offset }
                    }
                    Err(error) => {
                        EpochEndOffset { error_code: code(error), partition, ..Default::default() }
                    }
                }
            })
            .collect(),
    });
    let topics = topics.collect();
    request.answer(&OffsetForLeaderEpochResponse { throttle_time_ms: 0, topics })
}

fn find(
    context: &Context,
    topic: &str,
    wanted: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ErrorCode> {
    let partition = context.broker.partition(topic, wanted.partition)?;
    let required =
        (wanted.current_leader_epoch >= 0).then_some(LeaderEpoch(wanted.current_leader_epoch));
    partition.check_leader(required).map_err(|error| refusal(topic, wanted.partition, &error))?;
    let end = partition.epoch_end(LeaderEpoch(wanted.leader_epoch));
    Ok(end.map_or((-1, -1), |(epoch, end)| (epoch.0, end.0)))
}
