//! Logs without a broker.

use std::path::Path;
use std::sync::Arc;

use dlog::env::{Env, RealDisk};
use dlog::model::{NodeId, ProducerEpoch, ProducerId};
use dlog::partition::{Origin, Replica};
use dlog::records::{BatchBuilder, EpochRule, KeyRule, Look, Marker, NewRecord, Rules, TimestampType, TransactionResult};
use dlog::storage::{Error, Log, LogConfig, LogDirectory, OpenFiles, Recovery, Report};

/// When everything happens.
pub const NOW: i64 = 1_700_000_000_000;

/// The log directory of a node; it is made where there is none.
pub fn log_directory(env: &Env, path: &Path) -> Result<LogDirectory, Error> {
    LogDirectory::open(env.disk.clone(), &*env.entropy, path, NodeId(1), Some("cluster"))
}

/// A log without limits but those of its segments.
pub fn log_config(segment_bytes: u64, index_interval_bytes: u64) -> LogConfig {
    LogConfig {
        segment_bytes,
        segment_ms: i64::MAX,
        segment_jitter_ms: 0,
        index_bytes_max: 10 << 20,
        index_interval_bytes,
        retention: None,
        flush_messages: i64::MAX,
        flush_ms: i64::MAX,
        compaction: None,
        decompressed_bytes_max: 1 << 20,
    }
}

pub fn rules(keys: KeyRule, look: Look) -> Rules {
    Rules {
        now_ms: NOW,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: i64::MAX,
        message_bytes_max: 1 << 20,
        codec: None,
        keys,
        look,
        decompressed_bytes_max: 1 << 20,
    }
}

/// Few files may be open, so that they are closed and opened again.
pub fn open_files() -> Arc<OpenFiles> {
    OpenFiles::new(Arc::new(RealDisk), 2)
}

pub fn open_log(path: &Path, config: LogConfig, how: Recovery) -> (Log, Report) {
    Log::open(&open_files(), path, config, how, NOW).expect("the log opens")
}

/// A transaction of producer 5 with one record, the producer's so-many-th from 0, that is aborted.
pub fn abort(replica: &Replica, sequence: i32) {
    let (producer_id, producer_epoch) = (ProducerId(5), ProducerEpoch(0));
    let record = NewRecord { timestamp_ms: Some(NOW), ..NewRecord::value(b"aborted") };
    let batch = BatchBuilder::new().producer(5, 0, sequence).transactional().record(record).build(NOW);
    let verification = replica.begin_verification(producer_id);
    replica.produce(&batch, Origin::Client, verification.as_ref(), NOW).expect("an append");
    let marker = Marker { producer_id, producer_epoch, result: TransactionResult::Abort, coordinator_epoch: 3 };
    replica.end_transaction(&marker, EpochRule::Stays, NOW).expect("a marker");
}
