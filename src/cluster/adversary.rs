//! A metadata log that does to a controller everything that a quorum may do: it changes leaders, reports roles to nodes late, loses
//! proposals, commits them late or leaves their outcome unknown, repeats them, and delivers late or by a snapshot. Nodes crash and restart.
//! After each step the rules of docs/testing.md are checked for the committed records, for each node's published image and for the responses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::driver::start_with;
use super::follower::{Follow, When};
use super::{
    Alteration, ClusterHandle, Committed, ControllerSettings, Entry, Error, Event, LeaderChange, Leadership, MetadataImage, MetadataLog,
    MetadataRecord, MorePartitions, NewTopic, NotCommitted, Operation, Pending, Proposal, Registration, Replication, Resource, Response,
    Role, Snapshot, TopicRef,
};
use crate::env::{FailStop, Tasks};
use crate::model::Uuid;

const NODES: usize = 3;
const STEPS: usize = 300;
const TOPICS: u64 = 4;

/// Seeded chance (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// The quorum, and the committed state against which everything is checked.
struct Quorum {
    log: Vec<Committed>,
    /// The image after each committed item, by its last offset.
    history: BTreeMap<i64, MetadataImage>,
    /// The newest of them.
    image: MetadataImage,
    leader: usize,
    nodes: Vec<Node>,
    in_flight: Vec<InFlight>,
    leaders: BTreeMap<(Uuid, usize, i32), i32>,
}

struct Node {
    leadership: watch::Sender<Leadership>,
    stream: mpsc::UnboundedSender<Committed>,
    /// Items of the log that were delivered.
    delivered: usize,
    wants_snapshot: bool,
}

/// An undecided proposal. If it has no reply channel, its proposer already knows that the outcome is unknown.
struct InFlight {
    proposal: Proposal,
    reply: Option<oneshot::Sender<Result<i64, NotCommitted>>>,
}

impl Quorum {
    fn commit(&mut self, item: Committed) {
        let before = self.image.clone();
        self.image.apply_committed(&item);
        self.log.push(item);
        self.history.insert(self.image.offset, self.image.clone());
        let mut restored = MetadataImage::default();
        if !self.image.in_transaction() {
            self.image.to_records().iter().for_each(|record| restored.apply(record));
            (restored.offset, restored.epoch) = (self.image.offset, self.image.epoch);
            assert_eq!(restored, self.image, "a snapshot equals its replay");
        }
        for topic in self.image.topics() {
            for (number, partition) in topic.partitions.iter().enumerate() {
                let leader = self.leaders.entry((topic.id, number, partition.leader_epoch)).or_insert(partition.leader);
                assert_eq!(*leader, partition.leader, "two leaders of {}-{number} in epoch {}", topic.name, partition.leader_epoch);
                let known = before.topic_by_id(topic.id).and_then(|topic| topic.partitions.get(number));
                if let Some(known) = known {
                    assert!(known.leader_epoch <= partition.leader_epoch && known.partition_epoch <= partition.partition_epoch);
                }
            }
        }
        for broker in before.brokers() {
            let now = self.image.broker(broker.broker_id).map(|broker| broker.broker_epoch);
            assert!(now.is_some_and(|now| now >= broker.broker_epoch), "the epoch of broker {} fell", broker.broker_id);
        }
    }

    /// Whether the proposal's epoch and offset still match the end of the log.
    fn fits(&self, proposal: &Proposal) -> bool {
        proposal.epoch == self.image.epoch && proposal.offset == self.image.offset + 1
    }

    /// Decides a proposal. The proposer gets the true outcome or none.
    fn decide(&mut self, at: usize, chance: &mut Chance) {
        let InFlight { proposal, reply } = self.in_flight.swap_remove(at);
        let fits = self.fits(&proposal);
        let unknown = || Err(NotCommitted::Unknown("the adversary does not say".into()));
        match chance.below(9) {
            // The proposal stays undecided, and its proposer stops waiting.
            0 if fits => {
                reply.map(|reply| reply.send(unknown()));
                self.in_flight.push(InFlight { proposal, reply: None });
            }
            1 if fits => drop(reply.map(|reply| reply.send(unknown()))),
            2 if fits => drop(reply.map(|reply| reply.send(Err(NotCommitted::Refused(Error::NotController))))),
            kind if fits => {
                let Proposal { epoch, offset, records } = proposal.clone();
                let last = offset + records.len() as i64 - 1;
                self.commit(Committed::Entry(Entry { epoch, offset, records }));
                let outcome = if kind == 3 { unknown() } else { Ok(last) };
                reply.map(|reply| reply.send(outcome));
                // The proposal arrives a second time; its offset is already used.
                self.in_flight.push(InFlight { proposal, reply: None });
            }
            0 => drop(reply.map(|reply| reply.send(unknown()))),
            _ => drop(reply.map(|reply| reply.send(Err(NotCommitted::Refused(Error::NotController))))),
        }
    }

