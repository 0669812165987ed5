//! A partition's log: segments in order, the last one active.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::Error;
use super::cleaner::{Cleaning, Replacement};
use super::compaction::{choose_dirty, group};
use super::epochs::{LeaderEpochs, epochs_path};
use super::files::{OpenFiles, Presence};
use super::index::{AbortedEntry, Durable};
use super::journal::Stored;
use super::log_config::LogConfig;
use super::producers::{Origin, ProducerState, Verdict};
use super::reader::LogReader;
use super::recovery::{Recovery, Report, finish_swap, producers, recover};
use super::retention::{Deed, Policy, SegmentFacts, choose};
use super::segment::{OFFSET_LIES, RollLimits, Segment, file_name};
use super::transactions::note_ended;
use super::unflushed::{Extent, Unflushed};
use crate::env::{Disk, File};
use crate::model::{LeaderEpoch, Offset};
use crate::records::{BatchHeader, CheckedBatch, EpochRule, Marker, batches};

/// The number of newest producer snapshots that are kept: two, so that a damaged one does no harm.
const SNAPSHOTS_KEPT: usize = 2;
/// No limit: only segments below the log start are deleted.
const KEEP: Policy = Policy { retention_ms: None, retention_bytes: None };

/// The result of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The first record's offset; of a duplicate, that of the stored batch.
    pub base_offset: Offset,
    /// The batch's largest timestamp as stored.
    pub max_timestamp: i64,
    /// Whether the batch was stored before, and was not stored again.
    pub duplicate: bool,
}

/// Deleted segments: their names are removed. Their disk space is freed when this is dropped, which takes a file system milliseconds for
/// hundreds of megabytes, so it must not be dropped while the log is locked.
#[derive(Debug, Default)]
pub struct Deleted(Vec<Arc<dyn File>>);

impl Deleted {
    /// The number of segments.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// The log of one partition.
#[derive(Debug)]
pub struct Log {
    pub(super) files: Arc<OpenFiles>,
    pub(super) presence: Presence,
    pub(super) directory: PathBuf,
    pub(super) config: LogConfig,
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) reader: Arc<LogReader>,
    pub(super) log_start: Offset,
    pub(super) epochs: LeaderEpochs,
    pub(super) producers: ProducerState,
    pub(super) saved_epochs: LeaderEpochs,
    /// Everything below this end, the recovery point, is fsynced in the log.
    pub(super) flushed: Extent,
    /// Everything below this end is durable, in the log or in the commit journal.
    pub(super) committed: Extent,
    /// Everything below this end is durable or belongs to a commit in progress.
    pub(super) taken: Extent,
    /// When the oldest record that is not fsynced was appended, as far as this log knows.
    pub(super) unflushed_since_ms: Option<i64>,
    /// The number of changes of names in the directory, and how many of them are durable.
    pub(super) changes: u64,
    pub(super) durable_changes: u64,
    /// Files that were written once and may not be durable, each with the number of its change.
    pub(super) written: Vec<(u64, PathBuf)>,
    /// The number of truncations.
    pub(super) cuts: u64,
    /// Each commit in progress holds a clone of this.
    pub(super) lent: Arc<()>,
    /// Whether everything except later appends is unchanged since the last clean stop.
    pub(super) is_clean: bool,
}

impl Log {
    /// Opens the log in `directory`, which must exist; it may be empty.
    pub fn open(files: &Arc<OpenFiles>, directory: &Path, config: LogConfig, how: Recovery, now_ms: i64) -> Result<(Log, Report), Error> {
        let presence = Presence::default();
        let files = files.of_log(&presence);
        let recovered = recover(&files, directory, &config, how, now_ms)?;
        let log_start = recovered.segments.first().map_or(Offset(0), |s| s.base);
        let mut log = Log {
            files,
            presence,
            directory: directory.to_path_buf(),
            config,
            segments: recovered.segments.into_iter().map(Arc::new).collect(),
            reader: Arc::default(),
            log_start,
            saved_epochs: recovered.saved_epochs,
            epochs: recovered.epochs,
            producers: recovered.producers,
            flushed: Extent::default(),
            committed: Extent::default(),
            taken: Extent::default(),
            unflushed_since_ms: None,
            changes: u64::from(how != Recovery::Clean),
            durable_changes: 0,
            written: Vec::new(),
            cuts: 0,
            lent: Arc::default(),
            is_clean: how == Recovery::Clean,
        };
        log.flushed = match how {
            Recovery::Clean => log.extent(),
            Recovery::New => Extent::default(),
            Recovery::From(offset) => log.extent_to(offset),
        };
        (log.committed, log.taken) = (log.flushed, log.flushed);
        log.publish();
        Ok((log, recovered.report))
    }

