//! Several brokers in one process: each has its own directory, world, ports and metrics, and what ends one leaves the others alone.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::{Client, address, config, fetched, produce_request, values};
use dlog::broker::Broker;
use dlog::client::Connection;
use dlog::env::{Clock, Cut, Env, MemoryDisk, RealNetwork, SystemClock, Workers};
use dlog::protocol::ErrorCode;
use dlog::protocol::generated::metadata::MetadataRequest;
use dlog::records::{BatchBuilder, NewRecord};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

fn batch(value: &str) -> Bytes {
    BatchBuilder::new().record(NewRecord::value(value.as_bytes())).build(SystemClock.wall_ms())
}

/// A world of its own for a broker: threads, a disk in memory, a clock that can break.
struct World {
    disk: MemoryDisk,
    clock: Arc<BrittleClock>,
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

impl World {
    fn new() -> World {
        World { disk: MemoryDisk::new(Arc::new(SystemClock)), clock: Arc::default() }
    }

    async fn start(&self, node: usize) -> Broker {
        let env =
            Env { clock: self.clock.clone(), disk: Arc::new(self.disk.clone()), workers: Workers::per_core().unwrap(), ..Env::real() };
        Broker::start(config(Path::new("/data"), &[("node.id", &node.to_string())]), env).await.expect("the broker starts")
    }
}

/// The log of this process.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_name_their_broker_where_its_world_has_a_span() {
    let lines = Lines::default();
    let written = lines.clone();
    let logging = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::DEBUG).with_writer(move || written.clone());
    tracing::subscriber::set_global_default(logging.finish()).expect("no other test of this process logs");
    for node in [31, 32] {
        let world = World::new();
        let span = tracing::info_span!("broker", id = node);
        let env = Env { disk: Arc::new(world.disk.clone()), workers: Workers::per_core().unwrap(), log_span: span, ..Env::real() };
        let broker = Broker::start(config(Path::new("/data"), &[("node.id", &node.to_string())]), env).await.unwrap();
        Client::connect(&broker).await.create_topic("t", 1, &[]).await;
        broker.stop().await.unwrap();
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    // A request is logged by the task of its connection, and the leadership by the controller's.
    for (node, words) in [31, 32].iter().flat_map(|node| [(node, "CreateTopics"), (node, "this node leads the metadata")]) {
        let is_named = |line: &str| line.contains(words) && line.contains(&format!("broker{{id={node}}}"));
        assert!(text.lines().any(is_named), "{words} of {node}: {text}");
    }
}

