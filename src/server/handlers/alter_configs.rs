//! AlterConfigs: replaces all settings of a resource.

use super::configs::{Wanted, alter};
use crate::cluster::Alteration;
use crate::protocol::generated::alter_configs::{AlterConfigsRequest, AlterConfigsResourceResponse, AlterConfigsResponse};
use crate::server::dispatch::Call;

pub(in crate::server) async fn handle(call: Call<AlterConfigsRequest>) -> AlterConfigsResponse {
    let wanted = call.request.resources.into_iter().map(|resource| Wanted {
        kind: resource.resource_type,
        name: resource.resource_name,
        alteration: Ok(Alteration::Replace(resource.configs.into_iter().map(|config| (config.name, config.value)).collect())),
    });
    let results = alter(&call.caller.services, wanted.collect(), call.request.validate_only).await;
    let responses = results.into_iter().map(|result| AlterConfigsResourceResponse {
        error_code: result.error.code(),
        error_message: result.message,
        resource_type: result.kind,
        resource_name: result.name,
    });
    AlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}
