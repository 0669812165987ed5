//! From a request frame to its handler, and back to a response.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use tracing::{Level, debug, enabled};

use super::handlers;
use super::services::Caller;
use super::visits::Ask;
use crate::env::Part;
use crate::partition::RecordsSlice;
use crate::protocol::generated::headers::{RequestHeader, ResponseHeader};
use crate::protocol::generated::metadata::MetadataRequest;
use crate::protocol::generated::produce::ProduceRequest;
use crate::protocol::{ApiKey, ErrorCode, Message, Request, request_header_version, response_header_version};
use crate::wire::{self, Cursor, Frame, Writer};

/// An API with the range of its served versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// The API.
    pub key: ApiKey,
    /// The first version.
    pub min: i16,
    /// The last version.
    pub max: i16,
}

/// The only list of served APIs: everything in it is fully implemented, and ApiVersions returns it.
pub const SERVED: &[Served] = &[
    Served { key: ApiKey::Produce, min: 3, max: 13 },
    Served { key: ApiKey::Fetch, min: 4, max: 18 },
    Served { key: ApiKey::ListOffsets, min: 1, max: 11 },
    Served { key: ApiKey::Metadata, min: 0, max: 13 },
    Served { key: ApiKey::OffsetCommit, min: 2, max: 10 },
    Served { key: ApiKey::OffsetFetch, min: 1, max: 10 },
    Served { key: ApiKey::FindCoordinator, min: 0, max: 6 },
    Served { key: ApiKey::JoinGroup, min: 0, max: 9 },
    Served { key: ApiKey::Heartbeat, min: 0, max: 4 },
    Served { key: ApiKey::LeaveGroup, min: 0, max: 5 },
    Served { key: ApiKey::SyncGroup, min: 0, max: 5 },
    Served { key: ApiKey::DescribeGroups, min: 0, max: 6 },
    Served { key: ApiKey::ListGroups, min: 0, max: 5 },
    Served { key: ApiKey::SaslHandshake, min: 0, max: 1 },
    Served { key: ApiKey::ApiVersions, min: 0, max: 4 },
    Served { key: ApiKey::CreateTopics, min: 2, max: 7 },
    Served { key: ApiKey::DeleteTopics, min: 1, max: 6 },
    Served { key: ApiKey::DeleteRecords, min: 0, max: 2 },
    Served { key: ApiKey::InitProducerId, min: 0, max: 5 },
    Served { key: ApiKey::OffsetForLeaderEpoch, min: 2, max: 4 },
    Served { key: ApiKey::AddPartitionsToTxn, min: 0, max: 5 },
    Served { key: ApiKey::AddOffsetsToTxn, min: 0, max: 4 },
    Served { key: ApiKey::EndTxn, min: 0, max: 5 },
    Served { key: ApiKey::WriteTxnMarkers, min: 1, max: 2 },
    Served { key: ApiKey::TxnOffsetCommit, min: 0, max: 5 },
    Served { key: ApiKey::DescribeConfigs, min: 1, max: 4 },
    Served { key: ApiKey::AlterConfigs, min: 0, max: 2 },
    Served { key: ApiKey::DescribeLogDirs, min: 1, max: 5 },
    Served { key: ApiKey::SaslAuthenticate, min: 0, max: 2 },
    Served { key: ApiKey::CreatePartitions, min: 0, max: 3 },
    Served { key: ApiKey::DeleteGroups, min: 0, max: 2 },
    Served { key: ApiKey::ElectLeaders, min: 0, max: 2 },
    Served { key: ApiKey::IncrementalAlterConfigs, min: 0, max: 1 },
    Served { key: ApiKey::ListPartitionReassignments, min: 0, max: 0 },
    Served { key: ApiKey::OffsetDelete, min: 0, max: 0 },
    Served { key: ApiKey::DescribeQuorum, min: 0, max: 2 },
    Served { key: ApiKey::UpdateFeatures, min: 0, max: 2 },
    Served { key: ApiKey::DescribeCluster, min: 0, max: 2 },
    Served { key: ApiKey::DescribeProducers, min: 0, max: 0 },
    Served { key: ApiKey::DescribeTransactions, min: 0, max: 0 },
    Served { key: ApiKey::ListTransactions, min: 0, max: 2 },
    // Advertised so that its clients get an immediate error that such groups are not served; see the handler.
    Served { key: ApiKey::ConsumerGroupHeartbeat, min: 0, max: 1 },
    Served { key: ApiKey::ListConfigResources, min: 0, max: 1 },
    Served { key: ApiKey::DescribeTopicPartitions, min: 0, max: 0 },
];

