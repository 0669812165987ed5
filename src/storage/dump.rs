//! Prints the content of files of a log, ours or Kafka's, in the format of Kafka's `DumpLogSegments`.

use std::io::{self, Write};
use std::path::Path;

use super::index::{AbortedEntry, Entry, PositionEntry, TimeEntry};
use super::journal::is_journal;
use super::journal_format::{Entry as JournalEntry, walk};
use super::producers::ProducerState;
use super::scan::{Headers, Stop, read_batch};
use crate::env::{Disk, File, OpenMode};
use crate::records::{BatchHeader, Marker, TimestampType, TransactionResult};

/// What to print of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// One line per batch.
    Batches,
    /// Also one line per record, with its key and value as text.
    Records,
}

/// The most bytes that a batch is decompressed to.
const OPENED_BYTES_MAX: usize = 1 << 30;

/// Prints a file; its name determines the kind. Returns false if some of it is invalid; a printed line then states what.
pub fn dump(disk: &dyn Disk, path: &Path, depth: Depth, out: &mut dyn Write) -> io::Result<bool> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    writeln!(out, "Dumping {}", path.display())?;
    let kind = name.split_once('.').map_or(name.as_str(), |(_, kind)| kind);
    match kind {
        _ if is_journal(&name) => journal(disk, path, depth, out),
        "index" => entries(&disk.read(path)?, out, |e: PositionEntry| format!("offset: +{} position: {}", e.relative_offset, e.position)),
        "timeindex" => {
            entries(&disk.read(path)?, out, |e: TimeEntry| format!("timestamp: {} offset: +{}", e.timestamp_ms, e.relative_offset))
        }
        "txnindex" => entries(&disk.read(path)?, out, |e: AbortedEntry| {
            format!(
                "producerId: {} firstOffset: {} lastOffset: {} lastStableOffset: {}",
                e.producer_id, e.first_offset, e.last_offset, e.last_stable
            )
        }),
        "snapshot" => snapshot(&disk.read(path)?, out),
        kind if kind.starts_with("log") || kind == "checkpoint" => segment(disk, path, depth, out),
        _ => {
            out.write_all(&disk.read(path)?)?;
            Ok(true)
        }
    }
}

fn entries<E: Entry>(bytes: &[u8], out: &mut dyn Write, line: impl Fn(E) -> String) -> io::Result<bool> {
    for entry in bytes.chunks_exact(E::SIZE) {
        writeln!(out, "{}", line(E::read(entry)))?;
    }
    let left = bytes.len() % E::SIZE;
    if left > 0 {
        writeln!(out, "{left} bytes are left over after the last entry")?;
    }
    Ok(left == 0)
}

fn snapshot(bytes: &[u8], out: &mut dyn Write) -> io::Result<bool> {
    let Some(state) = ProducerState::from_snapshot(bytes) else {
        writeln!(out, "the snapshot is damaged or has an unknown version")?;
        return Ok(false);
    };
    for producer in state.active() {
        let (id, epoch) = (producer.id, producer.epoch);
        writeln!(
            out,
            "producerId: {id} producerEpoch: {epoch} lastSequence: {} lastTimestamp: {} coordinatorEpoch: {} currentTxnFirstOffset: {}",
            producer.last_sequence,
            producer.last_timestamp_ms,
            producer.coordinator_epoch,
            producer.transaction_start.map_or("None".to_string(), |offset| offset.to_string())
        )?;
    }
    Ok(true)
}

fn segment(disk: &dyn Disk, path: &Path, depth: Depth, out: &mut dyn Write) -> io::Result<bool> {
    let file = disk.open(path, OpenMode::Read)?;
    print_batches(&*file, 0, file.size()?, depth, out)
}

