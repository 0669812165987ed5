//! openraft's conformance suite for stores, on the real disk and on the one in memory.

use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::testing::{StoreBuilder, Suite};
use openraft::{OptionalSend, RaftSnapshotBuilder, Snapshot, StorageError as AnyStorageError};
use tokio::sync::mpsc;

use super::machine::{Machine, Written};
use super::store::{Store, unwritable};
use super::{LogEntry, LogFile, LogId, Outcome, Quorum, SnapshotMeta, StorageError, StoredMembership, StoredSnapshot};
use crate::cluster::{CommittedStream, MetadataImage};
use crate::env::{Env, MemoryDisk};

/// A state machine and the part of the driver: it follows the stream, and writes the snapshots. The suite applies entries that are in no log.
struct Driven {
    machine: Machine,
    store: Store,
    stream: CommittedStream,
    image: MetadataImage,
}

/// A builder that lets the driver write a snapshot first.
struct Building {
    written: Written,
    store: Store,
    image: MetadataImage,
    applied: (Option<LogId>, StoredMembership),
}

impl RaftSnapshotBuilder<Quorum> for Building {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Quorum>, StorageError> {
        let (end, records) = (self.image.offset + 1, self.image.to_records());
        let (Some(last), voters) = self.applied.clone() else {
            return Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: Box::new(StoredSnapshot::Received(Vec::new())) });
        };
        self.store.blocking(move |file| file.store_snapshot(end, last, &voters, &records)).await.map_err(unwritable)?;
        self.written.build_snapshot().await
    }
}

impl RaftStateMachine<Quorum> for Driven {
    type SnapshotBuilder = Building;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        self.machine.applied_state().await
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let outcomes = self.machine.apply(entries).await?;
        while let Ok(committed) = self.stream.try_recv() {
            self.image.apply_committed(&committed);
        }
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Building {
        let written = self.machine.get_snapshot_builder().await;
        let applied = self.machine.applied_state().await.unwrap();
        Building { written, store: self.store.clone(), image: self.image.clone(), applied }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<StoredSnapshot>, StorageError> {
        self.machine.begin_receiving_snapshot().await
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Box<StoredSnapshot>) -> Result<(), StorageError> {
        self.machine.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Quorum>>, StorageError> {
        self.machine.get_current_snapshot().await
    }
}

/// Makes stores, each in a directory of its own.
struct Stores(Env);

impl StoreBuilder<Quorum, Store, Driven, tempfile::TempDir> for Stores {
    async fn build(&self) -> Result<(tempfile::TempDir, Store, Driven), AnyStorageError<u64>> {
        let folder = tempfile::tempdir().unwrap();
        let (committed, stream) = mpsc::unbounded_channel();
        let file = LogFile::open(&self.0, folder.path(), &committed).map_err(unwritable)?;
        let store = Store::new(file, self.0.workers.clone(), 0);
        let machine = Machine::new(store.clone(), committed, None, 0);
        let driven = Driven { machine, store: store.clone(), stream, image: MetadataImage::default() };
        Ok((folder, store, driven))
    }
}

#[test]
fn the_store_passes_the_suite_of_openraft_on_a_real_disk() {
    Suite::test_all(Stores(Env::real())).unwrap();
}

#[test]
fn the_store_passes_the_suite_of_openraft_on_a_disk_in_memory() {
    let real = Env::real();
    let disk = Arc::new(MemoryDisk::new(real.clock.clone()));
    Suite::test_all(Stores(Env { disk, ..real })).unwrap();
}
