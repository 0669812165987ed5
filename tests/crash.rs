//! Crashes: a workload over partitions is cut at every operation on the disk, torn or not, with or without what was not durable; then the
//! directory is opened again, and what is there is compared with what was acknowledged.
//!
//! `CRASH_SEEDS=n` draws n chances at each operation for power cuts that leave a part of what was not durable (3 without it).

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use common::logs::{NOW, abort, log_directory};
use dlog::env::{Crash, Cut, Disk, Entropy, Env, ManualClock, MemoryDisk};
use dlog::model::{LeaderEpoch, Offset, TopicPartition, Uuid};
use dlog::partition::{Durability, FirstBatch, Keeping, NewReplica, Origin, Partitions, Replica, TopicSettings};
use dlog::records::{BatchBuilder, NewRecord, Records, batches, layout};
use dlog::storage::{Cleaner, Depth, Recovery, dump};

const DATA: &str = "/data/dlog";
/// The topics of the workload, with their settings.
const TOPICS: [(&str, &[(&str, &str)]); 4] = [
    ("plain", &[]),
    ("short", &[("retention.bytes", "3000")]),
    ("compacted", &[("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.01")]),
    ("deleted", &[]),
];

/// Numbers one after the other: the same in every run.
#[derive(Default)]
struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            chunk.copy_from_slice(&number.to_be_bytes()[..chunk.len()]);
        }
    }
}

fn env(disk: &MemoryDisk) -> Env {
    Env { clock: Arc::new(ManualClock::at(NOW)), entropy: Arc::new(Counted::default()), disk: Arc::new(disk.clone()), ..Env::real() }
}

fn settings(of: &[(&str, &str)]) -> TopicSettings {
    // Segments are small, so that there are many; a user may not set them so.
    let small = [("segment.bytes", "1000"), ("index.interval.bytes", "200")];
    let own: BTreeMap<String, String> = small.iter().chain(of).map(|(k, v)| (k.to_string(), v.to_string())).collect();
    TopicSettings::of(&own, &BTreeMap::new())
}

fn topic_id(name: &str) -> Uuid {
    topic_id_of(name, 0)
}

