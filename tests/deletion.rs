//! A topic is deleted and created again in the middle of everything that goes on with its partitions: at every operation on the disk, and on
//! many threads at once.
//!
//! A topic that was deleted during a flush took the whole broker down: the directory was gone, and that counted as a failure of the disk.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::logs::{NOW, log_directory};
use common::meeting::MeetingDisk;
use dlog::env::{Crash, Disk, Env, ManualClock, MemoryDisk, RealDisk, SystemEntropy};
use dlog::model::{LeaderEpoch, Offset, TopicPartition, Uuid};
use dlog::partition::{Durability, Error, FirstBatch, Keeping, NewReplica, Origin, Partitions, Replica, StorageError, TopicSettings};
use dlog::records::{BatchBuilder, NewRecord, Records, batches, layout};
use dlog::storage::Cleaner;

const DATA: &str = "/data/dlog";
/// The topic that is deleted, and one that stays.
const TOPIC: &str = "t";
const OTHER: &str = "other";
/// Keys of the records, so that compaction has something to do.
const KEYS: u64 = 4;
/// An activity is met at about so many of its operations at most.
const OPERATIONS: usize = 30;
/// How long an activity waits in the middle of an operation for the deletion: where that waits for the activity, it goes on afterwards.
const MEETING: Duration = Duration::from_millis(15);

/// Segments are small, so that there are many.
const SMALL: [(&str, &str); 3] = [("segment.bytes", "1000"), ("index.interval.bytes", "200"), ("flush.ms", "0")];
/// There is always something to compact and to delete.
const LIVELY: [(&str, &str); 3] =
    [("retention.bytes", "3000"), ("cleanup.policy", "compact,delete"), ("min.cleanable.dirty.ratio", "0.01")];

fn settings(own: &[(&str, &str)]) -> TopicSettings {
    TopicSettings::of(&SMALL.iter().chain(own).map(|(k, v)| (k.to_string(), v.to_string())).collect(), &BTreeMap::new())
}

fn replica(topic: &str, number: i32, generation: u8) -> NewReplica {
    NewReplica {
        id: TopicPartition::new(topic, number),
        topic_id: topic_id(topic, generation),
        leader_epoch: LeaderEpoch(0),
        settings: settings(&LIVELY),
        is_known: false,
    }
}

/// A replica of the topic that is created again: nothing of what is written to it may go.
fn created(number: i32) -> NewReplica {
    NewReplica { settings: settings(&[]), ..replica(TOPIC, number, 1) }
}

/// Each creation of a topic has an id of its own.
fn topic_id(topic: &str, generation: u8) -> Uuid {
    let mut bytes = [generation + 1; 16];
    let name = &topic.as_bytes()[..topic.len().min(15)];
    bytes[..name.len()].copy_from_slice(name);
    Uuid::from_random(bytes)
}

fn open(disk: Arc<dyn Disk>, data: &Path, keeping: Keeping) -> Arc<Partitions> {
    let env = Env { clock: Arc::new(ManualClock::at(NOW)), entropy: Arc::new(SystemEntropy), disk, ..Env::real() };
    let directory = log_directory(&env, data).expect("it opens");
    Arc::new(Partitions::new(env, vec![directory], Vec::new(), keeping))
}

/// Appends records that say which creation of the topic they belong to.
fn append(replica: &Replica, generation: u8, count: u64) -> Result<(), Error> {
    for _ in 0..count {
        let at = replica.view().log_end.0;
        let value = format!("{generation} {at} {}", "x".repeat(60));
        let batch = BatchBuilder::new().record(NewRecord::keyed(&[(at as u64 % KEYS) as u8], Some(value.as_bytes()))).build(NOW);
        replica.produce(&batch, Origin::Client, None, NOW)?;
    }
    Ok(())
}

