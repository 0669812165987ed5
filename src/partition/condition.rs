//! The condition of a log directory, as its replicas see it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;
use tracing::error;

use crate::storage;

/// Bytes that may be written until a flush is due: so much has to be read after a crash at most.
const UNFLUSHED_BYTES_MAX: u64 = 1 << 30;

/// Shared by all replicas of a directory.
#[derive(Debug, Default)]
pub(super) struct Condition {
    offline: AtomicBool,
    unflushed_bytes: AtomicU64,
    /// Somebody should make the logs durable.
    pub(super) flush_due: Notify,
    /// A write found no room.
    pub(super) full: Notify,
}

impl Condition {
    /// Whether the disk has failed. Nothing is read or written until a broker starts anew.
    pub(super) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Acquire)
    }

    /// What was written may be lost, and nobody knows which part of it: after a failed sync the kernel forgets.
    pub(super) fn go_offline(&self, error: &storage::Error) {
        if !self.offline.swap(true, Ordering::AcqRel) {
            error!(%error, "the log directory is offline: nothing is read or written until the next start");
        }
    }

    /// Counts what is not durable yet.
    pub(super) fn appended(&self, bytes: u64) {
        if self.unflushed_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > UNFLUSHED_BYTES_MAX {
            self.unflushed_bytes.store(0, Ordering::Relaxed);
            self.flush_due.notify_one();
        }
    }

    /// A flush begins.
    pub(super) fn flushing(&self) {
        self.unflushed_bytes.store(0, Ordering::Relaxed);
    }
}
