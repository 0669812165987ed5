//! ListGroups: returns the groups of this broker.

use crate::protocol::generated::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use crate::server::dispatch::Call;

/// The type of all groups of this broker.
const CLASSIC: &str = "classic";

pub(in crate::server) async fn handle(call: Call<ListGroupsRequest>) -> ListGroupsResponse {
    let listed = match call.caller.services.groups.list() {
        Ok(groups) => groups,
        Err(error) => return ListGroupsResponse { error_code: error.code(), ..Default::default() },
    };
    let allowed = |filter: &[String], word: &str| filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(word));
    let groups = listed
        .into_iter()
        .filter(|g| allowed(&call.request.states_filter, g.state.name()) && allowed(&call.request.types_filter, CLASSIC))
        .map(|g| ListedGroup {
            group_id: g.id,
            protocol_type: g.protocol_type,
            group_state: g.state.name().into(),
            group_type: CLASSIC.into(),
        });
    ListGroupsResponse { groups: groups.collect(), ..Default::default() }
}
