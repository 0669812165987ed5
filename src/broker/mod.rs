//! Puts a broker together and takes it apart again: configuration, telemetry, shutdown.

mod assemble;
mod config;
mod error;
mod listeners;
mod providers;
mod settings;
mod telemetry;

pub use assemble::Broker;
pub use config::{Config, Mode, Sources};
pub use error::Error;
pub use listeners::ListenerConfig;
pub use settings::{KEYS, Key};
pub use telemetry::{init_logging, metrics_handle};
