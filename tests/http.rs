//! What the broker shows over HTTP: metrics, what tests wait for, and why a group is as it is.

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{Client, start};
use dlog::broker::Broker;
use dlog::http::METRICS;
use dlog::protocol::ErrorCode;
use dlog::protocol::generated::delete_groups::DeleteGroupsRequest;
use dlog::protocol::generated::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use dlog::protocol::generated::find_coordinator::FindCoordinatorRequest;
use dlog::protocol::generated::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use dlog::protocol::generated::leave_group::{LeaveGroupRequest, MemberIdentity};
use dlog::protocol::generated::offset_commit::{OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use dlog::protocol::generated::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use dlog::records::{BatchBuilder, NewRecord};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Status and body.
async fn get(broker: &Broker, path: &str, host: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(broker.http()).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
}

fn batch() -> Bytes {
    BatchBuilder::new().record(NewRecord::value(b"x")).build(1_700_000_000_000)
}

async fn join(client: &mut Client) -> JoinGroupResponse {
    let mut member_id = String::new();
    loop {
        let request = JoinGroupRequest {
            group_id: "g".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            member_id: member_id.clone(),
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::new() }],
            ..Default::default()
        };
        let answer = client.call(&request, 5).await;
        match ErrorCode::from_code(answer.error_code) {
            Some(ErrorCode::None) => return answer,
            Some(ErrorCode::MemberIdRequired) => member_id = answer.member_id,
            // Until the groups are loaded.
            _ => tokio::task::yield_now().await,
        }
    }
}

async fn sync(client: &mut Client, joined: &JoinGroupResponse) {
    let assignments = vec![SyncGroupRequestAssignment { member_id: joined.member_id.clone(), assignment: Bytes::from_static(b"all") }];
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments,
        ..Default::default()
    };
    assert_eq!(client.call(&request, 3).await.error_code, 0);
}

async fn commit(client: &mut Client, joined: &JoinGroupResponse, committed_offset: i64) {
    let partition = OffsetCommitRequestPartition { committed_offset, ..Default::default() };
    let topic = OffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition], ..Default::default() };
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: joined.generation_id,
        member_id: joined.member_id.clone(),
        topics: vec![topic],
        ..Default::default()
    };
    assert_eq!(client.call(&request, 8).await.topics[0].partitions[0].error_code, 0);
}

