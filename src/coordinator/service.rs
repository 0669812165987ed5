//! Runs the shards: loads them from their partitions, stores their records, calls them at their deadlines, and answers waiting requests.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::group::Now;
use super::history::GroupEvent;
use super::instances::{self, InTransaction, Instances, KeyValue, Silence, Stored};
use super::join::{JoinReply, JoinRequest, SyncReply, SyncRequest};
use super::member::LeavingMember;
use super::offsets::{CommitRequest, Committed};
use super::record::GroupRecord;
use super::shard::{Commits, GroupSettings, GroupView, Outcome, Place, Reply, Shard, Token, partition_for};
use super::transactions::Identity;
use crate::env::Env;
use crate::model::{Offset, ProducerId, TopicPartition};
use crate::partition::{self, Partitions, Position, Replica, Verification};
use crate::protocol::ErrorCode;
use crate::records::{EpochRule, Marker};

/// The topic that stores all groups.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The groups of a partition, and the requests that wait for them.
struct Groups {
    shard: Shard,
    waiting: HashMap<Token, Waiter>,
}

type Active = instances::Active<Groups>;
type Access<'a> = instances::Access<'a, Groups>;

/// A waiting request, with the position that must be committed before its response is sent.
enum Waiter {
    Join(oneshot::Sender<(JoinReply, Stored)>),
    Sync(oneshot::Sender<(SyncReply, Stored)>),
}

/// Why the state of a group cannot be returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKnown {
    /// The broker has just started, or the offsets topic was just created.
    #[error("the groups are still being loaded")]
    Loading,
    /// The group's partition of the offsets topic cannot be used.
    #[error("partition {0} of __consumer_offsets is offline or could not be read; see the broker's log")]
    Offline(i32),
    /// The broker stops.
    #[error("the broker is stopping")]
    Stopping,
}

/// The committed offsets of a topic: partition and offset.
pub type TopicOffsets = Vec<(i32, Committed)>;

/// All instances of this broker.
pub struct GroupCoordinator {
    instances: Instances<Groups>,
    settings: GroupSettings,
    env: Env,
    begin: Instant,
    tokens: AtomicU64,
    earlier: Notify,
}

impl GroupCoordinator {
    /// Creates the coordinator; no instance is loaded yet.
    pub fn new(env: Env, partitions: Arc<Partitions>, settings: GroupSettings) -> Arc<GroupCoordinator> {
        Arc::new(GroupCoordinator {
            instances: Instances::new(OFFSETS_TOPIC, partitions, settings.partitions),
            settings,
            env,
            begin: Instant::now(),
            tokens: AtomicU64::new(0),
            earlier: Notify::new(),
        })
    }

    /// Loads every instance whose partition is on this broker and that is not loaded from it. Blocks on reads.
    pub fn load(&self) {
        self.instances.load(|replica| self.load_one(replica));
        self.earlier.notify_one();
    }

    fn load_one(&self, replica: &Replica) -> Result<Groups, partition::Error> {
        let now = self.now();
        let mut shard = Shard::new(self.settings.clone(), now);
        let mut count = 0;
        replica.replay(|header, batch| {
            if let Some(marker) = Marker::read(header, batch)? {
                shard.end_transaction(marker.producer_id, marker.result);
            }
            if header.is_control() {
                return Ok(());
            }
            let producer = header.is_transactional().then_some(header.producer_id);
            for record in header.open(batch, usize::MAX)?.records() {
                let record = record?;
                let Some(key) = record.key.map(Bytes::copy_from_slice) else { continue };
                let value = record.value.map(Bytes::copy_from_slice);
                let place = Place { offset: header.base_offset.plus(i64::from(record.offset_delta)), producer };
                match GroupRecord::decode(&key, value.as_ref()) {
                    Ok(Some(record)) => {
                        if let Err(error) = shard.replay(&record, place, now) {
                            warn!(%error, partition = %replica.id(), offset = %place.offset, "a stored group record is inconsistent with earlier ones");
                        }
                    }
                    Ok(None) => debug!("a record of an unknown type is ignored; it was written by a later release"),
                    Err(error) => {
                        let offset = place.offset;
                        error!(%error, partition = %replica.id(), %offset, "a malformed group record is ignored");
                    }
                }
                count += 1;
            }
            Ok(())
        })?;
        shard.assert_sound();
        if count > 0 {
            info!(partition = %replica.id(), records = count, "groups loaded");
        }
        Ok(Groups { shard, waiting: HashMap::new() })
    }

