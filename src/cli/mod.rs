//! The commands a person types.

#[macro_use]
mod output;

mod banner;
mod block_on;
mod commands;
mod config;
mod doctor;
mod documents;
mod health;
mod http;
mod inspect;
mod instead;
mod kafka;
mod redpanda;
mod run;
mod serve;
mod wait;

pub use commands::{reference, run};
