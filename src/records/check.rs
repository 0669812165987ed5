//! Validation of produced batches: the bytes from a producer become a [`CheckedBatch`] or an error.
//!
//! Kafka decompresses every compressed batch to check its records. This check verifies that the body begins with a frame of its codec, trusts a
//! header without contradictions, and decompresses a batch only if the topic or the header requires it: a compacted topic requires keys, another
//! codec is configured, early timestamps are limited, the largest timestamp is missing (Sarama does not set it), or `compressed.batches.check=full`.
//! Uncompressed records are always checked. An error names all rejected records, so that a producer can send the others again.

use bytes::Bytes;

use super::{
    BAD_RECORDS_MAX, BadRecord, BatchHeader, Codec, Error, Fault, Records, TimestampType, batches, check_frame, compress, decompress,
    layout,
};
use crate::model::{LeaderEpoch, Offset};

/// The timestamp of a record without one.
const NO_TIMESTAMP: i64 = -1;

/// Bytes after the length of a message of format 0 with neither key nor value.
const OLD_MESSAGE_BYTES_MIN: i32 = 14;

/// Whether records need keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRule {
    /// A compacted topic.
    Required,
    /// Any other.
    Optional,
}

/// How closely compressed batches are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The header of the codec's frame; the records only if a rule requires it.
    Trusting,
    /// Header and records always, like Kafka.
    Full,
}

/// The rules of a topic for batches.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// The topic's `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// The topic's `message.timestamp.before.max.ms`.
    pub before_max_ms: i64,
    /// The topic's `message.timestamp.after.max.ms`.
    pub after_max_ms: i64,
    /// The topic's `max.message.bytes`.
    pub message_bytes_max: usize,
    /// The topic's `compression.type`; if none, the producer's codec is kept.
    pub codec: Option<Codec>,
    /// Whether records need keys.
    pub keys: KeyRule,
    /// How closely to check.
    pub look: Look,
    /// The most bytes that a batch may decompress to.
    pub decompressed_bytes_max: usize,
}

/// A checked batch: only such batches can be appended to a log. Its offset and leader epoch are still those of the producer.
#[derive(Debug, Clone)]
pub struct CheckedBatch {
    header: BatchHeader,
    body: Bytes,
}

impl CheckedBatch {
    pub(super) fn of(header: BatchHeader, body: Bytes) -> CheckedBatch {
        CheckedBatch { header, body }
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records' bytes, after the header.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The header's bytes with the batch's offset and epoch in the log. Both are not covered by the checksum.
    pub fn place(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) -> [u8; layout::SIZE] {
        self.header.base_offset = base_offset;
        self.header.leader_epoch = leader_epoch;
        self.header.to_bytes()
    }
}

/// Checks the bytes from a producer for one partition, in Kafka's order. Requires exactly one batch; an incomplete one after it is removed.
pub fn check(bytes: &Bytes, rules: &Rules) -> Result<CheckedBatch, Error> {
    if let Some(magic) = bytes.get(layout::MAGIC).map(|magic| *magic as i8).filter(|magic| *magic != 2) {
        let length =
            bytes.get(layout::BATCH_LENGTH..).and_then(|rest| rest.first_chunk::<4>()).map_or(0, |length| i32::from_be_bytes(*length));
        let is_old = matches!(magic, 0 | 1) && length < OLD_MESSAGE_BYTES_MIN;
        return Err(if is_old { Error::Length(length) } else { Error::Magic(magic) });
    }
    let mut all = batches(bytes);
    let (header, batch) = all.next().ok_or(Error::Empty)??;
    if all.next().is_some() {
        return Err(Error::SeveralBatches);
    }
    if header.base_offset != Offset(0) {
        return Err(Error::BaseOffset(header.base_offset.0));
    }
    check_size(&header, rules)?;
    header.check_crc(batch)?;
    check_header(&header)?;
    let body = bytes.slice(layout::SIZE..header.size());
    let checked = Checker { header, rules, codec: header.codec()? }.records(body)?;
    check_size(&checked.header, rules)?;
    Ok(checked)
}

fn check_size(header: &BatchHeader, rules: &Rules) -> Result<(), Error> {
    let (size, max) = (header.size(), rules.message_bytes_max);
    if size > max { Err(Error::TooLarge { size, max }) } else { Ok(()) }
}

fn check_header(header: &BatchHeader) -> Result<(), Error> {
    if header.records_count <= 0 || header.last_offset_delta.checked_add(1) != Some(header.records_count) {
        return Err(Error::Contradiction("the record count and the last offset delta do not match"));
    }
    if header.is_control() {
        return Err(Error::Contradiction("a producer may not write control records"));
    }
    if header.producer_id.0 >= 0 && header.producer_epoch.0 < -1 {
        return Err(Error::Contradiction("the producer epoch is below -1"));
    }
    if header.producer_id.0 >= 0 && header.base_sequence < 0 {
        return Err(Error::Contradiction("a batch with a producer id requires a sequence number"));
    }
    Ok(())
}

struct Checker<'a> {
    header: BatchHeader,
    rules: &'a Rules,
    codec: Codec,
}

