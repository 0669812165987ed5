//! A partition of which this broker is the leader.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::open_directory::{Durability, OpenDirectory};
use super::progress::{Progress, Subscription, Wake};
use super::verification::{Verification, Verifications};
use super::{Error, NewReplica, TopicSettings};
use crate::model::{LeaderEpoch, Offset, ProducerId, TopicPartition, Uuid};
use crate::records::{CheckedBatch, EpochRule, Marker, check};
use crate::storage::{
    ActiveProducer, Appended, Cleaned, Cleaner, Cleaning, CommittedSlice, Error as StorageError, Extent, FirstBatch, FoundOffset,
    JournalEntry, Log, LogReader, Origin, Pace, RecordsSlice, Synced, Unflushed,
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

/// One replica. Today every partition has one, so the high watermark follows the log's end, or under [`Durability::Fsync`] what of it is
/// durable, and the last stable offset follows the high watermark up to where the first open transaction begins.
#[derive(Debug)]
pub struct Replica {
    id: TopicPartition,
    topic_id: Uuid,
    leader_epoch: AtomicI32,
    log: RwLock<Log>,
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
    /// The leader of a partition with this log.
    pub(super) fn lead(new: NewReplica, log: Log, home: Arc<OpenDirectory>) -> Replica {
        let NewReplica { id, topic_id, leader_epoch, settings, .. } = new;
        let replica = Replica {
            id,
            topic_id,
            leader_epoch: AtomicI32::new(leader_epoch.0),
            home,
            reader: log.reader().clone(),
            log_start: AtomicI64::new(0),
            log_end: AtomicI64::new(0),
            taken: AtomicI64::new(0),
            high_watermark: AtomicI64::new(0),
            last_stable: AtomicI64::new(0),
            verifications: Arc::default(),
            log: RwLock::new(log),
            settings: ArcSwap::from_pointee(settings),
            progress: Arc::default(),
            closed: AtomicBool::new(false),
            records_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        };
        replica.publish(&replica.log());
        replica
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
        let mut log = self.write();
        self.check_open()?;
        let begins = is_transactional && !log.producers().has_open_transaction(producer);
        if begins && !verification.is_some_and(|verification| verification.holds_for(producer)) {
            let what = "its coordinator does not know that it has a transaction in this partition";
            return Err(StorageError::TransactionState { producer, what }.into());
        }
        let appended = log.append(batch, origin, self.leader_epoch(), now_ms).inspect_err(|error| self.failed(error))?;
        if log.holds_too_many() {
            // It waits within the append, as in Kafka: who sets flush.messages wants that.
            self.home.sync(|| log.flush())?;
        }
        self.publish(&log);
        drop(log);
        if !appended.duplicate {
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
        let log = self.log();
        (!log.producers().has_open_transaction(producer)).then(|| self.verifications.begin(producer))
    }

    /// Ends a producer's transaction; see [`Log::end_transaction`]. It counts when it is [committed](Replica::committed).
    pub fn end_transaction(&self, marker: &Marker, rule: EpochRule, now_ms: i64) -> Result<Option<Offset>, Error> {
        let mut log = self.write();
        self.check_open()?;
        self.verifications.end(marker.producer_id);
        let ended = log.end_transaction(marker, rule, self.leader_epoch(), now_ms).inspect_err(|error| self.failed(error))?;
        self.publish(&log);
        drop(log);
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

    /// Waits until everything below `offset`, which must not lie above the log's end, is committed: never, under [`Durability::Default`].
    pub async fn committed(&self, offset: Offset) -> Result<(), Error> {
        if self.view().high_watermark >= offset {
            return Ok(());
        }
        let wake = Wake::default();
        let _subscription = self.subscribe(&wake);
        while self.view().high_watermark < offset {
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

    /// Compares the epoch that a client believes in; -1 is not compared.
    pub fn check_epoch(&self, got: i32) -> Result<(), Error> {
        let (got, current) = (LeaderEpoch(got), self.leader_epoch());
        match got.cmp(&current) {
            _ if got.0 < 0 => Ok(()),
            std::cmp::Ordering::Less => Err(Error::FencedLeaderEpoch { got, current }),
            std::cmp::Ordering::Greater => Err(Error::UnknownLeaderEpoch { got, current }),
            std::cmp::Ordering::Equal => Ok(()),
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
        let log = self.log();
        log.epochs().end_offset(epoch, self.leader_epoch(), log.log_end())
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
        let mut log = self.write();
        self.check_open()?;
        let View { log_start, high_watermark, .. } = self.view();
        let offset = offset.unwrap_or(high_watermark);
        if offset > high_watermark || offset < Offset(0) {
            return Err(StorageError::OffsetOutOfRange { offset, log_start, log_end: high_watermark }.into());
        }
        let deleted = log.delete_before(offset, high_watermark, now_ms)?;
        self.publish(&log);
        let log_start = log.log_start();
        drop(log);
        drop(deleted);
        Ok(log_start)
    }

    /// The idempotent producers that are remembered.
    pub fn producers(&self) -> Vec<ActiveProducer> {
        self.log().producers().active().collect()
    }

    /// Takes a topic's changed settings.
    pub fn configure(&self, settings: TopicSettings) {
        self.write().configure(settings.log.clone());
        self.settings.store(Arc::new(settings));
    }

    /// Deletes what retention allows and forgets idle producers; returns the number of deleted segments.
    pub(super) fn maintain(&self, now_ms: i64, producer_expiration_ms: i64) -> Result<usize, Error> {
        let mut log = self.write();
        if self.is_closed() {
            return Ok(0);
        }
        let high_watermark = self.view().high_watermark;
        let deleted = log.retain(high_watermark, now_ms)?;
        log.expire_producers(now_ms, producer_expiration_ms);
        self.publish(&log);
        drop(log);
        Ok(deleted.count())
    }

    /// What compaction has to do now; see [`Log::cleaning`].
    pub(super) fn cleaning(&self, checkpoint: Option<Offset>, now_ms: i64) -> Result<Option<Cleaning>, Error> {
        Ok(self.log().cleaning(checkpoint, self.view().last_stable, now_ms)?)
    }

    /// Compacts; the log is locked only while a finished segment takes its place.
    pub(super) fn clean(&self, cleaner: &Cleaner, cleaning: &Cleaning, now_ms: i64, pace: &mut Pace<'_>) -> Result<Cleaned, Error> {
        let replace = |replacement| {
            let mut log = self.write();
            // The directory of a deleted replica may belong to another one by now.
            if self.is_closed() { Ok(false) } else { log.replace(replacement) }
        };
        Ok(cleaner.clean(&self.home.files, cleaning, now_ms, pace, replace).inspect_err(|error| self.home.judge(error))?)
    }

    /// See [`Log::waits_too_long`].
    pub(super) fn waits_too_long(&self, now_ms: i64) -> bool {
        self.log().waits_too_long(now_ms)
    }

    /// What is to be made durable, if anything; see [`Log::unflushed`].
    pub(super) fn unflushed(&self) -> Result<Option<Unflushed>, Error> {
        let mut log = self.write();
        // The directory of a deleted replica may belong to another one by now.
        if self.is_closed() { Ok(None) } else { Ok(log.unflushed()?) }
    }

    /// Moves the recovery point behind what was made durable.
    pub(super) fn flushed(&self, synced: Synced) {
        let mut log = self.write();
        log.flushed(synced);
        self.publish(&log);
        drop(log);
        if self.home.durability == Durability::Fsync {
            self.progress.step();
        }
    }

    /// What is to be committed, if anything; see [`Log::uncommitted`].
    pub(super) fn uncommitted(&self) -> Result<Option<JournalEntry>, Error> {
        let mut log = self.write();
        if self.is_closed() {
            return Ok(None);
        }
        let entry = |batches| JournalEntry { topic_id: self.topic_id, partition: self.id.partition, batches };
        let uncommitted = log.uncommitted()?.map(entry);
        self.publish(&log);
        Ok(uncommitted)
    }

    /// Says that nothing came of a commit; see [`Log::give_back`].
    pub(super) fn give_back(&self) {
        let mut log = self.write();
        log.give_back();
        self.publish(&log);
    }

    /// Takes note of what was committed.
    pub(super) fn commit(&self, extent: Extent) {
        let mut log = self.write();
        log.commit(extent);
        self.publish(&log);
        drop(log);
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
        let mut log = self.write();
        self.closed.store(true, Ordering::Release);
        let unflushed = log.close()?;
        drop(log);
        self.progress.step();
        Ok(unflushed)
    }

    /// Refuses further use because the topic is deleted.
    pub(super) fn retire(&self) {
        // Under the lock nobody appends, rolls, retains or puts a compacted segment in; those who work without it (flush, commit, compaction,
        // reads) have open files, or ask the log's presence before they use a path.
        let mut log = self.write();
        self.closed.store(true, Ordering::Release);
        log.delete();
        drop(log);
        self.progress.step();
    }

    /// Whether the replica was deleted or closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
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

    /// Ours.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.leader_epoch.load(Ordering::Acquire))
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
        self.log().recovery_point()
    }

    fn publish(&self, log: &Log) {
        self.log_start.store(log.log_start().0, Ordering::Release);
        self.log_end.store(log.log_end().0, Ordering::Release);
        self.taken.store(log.taken().0, Ordering::Release);
        let high_watermark = match self.home.durability {
            Durability::Default => log.log_end(),
            Durability::Fsync => log.committed(),
        };
        // In this order, and read in the other: a reader never sees a last stable offset above the high watermark.
        self.high_watermark.store(high_watermark.0, Ordering::Release);
        self.last_stable.store(log.last_stable(high_watermark).0, Ordering::Release);
    }

    fn log(&self) -> RwLockReadGuard<'_, Log> {
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Log> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }
}
