//! WriteTxnMarkers: ends transactions in partitions, regardless of their coordinator. Kafka's tools use it to end hanging transactions (KIP-664).

use crate::model::{ProducerEpoch, ProducerId, TopicPartition};
use crate::protocol::ErrorCode;
use crate::protocol::generated::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult, WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
};
use crate::records::{EpochRule, Marker, TransactionResult};
use crate::server::dispatch::Call;
use crate::server::errors;
use crate::server::services::Services;

/// The level of `transaction.version` from which a marker contains a new epoch.
const GROWS_FROM: i8 = 2;

pub(in crate::server) async fn handle(call: Call<WriteTxnMarkersRequest>) -> WriteTxnMarkersResponse {
    let mut markers = Vec::with_capacity(call.request.markers.len());
    // Kafka does not include markers without topics in the response.
    for marker in call.request.markers.iter().filter(|marker| !marker.topics.is_empty()) {
        markers.push(write(&call.caller.services, marker).await);
    }
    WriteTxnMarkersResponse { markers }
}

async fn write(services: &Services, wanted: &WritableTxnMarker) -> WritableTxnMarkerResult {
    let marker = Marker {
        producer_id: ProducerId(wanted.producer_id),
        producer_epoch: ProducerEpoch(wanted.producer_epoch),
        result: if wanted.transaction_result { TransactionResult::Commit } else { TransactionResult::Abort },
        coordinator_epoch: wanted.coordinator_epoch,
    };
    let rule = if wanted.transaction_version >= GROWS_FROM { EpochRule::Grows } else { EpochRule::Stays };
    let mut topics = Vec::with_capacity(wanted.topics.len());
    for topic in &wanted.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for number in &topic.partition_indexes {
            let id = TopicPartition::new(topic.name.as_str(), *number);
            let written = match marker.producer_epoch {
                // If a negative epoch were stored, later markers of its producer could not be distinguished from older ones.
                ProducerEpoch(..0) => Err(ErrorCode::InvalidProducerEpoch),
                _ => services.transactions.write_marker(&id, &marker, rule),
            };
            let error = match written {
                Ok(Some((replica, position))) => {
                    let committed = replica.committed(position).await;
                    committed.map_or_else(|error| errors::of_partition(&error), |()| ErrorCode::None)
                }
                Ok(None) => ErrorCode::UnknownTopicOrPartition,
                Err(error) => error,
            };
            partitions.push(WritableTxnMarkerPartitionResult { partition_index: *number, error_code: error.code() });
        }
        topics.push(WritableTxnMarkerTopicResult { name: topic.name.clone(), partitions });
    }
    WritableTxnMarkerResult { producer_id: wanted.producer_id, topics }
}
