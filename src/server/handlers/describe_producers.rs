//! DescribeProducers: returns the producer state of partitions (KIP-664).

use crate::model::is_legal_topic_name;
use crate::partition::{ActiveProducer, Replica};
use crate::protocol::ErrorCode;
use crate::protocol::generated::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};
use crate::server::dispatch::Call;

pub(in crate::server) async fn handle(call: Call<DescribeProducersRequest>) -> DescribeProducersResponse {
    let partition = |topic: &str, partition_index: i32| match call.caller.services.partitions.get(topic, partition_index) {
        Some(replica) => described(partition_index, &replica),
        None if !is_legal_topic_name(topic) => failed(partition_index, ErrorCode::InvalidTopicException, "The topic name is invalid."),
        None => failed(partition_index, ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition."),
    };
    let topics = call.request.topics.iter().map(|t| TopicResponse {
        name: t.name.clone(),
        partitions: t.partition_indexes.iter().map(|number| partition(&t.name, *number)).collect(),
    });
    DescribeProducersResponse { topics: topics.collect(), ..Default::default() }
}

fn failed(partition_index: i32, error: ErrorCode, message: &str) -> PartitionResponse {
    PartitionResponse { partition_index, error_code: error.code(), error_message: Some(message.into()), ..Default::default() }
}

fn described(partition_index: i32, replica: &Replica) -> PartitionResponse {
    let producer = |p: ActiveProducer| ProducerState {
        producer_id: p.id.0,
        producer_epoch: i32::from(p.epoch.0),
        last_sequence: p.last_sequence,
        last_timestamp: p.last_timestamp_ms,
        coordinator_epoch: p.coordinator_epoch,
        current_txn_start_offset: p.transaction_start.map_or(-1, |offset| offset.0),
    };
    let active_producers = replica.producers().into_iter().map(producer).collect();
    PartitionResponse { partition_index, error_code: ErrorCode::None.code(), active_producers, ..Default::default() }
}
