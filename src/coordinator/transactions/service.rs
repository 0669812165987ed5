//! Runs the shards of transactions: loads them, stores their decisions, and writes the markers into the partitions.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::record::{decode, encode};
use super::shard::{InitRequest, ToComplete, TransactionSettings, TransactionShard, TransactionView};
use super::transaction::{End, Identity, Init, Transaction};
use crate::coordinator::instances::{Access, Instances, Stored, Term};
use crate::coordinator::{GroupCoordinator, Now, OFFSETS_TOPIC, partition_for};
use crate::env::{Env, Tasks};
use crate::model::{ProducerId, TopicPartition};
use crate::partition::{self, Partitions, Position, Replica};
use crate::protocol::ErrorCode;
use crate::records::{EpochRule, Marker, TransactionResult};

/// The topic that stores all transactional ids.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";
/// How often a broker retries decided transactions whose markers could not all be written.
const COMPLETE_AGAIN: Duration = Duration::from_secs(1);
/// How long, and at which interval, the broker waits for a producer's previous transaction to finish before it returns an error.
const PATIENCE: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A pending asynchronous call.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, ErrorCode>> + Send + 'a>>;

/// Allocates producer ids that were never used before.
pub trait NewProducerIds: Send + Sync {
    /// The next producer id.
    fn next(&self) -> Pending<'_, ProducerId>;
}

/// What the cluster's metadata contains about partitions.
pub trait ClusterMetadata: Send + Sync {
    /// Whether a partition of a transaction is known to be deleted. Returns false for a partition that is only unavailable on this broker: not opened
    /// yet, not possible to open, or led by another broker.
    fn is_deleted(&self, partition: &TopicPartition) -> bool;

    /// The value of `transaction.partition.verification.enable` if it was set while the broker ran.
    fn verify_partitions(&self) -> Option<bool> {
        None
    }
}

/// All instances of this broker.
pub struct TransactionCoordinator {
    instances: Instances<TransactionShard>,
    partitions: Arc<Partitions>,
    groups: Arc<GroupCoordinator>,
    producer_ids: Box<dyn NewProducerIds>,
    metadata: Box<dyn ClusterMetadata>,
    settings: TransactionSettings,
    env: Env,
    begin: Instant,
    /// The broker's tasks: some transactions are completed in tasks of their own.
    tasks: Tasks,
    again: Notify,
}

impl TransactionCoordinator {
    /// Creates the coordinator; no instance is loaded yet.
    pub fn new(
        env: Env,
        partitions: Arc<Partitions>,
        groups: Arc<GroupCoordinator>,
        producer_ids: Box<dyn NewProducerIds>,
        metadata: Box<dyn ClusterMetadata>,
        settings: TransactionSettings,
        tasks: Tasks,
    ) -> Arc<TransactionCoordinator> {
        Arc::new(TransactionCoordinator {
            instances: Instances::new(TRANSACTIONS_TOPIC, partitions.clone(), settings.partitions),
            partitions,
            groups,
            producer_ids,
            metadata,
            settings,
            env,
            begin: Instant::now(),
            tasks,
            again: Notify::new(),
        })
    }

    /// Loads every instance whose partition is on this broker and that is not loaded from it. Blocks on reads.
    pub fn load(&self) {
        self.instances.load(|replica| self.load_one(replica));
        self.again.notify_one();
    }

    fn load_one(&self, replica: &Replica) -> Result<TransactionShard, partition::Error> {
        let now = self.now();
        let mut shard = TransactionShard::default();
        let mut count = 0;
        replica.replay(|header, batch| {
            if header.is_control() {
                return Ok(());
            }
            for record in header.open(batch, usize::MAX)?.records() {
                let record = record?;
                let Some(key) = record.key.map(Bytes::copy_from_slice) else { continue };
                let value = record.value.map(Bytes::copy_from_slice);
                let offset = header.base_offset.plus(i64::from(record.offset_delta));
                match decode(&key, value.as_ref()) {
                    Ok(Some((id, value))) => {
                        if let Err(error) = shard.replay(id, value.as_ref(), now) {
                            warn!(%error, partition = %replica.id(), %offset, "a stored transaction record is inconsistent");
                        }
                    }
                    Ok(None) => debug!("a record of an unknown type is ignored; it was written by a later release"),
                    Err(error) => {
                        error!(%error, partition = %replica.id(), %offset, "a malformed transaction record is ignored")
                    }
                }
                count += 1;
            }
            Ok(())
        })?;
        if count > 0 {
            info!(partition = %replica.id(), records = count, "transactions loaded");
        }
        Ok(shard)
    }

