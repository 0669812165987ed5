//! What a transactional producer sends, and what a reader of committed records makes of what it gets.

use std::collections::BTreeSet;

use bytes::Bytes;
use dlog::coordinator::Identity;
use dlog::protocol::generated::add_offsets_to_txn::AddOffsetsToTxnRequest;
use dlog::protocol::generated::add_partitions_to_txn::{AddPartitionsToTxnRequest, AddPartitionsToTxnTopic};
use dlog::protocol::generated::end_txn::EndTxnRequest;
use dlog::protocol::generated::fetch::{FetchRequest, FetchResponse};
use dlog::protocol::generated::init_producer_id::InitProducerIdRequest;
use dlog::protocol::generated::produce::ProduceRequest;
use dlog::protocol::generated::txn_offset_commit::{TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use dlog::records::{BatchBuilder, Marker, NewRecord, TransactionResult, batches};

use super::{fetch_request, produce_request};

/// How a producer's transactions work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// It adds partitions itself, and its epoch stays.
    Adding,
    /// The broker adds them, and its epoch grows with each transaction (KIP-890).
    Bumping,
}

impl Style {
    /// The versions of Produce, EndTxn and TxnOffsetCommit.
    pub fn versions(self) -> (i16, i16, i16) {
        match self {
            Style::Adding => (11, 4, 4),
            // Version 13 names topics by id.
            Style::Bumping => (12, 5, 5),
        }
    }
}

pub fn init_request(id: &str, timeout_ms: i32, expected: Option<Identity>) -> InitProducerIdRequest {
    let (producer_id, producer_epoch) = expected.map_or((-1, -1), |e| (e.id.0, e.epoch.0));
    let transactional_id = Some(id.to_string());
    InitProducerIdRequest { transactional_id, transaction_timeout_ms: timeout_ms, producer_id, producer_epoch, ..Default::default() }
}

pub fn add_partitions_request(id: &str, of: Identity, topic: &str, partitions: &[i32]) -> AddPartitionsToTxnRequest {
    AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: id.into(),
        v3_and_below_producer_id: of.id.0,
        v3_and_below_producer_epoch: of.epoch.0,
        v3_and_below_topics: vec![AddPartitionsToTxnTopic { name: topic.into(), partitions: partitions.to_vec() }],
        ..Default::default()
    }
}

pub fn add_offsets_request(id: &str, of: Identity, group: &str) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest { transactional_id: id.into(), producer_id: of.id.0, producer_epoch: of.epoch.0, group_id: group.into() }
}

pub fn transactional_batch(of: Identity, sequence: i32, values: &[u64], now_ms: i64) -> Bytes {
    let values: Vec<_> = values.iter().map(|value| value.to_be_bytes()).collect();
    let builder = values.iter().fold(BatchBuilder::new(), |builder, value| builder.record(NewRecord::keyed(value, Some(value))));
    builder.producer(of.id.0, of.epoch.0, sequence).transactional().build(now_ms)
}

pub fn transactional_produce(id: &str, topic: &str, partition: i32, batch: &Bytes) -> ProduceRequest {
    ProduceRequest { transactional_id: Some(id.to_string()), ..produce_request(topic, partition, batch, -1) }
}

pub fn end_request(id: &str, of: Identity, result: TransactionResult) -> EndTxnRequest {
    let committed = result == TransactionResult::Commit;
    EndTxnRequest { transactional_id: id.into(), producer_id: of.id.0, producer_epoch: of.epoch.0, committed }
}

pub fn offsets_request(id: &str, of: Identity, group: &str, topic: &str, offsets: &[(i32, i64)]) -> TxnOffsetCommitRequest {
    let partition = |(partition_index, committed_offset): &(i32, i64)| TxnOffsetCommitRequestPartition {
        partition_index: *partition_index,
        committed_offset: *committed_offset,
        ..Default::default()
    };
    let topic =
        TxnOffsetCommitRequestTopic { name: topic.into(), partitions: offsets.iter().map(partition).collect(), ..Default::default() };
    TxnOffsetCommitRequest {
        transactional_id: id.into(),
        group_id: group.into(),
        producer_id: of.id.0,
        producer_epoch: of.epoch.0,
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    }
}

pub fn committed_fetch(topic: &str, partition: i32, offset: i64, max_wait_ms: i32) -> FetchRequest {
    FetchRequest { isolation_level: 1, ..fetch_request(topic, &[(partition, offset)], 1, max_wait_ms) }
}

/// What of an answer a reader gets, from `offset` on, and where it goes on. As Java's consumer does, it leaves out control records and, with a
/// list of aborted transactions, what that says.
pub fn visible(response: &FetchResponse, offset: i64) -> (Vec<(i64, u64)>, i64) {
    let data = &response.responses[0].partitions[0];
    let bytes = data.records.as_ref().and_then(|r| r.bytes()).cloned().unwrap_or_default();
    visible_of(&bytes, data.aborted_transactions.iter().flatten().map(|a| (a.first_offset, a.producer_id)).collect(), offset)
}

/// The same of bytes, and first offset and producer of aborted transactions.
pub fn visible_of(bytes: &[u8], mut aborted: Vec<(i64, i64)>, offset: i64) -> (Vec<(i64, u64)>, i64) {
    aborted.sort();
    let mut aborted = aborted.into_iter().peekable();
    let mut aborting = BTreeSet::new();
    let (mut found, mut next) = (Vec::new(), offset);
    for batch in batches(bytes) {
        let Ok((header, batch)) = batch else { break };
        header.check_crc(batch).expect("sound batches");
        while let Some((_, producer)) = aborted.next_if(|(first, _)| *first <= header.last_offset().0) {
            aborting.insert(producer);
        }
        next = next.max(header.next_offset().0);
        if header.is_control() {
            let marker = Marker::read(&header, batch).expect("sound markers");
            if marker.is_some_and(|marker| marker.result == TransactionResult::Abort) {
                aborting.remove(&header.producer_id.0);
            }
            continue;
        }
        if header.is_transactional() && aborting.contains(&header.producer_id.0) {
            continue;
        }
        for record in header.open(batch, 1 << 20).expect("it opens").records() {
            let record = record.expect("sound records");
            let at = header.base_offset.0 + i64::from(record.offset_delta);
            let value = record.value.and_then(|value| value.try_into().ok()).map(u64::from_be_bytes);
            found.extend(value.filter(|_| at >= offset).map(|value| (at, value)));
        }
    }
    (found, next)
}
