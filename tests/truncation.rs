//! A log that is cut is as one that never held more, whoever is at work on it meanwhile. For crashes see `tests/crash.rs`.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::logs::{NOW, log_config, log_directory, rules};
use common::meeting::MeetingDisk;
use dlog::env::{Clock, Crash, Disk, Env, ManualClock, MemoryDisk};
use dlog::model::{LeaderEpoch, NodeId, Offset, ProducerEpoch, ProducerId, TopicPartition, Uuid};
use dlog::partition::{Appended, Durability, Error, FirstBatch, Keeping, NewReplica, Origin, Partitions, Replica, TopicSettings};
use dlog::records::{BatchBuilder, EpochRule, KeyRule, Look, Marker, NewRecord, TransactionResult, batches, check};
use dlog::storage::{Cleaner, Compaction, Log, LogConfig, OpenFiles, Recovery};

/// What is appended.
#[derive(Clone, Copy)]
enum Step {
    /// Records of a producer (-1 is none), its sequence, and whether they are in a transaction.
    Data { producer: i64, sequence: i32, count: usize, transactional: bool },
    /// The end of a producer's transaction.
    End { producer: i64, result: TransactionResult },
}

/// Batches of producers with and without transactions, which overlap, and end in every way.
fn steps() -> Vec<Step> {
    let mut steps = Vec::new();
    let mut sequences = BTreeMap::<i64, i32>::new();
    for round in 0..8 {
        for (producer, count, transactional) in [(-1, 2, false), (7, 3, false), (5, 1, true), (6, 2, true)] {
            let sequence = sequences.entry(producer).or_insert(0);
            steps.push(Step::Data { producer, sequence: if producer < 0 { -1 } else { *sequence }, count, transactional });
            *sequence += count as i32;
        }
        let result = if round % 3 == 0 { TransactionResult::Commit } else { TransactionResult::Abort };
        steps.push(Step::End { producer: 5, result });
        if round % 4 == 3 {
            steps.push(Step::End { producer: 6, result: TransactionResult::Abort });
        }
    }
    steps
}

fn config() -> LogConfig {
    log_config(1000, 100)
}

/// Takes a step in an epoch that grows now and then; the times of records go up and down.
fn take(log: &mut Log, at: usize, step: Step) {
    let (epoch, time) = (LeaderEpoch(at as i32 / 9), NOW + (at as i64 * 7) % 40);
    match step {
        Step::Data { producer, sequence, count, transactional } => {
            let record = |number| NewRecord { timestamp_ms: Some(time + number), ..NewRecord::value(&[7; 20]) };
            let builder = (0..count as i64).fold(BatchBuilder::new(), |builder, number| builder.record(record(number)));
            let builder = if producer < 0 { builder } else { builder.producer(producer, 0, sequence) };
            let builder = if transactional { builder.transactional() } else { builder };
            let batch = check(&builder.build(NOW), &rules(KeyRule::Optional, Look::Full)).expect("a good batch");
            assert!(!log.append(batch, Origin::Client, epoch, NOW).expect("an append").duplicate);
        }
        Step::End { producer, result } => {
            let (producer_id, producer_epoch) = (ProducerId(producer), ProducerEpoch(0));
            let marker = Marker { producer_id, producer_epoch, result, coordinator_epoch: 3 };
            log.end_transaction(&marker, EpochRule::Stays, epoch, time).expect("a marker").expect("it is new");
        }
    }
}

/// All that anybody can learn of a log.
#[derive(Debug, PartialEq)]
struct Seen {
    end: Offset,
    bytes: Vec<u8>,
    aborted: Vec<(Offset, Vec<(i64, i64)>)>,
    producers: Vec<String>,
    last_stable: Vec<Offset>,
    epochs: Vec<Option<(i32, i64)>>,
    times: Vec<Option<(i64, i64)>>,
    largest: Option<(i64, i64)>,
}

