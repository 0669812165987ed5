//! The groups of one partition of `__consumer_offsets`: processes events and returns records and replies.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::consumer_protocol::subscribed_topics;
use super::group::{Group, GroupState, Now};
use super::history::{GroupEvent, GroupEventKind};
use super::join::{JoinReply, JoinRequest, JoinRules, SyncReply, SyncRequest};
use super::member::{LeavingMember, MemberView};
use super::offsets::{CommitRequest, Committed, UndecidedOffsets};
use super::record::{Contradiction, GroupRecord, offset_value};
use crate::model::{Offset, ProducerId};
use crate::protocol::ErrorCode;
use crate::protocol::generated::consumer_offsets::{GroupMetadataKey, OffsetCommitKey};
use crate::records::TransactionResult;

/// Identifies a request that waits for its reply.
pub type Token = u64;

/// The broker's settings for groups; names are Kafka's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSettings {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i64,
    /// `group.max.size`.
    pub members_max: usize,
    /// `offset.metadata.max.bytes`.
    pub metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub retention_check_ms: i64,
    /// `offsets.topic.num.partitions`.
    pub partitions: i32,
}

/// The position of a record, and the transaction that it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its offset.
    pub offset: Offset,
    /// The producer of the transaction; none if the record is not transactional.
    pub producer: Option<ProducerId>,
}

/// How offsets are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commits {
    /// Effective immediately.
    Alone,
    /// As part of a producer's transaction.
    InTransaction,
}

/// The reply to a waiting request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a JoinGroup.
    Join(JoinReply),
    /// To a SyncGroup.
    Sync(SyncReply),
}

/// The result of an event: the records are stored in the partition first, then the replies are sent.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// Changes to be stored.
    pub records: Vec<GroupRecord>,
    /// Replies to waiting requests.
    pub replies: Vec<(Token, Reply)>,
}

impl Outcome {
    pub(super) fn reply(&mut self, token: Token, reply: Reply) {
        self.replies.push((token, reply));
    }
}

/// A group as DescribeGroups and ListGroups return it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: GroupState,
    /// `consumer` etc.; empty if the group never had a member.
    pub protocol_type: String,
    /// The chosen protocol; only in state Stable.
    pub protocol: String,
    /// Its members.
    pub members: Vec<MemberView>,
}

/// The partition of `__consumer_offsets` that stores a group: Java's `String.hashCode` without its sign, modulo the number of partitions.
pub fn partition_for(group: &str, partitions: i32) -> i32 {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    let positive = if hash == i32::MIN { 0 } else { hash.abs() };
    positive % partitions.max(1)
}

/// The state machine of one partition's groups.
#[derive(Debug)]
pub struct Shard {
    groups: BTreeMap<String, Group>,
    undecided: UndecidedOffsets,
    settings: GroupSettings,
    retention_check_at_ms: i64,
}

impl Shard {
    /// A shard without groups.
    pub fn new(settings: GroupSettings, now: Now) -> Shard {
        let retention_check_at_ms = now.mono_ms + settings.retention_check_ms;
        Shard { groups: BTreeMap::new(), undecided: UndecidedOffsets::default(), retention_check_at_ms, settings }
    }

    /// Applies a record that is stored in the partition.
    pub fn replay(&mut self, record: &GroupRecord, place: Place, now: Now) -> Result<(), Contradiction> {
        match record {
            GroupRecord::Offset(key, Some(value)) => {
                let group = self.groups.entry(key.group.clone()).or_insert_with(|| Group::new(&key.group, now));
                let committed = Committed {
                    offset: value.offset,
                    leader_epoch: value.leader_epoch,
                    metadata: value.metadata.clone(),
                    commit_ms: value.commit_timestamp,
                    expire_ms: Some(value.expire_timestamp).filter(|ms| *ms >= 0),
                    log_offset: place.offset,
                };
                match place.producer {
                    Some(producer) => {
                        self.undecided.add(producer, (key.group.clone(), key.topic.clone(), key.partition), committed);
                    }
                    None => {
                        let id = (key.topic.clone(), key.partition);
                        let before = group.offsets.get(&id).map_or(Offset(0), |before| before.log_offset);
                        if before > place.offset {
                            let what =
                                format!("an offset of {id:?} is stored at {}, after a newer one at {before}; it is skipped", place.offset);
                            return Err(Contradiction { of: format!("group {}", key.group), what });
                        }
                        group.offsets.insert(id, committed);
                    }
                }
            }
            GroupRecord::Offset(key, None) => {
                self.undecided.forget(&(key.group.clone(), key.topic.clone(), key.partition));
                if let Some(group) = self.groups.get_mut(&key.group) {
                    // A group without offsets stays until it is deleted or expires, as in Kafka.
                    group.offsets.remove(&(key.topic.clone(), key.partition));
                }
            }
            GroupRecord::Group(key, Some(value)) => {
                let group = self.groups.entry(key.group.clone()).or_insert_with(|| Group::new(&key.group, now));
                return group.restore(value, now);
            }
            GroupRecord::Group(key, None) => {
                self.groups.remove(&key.group);
            }
        }
        Ok(())
    }

