//! The records of the metadata log, framed as Kafka frames them: frame version 1, record type, record version (unsigned varints), record.

use bytes::Bytes;

use crate::protocol::generated::cluster_metadata::{
    AbortTransactionRecord, AccessControlEntryRecord, BeginTransactionRecord, BrokerRegistrationChangeRecord, ClearElrRecord,
    ClientQuotaRecord, ConfigRecord, DelegationTokenRecord, EndTransactionRecord, FeatureLevelRecord, FenceBrokerRecord, NoOpRecord,
    PartitionChangeRecord, PartitionRecord, ProducerIdsRecord, RegisterBrokerRecord, RegisterControllerRecord,
    RemoveAccessControlEntryRecord, RemoveDelegationTokenRecord, RemoveTopicRecord, RemoveUserScramCredentialRecord, TopicRecord,
    UnfenceBrokerRecord, UnregisterBrokerRecord, UnregisterControllerRecord, UserScramCredentialRecord, ZkMigrationStateRecord,
};
use crate::protocol::{Message, decode_whole};
use crate::wire::{self, Frame, Writer};

/// The format of the frame.
const FRAME_VERSION: u32 = 1;

/// Declares the enum with its encoding.
macro_rules! metadata_records {
    ($($(#[$doc:meta])* $variant:ident($record:ident);)*) => {
        /// A record of the metadata log: one change of the cluster.
        #[derive(Debug, Clone, PartialEq)]
        pub enum MetadataRecord {
            $($(#[$doc])* $variant($record),)*
        }

        impl MetadataRecord {
            /// The bytes that are stored.
            pub fn encode(&self) -> Bytes {
                let mut writer = Writer::default();
                match self {
                    $(MetadataRecord::$variant(record) => {
                        put_frame::<$record>(&mut writer);
                        record.encode(&mut writer, <$record>::MAX_VERSION);
                    })*
                }
                writer.into_bytes()
            }

            /// Decodes stored bytes; the error is a message for people.
            pub fn decode(bytes: Bytes) -> Result<MetadataRecord, String> {
                Framed::read(bytes)?.decode()
            }
        }

        impl Framed {
            /// Decodes the record; the error is a message for people.
            pub(super) fn decode(&self) -> Result<MetadataRecord, String> {
                let Framed { type_id, version, body } = self;
                $(if <$record>::TYPE_ID == Some(*type_id) && (<$record>::MIN_VERSION..=<$record>::MAX_VERSION).contains(version) {
                    return decode_whole(body, *version).map(MetadataRecord::$variant).map_err(|error| error.to_string());
                })*
                Err(format!("record type {type_id} version {version} is unknown; it may have been written by a newer version of dlog"))
            }
        }
    };
}

/// Writes what stands before a record: frame version, type, and the newest version.
pub(super) fn put_frame<M: Message>(writer: &mut Writer) {
    writer.unsigned_varint(FRAME_VERSION);
    writer.unsigned_varint(M::TYPE_ID.map_or(0, |id| id as u32));
    writer.unsigned_varint(M::MAX_VERSION as u32);
}

/// A stored record before it is decoded.
#[derive(Debug)]
pub(super) struct Framed {
    pub(super) type_id: i16,
    pub(super) version: i16,
    pub(super) body: Bytes,
}

impl Framed {
    /// Reads type and version; the error is a message for people.
    pub(super) fn read(bytes: Bytes) -> Result<Framed, String> {
        let frame = Frame::new(bytes.clone());
        let malformed = |error: nom::Err<wire::Error>| wire::Error::from(error).to_string();
        let (rest, frame_version) = wire::unsigned_varint(frame.cursor()).map_err(malformed)?;
        if frame_version != FRAME_VERSION {
            return Err(format!("frame version {frame_version} is not supported"));
        }
        let (rest, type_id) = wire::unsigned_varint(rest).map_err(malformed)?;
        let (rest, version) = wire::unsigned_varint(rest).map_err(malformed)?;
        let number = |number: u32| i16::try_from(number).map_err(|_| format!("record type {type_id} version {version} is invalid"));
        Ok(Framed { type_id: number(type_id)?, version: number(version)?, body: bytes.slice(bytes.len() - rest.len()..) })
    }
}

metadata_records! {
    /// A broker has registered. Its epoch is the offset of this record.
    RegisterBroker(RegisterBrokerRecord);
    /// A broker is removed from the cluster.
    UnregisterBroker(UnregisterBrokerRecord);
    /// A topic exists.
    Topic(TopicRecord);
    /// A topic has a partition; contains its whole state.
    Partition(PartitionRecord);
    /// A setting of a resource; null removes it.
    Config(ConfigRecord);
    /// Some fields of a partition change. If the record has a leader, a new leader epoch starts, even if the same broker led before.
    PartitionChange(PartitionChangeRecord);
    /// A broker is fenced (superseded by `BrokerRegistrationChange`).
    FenceBroker(FenceBrokerRecord);
    /// A broker is unfenced (superseded by `BrokerRegistrationChange`).
    UnfenceBroker(UnfenceBrokerRecord);
    /// A topic is deleted, with its partitions and settings.
    RemoveTopic(RemoveTopicRecord);
    /// A delegation token exists or is renewed.
    DelegationToken(DelegationTokenRecord);
    /// A SCRAM credential of a user.
    UserScramCredential(UserScramCredentialRecord);
    /// The level at which the cluster uses a feature (KIP-584); 0 means that it is not used.
    FeatureLevel(FeatureLevelRecord);
    /// A quota of clients.
    ClientQuota(ClientQuotaRecord);
    /// Producer ids below this one are allocated.
    ProducerIds(ProducerIdsRecord);
    /// Some fields of a broker's registration change.
    BrokerRegistrationChange(BrokerRegistrationChangeRecord);
    /// An access control entry exists.
    AccessControlEntry(AccessControlEntryRecord);
    /// An access control entry is removed.
    RemoveAccessControlEntry(RemoveAccessControlEntryRecord);
    /// Changes nothing.
    NoOp(NoOpRecord);
    /// The state of Kafka's migration from ZooKeeper.
    ZkMigrationState(ZkMigrationStateRecord);
    /// A SCRAM credential is removed.
    RemoveUserScramCredential(RemoveUserScramCredentialRecord);
    /// The records up to the end of this transaction are applied together (KIP-866).
    BeginTransaction(BeginTransactionRecord);
    /// The records of the open transaction are applied.
    EndTransaction(EndTransactionRecord);
    /// The records of the open transaction are dropped.
    AbortTransaction(AbortTransactionRecord);
    /// A delegation token is removed.
    RemoveDelegationToken(RemoveDelegationTokenRecord);
    /// A controller has registered.
    RegisterController(RegisterControllerRecord);
    /// The eligible leader replicas of a topic, or of all topics, are cleared.
    ClearElr(ClearElrRecord);
    /// A controller is removed from the cluster.
    UnregisterController(UnregisterControllerRecord);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every record type of Kafka up to 29; 6, 13 and 16 do not exist.
    #[test]
    fn every_record_type_of_kafka_is_known() {
        for type_id in (0..=29).filter(|id| ![6, 13, 16].contains(id)) {
            assert!(!unknown(type_id), "type {type_id}");
        }
        for type_id in [6, 13, 16, 30] {
            assert!(unknown(type_id), "type {type_id}");
        }
    }

    fn unknown(type_id: u8) -> bool {
        MetadataRecord::decode(Bytes::from(vec![1, type_id, 0])).is_err_and(|error| error.contains("is unknown"))
    }

    #[test]
    fn a_record_of_an_older_version_is_read_and_stored_again_in_the_newest() {
        // PartitionChangeRecord version 0: partition 7, topic id zero, tag 1 (leader) = 3.
        let old = [&[1, 5, 0][..], &[0, 0, 0, 7], &[0; 16], &[1, 1, 4, 0, 0, 0, 3]].concat();
        let record = MetadataRecord::decode(Bytes::from(old)).unwrap();
        let MetadataRecord::PartitionChange(change) = &record else { panic!("{record:?}") };
        assert_eq!((change.partition_id, change.leader, &change.isr, &change.eligible_leader_replicas), (7, 3, &None, &None));
        let stored = record.encode();
        assert_eq!(stored[..3], [1, 5, 2]);
        assert_eq!(MetadataRecord::decode(stored), Ok(record));
    }
}
