//! A stop is clean and prompt whatever clients do, and a broken invariant ends service at once.

mod common;

use std::future::poll_fn;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use common::meeting::MeetingDisk;
use common::{Client, PATIENCE, address, config, fetch_request, produce_request, start};
use dlog::broker::{Broker, Config};
use dlog::env::{Clock, Disk, Env, MemoryDisk, SystemClock};
use dlog::protocol::generated::api_versions::ApiVersionsRequest;
use dlog::protocol::generated::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use dlog::protocol::generated::describe_groups::DescribeGroupsRequest;
use dlog::protocol::generated::find_coordinator::FindCoordinatorRequest;
use dlog::protocol::generated::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use dlog::protocol::generated::produce::ProduceRequest;
use dlog::protocol::{ErrorCode, Request, encode_request};
use dlog::records::{BatchBuilder, NewRecord};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A stop may need 2 s for the last answers of a connection. Without a limit for a client it takes 10 s at least, and is not clean.
const PROMPT: Duration = Duration::from_secs(6);

fn batch(bytes: usize) -> Bytes {
    BatchBuilder::new().record(NewRecord::value(&vec![b'x'; bytes])).build(SystemClock.wall_ms())
}

/// A request as it is sent.
fn framed<R: Request>(request: &R, version: i16, correlation_id: i32) -> Bytes {
    let frame = encode_request(request, version, correlation_id, "test");
    let mut bytes = BytesMut::with_capacity(frame.len() + 4);
    bytes.put_i32(frame.len() as i32);
    bytes.put(frame);
    bytes.freeze()
}

/// Stops a broker whose clients are still connected.
async fn stops(broker: Broker, data: &Path) {
    let begin = Instant::now();
    broker.stop().await.expect("a clean stop");
    assert!(begin.elapsed() < PROMPT, "the stop took {:?}", begin.elapsed());
    assert!(data.join(".kafka_cleanshutdown").exists(), "the next start does not have to recover");
}

/// Sends a request and a part of a frame of `size` bytes, of which `sent` are sent; when this returns, the broker reads the frame.
async fn stall(client: &mut Client, size: usize, sent: usize) {
    let mut bytes = BytesMut::from(&framed(&ApiVersionsRequest::default(), 0, 1)[..]);
    bytes.put_i32(size as i32);
    bytes.put_bytes(0, sent);
    client.send_raw(&bytes).await;
    client.frame().await.expect("an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_the_rest_of_a_frame() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    stall(&mut client, 1000, 10).await;
    stops(broker, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_the_budget_of_frames() {
    // The first client has most of the budget, and the second one waits for it.
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[("socket.request.max.bytes", "1000000"), ("queued.max.request.bytes", "1000000")]).await;
    let (mut first, mut second) = (Client::connect(&broker).await, Client::connect(&broker).await);
    stall(&mut first, 990_000, 900_000).await;
    stall(&mut second, 600_000, 500_000).await;
    stops(broker, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_client_that_does_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    for _ in 0..8 {
        assert_eq!(client.produce("t", 0, &batch(900_000)).await.error_code, 0);
    }
    // More requests than a connection may have in its queue, each with more bytes than its socket holds.
    for _ in 0..100 {
        client.send(&fetch_request("t", &[(0, 0)], 1, 500), 12).await;
    }
    // The queue has 64 places, and one more request waits for a place.
    while fetches(&broker).await < 65 {}
    stops(broker, folder.path()).await;
}

/// The number of Fetch requests that the broker has executed.
async fn fetches(broker: &Broker) -> usize {
    let mut stream = TcpStream::connect(broker.http()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let count = text.lines().find_map(|line| line.strip_prefix("dlog_request_seconds_count{request=\"Fetch\"} "));
    count.map_or(0, |count| count.parse().unwrap())
}

const LONG_REBALANCE: &[(&str, &str)] = &[("group.initial.rebalance.delay.ms", "50000")];

/// A member that has joined and waits for the others.
async fn waiting_member(broker: &Broker) -> Client {
    let (mut member, mut other) = (Client::connect(broker).await, Client::connect(broker).await);
    let find = FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
    assert_eq!(member.call(&find, 4).await.coordinators[0].error_code, 0);
    let join = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), ..Default::default() }],
        ..Default::default()
    };
    member.send(&join, 3).await;
    let describe = DescribeGroupsRequest { groups: vec!["g".into()], ..Default::default() };
    let waits = async { while other.call(&describe, 5).await.groups[0].members.is_empty() {} };
    timeout(PATIENCE, waits).await.expect("the member is known in time");
    member
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_waits_for_its_group_is_answered_at_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), LONG_REBALANCE).await;
    let mut member = waiting_member(&broker).await;
    stops(broker, folder.path()).await;
    // Its client looks for the coordinator again, and does not have to wait for its own time-out.
    assert_eq!(member.receive::<JoinGroupRequest>(3).await.1.error_code, ErrorCode::NotCoordinator.code());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_clients_of_http() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut clients = Vec::new();
    // One waits for what does not happen, and one sends a part of a request.
    for request in ["GET /v1/wait?topic=never&timeout=9m HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /metrics HTTP/1.1\r\nHost: loc"] {
        let mut stream = TcpStream::connect(broker.http()).await.unwrap();
        let before = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(format!("{before}{request}").as_bytes()).await.unwrap();
        // The first answer says that the broker reads the second request.
        let mut bytes = [0; 512];
        assert!(stream.read(&mut bytes).await.unwrap() > 0);
        clients.push(stream);
    }
    stops(broker, folder.path()).await;
    let mut text = String::new();
    clients[0].read_to_string(&mut text).await.unwrap();
    assert!(text.contains("503"), "{text}");
}

