//! Compacts logs: maps each key to its last offset, rewrites segments without outdated records, and replaces the old segments with them.
//!
//! A group of neighbouring segments becomes one segment. Its file is created in steps, so that a crash leaves either the old segments or the new one:
//!
//! 1. `base.log.cleaned` is written and fsynced. A crash here leaves a file that the next open removes.
//! 2. It is renamed to `base.log.swap`. From here on, after a crash the next open completes the following step.
//! 3. The other old segments and the old indexes are removed, then the file is renamed to `base.log`.
//!
//! The last batch of a group is always kept, at least as a header: so a `.swap` file itself shows the end of the segments that it replaces.

use std::collections::{HashMap, HashSet};
use std::io::IoSlice;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use siphasher::sip128::SipHasher13;

use super::files::{OpenFiles, Presence};
use super::index::AbortedEntry;
use super::producers::LastBatches;
use super::scan::walk_batches;
use super::segment::Segment;
use super::transactions::Transactions;
use super::{Dirty, Error, Log};
use crate::env::Entropy;
use crate::model::Offset;
use crate::records::{self, BatchHeader, HorizonFor, Marker, Record, Retained, Rewrite, WhenEmpty, retain};

/// Bytes of a slot of the map, including half of it again while the map grows.
const SLOT_BYTES: usize = 38;
/// Bytes per write.
const WRITE_BYTES: usize = 1 << 20;

/// Called with the number of bytes that were read or written. It waits if compaction is throttled, and returns whether to continue.
pub type Pace<'a> = dyn FnMut(usize) -> bool + 'a;

/// The plan for one log. It is made under the log's lock and carried out without it.
#[derive(Debug)]
pub struct Cleaning {
    pub(super) dirty: Dirty,
    pub(super) sources: Vec<Arc<Segment>>,
    /// The number of truncations of the log.
    pub(super) cuts: u64,
    /// Lengths of runs of `sources`.
    pub(super) groups: Vec<usize>,
    pub(super) directory: PathBuf,
    pub(super) presence: Presence,
    pub(super) index_interval_bytes: u64,
    pub(super) delete_retention_ms: i64,
    pub(super) decompressed_bytes_max: usize,
    /// The batches that contain the state of producers.
    pub(super) last_batches: LastBatches,
    /// Aborted transactions, in the order of their first offsets.
    pub(super) aborted: Vec<AbortedEntry>,
}

impl Cleaning {
    /// The dirty part of the log.
    pub fn dirty(&self) -> Dirty {
        self.dirty
    }

    /// Whether the log has not been truncated since the plan was made.
    pub fn is_of(&self, log: &Log) -> bool {
        self.cuts == log.cuts()
    }
}

/// A compacted segment that is ready to replace others.
#[derive(Debug)]
pub struct Replacement {
    pub(super) segment: Segment,
    /// The segments that it replaces.
    pub(super) sources: Vec<Arc<Segment>>,
}

/// The result of compacting a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Bytes of the segments that were compacted.
    pub bytes_before: u64,
    /// Bytes of the segments that replaced them.
    pub bytes_after: u64,
    /// Segments before.
    pub segments_before: usize,
    /// Segments after.
    pub segments_after: usize,
    /// The first offset that is dirty after the compaction.
    pub clean_to: Offset,
}

/// Compacts logs, one at a time, with bounded memory.
pub struct Cleaner {
    key: [u8; 16],
    entries_max: usize,
}

impl Cleaner {
    /// A cleaner whose map uses up to about `map_bytes` while a log is compacted.
    pub fn new(entropy: &dyn Entropy, map_bytes: usize) -> Cleaner {
        let mut key = [0; 16];
        // The hash key is random, so that clients cannot construct keys with the same hash.
        entropy.fill(&mut key);
        let slots = (map_bytes / SLOT_BYTES).max(8);
        Cleaner { key, entries_max: (1 << slots.ilog2()) / 8 * 7 }
    }

