//! The configuration of a broker: defaults, then a file, then the environment, then flags.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;
use figment::{Figment, Provider};
use tracing::warn;

use super::providers::{self, Flat};
use super::security::{Unprotected, is_secret, unprotected};
use super::settings::{KEYS, Key};
use super::standing::Standing;
use super::{CleanerSettings, Error, ListenerConfig, Seed, listeners};
use crate::cluster::{ControllerSettings, Replication};
use crate::coordinator::{GroupSettings, TransactionSettings};
use crate::env::{Disk, RealDisk};
use crate::model::{NodeId, Uuid};
use crate::partition::{COMPRESSED_BATCHES_CHECK, Durability, KafkaSetting, Kind, SETTINGS, Setting, kafka_settings, setting_behind};
use crate::server::{BrokerSetting, ServerLimits, ServerSettings, SettingSource};

/// Which defaults apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// For development: fast and lenient.
    Dev,
    /// Kafka's.
    Serve,
}

/// The sources of settings.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A file: TOML if its name ends in `.toml`, else Java properties.
    pub file: Option<PathBuf>,
    /// Whether unknown settings are rejected.
    pub strict: bool,
    /// Whether settings that require authentication, authorization or encryption, which are not supported, are ignored. Otherwise they are rejected.
    pub ignore_security: bool,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// `key=value` flags.
    pub flags: BTreeMap<String, String>,
    /// Where the values of `flags` come from, if they are from a file: its path and the key in it.
    pub flags_by: BTreeMap<String, String>,
    /// The data directory if no setting names one.
    pub default_data: PathBuf,
}

/// A broker's validated configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which defaults.
    pub mode: Mode,
    /// This broker's id.
    pub node_id: NodeId,
    /// The cluster's id, if it is configured.
    pub cluster_id: Option<String>,
    /// The data directories; at least one.
    pub data: Vec<PathBuf>,
    /// When a record counts as stored.
    pub durability: Durability,
    /// The listeners.
    pub listeners: Vec<ListenerConfig>,
    /// Host and port of the HTTP listener.
    pub http: (String, u16),
    /// Host names that HTTP requests may use, besides the advertised ones.
    pub http_hosts: Vec<String>,
    /// For the controller.
    pub controller: ControllerSettings,
    /// For groups.
    pub groups: GroupSettings,
    /// For transactions.
    pub transactions: TransactionSettings,
    /// For the server.
    pub server: ServerSettings,
    /// The interval of retention.
    pub retention_check: Duration,
    /// The interval at which logs are fsynced.
    pub flush: Duration,
    /// How long the state of an idle producer is kept.
    pub producer_expiration_ms: i64,
    /// How logs are compacted; none with `log.cleaner.enable=false`.
    pub cleaner: Option<CleanerSettings>,
    /// The data that the broker must contain when it starts; not a setting.
    pub seed: Seed,
    /// Whether the contents of the directories are deleted first; not a setting either.
    pub reset: bool,
    /// Whether the last records of deleted topics are kept for [`super::Broker::keep_tails`]; not a setting either.
    pub keep_deleted: bool,
}

/// Values by key, each with its source.
struct Values {
    set: BTreeMap<String, String>,
    mode: Mode,
}

impl Values {
    fn text(&self, name: &str) -> Option<String> {
        self.set.get(name).cloned().or_else(|| self.default(name))
    }

    fn default(&self, name: &str) -> Option<String> {
        let key = Key::named(name)?;
        let default = if self.mode == Mode::Dev { key.dev_default.unwrap_or(key.default) } else { key.default };
        (!default.is_empty()).then(|| default.to_string())
    }

