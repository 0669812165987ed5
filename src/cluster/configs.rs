//! Changes of settings: computes a resource's new settings from its current ones and the requested change. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Error;
use super::image::{BROKER_RESOURCE, TOPIC_RESOURCE};
use crate::partition::{Kind, Setting, SettingError, dynamic_setting, setting_named};

/// The longest value, as in Kafka.
const VALUE_CHARACTERS_MAX: usize = 32_767;

/// A resource that has its own settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A topic by name.
    Topic(String),
    /// A broker by id; none means all brokers.
    Broker(Option<i32>),
}

impl Resource {
    pub(super) fn record_type(&self) -> i8 {
        match self {
            Resource::Topic(_) => TOPIC_RESOURCE,
            Resource::Broker(_) => BROKER_RESOURCE,
        }
    }

    pub(super) fn record_name(&self) -> String {
        match self {
            Resource::Topic(name) => name.clone(),
            Resource::Broker(id) => id.map(|id| id.to_string()).unwrap_or_default(),
        }
    }

    /// The definition of one of its settings; see [`dynamic_setting`] for those of a broker.
    fn setting(&self, name: &str) -> Result<&'static Setting, Error> {
        match self {
            Resource::Topic(_) => setting_named(name).ok_or_else(|| SettingError::Unknown(name.to_string()).into()),
            Resource::Broker(_) => dynamic_setting(name).ok_or_else(|| not_dynamic(&[name])),
        }
    }

    /// Rejects settings of a broker that cannot change while it runs; the error names all of them.
    fn refuse_static<'a>(&self, names: impl Iterator<Item = &'a String>) -> Result<(), Error> {
        let wrong: Vec<&str> = names.map(String::as_str).filter(|name| dynamic_setting(name).is_none()).collect();
        if matches!(self, Resource::Topic(_)) || wrong.is_empty() { Ok(()) } else { Err(not_dynamic(&wrong)) }
    }
}

fn not_dynamic(names: &[&str]) -> Error {
    Error::InvalidRequest(format!("Cannot update these configs dynamically: [{}]", names.join(", ")))
}

/// The operation on one setting (KIP-339).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Sets the value.
    Set,
    /// Resets the setting to its default.
    Delete,
    /// Adds words to the list.
    Append,
    /// Removes words from the list.
    Subtract,
}

/// How settings change.
#[derive(Debug, Clone)]
pub enum Alteration {
    /// Replaces all of the resource's own settings; those that are not listed return to their defaults (AlterConfigs).
    Replace(Vec<(String, Option<String>)>),
    /// Changes the listed settings only (IncrementalAlterConfigs).
    Change(Vec<(String, Operation, Option<String>)>),
}

/// A resource's own settings after the change. `effective` returns the effective value of a list that has no value of its own.
pub(super) fn altered(
    resource: &Resource,
    own: &BTreeMap<String, String>,
    alteration: &Alteration,
    effective: impl Fn(&'static Setting) -> String,
) -> Result<BTreeMap<String, String>, Error> {
    let next = match alteration {
        Alteration::Replace(all) => {
            refuse_doubles(all.iter().map(|(name, _)| name))?;
            let own = |(name, value): &(String, Option<String>)| Ok((name.clone(), not_null(name, value)?.to_string()));
            all.iter().map(own).collect::<Result<_, Error>>()?
        }
        Alteration::Change(changes) => {
            refuse_doubles(changes.iter().map(|(name, ..)| name))?;
            let mut next = own.clone();
            for (name, operation, value) in changes {
                change(resource, &mut next, name, *operation, value, &effective)?;
            }
            next
        }
    };
    resource.refuse_static(next.keys())?;
    for (name, value) in &next {
        let setting = resource.setting(name)?;
        if value.chars().count() > VALUE_CHARACTERS_MAX {
            let what = format!("must be at most {VALUE_CHARACTERS_MAX} characters");
            return Err(SettingError::Value { name: name.clone(), value: value.chars().take(50).collect(), what }.into());
        }
        setting.check(value).map_err(|error| match resource {
            Resource::Topic(_) => error.into(),
            // For a broker's setting Kafka returns INVALID_REQUEST.
            Resource::Broker(_) => Error::InvalidRequest(error.to_string()),
        })?;
    }
    Ok(next)
}

fn refuse_doubles<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    let doubles: Vec<&str> = names.filter(|name| !seen.insert(*name)).map(String::as_str).collect();
    if doubles.is_empty() {
        Ok(())
    } else {
        Err(Error::InvalidRequest(format!("Error due to duplicate config keys: {}", doubles.join(", "))))
    }
}

fn not_null<'a>(name: &str, value: &'a Option<String>) -> Result<&'a str, Error> {
    value.as_deref().ok_or_else(|| Error::InvalidRequest(format!("Null value not supported for : {name}")))
}

