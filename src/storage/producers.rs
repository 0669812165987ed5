//! What a log remembers of idempotent producers (KIP-98), so that a retry is stored once.

use std::collections::{BTreeMap, VecDeque};

use super::Error;
use crate::model::{Offset, ProducerEpoch, ProducerId};
use crate::records::BatchHeader;
use crate::wire::Writer;

/// Batches of a producer that are remembered: as many as it may have in flight.
const BATCHES_KEPT: usize = 5;
/// The format of a snapshot.
const SNAPSHOT_VERSION: i16 = 1;
/// Bytes of version, checksum and count in front of a snapshot's entries.
const SNAPSHOT_HEADER_BYTES: usize = 10;
/// Bytes of an entry: id, epoch, last sequence, last offset, offset delta, timestamp, coordinator epoch, first offset of the transaction.
const SNAPSHOT_ENTRY_BYTES: usize = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Batch {
    first_sequence: i32,
    last_sequence: i32,
    last_offset: Offset,
    offset_delta: i32,
    timestamp_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Producer {
    epoch: ProducerEpoch,
    batches: VecDeque<Batch>,
    last_append_ms: i64,
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Append it.
    Append,
    /// It is stored already: answer with its first offset and its timestamp.
    Duplicate {
        /// Of the stored batch.
        base_offset: Offset,
        /// The stored batch's largest timestamp.
        timestamp_ms: i64,
    },
}

/// A producer as DescribeProducers shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The sequence number of its last record; -1 where none is known.
    pub last_sequence: i32,
    /// The timestamp of its last batch.
    pub last_timestamp_ms: i64,
}

/// The producers of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerState(BTreeMap<ProducerId, Producer>);

impl ProducerState {
    /// Decides about a batch, in Kafka's order: duplicate, epoch, sequence. Changes nothing.
    pub fn judge(&self, header: &BatchHeader) -> Result<Verdict, Error> {
        let (id, epoch) = (header.producer_id, header.producer_epoch);
        let Some(known) = self.0.get(&id).filter(|_| id.0 >= 0) else { return Ok(Verdict::Append) };
        let (first, last) = (header.base_sequence, header.last_sequence());
        if let Some(batch) = known.batches.iter().find(|b| known.epoch == epoch && (b.first_sequence, b.last_sequence) == (first, last)) {
            let base_offset = batch.last_offset.plus(-i64::from(batch.offset_delta));
            return Ok(Verdict::Duplicate { base_offset, timestamp_ms: batch.timestamp_ms });
        }
        if epoch < known.epoch {
            return Err(Error::ProducerFenced { producer: id, got: epoch, current: known.epoch });
        }
        let expected = match known.batches.back() {
            Some(batch) if epoch == known.epoch => batch.last_sequence.checked_add(1).unwrap_or(0),
            Some(_) => 0,
            None => first,
        };
        if first != expected {
            return Err(Error::OutOfOrderSequence { producer: id, got: first, expected });
        }
        Ok(Verdict::Append)
    }

    /// Remembers a batch that is stored.
    pub fn note(&mut self, header: &BatchHeader) {
        if header.producer_id.0 < 0 || header.is_control() {
            return;
        }
        let epoch = header.producer_epoch;
        let producer = self.0.entry(header.producer_id).or_insert_with(|| Producer { epoch, batches: VecDeque::new(), last_append_ms: 0 });
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == BATCHES_KEPT {
            producer.batches.pop_front();
        }
        producer.last_append_ms = header.max_timestamp;
        producer.batches.push_back(Batch {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp_ms: header.max_timestamp,
        });
    }

