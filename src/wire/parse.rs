//! The parsers. Each one accepts the cursor and returns the rest and the value.

use bytes::Bytes;
use nom::combinator::map;
use nom::number::complete as number;
use nom::{IResult, Parser};

use super::{Cursor, Error, Records};
use crate::model::Uuid;

/// The rest and the decoded value.
pub type Parsed<'a, T> = IResult<Cursor<'a>, T, Error>;

/// The maximum length of a string, as in Kafka's own parsers.
const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// The encoding of lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// int16 or int32; -1 is null.
    Plain,
    /// An unsigned varint of length + 1; 0 is null (KIP-482).
    Compact,
}

impl Form {
    /// The form for `version` of a message whose versions are flexible from `first`.
    pub fn flexible_from(version: i16, first: i16) -> Form {
        if version >= first { Form::Compact } else { Form::Plain }
    }
}

/// Declares parsers of big-endian numbers that use nom's own.
macro_rules! numbers {
    ($($name:ident -> $type:ty = $parser:ident;)*) => {
        $(
            #[doc = concat!("A big-endian ", stringify!($type), ".")]
            pub fn $name(input: Cursor<'_>) -> Parsed<'_, $type> {
                number::$parser(input)
            }
        )*
    };
}

numbers! {
    int8 -> i8 = be_i8;
    int16 -> i16 = be_i16;
    int32 -> i32 = be_i32;
    int64 -> i64 = be_i64;
    uint16 -> u16 = be_u16;
    uint32 -> u32 = be_u32;
    float64 -> f64 = be_f64;
}

/// One byte; every value except 0 is true.
pub fn boolean(input: Cursor<'_>) -> Parsed<'_, bool> {
    map(number::be_u8, |byte| byte != 0).parse(input)
}

/// 16 bytes, unchanged.
pub fn uuid(input: Cursor<'_>) -> Parsed<'_, Uuid> {
    map(number::be_u128, |bits| Uuid(bits.to_be_bytes())).parse(input)
}

/// Seven bits per byte, lowest first, at most `max` bytes: returns the value and the number of bytes read.
fn base128(bytes: &[u8], max: usize) -> Result<(u64, usize), Error> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(max).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, at + 1));
        }
    }
    Err(if bytes.len() < max { Error::Truncated { missing: 1 } } else { Error::Varint })
}

/// A zigzag varint at the start of a plain slice, and the rest: for iteration over records.
pub fn varint_in(bytes: &[u8]) -> Result<(i32, &[u8]), Error> {
    let (value, size) = base128(bytes, 5)?;
    let value = u32::try_from(value).map_err(|_| Error::Varint)?;
    Ok(((value >> 1) as i32 ^ -((value & 1) as i32), &bytes[size..]))
}

/// A zigzag varint of 64 bits at the start of a plain slice, and the rest.
pub fn varlong_in(bytes: &[u8]) -> Result<(i64, &[u8]), Error> {
    let (value, size) = base128(bytes, 10)?;
    Ok(((value >> 1) as i64 ^ -((value & 1) as i64), &bytes[size..]))
}

/// An unsigned varint of up to 5 bytes; values above 32 bits are rejected.
pub fn unsigned_varint(input: Cursor<'_>) -> Parsed<'_, u32> {
    let (value, size) = base128(input.rest(), 5).map_err(Error::fatal)?;
    let value = u32::try_from(value).map_err(|_| Error::Varint.fatal())?;
    Ok((input.split(size)?.1, value))
}

/// The length before a field; none is null.
fn length<'a>(input: Cursor<'a>, form: Form, plain: fn(Cursor<'a>) -> Parsed<'a, i64>) -> Parsed<'a, Option<usize>> {
    match form {
        Form::Plain => match plain(input)? {
            (rest, -1) => Ok((rest, None)),
            (rest, length) => Ok((rest, Some(usize::try_from(length).map_err(|_| Error::Length(length).fatal())?))),
        },
        Form::Compact => map(unsigned_varint, |length| length.checked_sub(1).map(|l| l as usize)).parse(input),
    }
}

