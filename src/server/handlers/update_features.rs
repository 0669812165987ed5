//! UpdateFeatures: sets the levels of the cluster's features (KIP-584).

use crate::cluster::{Downgrade, Event, FeatureUpdate, Response};
use crate::protocol::ErrorCode;
use crate::protocol::generated::update_features::{
    FeatureUpdateKey, UpdatableFeatureResult, UpdateFeaturesRequest, UpdateFeaturesResponse,
};
use crate::server::dispatch::Call;
use crate::server::errors;

/// The first version that specifies how a level may be lowered, and that can request validation only.
const UPGRADE_TYPE_FROM: i16 = 1;
/// The last version with a result for each feature.
const RESULTS_UP_TO: i16 = 1;
/// The types of updates: upgrade only, safe downgrade, and downgrade with loss of data.
const UPGRADE: i8 = 1;
const DOWNGRADES: [i8; 2] = [2, 3];

pub(in crate::server) async fn handle(call: Call<UpdateFeaturesRequest>) -> UpdateFeaturesResponse {
    let (error, message) = match update(&call).await {
        Ok(()) => (ErrorCode::None, None),
        Err((error, message)) => (error, Some(message)),
    };
    let result = |update: &FeatureUpdateKey| UpdatableFeatureResult {
        feature: update.feature.clone(),
        error_code: error.code(),
        error_message: message.clone(),
    };
    let results = if call.version <= RESULTS_UP_TO && error == ErrorCode::None {
        call.request.feature_updates.iter().map(result).collect()
    } else {
        Vec::new()
    };
    UpdateFeaturesResponse { error_code: error.code(), error_message: message.clone(), results, ..Default::default() }
}

async fn update(call: &Call<UpdateFeaturesRequest>) -> Result<(), (ErrorCode, String)> {
    let refuse = |what: String| (ErrorCode::InvalidRequest, what);
    let mut updates: Vec<FeatureUpdate> = Vec::with_capacity(call.request.feature_updates.len());
    for update in &call.request.feature_updates {
        let downgrade = match update.upgrade_type {
            _ if call.version < UPGRADE_TYPE_FROM && update.allow_downgrade => Downgrade::Allowed,
            _ if call.version < UPGRADE_TYPE_FROM => Downgrade::Refused,
            UPGRADE => Downgrade::Refused,
            kind if DOWNGRADES.contains(&kind) => Downgrade::Allowed,
            kind => return Err((ErrorCode::InvalidUpdateVersion, format!("there is no upgrade type {kind}"))),
        };
        let update_of = FeatureUpdate { name: update.feature.clone(), level: update.max_version_level, downgrade };
        if updates.contains(&update_of) {
            continue;
        }
        if updates.iter().any(|known| known.name == update.feature) {
            return Err(refuse(format!("the feature {} appears twice", update.feature)));
        }
        updates.push(update_of);
    }
    let event = Event::UpdateFeatures { updates, validate_only: call.request.validate_only };
    match call.caller.services.cluster.submit(event).await {
        Ok(Response::Features(result)) => result.map_err(|error| (errors::of_cluster(&error), error.to_string())),
        Ok(other) => unreachable!("the controller must answer an update of features with features, not {other:?}"),
        Err(error) => Err((errors::of_cluster(&error), error.to_string())),
    }
}