    /// Forgets producers whose last append is older than `expiration_ms`.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.0.retain(|_, producer| now_ms.saturating_sub(producer.last_append_ms) <= expiration_ms);
    }

    /// All producers, by id.
    pub fn active(&self) -> impl Iterator<Item = ActiveProducer> {
        self.0.iter().map(|(id, producer)| ActiveProducer {
            id: *id,
            epoch: producer.epoch,
            last_sequence: producer.batches.back().map_or(-1, |batch| batch.last_sequence),
            last_timestamp_ms: producer.last_append_ms,
        })
    }

    /// Each producer with the last offset of its last batch.
    pub(super) fn last_batches(&self) -> impl Iterator<Item = (ProducerId, Offset)> {
        self.0.iter().filter_map(|(id, producer)| Some((*id, producer.batches.back()?.last_offset)))
    }

    /// The number of producers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no producer is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Kafka's snapshot file: version, CRC-32C of what follows, count, entries. Only the last batch of each producer is in it.
    pub(super) fn to_snapshot(&self) -> Vec<u8> {
        let mut entries = Writer::default();
        let with_batch = self.0.iter().filter_map(|(id, producer)| Some((id, producer, producer.batches.back()?)));
        let list: Vec<_> = with_batch.collect();
        entries.int32(list.len() as i32);
        for (id, producer, batch) in list {
            entries.int64(id.0);
            entries.int16(producer.epoch.0);
            entries.int32(batch.last_sequence);
            entries.int64(batch.last_offset.0);
            entries.int32(batch.offset_delta);
            entries.int64(batch.timestamp_ms);
            entries.int32(-1);
            entries.int64(-1);
        }
        let entries = entries.into_bytes();
        let mut bytes = SNAPSHOT_VERSION.to_be_bytes().to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&entries).to_be_bytes());
        bytes.extend_from_slice(&entries);
        bytes
    }

    /// Reads a snapshot file; none where it is damaged.
    pub(super) fn from_snapshot(bytes: &[u8]) -> Option<ProducerState> {
        let int = |at: usize, size: usize| -> Option<i64> {
            let field = bytes.get(at..at + size)?;
            let sign = if field[0] & 0x80 != 0 { -1 } else { 0 };
            Some(field.iter().fold(sign, |value, byte| value << 8 | i64::from(*byte)))
        };
        let crc = u32::from_be_bytes(bytes.get(2..6)?.try_into().ok()?);
        let count = usize::try_from(int(6, 4)?).ok()?;
        let right_size = count.checked_mul(SNAPSHOT_ENTRY_BYTES)?.checked_add(SNAPSHOT_HEADER_BYTES)? == bytes.len();
        if int(0, 2)? != i64::from(SNAPSHOT_VERSION) || crc32c::crc32c(&bytes[6..]) != crc || !right_size {
            return None;
        }
        let mut producers = BTreeMap::new();
        for entry in 0..count {
            let at = SNAPSHOT_HEADER_BYTES + entry * SNAPSHOT_ENTRY_BYTES;
            let (last_sequence, offset_delta) = (int(at + 10, 4)? as i32, int(at + 22, 4)? as i32);
            let first_sequence = (i64::from(last_sequence) - i64::from(offset_delta)).rem_euclid(i64::from(i32::MAX) + 1) as i32;
            let timestamp_ms = int(at + 26, 8)?;
            let batch = Batch { first_sequence, last_sequence, last_offset: Offset(int(at + 14, 8)?), offset_delta, timestamp_ms };
            let producer =
                Producer { epoch: ProducerEpoch(int(at + 8, 2)? as i16), batches: VecDeque::from([batch]), last_append_ms: timestamp_ms };
            producers.insert(ProducerId(int(at, 8)?), producer);
        }
        Some(ProducerState(producers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{BatchBuilder, NewRecord};

    /// The header of `count` records at `offset`.
    fn batch(epoch: i16, sequence: i32, count: usize, offset: i64) -> BatchHeader {
        let mut builder = BatchBuilder::new().producer(9, epoch, sequence);
        for _ in 0..count {
            builder = builder.record(NewRecord::value(b"x"));
        }
        let mut header = BatchHeader::read(&builder.build(1000)).unwrap();
        header.base_offset = Offset(offset);
        header
    }

    #[test]
    fn the_last_five_batches_are_recognized_with_their_offsets() {
        let mut state = ProducerState::default();
        for at in 0..7 {
            assert_eq!(state.judge(&batch(0, at * 2, 2, 0)).unwrap(), Verdict::Append);
            state.note(&batch(0, at * 2, 2, i64::from(at) * 2));
        }
        for at in 2..7 {
            let duplicate = Verdict::Duplicate { base_offset: Offset(i64::from(at) * 2), timestamp_ms: 1000 };
            assert_eq!(state.judge(&batch(0, at * 2, 2, 0)).unwrap(), duplicate);
        }
        assert!(matches!(state.judge(&batch(0, 2, 2, 0)), Err(Error::OutOfOrderSequence { got: 2, expected: 14, .. })));
    }

    #[test]
    fn sequences_and_epochs_follow_kafkas_rules() {
        let mut state = ProducerState::default();
        assert_eq!(state.judge(&batch(3, 50, 1, 0)).unwrap(), Verdict::Append, "an unknown producer may begin anywhere");
        state.note(&batch(3, 50, 1, 0));
        let cases: [(i16, i32, &str); 5] =
            [(3, 51, "next"), (3, 53, "gap"), (2, 51, "old epoch"), (4, 0, "new epoch"), (4, 51, "new epoch, old sequence")];
        for (epoch, sequence, what) in cases {
            let verdict = state.judge(&batch(epoch, sequence, 1, 0));
            match what {
                "next" | "new epoch" => assert_eq!(verdict.unwrap(), Verdict::Append, "{what}"),
                "old epoch" => assert!(matches!(verdict, Err(Error::ProducerFenced { .. })), "{what}"),
                _ => assert!(matches!(verdict, Err(Error::OutOfOrderSequence { .. })), "{what}"),
            }
        }
        state.note(&batch(4, i32::MAX, 1, 1));
        assert_eq!(state.judge(&batch(4, 0, 1, 0)).unwrap(), Verdict::Append, "sequences wrap to 0");
    }

    #[test]
    fn a_snapshot_brings_the_last_batch_back() {
        let mut state = ProducerState::default();
        state.note(&batch(1, 0, 3, 0));
        state.note(&batch(1, 3, 3, 3));
        let bytes = state.to_snapshot();
        let back = ProducerState::from_snapshot(&bytes).unwrap();
        assert_eq!(back.judge(&batch(1, 3, 3, 0)).unwrap(), Verdict::Duplicate { base_offset: Offset(3), timestamp_ms: 1000 });
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(ProducerState::from_snapshot(&flipped), None, "byte {at}");
        }
    }

    #[test]
    fn idle_producers_are_forgotten() {
        let mut state = ProducerState::default();
        state.note(&batch(0, 0, 1, 0));
        state.expire(1000 + 50, 50);
        assert_eq!(state.len(), 1);
        state.expire(1000 + 51, 50);
        assert!(state.is_empty());
    }
}
