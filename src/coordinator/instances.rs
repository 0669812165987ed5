//! The instances of a coordinator: one state machine for each partition of its topic that is on this broker.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tracing::error;

use crate::env::panic_message;
use crate::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Uuid};
use crate::partition::{self, Appended, Partitions, Position, Replica, Verification};
use crate::protocol::ErrorCode;
use crate::records::{BatchBuilder, EpochRule, Marker, NewRecord};

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
    /// Its term has ended, and the instance of the new term is not loaded yet: [`Instances::outdated`] requests that.
    Outdated,
    /// This broker does not lead the partition.
    Absent,
    /// The partition is on this broker and could not be read in this term, or could not be opened.
    Failed(Option<Term>),
    /// The load panicked in this term: the partition contains what the state machine does not accept. It is not loaded again in this term.
    Broken(Term),
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
    /// The end of the last record that was read or stored, in the epoch of the term.
    position: Position,
}

impl<S> Active<S> {
    /// The term of the instance.
    pub(super) fn term(&self) -> Term {
        self.term
    }

    /// Everything that the instance has read and stored. Waiting for it does not hold the instance's lock.
    pub(super) fn stored(&self) -> Stored {
        Stored { replica: self.replica.clone(), position: self.position }
    }

    /// Stores records in as few batches as possible; returns the offset of each record.
    pub(super) fn store(
        &mut self,
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
            let appended = self.store_batch(batch, transaction, now_ms)?;
            let (first, before) = (appended.base_offset, offsets.last().copied());
            assert!(before.is_none_or(|before| before < first), "{} gave offset {first} after {before:?}", self.replica.id());
            offsets.extend((0..batch.len() as i64).map(|at| first.plus(at)));
            self.position = appended.position;
        }
        Ok(offsets)
    }

    fn store_batch(&self, records: &[KeyValue], transaction: Option<InTransaction<'_>>, now_ms: i64) -> Result<Appended, ErrorCode> {
        let replica = &self.replica;
        let mut builder =
            records.iter().fold(BatchBuilder::new(), |builder, (key, value)| builder.record(NewRecord::keyed(key, value.as_deref())));
        let mut verification = None;
        if let Some(of) = transaction {
            builder = builder.producer(of.producer_id.0, of.producer_epoch.0, -1).transactional();
            verification = of.verification;
        }
        match replica.append_in(self.term.leader_epoch, builder.build_own(now_ms), verification, now_ms) {
            Ok(appended) => Ok(appended),
            Err(partition::Error::Closed(_) | partition::Error::NotLeader(_)) => Err(ErrorCode::NotCoordinator),
            Err(partition::Error::Storage(partition::StorageError::ProducerFenced { .. })) => Err(ErrorCode::InvalidProducerEpoch),
            Err(partition::Error::Storage(partition::StorageError::TransactionState { .. })) => Err(ErrorCode::InvalidTxnState),
            Err(error) => {
                error!(%error, partition = %replica.id(), "a coordinator's record could not be stored");
                Err(ErrorCode::CoordinatorNotAvailable)
            }
        }
    }

    /// Writes the marker of a transaction; returns its position.
    pub(super) fn end_transaction(&mut self, marker: &Marker, rule: EpochRule, now_ms: i64) -> Result<Position, partition::Error> {
        let ended = self.replica.end_transaction(marker, rule, now_ms)?;
        // In another epoch the instance is outdated, and what it has stored is not known to be stored any more.
        if ended.position.epoch == self.term.leader_epoch {
            self.position = ended.position;
        }
        Ok(ended.position)
    }

    fn is_current(&self) -> bool {
        !self.replica.is_closed() && self.replica.is_leader() && self.replica.leader_epoch() == self.term.leader_epoch
    }
}

/// A position up to which a replica has stored records, in the epoch in which they were stored: in a later epoch they may have been truncated, and
/// then other records are below the same offset.
///
/// It holds the replica and not the partition's name: if the topic is deleted and created again during a wait, commits of the new partition must not
/// acknowledge records that were written to the old one.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    replica: Arc<Replica>,
    position: Position,
}

impl Stored {
    /// The position of an append to this replica.
    pub(super) fn at(replica: Arc<Replica>, position: Position) -> Stored {
        Stored { replica, position }
    }

