//! All replicas of this broker.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use tracing::{debug, error};

use super::commits::{COMMITTERS, Committer, Running};
use super::deletion::Unfinished;
use super::open_directory::{Durability, OpenDirectory, Signals};
use super::{Error, Replica, TopicSettings};
use crate::env::Env;
use crate::model::{LeaderEpoch, Offset, TopicPartition, Uuid};
use crate::storage::{Cleaned, Cleaner, Cleaning, Committed, LogDirectory, Pace, Synced, Unflushed, sync_logs};

/// The most partitions named in a line of the broker's log; the others are only counted.
const NAMED_MAX: usize = 5;

/// A partition that this broker must lead.
#[derive(Debug, Clone)]
pub struct NewReplica {
    /// Topic and number.
    pub id: TopicPartition,
    /// The topic's id.
    pub topic_id: Uuid,
    /// The epoch in which this broker leads.
    pub leader_epoch: LeaderEpoch,
    /// The topic's settings.
    pub settings: TopicSettings,
    /// Whether an earlier start of the broker created it: then it may be in a directory that cannot be used now.
    pub is_known: bool,
}

/// Settings for all replicas.
#[derive(Debug, Clone, Copy)]
pub struct Keeping {
    /// When a record counts as stored.
    pub durability: Durability,
    /// The most open segment files per directory.
    pub files_max: usize,
}

impl Default for Keeping {
    fn default() -> Keeping {
        Keeping { durability: Durability::Default, files_max: 10_000 }
    }
}

/// The current state of a log directory.
#[derive(Debug, Clone)]
pub struct DirectoryView {
    /// Its path.
    pub path: PathBuf,
    /// Whether its disk has failed.
    pub is_offline: bool,
    /// The size of its file system in bytes, and how many of them are free; none if they cannot be read.
    pub space: Option<(u64, u64)>,
    /// Its replicas.
    pub replicas: Vec<Arc<Replica>>,
}

/// The result of opening the replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Replicas that were opened or created.
    pub replicas: usize,
    /// Bytes read and checked.
    pub scanned_bytes: u64,
    /// Bytes of torn tails that were truncated.
    pub cut_bytes: u64,
    /// Bytes restored from the commit journal.
    pub restored_bytes: u64,
}

/// A partition that could not be opened, its topic's id, and why.
pub(super) type Failed = (TopicPartition, Uuid, Error);
/// Ordered, so that operations on all replicas have the same order in every run.
pub(super) type ByTopic = BTreeMap<Arc<str>, Arc<Vec<Option<Arc<Replica>>>>>;

/// The replicas by topic, read without locks.
#[derive(Debug)]
pub struct Partitions {
    pub(super) env: EnvHandle,
    pub(super) directories: Vec<Arc<OpenDirectory>>,
    /// Directories that could not be used when the broker started.
    pub(super) lost: Vec<PathBuf>,
    pub(super) by_topic: ArcSwap<ByTopic>,
    /// The topic ids of partitions that could not be opened, and why they could not.
    not_opened: Mutex<BTreeMap<TopicPartition, (Uuid, Arc<str>)>>,
    /// Deletions that are not complete in some directory.
    pub(super) unfinished: Mutex<Unfinished>,
    /// Held while replicas are opened, deleted or closed, so that these never run concurrently. Other operations may run at the same time: they check
    /// whether their replica is closed ([`Replica::is_closed`]).
    pub(super) change: Mutex<()>,
    signals: Arc<Signals>,
}

/// Excludes `Env` from debug output.
pub(super) struct EnvHandle(pub(super) Env);

impl std::fmt::Debug for EnvHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}

