//! The broker settings of Apache Kafka, with type, default and update mode: for settings that have no effect here, and for DescribeConfigs.

use std::sync::LazyLock;

use super::settings::{Kind, Rule, Setting, setting_behind};

/// One line per setting; the first line names the columns.
const TABLE: &str = include_str!("kafka_settings.tsv");
const DOC: &str = "A setting of Apache Kafka that has no effect on this broker.";

/// Whether Kafka can change a setting while the broker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// Only by a restart.
    ReadOnly,
    /// For one broker.
    PerBroker,
    /// For one broker or for all.
    ClusterWide,
}

/// A broker setting of Apache Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaSetting {
    /// Name, type and rule. Its `default` is empty if Kafka has none.
    pub setting: Setting,
    /// Kafka's default; none if it is null.
    pub default: Option<&'static str>,
    /// How it can be changed in Kafka.
    pub update: Update,
}

/// All of them, in the order of their names.
pub fn kafka_settings() -> &'static [KafkaSetting] {
    static ALL: LazyLock<Vec<KafkaSetting>> = LazyLock::new(|| TABLE.lines().skip(1).filter_map(parsed).collect());
    &ALL
}

/// The rules of a broker setting that can change while this broker runs: the settings that are defaults for topics, and those that Kafka changes for
/// a whole cluster.
pub fn dynamic_setting(name: &str) -> Option<&'static Setting> {
    let of_kafka = || kafka_settings().iter().find(|known| known.setting.name == name && known.update == Update::ClusterWide);
    setting_behind(name).or_else(|| of_kafka().map(|known| &known.setting))
}

fn parsed(line: &'static str) -> Option<KafkaSetting> {
    let mut columns = line.split('\t');
    let (name, update, kind, default, valid) = (columns.next()?, columns.next()?, columns.next()?, columns.next()?, columns.next()?);
    let update = match update {
        "cluster-wide" => Update::ClusterWide,
        "per-broker" => Update::PerBroker,
        _ => Update::ReadOnly,
    };
    let kind = match kind {
        "BOOLEAN" => Kind::Boolean,
        "INT" => Kind::Int,
        "SHORT" => Kind::Short,
        "LONG" => Kind::Long,
        "DOUBLE" => Kind::Double,
        "LIST" => Kind::List,
        "CLASS" => Kind::Class,
        "PASSWORD" => Kind::Password,
        _ => Kind::String,
    };
    let default = match default {
        "null" | "(required)" => None,
        "\"\"" => Some(""),
        text => Some(text),
    };
    let setting = Setting { name, kind, default: default.unwrap_or(""), rule: rule(valid, kind), broker_synonym: "", doc: DOC };
    Some(KafkaSetting { setting, default, update })
}

/// Parses `[1,...]`, `[1,...,9]` or words in brackets; other text means any value.
fn rule(valid: &'static str, kind: Kind) -> Rule {
    let Some(inside) = valid.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else { return Rule::Any };
    match inside.split_once(",...") {
        Some((min, max)) => {
            let max = max.strip_prefix(',').and_then(|max| max.parse().ok()).unwrap_or(i64::MAX);
            min.parse().map_or(Rule::Any, |min| Rule::Range(min, max))
        }
        None if matches!(kind, Kind::String | Kind::List) => Rule::Words(inside.split(", ").collect::<Vec<_>>().leak()),
        None => Rule::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whole_and_sorted() {
        let all = kafka_settings();
        assert_eq!(all.len(), TABLE.lines().count() - 1);
        assert!(all.is_sorted_by_key(|known| known.setting.name));
        let named = |name: &str| all.iter().find(|known| known.setting.name == name).unwrap();
        let threads = named("log.cleaner.threads");
        assert_eq!((threads.setting.kind, threads.default, threads.update), (Kind::Int, Some("1"), Update::ClusterWide));
        assert_eq!(threads.setting.rule, Rule::Range(0, i64::MAX));
        let password = named("ssl.keystore.password");
        assert_eq!((password.setting.kind, password.default, password.update), (Kind::Password, None, Update::PerBroker));
        for known in all.iter().filter(|known| known.default.is_some_and(|text| !text.is_empty())) {
            assert_eq!(known.setting.check(known.default.unwrap()), Ok(()), "{}", known.setting.name);
        }
    }

    #[test]
    fn settings_that_kafka_changes_for_a_cluster_are_dynamic() {
        assert!(dynamic_setting("log.cleaner.threads").is_some());
        assert!(dynamic_setting("log.retention.ms").is_some());
        assert!(dynamic_setting("max.connections").is_some());
        for name in ["num.partitions", "ssl.keystore.password", "no.such.setting"] {
            assert!(dynamic_setting(name).is_none(), "{name}");
        }
    }
}
