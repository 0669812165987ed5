//! EndTxn: a producer commits or aborts its transaction.

use crate::coordinator::Identity;
use crate::protocol::generated::end_txn::{EndTxnRequest, EndTxnResponse};
use crate::records::{EpochRule, TransactionResult};
use crate::server::dispatch::Call;
use crate::server::errors;

/// The first version with an error code for fenced producers.
const FENCED_FROM: i16 = 2;
/// The first version after which the producer has a new epoch (KIP-890).
const GROWS_FROM: i16 = 5;

pub(in crate::server) async fn handle(call: Call<EndTxnRequest>) -> EndTxnResponse {
    let EndTxnRequest { transactional_id, producer_id, producer_epoch, committed } = &call.request;
    let result = if *committed { TransactionResult::Commit } else { TransactionResult::Abort };
    let rule = if call.version >= GROWS_FROM { EpochRule::Grows } else { EpochRule::Stays };
    let producer = Identity::new(*producer_id, *producer_epoch);
    match call.caller.services.transactions.end(transactional_id, producer, result, rule).await {
        Ok(Identity { id, epoch }) => EndTxnResponse { producer_id: id.0, producer_epoch: epoch.0, ..Default::default() },
        Err(error) => EndTxnResponse { error_code: errors::of_producer(error, call.version, FENCED_FROM).code(), ..Default::default() },
    }
}
