//! Opens the logs of new replicas, which may need recovery.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

use tracing::{Span, error};

use super::open_directory::Durability;
use super::partitions::Failed;
use super::placement::Placed;
use super::{Error, Partitions, Replica};
use crate::model::{Offset, TopicPartition, Uuid};
use crate::storage::{self, Log, Recovery, Report};

/// The result of opening a replica.
pub(super) type Opened = Result<(Replica, Report), Error>;

impl Partitions {
    /// Opens replicas concurrently, with as many threads as the machine has cores.
    pub(super) fn open_all(&self, new: Vec<Placed>) -> Vec<(TopicPartition, Uuid, Opened)> {
        let threads = self.env.0.workers.count().min(new.len());
        let left = Mutex::new(new.into_iter());
        // The threads' log lines belong to this broker too.
        let span = Span::current();
        let open_some = || {
            let _entered = span.enter();
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
        let stored = if is_there { directory.topic_id(&new.id)? } else { None };
        let how = if is_there { directory.recovery(&new.id) } else { Recovery::New };
        assert!(stored.is_none_or(|id| id == new.topic_id), "{} is opened in the directory of topic {stored:?}", new.id);
        if stored.is_none() {
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
    pub(super) fn commit_opened(&self, mut opened: Vec<Arc<Replica>>) -> (Vec<Arc<Replica>>, Vec<Failed>) {
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
}
