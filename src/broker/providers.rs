//! Sources of settings for figment.
//!
//! Kafka's keys are flat and dotted, and some are prefixes of others (`log.retention.ms` beside a topic's `retention.ms`, `broker.id` beside
//! `broker.id.generation.enable`): a tree of tables cannot represent them. So each source is one flat table whose keys keep their dots.

use std::collections::BTreeMap;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::{Error, properties};

/// One source, with its name for messages.
#[derive(Debug, Clone)]
pub(super) struct Flat {
    source: String,
    values: BTreeMap<String, String>,
}

/// The prefix of our own environment variables.
const OURS: &str = "DLOG_";
/// The prefix of Kafka's keys in the image of Bitnami.
const BITNAMI: &str = "KAFKA_CFG_";
/// Environment variables of the images that set a key of another name.
const OTHER_NAMES: &[(&str, &str)] = &[("CLUSTER_ID", "cluster.id"), ("KAFKA_KRAFT_CLUSTER_ID", "cluster.id")];
/// Environment variables of the images that are not settings of the broker.
const NOT_SETTINGS: &[&str] =
    &["KAFKA_VERSION", "KAFKA_HEAP_OPTS", "KAFKA_OPTS", "KAFKA_JVM_PERFORMANCE_OPTS", "KAFKA_GC_LOG_OPTS", "KAFKA_CREATE_TOPICS"];
const NOT_SETTINGS_PREFIXES: &[&str] = &["KAFKA_JMX_", "KAFKA_LOG4J_"];
/// All environment variables of our own. A test compares them with those that the command line reads.
pub const VARIABLES: &[&str] = &[
    "DLOG_BOOTSTRAP_SERVER",
    "DLOG_DEFAULT_DATA",
    "DLOG_DEFAULT_LISTENERS",
    "DLOG_HTTP_LISTEN",
    "DLOG_HTTP_SERVER",
    "DLOG_IGNORE_SECURITY_SETTINGS",
    "DLOG_LOG",
    "DLOG_LOG_FORMAT",
    "DLOG_SEED",
    "DLOG_STRICT",
];
/// The minimum similarity of two names that count as similar.
const SIMILARITY_MIN: f64 = 0.85;

impl Flat {
    /// Values of a source.
    pub(super) fn new(source: &str, values: BTreeMap<String, String>) -> Flat {
        Flat { source: source.to_string(), values }
    }

    /// A Java properties file.
    pub(super) fn properties(path: &str, bytes: &[u8]) -> Result<Flat, Error> {
        let values = properties::parse(&properties::decode(bytes));
        Ok(Flat::new(path, values.map_err(|what| Error::File { path: path.to_string(), what })?))
    }

    /// A TOML file: tables and dotted keys form the parts of a name, a list becomes one text with commas.
    pub(super) fn toml(path: &str, text: &str) -> Result<Flat, Error> {
        let data = Toml::string(text).data().map_err(|e| Error::File { path: path.to_string(), what: e.to_string() })?;
        let mut values = BTreeMap::new();
        for (key, value) in data.into_values().flatten() {
            flatten(key, value, &mut values).map_err(|what| Error::File { path: path.to_string(), what })?;
        }
        Ok(Flat::new(path, values))
    }

    /// Variables with the images' mapping: after `KAFKA_` or `KAFKA_CFG_`, `_` is a dot, `__` an underscore, `___` a dash. The first form wins.
    pub(super) fn environment(variables: impl Iterator<Item = (String, String)>) -> Flat {
        let mut values = BTreeMap::new();
        let mut bitnami = BTreeMap::new();
        let key = |rest: &str| rest.to_lowercase().replace("___", "-").replace("__", "\0").replace('_', ".").replace('\0', "_");
        for (name, value) in variables.filter(|(name, value)| !is_service_link(name, value)) {
            let excluded = NOT_SETTINGS.contains(&name.as_str()) || NOT_SETTINGS_PREFIXES.iter().any(|p| name.starts_with(p));
            if let Some((_, key)) = OTHER_NAMES.iter().find(|(other, _)| *other == name) {
                // The start scripts of the images replace an empty one. An empty KAFKA_X is an empty value, as in Kafka's image.
                if !value.trim().is_empty() {
                    bitnami.insert(key.to_string(), value);
                }
            } else if let Some(rest) = name.strip_prefix(BITNAMI).filter(|rest| !rest.is_empty()) {
                bitnami.insert(key(rest), value);
            } else if let Some(rest) = name.strip_prefix("KAFKA_").filter(|rest| !rest.is_empty() && !excluded) {
                values.insert(key(rest), value);
            }
        }
        bitnami.extend(values);
        Flat::new("the environment", bitnami)
    }
}

/// Whether Kubernetes or Docker created this variable from the name of a service, such as `KAFKA_PORT=tcp://10.0.0.1:9092` for a service named kafka.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_link = |word: &str| name.contains(word);
    ["_SERVICE_HOST", "_SERVICE_PORT"].into_iter().any(is_link)
        || is_link("_PORT") && (value.contains("://") || is_link("_TCP") || is_link("_UDP"))
        || ["_ENV_", "_NAME"].into_iter().any(is_link) && value.starts_with('/')
}

