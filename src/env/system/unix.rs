//! What Unix systems share.
#![cfg_attr(target_os = "linux", allow(dead_code, unused_imports, reason = "Linux replaces some of these functions"))]

use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use rustix::process::{Pid, Resource, Rlimit, Signal as KillSignal, getrlimit, kill_process, setrlimit};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use super::portable::{
    Descriptor, container_gateway, is_cached, is_device_failure, listening_process, notify_service_manager, open_direct, process_use,
    process_with_file, send_file, send_slices, sync_directory, sync_file_system, write_back,
};
use crate::env::Map;

/// The maximum number of open files of a macOS process; its hard limit is reported as unlimited.
const MACOS_OPEN_FILES_MAX: u64 = 10_240;

/// Empty: reads and writes have a position argument.
#[derive(Debug, Default)]
pub struct Cursor(());

/// User and group of this process.
pub fn user_and_group() -> Option<(u32, u32)> {
    Some((rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()))
}

/// The user and group that own a file.
pub fn owner_of(path: &Path) -> Option<(u32, u32)> {
    let facts = fs::metadata(path).ok()?;
    Some((facts.uid(), facts.gid()))
}

/// Reads up to `bytes.len()` bytes; fewer only at the end.
pub fn read_at(file: &fs::File, _cursor: &Cursor, bytes: &mut [u8], position: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], position + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all bytes.
pub fn write_at(file: &fs::File, _cursor: &Cursor, parts: &[IoSlice<'_>], mut position: u64) -> io::Result<()> {
    for part in parts {
        file.write_all_at(part, position)?;
        position += part.len() as u64;
    }
    Ok(())
}

/// Maps a file that will not change any more.
#[allow(unsafe_code)]
pub fn map(path: &Path) -> io::Result<Map> {
    let file = fs::File::open(path)?;
    // SAFETY: only sealed index files are mapped. Storage never writes or truncates one after it is sealed (a rebuilt index is written
    // beside it and renamed over it), and the lock of the log directory keeps other brokers out.
    let map = unsafe { memmap2::Mmap::map(&file) }?;
    Ok(Map::Mapped(map))
}

/// The size of the file system that contains `path`, and the free bytes that this process may use.
pub fn space(path: &Path) -> io::Result<(u64, u64)> {
    let facts = rustix::fs::statvfs(path)?;
    Ok((facts.f_blocks * facts.f_frsize, facts.f_bavail * facts.f_frsize))
}

/// Sets the size of the send buffer, within the kernel's limits.
pub fn set_send_buffer_bytes(socket: &TcpStream, bytes: usize) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_send_buffer_size(socket, bytes)?)
}

/// The current limit of open files; none means no limit.
pub fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Raises the soft limit of open files to the hard limit, or to the system's maximum, and returns it; none means no limit.
pub fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let is_less = |than: Option<u64>| limit.current.is_some_and(|current| than.is_none_or(|than| current < than));
    let raise = |wanted: &Option<u64>| setrlimit(Resource::Nofile, Rlimit { current: *wanted, maximum: limit.maximum }).is_ok();
    let reached = [limit.maximum, Some(MACOS_OPEN_FILES_MAX)].into_iter().filter(|wanted| is_less(*wanted)).find(raise);
    reached.unwrap_or(limit.current)
}

/// The signals that request the end of the process: SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Registers for the signals. After this they no longer end the process by themselves.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The name of the next signal.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// The next signal that was sent to this process only. Ctrl-C reaches every process of the terminal.
    pub async fn next_to_us(&mut self) -> &'static str {
        self.terminate.recv().await;
        "SIGTERM"
    }
}

/// Sends SIGTERM to a child; one that has ended by itself is no error.
pub fn ask_to_end(child: &mut Child) -> io::Result<()> {
    match child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        Some(pid) => match kill_process(pid, KillSignal::TERM) {
            Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
            _ => Ok(()),
        },
        None => Ok(()),
    }
}

/// The number of the signal that ended a process; none if it ended by itself.
pub fn end_signal(status: ExitStatus) -> Option<i32> {
    status.signal()
}
