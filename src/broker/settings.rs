//! The broker's settings: Kafka's keys that are honoured, with types, defaults and limits.

use crate::partition::Kind;

/// One setting of the broker.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Kafka's name.
    pub name: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// Kafka's default; empty where there is none.
    pub default: &'static str,
    /// The default in dev mode, if it differs.
    pub dev_default: Option<&'static str>,
    /// The smallest number.
    pub min: i64,
    /// One sentence.
    pub doc: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: &'static str, dev_default: Option<&'static str>, min: i64, doc: &'static str) -> Key {
    Key { name, kind, default, dev_default, min, doc }
}

/// All settings that are supported, by name.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("advertised.listeners", Kind::List, "", None, i64::MIN, "The addresses that clients connect to: NAME://host:port, separated by commas."),
    key("auto.create.topics.enable", Kind::Boolean, "true", None, i64::MIN, "Whether a Metadata request creates missing topics."),
    key("broker.rack", Kind::String, "", None, i64::MIN, "The rack of this broker."),
    key("compressed.batches.check", Kind::String, "frame", Some("full"), i64::MIN, "How closely a compressed batch is checked when it is produced: frame, the header of its codec's frame and what the topic requires; full, every record, as Kafka does. Not a setting of Kafka's."),
    key("compression.type", Kind::String, "producer", None, i64::MIN, "The compression of stored batches, for topics without this setting of their own."),
    key("connections.max.idle.ms", Kind::Long, "600000", None, i64::MIN, "Idle connections are closed after this time."),
    key("default.replication.factor", Kind::Int, "1", None, i64::MIN, "Replicas of a new topic, if the request does not specify them."),
    key("delete.topic.enable", Kind::Boolean, "true", None, i64::MIN, "Whether topics can be deleted."),
    key("durability.profile", Kind::String, "default", None, i64::MIN, "When a record is acknowledged: default, once it is in the page cache; fsync, once it is on the disk. Not a setting of Kafka's."),
    key("fetch.max.bytes", Kind::Int, "57671680", None, 1024, "The size limit of a Fetch response."),
    key("group.initial.rebalance.delay.ms", Kind::Int, "3000", Some("0"), i64::MIN, "How long an empty group waits for more members before its first rebalance."),
    key("group.max.session.timeout.ms", Kind::Int, "1800000", None, i64::MIN, "The longest session timeout that a member may request."),
    key("group.max.size", Kind::Int, "2147483647", None, 1, "The limit of members of a group."),
    key("group.min.session.timeout.ms", Kind::Int, "6000", None, i64::MIN, "The shortest session timeout that a member may request."),
    key("http.allowed.hosts", Kind::List, "", None, i64::MIN, "Host names by which HTTP requests may call the broker, besides IP addresses, names without a dot and advertised hosts; * allows any. Not a setting of Kafka's."),
    key("listener.security.protocol.map", Kind::String, "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT", None, i64::MIN, "The security protocol of each listener; only PLAINTEXT is supported yet."),
    key("listeners", Kind::List, "PLAINTEXT://127.0.0.1:9092", None, i64::MIN, "The addresses that the broker listens on: NAME://host:port, separated by commas."),
    key("log.cleaner.backoff.ms", Kind::Long, "15000", None, 0, "How long the log cleaner sleeps when no log needs compaction."),
    key("log.cleaner.dedupe.buffer.size", Kind::Long, "134217728", None, 1, "The memory limit for the keys of the log that is being compacted."),
    key("log.cleaner.enable", Kind::Boolean, "true", None, i64::MIN, "Whether logs are compacted."),
    key("log.cleaner.io.max.bytes.per.second", Kind::Double, "1.7976931348623157E308", None, i64::MIN, "The read rate limit of compaction, in bytes per second."),
    key("log.cleanup.policy", Kind::List, "delete", None, i64::MIN, "Whether old segments are deleted, compacted or both, for topics without this setting of their own."),
    key("log.dirs", Kind::List, "", None, i64::MIN, "The data directories, separated by commas."),
    key("log.flush.offset.checkpoint.interval.ms", Kind::Int, "60000", None, 0, "How often logs are flushed in the background and recovery points are written."),
    key("log.index.interval.bytes", Kind::Int, "4096", None, 0, "Bytes of log between two entries of an offset index."),
    key("log.index.size.max.bytes", Kind::Int, "10485760", None, 4, "The size limit of an index."),
    key("log.message.timestamp.after.max.ms", Kind::Long, "3600000", None, 0, "How far a record's timestamp may be ahead of the broker's clock."),
    key("log.message.timestamp.before.max.ms", Kind::Long, "9223372036854775807", None, 0, "How far a record's timestamp may be behind the broker's clock."),
    key("log.message.timestamp.type", Kind::String, "CreateTime", None, i64::MIN, "Whether timestamps are set by producers (CreateTime) or by the broker (LogAppendTime)."),
    key("log.retention.bytes", Kind::Long, "-1", None, i64::MIN, "The oldest segments of a partition are deleted when it is larger than this; -1 is no limit."),
    key("log.retention.check.interval.ms", Kind::Long, "300000", None, 1, "How often the broker looks for segments to delete."),
    key("log.retention.hours", Kind::Int, "168", None, i64::MIN, "Hours after which segments are deleted, if neither minutes nor milliseconds are set."),
    key("log.retention.minutes", Kind::Int, "", None, i64::MIN, "Minutes after which segments are deleted, if no milliseconds are set."),
    key("log.retention.ms", Kind::Long, "", None, i64::MIN, "Milliseconds after which segments are deleted."),
    key("log.roll.hours", Kind::Int, "168", None, 1, "Hours after which a new segment begins, if no milliseconds are set."),
    key("log.roll.ms", Kind::Long, "", None, i64::MIN, "Milliseconds after which a new segment begins."),
    key("log.segment.bytes", Kind::Int, "1073741824", None, 1048576, "Bytes after which a new segment begins."),
    key("max.connections", Kind::Int, "2147483647", None, 0, "The limit of open connections."),
    key("max.incremental.fetch.session.cache.slots", Kind::Int, "1000", None, 0, "The limit of incremental fetch sessions."),
    key("message.max.bytes", Kind::Int, "1048588", None, 0, "The size limit of a record batch, after compression."),
    key("min.insync.replicas", Kind::Int, "1", None, 1, "In-sync replicas that a write with acks=all requires."),
    key("node.id", Kind::Int, "1", None, 0, "The id of this node."),
    key("num.partitions", Kind::Int, "1", None, 1, "Partitions of a new topic, if the request does not specify them."),
    key("offset.metadata.max.bytes", Kind::Int, "4096", None, i64::MIN, "The size limit of the metadata of a committed offset."),
    key("offsets.retention.check.interval.ms", Kind::Long, "600000", None, 1, "How often the broker looks for expired offsets."),
    key("offsets.retention.minutes", Kind::Int, "10080", None, 1, "How long the offsets of an empty group are kept."),
    key("offsets.topic.num.partitions", Kind::Int, "50", None, 1, "Partitions of the topic __consumer_offsets."),
    key("offsets.topic.replication.factor", Kind::Short, "3", None, 1, "Replicas of the topic __consumer_offsets, at most the number of brokers."),
    key("process.roles", Kind::List, "broker,controller", None, i64::MIN, "The roles of this node; always both."),
    key("producer.id.expiration.ms", Kind::Int, "86400000", None, 1, "How long an idle producer is remembered."),
    key("queued.max.request.bytes", Kind::Long, "268435456", None, i64::MIN, "The memory limit for requests of all connections."),
    key("socket.request.max.bytes", Kind::Int, "104857600", None, 1, "The size limit of a request."),
    key("transaction.abort.timed.out.transaction.cleanup.interval.ms", Kind::Int, "10000", Some("1000"), 1, "How often the broker looks for transactions that have timed out."),
    key("transaction.max.timeout.ms", Kind::Int, "900000", None, 1, "The longest transaction timeout that a producer may request."),
    key("transaction.partition.verification.enable", Kind::Boolean, "true", None, i64::MIN, "Whether a partition verifies with the coordinator that a transaction includes it."),
    key("transaction.remove.expired.transaction.cleanup.interval.ms", Kind::Int, "3600000", None, 1, "How often the broker looks for unused transactional ids."),
    key("transaction.state.log.num.partitions", Kind::Int, "50", None, 1, "Partitions of the topic __transaction_state."),
    key("transactional.id.expiration.ms", Kind::Int, "604800000", None, 1, "How long an unused transactional id is remembered."),
];

