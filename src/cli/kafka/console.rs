//! `kafka-console-producer` and `kafka-console-consumer`: lines in, lines out.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use tokio::sync::mpsc;

use super::servers::{Server, Servers, refused};
use crate::cli::block_on::block_on;
use crate::cli::output::stdout;
use crate::env::{Clock, SystemClock};
use crate::protocol::generated::fetch::{FetchPartition, FetchRequest, FetchTopic};
use crate::protocol::generated::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use crate::protocol::generated::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use crate::records::{BatchBuilder, BatchHeader, NewRecord, Record, TimestampType, batches};
use crate::wire::Records;

/// The last versions with names of topics instead of ids.
const PRODUCE: i16 = 9;
const FETCH: i16 = 12;
const LIST_OFFSETS: i16 = 7;
const TIMEOUT_MS: i32 = 30_000;
/// Lines that are sent together, and that may wait to be sent.
const BATCH_LINES: usize = 1000;
const BATCH_BYTES: usize = 512 * 1024;
/// One fetch.
const FETCH_BYTES: i32 = 8 << 20;
const FETCH_WAIT: Duration = Duration::from_millis(500);
/// The largest batch, decompressed.
const OPENED_BYTES_MAX: usize = 256 << 20;
/// ListOffsets' words for the end and the beginning of a partition.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Kafka's flags.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ProducerOptions {
    #[command(flatten)]
    servers: Servers,
    /// The topic to write to.
    #[arg(long)]
    topic: String,
    /// parse.key=true and key.separator=TEXT; can be repeated.
    #[arg(long, visible_alias = "reader-property", value_name = "KEY=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
}

/// A line of the input: its key, if it has one, and its value.
struct Line {
    key: Option<String>,
    value: String,
}

/// Sends each line of stdin as a record, acknowledged by all replicas.
pub(in crate::cli) fn produce(options: &ProducerOptions) -> Result<(), String> {
    let (send, mut lines) = mpsc::channel(BATCH_LINES);
    let has_keys = value_of(&options.property, "parse.key") == Some("true");
    let separator = has_keys.then(|| value_of(&options.property, "key.separator").unwrap_or(SEPARATOR));
    block_on(async {
        let mut server = options.servers.connect().await?;
        let partitions = partitions_of(&mut server, &options.topic).await?;
        // Ends with the input, or with this process.
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                if send.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        let (mut number, mut turn) = (0, 0);
        while let Some(first) = lines.recv().await {
            let mut batch = Vec::new();
            let mut next = Some(first);
            let mut size = 0;
            while let Some(text) = next.take() {
                number += 1;
                let line = parse(text.map_err(|e| e.to_string())?, separator, number)?;
                size += line.value.len();
                batch.push(line);
                if batch.len() < BATCH_LINES && size < BATCH_BYTES {
                    next = lines.try_recv().ok();
                }
            }
            send_batch(&mut server, &options.topic, &partitions, turn, &batch).await?;
            turn += 1;
        }
        Ok(())
    })
}

/// A property as it stands: a separator may be a blank.
fn property(text: &str) -> Result<(String, String), String> {
    text.split_once('=').map(|(key, value)| (key.into(), value.into())).ok_or_else(|| "must be KEY=VALUE".into())
}

/// The value of a property; the last one counts.
fn value_of<'a>(properties: &'a [(String, String)], name: &str) -> Option<&'a str> {
    properties.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// What parts keys from values, unless one says.
const SEPARATOR: &str = "\t";

fn parse(line: String, separator: Option<&str>, number: usize) -> Result<Line, String> {
    let Some(separator) = separator else { return Ok(Line { key: None, value: line }) };
    let (key, value) = line.split_once(separator).ok_or_else(|| format!("No key separator found on line number {number}: '{line}'"))?;
    Ok(Line { key: Some(key.into()), value: value.into() })
}

/// The numbers of a topic's partitions; a topic that is missing is created where the broker does that.
async fn partitions_of(server: &mut Server, topic: &str) -> Result<Vec<i32>, String> {
    let found = server.metadata(Some(&[topic]), true).await?;
    let Some(found) = found.topics.first() else { return Err("the response does not contain a topic".into()) };
    refused(found.error_code, None).map_err(|what| format!("{topic}: {what}"))?;
    let mut partitions: Vec<i32> = found.partitions.iter().map(|partition| partition.partition_index).collect();
    partitions.sort_unstable();
    if partitions.is_empty() { Err(format!("{topic} has no partitions")) } else { Ok(partitions) }
}