    /// Aborts transactions that are open in a partition and unknown to every coordinator. A power loss can remove the record in `__transaction_state`
    /// and keep the data in a partition, and then no coordinator would end the transaction. Must be called once after a start, when everything is
    /// loaded; does nothing if an instance could not be loaded.
    pub fn abort_orphans(&self) {
        let Some(all) = (0..self.instances.count()).map(|number| self.instances.access(number).ok()).collect::<Option<Vec<_>>>() else {
            return;
        };
        for replica in self.partitions.all() {
            let open = replica.producers().into_iter().filter(|p| p.transaction_start.is_some());
            for producer in open.filter(|p| !all.iter().any(|shard| shard.state.has(p.id, replica.id()))) {
                let marker = Marker {
                    producer_id: producer.id,
                    producer_epoch: producer.epoch,
                    result: TransactionResult::Abort,
                    coordinator_epoch: producer.coordinator_epoch.max(0),
                };
                match self.write_marker(replica.id(), &marker, EpochRule::Stays) {
                    Ok(_) => warn!(partition = %replica.id(), producer = %producer.id, "a transaction without a coordinator was aborted"),
                    Err(error) => {
                        let error = error.name();
                        error!(error, partition = %replica.id(), producer = %producer.id, "a transaction without a coordinator is open and could not be aborted");
                    }
                }
            }
        }
    }

    /// A producer starts to use a transactional id: returns its producer id and epoch. An open transaction of the transactional id is aborted first.
    pub async fn init(self: &Arc<Self>, request: InitRequest) -> Result<Identity, ErrorCode> {
        if request.transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        if request.timeout_ms <= 0 || request.timeout_ms > self.settings.timeout_max_ms {
            return Err(ErrorCode::InvalidTransactionTimeout);
        }
        let id = &request.transactional_id;
        let (mut fresh, mut has_aborted) = (None, false);
        loop {
            let (decided, stored) = {
                let mut access = self.access(id)?;
                let decided = access.state.init(&request, fresh, self.now())?;
                match &decided {
                    Init::Ready(next) | Init::Aborts(next) => self.store(&mut access, id, next)?,
                    Init::NeedsProducerId => {}
                }
                (decided, access.stored())
            };
            match decided {
                Init::Ready(next) => return stored.settled().await.map(|()| next.producer),
                Init::NeedsProducerId => fresh = Some(self.producer_ids.next().await?),
                Init::Aborts(_) if has_aborted => return Err(ErrorCode::ConcurrentTransactions),
                Init::Aborts(_) => {
                    stored.settled().await?;
                    if let Some(completing) = self.begin_completing(id).await {
                        // If it fails, it is retried later.
                        let _ = completing.await;
                    }
                    has_aborted = true;
                }
            }
        }
    }

    /// Adds partitions to a transaction; the first one begins the transaction.
    pub async fn add(&self, id: &str, producer: Identity, partitions: &[TopicPartition], rule: EpochRule) -> Result<(), ErrorCode> {
        let stored = {
            let mut access = self.access(id)?;
            let client_version = if rule == EpochRule::Grows { 2 } else { 0 };
            if let Some(next) = access.state.add(id, producer, partitions, client_version, self.now())? {
                self.store(&mut access, id, &next)?;
            }
            access.stored()
        };
        stored.settled().await
    }

    /// Whether each of the partitions is part of the open transaction.
    pub fn verify(&self, id: &str, producer: Identity, partitions: &[TopicPartition]) -> Result<Vec<ErrorCode>, ErrorCode> {
        if !self.metadata.verify_partitions().unwrap_or(self.settings.verify_partitions) {
            return Ok(vec![ErrorCode::None; partitions.len()]);
        }
        self.access(id)?.state.verify(id, producer, partitions)
    }

    /// Called before the first batch of a transaction is appended to partitions: if the producer's epoch grows with each transaction, the partitions
    /// are added here; otherwise the producer must have added them already. Returns a code for each partition. (KIP-890)
    pub async fn admit(
        &self,
        id: &str,
        producer: Identity,
        partitions: &[TopicPartition],
        rule: EpochRule,
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        if rule == EpochRule::Stays {
            return self.verify(id, producer, partitions);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.add(id, producer, partitions, rule).await {
                Err(ErrorCode::ConcurrentTransactions) if Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
                added => return added.map(|()| vec![ErrorCode::None; partitions.len()]),
            }
        }
    }

