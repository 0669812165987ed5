//! Chooses the log directory of each new replica.

use std::sync::Arc;

use tracing::warn;

use super::open_directory::OpenDirectory;
use super::partitions::Failed;
use super::{Error, NewReplica, Partitions};
use crate::model::TopicPartition;
use crate::storage;

/// A new replica and its directory.
pub(super) struct Placed {
    pub(super) new: NewReplica,
    /// None if it is unknown: the replica may be in a directory that cannot be used.
    pub(super) home: Option<Arc<OpenDirectory>>,
    /// Whether its partition directory exists already.
    pub(super) is_there: bool,
}

impl Partitions {
    /// The directory of each replica: the existing one, or for a new replica the one with the fewest replicas. Partitions for which the directory
    /// cannot be chosen are returned separately.
    pub(super) fn placed(&self, new: Vec<NewReplica>) -> (Vec<Placed>, Vec<Failed>) {
        let all = self.all();
        let count = |home: &Arc<OpenDirectory>| all.iter().filter(|r| Arc::ptr_eq(&r.home, home)).count();
        let mut counts: Vec<usize> = self.directories.iter().map(count).collect();
        let (mut placed, mut failed) = (Vec::with_capacity(new.len()), Vec::new());
        for new in new {
            let found = match self.found(&new) {
                Ok(found) => found,
                Err(error) => {
                    failed.push((new.id, new.topic_id, error));
                    continue;
                }
            };
            let may_be_lost = new.is_known && !self.lost.is_empty();
            let usable = (0..self.directories.len()).filter(|at| !may_be_lost && !self.directories[*at].is_offline());
            let at = found.or_else(|| usable.min_by_key(|at| counts[*at]));
            at.into_iter().for_each(|at| counts[at] += 1);
            placed.push(Placed { new, home: at.map(|at| self.directories[at].clone()), is_there: found.is_some() });
        }
        (placed, failed)
    }

    /// The log directory that contains the partition; none if it does not exist yet. A directory with its name may belong to another topic: if that
    /// topic was deleted while the log directory was offline or lost, or if the rename failed. Its name is then freed:
    ///
    /// 1. If the deletion is known, it is completed.
    /// 2. If the partition is created now, or exists in another log directory, the other topic's directory is a stray: as in Kafka it is renamed and
    ///    never removed.
    /// 3. Otherwise the partition's own directory is missing and the stored topic id may be damaged: nothing is changed, and the partition is not
    ///    opened.
    fn found(&self, new: &NewReplica) -> Result<Option<usize>, Error> {
        let (mut own, mut unnamed, mut others) = (None, None, Vec::new());
        for (at, home) in self.directories.iter().enumerate() {
            if !self.env.0.disk.exists(&home.log.partition_path(&new.id)) {
                continue;
            }
            match home.log.topic_id(&new.id).inspect_err(|error| home.judge(error))? {
                Some(topic_id) if topic_id == new.topic_id => own = own.or(Some(at)),
                Some(topic_id) => others.push((home, topic_id)),
                // Its creation was interrupted, or the file with the id is damaged.
                None => unnamed = unnamed.or(Some(at)),
            }
        }
        let found = own.or(unnamed);
        // A replica is never placed in a directory that is offline, so the name need not be free there.
        for (home, topic_id) in others.into_iter().filter(|(home, _)| !home.is_offline()) {
            let path = home.log.partition_path(&new.id);
            if self.is_deleted(topic_id) {
                home.log.retire_partition(&new.id, &*self.env.0.entropy).inspect_err(|error| home.judge(error))?;
                self.renamed(home, &new.id);
            } else if new.is_known && found.is_none() {
                let what = format!("its data belongs to topic {topic_id}, and the topic of this name is {}", new.topic_id);
                return Err(storage::Error::Metadata { path, what }.into());
            } else {
                let aside = home.log.set_stray_aside(&new.id, &*self.env.0.entropy).inspect_err(|error| home.judge(error))?;
                let (directory, aside) = (path.display(), aside.unwrap_or_default());
                let aside = aside.display();
                warn!(partition = %new.id, %topic_id, %directory, renamed_to = %aside, "a partition's directory belongs to another topic: it is a stray and is kept");
            }
        }
        Ok(found)
    }

    /// Removes entries from checkpoint files for partitions that have no directory yet: they are from earlier topics of the same name. Durable before
    /// the directories are created, so that they are never used for the new partitions after a crash. Partitions for which it fails are returned
    /// separately.
    pub(super) fn forget_earlier(&self, mut placed: Vec<Placed>) -> (Vec<Placed>, Vec<Failed>) {
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
}
