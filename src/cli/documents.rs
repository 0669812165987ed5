//! `dlog completions` and `dlog man`: what packages install beside the binary.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::output::stdout;
use crate::env::{Disk, RealDisk};

/// For which shell.
#[derive(Debug, Clone, Args)]
pub(super) struct CompletionOptions {
    /// The shell.
    shell: Shell,
}

/// Where the pages go.
#[derive(Debug, Clone, Args)]
pub(super) struct ManOptions {
    /// A directory, made where it is missing.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Prints the completions of a shell.
pub(super) fn completions(options: &CompletionOptions, mut command: Command) -> Result<(), String> {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut command, "dlog", &mut text);
    stdout().write_all(&text).map_err(|e| e.to_string())
}

/// Writes a page of each command: `dlog.1`, `dlog-serve.1` ...
pub(super) fn man(options: &ManOptions, command: Command) -> Result<(), String> {
    let written = RealDisk.create_dir(&options.directory).and_then(|()| clap_mangen::generate_to(command, &options.directory));
    written.map_err(|e| format!("{}: {e}", options.directory.display()))
}
