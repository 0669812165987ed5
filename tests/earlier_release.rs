//! Data directories of the release in which a broker's registration implied leader epochs (`tests/golden/dlog-0.1.0`): they are converted
//! once, by a snapshot, and nothing is lost. `log` ended with kill -9 and has no snapshot; `snapshot` has one, and was stopped.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{Client, fetch_request, start, values};
use dlog::protocol::generated::{describe_configs, init_producer_id, metadata};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dlog-0.1.0").join(name)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        if path.is_dir() { copy(&path, &target) } else { std::fs::copy(&path, &target).map(drop).unwrap() }
    }
}

/// The leader epochs of each topic's partitions.
async fn epochs(client: &mut Client) -> BTreeMap<String, Vec<i32>> {
    let answer = client.call(&metadata::MetadataRequest { topics: None, ..Default::default() }, 12).await;
    let epochs = |topic: metadata::MetadataResponseTopic| {
        let mut partitions = topic.partitions;
        partitions.sort_by_key(|p| p.partition_index);
        (topic.name.unwrap(), partitions.iter().map(|p| p.leader_epoch).collect())
    };
    answer.topics.into_iter().map(epochs).collect()
}

fn raised(epochs: &BTreeMap<String, Vec<i32>>) -> BTreeMap<String, Vec<i32>> {
    epochs.iter().map(|(topic, epochs)| (topic.clone(), epochs.iter().map(|epoch| epoch + 1).collect())).collect()
}

/// The names of the metadata log's files.
fn metadata_files(data: &Path) -> Vec<String> {
    let names = std::fs::read_dir(data.join("__cluster_metadata-0")).unwrap();
    let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn check(client: &mut Client, expected: &BTreeMap<String, Vec<i32>>) {
    assert_eq!(epochs(client).await, *expected);
    for (topic, records) in [("kept", vec!["a", "b", "c", "e"]), ("second", vec!["d"])] {
        let mut found = Vec::new();
        for partition in 0..expected[topic].len() as i32 {
            let answer = client.call(&fetch_request(topic, &[(partition, 0)], 0, 0), 12).await;
            found.extend(values(&common::fetched(&answer)).into_iter().map(|(_, value)| value));
        }
        found.sort();
        assert_eq!(found, records.iter().map(|r| r.as_bytes().to_vec()).collect::<Vec<_>>(), "{topic}");
    }
    let resource = describe_configs::DescribeConfigsResource { resource_type: 2, resource_name: "kept".into(), configuration_keys: None };
    let request = describe_configs::DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let configs = client.call(&request, 4).await.results.remove(0).configs;
    let own: Vec<_> = configs.into_iter().filter(|c| c.config_source == 1).map(|c| (c.name, c.value)).collect();
    assert_eq!(own, [("retention.ms".to_string(), Some("999999999999".to_string()))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_in_which_a_registration_implied_epochs_are_converted_once() {
    for name in ["log", "snapshot"] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        copy(&golden(name), &data);
        let told: BTreeMap<String, Vec<i32>> =
            serde_json::from_slice(&std::fs::read(golden(&format!("{name}-epochs.json"))).unwrap()).unwrap();
        let mut expected = told;
        let mut last_id = 999;
        for round in 0..3 {
            let broker = start(&data, &[]).await;
            let mut client = Client::connect(&broker).await;
            expected = raised(&expected);
            check(&mut client, &expected).await;
            let request = init_producer_id::InitProducerIdRequest { transactional_id: None, ..Default::default() };
            let id = client.call(&request, 4).await.producer_id;
            assert!(id > last_id, "{name}: the producer id {id} comes after {last_id}");
            last_id = id;
            let names = metadata_files(&data);
            let snapshots: Vec<_> = names.iter().filter(|name| name.ends_with(".checkpoint")).cloned().collect();
            assert_eq!(snapshots.len(), 1, "{name}: {names:?}");
            if round == 1 {
                // What kill -9 leaves: the files as they are now.
                let killed = folder.path().join("killed");
                copy(&data, &killed);
                let second = start(&killed, &[]).await;
                let mut client = Client::connect(&second).await;
                check(&mut client, &raised(&expected)).await;
                assert_eq!(
                    metadata_files(&killed).iter().filter(|n| n.ends_with(".checkpoint")).collect::<Vec<_>>(),
                    snapshots.iter().collect::<Vec<_>>(),
                    "it is converted once"
                );
                second.stop().await.unwrap();
            }
            broker.stop().await.unwrap();
        }
    }
}
