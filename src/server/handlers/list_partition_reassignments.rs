//! ListPartitionReassignments: partitions whose replicas are being moved. On one broker there is nowhere to move to, and so there are none.

use crate::protocol::generated::list_partition_reassignments::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};
use crate::server::dispatch::Call;

pub(in crate::server) async fn handle(_: Call<ListPartitionReassignmentsRequest>) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}
