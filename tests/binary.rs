//! The real binary: start, stop, kill, and the sentences with which it refuses.

mod common;

use std::path::Path;

use bytes::Bytes;
use common::process::{END_SIGNAL, Process, command, failure};
use common::{Client, fetched, produce_request, values};
use dlog::protocol::generated::produce::ProduceRequest;
use dlog::records::{BatchBuilder, NewRecord};

/// Whether the broker can name the process that has a port or a directory.
const NAMES_PROCESSES: bool = !cfg!(feature = "portable");

fn batch(value: &[u8]) -> Bytes {
    BatchBuilder::new().record(NewRecord::value(value)).build(1_700_000_000_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_kill_9_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0_i64;
    // KILLS=n kills as often.
    let kills = std::env::var("KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    for round in 0..kills {
        let process = Process::start(command(folder.path()));
        let mut client = Client::connect_to(process.address).await;
        if round == 0 {
            client.create_topic("t", 1, &[]).await;
        }
        let read = all(&mut client).await;
        assert!(read.len() as i64 >= acknowledged, "round {round}: {} records, {acknowledged} were acknowledged", read.len());
        assert!(
            read.iter().enumerate().all(|(at, (offset, value))| *offset == at as i64 && value == at.to_string().as_bytes()),
            "round {round}"
        );
        let first = read.len();
        // Many in flight, and the kill comes in the middle of them.
        for at in first..first + 400 {
            client.send(&produce_request("t", 0, &batch(at.to_string().as_bytes()), -1), 9).await;
        }
        for _ in 0..200 {
            let (_, response) = client.receive::<ProduceRequest>(9).await;
            acknowledged = response.responses[0].partition_responses[0].base_offset + 1;
        }
        process.kill();
    }
    assert!(acknowledged >= 200 * kills);
}

async fn all(client: &mut Client) -> Vec<(i64, Vec<u8>)> {
    let mut read: Vec<(i64, Vec<u8>)> = Vec::new();
    loop {
        let more = values(&fetched(&client.fetch("t", 0, read.len() as i64).await));
        if more.is_empty() {
            return read;
        }
        read.extend(more.into_iter().filter(|(offset, _)| *offset >= read.len() as i64).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_closes_cleanly_and_ephemeral_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(command(folder.path()));
    let mut client = Client::connect_to(process.address).await;
    client.create_topic("t", 1, &[]).await;
    client.produce("t", 0, &batch(b"x")).await;
    assert!(process.terminate());
    assert!(folder.path().join(".kafka_cleanshutdown").exists());

    let temporary = tempfile::tempdir().unwrap();
    let mut ephemeral = std::process::Command::new(env!("CARGO_BIN_EXE_dlog"));
    ephemeral.args(["--ephemeral", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]).env("TMPDIR", temporary.path());
    ephemeral.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let process = Process::start(ephemeral);
    Client::connect_to(process.address).await.create_topic("t", 1, &[]).await;
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 1);
    assert!(process.terminate());
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
#[cfg_attr(feature = "portable", ignore = "this is only told where the system has signals or systemd")]
fn systemd_is_told_when_clients_are_served_and_when_they_are_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    let socket = std::os::unix::net::UnixDatagram::bind(folder.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let told = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("a word in time");
        String::from_utf8_lossy(&bytes[..length]).trim().to_string()
    };
    let mut started = command(&folder.path().join("data"));
    started.env("NOTIFY_SOCKET", folder.path().join("notify"));
    let process = Process::start(started);
    assert_eq!(told(), "READY=1");
    std::net::TcpStream::connect(process.address).unwrap();
    assert!(process.terminate());
    assert_eq!(told(), "STOPPING=1");
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let dlog = |words: &[&str]| {
        let done = std::process::Command::new(env!("CARGO_BIN_EXE_dlog")).args(words).output().unwrap();
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let help = dlog(&["--help"]);
    let listed = help.split("Commands:").nth(1).and_then(|rest| rest.split("Options:").next()).unwrap();
    let commands: Vec<&str> = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    assert!(commands.contains(&"serve") && commands.contains(&"doctor"), "{commands:?}");
    dlog(&["man", folder.path().to_str().unwrap()]);
    let page = std::fs::read_to_string(folder.path().join("dlog.1")).unwrap();
    assert!(page.contains("\\-\\-ephemeral"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        let text = dlog(&["completions", shell]);
        for command in commands.iter().filter(|command| **command != "help") {
            assert!(text.contains(command), "{shell} does not know {command}");
            assert!(folder.path().join(format!("dlog-{command}.1")).exists(), "{command} has no page");
        }
    }
}

#[test]
fn what_keeps_it_from_starting_is_said_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let running = Process::start(command(folder.path()));
    let refused = |command, words: &[&str]| {
        let (code, text) = failure(command);
        assert_eq!(code, 1, "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{word}: {text}"));
    };
    let own = |unknown: &str| if NAMES_PROCESSES { format!("process {}", running.child.id()) } else { unknown.to_string() };
    let words = ["in use by another broker", &own("another broker"), "; stop that, or use this: ", "-2"];
    refused(command(folder.path()), &words);

    let fresh = || tempfile::tempdir().unwrap();
    let busy_flag = {
        let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_dlog"));
        c.args(["--listen", &running.address.to_string(), "--http", "127.0.0.1:0", "--data"]).arg(fresh().path());
        c.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        c
    };
    refused(
        busy_flag,
        &[&format!("{} is in use by {}", running.address, own("another program")), "use this: ", "dlog --listen 127.0.0.1:", "--data"],
    );

    let foreign = fresh();
    std::fs::write(foreign.path().join("thesis.txt"), "words").unwrap();
    refused(command(foreign.path()), &["do not belong to a broker", "thesis.txt", "--data"]);

    let kafka = fresh();
    std::fs::write(kafka.path().join("meta.properties"), "version=1\nnode.id=1\ncluster.id=5L6g3nShT-eMCtK--X86sw\n").unwrap();
    refused(command(kafka.path()), &["written by Apache Kafka"]);

    let damaged = fresh();
    std::fs::write(damaged.path().join("meta.properties"), "garbage").unwrap();
    refused(command(damaged.path()), &["meta.properties", "cluster.id is missing"]);

    let mut other_node = command(fresh().path());
    other_node.args(["--set", "num.partitions=none"]);
    refused(other_node, &["num.partitions=none", "whole number"]);

    let file = fresh();
    std::fs::write(file.path().join("taken"), "").unwrap();
    refused(command(&file.path().join("taken")), &["taken"]);

    let mut missing = command(fresh().path());
    missing.args(["--config", "/nowhere/server.properties"]);
    refused(missing, &["/nowhere/server.properties"]);
    running.kill();

    let mut wrong_node = command(folder.path());
    wrong_node.args(["--set", "node.id=7"]);
    refused(wrong_node, &["node.id=1", "--data"]);
    let usage = failure({
        let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_dlog"));
        c.arg("--nonsense").stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        c
    });
    assert_eq!(usage.0, 2);
}

/// Kafka port, HTTP port and directory at once; the command line that is printed starts a broker beside the other one.
#[test]
fn all_that_is_taken_is_named_at_once_with_a_command_line_that_works() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("with blank");
    let held: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = held.iter().map(|port| port.local_addr().unwrap().port()).collect();
    let running = Process::start(command(&data));
    let settings = folder.path().join("server.properties");
    std::fs::write(&settings, "num.partitions=7\nlog.dirs=/nowhere\nadvertised.listeners=PLAINTEXT://elsewhere:9\n").unwrap();
    let mut second = dlog(&["serve", "--strict", "--listen", &format!("127.0.0.1:{}", ports[0]), "--config"]);
    second.arg(&settings).arg(format!("--http=127.0.0.1:{}", ports[1])).arg("--data").arg(&data);
    second.args(["--set", "default.replication.factor=1"]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    second.args(["--set", &format!("advertised.listeners=PLAINTEXT://localhost:{}", ports[0])]);
    let (code, text) = failure(second);
    assert_eq!((code, text.lines().count()), (1, 1), "{text}");
    let me = if NAMES_PROCESSES { format!("process {}", std::process::id()) } else { "another program".into() };
    let other = if NAMES_PROCESSES { format!(", process {} (dlog)", running.child.id()) } else { String::new() };
    for word in [
        format!("127.0.0.1:{} is in use by {me}", ports[0]),
        format!("127.0.0.1:{} (HTTP) is in use by {me}", ports[1]),
        format!("{} is in use by another broker{other}", data.display()),
        format!("--data '{}-2'", data.display()),
        "--set default.replication.factor=1".to_string(),
        format!("--config {}", settings.display()),
    ] {
        assert!(text.contains(&word), "{word}: {text}");
    }
    let line = text.trim().split("use this: ").nth(1).unwrap();
    assert!(line.starts_with(&format!("{} serve --strict --listen 127.0.0.1:", env!("CARGO_BIN_EXE_dlog"))), "{line}");
    let mut works = std::process::Command::new("sh");
    works.args(["-c", &format!("exec {line}")]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let works = Process::start(works);
    let port = works.address.port();
    assert!(
        line.contains(&format!("advertised.listeners=PLAINTEXT://localhost:{port}")),
        "it does not advertise the port of another: {line}"
    );
    assert!(works.terminate() && running.terminate());
}

#[test]
fn a_directory_of_somebody_else_is_named_with_the_user_and_the_command_that_gives_it_to_him() {
    if !Path::new("/usr/bin/setpriv").exists() || dlog::env::user_and_group().is_none_or(|(user, _)| user != 0) {
        // Only root can become somebody else.
        return;
    }
    let folder = tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    let (binary, data) = (folder.path().join("dlog"), folder.path().join("data"));
    std::fs::copy(env!("CARGO_BIN_EXE_dlog"), &binary).unwrap();
    std::fs::create_dir(&data).unwrap();
    for (path, words) in [
        (
            data.clone(),
            [format!("it belongs to user 0, group 0; run `chown -R 65534:65534 {}`", data.display()), "as user 65534, group 65534".into()],
        ),
        (data.join("below"), [format!("{} belongs to user 0", data.display()), format!("mkdir -p {0}/below && chown", data.display())]),
    ] {
        let mut nobody = std::process::Command::new("setpriv");
        nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&binary);
        nobody.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]).arg(&path);
        let (code, text) = failure({
            nobody.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            nobody
        });
        assert_eq!((code, text.lines().count()), (1, 1), "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{word}: {text}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_debug_each_request_is_a_line_and_at_info_none_is() {
    for (level, lines) in [("debug", 3), ("info", 0)] {
        let folder = tempfile::tempdir().unwrap();
        let mut logging = command(&folder.path().join("data"));
        let log = folder.path().join("log");
        logging.args(["--log", level, "--log-format", "json"]).stdout(std::fs::File::create(&log).unwrap());
        let mut child = logging.spawn().unwrap();
        // The banner is a line of JSON too.
        let banner = loop {
            let text = std::fs::read_to_string(&log).unwrap();
            let found = text
                .lines()
                .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
                .find(|line| line["listeners"].is_array());
            match found {
                Some(found) => break found,
                None if child.try_wait().unwrap().is_some() => panic!("it did not start"),
                None => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        };
        let address = banner["listeners"][0]["address"].as_str().unwrap().parse().unwrap();
        let mut client = Client::connect_to(address).await;
        client.create_topic("t", 1, &[]).await;
        client.produce("t", 0, &batch(b"x")).await;
        client.send(&produce_request("none", 0, &batch(b"x"), 1), 9).await;
        assert_ne!(client.receive::<ProduceRequest>(9).await.1.responses[0].partition_responses[0].error_code, 0);
        std::process::Command::new("kill").args([END_SIGNAL, &child.id().to_string()]).status().unwrap();
        assert!(child.wait().unwrap().success());
        let text = std::fs::read_to_string(&log).unwrap();
        let all: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
        let requests: Vec<_> = all.iter().filter(|line| line["message"] == "request").collect();
        assert_eq!(requests.len(), lines, "{text}");
        if let [created, produced, refused] = requests.as_slice() {
            assert_eq!(
                (created["api"].as_str(), produced["api"].as_str(), produced["version"].as_i64()),
                (Some("CreateTopics"), Some("Produce"), Some(9))
            );
            assert!(produced["ms"].is_number() && produced["client_id"].is_string() && produced["error"].is_null(), "{produced}");
            assert_eq!(refused["error"], "UNKNOWN_TOPIC_OR_PARTITION");
        }
    }
}

#[test]
fn a_level_that_does_not_exist_is_refused_with_those_that_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut verbose = command(folder.path());
    verbose.args(["--log", "verbose"]);
    let (code, text) = failure(verbose);
    assert_eq!(code, 1);
    assert!(text.contains("\"verbose\" is not a level; levels are off, error, warn, info, debug, trace"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_thousand_hostile_frames_leave_memory_low_and_good_clients_served() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(command(folder.path()));
    let mut good = Client::connect_to(process.address).await;
    good.create_topic("t", 1, &[]).await;
    let huge_count = |key: u8, version: u8| {
        let mut frame = vec![0, key, 0, version, 0, 0, 0, 1, 0xff, 0xff];
        frame.extend_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
        frame.resize(200, 0x7f);
        frame
    };
    let many_items = {
        let mut frame = vec![0, 3, 0, 8, 0, 0, 0, 1, 0xff, 0xff, 0x00, 0x2d, 0xc6, 0xc0];
        frame.resize(6_000_100, 0);
        frame
    };
    for round in 0..3000 {
        let mut bad = Client::connect_to(process.address).await;
        match round % 6 {
            0 => bad.send_raw(&i32::MAX.to_be_bytes()).await,
            1 => bad.send_raw(&100_000_000_i32.to_be_bytes()).await,
            2 => bad.send_frame(&huge_count(3, 8)).await,
            3 => bad.send_frame(&huge_count(1, 4)).await,
            4 if round % 120 == 4 => bad.send_frame(&many_items).await,
            _ => bad.send_raw(&[0, 0, 1, 0, 0, 18, 0, 3, 0, 0]).await,
        }
    }
    let answer = good.produce("t", 0, &batch(b"still here")).await;
    assert_eq!(answer.error_code, 0);
    let memory = process.memory("VmRSS");
    println!("memory after 3,000 hostile frames: {} KiB", memory / 1024);
    assert!(memory < 64 << 20, "{memory} bytes");
    assert!(process.terminate());
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_only_announced_take_nothing_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(command(folder.path()));
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let mut peer = Client::connect_to(process.address).await;
        peer.send_raw(&100_000_000_i32.to_be_bytes()).await;
        peer.send_raw(&[0; 10]).await;
        stalled.push(peer);
    }
    let begin = std::time::Instant::now();
    let mut good = Client::connect_to(process.address).await;
    good.create_topic("t", 1, &[]).await;
    assert_eq!(good.produce("t", 0, &batch(b"x")).await.error_code, 0);
    assert!(begin.elapsed() < std::time::Duration::from_secs(5));
    assert!(process.memory("VmRSS") < 64 << 20);
    process.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_takes_kafkas_environment() {
    use dlog::protocol::generated::metadata::{MetadataRequest, MetadataRequestTopic};
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dlog"));
    command.args(["serve", "--http", "127.0.0.1:0"]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command.env("KAFKA_LISTENERS", "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:9093");
    command.env("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://broker.example:19092");
    command.env("KAFKA_NODE_ID", "4").env("KAFKA_NUM_PARTITIONS", "3").env("KAFKA_LOG_DIRS", folder.path());
    let process = Process::start(command);
    let mut client = Client::connect_to(process.address).await;
    let topic = MetadataRequestTopic { name: Some("made".into()), ..Default::default() };
    let answer = client.call(&MetadataRequest { topics: Some(vec![topic]), ..Default::default() }, 12).await;
    let broker = &answer.brokers[0];
    assert_eq!((broker.node_id, broker.host.as_str(), broker.port), (4, "broker.example", 19092));
    assert_eq!(answer.topics[0].partitions.len(), 3);
    assert!(process.terminate());
    assert!(folder.path().join("made-2").is_dir());
}

/// The binary with arguments of its own.
fn dlog(arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dlog"));
    command.args(arguments).env_remove("DLOG_HTTP_LISTEN").env_remove("DLOG_LOG");
    command
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
#[cfg_attr(feature = "portable", ignore = "this is only told where the system has signals or systemd")]
fn run_passes_the_exit_code_and_keeps_what_a_failure_left() {
    let folder = tempfile::tempdir().unwrap();
    let run = |script: &str| dlog(&["run", "--", "sh", "-c", script]).env("TMPDIR", folder.path()).output().unwrap();
    let health = format!("{} health --bootstrap-server $KAFKA_BOOTSTRAP_SERVERS", env!("CARGO_BIN_EXE_dlog"));
    let fine = run(&format!("test $KAFKA_BOOTSTRAP_SERVERS = $BOOTSTRAP_SERVERS && {health}"));
    assert!(fine.status.success(), "{}", said(&fine.stderr));
    assert!(said(&fine.stdout).contains("serves clients"), "{}", said(&fine.stdout));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "everything is gone");
    let failed = run("exit 7");
    assert_eq!(failed.status.code(), Some(7));
    let kept: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    assert!(said(&failed.stderr).contains(&kept[0].display().to_string()), "{}", said(&failed.stderr));
    assert!(kept[0].join("groups.json").exists() && kept[0].join("topics").exists());
    assert_eq!(run("kill -9 $$").status.code(), Some(128 + 9));
    let missing = dlog(&["run", "--", "/no/such/command"]).env("TMPDIR", folder.path()).output().unwrap();
    assert_eq!(missing.status.code(), Some(127));
}

#[test]
fn run_reads_settings_of_the_environment_and_keeps_deleted_topics_where_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let keep = folder.path().join("kept");
    let dlog_binary = env!("CARGO_BIN_EXE_dlog");
    let script = format!(
        "set -e; b=$KAFKA_BOOTSTRAP_SERVERS; {dlog_binary} kafka-topics --bootstrap-server $b --list >&2
        for round in 1 2; do
            echo text-$round | {dlog_binary} kafka-console-producer --bootstrap-server $b --topic made
            {dlog_binary} kafka-topics --bootstrap-server $b --describe --topic made >&2
            {dlog_binary} kafka-topics --bootstrap-server $b --delete --topic made
        done; exit 3"
    );
    let run = || {
        let mut run = dlog(&["run", "--keep", keep.to_str().unwrap(), "--", "sh", "-c", &script]);
        run.env("KAFKA_CREATE_TOPICS", "first:2:1").env("KAFKA_NUM_PARTITIONS", "3");
        // Those of another broker do not count.
        run.env("KAFKA_LISTENERS", "SSL://:1").env("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://nowhere:1").env("KAFKA_LOG_DIRS", "/proc");
        run.env("KAFKA_BOOTSTRAP_SERVERS", "nowhere:1").output().unwrap()
    };
    let failed = run();
    let text = said(&failed.stderr);
    assert_eq!(failed.status.code(), Some(3), "{text}");
    assert!(text.lines().any(|line| line == "first") && text.contains("PartitionCount: 3"), "{text}");
    assert!(text.contains("1 run is kept in") && text.contains("(2 of them of deleted topics)"), "{text}");
    let one = std::fs::read_dir(&keep).unwrap().next().unwrap().unwrap().path();
    let mut found: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(one.join("deleted")).unwrap() {
        found.push(std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    for text in ["text-1", "text-2"] {
        assert!(found.iter().any(|file| file.contains(&format!("\"value\":\"{text}\""))), "{text}: {found:?}");
    }
    // What is kept is a seed.
    let again = dlog(&["run", "--seed", one.to_str().unwrap(), "--", "true"]).output().unwrap();
    assert!(again.status.success(), "{}", said(&again.stderr));
    assert!(said(&run().stderr).contains("2 runs are kept in"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tails_hold_the_last_records() {
    let folder = tempfile::tempdir().unwrap();
    let broker = common::start(folder.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    for value in [&b"text"[..], &[0xff, 0x00]] {
        client.produce("t", 0, &batch(value)).await;
    }
    let kept = tempfile::tempdir().unwrap();
    let count = broker.keep_tails(kept.path()).unwrap();
    assert_eq!((count.partitions, count.groups), (1, 0));
    let text = std::fs::read_to_string(kept.path().join("topics/t-0.ndjson")).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(
        (lines[0]["offset"].as_i64(), lines[0]["value"].as_str(), &lines[0]["key"]),
        (Some(0), Some("text"), &serde_json::Value::Null)
    );
    assert_eq!(lines[1]["value_hex"].as_str(), Some("ff00"));
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_wait_answer_with_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let broker = common::start(folder.path(), &[]).await;
    let address = common::address(&broker).to_string();
    let http = broker.http().to_string();
    let mut client = Client::connect(&broker).await;
    client.create_topic("t", 1, &[]).await;
    let code = async |arguments: &[&str]| {
        let mut command = dlog(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.code().unwrap(), said(&output.stderr))
    };
    assert_eq!(code(&["health", "--bootstrap-server", &address]).await.0, 0);
    assert_eq!(code(&["wait", "--topic", "t", "--http", &http]).await.0, 0);
    let (late, said) = code(&["wait", "--topic", "u", "--timeout", "5ms", "--http", &http]).await;
    assert_eq!((late, said.as_str()), (4, "dlog: not within 5ms: there is no topic u\n"));
    assert_eq!(code(&["wait", "--state", "stable", "--http", &http]).await.0, 2);
    broker.stop().await.unwrap();
    assert_eq!(code(&["health", "--bootstrap-server", &address]).await.0, 1);
    assert_eq!(code(&["wait", "--topic", "t", "--http", &http]).await.0, 1);
}

#[test]
fn settings_are_explained_and_strict_refuses_what_nobody_knows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.toml");
    std::fs::write(&file, "num.partition = 3\n[log]\nretention.ms = 5\n").unwrap();
    let config = file.display().to_string();
    let explained = dlog(&["config", "explain", "--changed", "--config", &config]).env("KAFKA_CFG_NUM_PARTITIONS", "4").output().unwrap();
    let text = said(&explained.stdout);
    let line = |name: &str| text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    assert!(line("log.retention.ms ").ends_with("honoured") && line("log.retention.ms ").contains(&config), "{text}");
    assert!(line("num.partitions ").contains("the environment"), "{text}");
    assert!(line("num.partition ").ends_with("unknown; is num.partitions meant?"), "{text}");
    let strict = dlog(&["serve", "--strict", "--config", &config]).output().unwrap();
    assert_eq!(strict.status.code(), Some(1));
    assert!(said(&strict.stderr).contains("is num.partitions meant?"), "{}", said(&strict.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_of_open_files_accepting_backs_off_and_goes_on_later() {
    const OPEN_FILES: usize = 80;
    let folder = tempfile::tempdir().unwrap();
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {OPEN_FILES} && exec \"$0\" \"$@\"")]).arg(env!("CARGO_BIN_EXE_dlog"));
    limited.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]).arg(folder.path());
    limited.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let broker = Process::start(limited);
    let mut good = Client::connect_to(broker.address).await;
    good.create_topic("t", 1, &[]).await;
    // The kernel takes them into its queue, whether or not the broker can.
    let mut crowd = Vec::new();
    for _ in 0..2 * OPEN_FILES {
        crowd.push(tokio::net::TcpStream::connect(broker.address).await.unwrap());
    }
    let before = broker.cpu();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let spent = broker.cpu() - before;
    assert!(spent < std::time::Duration::from_millis(250), "it does not try without a pause: {spent:?}");
    assert_eq!(good.produce("t", 0, &batch(b"x")).await.error_code, 0, "who is connected is served");
    drop(crowd);
    let mut later = Client::connect_to(broker.address).await;
    assert_eq!(later.produce("t", 0, &batch(b"y")).await.base_offset, 1);
    assert!(broker.terminate());
}
