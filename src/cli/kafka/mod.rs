//! Kafka's own command-line tools, as far as start scripts, health checks and people in a container call them: same flags, words and exit codes.

mod console;
mod observe;
mod ready;
mod rpk;
mod servers;
mod topics;

pub(super) use console::{ConsumerOptions, ProducerOptions, consume, produce};
pub(super) use observe::observe;
pub(super) use ready::{CubOptions, VersionsOptions, cub, versions};
pub(super) use rpk::{Brokers, Cluster, Topic, cluster, topic};
pub(super) use servers::Servers;
pub(super) use topics::{TopicsOptions, topics};
