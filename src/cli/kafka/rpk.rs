//! Commands of Redpanda's `rpk` that health checks and start scripts call: `rpk cluster health`, `rpk cluster info`, `rpk topic create`, `rpk topic list`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::servers::{Server, Servers, refused};
use crate::cli::block_on::block_on;
use crate::cli::commands::key_value;
use crate::protocol::generated::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use crate::protocol::generated::metadata::{MetadataResponse, MetadataResponseTopic};

/// The version of CreateTopics that brokers since Kafka 2.8 support.
const CREATE: i16 = 7;
const TIMEOUT_MS: i32 = 30_000;
/// Between two checks of a cluster that is not healthy.
const AGAIN: Duration = Duration::from_millis(500);

/// The brokers to ask.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Brokers {
    /// Brokers to connect to, as host:port, separated by commas.
    #[arg(
        short,
        long,
        visible_alias = "bootstrap-server",
        global = true,
        value_name = "SERVERS",
        env = "RPK_BROKERS",
        default_value = "127.0.0.1:9092"
    )]
    brokers: String,
    /// A setting of rpk; only brokers=SERVERS has an effect.
    #[arg(short = 'X', global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    setting: Vec<(String, String)>,
    /// Accepted as by rpk, without effect.
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long, global = true, hide = true, value_name = "NAME")]
    profile: Option<String>,
    #[arg(long, global = true, hide = true)]
    ignore_profile: bool,
    #[arg(short, long, global = true, hide = true)]
    verbose: bool,
}

impl Brokers {
    fn servers(&self) -> Servers {
        let named = self.setting.iter().rev().find(|(key, _)| key == "brokers" || key == "kafka_api.brokers").map(|(_, value)| value);
        Servers::at(named.unwrap_or(&self.brokers))
    }
}

/// `rpk cluster`.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum Cluster {
    /// Print whether all brokers are up and all partitions have a leader.
    Health {
        /// Wait until the cluster is healthy.
        #[arg(short, long)]
        exit_when_healthy: bool,
        #[command(flatten)]
        brokers: Brokers,
    },
    /// Print brokers and topics.
    #[command(visible_aliases = ["metadata", "status"])]
    Info {
        #[command(flatten)]
        brokers: Brokers,
    },
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

impl Cluster {
    /// The words of a command that is not served.
    pub(in crate::cli) fn not_served(&self) -> Option<&[OsString]> {
        if let Cluster::Other(words) = self { Some(words) } else { None }
    }
}

/// `rpk topic`.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum Topic {
    /// Create topics.
    Create {
        /// Their names.
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
        /// Partitions of each topic; -1 is the default of the broker.
        #[arg(short, long, value_name = "COUNT", default_value_t = -1, allow_negative_numbers = true)]
        partitions: i32,
        /// Replicas of each partition; -1 is the default of the broker.
        #[arg(short, long, value_name = "COUNT", default_value_t = -1, allow_negative_numbers = true)]
        replicas: i16,
        /// A topic setting; can be repeated.
        #[arg(short = 'c', long, value_name = "KEY=VALUE", value_parser = key_value)]
        topic_config: Vec<(String, String)>,
        /// Do not fail if a topic exists.
        #[arg(long)]
        if_not_exists: bool,
        #[command(flatten)]
        brokers: Brokers,
    },
    /// List topics.
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        brokers: Brokers,
    },
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

impl Topic {
    /// The words of a command that is not served.
    pub(in crate::cli) fn not_served(&self) -> Option<&[OsString]> {
        if let Topic::Other(words) = self { Some(words) } else { None }
    }
}

/// Runs `rpk cluster ...`.
pub(in crate::cli) fn cluster(command: &Cluster) -> Result<(), String> {
    match command {
        Cluster::Info { brokers } => {
            let found = block_on(async { all(&mut brokers.servers().connect().await?).await })?;
            info(&found).iter().for_each(|line| println!("{line}"));
            Ok(())
        }
        Cluster::Health { exit_when_healthy, brokers } => loop {
            let found = block_on(async { all(&mut brokers.servers().connect().await?).await });
            let is_healthy = found.as_ref().is_ok_and(|found| leaderless(found).is_empty() && !found.brokers.is_empty());
            if is_healthy || !exit_when_healthy {
                health(&found?).iter().for_each(|line| println!("{line}"));
                return Ok(());
            }
            std::thread::sleep(AGAIN);
        },
        // The caller reports it.
        Cluster::Other(_) => Ok(()),
    }
}