    /// A producer ends its transaction; returns its identity for the next one. The decision is committed when this returns; the markers are written
    /// before that or soon after.
    pub async fn end(
        self: &Arc<Self>,
        id: &str,
        producer: Identity,
        result: TransactionResult,
        rule: EpochRule,
    ) -> Result<Identity, ErrorCode> {
        let mut fresh = None;
        loop {
            let (decided, stored) = {
                let mut access = self.access(id)?;
                let decided = access.state.end(id, producer, result, rule, fresh, self.now())?;
                if let End::Prepared(next, _) = &decided {
                    self.store(&mut access, id, next)?;
                }
                (decided, access.stored())
            };
            match decided {
                End::NeedsProducerId => fresh = Some(self.producer_ids.next().await?),
                End::Done(identity) => return stored.settled().await.map(|()| identity),
                End::Prepared(_, identity) => {
                    // Markers may be written only after the decision is committed.
                    stored.settled().await?;
                    self.begin_completing(id).await;
                    return Ok(identity);
                }
            }
        }
    }

    /// Writes the markers immediately if nothing has to be waited for, and otherwise in a task, which continues even if the client disconnects.
    async fn begin_completing(self: &Arc<Self>, id: &str) -> Option<JoinHandle<Option<()>>> {
        let (this, id) = (self.clone(), id.to_string());
        let mut completing: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move { this.complete(&id).await });
        let done = poll_fn(|context| Poll::Ready(completing.as_mut().poll(context).is_ready())).await;
        (!done).then(|| self.tasks.spawn("the end of a transaction", completing))
    }

    /// Writes the markers of a decided transaction into all its partitions, and stores that this is complete. If a marker cannot be written now, it
    /// is retried later.
    async fn complete(&self, id: &str) {
        let begun = self.access(id).map(|mut access| {
            let term = access.term();
            access.state.begin_completing(id, term.coordinator_epoch()).map(|work| (work, term))
        });
        let Ok(Some((work, term))) = begun else { return };
        let written = self.write_markers(&work).await;
        let Some(mut access) = self.access_in(id, term) else { return };
        if let Err(error) = written {
            debug!(error = error.name(), transactional_id = id, "the markers of a transaction could not be written to all partitions");
            return access.state.stop_completing(id);
        }
        let next = access.state.completed(id, &work, self.now());
        if self.store(&mut access, id, &next).is_err() {
            access.state.stop_completing(id);
        }
    }

    async fn write_markers(&self, work: &ToComplete) -> Result<(), ErrorCode> {
        let mut written = Vec::with_capacity(work.partitions.len());
        let mut outcome = Ok(());
        for partition in &work.partitions {
            match self.write_marker(partition, &work.marker, work.rule) {
                Ok(Some((replica, position))) => written.push(Stored::at(replica, position)),
                // The partition was deleted, and its part of the transaction with it.
                Ok(None) if self.metadata.is_deleted(partition) => {}
                // The partition is not available here now. It may be opened later, and its readers would then wait for the marker forever.
                Ok(None) => outcome = Err(ErrorCode::UnknownTopicOrPartition),
                // A newer marker was written first.
                Err(ErrorCode::InvalidProducerEpoch) => {}
                Err(error) => outcome = Err(error),
            }
        }
        for stored in written {
            stored.settled().await?;
        }
        outcome
    }

    /// Writes a marker into a partition on this broker, and returns the position that must be committed; none if the partition does not exist any
    /// more. If a newer marker of the same producer was already written, the marker counts as written.
    pub fn write_marker(
        &self,
        id: &TopicPartition,
        marker: &Marker,
        rule: EpochRule,
    ) -> Result<Option<(Arc<Replica>, Position)>, ErrorCode> {
        let replica = match self.partitions.find(&id.topic, id.partition) {
            Ok(replica) => replica,
            Err(partition::Error::Unknown(_)) => return Ok(None),
            Err(_) => return Err(ErrorCode::KafkaStorageError),
        };
        let ended = match &*id.topic {
            OFFSETS_TOPIC => self.groups.end_transaction(id.partition, marker, rule)?,
            _ => replica.end_transaction(marker, rule, self.env.clock.wall_ms()).map(|ended| (replica, ended.position)),
        };
        match ended {
            Ok(written) => Ok(Some(written)),
            Err(partition::Error::Closed(_) | partition::Error::NotLeader(_)) => Err(ErrorCode::NotLeaderOrFollower),
            Err(partition::Error::Storage(partition::StorageError::ProducerFenced { .. })) => Err(ErrorCode::InvalidProducerEpoch),
            Err(partition::Error::Storage(partition::StorageError::CoordinatorFenced { .. })) => {
                Err(ErrorCode::TransactionCoordinatorFenced)
            }
            Err(error) => {
                error!(%error, partition = %id, "the marker of a transaction could not be written; the write is retried");
                Err(ErrorCode::KafkaStorageError)
            }
        }
    }

    /// One transactional id; none if it is unknown.
    pub fn describe(&self, id: &str) -> Result<Option<TransactionView>, ErrorCode> {
        Ok(self.access(id)?.state.describe(id))
    }

    /// All transactional ids of this broker; an error while some of them are being loaded.
    pub fn list(&self) -> Result<Vec<TransactionView>, ErrorCode> {
        let mut all = Vec::new();
        for number in 0..self.instances.count() {
            match self.instances.access(number) {
                Ok(access) => all.extend(access.state.list()),
                Err(ErrorCode::CoordinatorLoadInProgress) => return Err(ErrorCode::CoordinatorLoadInProgress),
                Err(_) => {}
            }
        }
        Ok(all)
    }

    /// The age of a transaction in wall-clock time.
    pub fn age_ms(&self, start_ms: i64) -> i64 {
        self.env.clock.wall_ms().saturating_sub(start_ms)
    }

    /// The number of partitions of the transactions' topic.
    pub fn partition_count(&self) -> i32 {
        self.instances.count()
    }

    /// Aborts transactions that time out, resumes interrupted ones, and deletes unused transactional ids, until it is stopped.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let every = |ms: i64| tokio::time::interval(Duration::from_millis(ms.max(1) as u64));
        let mut late = every(self.settings.abort_check_ms);
        let mut expired = every(self.settings.expiration_check_ms);
        let mut again = tokio::time::interval(COMPLETE_AGAIN);
        let _resigns = self.instances.resign_at_end();
        loop {
            // Cancelling a wait loses nothing: pending work is determined anew.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = late.tick() => self.abort_late(),
                _ = expired.tick() => self.expire(),
                _ = again.tick() => {}
                () = self.again.notified() => {}
                () = self.instances.outdated() => self.load_again().await,
            }
            let of = |access: Access<'_, TransactionShard>| (access.state.to_complete(), access.stored());
            let waiting: Vec<(Vec<String>, Stored)> = self.instances.active().map(|(_, access)| of(access)).collect();
            for (id, stored) in waiting.into_iter().flat_map(|(ids, stored)| ids.into_iter().map(move |id| (id, stored.clone()))) {
                // Markers are written only for decisions that are stored and committed.
                // The broker must not wait for a commit in order to stop: a decision that is not committed is found by the next start or was not made.
                match stop.run_until_cancelled(stored.settled()).await {
                    Some(Ok(())) => drop(self.begin_completing(&id).await),
                    Some(Err(_)) => {}
                    None => break,
                }
            }
        }
    }

    async fn load_again(self: &Arc<Self>) {
        let this = self.clone();
        if let Err(error) = self.env.workers.blocking(move || this.load()).await {
            error!(%error, "transactions could not be loaded in a new leader epoch");
        }
    }

    fn abort_late(&self) {
        let now = self.now();
        for (_, mut access) in self.instances.active() {
            for (id, next) in access.state.timed_out(now) {
                info!(transactional_id = id, timeout_ms = next.timeout_ms, "a transaction timed out and is aborted");
                // If the abort cannot be stored now, the next check tries again.
                let _ = self.store(&mut access, &id, &next);
            }
        }
    }

    fn expire(&self) {
        let now = self.now();
        for (_, mut access) in self.instances.active() {
            for id in access.state.expired(self.settings.expiration_ms, now) {
                if access.store(&[encode(&id, None)], None, now.wall_ms).is_ok() {
                    access.state.remove(&id);
                    debug!(transactional_id = id, "an unused transactional id has expired");
                }
            }
        }
    }

    /// Stores a decision and applies it.
    fn store(&self, access: &mut Access<'_, TransactionShard>, id: &str, next: &Transaction) -> Result<(), ErrorCode> {
        access.store(&[encode(id, Some(next))], None, self.now().wall_ms)?;
        access.state.put(id, next.clone());
        Ok(())
    }

    fn access(&self, id: &str) -> Result<Access<'_, TransactionShard>, ErrorCode> {
        self.instances.access(partition_for(id, self.instances.count()))
    }

    /// The instance of an id, if its term is still `term`. An instance of another term has read the decided and incomplete transactions from its
    /// partition.
    fn access_in(&self, id: &str, term: Term) -> Option<Access<'_, TransactionShard>> {
        self.access(id).ok().filter(|access| access.term() == term)
    }

    /// Whether the transactions' topic is on this broker and is not loaded, because it was not created by this coordinator.
    pub fn has_unloaded(&self) -> bool {
        self.instances.has_unloaded()
    }

    /// Topics were deleted: if the transactions' topic is one of them, its instances are dropped.
    pub fn topics_deleted(&self) {
        self.instances.unload_deleted();
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.begin.elapsed().as_millis() as i64, wall_ms: self.env.clock.wall_ms() }
    }
}