    /// Appends a batch of the leader of `epoch`, unless it is a duplicate.
    pub fn append(&mut self, batch: CheckedBatch, origin: Origin, epoch: LeaderEpoch, now_ms: i64) -> Result<Appended, Error> {
        if let Verdict::Duplicate { base_offset, timestamp_ms } = self.producers.judge(batch.header(), origin)? {
            return Ok(Appended { base_offset, max_timestamp: timestamp_ms, duplicate: true });
        }
        let header = self.write(batch, epoch, now_ms)?;
        self.producers.note(&header);
        Ok(Appended { base_offset: header.base_offset, max_timestamp: header.max_timestamp, duplicate: false })
    }

    /// Ends a producer's transaction and returns the offset of the marker; none if the marker is stored already. See
    /// [`ProducerState::judge_marker`] for `rule`.
    pub fn end_transaction(&mut self, marker: &Marker, rule: EpochRule, epoch: LeaderEpoch, now_ms: i64) -> Result<Option<Offset>, Error> {
        if !self.producers.judge_marker(marker, rule)? {
            return Ok(None);
        }
        let header = self.write(marker.to_batch(now_ms), epoch, now_ms)?;
        if let Some(ended) = self.producers.note_marker(marker, &header) {
            note_ended(self.active(), &self.producers, &ended);
        }
        Ok(Some(header.base_offset))
    }

    /// Writes a batch at the end and returns its header with the final offset.
    fn write(&mut self, mut batch: CheckedBatch, epoch: LeaderEpoch, now_ms: i64) -> Result<BatchHeader, Error> {
        let size = batch.header().size();
        if size as u64 > self.config.segment_bytes {
            return Err(Error::LargerThanSegment { size, segment_bytes: self.config.segment_bytes });
        }
        let base_offset = self.log_end();
        let bytes = batch.place(base_offset, epoch);
        let header = *batch.header();
        self.place(&header, &[IoSlice::new(&bytes), IoSlice::new(batch.body())], now_ms)?;
        Ok(header)
    }