    /// Elects a node. Earlier proposals that are not committed by now will never be; their proposers are informed later.
    fn elect(&mut self, node: usize) {
        self.leader = node;
        let (epoch, offset) = (self.image.epoch + 1, self.image.offset + 1);
        self.commit(Committed::LeaderChange(LeaderChange { epoch, offset, leader: node as i32 }));
    }

    /// Reports its true role to a node.
    fn notify(&mut self, node: usize) {
        let role = if self.leader == node { Role::Leader } else { Role::Follower(Some(self.leader as i32)) };
        self.nodes[node].leadership.send_replace(Leadership { epoch: self.image.epoch, role });
    }

    /// Delivers the next item to a node, or a snapshot if the node is behind.
    fn deliver(&mut self, node: usize, chance: &mut Chance) -> bool {
        let (behind, snapshot) = (self.log.len() - self.nodes[node].delivered, self.snapshot());
        let node = &mut self.nodes[node];
        if behind > 2 && !self.image.in_transaction() && chance.below(8) == 0 {
            node.delivered = self.log.len();
            let _ = node.stream.send(Committed::Snapshot(snapshot));
        } else if behind > 0 {
            let _ = node.stream.send(self.log[node.delivered].clone());
            node.delivered += 1;
        }
        behind > 0
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { end: self.image.offset + 1, epoch: self.image.epoch, records: self.image.to_records(), removed: Vec::new() }
    }

    fn records(&self) -> impl Iterator<Item = &MetadataRecord> {
        self.log.iter().flat_map(|item| item.records())
    }
}

/// The log of one node.
struct NodeLog {
    quorum: Arc<Mutex<Quorum>>,
    node: usize,
    leadership: watch::Receiver<Leadership>,
}

fn lock(quorum: &Mutex<Quorum>) -> MutexGuard<'_, Quorum> {
    quorum.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MetadataLog for NodeLog {
    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    fn propose(&self, proposal: Proposal) -> Pending<i64, NotCommitted> {
        assert!(!proposal.records.is_empty());
        let (reply, outcome) = oneshot::channel();
        lock(&self.quorum).in_flight.push(InFlight { proposal, reply: Some(reply) });
        Box::pin(async { outcome.await.unwrap_or_else(|_| Err(NotCommitted::Unknown("the quorum is gone".into()))) })
    }

    fn wants_snapshot(&self) -> bool {
        lock(&self.quorum).nodes[self.node].wants_snapshot
    }

    fn snapshot(&self, snapshot: Snapshot) -> Pending<()> {
        let mut quorum = lock(&self.quorum);
        quorum.nodes[self.node].wants_snapshot = false;
        let mut image = MetadataImage::default();
        image.apply_committed(&Committed::Snapshot(snapshot.clone()));
        assert_eq!(Some(&image), quorum.history.get(&(snapshot.end - 1)), "a node's snapshot is not what was committed");
        Box::pin(async { Ok(()) })
    }

    fn close(&self) -> Pending<()> {
        Box::pin(async { Ok(()) })
    }
}

/// Publishes the image, and has no partitions.
struct Shows(Arc<ArcSwap<MetadataImage>>);

impl Follow for Shows {
    fn follow(&self, next: MetadataImage, _: When) -> Pending<()> {
        self.0.store(Arc::new(next));
        Box::pin(async { Ok(()) })
    }

    fn retire_deleted(&self, _: BTreeSet<Uuid>) -> Pending<()> {
        Box::pin(async { Ok(()) })
    }
}

/// Requests, their responses, and the offset of the node's published image at the time of the response.
type Outcomes = Arc<Mutex<Vec<(Event, Result<Response, Error>, i64)>>>;