    /// The value of a number, which is valid or a default.
    fn long(&self, name: &str) -> i64 {
        self.text(name).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    fn double(&self, name: &str) -> f64 {
        self.text(name).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    fn is_true(&self, name: &str) -> bool {
        self.text(name).as_deref() == Some("true")
    }
}

impl Config {
    /// Collects and validates the settings. Logs a warning for each unknown key.
    pub fn read(mode: Mode, sources: &Sources, http: &str) -> Result<Config, Error> {
        let values = Values { set: checked(&gathered(sources)?, sources)?, mode };
        let set = |name: &str| values.set.get(name).map(String::as_str);
        // Start scripts of Kafka's images derive the listeners from the advertised ones if the variable is empty.
        let set_listeners = set("listeners").filter(|text| !text.is_empty());
        let node = set("node.id").or(set("broker.id")).unwrap_or("1");
        let node_id = node
            .parse()
            .ok()
            .filter(|id| *id >= 0)
            .map(NodeId)
            .ok_or_else(|| refuse("node.id", node, "must be a whole number of at least 0"))?;
        let default_listeners = if set("advertised.listeners").is_none_or(str::is_empty) { values.default("listeners") } else { None };
        let listen = set_listeners.map(str::to_string).or(default_listeners);
        let protocols = values.text("listener.security.protocol.map").unwrap_or_default();
        let controllers = set("controller.listener.names").unwrap_or("CONTROLLER");
        let cluster_id = set("cluster.id").map(str::to_string);
        if let Some(id) = cluster_id.as_ref().filter(|id| Uuid::parse(id).is_none() && (id.is_empty() || id.len() > 64)) {
            return Err(refuse("cluster.id", id, "must be 1 to 64 characters"));
        }
        let topic_defaults = topic_settings(&values)?;
        Ok(Config {
            mode,
            node_id,
            cluster_id,
            data: data_directories(set("log.dirs").or(set("log.dir")), sources),
            durability: if values.text("durability.profile").as_deref() == Some("fsync") { Durability::Fsync } else { Durability::Default },
            listeners: listeners::listeners(
                listen.as_deref(),
                set("advertised.listeners"),
                &protocols,
                controllers,
                if sources.ignore_security { listeners::Protected::ServedOpen } else { listeners::Protected::Rejected },
            )?,
            http: http_address(http)?,
            http_hosts: set("http.allowed.hosts").unwrap_or_default().split(',').map(|name| name.trim().to_string()).collect(),
            controller: ControllerSettings {
                num_partitions: values.long("num.partitions") as i32,
                default_replication_factor: values.long("default.replication.factor") as i16,
                replication: if mode == Mode::Dev { Replication::Clamp } else { Replication::Refuse },
                topic_defaults: topic_defaults.clone(),
            },
            groups: group_settings(&values),
            transactions: transaction_settings(&values),
            server: server_settings(&values, &topic_defaults),
            retention_check: Duration::from_millis(values.long("log.retention.check.interval.ms") as u64),
            flush: Duration::from_millis(values.long("log.flush.offset.checkpoint.interval.ms").max(100) as u64),
            producer_expiration_ms: values.long("producer.id.expiration.ms"),
            cleaner: values.is_true("log.cleaner.enable").then(|| CleanerSettings {
                backoff: Duration::from_millis(values.long("log.cleaner.backoff.ms") as u64),
                map_bytes: values.long("log.cleaner.dedupe.buffer.size") as usize,
                bytes_per_second: values.double("log.cleaner.io.max.bytes.per.second"),
            }),
            seed: Seed::default(),
            reset: false,
            keep_deleted: false,
        })
    }
}

fn refuse(key: &str, value: &str, what: &str) -> Error {
    Error::Setting { key: key.into(), value: value.into(), what: what.into() }
}

/// The environment variable with the data directory, used if no setting names one. Images set it.
const DEFAULT_DATA: &str = "DLOG_DEFAULT_DATA";
/// The environment variable with the listeners, used if no setting has them. Images set it: in a container 127.0.0.1 cannot be reached.
const DEFAULT_LISTENERS: &str = "DLOG_DEFAULT_LISTENERS";

/// The name of the flags as a source.
const FLAGS: &str = "the flags";

/// Everything that is set: name, source, and value without surrounding white space. Booleans are in lower case.
fn gathered(sources: &Sources) -> Result<Vec<(String, String, String)>, Error> {
    let mut figment = Figment::new();
    if let Some(path) = &sources.file {
        let shown = path.display().to_string();
        let unreadable = |e: std::io::Error| Error::File { path: shown.clone(), what: e.to_string() };
        let bytes = RealDisk.read(path).map_err(unreadable)?;
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        let values = if is_toml { Flat::toml(&shown, &String::from_utf8_lossy(&bytes))? } else { Flat::properties(&shown, &bytes)? };
        figment = figment.merge(values);
    }
    figment = figment.merge(Flat::environment(sources.environment.iter().cloned())).merge(Flat::new(FLAGS, sources.flags.clone()));
    let data = figment.data().map_err(|e| refuse("configuration", "", &e.to_string()))?;
    let source = |value: &Value| figment.get_metadata(value.tag()).map_or_else(String::new, |metadata| metadata.name.to_string());
    let one = |(name, value): (String, Value)| {
        let from = source(&value);
        let from = sources.flags_by.get(&name).filter(|_| from == FLAGS).cloned().unwrap_or(from);
        let value = canonical(&name, &value.into_string().unwrap_or_default());
        (name, from, value)
    };
    let mut all: Vec<(String, String, String)> = data.into_values().flatten().map(one).collect();
    for (variable, name, instead) in
        [(DEFAULT_DATA, "log.dirs", &["log.dirs", "log.dir"]), (DEFAULT_LISTENERS, "listeners", &["listeners", "advertised.listeners"])]
    {
        let is_set = all.iter().any(|(name, _, value)| instead.contains(&name.as_str()) && !value.is_empty());
        let default = sources.environment.iter().find(|(name, value)| name == variable && !value.trim().is_empty());
        if let Some((_, value)) = default.filter(|_| !is_set) {
            all.retain(|(set, ..)| set != name);
            all.push((name.to_string(), variable.to_string(), value.trim().to_string()));
        }
    }
    Ok(all)
}

/// A value in the form that the checks require. Kafka trims values, and accepts true and false in any case.
fn canonical(name: &str, value: &str) -> String {
    let value = value.trim();
    let kind = Key::named(name).map(|key| key.kind).or_else(|| setting_behind(name).map(|setting| setting.kind));
    let is_word = ["true", "false"].iter().any(|word| value.eq_ignore_ascii_case(word));
    if kind == Some(Kind::Boolean) && is_word { value.to_ascii_lowercase() } else { value.to_string() }
}

fn checked(all: &[(String, String, String)], sources: &Sources) -> Result<BTreeMap<String, String>, Error> {
    let open = unprotected(all, &sources.environment);
    match open.first() {
        Some(first) if !sources.ignore_security => return Err(first.error()),
        _ => open.iter().for_each(|Unprotected { name, source, .. }| {
            warn!(key = %name, from = %source, "this security setting is ignored: any client can read and write everything");
        }),
    }
    for (name, nearest) in providers::unknown_variables(&sources.environment) {
        let standing = Standing::Unknown(nearest);
        if sources.strict {
            return Err(Error::Variable { name: name.into(), what: standing.to_string() });
        }
        warn!(variable = %name, "this variable is {standing}");
    }
    for (name, source, value) in all {
        check_one(name, value)?;
        match Standing::of(name) {
            Standing::Honoured | Standing::Meaningless => {}
            standing @ Standing::Unknown(_) if sources.strict => {
                return Err(refuse(name, shown(name, value), &format!("from {source}: {standing}")));
            }
            _ if open.iter().any(|each| each.name == *name) => {}
            standing => warn!(key = %name, from = %source, "this setting is {standing}"),
        }
    }
    Ok(all.iter().map(|(name, _, value)| (name.clone(), value.clone())).collect())
}

/// Validates the value of a single setting.
fn check_one(name: &str, value: &str) -> Result<(), Error> {
    if let Some(key) = Key::named(name) {
        key.check(value).map_err(|what| refuse(name, value, &what))?;
    }
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.broker_synonym == name && !name.is_empty()) {
        setting.check(value).map_err(|e| refuse(name, value, &e.to_string()))?;
    }
    Ok(())
}

/// The value, unless it is secret.
fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    if is_secret(name) && !value.is_empty() { "[hidden]" } else { value }
}

