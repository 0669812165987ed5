//! Why a partition cannot do what it was asked.

use std::sync::Arc;

use crate::model::{LeaderEpoch, TopicPartition};
use crate::{records, storage};

/// What went wrong at a partition.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The batch was refused.
    #[error(transparent)]
    Records(#[from] records::Error),
    /// The log failed or refused.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The client knows an older leader.
    #[error("the leader epoch is {current}, and the request says {got}")]
    FencedLeaderEpoch {
        /// From the client.
        got: LeaderEpoch,
        /// Ours.
        current: LeaderEpoch,
    },
    /// The client knows a newer leader.
    #[error("the leader epoch is {current}, and the request says {got}")]
    UnknownLeaderEpoch {
        /// From the client.
        got: LeaderEpoch,
        /// Ours.
        current: LeaderEpoch,
    },
    /// Another broker leads the partition, or this one in a later epoch: what became of a record that was not committed before nobody here knows.
    #[error("this broker does not lead {0} any more")]
    NotLeader(TopicPartition),
    /// The disk under the log directory has failed.
    #[error("the log directory of {0} is offline after a disk error; mend the disk and start the broker again")]
    Offline(TopicPartition),
    /// There is no such partition here.
    #[error("there is no partition {0} here")]
    Unknown(TopicPartition),
    /// The partition's files could not be opened.
    #[error("{0} could not be opened when the broker started: {1}")]
    NotOpened(TopicPartition, Arc<str>),
    /// The replica was deleted or the broker is stopping.
    #[error("{0} is closed")]
    Closed(TopicPartition),
}
