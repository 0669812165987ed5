//! IncrementalAlterConfigs: changes individual settings (KIP-339).

use super::configs::{Wanted, alter};
use crate::cluster::{Alteration, Operation};
use crate::protocol::generated::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use crate::server::dispatch::Call;

pub(in crate::server) async fn handle(call: Call<IncrementalAlterConfigsRequest>) -> IncrementalAlterConfigsResponse {
    let wanted = call.request.resources.into_iter().map(|mut resource| Wanted {
        kind: resource.resource_type,
        name: std::mem::take(&mut resource.resource_name),
        alteration: alteration(resource),
    });
    let results = alter(&call.caller.services, wanted.collect(), call.request.validate_only).await;
    let responses = results.into_iter().map(|result| AlterConfigsResourceResponse {
        error_code: result.error.code(),
        error_message: result.message,
        resource_type: result.kind,
        resource_name: result.name,
    });
    IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

fn alteration(resource: AlterConfigsResource) -> Result<Alteration, String> {
    let change = |config: crate::protocol::generated::incremental_alter_configs::AlterableConfig| {
        let operation = match config.config_operation {
            0 => Operation::Set,
            1 => Operation::Delete,
            2 => Operation::Append,
            3 => Operation::Subtract,
            other => return Err(format!("Unknown operation type {other}")),
        };
        Ok((config.name, operation, config.value))
    };
    resource.configs.into_iter().map(change).collect::<Result<_, _>>().map(Alteration::Change)
}
