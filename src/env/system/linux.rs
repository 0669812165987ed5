//! Functions that only Linux has.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::TcpStream;

pub use super::unix::{
    Cursor, Signals, ask_to_end, end_signal, is_device_failure, map, open_files_max, owner_of, raise_open_files, read_at,
    set_send_buffer_bytes, space, sync_directory, user_and_group,
};
use super::{Process, ProcessUse, ServiceState};

/// One byte is sampled for this many bytes, because the kernel reads ahead at least as much.
const SAMPLE_BYTES: usize = 256 << 10;
/// `st` of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";
/// Files that Docker and Podman put into containers.
const CONTAINER_MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// Writes all bytes, mostly by one call.
pub fn write_at(file: &fs::File, _cursor: &Cursor, parts: &[IoSlice<'_>], mut position: u64) -> io::Result<()> {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    let mut done = rustix::io::retry_on_intr(|| rustix::io::pwritev(file, parts, position))?;
    // A short write is rare (a full disk, a signal): the rest is written part by part.
    position += done as u64;
    if done < total {
        for part in parts {
            let skip = done.min(part.len());
            file.write_all_at(&part[skip..], position)?;
            position += (part.len() - skip) as u64;
            done -= skip;
        }
    }
    Ok(())
}

/// Opens a file with O_DIRECT, if the file system supports it.
pub fn open_direct(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    match options.custom_flags(OFlags::DIRECT.bits() as i32).open(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => super::portable::open_direct(path),
        file => file,
    }
}

/// Fsyncs everything on the file system of `path`.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(fs::File::open(path)?)?)
}

/// Writes a range from the page cache to the disk and waits for it.
#[allow(unsafe_code)]
pub fn write_back(file: &fs::File, position: u64, length: u64) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the call has an open descriptor and numbers as arguments, and accesses no memory of ours.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), position as i64, length as i64, flags) };
    let error = if result == 0 { return Ok(()) } else { io::Error::last_os_error() };
    match Errno::from_io_error(&error) {
        // The file system does not support it; the fsync then writes everything.
        Some(Errno::NOSYS | Errno::INVAL | Errno::SPIPE) => Ok(()),
        _ => Err(error),
    }
}

/// Whether a read of the range would not wait for the disk, judged from a few samples.
pub fn is_cached(file: &fs::File, position: u64, length: usize) -> bool {
    let last = position + length.saturating_sub(1) as u64;
    (position..last).step_by(SAMPLE_BYTES).skip(1).chain([last]).all(|at| {
        let read = preadv2(file, &mut [IoSliceMut::new(&mut [0])], at, ReadWriteFlags::NOWAIT);
        // If the file system cannot report this, the range is assumed to be cached.
        read != Err(Errno::AGAIN)
    })
}

/// A descriptor with which the kernel sends from a file.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor<'a>(BorrowedFd<'a>);

impl Descriptor<'_> {
    /// The descriptor of an open file; none if the kernel cannot send from it.
    pub(in crate::env) fn of(file: &fs::File) -> Option<Descriptor<'_>> {
        Some(Descriptor(file.as_fd()))
    }
}

/// Sends as many bytes as the socket accepts now. `more` means that the rest of the last packet follows at once.
pub fn send_slices(socket: &TcpStream, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
    let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
    socket.try_io(Interest::WRITABLE, || Ok(sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags)?))
}

/// Sends from a file within the kernel, and advances the position.
pub fn send_file(socket: &TcpStream, descriptor: Descriptor<'_>, position: &mut u64, length: usize) -> io::Result<usize> {
    socket.try_io(Interest::WRITABLE, || Ok(rustix::fs::sendfile(socket, descriptor.0, Some(position), length)?))
}

