//! The real binary under a churn of topics: clients create, fill and delete topics while logs are flushed, committed, compacted and retained.
//! Afterwards the broker serves a new topic, has logged no error and has left no directory of a deleted partition.
//!
//! `CHURN_SECONDS=n` goes on for n seconds in each profile (10 without it).

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::process::{Process, command};
use common::{Client, create_topic_request, produce_request};
use dlog::env::{Clock, SystemClock};
use dlog::protocol::generated::create_topics::CreateTopicsRequest;
use dlog::protocol::generated::delete_topics::DeleteTopicsRequest;
use dlog::protocol::generated::produce::ProduceRequest;
use dlog::protocol::{ErrorCode, encode_request};
use dlog::records::{BatchBuilder, NewRecord};

/// Clients that come and go at once.
const CLIENTS: usize = 4;
/// How long removing in the background may take.
const REMOVED_WITHIN: Duration = Duration::from_secs(20);
/// Requests that a client has in flight.
const IN_FLIGHT: usize = 5;

/// A broker that does all its work in the background as often as it can.
fn busy(data: &Path, profile: &str) -> Command {
    let mut command = command(data);
    command.env("KAFKA_DURABILITY_PROFILE", profile);
    command.env("KAFKA_LOG_FLUSH_OFFSET_CHECKPOINT_INTERVAL_MS", "100");
    command.env("KAFKA_LOG_RETENTION_CHECK_INTERVAL_MS", "100");
    command.env("KAFKA_LOG_CLEANER_BACKOFF_MS", "50");
    command
}

/// Nearly 256 KB of records with a few keys.
fn batch() -> Bytes {
    let value = vec![b'x'; 1000];
    let keys: Vec<String> = (0..250).map(|n| format!("key {}", n % 20)).collect();
    let builder = keys.iter().fold(BatchBuilder::new(), |builder, key| builder.record(NewRecord::keyed(key.as_bytes(), Some(&value))));
    builder.build(SystemClock.wall_ms())
}

async fn delete(client: &mut Client, topic: &str) -> i16 {
    let request = DeleteTopicsRequest { topic_names: vec![topic.into()], timeout_ms: 20_000, ..Default::default() };
    client.call(&request, 5).await.responses[0].error_code
}

async fn create(client: &mut Client, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> i16 {
    let request: CreateTopicsRequest = create_topic_request(topic, partitions, configs);
    client.call(&request, 7).await.topics[0].error_code
}

/// Sends batches to a partition with some in flight; none may be refused.
async fn fill(client: &mut Client, topic: &str, batch: &Bytes, count: usize) {
    let frame = encode_request(&produce_request(topic, 0, batch, -1), 9, 1, "churn");
    for at in 0..count + IN_FLIGHT {
        if at < count {
            client.send_bytes(frame.clone()).await;
        }
        if at >= IN_FLIGHT {
            let (_, response) = client.receive::<ProduceRequest>(9).await;
            assert_eq!(response.responses[0].partition_responses[0].error_code, 0, "{topic}, batch {}", at - IN_FLIGHT);
        }
    }
}

/// The broker serves, and nothing is left of what was deleted.
async fn serves(process: Process, data: &Path) {
    let mut client = Client::connect_to(process.address).await;
    assert_eq!(create(&mut client, "new", 1, &[]).await, 0);
    let answer = client.produce("new", 0, &batch()).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    let left = || -> Vec<String> {
        let names =
            std::fs::read_dir(data).expect("it lists").map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with("-delete")).collect()
    };
    let begin = Instant::now();
    while !left().is_empty() {
        assert!(begin.elapsed() < REMOVED_WITHIN, "{:?}", left());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = process.log();
    assert!(process.terminate(), "it stops cleanly");
    let log = log.lock().expect("no panic");
    let errors: Vec<&String> = log.iter().filter(|line| line.contains("ERROR") || line.contains("panicked")).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

async fn churn(profile: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(busy(folder.path(), profile));
    let seconds = std::env::var("CHURN_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let (address, end) = (process.address, Instant::now() + Duration::from_secs(seconds));
    let clients = (0..CLIENTS).map(|number| {
        tokio::spawn(async move {
            let (mut client, batch, mut rounds) = (Client::connect_to(address).await, batch(), 0);
            while Instant::now() < end {
                // Names come again, with and without compaction; the last one is as long as a name can be.
                let (name, long) = (format!("churn-{number}-{}", rounds % 3), "x".repeat(248));
                let name = if rounds % 5 == 4 { format!("{long}{number}") } else { name };
                let configs = [("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01"), ("retention.bytes", "4000000")];
                let policy = ["delete", "compact", "compact,delete"][(rounds as usize + number) % 3];
                let created = create(&mut client, &name, 3, &[&configs[..], &[("cleanup.policy", policy)]].concat()).await;
                assert_eq!(created, 0, "{name} is created");
                fill(&mut client, &name, &batch, 5 + (rounds as usize % 4) * 10).await;
                assert_eq!(delete(&mut client, &name).await, 0, "{name} is deleted");
                rounds += 1;
            }
            rounds
        })
    });
    let mut topics = 0;
    for client in clients.collect::<Vec<_>>() {
        topics += client.await.expect("the client goes on to the end");
    }
    println!("{profile}: {topics} topics in {seconds} s");
    assert!(topics >= CLIENTS as u64);
    serves(process, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_come_and_go_in_the_default_profile() {
    churn("default").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_come_and_go_under_fsync() {
    churn("fsync").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_topic_is_deleted_just_when_it_was_filled() {
    for profile in ["default", "fsync"] {
        let folder = tempfile::tempdir().expect("a folder");
        let process = Process::start(busy(folder.path(), profile));
        let mut client = Client::connect_to(process.address).await;
        let batch = batch();
        for _ in 0..5 {
            assert_eq!(create(&mut client, "big", 1, &[("segment.bytes", "1048576")]).await, 0);
            fill(&mut client, "big", &batch, 200).await;
            assert_eq!(delete(&mut client, "big").await, 0);
        }
        serves(process, folder.path()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_topics_of_many_partitions_are_deleted_at_the_same_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(busy(folder.path(), "default"));
    let (mut one, mut two) = (Client::connect_to(process.address).await, Client::connect_to(process.address).await);
    for _ in 0..10 {
        for topic in ["a", "b"] {
            assert_eq!(create(&mut one, topic, 50, &[]).await, 0);
        }
        let (a, b) = tokio::join!(delete(&mut one, "a"), delete(&mut two, "b"));
        assert_eq!((a, b), (0, 0));
    }
    serves(process, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_names_are_created_deleted_and_found_again_by_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["x".repeat(213), "y".repeat(214), "z".repeat(249)];
    for _ in 0..2 {
        let process = Process::start(command(folder.path()));
        let mut client = Client::connect_to(process.address).await;
        for name in &names {
            for _ in 0..2 {
                // It is there from the last start.
                let created = create(&mut client, name, 2, &[]).await;
                assert!([0, ErrorCode::TopicAlreadyExists.code()].contains(&created), "{created}");
                assert_eq!(client.produce(name, 0, &batch()).await.error_code, 0);
                assert_eq!(delete(&mut client, name).await, 0);
            }
            assert_eq!(create(&mut client, name, 2, &[]).await, 0);
        }
        process.kill();
    }
    let process = Process::start(command(folder.path()));
    serves(process, folder.path()).await;
}
