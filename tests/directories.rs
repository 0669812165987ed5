//! What becomes of the data when a directory, a partition or a byte goes bad, and of files when few may be open.

mod common;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use common::{Client, start, values};
use dlog::protocol::ErrorCode;
use dlog::protocol::generated::describe_log_dirs::DescribeLogDirsRequest;
use dlog::records::{BatchBuilder, NewRecord};

fn batch(value: &str) -> Bytes {
    BatchBuilder::new().record(NewRecord::keyed(b"key", Some(value.as_bytes()))).build(1_700_000_000_000)
}

/// The error code and the records of one fetch.
async fn fetch(client: &mut Client, topic: &str, partition: i32, offset: i64) -> (i16, Vec<(i64, Vec<u8>)>) {
    let response = client.fetch(topic, partition, offset).await;
    let part = &response.responses[0].partitions[0];
    let bytes = part.records.as_ref().and_then(|r| r.bytes()).cloned().unwrap_or_default();
    (part.error_code, values(&bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_directories_a_failed_one_is_offline_alone() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, aside] = ["one", "two", "aside"].map(|name| folder.path().join(name));
    let both = PathBuf::from(format!("{},{}", one.display(), two.display()));
    let broker = start(&both, &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 4, &[]).await;
    for partition in 0..4 {
        assert_eq!(client.produce("t", partition, &batch("before")).await.error_code, 0);
    }
    let lies_in = |directory: &Path, number: i32| directory.join(format!("t-{number}")).is_dir();
    let in_two: Vec<i32> = (0..4).filter(|number| lies_in(&two, *number)).collect();
    assert!(in_two.len() == 2 && (0..4).all(|number| lies_in(&one, number) != lies_in(&two, number)), "each has its half: {in_two:?}");
    broker.stop().await.unwrap();

    // A directory that cannot be opened.
    std::fs::rename(&two, &aside).unwrap();
    std::fs::write(&two, "no directory").unwrap();
    let broker = start(&both, &[]).await;
    let mut client = Client::connect(&broker).await;
    for partition in 0..4 {
        let expected = if in_two.contains(&partition) { ErrorCode::KafkaStorageError } else { ErrorCode::None };
        assert_eq!(client.produce("t", partition, &batch("meanwhile")).await.error_code, expected.code(), "partition {partition}");
        assert_eq!(fetch(&mut client, "t", partition, 0).await.0, expected.code());
    }
    client.create_topic("new", 2, &[]).await;
    assert_eq!(client.produce("new", 1, &batch("x")).await.error_code, 0);
    let described = client.call(&DescribeLogDirsRequest { topics: None }, 4).await;
    let errors: Vec<i16> = described.results.iter().map(|r| r.error_code).collect();
    assert_eq!(errors, [0, ErrorCode::KafkaStorageError.code()]);
    broker.stop().await.unwrap();

    std::fs::remove_file(&two).unwrap();
    std::fs::rename(&aside, &two).unwrap();
    let broker = start(&both, &[]).await;
    let mut client = Client::connect(&broker).await;
    for partition in 0..4 {
        let expected: &[&[u8]] = if in_two.contains(&partition) { &[b"before"] } else { &[b"before", b"meanwhile"] };
        let found = fetch(&mut client, "t", partition, 0).await.1;
        assert_eq!(
            found.iter().map(|(_, value)| value.as_slice()).collect::<Vec<_>>(),
            expected,
            "nothing is lost, and nothing is made anew"
        );
    }
    broker.stop().await.unwrap();
    // The order of the setting does not say which of them holds the metadata.
    let turned = PathBuf::from(format!("{},{}", two.display(), one.display()));
    let broker = start(&turned, &[]).await;
    assert_eq!(fetch(&mut Client::connect(&broker).await, "t", in_two[0], 0).await.1.len(), 1);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_opened_leaves_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 2, &[]).await;
    for partition in 0..2 {
        client.produce("t", partition, &batch("x")).await;
    }
    broker.stop().await.unwrap();
    let log = folder.path().join("t-0/00000000000000000000.log");
    std::fs::rename(&log, folder.path().join("aside")).unwrap();
    std::fs::create_dir(&log).unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    assert_eq!(client.produce("t", 0, &batch("y")).await.error_code, ErrorCode::KafkaStorageError.code());
    assert_eq!(client.produce("t", 1, &batch("y")).await.error_code, 0);
    broker.stop().await.unwrap();
    std::fs::remove_dir(&log).unwrap();
    std::fs::rename(folder.path().join("aside"), &log).unwrap();
    let broker = start(folder.path(), &[]).await;
    assert_eq!(fetch(&mut Client::connect(&broker).await, "t", 0, 0).await.1.len(), 1, "what could not be opened was left as it was");
    broker.stop().await.unwrap();
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, target).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_never_served_and_does_not_keep_the_broker_from_starting() {
    let original = tempfile::tempdir().unwrap();
    let value = |at: i64| format!("value {at} {}", "x".repeat(120));
    let broker = start(original.path(), &[("group.initial.rebalance.delay.ms", "0")]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[("segment.ms", "1000"), ("index.interval.bytes", "300")]).await;
    for at in 0..60 {
        // Some roll: their timestamps lie further apart than a segment may span.
        let value = value(at);
        let record = NewRecord { timestamp_ms: Some(1_700_000_000_000 + at * 100), ..NewRecord::keyed(b"key", Some(value.as_bytes())) };
        let batch = BatchBuilder::new().record(record).producer(4, 0, at as i32).build(1_700_000_000_000);
        assert_eq!(client.produce("t", 0, &batch).await.error_code, 0);
    }
    broker.stop().await.unwrap();
    let all = files(original.path());
    let kinds =
        ["log", "index", "timeindex", "snapshot", "leader-epoch-checkpoint", "partition.metadata", "recovery-point-offset-checkpoint"];
    for kind in kinds {
        assert!(all.iter().any(|f| f.to_string_lossy().ends_with(kind)), "no {kind} among {all:?}");
    }
    let mut flips = 0;
    for file in all.iter().filter(|f| !f.to_string_lossy().contains("__cluster_metadata") && !f.ends_with("meta.properties")) {
        let size = std::fs::metadata(file).unwrap().len();
        let name = file.strip_prefix(original.path()).unwrap();
        for at in (0..size).step_by((size as usize / 9).max(1)) {
            let folder = tempfile::tempdir().unwrap();
            copy(original.path(), folder.path());
            let mut bytes = std::fs::read(file).unwrap();
            bytes[at as usize] ^= 1 << (at % 8);
            std::fs::write(folder.path().join(name), bytes).unwrap();
            let broker = start(folder.path(), &[]).await;
            let mut client = Client::connect(&broker).await;
            let (mut offset, mut errors) = (0, 0);
            while offset < 60 {
                let (error, found) = fetch(&mut client, "t", 0, offset).await;
                for (at, found) in &found {
                    assert_eq!(String::from_utf8_lossy(found), value(*at), "{} at {at}: a wrong record", name.display());
                }
                match found.last().map(|(last, _)| last + 1) {
                    Some(next) if next > offset => {
                        assert!(
                            found.iter().any(|(at, _)| *at == offset) || errors > 0,
                            "{} at {at}: {offset} is passed over",
                            name.display()
                        );
                        offset = next;
                    }
                    _ => {
                        assert!(error != 0, "{} at {at}: nothing at {offset}, and no word of it", name.display());
                        (offset, errors) = (offset + 1, errors + 1);
                    }
                }
            }
            // Nobody can tell whose the data is where that file names another topic.
            let may_refuse = if name.ends_with("partition.metadata") {
                60
            } else if name.extension().is_some_and(|e| e == "log") {
                59
            } else {
                0
            };
            assert!(errors <= may_refuse, "{} at {at}: {errors} records are refused", name.display());
            broker.stop().await.unwrap();
            start(folder.path(), &[]).await.stop().await.unwrap();
            flips += 1;
        }
    }
    println!("{flips} flipped bits");
}