    /// Writes the parts of a batch that already has its offsets and its epoch.
    fn place(&mut self, header: &BatchHeader, parts: &[IoSlice<'_>], now_ms: i64) -> Result<(), Error> {
        let limits = self.roll_limits();
        if self.active().must_roll(header, header.last_offset(), &limits, now_ms) {
            self.roll(now_ms)?;
        }
        self.active().append(header, parts, self.config.index_interval_bytes)?;
        self.epochs.note(header.leader_epoch, header.base_offset);
        self.unflushed_since_ms.get_or_insert(now_ms);
        Ok(())
    }

    /// Appends batches of the commit journal that the log has lost in a crash, unchanged. Records that neither the log nor the journal contains
    /// stay missing and are counted. An invalid batch is an error, and the log ends before it.
    pub fn restore(&mut self, stored: &Stored, report: &mut Report, now_ms: i64) -> Result<(), Error> {
        for batch in batches(&stored.read()?) {
            let (header, batch) = batch.map_err(stored.corrupt())?;
            let log_end = self.log_end();
            if header.base_offset < log_end {
                continue;
            }
            header.check_crc(batch).map_err(stored.corrupt())?;
            if header.last_offset_delta < 0 {
                return Err(stored.corrupt()(OFFSET_LIES));
            }
            let marker = if header.is_control() { Marker::read(&header, batch).map_err(stored.corrupt())? } else { None };
            self.place(&header, &[IoSlice::new(batch)], now_ms)?;
            self.producers.note(&header);
            if let Some(ended) = marker.and_then(|marker| self.producers.note_marker(&marker, &header)) {
                note_ended(self.active(), &self.producers, &ended);
            }
            report.restored_bytes += header.size() as u64;
            report.missing_records += header.base_offset.0 - log_end.0;
        }
        Ok(())
    }

    /// The end for a reader with `read_committed`: everything below is committed and does not belong to a transaction that is open or whose marker is
    /// not committed.
    pub fn last_stable(&self, high_watermark: Offset) -> Offset {
        let unstable = self.producers.first_unstable(high_watermark).map(|first| first.max(self.log_start));
        unstable.map_or(high_watermark, |first| first.min(high_watermark))
    }

    /// Deletes the segments that the policy allows to delete.
    pub fn retain(&mut self, high_watermark: Offset, now_ms: i64) -> Result<Deleted, Error> {
        let policy = self.config.retention.unwrap_or(KEEP);
        self.delete_segments(policy, high_watermark, now_ms)
    }

    fn delete_segments(&mut self, policy: Policy, high_watermark: Offset, now_ms: i64) -> Result<Deleted, Error> {
        let mut deleted = Deleted::default();
        for deed in choose(&self.facts()?, policy, self.log_start, high_watermark, now_ms) {
            match deed {
                Deed::Roll => self.roll(now_ms)?,
                Deed::Delete(_) => {
                    let oldest = self.segments.remove(0);
                    self.log_start = self.log_start.max(oldest.next_offset());
                    self.publish();
                    deleted.0.push(oldest.file()?);
                    oldest.delete(self.disk())?;
                }
            }
        }
        self.epochs.truncate_start(self.log_start);
        self.check();
        Ok(deleted)
    }

    /// Raises the log start offset, at most to the log end offset: records below it are deleted, and a segment once all its records are below.
    pub fn delete_before(&mut self, offset: Offset, high_watermark: Offset, now_ms: i64) -> Result<Deleted, Error> {
        self.log_start = self.log_start.max(offset.min(self.log_end()));
        self.publish();
        self.delete_segments(KEEP, high_watermark, now_ms)
    }

    /// Removes everything from `offset` on, and the whole batch that contains it: the log end offset then is `offset`, or less if `offset` is
    /// within a batch or in a gap left by compaction. The truncation is durable when this returns. If the log already ends at or below `offset`,
    /// nothing changes.
    ///
    /// The caller must ensure, under the same lock, that everything below `offset` is fsynced in the log, that no commit [is in
    /// progress](Log::is_committing), and that durably neither the commit journal nor the checkpoint of recovery points claims the removed part
    /// (see [`LogDirectory::truncating`](super::LogDirectory::truncating)). If it fails, the log cannot be used any more.
    ///
    /// A crash during a truncation leaves more of the log than up to `offset`, and never a hole:
    ///
    /// 1. Segments after `offset` are removed, the last one first. A name that reappears after a power loss is after a gap, so recovery removes it.
    /// 2. The segment that contains `offset` is truncated and fsynced. Later appends go to a new file: readers of the old bytes never see others.
    /// 3. The producer state is rebuilt from the last snapshot that is neither above the log end nor above `high_watermark` (snapshots do not contain
    ///    transactions whose markers readers cannot see yet); snapshots above the log end are removed.
    /// 4. A new segment begins, and the directory is fsynced. Only then can anything be appended.
    pub fn truncate_to(&mut self, offset: Offset, high_watermark: Offset, now_ms: i64) -> Result<Deleted, Error> {
        let (log_start, log_end) = (self.log_start, self.log_end());
        if offset < log_start {
            return Err(Error::OffsetOutOfRange { offset, log_start, log_end });
        }
        let mut deleted = Deleted::default();
        if offset >= log_end {
            return Ok(deleted);
        }
        let (name, durable) = (self.directory.display(), self.recovery_point());
        assert!(durable >= offset, "{name} is cut at {offset}, and only records below {durable} are durable");
        assert!(!self.is_committing(), "{name} is cut at {offset} while a commit reads it");
        (self.cuts, self.is_clean) = (self.cuts + 1, false);
        while self.segments.last().is_some_and(|last| last.base > offset) {
            self.remove_last(&mut deleted)?;
        }
        let last = self.segments.last().cloned().expect("the first segment begins at or below the log start");
        match last.find(offset)? {
            Some((0, _)) => {
                deleted.0.push(last.file()?);
                last.retire();
                last.delete_batches(self.disk())?;
                self.segments.pop();
                self.segments.push(Arc::new(Segment::create(&self.files, &self.directory, last.base, now_ms)?));
                self.publish();
                self.restore_producers(high_watermark)?;
            }
            found => {
                if let Some((position, _)) = found {
                    self.segments.pop();
                    self.segments.push(Arc::new(last.cut_at(position)?));
                    self.publish();
                }
                self.active().unseal();
                self.restore_producers(high_watermark)?;
                self.roll(now_ms)?;
            }
        }
        self.skip_to_start(&mut deleted, now_ms)?;
        self.disk().sync_dir(&self.directory).map_err(Error::io("sync", &self.directory))?;
        self.epochs.truncate_end(self.log_end());
        let extent = self.extent();
        (self.flushed, self.committed, self.taken, self.unflushed_since_ms) = (extent, extent, extent, None);
        assert!(extent.end <= offset.max(log_start), "{} was cut at {offset} and ends at {}", self.directory.display(), extent.end);
        self.check();
        Ok(deleted)
    }

    fn remove_last(&mut self, deleted: &mut Deleted) -> Result<(), Error> {
        let Some(last) = self.segments.pop() else { return Ok(()) };
        self.publish();
        deleted.0.push(last.file()?);
        last.retire();
        last.delete(self.disk())
    }

    /// Restores the producer state at the log end; see [`Log::truncate_to`].
    fn restore_producers(&mut self, high_watermark: Offset) -> Result<(), Error> {
        let names = self.disk().list(&self.directory).map_err(Error::io("list", &self.directory))?;
        let segments: Vec<&Segment> = self.segments.iter().map(|s| &**s).collect();
        let needed_from = self.log_end().min(high_watermark);
        self.producers = producers(self.disk(), &self.directory, &names, &segments, &BTreeSet::new(), needed_from)?;
        self.producers.committed(needed_from);
        Ok(())
    }

    /// If a gap left by compaction is below the log start, and no records remain after it, the log continues at the log start.
    fn skip_to_start(&mut self, deleted: &mut Deleted, now_ms: i64) -> Result<(), Error> {
        if self.log_end() >= self.log_start {
            return Ok(());
        }
        self.segments.push(Arc::new(Segment::create(&self.files, &self.directory, self.log_start, now_ms)?));
        while self.segments.len() > 1 {
            let oldest = self.segments.remove(0);
            self.publish();
            deleted.0.push(oldest.file()?);
            oldest.delete(self.disk())?;
        }
        Ok(())
    }

    /// The number of truncations.
    pub fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Notes that a leader epoch begins, before its first append: followers ask for its start offset even if no record was written in it.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) {
        self.epochs.note(epoch, self.log_end());
    }