/// Offsets and values of what readers see.
fn read(replica: &Replica) -> Result<Vec<(i64, String)>, Error> {
    let (mut found, mut offset) = (Vec::new(), replica.view().log_start);
    loop {
        let slice = match replica.read(offset, 500, FirstBatch::Whole) {
            Ok(Some(slice)) => slice,
            Ok(None) => return Ok(found),
            // Retention was faster: a consumer goes on where the log begins now.
            Err(Error::Storage(StorageError::OffsetOutOfRange { log_start, .. })) if log_start > offset => {
                offset = log_start;
                continue;
            }
            Err(error) => return Err(error),
        };
        let bytes = slice.check()?.read().expect("the file is open");
        for batch in batches(&bytes) {
            let (header, batch) = batch?;
            header.check_crc(batch)?;
            for record in Records::new(&batch[layout::SIZE..], header.records_count) {
                let record = record?;
                let text = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
                found.push((header.base_offset.0 + i64::from(record.offset_delta), text));
            }
            offset = header.next_offset();
        }
    }
}

/// Whether an error says no more than that the topic is deleted.
fn is_deletion(error: &Error) -> bool {
    matches!(error, Error::Closed(_) | Error::Unknown(_) | Error::Storage(StorageError::Deleted(_)))
}

fn accept(result: Result<(), Error>) -> Result<(), String> {
    result.or_else(|error| if is_deletion(&error) { Ok(()) } else { Err(error.to_string()) })
}

/// What goes on with the partitions of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    Flush,
    /// Of one log with few files: each is synced alone, and then their directory. (Of many the whole file system is.)
    FlushOne,
    FlushOverdue,
    Commit,
    Compact,
    Retain,
    DeleteRecords,
    Append,
    Read,
    Remove,
    Open,
    Close,
}

const ACTIVITIES: [Activity; 12] = [
    Activity::Flush,
    Activity::FlushOne,
    Activity::FlushOverdue,
    Activity::Commit,
    Activity::Compact,
    Activity::Retain,
    Activity::DeleteRecords,
    Activity::Append,
    Activity::Read,
    Activity::Remove,
    Activity::Open,
    Activity::Close,
];

impl Activity {
    fn run(self, partitions: &Partitions) -> Result<(), String> {
        let text = |error: Error| error.to_string();
        let replicas = || [TOPIC, OTHER].into_iter().filter_map(|topic| partitions.get(topic, 0));
        match self {
            Activity::Flush | Activity::FlushOne => partitions.flush().map_err(text),
            Activity::FlushOverdue => partitions.flush_overdue().map_err(text),
            Activity::Commit => partitions.commit(0).map_err(text),
            Activity::Compact => {
                let cleaner = Cleaner::new(&SystemEntropy, 1 << 10);
                while let Some((_, result)) = partitions.compact(&cleaner, &Default::default(), &mut |_| true) {
                    match result {
                        Ok(cleaned) if cleaned.segments_before == 0 => break,
                        // What compaction is told of a deleted topic.
                        Err(Error::Closed(_)) => {}
                        result => drop(result.map_err(text)?),
                    }
                }
                Ok(())
            }
            Activity::Retain => partitions.maintain(i64::MAX).into_iter().try_for_each(|(_, result)| accept(result.map(|_| ()))),
            Activity::DeleteRecords => {
                let below: Vec<_> = replicas().map(|replica| (replica, None)).collect();
                let results = partitions.delete_records(&below).map_err(text)?;
                results.into_iter().try_for_each(|result| accept(result.map(|_| ())))
            }
            Activity::Append => replicas().try_for_each(|replica| accept(append(&replica, 0, 15))),
            Activity::Read => replicas().try_for_each(|replica| match read(&replica) {
                // What is read of a deleted topic was never another one's.
                Ok(found) => match found.iter().find(|(offset, text)| !text.starts_with(&format!("0 {offset} "))) {
                    Some(wrong) => Err(format!("at {} lies {}", wrong.0, wrong.1)),
                    None => Ok(()),
                },
                Err(error) => accept(Err(error)),
            }),
            Activity::Remove => {
                let left = partitions.left_to_remove().map_err(text)?;
                partitions.remove(left, || true).map(|_| ()).map_err(text)
            }
            Activity::Open => {
                assert_eq!(partitions.lead((0..3).map(|number| replica("third", number, 0)).collect()).replicas, 3);
                Ok(())
            }
            Activity::Close => partitions.close().map_err(text),
        }
    }
}

