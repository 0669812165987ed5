//! TxnOffsetCommit: stores a group's offsets as part of a producer's transaction.

use super::admission::Knows;
use super::topics::ensure_offsets_topic;
use crate::coordinator::{CommitRequest, Identity, OffsetEntry};
use crate::protocol::ErrorCode;
use crate::protocol::generated::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic, TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use crate::server::dispatch::Call;

/// The first version with an error code for groups that are being loaded.
const LOADING_FROM: i16 = 2;
/// The first versions with an error after which the producer aborts, and in which the broker adds the group's partition to the transaction (KIP-890).
const ABORTABLE_FROM: i16 = 4;
const ADDS_FROM: i16 = 5;

pub(in crate::server) async fn handle(call: Call<TxnOffsetCommitRequest>) -> TxnOffsetCommitResponse {
    let image = call.caller.services.cluster.image();
    let is_there = |topic: &TxnOffsetCommitRequestTopic, p: &TxnOffsetCommitRequestPartition| {
        let partitions = image.topic(&topic.name).map_or(0, |t| t.partitions.len());
        usize::try_from(p.partition_index).is_ok_and(|number| number < partitions)
    };
    let mut offsets = Vec::new();
    for topic in &call.request.topics {
        offsets.extend(topic.partitions.iter().filter(|p| is_there(topic, p)).map(|p| OffsetEntry {
            topic: topic.name.clone(),
            partition: p.partition_index,
            offset: p.committed_offset,
            leader_epoch: p.committed_leader_epoch,
            metadata: p.committed_metadata.clone().unwrap_or_default(),
        }));
    }
    let count = offsets.len();
    let codes = commit(&call, offsets).await.unwrap_or_else(|error| vec![group_error(error, call.version); count]);
    let mut codes = codes.into_iter();
    let topics = call.request.topics.iter().map(|topic| {
        let mut code = |p: &TxnOffsetCommitRequestPartition| match is_there(topic, p) {
            true => codes.next().unwrap_or(ErrorCode::UnknownServerError),
            false => ErrorCode::UnknownTopicOrPartition,
        };
        let partition = |p: &TxnOffsetCommitRequestPartition| TxnOffsetCommitResponsePartition {
            partition_index: p.partition_index,
            error_code: code(p).code(),
        };
        let partitions = topic.partitions.iter().map(partition).collect();
        TxnOffsetCommitResponseTopic { name: topic.name.clone(), partitions, ..Default::default() }
    });
    // Kafka does not include topics without partitions in the response.
    TxnOffsetCommitResponse { topics: topics.filter(|topic| !topic.partitions.is_empty()).collect(), ..Default::default() }
}

async fn commit(call: &Call<TxnOffsetCommitRequest>, offsets: Vec<OffsetEntry>) -> Result<Vec<ErrorCode>, ErrorCode> {
    let (services, request) = (&call.caller.services, &call.request);
    if request.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    ensure_offsets_topic(services).await?;
    let producer = Identity::new(request.producer_id, request.producer_epoch);
    let knows = match call.version {
        ADDS_FROM.. => Knows::Adding,
        ABORTABLE_FROM.. => Knows::Abortable,
        _ => Knows::Little,
    };
    let verification = services.groups.begin_verification(&request.group_id, producer.id)?;
    if verification.is_some() {
        let partition = services.groups.partition_for(&request.group_id);
        let admitted = services.transactions.admit(&request.transactional_id, producer, &[partition], knows.rule()).await;
        match admitted.map_or_else(|error| error, |codes| codes.first().copied().unwrap_or(ErrorCode::None)) {
            ErrorCode::None => {}
            error => return Err(knows.error(error)),
        }
    }
    let commit = CommitRequest {
        group: request.group_id.clone(),
        member_id: request.member_id.clone(),
        instance_id: request.group_instance_id.clone(),
        generation: request.generation_id_or_member_epoch,
        missing_group: ErrorCode::IllegalGeneration,
        retention_ms: None,
        offsets,
    };
    services.groups.commit_in_transaction(&commit, producer, verification.as_ref()).await
}

/// A group's client retries if its coordinator is not available; errors about replicas are unknown to it.
fn group_error(error: ErrorCode, version: i16) -> ErrorCode {
    match error {
        ErrorCode::NotEnoughReplicas => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::CoordinatorLoadInProgress if version < LOADING_FROM => ErrorCode::CoordinatorNotAvailable,
        error => error,
    }
}
