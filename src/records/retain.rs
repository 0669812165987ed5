//! Rewrites a stored batch with some of its records, for compaction.
//!
//! Offsets, timestamps, producer, epoch and codec of a batch stay; only records are removed. A batch without remaining records can be kept as an
//! empty one: only a header.

use std::borrow::Cow;

use bytes::BytesMut;

use super::{BatchHeader, Codec, Error, Record, compress, layout};
use crate::wire::{put_varint, put_varlong, varlong_in, varlong_size};

/// What to do with a batch without remaining records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenEmpty {
    /// It is removed.
    Drop,
    /// Its header is kept, so that readers and producers find its offsets and sequences.
    KeepHeader,
}

/// The remaining records for which a batch gets a delete horizon, if it has none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HorizonFor {
    /// Records with a null value.
    Tombstones,
    /// All: the batch is a marker without remaining records in its transaction.
    All,
}

/// How a batch is rewritten.
#[derive(Debug, Clone, Copy)]
pub struct Rewrite {
    /// The most bytes that the records may decompress to.
    pub decompressed_bytes_max: usize,
    /// The delete horizon that a batch gets if it has none yet, in milliseconds since 1970.
    pub horizon_ms: i64,
    /// The records for which it gets one.
    pub horizon_for: HorizonFor,
    /// What to do if no records remain.
    pub when_empty: WhenEmpty,
}

/// The result of a rewrite.
#[derive(Debug, Clone, PartialEq)]
pub enum Retained<'a> {
    /// No batch remains.
    Nothing,
    /// The remaining batch; borrowed if it is unchanged.
    Batch(BatchHeader, Cow<'a, [u8]>),
}

/// Keeps the records of a whole, valid batch for which `keep` returns true. If a record with a null value remains and the batch has no delete
/// horizon yet, it gets one (KIP-534): bit 6 of the attributes, and the base timestamp is the time from which the tombstone may be deleted.
pub fn retain<'a>(
    header: &BatchHeader,
    batch: &'a [u8],
    how: &Rewrite,
    mut keep: impl FnMut(&Record<'_>) -> bool,
) -> Result<Retained<'a>, Error> {
    let codec = header.codec()?;
    let opened = header.open(batch, how.decompressed_bytes_max)?;
    let mut kept = Vec::new();
    for record in opened.records() {
        let record = record?;
        if keep(&record) {
            kept.push(record);
        }
    }
    if header.is_legacy() {
        // Old formats are not written: a message is kept or removed, and messages compressed together are kept together. Tombstones are kept too,
        // because these formats have no field for a delete horizon.
        let is_whole = how.when_empty == WhenEmpty::KeepHeader || !kept.is_empty();
        return Ok(if is_whole { Retained::Batch(*header, Cow::Borrowed(batch)) } else { Retained::Nothing });
    }
    if kept.is_empty() {
        return Ok(match how.when_empty {
            WhenEmpty::Drop => Retained::Nothing,
            WhenEmpty::KeepHeader => empty(header),
        });
    }
    let waits = |record: &Record<'_>| how.horizon_for == HorizonFor::All || record.value.is_none();
    let horizon_ms = (header.delete_horizon_ms().is_none() && kept.iter().any(waits)).then_some(how.horizon_ms);
    if kept.len() == header.records_count.max(0) as usize && horizon_ms.is_none() {
        return Ok(Retained::Batch(*header, Cow::Borrowed(batch)));
    }
    let mut next = *header;
    if let Some(horizon_ms) = horizon_ms {
        next.set_delete_horizon(horizon_ms);
    }
    let timestamp = |record: &Record<'_>| header.base_timestamp.saturating_add(record.timestamp_delta);
    if header.timestamp_type() == super::TimestampType::CreateTime {
        next.max_timestamp = kept.iter().map(timestamp).max().unwrap_or(header.max_timestamp);
    }
    let mut records = BytesMut::with_capacity(opened.size());
    for record in &kept {
        match horizon_ms {
            None => {
                put_varint(&mut records, record.bytes.len() as i32);
                records.extend_from_slice(record.bytes);
            }
            Some(horizon_ms) => put_moved(&mut records, record, timestamp(record).saturating_sub(horizon_ms))?,
        }
    }
    next.records_count = kept.len() as i32;
    let body = if codec == Codec::None { records.to_vec() } else { compress(codec, &records)? };
    Ok(finish(next, &body))
}

/// The same record with another timestamp delta.
fn put_moved(out: &mut BytesMut, record: &Record<'_>, timestamp_delta: i64) -> Result<(), Error> {
    let malformed = |what: crate::wire::Error| Error::Record { index: 0, what: what.to_string() };
    let (attributes, rest) = record.bytes.split_at(1);
    let (_, rest) = varlong_in(rest).map_err(malformed)?;
    put_varint(out, (attributes.len() + varlong_size(timestamp_delta) + rest.len()) as i32);
    out.extend_from_slice(attributes);
    put_varlong(out, timestamp_delta);
    out.extend_from_slice(rest);
    Ok(())
}

