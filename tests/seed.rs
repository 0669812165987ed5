//! What a broker holds from its start on: seeds, topics by `KAFKA_CREATE_TOPICS`, and `--reset`.

mod common;

use std::path::Path;

use common::{Client, config, fetched, values};
use dlog::broker::{Broker, Config, Error, Seed};
use dlog::env::{Env, RealDisk};
use dlog::protocol::generated::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use dlog::protocol::generated::metadata::MetadataRequest;
use dlog::protocol::generated::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use dlog::records::{BatchBuilder, NewRecord};

async fn start(data: &Path, create_topics: Option<&str>, seed: Option<&Path>) -> Result<(Broker, Client), Error> {
    let seed = Seed::read(&RealDisk, create_topics, seed)?;
    let broker = Broker::start(Config { seed, ..config(data, &[]) }, Env::real()).await?;
    let client = Client::connect(&broker).await;
    Ok((broker, client))
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Names and partitions of the topics that are not the broker's own.
async fn topics(client: &mut Client) -> Vec<(String, usize)> {
    let answer = client.call(&MetadataRequest { topics: None, ..Default::default() }, 9).await;
    let own = answer.topics.into_iter().filter(|topic| !topic.is_internal);
    let mut topics: Vec<_> = own.map(|topic| (topic.name.unwrap_or_default(), topic.partitions.len())).collect();
    topics.sort();
    topics
}

async fn records(client: &mut Client, topic: &str, partition: i32) -> Vec<String> {
    let found = fetched(&client.fetch(topic, partition, 0).await);
    values(&found).into_iter().map(|(_, value)| String::from_utf8(value).unwrap()).collect()
}

async fn committed(client: &mut Client) -> i64 {
    let topics = Some(vec![OffsetFetchRequestTopic { name: "orders".into(), partition_indexes: vec![0] }]);
    let request = OffsetFetchRequest { group_id: "billing".into(), topics, ..Default::default() };
    client.call(&request, 7).await.topics[0].partitions[0].committed_offset
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_is_there_before_clients_are_and_once() {
    let (data, seed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(seed.path(), "topics.json", r#"[{"name": "orders", "partitions": 2, "configs": {"retention.ms": "5000"}}, {"name": "empty"}]"#);
    // More than a batch.
    let lines: String = (0..2500).map(|at| format!("{{\"key\": \"k\", \"value\": \"v{at}\", \"timestamp_ms\": {at}}}\n")).collect();
    write(seed.path(), "topics/orders-0.ndjson", &lines);
    write(seed.path(), "topics/payments-1.ndjson", "{\"value\": {\"paid\": true}}\n\n{\"value\": \"x\"}\n");
    write(seed.path(), "groups.json", r#"[{"group": "billing", "offsets": [{"topic": "orders", "partition": 0, "offset": 7}]}]"#);
    // Other programs create hidden files, and `dlog run` keeps records of deleted topics.
    write(seed.path(), ".gitkeep", "");
    write(seed.path(), "topics/.gitkeep", "");
    write(seed.path(), "deleted/old-0.ndjson", "{}");
    for round in 0..3 {
        let (broker, mut client) = start(data.path(), None, Some(seed.path())).await.unwrap();
        assert_eq!(topics(&mut client).await, [("empty".into(), 1), ("orders".into(), 2), ("payments".into(), 2)], "round {round}");
        let orders = records(&mut client, "orders", 0).await;
        assert_eq!((orders.len(), orders[2499].as_str()), (2500, "v2499"), "round {round}");
        assert_eq!(records(&mut client, "payments", 1).await, [r#"{"paid":true}"#, "x"]);
        assert_eq!(committed(&mut client).await, 7);
        let resource = DescribeConfigsResource { resource_type: 2, resource_name: "orders".into(), configuration_keys: None };
        let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
        let configs = client.call(&request, 4).await.results.remove(0).configs;
        assert!(configs.iter().any(|c| c.name == "retention.ms" && c.value.as_deref() == Some("5000")));
        broker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_users_made_of_a_seed_stays_and_what_is_missing_is_added() {
    let (data, seed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(seed.path(), "topics/t-0.ndjson", "{\"value\": \"a\"}\n");
    let (broker, mut client) = start(data.path(), None, Some(seed.path())).await.unwrap();
    client.produce("t", 0, &BatchBuilder::new().record(NewRecord::value(b"mine")).build(1_700_000_000_000)).await;
    broker.stop().await.unwrap();
    write(seed.path(), "topics.json", r#"[{"name": "t", "partitions": 3}]"#);
    write(seed.path(), "topics/t-1.ndjson", "{\"value\": \"b\"}\n");
    let (broker, mut client) = start(data.path(), None, Some(seed.path())).await.unwrap();
    assert_eq!(topics(&mut client).await, [("t".into(), 3)]);
    assert_eq!(
        (records(&mut client, "t", 0).await, records(&mut client, "t", 1).await),
        (vec!["a".into(), "mine".into()], vec!["b".into()])
    );
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_by_the_environment_exist_at_the_start() {
    let data = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let (broker, mut client) = start(data.path(), Some("a:3:1,b:1:3:compact"), None).await.unwrap();
        assert_eq!(topics(&mut client).await, [("a".into(), 3), ("b".into(), 1)]);
        broker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_is_wrong_is_said_and_nothing_starts() {
    for (name, text, words) in [
        ("topics.json", "[{", "topics.json:1: is not JSON: "),
        ("topics.json", "\n{}", "topics.json:2: must be a list, not an object"),
        ("topics.json", "[5]", "topics.json:1: must be an object, not integer 5"),
        ("topics.json", r#"[{"partitions": 3}]"#, "topics.json:1: missing field \"name\""),
        ("topics/t-0.ndjson", "{\"headers\": 5}\n", "t-0.ndjson:1: headers must be an object, or a list of pairs"),
        ("topics.json", "[{\"name\": \"t\",\n  \"partition\": 3}]", "topics.json:2: unknown field \"partition\"; is \"partitions\" meant?"),
        (
            "topics.json",
            r#"[{"name": "t", "x": 3}]"#,
            "topics.json:1: unknown field \"x\"; fields are name, partitions, replication_factor, configs",
        ),
        ("topics.json", r#"[{"name": 5}]"#, "topics.json:1: must be a string, not integer 5"),
        ("topics.json", r#"[{"name": "bad name"}]"#, "bad name: "),
        ("topics/t.ndjson", "", "must be TOPIC-PARTITION.ndjson"),
        ("topics/orders.txt", "", "orders.txt: the name must be TOPIC-PARTITION.ndjson"),
        ("topics/orders-0.jsonl", "{}", "orders-0.jsonl: the name must be TOPIC-PARTITION.ndjson"),
        ("topics/orders-0", "{}", "orders-0: the name must be TOPIC-PARTITION.ndjson"),
        ("topic.json", "[]", "topic.json: a file of this name is not read; a seed has topics.json, groups.json and topics/"),
        ("orders-0.ndjson", "{}", "orders-0.ndjson: a file of this name is not read"),
        ("topics/t-0.ndjson", "{\"value\": \"a\"}\nx\n", "t-0.ndjson:2: is not JSON: "),
        ("topics/t-0.ndjson", "{\"val\": 1}\n", "t-0.ndjson:1: unknown field \"val\"; is \"value\" meant?"),
        ("topics/t-0.ndjson", "\n\n{\"value\": 1, \"value_hex\": \"00\"}\n", "t-0.ndjson:3: has both \"value\" and \"value_hex\""),
        ("groups.json", r#"[{"group": "g", "offset": []}]"#, "groups.json:1: unknown field \"offset\"; is \"offsets\" meant?"),
        ("groups.json", r#"[{"group": "g", "offsets": [{"topic": "t", "partition": 0, "offset": 1}]}]"#, "group g, t-0: "),
    ] {
        let (data, seed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(seed.path(), name, text);
        let Err(error) = start(data.path(), None, Some(seed.path())).await else { panic!("{name}: it starts") };
        assert!(error.to_string().starts_with("cannot seed: ") && error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains(" column "), "{error}");
    }
    assert!(Seed::read(&RealDisk, None, Some(Path::new(""))).is_ok(), "a variable that is set and empty");
    let error = Seed::read(&RealDisk, None, Some(Path::new("/nowhere/at all"))).unwrap_err().to_string();
    assert_eq!(error, "cannot seed: /nowhere/at all: there is no such directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_id_is_a_sentence_and_reset_starts_afresh() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(config(data.path(), &[("cluster.id", "one")]), Env::real()).await.unwrap();
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    let in_use = Broker::start(Config { reset: true, ..config(data.path(), &[]) }, Env::real()).await;
    assert!(in_use.err().unwrap().to_string().contains("in use"), "a broker that runs keeps its data");
    broker.stop().await.unwrap();
    let other = config(data.path(), &[("cluster.id", "two")]);
    let refused = Broker::start(other.clone(), Env::real()).await.err().unwrap().to_string();
    for words in ["belongs to cluster one", "the configuration says two", "--reset"] {
        assert!(refused.contains(words), "{refused}");
    }
    let broker = Broker::start(Config { reset: true, ..other }, Env::real()).await.unwrap();
    assert_eq!(topics(&mut Client::connect(&broker).await).await, []);
    broker.stop().await.unwrap();
    let foreign = tempfile::tempdir().unwrap();
    write(foreign.path(), "thesis.txt", "years of work");
    let refused = Broker::start(Config { reset: true, ..config(foreign.path(), &[]) }, Env::real()).await.err().unwrap().to_string();
    assert!(refused.contains("thesis.txt") && foreign.path().join("thesis.txt").exists(), "{refused}");
}
