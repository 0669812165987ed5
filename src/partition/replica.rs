//! This broker's replica of a partition.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::commits::Running;
use super::open_directory::{Durability, OpenDirectory};
use super::progress::{Progress, Subscription, Wake};
use super::role::Role;
use super::verification::{Verification, Verifications};
use super::{Error, NewReplica, TopicSettings};
use crate::model::{LeaderEpoch, NodeId, Offset, ProducerId, TopicPartition, Uuid};
use crate::records::{CheckedBatch, EpochRule, Marker, check};
use crate::storage::{
    self, ActiveProducer, Cleaned, Cleaner, Cleaning, CommittedSlice, Error as StorageError, Extent, FirstBatch, FoundOffset, JournalEntry,
    Log, LogReader, Origin, Pace, RecordsSlice, Synced, Unflushed,
};

/// About what a marker takes.
const MARKER_BYTES: u64 = 78;

/// What a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// All committed records.
    ReadUncommitted,
    /// Committed records whose transactions are decided.
    ReadCommitted,
}

/// Where a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The first offset.
    pub log_start: Offset,
    /// The offset of the next record.
    pub log_end: Offset,
    /// Records below are on every in-sync replica.
    pub high_watermark: Offset,
    /// Records below belong to no open transaction.
    pub last_stable: Offset,
    /// Ours.
    pub leader_epoch: LeaderEpoch,
}

impl View {
    /// Where a consumer's reading ends.
    pub fn end_for(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable,
        }
    }
}

/// What went into a partition and out of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Records appended for producers.
    pub records_in: u64,
    /// Bytes of their batches.
    pub bytes_in: u64,
    /// Bytes of batches sent to consumers.
    pub bytes_out: u64,
}

/// An end of a leader's log in its epoch: what was appended below it can be waited for with [`Replica::committed`]. Another epoch may have
/// another history below the same offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The offset behind the last record.
    pub end: Offset,
    /// The leader's.
    pub epoch: LeaderEpoch,
}

/// Where a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The first record's offset; of a duplicate, that of the stored batch.
    pub base_offset: Offset,
    /// The batch's largest timestamp as stored.
    pub max_timestamp: i64,
    /// Whether the batch was stored before and not again.
    pub duplicate: bool,
    /// Once this is committed the batch is. That of a duplicate is the log's end: the batch that it repeats may not be committed.
    pub position: Position,
}

/// A log with what its replica is: one lock, so that an append and a change of role are never at the same time.
#[derive(Debug)]
struct State {
    log: Log,
    role: Role,
}

