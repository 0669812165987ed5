//! What commands print: `println!` and `eprintln!` of this room, and a writer for larger output.
//!
//! The standard library's panic when the reader has closed the pipe, as in `dlog config explain | head`. Here a command ends silently, as if by
//! SIGPIPE. A broker goes on: its log has lost a reader, its clients have not.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// What shells report for a process that SIGPIPE ended: 128 and the number of the signal.
const BY_SIGPIPE: i32 = 141;
/// The exit code where the output cannot be written for another reason, such as a full disk.
const FAILED: i32 = 1;

/// Whether this process continues when its output is not read.
static GOES_ON: AtomicBool = AtomicBool::new(false);

/// `std::println!`, but the process ends in silence where the reader has gone.
macro_rules! println {
    ($($words:tt)*) => { $crate::cli::output::line(format_args!($($words)*)) };
}

/// `std::eprintln!`, but an error of stderr is ignored: there is no place left to report it.
macro_rules! eprintln {
    ($($words:tt)*) => { $crate::cli::output::error_line(format_args!($($words)*)) };
}

/// From now on this process continues when its output is not read.
pub(super) fn go_on_without_a_reader() {
    // Relaxed: set once, before anything is printed.
    GOES_ON.store(true, Ordering::Relaxed);
}

/// Prints a line to stdout.
pub(super) fn line(text: fmt::Arguments) {
    // The writer has handled the error.
    let _ = writeln!(stdout(), "{text}");
}

/// Prints a line to stderr.
pub(super) fn error_line(text: fmt::Arguments) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Stdout, for larger output. The process ends where the reader has gone.
pub(super) fn stdout() -> Stdout {
    Stdout(io::stdout().lock())
}

/// See [`stdout`].
pub(super) struct Stdout(io::StdoutLock<'static>);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).inspect_err(end)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().inspect_err(end)
    }
}

/// Ends the process, unless it goes on without a reader.
fn end(error: &io::Error) {
    if GOES_ON.load(Ordering::Relaxed) || error.kind() == ErrorKind::Interrupted {
        return;
    }
    if error.kind() != ErrorKind::BrokenPipe {
        eprintln!("dlog: cannot write the output: {error}");
    }
    std::process::exit(if error.kind() == ErrorKind::BrokenPipe { BY_SIGPIPE } else { FAILED });
}
