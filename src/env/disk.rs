//! Files, as the rooms above need them.

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
    /// For reading and writing; made where it is missing.
    Write,
    /// For reading and writing; it must exist.
    Existing,
}

/// Of which positions, sizes and memory are multiples where the page cache is passed by: the largest block of usual disks.
pub const DIRECT_BLOCK: usize = 4096;

/// A tree of files. Paths are as the operating system takes them; all calls block.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Opens a file, made where it is missing, for writes that pass by the page cache, where the file system can: they need no second copy, and
    /// take no memory from what is read. Their positions, sizes and memory must be multiples of [`DIRECT_BLOCK`].
    fn open_direct(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path, OpenMode::Write)
    }

    /// Maps a file that no one will change any more.
    fn map(&self, path: &Path) -> io::Result<Map>;

    /// All bytes of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The names in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Whether there is a file or directory.
    fn exists(&self, path: &Path) -> bool;

    /// Whether there is a directory.
    fn is_dir(&self, path: &Path) -> bool;

    /// Makes a directory and those above it.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Gives a file or directory another name, replacing a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; one that is missing is no error.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and all within.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes names within a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes everything durable that lies on the same file system as `path`; `Unsupported` where files can only be synced one by one.
    fn sync_all(&self, path: &Path) -> io::Result<()>;

    /// Takes a lock that ends with the value or the process; none where another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;

    /// Bytes of the file system that holds `path`, and how many of them are free for us; `Unsupported` where the system does not say.
    fn space(&self, path: &Path) -> io::Result<(u64, u64)>;

    /// Writes a small file so that it holds the old or the new bytes at any moment.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let next = path.with_extension("tmp");
        let file = self.open(&next, OpenMode::Write)?;
        file.truncate(0)?;
        file.write_at(0, &[IoSlice::new(bytes)])?;
        file.sync()?;
        self.rename(&next, path)?;
        path.parent().map_or(Ok(()), |folder| self.sync_dir(folder))
    }

    /// Writes a small file at once, without care for a crash in between: for what can be made anew.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = self.open(path, OpenMode::Write)?;
        file.truncate(0)?;
        file.write_at(0, &[IoSlice::new(bytes)])
    }
}

/// An open file. Calls take positions, so that readers and the one writer share it.
pub trait File: Send + Sync + Debug {
    /// Its size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Reads up to `bytes.len()` bytes; fewer only at the end.
    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize>;

    /// Writes all bytes.
    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros.
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Writes a range from the page cache to the disk and waits for it. It is not durable then, but [`File::sync`] has less to do, which keeps
    /// others from the disk until it is done. An error is one of the disk, as that of a sync.
    fn write_back(&self, _position: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    /// Makes bytes and size durable.
    fn sync(&self) -> io::Result<()>;

    /// The time of the last write, in milliseconds since 1970.
    fn modified_ms(&self) -> io::Result<i64>;

    /// Sets the time of the last write.
    fn set_modified_ms(&self, ms: i64) -> io::Result<()>;

    /// Whether reading a range would not wait for a disk, as far as a few samples tell.
    fn is_cached(&self, position: u64, length: usize) -> bool;

    /// What the kernel needs to send from the file; none where it cannot.
    fn descriptor(&self) -> Option<Descriptor<'_>>;
}

/// A held lock: it ends when what holds it is dropped.
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