/// A setting with its value, the source of the value, and whether the setting is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Kafka's name.
    pub name: String,
    /// The value; empty if there is none, and hidden if it is secret.
    pub value: String,
    /// A file, the environment, the flags, or the default.
    pub source: String,
    /// Whether it is honoured.
    pub standing: Standing,
    /// The reason why the broker would not start with this value.
    pub rejected: Option<String>,
}

/// All settings that are honoured and all that are set, by name. Those that would prevent the start have the reason.
pub fn explain(mode: Mode, sources: &Sources, http: &str) -> Result<Vec<Explained>, Error> {
    let all = gathered(sources)?;
    let values = Values { set: all.iter().map(|(name, _, value)| (name.clone(), value.clone())).collect(), mode };
    let mut explained: BTreeMap<String, Explained> = BTreeMap::new();
    let mut explain = |name: &str, value: &str, source: &str, standing: Standing| {
        let (value, source) = (shown(name, value).to_string(), source.to_string());
        explained.insert(name.to_string(), Explained { name: name.into(), value, source, standing, rejected: None });
    };
    let topics = SETTINGS.iter().filter(|s| s.is_honoured() && !s.broker_synonym.is_empty());
    for name in KEYS.iter().map(|key| key.name).chain(topics.map(|s| s.broker_synonym)) {
        let value = values.text(name).or_else(|| setting_behind(name).map(|s| s.default.to_string())).unwrap_or_default();
        explain(name, &value, "default", Standing::of(name));
    }
    for (name, source, value) in &all {
        explain(name, value, source, Standing::of(name));
    }
    for (name, nearest) in providers::unknown_variables(&sources.environment) {
        explain(name, "", "the environment", Standing::Unknown(nearest));
    }
    let mut errors: Vec<Error> = all.iter().filter_map(|(name, _, value)| check_one(name, value).err()).collect();
    if !sources.ignore_security {
        errors.extend(unprotected(&all, &sources.environment).iter().map(Unprotected::error));
    }
    // Errors that only the combination of settings has, such as two listeners with one name. The check stops at the first one.
    errors.extend(Config::read(mode, sources, http).err());
    for error in errors {
        let (name, what) = match error {
            Error::Setting { key, what, .. } => (key, what),
            Error::Unprotected { ref name, .. } | Error::Variable { ref name, .. } => (name.clone(), error.to_string()),
            other => return Err(other),
        };
        let source = if name.starts_with("KAFKA_") { "the environment" } else { "" };
        let missing =
            || Explained { name: name.clone(), value: String::new(), source: source.into(), standing: Standing::of(&name), rejected: None };
        explained.entry(name.clone()).or_insert_with(missing).rejected.get_or_insert(what);
    }
    Ok(explained.into_values().collect())
}

