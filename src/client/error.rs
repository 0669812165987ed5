//! Why a request has no answer.

use std::time::Duration;

/// What went wrong between us and a broker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The network.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The connection's deadline is over: what was going on, and the deadline.
    #[error("{0} took longer than {ms} ms", ms = .1.as_millis())]
    TimedOut(&'static str, Duration),
    /// The broker has hung up.
    #[error("the broker has closed the connection")]
    Closed,
    /// Bytes that are no answer to what was asked.
    #[error("the answer to {name} version {version} cannot be read: {what}")]
    Malformed {
        /// The request.
        name: &'static str,
        /// Its version.
        version: i16,
        /// What is wrong.
        what: String,
    },
}
