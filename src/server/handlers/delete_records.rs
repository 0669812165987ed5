//! DeleteRecords: deletes the first records of partitions.

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::error;

use crate::model::{Offset, is_internal_topic};
use crate::partition::Replica;
use crate::protocol::ErrorCode;
use crate::protocol::generated::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use crate::server::dispatch::Call;
use crate::server::errors;
use crate::server::services::Services;

/// In a request: delete all records up to the high watermark.
const ALL: i64 = -1;
/// In a response: no low watermark.
const NONE: i64 = -1;

type Below = (Arc<Replica>, Option<Offset>);

pub(in crate::server) async fn handle(mut call: Call<DeleteRecordsRequest>) -> DeleteRecordsResponse {
    keep_first(&mut call.request);
    let services = &call.caller.services;
    let named = call.request.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name.as_str(), p)));
    let checked: Vec<Result<Below, ErrorCode>> = named.map(|(topic, partition)| check(services, topic, partition)).collect();
    let below: Vec<Below> = checked.iter().flatten().cloned().collect();
    let partitions = services.partitions.clone();
    let mut deleted = match services.env.workers.blocking(move || partitions.delete_records(&below)).await {
        Ok(Ok(results)) => results.into_iter().map(|result| result.map_err(|e| errors::of_partition(&e))).collect(),
        Ok(Err(error)) => {
            error!(%error, "the log start offsets could not be written");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
    .into_iter();
    let mut outcomes = checked.into_iter().map(|checked| checked.and_then(|_| deleted.next().unwrap_or(Err(ErrorCode::KafkaStorageError))));
    let mut one = |partition_index: i32| {
        let outcome = outcomes.next().expect("there is one for each partition of the request");
        let error_code = outcome.err().unwrap_or(ErrorCode::None).code();
        DeleteRecordsPartitionResult { partition_index, low_watermark: outcome.map_or(NONE, |offset| offset.0), error_code }
    };
    let topics = call.request.topics.iter().map(|t| DeleteRecordsTopicResult {
        name: t.name.clone(),
        partitions: t.partitions.iter().map(|p| one(p.partition_index)).collect(),
    });
    DeleteRecordsResponse { topics: topics.collect(), ..Default::default() }
}

/// As in Kafka's response, a partition that is listed twice is included once, and a topic without partitions is not included.
fn keep_first(request: &mut DeleteRecordsRequest) {
    let mut named = BTreeSet::new();
    for topic in &mut request.topics {
        topic.partitions.retain(|partition| named.insert((topic.name.clone(), partition.partition_index)));
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
}

fn check(services: &Services, topic: &str, partition: &DeleteRecordsPartition) -> Result<Below, ErrorCode> {
    if is_internal_topic(topic) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let replica = services.partitions.find(topic, partition.partition_index).map_err(|e| errors::of_partition(&e))?;
    if !replica.settings().cleanup.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    match partition.offset {
        ALL => Ok((replica, None)),
        offset if offset < 0 => Err(ErrorCode::OffsetOutOfRange),
        offset => Ok((replica, Some(Offset(offset)))),
    }
}
