//! ListConfigResources: returns the resources that have settings (KIP-1142).

use super::configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::protocol::ErrorCode;
use crate::protocol::generated::list_config_resources::{ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse};
use crate::server::dispatch::Call;

/// The first version that can request other types than client metrics.
const TYPES_FROM: i16 = 1;
/// All types, in the order in which Kafka answers; an empty list in the request means all of them.
const TYPES: [i8; 5] = [GROUP, CLIENT_METRICS, BROKER_LOGGER, BROKER, TOPIC];

pub(in crate::server) async fn handle(call: Call<ListConfigResourcesRequest>) -> ListConfigResourcesResponse {
    let asked = &call.request.resource_types;
    let types: Vec<i8> = match call.version {
        TYPES_FROM.. if asked.is_empty() => TYPES.to_vec(),
        TYPES_FROM.. => TYPES.into_iter().filter(|kind| asked.contains(kind)).collect(),
        _ => vec![CLIENT_METRICS],
    };
    if asked.iter().any(|kind| !TYPES.contains(kind)) {
        return ListConfigResourcesResponse { error_code: ErrorCode::UnsupportedVersion.code(), ..Default::default() };
    }
    let of_type = |resource_type: i8| {
        let names = match resource_type {
            TOPIC => call.caller.services.cluster.image().topics().map(|topic| topic.name.to_string()).collect(),
            BROKER | BROKER_LOGGER => vec![call.caller.services.node_id.to_string()],
            // Settings of client metrics and of groups are not served, so no such resource exists.
            _ => Vec::new(),
        };
        names.into_iter().map(move |resource_name| ConfigResource { resource_name, resource_type })
    };
    ListConfigResourcesResponse { config_resources: types.into_iter().flat_map(of_type).collect(), ..Default::default() }
}
