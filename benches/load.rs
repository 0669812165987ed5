//! The load generator of `make bench`: one kind of load against a broker, one line of JSON as its result.
//!
//! It speaks the protocol with our own code and sends prepared batches, so that it costs little beside the broker that it measures. The bare
//! loops are what a broker cannot do without: read a socket, check CRC-32C, write a file; or send a file.

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use clap::{Parser, Subcommand};
use common::{Client, load, produce_request};
use dlog::env::{Clock, SystemClock};
use dlog::protocol::encode_request;
use dlog::protocol::generated::fetch::{FetchPartition, FetchRequest, FetchTopic};
use dlog::protocol::generated::list_offsets::{ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsTopic};
use dlog::protocol::generated::produce::ProduceRequest;
use dlog::records::{BatchBuilder, BatchHeader, Codec, NewRecord, Records, batches, layout};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

#[derive(Parser)]
struct Cli {
    /// `cargo bench` says so.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Create a topic with these settings, KEY=VALUE.
    Topic {
        address: SocketAddr,
        topic: String,
        settings: Vec<String>,
        #[arg(long, default_value_t = 1)]
        partitions: i32,
    },
    /// Produce batches with five in flight.
    Produce {
        address: SocketAddr,
        topic: String,
        /// Records of 1 KB in a batch.
        records: usize,
        /// Megabytes of records, of all producers together.
        megabytes: usize,
        #[arg(long)]
        lz4: bool,
        /// Each on a connection of its own.
        #[arg(long, default_value_t = 1)]
        producers: usize,
        /// They take them in turn.
        #[arg(long, default_value_t = 1)]
        partitions: usize,
    },
    /// Produce batches of an idempotent producer with five in flight, in transactions that are committed at intervals.
    ProduceInTransactions {
        address: SocketAddr,
        topic: String,
        /// Records of 1 KB in a batch.
        records: usize,
        megabytes: usize,
        /// None for no transactions.
        #[arg(long)]
        every_ms: Option<u64>,
    },
    /// Transactions of one batch, one after the other.
    Transactions { address: SocketAddr, topic: String, records: usize, seconds: u64 },
    /// Read a topic from its beginning.
    Fetch { address: SocketAddr, topic: String, megabytes: usize },
    /// Records of 1 KB at a rate, a batch a millisecond, from before the send to after the receipt.
    Latency { address: SocketAddr, topic: String, per_second: u64, seconds: u64 },
    /// Create a topic with partitions, and write each once.
    Partitions { address: SocketAddr, topic: String, count: i32 },
    /// Fetch a topic's newest batch once a millisecond.
    FetchLatency { address: SocketAddr, topic: String, seconds: u64 },
    /// Find and read a batch at offsets by chance, one after the other; or look up offsets by timestamps by chance.
    Random {
        address: SocketAddr,
        topic: String,
        reads: usize,
        #[arg(long)]
        by_time: bool,
    },
    /// Members of a group until all are stable.
    Group { address: SocketAddr, group: String, members: usize },
    /// Idle connections, until the input is closed.
    Idle { address: SocketAddr, count: usize },
    /// The bare loop of producing: read a socket, check CRC-32C, write a file, answer shortly. Prints its CPU seconds per GB. The frames are those
    /// of batches with so many records.
    BareProduce { records: usize, megabytes: usize },
    /// The bare loop of fetching: send a file.
    BareFetch { megabytes: usize },
}

