//! Produce: checks batches and appends them to partitions. Every partition has its own result.
//!
//! acks=all requires no replication yet: each partition has one replica, which is in sync, and Kafka requires min(min.insync.replicas, replicas).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::admission::{Admission, Knows};
use crate::model::is_internal_topic;
use crate::partition::{Origin, Position, Replica, Verification};
use crate::protocol::ErrorCode;
use crate::protocol::generated::produce::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use crate::records::{BadRecord, BatchHeader, Codec, TimestampType};
use crate::server::dispatch::{Call, Refusal};
use crate::server::errors;

/// The first version that identifies topics by id.
const BY_ID_FROM: i16 = 13;
/// The first version in which a client may send zstd.
const ZSTD_FROM: i16 = 7;
/// The client id of Kafka's own admin tools, which may write to internal topics.
const ADMIN_CLIENT: &str = "__admin_client";

/// Errors without a log start offset in the response, as in Kafka. Every other error of an append returns the partition's log start offset.
const WITHOUT_LOG_START: &[ErrorCode] = &[
    ErrorCode::CorruptMessage,
    ErrorCode::UnknownTopicOrPartition,
    ErrorCode::NotLeaderOrFollower,
    ErrorCode::MessageTooLarge,
    ErrorCode::RecordListTooLarge,
    ErrorCode::KafkaStorageError,
];

/// The first versions with an error after which the producer aborts, and in which the broker adds partitions to transactions (KIP-890).
const ABORTABLE_FROM: i16 = 11;
const ADDS_FROM: i16 = 12;

/// Returns none if the client requested no response.
pub(in crate::server) async fn handle(call: Call<ProduceRequest>) -> Result<Option<ProduceResponse>, Refusal> {
    let acks = call.request.acks;
    let mut refused = (!matches!(acks, -1..=1)).then_some(ErrorCode::InvalidRequiredAcks);
    let mut admission = Admission::default();
    match &call.request.transactional_id {
        Some(id) if refused.is_none() => admission = Admission::ask(&call.caller.services, id, batches(&call), knows(&call)).await,
        None if batches_of(&call).any(|(_, _, header)| header.is_transactional()) => {
            refused = refused.or(Some(ErrorCode::TransactionalIdAuthorizationFailed));
        }
        _ => {}
    }
    let mut responses = Vec::with_capacity(call.request.topic_data.len());
    let mut uncommitted = Vec::new();
    for topic in &call.request.topic_data {
        let response = produce_topic(&call, topic, refused, &admission, &mut uncommitted);
        add(&mut responses, response);
    }
    let timeout = Duration::from_millis(call.request.timeout_ms.max(0) as u64);
    // While the request waits, the memory of its batches is reused for the next ones.
    drop(call);
    if acks != 0 && !uncommitted.is_empty() {
        await_commits(timeout, &uncommitted, &mut responses).await;
    }
    if acks == 0 {
        let failed = responses
            .iter()
            .flat_map(|t| &t.partition_responses)
            .find_map(|p| ErrorCode::from_code(p.error_code).filter(|e| *e != ErrorCode::None));
        return failed.map_or(Ok(None), |error| Err(Refusal::Unacknowledged(error.name())));
    }
    Ok(Some(ProduceResponse { responses, ..Default::default() }))
}

/// As in Kafka's responses, a topic is included once and only with at least one partition.
fn add(responses: &mut Vec<TopicProduceResponse>, response: TopicProduceResponse) {
    let is_same = |known: &&mut TopicProduceResponse| known.name == response.name && known.topic_id == response.topic_id;
    match responses.iter_mut().find(is_same) {
        Some(known) => known.partition_responses.extend(response.partition_responses),
        None if response.partition_responses.is_empty() => {}
        None => responses.push(response),
    }
}

fn knows(call: &Call<ProduceRequest>) -> Knows {
    match call.version {
        ADDS_FROM.. => Knows::Adding,
        ABORTABLE_FROM.. => Knows::Abortable,
        _ => Knows::Little,
    }
}

/// The headers of a request's batches, as far as they can be parsed.
fn batches_of(call: &Call<ProduceRequest>) -> impl Iterator<Item = (&TopicProduceData, i32, BatchHeader)> {
    call.request.topic_data.iter().flat_map(|topic| {
        let header = |data: &PartitionProduceData| BatchHeader::read(data.records.as_ref()?.bytes()?).ok();
        topic.partition_data.iter().filter_map(move |data| Some((topic, data.index, header(data)?)))
    })
}

/// The batches for partitions that are on this broker.
fn batches(call: &Call<ProduceRequest>) -> Vec<(Arc<Replica>, BatchHeader)> {
    let replica = |topic: &TopicProduceData, index: i32| call.caller.services.partitions.find(&topic_name(call, topic)?, index).ok();
    batches_of(call).filter_map(|(topic, index, header)| Some((replica(topic, index)?, header))).collect()
}

fn topic_name(call: &Call<ProduceRequest>, topic: &TopicProduceData) -> Option<Arc<str>> {
    if call.version >= BY_ID_FROM {
        call.caller.services.cluster.image().topic_by_id(topic.topic_id).map(|t| t.name.clone())
    } else {
        Some(Arc::from(topic.name.as_str()))
    }
}

