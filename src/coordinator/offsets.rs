//! Committed offsets.

use std::collections::BTreeMap;

use crate::model::{Offset, ProducerId};
use crate::protocol::ErrorCode;

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch of the record before it, or -1.
    pub leader_epoch: i32,
    /// The metadata that the client stored with it.
    pub metadata: String,
    /// Wall-clock time of the commit.
    pub commit_ms: i64,
    /// Wall-clock time at which it expires, for commits with an explicit retention.
    pub expire_ms: Option<i64>,
    /// The log offset of its record.
    pub log_offset: Offset,
}

/// The key of a committed offset: group, topic, partition.
pub(super) type OffsetKey = (String, String, i32);

/// Offsets that are part of open transactions, by producer.
#[derive(Debug, Default)]
pub(super) struct UndecidedOffsets {
    by_producer: BTreeMap<ProducerId, BTreeMap<OffsetKey, Committed>>,
    /// The number of open transactions that have an offset of this key.
    keys: BTreeMap<OffsetKey, usize>,
}

impl UndecidedOffsets {
    /// A transaction commits an offset; a later offset for the same key in the same transaction replaces it.
    pub(super) fn add(&mut self, producer: ProducerId, key: OffsetKey, committed: Committed) {
        if self.by_producer.entry(producer).or_default().insert(key.clone(), committed).is_none() {
            *self.keys.entry(key).or_default() += 1;
        }
    }

    /// A transaction ends: returns the offsets that it committed.
    pub(super) fn end(&mut self, producer: ProducerId) -> BTreeMap<OffsetKey, Committed> {
        let ended = self.by_producer.remove(&producer).unwrap_or_default();
        for key in ended.keys() {
            let count =
                self.keys.get_mut(key).unwrap_or_else(|| panic!("{key:?} is part of a transaction of {producer:?} and not counted"));
            assert_ne!(*count, 0, "{key:?} is counted as part of no transaction, and {producer:?} has it");
            *count -= 1;
            if *count == 0 {
                self.keys.remove(key);
            }
        }
        ended
    }

    /// An offset is deleted: pending offsets of this key are removed from all open transactions.
    pub(super) fn forget(&mut self, key: &OffsetKey) {
        if self.keys.remove(key).is_some() {
            self.by_producer.values_mut().for_each(|offsets| drop(offsets.remove(key)));
            self.by_producer.retain(|_, offsets| !offsets.is_empty());
        }
    }

    /// Whether a producer's open transaction has pending offsets.
    pub(super) fn has(&self, producer: ProducerId) -> bool {
        self.by_producer.contains_key(&producer)
    }

    /// Whether an open transaction has a pending offset of this key.
    pub(super) fn contains(&self, key: &OffsetKey) -> bool {
        self.keys.contains_key(key)
    }

    /// The keys of a group that have pending offsets.
    pub(super) fn of_group(&self, group: &str) -> impl Iterator<Item = &OffsetKey> {
        let first = (group.to_string(), String::new(), i32::MIN);
        let group = group.to_string();
        self.keys.range(first..).map(|(key, _)| key).take_while(move |key| key.0 == group)
    }
}

/// An offset that a client commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetEntry {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to read; Kafka does not compare it with the log.
    pub offset: i64,
    /// The leader epoch of the record before it, or -1.
    pub leader_epoch: i32,
    /// The metadata that the client stores with it.
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
    /// Its generation; below 0 for a client that is not a member of the group.
    pub generation: i32,
    /// The error code that is returned if the group does not exist.
    pub missing_group: ErrorCode,
    /// The retention in milliseconds, in versions 2 to 4.
    pub retention_ms: Option<i64>,
    /// The offsets.
    pub offsets: Vec<OffsetEntry>,
}