impl Partitions {
    /// No replicas yet, in open directories, of which there is at least one; `lost` are directories that cannot be used.
    pub fn new(env: Env, directories: Vec<LogDirectory>, lost: Vec<PathBuf>, keeping: Keeping) -> Partitions {
        let signals = Arc::<Signals>::default();
        let open = |log| OpenDirectory::new(log, env.disk.clone(), keeping.files_max, keeping.durability, signals.clone());
        let directories = directories.into_iter().map(|log| Arc::new(open(log))).collect();
        Partitions {
            env: EnvHandle(env),
            directories,
            lost,
            by_topic: ArcSwap::default(),
            not_opened: Mutex::default(),
            unfinished: Mutex::default(),
            change: Mutex::new(()),
            signals,
        }
    }

    /// The log directories.
    pub fn directories(&self) -> Vec<DirectoryView> {
        let used = self.directories.iter().map(|home| DirectoryView {
            path: home.log.path().to_path_buf(),
            is_offline: home.is_offline(),
            space: home.log.space().ok(),
            replicas: self.in_directory(home),
        });
        let lost = |path: &PathBuf| DirectoryView { path: path.clone(), is_offline: true, space: None, replicas: Vec::new() };
        used.chain(self.lost.iter().map(lost)).collect()
    }

    /// The replica of a partition, or the reason why there is none.
    pub fn find(&self, topic: &str, partition: i32) -> Result<Arc<Replica>, Error> {
        self.get(topic, partition).ok_or_else(|| {
            let id = TopicPartition::new(topic, partition);
            match self.not_opened().get(&id) {
                Some((_, why)) => Error::NotOpened(id, why.clone()),
                None => Error::Unknown(id),
            }
        })
    }

    /// Partitions that could not be opened.
    pub fn not_opened_count(&self) -> usize {
        self.not_opened().len()
    }

