//! FindCoordinator: returns the coordinator of a group or of a transactional id.

use super::topics::{ensure_offsets_topic, ensure_transactions_topic};
use crate::protocol::ErrorCode;
use crate::protocol::generated::find_coordinator::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};
use crate::server::dispatch::Call;
use crate::server::visits::Ask;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// The first version with several keys.
const KEYS_FROM: i16 = 4;

pub(in crate::server) async fn handle(call: Call<FindCoordinatorRequest>) -> FindCoordinatorResponse {
    let outcome = match call.request.key_type {
        GROUP => ensure_offsets_topic(&call.caller.services).await.map_err(|error| (error, None)),
        TRANSACTION => ensure_transactions_topic(&call.caller.services).await.map_err(|error| (error, None)),
        other => Err((ErrorCode::InvalidRequest, Some(format!("there is no coordinator of type {other}")))),
    };
    call.asks(if outcome.is_ok() && call.request.key_type == GROUP { Ask::GroupCoordinator } else { Ask::More });
    let coordinator = |key: String| match &outcome {
        Ok(()) => {
            let (host, port) = call.caller.advertised();
            Coordinator { key, node_id: call.caller.services.node_id, host, port, error_code: 0, error_message: None }
        }
        Err((error, message)) => {
            Coordinator { key, node_id: -1, host: String::new(), port: -1, error_code: error.code(), error_message: message.clone() }
        }
    };
    if call.version >= KEYS_FROM {
        let coordinators = call.request.coordinator_keys.iter().cloned().map(coordinator).collect();
        return FindCoordinatorResponse { coordinators, ..Default::default() };
    }
    let Coordinator { node_id, host, port, error_code, error_message, .. } = coordinator(call.request.key.clone());
    FindCoordinatorResponse { node_id, host, port, error_code, error_message, ..Default::default() }
}
