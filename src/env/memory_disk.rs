//! A disk in memory for crash tests: it can stop at any operation, lose everything that was not fsynced, fill up and fail.
//!
//! It is as strict as POSIX allows: `sync` fsyncs a file's bytes but not its name; `sync_dir` fsyncs the names in one directory.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Clock;
use super::disk::{Disk, File, Lock, Map, OpenMode};
use super::system::Descriptor;

/// What a disk contains after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process was killed: everything that was written is present.
    Process,
    /// Power loss: only what was fsynced is present.
    Power,
    /// Power loss, after which a random part of the data that was not fsynced is present, chosen with this seed: some names, some sectors,
    /// and zeros where a file was extended but its bytes were not written.
    PowerPartly(u64),
}

/// The point at which the disk stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The number of the first operation that fails, from 0. Only operations that change something are counted.
    pub operation: u64,
    /// If that operation is a write, it is done up to the last multiple of this many bytes in the file.
    pub torn: Option<u64>,
}

/// A disk in memory.
#[derive(Clone)]
pub struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Debug, Clone, Copy)]
enum Node {
    Directory(usize),
    File(usize),
}

#[derive(Default, Clone)]
struct Directory {
    entries: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
}

#[derive(Default, Clone)]
struct Bytes {
    written: Vec<u8>,
    durable: Vec<u8>,
    /// A range that contains all differences between the two, and possibly more: a sync copies only this range. Otherwise only their sizes differ.
    changed: Range<usize>,
    modified_ms: i64,
}

impl Bytes {
    /// An existing file, completely durable.
    fn found(bytes: Vec<u8>, modified_ms: i64) -> Bytes {
        Bytes { written: bytes.clone(), durable: bytes, changed: 0..0, modified_ms }
    }

    fn change(&mut self, range: Range<usize>) {
        self.changed = if self.changed.is_empty() { range } else { self.changed.start.min(range.start)..self.changed.end.max(range.end) };
    }

    fn write(&mut self, start: usize, bytes: &[u8]) {
        let (before, end) = (self.written.len(), start + bytes.len());
        if before < end {
            self.written.resize(end, 0);
        }
        self.written[start..end].copy_from_slice(bytes);
        self.change(start.min(before)..end);
    }

    fn resize(&mut self, size: usize) {
        let before = self.written.len();
        self.written.resize(size, 0);
        self.change(size.min(before)..size.max(before));
    }

    fn sync(&mut self) {
        self.durable.resize(self.written.len(), 0);
        let changed = self.changed.start..self.changed.end.min(self.written.len());
        if !changed.is_empty() {
            self.durable[changed.clone()].copy_from_slice(&self.written[changed]);
        }
        self.changed = 0..0;
    }
}

struct State {
    clock: Arc<dyn Clock>,
    directories: Vec<Directory>,
    files: Vec<Bytes>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    cut: Option<Cut>,
    is_off: bool,
    syncs_fail: bool,
    capacity: Option<u64>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new(clock: Arc<dyn Clock>) -> MemoryDisk {
        MemoryDisk(Arc::new(Mutex::new(State {
            clock,
            directories: vec![Directory::default()],
            files: Vec::new(),
            locks: BTreeSet::new(),
            operations: 0,
            cut: None,
            is_off: false,
            syncs_fail: false,
            capacity: None,
        })))
    }

    /// Stops the disk at an operation: it and all later operations fail.
    pub fn cut_at(&self, cut: Cut) {
        self.state().cut = Some(cut);
    }

    /// The number of operations so far that changed something.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Limits the total size of all files from now on; none means no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Makes all fsyncs fail from now on, or succeed again.
    pub fn set_syncs_fail(&self, fail: bool) {
        self.state().syncs_fail = fail;
    }

