//! AddPartitionsToTxn: adds partitions to a transaction; either all partitions of a request or none.

use crate::coordinator::{Identity, OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
use crate::model::TopicPartition;
use crate::protocol::ErrorCode;
use crate::protocol::generated::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, AddPartitionsToTxnResult,
    AddPartitionsToTxnTopic, AddPartitionsToTxnTopicResult,
};
use crate::records::EpochRule;
use crate::server::dispatch::Call;
use crate::server::errors;
use crate::server::services::Services;

/// The first version for brokers, with several transactions.
const BATCHED_FROM: i16 = 4;
/// The first version with an error code for fenced producers.
const FENCED_FROM: i16 = 2;

/// One transaction of a request.
struct Wanted<'a> {
    id: &'a str,
    producer: Identity,
    topics: &'a [AddPartitionsToTxnTopic],
    /// Adds nothing: the codes report which partitions are in the transaction.
    verify_only: bool,
}

pub(in crate::server) async fn handle(call: Call<AddPartitionsToTxnRequest>) -> AddPartitionsToTxnResponse {
    let (services, request) = (&call.caller.services, &call.request);
    if call.version < BATCHED_FROM {
        let wanted = Wanted {
            id: &request.v3_and_below_transactional_id,
            producer: Identity::new(request.v3_and_below_producer_id, request.v3_and_below_producer_epoch),
            topics: &request.v3_and_below_topics,
            verify_only: false,
        };
        let results_by_topic_v3_and_below = add(services, &wanted, call.version).await;
        return AddPartitionsToTxnResponse { results_by_topic_v3_and_below, ..Default::default() };
    }
    let mut results_by_transaction = Vec::with_capacity(request.transactions.len());
    for t in &request.transactions {
        let producer = Identity::new(t.producer_id, t.producer_epoch);
        let wanted = Wanted { id: &t.transactional_id, producer, topics: &t.topics, verify_only: t.verify_only };
        let topic_results = add(services, &wanted, call.version).await;
        results_by_transaction.push(AddPartitionsToTxnResult { transactional_id: t.transactional_id.clone(), topic_results });
    }
    AddPartitionsToTxnResponse { results_by_transaction, ..Default::default() }
}

async fn add(services: &Services, wanted: &Wanted<'_>, version: i16) -> Vec<AddPartitionsToTxnTopicResult> {
    let image = services.cluster.image();
    let is_there = |p: &TopicPartition| {
        image.topic(&p.topic).is_some_and(|t| usize::try_from(p.partition).is_ok_and(|number| number < t.partitions.len()))
    };
    let named = |t: &AddPartitionsToTxnTopic| t.partitions.iter().map(|p| TopicPartition::new(t.name.as_str(), *p)).collect::<Vec<_>>();
    let partitions: Vec<TopicPartition> = wanted.topics.iter().flat_map(named).collect();
    // Clients may not write to internal topics; brokers, from version 4, may add the partitions that store groups.
    let is_forbidden = |p: &TopicPartition| version < BATCHED_FROM && [OFFSETS_TOPIC, TRANSACTIONS_TOPIC].contains(&&*p.topic);
    let is_fine = |p: &TopicPartition| !is_forbidden(p) && is_there(p);
    let codes = if partitions.iter().all(is_fine) {
        let outcome = match wanted.verify_only {
            true => services.transactions.verify(wanted.id, wanted.producer, &partitions),
            false => {
                let added = services.transactions.add(wanted.id, wanted.producer, &partitions, EpochRule::Stays).await;
                added.map(|()| vec![ErrorCode::None; partitions.len()])
            }
        };
        outcome.unwrap_or_else(|error| vec![errors::of_producer(error, version, FENCED_FROM); partitions.len()])
    } else {
        let code = |p| match p {
            p if is_forbidden(p) => ErrorCode::TopicAuthorizationFailed,
            p if is_there(p) => ErrorCode::OperationNotAttempted,
            _ => ErrorCode::UnknownTopicOrPartition,
        };
        partitions.iter().map(code).collect()
    };
    let mut codes = codes.into_iter();
    let mut result = |partition_index: &i32| AddPartitionsToTxnPartitionResult {
        partition_index: *partition_index,
        partition_error_code: codes.next().unwrap_or(ErrorCode::UnknownServerError).code(),
    };
    let topic = |t: &AddPartitionsToTxnTopic| AddPartitionsToTxnTopicResult {
        name: t.name.clone(),
        results_by_partition: t.partitions.iter().map(&mut result).collect(),
    };
    wanted.topics.iter().map(topic).collect()
}
