//! `dlog rpk`: the contract of Redpanda's image. `rpk redpanda start` starts a broker by Redpanda's flags and `redpanda.yaml`; some commands that health
//! checks and start scripts call are served; every other command fails with a sentence and never starts a broker.
//!
//! Flags of Redpanda that have no effect here are accepted from a list ([`WITHOUT_EFFECT`]). Any other flag is an error that names the most similar one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Subcommand};

use super::commands::{ServeOptions, default_serve_options, key_value};
use super::kafka::{Brokers, Cluster, Topic, cluster, topic};
use super::serve::serve;
use crate::broker::Mode;
use crate::env::{Disk, RealDisk};

/// A command that is not served.
const NOT_SERVED: u8 = 2;
/// Redpanda's configuration file, which start scripts write.
const REDPANDA_YAML: &str = "/etc/redpanda/redpanda.yaml";
/// Redpanda's file of cluster settings, beside the configuration file.
const BOOTSTRAP_YAML: &str = ".bootstrap.yaml";
/// The port of an address of Redpanda's without one.
const KAFKA_PORT: u16 = 9092;
/// The first words of the command lines that are Redpanda's.
const PROGRAMS: [&str; 2] = ["rpk", "redpanda"];
/// Commands of rpk that are not served, with the command of dlog that does the same. A group without a command stands for all of its commands.
const INSTEAD: &[(&str, &str)] = &[
    ("cluster config", "dlog config explain"),
    ("cluster logdirs", "dlog kafka-topics --describe"),
    ("cluster metadata", "rpk cluster info"),
    ("group", "Kafka's kafka-consumer-groups, or GET /v1/groups of the HTTP API"),
    ("topic add-partitions", "dlog kafka-topics --alter --topic NAME --partitions COUNT"),
    ("topic alter-config", "Kafka's kafka-configs"),
    ("topic consume", "dlog kafka-console-consumer --topic NAME"),
    ("topic delete", "dlog kafka-topics --delete --topic NAME"),
    ("topic describe", "dlog kafka-topics --describe --topic NAME"),
    ("topic produce", "dlog kafka-console-producer --topic NAME"),
];
/// The words of a command: dlog, rpk, a group, and the command.
const COMMAND_WORDS: usize = 4;
/// Options of rpk that can stand before a command and have a value.
const WITH_VALUE: &[&str] = &["-X", "--config-opt", "-b", "--brokers", "--config", "--profile"];
/// Flags of `rpk redpanda start` and of the redpanda binary that have no effect here: other services, resources, tuning.
const WITHOUT_EFFECT: &[&str] = &[
    "abort-on-seastar-bad-alloc",
    "advertise-pandaproxy-addr",
    "advertise-rpc-addr",
    "blocked-reactor-notify-ms",
    "check",
    "collectd",
    "cpuset",
    "dump-memory-diagnostics-on-alloc-failure-kind",
    "hugepages",
    "idle-poll-time-us",
    "ignore-profile",
    "install-dir",
    "io-properties",
    "io-properties-file",
    "kernel-page-cache",
    "lock-memory",
    "logger-log-level",
    "max-networking-io-control-blocks",
    "memory",
    "mode",
    "num-io-groups",
    "overprovisioned",
    "pandaproxy-addr",
    "poll-aio",
    "poll-mode",
    "profile",
    "reactor-backend",
    "relaxed-dma",
    "reserve-memory",
    "rpc-addr",
    "schema-registry-addr",
    "seeds",
    "smp",
    "thread-affinity",
    "timeout",
    "tune",
    "unsafe-bypass-fsync",
    "verbose",
    "well-known-io",
];
/// Their short forms.
const SHORT: &[(&str, char)] = &[("memory", 'm'), ("seeds", 's'), ("smp", 'c'), ("verbose", 'v')];
/// Settings of Redpanda and the settings of Kafka with the same meaning.
const SAME: &[(&str, &str)] = &[
    ("auto_create_topics_enabled", "auto.create.topics.enable"),
    ("data_directory", "log.dirs"),
    ("default_topic_partitions", "num.partitions"),
    ("default_topic_replications", "default.replication.factor"),
    ("group_initial_rebalance_delay", "group.initial.rebalance.delay.ms"),
    ("group_topic_partitions", "offsets.topic.num.partitions"),
    ("kafka_batch_max_bytes", "message.max.bytes"),
    ("log_retention_ms", "log.retention.ms"),
    ("log_segment_size", "log.segment.bytes"),
    ("node_id", "node.id"),
    ("rack", "broker.rack"),
    ("retention_bytes", "log.retention.bytes"),
];
/// Settings of Redpanda that ask for security. They are passed on by their own names, and the broker decides whether it starts.
const SECURITY: &[&str] = &["admin_api_require_auth", "enable_sasl", "kafka_api_tls", "kafka_enable_authorization", "superusers"];

