//! Runs the controller: a mailbox for requests, the log that stores decisions, and the partitions that follow the image.
//!
//! Four things arrive in any order: requests, changes of the role, committed records, and the outcome of the one proposal that may be in
//! flight. The controller leads once its role is leader *and* everything that was committed before its epoch is applied. It stops as soon as
//! the role changes: its uncommitted image is dropped, and the next one is built from the committed records. A proposal in flight at that
//! time is still awaited, because its requester may only get an outcome that is certain.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{debug, error, warn};

use super::follower::{Follow, Follower, When};
use super::{
    Committed, CommittedStream, Controller, ControllerSettings, Error, Event, Following, Leadership, MetadataImage, MetadataLog,
    MetadataRecord, NotCommitted, Pending, Proposal, Registration, Response, Role, Snapshot,
};
use crate::env::Tasks;
use crate::model::Uuid;

/// The capacity of the mailbox in events; senders wait when it is full.
const MAILBOX_EVENTS: usize = 1024;
/// The maximum number of events that one fsync commits.
const BATCH_EVENTS: usize = 256;

type Reply = oneshot::Sender<Result<Response, Error>>;
type Letter = (Event, Reply);
type Answers = Vec<(Reply, Response)>;

/// A handle of the controller, and the newest committed image.
#[derive(Debug, Clone)]
pub struct ClusterHandle {
    mailbox: mpsc::Sender<Letter>,
    image: Arc<ArcSwap<MetadataImage>>,
}

impl ClusterHandle {
    /// Sends an event to the controller, and returns when the change is committed and in effect on this broker. [`Error::NotController`] means that
    /// the change was not made and never will be, [`Error::Unknown`] that it may be made.
    pub async fn submit(&self, event: Event) -> Result<Response, Error> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send((event, reply)).await.map_err(|_| Error::NotController)?;
        answer.await.map_err(|_| Error::Unknown("the controller ended".into()))?
    }

    /// The state of the cluster; one call sees one state.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }
}

/// Replays the log, registers this broker, opens the partitions that it leads, and starts the controller. The returned task ends when all handles
/// are dropped.
pub async fn start(
    log: Box<dyn MetadataLog>,
    stream: CommittedStream,
    settings: ControllerSettings,
    following: Following,
    registration: Registration,
) -> Result<(ClusterHandle, Tasks), Error> {
    let image: Arc<ArcSwap<MetadataImage>> = Arc::default();
    let tasks = following.tasks.another();
    let follower = Follower::new(image.clone(), following, settings.topic_defaults.clone());
    let (handle, _) = start_with(log, stream, settings, image, Arc::new(follower), Some(registration), &tasks).await?;
    Ok((handle, tasks))
}

/// Like [`start`], with any follower; without a registration it does not wait until this node leads.
pub(super) async fn start_with(
    log: Box<dyn MetadataLog>,
    stream: CommittedStream,
    settings: ControllerSettings,
    image: Arc<ArcSwap<MetadataImage>>,
    follower: Arc<dyn Follow>,
    registration: Option<Registration>,
    tasks: &Tasks,
) -> Result<(ClusterHandle, JoinHandle<Option<()>>), Error> {
    let (mailbox, mut letters) = mpsc::channel(MAILBOX_EVENTS);
    let handle = ClusterHandle { mailbox, image };
    let mut driver = Driver {
        leadership: log.leadership(),
        log,
        stream,
        committed: MetadataImage::default(),
        controller: Controller::new(settings),
        follower,
        when: When::Starting,
        followed: (-1, Ok(())),
        proposed: None,
        waiting: VecDeque::new(),
        deleted: BTreeSet::new(),
        snapshot_waits: None,
    };
    driver.take_committed();
    driver.lead_if_due();
    if let Some(registration) = registration {
        // Partitions are opened once, in the epoch of this start, and only after that epoch is committed.
        driver.register(registration, &handle, &mut letters).await?;
    }
    driver.follower.retire_deleted(std::mem::take(&mut driver.deleted)).await?;
    driver.follower.follow(driver.committed.clone(), When::Starting).await?;
    driver.followed.0 = driver.committed.offset;
    driver.when = When::Running;
    driver.snapshot_if_due().await;
    // A broker cannot run without its controller: a panic stops it.
    Ok((handle, tasks.spawn("the controller", driver.run(letters))))
}