/// A client that never stops sending, whatever is answered.
struct Pipeline {
    /// Requests that it has begun to send.
    sent: Arc<AtomicUsize>,
    sending: JoinHandle<()>,
    /// Answers without an error.
    stored: Arc<AtomicUsize>,
    reading: JoinHandle<()>,
}

impl Pipeline {
    async fn start(broker: &Broker, partition: i32) -> Pipeline {
        const AT_ONCE: usize = 50;
        let (mut read, mut write) = TcpStream::connect(address(broker)).await.unwrap().into_split();
        let sent = Arc::<AtomicUsize>::default();
        let chunk = framed(&produce_request("t", partition, &batch(10), -1), 9, 1).repeat(AT_ONCE);
        let counted = sent.clone();
        let sending = tokio::spawn(async move {
            loop {
                counted.fetch_add(AT_ONCE, Ordering::SeqCst);
                if write.write_all(&chunk).await.is_err() {
                    // The connection has ended.
                    return;
                }
            }
        });
        let stored = Arc::<AtomicUsize>::default();
        let counted = stored.clone();
        let reading = tokio::spawn(async move {
            let mut next = async || {
                let length = read.read_i32().await.ok()?;
                let mut frame = vec![0; length as usize];
                read.read_exact(&mut frame).await.ok().map(|_| frame)
            };
            while let Some(frame) = next().await {
                counted.fetch_add(usize::from(is_stored(&frame)), Ordering::SeqCst);
            }
        });
        Pipeline { sent, sending, stored, reading }
    }

    /// Waits until some requests were acknowledged.
    async fn goes_on(&self) {
        let goes_on = async {
            while self.stored.load(Ordering::SeqCst) < 200 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, goes_on).await.expect("it is served");
    }

    /// The number of requests that were acknowledged, after the broker has ended the connection.
    async fn acknowledged(self) -> usize {
        timeout(PATIENCE, self.sending).await.expect("the broker ends the connection").unwrap();
        timeout(PATIENCE, self.reading).await.expect("the connection ends").unwrap();
        self.stored.load(Ordering::SeqCst)
    }
}