/// Three nodes that share one adversary.
struct Play {
    chance: Chance,
    quorum: Arc<Mutex<Quorum>>,
    handles: Vec<ClusterHandle>,
    drivers: Vec<JoinHandle<Option<()>>>,
    tasks: Tasks,
    /// The offset that each node published last.
    shown: Vec<i64>,
    outcomes: Outcomes,
    asked: usize,
}

impl Play {
    async fn new(seed: u64) -> Play {
        let node = |_| Node {
            leadership: watch::Sender::new(Leadership { epoch: 0, role: Role::Follower(None) }),
            stream: mpsc::unbounded_channel().0,
            delivered: 0,
            wants_snapshot: false,
        };
        let mut quorum = Quorum {
            log: Vec::new(),
            history: BTreeMap::from([(-1, MetadataImage::default())]),
            image: MetadataImage::default(),
            leader: 0,
            nodes: (0..NODES).map(node).collect(),
            in_flight: Vec::new(),
            leaders: BTreeMap::new(),
        };
        quorum.elect(0);
        let quorum = Arc::new(Mutex::new(quorum));
        let chance = Chance(seed);
        let (handles, drivers, shown) = (Vec::new(), Vec::new(), vec![-1; NODES]);
        let tasks = Tasks::new(FailStop::new(CancellationToken::new()));
        let mut play = Play { chance, quorum, handles, drivers, tasks, shown, outcomes: Outcomes::default(), asked: 0 };
        for node in 0..NODES {
            let (handle, driver) = play.start(node).await;
            play.handles.push(handle);
            play.drivers.push(driver);
        }
        play
    }

    /// Starts a node. Its log contains the delivered items, or a snapshot of everything.
    async fn start(&mut self, node: usize) -> (ClusterHandle, JoinHandle<Option<()>>) {
        let (stream, received) = mpsc::unbounded_channel();
        let leadership = {
            let mut quorum = lock(&self.quorum);
            if quorum.nodes[node].delivered > 2 && self.chance.below(3) == 0 && !quorum.image.in_transaction() {
                let _ = stream.send(Committed::Snapshot(quorum.snapshot()));
                quorum.nodes[node].delivered = quorum.log.len();
            } else {
                let delivered = quorum.nodes[node].delivered;
                quorum.log[..delivered].iter().for_each(|item| drop(stream.send(item.clone())));
            }
            let epoch = quorum.nodes[node].leadership.borrow().epoch;
            // A restarted node does not lead until it is elected again.
            let (outcomes, leadership) = watch::channel(Leadership { epoch, role: Role::Follower(None) });
            (quorum.nodes[node].stream, quorum.nodes[node].leadership) = (stream, outcomes);
            if quorum.leader == node {
                let next = self.chance.below(NODES as u64) as usize;
                quorum.elect(next);
            }
            leadership
        };
        self.shown[node] = -1;
        let image: Arc<ArcSwap<MetadataImage>> = Arc::default();
        let log = NodeLog { quorum: self.quorum.clone(), node, leadership };
        let settings = ControllerSettings {
            num_partitions: 2,
            default_replication_factor: 2,
            replication: Replication::Clamp,
            topic_defaults: BTreeMap::new(),
        };
        let follower = Arc::new(Shows(image.clone()));
        start_with(Box::new(log), received, settings, image, follower, None, &self.tasks).await.unwrap()
    }

    async fn step(&mut self) {
        let node = self.chance.below(NODES as u64) as usize;
        match self.chance.below(120) {
            0 => lock(&self.quorum).elect(node),
            1 => {
                (self.handles[node], self.drivers[node]) = self.start(node).await;
            }
            2 => lock(&self.quorum).nodes[node].wants_snapshot = true,
            3..=22 => lock(&self.quorum).notify(node),
            23..=58 => {
                let count = 1 + self.chance.below(4);
                let mut quorum = lock(&self.quorum);
                for _ in 0..count {
                    quorum.deliver(node, &mut self.chance);
                }
            }
            59..=92 => {
                let mut quorum = lock(&self.quorum);
                let at = self.chance.below(quorum.in_flight.len() as u64) as usize;
                if at < quorum.in_flight.len() {
                    quorum.decide(at, &mut self.chance);
                }
            }
            _ => {
                // Most requests go to the leader.
                let leader = lock(&self.quorum).leader;
                let node = if self.chance.below(4) == 0 { node } else { leader };
                let event = self.event();
                self.ask(node, event);
            }
        }
        self.settle().await;
        self.check();
    }