    /// Waits until all of it is committed, so that a power loss cannot revert a change that was acknowledged.
    pub(super) async fn settled(self) -> Result<(), ErrorCode> {
        let failed = |error| match error {
            partition::Error::Closed(_) | partition::Error::NotLeader(_) => ErrorCode::NotCoordinator,
            _ => ErrorCode::CoordinatorNotAvailable,
        };
        self.replica.committed(self.position).await.map_err(failed)
    }
}

/// A record's key and value; without a value it is a tombstone.
pub(super) type KeyValue = (Bytes, Option<Bytes>);

/// All instances on this broker.
pub(super) struct Instances<S> {
    topic: &'static str,
    partitions: Arc<Partitions>,
    all: Vec<Mutex<Status<S>>>,
    outdated: Notify,
    /// Why instances could not be loaded, so that each reason is logged once.
    reasons: Mutex<BTreeMap<i32, String>>,
}

impl<S> Instances<S> {
    /// Creates the instances; none is loaded yet.
    pub(super) fn new(topic: &'static str, partitions: Arc<Partitions>, count: i32) -> Instances<S> {
        let all = (0..count).map(|_| Mutex::new(Status::Unloaded)).collect();
        Instances { topic, partitions, all, outdated: Notify::new(), reasons: Mutex::default() }
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
    ///
    /// If the load of an instance panics, only this instance fails: what is stored is input, and no part of the state is shared before it is installed.
    pub(super) fn load(&self, load: impl Fn(&Replica) -> Result<S, partition::Error>) {
        let work: Vec<_> = (0..self.count()).filter_map(|number| self.begin_loading(number)).collect();
        for (number, replica, term) in work {
            let loaded = catch_unwind(AssertUnwindSafe(|| load(&replica)));
            self.end_loading(number, replica, term, loaded);
        }
    }

    fn begin_loading(&self, number: i32) -> Option<(i32, Arc<Replica>, Term)> {
        let mut status = self.lock(number);
        let replica = match self.partitions.find(self.topic, number) {
            _ if matches!(*status, Status::Resigned) => return None,
            Ok(replica) if !replica.is_closed() && replica.is_leader() => replica,
            Ok(_) | Err(partition::Error::Unknown(_)) => {
                *status = Status::Absent;
                return None;
            }
            Err(_) => {
                *status = Status::Failed(None);
                return None;
            }
        };
        let term = Term::of(&replica);
        let (before, is_current) = match &*status {
            Status::Loading(term) | Status::Broken(term) => (Some(*term), true),
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

    fn end_loading(&self, number: i32, replica: Arc<Replica>, term: Term, loaded: std::thread::Result<Result<S, partition::Error>>) {
        let mut status = self.lock(number);
        // During the load the topic was deleted (and perhaps created again), or the broker is stopping: the state that was read is discarded.
        if !matches!(&*status, Status::Loading(loading) if *loading == term) {
            return;
        }
        let position = replica.position().ok().filter(|position| position.epoch == term.leader_epoch);
        *status = match (loaded, position) {
            _ if replica.is_closed() => Status::Absent,
            // The leader epoch was raised during the load.
            (_, None) => {
                self.outdated.notify_one();
                Status::Outdated
            }
            (Ok(Ok(state)), Some(position)) => {
                self.reasons().remove(&number);
                Status::Active(Box::new(Active { state, replica, term, position }))
            }
            (Ok(Err(error)), Some(_)) => {
                self.not_loaded(number, error.to_string());
                Status::Failed(Some(term))
            }
            (Err(panic), Some(_)) => {
                self.not_loaded(number, format!("its records contradict each other: {}", panic_message(&*panic)));
                Status::Broken(term)
            }
        };
    }

    fn not_loaded(&self, number: i32, error: String) {
        let before = self.reasons().insert(number, error.clone());
        if before.as_ref() != Some(&error) {
            error!(topic = self.topic, partition = number, error, "the state of a coordinator could not be loaded");
        }
    }

    fn reasons(&self) -> MutexGuard<'_, BTreeMap<i32, String>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a partition that this broker leads has not been loaded in its current term: its topic was not created by this coordinator, or its
    /// leader epoch was raised. Before the first load, which the broker's start begins, there is none.
    pub(super) fn has_unloaded(&self) -> bool {
        (0..self.count()).any(|number| self.is_unloaded(number))
    }

    fn is_unloaded(&self, number: i32) -> bool {
        let replica = self.partitions.get(self.topic, number).filter(|replica| !replica.is_closed() && replica.is_leader());
        let Some(term) = replica.map(|replica| Term::of(&replica)) else { return false };
        match &*self.lock(number) {
            Status::Absent | Status::Outdated => true,
            Status::Loading(loading) => *loading != term,
            Status::Active(active) => active.term != term,
            Status::Failed(tried) => *tried != Some(term),
            Status::Broken(tried) => *tried != term,
            Status::Unloaded | Status::Resigned => false,
        }
    }

    /// Waits until an instance must be loaded because the leader epoch of its partition was raised.
    pub(super) async fn outdated(&self) {
        self.outdated.notified().await;
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
            Status::Active(_) => {
                *status = Status::Outdated;
                self.outdated.notify_one();
            }
            _ => {}
        }
        Err(match &*status {
            Status::Absent if self.partitions.get(self.topic, number).is_some() => Silence::Untouched,
            Status::Absent => Silence::Absent,
            Status::Failed(_) | Status::Broken(_) => Silence::Failed,
            Status::Resigned => Silence::Resigned,
            Status::Unloaded | Status::Outdated | Status::Loading(_) | Status::Active(_) => Silence::Loading,
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

    /// Resigns when the result is dropped: also if the task that owns the instances panics or is dropped.
    pub(super) fn resign_at_end(&self) -> impl Drop + '_ {
        ResignsAtEnd(self)
    }

    fn lock(&self, number: i32) -> MutexGuard<'_, Status<S>> {
        self.all[number as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ResignsAtEnd<'a, S>(&'a Instances<S>);

impl<S> Drop for ResignsAtEnd<'_, S> {
    fn drop(&mut self) {
        self.0.resign();
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

#[cfg(test)]
mod tests {
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
        create_as(partitions, id, TopicPartition::new(TOPIC, 0));
    }

    fn create_as(partitions: &Partitions, id: u8, partition: TopicPartition) {
        let new = NewReplica {
            id: partition,
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

    /// Loads the instance, and stores a record.
    fn put(instances: &Instances<Uuid>) -> Stored {
        instances.load(|replica| Ok(replica.topic_id()));
        let mut access = instances.access(0).unwrap();
        access.store(&[(Bytes::from_static(b"k"), None)], None, NOW).unwrap();
        access.stored()
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

    #[test]
    fn a_load_that_panics_fails_one_instance_and_is_not_repeated_in_its_term() {
        // Stored bytes broke an assertion, and the broker did not start any more.
        let partitions = partitions(Durability::Default);
        let instances = Instances::new(TOPIC, partitions.clone(), 2);
        create(&partitions, 1);
        create_as(&partitions, 1, TopicPartition::new(TOPIC, 1));
        let loads = AtomicI32::new(0);
        let load = |_: &Replica| -> Result<Uuid, partition::Error> {
            loads.fetch_add(1, Ordering::Relaxed);
            panic!("the records contradict each other")
        };
        instances.load(|replica| if replica.id().partition == 0 { load(replica) } else { Ok(replica.topic_id()) });
        instances.load(load);
        assert_eq!((loaded_from(&instances), loads.load(Ordering::Relaxed)), (Err(Silence::Failed), 1));
        assert_eq!(instances.access(0).err(), Some(ErrorCode::NotCoordinator));
        assert!(instances.look(1).is_ok(), "the others are loaded");
        partitions.get(TOPIC, 0).unwrap().become_leader(LeaderEpoch(1), &[]).unwrap();
        instances.load(|replica| Ok(replica.topic_id()));
        assert!(loaded_from(&instances).is_ok(), "the next term tries again");
    }

    #[tokio::test]
    async fn a_new_topics_commits_acknowledge_nothing_of_the_deleted_one() {
        // KAFKA-20115: a write is pending when its topic is deleted. The wait was for the partition's name, so a commit of the new topic acknowledged
        // the write, and data that the client believed to be stored was lost.
        let partitions = partitions(Durability::Fsync);
        let instances = Instances::new(TOPIC, partitions.clone(), 1);
        create(&partitions, 1);
        let pending = put(&instances);
        delete(&partitions);
        create(&partitions, 2);
        let fresh = put(&instances);
        partitions.commit(0).unwrap();
        assert_eq!(fresh.settled().await, Ok(()));
        assert_eq!(pending.settled().await, Err(ErrorCode::NotCoordinator));
    }

    /// Another broker leads in between, and this one leads again; the log is truncated to `end` meanwhile.
    fn raise_epoch(partitions: &Partitions, end: i64) {
        let replica = partitions.get(TOPIC, 0).unwrap();
        let epoch = replica.leader_epoch().0;
        replica.become_follower(LeaderEpoch(epoch + 1)).unwrap();
        partitions.truncate(&replica, Offset(end)).unwrap();
        replica.become_leader(LeaderEpoch(epoch + 2), &[]).unwrap();
    }

    #[tokio::test]
    async fn a_raised_leader_epoch_outdates_an_instance_and_has_it_loaded() {
        // Its groups answered for ever that they are being loaded: only a partition that was absent was loaded.
        let partitions = partitions(Durability::Default);
        let instances = Instances::new(TOPIC, partitions.clone(), 1);
        create(&partitions, 1);
        let load = || instances.load(|replica| Ok(replica.topic_id()));
        load();
        assert!(!instances.has_unloaded());
        raise_epoch(&partitions, 0);
        assert!(instances.has_unloaded(), "before anybody looks");
        assert_eq!(loaded_from(&instances), Err(Silence::Loading));
        instances.outdated().await;
        assert!(instances.has_unloaded(), "after somebody looked");
        load();
        assert!(loaded_from(&instances).is_ok() && !instances.has_unloaded());
        // Raised during a load: what was read is discarded.
        raise_epoch(&partitions, 0);
        instances.load(|replica| {
            raise_epoch(&partitions, 0);
            Ok(replica.topic_id())
        });
        assert_eq!((loaded_from(&instances), instances.has_unloaded()), (Err(Silence::Loading), true));
        instances.outdated().await;
        load();
        assert!(loaded_from(&instances).is_ok());
        // A follower is no coordinator, and loads nothing.
        partitions.get(TOPIC, 0).unwrap().become_follower(LeaderEpoch(99)).unwrap();
        assert_eq!(loaded_from(&instances), Err(Silence::Loading), "until it is noticed");
        load();
        assert_eq!((loaded_from(&instances), instances.has_unloaded()), (Err(Silence::Untouched), false));
    }

    #[tokio::test]
    async fn a_wait_is_for_what_the_instance_stored_in_its_own_epoch() {
        // The wait was for the log end in the epoch at the time of the wait, so it acknowledged a record that was truncated.
        let partitions = partitions(Durability::Fsync);
        let instances = Instances::new(TOPIC, partitions.clone(), 1);
        create(&partitions, 1);
        instances.load(|replica| Ok(replica.topic_id()));
        let mut access = instances.access(0).unwrap();
        let record = [(Bytes::from_static(b"k"), None)];
        access.store(&record, None, NOW).unwrap();
        raise_epoch(&partitions, 0);
        let stored = access.stored();
        assert_eq!(access.store(&record, None, NOW), Err(ErrorCode::NotCoordinator), "decided upon what is not stored any more");
        drop(access);
        let fresh = put(&instances);
        partitions.commit(0).unwrap();
        assert_eq!((stored.settled().await, fresh.settled().await), (Err(ErrorCode::NotCoordinator), Ok(())));
        // And a record behind its own does not delay it.
        let own = put(&instances);
        partitions.commit(0).unwrap();
        let batch = BatchBuilder::new().record(NewRecord::value(b"x")).build_own(NOW);
        partitions.get(TOPIC, 0).unwrap().append(batch, partition::Origin::Coordinator, None, NOW).unwrap();
        let settled = tokio::time::timeout(std::time::Duration::ZERO, own.settled()).await;
        assert_eq!(settled, Ok(Ok(())));
    }
}