fn empty(header: &BatchHeader) -> Retained<'static> {
    let mut next = *header;
    next.clear_codec();
    next.base_timestamp = if header.delete_horizon_ms().is_some() { header.base_timestamp } else { header.max_timestamp };
    next.records_count = 0;
    finish(next, &[])
}

fn finish(mut header: BatchHeader, body: &[u8]) -> Retained<'static> {
    header.batch_length = (layout::SIZE - layout::PARTITION_LEADER_EPOCH + body.len()) as i32;
    header.crc = header.compute_crc(body);
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend_from_slice(body);
    Retained::Batch(header, Cow::Owned(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{BatchBuilder, NewRecord};

    const HOW: Rewrite = Rewrite {
        decompressed_bytes_max: 1 << 20,
        horizon_ms: 9000,
        horizon_for: HorizonFor::Tombstones,
        when_empty: WhenEmpty::KeepHeader,
    };

    /// Keys a, b, c at 100, 110, 120; b is a tombstone.
    fn three(codec: Codec) -> (BatchHeader, Vec<u8>) {
        let record =
            |key: &'static [u8], value: Option<&'static [u8]>, at| NewRecord { timestamp_ms: Some(at), ..NewRecord::keyed(key, value) };
        let builder = BatchBuilder::new().codec(codec).producer(7, 1, 40);
        let builder = builder.record(record(b"a", Some(b"1"), 100)).record(record(b"b", None, 110)).record(record(b"c", Some(b"3"), 120));
        let bytes = builder.build(0).to_vec();
        (BatchHeader::read(&bytes).unwrap(), bytes)
    }

    /// Offset, timestamp and key of each record.
    fn records_of(bytes: &[u8]) -> Vec<(i64, i64, Vec<u8>)> {
        let header = BatchHeader::read(bytes).unwrap();
        header.check_crc(bytes).unwrap();
        assert_eq!(header.size(), bytes.len());
        let opened = header.open(bytes, 1 << 20).unwrap();
        let one = |record: Result<Record<'_>, Error>| {
            let record = record.unwrap();
            let offset = header.base_offset.plus(i64::from(record.offset_delta)).0;
            (offset, header.base_timestamp + record.timestamp_delta, record.key.unwrap().to_vec())
        };
        opened.records().map(one).collect()
    }

    fn batch_of(retained: Retained<'_>) -> (BatchHeader, Vec<u8>) {
        match retained {
            Retained::Batch(header, bytes) => (header, bytes.into_owned()),
            Retained::Nothing => panic!("something stays"),
        }
    }

    #[test]
    fn what_stays_keeps_offset_time_producer_and_codec() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let (header, bytes) = three(codec);
            let (next, kept) = batch_of(retain(&header, &bytes, &HOW, |r| r.key == Some(b"c")).unwrap());
            assert_eq!(records_of(&kept), [(2, 120, b"c".to_vec())]);
            assert_eq!((next.last_offset_delta, next.base_sequence, next.codec().unwrap()), (2, 40, codec));
            assert_eq!((next.max_timestamp, next.delete_horizon_ms()), (120, None));
        }
    }

    #[test]
    fn a_tombstone_sets_the_horizon_once() {
        let (header, bytes) = three(Codec::Lz4);
        let (next, kept) = batch_of(retain(&header, &bytes, &HOW, |r| r.key != Some(b"c")).unwrap());
        assert_eq!((next.delete_horizon_ms(), next.max_timestamp), (Some(9000), 110));
        assert_eq!(records_of(&kept), [(0, 100, b"a".to_vec()), (1, 110, b"b".to_vec())]);
        let later = Rewrite { horizon_ms: 10_000, ..HOW };
        let (again, same) = batch_of(retain(&next, &kept, &later, |_| true).unwrap());
        assert_eq!((again.delete_horizon_ms(), same), (Some(9000), kept.clone()));
        let (fewer, _) = batch_of(retain(&next, &kept, &later, |r| r.value.is_some()).unwrap());
        assert_eq!(fewer.delete_horizon_ms(), Some(9000));
    }

    #[test]
    fn an_empty_batch_keeps_offsets_and_sequences_or_goes() {
        let (header, bytes) = three(Codec::Zstd);
        let (next, kept) = batch_of(retain(&header, &bytes, &HOW, |_| false).unwrap());
        assert_eq!((next.records_count, next.last_offset(), next.last_sequence(), kept.len()), (0, header.last_offset(), 42, layout::SIZE));
        assert_eq!(records_of(&kept), []);
        let drop = Rewrite { when_empty: WhenEmpty::Drop, ..HOW };
        assert_eq!(retain(&header, &bytes, &drop, |_| false).unwrap(), Retained::Nothing);
        assert_eq!(retain(&next, &kept, &drop, |_| true).unwrap(), Retained::Nothing);
        let (whole, unchanged) = batch_of(retain(&header, &three(Codec::Zstd).1, &HOW, |r| r.value.is_some()).unwrap());
        assert_eq!((whole.records_count, unchanged.len() > layout::SIZE), (2, true));
    }
}