/// `rpk`.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Rpk {
    /// Start a broker.
    #[command(subcommand)]
    Redpanda(Redpanda),
    /// Show the state of the cluster.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Create and list topics.
    #[command(subcommand)]
    Topic(Topic),
    /// Print the version of dlog.
    Version(Brokers),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// `rpk redpanda`.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Redpanda {
    /// Start a broker in dev mode.
    Start(Box<StartOptions>),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// Redpanda's flags that have an effect.
#[derive(Debug, Clone, Args)]
pub(super) struct StartOptions {
    /// The addresses to listen on: NAME://host:port, separated by commas.
    #[arg(long, value_name = "ADDRESSES")]
    kafka_addr: Option<String>,
    /// The addresses that clients connect to: NAME://host:port, separated by commas.
    #[arg(long, value_name = "ADDRESSES")]
    advertise_kafka_addr: Option<String>,
    /// The id of this node.
    #[arg(long, value_name = "ID")]
    node_id: Option<i32>,
    /// The log level.
    #[arg(long, value_name = "LEVEL")]
    default_log_level: Option<String>,
    /// Redpanda's configuration file.
    #[arg(long, visible_alias = "redpanda-cfg", value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting of Redpanda; can be repeated.
    #[arg(long = "set", short = 'X', value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Start even if settings ask for authentication, authorization or TLS, which are not supported yet. Any client can then read and write
    /// everything.
    #[arg(long)]
    ignore_security_settings: bool,
    #[command(flatten)]
    _without_effect: WithoutEffect,
}

/// Flags that are accepted and have no effect.
#[derive(Debug, Clone)]
struct WithoutEffect;

impl Args for WithoutEffect {
    fn augment_args(command: Command) -> Command {
        let short = |name: &str| SHORT.iter().find(|(long, _)| *long == name).map(|(_, short)| *short);
        WITHOUT_EFFECT.iter().fold(command, |command, name| {
            let arg = Arg::new(*name).long(*name).num_args(0..=1).action(ArgAction::Append).hide(true);
            command.arg(short(name).into_iter().fold(arg, Arg::short))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        WithoutEffect::augment_args(command)
    }
}

impl FromArgMatches for WithoutEffect {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(WithoutEffect)
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}

/// Splits words such as `--smp 1`. Compose files have them as single items of a list (`- --smp 1`), and Redpanda accepts them.
pub(super) fn one_word_each(words: Vec<OsString>) -> Vec<OsString> {
    if !words.get(1).is_some_and(|word| PROGRAMS.iter().any(|program| word == program)) {
        return words;
    }
    let split = |word: OsString| match word.to_str().filter(|text| text.starts_with("--")).and_then(|text| text.split_once(' ')) {
        Some((flag, value)) => vec![OsString::from(flag), OsString::from(value.trim())],
        None => vec![word],
    };
    after_the_command(words.into_iter().flat_map(split).collect())
}

/// `rpk -X a=b topic list` as `rpk topic list -X a=b`: rpk's options are the same in both places.
fn after_the_command(words: Vec<OsString>) -> Vec<OsString> {
    let (mut commands, mut options, mut rest) = (Vec::new(), Vec::new(), words.into_iter());
    while commands.len() < COMMAND_WORDS {
        let Some(word) = rest.next() else { break };
        if !word.to_string_lossy().starts_with('-') {
            commands.push(word);
            continue;
        }
        let has_value = WITH_VALUE.iter().any(|option| word == *option);
        options.push(word);
        options.extend(if has_value { rest.next() } else { None });
    }
    commands.into_iter().chain(options).chain(rest).collect()
}

/// Runs `rpk ...`.
pub(super) fn rpk(command: Rpk) -> Result<ExitCode, String> {
    let words = match command {
        Rpk::Redpanda(Redpanda::Start(options)) => return start(&options).map(|()| ExitCode::SUCCESS),
        Rpk::Cluster(command) => match command.not_served() {
            None => return cluster(&command).map(|()| ExitCode::SUCCESS),
            Some(words) => below("cluster", words),
        },
        Rpk::Topic(command) => match command.not_served() {
            None => return topic(&command).map(|()| ExitCode::SUCCESS),
            Some(words) => below("topic", words),
        },
        Rpk::Version(_) => {
            println!("dlog {}", env!("CARGO_PKG_VERSION"));
            return Ok(ExitCode::SUCCESS);
        }
        Rpk::Redpanda(Redpanda::Other(words)) => below("redpanda", &words),
        Rpk::Other(words) => words,
    };
    let words: Vec<_> = words.iter().take(2).map(|word| word.to_string_lossy()).collect();
    let typed = words.join(" ");
    let instead = INSTEAD.iter().find(|(command, _)| typed == *command || typed.split(' ').next() == Some(*command));
    let instead = instead.map_or_else(String::new, |(_, instead)| format!("use {instead}; "));
    eprintln!(
        "dlog: rpk {typed} is not supported; {instead}rpk redpanda start, rpk cluster health, rpk cluster info, rpk topic create and rpk topic list are supported. Redpanda's own rpk works with this broker over the Kafka protocol"
    );
    Ok(ExitCode::from(NOT_SERVED))
}

/// The words of a command below `group`.
fn below(group: &str, words: &[OsString]) -> Vec<OsString> {
    std::iter::once(group.into()).chain(words.iter().cloned()).collect()
}

fn start(options: &StartOptions) -> Result<(), String> {
    let path = options.config.clone().unwrap_or_else(|| PathBuf::from(REDPANDA_YAML));
    let text = read(&path, options.config.is_some())?;
    refuse_flow_style(&path, &text)?;
    let bootstrap = path.with_file_name(BOOTSTRAP_YAML);
    let cluster = cluster_settings(&bootstrap, &read(&bootstrap, false)?);
    serve(Mode::Dev, serve_options(options, cluster, &path, &text))
}

/// A setting with its source: the path of a file and the key in it; `None` for a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sourced {
    name: String,
    value: String,
    source: Option<String>,
}

impl Sourced {
    fn of_file(path: &Path, key: &str, name: impl Into<String>, value: impl Into<String>) -> Sourced {
        Sourced { name: name.into(), value: value.into(), source: Some(format!("{}: {key}", path.display())) }
    }

