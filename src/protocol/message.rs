//! Traits and functions that all messages share.

use bytes::Bytes;

use super::ApiKey;
use super::generated::headers::RequestHeader;
use crate::wire::{self, Cursor, Frame, Parsed, Writer};

/// A top-level message: a request, a response, a header or a stored record.
pub trait Message: Sized + Default {
    /// Kafka's name.
    const NAME: &'static str;
    /// The first version.
    const MIN_VERSION: i16;
    /// The last version.
    const MAX_VERSION: i16;
    /// The first version with compact lengths and tags; `i16::MAX` if no version is flexible.
    const FLEXIBLE_FROM: i16;
    /// The record type, for stored records.
    const TYPE_ID: Option<i16>;

    /// Decodes the message; `version` must be in the range of its versions.
    fn decode(input: Cursor<'_>, version: i16) -> Parsed<'_, Self>;

    /// Encodes the message; `version` must be in the range of its versions.
    fn encode(&self, writer: &mut Writer, version: i16);
}

/// A request, with its API key and response type.
pub trait Request: Message {
    /// The API.
    const KEY: ApiKey;
    /// The response.
    type Response: Message;
}

/// The version of the header before a request: 2 (with tags) for flexible versions.
pub fn request_header_version(key: ApiKey, version: i16) -> i16 {
    if version >= key.flexible_from() { 2 } else { 1 }
}

/// The version of the header before a response: 1 (with tags) for flexible versions, but 0 for ApiVersions (KIP-511).
pub fn response_header_version(key: ApiKey, version: i16) -> i16 {
    if key != ApiKey::ApiVersions && version >= key.flexible_from() { 1 } else { 0 }
}

/// Decodes the header of a request with a known API key.
pub fn decode_request_header(input: Cursor<'_>, key: ApiKey) -> Parsed<'_, RequestHeader> {
    let (rest, _) = wire::int16(input)?;
    let (_, version) = wire::int16(rest)?;
    RequestHeader::decode(input, request_header_version(key, version))
}

/// Decodes a message from all of `bytes`.
pub fn decode_whole<M: Message>(bytes: &Bytes, version: i16) -> Result<M, wire::Error> {
    let frame = Frame::new(bytes.clone());
    Ok(wire::whole(frame.cursor(), |input| M::decode(input, version))?)
}

/// Encodes a message without a header.
pub fn encode_to_bytes<M: Message>(message: &M, version: i16) -> Bytes {
    let mut writer = Writer::default();
    message.encode(&mut writer, version);
    writer.into_bytes()
}

/// A request with its header, as the content of a frame (without the frame's length).
pub fn encode_request<R: Request>(request: &R, version: i16, correlation_id: i32, client_id: &str) -> Bytes {
    let header = RequestHeader {
        request_api_key: R::KEY as i16,
        request_api_version: version,
        correlation_id,
        client_id: Some(client_id.to_string()),
    };
    let mut writer = Writer::default();
    header.encode(&mut writer, request_header_version(R::KEY, version));
    request.encode(&mut writer, version);
    writer.into_bytes()
}
