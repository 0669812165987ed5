//! Functions that differ between operating systems. Each file has the same functions.
//!
//! - `portable`: uses only the standard library and tokio. Windows uses all of it; on other systems its functions are tested beside the native ones.
//! - `unix`: what all Unix systems share, including macOS; the rest comes from `portable`.
//! - `linux`: what only Linux has; the rest comes from `unix`.
//!
//! The cargo feature `portable` selects `portable` on every system, so that tests can run a whole broker on it.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
mod portable;
#[cfg(all(unix, not(feature = "portable")))]
mod unix;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
use linux as chosen;
#[cfg(any(not(unix), feature = "portable"))]
use portable as chosen;
#[cfg(all(unix, not(target_os = "linux"), not(feature = "portable")))]
use unix as chosen;

pub(super) use chosen::{
    Cursor, is_cached, map, open_direct, read_at, send_file, send_slices, set_send_buffer_bytes, space, sync_directory, sync_file_system,
    write_at, write_back,
};
pub use chosen::{
    Descriptor, Signals, ask_to_end, container_gateway, end_signal, is_device_failure, listening_process, notify_service_manager,
    open_files_max, owner_of, process_use, process_with_file, raise_open_files, user_and_group,
};

/// With a lower limit of open files, many partitions or connections cause errors.
pub const OPEN_FILES_WANTED: u64 = 4096;

/// The resources that the process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessUse {
    /// Memory in bytes.
    pub resident_bytes: u64,
    /// Seconds of CPU so far.
    pub cpu_seconds: f64,
    /// Open files.
    pub open_files: u64,
    /// The limit of open files; none means no limit.
    pub open_files_max: Option<u64>,
    /// The start time, in seconds since 1970.
    pub began_seconds: f64,
}

/// A process on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub id: u32,
    /// The name of its program; Linux truncates it to 15 characters.
    pub name: String,
}

/// The state of a service, for the service manager that started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    /// Clients are served.
    Ready,
    /// It is about to end.
    Stopping,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::IoSlice;

    use super::*;

    /// Runs the same reads and writes with the functions of one file of this room, and returns the results.
    macro_rules! played {
        ($bodies:ident, $folder:expr) => {{
            let path = $folder.join(stringify!($bodies));
            let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
            let cursor = $bodies::Cursor::default();
            // Positions and parts, with a gap and an empty part.
            let writes: [(u64, &[&[u8]]); 4] = [(0, &[b"one", b"", b" two"]), (20, &[b"three"]), (2, &[b"E"]), (7, &[b"a", b"b", b"c"])];
            for (position, parts) in writes {
                let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
                $bodies::write_at(&file, &cursor, &slices, position).unwrap();
            }
            $bodies::write_back(&file, 0, 25).unwrap();
            $bodies::sync_directory($folder).unwrap();
            let reads = [(0, 25), (0, 100), (3, 5), (24, 1), (25, 4), (1000, 4)].map(|(position, size)| {
                let mut bytes = vec![0; size];
                ($bodies::read_at(&file, &cursor, &mut bytes, position).unwrap(), bytes)
            });
            let map = $bodies::map(&path).unwrap();
            assert_eq!(map.as_ref(), b"onE twoabc\0\0\0\0\0\0\0\0\0\0three");
            (reads, map.as_ref().to_vec(), $bodies::is_cached(&file, 0, 25))
        }};
    }

    #[test]
    fn every_body_does_the_same_to_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let expected = played!(portable, folder.path());
        assert_eq!(played!(chosen, folder.path()), expected);
        #[cfg(all(unix, not(feature = "portable")))]
        assert_eq!(played!(unix, folder.path()), expected);
    }

    #[cfg(unix)]
    #[test]
    fn only_a_failed_device_is_one() {
        let error = |code| std::io::Error::from_raw_os_error(code);
        // EIO and EROFS; ENOENT, ENOSPC, EACCES.
        for (code, is_failure) in [(5, true), (30, true), (2, false), (28, false), (13, false)] {
            assert_eq!(is_device_failure(&error(code)), is_failure, "{code}");
        }
    }

    /// Threads that share a file read the requested bytes, whatever positions the other threads use.
    #[test]
    fn positioned_reads_do_not_disturb_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let bytes: Vec<u8> = (0..64_u32 << 10).flat_map(u32::to_be_bytes).collect();
        fs::write(&path, &bytes).unwrap();
        let (file, cursor) = (fs::File::open(&path).unwrap(), portable::Cursor::default());
        std::thread::scope(|scope| {
            for first in 0..4 {
                let (file, cursor) = (&file, &cursor);
                scope.spawn(move || {
                    for number in (first..64_u32 << 10).step_by(61) {
                        let mut read = [0; 4];
                        assert_eq!(portable::read_at(file, cursor, &mut read, u64::from(number) * 4).unwrap(), 4);
                        assert_eq!(u32::from_be_bytes(read), number);
                    }
                });
            }
        });
    }
}
