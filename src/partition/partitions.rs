//! All replicas of this broker.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use tracing::{debug, error};

use super::commits::{COMMITTERS, Committer, Running};
use super::open_directory::{Durability, OpenDirectory, Signals};
use super::{Error, Replica, TopicSettings};
use crate::env::Env;
use crate::model::{LeaderEpoch, Offset, TopicPartition, Uuid};
use crate::storage;
use crate::storage::{Cleaned, Cleaner, Cleaning, Committed, Log, LogDirectory, Pace, Recovery, Report, Synced, Unflushed, sync_logs};

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

/// The directories of deleted partitions. Their names are free; [`Partitions::remove`] frees their disk space.
#[derive(Debug, Default)]
#[must_use = "the bytes are still there"]
pub struct Retired {
    directories: Vec<(Arc<OpenDirectory>, PathBuf)>,
    partitions: Vec<TopicPartition>,
}

impl Retired {
    /// The number of directories.
    pub fn count(&self) -> usize {
        self.directories.len()
    }
}

/// The result of opening a replica.
type Opened = Result<(Replica, Report), Error>;
/// A partition that could not be opened, its topic's id, and why.
type Failed = (TopicPartition, Uuid, Error);

/// A new replica and its directory.
struct Placed {
    new: NewReplica,
    /// None if it is unknown: the replica may be in a directory that cannot be used.
    home: Option<Arc<OpenDirectory>>,
    /// Whether its partition directory exists already.
    is_there: bool,
}
/// Ordered, so that operations on all replicas have the same order in every run.
type ByTopic = BTreeMap<Arc<str>, Arc<Vec<Option<Arc<Replica>>>>>;

/// The replicas by topic, read without locks.
#[derive(Debug)]
pub struct Partitions {
    env: EnvHandle,
    directories: Vec<Arc<OpenDirectory>>,
    /// Directories that could not be used when the broker started.
    lost: Vec<PathBuf>,
    by_topic: ArcSwap<ByTopic>,
    /// The topic ids of partitions that could not be opened, and why they could not.
    not_opened: Mutex<BTreeMap<TopicPartition, (Uuid, Arc<str>)>>,
    /// Topics with a deleted partition whose directory could not be renamed: its name is not free yet.
    not_renamed: Mutex<BTreeSet<Uuid>>,
    /// Held while replicas are opened, deleted or closed, so that these never run concurrently. Other operations may run at the same time: they check
    /// whether their replica is closed ([`Replica::is_closed`]).
    change: Mutex<()>,
    signals: Arc<Signals>,
}