/// Prints a commit journal: the content of each commit for each log. An incomplete last commit is not invalid: it was not acknowledged.
fn journal(disk: &dyn Disk, path: &Path, depth: Depth, out: &mut dyn Write) -> io::Result<bool> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut entries = Vec::new();
    walk(&*file, |entry| entries.push(*entry))?;
    let mut is_sound = true;
    for JournalEntry { number, of: (topic_id, partition), position, length } in entries {
        writeln!(out, "use: {number} topicId: {topic_id} partition: {partition} position: {position} size: {length}")?;
        is_sound &= print_batches(&*file, position, position + length as u64, depth, out)?;
    }
    Ok(is_sound)
}

fn print_batches(file: &dyn File, mut position: u64, end: u64, depth: Depth, out: &mut dyn Write) -> io::Result<bool> {
    let mut is_sound = true;
    for step in Headers::new(file, position, end) {
        let read = step.and_then(|(at, header)| Ok((at, header, read_batch(file, at, &header)?)));
        match read {
            Ok((at, header, batch)) => {
                is_sound &= print_batch(at, &header, &batch, depth, out)?;
                position = at + header.size() as u64;
            }
            Err(Stop::Io(error)) => return Err(error),
            Err(Stop::Batch(error)) => {
                writeln!(out, "position: {position}: {error}; {} bytes are left", end - position)?;
                is_sound = false;
            }
        }
    }
    Ok(is_sound)
}

fn print_batch(position: u64, header: &BatchHeader, batch: &[u8], depth: Depth, out: &mut dyn Write) -> io::Result<bool> {
    let is_valid = header.check_crc(batch).is_ok();
    let codec = header.codec();
    let horizon = header.delete_horizon_ms().map_or("-".to_string(), |ms| ms.to_string());
    let time = if header.timestamp_type() == TimestampType::LogAppendTime { "LogAppendTime" } else { "CreateTime" };
    writeln!(
        out,
        "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} producerEpoch: {} partitionLeaderEpoch: {} \
         isTransactional: {} isControl: {} deleteHorizonMs: {horizon} position: {position} {time}: {} size: {} magic: {} compresscodec: {} \
         crc: {} isvalid: {is_valid}",
        header.base_offset,
        header.last_offset(),
        header.records_count,
        header.base_sequence,
        header.last_sequence(),
        header.producer_id,
        header.producer_epoch,
        header.leader_epoch,
        header.is_transactional(),
        header.is_control(),
        header.max_timestamp,
        header.size(),
        header.magic,
        codec.as_ref().map_or("unknown", |codec| codec.name()),
        header.crc,
    )?;
    if depth == Depth::Batches || !is_valid {
        return Ok(is_valid);
    }
    let opened = match header.open(batch, OPENED_BYTES_MAX) {
        Ok(opened) => opened,
        Err(error) => {
            writeln!(out, "| {error}")?;
            return Ok(false);
        }
    };
    if let Ok(Some(marker)) = Marker::read(header, batch) {
        let (result, epoch) = (if marker.result == TransactionResult::Commit { "COMMIT" } else { "ABORT" }, marker.coordinator_epoch);
        writeln!(out, "| offset: {} endTxnMarker: {result} coordinatorEpoch: {epoch}", header.base_offset)?;
        return Ok(true);
    }
    for record in opened.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                writeln!(out, "| {error}")?;
                return Ok(false);
            }
        };
        let text = |field: Option<&[u8]>| field.map_or("null".into(), |bytes| String::from_utf8_lossy(bytes).into_owned());
        let size = |field: Option<&[u8]>| field.map_or(-1, |bytes| bytes.len() as i64);
        let headers = record.headers().unwrap_or_default();
        let keys: Vec<&str> = headers.iter().map(|h| h.key).collect();
        writeln!(
            out,
            "| offset: {} {time}: {} keySize: {} valueSize: {} headerKeys: [{}] key: {} payload: {}",
            header.base_offset.plus(i64::from(record.offset_delta)),
            header.base_timestamp.saturating_add(record.timestamp_delta),
            size(record.key),
            size(record.value),
            keys.join(","),
            text(record.key),
            text(record.value),
        )?;
    }
    Ok(true)
}
