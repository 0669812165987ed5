//! The records of `__consumer_offsets`, in Kafka's format: the key begins with its type, and the value begins with its version.

use bytes::Bytes;

use crate::model::Uuid;
use crate::protocol::Message;
use crate::protocol::generated::consumer_offsets::{GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue};
use crate::wire::{self, Cursor, Frame, Writer};

/// The version of group values; later versions are flexible. Kafka writes this version too.
const GROUP_VERSION: i16 = 3;
/// The version of offset values.
const OFFSET_VERSION: i16 = 3;
/// The version with an expiry timestamp, for commits with an explicit retention.
const OFFSET_EXPIRING_VERSION: i16 = 1;
/// Key type of the oldest format of offsets, which has the same fields.
const LEGACY_OFFSET_TYPE: i16 = 0;

/// A stored record that contradicts itself or the records before it. What is stored is input and not an invariant of this broker: the record is
/// skipped or repaired, as the text says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{of}: {what}")]
pub struct Contradiction {
    /// The id of the group or transaction.
    pub of: String,
    /// What is wrong, and what becomes of the record.
    pub what: String,
}

/// One change of a group.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupRecord {
    /// A committed offset; without a value it is deleted.
    Offset(OffsetCommitKey, Option<OffsetCommitValue>),
    /// A group's metadata; without a value the group is deleted.
    Group(GroupMetadataKey, Option<GroupMetadataValue>),
}

impl GroupRecord {
    /// The key's bytes.
    pub fn key(&self) -> Bytes {
        match self {
            GroupRecord::Offset(key, _) => typed(1, |writer| key.encode(writer, 0)),
            GroupRecord::Group(key, _) => typed(2, |writer| key.encode(writer, 0)),
        }
    }

    /// The value's bytes; null is a tombstone.
    pub fn value(&self) -> Option<Bytes> {
        match self {
            GroupRecord::Offset(_, value) => value.as_ref().map(|value| {
                let version = if value.expire_timestamp >= 0 { OFFSET_EXPIRING_VERSION } else { OFFSET_VERSION };
                typed(version, |writer| value.encode(writer, version))
            }),
            GroupRecord::Group(_, value) => value.as_ref().map(|value| typed(GROUP_VERSION, |writer| value.encode(writer, GROUP_VERSION))),
        }
    }

    /// Decodes a stored record; none for record types of later releases.
    pub fn decode(key: &Bytes, value: Option<&Bytes>) -> Result<Option<GroupRecord>, wire::Error> {
        let frame = Frame::new(key.clone());
        let (rest, kind) = wire::int16(frame.cursor())?;
        Ok(match kind {
            LEGACY_OFFSET_TYPE | 1 => {
                let key = wire::whole(rest, |rest| OffsetCommitKey::decode(rest, 0))?;
                Some(GroupRecord::Offset(key, value.map(versioned).transpose()?))
            }
            2 => {
                let key = wire::whole(rest, |rest| GroupMetadataKey::decode(rest, 0))?;
                Some(GroupRecord::Group(key, value.map(versioned).transpose()?))
            }
            _ => None,
        })
    }

    /// The record that deletes an offset.
    pub fn offset_tombstone(group: &str, topic: &str, partition: i32) -> GroupRecord {
        GroupRecord::Offset(OffsetCommitKey { group: group.into(), topic: topic.into(), partition }, None)
    }
}

/// Encodes a type or version, followed by the fields.
pub(super) fn typed(number: i16, encode: impl FnOnce(&mut Writer)) -> Bytes {
    let mut writer = Writer::default();
    writer.int16(number);
    encode(&mut writer);
    writer.into_bytes()
}

pub(super) fn versioned<M: Message>(bytes: &Bytes) -> Result<M, wire::Error> {
    let frame = Frame::new(bytes.clone());
    let (rest, version): (Cursor<'_>, i16) = wire::int16(frame.cursor())?;
    if !(M::MIN_VERSION..=M::MAX_VERSION).contains(&version) {
        return Err(wire::Error::Length(i64::from(version)));
    }
    Ok(wire::whole(rest, |rest| M::decode(rest, version))?)
}

/// The value of an offset without a topic id, as versions below 4 store it.
pub(super) fn offset_value(offset: i64, leader_epoch: i32, metadata: &str, commit_ms: i64, expire_ms: Option<i64>) -> OffsetCommitValue {
    OffsetCommitValue {
        offset,
        leader_epoch,
        metadata: metadata.into(),
        commit_timestamp: commit_ms,
        expire_timestamp: expire_ms.unwrap_or(-1),
        topic_id: Uuid::ZERO,
    }
}
