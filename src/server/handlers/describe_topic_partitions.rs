//! DescribeTopicPartitions: returns topics in the order of their names, in pages (KIP-966).

use std::collections::BTreeSet;

use super::authorized::ON_TOPIC;
use crate::cluster::{PartitionImage, TopicImage};
use crate::model::is_internal_topic;
use crate::protocol::ErrorCode;
use crate::protocol::generated::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic, PageCursor,
};
use crate::server::dispatch::Call;

/// `max.request.partition.size.limit`: the maximum number of partitions in a page.
const PAGE_PARTITIONS_MAX: usize = 2000;

pub(in crate::server) async fn handle(call: Call<DescribeTopicPartitionsRequest>) -> DescribeTopicPartitionsResponse {
    let (image, request) = (call.caller.services.cluster.image(), &call.request);
    let begin = request.cursor.as_ref().map_or("", |cursor| cursor.topic_name.as_str());
    let names: BTreeSet<&str> = match request.topics.is_empty() {
        true => image.topics().map(|t| &*t.name).collect(),
        false => request.topics.iter().map(|t| t.name.as_str()).collect(),
    };
    let mut left = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, PAGE_PARTITIONS_MAX);
    let mut topics = Vec::new();
    for name in names.range(begin..) {
        let first = request.cursor.as_ref().filter(|cursor| cursor.topic_name == *name).map_or(0, |cursor| cursor.partition_index);
        let Ok(first) = usize::try_from(first) else {
            return DescribeTopicPartitionsResponse { topics: vec![failed(name, ErrorCode::InvalidRequest)], ..Default::default() };
        };
        let Some(topic) = image.topic(name) else {
            let error =
                if crate::model::is_legal_topic_name(name) { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException };
            topics.push(failed(name, error));
            continue;
        };
        if left == 0 {
            return DescribeTopicPartitionsResponse { topics, next_cursor: cursor(name, 0), ..Default::default() };
        }
        let page = described(topic, first, left);
        let next = first + page.partitions.len();
        left -= page.partitions.len();
        topics.push(page);
        if next < topic.partitions.len() {
            return DescribeTopicPartitionsResponse { topics, next_cursor: cursor(name, next), ..Default::default() };
        }
    }
    DescribeTopicPartitionsResponse { topics, ..Default::default() }
}

fn cursor(topic: &str, partition: usize) -> Option<PageCursor> {
    Some(PageCursor { topic_name: topic.to_string(), partition_index: partition as i32 })
}

fn failed(name: &str, error: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        name: Some(name.to_string()),
        error_code: error.code(),
        topic_authorized_operations: ON_TOPIC,
        ..Default::default()
    }
}

fn described(topic: &TopicImage, first: usize, partitions_max: usize) -> DescribeTopicPartitionsResponseTopic {
    let partition = |(number, p): (usize, &PartitionImage)| DescribeTopicPartitionsResponsePartition {
        error_code: if p.leader < 0 { ErrorCode::LeaderNotAvailable.code() } else { ErrorCode::None.code() },
        partition_index: number as i32,
        leader_id: p.leader,
        leader_epoch: p.leader_epoch,
        replica_nodes: p.replicas.clone(),
        isr_nodes: p.isr.clone(),
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        offline_replicas: Vec::new(),
    };
    DescribeTopicPartitionsResponseTopic {
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        is_internal: is_internal_topic(&topic.name),
        partitions: topic.partitions.iter().enumerate().skip(first).take(partitions_max).map(partition).collect(),
        topic_authorized_operations: ON_TOPIC,
        ..Default::default()
    }
}
