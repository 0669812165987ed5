//! Administration over the protocol: settings, records, groups and offsets that are deleted, and what is shown of them.

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Client, fetch_request, fetched, produce_request, start, values};
use dlog::protocol::ErrorCode;
use dlog::protocol::generated::*;
use dlog::records::{BatchBuilder, NewRecord};
use dlog::wire::Records;

const NOW: i64 = 1_700_000_000_000;
const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;

fn batch(values: &[&[u8]]) -> Bytes {
    values.iter().fold(BatchBuilder::new(), |builder, value| builder.record(NewRecord::value(value))).build(NOW)
}

async fn delete_records(client: &mut Client, topic: &str, offset: i64) -> (ErrorCode, i64) {
    let partition = delete_records::DeleteRecordsPartition { partition_index: 0, offset };
    let topic = delete_records::DeleteRecordsTopic { name: topic.into(), partitions: vec![partition] };
    let response = client.call(&delete_records::DeleteRecordsRequest { topics: vec![topic], timeout_ms: 1000 }, 2).await;
    let partition = &response.topics[0].partitions[0];
    (ErrorCode::from_code(partition.error_code).unwrap(), partition.low_watermark)
}

type Change<'a> = (&'a str, i8, Option<&'a str>);

async fn alter(client: &mut Client, kind: i8, name: &str, changes: &[Change<'_>]) -> (ErrorCode, String) {
    use incremental_alter_configs::{AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest};
    let config = |(name, config_operation, value): &Change<'_>| AlterableConfig {
        name: name.to_string(),
        config_operation: *config_operation,
        value: value.map(str::to_string),
    };
    let configs = changes.iter().map(config).collect();
    let resource = AlterConfigsResource { resource_type: kind, resource_name: name.into(), configs };
    let response = client.call(&IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false }, 1).await;
    let result = &response.responses[0];
    (ErrorCode::from_code(result.error_code).unwrap(), result.error_message.clone().unwrap_or_default())
}

