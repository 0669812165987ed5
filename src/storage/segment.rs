//! One file of batches with its indexes.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::index::{Durable, Entry, Index, PositionEntry, TimeEntry};
use super::scan::{Headers, Stop};
use crate::env::{Disk, File, OpenMode};
use crate::model::Offset;
use crate::records::BatchHeader;

/// The file of the segment that begins at `base`.
pub(super) fn file_name(base: Offset, suffix: &str) -> String {
    format!("{:020}.{suffix}", base.0)
}

/// A segment: the last one of a log takes appends, the others are sealed.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) base: Offset,
    directory: PathBuf,
    file: Arc<dyn File>,
    size: u64,
    next_offset: Offset,
    positions: Index<PositionEntry>,
    times: Index<TimeEntry>,
    /// The largest timestamp, and the end of the first batch that has it.
    largest: Option<(i64, Offset)>,
    first_timestamp_ms: Option<i64>,
    created_ms: i64,
    bytes_since_entry: u64,
}

impl Segment {
    /// An empty segment.
    pub(super) fn create(disk: &dyn Disk, directory: &Path, base: Offset, now_ms: i64) -> Result<Segment, Error> {
        Segment::with_file(disk, directory, base, "log", now_ms)
    }

    /// An empty segment whose file is to take the place of others later.
    pub(super) fn create_cleaned(disk: &dyn Disk, directory: &Path, base: Offset) -> Result<Segment, Error> {
        Segment::with_file(disk, directory, base, "log.cleaned", 0)
    }

    /// Opens a segment that was sealed or cleanly closed and has its index files; none where they are missing or do not fit.
    pub(super) fn open_trusted(disk: &dyn Disk, directory: &Path, base: Offset, now_ms: i64) -> Result<Option<Segment>, Error> {
        let mut segment = Segment::open_blank(disk, directory, base, now_ms)?;
        segment.size = segment.file.size().map_err(Error::io("read", directory))?;
        let positions = Index::map(disk, &segment.path("index"));
        let times = Index::map(disk, &segment.path("timeindex"));
        let (positions, times) = match (positions, times) {
            (Some(positions), Some(times)) => (positions, times),
            // Index files of a segment too small for an entry are empty, and empty files cannot be mapped.
            (None, times) if segment.size <= u64::from(u16::MAX) => (Index::new(), times.unwrap_or(Index::new())),
            _ => return Ok(None),
        };
        segment.largest = times.last().map(|e: TimeEntry| (e.timestamp_ms, base.plus(i64::from(e.relative_offset))));
        let from = positions.last().map_or(0, |e: PositionEntry| u64::from(e.position));
        (segment.positions, segment.times) = (positions, times);
        // What lies behind the last entry is walked: it must end with the file.
        let mut walked = Vec::new();
        for step in Headers::new(&*segment.file, from, segment.size) {
            match step {
                Ok((_, header)) => walked.push(header),
                Err(Stop::Io(error)) => return Err(Error::io("read", &segment.path("log"))(error)),
                Err(Stop::Batch(_)) => return Ok(None),
            }
        }
        for header in walked {
            segment.next_offset = header.next_offset();
            segment.note_largest(&header);
        }
        if let Some(Ok((_, first))) = Headers::new(&*segment.file, 0, segment.size).next() {
            segment.first_timestamp_ms = Some(first.base_timestamp);
        }
        Ok(Some(segment))
    }

    /// Opens a segment without its indexes: the caller walks it and calls [`Segment::note`].
    pub(super) fn open_blank(disk: &dyn Disk, directory: &Path, base: Offset, now_ms: i64) -> Result<Segment, Error> {
        Segment::with_file(disk, directory, base, "log", now_ms)
    }

    fn with_file(disk: &dyn Disk, directory: &Path, base: Offset, suffix: &str, now_ms: i64) -> Result<Segment, Error> {
        let path = directory.join(file_name(base, suffix));
        let file = disk.open(&path, OpenMode::Write).map_err(Error::io("open", &path))?;
        Ok(Segment {
            base,
            directory: directory.to_path_buf(),
            file,
            size: 0,
            next_offset: base,
            positions: Index::new(),
            times: Index::new(),
            largest: None,
            first_timestamp_ms: None,
            created_ms: now_ms,
            bytes_since_entry: 0,
        })
    }

