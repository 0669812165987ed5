//! Compaction of a log: what stays, what goes, and that a crash in between does no harm.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::logs::{NOW, log_config, open_files, open_log, rules};
use dlog::env::SystemEntropy;
use dlog::model::{LeaderEpoch, Offset};
use dlog::records::{BatchBuilder, BatchHeader, Codec, KeyRule, Look, NewRecord, check};
use dlog::storage::{Cleaned, Cleaner, Compaction, FirstBatch, Log, LogConfig, Origin, Recovery};
use proptest::prelude::*;

const DAY: i64 = 86_400_000;

fn config() -> LogConfig {
    let compaction = Compaction { dirty_ratio: 0.0, min_lag_ms: 0, max_lag_ms: i64::MAX, delete_retention_ms: DAY };
    LogConfig { compaction: Some(compaction), ..log_config(1500, 100) }
}

fn open(path: &Path, how: Recovery) -> Log {
    open_log(path, config(), how).0
}

/// Appends a batch of keys with values, or tombstones; `producer` is id and first sequence.
fn append(log: &mut Log, records: &[(u8, Option<u16>)], codec: Codec, producer: Option<(i64, i32)>) {
    let texts: Vec<(String, Option<String>)> =
        records.iter().map(|(key, value)| (format!("key {key}"), value.map(|v| format!("value {v} {}", "x".repeat(20))))).collect();
    let mut builder = BatchBuilder::new().codec(codec);
    if let Some((id, sequence)) = producer {
        builder = builder.producer(id, 0, sequence);
    }
    let builder = texts.iter().fold(builder, |b, (k, v)| b.record(NewRecord::keyed(k.as_bytes(), v.as_ref().map(|v| v.as_bytes()))));
    let rules = rules(KeyRule::Required, Look::Full);
    log.append(check(&builder.build(NOW), &rules).expect("a good batch"), Origin::Client, LeaderEpoch(0), NOW).expect("an append");
}

/// Compacts what is dirty from `from` on, with a map of about `map_bytes`.
fn compact(log: &mut Log, from: Option<Offset>, map_bytes: usize, now_ms: i64) -> Option<Cleaned> {
    let cleaning = log.cleaning(from, log.log_end(), now_ms).expect("a decision")?;
    let cleaner = Cleaner::new(&SystemEntropy, map_bytes);
    Some(cleaner.clean(&open_files(), &cleaning, now_ms, &mut |_| true, |replacement| log.replace(replacement)).expect("compacted"))
}

/// Compacts until nothing is dirty; says up to where.
fn compact_all(log: &mut Log, mut from: Option<Offset>, map_bytes: usize, now_ms: i64) -> Option<Offset> {
    while let Some(cleaned) = compact(log, from, map_bytes, now_ms) {
        assert!(Some(cleaned.clean_to) > from, "each round gets further");
        from = Some(cleaned.clean_to);
    }
    from
}

type Stored = (i64, i64, String, Option<String>);

fn headers(log: &Log) -> Vec<(BatchHeader, Vec<u8>)> {
    let mut offset = log.log_start();
    let mut all = Vec::new();
    while offset < log.log_end() {
        let slice = log.reader().read(offset, log.log_end(), 1 << 20, FirstBatch::Whole).expect("a read");
        let slice = slice.unwrap_or_else(|| panic!("nothing at {offset} of {}", log.log_end()));
        let bytes = slice.read().expect("bytes");
        for batch in dlog::records::batches(&bytes) {
            let (header, batch) = batch.expect("whole batches");
            header.check_crc(batch).expect("sound batches");
            offset = header.next_offset();
            all.push((header, batch.to_vec()));
        }
    }
    all
}

