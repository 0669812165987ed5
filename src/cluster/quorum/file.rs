//! The metadata log on disk: segments and snapshots in Kafka's format, and this node's vote.
//!
//! What the file contains is what Raft's log contains. In memory are only the offset and epoch of each entry after the last snapshot.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use openraft::entry::RaftEntry;
use tokio::sync::mpsc;
use tracing::error;

use super::entry::{LogEntry, Note, Payload, Placed, VotersNote};
use super::progress::{Progress, Reached};
use super::replay::Replay;
use super::snapshot::StoredSnapshot;
use super::{LogId, Membership, SnapshotMeta, StoredMembership, Vote, epoch_of, log_id, vote};
use crate::cluster::batches::{Stored, batch, batches_of_file, content, encode_snapshot, read_snapshot, snapshot_name, snapshot_place};
use crate::cluster::{Committed, Error, MetadataRecord, NotCommitted, Proposal, Snapshot};
use crate::env::{Clock, Disk, Env, OpenMode};
use crate::model::{LeaderEpoch, Offset};
use crate::records::CheckedBatch;
use crate::storage::{self, Log, LogConfig, OpenFiles, Origin, Policy, Recovery};

/// The number of records after which a snapshot is written, unless the last snapshot was larger.
pub(super) const SNAPSHOT_AFTER_RECORDS: i64 = 10_000;

/// The epoch of the first leader of a log.
const FIRST_EPOCH: i32 = 1;

/// The newest snapshot.
#[derive(Debug, Clone)]
struct Newest {
    end: i64,
    meta: SnapshotMeta,
    name: String,
    records: i64,
}

/// The place of an entry.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: i64,
    epoch: i32,
}

/// The log, its snapshots and the vote. All calls block.
pub(super) struct LogFile {
    log: Log,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    /// The entries after `purged`; the first one has the index `first`.
    entries: VecDeque<Place>,
    first: u64,
    /// The last entry that is only in the snapshot.
    purged: Option<LogId>,
    /// The proposal that is written but not appended by openraft yet.
    staged: Option<Placed>,
    vote: Option<Vote>,
    snapshot: Option<Newest>,
    progress: Progress,
    /// Why the disk has failed: what the file contains may not be durable, and nothing can be committed after it.
    failed: Option<String>,
    /// The log was written by an early release; a snapshot replaces it.
    must_convert: bool,
    /// The time of the last record.
    last_ms: i64,
}

impl LogFile {
    /// Opens the log in `path`, and delivers everything that it contains. Only a sole voter may do that before an election: what it has is committed.
    pub(super) fn open(env: &Env, path: &Path, deliver: &mpsc::UnboundedSender<Committed>) -> Result<LogFile, Error> {
        let Env { disk, clock, .. } = env.clone();
        if !disk.is_dir(path) {
            disk.create_dir(path).map_err(unusable(path))?;
            path.parent().map_or(Ok(()), |parent| disk.sync_dir(parent)).map_err(unusable(path))?;
        }
        refuse_damage(&*disk, path)?;
        let log = open_log(&disk, path, clock.wall_ms())?;
        let vote = vote::read(&*disk, path)?;
        let mut replay = Replay { committed: deliver.clone(), implied: Some(Default::default()), last_ms: 0, must_convert: false };
        let mut file = LogFile {
            log,
            disk,
            clock,
            entries: VecDeque::new(),
            first: 0,
            purged: None,
            staged: None,
            vote,
            snapshot: None,
            progress: Progress::default(),
            failed: None,
            must_convert: false,
            last_ms: 0,
        };
        file.read_snapshot(path, &mut replay)?;
        file.replay(&mut replay)?;
        replay.convert();
        (file.last_ms, file.must_convert) = (replay.last_ms, replay.must_convert);
        let end = file.end();
        {
            let mut reached = file.progress.get();
            (reached.end, reached.committed) = (end, end);
        }
        Ok(file)
    }

