//! Opens, configures and deletes this broker's partitions as the metadata requires.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use super::{Error, MetadataImage, Pending};
use crate::env::Workers;
use crate::model::{LeaderEpoch, TopicPartition, Uuid};
use crate::partition::{self, NewReplica, Partitions, Retired, TopicSettings, setting_behind};

/// The parts of the broker that follow the metadata.
#[derive(Clone)]
pub struct Following {
    /// This broker's partitions.
    pub partitions: Arc<Partitions>,
    /// The threads on which they are opened and deleted.
    pub workers: Workers,
    /// This broker's id.
    pub broker: i32,
}

/// Brings the broker's state in line with the image. Calls do not overlap; the image is published when a call returns.
pub(super) trait Follow: Send + Sync {
    /// Applies the image. After a failure the next call retries.
    fn follow(&self, next: MetadataImage, when: When) -> Pending<()>;

    /// Removes what deleted topics left after a crash.
    fn retire_deleted(&self, deleted: BTreeSet<Uuid>) -> Pending<()>;

    /// Fsyncs the removal of deleted topics, so that the metadata no longer has to list them.
    fn sync_deleted(&self) -> Pending<()> {
        Box::pin(async { Ok(()) })
    }

    /// Waits until all background work has ended.
    fn close(&self) -> Pending<()> {
        Box::pin(async { Ok(()) })
    }
}

/// Whether partitions existed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Starting,
    Running,
}

/// Keeps this broker's partitions in line with the image.
#[derive(Clone)]
pub(super) struct Follower {
    image: Arc<ArcSwap<MetadataImage>>,
    following: Following,
    /// The defaults of topics from the broker's configuration.
    topic_defaults: BTreeMap<String, String>,
    /// Background removals of deleted partitions. Several may run at once: each removes what one change of the metadata deleted.
    removals: TaskTracker,
    /// Stops the removals between two partitions.
    stop: CancellationToken,
}

impl Follow for Follower {
    fn follow(&self, next: MetadataImage, when: When) -> Pending<()> {
        self.blocking(move |follower| {
            follower.follow_now(next, when);
            Ok(())
        })
    }

    fn retire_deleted(&self, deleted: BTreeSet<Uuid>) -> Pending<()> {
        self.blocking(move |follower| {
            follower.retire_now(&deleted);
            Ok(())
        })
    }

    fn sync_deleted(&self) -> Pending<()> {
        self.blocking(|follower| follower.following.partitions.sync_deleted().map_err(|e| Error::Storage(e.to_string())))
    }

    fn close(&self) -> Pending<()> {
        // The next start removes what is left of deleted topics.
        self.stop.cancel();
        self.removals.close();
        let removals = self.removals.clone();
        Box::pin(async move {
            removals.wait().await;
            Ok(())
        })
    }
}

impl Follower {
    /// Publishes each image in `image` once the partitions match it.
    pub(super) fn new(image: Arc<ArcSwap<MetadataImage>>, following: Following, topic_defaults: BTreeMap<String, String>) -> Follower {
        let (removals, stop) = (TaskTracker::new(), CancellationToken::new());
        Follower { image, following, topic_defaults, removals, stop }
    }

    /// Runs work that may block.
    fn blocking(&self, work: impl FnOnce(&Follower) -> Result<(), Error> + Send + 'static) -> Pending<()> {
        let (follower, workers) = (self.clone(), self.following.workers.clone());
        let work = move || work(&follower);
        Box::pin(async move { workers.blocking(work).await.map_err(|e| Error::Storage(e.to_string()))? })
    }

