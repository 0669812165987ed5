//! Creation of topics on demand, and of the internal topics.

use tracing::warn;

use crate::cluster::{Error, Event, NewTopic, Response};
use crate::coordinator::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
use crate::protocol::ErrorCode;
use crate::server::services::Services;

/// Creates topics with the broker's defaults and waits until they are served. An existing topic is not an error.
pub(super) async fn create_missing(services: &Services, names: Vec<String>) -> Result<(), Error> {
    let fresh =
        |name: String| NewTopic { id: services.env.entropy.uuid(), name, partitions: -1, replication_factor: -1, ..NewTopic::default() };
    submit(services, names.into_iter().map(fresh).collect()).await
}

/// Makes sure that the offsets topic exists and its groups are loaded.
pub(super) async fn ensure_offsets_topic(services: &Services) -> Result<(), ErrorCode> {
    let configs = [("cleanup.policy", "compact"), ("compression.type", "producer"), ("segment.bytes", "104857600")];
    // A client may have created the topic, or deleted and created it again.
    if ensure(services, OFFSETS_TOPIC, services.groups.partition_count(), &configs).await? == Was::Missing || services.groups.has_unloaded()
    {
        let groups = services.groups.clone();
        services.env.workers.blocking(move || groups.load()).await.map_err(|_| ErrorCode::CoordinatorNotAvailable)?;
    }
    Ok(())
}

/// Makes sure that the transactions' topic exists and its transactional ids are loaded.
pub(super) async fn ensure_transactions_topic(services: &Services) -> Result<(), ErrorCode> {
    let configs = [("cleanup.policy", "compact"), ("compression.type", "uncompressed"), ("segment.bytes", "104857600")];
    let was = ensure(services, TRANSACTIONS_TOPIC, services.transactions.partition_count(), &configs).await?;
    if was == Was::Missing || services.transactions.has_unloaded() {
        let transactions = services.transactions.clone();
        services.env.workers.blocking(move || transactions.load()).await.map_err(|_| ErrorCode::CoordinatorNotAvailable)?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Was {
    There,
    Missing,
}

/// Creates an internal topic if it does not exist.
async fn ensure(services: &Services, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<Was, ErrorCode> {
    if services.cluster.image().topic(name).is_some() {
        return Ok(Was::There);
    }
    let topic = NewTopic {
        name: name.into(),
        id: services.env.entropy.uuid(),
        partitions,
        replication_factor: 3,
        configs: configs.iter().map(|(name, value)| (name.to_string(), Some(value.to_string()))).collect(),
        ..NewTopic::default()
    };
    match submit(services, vec![topic]).await {
        Ok(()) => Ok(Was::Missing),
        Err(error) => {
            warn!(%error, topic = name, "an internal topic could not be created");
            Err(ErrorCode::CoordinatorNotAvailable)
        }
    }
}

async fn submit(services: &Services, topics: Vec<NewTopic>) -> Result<(), Error> {
    match services.cluster.submit(Event::CreateTopics { topics, validate_only: false }).await? {
        Response::Topics(results) => {
            let failed = results.into_iter().find_map(|r| r.err().filter(|e| !matches!(e, Error::TopicExists(_))));
            failed.map_or(Ok(()), Err)
        }
        other => unreachable!("the controller must answer CreateTopics with topics, not {other:?}"),
    }
}
