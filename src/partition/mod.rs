//! One replica: its log, its role, and which of its records readers can see.
//!
//! An append locks the log, and does not hold the lock across an await; a read needs no lock. After an append, and under `fsync` after the commit
//! that makes it durable, the partition publishes its progress and wakes waiting requests: fetches that wait for more bytes, and producers that
//! wait until their records are committed.

mod commits;
mod deletion;
mod error;
mod kafka_settings;
mod open_directory;
mod opening;
mod partitions;
mod placement;
mod progress;
mod replica;
mod replica_work;
mod role;
mod settings;
mod verification;

pub use crate::storage::{
    AbortedTransaction, ActiveProducer, CommittedSlice, Error as StorageError, FirstBatch, FoundOffset, Origin, RecordsSlice,
};
pub use deletion::Retired;
pub use error::Error;
pub use kafka_settings::{KafkaSetting, Update, dynamic_setting, kafka_settings};
pub use open_directory::Durability;
pub use partitions::{DirectoryView, Keeping, NewReplica, Partitions, Recovered};
pub use progress::{Subscription, Wake};
pub use replica::{Appended, Ended, Isolation, Position, Replica, Traffic, View};
pub use role::Role;
pub use settings::{
    COMPRESSED_BATCHES_CHECK, CleanupPolicy, Kind, SETTINGS, Setting, SettingError, TopicSettings, setting_behind, setting_named,
};
pub use verification::Verification;
