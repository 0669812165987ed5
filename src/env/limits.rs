//! What the operating system allows this process, and what it uses.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files below which many partitions or connections get into trouble.
pub const OPEN_FILES_WANTED: u64 = 4096;

/// Raises the soft limit of open files to the hard one and returns it; none is unlimited.
pub fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current == limit.maximum || setrlimit(Resource::Nofile, raised).is_err() { limit.current } else { limit.maximum }
}

/// How many files may be open now; none is unlimited.
pub fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// What the process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessUse {
    /// Memory in bytes.
    pub resident_bytes: u64,
    /// Seconds of CPU so far.
    pub cpu_seconds: f64,
    /// Open files.
    pub open_files: u64,
    /// The most open files; none is unlimited.
    pub open_files_max: Option<u64>,
    /// When it began, in seconds since 1970.
    pub began_seconds: f64,
}

/// Reads `/proc`; none where there is no `/proc`.
pub fn process_use() -> Option<ProcessUse> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()?;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may hold blanks.
    let fields: Vec<f64> = stat.rsplit_once(") ")?.1.split(' ').map(|field| field.trim().parse().unwrap_or_default()).collect();
    let (user, system, began) = (fields.get(11)?, fields.get(12)?, fields.get(19)?);
    let booted = std::fs::read_to_string("/proc/stat").ok()?.lines().find_map(|l| l.strip_prefix("btime ")?.parse::<f64>().ok())?;
    Some(ProcessUse {
        resident_bytes: pages * rustix::param::page_size() as u64,
        cpu_seconds: (user + system) / ticks,
        open_files: std::fs::read_dir("/proc/self/fd").ok()?.count() as u64,
        open_files_max: open_files_max(),
        began_seconds: booted + began / ticks,
    })
}
