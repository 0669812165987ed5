//! InitProducerId: returns a producer id and epoch. With a transactional id, it fences the producer that used the id before.

use crate::coordinator::{Identity, InitRequest};
use crate::protocol::ErrorCode;
use crate::protocol::generated::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::server::dispatch::Call;
use crate::server::errors;
use crate::server::visits::Ask;

/// The first version with an error code for fenced producers.
const FENCED_FROM: i16 = 4;

/// No producer id, and no epoch.
const NO_ID: i64 = -1;
const NO_EPOCH: i16 = -1;

pub(in crate::server) async fn handle(call: Call<InitProducerIdRequest>) -> InitProducerIdResponse {
    call.asks(Ask::More);
    let failed =
        |error: ErrorCode| InitProducerIdResponse { error_code: error.code(), producer_id: -1, producer_epoch: -1, ..Default::default() };
    match init(&call).await {
        Ok(Identity { id, epoch }) => InitProducerIdResponse { producer_id: id.0, producer_epoch: epoch.0, ..Default::default() },
        Err(error) => failed(errors::of_producer(error, call.version, FENCED_FROM)),
    }
}

async fn init(call: &Call<InitProducerIdRequest>) -> Result<Identity, ErrorCode> {
    let (services, request) = (&call.caller.services, &call.request);
    // Only -1 means none; other negative numbers are the ids and epochs of an unknown producer, as in Kafka.
    if (request.producer_id == NO_ID) != (request.producer_epoch == NO_EPOCH) {
        return Err(ErrorCode::InvalidRequest);
    }
    let Some(id) = &request.transactional_id else {
        return match services.producer_ids.next().await {
            Ok(id) => Ok(Identity::new(id.0, 0)),
            Err(error) => Err(errors::of_cluster(&error)),
        };
    };
    let expected = (request.producer_id != NO_ID).then(|| Identity::new(request.producer_id, request.producer_epoch));
    let init = InitRequest { transactional_id: id.clone(), timeout_ms: request.transaction_timeout_ms, expected };
    services.transactions.init(init).await
}