/// The entry of an API; none if the API is not served.
pub fn served(key: ApiKey) -> Option<&'static Served> {
    SERVED.iter().find(|served| served.key == key)
}

/// A request for which the protocol has no response: its connection is closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// An API key that is not offered.
    #[error("API key {0} is not supported")]
    Api(i16),
    /// A version that is not offered.
    #[error("{name} version {1} is not supported", name = .0.name())]
    Version(ApiKey, i16),
    /// Bytes that are not a valid request.
    #[error("a {0} request is malformed: {1}")]
    Malformed(&'static str, wire::Error),
    /// A Produce request with acks=0 failed; it has no response, so the error can only be signalled by closing the connection.
    #[error("a Produce with acks=0 failed: {0}")]
    Unacknowledged(&'static str),
}

/// The response to a request.
pub(super) enum Answer {
    /// A frame in several parts.
    Parts(Vec<Part>),
    /// No response, as for acks=0.
    None,
}

/// A request with the fields of its header.
pub(super) struct Call<R> {
    pub(super) caller: Caller,
    pub(super) version: i16,
    pub(super) client_id: String,
    pub(super) request: R,
}

impl<R> Call<R> {
    /// Records for `dlog doctor` what the request asks for before its client connects to the advertised address.
    pub(super) fn asks(&self, ask: Ask) {
        self.caller.visit.asks(ask, &self.client_id, || self.caller.advertised_address());
    }
}

impl Call<MetadataRequest> {
    /// Records for `dlog doctor` whether none of the requested topics exists.
    pub(super) fn looks_for_topics(&self, misses: Misses) {
        self.caller.visit.looks_for_topics(&self.client_id, misses == Misses::All, || self.caller.advertised_address());
    }
}

/// Whether the requested topics exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misses {
    /// None of them does.
    All,
    /// At least one does.
    NotAll,
}

/// A running request: decoded, and executed as far as it was polled.
pub(super) type Running = Pin<Box<dyn Future<Output = Result<Answer, Refusal>> + Send>>;

/// What happens to later requests of the connection while a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// They run; their responses are sent after the response of the waiting request.
    Apart,
    /// They are not read. A client that gave up a join sends another one, which, as in Kafka, must find the first one completed. And the batches of a
    /// transaction must be appended in the order in which they were sent, even if the first one waits for the transaction's coordinator.
    InLine,
}

/// Decodes a request; the future executes it.
pub(super) fn dispatch(caller: Caller, bytes: Bytes) -> Result<(Running, Waits), Refusal> {
    let frame = Frame::new(bytes);
    let (code, version) = key_and_version(frame.cursor()).map_err(|e| Refusal::Malformed("request header", e.into()))?;
    let Served { key, min, max } = *ApiKey::from_code(code).and_then(served).ok_or(Refusal::Api(code))?;
    let header = RequestHeader::decode(frame.cursor(), request_header_version(key, version));
    let (body, header) = header.map_err(|e| Refusal::Malformed("request header", e.into()))?;
    if !(min..=max).contains(&version) {
        if key == ApiKey::ApiVersions {
            let answer = encode(key, 0, header.correlation_id, &handlers::api_versions::unsupported(), &[]);
            return Ok((Box::pin(std::future::ready(Ok(answer))), Waits::Apart));
        }
        return Err(Refusal::Version(key, version));
    }
    caller.visit.request(key, header.client_id.as_deref());
    route(key, caller, version, header, body)
}

fn key_and_version(input: Cursor<'_>) -> Result<(i16, i16), nom::Err<wire::Error>> {
    let (rest, key) = wire::int16(input)?;
    let (_, version) = wire::int16(rest)?;
    Ok((key, version))
}

