//! A log on disk: appended, read, rolled, recovered, looked up.

mod common;

use std::path::Path;

use bytes::Bytes;
use common::logs::{NOW, log_config, open_log, rules};
use dlog::model::{LeaderEpoch, Offset};
use dlog::records::{BatchBuilder, CheckedBatch, Codec, KeyRule, Look, NewRecord, Rules, TimestampType, check};
use dlog::storage::{Error, FirstBatch, Log, LogConfig, Origin, Policy, Recovery, Report};
use proptest::prelude::*;

const CRASHED: Recovery = Recovery::From(Offset(0));

fn config() -> LogConfig {
    log_config(2000, 100)
}

fn checked(builder: BatchBuilder<'_>) -> CheckedBatch {
    check(&builder.build(NOW), &rules(KeyRule::Optional, Look::Full)).expect("a good batch")
}

fn open(path: &Path, how: Recovery) -> (Log, Report) {
    open_log(path, config(), how)
}

/// Appends one batch of `count` records whose timestamps are `first_ms` and the milliseconds after it.
fn append(log: &mut Log, count: usize, first_ms: i64, codec: Codec) -> Offset {
    let value = [7_u8; 20];
    let record = |at: usize| NewRecord { timestamp_ms: Some(first_ms + at as i64), ..NewRecord::value(&value) };
    let builder = (0..count).fold(BatchBuilder::new().codec(codec), |builder, at| builder.record(record(at)));
    log.append(checked(builder), Origin::Client, LeaderEpoch(3), NOW).expect("an append").base_offset
}

/// The base offsets of all batches that reads from `offset` to the end give.
fn read_all(log: &Log, mut offset: Offset) -> Vec<i64> {
    let mut bases = Vec::new();
    while offset < log.log_end() {
        let slice = log.reader().read(offset, log.log_end(), 1 << 20, FirstBatch::Whole).expect("a read").expect("something");
        let bytes = slice.read().expect("bytes");
        for batch in dlog::records::batches(&bytes) {
            let (header, batch) = batch.expect("whole batches");
            header.check_crc(batch).expect("sound batches");
            bases.push(header.base_offset.0);
            offset = header.next_offset();
        }
    }
    bases
}

#[test]
fn what_is_appended_is_read_over_many_segments() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path(), Recovery::Clean);
    let bases: Vec<i64> = (0..60).map(|at| append(&mut log, 1 + at % 5, NOW + at as i64, Codec::None).0).collect();
    assert!(log.reader().segment_count() > 3);
    assert_eq!(read_all(&log, Offset(0)), bases);
    let middle = bases[33];
    assert_eq!(read_all(&log, Offset(middle)), bases[33..]);
    let inside = log.reader().read(Offset(bases[4] + 2), log.log_end(), 1, FirstBatch::Whole).unwrap().unwrap();
    assert_eq!(
        dlog::records::BatchHeader::read(&inside.read().unwrap()).unwrap().base_offset.0,
        bases[4],
        "the batch that holds the offset"
    );
    assert!(log.reader().read(Offset(0), log.log_end(), 1, FirstBatch::IfItFits).unwrap().is_none());
    assert!(log.reader().read(log.log_end(), log.log_end(), 100, FirstBatch::Whole).unwrap().is_none());
    assert!(matches!(log.reader().read(log.log_end().plus(1), log.log_end(), 100, FirstBatch::Whole), Err(Error::OffsetOutOfRange { .. })));
    let bounded = log.reader().read(Offset(0), Offset(bases[3]), 1 << 20, FirstBatch::Whole).unwrap().unwrap();
    assert_eq!(dlog::records::batches(&bounded.read().unwrap()).count(), 3, "nothing at or above the bound");
}

