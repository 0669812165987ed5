//! `dlog`: command line in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    dlog::cli::run()
}
