//! A native client: currently one connection that sends requests and reads their responses.

mod connection;
mod error;

pub use connection::{Connection, REQUEST_TIMEOUT};
pub use error::Error;
