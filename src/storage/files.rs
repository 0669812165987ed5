//! The open files of a log directory's segments: a bounded number at once, however many segments there are.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError, Weak};

use super::Error;
use crate::env::{Disk, File, OpenMode};

/// Opens the files of segments. When the limit is reached, the file that was not requested for the longest time is closed; it is opened again on
/// its next request. A file is not closed while it is held. A file with bytes that may not be durable is fsynced before it is closed, so that
/// an error of the disk is not lost with it. The error is returned to whoever requested another file, and noted for the next fsync.
#[derive(Debug)]
pub struct OpenFiles {
    disk: Arc<dyn Disk>,
    max: usize,
    open: Arc<Mutex<VecDeque<Weak<Slot>>>>,
    presence: Presence,
    /// Held during an fsync; whether the fsync of a file that was to be closed has failed.
    syncing: Arc<Mutex<bool>>,
}

/// Whether a log still has its directory. When its topic is deleted the directory is renamed, and a new topic of the same name may get a directory
/// with the same path: from then on the log's paths do not exist, or lead to files of another log.
///
/// Code that uses a path of the log must hold the log's lock, under which nothing is deleted, or run within [`Presence::during`]. A file that is
/// already open stays usable, and using it only wastes time.
#[derive(Debug, Clone, Default)]
pub struct Presence(Arc<RwLock<bool>>);

impl Presence {
    /// Uses a path of the log. The directory is not renamed until this ends, so `work` should only open or create a file and not wait for the
    /// disk.
    pub(super) fn during<T>(&self, directory: &Path, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let is_over = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if *is_over { Err(Error::Deleted(directory.to_path_buf())) } else { work() }
    }

