//! Runs the shards: loads them from their partitions, stores their records, wakes them in time, and answers who waits.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::group::Now;
use super::history::Happening;
use super::join::{JoinReply, JoinRequest, SyncReply, SyncRequest};
use super::member::LeavingMember;
use super::offsets::{CommitRequest, Committed};
use super::record::GroupRecord;
use super::shard::{GroupSettings, GroupView, Outcome, Reply, Shard, Token, partition_for};
use crate::env::Env;
use crate::partition::{self, Partitions, Replica};
use crate::protocol::ErrorCode;
use crate::records::{BatchBuilder, NewRecord};

/// The topic that holds all groups.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// Bytes of keys and values that one batch takes; a longer list of records becomes several.
const BATCH_BYTES: usize = 256 * 1024;

/// Where an instance stands.
enum Status {
    /// Reads its partition.
    Loading,
    /// Answers.
    Active(Box<Active>),
    /// The partition is not here, or not any more.
    Resigned,
}

struct Active {
    shard: Shard,
    replica: Arc<Replica>,
    waiting: HashMap<Token, Waiter>,
}

enum Waiter {
    Join(oneshot::Sender<JoinReply>),
    Sync(oneshot::Sender<SyncReply>),
}

/// The offsets of a topic: partition and offset.
pub type TopicOffsets = Vec<(i32, Committed)>;

/// All instances of this broker.
pub struct GroupCoordinator {
    instances: Vec<Mutex<Status>>,
    partitions: Arc<Partitions>,
    settings: GroupSettings,
    env: Env,
    begin: Instant,
    tokens: AtomicU64,
    earlier: Notify,
}

impl GroupCoordinator {
    /// Instances that are still to be loaded.
    pub fn new(env: Env, partitions: Arc<Partitions>, settings: GroupSettings) -> Arc<GroupCoordinator> {
        let instances = (0..settings.partitions).map(|_| Mutex::new(Status::Resigned)).collect();
        Arc::new(GroupCoordinator {
            instances,
            partitions,
            settings,
            env,
            begin: Instant::now(),
            tokens: AtomicU64::new(0),
            earlier: Notify::new(),
        })
    }

    /// Loads every instance whose partition is here and that is not active on it. Blocks while it reads.
    pub fn load(&self) {
        let mut work = Vec::new();
        for number in 0..self.settings.partitions {
            let Some(replica) = self.partitions.get(OFFSETS_TOPIC, number) else { continue };
            let mut status = self.lock(number);
            let loaded = matches!(&*status, Status::Active(active) if Arc::ptr_eq(&active.replica, &replica));
            if !loaded && !matches!(*status, Status::Loading) {
                *status = Status::Loading;
                work.push((number, replica));
            }
        }
        for (number, replica) in work {
            let loaded = self.load_one(replica);
            *self.lock(number) = match loaded {
                Ok(active) => Status::Active(Box::new(active)),
                Err(error) => {
                    error!(partition = number, %error, "groups could not be loaded");
                    Status::Resigned
                }
            };
        }
        self.earlier.notify_one();
    }

    fn load_one(&self, replica: Arc<Replica>) -> Result<Active, partition::Error> {
        let now = self.now();
        let mut shard = Shard::new(self.settings.clone(), now);
        let mut count = 0;
        replica.replay(|header, batch| {
            for record in header.open(batch, usize::MAX)?.records() {
                let record = record?;
                let Some(key) = record.key.map(Bytes::copy_from_slice) else { continue };
                let value = record.value.map(Bytes::copy_from_slice);
                match GroupRecord::decode(&key, value.as_ref()) {
                    Ok(Some(record)) => shard.replay(&record, now),
                    Ok(None) => debug!("a record type of later releases is passed over"),
                    Err(error) => error!(%error, partition = %replica.id(), "a record of a group is malformed and passed over"),
                }
                count += 1;
            }
            Ok::<(), partition::Error>(())
        })?;
        if count > 0 {
            info!(partition = %replica.id(), records = count, "groups loaded");
        }
        Ok(Active { shard, replica, waiting: HashMap::new() })
    }

