//! The data that a broker must contain when it starts: topics, their settings, records and group offsets.
//!
//! | file in the directory | content |
//! |---|---|
//! | `topics.json` | `[{"name": "orders", "partitions": 3, "configs": {"cleanup.policy": "compact"}}]`; may be missing |
//! | `topics/NAME-NUMBER.ndjson` | the records of a partition, one object per line |
//! | `groups.json` | `[{"group": "billing", "offsets": [{"topic": "orders", "partition": 0, "offset": 5}]}]`; may be missing |
//!
//! A file with another name is an error, except for hidden ones and for the directory `deleted` that `dlog run` keeps.
//!
//! A record has `key` and `value`: text, null, or any other JSON, which is stored as its text; or `key_hex` and `value_hex`. It may have `headers`
//! (an object, or a list of pairs if names repeat) and `timestamp_ms`. The files that `dlog run` keeps of a broker have the same form with more
//! fields: those are accepted and ignored. Any other field is an error, because a misspelled field would otherwise be lost silently.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::Error;
use crate::env::Disk;
use crate::model::TopicPartition;
use crate::records::NewRecord;

/// The minimum similarity of two names that count as similar; the compared names are mostly short.
const LIKENESS_MIN: f64 = 0.75;

/// The data to write. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seed {
    pub(super) topics: Vec<SeedTopic>,
    /// Partitions, each with its file of records.
    pub(super) records: Vec<(TopicPartition, PathBuf)>,
    pub(super) groups: Vec<SeedGroup>,
}

/// A topic that must exist.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeedTopic {
    pub(super) name: String,
    /// -1 is the broker's default.
    #[serde(default = "broker_default")]
    pub(super) partitions: i32,
    /// -1 is the broker's default.
    #[serde(default = "broker_default")]
    pub(super) replication_factor: i16,
    #[serde(default)]
    pub(super) configs: BTreeMap<String, String>,
}

fn broker_default<N: From<i8>>() -> N {
    N::from(-1)
}

/// A group with the offsets that it must have committed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeedGroup {
    pub(super) group: String,
    pub(super) offsets: Vec<SeedOffset>,
    /// Written by `dlog run` beside the offsets.
    #[serde(rename = "state")]
    _state: Option<IgnoredAny>,
    #[serde(rename = "members")]
    _members: Option<IgnoredAny>,
    #[serde(rename = "history")]
    _history: Option<IgnoredAny>,
}

impl PartialEq for SeedGroup {
    fn eq(&self, other: &SeedGroup) -> bool {
        (&self.group, &self.offsets) == (&other.group, &other.offsets)
    }
}