    fn read_snapshot(&mut self, path: &Path, replay: &mut Replay) -> Result<(), Error> {
        let names = self.disk.list(path).map_err(unusable(path))?;
        let newest = names.iter().filter_map(|n| snapshot_place(n)).max_by_key(|(_, end, epoch)| (*end, *epoch));
        let (log_start, log_end) = (self.log.log_start(), self.log.log_end());
        let Some((name, end, epoch)) = newest else {
            let starts = log_start == Offset(0);
            return if starts { Ok(()) } else { Err(without_begin(log_start)) };
        };
        if log_start > end {
            return Err(without_begin(log_start));
        }
        let Stored { records, note, form } = read_snapshot(&self.disk.read(&path.join(name)).map_err(unusable(path))?)?;
        let (index, voters) = match note {
            Some(Note::Snapshot { index, voters }) => (index, voters),
            // A snapshot of a release without Raft. No other node has seen it, so any index will do.
            _ => ((end.0 - 1).max(0) as u64, None),
        };
        let membership = match voters {
            Some((index, epoch, voters)) => StoredMembership::new(Some(log_id(epoch, index)), voters.membership()),
            None => StoredMembership::default(),
        };
        let last = log_id(epoch, index);
        (self.purged, self.first) = (Some(last), index + 1);
        self.progress.get().voters = vec![membership.clone()];
        let meta = SnapshotMeta { last_log_id: Some(last), last_membership: membership, snapshot_id: name.to_string() };
        let is_of_several = meta.last_membership.nodes().count() > 1;
        self.snapshot = Some(Newest { end: end.0, meta, name: name.to_string(), records: records.len() as i64 });
        if log_end < end && !is_of_several {
            return Err(Error::Storage(format!("the log ends at {log_end}, before its snapshot at {end}")));
        }
        // The snapshot of another node was stored, and then this node stopped.
        self.begin_after_snapshot()?;
        replay.snapshot(Snapshot { end: end.0, epoch, records, removed: Vec::new() }, form);
        Ok(())
    }

    fn replay(&mut self, replay: &mut Replay) -> Result<(), Error> {
        let from = Offset(self.snapshot.as_ref().map_or(0, |newest| newest.end));
        let reader = self.log.reader().clone();
        reader.replay(from, |header, batch| {
            let (content, index) = (content(header, batch)?, self.next_index());
            self.entries.push_back(Place { offset: header.base_offset.0, epoch: header.leader_epoch.0 });
            if let Some(voters) = content.voters() {
                self.progress.get().voters.push(StoredMembership::new(Some(log_id(header.leader_epoch.0, index)), voters.membership()));
            }
            replay.batch(header, content)
        })
    }

    fn next_index(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The end of the log without a proposal that is only staged.
    pub(super) fn end(&self) -> i64 {
        self.staged.map_or(self.log.log_end().0, |staged| staged.offset)
    }

    /// The offset at which an entry ends; none if it is not in the log.
    fn end_of(&self, index: u64) -> Option<i64> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.entries.get(at)?;
        Some(self.entries.get(at + 1).map_or(self.end(), |next| next.offset))
    }

    fn place(&self, index: u64) -> Option<Place> {
        self.entries.get(usize::try_from(index.checked_sub(self.first)?).ok()?).copied()
    }

    /// The last entry that is only in the snapshot, and the last entry.
    pub(super) fn state(&self) -> (Option<LogId>, Option<LogId>) {
        let last = self.entries.back().map(|place| log_id(place.epoch, self.next_index() - 1));
        (self.purged, last.or(self.purged))
    }

    /// How far it is.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The stored vote. A log of a release without Raft has none: its node has voted for itself in the log's epoch.
    pub(super) fn vote(&self, node: u64) -> Option<Vote> {
        let implied = || self.state().1.map(|last| Vote::new(last.leader_id.term, node));
        self.vote.or_else(implied)
    }

    /// Stores a vote. That this node's election was won need not be stored: a start begins a new epoch.
    pub(super) fn save_vote(&mut self, node: u64, vote: &Vote) -> Result<(), Error> {
        let own = vote.leader_id.voted_for() == Some(node);
        let stored = if own { Vote { committed: false, ..*vote } } else { *vote };
        if self.vote != Some(stored) {
            let written = vote::write(&*self.disk, self.log.directory(), &stored);
            self.judge(&written);
            written?;
            self.vote = Some(stored);
        }
        Ok(())
    }

