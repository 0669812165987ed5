//! Implementations with only the standard library and tokio.
#![allow(dead_code, reason = "other systems replace some of these functions")]

use std::convert::Infallible;
use std::fs;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::net::TcpStream;
use tokio::process::Child;

use super::{Process, ProcessUse, ServiceState};
use crate::env::Map;

/// A lock for the file position, which every read and write changes.
#[derive(Debug, Default)]
pub struct Cursor(Mutex<()>);

/// Windows' error codes for a failed device: write-protected, not ready, bad checksum, cannot write, cannot read, general failure,
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

/// Opens a file as usual: there is no portable way to bypass the page cache.
pub fn open_direct(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Reads a file into memory. A mapped file could not be renamed or removed on Windows.
pub fn map(path: &Path) -> io::Result<Map> {
    fs::read(path).map(Map::Copied)
}

/// Fsyncs a directory. Windows keeps names in its journal, and cannot open directories.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(windows) { Ok(()) } else { fs::File::open(path)?.sync_all() }
}

/// Not supported: files have to be fsynced one by one.
pub fn sync_file_system(_path: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Not supported by the standard library.
pub fn space(_path: &Path) -> io::Result<(u64, u64)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Does nothing: the fsync writes everything.
pub fn write_back(_file: &fs::File, _position: u64, _length: u64) -> io::Result<()> {
    Ok(())
}

/// Always true: the system does not report this, and the range is assumed to be cached.
pub fn is_cached(_file: &fs::File, _position: u64, _length: usize) -> bool {
    true
}

/// Whether an error means that the device failed or rejects all writes.
pub fn is_device_failure(error: &io::Error) -> bool {
    let failed = |code| if cfg!(windows) { WINDOWS_DEVICE_FAILURES.contains(&code) } else { code == UNIX_DEVICE_FAILURE };
    error.kind() == io::ErrorKind::ReadOnlyFilesystem || error.raw_os_error().is_some_and(failed)
}

/// A descriptor with which the kernel sends from a file. It never exists here: the bytes pass through this process.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor<'a>(Infallible, std::marker::PhantomData<&'a fs::File>);

impl Descriptor<'_> {
    /// The descriptor of an open file; none if the kernel cannot send from it.
    pub(in crate::env) fn of(_file: &fs::File) -> Option<Descriptor<'_>> {
        None
    }
}

/// Sends as many bytes as the socket accepts now. `_more` means that the rest of the last packet follows at once.
pub fn send_slices(socket: &TcpStream, slices: &[IoSlice<'_>], _more: bool) -> io::Result<usize> {
    socket.try_write_vectored(slices)
}

/// Sends from a file, and advances the position.
pub fn send_file(_socket: &TcpStream, descriptor: Descriptor<'_>, _position: &mut u64, _length: usize) -> io::Result<usize> {
    match descriptor.0 {}
}

/// Does nothing: the system chooses the size of its buffer.
pub fn set_send_buffer_bytes(_socket: &TcpStream, _bytes: usize) -> io::Result<()> {
    Ok(())
}

/// The current limit of open files; none means no limit, or an unknown one.
pub fn open_files_max() -> Option<u64> {
    None
}

/// Raises the limit of open files to its maximum and returns it; none means no limit, or an unknown one.
pub fn raise_open_files() -> Option<u64> {
    None
}

/// The resources that the process uses; none if the system does not report them.
pub fn process_use() -> Option<ProcessUse> {
    None
}

/// The process that listens on a TCP port; none if the system does not report it.
pub fn listening_process(_port: u16) -> Option<Process> {
    None
}

/// The process that has a file open; none if the system does not report it.
pub fn process_with_file(_path: &Path) -> Option<Process> {
    None
}

/// User and group of this process; none if the system has no such numbers.
pub fn user_and_group() -> Option<(u32, u32)> {
    None
}

/// The user and group that own a file; none if the system has no such numbers.
pub fn owner_of(_path: &Path) -> Option<(u32, u32)> {
    None
}

/// The gateway of the container in which we run; none outside of containers.
pub fn container_gateway() -> Option<IpAddr> {
    None
}

/// Reports the state to the service manager; does nothing if there is none.
pub fn notify_service_manager(_state: ServiceState) -> io::Result<()> {
    Ok(())
}

/// The signals that request the end of the process: Ctrl-C.
pub struct Signals(Pin<Box<dyn Future<Output = io::Result<()>> + Send>>);

impl Signals {
    /// Registers for the signals. After this they no longer end the process by themselves.
    pub fn listen() -> io::Result<Signals> {
        let mut next = Box::pin(tokio::signal::ctrl_c());
        // The first poll registers: a signal that comes before the first wait must not end the process.
        match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(Signals(next)),
            Poll::Ready(Ok(())) => Ok(Signals(Box::pin(std::future::ready(Ok(()))))),
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    /// The name of the next signal.
    pub async fn next(&mut self) -> &'static str {
        let received = self.0.as_mut().await;
        let again = Signals::listen();
        match received.and(again) {
            Ok(again) => {
                *self = again;
                "Ctrl-C"
            }
            // Ctrl-C cannot be received, so it never ends the process.
            Err(_) => {
                self.0 = Box::pin(std::future::pending());
                std::future::pending().await
            }
        }
    }

    /// The next signal that was sent to this process only. Ctrl-C reaches every process of the terminal.
    pub async fn next_to_us(&mut self) -> &'static str {
        loop {
            self.next().await;
        }
    }
}

/// Ends a child at once: there is no portable way to request its end.
pub fn ask_to_end(child: &mut Child) -> io::Result<()> {
    child.start_kill()
}

/// The number of the signal that ended a process; none if it ended by itself.
pub fn end_signal(_status: ExitStatus) -> Option<i32> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_before_the_first_wait_is_received_and_so_is_the_next() {
        let mut signals = Signals::listen().unwrap();
        for _ in 0..2 {
            let sent = std::process::Command::new("kill").args(["-INT", &std::process::id().to_string()]).status().unwrap();
            assert!(sent.success());
            assert_eq!(signals.next().await, "Ctrl-C");
        }
    }
}
