//! JoinGroup, versions 0 to 9: a member enters a group, or its next generation.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::join_group_request::JoinGroupRequest;
use elkfk_wire::kafka::messages::join_group_response::{
    JoinGroupResponse, JoinGroupResponseMember,
};

use super::{Answer, Context, Request, code};
use crate::group::{self, Input, Join, Joined};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let join = join(&context, &request)?;
    // A rebalance may last minutes: the frame is not kept for it.
    let reply = request.release();
    let (group, member_id) = (join.group.clone(), join.member_id.clone());
    let groups = &context.broker.groups;
    let answer = match group.is_empty() {
        true => Err(ErrorCode::INVALID_GROUP_ID),
        false => groups.ask(&group, |waiter| Input::Join(waiter, join)).await,
    };
    let refused = |error| Joined { error, generation: -1, member_id, ..Joined::default() };
    let joined = match answer {
        Ok(group::Answer::Joined(joined)) => *joined,
        Ok(group::Answer::Code(error)) | Err(error) => refused(error),
        Ok(_) => refused(ErrorCode::UNKNOWN_SERVER_ERROR),
    };
    let members = joined.members.iter().map(|(id, instance, metadata)| JoinGroupResponseMember {
        member_id: id.as_str().into(),
        group_instance_id: instance.as_deref().map(Cow::Borrowed),
        metadata: metadata.as_slice().into(),
    });
    // Before version 7 the protocol cannot be null.
    let none = (reply.version < 7).then_some("");
    reply.answer(&JoinGroupResponse {
        throttle_time_ms: 0,
        error_code: code(joined.error),
        generation_id: joined.generation,
        protocol_type: joined.protocol_type.as_deref().map(Cow::Borrowed),
        protocol_name: joined.protocol.as_deref().or(none).map(Cow::Borrowed),
        leader: joined.leader.as_str().into(),
        skip_assignment: joined.is_assignment_skipped,
        member_id: joined.member_id.as_str().into(),
        members: members.collect(),
    })
}

fn join(context: &Context, request: &Request) -> Result<Join, super::Refusal> {
    let message: JoinGroupRequest<'_> = request.decode()?;
    let ms = |ms: i32| Duration::from_millis(ms.max(0).unsigned_abs().into());
    let session_timeout = ms(message.session_timeout_ms);
    Ok(Join {
        group: message.group_id.into_owned(),
        member_id: message.member_id.into_owned(),
        fresh: uuid::Uuid::new_v4().to_string(),
        instance_id: message.group_instance_id.map(Cow::into_owned),
        client_id: request.client_id.clone(),
        client_host: format!("/{}", context.peer.ip().to_canonical()),
        session_timeout,
        // Version 0 had one timeout for both.
        rebalance_timeout: match request.version {
            0 => session_timeout,
            _ => ms(message.rebalance_timeout_ms),
        },
        protocol_type: message.protocol_type.into_owned(),
        protocols: message
            .protocols
            .into_iter()
            .map(|protocol| (protocol.name.into_owned(), protocol.metadata.into_owned()))
            .collect(),
        is_id_required: request.version >= 4,
        can_skip_assignment: request.version >= 9,
    })
}
