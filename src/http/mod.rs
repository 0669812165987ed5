//! Health, readiness, metrics, lists, and conditions that tests wait for, over HTTP.

mod doctor;
mod groups;
mod home;
mod hosts;
mod lists;
mod metrics;
mod pages;
mod routes;
mod time;
mod wait;

pub use doctor::{Diagnosis, Finding, FindingSeen};
pub use home::encoded;
pub use hosts::AllowedHosts;
pub use metrics::{METRICS, Metric, MetricKind};
pub use pages::{Pages, serve};
pub use routes::{ROUTES, Route};
pub use time::utc;
pub use wait::{Conditions, Observed, ObservedGroup};