/// All records, by offset, with timestamp, key and value.
fn records(log: &Log) -> Vec<Stored> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut all = Vec::new();
    for (header, batch) in headers(log) {
        for record in header.open(&batch, 1 << 20).unwrap().records() {
            let record = record.expect("a sound record");
            let offset = header.base_offset.plus(i64::from(record.offset_delta)).0;
            all.push((offset, header.base_timestamp + record.timestamp_delta, text(record.key.unwrap()), record.value.map(text)));
        }
    }
    all
}

/// The last value of each key; a key whose last value is null is not there.
fn replay(records: &[Stored]) -> BTreeMap<String, String> {
    let mut last = BTreeMap::new();
    for (_, _, key, value) in records {
        match value {
            Some(value) => last.insert(key.clone(), value.clone()),
            None => last.remove(key),
        };
    }
    last
}

fn codec() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::None), Just(Codec::Lz4), Just(Codec::Zstd), Just(Codec::Gzip), Just(Codec::Snappy)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_compacted_log_replays_to_the_same_values(
        batches in proptest::collection::vec(
            (proptest::collection::vec((0_u8..12, proptest::option::weighted(0.8, any::<u16>())), 1..8), codec(), 0_usize..10), 1..80),
        map_bytes in prop_oneof![Just(1_usize), Just(400), Just(1 << 20)],
        late in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path(), Recovery::New);
        let mut from = None;
        let mut input = Vec::new();
        // Tombstones go a day after the compaction that saw them first.
        let mut now = NOW;
        for (records_in, codec, then) in &batches {
            append(&mut log, records_in, *codec, None);
            input.extend(records(&log).into_iter().rev().take(records_in.len()).rev());
            if *then == 0 {
                from = compact_all(&mut log, from, map_bytes, now).or(from);
                now += if late { 2 * DAY } else { 0 };
            }
            if *then == 1 {
                log.close().unwrap();
                log = open(folder.path(), Recovery::Clean);
            }
            if *then == 2 {
                log = open(folder.path(), Recovery::From(Offset(0)));
            }
        }
        let end = log.log_end();
        from = compact_all(&mut log, from, map_bytes, now).or(from);
        let kept = records(&log);
        prop_assert_eq!(replay(&kept), replay(&input));
        prop_assert!(kept.iter().all(|record| input.contains(record)), "offsets, timestamps and values are those that were written");
        prop_assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0));
        // Below what is compacted each key is there once.
        let mut seen = std::collections::BTreeSet::new();
        let below = |record: &&Stored| Some(Offset(record.0)) < from;
        prop_assert!(kept.iter().filter(below).all(|record| seen.insert(record.2.clone())), "a key is there twice");
        for how in [Recovery::From(Offset(0)), Recovery::Clean] {
            log.close().unwrap();
            log = open(folder.path(), how);
            prop_assert_eq!((records(&log), log.log_end()), (kept.clone(), end));
        }
    }
}

#[test]
fn a_tombstone_stays_for_its_time_and_then_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path(), Recovery::New);
    append(&mut log, &[(1, Some(1)), (2, Some(2))], Codec::None, None);
    append(&mut log, &[(1, None)], Codec::Lz4, None);
    let fill = |log: &mut Log| (0..40).for_each(|at| append(log, &[(9, Some(at))], Codec::None, None));
    fill(&mut log);
    let has_tombstone = |log: &Log| records(log).iter().any(|r| r.3.is_none());
    let from = compact_all(&mut log, None, 1 << 20, NOW);
    assert_eq!((has_tombstone(&log), records(&log).iter().filter(|r| r.2 == "key 1").count()), (true, 1));
    assert!(headers(&log).iter().any(|(header, _)| header.delete_horizon_ms() == Some(NOW + DAY)));
    fill(&mut log);
    let from = compact_all(&mut log, from, 1 << 20, NOW + DAY);
    assert!(has_tombstone(&log), "its time is not over");
    fill(&mut log);
    compact_all(&mut log, from, 1 << 20, NOW + DAY + 1);
    assert!(!has_tombstone(&log));
    assert_eq!(records(&log)[0].2, "key 2");
}

