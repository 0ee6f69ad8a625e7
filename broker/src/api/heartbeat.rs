//! Heartbeat, versions 0 to 4: a member is alive; the answer tells it to rejoin.

use std::borrow::Cow;
use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::heartbeat_request::HeartbeatRequest;
use elkfk_wire::kafka::messages::heartbeat_response::HeartbeatResponse;

use super::{Answer, Context, Request, code};
use crate::group::{self, Heartbeat, Input};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: HeartbeatRequest<'_> = request.decode()?;
    let heartbeat = Heartbeat {
        group: message.group_id.to_string(),
        generation: message.generation_id,
        member_id: message.member_id.into_owned(),
        instance_id: message.group_instance_id.map(Cow::into_owned),
    };
    let groups = &context.broker.groups;
    let error =
        match groups.ask(&message.group_id, |waiter| Input::Heartbeat(waiter, heartbeat)).await {
            Ok(group::Answer::Code(error)) => error,
            // As in Kafka: the group comes back with its members in it.
            Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS) => ErrorCode::NONE,
            Err(error) => error,
            Ok(_) => ErrorCode::UNKNOWN_SERVER_ERROR,
        };
    request.answer(&HeartbeatResponse { throttle_time_ms: 0, error_code: code(error) })
}
