//! JoinGroup: a member joins the next generation.

use crate::coordinator::JoinRequest;
use crate::protocol::ErrorCode;
use crate::protocol::generated::join_group::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};
use crate::server::dispatch::Call;

/// The first version with a separate rebalance timeout.
const REBALANCE_TIMEOUT_FROM: i16 = 1;
/// The first version in which a new member receives its member id before it joins (KIP-394).
const ID_REQUIRED_FROM: i16 = 4;
/// The first version in which the protocol's name may be null.
const NULL_PROTOCOL_FROM: i16 = 7;
/// The first version in which the response can tell a leader to skip the assignment (KIP-814).
const SKIP_FROM: i16 = 9;

pub(in crate::server) async fn handle(call: Call<JoinGroupRequest>) -> JoinGroupResponse {
    let version = call.version;
    let request = call.request;
    let prefix = request.group_instance_id.as_ref().unwrap_or(&call.client_id);
    let fresh_id = format!("{prefix}-{}", call.caller.services.env.entropy.uuid().dashed());
    let join = JoinRequest {
        fresh_id,
        group: request.group_id,
        member_id: request.member_id,
        instance_id: request.group_instance_id,
        client_id: call.client_id,
        client_host: format!("/{}", call.caller.peer.ip()),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: if version >= REBALANCE_TIMEOUT_FROM { request.rebalance_timeout_ms } else { request.session_timeout_ms },
        protocol_type: request.protocol_type,
        protocols: request.protocols.into_iter().map(|p| (p.name, p.metadata)).collect(),
        id_required: version >= ID_REQUIRED_FROM,
        can_skip_assignment: version >= SKIP_FROM,
    };
    let reply = call.caller.services.groups.join(join).await;
    JoinGroupResponse {
        error_code: reply.error.code(),
        generation_id: reply.generation,
        protocol_type: reply.protocol_type,
        protocol_name: if version < NULL_PROTOCOL_FROM || reply.error == ErrorCode::None {
            Some(reply.protocol.unwrap_or_default())
        } else {
            None
        },
        leader: reply.leader,
        skip_assignment: reply.skip_assignment,
        member_id: reply.member_id,
        members: reply
            .members
            .into_iter()
            .map(|(member_id, group_instance_id, metadata)| JoinGroupResponseMember { member_id, group_instance_id, metadata })
            .collect(),
        ..Default::default()
    }
}
