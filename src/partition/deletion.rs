//! Deletes the partitions of deleted topics: their names first, their disk space later.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};

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

/// Deletions that are not complete in some directory. Until they are, the metadata must list them: otherwise the directory of a deleted topic
/// could be found under its old name, which is the name of a new topic by then.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    /// Deleted partitions, with the ids of their topics, whose directory could not be renamed: its name is not free yet.
    not_renamed: Vec<(Arc<OpenDirectory>, TopicPartition, Uuid)>,
    /// The log directories that were lost or offline and may contain partitions of deleted topics.
    not_reached: BTreeSet<PathBuf>,
}

impl Retired {
    /// The number of directories.
    pub fn count(&self) -> usize {
        self.directories.len()
    }
}

impl Partitions {
    /// Deletes topics: when this returns, no read or list contains them and their names are free; their disk space is freed by
    /// [`Partitions::remove`]. A directory that cannot be renamed keeps its name and is logged; the rename is repeated by [`Partitions::retire_again`],
    /// when a topic is created with that name, and at the next start.
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
            for home in self.usable() {
                match home.log.topic_id(&id) {
                    // A directory that belongs to another topic stays.
                    Ok(found) if found.is_some_and(|found| found != topic_id) => {}
                    Ok(_) => self.retire_in(home, &id, topic_id, &mut retired, &mut failed),
                    Err(error) => self.not_retired(home, &id, topic_id, error, &mut failed),
                }
            }
            self.note_not_reached();
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
            Err(error) => self.not_retired(home, id, topic_id, error, failed),
        }
    }

    fn not_retired(
        &self,
        home: &Arc<OpenDirectory>,
        id: &TopicPartition,
        topic_id: Uuid,
        error: storage::Error,
        failed: &mut Vec<(TopicPartition, storage::Error)>,
    ) {
        home.judge(&error);
        self.unfinished().not_renamed.push((home.clone(), id.clone(), topic_id));
        failed.push((id.clone(), error));
    }

    fn unfinished(&self) -> MutexGuard<'_, Unfinished> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that partitions of deleted topics may be in the directories that cannot be used now.
    fn note_not_reached(&self) {
        let offline = self.directories.iter().filter(|home| home.is_offline()).map(|home| home.log.path().to_path_buf());
        self.unfinished().not_reached.extend(offline.chain(self.lost.iter().cloned()));
    }

    /// Whether a topic was deleted and one of its directories could not be renamed.
    pub(super) fn is_deleted(&self, topic_id: Uuid) -> bool {
        self.unfinished().not_renamed.iter().any(|(.., deleted)| *deleted == topic_id)
    }

    /// Notes that a directory of a deleted topic was renamed in a later attempt.
    pub(super) fn renamed(&self, home: &Arc<OpenDirectory>, id: &TopicPartition) {
        home.renamed();
        self.unfinished().not_renamed.retain(|(at, not_renamed, _)| !Arc::ptr_eq(at, home) || not_renamed != id);
    }

    /// Renames the directories of deleted partitions that could not be renamed before.
    pub fn retire_again(&self) -> Retired {
        let _guard = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut retired, mut failed) = (Retired::default(), Vec::new());
        let not_renamed = std::mem::take(&mut self.unfinished().not_renamed);
        for (home, id, topic_id) in not_renamed {
            // Meanwhile the name may have been freed and given to a new topic.
            let is_used = self.get(&id.topic, id.partition).is_some_and(|replica| Arc::ptr_eq(&replica.home, &home));
            match home.check_online().and_then(|()| home.log.topic_id(&id)) {
                Ok(found) if is_used || found.is_some_and(|found| found != topic_id) => {}
                Ok(_) => self.retire_in(&home, &id, topic_id, &mut retired, &mut failed),
                Err(error) => self.not_retired(&home, &id, topic_id, error, &mut failed),
            }
        }
        // What the checkpoints contain about these names may belong to new topics.
        retired.partitions.clear();
        retired
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
    /// remembered any more. An error if a directory may still contain partitions of a deleted topic under their old names.
    pub fn sync_deleted(&self) -> Result<(), Error> {
        for home in self.directories.iter().filter(|home| home.take_renamed()) {
            let synced = home.check_online().and_then(|()| home.log.sync_names());
            synced.inspect_err(|error| {
                home.renamed();
                home.judge(error);
            })?;
        }
        let Unfinished { not_renamed, not_reached } = &*self.unfinished();
        let first = not_renamed.first().map(|(home, ..)| home.log.path()).or(not_reached.first().map(PathBuf::as_path));
        first.map_or(Ok(()), |directory| Err(Error::NotRenamed(directory.to_path_buf())))
    }

    /// Retires the remaining directories of deleted topics, if a crash interrupted the deletion. A directory of a topic that was never deleted stays,
    /// whether or not the topic is known: data is removed only on request. A directory that cannot be renamed is logged and stays.
    pub fn retire_deleted(&self, deleted: &BTreeSet<Uuid>) -> Retired {
        let mut retired = Retired::default();
        let mut failed = Vec::new();
        if deleted.is_empty() {
            return retired;
        }
        for home in self.usable() {
            let directory = home.log.path();
            let ids = home.log.partitions().and_then(|ids| ids.into_iter().map(|id| Ok((home.log.topic_id(&id)?, id))).collect());
            let ids: Vec<(Option<Uuid>, TopicPartition)> = ids.unwrap_or_else(|error: storage::Error| {
                home.judge(&error);
                error!(directory = %directory.display(), %error, "it is unknown whether a log directory contains partitions of deleted topics");
                self.unfinished().not_reached.insert(directory.to_path_buf());
                Vec::new()
            });
            for (topic_id, id) in ids {
                if let Some(topic_id) = topic_id.filter(|topic_id| deleted.contains(topic_id)) {
                    self.retire_in(home, &id, topic_id, &mut retired, &mut failed);
                }
            }
        }
        self.note_not_reached();
        if let Some((_, error)) = failed.first() {
            let partitions = named(failed.iter().map(|(id, _)| id));
            error!(%partitions, count = failed.len(), %error, "the directories of deleted partitions could not be removed; the next start removes them");
        }
        retired
    }
}
