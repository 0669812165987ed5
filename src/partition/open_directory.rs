//! A log directory in use, and the state that its replicas share.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::error;

use super::commits::Commits;
use crate::env::Disk;
use crate::storage::{self, LogDirectory, OpenFiles};

/// With more unflushed bytes than this a flush must run: this bounds the bytes to read after a crash.
const UNFLUSHED_BYTES_MAX: u64 = 1 << 30;

/// During commits, a flush pauses after each piece for this many times as long as the piece took.
const WAY_GIVEN: u32 = 2;
/// The longest such pause.
const WAY_GIVEN_MAX: Duration = Duration::from_millis(10);

/// When a record counts as stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once it is in the page cache: it survives a kill -9 of the broker, but not a power loss before the next flush.
    #[default]
    Default,
    /// Once it is fsynced, together with concurrent batches of other producers: it survives a power loss. Readers do not see it before.
    Fsync,
}

/// The signals that all directories of a broker share.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The logs should be flushed.
    pub(super) flush_due: Notify,
    /// A write has found the disk full.
    pub(super) full: Notify,
}

/// A log directory and the state that its replicas share.
#[derive(Debug)]
pub(super) struct OpenDirectory {
    pub(super) log: LogDirectory,
    pub(super) files: Arc<OpenFiles>,
    pub(super) durability: Durability,
    pub(super) commits: Commits,
    /// Held from reading the recovery points of the logs until they are written, and while a log is truncated: its recovery point on the disk must
    /// not rise again. Locked before all other locks.
    points: Mutex<()>,
    offline: AtomicBool,
    /// Directories of deleted partitions were renamed, which may not be durable yet.
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
            points: Mutex::new(()),
            offline: AtomicBool::new(false),
            renamed: AtomicBool::new(false),
            unflushed_bytes: AtomicU64::new(0),
            signals,
        }
    }

    /// Whether the disk has failed. Nothing is read or written until the next start of the broker.
    pub(super) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Acquire)
    }

    /// Runs `work`, which fsyncs, unless the disk has failed. Blocks.
    pub(super) fn sync<T>(&self, work: impl FnOnce() -> Result<T, storage::Error>) -> Result<T, storage::Error> {
        let has_failed = self.files.syncing().lock().unwrap_or_else(PoisonError::into_inner);
        if *has_failed {
            self.fail(&"a file could not be fsynced before it was closed");
        }
        self.check_online()?;
        work().inspect_err(|error| self.judge(error))
    }

    /// Pauses after a piece of a flush, which took `took`, if commits are in progress and the journal is not short of room: they can use the disk.
    pub(super) fn give_way(&self, took: Duration) {
        if self.commits.is_busy() && !self.log.journal().is_short() {
            std::thread::sleep((took * WAY_GIVEN).min(WAY_GIVEN_MAX));
        }
    }

    /// Whether an fsync is in progress.
    pub(super) fn is_syncing(&self) -> bool {
        matches!(self.files.syncing().try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Returns an error if the disk has failed.
    pub(super) fn check_online(&self) -> Result<(), storage::Error> {
        if self.is_offline() { Err(storage::Error::Offline(self.log.path().to_path_buf())) } else { Ok(()) }
    }

    /// Takes the directory offline if the error means that the disk has failed. After a failed fsync the kernel may drop written data: some of it
    /// may be lost, and it is unknown which part.
    pub(super) fn judge(&self, error: &storage::Error) {
        if error.is_disk_failure() {
            self.fail(error);
        }
    }

    /// Takes the directory offline: its content cannot be relied on.
    pub(super) fn fail(&self, error: &dyn Display) {
        if !self.offline.swap(true, Ordering::AcqRel) {
            let directory = self.log.path().display();
            error!(%error, %directory, "the log directory is offline: its partitions are not served until the next start");
            // A committing thread then wakes the waiting requests.
            self.commits.end();
        }
    }

    /// Notes that a deleted partition's directory was renamed.
    pub(super) fn renamed(&self) {
        self.renamed.store(true, Ordering::Release);
    }

    /// Whether any was renamed since the last call.
    pub(super) fn take_renamed(&self) -> bool {
        self.renamed.swap(false, Ordering::AcqRel)
    }

    /// Prevents other threads from writing recovery points.
    pub(super) fn points(&self) -> MutexGuard<'_, ()> {
        self.points.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the directory offline if the thread panics before the result is dropped: an assertion has failed in the middle of work on the directory.
    pub(super) fn offline_on_panic(&self) -> OfflineOnPanic<'_> {
        OfflineOnPanic(self)
    }

    /// Counts bytes that are not durable yet.
    pub(super) fn appended(&self, bytes: u64) {
        if self.durability == Durability::Fsync {
            self.commits.appended(bytes);
        }
        if self.unflushed_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > UNFLUSHED_BYTES_MAX {
            self.unflushed_bytes.store(0, Ordering::Relaxed);
            self.signals.flush_due.notify_one();
        }
    }

    /// Notes that a flush begins.
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
