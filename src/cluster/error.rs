//! Why a change of the cluster is refused.

use crate::model::TOPIC_NAME_MAX;
use crate::partition::SettingError;

/// The reason, as a message for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A topic name that is invalid in Kafka.
    #[error("Topic name is invalid: {}", what_is_wrong_with(.0))]
    InvalidTopic(String),
    /// Names that collide in metric names.
    #[error("Topic '{topic}' collides with existing topic: {existing}")]
    Collision {
        /// The new one.
        topic: String,
        /// The existing one.
        existing: String,
    },
    /// A topic of this name exists.
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    /// Unknown topic name.
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    /// Unknown topic id.
    #[error("This server does not host this topic ID.")]
    UnknownTopicId,
    /// An invalid number of partitions.
    #[error("{0}")]
    InvalidPartitions(String),
    /// An invalid replication factor.
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// An invalid assignment.
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    /// An invalid setting.
    #[error(transparent)]
    InvalidConfig(#[from] SettingError),
    /// A request that contradicts itself.
    #[error("{0}")]
    InvalidRequest(String),
    /// A feature or a level that cannot be set.
    #[error("{0}")]
    InvalidFeature(String),
    /// A limit of the broker is exceeded.
    #[error("{0}")]
    PolicyViolation(String),
    /// The change could not be stored.
    #[error("the metadata log cannot be written: {0}")]
    Storage(String),
    /// The broker is stopping, or another broker is the controller: the change was not made, and a retry is safe.
    #[error("this broker is not the controller")]
    NotController,
    /// The outcome is unknown: the change may have been made, or may still be made.
    #[error("it is unknown whether the change was committed: {0}")]
    Unknown(String),
}

/// The reason in Kafka's words.
fn what_is_wrong_with(name: &str) -> String {
    match name {
        "" => "the empty string is not allowed".into(),
        "." | ".." => format!("'{name}' is not allowed"),
        long if long.len() > TOPIC_NAME_MAX => format!("the length of '{long}' is longer than the max allowed length {TOPIC_NAME_MAX}"),
        _ => format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"),
    }
}
