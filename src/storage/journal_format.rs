//! The format of a file of the [commit journal](super::CommitJournal).
//!
//! A file is a sequence of commits that begin at multiples of 4 KiB:
//!
//! | bytes | content |
//! |---|---|
//! | 0–3 | CRC-32C of all following bytes |
//! | 4–11 | the number of this use of the file, larger than the numbers of all earlier uses |
//! | 12–15 | the length of the following bytes |
//! | 16– | the entries |
//!
//! An entry contains batches of one log:
//!
//! | bytes | content |
//! |---|---|
//! | 0–15 | the topic's id |
//! | 16–19 | the partition |
//! | 20–23 | the length of the batches |
//! | 24– | whole batches, as stored in the log |
//!
//! The file ends before the first commit that is invalid or belongs to another use. Numbers are big-endian.

use std::io;

use super::Error;
use super::unflushed::Uncommitted;
use crate::env::{DIRECT_BLOCK, File};
use crate::model::Uuid;

/// Bytes of a commit before its entries.
pub(super) const COMMIT_HEAD: usize = 16;
/// Bytes of an entry before its batches.
pub(super) const ENTRY_HEAD: usize = 24;

/// A log: its topic and partition.
pub(super) type Of = (Uuid, i32);

/// Batches to be committed, and the log that they belong to.
#[derive(Debug)]
pub struct JournalEntry {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: i32,
    /// The appended batches.
    pub batches: Uncommitted,
}

impl JournalEntry {
    /// Its size in the journal.
    pub(super) fn size(&self) -> usize {
        ENTRY_HEAD + self.batches.size()
    }

    /// Writes the entry to `bytes`, which has exactly its size.
    fn write(&self, bytes: &mut [u8]) -> Result<(), Error> {
        let (head, batches) = bytes.split_at_mut(ENTRY_HEAD);
        head[..16].copy_from_slice(&self.topic_id.0);
        head[16..20].copy_from_slice(&self.partition.to_be_bytes());
        head[20..].copy_from_slice(&(batches.len() as u32).to_be_bytes());
        self.batches.read(batches)
    }
}

/// Writes the head and the entries to `bytes`, which has exactly their size.
pub(super) fn write_commit(entries: &[JournalEntry], number: u64, bytes: &mut [u8]) -> Result<(), Error> {
    let (head, mut left) = bytes.split_at_mut(COMMIT_HEAD);
    head[4..12].copy_from_slice(&number.to_be_bytes());
    head[12..].copy_from_slice(&(left.len() as u32).to_be_bytes());
    for entry in entries {
        let (bytes, rest) = left.split_at_mut(entry.size());
        entry.write(bytes)?;
        left = rest;
    }
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}

/// Batches of a log as stored in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// The number of the use of the file.
    pub(super) number: u64,
    pub(super) of: Of,
    /// The position of the first batch.
    pub(super) position: u64,
    /// The length of all batches.
    pub(super) length: usize,
}

/// Walks over the entries of a file's last use.
pub(super) fn walk(file: &dyn File, mut each: impl FnMut(&Entry)) -> io::Result<()> {
    let size = file.size()?;
    let (mut position, mut last_use, mut bytes) = (0, None, Vec::new());
    while position + COMMIT_HEAD as u64 <= size {
        bytes.resize(COMMIT_HEAD, 0);
        file.read_at(position, &mut bytes)?;
        let length = bytes.last_chunk().map_or(0, |length| u32::from_be_bytes(*length));
        if position + COMMIT_HEAD as u64 + u64::from(length) > size {
            break;
        }
        bytes.resize(COMMIT_HEAD + length as usize, 0);
        file.read_at(position + COMMIT_HEAD as u64, &mut bytes[COMMIT_HEAD..])?;
        let Some((number, mut entries)) = read_commit(&bytes).filter(|(number, _)| number == last_use.get_or_insert(*number)) else {
            break;
        };
        while let Some((of, length, rest)) = read_entry(entries) {
            each(&Entry { number, of, position: position + (bytes.len() - rest.len() - length) as u64, length });
            entries = rest;
        }
        position = (position + bytes.len() as u64).next_multiple_of(DIRECT_BLOCK as u64);
    }
    Ok(())
}

/// The number of the use, and the entries; none if the bytes are not a valid commit.
fn read_commit(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (crc, rest) = bytes.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    let number = u64::from_be_bytes(*number);
    // The largest number has no successor, so a commit with it was not written by this journal.
    (crc32c::crc32c(rest) == u32::from_be_bytes(*crc) && number < u64::MAX).then_some((number, bytes.get(COMMIT_HEAD..)?))
}

/// The log of the first batches, their length, and the bytes after them.
fn read_entry(bytes: &[u8]) -> Option<(Of, usize, &[u8])> {
    let (topic_id, rest) = bytes.split_first_chunk()?;
    let (partition, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = u32::from_be_bytes(*length) as usize;
    Some(((Uuid(*topic_id), i32::from_be_bytes(*partition)), length, rest.get(length..)?))
}