/// Value and source of a setting, and the sources of its synonyms.
async fn setting(client: &mut Client, kind: i8, resource: &str, name: &str) -> Option<(String, i8, Vec<i8>)> {
    let resource = describe_configs::DescribeConfigsResource {
        resource_type: kind,
        resource_name: resource.into(),
        configuration_keys: Some(vec![name.into()]),
    };
    let request = describe_configs::DescribeConfigsRequest { resources: vec![resource], include_synonyms: true, ..Default::default() };
    let response = client.call(&request, 4).await;
    let config = response.results[0].configs.first()?;
    Some((config.value.clone()?, config.config_source, config.synonyms.iter().map(|s| s.source).collect()))
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_stay_deleted_and_a_new_topic_of_that_name_keeps_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    client.create_topic("compacted", 1, &[("cleanup.policy", "compact")]).await;
    for value in [b"a", b"b", b"c", b"d"] {
        client.produce("t", 0, &batch(&[value])).await;
    }
    let cases = [
        ("t", 5, (ErrorCode::OffsetOutOfRange, -1)),
        ("t", -2, (ErrorCode::OffsetOutOfRange, -1)),
        ("t", 2, (ErrorCode::None, 2)),
        ("t", 1, (ErrorCode::None, 2)),
        ("compacted", 0, (ErrorCode::PolicyViolation, -1)),
        ("__consumer_offsets", 0, (ErrorCode::InvalidTopicException, -1)),
        ("missing", 0, (ErrorCode::UnknownTopicOrPartition, -1)),
    ];
    for (topic, offset, expected) in cases {
        assert_eq!(delete_records(&mut client, topic, offset).await, expected, "{topic} {offset}");
    }
    broker.stop().await.unwrap();

    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    let answer = client.fetch("t", 0, 1).await;
    assert_eq!(answer.responses[0].partitions[0].error_code, ErrorCode::OffsetOutOfRange.code());
    assert_eq!(values(&fetched(&client.fetch("t", 0, 2).await)), [(2, b"c".to_vec()), (3, b"d".to_vec())]);
    assert_eq!(delete_records(&mut client, "t", -1).await, (ErrorCode::None, 4), "all of it");
    let state = delete_topics::DeleteTopicState { name: Some("t".into()), ..Default::default() };
    client.call(&delete_topics::DeleteTopicsRequest { topics: vec![state], ..Default::default() }, 6).await;
    client.create_topic("t", 1, &[]).await;
    client.produce("t", 0, &batch(&[b"new"])).await;
    broker.stop().await.unwrap();

    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    assert_eq!(values(&fetched(&client.fetch("t", 0, 0).await)), [(0, b"new".to_vec())]);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn altered_settings_are_in_force_at_once_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    let big = batch(&[&[7; 2000]]);
    assert_eq!(client.produce("t", 0, &big).await.error_code, 0);
    assert_eq!(alter(&mut client, TOPIC, "t", &[("max.message.bytes", SET, Some("1000"))]).await.0, ErrorCode::None);
    assert_eq!(client.produce("t", 0, &big).await.error_code, ErrorCode::MessageTooLarge.code());
    assert_eq!(setting(&mut client, TOPIC, "t", "max.message.bytes").await, Some(("1000".into(), 1, vec![1, 5])));
    assert_eq!(alter(&mut client, TOPIC, "t", &[("max.message.bytes", DELETE, None)]).await.0, ErrorCode::None);
    assert_eq!(client.produce("t", 0, &big).await.error_code, 0);

    assert_eq!(alter(&mut client, BROKER, "", &[("message.max.bytes", SET, Some("1500"))]).await.0, ErrorCode::None);
    assert_eq!(client.produce("t", 0, &big).await.error_code, ErrorCode::MessageTooLarge.code());
    assert_eq!(setting(&mut client, BROKER, "", "message.max.bytes").await, Some(("1500".into(), 3, vec![3])));
    assert_eq!(alter(&mut client, BROKER, "1", &[("message.max.bytes", SET, Some("1000000"))]).await.0, ErrorCode::None);
    assert_eq!(client.produce("t", 0, &big).await.error_code, 0);
    assert_eq!(setting(&mut client, BROKER, "1", "message.max.bytes").await, Some(("1000000".into(), 2, vec![2, 3, 5])));
    assert_eq!(setting(&mut client, TOPIC, "t", "max.message.bytes").await, Some(("1000000".into(), 2, vec![2, 3, 5])));
    assert_eq!(alter(&mut client, BROKER, "1", &[("message.max.bytes", DELETE, None)]).await.0, ErrorCode::None);
    broker.stop().await.unwrap();

    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    assert_eq!(client.produce("t", 0, &big).await.error_code, ErrorCode::MessageTooLarge.code());
    client.create_topic("new", 1, &[]).await;
    assert_eq!(client.produce("new", 0, &big).await.error_code, ErrorCode::MessageTooLarge.code());
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn alterations_that_cannot_be_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[("retention.ms", "5")]).await;
    type Case<'a> = (i8, &'a str, &'a [Change<'a>], ErrorCode);
    let cases: &[Case] = &[
        (TOPIC, "missing", &[("retention.ms", SET, Some("1"))], ErrorCode::UnknownTopicOrPartition),
        (TOPIC, "t", &[("retention.ms", SET, Some("1")), ("nonsense", SET, Some("1"))], ErrorCode::InvalidConfig),
        (TOPIC, "t", &[("retention.ms", SET, Some("x"))], ErrorCode::InvalidConfig),
        (TOPIC, "t", &[("retention.ms", APPEND, Some("1"))], ErrorCode::InvalidConfig),
        (TOPIC, "t", &[("retention.ms", SET, None)], ErrorCode::InvalidRequest),
        (TOPIC, "t", &[("retention.ms", 9, Some("1"))], ErrorCode::InvalidRequest),
        (BROKER, "7", &[("log.retention.ms", SET, Some("1"))], ErrorCode::InvalidRequest),
        (BROKER, "1", &[("num.partitions", SET, Some("2"))], ErrorCode::InvalidRequest),
        (BROKER, "1", &[("listeners", SET, Some("PLAINTEXT://:1"))], ErrorCode::InvalidRequest),
        (8, "1", &[("root", SET, Some("DEBUG"))], ErrorCode::InvalidRequest),
        (99, "t", &[("x", SET, Some("1"))], ErrorCode::InvalidRequest),
    ];
    for (kind, name, changes, expected) in cases {
        let (error, message) = alter(&mut client, *kind, name, changes).await;
        assert_eq!(error, *expected, "{name} {changes:?}: {message}");
        assert!(!message.is_empty());
    }
    assert_eq!(setting(&mut client, TOPIC, "t", "retention.ms").await.unwrap().0, "5");
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_and_its_offsets_can_be_deleted_and_stay_so() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 2, &[]).await;
    client.call(&find_coordinator::FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() }, 4).await;
    for group in ["g", "h"] {
        let partition =
            |partition_index| offset_commit::OffsetCommitRequestPartition { partition_index, committed_offset: 3, ..Default::default() };
        let topic = offset_commit::OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![partition(0), partition(1)],
            ..Default::default()
        };
        let request = offset_commit::OffsetCommitRequest { group_id: group.into(), topics: vec![topic], ..Default::default() };
        assert_eq!(client.call(&request, 8).await.topics[0].partitions[0].error_code, 0);
    }
    let offset_delete = |group: &str, partition_index| {
        let partitions = vec![offset_delete::OffsetDeleteRequestPartition { partition_index }];
        let topics = vec![offset_delete::OffsetDeleteRequestTopic { name: "t".into(), partitions }];
        offset_delete::OffsetDeleteRequest { group_id: group.into(), topics }
    };
    assert_eq!(client.call(&offset_delete("g", 1), 0).await.topics[0].partitions[0].error_code, 0);
    let unknown = client.call(&offset_delete("g", 9), 0).await;
    assert_eq!(unknown.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
    assert_eq!(client.call(&offset_delete("nobody", 0), 0).await.error_code, ErrorCode::GroupIdNotFound.code());
    let delete = delete_groups::DeleteGroupsRequest { groups_names: vec!["h".into(), "nobody".into(), "".into()] };
    let results = client.call(&delete, 2).await.results;
    let codes: BTreeMap<&str, i16> = results.iter().map(|r| (&*r.group_id, r.error_code)).collect();
    let not_found = ErrorCode::GroupIdNotFound.code();
    assert_eq!(codes, BTreeMap::from([("h", 0), ("nobody", not_found), ("", not_found)]));
    check_offsets(&mut client).await;
    broker.stop().await.unwrap();
    let broker = start(folder.path(), &[]).await;
    check_offsets(&mut Client::connect(&broker).await).await;
    broker.stop().await.unwrap();
}

