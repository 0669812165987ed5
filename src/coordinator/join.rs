//! JoinGroup and SyncGroup.

use bytes::Bytes;

use super::group::{Group, GroupState, NEW_MEMBER_TIMEOUT_MS, Now};
use super::history::GroupEventKind;
use super::member::Member;
use super::shard::{Outcome, Reply, Token};
use crate::protocol::ErrorCode;

/// A JoinGroup request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The group.
    pub group: String,
    /// The member's id; empty at its first join.
    pub member_id: String,
    /// A new member id, for a member that has none.
    pub fresh_id: String,
    /// Its static id (`group.instance.id`).
    pub instance_id: Option<String>,
    /// The client id of the request's header.
    pub client_id: String,
    /// The host from which the client connects.
    pub client_host: String,
    /// Session timeout in milliseconds.
    pub session_timeout_ms: i32,
    /// The member's rebalance timeout in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// `consumer`, `connect` etc.
    pub protocol_type: String,
    /// Names and metadata, the preferred one first.
    pub protocols: Vec<(String, Bytes)>,
    /// Whether a new member must rejoin with the member id that it receives first (version 4 and later).
    pub id_required: bool,
    /// Whether a leader that rejoins may skip the assignment (version 9 and later).
    pub can_skip_assignment: bool,
}

/// The response to a JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinReply {
    /// The error, or NONE.
    pub error: ErrorCode,
    /// The generation.
    pub generation: i32,
    /// The group's type.
    pub protocol_type: Option<String>,
    /// The chosen protocol.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: String,
    /// The leader has rejoined, and its last assignment is still valid.
    pub skip_assignment: bool,
    /// The member's id.
    pub member_id: String,
    /// For the leader: member ids, static ids and metadata of all members.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

impl JoinReply {
    /// A response with an error.
    pub fn failed(error: ErrorCode, member_id: &str) -> JoinReply {
        JoinReply {
            error,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.to_string(),
            members: Vec::new(),
        }
    }
}

/// A SyncGroup request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncRequest {
    /// The group.
    pub group: String,
    /// The member.
    pub member_id: String,
    /// Its static id.
    pub instance_id: Option<String>,
    /// Its generation.
    pub generation: i32,
    /// The protocol type that the member expects (version 5 and later).
    pub protocol_type: Option<String>,
    /// The protocol name that the member expects (version 5 and later).
    pub protocol: Option<String>,
    /// From the leader: member ids and their assignments.
    pub assignments: Vec<(String, Bytes)>,
}

/// The response to a SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncReply {
    /// The error, or NONE.
    pub error: ErrorCode,
    /// The group's type.
    pub protocol_type: Option<String>,
    /// The chosen protocol.
    pub protocol: Option<String>,
    /// The member's assignment.
    pub assignment: Bytes,
}

