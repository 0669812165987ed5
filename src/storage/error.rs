//! Errors of a log.

use std::io;
use std::path::{Path, PathBuf};

use crate::env::is_device_failure;
use crate::model::{Offset, ProducerEpoch, ProducerId};
use crate::records;

/// The operation after whose failure the content of the disk is unreliable.
const SYNC: &str = "sync";

/// Why storage cannot execute a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk failed.
    #[error("cannot {deed} {}: {source}", path.display())]
    Io {
        /// The attempted operation.
        deed: &'static str,
        /// The path of the operation.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Invalid stored batches.
    #[error("{}: {source}", path.display())]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// What is wrong.
        source: records::Error,
    },
    /// A batch that is too large for a segment.
    #[error("a batch of {size} bytes is larger than segment.bytes, {segment_bytes}")]
    LargerThanSegment {
        /// Size of the batch.
        size: usize,
        /// The topic's `segment.bytes`.
        segment_bytes: u64,
    },
    /// An offset outside the log.
    #[error("offset {offset} is out of range; the log contains offsets {log_start} to {log_end}")]
    OffsetOutOfRange {
        /// The requested offset.
        offset: Offset,
        /// The log start offset.
        log_start: Offset,
        /// The log end offset.
        log_end: Offset,
    },
    /// An idempotent producer skipped sequences.
    #[error("producer {producer} sent sequence {got}, expected {expected}")]
    OutOfOrderSequence {
        /// The producer.
        producer: ProducerId,
        /// The received sequence.
        got: i32,
        /// The expected sequence.
        expected: i32,
    },
    /// A newer instance of the producer is known.
    #[error("producer {producer} sent epoch {got}, but its current epoch is {current}")]
    ProducerFenced {
        /// The producer.
        producer: ProducerId,
        /// The received epoch.
        got: ProducerEpoch,
        /// The newest epoch.
        current: ProducerEpoch,
    },
    /// A batch does not match its producer's transaction.
    #[error("producer {producer}: {what}")]
    TransactionState {
        /// The producer.
        producer: ProducerId,
        /// What is wrong.
        what: &'static str,
    },
    /// A marker from a newer coordinator was stored before.
    #[error("a marker of producer {producer} has coordinator epoch {got}, but the current coordinator epoch is {current}")]
    CoordinatorFenced {
        /// The producer of the transaction.
        producer: ProducerId,
        /// The received coordinator epoch.
        got: i32,
        /// The newest coordinator epoch.
        current: i32,
    },
    /// An earlier fsync has failed.
    #[error("{} is offline after a disk error; repair the disk and restart the broker", .0.display())]
    Offline(PathBuf),
    /// Background work was interrupted; nothing is left incomplete.
    #[error("the broker is stopping")]
    Stopping,
    /// The topic was deleted while its log was in use.
    #[error("{} belongs to a topic that was deleted", .0.display())]
    Deleted(PathBuf),
    /// Another process uses the directory.
    #[error("{} is in use by another broker; stop that one, or choose another directory with --data", .0.display())]
    Locked(PathBuf),
    /// The directory does not belong to a broker.
    #[error("{} contains files that do not belong to a broker ({found}); choose an empty directory with --data", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of them.
        found: String,
    },
    /// The file that identifies a directory cannot be read.
    #[error("{}: {what}; restore the file, or choose another directory with --data", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The directory belongs to another cluster or node.
    #[error("{} belongs to {what} {stored}, but the configuration says {configured}; set {key}={stored}, choose another directory with --data, or delete the contents of this one with --reset", path.display())]
    Mismatch {
        /// The directory.
        path: PathBuf,
        /// `cluster` or `node`.
        what: &'static str,
        /// The configuration key.
        key: &'static str,
        /// The stored value.
        stored: String,
        /// The configured value.
        configured: String,
    },
}

impl Error {
    /// Whether a file does not exist, for example because retention or compaction has deleted its segment.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the topic was deleted meanwhile: this is not a failure, and no work is left.
    pub fn is_deleted(&self) -> bool {
        matches!(self, Error::Deleted(_))
    }

    /// Whether the disk has failed and nothing on it can be relied on: an fsync failed (the kernel may have dropped the written data, and no later
    /// fsync brings it back), or all reads or writes fail.
    pub fn is_disk_failure(&self) -> bool {
        match self {
            Error::Io { deed: SYNC, .. } => true,
            Error::Io { source, .. } => is_device_failure(source),
            _ => false,
        }
    }

    /// Adds the operation and the path to an I/O error.
    pub(super) fn io(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { deed, path: path.to_path_buf(), source }
    }
}
