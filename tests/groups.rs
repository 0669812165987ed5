//! The state machine of classic groups, event by event.

use bytes::Bytes;
use dlog::coordinator::{
    CommitRequest, Commits, GroupRecord, GroupSettings, GroupState, JoinReply, JoinRequest, LeavingMember, Now, OffsetEntry, Outcome,
    Place, Reply, Shard, SyncReply, SyncRequest, Token, partition_for,
};
use dlog::model::Offset;
use dlog::protocol::ErrorCode;

/// Where records lie, where that does not matter.
const PLACE: Place = Place { offset: Offset(0), producer: None };
const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 30_000;

fn settings() -> GroupSettings {
    GroupSettings {
        session_timeout_min_ms: 6000,
        session_timeout_max_ms: 1_800_000,
        initial_rebalance_delay_ms: 0,
        members_max: 100,
        metadata_bytes_max: 10,
        offsets_retention_ms: 1000,
        retention_check_ms: 100_000_000,
        partitions: 50,
    }
}

/// A shard with a clock, and what it has said so far.
struct Bench {
    shard: Shard,
    now_ms: i64,
    next: Token,
    replies: Vec<(Token, Reply)>,
    records: Vec<GroupRecord>,
}

impl Bench {
    fn new(settings: GroupSettings) -> Bench {
        Bench { shard: Shard::new(settings, at(0)), now_ms: 0, next: 0, replies: vec![], records: vec![] }
    }

    fn now(&self) -> Now {
        at(self.now_ms)
    }

    fn take(&mut self, outcome: Outcome) {
        self.replies.extend(outcome.replies);
        self.records.extend(outcome.records);
    }

    fn join(&mut self, request: JoinRequest) -> Token {
        self.next += 1;
        let outcome = self.shard.join(self.next, request, self.now());
        self.take(outcome);
        self.next
    }

    fn sync(&mut self, member: &str, generation: i32, assignments: &[(&str, &str)]) -> Token {
        self.next += 1;
        let parts = assignments.iter().map(|(id, part)| (id.to_string(), Bytes::from(part.to_string()))).collect();
        let request = SyncRequest {
            group: "g".into(),
            member_id: member.into(),
            instance_id: None,
            generation,
            protocol_type: None,
            protocol: None,
            assignments: parts,
        };
        let outcome = self.shard.sync(self.next, request, self.now());
        self.take(outcome);
        self.next
    }

    fn leave(&mut self, id: &str, instance: Option<&str>) -> ErrorCode {
        let member = LeavingMember { id: id.into(), instance_id: instance.map(str::to_string) };
        let (results, outcome) = self.shard.leave("g", &[member], self.now());
        self.take(outcome);
        results.unwrap()[0]
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        let outcome = self.shard.tick(self.now());
        self.take(outcome);
    }

    fn heartbeat(&mut self, member: &str, generation: i32) -> ErrorCode {
        self.shard.heartbeat("g", member, None, generation, self.now())
    }

    fn joined(&self, token: Token) -> Option<&JoinReply> {
        self.replies.iter().rev().find_map(|(t, reply)| match reply {
            Reply::Join(reply) if *t == token => Some(reply),
            _ => None,
        })
    }

    fn synced(&self, token: Token) -> Option<&SyncReply> {
        self.replies.iter().rev().find_map(|(t, reply)| match reply {
            Reply::Sync(reply) if *t == token => Some(reply),
            _ => None,
        })
    }

    fn state(&self) -> GroupState {
        self.shard.describe("g").map_or(GroupState::Dead, |view| view.state)
    }

    /// Members with these ids, stable in a generation that is returned.
    fn stable(&mut self, ids: &[&str]) -> i32 {
        for id in ids {
            self.join(new_member(id));
        }
        for id in ids {
            // The first member was alone in the first generation: all that are known join again.
            if self.state() == GroupState::PreparingRebalance {
                self.join(known(id));
            }
        }
        let generation = self.generation();
        let leader = self.leader();
        for id in ids.iter().filter(|id| **id != leader) {
            self.sync(id, generation, &[]);
        }
        let parts: Vec<(&str, &str)> = ids.iter().map(|id| (*id, *id)).collect();
        self.sync(&leader, generation, &parts);
        assert_eq!(self.state(), GroupState::Stable);
        generation
    }

