//! `dlog verify` and `dlog dump-log`: the contents of a data directory, and whether they are valid.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::output::stdout;
use crate::env::{Disk, RealDisk};
use crate::storage::{self, Depth, Severity};

/// Something in the files is not sound.
const UNSOUND: u8 = 3;
/// How often progress is said, from the first time on.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// What to check.
#[derive(Debug, Clone, Args)]
pub(super) struct VerifyOptions {
    /// The data directory; it must not be in use by a broker.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// What to print.
#[derive(Debug, Clone, Args)]
pub(super) struct DumpOptions {
    /// Files of a log (.log, .index, .timeindex, .snapshot, checkpoints), commit journals, or directories of partitions.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Print the records too.
    #[arg(long)]
    records: bool,
}

/// Checks; the exit code is 3 where something was lost or changed.
pub(super) fn verify(options: &VerifyOptions) -> Result<ExitCode, String> {
    let (begin, mut said) = (Instant::now(), Instant::now());
    let mut progress = |done: u64, all: u64| {
        if said.elapsed() > PROGRESS_EVERY {
            said = Instant::now();
            eprintln!("{} of {} MB after {} s", done / 1_000_000, all / 1_000_000, begin.elapsed().as_secs());
        }
    };
    let verified = storage::verify(&RealDisk, &options.directory, &mut progress).map_err(|e| e.to_string())?;
    for finding in &verified.findings {
        let kind = if finding.severity == Severity::Damage { "damage" } else { "repaired by the next start" };
        println!("{kind}: {}: {}", finding.path.display(), finding.what);
    }
    let storage::Verified { partitions, segments, batches, bytes, findings } = &verified;
    let damage = findings.iter().filter(|f| f.severity == Severity::Damage).count();
    println!("{partitions} partitions, {segments} segments, {batches} valid batches, {bytes} bytes: {damage} damaged files");
    Ok(if damage == 0 { ExitCode::SUCCESS } else { ExitCode::from(UNSOUND) })
}

/// Prints; the exit code is 3 where something is not sound.
pub(super) fn dump(options: &DumpOptions) -> Result<ExitCode, String> {
    let depth = if options.records { Depth::Records } else { Depth::Batches };
    let mut out = BufWriter::new(stdout());
    let mut is_sound = true;
    let files = files(&options.paths)?;
    for (at, path) in files.iter().enumerate() {
        if files.len() > 1 && !std::io::stdout().is_terminal() {
            eprintln!("{} of {}: {}", at + 1, files.len(), path.display());
        }
        match storage::dump(&RealDisk, path, depth, &mut out).and_then(|sound| out.flush().map(|()| sound)) {
            Ok(sound) => is_sound &= sound,
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        }
    }
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::from(UNSOUND) })
}

fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for path in paths {
        if RealDisk.is_dir(path) {
            let names = RealDisk.list(path).map_err(|e| format!("cannot list {}: {e}", path.display()))?;
            files.extend(names.iter().map(|name| path.join(name)).filter(|path| !RealDisk.is_dir(path) && is_of_a_log(path)));
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn is_of_a_log(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name != ".lock")
}
