//! Transactions over the protocol, with producers of both kinds: what readers see, who is fenced, and what restarts leave.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::logs::log_directory;
use common::transactions::*;
use common::{Client, PATIENCE, start};
use dlog::broker::Broker;
use dlog::coordinator::Identity;
use dlog::env::{Env, MemoryDisk};
use dlog::model::{LeaderEpoch, ProducerEpoch, TopicPartition, Uuid};
use dlog::partition::{Keeping, NewReplica, Origin, Partitions, TopicSettings};
use dlog::protocol::ErrorCode;
use dlog::protocol::generated::*;
use dlog::records::TransactionResult::{Abort, Commit};
use dlog::records::{BatchBuilder, EpochRule, Marker, NewRecord, TransactionResult};

const NOW: i64 = 1_700_000_000_000;
const NOTHING: [u64; 0] = [];
const STYLES: [Style; 2] = [Style::Adding, Style::Bumping];

/// A transactional producer. Its verbs give the error of their request.
struct Producer {
    client: Client,
    id: String,
    style: Style,
    me: Identity,
    sequences: BTreeMap<(String, i32), i32>,
}

fn code(number: i16) -> ErrorCode {
    ErrorCode::from_code(number).expect("a known code")
}

impl Producer {
    async fn new(broker: &Broker, id: &str, style: Style) -> Producer {
        Producer::with_timeout(broker, id, style, 60_000).await
    }

    async fn with_timeout(broker: &Broker, id: &str, style: Style, timeout_ms: i32) -> Producer {
        let mut client = Client::connect(broker).await;
        let find = find_coordinator::FindCoordinatorRequest { key_type: 1, coordinator_keys: vec![id.into()], ..Default::default() };
        assert_eq!(client.call(&find, 4).await.coordinators[0].error_code, 0);
        let mut producer = Producer { client, id: id.into(), style, me: Identity::new(-1, -1), sequences: BTreeMap::new() };
        assert_eq!(producer.init(timeout_ms, None).await, ErrorCode::None);
        producer
    }

    async fn init(&mut self, timeout_ms: i32, expected: Option<Identity>) -> ErrorCode {
        let answer = self.client.call(&init_request(&self.id, timeout_ms, expected), 5).await;
        if answer.error_code == 0 {
            self.be(Identity::new(answer.producer_id, answer.producer_epoch));
        }
        code(answer.error_code)
    }

    fn be(&mut self, me: Identity) {
        if self.me != me {
            self.sequences.clear();
        }
        self.me = me;
    }

    async fn add(&mut self, topic: &str, partition: i32) -> ErrorCode {
        let request = add_partitions_request(&self.id, self.me, topic, &[partition]);
        let answer = self.client.call(&request, 3).await;
        code(answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code)
    }

    async fn send(&mut self, topic: &str, partition: i32, values: &[u64]) -> ErrorCode {
        if self.style == Style::Adding {
            let added = self.add(topic, partition).await;
            if added != ErrorCode::None {
                return added;
            }
        }
        self.send_unasked(topic, partition, values).await
    }

    /// Without adding the partition.
    async fn send_unasked(&mut self, topic: &str, partition: i32, values: &[u64]) -> ErrorCode {
        let sequence = self.sequences.entry((topic.into(), partition)).or_default();
        let batch = transactional_batch(self.me, *sequence, values, NOW);
        let (version, _, _) = self.style.versions();
        let answer = self.client.call(&transactional_produce(&self.id, topic, partition, &batch), version).await;
        let error = code(answer.responses[0].partition_responses[0].error_code);
        if error == ErrorCode::None {
            *sequence += values.len() as i32;
        }
        error
    }

