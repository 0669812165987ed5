//! Why a change of the cluster is refused.

use crate::model::TOPIC_NAME_MAX;
use crate::partition::SettingError;

/// What is wrong with a change, in words for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A name that Kafka does not allow.
    #[error("Topic name is invalid: {}", what_is_wrong_with(.0))]
    InvalidTopic(String),
    /// Names that metrics cannot tell apart.
    #[error("Topic '{topic}' collides with existing topic: {existing}")]
    Collision {
        /// The new one.
        topic: String,
        /// The one that is there.
        existing: String,
    },
    /// The name is taken.
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    /// No topic of this name.
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    /// No topic of this id.
    #[error("This server does not host this topic ID.")]
    UnknownTopicId,
    /// A number of partitions that cannot be.
    #[error("{0}")]
    InvalidPartitions(String),
    /// A replication factor that cannot be.
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// An assignment that cannot be.
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    /// A setting that is not accepted.
    #[error(transparent)]
    InvalidConfig(#[from] SettingError),
    /// A request that contradicts itself.
    #[error("{0}")]
    InvalidRequest(String),
    /// A feature, or a level of it, that cannot be set.
    #[error("{0}")]
    InvalidFeature(String),
    /// More than a broker allows.
    #[error("{0}")]
    PolicyViolation(String),
    /// The change could not be made durable.
    #[error("the metadata log cannot be written: {0}")]
    Storage(String),
    /// The broker is stopping, or another one is the controller: the change is not made, and another try is safe.
    #[error("this broker is not the controller")]
    NotController,
    /// The change may have been made, or may still be.
    #[error("whether the change was committed is not known: {0}")]
    Unknown(String),
}

/// As Kafka says it.
fn what_is_wrong_with(name: &str) -> String {
    match name {
        "" => "the empty string is not allowed".into(),
        "." | ".." => format!("'{name}' is not allowed"),
        long if long.len() > TOPIC_NAME_MAX => format!("the length of '{long}' is longer than the max allowed length {TOPIC_NAME_MAX}"),
        _ => format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"),
    }
}