    /// Applies a record that this shard has decided and that was stored then.
    pub(super) fn apply(&mut self, record: &GroupRecord, place: Place, now: Now) {
        let applied = self.replay(record, place, now);
        assert!(applied.is_ok(), "{place:?} was given to a record that contradicts others: {applied:?}");
    }

    /// Asserts the invariants of all groups.
    pub fn assert_sound(&self) {
        self.groups.values().for_each(Group::assert_sound);
    }

    /// A producer's transaction ends: if it is committed, its offsets take effect, except for keys with a later commit.
    pub fn end_transaction(&mut self, producer: ProducerId, result: TransactionResult) {
        let ended = self.undecided.end(producer);
        assert!(!self.undecided.has(producer), "{producer:?} has ended and still has offsets without an end");
        for ((group, topic, partition), committed) in ended {
            let group = self.groups.get_mut(&group).filter(|_| result == TransactionResult::Commit);
            let Some(group) = group else { continue };
            let newer = group.offsets.get(&(topic.clone(), partition)).is_some_and(|known| known.log_offset > committed.log_offset);
            if !newer {
                group.offsets.insert((topic, partition), committed);
            }
        }
    }

    /// Whether an offset is part of an open transaction.
    pub fn is_undecided(&self, group: &str, topic: &str, partition: i32) -> bool {
        self.undecided.contains(&(group.to_string(), topic.to_string(), partition))
    }

    /// A member joins.
    pub fn join(&mut self, token: Token, request: JoinRequest, now: Now) -> Outcome {
        let mut outcome = Outcome::default();
        let refuse =
            |error| Outcome { records: Vec::new(), replies: vec![(token, Reply::Join(JoinReply::failed(error, &request.member_id)))] };
        if request.group.is_empty() {
            return refuse(ErrorCode::InvalidGroupId);
        }
        if !(self.settings.session_timeout_min_ms..=self.settings.session_timeout_max_ms).contains(&request.session_timeout_ms) {
            return refuse(ErrorCode::InvalidSessionTimeout);
        }
        if !request.member_id.is_empty() && !self.groups.contains_key(&request.group) {
            return refuse(ErrorCode::UnknownMemberId);
        }
        let rules = JoinRules { initial_delay_ms: self.settings.initial_rebalance_delay_ms, members_max: self.settings.members_max };
        let id = request.group.clone();
        let group = self.groups.entry(id.clone()).or_insert_with(|| Group::new(&id, now));
        let generation = group.generation;
        group.join(token, request, rules, now, &mut outcome);
        group.assert_sound();
        let is_sound = generation <= group.generation || generation == i32::MAX;
        assert!(is_sound, "group {id}: the generation fell from {generation} to {}", group.generation);
        outcome
    }

    /// A member requests its assignment.
    pub fn sync(&mut self, token: Token, request: SyncRequest, now: Now) -> Outcome {
        let mut outcome = Outcome::default();
        match self.groups.get_mut(&request.group) {
            _ if request.group.is_empty() => outcome.reply(token, Reply::Sync(SyncReply::failed(ErrorCode::InvalidGroupId))),
            Some(group) => {
                group.sync(token, request, now, &mut outcome);
                group.assert_sound();
            }
            None => outcome.reply(token, Reply::Sync(SyncReply::failed(ErrorCode::UnknownMemberId))),
        }
        outcome
    }

