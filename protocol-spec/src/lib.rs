//! Kafka's messages as declarations: a small line format, its parser and checks, and the generator of `src/protocol/generated`.
//!
//! The format is described in `docs/protocol.md`.

mod check;
mod generate;
mod load;
mod parse;
mod spec;

pub use check::check;
pub use generate::generate;
pub use load::load;
pub use parse::parse;
pub use spec::*;

/// An error in a specification, with its position.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct Error {
    /// The file's name, as passed to the parser.
    pub file: String,
    /// The line, starting at one.
    pub line: usize,
    /// The message for the author of the specification.
    pub what: String,
}
