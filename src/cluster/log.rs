//! What a log under the metadata is: where records become committed, in one order for all nodes.

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
    /// What changes.
    pub records: Vec<MetadataRecord>,
}

/// A controller begins to lead. What was proposed in earlier epochs and is not committed before this offset never will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderChange {
    /// Its epoch.
    pub epoch: i32,
    /// The offset of the control record that says so.
    pub offset: i64,
    /// The controller.
    pub leader: i32,
}

/// The whole state of the metadata up to an offset.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// The first offset that is not part of it.
    pub end: i64,
    /// The epoch of the last record that is part of it.
    pub epoch: i32,
    /// Records that make the state out of nothing.
    pub records: Vec<MetadataRecord>,
    /// Topics that are known to be deleted; directories of theirs may still be there. Not stored.
    pub removed: Vec<Uuid>,
}

/// What a log delivers to those who follow it.
#[derive(Debug, Clone, PartialEq)]
pub enum Committed {
    /// The state as of an offset: it replaces the image.
    Snapshot(Snapshot),
    /// A change.
    Entry(Entry),
    /// Another controller, or the same one in another epoch.
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

/// What a node is in the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It leads: its proposals may become committed. It must not decide before its own [`LeaderChange`] has come back on the stream, since
    /// entries of earlier epochs may still come before that.
    Leader,
    /// It follows; the leader's id where it is known.
    Follower(Option<i32>),
}

/// A node's role and the epoch in which it has it. The epoch never falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// The epoch.
    pub epoch: i32,
    /// The role.
    pub role: Role,
}

/// Records that are to be committed together, at one place.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The epoch in which the controller decided.
    pub epoch: i32,
    /// The offset that the first record is to have: the end of what the controller decided upon. It makes a repeated proposal harmless, and
    /// lets records name their own offset, as a broker's registration does.
    pub offset: i64,
    /// What changes; never empty.
    pub records: Vec<MetadataRecord>,
}

/// How a proposal ends that is not known to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotCommitted {
    /// It is not in the log and never will be: another try, here or elsewhere, is safe.
    Refused(Error),
    /// It may have been committed, or may still be: nobody may be told that it failed.
    Unknown(String),
}

/// A call of a [`MetadataLog`] on its way. It goes on when it is dropped.
pub type Pending<T, E = Error> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// What is committed, in one order everywhere and without a gap: first what the log holds when it is opened, then what follows. A node that
/// fell behind gets a snapshot in the middle. It has no bound of its own: one proposal is under way at a time.
pub type CommittedStream = mpsc::UnboundedReceiver<Committed>;

/// What the controller needs of a log. Records that are proposed come back on the log's [`CommittedStream`]; so do those of others.
pub trait MetadataLog: Send + Sync {
    /// The role of this node, and its changes.
    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// Proposes records. Answers the offset of the last one once they are committed. They are refused where this node does not lead in the
    /// proposal's epoch, and where the log does not end at the proposal's offset.
    fn propose(&self, proposal: Proposal) -> Pending<i64, NotCommitted>;

    /// Whether so much has been committed since the last snapshot that another one is due.
    fn wants_snapshot(&self) -> bool;

    /// Stores a snapshot, so that what led to it can be deleted. What is committed meanwhile stays.
    fn snapshot(&self, snapshot: Snapshot) -> Pending<()>;

    /// Stops; what is committed stays.
    fn close(&self) -> Pending<()>;
}
