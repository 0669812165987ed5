//! Why a partition cannot execute a request.

use std::path::PathBuf;
use std::sync::Arc;

use crate::model::{LeaderEpoch, TopicPartition};
use crate::{records, storage};

/// Errors of a partition.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The batch was rejected.
    #[error(transparent)]
    Records(#[from] records::Error),
    /// The log failed, or rejected the request.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The client has an older leader epoch.
    #[error("the request has leader epoch {got}, but the current leader epoch is {current}")]
    FencedLeaderEpoch {
        /// The client's epoch.
        got: LeaderEpoch,
        /// This replica's epoch.
        current: LeaderEpoch,
    },
    /// The client has a newer leader epoch.
    #[error("the request has leader epoch {got}, but the current leader epoch is {current}")]
    UnknownLeaderEpoch {
        /// The client's epoch.
        got: LeaderEpoch,
        /// This replica's epoch.
        current: LeaderEpoch,
    },
    /// Another broker leads the partition, or this one in a later epoch: it is unknown here whether a record that was not committed is still stored.
    #[error("this broker is no longer the leader of {0}")]
    NotLeader(TopicPartition),
    /// The disk under the log directory has failed.
    #[error("the log directory of {0} is offline after a disk error; repair the disk and restart the broker")]
    Offline(TopicPartition),
    /// This broker has no such partition.
    #[error("there is no partition {0} here")]
    Unknown(TopicPartition),
    /// The partition's files could not be opened.
    #[error("{0} could not be opened when the broker started: {1}")]
    NotOpened(TopicPartition, Arc<str>),
    /// A log directory may contain directories of deleted topics under their old names: the metadata must not forget the deletions yet.
    #[error("{} may contain partitions of deleted topics under their old names", .0.display())]
    NotRenamed(PathBuf),
    /// The replica was deleted, or the broker is stopping.
    #[error("{0} is closed")]
    Closed(TopicPartition),
}
