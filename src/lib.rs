//! `dlog`, a Kafka-compatible broker. Each room's first sentence says what belongs there; `docs/architecture.md` has the plan of the house.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod broker;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod coordinator;
pub mod env;
pub mod http;
pub mod model;
pub mod partition;
pub mod protocol;
pub mod records;
pub mod server;
pub mod storage;
pub mod wire;