    /// Writes a batch at the end. Where the disk fails, what was written is cut off again.
    pub(super) fn append(&mut self, header: &BatchHeader, parts: &[IoSlice<'_>], index_interval_bytes: u64) -> Result<(), Error> {
        if let Err(error) = self.file.write_at(self.size, parts) {
            let _ = self.file.truncate(self.size);
            return Err(Error::io("append to", &self.path("log"))(error));
        }
        self.note(header, index_interval_bytes);
        Ok(())
    }

    /// Accounts for a batch that lies at the end of what is known.
    pub(super) fn note(&mut self, header: &BatchHeader, index_interval_bytes: u64) {
        self.note_largest(header);
        if self.bytes_since_entry > index_interval_bytes {
            let relative_offset = self.relative(header.last_offset());
            self.positions.push(PositionEntry { relative_offset, position: self.size as u32 });
            self.note_time();
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

    fn note_time(&mut self) {
        if let Some((timestamp_ms, offset)) = self.largest {
            let relative_offset = self.relative(offset);
            self.times.push(TimeEntry { timestamp_ms, relative_offset });
        }
    }

    /// Writes the indexes, so that the segment can be opened without a walk. More can be appended after [`Segment::unseal`].
    pub(super) fn seal(&mut self, disk: &dyn Disk, durable: Durable) -> Result<(), Error> {
        self.note_time();
        let [positions, times] = self.index_paths();
        self.positions.seal(disk, &positions, durable)?;
        self.times.seal(disk, &times, durable)
    }

    /// Makes the indexes growable again.
    pub(super) fn unseal(&mut self) {
        self.positions = std::mem::replace(&mut self.positions, Index::new()).into_memory();
        self.times = std::mem::replace(&mut self.times, Index::new()).into_memory();
    }

    /// Cuts the file behind what is known.
    pub(super) fn cut(&self) -> Result<(), Error> {
        self.file.truncate(self.size).map_err(Error::io("truncate", &self.path("log")))
    }

    /// Removes the files. A reader that holds a slice can still read it.
    pub(super) fn delete(&self, disk: &dyn Disk) -> Result<(), Error> {
        for suffix in ["log", "index", "timeindex", "txnindex", "snapshot"] {
            let path = self.path(suffix);
            disk.remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// Whether a batch must go to a new segment.
    pub(super) fn must_roll(&self, header: &BatchHeader, last_offset: Offset, limits: &RollLimits, now_ms: i64) -> bool {
        if self.size == 0 {
            return false;
        }
        let age_ms = match self.first_timestamp_ms.filter(|ms| *ms >= 0 && header.max_timestamp >= 0) {
            Some(first) => header.max_timestamp.saturating_sub(first),
            None => now_ms.saturating_sub(self.created_ms),
        };
        let full = self.positions.len() >= limits.index_bytes_max as usize / PositionEntry::SIZE
            || self.times.len() >= limits.index_bytes_max as usize / TimeEntry::SIZE;
        self.size + header.size() as u64 > limits.segment_bytes
            || age_ms > limits.segment_ms
            || full
            || last_offset.0 - self.base.0 > i64::from(i32::MAX)
    }

    /// The first batch that holds `offset` or comes after it.
    pub(super) fn find(&self, offset: Offset) -> Result<Option<(u64, BatchHeader)>, Error> {
        let wanted = self.relative(offset);
        let from = self.positions.last_where(|e| e.relative_offset <= wanted).map_or(0, |e| u64::from(e.position));
        self.find_from(from, |header| header.last_offset() >= offset)
    }

    /// The first batch at or behind `position` that `fits`.
    pub(super) fn find_from(&self, position: u64, fits: impl Fn(&BatchHeader) -> bool) -> Result<Option<(u64, BatchHeader)>, Error> {
        for step in Headers::new(&*self.file, position, self.size) {
            let (position, header) = step.map_err(|stop| self.stopped(stop))?;
            if fits(&header) {
                return Ok(Some((position, header)));
            }
        }
        Ok(None)
    }

    /// Where to begin looking for a record of `timestamp_ms` or later.
    pub(super) fn position_before_time(&self, timestamp_ms: i64) -> u64 {
        let entry = self.times.last_where(|e| e.timestamp_ms < timestamp_ms);
        let offset = entry.map_or(0, |e| e.relative_offset);
        self.positions.last_where(|e| e.relative_offset <= offset).map_or(0, |e| u64::from(e.position))
    }

    /// Where its indexes lie.
    pub(super) fn index_paths(&self) -> [PathBuf; 2] {
        ["index", "timeindex"].map(|suffix| self.path(suffix))
    }

    /// The error of a walk.
    pub(super) fn stopped(&self, stop: Stop) -> Error {
        match stop {
            Stop::Io(source) => Error::io("read", &self.path("log"))(source),
            Stop::Batch(source) => Error::Corrupt { path: self.path("log"), source },
        }
    }

    pub(super) fn path(&self, suffix: &str) -> PathBuf {
        self.directory.join(file_name(self.base, suffix))
    }

    pub(super) fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// The timestamp that its first batch counts from.
    pub(super) fn first_timestamp_ms(&self) -> Option<i64> {
        self.first_timestamp_ms
    }

    /// The largest timestamp, and the end of the first batch that has it.
    pub(super) fn largest(&self) -> Option<(i64, Offset)> {
        self.largest
    }

    fn relative(&self, offset: Offset) -> u32 {
        (offset.0 - self.base.0).clamp(0, i64::from(u32::MAX)) as u32
    }
}

/// When a segment is full.
#[derive(Debug, Clone, Copy)]
pub(super) struct RollLimits {
    pub(super) segment_bytes: u64,
    pub(super) segment_ms: i64,
    pub(super) index_bytes_max: u64,
}
