//! The figures that we hold ourselves to; `make figures` prints them. Best of several, on whatever machine this is.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::logs::{NOW, log_config, open_files, open_log, rules};
use common::process::{Process, command};
use common::{Client, load};
use dlog::env::SystemEntropy;
use dlog::model::{LeaderEpoch, Offset};
use dlog::records::{BatchBuilder, Codec, KeyRule, Look, NewRecord, check};
use dlog::storage::{Cleaner, Compaction, LogConfig, Origin, Recovery};

const REPEATS: usize = 5;
/// Bytes of the log that is recovered and compacted.
const LOG_BYTES: u64 = 512 << 20;

fn best<T: PartialOrd + Copy>(values: impl IntoIterator<Item = T>) -> T {
    values.into_iter().reduce(|a, b| if b < a { b } else { a }).expect("at least one")
}

#[test]
#[ignore = "measures; run by make figures"]
fn ready_and_idle() {
    let mut idle = Vec::new();
    let ready = best((0..REPEATS).map(|_| {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(command(folder.path()));
        let ready = process.ready;
        std::thread::sleep(Duration::from_millis(300));
        idle.push(process.memory("VmRSS"));
        process.kill();
        ready
    }));
    let idle = best(idle);
    println!("ready on an empty directory: {:.1} ms (expected below 20)", ready.as_secs_f64() * 1e3);
    println!("idle memory: {:.1} MB (expected below 20)", idle as f64 / 1e6);
    assert!(ready < Duration::from_millis(20) && idle < 20_000_000);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run by make figures"]
async fn a_thousand_partitions_created_and_written() {
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(command(folder.path()));
        times.push(load::partitions(process.address, "t", 1000).await);
        process.kill();
    }
    let time = best(times);
    println!("1,000 partitions created and each written once: {:.3} s (expected below 0.5)", time.as_secs_f64());
    assert!(time < Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run by make figures"]
async fn a_thousand_partitions_created() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(command(folder.path()));
    let mut client = Client::connect_to(process.address).await;
    let (mut times, cpu) = (Vec::new(), process.cpu());
    for n in 0..2 * REPEATS + 1 {
        let begin = Instant::now();
        client.create_topic(&format!("t{n}"), 1000, &[]).await;
        times.push(begin.elapsed());
    }
    let cpu = (process.cpu() - cpu) / times.len() as u32;
    times.sort();
    let median = times[times.len() / 2];
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("1,000 partitions created: {:.0} ms in the median (expected at most 100), {:.0} ms of CPU", ms(median), ms(cpu));
    assert!(median <= Duration::from_millis(100));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run by make figures"]
async fn a_group_of_a_hundred_members() {
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(command(folder.path()));
        times.push(load::group(process.address, "g", 100).await);
        process.kill();
    }
    let time = best(times);
    println!("a group of 100 members stable: {:.3} s (expected below 1)", time.as_secs_f64());
    assert!(time < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run by make figures"]
async fn cpu_for_a_gigabyte() {
    for (name, records, total, limit) in [("16 KB", 15, 1 << 29, 3.0), ("1 MB", 980, 1 << 30, 0.9)] {
        let batch = load::batch(records, Codec::None);
        let mut rates = Vec::new();
        for _ in 0..REPEATS {
            let folder = tempfile::tempdir().unwrap();
            let process = Process::start(command(folder.path()));
            let mut client = Client::connect_to(process.address).await;
            // Segments are reused by retention as little as the page cache is: the first gigabyte warms it.
            client.create_topic("t", 1, &[("segment.bytes", "67108864")]).await;
            load::produce(&mut client, "t", 0, &batch, 1 << 28).await;
            let before = process.cpu();
            let sent = load::produce(&mut client, "t", 0, &batch, total).await;
            rates.push((process.cpu() - before).as_secs_f64() / (sent as f64 / 1e9));
            process.kill();
        }
        let rate = best(rates.iter().copied());
        println!("produce, 1 KB records in {name} batches: {rate:.2} CPU s/GB (expected at most {limit}); all: {rates:.2?}");
        assert!(rate <= limit);
    }
}

/// A log of 1 KB records in batches of 16 KB, over 50,000 keys.
fn keyed_log(directory: &Path, codec: Codec) -> LogConfig {
    // There must be several, also of compressed batches.
    let segment_bytes = if codec == Codec::None { 64 << 20 } else { 1 << 20 };
    let compaction = Some(Compaction { dirty_ratio: 0.5, min_lag_ms: 0, max_lag_ms: i64::MAX, delete_retention_ms: 0 });
    let config = LogConfig { compaction, ..log_config(segment_bytes, 4096) };
    let rules = rules(KeyRule::Required, Look::Trusting);
    let (mut log, _) = open_log(directory, config.clone(), Recovery::New);
    let (value, mut at) = (vec![b'x'; 1000], 0_u64);
    while log.reader().size() < LOG_BYTES && at < LOG_BYTES / 1000 {
        let keys: Vec<String> = (0..15).map(|n| format!("key {}", (at + n).wrapping_mul(0x9E37_79B9) % 50_000)).collect();
        let builder = BatchBuilder::new().codec(codec);
        let batch = keys.iter().fold(builder, |b, key| b.record(NewRecord::keyed(key.as_bytes(), Some(&value)))).build(NOW);
        log.append(check(&batch, &rules).unwrap(), Origin::Client, LeaderEpoch(0), NOW).unwrap();
        at += 15;
    }
    config
}

#[test]
#[ignore = "measures; run by make figures"]
fn recovery_and_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let config = keyed_log(folder.path(), Codec::None);
    let recovered = best((0..REPEATS).map(|_| {
        let begin = Instant::now();
        let (log, report) = open_log(folder.path(), config.clone(), Recovery::From(Offset(0)));
        let seconds = begin.elapsed().as_secs_f64();
        assert_eq!(report.scanned_bytes, log.reader().size());
        seconds / (report.scanned_bytes as f64 / 1e9)
    }));
    println!("recovery: {:.2} GB/s of scanned log on one core (expected at least 1)", 1.0 / recovered);
    let mut slowest = f64::MAX;
    for codec in [Codec::None, Codec::Lz4] {
        let rates = (0..2).map(|_| {
            let folder = tempfile::tempdir().unwrap();
            let config = keyed_log(folder.path(), codec);
            let (mut log, _) = open_log(folder.path(), config, Recovery::Clean);
            // Bytes of users: with a codec the log is smaller.
            let bytes = (log.log_end().0 * 1000) as f64;
            let begin = Instant::now();
            let cleaning = log.cleaning(None, log.log_end(), NOW).unwrap().expect("it is due");
            let cleaner = Cleaner::new(&SystemEntropy, 128 << 20);
            let cleaned = cleaner.clean(&open_files(), &cleaning, NOW, &mut |_| true, |replacement| log.replace(replacement)).unwrap();
            assert!(cleaned.bytes_after < cleaned.bytes_before);
            begin.elapsed().as_secs_f64() / (bytes / 1e6)
        });
        let rate = 1.0 / best(rates);
        println!("compaction, {}: {rate:.0} MB/s of records on one core (expected at least 100)", codec.name());
        slowest = slowest.min(rate);
    }
    assert!(recovered < 1.0 && slowest > 100.0);
}
