//! A classic group: its members, its generation, and the offsets that it committed.
//!
//! | from | to | when |
//! |---|---|---|
//! | Empty, Stable, CompletingRebalance | PreparingRebalance | a member joins, changes, leaves or times out |
//! | PreparingRebalance | CompletingRebalance | all members have joined, or the deadline for joins has passed |
//! | PreparingRebalance | Empty | no member is left |
//! | CompletingRebalance | Stable | the leader has sent the assignment |
//! | any | Dead | the group is deleted |

use std::collections::{BTreeMap, BTreeSet};

use super::history::{GroupEventKind, History};
use super::join::{JoinReply, SyncReply};
use super::member::Member;
use super::offsets::Committed;
use super::record::{Contradiction, GroupRecord};
use super::shard::{Outcome, Reply};
use crate::model::counted;
use crate::protocol::ErrorCode;
use crate::protocol::generated::consumer_offsets::{GroupMetadataKey, GroupMetadataValue, MemberMetadata};

/// The longest that a new member may wait for its first rebalance, as in Kafka.
pub(super) const NEW_MEMBER_TIMEOUT_MS: i64 = 5 * 60 * 1000;

/// The moment of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic milliseconds, for deadlines.
    pub mono_ms: i64,
    /// Wall-clock milliseconds, for stored timestamps.
    pub wall_ms: i64,
}

/// The states of a group; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum GroupState {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    Dead,
}

impl GroupState {
    /// All of them.
    pub const ALL: [GroupState; 5] =
        [GroupState::Empty, GroupState::PreparingRebalance, GroupState::CompletingRebalance, GroupState::Stable, GroupState::Dead];

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// The state of the first rebalance of an empty group, which is delayed so that more members can join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InitialDelay {
    /// Milliseconds by which the delay may still be extended.
    pub(super) left_ms: i64,
    /// Whether a member has joined since the delay began or was extended.
    pub(super) member_came: bool,
}

/// A group.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    pub(super) id: String,
    pub(super) state: GroupState,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Member ids by static id.
    pub(super) static_members: BTreeMap<String, String>,
    /// Member ids that were returned with MEMBER_ID_REQUIRED, with the deadlines of their first join.
    pub(super) pending: BTreeMap<String, i64>,
    /// The deadline of the current state: for joins in PreparingRebalance, for syncs in CompletingRebalance.
    pub(super) deadline_ms: Option<i64>,
    pub(super) initial_delay: Option<InitialDelay>,
    /// Wall-clock time of the last stored change of state.
    pub(super) state_since_ms: i64,
    pub(super) offsets: BTreeMap<(String, i32), Committed>,
    pub(super) history: History,
}

impl Group {
    pub(super) fn new(id: &str, now: Now) -> Group {
        Group {
            id: id.to_string(),
            state: GroupState::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending: BTreeMap::new(),
            deadline_ms: None,
            initial_delay: None,
            state_since_ms: now.wall_ms,
            offsets: BTreeMap::new(),
            history: History::default(),
        }
    }

    /// Restores the group from a stored record; session timeouts restart. A record with a negative generation is skipped. If two members have the
    /// same id or static id, the later one is kept, as in Kafka.
    pub(super) fn restore(&mut self, value: &GroupMetadataValue, now: Now) -> Result<(), Contradiction> {
        let contradiction = |what| Contradiction { of: format!("group {}", self.id), what };
        if value.generation < 0 {
            return Err(contradiction(format!("its generation is {}; the record is skipped", value.generation)));
        }
        let twice = |id: &str| Err(contradiction(format!("two members have the id {id}; the later one is kept")));
        let mut outcome = Ok(());
        let mut ids = BTreeSet::new();
        for member in &value.members {
            for id in [Some((false, &member.member_id)), member.group_instance_id.as_ref().map(|id| (true, id))].into_iter().flatten() {
                outcome = if ids.insert(id) { outcome } else { twice(id.1) };
            }
        }
        self.generation = value.generation;
        self.protocol_type = Some(value.protocol_type.clone()).filter(|t| !t.is_empty());
        self.protocol = value.protocol.clone();
        self.leader = value.leader.clone();
        self.state_since_ms = value.current_state_timestamp;
        self.members.clear();
        self.static_members.clear();
        for stored in &value.members {
            let protocol = value.protocol.clone().unwrap_or_default();
            let mut member = Member {
                id: stored.member_id.clone(),
                instance_id: stored.group_instance_id.clone(),
                client_id: stored.client_id.clone(),
                client_host: stored.client_host.clone(),
                rebalance_timeout_ms: if stored.rebalance_timeout < 0 { stored.session_timeout } else { stored.rebalance_timeout },
                session_timeout_ms: stored.session_timeout,
                protocols: vec![(protocol, stored.subscription.clone())],
                assignment: stored.assignment.clone(),
                session_deadline_ms: 0,
                awaiting_join: None,
                awaiting_sync: None,
            };
            member.refresh(now.mono_ms);
            let before = member.instance_id.as_ref().and_then(|instance| self.static_members.get(instance)).cloned();
            if let Some(before) = before {
                self.members.remove(&before);
            }
            self.insert(member);
        }
        self.state = if self.members.is_empty() { GroupState::Empty } else { GroupState::Stable };
        outcome
    }

