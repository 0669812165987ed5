//! A broker in this process and a client that speaks the protocol's values.
#![allow(dead_code)]

pub mod history;
pub mod load;
pub mod logs;
pub mod meeting;
pub mod process;
pub mod transactions;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dlog::broker::{Broker, Config, Mode, Sources};
use dlog::client::{Connection, Error};
use dlog::env::{Env, FailStop, RealNetwork, Tasks};
use dlog::protocol::Request;
use dlog::protocol::generated::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use dlog::protocol::generated::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use dlog::protocol::generated::produce::{PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData};
use dlog::wire::Records;
use tokio_util::sync::CancellationToken;

/// How long any one answer may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Of a broker in dev mode on free ports.
pub fn config(data: &Path, settings: &[(&str, &str)]) -> Config {
    let mut flags: BTreeMap<String, String> = settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    flags.insert("log.dirs".into(), data.display().to_string());
    flags.entry("listeners".into()).or_insert("PLAINTEXT://127.0.0.1:0".into());
    let sources = Sources { flags, ..Sources::default() };
    Config::read(Mode::Dev, &sources, "127.0.0.1:0").expect("the settings are sound")
}

pub async fn start(data: &Path, settings: &[(&str, &str)]) -> Broker {
    Broker::start(config(data, settings), Env::real()).await.expect("the broker starts")
}

pub fn address(broker: &Broker) -> SocketAddr {
    broker.listeners()[0].1
}

pub struct Client(Connection);

impl Client {
    pub async fn connect(broker: &Broker) -> Client {
        Client::connect_to(address(broker)).await
    }

    pub async fn connect_to(address: SocketAddr) -> Client {
        Client(Connection::open(&RealNetwork::default(), &address.to_string(), "test", PATIENCE).await.expect("the broker listens"))
    }

    // A broker that has hung up is found when reading.

    pub async fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        self.0.send(request, version).await.unwrap_or_default()
    }

    pub async fn send_frame(&mut self, frame: &[u8]) {
        let _ = self.0.send_frame(Bytes::copy_from_slice(frame)).await;
    }

    /// A frame that was encoded before.
    pub async fn send_bytes(&mut self, frame: Bytes) {
        let _ = self.0.send_frame(frame).await;
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.0.send_raw(Bytes::copy_from_slice(bytes)).await;
    }

    /// The next frame, or none where the broker has closed the connection.
    pub async fn frame(&mut self) -> Option<Bytes> {
        match self.0.frame().await {
            Err(Error::TimedOut(..)) => panic!("an answer or the end comes in time"),
            frame => frame.ok(),
        }
    }

    pub async fn receive<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        self.0.receive::<R>(version).await.unwrap_or_else(|e| panic!("{} v{version}: {e}", R::NAME))
    }

    pub async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let sent = self.send(request, version).await;
        let (answered, response) = self.receive::<R>(version).await;
        assert_eq!(answered, sent, "answers come in order");
        response
    }

    pub async fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let response = self.call(&create_topic_request(name, partitions, configs), 7).await;
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0].error_message);
    }

    pub async fn produce(&mut self, topic: &str, partition: i32, batch: &Bytes) -> PartitionProduceResponse {
        self.call(&produce_request(topic, partition, batch, -1), 9).await.responses.remove(0).partition_responses.remove(0)
    }

    /// The bytes of a partition from an offset on.
    pub async fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> FetchResponse {
        self.call(&fetch_request(topic, &[(partition, offset)], 1, 500), 12).await
    }
}

pub fn create_topic_request(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreateTopicsRequest {
    let configs = configs.iter().map(|(n, v)| CreatableTopicConfig { name: n.to_string(), value: Some(v.to_string()) }).collect();
    let topic = CreatableTopic { name: name.into(), num_partitions: partitions, replication_factor: 1, configs, ..Default::default() };
    CreateTopicsRequest { topics: vec![topic], timeout_ms: 5000, ..Default::default() }
}

pub fn produce_request(topic: &str, partition: i32, batch: &Bytes, acks: i16) -> ProduceRequest {
    let data = PartitionProduceData { index: partition, records: Some(Records::Bytes(batch.clone())) };
    let topic = TopicProduceData { name: topic.into(), partition_data: vec![data], ..Default::default() };
    ProduceRequest { acks, timeout_ms: 5000, topic_data: vec![topic], ..Default::default() }
}

pub fn fetch_request(topic: &str, partitions: &[(i32, i64)], min_bytes: i32, max_wait_ms: i32) -> FetchRequest {
    let partition = |(partition, fetch_offset): &(i32, i64)| FetchPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topics = vec![FetchTopic { topic: topic.into(), partitions: partitions.iter().map(partition).collect(), ..Default::default() }];
    FetchRequest { max_wait_ms, min_bytes, max_bytes: 50 << 20, session_epoch: -1, topics, ..Default::default() }
}

/// The records' bytes of the first partition.
pub fn fetched(response: &FetchResponse) -> Bytes {
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    partition.records.as_ref().and_then(|r| r.bytes()).cloned().unwrap_or_default()
}

/// The values of all records in these batches, decompressed.
pub fn values(bytes: &[u8]) -> Vec<(i64, Vec<u8>)> {
    use dlog::records::{Codec, Records, batches, decompress, layout};
    let mut values = Vec::new();
    for batch in batches(bytes) {
        let (header, batch) = batch.expect("whole batches");
        header.check_crc(batch).expect("sound batches");
        let body = match header.codec().expect("a codec") {
            Codec::None => batch[layout::SIZE..].to_vec(),
            codec => decompress(codec, &batch[layout::SIZE..], 1 << 30).expect("it decompresses"),
        };
        for record in Records::new(&body, header.records_count) {
            let record = record.expect("sound records");
            values.push((header.base_offset.0 + i64::from(record.offset_delta), record.value.unwrap_or_default().to_vec()));
        }
    }
    values
}

/// The tasks of a broker whose parts a test assembles.
pub fn tasks() -> Tasks {
    Tasks::new(FailStop::new(CancellationToken::new()))
}
