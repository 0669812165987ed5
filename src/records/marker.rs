//! The control batches that end transactions (KIP-98).
//!
//! | part | content |
//! |---|---|
//! | key | version (int16, 0), type (int16: 0 abort, 1 commit) |
//! | value | version (int16, 0), epoch of the coordinator (int32) |

use bytes::Bytes;

use super::{BatchBuilder, BatchHeader, CheckedBatch, Error, NewRecord, batch, layout};
use crate::model::{ProducerEpoch, ProducerId};

/// Version of key and value; later versions begin with the same fields.
const VERSION: i16 = 0;

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionResult {
    /// Consumers with `read_committed` do not get its records.
    Abort = 0,
    /// All consumers get its records.
    Commit = 1,
}

/// How a producer's epoch changes when its transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochRule {
    /// It stays the same.
    Stays,
    /// It grows with each transaction (KIP-890), so that a batch of an earlier transaction cannot become part of a later one.
    Grows,
}

/// A marker: the batch that the transaction coordinator writes into each partition of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// The producer of the transaction.
    pub producer_id: ProducerId,
    /// The producer's epoch in this partition after the marker (KIP-890), or its epoch in the transaction.
    pub producer_epoch: ProducerEpoch,
    /// How the transaction ends.
    pub result: TransactionResult,
    /// The leader epoch of the `__transaction_state` partition whose coordinator ended the transaction.
    pub coordinator_epoch: i32,
}

impl Marker {
    /// Builds the batch, as a checked one.
    pub fn to_batch(&self, now_ms: i64) -> CheckedBatch {
        let mut key = VERSION.to_be_bytes().to_vec();
        key.extend_from_slice(&(self.result as i16).to_be_bytes());
        let mut value = VERSION.to_be_bytes().to_vec();
        value.extend_from_slice(&self.coordinator_epoch.to_be_bytes());
        let bytes = BatchBuilder::new()
            .record(NewRecord::keyed(&key, Some(&value)))
            .producer(self.producer_id.0, self.producer_epoch.0, -1)
            .attributes(batch::TRANSACTIONAL_BIT | batch::CONTROL_BIT)
            .build(now_ms);
        CheckedBatch::own(bytes)
    }

    /// The marker in a stored batch; none if it is not a control batch, has no records any more, or has a control record of another type.
    pub fn read(header: &BatchHeader, batch: &[u8]) -> Result<Option<Marker>, Error> {
        if !header.is_control() || header.records_count == 0 {
            return Ok(None);
        }
        let opened = header.open(batch, batch.len())?;
        let Some(record) = opened.records().next() else { return Ok(None) };
        let record = record?;
        let number = |bytes: Option<&[u8]>, at: usize| bytes?.get(at..at + 2)?.try_into().ok().map(i16::from_be_bytes);
        let result = match number(record.key, 2) {
            Some(0) => TransactionResult::Abort,
            Some(1) => TransactionResult::Commit,
            _ => return Ok(None),
        };
        let epoch = record.value.and_then(|value| value.get(2..6)?.try_into().ok()).map(i32::from_be_bytes);
        let coordinator_epoch = epoch.ok_or(Error::Contradiction("a transaction marker does not have the coordinator epoch"))?;
        Ok(Some(Marker { producer_id: header.producer_id, producer_epoch: header.producer_epoch, result, coordinator_epoch }))
    }
}

impl CheckedBatch {
    /// A batch that the broker built.
    pub(super) fn own(bytes: Bytes) -> CheckedBatch {
        let header = BatchHeader::read(&bytes).expect("a batch that was just made is whole");
        CheckedBatch::of(header, bytes.slice(layout::SIZE..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_comes_back_from_its_batch() {
        for result in [TransactionResult::Abort, TransactionResult::Commit] {
            let marker = Marker { producer_id: ProducerId(7), producer_epoch: ProducerEpoch(3), result, coordinator_epoch: 12 };
            let batch = marker.to_batch(1000);
            assert!(batch.header().is_control() && batch.header().is_transactional() && batch.header().base_sequence == -1);
            let bytes = [&batch.header().to_bytes()[..], batch.body()].concat();
            batch.header().check_crc(&bytes).unwrap();
            assert_eq!(Marker::read(batch.header(), &bytes).unwrap(), Some(marker));
        }
    }

    #[test]
    fn other_batches_are_no_markers() {
        let data = BatchBuilder::new().record(NewRecord::value(b"x")).build(0);
        assert_eq!(Marker::read(&BatchHeader::read(&data).unwrap(), &data), Ok(None));
        let other = BatchBuilder::new().record(NewRecord::keyed(&[0, 0, 0, 2], Some(&[0; 6]))).attributes(batch::CONTROL_BIT).build(0);
        assert_eq!(Marker::read(&BatchHeader::read(&other).unwrap(), &other), Ok(None), "a leader change, as in KRaft");
        let cut = BatchBuilder::new().record(NewRecord::keyed(&[0, 0, 0, 1], Some(&[0; 3]))).attributes(batch::CONTROL_BIT).build(0);
        assert!(Marker::read(&BatchHeader::read(&cut).unwrap(), &cut).is_err());
    }
}
