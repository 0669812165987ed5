//! All replicas of this broker.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::condition::Condition;
use super::{Error, Replica, TopicSettings};
use crate::env::Env;
use crate::model::{LeaderEpoch, Offset, TopicPartition, Uuid};
use crate::storage;
use crate::storage::{Cleaned, Cleaner, Cleaning, Log, LogDirectory, Pace, Recovery, Report, Synced, Unflushed, sync_logs};

/// A partition that this broker is to lead.
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
}

/// What opening the replicas did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Replicas opened or made.
    pub replicas: usize,
    /// Bytes read and checked.
    pub scanned_bytes: u64,
    /// Bytes cut off torn tails.
    pub cut_bytes: u64,
}

type ByTopic = HashMap<Arc<str>, Arc<Vec<Option<Arc<Replica>>>>>;

/// The replicas by topic, read without locks.
#[derive(Debug)]
pub struct Partitions {
    env: EnvHandle,
    directory: LogDirectory,
    by_topic: ArcSwap<ByTopic>,
    change: Mutex<()>,
    condition: Arc<Condition>,
}

/// Keeps `Env` out of debug output.
struct EnvHandle(Env);

impl std::fmt::Debug for EnvHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}

impl Partitions {
    /// No replica yet, in an open directory.
    pub fn new(env: Env, directory: LogDirectory) -> Partitions {
        Partitions { env: EnvHandle(env), directory, by_topic: ArcSwap::default(), change: Mutex::new(()), condition: Arc::default() }
    }

