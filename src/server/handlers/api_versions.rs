//! ApiVersions: what this broker serves.

use crate::protocol::generated::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use crate::protocol::{ApiKey, ErrorCode};
use crate::server::dispatch::{Call, SERVED, Served};

pub(in crate::server) async fn handle(call: Call<ApiVersionsRequest>) -> ApiVersionsResponse {
    let request = &call.request;
    if call.version >= 3 && !(is_software_word(&request.client_software_name) && is_software_word(&request.client_software_version)) {
        return ApiVersionsResponse { error_code: ErrorCode::InvalidRequest.code(), ..Default::default() };
    }
    ApiVersionsResponse { api_keys: SERVED.iter().map(advertised).collect(), ..Default::default() }
}

/// The answer, in version 0, to a version that is not known (KIP-511): the client tries again with our newest.
pub(in crate::server) fn unsupported() -> ApiVersionsResponse {
    let own = SERVED.iter().filter(|served| served.key == ApiKey::ApiVersions).map(advertised).collect();
    ApiVersionsResponse { error_code: ErrorCode::UnsupportedVersion.code(), api_keys: own, ..Default::default() }
}

/// Produce is said to begin at 0, though 0 to 2 are not served: librdkafka up to 2.8 stops compressing otherwise (KAFKA-18659).
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