    /// Writes a proposal behind the log. It becomes an entry when openraft [appends](LogFile::append) it; until then it is not part of the log.
    pub(super) fn stage(&mut self, proposal: &Proposal) -> Result<Placed, NotCommitted> {
        let refused = |error: Error| Err(NotCommitted::Refused(error));
        if let Some(why) = &self.failed {
            return refused(offline(why));
        }
        let Proposal { epoch, offset, records } = proposal;
        let placed = Placed { epoch: *epoch, offset: *offset };
        let leads = self.vote.is_some_and(|vote| vote.leader_id.term == *epoch as u64);
        if !leads || placed.offset != self.end() || self.staged.is_some() {
            return refused(Error::NotController);
        }
        assert!(!records.is_empty(), "a proposal without records at offset {offset}");
        let now_ms = self.clock.wall_ms();
        if let Err(error) = self.write(batch(records, now_ms), *epoch, now_ms) {
            return refused(error);
        }
        self.staged = Some(placed);
        Ok(placed)
    }

    /// Whether a proposal is still only staged; if so, it is removed.
    pub(super) fn unstage(&mut self, placed: Placed) -> Result<bool, Error> {
        if self.staged != Some(placed) {
            return Ok(false);
        }
        self.drop_staged().map(|()| true)
    }

    fn drop_staged(&mut self) -> Result<(), Error> {
        if let Some(staged) = self.staged.take() {
            self.cut(staged.offset)?;
        }
        Ok(())
    }

    /// Appends entries and fsyncs them. An error means that the log cannot be used any more.
    pub(super) fn append(&mut self, node: u64, entries: Vec<LogEntry>) -> Result<(), Error> {
        let result = self.append_all(node, entries);
        self.judge(&result);
        result
    }

    fn append_all(&mut self, node: u64, entries: Vec<LogEntry>) -> Result<(), Error> {
        for entry in entries {
            self.append_one(node, entry)?;
        }
        Ok(self.log.flush()?)
    }

    fn append_one(&mut self, node: u64, mut entry: LogEntry) -> Result<(), Error> {
        let (epoch, index) = (entry.epoch(), entry.id.index);
        if self.entries.is_empty() && self.purged.is_none() {
            self.first = index;
        }
        if self.purged.is_some_and(|purged| index <= purged.index) {
            // A snapshot contains it.
            return Ok(());
        }
        let (last, next) = (self.state().1, self.next_index());
        assert_eq!(index, next, "an entry is appended after {last:?}");
        assert!(last.is_none_or(|last| epoch_of(&last) <= epoch), "an entry of epoch {epoch} is appended after {last:?}");
        let offset = self.end();
        let is_staged = matches!(entry.payload, Payload::Staged(placed) if self.staged == Some(placed) && placed.epoch == epoch);
        if is_staged {
            self.staged = None;
        } else {
            self.drop_staged()?;
            if entry.payload == Payload::LeaderChange(None) {
                // Only the store of the leader itself gets this entry without the leader's id.
                let own = self.vote.filter(|vote| vote.leader_id == openraft::LeaderId::new(epoch as u64, node));
                entry.payload = Payload::LeaderChange(own.map(|_| node as i32));
            }
            let now_ms = self.clock.wall_ms();
            self.write(entry.batch(now_ms), epoch, now_ms)?;
        }
        self.entries.push_back(Place { offset, epoch });
        self.progress.get().end = self.end();
        Ok(())
    }

    fn write(&mut self, batch: CheckedBatch, epoch: i32, now_ms: i64) -> Result<(), Error> {
        let (end, time_ms) = (self.log.log_end(), batch.header().max_timestamp);
        let appended = self.log.append(batch, Origin::Coordinator, LeaderEpoch(epoch), now_ms)?;
        assert_eq!(appended.base_offset, end, "the metadata log wrote a batch at another offset");
        self.last_ms = time_ms;
        Ok(())
    }

    /// Removes the entries from an index on.
    pub(super) fn truncate(&mut self, index: u64) -> Result<(), Error> {
        self.drop_staged()?;
        assert!(index >= self.first, "entry {index} is to be truncated, and those before {} are in a snapshot", self.first);
        let Some(place) = self.place(index) else { return Ok(()) };
        self.cut(place.offset)?;
        self.entries.truncate((index - self.first) as usize);
        self.progress.get().end = place.offset;
        Ok(())
    }

