//! Chooses the log directory of each new replica.

use std::sync::Arc;

use super::open_directory::OpenDirectory;
use super::partitions::Failed;
use super::{Error, NewReplica, Partitions};
use crate::model::TopicPartition;

/// A new replica and its directory.
pub(super) struct Placed {
    pub(super) new: NewReplica,
    /// None if it is unknown: the replica may be in a directory that cannot be used.
    pub(super) home: Option<Arc<OpenDirectory>>,
    /// Whether its partition directory exists already.
    pub(super) is_there: bool,
}

impl Partitions {
    /// The directory of each replica: the existing one, or for a new replica the one with the fewest replicas.
    pub(super) fn placed(&self, new: Vec<NewReplica>) -> Vec<Placed> {
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
