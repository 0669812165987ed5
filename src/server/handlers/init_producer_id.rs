//! InitProducerId: ids for idempotent producers. A transactional id is refused with a fatal error until there are transactions.

use tracing::warn;

use crate::protocol::ErrorCode;
use crate::protocol::generated::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::server::dispatch::Call;
use crate::server::errors;

pub(in crate::server) async fn handle(call: Call<InitProducerIdRequest>) -> InitProducerIdResponse {
    let failed =
        |error: ErrorCode| InitProducerIdResponse { error_code: error.code(), producer_id: -1, producer_epoch: -1, ..Default::default() };
    if let Some(id) = &call.request.transactional_id {
        if id.is_empty() {
            return failed(ErrorCode::InvalidRequest);
        }
        warn!(transactional_id = %id, "transactions are not supported yet: the producer is refused");
        return failed(ErrorCode::TransactionalIdAuthorizationFailed);
    }
    if (call.request.producer_id < 0) != (call.request.producer_epoch < 0) {
        return failed(ErrorCode::InvalidRequest);
    }
    let services = &call.caller.services;
    match services.producer_ids.next(&services.cluster, services.node_id).await {
        Ok(id) => InitProducerIdResponse { producer_id: id.0, producer_epoch: 0, ..Default::default() },
        Err(error) => failed(errors::of_cluster(&error)),
    }
}