/// A batch that was appended and may not be acknowledged yet.
struct Uncommitted {
    replica: Arc<Replica>,
    /// The position that must be committed.
    position: Position,
}

/// Waits for the timeout of the request; the response of each partition that is not committed then is an error.
async fn await_commits(timeout: Duration, uncommitted: &[Uncommitted], responses: &mut [TopicProduceResponse]) {
    let deadline = Instant::now() + timeout;
    for Uncommitted { replica, position } in uncommitted {
        let outcome = match timeout_at(deadline, replica.committed(*position)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => {
                warn!(partition = %replica.id(), %error, "appended records could not be fsynced");
                (errors::of_partition(&error), error.to_string())
            }
            Err(_) => (ErrorCode::RequestTimedOut, "the fsync of appended records timed out".into()),
        };
        let of_topic = responses.iter_mut().filter(|t| *t.name == *replica.id().topic || t.topic_id == replica.topic_id());
        let of_partition = of_topic.flat_map(|t| &mut t.partition_responses).filter(|p| p.index == replica.id().partition);
        for response in of_partition.filter(|p| p.error_code == 0) {
            *response = failed(response.index, outcome.0, Some(outcome.1.clone()));
        }
    }
}

fn produce_topic(
    call: &Call<ProduceRequest>,
    topic: &TopicProduceData,
    refused: Option<ErrorCode>,
    admission: &Admission,
    uncommitted: &mut Vec<Uncommitted>,
) -> TopicProduceResponse {
    let name = topic_name(call, topic);
    let refused = refused.or(match &name {
        None => Some(ErrorCode::UnknownTopicId),
        Some(name) if is_internal_topic(name) && call.client_id != ADMIN_CLIENT => Some(ErrorCode::InvalidTopicException),
        Some(_) => None,
    });
    let mut partition = |data: &PartitionProduceData| {
        let refusal = |error: ErrorCode| failed(data.index, error, None);
        match (refused, &name) {
            (Some(error), _) => refusal(error),
            (None, Some(name)) => match call.caller.services.partitions.find(name, data.index) {
                Ok(replica) => match admission.of(replica.id()) {
                    Ok(verification) => produce_partition(call, &replica, data, verification, uncommitted),
                    Err(error) => refusal(error),
                },
                Err(error) => refusal(errors::of_partition(&error)),
            },
            (None, None) => refusal(ErrorCode::UnknownTopicId),
        }
    };
    TopicProduceResponse {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partition_responses: topic.partition_data.iter().map(&mut partition).collect(),
    }
}

fn produce_partition(
    call: &Call<ProduceRequest>,
    replica: &Arc<Replica>,
    data: &PartitionProduceData,
    verification: Option<&Verification>,
    uncommitted: &mut Vec<Uncommitted>,
) -> PartitionProduceResponse {
    let Some(bytes) = data.records.as_ref().and_then(|r| r.bytes()).filter(|b| !b.is_empty()) else {
        return failed(data.index, ErrorCode::InvalidRecord, Some("there is no record batch".into()));
    };
    if call.version < ZSTD_FROM && BatchHeader::read(bytes).is_ok_and(|header| header.codec() == Ok(Codec::Zstd)) {
        return failed(data.index, ErrorCode::UnsupportedCompressionType, None);
    }
    let origin = if call.version >= ADDS_FROM { Origin::BumpingClient } else { Origin::Client };
    let settings = replica.settings();
    let now_ms = call.caller.services.env.clock.wall_ms();
    match replica.produce(bytes, origin, verification, now_ms) {
        Ok(appended) => {
            let view = replica.view();
            // If the leader epoch has already changed, the wait returns the error.
            if !replica.is_committed(appended.position).is_ok_and(|is_committed| is_committed) {
                uncommitted.push(Uncommitted { replica: replica.clone(), position: appended.position });
            }
            let append_time = settings.timestamp_type() == TimestampType::LogAppendTime;
            PartitionProduceResponse {
                index: data.index,
                base_offset: appended.base_offset.0,
                log_append_time_ms: if append_time { appended.max_timestamp } else { -1 },
                log_start_offset: view.log_start.0,
                ..Default::default()
            }
        }
        Err(error) => {
            let code = errors::of_partition(&error);
            if code == ErrorCode::KafkaStorageError {
                warn!(partition = %replica.id(), %error, "an append failed");
            } else {
                debug!(partition = %replica.id(), %error, "an append was rejected");
            }
            let mut response = failed(data.index, code, Some(error.to_string()));
            response.record_errors = errors::bad_records(&error).iter().map(bad_record).collect();
            // Errors that Kafka returns before it looks up the partition have no log start offset either.
            if !WITHOUT_LOG_START.contains(&code) && !errors::is_no_single_batch(&error) {
                response.log_start_offset = replica.view().log_start.0;
            }
            response
        }
    }
}

fn bad_record(bad: &BadRecord) -> BatchIndexAndErrorMessage {
    BatchIndexAndErrorMessage { batch_index: bad.index as i32, batch_index_error_message: Some(bad.to_string()) }
}

fn failed(index: i32, error: ErrorCode, message: Option<String>) -> PartitionProduceResponse {
    PartitionProduceResponse { index, error_code: error.code(), base_offset: -1, error_message: message, ..Default::default() }
}