#[test]
fn a_log_comes_back_after_a_clean_stop_and_after_a_crash() {
    for how in [Recovery::Clean, CRASHED, Recovery::From(Offset(40))] {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = open(folder.path(), Recovery::Clean);
        let mut bases: Vec<i64> = (0..50).map(|at| append(&mut log, 2, NOW + at, Codec::Lz4).0).collect();
        if how == Recovery::Clean {
            log.close().unwrap();
        }
        drop(log);
        let (mut log, report) = open(folder.path(), how);
        assert_eq!(read_all(&log, Offset(0)), bases, "{how:?}");
        assert_eq!(report.cut_bytes, 0);
        assert_eq!(report.scanned_bytes > 0, how != Recovery::Clean, "{how:?}");
        bases.push(append(&mut log, 2, NOW, Codec::None).0);
        assert_eq!(read_all(&log, Offset(0)), bases);
        assert_eq!(log.epochs().latest(), Some(LeaderEpoch(3)));
    }
}

#[test]
fn a_torn_last_batch_is_cut_off_at_open() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path(), Recovery::Clean);
    let bases: Vec<i64> = (0..5).map(|at| append(&mut log, 2, NOW + at, Codec::None).0).collect();
    let size = log.reader().size();
    drop(log);
    let file = folder.path().join("00000000000000000000.log");
    let whole = std::fs::read(&file).unwrap();
    let last = (size / 5 * 4) as usize;
    for cut in [last + 1, last + 17, last + 61, whole.len() - 1] {
        std::fs::write(&file, &whole[..cut]).unwrap();
        let (log, report) = open(folder.path(), CRASHED);
        assert_eq!(read_all(&log, Offset(0)), bases[..4], "cut at {cut}");
        assert_eq!((report.cut_bytes, log.reader().size()), ((cut - last) as u64, last as u64));
        // Behind what is appended next it would end the log at the next crash, and take later segments with it.
        assert_eq!(std::fs::metadata(&file).unwrap().len(), last as u64);
    }
}

#[test]
fn a_flipped_bit_ends_the_log_before_its_batch_and_later_segments_go() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path(), Recovery::Clean);
    let bases: Vec<i64> = (0..60).map(|at| append(&mut log, 2, NOW + at, Codec::None).0).collect();
    drop(log);
    let file = folder.path().join("00000000000000000000.log");
    let mut bytes = std::fs::read(&file).unwrap();
    let batch = bytes.len() / bytes.len().div_euclid(150);
    let at = bytes.len() - batch / 2;
    bytes[at] ^= 4;
    std::fs::write(&file, &bytes).unwrap();
    let (log, report) = open(folder.path(), CRASHED);
    let left = read_all(&log, Offset(0));
    assert!(!left.is_empty() && left.len() < bases.len() && bases.starts_with(&left));
    assert_eq!(log.reader().segment_count(), 1);
    assert!(report.cut_bytes > 0);
}

#[test]
fn missing_and_wrong_indexes_are_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path(), Recovery::Clean);
    let bases: Vec<i64> = (0..60).map(|at| append(&mut log, 2, NOW + at, Codec::None).0).collect();
    log.close().unwrap();
    drop(log);
    for damage in [None, Some(vec![1_u8; 13]), Some(vec![0xff; 16])] {
        for name in std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()) {
            if name.extension().is_some_and(|x| x == "index" || x == "timeindex") {
                match &damage {
                    None => std::fs::remove_file(name).unwrap(),
                    Some(bytes) => std::fs::write(name, bytes).unwrap(),
                }
            }
        }
        let (mut log, _) = open(folder.path(), Recovery::Clean);
        assert_eq!(read_all(&log, Offset(0)), bases);
        assert_eq!(log.reader().find_by_time(NOW + 30).unwrap().map(|f| f.timestamp_ms), Some(NOW + 30));
        log.close().unwrap();
    }
}

