//! What becomes of other files and logs when one cannot be opened or fsynced.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::logs::{NOW, log_directory};
use common::meeting::MeetingDisk;
use dlog::env::{Env, ManualClock, MemoryDisk, SystemEntropy};
use dlog::model::{LeaderEpoch, Offset, TopicPartition, Uuid};
use dlog::partition::{Durability, FirstBatch, Keeping, NewReplica, Origin, Partitions, TopicSettings};
use dlog::records::{BatchBuilder, NewRecord};

const TOPICS: [&str; 3] = ["a", "b", "c"];
/// EMFILE and ENOSPC: too many open files, and no room on the disk.
const TRANSIENT: [i32; 2] = [24, 28];

/// Partitions of which one file may be open.
fn start(durability: Durability) -> (MeetingDisk, Partitions) {
    let disk = MeetingDisk::new(MemoryDisk::new(Arc::new(ManualClock::at(NOW))));
    let env = Env { clock: Arc::new(ManualClock::at(NOW)), entropy: Arc::new(SystemEntropy), disk: Arc::new(disk.clone()), ..Env::real() };
    let directory = log_directory(&env, Path::new("/data")).unwrap();
    let partitions = Partitions::new(env, vec![directory], Vec::new(), Keeping { durability, files_max: 1 });
    let new = TOPICS.map(|topic| NewReplica {
        id: TopicPartition::new(topic, 0),
        topic_id: Uuid::from_random([topic.as_bytes()[0]; 16]),
        leader_epoch: LeaderEpoch(0),
        settings: TopicSettings::of(&BTreeMap::new(), &BTreeMap::new()),
        is_known: false,
    });
    assert_eq!(partitions.lead(new.into()).replicas, TOPICS.len());
    (disk, partitions)
}

fn append(partitions: &Partitions) {
    for topic in TOPICS {
        let batch = BatchBuilder::new().record(NewRecord::value(b"value")).build(NOW);
        partitions.get(topic, 0).unwrap().produce(&batch, Origin::Client, None, NOW).unwrap();
    }
}

fn high_watermarks(partitions: &Partitions) -> [i64; 3] {
    TOPICS.map(|topic| partitions.get(topic, 0).unwrap().view().high_watermark.0)
}

async fn is_due(partitions: &Partitions) -> bool {
    tokio::time::timeout(Duration::ZERO, partitions.commit_due(0)).await.is_ok()
}

#[test]
fn a_failed_sync_for_a_reader_of_another_file_takes_the_directory_offline() {
    // The file counted as durable afterwards, and the reader's error was only the reader's.
    type Read = fn(&Partitions) -> bool;
    let reads: [Read; 5] = [
        |partitions| partitions.get("a", 0).unwrap().read(Offset(0), 1000, FirstBatch::Whole).is_err(),
        |partitions| partitions.get("a", 0).unwrap().read_committed(Offset(0), 1000, FirstBatch::Whole).is_err(),
        |partitions| partitions.get("a", 0).unwrap().find_by_time(NOW).is_err(),
        |partitions| partitions.get("a", 0).unwrap().find_largest_time().is_err(),
        |partitions| partitions.get("a", 0).unwrap().replay(|_, _| Ok(())).is_err(),
    ];
    for (at, read) in reads.iter().enumerate() {
        let (disk, partitions) = start(Durability::Default);
        append(&partitions);
        disk.disk().set_syncs_fail(true);
        assert!((0..3).any(|_| read(&partitions)), "read {at}");
        assert!(partitions.is_directory_offline(0), "read {at}");
        disk.disk().set_syncs_fail(false);
        assert!(partitions.close().is_err(), "it does not end cleanly");
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_committed_delays_no_other_and_is_committed_later() {
    // One of them failed, the others were not committed, and all waited for the next append.
    for code in TRANSIENT {
        let (disk, partitions) = start(Durability::Fsync);
        append(&partitions);
        assert!(is_due(&partitions).await);
        disk.refuse("open", "a-0/", code);
        assert!(partitions.commit(0).is_err());
        assert_eq!((high_watermarks(&partitions), partitions.is_directory_offline(0)), ([0, 1, 1], false));
        assert!(is_due(&partitions).await, "it is tried again");
        assert!(partitions.commit(0).is_err() && is_due(&partitions).await);
        disk.accept();
        partitions.commit(0).unwrap();
        assert_eq!(high_watermarks(&partitions), [1; 3]);
        assert!(!is_due(&partitions).await);
    }
}

#[test]
fn a_log_that_cannot_be_flushed_keeps_no_other_from_being_flushed() {
    let (disk, partitions) = start(Durability::Default);
    append(&partitions);
    disk.refuse("open", "a-0/", TRANSIENT[0]);
    assert!(partitions.flush().is_err() && !partitions.is_directory_offline(0));
    assert_eq!(TOPICS.map(|topic| partitions.get(topic, 0).unwrap().recovery_point().0), [0, 1, 1]);
    disk.accept();
    partitions.flush().unwrap();
    assert_eq!(TOPICS.map(|topic| partitions.get(topic, 0).unwrap().recovery_point().0), [1; 3]);
}
