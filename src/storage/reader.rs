//! Reads a log concurrently with its writer, without a lock on it.
//!
//! A reader uses the list of segments from the time when it began. A roll, retention or compaction publishes a new list; files that a reader uses
//! stay open until it ends.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Error;
use super::index::AbortedEntry;
use super::segment::Segment;
use crate::env::File;
use crate::model::{LeaderEpoch, Offset, ProducerId};
use crate::records::{self, BatchHeader, TimestampType};

/// The error for a list of aborted transactions that contradicts the log.
const ABORTED_LIES: records::Error = records::Error::Contradiction("the transaction index does not match the log");

/// A record found by timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp_ms: i64,
    /// The epoch of its batch.
    pub leader_epoch: LeaderEpoch,
}

/// Bytes of batches in a segment file; the last batch may be incomplete. Holds the file open: a deletion does not affect a reader.
#[derive(Debug, Clone)]
pub struct RecordsSlice {
    /// The segment's file.
    pub file: Arc<dyn File>,
    /// The first byte.
    pub position: u64,
    /// The number of bytes.
    pub length: usize,
    /// The segment, if this process has not checked all of the bytes yet.
    unchecked: Option<Arc<Segment>>,
}

impl RecordsSlice {
    /// Bytes that this process wrote.
    pub(super) fn written(file: Arc<dyn File>, position: u64, length: usize) -> RecordsSlice {
        RecordsSlice { file, position, length, unchecked: None }
    }

    /// Whether this process wrote all of the bytes, or has read them and found them valid. Other bytes must not be sent before
    /// [`RecordsSlice::check`].
    pub fn is_checked(&self) -> bool {
        self.unchecked.is_none()
    }

    /// Reads the batches and compares their checksums. The slice then ends before the first invalid batch; it is an error if this is its very
    /// first batch. Blocks.
    pub fn check(mut self) -> Result<RecordsSlice, Error> {
        if let Some(segment) = self.unchecked.take() {
            self.length = segment.check(&*self.file, self.position, self.length)?;
        }
        Ok(self)
    }

    /// The bytes, read into memory.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.length];
        let read = self.file.read_at(self.position, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// A transaction whose records a reader with `read_committed` must ignore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer_id: ProducerId,
    /// Its first record.
    pub first_offset: Offset,
}

/// The result of a read with `read_committed`.
#[derive(Debug, Clone)]
pub struct CommittedSlice {
    /// The bytes.
    pub slice: RecordsSlice,
    /// The aborted transactions that have records in it, in the order of their markers.
    pub aborted: Vec<AbortedTransaction>,
}

/// What a read returns if the first batch is larger than its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstBatch {
    /// The whole batch, so that a consumer can make progress.
    Whole,
    /// Nothing.
    IfItFits,
}

/// Reads a log while its writer continues.
#[derive(Debug, Default)]
pub struct LogReader(ArcSwap<Shown>);

/// A log as readers see it.
#[derive(Debug, Default)]
struct Shown {
    /// In order of their offsets; the last one is active.
    segments: Vec<Arc<Segment>>,
    log_start: Offset,
    /// `max.decompressed.message.bytes`.
    decompressed_bytes_max: usize,
}

impl LogReader {
    /// Publishes the current state of the log.
    pub(super) fn show(&self, segments: &[Arc<Segment>], log_start: Offset, decompressed_bytes_max: usize) {
        assert!(segments.windows(2).all(|pair| pair[0].base < pair[1].base), "the segments of a log are out of order");
        self.0.store(Arc::new(Shown { segments: segments.to_vec(), log_start, decompressed_bytes_max }));
    }

    /// Finds up to `bytes_max` bytes from the batch on that contains `offset`, without batches at or above `end`. If the first batch is already
    /// larger, `first` decides whether it is returned whole or nothing is. The result never spans two segments.
    pub fn read(&self, offset: Offset, end: Offset, bytes_max: usize, first: FirstBatch) -> Result<Option<RecordsSlice>, Error> {
        self.on_shown(|shown| Ok(shown.read(offset, end, bytes_max, first)?.map(|(_, slice)| slice)))
    }

    /// Like [`LogReader::read`], with the aborted transactions of the result. `end` must not be above the last stable offset.
    pub fn read_committed(
        &self,
        offset: Offset,
        end: Offset,
        bytes_max: usize,
        first: FirstBatch,
    ) -> Result<Option<CommittedSlice>, Error> {
        self.on_shown(|shown| {
            let Some((at, slice)) = shown.read(offset, end, bytes_max, first)? else { return Ok(None) };
            let end = end.min(shown.segments[at].offset_above(slice.position + slice.length as u64));
            let aborted = shown.aborted(at, offset, end)?;
            Ok(Some(CommittedSlice { slice, aborted }))
        })
    }

