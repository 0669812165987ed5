//! What is to be made durable, and how: the files of logs for a flush, or their newest batches for a commit.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::files::Presence;
use super::reader::RecordsSlice;
use crate::env::{Disk, File, OpenMode};
use crate::model::Offset;

/// Files above which the whole file system is made durable at once. 16 files with 80 KB each took 8.7 ms one by one, 4 ms from as many
/// threads, and 3.7 ms so (ext4 on a virtual disk).
const SYNC_ONE_BY_ONE_MAX: usize = 4;
/// Bytes in each above which they are made durable one by one again: the disk has room in between for commits that somebody waits for.
const SYNC_ALONE_BYTES: u64 = 1 << 20;
/// More than that of a file is written in pieces before it is synced: a commit that somebody waits for has to wait for one piece, not for all.
const WRITTEN_BACK_FROM: u64 = 8 << 20;
/// Bytes of a piece.
const WRITTEN_BACK_AT_ONCE: u64 = 512 << 10;

/// Files of one log with bytes that may not be durable yet.
#[derive(Debug)]
pub struct Unflushed {
    pub(super) directory: PathBuf,
    pub(super) files: Vec<UnflushedFile>,
    /// Files that are written once: indexes, checkpoints. They may be gone when their turn comes.
    pub(super) written: Vec<PathBuf>,
    /// Whether there are new names in the directory.
    pub(super) names: bool,
    pub(super) presence: Presence,
    pub(super) synced: Synced,
}

/// A segment's file, and the part of it that may not be durable.
#[derive(Debug)]
pub(super) struct UnflushedFile {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    pub(super) position: u64,
    pub(super) length: u64,
}

/// Proof that everything up to an end is durable, and what else was written up to then.
#[derive(Debug, Clone, Copy)]
pub struct Synced {
    pub(super) extent: Extent,
    /// How often names in the directory had changed.
    pub(super) changes: u64,
}

/// An end of a log, at some time: how often the log had been truncated, the offset, the segment, and the size of that. An end from before a
/// truncation is smaller than any after it, so that a flush or a commit that was on its way meanwhile proves nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    pub(super) cuts: u64,
    pub(super) end: Offset,
    pub(super) segment: Offset,
    pub(super) size: u64,
}

/// Batches that were appended and are not committed.
#[derive(Debug)]
pub struct Uncommitted {
    /// Parts of files, with the paths for errors.
    pub(super) parts: Vec<(PathBuf, RecordsSlice)>,
    /// Where they end.
    pub extent: Extent,
    /// Shows the log that somebody may still read them.
    #[expect(dead_code, reason = "held for its count")]
    pub(super) lent: Arc<()>,
}

impl Uncommitted {
    /// Bytes of the batches.
    pub(super) fn size(&self) -> usize {
        self.parts.iter().map(|(_, slice)| slice.length).sum()
    }

    /// Reads the batches; `bytes` has as many as they have.
    pub(super) fn read(&self, mut bytes: &mut [u8]) -> Result<(), Error> {
        for (path, slice) in &self.parts {
            let (part, rest) = bytes.split_at_mut(slice.length);
            if slice.file.read_at(slice.position, part).map_err(Error::io("read", path))? < part.len() {
                return Err(Error::io("read", path)(ErrorKind::UnexpectedEof.into()));
            }
            bytes = rest;
        }
        Ok(())
    }
}

impl Unflushed {
    /// Makes it durable. Blocks; for `pause` see [`sync_logs`].
    ///
    /// Nobody holds the log's lock here, so the topic may be deleted meanwhile and its directory renamed, at any moment: then the paths lead
    /// nowhere or to another topic of the same name. That is no error of the disk, and nothing is left to be made durable. A sync of another
    /// topic's directory does no harm.
    pub(super) fn sync(&self, disk: &dyn Disk, pause: &mut dyn FnMut()) -> Result<(), Error> {
        if self.presence.is_over() {
            return Ok(());
        }
        self.files.iter().try_for_each(|file| file.sync(pause))?;
        for path in &self.written {
            match disk.open(path, OpenMode::Read) {
                Ok(file) => file.sync().map_err(Error::io("sync", path))?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("open", path)(error)),
            }
        }
        if self.names {
            match disk.sync_dir(&self.directory) {
                Err(error) if error.kind() == ErrorKind::NotFound && self.presence.is_over() => {}
                synced => synced.map_err(Error::io("sync", &self.directory))?,
            }
        }
        Ok(())
    }
}

impl UnflushedFile {
    /// Where there is much to write, in pieces, with a `pause` after each.
    fn sync(&self, pause: &mut dyn FnMut()) -> Result<(), Error> {
        let failed = |error| Error::io("sync", &self.path)(error);
        if self.length > WRITTEN_BACK_FROM {
            let mut at = self.position;
            // It grows meanwhile.
            while at + WRITTEN_BACK_AT_ONCE < self.file.size().map_err(failed)? {
                self.file.write_back(at, WRITTEN_BACK_AT_ONCE).map_err(failed)?;
                at += WRITTEN_BACK_AT_ONCE;
                pause();
            }
        }
        self.file.sync().map_err(failed)
    }
}

/// Makes logs below `root` durable. Blocks, and needs no lock on them. `pause` is called now and then where there is much to write, so that others
/// get at the disk.
pub fn sync_logs(disk: &dyn Disk, root: &Path, logs: Vec<Unflushed>, pause: &mut dyn FnMut()) -> Result<Vec<Synced>, Error> {
    let count: usize = logs.iter().map(|log| log.files.len() + log.written.len()).sum();
    let bytes: u64 = logs.iter().flat_map(|log| &log.files).map(|file| file.length).sum();
    let sync_all = || match disk.sync_all(root) {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
        synced => synced.map(|()| true).map_err(Error::io("sync", root)),
    };
    if count > SYNC_ONE_BY_ONE_MAX && bytes < count as u64 * SYNC_ALONE_BYTES && sync_all()? {
        // Each file tells of its own errors, also of those that somebody else's sync of the file system was told of. There is nothing to write.
        let mut files = logs.iter().flat_map(|log| &log.files);
        files.try_for_each(|UnflushedFile { path, file, .. }| file.sync().map_err(Error::io("sync", path)))?;
    } else {
        logs.iter().try_for_each(|log| log.sync(disk, pause))?;
    }
    Ok(logs.iter().map(|log| log.synced).collect())
}
