//! The commands a person types.

mod banner;
mod block_on;
mod commands;
mod config;
mod doctor;
mod documents;
mod health;
mod http;
mod inspect;
mod kafka;
mod run;
mod serve;
mod wait;

pub use commands::{reference, run};