    fn cut(&mut self, offset: i64) -> Result<(), Error> {
        let cut = |log: &mut Log, now_ms| -> Result<(), storage::Error> {
            log.flush()?;
            log.truncate_to(Offset(offset), Offset(offset), now_ms).map(drop)
        };
        let result = cut(&mut self.log, self.clock.wall_ms()).map_err(Error::from);
        self.judge(&result);
        result
    }

    /// Forgets the entries up to `last`, which a snapshot contains. Files that cannot be deleted are deleted after the next snapshot.
    pub(super) fn purge(&mut self, last: LogId) -> Result<(), Error> {
        let purged = self.purge_to(last);
        self.judge(&purged);
        purged
    }

    fn purge_to(&mut self, last: LogId) -> Result<(), Error> {
        let end = self.end_of(last.index);
        while self.first <= last.index && self.entries.pop_front().is_some() {
            self.first += 1;
        }
        (self.purged, self.first) = (Some(last), last.index + 1);
        let Some(end) = end else {
            return self.begin_after_snapshot();
        };
        if let Err(error) = self.delete_before(end) {
            error!(%error, "the metadata log before its snapshot could not be deleted; the next snapshot deletes it");
        }
        Ok(())
    }

    fn delete_before(&mut self, end: i64) -> Result<(), Error> {
        let all = Policy { retention_ms: None, retention_bytes: Some(0) };
        let retention = LogConfig { retention: Some(all), ..config() };
        self.log.configure(retention);
        let deleted = self.log.retain(Offset(end), self.clock.wall_ms());
        self.log.configure(config());
        deleted?;
        let directory = self.log.directory();
        self.disk.sync_dir(directory).map_err(unusable(directory))
    }

    /// Whether the disk has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// After an error the log cannot be used any more.
    fn judge<T>(&mut self, result: &Result<T, Error>) {
        if let Err(error) = result {
            self.failed.get_or_insert_with(|| match error {
                Error::Storage(what) => what.clone(),
                other => other.to_string(),
            });
        }
    }

    /// The entries within a range of indexes. After an error the log cannot be used any more: a leader must not tell less than it has.
    pub(super) fn read(&mut self, from: u64, to: u64) -> Result<Vec<LogEntry>, Error> {
        let entries = self.read_all(from, to);
        self.judge(&entries);
        entries
    }

    fn read_all(&self, from: u64, to: u64) -> Result<Vec<LogEntry>, Error> {
        let (from, to) = (from.max(self.first), to.min(self.next_index()));
        let mut entries = Vec::new();
        let Some(place) = self.place(from).filter(|_| from < to) else { return Ok(entries) };
        let walked = self.log.reader().replay(Offset(place.offset), |header, batch| {
            let index = from + entries.len() as u64;
            if index >= to {
                return Err(Walk::Done);
            }
            let entry = content(header, batch).and_then(|content| LogEntry::read(header, content, index)).map_err(Walk::Failed)?;
            entries.push(entry);
            Ok(())
        });
        match walked {
            Err(Walk::Failed(error)) => return Err(error),
            Ok(()) | Err(Walk::Done) => {}
        }
        let count = entries.len() as u64;
        assert_eq!(count, to - from, "the metadata log has {count} of the entries from {from} to {to}");
        Ok(entries)
    }

    /// Whether enough was committed since the last snapshot to write a new one.
    pub(super) fn wants_snapshot(&self) -> bool {
        let (end, records) = self.snapshot.as_ref().map_or((0, 0), |newest| (newest.end, newest.records));
        self.must_convert || self.end() - end > SNAPSHOT_AFTER_RECORDS.max(records)
    }

    /// Writes a snapshot; the entries before it are deleted by [`LogFile::purge`]. Returns its last entry.
    pub(super) fn write_snapshot(&mut self, snapshot: &Snapshot) -> Result<LogId, Error> {
        let Snapshot { end, epoch, records, .. } = snapshot;
        let last = self.last_before(*end).ok_or_else(|| Error::Storage(format!("no entry ends at offset {end}")))?;
        assert_eq!(epoch_of(&last), *epoch, "a snapshot up to {end} is of epoch {epoch}, and its last entry is {last}");
        let membership = {
            let voters = &mut self.progress.get().voters;
            let at = voters.iter().rposition(|voters| voters.log_id().is_none_or(|id| id <= last)).unwrap_or(0);
            voters.drain(..at);
            voters.first().cloned().unwrap_or_default()
        };
        self.store_snapshot(*end, last, &membership, records)?;
        Ok(last)
    }