    /// Asserts the invariants of a log.
    pub(super) fn check(&self) {
        let (name, start, end) = (self.directory.display(), self.log_start, self.log_end());
        assert!(start <= end, "{name} begins at {start} and ends at {end}");
        let (flushed, committed, taken) = (self.flushed, self.committed, self.taken);
        assert!(
            flushed <= committed && committed <= taken,
            "{name} is flushed to {flushed:?}, committed to {committed:?}, taken to {taken:?}"
        );
        assert!(taken.end <= end, "a commit of {name} took all up to {}, and it ends at {end}", taken.end);
        let (durable, changes) = (self.durable_changes, self.changes);
        assert!(durable <= changes, "{durable} changes of {name} are durable, and it has {changes}");
    }

    /// The next compaction of the log, if it needs one; `checkpoint` is the offset up to which it was compacted before.
    pub fn cleaning(&self, checkpoint: Option<Offset>, last_stable: Offset, now_ms: i64) -> Result<Option<Cleaning>, Error> {
        let Some(policy) = &self.config.compaction else { return Ok(None) };
        let facts = self.facts()?;
        let Some(dirty) = choose_dirty(&facts, policy, checkpoint, self.log_start, last_stable, now_ms) else { return Ok(None) };
        let count = facts.partition_point(|s| s.base_offset < dirty.end);
        Ok(Some(Cleaning {
            dirty,
            sources: self.segments[..count].to_vec(),
            groups: group(&facts[..count], self.config.segment_bytes),
            cuts: self.cuts,
            directory: self.directory.clone(),
            presence: self.presence.clone(),
            index_interval_bytes: self.config.index_interval_bytes,
            delete_retention_ms: policy.delete_retention_ms,
            decompressed_bytes_max: self.config.decompressed_bytes_max,
            last_batches: self.producers.last_batches(),
            aborted: self.aborted_below(dirty.end),
        }))
    }

