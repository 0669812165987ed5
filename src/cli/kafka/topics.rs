//! `kafka-topics`.

use std::collections::BTreeMap;

use clap::{ArgGroup, Args};
use regex::Regex;

use super::servers::{Server, Servers, refused};
use crate::cli::block_on::block_on;
use crate::cli::commands::key_value;
use crate::protocol::ErrorCode;
use crate::protocol::generated::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use crate::protocol::generated::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use crate::protocol::generated::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use crate::protocol::generated::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use crate::protocol::generated::metadata::{MetadataResponsePartition, MetadataResponseTopic};

/// Versions that brokers from Kafka 2.8 on serve.
const CREATE: i16 = 7;
const DELETE: i16 = 6;
const PARTITIONS: i16 = 3;
const CONFIGS: i16 = 4;
const TIMEOUT_MS: i32 = 30_000;
/// Kafka's number for topics among what has settings, and for a setting that is a topic's own.
const TOPIC_RESOURCE: i8 = 2;
const OWN: i8 = 1;

/// Kafka's flags.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("action").required(true).args(["list", "create", "describe", "delete", "alter"]))]
pub(in crate::cli) struct TopicsOptions {
    #[command(flatten)]
    servers: Servers,
    /// List topics.
    #[arg(long)]
    list: bool,
    /// Create a topic.
    #[arg(long, requires = "topic")]
    create: bool,
    /// Print the partitions and settings of topics.
    #[arg(long)]
    describe: bool,
    /// Delete topics.
    #[arg(long, requires = "topic")]
    delete: bool,
    /// Add partitions to topics.
    #[arg(long, requires = "topic", requires = "partitions")]
    alter: bool,
    /// The topic. Except with --create: a regular expression, or several separated by commas.
    #[arg(long)]
    topic: Option<String>,
    /// The number of partitions. The default is the broker's.
    #[arg(long, value_name = "COUNT")]
    partitions: Option<i32>,
    /// The number of replicas. The default is the broker's.
    #[arg(long, value_name = "COUNT")]
    replication_factor: Option<i16>,
    /// A topic setting; can be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    config: Vec<(String, String)>,
    /// Do not fail if the topic exists.
    #[arg(long)]
    if_not_exists: bool,
    /// Do not fail if the topic does not exist.
    #[arg(long)]
    if_exists: bool,
    /// Exclude internal topics.
    #[arg(long)]
    exclude_internal: bool,
}

/// Runs it, and prints what Kafka's tool prints.
pub(in crate::cli) fn topics(options: &TopicsOptions) -> Result<(), String> {
    let lines = block_on(act(options)).map_err(|what| format!("Error while executing topic command : {what}"))?;
    lines.iter().for_each(|line| println!("{line}"));
    Ok(())
}

async fn act(options: &TopicsOptions) -> Result<Vec<String>, String> {
    let mut server = options.servers.connect().await?;
    if options.create {
        return create(&mut server, options).await;
    }
    let found = matching(&mut server, options).await?;
    if found.is_empty()
        && !options.if_exists
        && let Some(topic) = options.topic.as_ref().filter(|_| !options.list)
    {
        return Err(format!("Topic '{topic}' does not exist as expected"));
    }
    if options.delete {
        delete(&mut server, &found).await
    } else if options.alter {
        alter(&mut server, options, &found).await
    } else if options.list {
        Ok(found.iter().map(|topic| name(topic).to_string()).collect())
    } else {
        describe(&mut server, &found).await
    }
}

fn name(topic: &MetadataResponseTopic) -> &str {
    topic.name.as_deref().unwrap_or_default()
}

