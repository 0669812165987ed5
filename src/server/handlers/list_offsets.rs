//! ListOffsets: returns offsets by timestamp or by special position.

use crate::model::Offset;
use crate::partition::{Error, FoundOffset, Isolation, Replica};
use crate::protocol::ErrorCode;
use crate::protocol::generated::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use crate::server::dispatch::Call;
use crate::server::errors;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const LARGEST_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// The first version that supports a special timestamp.
fn special_from(timestamp: i64) -> i16 {
    match timestamp {
        LATEST | EARLIEST => 1,
        LARGEST_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        other if other >= 0 => 1,
        _ => i16::MAX,
    }
}

pub(in crate::server) async fn handle(call: Call<ListOffsetsRequest>) -> ListOffsetsResponse {
    let version = call.version;
    let services = call.caller.services.clone();
    // A search by time reads from disk and may decompress.
    let workers = services.env.workers.clone();
    let topics = workers.blocking(move || {
        let isolation = if call.request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
        let topic = |topic: &crate::protocol::generated::list_offsets::ListOffsetsTopic| {
            let twice =
                |p: &ListOffsetsPartition| topic.partitions.iter().filter(|other| other.partition_index == p.partition_index).count() > 1;
            let one = |p: &ListOffsetsPartition| {
                let found = if twice(p) {
                    Err(ErrorCode::InvalidRequest)
                } else if version < special_from(p.timestamp) {
                    Err(ErrorCode::UnsupportedVersion)
                } else {
                    let replica = services.partitions.find(&topic.name, p.partition_index);
                    replica.and_then(|replica| find(&replica, p, isolation)).map_err(|e| errors::of_partition(&e))
                };
                answer(p.partition_index, found)
            };
            ListOffsetsTopicResponse { name: topic.name.clone(), partitions: topic.partitions.iter().map(one).collect() }
        };
        call.request.topics.iter().map(topic).collect()
    });
    ListOffsetsResponse { topics: topics.await.unwrap_or_default(), ..Default::default() }
}

/// The offset, its timestamp (-1 where it has none) and its epoch.
type Found = Option<(Offset, i64, i32)>;

fn find(replica: &Replica, p: &ListOffsetsPartition, isolation: Isolation) -> Result<Found, Error> {
    replica.check_epoch(p.current_leader_epoch)?;
    let view = replica.view();
    let epoch = view.leader_epoch.0;
    let end = view.end_for(isolation);
    let record = |found: FoundOffset| (found.offset < end).then_some((found.offset, found.timestamp_ms, found.leader_epoch.0));
    Ok(match p.timestamp {
        LATEST => Some((end, -1, epoch)),
        EARLIEST | EARLIEST_LOCAL => Some((view.log_start, -1, epoch)),
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => None,
        LARGEST_TIMESTAMP => replica.find_largest_time()?.and_then(record),
        timestamp => replica.find_by_time(timestamp)?.and_then(record),
    })
}

fn answer(partition_index: i32, found: Result<Found, ErrorCode>) -> ListOffsetsPartitionResponse {
    let nothing = ListOffsetsPartitionResponse { partition_index, error_code: 0, timestamp: -1, offset: -1, leader_epoch: -1 };
    match found {
        Ok(Some((offset, timestamp, leader_epoch))) => {
            ListOffsetsPartitionResponse { timestamp, offset: offset.0, leader_epoch, ..nothing }
        }
        Ok(None) => nothing,
        Err(error) => ListOffsetsPartitionResponse { error_code: error.code(), ..nothing },
    }
}