    /// The instance of a group, where it answers here.
    fn access(&self, group: &str) -> Result<Access<'_>, ErrorCode> {
        self.access_number(partition_for(group, self.settings.partitions))
    }

    fn access_number(&self, number: i32) -> Result<Access<'_>, ErrorCode> {
        let status = self.lock(number);
        match &*status {
            Status::Active(active) if !active.replica.is_closed() => Ok(Access(status)),
            Status::Loading => Err(ErrorCode::CoordinatorLoadInProgress),
            Status::Active(_) | Status::Resigned => Err(ErrorCode::NotCoordinator),
        }
    }

    fn lock(&self, number: i32) -> MutexGuard<'_, Status> {
        self.instances[number as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present.
    fn now(&self) -> Now {
        Now { mono_ms: self.begin.elapsed().as_millis() as i64, wall_ms: self.env.clock.wall_ms() }
    }

    /// Stores an outcome's records and sends its replies. What cannot be stored is answered with an error, and its group rebalances.
    fn carry_out(&self, active: &mut Active, outcome: Outcome) -> Result<(), ErrorCode> {
        let stored = self.store(active, &outcome.records);
        if let Err(error) = stored {
            let undone = active.shard.not_stored(&outcome.records, self.now());
            let replies = outcome.replies.into_iter().chain(undone.replies);
            replies.for_each(|(token, _)| active.refuse(token, error));
        } else {
            outcome.replies.into_iter().for_each(|(token, reply)| active.answer(token, reply));
        }
        self.earlier.notify_one();
        stored
    }

    fn store(&self, active: &Active, records: &[GroupRecord]) -> Result<(), ErrorCode> {
        let mut batch: Vec<(Bytes, Option<Bytes>)> = Vec::new();
        let mut size = 0;
        for record in records {
            let (key, value) = (record.key(), record.value());
            size += key.len() + value.as_ref().map_or(0, Bytes::len);
            batch.push((key, value));
            if size >= BATCH_BYTES {
                self.store_batch(active, &std::mem::take(&mut batch))?;
                size = 0;
            }
        }
        self.store_batch(active, &batch)
    }

    /// Stores records that count only then.
    fn store_and_apply(&self, active: &mut Active, records: &[GroupRecord]) -> Result<(), ErrorCode> {
        self.store(active, records)?;
        let now = self.now();
        records.iter().for_each(|record| active.shard.replay(record, now));
        Ok(())
    }

    fn store_batch(&self, active: &Active, records: &[(Bytes, Option<Bytes>)]) -> Result<(), ErrorCode> {
        if records.is_empty() {
            return Ok(());
        }
        let builder =
            records.iter().fold(BatchBuilder::new(), |builder, (key, value)| builder.record(NewRecord::keyed(key, value.as_deref())));
        let now_ms = self.env.clock.wall_ms();
        match active.replica.produce(&builder.build(now_ms), now_ms) {
            Ok(_) => Ok(()),
            Err(partition::Error::Closed(_)) => Err(ErrorCode::NotCoordinator),
            Err(partition::Error::Records(error)) => {
                error!(%error, partition = %active.replica.id(), "a group's record was refused");
                Err(ErrorCode::UnknownServerError)
            }
            Err(error) => {
                error!(%error, partition = %active.replica.id(), "a group's record could not be stored");
                Err(ErrorCode::CoordinatorNotAvailable)
            }
        }
    }

    /// A member joins; answers when the rebalance has gathered all members.
    pub async fn join(&self, request: JoinRequest) -> JoinReply {
        let (group, member_id) = (request.group.clone(), request.member_id.clone());
        let answer = {
            let mut access = match self.access(&request.group) {
                Ok(access) => access,
                Err(error) => return JoinReply::failed(error, &member_id),
            };
            let active = access.active();
            let (send, answer) = oneshot::channel();
            let token = self.tokens.fetch_add(1, Ordering::Relaxed);
            active.waiting.insert(token, Waiter::Join(send));
            let outcome = active.shard.join(token, request, self.now());
            // Errors have been sent to who waits.
            let _ = self.carry_out(active, outcome);
            answer
        };
        let reply = answer.await.unwrap_or_else(|_| JoinReply::failed(ErrorCode::NotCoordinator, &member_id));
        self.settled(&group).await.map_or_else(|error| JoinReply::failed(error, &member_id), |()| reply)
    }

    /// A member asks for its part; answers when the leader has brought it.
    pub async fn sync(&self, request: SyncRequest) -> SyncReply {
        let group = request.group.clone();
        let answer = {
            let mut access = match self.access(&request.group) {
                Ok(access) => access,
                Err(error) => return SyncReply::failed(error),
            };
            let active = access.active();
            let (send, answer) = oneshot::channel();
            let token = self.tokens.fetch_add(1, Ordering::Relaxed);
            active.waiting.insert(token, Waiter::Sync(send));
            let outcome = active.shard.sync(token, request, self.now());
            let _ = self.carry_out(active, outcome);
            answer
        };
        let reply = answer.await.unwrap_or_else(|_| SyncReply::failed(ErrorCode::NotCoordinator));
        self.settled(&group).await.map_or_else(SyncReply::failed, |()| reply)
    }

    /// A member is alive. While the groups load the answer is yes.
    pub fn heartbeat(&self, group: &str, member: &str, instance: Option<&str>, generation: i32) -> ErrorCode {
        match self.access(group) {
            Ok(mut access) => access.active().shard.heartbeat(group, member, instance, generation, self.now()),
            Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
            Err(error) => error,
        }
    }

    /// Members leave.
    pub async fn leave(&self, group: &str, members: &[LeavingMember]) -> Result<Vec<ErrorCode>, ErrorCode> {
        let results = {
            let mut access = self.access(group)?;
            let active = access.active();
            let (results, outcome) = active.shard.leave(group, members, self.now());
            self.carry_out(active, outcome)?;
            results
        };
        self.settled(group).await?;
        results
    }

    /// Stores offsets; the codes are in the order of the request.
    pub async fn commit(&self, request: &CommitRequest) -> Result<Vec<ErrorCode>, ErrorCode> {
        let now = self.now();
        self.change(&request.group, |shard| shard.commit(request, now)).await
    }

    /// Deletes a group without members, and its offsets.
    pub async fn delete(&self, group: &str) -> Result<(), ErrorCode> {
        self.change(group, |shard| Ok(((), shard.delete(group)?))).await
    }

    /// Deletes committed offsets; the codes are in the order of the request.
    pub async fn delete_offsets(&self, group: &str, partitions: &[(String, i32)]) -> Result<Vec<ErrorCode>, ErrorCode> {
        self.change(group, |shard| shard.delete_offsets(group, partitions)).await
    }

    /// Decides, stores, applies, and answers when all of it is committed.
    async fn change<T>(
        &self,
        group: &str,
        decide: impl FnOnce(&mut Shard) -> Result<(T, Vec<GroupRecord>), ErrorCode>,
    ) -> Result<T, ErrorCode> {
        let answer = {
            let mut access = self.access(group)?;
            let active = access.active();
            let (answer, records) = decide(&mut active.shard)?;
            self.store_and_apply(active, &records)?;
            answer
        };
        self.settled(group).await?;
        Ok(answer)
    }

    /// Waits until everything that a group's instance has stored is committed, so that no power cut takes back what somebody was told.
    pub async fn settled(&self, group: &str) -> Result<(), ErrorCode> {
        let replica = self.access(group)?.active().replica.clone();
        let end = replica.view().log_end;
        replica.committed(end).await.map_err(|error| match error {
            partition::Error::Closed(_) => ErrorCode::NotCoordinator,
            _ => ErrorCode::CoordinatorNotAvailable,
        })
    }

    /// Committed offsets of the partitions of one topic, in their order.
    pub fn committed(&self, group: &str, topic: &str, partitions: &[i32]) -> Result<Vec<Option<Committed>>, ErrorCode> {
        let mut access = self.access(group)?;
        let shard = &access.active().shard;
        Ok(partitions.iter().map(|partition| shard.committed(group, topic, *partition).cloned()).collect())
    }

    /// All committed offsets of a group by topic.
    pub fn all_committed(&self, group: &str) -> Result<Vec<(String, TopicOffsets)>, ErrorCode> {
        let mut access = self.access(group)?;
        let mut topics: Vec<(String, TopicOffsets)> = Vec::new();
        for (topic, partition, committed) in access.active().shard.all_committed(group) {
            match topics.last_mut().filter(|(name, _)| name == topic) {
                Some((_, offsets)) => offsets.push((partition, committed.clone())),
                None => topics.push((topic.to_string(), vec![(partition, committed.clone())])),
            }
        }
        Ok(topics)
    }

    /// One group; none where there is no such group.
    pub fn describe(&self, group: &str) -> Result<Option<GroupView>, ErrorCode> {
        if group.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        Ok(self.access(group)?.active().shard.describe(group))
    }

    /// What happened to a group since this broker coordinates it, oldest first; none where there is no such group.
    pub fn history(&self, group: &str) -> Result<Option<Vec<Happening>>, ErrorCode> {
        Ok(self.access(group)?.active().shard.history(group))
    }

    /// All groups of this broker; an error while some of them load.
    pub fn list(&self) -> Result<Vec<GroupView>, ErrorCode> {
        let mut groups = Vec::new();
        for number in 0..self.settings.partitions {
            match self.access_number(number) {
                Ok(mut access) => groups.extend(access.active().shard.list()),
                Err(ErrorCode::CoordinatorLoadInProgress) => return Err(ErrorCode::CoordinatorLoadInProgress),
                Err(_) => {}
            }
        }
        Ok(groups)
    }

    /// The offsets of deleted topics end.
    pub fn topics_deleted(&self, topics: &BTreeSet<&str>) {
        for number in 0..self.settings.partitions {
            let Ok(mut access) = self.access_number(number) else { continue };
            let active = access.active();
            let records = active.shard.topics_deleted(topics);
            // What cannot be stored now goes when it expires.
            let _ = self.store_and_apply(active, &records);
        }
    }

    /// Whether a group's instance is active here.
    pub fn is_active(&self, group: &str) -> bool {
        self.access(group).is_ok()
    }

    /// The number of partitions of the offsets topic.
    pub fn partition_count(&self) -> i32 {
        self.settings.partitions
    }

    /// Wakes the shards in time, until told to stop; then everybody who waits is told that this broker coordinates no more.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let next =
                (0..self.settings.partitions).filter_map(|n| Some(self.access_number(n).ok()?.active().shard.next_deadline_ms())).min();
            let wake_at = next.map(|ms| self.begin + Duration::from_millis(ms.max(0) as u64));
            // Cancelling either wait loses nothing: the deadlines are computed anew.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.earlier.notified() => {}
                () = async { match wake_at { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => {}
            }
            self.tick();
        }
        for number in 0..self.settings.partitions {
            *self.lock(number) = Status::Resigned;
        }
    }

    fn tick(&self) {
        let now = self.now();
        for number in 0..self.settings.partitions {
            let Ok(mut access) = self.access_number(number) else { continue };
            let active = access.active();
            if active.shard.next_deadline_ms() > now.mono_ms {
                continue;
            }
            let outcome = active.shard.tick(now);
            let expired: Vec<GroupRecord> = outcome.records.iter().filter(|r| r.value().is_none()).cloned().collect();
            if !outcome.records.is_empty() || !outcome.replies.is_empty() {
                let stored = self.carry_out(active, outcome);
                if stored.is_ok() {
                    expired.iter().for_each(|record| active.shard.replay(record, now));
                }
            }
        }
    }
}

/// A locked instance that is known to be active.
struct Access<'a>(MutexGuard<'a, Status>);

impl Access<'_> {
    fn active(&mut self) -> &mut Active {
        match &mut *self.0 {
            Status::Active(active) => active,
            Status::Loading | Status::Resigned => unreachable!("checked when the lock was taken"),
        }
    }
}

impl Active {
    fn answer(&mut self, token: Token, reply: Reply) {
        // Who waited may have hung up; its membership ends by time.
        match (self.waiting.remove(&token), reply) {
            (Some(Waiter::Join(send)), Reply::Join(reply)) => drop(send.send(reply)),
            (Some(Waiter::Sync(send)), Reply::Sync(reply)) => drop(send.send(reply)),
            (None, _) => {}
            (Some(_), reply) => unreachable!("a reply of another kind: {reply:?}"),
        }
    }

    fn refuse(&mut self, token: Token, error: ErrorCode) {
        match self.waiting.remove(&token) {
            Some(Waiter::Join(send)) => drop(send.send(JoinReply::failed(error, ""))),
            Some(Waiter::Sync(send)) => drop(send.send(SyncReply::failed(error))),
            None => {}
        }
    }
}
