//! The instances of a coordinator: one state machine for each partition of its topic that is on this broker.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tracing::error;

use crate::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Uuid};
use crate::partition::{self, Origin, Partitions, Position, Replica, Verification};
use crate::protocol::ErrorCode;
use crate::records::{BatchBuilder, NewRecord};

/// The maximum bytes of keys and values in one batch; a longer list of records is split into several batches.
const BATCH_BYTES: usize = 256 * 1024;

/// One term of a partition: its topic, and the leader epoch in which this broker leads it. An instance belongs to one term and never outlives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term {
    topic_id: Uuid,
    leader_epoch: LeaderEpoch,
}

impl Term {
    fn of(replica: &Replica) -> Term {
        Term { topic_id: replica.topic_id(), leader_epoch: replica.leader_epoch() }
    }

    /// The coordinator epoch of this term, which is written into its markers.
    pub(super) fn coordinator_epoch(self) -> i32 {
        self.leader_epoch.0
    }
}

/// The state of an instance.
enum Status<S> {
    /// No load was attempted yet; it is not known whether the partition is on this broker.
    Unloaded,
    /// The partition is being read in this term.
    Loading(Term),
    /// Loaded: requests are served.
    Active(Box<Active<S>>),
    /// The partition does not exist on this broker.
    Absent,
    /// The partition is on this broker and cannot be read.
    Failed,
    /// The broker is stopping: nothing is loaded any more.
    Resigned,
}

/// Why an instance cannot serve requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// Its partition is being read.
    Loading,
    /// The partition does not exist.
    Absent,
    /// Its partition is on this broker and has not been loaded yet; FindCoordinator loads it.
    Untouched,
    /// Its partition is offline or could not be read.
    Failed,
    /// The broker is stopping.
    Resigned,
}

/// A loaded instance.
pub(super) struct Active<S> {
    /// The state that its records add up to.
    pub(super) state: S,
    /// The replica that stores them.
    pub(super) replica: Arc<Replica>,
    term: Term,
}

impl<S> Active<S> {
    /// The term of the instance.
    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// The position up to which records are stored. It is read under the instance's lock; waiting for it does not hold the lock.
    pub(super) fn stored(&self) -> Stored {
        Stored::until_now(&self.replica)
    }

    fn is_current(&self) -> bool {
        !self.replica.is_closed() && self.replica.leader_epoch() == self.term.leader_epoch
    }
}

/// A position up to which a replica has stored records.
///
/// It holds the replica and not the partition's name: if the topic is deleted and created again during a wait, commits of the new partition must not
/// acknowledge records that were written to the old one.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    replica: Arc<Replica>,
    /// The log end offset with its epoch; none if the replica is not the leader.
    position: Option<Position>,
}

impl Stored {
    /// The replica's current position.
    pub(super) fn until_now(replica: &Arc<Replica>) -> Stored {
        Stored { replica: replica.clone(), position: replica.position().ok() }
    }

    /// Waits until all of it is committed, so that a power loss cannot revert a change that was acknowledged.
    pub(super) async fn settled(self) -> Result<(), ErrorCode> {
        let failed = |error| match error {
            partition::Error::Closed(_) | partition::Error::NotLeader(_) => ErrorCode::NotCoordinator,
            _ => ErrorCode::CoordinatorNotAvailable,
        };
        self.replica.committed(self.position.ok_or(ErrorCode::NotCoordinator)?).await.map_err(failed)
    }
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
    /// Creates the instances; none is loaded yet.
    pub(super) fn new(topic: &'static str, partitions: Arc<Partitions>, count: i32) -> Instances<S> {
        Instances { topic, partitions, all: (0..count).map(|_| Mutex::new(Status::Unloaded)).collect() }
    }

    /// The number of partitions of the topic.
    pub(super) fn count(&self) -> i32 {
        self.all.len() as i32
    }

