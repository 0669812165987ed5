//! An entry of the Raft log, and its record batch.

use std::collections::BTreeSet;
use std::fmt;

use openraft::entry::{FromAppData, RaftEntry, RaftPayload};
use openraft::log_id::RaftLogId;
use openraft::{EmptyNode, Membership as Voters};
use serde::{Deserialize, Serialize};

use super::{LogId, Membership, epoch_of, log_id};
use crate::cluster::batches::{Content, batch, leader_change, note_batch};
use crate::cluster::{Error, MetadataRecord};
use crate::model::NodeId;
use crate::protocol::generated::cluster_metadata::NoOpRecord;
use crate::records::{BatchHeader, CheckedBatch};

/// The id in a LeaderChange record if the leader is not known.
const UNKNOWN_LEADER: i32 = -1;

/// An entry of the Raft log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    pub(super) id: LogId,
    /// The time of its batch; none if the entry is not stored yet.
    pub(super) time_ms: Option<i64>,
    pub(super) payload: Payload,
}

/// The content of an entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Payload {
    /// The first entry of a leader; its id is none until the leader's own store writes the entry.
    LeaderChange(Option<i32>),
    /// A change of the voters.
    Voters(Membership),
    /// A proposal of this node that is written but not appended yet.
    Staged(Placed),
    /// Metadata records.
    Records(Vec<MetadataRecord>),
    /// Takes the place of a proposal that was decided in another epoch or for another offset.
    Refused,
}

/// The place of a proposal: the epoch of the decision, and the offset of its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub(super) epoch: i32,
    pub(super) offset: i64,
}

/// What became of a committed entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its records are committed.
    Committed,
    /// It is a proposal for another place, and changes nothing.
    Refused,
}

/// What a NoOp record says to a node of the quorum; Kafka ignores it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cluster) enum Note {
    /// An entry that changes the voters.
    Voters(VotersNote),
    /// An entry in place of a refused proposal.
    Refused,
    /// In a snapshot: its last entry, and the last change of the voters in it.
    Snapshot {
        /// The index of the last entry.
        index: u64,
        /// The index and epoch of the entry that changed the voters, and the voters.
        voters: Option<(u64, i32, VotersNote)>,
    },
}

/// The voters: two sets while they are changing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::cluster) struct VotersNote {
    voters: Vec<BTreeSet<u64>>,
    learners: BTreeSet<u64>,
}

impl VotersNote {
    pub(super) fn of(membership: &Membership) -> VotersNote {
        let voters = membership.get_joint_config().clone();
        VotersNote { voters, learners: membership.learner_ids().collect() }
    }

    pub(super) fn membership(&self) -> Membership {
        Voters::new(self.voters.clone(), self.learners.clone())
    }
}

impl LogEntry {
    /// The number of records in its batch.
    pub(super) fn count(&self) -> i64 {
        match &self.payload {
            Payload::Records(records) => records.len() as i64,
            _ => 1,
        }
    }

    /// Its batch.
    pub(super) fn batch(&self, now_ms: i64) -> CheckedBatch {
        let time_ms = self.time_ms.unwrap_or(now_ms);
        match &self.payload {
            Payload::LeaderChange(leader) => leader_change(leader.unwrap_or(UNKNOWN_LEADER), time_ms),
            Payload::Records(records) => batch(records, time_ms),
            Payload::Voters(membership) => note_batch(&Note::Voters(VotersNote::of(membership)), time_ms),
            Payload::Refused | Payload::Staged(_) => note_batch(&Note::Refused, time_ms),
        }
    }

    /// The entry with this index, from its batch.
    pub(super) fn read(header: &BatchHeader, content: Content, index: u64) -> Result<LogEntry, Error> {
        let payload = match content {
            Content::LeaderChange(leader) => Payload::LeaderChange(Some(leader)),
            Content::Records(records) => Payload::Records(records),
            Content::Note(Note::Voters(voters)) => Payload::Voters(voters.membership()),
            Content::Note(Note::Refused) => Payload::Refused,
            Content::Note(Note::Snapshot { .. }) | Content::SnapshotHeader | Content::SnapshotFooter => {
                return Err(Error::Storage(format!("the metadata log at offset {}: a part of a snapshot", header.base_offset)));
            }
            Content::OtherControl => {
                Payload::Records(vec![MetadataRecord::NoOp(NoOpRecord::default()); header.records_count.max(0) as usize])
            }
        };
        Ok(LogEntry { id: log_id(header.leader_epoch.0, index), time_ms: Some(header.max_timestamp), payload })
    }

    /// Its epoch.
    pub(super) fn epoch(&self) -> i32 {
        epoch_of(&self.id)
    }
}

/// The id of a node in Raft. Ids of nodes are never negative.
pub(super) fn raft_id(node: NodeId) -> u64 {
    u64::try_from(node.0).expect("node.id is checked")
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {}", self.id)
    }
}

impl RaftLogId<u64> for LogEntry {
    fn get_log_id(&self) -> &LogId {
        &self.id
    }

    fn set_log_id(&mut self, id: &LogId) {
        self.id = *id;
    }
}

impl RaftPayload<u64, EmptyNode> for LogEntry {
    fn is_blank(&self) -> bool {
        matches!(self.payload, Payload::LeaderChange(_))
    }

    fn get_membership(&self) -> Option<&Membership> {
        match &self.payload {
            Payload::Voters(membership) => Some(membership),
            _ => None,
        }
    }
}

impl RaftEntry<u64, EmptyNode> for LogEntry {
    fn new_blank(id: LogId) -> LogEntry {
        LogEntry { id, time_ms: None, payload: Payload::LeaderChange(None) }
    }

    fn new_membership(id: LogId, membership: Membership) -> LogEntry {
        LogEntry { id, time_ms: None, payload: Payload::Voters(membership) }
    }
}

impl FromAppData<Placed> for LogEntry {
    fn from_app_data(placed: Placed) -> LogEntry {
        LogEntry { id: LogId::default(), time_ms: None, payload: Payload::Staged(placed) }
    }
}
