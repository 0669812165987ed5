//! OffsetForLeaderEpoch: returns the end offset of a leader epoch.

use crate::model::LeaderEpoch;
use crate::partition::Error;
use crate::protocol::generated::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use crate::server::dispatch::Call;
use crate::server::errors;

pub(in crate::server) async fn handle(call: Call<OffsetForLeaderEpochRequest>) -> OffsetForLeaderEpochResponse {
    let one = |topic: &str, p: &OffsetForLeaderPartition| {
        let nothing = EpochEndOffset { error_code: 0, partition: p.partition, leader_epoch: -1, end_offset: -1 };
        let end = || -> Result<_, Error> {
            let replica = call.caller.services.partitions.find(topic, p.partition)?;
            replica.check_epoch(p.current_leader_epoch)?;
            Ok(replica.epoch_end(LeaderEpoch(p.leader_epoch)))
        };
        match end() {
            Ok(Some((epoch, end))) => EpochEndOffset { leader_epoch: epoch.0, end_offset: end.0, ..nothing },
            // An unknown epoch has no end offset here, which is not an error: -1 and -1.
            Ok(None) => nothing,
            Err(error) => EpochEndOffset { error_code: errors::of_partition(&error).code(), ..nothing },
        }
    };
    let topics = call.request.topics.iter().map(|t| OffsetForLeaderTopicResult {
        topic: t.topic.clone(),
        partitions: t.partitions.iter().map(|p| one(&t.topic, p)).collect(),
    });
    OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() }
}
