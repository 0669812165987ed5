//! The machine's disk.

use std::fs;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::disk::{Disk, File, Lock, Map, OpenMode};
use super::system::{self, Cursor, Descriptor};

/// `std::fs`, with positional reads and writes.
#[derive(Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let (write, create) = (mode != OpenMode::Read, mode == OpenMode::Write);
        let file = fs::OpenOptions::new().read(true).write(write).create(create).truncate(false).open(path)?;
        Ok(Arc::new(RealFile::new(file)))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile::new(system::open_direct(path)?)))
    }

    fn map(&self, path: &Path) -> io::Result<Map> {
        system::map(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // One system call fewer than a write of parts: a topic with 1,000 partitions has as many of these files.
        fs::write(path, bytes)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        system::sync_directory(path)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        system::sync_file_system(path)
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        system::space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock::new(Locked(file)))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// A locked file. Closing it is not enough: a child process that is just being started also has the file open, until it executes its own program.
struct Locked(fs::File);

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing the file also releases the lock.
        let _ = self.0.unlock();
    }
}

#[derive(Debug)]
struct RealFile {
    file: fs::File,
    cursor: Cursor,
}

impl RealFile {
    fn new(file: fs::File) -> RealFile {
        RealFile { file, cursor: Cursor::default() }
    }
}

impl File for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        system::read_at(&self.file, &self.cursor, bytes, position)
    }

    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        system::write_at(&self.file, &self.cursor, parts, position)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    fn write_back(&self, position: u64, length: u64) -> io::Result<()> {
        system::write_back(&self.file, position, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn modified_ms(&self) -> io::Result<i64> {
        let modified = self.file.metadata()?.modified()?;
        Ok(modified.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64))
    }

    fn set_modified_ms(&self, ms: i64) -> io::Result<()> {
        self.file.set_modified(UNIX_EPOCH + Duration::from_millis(ms.max(0) as u64))
    }

    fn is_cached(&self, position: u64, length: usize) -> bool {
        system::is_cached(&self.file, position, length)
    }

    fn descriptor(&self) -> Option<Descriptor<'_>> {
        Descriptor::of(&self.file)
    }
}
