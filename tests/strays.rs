//! Directories under the name of a partition that belong to another topic: deletions that could not be completed, and strays.
//!
//! The metadata's snapshot forgot deleted topics whose directories were still there. When these came back, a new topic of the same name found the old
//! one's directory in its place.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use common::logs::{NOW, log_directory};
use common::meeting::MeetingDisk;
use dlog::env::{Crash, Disk, Env, ManualClock, MemoryDisk, SystemEntropy};
use dlog::model::{LeaderEpoch, Offset, TopicPartition, Uuid};
use dlog::partition::{FirstBatch, Keeping, NewReplica, Origin, Partitions, Replica, TopicSettings};
use dlog::records::{BatchBuilder, NewRecord};

const ONE: &str = "/one";
const TWO: &str = "/two";
/// EMFILE: too many open files.
const TOO_MANY_FILES: i32 = 24;

/// Whether an earlier start created the topic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Topic {
    New,
    Known,
}

fn id(number: i32) -> TopicPartition {
    TopicPartition::new("t", number)
}

fn topic_id(generation: u8) -> Uuid {
    Uuid::from_random([generation; 16])
}

fn replicas(generation: u8, topic: Topic) -> Vec<NewReplica> {
    let new = |number| NewReplica {
        id: id(number),
        topic_id: topic_id(generation),
        leader_epoch: LeaderEpoch(0),
        settings: TopicSettings::of(&BTreeMap::new(), &BTreeMap::new()),
        is_known: topic == Topic::Known,
    };
    (0..2).map(new).collect()
}

fn disk() -> MeetingDisk {
    MeetingDisk::new(MemoryDisk::new(Arc::new(ManualClock::at(NOW))))
}

/// Starts with these log directories, and without the lost ones.
fn start(disk: &MeetingDisk, used: &[&str], lost: &[&str]) -> Partitions {
    let disk = MeetingDisk::new(disk.disk().after(Crash::Process));
    start_on(&disk, used, lost)
}

fn start_on(disk: &MeetingDisk, used: &[&str], lost: &[&str]) -> Partitions {
    let env = Env { clock: Arc::new(ManualClock::at(NOW)), entropy: Arc::new(SystemEntropy), disk: Arc::new(disk.clone()), ..Env::real() };
    let directories = used.iter().map(|path| log_directory(&env, Path::new(path)).expect("it opens")).collect();
    Partitions::new(env, directories, lost.iter().map(Into::into).collect(), Keeping::default())
}

fn append(replica: &Replica) {
    let batch = BatchBuilder::new().record(NewRecord::value(b"value")).build(NOW);
    replica.produce(&batch, Origin::Client, None, NOW).expect("an append");
}

/// The number of records of partition 0.
fn records(partitions: &Partitions) -> i64 {
    let replica = partitions.find("t", 0).expect("it is open");
    replica.read(Offset(0), 1, FirstBatch::Whole).expect("a read");
    replica.view().log_end.0
}

fn names(disk: &dyn Disk, directory: &str, suffix: &str) -> usize {
    disk.list(Path::new(directory)).unwrap().iter().filter(|name| name.starts_with("t-") && name.ends_with(suffix)).count()
}

#[test]
fn a_deletion_is_remembered_until_every_directory_is_renamed() {
    let disk = disk();
    let partitions = start_on(&disk, &[ONE], &[]);
    partitions.lead(replicas(1, Topic::New));
    disk.refuse("rename", "t-0", TOO_MANY_FILES);
    assert_eq!(partitions.delete(&["t".into()]).count(), 1);
    for _ in 0..2 {
        assert_eq!(partitions.retire_again().count(), 0);
        assert!(partitions.sync_deleted().unwrap_err().to_string().contains(ONE));
    }
    disk.accept();
    let retired = partitions.retire_again();
    assert_eq!(retired.count(), 1);
    partitions.sync_deleted().unwrap();
    assert_eq!(partitions.remove(retired, || true).unwrap(), 1);
    assert_eq!(names(disk.disk(), ONE, "0"), 0);
}

#[test]
fn a_name_that_could_not_be_freed_is_freed_for_the_next_topic() {
    let disk = disk();
    let partitions = start_on(&disk, &[ONE], &[]);
    partitions.lead(replicas(1, Topic::New));
    append(&partitions.get("t", 0).unwrap());
    disk.refuse("rename", "t-0", TOO_MANY_FILES);
    let _left = partitions.delete(&["t".into()]);
    disk.accept();
    assert_eq!(partitions.lead(replicas(2, Topic::New)).replicas, 2);
    append(&partitions.get("t", 0).unwrap());
    // The new topic's directory has the name now, and stays.
    assert_eq!(partitions.retire_again().count(), 0);
    partitions.sync_deleted().unwrap();
    assert_eq!((records(&partitions), names(disk.disk(), ONE, "-0")), (1, 1));
}