    /// The first record, in the order of offsets, with a timestamp of at least `timestamp_ms`; searches inside compressed batches.
    pub fn find_by_time(&self, timestamp_ms: i64) -> Result<Option<FoundOffset>, Error> {
        self.on_shown(|shown| shown.find_by_time(timestamp_ms))
    }

    /// The first record with the largest timestamp of all that are not deleted. (Kafka returns a deleted record as long as its segment exists.)
    pub fn find_largest_time(&self) -> Result<Option<FoundOffset>, Error> {
        self.on_shown(Shown::find_largest_time)
    }

    /// Walks all whole batches from `from` on, with their bytes, after comparing their checksums.
    pub fn replay<E: From<Error>>(&self, from: Offset, mut each: impl FnMut(&BatchHeader, &[u8]) -> Result<(), E>) -> Result<(), E> {
        for segment in self.0.load_full().segments.iter().filter(|s| s.next_offset() > from) {
            let mut next = segment.find(from)?;
            while let Some((position, header)) = next {
                let batch = segment.read_sound(position, &header)?;
                each(&header, &batch)?;
                next = segment.find_from(position + header.size() as u64, |_| true)?;
            }
        }
        Ok(())
    }

    /// Bytes of all segments.
    pub fn size(&self) -> u64 {
        self.0.load().segments.iter().map(|s| s.size()).sum()
    }

    /// The number of segments.
    pub fn segment_count(&self) -> usize {
        self.0.load().segments.len()
    }

    /// Repeats the read if the list of segments has changed meanwhile: a segment may have been deleted before its file was opened, or truncated.
    fn on_shown<T>(&self, read: impl Fn(&Shown) -> Result<T, Error>) -> Result<T, Error> {
        loop {
            let shown = self.0.load_full();
            match read(&shown) {
                Err(_) if !Arc::ptr_eq(&shown, &self.0.load()) => {}
                result => return result,
            }
        }
    }
}

impl Shown {
    /// The slice and the index of its segment.
    fn read(&self, offset: Offset, end: Offset, bytes_max: usize, first: FirstBatch) -> Result<Option<(usize, RecordsSlice)>, Error> {
        let log_start = self.log_start;
        let log_end = self.segments.last().map_or(log_start, |active| active.next_offset());
        if offset < log_start || offset > log_end {
            return Err(Error::OffsetOutOfRange { offset, log_start, log_end });
        }
        let at = self.segments.partition_point(|s| s.base <= offset).saturating_sub(1);
        for (at, segment) in self.segments.iter().enumerate().skip(at).take_while(|(_, s)| s.base.max(offset) < end) {
            let Some((position, header)) = segment.find(offset)?.filter(|(_, header)| header.base_offset < end) else { continue };
            let (next_offset, size) = segment.extent();
            let limit = if end >= next_offset { size } else { segment.find(end)?.map_or(size, |(position, _)| position) };
            let available = (limit - position) as usize;
            let length = match first {
                FirstBatch::Whole => available.min(bytes_max.max(header.size())),
                FirstBatch::IfItFits if header.size() > bytes_max => return Ok(None),
                FirstBatch::IfItFits => available.min(bytes_max),
            };
            let unchecked = (!segment.is_checked(position, length)).then(|| segment.clone());
            return Ok(Some((at, RecordsSlice { file: segment.file()?, position, length, unchecked })));
        }
        Ok(None)
    }