/// One replica. The high watermark is a state of its own, which [`Role::high_watermark`] moves: with one replica to the log's end, or under
/// [`Durability::Fsync`] to the end of what is durable. The last stable offset follows the high watermark up to where the first open transaction
/// begins.
#[derive(Debug)]
pub struct Replica {
    id: TopicPartition,
    topic_id: Uuid,
    /// Epoch and role, so that both are read at once; see [`standing`].
    standing: AtomicI64,
    state: RwLock<State>,
    reader: Arc<LogReader>,
    log_start: AtomicI64,
    log_end: AtomicI64,
    taken: AtomicI64,
    high_watermark: AtomicI64,
    last_stable: AtomicI64,
    verifications: Arc<Verifications>,
    settings: ArcSwap<TopicSettings>,
    progress: Arc<Progress>,
    closed: AtomicBool,
    pub(super) home: Arc<OpenDirectory>,
    records_in: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Replica {
    /// A replica with this log, which has no role yet.
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

    /// Makes this replica the leader of `epoch`; `others` are the other members of the maximal in-sync set. The epoch and where it begins are noted
    /// in the log before anything is served. Who waits for what was appended in an earlier epoch is told that it is not the leader's any more.
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

    /// Makes this replica a follower in `epoch`: nothing is appended for producers any more, and who waits is told so.
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

    /// Checks what a producer sent and appends it. Readers see it, and it may be acknowledged, when it is [committed](Replica::committed).
    /// A batch that begins a transaction here needs a [`Verification`] that was begun before the coordinator was asked.
    pub fn produce(&self, bytes: &Bytes, origin: Origin, verification: Option<&Verification>, now_ms: i64) -> Result<Appended, Error> {
        let checked = check(bytes, &self.settings.load().rules(now_ms))?;
        self.append(checked, origin, verification, now_ms)
    }

    /// Appends a batch of the broker's own, or one that was checked.
    pub fn append(&self, batch: CheckedBatch, origin: Origin, verification: Option<&Verification>, now_ms: i64) -> Result<Appended, Error> {
        let (records, size) = (batch.header().records_count as u64, batch.header().size() as u64);
        let (producer, is_transactional) = (batch.header().producer_id, batch.header().is_transactional());
        let mut state = self.write();
        let epoch = self.check_leads(&state)?;
        let log = &mut state.log;
        let begins = is_transactional && !log.producers().has_open_transaction(producer);
        if begins && !verification.is_some_and(|verification| verification.holds_for(producer)) {
            let what = "its coordinator does not know that it has a transaction in this partition";
            return Err(StorageError::TransactionState { producer, what }.into());
        }
        let storage::Appended { base_offset, max_timestamp, duplicate } =
            log.append(batch, origin, epoch, now_ms).inspect_err(|error| self.failed(error))?;
        if log.holds_too_many() {
            // It waits within the append, as in Kafka: who sets flush.messages wants that.
            self.home.sync(|| log.flush())?;
        }
        let appended = Appended { base_offset, max_timestamp, duplicate, position: Position { end: log.log_end(), epoch } };
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

    /// To be begun before the coordinator of a producer's transaction is asked; none where the transaction is open here already, so that nobody
    /// needs to be asked.
    pub fn begin_verification(&self, producer: ProducerId) -> Option<Verification> {
        let state = self.state();
        (!state.log.producers().has_open_transaction(producer)).then(|| self.verifications.begin(producer))
    }

    /// Ends a producer's transaction; see [`Log::end_transaction`]. It counts when it is [committed](Replica::committed).
    pub fn end_transaction(&self, marker: &Marker, rule: EpochRule, now_ms: i64) -> Result<Option<Offset>, Error> {
        let mut state = self.write();
        let epoch = self.check_leads(&state)?;
        self.verifications.end(marker.producer_id);
        let ended = state.log.end_transaction(marker, rule, epoch, now_ms).inspect_err(|error| self.failed(error))?;
        self.publish(&mut state);
        drop(state);
        if ended.is_some() {
            self.home.appended(MARKER_BYTES);
            self.progress.step();
        }
        Ok(ended)
    }

    fn failed(&self, error: &StorageError) {
        if matches!(error, StorageError::Io { source, .. } if source.kind() == ErrorKind::StorageFull) {
            self.home.signals.full.notify_one();
        }
        self.home.judge(error);
    }

    /// What was appended up to now, by whoever. A follower has none. Who appended before must know that the role has not changed since: else
    /// the position of the append itself is the one to wait for.
    pub fn position(&self) -> Result<Position, Error> {
        let State { log, role } = &*self.state();
        match role {
            Role::Follower { .. } => Err(Error::NotLeader(self.id.clone())),
            // What a replica that was closed has committed stays so.
            Role::Leader { epoch, .. } | Role::Offline { epoch } => Ok(Position { end: log.log_end(), epoch: *epoch }),
        }
    }

    /// Whether everything up to a position is committed. [`Error::NotLeader`] where its epoch has passed: then the log may have been truncated below
    /// it and hold something else, and nobody here knows what became of it.
    pub fn is_committed(&self, at: Position) -> Result<bool, Error> {
        // In this order: where the epoch is still the position's, the high watermark was one of that epoch.
        let high_watermark = Offset(self.high_watermark.load(Ordering::Acquire));
        if self.standing.load(Ordering::Acquire) >> ROLE_BITS == i64::from(at.epoch.0) {
            Ok(high_watermark >= at.end)
        } else {
            Err(Error::NotLeader(self.id.clone()))
        }
    }

    /// Waits until everything up to a position is committed; see [`Replica::is_committed`] for a change of epoch meanwhile. Under
    /// [`Durability::Default`] with one replica there is nothing to wait for.
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
        Ok(self.reader.read(offset, self.view().high_watermark, bytes_max, first)?)
    }

    /// Reads for a consumer that wants committed records alone; see [`LogReader::read_committed`].
    pub fn read_committed(&self, offset: Offset, bytes_max: usize, first: FirstBatch) -> Result<Option<CommittedSlice>, Error> {
        self.check_open()?;
        Ok(self.reader.read_committed(offset, self.view().last_stable, bytes_max, first)?)
    }

    /// Counts bytes that are sent to consumers.
    pub fn count_sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What went in and out since the broker has this replica.
    pub fn traffic(&self) -> Traffic {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic { records_in: count(&self.records_in), bytes_in: count(&self.bytes_in), bytes_out: count(&self.bytes_out) }
    }

    /// Where the partition stands.
    pub fn view(&self) -> View {
        let last_stable = Offset(self.last_stable.load(Ordering::Acquire));
        let high_watermark = Offset(self.high_watermark.load(Ordering::Acquire));
        let log_end = Offset(self.log_end.load(Ordering::Acquire));
        let log_start = Offset(self.log_start.load(Ordering::Acquire));
        View { log_start, log_end, high_watermark, last_stable, leader_epoch: self.leader_epoch() }
    }

    /// Compares the epoch that a client believes in, where it is not -1, and then refuses where this replica does not lead: Kafka's order.
    pub fn check_epoch(&self, got: i32) -> Result<(), Error> {
        let standing = self.standing.load(Ordering::Acquire);
        let (got, current) = (LeaderEpoch(got), LeaderEpoch((standing >> ROLE_BITS) as i32));
        match got.cmp(&current) {
            std::cmp::Ordering::Less if got.0 >= 0 => Err(Error::FencedLeaderEpoch { got, current }),
            std::cmp::Ordering::Greater => Err(Error::UnknownLeaderEpoch { got, current }),
            // One that is closed leads no more, and says so when it is used.
            _ if standing & ROLE_MASK == FOLLOWS => Err(Error::NotLeader(self.id.clone())),
            _ => Ok(()),
        }
    }

    /// The first record as new as `timestamp_ms`.
    pub fn find_by_time(&self, timestamp_ms: i64) -> Result<Option<FoundOffset>, Error> {
        Ok(self.reader.find_by_time(timestamp_ms)?)
    }

    /// The first record with the largest timestamp.
    pub fn find_largest_time(&self) -> Result<Option<FoundOffset>, Error> {
        Ok(self.reader.find_largest_time()?)
    }

    /// Where `epoch` ends; see [`crate::storage::LeaderEpochs::end_offset`].
    pub fn epoch_end(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let State { log, role } = &*self.state();
        log.epochs().end_offset(epoch, role.epoch(), log.log_end())
    }

    /// Walks all stored batches, for those who keep their state in a partition.
    pub fn replay<E: From<crate::storage::Error>>(
        &self,
        each: impl FnMut(&crate::records::BatchHeader, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.reader.replay(self.view().log_start, each)
    }

    /// Wakes `wake` at each append from now on.
    pub fn subscribe(&self, wake: &Wake) -> Subscription {
        self.progress.subscribe(wake)
    }

    /// Deletes the records below `offset`; `None` is all that are committed. Returns the first offset that is left.
    pub fn delete_before(&self, offset: Option<Offset>, now_ms: i64) -> Result<Offset, Error> {
        let mut state = self.write();
        self.check_leads(&state)?;
        let View { log_start, high_watermark, .. } = self.view();
        let offset = offset.unwrap_or(high_watermark);
        if offset > high_watermark || offset < Offset(0) {
            return Err(StorageError::OffsetOutOfRange { offset, log_start, log_end: high_watermark }.into());
        }
        let deleted = state.log.delete_before(offset, high_watermark, now_ms)?;
        self.publish(&mut state);
        let log_start = state.log.log_start();
        drop(state);
        drop(deleted);
        Ok(log_start)
    }

    /// The idempotent producers that are remembered.
    pub fn producers(&self) -> Vec<ActiveProducer> {
        self.state().log.producers().active().collect()
    }

    /// Takes a topic's changed settings.
    pub fn configure(&self, settings: TopicSettings) {
        self.write().log.configure(settings.log.clone());
        self.settings.store(Arc::new(settings));
    }

    /// Deletes what retention allows and forgets idle producers; returns the number of deleted segments.
    pub(super) fn maintain(&self, now_ms: i64, producer_expiration_ms: i64) -> Result<usize, Error> {
        let mut state = self.write();
        if self.is_closed() {
            return Ok(0);
        }
        let high_watermark = self.view().high_watermark;
        let deleted = state.log.retain(high_watermark, now_ms)?;
        state.log.expire_producers(now_ms, producer_expiration_ms);
        self.publish(&mut state);
        drop(state);
        Ok(deleted.count())
    }

    /// What compaction has to do now; see [`Log::cleaning`].
    pub(super) fn cleaning(&self, checkpoint: Option<Offset>, now_ms: i64) -> Result<Option<Cleaning>, Error> {
        Ok(self.state().log.cleaning(checkpoint, self.view().last_stable, now_ms)?)
    }

    /// Compacts; the log is locked only while a finished segment takes its place.
    pub(super) fn clean(&self, cleaner: &Cleaner, cleaning: &Cleaning, now_ms: i64, pace: &mut Pace<'_>) -> Result<Cleaned, Error> {
        let replace = |replacement| {
            let mut state = self.write();
            // The directory of a deleted replica may belong to another one by now.
            if self.is_closed() { Ok(false) } else { state.log.replace(replacement) }
        };
        match cleaner.clean(&self.home.files, cleaning, now_ms, pace, replace) {
            // What it was reading was cut off.
            Err(_) if !self.is_of(cleaning) => Ok(Cleaned::default()),
            cleaned => Ok(cleaned.inspect_err(|error| self.home.judge(error))?),
        }
    }

    /// Whether the log has not been truncated since this was decided.
    pub(super) fn is_of(&self, cleaning: &Cleaning) -> bool {
        cleaning.is_of(&self.state().log)
    }

    /// Cuts the log of a follower; see [`Partitions::truncate`](super::Partitions::truncate), whose step this is. Nothing where what lies below
    /// `offset` is not durable.
    pub(super) fn truncate_to(&self, offset: Offset, running: MutexGuard<'_, Running>, now_ms: i64) -> Result<Option<Offset>, Error> {
        let mut state = self.write();
        // A commit that begins now waits for the log before it takes anything of it.
        drop(running);
        self.check_open()?;
        assert!(!state.role.is_leader(), "the leader of {} in epoch {} truncates its log", self.id, state.role.epoch());
        let View { log_end, high_watermark, .. } = self.view();
        if offset >= log_end {
            return Ok(Some(log_end));
        }
        if state.log.recovery_point() < offset {
            return Ok(None);
        }
        if offset < state.log.log_start() {
            return Err(StorageError::OffsetOutOfRange { offset, log_start: state.log.log_start(), log_end }.into());
        }
        self.home.check_online()?;
        let prepared = self.home.log.truncating(&self.id, offset);
        let deleted =
            prepared.and_then(|()| state.log.truncate_to(offset, high_watermark, now_ms)).inspect_err(|error| self.home.fail(error))?;
        let log_end = state.log.log_end();
        // The one time that it falls: what was never committed, or an unclean election gave up.
        self.high_watermark.store(high_watermark.min(log_end).0, Ordering::Release);
        self.publish(&mut state);
        drop(state);
        drop(deleted);
        self.progress.step();
        Ok(Some(log_end))
    }

    /// See [`Log::waits_too_long`].
    pub(super) fn waits_too_long(&self, now_ms: i64) -> bool {
        self.state().log.waits_too_long(now_ms)
    }

    /// What is to be made durable, if anything; see [`Log::unflushed`].
    pub(super) fn unflushed(&self) -> Result<Option<Unflushed>, Error> {
        let mut state = self.write();
        // The directory of a deleted replica may belong to another one by now.
        if self.is_closed() { Ok(None) } else { Ok(state.log.unflushed()?) }
    }

    /// Moves the recovery point behind what was made durable.
    pub(super) fn flushed(&self, synced: Synced) {
        let mut state = self.write();
        state.log.flushed(synced);
        self.publish(&mut state);
        drop(state);
        if self.home.durability == Durability::Fsync {
            self.progress.step();
        }
    }

    /// What is to be committed, if anything; see [`Log::uncommitted`].
    pub(super) fn uncommitted(&self) -> Result<Option<JournalEntry>, Error> {
        let mut state = self.write();
        if self.is_closed() {
            return Ok(None);
        }
        let entry = |batches| JournalEntry { topic_id: self.topic_id, partition: self.id.partition, batches };
        let uncommitted = state.log.uncommitted()?.map(entry);
        self.publish(&mut state);
        Ok(uncommitted)
    }

    /// Says that nothing came of a commit; see [`Log::give_back`].
    pub(super) fn give_back(&self) {
        let mut state = self.write();
        state.log.give_back();
        self.publish(&mut state);
    }

    /// Takes note of what was committed.
    pub(super) fn commit(&self, extent: Extent) {
        let mut state = self.write();
        state.log.commit(extent);
        self.publish(&mut state);
        drop(state);
        self.progress.step();
    }

    /// Wakes who waits for a commit, because there will be none.
    pub(super) fn wake(&self) {
        self.progress.step();
    }

    /// Whether something was appended that is to be committed, and that no commit has taken.
    pub(super) fn is_behind(&self) -> bool {
        self.taken.load(Ordering::Acquire) < self.log_end.load(Ordering::Acquire) && !self.is_closed()
    }

    /// Refuses further use, writes what makes the next open quick, and wakes who waits. What it gives is to be made durable.
    pub(super) fn close(&self) -> Result<Option<Unflushed>, Error> {
        let mut state = self.write();
        self.end(&mut state);
        let unflushed = state.log.close()?;
        drop(state);
        self.progress.step();
        Ok(unflushed)
    }

    /// Refuses further use because the topic is deleted.
    pub(super) fn retire(&self) {
        // Under the lock nobody appends, rolls, retains or puts a compacted segment in; those who work without it (flush, commit, compaction,
        // reads) have open files, or ask the log's presence before they use a path.
        let mut state = self.write();
        self.end(&mut state);
        state.log.delete();
        drop(state);
        self.progress.step();
    }

    /// What has led is waited for no more where it is not committed, and readers that have it end.
    fn end(&self, state: &mut State) {
        self.closed.store(true, Ordering::Release);
        state.role = state.role.retire();
        self.standing.store(standing(&state.role), Ordering::Release);
    }

    /// Whether the replica was deleted or closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The epoch in which this replica leads. Only under the lock of the log, which a change of role takes too.
    fn check_leads(&self, state: &State) -> Result<LeaderEpoch, Error> {
        self.check_open()?;
        if state.role.is_leader() { Ok(state.role.epoch()) } else { Err(Error::NotLeader(self.id.clone())) }
    }

    fn check_open(&self) -> Result<(), Error> {
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

    /// The one that this replica knows, whatever its role.
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

    /// Everything below is durable.
    pub fn recovery_point(&self) -> Offset {
        self.state().log.recovery_point()
    }

    /// Shows what the log holds and what of it is committed, after each change and under its lock.
    fn publish(&self, state: &mut State) {
        let State { log, role } = state;
        let (log_start, log_end) = (log.log_start(), log.log_end());
        let own_end = match self.home.durability {
            Durability::Default => log_end,
            Durability::Fsync => log.committed(),
        };
        let before = Offset(self.high_watermark.load(Ordering::Relaxed));
        // What was deleted was committed.
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
        // In this order, and read in the other: a reader never sees a last stable offset above the high watermark.
        self.high_watermark.store(high_watermark.0, Ordering::Release);
        self.last_stable.store(last_stable.0, Ordering::Release);
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|poisoned| self.broken(poisoned))
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(|poisoned| self.broken(poisoned))
    }

    /// Somebody panicked while the log was locked, because an assertion found it other than it must be: nothing in its directory is served or
    /// acknowledged any more.
    fn broken<G>(&self, poisoned: PoisonError<G>) -> G {
        self.home.fail(&format_args!("an assertion about {} has failed, see above", self.id));
        poisoned.into_inner()
    }
}

/// Bits that the role takes in a standing.
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
