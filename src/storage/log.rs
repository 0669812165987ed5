//! A partition's log: segments in order, the last one active.

use std::hash::{Hash, Hasher};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::Error;
use super::cleaner::{Cleaning, Replacement};
use super::compaction::{Compaction, choose_dirty, group};
use super::epochs::{LeaderEpochs, epochs_path};
use super::files::{OpenFiles, Presence};
use super::index::{AbortedEntry, Durable};
use super::journal::Stored;
use super::producers::{Origin, ProducerState, Verdict};
use super::reader::{LogReader, RecordsSlice};
use super::recovery::{Recovery, Report, finish_swap, recover};
use super::retention::{Deed, Policy, SegmentFacts, choose};
use super::segment::{OFFSET_LIES, RollLimits, Segment, file_name};
use super::transactions::note_ended;
use super::unflushed::{Extent, Synced, Uncommitted, Unflushed, UnflushedFile};
use crate::env::{Disk, File};
use crate::model::{LeaderEpoch, Offset};
use crate::records::{BatchHeader, CheckedBatch, EpochRule, Marker, batches};

/// Producer snapshots that are kept: the two newest, so that one that is damaged does no harm.
const SNAPSHOTS_KEPT: usize = 2;
/// No limit: only what lies below the log start goes.
const KEEP: Policy = Policy { retention_ms: None, retention_bytes: None };

/// A topic's settings, as far as the log needs them. Names are Kafka's.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`.
    pub index_bytes_max: u64,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u64,
    /// `retention.ms` and `retention.bytes`; none where `cleanup.policy` does not contain `delete`.
    pub retention: Option<Policy>,
    /// `flush.messages`: so many records may wait to be made durable.
    pub flush_messages: i64,
    /// `flush.ms`: how long a record may wait to be made durable.
    pub flush_ms: i64,
    /// None where `cleanup.policy` does not contain `compact`.
    pub compaction: Option<Compaction>,
    /// `max.decompressed.message.bytes`, for lookups inside compressed batches.
    pub decompressed_bytes_max: usize,
}

/// Where a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The first record's offset; of a duplicate, that of the stored batch.
    pub base_offset: Offset,
    /// The batch's largest timestamp as stored.
    pub max_timestamp: i64,
    /// Whether the batch was stored before and not again.
    pub duplicate: bool,
}

