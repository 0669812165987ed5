//! A native client: today one connection that sends requests and reads their answers.

mod connection;
mod error;

pub use connection::{Connection, REQUEST_TIMEOUT};
pub use error::Error;
