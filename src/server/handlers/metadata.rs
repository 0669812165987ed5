//! Metadata: returns brokers and topics; creates missing topics if this is allowed.

use std::sync::Arc;

use super::authorized::{ON_CLUSTER, ON_TOPIC, if_asked};
use super::topics::create_missing;
use crate::cluster::{MetadataImage, TopicImage};
use crate::model::{Uuid, is_internal_topic, is_legal_topic_name};
use crate::protocol::ErrorCode;
use crate::protocol::generated::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use crate::server::dispatch::{Call, Misses};
use crate::server::visits::Ask;

/// The controller's id in the response to a request that is rejected as a whole.
const NO_CONTROLLER: i32 = -1;
/// The first version that may request topics by id.
const BY_ID_FROM: i16 = 12;

pub(in crate::server) async fn handle(call: Call<MetadataRequest>) -> MetadataResponse {
    let services = &call.caller.services;
    let wanted = call.request.topics.as_deref().filter(|topics| call.version > 0 || !topics.is_empty());
    call.asks(match wanted {
        None => Ask::Listing,
        Some([]) => Ask::Brokers,
        Some(_) if call.version >= 4 && !call.request.allow_auto_topic_creation => Ask::TopicsToRead,
        Some(_) => Ask::Topics,
    });
    let by_id = |topic: &MetadataRequestTopic| topic.topic_id != Uuid::ZERO;
    let mut topics: Vec<MetadataResponseTopic> = match wanted {
        None => services.cluster.image().topics().map(|topic| described(topic)).collect(),
        Some(topics) if call.version < BY_ID_FROM && topics.iter().any(|t| by_id(t) || t.name.is_none()) => {
            let refused = |t: &MetadataRequestTopic| missing(t.name.clone().or(Some(String::new())), t.topic_id, ErrorCode::InvalidRequest);
            let topics = topics.iter().map(refused).collect();
            return MetadataResponse { topics, cluster_id: None, controller_id: NO_CONTROLLER, ..Default::default() };
        }
        Some(topics) if topics.iter().any(by_id) => {
            let image = services.cluster.image();
            let one = |t: &MetadataRequestTopic| match image.topic_by_id(t.topic_id) {
                Some(topic) => described(topic),
                None => missing(None, t.topic_id, ErrorCode::UnknownTopicId),
            };
            topics.iter().map(one).collect()
        }
        Some(topics) => {
            let names: Vec<&str> = topics.iter().filter_map(|t| t.name.as_deref()).collect();
            by_name(&call, &names).await
        }
    };
    if !wanted.is_some_and(<[_]>::is_empty) {
        let is_there = wanted.is_some() && topics.iter().any(|topic| topic.error_code == ErrorCode::None.code());
        call.looks_for_topics(if is_there { Misses::NotAll } else { Misses::All });
    }
    for topic in topics.iter_mut().filter(|topic| topic.error_code != ErrorCode::UnknownTopicId.code()) {
        topic.topic_authorized_operations = if_asked(call.request.include_topic_authorized_operations, ON_TOPIC);
    }
    let (host, port) = call.caller.advertised();
    MetadataResponse {
        brokers: vec![MetadataResponseBroker { node_id: services.node_id, host, port, rack: services.settings.rack.clone() }],
        cluster_id: Some(services.cluster_id.clone()),
        controller_id: services.node_id,
        topics,
        cluster_authorized_operations: if_asked(call.request.include_cluster_authorized_operations, ON_CLUSTER),
        ..Default::default()
    }
}

async fn by_name(call: &Call<MetadataRequest>, names: &[&str]) -> Vec<MetadataResponseTopic> {
    let services = &call.caller.services;
    let mut image: Arc<MetadataImage> = services.cluster.image();
    let may_create = services.settings.auto_create_topics && (call.version < 4 || call.request.allow_auto_topic_creation);
    let absent: Vec<String> =
        names.iter().filter(|name| is_legal_topic_name(name) && image.topic(name).is_none()).map(|name| name.to_string()).collect();
    let mut failed = None;
    if may_create && !absent.is_empty() {
        failed = create_missing(services, absent).await.err();
        image = services.cluster.image();
    }
    let one = |name: &&str| match image.topic(name) {
        Some(topic) => described(topic),
        None if !is_legal_topic_name(name) => missing(Some(name.to_string()), Uuid::ZERO, ErrorCode::InvalidTopicException),
        None => {
            let error = failed.as_ref().map_or(ErrorCode::UnknownTopicOrPartition, crate::server::errors::of_cluster);
            missing(Some(name.to_string()), Uuid::ZERO, error)
        }
    };
    names.iter().map(one).collect()
}

fn missing(name: Option<String>, topic_id: Uuid, error: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic { error_code: error.code(), name, topic_id, ..Default::default() }
}

fn described(topic: &TopicImage) -> MetadataResponseTopic {
    let partition = |(number, p): (usize, &crate::cluster::PartitionImage)| MetadataResponsePartition {
        error_code: ErrorCode::None.code(),
        partition_index: number as i32,
        leader_id: p.leader,
        leader_epoch: p.leader_epoch,
        replica_nodes: p.replicas.clone(),
        isr_nodes: p.isr.clone(),
        offline_replicas: Vec::new(),
    };
    MetadataResponseTopic {
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        is_internal: is_internal_topic(&topic.name),
        partitions: topic.partitions.iter().enumerate().map(partition).collect(),
        ..Default::default()
    }
}
