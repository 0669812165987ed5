//! The records of the metadata log, framed as Kafka frames them: frame version 1, record type, record version (unsigned varints), record.

use bytes::Bytes;

use crate::protocol::generated::cluster_metadata::{
    ConfigRecord, FeatureLevelRecord, PartitionRecord, ProducerIdsRecord, RegisterBrokerRecord, RemoveTopicRecord, TopicRecord,
};
use crate::protocol::{Message, decode_whole};
use crate::wire::{self, Frame, Writer};

/// The format of the frame.
const FRAME_VERSION: u32 = 1;

/// Declares the enum with its encoding.
macro_rules! metadata_records {
    ($($(#[$doc:meta])* $variant:ident($record:ident);)*) => {
        /// One change of the cluster.
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
                        writer.unsigned_varint(FRAME_VERSION);
                        writer.unsigned_varint(<$record>::TYPE_ID.map_or(0, |id| id as u32));
                        writer.unsigned_varint(<$record>::MAX_VERSION as u32);
                        record.encode(&mut writer, <$record>::MAX_VERSION);
                    })*
                }
                writer.into_bytes()
            }

            /// Reads stored bytes; the error is for a person.
            pub fn decode(bytes: Bytes) -> Result<MetadataRecord, String> {
                let Framed { type_id, version, body } = Framed::read(bytes)?;
                $(if <$record>::TYPE_ID == Some(type_id) && (<$record>::MIN_VERSION..=<$record>::MAX_VERSION).contains(&version) {
                    return decode_whole(&body, version).map(MetadataRecord::$variant).map_err(|error| error.to_string());
                })*
                Err(format!("record type {type_id} version {version} is not known; was this written by a newer dlog?"))
            }
        }
    };
}

/// A stored record before it is read.
#[derive(Debug)]
pub(super) struct Framed {
    pub(super) type_id: i16,
    pub(super) version: i16,
    pub(super) body: Bytes,
}

impl Framed {
    /// Reads type and version; the error is for a person.
    pub(super) fn read(bytes: Bytes) -> Result<Framed, String> {
        let frame = Frame::new(bytes.clone());
        let malformed = |error: nom::Err<wire::Error>| wire::Error::from(error).to_string();
        let (rest, frame_version) = wire::unsigned_varint(frame.cursor()).map_err(malformed)?;
        if frame_version != FRAME_VERSION {
            return Err(format!("frame version {frame_version} is not supported"));
        }
        let (rest, type_id) = wire::unsigned_varint(rest).map_err(malformed)?;
        let (rest, version) = wire::unsigned_varint(rest).map_err(malformed)?;
        let number = |number: u32| i16::try_from(number).map_err(|_| format!("record type {type_id} version {version} cannot be"));
        Ok(Framed { type_id: number(type_id)?, version: number(version)?, body: bytes.slice(bytes.len() - rest.len()..) })
    }
}

metadata_records! {
    /// A broker has started.
    RegisterBroker(RegisterBrokerRecord);
    /// A topic exists.
    Topic(TopicRecord);
    /// A topic has a partition.
    Partition(PartitionRecord);
    /// A setting of a topic (resource type 2); null takes it back.
    Config(ConfigRecord);
    /// A topic is gone, with its partitions and settings.
    RemoveTopic(RemoveTopicRecord);
    /// Producer ids below this one are given away.
    ProducerIds(ProducerIdsRecord);
    /// The level at which the cluster uses a feature (KIP-584).
    FeatureLevel(FeatureLevelRecord);
}