    pub(super) fn not_opened(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, (Uuid, Arc<str>)>> {
        self.not_opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replica of a partition.
    pub fn get(&self, topic: &str, partition: i32) -> Option<Arc<Replica>> {
        let index = usize::try_from(partition).ok()?;
        self.by_topic.load().get(topic)?.get(index)?.clone()
    }

    /// All replicas.
    pub fn all(&self) -> Vec<Arc<Replica>> {
        self.by_topic.load().values().flat_map(|replicas| replicas.iter().flatten().cloned()).collect()
    }

    /// Opens or creates replicas, and then publishes them all at once. A replica that cannot be opened, for example because its directory belongs to
    /// another topic, is skipped and its files stay unchanged; [`Partitions::find`] returns the reason. The content of one partition's directory
    /// never prevents other partitions from being served.
    pub fn lead(&self, new: Vec<NewReplica>) -> Recovered {
        let _guard = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recovered = Recovered::default();
        let (placed, mut failed) = self.placed(new);
        let (placed, not_forgotten) = self.forget_earlier(placed);
        failed.extend(not_forgotten);
        let mut opened = Vec::with_capacity(placed.len());
        for (id, topic_id, result) in self.open_all(placed) {
            match result {
                Ok((replica, report)) => {
                    recovered.scanned_bytes += report.scanned_bytes;
                    recovered.cut_bytes += report.cut_bytes;
                    recovered.restored_bytes += report.restored_bytes;
                    opened.push(Arc::new(replica));
                }
                Err(error) => failed.push((id, topic_id, error)),
            }
        }
        let (opened, not_durable) = self.commit_opened(opened);
        failed.extend(not_durable);
        self.note_not_opened(failed);
        recovered.replicas = opened.len();
        let mut by_topic = ByTopic::clone(&self.by_topic.load());
        for replica in opened {
            self.not_opened().remove(replica.id());
            let replicas = Arc::make_mut(by_topic.entry(replica.id().topic.clone()).or_default());
            let index = replica.id().partition as usize;
            if replicas.len() <= index {
                replicas.resize(index + 1, None);
            }
            if let Some(there) = &replicas[index] {
                panic!("{} of topic {} takes the place of an open one of topic {}", replica.id(), replica.topic_id(), there.topic_id());
            }
            replicas[index] = Some(replica);
        }
        self.by_topic.store(Arc::new(by_topic));
        recovered
    }

    /// Notes the partitions that could not be opened, and logs one line for all.
    fn note_not_opened(&self, failed: Vec<Failed>) {
        let Some((_, _, first)) = failed.first() else { return };
        let partitions = named(failed.iter().map(|(id, ..)| id));
        error!(%partitions, count = failed.len(), error = %first, "partitions could not be opened; the others are served");
        self.directories.iter().for_each(|home| home.log.journal().keep_found());
        for (id, topic_id, error) in failed {
            debug!(partition = %id, %error, "the partition could not be opened");
            self.not_opened().insert(id, (topic_id, error.to_string().into()));
        }
    }

    /// Deletes records of partitions, durably, each below an offset or, without one, below the high watermark. Returns the new log start
    /// offsets. Blocks.
    pub fn delete_records(&self, below: &[(Arc<Replica>, Option<Offset>)]) -> Result<Vec<Result<Offset, Error>>, Error> {
        let now_ms = self.env.0.clock.wall_ms();
        let results: Vec<_> = below.iter().map(|(replica, offset)| replica.delete_before(*offset, now_ms)).collect();
        for home in &self.directories {
            // A topic that was deleted meanwhile, and maybe created again, must not get the old topic's log start offset.
            let starts = || {
                let here = below.iter().zip(&results).filter(|((replica, _), _)| Arc::ptr_eq(&replica.home, home) && !replica.is_closed());
                here.filter_map(|((replica, _), start)| Some((replica.id().clone(), Some(*start.as_ref().ok()?)))).collect()
            };
            home.log.log_starts().change(starts).inspect_err(|error| home.judge(error))?;
        }
        Ok(results)
    }

    /// Runs retention on all replicas; a failure of one partition does not stop the others.
    pub fn maintain(&self, producer_expiration_ms: i64) -> Vec<(TopicPartition, Result<usize, Error>)> {
        let now_ms = self.env.0.clock.wall_ms();
        self.all().iter().map(|replica| (replica.id().clone(), replica.maintain(now_ms, producer_expiration_ms))).collect()
    }

    /// Compacts the log with the largest dirty ratio of those that must be compacted, except the topic ids and numbers in `skip`. Returns none if
    /// no log must be compacted. Blocks, and holds no lock while it reads and writes. [`Error::Closed`] means that the topic was deleted
    /// meanwhile.
    pub fn compact(
        &self,
        cleaner: &Cleaner,
        skip: &BTreeSet<(Uuid, i32)>,
        pace: &mut Pace<'_>,
    ) -> Option<(Arc<Replica>, Result<Cleaned, Error>)> {
        let now_ms = self.env.0.clock.wall_ms();
        let mut due: Vec<(Arc<Replica>, Cleaning)> = Vec::new();
        for replica in self.all().into_iter().filter(|r| !skip.contains(&(r.topic_id(), r.id().partition)) && !r.home.is_offline()) {
            match replica.cleaning(replica.home.log.cleaned().get(replica.id()), now_ms) {
                Ok(cleaning) => due.extend(cleaning.map(|cleaning| (replica, cleaning))),
                Err(_) if replica.is_closed() => {}
                Err(error) => return Some((replica, Err(error))),
            }
        }
        let (replica, cleaning) = due.into_iter().max_by(|a, b| a.1.dirty().ratio.total_cmp(&b.1.dirty().ratio))?;
        // Fsynced first: the newer records, because of which compaction removes older ones, must not be lost afterwards.
        let durable = self.sync_in(&replica.home, std::slice::from_ref(&replica));
        let cleaned = durable.and_then(|()| replica.clean(cleaner, &cleaning, now_ms, pace)).and_then(|cleaned| {
            // A truncation lowers this checkpoint too.
            let _points = replica.home.points();
            if cleaned.segments_before > 0 && replica.is_of(&cleaning) {
                // Another topic with this name has no compacted records.
                let clean_to = || if replica.is_closed() { Vec::new() } else { vec![(replica.id().clone(), Some(cleaned.clean_to))] };
                replica.home.log.cleaned().change(clean_to)?;
            }
            Ok(cleaned)
        });
        let cleaned = cleaned
            .map_err(|error| if replica.is_closed() && !is_disk_failure(&error) { Error::Closed(replica.id().clone()) } else { error });
        Some((replica, cleaned))
    }

    /// Truncates a follower's log; see [`truncate_to`](crate::storage::Log::truncate_to). Returns the new log end offset. Blocks, also until the
    /// commits in progress in its directory have ended.
    ///
    /// Concurrent work: a flush that began before does not prove anything afterwards ([`Extent`](crate::storage::Extent) counts truncations); no flush
    /// writes recovery points meanwhile ([`OpenDirectory::points`]); a commit that begins later waits for the log's lock; a compaction detects that
    /// the log has changed; readers keep the bytes that they already have, or get nothing.
    pub fn truncate(&self, replica: &Arc<Replica>, offset: Offset) -> Result<Offset, Error> {
        let home = &replica.home;
        let _offline_on_panic = home.offline_on_panic();
        let _points = home.points();
        loop {
            self.sync_in(home, std::slice::from_ref(replica))?;
            let running = home.commits.quiesce();
            if let Some(end) = replica.truncate_to(offset, running, self.env.0.clock.wall_ms())? {
                return Ok(end);
            }
        }
    }

    /// Fsyncs all logs and writes the recovery points. Blocks; no log is locked during the fsyncs. A failure of one directory does not
    /// prevent the flush of others.
    pub fn flush(&self) -> Result<(), Error> {
        self.in_each_directory(|home, replicas| {
            self.flush_in(home)?;
            let _points = home.points();
            // A topic that was created again with a name has its own recovery point or none: see `OffsetFile::change`.
            let points = || replicas.iter().filter(|r| !r.is_closed()).map(|r| (r.id().clone(), r.recovery_point())).collect();
            Ok(home.log.save_recovery_points(points).inspect_err(|error| home.judge(error))?)
        })
    }

    /// Fsyncs the logs in which a record has waited for longer than `flush.ms` allows.
    pub fn flush_overdue(&self) -> Result<(), Error> {
        let now_ms = self.env.0.clock.wall_ms();
        self.in_each_directory(|home, mut replicas| {
            replicas.retain(|replica| replica.waits_too_long(now_ms));
            if replicas.is_empty() { Ok(()) } else { self.sync_in(home, &replicas) }
        })
    }

    /// Commits the appended batches of a directory (an index from 0), and batches appended meanwhile, until none are left. Blocks. [As
    /// many](Partitions::committers) calls may run concurrently. After an error another commit is [due](Partitions::commit_due) at once; the caller
    /// should pause before it.
    pub fn commit(&self, directory: usize) -> Result<(), Error> {
        let home = &self.directories[directory];
        let _offline_on_panic = home.offline_on_panic();
        let committer = home.commits.committer();
        let outcome = std::iter::from_fn(|| committer.next()).try_for_each(|running| self.commit_in(home, &committer, running));
        if home.is_offline() {
            // Batches that are not durable now will never be.
            self.in_directory(home).iter().for_each(|replica| replica.wake());
        } else if outcome.is_err() {
            home.commits.put_back();
        }
        outcome
    }

    /// Commits batches that no commit has taken. If they are all of one log for a while, the log itself is fsynced: that also needs one fsync, and
    /// each byte is written once.
    fn commit_in<'a>(
        &self,
        home: &'a Arc<OpenDirectory>,
        committer: &Committer<'a>,
        mut running: MutexGuard<'a, Running>,
    ) -> Result<(), Error> {
        home.check_online()?;
        let mut behind = self.in_directory(home);
        behind.retain(|replica| replica.is_behind());
        let alone = match &behind[..] {
            [] => return Ok(()),
            [replica] => Some(replica.id().clone()),
            _ => None,
        };
        if running.is_alone(alone) {
            running = committer.wait_for_all(running);
            // The commit must not wait for a flush of other logs.
            if !home.is_syncing() {
                let _in_flight = committer.begin(running);
                return self.sync_in(home, &behind);
            }
        }
        self.commit_logs(home, committer, running, &behind)
    }

    /// Commits logs to the journal, or by a flush if the journal has no room. A log that cannot be read now does not prevent the commit of others.
    fn commit_logs<'a>(
        &self,
        home: &'a Arc<OpenDirectory>,
        committer: &Committer<'a>,
        running: MutexGuard<'a, Running>,
        behind: &[Arc<Replica>],
    ) -> Result<(), Error> {
        let (mut committing, mut entries, mut outcome) = (Vec::new(), Vec::new(), Ok(()));
        for replica in behind {
            match replica.uncommitted() {
                Ok(Some(entry)) => {
                    committing.push(replica);
                    entries.push(entry);
                }
                Ok(None) => {}
                Err(error) => outcome = Err(error),
            }
        }
        if entries.is_empty() {
            return outcome;
        }
        let give_back = || committing.iter().for_each(|replica| replica.give_back());
        let reserved = home.log.journal().reserve(&entries).inspect_err(|error| home.judge(error));
        let room = reserved.inspect_err(|_| give_back())?;
        let in_flight = committer.begin(running);
        let committed = room.map_or(Ok(Committed::NoRoom), |room| room.commit().inspect_err(|error| home.judge(error)));
        // The batches are given back before the commit ends: a truncation waits for that end and asserts that no commit reads the truncated part.
        let extents: Vec<_> = entries.into_iter().map(|entry| entry.batches.extent).collect();
        match committed.inspect_err(|_| give_back())? {
            Committed::NoRoom => {
                drop(in_flight);
                return self.flush_in(home).inspect_err(|_| give_back()).and(outcome);
            }
            Committed::FlushDue => home.signals.flush_due.notify_one(),
            Committed::Durable => {}
        }
        committing.iter().zip(extents).for_each(|(replica, extent)| replica.commit(extent));
        drop(in_flight);
        outcome
    }

