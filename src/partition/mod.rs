//! One replica: its log, its role, and what its readers may see.
//!
//! An append takes the log's lock, and does not hold it across an await; a read takes none. After an append, and under `fsync` after the commit
//! that makes it durable, the partition publishes its progress and wakes who waits for it: fetches that want more bytes, and producers that
//! want their records committed.

mod commits;
mod error;
mod kafka_settings;
mod open_directory;
mod partitions;
mod progress;
mod replica;
mod role;
mod settings;
mod verification;

pub use crate::storage::{
    AbortedTransaction, ActiveProducer, CommittedSlice, Error as StorageError, FirstBatch, FoundOffset, Origin, RecordsSlice,
};
pub use error::Error;
pub use kafka_settings::{FOLLOWED_SINCE_START, KafkaSetting, Update, dynamic_setting, kafka_settings};
pub use open_directory::Durability;
pub use partitions::{DirectoryView, Keeping, NewReplica, Partitions, Recovered, Retired};
pub use progress::{Subscription, Wake};
pub use replica::{Appended, Isolation, Position, Replica, Traffic, View};
pub use role::Role;
pub use settings::{
    COMPRESSED_BATCHES_CHECK, CleanupPolicy, Kind, SETTINGS, Setting, SettingError, TopicSettings, setting_behind, setting_named,
};
pub use verification::Verification;
