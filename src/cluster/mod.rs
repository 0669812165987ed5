//! What the brokers agree on: metadata records, image, controller, metadata log.
//!
//! A change is an [`Event`]. The [`Controller`] is a pure state machine that turns it into records and a response; the records go to the
//! [`MetadataLog`]; once they are committed they are applied to the [`MetadataImage`], the partitions that this broker leads follow, the
//! image is swapped in, and only then does the response leave: a topic that a client was told about is served.

mod configs;
mod controller;
mod driver;
mod error;
mod features;
mod image;
mod metadata_log;
mod producer_ids;
mod records;
mod takeover;

pub use configs::{Alteration, Operation, Resource};
pub use controller::{Controller, ControllerSettings, CreatedTopic, Event, MorePartitions, NewTopic, Replication, Response, TopicRef};
pub use driver::{ClusterHandle, Following, start};
pub use error::Error;
pub use features::{Downgrade, FEATURES, Feature, FeatureUpdate, TRANSACTION_VERSION};
pub use image::{MetadataImage, PartitionImage, TopicImage};
pub use metadata_log::{Committed, CommittedStream, Entry, LocalMetadataLog, METADATA_TOPIC, MetadataLog, Pending};
pub use producer_ids::ProducerIds;
pub use records::MetadataRecord;