    /// The last entry before an offset where an entry ends.
    fn last_before(&self, end: i64) -> Option<LogId> {
        let newest = self.snapshot.as_ref().filter(|newest| newest.end == end).and_then(|newest| newest.meta.last_log_id);
        let at = self.entries.partition_point(|place| place.offset < end).checked_sub(1);
        let index = at.map(|at| self.first + at as u64).filter(|index| self.end_of(*index) == Some(end));
        index.and_then(|index| Some(log_id(self.place(index)?.epoch, index))).or(newest)
    }

    /// Stores a snapshot with this last entry.
    pub(super) fn store_snapshot(
        &mut self,
        end: i64,
        last: LogId,
        membership: &StoredMembership,
        records: &[MetadataRecord],
    ) -> Result<(), Error> {
        let before = self.snapshot.as_ref().map_or(0, |newest| newest.end);
        assert!(end >= before, "a snapshot up to {end}, and the last one was up to {before}");
        let voters = membership.log_id().map(|id| (id.index, epoch_of(&id), VotersNote::of(membership.membership())));
        let note = Note::Snapshot { index: last.index, voters };
        let epoch = epoch_of(&last);
        self.keep(end, last, membership, records.len() as i64, &encode_snapshot(records, &note, epoch, self.last_ms, self.clock.wall_ms()))
    }

    /// Stores the bytes of a snapshot as the newest one, and removes the others.
    fn keep(&mut self, end: i64, last: LogId, membership: &StoredMembership, records: i64, bytes: &[u8]) -> Result<(), Error> {
        let directory = self.log.directory().to_path_buf();
        let name = snapshot_name(end, epoch_of(&last));
        // The new snapshot is fsynced before the records and snapshots that it replaces are deleted.
        self.disk.replace(&directory.join(&name), bytes).map_err(unusable(&directory))?;
        let meta = SnapshotMeta { last_log_id: Some(last), last_membership: membership.clone(), snapshot_id: name.clone() };
        self.must_convert = false;
        let names = self.disk.list(&directory).map_err(unusable(&directory))?;
        self.snapshot = Some(Newest { end, meta, name: name.clone(), records });
        for (old, ..) in names.iter().filter_map(|n| snapshot_place(n)).filter(|(old, ..)| **old != name) {
            self.disk.remove_file(&directory.join(old)).map_err(unusable(&directory))?;
        }
        Ok(())
    }

    /// The newest snapshot.
    pub(super) fn newest(&mut self) -> Result<Option<(SnapshotMeta, StoredSnapshot)>, Error> {
        let newest = self.open_newest();
        self.judge(&newest);
        newest
    }

    fn open_newest(&self) -> Result<Option<(SnapshotMeta, StoredSnapshot)>, Error> {
        let Some(newest) = &self.snapshot else { return Ok(None) };
        let path = self.log.directory().join(&newest.name);
        let file = self.disk.open(&path, OpenMode::Read).map_err(unusable(&path))?;
        Ok(Some((newest.meta.clone(), StoredSnapshot::File(file))))
    }

    /// Stores a snapshot of another node, and returns its content. The log begins after it with the next [`LogFile::purge`].
    pub(super) fn install(&mut self, meta: &SnapshotMeta, snapshot: &StoredSnapshot) -> Result<Snapshot, Error> {
        let installed = self.install_stored(meta, snapshot);
        self.judge(&installed);
        installed
    }

    fn install_stored(&mut self, meta: &SnapshotMeta, snapshot: &StoredSnapshot) -> Result<Snapshot, Error> {
        let malformed = || Error::Storage(format!("the snapshot {} has no place", meta.snapshot_id));
        let (_, end, epoch) = snapshot_place(&meta.snapshot_id).ok_or_else(malformed)?;
        let last = meta.last_log_id.filter(|last| epoch_of(last) == epoch).ok_or_else(malformed)?;
        let bytes = snapshot.bytes().map_err(unusable(self.log.directory()))?;
        let records = read_snapshot(&bytes)?.records;
        self.keep(end.0, last, &meta.last_membership, records.len() as i64, &bytes)?;
        *self.progress.get() = Reached { end: end.0, committed: end.0, voters: vec![meta.last_membership.clone()] };
        Ok(Snapshot { end: end.0, epoch, records, removed: Vec::new() })
    }

