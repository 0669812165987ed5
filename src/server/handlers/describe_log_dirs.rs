//! DescribeLogDirs: where partitions lie and how big they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::partition::Replica;
use crate::protocol::ErrorCode;
use crate::protocol::generated::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use crate::server::dispatch::Call;

pub(in crate::server) async fn handle(call: Call<DescribeLogDirsRequest>) -> DescribeLogDirsResponse {
    let services = &call.caller.services;
    let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for replica in asked_for(&call) {
        let (partition_index, partition_size) = (replica.id().partition, replica.size() as i64);
        let partition = DescribeLogDirsPartition { partition_index, partition_size, offset_lag: 0, is_future_key: false };
        topics.entry(replica.id().topic.to_string()).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_by_key(|p| p.partition_index);
        DescribeLogDirsTopic { name, partitions }
    });
    let directory = services.partitions.directory();
    let log_dir = std::path::absolute(directory.path()).unwrap_or_else(|_| directory.path().to_path_buf()).display().to_string();
    let result = match directory.space() {
        Ok((total, usable)) if !services.partitions.is_offline() => DescribeLogDirsResult {
            log_dir,
            topics: topics.collect(),
            total_bytes: i64::try_from(total).unwrap_or(i64::MAX),
            usable_bytes: i64::try_from(usable).unwrap_or(i64::MAX),
            ..Default::default()
        },
        _ => DescribeLogDirsResult { error_code: ErrorCode::KafkaStorageError.code(), log_dir, ..Default::default() },
    };
    DescribeLogDirsResponse { results: vec![result], ..Default::default() }
}

/// All replicas, or those named; one that is named twice counts once, and one that is not here not at all.
fn asked_for(call: &Call<DescribeLogDirsRequest>) -> Vec<Arc<Replica>> {
    let partitions = &call.caller.services.partitions;
    match &call.request.topics {
        None => partitions.all(),
        Some(topics) => {
            let named: BTreeSet<(&str, i32)> =
                topics.iter().flat_map(|t| t.partitions.iter().map(|number| (t.topic.as_str(), *number))).collect();
            named.into_iter().filter_map(|(topic, number)| partitions.get(topic, number)).collect()
        }
    }
}
