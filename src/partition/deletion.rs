//! Deletes the partitions of deleted topics: their names first, their disk space later.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use tracing::error;

use super::open_directory::OpenDirectory;
use super::partitions::{ByTopic, named};
use super::{Error, Partitions};
use crate::model::{TopicPartition, Uuid};
use crate::storage;

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

impl Partitions {
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
            error!(%partitions, count = failed.len(), %error, "deleted partitions keep their directories; the next start removes them");
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
            error!(%partitions, count = failed.len(), %error, "deleted partitions keep their directories; the next start removes them");
        }
        Ok(retired)
    }
}
