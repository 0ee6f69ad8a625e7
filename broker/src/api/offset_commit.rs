//! OffsetCommit, versions 2 to 8: stores how far a group has read.
//!
//! Answered once the offsets are as durable as the broker's acknowledgements are.

use std::borrow::Cow;
use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::offset_commit_request::OffsetCommitRequest;
use elkfk_wire::kafka::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};

use super::{Answer, Context, Request, code};
use crate::group::offsets::Committed;
use crate::group::{self, Commit, Input};
use elkfk_base::now_ms;

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: OffsetCommitRequest<'_> = request.decode()?;
    let image = context.broker.cluster.image();
    let commit_ms = now_ms();
    let mut offsets = Vec::new();
    for topic in &message.topics {
        for partition in &topic.partitions {
            if image.partition(&topic.name, partition.partition_index).is_none() {
                continue;
            }
            let committed = Committed {
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata.as_deref().unwrap_or_default().to_owned(),
                commit_ms,
                expire_ms: (message.retention_time_ms >= 0)
                    .then(|| commit_ms.saturating_add(message.retention_time_ms)),
            };
            offsets.push((topic.name.to_string(), partition.partition_index, committed));
        }
    }
    let group = message.group_id.to_string();
    let commit = Commit {
        group: group.clone(),
        generation: message.generation_id,
        member_id: message.member_id.to_string(),
        instance_id: message.group_instance_id.as_deref().map(str::to_owned),
        offsets,
    };
    let answer = match group.is_empty() && message.generation_id >= 0 {
        true => Err(ErrorCode::INVALID_GROUP_ID),
        false => context.broker.groups.ask(&group, |waiter| Input::Commit(waiter, commit)).await,
    };
    let (mut codes, whole) = match answer {
        Ok(group::Answer::Offsets(codes)) => (codes.into_iter(), None),
        Ok(group::Answer::Code(error)) | Err(error) => (Vec::new().into_iter(), Some(error)),
        Ok(_) => (Vec::new().into_iter(), Some(ErrorCode::UNKNOWN_SERVER_ERROR)),
    };
    let topics = message.topics.iter().map(|topic| OffsetCommitResponseTopic {
        name: Cow::Borrowed(&*topic.name),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| {
                let is_known = image.partition(&topic.name, partition.partition_index).is_some();
                let error = match whole {
                    _ if !is_known => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    Some(error) => error,
                    None => codes.next().unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR),
                };
                OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: code(error),
                }
            })
            .collect(),
    });
    let topics = topics.collect();
    request.answer(&OffsetCommitResponse { throttle_time_ms: 0, topics })
}
