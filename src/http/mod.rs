//! Health, readiness, metrics, and what tests wait for, over HTTP.

mod doctor;
mod groups;
mod hosts;
mod metrics;
mod pages;
mod wait;

pub use doctor::{Diagnosis, Finding};
pub use hosts::AllowedHosts;
pub use metrics::{METRICS, Metric, MetricKind};
pub use pages::{Pages, serve};