struct Driver {
    log: Box<dyn MetadataLog>,
    leadership: watch::Receiver<Leadership>,
    stream: CommittedStream,
    /// The state that the log has committed. The follower is behind if partitions could not be opened; it retries with the next change.
    committed: MetadataImage,
    controller: Controller,
    follower: Arc<dyn Follow>,
    when: When,
    /// The last offset that was passed to the follower, and the follower's result.
    followed: (i64, Result<(), Error>),
    /// The proposal in flight, and its pending responses.
    proposed: Option<(Pending<i64, NotCommitted>, Answers)>,
    /// Responses that wait until an offset is applied on this broker, in order of the offsets.
    waiting: VecDeque<(i64, Answers)>,
    /// Topics that were deleted before this start.
    deleted: BTreeSet<Uuid>,
    /// Why the last snapshot was not written, so that it is logged once.
    snapshot_waits: Option<String>,
}

/// An event of the driver's loop.
enum News {
    Role,
    Committed(Committed),
    Outcome(Result<i64, NotCommitted>),
    Letters(Vec<Letter>),
    /// All handles are dropped, or the log has ended.
    End,
}

impl Driver {
    async fn run(mut self, mut letters: mpsc::Receiver<Letter>) {
        while self.step(&mut letters).await {}
        if let Err(error) = self.log.close().await {
            error!(%error, "the metadata log was not closed");
        }
        if let Err(error) = self.follower.close().await {
            error!(%error, "a follower of the metadata log was not closed");
        }
    }

    /// Handles the next event; returns false at the end. Cancelling a branch of the select loses nothing: an unfinished branch has received
    /// nothing, and the proposal in flight stays in `proposed`.
    async fn step(&mut self, letters: &mut mpsc::Receiver<Letter>) -> bool {
        let mut batch = Vec::new();
        // At most one proposal is in flight, and a controller that leads decides only after its last proposal is applied on this broker.
        let takes_letters = self.controller.position().is_none() || (self.proposed.is_none() && self.waiting.is_empty());
        let Driver { leadership, stream, proposed, .. } = self;
        let outcome = async {
            match proposed {
                Some((pending, _)) => pending.await,
                None => std::future::pending().await,
            }
        };
        let news = tokio::select! {
            biased;
            changed = leadership.changed() => if changed.is_ok() { News::Role } else { News::End },
            new = stream.recv() => new.map_or(News::End, News::Committed),
            outcome = outcome => News::Outcome(outcome),
            count = letters.recv_many(&mut batch, BATCH_EVENTS), if takes_letters => if count > 0 { News::Letters(batch) } else { News::End },
        };
        match news {
            News::Role => {}
            News::Committed(new) => {
                self.apply(&new);
                self.take_committed();
            }
            News::Outcome(outcome) => self.end_proposal(outcome),
            News::Letters(batch) => self.decide(batch),
            News::End => return false,
        }
        self.lead_if_due();
        self.follow_and_answer().await;
        true
    }

    /// Applies everything that has arrived.
    fn take_committed(&mut self) {
        while let Ok(new) = self.stream.try_recv() {
            self.apply(&new);
        }
    }

    /// Applies committed records. During the start it also collects the ids of deleted topics.
    fn apply(&mut self, new: &Committed) {
        self.committed.apply_committed(new);
        if self.when == When::Running {
            return;
        }
        if let Committed::Snapshot(snapshot) = new {
            self.deleted.extend(&snapshot.removed);
        }
        self.deleted.extend(new.records().iter().filter_map(|record| match record {
            MetadataRecord::RemoveTopic(removed) => Some(removed.topic_id),
            _ => None,
        }));
    }

    /// Lets the controller lead or resign according to the role. Committed records may be newer than the role: if they show that another controller
    /// leads, this one resigns without waiting for the change of its role. It leads from the committed state, and restarts from that state if a
    /// proposal failed or if records were committed that it did not decide.
    fn lead_if_due(&mut self) {
        let Leadership { epoch, role } = *self.leadership.borrow_and_update();
        let may_lead = role == Role::Leader && self.committed.epoch <= epoch;
        if !may_lead || self.controller.position().is_some_and(|(leading, _)| leading != epoch) {
            self.controller.resign();
        }
        let is_busy = self.proposed.is_some() || !self.waiting.is_empty();
        let position = self.controller.position();
        if !may_lead || self.committed.epoch < epoch || is_busy || position == Some((epoch, self.committed.offset + 1)) {
            return;
        }
        let first = self.controller.lead(self.committed.clone());
        if position.is_none() {
            debug!(epoch, offset = self.committed.offset, "this node leads the metadata");
        }
        if !first.is_empty() {
            self.propose(first, Vec::new());
        }
    }

