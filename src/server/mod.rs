//! The Kafka protocol for clients: accepts connections and passes their requests to the rooms below; one handler file per API.
//!
//! A connection is one task with a read side and a write side, connected by a bounded queue. Requests run in the order in which they were received,
//! each up to its first wait; responses are sent in the same order. While the queue is full, no further requests are read: this is the back-pressure.

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
pub use visits::{AdvertisedAddress, Loss, Lost, Seen, Sent, Stranger, Visits};