impl Checker<'_> {
    fn records(mut self, body: Bytes) -> Result<CheckedBatch, Error> {
        let before = self.header;
        let mut body = body;
        if self.codec == Codec::None {
            self.header.max_timestamp = self.walk(&body)?;
            self.recompress(&mut body, None)?;
        } else if self.must_open() {
            let opened = decompress(self.codec, &body, self.rules.decompressed_bytes_max)?;
            self.header.max_timestamp = self.walk(&opened)?;
            self.recompress(&mut body, Some(&opened))?;
        } else {
            check_frame(self.codec, &body)?;
            let rejected = self.bad_timestamp(0, self.header.max_timestamp);
            rejected.map_or(Ok(()), |bad| Err(Error::Rejected(vec![bad])))?;
        }
        if self.rules.timestamp_type == TimestampType::LogAppendTime {
            self.header.max_timestamp = self.rules.now_ms;
        }
        self.header.set_timestamp_type(self.rules.timestamp_type);
        if self.header != before {
            self.header.crc = self.header.compute_crc(&body);
        }
        Ok(CheckedBatch::of(self.header, body))
    }

    fn must_open(&self) -> bool {
        let create_time = self.rules.timestamp_type == TimestampType::CreateTime;
        self.rules.look == Look::Full
            || self.header.timestamp_type() == TimestampType::LogAppendTime
            || self.rules.keys == KeyRule::Required
            || self.rules.codec.is_some_and(|codec| codec != self.codec)
            || create_time && (self.rules.before_max_ms != i64::MAX || self.header.max_timestamp < self.header.base_timestamp.max(0))
    }

    /// Checks every record and returns the largest timestamp, which is at least -1.
    fn walk(&self, bytes: &[u8]) -> Result<i64, Error> {
        let mut largest = NO_TIMESTAMP;
        let mut rejected = Vec::new();
        // As in Kafka, if a batch claims LogAppendTime, all its records have its largest timestamp; the topic's own type then replaces the claim.
        let is_append_time = self.header.timestamp_type() == TimestampType::LogAppendTime;
        for (index, record) in Records::new(bytes, self.header.records_count).enumerate() {
            let record = record?;
            if record.offset_delta != index as i32 {
                return Err(Error::Record { index, what: format!("its offset delta is {}", record.offset_delta) });
            }
            let timestamp = match is_append_time {
                true => self.header.max_timestamp,
                false => self.header.base_timestamp.wrapping_add(record.timestamp_delta),
            };
            let is_key_missing = record.key.is_none() && self.rules.keys == KeyRule::Required;
            let bad = is_key_missing.then_some(BadRecord { index, fault: Fault::KeyMissing });
            rejected.extend(bad.or_else(|| self.bad_timestamp(index, timestamp)).filter(|_| rejected.len() < BAD_RECORDS_MAX));
            largest = largest.max(timestamp);
        }
        if rejected.is_empty() { Ok(largest) } else { Err(Error::Rejected(rejected)) }
    }

    /// The error of a timestamp set by the producer. The subtraction wraps like Kafka's, which rejects times near the limits of 64 bits.
    fn bad_timestamp(&self, index: usize, timestamp_ms: i64) -> Option<BadRecord> {
        if timestamp_ms == NO_TIMESTAMP || self.rules.timestamp_type == TimestampType::LogAppendTime {
            let is_claim = self.header.timestamp_type() == TimestampType::LogAppendTime;
            return is_claim.then_some(BadRecord { index, fault: Fault::AppendTime });
        }
        let Rules { now_ms, before_max_ms, after_max_ms, .. } = *self.rules;
        let age_ms = now_ms.wrapping_sub(timestamp_ms);
        let is_bad = age_ms > before_max_ms || age_ms.wrapping_neg() > after_max_ms;
        let (earliest_ms, latest_ms) = (now_ms.saturating_sub(before_max_ms), now_ms.saturating_add(after_max_ms));
        is_bad.then_some(BadRecord { index, fault: Fault::Timestamp { timestamp_ms, earliest_ms, latest_ms } })
    }

    /// Compresses the records with the configured codec, if it is a different one.
    fn recompress(&mut self, body: &mut Bytes, opened: Option<&[u8]>) -> Result<(), Error> {
        let Some(codec) = self.rules.codec.filter(|codec| *codec != self.codec) else { return Ok(()) };
        *body = compress(codec, opened.unwrap_or(body))?.into();
        self.header.attributes = self.header.attributes & !7 | codec as i16;
        self.header.batch_length = (layout::SIZE - layout::PARTITION_LEADER_EPOCH + body.len()) as i32;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{BatchBuilder, NewRecord};

    const NOW: i64 = 1_700_000_000_000;

    fn rules() -> Rules {
        Rules {
            now_ms: NOW,
            timestamp_type: TimestampType::CreateTime,
            before_max_ms: i64::MAX,
            after_max_ms: 3_600_000,
            message_bytes_max: 1_048_588,
            codec: None,
            keys: KeyRule::Optional,
            look: Look::Trusting,
            decompressed_bytes_max: 1 << 20,
        }
    }

    fn two() -> BatchBuilder<'static> {
        BatchBuilder::new().record(NewRecord::value(b"first")).record(NewRecord::value(b"second"))
    }

    /// The batch with changed bytes and a matching checksum.
    fn lying(batch: &Bytes, position: usize, bytes: &[u8]) -> Bytes {
        let mut changed = batch.to_vec();
        changed[position..position + bytes.len()].copy_from_slice(bytes);
        let crc = crc32c::crc32c(&changed[layout::ATTRIBUTES..]);
        changed[layout::CRC..layout::CRC + 4].copy_from_slice(&crc.to_be_bytes());
        changed.into()
    }

    #[test]
    fn a_good_batch_passes_as_it_came() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let batch = two().codec(codec).build(NOW);
            for look in [Look::Trusting, Look::Full] {
                let checked = check(&batch, &Rules { look, ..rules() }).unwrap();
                assert_eq!(checked.header().to_bytes(), batch[..layout::SIZE]);
                assert_eq!(checked.body(), &batch[layout::SIZE..]);
            }
        }
    }

    #[test]
    fn lying_batches_are_refused() {
        let good = two().build(NOW);
        let mut broken = good.to_vec();
        *broken.last_mut().unwrap() ^= 1;
        assert!(matches!(check(&broken.into(), &rules()), Err(Error::Crc { .. })));
        let contradictions = [
            (layout::RECORDS_COUNT, 3_i32),
            (layout::RECORDS_COUNT, 0),
            (layout::RECORDS_COUNT, -1),
            (layout::LAST_OFFSET_DELTA, 7),
            (layout::LAST_OFFSET_DELTA, i32::MAX),
        ];
        for (position, value) in contradictions {
            let result = check(&lying(&good, position, &value.to_be_bytes()), &rules());
            assert!(matches!(result, Err(Error::Contradiction(_))), "{position} {value}: {result:?}");
        }
        let base = lying(&good, layout::BASE_OFFSET, &5_i64.to_be_bytes());
        assert!(matches!(check(&base, &rules()), Err(Error::BaseOffset(5))));
        let control = lying(&good, layout::ATTRIBUTES, &(1_i16 << 5).to_be_bytes());
        assert!(matches!(check(&control, &rules()), Err(Error::Contradiction(_))));
        let producer = lying(&good, layout::PRODUCER_ID, &9_i64.to_be_bytes());
        assert!(matches!(check(&producer, &rules()), Err(Error::Contradiction(_))));
        let codec = lying(&good, layout::ATTRIBUTES, &7_i16.to_be_bytes());
        assert!(matches!(check(&codec, &rules()), Err(Error::Codec(7))));
        assert!(matches!(check(&Bytes::new(), &rules()), Err(Error::Empty)));
        assert!(matches!(check(&good.slice(..good.len() - 1), &rules()), Err(Error::Empty)));
        let twice: Bytes = [&good[..], &good[..]].concat().into();
        assert!(matches!(check(&twice, &rules()), Err(Error::SeveralBatches)));
    }

    #[test]
    fn one_more_record_than_bytes_is_found_in_the_walk() {
        let good = two().build(NOW);
        let more = lying(&lying(&good, layout::RECORDS_COUNT, &3_i32.to_be_bytes()), layout::LAST_OFFSET_DELTA, &2_i32.to_be_bytes());
        assert!(matches!(check(&more, &rules()), Err(Error::Record { index: 2, .. })));
        let fewer = lying(&lying(&good, layout::RECORDS_COUNT, &1_i32.to_be_bytes()), layout::LAST_OFFSET_DELTA, &0_i32.to_be_bytes());
        assert!(matches!(check(&fewer, &rules()), Err(Error::Record { index: 1, .. })));
    }

    #[test]
    fn limits_and_keys_hold() {
        let batch = two().build(NOW);
        let max = batch.len() - 1;
        assert!(matches!(check(&batch, &Rules { message_bytes_max: max, ..rules() }), Err(Error::TooLarge { .. })));
        let zipped = two().codec(Codec::Gzip).build(NOW);
        let bomb = Rules { look: Look::Full, decompressed_bytes_max: 10, ..rules() };
        assert_eq!(check(&zipped, &bomb).unwrap_err(), Error::Bomb(10));
    }

    fn rejected(batch: &Bytes, rules: &Rules) -> Vec<(usize, Fault)> {
        match check(batch, rules) {
            Err(Error::Rejected(bad)) => bad.iter().map(|bad| (bad.index, bad.fault)).collect(),
            other => panic!("records should have been rejected: {other:?}"),
        }
    }

    /// librdkafka fails the whole batch if only the first rejected record is named, and sends the valid records again if all rejected ones are named.
    #[test]
    fn every_record_that_the_topic_does_not_allow_is_named() {
        let compacted = Rules { keys: KeyRule::Required, before_max_ms: 1000, ..rules() };
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let keys = BatchBuilder::new().codec(codec).record(NewRecord::value(b"a")).record(NewRecord::keyed(b"k", Some(b"b")));
            let batch = keys.record(NewRecord::value(b"c")).build(NOW);
            assert_eq!(rejected(&batch, &compacted), [(0, Fault::KeyMissing), (2, Fault::KeyMissing)], "{}", codec.name());
            let late = Fault::Timestamp { timestamp_ms: NOW - 1001, earliest_ms: NOW - 1000, latest_ms: NOW + 3_600_000 };
            let batch = two().codec(codec).build(NOW - 1001);
            assert_eq!(rejected(&batch, &Rules { before_max_ms: 1000, ..rules() }), [(0, late), (1, late)], "{}", codec.name());
        }
    }

    #[test]
    fn a_refusal_names_a_bounded_number_of_records() {
        let many = (0..BAD_RECORDS_MAX + 1).fold(BatchBuilder::new(), |batch, _| batch.record(NewRecord::value(b"")));
        assert_eq!(rejected(&many.build(NOW), &Rules { keys: KeyRule::Required, ..rules() }).len(), BAD_RECORDS_MAX);
    }

    /// Such a batch was acknowledged, and every consumer stopped at it.
    #[test]
    fn a_codec_over_a_body_that_is_none_is_refused() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let plain = lying(&two().build(NOW), layout::ATTRIBUTES, &(codec as i16).to_be_bytes());
            for look in [Look::Trusting, Look::Full] {
                assert!(matches!(check(&plain, &Rules { look, ..rules() }), Err(Error::Decompress { .. })), "{} {look:?}", codec.name());
            }
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_found_where_batches_are_opened() {
        let good = two().codec(Codec::Gzip).build(NOW);
        let cut = good.len() - layout::SIZE - 6;
        let mut bytes = good.slice(..good.len() - 6).to_vec();
        let length = (layout::SIZE - layout::PARTITION_LEADER_EPOCH + cut) as i32;
        bytes[layout::BATCH_LENGTH..layout::BATCH_LENGTH + 4].copy_from_slice(&length.to_be_bytes());
        let bytes = lying(&bytes.into(), 0, &[]);
        assert!(check(&bytes, &rules()).is_ok());
        assert!(matches!(check(&bytes, &Rules { look: Look::Full, ..rules() }), Err(Error::Decompress { .. })));
    }

    #[test]
    fn timestamps_outside_the_limits_are_refused() {
        for codec in [Codec::None, Codec::Lz4] {
            let future = two().codec(codec).build(NOW + 3_600_001);
            assert!(matches!(check(&future, &rules()), Err(Error::Rejected(_))));
            let old = two().codec(codec).build(NOW - 1001);
            assert!(matches!(check(&old, &Rules { before_max_ms: 1000, ..rules() }), Err(Error::Rejected(_))));
            // -1 means no timestamp; times before 1970 are as valid as any other.
            for timestamp_ms in [-1, -5, -1_000_000_000_000] {
                assert_eq!(check(&two().codec(codec).build(timestamp_ms), &rules()).unwrap().header().max_timestamp, -1, "{timestamp_ms}");
            }
            for timestamp_ms in [i64::MIN, i64::MAX] {
                assert!(matches!(check(&two().codec(codec).build(timestamp_ms), &rules()), Err(Error::Rejected(_))), "{timestamp_ms}");
            }
        }
    }

    #[test]
    fn a_missing_largest_timestamp_is_found_in_the_records() {
        for codec in [Codec::None, Codec::Zstd] {
            let unset = lying(&two().codec(codec).build(NOW), layout::MAX_TIMESTAMP, &(-1_i64).to_be_bytes());
            let checked = check(&unset, &rules()).unwrap();
            assert_eq!(checked.header().max_timestamp, NOW);
            assert_eq!(checked.header().crc, checked.header().compute_crc(checked.body()));
        }
    }

    #[test]
    fn log_append_time_is_the_brokers() {
        let rules = Rules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
        let checked = check(&two().build(5), &rules).unwrap();
        assert_eq!((checked.header().timestamp_type(), checked.header().max_timestamp), (TimestampType::LogAppendTime, NOW));
        assert_eq!(checked.header().crc, checked.header().compute_crc(checked.body()));
        assert_eq!(rejected(&two().attributes(8).build(5), &rules), [(0, Fault::AppendTime), (1, Fault::AppendTime)]);
    }

    #[test]
    fn a_producers_claim_of_append_time_is_replaced_by_the_topics_type() {
        let checked = check(&two().attributes(8).build(NOW), &rules()).unwrap();
        assert_eq!((checked.header().timestamp_type(), checked.header().max_timestamp), (TimestampType::CreateTime, NOW));
        assert_eq!(checked.header().crc, checked.header().compute_crc(checked.body()));
        for codec in [Codec::None, Codec::Lz4] {
            let batch = two().codec(codec).build(-1);
            let claims = lying(&batch, layout::ATTRIBUTES, &(8 | codec as i16).to_be_bytes());
            assert_eq!(rejected(&claims, &rules()), [(0, Fault::AppendTime), (1, Fault::AppendTime)], "{}", codec.name());
        }
    }

    #[test]
    fn another_codec_is_put_in_place_of_the_producers() {
        for from in [Codec::None, Codec::Gzip] {
            for to in [Codec::None, Codec::Zstd] {
                let checked = check(&two().codec(from).build(NOW), &Rules { codec: Some(to), ..rules() }).unwrap();
                assert_eq!(checked.header().codec(), Ok(to));
                assert_eq!(checked.header().crc, checked.header().compute_crc(checked.body()));
                let opened = decompress(to, checked.body(), 1000).unwrap();
                let values: Vec<_> = Records::new(&opened, 2).map(|r| r.unwrap().value.unwrap().to_vec()).collect();
                assert_eq!(values, [b"first".to_vec(), b"second".to_vec()]);
            }
        }
    }
}