impl Eq for SeedGroup {}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeedOffset {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

impl Seed {
    /// Reads the value of `KAFKA_CREATE_TOPICS` (`name:partitions:replicas[:cleanup.policy]`, separated by commas) and a directory; an empty
    /// path is as none, as from a variable that is set and empty.
    pub fn read(disk: &dyn Disk, create_topics: Option<&str>, directory: Option<&Path>) -> Result<Seed, Error> {
        let mut seed = Seed { topics: named(create_topics.unwrap_or_default())?, ..Seed::default() };
        let Some(directory) = directory.filter(|directory| !directory.as_os_str().is_empty()) else { return Ok(seed) };
        if !disk.is_dir(directory) {
            return Err(refuse(directory, "there is no such directory".into()));
        }
        check_names(disk, directory, &READ)?;
        for topic in read_json::<Vec<SeedTopic>>(disk, &directory.join("topics.json"))? {
            seed.topics.retain(|other| other.name != topic.name);
            seed.topics.push(topic);
        }
        seed.groups = read_json(disk, &directory.join("groups.json"))?;
        seed.records = record_files(disk, &directory.join("topics"))?;
        // Everything is validated before the broker starts. Each file is read again when its records are written, so that memory holds one at a time.
        for (_, path) in &seed.records {
            read_records(disk, path)?;
        }
        for (id, _) in &seed.records {
            match seed.topics.iter_mut().find(|topic| *topic.name == *id.topic) {
                Some(topic) if topic.partitions >= 0 => topic.partitions = topic.partitions.max(id.partition + 1),
                Some(_) => {}
                None => seed.topics.push(SeedTopic {
                    name: id.topic.to_string(),
                    partitions: id.partition + 1,
                    replication_factor: -1,
                    configs: BTreeMap::new(),
                }),
            }
        }
        Ok(seed)
    }
}

fn refuse(path: &Path, what: String) -> Error {
    Error::Seed { path: path.display().to_string(), what }
}

fn named(text: &str) -> Result<Vec<SeedTopic>, Error> {
    let words = text.split([',', '\n']).map(str::trim).filter(|word| !word.is_empty());
    words
        .map(|word| {
            let what = || Error::Setting {
                key: "KAFKA_CREATE_TOPICS".into(),
                value: word.into(),
                what: "must be name:partitions:replicas or name:partitions:replicas:cleanup.policy".into(),
            };
            let mut parts = word.split(':');
            let name = parts.next().unwrap_or_default().to_string();
            let partitions = parts.next().map_or(Ok(-1), str::parse).map_err(|_| what())?;
            let replication_factor = parts.next().map_or(Ok(-1), str::parse).map_err(|_| what())?;
            let configs = parts.next().map(|policy| ("cleanup.policy".to_string(), policy.to_string())).into_iter().collect();
            if name.is_empty() || parts.next().is_some() {
                return Err(what());
            }
            Ok(SeedTopic { name, partitions, replication_factor, configs })
        })
        .collect()
}

/// The default if there is no such file.
fn read_json<T: DeserializeOwned + Default>(disk: &dyn Disk, path: &Path) -> Result<T, Error> {
    if !disk.exists(path) {
        return Ok(T::default());
    }
    let bytes = disk.read(path).map_err(|e| refuse(path, e.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|e| refuse_line(path, e.line(), in_words(&e)))
}

/// The records of a file, in order; blank lines are ignored.
pub(super) fn read_records(disk: &dyn Disk, path: &Path) -> Result<Vec<OwnedRecord>, Error> {
    let bytes = disk.read(path).map_err(|e| refuse(path, e.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        let line = bytes.get(..e.valid_up_to()).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count() + 1;
        refuse_line(path, line, "is not UTF-8; write bytes as key_hex or value_hex".into())
    })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(at, line)| OwnedRecord::parse(line).map_err(|what| refuse_line(path, at + 1, what))).collect()
}

fn refuse_line(path: &Path, line: usize, what: String) -> Error {
    Error::Seed { path: format!("{}:{line}", path.display()), what }
}

/// The message of serde, without the position in the text (the caller adds file and line), and with the most similar known name for an unknown field.
fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    let mut quoted = text.split('`').skip(1).step_by(2);
    match quoted.next().filter(|_| text.starts_with("unknown field")) {
        Some(field) => {
            let fields: Vec<&str> = quoted.collect();
            let like = fields.iter().max_by(|a, b| strsim::jaro_winkler(a, field).total_cmp(&strsim::jaro_winkler(b, field)));
            let meant = like.filter(|like| strsim::jaro_winkler(like, field) >= LIKENESS_MIN);
            let meant = meant.map_or_else(|| format!("; fields are {}", fields.join(", ")), |meant| format!("; is \"{meant}\" meant?"));
            format!("unknown field \"{field}\"{meant}")
        }
        None => match error.classify() {
            serde_json::error::Category::Data => plain(text),
            _ => format!("is not JSON: {text}"),
        },
    }
}

/// The message of serde about a value of the wrong type, with the terms of JSON instead of Rust type names.
fn plain(text: &str) -> String {
    let word = |word: &str| match word {
        "map" => "an object".to_string(),
        "sequence" | "a sequence" => "a list".to_string(),
        "null" => "null".to_string(),
        "i16" | "i32" | "i64" => "a whole number in range".to_string(),
        rust if rust.starts_with("struct ") => "an object".to_string(),
        other => other.replace('`', ""),
    };
    let typed = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    match typed.and_then(|rest| rest.split_once(", expected ")) {
        Some((found, wanted)) => format!("must be {}, not {}", word(wanted), word(found)),
        None if text.contains("untagged enum Headers") => "headers must be an object, or a list of pairs of a name and a value".to_string(),
        None => text.replace('`', "\""),
    }
}

/// Files that are read from a seed directory, and directories. The last one is kept by `dlog run` beside the others and has no effect.
const READ: [&str; 4] = ["topics.json", "groups.json", "topics", "deleted"];

/// Rejects a directory with other names, whose files would not be read. Hidden files are of other programs.
fn check_names(disk: &dyn Disk, directory: &Path, names: &[&str]) -> Result<(), Error> {
    let found = disk.list(directory).map_err(|e| refuse(directory, e.to_string()))?;
    match found.iter().find(|name| !name.starts_with('.') && !names.contains(&name.as_str())) {
        Some(other) => Err(refuse(
            &directory.join(other),
            "a file of this name is not read; a seed has topics.json, groups.json and topics/TOPIC-PARTITION.ndjson".into(),
        )),
        None => Ok(()),
    }
}

