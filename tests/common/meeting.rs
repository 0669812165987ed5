//! A disk on which something else happens in the middle of what goes on: before any one operation a hook is called, or operations fail.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dlog::env::{Descriptor, Disk, File, Lock, Map, MemoryDisk, OpenMode};

type Hook = Box<dyn FnOnce() + Send>;

/// Counts all operations on a disk, also those that only read.
#[derive(Clone)]
pub struct MeetingDisk(Arc<Inner>);

struct Inner {
    disk: MemoryDisk,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    operations: u64,
    meeting: Option<(u64, Hook)>,
    /// Operations of the last count, by name and path.
    names: Vec<String>,
    /// The operations that fail: their name, a part of their path, and the error code of the operating system.
    refused: Option<(&'static str, String, i32)>,
}

struct MeetingFile {
    disk: MeetingDisk,
    path: PathBuf,
    file: Arc<dyn File>,
}

impl MeetingDisk {
    pub fn new(disk: MemoryDisk) -> MeetingDisk {
        MeetingDisk(Arc::new(Inner { disk, state: Mutex::default() }))
    }

    pub fn disk(&self) -> &MemoryDisk {
        &self.0.disk
    }

    /// Counts from 0 again, and calls the hook once before the operation of this number, on the thread that does it.
    pub fn meet_at(&self, operation: u64, hook: impl FnOnce() + Send + 'static) {
        *self.0.state.lock().unwrap() = State { meeting: Some((operation, Box::new(hook))), ..State::default() };
    }

    /// From now on the operations of a name on paths that contain `part` fail.
    #[allow(dead_code)]
    pub fn refuse(&self, what: &'static str, part: &str, code: i32) {
        self.0.state.lock().unwrap().refused = Some((what, part.to_string(), code));
    }

    /// No operation fails any more.
    #[allow(dead_code)]
    pub fn accept(&self) {
        self.0.state.lock().unwrap().refused = None;
    }

    /// Operations since then. No hook is called any more.
    pub fn end(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.state.lock().unwrap()).names
    }

    fn step(&self, what: &str, path: &Path) -> io::Result<()> {
        let (hook, refused) = {
            let mut state = self.0.state.lock().unwrap();
            state.operations += 1;
            state.names.push(format!("{what} {}", path.display()));
            let is_now = state.meeting.as_ref().is_some_and(|(at, _)| at + 1 == state.operations);
            let refused = state.refused.as_ref().filter(|(name, part, _)| *name == what && path.to_string_lossy().contains(part));
            let refused = refused.map(|(.., code)| io::Error::from_raw_os_error(*code));
            (is_now.then(|| state.meeting.take()).flatten(), refused)
        };
        if let Some((_, hook)) = hook {
            hook();
        }
        refused.map_or(Ok(()), Err)
    }

    fn wrapped(&self, path: &Path, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(MeetingFile { disk: self.clone(), path: path.to_path_buf(), file })
    }
}

impl std::fmt::Debug for MeetingDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MeetingDisk")
    }
}

impl std::fmt::Debug for MeetingFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MeetingFile({})", self.path.display())
    }
}

impl Disk for MeetingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.step("open", path)?;
        Ok(self.wrapped(path, self.0.disk.open(path, mode)?))
    }

    fn map(&self, path: &Path) -> io::Result<Map> {
        self.step("map", path)?;
        self.0.disk.map(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.step("read", path)?;
        self.0.disk.read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.step("list", path)?;
        self.0.disk.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.disk.exists(path)
    }

    fn is_dir(&self, path: &Path) -> bool {
        self.0.disk.is_dir(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step("create", path)?;
        self.0.disk.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step("rename", from)?;
        self.0.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step("remove", path)?;
        self.0.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step("remove", path)?;
        self.0.disk.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step("sync", path)?;
        self.0.disk.sync_dir(path)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.step("sync all", path)?;
        self.0.disk.sync_all(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        self.0.disk.lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        self.0.disk.space(path)
    }
}

impl File for MeetingFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.disk.step("read", &self.path)?;
        self.file.read_at(position, bytes)
    }

    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.disk.step("write", &self.path)?;
        self.file.write_at(position, parts)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.disk.step("truncate", &self.path)?;
        self.file.truncate(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.step("sync", &self.path)?;
        self.file.sync()
    }

    fn modified_ms(&self) -> io::Result<i64> {
        self.file.modified_ms()
    }

    fn set_modified_ms(&self, ms: i64) -> io::Result<()> {
        self.file.set_modified_ms(ms)
    }

    fn is_cached(&self, position: u64, length: usize) -> bool {
        self.file.is_cached(position, length)
    }

    fn descriptor(&self) -> Option<Descriptor<'_>> {
        self.file.descriptor()
    }
}