/// Each directory once, in the order of the setting.
fn data_directories(configured: Option<&str>, sources: &Sources) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    for path in configured.unwrap_or_default().split(',').map(str::trim).filter(|d| !d.is_empty()).map(PathBuf::from) {
        if !all.contains(&path) {
            all.push(path);
        }
    }
    if all.is_empty() { vec![sources.default_data.clone()] } else { all }
}

fn http_address(text: &str) -> Result<(String, u16), Error> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host.trim_matches(['[', ']']).to_string(), port.parse().ok()?)));
    parsed.ok_or_else(|| refuse("DLOG_HTTP_LISTEN", text, "must be host:port, such as 127.0.0.1:9644"))
}

fn group_settings(values: &Values) -> GroupSettings {
    GroupSettings {
        session_timeout_min_ms: values.long("group.min.session.timeout.ms") as i32,
        session_timeout_max_ms: values.long("group.max.session.timeout.ms") as i32,
        initial_rebalance_delay_ms: values.long("group.initial.rebalance.delay.ms"),
        members_max: values.long("group.max.size") as usize,
        metadata_bytes_max: values.long("offset.metadata.max.bytes").max(0) as usize,
        offsets_retention_ms: values.long("offsets.retention.minutes") * 60_000,
        retention_check_ms: values.long("offsets.retention.check.interval.ms"),
        partitions: values.long("offsets.topic.num.partitions") as i32,
    }
}