    /// Deletes and opens partitions, and then publishes the image.
    fn follow_now(&self, next: MetadataImage, when: When) {
        let now = self.image.load();
        assert!(next.offset >= now.offset, "the metadata went back from offset {} to {}", now.offset, next.offset);
        let gone: Vec<Arc<str>> =
            now.topics().filter(|t| next.topic(&t.name).is_none_or(|n| n.id != t.id)).map(|t| t.name.clone()).collect();
        if !gone.is_empty() {
            // Readers of the image must not find a topic whose partitions are already deleted.
            let mut without = MetadataImage::clone(&now);
            gone.iter().filter_map(|name| now.topic(name)).for_each(|t| without.forget(t.id));
            self.image.store(Arc::new(without));
            self.remove(self.following.partitions.delete(&gone));
        }
        let new = self.new_replicas(&now, &next, when);
        if !new.is_empty() {
            let recovered = self.following.partitions.lead(new);
            let partition::Recovered { replicas, scanned_bytes, cut_bytes, restored_bytes } = recovered;
            if scanned_bytes > 0 || restored_bytes > 0 {
                info!(replicas, scanned_bytes, cut_bytes, restored_bytes, "recovered after a stop that was not clean");
            }
        }
        self.configure_changed(&now, &next);
        self.image.store(Arc::new(next));
    }

    /// Removes the files of deleted partitions in the background.
    fn remove(&self, retired: Retired) {
        let Following { partitions, workers, .. } = self.following.clone();
        let stop = self.stop.clone();
        let removal = async move {
            if let Ok(Err(error)) = workers.blocking(move || partitions.remove(retired, || !stop.is_cancelled())).await {
                error!(%error, "deleted partitions could not be removed; the next start tries again");
            }
        };
        self.removals.spawn(removal);
    }

    /// Applies changed settings to the replicas of their topics.
    fn configure_changed(&self, now: &MetadataImage, next: &MetadataImage) {
        let (before, after) = (self.topic_defaults(now), self.topic_defaults(next));
        for topic in next.topics() {
            let Some(known) = now.topic(&topic.name).filter(|t| t.id == topic.id) else { continue };
            if known.configs == topic.configs && before == after {
                continue;
            }
            let settings = TopicSettings::of(&topic.configs, &after);
            let replicas = (0..topic.partitions.len()).filter_map(|number| self.following.partitions.get(&topic.name, number as i32));
            replicas.for_each(|replica| replica.configure(settings.clone()));
        }
    }

    /// The defaults of topics: values that were changed while the broker ran, otherwise those of its configuration.
    fn topic_defaults(&self, image: &MetadataImage) -> BTreeMap<String, String> {
        let mut defaults = self.topic_defaults.clone();
        for configs in ["", &self.following.broker.to_string()].iter().filter_map(|broker| image.broker_configs(broker)) {
            let named = configs.iter().filter_map(|(name, value)| Some((setting_behind(name)?.name.to_string(), value.clone())));
            defaults.extend(named);
        }
        defaults
    }

    fn new_replicas(&self, now: &MetadataImage, next: &MetadataImage, when: When) -> Vec<NewReplica> {
        let mut new = Vec::new();
        let defaults = self.topic_defaults(next);
        for topic in next.topics() {
            let known = now.topic(&topic.name).filter(|t| t.id == topic.id).map_or(0, |t| t.partitions.len());
            if known == topic.partitions.len() {
                continue;
            }
            let settings = TopicSettings::of(&topic.configs, &defaults);
            for (number, partition) in topic.partitions.iter().enumerate().skip(known).filter(|(_, p)| p.leader == self.following.broker) {
                let id = TopicPartition::new(topic.name.clone(), number as i32);
                new.push(NewReplica {
                    id,
                    topic_id: topic.id,
                    leader_epoch: LeaderEpoch(partition.leader_epoch),
                    settings: settings.clone(),
                    is_known: when == When::Starting,
                });
            }
        }
        new
    }

    /// Retires and removes what deleted topics left after a crash. A failure does not prevent the start.
    fn retire_now(&self, deleted: &BTreeSet<Uuid>) {
        let partitions = &self.following.partitions;
        let removed = partitions.retire_deleted(deleted).and_then(|retired| {
            partitions.remove(retired, || true)?;
            partitions.remove(partitions.left_to_remove()?, || true)
        });
        if let Err(error) = removed {
            error!(%error, "deleted partitions could not be removed; the next start tries again");
        }
    }
}