    fn flag(name: impl Into<String>, value: impl Into<String>) -> Sourced {
        Sourced { name: name.into(), value: value.into(), source: None }
    }
}

/// The cluster's settings in the text of [`BOOTSTRAP_YAML`], whose keys are at the top level.
fn cluster_settings(path: &Path, yaml: &str) -> Vec<Sourced> {
    let scalars = entries(yaml).into_iter().filter(|e| e.path.len() == 1 && !e.value.is_empty());
    scalars.filter_map(|e| e.path.first().and_then(|key| Some(Sourced::of_file(path, key, translated(key)?, e.value.as_str())))).collect()
}

/// Fails for mappings in YAML's flow style (`{a: b}`) below `redpanda:`, which are not parsed: they may require security.
fn refuse_flow_style(path: &Path, yaml: &str) -> Result<(), String> {
    let mut is_ours = false;
    for (at, line) in yaml.lines().enumerate() {
        if !line.starts_with([' ', '#', '-']) && !line.trim().is_empty() {
            is_ours = line.starts_with("redpanda:");
        }
        let text = line.split(" #").next().unwrap_or(line).trim_start();
        if is_ours && !text.starts_with('#') && text.contains('{') {
            let place = format!("{}:{}", path.display(), at + 1);
            return Err(format!("{place}: mappings in flow style ({{...}}) are not supported; write each key on a line of its own"));
        }
    }
    Ok(())
}

/// The configuration file; empty where there is none and none is asked for.
fn read(path: &Path, is_required: bool) -> Result<String, String> {
    if !is_required && !RealDisk.exists(path) {
        return Ok(String::new());
    }
    let bytes = RealDisk.read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The options of a broker for the cluster's settings, the text of the configuration file at `path`, and Redpanda's flags; the later ones win.
fn serve_options(options: &StartOptions, cluster: Vec<Sourced>, path: &Path, yaml: &str) -> ServeOptions {
    let entries = entries(yaml);
    let mut set = cluster;
    let listed = |flag: &Option<String>, key: &str, name: &str| {
        let of_flag = flag.as_ref().map(|list| Sourced::flag(name, with_ports(list)));
        let of_file = || Some(Sourced::of_file(path, &format!("redpanda.{key}"), name, with_ports(&addresses(&entries, key)?)));
        of_flag.or_else(of_file)
    };
    let listeners = listed(&options.kafka_addr, "kafka_api", "listeners");
    let shown = listeners.as_ref().map_or_else(|| format!("0.0.0.0:{KAFKA_PORT}"), |listeners| listeners.value.clone());
    set.extend(listeners);
    set.extend(listed(&options.advertise_kafka_addr, "advertised_kafka_api", "advertised.listeners"));
    set.extend(security_of(path, &entries));
    // A file has many more settings than those that have a meaning here; a flag has been written for this broker.
    let scalars = entries.iter().filter(|e| e.path.len() == 2 && e.path.first().is_some_and(|first| first == "redpanda"));
    let scalars = scalars.filter(|e| !e.value.is_empty());
    set.extend(scalars.filter_map(|e| Some(Sourced::of_file(path, &e.path.join("."), translated(e.path.last()?)?, e.value.as_str()))));
    set.extend(options.set.iter().filter_map(|(name, value)| {
        let inner = name.strip_prefix("redpanda.").unwrap_or(name);
        let is_off = SECURITY.contains(&inner) && matches!(value.as_str(), "false" | "[]" | "null" | "");
        (!is_off).then(|| Sourced::flag(translated(inner).unwrap_or_else(|| name.clone()), value.as_str()))
    }));
    set.extend(options.node_id.map(|id| Sourced::flag("node.id", id.to_string())));
    let mut serve = default_serve_options();
    for Sourced { name, value, source } in set {
        match source {
            Some(source) => serve.settings.set_by.insert(name.clone(), source),
            None => serve.settings.set_by.remove(&name),
        };
        serve.settings.set.push((name, value));
    }
    serve.settings.ignore_security_settings |= options.ignore_security_settings;
    serve.log = options.default_log_level.clone().or(serve.log);
    serve.ready_lines = vec![format!("Started Kafka API server listening at {shown}"), "Successfully started Redpanda!".to_string()];
    serve
}

/// The name that a setting of Redpanda has here, if it has an effect.
fn translated(name: &str) -> Option<String> {
    let same = SAME.iter().find(|(redpanda, _)| *redpanda == name).map(|(_, kafka)| (*kafka).to_string());
    same.or_else(|| SECURITY.contains(&name).then(|| format!("redpanda.{name}")))
}

/// Each address of a list with a port: Redpanda's default where it has none.
fn with_ports(list: &str) -> String {
    let one = |address: &str| {
        let place = address.rsplit_once('/').map_or(address, |(_, place)| place);
        let has_port = place.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty());
        if has_port { address.to_string() } else { format!("{address}:{KAFKA_PORT}") }
    };
    list.split(',').map(str::trim).filter(|address| !address.is_empty()).map(one).collect::<Vec<_>>().join(",")
}

/// A key of a YAML file with the keys above it, and its value; empty where mappings or lists follow.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    path: Vec<String>,
    /// The number of the item of the list that it is in, counted over the file.
    item: usize,
    value: String,
}

