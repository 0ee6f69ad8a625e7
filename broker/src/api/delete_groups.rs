//! DeleteGroups, versions 0 to 2: deletes empty groups with their offsets.

use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::delete_groups_request::DeleteGroupsRequest;
use elkfk_wire::kafka::messages::delete_groups_response::{
    DeletableGroupResult, DeleteGroupsResponse,
};

use super::{Answer, Context, Request, code};
use crate::group::{self, Input};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: DeleteGroupsRequest<'_> = request.decode()?;
    let mut results = Vec::with_capacity(message.groups_names.len());
    for group_id in &message.groups_names {
        let group = group_id.to_string();
        let error = match context
            .broker
            .groups
            .ask(group_id, |waiter| Input::DeleteGroup(waiter, group))
            .await
        {
            Ok(group::Answer::Code(error)) | Err(error) => error,
            Ok(_) => ErrorCode::UNKNOWN_SERVER_ERROR,
        };
        results.push(DeletableGroupResult { group_id: group_id.clone(), error_code: code(error) });
    }
    request.answer(&DeleteGroupsResponse { throttle_time_ms: 0, results })
}