/// Partitions in the middle of their life: some records are durable, some are not, some are compacted, and the start of a log was raised. A
/// topic that was deleted is still to be removed.
fn lived_in(disk: &MeetingDisk, keeping: Keeping) -> Arc<Partitions> {
    let partitions = open(Arc::new(disk.clone()), Path::new(DATA), keeping);
    partitions.lead(vec![replica(TOPIC, 0, 0), replica(TOPIC, 1, 0), replica(OTHER, 0, 0), replica("gone", 0, 0)]);
    for _ in 0..2 {
        for replica in partitions.all() {
            append(&replica, 0, 20).expect("it appends");
        }
        partitions.commit(0).expect("it commits");
        partitions.flush().expect("it flushes");
    }
    Activity::Compact.run(&partitions).expect("it compacts");
    let of_topic: Vec<_> = (0..2).filter_map(|number| partitions.get(TOPIC, number)).map(|replica| (replica, Some(Offset(3)))).collect();
    partitions.delete_records(&of_topic).expect("it raises the log start");
    for count in [20, 10] {
        if keeping.durability == Durability::Fsync {
            partitions.commit(0).expect("it commits");
        }
        for replica in partitions.all() {
            append(&replica, 0, count).expect("it appends");
        }
    }
    let retired = partitions.delete(&["gone".into()]);
    assert_eq!(retired.count(), 1);
    partitions
}

/// Deletes the topic and creates it again, with some records; says how many there are.
fn delete_and_create(partitions: &Partitions, how: Meeting) -> u64 {
    let retired = partitions.delete(&[TOPIC.into()]);
    assert_eq!(retired.count(), 2);
    if how == Meeting::Deletes {
        partitions.remove(retired, || true).expect("it removes");
        return 0;
    }
    // As in a broker, a topic may be created again before the old one's bytes are removed.
    assert_eq!(partitions.lead(vec![created(0), created(1)]).replicas, 2);
    let created = partitions.get(TOPIC, 0).expect("it is there");
    append(&created, 1, 30).expect("it appends");
    partitions.remove(retired, || true).expect("it removes");
    30
}

/// What happens in the middle of an activity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meeting {
    Deletes,
    CreatesAgain,
}

