//! Raft's state machine: delivers what is committed, and has the snapshots that the driver writes.

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError};
use tokio::sync::mpsc;

use super::entry::Payload;
use super::store::{Store, unreadable, unwritable};
use super::{LogEntry, LogId, Outcome, Quorum, SnapshotMeta, StorageError, StoredMembership, StoredSnapshot};
use crate::cluster::{Committed, Entry, Error, LeaderChange, MetadataRecord};
use crate::protocol::generated::cluster_metadata::NoOpRecord;

/// The state machine; the state itself belongs to the reader of the stream.
pub(super) struct Machine {
    store: Store,
    committed: mpsc::UnboundedSender<Committed>,
    applied: Option<LogId>,
    /// The offset of the next entry's first record.
    next: i64,
}

impl Machine {
    /// A machine that has delivered everything up to the entry `applied`, which ends at the offset `next`.
    pub(super) fn new(store: Store, committed: mpsc::UnboundedSender<Committed>, applied: Option<LogId>, next: i64) -> Machine {
        Machine { store, committed, applied, next }
    }

    fn apply_one(&mut self, entry: LogEntry) -> Outcome {
        let (id, epoch, offset, count) = (entry.id, entry.epoch(), self.next, entry.count());
        assert!(self.applied < Some(id), "entry {id} is applied after {:?}", self.applied);
        let mut outcome = Outcome::Committed;
        let nothing = || Committed::Entry(Entry { epoch, offset, records: vec![MetadataRecord::NoOp(NoOpRecord::default())] });
        let committed = match entry.payload {
            Payload::LeaderChange(leader) => Committed::LeaderChange(LeaderChange { epoch, offset, leader: leader.unwrap_or(-1) }),
            Payload::Records(records) => Committed::Entry(Entry { epoch, offset, records }),
            Payload::Voters(membership) => {
                self.store.progress().get().voters.push(StoredMembership::new(Some(id), membership));
                nothing()
            }
            Payload::Staged(_) | Payload::Refused => {
                outcome = Outcome::Refused;
                nothing()
            }
        };
        (self.applied, self.next) = (Some(id), offset + count);
        self.store.progress().get().committed = self.next;
        // The reader of the stream may have stopped; the entry is committed all the same.
        let _ = self.committed.send(committed);
        outcome
    }
}

impl RaftStateMachine<Quorum> for Machine {
    type SnapshotBuilder = Written;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.store.progress().voters()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(entries.into_iter().map(|entry| self.apply_one(entry)).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Written {
        Written(self.store.clone())
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<StoredSnapshot>, StorageError> {
        Ok(Box::new(StoredSnapshot::Received(Vec::new())))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Box<StoredSnapshot>) -> Result<(), StorageError> {
        let (stored, last) = (meta.clone(), meta.last_log_id);
        let installed = self.store.blocking(move |file| file.install(&stored, &snapshot)).await.map_err(unwritable)?;
        (self.applied, self.next) = (last, installed.end);
        let _ = self.committed.send(Committed::Snapshot(installed));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Quorum>>, StorageError> {
        newest(&self.store).await
    }
}

async fn newest(store: &Store) -> Result<Option<Snapshot<Quorum>>, StorageError> {
    let newest = store.blocking(|file| file.newest()).await.map_err(unreadable)?;
    Ok(newest.map(|(meta, snapshot)| Snapshot { meta, snapshot: Box::new(snapshot) }))
}

/// The snapshot that the driver has written: building it is reading it.
pub(super) struct Written(Store);

impl RaftSnapshotBuilder<Quorum> for Written {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Quorum>, StorageError> {
        let none = || StorageIOError::read_snapshot(None, AnyError::new(&Error::Storage("no snapshot is written yet".into())));
        newest(&self.0).await?.ok_or_else(|| none().into())
    }
}
