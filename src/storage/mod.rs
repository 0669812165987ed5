//! The log on disk: segments, indexes, recovery, retention, compaction.
//!
//! The layout is byte for byte Kafka's, so that Kafka's own `DumpLogSegments` reads it: a directory `topic-partition` with segments named by their
//! base offset (`.log`; a sealed segment also has `.index` and `.timeindex`, and `.txnindex` if it has aborted transactions), producer snapshots,
//! the leader-epoch checkpoint and `partition.metadata`. The indexes of the active segment are in memory and are written when it is sealed
//! or closed. Ownership is `LogDirectory`, `Log`, `Segment`. A reader gets a [`RecordsSlice`], which stays readable whatever happens
//! to the log afterwards.
//!
//! Cost of an append: one positioned write of header and body, no copy of the body. Cost of a read: an index search and a few small reads to find
//! the batch; then the slice is sent from the file to the socket.

mod checkpoint;
mod cleaner;
mod compaction;
mod directory;
mod dump;
mod epochs;
mod error;
mod files;
mod index;
mod journal;
mod journal_format;
mod log;
mod log_config;
mod log_durability;
mod producers;
mod ranges;
mod reader;
mod recovery;
mod retention;
mod scan;
mod segment;
mod transactions;
mod unflushed;
mod verify;

pub use cleaner::{Cleaned, Cleaner, Cleaning, Pace, Replacement};
pub use compaction::{Compaction, Dirty, choose_dirty, group};
pub use directory::{LogDirectory, OffsetFile, Software, Start, partition_of_directory};
pub use dump::{Depth, dump};
pub use epochs::LeaderEpochs;
pub use error::Error;
pub use files::OpenFiles;
pub use journal::{CommitJournal, Committed, Room, Sealed, Stored};
pub use journal_format::JournalEntry;
pub use log::{Appended, Deleted, Log};
pub use log_config::LogConfig;
pub use producers::{ActiveProducer, Origin, ProducerState, Verdict};
pub use reader::{AbortedTransaction, CommittedSlice, FirstBatch, FoundOffset, LogReader, RecordsSlice};
pub use recovery::{Recovery, Report};
pub use retention::{Deed, Policy, SegmentFacts, choose};
pub use unflushed::{Extent, Synced, Uncommitted, Unflushed, sync_logs};
pub use verify::{Finding, Severity, Verified, verify};