    /// Waits until a commit should run in a directory.
    pub async fn commit_due(&self, directory: usize) {
        self.directories[directory].commits.due().await;
    }

    /// Whether the disk of a directory (an index from 0) has failed.
    pub fn is_directory_offline(&self, directory: usize) -> bool {
        self.directories[directory].is_offline()
    }

    /// The threads that must [commit](Partitions::commit): for each its directory, an index from 0.
    pub fn committers(&self) -> Vec<usize> {
        let committed = (0..self.directories.len()).filter(|at| self.directories[*at].durability == Durability::Fsync);
        committed.flat_map(|at| [at; COMMITTERS]).collect()
    }

    /// Runs `work` on each directory that is not offline, and returns the last error.
    fn in_each_directory(&self, work: impl Fn(&Arc<OpenDirectory>, Vec<Arc<Replica>>) -> Result<(), Error>) -> Result<(), Error> {
        let mut outcome = Ok(());
        for home in self.usable() {
            outcome = work(home, self.in_directory(home)).and(outcome);
        }
        outcome
    }

    /// The replicas in a directory.
    fn in_directory(&self, home: &Arc<OpenDirectory>) -> Vec<Arc<Replica>> {
        let by_topic = self.by_topic.load();
        by_topic.values().flat_map(|replicas| replicas.iter().flatten()).filter(|r| Arc::ptr_eq(&r.home, home)).cloned().collect()
    }