/// A topic that is created again has another id.
fn topic_id_of(name: &str, generation: u8) -> Uuid {
    let mut bytes = [7 + generation; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Uuid::from_random(bytes)
}

fn id(topic: &str) -> TopicPartition {
    TopicPartition::new(topic, 0)
}

/// Few files may be open, so that they are closed and opened again; closing one that is dirty syncs it.
const FEW_FILES: Keeping = Keeping { durability: Durability::Default, files_max: 2 };
/// Nothing is synced but where somebody says so.
const MANY_FILES: Keeping = Keeping { durability: Durability::Default, files_max: 1000 };
const SYNCED: Keeping = Keeping { durability: Durability::Fsync, files_max: 2 };

fn open(disk: &MemoryDisk, keeping: Keeping, topics: &[&str], epoch: i32) -> Result<Partitions, String> {
    let topics: Vec<(&str, u8)> = topics.iter().map(|topic| (*topic, 0)).collect();
    open_after(disk, keeping, &topics, &BTreeSet::new(), epoch)
}

/// Opens topics, each by its name and how often it was created before, where others were deleted.
fn open_after(
    disk: &MemoryDisk,
    keeping: Keeping,
    topics: &[(&str, u8)],
    deleted: &BTreeSet<Uuid>,
    epoch: i32,
) -> Result<Partitions, String> {
    let env = env(disk);
    let directory = log_directory(&env, Path::new(DATA));
    let partitions = Partitions::new(env, vec![directory.map_err(|e| e.to_string())?], Vec::new(), keeping);
    let retired = partitions.retire_deleted(deleted);
    partitions.remove(retired, || true).map_err(|e| e.to_string())?;
    let left = partitions.left_to_remove().map_err(|e| e.to_string())?;
    partitions.remove(left, || true).map_err(|e| e.to_string())?;
    partitions.lead(topics.iter().map(|(name, generation)| replica(name, *generation, epoch)).collect());
    Ok(partitions)
}

fn replica(name: &str, generation: u8, epoch: i32) -> NewReplica {
    let own = TOPICS.iter().find(|(topic, _)| *topic == name).map_or(&[][..], |(_, own)| own);
    NewReplica {
        id: id(name),
        topic_id: topic_id_of(name, generation),
        leader_epoch: LeaderEpoch(epoch),
        settings: settings(own),
        is_known: epoch > 0,
    }
}

/// What a topic must hold.
#[derive(Default, Clone)]
struct Expected {
    /// Key and value of each acknowledged record, from offset 0.
    acknowledged: Vec<(u8, String)>,
    /// Sent, and not acknowledged: it may be there or not.
    open: Option<(u8, String)>,
    /// So many of them are durable.
    durable: usize,
    /// Records below may be gone.
    deletable: usize,
    /// How often a topic of this name was created before.
    generation: u8,
    /// Records from here on are being cut off: they may be gone, or there.
    cutting: Option<usize>,
    /// How often records were cut off; those that take their offsets are others.
    cuts: usize,
}

type Model = BTreeMap<&'static str, Expected>;

/// Appends to topics, one record each, and acknowledges what is committed.
fn produce(partitions: &Partitions, keeping: Keeping, model: &mut Model, topics: &[&'static str], key: u8) -> Result<(), String> {
    for topic in topics {
        append(partitions, keeping, model, topic, key)?;
    }
    if keeping.durability == Durability::Fsync {
        partitions.commit(0).map_err(|e| e.to_string())?;
    }
    for topic in topics {
        let expected = model.entry(topic).or_default();
        let view = partitions.get(topic, 0).ok_or("no replica")?.view();
        if view.high_watermark < view.log_end {
            return Err("the high watermark stays behind".into());
        }
        expected.acknowledged.extend(expected.open.take());
        if keeping.durability == Durability::Fsync {
            expected.durable = expected.acknowledged.len();
        }
    }
    Ok(())
}

fn append(partitions: &Partitions, keeping: Keeping, model: &mut Model, topic: &'static str, key: u8) -> Result<(), String> {
    let expected = model.entry(topic).or_default();
    let value = format!("{topic} {} {} {} {}", expected.generation, expected.cuts, expected.acknowledged.len(), "x".repeat(60));
    expected.open = Some((key, value.clone()));
    let batch = BatchBuilder::new().record(NewRecord::keyed(&[key], Some(value.as_bytes()))).build(NOW);
    let replica = partitions.get(topic, 0).ok_or("no replica")?;
    let appended = replica.produce(&batch, Origin::Client, None, NOW).map_err(|e| e.to_string())?;
    assert_eq!(appended.base_offset, Offset(expected.acknowledged.len() as i64));
    // No reader sees what is not committed.
    let shown = replica.read(appended.base_offset, 1, FirstBatch::Whole).map_err(|e| e.to_string())?;
    assert_eq!(shown.is_some(), keeping.durability == Durability::Default);
    Ok(())
}

fn flush(partitions: &Partitions, model: &mut Model) -> Result<(), String> {
    partitions.flush().map_err(|e| e.to_string())?;
    model.values_mut().for_each(|expected| expected.durable = expected.acknowledged.len());
    Ok(())
}

/// Whether the workload flushes now and then, or leaves it to the broker.
#[derive(Clone, Copy, PartialEq)]
enum Flushes {
    Often,
    Never,
}

/// Produces, rolls, flushes, retains, compacts, deletes a topic and records, stops and starts again. Ends with the first error, as a broker
/// whose disk is gone.
fn workload(disk: &MemoryDisk, keeping: Keeping, flushes: Flushes, model: &mut Model) -> Result<(), String> {
    let mut partitions = open(disk, keeping, &["plain", "short", "compacted", "deleted"], 0)?;
    for round in 0..6_u8 {
        for at in 0..7_u8 {
            produce(&partitions, keeping, model, &["plain", "short", "compacted"], at % 4)?;
        }
        if round == 1 {
            for at in 0..3 {
                produce(&partitions, keeping, model, &["deleted"], at)?;
            }
            let deleted = partitions.get("deleted", 0).ok_or("no replica")?;
            model.entry("deleted").or_default().deletable = 2;
            partitions.delete_records(&[(deleted, Some(Offset(2)))]).map_err(|e| e.to_string())?;
        }
        if round > 2 {
            // Of the topic that was created again.
            produce(&partitions, keeping, model, &["deleted"], 0)?;
        }
        // What retention may delete is known only afterwards.
        if let Some(short) = model.get_mut("short") {
            short.deletable = short.acknowledged.len();
        }
        for (_, result) in partitions.maintain(i64::MAX) {
            result.map_err(|e| e.to_string())?;
        }
        if round % 2 == 1 && flushes == Flushes::Often {
            flush(&partitions, model)?;
        }
        let cleaner = Cleaner::new(&Counted::default(), 1 << 10);
        while let Some((_, result)) = partitions.compact(&cleaner, &Default::default(), &mut |_| true) {
            result.map_err(|e| e.to_string())?;
        }
        if round == 2 {
            model.remove("deleted");
            let retired = partitions.delete(&["deleted".into()]);
            partitions.lead(vec![replica("deleted", 1, 0)]);
            model.insert("deleted", Expected { generation: 1, ..Expected::default() });
            produce(&partitions, keeping, model, &["deleted"], 0)?;
            partitions.remove(retired, || true).map_err(|e| e.to_string())?;
        }
        if round == 3 {
            // Alone for a while, it is synced where it lies.
            for at in 0..10_u8 {
                produce(&partitions, keeping, model, &["plain"], at % 4)?;
            }
            let plain = partitions.get("plain", 0).ok_or("no replica")?;
            model.entry("plain").or_default().deletable = 5;
            let deleted = partitions.delete_records(&[(plain, Some(Offset(5)))]).map_err(|e| e.to_string())?;
            assert_eq!(*deleted[0].as_ref().map_err(|e| e.to_string())?, Offset(5));
        }
        if round == 4 {
            partitions.close().map_err(|e| e.to_string())?;
            model.values_mut().for_each(|expected| expected.durable = expected.acknowledged.len());
            drop(partitions);
            partitions = open_after(disk, keeping, &[("plain", 0), ("short", 0), ("compacted", 0), ("deleted", 1)], &gone(model), 1)?;
        }
    }
    partitions.close().map_err(|e| e.to_string())?;
    model.values_mut().for_each(|expected| expected.durable = expected.acknowledged.len());
    Ok(())
}

/// Produces to a topic that is truncated now and then, as a follower does, and to one beside it; stops and starts again.
fn truncations(disk: &MemoryDisk, keeping: Keeping, flushes: Flushes, model: &mut Model) -> Result<(), String> {
    let mut partitions = open(disk, keeping, &["plain", "short"], 0)?;
    let mut epoch = 0;
    // Within a segment, at one's begin, over several segments, down to what was written since the last time, and to nothing.
    for (round, kept) in [5, 9, 13, 3, 8, 0, 4].into_iter().enumerate() {
        for at in 0..7_u8 {
            produce(&partitions, keeping, model, &["plain", "short"], at % 4)?;
        }
        if round % 2 == 1 && flushes == Flushes::Often {
            flush(&partitions, model)?;
        }
        let plain = partitions.get("plain", 0).ok_or("no replica")?;
        plain.become_follower(LeaderEpoch(epoch + 1)).map_err(|e| e.to_string())?;
        let expected = model.entry("plain").or_default();
        expected.cutting = Some(kept);
        assert_eq!(partitions.truncate(&plain, Offset(kept as i64)).map_err(|e| e.to_string())?, Offset(kept as i64));
        expected.acknowledged.truncate(kept);
        (expected.cutting, expected.durable, expected.cuts) = (None, kept, expected.cuts + 1);
        epoch += 2;
        plain.become_leader(LeaderEpoch(epoch), &[]).map_err(|e| e.to_string())?;
        if round == 3 {
            partitions.close().map_err(|e| e.to_string())?;
            model.values_mut().for_each(|expected| expected.durable = expected.acknowledged.len());
            drop((plain, partitions));
            epoch += 1;
            partitions = open(disk, keeping, &["plain", "short"], epoch)?;
        }
    }
    // More than was ever cut off, so that nothing of it could hide behind the end.
    for at in 0..14_u8 {
        produce(&partitions, keeping, model, &["plain", "short"], at % 4)?;
    }
    Ok(())
}

/// Key and value by offset.
type Found = BTreeMap<usize, (u8, String)>;

/// All records from the log's start on; the end of the last batch.
fn read(replica: &Replica) -> Result<(Found, i64), String> {
    let mut found = BTreeMap::new();
    let mut offset = replica.view().log_start;
    let end = replica.view().log_end;
    while offset < end {
        let slice = replica.read(offset, 1 << 20, FirstBatch::Whole).map_err(|e| e.to_string())?;
        let slice = slice.ok_or(format!("nothing at {offset} below {end}"))?;
        let bytes = slice.check().map_err(|e| e.to_string())?.read().map_err(|e| e.to_string())?;
        for batch in batches(&bytes) {
            let (header, batch) = batch.map_err(|e| e.to_string())?;
            header.check_crc(batch).map_err(|e| e.to_string())?;
            for record in Records::new(&batch[layout::SIZE..], header.records_count) {
                let record = record.map_err(|e| e.to_string())?;
                let text = String::from_utf8(record.value.unwrap_or_default().to_vec()).map_err(|e| e.to_string())?;
                found.insert((header.base_offset.0 + i64::from(record.offset_delta)) as usize, (record.key.unwrap_or_default()[0], text));
            }
            offset = header.next_offset();
        }
    }
    Ok((found, end.0))
}

fn last_of_each_key<'a>(records: impl Iterator<Item = &'a (u8, String)>) -> BTreeMap<u8, String> {
    records.map(|(key, value)| (*key, value.clone())).collect()
}

/// What is wrong with a topic after a crash.
fn compare(topic: &str, expected: &Expected, crash: Crash, replica: &Replica) -> Result<(), String> {
    let (found, end) = read(replica)?;
    let end = end as usize;
    let sent: Vec<(u8, String)> = expected.acknowledged.iter().chain(&expected.open).cloned().collect();
    let least = if crash == Crash::Process { expected.acknowledged.len() } else { expected.durable };
    let least = expected.cutting.map_or(least, |to| least.min(to));
    if end < least || end > sent.len() {
        return Err(format!("{topic} ends at {end}, expected {least} to {}", sent.len()));
    }
    if let Some((offset, record)) = found.iter().find(|(offset, record)| sent.get(**offset) != Some(record)) {
        return Err(format!("{topic}: at {offset} lies {record:?}, sent was {:?}", sent.get(*offset)));
    }
    if topic == "compacted" {
        let (found, wanted) = (last_of_each_key(found.values()), last_of_each_key(sent[..end].iter()));
        return if found == wanted { Ok(()) } else { Err(format!("{topic}: the last values are {found:?}, expected {wanted:?}")) };
    }
    let first = found.keys().next().copied().unwrap_or(end);
    if first > expected.deletable.min(end.max(expected.deletable)) || found.len() != end - first {
        return Err(format!(
            "{topic} holds {} records from {first} to {end}; those from {} on must be there",
            found.len(),
            expected.deletable
        ));
    }
    Ok(())
}

/// The ids of deleted topics, as the metadata has them.
fn gone(model: &Model) -> BTreeSet<Uuid> {
    let is_gone = model.get("deleted").is_none_or(|expected| expected.generation > 0);
    is_gone.then(|| topic_id("deleted")).into_iter().collect()
}

/// Opens the directory after a crash without an operator, compares it, and goes on with it.
fn reopen(disk: &MemoryDisk, keeping: Keeping, crash: Crash, model: &Model) -> Result<(), String> {
    let topics: Vec<(&str, u8)> = model.iter().map(|(topic, expected)| (*topic, expected.generation)).collect();
    for (epoch, again) in [(5, "after the crash"), (6, "after a clean stop")] {
        let wrong = |what: String| format!("{again}: {what}");
        let partitions = open_after(disk, keeping, &topics, &gone(model), epoch).map_err(wrong)?;
        for (topic, expected) in model {
            let replica = partitions.get(topic, 0).ok_or_else(|| wrong(format!("{topic} is not there")))?;
            compare(topic, expected, crash, &replica).map_err(wrong)?;
            let batch: Bytes = BatchBuilder::new().record(NewRecord::keyed(b"z", Some(b"new"))).build(NOW);
            if again != "after the crash" {
                let end = replica.view().log_end;
                assert_eq!(replica.produce(&batch, Origin::Client, None, NOW).map_err(|e| wrong(e.to_string()))?.base_offset, end);
                partitions.commit(0).map_err(|e| wrong(e.to_string()))?;
                assert_eq!(read(&replica).map_err(wrong)?.1, end.0 + 1);
            }
        }
        partitions.close().map_err(|e| wrong(e.to_string()))?;
    }
    Ok(())
}

#[test]
fn every_operation_may_be_the_last() {
    cut_everywhere(workload, FEW_FILES, Flushes::Often, None);
}

#[test]
fn every_operation_of_a_truncation_may_be_the_last() {
    cut_everywhere(truncations, FEW_FILES, Flushes::Often, None);
}

#[test]
fn what_was_cut_off_does_not_come_back_from_the_commit_journal() {
    cut_everywhere(truncations, SYNCED, Flushes::Often, None);
}

#[test]
fn what_was_cut_off_does_not_come_back_from_any_of_the_files_of_a_commit_journal() {
    // Each file takes one commit, so that what is cut lies in many, and some are used again.
    cut_everywhere(truncations, Keeping { files_max: 1000, ..SYNCED }, Flushes::Never, Some(1 << 20));
}

#[test]
fn every_operation_may_be_the_last_with_all_files_open() {
    cut_everywhere(workload, MANY_FILES, Flushes::Often, None);
}

#[test]
fn every_operation_may_be_the_last_and_what_was_acknowledged_survives_a_power_cut() {
    cut_everywhere(workload, SYNCED, Flushes::Often, None);
}

#[test]
fn every_operation_may_be_the_last_while_the_commit_journal_is_full_now_and_then() {
    // Each file takes one commit, and the logs are flushed only where none is left.
    cut_everywhere(workload, Keeping { files_max: 1000, ..SYNCED }, Flushes::Never, Some(1 << 20));
}

/// What a broker does until its disk is gone.
type Workload = fn(&MemoryDisk, Keeping, Flushes, &mut Model) -> Result<(), String>;

fn fresh_disk(capacity: Option<u64>) -> MemoryDisk {
    let disk = MemoryDisk::new(Arc::new(ManualClock::at(NOW)));
    disk.set_capacity(capacity);
    disk
}

fn cut_everywhere(workload: Workload, keeping: Keeping, flushes: Flushes, capacity: Option<u64>) {
    let disk = fresh_disk(capacity);
    workload(&disk, keeping, flushes, &mut Model::new()).expect("without a crash all goes well");
    let operations = disk.operations();
    assert!(operations >= 300, "{operations} operations");
    let seeds: u64 = std::env::var("CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut failures = Vec::new();
    for operation in 0..=operations {
        for torn in [None, Some(512), Some(4096)] {
            let disk = fresh_disk(capacity);
            disk.cut_at(Cut { operation, torn });
            let mut model = Model::new();
            let _ = workload(&disk, keeping, flushes, &mut model);
            let chances = (0..seeds).map(|seed| Crash::PowerPartly(seed * 7919 + operation * 31 + 1));
            for crash in [Crash::Process, Crash::Power].into_iter().chain(chances) {
                if let Err(what) = reopen(&disk.after(crash), keeping, crash, &model) {
                    failures.push(format!("operation {operation}, torn {torn:?}, {crash:?}: {what}"));
                }
            }
        }
    }
    println!("{operations} operations, each cut in 3 ways and found in {} ways", 2 + seeds);
    assert!(failures.is_empty(), "{} failures, the first: {}", failures.len(), failures[..failures.len().min(12)].join("\n"));
}

/// What is in the data directory of a commit journal.
fn journal_files(disk: &MemoryDisk) -> usize {
    disk.list(Path::new(DATA)).unwrap().iter().filter(|name| name.starts_with("commit-journal.")).count()
}

#[test]
fn commits_go_to_a_journal_until_the_logs_are_flushed() {
    let disk = fresh_disk(Some(1 << 20));
    let partitions = open(&disk, SYNCED, &["plain", "short"], 0).unwrap();
    let mut model = Model::new();
    let plain = partitions.get("plain", 0).unwrap();
    let standing = || (plain.view().high_watermark.0, plain.recovery_point().0);
    for at in 1..=16 {
        produce(&partitions, SYNCED, &mut model, &["plain", "short"], 0).unwrap();
        assert_eq!((standing(), journal_files(&disk)), ((at, 0), at as usize));
    }
    // All files are full: the logs themselves are made durable, and the files are used again.
    for at in 17..=40 {
        produce(&partitions, SYNCED, &mut model, &["plain", "short"], 0).unwrap();
        assert_eq!((standing(), journal_files(&disk)), ((at, at / 17 * 17), 16));
    }
    let after = disk.after(Crash::Power);
    assert!(
        after.read(&Path::new(DATA).join("plain-0/00000000000000000034.log")).unwrap_or_default().is_empty(),
        "the log has lost its end"
    );
    let again = open(&after, SYNCED, &["plain", "short"], 1).unwrap();
    for topic in ["plain", "short"] {
        compare(topic, &model[topic], Crash::Power, &again.get(topic, 0).unwrap()).unwrap();
    }
    again.close().unwrap();
    assert_eq!(journal_files(&after), 0);
    // Little was committed since the last flush but one.
    for _ in 0..2 {
        produce(&partitions, SYNCED, &mut model, &["plain", "short"], 0).unwrap();
        partitions.flush().unwrap();
    }
    assert_eq!(journal_files(&disk), 1);
}

#[test]
fn what_an_earlier_use_of_a_journal_file_left_is_not_read() {
    let disk = fresh_disk(None);
    let partitions = open(&disk, SYNCED, &["plain", "short"], 0).unwrap();
    let mut model = Model::new();
    for commits in [5, 3, 1] {
        for _ in 0..commits {
            produce(&partitions, SYNCED, &mut model, &["plain", "short"], 0).unwrap();
        }
        assert_eq!(committed_in_journal(&disk), 2 * commits);
        partitions.flush().unwrap();
    }
}

/// Commits of a topic in the journal's first file.
fn committed_in_journal(disk: &MemoryDisk) -> usize {
    let mut printed = Vec::new();
    dump(disk, &Path::new(DATA).join("commit-journal.1"), Depth::Batches, &mut printed).unwrap();
    String::from_utf8(printed).unwrap().matches("use: ").count()
}

#[test]
fn a_log_that_is_alone_for_a_while_is_synced_where_it_lies() {
    let disk = fresh_disk(None);
    let partitions = open(&disk, SYNCED, &["plain", "short"], 0).unwrap();
    let mut model = Model::new();
    let plain = partitions.get("plain", 0).unwrap();
    for (count, durable, in_journal) in [(8, 0, 8), (12, 20, 8)] {
        for _ in 0..count {
            produce(&partitions, SYNCED, &mut model, &["plain"], 0).unwrap();
        }
        assert_eq!((plain.recovery_point(), committed_in_journal(&disk)), (Offset(durable), in_journal));
    }
    produce(&partitions, SYNCED, &mut model, &["plain", "short"], 0).unwrap();
    assert_eq!((plain.recovery_point(), committed_in_journal(&disk)), (Offset(20), 10));
}

#[test]
fn a_commit_that_the_journal_cannot_take_or_need_not_goes_to_the_logs() {
    // Files would have 3 KB.
    let disk = fresh_disk(Some(3 << 18));
    let partitions = open(&disk, SYNCED, &["plain", "short"], 0).unwrap();
    let mut model = Model::new();
    for (topics, expected) in [(&["plain", "short"][..], 60), (&["plain"], 61)] {
        let plain = partitions.get("plain", 0).unwrap();
        while plain.view().log_end.0 < expected {
            for topic in topics {
                append(&partitions, SYNCED, &mut model, topic, 0).unwrap();
                let expected = model.get_mut(topic).unwrap();
                expected.acknowledged.extend(expected.open.take());
            }
        }
        partitions.commit(0).unwrap();
        let standing = (plain.view().high_watermark, plain.recovery_point(), journal_files(&disk));
        assert_eq!(standing, (Offset(expected), Offset(expected), 0));
    }
}

#[test]
fn what_was_committed_waits_for_a_partition_that_cannot_be_opened() {
    let disk = fresh_disk(None);
    let partitions = open(&disk, SYNCED, &["plain", "short"], 0).unwrap();
    let mut model = Model::new();
    for _ in 0..10 {
        produce(&partitions, SYNCED, &mut model, &["plain", "short"], 0).unwrap();
    }
    let disk = disk.after(Crash::Power);
    // Its directory says for a while that it is of another topic.
    let metadata = Path::new(DATA).join("plain-0/partition.metadata");
    let right = disk.read(&metadata).unwrap();
    disk.write(&metadata, format!("version: 0\ntopic_id: {}\n", topic_id("short")).as_bytes()).unwrap();
    for epoch in 1..4 {
        let partitions = open(&disk, SYNCED, &["plain", "short"], epoch).unwrap();
        assert_eq!(partitions.not_opened_count(), 1);
        produce(&partitions, SYNCED, &mut model, &["short"], 0).unwrap();
        partitions.flush().unwrap();
        if epoch == 2 {
            partitions.close().unwrap();
        }
    }
    disk.write(&metadata, &right).unwrap();
    let partitions = open(&disk, SYNCED, &["plain", "short"], 4).unwrap();
    for topic in ["plain", "short"] {
        compare(topic, &model[topic], Crash::Process, &partitions.get(topic, 0).unwrap()).unwrap();
    }
}

/// Partitions on a fresh disk with these topics, and the disk.
fn started(topics: &[&str]) -> (MemoryDisk, Partitions) {
    let disk = fresh_disk(None);
    let partitions = open(&disk, FEW_FILES, topics, 0).expect("it opens");
    (disk, partitions)
}

#[test]
fn a_clean_stop_is_believed_once() {
    let (disk, partitions) = started(&["plain"]);
    partitions.close().unwrap();
    drop(partitions);
    let start = |disk: &MemoryDisk| log_directory(&env(disk), Path::new(DATA)).unwrap().recovery(&id("plain"));
    assert_eq!(start(&disk), Recovery::Clean);
    for crash in [Crash::Process, Crash::Power, Crash::PowerPartly(1)] {
        assert_ne!(start(&disk.after(crash)), Recovery::Clean, "{crash:?}");
    }
}

#[test]
fn indexes_are_durable_where_a_segment_is_full_just_when_all_is_flushed() {
    let (disk, partitions) = started(&["plain"]);
    let mut model = Model::new();
    for at in 0..40 {
        produce(&partitions, FEW_FILES, &mut model, &["plain"], at).expect("there is room");
        flush(&partitions, &mut model).expect("it can be synced");
    }
    let folder = Path::new(DATA).join("plain-0");
    let after = disk.after(Crash::Power);
    let indexes: Vec<String> = disk.list(&folder).unwrap().into_iter().filter(|name| name.ends_with("index")).collect();
    assert!(indexes.len() >= 10, "{indexes:?}");
    for name in indexes {
        assert_eq!(after.read(&folder.join(&name)).ok(), disk.read(&folder.join(&name)).ok(), "{name}");
    }
}

/// The first offsets of the aborted transactions that a reader of committed records is told.
fn aborted(replica: &Replica) -> BTreeSet<Offset> {
    let (mut found, mut offset) = (BTreeSet::new(), Offset(0));
    while let Some(read) = replica.read_committed(offset, 1, FirstBatch::Whole).expect("it reads") {
        found.extend(read.aborted.iter().map(|aborted| aborted.first_offset));
        let bytes = read.slice.check().expect("it is sound").read().expect("it reads");
        offset = batches(&bytes).next().expect("a batch").expect("a whole one").0.next_offset();
    }
    found
}

#[test]
fn indexes_that_came_after_the_recovery_point_are_not_trusted() {
    let (disk, partitions) = started(&["plain"]);
    let replica = partitions.get("plain", 0).unwrap();
    for at in 0..30 {
        let told = aborted(&replica);
        assert_eq!(told.len(), at as usize);
        // Where the segment is full this seals it, and the recovery point is just its end.
        abort(&replica, at);
        for seed in 0..20 {
            let after = open(&disk.after(Crash::PowerPartly(seed)), FEW_FILES, &["plain"], 1).expect("it opens");
            assert!(aborted(&after.get("plain", 0).unwrap()).is_superset(&told), "transaction {at}, seed {seed}");
        }
        partitions.flush().expect("it can be synced");
    }
}

#[test]
fn a_full_disk_tears_nothing_and_writes_go_on_when_there_is_room() {
    let (disk, partitions) = started(&["plain", "short"]);
    let mut model = Model::new();
    for at in 0..30 {
        produce(&partitions, FEW_FILES, &mut model, &["plain"], at).expect("there is room");
    }
    let replica = partitions.get("plain", 0).unwrap();
    let used = 1_000_000 - {
        disk.set_capacity(Some(1_000_000));
        disk.space(Path::new(DATA)).unwrap().1
    };
    // At every amount of room that is left, also while a segment is begun, an append is whole or nothing.
    for room in (0..3000).step_by(37) {
        disk.set_capacity(Some(used + room));
        while produce(&partitions, FEW_FILES, &mut model, &["plain"], 0).is_ok() {}
        let expected = model.get_mut("plain").unwrap();
        expected.open = None;
        assert_eq!(replica.view().log_end.0 as usize, expected.acknowledged.len());
        compare("plain", expected, Crash::Process, &replica).expect("readers go on");
    }
    assert!(!partitions.is_offline());
    disk.set_capacity(None);
    for at in 0..30 {
        produce(&partitions, FEW_FILES, &mut model, &["plain"], at).expect("there is room again");
    }
    for crash in [Crash::Process, Crash::Power] {
        reopen(&disk.after(crash), FEW_FILES, crash, &model).expect("nothing is torn");
    }
}

#[test]
fn flush_messages_and_flush_ms_are_kept() {
    let disk = MemoryDisk::new(Arc::new(ManualClock::at(NOW)));
    let clock = Arc::new(ManualClock::at(NOW));
    let env = Env { clock: clock.clone(), ..env(&disk) };
    let directory = log_directory(&env, Path::new(DATA)).unwrap();
    let partitions = Partitions::new(env, vec![directory], Vec::new(), FEW_FILES);
    let new = |name: &str, own| NewReplica {
        id: id(name),
        topic_id: topic_id(name),
        leader_epoch: LeaderEpoch(0),
        settings: settings(own),
        is_known: false,
    };
    partitions.lead(vec![new("plain", &[("flush.messages", "3")]), new("short", &[("flush.ms", "500")])]);
    let mut model = Model::new();
    let durable = |topic: &str| partitions.get(topic, 0).unwrap().recovery_point().0;
    for at in 1..=7 {
        produce(&partitions, FEW_FILES, &mut model, &["plain"], 0).unwrap();
        assert_eq!(durable("plain"), at / 3 * 3);
    }
    produce(&partitions, FEW_FILES, &mut model, &["short"], 0).unwrap();
    for (later, expected) in [(0, 0), (499, 0), (1, 1)] {
        clock.advance(later);
        partitions.flush_overdue().unwrap();
        assert_eq!((durable("short"), durable("plain")), (expected, 6));
    }
}

#[test]
fn a_sync_that_failed_is_never_tried_again() {
    let (disk, partitions) = started(&["plain"]);
    let mut model = Model::new();
    produce(&partitions, FEW_FILES, &mut model, &["plain"], 1).unwrap();
    flush(&partitions, &mut model).unwrap();
    produce(&partitions, FEW_FILES, &mut model, &["plain"], 2).unwrap();
    disk.set_syncs_fail(true);
    assert!(partitions.flush().is_err() && partitions.is_offline());
    disk.set_syncs_fail(false);
    let replica = partitions.get("plain", 0).unwrap();
    assert!(produce(&partitions, FEW_FILES, &mut model, &["plain"], 3).unwrap_err().contains("offline"));
    assert!(replica.read(Offset(0), 1000, FirstBatch::Whole).is_err());
    assert!(partitions.close().is_err(), "it does not end cleanly either");
    model.get_mut("plain").unwrap().open = None;
    for crash in [Crash::Process, Crash::Power, Crash::PowerPartly(3)] {
        reopen(&disk.after(crash), FEW_FILES, crash, &model).expect("the next start needs no operator");
    }
}