    /// Marks that the directory will be renamed now, and waits until no path in it is in use.
    pub(super) fn end(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Whether the log was deleted.
    pub(super) fn is_over(&self) -> bool {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A segment's file, open or not.
#[derive(Debug, Clone)]
pub(super) struct SegmentFile {
    files: Arc<OpenFiles>,
    slot: Arc<Slot>,
}

#[derive(Debug)]
struct Slot {
    path: PathBuf,
    file: Mutex<Option<Arc<dyn File>>>,
    /// Whether it was requested since the last search for a file to close.
    used: AtomicBool,
    /// Whether it has written bytes that may not be durable.
    dirty: AtomicBool,
    /// The presence of its log.
    presence: Presence,
    /// Whether its name may belong to another file; changed under the lock of `file`.
    retired: AtomicBool,
}

impl OpenFiles {
    /// No file is open yet. At most `max` files will be open, plus files that are held.
    pub fn new(disk: Arc<dyn Disk>, max: usize) -> Arc<OpenFiles> {
        Arc::new(OpenFiles { disk, max: max.max(1), open: Arc::default(), presence: Presence::default(), syncing: Arc::default() })
    }

    /// The same open files, for the segments of one log.
    pub(super) fn of_log(&self, presence: &Presence) -> Arc<OpenFiles> {
        let OpenFiles { disk, max, open, syncing, .. } = self;
        Arc::new(OpenFiles { disk: disk.clone(), max: *max, open: open.clone(), presence: presence.clone(), syncing: syncing.clone() })
    }

    /// Must be locked during every fsync of these files: of two concurrent fsyncs of a file only one gets the error of a failed disk. It contains
    /// whether the fsync of a file that was to be closed has failed: then no later fsync proves anything.
    pub fn syncing(&self) -> &Mutex<bool> {
        &self.syncing
    }

    /// The disk that contains the files.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The number of open files.
    pub fn count(&self) -> usize {
        lock(&self.open).iter().filter(|slot| slot.strong_count() > 0).count()
    }

    /// Registers a file that was opened, and closes others above the limit.
    fn opened(&self, slot: &Arc<Slot>) -> Result<(), Error> {
        let mut open = lock(&self.open);
        open.push_back(Arc::downgrade(slot));
        let mut chances = 2 * open.len();
        while open.len() > self.max && chances > 0 {
            chances -= 1;
            let Some(oldest) = open.pop_front() else { break };
            let Some(slot) = oldest.upgrade() else { continue };
            if slot.used.swap(false, Ordering::AcqRel) {
                open.push_back(oldest);
                continue;
            }
            let mut file = lock(&slot.file);
            if file.as_ref().is_some_and(|file| Arc::strong_count(file) > 1) {
                open.push_back(oldest);
                continue;
            }
            // A flush that is in progress soon leaves fewer files dirty. Until then more files than the limit may be open.
            let has_failed = match self.syncing.try_lock() {
                Err(TryLockError::WouldBlock) if slot.dirty.load(Ordering::Acquire) => {
                    open.push_back(oldest);
                    continue;
                }
                Err(TryLockError::WouldBlock) => None,
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Ok(has_failed) => Some(has_failed),
            };
            if let Some(mut has_failed) = has_failed
                && let Err(error) = slot.make_durable(file.as_deref())
            {
                *has_failed = true;
                open.push_back(oldest);
                return Err(error);
            }
            *file = None;
        }
        Ok(())
    }
}

impl Slot {
    /// Fsyncs its file if that has bytes that may not be durable. After a failure it still has them.
    fn make_durable(&self, file: Option<&dyn File>) -> Result<(), Error> {
        // Unsynced bytes of a deleted log are not needed.
        if let Some(file) = file.filter(|_| self.dirty.load(Ordering::Acquire) && !self.presence.is_over()) {
            file.sync().map_err(Error::io("sync", &self.path))?;
        }
        self.dirty.store(false, Ordering::Release);
        Ok(())
    }
}

impl SegmentFile {
    /// Opens or creates the file at `path`; afterwards its path is `later`, to which it may still have to be renamed.
    pub(super) fn open(files: &Arc<OpenFiles>, path: &Path, later: PathBuf) -> Result<SegmentFile, Error> {
        let file = files.disk.open(path, OpenMode::Write).map_err(Error::io("open", path))?;
        // A file that is not renamed yet cannot be reopened at its final path, so it is kept open.
        let settled = path == later;
        let [used, dirty, retired] = [true, false, false].map(AtomicBool::new);
        let presence = files.presence.clone();
        let slot = Arc::new(Slot { path: later, file: Mutex::new(Some(file)), used, dirty, retired, presence });
        if settled {
            files.opened(&slot)?;
        }
        Ok(SegmentFile { files: files.clone(), slot })
    }

    /// Its final name.
    pub(super) fn path(&self) -> &Path {
        &self.slot.path
    }

    /// Marks that the file has its final name.
    pub(super) fn settle(&self) -> Result<(), Error> {
        self.files.opened(&self.slot)
    }

    /// The file; it stays open as long as the result is held.
    pub(super) fn get(&self) -> Result<Arc<dyn File>, Error> {
        let mut file = lock(&self.slot.file);
        self.slot.used.store(true, Ordering::Release);
        if let Some(file) = file.as_ref() {
            return Ok(file.clone());
        }
        // A read must not create a file that was removed. Readers do not hold the log's lock: the topic may be deleted and another one created under
        // its name, and that one's file must not be opened.
        let path = &self.slot.path;
        if self.slot.retired.load(Ordering::Acquire) {
            return Err(Error::io("open", path)(ErrorKind::NotFound.into()));
        }
        let open = || self.files.disk.open(path, OpenMode::Existing).map_err(Error::io("open", path));
        let opened = self.slot.presence.during(path, open)?;
        *file = Some(opened.clone());
        drop(file);
        self.files.opened(&self.slot)?;
        Ok(opened)
    }

    /// The file, for writing.
    pub(super) fn get_dirty(&self) -> Result<Arc<dyn File>, Error> {
        let file = self.get()?;
        // Only now: a concurrent search for a file to close marks what it has fsynced as durable, and does not touch a file that is held.
        self.slot.dirty.store(true, Ordering::Release);
        Ok(file)
    }

    /// Marks that the name will belong to another file. Holders of this file can still use it.
    pub(super) fn retire(&self) {
        // Readers open the file under this lock, so a file that they have opened before is the old one.
        let _file = lock(&self.slot.file);
        self.slot.retired.store(true, Ordering::Release);
    }

    /// Marks everything written as durable. Only the writer may call this.
    pub(super) fn is_durable(&self) {
        self.slot.dirty.store(false, Ordering::Release);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::env::{ManualClock, MemoryDisk, RealDisk};

    #[test]
    fn no_more_files_are_open_than_allowed_and_a_held_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let files = OpenFiles::new(Arc::new(RealDisk), 3);
        let path = |n: usize| folder.path().join(format!("{n}.log"));
        let segments: Vec<_> = (0..10).map(|n| SegmentFile::open(&files, &path(n), path(n)).unwrap()).collect();
        assert_eq!(files.count(), 3);
        let held = segments[0].get().unwrap();
        for (n, segment) in segments.iter().enumerate() {
            segment.get_dirty().unwrap().write_at(0, &[IoSlice::new(&[n as u8])]).unwrap();
        }
        assert_eq!(files.count(), 3);
        std::fs::remove_file(path(0)).unwrap();
        let mut byte = [9];
        assert_eq!((held.read_at(0, &mut byte).unwrap(), byte), (1, [0]));
        segments[9].get().unwrap().read_at(0, &mut byte).unwrap();
        assert_eq!(byte, [9]);
        drop(held);
        segments[1..].iter().for_each(|segment| drop(segment.get().unwrap()));
        // It was closed and its name is removed: no new file is created.
        assert!(segments[0].get().is_err() && !path(0).exists());
    }

    #[test]
    fn a_file_that_cannot_be_synced_is_not_closed_and_no_later_sync_is_believed() {
        // The file counted as durable after the failure, and the error went to a reader of another file, who ignored it.
        let disk = MemoryDisk::new(Arc::new(ManualClock::at(0)));
        disk.create_dir(Path::new("/data")).unwrap();
        let files = OpenFiles::new(Arc::new(disk.clone()), 1);
        let paths = ["/data/0", "/data/1"].map(PathBuf::from);
        let [one, two] = paths.map(|path| SegmentFile::open(&files, &path, path.clone()).unwrap());
        one.get_dirty().unwrap().write_at(0, &[IoSlice::new(b"x")]).unwrap();
        let is_open = |segment: &SegmentFile| lock(&segment.slot.file).is_some();
        // A flush is in progress, which learns of errors itself.
        let flush = files.syncing().lock().unwrap();
        disk.set_syncs_fail(true);
        two.get().unwrap();
        two.get().unwrap();
        assert!(is_open(&one) && one.slot.dirty.load(Ordering::Acquire) && !*flush);
        drop(flush);
        let third = PathBuf::from("/data/2");
        // A file has one more chance after it was used.
        let failed = (0..3).find_map(|_| SegmentFile::open(&files, &third, third.clone()).err());
        assert!(failed.is_some_and(|error| error.is_disk_failure()));
        assert!(is_open(&one) && one.slot.dirty.load(Ordering::Acquire) && *files.syncing().lock().unwrap());
    }
}
