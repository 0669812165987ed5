//! nom parsers and writers for the primitive types, with every length checked.
//!
//! A parser accepts a [`Cursor`], a small `Copy` value over one frame. Fields of bytes and records become slices of the frame and are never copied.
//! The size of an allocation never depends on a count in the message alone: an array reserves at most as many items as the remaining bytes can
//! contain, and one frame may contain at most [`ITEMS_MAX`] array items in total.

mod cursor;
mod error;
mod parse;
mod records;
mod write;

pub use cursor::{Cursor, Frame, ITEMS_MAX};
pub use error::Error;
pub use parse::{
    Form, Parsed, array, boolean, bytes, float64, int8, int16, int32, int64, nullable, nullable_array, nullable_bytes, nullable_records,
    nullable_string, records, require, string, tags, uint16, uint32, unknown_tags, unsigned_varint, uuid, varint_in, varlong_in, whole,
};
pub use records::Records;
pub use write::{Hole, Tags, Writer, put_unsigned_varint, put_varint, put_varlong, varint_size, varlong_size};