/// Whether a response to a Produce request has no error.
fn is_stored(frame: &[u8]) -> bool {
    use dlog::protocol::generated::headers::ResponseHeader;
    use dlog::protocol::{Message, response_header_version};
    let frame = dlog::wire::Frame::new(Bytes::copy_from_slice(frame));
    let (rest, _) = ResponseHeader::decode(frame.cursor(), response_header_version(ProduceRequest::KEY, 9)).expect("a header");
    let (_, response) = <ProduceRequest as Request>::Response::decode(rest, 9).expect("a response");
    response.responses[0].partition_responses[0].error_code == 0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_producers_is_clean_and_keeps_what_was_acknowledged() {
    for profile in ["default", "fsync"] {
        let folder = tempfile::tempdir().unwrap();
        let broker = start(folder.path(), &[("durability.profile", profile)]).await;
        Client::connect(&broker).await.create_topic("t", 3, &[]).await;
        let mut producers = Vec::new();
        for partition in 0..3 {
            producers.push(Pipeline::start(&broker, partition).await);
        }
        for producer in &producers {
            producer.goes_on().await;
        }
        stops(broker, folder.path()).await;
        let again = start(folder.path(), &[]).await;
        for (partition, producer) in producers.into_iter().enumerate() {
            let acknowledged = producer.acknowledged().await;
            let mut client = Client::connect(&again).await;
            let end = client.fetch("t", partition as i32, 0).await.responses[0].partitions[0].high_watermark;
            assert!(end >= acknowledged as i64, "{profile}: {acknowledged} acknowledged, the log ends at {end}");
        }
        again.stop().await.unwrap();
    }
}

/// The machine's clock, which once waits until it is told to go on.
struct Waiting {
    is_armed: AtomicBool,
    waits: Mutex<Sender<()>>,
    goes_on: Mutex<Receiver<()>>,
}

impl Clock for Waiting {
    fn wall_ms(&self) -> i64 {
        if self.is_armed.swap(false, Ordering::SeqCst) {
            self.waits.lock().unwrap().send(()).unwrap();
            self.goes_on.lock().unwrap().recv().unwrap();
        }
        SystemClock.wall_ms()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_is_seen_before_the_next_request_also_if_it_has_arrived() {
    // A connection looked for the stop only when it had to wait for bytes.
    const REQUESTS: usize = 1000;
    let (waits, is_waiting) = channel();
    let (go_on, goes_on) = channel();
    let clock = Arc::new(Waiting { is_armed: AtomicBool::new(false), waits: Mutex::new(waits), goes_on: Mutex::new(goes_on) });
    let env = Env { clock: clock.clone(), disk: Arc::new(MemoryDisk::new(Arc::new(SystemClock))), ..Env::real() };
    let broker = Broker::start(config(Path::new("/data"), &[]), env).await.unwrap();
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    clock.is_armed.store(true, Ordering::SeqCst);
    client.send_raw(&framed(&produce_request("t", 0, &batch(10), -1), 9, 1).repeat(REQUESTS)).await;
    // The first request is being executed, and the others have arrived.
    tokio::task::block_in_place(|| is_waiting.recv().unwrap());
    let mut stopping = Box::pin(broker.stop());
    assert!(poll_fn(|context| Poll::Ready(stopping.as_mut().poll(context).is_pending())).await);
    go_on.send(()).unwrap();
    stopping.await.unwrap();
    let mut answers = 0;
    while client.frame().await.is_some() {
        answers += 1;
    }
    assert!(answers <= 1, "{answers} requests were executed");
}

/// The machine's clock, which panics once when it is armed: as an invariant that does not hold in one request.
#[derive(Default)]
struct OnceBroken(AtomicBool);

impl Clock for OnceBroken {
    fn wall_ms(&self) -> i64 {
        assert!(!self.0.swap(false, Ordering::SeqCst), "the clock is broken");
        SystemClock.wall_ms()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_after_an_invariant_has_failed() {
    // The failing request is of one producer. The others always have the next request in the buffer, and were served for as long as they sent.
    let clock = Arc::<OnceBroken>::default();
    let env = Env { clock: clock.clone(), disk: Arc::new(MemoryDisk::new(Arc::new(SystemClock))), ..Env::real() };
    let broker = Broker::start(config(Path::new("/data"), &[]), env).await.unwrap();
    Client::connect(&broker).await.create_topic("t", 3, &[]).await;
    let mut producers = Vec::new();
    for partition in 0..3 {
        producers.push(Pipeline::start(&broker, partition).await);
    }
    for producer in &producers {
        producer.goes_on().await;
    }
    clock.0.store(true, Ordering::SeqCst);
    let reason = timeout(PATIENCE, broker.failed()).await.expect("it fails in time");
    assert!(reason.contains("the clock is broken"), "{reason}");
    let sent: Vec<usize> = producers.iter().map(|producer| producer.sent.load(Ordering::SeqCst)).collect();
    for (producer, sent) in producers.into_iter().zip(sent) {
        let acknowledged = producer.acknowledged().await;
        assert!(acknowledged <= sent, "{acknowledged} acknowledged, and {sent} were sent before the failure");
    }
    let begin = Instant::now();
    let error = broker.stop().await.expect_err("the logs are left as they are");
    assert!(error.to_string().contains("the clock is broken"), "{error}");
    assert!(begin.elapsed() < PROMPT, "the stop took {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_not_answered_after_an_invariant_has_failed() {
    let clock = Arc::<OnceBroken>::default();
    let env = Env { clock: clock.clone(), disk: Arc::new(MemoryDisk::new(Arc::new(SystemClock))), ..Env::real() };
    let broker = Broker::start(config(Path::new("/data"), LONG_REBALANCE), env).await.unwrap();
    let mut member = waiting_member(&broker).await;
    let mut producer = Client::connect(&broker).await;
    producer.create_topic("t", 1, &[]).await;
    clock.0.store(true, Ordering::SeqCst);
    producer.send(&produce_request("t", 0, &batch(10), -1), 9).await;
    assert!(producer.frame().await.is_none() && member.frame().await.is_none(), "an answer could be wrong");
    broker.stop().await.expect_err("the logs are left as they are");
}

#[tokio::test(flavor = "multi_thread")]
async fn tails_are_whole_while_topics_are_deleted() {
    // At the end of `dlog run` clients may still delete topics. In place of the records of such a topic there was an error.
    const MEETING: Duration = Duration::from_millis(20);
    /// The first operations read and write the tails of the topics; later ones only write those of topics that were deleted before.
    const OPERATIONS: u64 = 12;
    let disk = MeetingDisk::new(MemoryDisk::new(Arc::new(SystemClock)));
    let config = Config { keep_deleted: true, ..config(Path::new("/data"), &[]) };
    let broker = Broker::start(config, Env { disk: Arc::new(disk.clone()), ..Env::real() }).await.unwrap();
    let mut client = Client::connect(&broker).await;
    let batch = BatchBuilder::new().record(NewRecord::value(b"text")).build(SystemClock.wall_ms());
    // It is read before the topic that is deleted meanwhile.
    client.create_topic("a", 1, &[]).await;
    client.produce("a", 0, &batch).await;
    for operation in 0..OPERATIONS {
        let topic = format!("t{operation}");
        client.create_topic(&topic, 1, &[]).await;
        client.produce(&topic, 0, &batch).await;
        let (begin, begins) = tokio::sync::oneshot::channel::<()>();
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let mut deleting = Client::connect(&broker).await;
        let name = topic.clone();
        let deletion = tokio::spawn(async move {
            // An error says that the tails are kept, and no operation of this number came.
            let _ = begins.await;
            let topics = vec![DeleteTopicState { name: Some(name), ..Default::default() }];
            let deleted = deleting.call(&DeleteTopicsRequest { topics, timeout_ms: 5000, ..Default::default() }, 6).await;
            assert_eq!(deleted.responses[0].error_code, 0);
            let _ = done.send(());
        });
        disk.meet_at(operation, move || {
            let _ = begin.send(());
            // Where the deletion waits for the operation, that goes on.
            let _ = is_done.recv_timeout(MEETING);
        });
        let folder = format!("/kept/{operation}");
        tokio::task::block_in_place(|| broker.keep_tails(Path::new(&folder))).unwrap();
        let operations = disk.end();
        deletion.await.unwrap();
        let read = |kind: &str| disk.read(&Path::new(&folder).join(kind).join(format!("{topic}-0.ndjson"))).unwrap_or_default();
        let text = [read("topics"), read("deleted")].map(|bytes| String::from_utf8(bytes).unwrap());
        let is_whole = text.iter().any(|text| text.contains("\"text\"")) && !text.iter().any(|text| text.contains("\"error\""));
        assert!(is_whole, "operation {operation} of {operations:?}: {text:?}");
    }
    broker.stop().await.unwrap();
}
