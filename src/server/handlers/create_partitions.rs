//! CreatePartitions: adds partitions to topics.

use crate::cluster::{Event, MorePartitions, Response};
use crate::protocol::ErrorCode;
use crate::protocol::generated::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use crate::server::dispatch::Call;
use crate::server::errors;

pub(in crate::server) async fn handle(call: Call<CreatePartitionsRequest>) -> CreatePartitionsResponse {
    let request = &call.request;
    let twice = |t: &CreatePartitionsTopic| request.topics.iter().filter(|other| other.name == t.name).count() > 1;
    let wanted: Vec<&CreatePartitionsTopic> = request.topics.iter().filter(|t| !twice(t)).collect();
    let more = wanted.iter().map(|t| MorePartitions {
        name: t.name.clone(),
        count: t.count,
        assignments: t.assignments.as_ref().map(|lists| lists.iter().map(|a| a.broker_ids.clone()).collect()),
    });
    let event = Event::CreatePartitions { topics: more.collect(), validate_only: request.validate_only };
    let outcome = match call.caller.services.cluster.submit(event).await {
        Ok(Response::Partitions(results)) => results,
        Ok(other) => unreachable!("the controller must answer CreatePartitions with partitions, not {other:?}"),
        Err(error) => vec![Err(error); wanted.len()],
    };
    let answer = |name: &str, error: ErrorCode, message: Option<String>| CreatePartitionsTopicResult {
        name: name.to_string(),
        error_code: error.code(),
        error_message: message,
    };
    let mut results: Vec<CreatePartitionsTopicResult> = wanted
        .iter()
        .zip(outcome)
        .map(|(topic, result)| match result {
            Ok(()) => answer(&topic.name, ErrorCode::None, None),
            Err(error) => answer(&topic.name, errors::of_cluster(&error), Some(error.to_string())),
        })
        .collect();
    let mut doubled: Vec<&str> = request.topics.iter().filter(|t| twice(t)).map(|t| t.name.as_str()).collect();
    doubled.dedup();
    results.extend(doubled.iter().map(|name| answer(name, ErrorCode::InvalidRequest, Some("Duplicate topic name.".into()))));
    CreatePartitionsResponse { results, ..Default::default() }
}
