//! The commands a person types.

mod commands;
mod config;
mod health;
mod run;
mod serve;
mod wait;

pub use commands::run;
