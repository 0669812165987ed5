//! The producer state of a log (KIP-98): the last batches of each producer, so that a retry is stored once, and the open transactions.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Error;
use crate::model::{Offset, ProducerEpoch, ProducerId};
use crate::records::{BatchHeader, EpochRule, Marker, TransactionResult};
use crate::wire::Writer;

/// The number of batches kept per producer: the most that it may have in flight.
const BATCHES_KEPT: usize = 5;
/// The format of a snapshot.
const SNAPSHOT_VERSION: i16 = 1;
/// Bytes of version, checksum and count before the entries of a snapshot.
const SNAPSHOT_HEADER_BYTES: usize = 10;
/// Bytes of an entry: id, epoch, last sequence, last offset, offset delta, timestamp, coordinator epoch, first offset of the transaction.
const SNAPSHOT_ENTRY_BYTES: usize = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8;

/// The source of a batch, which determines the expected sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A producer.
    Client,
    /// A producer whose epoch grows with each transaction (KIP-890): if it is unknown here, it must begin with sequence 0.
    BumpingClient,
    /// One of the broker's coordinators for a producer. Its batches have no sequence.
    Coordinator,
}

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
    /// Empty after a marker with a larger epoch.
    batches: VecDeque<Batch>,
    last_append_ms: i64,
    /// The coordinator epoch of the last marker, or -1.
    coordinator_epoch: i32,
    /// The first offset of its open transaction.
    transaction_start: Option<Offset>,
}

/// The decision about a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Append it.
    Append,
    /// It is stored already: return its first offset and its timestamp.
    Duplicate {
        /// The first offset of the stored batch.
        base_offset: Offset,
        /// The stored batch's largest timestamp.
        timestamp_ms: i64,
    },
}

/// A producer as returned by DescribeProducers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The sequence number of its last record; -1 if unknown.
    pub last_sequence: i32,
    /// The timestamp of its last batch.
    pub last_timestamp_ms: i64,
    /// The coordinator's epoch in the last marker, or -1.
    pub coordinator_epoch: i32,
    /// The first offset of its open transaction.
    pub transaction_start: Option<Offset>,
}

/// A transaction that has ended in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) producer_id: ProducerId,
    pub(super) first_offset: Offset,
    /// The offset of the marker.
    pub(super) last_offset: Offset,
    pub(super) result: TransactionResult,
}

/// The batches that compaction must keep, at least as headers, because they contain the state of producers.
#[derive(Debug, Default)]
pub(super) struct LastBatches(HashMap<ProducerId, (Option<Offset>, ProducerEpoch)>);

impl LastBatches {
    /// Whether a batch is the last one of its producer: its last data batch, or if it has none, the marker with its epoch.
    pub(super) fn hold(&self, header: &BatchHeader) -> bool {
        match self.0.get(&header.producer_id) {
            Some((Some(offset), _)) => header.last_offset() == *offset,
            Some((None, epoch)) => header.is_control() && header.producer_epoch == *epoch,
            None => false,
        }
    }
}

/// The producers of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerState {
    producers: BTreeMap<ProducerId, Producer>,
    /// Open transactions by their first offset.
    open: BTreeMap<Offset, ProducerId>,
    /// The first offset and the marker's offset of ended transactions whose markers may not be committed.
    ended: VecDeque<(Offset, Offset)>,
}

impl ProducerState {
    /// Checks a batch, in Kafka's order: duplicate, epoch, sequence, transaction. Changes nothing.
    pub fn judge(&self, header: &BatchHeader, origin: Origin) -> Result<Verdict, Error> {
        let (id, epoch) = (header.producer_id, header.producer_epoch);
        if id.0 < 0 {
            return Ok(Verdict::Append);
        }
        let (first, last) = (header.base_sequence, header.last_sequence());
        let Some(known) = self.producers.get(&id) else {
            if origin == Origin::BumpingClient && header.is_transactional() && first != 0 {
                return Err(Error::OutOfOrderSequence { producer: id, got: first, expected: 0 });
            }
            return Ok(Verdict::Append);
        };
        let is_repeated = |b: &&Batch| known.epoch == epoch && (b.first_sequence, b.last_sequence) == (first, last);
        if let Some(batch) = known.batches.iter().find(|batch| origin != Origin::Coordinator && is_repeated(batch)) {
            let base_offset = batch.last_offset.plus(-i64::from(batch.offset_delta));
            return Ok(Verdict::Duplicate { base_offset, timestamp_ms: batch.timestamp_ms });
        }
        if epoch < known.epoch {
            return Err(Error::ProducerFenced { producer: id, got: epoch, current: known.epoch });
        }
        let expected = match known.batches.back() {
            _ if origin == Origin::Coordinator => first,
            Some(batch) if epoch == known.epoch => batch.last_sequence.checked_add(1).unwrap_or(0),
            _ => 0,
        };
        if first != expected {
            return Err(Error::OutOfOrderSequence { producer: id, got: first, expected });
        }
        if known.transaction_start.is_some() && !header.is_transactional() {
            return Err(Error::TransactionState { producer: id, what: "it has an open transaction, but this batch is not transactional" });
        }
        Ok(Verdict::Append)
    }

