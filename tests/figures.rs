//! The figures that we hold ourselves to; `make figures` prints them. Best of several, on whatever machine this is.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::process::{Process, command};
use common::{Client, produce_request};
use dlog::protocol::generated::create_topics::{CreatableTopic, CreateTopicsRequest};
use dlog::protocol::generated::find_coordinator::FindCoordinatorRequest;
use dlog::protocol::generated::heartbeat::HeartbeatRequest;
use dlog::protocol::generated::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use dlog::protocol::generated::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use dlog::protocol::generated::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use dlog::records::{BatchBuilder, NewRecord};
use dlog::wire::Records;
use tokio::sync::Semaphore;

const REPEATS: usize = 5;

fn best<T: PartialOrd + Copy>(values: impl IntoIterator<Item = T>) -> T {
    values.into_iter().reduce(|a, b| if b < a { b } else { a }).expect("at least one")
}

#[test]
#[ignore = "measures; run by make figures"]
fn ready_and_idle() {
    let mut idle = Vec::new();
    let ready = best((0..REPEATS).map(|_| {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(command(folder.path()));
        let ready = process.ready;
        std::thread::sleep(Duration::from_millis(300));
        idle.push(process.memory("VmRSS"));
        process.kill();
        ready
    }));
    let idle = best(idle);
    println!("ready on an empty directory: {:.1} ms (expected below 20)", ready.as_secs_f64() * 1e3);
    println!("idle memory: {:.1} MB (expected below 20)", idle as f64 / 1e6);
    assert!(ready < Duration::from_millis(20) && idle < 20_000_000);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run by make figures"]
async fn a_thousand_partitions_created_and_written() {
    let batch = BatchBuilder::new().record(NewRecord::value(&[1; 100])).build(1_700_000_000_000);
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(command(folder.path()));
        let mut client = Client::connect_to(process.address).await;
        let begin = Instant::now();
        let topic = CreatableTopic { name: "t".into(), num_partitions: 1000, replication_factor: 1, ..Default::default() };
        client.call(&CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() }, 7).await;
        let data = |index| PartitionProduceData { index, records: Some(Records::Bytes(batch.clone())) };
        for first in (0..1000).step_by(100) {
            let topic =
                TopicProduceData { name: "t".into(), partition_data: (first..first + 100).map(data).collect(), ..Default::default() };
            client.send(&ProduceRequest { acks: -1, topic_data: vec![topic], ..Default::default() }, 9).await;
        }
        for _ in 0..10 {
            let (_, response) = client.receive::<ProduceRequest>(9).await;
            assert!(response.responses[0].partition_responses.iter().all(|p| p.error_code == 0));
        }
        times.push(begin.elapsed());
        process.kill();
    }
    let time = best(times);
    println!("1,000 partitions created and each written once: {:.3} s (expected below 0.5)", time.as_secs_f64());
    assert!(time < Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run by make figures"]
async fn a_group_of_a_hundred_members() {
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(command(folder.path()));
        let mut client = Client::connect_to(process.address).await;
        client.call(&FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() }, 4).await;
        let address = process.address;
        let begin = Instant::now();
        let stable = Arc::new(Semaphore::new(0));
        let members: Vec<_> = (0..100).map(|_| tokio::spawn(member(address, stable.clone()))).collect();
        for member in members {
            member.await.expect("a member is stable");
        }
        times.push(begin.elapsed());
        process.kill();
    }
    let time = best(times);
    println!("a group of 100 members stable: {:.3} s (expected below 1)", time.as_secs_f64());
    assert!(time < Duration::from_secs(1));
}

/// Joins like a consumer, and ends when 100 members are stable together: then the leader has given 100 permits.
async fn member(address: std::net::SocketAddr, stable: Arc<Semaphore>) {
    let mut client = Client::connect_to(address).await;
    let mut id = String::new();
    loop {
        let joined = join(&mut client, &id).await;
        id = joined.member_id.clone();
        if joined.error_code != 0 {
            continue;
        }
        let assignments = joined
            .members
            .iter()
            .map(|m| SyncGroupRequestAssignment { member_id: m.member_id.clone(), assignment: Bytes::from_static(b"part") });
        let sync = SyncGroupRequest {
            group_id: "g".into(),
            generation_id: joined.generation_id,
            member_id: id.clone(),
            assignments: assignments.chain([SyncGroupRequestAssignment { member_id: "count".into(), assignment: Bytes::new() }]).collect(),
            ..Default::default()
        };
        if client.call(&sync, 3).await.error_code != 0 {
            continue;
        }
        if joined.leader == id && joined.members.len() == 100 {
            stable.add_permits(100);
        }
        loop {
            let beat =
                HeartbeatRequest { group_id: "g".into(), generation_id: joined.generation_id, member_id: id.clone(), ..Default::default() };
            if client.call(&beat, 3).await.error_code != 0 {
                break;
            }
            if stable.try_acquire().map(|p| p.forget()).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn join(client: &mut Client, id: &str) -> JoinGroupResponse {
    let request = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: id.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::new() }],
        ..Default::default()
    };
    client.call(&request, 5).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run by make figures"]
async fn cpu_for_a_gigabyte() {
    for (name, records, total, limit) in [("16 KB", 15, 1 << 29, 3.0), ("1 MB", 980, 1 << 30, 0.9)] {
        let value = [7_u8; 1024];
        let batch = (0..records).fold(BatchBuilder::new(), |b, _| b.record(NewRecord::value(&value))).build(1_700_000_000_000);
        let mut rates = Vec::new();
        for _ in 0..REPEATS {
            let folder = tempfile::tempdir().unwrap();
            let process = Process::start(command(folder.path()));
            let mut client = Client::connect_to(process.address).await;
            // Segments are reused by retention as little as the page cache is: the first gigabyte warms it.
            client.create_topic("t", 1, &[("segment.bytes", "67108864")]).await;
            produce(&mut client, &batch, 1 << 28).await;
            let before = process.cpu();
            let sent = produce(&mut client, &batch, total).await;
            rates.push((process.cpu() - before).as_secs_f64() / (sent as f64 / 1e9));
            process.kill();
        }
        let rate = best(rates.iter().copied());
        println!("produce, 1 KB records in {name} batches: {rate:.2} CPU s/GB (expected at most {limit}); all: {rates:.2?}");
        assert!(rate <= limit);
    }
}

/// Sends batches with five in flight.
async fn produce(client: &mut Client, batch: &Bytes, total: usize) -> usize {
    let count = total / batch.len();
    let request = produce_request("t", 0, batch, -1);
    for at in 0..count + 5 {
        if at < count {
            client.send(&request, 9).await;
        }
        if at >= 5 {
            let (_, response) = client.receive::<ProduceRequest>(9).await;
            assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
        }
    }
    count * batch.len()
}