#[test]
fn duplicates_are_recognized_after_a_restart() {
    for how in [Recovery::Clean, CRASHED] {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = open(folder.path(), Recovery::Clean);
        let batch = |sequence| checked(BatchBuilder::new().producer(5, 0, sequence).record(NewRecord::value(b"x")));
        for sequence in 0..30 {
            assert!(!log.append(batch(sequence), Origin::Client, LeaderEpoch(0), NOW).unwrap().duplicate);
        }
        if how == Recovery::Clean {
            log.close().unwrap();
        }
        drop(log);
        let (mut log, _) = open(folder.path(), how);
        let again = log.append(batch(29), Origin::Client, LeaderEpoch(1), NOW).unwrap();
        assert_eq!((again.duplicate, again.base_offset), (true, Offset(29)), "{how:?}");
        assert!(matches!(log.append(batch(31), Origin::Client, LeaderEpoch(1), NOW), Err(Error::OutOfOrderSequence { .. })));
        assert!(!log.append(batch(30), Origin::Client, LeaderEpoch(1), NOW).unwrap().duplicate);
        assert_eq!(log.epochs().end_offset(LeaderEpoch(0), LeaderEpoch(1), log.log_end()), Some((LeaderEpoch(0), Offset(30))));
    }
}

#[test]
fn retention_deletes_oldest_segments_and_readers_keep_what_they_hold() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path(), Recovery::Clean);
    for at in 0..60 {
        append(&mut log, 2, NOW + at * 1000, Codec::None);
    }
    let held = log.reader().read(Offset(0), log.log_end(), 1 << 20, FirstBatch::Whole).unwrap().unwrap();
    let segments = log.reader().segment_count();
    log.configure(LogConfig { retention: Some(Policy { retention_ms: None, retention_bytes: Some(3000) }), ..config() });
    let deleted = log.retain(log.log_end(), NOW).unwrap().count();
    assert_eq!(log.reader().segment_count(), segments - deleted);
    assert!(deleted > 0 && log.reader().size() >= 3000 && log.log_start() > Offset(0));
    assert!(matches!(log.reader().read(Offset(0), log.log_end(), 1, FirstBatch::Whole), Err(Error::OffsetOutOfRange { .. })));
    assert_eq!(dlog::records::batches(&held.read().unwrap()).next().unwrap().unwrap().0.base_offset, Offset(0));
    log.configure(LogConfig { retention: Some(Policy { retention_ms: Some(1), retention_bytes: None }), ..config() });
    log.retain(log.log_end(), NOW + 1_000_000).unwrap();
    assert_eq!((log.log_start(), log.reader().segment_count()), (log.log_end(), 1));
    let end = log.log_end();
    drop(log);
    let (log, _) = open(folder.path(), CRASHED);
    assert_eq!((log.log_start(), log.log_end()), (end, end), "offsets go on where they were");
}

#[test]
fn a_segment_ends_by_time_too() {
    let folder = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes: 1 << 20, segment_ms: 1000, ..config() };
    let (mut log, _) = open_log(folder.path(), config, Recovery::Clean);
    for ms in [0, 1000, 1001, 2001, 2002] {
        append(&mut log, 1, NOW + ms, Codec::None);
    }
    assert_eq!(log.reader().segment_count(), 3);
}

#[test]
fn a_batch_above_the_segment_size_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path(), Recovery::Clean);
    let large = vec![0; 3000];
    let error = log.append(checked(BatchBuilder::new().record(NewRecord::value(&large))), Origin::Client, LeaderEpoch(0), NOW).unwrap_err();
    assert!(matches!(error, Error::LargerThanSegment { .. }));
    assert_eq!(append(&mut log, 1, NOW, Codec::None), Offset(0));
}

