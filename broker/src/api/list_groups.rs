//! ListGroups, versions 0 to 4: the groups this broker coordinates.

use std::sync::Arc;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::list_groups_request::ListGroupsRequest;
use elkfk_wire::kafka::messages::list_groups_response::{ListGroupsResponse, ListedGroup};

use super::{Answer, Context, Request, code};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: ListGroupsRequest<'_> = request.decode()?;
    let states = &message.states_filter;
    let mut groups = Vec::new();
    let is_loading = context.broker.groups.look_at_all(|core| {
        let wanted = core.iter().filter(|group| {
            let state = group.state.to_string();
            states.is_empty() || states.iter().any(|wanted| wanted.eq_ignore_ascii_case(&state))
        });
        groups.extend(wanted.map(|group| ListedGroup {
            group_id: group.id.clone().into(),
            protocol_type: group.protocol_type.clone().unwrap_or_default().into(),
            group_state: group.state.to_string().into(),
        }));
    });
    let error = if is_loading { ErrorCode::COORDINATOR_LOAD_IN_PROGRESS } else { ErrorCode::NONE };
    request.answer(&ListGroupsResponse { throttle_time_ms: 0, error_code: code(error), groups })
}
