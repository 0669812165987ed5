//! The shared part of AlterConfigs and IncrementalAlterConfigs: resources by type and name, and the request to the controller.

use crate::cluster::{Alteration, Event, Resource, Response};
use crate::model::is_legal_topic_name;
use crate::protocol::ErrorCode;
use crate::server::errors;
use crate::server::services::Services;

/// Resource types of the protocol.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// A resource to alter.
pub(super) struct Wanted {
    pub(super) kind: i8,
    pub(super) name: String,
    /// The change, or an error message.
    pub(super) alteration: Result<Alteration, String>,
}

/// The result for a resource.
pub(super) struct Altered {
    pub(super) kind: i8,
    pub(super) name: String,
    pub(super) error: ErrorCode,
    pub(super) message: Option<String>,
}

/// Alters resources; each one has its own result, in the order of the request.
pub(super) async fn alter(services: &Services, wanted: Vec<Wanted>, validate_only: bool) -> Vec<Altered> {
    let twice = |w: &Wanted| wanted.iter().filter(|other| (other.kind, &other.name) == (w.kind, &w.name)).count() > 1;
    let checked: Vec<Result<(Resource, Alteration), Refused>> = wanted
        .iter()
        .map(|w| {
            if twice(w) {
                return refuse("Each resource must appear at most once.".into());
            }
            let alteration = w.alteration.clone().or_else(refuse)?;
            Ok((resource(services, w.kind, &w.name)?, alteration))
        })
        .collect();
    let alterations: Vec<_> = checked.iter().flatten().cloned().collect();
    let count = alterations.len();
    let results = match services.cluster.submit(Event::AlterConfigs { alterations, validate_only }).await {
        Ok(Response::Altered(results)) => results,
        Ok(other) => unreachable!("the controller must answer AlterConfigs with results, not {other:?}"),
        Err(error) => vec![Err(error); count],
    };
    let mut results = results.into_iter();
    let mut outcome = |checked: Result<(Resource, Alteration), Refused>| match checked.map(|_| results.next()) {
        Err((error, message)) => (error, Some(message)),
        Ok(Some(Err(error))) => (errors::of_cluster(&error), Some(error.to_string())),
        Ok(_) => (ErrorCode::None, None),
    };
    let altered = |(wanted, (error, message)): (Wanted, _)| Altered { kind: wanted.kind, name: wanted.name, error, message };
    let outcomes: Vec<_> = checked.into_iter().map(&mut outcome).collect();
    wanted.into_iter().zip(outcomes).map(altered).collect()
}

type Refused = (ErrorCode, String);

fn refuse<T>(message: String) -> Result<T, Refused> {
    Err((ErrorCode::InvalidRequest, message))
}

fn resource(services: &Services, kind: i8, name: &str) -> Result<Resource, Refused> {
    match kind {
        TOPIC if name.is_empty() => refuse("Default topic resources are not allowed.".into()),
        TOPIC if !is_legal_topic_name(name) => Err((ErrorCode::InvalidTopicException, "The topic name is invalid.".into())),
        TOPIC => Ok(Resource::Topic(name.to_string())),
        BROKER if name.is_empty() => Ok(Resource::Broker(None)),
        BROKER if name.parse() == Ok(services.node_id) => Ok(Resource::Broker(Some(services.node_id))),
        BROKER => refuse(format!("Unexpected broker id, expected {} or empty string, but received {name}", services.node_id)),
        BROKER_LOGGER => refuse("Loggers cannot be changed while the broker runs; see --log.".into()),
        CLIENT_METRICS | GROUP => refuse(format!("Settings of resource type {kind} are not supported.")),
        other => refuse(format!("Unexpected resource type {other}")),
    }
}
