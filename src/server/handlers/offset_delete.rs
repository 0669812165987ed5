//! OffsetDelete: deletes committed offsets of topics that no member is subscribed to (KIP-496).

use crate::protocol::ErrorCode;
use crate::protocol::generated::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use crate::server::dispatch::Call;

pub(in crate::server) async fn handle(call: Call<OffsetDeleteRequest>) -> OffsetDeleteResponse {
    let (services, request) = (&call.caller.services, &call.request);
    let image = services.cluster.image();
    let exists = |topic: &str, partition: i32| {
        image.topic(topic).is_some_and(|t| usize::try_from(partition).is_ok_and(|number| number < t.partitions.len()))
    };
    let named = request.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name.clone(), p.partition_index)));
    let there: Vec<(String, i32)> = named.filter(|(topic, partition)| exists(topic, *partition)).collect();
    let codes = match services.groups.delete_offsets(&request.group_id, &there).await {
        Ok(codes) => codes,
        Err(error) => return OffsetDeleteResponse { error_code: error.code(), ..Default::default() },
    };
    let mut codes = codes.into_iter();
    let mut one = |topic: &str, partition_index: i32| {
        let known = exists(topic, partition_index);
        let code = if known { codes.next().unwrap_or(ErrorCode::UnknownServerError) } else { ErrorCode::UnknownTopicOrPartition };
        OffsetDeleteResponsePartition { partition_index, error_code: code.code() }
    };
    let topics = request.topics.iter().map(|t| OffsetDeleteResponseTopic {
        name: t.name.clone(),
        partitions: t.partitions.iter().map(|p| one(&t.name, p.partition_index)).collect(),
    });
    OffsetDeleteResponse { topics: topics.collect(), ..Default::default() }
}
