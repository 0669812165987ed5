//! Topic settings: Kafka's names, types, defaults and rules, and their typed form.

use std::collections::BTreeMap;

use crate::records::{Codec, KeyRule, Look, Rules, TimestampType};
use crate::storage::{Compaction, LogConfig, Policy};

/// The type of a setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    List,
    Class,
    Password,
}

/// The rule for a setting's values, besides its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Any,
    Range(i64, i64),
    /// 1 to 9, or -1 for the codec's default.
    GzipLevel,
    Words(&'static [&'static str]),
    /// `*`, or pairs of a partition and a broker: `0:1,2:1`.
    ThrottledReplicas,
    /// False, because there is no tiered storage.
    NoRemoteStorage,
}

/// One setting of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Kafka's name.
    pub name: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// Kafka's default, as text.
    pub default: &'static str,
    pub(super) rule: Rule,
    /// The broker's setting that gives the default; empty where there is none.
    pub broker_synonym: &'static str,
    /// Its description, one sentence.
    pub doc: &'static str,
}

const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    rule: Rule,
    broker_synonym: &'static str,
    doc: &'static str,
) -> Setting {
    Setting { name, kind, default, rule, broker_synonym, doc }
}

/// All settings of a topic, by name (Kafka 4.4).
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    setting("cleanup.policy", Kind::List, "delete", Rule::Words(&["compact", "delete"]), "log.cleanup.policy", "What happens to old segments: delete, compact or both."),
    setting("compression.gzip.level", Kind::Int, "-1", Rule::GzipLevel, "compression.gzip.level", "The level of gzip, where the broker compresses."),
    setting("compression.lz4.level", Kind::Int, "9", Rule::Range(1, 17), "compression.lz4.level", "The level of lz4, where the broker compresses."),
    setting("compression.type", Kind::String, "producer", Rule::Words(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), "compression.type", "The codec of stored batches; producer keeps what the producer chose."),
    setting("compression.zstd.level", Kind::Int, "3", Rule::Range(-131072, 22), "compression.zstd.level", "The level of zstd, where the broker compresses."),
    setting("delete.retention.ms", Kind::Long, "86400000", Rule::Range(0, i64::MAX), "log.cleaner.delete.retention.ms", "How long tombstones stay in a compacted topic."),
    setting("errors.deadletterqueue.group.enable", Kind::Boolean, "false", Rule::Any, "", "Whether share groups may use the topic as a dead letter queue."),
    setting("file.delete.delay.ms", Kind::Long, "60000", Rule::Range(0, i64::MAX), "log.segment.delete.delay.ms", "How long a deleted file stays on disk."),
    setting("flush.messages", Kind::Long, "9223372036854775807", Rule::Range(1, i64::MAX), "log.flush.interval.messages", "Records after which the log is made durable."),
    setting("flush.ms", Kind::Long, "9223372036854775807", Rule::Range(0, i64::MAX), "log.flush.interval.ms", "Milliseconds after which the log is made durable."),
    setting("follower.replication.throttled.replicas", Kind::List, "", Rule::ThrottledReplicas, "", "Replicas whose following is throttled."),
    setting("index.interval.bytes", Kind::Int, "4096", Rule::Range(0, i64::MAX), "log.index.interval.bytes", "Bytes between two entries of the offset index."),
    setting("leader.replication.throttled.replicas", Kind::List, "", Rule::ThrottledReplicas, "", "Replicas whose leading is throttled."),
    setting("local.retention.bytes", Kind::Long, "-2", Rule::Range(-2, i64::MAX), "log.local.retention.bytes", "Bytes that stay local with tiered storage."),
    setting("local.retention.ms", Kind::Long, "-2", Rule::Range(-2, i64::MAX), "log.local.retention.ms", "Milliseconds that data stays local with tiered storage."),
    setting("max.compaction.lag.ms", Kind::Long, "9223372036854775807", Rule::Range(1, i64::MAX), "log.cleaner.max.compaction.lag.ms", "The longest time that a record may stay uncompacted."),
    setting("max.decompressed.message.bytes", Kind::Int, "2147483639", Rule::Range(1, 2147483639), "max.decompressed.message.bytes", "The most bytes that a batch may decompress to."),
    setting("max.message.bytes", Kind::Int, "1048588", Rule::Range(0, i64::MAX), "message.max.bytes", "The largest batch, as it is sent."),
    setting("message.timestamp.after.max.ms", Kind::Long, "3600000", Rule::Range(0, i64::MAX), "log.message.timestamp.after.max.ms", "How far a timestamp may be ahead of the broker's clock."),
    setting("message.timestamp.before.max.ms", Kind::Long, "9223372036854775807", Rule::Range(0, i64::MAX), "log.message.timestamp.before.max.ms", "How far a timestamp may be behind the broker's clock."),
    setting("message.timestamp.type", Kind::String, "CreateTime", Rule::Words(&["CreateTime", "LogAppendTime"]), "log.message.timestamp.type", "Who sets timestamps: CreateTime or LogAppendTime."),
    setting("min.cleanable.dirty.ratio", Kind::Double, "0.5", Rule::Range(0, 1), "log.cleaner.min.cleanable.ratio", "The part of a log that must be dirty before it is compacted."),
    setting("min.compaction.lag.ms", Kind::Long, "0", Rule::Range(0, i64::MAX), "log.cleaner.min.compaction.lag.ms", "The shortest time that a record stays uncompacted."),
    setting("min.insync.replicas", Kind::Int, "1", Rule::Range(1, i64::MAX), "min.insync.replicas", "Replicas that must be in sync for a write with acks=all."),
    setting("preallocate", Kind::Boolean, "false", Rule::Any, "log.preallocate", "Whether segment files are made at full size."),
    setting("remote.copy.lag.bytes", Kind::Long, "-1", Rule::Range(-1, i64::MAX), "log.remote.copy.lag.bytes", "Bytes that may wait for their copy to tiered storage."),
    setting("remote.copy.lag.ms", Kind::Long, "0", Rule::Range(-1, i64::MAX), "log.remote.copy.lag.ms", "Milliseconds that data may wait for its copy to tiered storage."),
    setting("remote.log.copy.disable", Kind::Boolean, "false", Rule::Any, "", "Whether copying to tiered storage is off."),
    setting("remote.log.delete.on.disable", Kind::Boolean, "false", Rule::Any, "", "Whether tiered data goes when tiered storage is turned off."),
    setting("remote.storage.enable", Kind::Boolean, "false", Rule::NoRemoteStorage, "", "Whether tiered storage is on."),
    setting("retention.bytes", Kind::Long, "-1", Rule::Any, "log.retention.bytes", "Bytes above which the oldest segments of a partition go; -1 is no limit."),
    setting("retention.ms", Kind::Long, "604800000", Rule::Range(-1, i64::MAX), "log.retention.ms", "Milliseconds after which segments go; -1 is never."),
    setting("segment.bytes", Kind::Int, "1073741824", Rule::Range(1048576, i64::MAX), "log.segment.bytes", "Bytes after which a new segment begins."),
    setting("segment.index.bytes", Kind::Int, "10485760", Rule::Range(4, i64::MAX), "log.index.size.max.bytes", "The most bytes of an index."),
    setting("segment.jitter.ms", Kind::Long, "0", Rule::Range(0, i64::MAX), "log.roll.jitter.ms", "The most milliseconds by which segment.ms is shortened at random."),
    setting("segment.ms", Kind::Long, "604800000", Rule::Range(1, i64::MAX), "log.roll.ms", "Milliseconds after which a new segment begins."),
    setting("unclean.leader.election.enable", Kind::Boolean, "false", Rule::Any, "unclean.leader.election.enable", "Whether a replica that is not in sync may lead."),
];

