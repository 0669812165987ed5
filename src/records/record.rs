//! Records inside a batch.

use super::Error;
use crate::wire::{self, varint_in, varlong_in};

/// One record, borrowed from its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Relative to the batch's base offset.
    pub offset_delta: i32,
    /// Relative to the batch's base timestamp, in milliseconds.
    pub timestamp_delta: i64,
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value, or null.
    pub value: Option<&'a [u8]>,
    /// All its bytes, without the length before them.
    pub(super) bytes: &'a [u8],
    /// The bytes of the headers, which [`Record::headers`] decodes.
    headers: &'a [u8],
    headers_count: i32,
}

/// A header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name.
    pub key: &'a str,
    /// The value, or null.
    pub value: Option<&'a [u8]>,
}

/// Walks over the (decompressed) records of a batch.
#[derive(Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    index: usize,
    count: usize,
}

impl<'a> Records<'a> {
    /// `count` records in `bytes`.
    pub fn new(bytes: &'a [u8], count: i32) -> Self {
        Records { rest: bytes, index: 0, count: count.max(0) as usize }
    }

    fn next_record(&mut self) -> Result<Record<'a>, wire::Error> {
        let (length, rest) = varint_in(self.rest)?;
        let length = usize::try_from(length).map_err(|_| wire::Error::Length(i64::from(length)))?;
        let (record, after) = rest.split_at_checked(length).ok_or_else(|| wire::Error::Truncated { missing: length - rest.len() })?;
        self.rest = after;
        let (_attributes, rest) = record.split_first().ok_or(wire::Error::Truncated { missing: 1 })?;
        let (timestamp_delta, rest) = varlong_in(rest)?;
        let (offset_delta, rest) = varint_in(rest)?;
        let (key, rest) = nullable(rest)?;
        let (value, rest) = nullable(rest)?;
        let (headers_count, headers) = varint_in(rest)?;
        let record = Record { offset_delta, timestamp_delta, key, value, bytes: record, headers, headers_count };
        record.check_headers()?;
        Ok(record)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Error>;

    /// The next record; remaining bytes after the last one are an error.
    fn next(&mut self) -> Option<Self::Item> {
        let index = self.index;
        self.index += 1;
        let malformed = |what: wire::Error| Error::Record { index, what: what.to_string() };
        match index.cmp(&self.count) {
            std::cmp::Ordering::Less => Some(self.next_record().map_err(|error| {
                self.index = self.count + 1;
                malformed(error)
            })),
            std::cmp::Ordering::Equal if !self.rest.is_empty() => Some(Err(malformed(wire::Error::LeftOver(self.rest.len())))),
            _ => None,
        }
    }
}

impl<'a> Record<'a> {
    /// A record without headers.
    pub(super) fn plain(offset_delta: i32, timestamp_delta: i64, key: Option<&'a [u8]>, value: Option<&'a [u8]>, bytes: &'a [u8]) -> Self {
        Record { offset_delta, timestamp_delta, key, value, bytes, headers: &[], headers_count: 0 }
    }

    /// The headers.
    pub fn headers(&self) -> Result<Vec<Header<'a>>, wire::Error> {
        let mut headers = Vec::new();
        self.walk_headers(|key, value| {
            headers.push(Header { key: std::str::from_utf8(key).map_err(|_| wire::Error::Utf8)?, value });
            Ok(())
        })?;
        Ok(headers)
    }

    fn check_headers(&self) -> Result<(), wire::Error> {
        self.walk_headers(|_, _| Ok(()))
    }

    fn walk_headers(&self, mut each: impl FnMut(&'a [u8], Option<&'a [u8]>) -> Result<(), wire::Error>) -> Result<(), wire::Error> {
        if self.headers_count < 0 {
            return Err(wire::Error::Length(i64::from(self.headers_count)));
        }
        let mut rest = self.headers;
        for _ in 0..self.headers_count {
            let (key, after) = nullable(rest)?;
            let (value, after) = nullable(after)?;
            each(key.ok_or(wire::Error::Length(-1))?, value)?;
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { Err(wire::Error::LeftOver(rest.len())) }
    }
}

/// The bytes after a varint length; -1 is null.
fn nullable(bytes: &[u8]) -> Result<(Option<&[u8]>, &[u8]), wire::Error> {
    let (length, rest) = varint_in(bytes)?;
    if length == -1 {
        return Ok((None, rest));
    }
    let length = usize::try_from(length).map_err(|_| wire::Error::Length(i64::from(length)))?;
    let (field, rest) = rest.split_at_checked(length).ok_or_else(|| wire::Error::Truncated { missing: length - rest.len() })?;
    Ok((Some(field), rest))
}
