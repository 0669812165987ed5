//! The commands a person types.

mod commands;
mod config;
mod health;
mod inspect;
mod run;
mod serve;
mod wait;

pub use commands::run;