/// The setting with a name.
pub fn setting_named(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}

/// The topic setting whose default is a given setting of the broker.
pub fn setting_behind(broker_setting: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.broker_synonym == broker_setting && !broker_setting.is_empty())
}

/// A setting that is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No such setting.
    #[error("Unknown topic config name: {0}")]
    Unknown(String),
    /// A value of the wrong type or out of range.
    #[error("Invalid value {value} for configuration {name}: {what}")]
    Value {
        /// The setting.
        name: String,
        /// The received value.
        value: String,
        /// The expected value.
        what: String,
    },
}

/// Settings that are stored and returned, and that have no effect yet.
const WITHOUT_EFFECT: &[&str] = &[
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.zstd.level",
    "errors.deadletterqueue.group.enable",
    "file.delete.delay.ms",
    "follower.replication.throttled.replicas",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "preallocate",
    "remote.copy.lag.bytes",
    "remote.copy.lag.ms",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
    "unclean.leader.election.enable",
];

impl Setting {
    /// Whether it has an effect.
    pub fn is_honoured(&self) -> bool {
        !WITHOUT_EFFECT.contains(&self.name)
    }

    /// Checks a value.
    pub fn check(&self, value: &str) -> Result<(), SettingError> {
        let refuse =
            |what: &str| Err(SettingError::Value { name: self.name.to_string(), value: value.to_string(), what: what.to_string() });
        let number = match self.kind {
            Kind::Boolean if !matches!(value.trim().to_ascii_lowercase().as_str(), "true" | "false") => {
                return refuse("Expected value to be either true or false");
            }
            Kind::Int if value.trim().parse::<i32>().is_err() => return refuse("Not a number of type INT"),
            Kind::Short if value.trim().parse::<i16>().is_err() => return refuse("Not a number of type SHORT"),
            Kind::Long if value.trim().parse::<i64>().is_err() => return refuse("Not a number of type LONG"),
            Kind::Double if value.trim().parse::<f64>().is_err() => return refuse("Not a number of type DOUBLE"),
            Kind::Int | Kind::Short | Kind::Long | Kind::Double => value.trim().parse::<f64>().unwrap_or(f64::NAN),
            _ => 0.0,
        };
        match self.rule {
            Rule::Range(min, _) if number < min as f64 => refuse(&format!("Value must be at least {min}")),
            Rule::Range(_, max) if number > max as f64 => refuse(&format!("Value must be no more than {max}")),
            Rule::GzipLevel if number != -1.0 && !(1.0..=9.0).contains(&number) => refuse("Value must be between 1 and 9 or equal to -1"),
            Rule::Words(words) if self.kind == Kind::List => match list(value).find(|word| !words.contains(word)) {
                Some(_) => refuse(&format!("String must be one of: {}", words.join(", "))),
                None => Ok(()),
            },
            Rule::ThrottledReplicas if !is_throttled_replicas(value) => {
                refuse("Must be the literal '*' or a list of replicas in the format [partitionId]:[brokerId],[partitionId]:[brokerId],...")
            }
            Rule::NoRemoteStorage if value.trim().eq_ignore_ascii_case("true") => {
                refuse("Tiered Storage functionality is disabled in the broker.")
            }
            Rule::Words(words) if !words.contains(&value) => refuse(&format!("String must be one of: {}", words.join(", "))),
            _ => Ok(()),
        }
    }
}

