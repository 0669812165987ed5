//! Groups and transactions that are restored from records of any content, and then used.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dlog::coordinator::{
    ClusterMetadata, CommitRequest, Commits, GroupCoordinator, GroupRecord, GroupSettings, Identity, InitRequest, JoinRequest,
    LeavingMember, NewProducerIds, Now, OFFSETS_TOPIC, OffsetEntry, Pending, Place, Shard, SyncRequest, TRANSACTIONS_TOPIC,
    TransactionCoordinator, TransactionSettings,
};
use dlog::env::{Env, FailStop, ManualClock, MemoryDisk, SystemEntropy, Tasks};
use dlog::model::{LeaderEpoch, NodeId, Offset, ProducerId, TopicPartition, Uuid};
use dlog::partition::{Keeping, NewReplica, Origin, Partitions, TopicSettings};
use dlog::protocol::ErrorCode;
use dlog::records::{BatchBuilder, EpochRule, NewRecord, TransactionResult};
use dlog::storage::LogDirectory;
use tokio_util::sync::CancellationToken;

use super::NOW;

/// The most records of one input.
const RECORDS_MAX: usize = 64;

/// A stored record.
pub struct Stored {
    /// What chooses its place.
    pub choice: u8,
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// Records of an input: of each a choice, the length of its key, the length of its value or 0 for none, both of two bytes, the key and the value.
fn stored(mut data: &[u8]) -> Vec<Stored> {
    let mut records = Vec::new();
    while let (Some((head, rest)), true) = (data.split_first_chunk::<5>(), records.len() < RECORDS_MAX) {
        let [choice, key, key_low, value, value_low] = *head;
        let key = usize::from(u16::from_be_bytes([key, key_low])).min(rest.len());
        let (key, rest) = rest.split_at(key);
        let length = usize::from(u16::from_be_bytes([value, value_low])).min(rest.len());
        let (value, rest) = rest.split_at(length);
        let value = (length > 0).then(|| Bytes::copy_from_slice(value));
        records.push(Stored { choice, key: Bytes::copy_from_slice(key), value });
        data = rest;
    }
    records
}

/// The input that [`groups`] or [`transactions`] reads as these records.
pub fn input(records: &[(u8, Bytes, Option<Bytes>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (choice, key, value) in records {
        let value = value.clone().unwrap_or_default();
        bytes.push(*choice);
        bytes.extend((key.len() as u16).to_be_bytes());
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend([&key[..], &value[..]].concat());
    }
    bytes
}

fn group_settings() -> GroupSettings {
    GroupSettings {
        session_timeout_min_ms: 6000,
        session_timeout_max_ms: 1_800_000,
        initial_rebalance_delay_ms: 3000,
        members_max: 100,
        metadata_bytes_max: 4096,
        offsets_retention_ms: 604_800_000,
        retention_check_ms: 600_000,
        partitions: 1,
    }
}

/// Restores groups, and lets their members and a new one do everything that a client can do.
pub fn groups(data: &[u8]) {
    let mut now = Now { mono_ms: 1000, wall_ms: NOW };
    let mut shard = Shard::new(group_settings(), now);
    for Stored { choice, key, value } in stored(data) {
        let Ok(Some(record)) = GroupRecord::decode(&key, value.as_ref()) else { continue };
        let producer = (choice & 1 == 1).then_some(ProducerId(i64::from(choice >> 1 & 3)));
        let _ = shard.replay(&record, Place { offset: Offset(i64::from(choice >> 3)), producer }, now);
        if choice & 6 == 6 {
            shard.end_transaction(ProducerId(i64::from(choice >> 3 & 3)), TransactionResult::Commit);
        }
    }
    shard.assert_sound();
    let mut token = 0;
    for view in shard.list() {
        let members = shard.describe(&view.id).expect("it is listed").members;
        let generations = [0, 1, i32::MAX, -1, i32::MIN];
        for member in
            members.iter().map(|m| (m.id.clone(), m.instance_id.clone())).chain([(String::new(), None), (String::new(), Some("i".into()))])
        {
            let (id, instance) = member;
            for generation in generations {
                shard.heartbeat(&view.id, &id, instance.as_deref(), generation, now);
                let sync = SyncRequest {
                    group: view.id.clone(),
                    member_id: id.clone(),
                    instance_id: instance.clone(),
                    generation,
                    protocol_type: None,
                    protocol: None,
                    assignments: vec![(id.clone(), Bytes::from_static(b"all"))],
                };
                token += 1;
                let outcome = shard.sync(token, sync, now);
                shard.not_stored(&outcome.records, now);
                let commit = CommitRequest {
                    group: view.id.clone(),
                    member_id: id.clone(),
                    instance_id: instance.clone(),
                    generation,
                    missing_group: ErrorCode::GroupIdNotFound,
                    retention_ms: None,
                    offsets: vec![OffsetEntry { topic: "t".into(), partition: 0, offset: 1, leader_epoch: -1, metadata: String::new() }],
                };
                let _ = shard.commit(&commit, Commits::Alone, now);
            }
            token += 1;
            let join = JoinRequest {
                group: view.id.clone(),
                member_id: id.clone(),
                fresh_id: format!("fresh-{token}"),
                instance_id: instance.clone(),
                client_id: "c".into(),
                client_host: "/h".into(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 20_000,
                protocol_type: view.protocol_type.clone(),
                protocols: vec![(view.protocol.clone(), Bytes::new()), ("range".into(), Bytes::new())],
                id_required: false,
                can_skip_assignment: true,
            };
            shard.join(token, join, now);
            now = Now { mono_ms: now.mono_ms + 1000, wall_ms: now.wall_ms + 1000 };
            shard.tick(now);
        }
        if let Some((id, instance_id)) = members.first().map(|m| (m.id.clone(), m.instance_id.clone())) {
            let _ = shard.leave(&view.id, &[LeavingMember { id, instance_id }], now);
        }
        shard.assert_sound();
    }
    for pause_ms in [5000, 30_000, 3_600_000, i64::from(i32::MAX), i64::from(i32::MAX)] {
        now = Now { mono_ms: now.mono_ms + pause_ms, wall_ms: now.wall_ms + pause_ms };
        for record in shard.tick(now).records {
            let _ = shard.replay(&record, Place { offset: Offset(1000), producer: None }, now);
        }
        let _ = shard.next_deadline_ms();
        shard.assert_sound();
    }
    for view in shard.list() {
        let _ = (shard.all_committed(&view.id).len(), shard.delete(&view.id), shard.delete_offsets(&view.id, &[("t".into(), 0)]));
    }
}

struct Ids(AtomicI64);

impl NewProducerIds for Ids {
    fn next(&self) -> Pending<'_, ProducerId> {
        Box::pin(async { Ok(ProducerId(self.0.fetch_add(1, Ordering::Relaxed))) })
    }
}

struct NoTopics;

impl ClusterMetadata for NoTopics {
    fn is_deleted(&self, _: &TopicPartition) -> bool {
        true
    }
}

/// Restores transactions from a partition, and lets producers use them while time passes.
pub fn transactions(data: &[u8]) {
    let records = stored(data);
    if records.is_empty() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let clock = Arc::new(ManualClock::at(NOW));
        let env = Env { clock: clock.clone(), disk: Arc::new(MemoryDisk::new(clock)), entropy: Arc::new(SystemEntropy), ..Env::real() };
        let directory =
            LogDirectory::open(env.disk.clone(), &SystemEntropy, Path::new("/data"), NodeId(1), Some("fuzz")).expect("a directory");
        let partitions = Arc::new(Partitions::new(env.clone(), vec![directory], Vec::new(), Keeping::default()));
        let new = [OFFSETS_TOPIC, TRANSACTIONS_TOPIC, "t"].map(|topic| NewReplica {
            id: TopicPartition::new(topic, 0),
            topic_id: Uuid::from_random([topic.len() as u8; 16]),
            leader_epoch: LeaderEpoch(0),
            settings: TopicSettings::of(&BTreeMap::new(), &BTreeMap::new()),
            is_known: false,
        });
        assert_eq!(partitions.lead(new.into()).replicas, 3);
        let replica = partitions.get(TRANSACTIONS_TOPIC, 0).expect("it was created");
        for Stored { key, value, .. } in &records {
            let batch = BatchBuilder::new().record(NewRecord::keyed(key, value.as_deref())).build(NOW);
            replica.produce(&batch, Origin::Client, None, NOW).expect("an append");
        }
        let settings = TransactionSettings {
            timeout_max_ms: 900_000,
            expiration_ms: 604_800_000,
            abort_check_ms: 10_000,
            expiration_check_ms: 60_000,
            verify_partitions: true,
            partitions: 1,
        };
        let groups = GroupCoordinator::new(env.clone(), partitions.clone(), group_settings());
        let fail_stop = FailStop::new(CancellationToken::new());
        let tasks = Tasks::new(fail_stop.clone());
        let coordinator = TransactionCoordinator::new(
            env,
            partitions,
            groups.clone(),
            Box::new(Ids(AtomicI64::new(1000))),
            Box::new(NoTopics),
            settings,
            tasks,
        );
        groups.load();
        coordinator.load();
        coordinator.abort_orphans();
        let use_all = async |how: u8| {
            for view in coordinator.list().expect("what was restored") {
                let partitions = [TopicPartition::new("t", 0)];
                let _ = coordinator.verify(&view.id, view.producer, &partitions);
                let rule = if how & 1 == 0 { EpochRule::Stays } else { EpochRule::Grows };
                let result = if how & 2 == 0 { TransactionResult::Commit } else { TransactionResult::Abort };
                if how & 4 == 0 {
                    let _ = coordinator.add(&view.id, view.producer, &partitions, rule).await;
                    let _ = coordinator.end(&view.id, view.producer, result, rule).await;
                }
                let before = Identity::new(view.producer.id.0, view.producer.epoch.0.wrapping_sub(1));
                let _ = coordinator.end(&view.id, before, result, rule).await;
                let expected = if how & 8 == 0 { None } else { Some(view.producer) };
                let _ = coordinator.init(InitRequest { transactional_id: view.id.clone(), timeout_ms: 60_000, expected }).await;
            }
        };
        let how = records[0].choice;
        if how & 16 == 0 {
            use_all(how).await;
        }
        let stop = CancellationToken::new();
        let running = tokio::spawn(coordinator.clone().run(stop.clone()));
        tokio::time::sleep(Duration::from_secs(30)).await;
        use_all(how >> 1).await;
        tokio::time::sleep(Duration::from_secs(90)).await;
        use_all(how >> 2).await;
        stop.cancel();
        running.await.expect("it runs until it is told to stop");
        // A panic in a task of the coordinator would not reach this thread.
        assert_eq!(fail_stop.reason(), None);
    });
}
