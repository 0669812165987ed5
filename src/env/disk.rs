//! The file operations that the other rooms use.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::system::Descriptor;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; created if it is missing.
    Write,
    /// For reading and writing; it must exist.
    Existing,
}

/// The required alignment of positions, sizes and memory for direct I/O: the largest block size of common disks.
pub const DIRECT_BLOCK: usize = 4096;

/// A tree of files. Paths are those of the operating system; all calls block.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Opens a file, created if it is missing, for writes that bypass the page cache, if the file system supports that: such writes need no second
    /// copy, and evict nothing that readers need. Their positions, sizes and memory must be multiples of [`DIRECT_BLOCK`].
    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path, OpenMode::Write)
    }

    /// Maps a file that will not change any more.
    fn map(&self, path: &Path) -> io::Result<Map>;

    /// All bytes of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The names in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Whether there is a file or directory.
    fn exists(&self, path: &Path) -> bool;

    /// Whether there is a directory.
    fn is_dir(&self, path: &Path) -> bool;

    /// Creates a directory and its parents.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Renames a file or directory, and replaces an existing file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; a missing file is no error.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with its contents.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Fsyncs a directory, so that the names in it are durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Fsyncs everything on the file system of `path`; `Unsupported` if files can only be fsynced one by one.
    fn sync_all(&self, path: &Path) -> io::Result<()>;

    /// Acquires a lock that is released with the value or at the end of the process; none if another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;

    /// The size of the file system that contains `path`, and the free bytes that this process may use; `Unsupported` if they are not reported.
    fn space(&self, path: &Path) -> io::Result<(u64, u64)>;

    /// Replaces a small file atomically: at any moment it contains either the old or the new bytes.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let next = path.with_extension("tmp");
        let file = self.open(&next, OpenMode::Write)?;
        file.truncate(0)?;
        file.write_at(0, &[IoSlice::new(bytes)])?;
        file.sync()?;
        self.rename(&next, path)?;
        path.parent().map_or(Ok(()), |folder| self.sync_dir(folder))
    }

    /// Writes a small file without protection against a crash meanwhile: for files that can be rebuilt.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = self.open(path, OpenMode::Write)?;
        file.truncate(0)?;
        file.write_at(0, &[IoSlice::new(bytes)])
    }
}

/// An open file. Each call has a position argument, so that readers and the one writer can share the file.
pub trait File: Send + Sync + Debug {
    /// Its size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Reads up to `bytes.len()` bytes; fewer only at the end.
    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize>;

    /// Writes all bytes of the parts.
    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Truncates the file, or extends it with zeros.
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Writes a range from the page cache to the disk and waits for it. The range is not durable after that, but [`File::sync`] has less to write,
    /// and so it delays other disk I/O for a shorter time. An error is a disk error, like that of an fsync.
    fn write_back(&self, _position: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    /// Fsyncs the file: its bytes and its size.
    fn sync(&self) -> io::Result<()>;

    /// The time of the last write, in milliseconds since 1970.
    fn modified_ms(&self) -> io::Result<i64>;

    /// Sets the time of the last write.
    fn set_modified_ms(&self, ms: i64) -> io::Result<()>;

    /// Whether a read of the range would not wait for the disk, judged from a few samples.
    fn is_cached(&self, position: u64, length: usize) -> bool;

    /// The descriptor with which the kernel can send from the file; none if it cannot.
    fn descriptor(&self) -> Option<Descriptor<'_>>;
}

/// A held lock: it is released when the value is dropped.
pub struct Lock(#[expect(dead_code, reason = "held for its drop")] Box<dyn Send + Sync>);

impl Lock {
    pub(super) fn new(held: impl Send + Sync + 'static) -> Lock {
        Lock(Box::new(held))
    }
}

impl Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lock")
    }
}

/// The bytes of a mapped file.
#[derive(Debug)]
pub enum Map {
    /// Mapped by the kernel.
    Mapped(memmap2::Mmap),
    /// Read into memory.
    Copied(Vec<u8>),
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        match self {
            Map::Mapped(map) => map,
            Map::Copied(bytes) => bytes,
        }
    }
}
