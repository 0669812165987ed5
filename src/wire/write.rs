//! The writers.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Form, Records};
use crate::model::Uuid;

/// A position in the written bytes at which the sender inserts records from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The number of written bytes before it.
    pub position: usize,
    /// The number of bytes to insert.
    pub length: usize,
}

/// Encodes a message; holes are placeholders for records that the sender inserts.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: BytesMut,
    holes: Vec<Hole>,
}

/// The tagged fields of a struct that differ from their defaults, in ascending order.
#[derive(Debug, Default)]
pub struct Tags(Vec<(u32, Bytes)>);

impl Tags {
    /// No tagged field.
    pub fn new() -> Self {
        Tags::default()
    }

    /// Adds a field; tags must be added in ascending order.
    pub fn add(&mut self, tag: u32, write: impl FnOnce(&mut Writer)) {
        let mut writer = Writer::default();
        write(&mut writer);
        self.0.push((tag, writer.into_bytes()));
    }
}

impl Writer {
    /// A writer with a capacity of `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Writer { buffer: BytesMut::with_capacity(capacity), holes: Vec::new() }
    }

    /// The written bytes; there must be no hole.
    pub fn into_bytes(self) -> Bytes {
        assert!(self.holes.is_empty(), "{} holes are not filled", self.holes.len());
        self.buffer.freeze()
    }

    /// The written bytes, and the holes that must still be filled.
    pub fn into_parts(self) -> (BytesMut, Vec<Hole>) {
        (self.buffer, self.holes)
    }

    /// The length of the message, including holes.
    pub fn message_len(&self) -> usize {
        self.buffer.len() + self.holes.iter().map(|hole| hole.length).sum::<usize>()
    }

    /// One byte, 0 or 1.
    pub fn boolean(&mut self, value: bool) {
        self.buffer.put_u8(u8::from(value));
    }

    /// One byte.
    pub fn int8(&mut self, value: i8) {
        self.buffer.put_i8(value);
    }

    /// Two bytes, big-endian.
    pub fn int16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }

    /// Two bytes, big-endian.
    pub fn uint16(&mut self, value: u16) {
        self.buffer.put_u16(value);
    }

    /// Four bytes, big-endian.
    pub fn int32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    /// Four bytes, big-endian.
    pub fn uint32(&mut self, value: u32) {
        self.buffer.put_u32(value);
    }

    /// Eight bytes, big-endian.
    pub fn int64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    /// Eight bytes, big-endian.
    pub fn float64(&mut self, value: f64) {
        self.buffer.put_f64(value);
    }

    /// 16 bytes, unchanged.
    pub fn uuid(&mut self, value: Uuid) {
        self.buffer.put_slice(&value.0);
    }

    /// Bytes without a length, unchanged.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    /// An unsigned varint.
    pub fn unsigned_varint(&mut self, value: u32) {
        put_unsigned_varint(&mut self.buffer, value);
    }

    /// A string of at most 32,767 bytes: strings from clients were checked, and the broker's own strings are shorter.
    pub fn string(&mut self, value: &str, form: Form) {
        self.nullable_string(Some(value), form);
    }

    /// A string or null.
    pub fn nullable_string(&mut self, value: Option<&str>, form: Form) {
        match form {
            Form::Compact => self.length(value.map(str::len), form),
            Form::Plain => {
                let length = value.map_or(-1, |text| i16::try_from(text.len()).expect("strings are bounded where they enter"));
                self.int16(length);
            }
        }
        self.raw(value.unwrap_or_default().as_bytes());
    }

    /// Bytes.
    pub fn bytes(&mut self, value: &Bytes, form: Form) {
        self.nullable_bytes(Some(value), form);
    }

    /// Bytes or null.
    pub fn nullable_bytes(&mut self, value: Option<&Bytes>, form: Form) {
        self.length(value.map(|v| v.len()), form);
        if let Some(value) = value {
            self.raw(value);
        }
    }

    /// Record batches, or a hole for them.
    pub fn records(&mut self, value: &Records, form: Form) {
        self.nullable_records(Some(value), form);
    }

    /// Record batches, or a hole for them, or null.
    pub fn nullable_records(&mut self, value: Option<&Records>, form: Form) {
        self.length(value.map(Records::len), form);
        match value {
            Some(Records::Bytes(bytes)) => self.raw(bytes),
            Some(Records::Elsewhere { length }) => self.holes.push(Hole { position: self.buffer.len(), length: *length }),
            None => {}
        }
    }

    /// An array.
    pub fn array<T>(&mut self, items: &[T], form: Form, write: impl FnMut(&mut Writer, &T)) {
        self.nullable_array(Some(items), form, write);
    }

    /// An array or null.
    pub fn nullable_array<T>(&mut self, items: Option<&[T]>, form: Form, mut write: impl FnMut(&mut Writer, &T)) {
        self.length(items.map(<[T]>::len), form);
        for item in items.unwrap_or_default() {
            write(self, item);
        }
    }

    /// A struct or null.
    pub fn nullable<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Writer, &T)) {
        self.int8(if value.is_some() { 1 } else { -1 });
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// The tag buffer of a flexible struct.
    pub fn tags(&mut self, tags: Tags) {
        self.unsigned_varint(tags.0.len() as u32);
        for (tag, field) in tags.0 {
            self.unsigned_varint(tag);
            self.unsigned_varint(field.len() as u32);
            self.raw(&field);
        }
    }

    fn length(&mut self, length: Option<usize>, form: Form) {
        match form {
            Form::Plain => self.int32(length.map_or(-1, |l| i32::try_from(l).expect("frames are far below 2 GiB"))),
            Form::Compact => self.unsigned_varint(length.map_or(0, |l| u32::try_from(l + 1).expect("frames are far below 2 GiB"))),
        }
    }
}