/// Group `g` has its offset of partition 0 only, group `h` has none.
async fn check_offsets(client: &mut Client) {
    for (group, expected) in [("g", [3, -1]), ("h", [-1, -1])] {
        let topics = vec![offset_fetch::OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0, 1] }];
        let request = offset_fetch::OffsetFetchRequest { group_id: group.into(), topics: Some(topics), ..Default::default() };
        let mut answer = client.call(&request, 7).await;
        // Until the groups are loaded.
        while answer.error_code != 0 {
            answer = client.call(&request, 7).await;
        }
        let offsets: Vec<i64> = answer.topics[0].partitions.iter().map(|p| p.committed_offset).collect();
        assert_eq!(offsets, expected, "{group}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotent_producers_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    let batch = BatchBuilder::new().producer(42, 3, 0).record(NewRecord::value(b"a")).record(NewRecord::value(b"b")).build(NOW);
    let answer = client.call(&produce_request("t", 0, &batch, -1), 9).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    let topic = |name: &str| describe_producers::TopicRequest { name: name.into(), partition_indexes: vec![0] };
    let request = describe_producers::DescribeProducersRequest { topics: vec![topic("t"), topic("missing")] };
    let answer = client.call(&request, 0).await;
    let producer = &answer.topics[0].partitions[0].active_producers[0];
    assert_eq!((producer.producer_id, producer.producer_epoch, producer.last_sequence), (42, 3, 1));
    assert_eq!((producer.last_timestamp, producer.current_txn_start_offset), (NOW, -1));
    assert_eq!(answer.topics[1].partitions[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_described_page_by_page() {
    use describe_topic_partitions::{DescribeTopicPartitionsRequest, PageCursor, TopicRequest};
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    for (name, partitions) in [("a", 2), ("b", 3), ("c", 1)] {
        client.create_topic(name, partitions, &[]).await;
    }
    let mut cursor = None;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let request = DescribeTopicPartitionsRequest { response_partition_limit: 2, cursor, ..Default::default() };
        let answer = client.call(&request, 0).await;
        for topic in &answer.topics {
            seen.extend(topic.partitions.iter().map(|p| format!("{}{}", topic.name.as_deref().unwrap(), p.partition_index)));
        }
        cursor = answer.next_cursor.map(|c| PageCursor { topic_name: c.topic_name, partition_index: c.partition_index });
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["a0", "a1", "b0", "b1", "b2", "c0"]);
    assert!(cursor.is_none());
    let named = DescribeTopicPartitionsRequest { topics: vec![TopicRequest { name: "missing".into() }], ..Default::default() };
    assert_eq!(client.call(&named, 0).await.topics[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
    let before = PageCursor { topic_name: "a".into(), partition_index: -1 };
    let bad = DescribeTopicPartitionsRequest { cursor: Some(before), ..Default::default() };
    assert_eq!(client.call(&bad, 0).await.topics[0].error_code, ErrorCode::InvalidRequest.code());
    broker.stop().await.unwrap();
}

/// librdkafka fails the whole batch where a bad record is not named, and sends the good ones again where all are.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_batch_names_all_bad_records_and_the_start_of_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let client = &mut Client::connect(&broker).await;
    client.create_topic("compacted", 1, &[("cleanup.policy", "compact,delete")]).await;
    client.create_topic("recent", 1, &[("message.timestamp.after.max.ms", "1")]).await;
    let good = BatchBuilder::new().record(NewRecord::keyed(b"k", Some(b"v"))).build(NOW);
    assert_eq!(client.produce("compacted", 0, &good).await.error_code, 0);
    assert_eq!(delete_records(client, "compacted", 1).await, (ErrorCode::None, 1));

    let keys = BatchBuilder::new().record(NewRecord::value(b"a")).record(NewRecord::keyed(b"k", Some(b"b")));
    let refused = client.produce("compacted", 0, &keys.record(NewRecord::value(b"c")).build(NOW)).await;
    let named = |response: &produce::PartitionProduceResponse| -> Vec<i32> {
        assert!(response.record_errors.iter().all(|error| error.batch_index_error_message.is_some()));
        response.record_errors.iter().map(|error| error.batch_index).collect()
    };
    assert_eq!((refused.error_code, refused.base_offset, refused.log_start_offset), (ErrorCode::InvalidRecord.code(), -1, 1));
    assert_eq!(named(&refused), [0, 2]);

    let late = client.produce("recent", 0, &batch(&[b"a", b"b"])).await;
    assert_eq!(late.error_code, 0, "2023 is long ago");
    let future = BatchBuilder::new().record(NewRecord::value(b"a")).record(NewRecord::value(b"b")).build(4_000_000_000_000);
    let refused = client.produce("recent", 0, &future).await;
    assert_eq!((refused.error_code, named(&refused)), (ErrorCode::InvalidTimestamp.code(), vec![0, 1]));
    // What is no batch at all is refused before its partition is looked at.
    let refused = client.produce("compacted", 0, &good.slice(..good.len() - 1)).await;
    assert_eq!((refused.error_code, refused.log_start_offset), (ErrorCode::InvalidRecord.code(), -1));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_of_a_compressed_batch_is_checked_where_the_setting_says_so() {
    let lying = |codec: dlog::records::Codec| {
        let good = BatchBuilder::new().codec(codec).record(NewRecord::value(b"one")).build(NOW);
        let (mut header, body) = (dlog::records::BatchHeader::read(&good).unwrap(), good.slice(61..));
        (header.records_count, header.last_offset_delta) = (2, 1);
        header.crc = header.compute_crc(&body);
        Bytes::from([&header.to_bytes()[..], &body].concat())
    };
    for (check, expected) in [("frame", ErrorCode::None), ("full", ErrorCode::InvalidRecord)] {
        let folder = tempfile::tempdir().unwrap();
        let broker = start(folder.path(), &[("compressed.batches.check", check)]).await;
        let client = &mut Client::connect(&broker).await;
        client.create_topic("t", 1, &[]).await;
        let refused = client.produce("t", 0, &lying(dlog::records::Codec::Gzip)).await;
        assert_eq!(ErrorCode::from_code(refused.error_code), Some(expected), "{check}");
        // Uncompressed records are walked in any case.
        let refused = client.produce("t", 0, &lying(dlog::records::Codec::None)).await;
        assert_eq!(ErrorCode::from_code(refused.error_code), Some(ErrorCode::InvalidRecord), "{check}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authorized_operations_are_all_where_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let client = &mut Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    for (ask, topic, cluster, group) in [(true, 3576, 8096, 3400), (false, i32::MIN, i32::MIN, i32::MIN)] {
        let request = metadata::MetadataRequest {
            topics: None,
            include_topic_authorized_operations: ask,
            include_cluster_authorized_operations: ask,
            ..Default::default()
        };
        for version in 8..=10 {
            let described = client.call(&request, version).await;
            let operations = (described.topics[0].topic_authorized_operations, described.cluster_authorized_operations);
            assert_eq!(operations, (topic, cluster), "Metadata {version}");
        }
        let request = describe_cluster::DescribeClusterRequest { include_cluster_authorized_operations: ask, ..Default::default() };
        assert_eq!(client.call(&request, 1).await.cluster_authorized_operations, cluster);
        let groups = vec!["none".to_string()];
        let request = describe_groups::DescribeGroupsRequest { groups: groups.clone(), include_authorized_operations: ask };
        assert_eq!(client.call(&request, 5).await.groups[0].authorized_operations, i32::MIN, "of a group that does not exist");
        let found = find_coordinator::FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
        assert_eq!(client.call(&found, 6).await.coordinators[0].error_code, 0);
        let partition = offset_commit::OffsetCommitRequestPartition { committed_offset: 1, ..Default::default() };
        let topic = offset_commit::OffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition], ..Default::default() };
        let commit = offset_commit::OffsetCommitRequest { group_id: "g".into(), topics: vec![topic], ..Default::default() };
        assert_eq!(client.call(&commit, 8).await.topics[0].partitions[0].error_code, 0);
        let request = describe_groups::DescribeGroupsRequest { groups: vec!["g".into()], ..request };
        assert_eq!(client.call(&request, 5).await.groups[0].authorized_operations, group);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_kafkas_broker_settings_are_described_and_passwords_are_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[("num.io.threads", "3")]).await;
    let client = &mut Client::connect(&broker).await;
    let resource = describe_configs::DescribeConfigsResource { resource_type: BROKER, resource_name: "1".into(), configuration_keys: None };
    let request =
        describe_configs::DescribeConfigsRequest { resources: vec![resource], include_synonyms: true, include_documentation: true };
    let described = client.call(&request, 4).await;
    let configs = &described.results[0].configs;
    let config = |name: &str| configs.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("{name} is not described"));
    for known in dlog::partition::kafka_settings() {
        let config = config(known.setting.name);
        assert!(config.documentation.as_ref().is_some_and(|text| !text.is_empty()), "{}", config.name);
    }
    assert!(configs.is_sorted_by(|a, b| a.name < b.name), "each once");
    let password = config("ssl.keystore.password");
    assert_eq!((password.value.as_deref(), password.is_sensitive, password.config_type), (None, true, 9));
    let threads = config("num.io.threads");
    assert_eq!((threads.value.as_deref(), threads.config_source, threads.read_only, threads.config_type), (Some("3"), 4, false, 3));
    assert!(config("node.id").read_only);

    assert_eq!(alter(client, BROKER, "1", &[("log.cleaner.threads", SET, Some("4"))]).await.0, ErrorCode::None);
    assert_eq!(setting(client, BROKER, "1", "log.cleaner.threads").await, Some(("4".into(), 2, vec![2, 5])));
    for (name, value) in [("log.cleaner.threads", "x"), ("log.cleaner.threads", "-1"), ("max.connections", "-5"), ("num.partitions", "5")] {
        assert_eq!(alter(client, BROKER, "1", &[(name, SET, Some(value))]).await.0, ErrorCode::InvalidRequest, "{name}={value}");
    }
}

/// These required a restart.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_broker_take_effect_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[("log.retention.check.interval.ms", "20")]).await;
    let client = &mut Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    let set = async |client: &mut Client, broker: &str, name: &str, value: Option<&str>| {
        let operation = if value.is_some() { SET } else { DELETE };
        assert_eq!(alter(client, BROKER, broker, &[(name, operation, value)]).await, (ErrorCode::None, String::new()), "{name}={value:?}");
    };

    // Above max.connections, a connection waits until the limit is raised or another one closes.
    set(client, "", "max.connections", Some("1")).await;
    assert_eq!(setting(client, BROKER, "1", "max.connections").await.unwrap().0, "1");
    let mut second = Client::connect(&broker).await;
    let mut waiting = tokio::spawn(async move { second.call(&metadata::MetadataRequest::default(), 9).await.brokers.len() });
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err(), "it waits");
    set(client, "1", "max.connections", Some("2")).await;
    assert_eq!(waiting.await.unwrap(), 1);
    set(client, "1", "max.connections", None).await;
    set(client, "", "max.connections", None).await;

    let batch = BatchBuilder::new().producer(42, 3, 0).record(NewRecord::value(b"a")).build(NOW);
    assert_eq!(client.produce("t", 0, &batch).await.error_code, 0);
    let producers = async |client: &mut Client| {
        let topics = vec![describe_producers::TopicRequest { name: "t".into(), partition_indexes: vec![0] }];
        let described = client.call(&describe_producers::DescribeProducersRequest { topics }, 0).await;
        described.topics[0].partitions[0].active_producers.len()
    };
    assert_eq!(producers(client).await, 1);
    set(client, "", "producer.id.expiration.ms", Some("1")).await;
    let begin = Instant::now();
    while producers(client).await > 0 {
        assert!(begin.elapsed() < PATIENCE, "the producer does not expire");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    // A producer that has not added the partition to its transaction.
    let request = init_producer_id::InitProducerIdRequest {
        transactional_id: Some("x".into()),
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    client
        .call(&find_coordinator::FindCoordinatorRequest { coordinator_keys: vec!["x".into()], key_type: 1, ..Default::default() }, 4)
        .await;
    let me = client.call(&request, 4).await;
    assert_eq!(me.error_code, 0);
    let send = async |client: &mut Client| {
        let batch =
            BatchBuilder::new().producer(me.producer_id, me.producer_epoch, 0).transactional().record(NewRecord::value(b"a")).build(NOW);
        let partition_data = vec![produce::PartitionProduceData { index: 0, records: Some(Records::Bytes(batch)) }];
        let topic_data = vec![produce::TopicProduceData { name: "t".into(), partition_data, ..Default::default() }];
        let request = produce::ProduceRequest { transactional_id: Some("x".into()), acks: -1, timeout_ms: 10_000, topic_data };
        ErrorCode::from_code(client.call(&request, 9).await.responses[0].partition_responses[0].error_code)
    };
    assert_eq!(send(client).await, Some(ErrorCode::InvalidTxnState));
    set(client, "", "transaction.partition.verification.enable", Some("FALSE")).await;
    assert_eq!(send(client).await, Some(ErrorCode::None));
    broker.stop().await.unwrap();
}

/// With a backoff of an hour and one byte a second this log would never be compacted.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_log_cleaner_take_effect_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let slow = [("log.cleaner.backoff.ms", "3600000"), ("log.cleaner.io.max.bytes.per.second", "1")];
    let broker = start(folder.path(), &slow).await;
    let client = &mut Client::connect(&broker).await;
    let configs = [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01")];
    client.create_topic("t", 1, &configs).await;
    let value = vec![b'v'; 300_000];
    for _ in 0..8 {
        let batch = BatchBuilder::new().record(NewRecord::keyed(b"k", Some(&value))).build(NOW);
        assert_eq!(client.produce("t", 0, &batch).await.error_code, 0);
    }
    let count = async |client: &mut Client| values(&fetched(&client.fetch("t", 0, 0).await)).first().map(|(offset, _)| *offset);
    assert_eq!(count(client).await, Some(0));
    for (name, value) in
        [("log.cleaner.backoff.ms", "10"), ("log.cleaner.io.max.bytes.per.second", "1e12"), ("log.cleaner.dedupe.buffer.size", "2097152")]
    {
        assert_eq!(alter(client, BROKER, "", &[(name, SET, Some(value))]).await.0, ErrorCode::None, "{name}");
    }
    let begin = Instant::now();
    while count(client).await == Some(0) {
        assert!(begin.elapsed() < PATIENCE, "the log is not compacted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_topics_are_read_as_kafka_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let client = &mut Client::connect(&broker).await;
    let cases = [
        ("preallocate", Some("TRUE"), ErrorCode::None),
        ("unclean.leader.election.enable", Some("False"), ErrorCode::None),
        ("preallocate", Some("yes"), ErrorCode::InvalidConfig),
        ("retention.ms", None, ErrorCode::InvalidConfig),
        ("leader.replication.throttled.replicas", Some("x"), ErrorCode::InvalidConfig),
        ("follower.replication.throttled.replicas", Some("0:1,x"), ErrorCode::InvalidConfig),
        ("leader.replication.throttled.replicas", Some("0:1,1:1"), ErrorCode::None),
        ("leader.replication.throttled.replicas", Some("*"), ErrorCode::None),
        ("remote.storage.enable", Some("true"), ErrorCode::InvalidConfig),
        ("remote.storage.enable", Some("false"), ErrorCode::None),
        ("compression.gzip.level", Some("0"), ErrorCode::InvalidConfig),
        ("compression.gzip.level", Some("-1"), ErrorCode::None),
    ];
    for (number, (name, value, expected)) in cases.into_iter().enumerate() {
        let mut request = common::create_topic_request(&format!("t{number}"), 1, &[(name, "")]);
        request.topics[0].configs[0].value = value.map(str::to_string);
        for version in [2, 7] {
            request.validate_only = version == 2;
            let answered = client.call(&request, version).await.topics.remove(0);
            assert_eq!(ErrorCode::from_code(answered.error_code), Some(expected), "{name}={value:?} in version {version}");
            assert_eq!(answered.error_message.is_none(), expected == ErrorCode::None, "{name}={value:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readers_last_epoch_is_judged_in_kafkas_order() {
    // An epoch that nobody here knows was once taken for agreement, and a follower would have read on in another history.
    let folder = tempfile::tempdir().unwrap();
    let mut broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    let batch = batch(&[b"a", b"b"]);
    // Two batches in the first epoch, one in the second, none in the third.
    for batches in [2, 1, 0] {
        for _ in 0..batches {
            assert_eq!(client.produce("t", 0, &batch).await.error_code, 0);
        }
        if batches > 0 {
            broker.stop().await.unwrap();
            broker = start(folder.path(), &[]).await;
            client = Client::connect(&broker).await;
        }
    }
    assert_eq!(delete_records(&mut client, "t", 1).await, (ErrorCode::None, 1));
    let topic = metadata::MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
    let metadata = client.call(&metadata::MetadataRequest { topics: Some(vec![topic]), ..Default::default() }, 12).await;
    let third = metadata.topics[0].partitions[0].leader_epoch;
    let (first, second, unknown) = (third - 2, third - 1, third + 1);
    let out_of_range = (ErrorCode::OffsetOutOfRange.code(), (-1, -1));
    let reads = [
        ("within its epoch", 3, first, (0, (-1, -1))),
        ("at the end of its epoch", 4, first, (0, (-1, -1))),
        ("behind the end of its epoch", 5, first, (0, (first, 4))),
        ("in the second epoch", 5, second, (0, (-1, -1))),
        ("behind the log, whose leader wrote nothing", 7, third, (0, (third, 6))),
        ("an epoch that is not known", 5, unknown, out_of_range),
        ("below the log start", 0, second, out_of_range),
        ("below the log start, and an epoch that is not known", 0, unknown, out_of_range),
        ("behind the log", 7, -1, out_of_range),
    ];
    for (what, offset, last_epoch, expected) in reads {
        let mut request = fetch_request("t", &[(0, offset)], 1, 0);
        request.topics[0].partitions[0].last_fetched_epoch = last_epoch;
        let response = client.call(&request, 12).await;
        let partition = &response.responses[0].partitions[0];
        let diverging = (partition.diverging_epoch.epoch, partition.diverging_epoch.end_offset);
        assert_eq!((partition.error_code, diverging), expected, "{what}");
        assert!(expected.1 == (-1, -1) || fetched(&response).is_empty(), "{what}: no records of another history");
    }
    let (fenced, newer) = (ErrorCode::FencedLeaderEpoch.code(), ErrorCode::UnknownLeaderEpoch.code());
    let ends = [
        (-1, first, (0, first, 4)),
        (-1, second, (0, second, 6)),
        (-1, third, (0, third, 6)),
        (-1, unknown, (0, -1, -1)),
        (third, unknown, (0, -1, -1)),
        (second, first, (fenced, -1, -1)),
        (-2, first, (fenced, -1, -1)),
        (i32::MIN, first, (fenced, -1, -1)),
        (unknown, unknown, (newer, -1, -1)),
    ];
    for (current_leader_epoch, leader_epoch, expected) in ends {
        let partition = offset_for_leader_epoch::OffsetForLeaderPartition { partition: 0, current_leader_epoch, leader_epoch };
        let topics = vec![offset_for_leader_epoch::OffsetForLeaderTopic { topic: "t".into(), partitions: vec![partition] }];
        let response = client.call(&offset_for_leader_epoch::OffsetForLeaderEpochRequest { topics, ..Default::default() }, 4).await;
        let found = &response.topics[0].partitions[0];
        assert_eq!((found.error_code, found.leader_epoch, found.end_offset), expected, "{current_leader_epoch} {leader_epoch}");
    }
    broker.stop().await.unwrap();
}