    fn event(&mut self) -> Event {
        self.asked += 1;
        let name = format!("t{}", self.chance.below(TOPICS));
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(self.asked as u64).to_be_bytes());
        let id = Uuid(id);
        let broker = 1 + self.chance.below(3) as i32;
        match self.chance.below(8) {
            0 => Event::DeleteTopics(vec![TopicRef::Name(name)]),
            1 => Event::CreatePartitions {
                topics: vec![MorePartitions { name, count: 2 + self.chance.below(3) as i32, assignments: None }],
                validate_only: false,
            },
            2 => {
                let value = Some(self.asked.to_string());
                let change = Alteration::Change(vec![("retention.ms".into(), Operation::Set, value)]);
                Event::AlterConfigs { alterations: vec![(Resource::Topic(name), change)], validate_only: false }
            }
            3 | 4 => Event::AllocateProducerIds { broker },
            5 => Event::RegisterBroker(Registration { id: broker, incarnation: id, ..Registration::default() }),
            _ => Event::CreateTopics {
                topics: vec![NewTopic { name, id, partitions: -1, replication_factor: -1, ..NewTopic::default() }],
                validate_only: false,
            },
        }
    }

    fn ask(&self, node: usize, event: Event) {
        let (handle, outcomes) = (self.handles[node].clone(), self.outcomes.clone());
        self.tasks.spawn("a request", async move {
            let answer = handle.submit(event.clone()).await;
            let shown = handle.image().offset;
            outcomes.lock().unwrap().push((event, answer, shown));
        });
    }

    /// Lets every task run until it waits for the adversary.
    async fn settle(&self) {
        for _ in 0..24 {
            tokio::task::yield_now().await;
        }
    }

    fn check(&mut self) {
        let quorum = lock(&self.quorum);
        assert!(self.drivers.iter().all(|driver| !driver.is_finished()), "a node's controller has ended");
        for (node, handle) in self.handles.iter().enumerate() {
            let image = handle.image();
            assert!(image.offset >= self.shown[node], "node {node} showed {} and then {}", self.shown[node], image.offset);
            self.shown[node] = image.offset;
            assert_eq!(Some(&*image), quorum.history.get(&image.offset), "node {node} shows what was not committed");
        }
        let outcomes = self.outcomes.lock().unwrap();
        let mut blocks = BTreeSet::new();
        for (event, answer, shown) in outcomes.iter() {
            match answer {
                Ok(response) => check_kept(&quorum, event, response, *shown, &mut blocks),
                Err(Error::NotController) => check_not_made(&quorum, event),
                Err(Error::Unknown(_)) => {}
                Err(error) => panic!("{event:?}: {error}"),
            }
        }
    }

    /// The adversary stops interfering: every role is reported, every proposal decided, every item delivered, and the cluster continues.
    async fn heal(&mut self) {
        lock(&self.quorum).elect(1);
        for _ in 0..4 {
            {
                let mut quorum = lock(&self.quorum);
                for in_flight in std::mem::take(&mut quorum.in_flight) {
                    let refused = Err(NotCommitted::Refused(Error::NotController));
                    in_flight.reply.map(|reply| reply.send(refused));
                }
                (0..NODES).for_each(|node| quorum.notify(node));
                while (0..NODES).any(|node| quorum.deliver(node, &mut self.chance)) {}
            }
            self.settle().await;
            self.check();
        }
        let answered = self.outcomes.lock().unwrap().len();
        assert_eq!(answered, self.asked, "a request was never answered");
        let event = Event::AllocateProducerIds { broker: 1 };
        self.asked += 1;
        self.ask(1, event);
        self.settle().await;
        {
            let mut quorum = lock(&self.quorum);
            let InFlight { proposal, reply } = quorum.in_flight.pop().expect("the new controller proposes");
            assert!(quorum.fits(&proposal), "the new controller proposes at another place: {proposal:?}, {}", quorum.image.offset);
            let Proposal { epoch, offset, records } = proposal;
            let last = offset + records.len() as i64 - 1;
            quorum.commit(Committed::Entry(Entry { epoch, offset, records }));
            reply.map(|reply| reply.send(Ok(last)));
            while (0..NODES).any(|node| quorum.deliver(node, &mut self.chance)) {}
        }
        self.settle().await;
        self.check();
        assert!(matches!(self.outcomes.lock().unwrap().last(), Some((_, Ok(Response::ProducerIds(_, _)), _))));
        let end = lock(&self.quorum).image.clone();
        assert!(self.handles.iter().all(|handle| *handle.image() == end), "nodes do not agree");
    }
}

