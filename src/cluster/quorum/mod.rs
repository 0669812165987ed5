//! The metadata quorum: [openraft](https://docs.rs/openraft) over the metadata log in Kafka's format.
//!
//! A Raft entry is one record batch of the metadata log: its term is the batch's leader epoch, and its index is the batch's number. Entries that Raft
//! itself makes are batches too, so that offsets are the same on all nodes:
//!
//! | entry | batch |
//! |---|---|
//! | the first entry of a leader | a LeaderChange control record, as in Kafka |
//! | a change of the voters | a NoOp record with a [`Note`] in a tagged field, which Kafka ignores |
//! | a proposal that the store refused | likewise |
//! | a proposal | its records |
//!
//! A proposal is written before openraft sees it, because openraft ends at the first write error, and a full disk must only fail the proposal. Its
//! batch counts once openraft appends the entry; see [`LogFile::stage`].

mod entry;
#[cfg(test)]
mod faults;
mod file;
mod log;
mod machine;
mod network;
mod progress;
mod replay;
mod snapshot;
mod store;
#[cfg(test)]
mod suite;
mod view;
mod vote;

pub(super) use entry::{Note, VotersNote};
pub use log::QuorumLog;
pub use view::{QuorumState, QuorumView};

use entry::{LogEntry, Outcome, Placed};
use file::LogFile;
use snapshot::StoredSnapshot;

/// The name of the metadata log, as in Kafka; its single partition is stored beside the others.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

openraft::declare_raft_types!(
    /// The types of the metadata quorum.
    pub Quorum:
        D = Placed,
        R = Outcome,
        NodeId = u64,
        Node = openraft::EmptyNode,
        Entry = LogEntry,
        SnapshotData = StoredSnapshot,
);

type LogId = openraft::LogId<u64>;
type Vote = openraft::Vote<u64>;
type Membership = openraft::Membership<u64, openraft::EmptyNode>;
type StoredMembership = openraft::StoredMembership<u64, openraft::EmptyNode>;
type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::EmptyNode>;
type StorageError = openraft::StorageError<u64>;

/// The id of an entry of the leader of `epoch`.
fn log_id(epoch: i32, index: u64) -> LogId {
    LogId::new(openraft::CommittedLeaderId::new(epoch as u64, 0), index)
}

/// The epoch of an entry.
fn epoch_of(id: &LogId) -> i32 {
    i32::try_from(id.leader_id.term).expect("terms are counted by elections, far below 2^31")
}
