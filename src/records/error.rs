//! Why a batch is rejected, or why a stored one is invalid.

/// Errors of record batches.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A whole batch is missing where one is required.
    #[error("there is no record batch")]
    Empty,
    /// More than one batch for a partition in a request.
    #[error("more than one record batch for a partition")]
    SeveralBatches,
    /// A message format other than v2.
    #[error("message format {0} is not supported, only 2")]
    Magic(i8),
    /// An impossible batch length.
    #[error("the batch length {0} is invalid")]
    Length(i32),
    /// The base offset of a produced batch must be 0.
    #[error("the base offset of a produced batch is {0}, not 0")]
    BaseOffset(i64),
    /// A batch larger than the topic's `max.message.bytes`.
    #[error("a batch of {size} bytes is larger than max.message.bytes, {max}")]
    TooLarge {
        /// Bytes of the batch with its header.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// The checksum does not match the bytes.
    #[error("the stored CRC is {stored:08x}, the computed CRC is {computed:08x}")]
    Crc {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// The header contradicts itself or the records.
    #[error("the batch is inconsistent: {0}")]
    Contradiction(&'static str),
    /// Bytes of records that do not parse.
    #[error("record {index} is malformed: {what}")]
    Record {
        /// Index in the batch, from 0.
        index: usize,
        /// What is wrong.
        what: String,
    },
    /// Records that the topic does not allow: all of them in order, at most [`BAD_RECORDS_MAX`].
    #[error("{} of the batch's records cannot be appended: {}", .0.len(), .0.first().map(BadRecord::to_string).unwrap_or_default())]
    Rejected(Vec<BadRecord>),
    /// A codec number that does not exist.
    #[error("compression codec {0} does not exist")]
    Codec(u8),
    /// A block that its codec cannot decompress.
    #[error("the {codec} block cannot be decompressed: {what}")]
    Decompress {
        /// The codec's name.
        codec: &'static str,
        /// The codec's own error message.
        what: String,
    },
    /// A block that decompresses to more than the limit.
    #[error("the block decompresses to more than {0} bytes")]
    Bomb(usize),
}

/// The most records named in an error. Records that are not named were not appended either.
pub const BAD_RECORDS_MAX: usize = 65_536;

/// A record that the topic does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRecord {
    /// Index in the batch, from 0.
    pub index: usize,
    /// The reason.
    pub fault: Fault,
}

/// Why a topic does not allow a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It has no key, and the topic is compacted.
    KeyMissing,
    /// The producer claims that a broker has set its timestamp.
    AppendTime,
    /// Its timestamp is outside the range of the topic.
    Timestamp {
        /// Milliseconds since 1970.
        timestamp_ms: i64,
        /// The earliest timestamp that the topic allows now.
        earliest_ms: i64,
        /// The latest timestamp that the topic allows now.
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