/// Sends lines with a key where Kafka's clients send them, and the others together, each time to the next partition.
async fn send_batch(server: &mut Server, topic: &str, partitions: &[i32], turn: usize, lines: &[Line]) -> Result<(), String> {
    let mut by_partition: Vec<Vec<&Line>> = vec![Vec::new(); partitions.len()];
    for line in lines {
        let at = line.key.as_ref().map_or(turn, |key| (murmur2(key.as_bytes()) & 0x7fff_ffff) as usize) % partitions.len();
        by_partition[at].push(line);
    }
    let now_ms = SystemClock.wall_ms();
    let data = partitions.iter().zip(by_partition).filter(|(_, lines)| !lines.is_empty()).map(|(index, lines)| {
        let mut batch = BatchBuilder::new();
        for line in lines {
            batch = batch.record(NewRecord {
                key: line.key.as_deref().map(str::as_bytes),
                value: Some(line.value.as_bytes()),
                ..NewRecord::default()
            });
        }
        let batch = batch.build(now_ms);
        PartitionProduceData { index: *index, records: Some(Records::Bytes(batch)) }
    });
    let topic_data = vec![TopicProduceData { name: topic.into(), partition_data: data.collect(), ..Default::default() }];
    let answer = server.call(&ProduceRequest { acks: -1, timeout_ms: TIMEOUT_MS, topic_data, ..Default::default() }, PRODUCE).await?;
    let results = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
    results.into_iter().try_for_each(|each| refused(each.error_code, each.error_message.as_deref()))
}

/// Kafka's hash of keys: MurmurHash2 with its seed (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ bytes.len() as u32;
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        let word = chunk.iter().rev().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (word ^ word >> 24).wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ word).wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

/// Kafka's flags.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ConsumerOptions {
    #[command(flatten)]
    servers: Servers,
    /// The topic to read.
    #[arg(long)]
    topic: String,
    /// Start at the first record of each partition instead of at its end.
    #[arg(long)]
    from_beginning: bool,
    /// Read only this partition.
    #[arg(long)]
    partition: Option<i32>,
    /// Where to start: an offset, earliest or latest.
    #[arg(long, requires = "partition")]
    offset: Option<String>,
    /// Exit after this number of records.
    #[arg(long, value_name = "COUNT")]
    max_messages: Option<u64>,
    /// Exit when no record has arrived for this time.
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// print.key, print.value, print.partition, print.offset, print.timestamp, print.headers = true or false, key.separator=TEXT; can be repeated.
    #[arg(long, visible_alias = "formatter-property", value_name = "KEY=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
}

/// What of a record is printed.
struct Format {
    timestamp: bool,
    partition: bool,
    offset: bool,
    headers: bool,
    key: bool,
    value: bool,
    separator: String,
}

/// Prints records until the maximum is reached or no more records arrive in time.
pub(in crate::cli) fn consume(options: &ConsumerOptions) -> Result<(), String> {
    let mut printer =
        Printer { format: Format::of(&options.property), left: options.max_messages.unwrap_or(u64::MAX), printed: 0, last: Instant::now() };
    let patience = options.timeout_ms.map(Duration::from_millis);
    block_on(async {
        let mut server = options.servers.connect().await?;
        let mut places = starts(&mut server, options).await?;
        printer.last = Instant::now();
        while printer.left > 0 && patience.is_none_or(|patience| printer.last.elapsed() < patience) {
            let wait = patience.map_or(FETCH_WAIT, |patience| FETCH_WAIT.min(patience.saturating_sub(printer.last.elapsed())));
            for (partition, records) in fetch(&mut server, &options.topic, &places, wait).await? {
                let Some((_, next)) = places.iter_mut().find(|(index, _)| *index == partition) else { continue };
                printer.print(partition, &records, next).map_err(|what| format!("{}-{partition}: {what}", options.topic))?;
            }
        }
        eprintln!("Processed a total of {} messages", printer.printed);
        Ok(())
    })
}

/// Prints what is fetched, and counts.
struct Printer {
    format: Format,
    /// Records that are still to be printed.
    left: u64,
    printed: u64,
    /// When the last record was printed.
    last: Instant,
}

impl Printer {
    /// The records of these batches from offset `next` on, which goes to what is to be fetched then.
    fn print(&mut self, partition: i32, fetched: &[u8], next: &mut i64) -> Result<(), String> {
        let mut out = stdout();
        for batch in batches(fetched) {
            // The last one may be cut.
            let Ok((header, bytes)) = batch else { break };
            let first = std::mem::replace(next, header.next_offset().0);
            if header.is_control() {
                continue;
            }
            let opened = header.open(bytes, OPENED_BYTES_MAX).map_err(|e| e.to_string())?;
            for record in opened.records() {
                let record = record.map_err(|e| e.to_string())?;
                if self.left > 0 && header.base_offset.0 + i64::from(record.offset_delta) >= first {
                    self.format.line(&header, &record, partition, &mut out).map_err(|e| e.to_string())?;
                    (self.left, self.printed, self.last) = (self.left - 1, self.printed + 1, Instant::now());
                }
            }
        }
        Ok(())
    }
}