    /// The instance of a group, if it is loaded on this broker.
    fn access(&self, group: &str) -> Result<Access<'_>, ErrorCode> {
        self.instances.access(partition_for(group, self.instances.count()))
    }

    /// The current time.
    fn now(&self) -> Now {
        Now { mono_ms: self.begin.elapsed().as_millis() as i64, wall_ms: self.env.clock.wall_ms() }
    }

    /// Stores an outcome's records and sends its replies. If storing fails, the replies are errors and the group rebalances.
    fn carry_out(&self, active: &mut Active, outcome: Outcome) -> Result<Vec<Offset>, ErrorCode> {
        let stored = self.store(active, &outcome.records, None);
        if let Err(error) = stored {
            let undone = active.state.shard.not_stored(&outcome.records, self.now());
            let replies = outcome.replies.into_iter().chain(undone.replies);
            let until = active.stored();
            replies.for_each(|(token, _)| active.state.refuse(token, error, &until));
        } else {
            let until = active.stored();
            outcome.replies.into_iter().for_each(|(token, reply)| active.state.answer(token, reply, &until));
        }
        self.earlier.notify_one();
        stored
    }

    fn store(&self, active: &mut Active, records: &[GroupRecord], of: Option<InTransaction<'_>>) -> Result<Vec<Offset>, ErrorCode> {
        let pairs: Vec<KeyValue> = records.iter().map(|record| (record.key(), record.value())).collect();
        active.store(&pairs, of, self.env.clock.wall_ms())
    }

    /// Stores records and then applies them; records that are part of a transaction take effect once that is committed.
    fn store_and_apply(&self, active: &mut Active, records: &[GroupRecord], of: Option<InTransaction<'_>>) -> Result<(), ErrorCode> {
        let offsets = self.store(active, records, of)?;
        let (now, producer) = (self.now(), of.map(|of| of.producer_id));
        let places = offsets.into_iter().map(|offset| Place { offset, producer });
        records.iter().zip(places).for_each(|(record, place)| active.state.shard.apply(record, place, now));
        Ok(())
    }

    /// A member joins; returns when all members of the rebalance have joined.
    pub async fn join(&self, request: JoinRequest) -> JoinReply {
        let member_id = request.member_id.clone();
        let answer = {
            let mut access = match self.access(&request.group) {
                Ok(access) => access,
                Err(error) => return JoinReply::failed(error, &member_id),
            };
            let active = &mut *access;
            let (send, answer) = oneshot::channel();
            let token = self.tokens.fetch_add(1, Ordering::Relaxed);
            active.state.waiting.insert(token, Waiter::Join(send));
            let outcome = active.state.shard.join(token, request, self.now());
            // If storing failed, the waiting requests have already been answered with errors.
            let _ = self.carry_out(active, outcome);
            answer
        };
        let Ok((reply, stored)) = answer.await else { return JoinReply::failed(ErrorCode::NotCoordinator, &member_id) };
        stored.settled().await.map_or_else(|error| JoinReply::failed(error, &member_id), |()| reply)
    }

    /// A member requests its assignment; returns when the leader has sent it.
    pub async fn sync(&self, request: SyncRequest) -> SyncReply {
        let answer = {
            let mut access = match self.access(&request.group) {
                Ok(access) => access,
                Err(error) => return SyncReply::failed(error),
            };
            let active = &mut *access;
            let (send, answer) = oneshot::channel();
            let token = self.tokens.fetch_add(1, Ordering::Relaxed);
            active.state.waiting.insert(token, Waiter::Sync(send));
            let outcome = active.state.shard.sync(token, request, self.now());
            let _ = self.carry_out(active, outcome);
            answer
        };
        let Ok((reply, stored)) = answer.await else { return SyncReply::failed(ErrorCode::NotCoordinator) };
        stored.settled().await.map_or_else(SyncReply::failed, |()| reply)
    }

    /// A heartbeat of a member. Succeeds while the groups are being loaded.
    pub fn heartbeat(&self, group: &str, member: &str, instance: Option<&str>, generation: i32) -> ErrorCode {
        match self.access(group) {
            Ok(mut access) => access.state.shard.heartbeat(group, member, instance, generation, self.now()),
            Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
            Err(error) => error,
        }
    }

    /// Members leave.
    pub async fn leave(&self, group: &str, members: &[LeavingMember]) -> Result<Vec<ErrorCode>, ErrorCode> {
        let (results, stored) = {
            let mut access = self.access(group)?;
            let active = &mut *access;
            let (results, outcome) = active.state.shard.leave(group, members, self.now());
            self.carry_out(active, outcome)?;
            (results, active.stored())
        };
        stored.settled().await?;
        results
    }

    /// Stores committed offsets; the codes are in the order of the request.
    pub async fn commit(&self, request: &CommitRequest) -> Result<Vec<ErrorCode>, ErrorCode> {
        let now = self.now();
        self.change(&request.group, |shard| shard.commit(request, Commits::Alone, now)).await
    }

    /// Deletes a group without members, and its offsets.
    pub async fn delete(&self, group: &str) -> Result<(), ErrorCode> {
        self.change(group, |shard| Ok(((), shard.delete(group)?))).await
    }

    /// Deletes committed offsets; the codes are in the order of the request.
    pub async fn delete_offsets(&self, group: &str, partitions: &[(String, i32)]) -> Result<Vec<ErrorCode>, ErrorCode> {
        self.change(group, |shard| shard.delete_offsets(group, partitions)).await
    }

    /// Must be called before the coordinator of a producer's transaction is asked whether the producer may commit offsets of this group; see
    /// [`Replica::begin_verification`].
    pub fn begin_verification(&self, group: &str, producer: ProducerId) -> Result<Option<Verification>, ErrorCode> {
        Ok(self.access(group)?.replica.begin_verification(producer))
    }

    /// Stores offsets as part of a transaction; they take effect once it is committed. The codes are in the order of the request.
    pub async fn commit_in_transaction(
        &self,
        request: &CommitRequest,
        producer: Identity,
        verification: Option<&Verification>,
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        let (codes, stored) = {
            let mut access = self.access(&request.group)?;
            let (codes, records) = access.state.shard.commit(request, Commits::InTransaction, self.now())?;
            let of = InTransaction { producer_id: producer.id, producer_epoch: producer.epoch, verification };
            self.store_and_apply(&mut access, &records, Some(of))?;
            (codes, access.stored())
        };
        stored.settled().await?;
        Ok(codes)
    }

    /// Ends a producer's transaction in a partition of the offsets topic: writes the marker there, and then applies or discards the offsets of the
    /// transaction. Returns the marker's position. The outer error is returned if this partition is not loaded here now.
    pub fn end_transaction(
        &self,
        partition: i32,
        marker: &Marker,
        rule: EpochRule,
    ) -> Result<Result<(Arc<Replica>, Position), partition::Error>, ErrorCode> {
        let mut access = self.instances.access(partition)?;
        let ended = access.end_transaction(marker, rule, self.env.clock.wall_ms());
        if ended.is_ok() {
            access.state.shard.end_transaction(marker.producer_id, marker.result);
        }
        Ok(ended.map(|position| (access.replica.clone(), position)))
    }

    /// The partition that stores a group.
    pub fn partition_for(&self, group: &str) -> TopicPartition {
        TopicPartition::new(OFFSETS_TOPIC, partition_for(group, self.instances.count()))
    }

    /// Decides, stores, applies, and returns when all of it is committed.
    async fn change<T>(
        &self,
        group: &str,
        decide: impl FnOnce(&mut Shard) -> Result<(T, Vec<GroupRecord>), ErrorCode>,
    ) -> Result<T, ErrorCode> {
        let (answer, stored) = {
            let mut access = self.access(group)?;
            let active = &mut *access;
            let (answer, records) = decide(&mut active.state.shard)?;
            self.store_and_apply(active, &records, None)?;
            (answer, active.stored())
        };
        stored.settled().await?;
        Ok(answer)
    }

    /// Waits until everything that a group's instance has stored is committed, so that a power loss cannot revert a change that was acknowledged.
    pub async fn settled(&self, group: &str) -> Result<(), ErrorCode> {
        let stored = self.access(group)?.stored();
        stored.settled().await
    }

    /// The committed offsets of partitions of one topic, in the order of the request.
    pub fn committed(&self, group: &str, topic: &str, partitions: &[i32]) -> Result<Vec<Option<Committed>>, ErrorCode> {
        let access = self.access(group)?;
        let shard = &access.state.shard;
        Ok(partitions.iter().map(|partition| shard.committed(group, topic, *partition).cloned()).collect())
    }

    /// Which partitions of a topic have an offset that is part of an open transaction.
    pub fn undecided(&self, group: &str, topic: &str, partitions: &[i32]) -> Result<Vec<bool>, ErrorCode> {
        let access = self.access(group)?;
        Ok(partitions.iter().map(|partition| access.state.shard.is_undecided(group, topic, *partition)).collect())
    }

    /// All committed offsets of a group by topic.
    pub fn all_committed(&self, group: &str) -> Result<Vec<(String, TopicOffsets)>, ErrorCode> {
        let access = self.access(group)?;
        let mut topics: Vec<(String, TopicOffsets)> = Vec::new();
        for (topic, partition, committed) in access.state.shard.all_committed(group) {
            match topics.last_mut().filter(|(name, _)| name == topic) {
                Some((_, offsets)) => offsets.push((partition, committed.clone())),
                None => topics.push((topic.to_string(), vec![(partition, committed.clone())])),
            }
        }
        Ok(topics)
    }

    /// One group; none if it does not exist.
    pub fn describe(&self, group: &str) -> Result<Option<GroupView>, ErrorCode> {
        Ok(self.access(group)?.state.shard.describe(group))
    }

    /// One group with its events since this broker became its coordinator, oldest first, for display to people; none if the group does not exist.
    /// While the offsets topic does not exist (the first group creates it), no group exists.
    pub fn look_up(&self, group: &str) -> Result<Option<(GroupView, Vec<GroupEvent>)>, NotKnown> {
        let number = partition_for(group, self.instances.count());
        match self.instances.look(number) {
            Ok(access) => Ok(access.state.shard.describe(group).zip(access.state.shard.history(group))),
            Err(Silence::Absent) => Ok(None),
            Err(Silence::Loading | Silence::Untouched) => Err(NotKnown::Loading),
            Err(Silence::Failed) => Err(NotKnown::Offline(number)),
            Err(Silence::Resigned) => Err(NotKnown::Stopping),
        }
    }

    /// All groups of this broker; an error while some of them are being loaded.
    pub fn list(&self) -> Result<Vec<GroupView>, ErrorCode> {
        let mut groups = Vec::new();
        for number in 0..self.instances.count() {
            match self.instances.access(number) {
                Ok(access) => groups.extend(access.state.shard.list()),
                Err(ErrorCode::CoordinatorLoadInProgress) => return Err(ErrorCode::CoordinatorLoadInProgress),
                Err(_) => {}
            }
        }
        Ok(groups)
    }

    /// Whether the offsets topic is on this broker and its groups are not loaded, because the topic was not created by this coordinator.
    pub fn has_unloaded(&self) -> bool {
        self.instances.has_unloaded()
    }

    /// Deletes the offsets of deleted topics. If the offsets topic itself is deleted, all waits for its groups end.
    pub fn topics_deleted(&self, topics: &BTreeSet<&str>) {
        self.instances.unload_deleted();
        for (_, mut access) in self.instances.active() {
            let records = access.state.shard.topics_deleted(topics);
            // If the deletion cannot be stored now, the offset is deleted when it expires.
            let _ = self.store_and_apply(&mut access, &records, None);
        }
    }

    /// Whether a group's instance is loaded on this broker.
    pub fn is_active(&self, group: &str) -> bool {
        self.access(group).is_ok()
    }

    /// The number of partitions of the offsets topic.
    pub fn partition_count(&self) -> i32 {
        self.instances.count()
    }

    /// Calls the shards at their deadlines until they are stopped; then resigns, which ends all waits for groups.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let _resigns = self.instances.resign_at_end();
        loop {
            let next = self.instances.active().map(|(_, access)| access.state.shard.next_deadline_ms()).min();
            let wake_at = next.map(|ms| self.begin + Duration::from_millis(ms.max(0) as u64));
            // Cancelling either wait loses nothing: the deadlines are recomputed.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.earlier.notified() => {}
                () = self.instances.outdated() => self.load_again().await,
                () = async { match wake_at { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => {}
            }
            self.tick();
        }
    }

    async fn load_again(self: &Arc<Self>) {
        let this = self.clone();
        if let Err(error) = self.env.workers.blocking(move || this.load()).await {
            error!(%error, "groups could not be loaded in a new leader epoch");
        }
    }

    fn tick(&self) {
        let now = self.now();
        for (_, mut access) in self.instances.active() {
            let active = &mut *access;
            if active.state.shard.next_deadline_ms() > now.mono_ms {
                continue;
            }
            let outcome = active.state.shard.tick(now);
            let records = outcome.records.clone();
            if !outcome.records.is_empty() || !outcome.replies.is_empty() {
                let offsets = self.carry_out(active, outcome).unwrap_or_default();
                let expired = records.iter().zip(offsets).filter(|(record, _)| record.value().is_none());
                expired.for_each(|(record, offset)| active.state.shard.apply(record, Place { offset, producer: None }, now));
            }
        }
    }
}

impl Groups {
    fn answer(&mut self, token: Token, reply: Reply, until: &Stored) {
        // The waiting client may have disconnected; its membership then ends by its session timeout.
        match (self.waiting.remove(&token), reply) {
            (Some(Waiter::Join(send)), Reply::Join(reply)) => drop(send.send((reply, until.clone()))),
            (Some(Waiter::Sync(send)), Reply::Sync(reply)) => drop(send.send((reply, until.clone()))),
            (None, _) => {}
            (Some(_), reply) => unreachable!("a reply of another kind: {reply:?}"),
        }
    }

    fn refuse(&mut self, token: Token, error: ErrorCode, until: &Stored) {
        match self.waiting.remove(&token) {
            Some(Waiter::Join(send)) => drop(send.send((JoinReply::failed(error, ""), until.clone()))),
            Some(Waiter::Sync(send)) => drop(send.send((SyncReply::failed(error), until.clone()))),
            None => {}
        }
    }
}
