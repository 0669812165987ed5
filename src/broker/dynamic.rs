//! Settings that can change while the broker runs and that are read at each use. The other dynamic settings are defaults of topics, which the
//! cluster applies to the partitions.

use std::str::FromStr;

use crate::cluster::ClusterHandle;

/// The names of these settings. A test compares them with the settings that Kafka can change for a whole cluster.
#[cfg(test)]
pub(super) const READ_AT_EACH_USE: &[&str] = &[
    "log.cleaner.backoff.ms",
    "log.cleaner.dedupe.buffer.size",
    "log.cleaner.io.max.bytes.per.second",
    // Read by the server.
    "max.connections",
    "producer.id.expiration.ms",
    "transaction.partition.verification.enable",
];

/// The values that were set while brokers ran.
#[derive(Debug, Clone)]
pub(super) struct Dynamic {
    cluster: ClusterHandle,
    node: i32,
}

impl Dynamic {
    /// Those of broker `node`.
    pub(super) fn of(cluster: ClusterHandle, node: i32) -> Dynamic {
        Dynamic { cluster, node }
    }

    /// The current value; `None` if the broker's configuration applies.
    pub(super) fn value<T: FromStr>(&self, name: &str) -> Option<T> {
        self.cluster.image().broker_setting(self.node, name)?.trim().to_ascii_lowercase().parse().ok()
    }
}