const MEGABYTE: usize = 1_000_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match Cli::parse().load {
        Load::Topic { address, topic, settings, partitions } => runtime.block_on(async {
            let settings: Vec<(&str, &str)> = settings.iter().map(|s| s.split_once('=').expect("KEY=VALUE")).collect();
            Client::connect_to(address).await.create_topic(&topic, partitions, &settings).await;
        }),
        Load::Produce { address, topic, records, megabytes, lz4, producers, partitions } => runtime.block_on(async {
            let codec = if lz4 { Codec::Lz4 } else { Codec::None };
            let batch = load::batch(records, codec);
            // Bytes of users: with a codec the batches are smaller.
            let plain = if lz4 { load::batch(records, Codec::None).len() } else { batch.len() };
            let each = megabytes * MEGABYTE / producers / plain * batch.len();
            let mut sending = JoinSet::new();
            let begin = Instant::now();
            for partition in (0..partitions).cycle().take(producers) {
                let (topic, batch) = (topic.clone(), batch.clone());
                sending.spawn(async move {
                    let mut client = Client::connect_to(address).await;
                    load::produce(&mut client, &topic, partition as i32, &batch, each).await
                });
            }
            let sent: usize = sending.join_all().await.iter().sum();
            result(&[("bytes", (sent / batch.len() * plain) as f64), ("seconds", begin.elapsed().as_secs_f64())]);
        }),
        Load::ProduceInTransactions { address, topic, records, megabytes, every_ms } => runtime.block_on(async {
            let (batch, every) = (load::batch(records, Codec::None), every_ms.map(Duration::from_millis));
            let mut client = Client::connect_to(address).await;
            let begin = Instant::now();
            let sent = load::produce_in_transactions(&mut client, &topic, &batch, megabytes * MEGABYTE, every).await;
            result(&[("bytes", sent as f64), ("seconds", begin.elapsed().as_secs_f64())]);
        }),
        Load::Transactions { address, topic, records, seconds } => runtime.block_on(async {
            let batch = load::batch(records, Codec::None);
            let mut client = Client::connect_to(address).await;
            let per_second = load::transactions(&mut client, &topic, &batch, Duration::from_secs(seconds)).await;
            result(&[("per_second", per_second)]);
        }),
        Load::Fetch { address, topic, megabytes } => runtime.block_on(fetch(address, &topic, megabytes * MEGABYTE)),
        Load::Latency { address, topic, per_second, seconds } => runtime.block_on(latency(address, &topic, per_second, seconds)),
        Load::Partitions { address, topic, count } => {
            let time = runtime.block_on(load::partitions(address, &topic, count));
            result(&[("seconds", time.as_secs_f64())]);
        }
        Load::FetchLatency { address, topic, seconds } => runtime.block_on(fetch_latency(address, &topic, seconds)),
        Load::Random { address, topic, reads, by_time } => runtime.block_on(random(address, &topic, reads, by_time)),
        Load::Group { address, group, members } => {
            let time = runtime.block_on(load::group(address, &group, members));
            result(&[("seconds", time.as_secs_f64())]);
        }
        Load::Idle { address, count } => idle(address, count),
        Load::BareProduce { records, megabytes } => bare_produce(load::batch(records, Codec::None).len(), megabytes * MEGABYTE),
        Load::BareFetch { megabytes } => bare_fetch(megabytes * MEGABYTE),
    }
}

fn result(figures: &[(&str, f64)]) {
    let pairs: Vec<String> = figures.iter().map(|(name, figure)| format!("\"{name}\": {figure}")).collect();
    println!("{{{}}}", pairs.join(", "));
}

/// A request for as much as a consumer takes at once.
/// Bytes that a fetch asks for.
const FETCHED_AT_ONCE: usize = 8 << 20;
/// Bytes of the file that the bare loop sends: as many as [`fetch`] reads.
const SENT_FILE: usize = 512 << 20;

fn fetch_from(topic: &str, offset: i64, max_wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition { fetch_offset: offset, partition_max_bytes: FETCHED_AT_ONCE as i32, ..Default::default() };
    let topics = vec![FetchTopic { topic: topic.into(), partitions: vec![partition], ..Default::default() }];
    FetchRequest { max_wait_ms, min_bytes: 1, max_bytes: 50 << 20, session_epoch: -1, topics, ..Default::default() }
}

async fn fetch(address: SocketAddr, topic: &str, total: usize) {
    let mut client = Client::connect_to(address).await;
    let (mut offset, mut read) = (0, 0);
    let begin = Instant::now();
    while read < total {
        let answer = client.call(&fetch_from(topic, offset, 500), 12).await;
        let bytes = common::fetched(&answer);
        let before = offset;
        for batch in batches(&bytes) {
            // The last one may be cut.
            let Ok((header, _)) = batch else { break };
            offset = header.last_offset().0 + 1;
        }
        // At the end it begins again.
        if offset == before {
            offset = 0;
        }
        read += bytes.len();
    }
    result(&[("bytes", read as f64), ("seconds", begin.elapsed().as_secs_f64())]);
}

/// What ListOffsets says of a timestamp: -1 is the end.
async fn find(client: &mut Client, topic: &str, timestamp: i64) -> ListOffsetsPartitionResponse {
    let partition = ListOffsetsPartition { timestamp, ..Default::default() };
    let topics = vec![ListOffsetsTopic { name: topic.into(), partitions: vec![partition] }];
    client.call(&ListOffsetsRequest { replica_id: -1, topics, ..Default::default() }, 5).await.topics.remove(0).partitions.remove(0)
}