    /// The disk as it is after a crash. This disk is not changed.
    pub fn after(&self, crash: Crash) -> MemoryDisk {
        let state = self.state();
        let mut chance = Chance(match crash {
            Crash::PowerPartly(seed) => seed | 1,
            Crash::Process | Crash::Power => 1,
        });
        let survivors = |directory: &Directory, chance: &mut Chance| match crash {
            Crash::Process => directory.entries.clone(),
            Crash::Power => directory.durable.clone(),
            Crash::PowerPartly(_) if chance.below(2) == 0 => directory.entries.clone(),
            Crash::PowerPartly(_) => directory.durable.clone(),
        };
        let mut directories = Vec::new();
        for directory in &state.directories {
            let entries = survivors(directory, &mut chance);
            directories.push(Directory { durable: entries.clone(), entries });
        }
        let mut files = Vec::new();
        for file in &state.files {
            let bytes = match crash {
                Crash::Process => file.written.clone(),
                Crash::Power => file.durable.clone(),
                Crash::PowerPartly(_) => partly(file, &mut chance),
            };
            files.push(Bytes::found(bytes, file.modified_ms));
        }
        let disk = MemoryDisk::new(state.clock.clone());
        let mut fresh = disk.state();
        (fresh.directories, fresh.files) = (directories, files);
        drop(fresh);
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The content of a file of which only some sectors were written to the disk.
fn partly(file: &Bytes, chance: &mut Chance) -> Vec<u8> {
    const SECTOR: usize = 512;
    let mut bytes = file.durable.clone();
    if chance.below(3) == 0 {
        return bytes;
    }
    bytes.resize(file.written.len(), 0);
    for (at, sector) in file.written.chunks(SECTOR).enumerate() {
        if chance.below(2) == 0 {
            bytes[at * SECTOR..][..sector.len()].copy_from_slice(sector);
        }
    }
    bytes
}

/// xorshift: the same numbers for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

fn off() -> io::Error {
    io::Error::other("the disk has stopped")
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no {}", path.display()))
}

fn parts(path: &Path) -> Vec<String> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

impl State {
    /// Counts an operation that changes something. Returns the cut if the disk stops here; the cut determines how much of a write is done.
    fn step(&mut self) -> io::Result<Option<Cut>> {
        self.reading()?;
        self.operations += 1;
        let cut = self.cut.filter(|cut| cut.operation + 1 == self.operations);
        self.is_off = cut.is_some();
        Ok(cut)
    }

    /// The same for operations that are atomic.
    fn whole_step(&mut self) -> io::Result<()> {
        if self.step()?.is_some() { Err(off()) } else { Ok(()) }
    }

    fn reading(&self) -> io::Result<()> {
        if self.is_off { Err(off()) } else { Ok(()) }
    }

    /// The total size of all files that have a name.
    fn used(&self) -> u64 {
        self.used_below(0)
    }

    fn used_below(&self, directory: usize) -> u64 {
        let of = |node: &Node| match node {
            Node::Directory(at) => self.used_below(*at),
            Node::File(at) => self.files[*at].written.len() as u64,
        };
        self.directories[directory].entries.values().map(of).sum()
    }

    fn find(&self, path: &Path) -> Option<Node> {
        parts(path).iter().try_fold(Node::Directory(0), |node, name| match node {
            Node::Directory(at) => self.directories[at].entries.get(name).copied(),
            Node::File(_) => None,
        })
    }

    fn directory(&self, path: &Path) -> io::Result<usize> {
        match self.find(path) {
            Some(Node::Directory(at)) => Ok(at),
            _ => Err(missing(path)),
        }
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.find(path) {
            Some(Node::File(at)) => Ok(at),
            _ => Err(missing(path)),
        }
    }

    /// The parent directory of a path, and the name in it.
    fn place(&self, path: &Path) -> io::Result<(usize, String)> {
        let name = parts(path).pop().ok_or_else(|| missing(path))?;
        Ok((self.directory(path.parent().unwrap_or(Path::new("/")))?, name))
    }

    fn write(&mut self, file: usize, position: u64, bytes: &[u8]) -> io::Result<()> {
        let cut = self.step()?;
        let end = position + bytes.len() as u64;
        let done = match cut {
            None => bytes.len(),
            Some(Cut { torn: Some(multiple), .. }) => (end / multiple * multiple).saturating_sub(position) as usize,
            Some(_) => 0,
        };
        let grown = end.saturating_sub(self.files[file].written.len() as u64);
        let room = self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()));
        let done = done.min(bytes.len()).min((bytes.len() as u64 - grown.min(bytes.len() as u64) + room.min(grown)) as usize);
        if done > 0 {
            self.files[file].write(position as usize, &bytes[..done]);
            self.files[file].modified_ms = self.clock.wall_ms();
        }
        match cut {
            Some(_) => Err(off()),
            None if done < bytes.len() => Err(io::ErrorKind::StorageFull.into()),
            None => Ok(()),
        }
    }

