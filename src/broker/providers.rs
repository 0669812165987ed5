//! Sources of settings for figment.
//!
//! Kafka's keys are flat and dotted, and some are prefixes of others (`log.retention.ms` beside a topic's `retention.ms`, `broker.id` beside
//! `broker.id.generation.enable`): a tree of tables cannot hold them. So each source is one flat table whose keys keep their dots.

use std::collections::BTreeMap;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::Error;

/// One source, with a name for messages.
#[derive(Debug, Clone)]
pub(super) struct Flat {
    source: String,
    values: BTreeMap<String, String>,
}

/// The image of Bitnami puts this before Kafka's keys.
const BITNAMI: &str = "KAFKA_CFG_";
/// Variables of the images that stand for a key by another name.
const OTHER_NAMES: &[(&str, &str)] = &[("CLUSTER_ID", "cluster.id"), ("KAFKA_KRAFT_CLUSTER_ID", "cluster.id")];
/// Variables of the images that are no settings.
const NOT_SETTINGS: &[&str] =
    &["KAFKA_VERSION", "KAFKA_HEAP_OPTS", "KAFKA_OPTS", "KAFKA_JVM_PERFORMANCE_OPTS", "KAFKA_GC_LOG_OPTS", "KAFKA_CREATE_TOPICS"];
const NOT_SETTINGS_PREFIXES: &[&str] = &["KAFKA_JMX_", "KAFKA_LOG4J_"];

impl Flat {
    /// Values of a source.
    pub(super) fn new(source: &str, values: BTreeMap<String, String>) -> Flat {
        Flat { source: source.to_string(), values }
    }

    /// A Java properties file: `key=value` or `key: value`, `#` and `!` begin comments, a backslash at the end goes on.
    pub(super) fn properties(path: &str, text: &str) -> Result<Flat, Error> {
        let mut values = BTreeMap::new();
        let mut pending = String::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if pending.is_empty() && (line.is_empty() || line.starts_with(['#', '!'])) {
                continue;
            }
            pending.push_str(line.strip_suffix('\\').unwrap_or(line));
            if line.ends_with('\\') {
                continue;
            }
            let whole = std::mem::take(&mut pending);
            let (key, value) = whole
                .split_once(['=', ':'])
                .ok_or_else(|| Error::File { path: path.to_string(), what: format!("line {} is no `key=value`", number + 1) })?;
            values.insert(key.trim().to_string(), value.trim().to_string());
        }
        Ok(Flat::new(path, values))
    }

    /// A TOML file: tables and dotted keys are the parts of a name, a list is one text with commas.
    pub(super) fn toml(path: &str, text: &str) -> Result<Flat, Error> {
        let data = Toml::string(text).data().map_err(|e| Error::File { path: path.to_string(), what: e.to_string() })?;
        let mut values = BTreeMap::new();
        for (key, value) in data.into_values().flatten() {
            flatten(key, value, &mut values).map_err(|what| Error::File { path: path.to_string(), what })?;
        }
        Ok(Flat::new(path, values))
    }

    /// Variables by the images' mapping: after `KAFKA_` or `KAFKA_CFG_`, `_` is a dot, `__` an underscore, `___` a dash. The first form wins.
    pub(super) fn environment(variables: impl Iterator<Item = (String, String)>) -> Flat {
        let mut values = BTreeMap::new();
        let mut bitnami = BTreeMap::new();
        let key = |rest: &str| rest.to_lowercase().replace("___", "-").replace("__", "\0").replace('_', ".").replace('\0', "_");
        for (name, value) in variables {
            let excluded = NOT_SETTINGS.contains(&name.as_str()) || NOT_SETTINGS_PREFIXES.iter().any(|p| name.starts_with(p));
            if let Some((_, key)) = OTHER_NAMES.iter().find(|(other, _)| *other == name) {
                bitnami.insert(key.to_string(), value);
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

/// Puts a value under its dotted name.
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
    fn properties_are_javas() {
        let text = "# comment\nnum.partitions=3\nlog.dirs = /a,\\\n  /b\nlisteners: PLAINTEXT://:9092\n\n";
        let flat = Flat::properties("x", text).unwrap();
        let expected = [("listeners", "PLAINTEXT://:9092"), ("log.dirs", "/a,/b"), ("num.partitions", "3")];
        assert!(flat.values.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected));
        assert!(Flat::properties("x", "nonsense\n").unwrap_err().to_string().contains("line 1"));
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
        let bitnami = [("KAFKA_NUM_PARTITIONS", "3"), ("KAFKA_CFG_NUM_PARTITIONS", "4"), ("KAFKA_CFG_LOG_DIRS", "/b"), ("CLUSTER_ID", "c")];
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