    /// Compacts a log. `replace` puts each finished segment into the log and returns whether the log still contained the segments that it replaces;
    /// if not, the rest is left for the next compaction.
    pub fn clean(
        &self,
        files: &Arc<OpenFiles>,
        cleaning: &Cleaning,
        now_ms: i64,
        pace: &mut Pace<'_>,
        mut replace: impl FnMut(Replacement) -> Result<bool, Error>,
    ) -> Result<Cleaned, Error> {
        let mut cleaned = Cleaned::default();
        // If retention has deleted a segment meanwhile, its file may not exist any more.
        match self.clean_groups(files, cleaning, now_ms, pace, &mut replace, &mut cleaned) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(cleaned),
        }
    }

    fn clean_groups(
        &self,
        files: &Arc<OpenFiles>,
        cleaning: &Cleaning,
        now_ms: i64,
        pace: &mut Pace<'_>,
        replace: &mut impl FnMut(Replacement) -> Result<bool, Error>,
        cleaned: &mut Cleaned,
    ) -> Result<(), Error> {
        let map = self.map(cleaning, pace)?;
        let mut transactions = Transactions::new(&cleaning.aborted);
        let mut rest = &cleaning.sources[..];
        for count in &cleaning.groups {
            let (sources, after) = rest.split_at(*count);
            rest = after;
            if sources[0].base >= map.end {
                break;
            }
            let replacement = rewrite(files, cleaning, sources, &map, &mut transactions, now_ms, pace)?;
            let bytes_after = replacement.segment.size();
            if !replace(replacement)? {
                break;
            }
            cleaned.bytes_before += sources.iter().map(|s| s.size()).sum::<u64>();
            cleaned.bytes_after += bytes_after;
            cleaned.segments_before += sources.len();
            cleaned.segments_after += 1;
            cleaned.clean_to = sources[*count - 1].next_offset().min(map.end);
        }
        Ok(())
    }

    /// Maps the keys of the dirty part.
    fn map(&self, cleaning: &Cleaning, pace: &mut Pace<'_>) -> Result<KeyMap, Error> {
        let mut map = KeyMap { key: self.key, offsets: HashMap::new(), end: cleaning.dirty.end };
        let mut transactions = Transactions::new(&cleaning.aborted);
        for source in cleaning.sources.iter().filter(|s| s.next_offset() > cleaning.dirty.first_dirty) {
            let full = walk(source, pace, |header, batch| {
                if let Some(marker) = Marker::read(header, batch).map_err(source.corrupt())? {
                    transactions.is_idle(header, &marker);
                    return Ok(false);
                }
                if header.is_control() || transactions.is_aborted(header) || header.last_offset() < cleaning.dirty.first_dirty {
                    return Ok(false);
                }
                self.map_batch(&mut map, cleaning, header, batch).map_err(source.corrupt())
            })?;
            if full {
                break;
            }
        }
        Ok(map)
    }

    /// Adds a batch to the map; returns whether the map is full.
    fn map_batch(&self, map: &mut KeyMap, cleaning: &Cleaning, header: &BatchHeader, batch: &[u8]) -> Result<bool, records::Error> {
        for record in header.open(batch, cleaning.decompressed_bytes_max)?.records() {
            let record = record?;
            let offset = header.base_offset.plus(i64::from(record.offset_delta));
            let Some(key) = record.key.filter(|_| offset >= cleaning.dirty.first_dirty) else { continue };
            let hash = map.hash(key);
            if map.offsets.len() >= self.entries_max && !map.offsets.contains_key(&hash) {
                map.end = offset;
                return Ok(true);
            }
            map.offsets.insert(hash, offset);
        }
        Ok(false)
    }
}

/// Writes the remaining records of a group.
fn rewrite(
    files: &Arc<OpenFiles>,
    cleaning: &Cleaning,
    sources: &[Arc<Segment>],
    map: &KeyMap,
    transactions: &mut Transactions<'_>,
    now_ms: i64,
    pace: &mut Pace<'_>,
) -> Result<Replacement, Error> {
    let mut output = Output::create(files, cleaning, sources[0].base)?;
    let last = sources.last().map(|s| s.next_offset().plus(-1));
    let mut modified_ms = 0;
    for source in sources {
        let mut markers = HashSet::new();
        walk(source, pace, |header, batch| {
            let stays = last == Some(header.last_offset()) || cleaning.last_batches.hold(header);
            let is_over = header.delete_horizon_ms().is_some_and(|horizon_ms| now_ms > horizon_ms);
            let mut how = Rewrite {
                decompressed_bytes_max: cleaning.decompressed_bytes_max,
                horizon_ms: now_ms.saturating_add(cleaning.delete_retention_ms),
                horizon_for: HorizonFor::Tombstones,
                when_empty: if stays { WhenEmpty::KeepHeader } else { WhenEmpty::Drop },
            };
            let marker = Marker::read(header, batch).map_err(source.corrupt())?;
            let what = match &marker {
                // A marker without remaining records is deleted like a tombstone, after its delete horizon.
                Some(marker) if transactions.is_idle(header, marker) => {
                    how.horizon_for = HorizonFor::All;
                    if is_over { Fate::Goes } else { Fate::Stays }
                }
                Some(_) => Fate::Stays,
                // The meaning of a control batch without a known marker is unknown, so it is kept.
                None if header.is_control() && header.records_count > 0 => Fate::Stays,
                None if header.is_control() || transactions.is_aborted(header) => Fate::Goes,
                None => Fate::ByKey,
            };
            let keep = |record: &Record<'_>| {
                let offset = header.base_offset.plus(i64::from(record.offset_delta));
                match what {
                    Fate::Stays => true,
                    Fate::Goes => false,
                    Fate::ByKey => offset >= map.end || (map.is_last(record.key, offset) && (record.value.is_some() || !is_over)),
                }
            };
            if let Retained::Batch(header, bytes) = retain(header, batch, &how, keep).map_err(source.corrupt())? {
                output.push(&header, &bytes)?;
                if marker.is_some() && header.records_count > 0 {
                    markers.insert(header.last_offset().0);
                }
            }
            Ok(false)
        })?;
        modified_ms = modified_ms.max(source.file()?.modified_ms().map_err(Error::io("read", &source.path("log")))?);
        // An entry is kept only with its marker, at which the aborted transaction ends for a reader.
        let aborted = source.aborted_from(Offset(0)).into_iter().filter(|entry| markers.contains(&entry.last_offset));
        aborted.for_each(|entry| output.segment.note_aborted(entry));
    }
    Ok(Replacement { segment: output.finish(modified_ms)?, sources: sources.to_vec() })
}

