//! Load that costs its sender little: prepared batches, pipelined requests, members of groups.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dlog::coordinator::Identity;
use dlog::env::{Clock, SystemClock};
use dlog::protocol::encode_request;
use dlog::protocol::generated::create_topics::CreateTopicsRequest;
use dlog::protocol::generated::find_coordinator::FindCoordinatorRequest;
use dlog::protocol::generated::heartbeat::HeartbeatRequest;
use dlog::protocol::generated::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use dlog::protocol::generated::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use dlog::protocol::generated::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use dlog::records::{BatchBuilder, BatchHeader, Codec, NewRecord, TransactionResult};
use dlog::wire::Records;
use tokio::sync::Semaphore;

use super::transactions::{end_request, init_request};
use super::{Client, create_topic_request, produce_request};

/// Requests that a producer has in flight, as the Java client's default.
const IN_FLIGHT: usize = 5;
/// Bytes of a record's value.
const VALUE_BYTES: usize = 1024;

/// A batch of records of 1 KB. Half of each value repeats and half is noise, so that a codec has something to do.
pub fn batch(records: usize, codec: Codec) -> Bytes {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut value = || -> Vec<u8> {
        let mut bytes = vec![b'x'; VALUE_BYTES];
        for word in bytes[VALUE_BYTES / 2..].chunks_mut(8) {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            word.copy_from_slice(&noise.to_le_bytes());
        }
        bytes
    };
    let values: Vec<Vec<u8>> = (0..records).map(|_| value()).collect();
    let builder = values.iter().fold(BatchBuilder::new().codec(codec), |builder, value| builder.record(NewRecord::value(value)));
    // Older ones would be deleted by retention while they are read.
    builder.build(SystemClock.wall_ms())
}

/// Sends a batch again and again with some requests in flight; returns the bytes of batches.
pub async fn produce(client: &mut Client, topic: &str, partition: i32, batch: &Bytes, total: usize) -> usize {
    let count = (total / batch.len()).max(1);
    let frame = encode_request(&produce_request(topic, partition, batch, -1), 9, 1, "load");
    for at in 0..count + IN_FLIGHT {
        if at < count {
            client.send_bytes(frame.clone()).await;
        }
        if at >= IN_FLIGHT {
            let (_, response) = client.receive::<ProduceRequest>(9).await;
            assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
        }
    }
    count * batch.len()
}

/// Creates a topic with many partitions and writes each once.
pub async fn partitions(address: SocketAddr, name: &str, count: i32) -> Duration {
    let batch = batch(1, Codec::None);
    let mut client = Client::connect_to(address).await;
    let begin = Instant::now();
    client.call(&CreateTopicsRequest { timeout_ms: 60_000, ..create_topic_request(name, count, &[]) }, 7).await;
    let request = |first: i32| {
        let data = |index| PartitionProduceData { index, records: Some(Records::Bytes(batch.clone())) };
        let partition_data = (first..(first + 100).min(count)).map(data).collect();
        let topic = TopicProduceData { name: name.into(), partition_data, ..Default::default() };
        ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() }
    };
    for first in (0..count).step_by(100) {
        // Another broker than ours answers CreateTopics before it serves all partitions.
        while client.call(&request(first), 9).await.responses[0].partition_responses.iter().any(|p| p.error_code != 0) {}
    }
    begin.elapsed()
}

/// Members that join together; the time until all are stable in one generation.
pub async fn group(address: SocketAddr, group: &str, count: usize) -> Duration {
    let mut client = Client::connect_to(address).await;
    let find = FindCoordinatorRequest { coordinator_keys: vec![group.into()], ..Default::default() };
    while client.call(&find, 4).await.coordinators[0].error_code != 0 {}
    let begin = Instant::now();
    let stable = Arc::new(Semaphore::new(0));
    let members: Vec<_> = (0..count).map(|_| tokio::spawn(member(address, group.to_string(), count, stable.clone()))).collect();
    for member in members {
        member.await.expect("a member is stable");
    }
    begin.elapsed()
}