fn call<R: Request>(caller: Caller, version: i16, header: &RequestHeader, body: Cursor<'_>) -> Result<Call<R>, Refusal> {
    let (_, request) = R::decode(body, version).map_err(|e| Refusal::Malformed(R::NAME, e.into()))?;
    Ok(Call { caller, version, client_id: header.client_id.clone().unwrap_or_default(), request })
}

/// Decodes the request now; the future runs the handler, encodes its response and measures the time.
macro_rules! handle {
    ($key:ident, $caller:ident, $version:ident, $header:ident, $body:ident, $waits:expr, $handler:expr) => {{
        let call = call($caller, $version, &$header, $body)?;
        let waits = $waits(&call);
        let services = call.caller.services.clone();
        let running: Running = Box::pin(async move {
            let reply = Reply::begin($key, $version, $header, call.caller.peer);
            let begin = reply.begin;
            let handler = $handler;
            let answer = handler(call, reply).await;
            services.metrics.request_seconds($key).record(begin.elapsed().as_secs_f64());
            answer
        });
        Ok((running, waits))
    }};
    ($module:ident.$function:ident: $key:ident, $caller:ident, $version:ident, $header:ident, $body:ident, $waits:expr) => {
        handle!($key, $caller, $version, $header, $body, |_: &Call<_>| $waits, async |call, reply: Reply| {
            let response = handlers::$module::$function(call).await;
            Ok(reply.with(&response, &[]))
        })
    };
    ($module:ident: $key:ident, $caller:ident, $version:ident, $header:ident, $body:ident, $waits:expr) => {
        handle!($module.handle: $key, $caller, $version, $header, $body, $waits)
    };
    ($module:ident: $key:ident, $caller:ident, $version:ident, $header:ident, $body:ident) => {
        handle!($module: $key, $caller, $version, $header, $body, Waits::Apart)
    };
}

