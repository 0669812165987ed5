//! What must be fsynced, and how: the files of logs for a flush, or their newest batches for a commit.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::files::Presence;
use super::reader::RecordsSlice;
use crate::env::{Disk, File, OpenMode};
use crate::model::Offset;

/// With more files than this the whole file system is synced at once. 16 files with 80 KB each: 8.7 ms one by one, 4 ms from as many
/// threads, and 3.7 ms this way (ext4 on a virtual disk).
const SYNC_ONE_BY_ONE_MAX: usize = 4;
/// With more bytes per file than this the files are synced one by one again: between them the disk can serve commits that requests wait for.
const SYNC_ALONE_BYTES: u64 = 1 << 20;
/// If a file has more unsynced bytes than this they are written in pieces before the sync: a waiting commit then waits for one piece, not for all.
const WRITTEN_BACK_FROM: u64 = 8 << 20;
/// Bytes of a piece.
const WRITTEN_BACK_AT_ONCE: u64 = 512 << 10;

/// Files of one log with bytes that may not be durable yet.
#[derive(Debug)]
pub struct Unflushed {
    pub(super) directory: PathBuf,
    pub(super) files: Vec<UnflushedFile>,
    /// Files that are written once: indexes, checkpoints. They may have been deleted before they are synced.
    pub(super) written: Vec<PathBuf>,
    /// Whether the directory contains new names.
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

/// Proof that everything up to an end is durable, and which other changes were synced with it.
#[derive(Debug, Clone, Copy)]
pub struct Synced {
    pub(super) extent: Extent,
    /// The number of changes of names in the directory.
    pub(super) changes: u64,
}

/// An end of a log at some time: the number of truncations so far, the offset, the segment, and the segment's size. An end from before a
/// truncation is smaller than any end after it, so that a flush or a commit that was in progress during the truncation proves nothing.
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
    /// Their end.
    pub extent: Extent,
    /// Shows the log that the batches may still be read.
    #[expect(dead_code, reason = "held for its count")]
    pub(super) lent: Arc<()>,
}

impl Uncommitted {
    /// Bytes of the batches.
    pub(super) fn size(&self) -> usize {
        self.parts.iter().map(|(_, slice)| slice.length).sum()
    }

    /// Reads the batches; `bytes` has exactly their length.
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
    /// Fsyncs the files and the directory. Blocks; for `pause` see [`sync_logs`].
    ///
    /// The log's lock is not held here, so the topic may be deleted and its directory renamed at any moment: then the paths do not exist, or
    /// belong to another topic of the same name. This is not an error of the disk, and nothing remains to be synced. A sync of another
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
    /// Writes a large amount in pieces, with a `pause` after each, and then fsyncs.
    fn sync(&self, pause: &mut dyn FnMut()) -> Result<(), Error> {
        let failed = |error| Error::io("sync", &self.path)(error);
        if self.length > WRITTEN_BACK_FROM {
            let mut at = self.position;
            // The file may grow meanwhile.
            while at + WRITTEN_BACK_AT_ONCE < self.file.size().map_err(failed)? {
                self.file.write_back(at, WRITTEN_BACK_AT_ONCE).map_err(failed)?;
                at += WRITTEN_BACK_AT_ONCE;
                pause();
            }
        }
        self.file.sync().map_err(failed)
    }
}

/// Fsyncs logs below `root`. Blocks, and does not need their locks. With much to write, `pause` is called after each piece, so that others can
/// use the disk.
pub fn sync_logs(disk: &dyn Disk, root: &Path, logs: Vec<Unflushed>, pause: &mut dyn FnMut()) -> Result<Vec<Synced>, Error> {
    let count: usize = logs.iter().map(|log| log.files.len() + log.written.len()).sum();
    let bytes: u64 = logs.iter().flat_map(|log| &log.files).map(|file| file.length).sum();
    let sync_all = || match disk.sync_all(root) {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
        synced => synced.map(|()| true).map_err(Error::io("sync", root)),
    };
    if count > SYNC_ONE_BY_ONE_MAX && bytes < count as u64 * SYNC_ALONE_BYTES && sync_all()? {
        // Each file reports its own errors, also if another sync of the file system has already received them. Nothing remains to be written.
        let mut files = logs.iter().flat_map(|log| &log.files);
        files.try_for_each(|UnflushedFile { path, file, .. }| file.sync().map_err(Error::io("sync", path)))?;
    } else {
        logs.iter().try_for_each(|log| log.sync(disk, pause))?;
    }
    Ok(logs.iter().map(|log| log.synced).collect())
}