    /// Loads every instance whose partition is on this broker and that is not loaded or being loaded in the partition's current term. An instance of
    /// a deleted partition is dropped, which ends all waits for it. Blocks on reads.
    ///
    /// Several threads may load at once, and topics may be deleted and created during a load. This is safe because an instance is installed only if
    /// its status still is `Loading` with the same term.
    pub(super) fn load(&self, load: impl Fn(&Replica) -> Result<S, partition::Error>) {
        let work: Vec<_> = (0..self.count()).filter_map(|number| self.begin_loading(number)).collect();
        for (number, replica, term) in work {
            let loaded = load(&replica);
            self.end_loading(number, replica, term, loaded);
        }
    }

    fn begin_loading(&self, number: i32) -> Option<(i32, Arc<Replica>, Term)> {
        let mut status = self.lock(number);
        let replica = match self.partitions.find(self.topic, number) {
            _ if matches!(*status, Status::Resigned) => return None,
            Ok(replica) if !replica.is_closed() => replica,
            Ok(_) | Err(partition::Error::Unknown(_)) => {
                *status = Status::Absent;
                return None;
            }
            Err(_) => {
                *status = Status::Failed;
                return None;
            }
        };
        let term = Term::of(&replica);
        let (before, is_current) = match &*status {
            Status::Loading(term) => (Some(*term), true),
            Status::Active(active) => (Some(active.term), active.is_current()),
            _ => (None, false),
        };
        if before == Some(term) && is_current {
            return None;
        }
        if let Some(before) = before.filter(|before| before.topic_id == term.topic_id) {
            let (topic, before, now) = (self.topic, before.leader_epoch.0, term.leader_epoch.0);
            assert!(before <= now, "the leader epoch of {topic}-{number} fell from {before} to {now} while its coordinator was loaded");
        }
        *status = Status::Loading(term);
        Some((number, replica, term))
    }

    fn end_loading(&self, number: i32, replica: Arc<Replica>, term: Term, loaded: Result<S, partition::Error>) {
        let mut status = self.lock(number);
        // During the load the topic was deleted (and perhaps created again), or the broker is stopping: the state that was read is discarded.
        if !matches!(&*status, Status::Loading(loading) if *loading == term) {
            return;
        }
        *status = match loaded {
            Ok(state) if !replica.is_closed() => Status::Active(Box::new(Active { state, replica, term })),
            Ok(_) | Err(partition::Error::Closed(_)) => Status::Absent,
            Err(error) => {
                error!(topic = self.topic, partition = number, %error, "the state of a coordinator could not be loaded");
                Status::Failed
            }
        };
    }

    /// Whether a partition on this broker has not been loaded, which happens if its topic was not created by this coordinator.
    pub(super) fn has_unloaded(&self) -> bool {
        (0..self.count()).any(|number| matches!(*self.lock(number), Status::Absent) && self.partitions.get(self.topic, number).is_some())
    }

    /// Drops the instances of deleted partitions, which ends all waits for them.
    pub(super) fn unload_deleted(&self) {
        (0..self.count()).for_each(|number| drop(self.access(number)));
    }

