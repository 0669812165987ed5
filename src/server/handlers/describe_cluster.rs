//! DescribeCluster: returns the brokers.

use super::authorized::{ON_CLUSTER, if_asked};
use crate::protocol::ErrorCode;
use crate::protocol::generated::describe_cluster::{DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse};
use crate::server::dispatch::Call;
use crate::server::visits::Ask;

/// Endpoint types.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(in crate::server) async fn handle(call: Call<DescribeClusterRequest>) -> DescribeClusterResponse {
    call.asks(Ask::Listing);
    let services = &call.caller.services;
    let refused = match call.request.endpoint_type {
        BROKERS => None,
        _ if call.version == 0 => Some(ErrorCode::InvalidRequest),
        CONTROLLERS => Some(ErrorCode::MismatchedEndpointType),
        _ => Some(ErrorCode::UnsupportedEndpointType),
    };
    if let Some(error) = refused {
        let error_message = Some("This listener is one of brokers.".to_string());
        return DescribeClusterResponse { error_code: error.code(), error_message, ..Default::default() };
    }
    let (host, port) = call.caller.advertised();
    let broker = DescribeClusterBroker { broker_id: services.node_id, host, port, rack: services.settings.rack.clone(), is_fenced: false };
    DescribeClusterResponse {
        cluster_id: services.cluster_id.clone(),
        controller_id: services.node_id,
        brokers: vec![broker],
        cluster_authorized_operations: if_asked(call.request.include_cluster_authorized_operations, ON_CLUSTER),
        ..Default::default()
    }
}
