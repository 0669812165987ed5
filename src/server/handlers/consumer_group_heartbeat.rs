//! ConsumerGroupHeartbeat: groups of the protocol `consumer` (KIP-848) are not served, and their clients are told so.
//!
//! As Kafka 3.7 to 3.9 does where the protocol is not enabled, the API is offered and answered with UNSUPPORTED_VERSION. librdkafka fails at once
//! on that answer; where the API is not offered it asks for the coordinator again and again and reports nothing. The Java client fails either way.

use crate::protocol::ErrorCode;
use crate::protocol::generated::consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use crate::server::dispatch::Call;

/// What the client reports to its user.
const MESSAGE: &str =
    "this broker does not serve group.protocol=consumer (KIP-848): set group.protocol=classic in the consumer's configuration";

pub(in crate::server) async fn handle(_: Call<ConsumerGroupHeartbeatRequest>) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        error_message: Some(MESSAGE.into()),
        ..Default::default()
    }
}
