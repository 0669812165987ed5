//! The header of a batch.

use std::borrow::Cow;

use super::legacy::{self, Messages};
use super::{Codec, Error, Record, Records, decompress, layout};
use crate::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Bytes of base offset and batch length, which are not included in the batch length.
const LENGTH_PREFIX_BYTES: usize = layout::PARTITION_LEADER_EPOCH;

const TIMESTAMP_TYPE_BIT: i16 = 1 << 3;
pub(super) const TRANSACTIONAL_BIT: i16 = 1 << 4;
pub(super) const CONTROL_BIT: i16 = 1 << 5;
const DELETE_HORIZON_BIT: i16 = 1 << 6;
const CODEC_BITS: i16 = 7;

/// Who sets the timestamps of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer.
    CreateTime,
    /// The broker: every record has the largest timestamp of the batch.
    LogAppendTime,
}

/// The header of 61 bytes before the records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Bytes after this field.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch; not covered by the checksum.
    pub leader_epoch: LeaderEpoch,
    /// The format, 2.
    pub magic: i8,
    /// CRC-32C of everything from the attributes to the end.
    pub crc: u32,
    /// Codec, timestamp type, and the transactional and control bits.
    pub attributes: i16,
    /// Offset of the last record, relative to the first.
    pub last_offset_delta: i32,
    /// Base timestamp of the records' timestamp deltas, in milliseconds.
    pub base_timestamp: i64,
    /// The largest timestamp.
    pub max_timestamp: i64,
    /// The producer, or -1.
    pub producer_id: ProducerId,
    /// Its epoch, or -1.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// The number of records.
    pub records_count: i32,
}

