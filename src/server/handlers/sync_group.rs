//! SyncGroup: returns a member's part of the assignment.

use crate::coordinator::SyncRequest;
use crate::protocol::ErrorCode;
use crate::protocol::generated::sync_group::{SyncGroupRequest, SyncGroupResponse};
use crate::server::dispatch::Call;

/// The first version in which a member must send the type and protocol that it expects (KIP-559).
const PROTOCOL_FROM: i16 = 5;

pub(in crate::server) async fn handle(call: Call<SyncGroupRequest>) -> SyncGroupResponse {
    let request = call.request;
    if call.version >= PROTOCOL_FROM && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return SyncGroupResponse { error_code: ErrorCode::InconsistentGroupProtocol.code(), ..Default::default() };
    }
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
