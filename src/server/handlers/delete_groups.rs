//! DeleteGroups: deletes groups without members, with their offsets.

use std::collections::BTreeSet;

use crate::protocol::ErrorCode;
use crate::protocol::generated::delete_groups::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};
use crate::server::dispatch::Call;

pub(in crate::server) async fn handle(call: Call<DeleteGroupsRequest>) -> DeleteGroupsResponse {
    // A group that is listed twice is deleted and answered once, as in Kafka.
    let names: BTreeSet<String> = call.request.groups_names.into_iter().collect();
    let mut results = Vec::with_capacity(names.len());
    for group_id in names {
        let error = call.caller.services.groups.delete(&group_id).await.err().unwrap_or(ErrorCode::None);
        results.push(DeletableGroupResult { group_id, error_code: error.code() });
    }
    DeleteGroupsResponse { results, ..Default::default() }
}
