//! Speaks Kafka to clients: connections in, requests out to the rooms below; one handler file per API.
//!
//! A connection is one task with a read side and a write side, joined by a bounded queue. Requests run in the order in which they came, each
//! up to its first wait; answers leave in the same order. A full queue stops the reading: that is the back-pressure.

mod connection;
mod dispatch;
mod errors;
mod fetch_sessions;
mod handlers;
mod limits;
mod listener;
mod metrics;
mod services;
mod visits;

pub use dispatch::{SERVED, Served, served};
pub use limits::ServerLimits;
pub use listener::{serve, serve_stream};
pub use metrics::ServerMetrics;
pub use services::{Advertised, BeforeDeletion, BrokerSetting, Endpoint, Rooms, ServerSettings, Services, SettingSource};
pub use visits::{Loss, Lost, Seen, Sent, Stranger, Told, Visits};