/// The keys of a YAML file in block style, as Redpanda and the start scripts of others write it. What it does not know, such as flow style, is a value
/// like another.
fn entries(yaml: &str) -> Vec<Entry> {
    let mut above: Vec<(usize, String)> = Vec::new();
    let (mut all, mut item) = (Vec::new(), 0);
    for line in yaml.lines() {
        let line = line.split(" #").next().unwrap_or(line);
        let mut text = line.trim_start();
        let mut indent = line.len() - text.len();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let is_item = text.starts_with("- ");
        if let Some(rest) = text.strip_prefix("- ") {
            item += 1;
            indent += text.len() - rest.trim_start().len();
            text = rest.trim_start();
        }
        above.retain(|(at, _)| *at < indent);
        let Some((key, value)) = text.split_once(':').filter(|(_, value)| value.is_empty() || value.starts_with(' ')) else {
            if is_item {
                // A plain item is a value of the key above it, as in a list of superusers.
                all.push(Entry { path: above.iter().map(|(_, key)| key.clone()).collect(), item, value: text.trim().to_string() });
            }
            continue;
        };
        above.push((indent, key.trim().to_string()));
        let value = value.trim().trim_matches(['"', '\'']).to_string();
        all.push(Entry { path: above.iter().map(|(_, key)| key.clone()).collect(), item, value });
    }
    all
}

