//! SyncGroup, versions 0 to 5: the leader hands out the assignment, everyone gets their own.

use std::borrow::Cow;
use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::sync_group_request::SyncGroupRequest;
use elkfk_wire::kafka::messages::sync_group_response::SyncGroupResponse;

use super::{Answer, Context, Request, code};
use crate::group::{self, Input, Sync, Synced};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let sync = {
        let message: SyncGroupRequest<'_> = request.decode()?;
        let assignments = message.assignments.into_iter();
        Sync {
            group: message.group_id.into_owned(),
            generation: message.generation_id,
            member_id: message.member_id.into_owned(),
            instance_id: message.group_instance_id.map(Cow::into_owned),
            protocol_type: message.protocol_type.map(Cow::into_owned),
            protocol: message.protocol_name.map(Cow::into_owned),
            assignments: assignments
                .map(|it| (it.member_id.into_owned(), it.assignment.into_owned()))
                .collect(),
        }
    };
    let reply = request.release();
    let group = sync.group.clone();
    let answer = context.broker.groups.ask(&group, |waiter| Input::Sync(waiter, sync)).await;
    let refused = |error| Synced { error, ..Synced::default() };
    let synced = match answer {
        Ok(group::Answer::Synced(synced)) => *synced,
        Ok(group::Answer::Code(error)) | Err(error) => refused(error),
        Ok(_) => refused(ErrorCode::UNKNOWN_SERVER_ERROR),
    };
    reply.answer(&SyncGroupResponse {
        throttle_time_ms: 0,
        error_code: code(synced.error),
        protocol_type: synced.protocol_type.as_deref().map(Cow::Borrowed),
        protocol_name: synced.protocol.as_deref().map(Cow::Borrowed),
        assignment: synced.assignment.as_slice().into(),
    })
}
