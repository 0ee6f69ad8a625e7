//! DeleteRecords, versions 0 to 2: moves the start of partitions forward.

use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::delete_records_request::DeleteRecordsRequest;
use elkfk_wire::kafka::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use elkfk_wire::kafka::records::Offset;

use super::fetch::refusal;
use super::{Answer, Context, Request, code};
use crate::cluster::is_internal;

/// Asks for everything below the high watermark.
const ALL: i64 = -1;

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: DeleteRecordsRequest<'_> = request.decode()?;
    let topics = message.topics.iter().map(|topic| DeleteRecordsTopicResult {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|wanted| {
                let deleted = delete(&context, &topic.name, wanted.partition_index, wanted.offset);
                DeleteRecordsPartitionResult {
                    partition_index: wanted.partition_index,
                    low_watermark: deleted.map_or(-1, |log_start| log_start.0),
                    error_code: code(deleted.err().unwrap_or(ErrorCode::NONE)),
                }
            })
            .collect(),
    });
    let topics = topics.collect();
    request.answer(&DeleteRecordsResponse { throttle_time_ms: 0, topics })
}

fn delete(context: &Context, topic: &str, index: i32, offset: i64) -> Result<Offset, ErrorCode> {
    if is_internal(topic) {
        return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
    let partition = context.broker.partition(topic, index)?;
    let explain = |error| refusal(topic, index, &error);
    partition.check_leader(None).map_err(explain)?;
    if !partition.config().is_deleted {
        // What is only compacted has no end to cut off.
        return Err(ErrorCode::POLICY_VIOLATION);
    }
    let offset = (offset != ALL).then_some(Offset(offset));
    partition.delete_records(offset).map_err(explain)
}