/// An activity that is met before one of its operations; says how many operations it has.
fn meet(activity: Activity, how: Meeting, keeping: Keeping, operation: u64) -> Result<usize, String> {
    let memory = MemoryDisk::new(Arc::new(ManualClock::at(NOW)));
    let disk = MeetingDisk::new(memory.clone());
    let partitions = lived_in(&disk, keeping);
    if activity == Activity::FlushOne {
        partitions.flush().expect("it flushes");
        let replica = partitions.get(TOPIC, 0).expect("it is there");
        let segments = replica.segment_count();
        // The new segment's name is to be made durable too.
        while replica.segment_count() == segments {
            append(&replica, 0, 1).expect("it appends");
        }
    }
    let (begun, done) = channel();
    let in_the_middle = partitions.clone();
    disk.meet_at(operation, move || {
        let (ended, wait) = channel();
        let other = std::thread::spawn(move || {
            let count = delete_and_create(&in_the_middle, how);
            // Nobody may wait for it any more.
            let _ = ended.send(());
            count
        });
        begun.send(other).expect("somebody joins it");
        let _ = wait.recv_timeout(MEETING);
    });
    let outcome = activity.run(&partitions);
    let other = done.try_recv().ok();
    let operations = disk.end().len();
    let Some(other) = other else { return outcome.map(|()| operations) };
    let count = other.join().map_err(|panic| format!("the deletion panicked: {:?}", panic.downcast_ref::<String>()))?;
    outcome?;
    if partitions.is_offline() {
        return Err("the log directory is offline".into());
    }
    let names: Vec<String> = memory.list(Path::new(DATA)).expect("it lists").into_iter().filter(|n| n.ends_with("-delete")).collect();
    // The one that was deleted before stays where nobody removes it.
    if names.len() > usize::from(activity != Activity::Remove) {
        return Err(format!("{names:?} are left"));
    }
    if activity == Activity::Close {
        return Ok(operations);
    }
    partitions.commit(0).map_err(|e| e.to_string())?;
    if count > 0 {
        compare_created(&partitions, &memory, keeping, count)?;
    } else if partitions.get(TOPIC, 0).is_some() || memory.exists(&Path::new(DATA).join("t-0")) {
        return Err("the topic is still there".into());
    }
    // The disk serves the others.
    let other = partitions.get(OTHER, 0).ok_or("the other topic is gone")?;
    append(&other, 0, 1).map_err(|e| e.to_string())?;
    partitions.commit(0).map_err(|e| e.to_string())?;
    let found = read(&other).map_err(|e| e.to_string())?;
    match found.last() {
        Some((offset, text)) if *offset + 1 == other.view().log_end.0 && text.starts_with("0 ") => Ok(operations),
        last => Err(format!("the other topic ends with {last:?}")),
    }
}

