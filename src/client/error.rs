//! The reasons why a request has no response.

use std::time::Duration;

/// An error between the client and a broker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A network error.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The connection's deadline has expired: the operation, and the deadline.
    #[error("{0} took longer than {ms} ms", ms = .1.as_millis())]
    TimedOut(&'static str, Duration),
    /// The broker has closed the connection.
    #[error("the broker has closed the connection")]
    Closed,
    /// Bytes that are not a valid response to the request.
    #[error("the response to {name} version {version} cannot be decoded: {what}")]
    Malformed {
        /// The request's name.
        name: &'static str,
        /// Its version.
        version: i16,
        /// What is wrong.
        what: String,
    },
}
