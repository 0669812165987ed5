//! Metadata records in record batches, as Apache Kafka stores them in segments and snapshots.
//!
//! | control record | type in its key | meaning |
//! |---|---|---|
//! | LeaderChange | 2 | a controller becomes leader; its epoch is the batch's leader epoch |
//! | SnapshotHeader | 3 | the first record of a snapshot |
//! | SnapshotFooter | 4 | the last record of a snapshot: without it the snapshot is incomplete |
//!
//! A snapshot's batches have offsets from 0, and the epoch of the last record that the snapshot contains.
//!
//! What only nodes of our quorum need is a [`Note`] in a NoOp record, in a tagged field that Kafka skips.

use std::path::Path;

use bytes::Bytes;

use super::quorum::{Note, VotersNote};
use super::records::{Framed, put_frame};
use super::{Error, MetadataRecord};
use crate::env::Disk;
use crate::model::{LeaderEpoch, Offset};
use crate::protocol::generated::cluster_metadata::NoOpRecord;
use crate::protocol::generated::control_records::{GrantingVoter, LeaderChangeMessage, SnapshotFooterRecord, SnapshotHeaderRecord, Voter};
use crate::protocol::{Message, decode_whole, encode_to_bytes};
use crate::records::{self, BatchBuilder, BatchHeader, CheckedBatch, NewRecord, Records, batches, layout};
use crate::wire::{self, Cursor, Frame, Tags, Writer, tags};

/// The suffix of a snapshot's file name, after its offset and epoch, as in Kafka.
pub(super) const SNAPSHOT_SUFFIX: &str = ".checkpoint";
/// Records in one batch of a snapshot.
const SNAPSHOT_BATCH_RECORDS: usize = 1000;
/// The version of the key of a control record.
const KEY_VERSION: i16 = 0;
/// The version of our control records.
const CONTROL_VERSION: i16 = 0;

/// The tag of a NoOp record's field with a [`Note`], far above those of Kafka.
const NOTE_TAG: u32 = 10_000;

/// Directory name, end offset and epoch of a snapshot's file.
pub(super) fn snapshot_place(name: &str) -> Option<(&str, Offset, i32)> {
    let (end, epoch) = name.strip_suffix(SNAPSHOT_SUFFIX)?.split_once('-')?;
    Some((name, Offset(end.parse().ok()?), epoch.parse().ok()?))
}

/// The name of the file of a snapshot.
pub(super) fn snapshot_name(end: i64, epoch: i32) -> String {
    format!("{end:020}-{epoch:010}{SNAPSHOT_SUFFIX}")
}

/// Records as one batch.
pub(super) fn batch(records: &[MetadataRecord], now_ms: i64) -> CheckedBatch {
    let values: Vec<Bytes> = records.iter().map(MetadataRecord::encode).collect();
    values.iter().fold(BatchBuilder::new(), |builder, value| builder.record(NewRecord::value(value))).build_own(now_ms)
}

/// The batch with which the only voter becomes leader.
pub(super) fn leader_change(leader: i32, now_ms: i64) -> CheckedBatch {
    let (voter_id, voter_directory_id) = (leader, Default::default());
    let voters = vec![Voter { voter_id, voter_directory_id }];
    let granting_voters = vec![GrantingVoter { voter_id, voter_directory_id }];
    control(&LeaderChangeMessage { version: CONTROL_VERSION, leader_id: leader, voters, granting_voters }, now_ms)
}

fn control<M: Message>(record: &M, now_ms: i64) -> CheckedBatch {
    let type_id = M::TYPE_ID.expect("control records have a type");
    let key = [KEY_VERSION.to_be_bytes(), type_id.to_be_bytes()].concat();
    let value = encode_to_bytes(record, CONTROL_VERSION);
    BatchBuilder::new().record(NewRecord::keyed(&key, Some(&value))).control().build_own(now_ms)
}

/// A NoOp record with a note, as one batch.
pub(super) fn note_batch(note: &Note, now_ms: i64) -> CheckedBatch {
    BatchBuilder::new().record(NewRecord::value(&note_record(note))).build_own(now_ms)
}