fn seen(log: &Log) -> Seen {
    let (end, reader) = (log.log_end(), log.reader());
    let (mut offset, mut bytes, mut aborted) = (log.log_start(), Vec::new(), Vec::new());
    while let Some(read) = reader.read_committed(offset, end, 1, FirstBatch::Whole).expect("it reads") {
        let batch = read.slice.check().expect("it is sound").read().expect("bytes");
        aborted.push((offset, read.aborted.iter().map(|a| (a.producer_id.0, a.first_offset.0)).collect()));
        offset = batches(&batch).next().expect("a batch").expect("a whole one").0.next_offset();
        bytes.extend(batch);
    }
    let found = |found: dlog::storage::FoundOffset| (found.offset.0, found.timestamp_ms);
    Seen {
        end,
        bytes,
        aborted,
        producers: log.producers().active().map(|producer| format!("{producer:?}")).collect(),
        last_stable: (0..=end.0).map(|offset| log.last_stable(Offset(offset))).collect(),
        epochs: (-1..9).map(|e| log.epochs().end_offset(LeaderEpoch(e), LeaderEpoch(9), end).map(|(e, o)| (e.0, o.0))).collect(),
        times: (0..50).map(|ms| reader.find_by_time(NOW + ms).expect("it reads").map(found)).collect(),
        largest: reader.find_largest_time().expect("it reads").map(found),
    }
}

/// Whether nobody can tell two logs from each other.
fn assert_seen(log: &Log, expected: &Log, when: &str) {
    let (found, expected) = (seen(log), seen(expected));
    assert!(found.bytes == expected.bytes, "{when}: the bytes differ");
    let rest = |seen: Seen| Seen { bytes: Vec::new(), ..seen };
    assert_eq!(rest(found), rest(expected), "{when}");
}

/// Few files may be open, so that they are closed and opened again.
fn open(disk: &MemoryDisk, config: LogConfig, how: Recovery) -> Log {
    let path = Path::new(DATA);
    disk.create_dir(path).expect("a directory");
    Log::open(&OpenFiles::new(Arc::new(disk.clone()), 2), path, config, how, NOW).expect("the log opens").0
}

/// A log with these steps on a disk of its own, and where each of them ends.
fn filled(disk: &MemoryDisk, steps: &[Step]) -> (Log, Vec<Offset>) {
    let mut log = open(disk, config(), Recovery::New);
    let mut ends = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        take(&mut log, at, *step);
        ends.push(log.log_end());
    }
    (log, ends)
}

#[test]
fn a_log_that_is_cut_anywhere_is_as_one_that_never_had_more() {
    let steps = steps();
    let (log, ends) = filled(&memory_disk(), &steps);
    assert!(log.reader().segment_count() > 4);
    for cut in 0..log.log_end().0 {
        let kept = ends.partition_point(|end| end.0 <= cut);
        let (mut expected, _) = filled(&memory_disk(), &steps[..kept]);
        let disk = memory_disk();
        let (mut log, _) = filled(&disk, &steps);
        // Where readers do not see all of it, transactions that ended behind what they see are remembered too.
        log.flush().unwrap();
        log.truncate_to(Offset(cut), Offset(cut / 2), NOW).unwrap();
        expected.advance(Offset(cut / 2));
        assert_seen(&log, &expected, &format!("cut at {cut}"));
        // What comes now is another history.
        for (at, step) in steps[kept..].iter().enumerate().take(14) {
            take(&mut log, kept + at + 9, *step);
            take(&mut expected, kept + at + 9, *step);
        }
        log.advance(log.log_end());
        expected.advance(expected.log_end());
        assert_seen(&log, &expected, &format!("cut at {cut}, and more appended"));
        if cut % 3 == 0 {
            log.flush().unwrap();
        }
        let durable = log.recovery_point();
        for how in [Recovery::From(durable), Recovery::From(Offset(0)), Recovery::Clean] {
            if how == Recovery::Clean {
                log.close().unwrap();
            }
            drop(log);
            log = open(&disk, config(), how);
            log.advance(log.log_end());
            assert_seen(&log, &expected, &format!("cut at {cut}, opened again: {how:?}"));
        }
    }
}