/// Writes an unsigned varint.
pub fn put_unsigned_varint(buffer: &mut impl BufMut, value: u32) {
    put_base128(buffer, u64::from(value));
}

/// Writes a zigzag varint.
pub fn put_varint(buffer: &mut impl BufMut, value: i32) {
    put_base128(buffer, u64::from(zigzag32(value)));
}

/// Writes a zigzag varint of 64 bits.
pub fn put_varlong(buffer: &mut impl BufMut, value: i64) {
    put_base128(buffer, zigzag64(value));
}

/// The number of bytes that [`put_varint`] writes.
pub fn varint_size(value: i32) -> usize {
    base128_size(u64::from(zigzag32(value)))
}

/// The number of bytes that [`put_varlong`] writes.
pub fn varlong_size(value: i64) -> usize {
    base128_size(zigzag64(value))
}

fn zigzag32(value: i32) -> u32 {
    (value << 1 ^ value >> 31) as u32
}

fn zigzag64(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn base128_size(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

fn put_base128(buffer: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        buffer.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{varint_in, varlong_in};

    proptest! {
        #[test]
        fn varints_come_back(value: i32, long: i64) {
            let mut buffer = BytesMut::new();
            put_varint(&mut buffer, value);
            prop_assert_eq!(buffer.len(), varint_size(value));
            put_varlong(&mut buffer, long);
            prop_assert_eq!(buffer.len(), varint_size(value) + varlong_size(long));
            let (read, rest) = varint_in(&buffer).unwrap();
            prop_assert_eq!(read, value);
            prop_assert_eq!(varlong_in(rest).unwrap().0, long);
        }
    }

    #[test]
    fn records_from_elsewhere_leave_a_hole() {
        let mut writer = Writer::default();
        writer.int16(7);
        writer.records(&Records::Elsewhere { length: 300 }, Form::Compact);
        writer.int8(1);
        assert_eq!(writer.message_len(), 2 + 2 + 300 + 1);
        let (bytes, holes) = writer.into_parts();
        assert_eq!(holes, [Hole { position: 4, length: 300 }]);
        assert_eq!(&bytes[..], [0, 7, 0xad, 2, 1]);
    }
}
