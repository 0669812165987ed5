//! A data directory that Apache Kafka 4.3.1 wrote (`tests/golden/kafka-4.3.1`, made by `compat-tests/kafka-data/takeover.py --golden`): what is
//! in it is served, nothing of it is changed before something is written, and then we go on in it.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::transactions::committed_fetch;
use common::{Client, start, values};
use dlog::broker::{Broker, Config, Mode, Sources};
use dlog::env::Env;
use dlog::model::Uuid;
use dlog::protocol::generated::*;
use dlog::records::{BatchBuilder, Marker, NewRecord, batches};
use serde_json::Value;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kafka-4.3.1")
}

/// What Kafka showed of it.
fn facts() -> Value {
    serde_json::from_slice(&std::fs::read(golden().join("facts.json")).unwrap()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        if path.is_dir() { copy(&path, &target) } else { std::fs::copy(&path, &target).map(drop).unwrap() }
    }
}

fn copied() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden().join("directory"), folder.path());
    folder
}

/// All files with their bytes, but for what only says who uses the directory, and for what is ours.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "dlog" {
            found.extend(files(&path));
        } else if path.is_file() && name != ".lock" && name != ".kafka_cleanshutdown" {
            let mut bytes = std::fs::read(&path).unwrap();
            if name == "recovery-point-offset-checkpoint" {
                // A clean stop writes the same lines, in another order.
                let text = String::from_utf8(bytes).unwrap();
                let mut lines: Vec<&str> = text.lines().collect();
                lines.sort_unstable();
                bytes = lines.join("\n").into_bytes();
            }
            found.insert(path.clone(), bytes);
        }
    }
    found
}

/// Kafka's ids in standard base64, as its Java client prints them elsewhere in the URL's alphabet.
fn id(text: &Value) -> Uuid {
    Uuid::parse(&text.as_str().unwrap().replace('+', "-").replace('/', "_")).unwrap()
}

async fn compare(client: &mut Client) {
    let facts = facts();
    let topics = facts["topics"].as_object().unwrap();
    let described = client.call(&metadata::MetadataRequest { topics: None, ..Default::default() }, 12).await.topics;
    let public: Vec<_> = described.iter().filter(|t| !t.is_internal).collect();
    assert_eq!(public.len(), topics.len());
    for topic in public {
        let name = topic.name.clone().unwrap();
        let expected = &topics[&name];
        assert_eq!(
            (topic.topic_id, topic.partitions.len() as u64),
            (id(&expected["id"]), expected["partitions"].as_u64().unwrap()),
            "{name}"
        );
        assert!(topic.partitions.iter().all(|p| p.error_code == 0 && p.leader_id == 1 && p.leader_epoch > 0), "{name}");
        let resource =
            describe_configs::DescribeConfigsResource { resource_type: 2, resource_name: name.clone(), configuration_keys: None };
        let request = describe_configs::DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
        let configs = client.call(&request, 4).await.results.remove(0).configs;
        let own = configs.into_iter().filter(|c| c.config_source == 1).map(|c| (c.name, Value::from(c.value.unwrap())));
        assert_eq!(Value::from_iter(own), expected["configs"], "{name}");
    }
    for (partition, expected) in facts["records"].as_object().unwrap() {
        let (topic, number) = partition.rsplit_once('-').unwrap();
        assert_eq!(records(client, topic, number.parse().unwrap(), 0).await, *expected, "{partition}");
    }
    for (partition, expected) in facts["committed"].as_object().unwrap() {
        let (topic, number) = partition.rsplit_once('-').unwrap();
        assert_eq!(records(client, topic, number.parse().unwrap(), 1).await, *expected, "{partition}");
    }
    let request = offset_fetch::OffsetFetchRequest { group_id: "readers".into(), topics: None, ..Default::default() };
    let committed = loop {
        let answer = client.call(&request, 5).await;
        if answer.error_code == 0 {
            break answer;
        }
    };
    let partitions = committed.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (format!("{}-{}", t.name, p.partition_index), p)));
    let offsets = Value::from_iter(partitions.map(|(name, p)| (name, Value::from(p.committed_offset))));
    assert_eq!(offsets, facts["offsets"]);
}