/// The metrics of a broker, as it shows them.
async fn metrics(broker: &Broker) -> String {
    let mut stream = tokio::net::TcpStream::connect(broker.http()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// The value of a line of the metrics.
fn value(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

async fn cluster_id(client: &mut Client) -> String {
    let request = MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
    client.call(&request, 12).await.cluster_id.unwrap()
}

/// Whether a batch is stored, and can be read again.
async fn works(broker: &Broker, text: &str) -> bool {
    let mut client = Client::connect(broker).await;
    let stored = client.produce("t", 0, &batch(text)).await;
    stored.error_code == 0 && values(&fetched(&client.fetch("t", 0, stored.base_offset).await))[0].1 == text.as_bytes()
}

/// Three brokers, each with a topic of the same name.
async fn three() -> (Vec<World>, Vec<Broker>) {
    let worlds: Vec<World> = (0..3).map(|_| World::new()).collect();
    let mut brokers = Vec::new();
    for (at, world) in worlds.iter().enumerate() {
        let broker = world.start(at + 1).await;
        Client::connect(&broker).await.create_topic("t", 1, &[]).await;
        brokers.push(broker);
    }
    (worlds, brokers)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_counts_its_own_and_stops_alone() {
    let (worlds, brokers) = three().await;
    let mut ids = Vec::new();
    let mut clients = Vec::new();
    for (at, broker) in brokers.iter().enumerate() {
        // As many connections and requests as its number says.
        for _ in 0..=at {
            let mut client = Client::connect(broker).await;
            assert_eq!(client.produce("t", 0, &batch(&format!("of {at}"))).await.error_code, 0);
            clients.push(client);
        }
        ids.push(cluster_id(clients.last_mut().unwrap()).await);
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "three clusters");
    for (at, broker) in brokers.iter().enumerate() {
        let shown = metrics(broker).await;
        let own = (at + 1) as f64;
        let cases = [
            ("dlog_connections_accepted_total", own + 1.0),
            ("dlog_request_seconds_count{request=\"Produce\"}", own),
            ("kafka_network_requestmetrics_requests_total{request=\"Produce\"}", own),
            ("dlog_request_seconds_count{request=\"CreateTopics\"}", 1.0),
            ("dlog_request_seconds_count{request=\"Metadata\"}", 1.0),
            ("kafka_server_brokertopicmetrics_messagesin_total{topic=\"t\"}", own),
        ];
        for (name, expected) in cases {
            assert_eq!(value(&shown, name), Some(expected), "{name} of broker {at}");
        }
    }
    let mut clients = clients.into_iter();
    drop(clients.next());
    let mut brokers = brokers.into_iter();
    brokers.next().unwrap().stop().await.unwrap();
    let others: Vec<Broker> = brokers.collect();
    for broker in &others {
        assert!(works(broker, "after the first stopped").await);
    }
    // A broker that starts again counts from 0.
    let again = worlds[0].start(1).await;
    assert_eq!(value(&metrics(&again).await, "dlog_connections_accepted_total"), Some(0.0));
    assert!(works(&again, "again").await);
    drop(clients);
    for broker in others.into_iter().chain([again]) {
        broker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_invariant_stops_its_broker_alone() {
    let (worlds, mut brokers) = three().await;
    for broker in &brokers {
        assert!(works(broker, "before").await);
    }
    let broken = brokers.remove(1);
    let at = address(&broken);
    worlds[1].clock.0.store(true, Ordering::Relaxed);
    let mut client = Connection::open(&RealNetwork::default(), &at.to_string(), "test", PATIENCE).await.unwrap();
    // It ends the connection with an error, and not only this one.
    client.call(&produce_request("t", 0, &batch("never stored"), -1), 9).await.unwrap_err();
    let reason = timeout(PATIENCE, broken.failed()).await.expect("it fails in time");
    assert!(reason.contains("the clock is broken"), "{reason}");
    let error = broken.stop().await.expect_err("nothing was closed cleanly");
    assert!(error.to_string().contains("the clock is broken"), "{error}");
    tokio::net::TcpStream::connect(at).await.expect_err("nobody listens any more");
    for broker in &brokers {
        assert!(works(broker, "after").await);
    }
    // What was acknowledged is there when the broker starts again on the same disk.
    worlds[1].clock.0.store(false, Ordering::Relaxed);
    let again = worlds[1].start(2).await;
    let stored = values(&fetched(&Client::connect(&again).await.fetch("t", 0, 0).await));
    assert_eq!(stored, [(0, b"before".to_vec())]);
    for broker in brokers.into_iter().chain([again]) {
        broker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_disk_stops_the_writes_of_its_broker_alone() {
    let (worlds, brokers) = three().await;
    worlds[1].disk.set_syncs_fail(true);
    worlds[1].disk.cut_at(Cut { operation: worlds[1].disk.operations(), torn: None });
    let refused = Client::connect(&brokers[1]).await.produce("t", 0, &batch("lost")).await;
    assert_eq!(refused.error_code, ErrorCode::KafkaStorageError.code());
    for at in [0, 2] {
        assert!(works(&brokers[at], "as before").await);
        assert_eq!(value(&metrics(&brokers[at]).await, "kafka_log_logmanager_offlinelogdirectorycount"), Some(0.0));
    }
    assert!(timeout(Duration::ZERO, brokers[1].failed()).await.is_err(), "a dead disk breaks no invariant");
    for (at, broker) in brokers.into_iter().enumerate() {
        assert_eq!(broker.stop().await.is_ok(), at != 1, "broker {at}");
    }
}

/// Files below a folder that this process has open, as Linux tells.
#[cfg(target_os = "linux")]
fn open_below(folder: &Path) -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    files.filter_map(|file| std::fs::read_link(file.path()).ok()).filter(|path| path.starts_with(folder)).count()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn each_has_its_part_of_the_open_files() {
    const PARTITIONS: i32 = 60;
    let mut brokers = Vec::new();
    for part in [20, 40, 400] {
        let folder = tempfile::tempdir().unwrap();
        let env = Env { open_files_max: Some(part), ..Env::real() };
        let broker = Broker::start(config(folder.path(), &[]), env).await.unwrap();
        let mut client = Client::connect(&broker).await;
        client.create_topic("t", PARTITIONS, &[]).await;
        for partition in 0..PARTITIONS {
            assert_eq!(client.produce("t", partition, &batch("x")).await.error_code, 0);
        }
        brokers.push((broker, folder, part));
    }
    for (broker, folder, part) in brokers {
        let open = open_below(folder.path());
        // Half are for segments; a lock and the metadata log are beside them, and connections take from the other half.
        let segments = (part / 2).min(PARTITIONS as u64) as usize;
        assert!((segments..segments + 8).contains(&open), "{open} of {part}");
        broker.stop().await.unwrap();
    }
}
