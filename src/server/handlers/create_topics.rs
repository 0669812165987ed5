//! CreateTopics: creates topics; the response is sent when the topics are served.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use tracing::info;

use super::describe_configs::topic_settings;
use crate::cluster::{CreatedTopic, Error, Event, NewTopic, Response};
use crate::protocol::ErrorCode;
use crate::protocol::generated::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};
use crate::server::dispatch::Call;
use crate::server::errors;

pub(in crate::server) async fn handle(call: Call<CreateTopicsRequest>) -> CreateTopicsResponse {
    let services = &call.caller.services;
    let request = &call.request;
    let twice = |t: &CreatableTopic| request.topics.iter().filter(|other| other.name == t.name).count() > 1;
    let wanted: Vec<&CreatableTopic> = request.topics.iter().filter(|t| !twice(t)).collect();
    let new = wanted
        .iter()
        .map(|t| NewTopic {
            name: t.name.clone(),
            id: services.env.entropy.uuid(),
            partitions: t.num_partitions,
            replication_factor: t.replication_factor,
            assignments: t.assignments.iter().map(|a| (a.partition_index, a.broker_ids.clone())).collect(),
            configs: t.configs.iter().map(|c| (c.name.clone(), c.value.clone())).collect(),
        })
        .collect();
    let results = match services.cluster.submit(Event::CreateTopics { topics: new, validate_only: request.validate_only }).await {
        Ok(Response::Topics(results)) => results,
        Ok(other) => unreachable!("the controller must answer CreateTopics with topics, not {other:?}"),
        Err(error) => vec![Err(error); wanted.len()],
    };
    let mut topics: Vec<CreatableTopicResult> = wanted.iter().zip(results).map(|(topic, result)| answer(&call, topic, result)).collect();
    let mut named = BTreeMap::new();
    request.topics.iter().filter(|t| twice(t)).for_each(|t| {
        named.insert(&t.name, failed(&t.name, ErrorCode::InvalidRequest, "Duplicate topic name.".into()));
    });
    topics.extend(named.into_values());
    CreateTopicsResponse { topics, ..Default::default() }
}

fn answer(call: &Call<CreateTopicsRequest>, topic: &CreatableTopic, result: Result<CreatedTopic, Error>) -> CreatableTopicResult {
    let created = match result {
        Ok(created) => created,
        Err(error) => return failed(&topic.name, errors::of_cluster(&error), error.to_string()),
    };
    if created.clamped && !call.caller.services.clamping_said.swap(true, Ordering::Relaxed) {
        let replication_factor = created.replication_factor;
        info!(topic = %topic.name, replication_factor, "replication factors are limited to the number of brokers");
    }
    let own = topic.configs.iter().filter_map(|c| Some((c.name.clone(), c.value.clone()?))).collect();
    let configs = topic_settings(&call.caller.services, &own).into_iter().map(|s| CreatableTopicConfigs {
        name: s.setting.name.to_string(),
        value: s.value(),
        read_only: false,
        config_source: s.source() as i8,
        is_sensitive: false,
    });
    CreatableTopicResult {
        name: topic.name.clone(),
        topic_id: created.id,
        num_partitions: created.partitions,
        replication_factor: created.replication_factor,
        configs: Some(configs.collect()),
        ..Default::default()
    }
}

fn failed(name: &str, error: ErrorCode, message: String) -> CreatableTopicResult {
    CreatableTopicResult {
        name: name.to_string(),
        error_code: error.code(),
        error_message: Some(message),
        configs: Some(Vec::new()),
        ..Default::default()
    }
}
