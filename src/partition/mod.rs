//! One replica: its log, its role, and what its readers may see.
//!
//! An append takes the log's write lock, a read its read lock, and neither holds it across an await. After an append the partition
//! publishes its progress and wakes who waits for it: fetches that want more bytes, and producers that want their records committed.

mod condition;
mod error;
mod partitions;
mod progress;
mod replica;
mod settings;

pub use crate::storage::{ActiveProducer, Appended, Error as StorageError, FirstBatch, FoundOffset, RecordsSlice};
pub use error::Error;
pub use partitions::{NewReplica, Partitions, Recovered};
pub use progress::{Subscription, Wake};
pub use replica::{Isolation, Replica, Traffic, View};
pub use settings::{CleanupPolicy, Kind, SETTINGS, Setting, SettingError, TopicSettings, setting_behind, setting_named};
