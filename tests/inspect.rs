//! `dlog verify` and `dlog dump-log` on directories that are sound, torn and damaged.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::logs::{NOW, abort, log_directory};
use dlog::env::{Env, RealDisk};
use dlog::model::{LeaderEpoch, TopicPartition, Uuid};
use dlog::partition::{Durability, Keeping, NewReplica, Origin, Partitions, TopicSettings};
use dlog::records::{BatchBuilder, Codec, NewRecord, batches};
use dlog::storage::{Severity, Verified, verify};

/// A directory with a partition of several segments, written by an idempotent producer.
fn written(folder: &Path, durability: Durability) -> Partitions {
    let env = Env::real();
    let directory = log_directory(&env, folder).unwrap();
    let partitions = Partitions::new(env, vec![directory], Vec::new(), Keeping { durability, ..Keeping::default() });
    lead(&partitions, 0);
    let replica = partitions.get("t", 0).unwrap();
    for at in 0..60 {
        let value = format!("value {at} {}", "x".repeat(100));
        let record = NewRecord { timestamp_ms: Some(NOW + at), ..NewRecord::keyed(b"key", Some(value.as_bytes())) };
        let codec = if at % 2 == 0 { Codec::None } else { Codec::Lz4 };
        let batch = BatchBuilder::new().codec(codec).record(record).producer(4, 0, at as i32).build(NOW);
        replica.produce(&batch, Origin::Client, None, NOW).unwrap();
        if at % 10 == 9 {
            abort(&replica, at as i32 / 10);
        }
    }
    partitions
}

fn lead(partitions: &Partitions, number: i32) {
    let own = [("segment.bytes", "4000"), ("index.interval.bytes", "300")].map(|(k, v)| (k.to_string(), v.to_string()));
    let settings = TopicSettings::of(&own.into_iter().collect(), &Default::default());
    let id = TopicPartition::new("t", number);
    let topic_id = Uuid::from_random([1; 16]);
    partitions.lead(vec![NewReplica { id, topic_id, leader_epoch: LeaderEpoch(0), settings, is_known: false }]);
}

fn check(folder: &Path) -> Verified {
    verify(&RealDisk, folder, &mut |done, all| assert!(done <= all)).unwrap()
}

fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder.join("t-0")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|x| x == suffix)).collect();
    files.sort();
    files
}

fn dlog(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dlog")).args(arguments).output().unwrap()
}

#[test]
fn a_commit_journal_is_told_of_and_printed() {
    let folder = tempfile::tempdir().unwrap();
    let partitions = written(folder.path(), Durability::Fsync);
    lead(&partitions, 1);
    let batch = BatchBuilder::new().record(NewRecord::value(b"new")).build(NOW);
    partitions.get("t", 1).unwrap().produce(&batch, Origin::Client, None, NOW).unwrap();
    partitions.commit(0).unwrap();
    drop(partitions);
    let found = check(folder.path()).findings;
    let journal = folder.path().join("commit-journal.1");
    let told: Vec<_> = found.iter().filter(|f| f.path == journal).collect();
    assert!(told.len() == 1 && told[0].severity == Severity::Mended && told[0].what.contains("of 2 partitions"), "{found:?}");
    let output = dlog(&["dump-log", journal.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let topic_id = Uuid::from_random([1; 16]);
    assert!(text.contains(&format!("use: 1 topicId: {topic_id} partition: 0 position: 40 ")), "{text}");
    assert_eq!(text.matches("isvalid: true").count(), 73, "{text}");
}

#[test]
fn a_flipped_bit_is_found_in_every_kind_of_file() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), Durability::Default).close().unwrap();
    let sound = check(folder.path());
    assert_eq!((sound.partitions, sound.batches, &sound.findings[..]), (1, 72, &[][..]));
    assert!(sound.segments > 2);
    for suffix in ["log", "index", "timeindex", "txnindex", "snapshot"] {
        let path = files(folder.path(), suffix).into_iter().find(|path| std::fs::metadata(path).unwrap().len() > 12).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        // Offset and leader epoch of a batch lie outside its checksum.
        let mut starts = Vec::new();
        if suffix == "log" {
            starts.extend(batches(&bytes).scan(0, |at, batch| Some(std::mem::replace(at, *at + batch.unwrap().1.len()))));
        }
        let is_unchecked =
            |at: usize| starts.iter().any(|start| (*start..start + 8).contains(&at) || (start + 12..start + 16).contains(&at));
        for at in (0..bytes.len()).step_by(3).filter(|at| !is_unchecked(*at)) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&path, &flipped).unwrap();
            let found = check(folder.path()).findings;
            assert!(found.iter().any(|f| f.severity == Severity::Damage && f.path == path), "byte {at} of {}: {found:?}", path.display());
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    std::fs::write(folder.path().join("recovery-point-offset-checkpoint"), "0\n7\n").unwrap();
    assert_eq!(check(folder.path()).findings.len(), 1);
}

#[test]
fn the_commands_say_what_is_there_and_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let partitions = written(folder.path(), Durability::Default);
    let data = folder.path().to_str().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let busy = dlog(&["verify", data]);
    assert_eq!((busy.status.code(), said(&busy.stderr).contains("in use by another broker")), (Some(1), true));
    // Killed, with a torn tail.
    drop(partitions);
    let last = files(folder.path(), "log").pop().unwrap();
    let bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, &bytes[..bytes.len() - 10]).unwrap();
    let torn = dlog(&["verify", data]);
    assert_eq!(torn.status.code(), Some(0), "{}", said(&torn.stderr));
    assert!(said(&torn.stdout).contains("repaired by the next start: "), "{}", said(&torn.stdout));
    let first = files(folder.path(), "log").remove(0);
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    let damaged = dlog(&["verify", data]);
    assert_eq!((damaged.status.code(), said(&damaged.stdout).contains("damage: ")), (Some(3), true));

    let dumped = dlog(&["dump-log", "--records", &format!("{data}/t-0")]);
    let text = said(&dumped.stdout);
    assert_eq!(dumped.status.code(), Some(3), "one batch is damaged");
    for line in [
        "baseOffset: 0 lastOffset: 0 count: 1 baseSequence: 0 lastSequence: 0 producerId: 4 producerEpoch: 0",
        "compresscodec: lz4",
        "isvalid: false",
        "| offset: 3 CreateTime: 1700000000003 keySize: 3 valueSize: 108 headerKeys: [] key: key payload: value 3 xxx",
        "offset: +",
        "timestamp: 17000000000",
        "producerId: 4 producerEpoch: 0 lastSequence: ",
        "producerId: 5 firstOffset: 10 lastOffset: 11 lastStableOffset: 12",
        "| offset: 11 endTxnMarker: ABORT coordinatorEpoch: 3",
        "topic_id: ",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let none = dlog(&["verify", elsewhere.path().to_str().unwrap()]);
    assert_eq!(
        (none.status.code(), std::fs::read_dir(elsewhere.path()).unwrap().count()),
        (Some(1), 0),
        "nothing is made where nothing is"
    );
}
