//! The commit journal of a log directory: one fsync makes batches durable that were appended to any number of logs.
//!
//! If many growing files are synced, the file system writes to its own journal for each of them. So under `fsync` a commit copies the batches that
//! are not committed yet into one file, and syncs that file. The logs are fsynced by the next flush, after which the file is overwritten from its
//! beginning: a file that does not grow is synced fastest. After a power loss, opening a log restores the batches that it has lost.
//!
//! A directory has up to [`FILES_MAX`] files `commit-journal.<number>`; [`journal_format`](super::journal_format) describes their content.
//!
//! Two commits may be in progress at once, each in its own part of the file: while the disk writes one, the other is prepared. They end in the
//! order of their parts.
//!
//! Cost of a commit: a read from the page cache, a checksum, one positioned write past the page cache, one fsync. Each byte is
//! written to the disk twice.

use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Error;
use super::journal_format::{COMMIT_HEAD, Entry, JournalEntry, Of, walk, write_commit};
use crate::env::{DIRECT_BLOCK, Disk, File, OpenMode};
use crate::model::Uuid;
use crate::records;

/// The prefix of the file names.
const NAME: &str = "commit-journal.";
/// The most files.
const FILES_MAX: usize = 16;
/// If this many older files are in use, the logs must be flushed: there is still room for commits during the flush. (With 8, commits were slower:
/// the larger a flush, the longer it shares the disk with them.)
const FILES_DUE: usize = 4;
/// If this many older files are in use, a flush must not pause for commits.
const FILES_HURRY: usize = 12;
/// Free files that are kept, even if few bytes were committed.
const FREE_MIN: usize = 1;
/// The most bytes of a file.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// All files together use at most one part in this many of the file system.
const PART_OF_DISK: u64 = 16;
/// Bytes of memory that are kept from one commit to the next.
const BUFFER_KEPT: usize = 4 << 20;

/// The commit journal of a log directory. It has no file until the first commit.
#[derive(Debug)]
pub struct CommitJournal {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    file_bytes_max: u64,
    state: Mutex<State>,
    /// Signalled when a commit has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Batches that an earlier start committed and that no log has restored yet.
    found: BTreeMap<Of, Vec<Stored>>,
    /// The file that new commits are written to.
    current: Option<JournalFile>,
    /// Files whose batches may not be durable in the logs, in the order of their numbers.
    older: Vec<JournalFile>,
    /// Files whose content is not needed any more.
    free: Vec<JournalFile>,
    /// Files of earlier starts have numbers below it.
    first_number: u64,
    next_number: u64,
    buffers: Vec<Vec<u8>>,
    /// The turn of the next commit to begin, of the next commit to end, and the turn below which commits end without being durable.
    next_turn: u64,
    ending_turn: u64,
    broken_below: u64,
}

#[derive(Debug, Clone)]
struct JournalFile {
    number: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    /// The position of the next commit.
    end: u64,
}

/// Batches of one log that an earlier start committed.
#[derive(Debug, Clone)]
pub struct Stored {
    path: PathBuf,
    /// The number of the use of the file.
    number: u64,
    file: Arc<dyn File>,
    position: u64,
    length: usize,
}

/// Identifies everything that was committed up to some time.
#[derive(Debug, Clone, Copy)]
pub struct Sealed {
    below: u64,
}

impl Sealed {
    /// The number of the first use of a file that later commits can be in.
    pub(super) fn next_number(self) -> u64 {
        self.below
    }
}

/// Room in the journal for one commit.
#[derive(Debug)]
pub struct Room<'a> {
    journal: &'a CommitJournal,
    entries: &'a [JournalEntry],
    size: usize,
    /// The commit begins at its `end`.
    file: JournalFile,
    turn: u64,
    is_flush_due: bool,
    has_ended: bool,
}

/// The result of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is durable.
    Durable,
    /// It is durable, and the logs should be flushed to make room for later commits.
    FlushDue,
    /// There is no room for it: it is durable after the next flush of the logs.
    NoRoom,
}

