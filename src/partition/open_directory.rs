//! A log directory in use, and its condition as its replicas see it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::env::Disk;
use crate::storage::{self, Committed, JournalEntry, LogDirectory, OpenFiles};

/// Bytes that may be written until a flush is due: so much has to be read after a crash at most.
const UNFLUSHED_BYTES_MAX: u64 = 1 << 30;

/// When a record counts as stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once it is in the page cache: it survives a kill -9 of the broker, and not a power cut until the next flush.
    #[default]
    Default,
    /// Once it is synced, together with what other producers wrote meanwhile: it survives a power cut. No reader sees it before.
    Fsync,
}

/// What the directories of a broker share.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Somebody should make the logs durable.
    pub(super) flush_due: Notify,
    /// A write found no room.
    pub(super) full: Notify,
}

/// A log directory with what its replicas share.
#[derive(Debug)]
pub(super) struct OpenDirectory {
    pub(super) log: LogDirectory,
    pub(super) files: Arc<OpenFiles>,
    pub(super) durability: Durability,
    /// Somebody waits until something is durable.
    pub(super) commit_due: Notify,
    /// Held by who makes something durable: of two at once only one would be told that the disk failed.
    syncing: Mutex<()>,
    offline: AtomicBool,
    failed: CancellationToken,
    unflushed_bytes: AtomicU64,
    pub(super) signals: Arc<Signals>,
}

impl OpenDirectory {
    pub(super) fn new(
        log: LogDirectory,
        disk: Arc<dyn Disk>,
        files_max: usize,
        durability: Durability,
        signals: Arc<Signals>,
    ) -> OpenDirectory {
        OpenDirectory {
            log,
            files: OpenFiles::new(disk, files_max),
            durability,
            commit_due: Notify::new(),
            syncing: Mutex::new(()),
            offline: AtomicBool::new(false),
            failed: CancellationToken::new(),
            unflushed_bytes: AtomicU64::new(0),
            signals,
        }
    }

    /// Whether the disk has failed. Nothing is read or written until a broker starts anew.
    pub(super) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Acquire)
    }

    /// Makes something durable, unless the disk has failed. Blocks.
    pub(super) fn sync<T>(&self, work: impl FnOnce() -> Result<T, storage::Error>) -> Result<T, storage::Error> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_online()?;
        work().inspect_err(|error| self.judge(error))
    }

    /// Whether somebody makes something durable now.
    pub(super) fn is_syncing(&self) -> bool {
        matches!(self.syncing.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Commits what was appended, unless the disk has failed. Blocks, but not for a [sync](OpenDirectory::sync) of the logs.
    pub(super) fn commit(&self, entries: &[JournalEntry]) -> Result<Committed, storage::Error> {
        let mut journal = self.log.journal();
        self.check_online()?;
        journal.commit(entries).inspect_err(|error| self.judge(error))
    }

    fn check_online(&self) -> Result<(), storage::Error> {
        if self.is_offline() { Err(storage::Error::Offline(self.log.path().to_path_buf())) } else { Ok(()) }
    }

    /// Waits until the disk fails.
    pub(super) async fn went_offline(&self) {
        self.failed.cancelled().await;
    }

    /// Takes the directory offline where the error says that the disk failed. After a failed sync the kernel forgets: what was written may be
    /// lost, and nobody knows which part of it.
    pub(super) fn judge(&self, error: &storage::Error) {
        if error.is_disk_failure() && !self.offline.swap(true, Ordering::AcqRel) {
            let directory = self.log.path().display();
            error!(%error, %directory, "the log directory is offline: nothing in it is read or written until the next start");
            self.failed.cancel();
        }
    }

    /// Counts what is not durable yet.
    pub(super) fn appended(&self, bytes: u64) {
        if self.durability == Durability::Fsync {
            self.commit_due.notify_one();
        }
        if self.unflushed_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > UNFLUSHED_BYTES_MAX {
            self.unflushed_bytes.store(0, Ordering::Relaxed);
            self.signals.flush_due.notify_one();
        }
    }

    /// A flush begins.
    pub(super) fn flushing(&self) {
        self.unflushed_bytes.store(0, Ordering::Relaxed);
    }
}