    fn generation(&self) -> i32 {
        self.replies.iter().filter_map(|(_, r)| if let Reply::Join(j) = r { Some(j.generation) } else { None }).max().unwrap_or(0)
    }

    fn leader(&self) -> String {
        let newest = self.generation();
        self.replies
            .iter()
            .rev()
            .find_map(|(_, r)| match r {
                Reply::Join(j) if j.generation == newest => Some(j.leader.clone()),
                _ => None,
            })
            .unwrap()
    }
}

fn at(ms: i64) -> Now {
    Now { mono_ms: ms, wall_ms: 1_000_000 + ms }
}

/// The first join of a member; its id will be `id`.
fn new_member(id: &str) -> JoinRequest {
    JoinRequest {
        group: "g".into(),
        member_id: String::new(),
        fresh_id: id.into(),
        instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(b"meta"))],
        id_required: false,
        can_skip_assignment: true,
    }
}

fn known(id: &str) -> JoinRequest {
    JoinRequest { member_id: id.into(), ..new_member("unused") }
}

fn commit(member: &str, generation: i32) -> CommitRequest {
    CommitRequest {
        group: "g".into(),
        member_id: member.into(),
        instance_id: None,
        generation,
        missing_group: ErrorCode::IllegalGeneration,
        retention_ms: None,
        offsets: vec![OffsetEntry { topic: "t".into(), partition: 0, offset: 7, leader_epoch: -1, metadata: String::new() }],
    }
}

#[test]
fn a_group_goes_from_join_to_stable_and_everyone_gets_its_part() {
    let mut bench = Bench::new(settings());
    let first = bench.join(new_member("a"));
    assert_eq!(
        bench.joined(first).map(|j| (j.error, j.generation, j.leader.as_str(), j.members.len())),
        Some((ErrorCode::None, 1, "a", 1))
    );
    let second = bench.join(new_member("b"));
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    assert_eq!(bench.joined(second), None);
    assert_eq!(bench.heartbeat("a", 1), ErrorCode::RebalanceInProgress);
    let again = bench.join(known("a"));
    let (leader, follower) = (bench.joined(again).unwrap(), bench.joined(second).unwrap());
    assert_eq!((leader.generation, leader.members.len(), follower.members.len(), follower.leader.as_str()), (2, 2, 0, "a"));
    let waiting = bench.sync("b", 2, &[]);
    assert_eq!(bench.synced(waiting), None);
    assert_eq!(bench.heartbeat("b", 2), ErrorCode::None);
    let leads = bench.sync("a", 2, &[("a", "part a"), ("b", "part b")]);
    assert_eq!(bench.synced(leads).map(|s| s.assignment.clone()), Some("part a".into()));
    assert_eq!(bench.synced(waiting).map(|s| s.assignment.clone()), Some("part b".into()));
    assert_eq!(bench.state(), GroupState::Stable);
    assert_eq!(bench.records.len(), 1, "stored once, before the answers");
}

#[test]
fn a_new_member_is_told_its_id_first() {
    let mut bench = Bench::new(settings());
    let told = bench.join(JoinRequest { id_required: true, ..new_member("a") });
    assert_eq!(bench.joined(told).map(|j| (j.error, j.member_id.as_str())), Some((ErrorCode::MemberIdRequired, "a")));
    let a = bench.join(known("a"));
    assert_eq!(bench.joined(a).map(|j| (j.error, j.generation)), Some((ErrorCode::None, 1)));

    // A rebalance of a group that has members waits for who was told an id, and not longer than the id lives.
    let mut bench = Bench::new(settings());
    bench.stable(&["a"]);
    bench.join(JoinRequest { id_required: true, ..new_member("b") });
    let a = bench.join(known("a"));
    assert_eq!(bench.joined(a), None, "the join waits for who was told an id");
    bench.pass(i64::from(SESSION_MS) + 1);
    assert_eq!(bench.joined(a).map(|j| j.error), Some(ErrorCode::None), "an id that is never used expires");
}

