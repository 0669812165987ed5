//! `dlog doctor`: each thing that it finds is provoked, and a sound broker has nothing.

mod common;

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::process::Process;
use common::{Client, address, start};
use dlog::broker::Broker;
use dlog::client::Connection;
use dlog::env::{Env, MemoryDisk};
use dlog::protocol::generated::api_versions::ApiVersionsRequest;
use dlog::protocol::generated::list_groups::ListGroupsRequest;
use dlog::protocol::generated::metadata::{MetadataRequest, MetadataRequestTopic};

/// Exit code and output of `dlog doctor`.
async fn doctor(bootstrap: &str, http: &str) -> (i32, String) {
    run_doctor(bootstrap, http, &[]).await
}

async fn run_doctor(bootstrap: &str, http: &str, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dlog"));
    command.args(["doctor", "--bootstrap-server", bootstrap, "--http", http]).args(more);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// That it finds one thing, with these words.
async fn finds(bootstrap: &str, http: &str, kind: &str, words: &[&str]) {
    let (code, said) = doctor(bootstrap, http).await;
    assert_eq!(code, 1, "{said}");
    let kinds: Vec<_> = said.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    assert_eq!(kinds, [kind], "{said}");
    words.iter().for_each(|word| assert!(said.contains(word), "{word}: {said}"));
}

async fn finds_in(broker: &Broker, kind: &str, words: &[&str]) {
    finds(&address(broker).to_string(), &broker.http().to_string(), kind, words).await;
}

/// A port of which nobody listens.
fn unused() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_broker_has_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    let (code, said) = doctor(&address(&broker).to_string(), &broker.http().to_string()).await;
    assert_eq!((code, said), (0, format!("no problems found with {}\n", address(&broker))));
    broker.stop().await.unwrap();
}