fn note_record(note: &Note) -> Bytes {
    let json = serde_json::to_vec(note).expect("a note has no map with other keys than strings");
    let (mut writer, mut tags) = (Writer::default(), Tags::new());
    tags.add(NOTE_TAG, |writer| writer.raw(&json));
    put_frame::<NoOpRecord>(&mut writer);
    writer.tags(tags);
    writer.into_bytes()
}

/// The note in a stored record, if it is a NoOp record with one.
fn note_of(value: &Bytes) -> Result<Option<Note>, String> {
    let framed = Framed::read(value.clone())?;
    if Some(framed.type_id) != NoOpRecord::TYPE_ID {
        return Ok(None);
    }
    let (frame, mut note) = (Frame::new(framed.body), None);
    let take = |tag, field: Cursor<'_>| {
        if tag == NOTE_TAG {
            note = Some(field.rest().to_vec());
        }
        Ok(())
    };
    tags(frame.cursor(), take).map_err(|error| wire::Error::from(error).to_string())?;
    note.map(|json| serde_json::from_slice(&json)).transpose().map_err(|error| format!("a note of the quorum: {error}"))
}

/// The content of a batch.
pub(super) enum Content {
    /// A note of our quorum.
    Note(Note),
    /// Metadata records.
    Records(Vec<MetadataRecord>),
    /// The id of the controller that becomes leader.
    LeaderChange(i32),
    /// The start of a snapshot.
    SnapshotHeader,
    /// The end of a snapshot.
    SnapshotFooter,
    /// A control record that this broker does not use: voters, kraft.version.
    OtherControl,
}

impl Content {
    /// The voters, if the batch changes them.
    pub(super) fn voters(&self) -> Option<&VotersNote> {
        match self {
            Content::Note(Note::Voters(voters)) => Some(voters),
            _ => None,
        }
    }
}

/// Decodes a batch whose CRC is valid. Batches of the metadata log are never compressed.
pub(super) fn content(header: &BatchHeader, batch: &[u8]) -> Result<Content, Error> {
    let body = Bytes::copy_from_slice(batch.get(layout::SIZE..).unwrap_or_default());
    let malformed = |what: String| Error::Storage(format!("the metadata log at offset {}: {what}", header.base_offset));
    if header.is_control() {
        return control_content(&body, header.records_count).map_err(malformed);
    }
    let value = |record: Result<records::Record<'_>, records::Error>| {
        let value = record.map_err(|e| malformed(e.to_string()))?.value.map(|v| body.slice_ref(v));
        value.ok_or_else(|| malformed("a record has no value".into()))
    };
    let mut values = Records::new(&body, header.records_count).map(value);
    if header.records_count == 1
        && let Some(note) = values.next().transpose()?.map(|value| note_of(&value).map_err(malformed)).transpose()?.flatten()
    {
        return Ok(Content::Note(note));
    }
    let values = Records::new(&body, header.records_count).map(value);
    let records = values.map(|value| MetadataRecord::decode(value?).map_err(malformed)).collect::<Result<Vec<_>, _>>()?;
    if records.is_empty() { Err(malformed("a batch has no records".into())) } else { Ok(Content::Records(records)) }
}

fn control_content(body: &Bytes, count: i32) -> Result<Content, String> {
    let record = Records::new(body, count).next().ok_or("a control batch has no record")?.map_err(|e| e.to_string())?;
    let type_id = record.key.and_then(|key| key.get(2..4)?.try_into().ok()).map(i16::from_be_bytes);
    Ok(match type_id {
        id if id == LeaderChangeMessage::TYPE_ID => {
            let value = body.slice_ref(record.value.ok_or("a change of the leader has no value")?);
            // Later versions begin with the same field.
            let leader: LeaderChangeMessage = decode_whole(&value, version_of(&value)).map_err(|e| e.to_string())?;
            Content::LeaderChange(leader.leader_id)
        }
        id if id == SnapshotHeaderRecord::TYPE_ID => Content::SnapshotHeader,
        id if id == SnapshotFooterRecord::TYPE_ID => Content::SnapshotFooter,
        _ => Content::OtherControl,
    })
}

