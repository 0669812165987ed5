//! The state that all brokers share: metadata records, image, controller, metadata log.
//!
//! A change is an [`Event`]. The [`Controller`] is a pure state machine that turns it into records and a response; the records go to the
//! [`MetadataLog`]. Once they are committed, they are applied to the [`MetadataImage`], the partitions that this broker leads follow, the image is
//! published, and then the response is sent: a topic in a response is already served.

#[cfg(test)]
mod adversary;
mod batches;
mod configs;
mod controller;
mod driver;
mod error;
mod features;
mod follower;
mod held;
mod image;
mod log;
mod partition_image;
mod producer_ids;
mod quorum;
mod records;
mod takeover;

pub use configs::{Alteration, Operation, Resource};
pub use controller::{
    Controller, ControllerSettings, CreatedTopic, Decided, Event, MorePartitions, NewTopic, Registration, Replication, Response, TopicRef,
};
pub use driver::{ClusterHandle, start};
pub use error::Error;
pub use features::{Downgrade, FEATURES, Feature, FeatureUpdate, METADATA_VERSION, TRANSACTION_VERSION};
pub use follower::Following;
pub use held::Held;
pub use image::{MetadataImage, TopicImage};
pub use log::{Committed, CommittedStream, Entry, LeaderChange, Leadership, MetadataLog, NotCommitted, Pending, Proposal, Role, Snapshot};
pub use partition_image::PartitionImage;
pub use producer_ids::ProducerIds;
pub use quorum::{METADATA_TOPIC, QuorumLog, QuorumState, QuorumView};
pub use records::MetadataRecord;