#[test]
fn an_id_that_was_handed_out_is_not_used_with_a_static_id() {
    // It took the static id from the member that had it, and the group then contradicted itself.
    let mut bench = Bench::new(settings());
    bench.join(JoinRequest { id_required: true, ..new_member("a") });
    let fixed = bench.join(JoinRequest { instance_id: Some("x".into()), ..new_member("b") });
    bench.pass(i64::from(SESSION_MS) - 1);
    assert_eq!(bench.joined(fixed).map(|j| j.error), Some(ErrorCode::None));
    let taken = bench.join(JoinRequest { instance_id: Some("x".into()), ..known("a") });
    assert_eq!(bench.joined(taken).map(|j| j.error), Some(ErrorCode::UnknownMemberId));
    assert_eq!(bench.heartbeat("b", 1), ErrorCode::None);
}

#[test]
fn an_id_that_was_handed_out_and_never_used_does_not_hold_up_the_next_member() {
    // KAFKA-7909: a client that gave up after MEMBER_ID_REQUIRED made the next member of the empty group wait for its session time-out.
    for delay_ms in [0, 3000] {
        let mut bench = Bench::new(GroupSettings { initial_rebalance_delay_ms: delay_ms, ..settings() });
        let given_up = bench.join(JoinRequest { id_required: true, ..new_member("gone") });
        assert_eq!(bench.joined(given_up).unwrap().error, ErrorCode::MemberIdRequired);
        let next = bench.join(new_member("next"));
        if delay_ms > 0 {
            assert_eq!(bench.joined(next), None);
            // Each extension of the delay needs a new member, and there is none.
            bench.pass(delay_ms);
            bench.pass(delay_ms);
        }
        let joined = bench.joined(next).unwrap_or_else(|| panic!("with a delay of {delay_ms} ms the member still waits"));
        assert_eq!((joined.error, joined.members.len()), (ErrorCode::None, 1));
        // The id is still good.
        let late = bench.join(JoinRequest { member_id: "gone".into(), ..new_member("gone") });
        assert_eq!(bench.joined(late), None);
        bench.join(known("next"));
        assert_eq!(bench.joined(late).unwrap().error, ErrorCode::None);
    }
}

#[test]
fn a_group_goes_only_when_it_is_deleted_or_expires() {
    let mut bench = Bench::new(GroupSettings { retention_check_ms: 5000, ..settings() });
    let entry = OffsetEntry { topic: "t".into(), partition: 0, offset: 1, leader_epoch: -1, metadata: String::new() };
    // The empty id is one like any other.
    for group in ["simple", ""] {
        let commit = CommitRequest {
            group: group.into(),
            member_id: String::new(),
            instance_id: None,
            generation: -1,
            missing_group: ErrorCode::IllegalGeneration,
            retention_ms: None,
            offsets: vec![entry.clone()],
        };
        let (_, records) = bench.shard.commit(&commit, Commits::Alone, bench.now()).unwrap();
        records.iter().for_each(|record| bench.shard.replay(record, PLACE, at(0)).unwrap());
        assert!(bench.shard.describe(group).is_some());
    }
    // Kafka 4.3.1: OffsetDelete of the last offset leaves an empty group, which is deleted or expires.
    let (codes, records) = bench.shard.delete_offsets("simple", &[("t".into(), 0)]).unwrap();
    assert_eq!(codes, [ErrorCode::None]);
    records.iter().for_each(|record| bench.shard.replay(record, PLACE, at(0)).unwrap());
    assert!(bench.shard.describe("simple").is_some());
    assert_eq!(bench.shard.delete_offsets("", &[("t".into(), 0)]), Err(ErrorCode::InvalidGroupId));
    let records = bench.shard.delete("").unwrap();
    records.iter().for_each(|record| bench.shard.replay(record, PLACE, at(0)).unwrap());
    assert_eq!(bench.shard.describe(""), None);
    bench.pass(5000);
    let expired: Vec<GroupRecord> = std::mem::take(&mut bench.records);
    expired.iter().for_each(|record| bench.shard.replay(record, PLACE, at(5000)).unwrap());
    assert_eq!(bench.shard.describe("simple"), None);
}