    async fn commit_offsets(&mut self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> ErrorCode {
        if self.style == Style::Adding {
            let added = self.client.call(&add_offsets_request(&self.id, self.me, group), 3).await;
            assert_eq!(added.error_code, 0);
        }
        let (_, _, version) = self.style.versions();
        let answer = self.client.call(&offsets_request(&self.id, self.me, group, topic, offsets), version).await;
        code(answer.topics[0].partitions[0].error_code)
    }

    async fn end(&mut self, result: TransactionResult) -> ErrorCode {
        let (_, version, _) = self.style.versions();
        let answer = self.client.call(&end_request(&self.id, self.me, result), version).await;
        if answer.error_code == 0 && self.style == Style::Bumping {
            self.be(Identity::new(answer.producer_id, answer.producer_epoch));
        }
        code(answer.error_code)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    Committed,
    All,
}

/// Waits for what the broker does by itself, and says what did not come.
async fn soon(what: &str, waited: impl Future<Output = ()>) {
    tokio::time::timeout(PATIENCE, waited).await.expect(what);
}

/// All that a reader gets, with offsets.
async fn read_with_offsets(client: &mut Client, topic: &str, partition: i32, read: Read) -> Vec<(i64, u64)> {
    let (mut found, mut offset) = (Vec::new(), 0);
    loop {
        let mut request = committed_fetch(topic, partition, offset, 0);
        request.isolation_level = i8::from(read == Read::Committed);
        let answer = client.call(&request, 12).await;
        assert_eq!(answer.responses[0].partitions[0].error_code, 0);
        assert_eq!(answer.responses[0].partitions[0].aborted_transactions.is_some(), read == Read::Committed);
        let (some, next) = visible(&answer, offset);
        found.extend(some);
        if next == offset {
            return found;
        }
        offset = next;
    }
}

async fn read(client: &mut Client, topic: &str, partition: i32, how: Read) -> Vec<u64> {
    read_with_offsets(client, topic, partition, how).await.into_iter().map(|(_, value)| value).collect()
}

/// High watermark, last stable offset, and end as ListOffsets tells a reader of committed records.
async fn ends(client: &mut Client, topic: &str) -> (i64, i64, i64) {
    let answer = client.call(&committed_fetch(topic, 0, 0, 0), 12).await;
    let data = &answer.responses[0].partitions[0];
    let partition = list_offsets::ListOffsetsPartition { timestamp: -1, ..Default::default() };
    let topics = vec![list_offsets::ListOffsetsTopic { name: topic.into(), partitions: vec![partition] }];
    let request = list_offsets::ListOffsetsRequest { replica_id: -1, isolation_level: 1, topics, ..Default::default() };
    let listed = client.call(&request, 5).await.topics[0].partitions[0].offset;
    (data.high_watermark, data.last_stable_offset, listed)
}

/// A group's offset of partition 0, or the error with which it is held back, the group's or the partition's.
async fn offset(client: &mut Client, group: &str, topic: &str, require_stable: bool) -> Result<i64, ErrorCode> {
    let topic = offset_fetch::OffsetFetchRequestTopic { name: topic.into(), partition_indexes: vec![0] };
    let request =
        offset_fetch::OffsetFetchRequest { group_id: group.into(), topics: Some(vec![topic]), require_stable, ..Default::default() };
    let answer = client.call(&request, 7).await;
    if answer.error_code != 0 {
        return Err(code(answer.error_code));
    }
    let partition = &answer.topics[0].partitions[0];
    if partition.error_code == 0 { Ok(partition.committed_offset) } else { Err(code(partition.error_code)) }
}

async fn describe(client: &mut Client, id: &str) -> describe_transactions::TransactionState {
    let request = describe_transactions::DescribeTransactionsRequest { transactional_ids: vec![id.into()] };
    client.call(&request, 0).await.transaction_states.remove(0)
}

/// A broker that knows its groups and transactions; until then it answers COORDINATOR_LOAD_IN_PROGRESS.
async fn broker(data: &Path) -> (Broker, Client) {
    let broker = start(data, &[]).await;
    let mut client = Client::connect(&broker).await;
    let (groups, transactions) = (list_groups::ListGroupsRequest::default(), list_transactions::ListTransactionsRequest::default());
    let loading = ErrorCode::CoordinatorLoadInProgress.code();
    soon("groups are loaded", async { while client.call(&groups, 4).await.error_code == loading {} }).await;
    soon("transactions are loaded", async { while client.call(&transactions, 0).await.error_code == loading {} }).await;
    (broker, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_committed_records_see_whole_transactions_and_nothing_of_aborted_ones() {
    for style in STYLES {
        let folder = tempfile::tempdir().unwrap();
        let (broker, mut client) = broker(folder.path()).await;
        // Our records are old: without this the markers would begin new segments.
        client.create_topic("t", 2, &[("segment.ms", "9223372036854775807")]).await;
        let mut producer = Producer::new(&broker, "id", style).await;
        assert_eq!(producer.send("t", 0, &[1, 2]).await, ErrorCode::None);
        assert_eq!(producer.send("t", 1, &[3]).await, ErrorCode::None);
        assert_eq!(read(&mut client, "t", 0, Read::Committed).await, NOTHING);
        assert_eq!(read(&mut client, "t", 0, Read::All).await, [1, 2]);
        assert_eq!(ends(&mut client, "t").await, (2, 0, 0));
        assert_eq!(producer.end(Commit).await, ErrorCode::None);
        assert_eq!(ends(&mut client, "t").await, (3, 3, 3), "a marker takes one offset");
        assert_eq!(producer.send("t", 0, &[4, 5]).await, ErrorCode::None);
        assert_eq!(producer.end(Abort).await, ErrorCode::None);
        assert_eq!(producer.send("t", 0, &[6]).await, ErrorCode::None);
        assert_eq!(producer.end(Commit).await, ErrorCode::None);
        assert_eq!(read_with_offsets(&mut client, "t", 0, Read::Committed).await, [(0, 1), (1, 2), (6, 6)]);
        assert_eq!(read(&mut client, "t", 0, Read::All).await, [1, 2, 4, 5, 6]);
        assert_eq!(read(&mut client, "t", 1, Read::Committed).await, [3]);
        // The list is exact: behind the aborted transaction nothing is in it.
        let aborted = async |client: &mut Client, offset: i64| {
            let answer = client.call(&committed_fetch("t", 0, offset, 0), 12).await;
            answer.responses[0].partitions[0].aborted_transactions.clone().unwrap().len()
        };
        for (offset, expected) in [(0, 1), (3, 1), (5, 1), (6, 0)] {
            assert_eq!(aborted(&mut client, offset).await, expected, "from {offset}");
        }
        broker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_waits_is_woken_by_the_marker() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client) = broker(folder.path()).await;
    client.create_topic("t", 1, &[]).await;
    let mut producer = Producer::new(&broker, "id", Style::Bumping).await;
    producer.send("t", 0, &[1]).await;
    let sent = client.send(&committed_fetch("t", 0, 0, 15_000), 12).await;
    tokio::task::yield_now().await;
    assert_eq!(producer.end(Commit).await, ErrorCode::None);
    let (answered, answer) = client.receive::<fetch::FetchRequest>(12).await;
    assert_eq!((answered, visible(&answer, 0).0), (sent, vec![(0, 1)]));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_producer_of_an_id_fences_the_first_and_aborts_what_it_had_open() {
    for style in STYLES {
        let folder = tempfile::tempdir().unwrap();
        let (broker, mut client) = broker(folder.path()).await;
        client.create_topic("t", 1, &[]).await;
        let mut old = Producer::new(&broker, "id", style).await;
        assert_eq!(old.send("t", 0, &[1]).await, ErrorCode::None);
        let mut new = Producer::new(&broker, "id", style).await;
        assert_eq!(new.me.id, old.me.id);
        assert!(new.me.epoch > old.me.epoch);
        assert_eq!(ends(&mut client, "t").await, (2, 2, 2), "the old transaction is aborted");
        let fenced = match style {
            Style::Adding => ErrorCode::ProducerFenced,
            Style::Bumping => ErrorCode::InvalidProducerEpoch,
        };
        assert_eq!(old.send("t", 0, &[2]).await, fenced);
        assert_eq!(old.send_unasked("t", 0, &[2]).await, ErrorCode::InvalidProducerEpoch);
        assert_eq!(old.end(Commit).await, ErrorCode::ProducerFenced);
        // Who does not know of fenced producers is told of its epoch.
        let old_request = end_request("id", old.me, Commit);
        assert_eq!(code(old.client.call(&old_request, 1).await.error_code), ErrorCode::InvalidProducerEpoch);
        assert_eq!(new.send("t", 0, &[3]).await, ErrorCode::None);
        assert_eq!(new.end(Commit).await, ErrorCode::None);
        assert_eq!(read(&mut client, "t", 0, Read::Committed).await, [3]);
        broker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_is_aborted_also_where_it_holds_offsets_alone() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("transaction.abort.timed.out.transaction.cleanup.interval.ms", "20")];
    let broker = start(folder.path(), &settings).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    let mut producer = Producer::with_timeout(&broker, "records", Style::Adding, 2000).await;
    let mut offsets = Producer::with_timeout(&broker, "offsets", Style::Bumping, 2000).await;
    assert_eq!(producer.send("t", 0, &[1]).await, ErrorCode::None);
    assert_eq!(offsets.commit_offsets("g", "t", &[(0, 7)]).await, ErrorCode::None);
    let waited = async {
        while ends(&mut client, "t").await.1 < 2 || offset(&mut client, "g", "t", true).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("it is aborted", waited).await;
    assert_eq!(read(&mut client, "t", 0, Read::Committed).await, NOTHING);
    assert_eq!(offset(&mut client, "g", "t", true).await, Ok(-1));
    assert_eq!(producer.end(Commit).await, ErrorCode::ProducerFenced);
    // Its epoch is one lower, which looks like an answer that was lost; as in Kafka.
    assert_eq!(offsets.end(Commit).await, ErrorCode::InvalidTxnState);
    assert_eq!(offsets.end(Abort).await, ErrorCode::None);
    assert_eq!(describe(&mut client, "records").await.transaction_state, "CompleteAbort");
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_whose_transaction_took_too_long_goes_on_with_the_next_epoch() {
    // It was answered PRODUCER_FENCED, after which a client gives up for good; Kafka lets it go on.
    let folder = tempfile::tempdir().unwrap();
    let settings = [("transaction.abort.timed.out.transaction.cleanup.interval.ms", "20")];
    let broker = start(folder.path(), &settings).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    for style in STYLES {
        let id = format!("{style:?}");
        let mut producer = Producer::with_timeout(&broker, &id, style, 2000).await;
        let begun = producer.me;
        let end = ends(&mut client, "t").await.0;
        assert_eq!(producer.send("t", 0, &[1]).await, ErrorCode::None);
        let aborted = async {
            while describe(&mut client, &id).await.transaction_state != "CompleteAbort" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("it is aborted", aborted).await;
        let refused = if style == Style::Adding { ErrorCode::ProducerFenced } else { ErrorCode::InvalidProducerEpoch };
        assert_eq!(producer.send("t", 0, &[2]).await, refused, "{style:?}: not without a new epoch");
        // Twice: the first answer may be lost.
        for _ in 0..2 {
            assert_eq!(producer.init(60_000, Some(begun)).await, ErrorCode::None, "{style:?}");
            assert_eq!(producer.me, Identity { id: begun.id, epoch: ProducerEpoch(begun.epoch.0 + 1) });
        }
        assert_eq!(producer.send("t", 0, &[3]).await, ErrorCode::None);
        assert_eq!(producer.end(Commit).await, ErrorCode::None);
        let found = read_with_offsets(&mut client, "t", 0, Read::Committed).await;
        assert_eq!(found.into_iter().filter(|(at, _)| *at >= end).map(|(_, value)| value).collect::<Vec<_>>(), [3]);
        // Once another producer has the id, nobody goes on.
        let mut other = Producer::new(&broker, &id, style).await;
        assert_eq!(producer.init(60_000, Some(begun)).await, ErrorCode::ProducerFenced);
        assert_eq!(other.send("t", 0, &[4]).await, ErrorCode::None);
        assert_eq!(other.end(Abort).await, ErrorCode::None);
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_groups_offsets_count_with_their_transaction() {
    for style in STYLES {
        let folder = tempfile::tempdir().unwrap();
        let (mut broker, mut client) = broker(folder.path()).await;
        client.create_topic("t", 1, &[]).await;
        let mut producer = Producer::new(&broker, "id", style).await;
        assert_eq!(producer.commit_offsets("g", "t", &[(0, 5)]).await, ErrorCode::None);
        assert_eq!(offset(&mut client, "g", "t", false).await, Ok(-1));
        assert_eq!(offset(&mut client, "g", "t", true).await, Err(ErrorCode::UnstableOffsetCommit));
        assert_eq!(producer.end(Commit).await, ErrorCode::None);
        assert_eq!(offset(&mut client, "g", "t", true).await, Ok(5));
        assert_eq!(producer.commit_offsets("g", "t", &[(0, 9)]).await, ErrorCode::None);
        assert_eq!(producer.end(Abort).await, ErrorCode::None);
        assert_eq!(offset(&mut client, "g", "t", true).await, Ok(5));
        // A plain commit after one that is part of a transaction wins, and so it does after a restart.
        assert_eq!(producer.commit_offsets("g", "t", &[(0, 20)]).await, ErrorCode::None);
        let plain = offset_commit::OffsetCommitRequestPartition { committed_offset: 30, ..Default::default() };
        let topics = vec![offset_commit::OffsetCommitRequestTopic { name: "t".into(), partitions: vec![plain], ..Default::default() }];
        let request =
            offset_commit::OffsetCommitRequest { group_id: "g".into(), generation_id_or_member_epoch: -1, topics, ..Default::default() };
        assert_eq!(client.call(&request, 7).await.topics[0].partitions[0].error_code, 0);
        assert_eq!(producer.end(Commit).await, ErrorCode::None);
        assert_eq!(offset(&mut client, "g", "t", true).await, Ok(30));
        // What is open when the broker stops goes on afterwards.
        assert_eq!(producer.commit_offsets("g", "t", &[(0, 40)]).await, ErrorCode::None);
        broker.stop().await.unwrap();
        (broker, client) = self::broker(folder.path()).await;
        producer.client = Client::connect(&broker).await;
        assert_eq!(offset(&mut client, "g", "t", false).await, Ok(30));
        assert_eq!(offset(&mut client, "g", "t", true).await, Err(ErrorCode::UnstableOffsetCommit));
        assert_eq!(producer.end(Commit).await, ErrorCode::None);
        assert_eq!(offset(&mut client, "g", "t", true).await, Ok(40));
        broker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_do_not_fit_to_a_transaction_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client) = broker(folder.path()).await;
    client.create_topic("t", 2, &[]).await;
    let mut producer = Producer::new(&broker, "id", Style::Adding).await;
    // It was never added.
    assert_eq!(producer.send_unasked("t", 0, &[1]).await, ErrorCode::TransactionAbortable);
    let batch = transactional_batch(producer.me, 0, &[1], NOW);
    let old = client.call(&transactional_produce("id", "t", 0, &batch), 9).await;
    assert_eq!(code(old.responses[0].partition_responses[0].error_code), ErrorCode::InvalidTxnState, "older clients know no other");
    // Without the id nobody could ask.
    let nameless = client.call(&common::produce_request("t", 0, &batch, -1), 9).await;
    assert_eq!(code(nameless.responses[0].partition_responses[0].error_code), ErrorCode::TransactionalIdAuthorizationFailed);
    assert_eq!(producer.send("t", 0, &[1]).await, ErrorCode::None);
    // Its own, but not part of the transaction.
    let plain = BatchBuilder::new().record(NewRecord::value(b"x")).producer(producer.me.id.0, producer.me.epoch.0, 1).build(NOW);
    assert_eq!(code(client.produce("t", 0, &plain).await.error_code), ErrorCode::InvalidTxnState);
    assert_eq!(producer.end(Commit).await, ErrorCode::None);
    assert_eq!(producer.end(Commit).await, ErrorCode::None, "it is so already");
    assert_eq!(producer.end(Abort).await, ErrorCode::InvalidTxnState);
    assert_eq!(producer.send_unasked("t", 0, &[2]).await, ErrorCode::TransactionAbortable, "after the end it must be added again");
    let mut stranger = Producer::new(&broker, "other", Style::Bumping).await;
    stranger.me = Identity::new(producer.me.id.0, producer.me.epoch.0);
    assert_eq!(stranger.send("t", 1, &[9]).await, ErrorCode::InvalidProducerIdMapping);
    assert_eq!(stranger.end(Commit).await, ErrorCode::InvalidProducerIdMapping);
    // Where nothing is known of a producer that bumps, it begins with 0.
    let mut bumping = Producer::new(&broker, "bumping", Style::Bumping).await;
    bumping.sequences.insert(("t".into(), 1), 5);
    assert_eq!(bumping.send("t", 1, &[9]).await, ErrorCode::OutOfOrderSequenceNumber);
    let unknown = add_partitions_request("id", producer.me, "t", &[0, 7]);
    let answer = client.call(&unknown, 3).await;
    let codes: Vec<_> = answer.results_by_topic_v3_and_below[0].results_by_partition.iter().map(|p| code(p.partition_error_code)).collect();
    assert_eq!(codes, [ErrorCode::OperationNotAttempted, ErrorCode::UnknownTopicOrPartition]);
    broker.stop().await.unwrap();
}

/// The coordinator said yes, and its transaction ended before the batch was appended.
#[test]
fn a_late_batch_begins_nothing_behind_the_marker() {
    let real = Env::real();
    let env = Env { disk: Arc::new(MemoryDisk::new(real.clock.clone())), ..real };
    let directory = log_directory(&env, Path::new("/data")).unwrap();
    let partitions = Partitions::new(env, vec![directory], Vec::new(), Keeping::default());
    let (id, topic_id) = (TopicPartition::new("t", 0), Uuid::from_random([1; 16]));
    let settings = TopicSettings::of(&BTreeMap::new(), &BTreeMap::new());
    partitions.lead(vec![NewReplica { id, topic_id, leader_epoch: LeaderEpoch(0), settings, is_known: false }]);
    let replica = partitions.get("t", 0).unwrap();
    let me = Identity::new(7, 0);
    let send = |sequence: i32, verification: Option<&_>| {
        replica
            .produce(&transactional_batch(me, sequence, &[1], NOW), Origin::Client, verification, NOW)
            .map(|appended| appended.base_offset.0)
    };
    send(0, None).expect_err("nobody was asked");
    let (early, late) = (replica.begin_verification(me.id).unwrap(), replica.begin_verification(me.id).unwrap());
    assert_eq!(send(0, Some(&early)).unwrap(), 0);
    assert!(replica.begin_verification(me.id).is_none(), "it is open here");
    assert_eq!(send(1, None).unwrap(), 1, "it goes on");
    let marker = Marker { producer_id: me.id, producer_epoch: me.epoch, result: Commit, coordinator_epoch: 0 };
    assert!(replica.end_transaction(&marker, EpochRule::Stays, NOW).unwrap().offset.is_some());
    send(2, Some(&late)).expect_err("a marker came since it was asked");
    assert_eq!(replica.view().log_end.0, 3);
    let again = replica.begin_verification(me.id).unwrap();
    assert_eq!(send(2, Some(&again)).unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_grows_with_each_transaction_until_there_is_a_new_producer_id() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client) = broker(folder.path()).await;
    client.create_topic("t", 1, &[]).await;
    let mut producer = Producer::new(&broker, "id", Style::Bumping).await;
    let first = producer.me;
    let mut number = 0;
    while producer.me.id == first.id {
        number += 1;
        let before = producer.me;
        assert_eq!(producer.end(Abort).await, ErrorCode::None, "nothing was sent: it is legal, and bumps the epoch");
        if producer.me.id != first.id {
            assert_eq!((before.epoch.0, producer.me.epoch.0), (i16::MAX - 1, 0));
            // The answer was lost.
            let again = client.call(&end_request("id", before, Abort), 5).await;
            assert_eq!((code(again.error_code), again.producer_id, again.producer_epoch), (ErrorCode::None, producer.me.id.0, 0));
        } else {
            assert_eq!(producer.me.epoch.0, before.epoch.0 + 1);
        }
    }
    assert_eq!(number, i32::from(i16::MAX - 1 - first.epoch.0) + 1);
    assert_eq!(producer.send("t", 0, &[1]).await, ErrorCode::None);
    let before = producer.me;
    assert_eq!(producer.end(Commit).await, ErrorCode::None);
    let again = client.call(&end_request("id", before, Commit), 5).await;
    assert_eq!((code(again.error_code), again.producer_epoch), (ErrorCode::None, producer.me.epoch.0));
    assert_eq!(code(client.call(&end_request("id", before, Abort), 5).await.error_code), ErrorCode::InvalidTxnState);
    assert_eq!(producer.end(Commit).await, ErrorCode::InvalidTxnState, "there is nothing to commit");
    assert_eq!(read(&mut client, "t", 0, Read::Committed).await, [1]);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_goes_on_after_an_error_gets_a_new_epoch_once() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client) = broker(folder.path()).await;
    client.create_topic("t", 1, &[]).await;
    let mut producer = Producer::new(&broker, "id", Style::Adding).await;
    let before = producer.me;
    assert_eq!(producer.init(60_000, Some(before)).await, ErrorCode::None);
    assert_eq!(producer.me.epoch.0, before.epoch.0 + 1);
    let after = producer.me;
    assert_eq!(producer.init(60_000, Some(before)).await, ErrorCode::None, "the answer was lost");
    assert_eq!(producer.me, after);
    assert_eq!(producer.init(60_000, Some(after)).await, ErrorCode::None);
    assert_eq!(producer.init(60_000, Some(before)).await, ErrorCode::ProducerFenced);
    assert_eq!(producer.init(60_000, Some(Identity::new(before.id.0 + 1000, 0))).await, ErrorCode::ProducerFenced);
    for (timeout_ms, expected) in [(0, ErrorCode::InvalidTransactionTimeout), (900_001, ErrorCode::InvalidTransactionTimeout)] {
        assert_eq!(producer.init(timeout_ms, None).await, expected);
    }
    // With a transaction open the old epoch is not of use any more either.
    assert_eq!(producer.send("t", 0, &[1]).await, ErrorCode::None);
    let open = producer.me;
    assert_eq!(producer.init(60_000, Some(open)).await, ErrorCode::None);
    assert!(producer.me.epoch > open.epoch);
    assert_eq!(ends(&mut client, "t").await, (2, 2, 2));
    assert_eq!(producer.send("t", 0, &[2]).await, ErrorCode::None);
    assert_eq!(producer.end(Commit).await, ErrorCode::None);
    assert_eq!(read(&mut client, "t", 0, Read::Committed).await, [2]);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_open_decided_and_aborted_transactions() {
    for style in STYLES {
        for clean in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let (mut broker, mut client) = broker(folder.path()).await;
            client.create_topic("t", 1, &[("segment.bytes", "1048576")]).await;
            let mut done = Producer::new(&broker, "done", style).await;
            let mut open = Producer::new(&broker, "open", style).await;
            assert_eq!(done.send("t", 0, &[1]).await, ErrorCode::None);
            assert_eq!(open.send("t", 0, &[2]).await, ErrorCode::None);
            assert_eq!(done.end(Abort).await, ErrorCode::None);
            assert_eq!(done.send("t", 0, &[3]).await, ErrorCode::None);
            assert_eq!(done.end(Commit).await, ErrorCode::None);
            broker.stop().await.unwrap();
            if !clean {
                std::fs::remove_file(folder.path().join(".kafka_cleanshutdown")).unwrap();
            }
            (broker, client) = self::broker(folder.path()).await;
            (done.client, open.client) = (Client::connect(&broker).await, Client::connect(&broker).await);
            assert_eq!(ends(&mut client, "t").await, (5, 1, 1), "the open transaction is still open");
            let state = describe(&mut client, "open").await;
            assert_eq!((state.transaction_state.as_str(), state.topics[0].partitions.as_slice()), ("Ongoing", &[0][..]));
            assert_eq!(open.send("t", 0, &[4]).await, ErrorCode::None);
            assert_eq!(open.end(Commit).await, ErrorCode::None);
            assert_eq!(done.send("t", 0, &[5]).await, ErrorCode::None);
            assert_eq!(done.end(Abort).await, ErrorCode::None);
            assert_eq!(read(&mut client, "t", 0, Read::Committed).await, [2, 3, 4]);
            assert_eq!(read(&mut client, "t", 0, Read::All).await, [1, 2, 3, 4, 5]);
            broker.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_are_left_out_across_segments() {
    let folder = tempfile::tempdir().unwrap();
    let (mut broker, mut client) = broker(folder.path()).await;
    // A segment holds a few batches, so transactions begin in one and end in others.
    client.create_topic("t", 1, &[("segment.bytes", "1048576"), ("segment.ms", "1")]).await;
    let (mut one, mut two) = (Producer::new(&broker, "one", Style::Bumping).await, Producer::new(&broker, "two", Style::Adding).await);
    let mut expected = Vec::new();
    for round in 0..40 {
        assert_eq!(one.send("t", 0, &[round]).await, ErrorCode::None);
        assert_eq!(two.send("t", 0, &[1000 + round]).await, ErrorCode::None);
        if round % 3 == 2 {
            let result = if round % 2 == 0 { Commit } else { Abort };
            if result == Commit {
                expected.extend([round - 2, round - 1, round]);
            }
            assert_eq!(one.end(result).await, ErrorCode::None);
        }
        if round % 7 == 6 {
            assert_eq!(two.end(Abort).await, ErrorCode::None);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(one.end(Abort).await, ErrorCode::None);
    assert_eq!(two.end(Abort).await, ErrorCode::None);
    let indexes = || {
        std::fs::read_dir(folder.path().join("t-0"))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".txnindex"))
    };
    for _ in 0..2 {
        assert_eq!(read(&mut client, "t", 0, Read::Committed).await, expected);
        broker.stop().await.unwrap();
        assert!(indexes().count() > 5, "markers lie in many segments");
        (broker, client) = self::broker(folder.path()).await;
    }
    // Without them they are made anew.
    broker.stop().await.unwrap();
    indexes().for_each(|e| std::fs::remove_file(e.unwrap().path()).unwrap());
    std::fs::remove_file(folder.path().join(".kafka_cleanshutdown")).unwrap();
    std::fs::remove_file(folder.path().join("recovery-point-offset-checkpoint")).unwrap();
    (broker, client) = self::broker(folder.path()).await;
    assert_eq!(read(&mut client, "t", 0, Read::Committed).await, expected);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_coordinator_knows_is_aborted_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (mut broker, mut client) = broker(folder.path()).await;
    client.create_topic("t", 1, &[]).await;
    let mut producer = Producer::new(&broker, "id", Style::Bumping).await;
    assert_eq!(producer.send("t", 0, &[1]).await, ErrorCode::None);
    broker.stop().await.unwrap();
    // As a power cut may leave it: the partition's record is there, the coordinator's is not.
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("__transaction_state") {
            for file in std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|x| x == "log")) {
                std::fs::write(file, b"").unwrap();
            }
        }
    }
    std::fs::remove_file(folder.path().join(".kafka_cleanshutdown")).unwrap();
    (broker, client) = self::broker(folder.path()).await;
    soon("it is aborted", async { while ends(&mut client, "t").await.1 != 2 {} }).await;
    assert_eq!(read(&mut client, "t", 0, Read::Committed).await, NOTHING);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_is_found_and_ended_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client) = broker(folder.path()).await;
    client.create_topic("t", 1, &[]).await;
    let mut producer = Producer::new(&broker, "id-1", Style::Adding).await;
    let _idle = Producer::new(&broker, "other", Style::Adding).await;
    assert_eq!(producer.send("t", 0, &[1]).await, ErrorCode::None);
    let producers = describe_producers::TopicRequest { name: "t".into(), partition_indexes: vec![0] };
    let described = client.call(&describe_producers::DescribeProducersRequest { topics: vec![producers] }, 0).await;
    let active = &described.topics[0].partitions[0].active_producers[0];
    assert_eq!((active.producer_id, active.current_txn_start_offset, active.coordinator_epoch), (producer.me.id.0, 0, -1));
    let list = async |client: &mut Client, request: list_transactions::ListTransactionsRequest| {
        let answer = client.call(&request, 2).await;
        let ids: Vec<String> = answer.transaction_states.into_iter().map(|t| t.transactional_id).collect();
        (code(answer.error_code), ids, answer.unknown_state_filters)
    };
    let all = list_transactions::ListTransactionsRequest { duration_filter: -1, ..Default::default() };
    let by = |states: &[&str], pattern: Option<&str>| list_transactions::ListTransactionsRequest {
        state_filters: states.iter().map(ToString::to_string).collect(),
        transactional_id_pattern: pattern.map(str::to_string),
        ..all.clone()
    };
    let both = || vec!["id-1".to_string(), "other".to_string()];
    let one = || vec!["id-1".to_string()];
    assert_eq!(list(&mut client, all.clone()).await.1.len(), both().len());
    assert_eq!(list(&mut client, by(&["Ongoing", "Nonsense"], None)).await, (ErrorCode::None, one(), vec!["Nonsense".to_string()]));
    assert_eq!(list(&mut client, by(&[], Some("id-."))).await.1, one());
    assert_eq!(list(&mut client, by(&[], Some("d-1"))).await.1, Vec::<String>::new(), "a pattern is of the whole id");
    assert_eq!(list(&mut client, by(&[], Some("("))).await.0, ErrorCode::InvalidRegularExpression);
    let old = list_transactions::ListTransactionsRequest { duration_filter: 3_600_000, ..all.clone() };
    assert_eq!(list(&mut client, old).await.1, Vec::<String>::new());
    let of = list_transactions::ListTransactionsRequest { producer_id_filters: vec![producer.me.id.0], ..all.clone() };
    assert_eq!(list(&mut client, of).await.1, one());
    assert_eq!(code(describe(&mut client, "missing").await.error_code), ErrorCode::TransactionalIdNotFound);
    let topic = |name: &str| write_txn_markers::WritableTxnMarkerTopic { name: name.into(), partition_indexes: vec![0] };
    let marker = |epoch: i16, coordinator_epoch| write_txn_markers::WritableTxnMarker {
        producer_id: producer.me.id.0,
        producer_epoch: epoch,
        transaction_result: false,
        topics: vec![topic("t"), topic("missing")],
        coordinator_epoch,
        ..Default::default()
    };
    let write = async |client: &mut Client, marker| {
        let request = write_txn_markers::WriteTxnMarkersRequest { markers: vec![marker] };
        let topics = client.call(&request, 1).await.markers.remove(0).topics;
        topics.iter().map(|t| code(t.partitions[0].error_code)).collect::<Vec<_>>()
    };
    assert_eq!(write(&mut client, marker(-1, 5)).await, [ErrorCode::InvalidProducerEpoch; 2]);
    assert_eq!(write(&mut client, marker(producer.me.epoch.0, 5)).await, [ErrorCode::None, ErrorCode::UnknownTopicOrPartition]);
    assert_eq!(ends(&mut client, "t").await, (2, 2, 2));
    assert_eq!(write(&mut client, marker(producer.me.epoch.0, 4)).await[0], ErrorCode::TransactionCoordinatorFenced);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_levels_of_features_are_told_and_can_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut broker, mut client) = broker(folder.path()).await;
    let ask =
        api_versions::ApiVersionsRequest { client_software_name: "test".into(), client_software_version: "1".into(), ..Default::default() };
    let level = async |client: &mut Client, version: i16| {
        let answer = client.call(&ask, version).await;
        let level = answer.finalized_features.iter().find(|f| f.name == "transaction.version").map(|f| f.max_version_level);
        let is_supported = answer.supported_features.iter().any(|f| f.name == "transaction.version");
        (level, is_supported, answer.finalized_features_epoch)
    };
    let (first, _, epoch) = level(&mut client, 4).await;
    assert_eq!(first, Some(2));
    assert!(level(&mut client, 4).await.1);
    assert!(!level(&mut client, 3).await.1, "older clients reject a lowest level of 0");
    let update = |level: i16, upgrade_type: i8| update_features::UpdateFeaturesRequest {
        feature_updates: vec![update_features::FeatureUpdateKey {
            feature: "transaction.version".into(),
            max_version_level: level,
            upgrade_type,
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(code(client.call(&update(1, 1), 1).await.error_code), ErrorCode::InvalidUpdateVersion);
    assert_eq!(code(client.call(&update(3, 1), 1).await.error_code), ErrorCode::InvalidUpdateVersion);
    assert_eq!(code(client.call(&update(0, 2), 1).await.error_code), ErrorCode::None);
    let (now, _, later) = level(&mut client, 4).await;
    assert!(now.is_none() && later > epoch);
    broker.stop().await.unwrap();
    (broker, client) = self::broker(folder.path()).await;
    assert_eq!(level(&mut client, 4).await.0, None, "it stays so");
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_takes_aborted_records_and_leaves_what_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("log.cleaner.backoff.ms", "20")];
    let broker = start(folder.path(), &settings).await;
    let mut client = Client::connect(&broker).await;
    let configs = [("cleanup.policy", "compact"), ("segment.ms", "1"), ("min.cleanable.dirty.ratio", "0.01"), ("delete.retention.ms", "0")];
    client.create_topic("t", 1, &configs).await;
    let mut producer = Producer::new(&broker, "id", Style::Bumping).await;
    for result in [Commit, Abort, Commit, Abort] {
        // The same keys again and again: the aborted values must not take the place of committed ones.
        assert_eq!(producer.send("t", 0, &[1, 2, 3]).await, ErrorCode::None);
        assert_eq!(producer.end(result).await, ErrorCode::None);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let mut open = Producer::new(&broker, "open", Style::Bumping).await;
    assert_eq!(producer.send("t", 0, &[4]).await, ErrorCode::None);
    assert_eq!(producer.end(Commit).await, ErrorCode::None);
    let waited = async {
        while read_with_offsets(&mut client, "t", 0, Read::All).await.len() > 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert_eq!(read(&mut client, "t", 0, Read::Committed).await.last(), Some(&4));
            // Something new, so that older segments are sealed and due.
            let filler = BatchBuilder::new().record(NewRecord::keyed(b"filler", Some(b"x"))).build(NOW);
            client.produce("t", 0, &filler).await;
        }
    };
    soon("it is compacted", waited).await;
    let committed = read_with_offsets(&mut client, "t", 0, Read::Committed).await;
    assert_eq!(committed.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [1, 2, 3, 4], "the last committed ones");
    assert_eq!(committed[0].0, 8, "of the third transaction");
    assert_eq!(open.send("t", 0, &[5]).await, ErrorCode::None);
    assert_eq!(open.end(Commit).await, ErrorCode::None);
    broker.stop().await.unwrap();
}