/// The bytes of a field at a fixed position.
fn at<const N: usize>(bytes: &[u8; layout::SIZE], position: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[position..position + N]);
    field
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`; checks only that it is complete, that its format is known, and that its length is possible. A
    /// message of format 0 or 1 is read as a batch of one record.
    pub fn read(bytes: &[u8]) -> Result<BatchHeader, Error> {
        match bytes.get(layout::MAGIC).map(|b| *b as i8) {
            Some(magic @ (0 | 1)) => return legacy::read_header(bytes, magic),
            Some(2) | None => {}
            Some(magic) => return Err(Error::Magic(magic)),
        }
        let bytes = bytes.first_chunk::<{ layout::SIZE }>().ok_or(Error::Empty)?;
        let header = BatchHeader {
            base_offset: Offset(i64::from_be_bytes(at(bytes, layout::BASE_OFFSET))),
            batch_length: i32::from_be_bytes(at(bytes, layout::BATCH_LENGTH)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(at(bytes, layout::PARTITION_LEADER_EPOCH))),
            magic: bytes[layout::MAGIC] as i8,
            crc: u32::from_be_bytes(at(bytes, layout::CRC)),
            attributes: i16::from_be_bytes(at(bytes, layout::ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(at(bytes, layout::LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(at(bytes, layout::BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(at(bytes, layout::MAX_TIMESTAMP)),
            producer_id: ProducerId(i64::from_be_bytes(at(bytes, layout::PRODUCER_ID))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(at(bytes, layout::PRODUCER_EPOCH))),
            base_sequence: i32::from_be_bytes(at(bytes, layout::BASE_SEQUENCE)),
            records_count: i32::from_be_bytes(at(bytes, layout::RECORDS_COUNT)),
        };
        if header.batch_length < (layout::SIZE - LENGTH_PREFIX_BYTES) as i32 {
            return Err(Error::Length(header.batch_length));
        }
        Ok(header)
    }

    /// The header's bytes.
    pub fn to_bytes(&self) -> [u8; layout::SIZE] {
        let mut bytes = [0; layout::SIZE];
        let mut put = |position: usize, field: &[u8]| bytes[position..position + field.len()].copy_from_slice(field);
        put(layout::BASE_OFFSET, &self.base_offset.0.to_be_bytes());
        put(layout::BATCH_LENGTH, &self.batch_length.to_be_bytes());
        put(layout::PARTITION_LEADER_EPOCH, &self.leader_epoch.0.to_be_bytes());
        put(layout::MAGIC, &self.magic.to_be_bytes());
        put(layout::CRC, &self.crc.to_be_bytes());
        put(layout::ATTRIBUTES, &self.attributes.to_be_bytes());
        put(layout::LAST_OFFSET_DELTA, &self.last_offset_delta.to_be_bytes());
        put(layout::BASE_TIMESTAMP, &self.base_timestamp.to_be_bytes());
        put(layout::MAX_TIMESTAMP, &self.max_timestamp.to_be_bytes());
        put(layout::PRODUCER_ID, &self.producer_id.0.to_be_bytes());
        put(layout::PRODUCER_EPOCH, &self.producer_epoch.0.to_be_bytes());
        put(layout::BASE_SEQUENCE, &self.base_sequence.to_be_bytes());
        put(layout::RECORDS_COUNT, &self.records_count.to_be_bytes());
        bytes
    }

    /// Bytes of the whole batch.
    pub fn size(&self) -> usize {
        LENGTH_PREFIX_BYTES + self.batch_length.max(0) as usize
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    /// Offset of the record after the last one.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// Sequence of the last record; sequences wrap from 2147483647 to 0.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        ((i64::from(self.base_sequence) + i64::from(self.last_offset_delta)) % (i64::from(i32::MAX) + 1)) as i32
    }

    /// How the records are compressed.
    pub fn codec(&self) -> Result<Codec, Error> {
        Codec::from_attributes(self.attributes)
    }

    /// Whether it is a message of format 0 or 1.
    pub fn is_legacy(&self) -> bool {
        self.magic < 2
    }

    /// Opens a whole batch: compressed records are decompressed to at most `max` bytes.
    pub fn open<'a>(&self, batch: &'a [u8], max: usize) -> Result<Opened<'a>, Error> {
        if self.is_legacy() {
            return Ok(Opened { header: *self, records: legacy::open(self, batch, max)? });
        }
        let body = batch.get(layout::SIZE..).ok_or(Error::Empty)?;
        let records = match self.codec()? {
            Codec::None => Cow::Borrowed(body),
            codec => Cow::Owned(decompress(codec, body, max)?),
        };
        Ok(Opened { header: *self, records })
    }

    /// Who set the timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & TIMESTAMP_TYPE_BIT == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    /// Sets the timestamp type.
    pub(super) fn set_timestamp_type(&mut self, kind: TimestampType) {
        match kind {
            TimestampType::CreateTime => self.attributes &= !TIMESTAMP_TYPE_BIT,
            TimestampType::LogAppendTime => self.attributes |= TIMESTAMP_TYPE_BIT,
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch contains control records, for example a transaction marker.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// The time from which the tombstones of a compacted batch may be deleted, in milliseconds since 1970 (KIP-534); none before its first
    /// compaction.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }

    pub(super) fn set_delete_horizon(&mut self, horizon_ms: i64) {
        self.attributes |= DELETE_HORIZON_BIT;
        self.base_timestamp = horizon_ms;
    }

    pub(super) fn clear_codec(&mut self) {
        self.attributes &= !CODEC_BITS;
    }

    /// The checksum of this header's fields from the attributes on, and `body`.
    pub fn compute_crc(&self, body: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.to_bytes()[layout::ATTRIBUTES..]), body)
    }

    /// Compares the checksum in the header with that of a whole batch.
    pub fn check_crc(&self, batch: &[u8]) -> Result<(), Error> {
        let computed = match self.is_legacy() {
            true => legacy::compute_crc(batch)?,
            false => crc32c::crc32c(batch.get(layout::ATTRIBUTES..).ok_or(Error::Empty)?),
        };
        if computed == self.crc { Ok(()) } else { Err(Error::Crc { stored: self.crc, computed }) }
    }
}

/// A batch with its records decompressed.
#[derive(Debug)]
pub struct Opened<'a> {
    header: BatchHeader,
    records: Cow<'a, [u8]>,
}

impl Opened<'_> {
    /// The records.
    pub fn records(&self) -> impl Iterator<Item = Result<Record<'_>, Error>> {
        let header = &self.header;
        let legacy = header.is_legacy().then(|| Messages::new(header, &self.records));
        let current = (!header.is_legacy()).then(|| Records::new(&self.records, header.records_count));
        legacy.into_iter().flatten().chain(current.into_iter().flatten())
    }

    /// Bytes of the records.
    pub fn size(&self) -> usize {
        self.records.len()
    }
}

/// The whole batches at the front of `bytes`, with their headers; an incomplete batch at the end is ignored.
pub fn batches(bytes: &[u8]) -> impl Iterator<Item = Result<(BatchHeader, &[u8]), Error>> {
    let mut rest = bytes;
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed {
            return None;
        }
        match BatchHeader::read(rest) {
            Ok(header) => {
                let (batch, after) = rest.split_at_checked(header.size())?;
                rest = after;
                Some(Ok((header, batch)))
            }
            // The remaining bytes are shorter than a header.
            Err(Error::Empty) => None,
            Err(error) => {
                failed = true;
                Some(Err(error))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{BatchBuilder, NewRecord};

    #[test]
    fn a_header_comes_back_from_its_bytes() {
        let batch = BatchBuilder::new().record(NewRecord::value(b"x")).build(5);
        let header = BatchHeader::read(&batch).unwrap();
        assert_eq!(header.to_bytes(), batch[..layout::SIZE]);
        assert_eq!(header.size(), batch.len());
        header.check_crc(&batch).unwrap();
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let batch = BatchBuilder::new().record(NewRecord::value(b"x")).record(NewRecord::value(b"y")).producer(1, 0, i32::MAX).build(0);
        assert_eq!(BatchHeader::read(&batch).unwrap().last_sequence(), 0);
    }

    #[test]
    fn impossible_lengths_and_other_formats_are_errors() {
        let good = BatchBuilder::new().record(NewRecord::value(b"x")).build(0);
        let mut bytes = good.to_vec();
        bytes[layout::BATCH_LENGTH..layout::BATCH_LENGTH + 4].copy_from_slice(&(-5_i32).to_be_bytes());
        assert_eq!(BatchHeader::read(&bytes), Err(Error::Length(-5)));
        bytes[layout::MAGIC] = 3;
        assert_eq!(BatchHeader::read(&bytes), Err(Error::Magic(3)));
        assert_eq!(batches(&good[..good.len() - 1]).count(), 0);
    }
}
