//! DeleteGroups: groups without members go, with their offsets.

use crate::protocol::ErrorCode;
use crate::protocol::generated::delete_groups::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};
use crate::server::dispatch::Call;

pub(in crate::server) async fn handle(call: Call<DeleteGroupsRequest>) -> DeleteGroupsResponse {
    let delete = |group: String| {
        let error = call.caller.services.groups.delete(&group).err().unwrap_or(ErrorCode::None);
        DeletableGroupResult { group_id: group, error_code: error.code() }
    };
    DeleteGroupsResponse { results: call.request.groups_names.into_iter().map(delete).collect(), ..Default::default() }
}
