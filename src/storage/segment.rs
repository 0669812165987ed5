//! One file of batches with its indexes.

use std::io::IoSlice;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::Error;
use super::files::{OpenFiles, SegmentFile};
use super::index::{AbortedEntry, Durable, Entry, Index, PositionEntry, TimeEntry};
use super::ranges::Ranges;
use super::scan::{Headers, Stop, read_batch, walk_batches};
use crate::env::{Disk, File};
use crate::model::Offset;
use crate::records::{self, BatchHeader};

/// The error for a batch whose offset is not possible at its position.
pub(super) const OFFSET_LIES: records::Error = records::Error::Contradiction("its offset does not follow the previous one");

/// The file of the segment that begins at `base`.
pub(super) fn file_name(base: Offset, suffix: &str) -> String {
    format!("{:020}.{suffix}", base.0)
}

/// A segment: the last one of a log is appended to, the others are sealed. It has one writer, the writer of its log, and any number of concurrent
/// readers. The facts about the file are locked only while something is looked up in memory.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) base: Offset,
    directory: PathBuf,
    file: SegmentFile,
    created_ms: i64,
    known: RwLock<Known>,
}

/// The offset after the last batch, and the largest timestamp with the end of the first batch that has it.
type Walked = (Offset, Option<(i64, Offset)>);

/// The facts about the file that are kept in memory.
#[derive(Debug)]
struct Known {
    size: u64,
    next_offset: Offset,
    positions: Index<PositionEntry>,
    times: Index<TimeEntry>,
    /// Transactions whose abort markers are in this segment.
    aborted: Index<AbortedEntry>,
    /// The largest timestamp, and the end of the first batch that has it.
    largest: Option<(i64, Offset)>,
    first_timestamp_ms: Option<i64>,
    bytes_since_entry: u64,
    /// Bytes at the front that an earlier process wrote and that this process has not completely checked.
    unchecked: u64,
    /// The ranges of these bytes that were read and are valid.
    checked: Ranges,
}

impl Segment {
    /// An empty segment.
    pub(super) fn create(files: &Arc<OpenFiles>, directory: &Path, base: Offset, now_ms: i64) -> Result<Segment, Error> {
        Segment::with_file(files, directory, base, "log", now_ms)
    }

    /// An empty segment whose file replaces others later, and must then be [settled](Segment::settle).
    pub(super) fn create_cleaned(files: &Arc<OpenFiles>, directory: &Path, base: Offset) -> Result<Segment, Error> {
        Segment::with_file(files, directory, base, "log.cleaned", 0)
    }

    /// Opens a segment that was sealed or cleanly closed and has its index files; none if they are missing or do not match the segment.
    pub(super) fn open_trusted(files: &Arc<OpenFiles>, directory: &Path, base: Offset, now_ms: i64) -> Result<Option<Segment>, Error> {
        let mut segment = Segment::open_blank(files, directory, base, now_ms)?;
        let file = segment.file()?;
        let size = file.size().map_err(Error::io("read", directory))?;
        let positions = Index::map(&**files.disk(), &segment.path("index"));
        let times = Index::map(&**files.disk(), &segment.path("timeindex"));
        let (positions, times) = match (positions, times) {
            (Some(positions), Some(times)) => (positions, times),
            // If a segment is too small for an index entry, its index files are empty, and empty files cannot be mapped.
            (None, times) if size <= u64::from(u16::MAX) => (Index::new(), times.unwrap_or(Index::new())),
            _ => return Ok(None),
        };
        let aborted_path = segment.path("txnindex");
        // The file does not exist if no transaction was aborted.
        let aborted = match files.disk().exists(&aborted_path) {
            true => Index::map(&**files.disk(), &aborted_path),
            false => Some(Index::new()),
        };
        let Some(aborted) = aborted else { return Ok(None) };
        let known = segment.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        known.aborted = aborted;
        (known.size, known.unchecked) = (size, size);
        known.largest = times.last().map(|e: TimeEntry| (e.timestamp_ms, base.plus(i64::from(e.relative_offset))));
        let last = positions.last();
        let from = last.map_or(0, |e: PositionEntry| u64::from(e.position));
        (known.positions, known.times) = (positions, times);
        // The part after the last entry is walked: it must begin as the entry states and end with the file.
        if size > 0 && from >= size {
            return Ok(None);
        }
        for step in Headers::new(&*file, from, size) {
            match step {
                Ok((_, header)) if header.base_offset < known.next_offset => return Ok(None),
                Ok((at, header)) if last.is_some_and(|e| at == from && relative(base, header.last_offset()) > e.relative_offset) => {
                    return Ok(None);
                }
                Ok((_, header)) => {
                    known.next_offset = header.next_offset();
                    known.note_largest(&header);
                }
                Err(Stop::Io(error)) => return Err(Error::io("read", &segment.path("log"))(error)),
                Err(Stop::Batch(_)) => return Ok(None),
            }
        }
        if let Some(Ok((_, first))) = Headers::new(&*file, 0, size).next() {
            known.first_timestamp_ms = Some(first.base_timestamp);
        }
        Ok(Some(segment))
    }

