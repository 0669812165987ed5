//! ApiVersions: the APIs and features that this broker serves.

use crate::cluster::{FEATURES, Feature};
use crate::protocol::generated::api_versions::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use crate::protocol::{ApiKey, ErrorCode};
use crate::server::dispatch::{Call, SERVED, Served};

/// The first version in which the minimum level of a feature may be 0.
const LEVEL_ZERO_FROM: i16 = 4;

pub(in crate::server) async fn handle(call: Call<ApiVersionsRequest>) -> ApiVersionsResponse {
    let request = &call.request;
    if call.version >= 3 && !(is_software_word(&request.client_software_name) && is_software_word(&request.client_software_version)) {
        return ApiVersionsResponse { error_code: ErrorCode::InvalidRequest.code(), ..Default::default() };
    }
    let image = call.caller.services.cluster.image();
    // Clients of earlier releases reject a minimum level of 0 as malformed (KIP-1022).
    let shown = FEATURES.iter().filter(|feature| feature.min > 0 || call.version >= LEVEL_ZERO_FROM);
    let supported = |f: &Feature| SupportedFeatureKey { name: f.name.to_string(), min_version: f.min, max_version: f.max };
    let finalized = |f: &Feature| {
        let level = image.feature(f.name).filter(|level| *level > 0)?;
        Some(FinalizedFeatureKey { name: f.name.to_string(), max_version_level: level, min_version_level: level })
    };
    ApiVersionsResponse {
        api_keys: SERVED.iter().map(advertised).collect(),
        supported_features: shown.map(supported).collect(),
        finalized_features_epoch: image.offset,
        finalized_features: FEATURES.iter().filter_map(finalized).collect(),
        ..Default::default()
    }
}

/// The response, in version 0, to an unknown version (KIP-511): the client retries with our newest version.
pub(in crate::server) fn unsupported() -> ApiVersionsResponse {
    let own = SERVED.iter().filter(|served| served.key == ApiKey::ApiVersions).map(advertised).collect();
    ApiVersionsResponse { error_code: ErrorCode::UnsupportedVersion.code(), api_keys: own, ..Default::default() }
}

/// Produce is advertised from version 0, although versions 0 to 2 are not served: otherwise librdkafka up to 2.8 stops compressing (KAFKA-18659).
fn advertised(served: &Served) -> ApiVersion {
    let min_version = if served.key == ApiKey::Produce { 0 } else { served.min };
    ApiVersion { api_key: served.key as i16, min_version, max_version: served.max }
}

/// Letters and digits, with `-` and `.` between them.
fn is_software_word(word: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = word.as_bytes();
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_words_are_kafkas() {
        for word in ["a", "librdkafka", "apache-kafka-java", "2.16.0"] {
            assert!(is_software_word(word), "{word}");
        }
        for word in ["", "-a", "a.", "a b", "a_b"] {
            assert!(!is_software_word(word), "{word}");
        }
    }
}
