//! Message formats 0 and 1, which brokers before Kafka 0.11 wrote: they are in old directories, and are read but never written.
//!
//! A message is not in a batch: offset (int64), size (int32), CRC-32 of the following bytes (int32), magic (int8), attributes (int8), in format 1 a
//! timestamp (int64), and key and value, each after an int32 length. The value of a compressed message is a set of messages, and its offset is that
//! of the last of them. Offsets in the set are absolute in format 0 and relative to the first one in format 1 (KIP-31, KIP-32).

use std::borrow::Cow;

use super::{BatchHeader, Codec, Error, Record, decompress, layout};
use crate::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Position of the checksum, after offset and size.
const CRC: usize = 12;
/// Position of the attributes, after the magic.
const ATTRIBUTES: usize = 17;
/// The bits of the codec, and in format 1 of the timestamp type, which have the same position in format 2.
const ATTRIBUTES_KEPT: [i16; 2] = [0b0111, 0b1111];

fn field<const N: usize>(bytes: &[u8], position: usize) -> Result<[u8; N], Error> {
    bytes.get(position..).and_then(|bytes| bytes.first_chunk()).copied().ok_or(Error::Empty)
}

/// Bytes before the key's length.
fn prefix(magic: i8) -> usize {
    if magic == 0 { ATTRIBUTES + 1 } else { ATTRIBUTES + 1 + 8 }
}

/// The header of a message as if it were a batch of one record, or of the last record of a compressed message.
pub(super) fn read_header(bytes: &[u8], magic: i8) -> Result<BatchHeader, Error> {
    let batch_length = i32::from_be_bytes(field(bytes, layout::BATCH_LENGTH)?);
    // At least two lengths follow the prefix.
    if batch_length < (prefix(magic) + 8 - CRC) as i32 {
        return Err(Error::Length(batch_length));
    }
    let timestamp = if magic == 0 { -1 } else { i64::from_be_bytes(field(bytes, ATTRIBUTES + 1)?) };
    let [attributes] = field(bytes, ATTRIBUTES)?;
    Ok(BatchHeader {
        base_offset: Offset(i64::from_be_bytes(field(bytes, layout::BASE_OFFSET)?)),
        batch_length,
        leader_epoch: LeaderEpoch(-1),
        magic,
        crc: u32::from_be_bytes(field(bytes, CRC)?),
        attributes: i16::from(attributes) & ATTRIBUTES_KEPT[usize::from(magic == 1)],
        last_offset_delta: 0,
        base_timestamp: timestamp,
        max_timestamp: timestamp,
        producer_id: ProducerId(-1),
        producer_epoch: ProducerEpoch(-1),
        base_sequence: -1,
        records_count: 1,
    })
}

/// The checksum of a whole message.
pub(super) fn compute_crc(message: &[u8]) -> Result<u32, Error> {
    Ok(crc32fast::hash(message.get(layout::MAGIC..).ok_or(Error::Empty)?))
}

/// The set of messages in a message: the message itself, or its decompressed value.
pub(super) fn open<'a>(header: &BatchHeader, message: &'a [u8], max: usize) -> Result<Cow<'a, [u8]>, Error> {
    match header.codec()? {
        Codec::None => Ok(Cow::Borrowed(message)),
        codec => {
            let (_, value) = key_and_value(message, header.magic)?;
            Ok(Cow::Owned(decompress(codec, value.unwrap_or_default(), max)?))
        }
    }
}

/// Walks over a set of messages. The deltas are relative to the values in the header.
#[derive(Debug)]
pub(super) struct Messages<'a> {
    rest: &'a [u8],
    index: usize,
    /// The offset inside the set that corresponds to the header's offset.
    last: i64,
    timestamp: i64,
}

impl<'a> Messages<'a> {
    pub(super) fn new(header: &BatchHeader, set: &'a [u8]) -> Self {
        let mut messages = Messages { rest: set, index: 0, last: header.base_offset.0, timestamp: header.base_timestamp };
        if header.magic == 1 && header.codec() != Ok(Codec::None) {
            while let Ok((offset, message)) = messages.split() {
                messages.last = offset;
                messages.rest = &messages.rest[message.len()..];
            }
            messages.rest = set;
        }
        messages
    }

    /// The first of the remaining messages with its offset.
    fn split(&self) -> Result<(i64, &'a [u8]), Error> {
        let offset = i64::from_be_bytes(field(self.rest, layout::BASE_OFFSET)?);
        let length = i32::from_be_bytes(field(self.rest, layout::BATCH_LENGTH)?);
        let size = usize::try_from(length).map_err(|_| Error::Length(length))?;
        Ok((offset, self.rest.get(..CRC + size).ok_or(Error::Empty)?))
    }

    fn message(&mut self) -> Result<Record<'a>, Error> {
        let (offset, message) = self.split()?;
        self.rest = &self.rest[message.len()..];
        let [magic] = field(message, layout::MAGIC)?;
        if magic > 1 {
            return Err(Error::Magic(magic as i8));
        }
        let timestamp = if magic == 0 { self.timestamp } else { i64::from_be_bytes(field(message, ATTRIBUTES + 1)?) };
        let delta = offset.checked_sub(self.last).and_then(|delta| i32::try_from(delta).ok());
        let (key, value) = key_and_value(message, magic as i8)?;
        Ok(Record::plain(
            delta.ok_or(Error::Contradiction("the offset or the timestamp of a message is too far from the others"))?,
            timestamp.wrapping_sub(self.timestamp),
            key,
            value,
            message,
        ))
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Record<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let index = self.index;
        self.index += 1;
        Some(self.message().map_err(|error| {
            self.rest = &[];
            Error::Record { index, what: error.to_string() }
        }))
    }
}

type KeyAndValue<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

fn key_and_value(message: &[u8], magic: i8) -> Result<KeyAndValue<'_>, Error> {
    let (key, at) = nullable(message, prefix(magic))?;
    let (value, _) = nullable(message, at)?;
    Ok((key, value))
}

/// The bytes after an int32 length (-1 is null), and their end.
fn nullable(bytes: &[u8], at: usize) -> Result<(Option<&[u8]>, usize), Error> {
    let length = i32::from_be_bytes(field(bytes, at)?);
    if length == -1 {
        return Ok((None, at + 4));
    }
    let end = at + 4 + usize::try_from(length).map_err(|_| Error::Length(length))?;
    Ok((Some(bytes.get(at + 4..end).ok_or(Error::Empty)?), end))
}
