//! Committed offsets.

use crate::protocol::ErrorCode;

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    /// The epoch of the record before it, or -1.
    pub leader_epoch: i32,
    /// What the client stored beside it.
    pub metadata: String,
    /// Wall time of the commit.
    pub commit_ms: i64,
    /// Wall time at which it ends, for commits with an explicit retention.
    pub expire_ms: Option<i64>,
}

/// An offset that is to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetEntry {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to read; Kafka does not compare it with the log.
    pub offset: i64,
    /// The epoch of the record before it, or -1.
    pub leader_epoch: i32,
    /// What the client stores beside it.
    pub metadata: String,
}

/// An OffsetCommit, for partitions that exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRequest {
    /// The group; may be empty.
    pub group: String,
    /// The member, or empty.
    pub member_id: String,
    /// Its static id.
    pub instance_id: Option<String>,
    /// Its generation; below 0 for who commits from outside a group.
    pub generation: i32,
    /// What a missing group is answered with.
    pub missing_group: ErrorCode,
    /// Milliseconds for which the offsets are kept, in versions 2 to 4.
    pub retention_ms: Option<i64>,
    /// The offsets.
    pub offsets: Vec<OffsetEntry>,
}