#[test]
fn a_reader_of_what_was_cut_finds_nothing_there_and_never_other_records() {
    let (mut log, ends) = filled(&memory_disk(), &steps());
    let count = ends.len();
    for (cut, held) in [(ends[count - 2], ends[count - 3]), (ends[count / 2], ends[count / 2 - 1]), (Offset(0), Offset(0))] {
        let reader = log.reader().clone();
        let slice = reader.read(held, log.log_end(), 1 << 20, FirstBatch::Whole).unwrap().expect("something");
        let before = slice.read().unwrap();
        log.flush().unwrap();
        log.truncate_to(cut, cut, NOW).unwrap();
        for at in 0..10 {
            take(&mut log, 90 + at, Step::Data { producer: -1, sequence: -1, count: 1, transactional: false });
        }
        assert!(before.starts_with(&slice.read().unwrap()), "cut at {cut}");
    }
}

#[test]
fn a_log_is_not_cut_below_its_start_and_where_it_ends_nothing_happens() {
    let (mut log, ends) = filled(&memory_disk(), &steps());
    let (end, start) = (log.log_end(), ends[20]);
    log.delete_before(start, end, NOW).unwrap();
    log.flush().unwrap();
    let before = seen(&log);
    assert!(log.truncate_to(start.plus(-1), end, NOW).is_err());
    log.truncate_to(end, end, NOW).unwrap();
    log.truncate_to(end.plus(5), end, NOW).unwrap();
    assert!(seen(&log) == before);
    log.truncate_to(start, end, NOW).unwrap();
    assert_eq!((log.log_start(), log.log_end()), (start, start));
}

#[test]
fn a_log_whose_end_lies_in_a_gap_of_compaction_below_its_start_goes_on_at_its_start() {
    let disk = memory_disk();
    let compaction = Compaction { dirty_ratio: 0.0, min_lag_ms: 0, max_lag_ms: i64::MAX, delete_retention_ms: 0 };
    let mut log = open(&disk, LogConfig { compaction: Some(compaction), ..config() }, Recovery::New);
    for at in 0..60 {
        let key = [if at == 0 { 1 } else { 2 }];
        let batch = BatchBuilder::new().record(NewRecord::keyed(&key, Some(&[7; 20]))).build(NOW);
        let batch = check(&batch, &rules(KeyRule::Required, Look::Full)).unwrap();
        log.append(batch, Origin::Client, LeaderEpoch(0), NOW).unwrap();
    }
    log.flush().unwrap();
    let cleaning = log.cleaning(None, log.log_end(), NOW).unwrap().expect("it is dirty");
    let cleaner = Cleaner::new(&*Env::real().entropy, 1 << 20);
    cleaner
        .clean(&OpenFiles::new(Arc::new(disk.clone()), 2), &cleaning, NOW, &mut |_| true, |replacement| log.replace(replacement))
        .unwrap();
    log.delete_before(Offset(3), log.log_end(), NOW).unwrap();
    log.truncate_to(Offset(4), log.log_end(), NOW).unwrap();
    assert_eq!((log.log_start(), log.log_end()), (Offset(3), Offset(3)));
    let batch = check(&BatchBuilder::new().record(NewRecord::keyed(b"k", None)).build(NOW), &rules(KeyRule::Required, Look::Full)).unwrap();
    assert_eq!(log.append(batch, Origin::Client, LeaderEpoch(1), NOW).unwrap().base_offset, Offset(3));
    drop(log);
    assert_eq!(open(&disk, config(), Recovery::From(Offset(0))).log_end(), Offset(4));
}

const DATA: &str = "/data/dlog";
const SYNCED: Keeping = Keeping { durability: Durability::Fsync, files_max: 1000 };

