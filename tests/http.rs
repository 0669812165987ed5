//! What the broker shows over HTTP: metrics, what tests wait for, and why a group is as it is.

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{Client, start};
use dlog::broker::Broker;
use dlog::http::{METRICS, ROUTES};
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
    asked(broker, "GET", path, host, "").await
}

/// The same, with a method and more header lines.
async fn asked(broker: &Broker, method: &str, path: &str, host: &str, more: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(broker.http()).await.unwrap();
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
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
        for missing in ["g is Stable, not empty", "g has 1 member, not 3", "g is 1 record behind, more than 0"] {
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
async fn foreign_names_are_refused_with_the_setting_that_allows_them_but_for_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("advertised.listeners", "PLAINTEXT://broker.example:9092"),
        ("http.allowed.hosts", "dlog.monitoring.svc, other.example"),
    ];
    let broker = start(folder.path(), &settings).await;
    let hosts = [
        ("localhost:9644", 200),
        ("broker.example", 200),
        ("dlog.monitoring.svc:80", 200),
        ("OTHER.example", 200),
        ("evil.example:1", 403),
    ];
    for (host, status) in hosts {
        assert_eq!(get(&broker, "/health", host).await.0, status, "{host}");
        assert_eq!(get(&broker, "/metrics", host).await.0, 200, "Prometheus in Kubernetes");
    }
    for path in ["/", "/v1/topics", "/v1/groups", "/v1/brokers", "/v1/doctor", "/nothing"] {
        let (status, text) = get(&broker, path, "evil.example:1").await;
        assert_eq!(status, 403, "{path}");
        assert!(text.contains("set http.allowed.hosts=evil.example (KAFKA_HTTP_ALLOWED_HOSTS)"), "{text}");
    }
    let (status, text) = get(&broker, "/nothing", "localhost").await;
    assert_eq!((status, text.as_str()), (404, "there is no such path; / lists the paths\n"));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_json_a_page_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    for name in ["a", "b", "c"] {
        client.create_topic(name, 3, &[("retention.ms", "5000")]).await;
    }
    client.create_topic("t", 1, &[]).await;
    client.produce("t", 0, &batch()).await;
    coordinator(&mut client).await;
    let joined = join(&mut client).await;
    sync(&mut client, &joined).await;
    commit(&mut client, &joined, 0).await;
    let json = async |path: &str| -> serde_json::Value {
        let (status, body) = get(&broker, path, "localhost").await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    };
    // __consumer_offsets, a, b, c, t.
    let (mut names, mut path) = (Vec::new(), "/v1/topics?limit=2".to_string());
    for _ in 0..3 {
        let page = json(&path).await;
        assert_eq!(page["count"], 5);
        names.extend(page["topics"].as_array().unwrap().iter().map(|topic| topic["name"].as_str().unwrap().to_string()));
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/topics?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["__consumer_offsets", "a", "b", "c", "t"]);
    let all = json("/v1/topics").await;
    let t = &all["topics"][4];
    assert_eq!((t["partitions"].as_u64(), t["offsets"].as_i64(), t["bytes"].as_u64()), (Some(1), Some(1), Some(batch().len() as u64)));
    assert_eq!(all["topics"][0]["is_internal"], true);
    let a = json("/v1/topics/a?limit=2&after=0").await;
    let numbers: Vec<_> = a["partitions"].as_array().unwrap().iter().map(|p| p["partition"].as_u64().unwrap()).collect();
    assert_eq!((numbers, a["next"].as_str(), a["configs"]["retention.ms"].as_str()), (vec![1, 2], None, Some("5000")));
    assert_eq!((&a["partitions"][0]["isr"], &a["partitions"][0]["log"]["log_end"]), (&serde_json::json!([1]), &0.into()));
    assert_eq!(json("/v1/topics/a?limit=2").await["next"], "1");
    let groups = json("/v1/groups").await;
    let g = &groups["groups"][0];
    assert_eq!(
        (g["group"].as_str(), g["state"].as_str(), g["members"].as_u64(), g["lag"].as_i64()),
        (Some("g"), Some("Stable"), Some(1), Some(1))
    );
    assert_eq!(g["topics"], serde_json::json!([{ "topic": "t", "lag": 1 }]));
    let brokers = json("/v1/brokers").await;
    let this = &brokers["brokers"][0];
    assert_eq!(
        (this["node_id"].as_i64(), this["is_this"].as_bool(), this["listeners"][0]["name"].as_str()),
        (Some(1), Some(true), Some("PLAINTEXT"))
    );
    assert_eq!(this["listeners"][0]["advertised"], serde_json::Value::Null, "each client is told the address that it used");
    for bad in ["/v1/topics?limit=0", "/v1/topics?limit=1001", "/v1/topics?limit=x", "/v1/groups?nonsense=1", "/v1/topics/a?after=x"] {
        assert_eq!(get(&broker, bad, "localhost").await.0, 400, "{bad}");
    }
    assert_eq!(get(&broker, "/v1/topics/none", "localhost").await.0, 404);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_page_is_html_for_browsers_and_json_for_others_and_names_stay_text() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    for at in 0..51 {
        client.create_topic(&format!("t{at:02}"), 1, &[]).await;
    }
    let evil = "<script>alert('x')</script>";
    client.call(&FindCoordinatorRequest { coordinator_keys: vec![evil.into()], ..Default::default() }, 4).await;
    let partition = OffsetCommitRequestPartition { committed_offset: 0, ..Default::default() };
    let topic = OffsetCommitRequestTopic { name: "t00".into(), partitions: vec![partition], ..Default::default() };
    let request =
        OffsetCommitRequest { group_id: evil.into(), generation_id_or_member_epoch: -1, topics: vec![topic], ..Default::default() };
    loop {
        match client.call(&request, 7).await.topics[0].partitions[0].error_code {
            0 => break,
            // Until the groups are loaded.
            _ => tokio::task::yield_now().await,
        }
    }
    let html = asked(&broker, "GET", "/", "localhost", "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n").await.1;
    assert!(html.starts_with("<!doctype html>") && html.contains("the first 50 of <a href=\"/v1/topics\">52</a>"), "{html}");
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;alert(&#39;x&#39;)"), "{html}");
    assert!(html.contains("href=\"/v1/groups/%3Cscript%3Ealert%28%27x%27%29%3C%2Fscript%3E/explain\""), "{html}");
    let (status, json) = get(&broker, "/", "localhost").await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((status, json["topics"].as_u64(), json["groups"].as_u64()), (200, Some(52), Some(1)));
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_that_is_documented_is_served_with_a_status_that_is_documented() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    for route in ROUTES {
        let path = route.path.replace("{topic}", "t").replace("{group}", "none");
        let (status, body) = asked(&broker, route.method, &path, "localhost", "").await;
        assert!(route.answers.iter().any(|(known, _)| *known == status), "{} {path}: {status} {body}", route.method);
        let nonsense = asked(&broker, route.method, &format!("{path}?limit=nonsense"), "localhost", "").await.0;
        assert!(route.answers.iter().any(|(known, _)| *known == nonsense), "{} {path}: {nonsense}", route.method);
    }
    assert_eq!(asked(&broker, "POST", "/v1/topics", "localhost", "").await.0, 405, "nothing is changed over HTTP");
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
