//! Groups and transactions: replicated state machines, each stored in a partition.
//!
//! Each partition of `__consumer_offsets` and of `__transaction_state` has an instance. [`Shard`] or [`TransactionShard`] is its state machine,
//! without clock, disk or tokio. An event returns records and replies; the replies are held back until the records are stored in the partition. The
//! state can always be rebuilt from the partition's records.

mod consumer_protocol;
mod group;
mod history;
mod instances;
mod join;
mod member;
mod offsets;
mod record;
mod service;
mod shard;
mod transactions;

pub use group::{GroupState, Now};
pub use history::{GroupEvent, GroupEventKind};
pub use join::{JoinReply, JoinRequest, SyncReply, SyncRequest};
pub use member::{LeavingMember, MemberView};
pub use offsets::{CommitRequest, Committed, OffsetEntry};
pub use record::{Contradiction, GroupRecord};
pub use service::{GroupCoordinator, NotKnown, OFFSETS_TOPIC, TopicOffsets};
pub use shard::{Commits, GroupSettings, GroupView, Outcome, Place, Reply, Shard, Token, partition_for};
pub use transactions::{
    ClusterMetadata, Identity, InitRequest, NewProducerIds, Pending, TRANSACTIONS_TOPIC, TransactionCoordinator, TransactionSettings,
    TransactionShard, TransactionState, TransactionView,
};
