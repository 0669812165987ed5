//! The command line as a new user tries it: each test runs the real binary by the command that it is about.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::Client;
use common::process::Process;
use dlog::protocol::generated::find_coordinator::FindCoordinatorRequest;
use dlog::protocol::generated::offset_commit::{OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use dlog::records::{BatchBuilder, NewRecord};

/// The binary without variables of the machine that runs the tests.
fn dlog(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dlog"));
    for (name, _) in std::env::vars().filter(|(name, _)| ["DLOG_", "KAFKA_", "RPK_"].iter().any(|prefix| name.starts_with(prefix))) {
        command.env_remove(name);
    }
    command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end: exit code, stdout, stderr.
fn ended(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code().unwrap_or(-1), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// The start must fail with one sentence that has these words.
fn rejected(command: Command, words: &[&str]) {
    let (code, _, text) = ended(command);
    assert_eq!((code, text.lines().count()), (1, 1), "{text}");
    words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in {text:?}"));
}

/// What a broker printed up to the line that holds `last`; then it is stopped.
fn printed_until(mut command: Command, last: &str) -> String {
    let mut child = command.spawn().unwrap();
    let mut text = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        text.push_str(&line);
        text.push('\n');
        if line.contains(last) {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(text.contains(last), "{text}{errors}");
    text
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

const FREE: [&str; 4] = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];

/// `dlog --data D --listen L serve` listened on port 9092 and stored its data in the home directory: both options were dropped.
#[tokio::test(flavor = "multi_thread")]
async fn options_before_the_command_count() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let file = write(folder.path(), "server.properties", b"num.partitions=7\n");
    let process = Process::start(dlog(&[&FREE[..], &["--data", &data, "--config", &file, "serve"]].concat()));
    let mut client = Client::connect_to(process.address).await;
    client.create_topic("t", -1, &[]).await;
    assert_eq!(
        std::fs::read_dir(&data).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("t-")).count(),
        7
    );
    assert!(process.terminate());

    let seed = folder.path().join("seed");
    std::fs::create_dir(&seed).unwrap();
    std::fs::write(seed.join("topics.json"), r#"[{"name": "orders", "partitions": 2}]"#).unwrap();
    let run = ["--seed", seed.to_str().unwrap(), "run", "--", env!("CARGO_BIN_EXE_dlog"), "kafka-topics", "--list"];
    let (code, listed, errors) = ended(dlog(&run));
    assert_eq!((code, listed.as_str()), (0, "orders\n"), "{errors}");

    let (code, _, text) = ended(dlog(&["--data", &data, "health"]));
    assert!(code == 2 && text.contains("--data"), "{text}");
    let (code, _, text) = ended(dlog(&["--data", &data, "serve", "--data", "elsewhere"]));
    assert!(code == 2 && text.contains("--data"), "{text}");
}

/// Kafka starts with each of these; ours did not, or misread them.
#[test]
fn a_file_is_read_as_java_reads_it_and_values_as_kafka_does() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        b"# Written by java.util.Properties\n! too\nadvertised.listeners=PLAINTEXT\\://host\\:9092\nlisteners PLAINTEXT://127.0.0.1:0\n\
        num.partitions:  5 \nauto.create.topics.enable = FALSE\nlog.dirs=/a,\\\n    /b\nbroker.rack=caf\\u00e9\nlog.cleaner.enable=True\n";
    let file = write(folder.path(), "server.properties", text);
    let mut command = dlog(&["config", "explain", "--changed", "--config", &file]);
    command.env("KAFKA_DELETE_TOPIC_ENABLE", "False").env("KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS", " 5 ");
    let (code, table, errors) = ended(command);
    assert_eq!(code, 0, "{table}{errors}");
    for (name, value) in [
        ("advertised.listeners", "PLAINTEXT://host:9092"),
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("num.partitions", "5"),
        ("auto.create.topics.enable", "false"),
        ("log.dirs", "/a,/b"),
        ("broker.rack", "caf\u{e9}"),
        ("log.cleaner.enable", "true"),
        ("delete.topic.enable", "false"),
        ("offsets.topic.num.partitions", "5"),
    ] {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap_or_else(|| panic!("{name}: {table}"));
        assert_eq!(line.split_whitespace().nth(1), Some(value), "{line}");
    }
    let latin = write(folder.path(), "latin.properties", b"broker.rack=caf\xe9\n");
    assert!(ended(dlog(&["config", "explain", "--changed", "--config", &latin])).1.contains("caf\u{e9}"));
    let bad = write(folder.path(), "bad.properties", b"a=1\nbroker.rack=\\u12\n");
    rejected(dlog(&["--config", &bad]), &["bad.properties", "line 2"]);
}

/// An authorizer was named in a warning, and the broker was open.
#[test]
fn settings_that_ask_for_security_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file =
        write(folder.path(), "server.properties", b"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n");
    let ignored = "--ignore-security-settings";
    rejected(dlog(&["serve", "--config", &file]), &["authorizer.class.name", "server.properties", "authorization", ignored]);
    for (name, value) in [
        ("KAFKA_SUPER_USERS", "User:admin"),
        ("KAFKA_SASL_ENABLED_MECHANISMS", "PLAIN"),
        ("KAFKA_SSL_KEYSTORE_FILENAME", "kafka.keystore.jks"),
        ("KAFKA_CFG_SASL_ENABLED_MECHANISMS", "SCRAM-SHA-256"),
        ("KAFKA_CLIENT_USERS", "user"),
        ("KAFKA_SECURITY_INTER_BROKER_PROTOCOL", "SASL_PLAINTEXT"),
        ("KAFKA_LISTENER_NAME_OUTSIDE_SSL_CLIENT_AUTH", "required"),
        ("KAFKA_OPTS", "-Djava.security.auth.login.config=/etc/kafka/jaas.conf"),
        ("RP_BOOTSTRAP_USER", "admin:secret"),
    ] {
        let mut command = dlog(&FREE);
        command.arg("--ephemeral").env(name, value);
        let (code, _, text) = ended(command);
        assert_eq!((code, text.lines().count()), (1, 1), "{name}: {text}");
        assert!(text.contains(ignored) && !text.contains("secret"), "{text}");
    }
    let mut mapped = dlog(&["--ephemeral"]);
    mapped.env("KAFKA_LISTENERS", "OUTSIDE://127.0.0.1:0").env("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "OUTSIDE:SASL_SSL");
    rejected(mapped, &["OUTSIDE", "SASL_SSL", ignored]);
    let yaml = write(
        folder.path(),
        "redpanda.yaml",
        b"redpanda:\n  kafka_api:\n  - address: 127.0.0.1\n    port: 0\n    authentication_method: sasl\n",
    );
    let start = ["rpk", "redpanda", "start", "--config", &yaml];
    rejected(dlog(&start), &[&format!("redpanda.enable_sasl (from {yaml}: redpanda.kafka_api.authentication_method) asks for"), ignored]);
    let bootstrap = write(folder.path(), ".bootstrap.yaml", b"admin_api_require_auth: true\n");
    rejected(dlog(&start), &[&format!("redpanda.admin_api_require_auth (from {bootstrap}: admin_api_require_auth)")]);
    let mut accepted = dlog(&[&start[..], &[ignored]].concat());
    accepted.env("DLOG_DEFAULT_DATA", folder.path().join("data")).env("DLOG_HTTP_LISTEN", "127.0.0.1:0");
    printed_until(accepted, "Successfully started Redpanda!");
    rejected(dlog(&["rpk", "redpanda", "start", "--set", "redpanda.enable_sasl=true"]), &["redpanda.enable_sasl (from the flags)"]);
    for flag in ["redpanda.enable_sasl=true", "redpanda.kafka_enable_authorization=true"] {
        rejected(dlog(&["rpk", "redpanda", "start", "--set", flag]), &[flag.split('=').next().unwrap(), ignored]);
    }

    // Accepted, it starts, and warns with the name and without the value.
    let mut accepted = dlog(&[&FREE[..], &["--ephemeral", ignored, "--set", "sasl.jaas.config=hush"]].concat());
    accepted.env("KAFKA_SUPER_USERS", "User:admin");
    let text = printed_until(accepted, "  data");
    assert!(
        text.contains("super.users") && text.contains("sasl.jaas.config") && text.contains("any client") && !text.contains("hush"),
        "{text}"
    );
    // Defaults of Kafka ask for nothing.
    let mut defaults = dlog(&[&FREE[..], &["--ephemeral"]].concat());
    defaults
        .env("KAFKA_SSL_CLIENT_AUTH", "none")
        .env("KAFKA_SECURITY_INTER_BROKER_PROTOCOL", "PLAINTEXT")
        .env("KAFKA_SASL_JAAS_CONFIG", "");
    printed_until(defaults, "  data");
}

#[test]
fn explain_says_whose_defaults_it_shows_and_what_would_be_rejected() {
    let (code, table, _) = ended(dlog(&["config", "explain"]));
    assert!(code == 0 && table.lines().next().unwrap().contains("dlog serve"), "{table}");
    let (_, table, _) = ended(dlog(&["config", "explain", "--dev"]));
    assert!(table.lines().next().unwrap().contains("dev mode") && !table.lines().next().unwrap().contains("serve"), "{table}");
    for (set, what) in [
        ("num.partitions=0", "must be at least 1"),
        ("log.cleanup.policy=x", "String must be one of"),
        ("node.id=-1", "must be at least 0"),
        ("advertised.listeners=localhost", "the port is missing"),
        ("listeners=SSL://:9093", "SSL is not supported yet"),
        ("authorizer.class.name=a.B", "not supported yet"),
        ("ssl.key.password=hush", "not supported yet"),
    ] {
        let (code, table, errors) = ended(dlog(&["config", "explain", "--changed", "--set", set]));
        let name = set.split('=').next().unwrap();
        let line = table.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{set}: {table}{errors}"));
        assert!(code == 1 && line.contains("REJECTED") && line.contains(what), "{set}: {code} {table}{errors}");
        assert!(errors.contains("would not start") && !table.contains("hush"), "{errors}{table}");
        // It says what the start says.
        let (code, _, said) = ended(dlog(&["serve", "--set", set]));
        assert!(code == 1 && said.contains(what), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_in_silence_when_nobody_reads_its_output() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(dlog(&[&FREE[..], &["--data", folder.path().to_str().unwrap()]].concat()));
    let address = process.address.to_string();
    Client::connect_to(process.address).await.create_topic("t", 3, &[]).await;
    let data = folder.path().join("t-0").display().to_string();
    for words in [
        &["config", "explain"][..],
        &["kafka-topics", "-b", &address, "--list"],
        &["kafka-broker-api-versions", "-b", &address],
        &["health", "-b", &address],
        &["doctor", "-b", &address],
        &["dump-log", &data],
        &["completions", "bash"],
        &["rpk", "cluster", "info", "--brokers", &address],
        &["--help"],
    ] {
        let (read, write) = std::io::pipe().unwrap();
        // Nobody reads any more before the first byte is written.
        drop(read);
        let mut command = dlog(words);
        command.stdout(write);
        let mut child = command.spawn().unwrap();
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        child.wait().unwrap();
        // dump-log says on stderr which file it prints.
        let errors: Vec<&str> = errors.lines().filter(|line| !line.contains(" of ")).collect();
        assert!(errors.is_empty(), "{words:?}: {errors:?}");
    }
    assert!(process.terminate());
}

/// A broker whose log nobody reads goes on: its clients are not served by the reader.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_goes_on_when_nobody_reads_its_output() {
    let mut child = dlog(&[&FREE[..], &["--ephemeral", "--log", "debug"]].concat()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| line.unwrap().trim().strip_prefix("plaintext").map(|rest| rest.trim().to_string())).unwrap();
    drop(lines);
    let mut client = Client::connect_to(address.parse().unwrap()).await;
    client.create_topic("t", 1, &[]).await;
    client.create_topic("u", 1, &[]).await;
    assert!(child.try_wait().unwrap().is_none(), "it runs");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn advertised_listeners_are_checked() {
    let with = |advertised: &str| {
        let mut command = dlog(&["--ephemeral", "--http-listen", "127.0.0.1:0"]);
        command.env("KAFKA_LISTENERS", "INSIDE://127.0.0.1:0,OUTSIDE://127.0.0.1:0").env("KAFKA_ADVERTISED_LISTENERS", advertised);
        command
    };
    rejected(with("EXTERNAL://localhost:9092"), &["advertised.listeners=EXTERNAL", "listeners has INSIDE, OUTSIDE"]);
    rejected(with("INSIDE://broker:1,localhost:9092"), &["advertised.listeners=localhost:9092", "NAME://host:port"]);
    rejected(with("localhost"), &["the port is missing", "localhost:9092"]);
    rejected(with("INSIDE://broker:0"), &["port 0"]);
    printed_until(with("INSIDE://broker:19092,OUTSIDE://localhost:9092"), "  data");
}

#[test]
fn unknown_variables_are_named_with_the_one_that_was_meant() {
    let mut command = dlog(&[&FREE[..], &["--ephemeral"]].concat());
    command.env("DLOG_LOG_FORMATT", "json").env("DLOG_SERVICE_HOST", "10.0.0.1").env("DLOG_PORT", "tcp://10.0.0.1:9092");
    let text = printed_until(command, "  data");
    let warned: Vec<&str> = text.lines().filter(|line| line.contains("WARN")).collect();
    assert!(warned.len() == 1 && warned[0].contains("DLOG_LOG_FORMATT") && warned[0].contains("DLOG_LOG_FORMAT meant"), "{text}");
    let mut strict = dlog(&["--ephemeral", "--strict"]);
    strict.env("DLOG_LISTEN", "127.0.0.1:1");
    rejected(strict, &["DLOG_LISTEN", "unknown"]);
}

/// `X=` and compose's `X: ${X:-}` set a variable to nothing: `DLOG_HTTP_LISTEN=` was an invalid address, `DLOG_IGNORE_SECURITY_SETTINGS=` no boolean.
#[test]
fn an_empty_variable_counts_as_not_set() {
    let folder = tempfile::tempdir().unwrap();
    let names =
        dlog::broker::VARIABLES.iter().copied().chain(["CLUSTER_ID", "KAFKA_CREATE_TOPICS", "KAFKA_LOG4J_ROOT_LOGLEVEL", "RPK_BROKERS"]);
    let empty = || names.clone().map(|name| (name, " "));
    let mut serve = dlog(&["--listen", "127.0.0.1:0", "--data", folder.path().to_str().unwrap(), "--set", "num.partitions=1"]);
    serve.envs(empty());
    let (code, _, text) = ended({
        let mut explain = dlog(&["config", "explain", "--changed"]);
        explain.envs(empty());
        explain
    });
    assert_eq!((code, text.as_str()), (0, ""));
    // Port 9644 may be in use: then the message has the default address.
    let mut child = serve.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let started = lines.any(|line| line.unwrap().contains("  data"));
    let _ = child.kill();
    child.wait().unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(started || errors.contains("127.0.0.1:9644 (HTTP) is in use"), "{errors}");
    // As in Kafka's image, an empty KAFKA_X is an empty value: fine for a list, and an error for a number.
    let mut list = dlog(&["config", "explain"]);
    list.env("KAFKA_ADVERTISED_LISTENERS", "").env("KAFKA_LISTENERS", "").env("KAFKA_LOG_DIRS", "");
    assert_eq!(ended(list).0, 0);
    let mut number = dlog(&["--ephemeral"]);
    number.env("KAFKA_NUM_PARTITIONS", "");
    rejected(number, &["num.partitions=: must be a whole number"]);
}

/// Over the Kafka protocol the conditions are the same as over HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn wait_asks_over_the_kafka_protocol_too() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(dlog(&[&FREE[..], &["--data", folder.path().to_str().unwrap()]].concat()));
    let mut client = Client::connect_to(process.address).await;
    client.create_topic("t", 2, &[]).await;
    let batch = BatchBuilder::new().record(NewRecord::value(b"a")).record(NewRecord::value(b"b")).build(1_700_000_000_000);
    client.produce("t", 1, &batch).await;
    client.produce("t", 0, &batch).await;
    client.call(&FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() }, 4).await;
    let partitions = vec![OffsetCommitRequestPartition { partition_index: 1, committed_offset: 1, ..Default::default() }];
    let topics = vec![OffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() }];
    client.call(&OffsetCommitRequest { group_id: "g".into(), topics, generation_id_or_member_epoch: -1, ..Default::default() }, 7).await;
    let address = process.address.to_string();
    let wait = |words: &str| {
        let (code, out, errors) = ended(dlog(&[&["wait"], &words.split(' ').collect::<Vec<_>>()[..], &["--timeout", "100ms"]].concat()));
        (code, out + errors.trim())
    };
    for flag in ["-b", "--bootstrap-server"] {
        assert_eq!(wait(&format!("{flag} {address} --topic t --group g --state empty --members 0 --lag 3")), (0, String::new()));
    }
    let missing = wait(&format!("-b {address} --topic u --group g --state stable --members 2 --lag 2"));
    let words = "there is no topic u; group g is Empty, not stable; group g has 0 members, not 2";
    assert_eq!(missing, (4, format!("dlog: not within 100ms: {words}")), "a topic that does not exist has no records");
    assert!(wait(&format!("-b {address} --group g --lag 2")).1.contains("group g is 3 records behind, more than 2"));
    assert!(wait(&format!("-b {address} --group h")).1.contains("there is no group h"));
    assert_eq!(wait(&format!("-b {address} --state stable")).0, 2);
    assert!(process.terminate());
    assert_eq!(wait(&format!("-b {address} --topic t")).0, 4);
}

/// The variable that a broker listens on led `dlog wait` and `dlog doctor` to the same address, and a broker within `dlog run` to a taken port.
#[test]
fn the_address_to_ask_is_not_the_address_to_listen_on() {
    let exe = env!("CARGO_BIN_EXE_dlog");
    let script = format!(
        "test -z \"$DLOG_HTTP_LISTEN\" && {exe} kafka-topics --create --topic t && {exe} wait --topic t && {exe} health && {exe} doctor"
    );
    let (code, text, errors) = ended(dlog(&["run", "--", "sh", "-c", &script]));
    assert_eq!(code, 0, "{text}{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redpandas_start_flags_start_a_broker_and_nothing_else_of_rpk_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = dlog(&[
        "rpk",
        "redpanda",
        "start",
        "--kafka-addr internal://127.0.0.1:0,external://127.0.0.1:0",
        "--advertise-kafka-addr internal://redpanda-0:9092,external://localhost:19092",
        "--pandaproxy-addr internal://0.0.0.0:8082,external://0.0.0.0:18082",
        "--schema-registry-addr internal://0.0.0.0:8081,external://0.0.0.0:18081",
        "--rpc-addr redpanda-0:33145",
        "--mode dev-container",
        "--smp 1",
        "--default-log-level=info",
    ]);
    command.env("DLOG_DEFAULT_DATA", folder.path()).env("DLOG_HTTP_LISTEN", "127.0.0.1:0");
    let text = printed_until(command, "Successfully started Redpanda!");
    assert!(text.contains("internal") && text.contains("external") && text.contains(folder.path().to_str().unwrap()), "{text}");
    assert!(folder.path().join("meta.properties").exists());

    let (code, _, text) = ended(dlog(&["rpk", "redpanda", "start", "--kafka-adr", "a:1"]));
    assert!(code == 2 && text.contains("--kafka-adr") && text.contains("'--kafka-addr'"), "{text}");
    for words in [
        &["rpk", "group", "list"][..],
        &["rpk", "redpanda", "tune", "all"],
        &["rpk", "security", "user", "create", "me"],
        &["rpk", "topic", "describe", "t", "-p"],
        &["rpk", "-X", "brokers=a:1", "topic", "consume", "t"],
        &["rpk", "cluster", "config", "set", "a", "b"],
    ] {
        let (code, out, text) = ended(dlog(words));
        assert_eq!((code, out.as_str(), text.lines().count()), (2, "", 1), "{text}");
        let command =
            words.iter().skip(1).filter(|word| **word != "-X" && !word.contains('=')).take(2).copied().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&format!("rpk {command} is not supported")) && text.contains("rpk topic list are supported"), "{text}");
    }
    let (_, _, text) = ended(dlog(&["rpk", "topic", "describe", "t"]));
    assert!(text.contains("use dlog kafka-topics --describe --topic NAME"), "{text}");
    for words in [&["rpk"][..], &["rpk", "redpanda"], &["rpk", "topic"], &["rpk", "cluster"]] {
        assert_eq!(ended(dlog(words)).0, 2, "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_rpk_that_health_checks_call_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(dlog(&[&FREE[..], &["--data", folder.path().to_str().unwrap()]].concat()));
    let address = process.address.to_string();
    let rpk = |words: &[&str]| {
        let mut command = dlog(&[&["rpk"], words].concat());
        command.env("RPK_BROKERS", &address);
        let (code, out, errors) = ended(command);
        (code, out + &errors)
    };
    assert_eq!(rpk(&["topic", "create", "orders", "payments", "-p", "3", "-c", "cleanup.policy=compact"]).0, 0);
    let (code, text) = rpk(&["topic", "create", "orders"]);
    assert!(code == 1 && text.contains("orders"), "{text}");
    assert_eq!(rpk(&["topic", "create", "orders", "--if-not-exists"]).0, 0);
    let (code, text) = rpk(&["topic", "list"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.lines().any(|line| line.split_whitespace().eq(["orders", "3", "1"])), "{text}");
    let (code, text) = rpk(&["cluster", "health"]);
    assert!(code == 0 && text.lines().any(|line| line.starts_with("Healthy:") && line.ends_with("true")), "{text}");
    assert_eq!(rpk(&["cluster", "health", "--exit-when-healthy"]).0, 0);
    let brokers = format!("brokers={address}");
    for words in [&["-X", &brokers, "topic", "list"][..], &["topic", "-X", &brokers, "list"], &["-v", "-X", &brokers, "version"]] {
        let mut command = dlog(&[&["rpk"], words].concat());
        command.env("RPK_BROKERS", "127.0.0.1:1");
        let (code, out, errors) = ended(command);
        assert_eq!((code, out.contains("orders") || out.starts_with("dlog ")), (0, true), "{words:?}: {out}{errors}");
    }
    let (code, text) = rpk(&["cluster", "info", "-X", &brokers]);
    assert!(code == 0 && text.contains("BROKERS") && text.contains(&address.rsplit_once(':').unwrap().1.to_string()), "{text}");
    assert!(process.terminate());
    assert_eq!(rpk(&["cluster", "health"]).0, 1);
}

#[test]
fn what_an_image_sets_is_in_effect_where_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("volume");
    let explain = |more: &[(&str, &str)], words: &[&str]| {
        let mut command = dlog(&[&["config", "explain", "--changed"], words].concat());
        command.env("DLOG_DEFAULT_DATA", &image).env("DLOG_DEFAULT_LISTENERS", "PLAINTEXT://0.0.0.0:9092").envs(more.iter().copied());
        let (code, table, errors) = ended(command);
        assert_eq!(code, 0, "{table}{errors}");
        move |name: &str| {
            let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
            line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_default().to_string()
        }
    };
    let plain = explain(&[], &[]);
    assert_eq!((plain("listeners").as_str(), plain("log.dirs")), ("PLAINTEXT://0.0.0.0:9092", image.display().to_string()));
    let set = explain(&[("KAFKA_LISTENERS", "A://:1"), ("KAFKA_LOG_DIR", "/x")], &[]);
    assert_eq!((set("listeners").as_str(), set("log.dirs").as_str(), set("log.dir").as_str()), ("A://:1", "", "/x"));
    let advertised = explain(&[("KAFKA_ADVERTISED_LISTENERS", "A://h:1")], &["--set", "log.dirs=/y"]);
    assert_eq!((advertised("listeners").as_str(), advertised("log.dirs").as_str()), ("", "/y"));

    let mut serve = dlog(&["serve", "--http-listen", "127.0.0.1:0"]);
    serve.env("DLOG_DEFAULT_DATA", &image).env("DLOG_DEFAULT_LISTENERS", "PLAINTEXT://127.0.0.1:0");
    printed_until(serve, "  data");
    assert!(image.join("meta.properties").exists());
}
