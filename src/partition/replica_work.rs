//! The background work on a replica, which [`Partitions`](super::Partitions) runs: retention, compaction, truncation, flushes, commits, closing.

use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use super::commits::Running;
use super::open_directory::Durability;
use super::{Error, Replica, StorageError, View};
use crate::model::Offset;
use crate::storage::{Cleaned, Cleaner, Cleaning, Extent, JournalEntry, Pace, Synced, Unflushed};

impl Replica {
    /// Deletes the segments that retention allows, and removes idle producers; returns the number of deleted segments.
    pub(super) fn maintain(&self, now_ms: i64, producer_expiration_ms: i64) -> Result<usize, Error> {
        let mut state = self.write();
        if self.is_closed() {
            return Ok(0);
        }
        let high_watermark = self.view().high_watermark;
        let deleted = self.judged(state.log.retain(high_watermark, now_ms))?;
        let log_start = state.log.log_start();
        assert!(log_start <= high_watermark, "retention of {} ends at {log_start}, above the high watermark {high_watermark}", self.id);
        state.log.expire_producers(now_ms, producer_expiration_ms);
        self.publish(&mut state);
        drop(state);
        Ok(deleted.count())
    }

    /// The next compaction of the log; see [`cleaning`](crate::storage::Log::cleaning).
    pub(super) fn cleaning(&self, checkpoint: Option<Offset>, now_ms: i64) -> Result<Option<Cleaning>, Error> {
        self.judged(self.state().log.cleaning(checkpoint, self.view().last_stable, now_ms))
    }

    /// Compacts; the log is locked only while a finished segment replaces its sources.
    pub(super) fn clean(&self, cleaner: &Cleaner, cleaning: &Cleaning, now_ms: i64, pace: &mut Pace<'_>) -> Result<Cleaned, Error> {
        let replace = |replacement| {
            let mut state = self.write();
            // The directory of a deleted replica may belong to another replica by now.
            if self.is_closed() { Ok(false) } else { state.log.replace(replacement) }
        };
        match cleaner.clean(&self.home.files, cleaning, now_ms, pace, replace) {
            // A part that it was reading was truncated.
            Err(_) if !self.is_of(cleaning) => Ok(Cleaned::default()),
            cleaned => Ok(cleaned.inspect_err(|error| self.home.judge(error))?),
        }
    }

    /// Whether the log has not been truncated since the plan was made.
    pub(super) fn is_of(&self, cleaning: &Cleaning) -> bool {
        cleaning.is_of(&self.state().log)
    }

    /// Truncates the log of a follower: a step of [`Partitions::truncate`](super::Partitions::truncate). Returns none if the part below
    /// `offset` is not fsynced.
    pub(super) fn truncate_to(&self, offset: Offset, running: MutexGuard<'_, Running>, now_ms: i64) -> Result<Option<Offset>, Error> {
        let mut state = self.write();
        // A commit that begins now waits for the log's lock before it takes batches of this log.
        drop(running);
        self.check_open()?;
        assert!(!state.role.is_leader(), "the leader of {} in epoch {} truncates its log", self.id, state.role.epoch());
        let View { log_end, high_watermark, .. } = self.view();
        if offset >= log_end {
            return Ok(Some(log_end));
        }
        if state.log.recovery_point() < offset {
            return Ok(None);
        }
        if offset < state.log.log_start() {
            return Err(StorageError::OffsetOutOfRange { offset, log_start: state.log.log_start(), log_end }.into());
        }
        self.home.check_online()?;
        let prepared = self.home.log.truncating(&self.id, offset);
        let deleted =
            prepared.and_then(|()| state.log.truncate_to(offset, high_watermark, now_ms)).inspect_err(|error| self.home.fail(error))?;
        let log_end = state.log.log_end();
        assert!(log_end <= offset, "{} was truncated at {offset} and ends at {log_end}", self.id);
        // The high watermark falls only here: the removed records were never committed, or an unclean election has given them up.
        self.high_watermark.store(high_watermark.min(log_end).0, Ordering::Release);
        self.publish(&mut state);
        drop(state);
        drop(deleted);
        self.progress.step();
        Ok(Some(log_end))
    }

    /// See [`waits_too_long`](crate::storage::Log::waits_too_long).
    pub(super) fn waits_too_long(&self, now_ms: i64) -> bool {
        self.state().log.waits_too_long(now_ms)
    }

    /// The files to fsync, if any; see [`unflushed`](crate::storage::Log::unflushed).
    pub(super) fn unflushed(&self) -> Result<Option<Unflushed>, Error> {
        let mut state = self.write();
        // The directory of a deleted replica may belong to another replica by now.
        if self.is_closed() { Ok(None) } else { self.judged(state.log.unflushed()) }
    }

    /// Moves the recovery point to the end that was fsynced.
    pub(super) fn flushed(&self, synced: Synced) {
        let mut state = self.write();
        state.log.flushed(synced);
        self.publish(&mut state);
        drop(state);
        if self.home.durability == Durability::Fsync {
            self.progress.step();
        }
    }

    /// The batches to commit, if any; see [`uncommitted`](crate::storage::Log::uncommitted).
    pub(super) fn uncommitted(&self) -> Result<Option<JournalEntry>, Error> {
        let mut state = self.write();
        if self.is_closed() {
            return Ok(None);
        }
        let entry = |batches| JournalEntry { topic_id: self.topic_id, partition: self.id.partition, batches };
        let uncommitted = self.judged(state.log.uncommitted())?.map(entry);
        self.publish(&mut state);
        Ok(uncommitted)
    }

    /// Notes that a commit failed; see [`give_back`](crate::storage::Log::give_back).
    pub(super) fn give_back(&self) {
        let mut state = self.write();
        state.log.give_back();
        self.publish(&mut state);
    }

    /// Notes that everything up to `extent` is committed.
    pub(super) fn commit(&self, extent: Extent) {
        let mut state = self.write();
        state.log.commit(extent);
        self.publish(&mut state);
        drop(state);
        self.progress.step();
    }

    /// Wakes requests that wait for a commit, because there will be none.
    pub(super) fn wake(&self) {
        self.progress.step();
    }

    /// Whether the log contains batches to commit that no commit has taken.
    pub(super) fn is_behind(&self) -> bool {
        self.taken.load(Ordering::Acquire) < self.log_end.load(Ordering::Acquire) && !self.is_closed()
    }

    /// Rejects further use, writes the files that make the next open fast, and wakes waiting requests. The returned files must be fsynced.
    pub(super) fn close(&self) -> Result<Option<Unflushed>, Error> {
        let mut state = self.write();
        self.end(&mut state);
        let unflushed = self.judged(state.log.close())?;
        drop(state);
        self.progress.step();
        Ok(unflushed)
    }
}
