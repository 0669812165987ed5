//! ElectLeaders: elects the preferred replica, or any live replica, as the leader.

use crate::cluster::{MetadataImage, PartitionImage};
use crate::protocol::ErrorCode;
use crate::protocol::generated::elect_leaders::{ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult};
use crate::server::dispatch::Call;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(in crate::server) async fn handle(call: Call<ElectLeadersRequest>) -> ElectLeadersResponse {
    let request = &call.request;
    if !matches!(request.election_type, PREFERRED | UNCLEAN) {
        let message = format!("There is no election type {}.", request.election_type);
        let refused = |partition_id: &i32| PartitionResult {
            partition_id: *partition_id,
            error_code: ErrorCode::InvalidRequest.code(),
            error_message: Some(message.clone()),
        };
        let topics = request
            .topic_partitions
            .iter()
            .flatten()
            .map(|t| ReplicaElectionResult { topic: t.topic.clone(), partition_result: t.partitions.iter().map(refused).collect() });
        return ElectLeadersResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            replica_election_results: topics.collect(),
            ..Default::default()
        };
    }
    let image = call.caller.services.cluster.image();
    let result = |topic: &str, partition_id: i32| {
        let (error, message) = elect(&image, topic, partition_id, request.election_type);
        PartitionResult { partition_id, error_code: error.code(), error_message: Some(message) }
    };
    let replica_election_results = match &request.topic_partitions {
        Some(topics) => topics
            .iter()
            .map(|t| ReplicaElectionResult {
                topic: t.topic.clone(),
                partition_result: t.partitions.iter().map(|number| result(&t.topic, *number)).collect(),
            })
            .collect(),
        // Every topic is in the response, with those of its partitions that required an election.
        None => {
            let needed = |topic: &str, count: usize| {
                let results = (0..count as i32).map(|number| result(topic, number));
                results.filter(|r| r.error_code != ErrorCode::ElectionNotNeeded.code()).collect::<Vec<_>>()
            };
            let topics = image
                .topics()
                .map(|t| ReplicaElectionResult { topic: t.name.to_string(), partition_result: needed(&t.name, t.partitions.len()) });
            topics.collect()
        }
    };
    ElectLeadersResponse { replica_election_results, ..Default::default() }
}

/// The result of an election. A partition has one replica, on this broker: either it is the leader, or no election can succeed.
fn elect(image: &MetadataImage, topic: &str, partition: i32, election: i8) -> (ErrorCode, String) {
    let found = image.topic(topic).and_then(|t| t.partitions.get(usize::try_from(partition).ok()?));
    match found {
        None => (ErrorCode::UnknownTopicOrPartition, format!("No such partition as {topic}-{partition}")),
        Some(PartitionImage { leader, replicas, .. }) => match election {
            PREFERRED if replicas.first() == Some(leader) => (ErrorCode::ElectionNotNeeded, "The preferred leader already leads.".into()),
            PREFERRED => (ErrorCode::PreferredLeaderNotAvailable, "The preferred leader is not available.".into()),
            _ if *leader >= 0 => (ErrorCode::ElectionNotNeeded, "The partition has a leader.".into()),
            _ => (ErrorCode::EligibleLeadersNotAvailable, "No replica can lead.".into()),
        },
    }
}