#[test]
fn the_last_batch_of_a_producer_stays_as_a_header() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path(), Recovery::New);
    for at in 0..3 {
        append(&mut log, &[(1, Some(at as u16)), (1, Some(7))], Codec::Zstd, Some((5, at * 2)));
    }
    (0..60).for_each(|at| append(&mut log, &[(1, Some(at))], Codec::None, None));
    compact_all(&mut log, None, 1 << 20, NOW);
    let of_producer: Vec<BatchHeader> = headers(&log).into_iter().map(|(h, _)| h).filter(|h| h.producer_id.0 == 5).collect();
    assert_eq!(of_producer.iter().map(|h| (h.base_offset.0, h.records_count, h.last_sequence())).collect::<Vec<_>>(), [(4, 0, 5)]);
    // Without snapshots all that is known of the producer comes from the log.
    for name in
        std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|x| x == "snapshot"))
    {
        std::fs::remove_file(name).unwrap();
    }
    log = open(folder.path(), Recovery::From(Offset(0)));
    append(&mut log, &[(1, Some(8))], Codec::None, Some((5, 6)));
    assert!(log.producers().active().any(|p| (p.id.0, p.last_sequence) == (5, 6)));
}

#[test]
fn an_interrupted_swap_is_finished_or_undone() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path(), Recovery::New);
    (0..200).for_each(|at| append(&mut log, &[((at % 7) as u8, Some(at))], Codec::None, None));
    let before = records(&log);
    let cleaning = log.cleaning(None, log.log_end(), NOW).unwrap().unwrap();
    let cleaner = Cleaner::new(&SystemEntropy, 1 << 20);
    // The segments are written and never put in place.
    cleaner.clean(&open_files(), &cleaning, NOW, &mut |_| true, |_| Ok(false)).unwrap();
    let names = |suffix: &str| -> Vec<String> {
        let all = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        all.filter(|name| name.ends_with(suffix)).collect()
    };
    assert_eq!(names(".log.cleaned").len(), 1);
    drop(log);
    let copy = |from: &str, to: &str| std::fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
    copy("00000000000000000000.log.cleaned", "kept");
    log = open(folder.path(), Recovery::From(Offset(0)));
    assert_eq!((records(&log), names(".cleaned").len()), (before.clone(), 0), "what was only written is undone");
    drop(log);
    copy("kept", "00000000000000000000.log.swap");
    log = open(folder.path(), Recovery::From(Offset(0)));
    assert_eq!(names(".swap"), Vec::<String>::new());
    assert_eq!(replay(&records(&log)), replay(&before));
    assert!(records(&log).len() < before.len(), "what was renamed is finished");
}

#[test]
fn a_log_that_changed_meanwhile_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path(), Recovery::New);
    (0..200).for_each(|at| append(&mut log, &[((at % 7) as u8, Some(at))], Codec::None, None));
    let cleaning = log.cleaning(None, log.log_end(), NOW).unwrap().unwrap();
    log.delete_before(Offset(100), log.log_end(), NOW).unwrap();
    let before = records(&log);
    let cleaned = Cleaner::new(&SystemEntropy, 1 << 20).clean(&open_files(), &cleaning, NOW, &mut |_| true, |r| log.replace(r)).unwrap();
    assert_eq!((cleaned, records(&log)), (Cleaned::default(), before));
    // Interrupted in the middle nothing is changed either.
    let cleaning = log.cleaning(None, log.log_end(), NOW).unwrap().unwrap();
    let mut steps = 0;
    let mut pace = |_| {
        steps += 1;
        steps < 50
    };
    let stopped = Cleaner::new(&SystemEntropy, 1 << 20).clean(&open_files(), &cleaning, NOW, &mut pace, |r| log.replace(r));
    assert!(matches!(stopped, Err(dlog::storage::Error::Stopping)));
}