impl SyncReply {
    /// A response with an error.
    pub fn failed(error: ErrorCode) -> SyncReply {
        SyncReply { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

/// The broker's settings for joins.
#[derive(Debug, Clone, Copy)]
pub(super) struct JoinRules {
    pub(super) initial_delay_ms: i64,
    pub(super) members_max: usize,
}

impl Group {
    /// A member joins. It is answered immediately, or when all members of the rebalance have joined.
    pub(super) fn join(&mut self, token: Token, request: JoinRequest, rules: JoinRules, now: Now, outcome: &mut Outcome) {
        let refuse = |outcome: &mut Outcome, error, id: &str| outcome.reply(token, Reply::Join(JoinReply::failed(error, id)));
        if !self.supports(&request.protocol_type, &request.protocols) {
            return refuse(outcome, ErrorCode::InconsistentGroupProtocol, &request.member_id);
        }
        if request.member_id.is_empty() {
            return self.join_new(token, request, rules, now, outcome);
        }
        if self.pending.contains_key(&request.member_id) && request.instance_id.is_some() {
            // Only members without a static id are given an id first. With one it could be another member's.
            return refuse(outcome, ErrorCode::UnknownMemberId, &request.member_id);
        }
        if self.pending.remove(&request.member_id).is_some() {
            let id = request.member_id.clone();
            return self.add(token, id, request, rules, now, outcome);
        }
        if let Err(error) = self.check_member(&request.member_id, request.instance_id.as_deref()) {
            return refuse(outcome, error, &request.member_id);
        }
        self.rejoin(token, request, rules, now, outcome);
    }

    fn join_new(&mut self, token: Token, request: JoinRequest, rules: JoinRules, now: Now, outcome: &mut Outcome) {
        let known = request.instance_id.as_ref().and_then(|instance| self.static_members.get(instance)).cloned();
        if let Some(old) = known {
            return self.replace_static(token, &old, request, rules, now, outcome);
        }
        if self.members.len() + self.pending.len() >= rules.members_max {
            return outcome.reply(token, Reply::Join(JoinReply::failed(ErrorCode::GroupMaxSizeReached, "")));
        }
        let id = request.fresh_id.clone();
        if request.id_required && request.instance_id.is_none() {
            self.pending.insert(id.clone(), now.mono_ms + i64::from(request.session_timeout_ms));
            return outcome.reply(token, Reply::Join(JoinReply::failed(ErrorCode::MemberIdRequired, &id)));
        }
        self.add(token, id, request, rules, now, outcome);
    }

    fn add(&mut self, token: Token, id: String, request: JoinRequest, rules: JoinRules, now: Now, outcome: &mut Outcome) {
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        let (client, host, session_ms) = (&request.client_id, &request.client_host, request.session_timeout_ms);
        let text = format!("member {id} joined: client {client} at {host}, session time-out {session_ms} ms");
        self.history.note(now.wall_ms, GroupEventKind::Join, text);
        self.insert(Member {
            id,
            instance_id: request.instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            session_deadline_ms: now.mono_ms + NEW_MEMBER_TIMEOUT_MS,
            awaiting_join: Some(token),
            awaiting_sync: None,
        });
        if let Some(delay) = &mut self.initial_delay {
            delay.member_came = true;
        }
        self.rebalance(now, rules.initial_delay_ms, outcome);
    }

    /// A known member joins again. 1. During a rebalance it takes part in it. 2. A member whose response was lost gets it again. 3. A leader, or a
    /// member with changed metadata, starts a rebalance. 4. A follower with unchanged metadata keeps its generation.
    fn rejoin(&mut self, token: Token, request: JoinRequest, rules: JoinRules, now: Now, outcome: &mut Outcome) {
        let id = request.member_id.clone();
        let same = self.members.get(&id).is_some_and(|m| m.protocols == request.protocols);
        let is_leader = self.leader.as_deref() == Some(&id);
        let answered = match self.state {
            GroupState::CompletingRebalance => same,
            GroupState::Stable => same && !is_leader,
            GroupState::PreparingRebalance => false,
            GroupState::Empty | GroupState::Dead => {
                return outcome.reply(token, Reply::Join(JoinReply::failed(ErrorCode::UnknownMemberId, &id)));
            }
        };
        let Some(member) = self.members.get_mut(&id) else { return };
        member.refresh(now.mono_ms);
        if answered {
            return outcome.reply(token, Reply::Join(self.joined(&id)));
        }
        let why = match self.state {
            GroupState::PreparingRebalance => "because of the rebalance",
            _ if !same => "with another subscription or other protocols",
            _ => "as the leader, which requests a new assignment",
        };
        self.history.note(now.wall_ms, GroupEventKind::Join, format!("member {id} joined again {why}"));
        member.protocols = request.protocols;
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        // The session timeout does not apply while the member waits: it is removed when the rebalance ends without it.
        member.session_deadline_ms = now.mono_ms + NEW_MEMBER_TIMEOUT_MS.max(i64::from(request.rebalance_timeout_ms));
        if let Some(before) = member.awaiting_join.replace(token) {
            outcome.reply(before, Reply::Join(JoinReply::failed(ErrorCode::RebalanceInProgress, &id)));
        }
        self.rebalance(now, rules.initial_delay_ms, outcome);
    }

    /// A static member rejoins without its member id: the old member id is fenced immediately.
    fn replace_static(&mut self, token: Token, old: &str, request: JoinRequest, rules: JoinRules, now: Now, outcome: &mut Outcome) {
        let was_leader = self.leader.as_deref() == Some(old);
        let Some(mut member) = self.members.get(old).cloned() else { return };
        self.remove(old, ErrorCode::FencedInstanceId, outcome);
        let id = request.fresh_id.clone();
        let instance = request.instance_id.as_deref().unwrap_or_default();
        self.history.note(now.wall_ms, GroupEventKind::Join, format!("member {id} replaced {old}: group.instance.id {instance}"));
        let before = self.protocol.clone();
        member.id = id.clone();
        (member.awaiting_join, member.awaiting_sync) = (None, None);
        (member.client_id, member.client_host) = (request.client_id.clone(), request.client_host.clone());
        member.protocols = request.protocols;
        (member.session_timeout_ms, member.rebalance_timeout_ms) = (request.session_timeout_ms, request.rebalance_timeout_ms);
        member.refresh(now.mono_ms);
        self.insert(member);
        if was_leader {
            self.leader = Some(id.clone());
        }
        let same_protocol = self.state == GroupState::Stable && self.choose_protocol() == before;
        if same_protocol {
            outcome.records.push(self.record());
            let mut reply = self.joined(&id);
            if was_leader && request.can_skip_assignment {
                reply.skip_assignment = true;
            } else if was_leader {
                // An older client must not believe that it is the leader: it would compute an assignment that is not used.
                reply.leader = old.to_string();
                reply.members = Vec::new();
            }
            return outcome.reply(token, Reply::Join(reply));
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.awaiting_join = Some(token);
            member.session_deadline_ms = now.mono_ms + NEW_MEMBER_TIMEOUT_MS;
        }
        self.rebalance(now, rules.initial_delay_ms, outcome);
    }

    /// A member requests its assignment; the leader sends the assignments of all members.
    pub(super) fn sync(&mut self, token: Token, request: SyncRequest, now: Now, outcome: &mut Outcome) {
        if let Err(error) = self.check_sync(&request) {
            return outcome.reply(token, Reply::Sync(SyncReply::failed(error)));
        }
        let id = request.member_id;
        let Some(member) = self.members.get_mut(&id) else { return };
        member.refresh(now.mono_ms);
        if self.state == GroupState::Stable {
            return outcome.reply(token, Reply::Sync(self.synced(&id)));
        }
        if let Some(before) = member.awaiting_sync.replace(token) {
            outcome.reply(before, Reply::Sync(SyncReply::failed(ErrorCode::RebalanceInProgress)));
        }
        if self.leader.as_deref() != Some(&id) {
            return;
        }
        for member in self.members.values_mut() {
            member.assignment = request.assignments.iter().find(|(id, _)| *id == member.id).map_or(Bytes::new(), |(_, part)| part.clone());
        }
        self.state = GroupState::Stable;
        self.state_since_ms = now.wall_ms;
        self.history.note(
            now.wall_ms,
            GroupEventKind::Stable,
            format!("generation {} is stable: leader {id} assigned the partitions", self.generation),
        );
        self.deadline_ms = None;
        outcome.records.push(self.record());
        let waiting: Vec<_> = self.members.values().filter_map(|m| Some((m.awaiting_sync?, m.id.clone()))).collect();
        for (token, id) in waiting {
            outcome.reply(token, Reply::Sync(self.synced(&id)));
        }
        for member in self.members.values_mut() {
            if member.awaiting_sync.take().is_some() {
                member.refresh(now.mono_ms);
            }
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |said: &Option<String>, ours: &Option<String>| said.is_some() && said != ours;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match self.state {
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
            GroupState::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            GroupState::Empty | GroupState::Dead => Err(ErrorCode::UnknownMemberId),
        }
    }

    fn synced(&self, id: &str) -> SyncReply {
        SyncReply {
            error: ErrorCode::None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(id).map_or(Bytes::new(), |m| m.assignment.clone()),
        }
    }
}