    /// The aborted transactions that end at or after `from` and begin before `end`. Their markers may be in later segments: the search ends at an
    /// entry whose last stable offset is at or above `end`, because all transactions that began below `end` have ended by then.
    fn aborted(&self, at: usize, from: Offset, end: Offset) -> Result<Vec<AbortedTransaction>, Error> {
        let mut found = Vec::new();
        for segment in &self.segments[at..] {
            for entry in segment.aborted_from(from) {
                if entry.first_offset < end.0 {
                    self.check_aborted(segment, &entry)?;
                    let AbortedEntry { producer_id, first_offset, .. } = entry;
                    found.push(AbortedTransaction { producer_id: ProducerId(producer_id), first_offset: Offset(first_offset) });
                }
                if entry.last_stable >= end.0 {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// The list of a segment has no checksum, so its entries are compared with the log. The records of the transaction may be deleted already; its
    /// marker is deleted last.
    fn check_aborted(&self, segment: &Segment, entry: &AbortedEntry) -> Result<(), Error> {
        if segment.is_checked(0, 1) {
            return Ok(());
        }
        let is_of = |found: Option<(u64, BatchHeader)>, offset: i64, is_control: bool| {
            found.is_none_or(|(_, header)| {
                header.base_offset.0 != offset || (header.producer_id.0 == entry.producer_id && header.is_control() == is_control)
            })
        };
        let marker = segment.find(Offset(entry.last_offset))?;
        let home = self.segments.iter().rfind(|s| s.base.0 <= entry.first_offset);
        let first = home.map_or(Ok(None), |home| home.find(Offset(entry.first_offset)))?;
        let is_sound = entry.first_offset <= entry.last_offset
            && marker.is_some_and(|(_, h)| h.base_offset.0 == entry.last_offset)
            && is_of(marker, entry.last_offset, true)
            && is_of(first, entry.first_offset, false);
        if is_sound { Ok(()) } else { Err(segment.corrupt()(ABORTED_LIES)) }
    }

    fn find_by_time(&self, timestamp_ms: i64) -> Result<Option<FoundOffset>, Error> {
        for segment in self.segments.iter().filter(|s| s.largest().is_some_and(|(largest, _)| largest >= timestamp_ms)) {
            let mut from = segment.position_before_time(timestamp_ms)?;
            while let Some((position, header)) = segment.find_from(from, |h| h.max_timestamp >= timestamp_ms)? {
                if let Some(found) = self.first_record(segment, position, &header, timestamp_ms)? {
                    return Ok(Some(found));
                }
                from = position + header.size() as u64;
            }
        }
        Ok(None)
    }

    fn find_largest_time(&self) -> Result<Option<FoundOffset>, Error> {
        let largest = |segments: &[Arc<Segment>]| segments.iter().filter_map(|s| s.largest().map(|(ms, _)| ms)).max();
        let Some(timestamp_ms) = largest(&self.segments) else { return Ok(None) };
        let found = self.find_by_time(timestamp_ms)?;
        if found.is_some() {
            return Ok(found);
        }
        // The record is deleted, and its segment still exists because of later records.
        let at = self.segments.partition_point(|s| s.base <= self.log_start).saturating_sub(1);
        let Some((first, later)) = self.segments.get(at..).and_then(<[_]>::split_first) else { return Ok(None) };
        let left = self.largest_left(first)?.max(largest(later));
        left.map_or(Ok(None), |timestamp_ms| self.find_by_time(timestamp_ms))
    }

    /// The largest timestamp of the remaining records in the segment that contains the log start.
    fn largest_left(&self, segment: &Segment) -> Result<Option<i64>, Error> {
        let mut largest = None;
        let mut next = segment.find(self.log_start)?;
        while let Some((position, header)) = next {
            if header.base_offset >= self.log_start || header.timestamp_type() == TimestampType::LogAppendTime {
                largest = largest.max(Some(header.max_timestamp));
            } else {
                let batch = segment.read_sound(position, &header)?;
                for record in header.open(&batch, self.decompressed_bytes_max).map_err(segment.corrupt())?.records() {
                    let record = record.map_err(segment.corrupt())?;
                    if header.base_offset.plus(i64::from(record.offset_delta)) >= self.log_start {
                        largest = largest.max(Some(header.base_timestamp.saturating_add(record.timestamp_delta)));
                    }
                }
            }
            next = segment.find_from(position + header.size() as u64, |_| true)?;
        }
        Ok(largest)
    }

    /// The first record of a batch with a timestamp of at least `timestamp_ms`, not below the log start (which may be within the batch).
    fn first_record(
        &self,
        segment: &Segment,
        position: u64,
        header: &BatchHeader,
        timestamp_ms: i64,
    ) -> Result<Option<FoundOffset>, Error> {
        if header.last_offset() < self.log_start {
            return Ok(None);
        }
        let batch = segment.read_sound(position, header)?;
        for record in header.open(&batch, self.decompressed_bytes_max).map_err(segment.corrupt())?.records() {
            let record = record.map_err(segment.corrupt())?;
            let offset = header.base_offset.plus(i64::from(record.offset_delta));
            let record_ms = match header.timestamp_type() {
                TimestampType::LogAppendTime => header.max_timestamp,
                TimestampType::CreateTime => header.base_timestamp.saturating_add(record.timestamp_delta),
            };
            if record_ms >= timestamp_ms && offset >= self.log_start {
                return Ok(Some(FoundOffset { offset, timestamp_ms: record_ms, leader_epoch: header.leader_epoch }));
            }
        }
        Ok(None)
    }
}