    /// The directory.
    pub fn directory(&self) -> &LogDirectory {
        &self.directory
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

    /// Opens or makes replicas, and then shows them all at once. What is there under another topic id (a deletion that a crash cut short)
    /// is retired first.
    pub fn lead(&self, new: Vec<NewReplica>) -> Result<Recovered, Error> {
        let _guard = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recovered = Recovered::default();
        let mut opened = Vec::with_capacity(new.len());
        for (replica, report) in self.open_all(new)? {
            recovered.replicas += 1;
            recovered.scanned_bytes += report.scanned_bytes;
            recovered.cut_bytes += report.cut_bytes;
            opened.push(Arc::new(replica));
        }
        let mut by_topic = ByTopic::clone(&self.by_topic.load());
        for replica in opened {
            let replicas = Arc::make_mut(by_topic.entry(replica.id().topic.clone()).or_default());
            let index = replica.id().partition as usize;
            if replicas.len() <= index {
                replicas.resize(index + 1, None);
            }
            replicas[index] = Some(replica);
        }
        self.by_topic.store(Arc::new(by_topic));
        Ok(recovered)
    }

    /// Opens as many at once as the machine has cores.
    fn open_all(&self, new: Vec<NewReplica>) -> Result<Vec<(Replica, Report)>, Error> {
        let threads = self.env.0.workers.count().min(new.len());
        let left = Mutex::new(new.into_iter());
        let open_some = || {
            let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
            std::iter::from_fn(next).map(|new| self.open(new)).collect::<Result<Vec<_>, Error>>()
        };
        if threads < 2 {
            return open_some();
        }
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(open_some)).collect();
            let joined = running.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.collect::<Result<Vec<_>, Error>>().map(|opened| opened.into_iter().flatten().collect())
        })
    }

    fn open(&self, new: NewReplica) -> Result<(Replica, Report), Error> {
        let Env { disk, entropy, clock, .. } = &self.env.0;
        let path = self.directory.partition_path(&new.id);
        let known = disk.exists(&path);
        if known && self.directory.topic_id(&new.id).is_some_and(|id| id != new.topic_id) {
            self.directory.retire_partition(&new.id, &**entropy)?;
        }
        let how = if disk.exists(&path) { self.directory.recovery(&new.id) } else { Recovery::New };
        if self.directory.topic_id(&new.id).is_none() {
            self.directory.create_partition(&new.id, new.topic_id)?;
        }
        let now_ms = clock.wall_ms();
        let (mut log, report) = Log::open(disk.clone(), &path, new.settings.log.clone(), how, now_ms)?;
        let (log_starts, cleaned) = (self.directory.log_starts(), self.directory.cleaned());
        if how == Recovery::New {
            // Of an earlier topic of this name.
            log_starts.set(&[(new.id.clone(), None)])?;
            cleaned.set(&[(new.id.clone(), None)])?;
        } else if let Some(offset) = log_starts.get(&new.id) {
            log.delete_before(offset, log.log_end(), now_ms)?;
        }
        Ok((Replica::lead(new, log, self.condition.clone()), report))
    }

    /// Deletes the first records of partitions, durably, each below an offset or, without one, all that are committed. The answers are the
    /// first offsets that are left. Blocks.
    pub fn delete_records(&self, below: &[(Arc<Replica>, Option<Offset>)]) -> Result<Vec<Result<Offset, Error>>, Error> {
        let now_ms = self.env.0.clock.wall_ms();
        let results: Vec<_> = below.iter().map(|(replica, offset)| replica.delete_before(*offset, now_ms)).collect();
        let starts = below.iter().zip(&results);
        let starts: Vec<_> = starts.filter_map(|((replica, _), start)| Some((replica.id().clone(), Some(*start.as_ref().ok()?)))).collect();
        self.directory.log_starts().set(&starts)?;
        Ok(results)
    }

    /// Takes topics away: no read or list shows them when this returns, their names are free, and their bytes are removed by
    /// [`Partitions::remove_deleted`].
    pub fn delete(&self, topics: &[Arc<str>]) -> Result<(), Error> {
        let _guard = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_topic = ByTopic::clone(&self.by_topic.load());
        let gone: Vec<_> = topics.iter().filter_map(|topic| by_topic.remove(topic)).collect();
        self.by_topic.store(Arc::new(by_topic));
        for replica in gone.iter().flat_map(|replicas| replicas.iter().flatten()) {
            replica.retire();
            self.directory.retire_partition(replica.id(), &*self.env.0.entropy)?;
        }
        Ok(())
    }

    /// Removes what was deleted.
    pub fn remove_deleted(&self) -> Result<usize, Error> {
        Ok(self.directory.remove_deleted()?)
    }

    /// Retires what is left of deleted topics, where a crash cut the deletion short. A directory of a topic that was never deleted stays,
    /// whether or not the topic is known: data goes only where somebody said so.
    pub fn retire_deleted(&self, deleted: &BTreeSet<Uuid>) -> Result<usize, Error> {
        let mut retired = 0;
        for id in self.directory.partitions()? {
            if self.directory.topic_id(&id).is_some_and(|topic_id| deleted.contains(&topic_id)) {
                self.directory.retire_partition(&id, &*self.env.0.entropy)?;
                retired += 1;
            }
        }
        Ok(retired)
    }

    /// Runs retention everywhere; one partition's failure does not stop the others.
    pub fn maintain(&self, producer_expiration_ms: i64) -> Vec<(TopicPartition, Result<usize, Error>)> {
        let now_ms = self.env.0.clock.wall_ms();
        self.all().iter().map(|replica| (replica.id().clone(), replica.maintain(now_ms, producer_expiration_ms))).collect()
    }

    /// Compacts the log with the largest dirty part among those that are due, except those in `skip`; none is due where there is no answer.
    /// Blocks, and holds no lock while it reads and writes.
    pub fn compact(
        &self,
        cleaner: &Cleaner,
        skip: &BTreeSet<TopicPartition>,
        pace: &mut Pace<'_>,
    ) -> Option<(TopicPartition, Result<Cleaned, Error>)> {
        let Env { disk, clock, .. } = &self.env.0;
        let now_ms = clock.wall_ms();
        let mut due: Vec<(Arc<Replica>, Cleaning)> = Vec::new();
        for replica in self.all().into_iter().filter(|r| !skip.contains(r.id())) {
            match replica.cleaning(self.directory.cleaned().get(replica.id()), now_ms) {
                Ok(cleaning) => due.extend(cleaning.map(|cleaning| (replica, cleaning))),
                Err(error) => return Some((replica.id().clone(), Err(error))),
            }
        }
        let (replica, cleaning) = due.into_iter().max_by(|a, b| a.1.dirty().ratio.total_cmp(&b.1.dirty().ratio))?;
        // What compaction takes away is outdated by records that must not be lost afterwards.
        let durable = self.sync(std::slice::from_ref(&replica));
        let cleaned = durable.and_then(|()| replica.clean(&**disk, cleaner, &cleaning, now_ms, pace)).and_then(|cleaned| {
            if cleaned.segments_before > 0 {
                self.directory.cleaned().set(&[(replica.id().clone(), Some(cleaned.clean_to))])?;
            }
            Ok(cleaned)
        });
        Some((replica.id().clone(), cleaned))
    }

    /// Makes everything durable and writes the recovery points. Blocks; nothing is locked while the disk works.
    pub fn flush(&self) -> Result<(), Error> {
        let replicas = self.all();
        self.condition.flushing();
        self.sync(&replicas)?;
        let points: Vec<_> = replicas.iter().filter(|r| !r.is_closed()).map(|r| (r.id().clone(), r.recovery_point())).collect();
        Ok(self.directory.save_recovery_points(&points)?)
    }

    /// Makes those logs durable in which a record has waited for longer than `flush.ms` allows.
    pub fn flush_overdue(&self) -> Result<(), Error> {
        let now_ms = self.env.0.clock.wall_ms();
        let overdue: Vec<_> = self.all().into_iter().filter(|replica| replica.waits_too_long(now_ms)).collect();
        if overdue.is_empty() { Ok(()) } else { self.sync(&overdue) }
    }

    fn sync(&self, replicas: &[Arc<Replica>]) -> Result<(), Error> {
        let (mut dirty, mut unflushed) = (Vec::new(), Vec::new());
        for replica in replicas {
            if let Some(files) = replica.unflushed()? {
                dirty.push(replica);
                unflushed.push(files);
            }
        }
        let synced = self.sync_files(unflushed)?;
        dirty.iter().zip(synced).for_each(|(replica, synced)| replica.flushed(synced));
        Ok(())
    }

    /// A sync that fails is never tried again: the kernel may have forgotten what it could not write.
    fn sync_files(&self, unflushed: Vec<Unflushed>) -> Result<Vec<Synced>, Error> {
        let path = self.directory.path();
        if self.is_offline() {
            return Err(storage::Error::Offline(path.to_path_buf()).into());
        }
        Ok(sync_logs(&*self.env.0.disk, path, unflushed).inspect_err(|error| self.condition.go_offline(error))?)
    }

    /// Whether the disk under the log directory has failed.
    pub fn is_offline(&self) -> bool {
        self.condition.is_offline()
    }

    /// Waits until so much was written that a flush is due.
    pub async fn flush_due(&self) {
        self.condition.flush_due.notified().await;
    }

    /// Waits until a write finds no room.
    pub async fn full(&self) {
        self.condition.full.notified().await;
    }

    /// Closes every log and says in the directory, once all is durable, that all is well.
    pub fn close(&self) -> Result<(), Error> {
        let _guard = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let replicas = self.all();
        let mut unflushed = Vec::new();
        for replica in &replicas {
            unflushed.extend(replica.close()?);
        }
        self.sync_files(unflushed)?;
        let points: Vec<_> = replicas.iter().map(|r| (r.id().clone(), r.view().log_end)).collect();
        self.directory.save_recovery_points(&points)?;
        Ok(self.directory.mark_clean()?)
    }
}
