//! The commit journal of a log directory: one sync makes durable what was appended to any number of logs.
//!
//! A sync of many files that grow costs the file system's own journal for each of them. So under `fsync` a commit copies the batches that are
//! not committed yet into one file, and syncs that. The logs get theirs with the next flush, after which the file is overwritten from its
//! beginning: a file that does not grow is synced fastest. What the power took from the logs is put back when they are opened.
//!
//! A directory has up to [`FILES_MAX`] files `commit-journal.<number>`, each a sequence of commits that begin at multiples of 4 KiB:
//!
//! | bytes | hold |
//! |---|---|
//! | 0–3 | CRC-32C of all that follows |
//! | 4–11 | the number of this use of the file, larger than that of all uses before |
//! | 12–15 | the length of what follows |
//! | 16– | the entries |
//!
//! An entry has batches of one log:
//!
//! | bytes | hold |
//! |---|---|
//! | 0–15 | the topic's id |
//! | 16–19 | the partition |
//! | 20–23 | the length of the batches |
//! | 24– | whole batches, as they lie in the log |
//!
//! The first commit that is not sound, or of another use, ends the file. Numbers are big-endian.
//!
//! Cost of a commit: a read from the page cache, a checksum, one positioned write past the page cache, one sync. Each byte goes to the disk
//! twice.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::log::Uncommitted;
use crate::env::{DIRECT_BLOCK, Disk, File, OpenMode};
use crate::model::Uuid;
use crate::records;

/// What the names of the files begin with.
const NAME: &str = "commit-journal.";
/// The most files.
const FILES_MAX: usize = 16;
/// When so many hold something the logs are to be flushed: there is room for what is committed meanwhile.
const FILES_DUE: usize = 8;
/// Free files that are kept however little was committed.
const FREE_MIN: usize = 1;
/// The most bytes of a file.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// All files together take no more than this part of the file system.
const PART_OF_DISK: u64 = 16;
/// Bytes of a commit before its entries.
const COMMIT_HEAD: usize = 16;
/// Bytes of an entry before its batches.
const ENTRY_HEAD: usize = 24;
/// Bytes of memory that are kept from one commit to the next.
const BUFFER_KEPT: usize = 4 << 20;

/// A log: its topic and partition.
type Of = (Uuid, i32);

/// The commit journal of a log directory. It has no file until the first commit.
#[derive(Debug)]
pub struct CommitJournal {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    file_bytes_max: u64,
    /// What an earlier start committed, until the logs have taken it.
    found: BTreeMap<Of, Vec<Stored>>,
    /// What the commits go to.
    current: Option<JournalFile>,
    /// Hold what may not be durable in the logs, in the order of their numbers.
    older: Vec<JournalFile>,
    /// Hold nothing that is needed.
    free: Vec<JournalFile>,
    /// Files of earlier starts have numbers below it.
    first_number: u64,
    next_number: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct JournalFile {
    number: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    /// Where the next commit goes.
    end: u64,
}

/// Batches that are to be committed, and of which log they are.
#[derive(Debug)]
pub struct JournalEntry {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: i32,
    /// What was appended.
    pub batches: Uncommitted,
}

/// Batches of one log that an earlier start committed.
#[derive(Debug, Clone)]
pub struct Stored {
    path: PathBuf,
    file: Arc<dyn File>,
    position: u64,
    length: usize,
}

/// Names what was committed up to some time.
#[derive(Debug, Clone, Copy)]
pub struct Sealed {
    below: u64,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is durable.
    Durable,
    /// It is durable, and the logs should be flushed, so that there is room for the next ones.
    FlushDue,
    /// There is no room for it: it is durable once the logs are flushed.
    NoRoom,
}

impl CommitJournal {
    /// Reads what earlier starts left in `directory`.
    pub(super) fn open(disk: &Arc<dyn Disk>, directory: &Path) -> Result<CommitJournal, Error> {
        let (all_bytes, _) = disk.space(directory).map_err(Error::io("read", directory))?;
        let mut uses = files(&**disk, directory)?;
        uses.sort_by_key(|(file, _)| file.number);
        let next_number = uses.last().map_or(1, |(file, _)| file.number + 1);
        let mut journal = CommitJournal {
            disk: disk.clone(),
            directory: directory.to_path_buf(),
            file_bytes_max: (all_bytes / PART_OF_DISK / FILES_MAX as u64).min(FILE_BYTES_MAX),
            found: BTreeMap::new(),
            current: None,
            older: Vec::new(),
            free: Vec::new(),
            first_number: next_number,
            next_number,
            buffer: Vec::new(),
        };
        for (file, stored) in uses {
            stored.into_iter().for_each(|(of, stored)| journal.found.entry(of).or_default().push(stored));
            journal.older.push(file);
        }
        Ok(journal)
    }

