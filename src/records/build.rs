//! Builds batches: the broker's own records, and batches that tests send.

use bytes::{BufMut, Bytes, BytesMut};

use super::{BatchHeader, CheckedBatch, Codec, TimestampType, batch, compress, layout};
use crate::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use crate::wire::{put_varint, put_varlong, varint_size, varlong_size};

/// A record to be written.
#[derive(Debug, Clone, Default)]
pub struct NewRecord<'a> {
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value, or null: a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970; if none, the timestamp of the batch is used.
    pub timestamp_ms: Option<i64>,
    /// Names and values.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

impl<'a> NewRecord<'a> {
    /// A record with only a value.
    pub fn value(value: &'a [u8]) -> Self {
        NewRecord { value: Some(value), ..NewRecord::default() }
    }

    /// A record with a key and a value, or null.
    pub fn keyed(key: &'a [u8], value: Option<&'a [u8]>) -> Self {
        NewRecord { key: Some(key), value, ..NewRecord::default() }
    }
}

/// Collects records into one batch.
#[derive(Debug)]
pub struct BatchBuilder<'a> {
    records: Vec<NewRecord<'a>>,
    codec: Codec,
    producer: (i64, i16, i32),
    attributes: i16,
}

impl<'a> BatchBuilder<'a> {
    /// An empty, uncompressed batch without a producer.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        BatchBuilder { records: Vec::new(), codec: Codec::None, producer: (-1, -1, -1), attributes: 0 }
    }

    /// Adds a record.
    pub fn record(mut self, record: NewRecord<'a>) -> Self {
        self.records.push(record);
        self
    }

    /// Compresses the records.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Sets the fields of an idempotent producer: id, epoch, sequence of the first record.
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// Makes the batch part of its producer's transaction.
    pub fn transactional(self) -> Self {
        let bits = self.attributes | batch::TRANSACTIONAL_BIT;
        self.attributes(bits)
    }

    /// Makes it a batch of control records, which consumers do not see.
    pub fn control(self) -> Self {
        let bits = self.attributes | batch::CONTROL_BIT;
        self.attributes(bits)
    }

    /// A batch of the broker's own records, which does not need a check.
    pub fn build_own(self, now_ms: i64) -> CheckedBatch {
        CheckedBatch::own(self.build(now_ms))
    }

    /// Sets bits of the attributes other than the codec's.
    pub fn attributes(mut self, bits: i16) -> Self {
        self.attributes = bits;
        self
    }

    /// Builds the batch with base offset 0; `now_ms` is the timestamp of records without one.
    pub fn build(self, now_ms: i64) -> Bytes {
        let first = self.records.first().and_then(|r| r.timestamp_ms).unwrap_or(now_ms);
        let largest = self.records.iter().map(|r| r.timestamp_ms.unwrap_or(now_ms)).max().unwrap_or(now_ms);
        let mut body = BytesMut::new();
        for (delta, record) in self.records.iter().enumerate() {
            put_record(&mut body, record, delta as i32, record.timestamp_ms.unwrap_or(now_ms) - first);
        }
        let body = compress(self.codec, &body).expect("compressing into memory does not fail");
        let count = self.records.len() as i32;
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let mut header = BatchHeader {
            base_offset: Offset(0),
            batch_length: (layout::SIZE - layout::PARTITION_LEADER_EPOCH + body.len()) as i32,
            leader_epoch: LeaderEpoch(-1),
            magic: 2,
            crc: 0,
            attributes: self.attributes | self.codec as i16,
            last_offset_delta: count - 1,
            base_timestamp: first,
            max_timestamp: largest,
            producer_id: ProducerId(producer_id),
            producer_epoch: ProducerEpoch(producer_epoch),
            base_sequence,
            records_count: count,
        };
        debug_assert_eq!(header.timestamp_type() == TimestampType::LogAppendTime, self.attributes & 8 != 0);
        header.crc = header.compute_crc(&body);
        let mut batch = BytesMut::with_capacity(header.size());
        batch.put_slice(&header.to_bytes());
        batch.put_slice(&body);
        batch.freeze()
    }
}

fn nullable_size(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varint_size(bytes.len() as i32) + bytes.len())
}

fn put_nullable(out: &mut BytesMut, field: Option<&[u8]>) {
    put_varint(out, field.map_or(-1, |bytes| bytes.len() as i32));
    out.put_slice(field.unwrap_or_default());
}

fn put_record(out: &mut BytesMut, record: &NewRecord<'_>, offset_delta: i32, timestamp_delta: i64) {
    let headers: usize = record.headers.iter().map(|(key, value)| nullable_size(Some(key.as_bytes())) + nullable_size(*value)).sum();
    let fixed = 1 + varlong_size(timestamp_delta) + varint_size(offset_delta) + varint_size(record.headers.len() as i32);
    put_varint(out, (fixed + nullable_size(record.key) + nullable_size(record.value) + headers) as i32);
    out.put_i8(0);
    put_varlong(out, timestamp_delta);
    put_varint(out, offset_delta);
    put_nullable(out, record.key);
    put_nullable(out, record.value);
    put_varint(out, record.headers.len() as i32);
    for (key, value) in &record.headers {
        put_nullable(out, Some(key.as_bytes()));
        put_nullable(out, *value);
    }
}
