//! Kafka's requests and responses as Rust types; the generated code is in `protocol/generated/`.

#[rustfmt::skip]
pub mod generated;
mod message;

pub use generated::api_key::ApiKey;
pub use generated::error_code::ErrorCode;
pub use message::{
    Message, Request, decode_request_header, decode_whole, encode_request, encode_to_bytes, request_header_version, response_header_version,
};
