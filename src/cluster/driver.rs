//! Runs the controller: a mailbox in front, the log behind, and the partitions that follow the image.
//!
//! Four things arrive in any order: requests, changes of the role, what is committed, and the outcome of the one proposal that may be on its
//! way. The controller leads once the role says so *and* everything that is committed before its epoch has been applied. It stops at once when
//! the role says otherwise: its uncommitted image is dropped, and the next one is made of what is committed. A proposal that is on its way
//! then is still waited for, since its requester may only be told what is known to hold.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, warn};

use super::follower::{Follow, Follower, When};
use super::{
    Committed, CommittedStream, Controller, ControllerSettings, Error, Event, Following, Leadership, MetadataImage, MetadataLog,
    MetadataRecord, NotCommitted, Pending, Proposal, Registration, Response, Role, Snapshot,
};
use crate::model::Uuid;

/// Events that may wait; more senders wait for room.
const MAILBOX_EVENTS: usize = 1024;
/// Events that are committed by one sync.
const BATCH_EVENTS: usize = 256;

type Reply = oneshot::Sender<Result<Response, Error>>;
type Letter = (Event, Reply);
type Answers = Vec<(Reply, Response)>;

/// The way to the controller, and the newest committed image.
#[derive(Debug, Clone)]
pub struct ClusterHandle {
    mailbox: mpsc::Sender<Letter>,
    image: Arc<ArcSwap<MetadataImage>>,
}

impl ClusterHandle {
    /// Asks the controller, and answers when the change is committed and in force on this broker. [`Error::NotController`] says that the change
    /// is not made and never will be, [`Error::Unknown`] that it may be.
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

/// Replays the log, registers this broker, opens the partitions that it leads, and starts the controller. The task ends when all handles are
/// gone.
pub async fn start(
    log: Box<dyn MetadataLog>,
    stream: CommittedStream,
    settings: ControllerSettings,
    following: Following,
    registration: Registration,
) -> Result<(ClusterHandle, tokio::task::JoinHandle<()>), Error> {
    let image: Arc<ArcSwap<MetadataImage>> = Arc::default();
    let follower = Follower::new(image.clone(), following, settings.topic_defaults.clone());
    start_with(log, stream, settings, image, Arc::new(follower), Some(registration)).await
}

/// As [`start`], with anything that follows; without a registration it does not wait until this node leads.
pub(super) async fn start_with(
    log: Box<dyn MetadataLog>,
    stream: CommittedStream,
    settings: ControllerSettings,
    image: Arc<ArcSwap<MetadataImage>>,
    follower: Arc<dyn Follow>,
    registration: Option<Registration>,
) -> Result<(ClusterHandle, tokio::task::JoinHandle<()>), Error> {
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
    };
    driver.take_committed();
    driver.lead_if_due();
    if let Some(registration) = registration {
        // Partitions are opened once, in the epoch of this start, and not before it is committed.
        driver.register(registration, &handle, &mut letters).await?;
    }
    driver.follower.retire_deleted(std::mem::take(&mut driver.deleted)).await?;
    driver.follower.follow(driver.committed.clone(), When::Starting).await?;
    driver.followed.0 = driver.committed.offset;
    driver.when = When::Running;
    driver.snapshot_if_due().await;
    Ok((handle, tokio::spawn(driver.run(letters))))
}

struct Driver {
    log: Box<dyn MetadataLog>,
    leadership: watch::Receiver<Leadership>,
    stream: CommittedStream,
    /// What the log has committed. The follower is behind where partitions could not be opened, and tries again with the next change.
    committed: MetadataImage,
    controller: Controller,
    follower: Arc<dyn Follow>,
    when: When,
    /// The offset up to which the follower was told, and what came of it.
    followed: (i64, Result<(), Error>),
    /// The proposal that is on its way, with who waits for it.
    proposed: Option<(Pending<i64, NotCommitted>, Answers)>,
    /// Who waits until an offset has been applied here, in order.
    waiting: VecDeque<(i64, Answers)>,
    /// Topics that were deleted before this start.
    deleted: BTreeSet<Uuid>,
}

/// What has happened.
enum News {
    Role,
    Committed(Committed),
    Outcome(Result<i64, NotCommitted>),
    Letters(Vec<Letter>),
    /// No handle is left, or the log has ended.
    End,
}

impl Driver {
    async fn run(mut self, mut letters: mpsc::Receiver<Letter>) {
        while self.step(&mut letters).await {}
        if let Err(error) = self.log.close().await {
            error!(%error, "the metadata log was not closed");
        }
        if let Err(error) = self.follower.close().await {
            error!(%error, "what follows the metadata was not closed");
        }
    }

    /// Handles what happens next; false at the end. Nothing is lost where a branch of the select is dropped: what it had taken is nothing, and
    /// the proposal goes on where it is kept.
    async fn step(&mut self, letters: &mut mpsc::Receiver<Letter>) -> bool {
        let mut batch = Vec::new();
        // One proposal at a time; and a controller does not decide before its last one has been applied here.
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

    /// Applies what has arrived.
    fn take_committed(&mut self) {
        while let Ok(new) = self.stream.try_recv() {
            self.apply(&new);
        }
    }

    /// Applies what is committed, and notes until the start is over which topics are gone.
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

    /// Lets the controller lead or resign as the role says. What is committed may be ahead of the role: where it shows that another controller
    /// leads, this one does not wait until it is told. It leads from what is committed, and anew from there where a proposal has failed or
    /// something was committed that it did not decide.
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

    /// Decides upon a batch of events, and proposes what has to be committed.
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
            // Nothing changes: the answer holds of what is committed here.
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

    /// Who asked may have gone; the change stands all the same.
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
        // What was decided is not so: go on from what is committed.
        self.controller.resign();
        answers.into_iter().for_each(|(reply, _)| drop(reply.send(Err(error.clone()))));
    }

    /// Lets the partitions follow what is committed, shows it, and then answers who waited for it.
    async fn follow_and_answer(&mut self) {
        let offset = self.committed.offset;
        if self.when == When::Running && self.followed.0 != offset {
            self.followed = (offset, self.follower.follow(self.committed.clone(), When::Running).await);
            // A snapshot forgets what was deleted: not before its data has gone.
            self.snapshot_if_due().await;
        }
        while let Some((_, answers)) = self.waiting.pop_front_if(|(waits_for, _)| *waits_for <= offset) {
            let followed = &self.followed.1;
            answers.into_iter().for_each(|(reply, response)| drop(reply.send(followed.clone().map(|()| response))));
        }
    }

    /// Registers this broker, as often as that takes: another controller may take over meanwhile.
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

    /// A snapshot that fails costs only the next start some time.
    async fn snapshot_if_due(&mut self) {
        if self.committed.in_transaction() || !self.log.wants_snapshot() {
            return;
        }
        // A snapshot forgets which topics were deleted. A crash must not bring back one of their directories under its name afterwards.
        if let Err(error) = self.follower.sync_deleted().await {
            return error!(%error, "the metadata's snapshot waits until it is durable that topics were deleted");
        }
        let (end, epoch, records) = (self.committed.offset + 1, self.committed.epoch, self.committed.to_records());
        if let Err(error) = self.log.snapshot(Snapshot { end, epoch, records, removed: Vec::new() }).await {
            error!(%error, "the metadata's snapshot was not written");
        }
    }
}
