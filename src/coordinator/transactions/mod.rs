//! Transactions (KIP-98, KIP-890): who may write under a transactional id, which partitions a transaction has, and how it ends.
//!
//! Ending is a two-phase commit. The decision is stored in `__transaction_state`; then every partition of the transaction gets a marker; when all
//! have it, that is stored too. Whatever is cut short is taken up again from what is stored: what is decided is done, and what is not is
//! aborted when its time is over.

mod record;
mod service;
mod shard;
mod transaction;

pub use service::{KnownTopics, NewProducerIds, Pending, TRANSACTIONS_TOPIC, TransactionCoordinator};
pub use shard::{InitRequest, TransactionSettings, TransactionShard, TransactionView};
pub use transaction::{Identity, TransactionState};