/// A disk in memory with the partitions 0 and 1 of a topic.
fn partitions(disk: &MemoryDisk, keeping: Keeping, epoch: i32, own: &[(&str, &str)]) -> Arc<Partitions> {
    partitions_on(Arc::new(disk.clone()), keeping, epoch, own).0
}

/// With the number of bytes that were scanned.
fn partitions_on(disk: Arc<dyn Disk>, keeping: Keeping, epoch: i32, own: &[(&str, &str)]) -> (Arc<Partitions>, u64) {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW));
    let env = Env { clock, disk, ..Env::real() };
    let directory = log_directory(&env, Path::new(DATA)).expect("the directory opens");
    let partitions = Partitions::new(env, vec![directory], Vec::new(), keeping);
    let own: BTreeMap<String, String> = own.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let new = |number| NewReplica {
        id: TopicPartition::new("t", number),
        topic_id: Uuid([9; 16]),
        leader_epoch: LeaderEpoch(epoch),
        settings: TopicSettings::of(&own, &BTreeMap::new()),
        is_known: epoch > 0,
    };
    let recovered = partitions.lead(vec![new(0), new(1)]);
    assert_eq!(recovered.replicas, 2);
    (Arc::new(partitions), recovered.scanned_bytes)
}

fn memory_disk() -> MemoryDisk {
    MemoryDisk::new(Arc::new(ManualClock::at(NOW)))
}

fn produce(replica: &Replica, key: &str, value: &str) -> Appended {
    let batch = BatchBuilder::new().record(NewRecord::keyed(key.as_bytes(), Some(value.as_bytes()))).build(NOW);
    replica.produce(&batch, Origin::Client, None, NOW).expect("an append")
}

#[tokio::test]
async fn who_waits_for_a_commit_is_told_when_the_leader_changes_and_never_that_it_is_committed() {
    let partitions = partitions(&memory_disk(), SYNCED, 3, &[]);
    let replica = partitions.get("t", 0).unwrap();
    produce(&replica, "k", "committed");
    partitions.commit(0).unwrap();
    let lost = produce(&replica, "k", "lost");
    let (waiting, of) = (replica.clone(), lost.position);
    let waiting = tokio::spawn(async move { waiting.committed(of).await });
    tokio::task::yield_now().await;
    replica.become_follower(LeaderEpoch(4)).unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(Error::NotLeader(_))), "told at once");
    assert!(matches!(
        replica.produce(&BatchBuilder::new().record(NewRecord::value(b"x")).build(NOW), Origin::Client, None, NOW),
        Err(Error::NotLeader(_))
    ));
    assert!(
        matches!(replica.check_epoch(-1), Err(Error::NotLeader(_)))
            && matches!(replica.check_epoch(3), Err(Error::FencedLeaderEpoch { .. }))
    );
    assert!(replica.position().is_err() && replica.delete_before(None, NOW).is_err());
    assert_eq!(partitions.truncate(&replica, lost.base_offset).unwrap(), lost.base_offset);
    replica.become_leader(LeaderEpoch(5), &[]).unwrap();
    let other = produce(&replica, "k", "another one");
    partitions.commit(0).unwrap();
    assert_eq!((other.base_offset, replica.view().high_watermark), (lost.base_offset, lost.position.end));
    // Something is committed at its offset, and it is not this.
    assert!(matches!(replica.is_committed(lost.position), Err(Error::NotLeader(_))));
    assert!(matches!(replica.committed(lost.position).await, Err(Error::NotLeader(_))));
    replica.committed(other.position).await.unwrap();
}