fn route(key: ApiKey, caller: Caller, version: i16, header: RequestHeader, body: Cursor<'_>) -> Result<(Running, Waits), Refusal> {
    let in_line = |call: &Call<ProduceRequest>| if call.request.transactional_id.is_some() { Waits::InLine } else { Waits::Apart };
    match key {
        ApiKey::Produce => handle!(key, caller, version, header, body, in_line, async |call, reply: Reply| {
            let response = handlers::produce::handle(call).await?;
            Ok(response.map_or_else(|| reply.without(), |response| reply.with(&response, &[])))
        }),
        ApiKey::Fetch => handle!(key, caller, version, header, body, |_: &Call<_>| Waits::Apart, async |call, reply: Reply| {
            let (response, slices) = handlers::fetch::handle(call).await;
            Ok(reply.with(&response, &slices))
        }),
        ApiKey::ListOffsets => handle!(list_offsets: key, caller, version, header, body),
        ApiKey::Metadata => handle!(metadata: key, caller, version, header, body),
        ApiKey::OffsetCommit => handle!(offset_commit: key, caller, version, header, body),
        ApiKey::OffsetFetch => handle!(offset_fetch: key, caller, version, header, body),
        ApiKey::FindCoordinator => handle!(find_coordinator: key, caller, version, header, body),
        ApiKey::JoinGroup => handle!(join_group: key, caller, version, header, body, Waits::InLine),
        ApiKey::Heartbeat => handle!(heartbeat: key, caller, version, header, body),
        ApiKey::LeaveGroup => handle!(leave_group: key, caller, version, header, body),
        ApiKey::SyncGroup => handle!(sync_group: key, caller, version, header, body, Waits::InLine),
        ApiKey::DescribeGroups => handle!(describe_groups: key, caller, version, header, body),
        ApiKey::ListGroups => handle!(list_groups: key, caller, version, header, body),
        ApiKey::SaslHandshake => handle!(sasl.handshake: key, caller, version, header, body, Waits::Apart),
        ApiKey::SaslAuthenticate => handle!(sasl.authenticate: key, caller, version, header, body, Waits::Apart),
        ApiKey::ApiVersions => handle!(api_versions: key, caller, version, header, body),
        ApiKey::CreateTopics => handle!(create_topics: key, caller, version, header, body),
        ApiKey::DeleteTopics => handle!(delete_topics: key, caller, version, header, body),
        ApiKey::InitProducerId => handle!(init_producer_id: key, caller, version, header, body),
        ApiKey::OffsetForLeaderEpoch => handle!(offset_for_leader_epoch: key, caller, version, header, body),
        ApiKey::DescribeConfigs => handle!(describe_configs: key, caller, version, header, body),
        ApiKey::CreatePartitions => handle!(create_partitions: key, caller, version, header, body),
        ApiKey::DescribeCluster => handle!(describe_cluster: key, caller, version, header, body),
        ApiKey::DeleteRecords => handle!(delete_records: key, caller, version, header, body),
        ApiKey::AlterConfigs => handle!(alter_configs: key, caller, version, header, body),
        ApiKey::DescribeLogDirs => handle!(describe_log_dirs: key, caller, version, header, body),
        ApiKey::DeleteGroups => handle!(delete_groups: key, caller, version, header, body),
        ApiKey::ElectLeaders => handle!(elect_leaders: key, caller, version, header, body),
        ApiKey::IncrementalAlterConfigs => handle!(incremental_alter_configs: key, caller, version, header, body),
        ApiKey::ListPartitionReassignments => handle!(list_partition_reassignments: key, caller, version, header, body),
        ApiKey::OffsetDelete => handle!(offset_delete: key, caller, version, header, body),
        ApiKey::DescribeQuorum => handle!(describe_quorum: key, caller, version, header, body),
        ApiKey::DescribeProducers => handle!(describe_producers: key, caller, version, header, body),
        ApiKey::DescribeTopicPartitions => handle!(describe_topic_partitions: key, caller, version, header, body),
        ApiKey::AddPartitionsToTxn => handle!(add_partitions_to_txn: key, caller, version, header, body),
        ApiKey::AddOffsetsToTxn => handle!(add_offsets_to_txn: key, caller, version, header, body),
        ApiKey::EndTxn => handle!(end_txn: key, caller, version, header, body),
        ApiKey::WriteTxnMarkers => handle!(write_txn_markers: key, caller, version, header, body),
        ApiKey::TxnOffsetCommit => handle!(txn_offset_commit: key, caller, version, header, body),
        ApiKey::DescribeTransactions => handle!(describe_transactions: key, caller, version, header, body),
        ApiKey::ListTransactions => handle!(list_transactions: key, caller, version, header, body),
        ApiKey::ConsumerGroupHeartbeat => handle!(consumer_group_heartbeat: key, caller, version, header, body),
        ApiKey::ListConfigResources => handle!(list_config_resources: key, caller, version, header, body),
        ApiKey::UpdateFeatures => handle!(update_features: key, caller, version, header, body),
        other => Err(Refusal::Api(other as i16)),
    }
}

/// The fields of a request that its response requires, and at debug level the fields of the log line about both.
struct Reply {
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    begin: Instant,
    /// The client of the request; none if debug logging is off, so that nothing is computed for a line that is not logged.
    logged: Option<(Option<String>, SocketAddr)>,
}

impl Reply {
    fn begin(key: ApiKey, version: i16, header: RequestHeader, peer: SocketAddr) -> Reply {
        let logged = enabled!(Level::DEBUG).then_some((header.client_id, peer));
        Reply { key, version, correlation_id: header.correlation_id, begin: Instant::now(), logged }
    }

    fn with<M: Message + fmt::Debug>(&self, response: &M, slices: &[RecordsSlice]) -> Answer {
        if self.logged.is_some() {
            self.log(first_error(response));
        }
        encode(self.key, self.version, self.correlation_id, response, slices)
    }

    fn without(&self) -> Answer {
        self.log(None);
        Answer::None
    }

    fn log(&self, error: Option<i16>) {
        let Some((client_id, peer)) = &self.logged else { return };
        let error = error.map(|code| ErrorCode::from_code(code).map_or_else(|| code.to_string(), |error| error.name().to_string()));
        let ms = self.begin.elapsed().as_micros() as f64 / 1000.0;
        debug!(api = self.key.name(), version = self.version, client_id, %peer, ms, error, "request");
    }
}

