//! Which part of a log is durable: what a flush must fsync, what a commit must write to the [commit journal](super::CommitJournal), and what they prove.

use std::path::PathBuf;
use std::sync::Arc;

use super::reader::RecordsSlice;
use super::segment::Segment;
use super::unflushed::{Extent, Synced, Uncommitted, Unflushed, UnflushedFile};
use super::{Error, Log};
use crate::model::Offset;

impl Log {
    /// Whether more records wait for an fsync than `flush.messages` allows.
    pub fn holds_too_many(&self) -> bool {
        self.log_end().0 - self.recovery_point().0 >= self.config.flush_messages
    }

    /// Whether a record has waited for an fsync for longer than `flush.ms` allows.
    pub fn waits_too_long(&self, now_ms: i64) -> bool {
        self.unflushed_since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= self.config.flush_ms)
    }

    /// The files that [`sync_logs`](super::sync_logs) must fsync now; none if everything is durable.
    pub fn unflushed(&mut self) -> Result<Option<Unflushed>, Error> {
        if self.recovery_point() >= self.log_end() && self.durable_changes == self.changes {
            return Ok(None);
        }
        self.save_epochs()?;
        self.unflushed_files().map(Some)
    }

    /// Does not contain indexes of the active segment, which are in memory.
    pub(super) fn unflushed_files(&self) -> Result<Unflushed, Error> {
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

    /// Takes the batches that the [commit journal](super::CommitJournal) must commit now. They are not returned again, unless they are
    /// [given back](Log::give_back). None if all were taken.
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
        Ok(Some(Uncommitted { parts, extent, lent: self.lent.clone() }))
    }

    /// Whether a commit may still read the batches that it took. The log must not be truncated then.
    pub fn is_committing(&self) -> bool {
        Arc::strong_count(&self.lent) > 1
    }

    /// Notes that a commit failed: its batches must still be committed.
    pub fn give_back(&mut self) {
        self.taken = self.committed;
    }

    /// Notes that everything up to `extent` is committed.
    pub fn commit(&mut self, extent: Extent) {
        self.committed = self.committed.max(extent);
        self.taken = self.taken.max(extent);
        self.check();
    }

    /// Notes the high watermark: transactions whose markers are below it need no further tracking.
    pub fn advance(&mut self, high_watermark: Offset) {
        self.producers.committed(high_watermark);
    }

    /// The current end.
    pub(super) fn extent(&self) -> Extent {
        let (end, size) = self.active().extent();
        Extent { cuts: self.cuts, end, segment: self.active().base, size }
    }

    /// The extent of the part below `end`, or of the whole log if that is shorter; in the former case no bytes of the segment at `end` are counted.
    pub(super) fn extent_to(&self, end: Offset) -> Extent {
        if end >= self.log_end() {
            return self.extent();
        }
        let segment = self.segments.iter().rfind(|s| s.base <= end).map_or(self.log_start, |s| s.base);
        Extent { cuts: self.cuts, end, segment, size: 0 }
    }

    /// The parts appended after `extent`: segments with positions and lengths.
    fn after(&self, extent: Extent) -> impl Iterator<Item = (&Segment, u64, u64)> {
        let from = move |segment: &Segment| if segment.base == extent.segment { extent.size } else { 0 };
        let later = self.segments.iter().filter(move |segment| segment.base >= extent.segment);
        later
            .map(move |segment| (&**segment, from(segment), segment.size().saturating_sub(from(segment))))
            .filter(|(.., length)| *length > 0)
    }

    /// Notes that files were written into the directory.
    pub(super) fn note_written(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        self.changes += 1;
        self.written.extend(paths.into_iter().map(|path| (self.changes, path)));
    }

    /// Moves the recovery point to the end that was fsynced.
    pub fn flushed(&mut self, synced: Synced) {
        let end = synced.extent.end;
        // If the log was truncated meanwhile, `synced` does not prove anything about its current segments.
        if synced.extent.cuts == self.cuts {
            let newly = self.segments.iter().filter(|s| s.next_offset() > self.recovery_point() && s.next_offset() <= end);
            newly.for_each(|segment| segment.is_durable());
        }
        self.flushed = self.flushed.max(synced.extent);
        self.commit(synced.extent);
        if self.recovery_point() >= self.log_end() {
            self.unflushed_since_ms = None;
        }
        // Meanwhile a new segment may have been created and the previous one sealed.
        self.durable_changes = self.durable_changes.max(synced.changes);
        self.written.retain(|(change, _)| *change > synced.changes);
    }

    /// Fsyncs everything and moves the recovery point.
    pub fn flush(&mut self) -> Result<(), Error> {
        if let Some(unflushed) = self.unflushed()? {
            unflushed.sync(self.disk(), &mut || ())?;
            self.flushed(unflushed.synced);
        }
        Ok(())
    }

    /// Everything below this offset is fsynced in the log.
    pub fn recovery_point(&self) -> Offset {
        self.flushed.end
    }

    /// Everything below this offset is durable, in the log or in the commit journal.
    pub fn committed(&self) -> Offset {
        self.committed.end
    }

    /// Everything below this offset is durable or belongs to a commit in progress.
    pub fn taken(&self) -> Offset {
        self.taken.end
    }
}
