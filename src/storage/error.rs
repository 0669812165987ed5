//! What can go wrong with a log.

use std::io;
use std::path::{Path, PathBuf};

use crate::env::is_device_failure;
use crate::model::{Offset, ProducerEpoch, ProducerId};
use crate::records;

/// The deed after whose failure nothing can be relied on.
const SYNC: &str = "sync";

/// Why storage cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk failed.
    #[error("cannot {deed} {}: {source}", path.display())]
    Io {
        /// What was tried.
        deed: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Stored batches that do not parse.
    #[error("{}: {source}", path.display())]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// What is wrong.
        source: records::Error,
    },
    /// A batch that no segment may hold.
    #[error("a batch of {size} bytes does not fit into segments of {segment_bytes}")]
    LargerThanSegment {
        /// Of the batch.
        size: usize,
        /// The topic's `segment.bytes`.
        segment_bytes: u64,
    },
    /// An offset outside the log.
    #[error("offset {offset} lies outside the log, which holds {log_start} to {log_end}")]
    OffsetOutOfRange {
        /// Asked for.
        offset: Offset,
        /// The first offset.
        log_start: Offset,
        /// The offset after the last one.
        log_end: Offset,
    },
    /// An idempotent producer left sequences out.
    #[error("producer {producer} sent sequence {got}, expected {expected}")]
    OutOfOrderSequence {
        /// Who.
        producer: ProducerId,
        /// What came.
        got: i32,
        /// What should have.
        expected: i32,
    },
    /// A newer instance of the producer is known.
    #[error("producer {producer} has epoch {current}, and sent {got}")]
    ProducerFenced {
        /// Who.
        producer: ProducerId,
        /// What came.
        got: ProducerEpoch,
        /// The newest.
        current: ProducerEpoch,
    },
    /// A batch does not fit to its producer's transaction.
    #[error("producer {producer}: {what}")]
    TransactionState {
        /// Who.
        producer: ProducerId,
        /// What is wrong.
        what: &'static str,
    },
    /// A newer coordinator has decided before.
    #[error("the coordinator of producer {producer} has epoch {current}, and one with epoch {got} sent a marker")]
    CoordinatorFenced {
        /// Whose transaction.
        producer: ProducerId,
        /// What came.
        got: i32,
        /// The newest.
        current: i32,
    },
    /// A sync has failed before.
    #[error("{} is offline after a disk error; mend the disk and start the broker again", .0.display())]
    Offline(PathBuf),
    /// Work in the background was cut short; nothing is half done.
    #[error("the broker is stopping")]
    Stopping,
    /// The topic was deleted while something went on with its log.
    #[error("{} belongs to a topic that was deleted", .0.display())]
    Deleted(PathBuf),
    /// Another process uses the directory.
    #[error("{} is in use by another broker; stop that one, or choose another directory with --data", .0.display())]
    Locked(PathBuf),
    /// The directory is not a broker's.
    #[error("{} holds files that are not a broker's ({found}); choose an empty directory with --data", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of them.
        found: String,
    },
    /// The file that identifies a directory is not readable.
    #[error("{}: {what}; restore the file, or choose another directory with --data", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The directory belongs to another cluster or node.
    #[error("{} belongs to {what} {stored}, but the configuration says {configured}; set {key}={stored}, choose another directory with --data, or throw away what is in this one with --reset", path.display())]
    Mismatch {
        /// The directory.
        path: PathBuf,
        /// `cluster` or `node`.
        what: &'static str,
        /// The configuration key.
        key: &'static str,
        /// On disk.
        stored: String,
        /// In the configuration.
        configured: String,
    },
}

impl Error {
    /// Whether a file is gone, as that of a segment which retention or compaction took away.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the topic was deleted meanwhile: then nothing is wrong, and nothing is left to do.
    pub fn is_deleted(&self) -> bool {
        matches!(self, Error::Deleted(_))
    }

    /// Whether the disk has failed, so that nothing on it can be relied on: it could not make durable what was written (the kernel may have
    /// forgotten it, and no later sync brings it back), or it refuses all reading or writing.
    pub fn is_disk_failure(&self) -> bool {
        match self {
            Error::Io { deed: SYNC, .. } => true,
            Error::Io { source, .. } => is_device_failure(source),
            _ => false,
        }
    }

    /// Adds deed and path to an I/O error.
    pub(super) fn io(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { deed, path: path.to_path_buf(), source }
    }
}
