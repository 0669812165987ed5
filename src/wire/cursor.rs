//! The position of a parser in a frame.

use std::cell::Cell;

use bytes::Bytes;
use nom::{Input, Needed};

use super::Error;

/// The maximum number of array items in one frame, over all its arrays: bounds the memory that a small frame can allocate.
pub const ITEMS_MAX: u32 = 500_000;

/// One received frame, without its length.
#[derive(Debug)]
pub struct Frame {
    bytes: Bytes,
    items_left: Cell<u32>,
}

impl Frame {
    /// A frame with these bytes.
    pub fn new(bytes: Bytes) -> Self {
        Frame { bytes, items_left: Cell::new(ITEMS_MAX) }
    }

    /// A cursor at the first byte.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { frame: self, rest: &self.bytes }
    }
}

/// The remaining bytes of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    frame: &'a Frame,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// The remaining bytes.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The number of remaining bytes.
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether no bytes remain.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The remaining bytes as a slice that shares the frame's memory.
    pub fn share(&self) -> Bytes {
        self.frame.bytes.slice_ref(self.rest)
    }

    /// The first `count` bytes and the rest; an error if fewer bytes remain.
    pub fn split(self, count: usize) -> Result<(Cursor<'a>, Cursor<'a>), nom::Err<Error>> {
        match self.rest.split_at_checked(count) {
            Some((head, tail)) => Ok((Cursor { rest: head, ..self }, Cursor { rest: tail, ..self })),
            None => Err(Error::Truncated { missing: count - self.rest.len() }.fatal()),
        }
    }

    /// Subtracts `count` from the frame's budget of array items.
    pub(super) fn charge_items(&self, count: usize) -> Result<(), nom::Err<Error>> {
        let left = u32::try_from(count).ok().and_then(|count| self.frame.items_left.get().checked_sub(count));
        self.frame.items_left.set(left.ok_or(Error::Items.fatal())?);
        Ok(())
    }
}

/// nom's view of the cursor: a sequence of bytes.
impl<'a> Input for Cursor<'a> {
    type Item = u8;
    type Iter = std::iter::Copied<std::slice::Iter<'a, u8>>;
    type IterIndices = std::iter::Enumerate<Self::Iter>;

    fn input_len(&self) -> usize {
        self.rest.len()
    }

    fn take(&self, index: usize) -> Self {
        Cursor { rest: &self.rest[..index], ..*self }
    }

    fn take_from(&self, index: usize) -> Self {
        Cursor { rest: &self.rest[index..], ..*self }
    }

    fn take_split(&self, index: usize) -> (Self, Self) {
        (self.take_from(index), self.take(index))
    }

    fn position<P: Fn(u8) -> bool>(&self, predicate: P) -> Option<usize> {
        self.rest.iter().position(|b| predicate(*b))
    }

    fn iter_elements(&self) -> Self::Iter {
        self.rest.iter().copied()
    }

    fn iter_indices(&self) -> Self::IterIndices {
        self.iter_elements().enumerate()
    }

    fn slice_index(&self, count: usize) -> Result<usize, Needed> {
        if self.rest.len() >= count { Ok(count) } else { Err(Needed::new(count - self.rest.len())) }
    }
}