impl CommitJournal {
    /// Reads the files of earlier starts in `directory`.
    /// Uses of files are numbered from `first_number`, or from above the existing numbers if that is larger.
    pub(super) fn open(disk: &Arc<dyn Disk>, directory: &Path, first_number: u64) -> Result<CommitJournal, Error> {
        let all_bytes = match disk.space(directory) {
            Err(error) if error.kind() == ErrorKind::Unsupported => u64::MAX,
            space => space.map_err(Error::io("read", directory))?.0,
        };
        let mut uses = files(&**disk, directory)?;
        uses.sort_by_key(|(file, _)| file.number);
        // Above the names too: a file that a crash left without a valid commit must not be opened a second time as a new one.
        let named = uses.iter().filter_map(|(file, _)| number_of(&file.path)).max().unwrap_or(0);
        let next_number = uses.last().map_or(1, |(file, _)| file.number.max(named) + 1).max(first_number);
        let mut state = State { first_number: next_number, next_number, ..State::default() };
        for (file, stored) in uses {
            if stored.is_empty() {
                // Nothing in it is needed.
                state.free.push(file);
                continue;
            }
            stored.into_iter().for_each(|(of, stored)| state.found.entry(of).or_default().push(stored));
            state.older.push(file);
        }
        state.check();
        Ok(CommitJournal {
            disk: disk.clone(),
            directory: directory.to_path_buf(),
            file_bytes_max: (all_bytes / PART_OF_DISK / FILES_MAX as u64).min(FILE_BYTES_MAX),
            state: Mutex::new(state),
            ended: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the batches that earlier starts committed to a log, in the order of their append, from uses of files with numbers of at least `from`.
    /// Returns nothing if it is called again.
    pub(super) fn take(&self, topic_id: Uuid, partition: i32, from: u64) -> Vec<Stored> {
        let mut stored = self.state().found.remove(&(topic_id, partition)).unwrap_or_default();
        stored.retain(|stored| stored.number >= from);
        stored
    }

    /// Keeps the files of earlier starts for a later start: a log that could not be opened may need them.
    pub fn keep_found(&self) {
        let mut state = self.state();
        let first_number = state.first_number;
        state.older.retain(|file| file.number >= first_number);
    }

    /// Reserves room for appended batches, after all earlier reservations; none if the logs must be flushed instead. Commits with reserved room
    /// may be [written](Room::commit) at the same time.
    pub fn reserve<'a>(&'a self, entries: &'a [JournalEntry]) -> Result<Option<Room<'a>>, Error> {
        let size = COMMIT_HEAD + entries.iter().map(JournalEntry::size).sum::<usize>();
        let taken = (size as u64).next_multiple_of(DIRECT_BLOCK as u64);
        if taken > self.file_bytes_max {
            return Ok(None);
        }
        let mut state = self.state();
        let mut is_flush_due = false;
        if state.current.as_ref().is_none_or(|file| file.end + taken > self.file_bytes_max) {
            let Some(next) = self.next_file(&mut state)? else { return Ok(None) };
            let needed = state.older.len();
            state.seal();
            state.current = Some(next);
            is_flush_due = state.older.len() > needed && state.older.len() >= FILES_DUE;
        }
        let turn = state.next_turn;
        let newest_older = state.older.last().map_or(0, |file| file.number);
        let Some(current) = &mut state.current else { return Ok(None) };
        let file = current.clone();
        current.end += taken;
        assert!(
            current.end <= self.file_bytes_max && current.end.is_multiple_of(DIRECT_BLOCK as u64),
            "commits of {} would end at {}, of at most {} bytes in blocks of {DIRECT_BLOCK}",
            current.path.display(),
            current.end,
            self.file_bytes_max
        );
        assert!(
            newest_older < current.number,
            "use {} of {} does not follow on use {newest_older}, which is read before it",
            current.number,
            current.path.display()
        );
        // Before the turn is taken: if this fails, no later commit waits for it.
        state.check();
        state.next_turn += 1;
        Ok(Some(Room { journal: self, entries, size, file, turn, is_flush_due, has_ended: false }))
    }

    /// A file for a new use; none if the content of all files is still needed, or the disk is full.
    fn next_file(&self, state: &mut State) -> Result<Option<JournalFile>, Error> {
        let number = state.next_number;
        if let Some(free) = state.free.pop() {
            state.next_number += 1;
            return Ok(Some(JournalFile { number, end: 0, ..free }));
        }
        if state.older.len() + usize::from(state.current.is_some()) >= FILES_MAX {
            return Ok(None);
        }
        let path = self.directory.join(format!("{NAME}{number}"));
        let file = match self.disk.open_direct(&path) {
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(None),
            file => file.map_err(Error::io("open", &path))?,
        };
        self.disk.sync_dir(&self.directory).map_err(Error::io("sync", &self.directory))?;
        state.next_number += 1;
        Ok(Some(JournalFile { number, path, file, end: 0 }))
    }

    /// Whether little room remains until the logs are flushed.
    pub fn is_short(&self) -> bool {
        self.state().older.len() >= FILES_HURRY
    }

    /// Identifies all reservations up to now: later ones get another file.
    pub fn seal(&self) -> Sealed {
        let mut state = self.state();
        state.seal();
        Sealed { below: state.next_number }
    }

    /// Notes that the logs were flushed after `sealed` was returned, so that these files are not needed any more. As many free files are kept as one
    /// flush has freed. A file that a commit is still being written to is freed by a later flush, although its batches were flushed too.
    pub fn free(&self, sealed: Sealed) -> Result<(), Error> {
        let surplus = {
            let mut state = self.state();
            assert!(sealed.below <= state.next_number, "uses below {} were flushed, and the next is {}", sealed.below, state.next_number);
            let is_done = |file: &JournalFile| file.number < sealed.below && Arc::strong_count(&file.file) == 1;
            let (freed, needed): (Vec<_>, Vec<_>) = std::mem::take(&mut state.older).into_iter().partition(is_done);
            let count = freed.len();
            state.older = needed;
            state.free.extend(freed);
            let kept = state.free.len().min(count.max(FREE_MIN));
            state.free.split_off(kept)
        };
        self.remove_files(surplus)
    }

    /// Removes the files. All logs must be durable.
    pub fn remove(&self) -> Result<(), Error> {
        let files = {
            let mut state = self.state();
            state.seal();
            let State { older, free, .. } = &mut *state;
            older.drain(..).chain(free.drain(..)).collect()
        };
        self.remove_files(files)
    }

    fn remove_files(&self, files: Vec<JournalFile>) -> Result<(), Error> {
        files.into_iter().map(|file| file.path).try_for_each(|path| self.disk.remove_file(&path).map_err(Error::io("remove", &path)))
    }
}

impl State {
    fn seal(&mut self) {
        self.older.extend(self.current.take());
    }

    /// Asserts the invariants of a journal.
    fn check(&self) {
        let State { next_number, next_turn, ending_turn, broken_below, .. } = *self;
        let numbers = || self.older.iter().chain(&self.current).map(|file| file.number);
        assert!(
            numbers().is_sorted_by(|a, b| a < b),
            "the files of a commit journal are out of order: {:?}",
            numbers().collect::<Vec<_>>()
        );
        assert!(numbers().all(|number| number < next_number), "a file of a commit journal has a number from {next_number} on");
        let mut paths: Vec<&Path> = self.older.iter().chain(&self.current).chain(&self.free).map(|file| file.path.as_path()).collect();
        paths.sort_unstable();
        assert!(paths.is_sorted_by(|a, b| a < b), "a file of a commit journal is open twice: {paths:?}");
        assert!(
            ending_turn <= next_turn && broken_below <= next_turn,
            "turn {ending_turn} of {next_turn} ends, broken below {broken_below}"
        );
    }
}

impl Room<'_> {
    /// Writes the commit and fsyncs it. Blocks, also until all commits with earlier reservations have ended: a file ends before its first invalid
    /// commit, so that if one commit fails, those after it are not durable either.
    pub fn commit(mut self) -> Result<Committed, Error> {
        let is_written = self.write()?;
        Ok(match self.end(is_written) {
            false => Committed::NoRoom,
            true if self.is_flush_due => Committed::FlushDue,
            true => Committed::Durable,
        })
    }

    /// Writes and fsyncs the commit. Returns whether the disk had room for it.
    fn write(&self) -> Result<bool, Error> {
        let JournalFile { path, file, .. } = &self.file;
        let mut buffer = self.journal.state().buffers.pop().unwrap_or_default();
        let bytes = blocks(&mut buffer, self.size);
        write_commit(self.entries, self.file.number, &mut bytes[..self.size])?;
        match file.write_at(self.file.end, &[IoSlice::new(bytes)]).map_err(Error::io("write", path)) {
            Err(error) if error.is_disk_failure() => return Err(error),
            // The disk is full or a quota is used up: an incomplete commit in the file does no harm.
            Err(_) => return Ok(false),
            Ok(()) => file.sync().map_err(Error::io("sync", path))?,
        }
        buffer.truncate(BUFFER_KEPT);
        buffer.shrink_to(BUFFER_KEPT);
        self.journal.state().buffers.push(buffer);
        Ok(true)
    }

    /// Waits for its turn, and returns whether the commit is durable.
    fn end(&mut self, is_written: bool) -> bool {
        self.has_ended = true;
        let state = self.journal.ended.wait_while(self.journal.state(), |state| state.ending_turn != self.turn);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if !is_written {
            state.broken_below = state.next_turn;
            state.seal();
        }
        assert_eq!(state.ending_turn, self.turn, "a commit ends before its turn");
        state.ending_turn += 1;
        assert!(state.ending_turn <= state.next_turn, "{} commits have ended, of {}", state.ending_turn, state.next_turn);
        self.journal.ended.notify_all();
        self.turn >= state.broken_below
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end(false);
        }
    }
}

/// `size` bytes rounded up to whole blocks, in memory aligned for direct I/O. The bytes after `size` keep their earlier content.
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

