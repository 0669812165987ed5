//! The basic types: offsets, epochs, ids, names.

mod ids;
mod names;
mod uuid;

pub use ids::{LeaderEpoch, NodeId, Offset, ProducerEpoch, ProducerId};
pub use names::{TOPIC_NAME_MAX, TopicPartition, counted, is_internal_topic, is_legal_topic_name};
pub use uuid::Uuid;
