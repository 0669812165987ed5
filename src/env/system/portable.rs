//! The standard library and tokio alone.
#![allow(dead_code, reason = "other systems replace some of these functions")]

use std::convert::Infallible;
use std::fs;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio::process::Child;

use super::{Process, ProcessUse, ServiceState};
use crate::env::Map;

/// A lock for the position of a file, which every read and write moves.
#[derive(Debug, Default)]
pub struct Cursor(Mutex<()>);

/// Windows' error codes of a device that does not do what it should: write-protected, not ready, bad checksum, cannot write, cannot read, general failure,
/// I/O device error, corrupt disk structure, corrupt file.
const WINDOWS_DEVICE_FAILURES: [i32; 9] = [19, 21, 23, 29, 30, 31, 1117, 1393, 1392];
/// EIO, on every Unix system.
const UNIX_DEVICE_FAILURE: i32 = 5;

/// Reads up to `bytes.len()` bytes; fewer only at the end.
pub fn read_at(mut file: &fs::File, cursor: &Cursor, bytes: &mut [u8], position: u64) -> io::Result<usize> {
    let _alone = cursor.0.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(SeekFrom::Start(position))?;
    let mut done = 0;
    while done < bytes.len() {
        match file.read(&mut bytes[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all bytes.
pub fn write_at(mut file: &fs::File, cursor: &Cursor, parts: &[IoSlice<'_>], position: u64) -> io::Result<()> {
    let _alone = cursor.0.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(SeekFrom::Start(position))?;
    parts.iter().try_for_each(|part| file.write_all(part))
}

/// Opens a file as any other: there is no portable way around the page cache.
pub fn open_direct(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Reads a file into memory. A mapped file could not be renamed or removed on Windows.
pub fn map(path: &Path) -> io::Result<Map> {
    fs::read(path).map(Map::Copied)
}

/// Makes names within a directory durable. Windows keeps names in its journal, and does not open directories.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(windows) { Ok(()) } else { fs::File::open(path)?.sync_all() }
}

/// Not supported: files have to be synced one by one.
pub fn sync_file_system(_path: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Not supported by the standard library.
pub fn space(_path: &Path) -> io::Result<(u64, u64)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Does nothing: the sync writes everything.
pub fn write_back(_file: &fs::File, _position: u64, _length: u64) -> io::Result<()> {
    Ok(())
}

/// Always true: the system does not tell, and the best case is assumed.
pub fn is_cached(_file: &fs::File, _position: u64, _length: usize) -> bool {
    true
}

/// Whether an error says that the device failed, or refuses all writing.
pub fn is_device_failure(error: &io::Error) -> bool {
    let failed = |code| if cfg!(windows) { WINDOWS_DEVICE_FAILURES.contains(&code) } else { code == UNIX_DEVICE_FAILURE };
    error.kind() == io::ErrorKind::ReadOnlyFilesystem || error.raw_os_error().is_some_and(failed)
}

/// What the kernel needs to send from a file. It never exists: the bytes pass through this process.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor<'a>(Infallible, std::marker::PhantomData<&'a fs::File>);

impl Descriptor<'_> {
    /// Of an open file; none where the kernel cannot send from it.
    pub(in crate::env) fn of(_file: &fs::File) -> Option<Descriptor<'_>> {
        None
    }
}

/// Sends bytes, as many as the socket takes now. `_more` says that the rest of the last packet follows at once.
pub fn send_slices(socket: &TcpStream, slices: &[IoSlice<'_>], _more: bool) -> io::Result<usize> {
    socket.try_write_vectored(slices)
}

/// Sends from a file, and moves the position.
pub fn send_file(_socket: &TcpStream, descriptor: Descriptor<'_>, _position: &mut u64, _length: usize) -> io::Result<usize> {
    match descriptor.0 {}
}

/// Does nothing: the system chooses the size of its buffer.
pub fn set_send_buffer_bytes(_socket: &TcpStream, _bytes: usize) -> io::Result<()> {
    Ok(())
}

/// How many files may be open now; none is unlimited, or unknown.
pub fn open_files_max() -> Option<u64> {
    None
}

/// Raises the limit of open files as far as it goes and returns it; none is unlimited, or unknown.
pub fn raise_open_files() -> Option<u64> {
    None
}

/// What the process uses; none where the system does not say.
pub fn process_use() -> Option<ProcessUse> {
    None
}

/// The process that listens on a TCP port; none where the system does not say.
pub fn listening_process(_port: u16) -> Option<Process> {
    None
}

/// The process that has a file open; none where the system does not say.
pub fn process_with_file(_path: &Path) -> Option<Process> {
    None
}

/// User and group of this process; none where the system has no such numbers.
pub fn user_and_group() -> Option<(u32, u32)> {
    None
}

/// The user and group that own a file; none where the system has none of these numbers.
pub fn owner_of(_path: &Path) -> Option<(u32, u32)> {
    None
}

/// The gateway of the container that we are in; none outside of containers.
pub fn container_gateway() -> Option<IpAddr> {
    None
}

/// Reports the state to the service manager; does nothing without one.
pub fn tell_service_manager(_state: ServiceState) -> io::Result<()> {
    Ok(())
}

/// The signals that ask the process to end: Ctrl-C.
#[derive(Debug)]
pub struct Signals(());

impl Signals {
    /// Registers for the signals, which no longer end the process by themselves.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals(()))
    }

    /// The next of them, by name.
    pub async fn next(&mut self) -> &'static str {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            // Ctrl-C cannot be received, so it never ends the process.
            Err(_) => std::future::pending().await,
        }
    }

    /// The next signal that was sent to this process alone. Ctrl-C reaches every process of the terminal.
    pub async fn next_to_us(&mut self) -> &'static str {
        loop {
            self.next().await;
        }
    }
}

/// Ends a child at once: there is no way to ask it.
pub fn ask_to_end(child: &mut Child) -> io::Result<()> {
    child.start_kill()
}

/// The number of the signal that ended a process; none where it ended by itself.
pub fn end_signal(_status: ExitStatus) -> Option<i32> {
    None
}
