//! Why a batch is refused, or what is wrong with a stored one.

/// What is wrong with record batches.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// No whole batch where one is needed.
    #[error("there is no record batch")]
    Empty,
    /// More than one batch for a partition in a request.
    #[error("more than one record batch for a partition")]
    SeveralBatches,
    /// Another message format than v2.
    #[error("message format {0} is not supported, only 2")]
    Magic(i8),
    /// A length that cannot be.
    #[error("a batch length of {0} is impossible")]
    Length(i32),
    /// A producer sends offsets from 0 on.
    #[error("the base offset of a produced batch is {0}, not 0")]
    BaseOffset(i64),
    /// A batch above the topic's `max.message.bytes`.
    #[error("a batch of {size} bytes is larger than max.message.bytes, {max}")]
    TooLarge {
        /// Bytes of the batch with its header.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// The checksum does not fit the bytes.
    #[error("the batch says CRC {stored:08x}, its bytes give {computed:08x}")]
    Crc {
        /// In the header.
        stored: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// The header contradicts itself or the records.
    #[error("the batch contradicts itself: {0}")]
    Contradiction(&'static str),
    /// Bytes of records that do not parse.
    #[error("record {index} is malformed: {what}")]
    Record {
        /// Place in the batch, from 0.
        index: usize,
        /// What is wrong.
        what: String,
    },
    /// Records that the topic does not allow: all of them, in their order, at most [`BAD_RECORDS_MAX`].
    #[error("{} of the batch's records cannot be appended: {}", .0.len(), .0.first().map(BadRecord::to_string).unwrap_or_default())]
    Rejected(Vec<BadRecord>),
    /// A codec number that does not exist.
    #[error("compression codec {0} does not exist")]
    Codec(u8),
    /// A block that its codec cannot read.
    #[error("the {codec} block cannot be decompressed: {what}")]
    Decompress {
        /// The codec's name.
        codec: &'static str,
        /// The codec's own words.
        what: String,
    },
    /// A block that grows beyond the limit.
    #[error("the block decompresses to more than {0} bytes")]
    Bomb(usize),
}

/// The most records that a refusal names. Records that it does not name were not appended either.
pub const BAD_RECORDS_MAX: usize = 65_536;

/// A record that the topic does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRecord {
    /// Place in the batch, from 0.
    pub index: usize,
    /// Why.
    pub fault: Fault,
}

/// Why a topic does not allow a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It has no key, and the topic is compacted.
    KeyMissing,
    /// The producer says that a broker has set its timestamp.
    AppendTime,
    /// Its timestamp is out of the topic's range.
    Timestamp {
        /// Milliseconds since 1970.
        timestamp_ms: i64,
        /// The earliest timestamp that the topic allows now.
        earliest_ms: i64,
        /// The latest.
        latest_ms: i64,
    },
}

impl std::fmt::Display for BadRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let BadRecord { index, fault } = self;
        match fault {
            Fault::KeyMissing => write!(f, "record {index} has no key, which a compacted topic requires"),
            Fault::AppendTime => write!(f, "record {index} has the timestamp type LogAppendTime, which a producer may not set"),
            Fault::Timestamp { timestamp_ms, earliest_ms, latest_ms } => {
                write!(f, "record {index} has the timestamp {timestamp_ms}, which is out of range [{earliest_ms}, {latest_ms}]")
            }
        }
    }
}