    /// Decides a batch of events, and proposes the resulting records.
    fn decide(&mut self, letters: Vec<Letter>) {
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(letters.len());
        for (event, reply) in letters {
            match self.controller.handle(&event) {
                Ok(decided) => {
                    records.extend(decided.records);
                    answers.push((reply, decided.response));
                }
                Err(error) => drop(reply.send(Err(error))),
            }
        }
        if answers.is_empty() {
            return;
        }
        if records.is_empty() {
            // Nothing changes: the response is valid for the state that is committed here.
            self.waiting.push_back((self.committed.offset, answers));
        } else {
            self.propose(records, answers);
        }
    }

    fn propose(&mut self, records: Vec<MetadataRecord>, answers: Answers) {
        let (epoch, end) = self.controller.position().expect("records are decided by a controller that leads");
        let offset = end - records.len() as i64;
        assert_eq!(offset, self.committed.offset + 1, "the controller decided upon something else than what is committed");
        assert!(self.proposed.is_none(), "two proposals at once, the second at offset {offset}");
        self.proposed = Some((self.log.propose(Proposal { epoch, offset, records }), answers));
    }

    /// Handles the outcome of the proposal. A requester may have disconnected; its change is kept.
    fn end_proposal(&mut self, outcome: Result<i64, NotCommitted>) {
        let Some((_, answers)) = self.proposed.take() else { return };
        let error = match outcome {
            Ok(last) => {
                self.waiting.push_back((last, answers));
                return;
            }
            Err(NotCommitted::Refused(error)) => error,
            Err(NotCommitted::Unknown(what)) => Error::Unknown(what),
        };
        match &error {
            Error::NotController | Error::Unknown(_) => warn!(%error, "a change of the cluster was not committed"),
            _ => error!(%error, "a change of the cluster could not be committed"),
        }
        // The decision was not committed: continue from the committed state.
        self.controller.resign();
        answers.into_iter().for_each(|(reply, _)| drop(reply.send(Err(error.clone()))));
    }

    /// Lets the partitions follow the committed state, publishes the state, and then sends the responses that waited for it.
    async fn follow_and_answer(&mut self) {
        let offset = self.committed.offset;
        if self.when == When::Running && self.followed.0 != offset {
            self.followed = (offset, self.follower.follow(self.committed.clone(), When::Running).await);
            // A snapshot no longer lists deleted topics, so it is written only after their partitions are deleted on this broker.
            self.snapshot_if_due().await;
        }
        while let Some((_, answers)) = self.waiting.pop_front_if(|(waits_for, _)| *waits_for <= offset) {
            let followed = &self.followed.1;
            answers.into_iter().for_each(|(reply, response)| drop(reply.send(followed.clone().map(|()| response))));
        }
    }

    /// Registers this broker. Retries if another controller takes over meanwhile.
    async fn register(
        &mut self,
        registration: Registration,
        handle: &ClusterHandle,
        letters: &mut mpsc::Receiver<Letter>,
    ) -> Result<(), Error> {
        loop {
            while self.controller.position().is_none() {
                if !self.step(letters).await {
                    return Err(Error::NotController);
                }
            }
            let (reply, mut answer) = oneshot::channel();
            let letter = (Event::RegisterBroker(registration.clone()), reply);
            handle.mailbox.send(letter).await.map_err(|_| Error::NotController)?;
            let answer = loop {
                match answer.try_recv() {
                    Ok(answer) => break answer,
                    Err(oneshot::error::TryRecvError::Closed) => return Err(Error::NotController),
                    Err(oneshot::error::TryRecvError::Empty) if self.step(letters).await => {}
                    Err(oneshot::error::TryRecvError::Empty) => return Err(Error::NotController),
                }
            };
            match answer {
                Ok(_) => return Ok(()),
                Err(Error::NotController | Error::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes a snapshot if one is needed. If that fails, only the next start takes longer.
    async fn snapshot_if_due(&mut self) {
        if self.committed.in_transaction() || !self.log.wants_snapshot() {
            return;
        }
        // A snapshot no longer lists deleted topics, so a crash after it must not restore one of their directories under its old name.
        if let Err(error) = self.follower.sync_deleted().await {
            let why = error.to_string();
            if self.snapshot_waits.as_ref() != Some(&why) {
                error!(%error, "the metadata snapshot is delayed until the deletion of topics is durable");
                self.snapshot_waits = Some(why);
            }
            return;
        }
        self.snapshot_waits = None;
        let (end, epoch, records) = (self.committed.offset + 1, self.committed.epoch, self.committed.to_records());
        if let Err(error) = self.log.snapshot(Snapshot { end, epoch, records, removed: Vec::new() }).await {
            error!(%error, "the metadata snapshot could not be written");
        }
    }
}