#[test]
fn a_new_leader_notes_where_its_epoch_begins_before_it_writes() {
    let partitions = partitions(&memory_disk(), Keeping::default(), 0, &[]);
    let replica = partitions.get("t", 0).unwrap();
    produce(&replica, "k", "1");
    // Three leaders in a row, of which only the last one writes.
    for epoch in [2, 4, 6] {
        replica.become_follower(LeaderEpoch(epoch - 1)).unwrap();
        replica.become_leader(LeaderEpoch(epoch), &[]).unwrap();
        let ends = [0, epoch - 1, epoch, epoch + 1].map(|epoch| replica.epoch_end(LeaderEpoch(epoch)).map(|(e, o)| (e.0, o.0)));
        assert_eq!(ends, [Some((0, 1)), Some((0, 1)), Some((epoch, 1)), None]);
    }
    produce(&replica, "k", "2");
    assert_eq!([2, 6].map(|epoch| replica.epoch_end(LeaderEpoch(epoch)).map(|(e, o)| (e.0, o.0))), [Some((0, 1)), Some((6, 2))]);
    assert!(replica.become_leader(LeaderEpoch(5), &[]).is_err() && replica.become_follower(LeaderEpoch(6)).is_err());
}

#[test]
fn a_high_watermark_waits_for_the_in_sync_set_and_is_not_the_logs_end() {
    let partitions = partitions(&memory_disk(), Keeping::default(), 0, &[]);
    let replica = partitions.get("t", 0).unwrap();
    produce(&replica, "k", "1");
    assert_eq!(replica.view().high_watermark, Offset(1));
    replica.become_leader(LeaderEpoch(0), &[NodeId(2)]).unwrap();
    let second = produce(&replica, "k", "2");
    assert_eq!((replica.view().high_watermark, replica.view().log_end), (Offset(1), Offset(2)));
    assert!(!replica.is_committed(second.position).unwrap());
    assert!(replica.read(Offset(1), 1000, FirstBatch::Whole).unwrap().is_none(), "consumers do not see it");
    // It left the set: what is here is committed.
    replica.become_leader(LeaderEpoch(0), &[]).unwrap();
    assert!(replica.is_committed(second.position).unwrap());
}

/// Key and value of all records.
fn values(replica: &Replica) -> Vec<String> {
    let (mut found, mut offset) = (Vec::new(), replica.view().log_start);
    while let Some(slice) = replica.read(offset, 1 << 20, FirstBatch::Whole).expect("it reads") {
        let bytes = slice.check().expect("it is sound").read().expect("bytes");
        for batch in batches(&bytes) {
            let (header, batch) = batch.expect("a whole batch");
            let opened = header.open(batch, 1 << 20).expect("it opens");
            for record in opened.records() {
                found.push(String::from_utf8(record.expect("a record").value.unwrap_or_default().to_vec()).unwrap());
            }
            offset = header.next_offset();
        }
    }
    found
}

#[test]
fn a_truncation_meets_commits_and_flushes() {
    // A commit once read what was cut off meanwhile; a flush once wrote a recovery point above the end.
    for keeping in [SYNCED, Keeping::default()] {
        let disk = memory_disk();
        let partitions = partitions(&disk, keeping, 0, &[("segment.bytes", "1048576")]);
        let replica = partitions.get("t", 0).unwrap();
        let (ends, other) = (AtomicBool::new(false), partitions.get("t", 1).unwrap());
        let mut expected = Vec::new();
        /// Ends the threads, also where an assertion of the test fails.
        struct Ends<'a>(&'a AtomicBool);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let until_it_ends = |work: &dyn Fn()| {
            while !ends.load(Ordering::Relaxed) {
                work();
            }
        };
        let until_it_ends = &until_it_ends;
        std::thread::scope(|scope| {
            let _ends = Ends(&ends);
            let (partitions, other) = (&partitions, &other);
            let commits = move || until_it_ends(&|| partitions.commit(0).expect("a commit"));
            let _ = [scope.spawn(commits), scope.spawn(commits)];
            scope.spawn(move || until_it_ends(&|| partitions.flush().expect("a flush")));
            scope.spawn(move || {
                until_it_ends(&|| {
                    produce(other, "k", "beside it");
                    std::thread::yield_now();
                })
            });
            for round in 0..60_i32 {
                for at in 0..5 {
                    expected.push(format!("{round} {at}"));
                    produce(&replica, "k", &expected[expected.len() - 1]);
                }
                replica.become_follower(LeaderEpoch(2 * round + 1)).unwrap();
                expected.truncate(expected.len() - 3);
                assert_eq!(partitions.truncate(&replica, Offset(expected.len() as i64)).unwrap(), Offset(expected.len() as i64));
                replica.become_leader(LeaderEpoch(2 * round + 2), &[]).unwrap();
            }
        });
        partitions.commit(0).unwrap();
        assert_eq!((values(&replica), partitions.is_offline()), (expected.clone(), false));
        let after = if keeping.durability == Durability::Fsync { Crash::Power } else { Crash::Process };
        let again = self::partitions(&disk.after(after), keeping, 999, &[]);
        assert_eq!(values(&again.get("t", 0).unwrap()), expected);
    }
}

