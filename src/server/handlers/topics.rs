//! Topics that are created on demand, and the internal ones.

use tracing::warn;

use crate::cluster::{Error, Event, NewTopic, Response};
use crate::coordinator::OFFSETS_TOPIC;
use crate::protocol::ErrorCode;
use crate::server::services::Services;

/// Creates topics with the broker's defaults and waits until they are served. One that is there already is no error.
pub(super) async fn create_missing(services: &Services, names: Vec<String>) -> Result<(), Error> {
    let fresh =
        |name: String| NewTopic { id: services.env.entropy.uuid(), name, partitions: -1, replication_factor: -1, ..NewTopic::default() };
    submit(services, names.into_iter().map(fresh).collect()).await
}

/// Makes sure that the offsets topic is there and its groups are loaded.
pub(super) async fn ensure_offsets_topic(services: &Services) -> Result<(), ErrorCode> {
    if services.cluster.image().topic(OFFSETS_TOPIC).is_some() {
        return Ok(());
    }
    let configs = [("cleanup.policy", "compact"), ("compression.type", "producer"), ("segment.bytes", "104857600")];
    let topic = NewTopic {
        name: OFFSETS_TOPIC.into(),
        id: services.env.entropy.uuid(),
        partitions: services.groups.partition_count(),
        replication_factor: 3,
        configs: configs.iter().map(|(name, value)| (name.to_string(), Some(value.to_string()))).collect(),
        ..NewTopic::default()
    };
    if let Err(error) = submit(services, vec![topic]).await {
        warn!(%error, "the offsets topic could not be created");
        return Err(ErrorCode::CoordinatorNotAvailable);
    }
    let groups = services.groups.clone();
    services.env.workers.blocking(move || groups.load()).await.map_err(|_| ErrorCode::CoordinatorNotAvailable)
}

async fn submit(services: &Services, topics: Vec<NewTopic>) -> Result<(), Error> {
    match services.cluster.submit(Event::CreateTopics { topics, validate_only: false }).await? {
        Response::Topics(results) => {
            let failed = results.into_iter().find_map(|r| r.err().filter(|e| !matches!(e, Error::TopicExists(_))));
            failed.map_or(Ok(()), Err)
        }
        other => unreachable!("the controller answers CreateTopics with topics, not {other:?}"),
    }
}