/// The value of a control record starts with its version.
fn version_of(value: &Bytes) -> i16 {
    value.get(..2).and_then(|bytes| bytes.try_into().ok()).map_or(CONTROL_VERSION, i16::from_be_bytes)
}

/// Encodes a snapshot's file; `last_ms` is the time of the last record that the snapshot contains.
pub(super) fn encode_snapshot(records: &[MetadataRecord], note: &Note, epoch: i32, last_ms: i64, now_ms: i64) -> Vec<u8> {
    let header = SnapshotHeaderRecord { version: CONTROL_VERSION, last_contained_log_timestamp: last_ms };
    let chunks = records.chunks(SNAPSHOT_BATCH_RECORDS).map(|chunk| batch(chunk, now_ms));
    let all = [control(&header, now_ms), note_batch(note, now_ms)].into_iter().chain(chunks);
    let mut bytes = Vec::new();
    let mut next = Offset(0);
    for mut batch in all.chain(std::iter::once(control(&SnapshotFooterRecord { version: CONTROL_VERSION }, now_ms))) {
        bytes.extend_from_slice(&batch.place(next, LeaderEpoch(epoch)));
        bytes.extend_from_slice(batch.body());
        next = batch.header().next_offset();
    }
    bytes
}

/// The content of a snapshot's file.
pub(super) struct Stored {
    /// The records.
    pub(super) records: Vec<MetadataRecord>,
    /// The last entry and the voters; snapshots of early releases have none.
    pub(super) note: Option<Note>,
    /// How leader epochs are recorded.
    pub(super) form: Form,
}

/// The content of a snapshot's file, and whether an early release wrote it: those have neither header nor footer, and broker registrations in
/// the log before and after them imply leader epochs.
pub(super) fn read_snapshot(bytes: &[u8]) -> Result<Stored, Error> {
    let malformed = |error: records::Error| Error::Storage(format!("the snapshot: {error}"));
    let (mut all, mut noted, mut form, mut read, mut is_whole) = (Vec::new(), None, Form::Implied, 0, true);
    for batch in batches(bytes) {
        let (header, batch) = batch.map_err(malformed)?;
        header.check_crc(batch).map_err(malformed)?;
        match content(&header, batch)? {
            Content::Records(records) => all.extend(records),
            Content::Note(note) => noted = Some(note),
            Content::SnapshotHeader => (form, is_whole) = (Form::Explicit, false),
            Content::SnapshotFooter => is_whole = true,
            Content::LeaderChange(_) | Content::OtherControl => {}
        }
        read += batch.len();
    }
    let is_whole = read == bytes.len() && is_whole;
    if is_whole { Ok(Stored { records: all, note: noted, form }) } else { Err(Error::Storage("the snapshot is incomplete".into())) }
}

/// How leader epochs are recorded in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Early releases: a broker's registration starts a new leader epoch in every partition that it leads.
    Implied,
    /// As in Kafka: each change is a record.
    Explicit,
}

/// Passes each valid batch of a file to `each`. An incomplete last batch is ignored; damage before it is an error.
pub(super) fn batches_of_file(
    disk: &dyn Disk,
    path: &Path,
    mut each: impl FnMut(&BatchHeader, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let bytes = disk.read(path).map_err(|e| Error::Storage(e.to_string()))?;
    let mut position = 0;
    for batch in batches(&bytes) {
        let size = match &batch {
            Ok((header, batch)) if header.check_crc(batch).is_ok() => {
                each(header, batch)?;
                position += batch.len();
                continue;
            }
            Ok((header, _)) => header.size(),
            Err(_) => bytes.len() - position,
        };
        if position + size < bytes.len() {
            return Err(Error::Storage(format!("{} is damaged at byte {position}; restore it from a copy", path.display())));
        }
        break;
    }
    Ok(())
}
