//! Sparse indexes: offset to position, and timestamp to offset; and the list of aborted transactions.
//!
//! | file | entry | bytes |
//! |---|---|---|
//! | `.index` | offset of a batch's last record, relative to the base offset (int32); position of the batch (int32) | 8 |
//! | `.txnindex` | version (int16, 0); producer id (int64); first offset and marker's offset of an aborted transaction (int64 each); last stable offset then (int64) | 34 |
//! | `.timeindex` | largest timestamp so far (int64); offset of its record's batch end, relative (int32) | 12 |

use std::path::Path;

use super::Error;
use crate::env::{Disk, Map, OpenMode};

/// The format of an entry of `.txnindex`.
const ABORTED_VERSION: i16 = 0;

/// An entry of an index.
pub(super) trait Entry: Copy {
    /// Bytes in the file.
    const SIZE: usize;
    /// Entries ascend by this.
    type Key: Ord;
    fn key(&self) -> Self::Key;
    /// Whether the bytes of an entry are of a known format; most entries do not contain a format.
    fn is_known(_bytes: &[u8]) -> bool {
        true
    }
    fn read(bytes: &[u8]) -> Self;
    fn write(&self, out: &mut Vec<u8>);
}

/// When a file is fsynced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    /// Before anything refers to it.
    Now,
    /// With the next flush; until then it is not trusted after a crash.
    Later,
}

/// Offset to position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PositionEntry {
    pub(super) relative_offset: u32,
    pub(super) position: u32,
}

/// Timestamp to offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeEntry {
    pub(super) timestamp_ms: i64,
    pub(super) relative_offset: u32,
}

/// An aborted transaction, in the segment that holds its marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AbortedEntry {
    pub(super) producer_id: i64,
    pub(super) first_offset: i64,
    pub(super) last_offset: i64,
    pub(super) last_stable: i64,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

impl Entry for PositionEntry {
    const SIZE: usize = 8;
    type Key = u32;

    fn key(&self) -> u32 {
        self.relative_offset
    }

    fn read(bytes: &[u8]) -> Self {
        PositionEntry { relative_offset: u32::from_be_bytes(number(bytes, 0)), position: u32::from_be_bytes(number(bytes, 4)) }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }
}

impl Entry for TimeEntry {
    const SIZE: usize = 12;
    type Key = i64;

    fn key(&self) -> i64 {
        self.timestamp_ms
    }

    fn read(bytes: &[u8]) -> Self {
        TimeEntry { timestamp_ms: i64::from_be_bytes(number(bytes, 0)), relative_offset: u32::from_be_bytes(number(bytes, 8)) }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }
}

impl Entry for AbortedEntry {
    const SIZE: usize = 34;
    type Key = i64;

    fn key(&self) -> i64 {
        self.last_offset
    }

    fn is_known(bytes: &[u8]) -> bool {
        bytes.starts_with(&ABORTED_VERSION.to_be_bytes())
    }

    fn read(bytes: &[u8]) -> Self {
        let field = |at| i64::from_be_bytes(number(bytes, at));
        AbortedEntry { producer_id: field(2), first_offset: field(10), last_offset: field(18), last_stable: field(26) }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&ABORTED_VERSION.to_be_bytes());
        for field in [self.producer_id, self.first_offset, self.last_offset, self.last_stable] {
            out.extend_from_slice(&field.to_be_bytes());
        }
    }
}

/// An index in memory, while its segment is active, or mapped from its file.
#[derive(Debug)]
pub(super) enum Index<E> {
    Memory(Vec<E>),
    Mapped(Map),
}

impl<E: Entry> Index<E> {
    pub(super) fn new() -> Self {
        Index::Memory(Vec::new())
    }

    /// Maps a sealed index; none if the file is missing, has a wrong size, or its first and last entries are not ascending.
    pub(super) fn map(disk: &dyn Disk, path: &Path) -> Option<Self> {
        let map = disk.map(path).ok()?;
        let index: Self = Index::Mapped(map);
        let sound = match &index {
            Index::Mapped(map) => map.as_ref().len() % E::SIZE == 0,
            Index::Memory(_) => true,
        };
        let (first, last) = (index.get(0), index.last());
        let ascending = first.zip(last).is_none_or(|(first, last)| first.key() <= last.key());
        (sound && ascending).then_some(index)
    }

