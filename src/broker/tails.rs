//! The last contents of a broker, for people who analyse why a test failed.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::Broker;
use crate::http::utc;
use crate::model::{Offset, TopicPartition, is_internal_topic};
use crate::partition::{self, FirstBatch, Replica};
use crate::records::{self, batches};

/// The number of records that are kept of a partition.
const RECORDS: i64 = 100;
/// The number of bytes of batches that are read from a partition.
const BYTES: usize = 1 << 20;
/// The maximum decompressed size of a batch.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// The maximum number of partitions of deleted topics whose records are kept; the partitions that were deleted first are dropped.
const DELETED_MAX: usize = 1000;
/// The maximum size of the records of those partitions.
const DELETED_BYTES_MAX: usize = 64 << 20;

/// The numbers of items that were kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Partitions with records.
    pub partitions: usize,
    /// Partitions of deleted topics, with records.
    pub deleted: usize,
    /// Groups.
    pub groups: usize,
}

/// The last records of deleted partitions, each as the lines of a file, the latest partition last.
#[derive(Debug, Default)]
pub(super) struct DeletedTails(Mutex<VecDeque<(TopicPartition, String)>>);

impl DeletedTails {
    /// Keeps the last records of a partition that is about to be deleted. Blocks while it reads.
    pub(super) fn remember(&self, replica: &Replica) {
        if is_internal_topic(&replica.id().topic) {
            return;
        }
        let text = text_of(replica);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if text.is_empty() {
            return;
        }
        all.push_back((replica.id().clone(), text));
        let is_too_much = |all: &VecDeque<(TopicPartition, String)>| {
            all.len() > DELETED_MAX || all.iter().map(|(_, text)| text.len()).sum::<usize>() > DELETED_BYTES_MAX
        };
        while is_too_much(&all) {
            all.pop_front();
        }
    }
}

impl Broker {
    /// Writes the last records of every partition (`topics/NAME-NUMBER.ndjson`), those of deleted partitions, if the configuration enables this
    /// (`deleted/NAME-NUMBER.ndjson`, and `.2.ndjson` and so on if a topic of the same name was deleted again), and the state and history of every
    /// group (`groups.json`) into a folder. Blocks.
    pub fn keep_tails(&self, folder: &Path) -> Result<Kept, String> {
        let topics = folder.join("topics");
        self.env.disk.create_dir(&topics).map_err(|e| format!("cannot create {}: {e}", topics.display()))?;
        let write = |path: &Path, text: String| {
            self.env.disk.write(path, text.as_bytes()).map_err(|e| format!("cannot write {}: {e}", path.display()))
        };
        let mut kept = Kept::default();
        for replica in self.partitions.all().iter().filter(|replica| !is_internal_topic(&replica.id().topic)) {
            let text = text_of(replica);
            if !text.is_empty() {
                write(&topics.join(format!("{}.ndjson", replica.id())), text)?;
                kept.partitions += 1;
            }
        }
        kept.deleted = self.keep_deleted(folder, &write)?;
        let groups: Vec<Value> = self.groups.list().unwrap_or_default().iter().map(|view| self.group(&view.id)).collect();
        kept.groups = groups.len();
        write(&folder.join("groups.json"), format!("{:#}\n", Value::from(groups)))?;
        Ok(kept)
    }

    fn keep_deleted(&self, folder: &Path, write: &impl Fn(&Path, String) -> Result<(), String>) -> Result<usize, String> {
        let all = self.deleted.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            return Ok(0);
        }
        let deleted = folder.join("deleted");
        self.env.disk.create_dir(&deleted).map_err(|e| format!("cannot create {}: {e}", deleted.display()))?;
        let mut times: BTreeMap<&TopicPartition, usize> = BTreeMap::new();
        for (id, text) in all.iter() {
            let time = times.entry(id).or_default();
            *time += 1;
            let name = if *time == 1 { format!("{id}.ndjson") } else { format!("{id}.{time}.ndjson") };
            write(&deleted.join(name), text.clone())?;
        }
        Ok(all.len())
    }

    fn group(&self, id: &str) -> Value {
        let (view, history) = self.groups.look_up(id).ok().flatten().unzip();
        let members = view.iter().flat_map(|v| &v.members);
        let members: Vec<Value> =
            members.map(|m| json!({ "id": m.id, "client_id": m.client_id, "host": m.client_host, "instance_id": m.instance_id })).collect();
        let offsets = self.groups.all_committed(id).unwrap_or_default();
        let offsets: Vec<Value> = offsets
            .iter()
            .flat_map(|(topic, all)| all.iter().map(move |(p, c)| json!({ "topic": topic, "partition": p, "offset": c.offset })))
            .collect();
        let history: Vec<Value> = history
            .iter()
            .flatten()
            .map(|h| json!({ "time": utc(h.wall_ms), "time_ms": h.wall_ms, "kind": h.kind.name(), "text": h.text }))
            .collect();
        json!({ "group": id, "state": view.map(|v| v.state.name()), "members": members, "offsets": offsets, "history": history })
    }
}

/// The last records as lines; a line with an error if they cannot be read. Nothing of a partition that is deleted while it is read: its records were
/// [remembered](DeletedTails::remember) before.
fn text_of(replica: &Replica) -> String {
    let lines =
        tail(replica).unwrap_or_else(|error| if replica.is_closed() { Vec::new() } else { vec![json!({ "error": error.to_string() })] });
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The last records, oldest first.
fn tail(replica: &Replica) -> Result<Vec<Value>, partition::Error> {
    let view = replica.view();
    let from = Offset((view.high_watermark.0 - RECORDS).max(view.log_start.0));
    let mut lines = Vec::new();
    let Some(slice) = replica.read(from, BYTES, FirstBatch::Whole)? else { return Ok(lines) };
    let bytes = slice.check()?.read().unwrap_or_default();
    for batch in batches(&bytes) {
        // The last batch may be incomplete.
        let Ok((header, batch)) = batch else { break };
        for record in header.open(batch, DECOMPRESSED_BYTES_MAX)?.records() {
            let record = record?;
            let offset = header.base_offset.0 + i64::from(record.offset_delta);
            if offset >= from.0 {
                lines.push(line(offset, header.base_timestamp.saturating_add(record.timestamp_delta), &record));
            }
        }
    }
    Ok(lines)
}

fn line(offset: i64, timestamp_ms: i64, record: &records::Record<'_>) -> Value {
    let mut line = Map::new();
    line.insert("offset".into(), offset.into());
    line.insert("timestamp_ms".into(), timestamp_ms.into());
    for (name, bytes) in [("key", record.key), ("value", record.value)] {
        match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
            None => line.insert(name.into(), Value::Null),
            Some(Ok(text)) => line.insert(name.into(), text.into()),
            Some(Err(bytes)) => line.insert(format!("{name}_hex"), bytes.iter().map(|b| format!("{b:02x}")).collect::<String>().into()),
        };
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<Value> = record.headers().unwrap_or_default().iter().map(|h| json!([h.key, h.value.map(text)])).collect();
    if !headers.is_empty() {
        line.insert("headers".into(), headers.into());
    }
    line.into()
}
