//! `dlog doctor`: each thing that it finds is provoked, and a sound broker has nothing.

mod common;

use std::net::{Shutdown, TcpListener, TcpStream};
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
use dlog::protocol::generated::metadata::MetadataRequest;

/// Exit code and output of `dlog doctor`.
async fn doctor(bootstrap: &str, http: &str) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dlog"));
    command.args(["doctor", "--bootstrap-server", bootstrap, "--http", http]);
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
    assert_eq!((code, said), (0, format!("nothing is wrong with {}\n", address(&broker))));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_where_the_broker_is_and_never_comes_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path(), &[]).await;
    let bootstrap = async |more: bool| {
        let stream = TcpStream::connect(address(&broker)).unwrap();
        let socket = stream.try_clone().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut connection = Connection::over(tokio::net::TcpStream::from_std(stream).unwrap(), "test");
        connection.call(&MetadataRequest { topics: Some(Vec::new()), ..Default::default() }, 9).await.unwrap();
        if more {
            connection.call(&ListGroupsRequest::default(), 0).await.unwrap();
        }
        socket.shutdown(Shutdown::Write).unwrap();
        assert!(connection.frame().await.is_err(), "the broker hangs up, and has noted by then that the client has left");
    };
    for _ in 0..2 {
        bootstrap(false).await;
    }
    let (code, said) = doctor(&address(&broker).to_string(), &broker.http().to_string()).await;
    assert_eq!(code, 0, "it may only list topics: {said}");
    bootstrap(false).await;
    let told = format!("was told {}, and never came there", address(&broker));
    finds_in(&broker, "client-never-came", &["client \"test\" at 127.0.0.1", &told, "advertised.listeners=PLAINTEXT://HOST:PORT"]).await;
    bootstrap(true).await;
    assert_eq!(doctor(&address(&broker).to_string(), &broker.http().to_string()).await.0, 0, "it came");
    broker.stop().await.unwrap();
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
    finds_in(&broker, "advertised-unreachable", &[&format!("tells clients to connect to {nowhere}"), &line]).await;
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kafka_or_too_old_is_named() {
    for (bytes, kind, words) in [
        (&[0x16, 3, 1, 2, 0, 1, 0, 1][..], "tls", ["a TLS handshake", "security.protocol=PLAINTEXT"]),
        (b"GET / HTTP/1.1\r\n\r\n", "http", ["HTTP, and this is a Kafka listener", "HTTP is served at http://127.0.0.1:"]),
        (b"SSH-2.0-OpenSSH\r\n", "frame", ["which is not allowed", "socket.request.max.bytes"]),
        // Fetch version 0 of client "c".
        (
            &[0, 0, 0, 11, 0, 1, 0, 0, 0, 0, 0, 7, 0, 1, b'c'],
            "version",
            ["Fetch version 0, which is not offered; 4 to 18 are", "newer client"],
        ),
        (&[0, 0, 0, 11, 0x7f, 0, 0, 0, 0, 0, 0, 7, 0, 1, b'c'], "api", ["a request of API 32512", "docs/protocol.md"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let broker = start(folder.path(), &[]).await;
        let mut client = Client::connect(&broker).await;
        client.send_raw(bytes).await;
        assert!(client.frame().await.is_none(), "{kind}");
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
    finds(&nobody, &http, "not-listening", &[&format!("nothing can be reached at {nobody}"), &listens]).await;
    let own = address(&another).to_string();
    finds(&own, &nobody, "no-http", &["the broker's own view is missing"]).await;
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
    finds(&process.address.to_string(), &http, "open-files", &["of 200 files that may be open are", "LimitNOFILE="]).await;
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