/// The topic that was created again holds what was written to it and nothing of the one before, also after crashes.
fn compare_created(partitions: &Partitions, memory: &MemoryDisk, keeping: Keeping, count: u64) -> Result<(), String> {
    let path = Path::new(DATA).join("t-0");
    let strays: Vec<String> =
        memory.list(&path).map_err(|e| e.to_string())?.into_iter().filter(|n| n.ends_with(".cleaned") || n.ends_with(".swap")).collect();
    if !strays.is_empty() {
        return Err(format!("{strays:?} lie in the new topic's directory"));
    }
    for (file, most) in [("log-start-offset-checkpoint", 0), ("cleaner-offset-checkpoint", 0), ("recovery-point-offset-checkpoint", count)]
    {
        let bytes = memory.read(&Path::new(DATA).join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let of_earlier =
            |line: &&str| line.strip_prefix("t 0 ").is_some_and(|offset| offset.parse::<u64>().is_ok_and(|offset| offset > most));
        if let Some(line) = text.lines().find(of_earlier) {
            return Err(format!("{file} says {line} of the new topic"));
        }
    }
    let is_durable = keeping.durability == Durability::Fsync;
    let chances = (1..3).map(|seed| Crash::PowerPartly(seed * 977));
    for crash in [None, Some(Crash::Process), Some(Crash::Power)].into_iter().chain(chances.map(Some)) {
        let (again, created);
        match crash {
            None => created = partitions.get(TOPIC, 0).ok_or("it is not there")?,
            Some(crash) => {
                again = open(Arc::new(memory.after(crash)), Path::new(DATA), keeping);
                let retired = again.retire_deleted(&[topic_id(TOPIC, 0)].into());
                again.remove(retired, || true).map_err(|e| e.to_string())?;
                again.lead(vec![self::created(0), self::created(1), replica(OTHER, 0, 0)]);
                created = again.find(TOPIC, 0).map_err(|e| format!("{crash:?}: {e}"))?;
            }
        }
        let wrong = |what: String| Err(format!("after {crash:?}: {what}"));
        let (found, view) = (read(&created).map_err(|e| format!("after {crash:?}: {e}"))?, created.view());
        if let Some((offset, text)) = found.iter().find(|(offset, text)| !text.starts_with(&format!("1 {offset} "))) {
            return wrong(format!("at {offset} lies {text}"));
        }
        let may_lose = !is_durable && matches!(crash, Some(Crash::Power | Crash::PowerPartly(_)));
        if view.log_start != Offset(0) || found.len() as i64 != view.log_end.0 || (!may_lose && found.len() as u64 != count) {
            return wrong(format!("{} of {count} records from {} to {}", found.len(), view.log_start, view.log_end));
        }
    }
    Ok(())
}

fn meet_everywhere(durability: Durability) {
    let keeping = Keeping { durability, files_max: 2 };
    let wanted = |activity: &Activity| *activity != Activity::Commit || durability == Durability::Fsync;
    let mut failures = Vec::new();
    for activity in ACTIVITIES.into_iter().filter(wanted) {
        for how in [Meeting::Deletes, Meeting::CreatesAgain] {
            let mut operation = 0;
            loop {
                match meet(activity, how, keeping, operation) {
                    // It had ended before.
                    Ok(operations) if operation >= operations as u64 => break,
                    // The same is done to each of many segments.
                    Ok(operations) if operations > OPERATIONS => operation += (operations / OPERATIONS) as u64,
                    Ok(_) => {}
                    Err(what) => failures.push(format!("{how:?} before operation {operation} of {activity:?}: {what}")),
                }
                operation += 1;
                assert!(operation < 1000, "{activity:?} has no end");
            }
            println!("{activity:?}, {how:?}: {operation} operations");
            assert!(operation > 0, "{activity:?} does nothing");
        }
    }
    assert!(failures.is_empty(), "{} failures, the first: {}", failures.len(), failures[..failures.len().min(12)].join("\n"));
}

#[test]
fn a_topic_is_deleted_in_the_middle_of_everything() {
    meet_everywhere(Durability::Default);
}

#[test]
fn a_topic_is_deleted_in_the_middle_of_everything_that_is_synced() {
    meet_everywhere(Durability::Fsync);
}

#[test]
fn a_real_error_in_the_middle_of_a_deletion_stays_one() {
    for durability in [Durability::Default, Durability::Fsync] {
        let memory = MemoryDisk::new(Arc::new(ManualClock::at(NOW)));
        let disk = MeetingDisk::new(memory.clone());
        let partitions = lived_in(&disk, Keeping { durability, files_max: 2 });
        let deleting = partitions.clone();
        let failing = memory.clone();
        disk.meet_at(0, move || {
            let _left = deleting.delete(&[TOPIC.into()]);
            failing.set_syncs_fail(true);
        });
        assert!(partitions.flush().is_err() && partitions.is_offline(), "the other topic could not be made durable");
    }
}

#[test]
fn a_directory_that_is_in_the_way_keeps_one_partition_from_being_served_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let keeping = Keeping::default();
    let names = ["leader-epoch-checkpoint", "00000000000000000000.log", "partition.metadata", "00000000000000000007.log.swap"];
    {
        let partitions = open(Arc::new(RealDisk), folder.path(), keeping);
        partitions.lead((0..6).map(|number| replica(TOPIC, number, 0)).collect());
        partitions.all().iter().for_each(|replica| append(replica, 0, 3).unwrap());
    }
    // A file of the log, or one that describes it, is a directory.
    for (number, name) in names.iter().enumerate() {
        let path = folder.path().join(format!("t-{number}")).join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::create_dir_all(path.join("inner")).unwrap();
    }
    // A file is where the directory was.
    std::fs::remove_dir_all(folder.path().join("t-4")).unwrap();
    std::fs::write(folder.path().join("t-4"), b"no directory").unwrap();
    std::fs::write(folder.path().join("t-0.5f0a1b2c3d4e5f60718293a4b5c6d7e8-delete"), b"no directory either").unwrap();
    let partitions = open(Arc::new(RealDisk), folder.path(), keeping);
    let recovered = partitions.lead((0..6).map(|number| replica(TOPIC, number, 0)).collect());
    let failed: Vec<i32> = (0..6).filter(|number| partitions.find(TOPIC, *number).is_err()).collect();
    assert_eq!(recovered.replicas, 6 - failed.len());
    assert!(!failed.contains(&5) && failed.contains(&1) && failed.contains(&4), "{failed:?}");
    for number in failed {
        let why = partitions.find(TOPIC, number).unwrap_err().to_string();
        assert!(why.contains(&format!("t-{number}")), "{why}");
    }
    assert_eq!(read(&partitions.get(TOPIC, 5).unwrap()).unwrap().len(), 3);
    let left = partitions.left_to_remove().unwrap();
    assert_eq!(partitions.remove(left, || true).unwrap(), 1);
    // They can be deleted all the same, and their names used again.
    let retired = partitions.delete(&[TOPIC.into()]);
    partitions.remove(retired, || true).unwrap();
    let again = partitions.lead((0..6).map(|number| replica(TOPIC, number, 1)).collect());
    assert_eq!((again.replicas, partitions.not_opened_count()), (6, 0));
}

