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

/// What is wrong with a specification, and where.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct Error {
    /// The file's name as it was given.
    pub file: String,
    /// The line, counted from one.
    pub line: usize,
    /// The sentence for the person who wrote it.
    pub what: String,
}