    /// The aborted transactions that began before `end`, in the order of their first offsets.
    fn aborted_below(&self, end: Offset) -> Vec<AbortedEntry> {
        let all = self.segments.iter().flat_map(|s| s.aborted_from(Offset(0)));
        let mut aborted: Vec<_> = all.filter(|entry| entry.first_offset < end.0).collect();
        aborted.sort_by_key(|entry| entry.first_offset);
        aborted
    }

    /// Replaces segments with the compacted segment made from them. If some of them are not in the log any more, nothing changes.
    pub fn replace(&mut self, replacement: Replacement) -> Result<bool, Error> {
        let Replacement { segment, sources } = replacement;
        let (base, count) = (segment.base, sources.len());
        assert!(sources.windows(2).all(|pair| pair[0].base < pair[1].base), "segments are compacted out of order, from {base} on");
        let (cleaned, swap) = (segment.path("log.cleaned"), segment.path("log.swap"));
        let at = self.segments.partition_point(|s| s.base < base);
        // Retention or a truncation may have removed some of them meanwhile; a truncated segment is a different object.
        let there = self.segments.get(at..at + count).filter(|_| at + count < self.segments.len());
        if !there.is_some_and(|there| there.iter().zip(&sources).all(|(s, source)| Arc::ptr_eq(s, source))) {
            self.disk().remove_file(&cleaned).map_err(Error::io("remove", &cleaned))?;
            return Ok(false);
        }
        let files = self.files.clone();
        let disk = &**files.disk();
        disk.rename(&cleaned, &swap).map_err(Error::io("rename", &cleaned))?;
        disk.sync_dir(&self.directory).map_err(Error::io("sync", &self.directory))?;
        // Steps that fail from here on are repeated by the next open; readers use the new segment already.
        let end = segment.next_offset();
        let swapped =
            finish_swap(disk, &self.directory, base, end).and_then(|()| segment.settle()).and_then(|()| segment.seal(disk, Durable::Now));
        self.segments.splice(at..at + count, [Arc::new(segment)]);
        self.publish();
        swapped.map(|()| true)
    }

    /// The state of the idempotent producers.
    pub fn producers(&self) -> &ProducerState {
        &self.producers
    }

    /// Applies changed settings of the topic.
    pub fn configure(&mut self, config: LogConfig) {
        self.config = config;
        self.publish();
    }

    /// Removes idle producers.
    pub fn expire_producers(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.expire(now_ms, expiration_ms);
    }

    /// Writes the files that make the next open fast: indexes, epochs, producers. The log can be used afterwards. Before a clean stop the returned
    /// files must be fsynced.
    pub fn close(&mut self) -> Result<Option<Unflushed>, Error> {
        if self.is_clean && self.recovery_point() >= self.log_end() {
            return Ok(None);
        }
        self.snapshot_producers()?;
        self.seal_active()?;
        self.active().unseal();
        self.save_epochs()?;
        self.unflushed_files().map(Some)
    }

    /// Writes the checkpoint of the leader epochs, if it is outdated.
    pub(super) fn save_epochs(&mut self) -> Result<(), Error> {
        if self.epochs == self.saved_epochs {
            return Ok(());
        }
        self.epochs.save(self.disk(), &self.directory)?;
        self.saved_epochs = self.epochs.clone();
        self.note_written([epochs_path(&self.directory)]);
        Ok(())
    }

    /// The log end offset.
    pub fn log_end(&self) -> Offset {
        self.active().next_offset()
    }