    /// The same entries in memory, where entries can be added.
    pub(super) fn into_memory(self) -> Self {
        match self {
            Index::Mapped(_) => Index::Memory(self.iter().collect()),
            memory => memory,
        }
    }

    /// The content for its file; none if it is mapped from a file already.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        let Index::Memory(entries) = self else { return None };
        let mut bytes = Vec::with_capacity(entries.len() * E::SIZE);
        entries.iter().for_each(|entry| entry.write(&mut bytes));
        Some(bytes)
    }

    /// Writes the file and maps it; none if it cannot be mapped, for example because it is empty.
    pub(super) fn write(disk: &dyn Disk, path: &Path, bytes: &[u8], durable: Durable) -> Result<Option<Self>, Error> {
        let next = path.with_extension("index_tmp");
        disk.write(&next, bytes).map_err(Error::io("write", &next))?;
        if durable == Durable::Now {
            disk.open(&next, OpenMode::Read).and_then(|file| file.sync()).map_err(Error::io("sync", &next))?;
        }
        disk.rename(&next, path).map_err(Error::io("write", path))?;
        // If mapping fails, the only cost is memory.
        Ok(if bytes.is_empty() { None } else { disk.map(path).ok().map(Index::Mapped) })
    }

    /// Returns the index and leaves an empty one.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Index::new())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Index::Memory(entries) => entries.len(),
            Index::Mapped(map) => map.as_ref().len() / E::SIZE,
        }
    }

    pub(super) fn get(&self, at: usize) -> Option<E> {
        match self {
            Index::Memory(entries) => entries.get(at).copied(),
            Index::Mapped(map) => map.as_ref().get(at * E::SIZE..(at + 1) * E::SIZE).map(E::read),
        }
    }

    /// All entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = E> {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    pub(super) fn last(&self) -> Option<E> {
        self.len().checked_sub(1).and_then(|at| self.get(at))
    }

    /// Adds an entry to an index in memory; an entry whose key is not larger than the last one is ignored.
    pub(super) fn push(&mut self, entry: E) {
        let grows = self.last().is_none_or(|last| last.key() < entry.key());
        if let (Index::Memory(entries), true) = (self, grows) {
            entries.push(entry);
        }
    }

    /// The last entry for which `holds` is true, by binary search: `holds` must be true for a prefix of the entries and false for the rest.
    pub(super) fn last_where(&self, holds: impl Fn(E) -> bool) -> Option<E> {
        self.count_where(holds).checked_sub(1).and_then(|at| self.get(at))
    }

    /// The first entry for which `holds` is true, by binary search: `holds` must be true for a suffix of the entries and false for the rest.
    pub(super) fn first_where(&self, holds: impl Fn(E) -> bool) -> Option<E> {
        self.get(self.count_where(|entry| !holds(entry)))
    }

    /// The number of entries at the front for which `holds` is true.
    fn count_where(&self, holds: impl Fn(E) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(&holds) { low = middle + 1 } else { high = middle }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_search_finds_what_a_walk_finds(mut keys in proptest::collection::btree_set(0_u32..1000, 0..50), wanted in 0_u32..1000) {
            let mut index = Index::new();
            for key in &keys {
                index.push(PositionEntry { relative_offset: *key, position: key * 2 });
            }
            keys.retain(|key| *key <= wanted);
            prop_assert_eq!(index.last_where(|e: PositionEntry| e.relative_offset <= wanted).map(|e| e.relative_offset), keys.last().copied());
        }
    }

    #[test]
    fn a_sealed_index_is_read_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.index");
        let mut index = Index::new();
        for at in 0..100 {
            index.push(TimeEntry { timestamp_ms: at, relative_offset: at as u32 });
        }
        Index::<TimeEntry>::write(&crate::env::RealDisk, &path, &index.bytes().unwrap(), Durable::Now).unwrap().unwrap();
        let mapped = Index::<TimeEntry>::map(&crate::env::RealDisk, &path).unwrap();
        assert!(matches!(mapped, Index::Mapped(_)));
        assert_eq!((mapped.len(), mapped.get(7)), (100, index.get(7)));
        std::fs::write(&path, [0; 13]).unwrap();
        assert!(Index::<TimeEntry>::map(&crate::env::RealDisk, &path).is_none());
    }
}