/// The first nonzero error code in any part of a response. It is read from the Debug output, so that no code per API is needed; only requests that
/// are logged have this cost.
fn first_error(response: &impl fmt::Debug) -> Option<i16> {
    let mut scan = ErrorScan::default();
    // Formatting is stopped with an error once a code is found.
    let _ = write!(scan, "{response:?} ");
    scan.found
}

/// Finds `error_code: N` outside of quotes.
#[derive(Default)]
struct ErrorScan {
    found: Option<i16>,
    in_quotes: bool,
    is_escaped: bool,
    /// The number of bytes of [`Self::NAME`] that were matched last.
    matched: usize,
    number: Option<i16>,
}

impl ErrorScan {
    const NAME: &'static [u8] = b"error_code: ";

    fn byte(&mut self, byte: u8) {
        if let Some(number) = self.number {
            match byte {
                b'0'..=b'9' => self.number = Some(number.saturating_mul(10).saturating_add(i16::from(byte - b'0'))),
                // UNKNOWN_SERVER_ERROR is the only negative code.
                b'-' => self.found = Some(-1),
                _ => (self.found, self.number) = ((number != 0).then_some(number), None),
            }
        } else if self.in_quotes {
            self.in_quotes = byte != b'"' || self.is_escaped;
            self.is_escaped = byte == b'\\' && !self.is_escaped;
        } else if byte == b'"' {
            (self.in_quotes, self.matched) = (true, 0);
        } else {
            let goes_on = Self::NAME.get(self.matched) == Some(&byte);
            self.matched = if goes_on { self.matched + 1 } else { usize::from(byte == b'e') };
            if self.matched == Self::NAME.len() {
                (self.matched, self.number) = (0, Some(0));
            }
        }
    }
}

impl fmt::Write for ErrorScan {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.byte(byte);
            if self.found.is_some() {
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

/// The frame of a response; `slices` fill its holes in order.
fn encode<M: Message>(key: ApiKey, version: i16, correlation_id: i32, response: &M, slices: &[RecordsSlice]) -> Answer {
    let mut writer = Writer::with_capacity(128);
    writer.int32(0);
    ResponseHeader { correlation_id }.encode(&mut writer, response_header_version(key, version));
    response.encode(&mut writer, version);
    let length = (writer.message_len() - 4) as i32;
    let (mut bytes, holes) = writer.into_parts();
    (&mut bytes[..4]).put_i32(length);
    assert_eq!(holes.len(), slices.len(), "each hole is filled by a slice");
    let mut parts = Vec::with_capacity(1 + 2 * slices.len());
    let mut taken = 0;
    for (hole, slice) in holes.iter().zip(slices) {
        push(&mut parts, bytes.split_to(hole.position - taken));
        taken = hole.position;
        parts.push(Part::File { file: slice.file.clone(), position: slice.position, length: slice.length });
    }
    push(&mut parts, bytes);
    Answer::Parts(parts)
}

fn push(parts: &mut Vec<Part>, bytes: BytesMut) {
    if !bytes.is_empty() {
        parts.push(Part::Bytes(bytes.freeze()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::generated::delete_topics::{DeletableTopicResult, DeleteTopicsResponse};

    #[test]
    fn the_first_error_of_a_response_is_found_and_text_is_not_taken_for_one() {
        let of = |names_and_codes: &[(&str, i16)]| {
            let one =
                |(name, code): &(&str, i16)| DeletableTopicResult { name: Some(name.to_string()), error_code: *code, ..Default::default() };
            first_error(&DeleteTopicsResponse { responses: names_and_codes.iter().map(one).collect(), ..Default::default() })
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("a", 0), ("error_code: 5", 0), ("\\\"error_code: 6 ", 0)]), None);
        assert_eq!(of(&[("a", 0), ("b", 3), ("c", 36)]), Some(3));
        assert_eq!(of(&[("a", -1)]), Some(-1));
    }
}