    /// Converts the error of invalid batches.
    pub(super) fn corrupt(&self) -> impl Fn(records::Error) -> Error {
        |source| Error::Corrupt { path: self.path.clone(), source }
    }
}

/// Whether a file of this name belongs to a journal.
pub(super) fn is_journal(name: &str) -> bool {
    number_of(Path::new(name)).is_some()
}

/// The number in the name of a journal's file: that of the first use.
fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(NAME)?.parse().ok()
}

/// A file, and the batches of its last use with their logs.
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
            stored.push((of, Stored { path: path.clone(), number, file: from.clone(), position, length }));
        })
        .map_err(Error::io("read", &path))?;
        let file = disk.open_direct(&path).map_err(Error::io("open", &path))?;
        files.push((JournalFile { number, path, file, end: 0 }, stored));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::env::{ManualClock, MemoryDisk};
    use crate::storage::journal_format::ENTRY_HEAD;
    use crate::storage::unflushed::Uncommitted;
    use crate::storage::{Extent, RecordsSlice};

    const ROOT: &str = "/data";
    const TOPIC: Uuid = Uuid([7; 16]);

    fn disk() -> Arc<dyn Disk> {
        let disk = MemoryDisk::new(Arc::new(ManualClock::at(0)));
        disk.create_dir(Path::new(ROOT)).unwrap();
        Arc::new(disk)
    }

    fn open(disk: &Arc<dyn Disk>) -> CommitJournal {
        CommitJournal::open(disk, Path::new(ROOT), 0).unwrap()
    }

    /// Batches appended to a partition.
    fn entries(disk: &Arc<dyn Disk>, partition: i32, bytes: &[u8]) -> [JournalEntry; 1] {
        let path = Path::new(ROOT).join(format!("log-{partition}"));
        let file = disk.open(&path, OpenMode::Write).unwrap();
        file.write_at(0, &[IoSlice::new(bytes)]).unwrap();
        let parts = vec![(path, RecordsSlice::written(file, 0, bytes.len()))];
        let batches = Uncommitted { parts, extent: Extent::default(), lent: Arc::default() };
        [JournalEntry { topic_id: TOPIC, partition, batches }]
    }

    /// The batches that a start finds for some partitions.
    fn found<const N: usize>(disk: &Arc<dyn Disk>, partitions: [i32; N]) -> [Vec<Vec<u8>>; N] {
        let journal = open(disk);
        partitions.map(|partition| journal.take(TOPIC, partition, 0).iter().map(|stored| stored.read().unwrap()).collect())
    }

    #[test]
    fn files_that_a_crash_left_without_a_commit_are_used_again_and_none_is_open_twice() {
        // Such a file had the number 0, and its name was given to the next use as well: two handles of one file, of which one was freed and
        // overwritten, or removed, while the other one held acknowledged batches.
        let disk = disk();
        for number in [1, 2] {
            disk.open_direct(&Path::new(ROOT).join(format!("{NAME}{number}"))).unwrap();
        }
        for round in 0..3_u8 {
            let journal = open(&disk);
            for at in 0..3_u8 {
                let batches = [round, at];
                let entries = entries(&disk, 0, &batches);
                assert_eq!(journal.reserve(&entries).unwrap().unwrap().commit().unwrap(), Committed::Durable);
                let state = journal.state();
                state.check();
                assert_eq!(state.current.as_ref().map(|file| disk.exists(&file.path)), Some(true));
                drop(state);
                let sealed = journal.seal();
                if at < 2 {
                    journal.free(sealed).unwrap();
                }
            }
            assert_eq!(found(&disk, [0])[0].last(), Some(&vec![round, 2]));
        }
    }

    #[test]
    fn a_commit_ends_after_those_that_had_room_before() {
        let disk = disk();
        let journal = open(&disk);
        let [first, second] = [entries(&disk, 0, b"first"), entries(&disk, 1, b"second")];
        let [one, two] = [&first, &second].map(|entries| journal.reserve(entries).unwrap().unwrap());
        let has_ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let committed = two.commit().unwrap();
                has_ended.store(true, Ordering::SeqCst);
                committed
            });
            std::thread::sleep(Duration::from_millis(20));
            assert!(!has_ended.load(Ordering::SeqCst));
            assert_eq!(one.commit().unwrap(), Committed::Durable);
            assert_eq!(other.join().unwrap(), Committed::Durable);
        });
        assert_eq!(found(&disk, [0, 1]), [[b"first".to_vec()].to_vec(), [b"second".to_vec()].to_vec()]);
    }

    #[test]
    fn behind_a_commit_that_fails_none_is_durable_and_the_next_goes_to_another_file() {
        let disk = disk();
        let journal = open(&disk);
        let [first, second, third] = [entries(&disk, 0, b"first"), entries(&disk, 1, b"second"), entries(&disk, 2, b"third")];
        let [one, two] = [&first, &second].map(|entries| journal.reserve(entries).unwrap().unwrap());
        drop(one);
        assert_eq!(two.commit().unwrap(), Committed::NoRoom);
        assert_eq!(journal.reserve(&third).unwrap().unwrap().commit().unwrap(), Committed::Durable);
        assert_eq!(found(&disk, [0, 1, 2]), [vec![], vec![], vec![b"third".to_vec()]]);
    }

    #[test]
    fn a_commit_with_a_wrong_byte_ends_the_file() {
        let disk = disk();
        let journal = open(&disk);
        for entries in [entries(&disk, 0, b"first"), entries(&disk, 1, b"second")] {
            journal.reserve(&entries).unwrap().unwrap().commit().unwrap();
        }
        let path = Path::new(ROOT).join("commit-journal.1");
        let whole = disk.read(&path).unwrap();
        let commits =
            [(0, "first"), (DIRECT_BLOCK, "second")].map(|(begin, batches)| begin..begin + COMMIT_HEAD + ENTRY_HEAD + batches.len());
        for (before, commit) in commits.into_iter().enumerate() {
            for at in commit {
                let mut wrong = whole.clone();
                wrong[at] ^= 1;
                disk.write(&path, &wrong).unwrap();
                assert_eq!(found(&disk, [0, 1]).map(|of| of.len()), [before, 0], "byte {at}");
            }
        }
        disk.write(&path, &whole).unwrap();
        assert_eq!(found(&disk, [0, 1]).map(|of| of.len()), [1, 1]);
    }

    #[test]
    fn a_file_that_a_commit_is_written_to_is_not_used_again() {
        let disk = disk();
        let journal = open(&disk);
        let [first, second] = [entries(&disk, 0, b"first"), entries(&disk, 1, b"second")];
        let room = journal.reserve(&first).unwrap().unwrap();
        journal.free(journal.seal()).unwrap();
        let other = journal.reserve(&second).unwrap().unwrap();
        let [path, other_path] = [&room, &other].map(|room| room.file.path.clone());
        // Commits end in order: a dropped one waits for those before it.
        room.commit().unwrap();
        other.commit().unwrap();
        assert_ne!(path, other_path);
        journal.free(journal.seal()).unwrap();
        let again = [journal.reserve(&first).unwrap().unwrap(), journal.reserve(&second).unwrap().unwrap()];
        assert!(again.iter().all(|room| room.file.number > 2) && disk.exists(&path));
    }
}
