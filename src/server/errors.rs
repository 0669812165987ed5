//! Maps the errors of the rooms below to the error codes that clients get: the only place where this is decided.

use crate::partition::StorageError;
use crate::protocol::ErrorCode;
use crate::records::{BadRecord, Fault};
use crate::{cluster, partition, records};

/// The error code of a partition's error. API versions that do not have this code get another one from [`for_produce`].
pub(super) fn of_partition(error: &partition::Error) -> ErrorCode {
    match error {
        partition::Error::Records(error) => of_records(error),
        partition::Error::Storage(error) => of_storage(error),
        partition::Error::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        partition::Error::UnknownLeaderEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        partition::Error::Offline(_) | partition::Error::NotOpened(..) | partition::Error::NotRenamed(_) => ErrorCode::KafkaStorageError,
        partition::Error::Unknown(_) => ErrorCode::UnknownTopicOrPartition,
        partition::Error::NotLeader(_) | partition::Error::Closed(_) => ErrorCode::NotLeaderOrFollower,
    }
}

fn of_storage(error: &StorageError) -> ErrorCode {
    match error {
        StorageError::Corrupt { .. } => ErrorCode::CorruptMessage,
        StorageError::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
        StorageError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        StorageError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        StorageError::ProducerFenced { .. } => ErrorCode::InvalidProducerEpoch,
        StorageError::TransactionState { .. } => ErrorCode::InvalidTxnState,
        StorageError::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
        // As for a closed replica: the client requests metadata and finds that the topic was deleted.
        StorageError::Stopping | StorageError::Deleted(_) => ErrorCode::NotLeaderOrFollower,
        StorageError::Offline(_)
        | StorageError::Io { .. }
        | StorageError::Locked(_)
        | StorageError::Foreign { .. }
        | StorageError::Metadata { .. }
        | StorageError::Mismatch { .. } => ErrorCode::KafkaStorageError,
    }
}

fn of_records(error: &records::Error) -> ErrorCode {
    match error {
        records::Error::Crc { .. } | records::Error::Length(_) => ErrorCode::CorruptMessage,
        // A retry would fail too, because the bytes are not a valid frame of the codec: clients retry after CORRUPT_MESSAGE, and not after this
        // error.
        records::Error::Codec(_) | records::Error::Decompress { .. } => ErrorCode::InvalidRecord,
        records::Error::Magic(magic) if !matches!(magic, 0 | 1) => ErrorCode::CorruptMessage,
        records::Error::TooLarge { .. } | records::Error::Bomb(_) => ErrorCode::MessageTooLarge,
        records::Error::Rejected(bad) if bad.iter().any(|bad| bad.fault != Fault::KeyMissing) => ErrorCode::InvalidTimestamp,
        records::Error::Empty
        | records::Error::SeveralBatches
        | records::Error::Magic(_)
        | records::Error::BaseOffset(_)
        | records::Error::Contradiction(_)
        | records::Error::Record { .. }
        | records::Error::Rejected(_) => ErrorCode::InvalidRecord,
    }
}

/// The records that the topic's settings do not allow, if a batch was rejected because of them.
pub(super) fn bad_records(error: &partition::Error) -> &[BadRecord] {
    match error {
        partition::Error::Records(records::Error::Rejected(bad)) => bad,
        _ => &[],
    }
}

/// Whether the produced bytes are not exactly one batch of the current format.
pub(super) fn is_no_single_batch(error: &partition::Error) -> bool {
    matches!(error, partition::Error::Records(records::Error::Empty | records::Error::SeveralBatches | records::Error::Magic(_)))
}

/// A coordinator's error for a producer; the error for fenced producers exists only from a version of the request.
pub(super) fn of_producer(error: ErrorCode, version: i16, fenced_from: i16) -> ErrorCode {
    if error == ErrorCode::ProducerFenced && version < fenced_from { ErrorCode::InvalidProducerEpoch } else { error }
}

/// The error code of a rejected change of the cluster.
pub(super) fn of_cluster(error: &cluster::Error) -> ErrorCode {
    match error {
        cluster::Error::InvalidTopic(_) | cluster::Error::Collision { .. } => ErrorCode::InvalidTopicException,
        cluster::Error::TopicExists(_) => ErrorCode::TopicAlreadyExists,
        cluster::Error::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
        cluster::Error::UnknownTopicId => ErrorCode::UnknownTopicId,
        cluster::Error::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        cluster::Error::InvalidReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
        cluster::Error::InvalidReplicaAssignment(_) => ErrorCode::InvalidReplicaAssignment,
        cluster::Error::InvalidConfig(_) => ErrorCode::InvalidConfig,
        cluster::Error::InvalidRequest(_) => ErrorCode::InvalidRequest,
        cluster::Error::InvalidFeature(_) => ErrorCode::InvalidUpdateVersion,
        cluster::Error::PolicyViolation(_) => ErrorCode::PolicyViolation,
        cluster::Error::Storage(_) => ErrorCode::KafkaStorageError,
        cluster::Error::NotController => ErrorCode::NotController,
        cluster::Error::Unknown(_) => ErrorCode::RequestTimedOut,
    }
}
