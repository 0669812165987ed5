//! The interface of the log below the metadata: it commits records, in the same order for all nodes.

use std::pin::Pin;

use tokio::sync::{mpsc, watch};

use super::{Error, MetadataRecord};
use crate::model::Uuid;

/// Committed records. On disk an entry is one record batch: its base offset and its leader epoch are those of the entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The epoch of the controller that proposed it.
    pub epoch: i32,
    /// The offset of the first record.
    pub offset: i64,
    /// The records.
    pub records: Vec<MetadataRecord>,
}

/// A controller became leader. A proposal of an earlier epoch that is not committed before this offset never will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderChange {
    /// Its epoch.
    pub epoch: i32,
    /// The offset of the LeaderChange control record.
    pub offset: i64,
    /// The controller.
    pub leader: i32,
}

/// The whole state of the metadata up to an offset.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// The first offset that the snapshot does not contain.
    pub end: i64,
    /// The epoch of the last record that the snapshot contains.
    pub epoch: i32,
    /// Records that rebuild the state from an empty one.
    pub records: Vec<MetadataRecord>,
    /// Topics that are known to be deleted; their directories may still exist. Not stored.
    pub removed: Vec<Uuid>,
}

/// An item that a log delivers to its readers.
#[derive(Debug, Clone, PartialEq)]
pub enum Committed {
    /// The state as of an offset: it replaces the image.
    Snapshot(Snapshot),
    /// A change.
    Entry(Entry),
    /// Another controller became leader, or the same one in a new epoch.
    LeaderChange(LeaderChange),
}

impl Committed {
    /// The records.
    pub fn records(&self) -> &[MetadataRecord] {
        match self {
            Committed::Snapshot(snapshot) => &snapshot.records,
            Committed::Entry(entry) => &entry.records,
            Committed::LeaderChange(_) => &[],
        }
    }
}

/// The role of a node in the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The leader: its proposals may be committed. It must not decide before it has received its own [`LeaderChange`] from the stream, because
    /// entries of earlier epochs may still arrive before that.
    Leader,
    /// A follower; the leader's id if it is known.
    Follower(Option<i32>),
}

/// A node's role and the epoch of that role. The epoch never decreases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// The epoch.
    pub epoch: i32,
    /// The role.
    pub role: Role,
}

/// Records to commit together, at one offset.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The epoch in which the controller decided.
    pub epoch: i32,
    /// The required offset of the first record: the end of the state that the controller based its decision on. It makes a repeated proposal
    /// harmless, and lets records contain their own offset, as a broker's registration does.
    pub offset: i64,
    /// The records; never empty.
    pub records: Vec<MetadataRecord>,
}

/// The outcome of a proposal that is not known to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotCommitted {
    /// It is not in the log and never will be: a retry, here or on another node, is safe.
    Refused(Error),
    /// It may have been committed, or may still be: it must not be reported as failed.
    Unknown(String),
}

/// A running call of a [`MetadataLog`]. The call continues if the future is dropped.
pub type Pending<T, E = Error> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Committed items, in the same order on all nodes and without a gap: first the content of the log when it is opened, then new items. A node
/// that fell behind receives a snapshot in between. The channel is unbounded, but at most one proposal is in flight at a time.
pub type CommittedStream = mpsc::UnboundedReceiver<Committed>;

/// What the controller requires of a log. Committed proposals arrive on the log's [`CommittedStream`], as do those of other controllers.
pub trait MetadataLog: Send + Sync {
    /// The role of this node, and its changes.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// Proposes records. Returns the offset of the last one once they are committed. The proposal is refused if this node does not lead in its
    /// epoch, or if the log does not end at its offset.
    fn propose(&self, proposal: Proposal) -> Pending<i64, NotCommitted>;

    /// Whether enough was committed since the last snapshot to write a new one.
    fn wants_snapshot(&self) -> bool;

    /// Stores a snapshot, so that the records before it can be deleted. Records that are committed meanwhile are kept.
    fn snapshot(&self, snapshot: Snapshot) -> Pending<()>;

    /// Stops; committed records are kept.
    fn close(&self) -> Pending<()>;
}
