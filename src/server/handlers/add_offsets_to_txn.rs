//! AddOffsetsToTxn: the offsets of a group become part of a transaction.

use super::topics::ensure_offsets_topic;
use crate::coordinator::Identity;
use crate::protocol::ErrorCode;
use crate::protocol::generated::add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use crate::records::EpochRule;
use crate::server::dispatch::Call;
use crate::server::errors;

/// The first version with an error code for fenced producers.
const FENCED_FROM: i16 = 2;

pub(in crate::server) async fn handle(call: Call<AddOffsetsToTxnRequest>) -> AddOffsetsToTxnResponse {
    let error = add(&call).await.err().unwrap_or(ErrorCode::None);
    AddOffsetsToTxnResponse { error_code: errors::of_producer(error, call.version, FENCED_FROM).code(), ..Default::default() }
}

async fn add(call: &Call<AddOffsetsToTxnRequest>) -> Result<(), ErrorCode> {
    let (services, request) = (&call.caller.services, &call.request);
    ensure_offsets_topic(services).await?;
    let producer = Identity::new(request.producer_id, request.producer_epoch);
    let partition = services.groups.partition_for(&request.group_id);
    services.transactions.add(&request.transactional_id, producer, &[partition], EpochRule::Stays).await
}
