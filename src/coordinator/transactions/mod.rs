//! Transactions (KIP-98, KIP-890): which producer owns a transactional id, which partitions a transaction has, and how it ends.
//!
//! Ending is a two-phase commit. The decision is stored in `__transaction_state`; then a marker is written into every partition of the transaction;
//! when all markers are written, that is stored too. An interrupted transaction is resumed from the stored state: a decided one is completed, and an
//! undecided one is aborted when it times out.

mod record;
mod service;
mod shard;
mod transaction;

pub use service::{ClusterMetadata, NewProducerIds, Pending, TRANSACTIONS_TOPIC, TransactionCoordinator};
pub use shard::{InitRequest, TransactionSettings, TransactionShard, TransactionView};
pub use transaction::{Identity, TransactionState};