    /// Decides whether a marker must be written; a repeated marker is not written. With [`EpochRule::Grows`] (KIP-890) a marker for an open
    /// transaction must have a new epoch: a late, older marker must not end a newer transaction.
    pub fn judge_marker(&self, marker: &Marker, rule: EpochRule) -> Result<bool, Error> {
        let Some(known) = self.producers.get(&marker.producer_id) else { return Ok(true) };
        let (producer, got, current) = (marker.producer_id, marker.producer_epoch, known.epoch);
        if marker.coordinator_epoch < known.coordinator_epoch {
            return Err(Error::CoordinatorFenced { producer, got: marker.coordinator_epoch, current: known.coordinator_epoch });
        }
        let (is_open, grows) = (known.transaction_start.is_some(), rule == EpochRule::Grows);
        if grows && !is_open && got == current {
            return Ok(false);
        }
        if got < current || (grows && is_open && got == current) {
            return Err(Error::ProducerFenced { producer, got, current });
        }
        Ok(true)
    }

    /// Adds a stored batch of data to the state.
    pub fn note(&mut self, header: &BatchHeader) {
        if header.producer_id.0 < 0 || header.is_control() {
            return;
        }
        let producer = self.producer(header.producer_id, header.producer_epoch);
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
        if header.is_transactional() && producer.transaction_start.is_none() {
            producer.transaction_start = Some(header.base_offset);
            self.open.insert(header.base_offset, header.producer_id);
        }
    }

    /// Adds a stored marker to the state; returns the transaction that it ends, if any.
    pub(super) fn note_marker(&mut self, marker: &Marker, header: &BatchHeader) -> Option<Ended> {
        let producer = self.producer(marker.producer_id, marker.producer_epoch);
        producer.coordinator_epoch = marker.coordinator_epoch;
        producer.last_append_ms = header.max_timestamp;
        let first_offset = producer.transaction_start.take()?;
        self.open.remove(&first_offset);
        let last_offset = header.last_offset();
        self.ended.push_back((first_offset, last_offset));
        Some(Ended { producer_id: marker.producer_id, first_offset, last_offset, result: marker.result })
    }

