//! SaslHandshake and SaslAuthenticate: no listener authenticates its clients yet, and both are answered like in Kafka on such a listener. They are
//! advertised because a client for which they are missing disconnects without an error message, and the broker could not report its attempt to use
//! SASL.

use tokio::time::Instant;
use tracing::warn;

use crate::protocol::ErrorCode;
use crate::protocol::generated::sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use crate::protocol::generated::sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse};
use crate::server::dispatch::Call;
use crate::server::visits::Sent;

pub(in crate::server) async fn handshake(call: Call<SaslHandshakeRequest>) -> SaslHandshakeResponse {
    note(&call);
    SaslHandshakeResponse { error_code: ErrorCode::IllegalSaslState.code(), ..Default::default() }
}

pub(in crate::server) async fn authenticate(call: Call<SaslAuthenticateRequest>) -> SaslAuthenticateResponse {
    note(&call);
    let error_message = Some("SaslAuthenticate request received after successful authentication".to_string());
    SaslAuthenticateResponse { error_code: ErrorCode::IllegalSaslState.code(), error_message, ..Default::default() }
}

/// Records the attempt for `dlog doctor`, and logs it once.
fn note<R>(call: &Call<R>) {
    let (caller, client_id) = (&call.caller, &call.client_id);
    let listener = &caller.endpoint.name;
    if caller.services.visits.note(caller.peer, listener, Sent::Sasl, Instant::now()) {
        warn!(client_id, peer = %caller.peer, listener, "a client sent {}; set security.protocol=PLAINTEXT in the client", Sent::Sasl);
    }
}