/// The entries below `redpanda: NAME:`.
fn entries_below<'a>(entries: &'a [Entry], name: &str) -> impl Iterator<Item = &'a Entry> {
    let name = name.to_string();
    entries.iter().filter(move |e| e.path.len() > 2 && e.path.first().is_some_and(|k| k == "redpanda") && e.path.get(1) == Some(&name))
}

/// The addresses of a list, as NAME://ADDRESS:PORT with commas. None where there is no list.
fn addresses(entries: &[Entry], list: &str) -> Option<String> {
    let mut items: Vec<usize> = entries_below(entries, list).map(|e| e.item).collect();
    items.dedup();
    let of = |item: usize, key: &str| {
        entries_below(entries, list).find(|e| e.item == item && e.path.last().is_some_and(|k| k == key)).map(|e| e.value.clone())
    };
    let one = |item: usize| {
        let name = of(item, "name").unwrap_or_else(|| "PLAINTEXT".into());
        let port = of(item, "port").unwrap_or_else(|| KAFKA_PORT.to_string());
        Some(format!("{name}://{}:{port}", of(item, "address")?))
    };
    let all: Vec<String> = items.into_iter().filter_map(one).collect();
    (!all.is_empty()).then(|| all.join(","))
}

/// Security that the lists of a file ask for: SASL of a listener, TLS.
fn security_of(path: &Path, entries: &[Entry]) -> Vec<Sourced> {
    let asked = |list: &str, key: &str, values: &[&str], name: &str| {
        let asks = |e: &&Entry| e.path.last().is_some_and(|k| k == key) && values.contains(&e.value.to_lowercase().as_str());
        entries_below(entries, list).find(asks).map(|e| Sourced::of_file(path, &e.path.join("."), name, "true"))
    };
    let sasl = asked("kafka_api", "authentication_method", &["sasl"], "redpanda.enable_sasl");
    let tls = asked("kafka_api_tls", "enabled", &["true", "yes", "on"], "redpanda.kafka_api_tls");
    sasl.into_iter().chain(tls).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        options: StartOptions,
    }

    fn set(words: &[&str], yaml: &str) -> Vec<(String, String)> {
        let words = ["dlog", "rpk", "redpanda", "start"].iter().chain(words).map(OsString::from).collect();
        let alone =
            Alone::parse_from(one_word_each(words).into_iter().filter(|word| word != "rpk" && word != "redpanda" && word != "start"));
        serve_options(&alone.options, Vec::new(), Path::new("/r.yaml"), yaml).settings.set
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn flags_of_a_compose_file_are_settings() {
        let words = [
            "--kafka-addr internal://0.0.0.0:9092,external://0.0.0.0:19092",
            "--advertise-kafka-addr internal://redpanda-0:9092,external://localhost:19092",
            "--pandaproxy-addr internal://0.0.0.0:8082,external://0.0.0.0:18082",
            "--rpc-addr redpanda-0:33145",
            "--mode dev-container",
            "--smp 1",
            "-m",
            "1G",
            "--overprovisioned",
            "--check=false",
            "--default-log-level=info",
            "--set redpanda.auto_create_topics_enabled=false",
            "--set redpanda.enable_sasl=false",
            "--set",
            "redpanda.superusers=['admin']",
        ];
        let expected = [
            ("listeners", "internal://0.0.0.0:9092,external://0.0.0.0:19092"),
            ("advertised.listeners", "internal://redpanda-0:9092,external://localhost:19092"),
            ("auto.create.topics.enable", "false"),
            ("redpanda.superusers", "['admin']"),
        ];
        assert_eq!(set(&words, ""), pairs(&expected));
        assert_eq!(set(&["--kafka-addr=0.0.0.0"], ""), pairs(&[("listeners", "0.0.0.0:9092")]));
    }

    #[test]
    fn options_before_the_command_of_rpk_count() {
        for (typed, expected) in [
            ("dlog rpk -X brokers=a:1 topic list", "dlog rpk topic list -X brokers=a:1"),
            ("dlog rpk topic -X brokers=a:1 list -v", "dlog rpk topic list -X brokers=a:1 -v"),
            ("dlog rpk -Xbrokers=a:1 --brokers=b cluster health -e", "dlog rpk cluster health -Xbrokers=a:1 --brokers=b -e"),
            ("dlog rpk -v version", "dlog rpk version -v"),
            ("dlog rpk redpanda start --smp 1", "dlog rpk redpanda start --smp 1"),
        ] {
            let words = typed.split(' ').map(OsString::from).collect();
            let words: Vec<_> = one_word_each(words).into_iter().map(|word| word.into_string().unwrap()).collect();
            assert_eq!(words.join(" "), expected);
        }
    }

    #[test]
    fn an_unknown_flag_names_the_most_similar_one() {
        let error = Alone::try_parse_from(["x", "--advertise-kafka-adr=a:1"]).unwrap_err().to_string();
        assert!(error.contains("'--advertise-kafka-adr'") && error.contains("'--advertise-kafka-addr'"), "{error}");
    }

    #[test]
    fn the_file_of_a_start_script_is_read() {
        let yaml = "# Injected by testcontainers\nredpanda:\n  admin:\n    address: 0.0.0.0\n    port: 9644\n  node_id: 3\n  developer_mode: true\n\n  kafka_api:\n    - address: 0.0.0.0\n      name: external\n      port: 9092\n      authentication_method: none\n    # Another one.\n    - address: \"0.0.0.0\"\n      name: internal\n      port: 9093\n\n  advertised_kafka_api:\n    - address: localhost\n      name: external\n      port: 32768\nschema_registry:\n  schema_registry_api:\n    - address: 0.0.0.0\n      port: 8081\n";
        let expected = [
            ("listeners", "external://0.0.0.0:9092,internal://0.0.0.0:9093"),
            ("advertised.listeners", "external://localhost:32768"),
            ("node.id", "3"),
        ];
        assert_eq!(set(&[], yaml), pairs(&expected));
        let flags = set(&["--kafka-addr", "a://:1", "--advertise-kafka-addr", "a://h:1"], yaml);
        assert_eq!(flags, pairs(&[("listeners", "a://:1"), ("advertised.listeners", "a://h:1"), ("node.id", "3")]));
    }

    #[test]
    fn security_in_the_file_is_passed_on() {
        let yaml = "redpanda:\n  enable_sasl: true\n  kafka_api:\n  - address: 0.0.0.0\n    port: 9092\n    authentication_method: sasl\n  kafka_api_tls:\n  - name: external\n    enabled: true\n";
        let names: Vec<String> = set(&[], yaml).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["listeners", "redpanda.enable_sasl", "redpanda.kafka_api_tls", "redpanda.enable_sasl"]);
        let asked = |yaml: &str| set(&[], yaml).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(asked("redpanda:\n  superusers:\n    - admin\n"), ["redpanda.superusers"]);
        assert_eq!(asked("redpanda:\n  kafka_api_tls:\n  - enabled: Yes\n"), ["redpanda.kafka_api_tls"]);
        let cluster = cluster_settings(Path::new("/b.yaml"), "enable_sasl: true\nauto_create_topics_enabled: false\n");
        assert_eq!((cluster.len(), cluster[0].source.as_deref()), (2, Some("/b.yaml: enable_sasl")));
        let alone = Alone::parse_from(["x", "--set", "redpanda.superusers=me"]);
        let by = serve_options(&alone.options, cluster, Path::new("/r.yaml"), yaml).settings.set_by;
        assert_eq!(by["redpanda.enable_sasl"], "/r.yaml: redpanda.enable_sasl", "the last one");
        assert_eq!(by["redpanda.kafka_api_tls"], "/r.yaml: redpanda.kafka_api_tls.enabled");
        assert_eq!((by["listeners"].as_str(), by.get("redpanda.superusers")), ("/r.yaml: redpanda.kafka_api", None));
        for yaml in [
            "redpanda:\n  kafka_api: [{address: a, authentication_method: sasl}]\n",
            "redpanda: {kafka_api: []}\n",
            "redpanda:\n  kafka_api:\n  - {port: 1}\n",
        ] {
            assert!(refuse_flow_style(Path::new("f"), yaml).unwrap_err().starts_with("f:"), "{yaml}");
        }
        assert_eq!(refuse_flow_style(Path::new("f"), "redpanda:\n  seed_servers: []\npandaproxy: {}\n"), Ok(()));
        assert!(
            set(&[], "redpanda:\n  kafka_api:\n  - address: 0.0.0.0\n    authentication_method: none\n")
                .iter()
                .all(|(n, _)| n == "listeners")
        );
    }
}
