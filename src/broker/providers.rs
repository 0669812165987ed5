//! Sources of settings for figment.
//!
//! Kafka's keys are flat and dotted, and some are prefixes of others (`log.retention.ms` beside a topic's `retention.ms`, `broker.id` beside
//! `broker.id.generation.enable`): a tree of tables cannot hold them. So each source is one flat table whose keys keep their dots.

use std::collections::BTreeMap;

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::Error;

/// One source, with a name for messages.
#[derive(Debug, Clone)]
pub(super) struct Flat {
    source: String,
    values: BTreeMap<String, String>,
}

/// Variables of the images that are no settings.
const NOT_SETTINGS: &[&str] =
    &["KAFKA_VERSION", "KAFKA_HEAP_OPTS", "KAFKA_OPTS", "KAFKA_JVM_PERFORMANCE_OPTS", "KAFKA_GC_LOG_OPTS", "KAFKA_CREATE_TOPICS"];
const NOT_SETTINGS_PREFIXES: &[&str] = &["KAFKA_JMX_", "KAFKA_LOG4J_", "KAFKA_CFG_"];

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

    /// `KAFKA_*` variables by the images' mapping: `_` is a dot, `__` an underscore, `___` a dash.
    pub(super) fn environment(variables: impl Iterator<Item = (String, String)>) -> Flat {
        let setting = |(name, value): (String, String)| {
            let excluded = NOT_SETTINGS.contains(&name.as_str()) || NOT_SETTINGS_PREFIXES.iter().any(|p| name.starts_with(p));
            let rest = name.strip_prefix("KAFKA_").filter(|rest| !rest.is_empty() && !excluded)?;
            Some((rest.to_lowercase().replace("___", "-").replace("__", "\0").replace('_', ".").replace('\0', "_"), value))
        };
        Flat::new("the environment", variables.filter_map(setting).collect())
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
    }
}