/// Unknown environment variables that start with `DLOG_`, each with the most similar known name, if there is one.
pub(super) fn unknown_variables(variables: &[(String, String)]) -> Vec<(&str, Option<&'static str>)> {
    let nearest = |name: &str| {
        let scored =
            VARIABLES.iter().map(|known| (strsim::jaro_winkler(known.trim_start_matches(OURS), name.trim_start_matches(OURS)), *known));
        scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|best| best.0 >= SIMILARITY_MIN).map(|best| best.1)
    };
    let ours = variables.iter().filter(|(name, value)| name.starts_with(OURS) && !is_service_link(name, value));
    let unknown = ours.map(|(name, _)| name.as_str()).filter(|name| !VARIABLES.contains(name));
    unknown.map(|name| (name, nearest(name))).collect()
}

/// Stores a value under its dotted name.
fn flatten(name: String, value: Value, into: &mut BTreeMap<String, String>) -> Result<(), String> {
    let text = match value {
        Value::Dict(_, inner) => {
            return inner.into_iter().try_for_each(|(key, value)| flatten(format!("{name}.{key}"), value, into));
        }
        Value::Array(_, values) => values.into_iter().map(|value| plain(&name, value)).collect::<Result<Vec<_>, _>>()?.join(","),
        value => plain(&name, value)?,
    };
    into.insert(name, text);
    Ok(())
}

fn plain(name: &str, value: Value) -> Result<String, String> {
    match value {
        Value::String(_, text) => Ok(text),
        Value::Bool(_, word) => Ok(word.to_string()),
        Value::Num(_, number) => number
            .to_i128()
            .map(|n| n.to_string())
            .or(number.to_f64().map(|n| n.to_string()))
            .ok_or_else(|| format!("{name}: this number cannot be read")),
        _ => Err(format!("{name} must be a text, a number, true or false, or a list of these")),
    }
}

impl Provider for Flat {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict: Dict = self.values.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_names_its_path_and_line() {
        let error = Flat::properties("server.properties", b"a=1\nb=\\u12").unwrap_err().to_string();
        assert!(error.contains("server.properties: line 2"), "{error}");
    }

    #[test]
    fn unknown_variables_of_ours_are_found_with_the_name_that_was_meant() {
        let variables = [
            ("DLOG_HTTP_LISTN", "127.0.0.1:1"),
            ("DLOG_SEED", "/seed"),
            ("DLOG_XYZ", "1"),
            ("KAFKA_XYZ", "1"),
            // Kubernetes creates these for a service named dlog.
            ("DLOG_SERVICE_HOST", "10.0.0.1"),
            ("DLOG_SERVICE_PORT_KAFKA", "9092"),
            ("DLOG_PORT", "tcp://10.0.0.1:9092"),
            ("DLOG_PORT_9092_TCP_ADDR", "10.0.0.1"),
        ];
        let variables: Vec<_> = variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert_eq!(unknown_variables(&variables), [("DLOG_HTTP_LISTN", Some("DLOG_HTTP_LISTEN")), ("DLOG_XYZ", None)]);
    }

    #[test]
    fn variables_that_kubernetes_makes_for_a_service_called_kafka_are_not_settings() {
        let variables = [("KAFKA_PORT", "tcp://10.0.0.1:9092"), ("KAFKA_SERVICE_HOST", "10.0.0.1"), ("KAFKA_PORT_9092_TCP_PORT", "9092")];
        let flat = Flat::environment(variables.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        assert!(flat.values.is_empty(), "{:?}", flat.values);
    }

    #[test]
    fn environment_names_map_as_in_the_images() {
        let variables = [
            ("KAFKA_NUM_PARTITIONS", "3"),
            ("KAFKA_LISTENER_NAME_A__B_X", "1"),
            ("KAFKA_A___B", "2"),
            ("KAFKA_HEAP_OPTS", "-Xmx"),
            ("KAFKA_LOG4J_ROOT_LOGLEVEL", "x"),
            ("PATH", "/"),
        ];
        let flat = Flat::environment(variables.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        assert!(flat.values.keys().eq(["a-b", "listener.name.a_b.x", "num.partitions"]));
        let bitnami = [
            ("KAFKA_NUM_PARTITIONS", "3"),
            ("KAFKA_CFG_NUM_PARTITIONS", "4"),
            ("KAFKA_CFG_LOG_DIRS", "/b"),
            ("CLUSTER_ID", "c"),
            ("KAFKA_KRAFT_CLUSTER_ID", ""),
        ];
        let flat = Flat::environment(bitnami.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        let expected = [("cluster.id", "c"), ("log.dirs", "/b"), ("num.partitions", "3")];
        assert!(flat.values.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected));
    }

    #[test]
    fn toml_becomes_flat() {
        let text =
            "num.partitions = 3\nlisteners = [\"A://:1\", \"B://:2\"]\n[log]\ndirs = \"/a\"\nretention.ms = -1\npreallocate = true\n";
        let flat = Flat::toml("x.toml", text).unwrap();
        let expected = [
            ("listeners", "A://:1,B://:2"),
            ("log.dirs", "/a"),
            ("log.preallocate", "true"),
            ("log.retention.ms", "-1"),
            ("num.partitions", "3"),
        ];
        assert!(flat.values.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected));
        for bad in ["a = ", "a = [[1]]"] {
            assert!(Flat::toml("x.toml", bad).unwrap_err().to_string().contains("x.toml"), "{bad}");
        }
    }
}
