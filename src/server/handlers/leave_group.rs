//! LeaveGroup: members leave their group.

use crate::coordinator::LeavingMember;
use crate::protocol::ErrorCode;
use crate::protocol::generated::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberResponse};
use crate::server::dispatch::Call;

/// The first version with several members in a request.
const SEVERAL_FROM: i16 = 3;

pub(in crate::server) async fn handle(call: Call<LeaveGroupRequest>) -> LeaveGroupResponse {
    let request = &call.request;
    let leaving: Vec<LeavingMember> = if call.version >= SEVERAL_FROM {
        request.members.iter().map(|m| LeavingMember { id: m.member_id.clone(), instance_id: m.group_instance_id.clone() }).collect()
    } else {
        vec![LeavingMember { id: request.member_id.clone(), instance_id: None }]
    };
    let results = match call.caller.services.groups.leave(&request.group_id, &leaving).await {
        Ok(results) => results,
        Err(error) => return LeaveGroupResponse { error_code: error.code(), ..Default::default() },
    };
    if call.version < SEVERAL_FROM {
        let error = results.first().copied().unwrap_or(ErrorCode::None);
        return LeaveGroupResponse { error_code: error.code(), ..Default::default() };
    }
    let member = |(member, error): (&LeavingMember, &ErrorCode)| MemberResponse {
        member_id: member.id.clone(),
        group_instance_id: member.instance_id.clone(),
        error_code: error.code(),
    };
    LeaveGroupResponse { members: leaving.iter().zip(&results).map(member).collect(), ..Default::default() }
}
