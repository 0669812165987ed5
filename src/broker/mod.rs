//! Assembles, starts and stops a broker: configuration, telemetry, shutdown.

mod assemble;
mod config;
mod directories;
mod dynamic;
mod error;
mod listeners;
mod maintenance;
mod properties;
mod providers;
mod repeats;
mod security;
mod seed;
mod seeding;
mod settings;
mod standing;
mod tails;
mod taken;
mod telemetry;

pub use assemble::Broker;
pub use config::{Config, Explained, Mode, Sources, explain};
pub use error::Error;
pub use listeners::ListenerConfig;
pub use maintenance::CleanerSettings;
pub use properties::read_properties;
pub use providers::VARIABLES;
pub use seed::Seed;
pub use settings::{KEYS, Key};
pub use standing::Standing;
pub use tails::Kept;
pub use taken::Free;
pub use telemetry::{LogFormat, LogTo, init_logging};