/// Which records of a batch are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Goes,
    /// Each record that is the last one of its key.
    ByKey,
}

/// The last offset of each key in the dirty part of a log.
struct KeyMap {
    key: [u8; 16],
    offsets: HashMap<u128, Offset>,
    /// The first offset that is not in the map: the dirty part ends there, or the map is full.
    end: Offset,
}

impl KeyMap {
    fn hash(&self, key: &[u8]) -> u128 {
        SipHasher13::new_with_key(&self.key).hash(key).as_u128()
    }

    /// Whether a record below the map's end is the last one of its key. A record without a key is never the last one.
    fn is_last(&self, key: Option<&[u8]>, offset: Offset) -> bool {
        key.is_some_and(|key| self.offsets.get(&self.hash(key)).is_none_or(|last| offset >= *last))
    }
}

/// Walks all batches of a segment until `each` returns true. Returns the last result of `each`.
fn walk(source: &Segment, pace: &mut Pace<'_>, mut each: impl FnMut(&BatchHeader, &[u8]) -> Result<bool, Error>) -> Result<bool, Error> {
    let stopped = walk_batches(&*source.file()?, 0, source.size(), |_, header, batch| match each(header, batch) {
        _ if !pace(batch.len()) => ControlFlow::Break(Err(Error::Stopping)),
        Ok(false) => ControlFlow::Continue(()),
        end => ControlFlow::Break(end),
    });
    match stopped {
        Ok(broken) => broken.unwrap_or(Ok(false)),
        Err(stop) => Err(source.stopped(stop)),
    }
}

/// A segment that is being written, in large pieces.
struct Output {
    segment: Segment,
    index_interval_bytes: u64,
    buffer: Vec<u8>,
    written: u64,
}

impl Output {
    fn create(files: &Arc<OpenFiles>, cleaning: &Cleaning, base: Offset) -> Result<Output, Error> {
        let Cleaning { directory, presence, .. } = cleaning;
        // Compaction does not hold the log's lock: the topic may be deleted and another one created under its name, and no file may be created in
        // the directory of that one.
        let segment = presence.during(directory, || Segment::create_cleaned(&files.of_log(presence), directory, base))?;
        segment.cut()?;
        Ok(Output { segment, index_interval_bytes: cleaning.index_interval_bytes, buffer: Vec::new(), written: 0 })
    }

    fn push(&mut self, header: &BatchHeader, bytes: &[u8]) -> Result<(), Error> {
        self.buffer.extend_from_slice(bytes);
        self.segment.note(header, self.index_interval_bytes);
        if self.buffer.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), Error> {
        let path = self.segment.path("log.cleaned");
        self.segment.file()?.write_at(self.written, &[IoSlice::new(&self.buffer)]).map_err(Error::io("write", &path))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self, modified_ms: i64) -> Result<Segment, Error> {
        self.write()?;
        let path = self.segment.path("log.cleaned");
        let file = self.segment.file()?;
        file.set_modified_ms(modified_ms).map_err(Error::io("write", &path))?;
        file.sync().map_err(Error::io("sync", &path))?;
        Ok(self.segment)
    }
}
