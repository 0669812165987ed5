//! Checks a data directory that is not in use by a broker: every batch, index, snapshot and checkpoint.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::directory::{CLEAN, LOCK, META, partition_of_directory};
use super::index::{AbortedEntry, Entry, PositionEntry, TimeEntry};
use super::journal::is_journal;
use super::journal_format::walk;
use super::producers::ProducerState;
use super::scan::{Stop, walk_batches};
use super::segment::file_name;
use super::transactions::aborted_entry;
use super::{Error, checkpoint};
use crate::env::{Disk, OpenMode};
use crate::model::{Offset, counted};
use crate::records::{BatchHeader, Marker};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The next start repairs it: a crash can leave it like this.
    Mended,
    /// Data was lost or changed.
    Damage,
}

/// A deviation from the expected content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub what: String,
    /// How bad it is.
    pub severity: Severity,
}

/// The size of the checked part, and the findings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Partitions.
    pub partitions: usize,
    /// Segments.
    pub segments: usize,
    /// Valid batches.
    pub batches: u64,
    /// Bytes of segments.
    pub bytes: u64,
    /// In the order of the files.
    pub findings: Vec<Finding>,
}

/// Checks a whole directory. `progress` is called repeatedly with the number of checked bytes and of all bytes.
pub fn verify(disk: &dyn Disk, directory: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified, Error> {
    if !disk.exists(&directory.join(META)) {
        let what = "this is not a data directory: the file does not exist".into();
        return Err(Error::Metadata { path: directory.join(META), what });
    }
    let lock_path = directory.join(LOCK);
    let lock = disk.lock(&lock_path).map_err(Error::io("lock", &lock_path))?;
    let _lock = lock.ok_or_else(|| Error::Locked(directory.to_path_buf()))?;
    let names = disk.list(directory).map_err(Error::io("list", directory))?;
    let mut work = Work { disk, is_clean: disk.exists(&directory.join(CLEAN)), verified: Verified::default(), all_bytes: 0, progress };
    let partitions: Vec<PathBuf> = names.iter().filter(|n| partition_of_directory(n).is_some()).map(|n| directory.join(n)).collect();
    for partition in &partitions {
        for log in work.names(partition)?.iter().filter(|n| n.ends_with(".log")) {
            work.all_bytes += work.size(&partition.join(log))?;
        }
    }
    names.iter().filter(|n| n.ends_with("-checkpoint")).try_for_each(|name| work.checkpoint(&directory.join(name)))?;
    partitions.iter().try_for_each(|partition| work.partition(partition))?;
    names.iter().filter(|n| is_journal(n)).try_for_each(|name| work.journal(&directory.join(name)))?;
    Ok(work.verified)
}

/// The state collected during the walk through a partition.
#[derive(Default)]
struct Seen {
    producers: ProducerState,
    /// Offsets are missing: the log was compacted, and the first records of a transaction may be deleted.
    is_sparse: bool,
    /// Whether the beginning of the log was deleted, and with it the transactions that were open there.
    has_begun_late: bool,
}

impl Seen {
    /// The entry of the list that must exist for an abort marker; none for other batches.
    fn note(&mut self, header: &BatchHeader, batch: &[u8], expected: Offset) -> Option<AbortedEntry> {
        self.has_begun_late |= self.producers.is_empty() && header.base_offset > Offset(0);
        self.is_sparse |= header.base_offset > expected || header.records_count <= header.last_offset_delta;
        if !header.is_control() {
            self.producers.note(header);
            return None;
        }
        let marker = Marker::read(header, batch).ok().flatten()?;
        let ended = self.producers.note_marker(&marker, header)?;
        aborted_entry(&self.producers, &ended)
    }

    /// Whether the list of a segment matches its markers. If the log is not complete, only the markers can be compared.
    fn agrees(&self, expected: &[AbortedEntry], found: &[AbortedEntry]) -> bool {
        if !self.is_sparse && !self.has_begun_late {
            return expected == found;
        }
        let markers = |entries: &[AbortedEntry]| entries.iter().map(|e| (e.last_offset, e.producer_id)).collect::<BTreeSet<_>>();
        found.iter().all(|e| e.first_offset <= e.last_offset) && markers(expected).is_subset(&markers(found))
    }
}

struct Work<'a> {
    disk: &'a dyn Disk,
    /// Whether the directory is marked as cleanly stopped.
    is_clean: bool,
    verified: Verified,
    all_bytes: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Work<'_> {
    fn partition(&mut self, directory: &Path) -> Result<(), Error> {
        self.verified.partitions += 1;
        let names = self.names(directory)?;
        let bases: Vec<Offset> = names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).map(Offset).collect();
        let mut next_offset = Offset(0);
        let mut seen = Seen::default();
        for (at, base) in bases.iter().enumerate() {
            if *base < next_offset {
                self.damage(
                    &directory.join(file_name(*base, "log")),
                    format!("it begins before offset {next_offset}, where the previous segment ends"),
                );
            }
            next_offset = self.segment(directory, *base, at + 1 == bases.len(), &mut seen)?;
        }
        for name in &names {
            let path = directory.join(name);
            if name.ends_with(".snapshot") && ProducerState::from_snapshot(&self.read(&path)?).is_none() {
                self.unless_crashed(&path, "the snapshot of producers is damaged");
            }
            if name.ends_with("-checkpoint") {
                self.checkpoint(&path)?;
            }
        }
        Ok(())
    }

    /// Checks a segment with its indexes; returns the offset after its last valid batch.
    fn segment(&mut self, directory: &Path, base: Offset, is_last: bool, seen: &mut Seen) -> Result<Offset, Error> {
        let path = directory.join(file_name(base, "log"));
        let size = self.size(&path)?;
        let mut positions = self.index::<PositionEntry>(&directory.join(file_name(base, "index")))?.into_iter().peekable();
        let mut times = self.index::<TimeEntry>(&directory.join(file_name(base, "timeindex")))?.into_iter().peekable();
        let aborted_path = directory.join(file_name(base, "txnindex"));
        let aborted = self.index::<AbortedEntry>(&aborted_path)?;
        let mut expected = Vec::new();
        let (mut wrong_position, mut wrong_time) = (None, None);
        let (mut next_offset, mut position_after) = (base, 0);
        let file = self.disk.open(&path, OpenMode::Read).map_err(Error::io("open", &path))?;
        let mut each = |position: u64, header: &BatchHeader, batch: &[u8]| {
            if header.base_offset < next_offset || header.last_offset_delta < 0 {
                return ControlFlow::Break(format!(
                    "the batch at position {position} has offset {}, expected {next_offset} or more",
                    header.base_offset
                ));
            }
            while let Some(entry) = positions.next_if(|entry| u64::from(entry.position) <= position) {
                let fits = u64::from(entry.position) == position && base.0 + i64::from(entry.relative_offset) == header.last_offset().0;
                // Kafka preallocates indexes with zeros.
                if !fits && entry != (PositionEntry { relative_offset: 0, position: 0 }) {
                    wrong_position.get_or_insert(entry);
                }
            }
            while let Some(entry) = times.next_if(|entry| base.0 + i64::from(entry.relative_offset) <= header.last_offset().0) {
                if entry.timestamp_ms != header.max_timestamp && entry != (TimeEntry { timestamp_ms: 0, relative_offset: 0 }) {
                    wrong_time.get_or_insert(entry);
                }
            }
            expected.extend(seen.note(header, batch, next_offset));
            (next_offset, position_after) = (header.next_offset(), position + header.size() as u64);
            self.verified.batches += 1;
            ControlFlow::Continue(())
        };
        let (done, all) = (self.verified.bytes, self.all_bytes);
        let progress = &mut self.progress;
        let walked = walk_batches(&*file, 0, size, |position, header, batch| {
            progress(done + position, all);
            each(position, header, batch)
        });
        let (wrong_position, wrong_time) = (wrong_position.or(positions.next()), wrong_time.or(times.next()));
        self.verified.segments += 1;
        self.verified.bytes += size;
        let unsound = match walked {
            Ok(None) => None,
            Ok(Some(what)) => Some(what),
            Err(Stop::Io(error)) => return Err(Error::io("read", &path)(error)),
            Err(Stop::Batch(error)) => Some(format!("the batch at position {position_after}, offset {next_offset} or more: {error}")),
        };
        if let Some(what) = unsound {
            let severity = if is_last && !self.is_clean { Severity::Mended } else { Severity::Damage };
            self.verified.findings.push(Finding { path, what, severity });
            return Ok(next_offset);
        }
        let is_room = position_after == 0;
        if let Some(entry) = wrong_position.filter(|_| !is_room) {
            let index = directory.join(file_name(base, "index"));
            self.unless_crashed(&index, &format!("the entry for position {} does not point to a batch with its offset", entry.position));
        }
        if let Some(entry) = wrong_time.filter(|_| !is_room) {
            let index = directory.join(file_name(base, "timeindex"));
            self.unless_crashed(
                &index,
                &format!("the entry for timestamp {} does not belong to a batch with that timestamp", entry.timestamp_ms),
            );
        }
        // The list of the last segment is written only by a clean stop.
        if (!is_last || self.is_clean) && !seen.agrees(&expected, &aborted) {
            self.unless_crashed(&aborted_path, "the transaction index does not match the log");
        }
        Ok(next_offset)
    }

    /// Reports the content of a commit journal: an incomplete commit was not acknowledged.
    fn journal(&mut self, path: &Path) -> Result<(), Error> {
        let file = self.disk.open(path, OpenMode::Read).map_err(Error::io("open", path))?;
        let (mut logs, mut bytes) = (BTreeSet::new(), 0);
        walk(&*file, |entry| {
            logs.insert(entry.of);
            bytes += entry.length;
        })
        .map_err(Error::io("read", path))?;
        if bytes > 0 {
            let partitions = counted(logs.len(), "partition");
            let what = format!("{bytes} bytes of {partitions} were committed; missing bytes are restored from the commit journal");
            self.verified.findings.push(Finding { path: path.to_path_buf(), what, severity: Severity::Mended });
        }
        Ok(())
    }

    /// All entries of an index; none if the file does not exist.
    fn index<E: Entry>(&mut self, path: &Path) -> Result<Vec<E>, Error> {
        if !self.disk.exists(path) {
            return Ok(Vec::new());
        }
        let bytes = self.read(path)?;
        let entries: Vec<E> = bytes.chunks_exact(E::SIZE).map(E::read).collect();
        let ascends = entries.windows(2).all(|pair| pair[0].key() < pair[1].key() || bytes.ends_with(&[0; 12]));
        if bytes.len() % E::SIZE != 0 || !ascends || !bytes.chunks_exact(E::SIZE).all(E::is_known) {
            self.unless_crashed(path, "the index is truncated, or its entries are not in ascending order");
            return Ok(Vec::new());
        }
        Ok(entries)
    }

    fn checkpoint(&mut self, path: &Path) -> Result<(), Error> {
        if !checkpoint::is_sound(&self.read(path)?) {
            self.unless_crashed(path, "the checkpoint does not match its header");
        }
        Ok(())
    }

    /// Files that recovery rebuilds after a crash are damage only if the directory was closed cleanly.
    fn unless_crashed(&mut self, path: &Path, what: &str) {
        let severity = if self.is_clean { Severity::Damage } else { Severity::Mended };
        self.verified.findings.push(Finding { path: path.to_path_buf(), what: what.to_string(), severity });
    }

    fn damage(&mut self, path: &Path, what: String) {
        self.verified.findings.push(Finding { path: path.to_path_buf(), what, severity: Severity::Damage });
    }

    fn names(&self, directory: &Path) -> Result<Vec<String>, Error> {
        self.disk.list(directory).map_err(Error::io("list", directory))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, Error> {
        self.disk.read(path).map_err(Error::io("read", path))
    }

    fn size(&self, path: &Path) -> Result<u64, Error> {
        self.disk.open(path, OpenMode::Read).and_then(|file| file.size()).map_err(Error::io("read", path))
    }
}