/// Segments that were deleted: their names are gone. Their room is free when this is dropped, which takes a file system milliseconds for
/// hundreds of megabytes: so not while the log is locked.
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
    files: Arc<OpenFiles>,
    presence: Presence,
    directory: PathBuf,
    config: LogConfig,
    segments: Vec<Arc<Segment>>,
    reader: Arc<LogReader>,
    log_start: Offset,
    epochs: LeaderEpochs,
    producers: ProducerState,
    saved_epochs: LeaderEpochs,
    /// Everything below, the recovery point, is durable here.
    flushed: Extent,
    /// Everything below is durable, here or in the commit journal.
    committed: Extent,
    /// Everything below is, or belongs to a commit that is on its way.
    taken: Extent,
    /// When the oldest record that is not durable was appended, as far as this log knows.
    unflushed_since_ms: Option<i64>,
    /// How often names in the directory changed, and how many of these changes are durable.
    changes: u64,
    durable_changes: u64,
    /// Files that were written once and may not be durable, with the change that they came with.
    written: Vec<(u64, PathBuf)>,
    /// Whether all is as the last clean stop left it, but for what was appended since.
    is_clean: bool,
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
            saved_epochs: recovered.epochs.clone(),
            epochs: recovered.epochs,
            producers: recovered.producers,
            flushed: Extent::default(),
            committed: Extent::default(),
            taken: Extent::default(),
            unflushed_since_ms: None,
            changes: u64::from(how != Recovery::Clean),
            durable_changes: 0,
            written: Vec::new(),
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

    /// Ends a producer's transaction, and says where the marker lies; none where it was written before. See
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

    /// Writes a batch at the end; its header says where.
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

    /// Writes the parts of a batch that has its offsets and its epoch.
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

    /// Appends what the commit journal has of the log, and what a crash took away from here: batches as they were stored. Records that neither
    /// has stay away, and are counted. A batch that is not sound is an error, and the log ends before it.
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

    /// Up to where a reader of committed records may read: what is committed and belongs to no transaction that is open, or whose marker is not
    /// committed.
    pub fn last_stable(&self, high_watermark: Offset) -> Offset {
        let unstable = self.producers.first_unstable(high_watermark).map(|first| first.max(self.log_start));
        unstable.map_or(high_watermark, |first| first.min(high_watermark))
    }

    /// Deletes what the policy allows.
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
        self.epochs.truncate(self.log_start, self.log_end());
        Ok(deleted)
    }

    /// Raises the first offset: records below are gone, and their segments as soon as they are wholly below. Never above the end.
    pub fn delete_before(&mut self, offset: Offset, high_watermark: Offset, now_ms: i64) -> Result<Deleted, Error> {
        self.log_start = self.log_start.max(offset.min(self.log_end()));
        self.publish();
        self.delete_segments(KEEP, high_watermark, now_ms)
    }

    /// What compaction has to do now, if anything; `checkpoint` says up to where it came before.
    pub fn cleaning(&self, checkpoint: Option<Offset>, last_stable: Offset, now_ms: i64) -> Result<Option<Cleaning>, Error> {
        let Some(policy) = &self.config.compaction else { return Ok(None) };
        let facts = self.facts()?;
        let Some(dirty) = choose_dirty(&facts, policy, checkpoint, self.log_start, last_stable, now_ms) else { return Ok(None) };
        let count = facts.partition_point(|s| s.base_offset < dirty.end);
        Ok(Some(Cleaning {
            dirty,
            sources: self.segments[..count].to_vec(),
            groups: group(&facts[..count], self.config.segment_bytes),
            directory: self.directory.clone(),
            presence: self.presence.clone(),
            index_interval_bytes: self.config.index_interval_bytes,
            delete_retention_ms: policy.delete_retention_ms,
            decompressed_bytes_max: self.config.decompressed_bytes_max,
            last_batches: self.producers.last_batches(),
            aborted: self.aborted_below(dirty.end),
        }))
    }

    /// The transactions that were aborted and began before `end`, in the order in which they began.
    fn aborted_below(&self, end: Offset) -> Vec<AbortedEntry> {
        let all = self.segments.iter().flat_map(|s| s.aborted_from(Offset(0)));
        let mut aborted: Vec<_> = all.filter(|entry| entry.first_offset < end.0).collect();
        aborted.sort_by_key(|entry| entry.first_offset);
        aborted
    }

    /// Puts a compacted segment in the place of those that it was made from. Where they are not all there any more nothing is changed.
    pub fn replace(&mut self, replacement: Replacement) -> Result<bool, Error> {
        let Replacement { segment, sources } = replacement;
        let (base, count) = (segment.base, sources.len());
        let (cleaned, swap) = (segment.path("log.cleaned"), segment.path("log.swap"));
        let at = self.segments.partition_point(|s| s.base < base);
        let there = self.segments.get(at..at + count).filter(|_| at + count < self.segments.len());
        if !there.is_some_and(|there| there.iter().zip(&sources).all(|(s, source)| Arc::ptr_eq(s, source))) {
            self.disk().remove_file(&cleaned).map_err(Error::io("remove", &cleaned))?;
            return Ok(false);
        }
        let files = self.files.clone();
        let disk = &**files.disk();
        disk.rename(&cleaned, &swap).map_err(Error::io("rename", &cleaned))?;
        disk.sync_dir(&self.directory).map_err(Error::io("sync", &self.directory))?;
        // What fails from here on is done again by the next open; readers have the new segment already.
        let end = segment.next_offset();
        let swapped =
            finish_swap(disk, &self.directory, base, end).and_then(|()| segment.settle()).and_then(|()| segment.seal(disk, Durable::Now));
        self.segments.splice(at..at + count, [Arc::new(segment)]);
        self.publish();
        swapped.map(|()| true)
    }

    /// The idempotent producers that are remembered.
    pub fn producers(&self) -> &ProducerState {
        &self.producers
    }

    /// Takes a topic's changed settings.
    pub fn configure(&mut self, config: LogConfig) {
        self.config = config;
        self.publish();
    }

    /// Forgets idle producers.
    pub fn expire_producers(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.expire(now_ms, expiration_ms);
    }

    /// Whether more records wait to be made durable than `flush.messages` allows.
    pub fn holds_too_many(&self) -> bool {
        self.log_end().0 - self.recovery_point().0 >= self.config.flush_messages
    }

    /// Whether a record has waited for longer than `flush.ms` allows.
    pub fn waits_too_long(&self, now_ms: i64) -> bool {
        self.unflushed_since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= self.config.flush_ms)
    }

    /// What is to be made durable now, by [`sync_logs`](super::sync_logs); nothing where all is.
    pub fn unflushed(&mut self) -> Result<Option<Unflushed>, Error> {
        if self.recovery_point() >= self.log_end() && self.durable_changes == self.changes {
            return Ok(None);
        }
        self.save_epochs()?;
        self.unflushed_files().map(Some)
    }

    /// The indexes of the active segment are in memory.
    fn unflushed_files(&self) -> Result<Unflushed, Error> {
        let unflushed_file = |(segment, position, length): (&Segment, u64, u64)| {
            Ok(UnflushedFile { path: segment.path("log"), file: segment.file()?, position, length })
        };
        Ok(Unflushed {
            directory: self.directory.clone(),
            files: self.after(self.flushed).map(unflushed_file).collect::<Result<_, Error>>()?,
            written: self.written.iter().map(|(_, path)| path.clone()).collect(),
            names: self.durable_changes < self.changes,
            presence: self.presence.clone(),
            synced: Synced { extent: self.extent(), changes: self.changes },
        })
    }

    /// Takes what is to be committed now, by the [commit journal](super::CommitJournal), and will not be taken again, unless it is
    /// [given back](Log::give_back); nothing where all was taken.
    pub fn uncommitted(&mut self) -> Result<Option<Uncommitted>, Error> {
        let extent = self.extent();
        if extent.end <= self.taken.end {
            return Ok(None);
        }
        let part = |(segment, position, length): (&Segment, u64, u64)| {
            Ok((segment.path("log"), RecordsSlice::written(segment.file()?, position, length as usize)))
        };
        let parts = self.after(self.taken).map(part).collect::<Result<_, Error>>()?;
        self.taken = extent;
        Ok(Some(Uncommitted { parts, extent }))
    }

    /// Says that nothing came of a commit: what it had taken is to be committed still.
    pub fn give_back(&mut self) {
        self.taken = self.committed;
    }

    /// Takes note of what was committed.
    pub fn commit(&mut self, extent: Extent) {
        self.committed = self.committed.max(extent);
        self.taken = self.taken.max(extent);
        self.producers.committed(self.committed.end);
    }

    /// Where it ends now.
    fn extent(&self) -> Extent {
        let (end, size) = self.active().extent();
        Extent { end, segment: self.active().base, size }
    }

    /// The part below `end`, or all where that is less; of the last segment it counts nothing but all.
    fn extent_to(&self, end: Offset) -> Extent {
        if end >= self.log_end() {
            return self.extent();
        }
        let segment = self.segments.iter().rfind(|s| s.base <= end).map_or(self.log_start, |s| s.base);
        Extent { end, segment, size: 0 }
    }

    /// What was appended after that: segments, and the positions and lengths there.
    fn after(&self, extent: Extent) -> impl Iterator<Item = (&Segment, u64, u64)> {
        let from = move |segment: &Segment| if segment.base == extent.segment { extent.size } else { 0 };
        let later = self.segments.iter().filter(move |segment| segment.base >= extent.segment);
        later
            .map(move |segment| (&**segment, from(segment), segment.size().saturating_sub(from(segment))))
            .filter(|(.., length)| *length > 0)
    }

    /// Takes note of files that were written into the directory.
    fn note_written(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        self.changes += 1;
        self.written.extend(paths.into_iter().map(|path| (self.changes, path)));
    }

    /// Moves the recovery point behind what was synced.
    pub fn flushed(&mut self, synced: Synced) {
        let end = synced.extent.end;
        let newly = self.segments.iter().filter(|s| s.next_offset() > self.recovery_point() && s.next_offset() <= end);
        newly.for_each(|segment| segment.is_durable());
        self.flushed = self.flushed.max(synced.extent);
        self.commit(synced.extent);
        if self.recovery_point() >= self.log_end() {
            self.unflushed_since_ms = None;
        }
        // Meanwhile a segment may have been begun and the one before it sealed.
        self.durable_changes = self.durable_changes.max(synced.changes);
        self.written.retain(|(change, _)| *change > synced.changes);
    }

    /// Makes everything durable and moves the recovery point.
    pub fn flush(&mut self) -> Result<(), Error> {
        if let Some(unflushed) = self.unflushed()? {
            unflushed.sync(self.disk(), &mut || ())?;
            self.flushed(unflushed.synced);
        }
        Ok(())
    }

    /// Writes what makes the next open quick: indexes, epochs, producers. The log can go on afterwards. A clean stop needs what this gives
    /// to be made durable.
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

    /// Writes the checkpoint of the leader epochs, if it is not what it should be.
    fn save_epochs(&mut self) -> Result<(), Error> {
        if self.epochs == self.saved_epochs {
            return Ok(());
        }
        self.epochs.save(self.disk(), &self.directory)?;
        self.saved_epochs = self.epochs.clone();
        self.note_written([epochs_path(&self.directory)]);
        Ok(())
    }

    /// The offset of the next record.
    pub fn log_end(&self) -> Offset {
        self.active().next_offset()
    }

    /// The first offset.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// Everything below is durable here.
    pub fn recovery_point(&self) -> Offset {
        self.flushed.end
    }

    /// Everything below is durable, here or in the commit journal.
    pub fn committed(&self) -> Offset {
        self.committed.end
    }

    /// Everything below is durable, or belongs to a commit that is on its way.
    pub fn taken(&self) -> Offset {
        self.taken.end
    }

    /// Where each leader epoch begins.
    pub fn epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    /// Says that the topic is deleted: when this returns nobody uses a path of the log any more, and its directory may be renamed.
    pub fn delete(&mut self) {
        self.presence.end();
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn roll(&mut self, now_ms: i64) -> Result<(), Error> {
        // This counts for the name of the new segment too.
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

    /// The snapshots that no recovery will need, of all in order: recovery begins at the last segment that begins below the recovery
    /// point, and goes on from its snapshot. The newest two are kept too, so that one that is damaged does no harm.
    fn outdated_snapshots(&self, all: &[Offset]) -> Vec<Offset> {
        let begin = self.segments.iter().rfind(|s| s.base < self.recovery_point()).map_or(self.log_start, |s| s.base);
        let oldest = all.iter().rfind(|offset| **offset <= begin).copied().unwrap_or(Offset(0));
        let older = &all[..all.len().saturating_sub(SNAPSHOTS_KEPT)];
        let is_needed = |offset: &&Offset| **offset >= oldest && self.segments.iter().any(|s| s.base == **offset);
        older.iter().filter(|offset| !is_needed(offset)).copied().collect()
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

    /// By how much the active segment's time is shortened: other segments and other logs have another, so that not all roll together.
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

    /// Who reads, without a lock on the log.
    pub fn reader(&self) -> &Arc<LogReader> {
        &self.reader
    }

    /// Shows readers the segments as they are now.
    fn publish(&self) {
        self.reader.show(&self.segments, self.log_start, self.config.decompressed_bytes_max);
    }

    fn disk(&self) -> &dyn Disk {
        &**self.files.disk()
    }

    fn active(&self) -> &Segment {
        self.segments.last().expect("a log has a segment from open on")
    }
}
