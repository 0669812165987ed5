//! DescribeLogDirs: returns the directories of partitions and their sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::partition::{DirectoryView, Replica};
use crate::protocol::ErrorCode;
use crate::protocol::generated::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use crate::server::dispatch::Call;

pub(in crate::server) async fn handle(call: Call<DescribeLogDirsRequest>) -> DescribeLogDirsResponse {
    let services = &call.caller.services;
    let asked_for = asked_for(&call);
    let results = services.partitions.directories().into_iter().map(|directory| describe(directory, asked_for.as_ref())).collect();
    DescribeLogDirsResponse { results, ..Default::default() }
}

fn describe(directory: DirectoryView, asked_for: Option<&BTreeSet<(&str, i32)>>) -> DescribeLogDirsResult {
    let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    let is_asked_for = |r: &&Arc<Replica>| asked_for.is_none_or(|named| named.contains(&(&*r.id().topic, r.id().partition)));
    for replica in directory.replicas.iter().filter(is_asked_for) {
        let (partition_index, partition_size) = (replica.id().partition, replica.size() as i64);
        let partition = DescribeLogDirsPartition { partition_index, partition_size, offset_lag: 0, is_future_key: false };
        topics.entry(replica.id().topic.to_string()).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_by_key(|p| p.partition_index);
        DescribeLogDirsTopic { name, partitions }
    });
    let log_dir = std::path::absolute(&directory.path).unwrap_or(directory.path).display().to_string();
    if directory.is_offline {
        return DescribeLogDirsResult { error_code: ErrorCode::KafkaStorageError.code(), log_dir, ..Default::default() };
    }
    // If the system does not report sizes, the response contains its default of -1.
    let unknown = DescribeLogDirsResult::default();
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let (total_bytes, usable_bytes) = match directory.space {
        Some((total, usable)) => (bytes(total), bytes(usable)),
        None => (unknown.total_bytes, unknown.usable_bytes),
    };
    DescribeLogDirsResult { log_dir, topics: topics.collect(), total_bytes, usable_bytes, ..Default::default() }
}

/// The requested partitions; none means all.
fn asked_for(call: &Call<DescribeLogDirsRequest>) -> Option<BTreeSet<(&str, i32)>> {
    let topics = call.request.topics.as_ref()?;
    Some(topics.iter().flat_map(|t| t.partitions.iter().map(|number| (t.topic.as_str(), *number))).collect())
}