    /// Fsyncs all logs of a directory, and so the batches of its journal.
    fn flush_in(&self, home: &Arc<OpenDirectory>) -> Result<(), Error> {
        let _offline_on_panic = home.offline_on_panic();
        home.flushing();
        let sealed = home.log.journal().seal();
        self.sync_in(home, &self.in_directory(home))?;
        Ok(home.log.journal().free(sealed)?)
    }

    /// Fsyncs logs. One whose files cannot be opened now does not prevent the fsync of others.
    fn sync_in(&self, home: &OpenDirectory, replicas: &[Arc<Replica>]) -> Result<(), Error> {
        let (mut dirty, mut unflushed, mut outcome) = (Vec::new(), Vec::new(), Ok(()));
        for replica in replicas {
            match replica.unflushed() {
                Ok(Some(files)) => {
                    dirty.push(replica);
                    unflushed.push(files);
                }
                Ok(None) => {}
                Err(error) => outcome = Err(error),
            }
        }
        let synced = self.sync_files(home, unflushed)?;
        dirty.iter().zip(synced).for_each(|(replica, synced)| replica.flushed(synced));
        outcome
    }

    /// A failed fsync is never repeated: the kernel may have dropped the data that it could not write.
    pub(super) fn sync_files(&self, home: &OpenDirectory, unflushed: Vec<Unflushed>) -> Result<Vec<Synced>, Error> {
        let mut begin = Instant::now();
        let mut pause = || {
            home.give_way(begin.elapsed());
            begin = Instant::now();
        };
        let count = unflushed.len();
        let synced = home.sync(|| sync_logs(&*self.env.0.disk, home.log.path(), unflushed, &mut pause))?;
        assert_eq!(synced.len(), count, "not each log of {} has its own proof of an fsync", home.log.path().display());
        Ok(synced)
    }

