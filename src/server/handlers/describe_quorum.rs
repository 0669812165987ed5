//! DescribeQuorum: returns the voters of the metadata and how far they are (KIP-595).

use crate::cluster::METADATA_TOPIC;
use crate::protocol::ErrorCode;
use crate::protocol::generated::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, Node, PartitionResponse, ReplicaState, TopicResponse,
};
use crate::server::dispatch::Call;

/// The id in place of an unknown leader.
const NO_LEADER: i32 = -1;

pub(in crate::server) async fn handle(call: Call<DescribeQuorumRequest>) -> DescribeQuorumResponse {
    let services = &call.caller.services;
    // Kafka answers for this partition alone, and for it only if nothing else is asked for.
    let is_quorum = match call.request.topics.as_slice() {
        [topic] => topic.topic_name == METADATA_TOPIC && topic.partitions.iter().map(|p| p.partition_index).eq([0]),
        _ => false,
    };
    if !is_quorum {
        let topics = call.request.topics.iter().map(|topic| TopicResponse {
            topic_name: topic.topic_name.clone(),
            partitions: topic.partitions.iter().map(|partition| unknown(partition.partition_index)).collect(),
        });
        return DescribeQuorumResponse { topics: topics.collect(), ..Default::default() };
    }
    let (quorum, now_ms) = (services.quorum.state(), services.env.clock.wall_ms());
    let voter = |id: i32| ReplicaState {
        replica_id: id,
        log_end_offset: quorum.log_end,
        last_fetch_timestamp: now_ms,
        last_caught_up_timestamp: now_ms,
        ..Default::default()
    };
    let partition = PartitionResponse {
        leader_id: quorum.leader.unwrap_or(NO_LEADER),
        leader_epoch: quorum.epoch,
        high_watermark: quorum.high_watermark,
        current_voters: quorum.voters.iter().map(|id| voter(*id)).collect(),
        ..Default::default()
    };
    let nodes = quorum.voters.iter().map(|id| Node { node_id: *id, ..Default::default() });
    let topic = TopicResponse { topic_name: METADATA_TOPIC.into(), partitions: vec![partition] };
    DescribeQuorumResponse { topics: vec![topic], nodes: nodes.collect(), ..Default::default() }
}

fn unknown(partition_index: i32) -> PartitionResponse {
    let error_message = Some("This server does not host this topic-partition.".into());
    PartitionResponse { partition_index, error_code: ErrorCode::UnknownTopicOrPartition.code(), error_message, ..Default::default() }
}