async fn coordinator(client: &mut Client) {
    client.call(&FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() }, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_docs_and_page_name_the_same_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 2, &[]).await;
    client.produce("t", 0, &batch()).await;
    client.produce("t", 0, &batch()).await;
    client.fetch("t", 0, 0).await;
    coordinator(&mut client).await;
    let joined = join(&mut client).await;
    sync(&mut client, &joined).await;
    commit(&mut client, &joined, 1).await;
    let (status, page) = get(&broker, "/metrics", "localhost").await;
    assert_eq!(status, 200);
    let typed: BTreeMap<&str, &str> = page.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let in_code: BTreeMap<&str, &str> = METRICS.iter().map(|m| (m.name, m.kind.name())).collect();
    assert_eq!(typed, in_code);
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let rows: Vec<String> = docs.lines().filter(|l| l.starts_with("| `")).map(str::to_string).collect();
    let row = |m: &dlog::http::Metric| format!("| `{}` | {} | {} | {} |", m.name, m.kind.name(), m.labels.join(", "), m.help);
    assert_eq!(rows, METRICS.iter().map(row).collect::<Vec<_>>());
    for line in [
        "kafka_server_brokertopicmetrics_messagesin_total{topic=\"t\"} 2",
        "kafka_topic_partition_current_offset{topic=\"t\",partition=\"0\"} 2",
        "kafka_consumergroup_current_offset{consumergroup=\"g\",topic=\"t\",partition=\"0\"} 1",
        "kafka_consumergroup_lag{consumergroup=\"g\",topic=\"t\",partition=\"0\"} 1",
        "kafka_consumergroup_members{consumergroup=\"g\"} 1",
        "kafka_topic_partitions{topic=\"t\"} 2",
        "kafka_controller_kafkacontroller_activecontrollercount 1",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
    }
    let bytes = |name: &str| -> f64 {
        let start = format!("kafka_server_brokertopicmetrics_{name}_total{{topic=\"t\"}} ");
        page.lines().find_map(|l| l.strip_prefix(&start)).and_then(|v| v.parse().ok()).unwrap_or_default()
    };
    assert_eq!((bytes("bytesin"), bytes("bytesout")), (2.0 * batch().len() as f64, 2.0 * batch().len() as f64));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_when_all_holds_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    let (status, body) = get(&broker, "/v1/wait?topic=t&timeout=10ms", "localhost").await;
    assert_eq!((status, body.as_str()), (408, r#"{"satisfied":false,"missing":["there is no topic t"]}"#));
    let all = "/v1/wait?group=g&state=stable&members=1&lag=0&topic=t&timeout=20s";
    let waiting = get(&broker, all, "localhost");
    let working = async {
        client.create_topic("t", 1, &[]).await;
        client.produce("t", 0, &batch()).await;
        coordinator(&mut client).await;
        let joined = join(&mut client).await;
        sync(&mut client, &joined).await;
        commit(&mut client, &joined, 0).await;
        let (status, body) = get(&broker, "/v1/wait?group=g&state=empty&members=3&lag=0&timeout=1ms", "127.0.0.1").await;
        assert_eq!(status, 408);
        for missing in ["g is Stable, not empty", "g has 1 members, not 3", "g is 1 records behind, more than 0"] {
            assert!(body.contains(missing), "{missing}: {body}");
        }
        commit(&mut client, &joined, 1).await;
    };
    let ((status, body), ()) = tokio::join!(waiting, working);
    assert_eq!((status, body.as_str()), (200, r#"{"satisfied":true,"missing":[]}"#));
    for bad in [
        "/v1/wait",
        "/v1/wait?state=stable",
        "/v1/wait?group=g&state=happy",
        "/v1/wait?topic=t&timeout=1h",
        "/v1/wait?topic=t&timeout=601s",
        "/v1/wait?topic=t&nonsense=1",
        "/v1/wait?group=g&members=x",
    ] {
        assert_eq!(get(&broker, bad, "localhost").await.0, 400, "{bad}");
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_tells_its_history() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    coordinator(&mut client).await;
    let joined = join(&mut client).await;
    sync(&mut client, &joined).await;
    let member = MemberIdentity { member_id: joined.member_id.clone(), ..Default::default() };
    client.call(&LeaveGroupRequest { group_id: "g".into(), members: vec![member], ..Default::default() }, 4).await;
    let (status, body) = get(&broker, "/v1/groups/g/explain", "localhost").await;
    assert_eq!(status, 200);
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    let kinds: Vec<&str> = answer["history"].as_array().unwrap().iter().map(|h| h["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["join", "rebalance", "generation", "stable", "leave", "rebalance", "generation"]);
    assert_eq!((answer["state"].as_str(), answer["members"].as_u64()), (Some("Empty"), Some(0)));
    assert!(body.contains(&format!("because member {} left", joined.member_id)), "{body}");
    assert_eq!(get(&broker, "/v1/groups/nobody/explain", "localhost").await.0, 404);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_names_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let listeners = [("listeners", "PLAINTEXT://127.0.0.1:0"), ("advertised.listeners", "PLAINTEXT://broker.example:0")];
    let broker = start(folder.path(), &listeners).await;
    for (host, status) in [("localhost:9644", 200), ("broker.example", 200), ("evil.example", 403)] {
        assert_eq!(get(&broker, "/health", host).await.0, status, "{host}");
    }
    assert_eq!(get(&broker, "/nothing", "localhost").await.0, 404);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_nobody_has_made_is_said_to_be_missing_and_not_loading() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[("group.initial.rebalance.delay.ms", "0")]).await;
    let missing = async |broker: &Broker| {
        // Until the broker has looked, nothing is known.
        let explained = loop {
            match get(broker, "/v1/groups/g/explain", "localhost").await {
                (503, text) => assert!(text.contains("loaded"), "{text}"),
                other => break other,
            }
        };
        assert_eq!(explained, (404, "there is no group g\n".into()));
        let (status, text) = get(broker, "/v1/wait?group=g&state=Stable&timeout=1ms", "localhost").await;
        assert_eq!(status, 408);
        assert!(text.contains("there is no group g"), "{text}");
    };
    // No group was ever made: there is not even an offsets topic.
    missing(&broker).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    client.call(&FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() }, 4).await;
    missing(&broker).await;
    // A group that was deleted, and one whose offsets topic was deleted.
    let joined = join(&mut client).await;
    sync(&mut client, &joined).await;
    assert_eq!(get(&broker, "/v1/groups/g/explain", "localhost").await.0, 200);
    let member = MemberIdentity { member_id: joined.member_id.clone(), ..Default::default() };
    let leave = LeaveGroupRequest { group_id: "g".into(), members: vec![member], ..Default::default() };
    assert_eq!(client.call(&leave, 5).await.error_code, 0);
    assert_eq!(client.call(&DeleteGroupsRequest { groups_names: vec!["g".into()] }, 2).await.results[0].error_code, 0);
    missing(&broker).await;
    join(&mut client).await;
    let topics = vec![DeleteTopicState { name: Some("__consumer_offsets".into()), ..Default::default() }];
    let deleted = client.call(&DeleteTopicsRequest { topics, timeout_ms: 1000, ..Default::default() }, 6).await;
    assert_eq!(deleted.responses[0].error_code, 0);
    missing(&broker).await;
    broker.stop().await.unwrap();
}
