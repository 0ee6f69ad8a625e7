//! DescribeGroups, versions 0 to 5: members of groups and what they are assigned.

use std::borrow::Cow;
use std::sync::Arc;

use elkfk_wire::kafka::messages::describe_groups_request::DescribeGroupsRequest;
use elkfk_wire::kafka::messages::describe_groups_response::{
    DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};

use super::metadata::{GROUP_OPERATIONS, NOT_ASKED};
use super::{Answer, Context, Request, code};
use crate::group::state::{Group, State};

pub(super) async fn handle(context: Arc<Context>, request: Request) -> Answer {
    let message: DescribeGroupsRequest<'_> = request.decode()?;
    let authorized_operations = match message.include_authorized_operations {
        true => GROUP_OPERATIONS,
        false => NOT_ASKED,
    };
    let groups = message.groups.iter().map(|id| {
        let described = context.broker.groups.look(id, |groups| groups.get(id).map(describe));
        let (error_code, described) = match described {
            Ok(described) => (0, described),
            Err(error) => (code(error), Some(DescribedGroup::default())),
        };
        // A group that is not there is described as one that is dead, as in Kafka.
        let dead =
            || DescribedGroup { group_state: State::Dead.to_string().into(), ..Default::default() };
        let group_id = id.clone();
        DescribedGroup {
            error_code,
            group_id,
            authorized_operations,
            ..described.unwrap_or_else(dead)
        }
    });
    let groups = groups.collect();
    request.answer(&DescribeGroupsResponse { throttle_time_ms: 0, groups })
}

fn describe(group: &Group) -> DescribedGroup<'static> {
    let is_stable = group.state == State::Stable;
    let protocol = group.protocol.clone().filter(|_| is_stable).unwrap_or_default();
    let members = group.members.values().map(|member| DescribedGroupMember {
        member_id: member.id.clone().into(),
        group_instance_id: member.instance_id.clone().map(Cow::Owned),
        client_id: member.client_id.clone().into(),
        client_host: member.client_host.clone().into(),
        member_metadata: match is_stable {
            true => member.metadata(&protocol).to_vec().into(),
            false => Cow::default(),
        },
        member_assignment: match is_stable {
            true => member.assignment.clone().into(),
            false => Cow::default(),
        },
    });
    DescribedGroup {
        group_state: group.state.to_string().into(),
        protocol_type: group.protocol_type.clone().unwrap_or_default().into(),
        members: members.collect(),
        protocol_data: protocol.into(),
        ..Default::default()
    }
}
