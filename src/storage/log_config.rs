//! A log's settings.

use super::compaction::Compaction;
use super::retention::Policy;

/// A topic's settings, as far as the log needs them. Names are Kafka's.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`.
    pub index_bytes_max: u64,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u64,
    /// `retention.ms` and `retention.bytes`; none if `cleanup.policy` does not contain `delete`.
    pub retention: Option<Policy>,
    /// `flush.messages`: the number of records that may wait for an fsync.
    pub flush_messages: i64,
    /// `flush.ms`: how long a record may wait for an fsync.
    pub flush_ms: i64,
    /// None if `cleanup.policy` does not contain `compact`.
    pub compaction: Option<Compaction>,
    /// `max.decompressed.message.bytes`, for lookups inside compressed batches.
    pub decompressed_bytes_max: usize,
}
