//! ListPartitionReassignments: returns partitions whose replicas are being moved. With one broker there is no other place to move to, so there are
//! none.

use crate::protocol::generated::list_partition_reassignments::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};
use crate::server::dispatch::Call;

pub(in crate::server) async fn handle(_: Call<ListPartitionReassignmentsRequest>) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}