async fn end_of(client: &mut Client, topic: &str) -> i64 {
    find(client, topic, -1).await.offset
}

/// The header of the first batch from an offset on.
async fn first_batch(client: &mut Client, topic: &str, offset: i64) -> BatchHeader {
    let mut request = fetch_from(topic, offset, 0);
    request.topics[0].partitions[0].partition_max_bytes = 1;
    let answer = client.call(&request, 12).await;
    let bytes = common::fetched(&answer);
    let (header, _) = batches(&bytes).next().expect("a batch").expect("a whole one");
    header
}

async fn random(address: SocketAddr, topic: &str, reads: usize, by_time: bool) {
    let mut client = Client::connect_to(address).await;
    let end = end_of(&mut client, topic).await;
    let (first, last) = (first_batch(&mut client, topic, 0).await, first_batch(&mut client, topic, end - 1).await);
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut between = |from: i64, to: i64| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        from + ((chance >> 1) as i64) % (to - from)
    };
    let mut times = Vec::new();
    for _ in 0..reads {
        let begin = Instant::now();
        if by_time {
            let wanted = between(first.max_timestamp, last.max_timestamp);
            let found = find(&mut client, topic, wanted).await;
            assert!(found.timestamp >= wanted && found.offset < end, "{found:?}");
        } else {
            let wanted = between(0, end);
            let header = first_batch(&mut client, topic, wanted).await;
            assert!(header.base_offset.0 <= wanted && wanted <= header.last_offset().0);
        }
        times.push(begin.elapsed().as_nanos() as u64);
    }
    percentiles(times);
}

async fn fetch_latency(address: SocketAddr, topic: &str, seconds: u64) {
    let mut client = Client::connect_to(address).await;
    let end = end_of(&mut client, topic).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut times = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(seconds) {
        ticks.tick().await;
        let sent = Instant::now();
        first_batch(&mut client, topic, end - 1).await;
        times.push(sent.elapsed().as_nanos() as u64);
    }
    percentiles(times);
}

/// Prints them, of nanoseconds.
fn percentiles(mut times: Vec<u64>) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] as f64 / 1e6;
    result(&[("p50_ms", at(0.5)), ("p99_ms", at(0.99)), ("p999_ms", at(0.999))]);
}

async fn latency(address: SocketAddr, topic: &str, per_second: u64, seconds: u64) {
    let begin = Instant::now();
    let mut consumer = Client::connect_to(address).await;
    let mut offset = end_of(&mut consumer, topic).await;
    let last = offset + (per_second * seconds) as i64;
    let name = topic.to_string();
    let producing = tokio::spawn(async move {
        let mut client = Client::connect_to(address).await;
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let mut sent = 0;
        let first = Instant::now();
        while sent < per_second * seconds {
            ticks.tick().await;
            let due = (first.elapsed().as_micros() as u64 * per_second / 1_000_000 + 1).min(per_second * seconds);
            let burst = due.saturating_sub(sent);
            if burst == 0 {
                continue;
            }
            // What is due in a millisecond is one batch, as a client with a short linger makes it.
            let mut value = vec![b'x'; 1024];
            value[..8].copy_from_slice(&(begin.elapsed().as_nanos() as u64).to_le_bytes());
            let batch = (0..burst).fold(BatchBuilder::new(), |batch, _| batch.record(NewRecord::value(&value)));
            client.send_bytes(encode_request(&produce_request(&name, 0, &batch.build(SystemClock.wall_ms()), -1), 9, 1, "load")).await;
            client.receive::<ProduceRequest>(9).await;
            sent += burst;
        }
    });
    let mut times: Vec<u64> = Vec::new();
    while offset < last {
        let answer = consumer.call(&fetch_from(topic, offset, 500), 12).await;
        let now = begin.elapsed().as_nanos() as u64;
        for batch in batches(&common::fetched(&answer)) {
            let Ok((header, bytes)) = batch else { break };
            if header.base_offset.0 < offset {
                continue;
            }
            for record in Records::new(&bytes[layout::SIZE..], header.records_count) {
                let value = record.expect("a sound record").value.expect("a value");
                times.push(now.saturating_sub(u64::from_le_bytes(value[..8].try_into().expect("eight bytes"))));
            }
            offset = header.last_offset().0 + 1;
        }
    }
    producing.await.expect("everything is sent");
    // The first second warms.
    times.drain(..per_second.min(times.len() as u64 / 2) as usize);
    percentiles(times);
}