/// `*`, or partitions with brokers, in the format of Kafka's pattern; an empty list throttles nothing.
fn is_throttled_replicas(value: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_pair = |word: &str| word.split_once(':').is_some_and(|(partition, broker)| is_number(partition) && is_number(broker));
    value.trim() == "*" || list(value).all(is_pair)
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// `cleanup.policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Old segments are deleted.
    pub delete: bool,
    /// Only the last record of each key is guaranteed to be kept.
    pub compact: bool,
}

/// The settings of one topic in the form in which its partitions use them.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicSettings {
    /// For the log.
    pub log: LogConfig,
    /// `cleanup.policy`.
    pub cleanup: CleanupPolicy,
    codec: Option<Codec>,
    message_bytes_max: usize,
    timestamp_type: TimestampType,
    before_max_ms: i64,
    after_max_ms: i64,
    look: Look,
}

/// The broker setting that decides how closely batches of all topics are checked: `frame` or `full`. Topics have no value of their own.
pub const COMPRESSED_BATCHES_CHECK: &str = "compressed.batches.check";

impl TopicSettings {
    /// Settings from a topic's own values, the broker's, and Kafka's defaults, in this order. Values must have been checked; an invalid value is
    /// replaced by the default.
    pub fn of(own: &BTreeMap<String, String>, broker: &BTreeMap<String, String>) -> TopicSettings {
        let text = |name: &str| -> &str {
            let default = setting_named(name).map_or("", |s| s.default);
            own.get(name).or_else(|| broker.get(name)).map_or(default, String::as_str)
        };
        let long = |name: &str| -> i64 {
            let default = setting_named(name).map_or("", |s| s.default);
            text(name).trim().parse().or_else(|_| default.parse()).unwrap_or(i64::MAX)
        };
        let policies: Vec<&str> = list(text("cleanup.policy")).collect();
        let cleanup = CleanupPolicy { delete: policies.contains(&"delete"), compact: policies.contains(&"compact") };
        let positive = |value: i64| (value >= 0).then_some(value);
        let policy =
            Policy { retention_ms: positive(long("retention.ms")), retention_bytes: positive(long("retention.bytes")).map(|b| b as u64) };
        TopicSettings {
            log: LogConfig {
                segment_bytes: long("segment.bytes") as u64,
                // A record must not stay in the active segment for longer than it may stay uncompacted.
                segment_jitter_ms: long("segment.jitter.ms"),
                segment_ms: if cleanup.compact { long("segment.ms").min(long("max.compaction.lag.ms")) } else { long("segment.ms") },
                index_bytes_max: long("segment.index.bytes") as u64,
                index_interval_bytes: long("index.interval.bytes") as u64,
                retention: cleanup.delete.then_some(policy),
                flush_messages: long("flush.messages"),
                flush_ms: long("flush.ms"),
                compaction: cleanup.compact.then(|| Compaction {
                    dirty_ratio: text("min.cleanable.dirty.ratio").trim().parse().unwrap_or(0.5),
                    min_lag_ms: long("min.compaction.lag.ms"),
                    max_lag_ms: long("max.compaction.lag.ms"),
                    delete_retention_ms: long("delete.retention.ms"),
                }),
                decompressed_bytes_max: long("max.decompressed.message.bytes") as usize,
            },
            cleanup,
            codec: match text("compression.type") {
                "uncompressed" => Some(Codec::None),
                "gzip" => Some(Codec::Gzip),
                "snappy" => Some(Codec::Snappy),
                "lz4" => Some(Codec::Lz4),
                "zstd" => Some(Codec::Zstd),
                _ => None,
            },
            message_bytes_max: long("max.message.bytes") as usize,
            timestamp_type: if text("message.timestamp.type") == "LogAppendTime" {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            },
            before_max_ms: long("message.timestamp.before.max.ms"),
            after_max_ms: long("message.timestamp.after.max.ms"),
            look: if broker.get(COMPRESSED_BATCHES_CHECK).is_some_and(|check| check == "full") { Look::Full } else { Look::Trusting },
        }
    }