    /// Opens a segment without its indexes: the caller must walk it and call [`Segment::note`].
    pub(super) fn open_blank(files: &Arc<OpenFiles>, directory: &Path, base: Offset, now_ms: i64) -> Result<Segment, Error> {
        Segment::with_file(files, directory, base, "log", now_ms)
    }

    fn with_file(files: &Arc<OpenFiles>, directory: &Path, base: Offset, suffix: &str, now_ms: i64) -> Result<Segment, Error> {
        let file = SegmentFile::open(files, &directory.join(file_name(base, suffix)), directory.join(file_name(base, "log")))?;
        let known = Known {
            size: 0,
            next_offset: base,
            positions: Index::new(),
            times: Index::new(),
            aborted: Index::new(),
            largest: None,
            first_timestamp_ms: None,
            bytes_since_entry: 0,
            unchecked: 0,
            checked: Ranges::default(),
        };
        Ok(Segment { base, directory: directory.to_path_buf(), file, created_ms: now_ms, known: RwLock::new(known) })
    }

    /// Writes a batch at the end. If the write fails, the file is truncated to its size before.
    pub(super) fn append(&self, header: &BatchHeader, parts: &[IoSlice<'_>], index_interval_bytes: u64) -> Result<(), Error> {
        let (next_offset, size) = self.extent();
        assert!(header.base_offset >= next_offset, "offsets fall: {} is appended to {} at {next_offset}", header.base_offset, self.name());
        assert!(header.last_offset_delta >= 0, "a batch at {} of {} ends before it begins", header.base_offset, self.name());
        let length: usize = parts.iter().map(|part| part.len()).sum();
        assert_eq!(length, header.size(), "the bytes of a batch at {} of {} are not what its header says", header.base_offset, self.name());
        let file = self.file.get_dirty()?;
        if let Err(error) = file.write_at(size, parts) {
            let _ = file.truncate(size);
            return Err(Error::io("append to", &self.path("log"))(error));
        }
        self.note(header, index_interval_bytes);
        let (expected, found) = ((header.next_offset(), size + length as u64), self.extent());
        assert_eq!(found, expected, "{} does not end after the batch at {} that was appended at {size}", self.name(), header.base_offset);
        Ok(())
    }

    /// Adds the batch after the known part of the file, whose bytes are valid, to the facts and indexes in memory.
    pub(super) fn note(&self, header: &BatchHeader, index_interval_bytes: u64) {
        self.change().note(self.base, header, index_interval_bytes);
    }

    /// Adds a transaction whose abort marker is in this segment.
    pub(super) fn note_aborted(&self, entry: AbortedEntry) {
        self.change().aborted.push(entry);
    }

    /// Writes the list of aborted transactions, or removes its file if there are none.
    pub(super) fn seal_aborted(&self, disk: &dyn Disk, durable: Durable) -> Result<(), Error> {
        let path = self.path("txnindex");
        let bytes = self.known().aborted.bytes();
        match bytes {
            Some(bytes) if bytes.is_empty() => disk.remove_file(&path).map_err(Error::io("remove", &path)),
            Some(bytes) => {
                if let Some(aborted) = Index::write(disk, &path, &bytes, durable)? {
                    self.change().aborted = aborted;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Writes the indexes, so that the segment can be opened without a walk. Appending is possible again after [`Segment::unseal`].
    pub(super) fn seal(&self, disk: &dyn Disk, durable: Durable) -> Result<(), Error> {
        self.seal_aborted(disk, durable)?;
        let [positions_path, times_path] = ["index", "timeindex"].map(|suffix| self.path(suffix));
        let (positions, times) = {
            let mut known = self.change();
            known.note_time(self.base);
            (known.positions.bytes(), known.times.bytes())
        };
        let positions = positions.map_or(Ok(None), |bytes| Index::write(disk, &positions_path, &bytes, durable))?;
        let times = times.map_or(Ok(None), |bytes| Index::write(disk, &times_path, &bytes, durable))?;
        let mut known = self.change();
        if let Some(positions) = positions {
            known.positions = positions;
        }
        if let Some(times) = times {
            known.times = times;
        }
        Ok(())
    }

    /// Moves the indexes back into memory, so that they can grow.
    pub(super) fn unseal(&self) {
        let mut known = self.change();
        known.positions = known.positions.take().into_memory();
        known.times = known.times.take().into_memory();
        known.aborted = known.aborted.take().into_memory();
    }

    /// Truncates the file to its known size.
    pub(super) fn cut(&self) -> Result<(), Error> {
        self.file.get_dirty()?.truncate(self.size()).map_err(Error::io("truncate", &self.path("log")))
    }

    /// Truncates the file at `position`, where a batch other than the first begins, fsyncs it, and returns a segment of the remaining part. That
    /// segment must not be appended to: a reader with a slice of the truncated part then finds the file too short, and never other bytes. This
    /// segment stays unchanged for readers that have it in their list.
    pub(super) fn cut_at(&self, position: u64) -> Result<Segment, Error> {
        assert!((1..self.size()).contains(&position), "{} has {} bytes and cannot be cut at {position}", self.name(), self.size());
        let file = self.file.get_dirty()?;
        let known = self.known_before(&*file, position)?;
        file.truncate(position).map_err(Error::io("truncate", &self.path("log")))?;
        file.sync().map_err(Error::io("sync", &self.path("log")))?;
        let (directory, file) = (self.directory.clone(), self.file.clone());
        Ok(Segment { base: self.base, directory, file, created_ms: self.created_ms, known: RwLock::new(known) })
    }

    /// The facts about the batches before `position`.
    fn known_before(&self, file: &dyn File, position: u64) -> Result<Known, Error> {
        let known = self.known();
        let mut positions: Vec<_> = known.positions.iter().take_while(|e| u64::from(e.position) < position).collect();
        let walk = |entry: Option<&PositionEntry>| -> Result<Option<Walked>, Stop> {
            let (mut next_offset, mut largest) = (self.base, None);
            for step in Headers::new(file, entry.map_or(0, |e| u64::from(e.position)), position) {
                let (at, header) = step?;
                // An index entry that does not point to its batch is damaged.
                if entry.is_some_and(|e| at == u64::from(e.position) && self.relative(header.last_offset()) != e.relative_offset) {
                    return Ok(None);
                }
                next_offset = header.next_offset();
                if largest.is_none_or(|(largest, _)| header.max_timestamp > largest) {
                    largest = Some((header.max_timestamp, header.last_offset()));
                }
            }
            Ok(Some((next_offset, largest)))
        };
        let walked = match walk(positions.last()) {
            Ok(Some(walked)) => Some(walked),
            _ => {
                positions.clear();
                walk(None).map_err(|stop| self.stopped(stop))?
            }
        };
        let (next_offset, largest) = walked.unwrap_or((self.base, None));
        let times: Vec<_> = known.times.iter().take_while(|e| self.base.plus(i64::from(e.relative_offset)) < next_offset).collect();
        let indexed = times.last().map(|e: &TimeEntry| (e.timestamp_ms, self.base.plus(i64::from(e.relative_offset))));
        let largest = match (indexed, largest) {
            (Some(indexed), Some(walked)) if walked.0 > indexed.0 => Some(walked),
            (indexed, walked) => indexed.or(walked),
        };
        Ok(Known {
            size: position,
            next_offset,
            positions: Index::Memory(positions),
            times: Index::Memory(times),
            aborted: Index::Memory(known.aborted.iter().filter(|entry| entry.last_offset < next_offset.0).collect()),
            largest,
            first_timestamp_ms: known.first_timestamp_ms,
            bytes_since_entry: 0,
            unchecked: known.unchecked.min(position),
            checked: Ranges::default(),
        })
    }

    /// Marks that its name will soon belong to another file or to none.
    pub(super) fn retire(&self) {
        self.file.retire();
    }

    /// Removes the files and the producer snapshot at its base offset. A reader that holds a slice can still read it.
    pub(super) fn delete(&self, disk: &dyn Disk) -> Result<(), Error> {
        self.delete_batches(disk)?;
        let path = self.path("snapshot");
        disk.remove_file(&path).map_err(Error::io("remove", &path))
    }

    /// Removes the files of its batches. The producer snapshot at its base offset stays.
    pub(super) fn delete_batches(&self, disk: &dyn Disk) -> Result<(), Error> {
        for suffix in ["log", "index", "timeindex", "txnindex"] {
            let path = self.path(suffix);
            disk.remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// Whether a batch must go to a new segment.
    pub(super) fn must_roll(&self, header: &BatchHeader, last_offset: Offset, limits: &RollLimits, now_ms: i64) -> bool {
        let known = self.known();
        if known.size == 0 {
            return false;
        }
        let age_ms = match known.first_timestamp_ms.filter(|ms| *ms >= 0 && header.max_timestamp >= 0) {
            Some(first) => header.max_timestamp.saturating_sub(first),
            None => now_ms.saturating_sub(self.created_ms),
        };
        let full = known.positions.len() >= limits.index_bytes_max as usize / PositionEntry::SIZE
            || known.times.len() >= limits.index_bytes_max as usize / TimeEntry::SIZE;
        known.size + header.size() as u64 > limits.segment_bytes
            || age_ms > limits.segment_ms
            || full
            || last_offset.0 - self.base.0 > i64::from(i32::MAX)
    }

    /// The first batch that contains `offset` or comes after it.
    pub(super) fn find(&self, offset: Offset) -> Result<Option<(u64, BatchHeader)>, Error> {
        let wanted = self.relative(offset);
        let entry = self.known().positions.last_where(|e| e.relative_offset <= wanted);
        let from = entry.map_or(0, |e| u64::from(e.position));
        let (file, (next_offset, size)) = (self.file()?, self.extent());
        let mut headers = Headers::new(&*file, from, size).peekable();
        // An index entry that does not point to a batch at or before the offset is damaged: the search must not skip batches because of it.
        if from > 0 && !headers.peek().is_some_and(|first| matches!(first, Ok((_, header)) if header.base_offset <= offset)) {
            headers = Headers::new(&*file, 0, size).peekable();
        }
        let mut expected = self.base;
        for step in headers {
            let (position, header) = step.map_err(|stop| self.stopped(stop))?;
            // Offsets are not covered by a checksum.
            if header.base_offset < expected || header.base_offset >= next_offset {
                return Err(self.corrupt()(OFFSET_LIES));
            }
            if header.last_offset() >= offset {
                return Ok(Some((position, header)));
            }
            expected = header.next_offset();
        }
        Ok(None)
    }

    /// The first batch at or after `position` that `fits`.
    pub(super) fn find_from(&self, position: u64, fits: impl Fn(&BatchHeader) -> bool) -> Result<Option<(u64, BatchHeader)>, Error> {
        for step in Headers::new(&*self.file()?, position, self.size()) {
            let (position, header) = step.map_err(|stop| self.stopped(stop))?;
            if fits(&header) {
                return Ok(Some((position, header)));
            }
        }
        Ok(None)
    }

    /// The position from which to search for a record of `timestamp_ms` or later.
    pub(super) fn position_before_time(&self, timestamp_ms: i64) -> Result<u64, Error> {
        let Some(entry) = self.known().times.last_where(|e| e.timestamp_ms < timestamp_ms) else { return Ok(0) };
        let found = self.find(self.base.plus(i64::from(entry.relative_offset)))?;
        Ok(found.map_or(0, |(position, _)| position))
    }

    /// Whether this process has written all of the range, or has read it and found it valid.
    pub(super) fn is_checked(&self, position: u64, length: usize) -> bool {
        let known = self.known();
        position >= known.unchecked || known.checked.contain(position, (position + length as u64).min(known.unchecked))
    }

    /// Reads the batches from `position`, the first byte of a batch, until `length` bytes are covered, and returns how many of these bytes are valid:
    /// the checksums match, and the offsets, which no checksum covers, are consistent with each other and with the index. It is an error if the first
    /// batch is already invalid. Blocks.
    pub(super) fn check(&self, file: &dyn File, position: u64, length: usize) -> Result<usize, Error> {
        let until = position + length as u64;
        let entry = self.known().positions.last_where(|e| u64::from(e.position) <= position);
        let (mut sound, mut walked) = self.walk_sound(file, entry, until);
        if sound <= position && entry.is_some() {
            // The index itself may be damaged.
            (sound, walked) = self.walk_sound(file, None, until);
        }
        let sound = sound.max(position);
        let mut known = self.change();
        known.checked.add(position, sound);
        if known.checked.contain(0, known.unchecked) {
            (known.unchecked, known.checked) = (0, Ranges::default());
        }
        drop(known);
        match walked {
            Err(Stop::Io(error)) => Err(self.stopped(Stop::Io(error))),
            Err(stop) if sound == position => Err(self.stopped(stop)),
            _ if sound == position => Err(self.corrupt()(OFFSET_LIES)),
            _ => Ok((sound.min(until) - position) as usize),
        }
    }

    /// Walks from an index entry, or from the front, until a batch begins at or after `until`; returns the end of the valid part.
    fn walk_sound(&self, file: &dyn File, entry: Option<PositionEntry>, until: u64) -> (u64, Result<Option<()>, Stop>) {
        let (next_offset, size) = self.extent();
        let from = entry.map_or(0, |e| u64::from(e.position));
        // A batch that ends at `seen` is valid once the next batch follows on it.
        let (mut sound, mut seen, mut expected) = (from, from, self.base);
        let walked = walk_batches(file, from, size, |at, header, _| {
            let is_indexed = entry.is_none_or(|e| at > from || self.relative(header.last_offset()) <= e.relative_offset);
            if header.base_offset < expected || header.last_offset_delta < 0 || !is_indexed {
                return ControlFlow::Break(());
            }
            (sound, seen, expected) = (seen, at + header.size() as u64, header.next_offset());
            if at >= until { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if matches!(walked, Ok(None)) && expected <= next_offset {
            sound = seen;
        }
        (sound, walked)
    }

    /// The paths of its indexes once it is sealed.
    pub(super) fn index_paths(&self) -> impl Iterator<Item = PathBuf> {
        let has_aborted = self.known().aborted.len() > 0;
        ["index", "timeindex"].into_iter().chain(has_aborted.then_some("txnindex")).map(|suffix| self.path(suffix))
    }

    /// The aborted transactions with a marker at or after `from` in this segment.
    pub(super) fn aborted_from(&self, from: Offset) -> Vec<AbortedEntry> {
        let known = self.known();
        known.aborted.iter().filter(|entry| entry.last_offset >= from.0).collect()
    }

    /// An upper bound of the offsets of all records before `position`, from the index.
    pub(super) fn offset_above(&self, position: u64) -> Offset {
        let known = self.known();
        let entry = known.positions.first_where(|e| u64::from(e.position) >= position);
        entry.map_or(known.next_offset, |e| self.base.plus(i64::from(e.relative_offset)))
    }

    /// Converts the error of a walk.
    pub(super) fn stopped(&self, stop: Stop) -> Error {
        match stop {
            Stop::Io(source) => Error::io("read", &self.path("log"))(source),
            Stop::Batch(source) => self.corrupt()(source),
        }
    }

    /// Converts the error of invalid batches.
    pub(super) fn corrupt(&self) -> impl Fn(records::Error) -> Error {
        |source| Error::Corrupt { path: self.path("log"), source }
    }

    /// All bytes of the batch at `position`, after comparing its checksum.
    pub(super) fn read_sound(&self, position: u64, header: &BatchHeader) -> Result<Vec<u8>, Error> {
        let batch = read_batch(&*self.file()?, position, header).map_err(|stop| self.stopped(stop))?;
        header.check_crc(&batch).map_err(self.corrupt())?;
        Ok(batch)
    }

    /// Its name in messages.
    fn name(&self) -> std::path::Display<'_> {
        self.file.path().display()
    }

    pub(super) fn path(&self, suffix: &str) -> PathBuf {
        self.directory.join(file_name(self.base, suffix))
    }

    /// Its file.
    pub(super) fn file(&self) -> Result<Arc<dyn File>, Error> {
        self.file.get()
    }

    /// Marks that the file has its final name.
    pub(super) fn settle(&self) -> Result<(), Error> {
        self.file.settle()
    }

    /// Marks that everything that was written is durable.
    pub(super) fn is_durable(&self) {
        self.file.is_durable();
    }

    pub(super) fn size(&self) -> u64 {
        self.known().size
    }

    pub(super) fn next_offset(&self) -> Offset {
        self.known().next_offset
    }

    /// The offset of the next record, and the size up to there.
    pub(super) fn extent(&self) -> (Offset, u64) {
        let known = self.known();
        (known.next_offset, known.size)
    }

    /// The base timestamp of its first batch.
    pub(super) fn first_timestamp_ms(&self) -> Option<i64> {
        self.known().first_timestamp_ms
    }

    /// The largest timestamp, and the end of the first batch that has it.
    pub(super) fn largest(&self) -> Option<(i64, Offset)> {
        self.known().largest
    }

    fn relative(&self, offset: Offset) -> u32 {
        relative(self.base, offset)
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn relative(base: Offset, offset: Offset) -> u32 {
    (offset.0 - base.0).clamp(0, i64::from(u32::MAX)) as u32
}

impl Known {
    fn note(&mut self, base: Offset, header: &BatchHeader, index_interval_bytes: u64) {
        self.note_largest(header);
        if self.bytes_since_entry > index_interval_bytes {
            let relative_offset = relative(base, header.last_offset());
            self.positions.push(PositionEntry { relative_offset, position: self.size as u32 });
            self.note_time(base);
            self.bytes_since_entry = 0;
        }
        self.first_timestamp_ms.get_or_insert(header.base_timestamp);
        self.bytes_since_entry += header.size() as u64;
        self.size += header.size() as u64;
        self.next_offset = header.next_offset();
    }

    fn note_largest(&mut self, header: &BatchHeader) {
        if self.largest.is_none_or(|(largest, _)| header.max_timestamp > largest) {
            self.largest = Some((header.max_timestamp, header.last_offset()));
        }
    }

    fn note_time(&mut self, base: Offset) {
        if let Some((timestamp_ms, offset)) = self.largest {
            let relative_offset = relative(base, offset);
            self.times.push(TimeEntry { timestamp_ms, relative_offset });
        }
    }
}

/// When a segment is full.
#[derive(Debug, Clone, Copy)]
pub(super) struct RollLimits {
    pub(super) segment_bytes: u64,
    pub(super) segment_ms: i64,
    pub(super) index_bytes_max: u64,
}