/// The resources that the process uses, from `/proc`; none if there is no `/proc`.
pub fn process_use() -> Option<ProcessUse> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()?;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may contain spaces.
    let fields: Vec<f64> = stat.rsplit_once(") ")?.1.split(' ').map(|field| field.trim().parse().unwrap_or_default()).collect();
    let (user, system, began) = (fields.get(11)?, fields.get(12)?, fields.get(19)?);
    let booted = fs::read_to_string("/proc/stat").ok()?.lines().find_map(|l| l.strip_prefix("btime ")?.parse::<f64>().ok())?;
    Some(ProcessUse {
        resident_bytes: pages * rustix::param::page_size() as u64,
        cpu_seconds: (user + system) / ticks,
        open_files: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
        open_files_max: open_files_max(),
        began_seconds: booted + began / ticks,
    })
}

/// The process that listens on a TCP port, if Linux permits us to see it: the processes of our own user, or all of them as root.
pub fn listening_process(port: u16) -> Option<Process> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|table| fs::read_to_string(table).ok());
    let inodes: Vec<String> = tables.flat_map(|table| table.lines().filter_map(|line| inode(line, port)).collect::<Vec<_>>()).collect();
    process_with(&inodes.iter().map(|inode| format!("socket:[{inode}]").into()).collect::<Vec<_>>())
}

/// The process that has a file open, if Linux permits us to see it.
pub fn process_with_file(path: &Path) -> Option<Process> {
    process_with(&[fs::canonicalize(path).ok()?])
}

fn process_with(files: &[PathBuf]) -> Option<Process> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).find_map(|(id, path)| {
        holds(&path, files).then(|| {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            Process { id, name: name.trim().to_string() }
        })
    })
}

/// The inode of a line of `/proc/net/tcp` if it is a socket that listens on `port`:
/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...`.
fn inode(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
    (local == port && *fields.get(3)? == LISTENING).then(|| fields.get(9).map(|inode| inode.to_string())).flatten()
}

/// Whether the process has one of these files open.
fn holds(process: &Path, wanted: &[PathBuf]) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    files.flatten().filter_map(|file| fs::read_link(file.path()).ok()).any(|to| wanted.contains(&to))
}

/// The gateway of the container in which we run. Connections through published ports come from it if the engine translates their addresses. Docker
/// Desktop does so for all connections, Docker on Linux for those from the host itself. None outside of containers.
pub fn container_gateway() -> Option<IpAddr> {
    if !CONTAINER_MARKS.iter().any(|mark| Path::new(mark).exists()) {
        return None;
    }
    gateway(&fs::read_to_string("/proc/net/route").ok()?)
}

/// The gateway of the default route in `/proc/net/route`: `Iface Destination Gateway ...`, addresses in hex, the first byte last.
fn gateway(routes: &str) -> Option<IpAddr> {
    let fields = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let default = fields.filter(|fields| fields.get(1) == Some(&"00000000")).find_map(|fields| fields.get(2).copied())?;
    let address = u32::from_str_radix(default, 16).ok().filter(|address| *address != 0)?;
    Some(IpAddr::V4(Ipv4Addr::from(address.to_le_bytes())))
}

/// Reports the state to systemd if it started the process with `Type=notify`; otherwise does nothing.
pub fn notify_service_manager(state: ServiceState) -> io::Result<()> {
    let state = match state {
        ServiceState::Ready => sd_notify::NotifyState::Ready,
        ServiceState::Stopping => sd_notify::NotifyState::Stopping,
    };
    sd_notify::notify(&[state])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_leads_to_the_gateway() {
        let routes = "Iface\tDestination\tGateway \tFlags\neth0\t000011AC\t00000000\t0001\neth0\t00000000\t010011AC\t0003\n";
        assert_eq!(gateway(routes), Some([172, 17, 0, 1].into()));
        assert_eq!(gateway("Iface\tDestination\tGateway\neth0\t00000000\t00000000\t0001\n"), None);
    }

    #[test]
    fn we_find_ourselves() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listening_process(port).map(|process| process.id), Some(std::process::id()));
        drop(listener);
        assert_eq!(listening_process(port), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(process_with_file(file.path()).map(|process| process.id), Some(std::process::id()));
        assert_eq!(owner_of(file.path()), user_and_group());
    }
}
