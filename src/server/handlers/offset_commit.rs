//! OffsetCommit: stores the committed offsets of a group.

use crate::coordinator::{CommitRequest, OffsetEntry};
use crate::protocol::ErrorCode;
use crate::protocol::generated::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestTopic, OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::server::dispatch::Call;

/// The first version that identifies topics by id.
const BY_ID_FROM: i16 = 10;
/// The first version with an error code for groups that do not exist.
const NOT_FOUND_FROM: i16 = 9;
/// The versions with an explicit retention.
const RETENTION_UP_TO: i16 = 4;

pub(in crate::server) async fn handle(call: Call<OffsetCommitRequest>) -> OffsetCommitResponse {
    let image = call.caller.services.cluster.image();
    let request = &call.request;
    let find = |topic: &OffsetCommitRequestTopic| match call.version {
        BY_ID_FROM.. => image.topic_by_id(topic.topic_id).ok_or(ErrorCode::UnknownTopicId),
        _ => image.topic(&topic.name).ok_or(ErrorCode::UnknownTopicOrPartition),
    };
    // One code per partition, in the order of the request; none for the partitions that are passed on to the group.
    let mut offsets = Vec::new();
    let mut early: Vec<Vec<Option<ErrorCode>>> = Vec::new();
    for topic in &request.topics {
        let found = find(topic);
        let check = |p: &crate::protocol::generated::offset_commit::OffsetCommitRequestPartition| match &found {
            Err(error) => Some(*error),
            Ok(image) if usize::try_from(p.partition_index).is_ok_and(|index| index < image.partitions.len()) => {
                offsets.push(OffsetEntry {
                    topic: image.name.to_string(),
                    partition: p.partition_index,
                    offset: p.committed_offset,
                    leader_epoch: p.committed_leader_epoch,
                    metadata: p.committed_metadata.clone().unwrap_or_default(),
                });
                None
            }
            Ok(_) => Some(ErrorCode::UnknownTopicOrPartition),
        };
        early.push(topic.partitions.iter().map(check).collect());
    }
    let commit = CommitRequest {
        group: request.group_id.clone(),
        member_id: request.member_id.clone(),
        instance_id: request.group_instance_id.clone(),
        generation: request.generation_id_or_member_epoch,
        missing_group: if call.version >= NOT_FOUND_FROM { ErrorCode::GroupIdNotFound } else { ErrorCode::IllegalGeneration },
        retention_ms: (call.version <= RETENTION_UP_TO && request.retention_time_ms >= 0).then_some(request.retention_time_ms),
        offsets,
    };
    let count = commit.offsets.len();
    let codes = call.caller.services.groups.commit(&commit).await.unwrap_or_else(|error| vec![error; count]);
    let mut codes = codes.into_iter();
    let topics = request.topics.iter().zip(early).map(|(topic, early)| {
        let partitions = topic.partitions.iter().zip(early).map(|(p, early)| {
            let error = early.or_else(|| codes.next()).unwrap_or(ErrorCode::UnknownServerError);
            OffsetCommitResponsePartition { partition_index: p.partition_index, error_code: error.code() }
        });
        OffsetCommitResponseTopic { name: topic.name.clone(), topic_id: topic.topic_id, partitions: partitions.collect() }
    });
    // Kafka does not include topics without partitions in the response.
    OffsetCommitResponse { topics: topics.filter(|topic| !topic.partitions.is_empty()).collect(), ..Default::default() }
}