    /// The first offset.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// Where each leader epoch begins.
    pub fn epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    /// Marks the topic as deleted: when this returns, no path of the log is in use any more, and its directory may be renamed.
    pub fn delete(&mut self) {
        self.presence.end();
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn roll(&mut self, now_ms: i64) -> Result<(), Error> {
        // Appends to a segment of this name would begin at the front of its file.
        assert!(self.log_end() > self.active().base, "{} rolls an empty segment at {}", self.directory.display(), self.log_end());
        // The change noted here covers the name of the new segment too.
        self.seal_active()?;
        self.snapshot_producers()?;
        self.is_clean = false;
        self.segments.push(Arc::new(Segment::create(&self.files, &self.directory, self.log_end(), now_ms)?));
        self.publish();
        Ok(())
    }

    /// Writes the indexes of the active segment.
    fn seal_active(&mut self) -> Result<(), Error> {
        self.active().seal(self.disk(), Durable::Later)?;
        let indexes: Vec<PathBuf> = self.active().index_paths().collect();
        self.note_written(indexes);
        Ok(())
    }

    fn snapshot_producers(&mut self) -> Result<(), Error> {
        let path = self.directory.join(file_name(self.log_end(), "snapshot"));
        if self.producers.is_empty() {
            return Ok(());
        }
        self.disk().write(&path, &self.producers.to_snapshot()).map_err(Error::io("write", &path))?;
        let names = self.disk().list(&self.directory).map_err(Error::io("list", &self.directory))?;
        let offsets: Vec<Offset> = names.iter().filter_map(|n| n.strip_suffix(".snapshot")?.parse().ok()).map(Offset).collect();
        for old in self.outdated_snapshots(&offsets) {
            let path = self.directory.join(file_name(old, "snapshot"));
            self.disk().remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// The snapshots that are not needed any more, of all in order. As in Kafka, each segment keeps the snapshot at its base offset: recovery and
    /// truncation continue from the last snapshot before the offset where they begin, which is not known in advance. The newest two are kept too,
    /// so that a damaged one does no harm.
    fn outdated_snapshots(&self, all: &[Offset]) -> Vec<Offset> {
        let older = &all[..all.len().saturating_sub(SNAPSHOTS_KEPT)];
        let has_segment = |offset: &Offset| self.segments.binary_search_by_key(offset, |s| s.base).is_ok();
        older.iter().filter(|offset| !has_segment(offset)).copied().collect()
    }

    fn facts(&self) -> Result<Vec<SegmentFacts>, Error> {
        self.segments
            .iter()
            .map(|s| {
                let largest_timestamp_ms = match s.largest() {
                    Some((ms, _)) if ms >= 0 => ms,
                    _ => s.file()?.modified_ms().map_err(Error::io("read", &s.path("log")))?,
                };
                let first_timestamp_ms = s.first_timestamp_ms().filter(|ms| *ms >= 0).unwrap_or(largest_timestamp_ms);
                let (base_offset, next_offset) = (s.base, s.next_offset());
                Ok(SegmentFacts { base_offset, next_offset, size: s.size(), first_timestamp_ms, largest_timestamp_ms })
            })
            .collect()
    }

    /// The part of `segment.jitter.ms` that is subtracted from `segment.ms`: it differs between segments and logs, so that not all roll together.
    fn jitter_ms(&self) -> i64 {
        let LogConfig { segment_ms, segment_jitter_ms, .. } = self.config;
        if segment_jitter_ms == 0 {
            return 0;
        }
        let mut hasher = SipHasher13::new();
        (&self.directory, self.active().base.0).hash(&mut hasher);
        (hasher.finish() >> 1) as i64 % segment_jitter_ms.min(segment_ms).max(1)
    }

    fn roll_limits(&self) -> RollLimits {
        RollLimits {
            segment_bytes: self.config.segment_bytes,
            segment_ms: self.config.segment_ms - self.jitter_ms(),
            index_bytes_max: self.config.index_bytes_max,
        }
    }

    /// Reads this log without a lock.
    pub fn reader(&self) -> &Arc<LogReader> {
        &self.reader
    }

    /// Shows readers the current segments.
    fn publish(&self) {
        self.reader.show(&self.segments, self.log_start, self.config.decompressed_bytes_max);
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &**self.files.disk()
    }

    pub(super) fn active(&self) -> &Segment {
        self.segments.last().expect("a log has a segment from open on")
    }
}
