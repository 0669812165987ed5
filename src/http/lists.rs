//! `/v1/brokers`, `/v1/topics` and `/v1/groups`: paginated lists.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::Pages;
use crate::cluster::TopicImage;
use crate::coordinator::GroupView;
use crate::model::is_internal_topic;
use crate::protocol::generated::cluster_metadata::RegisterBrokerRecord;

/// The default number of entries per page, and the maximum.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// The requested page of a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// The last name of the previous page.
    after: Option<String>,
    limit: Option<usize>,
}

impl Page {
    fn limit(&self) -> Result<usize, String> {
        match self.limit.unwrap_or(PAGE) {
            limit @ 1..=PAGE_MAX => Ok(limit),
            other => Err(format!("limit={other} must be 1 to {PAGE_MAX}")),
        }
    }

    /// A page with the first entries.
    pub(super) fn first(limit: usize) -> Page {
        Page { after: None, limit: Some(limit) }
    }
}

/// This broker and the others.
#[derive(Debug, Serialize)]
pub(super) struct Brokers {
    pub(super) cluster_id: String,
    pub(super) brokers: Vec<BrokerEntry>,
}

#[derive(Debug, Serialize)]
pub(super) struct BrokerEntry {
    pub(super) node_id: i32,
    /// Whether this broker serves the request. For other brokers only the id is known here.
    pub(super) is_this: bool,
    pub(super) version: Option<&'static str>,
    pub(super) http: Option<String>,
    pub(super) listeners: Vec<ListenerEntry>,
}

#[derive(Debug, Serialize)]
pub(super) struct ListenerEntry {
    pub(super) name: String,
    pub(super) address: String,
    /// The advertised address; none if each client gets the address that it connected to.
    pub(super) advertised: Option<String>,
}

/// A page of topics.
#[derive(Debug, Serialize)]
pub(super) struct Topics {
    pub(super) topics: Vec<TopicEntry>,
    /// Topics on all pages.
    pub(super) count: usize,
    /// `after` of the next page; none on the last.
    pub(super) next: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct TopicEntry {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) is_internal: bool,
    pub(super) partitions: usize,
    pub(super) replication_factor: usize,
    /// Offsets from the log start to the high watermark, of all partitions; compaction and transaction markers make this more than the records.
    pub(super) offsets: i64,
    /// Bytes of this broker's replicas on disk.
    pub(super) bytes: u64,
}

