//! DescribeGroups: returns classic groups with their members.

use super::authorized::{ON_GROUP, if_asked};
use crate::coordinator::{GroupState, GroupView};
use crate::protocol::ErrorCode;
use crate::protocol::generated::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember};
use crate::server::dispatch::Call;

/// The first version that distinguishes an unknown group from a dead one.
const NOT_FOUND_FROM: i16 = 6;

pub(in crate::server) async fn handle(call: Call<DescribeGroupsRequest>) -> DescribeGroupsResponse {
    let groups = call.request.groups.iter().map(|id| match call.caller.services.groups.describe(id) {
        Ok(Some(view)) => described(view, if_asked(call.request.include_authorized_operations, ON_GROUP)),
        Ok(None) => {
            let dead = DescribedGroup { group_id: id.clone(), group_state: GroupState::Dead.name().into(), ..Default::default() };
            if call.version < NOT_FOUND_FROM {
                return dead;
            }
            let error_message = Some(format!("Group {id} not found."));
            DescribedGroup { error_code: ErrorCode::GroupIdNotFound.code(), error_message, ..dead }
        }
        Err(error) => DescribedGroup { error_code: error.code(), group_id: id.clone(), ..Default::default() },
    });
    DescribeGroupsResponse { groups: groups.collect(), ..Default::default() }
}

fn described(view: GroupView, authorized_operations: i32) -> DescribedGroup {
    let members = view.members.into_iter().map(|m| DescribedGroupMember {
        member_id: m.id,
        group_instance_id: m.instance_id,
        client_id: m.client_id,
        client_host: m.client_host,
        member_metadata: m.metadata,
        member_assignment: m.assignment,
    });
    DescribedGroup {
        group_id: view.id,
        group_state: view.state.name().into(),
        protocol_type: view.protocol_type,
        protocol_data: view.protocol,
        members: members.collect(),
        authorized_operations,
        ..Default::default()
    }
}
