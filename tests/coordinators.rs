//! Coordinators while the topics that they use are deleted, created again, or not here: what is pending, and who waits.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::logs::log_directory;
use common::{Client, PATIENCE, start, tasks};
use dlog::coordinator::{
    ClusterMetadata, GroupCoordinator, GroupSettings, InitRequest, JoinRequest, NewProducerIds, OFFSETS_TOPIC, Pending, TRANSACTIONS_TOPIC,
    TransactionCoordinator, TransactionSettings, TransactionState,
};
use dlog::env::{Clock, Env, MemoryDisk, SystemClock, Tasks};
use dlog::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TopicPartition, Uuid};
use dlog::partition::{Durability, Error, Keeping, NewReplica, Origin, Partitions, Position, TopicSettings};
use dlog::protocol::ErrorCode;
use dlog::protocol::generated::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use dlog::protocol::generated::describe_groups::DescribeGroupsRequest;
use dlog::protocol::generated::find_coordinator::FindCoordinatorRequest;
use dlog::protocol::generated::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use dlog::protocol::generated::offset_commit::{OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use dlog::protocol::generated::{add_partitions_to_txn, delete_groups, init_producer_id, offset_delete, sync_group, write_txn_markers};
use dlog::records::{BatchBuilder, EpochRule, Marker, NewRecord, TransactionResult};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Ids(AtomicI64);

impl NewProducerIds for Ids {
    fn next(&self) -> Pending<'_, ProducerId> {
        Box::pin(async { Ok(ProducerId(self.0.fetch_add(1, Ordering::Relaxed))) })
    }
}

/// Whether the metadata says that the transaction's topic is deleted.
#[derive(Clone, Default)]
struct Metadata(Arc<AtomicBool>);

impl ClusterMetadata for Metadata {
    fn is_deleted(&self, _: &TopicPartition) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Partitions and coordinators without a network.
struct Machine {
    partitions: Arc<Partitions>,
    groups: Arc<GroupCoordinator>,
    transactions: Arc<TransactionCoordinator>,
    tasks: Tasks,
    metadata: Metadata,
    stop: CancellationToken,
    running: JoinHandle<Option<()>>,
}

fn create(partitions: &Partitions, topic: &str, id: u8) {
    let new = NewReplica {
        id: TopicPartition::new(topic, 0),
        topic_id: Uuid::from_random([id; 16]),
        leader_epoch: LeaderEpoch(0),
        settings: TopicSettings::of(&BTreeMap::new(), &BTreeMap::new()),
        is_known: false,
    };
    assert_eq!(partitions.lead(vec![new]).replicas, 1);
}

impl Machine {
    fn new() -> Machine {
        Machine::with(Arc::new(SystemClock), Durability::Default)
    }

    fn with(clock: Arc<dyn Clock>, durability: Durability) -> Machine {
        let env = Env { disk: Arc::new(MemoryDisk::new(clock.clone())), clock, ..Env::real() };
        let directory = log_directory(&env, Path::new("/data")).unwrap();
        let keeping = Keeping { durability, files_max: 100 };
        let partitions = Arc::new(Partitions::new(env.clone(), vec![directory], Vec::new(), keeping));
        create(&partitions, OFFSETS_TOPIC, 1);
        create(&partitions, TRANSACTIONS_TOPIC, 2);
        let groups = GroupSettings {
            session_timeout_min_ms: 0,
            session_timeout_max_ms: 60_000,
            initial_rebalance_delay_ms: 1000,
            members_max: 100,
            metadata_bytes_max: 100,
            offsets_retention_ms: i64::MAX >> 1,
            retention_check_ms: i64::MAX >> 1,
            partitions: 1,
        };
        let settings = TransactionSettings {
            timeout_max_ms: 60_000,
            expiration_ms: i64::MAX >> 1,
            abort_check_ms: 1_000_000,
            expiration_check_ms: 1_000_000_000,
            verify_partitions: true,
            partitions: 1,
        };
        let tasks = tasks();
        let groups = GroupCoordinator::new(env.clone(), partitions.clone(), groups);
        let (ids, metadata) = (Box::new(Ids(AtomicI64::new(0))), Metadata::default());
        let transactions =
            TransactionCoordinator::new(env, partitions.clone(), groups.clone(), ids, Box::new(metadata.clone()), settings, tasks.clone());
        groups.load();
        transactions.load();
        let stop = CancellationToken::new();
        let running = tasks.spawn("transactions", transactions.clone().run(stop.clone()));
        tasks.spawn("groups", groups.clone().run(stop.clone()));
        Machine { partitions, groups, transactions, tasks, metadata, stop, running }
    }