#[test]
fn a_deletion_is_remembered_while_a_log_directory_is_lost() {
    let disk = disk();
    let partitions = start_on(&disk, &[ONE, TWO], &[]);
    partitions.lead(replicas(1, Topic::New));
    assert_eq!([ONE, TWO].map(|directory| names(disk.disk(), directory, "")), [1, 1]);
    drop(partitions);
    let lost = start(&disk, &[ONE], &[TWO]);
    lost.lead(replicas(1, Topic::Known));
    lost.sync_deleted().expect("nothing was deleted");
    let _left = lost.delete(&["t".into()]);
    assert!(lost.sync_deleted().unwrap_err().to_string().contains(TWO));
    // The same at a start that learns of the deletion from the log.
    let deleted = BTreeSet::from([topic_id(1)]);
    let lost = start(&disk, &[ONE], &[TWO]);
    assert_eq!(lost.retire_deleted(&BTreeSet::new()).count(), 0);
    lost.sync_deleted().expect("no topic was deleted");
    assert_eq!(lost.retire_deleted(&deleted).count(), 1);
    assert!(lost.sync_deleted().is_err());
    let back = start(&disk, &[ONE, TWO], &[]);
    assert_eq!(back.retire_deleted(&deleted).count(), 2);
    back.sync_deleted().unwrap();
}

#[test]
fn a_deletion_is_remembered_while_it_cannot_be_made_durable_or_read() {
    let disk = disk();
    let partitions = start_on(&disk, &[ONE], &[]);
    partitions.lead(replicas(1, Topic::New));
    let _left = partitions.delete(&["t".into()]);
    disk.disk().set_syncs_fail(true);
    assert!(partitions.sync_deleted().is_err());
    disk.disk().set_syncs_fail(false);
    // The log directory is offline now. It was passed over, and the snapshot was written.
    assert!(partitions.sync_deleted().is_err());
    // Whose directory it is cannot be read.
    let disk = MeetingDisk::new(disk.disk().after(Crash::Process));
    start_on(&disk, &[ONE], &[]).lead(replicas(2, Topic::New));
    let partitions = start_on(&disk, &[ONE], &[]);
    disk.refuse("read", "partition.metadata", TOO_MANY_FILES);
    assert_eq!(partitions.retire_deleted(&[topic_id(2)].into()).count(), 0);
    assert!(partitions.sync_deleted().is_err());
    // And it is not given to a topic.
    assert_eq!(partitions.lead(replicas(3, Topic::New)).replicas, 0);
    disk.accept();
    assert_eq!(partitions.retire_deleted(&[topic_id(2)].into()).count(), 2);
}

#[test]
fn a_partition_is_found_by_its_topics_id_and_a_stray_is_kept() {
    let disk = disk();
    let old = start_on(&disk, &[ONE], &[TWO]);
    old.lead(replicas(1, Topic::New));
    (0..3).for_each(|_| append(&old.get("t", 0).unwrap()));
    drop(old);
    let new = start_on(&disk, &[TWO], &[ONE]);
    new.lead(replicas(2, Topic::New));
    append(&new.get("t", 0).unwrap());
    drop(new);
    // The first directory with the path was taken, and the partition was not opened.
    let both = start_on(&disk, &[ONE, TWO], &[]);
    assert_eq!(both.lead(replicas(2, Topic::Known)).replicas, 2);
    assert_eq!(records(&both), 1);
    assert_eq!((names(disk.disk(), ONE, "-stray"), names(disk.disk(), ONE, ""), names(disk.disk(), TWO, "")), (2, 2, 2));
    let stray = disk.disk().list(Path::new(ONE)).unwrap().into_iter().find(|name| name.starts_with("t-0.")).unwrap();
    let log = Path::new(ONE).join(stray).join("00000000000000000000.log");
    assert!(disk.disk().read(&log).unwrap().len() > 100, "its records are still there");
    // Nothing removes it.
    assert_eq!(both.left_to_remove().unwrap().count(), 0);
}

#[test]
fn a_stray_keeps_no_topic_from_being_created_and_an_unknown_one_keeps_its_name() {
    let disk = disk();
    start_on(&disk, &[ONE], &[]).lead(replicas(1, Topic::New));
    // An earlier start created the topic, and its own directory is not there: the stored id may be damaged, so nothing is changed.
    let partitions = start_on(&disk, &[ONE], &[]);
    assert_eq!(partitions.lead(replicas(2, Topic::Known)).replicas, 0);
    assert!(partitions.find("t", 0).unwrap_err().to_string().contains("belongs to topic"));
    let _left = partitions.delete(&["t".into()]);
    assert_eq!((names(disk.disk(), ONE, "-stray"), names(disk.disk(), ONE, "")), (0, 2));
    assert_eq!(partitions.lead(replicas(3, Topic::New)).replicas, 2);
    assert_eq!((records(&partitions), names(disk.disk(), ONE, "-stray"), names(disk.disk(), ONE, "")), (0, 2, 4));
}
