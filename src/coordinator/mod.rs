//! Groups and transactions: replicated state machines that live on a partition.
//!
//! Each partition of `__consumer_offsets` has an instance: [`Shard`] is its state machine, without clock, disk or tokio. An event gives
//! records and replies; the replies are held until the records are in the partition. State is what the partition's records add up to.

mod consumer_protocol;
mod group;
mod history;
mod join;
mod member;
mod offsets;
mod record;
mod service;
mod shard;

pub use group::{GroupState, Now};
pub use history::{Happening, HappeningKind};
pub use join::{JoinReply, JoinRequest, SyncReply, SyncRequest};
pub use member::{LeavingMember, MemberView};
pub use offsets::{CommitRequest, Committed, OffsetEntry};
pub use record::GroupRecord;
pub use service::{GroupCoordinator, OFFSETS_TOPIC, TopicOffsets};
pub use shard::{GroupSettings, GroupView, Outcome, Reply, Shard, Token, partition_for};