/// Joins like a consumer, and ends when all members are stable together: then the leader has given a permit for each.
async fn member(address: SocketAddr, group: String, count: usize, stable: Arc<Semaphore>) {
    let mut client = Client::connect_to(address).await;
    let mut id = String::new();
    loop {
        let joined = join(&mut client, &group, &id).await;
        id = joined.member_id.clone();
        if joined.error_code != 0 {
            continue;
        }
        let assignments = joined
            .members
            .iter()
            .map(|m| SyncGroupRequestAssignment { member_id: m.member_id.clone(), assignment: Bytes::from_static(b"part") });
        let sync = SyncGroupRequest {
            group_id: group.clone(),
            generation_id: joined.generation_id,
            member_id: id.clone(),
            assignments: assignments.chain([SyncGroupRequestAssignment { member_id: "count".into(), assignment: Bytes::new() }]).collect(),
            ..Default::default()
        };
        if client.call(&sync, 3).await.error_code != 0 {
            continue;
        }
        if joined.leader == id && joined.members.len() == count {
            stable.add_permits(count);
        }
        loop {
            let beat = HeartbeatRequest {
                group_id: group.clone(),
                generation_id: joined.generation_id,
                member_id: id.clone(),
                ..Default::default()
            };
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

async fn join(client: &mut Client, group: &str, id: &str) -> JoinGroupResponse {
    let request = JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: id.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::new() }],
        ..Default::default()
    };
    client.call(&request, 5).await
}

/// A producer's batches in transactions that are committed at intervals, as [`produce`] sends them; none sends them outside any. The epoch grows
/// with each transaction (KIP-890). Returns the bytes of batches.
pub async fn produce_in_transactions(client: &mut Client, topic: &str, batch: &Bytes, total: usize, every: Option<Duration>) -> usize {
    let id = format!("load-{topic}");
    let mut me = begin(client, &id, every.is_some()).await;
    let header = BatchHeader::read(batch).expect("a batch");
    let (mut sent, mut in_flight, mut sequence, mut committed_at) = (0, 0, 0, Instant::now());
    while sent < total || in_flight > 0 {
        let is_due = every.is_some_and(|every| committed_at.elapsed() >= every) || sent >= total;
        if in_flight == IN_FLIGHT || (is_due && in_flight > 0) {
            let (_, response) = client.receive::<ProduceRequest>(12).await;
            assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
            in_flight -= 1;
            continue;
        }
        if is_due {
            me = commit(client, &id, me).await;
            (sequence, committed_at) = (0, Instant::now());
        }
        if sent < total {
            let first = sequence == 0 && every.is_some();
            let data = numbered(&header, batch, me, sequence, every.is_some());
            let mut request = produce_request(topic, 0, &data, -1);
            request.transactional_id = every.map(|_| id.clone());
            if first {
                // Until the transaction before has ended everywhere Kafka refuses the next one.
                while client.call(&request, 12).await.responses[0].partition_responses[0].error_code != 0 {}
            } else {
                client.send(&request, 12).await;
                in_flight += 1;
            }
            sequence += header.records_count;
            sent += batch.len();
        }
    }
    if every.is_some() && sequence > 0 {
        commit(client, &id, me).await;
    }
    sent
}

/// Transactions of one batch, one after the other, for a time; returns how many a second.
pub async fn transactions(client: &mut Client, topic: &str, batch: &Bytes, time: Duration) -> f64 {
    let id = format!("load-{topic}");
    let mut me = begin(client, &id, true).await;
    let header = BatchHeader::read(batch).expect("a batch");
    let (mut count, begin) = (0, Instant::now());
    while begin.elapsed() < time {
        let mut request = produce_request(topic, 0, &numbered(&header, batch, me, 0, true), -1);
        request.transactional_id = Some(id.clone());
        while client.call(&request, 12).await.responses[0].partition_responses[0].error_code != 0 {}
        me = commit(client, &id, me).await;
        count += 1;
    }
    f64::from(count) / begin.elapsed().as_secs_f64()
}

/// The batch of a producer. Sequence and epoch lie under the checksum.
fn numbered(header: &BatchHeader, batch: &Bytes, me: Identity, base_sequence: i32, is_transactional: bool) -> Bytes {
    let body = &batch[header.to_bytes().len()..];
    let attributes = if is_transactional { header.attributes | 1 << 4 } else { header.attributes };
    let mut header = BatchHeader { producer_id: me.id, producer_epoch: me.epoch, base_sequence, attributes, ..*header };
    header.crc = header.compute_crc(body);
    [&header.to_bytes()[..], body].concat().into()
}

async fn begin(client: &mut Client, id: &str, is_transactional: bool) -> Identity {
    let mut request = init_request(id, 60_000, None);
    if is_transactional {
        let find = FindCoordinatorRequest { key_type: 1, coordinator_keys: vec![id.into()], ..Default::default() };
        while client.call(&find, 4).await.coordinators[0].error_code != 0 {}
    } else {
        request.transactional_id = None;
    }
    loop {
        let answer = client.call(&request, 4).await;
        if answer.error_code == 0 {
            return Identity::new(answer.producer_id, answer.producer_epoch);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn commit(client: &mut Client, id: &str, me: Identity) -> Identity {
    let answer = client.call(&end_request(id, me, TransactionResult::Commit), 5).await;
    assert_eq!(answer.error_code, 0);
    Identity::new(answer.producer_id, answer.producer_epoch)
}
