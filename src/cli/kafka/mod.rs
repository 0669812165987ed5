//! Kafka's own command-line tools, as far as start scripts, health checks and people in a container call them: same flags, words and exit codes.

mod console;
mod ready;
mod rpk;
mod servers;
mod topics;

pub(super) use console::{ConsumerOptions, ProducerOptions, consume, produce};
pub(super) use ready::{CubOptions, VersionsOptions, cub, versions};
pub(super) use rpk::{Cluster, Topic, cluster, topic};
pub(super) use topics::{TopicsOptions, topics};
