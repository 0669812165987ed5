//! DeleteTopics: when the response is sent, the names can be reused and no request returns the deleted topics any more.

use std::collections::BTreeSet;

use crate::cluster::{Event, Response, TopicRef};
use crate::model::Uuid;
use crate::protocol::ErrorCode;
use crate::protocol::generated::delete_topics::{DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse};
use crate::server::dispatch::Call;
use crate::server::errors;

/// The first version that lists topics individually, by name or id.
const STATES_FROM: i16 = 6;
/// The first version with an error code for disabled deletion.
const DISABLED_FROM: i16 = 3;

pub(in crate::server) async fn handle(call: Call<DeleteTopicsRequest>) -> DeleteTopicsResponse {
    let states: Vec<DeleteTopicState> = if call.version >= STATES_FROM {
        call.request.topics.clone()
    } else {
        call.request.topic_names.iter().map(|name| DeleteTopicState { name: Some(name.clone()), topic_id: Uuid::ZERO }).collect()
    };
    let mut refs = Vec::new();
    let mut responses = Vec::new();
    for state in &states {
        match check(&call, state, &states) {
            Ok(topic) => refs.push((state, topic)),
            Err((error, message)) => responses.push(answer(state, error, Some(message.to_string()))),
        }
    }
    let services = &call.caller.services;
    if let Some(remember) = services.before_deletion.get() {
        let image = services.cluster.image();
        let found = refs.iter().filter_map(|(_, topic)| match topic {
            TopicRef::Name(name) => image.topic(name),
            TopicRef::Id(id) => image.topic_by_id(*id),
        });
        for topic in found {
            let replicas = (0..topic.partitions.len() as i32).filter_map(|number| services.partitions.get(&topic.name, number));
            replicas.for_each(|replica| remember(&replica));
        }
    }
    let event = Event::DeleteTopics(refs.iter().map(|(_, topic)| topic.clone()).collect());
    let results = match services.cluster.submit(event).await {
        Ok(Response::Deleted(results)) => results,
        Ok(other) => unreachable!("the controller must answer DeleteTopics with deleted topics, not {other:?}"),
        Err(error) => vec![Err(error); refs.len()],
    };
    let gone: BTreeSet<&str> = results.iter().flatten().map(|(name, _)| &**name).collect();
    if !gone.is_empty() {
        services.groups.topics_deleted(&gone);
        services.transactions.topics_deleted();
    }
    responses.extend(refs.iter().zip(&results).map(|((state, _), result)| match result {
        Ok((name, id)) => DeletableTopicResult { name: Some(name.to_string()), topic_id: *id, ..Default::default() },
        Err(error) => answer(state, errors::of_cluster(error), Some(error.to_string())),
    }));
    DeleteTopicsResponse { responses, ..Default::default() }
}

fn check(
    call: &Call<DeleteTopicsRequest>,
    state: &DeleteTopicState,
    all: &[DeleteTopicState],
) -> Result<TopicRef, (ErrorCode, &'static str)> {
    if !call.caller.services.settings.delete_topics {
        let code = if call.version >= DISABLED_FROM { ErrorCode::TopicDeletionDisabled } else { ErrorCode::InvalidRequest };
        return Err((code, "Topic deletion is disabled."));
    }
    if all.iter().filter(|other| *other == state).count() > 1 {
        return Err((ErrorCode::InvalidRequest, "Duplicate topic name or id."));
    }
    match (&state.name, state.topic_id) {
        (Some(_), id) if id != Uuid::ZERO => Err((ErrorCode::InvalidRequest, "You may not specify both topic name and topic id.")),
        (None, Uuid::ZERO) => Err((ErrorCode::InvalidRequest, "Neither topic name nor id were specified.")),
        (Some(name), _) => Ok(TopicRef::Name(name.clone())),
        (None, id) => Ok(TopicRef::Id(id)),
    }
}

fn answer(state: &DeleteTopicState, error: ErrorCode, error_message: Option<String>) -> DeletableTopicResult {
    DeletableTopicResult { name: state.name.clone(), topic_id: state.topic_id, error_code: error.code(), error_message }
}