#[test]
fn an_id_that_was_not_used_yet_does_not_keep_a_group() {
    let mut bench = Bench::new(settings());
    bench.join(JoinRequest { id_required: true, ..new_member("a") });
    let records = bench.shard.delete("g").unwrap();
    records.iter().for_each(|record| bench.shard.replay(record, PLACE, at(0)).unwrap());
    let joined = bench.join(known("a"));
    assert_eq!(bench.joined(joined).unwrap().error, ErrorCode::UnknownMemberId);
}

#[test]
fn a_silent_member_is_lost_and_the_others_rebalance() {
    let mut bench = Bench::new(settings());
    let generation = bench.stable(&["a", "b"]);
    bench.pass(6000);
    assert_eq!(bench.heartbeat("a", generation), ErrorCode::None);
    bench.pass(6000);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    assert_eq!(bench.heartbeat("b", generation), ErrorCode::UnknownMemberId);
    assert_eq!(bench.heartbeat("a", generation), ErrorCode::RebalanceInProgress);
    let a = bench.join(known("a"));
    assert_eq!(bench.joined(a).map(|j| (j.generation, j.members.len())), Some((generation + 1, 1)));
}

#[test]
fn who_does_not_come_back_in_time_is_left_out() {
    let mut bench = Bench::new(settings());
    let generation = bench.stable(&["a", "b"]);
    let c = bench.join(new_member("c"));
    let a = bench.join(known("a"));
    for _ in 0..5 {
        bench.pass(6000);
        bench.heartbeat("b", generation);
    }
    bench.pass(6000);
    assert_eq!(bench.joined(a).map(|j| j.generation), Some(generation + 1));
    assert_eq!(bench.joined(c).map(|j| j.error), Some(ErrorCode::None));
    assert_eq!(bench.heartbeat("b", generation), ErrorCode::UnknownMemberId);
}

#[test]
fn who_does_not_sync_in_time_is_taken_out() {
    let mut bench = Bench::new(settings());
    let token = bench.join(JoinRequest { session_timeout_ms: 100_000, ..new_member("a") });
    assert!(bench.joined(token).is_some());
    bench.pass(i64::from(REBALANCE_MS) + 1);
    assert_eq!(bench.state(), GroupState::Empty);
    assert_eq!(bench.heartbeat("a", 1), ErrorCode::UnknownMemberId);
}

#[test]
fn leaving_starts_a_rebalance_and_the_last_one_empties_the_group() {
    let mut bench = Bench::new(settings());
    bench.stable(&["a", "b"]);
    assert_eq!(bench.leave("x", None), ErrorCode::UnknownMemberId);
    assert_eq!(bench.leave("b", None), ErrorCode::None);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    assert_eq!(bench.leave("a", None), ErrorCode::None);
    assert_eq!(bench.state(), GroupState::Empty);
    let Some(GroupRecord::Group(_, Some(value))) = bench.records.last() else { panic!("the empty group is stored") };
    assert!(value.members.is_empty() && value.leader.is_none());
}