/// Each acknowledged change is in the log and was in effect on the node that acknowledged it; no block of producer ids was allocated twice.
fn check_kept(quorum: &Quorum, event: &Event, response: &Response, shown: i64, blocks: &mut BTreeSet<i64>) {
    let shown = quorum.log.iter().filter(|item| matches!(item, Committed::Entry(entry) if entry.offset <= shown));
    let shown: Vec<&MetadataRecord> = shown.flat_map(|item| item.records()).collect();
    let has = |wanted: &dyn Fn(&MetadataRecord) -> bool| shown.iter().any(|record| wanted(record));
    match (event, response) {
        (Event::CreateTopics { topics, .. }, Response::Topics(results)) => {
            let created = topics.iter().zip(results).filter(|(_, result)| result.is_ok());
            for (topic, _) in created {
                assert!(has(&|r| matches!(r, MetadataRecord::Topic(t) if t.topic_id == topic.id)), "a topic is lost: {topic:?}");
            }
        }
        (Event::DeleteTopics(_), Response::Deleted(results)) => {
            for (_, id) in results.iter().flatten() {
                assert!(has(&|r| matches!(r, MetadataRecord::RemoveTopic(t) if t.topic_id == *id)), "a deletion is lost: {id}");
            }
        }
        (Event::AlterConfigs { .. }, Response::Altered(results)) if results[0].is_ok() => {
            assert!(has(&|r| is_setting(r, event)), "a setting is lost: {event:?}");
        }
        (Event::RegisterBroker(registration), _) => {
            assert!(has(&|r| matches!(r, MetadataRecord::RegisterBroker(b) if b.incarnation_id == registration.incarnation)));
        }
        (Event::AllocateProducerIds { .. }, Response::ProducerIds(first, end)) => {
            assert!(blocks.insert(*first), "the producer ids from {first} were given twice");
            assert!(has(&|r| matches!(r, MetadataRecord::ProducerIds(ids) if ids.next_producer_id == *end)), "a block of ids is lost");
        }
        _ => {}
    }
}

fn is_setting(record: &MetadataRecord, event: &Event) -> bool {
    let Event::AlterConfigs { alterations, .. } = event else { return false };
    let (_, Alteration::Change(changes)) = &alterations[0] else { return false };
    matches!(record, MetadataRecord::Config(config) if config.value == changes[0].2)
}

/// A change that was refused as safe to retry is not in the log.
fn check_not_made(quorum: &Quorum, event: &Event) {
    let made = |record: &MetadataRecord| match (event, record) {
        (Event::CreateTopics { topics, .. }, MetadataRecord::Topic(topic)) => topics[0].id == topic.topic_id,
        (Event::RegisterBroker(registration), MetadataRecord::RegisterBroker(broker)) => broker.incarnation_id == registration.incarnation,
        (Event::AlterConfigs { .. }, record) => is_setting(record, event),
        _ => false,
    };
    assert!(!quorum.records().any(made), "refused, and made all the same: {event:?}");
}

fn play(seed: u64) -> Vec<Committed> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut play = Play::new(seed).await;
        for _ in 0..STEPS {
            play.step().await;
        }
        play.heal().await;
        lock(&play.quorum).log.clone()
    })
}

/// `DLOG_TEST_SEED` runs one seed, `DLOG_TEST_SEEDS` that many seeds.
#[test]
fn an_adversarial_log_finds_no_change_lost_and_none_made_twice() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("DLOG_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("DLOG_TEST_SEEDS").unwrap_or(200),
    };
    let (mut entries, mut leaders) = (0, 0);
    for seed in seeds {
        let log = std::panic::catch_unwind(|| play(seed)).unwrap_or_else(|panic| {
            eprintln!("DLOG_TEST_SEED={seed}");
            std::panic::resume_unwind(panic)
        });
        leaders += log.iter().filter(|item| matches!(item, Committed::LeaderChange(_))).count();
        entries += log.iter().filter(|item| matches!(item, Committed::Entry(_))).count();
    }
    println!("{entries} entries under {leaders} leaders");
    assert!(entries > leaders && leaders > 1, "the play does not get far: {entries} entries under {leaders} leaders");
}

#[test]
fn a_seed_plays_the_same_twice() {
    assert_eq!(play(7), play(7));
}
