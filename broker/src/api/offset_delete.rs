//! OffsetDelete, version 0: forgets how far a group has read some topics.

use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::offset_delete_request::OffsetDeleteRequest;
use elkfk_wire::kafka::messages::offset_delete_response::{
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use super::{Answer, Context, Request, code};
use crate::group::{self, Input};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: OffsetDeleteRequest<'_> = request.decode()?;
    let image = context.broker.cluster.image();
    let is_known = |topic: &str, partition| image.partition(topic, partition).is_some();
    let mut wanted = Vec::new();
    for topic in &message.topics {
        for partition in &topic.partitions {
            if is_known(&topic.name, partition.partition_index) {
                wanted.push((topic.name.to_string(), partition.partition_index));
            }
        }
    }
    let group = message.group_id.to_string();
    let groups = &context.broker.groups;
    let (error, codes) = match groups
        .ask(&message.group_id, |waiter| Input::DeleteOffsets(waiter, group, wanted))
        .await
    {
        Ok(group::Answer::Offsets(codes)) => (ErrorCode::NONE, codes),
        Ok(group::Answer::Code(error)) | Err(error) => (error, Vec::new()),
        Ok(_) => (ErrorCode::UNKNOWN_SERVER_ERROR, Vec::new()),
    };
    if !error.is_none() {
        return request
            .answer(&OffsetDeleteResponse { error_code: code(error), ..Default::default() });
    }
    let mut codes = codes.into_iter();
    let topics = message.topics.iter().map(|topic| OffsetDeleteResponseTopic {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| {
                let error = match is_known(&topic.name, partition.partition_index) {
                    true => codes.next().unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR),
                    false => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                };
                OffsetDeleteResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: code(error),
                }
            })
            .collect(),
    });
    let topics = topics.collect();
    request.answer(&OffsetDeleteResponse { topics, ..Default::default() })
}
