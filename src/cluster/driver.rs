//! Runs the controller: a mailbox in front, the log behind, and the partitions that follow the image.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use super::{
    Committed, CommittedStream, Controller, ControllerSettings, Error, Event, MetadataImage, MetadataLog, MetadataRecord, Response,
};
use crate::env::Workers;
use crate::model::{LeaderEpoch, TopicPartition, Uuid};
use crate::partition::{self, NewReplica, Partitions, TopicSettings, setting_behind};

/// Events that may wait; more senders wait for room.
const MAILBOX_EVENTS: usize = 1024;
/// Events that are committed by one sync.
const BATCH_EVENTS: usize = 256;

type Letter = (Event, oneshot::Sender<Result<Response, Error>>);

/// The way to the controller, and the newest committed image.
#[derive(Debug, Clone)]
pub struct ClusterHandle {
    mailbox: mpsc::Sender<Letter>,
    image: Arc<ArcSwap<MetadataImage>>,
}

impl ClusterHandle {
    /// Asks the controller, and answers when the change is committed and in force on this broker.
    pub async fn submit(&self, event: Event) -> Result<Response, Error> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send((event, reply)).await.map_err(|_| Error::NotController)?;
        answer.await.map_err(|_| Error::NotController)?
    }

    /// The state of the cluster; one call sees one state.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }
}

/// Replays the log, opens the partitions that this broker leads, and starts the controller. The task ends when all handles are gone.
pub async fn start(
    log: Box<dyn MetadataLog>,
    mut stream: CommittedStream,
    settings: ControllerSettings,
    following: Following,
    registration: Event,
) -> Result<(ClusterHandle, tokio::task::JoinHandle<()>), Error> {
    let image: Arc<ArcSwap<MetadataImage>> = Arc::default();
    let mut committed = MetadataImage::default();
    let mut deleted = BTreeSet::new();
    while let Ok(new) = stream.try_recv() {
        committed.apply_committed(&new);
        deleted.extend(new.records().iter().filter_map(|record| match record {
            MetadataRecord::RemoveTopic(removed) => Some(removed.topic_id),
            _ => None,
        }));
    }
    let follower = Follower { image: image.clone(), following, topic_defaults: settings.topic_defaults.clone() };
    let controller = Controller::new(committed.clone(), settings);
    let mut driver = Driver { log, stream, committed, controller, follower: Arc::new(follower) };
    // Partitions are opened once, in the epoch of this start, and not before it is committed.
    let (records, _) = driver.controller.handle(&registration);
    let term = driver.log.term();
    let index = driver.log.propose(records, term).await?;
    driver.apply_to(index).await?;
    let (follower, committed) = (driver.follower.clone(), driver.committed.clone());
    let workers = follower.following.workers.clone();
    let opened = workers.blocking(move || {
        follower.retire_deleted(&deleted)?;
        follower.follow(committed, When::Starting)
    });
    opened.await.map_err(|e| Error::Storage(e.to_string()))??;
    driver.snapshot_if_due().await;
    let (mailbox, letters) = mpsc::channel(MAILBOX_EVENTS);
    Ok((ClusterHandle { mailbox, image }, tokio::spawn(driver.run(letters))))
}

struct Driver {
    log: Box<dyn MetadataLog>,
    stream: CommittedStream,
    /// What the log has committed. The follower is behind where partitions could not be opened, and tries again with the next change.
    committed: MetadataImage,
    controller: Controller,
    follower: Arc<Follower>,
}

impl Driver {
    async fn run(mut self, mut letters: mpsc::Receiver<Letter>) {
        let mut batch = Vec::new();
        while letters.recv_many(&mut batch, BATCH_EVENTS).await > 0 {
            self.commit(std::mem::take(&mut batch)).await;
        }
        if let Err(error) = self.log.close().await {
            error!(%error, "the metadata log was not closed");
        }
    }

    /// Decides, commits, follows, answers: in this order.
    async fn commit(&mut self, letters: Vec<Letter>) {
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(letters.len());
        for (event, reply) in letters {
            let (new, response) = self.controller.handle(&event);
            records.extend(new);
            answers.push((reply, response));
        }
        let outcome = if records.is_empty() { Ok(()) } else { self.propose(records).await };
        for (reply, response) in answers {
            // Who asked may have gone; the change stands all the same.
            let _ = reply.send(outcome.clone().map(|()| response));
        }
    }

