//! The state of a topic and a group over the Kafka protocol, for `dlog wait --bootstrap-server`.

use std::collections::BTreeMap;

use super::servers::{Server, Servers, refused};
use crate::http::{Conditions, Observed, ObservedGroup};
use crate::protocol::ErrorCode;
use crate::protocol::generated::describe_groups::DescribeGroupsRequest;
use crate::protocol::generated::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use crate::protocol::generated::offset_fetch::OffsetFetchRequest;

/// Versions that brokers since Kafka 2.8 support.
const DESCRIBE_GROUPS: i16 = 4;
const OFFSET_FETCH: i16 = 7;
const LIST_OFFSETS: i16 = 5;
/// Kafka's timestamps for the end and the start of a partition.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// The state in which Kafka describes a group that does not exist.
const DEAD: &str = "Dead";

/// What the conditions are about, as the broker sees it now.
pub(in crate::cli) async fn observe(servers: &Servers, conditions: &Conditions) -> Result<Observed, String> {
    let mut server = servers.connect().await?;
    let topic = conditions.topic.as_deref();
    let has_topic = if let Some(topic) = topic { !partitions(&mut server, &[topic]).await?.is_empty() } else { false };
    let Some(group) = conditions.group.as_deref() else { return Ok(Observed { has_topic, group: Ok(None) }) };
    let described = server.call(&DescribeGroupsRequest { groups: vec![group.into()], ..Default::default() }, DESCRIBE_GROUPS).await?;
    let found = described.groups.into_iter().next().ok_or("the response does not have the group")?;
    if let Err(error) = refused(found.error_code, found.error_message.as_deref()) {
        return Ok(Observed { has_topic, group: Err(error) });
    }
    if found.group_state == DEAD {
        return Ok(Observed { has_topic, group: Ok(None) });
    }
    let lag = if conditions.lag.is_some() { lag(&mut server, group, topic).await } else { Ok(None) };
    let group = lag.map(|lag| Some(ObservedGroup { state: found.group_state, members: found.members.len(), lag }));
    Ok(Observed { has_topic, group })
}

/// The partitions of the topics that exist.
async fn partitions(server: &mut Server, topics: &[&str]) -> Result<BTreeMap<String, Vec<i32>>, String> {
    let found = server.metadata(Some(topics), false).await?.topics;
    let missing = ErrorCode::UnknownTopicOrPartition.code();
    let found = found.into_iter().filter(|topic| topic.error_code != missing);
    found
        .map(|topic| {
            refused(topic.error_code, None)?;
            let partitions = topic.partitions.iter().map(|partition| partition.partition_index).collect();
            Ok((topic.name.unwrap_or_default(), partitions))
        })
        .collect()
}

/// The lag of a group in records, for one topic, or for all topics that it has committed offsets for. A partition without a committed offset counts
/// from its start. `None` if the group has not committed any offset.
async fn lag(server: &mut Server, group: &str, topic: Option<&str>) -> Result<Option<i64>, String> {
    let request = OffsetFetchRequest { group_id: group.into(), topics: None, ..Default::default() };
    let fetched = server.call(&request, OFFSET_FETCH).await?;
    refused(fetched.error_code, None)?;
    let mut committed: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for topic in &fetched.topics {
        let offsets = topic.partitions.iter().filter(|partition| partition.committed_offset >= 0);
        committed.extend(offsets.map(|partition| ((topic.name.as_str(), partition.partition_index), partition.committed_offset)));
    }
    if committed.is_empty() {
        return Ok(None);
    }
    let mut names: Vec<&str> = topic.map_or_else(|| committed.keys().map(|(name, _)| *name).collect(), |topic| vec![topic]);
    names.dedup();
    let partitions = partitions(server, &names).await?;
    let (ends, starts) = (offsets(server, &partitions, LATEST).await?, offsets(server, &partitions, EARLIEST).await?);
    let lag_of = |((topic, partition), end): (&(String, i32), &i64)| {
        let start = || starts.get(&(topic.clone(), *partition)).copied();
        let from = committed.get(&(topic.as_str(), *partition)).copied().or_else(start).unwrap_or_default();
        end.saturating_sub(from).max(0)
    };
    Ok(Some(ends.iter().map(lag_of).sum()))
}

async fn offsets(
    server: &mut Server,
    partitions: &BTreeMap<String, Vec<i32>>,
    timestamp: i64,
) -> Result<BTreeMap<(String, i32), i64>, String> {
    let of_partition = |index: &i32| ListOffsetsPartition { partition_index: *index, timestamp, ..Default::default() };
    let topics =
        partitions.iter().map(|(name, all)| ListOffsetsTopic { name: name.clone(), partitions: all.iter().map(of_partition).collect() });
    let answer = server.call(&ListOffsetsRequest { replica_id: -1, topics: topics.collect(), ..Default::default() }, LIST_OFFSETS).await?;
    let each =
        answer.topics.into_iter().flat_map(|topic| topic.partitions.into_iter().map(move |partition| (topic.name.clone(), partition)));
    each.map(|(topic, partition)| refused(partition.error_code, None).map(|()| ((topic, partition.partition_index), partition.offset)))
        .collect()
}
