//! Raft's log storage: openraft's calls, on threads that may block.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};

use super::progress::Progress;
use super::{LogEntry, LogFile, LogId, Quorum, StorageError, Vote};
use crate::cluster::Error;
use crate::env::Workers;

/// A handle of the metadata log's file.
#[derive(Clone)]
pub(super) struct Store {
    file: Arc<Mutex<LogFile>>,
    progress: Progress,
    workers: Workers,
    node: u64,
}

impl Store {
    pub(super) fn new(file: LogFile, workers: Workers, node: u64) -> Store {
        Store { progress: file.progress().clone(), file: Arc::new(Mutex::new(file)), workers, node }
    }

    /// This node's id.
    pub(super) fn node(&self) -> i32 {
        self.node as i32
    }

    /// How far the log is.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Runs short work on what is in memory.
    pub(super) fn now<T>(&self, work: impl FnOnce(&mut LogFile) -> T) -> T {
        work(&mut self.file.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs work on a thread that may block.
    pub(super) async fn blocking<T, E>(&self, work: impl FnOnce(&mut LogFile) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let file = self.file.clone();
        let work = move || work(&mut file.lock().unwrap_or_else(PoisonError::into_inner));
        self.workers.blocking(work).await.map_err(|e| Error::Storage(e.to_string()))?
    }
}

fn any(error: &Error) -> AnyError {
    AnyError::new(error)
}

/// A failed read ends openraft: a short answer would be taken for the whole.
pub(super) fn unreadable(error: Error) -> StorageError {
    StorageIOError::read_logs(any(&error)).into()
}

pub(super) fn unwritable(error: Error) -> StorageError {
    StorageIOError::write_logs(any(&error)).into()
}

impl RaftLogReader<Quorum> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        self.blocking(move |file| file.read(from, to)).await.map_err(unreadable)
    }
}

impl RaftLogStorage<Quorum> for Store {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> Result<LogState<Quorum>, StorageError> {
        let (last_purged_log_id, last_log_id) = self.now(|file| file.state());
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Store {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let (vote, node) = (*vote, self.node);
        let saved = self.blocking(move |file| file.save_vote(node, &vote)).await;
        saved.map_err(|error| StorageIOError::write_vote(any(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.now(|file| file.vote(self.node)))
    }

    /// Returns when the entries are fsynced.
    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Quorum>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (entries, node) = (entries.into_iter().collect(), self.node);
        let appended = self.blocking(move |file| file.append(node, entries)).await;
        flushed.log_io_completed(match &appended {
            Ok(()) => Ok(()),
            Err(error) => Err(std::io::Error::other(error.to_string())),
        });
        appended.map_err(unwritable)
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        self.blocking(move |file| file.truncate(from.index)).await.map_err(unwritable)
    }

    async fn purge(&mut self, last: LogId) -> Result<(), StorageError> {
        self.blocking(move |file| file.purge(last)).await.map_err(unwritable)
    }
}