    /// A heartbeat of a member.
    pub fn heartbeat(&mut self, group: &str, member: &str, instance: Option<&str>, generation: i32, now: Now) -> ErrorCode {
        if group.is_empty() {
            return ErrorCode::InvalidGroupId;
        }
        let Some(group) = self.groups.get_mut(group) else { return ErrorCode::UnknownMemberId };
        if let Err(error) = group.check_member(member, instance) {
            return error;
        }
        if generation != group.generation {
            return ErrorCode::IllegalGeneration;
        }
        if let Some(member) = group.members.get_mut(member).filter(|m| m.awaiting_join.is_none()) {
            member.refresh(now.mono_ms);
        }
        match group.state {
            GroupState::PreparingRebalance => ErrorCode::RebalanceInProgress,
            GroupState::CompletingRebalance | GroupState::Stable => ErrorCode::None,
            GroupState::Empty | GroupState::Dead => ErrorCode::UnknownMemberId,
        }
    }

    /// Members leave; each has a result of its own.
    pub fn leave(&mut self, group: &str, leaving: &[LeavingMember], now: Now) -> (Result<Vec<ErrorCode>, ErrorCode>, Outcome) {
        let mut outcome = Outcome::default();
        if group.is_empty() {
            return (Err(ErrorCode::InvalidGroupId), outcome);
        }
        let Some(group) = self.groups.get_mut(group) else {
            return (Ok(vec![ErrorCode::UnknownMemberId; leaving.len()]), outcome);
        };
        let before = (group.members.len(), group.pending.len());
        let results = leaving.iter().map(|member| leave_one(group, member, now, &mut outcome)).collect();
        if group.members.len() < before.0 {
            group.rebalance(now, 0, &mut outcome);
        } else if group.pending.len() < before.1 {
            group.try_complete_join(now, &mut outcome);
        }
        group.assert_sound();
        (Ok(results), outcome)
    }

    /// Checks a commit and returns its records, which take effect in [`Shard::replay`]. Errors of single partitions are in the list.
    pub fn commit(&mut self, request: &CommitRequest, how: Commits, now: Now) -> Result<(Vec<ErrorCode>, Vec<GroupRecord>), ErrorCode> {
        match self.groups.get_mut(&request.group) {
            None if request.generation < 0 => {}
            None => return Err(request.missing_group),
            Some(group) => check_commit(group, request, how, now)?,
        }
        let expire_ms = request.retention_ms.map(|ms| now.wall_ms.saturating_add(ms));
        let mut records = Vec::with_capacity(request.offsets.len());
        let codes = request
            .offsets
            .iter()
            .map(|entry| {
                if entry.metadata.encode_utf16().count() > self.settings.metadata_bytes_max {
                    return ErrorCode::OffsetMetadataTooLarge;
                }
                let key = OffsetCommitKey { group: request.group.clone(), topic: entry.topic.clone(), partition: entry.partition };
                let value = offset_value(entry.offset, entry.leader_epoch, &entry.metadata, now.wall_ms, expire_ms);
                records.push(GroupRecord::Offset(key, Some(value)));
                ErrorCode::None
            })
            .collect();
        Ok((codes, records))
    }

