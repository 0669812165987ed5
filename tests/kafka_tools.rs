//! The tools of Kafka's names in our binary, as start scripts, health checks and people in a container call them.

mod common;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use common::process::{Process, command};

struct Tools {
    process: Process,
    _folder: tempfile::TempDir,
}

impl Tools {
    fn start() -> Tools {
        let folder = tempfile::tempdir().unwrap();
        Tools { process: Process::start(command(folder.path())), _folder: folder }
    }

    fn output(&self, words: &[&str], input: &str) -> Output {
        let address = self.process.address.to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_dlog"))
            .args(words)
            .args(["--bootstrap-server", &address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What a tool prints, which must succeed.
    fn run(&self, words: &[&str]) -> String {
        self.feed(words, "")
    }

    fn feed(&self, words: &[&str], input: &str) -> String {
        let done = self.output(words, input);
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// What a tool complains of, which must fail with Kafka's exit code.
    fn fail(&self, words: &[&str]) -> String {
        let done = self.output(words, "");
        assert_eq!(done.status.code(), Some(1), "{words:?}");
        String::from_utf8(done.stderr).unwrap()
    }
}

#[test]
fn topics_are_created_described_altered_and_deleted() {
    let tools = Tools::start();
    assert_eq!(tools.run(&["kafka-topics", "--list"]), "");
    let made = tools.run(&["kafka-topics", "--create", "--topic", "orders", "--partitions", "2", "--config", "retention.ms=1000"]);
    assert_eq!(made, "Created topic orders.\n");
    assert!(tools.fail(&["kafka-topics", "--create", "--topic", "orders"]).contains("Topic 'orders' already exists."));
    assert_eq!(tools.run(&["kafka-topics", "--create", "--if-not-exists", "--topic", "orders"]), "");
    tools.run(&["kafka-topics", "--create", "--topic", "other"]);
    assert_eq!(tools.run(&["kafka-topics", "--list"]), "orders\nother\n");
    assert_eq!(tools.run(&["kafka-topics", "--list", "--topic", "ord.*"]), "orders\n");
    let described = tools.run(&["kafka-topics", "--describe", "--topic", "orders"]);
    let lines: Vec<&str> = described.lines().collect();
    assert!(lines[0].starts_with("Topic: orders\tTopicId: "), "{described}");
    assert!(lines[0].ends_with("\tPartitionCount: 2\tReplicationFactor: 1\tConfigs: retention.ms=1000"), "{described}");
    assert_eq!(lines[2], "\tTopic: orders\tPartition: 1\tLeader: 1\tReplicas: 1\tIsr: 1\tElr: \tLastKnownElr: ");
    tools.run(&["kafka-topics", "--alter", "--topic", "orders", "--partitions", "3"]);
    assert!(tools.run(&["kafka-topics", "--describe", "--topic", "orders"]).contains("PartitionCount: 3"));
    assert!(tools.fail(&["kafka-topics", "--describe", "--topic", "nope"]).contains("Topic 'nope' does not exist as expected"));
    assert_eq!(tools.run(&["kafka-topics", "--describe", "--if-exists", "--topic", "nope"]), "");
    tools.run(&["kafka-topics", "--delete", "--topic", "orders,other"]);
    assert_eq!(tools.run(&["kafka-topics", "--list"]), "");
}

#[test]
fn security_that_is_not_there_is_refused() {
    let tools = Tools::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    let words = ["kafka-topics", "--list", "--command-config", file.path().to_str().unwrap()];
    std::fs::write(file.path(), "# nothing special\nsecurity.protocol=PLAINTEXT\n").unwrap();
    tools.run(&words);
    std::fs::write(file.path(), "security.protocol = SASL_SSL\n").unwrap();
    assert!(tools.fail(&words).contains("security.protocol is SASL_SSL, but only PLAINTEXT is supported yet"));
}

#[test]
fn lines_go_in_and_come_out() {
    let tools = Tools::start();
    tools.run(&["kafka-topics", "--create", "--topic", "t", "--partitions", "3"]);
    let lines: Vec<String> = (0..5000).map(|number| format!("{number:05}")).collect();
    tools.feed(&["kafka-console-producer", "--topic", "t"], &lines.join("\n"));
    let out = tools.run(&["kafka-console-consumer", "--topic", "t", "--from-beginning", "--max-messages", "5000"]);
    let mut got: Vec<&str> = out.lines().collect();
    got.sort_unstable();
    assert_eq!(got, lines);

    let keyed = ["--property", "parse.key=true", "--property", "key.separator=:"];
    tools.feed(&[&["kafka-console-producer", "--topic", "keyed"], &keyed[..]].concat(), "k:a\nk:b\n");
    let shown = ["--property", "print.key=true", "--property", "print.offset=true", "--property", "print.partition=true"];
    let from = ["kafka-console-consumer", "--topic", "keyed", "--partition", "0", "--offset", "1", "--max-messages", "1"];
    assert_eq!(tools.run(&[&from[..], &shown[..]].concat()), "Partition:0\tOffset:1\tk\tb\n");
    // A separator may be a blank.
    tools.feed(&["kafka-console-producer", "--topic", "blank", "--property", "parse.key=true", "--property", "key.separator= "], "k v w\n");
    let shown = ["--property", "print.key=true", "--property", "key.separator= | "];
    let from = ["kafka-console-consumer", "--topic", "blank", "--from-beginning", "--max-messages", "1"];
    assert_eq!(tools.run(&[&from[..], &shown[..]].concat()), "k | v w\n");
    // What is there is not read where nobody asks for it.
    assert_eq!(tools.run(&["kafka-console-consumer", "--topic", "keyed", "--timeout-ms", "100"]), "");
    let refused = tools.output(&[&["kafka-console-producer", "--topic", "keyed"], &keyed[..]].concat(), "without\n");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("No key separator found on line number 1: 'without'"));
}

#[test]
fn who_waits_for_a_broker_is_told() {
    let tools = Tools::start();
    let versions = tools.run(&["kafka-broker-api-versions"]);
    assert!(versions.starts_with(&format!("{} (id: 1 rack: null isFenced: false) -> (\n", tools.process.address)), "{versions}");
    assert!(versions.contains("\tFetch(1): 4 to 18 [usable: 18],\n"), "{versions}");
    tools.run(&["cub", "kafka-ready", "1", "10"]);
    assert!(tools.fail(&["cub", "kafka-ready", "2", "0"]).contains("1 of 2 required brokers are available"));
    let nobody = Command::new(env!("CARGO_BIN_EXE_dlog")).args(["cub", "kafka-ready", "-b", "127.0.0.1:1", "1", "0"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("127.0.0.1:1: Connection refused"));
}