/// The topics that are meant, by name.
async fn matching(server: &mut Server, options: &TopicsOptions) -> Result<Vec<MetadataResponseTopic>, String> {
    let wanted = options.topic.as_ref().map(|words| Regex::new(&format!("^(?:{})$", words.replace(',', "|"))));
    let wanted = wanted.transpose().map_err(|e| e.to_string())?;
    let mut found = server.metadata(None, false).await?.topics;
    found.retain(|topic| {
        wanted.as_ref().is_none_or(|wanted| wanted.is_match(name(topic))) && !(options.exclude_internal && topic.is_internal)
    });
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

async fn create(server: &mut Server, options: &TopicsOptions) -> Result<Vec<String>, String> {
    let topic = options.topic.clone().unwrap_or_default();
    let configs = options.config.iter().map(|(name, value)| CreatableTopicConfig { name: name.clone(), value: Some(value.clone()) });
    let wanted = CreatableTopic {
        name: topic.clone(),
        num_partitions: options.partitions.unwrap_or(-1),
        replication_factor: options.replication_factor.unwrap_or(-1),
        configs: configs.collect(),
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![wanted], timeout_ms: TIMEOUT_MS, ..Default::default() };
    let answer = server.call(&request, CREATE).await?;
    let Some(result) = answer.topics.first() else { return Err("the response does not contain a topic".into()) };
    let mut lines = Vec::new();
    if topic.contains(['.', '_']) {
        lines.push(
            "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') could collide. To avoid issues it is best to use either, but not both.".to_string(),
        );
    }
    if result.error_code == ErrorCode::TopicAlreadyExists.code() && options.if_not_exists {
        return Ok(lines);
    }
    refused(result.error_code, result.error_message.as_deref())?;
    lines.push(format!("Created topic {topic}."));
    Ok(lines)
}

async fn delete(server: &mut Server, found: &[MetadataResponseTopic]) -> Result<Vec<String>, String> {
    let topics = found.iter().map(|topic| DeleteTopicState { name: topic.name.clone(), ..Default::default() }).collect();
    let answer = server.call(&DeleteTopicsRequest { topics, timeout_ms: TIMEOUT_MS, ..Default::default() }, DELETE).await?;
    answer.responses.iter().try_for_each(|each| refused(each.error_code, each.error_message.as_deref()))?;
    Ok(Vec::new())
}

async fn alter(server: &mut Server, options: &TopicsOptions, found: &[MetadataResponseTopic]) -> Result<Vec<String>, String> {
    let count = options.partitions.unwrap_or_default();
    let topics = found.iter().map(|topic| CreatePartitionsTopic { name: name(topic).into(), count, assignments: None }).collect();
    let answer = server.call(&CreatePartitionsRequest { topics, timeout_ms: TIMEOUT_MS, ..Default::default() }, PARTITIONS).await?;
    answer.results.iter().try_for_each(|each| refused(each.error_code, each.error_message.as_deref()))?;
    Ok(Vec::new())
}

async fn describe(server: &mut Server, found: &[MetadataResponseTopic]) -> Result<Vec<String>, String> {
    let resource = |topic: &MetadataResponseTopic| DescribeConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: name(topic).into(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest { resources: found.iter().map(resource).collect(), ..Default::default() };
    let mut configs = BTreeMap::new();
    for result in server.call(&request, CONFIGS).await?.results {
        refused(result.error_code, result.error_message.as_deref())?;
        let own = result.configs.iter().filter(|config| config.config_source == OWN);
        let own = own.map(|config| format!("{}={}", config.name, config.value.as_deref().unwrap_or_default())).collect::<Vec<_>>();
        configs.insert(result.resource_name, own.join(","));
    }
    let mut lines = Vec::new();
    for topic in found {
        let replicas = topic.partitions.first().map_or(0, |partition| partition.replica_nodes.len());
        lines.push(format!(
            "Topic: {}\tTopicId: {}\tPartitionCount: {}\tReplicationFactor: {replicas}\tConfigs: {}",
            name(topic),
            topic.topic_id,
            topic.partitions.len(),
            configs.get(name(topic)).map_or("", String::as_str)
        ));
        let mut partitions: Vec<&MetadataResponsePartition> = topic.partitions.iter().collect();
        partitions.sort_by_key(|partition| partition.partition_index);
        lines.extend(partitions.into_iter().map(|partition| line_of(name(topic), partition)));
    }
    Ok(lines)
}

fn line_of(topic: &str, partition: &MetadataResponsePartition) -> String {
    let ids = |nodes: &[i32]| nodes.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    let leader = if partition.leader_id < 0 { "none".to_string() } else { partition.leader_id.to_string() };
    let (replicas, in_sync) = (ids(&partition.replica_nodes), ids(&partition.isr_nodes));
    format!(
        "\tTopic: {topic}\tPartition: {}\tLeader: {leader}\tReplicas: {replicas}\tIsr: {in_sync}\tElr: \tLastKnownElr: ",
        partition.partition_index
    )
}
