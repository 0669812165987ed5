//! How a setting of a given name is handled.

use std::fmt;

use super::settings::Key;
use crate::partition::{kafka_settings, setting_behind};

/// The prefix of the settings of one listener in Kafka.
const OF_A_LISTENER: &str = "listener.name.";
/// Keys that every Kafka configuration has and that have no effect on a single node. They are not in Kafka's list of broker settings, or
/// are so common that a warning would be noise.
const IN_SILENCE: &[&str] = &[
    "broker.id",
    "cluster.id",
    "controller.listener.names",
    "controller.quorum.bootstrap.servers",
    "controller.quorum.voters",
    "inter.broker.listener.name",
    "log.dir",
    "share.coordinator.state.topic.min.isr",
    "share.coordinator.state.topic.replication.factor",
    "transaction.state.log.min.isr",
    "transaction.state.log.replication.factor",
];
/// Settings that Kafka does not have.
const OURS: &[&str] = &["compressed.batches.check", "durability.profile", "http.allowed.hosts"];
/// The minimum similarity of two names that count as similar.
const LIKENESS_MIN: f64 = 0.85;

/// How a setting is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The broker uses it.
    Honoured,
    /// It has no effect on a single node, and no warning is logged.
    Meaningless,
    /// A setting of Kafka that has no effect here yet.
    Ignored,
    /// An unknown setting, with the most similar known name, if there is one.
    Unknown(Option<&'static str>),
}

impl Standing {
    /// How the setting with this name is handled.
    pub fn of(name: &str) -> Standing {
        if IN_SILENCE.contains(&name) {
            return Standing::Meaningless;
        }
        match setting_behind(name) {
            Some(setting) if !setting.is_honoured() => Standing::Ignored,
            Some(_) => Standing::Honoured,
            None if Key::named(name).is_some() => Standing::Honoured,
            None if kafkas().any(|known| known == name) || name.starts_with(OF_A_LISTENER) => Standing::Ignored,
            None => Standing::Unknown(nearest(name)),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Honoured => f.write_str("honoured"),
            Standing::Meaningless => f.write_str("accepted; has no effect on one node"),
            Standing::Ignored => f.write_str("known to Kafka, ignored by dlog"),
            Standing::Unknown(None) => f.write_str("unknown"),
            Standing::Unknown(Some(nearest)) => write!(f, "unknown; is {nearest} meant?"),
        }
    }
}

fn kafkas() -> impl Iterator<Item = &'static str> {
    kafka_settings().iter().map(|known| known.setting.name)
}

fn nearest(name: &str) -> Option<&'static str> {
    let likeness = |known: &'static str| (strsim::jaro_winkler(known, name), known);
    let best = kafkas().chain(IN_SILENCE.iter().chain(OURS).copied()).map(likeness).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= LIKENESS_MIN).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::KEYS;

    #[test]
    fn each_name_has_its_standing() {
        let cases = [
            ("num.partitions", Standing::Honoured),
            ("log.retention.ms", Standing::Honoured),
            ("log.cleaner.threads", Standing::Ignored),
            ("log.preallocate", Standing::Ignored),
            ("listener.name.a.ssl.keystore.location", Standing::Ignored),
            ("controller.quorum.voters", Standing::Meaningless),
            ("num.partition", Standing::Unknown(Some("num.partitions"))),
            ("auto.create.topic.enable", Standing::Unknown(Some("auto.create.topics.enable"))),
            ("durability.profil", Standing::Unknown(Some("durability.profile"))),
            ("zzz", Standing::Unknown(None)),
        ];
        for (name, expected) in cases {
            assert_eq!(Standing::of(name), expected, "{name}");
        }
    }

    #[test]
    fn our_keys_are_kafkas_but_for_a_few() {
        for key in KEYS {
            assert_ne!(kafkas().any(|known| known == key.name), OURS.contains(&key.name), "{}", key.name);
        }
    }
}
