//! Groups whose stored records contradict each other.

use bytes::Bytes;
use dlog::coordinator::{GroupRecord, GroupSettings, GroupState, JoinRequest, Now, Outcome, Place, Shard};
use dlog::model::Offset;
use dlog::protocol::generated::consumer_offsets::{
    GroupMetadataKey, GroupMetadataValue, MemberMetadata, OffsetCommitKey, OffsetCommitValue,
};

const START: Now = Now { mono_ms: 0, wall_ms: 1_700_000_000_000 };
const LATER: Now = Now { mono_ms: 10_000_000, wall_ms: 1_700_010_000_000 };
type Change<'a> = &'a dyn Fn(&mut GroupMetadataValue);

fn shard() -> Shard {
    let settings = GroupSettings {
        session_timeout_min_ms: 6000,
        session_timeout_max_ms: 1_800_000,
        initial_rebalance_delay_ms: 0,
        members_max: 100,
        metadata_bytes_max: 10,
        offsets_retention_ms: i64::MAX,
        retention_check_ms: 100_000_000,
        partitions: 1,
    };
    Shard::new(settings, START)
}

fn place(offset: i64) -> Place {
    Place { offset: Offset(offset), producer: None }
}

/// A stable group with the members a and b.
fn group() -> GroupMetadataValue {
    let member = |id: &str| MemberMetadata {
        member_id: id.into(),
        rebalance_timeout: 10_000,
        session_timeout: 10_000,
        subscription: Bytes::from_static(b"topics"),
        ..Default::default()
    };
    GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation: 3,
        protocol: Some("range".into()),
        leader: Some("a".into()),
        members: vec![member("a"), member("b")],
        ..Default::default()
    }
}

fn join() -> JoinRequest {
    JoinRequest {
        group: "g".into(),
        member_id: String::new(),
        fresh_id: "c".into(),
        instance_id: None,
        client_id: "c".into(),
        client_host: "/h".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::new())],
        id_required: false,
        can_skip_assignment: false,
    }
}

#[test]
fn a_stored_group_that_contradicts_itself_breaks_no_assertion() {
    // Stored bytes are input: what they contained was believed, and an assertion stopped the broker later.
    let instance = |value: &mut GroupMetadataValue| value.members.iter_mut().for_each(|m| m.group_instance_id = Some("i".into()));
    let cases: [(&str, usize, Change<'_>); 6] = [
        ("", 2, &|_| ()),
        ("generation is -1", 0, &|value| value.generation = -1),
        ("generation is -2147483648", 0, &|value| value.generation = i32::MIN),
        ("two members have the id a", 1, &|value| value.members[1].member_id = "a".into()),
        ("two members have the id i", 1, &instance),
        ("", 2, &|value| value.generation = i32::MAX),
    ];
    for (expected, members, change) in cases {
        let (mut shard, mut value) = (shard(), group());
        change(&mut value);
        let record = GroupRecord::Group(GroupMetadataKey { group: "g".into() }, Some(value));
        let text = shard.replay(&record, place(0), START).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains(expected) && text.is_empty() == expected.is_empty(), "{text}");
        shard.assert_sound();
        assert_eq!(shard.describe("g").unwrap().members.len(), members, "{expected}");
        // Its members time out, and a new one joins.
        shard.tick(LATER);
        let Outcome { replies, .. } = shard.join(1, join(), LATER);
        assert_eq!((replies.len(), shard.describe("g").unwrap().state), (1, GroupState::CompletingRebalance), "{expected}");
    }
}

#[test]
fn an_older_offset_is_skipped() {
    let mut shard = shard();
    let key = OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 0 };
    for (stored_at, is_applied) in [(7, true), (7, true), (6, false), (8, true)] {
        let value = OffsetCommitValue { offset: stored_at, ..Default::default() };
        let record = GroupRecord::Offset(key.clone(), Some(value));
        assert_eq!(shard.replay(&record, place(stored_at), START).is_ok(), is_applied);
    }
    assert_eq!(shard.committed("g", "t", 0).unwrap().offset, 8);
}