    /// What earlier starts committed to a log, in the order in which it was appended; nothing the second time.
    pub fn take(&mut self, topic_id: Uuid, partition: i32) -> Vec<Stored> {
        self.found.remove(&(topic_id, partition)).unwrap_or_default()
    }

    /// Leaves the files of earlier starts to a later one: a log that could not be opened may need them.
    pub fn keep_found(&mut self) {
        self.older.retain(|file| file.number >= self.first_number);
    }

    /// Makes durable what was appended to logs. Blocks.
    pub fn commit(&mut self, entries: &[JournalEntry]) -> Result<Committed, Error> {
        let size = COMMIT_HEAD + entries.iter().map(JournalEntry::size).sum::<usize>();
        let needed = self.older.len();
        let mut buffer = std::mem::take(&mut self.buffer);
        let Some(to) = self.file_with_room(size as u64)? else { return Ok(Committed::NoRoom) };
        let bytes = blocks(&mut buffer, size);
        write_commit(entries, to.number, &mut bytes[..size])?;
        match to.file.write_at(to.end, &[IoSlice::new(bytes)]).map_err(Error::io("write", &to.path)) {
            Err(error) if error.is_disk_failure() => return Err(error),
            // There is no room, or no more is allowed: what was written of it does no harm.
            Err(_) => return Ok(Committed::NoRoom),
            Ok(()) => to.file.sync().map_err(Error::io("sync", &to.path))?,
        }
        to.end += bytes.len() as u64;
        buffer.truncate(BUFFER_KEPT);
        buffer.shrink_to(BUFFER_KEPT);
        self.buffer = buffer;
        let is_due = self.older.len() > needed && self.older.len() >= FILES_DUE;
        Ok(if is_due { Committed::FlushDue } else { Committed::Durable })
    }

    fn file_with_room(&mut self, size: u64) -> Result<Option<&mut JournalFile>, Error> {
        if size > self.file_bytes_max {
            return Ok(None);
        }
        if self.current.as_ref().is_none_or(|file| file.end + size > self.file_bytes_max) {
            let Some(next) = self.next_file()? else { return Ok(None) };
            self.seal();
            self.current = Some(next);
        }
        Ok(self.current.as_mut())
    }

    /// A file for a new use; none where all hold what is needed, or the disk is full.
    fn next_file(&mut self) -> Result<Option<JournalFile>, Error> {
        let number = self.next_number;
        if let Some(free) = self.free.pop() {
            self.next_number += 1;
            return Ok(Some(JournalFile { number, end: 0, ..free }));
        }
        if self.older.len() + usize::from(self.current.is_some()) >= FILES_MAX {
            return Ok(None);
        }
        let path = self.directory.join(format!("{NAME}{number}"));
        let file = match self.disk.open_direct(&path) {
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(None),
            file => file.map_err(Error::io("open", &path))?,
        };
        self.disk.sync_dir(&self.directory).map_err(Error::io("sync", &self.directory))?;
        self.next_number += 1;
        Ok(Some(JournalFile { number, path, file, end: 0 }))
    }

    /// Names what was committed so far: what comes now goes to another file.
    pub fn seal(&mut self) -> Sealed {
        self.older.extend(self.current.take());
        Sealed { below: self.next_number }
    }

    /// Takes note that the logs were flushed after this was sealed, so that they do not need it any more. Of the files as many are kept as one
    /// flush has freed.
    pub fn free(&mut self, sealed: Sealed) -> Result<(), Error> {
        let count = self.older.partition_point(|file| file.number < sealed.below);
        self.free.extend(self.older.drain(..count));
        let surplus = self.free.split_off(self.free.len().min(count.max(FREE_MIN)));
        self.remove_files(surplus)
    }

    /// Removes the files. All logs must be durable.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.seal();
        let files = self.older.drain(..).chain(self.free.drain(..)).collect();
        self.remove_files(files)
    }