fn transaction_settings(values: &Values) -> TransactionSettings {
    TransactionSettings {
        timeout_max_ms: values.long("transaction.max.timeout.ms") as i32,
        expiration_ms: values.long("transactional.id.expiration.ms"),
        abort_check_ms: values.long("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
        expiration_check_ms: values.long("transaction.remove.expired.transaction.cleanup.interval.ms"),
        verify_partitions: values.is_true("transaction.partition.verification.enable"),
        partitions: values.long("transaction.state.log.num.partitions") as i32,
    }
}

fn server_settings(values: &Values, topic_defaults: &BTreeMap<String, String>) -> ServerSettings {
    let queued = values.long("queued.max.request.bytes");
    ServerSettings {
        auto_create_topics: values.is_true("auto.create.topics.enable"),
        delete_topics: values.is_true("delete.topic.enable"),
        fetch_bytes_max: values.long("fetch.max.bytes") as i32,
        fetch_sessions_max: values.long("max.incremental.fetch.session.cache.slots") as usize,
        rack: values.text("broker.rack"),
        broker: broker_settings(values, topic_defaults),
        limits: ServerLimits {
            frame_bytes_max: values.long("socket.request.max.bytes") as usize,
            queued_bytes_max: if queued > 0 { queued as usize } else { usize::MAX >> 4 },
            connections_max: values.long("max.connections") as usize,
            idle: Duration::from_millis(u64::try_from(values.long("connections.max.idle.ms")).unwrap_or(u64::MAX >> 12)),
        },
    }
}

/// Settings that Kafka's brokers leave unset although topics have a default.
const UNSET: &[&str] = &["log.flush.interval.ms", "log.roll.jitter.ms"];

/// All settings of the broker: our keys, the other defaults of topics, and Kafka's settings that have no effect here.
fn broker_settings(values: &Values, topic_defaults: &BTreeMap<String, String>) -> Vec<BrokerSetting> {
    let shown = |name: &'static str, kind: Kind, doc: &'static str| {
        let behind = setting_behind(name);
        let is_key = Key::named(name).is_some() || UNSET.contains(&name);
        let default = if is_key { values.default(name) } else { behind.map(|s| s.default.to_string()) };
        // Includes values derived from coarser settings, such as log.retention.hours.
        let set = values.set.get(name).or_else(|| topic_defaults.get(behind?.name)).cloned();
        let source = if set.is_some() { SettingSource::Static } else { SettingSource::Default };
        BrokerSetting { name, value: set.or_else(|| default.clone()), default, kind, source, doc }
    };
    let of_key = |key: &'static Key| shown(key.name, key.kind, key.doc);
    let of_topics = |setting: &'static Setting| shown(setting.broker_synonym, setting.kind, setting.doc);
    let more = SETTINGS.iter().filter(|s| !s.broker_synonym.is_empty() && Key::named(s.broker_synonym).is_none());
    let mut all: Vec<BrokerSetting> = KEYS.iter().map(of_key).chain(more.map(of_topics)).collect();
    let without_effect = kafka_settings().iter().filter(|known| !all.iter().any(|shown| shown.name == known.setting.name));
    let shown_as_kafka_does = |known: &'static KafkaSetting| {
        let Setting { name, kind, doc, .. } = known.setting;
        let default = known.default.map(str::to_string);
        let same = if name == "broker.id" { "node.id" } else { name };
        let set = values.set.get(name).or_else(|| values.set.get(same)).cloned();
        let source = if set.is_some() { SettingSource::Static } else { SettingSource::Default };
        BrokerSetting { name, value: set.or_else(|| default.clone()), default, kind, source, doc }
    };
    let without_effect: Vec<BrokerSetting> = without_effect.map(shown_as_kafka_does).collect();
    all.extend(without_effect);
    all.sort_by_key(|setting| setting.name);
    all
}