    /// The instance of a partition, if it is loaded on this broker.
    pub(super) fn access(&self, number: i32) -> Result<Access<'_, S>, ErrorCode> {
        self.look(number).map_err(|silence| match silence {
            Silence::Loading => ErrorCode::CoordinatorLoadInProgress,
            Silence::Absent | Silence::Untouched | Silence::Failed | Silence::Resigned => ErrorCode::NotCoordinator,
        })
    }

    /// The instance of a partition, or why it cannot serve requests.
    pub(super) fn look(&self, number: i32) -> Result<Access<'_, S>, Silence> {
        let mut status = self.lock(number);
        match &*status {
            Status::Active(active) if active.is_current() => return Ok(Access(status)),
            // Dropping the instance drops the senders of all waiting requests.
            Status::Active(active) if active.replica.is_closed() => *status = Status::Absent,
            Status::Active(_) => *status = Status::Unloaded,
            _ => {}
        }
        Err(match &*status {
            Status::Absent if self.partitions.get(self.topic, number).is_some() => Silence::Untouched,
            Status::Absent => Silence::Absent,
            Status::Failed => Silence::Failed,
            Status::Resigned => Silence::Resigned,
            Status::Unloaded | Status::Loading(_) | Status::Active(_) => Silence::Loading,
        })
    }

    /// All loaded instances on this broker.
    pub(super) fn active(&self) -> impl Iterator<Item = (i32, Access<'_, S>)> {
        (0..self.count()).filter_map(|number| Some((number, self.access(number).ok()?)))
    }

    /// Resigns as coordinator: all instances are dropped, which ends all waits for them.
    pub(super) fn resign(&self) {
        (0..self.count()).for_each(|number| *self.lock(number) = Status::Resigned);
    }

    fn lock(&self, number: i32) -> MutexGuard<'_, Status<S>> {
        self.all[number as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A locked instance that is active.
pub(super) struct Access<'a, S>(MutexGuard<'a, Status<S>>);

impl<S> Deref for Access<'_, S> {
    type Target = Active<S>;

    fn deref(&self) -> &Active<S> {
        match &*self.0 {
            Status::Active(active) => active,
            _ => unreachable!("checked when the lock was taken"),
        }
    }
}

impl<S> DerefMut for Access<'_, S> {
    fn deref_mut(&mut self) -> &mut Active<S> {
        match &mut *self.0 {
            Status::Active(active) => active,
            _ => unreachable!("checked when the lock was taken"),
        }
    }
}

/// The producer whose transaction the records are part of.
#[derive(Debug, Clone, Copy)]
pub(super) struct InTransaction<'a> {
    pub(super) producer_id: ProducerId,
    pub(super) producer_epoch: ProducerEpoch,
    /// Allows the transaction to begin in this partition; see [`Replica::append`].
    pub(super) verification: Option<&'a Verification>,
}

