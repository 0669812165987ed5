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
    /// A compacted topic needs keys.
    #[error("record {index} has no key, which a compacted topic needs")]
    KeyMissing {
        /// Place in the batch, from 0.
        index: usize,
    },
    /// A timestamp outside what the topic allows.
    #[error("record {index} has the timestamp {timestamp_ms}, which lies outside what the topic allows")]
    Timestamp {
        /// Place in the batch, from 0.
        index: usize,
        /// Milliseconds since 1970.
        timestamp_ms: i64,
    },
    /// The producer claims the broker's kind of timestamp.
    #[error("a producer may not set the timestamp type LogAppendTime")]
    AppendTime,
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

impl Error {
    /// The record at fault, where it is one record's fault.
    pub fn record_index(&self) -> Option<usize> {
        match self {
            Error::Record { index, .. } | Error::KeyMissing { index } | Error::Timestamp { index, .. } => Some(*index),
            _ => None,
        }
    }
}