    fn sync_step(&mut self) -> io::Result<()> {
        self.whole_step()?;
        if self.syncs_fail { Err(io::Error::other("the disk cannot make it durable")) } else { Ok(()) }
    }
}

impl std::fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryDisk after {} operations", self.operations())
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        state.reading()?;
        let file = match state.file(path) {
            Err(_) if mode == OpenMode::Write => {
                let (directory, name) = state.place(path)?;
                state.whole_step()?;
                let (file, modified_ms) = (state.files.len(), state.clock.wall_ms());
                state.files.push(Bytes { modified_ms, ..Bytes::default() });
                state.directories[directory].entries.insert(name, Node::File(file));
                file
            }
            found => found?,
        };
        Ok(Arc::new(MemoryFile { disk: self.clone(), file }))
    }

    fn map(&self, path: &Path) -> io::Result<Map> {
        self.read(path).map(Map::Copied)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        state.reading()?;
        Ok(state.files[state.file(path)?].written.clone())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.reading()?;
        Ok(state.directories[state.directory(path)?].entries.keys().cloned().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.state().find(path).is_some()
    }

    fn is_dir(&self, path: &Path) -> bool {
        matches!(self.state().find(path), Some(Node::Directory(_)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let mut at = 0;
        for name in parts(path) {
            at = match state.directories[at].entries.get(&name).copied() {
                Some(Node::Directory(next)) => next,
                Some(Node::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                None => {
                    state.whole_step()?;
                    let next = state.directories.len();
                    state.directories.push(Directory::default());
                    state.directories[at].entries.insert(name, Node::Directory(next));
                    next
                }
            };
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let ((from_at, from_name), (to_at, to_name)) = (state.place(from)?, state.place(to)?);
        let node = state.find(from).ok_or_else(|| missing(from))?;
        state.whole_step()?;
        state.directories[from_at].entries.remove(&from_name);
        state.directories[to_at].entries.insert(to_name, node);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.file(path).is_ok() {
            let (at, name) = state.place(path)?;
            state.whole_step()?;
            // Readers that have the file open can continue to read it.
            state.directories[at].entries.remove(&name);
        }
        state.reading()
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.directory(path)?;
        let (at, name) = state.place(path)?;
        state.whole_step()?;
        state.directories[at].entries.remove(&name);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let at = state.directory(path)?;
        state.sync_step()?;
        state.directories[at].durable = state.directories[at].entries.clone();
        Ok(())
    }

    fn sync_all(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.sync_step()?;
        state.directories.iter_mut().for_each(|directory| directory.durable = directory.entries.clone());
        state.files.iter_mut().for_each(Bytes::sync);
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        self.open(path, OpenMode::Write)?;
        let taken = self.state().locks.insert(path.to_path_buf());
        let held = Held { disk: self.clone(), path: path.to_path_buf() };
        Ok(taken.then(|| Lock::new(held)))
    }

    fn space(&self, _path: &Path) -> io::Result<(u64, u64)> {
        let state = self.state();
        let capacity = state.capacity.unwrap_or(1 << 40);
        Ok((capacity, capacity.saturating_sub(state.used())))
    }
}

/// A lock that is held.
struct Held {
    disk: MemoryDisk,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    file: usize,
}

impl File for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.reading()?;
        Ok(state.files[self.file].written.len() as u64)
    }

    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        state.reading()?;
        let written = state.files[self.file].written.get(position as usize..).unwrap_or_default();
        let count = written.len().min(bytes.len());
        bytes[..count].copy_from_slice(&written[..count]);
        Ok(count)
    }

    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.disk.state().write(self.file, position, &bytes)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.whole_step()?;
        state.files[self.file].resize(size as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.sync_step()?;
        state.files[self.file].sync();
        Ok(())
    }

    fn modified_ms(&self) -> io::Result<i64> {
        let state = self.disk.state();
        state.reading()?;
        Ok(state.files[self.file].modified_ms)
    }

    fn set_modified_ms(&self, ms: i64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.reading()?;
        state.files[self.file].modified_ms = ms;
        Ok(())
    }

    fn is_cached(&self, _position: u64, _length: usize) -> bool {
        true
    }

    fn descriptor(&self) -> Option<Descriptor<'_>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::ManualClock;

    fn disk() -> MemoryDisk {
        let disk = MemoryDisk::new(Arc::new(ManualClock::at(5)));
        disk.create_dir(Path::new("/a")).unwrap();
        disk
    }

    #[test]
    fn only_what_was_made_durable_survives_a_power_cut() {
        let disk = disk();
        let path = Path::new("/a/f");
        let file = disk.open(path, OpenMode::Write).unwrap();
        file.write_at(0, &[IoSlice::new(b"one")]).unwrap();
        assert!(!disk.after(Crash::Power).exists(path), "the name is not durable");
        disk.sync_dir(Path::new("/a")).unwrap();
        assert!(!disk.after(Crash::Power).exists(path), "the directory's own name is not durable");
        disk.sync_dir(Path::new("/")).unwrap();
        assert_eq!(disk.after(Crash::Power).read(path).unwrap(), b"");
        file.sync().unwrap();
        file.write_at(3, &[IoSlice::new(b" two")]).unwrap();
        disk.rename(path, Path::new("/a/g")).unwrap();
        assert_eq!(disk.after(Crash::Power).read(path).unwrap(), b"one");
        assert_eq!(disk.after(Crash::Process).read(Path::new("/a/g")).unwrap(), b"one two");
        let partly: BTreeSet<bool> = (0..20).map(|seed| disk.after(Crash::PowerPartly(seed * 977)).exists(path)).collect();
        assert_eq!(partly.len(), 2, "by chance");
    }

    #[test]
    fn a_sync_makes_durable_all_that_was_written() {
        let mut chance = Chance(7);
        let mut bytes = Bytes::default();
        for round in 0..2000 {
            match chance.below(4) {
                0 => bytes.resize(chance.below(300) as usize),
                1 => bytes.sync(),
                _ => bytes.write(chance.below(300) as usize, &vec![round as u8; chance.below(60) as usize]),
            }
            let mut synced = bytes.clone();
            synced.sync();
            assert_eq!(synced.durable, bytes.written, "round {round}");
        }
    }

    #[test]
    fn a_cut_tears_the_write_that_it_meets_and_stops_all_after_it() {
        let disk = disk();
        let file = disk.open(Path::new("/a/f"), OpenMode::Write).unwrap();
        let operation = disk.operations() + 1;
        disk.cut_at(Cut { operation, torn: Some(512) });
        file.write_at(0, &[IoSlice::new(&[1; 100])]).unwrap();
        assert!(file.write_at(100, &[IoSlice::new(&[2; 1000])]).is_err());
        assert!(file.write_at(0, &[IoSlice::new(&[3])]).is_err() && file.size().is_err() && disk.list(Path::new("/a")).is_err());
        assert_eq!(disk.after(Crash::Process).read(Path::new("/a/f")).unwrap().len(), 1024);
    }

    #[test]
    fn a_full_disk_takes_what_fits() {
        let disk = disk();
        let file = disk.open(Path::new("/a/f"), OpenMode::Write).unwrap();
        disk.set_capacity(Some(10));
        let error = file.write_at(0, &[IoSlice::new(&[1; 12])]).unwrap_err();
        assert_eq!((error.kind(), file.size().unwrap()), (io::ErrorKind::StorageFull, 10));
        file.write_at(0, &[IoSlice::new(&[2; 10])]).unwrap();
        file.truncate(4).unwrap();
        assert_eq!(disk.space(Path::new("/a")).unwrap(), (10, 6));
    }

    #[test]
    fn one_lock_at_a_time() {
        let disk = disk();
        let held = disk.lock(Path::new("/a/.lock")).unwrap();
        assert!(disk.lock(Path::new("/a/.lock")).unwrap().is_none());
        drop(held);
        assert!(disk.lock(Path::new("/a/.lock")).unwrap().is_some());
    }
}