fn length16(input: Cursor<'_>) -> Parsed<'_, i64> {
    map(int16, i64::from).parse(input)
}

fn length32(input: Cursor<'_>) -> Parsed<'_, i64> {
    map(int32, i64::from).parse(input)
}

/// The value; an error if it is null.
fn not_null<T>((rest, value): (Cursor<'_>, Option<T>)) -> Parsed<'_, T> {
    value.map(|value| (rest, value)).ok_or(Error::Length(-1).fatal())
}

/// Returns an error if the value is null, for versions in which null is not allowed.
pub fn require<T>(value: &Option<T>) -> Result<(), nom::Err<Error>> {
    if value.is_some() { Ok(()) } else { Err(Error::Length(-1).fatal()) }
}

/// A nullable string.
pub fn nullable_string(input: Cursor<'_>, form: Form) -> Parsed<'_, Option<String>> {
    let (rest, length) = length(input, form, length16)?;
    let Some(length) = length else { return Ok((rest, None)) };
    if length > STRING_BYTES_MAX {
        return Err(Error::StringTooLong(length).fatal());
    }
    let (text, rest) = rest.split(length)?;
    let text = std::str::from_utf8(text.rest()).map_err(|_| Error::Utf8.fatal())?;
    Ok((rest, Some(text.to_string())))
}

/// A string.
pub fn string(input: Cursor<'_>, form: Form) -> Parsed<'_, String> {
    not_null(nullable_string(input, form)?)
}

/// Nullable bytes, as a slice of the frame.
pub fn nullable_bytes(input: Cursor<'_>, form: Form) -> Parsed<'_, Option<Bytes>> {
    let (rest, length) = length(input, form, length32)?;
    let Some(length) = length else { return Ok((rest, None)) };
    let (bytes, rest) = rest.split(length)?;
    Ok((rest, Some(bytes.share())))
}

/// Bytes, as a slice of the frame.
pub fn bytes(input: Cursor<'_>, form: Form) -> Parsed<'_, Bytes> {
    not_null(nullable_bytes(input, form)?)
}

/// Nullable record batches, as a slice of the frame.
pub fn nullable_records(input: Cursor<'_>, form: Form) -> Parsed<'_, Option<Records>> {
    nullable_bytes(input, form).map(|(rest, bytes)| (rest, bytes.map(Records::Bytes)))
}

/// Record batches, as a slice of the frame.
pub fn records(input: Cursor<'_>, form: Form) -> Parsed<'_, Records> {
    not_null(nullable_records(input, form)?)
}

/// A nullable array. `smallest` is the minimum encoded size of an item: capacity is reserved only for as many items as the frame can contain.
pub fn nullable_array<'a, T>(
    input: Cursor<'a>,
    form: Form,
    smallest: usize,
    mut item: impl FnMut(Cursor<'a>) -> Parsed<'a, T>,
) -> Parsed<'a, Option<Vec<T>>> {
    let (mut rest, count) = length(input, form, length32)?;
    let Some(count) = count else { return Ok((rest, None)) };
    let needed = count.saturating_mul(smallest);
    if needed > rest.len() {
        return Err(Error::Truncated { missing: needed - rest.len() }.fatal());
    }
    rest.charge_items(count)?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        let (after, value) = item(rest)?;
        items.push(value);
        rest = after;
    }
    Ok((rest, Some(items)))
}

/// An array.
pub fn array<'a, T>(input: Cursor<'a>, form: Form, smallest: usize, item: impl FnMut(Cursor<'a>) -> Parsed<'a, T>) -> Parsed<'a, Vec<T>> {
    not_null(nullable_array(input, form, smallest, item)?)
}

/// A nullable struct: an int8, which is below 0 for null; otherwise the struct follows.
pub fn nullable<'a, T>(input: Cursor<'a>, item: impl FnOnce(Cursor<'a>) -> Parsed<'a, T>) -> Parsed<'a, Option<T>> {
    match int8(input)? {
        (rest, mark) if mark < 0 => Ok((rest, None)),
        (rest, _) => item(rest).map(|(rest, value)| (rest, Some(value))),
    }
}

/// The tag buffer of a flexible struct (KIP-482); `take` is called with each tag and its bytes. Tags must be in ascending order.
pub fn tags<'a>(
    input: Cursor<'a>,
    mut take: impl FnMut(u32, Cursor<'a>) -> Result<(), nom::Err<Error>>,
) -> Result<Cursor<'a>, nom::Err<Error>> {
    let (mut rest, count) = unsigned_varint(input)?;
    let mut last = None;
    for _ in 0..count {
        let (after, tag) = unsigned_varint(rest)?;
        if last.is_some_and(|last| last >= tag) {
            return Err(Error::TagOrder(tag).fatal());
        }
        last = Some(tag);
        let (after, size) = unsigned_varint(after)?;
        let (field, after) = after.split(size as usize)?;
        take(tag, field)?;
        rest = after;
    }
    Ok(rest)
}

/// A tag buffer without known tags: all tags are ignored.
pub fn unknown_tags(input: Cursor<'_>) -> Parsed<'_, ()> {
    tags(input, |_, _| Ok(())).map(|rest| (rest, ()))
}

/// Decodes all of `input` with one parser.
pub fn whole<'a, T>(input: Cursor<'a>, parser: impl FnOnce(Cursor<'a>) -> Parsed<'a, T>) -> Result<T, nom::Err<Error>> {
    match parser(input)? {
        (rest, value) if rest.is_empty() => Ok(value),
        (rest, _) => Err(Error::LeftOver(rest.len()).fatal()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Frame;

    fn parsed<T>(bytes: &[u8], parser: impl FnOnce(Cursor<'_>) -> Parsed<'_, T>) -> Result<T, Error> {
        let frame = Frame::new(Bytes::copy_from_slice(bytes));
        Ok(parser(frame.cursor()).map_err(Error::from)?.1)
    }

    #[test]
    fn varints_are_zigzag_and_bounded() {
        let cases: [(&[u8], i32); 6] = [
            (&[0], 0),
            (&[1], -1),
            (&[2], 1),
            (&[0xff, 0x01], -128),
            (&[0xfe, 0xff, 0xff, 0xff, 0x0f], i32::MAX),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], i32::MIN),
        ];
        for (bytes, value) in cases {
            assert_eq!(varint_in(bytes), Ok((value, &[][..])), "{bytes:?}");
        }
        assert_eq!(varint_in(&[0xff; 6]), Err(Error::Varint));
        assert_eq!(varint_in(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(Error::Varint));
        assert_eq!(parsed(&[0x80], unsigned_varint), Err(Error::Truncated { missing: 1 }));
        assert_eq!(varlong_in(&[0xff; 11]), Err(Error::Varint));
    }

    #[test]
    fn hostile_lengths_are_refused_without_reserving() {
        let huge = [0x7f, 0xff, 0xff, 0xff];
        assert!(matches!(parsed(&huge, |i| array(i, Form::Plain, 4, int32)), Err(Error::Truncated { .. })));
        assert!(matches!(parsed(&huge, |i| bytes(i, Form::Plain)), Err(Error::Truncated { .. })));
        assert_eq!(parsed(&[0xff, 0xff, 0xff, 0xfe], |i| bytes(i, Form::Plain)), Err(Error::Length(-2)));
        assert_eq!(parsed(&[0xff, 0xff], |i| string(i, Form::Plain)), Err(Error::Length(-1)));
        assert_eq!(parsed(&[0], |i| string(i, Form::Compact)), Err(Error::Length(-1)));
        assert_eq!(parsed(&[0x81, 0x80, 0x02], |i| string(i, Form::Compact)), Err(Error::StringTooLong(32768)));
        assert_eq!(parsed(&[2, 0xff], |i| string(i, Form::Compact)), Err(Error::Utf8));
    }

    #[test]
    fn a_frame_has_a_budget_of_items() {
        let mut frame = vec![0, 7, 0xa1, 0x21];
        frame.resize(4 + 500_001, 1);
        assert_eq!(parsed(&frame, |i| array(i, Form::Plain, 1, int8)).map(|v| v.len()), Err(Error::Items));
    }

    #[test]
    fn tags_must_ascend() {
        assert_eq!(parsed(&[2, 0, 0, 0, 0], unknown_tags), Err(Error::TagOrder(0)));
        assert_eq!(parsed(&[2, 0, 1, 9, 5, 0], unknown_tags), Ok(()));
        assert!(matches!(parsed(&[0xff, 0xff, 0xff, 0xff, 0x0f], unknown_tags), Err(Error::Truncated { .. })));
    }
}
