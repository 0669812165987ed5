//! The machine's disk.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::disk::{Disk, File, Lock, Map, OpenMode};

/// The kernel reads ahead at least as much: of so many bytes one is looked at.
const SAMPLE_BYTES: usize = 256 << 10;

/// `std::fs`, with positioned reads and writes.
#[derive(Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let (write, create) = (mode != OpenMode::Read, mode == OpenMode::Write);
        let file = fs::OpenOptions::new().read(true).write(write).create(create).truncate(false).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        match options.custom_flags(OFlags::DIRECT.bits() as i32).open(path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.open(path, OpenMode::Write),
            file => Ok(Arc::new(RealFile(file?))),
        }
    }

    #[allow(unsafe_code)]
    fn map(&self, path: &Path) -> io::Result<Map> {
        let file = fs::File::open(path)?;
        // SAFETY: only sealed index files are mapped. Storage never writes or truncates one after it is sealed (a rebuilt index is written
        // beside it and renamed over it), and the lock of the log directory keeps other brokers out.
        let map = unsafe { memmap2::Mmap::map(&file) }?;
        Ok(Map::Mapped(map))
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

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(fs::File::open(path)?)?)
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        let facts = rustix::fs::statvfs(path)?;
        Ok((facts.f_blocks * facts.f_frsize, facts.f_bavail * facts.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock::new(Locked(file)))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// A locked file. Closing it would not do: a child process that is just being started has the file too, until it runs its own program.
struct Locked(fs::File);

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing ends the lock too.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[derive(Debug)]
struct RealFile(fs::File);

impl File for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.0.read_at(&mut bytes[done..], position + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, mut position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut done = rustix::io::retry_on_intr(|| rustix::io::pwritev(&self.0, parts, position))?;
        // A short write is rare (a full disk, a signal): what is left goes out part by part.
        position += done as u64;
        if done < total {
            for part in parts {
                let skip = done.min(part.len());
                self.0.write_all_at(&part[skip..], position)?;
                position += (part.len() - skip) as u64;
                done -= skip;
            }
        }
        Ok(())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    #[allow(unsafe_code)]
    fn write_back(&self, position: u64, length: u64) -> io::Result<()> {
        let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        // SAFETY: it takes an open descriptor and numbers, and touches no memory of ours.
        let result = unsafe { libc::sync_file_range(self.0.as_raw_fd(), position as i64, length as i64, flags) };
        let error = if result == 0 { return Ok(()) } else { io::Error::last_os_error() };
        match Errno::from_io_error(&error) {
            // It cannot be had here, and the sync does it all.
            Some(Errno::NOSYS | Errno::INVAL | Errno::SPIPE) => Ok(()),
            _ => Err(error),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn modified_ms(&self) -> io::Result<i64> {
        let modified = self.0.metadata()?.modified()?;
        Ok(modified.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64))
    }

    fn set_modified_ms(&self, ms: i64) -> io::Result<()> {
        self.0.set_modified(UNIX_EPOCH + Duration::from_millis(ms.max(0) as u64))
    }

    fn is_cached(&self, position: u64, length: usize) -> bool {
        let last = position + length.saturating_sub(1) as u64;
        (position..last).step_by(SAMPLE_BYTES).skip(1).chain([last]).all(|at| {
            let read = preadv2(&self.0, &mut [IoSliceMut::new(&mut [0])], at, ReadWriteFlags::NOWAIT);
            // A file system that cannot say is taken at its best.
            read != Err(Errno::AGAIN)
        })
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}