/// Stores records in as few batches as possible; returns the offset of each record.
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
        let before = offsets.last().copied();
        assert!(before.is_none_or(|before| before < first), "{} gave offset {first} after {before:?}", replica.id());
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::atomic::{AtomicI32, Ordering};

    use super::*;
    use crate::env::{Env, MemoryDisk};
    use crate::model::{NodeId, TopicPartition};
    use crate::partition::{Durability, Keeping, NewReplica, TopicSettings};
    use crate::storage::LogDirectory;

    const TOPIC: &str = "__topic";
    const NOW: i64 = 1_700_000_000_000;

    fn partitions(durability: Durability) -> Arc<Partitions> {
        let real = Env::real();
        let env = Env { disk: Arc::new(MemoryDisk::new(real.clock.clone())), ..real };
        let directory = LogDirectory::open(env.disk.clone(), &*env.entropy, Path::new("/data"), NodeId(1), Some("cluster")).unwrap();
        Arc::new(Partitions::new(env, vec![directory], Vec::new(), Keeping { durability, files_max: 100 }))
    }

    /// Creates the topic with an id.
    fn create(partitions: &Partitions, id: u8) {
        let new = NewReplica {
            id: TopicPartition::new(TOPIC, 0),
            topic_id: Uuid::from_random([id; 16]),
            leader_epoch: LeaderEpoch(0),
            settings: TopicSettings::of(&BTreeMap::new(), &BTreeMap::new()),
            is_known: false,
        };
        assert_eq!(partitions.lead(vec![new]).replicas, 1);
    }

    fn delete(partitions: &Partitions) {
        let _left = partitions.delete(&[TOPIC.into()]);
    }

    fn put(partitions: &Partitions) -> Stored {
        let replica = partitions.get(TOPIC, 0).unwrap();
        store(&replica, &[(Bytes::from_static(b"k"), None)], None, NOW).unwrap();
        Stored::until_now(&replica)
    }

    /// The id of the topic that the instance was loaded from, or why it cannot serve requests.
    fn loaded_from(instances: &Instances<Uuid>) -> Result<Uuid, Silence> {
        instances.look(0).map(|access| access.state)
    }

    #[test]
    fn an_instance_is_loaded_once_in_a_term_and_dropped_with_its_topic() {
        // KAFKA-15468, KAFKA-16118, KAFKA-19274.
        let partitions = partitions(Durability::Default);
        let instances = Instances::new(TOPIC, partitions.clone(), 1);
        let loads = AtomicI32::new(0);
        let load = || {
            instances.load(|replica| {
                loads.fetch_add(1, Ordering::Relaxed);
                Ok(replica.topic_id())
            });
        };
        assert_eq!(loaded_from(&instances), Err(Silence::Loading), "nobody has looked yet");
        load();
        assert_eq!(loaded_from(&instances), Err(Silence::Absent));
        assert!(!instances.has_unloaded());
        create(&partitions, 1);
        assert_eq!(loaded_from(&instances), Err(Silence::Untouched));
        assert_eq!(instances.access(0).err(), Some(ErrorCode::NotCoordinator), "its client looks for the coordinator, which loads it");
        assert!(instances.has_unloaded());
        load();
        load();
        assert_eq!(loaded_from(&instances), Ok(Uuid::from_random([1; 16])));
        assert_eq!(loads.load(Ordering::Relaxed), 1);
        delete(&partitions);
        assert_eq!(loaded_from(&instances), Err(Silence::Absent), "also before anybody loads again");
        create(&partitions, 2);
        load();
        assert_eq!(loaded_from(&instances), Ok(Uuid::from_random([2; 16])), "the same epoch of another topic");
        instances.resign();
        load();
        assert_eq!(loaded_from(&instances), Err(Silence::Resigned), "a broker that stops loads nothing any more");
    }

    #[test]
    fn what_was_read_of_a_deleted_topic_never_takes_the_place_of_the_new_one() {
        // The topic is deleted while it is being loaded; then it is created again, and another thread loads it first.
        for is_created_again in [false, true] {
            let partitions = partitions(Durability::Default);
            let instances = Instances::new(TOPIC, partitions.clone(), 1);
            create(&partitions, 1);
            instances.load(|outer| {
                delete(&partitions);
                if is_created_again {
                    create(&partitions, 2);
                }
                instances.load(|inner| Ok(inner.topic_id()));
                Ok(outer.topic_id())
            });
            let expected = if is_created_again { Ok(Uuid::from_random([2; 16])) } else { Err(Silence::Absent) };
            assert_eq!(loaded_from(&instances), expected);
        }
    }

    #[test]
    fn a_load_that_fails_is_tried_again_and_says_so_meanwhile() {
        let partitions = partitions(Durability::Default);
        let instances = Instances::new(TOPIC, partitions.clone(), 1);
        create(&partitions, 1);
        instances.load(|replica| Err(partition::Error::Offline(replica.id().clone())));
        assert_eq!(loaded_from(&instances), Err(Silence::Failed));
        instances.load(|replica| Ok(replica.topic_id()));
        assert!(loaded_from(&instances).is_ok());
    }

    #[tokio::test]
    async fn a_new_topics_commits_acknowledge_nothing_of_the_deleted_one() {
        // KAFKA-20115: a write is pending when its topic is deleted. The wait was for the partition's name, so a commit of the new topic acknowledged
        // the write, and data that the client believed to be stored was lost.
        let partitions = partitions(Durability::Fsync);
        create(&partitions, 1);
        let pending = put(&partitions);
        delete(&partitions);
        create(&partitions, 2);
        let fresh = put(&partitions);
        partitions.commit(0).unwrap();
        assert_eq!(fresh.settled().await, Ok(()));
        assert_eq!(pending.settled().await, Err(ErrorCode::NotCoordinator));
    }
}