    fn producer(&mut self, id: ProducerId, epoch: ProducerEpoch) -> &mut Producer {
        let new = || Producer { epoch, batches: VecDeque::new(), last_append_ms: 0, coordinator_epoch: -1, transaction_start: None };
        let producer = self.producers.entry(id).or_insert_with(new);
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.batches.clear();
        }
        producer
    }

    /// The smallest first offset of the transactions that have no marker below the high watermark.
    pub fn first_unstable(&self, high_watermark: Offset) -> Option<Offset> {
        let ended = self.ended.iter().filter(|(_, marker)| *marker >= high_watermark).map(|(first, _)| *first);
        ended.chain(self.first_open()).min()
    }

    /// The first offset of the oldest open transaction.
    pub(super) fn first_open(&self) -> Option<Offset> {
        self.open.keys().next().copied()
    }

    /// Stops tracking ended transactions whose markers are below the high watermark.
    pub(super) fn committed(&mut self, high_watermark: Offset) {
        while self.ended.pop_front_if(|(_, marker)| *marker < high_watermark).is_some() {}
    }

    /// Whether the producer has an open transaction in this log.
    pub fn has_open_transaction(&self, id: ProducerId) -> bool {
        self.producers.get(&id).is_some_and(|producer| producer.transaction_start.is_some())
    }

    /// Removes producers whose last append is older than `expiration_ms`, except those with an open transaction.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.retain(|_, p| p.transaction_start.is_some() || now_ms.saturating_sub(p.last_append_ms) <= expiration_ms);
    }

    /// All producers, in the order of their ids.
    pub fn active(&self) -> impl Iterator<Item = ActiveProducer> {
        self.producers.iter().map(|(id, producer)| ActiveProducer {
            id: *id,
            epoch: producer.epoch,
            last_sequence: producer.batches.back().map_or(-1, |batch| batch.last_sequence),
            last_timestamp_ms: producer.last_append_ms,
            coordinator_epoch: producer.coordinator_epoch,
            transaction_start: producer.transaction_start,
        })
    }

    /// The batches that compaction must keep.
    pub(super) fn last_batches(&self) -> LastBatches {
        let last = |(id, producer): (&ProducerId, &Producer)| (*id, (producer.batches.back().map(|b| b.last_offset), producer.epoch));
        LastBatches(self.producers.iter().map(last).collect())
    }

    /// The number of producers.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether there are no producers.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Kafka's snapshot file: version, CRC-32C of the following bytes, count, entries. It contains only the last batch of each producer.
    pub(super) fn to_snapshot(&self) -> Vec<u8> {
        let mut entries = Writer::default();
        entries.int32(self.producers.len() as i32);
        for (id, producer) in &self.producers {
            let batch = producer.batches.back();
            entries.int64(id.0);
            entries.int16(producer.epoch.0);
            entries.int32(batch.map_or(-1, |b| b.last_sequence));
            entries.int64(batch.map_or(-1, |b| b.last_offset.0));
            entries.int32(batch.map_or(0, |b| b.offset_delta));
            entries.int64(producer.last_append_ms);
            entries.int32(producer.coordinator_epoch);
            entries.int64(producer.transaction_start.map_or(-1, |offset| offset.0));
        }
        let entries = entries.into_bytes();
        let mut bytes = SNAPSHOT_VERSION.to_be_bytes().to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&entries).to_be_bytes());
        bytes.extend_from_slice(&entries);
        bytes
    }

    /// Reads a snapshot file; none if it is damaged.
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
        let mut state = ProducerState::default();
        for entry in 0..count {
            let at = SNAPSHOT_HEADER_BYTES + entry * SNAPSHOT_ENTRY_BYTES;
            let (id, last_offset, timestamp_ms) = (ProducerId(int(at, 8)?), Offset(int(at + 14, 8)?), int(at + 26, 8)?);
            let (last_sequence, offset_delta) = (int(at + 10, 4)? as i32, int(at + 22, 4)? as i32);
            let first_sequence = match last_sequence {
                -1 => -1,
                last => (i64::from(last) - i64::from(offset_delta)).rem_euclid(i64::from(i32::MAX) + 1) as i32,
            };
            let batch = Batch { first_sequence, last_sequence, last_offset, offset_delta, timestamp_ms };
            let transaction_start = Some(Offset(int(at + 38, 8)?)).filter(|offset| offset.0 >= 0);
            state.open.extend(transaction_start.map(|offset| (offset, id)));
            let producer = Producer {
                epoch: ProducerEpoch(int(at + 8, 2)? as i16),
                batches: (last_offset.0 >= 0).then_some(batch).into_iter().collect(),
                last_append_ms: timestamp_ms,
                coordinator_epoch: int(at + 34, 4)? as i32,
                transaction_start,
            };
            state.producers.insert(id, producer);
        }
        Some(state)
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
            assert_eq!(state.judge(&batch(0, at * 2, 2, 0), Origin::Client).unwrap(), Verdict::Append);
            state.note(&batch(0, at * 2, 2, i64::from(at) * 2));
        }
        for at in 2..7 {
            let duplicate = Verdict::Duplicate { base_offset: Offset(i64::from(at) * 2), timestamp_ms: 1000 };
            assert_eq!(state.judge(&batch(0, at * 2, 2, 0), Origin::Client).unwrap(), duplicate);
        }
        assert!(matches!(state.judge(&batch(0, 2, 2, 0), Origin::Client), Err(Error::OutOfOrderSequence { got: 2, expected: 14, .. })));
    }

    #[test]
    fn sequences_and_epochs_follow_kafkas_rules() {
        let mut state = ProducerState::default();
        assert_eq!(state.judge(&batch(3, 50, 1, 0), Origin::Client).unwrap(), Verdict::Append, "an unknown producer may begin anywhere");
        state.note(&batch(3, 50, 1, 0));
        let cases: [(i16, i32, &str); 5] =
            [(3, 51, "next"), (3, 53, "gap"), (2, 51, "old epoch"), (4, 0, "new epoch"), (4, 51, "new epoch, old sequence")];
        for (epoch, sequence, what) in cases {
            let verdict = state.judge(&batch(epoch, sequence, 1, 0), Origin::Client);
            match what {
                "next" | "new epoch" => assert_eq!(verdict.unwrap(), Verdict::Append, "{what}"),
                "old epoch" => assert!(matches!(verdict, Err(Error::ProducerFenced { .. })), "{what}"),
                _ => assert!(matches!(verdict, Err(Error::OutOfOrderSequence { .. })), "{what}"),
            }
        }
        state.note(&batch(4, i32::MAX, 1, 1));
        assert_eq!(state.judge(&batch(4, 0, 1, 0), Origin::Client).unwrap(), Verdict::Append, "sequences wrap to 0");
    }

    #[test]
    fn a_snapshot_brings_the_last_batch_back() {
        let mut state = ProducerState::default();
        state.note(&batch(1, 0, 3, 0));
        state.note(&batch(1, 3, 3, 3));
        let bytes = state.to_snapshot();
        let back = ProducerState::from_snapshot(&bytes).unwrap();
        assert_eq!(
            back.judge(&batch(1, 3, 3, 0), Origin::Client).unwrap(),
            Verdict::Duplicate { base_offset: Offset(3), timestamp_ms: 1000 }
        );
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

    fn marker(epoch: i16, coordinator_epoch: i32, result: TransactionResult) -> Marker {
        Marker { producer_id: ProducerId(9), producer_epoch: ProducerEpoch(epoch), result, coordinator_epoch }
    }

    fn transactional(epoch: i16, sequence: i32, offset: i64) -> BatchHeader {
        let builder = BatchBuilder::new().producer(9, epoch, sequence).transactional().record(NewRecord::value(b"x"));
        BatchHeader { base_offset: Offset(offset), ..BatchHeader::read(&builder.build(1000)).unwrap() }
    }

    #[test]
    fn a_transaction_is_open_until_its_marker_is_committed() {
        let mut state = ProducerState::default();
        state.note(&transactional(1, 0, 5));
        state.note(&transactional(1, 1, 8));
        assert_eq!((state.first_unstable(Offset(100)), state.has_open_transaction(ProducerId(9))), (Some(Offset(5)), true));
        let plain = batch(1, 2, 1, 0);
        assert!(matches!(state.judge(&plain, Origin::Client), Err(Error::TransactionState { .. })));
        let back = ProducerState::from_snapshot(&state.to_snapshot()).unwrap();
        assert_eq!(back.first_unstable(Offset(100)), Some(Offset(5)), "also after a restart");
        let end = marker(2, 3, TransactionResult::Abort);
        let header = BatchHeader { base_offset: Offset(12), ..*end.to_batch(2000).header() };
        let ended = state.note_marker(&end, &header).unwrap();
        assert_eq!((ended.first_offset, ended.last_offset), (Offset(5), Offset(12)));
        assert_eq!([12, 13].map(|high_watermark| state.first_unstable(Offset(high_watermark))), [Some(Offset(5)), None]);
        assert_eq!(state.judge(&transactional(2, 0, 0), Origin::BumpingClient).unwrap(), Verdict::Append);
        assert!(matches!(state.judge(&transactional(2, 2, 0), Origin::Client), Err(Error::OutOfOrderSequence { expected: 0, .. })));
        assert!(matches!(state.judge(&transactional(1, 2, 0), Origin::Client), Err(Error::ProducerFenced { .. })));
        let again = ProducerState::from_snapshot(&state.to_snapshot()).unwrap();
        assert_eq!(again.active().next(), state.active().next(), "a producer without a batch is in the snapshot too");
        assert_eq!(state.note_marker(&marker(3, 3, TransactionResult::Commit), &header), None, "nothing was open");
    }

    #[test]
    fn an_open_transaction_keeps_its_producer() {
        let mut state = ProducerState::default();
        state.note(&transactional(0, 0, 5));
        state.expire(i64::MAX, 50);
        assert_eq!(state.len(), 1);
        let end = marker(0, 0, TransactionResult::Commit);
        state.note_marker(&end, end.to_batch(2000).header());
        state.expire(i64::MAX, 50);
        assert!(state.is_empty());
    }

    #[test]
    fn markers_are_judged_case_by_case() {
        let mut open = ProducerState::default();
        open.note(&transactional(5, 0, 0));
        let mut ended = open.clone();
        let first = marker(6, 4, TransactionResult::Commit);
        ended.note_marker(&first, first.to_batch(2000).header());
        let (staying, bumping) = (EpochRule::Stays, EpochRule::Grows);
        let judged = |state: &ProducerState, epoch, coordinator_epoch, rule| match state
            .judge_marker(&marker(epoch, coordinator_epoch, TransactionResult::Abort), rule)
        {
            Ok(true) => "write",
            Ok(false) => "done",
            Err(Error::ProducerFenced { .. }) => "fenced",
            Err(Error::CoordinatorFenced { .. }) => "old coordinator",
            Err(other) => panic!("{other}"),
        };
        let cases = [
            (&open, 5, 0, staying, "write"),
            (&open, 5, 0, bumping, "fenced"),
            (&open, 6, 0, bumping, "write"),
            (&open, 6, 0, staying, "write"),
            (&open, 4, 0, staying, "fenced"),
            (&ended, 6, 4, bumping, "done"),
            (&ended, 6, 4, staying, "write"),
            (&ended, 5, 4, bumping, "fenced"),
            (&ended, 7, 4, bumping, "write"),
            (&ended, 7, 3, bumping, "old coordinator"),
            (&ProducerState::default(), 0, 0, bumping, "write"),
        ];
        for (number, (state, epoch, coordinator_epoch, rule, expected)) in cases.into_iter().enumerate() {
            assert_eq!(judged(state, epoch, coordinator_epoch, rule), expected, "case {number}");
        }
    }
}