fn idle(address: SocketAddr, count: usize) {
    dlog::env::raise_open_files();
    let begin = Instant::now();
    // More than one address of ours: one has not enough ports.
    let connections: Vec<TcpStream> = (0..count).map(|_| TcpStream::connect(address).expect("the broker accepts")).collect();
    result(&[("connections", connections.len() as f64), ("seconds", begin.elapsed().as_secs_f64())]);
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// CPU seconds of this thread so far.
fn thread_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds") / 1e9
}

/// Bytes of a file that the bare loop writes, and the number of files that it keeps: as much as a topic of the bench.
const BARE_FILE: usize = 32 << 20;
const BARE_FILES: usize = 3;

fn bare_produce(frame: usize, total: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    // A third as much again goes before what is measured, so that the files' pages are warm.
    let (warm, count) = (total / 3 / frame, total / frame);
    std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("a socket option");
        let bytes = vec![7; frame];
        let mut answer = [0; 64];
        for at in 0..warm + count + 5 {
            if at < warm + count {
                stream.write_all(&bytes).expect("it reads");
            }
            if at >= 5 {
                stream.read_exact(&mut answer).expect("it answers");
            }
        }
    });
    let (mut stream, _) = listener.accept().expect("one comes");
    stream.set_nodelay(true).expect("a socket option");
    let folder = std::env::temp_dir().join(format!("dlog-bare-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    let next = |number: usize| {
        if let Some(old) = number.checked_sub(BARE_FILES) {
            std::fs::remove_file(folder.join(old.to_string())).expect("it is there");
        }
        std::fs::File::create(folder.join(number.to_string())).expect("a file")
    };
    let (mut file, mut number, mut written) = (next(0), 0, 0);
    let mut bytes = vec![0; frame];
    let (mut begin, mut before, mut checksum) = (Instant::now(), 0.0, 0);
    for at in 0..warm + count {
        if at == warm {
            (begin, before) = (Instant::now(), thread_cpu());
        }
        stream.read_exact(&mut bytes).expect("it sends");
        checksum ^= crc32c::crc32c(&bytes);
        if written + frame > BARE_FILE {
            (number, written) = (number + 1, 0);
            file = next(number);
        }
        file.write_all(&bytes).expect("there is room");
        written += frame;
        stream.write_all(&[0; 64]).expect("it reads");
    }
    std::hint::black_box(checksum);
    result(&[("cpu_per_gb", (thread_cpu() - before) / ((count * frame) as f64 / 1e9)), ("seconds", begin.elapsed().as_secs_f64())]);
    std::fs::remove_dir_all(folder).expect("it is there");
}

fn bare_fetch(total: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let path = std::env::temp_dir().join(format!("dlog-bare-{}", std::process::id()));
    std::fs::write(&path, vec![7; SENT_FILE]).expect("there is room");
    // Who reads asks for as much at once as in `fetch`, and reads as it does: who sends pays for waking it.
    let reader = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
            while stream.write_all(&[0]).await.is_ok() {
                let mut bytes = BytesMut::with_capacity(FETCHED_AT_ONCE);
                while bytes.len() < FETCHED_AT_ONCE {
                    if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
            }
        });
    });
    let (mut stream, _) = listener.accept().expect("one comes");
    let file = std::fs::File::open(&path).expect("it is there");
    let mut send = |total: usize| {
        let mut sent = 0;
        while sent < total {
            stream.read_exact(&mut [0]).expect("it asks");
            let end = sent + FETCHED_AT_ONCE;
            while sent < end {
                let mut position = (sent % SENT_FILE) as u64;
                sent += rustix::fs::sendfile(&stream, &file, Some(&mut position), end - sent).expect("it reads");
            }
        }
        sent
    };
    send(total / 3);
    let before = thread_cpu();
    let sent = send(total);
    let cpu = thread_cpu() - before;
    drop(stream);
    reader.join().expect("it ends");
    result(&[("cpu_per_gb", cpu / (sent as f64 / 1e9))]);
    std::fs::remove_file(path).expect("it is there");
}