#[test]
fn a_topic_with_the_longest_name_is_deleted_and_created_again() {
    let folder = tempfile::tempdir().unwrap();
    for topic in ["x".repeat(213), "x".repeat(214), "x".repeat(249)] {
        let partitions = open(Arc::new(RealDisk), folder.path(), Keeping::default());
        let new =
            |generation| [0, 9, 99_999].map(|number| NewReplica { topic_id: Uuid([generation; 16]), ..replica(&topic, number, 0) }).into();
        for generation in 1..4 {
            assert_eq!(partitions.lead(new(generation)).replicas, 3);
            append(&partitions.get(&topic, 99_999).unwrap(), generation, 3).unwrap();
            let retired = partitions.delete(&[topic.as_str().into()]);
            assert_eq!(retired.count(), 3);
            if generation > 1 {
                assert_eq!(partitions.remove(retired, || true).unwrap(), 3);
            }
        }
        let left = partitions.left_to_remove().unwrap();
        assert_eq!((left.count(), partitions.remove(left, || true).unwrap()), (3, 3));
        partitions.close().unwrap();
        drop(partitions);
    }
}

#[test]
fn two_that_remove_at_once_remove_everything() {
    let folder = tempfile::tempdir().unwrap();
    let partitions = open(Arc::new(RealDisk), folder.path(), Keeping::default());
    for _ in 0..5 {
        for topic in ["a", "b"] {
            partitions.lead((0..50).map(|number| replica(topic, number, 0)).collect());
        }
        std::thread::scope(|scope| {
            for topic in ["a", "b"] {
                let partitions = &partitions;
                scope.spawn(move || {
                    let retired = partitions.delete(&[topic.into()]);
                    let all = partitions.left_to_remove().unwrap();
                    partitions.remove(retired, || true).unwrap();
                    partitions.remove(all, || true).unwrap();
                });
            }
        });
        assert_eq!(partitions.left_to_remove().unwrap().count(), 0);
    }
}

#[test]
fn a_power_cut_brings_back_no_deleted_topic_once_that_is_forgotten() {
    let memory = MemoryDisk::new(Arc::new(ManualClock::at(NOW)));
    let disk = MeetingDisk::new(memory.clone());
    let partitions = lived_in(&disk, Keeping::default());
    memory.sync_dir(Path::new(DATA)).unwrap();
    let _left = partitions.delete(&[TOPIC.into()]);
    let names = |crash| open(Arc::new(memory.after(crash)), Path::new(DATA), Keeping::default()).directories().len();
    assert_eq!(names(Crash::Power), 1, "it starts");
    let is_back = || memory.after(Crash::Power).exists(&Path::new(DATA).join("t-0"));
    assert!(is_back(), "a rename is not durable by itself");
    // This is what a snapshot of the metadata waits for: it does not hold the deletion any more.
    partitions.sync_deleted().unwrap();
    assert!(!is_back());
}