/// A topic with its partitions.
#[derive(Debug, Serialize)]
struct TopicDetail {
    name: String,
    id: String,
    configs: std::collections::BTreeMap<String, String>,
    partitions: Vec<PartitionEntry>,
    count: usize,
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct PartitionEntry {
    partition: usize,
    leader: i32,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    /// The log of this broker's replica; none if it has no replica or the replica's directory is offline.
    log: Option<LogEntry>,
}

#[derive(Debug, Serialize)]
struct LogEntry {
    log_start: i64,
    high_watermark: i64,
    log_end: i64,
    bytes: u64,
    segments: usize,
}

/// A page of groups.
#[derive(Debug, Serialize)]
pub(super) struct Groups {
    pub(super) groups: Vec<GroupEntry>,
    /// Groups on all pages.
    pub(super) count: usize,
    /// `after` of the next page; none on the last.
    pub(super) next: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct GroupEntry {
    pub(super) group: String,
    pub(super) state: &'static str,
    pub(super) protocol_type: String,
    pub(super) members: usize,
    /// The lag in records, over all topics that the group has committed offsets for.
    pub(super) lag: i64,
    pub(super) topics: Vec<GroupTopic>,
}

#[derive(Debug, Serialize)]
pub(super) struct GroupTopic {
    pub(super) topic: String,
    pub(super) lag: i64,
}

pub(super) async fn brokers(State(pages): State<Pages>) -> Json<Brokers> {
    Json(brokers_of(&pages))
}

pub(super) async fn topics(State(pages): State<Pages>, page: Result<Query<Page>, QueryRejection>) -> Response {
    answer(page, |page| topics_of(&pages, page))
}

pub(super) async fn topic(State(pages): State<Pages>, Path(name): Path<String>, page: Result<Query<Page>, QueryRejection>) -> Response {
    let Some(topic) = pages.cluster.image().topic(&name).cloned() else {
        return (StatusCode::NOT_FOUND, format!("there is no topic {name}\n")).into_response();
    };
    answer(page, |page| topic_of(&pages, &topic, page))
}

pub(super) async fn groups(State(pages): State<Pages>, page: Result<Query<Page>, QueryRejection>) -> Response {
    match pages.groups.list() {
        Ok(all) => answer(page, |page| groups_of(&pages, all, page)),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the groups are not loaded yet\n").into_response(),
    }
}

fn answer<T: Serialize>(page: Result<Query<Page>, QueryRejection>, of: impl FnOnce(&Page) -> Result<T, String>) -> Response {
    match page.map_err(|e| e.body_text()).and_then(|Query(page)| of(&page)) {
        Ok(found) => Json(found).into_response(),
        Err(what) => (StatusCode::BAD_REQUEST, format!("{what}\n")).into_response(),
    }
}

pub(super) fn brokers_of(pages: &Pages) -> Brokers {
    let listener = |(name, address): &(String, std::net::SocketAddr)| ListenerEntry {
        name: name.clone(),
        address: address.to_string(),
        advertised: pages.advertised.iter().find(|(of, _)| of == name).map(|(_, address)| address.clone()),
    };
    let entry = |broker: &RegisterBrokerRecord| {
        let is_this = broker.broker_id == pages.node_id;
        BrokerEntry {
            node_id: broker.broker_id,
            is_this,
            version: is_this.then_some(env!("CARGO_PKG_VERSION")),
            http: is_this.then(|| pages.http.to_string()),
            listeners: pages.listeners.iter().filter(|_| is_this).map(listener).collect(),
        }
    };
    Brokers { cluster_id: pages.cluster_id.clone(), brokers: pages.cluster.image().brokers().map(entry).collect() }
}

pub(super) fn topics_of(pages: &Pages, page: &Page) -> Result<Topics, String> {
    let (image, limit) = (pages.cluster.image(), page.limit()?);
    let mut topics = Vec::new();
    let mut rest = image.topics().filter(|topic| page.after.as_deref().is_none_or(|after| &*topic.name > after));
    for topic in rest.by_ref().take(limit) {
        topics.push(topic_entry(pages, topic));
    }
    let next = rest.next().and(topics.last()).map(|last| last.name.clone());
    Ok(Topics { topics, count: image.topic_count(), next })
}

fn topic_entry(pages: &Pages, topic: &TopicImage) -> TopicEntry {
    let (mut offsets, mut bytes) = (0, 0);
    for number in 0..topic.partitions.len() as i32 {
        let Some(replica) = pages.partitions.get(&topic.name, number) else { continue };
        let view = replica.view();
        offsets += view.high_watermark.0 - view.log_start.0;
        bytes += replica.size();
    }
    TopicEntry {
        name: topic.name.to_string(),
        id: topic.id.to_string(),
        is_internal: is_internal_topic(&topic.name),
        partitions: topic.partitions.len(),
        replication_factor: topic.partitions.first().map_or(0, |partition| partition.replicas.len()),
        offsets,
        bytes,
    }
}

fn topic_of(pages: &Pages, topic: &TopicImage, page: &Page) -> Result<TopicDetail, String> {
    let limit = page.limit()?;
    let number = |after: &String| after.parse::<usize>().map_err(|_| format!("after={after} must be the number of a partition"));
    let from = page.after.as_ref().map(number).transpose()?.map_or(0, |after| after.saturating_add(1));
    let log = |number: usize| {
        let replica = pages.partitions.get(&topic.name, number as i32)?;
        let view = replica.view();
        let (bytes, segments) = (replica.size(), replica.segment_count());
        Some(LogEntry { log_start: view.log_start.0, high_watermark: view.high_watermark.0, log_end: view.log_end.0, bytes, segments })
    };
    let partitions: Vec<PartitionEntry> = topic
        .partitions
        .iter()
        .enumerate()
        .skip(from)
        .take(limit)
        .map(|(number, partition)| PartitionEntry {
            partition: number,
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            replicas: partition.replicas.clone(),
            isr: partition.isr.clone(),
            log: log(number),
        })
        .collect();
    let count = topic.partitions.len();
    let next = partitions.last().filter(|last| last.partition + 1 < count).map(|last| last.partition.to_string());
    Ok(TopicDetail { name: topic.name.to_string(), id: topic.id.to_string(), configs: topic.configs.clone(), partitions, count, next })
}

pub(super) fn groups_of(pages: &Pages, mut all: Vec<GroupView>, page: &Page) -> Result<Groups, String> {
    let limit = page.limit()?;
    all.sort_by(|a, b| a.id.cmp(&b.id));
    let count = all.len();
    let mut rest = all.into_iter().filter(|group| page.after.as_ref().is_none_or(|after| group.id > *after));
    let groups: Vec<GroupEntry> = rest.by_ref().take(limit).map(|group| group_entry(pages, group)).collect();
    let next = rest.next().and(groups.last()).map(|last| last.group.clone());
    Ok(Groups { groups, count, next })
}

fn group_entry(pages: &Pages, group: GroupView) -> GroupEntry {
    // The list may have fewer members than the description.
    let members = pages.groups.describe(&group.id).ok().flatten().map_or(group.members.len(), |view| view.members.len());
    let lag_of = |topic: &str, number: i32, committed: i64| {
        pages.partitions.get(topic, number).map_or(0, |replica| (replica.view().high_watermark.0 - committed).max(0))
    };
    let committed = pages.groups.all_committed(&group.id).unwrap_or_default();
    let topics: Vec<GroupTopic> = committed
        .into_iter()
        .map(|(topic, offsets)| {
            let lag = offsets.iter().map(|(number, committed)| lag_of(&topic, *number, committed.offset)).sum();
            GroupTopic { topic, lag }
        })
        .collect();
    let lag = topics.iter().map(|topic| topic.lag).sum();
    GroupEntry { group: group.id, state: group.state.name(), protocol_type: group.protocol_type, members, lag, topics }
}