/// Runs `rpk topic ...`; an error names the first topic that could not be created.
pub(in crate::cli) fn topic(command: &Topic) -> Result<(), String> {
    match command {
        Topic::List { brokers } => {
            let found = block_on(async { all(&mut brokers.servers().connect().await?).await })?;
            topics(&found).iter().for_each(|line| println!("{line}"));
            Ok(())
        }
        Topic::Create { topics, partitions, replicas, topic_config, if_not_exists, brokers } => {
            let configs = topic_config.iter().map(|(name, value)| CreatableTopicConfig { name: name.clone(), value: Some(value.clone()) });
            let configs: Vec<_> = configs.collect();
            let one = |name: &String| CreatableTopic {
                name: name.clone(),
                num_partitions: *partitions,
                replication_factor: *replicas,
                configs: configs.clone(),
                ..Default::default()
            };
            let request = CreateTopicsRequest { topics: topics.iter().map(one).collect(), timeout_ms: TIMEOUT_MS, ..Default::default() };
            let answer = block_on(async { brokers.servers().connect().await?.call(&request, CREATE).await })?;
            println!("TOPIC  STATUS");
            let mut outcome = Ok(());
            for result in &answer.topics {
                let exists = result.error_code == crate::protocol::ErrorCode::TopicAlreadyExists.code() && *if_not_exists;
                let created = if exists { Ok(()) } else { refused(result.error_code, result.error_message.as_deref()) };
                println!("{}  {}", result.name, created.as_ref().map_or_else(String::as_str, |()| "OK"));
                outcome = outcome.and(created.map_err(|what| format!("topic {}: {what}", result.name)));
            }
            outcome
        }
        // The caller reports it.
        Topic::Other(_) => Ok(()),
    }
}

async fn all(server: &mut Server) -> Result<MetadataResponse, String> {
    let mut found = server.metadata(None, false).await?;
    found.topics.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn name(topic: &MetadataResponseTopic) -> &str {
    topic.name.as_deref().unwrap_or_default()
}

/// Partitions without a leader.
fn leaderless(found: &MetadataResponse) -> Vec<String> {
    let of = |topic: &MetadataResponseTopic| {
        let without = topic.partitions.iter().filter(|partition| partition.leader_id < 0);
        without.map(|partition| format!("{}/{}", name(topic), partition.partition_index)).collect::<Vec<_>>()
    };
    found.topics.iter().flat_map(of).collect()
}

/// Partitions with replicas that are not in sync.
fn under_replicated(found: &MetadataResponse) -> Vec<String> {
    let of = |topic: &MetadataResponseTopic| {
        let behind = topic.partitions.iter().filter(|partition| partition.isr_nodes.len() < partition.replica_nodes.len());
        behind.map(|partition| format!("{}/{}", name(topic), partition.partition_index)).collect::<Vec<_>>()
    };
    found.topics.iter().flat_map(of).collect()
}

fn health(found: &MetadataResponse) -> Vec<String> {
    let (leaderless, behind) = (leaderless(found), under_replicated(found));
    let reasons: &[&str] = if leaderless.is_empty() { &[] } else { &["leaderless_partitions"] };
    let nodes: Vec<String> = found.brokers.iter().map(|broker| broker.node_id.to_string()).collect();
    let line = |title: &str, value: String| format!("{title:<34}{value}");
    vec![
        "CLUSTER HEALTH OVERVIEW".to_string(),
        "=======================".to_string(),
        line("Healthy:", leaderless.is_empty().to_string()),
        line("Unhealthy reasons:", format!("[{}]", reasons.join(" "))),
        line("Controller ID:", found.controller_id.to_string()),
        line("All nodes:", format!("[{}]", nodes.join(" "))),
        line("Nodes down:", "[]".to_string()),
        line(&format!("Leaderless partitions ({}):", leaderless.len()), format!("[{}]", leaderless.join(" "))),
        line(&format!("Under-replicated partitions ({}):", behind.len()), format!("[{}]", behind.join(" "))),
    ]
}

fn info(found: &MetadataResponse) -> Vec<String> {
    let mut lines = vec!["CLUSTER".to_string(), "=======".to_string(), found.cluster_id.clone().unwrap_or_default(), String::new()];
    lines.extend(["BROKERS".to_string(), "=======".to_string()]);
    let star = |id: i32| if id == found.controller_id { format!("{id}*") } else { id.to_string() };
    let rows = found.brokers.iter().map(|broker| [star(broker.node_id), broker.host.clone(), broker.port.to_string()]);
    lines.extend(table(["ID", "HOST", "PORT"], rows.collect()));
    if !found.topics.is_empty() {
        lines.extend([String::new(), "TOPICS".to_string(), "======".to_string()]);
        lines.extend(topics(found));
    }
    lines
}

fn topics(found: &MetadataResponse) -> Vec<String> {
    let shown = found.topics.iter().filter(|topic| !topic.is_internal);
    let replicas = |topic: &MetadataResponseTopic| topic.partitions.first().map_or(0, |partition| partition.replica_nodes.len());
    let row = |topic: &MetadataResponseTopic| [name(topic).to_string(), topic.partitions.len().to_string(), replicas(topic).to_string()];
    table(["NAME", "PARTITIONS", "REPLICAS"], shown.map(row).collect())
}

/// Lines with columns of one width.
fn table(titles: [&str; 3], rows: Vec<[String; 3]>) -> Vec<String> {
    let all: Vec<[String; 3]> = std::iter::once(titles.map(str::to_string)).chain(rows).collect();
    let width = |of: fn(&[String; 3]) -> &String| all.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
    let (first, second) = (width(|[a, ..]| a), width(|[_, b, _]| b));
    all.iter().map(|[a, b, c]| format!("{a:<first$}  {b:<second$}  {c}")).collect()
}
