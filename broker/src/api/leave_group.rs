//! LeaveGroup, versions 0 to 5: members leave a group; from version 3 several at once.

use std::borrow::Cow;
use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::leave_group_request::LeaveGroupRequest;
use elkfk_wire::kafka::messages::leave_group_response::{LeaveGroupResponse, MemberResponse};

use super::{Answer, Context, Request, code};
use crate::group::{self, Input, Leave};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: LeaveGroupRequest<'_> = request.decode()?;
    let members: Vec<(String, Option<String>)> = match request.version >= 3 {
        true => message
            .members
            .iter()
            .map(|member| {
                (
                    member.member_id.to_string(),
                    member.group_instance_id.as_deref().map(str::to_owned),
                )
            })
            .collect(),
        false => vec![(message.member_id.to_string(), None)],
    };
    let leave = Leave { group: message.group_id.to_string(), members: members.clone() };
    let (error, codes) = match context
        .broker
        .groups
        .ask(&message.group_id, |waiter| Input::Leave(waiter, leave))
        .await
    {
        Ok(group::Answer::Left(codes)) => (ErrorCode::NONE, codes),
        Ok(group::Answer::Code(error)) | Err(error) => (error, Vec::new()),
        Ok(_) => (ErrorCode::UNKNOWN_SERVER_ERROR, Vec::new()),
    };
    if request.version < 3 {
        let error = codes.first().copied().unwrap_or(error);
        return request
            .answer(&LeaveGroupResponse { error_code: code(error), ..Default::default() });
    }
    let members = members.iter().zip(&codes).map(|((id, instance), error)| MemberResponse {
        member_id: id.as_str().into(),
        group_instance_id: instance.as_deref().map(Cow::Borrowed),
        error_code: code(*error),
    });
    let members = members.collect();
    request.answer(&LeaveGroupResponse { throttle_time_ms: 0, error_code: code(error), members })
}
