//! The figures that we hold ourselves to; `make figures` prints them. Best of several, on whatever machine this is.

mod common;

use std::time::Duration;

use common::process::{Process, command};
use common::{Client, load};
use dlog::records::Codec;

const REPEATS: usize = 5;

fn best<T: PartialOrd + Copy>(values: impl IntoIterator<Item = T>) -> T {
    values.into_iter().reduce(|a, b| if b < a { b } else { a }).expect("at least one")
}

#[test]
#[ignore = "measures; run by make figures"]
fn ready_and_idle() {
    let mut idle = Vec::new();
    let ready = best((0..REPEATS).map(|_| {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(command(folder.path()));
        let ready = process.ready;
        std::thread::sleep(Duration::from_millis(300));
        idle.push(process.memory("VmRSS"));
        process.kill();
        ready
    }));
    let idle = best(idle);
    println!("ready on an empty directory: {:.1} ms (expected below 20)", ready.as_secs_f64() * 1e3);
    println!("idle memory: {:.1} MB (expected below 20)", idle as f64 / 1e6);
    assert!(ready < Duration::from_millis(20) && idle < 20_000_000);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run by make figures"]
async fn a_thousand_partitions_created_and_written() {
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(command(folder.path()));
        times.push(load::partitions(process.address, "t", 1000).await);
        process.kill();
    }
    let time = best(times);
    println!("1,000 partitions created and each written once: {:.3} s (expected below 0.5)", time.as_secs_f64());
    assert!(time < Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run by make figures"]
async fn a_group_of_a_hundred_members() {
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(command(folder.path()));
        times.push(load::group(process.address, "g", 100).await);
        process.kill();
    }
    let time = best(times);
    println!("a group of 100 members stable: {:.3} s (expected below 1)", time.as_secs_f64());
    assert!(time < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run by make figures"]
async fn cpu_for_a_gigabyte() {
    for (name, records, total, limit) in [("16 KB", 15, 1 << 29, 3.0), ("1 MB", 980, 1 << 30, 0.9)] {
        let batch = load::batch(records, Codec::None);
        let mut rates = Vec::new();
        for _ in 0..REPEATS {
            let folder = tempfile::tempdir().unwrap();
            let process = Process::start(command(folder.path()));
            let mut client = Client::connect_to(process.address).await;
            // Segments are reused by retention as little as the page cache is: the first gigabyte warms it.
            client.create_topic("t", 1, &[("segment.bytes", "67108864")]).await;
            load::produce(&mut client, "t", &batch, 1 << 28).await;
            let before = process.cpu();
            let sent = load::produce(&mut client, "t", &batch, total).await;
            rates.push((process.cpu() - before).as_secs_f64() / (sent as f64 / 1e9));
            process.kill();
        }
        let rate = best(rates.iter().copied());
        println!("produce, 1 KB records in {name} batches: {rate:.2} CPU s/GB (expected at most {limit}); all: {rates:.2?}");
        assert!(rate <= limit);
    }
}
