//! This broker's replica of a partition.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::open_directory::{Durability, OpenDirectory};
use super::progress::{Progress, Subscription, Wake};
use super::role::Role;
use super::verification::{Verification, Verifications};
use super::{Error, NewReplica, TopicSettings};
use crate::model::{LeaderEpoch, NodeId, Offset, ProducerId, TopicPartition, Uuid};
use crate::records::{CheckedBatch, EpochRule, Marker, check};
use crate::storage::{
    self, ActiveProducer, CommittedSlice, Error as StorageError, FirstBatch, FoundOffset, Log, LogReader, Origin, RecordsSlice,
};

/// Approximate size of a marker batch.
const MARKER_BYTES: u64 = 78;

/// Which records a reader can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// All committed records.
    ReadUncommitted,
    /// Committed records whose transactions have ended.
    ReadCommitted,
}

/// The offsets of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The log start offset.
    pub log_start: Offset,
    /// The log end offset.
    pub log_end: Offset,
    /// Records below it are on every in-sync replica.
    pub high_watermark: Offset,
    /// Records below it do not belong to an open transaction.
    pub last_stable: Offset,
    /// This replica's leader epoch.
    pub leader_epoch: LeaderEpoch,
}

impl View {
    /// The end offset for a consumer.
    pub fn end_for(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable,
        }
    }
}

/// Counters of appended and sent bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Records appended for producers.
    pub records_in: u64,
    /// Bytes of their batches.
    pub bytes_in: u64,
    /// Bytes of batches sent to consumers.
    pub bytes_out: u64,
}

/// An end of a leader's log in its epoch: [`Replica::committed`] waits until the records below it are committed. In another epoch, other
/// records may be below the same offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The offset after the last record.
    pub end: Offset,
    /// The leader epoch.
    pub epoch: LeaderEpoch,
}

/// The result of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The first record's offset; of a duplicate, that of the stored batch.
    pub base_offset: Offset,
    /// The batch's largest timestamp as stored.
    pub max_timestamp: i64,
    /// Whether the batch was stored before, and was not stored again.
    pub duplicate: bool,
    /// Once this is committed, the batch is. For a duplicate it is the log end: the stored batch may not be committed yet.
    pub position: Position,
}

/// The result of ending a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The marker's offset; none if it was stored before, and was not stored again.
    pub offset: Option<Offset>,
    /// Once this is committed, the marker is.
    pub position: Position,
}

/// A log and the role of its replica under one lock, so that an append and a change of role never run concurrently.
#[derive(Debug)]
pub(super) struct State {
    pub(super) log: Log,
    pub(super) role: Role,
}

