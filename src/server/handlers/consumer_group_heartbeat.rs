//! ConsumerGroupHeartbeat: groups of the protocol `consumer` (KIP-848) are not served; the response is an error that reports this.
//!
//! As in Kafka 3.7 to 3.9 with the protocol disabled, the API is advertised and answered with UNSUPPORTED_VERSION. librdkafka then fails immediately;
//! if the API is not advertised, it repeatedly looks up the coordinator and reports nothing. The Java client fails in both cases.

use crate::protocol::ErrorCode;
use crate::protocol::generated::consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use crate::server::dispatch::Call;

/// The error message that the client reports to its user.
const MESSAGE: &str =
    "this broker does not support group.protocol=consumer (KIP-848): set group.protocol=classic in the consumer's configuration";

pub(in crate::server) async fn handle(_: Call<ConsumerGroupHeartbeatRequest>) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        error_message: Some(MESSAGE.into()),
        ..Default::default()
    }
}
