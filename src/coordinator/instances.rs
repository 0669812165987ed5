//! The instances of a coordinator: a state machine for each partition of its topic that is here.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tracing::error;

use crate::model::{Offset, ProducerEpoch, ProducerId};
use crate::partition::{self, Origin, Partitions, Replica, Verification};
use crate::protocol::ErrorCode;
use crate::records::{BatchBuilder, NewRecord};

/// Bytes of keys and values that one batch takes; a longer list of records becomes several.
const BATCH_BYTES: usize = 256 * 1024;

/// Where an instance stands.
enum Status<S> {
    /// Nobody has looked yet whether the partition is here.
    Unloaded,
    /// Reads its partition.
    Loading,
    /// Answers.
    Active(Box<Active<S>>),
    /// The partition is not here, or not any more.
    Resigned,
}

/// An instance that answers.
pub(super) struct Active<S> {
    /// What its records add up to.
    pub(super) state: S,
    /// Where they are.
    pub(super) replica: Arc<Replica>,
}

/// A record's key and value; without a value it is a tombstone.
pub(super) type KeyValue = (Bytes, Option<Bytes>);

/// All instances on this broker.
pub(super) struct Instances<S> {
    topic: &'static str,
    partitions: Arc<Partitions>,
    all: Vec<Mutex<Status<S>>>,
}

impl<S> Instances<S> {
    /// Instances that are still to be loaded.
    pub(super) fn new(topic: &'static str, partitions: Arc<Partitions>, count: i32) -> Instances<S> {
        Instances { topic, partitions, all: (0..count).map(|_| Mutex::new(Status::Unloaded)).collect() }
    }

    /// The number of partitions of the topic.
    pub(super) fn count(&self) -> i32 {
        self.all.len() as i32
    }

    /// Loads every instance whose partition is here and that is not active on it. Blocks while it reads.
    pub(super) fn load(&self, load: impl Fn(&Replica) -> Result<S, partition::Error>) {
        let mut work = Vec::new();
        for number in 0..self.count() {
            let mut status = self.lock(number);
            let Some(replica) = self.partitions.get(self.topic, number) else {
                if matches!(*status, Status::Unloaded) {
                    *status = Status::Resigned;
                }
                continue;
            };
            let loaded = matches!(&*status, Status::Active(active) if Arc::ptr_eq(&active.replica, &replica));
            if !loaded && !matches!(*status, Status::Loading) {
                *status = Status::Loading;
                work.push((number, replica));
            }
        }
        for (number, replica) in work {
            let loaded = load(&replica);
            *self.lock(number) = match loaded {
                Ok(state) => Status::Active(Box::new(Active { state, replica })),
                Err(error) => {
                    error!(topic = self.topic, partition = number, %error, "what a coordinator knows could not be loaded");
                    Status::Resigned
                }
            };
        }
    }

    /// An instance, where it answers here.
    pub(super) fn access(&self, number: i32) -> Result<Access<'_, S>, ErrorCode> {
        let status = self.lock(number);
        match &*status {
            Status::Active(active) if !active.replica.is_closed() => Ok(Access(status)),
            Status::Unloaded | Status::Loading => Err(ErrorCode::CoordinatorLoadInProgress),
            Status::Active(_) | Status::Resigned => Err(ErrorCode::NotCoordinator),
        }
    }

    /// All instances that answer here.
    pub(super) fn active(&self) -> impl Iterator<Item = (i32, Access<'_, S>)> {
        (0..self.count()).filter_map(|number| Some((number, self.access(number).ok()?)))
    }

    /// Everybody who waits is told that this broker coordinates no more.
    pub(super) fn resign(&self) {
        (0..self.count()).for_each(|number| *self.lock(number) = Status::Resigned);
    }

    fn lock(&self, number: i32) -> MutexGuard<'_, Status<S>> {
        self.all[number as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A locked instance that is known to be active.
pub(super) struct Access<'a, S>(MutexGuard<'a, Status<S>>);

impl<S> Deref for Access<'_, S> {
    type Target = Active<S>;

    fn deref(&self) -> &Active<S> {
        match &*self.0 {
            Status::Active(active) => active,
            Status::Unloaded | Status::Loading | Status::Resigned => unreachable!("checked when the lock was taken"),
        }
    }
}

impl<S> DerefMut for Access<'_, S> {
    fn deref_mut(&mut self) -> &mut Active<S> {
        match &mut *self.0 {
            Status::Active(active) => active,
            Status::Unloaded | Status::Loading | Status::Resigned => unreachable!("checked when the lock was taken"),
        }
    }
}

/// The producer in whose transaction records are stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct InTransaction<'a> {
    pub(super) producer_id: ProducerId,
    pub(super) producer_epoch: ProducerEpoch,
    /// Lets the transaction begin in this partition; see [`Replica::append`].
    pub(super) verification: Option<&'a Verification>,
}

/// Stores records, in as few batches as they fit in; the answer is the offset of each.
pub(super) fn store(
    replica: &Replica,
    records: &[KeyValue],
    transaction: Option<InTransaction<'_>>,
    now_ms: i64,
) -> Result<Vec<Offset>, ErrorCode> {
    let mut offsets = Vec::with_capacity(records.len());
    let mut rest = records;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |(key, value): &&KeyValue| {
            let before = bytes;
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            before == 0 || bytes <= BATCH_BYTES
        };
        let (batch, after) = rest.split_at(rest.iter().take_while(fits).count());
        rest = after;
        let first = store_batch(replica, batch, transaction, now_ms)?;
        offsets.extend((0..batch.len() as i64).map(|at| first.plus(at)));
    }
    Ok(offsets)
}

fn store_batch(replica: &Replica, records: &[KeyValue], transaction: Option<InTransaction<'_>>, now_ms: i64) -> Result<Offset, ErrorCode> {
    let mut builder =
        records.iter().fold(BatchBuilder::new(), |builder, (key, value)| builder.record(NewRecord::keyed(key, value.as_deref())));
    let mut verification = None;
    if let Some(of) = transaction {
        builder = builder.producer(of.producer_id.0, of.producer_epoch.0, -1).transactional();
        verification = of.verification;
    }
    match replica.append(builder.build_own(now_ms), Origin::Coordinator, verification, now_ms) {
        Ok(appended) => Ok(appended.base_offset),
        Err(partition::Error::Closed(_) | partition::Error::NotLeader(_)) => Err(ErrorCode::NotCoordinator),
        Err(partition::Error::Storage(partition::StorageError::ProducerFenced { .. })) => Err(ErrorCode::InvalidProducerEpoch),
        Err(partition::Error::Storage(partition::StorageError::TransactionState { .. })) => Err(ErrorCode::InvalidTxnState),
        Err(error) => {
            error!(%error, partition = %replica.id(), "a coordinator's record could not be stored");
            Err(ErrorCode::CoordinatorNotAvailable)
        }
    }
}

/// Waits until everything that is stored in a replica now is committed, so that no power cut takes back what somebody was told.
pub(super) async fn settled(replica: Arc<Replica>) -> Result<(), ErrorCode> {
    let failed = |error| match error {
        partition::Error::Closed(_) | partition::Error::NotLeader(_) => ErrorCode::NotCoordinator,
        _ => ErrorCode::CoordinatorNotAvailable,
    };
    let position = replica.position().map_err(failed)?;
    replica.committed(position).await.map_err(failed)
}