    /// A committed offset.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<&Committed> {
        self.groups.get(group)?.offsets.get(&(topic.to_string(), partition))
    }

    /// All committed offsets of a group.
    pub fn all_committed(&self, group: &str) -> Vec<(&str, i32, &Committed)> {
        let offsets = self.groups.get(group).map(|g| &g.offsets);
        offsets.into_iter().flatten().map(|((topic, partition), committed)| (topic.as_str(), *partition, committed)).collect()
    }

    /// The records that delete a group without members, with its offsets.
    ///
    /// The empty group id is valid: clients that commit without a group use it. A member id that was returned and not used yet does not prevent the
    /// deletion: a later join with it is answered with UNKNOWN_MEMBER_ID. Both as in Kafka.
    pub fn delete(&self, group: &str) -> Result<Vec<GroupRecord>, ErrorCode> {
        let group = self.groups.get(group).ok_or(ErrorCode::GroupIdNotFound)?;
        if group.state != GroupState::Empty {
            return Err(ErrorCode::NonEmptyGroup);
        }
        let undecided = self.undecided.of_group(&group.id).map(|(_, topic, partition)| (topic, partition));
        let keys: BTreeSet<_> = group.offsets.keys().map(|(topic, partition)| (topic, partition)).chain(undecided).collect();
        let offsets = keys.into_iter().map(|(topic, partition)| GroupRecord::offset_tombstone(&group.id, topic, *partition));
        Ok(offsets.chain([GroupRecord::Group(GroupMetadataKey { group: group.id.clone() }, None)]).collect())
    }

    /// The records that delete committed offsets (KIP-496); the codes are in the order of the request. Offsets of topics that a member is subscribed
    /// to are not deleted, nor any offset of a group whose members are not consumers.
    pub fn delete_offsets(&self, group: &str, partitions: &[(String, i32)]) -> Result<(Vec<ErrorCode>, Vec<GroupRecord>), ErrorCode> {
        if group.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let group = self.groups.get(group).ok_or(ErrorCode::GroupIdNotFound)?;
        let subscribed = match group.state {
            GroupState::Empty => Some(BTreeSet::new()),
            _ if group.protocol_type.as_deref() == Some("consumer") => subscriptions(group),
            _ => return Err(ErrorCode::NonEmptyGroup),
        };
        let mut records = Vec::new();
        let codes = partitions.iter().map(|(topic, partition)| {
            if subscribed.as_ref().is_none_or(|topics| topics.contains(topic)) {
                return ErrorCode::GroupSubscribedToTopic;
            }
            if group.offsets.contains_key(&(topic.clone(), *partition)) {
                records.push(GroupRecord::offset_tombstone(&group.id, topic, *partition));
            }
            ErrorCode::None
        });
        Ok((codes.collect(), records))
    }

    /// Deletes the offsets of deleted topics.
    pub fn topics_deleted(&self, topics: &BTreeSet<&str>) -> Vec<GroupRecord> {
        let of_group = |group: &Group| -> Vec<GroupRecord> {
            let gone = group.offsets.keys().filter(|(topic, _)| topics.contains(topic.as_str()));
            gone.map(|(topic, partition)| GroupRecord::offset_tombstone(&group.id, topic, *partition)).collect()
        };
        self.groups.values().flat_map(of_group).collect()
    }

    /// Handles timeouts, and at intervals deletes expired offsets and groups.
    pub fn tick(&mut self, now: Now) -> Outcome {
        let mut outcome = Outcome::default();
        for group in self.groups.values_mut() {
            group.tick(now, self.settings.initial_rebalance_delay_ms, &mut outcome);
        }
        if now.mono_ms >= self.retention_check_at_ms {
            self.retention_check_at_ms = now.mono_ms + self.settings.retention_check_ms;
            outcome.records.extend(self.expired(now));
        }
        outcome
    }

    /// The next moment at which [`Shard::tick`] has something to do.
    pub fn next_deadline_ms(&self) -> i64 {
        self.groups.values().filter_map(Group::next_deadline_ms).min().unwrap_or(i64::MAX).min(self.retention_check_at_ms)
    }

    /// Tombstones for expired offsets, and for groups that are empty.
    fn expired(&self, now: Now) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for group in self.groups.values() {
            let subscribed = subscriptions(group);
            let over = |(topic, partition, committed): (&str, i32, &Committed)| -> bool {
                if self.is_undecided(&group.id, topic, partition) {
                    return false;
                }
                if let Some(expire_ms) = committed.expire_ms {
                    return now.wall_ms >= expire_ms;
                }
                let since = match (&group.protocol_type, group.state) {
                    (None, _) => committed.commit_ms,
                    (Some(_), GroupState::Empty) => group.state_since_ms.max(committed.commit_ms),
                    (Some(kind), GroupState::Stable) if kind == "consumer" && subscribed.as_ref().is_some_and(|s| !s.contains(topic)) => {
                        committed.commit_ms
                    }
                    _ => return false,
                };
                now.wall_ms.saturating_sub(since) >= self.settings.offsets_retention_ms
            };
            let is_over = |((topic, partition), committed): &(&(String, i32), &Committed)| over((topic, *partition, committed));
            let gone: Vec<_> = group.offsets.iter().filter(is_over).map(|(key, _)| key).collect();
            let nothing_left = gone.len() == group.offsets.len() && self.undecided.of_group(&group.id).next().is_none();
            records.extend(gone.into_iter().map(|(topic, partition)| GroupRecord::offset_tombstone(&group.id, topic, *partition)));
            if nothing_left && group.state == GroupState::Empty && group.members.is_empty() && group.pending.is_empty() {
                records.push(GroupRecord::Group(GroupMetadataKey { group: group.id.clone() }, None));
            }
        }
        records
    }

    /// Handles records that could not be stored: their groups rebalance, so that no member uses an assignment that was lost.
    pub fn not_stored(&mut self, records: &[GroupRecord], now: Now) -> Outcome {
        let mut outcome = Outcome::default();
        for record in records {
            if let GroupRecord::Group(key, Some(_)) = record
                && let Some(group) = self.groups.get_mut(&key.group).filter(|g| !g.members.is_empty())
            {
                group.rebalance(now, 0, &mut outcome);
            }
        }
        outcome
    }

    /// One group.
    pub fn describe(&self, group: &str) -> Option<GroupView> {
        self.groups.get(group).map(view)
    }

    /// The events of a group since its shard was loaded, oldest first.
    pub fn history(&self, group: &str) -> Option<Vec<GroupEvent>> {
        self.groups.get(group).map(|group| group.history.all().cloned().collect())
    }

    /// All groups, without their members.
    pub fn list(&self) -> Vec<GroupView> {
        self.groups.values().map(|g| GroupView { members: Vec::new(), ..view(g) }).collect()
    }
}