#[test]
fn what_hides_in_a_compressed_batch_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path(), Recovery::Clean);
    let good = BatchBuilder::new().codec(Codec::Zstd).record(NewRecord::value(b"x")).build(NOW);
    let mut bytes = good.to_vec();
    let at = bytes.len() - 3;
    bytes[at] ^= 0xff;
    let crc = crc32c::crc32c(&bytes[dlog::records::layout::ATTRIBUTES..]);
    bytes[dlog::records::layout::CRC..dlog::records::layout::CRC + 4].copy_from_slice(&crc.to_be_bytes());
    let trusting = rules(KeyRule::Optional, Look::Trusting);
    log.append(check(&Bytes::from(bytes), &trusting).expect("its header is sound"), Origin::Client, LeaderEpoch(0), NOW).unwrap();
    assert!(matches!(log.reader().find_by_time(NOW), Err(Error::Corrupt { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_search_by_time_finds_the_first_record_that_is_as_new(
        times in proptest::collection::vec((0_i64..500, 1_usize..6), 1..60), wanted in 0_i64..520, codec in 0_usize..3,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = open(folder.path(), Recovery::Clean);
        let codec = [Codec::None, Codec::Gzip, Codec::Zstd][codec];
        let mut records = Vec::new();
        for (first, count) in times {
            let base = append(&mut log, count, NOW + first, codec).0;
            records.extend((0..count as i64).map(|at| (base + at, NOW + first + at)));
        }
        let expected = records.iter().find(|(_, ms)| *ms >= NOW + wanted).copied();
        let found = log.reader().find_by_time(NOW + wanted).unwrap().map(|f| (f.offset.0, f.timestamp_ms));
        prop_assert_eq!(found, expected);
        let largest = records.iter().map(|(_, ms)| *ms).max().unwrap();
        let first_largest = records.iter().find(|(_, ms)| *ms == largest).copied();
        prop_assert_eq!(log.reader().find_largest_time().unwrap().map(|f| (f.offset.0, f.timestamp_ms)), first_largest);
    }
}

#[test]
fn a_search_by_time_knows_of_records_that_were_deleted_out_of_the_middle_of_a_batch() {
    // The second batch goes down, so that what is left when its first records are deleted has another largest time.
    for (codec, append_time) in [(Codec::None, false), (Codec::Gzip, false), (Codec::None, true), (Codec::Gzip, true)] {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = open(folder.path(), Recovery::Clean);
        let times = [[NOW, NOW + 1, NOW + 2], [NOW + 9, NOW + 8, NOW + 7], [NOW + 3, NOW + 4, NOW + 5]];
        let mut records = Vec::new();
        for (batch, times) in times.iter().enumerate() {
            let record = |ms: &i64| NewRecord { timestamp_ms: Some(*ms), ..NewRecord::value(b"x") };
            let builder = times.iter().fold(BatchBuilder::new().codec(codec), |builder, ms| builder.record(record(ms)));
            let of = if append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
            let now_ms = NOW + batch as i64;
            let rules = Rules { timestamp_type: of, now_ms, ..rules(KeyRule::Optional, Look::Full) };
            log.append(check(&builder.build(NOW), &rules).unwrap(), Origin::Client, LeaderEpoch(0), now_ms).unwrap();
            let stored = |ms: &i64| if append_time { now_ms } else { *ms };
            records.extend(times.iter().map(stored));
        }
        for start in 0..=9 {
            log.delete_before(Offset(start), log.log_end(), NOW).unwrap();
            let left: Vec<(i64, i64)> = (start..9).map(|offset| (offset, records[offset as usize])).collect();
            for wanted in NOW - 1..NOW + 11 {
                let found = log.reader().find_by_time(wanted).unwrap().map(|f| (f.offset.0, f.timestamp_ms));
                assert_eq!(found, left.iter().find(|(_, ms)| *ms >= wanted).copied(), "start {start}, {wanted}, {codec:?}");
            }
            let largest = left.iter().map(|(_, ms)| *ms).max();
            let found = log.reader().find_largest_time().unwrap().map(|f| (f.offset.0, f.timestamp_ms));
            assert_eq!(found, left.iter().find(|(_, ms)| Some(*ms) == largest).copied(), "start {start}, {codec:?}");
        }
    }
}

#[test]
fn logs_with_jitter_do_not_all_roll_together() {
    let folder = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_ms: 1000, segment_jitter_ms: 900, ..log_config(1 << 20, 100) };
    let mut rolled_at = std::collections::BTreeSet::new();
    for number in 0..20 {
        let path = folder.path().join(format!("p-{number}"));
        std::fs::create_dir(&path).unwrap();
        let (mut log, _) = open_log(&path, config.clone(), Recovery::New);
        let mut age_ms = 0;
        while log.reader().segment_count() == 1 {
            append(&mut log, 1, NOW + age_ms, Codec::None);
            age_ms += 10;
        }
        assert!((100..=1020).contains(&age_ms), "{age_ms}");
        rolled_at.insert(age_ms);
    }
    assert!(rolled_at.len() > 10, "{rolled_at:?}");
}