    /// Begins the log anew behind the newest snapshot, which is newer than all its entries.
    fn begin_after_snapshot(&mut self) -> Result<(), Error> {
        self.drop_staged()?;
        self.entries.clear();
        let end = Offset(self.snapshot.as_ref().map_or(self.log.log_end().0, |newest| newest.end));
        if end <= self.log.log_end() {
            return Ok(());
        }
        let path = self.log.directory().to_path_buf();
        let names = self.disk.list(&path).map_err(unusable(&path))?;
        self.log.delete();
        for name in names.iter().filter(|name| is_of_log(name)) {
            self.disk.remove_file(&path.join(name)).map_err(unusable(&path))?;
        }
        self.disk.write(&path.join(format!("{:020}.log", end.0)), &[]).map_err(unusable(&path))?;
        self.disk.sync_dir(&path).map_err(unusable(&path))?;
        self.log = open_log(&self.disk, &path, self.clock.wall_ms())?;
        Ok(())
    }

    /// Begins an empty log with a snapshot.
    pub(super) fn begin_with(&mut self, node: u64, records: Vec<MetadataRecord>) -> Result<(), Error> {
        let first = log_id(FIRST_EPOCH, 0);
        self.save_vote(node, &Vote::new(first.leader_id.term, node))?;
        self.append(node, vec![LogEntry::new_blank(first)])?;
        let end = self.end();
        self.write_snapshot(&Snapshot { end, epoch: FIRST_EPOCH, records, removed: Vec::new() })?;
        self.purge(first)
    }

    /// Closes the log cleanly.
    pub(super) fn close(&mut self) -> Result<(), Error> {
        self.drop_staged()?;
        self.log.close()?;
        Ok(self.log.flush()?)
    }

    /// The membership before any change: `node` alone.
    pub(super) fn sole_voter(&mut self, node: u64) {
        if self.progress.voters().membership().get_joint_config().is_empty() {
            self.progress.get().voters = vec![StoredMembership::new(None, Membership::new(vec![[node].into()], ()))];
        }
    }
}

/// Why a walk through the log ends early.
enum Walk {
    Done,
    Failed(Error),
}

impl From<storage::Error> for Walk {
    fn from(error: storage::Error) -> Walk {
        Walk::Failed(error.into())
    }
}

fn open_log(disk: &Arc<dyn Disk>, path: &Path, now_ms: i64) -> Result<Log, Error> {
    Ok(Log::open(&OpenFiles::new(disk.clone(), 1), path, config(), Recovery::From(Offset(0)), now_ms)?.0)
}

/// Whether a file belongs to a segment, or to the log as a whole; snapshots and the vote do not.
fn is_of_log(name: &str) -> bool {
    let is_segment = name.split_once('.').is_some_and(|(base, _)| base.parse::<u64>().is_ok());
    (is_segment && snapshot_place(name).is_none()) || name == "leader-epoch-checkpoint"
}

fn without_begin(log_start: Offset) -> Error {
    Error::Storage(format!("the log begins at {log_start}, and the snapshot before it is missing"))
}

fn offline(why: &str) -> Error {
    Error::Storage(format!("it is offline after a disk error ({why}); repair the disk and restart the broker"))
}

fn unusable(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::Storage(format!("{}: {error}", path.display()))
}

/// Rejects a log that is damaged before its end: opening it would truncate records that were committed after the damage. An incomplete last
/// batch was never acknowledged, and may be truncated.
fn refuse_damage(disk: &dyn Disk, directory: &Path) -> Result<(), Error> {
    let names = disk.list(directory).map_err(|e| Error::Storage(e.to_string()))?;
    let mut logs = names.iter().filter(|n| n.ends_with(".log"));
    logs.try_for_each(|name| batches_of_file(disk, &directory.join(name), |_, _| Ok(())))
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1 << 30,
        segment_ms: i64::MAX,
        segment_jitter_ms: 0,
        index_bytes_max: 10 << 20,
        index_interval_bytes: 4096,
        retention: None,
        flush_messages: i64::MAX,
        flush_ms: i64::MAX,
        compaction: None,
        decompressed_bytes_max: usize::MAX,
    }
}
