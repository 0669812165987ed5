//! Writes a [`Seed`] into a starting broker, as its first client: over the protocol, so that everything is validated as for any other client.
//! Repeating it changes nothing: existing topics keep their records, a partition with n records gets the seed's from the n-th (this completes an
//! interrupted start), and a committed offset of a group is kept.

use std::path::Path;

use super::Error;
use super::seed::{OwnedRecord, Seed, SeedGroup, SeedTopic, read_records};
use crate::client::{self, Connection};
use crate::env::Disk;
use crate::model::TopicPartition;
use crate::protocol::ErrorCode;
use crate::protocol::generated::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use crate::protocol::generated::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use crate::protocol::generated::find_coordinator::FindCoordinatorRequest;
use crate::protocol::generated::incremental_alter_configs::{AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest};
use crate::protocol::generated::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use crate::protocol::generated::offset_commit::{OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use crate::protocol::generated::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use crate::protocol::generated::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use crate::records::BatchBuilder;
use crate::wire::Records;

/// The approximate maximum size of a batch, and its maximum number of records.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_RECORDS: usize = 1000;
/// The deadline for creating a topic.
const TIMEOUT_MS: i32 = 30_000;
/// The number of the resource type for topics in Kafka's protocol, and that of the operation that sets a value.
const TOPIC_RESOURCE: i8 = 2;
const SET: i8 = 0;

/// The items that were new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seeded {
    pub(super) topics: usize,
    pub(super) records: usize,
    pub(super) offsets: usize,
}

/// Writes the whole seed once the groups are loaded. The error contains the part that cannot be written.
pub(super) async fn write_seed(seed: &Seed, disk: &dyn Disk, now_ms: i64, client: Connection) -> Result<Seeded, Error> {
    let mut writer = SeedWriter { client, disk, now_ms, seeded: Seeded::default() };
    for topic in &seed.topics {
        writer.topic(topic).await?;
    }
    for (id, path) in &seed.records {
        writer.records(id, path).await?;
    }
    for group in &seed.groups {
        writer.group(group).await?;
    }
    Ok(writer.seeded)
}

struct SeedWriter<'a> {
    client: Connection,
    disk: &'a dyn Disk,
    now_ms: i64,
    seeded: Seeded,
}

fn refuse(of: &str, what: impl ToString) -> Error {
    Error::Seed { path: of.to_string(), what: what.to_string() }
}

fn lost(error: client::Error) -> Error {
    refuse("seed", error)
}

/// An error code as an error.
fn checked(of: &str, code: i16, message: Option<String>) -> Result<(), Error> {
    match ErrorCode::from_code(code) {
        Some(ErrorCode::None) => Ok(()),
        error => Err(refuse(of, message.unwrap_or_else(|| format!("{error:?}")))),
    }
}