#[test]
fn a_follower_that_joins_again_unchanged_goes_on_and_a_leader_rebalances() {
    let mut bench = Bench::new(settings());
    let generation = bench.stable(&["a", "b"]);
    let (leader, follower) = if bench.leader() == "a" { ("a", "b") } else { ("b", "a") };
    let same = bench.join(known(follower));
    assert_eq!(bench.joined(same).map(|j| j.generation), Some(generation));
    assert_eq!(bench.state(), GroupState::Stable);
    let synced = bench.sync(follower, generation, &[]);
    assert_eq!(bench.synced(synced).map(|s| s.assignment.clone()), Some(Bytes::from(follower)));
    bench.join(known(leader));
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_its_old_id_is_fenced() {
    let mut bench = Bench::new(settings());
    let fixed = |id: &str, instance: &str| JoinRequest { instance_id: Some(instance.into()), ..new_member(id) };
    bench.join(fixed("a-1", "a"));
    let generation = bench.generation();
    bench.sync("a-1", generation, &[("a-1", "part")]);
    assert_eq!(bench.state(), GroupState::Stable);
    let back = bench.join(fixed("a-2", "a"));
    let reply = bench.joined(back).unwrap();
    assert_eq!(
        (reply.error, reply.generation, reply.skip_assignment, reply.member_id.as_str()),
        (ErrorCode::None, generation, true, "a-2")
    );
    assert_eq!(bench.state(), GroupState::Stable);
    let sync = bench.sync("a-2", generation, &[]);
    assert_eq!(bench.synced(sync).map(|s| s.assignment.clone()), Some("part".into()));
    assert_eq!(bench.shard.heartbeat("g", "a-1", Some("a"), generation, bench.now()), ErrorCode::FencedInstanceId);
    assert_eq!(bench.shard.heartbeat("g", "a-2", Some("nobody"), generation, bench.now()), ErrorCode::UnknownMemberId);
    let older = bench.join(JoinRequest { can_skip_assignment: false, ..fixed("a-3", "a") });
    assert_eq!(
        bench.joined(older).map(|j| (j.leader.as_str(), j.members.len())),
        Some(("a-2", 0)),
        "an older client must not think it leads"
    );
    assert_eq!(bench.leave("a-1", Some("a")), ErrorCode::FencedInstanceId);
    assert_eq!(bench.leave("", Some("a")), ErrorCode::None);
    assert_eq!(bench.state(), GroupState::Empty);
}

#[test]
fn requests_that_do_not_fit_are_refused() {
    let mut bench = Bench::new(GroupSettings { members_max: 1, ..settings() });
    let cases = [
        (JoinRequest { group: String::new(), ..new_member("x") }, ErrorCode::InvalidGroupId),
        (JoinRequest { session_timeout_ms: 5, ..new_member("x") }, ErrorCode::InvalidSessionTimeout),
        (known("nobody"), ErrorCode::UnknownMemberId),
        (JoinRequest { protocols: vec![], ..new_member("x") }, ErrorCode::InconsistentGroupProtocol),
    ];
    for (request, expected) in cases {
        let token = bench.join(request);
        assert_eq!(bench.joined(token).map(|j| j.error), Some(expected));
    }
    let generation = bench.stable(&["a"]);
    for (request, expected) in [
        (JoinRequest { protocol_type: "connect".into(), ..new_member("x") }, ErrorCode::InconsistentGroupProtocol),
        (JoinRequest { protocols: vec![("other".into(), Bytes::new())], ..new_member("x") }, ErrorCode::InconsistentGroupProtocol),
        (new_member("x"), ErrorCode::GroupMaxSizeReached),
        (known("nobody"), ErrorCode::UnknownMemberId),
    ] {
        let token = bench.join(request);
        assert_eq!(bench.joined(token).map(|j| j.error), Some(expected));
    }
    let stale = bench.sync("a", generation - 1, &[]);
    assert_eq!(bench.synced(stale).map(|s| s.error), Some(ErrorCode::IllegalGeneration));
    let stranger = bench.sync("x", generation, &[]);
    assert_eq!(bench.synced(stranger).map(|s| s.error), Some(ErrorCode::UnknownMemberId));
    assert_eq!(bench.heartbeat("a", generation - 1), ErrorCode::IllegalGeneration);
}

#[test]
fn the_first_rebalance_waits_for_more_members() {
    let mut bench = Bench::new(GroupSettings { initial_rebalance_delay_ms: 3000, ..settings() });
    let a = bench.join(new_member("a"));
    bench.pass(2000);
    let b = bench.join(new_member("b"));
    bench.pass(1500);
    assert_eq!(bench.joined(a), None, "extended, because a member came");
    bench.pass(3000);
    assert_eq!(bench.joined(a).map(|j| (j.generation, j.members.len())), Some((1, 2)));
    assert_eq!(bench.joined(b).map(|j| j.generation), Some(1));
}

#[test]
fn offsets_are_committed_by_members_and_from_outside_empty_groups() {
    let mut bench = Bench::new(settings());
    let now = bench.now();
    assert_eq!(bench.shard.commit(&commit("a", 3), Commits::Alone, now), Err(ErrorCode::IllegalGeneration), "no such group");
    let (codes, records) = bench.shard.commit(&commit("", -1), Commits::Alone, now).unwrap();
    assert_eq!((codes, bench.shard.committed("g", "t", 0)), (vec![ErrorCode::None], None), "counts once it is stored");
    records.iter().for_each(|record| bench.shard.replay(record, PLACE, now).unwrap());
    assert_eq!(bench.shard.committed("g", "t", 0).map(|c| c.offset), Some(7));
    let generation = bench.stable(&["a"]);
    let cases = [
        (commit("", -1), Some(ErrorCode::UnknownMemberId)),
        (commit("x", generation), Some(ErrorCode::UnknownMemberId)),
        (commit("a", generation + 1), Some(ErrorCode::IllegalGeneration)),
        (commit("a", generation), None),
    ];
    for (request, expected) in cases {
        assert_eq!(bench.shard.commit(&request, Commits::Alone, now).err(), expected);
    }
    let mut long = commit("a", generation);
    long.offsets[0].metadata = "more than ten".into();
    assert_eq!(bench.shard.commit(&long, Commits::Alone, now).unwrap().0, [ErrorCode::OffsetMetadataTooLarge]);
    bench.join(known("a"));
    assert_eq!(bench.state(), GroupState::CompletingRebalance);
    assert_eq!(bench.shard.commit(&commit("a", generation + 1), Commits::Alone, now).err(), Some(ErrorCode::RebalanceInProgress));
}

#[test]
fn offsets_and_groups_expire_and_deleted_topics_take_their_offsets_along() {
    let mut bench = Bench::new(GroupSettings { retention_check_ms: 500, ..settings() });
    let (_, records) = bench.shard.commit(&commit("", -1), Commits::Alone, bench.now()).unwrap();
    records.iter().for_each(|record| bench.shard.replay(record, PLACE, at(0)).unwrap());
    bench.pass(600);
    assert!(bench.records.is_empty());
    bench.pass(600);
    let tombstones = std::mem::take(&mut bench.records);
    assert_eq!(tombstones.iter().filter(|r| r.value().is_none()).count(), 2, "the offset, and the group that holds nothing more");
    tombstones.iter().for_each(|record| bench.shard.replay(record, PLACE, at(0)).unwrap());
    assert_eq!(bench.shard.list(), []);
    let (_, records) =
        bench.shard.commit(&CommitRequest { retention_ms: Some(1_000_000), ..commit("", -1) }, Commits::Alone, bench.now()).unwrap();
    records.iter().for_each(|record| bench.shard.replay(record, PLACE, at(0)).unwrap());
    bench.pass(10_000);
    assert!(bench.records.is_empty(), "an explicit retention holds");
    assert_eq!(bench.shard.topics_deleted(&["other"].into()), []);
    assert_eq!(bench.shard.topics_deleted(&["t"].into()).len(), 1);
}

#[test]
fn a_stored_group_comes_back_with_its_members_and_offsets() {
    let mut bench = Bench::new(settings());
    let generation = bench.stable(&["a", "b"]);
    let (_, offsets) = bench.shard.commit(&commit("a", generation), Commits::Alone, bench.now()).unwrap();
    let mut restarted = Bench::new(settings());
    for record in bench.records.iter().chain(&offsets) {
        let stored = GroupRecord::decode(&record.key(), record.value().as_ref()).unwrap().unwrap();
        assert_eq!(&stored, record);
        restarted.shard.replay(&stored, PLACE, at(0)).unwrap();
    }
    assert_eq!(restarted.state(), GroupState::Stable);
    assert_eq!(restarted.heartbeat("a", generation), ErrorCode::None);
    let sync = restarted.sync("b", generation, &[]);
    assert_eq!(restarted.synced(sync).map(|s| s.assignment.clone()), Some("b".into()));
    assert_eq!(restarted.shard.committed("g", "t", 0).map(|c| c.offset), Some(7));
    restarted.pass(i64::from(SESSION_MS) + 1);
    assert_eq!(restarted.state(), GroupState::Empty, "who does not come back after the restart is lost");
}

#[test]
fn what_could_not_be_stored_is_rebalanced() {
    let mut bench = Bench::new(settings());
    bench.stable(&["a"]);
    let records = bench.records.clone();
    let outcome = bench.shard.not_stored(&records, bench.now());
    bench.take(outcome);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_groups_partition_is_by_javas_hash() {
    // Computed by Java; the last one's hash is the smallest int.
    for (group, partition) in [("", 0), ("a", 47), ("hello", 22), ("orders-service", 17), ("consumer-group", 38), ("polygenelubricants", 0)]
    {
        assert_eq!(partition_for(group, 50), partition, "{group}");
    }
}

#[test]
fn a_member_that_was_silent_is_named_with_figures() {
    let mut bench = Bench::new(settings());
    bench.stable(&["a", "b"]);
    bench.pass(SESSION_MS as i64 - 1000);
    assert_eq!(bench.heartbeat("a", 2), ErrorCode::None);
    bench.pass(1200);
    let history = bench.shard.history("g").unwrap();
    let last: Vec<(&str, &str)> = history.iter().rev().take(2).rev().map(|h| (h.kind.name(), h.text.as_str())).collect();
    let silent = "member b sent no heartbeat for 10200 ms; its session time-out is 10000 ms";
    let rebalance = format!("rebalance: 1 member must rejoin within 30000 ms, because {silent}");
    assert_eq!(last, [("timeout", silent), ("rebalance", rebalance.as_str())]);
    for _ in 0..300 {
        bench.join(new_member("c"));
        bench.leave("c", None);
    }
    assert_eq!(bench.shard.history("g").unwrap().len(), 200, "the history is bounded");
}

#[test]
fn groups_with_members_are_not_deleted_and_what_they_read_keeps_its_offsets() {
    let mut bench = Bench::new(settings());
    let generation = bench.stable(&["a"]);
    let (_, records) = bench.shard.commit(&commit("a", generation), Commits::Alone, bench.now()).unwrap();
    records.iter().for_each(|record| bench.shard.replay(record, PLACE, bench.now()).unwrap());
    let t0 = [("t".to_string(), 0)];
    assert_eq!(bench.shard.delete("g"), Err(ErrorCode::NonEmptyGroup));
    // The subscription of these members cannot be read, so every topic may be theirs.
    assert_eq!(bench.shard.delete_offsets("g", &t0).unwrap(), (vec![ErrorCode::GroupSubscribedToTopic], vec![]));
    assert_eq!(bench.shard.delete("nobody"), Err(ErrorCode::GroupIdNotFound));
    assert_eq!(bench.shard.delete(""), Err(ErrorCode::GroupIdNotFound));
    assert_eq!(bench.shard.delete_offsets("nobody", &t0).unwrap_err(), ErrorCode::GroupIdNotFound);
    bench.leave("a", None);
    let (codes, tombstones) = bench.shard.delete_offsets("g", &[t0[0].clone(), ("t".into(), 9)]).unwrap();
    assert_eq!((codes, tombstones.len()), (vec![ErrorCode::None; 2], 1), "what was not committed needs no tombstone");
    let records = bench.shard.delete("g").unwrap();
    assert_eq!(records.len(), 2, "the offset and the group");
    records.iter().for_each(|record| bench.shard.replay(record, PLACE, bench.now()).unwrap());
    assert!(bench.shard.describe("g").is_none());
}