    /// The rules for a batch that arrives now.
    pub fn rules(&self, now_ms: i64) -> Rules {
        Rules {
            now_ms,
            timestamp_type: self.timestamp_type,
            before_max_ms: self.before_max_ms,
            after_max_ms: self.after_max_ms,
            message_bytes_max: self.message_bytes_max,
            codec: self.codec,
            keys: if self.cleanup.compact { KeyRule::Required } else { KeyRule::Optional },
            look: self.look,
            decompressed_bytes_max: self.log.decompressed_bytes_max,
        }
    }

    /// Who sets the timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        self.timestamp_type
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_passes_its_own_check() {
        for setting in SETTINGS {
            assert_eq!(setting.check(setting.default), Ok(()), "{}", setting.name);
        }
        assert!(SETTINGS.is_sorted_by_key(|s| s.name));
        assert!(WITHOUT_EFFECT.iter().all(|name| setting_named(name).is_some()));
    }

    #[test]
    fn bad_values_are_refused_in_kafkas_words() {
        let cases = [
            ("retention.ms", "x", "Not a number of type LONG"),
            ("retention.ms", "-2", "Value must be at least -1"),
            ("segment.bytes", "1", "Value must be at least 1048576"),
            ("segment.bytes", "3000000000", "Not a number of type INT"),
            ("cleanup.policy", "delete,nothing", "String must be one of: compact, delete"),
            ("compression.type", "zip", "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer"),
            ("preallocate", "yes", "Expected value to be either true or false"),
            (
                "leader.replication.throttled.replicas",
                "x",
                "Must be the literal '*' or a list of replicas in the format [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            ),
            ("remote.storage.enable", "TRUE", "Tiered Storage functionality is disabled in the broker."),
            ("min.cleanable.dirty.ratio", "1.5", "Value must be no more than 1"),
            ("compression.gzip.level", "0", "Value must be between 1 and 9 or equal to -1"),
            ("compression.lz4.level", "18", "Value must be no more than 17"),
        ];
        for (name, value, what) in cases {
            let error = setting_named(name).unwrap().check(value).unwrap_err();
            assert_eq!(error.to_string(), format!("Invalid value {value} for configuration {name}: {what}"));
        }
    }

    #[test]
    fn a_topics_own_value_wins_over_the_brokers() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>();
        let settings = TopicSettings::of(&map(&[("retention.ms", "5")]), &map(&[("retention.ms", "9"), ("retention.bytes", "7")]));
        assert_eq!(settings.log.retention, Some(Policy { retention_ms: Some(5), retention_bytes: Some(7) }));
        let compacted = TopicSettings::of(&map(&[("cleanup.policy", "compact")]), &map(&[]));
        assert_eq!((compacted.log.retention, compacted.cleanup.compact), (None, true));
    }
}
