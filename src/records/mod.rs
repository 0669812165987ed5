//! Record batches: read, check, build, compress, rewrite.
//!
//! A batch has Kafka's format v2 (magic 2): a fixed header of 61 bytes and then the records, compressed as one block if the attributes contain
//! a codec. `protocol-spec/records/record_batch.spec` declares the header; `layout` is generated from it.

mod batch;
mod build;
mod check;
mod compression;
mod error;
mod legacy;
#[rustfmt::skip]
pub mod layout;
mod marker;
mod record;
mod retain;

pub use batch::{BatchHeader, Opened, TimestampType, batches};
pub use build::{BatchBuilder, NewRecord};
pub use check::{CheckedBatch, KeyRule, Look, Rules, check};
pub use compression::{Codec, check_frame, compress, decompress};
pub use error::{BAD_RECORDS_MAX, BadRecord, Error, Fault};
pub use marker::{EpochRule, Marker, TransactionResult};
pub use record::{Header, Record, Records};
pub use retain::{HorizonFor, Retained, Rewrite, WhenEmpty, retain};
