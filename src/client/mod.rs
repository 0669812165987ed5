//! A native client: today one connection that sends requests and reads their answers.

mod connection;
mod error;

pub use connection::Connection;
pub use error::Error;
