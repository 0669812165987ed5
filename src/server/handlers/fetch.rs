//! Fetch: returns slices of segments, or waits until enough bytes are available.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use crate::env::Workers;
use crate::model::{LeaderEpoch, Offset, Uuid};
use crate::partition::{self, Error, FirstBatch, Isolation, RecordsSlice, Replica, StorageError, Subscription, View, Wake};
use crate::protocol::ErrorCode;
use crate::protocol::generated::fetch::{
    AbortedTransaction, EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use crate::server::dispatch::Call;
use crate::server::errors;
use crate::server::fetch_sessions::{Answered, Key, Opened, Wanted};
use crate::server::services::Services;
use crate::wire::Records;

/// The first version that identifies topics by id.
const BY_ID_FROM: i16 = 13;
/// The last version without an error code for storage errors.
const NO_STORAGE_ERROR_UP_TO: i16 = 5;

/// Returns the response, and the slices that fill its records in order.
pub(in crate::server) async fn handle(call: Call<FetchRequest>) -> (FetchResponse, Vec<RecordsSlice>) {
    let services = &call.caller.services;
    let opened = match services.sessions.open(&call.request, call.version, || services.env.entropy.positive()) {
        Ok(opened) => opened,
        Err(error) => return (FetchResponse { error_code: error.code(), ..Default::default() }, Vec::new()),
    };
    let fetch = Fetch::of(&call, &opened);
    let deadline = Instant::now() + Duration::from_millis(call.request.max_wait_ms.max(0) as u64);
    let mut read = fetch.read();
    if !fetch.is_enough(&read) {
        let wake = Wake::default();
        let _subscriptions: Vec<Subscription> = fetch.replicas().map(|replica| replica.subscribe(&wake)).collect();
        // Data that was appended before the subscription is found by this read; data that is appended later wakes the wait.
        read = fetch.read();
        while !fetch.is_enough(&read) && timeout_at(deadline, wake.notified()).await.is_ok() {
            read = fetch.read();
        }
    }
    let read = fetch.check(read, &services.env.workers).await;
    respond(services, &opened, read)
}

/// A fetch request with its limits.
struct Fetch<'a> {
    parts: Vec<(&'a Wanted, Result<Arc<Replica>, ErrorCode>)>,
    version: i16,
    isolation: Isolation,
    bytes_max: usize,
    bytes_min: usize,
    may_wait: bool,
}

/// The result of reading a partition.
struct Read {
    data: PartitionData,
    slice: Option<RecordsSlice>,
    /// The replica of the slice; counts the bytes that are sent.
    replica: Option<Arc<Replica>>,
}

impl<'a> Fetch<'a> {
    fn of(call: &Call<FetchRequest>, opened: &'a Opened) -> Fetch<'a> {
        let services = &call.caller.services;
        let bytes_max = call.request.max_bytes.min(services.settings.fetch_bytes_max).max(0) as usize;
        let find = |key: &Key| -> Result<Arc<Replica>, ErrorCode> {
            if call.version < BY_ID_FROM {
                return services.partitions.find(&key.topic, key.partition).map_err(|e| errors::of_partition(&e));
            }
            let image = services.cluster.image();
            let topic = image.topic_by_id(key.topic_id).filter(|_| key.topic_id != Uuid::ZERO).ok_or(ErrorCode::UnknownTopicId)?;
            let replica = services.partitions.find(&topic.name, key.partition).map_err(|e| errors::of_partition(&e))?;
            if replica.topic_id() == key.topic_id { Ok(replica) } else { Err(ErrorCode::InconsistentTopicId) }
        };
        Fetch {
            parts: opened.wanted.iter().map(|wanted| (wanted, find(&wanted.key))).collect(),
            version: call.version,
            isolation: if call.request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted },
            bytes_max,
            bytes_min: (call.request.min_bytes.max(0) as usize).min(bytes_max),
            may_wait: call.request.max_wait_ms > 0,
        }
    }

    fn replicas(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.parts.iter().filter_map(|(_, replica)| replica.as_ref().ok())
    }

    /// Reads all partitions in order. The first batch of the response is returned completely, even above the limits; later data stays within them.
    fn read(&self) -> Vec<Read> {
        let mut left = self.bytes_max;
        let mut first = FirstBatch::Whole;
        let mut one = |(wanted, replica): &(&Wanted, Result<Arc<Replica>, ErrorCode>)| {
            let mut read = match replica {
                Ok(replica) => self.read_one(wanted, replica, left, first).unwrap_or_else(|error| self.failed(wanted, replica, &error)),
                Err(error) => refused(wanted.key.partition, *error),
            };
            if let (Some(slice), Ok(replica)) = (&read.slice, replica) {
                left = left.saturating_sub(slice.length);
                first = FirstBatch::IfItFits;
                read.replica = Some(replica.clone());
            }
            read
        };
        self.parts.iter().map(&mut one).collect()
    }

    fn read_one(&self, wanted: &Wanted, replica: &Replica, left: usize, first: FirstBatch) -> Result<Read, Error> {
        let fetch = &wanted.fetch;
        // In a fetch, unlike in other requests, Kafka ignores every negative epoch.
        replica.check_epoch(fetch.current_leader_epoch.max(-1))?;
        let view = replica.view();
        let mut data = PartitionData {
            partition_index: wanted.key.partition,
            high_watermark: view.high_watermark.0,
            last_stable_offset: view.last_stable.0,
            log_start_offset: view.log_start.0,
            aborted_transactions: None,
            ..Default::default()
        };
        if let Some(diverging) = diverging(replica, &view, fetch.last_fetched_epoch, Offset(fetch.fetch_offset))? {
            data.diverging_epoch = diverging;
            return Ok(Read { data, slice: None, replica: None });
        }
        let bytes_max = left.min(fetch.partition_max_bytes.max(0) as usize);
        let offset = Offset(fetch.fetch_offset);
        let slice = match self.isolation {
            Isolation::ReadUncommitted => replica.read(offset, bytes_max, first)?,
            Isolation::ReadCommitted => {
                let (slice, aborted) = replica.read_committed(offset, bytes_max, first)?.map(|c| (c.slice, c.aborted)).unzip();
                data.aborted_transactions = Some(aborted.unwrap_or_default().into_iter().map(aborted_transaction).collect());
                slice
            }
        };
        Ok(Read { data, slice, replica: None })
    }

    /// Before data that was not read since the broker started is sent, reads it on a worker, where blocking is allowed, and withholds invalid data.
    async fn check(&self, mut read: Vec<Read>, workers: &Workers) -> Vec<Read> {
        for ((wanted, replica), read) in self.parts.iter().zip(&mut read) {
            let Some(slice) = read.slice.take_if(|slice| !slice.is_checked()) else { continue };
            let checked = workers.blocking(move || slice.check()).await;
            match (checked, replica) {
                (Ok(Ok(slice)), _) => read.slice = Some(slice),
                (Ok(Err(error)), Ok(replica)) => *read = self.failed(wanted, replica, &error.into()),
                _ => *read = refused(wanted.key.partition, ErrorCode::KafkaStorageError),
            }
        }
        read
    }

    fn failed(&self, wanted: &Wanted, replica: &Replica, error: &Error) -> Read {
        let mut code = errors::of_partition(error);
        if code == ErrorCode::KafkaStorageError || code == ErrorCode::CorruptMessage {
            warn!(partition = %replica.id(), %error, "a fetch failed");
        } else {
            debug!(partition = %replica.id(), %error, "a fetch was rejected");
        }
        if code == ErrorCode::KafkaStorageError && self.version <= NO_STORAGE_ERROR_UP_TO {
            code = ErrorCode::NotLeaderOrFollower;
        }
        refused(wanted.key.partition, code)
    }

    /// Whether the response is sent now: enough bytes, an error, or waiting is not requested.
    fn is_enough(&self, read: &[Read]) -> bool {
        let bytes: usize = read.iter().filter_map(|r| Some(r.slice.as_ref()?.length)).sum();
        let must_respond = |r: &Read| r.data.error_code != 0 || r.data.diverging_epoch != EpochEndOffset::default();
        !self.may_wait || read.is_empty() || bytes >= self.bytes_min || read.iter().any(must_respond)
    }
}

fn aborted_transaction(aborted: partition::AbortedTransaction) -> AbortedTransaction {
    AbortedTransaction { producer_id: aborted.producer_id.0, first_offset: aborted.first_offset.0 }
}

/// Where the reader's log diverges from ours (KIP-595); the checks are in Kafka's order:
///
/// 1. Its last epoch is unknown here: the divergence cannot be determined, and the offset is out of range.
/// 2. Its offset is below the log start offset: out of range, even if the logs diverge (KAFKA-12996). The records at its offset were deleted here, so
///    the end offset of an epoch would not help the reader.
/// 3. Its last epoch ended here before the reader's offset, or is replaced here by another epoch: the logs diverge.
fn diverging(replica: &Replica, view: &View, last_epoch: i32, offset: Offset) -> Result<Option<EpochEndOffset>, Error> {
    if last_epoch < 0 {
        return Ok(None);
    }
    let View { log_start, log_end, .. } = *view;
    let out_of_range = StorageError::OffsetOutOfRange { offset, log_start, log_end };
    match replica.epoch_end(LeaderEpoch(last_epoch)) {
        None => Err(out_of_range.into()),
        Some(_) if offset < log_start => Err(out_of_range.into()),
        Some((epoch, end)) if epoch.0 < last_epoch || end < offset => Ok(Some(EpochEndOffset { epoch: epoch.0, end_offset: end.0 })),
        Some(_) => Ok(None),
    }
}

fn refused(partition_index: i32, error: ErrorCode) -> Read {
    let data =
        PartitionData { partition_index, error_code: error.code(), high_watermark: -1, aborted_transactions: None, ..Default::default() };
    Read { data, slice: None, replica: None }
}

fn respond(services: &Services, opened: &Opened, read: Vec<Read>) -> (FetchResponse, Vec<RecordsSlice>) {
    let answered = |r: &Read| Answered {
        error: r.data.error_code != 0 || r.data.diverging_epoch != EpochEndOffset::default(),
        has_records: r.slice.is_some(),
        high_watermark: r.data.high_watermark,
        log_start: r.data.log_start_offset,
    };
    let answers: Vec<Answered> = read.iter().map(answered).collect();
    let included = services.sessions.answer(opened, &answers);
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    let mut slices = Vec::new();
    for ((wanted, mut read), _) in opened.wanted.iter().zip(read).zip(included).filter(|(_, included)| *included) {
        let records = match &read.slice {
            Some(slice) => Records::Elsewhere { length: slice.length },
            None => Records::Bytes(Bytes::new()),
        };
        read.data.records = Some(records);
        if let (Some(replica), Some(slice)) = (&read.replica, &read.slice) {
            replica.count_sent(slice.length);
        }
        slices.extend(read.slice);
        match responses.last_mut().filter(|t| t.topic == wanted.key.topic && t.topic_id == wanted.key.topic_id) {
            Some(topic) => topic.partitions.push(read.data),
            None => {
                let (topic, topic_id) = (wanted.key.topic.clone(), wanted.key.topic_id);
                responses.push(FetchableTopicResponse { topic, topic_id, partitions: vec![read.data] });
            }
        }
    }
    (FetchResponse { session_id: opened.session_id, responses, ..Default::default() }, slices)
}