/// One replica. The high watermark is separate state, which [`Role::high_watermark`] moves: with one replica to the log end, or under
/// [`Durability::Fsync`] to the end of the durable part. The last stable offset follows the high watermark, but not above the start of the first open
/// transaction.
#[derive(Debug)]
pub struct Replica {
    pub(super) id: TopicPartition,
    pub(super) topic_id: Uuid,
    /// Epoch and role in one number, so that both are read together; see [`standing`].
    standing: AtomicI64,
    pub(super) state: RwLock<State>,
    reader: Arc<LogReader>,
    log_start: AtomicI64,
    pub(super) log_end: AtomicI64,
    pub(super) taken: AtomicI64,
    pub(super) high_watermark: AtomicI64,
    last_stable: AtomicI64,
    verifications: Arc<Verifications>,
    settings: ArcSwap<TopicSettings>,
    pub(super) progress: Arc<Progress>,
    closed: AtomicBool,
    pub(super) home: Arc<OpenDirectory>,
    records_in: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Replica {
    /// A replica with this log and no role yet.
    pub(super) fn new(new: NewReplica, log: Log, home: Arc<OpenDirectory>) -> Replica {
        let NewReplica { id, topic_id, settings, .. } = new;
        let role = Role::Offline { epoch: LeaderEpoch(-1) };
        Replica {
            id,
            topic_id,
            standing: AtomicI64::new(standing(&role)),
            home,
            reader: log.reader().clone(),
            log_start: AtomicI64::new(0),
            log_end: AtomicI64::new(0),
            taken: AtomicI64::new(0),
            high_watermark: AtomicI64::new(0),
            last_stable: AtomicI64::new(0),
            verifications: Arc::default(),
            state: RwLock::new(State { log, role }),
            settings: ArcSwap::from_pointee(settings),
            progress: Arc::default(),
            closed: AtomicBool::new(false),
            records_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    /// Makes this replica the leader of `epoch`; `others` are the other members of the maximal in-sync set. The epoch and its start offset are
    /// noted in the log before any request is served. Requests that wait for records of an earlier epoch get an error.
    pub fn become_leader(&self, epoch: LeaderEpoch, others: &[NodeId]) -> Result<(), Error> {
        let mut state = self.write();
        let role = state.role.lead(&self.id, epoch, others)?;
        if epoch > state.role.epoch() {
            state.log.begin_epoch(epoch);
        }
        self.take_role(&mut state, role);
        drop(state);
        self.progress.step();
        Ok(())
    }

    /// Makes this replica a follower in `epoch`: producers cannot append any more, and waiting requests get an error.
    pub fn become_follower(&self, epoch: LeaderEpoch) -> Result<(), Error> {
        let mut state = self.write();
        let role = state.role.follow(epoch)?;
        self.take_role(&mut state, role);
        drop(state);
        self.progress.step();
        Ok(())
    }

    fn take_role(&self, state: &mut State, role: Role) {
        let (before, after) = (state.role.epoch(), role.epoch());
        assert!(before <= after, "the leader epoch of {} falls from {before} to {after}", self.id);
        state.role = role;
        self.standing.store(standing(&state.role), Ordering::Release);
        self.publish(state);
    }

    /// Checks a producer's batch and appends it. Readers see it, and it may be acknowledged, once it is [committed](Replica::committed).
    /// A batch that begins a transaction here requires a [`Verification`] that was begun before the request to the coordinator.
    pub fn produce(&self, bytes: &Bytes, origin: Origin, verification: Option<&Verification>, now_ms: i64) -> Result<Appended, Error> {
        let checked = check(bytes, &self.settings.load().rules(now_ms))?;
        self.append(checked, origin, verification, now_ms)
    }

    /// Appends a batch that was checked, or one of the broker's own.
    pub fn append(&self, batch: CheckedBatch, origin: Origin, verification: Option<&Verification>, now_ms: i64) -> Result<Appended, Error> {
        self.append_if(|_| true, batch, origin, verification, now_ms)
    }

    /// Appends a batch that was decided upon what is stored in the epoch `in_epoch`; [`Error::NotLeader`] in any other epoch, in which that may not be
    /// stored any more.
    pub fn append_in(
        &self,
        in_epoch: LeaderEpoch,
        batch: CheckedBatch,
        verification: Option<&Verification>,
        now_ms: i64,
    ) -> Result<Appended, Error> {
        self.append_if(|epoch| epoch == in_epoch, batch, Origin::Coordinator, verification, now_ms)
    }

    fn append_if(
        &self,
        may_append: impl FnOnce(LeaderEpoch) -> bool,
        batch: CheckedBatch,
        origin: Origin,
        verification: Option<&Verification>,
        now_ms: i64,
    ) -> Result<Appended, Error> {
        let (records, size) = (batch.header().records_count as u64, batch.header().size() as u64);
        let (producer, is_transactional) = (batch.header().producer_id, batch.header().is_transactional());
        let mut state = self.write();
        let epoch = self.check_leads(&state)?;
        if !may_append(epoch) {
            return Err(Error::NotLeader(self.id.clone()));
        }
        let log = &mut state.log;
        let begins = is_transactional && !log.producers().has_open_transaction(producer);
        if begins && !verification.is_some_and(|verification| verification.holds_for(producer)) {
            let what = "its coordinator has not added this partition to the transaction";
            return Err(StorageError::TransactionState { producer, what }.into());
        }
        let storage::Appended { base_offset, max_timestamp, duplicate } =
            log.append(batch, origin, epoch, now_ms).inspect_err(|error| self.failed(error))?;
        if log.holds_too_many() {
            // The append waits for the flush, as in Kafka: this is the purpose of flush.messages.
            self.home.sync(|| log.flush())?;
        }
        let end = log.log_end();
        assert!(base_offset < end, "a batch of {} is stored at {base_offset}, and the log ends at {end}", self.id);
        let appended = Appended { base_offset, max_timestamp, duplicate, position: Position { end, epoch } };
        self.publish(&mut state);
        drop(state);
        if !duplicate {
            self.records_in.fetch_add(records, Ordering::Relaxed);
            self.bytes_in.fetch_add(size, Ordering::Relaxed);
            self.home.appended(size);
            self.progress.step();
        }
        Ok(appended)
    }

    /// Must be called before the request to the coordinator of a producer's transaction; none if the transaction is already open here, so that no
    /// request is needed.
    pub fn begin_verification(&self, producer: ProducerId) -> Option<Verification> {
        let state = self.state();
        (!state.log.producers().has_open_transaction(producer)).then(|| self.verifications.begin(producer))
    }

    /// Ends a producer's transaction; see [`Log::end_transaction`]. It takes effect once it is [committed](Replica::committed).
    pub fn end_transaction(&self, marker: &Marker, rule: EpochRule, now_ms: i64) -> Result<Ended, Error> {
        let mut state = self.write();
        let epoch = self.check_leads(&state)?;
        self.verifications.end(marker.producer_id);
        let offset = state.log.end_transaction(marker, rule, epoch, now_ms).inspect_err(|error| self.failed(error))?;
        let position = Position { end: state.log.log_end(), epoch };
        self.publish(&mut state);
        drop(state);
        if offset.is_some() {
            self.home.appended(MARKER_BYTES);
            self.progress.step();
        }
        Ok(Ended { offset, position })
    }

    fn failed(&self, error: &StorageError) {
        if matches!(error, StorageError::Io { source, .. } if source.kind() == ErrorKind::StorageFull) {
            self.home.signals.full.notify_one();
        }
        self.home.judge(error);
    }

    /// The position of the current log end, regardless of who appended. An error on a follower. If it is used to wait for an earlier append, the
    /// role must not have changed since; otherwise the position returned by that append must be used.
    pub fn position(&self) -> Result<Position, Error> {
        let State { log, role } = &*self.state();
        match role {
            Role::Follower { .. } => Err(Error::NotLeader(self.id.clone())),
            // The committed records of a closed replica stay committed.
            Role::Leader { epoch, .. } | Role::Offline { epoch } => Ok(Position { end: log.log_end(), epoch: *epoch }),
        }
    }

    /// Whether everything up to a position is committed. [`Error::NotLeader`] if its epoch has ended: the log may have been truncated below it and
    /// now contain other records, and it is unknown here whether the old ones are stored.
    pub fn is_committed(&self, at: Position) -> Result<bool, Error> {
        // The order matters: if the epoch is still the position's, the high watermark was read in that epoch.
        let high_watermark = Offset(self.high_watermark.load(Ordering::Acquire));
        if self.standing.load(Ordering::Acquire) >> ROLE_BITS == i64::from(at.epoch.0) {
            Ok(high_watermark >= at.end)
        } else {
            Err(Error::NotLeader(self.id.clone()))
        }
    }

    /// Waits until everything up to a position is committed; see [`Replica::is_committed`] for a concurrent change of epoch. Under
    /// [`Durability::Default`] with one replica this returns at once.
    pub async fn committed(&self, at: Position) -> Result<(), Error> {
        if self.is_committed(at)? {
            return Ok(());
        }
        let wake = Wake::default();
        let _subscription = self.subscribe(&wake);
        while !self.is_committed(at)? {
            self.check_open()?;
            wake.notified().await;
        }
        Ok(())
    }

    /// Reads for a consumer; see [`LogReader::read`].
    pub fn read(&self, offset: Offset, bytes_max: usize, first: FirstBatch) -> Result<Option<RecordsSlice>, Error> {
        self.check_open()?;
        self.judged(self.reader.read(offset, self.view().high_watermark, bytes_max, first))
    }

    /// Reads for a consumer with `read_committed`; see [`LogReader::read_committed`].
    pub fn read_committed(&self, offset: Offset, bytes_max: usize, first: FirstBatch) -> Result<Option<CommittedSlice>, Error> {
        self.check_open()?;
        self.judged(self.reader.read_committed(offset, self.view().last_stable, bytes_max, first))
    }

    /// Counts bytes that are sent to consumers.
    pub fn count_sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The counters since this broker opened the replica.
    pub fn traffic(&self) -> Traffic {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic { records_in: count(&self.records_in), bytes_in: count(&self.bytes_in), bytes_out: count(&self.bytes_out) }
    }

    /// The current offsets.
    pub fn view(&self) -> View {
        let last_stable = Offset(self.last_stable.load(Ordering::Acquire));
        let high_watermark = Offset(self.high_watermark.load(Ordering::Acquire));
        let log_end = Offset(self.log_end.load(Ordering::Acquire));
        let log_start = Offset(self.log_start.load(Ordering::Acquire));
        View { log_start, log_end, high_watermark, last_stable, leader_epoch: self.leader_epoch() }
    }

    /// Compares the epoch in a client's request, unless it is -1, and then returns an error if this replica is not the leader: Kafka's order.
    pub fn check_epoch(&self, got: i32) -> Result<(), Error> {
        let standing = self.standing.load(Ordering::Acquire);
        let (got, current) = (LeaderEpoch(got), LeaderEpoch((standing >> ROLE_BITS) as i32));
        match got.cmp(&current) {
            std::cmp::Ordering::Less if got.0 != -1 => Err(Error::FencedLeaderEpoch { got, current }),
            std::cmp::Ordering::Greater => Err(Error::UnknownLeaderEpoch { got, current }),
            // A closed replica is not the leader either, and returns its error when it is used.
            _ if standing & ROLE_MASK == FOLLOWS => Err(Error::NotLeader(self.id.clone())),
            _ => Ok(()),
        }
    }

    /// The first record with a timestamp of at least `timestamp_ms`.
    pub fn find_by_time(&self, timestamp_ms: i64) -> Result<Option<FoundOffset>, Error> {
        self.judged(self.reader.find_by_time(timestamp_ms))
    }

    /// The first record with the largest timestamp.
    pub fn find_largest_time(&self) -> Result<Option<FoundOffset>, Error> {
        self.judged(self.reader.find_largest_time())
    }

    /// The end offset of `epoch`; see [`crate::storage::LeaderEpochs::end_offset`].
    pub fn epoch_end(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let State { log, role } = &*self.state();
        log.epochs().end_offset(epoch, role.epoch(), log.log_end())
    }

    /// Walks over all stored batches, for state that is kept in a partition.
    pub fn replay(&self, each: impl FnMut(&crate::records::BatchHeader, &[u8]) -> Result<(), Error>) -> Result<(), Error> {
        self.reader.replay(self.view().log_start, each).inspect_err(|error| {
            if let Error::Storage(error) = error {
                self.home.judge(error);
            }
        })
    }

    /// Takes the directory offline if a read failed because of its disk. The fsync of a file that was closed for the reader may have failed too.
    pub(super) fn judged<T>(&self, result: Result<T, StorageError>) -> Result<T, Error> {
        Ok(result.inspect_err(|error| self.home.judge(error))?)
    }

    /// Wakes `wake` at each append from now on.
    pub fn subscribe(&self, wake: &Wake) -> Subscription {
        self.progress.subscribe(wake)
    }

    /// Deletes the records below `offset`, or below the high watermark for `None`. Returns the new log start offset.
    pub fn delete_before(&self, offset: Option<Offset>, now_ms: i64) -> Result<Offset, Error> {
        let mut state = self.write();
        self.check_leads(&state)?;
        let View { log_start, high_watermark, .. } = self.view();
        let offset = offset.unwrap_or(high_watermark);
        if offset > high_watermark || offset < Offset(0) {
            return Err(StorageError::OffsetOutOfRange { offset, log_start, log_end: high_watermark }.into());
        }
        let deleted = self.judged(state.log.delete_before(offset, high_watermark, now_ms))?;
        self.publish(&mut state);
        let log_start = state.log.log_start();
        assert!(log_start <= high_watermark, "{} is deleted up to {log_start}, and its high watermark is {high_watermark}", self.id);
        drop(state);
        drop(deleted);
        Ok(log_start)
    }

    /// The state of the idempotent producers.
    pub fn producers(&self) -> Vec<ActiveProducer> {
        self.state().log.producers().active().collect()
    }

    /// Applies changed settings of the topic.
    pub fn configure(&self, settings: TopicSettings) {
        self.write().log.configure(settings.log.clone());
        self.settings.store(Arc::new(settings));
    }

    /// Rejects further use because the topic is deleted.
    pub(super) fn retire(&self) {
        // Under the lock no thread can append, roll, retain or replace a segment; work without the lock (flush, commit, compaction, reads) has open
        // files, or checks the log's presence before it uses a path.
        let mut state = self.write();
        self.end(&mut state);
        state.log.delete();
        drop(state);
        self.progress.step();
    }

    /// Requests that wait for records that are not committed get an error, and readers that have the replica end.
    pub(super) fn end(&self, state: &mut State) {
        self.closed.store(true, Ordering::Release);
        state.role = state.role.retire();
        self.standing.store(standing(&state.role), Ordering::Release);
    }

    /// Whether the replica was deleted or closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The epoch in which this replica leads. Requires the lock of the log, which a change of role holds too.
    fn check_leads(&self, state: &State) -> Result<LeaderEpoch, Error> {
        self.check_open()?;
        if state.role.is_leader() { Ok(state.role.epoch()) } else { Err(Error::NotLeader(self.id.clone())) }
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        match (self.is_closed(), self.home.is_offline()) {
            (true, _) => Err(Error::Closed(self.id.clone())),
            (_, true) => Err(Error::Offline(self.id.clone())),
            _ => Ok(()),
        }
    }

    /// Topic and number.
    pub fn id(&self) -> &TopicPartition {
        &self.id
    }

    /// The topic's id.
    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    /// Whether this replica is the leader.
    pub fn is_leader(&self) -> bool {
        self.standing.load(Ordering::Acquire) & ROLE_MASK == LEADS
    }

    /// The epoch known to this replica, whatever its role.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch((self.standing.load(Ordering::Acquire) >> ROLE_BITS) as i32)
    }

    /// The topic's settings.
    pub fn settings(&self) -> Arc<TopicSettings> {
        self.settings.load_full()
    }

    /// Bytes on disk.
    pub fn size(&self) -> u64 {
        self.reader.size()
    }

    /// The number of segments.
    pub fn segment_count(&self) -> usize {
        self.reader.segment_count()
    }

    /// Everything below this offset is fsynced in the log.
    pub fn recovery_point(&self) -> Offset {
        self.state().log.recovery_point()
    }

    /// Publishes the offsets of the log after each change, under its lock.
    pub(super) fn publish(&self, state: &mut State) {
        let State { log, role } = state;
        let (log_start, log_end) = (log.log_start(), log.log_end());
        let own_end = match self.home.durability {
            Durability::Default => log_end,
            Durability::Fsync => log.committed(),
        };
        let before = Offset(self.high_watermark.load(Ordering::Relaxed));
        // Deleted records were committed.
        let high_watermark = role.high_watermark(before, own_end).max(log_start);
        assert!(before <= high_watermark, "the high watermark of {} falls from {before} to {high_watermark}", self.id);
        assert!(high_watermark <= log_end, "the high watermark of {} is {high_watermark}, and its log ends at {log_end}", self.id);
        if before < high_watermark {
            log.advance(high_watermark);
        }
        let last_stable = log.last_stable(high_watermark);
        assert!(
            log_start <= last_stable && last_stable <= high_watermark,
            "the last stable offset of {} is {last_stable}, its log begins at {log_start}, its high watermark is {high_watermark}",
            self.id
        );
        self.log_start.store(log_start.0, Ordering::Release);
        self.log_end.store(log_end.0, Ordering::Release);
        self.taken.store(log.taken().0, Ordering::Release);
        // Stored in this order, and read in the reverse order: a reader never sees a last stable offset above the high watermark.
        self.high_watermark.store(high_watermark.0, Ordering::Release);
        self.last_stable.store(last_stable.0, Ordering::Release);
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|poisoned| self.broken(poisoned))
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(|poisoned| self.broken(poisoned))
    }

    /// A thread panicked while the log was locked, because an assertion failed: the directory is taken offline, and nothing in it is served or
    /// acknowledged any more.
    fn broken<G>(&self, poisoned: PoisonError<G>) -> G {
        self.home.fail(&format_args!("an assertion about {} has failed, see above", self.id));
        poisoned.into_inner()
    }
}

/// The bits of the role in a standing.
const ROLE_BITS: u32 = 2;
const ROLE_MASK: i64 = (1 << ROLE_BITS) - 1;
const LEADS: i64 = 0;
const FOLLOWS: i64 = 1;
const IS_OFFLINE: i64 = 2;

/// Epoch and role in one number.
fn standing(role: &Role) -> i64 {
    let kind = match role {
        Role::Leader { .. } => LEADS,
        Role::Follower { .. } => FOLLOWS,
        Role::Offline { .. } => IS_OFFLINE,
    };
    i64::from(role.epoch().0) << ROLE_BITS | kind
}