/// Each partition that is read, with the offset of its next record.
async fn starts(server: &mut Server, options: &ConsumerOptions) -> Result<Vec<(i32, i64)>, String> {
    let mut partitions = partitions_of(server, &options.topic).await?;
    if let Some(one) = options.partition {
        partitions.retain(|partition| *partition == one);
    }
    if partitions.is_empty() {
        return Err(format!("{} has no such partition", options.topic));
    }
    let timestamp = match options.offset.as_deref() {
        Some("earliest") => EARLIEST,
        Some("latest") => LATEST,
        Some(offset) => {
            let offset = offset.parse().map_err(|_| format!("{offset} is not an offset; it must be a number, earliest or latest"))?;
            return Ok(partitions.into_iter().map(|partition| (partition, offset)).collect());
        }
        None if options.from_beginning => EARLIEST,
        None => LATEST,
    };
    let asked = partitions.iter().map(|index| ListOffsetsPartition { partition_index: *index, timestamp, ..Default::default() });
    let topics = vec![ListOffsetsTopic { name: options.topic.clone(), partitions: asked.collect() }];
    let answer = server.call(&ListOffsetsRequest { replica_id: -1, topics, ..Default::default() }, LIST_OFFSETS).await?;
    let found = answer.topics.into_iter().flat_map(|topic| topic.partitions);
    found.map(|each| refused(each.error_code, None).map(|()| (each.partition_index, each.offset))).collect()
}

/// The batches that are there, or come soon, by partition.
async fn fetch(server: &mut Server, topic: &str, places: &[(i32, i64)], wait: Duration) -> Result<Vec<(i32, Bytes)>, String> {
    let partition = |(partition, offset): &(i32, i64)| FetchPartition {
        partition: *partition,
        current_leader_epoch: -1,
        fetch_offset: *offset,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        partition_max_bytes: FETCH_BYTES,
        ..Default::default()
    };
    let topics = vec![FetchTopic { topic: topic.into(), partitions: places.iter().map(partition).collect(), ..Default::default() }];
    let request = FetchRequest {
        replica_id: -1,
        max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: 1,
        max_bytes: FETCH_BYTES,
        session_epoch: -1,
        topics,
        ..Default::default()
    };
    let answer = server.call(&request, FETCH).await?;
    refused(answer.error_code, None)?;
    let mut found = Vec::new();
    for each in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
        refused(each.error_code, None).map_err(|what| format!("{topic}-{}: {what}", each.partition_index))?;
        found.extend(each.records.as_ref().and_then(Records::bytes).map(|bytes| (each.partition_index, bytes.clone())));
    }
    Ok(found)
}

impl Format {
    fn of(properties: &[(String, String)]) -> Format {
        let is = |name: &str| value_of(properties, name) == Some("true");
        Format {
            timestamp: is("print.timestamp"),
            partition: is("print.partition"),
            offset: is("print.offset"),
            headers: is("print.headers"),
            key: is("print.key"),
            value: value_of(properties, "print.value") != Some("false"),
            separator: value_of(properties, "key.separator").unwrap_or(SEPARATOR).into(),
        }
    }

    /// A line as Kafka's DefaultMessageFormatter writes it.
    fn line(&self, header: &BatchHeader, record: &Record<'_>, partition: i32, out: &mut impl Write) -> std::io::Result<()> {
        let null = |bytes: Option<&[u8]>| bytes.map_or_else(|| b"null".to_vec(), <[u8]>::to_vec);
        let mut parts: Vec<Vec<u8>> = Vec::new();
        if self.timestamp {
            let (word, ms) = match header.timestamp_type() {
                TimestampType::CreateTime => ("CreateTime", header.base_timestamp.saturating_add(record.timestamp_delta)),
                TimestampType::LogAppendTime => ("LogAppendTime", header.max_timestamp),
            };
            parts.push(format!("{word}:{ms}").into_bytes());
        }
        if self.partition {
            parts.push(format!("Partition:{partition}").into_bytes());
        }
        if self.offset {
            parts.push(format!("Offset:{}", header.base_offset.0 + i64::from(record.offset_delta)).into_bytes());
        }
        if self.headers {
            let headers = record.headers().unwrap_or_default();
            let all = headers.iter().map(|header| [header.key.as_bytes(), b":", &null(header.value)].concat()).collect::<Vec<_>>();
            parts.push(if all.is_empty() { b"NO_HEADERS".to_vec() } else { all.join(&b","[..]) });
        }
        if self.key {
            parts.push(null(record.key));
        }
        if self.value {
            parts.push(null(record.value));
        }
        out.write_all(&parts.join(self.separator.as_bytes()))?;
        out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hashed_as_kafkas_clients_do() {
        // From Kafka's own UtilsTest.
        let known: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, hash) in known {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }
}