fn change(
    resource: &Resource,
    next: &mut BTreeMap<String, String>,
    name: &str,
    operation: Operation,
    value: &Option<String>,
    effective: &impl Fn(&'static Setting) -> String,
) -> Result<(), Error> {
    let words = |text: &str| text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_string).collect::<Vec<_>>();
    match operation {
        Operation::Delete => drop(next.remove(name)),
        Operation::Set => drop(next.insert(name.to_string(), not_null(name, value)?.to_string())),
        Operation::Append | Operation::Subtract => {
            let named = words(not_null(name, value)?);
            let setting = resource.setting(name)?;
            if setting.kind != Kind::List {
                let (verb, name) = (if operation == Operation::Append { "append to" } else { "subtract from" }, name.to_string());
                let what = format!("cannot {verb} it because its type is not LIST");
                return Err(SettingError::Value { name, value: value.clone().unwrap_or_default(), what }.into());
            }
            let mut list = words(next.get(name).unwrap_or(&effective(setting)));
            if operation == Operation::Append {
                named.into_iter().for_each(|word| {
                    if !list.contains(&word) {
                        list.push(word)
                    }
                });
            } else {
                list.retain(|word| !named.contains(word));
            }
            next.insert(name.to_string(), list.join(","));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(own: &[(&str, &str)], alteration: Alteration) -> Result<BTreeMap<String, String>, Error> {
        let own = own.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        altered(&Resource::Topic("t".into()), &own, &alteration, |setting| setting.default.to_string())
    }

    fn one(name: &str, operation: Operation, value: Option<&str>) -> Alteration {
        Alteration::Change(vec![(name.into(), operation, value.map(str::to_string))])
    }

    #[test]
    fn changes_are_made_as_kip_339_says() {
        let own = [("retention.ms", "5"), ("cleanup.policy", "compact")];
        let cases = [
            (one("retention.ms", Operation::Set, Some("7")), "retention.ms", Some("7")),
            (one("retention.ms", Operation::Delete, None), "retention.ms", None),
            (one("segment.ms", Operation::Delete, None), "segment.ms", None),
            (one("cleanup.policy", Operation::Append, Some("delete,compact")), "cleanup.policy", Some("compact,delete")),
            (one("cleanup.policy", Operation::Subtract, Some("compact")), "cleanup.policy", Some("")),
            (
                one("leader.replication.throttled.replicas", Operation::Append, Some("0:1")),
                "leader.replication.throttled.replicas",
                Some("0:1"),
            ),
            (Alteration::Replace(vec![("segment.ms".into(), Some("9".into()))]), "retention.ms", None),
        ];
        for (alteration, name, expected) in cases {
            let next = topic(&own, alteration.clone()).unwrap();
            assert_eq!(next.get(name).map(String::as_str), expected, "{alteration:?}");
        }
    }

    #[test]
    fn bad_changes_are_refused() {
        let twice = |v: &str| ("retention.ms".to_string(), Operation::Set, Some(v.to_string()));
        let request: [Alteration; 5] = [
            Alteration::Change(vec![twice("1"), twice("2")]),
            one("retention.ms", Operation::Set, None),
            one("cleanup.policy", Operation::Append, None),
            one("retention.ms", Operation::Subtract, None),
            Alteration::Replace(vec![("retention.ms".into(), None)]),
        ];
        for alteration in request {
            assert!(matches!(topic(&[], alteration.clone()), Err(Error::InvalidRequest(_))), "{alteration:?}");
        }
        let long = "1".repeat(VALUE_CHARACTERS_MAX + 1);
        let config = [
            one("nonsense", Operation::Set, Some("1")),
            one("retention.ms", Operation::Set, Some("x")),
            one("retention.ms", Operation::Append, Some("1")),
            one("cleanup.policy", Operation::Set, Some("x")),
            one("leader.replication.throttled.replicas", Operation::Set, Some(&long)),
        ];
        for alteration in config {
            assert!(matches!(topic(&[], alteration.clone()), Err(Error::InvalidConfig(_))), "{alteration:?}");
        }
    }

    #[test]
    fn a_broker_changes_only_what_can_change_while_it_runs() {
        let set = |name: &str| {
            let alteration = one(name, Operation::Set, Some("3600000"));
            altered(&Resource::Broker(None), &BTreeMap::new(), &alteration, |setting| setting.default.to_string())
        };
        assert!(set("log.retention.ms").is_ok());
        let bad = one("log.cleaner.threads", Operation::Set, Some("x"));
        let refused = altered(&Resource::Broker(None), &BTreeMap::new(), &bad, |setting| setting.default.to_string());
        assert!(matches!(refused, Err(Error::InvalidRequest(_))), "{refused:?}");
        // The setting has no effect here. It is stored and listed like any other.
        assert!(set("log.cleaner.threads").is_ok());
        assert!(matches!(set("num.partitions"), Err(Error::InvalidRequest(_))));
        assert!(matches!(set("nonsense"), Err(Error::InvalidRequest(_))));
    }
}