    pub(super) fn usable(&self) -> impl Iterator<Item = &Arc<OpenDirectory>> {
        self.directories.iter().filter(|home| !home.is_offline())
    }

    /// Whether the disk of the first directory, which contains the metadata log, has failed.
    pub fn is_offline(&self) -> bool {
        self.directories[0].is_offline()
    }

    /// Waits until enough bytes were written that a flush must run.
    pub async fn flush_due(&self) {
        self.signals.flush_due.notified().await;
    }

    /// Waits until a write finds the disk full.
    pub async fn full(&self) {
        self.signals.full.notified().await;
    }

    /// Closes every log, and once all are durable, marks their directory as cleanly stopped.
    pub fn close(&self) -> Result<(), Error> {
        self.close_with(|home| Ok(home.log.mark_clean()?))
    }

    /// Closes every log and marks nothing, because something may still be at work on them: the next start checks them.
    pub fn close_unmarked(&self) -> Result<(), Error> {
        self.close_with(|_| Ok(()))
    }

    fn close_with(&self, mark: impl Fn(&OpenDirectory) -> Result<(), Error>) -> Result<(), Error> {
        let _guard = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = Ok(());
        for home in &self.directories {
            outcome = self.close_in(home, &mark).and(outcome);
        }
        outcome
    }

    fn close_in(&self, home: &Arc<OpenDirectory>, mark: impl Fn(&OpenDirectory) -> Result<(), Error>) -> Result<(), Error> {
        let replicas = self.in_directory(home);
        let mut unflushed = Vec::new();
        for replica in &replicas {
            unflushed.extend(replica.close()?);
        }
        self.sync_files(home, unflushed)?;
        home.log.save_recovery_points(|| replicas.iter().map(|r| (r.id().clone(), r.view().log_end)).collect())?;
        home.log.journal().remove()?;
        // A partition that could not be opened was not recovered: the next start must not trust its log.
        if self.not_opened().keys().any(|id| self.env.0.disk.exists(&home.log.partition_path(id))) {
            return Ok(());
        }
        mark(home)
    }
}

/// Some partition names for the broker's log, with the number of the others.
pub(super) fn named<'a>(partitions: impl Iterator<Item = &'a TopicPartition>) -> String {
    let all: Vec<&TopicPartition> = partitions.collect();
    let first: Vec<String> = all.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = all.len().saturating_sub(NAMED_MAX);
    if more > 0 { format!("{} and {more} more", first.join(", ")) } else { first.join(", ") }
}

fn is_disk_failure(error: &Error) -> bool {
    matches!(error, Error::Storage(error) if error.is_disk_failure())
}