impl Key {
    /// The key with this name, if it is known.
    pub fn named(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Validates a value; the error is a message for people.
    pub(super) fn check(&self, value: &str) -> Result<(), String> {
        let number = match self.kind {
            Kind::String if self.name == "durability.profile" && !matches!(value, "default" | "fsync") => {
                return Err("must be default or fsync".into());
            }
            Kind::String if self.name == "compressed.batches.check" && !matches!(value, "frame" | "full") => {
                return Err("must be frame or full".into());
            }
            Kind::Boolean if !matches!(value, "true" | "false") => return Err("must be true or false".into()),
            Kind::Int => value.parse::<i32>().map(i64::from).map_err(|_| "must be a whole number (32 bits)")?,
            Kind::Short => value.parse::<i16>().map(i64::from).map_err(|_| "must be a whole number (16 bits)")?,
            Kind::Double if value.parse::<f64>().is_ok_and(|number| number > 0.0) => return Ok(()),
            Kind::Double => return Err("must be a number greater than 0".into()),
            Kind::Long => value.parse::<i64>().map_err(|_| "must be a whole number (64 bits)")?,
            _ => return Ok(()),
        };
        if number < self.min { Err(format!("must be at least {}", self.min)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::dynamic::READ_AT_EACH_USE;
    use crate::partition::{Update, kafka_settings, setting_behind};

    #[test]
    fn defaults_pass_their_own_check_and_names_are_sorted() {
        for key in KEYS {
            for default in [Some(key.default), key.dev_default].into_iter().flatten().filter(|d| !d.is_empty()) {
                assert_eq!(key.check(default), Ok(()), "{}", key.name);
            }
        }
        assert!(KEYS.is_sorted_by_key(|key| key.name));
    }

    #[test]
    fn settings_that_kafka_changes_while_it_runs_are_read_at_each_use() {
        let all = kafka_settings().iter().filter(|known| known.update == Update::ClusterWide).map(|known| known.setting.name);
        let followed: Vec<&str> = all.filter(|name| Key::named(name).is_some() && setting_behind(name).is_none()).collect();
        assert_eq!(followed, READ_AT_EACH_USE);
    }

    #[test]
    fn bad_values_are_refused() {
        for (name, value) in
            [("num.partitions", "0"), ("num.partitions", "x"), ("num.partitions", "3000000000"), ("auto.create.topics.enable", "yes")]
        {
            assert!(Key::named(name).unwrap().check(value).is_err(), "{name}={value}");
        }
    }
}
