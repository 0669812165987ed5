//! The open files of a log directory's segments: at most so many at once, however many segments there are.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use super::Error;
use crate::env::{Disk, File, OpenMode};

/// Where segments get their files. The one that was not asked for longest is closed when another one needs its place, and is opened again
/// when it is asked for; who still holds it keeps it. A file with bytes that may not be durable is synced before it is closed: an error of
/// the disk must not get lost with it.
#[derive(Debug)]
pub struct OpenFiles {
    disk: Arc<dyn Disk>,
    max: usize,
    open: Arc<Mutex<VecDeque<Weak<Slot>>>>,
    presence: Presence,
}

/// Whether a log still has its directory. When its topic is deleted the directory is renamed, and a new topic of the same name may get one of
/// the same path: from then on no path leads to a file of the log, and what a path leads to is not the log's.
///
/// Whoever uses a path of the log holds the log's lock, under which nothing is deleted, or does it within [`Presence::during`]. A file that is
/// open stays usable, and only wastes time.
#[derive(Debug, Clone, Default)]
pub struct Presence(Arc<RwLock<bool>>);

impl Presence {
    /// Uses a path of the log. The directory is not renamed until this ends, so `work` should only open or create a file and not wait for the
    /// disk.
    pub(super) fn during<T>(&self, directory: &Path, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let is_over = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if *is_over { Err(Error::Deleted(directory.to_path_buf())) } else { work() }
    }

    /// Says that the directory is about to be renamed, and waits until nobody uses a path of it.
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
    /// Asked for since somebody last looked for a file to close.
    used: AtomicBool,
    /// Written and maybe not durable.
    dirty: AtomicBool,
    /// Of the log that it belongs to.
    presence: Presence,
    /// Whether the name may belong to another file by now; changed under the lock of `file`.
    retired: AtomicBool,
}

impl OpenFiles {
    /// None is open yet; more than `max` will not be, but for those that are held.
    pub fn new(disk: Arc<dyn Disk>, max: usize) -> Arc<OpenFiles> {
        Arc::new(OpenFiles { disk, max: max.max(1), open: Arc::default(), presence: Presence::default() })
    }

    /// The same open files, for the segments of one log.
    pub(super) fn of_log(&self, presence: &Presence) -> Arc<OpenFiles> {
        let OpenFiles { disk, max, open, .. } = self;
        Arc::new(OpenFiles { disk: disk.clone(), max: *max, open: open.clone(), presence: presence.clone() })
    }

    /// Where the files lie.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// How many are open now.
    pub fn count(&self) -> usize {
        lock(&self.open).iter().filter(|slot| slot.strong_count() > 0).count()
    }

    /// Takes account of a file that was opened, and closes others.
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
            // Nobody needs what a deleted log has not made durable.
            if slot.dirty.swap(false, Ordering::AcqRel)
                && !slot.presence.is_over()
                && let Some(file) = file.as_ref()
            {
                file.sync().map_err(Error::io("sync", &slot.path))?;
            }
            *file = None;
        }
        Ok(())
    }
}

impl SegmentFile {
    /// Opens or makes the file at `path`; from then on it is found at `later`, where it may have to be renamed to.
    pub(super) fn open(files: &Arc<OpenFiles>, path: &Path, later: PathBuf) -> Result<SegmentFile, Error> {
        let file = files.disk.open(path, OpenMode::Write).map_err(Error::io("open", path))?;
        // A file under another name cannot be found again yet, and is held until it has its own.
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

    /// Says that the file has its name now.
    pub(super) fn settle(&self) -> Result<(), Error> {
        self.files.opened(&self.slot)
    }

    /// The file; it stays open as long as it is held.
    pub(super) fn get(&self) -> Result<Arc<dyn File>, Error> {
        let mut file = lock(&self.slot.file);
        self.slot.used.store(true, Ordering::Release);
        if let Some(file) = file.as_ref() {
            return Ok(file.clone());
        }
        // Reading does not make a file that somebody removed. Readers come without the log's lock: the topic may be deleted and another one
        // created under its name, whose file this must not be.
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

    /// The file, to be written.
    pub(super) fn get_dirty(&self) -> Result<Arc<dyn File>, Error> {
        self.slot.dirty.store(true, Ordering::Release);
        self.get()
    }

    /// Says that the name is about to belong to another file. Who holds this one keeps it.
    pub(super) fn retire(&self) {
        // A reader opens the file under this lock: what it opened before is the old file.
        let _file = lock(&self.slot.file);
        self.slot.retired.store(true, Ordering::Release);
    }

    /// Says that everything that was written is durable. Only the writer may say so.
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
    use crate::env::RealDisk;

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
        // It was closed and its name is gone: nothing new is made there.
        assert!(segments[0].get().is_err() && !path(0).exists());
    }
}