    fn remove_files(&self, files: Vec<JournalFile>) -> Result<(), Error> {
        files.into_iter().map(|file| file.path).try_for_each(|path| self.disk.remove_file(&path).map_err(Error::io("remove", &path)))
    }
}

impl JournalEntry {
    /// Bytes that it takes in the journal.
    fn size(&self) -> usize {
        ENTRY_HEAD + self.batches.size()
    }

    /// Fills as many bytes.
    fn write(&self, bytes: &mut [u8]) -> Result<(), Error> {
        let (head, batches) = bytes.split_at_mut(ENTRY_HEAD);
        head[..16].copy_from_slice(&self.topic_id.0);
        head[16..20].copy_from_slice(&self.partition.to_be_bytes());
        head[20..].copy_from_slice(&(batches.len() as u32).to_be_bytes());
        self.batches.read(batches)
    }
}

/// Fills as many bytes as the entries take behind the head.
fn write_commit(entries: &[JournalEntry], number: u64, bytes: &mut [u8]) -> Result<(), Error> {
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

/// Whole blocks for so many bytes, in memory that can be written past the page cache. Between the bytes and the end lies what was there before.
fn blocks(buffer: &mut Vec<u8>, size: usize) -> &mut [u8] {
    let size = size.next_multiple_of(DIRECT_BLOCK);
    buffer.resize(buffer.len().max(size + DIRECT_BLOCK), 0);
    let begin = buffer.as_ptr().align_offset(DIRECT_BLOCK);
    &mut buffer[begin..begin + size]
}

impl Stored {
    /// The batches.
    pub(super) fn read(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; self.length];
        self.file.read_at(self.position, &mut bytes).map_err(Error::io("read", &self.path))?;
        Ok(bytes)
    }

    /// The error of batches that are not sound.
    pub(super) fn corrupt(&self) -> impl Fn(records::Error) -> Error {
        |source| Error::Corrupt { path: self.path.clone(), source }
    }
}

/// Whether a file of this name belongs to a journal.
pub(super) fn is_journal(name: &str) -> bool {
    name.strip_prefix(NAME).is_some_and(|number| number.parse::<u64>().is_ok())
}

/// What a file holds, of which logs.
type Holds = (JournalFile, Vec<(Of, Stored)>);

/// The files in `directory`.
fn files(disk: &dyn Disk, directory: &Path) -> Result<Vec<Holds>, Error> {
    let mut files = Vec::new();
    let names = disk.list(directory).map_err(Error::io("list", directory))?;
    for path in names.iter().filter(|name| is_journal(name)).map(|name| directory.join(name)) {
        let from = disk.open(&path, OpenMode::Read).map_err(Error::io("open", &path))?;
        let (mut number, mut stored) = (0, Vec::new());
        walk(&*from, |entry| {
            let Entry { of, position, length, .. } = *entry;
            number = entry.number;
            stored.push((of, Stored { path: path.clone(), file: from.clone(), position, length }));
        })
        .map_err(Error::io("read", &path))?;
        let file = disk.open_direct(&path).map_err(Error::io("open", &path))?;
        files.push((JournalFile { number, path, file, end: 0 }, stored));
    }
    Ok(files)
}

/// Batches of a log as they lie in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Of the use of the file.
    pub(super) number: u64,
    pub(super) of: Of,
    /// Of the first batch.
    pub(super) position: u64,
    /// Of all batches.
    pub(super) length: usize,
}

/// Walks the entries of a file's last use.
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

/// The number of the use, and the entries; none where the bytes are not what was written.
fn read_commit(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (crc, rest) = bytes.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    let number = u64::from_be_bytes(*number);
    // No use comes after the largest number: it is none of ours.
    (crc32c::crc32c(rest) == u32::from_be_bytes(*crc) && number < u64::MAX).then_some((number, bytes.get(COMMIT_HEAD..)?))
}

/// Whose batches come first, how many bytes they take, and what comes after them.
fn read_entry(bytes: &[u8]) -> Option<(Of, usize, &[u8])> {
    let (topic_id, rest) = bytes.split_first_chunk()?;
    let (partition, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = u32::from_be_bytes(*length) as usize;
    Some(((Uuid(*topic_id), i32::from_be_bytes(*partition)), length, rest.get(length..)?))
}