    async fn propose(&mut self, records: Vec<MetadataRecord>) -> Result<(), Error> {
        let term = self.log.term();
        let index = match self.log.propose(records, term).await {
            Ok(index) => index,
            Err(error) => {
                error!(%error, "a change of the cluster could not be committed");
                // What was decided is not so: go on from what is committed.
                self.controller.reset(self.committed.clone());
                return Err(error);
            }
        };
        self.apply_to(index).await?;
        let (follower, next) = (self.follower.clone(), self.committed.clone());
        let workers = follower.following.workers.clone();
        let followed = workers.blocking(move || follower.follow(next, When::Running)).await;
        // A snapshot forgets what was deleted: not before its data has gone.
        self.snapshot_if_due().await;
        followed.map_err(|e| Error::Storage(e.to_string()))?
    }

    /// Applies what is committed, up to the entry with this index.
    async fn apply_to(&mut self, index: i64) -> Result<(), Error> {
        loop {
            let new = self.stream.recv().await.ok_or(Error::NotController)?;
            self.committed.apply_committed(&new);
            if matches!(new, Committed::Entry(entry) if entry.index >= index) {
                return Ok(());
            }
        }
    }

    /// A snapshot that fails costs only the next start some time.
    async fn snapshot_if_due(&self) {
        if self.log.wants_snapshot()
            && let Err(error) = self.log.snapshot(self.committed.to_records()).await
        {
            error!(%error, "the metadata's snapshot was not written");
        }
    }
}

/// What follows the metadata.
#[derive(Clone)]
pub struct Following {
    /// This broker's partitions.
    pub partitions: Arc<Partitions>,
    /// Where they are opened and deleted.
    pub workers: Workers,
    /// This broker.
    pub broker: i32,
}

/// Keeps this broker's partitions as the image says.
struct Follower {
    image: Arc<ArcSwap<MetadataImage>>,
    following: Following,
    /// What the broker was started with.
    topic_defaults: BTreeMap<String, String>,
}

/// Whether partitions were there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Starting,
    Running,
}

impl Follower {
    /// Deletes and opens partitions, and then shows the image.
    fn follow(&self, next: MetadataImage, when: When) -> Result<(), Error> {
        let now = self.image.load();
        let gone: Vec<Arc<str>> =
            now.topics().filter(|t| next.topic(&t.name).is_none_or(|n| n.id != t.id)).map(|t| t.name.clone()).collect();
        let failed = |error: partition::Error| {
            error!(%error, "partitions do not follow the metadata");
            Error::Storage(error.to_string())
        };
        if !gone.is_empty() {
            // Readers of the image must not find a topic without its partitions.
            let mut without = MetadataImage::clone(&now);
            gone.iter().filter_map(|name| now.topic(name)).for_each(|t| without.forget(t.id));
            self.image.store(Arc::new(without));
            self.following.partitions.delete(&gone).map_err(failed)?;
            let Following { partitions, workers, .. } = self.following.clone();
            tokio::runtime::Handle::current().spawn(async move {
                if let Ok(Err(error)) = workers.blocking(move || partitions.remove_deleted()).await {
                    error!(%error, "deleted partitions could not be removed; the next start tries again");
                }
            });
        }
        let new = self.new_replicas(&now, &next, when);
        if !new.is_empty() {
            let recovered = self.following.partitions.lead(new).map_err(failed)?;
            let partition::Recovered { replicas, scanned_bytes, cut_bytes, restored_bytes } = recovered;
            if scanned_bytes > 0 || restored_bytes > 0 {
                info!(replicas, scanned_bytes, cut_bytes, restored_bytes, "recovered after a stop that was not clean");
            }
        }
        self.configure_changed(&now, &next);
        self.image.store(Arc::new(next));
        Ok(())
    }

    /// Gives changed settings to the replicas of their topics.
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

    /// What topics without own values have: what was changed while the broker ran, and else what it was started with.
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

    /// Retires what a crash left of deleted topics.
    fn retire_deleted(&self, deleted: &BTreeSet<Uuid>) -> Result<(), Error> {
        let retired = self.following.partitions.retire_deleted(deleted);
        let removed = retired.and_then(|_| self.following.partitions.remove_deleted());
        removed.map(|_| ()).map_err(|e| Error::Storage(e.to_string()))
    }
}