    /// Decides a transaction with partition 0 of a topic.
    async fn commit(&self, topic: &str) {
        let init = InitRequest { transactional_id: "id".into(), timeout_ms: 60_000, expected: None };
        let producer = self.transactions.init(init).await.unwrap();
        self.transactions.add("id", producer, &[TopicPartition::new(topic, 0)], EpochRule::Stays).await.unwrap();
        self.transactions.end("id", producer, TransactionResult::Commit, EpochRule::Stays).await.unwrap();
    }

    fn state(&self) -> TransactionState {
        self.transactions.describe("id").unwrap().unwrap().state
    }

    fn log_end(&self, topic: &str) -> i64 {
        self.partitions.get(topic, 0).unwrap().view().log_end.0
    }

    /// Lets the coordinator try again, more than once. Time is the test's own.
    async fn tries_again(&self) {
        tokio::time::sleep(Duration::from_millis(3500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_not_here_gets_its_marker_when_it_is() {
    // It was taken for deleted: the transaction was complete, and the partition's readers waited for its marker forever.
    let machine = Machine::new();
    machine.commit("t").await;
    assert_eq!(machine.state(), TransactionState::PrepareCommit);
    machine.tries_again().await;
    assert_eq!(machine.state(), TransactionState::PrepareCommit);
    create(&machine.partitions, "t", 3);
    machine.tries_again().await;
    assert_eq!((machine.state(), machine.log_end("t")), (TransactionState::CompleteCommit, 1));
    machine.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_known_to_be_deleted_is_not_waited_for() {
    let machine = Machine::new();
    machine.commit("t").await;
    machine.metadata.0.store(true, Ordering::Relaxed);
    machine.tries_again().await;
    assert_eq!(machine.state(), TransactionState::CompleteCommit);
    machine.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_transaction_ends_with_the_topic_that_it_is_stored_in() {
    // The transactions' topic is deleted and created again while a partition is not told yet: the new topic knows nothing of it.
    let machine = Machine::new();
    machine.commit("t").await;
    let _left = machine.partitions.delete(&[TRANSACTIONS_TOPIC.into()]);
    assert_eq!(machine.transactions.describe("id"), Err(ErrorCode::NotCoordinator));
    create(&machine.partitions, TRANSACTIONS_TOPIC, 9);
    machine.transactions.load();
    assert_eq!(machine.transactions.describe("id"), Ok(None));
    create(&machine.partitions, "t", 3);
    machine.tries_again().await;
    assert_eq!(machine.log_end("t"), 0, "nobody tells it anything");
    machine.commit("t").await;
    assert_eq!((machine.state(), machine.log_end("t")), (TransactionState::CompleteCommit, 1));
    machine.stop.cancel();
}

/// Another broker leads in between, and this one leads again.
fn raise_epoch(partitions: &Partitions, topic: &str) {
    let replica = partitions.get(topic, 0).unwrap();
    let epoch = replica.leader_epoch().0;
    replica.become_follower(LeaderEpoch(epoch + 1)).unwrap();
    replica.become_leader(LeaderEpoch(epoch + 2), &[]).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_whose_leader_epoch_is_raised_loads_by_itself() {
    // It was loaded only when a client looked for the coordinator, and until then nobody ended its transactions.
    let machine = Machine::new();
    machine.commit("t").await;
    raise_epoch(&machine.partitions, TRANSACTIONS_TOPIC);
    raise_epoch(&machine.partitions, OFFSETS_TOPIC);
    assert!(machine.transactions.has_unloaded() && machine.groups.has_unloaded());
    create(&machine.partitions, "t", 3);
    assert_eq!(machine.groups.describe("g"), Err(ErrorCode::CoordinatorLoadInProgress));
    machine.tries_again().await;
    assert_eq!((machine.state(), machine.log_end("t")), (TransactionState::CompleteCommit, 1));
    assert_eq!(machine.groups.describe("g"), Ok(None));
    machine.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_marker_is_waited_for_and_not_what_was_appended_behind_it() {
    let machine = Machine::with(Arc::new(SystemClock), Durability::Fsync);
    create(&machine.partitions, "t", 3);
    let replica = machine.partitions.get("t", 0).unwrap();
    let marker =
        Marker { producer_id: ProducerId(7), producer_epoch: ProducerEpoch(0), result: TransactionResult::Commit, coordinator_epoch: 0 };
    let (written, position) = machine.transactions.write_marker(replica.id(), &marker, EpochRule::Stays).unwrap().unwrap();
    assert!(Arc::ptr_eq(&written, &replica));
    assert_eq!(position, Position { end: Offset(1), epoch: LeaderEpoch(0) });
    // The group coordinator's partition: the marker's own position, too.
    let id = TopicPartition::new(OFFSETS_TOPIC, 0);
    let end = machine.log_end(OFFSETS_TOPIC);
    let (_, position) = machine.transactions.write_marker(&id, &marker, EpochRule::Stays).unwrap().unwrap();
    assert_eq!(position.end, Offset(end + 1));
    // The epoch ends before the marker is committed: it may be truncated, and is written again.
    raise_epoch(&machine.partitions, "t");
    let batch = BatchBuilder::new().record(NewRecord::value(b"x")).build(SystemClock.wall_ms());
    replica.produce(&batch, Origin::Client, None, SystemClock.wall_ms()).unwrap();
    machine.partitions.commit(0).unwrap();
    assert!(matches!(written.committed(Position { end: Offset(1), epoch: LeaderEpoch(0) }).await, Err(Error::NotLeader(_))));
    machine.stop.cancel();
}

/// The machine's clock, until it is broken: then it panics, as an invariant does that does not hold.
#[derive(Default)]
struct BrittleClock(AtomicBool);

impl Clock for BrittleClock {
    fn wall_ms(&self) -> i64 {
        assert!(!self.0.load(Ordering::Relaxed), "the clock is broken");
        SystemClock.wall_ms()
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_group_is_answered_when_its_coordinator_panics() {
    let clock = Arc::<BrittleClock>::default();
    let machine = Machine::with(clock.clone(), Durability::Default);
    let request = JoinRequest {
        group: "g".into(),
        member_id: String::new(),
        fresh_id: "m".into(),
        instance_id: None,
        client_id: "c".into(),
        client_host: "h".into(),
        session_timeout_ms: 50_000,
        rebalance_timeout_ms: 50_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::new())],
        id_required: false,
        can_skip_assignment: false,
    };
    let groups = machine.groups.clone();
    let waiting = tokio::spawn(async move { groups.join(request).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    clock.0.store(true, Ordering::Relaxed);
    let reply = tokio::time::timeout(Duration::from_secs(40), waiting).await.expect("it is answered").unwrap();
    assert_eq!(reply.error, ErrorCode::NotCoordinator);
    assert_eq!(machine.groups.describe("g"), Err(ErrorCode::NotCoordinator));
    machine.tasks.ended().await;
}

fn join_request() -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), ..Default::default() }],
        ..Default::default()
    }
}

async fn find(client: &mut Client) {
    let find = FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
    assert_eq!(client.call(&find, 4).await.coordinators[0].error_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_group_is_told_when_the_offsets_topic_is_deleted() {
    // The member waited without end: nobody woke the instance of a topic that was gone.
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[("group.initial.rebalance.delay.ms", "50000")]).await;
    let (mut member, mut admin) = (Client::connect(&broker).await, Client::connect(&broker).await);
    find(&mut member).await;
    let waiting = tokio::spawn(async move {
        // Version 3 does not ask for an id first, so the request waits for the initial delay.
        let answer = loop {
            let answer = member.call(&join_request(), 3).await;
            if answer.error_code != ErrorCode::CoordinatorLoadInProgress.code() {
                break answer;
            }
        };
        (answer.error_code, member)
    });
    let joined = async {
        let request = DescribeGroupsRequest { groups: vec!["g".into()], ..Default::default() };
        while admin.call(&request, 5).await.groups[0].group_state != "PreparingRebalance" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, joined).await.expect("the member waits");
    let topics = vec![DeleteTopicState { name: Some(OFFSETS_TOPIC.into()), ..Default::default() }];
    let deleted = admin.call(&DeleteTopicsRequest { topics, timeout_ms: 1000, ..Default::default() }, 6).await;
    assert_eq!(deleted.responses[0].error_code, 0);
    let (code, mut member) = tokio::time::timeout(PATIENCE, waiting).await.expect("it is told").unwrap();
    assert_eq!(code, ErrorCode::NotCoordinator.code());
    // Created again by somebody else than the coordinator: who looks for the coordinator finds one that answers.
    admin.create_topic(OFFSETS_TOPIC, 50, &[("cleanup.policy", "compact")]).await;
    find(&mut member).await;
    assert_eq!(member.call(&join_request(), 4).await.error_code, ErrorCode::MemberIdRequired.code());
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_answer_as_kafka_does_in_edge_cases() {
    // Each answer is Apache Kafka 4.3.1's to the same request.
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[("group.initial.rebalance.delay.ms", "0")]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    find(&mut client).await;
    let commit = |group: &str, partitions: Vec<OffsetCommitRequestPartition>| OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() }],
        ..Default::default()
    };
    let one = || vec![OffsetCommitRequestPartition { committed_offset: 1, ..Default::default() }];
    let loaded = async {
        while client.call(&commit("g", one()), 8).await.topics[0].partitions[0].error_code != 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, loaded).await.expect("the groups are loaded");
    assert_eq!(client.call(&commit("g", vec![]), 8).await.topics, [], "a topic without partitions is not answered");
    // The empty group id can be committed to, described and deleted, but its offsets cannot be deleted.
    assert_eq!(client.call(&commit("", one()), 8).await.topics[0].partitions[0].error_code, 0);
    let describe = |group: &str| DescribeGroupsRequest { groups: vec![group.into()], ..Default::default() };
    let described = client.call(&describe(""), 5).await.groups.remove(0);
    assert_eq!((described.error_code, described.group_state.as_str()), (0, "Empty"));
    let delete_offsets = |group: &str| offset_delete::OffsetDeleteRequest {
        group_id: group.into(),
        topics: vec![offset_delete::OffsetDeleteRequestTopic {
            name: "t".into(),
            partitions: vec![offset_delete::OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    assert_eq!(client.call(&delete_offsets(""), 0).await.error_code, ErrorCode::InvalidGroupId.code());
    // A group stays when its last offset is deleted.
    for _ in 0..2 {
        let deleted = client.call(&delete_offsets("g"), 0).await;
        assert_eq!((deleted.error_code, deleted.topics[0].partitions[0].error_code), (0, 0));
    }
    assert_eq!(client.call(&describe("g"), 5).await.groups[0].group_state, "Empty");
    // A group that is named twice is deleted and answered once.
    let names = ["g", "", "nobody", "g"].map(String::from).to_vec();
    let deleted = client.call(&delete_groups::DeleteGroupsRequest { groups_names: names }, 2).await;
    let codes: BTreeMap<&str, i16> = deleted.results.iter().map(|result| (result.group_id.as_str(), result.error_code)).collect();
    assert_eq!(deleted.results.len(), 3);
    assert_eq!(codes, BTreeMap::from([("", 0), ("g", 0), ("nobody", ErrorCode::GroupIdNotFound.code())]));
    // From version 5 on a SyncGroup has to name type and protocol, before anything else is looked at.
    for (protocol_type, protocol_name, version, expected) in [
        (None, None, 3, ErrorCode::UnknownMemberId),
        (None, None, 5, ErrorCode::InconsistentGroupProtocol),
        (Some("consumer"), None, 5, ErrorCode::InconsistentGroupProtocol),
        (None, Some("range"), 5, ErrorCode::InconsistentGroupProtocol),
        (Some("consumer"), Some("range"), 5, ErrorCode::UnknownMemberId),
    ] {
        let request = sync_group::SyncGroupRequest {
            group_id: "missing".into(),
            generation_id: 1,
            member_id: "m".into(),
            protocol_type: protocol_type.map(String::from),
            protocol_name: protocol_name.map(String::from),
            ..Default::default()
        };
        let answered = client.call(&request, version).await.error_code;
        assert_eq!(answered, expected.code(), "version {version}: {protocol_type:?}, {protocol_name:?}");
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_answer_as_kafka_does_in_edge_cases() {
    // Each answer is Apache Kafka 4.3.1's to the same request, but for the code of a negative epoch, which is -1 there.
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    let find = FindCoordinatorRequest { key_type: 1, coordinator_keys: vec!["x".into()], ..Default::default() };
    client.call(&find, 4).await;
    // Only -1 stands for "no producer id" and "no epoch".
    let mut init = async |id: &str, producer_id: i64, producer_epoch: i16| loop {
        let request = init_producer_id::InitProducerIdRequest {
            transactional_id: Some(id.into()),
            transaction_timeout_ms: 60_000,
            producer_id,
            producer_epoch,
            ..Default::default()
        };
        let answer = client.call(&request, 5).await;
        if answer.error_code != ErrorCode::CoordinatorLoadInProgress.code() {
            return answer;
        }
    };
    for (producer_id, producer_epoch, expected) in [
        (5, -1, ErrorCode::InvalidRequest),
        (-1, 5, ErrorCode::InvalidRequest),
        (-5, 0, ErrorCode::None),
        (5, -5, ErrorCode::None),
        (-2, -2, ErrorCode::None),
    ] {
        let id = format!("{producer_id} {producer_epoch}");
        assert_eq!(init(&id, producer_id, producer_epoch).await.error_code, expected.code(), "{id}");
    }
    let me = init("id", -1, -1).await;
    // Internal topics are not for clients, and then nothing is added.
    let topic = |name: &str| add_partitions_to_txn::AddPartitionsToTxnTopic { name: name.into(), partitions: vec![0] };
    let request = add_partitions_to_txn::AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: "id".into(),
        v3_and_below_producer_id: me.producer_id,
        v3_and_below_producer_epoch: me.producer_epoch,
        v3_and_below_topics: vec![topic("t"), topic(TRANSACTIONS_TOPIC)],
        ..Default::default()
    };
    let added = client.call(&request, 3).await.results_by_topic_v3_and_below;
    let codes: Vec<i16> = added.iter().map(|topic| topic.results_by_partition[0].partition_error_code).collect();
    assert_eq!(codes, [ErrorCode::OperationNotAttempted.code(), ErrorCode::TopicAuthorizationFailed.code()]);
    // Markers: none for no topics, and none with a negative epoch.
    let marker =
        |topics, producer_epoch| write_txn_markers::WritableTxnMarker { producer_id: 77, producer_epoch, topics, ..Default::default() };
    let t0 = write_txn_markers::WritableTxnMarkerTopic { name: "t".into(), partition_indexes: vec![0] };
    let markers = vec![marker(vec![], 0), marker(vec![t0.clone()], -1), marker(vec![t0], 0)];
    let written = client.call(&write_txn_markers::WriteTxnMarkersRequest { markers }, 1).await.markers;
    let codes: Vec<i16> = written.iter().map(|marker| marker.topics[0].partitions[0].error_code).collect();
    assert_eq!(codes, [ErrorCode::InvalidProducerEpoch.code(), 0]);
    broker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_decision_that_is_never_committed() {
    // The coordinator waited for the commit of a decision, and the broker's stop waited for the coordinator.
    let machine = Machine::with(Arc::new(SystemClock), Durability::Fsync);
    let partitions = machine.partitions.clone();
    let committer = tokio::spawn(async move {
        loop {
            partitions.commit_due(0).await;
            partitions.commit(0).unwrap();
        }
    });
    let init = InitRequest { transactional_id: "id".into(), timeout_ms: 60_000, expected: None };
    let producer = machine.transactions.init(init).await.unwrap();
    machine.transactions.add("id", producer, &[TopicPartition::new(OFFSETS_TOPIC, 0)], EpochRule::Stays).await.unwrap();
    committer.abort();
    let transactions = machine.transactions.clone();
    tokio::spawn(async move { transactions.end("id", producer, TransactionResult::Commit, EpochRule::Stays).await });
    // The coordinator looks for decided transactions every second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(machine.transactions.describe("id").unwrap().unwrap().state, TransactionState::PrepareCommit);
    machine.stop.cancel();
    tokio::time::timeout(PATIENCE, machine.running).await.expect("it stops").unwrap();
}