/// Runs `first`, and `second` on another thread from the operation of this number on; returns whether there was one.
fn meet(disk: &MeetingDisk, operation: u64, first: impl FnOnce(), second: impl FnOnce() + Send) -> bool {
    /// Where the second waits for the first, that goes on.
    const MEETING: Duration = Duration::from_millis(15);
    let (begin, begins) = channel::<()>();
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // An error says that the first has ended.
            let _ = begins.recv();
            second();
            let _ = done.send(());
        });
        disk.meet_at(operation, move || {
            let _ = begin.send(());
            let _ = is_done.recv_timeout(MEETING);
        });
        first();
        disk.end().len() as u64 > operation
    })
}

#[test]
fn a_truncation_meets_a_stop() {
    // Whichever comes first: the next start finds a clean stop, and either the whole log or the truncated one.
    for (keeping, truncates_first) in [(SYNCED, true), (SYNCED, false), (Keeping::default(), true), (Keeping::default(), false)] {
        for operation in 0.. {
            let disk = MeetingDisk::new(memory_disk());
            let (partitions, _) = partitions_on(Arc::new(disk.clone()), keeping, 0, &[("segment.bytes", "300")]);
            let replica = partitions.get("t", 0).unwrap();
            let mut expected: Vec<String> = (0..8).map(|at| format!("{at}")).collect();
            for value in &expected {
                produce(&replica, "k", value);
            }
            partitions.commit(0).unwrap();
            replica.become_follower(LeaderEpoch(1)).unwrap();
            let truncated = Mutex::new(None);
            let truncate = || *truncated.lock().unwrap() = Some(partitions.truncate(&replica, Offset(5)));
            let stop = || partitions.close().expect("a clean stop");
            let met = if truncates_first { meet(&disk, operation, truncate, stop) } else { meet(&disk, operation, stop, truncate) };
            match truncated.into_inner().unwrap().expect("it has ended") {
                Ok(end) => expected.truncate(end.0 as usize),
                Err(Error::Closed(_)) => {}
                Err(error) => panic!("operation {operation}: {error}"),
            }
            assert!(!partitions.is_offline() && disk.exists(&Path::new(DATA).join(".kafka_cleanshutdown")), "operation {operation}");
            drop((partitions, replica));
            let (again, scanned_bytes) = partitions_on(Arc::new(disk.disk().clone()), keeping, 2, &[]);
            assert_eq!((values(&again.get("t", 0).unwrap()), scanned_bytes), (expected, 0), "operation {operation}");
            if !met {
                break;
            }
        }
    }
}

#[test]
fn a_stop_that_is_not_quiet_leaves_no_mark_and_loses_nothing() {
    let disk = memory_disk();
    let partitions = partitions(&disk, SYNCED, 0, &[]);
    let replica = partitions.get("t", 0).unwrap();
    produce(&replica, "k", "1");
    partitions.close_unmarked().unwrap();
    assert!(!disk.exists(&Path::new(DATA).join(".kafka_cleanshutdown")));
    let again = self::partitions(&disk.after(Crash::Power), SYNCED, 1, &[]);
    assert_eq!(values(&again.get("t", 0).unwrap()), ["1"]);
}