fn view(group: &Group) -> GroupView {
    let stable = group.state == GroupState::Stable;
    let protocol = group.protocol.clone().filter(|_| stable).unwrap_or_default();
    let members = group.members.values().map(|m| MemberView {
        id: m.id.clone(),
        instance_id: m.instance_id.clone(),
        client_id: m.client_id.clone(),
        client_host: m.client_host.clone(),
        metadata: if stable { m.metadata(&protocol) } else { Bytes::new() },
        assignment: if stable { m.assignment.clone() } else { Bytes::new() },
    });
    let protocol_type = group.protocol_type.clone().unwrap_or_default();
    GroupView { id: group.id.clone(), state: group.state, protocol_type, members: members.collect(), protocol }
}

/// The topics of all members of a consumer group; none if a member's subscription cannot be parsed.
fn subscriptions(group: &Group) -> Option<BTreeSet<String>> {
    let protocol = group.protocol.clone()?;
    let mut topics = BTreeSet::new();
    for member in group.members.values() {
        topics.extend(subscribed_topics(&member.metadata(&protocol))?);
    }
    Some(topics)
}

fn leave_one(group: &mut Group, member: &LeavingMember, now: Now, outcome: &mut Outcome) -> ErrorCode {
    let id = match (&member.instance_id, member.id.as_str()) {
        (Some(instance), id) => match group.static_members.get(instance) {
            None => return ErrorCode::UnknownMemberId,
            Some(known) if !id.is_empty() && known != id => return ErrorCode::FencedInstanceId,
            Some(known) => known.clone(),
        },
        (None, id) if group.pending.remove(id).is_some() => return ErrorCode::None,
        (None, id) => id.to_string(),
    };
    if !group.members.contains_key(&id) {
        return ErrorCode::UnknownMemberId;
    }
    group.history.note(now.wall_ms, GroupEventKind::Leave, format!("member {id} left"));
    group.remove(&id, ErrorCode::UnknownMemberId, outcome);
    ErrorCode::None
}

fn check_commit(group: &mut Group, request: &CommitRequest, how: Commits, now: Now) -> Result<(), ErrorCode> {
    // In a transaction the member's identity is optional.
    let is_anonymous = request.generation < 0 && request.member_id.is_empty() && request.instance_id.is_none();
    if request.generation < 0 && group.state == GroupState::Empty || how == Commits::InTransaction && is_anonymous {
        return Ok(());
    }
    group.check_member(&request.member_id, request.instance_id.as_deref())?;
    if request.generation != group.generation {
        return Err(ErrorCode::IllegalGeneration);
    }
    if group.state == GroupState::CompletingRebalance && how == Commits::Alone {
        return Err(ErrorCode::RebalanceInProgress);
    }
    if let Some(member) = group.members.get_mut(&request.member_id).filter(|m| m.awaiting_join.is_none()) {
        member.refresh(now.mono_ms);
    }
    Ok(())
}