impl SeedWriter<'_> {
    async fn topic(&mut self, topic: &SeedTopic) -> Result<(), Error> {
        let SeedTopic { name, partitions, replication_factor, configs } = topic;
        let config = |(name, value): (&String, &String)| CreatableTopicConfig { name: name.clone(), value: Some(value.clone()) };
        let new = CreatableTopic {
            name: name.clone(),
            num_partitions: *partitions,
            replication_factor: *replication_factor,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![new], timeout_ms: TIMEOUT_MS, validate_only: false };
        let answer = self.client.call(&request, 7).await.map_err(lost)?.topics.remove(0);
        if ErrorCode::from_code(answer.error_code) == Some(ErrorCode::TopicAlreadyExists) {
            return self.change(topic).await;
        }
        checked(name, answer.error_code, answer.error_message)?;
        self.seeded.topics += 1;
        Ok(())
    }

    /// Applies the settings to an existing topic, and adds partitions if it has fewer.
    async fn change(&mut self, topic: &SeedTopic) -> Result<(), Error> {
        let SeedTopic { name, partitions, configs, .. } = topic;
        let more = CreatePartitionsTopic { name: name.clone(), count: *partitions, assignments: None };
        if *partitions > 0 {
            let request = CreatePartitionsRequest { topics: vec![more], timeout_ms: TIMEOUT_MS, validate_only: false };
            let answer = self.client.call(&request, 3).await.map_err(lost)?.results.remove(0);
            // The topic has this number of partitions, or more.
            if ErrorCode::from_code(answer.error_code) != Some(ErrorCode::InvalidPartitions) {
                checked(name, answer.error_code, answer.error_message)?;
            }
        }
        if configs.is_empty() {
            return Ok(());
        }
        let config =
            |(name, value): (&String, &String)| AlterableConfig { name: name.clone(), config_operation: SET, value: Some(value.clone()) };
        let configs = configs.iter().map(config).collect();
        let resources = vec![AlterConfigsResource { resource_type: TOPIC_RESOURCE, resource_name: name.clone(), configs }];
        let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
        let answer = self.client.call(&request, 1).await.map_err(lost)?.responses.remove(0);
        checked(name, answer.error_code, answer.error_message)
    }

    async fn records(&mut self, id: &TopicPartition, path: &Path) -> Result<(), Error> {
        let records = read_records(self.disk, path)?;
        let mut rest = records.get(self.end(id).await?..).unwrap_or_default();
        while !rest.is_empty() {
            let mut size = 0;
            let fits = |record: &&OwnedRecord| {
                size += record.size();
                size <= BATCH_BYTES
            };
            let count = rest.iter().take(BATCH_RECORDS).take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count);
            self.produce(id, now).await?;
            self.seeded.records += count;
            rest = later;
        }
        Ok(())
    }

    /// The log end offset.
    async fn end(&mut self, id: &TopicPartition) -> Result<usize, Error> {
        let partition = ListOffsetsPartition { partition_index: id.partition, timestamp: -1, ..Default::default() };
        let topics = vec![ListOffsetsTopic { name: id.topic.to_string(), partitions: vec![partition] }];
        let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
        let answer = self.client.call(&request, 5).await.map_err(lost)?.topics.remove(0).partitions.remove(0);
        checked(&id.to_string(), answer.error_code, None)?;
        Ok(usize::try_from(answer.offset).unwrap_or_default())
    }

    async fn produce(&mut self, id: &TopicPartition, records: &[OwnedRecord]) -> Result<(), Error> {
        let batch = records.iter().fold(BatchBuilder::new(), |batch, record| batch.record(record.as_new())).build(self.now_ms);
        let data = PartitionProduceData { index: id.partition, records: Some(Records::Bytes(batch)) };
        let topic = TopicProduceData { name: id.topic.to_string(), partition_data: vec![data], ..Default::default() };
        let request = ProduceRequest { acks: -1, timeout_ms: TIMEOUT_MS, topic_data: vec![topic], ..Default::default() };
        let answer = self.client.call(&request, 9).await.map_err(lost)?.responses.remove(0).partition_responses.remove(0);
        checked(&id.to_string(), answer.error_code, answer.error_message)
    }

    async fn group(&mut self, group: &SeedGroup) -> Result<(), Error> {
        // If the offsets topic does not exist yet, this creates it.
        let find = FindCoordinatorRequest { key_type: 0, coordinator_keys: vec![group.group.clone()], ..Default::default() };
        let found = self.client.call(&find, 4).await.map_err(lost)?.coordinators.remove(0);
        checked(&format!("group {}", group.group), found.error_code, found.error_message)?;
        for offset in &group.offsets {
            if self.committed(&group.group, &offset.topic, offset.partition).await? >= 0 {
                continue;
            }
            let (partition_index, committed_offset) = (offset.partition, offset.offset);
            let partition = OffsetCommitRequestPartition { partition_index, committed_offset, ..Default::default() };
            let topics = vec![OffsetCommitRequestTopic { name: offset.topic.clone(), partitions: vec![partition], ..Default::default() }];
            let request =
                OffsetCommitRequest { group_id: group.group.clone(), generation_id_or_member_epoch: -1, topics, ..Default::default() };
            let answer = self.client.call(&request, 7).await.map_err(lost)?.topics.remove(0).partitions.remove(0);
            checked(&format!("group {}, {}-{}", group.group, offset.topic, offset.partition), answer.error_code, None)?;
            self.seeded.offsets += 1;
        }
        Ok(())
    }

    /// The committed offset of the group, or -1.
    async fn committed(&mut self, group: &str, topic: &str, partition: i32) -> Result<i64, Error> {
        let topics = vec![OffsetFetchRequestTopic { name: topic.to_string(), partition_indexes: vec![partition] }];
        let request = OffsetFetchRequest { group_id: group.to_string(), topics: Some(topics), ..Default::default() };
        let mut answer = self.client.call(&request, 7).await.map_err(lost)?;
        checked(&format!("group {group}"), answer.error_code, None)?;
        Ok(answer.topics.remove(0).partitions.remove(0).committed_offset)
    }
}
