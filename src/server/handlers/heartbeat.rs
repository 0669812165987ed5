//! Heartbeat: keeps the session of a member alive.

use crate::protocol::generated::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use crate::server::dispatch::Call;

pub(in crate::server) async fn handle(call: Call<HeartbeatRequest>) -> HeartbeatResponse {
    let request = &call.request;
    let groups = &call.caller.services.groups;
    let error = groups.heartbeat(&request.group_id, &request.member_id, request.group_instance_id.as_deref(), request.generation_id);
    HeartbeatResponse { error_code: error.code(), ..Default::default() }
}
