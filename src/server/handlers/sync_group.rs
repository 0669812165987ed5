//! SyncGroup: a member asks for its part of the assignment.

use crate::coordinator::SyncRequest;
use crate::protocol::generated::sync_group::{SyncGroupRequest, SyncGroupResponse};
use crate::server::dispatch::Call;

pub(in crate::server) async fn handle(call: Call<SyncGroupRequest>) -> SyncGroupResponse {
    let request = call.request;
    let sync = SyncRequest {
        group: request.group_id,
        member_id: request.member_id,
        instance_id: request.group_instance_id,
        generation: request.generation_id,
        protocol_type: request.protocol_type,
        protocol: request.protocol_name,
        assignments: request.assignments.into_iter().map(|a| (a.member_id, a.assignment)).collect(),
    };
    let reply = call.caller.services.groups.sync(sync).await;
    SyncGroupResponse {
        error_code: reply.error.code(),
        protocol_type: reply.protocol_type,
        protocol_name: reply.protocol,
        assignment: reply.assignment,
        ..Default::default()
    }
}
