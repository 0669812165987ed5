//! How far the metadata log is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StoredMembership;

/// How far the log is. It has a lock of its own, because that of the file is held while the disk works.
#[derive(Clone, Default)]
pub(super) struct Progress(Arc<Mutex<Reached>>);

#[derive(Clone, Default)]
pub(super) struct Reached {
    /// The end of the log.
    pub(super) end: i64,
    /// The end of what is applied: the high watermark of the metadata.
    pub(super) committed: i64,
    /// The changes of the voters that are applied, in order: those since the snapshot, and the last one before it.
    pub(super) voters: Vec<StoredMembership>,
}

impl Progress {
    pub(super) fn get(&self) -> MutexGuard<'_, Reached> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last voters that are applied.
    pub(super) fn voters(&self) -> StoredMembership {
        self.get().voters.last().cloned().unwrap_or_default()
    }
}