/// Connects, asks for a topic or for all, does more or does not, and leaves. What it was told.
async fn bootstrap(at: SocketAddr, client_id: &str, topic: Option<&str>, more: bool) -> String {
    let stream = TcpStream::connect(at).unwrap();
    let socket = stream.try_clone().unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut connection = Connection::over(tokio::net::TcpStream::from_std(stream).unwrap(), client_id);
    connection.greet().await.unwrap();
    let topics = topic.map(|name| vec![MetadataRequestTopic { name: Some(name.into()), ..Default::default() }]);
    let answer = connection.call(&MetadataRequest { topics, ..Default::default() }, 9).await.unwrap();
    if more {
        connection.call(&ListGroupsRequest::default(), 0).await.unwrap();
    }
    socket.shutdown(Shutdown::Write).unwrap();
    assert!(connection.frame().await.is_err(), "the broker hangs up, and has noted by then that the client has left");
    format!("{}:{}", answer.brokers[0].host, answer.brokers[0].port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_bootstraps_again_and_again_is_named_with_time_and_count_until_it_comes_or_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let bootstrap = async |topic, more| bootstrap(address(&broker), "test", topic, more).await;
    let (kafka, http) = (address(&broker).to_string(), broker.http().to_string());
    for _ in 0..4 {
        bootstrap(None, false).await;
        assert_eq!(doctor(&kafka, &http).await.0, 0, "it lists topics");
    }
    let in_vain = async || {
        for _ in 0..3 {
            bootstrap(Some("t"), false).await;
        }
    };
    in_vain().await;
    let told = format!("received the address {}, and never connected to it", address(&broker));
    let words = ["client \"test\" at 127.0.0.1", &told, "advertised.listeners=PLAINTEXT://HOST:PORT", "seen 3 times, last ", "Z)"];
    finds_in(&broker, "client-never-came", &words).await;
    let (code, said) = run_doctor(&kafka, &http, &["--output", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    let finding = &json["findings"][0];
    assert_eq!((code, finding["kind"].as_str(), finding["seen"]["count"].as_u64()), (1, Some("client-never-came"), Some(3)), "{said}");
    assert!(finding["seen"]["age_seconds"].is_u64() && finding["seen"]["first"].as_str().unwrap().ends_with('Z'), "{said}");
    bootstrap(Some("t"), true).await;
    assert_eq!(doctor(&kafka, &http).await.0, 0, "it came");
    in_vain().await;
    assert_eq!(doctor(&kafka, &http).await.0, 1);
    assert_eq!(run_doctor(&kafka, &http, &["--clear"]).await.0, 0, "cleared");
    assert_eq!(doctor(&kafka, &http).await.0, 0);
    broker.stop().await.unwrap();
}

/// The real binary with an advertised address where nobody listens, behind a port published under another number.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_once_that_a_client_never_came_and_which_line_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let mut serving = common::process::command(folder.path());
    serving.args(["--set", "advertised.listeners=PLAINTEXT://localhost:9"]);
    let log = folder.path().join("log");
    serving.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = serving.spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let kafka = loop {
        line.clear();
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        if let Some(address) = line.trim().strip_prefix("plaintext") {
            break address.trim().to_string();
        }
    };
    let said = std::thread::spawn(move || {
        std::io::copy(&mut out, &mut std::fs::File::create(log).unwrap()).unwrap();
    });
    // A forwarder as Docker's: what comes to its port goes to the broker's.
    let published = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = published.local_addr().unwrap();
    let forwarding = tokio::spawn(async move {
        while let Ok((mut outside, _)) = published.accept().await {
            let mut inside = tokio::net::TcpStream::connect(&kafka).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut outside, &mut inside).await });
        }
    });
    for _ in 0..2 {
        for _ in 0..4 {
            assert_eq!(bootstrap(port, "lost", Some("t"), false).await, "localhost:9");
        }
        // The log is told once a second.
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    }
    forwarding.abort();
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    child.wait().unwrap();
    said.join().unwrap();
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("never connected")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    for word in
        ["WARN", "client \"lost\" at 127.0.0.1", "received the address localhost:9", "set advertised.listeners=PLAINTEXT://HOST:PORT"]
    {
        assert!(lines[0].contains(word), "{word}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_advertised_address_that_leads_nowhere_is_named_with_the_line_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = unused();
    let settings = [
        ("listeners", "OUTSIDE://127.0.0.1:0"),
        ("advertised.listeners", &format!("OUTSIDE://{nowhere}")),
        ("listener.security.protocol.map", "OUTSIDE:PLAINTEXT"),
    ];
    let broker = start(folder.path(), &settings).await;
    let line = format!("set advertised.listeners=OUTSIDE://{}", address(&broker));
    finds_in(&broker, "advertised-unreachable", &[&format!("advertises {nowhere}, and connecting to it from here fails"), &line]).await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kafka_or_too_old_is_named() {
    for (bytes, kind, words) in [
        (&[0x16, 3, 1, 2, 0, 1, 0, 1][..], "tls", ["a TLS handshake", "security.protocol=PLAINTEXT"]),
        (b"GET / HTTP/1.1\r\n\r\n", "http", ["an HTTP request, but this is a Kafka listener", "HTTP is served at http://127.0.0.1:"]),
        (b"SSH-2.0-OpenSSH\r\n", "frame", ["a request with the invalid size", "socket.request.max.bytes"]),
        // Fetch version 0 of client "c".
        (
            &[0, 0, 0, 11, 0, 1, 0, 0, 0, 0, 0, 7, 0, 1, b'c'],
            "version",
            ["Fetch version 0, which is not supported; versions 4 to 18 are", "newer client"],
        ),
        // SaslHandshake version 0 with the mechanism "P"; then something that is refused, so that the connection ends.
        (
            &[0, 0, 0, 14, 0, 17, 0, 0, 0, 0, 0, 7, 0, 1, b'c', 0, 1, b'P'],
            "sasl",
            ["a SASL handshake, but the listener does not support authentication", "security.protocol=PLAINTEXT"],
        ),
        (&[0, 0, 0, 11, 0x7f, 0, 0, 0, 0, 0, 0, 7, 0, 1, b'c'], "api", ["a request with API key 32512", "docs/protocol.md"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let broker = start(folder.path(), &[]).await;
        let mut client = Client::connect(&broker).await;
        client.send_raw(bytes).await;
        // SASL is answered, as by Kafka; all else ends the connection.
        assert_eq!(client.frame().await.is_some(), kind == "sasl", "{kind}");
        finds_in(&broker, kind, &words).await;
        broker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_somebody_else_has_is_named_with_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, other) = (start(folder.path(), &[]).await, tempfile::tempdir().unwrap());
    let http = broker.http().to_string();
    // It hangs up at once.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = deaf.local_addr().unwrap().to_string();
    std::thread::spawn(move || deaf.incoming().for_each(drop));
    let process = format!("process {}", std::process::id());
    finds(&taken, &http, "port-taken", &[&taken, "does not speak Kafka", &process]).await;
    let another = start(other.path(), &[]).await;
    finds(&address(&another).to_string(), &http, "port-taken", &["another broker, of cluster", &process]).await;
    let nobody = unused();
    let listens = format!("PLAINTEXT at {}", address(&broker));
    finds(&nobody, &http, "not-listening", &[&format!("no broker can be reached at {nobody}"), &listens]).await;
    let own = address(&another).to_string();
    finds(&own, &nobody, "no-http", &["the findings of the broker itself are missing"]).await;
    another.stop().await.unwrap();
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn few_open_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 200 && exec \"$0\" \"$@\""]).arg(env!("CARGO_BIN_EXE_dlog"));
    let http = unused();
    limited.args(["--listen", "127.0.0.1:0", "--http", &http, "--data"]).arg(folder.path());
    limited.stdout(Stdio::piped()).stderr(Stdio::null());
    let process = Process::start(limited);
    finds(&process.address.to_string(), &http, "open-files", &["files are open, and the limit is 200", "LimitNOFILE="]).await;
    assert!(process.terminate());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nearly_full_is_named() {
    let real = Env::real();
    let disk = MemoryDisk::new(real.clock.clone());
    disk.set_capacity(Some(1 << 20));
    let env = Env { disk: Arc::new(disk.clone()), ..real };
    let broker = Broker::start(common::config(Path::new("/data"), &[]), env).await.unwrap();
    let mut client = Client::connect(&broker).await;
    client.call(&ApiVersionsRequest::default(), 0).await;
    assert_eq!(doctor(&address(&broker).to_string(), &broker.http().to_string()).await.0, 0, "there is room");
    let (_, free) = dlog::env::Disk::space(&disk, Path::new("/data")).unwrap();
    disk.set_capacity(Some((1 << 20) - free + 10));
    finds_in(&broker, "disk-full", &["the disk of /data is nearly full", "retention.ms"]).await;
    disk.set_capacity(None);
    broker.stop().await.unwrap();
}