/// The broker's values for settings of topics, under the topics' names.
fn topic_settings(values: &Values) -> Result<BTreeMap<String, String>, Error> {
    let mut settings = BTreeMap::new();
    for setting in SETTINGS {
        if let Some(value) = values.set.get(setting.broker_synonym) {
            setting.check(value).map_err(|e| refuse(setting.broker_synonym, value, &e.to_string()))?;
            settings.insert(setting.name.to_string(), value.clone());
        }
    }
    settings.extend(values.text(COMPRESSED_BATCHES_CHECK).map(|check| (COMPRESSED_BATCHES_CHECK.to_string(), check)));
    let finer = |name: &str, coarser: &[(&str, i64)]| -> Option<String> {
        if values.set.contains_key(name) {
            return None;
        }
        let (key, unit) = coarser.iter().find(|(key, _)| values.set.contains_key(*key))?;
        let count: i64 = values.set.get(*key)?.parse().ok()?;
        Some(if count < 0 { "-1".to_string() } else { count.saturating_mul(*unit).to_string() })
    };
    if let Some(ms) = finer("log.retention.ms", &[("log.retention.minutes", 60_000), ("log.retention.hours", 3_600_000)]) {
        settings.insert("retention.ms".into(), ms);
    }
    if let Some(ms) = finer("log.roll.ms", &[("log.roll.hours", 3_600_000)]) {
        settings.insert("segment.ms".into(), ms);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mode: Mode, file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.properties");
        std::fs::write(&path, file).unwrap();
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
        let sources = Sources {
            file: Some(path),
            environment: pairs(environment),
            flags: pairs(flags).into_iter().collect(),
            default_data: "/default".into(),
            ..Sources::default()
        };
        Config::read(mode, &sources, "127.0.0.1:0")
    }

    #[test]
    fn flags_win_over_environment_and_environment_over_the_file() {
        let file = "num.partitions=2\ndefault.replication.factor=2\nlog.dirs=/file\n";
        let config =
            read(Mode::Serve, file, &[("KAFKA_NUM_PARTITIONS", "3"), ("KAFKA_LOG_DIRS", "/environment")], &[("num.partitions", "4")])
                .unwrap();
        assert_eq!((config.controller.num_partitions, config.controller.default_replication_factor), (4, 2));
        assert_eq!(config.data, [PathBuf::from("/environment")]);
    }

    #[test]
    fn dev_mode_differs_where_it_says_so() {
        let (dev, serve) = (read(Mode::Dev, "", &[], &[]).unwrap(), read(Mode::Serve, "", &[], &[]).unwrap());
        assert_eq!((dev.groups.initial_rebalance_delay_ms, serve.groups.initial_rebalance_delay_ms), (0, 3000));
        assert_eq!((dev.controller.replication, serve.controller.replication), (Replication::Clamp, Replication::Refuse));
        assert_eq!(dev.data, [PathBuf::from("/default")]);
    }

    #[test]
    fn coarse_times_become_milliseconds_and_finer_ones_win() {
        let config = read(Mode::Serve, "log.retention.hours=2\nlog.roll.hours=1\n", &[], &[]).unwrap();
        assert_eq!(
            (config.controller.topic_defaults["retention.ms"].as_str(), config.controller.topic_defaults["segment.ms"].as_str()),
            ("7200000", "3600000")
        );
        let config = read(Mode::Serve, "log.retention.hours=2\nlog.retention.minutes=5\nlog.retention.ms=9\n", &[], &[]).unwrap();
        assert_eq!(config.controller.topic_defaults["retention.ms"], "9");
    }

    #[test]
    fn unknown_settings_are_rejected_when_strict_and_explained() {
        let flags = BTreeMap::from([("num.partition".to_string(), "3".to_string())]);
        let mut sources = Sources { flags, environment: vec![("KAFKA_LOG_CLEANER_THREADS".into(), "2".into())], ..Sources::default() };
        assert!(Config::read(Mode::Serve, &sources, "127.0.0.1:0").is_ok());
        let explained = explain(Mode::Dev, &sources, "127.0.0.1:0").unwrap();
        let of = |name: &str| explained.iter().find(|e| e.name == name).map(|e| (e.value.as_str(), e.source.as_str(), e.standing));
        assert_eq!(of("num.partition"), Some(("3", "the flags", Standing::Unknown(Some("num.partitions")))));
        assert_eq!(of("log.cleaner.threads"), Some(("2", "the environment", Standing::Ignored)));
        assert_eq!(of("group.initial.rebalance.delay.ms"), Some(("0", "default", Standing::Honoured)));
        sources.strict = true;
        let error = Config::read(Mode::Serve, &sources, "127.0.0.1:0").unwrap_err().to_string();
        assert_eq!(error, "num.partition=3: from the flags: unknown; is num.partitions meant?");
    }

    #[test]
    fn bad_values_name_their_key() {
        for (file, key) in [
            ("num.partitions=x", "num.partitions"),
            ("node.id=-1", "node.id"),
            ("log.cleanup.policy=x", "log.cleanup.policy"),
            ("listeners=x", "listeners"),
        ] {
            let error = read(Mode::Dev, file, &[], &[]).unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        }
    }
}
