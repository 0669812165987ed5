//! `dlog rpk`: the contract of Redpanda's image. `rpk redpanda start` starts a broker by Redpanda's flags and `redpanda.yaml`; some commands that health
//! checks and start scripts call are served; every other command fails with a sentence and never starts a broker.
//!
//! Flags of Redpanda that have no effect here are accepted from a list ([`WITHOUT_EFFECT`]). Any other flag is an error that names the most similar one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Subcommand};

use super::commands::{ServeOptions, default_serve_options, key_value};
use super::kafka::{Cluster, Topic, cluster, topic};
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
    /// Ask about the cluster.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Create and list topics.
    #[command(subcommand)]
    Topic(Topic),
    /// Print the version of dlog.
    Version,
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
    words.into_iter().flat_map(split).collect()
}

/// Runs `rpk ...`.
pub(super) fn rpk(command: Rpk) -> Result<ExitCode, String> {
    let words = match command {
        Rpk::Redpanda(Redpanda::Start(options)) => return start(&options).map(|()| ExitCode::SUCCESS),
        Rpk::Cluster(command) => return cluster(&command).map(|()| ExitCode::SUCCESS),
        Rpk::Topic(command) => return topic(&command).map(|()| ExitCode::SUCCESS),
        Rpk::Version => {
            println!("dlog {}", env!("CARGO_PKG_VERSION"));
            return Ok(ExitCode::SUCCESS);
        }
        Rpk::Redpanda(Redpanda::Other(mut words)) => {
            words.insert(0, "redpanda".into());
            words
        }
        Rpk::Other(words) => words,
    };
    let words: Vec<_> = words.iter().take(2).map(|word| word.to_string_lossy()).collect();
    eprintln!(
        "dlog: rpk {} is not supported; rpk redpanda start, rpk cluster health, rpk cluster info, rpk topic create and rpk topic list are. Redpanda's own rpk works with this broker over the Kafka protocol",
        words.join(" ")
    );
    Ok(ExitCode::from(NOT_SERVED))
}

fn start(options: &StartOptions) -> Result<(), String> {
    let path = options.config.clone().unwrap_or_else(|| PathBuf::from(REDPANDA_YAML));
    let text = read(&path, options.config.is_some())?;
    refuse_flow_style(&path, &text)?;
    let mut serve_options = serve_options(options, &text);
    let cluster = read(&path.with_file_name(BOOTSTRAP_YAML), false)?;
    serve_options.settings.set.splice(0..0, cluster_settings(&cluster));
    serve(Mode::Dev, serve_options)
}

/// The cluster's settings in the text of [`BOOTSTRAP_YAML`], whose keys are at the top level.
fn cluster_settings(yaml: &str) -> Vec<(String, String)> {
    let scalars = entries(yaml).into_iter().filter(|e| e.path.len() == 1 && !e.value.is_empty());
    scalars.filter_map(|e| Some((translated(e.path.first()?)?, e.value))).collect()
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

/// The options of a broker for Redpanda's flags and for the text of its configuration file, over which flags win.
fn serve_options(options: &StartOptions, yaml: &str) -> ServeOptions {
    let entries = entries(yaml);
    let mut set: Vec<(String, String)> = Vec::new();
    let of_file = |name: &str| addresses(&entries, name);
    let listeners = options.kafka_addr.clone().or_else(|| of_file("kafka_api")).map(|list| with_ports(&list));
    let advertised = options.advertise_kafka_addr.clone().or_else(|| of_file("advertised_kafka_api")).map(|list| with_ports(&list));
    let listed = [("listeners", listeners.clone()), ("advertised.listeners", advertised)];
    set.extend(listed.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?))));
    set.extend(security_of(&entries));
    let scalars = entries.iter().filter(|e| e.path.len() == 2 && e.path.first().is_some_and(|first| first == "redpanda"));
    let scalars = scalars.filter(|e| !e.value.is_empty()).filter_map(|e| Some((e.path.last()?.clone(), e.value.clone())));
    // A file has many more settings than those that have a meaning here; a flag has been written for this broker.
    set.extend(scalars.filter_map(|(name, value)| Some((translated(&name)?, value))));
    set.extend(options.set.iter().filter_map(|(name, value)| {
        let inner = name.strip_prefix("redpanda.").unwrap_or(name);
        let is_off = SECURITY.contains(&inner) && matches!(value.as_str(), "false" | "[]" | "null" | "");
        (!is_off).then(|| (translated(inner).unwrap_or_else(|| name.clone()), value.clone()))
    }));
    set.extend(options.node_id.map(|id| ("node.id".to_string(), id.to_string())));
    let mut serve = default_serve_options();
    serve.settings.set = set;
    serve.log = options.default_log_level.clone().or(serve.log);
    let shown = listeners.unwrap_or_else(|| format!("0.0.0.0:{KAFKA_PORT}"));
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
fn below<'a>(entries: &'a [Entry], name: &str) -> impl Iterator<Item = &'a Entry> {
    let name = name.to_string();
    entries.iter().filter(move |e| e.path.len() > 2 && e.path.first().is_some_and(|k| k == "redpanda") && e.path.get(1) == Some(&name))
}

/// The addresses of a list, as NAME://ADDRESS:PORT with commas. None where there is no list.
fn addresses(entries: &[Entry], list: &str) -> Option<String> {
    let mut items: Vec<usize> = below(entries, list).map(|e| e.item).collect();
    items.dedup();
    let of = |item: usize, key: &str| {
        below(entries, list).find(|e| e.item == item && e.path.last().is_some_and(|k| k == key)).map(|e| e.value.clone())
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
fn security_of(entries: &[Entry]) -> Vec<(String, String)> {
    let has = |list: &str, key: &str, values: &[&str]| {
        below(entries, list).any(|e| e.path.last().is_some_and(|k| k == key) && values.contains(&e.value.to_lowercase().as_str()))
    };
    let sasl = has("kafka_api", "authentication_method", &["sasl"]).then_some("redpanda.enable_sasl");
    let tls = has("kafka_api_tls", "enabled", &["true", "yes", "on"]).then_some("redpanda.kafka_api_tls");
    sasl.into_iter().chain(tls).map(|name| (name.to_string(), "true".to_string())).collect()
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
        let words = ["dlog", "rpk"].iter().chain(words).map(OsString::from).collect();
        let alone = Alone::parse_from(one_word_each(words).into_iter().skip(1));
        serve_options(&alone.options, yaml).settings.set
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
        assert_eq!(cluster_settings("enable_sasl: true\nauto_create_topics_enabled: false\n").len(), 2);
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
