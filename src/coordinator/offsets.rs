//! Committed offsets.

use std::collections::BTreeMap;

use crate::model::{Offset, ProducerId};
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
    /// Where its record lies.
    pub log_offset: Offset,
}

/// What names a committed offset: group, topic, partition.
pub(super) type OffsetKey = (String, String, i32);

/// Offsets that are part of transactions without an end: by producer.
#[derive(Debug, Default)]
pub(super) struct UndecidedOffsets {
    by_producer: BTreeMap<ProducerId, BTreeMap<OffsetKey, Committed>>,
    /// How many transactions have an offset of a key.
    keys: BTreeMap<OffsetKey, usize>,
}

impl UndecidedOffsets {
    /// A transaction commits an offset; a later one of the same transaction takes its place.
    pub(super) fn add(&mut self, producer: ProducerId, key: OffsetKey, committed: Committed) {
        if self.by_producer.entry(producer).or_default().insert(key.clone(), committed).is_none() {
            *self.keys.entry(key).or_default() += 1;
        }
    }

    /// A transaction ends: what it committed.
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

    /// An offset is deleted, and what transactions were to make of it.
    pub(super) fn forget(&mut self, key: &OffsetKey) {
        if self.keys.remove(key).is_some() {
            self.by_producer.values_mut().for_each(|offsets| drop(offsets.remove(key)));
            self.by_producer.retain(|_, offsets| !offsets.is_empty());
        }
    }

    /// Whether a producer's transaction has offsets without an end.
    pub(super) fn has(&self, producer: ProducerId) -> bool {
        self.by_producer.contains_key(&producer)
    }

    /// Whether a transaction without an end has an offset of this key.
    pub(super) fn contains(&self, key: &OffsetKey) -> bool {
        self.keys.contains_key(key)
    }

    /// The keys of a group.
    pub(super) fn of_group(&self, group: &str) -> impl Iterator<Item = &OffsetKey> {
        let first = (group.to_string(), String::new(), i32::MIN);
        let group = group.to_string();
        self.keys.range(first..).map(|(key, _)| key).take_while(move |key| key.0 == group)
    }
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