/// Excludes `Env` from debug output.
struct EnvHandle(Env);

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
            not_renamed: Mutex::default(),
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

    fn not_opened(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, (Uuid, Arc<str>)>> {
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
        let (placed, mut failed) = self.forget_earlier(self.placed(new));
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

    /// The directory of each replica: the existing one, or for a new replica the one with the fewest replicas.
    fn placed(&self, new: Vec<NewReplica>) -> Vec<Placed> {
        let all = self.all();
        let count = |home: &Arc<OpenDirectory>| all.iter().filter(|r| Arc::ptr_eq(&r.home, home)).count();
        let mut counts: Vec<usize> = self.directories.iter().map(count).collect();
        let place = |new: NewReplica| {
            let found = self.directories.iter().position(|home| self.env.0.disk.exists(&home.log.partition_path(&new.id)));
            let may_be_lost = new.is_known && !self.lost.is_empty();
            let usable = (0..self.directories.len()).filter(|at| !may_be_lost && !self.directories[*at].is_offline());
            let at = found.or_else(|| usable.min_by_key(|at| counts[*at]));
            at.into_iter().for_each(|at| counts[at] += 1);
            Placed { new, home: at.map(|at| self.directories[at].clone()), is_there: found.is_some() }
        };
        new.into_iter().map(place).collect()
    }

    /// Removes entries from checkpoint files for partitions that have no directory yet: they are from earlier topics of the same name. Durable before
    /// the directories are created, so that they are never used for the new partitions after a crash. Partitions for which it fails are returned
    /// separately.
    fn forget_earlier(&self, mut placed: Vec<Placed>) -> (Vec<Placed>, Vec<Failed>) {
        let mut failed = Vec::new();
        for home in &self.directories {
            let goes_there = |p: &Placed| !p.is_there && p.home.as_ref().is_some_and(|at| Arc::ptr_eq(at, home));
            let new = || -> Vec<TopicPartition> { placed.iter().filter(|p| goes_there(p)).map(|p| p.new.id.clone()).collect() };
            let Err(error) = home.log.forget(new) else { continue };
            home.judge(&error);
            let why: Arc<str> = error.to_string().into();
            let (without, rest) = placed.into_iter().partition(|p| goes_there(p));
            placed = rest;
            let without: Vec<Placed> = without;
            failed.extend(without.into_iter().map(|p| (p.new.id.clone(), p.new.topic_id, Error::NotOpened(p.new.id, why.clone()))));
        }
        (placed, failed)
    }

    /// Opens replicas concurrently, with as many threads as the machine has cores.
    fn open_all(&self, new: Vec<Placed>) -> Vec<(TopicPartition, Uuid, Opened)> {
        let threads = self.env.0.workers.count().min(new.len());
        let left = Mutex::new(new.into_iter());
        let open_some = || {
            let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
            std::iter::from_fn(next).map(|placed| (placed.new.id.clone(), placed.new.topic_id, self.open_alone(placed))).collect::<Vec<_>>()
        };
        if threads < 2 {
            return open_some();
        }
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(open_some)).collect();
            let join = |thread: ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            running.into_iter().flat_map(join).collect()
        })
    }

    /// Opens a replica. Invalid content of its directory, even if it causes a panic, affects only this partition: no part of a replica is shared
    /// before it is open.
    fn open_alone(&self, placed: Placed) -> Opened {
        let id = placed.new.id.clone();
        catch_unwind(AssertUnwindSafe(|| self.open(placed))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Error::NotOpened(id, format!("opening it panicked: {}", text.unwrap_or("without a message")).into()))
        })
    }

    fn open(&self, placed: Placed) -> Opened {
        let Placed { new, home, is_there } = placed;
        let Some(home) = home else {
            let offline = || self.directories.iter().find(|home| home.is_offline()).map(|home| home.log.path().to_path_buf());
            let directory = self.lost.first().cloned().or_else(offline);
            return Err(directory.map_or_else(|| Error::Offline(new.id.clone()), |directory| storage::Error::Offline(directory).into()));
        };
        let directory = &home.log;
        let path = directory.partition_path(&new.id);
        let stored = if is_there { directory.topic_id(&new.id) } else { None };
        let mut how = if is_there { directory.recovery(&new.id) } else { Recovery::New };
        if let Some(other) = stored.filter(|id| *id != new.topic_id) {
            if !self.not_renamed.lock().unwrap_or_else(PoisonError::into_inner).contains(&other) {
                let what =
                    format!("its data belongs to the topic with id {other}, but the id of the topic with this name is {}", new.topic_id);
                return Err(storage::Error::Metadata { path, what }.into());
            }
            // Its topic was deleted, and the directory could not be renamed then.
            directory.forget(|| vec![new.id.clone()])?;
            directory.retire_partition(&new.id, &*self.env.0.entropy)?;
            how = Recovery::New;
        }
        if stored != Some(new.topic_id) {
            directory.create_partition(&new.id, new.topic_id)?;
        }
        let now_ms = self.env.0.clock.wall_ms();
        let (mut log, mut report) = Log::open(&home.files, &path, new.settings.log.clone(), how, now_ms)?;
        if how == Recovery::Clean && directory.clean_end(&new.id).is_some_and(|end| end != log.log_end()) {
            // Either the log or the recovery point is damaged: the guarantees of a clean stop do not hold.
            (log, report) = Log::open(&home.files, &path, new.settings.log.clone(), Recovery::From(Offset(0)), now_ms)?;
        }
        // A new log is durable before any commit to it: the journal has nothing to restore for it.
        let stored = if how == Recovery::New { Vec::new() } else { directory.committed_to(&new.id, new.topic_id) };
        for batches in stored {
            match log.restore(&batches, &mut report, now_ms) {
                Err(error @ storage::Error::Corrupt { .. }) => {
                    error!(partition = %new.id, %error, "the log ends before its records in the commit journal");
                    break;
                }
                restored => restored?,
            }
        }
        if report.missing_records > 0 {
            error!(partition = %new.id, records = report.missing_records, "records before those in the commit journal are missing");
        }
        if how != Recovery::New
            && let Some(offset) = directory.log_starts().get(&new.id)
        {
            log.delete_before(offset, log.log_end(), now_ms)?;
        }
        let leader_epoch = new.leader_epoch;
        let replica = Replica::new(new, log, home);
        // This is the only replica of its partition.
        replica.become_leader(leader_epoch, &[])?;
        Ok((replica, report))
    }

    /// Under [`Durability::Fsync`], opened logs are published only once their content is durable, and the names of new ones are durable. Returns
    /// separately the replicas for which this fails.
    fn commit_opened(&self, mut opened: Vec<Arc<Replica>>) -> (Vec<Arc<Replica>>, Vec<Failed>) {
        let mut failed: Vec<Failed> = Vec::new();
        for home in self.directories.iter().filter(|home| home.durability == Durability::Fsync) {
            let is_here = |replica: &Arc<Replica>| Arc::ptr_eq(&replica.home, home);
            let (mut logs, mut unflushed) = (Vec::new(), Vec::new());
            opened.retain(|replica| {
                let files = if is_here(replica) { replica.unflushed() } else { Ok(None) };
                match files {
                    Ok(files) => logs.extend(files.map(|files| {
                        unflushed.push(files);
                        replica.clone()
                    })),
                    Err(error) => {
                        failed.push((replica.id().clone(), replica.topic_id(), error));
                        return false;
                    }
                }
                true
            });
            if !opened.iter().any(is_here) {
                continue;
            }
            let synced = self.sync_files(home, unflushed);
            let synced = synced.and_then(|synced| Ok(home.log.sync_names().inspect_err(|error| home.judge(error)).map(|()| synced)?));
            match synced {
                Ok(synced) => logs.iter().zip(synced).for_each(|(replica, synced)| replica.flushed(synced)),
                Err(error) => {
                    let why: Arc<str> = error.to_string().into();
                    let (here, others) = opened.into_iter().partition(is_here);
                    opened = others;
                    let here: Vec<Arc<Replica>> = here;
                    failed.extend(here.iter().map(|r| (r.id().clone(), r.topic_id(), Error::NotOpened(r.id().clone(), why.clone()))));
                }
            }
        }
        (opened, failed)
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

    /// Deletes topics: when this returns, no read or list contains them and their names are free; their disk space is freed by
    /// [`Partitions::remove`]. A directory that cannot be renamed keeps its name and is logged; the rename is repeated when a topic is created with
    /// that name, and at the next start.
    ///
    /// Concurrent work on such a partition on other threads ends by itself: see [`Replica::retire`].
    pub fn delete(&self, topics: &[Arc<str>]) -> Retired {
        let _guard = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_topic = ByTopic::clone(&self.by_topic.load());
        let gone: Vec<_> = topics.iter().filter_map(|topic| by_topic.remove(topic)).collect();
        self.by_topic.store(Arc::new(by_topic));
        let mut retired = Retired::default();
        let mut failed = Vec::new();
        for replica in gone.iter().flat_map(|replicas| replicas.iter().flatten()) {
            replica.retire();
            self.retire_in(&replica.home, replica.id(), replica.topic_id(), &mut retired, &mut failed);
        }
        let mut not_opened = self.not_opened();
        let (deleted, others) = std::mem::take(&mut *not_opened).into_iter().partition(|(id, _)| topics.contains(&id.topic));
        *not_opened = others;
        drop(not_opened);
        let deleted: BTreeMap<TopicPartition, (Uuid, Arc<str>)> = deleted;
        for (id, (topic_id, _)) in deleted {
            // A directory that belongs to another topic stays.
            let is_its = |home: &&Arc<OpenDirectory>| home.log.topic_id(&id).is_none_or(|found| found == topic_id);
            for home in self.usable().filter(is_its) {
                self.retire_in(home, &id, topic_id, &mut retired, &mut failed);
            }
        }
        if let Some((_, error)) = failed.first() {
            let partitions = named(failed.iter().map(|(id, _)| id));
            error!(%partitions, count = failed.len(), %error, "the directories of deleted partitions could not be removed; the next start removes them");
        }
        retired
    }

    fn retire_in(
        &self,
        home: &Arc<OpenDirectory>,
        id: &TopicPartition,
        topic_id: Uuid,
        retired: &mut Retired,
        failed: &mut Vec<(TopicPartition, storage::Error)>,
    ) {
        match home.log.retire_partition(id, &*self.env.0.entropy) {
            Ok(directory) => {
                home.renamed();
                retired.directories.extend(directory.map(|directory| (home.clone(), directory)));
                retired.partitions.push(id.clone());
            }
            Err(error) => {
                home.judge(&error);
                self.not_renamed.lock().unwrap_or_else(PoisonError::into_inner).insert(topic_id);
                failed.push((id.clone(), error));
            }
        }
    }

    /// Removes the files of deleted partitions and their entries in checkpoint files. A directory that cannot be removed does not prevent the
    /// removal of others; the result is the last error. Several calls may run concurrently. `go_on` is called before each directory.
    pub fn remove(&self, retired: Retired, go_on: impl Fn() -> bool) -> Result<usize, Error> {
        let mut outcome = Ok(0);
        for home in self.usable() {
            // A topic that was created again with the name may have entries of its own.
            let gone = || retired.partitions.iter().filter(|id| self.get(&id.topic, id.partition).is_none()).cloned().collect();
            outcome = home.log.forget(gone).inspect_err(|error| home.judge(error)).map_err(Error::from).and(outcome);
        }
        for (home, directory) in retired.directories {
            if !go_on() {
                break;
            }
            let removed = home.log.remove_retired(&directory).inspect_err(|error| home.judge(error));
            outcome = removed.map_err(Error::from).and(outcome).map(|count| count + 1);
        }
        outcome
    }

    /// Directories that earlier starts retired and did not remove.
    pub fn left_to_remove(&self) -> Result<Retired, Error> {
        let mut retired = Retired::default();
        for home in self.usable() {
            retired.directories.extend(home.log.retired()?.into_iter().map(|directory| (home.clone(), directory)));
        }
        Ok(retired)
    }

    /// Fsyncs the names of the directories of deleted partitions. After this none reappears in a crash, so that the deletion of its topic need not be
    /// remembered any more.
    pub fn sync_deleted(&self) -> Result<(), Error> {
        self.usable().filter(|home| home.take_renamed()).try_for_each(|home| {
            home.log.sync_names().inspect_err(|error| home.judge(error))?;
            Ok(())
        })
    }

    /// Retires the remaining directories of deleted topics, if a crash interrupted the deletion. A directory of a topic that was never deleted stays,
    /// whether or not the topic is known: data is removed only on request. A directory that cannot be renamed is logged and stays.
    pub fn retire_deleted(&self, deleted: &BTreeSet<Uuid>) -> Result<Retired, Error> {
        let mut retired = Retired::default();
        let mut failed = Vec::new();
        for home in self.usable() {
            for id in home.log.partitions()? {
                if let Some(topic_id) = home.log.topic_id(&id).filter(|topic_id| deleted.contains(topic_id)) {
                    self.retire_in(home, &id, topic_id, &mut retired, &mut failed);
                }
            }
        }
        if let Some((_, error)) = failed.first() {
            let partitions = named(failed.iter().map(|(id, _)| id));
            error!(%partitions, count = failed.len(), %error, "the directories of deleted partitions could not be removed; the next start removes them");
        }
        Ok(retired)
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

    /// Truncates a follower's log; see [`Log::truncate_to`]. Returns the new log end offset. Blocks, also until the commits in progress in its
    /// directory have ended.
    ///
    /// Concurrent work: a flush that began before does not prove anything afterwards ([`storage::Extent`] counts truncations); no flush
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
    /// many](Partitions::committers) calls may run concurrently.
    pub fn commit(&self, directory: usize) -> Result<(), Error> {
        let home = &self.directories[directory];
        let _offline_on_panic = home.offline_on_panic();
        let committer = home.commits.committer();
        let outcome = std::iter::from_fn(|| committer.next()).try_for_each(|running| self.commit_in(home, &committer, running));
        if home.is_offline() {
            // Batches that are not durable now will never be.
            self.in_directory(home).iter().for_each(|replica| replica.wake());
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
        let outcome = self.commit_logs(home, committer, running, &behind);
        if outcome.is_err() {
            behind.iter().for_each(|replica| replica.give_back());
        }
        outcome
    }

    /// Commits logs to the journal, or by a flush if the journal has no room.
    fn commit_logs<'a>(
        &self,
        home: &'a Arc<OpenDirectory>,
        committer: &Committer<'a>,
        running: MutexGuard<'a, Running>,
        behind: &[Arc<Replica>],
    ) -> Result<(), Error> {
        let (mut committing, mut entries) = (Vec::new(), Vec::new());
        for replica in behind {
            if let Some(entry) = replica.uncommitted()? {
                committing.push(replica);
                entries.push(entry);
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        let room = home.log.journal().reserve(&entries).inspect_err(|error| home.judge(error))?;
        let in_flight = committer.begin(running);
        let committed = room.map_or(Ok(Committed::NoRoom), |room| room.commit().inspect_err(|error| home.judge(error)));
        // The batches are given back before the commit ends: a truncation waits for that end and asserts that no commit reads the truncated part.
        let extents: Vec<_> = entries.into_iter().map(|entry| entry.batches.extent).collect();
        match committed? {
            Committed::NoRoom => {
                drop(in_flight);
                return self.flush_in(home);
            }
            Committed::FlushDue => home.signals.flush_due.notify_one(),
            Committed::Durable => {}
        }
        committing.iter().zip(extents).for_each(|(replica, extent)| replica.commit(extent));
        drop(in_flight);
        Ok(())
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

    fn sync_in(&self, home: &OpenDirectory, replicas: &[Arc<Replica>]) -> Result<(), Error> {
        let (mut dirty, mut unflushed) = (Vec::new(), Vec::new());
        for replica in replicas {
            if let Some(files) = replica.unflushed()? {
                dirty.push(replica);
                unflushed.push(files);
            }
        }
        let synced = self.sync_files(home, unflushed)?;
        dirty.iter().zip(synced).for_each(|(replica, synced)| replica.flushed(synced));
        Ok(())
    }

    /// A failed fsync is never repeated: the kernel may have dropped the data that it could not write.
    fn sync_files(&self, home: &OpenDirectory, unflushed: Vec<Unflushed>) -> Result<Vec<Synced>, Error> {
        let mut begin = Instant::now();
        let mut pause = || {
            home.give_way(begin.elapsed());
            begin = Instant::now();
        };
        Ok(home.sync(|| sync_logs(&*self.env.0.disk, home.log.path(), unflushed, &mut pause))?)
    }

    fn usable(&self) -> impl Iterator<Item = &Arc<OpenDirectory>> {
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
        let _guard = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = Ok(());
        for home in &self.directories {
            outcome = self.close_in(home).and(outcome);
        }
        outcome
    }

    fn close_in(&self, home: &Arc<OpenDirectory>) -> Result<(), Error> {
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
        Ok(home.log.mark_clean()?)
    }
}

/// Some partition names for the broker's log, with the number of the others.
fn named<'a>(partitions: impl Iterator<Item = &'a TopicPartition>) -> String {
    let all: Vec<&TopicPartition> = partitions.collect();
    let first: Vec<String> = all.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = all.len().saturating_sub(NAMED_MAX);
    if more > 0 { format!("{} and {more} more", first.join(", ")) } else { first.join(", ") }
}

fn is_disk_failure(error: &Error) -> bool {
    matches!(error, Error::Storage(error) if error.is_disk_failure())
}