fn record_files(disk: &dyn Disk, folder: &Path) -> Result<Vec<(TopicPartition, PathBuf)>, Error> {
    if !disk.is_dir(folder) {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for name in disk.list(folder).map_err(|e| refuse(folder, e.to_string()))? {
        // Hidden files are of other programs.
        if name.starts_with('.') {
            continue;
        }
        let id = name
            .strip_suffix(".ndjson")
            .and_then(|stem| stem.rsplit_once('-'))
            .and_then(|(topic, number)| Some(TopicPartition::new(topic, number.parse().ok().filter(|n| *n >= 0)?)));
        let id = id.ok_or_else(|| refuse(&folder.join(&name), "the name must be TOPIC-PARTITION.ndjson, as in orders-0.ndjson".into()))?;
        files.push((id, folder.join(&name)));
    }
    files.sort();
    Ok(files)
}

/// A line of a records file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedRecord {
    /// Written by `dlog run` beside the other fields.
    #[serde(rename = "offset")]
    _offset: Option<IgnoredAny>,
    timestamp_ms: Option<i64>,
    key: Option<Value>,
    key_hex: Option<String>,
    value: Option<Value>,
    value_hex: Option<String>,
    #[serde(default)]
    headers: Headers,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Headers {
    Pairs(Vec<(String, Value)>),
    Object(BTreeMap<String, Value>),
}

impl Default for Headers {
    fn default() -> Self {
        Headers::Pairs(Vec::new())
    }
}

/// A record with its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OwnedRecord {
    timestamp_ms: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl OwnedRecord {
    pub(super) fn parse(line: &str) -> Result<OwnedRecord, String> {
        let record: SeedRecord = serde_json::from_str(line).map_err(|e| in_words(&e))?;
        for (name, plain, hex) in [("key", &record.key, &record.key_hex), ("value", &record.value, &record.value_hex)] {
            if plain.is_some() && hex.is_some() {
                return Err(format!("has both \"{name}\" and \"{name}_hex\"; only one is possible"));
            }
        }
        let headers: Vec<(String, Value)> = match record.headers {
            Headers::Pairs(pairs) => pairs,
            Headers::Object(object) => object.into_iter().collect(),
        };
        Ok(OwnedRecord {
            timestamp_ms: record.timestamp_ms,
            key: content(record.key, record.key_hex)?,
            value: content(record.value, record.value_hex)?,
            headers: headers.into_iter().map(|(name, value)| (name, written(value))).collect(),
        })
    }

    pub(super) fn as_new(&self) -> NewRecord<'_> {
        NewRecord {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            timestamp_ms: self.timestamp_ms,
            headers: self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect(),
        }
    }

    pub(super) fn size(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.value) + self.headers.iter().map(|(name, value)| name.len() + length(value)).sum::<usize>()
    }
}

fn content(value: Option<Value>, hex: Option<String>) -> Result<Option<Vec<u8>>, String> {
    let Some(hex) = hex else { return Ok(value.and_then(written)) };
    let digits: Option<Vec<u8>> = hex.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0).ok_or("hex must be pairs of 0-9 and a-f")?;
    Ok(Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
}

/// Text unchanged, null as null, any other value as JSON.
fn written(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.into_bytes()),
        other => Some(other.to_string().into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_as_other_images_read_them() {
        let topics = named("a:3:1, b:1:1:compact\nc").unwrap();
        let shown: Vec<_> = topics.iter().map(|t| (t.name.as_str(), t.partitions, t.replication_factor, t.configs.len())).collect();
        assert_eq!(shown, [("a", 3, 1, 0), ("b", 1, 1, 1), ("c", -1, -1, 0)]);
        assert_eq!(topics[1].configs["cleanup.policy"], "compact");
        for wrong in ["a:x", ":1:1", "a:1:1:compact:more", "a:1:y"] {
            assert!(named(wrong).unwrap_err().to_string().starts_with("KAFKA_CREATE_TOPICS="), "{wrong}");
        }
    }

    #[test]
    fn a_line_is_a_record() {
        let of = |line: &str| OwnedRecord::parse(line).unwrap();
        let bytes = |text: &str| Some(text.as_bytes().to_vec());
        let record = of(r#"{"offset": 7, "timestamp_ms": 5, "key": "k", "value": {"a": 1}, "headers": {"h": "x", "n": null}}"#);
        assert_eq!((record.timestamp_ms, &record.key, &record.value), (Some(5), &bytes("k"), &bytes(r#"{"a":1}"#)));
        assert_eq!(record.headers, [("h".to_string(), bytes("x")), ("n".to_string(), None)]);
        let record = of(r#"{"key": null, "value_hex": "00ff", "headers": [["h", "1"], ["h", "2"]]}"#);
        assert_eq!((record.key, record.value, record.headers.len()), (None, Some(vec![0, 255]), 2));
        for wrong in ["{", "[]", r#"{"value_hex": "0"}"#, r#"{"value_hex": "xx"}"#, r#"{"headers": 1}"#] {
            assert!(OwnedRecord::parse(wrong).is_err(), "{wrong}");
        }
    }
}