/// What the threads of a churn share.
struct Churn {
    partitions: Arc<Partitions>,
    is_over: AtomicBool,
    failures: Mutex<Vec<String>>,
    rounds: AtomicU64,
}

impl Churn {
    /// Does something again and again.
    fn repeat(&self, what: Activity) {
        while !self.is_over.load(Ordering::Relaxed) {
            if let Err(error) = what.run(&self.partitions) {
                self.failures.lock().unwrap().push(format!("{what:?}: {error}"));
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Creates, fills, reads and deletes topics of one name.
    fn topics(&self, name: &str) {
        let failed = |what: String| self.failures.lock().unwrap().push(format!("{name}: {what}"));
        let mut generation = 0_u8;
        while !self.is_over.load(Ordering::Relaxed) {
            generation = generation.wrapping_add(1) % 200;
            let created = self.partitions.lead(vec![replica(name, 0, generation), replica(name, 1, generation)]);
            if created.replicas != 2 {
                return failed(self.partitions.find(name, 0).expect_err("it is not there").to_string());
            }
            for number in 0..2 {
                let replica = self.partitions.get(name, number).expect("it was created");
                let end = match append(&replica, generation, 25).and_then(|()| read(&replica)) {
                    Ok(found) => found.into_iter().find(|(offset, text)| !text.starts_with(&format!("{generation} {offset} "))),
                    Err(error) => return failed(error.to_string()),
                };
                if let Some((offset, text)) = end {
                    return failed(format!("generation {generation} holds {text} at {offset}"));
                }
            }
            let retired = self.partitions.delete(&[name.into()]);
            if let Err(error) = self.partitions.remove(retired, || true) {
                return failed(error.to_string());
            }
            self.rounds.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Threads that do everything at once, on a real file system.
fn churn(durability: Durability) {
    let folder = tempfile::tempdir().unwrap();
    let keeping = Keeping { durability, files_max: 4 };
    let partitions = open(Arc::new(RealDisk), folder.path(), keeping);
    partitions.lead(vec![replica(OTHER, 0, 0)]);
    let churn = Churn { partitions, is_over: AtomicBool::new(false), failures: Mutex::default(), rounds: AtomicU64::new(0) };
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for what in
            [Activity::Flush, Activity::FlushOverdue, Activity::Compact, Activity::Retain, Activity::Remove, Activity::DeleteRecords]
        {
            let churn = &churn;
            scope.spawn(move || churn.repeat(what));
        }
        if durability == Durability::Fsync {
            scope.spawn(|| churn.repeat(Activity::Commit));
        }
        for name in ["a", "b", TOPIC] {
            let churn = &churn;
            scope.spawn(move || churn.topics(name));
        }
        while begin.elapsed() < Duration::from_secs(3) && churn.failures.lock().unwrap().is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
        churn.is_over.store(true, Ordering::Relaxed);
    });
    let failures = churn.failures.into_inner().unwrap();
    println!("{:?}: {} topics", durability, churn.rounds.load(Ordering::Relaxed));
    assert!(failures.is_empty(), "{failures:?}");
    assert!(!churn.partitions.is_offline() && churn.rounds.load(Ordering::Relaxed) > 10);
    assert_eq!(churn.partitions.left_to_remove().unwrap().count(), 0);
    let other = churn.partitions.get(OTHER, 0).unwrap();
    append(&other, 0, 5).unwrap();
    churn.partitions.commit(0).unwrap();
    assert_eq!(other.view().high_watermark, other.view().log_end);
    churn.partitions.close().unwrap();
}

#[test]
fn topics_come_and_go_while_everything_goes_on() {
    churn(Durability::Default);
}

#[test]
fn topics_come_and_go_while_everything_goes_on_and_is_synced() {
    churn(Durability::Fsync);
}
