//! A log directory in use, and its condition as its replicas see it.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::error;

use super::commits::Commits;
use crate::env::Disk;
use crate::storage::{self, LogDirectory, OpenFiles};

/// Bytes that may be written until a flush is due: so much has to be read after a crash at most.
const UNFLUSHED_BYTES_MAX: u64 = 1 << 30;

/// While there are commits a flush leaves the disk to them for so many times as long as it takes it.
const WAY_GIVEN: u32 = 2;
/// And for no longer than that at once.
const WAY_GIVEN_MAX: Duration = Duration::from_millis(10);

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
    pub(super) commits: Commits,
    /// Held by who makes something durable: of two at once only one would be told that the disk failed.
    syncing: Mutex<()>,
    /// Held from the time at which recovery points are taken from the logs until they are written, and while a log is truncated: its recovery point
    /// must not rise on the disk again. Taken before all other locks.
    points: Mutex<()>,
    offline: AtomicBool,
    /// Directories of deleted partitions were renamed, which may not be durable.
    renamed: AtomicBool,
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
            commits: Commits::default(),
            syncing: Mutex::new(()),
            points: Mutex::new(()),
            offline: AtomicBool::new(false),
            renamed: AtomicBool::new(false),
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

    /// Lets commits get at the disk after a piece of a flush, which took so long, where there are any and they have room.
    pub(super) fn give_way(&self, took: Duration) {
        if self.commits.is_busy() && !self.log.journal().is_short() {
            std::thread::sleep((took * WAY_GIVEN).min(WAY_GIVEN_MAX));
        }
    }

    /// Whether somebody makes something durable now.
    pub(super) fn is_syncing(&self) -> bool {
        matches!(self.syncing.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Fails where the disk has failed.
    pub(super) fn check_online(&self) -> Result<(), storage::Error> {
        if self.is_offline() { Err(storage::Error::Offline(self.log.path().to_path_buf())) } else { Ok(()) }
    }

    /// Takes the directory offline where the error says that the disk failed. After a failed sync the kernel forgets: what was written may be
    /// lost, and nobody knows which part of it.
    pub(super) fn judge(&self, error: &storage::Error) {
        if error.is_disk_failure() {
            self.fail(error);
        }
    }

    /// Takes the directory offline: what lies in it cannot be relied on.
    pub(super) fn fail(&self, error: &dyn Display) {
        if !self.offline.swap(true, Ordering::AcqRel) {
            let directory = self.log.path().display();
            error!(%error, %directory, "the log directory is offline: nothing in it is read or written until the next start");
            // Who commits tells those who wait.
            self.commits.end();
        }
    }

    /// Takes note that a deleted partition's directory was renamed.
    pub(super) fn renamed(&self) {
        self.renamed.store(true, Ordering::Release);
    }

    /// Whether any was since somebody asked.
    pub(super) fn take_renamed(&self) -> bool {
        self.renamed.swap(false, Ordering::AcqRel)
    }

    /// Keeps others from writing recovery points.
    pub(super) fn points(&self) -> MutexGuard<'_, ()> {
        self.points.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the directory offline where the thread panics before the answer is dropped: an assertion has failed in the middle of work on it.
    pub(super) fn offline_on_panic(&self) -> OfflineOnPanic<'_> {
        OfflineOnPanic(self)
    }

    /// Counts what is not durable yet.
    pub(super) fn appended(&self, bytes: u64) {
        if self.durability == Durability::Fsync {
            self.commits.appended(bytes);
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

/// See [`OpenDirectory::offline_on_panic`].
pub(super) struct OfflineOnPanic<'a>(&'a OpenDirectory);

impl Drop for OfflineOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&"an assertion has failed, see above");
        }
    }
}
