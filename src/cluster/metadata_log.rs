//! The log under the metadata: where records become committed.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{Error, MetadataRecord};
use crate::env::{Clock, Disk};
use crate::model::{LeaderEpoch, Offset};
use crate::records::{BatchBuilder, CheckedBatch, KeyRule, Look, NewRecord, Records, Rules, TimestampType, check};
use crate::storage::{self, Log, LogConfig, Recovery};

/// The name of the metadata log, as in Kafka; its one partition lies beside the others.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Committed records. On disk an entry is a record batch: its base offset is the index, its leader epoch the term, and each record carries
/// the format version of its frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The term of the controller that proposed it.
    pub term: i32,
    /// The index of the first record.
    pub index: i64,
    /// What changes.
    pub records: Vec<MetadataRecord>,
}

/// What the controller needs of a log: records that are proposed come back committed, in one order everywhere.
pub trait MetadataLog: Send {
    /// Proposes records in the controller's term and returns their index once they are committed.
    fn propose(&mut self, records: &[MetadataRecord], term: i32) -> Result<i64, Error>;

    /// The entries that were committed since the last call, the proposer's own among them.
    fn take_committed(&mut self) -> Vec<Entry>;

    /// Our term.
    fn term(&self) -> i32;

    /// Stops; what is committed stays.
    fn close(&mut self) -> Result<(), Error>;
}

/// A log of one node: what is appended and synced is committed.
pub struct LocalMetadataLog {
    log: Log,
    clock: Arc<dyn Clock>,
    term: i32,
    committed: Vec<Entry>,
}

impl LocalMetadataLog {
    /// Opens the log below the log directory; everything that is there is committed. Each start is a new term.
    pub fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, directory: &Path) -> Result<LocalMetadataLog, Error> {
        let path = directory.join(format!("{METADATA_TOPIC}-0"));
        let storage = |error: storage::Error| Error::Storage(error.to_string());
        disk.create_dir(&path).map_err(|e| Error::Storage(e.to_string()))?;
        let (log, _) = Log::open(disk, &path, config(), Recovery::From(Offset(0)), clock.wall_ms()).map_err(storage)?;
        let mut committed = Vec::new();
        log.replay(log.log_start(), |header, body| {
            let body = Bytes::copy_from_slice(body);
            let mut records = Vec::new();
            for record in Records::new(&body, header.records_count) {
                let record = record.map_err(|e| Error::Storage(e.to_string()))?;
                let value = record.value.ok_or_else(|| Error::Storage("a metadata record has no value".into()))?;
                records.push(MetadataRecord::decode(body.slice_ref(value)).map_err(Error::Storage)?);
            }
            committed.push(Entry { term: header.leader_epoch.0, index: header.base_offset.0, records });
            Ok::<_, Error>(())
        })?;
        let term = log.epochs().latest().map_or(1, |epoch| epoch.0 + 1);
        Ok(LocalMetadataLog { log, clock, term, committed })
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        Error::Storage(error.to_string())
    }
}

impl MetadataLog for LocalMetadataLog {
    fn propose(&mut self, records: &[MetadataRecord], term: i32) -> Result<i64, Error> {
        if term != self.term {
            return Err(Error::NotController);
        }
        let now_ms = self.clock.wall_ms();
        let values: Vec<Bytes> = records.iter().map(MetadataRecord::encode).collect();
        let builder = values.iter().fold(BatchBuilder::new(), |builder, value| builder.record(NewRecord::value(value)));
        let batch = checked(&builder.build(now_ms), now_ms)?;
        let appended = self.log.append(batch, LeaderEpoch(term), now_ms)?;
        self.log.flush()?;
        self.committed.push(Entry { term, index: appended.base_offset.0, records: records.to_vec() });
        Ok(appended.base_offset.0)
    }

    fn take_committed(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.committed)
    }

    fn term(&self) -> i32 {
        self.term
    }

    fn close(&mut self) -> Result<(), Error> {
        Ok(self.log.close()?)
    }
}

/// Our own batch passes the same door as a producer's.
fn checked(bytes: &Bytes, now_ms: i64) -> Result<CheckedBatch, Error> {
    let rules = Rules {
        now_ms,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: i64::MAX,
        message_bytes_max: usize::MAX,
        codec: None,
        keys: KeyRule::Optional,
        look: Look::Trusting,
        decompressed_bytes_max: usize::MAX,
    };
    check(bytes, &rules).map_err(|e| Error::Storage(e.to_string()))
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1 << 30,
        segment_ms: i64::MAX,
        index_bytes_max: 10 << 20,
        index_interval_bytes: 4096,
        retention: None,
        decompressed_bytes_max: usize::MAX,
    }
}
