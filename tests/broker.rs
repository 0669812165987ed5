//! A whole broker in this process, seen by a client that speaks the protocol.

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Client, fetch_request, fetched, produce_request, start, values};
use dlog::protocol::ErrorCode;
use dlog::protocol::generated::create_topics::{CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest};
use dlog::protocol::generated::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use dlog::protocol::generated::fetch::FetchRequest;
use dlog::protocol::generated::init_producer_id::InitProducerIdRequest;
use dlog::protocol::generated::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use dlog::protocol::generated::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use dlog::records::{BatchBuilder, Codec, NewRecord, batches};

const NOW: i64 = 1_700_000_000_000;

fn batch(values: &[&[u8]]) -> Bytes {
    values.iter().fold(BatchBuilder::new(), |builder, value| builder.record(NewRecord::value(value))).build(NOW)
}

fn code(error: ErrorCode) -> i16 {
    error.code()
}

async fn metadata(client: &mut Client, name: &str, create: bool) -> MetadataResponse {
    let topic = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    client.call(&MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: create, ..Default::default() }, 12).await
}

async fn list_offset(client: &mut Client, topic: &str, timestamp: i64, version: i16) -> (i16, i64, i64) {
    let partition = ListOffsetsPartition { timestamp, ..Default::default() };
    let topics = vec![ListOffsetsTopic { name: topic.into(), partitions: vec![partition] }];
    let response = client.call(&ListOffsetsRequest { replica_id: -1, topics, ..Default::default() }, version).await;
    let p = &response.topics[0].partitions[0];
    (p.error_code, p.offset, p.timestamp)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_topics_and_configs_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 3, &[("retention.ms", "-1")]).await;
    assert_eq!(client.produce("t", 2, &batch(&[b"a", b"b"])).await.base_offset, 0);
    assert_eq!(client.produce("t", 2, &batch(&[b"c"])).await.base_offset, 2);
    let before = metadata(&mut client, "t", false).await;
    broker.stop().await.unwrap();

    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    let after = metadata(&mut client, "t", false).await;
    assert_eq!(after.topics[0].topic_id, before.topics[0].topic_id);
    assert_eq!(after.cluster_id, before.cluster_id);
    assert_eq!(after.topics[0].partitions.len(), 3);
    let epoch = |m: &MetadataResponse| m.topics[0].partitions[0].leader_epoch;
    assert_eq!(epoch(&after), epoch(&before) + 1, "the leader epoch grows at every start");
    let read = values(&fetched(&client.fetch("t", 2, 0).await));
    assert_eq!(read, [(0, b"a".to_vec()), (1, b"b".to_vec()), (2, b"c".to_vec())]);
    assert_eq!(client.produce("t", 2, &batch(&[b"d"])).await.base_offset, 3);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_creates_what_is_missing_and_answers_when_it_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[("num.partitions", "2")]).await;
    let mut client = Client::connect(&broker).await;
    assert_eq!(metadata(&mut client, "new", false).await.topics[0].error_code, code(ErrorCode::UnknownTopicOrPartition));
    let created = metadata(&mut client, "new", true).await;
    assert_eq!((created.topics[0].error_code, created.topics[0].partitions.len()), (0, 2));
    assert_eq!(client.produce("new", 1, &batch(&[b"x"])).await.error_code, 0, "served at once");
    assert_eq!(metadata(&mut client, "bad name", true).await.topics[0].error_code, code(ErrorCode::InvalidTopicException));
    let all = client.call(&MetadataRequest { topics: None, ..Default::default() }, 12).await;
    assert_eq!(all.topics.len(), 1);
    let by_id = MetadataRequestTopic { topic_id: dlog::model::Uuid([9; 16]), name: None };
    let unknown = client.call(&MetadataRequest { topics: Some(vec![by_id]), ..Default::default() }, 12).await;
    assert_eq!(unknown.topics[0].error_code, code(ErrorCode::UnknownTopicId));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_is_gone_when_the_answer_leaves_and_its_name_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[("auto.create.topics.enable", "false")]).await;
    let mut client = Client::connect(&broker).await;
    let mut ids = Vec::new();
    for round in 0..5 {
        client.create_topic("t", 1, &[]).await;
        assert_eq!(client.produce("t", 0, &batch(&[b"x"])).await.base_offset, 0, "round {round}");
        ids.push(metadata(&mut client, "t", false).await.topics[0].topic_id);
        let state = DeleteTopicState { name: Some("t".into()), ..Default::default() };
        let deleted = client.call(&DeleteTopicsRequest { topics: vec![state], ..Default::default() }, 6).await;
        assert_eq!(deleted.responses[0].error_code, 0);
        assert_eq!(metadata(&mut client, "t", true).await.topics[0].error_code, code(ErrorCode::UnknownTopicOrPartition));
        assert_eq!(client.produce("t", 0, &batch(&[b"x"])).await.error_code, code(ErrorCode::UnknownTopicOrPartition));
        assert_eq!(client.fetch("t", 0, 0).await.responses[0].partitions[0].error_code, code(ErrorCode::UnknownTopicOrPartition));
    }
    ids.dedup();
    assert_eq!(ids.len(), 5, "each topic has an id of its own");
    broker.stop().await.unwrap();
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("t-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_wakes_when_enough_has_come_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let (mut reader, mut writer) = (Client::connect(&broker).await, Client::connect(&broker).await);
    writer.create_topic("t", 2, &[]).await;
    let one = batch(&[&[1; 100]]);
    let begin = Instant::now();
    reader.send(&fetch_request("t", &[(0, 0), (1, 0)], one.len() as i32 + 1, 15_000), 12).await;
    writer.produce("t", 1, &one).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    writer.produce("t", 0, &one).await;
    let (_, response) = reader.receive::<FetchRequest>(12).await;
    let bytes: usize = response.responses[0].partitions.iter().map(|p| p.records.as_ref().map_or(0, |r| r.len())).sum();
    assert_eq!(bytes, 2 * one.len());
    assert!(begin.elapsed() < Duration::from_secs(10), "woken by the append");
    let begin = Instant::now();
    let empty = reader.call(&fetch_request("t", &[(0, 1)], 1, 300), 12).await;
    assert!(fetched(&empty).is_empty());
    assert!(begin.elapsed() >= Duration::from_millis(290), "an empty answer waits");
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_run_in_order_and_are_answered_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    // A fetch that waits, and behind it what it waits for, on the same connection.
    client.send(&fetch_request("t", &[(0, 0)], 1, 10_000), 12).await;
    for at in 0..50_u8 {
        client.send(&produce_request("t", 0, &batch(&[&[at]]), -1), 9).await;
    }
    let (first, response) = client.receive::<FetchRequest>(12).await;
    assert!(!fetched(&response).is_empty());
    for at in 0..50 {
        let (id, response) = client.receive::<dlog::protocol::generated::produce::ProduceRequest>(9).await;
        assert_eq!((id, response.responses[0].partition_responses[0].base_offset), (first + 1 + at, i64::from(at)));
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_acknowledgement_there_is_no_answer_and_a_failure_closes() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    client.send(&produce_request("t", 0, &batch(&[b"quiet"]), 0), 9).await;
    assert_eq!(values(&fetched(&client.fetch("t", 0, 0).await)), [(0, b"quiet".to_vec())], "the next answer is the fetch's");
    let bad = client.call(&produce_request("t", 0, &batch(&[b"x"]), 2), 9).await;
    assert_eq!(bad.responses[0].partition_responses[0].error_code, code(ErrorCode::InvalidRequiredAcks));
    client.send(&produce_request("t", 7, &batch(&[b"x"]), 0), 9).await;
    assert_eq!(client.frame().await, None);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_batches_get_kafkas_codes_and_harm_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[("max.message.bytes", "500")]).await;
    client.create_topic("compacted", 1, &[("cleanup.policy", "compact")]).await;
    let good = batch(&[b"x"]);
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        Bytes::from(bytes)
    };
    let cases: Vec<(&str, &str, Bytes, ErrorCode)> = vec![
        ("broken checksum", "t", changed(good.len() - 1, 9), ErrorCode::CorruptMessage),
        ("magic 0", "t", changed(16, 0), ErrorCode::InvalidRecord),
        ("magic 1", "t", changed(16, 1), ErrorCode::InvalidRecord),
        ("negative length", "t", changed(8, 0xff), ErrorCode::CorruptMessage),
        ("half a batch", "t", good.slice(..40), ErrorCode::InvalidRecord),
        ("nothing", "t", Bytes::new(), ErrorCode::InvalidRecord),
        ("two batches", "t", [&good[..], &good[..]].concat().into(), ErrorCode::InvalidRecord),
        ("too large", "t", batch(&[&[0; 600]]), ErrorCode::MessageTooLarge),
        ("no key", "compacted", good.clone(), ErrorCode::InvalidRecord),
        ("far future", "t", BatchBuilder::new().record(NewRecord::value(b"x")).build(NOW * 2), ErrorCode::InvalidTimestamp),
        (
            "a transaction",
            "t",
            BatchBuilder::new().attributes(16).producer(1, 0, 0).record(NewRecord::value(b"x")).build(NOW),
            ErrorCode::TransactionalIdAuthorizationFailed,
        ),
        ("unknown partition", "nowhere", good.clone(), ErrorCode::UnknownTopicOrPartition),
        ("internal topic", "__consumer_offsets", good.clone(), ErrorCode::InvalidTopicException),
    ];
    for (what, topic, bytes, expected) in cases {
        let answer = client.produce(topic, 0, &bytes).await;
        assert_eq!((ErrorCode::from_code(answer.error_code), answer.base_offset), (Some(expected), -1), "{what}");
    }
    assert_eq!(client.produce("t", 0, &good).await.base_offset, 0, "nothing was stored");
    let zstd = BatchBuilder::new().codec(Codec::Zstd).record(NewRecord::value(b"x")).build(NOW);
    let old = client.call(&produce_request("t", 0, &zstd, -1), 6).await;
    assert_eq!(old.responses[0].partition_responses[0].error_code, code(ErrorCode::UnsupportedCompressionType));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_producer_is_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    let request = InitProducerIdRequest { transactional_id: None, producer_id: -1, producer_epoch: -1, ..Default::default() };
    let id = client.call(&request, 4).await.producer_id;
    let other = client.call(&request, 4).await.producer_id;
    assert!(id >= 0 && other > id);
    let sequence = |first: i32| BatchBuilder::new().producer(id, 0, first).record(NewRecord::value(b"x")).build(NOW);
    for at in 0..10 {
        for _ in 0..2 {
            let answer = client.produce("t", 0, &sequence(at)).await;
            assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(at)), "a duplicate is answered with its offset");
        }
    }
    assert_eq!(client.produce("t", 0, &sequence(12)).await.error_code, code(ErrorCode::OutOfOrderSequenceNumber));
    broker.stop().await.unwrap();

    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    assert_eq!(client.produce("t", 0, &sequence(9)).await.base_offset, 9, "known after a restart");
    assert_eq!(client.produce("t", 0, &sequence(10)).await.base_offset, 10);
    assert!(client.call(&request, 4).await.producer_id > other, "ids are never given twice");
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_by_time_and_special_place() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    assert_eq!(list_offset(&mut client, "t", -3, 7).await, (0, -1, -1), "an empty log has no largest timestamp");
    let record = |ms| NewRecord { timestamp_ms: Some(ms), ..NewRecord::value(b"x") };
    for base in [NOW, NOW + 100, NOW + 50] {
        let batch = BatchBuilder::new().codec(Codec::Gzip).record(record(base)).record(record(base + 10)).build(NOW);
        client.produce("t", 0, &batch).await;
    }
    let cases = [
        (-1, 1, (0, 6, -1)),
        (-2, 1, (0, 0, -1)),
        (-3, 7, (0, 3, NOW + 110)),
        (-4, 8, (0, 0, -1)),
        (-5, 9, (0, -1, -1)),
        (-6, 11, (0, -1, -1)),
        (NOW, 1, (0, 0, NOW)),
        (NOW + 1, 1, (0, 1, NOW + 10)),
        (NOW + 11, 1, (0, 2, NOW + 100)),
        (NOW + 111, 1, (0, -1, -1)),
        (-3, 6, (code(ErrorCode::UnsupportedVersion), -1, -1)),
        (-7, 11, (code(ErrorCode::UnsupportedVersion), -1, -1)),
    ];
    for (timestamp, version, expected) in cases {
        assert_eq!(list_offset(&mut client, "t", timestamp, version).await, expected, "{timestamp} v{version}");
    }
    let fetch = async |client: &mut Client, offset| client.fetch("t", 0, offset).await.responses[0].partitions[0].error_code;
    assert_eq!(fetch(&mut client, 7).await, code(ErrorCode::OffsetOutOfRange));
    assert_eq!(fetch(&mut client, -1).await, code(ErrorCode::OffsetOutOfRange));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fetch_sessions_and_limits() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 2, &[]).await;
    let large = batch(&[&[1; 5000]]);
    client.produce("t", 0, &large).await;
    client.produce("t", 0, &large).await;
    client.produce("t", 1, &large).await;
    let mut tight = fetch_request("t", &[(0, 0), (1, 0)], 1, 100);
    tight.max_bytes = 100;
    let response = client.call(&tight, 12).await;
    let sizes: Vec<usize> = response.responses[0].partitions.iter().map(|p| p.records.as_ref().map_or(0, |r| r.len())).collect();
    assert_eq!(sizes, [large.len(), 0], "the first batch is whole, the second does not fit");

    let open = FetchRequest { session_epoch: 0, ..fetch_request("t", &[(0, 2), (1, 1)], 1, 100) };
    let session = client.call(&open, 12).await.session_id;
    assert_ne!(session, 0);
    let next = |epoch| FetchRequest { session_id: session, session_epoch: epoch, topics: vec![], ..fetch_request("t", &[], 1, 100) };
    assert_eq!(client.call(&next(1), 12).await.responses.len(), 0, "nothing has changed");
    client.produce("t", 1, &large).await;
    let changed = client.call(&next(2), 12).await;
    assert_eq!(changed.responses[0].partitions.len(), 1);
    assert_eq!(changed.responses[0].partitions[0].partition_index, 1);
    assert_eq!(client.call(&next(9), 12).await.error_code, code(ErrorCode::InvalidFetchSessionEpoch));
    let mut fenced = fetch_request("t", &[(0, 0)], 1, 100);
    fenced.topics[0].partitions[0].current_leader_epoch = 5;
    assert_eq!(client.call(&fenced, 12).await.responses[0].partitions[0].error_code, code(ErrorCode::UnknownLeaderEpoch));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_cannot_be_are_refused_with_kafkas_codes() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("there", 1, &[]).await;
    let topic = |name: &str| CreatableTopic { name: name.into(), num_partitions: 1, replication_factor: 1, ..Default::default() };
    let assignment = CreatableReplicaAssignment { partition_index: 0, broker_ids: vec![9] };
    let cases = [
        (topic("there"), ErrorCode::TopicAlreadyExists),
        (topic("a b"), ErrorCode::InvalidTopicException),
        (CreatableTopic { num_partitions: 0, ..topic("x") }, ErrorCode::InvalidPartitions),
        (CreatableTopic { replication_factor: 0, ..topic("x") }, ErrorCode::InvalidReplicationFactor),
        (CreatableTopic { assignments: vec![assignment.clone()], ..topic("x") }, ErrorCode::InvalidRequest),
        (
            CreatableTopic { num_partitions: -1, replication_factor: -1, assignments: vec![assignment], ..topic("x") },
            ErrorCode::InvalidReplicaAssignment,
        ),
    ];
    for (topic, expected) in cases {
        let response = client.call(&CreateTopicsRequest { topics: vec![topic.clone()], ..Default::default() }, 7).await;
        assert_eq!(ErrorCode::from_code(response.topics[0].error_code), Some(expected), "{topic:?}");
    }
    let twice = client.call(&CreateTopicsRequest { topics: vec![topic("d"), topic("d")], ..Default::default() }, 7).await;
    assert_eq!((twice.topics.len(), twice.topics[0].error_code), (1, code(ErrorCode::InvalidRequest)));
    let clamped = CreatableTopic { replication_factor: 3, ..topic("clamped") };
    let response = client.call(&CreateTopicsRequest { topics: vec![clamped], ..Default::default() }, 7).await;
    assert_eq!((response.topics[0].error_code, response.topics[0].replication_factor), (0, 1), "dev mode clamps");
    let dry = CreateTopicsRequest { topics: vec![topic("dry")], validate_only: true, ..Default::default() };
    assert_eq!(client.call(&dry, 7).await.topics[0].error_code, 0);
    assert_eq!(metadata(&mut client, "dry", false).await.topics[0].error_code, code(ErrorCode::UnknownTopicOrPartition));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_metrics_are_served() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    client.produce("t", 0, &batch(&[b"x"])).await;
    for (path, expected) in [("/health", "ok"), ("/ready", "ready"), ("/metrics", "dlog_request_seconds"), ("/nothing", "404")] {
        let mut stream = tokio::net::TcpStream::connect(broker.http()).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.contains(expected), "{path}: {text}");
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn data_goes_only_where_its_topic_was_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("kept", 1, &[]).await;
    client.create_topic("gone", 1, &[]).await;
    client.produce("kept", 0, &batch(&[b"x"])).await;
    let copy = |from: &str, to: &str| std::fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
    std::fs::create_dir(folder.path().join("later")).unwrap();
    copy("gone-0/partition.metadata", "later/partition.metadata");
    let state = DeleteTopicState { name: Some("gone".into()), ..Default::default() };
    client.call(&DeleteTopicsRequest { topics: vec![state], ..Default::default() }, 6).await;
    broker.stop().await.unwrap();
    // As if a crash had come between the deletion's commit and the directory's end.
    std::fs::rename(folder.path().join("later"), folder.path().join("gone-0")).unwrap();
    start(folder.path(), &[]).await.stop().await.unwrap();
    assert!(!folder.path().join("gone-0").exists(), "a deletion that was cut short is finished");

    // Metadata that is lost takes no records along.
    std::fs::remove_dir_all(folder.path().join("__cluster_metadata-0")).unwrap();
    start(folder.path(), &[]).await.stop().await.unwrap();
    assert!(std::fs::metadata(folder.path().join("kept-0/00000000000000000000.log")).unwrap().len() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_keeps_the_last_value_of_each_key() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[("log.cleaner.backoff.ms", "20")]).await;
    let mut client = Client::connect(&broker).await;
    let settings = [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01")];
    client.create_topic("state", 1, &settings).await;
    let filler = vec![b'x'; 30_000];
    for at in 0..100 {
        let (key, value) = (format!("key {}", at % 10), [format!("{at} ").as_bytes(), &filler].concat());
        let batch = BatchBuilder::new().record(NewRecord::keyed(key.as_bytes(), Some(&value))).build(NOW);
        assert_eq!(client.produce("state", 0, &batch).await.error_code, 0);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let offsets = loop {
        let (mut offsets, mut next) = (Vec::new(), 0);
        while next < 100 {
            let bytes = fetched(&client.fetch("state", 0, next).await);
            offsets.extend(values(&bytes).into_iter().map(|(offset, _)| offset));
            // Also what was left empty has a place.
            next = batches(&bytes).map_while(Result::ok).last().expect("a batch").0.next_offset().0;
        }
        // The active segment, of some 34 records, is never compacted.
        if offsets.len() <= 50 || Instant::now() > deadline {
            break offsets;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(offsets.len() <= 50, "not compacted: {offsets:?}");
    assert_eq!(offsets[offsets.len() - 20..], (80..100).collect::<Vec<i64>>());
    let unkeyed = batch(&[b"no key"]);
    assert_eq!(client.produce("state", 0, &unkeyed).await.error_code, code(ErrorCode::InvalidRecord));
    broker.stop().await.unwrap();
    assert!(std::fs::read_to_string(folder.path().join("cleaner-offset-checkpoint")).unwrap().contains("state 0 "));
}
