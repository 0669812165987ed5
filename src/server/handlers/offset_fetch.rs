//! OffsetFetch: returns the committed offsets of a group. A missing offset is -1 and never an error, because clients treat errors here as fatal.

use crate::cluster::MetadataImage;
use crate::coordinator::Committed;
use crate::model::Uuid;
use crate::protocol::ErrorCode;
use crate::protocol::generated::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestTopics, OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use crate::server::dispatch::Call;
use crate::server::services::Services;

/// The first version with an error for the whole response.
const TOP_LEVEL_ERROR_FROM: i16 = 2;
/// The first version with several groups.
const GROUPS_FROM: i16 = 8;
/// The first version that identifies topics by id.
const BY_ID_FROM: i16 = 10;

pub(in crate::server) async fn handle(call: Call<OffsetFetchRequest>) -> OffsetFetchResponse {
    let services = &call.caller.services;
    let request = &call.request;
    let wants = if request.require_stable { Wants::Stable } else { Wants::Committed };
    if call.version >= GROUPS_FROM {
        let mut groups = Vec::with_capacity(request.groups.len());
        for g in &request.groups {
            let (error, topics) = fetch(services, call.version, &g.group_id, g.topics.as_deref(), wants).await;
            groups.push(OffsetFetchResponseGroup { group_id: g.group_id.clone(), topics, error_code: error.code() });
        }
        return OffsetFetchResponse { groups, ..Default::default() };
    }
    let by_name = |t: &crate::protocol::generated::offset_fetch::OffsetFetchRequestTopic| OffsetFetchRequestTopics {
        name: t.name.clone(),
        topic_id: Uuid::ZERO,
        partition_indexes: t.partition_indexes.clone(),
    };
    let wanted: Option<Vec<_>> = request.topics.as_ref().map(|topics| topics.iter().map(by_name).collect());
    let (error, mut topics) = fetch(services, call.version, &request.group_id, wanted.as_deref(), wants).await;
    if error != ErrorCode::None && call.version < TOP_LEVEL_ERROR_FROM {
        // Clients would interpret an empty list as "nothing is committed".
        topics = wanted.unwrap_or_default().iter().map(|t| all_partitions(t, |index| partition(index, None, error))).collect();
    }
    let older = |t: OffsetFetchResponseTopics| OffsetFetchResponseTopic {
        name: t.name,
        partitions: t.partitions.into_iter().map(older_partition).collect(),
    };
    OffsetFetchResponse { topics: topics.into_iter().map(older).collect(), error_code: error.code(), ..Default::default() }
}

fn older_partition(p: OffsetFetchResponsePartitions) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition {
        partition_index: p.partition_index,
        committed_offset: p.committed_offset,
        committed_leader_epoch: p.committed_leader_epoch,
        metadata: p.metadata,
        error_code: p.error_code,
    }
}

/// How a client treats offsets that are part of an open transaction (KIP-447).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// It waits until the transaction has ended.
    Stable,
    /// It uses the offsets that were committed before.
    Committed,
}

/// The response is sent when none of its offsets can be reverted.
async fn fetch(
    services: &Services,
    version: i16,
    group: &str,
    topics: Option<&[OffsetFetchRequestTopics]>,
    wants: Wants,
) -> (ErrorCode, Vec<OffsetFetchResponseTopics>) {
    let image = services.cluster.image();
    let mut result = match topics {
        None => all(services, version, group, &image),
        Some(topics) => topics.iter().map(|topic| one_topic(services, version, group, topic, &image)).collect(),
    };
    if let (Ok(topics), Wants::Stable) = (&mut result, wants) {
        result = hold_back(services, group, std::mem::take(topics), &image);
    }
    match services.groups.settled(group).await.and(result) {
        Ok(topics) => (ErrorCode::None, topics),
        Err(error) => (error, Vec::new()),
    }
}

/// Replaces offsets that a transaction may change soon by an error.
fn hold_back(
    services: &Services,
    group: &str,
    mut topics: Vec<OffsetFetchResponseTopics>,
    image: &MetadataImage,
) -> Result<Vec<OffsetFetchResponseTopics>, ErrorCode> {
    for topic in &mut topics {
        let by_id = image.topic_by_id(topic.topic_id).map(|t| t.name.to_string());
        let name = if topic.name.is_empty() { by_id.unwrap_or_default() } else { topic.name.clone() };
        let numbers: Vec<i32> = topic.partitions.iter().map(|p| p.partition_index).collect();
        for (p, undecided) in topic.partitions.iter_mut().zip(services.groups.undecided(group, &name, &numbers)?) {
            if undecided {
                *p = partition(p.partition_index, None, ErrorCode::UnstableOffsetCommit);
            }
        }
    }
    Ok(topics)
}

fn all(services: &Services, version: i16, group: &str, image: &MetadataImage) -> Result<Vec<OffsetFetchResponseTopics>, ErrorCode> {
    let committed = services.groups.all_committed(group)?;
    let with_id = |(name, offsets): (String, Vec<(i32, Committed)>)| {
        let topic_id = image.topic(&name).map_or(Uuid::ZERO, |t| t.id);
        let partitions = offsets.into_iter().map(|(index, committed)| partition(index, Some(committed), ErrorCode::None)).collect();
        (version < BY_ID_FROM || topic_id != Uuid::ZERO).then_some(OffsetFetchResponseTopics { name, topic_id, partitions })
    };
    Ok(committed.into_iter().filter_map(with_id).collect())
}

fn one_topic(
    services: &Services,
    version: i16,
    group: &str,
    topic: &OffsetFetchRequestTopics,
    image: &MetadataImage,
) -> Result<OffsetFetchResponseTopics, ErrorCode> {
    let name = if version >= BY_ID_FROM {
        match image.topic_by_id(topic.topic_id) {
            Some(found) => found.name.to_string(),
            None => return Ok(all_partitions(topic, |index| partition(index, None, ErrorCode::UnknownTopicId))),
        }
    } else {
        topic.name.clone()
    };
    let mut committed = services.groups.committed(group, &name, &topic.partition_indexes)?.into_iter();
    Ok(all_partitions(topic, |index| partition(index, committed.next().flatten(), ErrorCode::None)))
}

fn all_partitions(topic: &OffsetFetchRequestTopics, one: impl FnMut(i32) -> OffsetFetchResponsePartitions) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.iter().copied().map(one).collect();
    OffsetFetchResponseTopics { name: topic.name.clone(), topic_id: topic.topic_id, partitions }
}

fn partition(partition_index: i32, committed: Option<Committed>, error: ErrorCode) -> OffsetFetchResponsePartitions {
    let (committed_offset, committed_leader_epoch, metadata) =
        committed.map_or((-1, -1, String::new()), |c| (c.offset, c.leader_epoch, c.metadata));
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset,
        committed_leader_epoch,
        metadata: Some(metadata),
        error_code: error.code(),
    }
}