    /// After two billion rebalances the generations begin again.
    fn next_generation(&self) -> i32 {
        self.generation.checked_add(1).unwrap_or(1)
    }

    /// The record that restores the group.
    pub(super) fn record(&self) -> GroupRecord {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = self.members.values().map(|m| MemberMetadata {
            member_id: m.id.clone(),
            group_instance_id: m.instance_id.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            rebalance_timeout: m.rebalance_timeout_ms,
            session_timeout: m.session_timeout_ms,
            subscription: m.metadata(&protocol),
            assignment: m.assignment.clone(),
        });
        let value = GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_since_ms,
            members: members.collect(),
        };
        GroupRecord::Group(GroupMetadataKey { group: self.id.clone() }, Some(value))
    }

    /// Adds a member, or replaces the one with its id. No other member has its static id.
    pub(super) fn insert(&mut self, member: Member) {
        let before = self.members.get(&member.id).and_then(|before| before.instance_id.clone());
        if let Some(instance) = before.filter(|instance| self.static_members.get(instance).is_some_and(|id| *id == member.id)) {
            self.static_members.remove(&instance);
        }
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Removes a member; its waiting requests are answered with `error`.
    pub(super) fn remove(&mut self, id: &str, error: ErrorCode, outcome: &mut Outcome) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(instance) = member.instance_id.as_ref().filter(|i| self.static_members.get(*i).is_some_and(|m| m == id)) {
            self.static_members.remove(instance);
        }
        if let Some(token) = member.awaiting_join {
            outcome.reply(token, Reply::Join(JoinReply::failed(error, id)));
        }
        if let Some(token) = member.awaiting_sync {
            outcome.reply(token, Reply::Sync(SyncReply::failed(error)));
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Checks that a request comes from a member; the checks are in Kafka's order.
    pub(super) fn check_member(&self, id: &str, instance: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.static_members.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(known) if known != id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Whether all members support at least one protocol of the list, and the protocol type is the group's.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[(String, bytes::Bytes)]) -> bool {
        if protocol_type.is_empty() || protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        let by_all = |name: &String| self.members.values().all(|m| m.protocols.iter().any(|(n, _)| n == name));
        self.protocol_type.as_deref() == Some(protocol_type) && protocols.iter().any(|(name, _)| by_all(name))
    }

    /// Begins a rebalance, or continues the one that is waiting for joins.
    pub(super) fn rebalance(&mut self, now: Now, initial_delay_ms: i64, outcome: &mut Outcome) {
        match self.state {
            GroupState::PreparingRebalance => {}
            GroupState::Empty if initial_delay_ms == 0 => {
                // As in Kafka, the first rebalance ends when its delay is over, even if some members have not joined: a member id that was returned
                // and is never used must not delay the first member (KAFKA-7909).
                self.note_rebalance(now, "the initial rebalance is not delayed");
                return self.complete_join(now, outcome);
            }
            GroupState::Empty => {
                let longest = self.rebalance_timeout_ms();
                let delay = initial_delay_ms.min(longest);
                self.initial_delay = Some(InitialDelay { left_ms: longest - delay, member_came: false });
                self.deadline_ms = Some(now.mono_ms + delay);
                self.note_rebalance(now, &format!("the initial rebalance is delayed by {delay} ms so that more members can join"));
            }
            _ => {
                for member in self.members.values_mut() {
                    if let Some(token) = member.awaiting_sync.take() {
                        outcome.reply(token, Reply::Sync(SyncReply::failed(ErrorCode::RebalanceInProgress)));
                    }
                }
                let patience_ms = self.rebalance_timeout_ms();
                self.deadline_ms = Some(now.mono_ms + patience_ms);
                self.note_rebalance(now, &format!("{} must rejoin within {patience_ms} ms", counted(self.members.len(), "member")));
            }
        }
        self.try_complete_join(now, outcome);
    }

    fn note_rebalance(&mut self, now: Now, how: &str) {
        self.state = GroupState::PreparingRebalance;
        let text = format!("rebalance: {how}, because {}", self.history.cause());
        self.history.note(now.wall_ms, GroupEventKind::Rebalance, text);
    }

    /// Removes members whose session timed out or that did not join or sync in time.
    fn take_out(&mut self, ids: &[String], now: Now, outcome: &mut Outcome, why: impl Fn(&Member) -> String) {
        for id in ids {
            if let Some(member) = self.members.get(id) {
                self.history.note(now.wall_ms, GroupEventKind::Timeout, format!("member {id} {}", why(member)));
            }
            self.remove(id, ErrorCode::UnknownMemberId, outcome);
        }
    }

    /// Ends the wait for joins once all members have joined.
    pub(super) fn try_complete_join(&mut self, now: Now, outcome: &mut Outcome) {
        let all = self.pending.is_empty() && self.members.values().all(|m| m.awaiting_join.is_some());
        if self.state == GroupState::PreparingRebalance && all && self.initial_delay.is_none() {
            self.complete_join(now, outcome);
        }
    }

    /// Creates the next generation from the members that have joined.
    pub(super) fn complete_join(&mut self, now: Now, outcome: &mut Outcome) {
        self.initial_delay = None;
        let late: Vec<String> =
            self.members.values().filter(|m| m.awaiting_join.is_none() && m.instance_id.is_none()).map(|m| m.id.clone()).collect();
        let patience_ms = self.rebalance_timeout_ms();
        self.take_out(&late, now, outcome, |_| format!("did not join again within the rebalance time-out of {patience_ms} ms"));
        if self.members.is_empty() {
            self.generation = self.next_generation();
            let text = format!("generation {} has no members, because {}", self.generation, self.history.cause());
            self.history.note(now.wall_ms, GroupEventKind::Generation, text);
            (self.state, self.deadline_ms) = (GroupState::Empty, None);
            (self.protocol, self.leader) = (None, None);
            self.members_gone(now, outcome);
            return;
        }
        let joined = |m: &&Member| m.awaiting_join.is_some();
        let leader_joined = self.leader.as_ref().and_then(|id| self.members.get(id)).is_some_and(|m| joined(&m));
        if !leader_joined {
            match self.members.values().find(joined) {
                Some(member) => self.leader = Some(member.id.clone()),
                None => {
                    // Only static members are left, and none of them has rejoined yet: continue waiting.
                    self.deadline_ms = Some(now.mono_ms + self.rebalance_timeout_ms());
                    return;
                }
            }
        }
        self.generation = self.next_generation();
        self.protocol = self.choose_protocol();
        self.state = GroupState::CompletingRebalance;
        let (leader, protocol) = (self.leader.as_deref().unwrap_or_default(), self.protocol.as_deref().unwrap_or_default());
        let text =
            format!("generation {}: {}, leader {leader}, protocol {protocol}", self.generation, counted(self.members.len(), "member"));
        self.history.note(now.wall_ms, GroupEventKind::Generation, text);
        self.state_since_ms = now.wall_ms;
        self.deadline_ms = Some(now.mono_ms + self.rebalance_timeout_ms());
        let replies: Vec<_> = self.members.values().filter_map(|m| Some((m.awaiting_join?, m.id.clone()))).collect();
        for (token, id) in replies {
            outcome.reply(token, Reply::Join(self.joined(&id)));
        }
        for member in self.members.values_mut() {
            member.awaiting_join = None;
            member.assignment = bytes::Bytes::new();
            member.refresh(now.mono_ms);
        }
    }

    fn members_gone(&mut self, now: Now, outcome: &mut Outcome) {
        self.state_since_ms = now.wall_ms;
        outcome.records.push(self.record());
    }

    /// The response to a member's join: the leader's id, and for the leader the metadata of all members.
    pub(super) fn joined(&self, id: &str) -> JoinReply {
        let protocol = self.protocol.clone().unwrap_or_default();
        let is_leader = self.leader.as_deref() == Some(id);
        let members = if is_leader {
            self.members.values().map(|m| (m.id.clone(), m.instance_id.clone(), m.metadata(&protocol))).collect()
        } else {
            Vec::new()
        };
        JoinReply {
            error: ErrorCode::None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: id.to_string(),
            members,
        }
    }

    /// Among the protocols that all members support, the one that most members prefer.
    pub(super) fn choose_protocol(&self) -> Option<String> {
        let by_all = |name: &str| self.members.values().all(|m| m.protocols.iter().any(|(n, _)| n == name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| by_all(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_string())
    }

    /// The longest rebalance timeout of all members.
    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|m| i64::from(m.rebalance_timeout_ms)).max().unwrap_or(0)
    }

    /// Asserts the invariants between two events. Without them a group could wait for an unknown member, or list a member twice.
    pub(super) fn assert_sound(&self) {
        let (id, state) = (&self.id, self.state);
        let statics = self.members.values().filter(|m| m.instance_id.is_some()).count();
        let (named, members) = (self.static_members.len(), self.members.len());
        assert_eq!(named, statics, "group {id}: {named} static ids are known, and {statics} members have one");
        assert!(self.generation >= 0, "group {id} is in generation {}", self.generation);
        for (instance, member) in &self.static_members {
            let holder = self.members.get(member).and_then(|m| m.instance_id.as_ref());
            assert_eq!(
                holder,
                Some(instance),
                "group {id}: static id {instance} belongs to member {member}, whose static id is another one"
            );
        }
        for (key, member) in &self.members {
            assert_eq!(key, &member.id, "group {id}: a member is known under another id");
            assert!(!self.pending.contains_key(key), "group {id}: {key} is a member and has not joined yet");
            let (join, sync) = (member.awaiting_join, member.awaiting_sync);
            assert!(join.is_none() || state == GroupState::PreparingRebalance, "group {id} is {state:?}, and {key} waits for a rebalance");
            assert!(sync.is_none() || state == GroupState::CompletingRebalance, "group {id} is {state:?}, and {key} waits for its leader");
        }
        match state {
            GroupState::Empty | GroupState::Dead => assert_eq!(members, 0, "group {id} is {state:?} and has members"),
            GroupState::PreparingRebalance => assert!(self.deadline_ms.is_some(), "group {id} would wait for joins forever"),
            GroupState::CompletingRebalance => {
                let leader = self.leader.as_deref().unwrap_or_default();
                assert!(self.members.contains_key(leader), "group {id} waits for its leader {leader:?}, who is no member");
                assert!(self.deadline_ms.is_some(), "group {id} would wait for its leader forever");
            }
            GroupState::Stable => assert_ne!(members, 0, "group {id} is stable and has no member"),
        }
    }

    /// Handles timeouts: removes members whose session has expired, and members whose join or sync is overdue.
    pub(super) fn tick(&mut self, now: Now, initial_delay_ms: i64, outcome: &mut Outcome) {
        let due = |deadline: i64| deadline <= now.mono_ms;
        let pending_before = self.pending.len();
        self.pending.retain(|_, deadline| !due(*deadline));
        let silent = |m: &&Member| due(m.session_deadline_ms) && m.awaiting_sync.is_none();
        let lost: Vec<String> = self.members.values().filter(silent).map(|m| m.id.clone()).collect();
        self.take_out(&lost, now, outcome, |m| {
            let silent_ms = now.mono_ms - m.session_deadline_ms + i64::from(m.session_timeout_ms);
            format!("sent no heartbeat for {silent_ms} ms; its session time-out is {} ms", m.session_timeout_ms)
        });
        if !lost.is_empty() && self.state != GroupState::Dead {
            self.rebalance(now, 0, outcome);
        } else if self.pending.len() < pending_before {
            self.try_complete_join(now, outcome);
        }
        if !self.deadline_ms.is_some_and(due) {
            return;
        }
        match (self.state, self.initial_delay) {
            (GroupState::PreparingRebalance, Some(delay)) if delay.member_came && delay.left_ms > 0 => {
                let more = initial_delay_ms.min(delay.left_ms);
                self.initial_delay = Some(InitialDelay { left_ms: delay.left_ms - more, member_came: false });
                self.deadline_ms = Some(now.mono_ms + more);
            }
            (GroupState::PreparingRebalance, _) => self.complete_join(now, outcome),
            (GroupState::CompletingRebalance, _) => {
                let late: Vec<String> = self.members.values().filter(|m| m.awaiting_sync.is_none()).map(|m| m.id.clone()).collect();
                let patience_ms = self.rebalance_timeout_ms();
                self.take_out(&late, now, outcome, |_| format!("did not sync within the rebalance time-out of {patience_ms} ms"));
                self.rebalance(now, 0, outcome);
            }
            _ => self.deadline_ms = None,
        }
        self.assert_sound();
    }

    /// The next moment at which [`Group::tick`] has something to do.
    pub(super) fn next_deadline_ms(&self) -> Option<i64> {
        let sessions = self.members.values().filter(|m| m.awaiting_sync.is_none()).map(|m| m.session_deadline_ms);
        sessions.chain(self.pending.values().copied()).chain(self.deadline_ms).min()
    }
}
