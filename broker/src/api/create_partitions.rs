//! CreatePartitions, versions 0 to 3. Answered once the new partitions have leaders.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use elkfk_wire::kafka::messages::create_partitions_response::{
    CreatePartitionsResponse, CreatePartitionsTopicResult,
};

use super::{Answer, Context, Request, code};
use crate::cluster::{ADMIN_WAIT_MAX, AdminError};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: CreatePartitionsRequest<'_> = request.decode()?;
    let wait =
        Duration::from_millis(message.timeout_ms.max(0).unsigned_abs().into()).min(ADMIN_WAIT_MAX);
    let mut results = Vec::with_capacity(message.topics.len());
    for topic in &message.topics {
        let error = create(&context, topic, message.validate_only, wait).await.err();
        results.push(CreatePartitionsTopicResult {
            name: topic.name.clone(),
            error_code: error.as_ref().map_or(0, |error| code(error.code)),
            error_message: error.and_then(|error| error.message).map(Cow::Owned),
        });
    }
    request.answer(&CreatePartitionsResponse { throttle_time_ms: 0, results })
}

async fn create(
    context: &Context,
    topic: &CreatePartitionsTopic<'_>,
    validate_only: bool,
    wait: Duration,
) -> Result<(), AdminError> {
    let broker = &context.broker;
    if !broker.is_controller(&broker.cluster.image()) {
        return Err(ErrorCode::NOT_CONTROLLER.into());
    }
    let assigned = topic.assignments.as_ref().map(|assignments| {
        assignments.iter().map(|assignment| assignment.broker_ids.clone()).collect()
    });
    broker.cluster.create_partitions(&topic.name, topic.count, assigned, validate_only).await?;
    let count = usize::try_from(topic.count).unwrap_or_default();
    if !validate_only && !broker.cluster.await_leaders(&topic.name, count, wait).await {
        return Err(ErrorCode::REQUEST_TIMED_OUT.into());
    }
    Ok(())
}