/// Offset, timestamp, key and value of all records.
async fn records(client: &mut Client, topic: &str, partition: i32, isolation_level: i8) -> Value {
    let (mut found, mut offset) = (Vec::new(), 0);
    loop {
        let request = fetch::FetchRequest { isolation_level, ..committed_fetch(topic, partition, offset, 0) };
        let answer = client.call(&request, 12).await;
        let data = &answer.responses[0].partitions[0];
        let bytes = data.records.as_ref().and_then(|r| r.bytes()).cloned().unwrap_or_default();
        let mut aborted: Vec<_> = data.aborted_transactions.iter().flatten().collect();
        let before = offset;
        for batch in batches(&bytes) {
            let Ok((header, batch)) = batch else { break };
            header.check_crc(batch).unwrap();
            offset = header.next_offset().0;
            if header.is_control() {
                let marker = Marker::read(&header, batch).unwrap().unwrap();
                aborted.retain(|a| a.producer_id != marker.producer_id.0 || a.first_offset > offset);
                continue;
            }
            if aborted.iter().any(|a| a.producer_id == header.producer_id.0 && a.first_offset <= header.last_offset().0) {
                continue;
            }
            for record in header.open(batch, 1 << 20).unwrap().records() {
                let record = record.unwrap();
                let text = |bytes: Option<&[u8]>| bytes.map_or(Value::Null, |bytes| String::from_utf8(bytes.to_vec()).unwrap().into());
                let (at, time) =
                    (header.base_offset.plus(i64::from(record.offset_delta)).0, header.base_timestamp + record.timestamp_delta);
                found.push(Value::Array(vec![at.into(), time.into(), text(record.key), text(record.value)]));
            }
        }
        if offset == before {
            return Value::Array(found);
        }
    }
}

async fn broker(data: &Path) -> (Broker, Client) {
    let broker = start(data, &[("node.id", "1")]).await;
    let client = Client::connect(&broker).await;
    (broker, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_wrote_is_served_and_left_as_it_is() {
    let folder = copied();
    let before = files(folder.path());
    for _ in 0..2 {
        let (broker, mut client) = broker(folder.path()).await;
        compare(&mut client).await;
        broker.stop().await.unwrap();
        let after = files(folder.path());
        let changed: Vec<_> = after.iter().filter(|(path, bytes)| before.get(*path) != Some(bytes)).map(|(path, _)| path).collect();
        assert!(changed.is_empty() && after.len() == before.len(), "{changed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn we_go_on_where_kafka_stopped() {
    let folder = copied();
    let (mut broker, mut client) = broker(folder.path()).await;
    let batch = BatchBuilder::new().record(NewRecord::value(b"new")).build(1_700_000_000_000);
    let end = client.produce("grown", 0, &batch).await.base_offset;
    assert!(end > 0);
    let request = init_producer_id::InitProducerIdRequest { transactional_id: None, ..Default::default() };
    assert!(client.call(&request, 4).await.producer_id >= 1000, "Kafka has given away the first block");
    client.create_topic("ours", 2, &[]).await;
    client.produce("ours", 1, &batch).await;
    for clean in [true, false] {
        broker.stop().await.unwrap();
        if !clean {
            std::fs::remove_file(folder.path().join(".kafka_cleanshutdown")).unwrap();
        }
        (broker, client) = self::broker(folder.path()).await;
        let answer = client.fetch("grown", 0, end).await;
        assert_eq!(values(&common::fetched(&answer)).last(), Some(&(end, b"new".to_vec())));
        assert_eq!(values(&common::fetched(&client.fetch("ours", 1, 0).await)).len(), 1);
    }
    broker.stop().await.unwrap();
}

async fn refused(data: &Path) -> String {
    let flags = [("log.dirs", data.to_str().unwrap()), ("listeners", "PLAINTEXT://127.0.0.1:0")];
    let flags = flags.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let config = Config::read(Mode::Dev, &Sources { flags, ..Sources::default() }, "127.0.0.1:0").unwrap();
    Broker::start(config, Env::real()).await.err().expect("it is refused").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_wrote_since_and_what_is_damaged_is_not_taken_over_silently() {
    let folder = copied();
    let metadata = folder.path().join("__cluster_metadata-0");
    let log = metadata.join("00000000000000000000.log");
    let whole = std::fs::read(&log).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(&log, &damaged).unwrap();
    assert!(refused(folder.path()).await.contains("is damaged at byte"));
    assert!(!metadata.join("dlog/taken-over").exists());
    // A last batch that is torn was never committed.
    std::fs::write(&log, &whole[..whole.len() - 1]).unwrap();
    broker(folder.path()).await.0.stop().await.unwrap();
    std::fs::write(&log, &whole).unwrap();
    let said = refused(folder.path()).await;
    assert!(said.contains("Apache Kafka has written to") && said.contains("remove"), "{said}");
    std::fs::remove_dir_all(metadata.join("dlog")).unwrap();
    let (broker, mut client) = broker(folder.path()).await;
    compare(&mut client).await;
    broker.stop().await.unwrap();
}