#[test]
fn a_truncation_meets_a_compaction() {
    let disk = memory_disk();
    let own = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.01"), ("segment.bytes", "1000")];
    let partitions = partitions(&disk, Keeping::default(), 0, &own);
    let replica = partitions.get("t", 0).unwrap();
    let cleaner = Cleaner::new(&*Env::real().entropy, 1 << 20);
    for (round, batches) in [0, 3, 30, 45, 70].into_iter().enumerate() {
        let round = round as i32;
        while replica.view().log_end < Offset(60) {
            let at = replica.view().log_end;
            produce(&replica, &format!("{}", at.0 % 50), &format!("{round} {at}"));
        }
        // After some batches that compaction reads or writes the log is cut under its hands.
        let mut left = batches;
        let mut pace = |_: usize| {
            left -= 1;
            if left == 0 {
                replica.become_follower(LeaderEpoch(2 * round + 1)).unwrap();
                partitions.truncate(&replica, Offset(25)).unwrap();
                replica.become_leader(LeaderEpoch(2 * round + 2), &[]).unwrap();
            }
            true
        };
        let compacted = partitions.compact(&cleaner, &Default::default(), &mut pace);
        compacted.map(|(_, cleaned)| cleaned.expect("a truncation is no error")).into_iter().for_each(drop);
        let end = replica.view().log_end.0;
        let last: BTreeMap<i64, String> =
            values(&replica).into_iter().map(|v| v.split(' ').next_back().unwrap().parse().map(|at: i64| (at % 50, v)).unwrap()).collect();
        let kept: Vec<i64> = (0..50.min(end)).filter(|key| !last.contains_key(key)).collect();
        assert!(kept.is_empty(), "round {round}: keys {kept:?} have no value, and the log ends at {end}");
    }
}

#[test]
fn a_broken_invariant_takes_its_directory_offline_and_no_other_one() {
    let disk = memory_disk();
    let env = Env { clock: Arc::new(ManualClock::at(NOW)), disk: Arc::new(disk.clone()), ..Env::real() };
    let directories = ["/one", "/two"].map(|path| log_directory(&env, Path::new(path)).expect("the directory opens"));
    let partitions = Partitions::new(env, directories.into(), Vec::new(), Keeping::default());
    let new = |number| NewReplica {
        id: TopicPartition::new("t", number),
        topic_id: Uuid([9; 16]),
        leader_epoch: LeaderEpoch(0),
        settings: TopicSettings::of(&BTreeMap::new(), &BTreeMap::new()),
        is_known: false,
    };
    assert_eq!(partitions.lead(vec![new(0), new(1)]).replicas, 2);
    let [broken, other] = [0, 1].map(|number| partitions.get("t", number).unwrap());
    produce(&broken, "k", "1");
    produce(&other, "k", "1");
    // A leader never truncates its log.
    let panicked = std::thread::scope(|scope| scope.spawn(|| partitions.truncate(&broken, Offset(0))).join());
    let message = *panicked.expect_err("a panic").downcast::<String>().expect("a message");
    assert!(message.contains("t-0") && message.contains("epoch 0"), "{message}");
    let batch = BatchBuilder::new().record(NewRecord::value(b"x")).build(NOW);
    assert!(matches!(broken.produce(&batch, Origin::Client, None, NOW), Err(Error::Offline(_))));
    assert!(matches!(broken.read(Offset(0), 1000, FirstBatch::Whole), Err(Error::Offline(_))));
    produce(&other, "k", "2");
    assert_eq!((partitions.is_directory_offline(0), partitions.is_directory_offline(1)), (true, false));
}
