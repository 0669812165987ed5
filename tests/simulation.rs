//! Whole brokers under simulated time, network and disk: clients produce, consume and rebalance while brokers crash, come back at other addresses, lose
//! their disks' last writes, and the network is torn; the clients' histories are checked.
//!
//! A world has two clusters of one broker each, which know nothing of each other: their own machines, disks, clocks and random numbers. Clients begin at
//! the bootstrap listener of their cluster and follow Metadata and FindCoordinator from there, since a broker takes another port at each start and at
//! some starts another machine.
//!
//! `SEEDS=n` runs as many seeds (8 without it), `SEED=n` only this one.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::history::{Anomaly, End, Event, check};
use common::transactions::*;
use common::{create_topic_request, fetch_request, produce_request};
use dlog::broker::{Broker, Config, Mode, Sources};
use dlog::client::Connection;
use dlog::coordinator::Identity;
use dlog::env::{Accept, Clock, Crash, Cut, Entropy, Env, Listener, MemoryDisk, Network, NewConnection, Pending, Workers};
use dlog::protocol::generated::delete_topics::DeleteTopicsRequest;
use dlog::protocol::generated::find_coordinator::FindCoordinatorRequest;
use dlog::protocol::generated::heartbeat::HeartbeatRequest;
use dlog::protocol::generated::init_producer_id::InitProducerIdRequest;
use dlog::protocol::generated::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use dlog::protocol::generated::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use dlog::protocol::generated::metadata::{MetadataRequest, MetadataRequestTopic};
use dlog::protocol::generated::offset_commit::{OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use dlog::protocol::generated::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use dlog::protocol::generated::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use dlog::protocol::{ErrorCode, Request};
use dlog::records::{BatchBuilder, NewRecord, TransactionResult};
use tokio::time::{sleep, timeout};

/// The clusters of a world, each of one broker.
const CLUSTERS: [Plan; 2] = [
    Plan {
        node: 1,
        homes: ["one-a", "one-b"],
        clients: &[
            "plain-1",
            "plain-2",
            "idempotent-1",
            "idempotent-2",
            "member-1",
            "member-2",
            "transactional-1",
            "transactional-2",
            "transactional-3",
            "reader",
            "committed-reader",
            "churn",
        ],
    },
    Plan {
        node: 2,
        homes: ["two-a", "two-b"],
        clients: &["plain-1", "idempotent-1", "member-1", "transactional-1", "reader", "committed-reader", "churn"],
    },
];
/// The port where clients begin. Nothing but bootstrapping is asked there: this listener advertises the port of the other one.
const BOOTSTRAP_PORT: u16 = 9090;
/// The ports of which a broker takes another one at each start.
const PORTS: [u16; 4] = [9092, 9093, 9094, 9095];
/// The request versions with which clients look for nodes.
const METADATA: i16 = 12;
const FIND_COORDINATOR: i16 = 4;
/// `FindCoordinator`'s key types.
const GROUP_KEY: i8 = 0;
const TRANSACTION_KEY: i8 = 1;
const TOPIC: &str = "t";
const GROUP: &str = "g";
/// Its offsets are committed in transactions alone.
const TRANSACTIONAL_GROUP: &str = "tg";
const TRANSACTION_TIMEOUT_MS: i32 = 2500;
const PARTITIONS: i32 = 3;
/// How long clients work under faults, in simulated time.
const FAULTS_FOR: Duration = Duration::from_secs(14);
/// How much later than it was asked something begins that waits for the disk, at most.
const DISK_LATENCY: Duration = Duration::from_millis(10);
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a client waits for a connection.
const REACH: Duration = Duration::from_secs(1);
/// The most by which the clock of a cluster's machine is wrong.
const CLOCK_OFFSET_MS: u64 = 3_600_000;
const BEGIN_MS: i64 = 1_700_000_000_000;

/// Everything that the seed decides.
#[derive(Debug, Clone)]
struct Chance(Rc<Cell<u64>>);

impl Chance {
    fn new(seed: u64) -> Chance {
        Chance(Rc::new(Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)))
    }

    fn below(&self, bound: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        (x >> 11) % bound
    }

    fn ms(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// A cluster of one broker.
struct Plan {
    node: i32,
    /// The machines that its disk can be in.
    homes: [&'static str; 2],
    /// Who works with it.
    clients: &'static [&'static str],
}

/// Simulated time since a date, with an offset of its own, which jumps when it is told to.
#[derive(Debug, Default)]
struct SimulatedClock {
    jumped_ms: AtomicI64,
}

impl Clock for SimulatedClock {
    fn wall_ms(&self) -> i64 {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        BEGIN_MS + elapsed.as_millis() as i64 + self.jumped_ms.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct SimulatedEntropy(AtomicU64);

impl Entropy for SimulatedEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&number.to_be_bytes()[..chunk.len()]);
        }
    }
}

struct SimulatedNetwork;

struct SimulatedListener(turmoil::net::TcpListener);

impl Network for SimulatedNetwork {
    fn bind<'a>(&'a self, host: &'a str, port: u16) -> Pending<'a, Listener> {
        Box::pin(async move { Ok(Listener::new(SimulatedListener(turmoil::net::TcpListener::bind((host, port)).await?))) })
    }

    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Pending<'a, NewConnection> {
        Box::pin(async move {
            let stream = turmoil::net::TcpStream::connect((host, port)).await?;
            let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
            Ok(NewConnection::new(stream, peer, local))
        })
    }
}

impl Accept for SimulatedListener {
    fn local_address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.0.local_addr()
    }

    fn accept(&self) -> Pending<'_, NewConnection> {
        Box::pin(async move {
            let (stream, peer) = self.0.accept().await?;
            let local = stream.local_addr()?;
            Ok(NewConnection::new(stream, peer, local))
        })
    }
}

/// What the clients of one cluster share.
#[derive(Clone)]
struct World {
    chance: Chance,
    plan: &'static Plan,
    /// The cluster's id, once a client has seen it.
    cluster_id: Rc<RefCell<Option<String>>>,
    history: Rc<RefCell<Vec<Event>>>,
    /// Clients end when they see it.
    is_over: Rc<Cell<bool>>,
}

impl World {
    fn note(&self, event: Event) {
        self.history.borrow_mut().push(event);
    }
}

/// Whom a request is for.
#[derive(Debug, Clone, Copy)]
enum To<'a> {
    /// Any broker.
    Any,
    /// The leader of a partition.
    Leader(&'a str, i32),
    /// The coordinator of a group.
    Group(&'a str),
    /// The coordinator of a transactional id.
    Transactions(&'a str),
}

/// A client of a cluster. It learns which node leads a partition, which one coordinates, and where a node listens from the brokers' answers alone. What it
/// knows is forgotten when a call fails or an answer says that it is out of date, and is asked for again with the next call.
struct Peer {
    name: String,
    world: World,
    /// By address.
    connections: BTreeMap<String, Connection>,
    /// Addresses by node id.
    nodes: BTreeMap<i32, String>,
    /// Node ids by topic and partition.
    leaders: BTreeMap<(String, i32), i32>,
    /// Addresses by key type and key.
    coordinators: BTreeMap<(i8, String), String>,
}

impl Peer {
    fn new(world: &World, name: &str) -> Peer {
        Peer {
            name: name.to_string(),
            world: world.clone(),
            connections: BTreeMap::new(),
            nodes: BTreeMap::new(),
            leaders: BTreeMap::new(),
            coordinators: BTreeMap::new(),
        }
    }

    /// The connection, taken out: it is put back where nothing went wrong with it.
    async fn connected(&mut self, address: &str) -> Option<Connection> {
        if let Some(connection) = self.connections.remove(address) {
            return Some(connection);
        }
        let opened = timeout(REACH, Connection::open(&SimulatedNetwork, address, &self.name, PATIENCE)).await;
        opened.ok().and_then(Result::ok)
    }

    /// The answer of the broker at an address; none where none came.
    async fn ask<R: Request>(&mut self, address: &str, request: &R, version: i16) -> Option<R::Response> {
        let Some(mut connection) = self.connected(address).await else {
            self.forget();
            sleep(Duration::from_millis(100)).await;
            return None;
        };
        let Ok(response) = connection.call(request, version).await else {
            self.forget();
            return None;
        };
        self.connections.insert(address.to_string(), connection);
        Some(response)
    }

    /// Forgets who leads, who coordinates and where: with the next call it is learned anew.
    fn forget(&mut self) {
        self.nodes.clear();
        self.leaders.clear();
        self.coordinators.clear();
    }

    /// Looks at the error of an answer. One that says that this was the wrong node, or that the node is not well, sends the next call elsewhere.
    fn judge(&mut self, error: i16) {
        use ErrorCode::*;
        let elsewhere = [
            NotLeaderOrFollower,
            LeaderNotAvailable,
            FencedLeaderEpoch,
            UnknownTopicOrPartition,
            UnknownTopicId,
            NotCoordinator,
            CoordinatorNotAvailable,
            NotController,
            KafkaStorageError,
        ];
        if elsewhere.iter().any(|e| e.code() == error) {
            self.forget();
        }
    }

    /// A broker that answers anything: a known one, or one of those to begin with.
    async fn any(&mut self) -> Option<String> {
        if let Some(address) = self.nodes.values().next() {
            return Some(address.clone());
        }
        for home in self.world.plan.homes {
            let address = format!("{home}:{BOOTSTRAP_PORT}");
            if let Some(connection) = self.connected(&address).await {
                self.connections.insert(address.clone(), connection);
                return Some(address);
            }
        }
        sleep(Duration::from_millis(100)).await;
        None
    }

    /// Where a request goes, as the brokers say.
    async fn find(&mut self, to: To<'_>) -> Option<String> {
        match to {
            To::Any if !self.nodes.is_empty() => self.any().await,
            To::Any => {
                // Only bootstrapping is asked where clients begin.
                self.learn(None).await?;
                self.any().await
            }
            To::Leader(topic, partition) => {
                let key = (topic.to_string(), partition);
                if !self.leaders.contains_key(&key) {
                    self.learn(Some(topic)).await?;
                }
                let address = self.leaders.get(&key).and_then(|node| self.nodes.get(node)).cloned();
                if address.is_none() {
                    sleep(Duration::from_millis(50)).await;
                }
                address
            }
            To::Group(key) => self.coordinator(GROUP_KEY, key).await,
            To::Transactions(key) => self.coordinator(TRANSACTION_KEY, key).await,
        }
    }

    /// Asks for the brokers, and for the leaders of a topic's partitions.
    async fn learn(&mut self, topic: Option<&str>) -> Option<()> {
        let address = self.any().await?;
        let topics = topic.iter().map(|name| MetadataRequestTopic { name: Some(name.to_string()), ..Default::default() }).collect();
        let request = MetadataRequest { topics: Some(topics), allow_auto_topic_creation: false, ..Default::default() };
        let answer = self.ask(&address, &request, METADATA).await?;
        let cluster_id = answer.cluster_id.expect("a broker knows its cluster");
        let known = self.world.cluster_id.borrow_mut().get_or_insert(cluster_id.clone()).clone();
        assert_eq!(cluster_id, known, "a broker of another cluster answers");
        self.nodes = answer.brokers.iter().map(|broker| (broker.node_id, advertised(&broker.host, broker.port))).collect();
        for topic in answer.topics {
            let name = topic.name.unwrap_or_default();
            self.leaders.extend(topic.partitions.iter().map(|p| ((name.clone(), p.partition_index), p.leader_id)));
        }
        Some(())
    }

    /// The coordinator's address.
    async fn coordinator(&mut self, key_type: i8, key: &str) -> Option<String> {
        if let Some(address) = self.coordinators.get(&(key_type, key.to_string())) {
            return Some(address.clone());
        }
        let request = FindCoordinatorRequest { key_type, coordinator_keys: vec![key.to_string()], ..Default::default() };
        let answer = self.call(&request, FIND_COORDINATOR).await?;
        let found = answer.coordinators.first()?;
        self.judge(found.error_code);
        if found.error_code != 0 {
            sleep(Duration::from_millis(50)).await;
            return None;
        }
        let address = advertised(&found.host, found.port);
        self.coordinators.insert((key_type, key.to_string()), address.clone());
        Some(address)
    }

    /// The answer of any broker; none where none came.
    async fn call<R: Request>(&mut self, request: &R, version: i16) -> Option<R::Response> {
        self.call_at(To::Any, request, version).await
    }

    /// The answer of the right broker; none where none came.
    async fn call_at<R: Request>(&mut self, to: To<'_>, request: &R, version: i16) -> Option<R::Response> {
        // To find a coordinator takes a call: the future would hold itself.
        let address = Box::pin(self.find(to)).await?;
        self.ask(&address, request, version).await
    }

    /// As [`Peer::call_at`], for answers with one error.
    async fn call_of<R: Request>(
        &mut self,
        to: To<'_>,
        request: &R,
        version: i16,
        error: impl Fn(&R::Response) -> i16,
    ) -> Option<R::Response> {
        let answer = self.call_at(to, request, version).await?;
        self.judge(error(&answer));
        Some(answer)
    }

    /// Asks, and is gone before there is an answer, or before it is read.
    async fn ask_and_leave<R: Request>(&mut self, to: To<'_>, request: &R, version: i16, after: Duration) {
        if let Some(address) = self.find(to).await
            && let Some(mut connection) = self.connected(&address).await
            && connection.send(request, version).await.is_ok()
        {
            sleep(after).await;
        }
    }

    /// The error and the offset of one batch.
    async fn produce(&mut self, partition: i32, batch: &Bytes) -> Option<(i16, i64)> {
        let response = self.call_at(To::Leader(TOPIC, partition), &produce_request(TOPIC, partition, batch, -1), 9).await?;
        let answer = response.responses.first()?.partition_responses.first()?;
        self.judge(answer.error_code);
        Some((answer.error_code, answer.base_offset))
    }

    /// Offsets and values of committed records from an offset on, and where to go on.
    async fn fetch_committed(&mut self, partition: i32, offset: i64) -> Option<(Vec<(i64, u64)>, i64)> {
        let response = self.call_at(To::Leader(TOPIC, partition), &committed_fetch(TOPIC, partition, offset, 100), 12).await?;
        let data = response.responses.first()?.partitions.first()?;
        self.judge(data.error_code);
        (data.error_code == 0).then_some(())?;
        Some(visible(&response, offset))
    }

    /// Offsets and values of all records from an offset on, and where to go on.
    async fn fetch(&mut self, partition: i32, offset: i64) -> Option<(Vec<(i64, u64)>, i64)> {
        let response = self.call_at(To::Leader(TOPIC, partition), &fetch_request(TOPIC, &[(partition, offset)], 1, 100), 12).await?;
        let data = response.responses.first()?.partitions.first()?;
        self.judge(data.error_code);
        (data.error_code == 0).then_some(())?;
        let bytes = data.records.as_ref().and_then(|records| records.bytes()).cloned().unwrap_or_default();
        Some(visible_of(&bytes, Vec::new(), offset))
    }

    async fn offset(&mut self, partition: i32, timestamp: i64) -> Option<i64> {
        let leader = To::Leader(TOPIC, partition);
        let partition = ListOffsetsPartition { partition_index: partition, timestamp, ..Default::default() };
        let topics = vec![ListOffsetsTopic { name: TOPIC.into(), partitions: vec![partition] }];
        let response = self.call_at(leader, &ListOffsetsRequest { replica_id: -1, topics, ..Default::default() }, 5).await?;
        let answer = response.topics.first()?.partitions.first()?;
        self.judge(answer.error_code);
        (answer.error_code == 0).then_some(answer.offset)
    }

    /// The group's offset, -1 where there is none.
    async fn committed(&mut self, group: &str, partition: i32) -> Option<i64> {
        let topics = vec![OffsetFetchRequestTopic { name: TOPIC.into(), partition_indexes: vec![partition] }];
        let request = OffsetFetchRequest { group_id: group.into(), topics: Some(topics), ..Default::default() };
        let response = self.call_at(To::Group(group), &request, 5).await?;
        self.judge(response.error_code);
        let answer = response.topics.first().filter(|_| response.error_code == 0)?.partitions.first()?;
        self.judge(answer.error_code);
        (answer.error_code == 0).then_some(answer.committed_offset)
    }
}

/// An address that a broker tells clients.
fn advertised(host: &str, port: i32) -> String {
    assert_ne!(port, i32::from(BOOTSTRAP_PORT), "{host}: no listener advertises the port where clients begin");
    format!("{host}:{port}")
}

fn batch(builder: BatchBuilder<'_>, value: &u64) -> Bytes {
    builder.record(NewRecord::value(&value.to_be_bytes())).build(BEGIN_MS)
}

/// Sends each value once.
async fn plain_producer(world: World, number: u64) {
    let mut peer = Peer::new(&world, &format!("producer-{number}"));
    let mut value = number << 32;
    while !world.is_over.get() {
        value += 1;
        let partition = world.chance.below(PARTITIONS as u64) as i32;
        let answer = peer.produce(partition, &batch(BatchBuilder::new(), &value)).await;
        let offset = answer.filter(|(error, _)| *error == 0).map(|(_, offset)| offset);
        world.note(Event::Sent { client: peer.name.clone(), partition, value, offset });
        sleep(world.chance.ms(1, 30)).await;
    }
}

/// Sends each value until it is acknowledged, and some of them once more before that.
async fn idempotent_producer(world: World, number: u64) {
    let mut peer = Peer::new(&world, &format!("idempotent-{number}"));
    let mut value = number << 32;
    let id = loop {
        let request = InitProducerIdRequest { transactional_id: None, transaction_timeout_ms: 60_000, ..Default::default() };
        match peer.call(&request, 4).await.filter(|response| response.error_code == 0) {
            Some(response) => break response,
            None if world.is_over.get() => return,
            None => sleep(Duration::from_millis(50)).await,
        }
    };
    let mut sequences = [0; PARTITIONS as usize];
    while !world.is_over.get() {
        value += 1;
        let partition = world.chance.below(PARTITIONS as u64) as i32;
        let sequence = &mut sequences[partition as usize];
        let batch = batch(BatchBuilder::new().producer(id.producer_id, id.producer_epoch, *sequence), &value);
        let offset = loop {
            if world.chance.below(10) == 0 {
                let leader = To::Leader(TOPIC, partition);
                peer.ask_and_leave(leader, &produce_request(TOPIC, partition, &batch, -1), 9, world.chance.ms(0, 30)).await;
            }
            match peer.produce(partition, &batch).await {
                Some((0, offset)) => break Some(offset),
                Some((error, _)) if error == ErrorCode::OutOfOrderSequenceNumber.code() => {
                    world.note(Event::OutOfSequence { client: peer.name.clone(), partition, value });
                    return;
                }
                _ if world.is_over.get() => break None,
                _ => sleep(world.chance.ms(10, 100)).await,
            }
        };
        *sequence += 1;
        world.note(Event::Sent { client: peer.name.clone(), partition, value, offset });
        sleep(world.chance.ms(1, 30)).await;
    }
}

/// Writes transactions of a few values, commits most of them and aborts some.
async fn transactional_producer(world: World, number: u64) {
    let mut peer = Peer::new(&world, &format!("transactional-{number}"));
    let id = peer.name.clone();
    let mut value = (20 + number) << 32;
    let mut round = 0;
    let style = if number.is_multiple_of(2) { Style::Adding } else { Style::Bumping };
    while !world.is_over.get() {
        let request = init_request(&id, TRANSACTION_TIMEOUT_MS, None);
        let Some(answer) =
            peer.call_of(To::Transactions(&id), &request, 4, |answer| answer.error_code).await.filter(|answer| answer.error_code == 0)
        else {
            sleep(world.chance.ms(10, 200)).await;
            continue;
        };
        let mut me = Identity::new(answer.producer_id, answer.producer_epoch);
        let mut sequences = [0; PARTITIONS as usize];
        while !world.is_over.get() {
            round += 1;
            let mut open = OpenTransaction::default();
            let next = transaction(&world, &mut peer, &id, style, me, &mut sequences, &mut value, round, &mut open).await;
            world.note(Event::Transaction { values: open.values, offset: open.offset, end: open.end });
            // What went wrong is left to the next one of this name.
            let Some(next) = next else { break };
            if next != me {
                (me, sequences) = (next, [0; PARTITIONS as usize]);
            }
            sleep(world.chance.ms(1, 60)).await;
        }
    }
}

struct OpenTransaction {
    values: Vec<(i32, u64)>,
    offset: Option<(String, i32, i64)>,
    end: End,
}

impl Default for OpenTransaction {
    /// Nobody has asked to commit it.
    fn default() -> Self {
        OpenTransaction { values: Vec::new(), offset: None, end: End::Aborted }
    }
}

/// One transaction; none where something went wrong.
#[allow(clippy::too_many_arguments)]
async fn transaction(
    world: &World,
    peer: &mut Peer,
    id: &str,
    style: Style,
    me: Identity,
    sequences: &mut [i32; PARTITIONS as usize],
    value: &mut u64,
    round: i64,
    open: &mut OpenTransaction,
) -> Option<Identity> {
    let (produce, end, offsets) = style.versions();
    for _ in 0..1 + world.chance.below(4) {
        *value += 1;
        let partition = world.chance.below(PARTITIONS as u64) as i32;
        if style == Style::Adding {
            let added = peer.call_at(To::Transactions(id), &add_partitions_request(id, me, TOPIC, &[partition]), 3).await?;
            let result = added.results_by_topic_v3_and_below.first()?.results_by_partition.first()?;
            peer.judge(result.partition_error_code);
            (result.partition_error_code == 0).then_some(())?;
        }
        let sequence = &mut sequences[partition as usize];
        let batch = transactional_batch(me, *sequence, &[*value], BEGIN_MS);
        open.values.push((partition, *value));
        let answer = peer.call_at(To::Leader(TOPIC, partition), &transactional_produce(id, TOPIC, partition, &batch), produce).await;
        let answer = answer.and_then(|answer| answer.responses.first()?.partition_responses.first().cloned());
        peer.judge(answer.as_ref().map_or(0, |answer| answer.error_code));
        let offset = answer.filter(|answer| answer.error_code == 0).map(|answer| answer.base_offset);
        world.note(Event::Sent { client: peer.name.clone(), partition, value: *value, offset });
        offset?;
        *sequence += 1;
    }
    if world.chance.below(3) == 0 {
        if style == Style::Adding {
            let request = add_offsets_request(id, me, TRANSACTIONAL_GROUP);
            let added = peer.call_of(To::Transactions(id), &request, 3, |added| added.error_code).await?;
            (added.error_code == 0).then_some(())?;
        }
        // A partition of the group for each producer, so that its offsets grow.
        let partition = peer.name.bytes().last().map_or(0, |digit| i32::from(digit - b'0') % PARTITIONS);
        open.offset = Some((TRANSACTIONAL_GROUP.into(), partition, round));
        let request = offsets_request(id, me, TRANSACTIONAL_GROUP, TOPIC, &[(partition, round)]);
        let answer = peer.call_at(To::Group(TRANSACTIONAL_GROUP), &request, offsets).await?;
        let error = answer.topics.first()?.partitions.first()?.error_code;
        peer.judge(error);
        (error == 0).then_some(())?;
    }
    let result = if world.chance.below(5) == 0 { TransactionResult::Abort } else { TransactionResult::Commit };
    if result == TransactionResult::Commit {
        world.note(Event::Committing { values: open.values.clone() });
        open.end = End::Unknown;
    }
    let answer = loop {
        match peer.call_of(To::Transactions(id), &end_request(id, me, result), end, |answer| answer.error_code).await {
            Some(answer) if answer.error_code == 0 => break answer,
            Some(answer) if ErrorCode::from_code(answer.error_code).is_some_and(|error| error.is_retriable()) => {}
            Some(_) => return None,
            // What became of it is asked again.
            None if !world.is_over.get() => {}
            None => return None,
        }
        sleep(world.chance.ms(5, 50)).await;
    };
    if result == TransactionResult::Commit {
        open.end = End::Committed;
        if let Some((group, partition, offset)) = open.offset.clone() {
            world.note(Event::Committed { group, partition, offset });
        }
    }
    let next = Identity::new(answer.producer_id, answer.producer_epoch);
    Some(if style == Style::Bumping { next } else { me })
}

/// Reads what is committed of all partitions, from their beginning on.
async fn committed_reader(world: World) {
    let mut peer = Peer::new(&world, "committed-reader");
    let mut next = [0; PARTITIONS as usize];
    while !world.is_over.get() {
        for partition in 0..PARTITIONS {
            let position = &mut next[partition as usize];
            if let Some((records, next)) = peer.fetch_committed(partition, *position).await.filter(|(_, next)| next > position) {
                *position = next;
                world.note(Event::PolledCommitted { client: peer.name.clone(), partition, records });
            }
        }
        sleep(world.chance.ms(1, 50)).await;
    }
}

/// Reads all partitions from their beginning on, without a group.
async fn reader(world: World) {
    let mut peer = Peer::new(&world, "reader");
    let mut next = [0; PARTITIONS as usize];
    while !world.is_over.get() {
        for partition in 0..PARTITIONS {
            let position = &mut next[partition as usize];
            if let Some((records, next)) = peer.fetch(partition, *position).await.filter(|(_, next)| next > position) {
                *position = next;
                world.note(Event::Polled { client: peer.name.clone(), partition, records });
            }
        }
        sleep(world.chance.ms(1, 50)).await;
    }
}

/// A member of the group: its leader gives each partition to one member.
async fn member(world: World, number: u64) {
    let mut peer = Peer::new(&world, &format!("member-{number}"));
    let mut id = String::new();
    while !world.is_over.get() {
        if membership(&world, &mut peer, &mut id).await.is_none() {
            sleep(world.chance.ms(10, 200)).await;
        }
    }
}

/// One generation, until something is not as it should be.
async fn membership(world: &World, peer: &mut Peer, id: &mut String) -> Option<()> {
    let join = JoinGroupRequest {
        group_id: GROUP.into(),
        session_timeout_ms: 3000,
        rebalance_timeout_ms: 1500,
        member_id: id.clone(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "own".into(), metadata: Bytes::new() }],
        ..Default::default()
    };
    let joined = peer.call_of(To::Group(GROUP), &join, 5, |joined| joined.error_code).await?;
    if joined.error_code == ErrorCode::UnknownMemberId.code() {
        id.clear();
        return None;
    }
    id.clone_from(&joined.member_id);
    if joined.error_code != 0 {
        return None;
    }
    let part = |at: usize| (0..PARTITIONS as u8).filter(|p| usize::from(*p) % joined.members.len() == at).collect::<Vec<u8>>();
    let assignment = |(at, m): (usize, &_)| SyncGroupRequestAssignment { member_id: member_id(m), assignment: Bytes::from(part(at)) };
    let sync = SyncGroupRequest {
        group_id: GROUP.into(),
        generation_id: joined.generation_id,
        member_id: id.clone(),
        assignments: joined.members.iter().enumerate().map(assignment).collect(),
        ..Default::default()
    };
    let synced = peer.call_of(To::Group(GROUP), &sync, 3, |synced| synced.error_code).await.filter(|synced| synced.error_code == 0)?;
    let mut positions = BTreeMap::new();
    for partition in synced.assignment.iter().map(|p| i32::from(*p)) {
        let found = committed(world, peer, GROUP, partition).await?;
        positions.insert(partition, found.max(0));
        world.note(Event::Seek { client: peer.name.clone(), partition, offset: found.max(0) });
    }
    while !world.is_over.get() {
        for (partition, position) in &mut positions {
            let (records, next) = peer.fetch(*partition, *position).await?;
            if next > *position {
                *position = next;
                world.note(Event::Polled { client: peer.name.clone(), partition: *partition, records });
            }
        }
        let offset = |(partition, position): (&i32, &i64)| OffsetCommitRequestPartition {
            partition_index: *partition,
            committed_offset: *position,
            ..Default::default()
        };
        let topic =
            OffsetCommitRequestTopic { name: TOPIC.into(), partitions: positions.iter().map(offset).collect(), ..Default::default() };
        let commit = OffsetCommitRequest {
            group_id: GROUP.into(),
            generation_id_or_member_epoch: joined.generation_id,
            member_id: id.clone(),
            topics: vec![topic],
            ..Default::default()
        };
        for answer in &peer.call_at(To::Group(GROUP), &commit, 7).await?.topics.first()?.partitions {
            peer.judge(answer.error_code);
            if answer.error_code != 0 {
                return None;
            }
            let partition = answer.partition_index;
            world.note(Event::Committed { group: GROUP.into(), partition, offset: positions[&partition] });
        }
        let beat =
            HeartbeatRequest { group_id: GROUP.into(), generation_id: joined.generation_id, member_id: id.clone(), ..Default::default() };
        peer.call_of(To::Group(GROUP), &beat, 3, |beat| beat.error_code).await.filter(|beat| beat.error_code == 0)?;
        sleep(world.chance.ms(5, 100)).await;
    }
    Some(())
}

fn member_id(member: &dlog::protocol::generated::join_group::JoinGroupResponseMember) -> String {
    member.member_id.clone()
}

/// The group's offset. What others commit meanwhile is not held against the answer.
async fn committed(world: &World, peer: &mut Peer, group: &str, partition: i32) -> Option<i64> {
    let asked_at = world.history.borrow().len();
    let offset = peer.committed(group, partition).await?;
    world.history.borrow_mut().insert(asked_at, Event::Found { group: group.into(), partition, offset });
    Some(offset)
}

/// Creates a topic, writes to it, reads it and deletes it, again and again. What is read of one that was just created was written to it, and
/// to none before it.
async fn topics(world: World) {
    const CHURN: &str = "churn";
    let mut peer = Peer::new(&world, "churn");
    let mut generation = 0_u64;
    while !world.is_over.get() {
        generation += 1;
        let policy = ["delete", "compact"][generation as usize % 2];
        let configs = [
            ("segment.ms", "50"),
            ("cleanup.policy", policy),
            ("flush.ms", "5"),
            ("message.timestamp.after.max.ms", "9223372036854775807"),
        ];
        let created = peer.call(&create_topic_request(CHURN, 2, &configs), 7).await;
        // Whose topic is there is only known where this created it.
        let is_new = created.is_some_and(|answer| answer.topics[0].error_code == 0);
        let mut is_answered = true;
        for at in 0..world.chance.below(12) {
            let value = generation << 32 | at;
            let record = BatchBuilder::new().record(NewRecord::keyed(b"key", Some(&value.to_be_bytes()))).build(BEGIN_MS);
            is_answered &= peer.call(&produce_request(CHURN, (at % 2) as i32, &record, -1), 9).await.is_some();
            sleep(world.chance.ms(1, 20)).await;
        }
        for partition in 0..2 {
            let response = peer.call(&fetch_request(CHURN, &[(partition, 0)], 1, 10), 12).await;
            let data = response.and_then(|response| response.responses.first()?.partitions.first().cloned());
            let bytes = data.filter(|data| data.error_code == 0).and_then(|data| data.records?.bytes().cloned()).unwrap_or_default();
            for (offset, value) in visible_of(&bytes, Vec::new(), 0).0 {
                assert!(!is_new || value >> 32 == generation, "generation {generation} has {value:x} at {offset}");
            }
        }
        let request = DeleteTopicsRequest { topic_names: vec![CHURN.into()], timeout_ms: 2000, ..Default::default() };
        is_answered &= peer.call(&request, 5).await.is_some();
        // What was not answered may be done later, and must not be done to the next topic.
        sleep(if is_answered { world.chance.ms(1, 200) } else { world.chance.ms(1000, 1500) }).await;
    }
}

/// Makes the topic; tries until it is there.
async fn create_topic(world: World) {
    let mut peer = Peer::new(&world, "administrator");
    // Segments are many, so that rolls, indexes and snapshots are in play. The clients' clock stands while the broker's jumps.
    let configs = [("segment.ms", "1000"), ("message.timestamp.after.max.ms", "9223372036854775807")];
    let request = create_topic_request(TOPIC, PARTITIONS, &configs);
    while peer.call(&request, 7).await.is_none_or(|answer| answer.topics[0].error_code != 0) {}
    // Who looks for the coordinator makes the offsets topic.
    for key_type in [GROUP_KEY, TRANSACTION_KEY] {
        while peer.coordinator(key_type, GROUP).await.is_none() {}
    }
}

/// Reads everything when all is over, and asks for the group's offsets.
async fn last_reader(world: World) {
    let mut peer = Peer::new(&world, "last-reader");
    for partition in 0..PARTITIONS {
        let end = loop {
            if let Some(end) = peer.offset(partition, -1).await {
                break end;
            }
        };
        let mut position = 0;
        while position < end {
            let Some((records, next)) = peer.fetch(partition, position).await else { continue };
            position = next;
            world.note(Event::Polled { client: peer.name.clone(), partition, records });
        }
        world.note(Event::ReadToEnd { client: peer.name.clone(), partition });
        // Open transactions end by time, and then everything is stable.
        let mut position = 0;
        while position < end {
            let Some((records, next)) = peer.fetch_committed(partition, position).await else { continue };
            position = next;
            world.note(Event::PolledCommitted { client: "last-committed-reader".into(), partition, records });
        }
        world.note(Event::ReadCommittedToEnd { client: "last-committed-reader".into(), partition });
        for group in [GROUP, TRANSACTIONAL_GROUP] {
            while committed(&world, &mut peer, group, partition).await.is_none() {}
        }
    }
}

/// What a run leaves.
struct Run {
    /// Of each cluster's clients.
    histories: Vec<Vec<Event>>,
    /// Operations on all disks, the crashes, and the starts on another machine.
    operations: u64,
    crashes: u64,
    moves: u64,
}

/// The machine of a cluster's broker: its disk outlives the broker, and can be moved to another machine.
struct Machine {
    plan: &'static Plan,
    disk: Arc<Mutex<MemoryDisk>>,
    clock: Arc<SimulatedClock>,
    is_synced: bool,
    /// Which of its homes the disk is in, and on which port the broker serves clients.
    place: Rc<Cell<(usize, u16)>>,
    operations: u64,
    crashes: u64,
    moves: u64,
}

impl Machine {
    /// Puts the machine into the world; the broker starts with the next step.
    fn new(sim: &mut turmoil::Sim<'_>, plan: &'static Plan, seed: u64, chance: &Chance) -> Machine {
        // One of the two clusters of a world is synced.
        let is_synced = (seed + plan.node as u64).is_multiple_of(2);
        let clock = Arc::new(SimulatedClock::default());
        clock.jumped_ms.store(chance.below(2 * CLOCK_OFFSET_MS) as i64 - CLOCK_OFFSET_MS as i64, Ordering::Relaxed);
        let machine = Machine {
            plan,
            disk: Arc::new(Mutex::new(MemoryDisk::new(clock.clone()))),
            clock,
            is_synced,
            place: Rc::new(Cell::new((0, PORTS[0]))),
            operations: 0,
            crashes: 0,
            moves: 0,
        };
        let entropy = Arc::new(SimulatedEntropy(AtomicU64::new(seed << 32 | (plan.node as u64) << 24)));
        for (at, home) in plan.homes.into_iter().enumerate() {
            let (disk, clock, place, entropy) = (machine.disk.clone(), machine.clock.clone(), machine.place.clone(), entropy.clone());
            sim.host(home, move || {
                let (home_of_disk, port) = place.get();
                let env = Env {
                    clock: clock.clone(),
                    entropy: entropy.clone(),
                    disk: Arc::new(disk.lock().expect("no panic").clone()),
                    network: Arc::new(SimulatedNetwork),
                    workers: Workers::inline_late(entropy.clone(), DISK_LATENCY),
                    open_files_max: None,
                    log_span: tracing::info_span!("broker", id = plan.node),
                };
                async move {
                    if at == home_of_disk {
                        match Broker::start(config(plan.node, home, port, is_synced), env).await {
                            Ok(broker) => return Err(broker.failed().await.into()),
                            // Its disk was cut off during the start; the machine crashes soon.
                            Err(error) if error.to_string().contains("the disk has stopped") => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                    std::future::pending::<()>().await;
                    Ok(())
                }
            });
        }
        machine
    }

    /// Where the broker is.
    fn home(&self) -> &'static str {
        self.plan.homes[self.place.get().0]
    }

    /// Kills the broker, or cuts the power where what was acknowledged must survive that as well.
    fn crash(&mut self, sim: &mut turmoil::Sim<'_>, chance: &Chance) {
        let crash = match (self.is_synced, chance.below(3)) {
            (false, _) | (true, 0) => Crash::Process,
            (true, 1) => Crash::Power,
            (true, _) => Crash::PowerPartly(chance.below(u64::MAX)),
        };
        let mut disk = self.disk.lock().expect("no panic");
        let survivor = disk.after(crash);
        self.operations += disk.operations();
        self.crashes += 1;
        // What still runs of the dead one writes to nothing.
        disk.cut_at(Cut { operation: disk.operations(), torn: None });
        *disk = survivor;
        drop(disk);
        sim.crash(self.home());
    }

    /// Starts the broker on another port, and at times on another machine.
    fn restart(&mut self, sim: &mut turmoil::Sim<'_>, chance: &Chance) {
        let (home, port) = self.place.get();
        let others: Vec<u16> = PORTS.into_iter().filter(|other| *other != port).collect();
        let is_moved = chance.below(3) == 0;
        self.moves += u64::from(is_moved);
        self.place.set((if is_moved { 1 - home } else { home }, others[chance.below(others.len() as u64) as usize]));
        sim.bounce(self.home());
    }

    /// The name in the world of one of its clients.
    fn client(&self, name: &str) -> String {
        format!("{}-{name}", self.plan.node)
    }

    /// Tears or mends the network between the broker and a client.
    fn each_way(&self, name: &str, mut change: impl FnMut(&str, String)) {
        self.plan.homes.iter().for_each(|home| change(home, self.client(name)));
    }
}

/// The work of a client by its name, `KIND-NUMBER`.
fn work(world: World, name: &str) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
    let (kind, number) = match name.rsplit_once('-') {
        Some((kind, number)) if number.parse::<u64>().is_ok() => (kind, number.parse().unwrap_or_default()),
        _ => (name, 0),
    };
    match kind {
        "plain" => Box::pin(plain_producer(world, number)),
        "idempotent" => Box::pin(idempotent_producer(world, 10 + number)),
        "transactional" => Box::pin(transactional_producer(world, number)),
        "member" => Box::pin(member(world, number)),
        "reader" => Box::pin(reader(world)),
        "committed-reader" => Box::pin(committed_reader(world)),
        "churn" => Box::pin(topics(world)),
        other => panic!("nobody knows the client {other}"),
    }
}

fn client(sim: &mut turmoil::Sim<'_>, name: String, work: impl Future<Output = ()> + 'static) {
    sim.client(name, async move {
        work.await;
        Ok(())
    });
}

fn go_on(sim: &mut turmoil::Sim<'_>, time: Duration) {
    let until = sim.elapsed() + time;
    while sim.elapsed() < until {
        sim.step().expect("no client fails");
    }
}

fn run(seed: u64) -> Run {
    let chance = Chance::new(seed);
    let mut builder = turmoil::Builder::new();
    builder
        .simulation_duration(Duration::from_secs(600))
        .tick_duration(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .tcp_capacity(1 << 16)
        .rng_seed(seed);
    let mut sim = builder.build();
    let is_over: Rc<Cell<bool>> = Rc::default();
    let mut clusters: Vec<(Machine, World)> = Vec::new();
    for plan in &CLUSTERS {
        let machine = Machine::new(&mut sim, plan, seed, &chance);
        let (cluster_id, history) = (Rc::default(), Rc::default());
        clusters.push((machine, World { chance: chance.clone(), plan, cluster_id, history, is_over: is_over.clone() }));
    }
    for (machine, world) in &clusters {
        client(&mut sim, machine.client("administrator"), create_topic(world.clone()));
    }
    while !sim.step().expect("no client fails") {}
    for (machine, world) in &clusters {
        machine.plan.clients.iter().for_each(|name| client(&mut sim, machine.client(name), work(world.clone(), name)));
    }
    let end = sim.elapsed() + FAULTS_FOR;
    while sim.elapsed() < end || clusters.iter().any(|(machine, _)| machine.crashes == 0) || clusters.iter().all(|(m, _)| m.moves == 0) {
        go_on(&mut sim, chance.ms(50, 1400));
        let machine = &mut clusters[chance.below(CLUSTERS.len() as u64) as usize].0;
        match chance.below(4) {
            0 => {
                // One client, or all.
                let names = machine.plan.clients;
                let first = chance.below(2 * names.len() as u64) as usize;
                let cut_off = names.get(first..=first).unwrap_or(names);
                cut_off.iter().for_each(|name| machine.each_way(name, |home, client| sim.partition(home, client)));
                go_on(&mut sim, chance.ms(50, 3000));
                cut_off.iter().for_each(|name| machine.each_way(name, |home, client| sim.repair(home, client)));
                continue;
            }
            1 => {
                let jumps = [3_600_000, -3_600_000, 1, -1000];
                machine.clock.jumped_ms.fetch_add(jumps[chance.below(4) as usize], Ordering::Relaxed);
                continue;
            }
            2 => {
                // The disk goes in the middle of something, torn or not; then the machine.
                let disk = machine.disk.lock().expect("no panic").clone();
                let torn = [None, Some(512), Some(4096)][chance.below(3) as usize];
                disk.cut_at(Cut { operation: disk.operations() + chance.below(40), torn });
                go_on(&mut sim, chance.ms(10, 500));
            }
            _ => {}
        }
        machine.crash(&mut sim, &chance);
        go_on(&mut sim, chance.ms(1, 1500));
        machine.restart(&mut sim, &chance);
    }
    is_over.set(true);
    while !sim.step().expect("no client fails") {}
    // Once more: what was served at the last must be there after the next start.
    for (machine, world) in &mut clusters {
        machine.crash(&mut sim, &chance);
        machine.restart(&mut sim, &chance);
        client(&mut sim, machine.client("last-reader"), last_reader(world.clone()));
    }
    while !sim.step().expect("no client fails") {}
    let ids: BTreeSet<_> = clusters.iter().map(|(_, world)| world.cluster_id.borrow().clone()).collect();
    assert_eq!(ids.len(), clusters.len(), "each cluster has an id of its own");
    let sum = |of: fn(&Machine) -> u64| clusters.iter().map(|(machine, _)| of(machine)).sum();
    Run {
        histories: clusters.iter().map(|(_, world)| world.history.borrow().clone()).collect(),
        operations: sum(|machine| machine.operations),
        crashes: sum(|machine| machine.crashes),
        moves: sum(|machine| machine.moves),
    }
}

fn config(node: i32, home: &str, port: u16, is_synced: bool) -> Config {
    let settings = [
        ("node.id", node.to_string()),
        ("log.dirs", "/data".into()),
        ("listeners", format!("PLAINTEXT://0.0.0.0:{port},BOOTSTRAP://0.0.0.0:{BOOTSTRAP_PORT}")),
        ("advertised.listeners", format!("PLAINTEXT://{home}:{port},BOOTSTRAP://{home}:{port}")),
        ("offsets.topic.num.partitions", "2".into()),
        ("transaction.state.log.num.partitions", "2".into()),
        ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "300".into()),
        ("group.initial.rebalance.delay.ms", "0".into()),
        ("group.min.session.timeout.ms", "1000".into()),
        // What is done in the background meets topics that are deleted.
        ("log.flush.offset.checkpoint.interval.ms", "150".into()),
        ("log.retention.check.interval.ms", "200".into()),
        ("log.cleaner.backoff.ms", "100".into()),
        ("durability.profile", if is_synced { "fsync" } else { "default" }.into()),
    ];
    let flags = settings.map(|(key, value)| (key.to_string(), value)).into();
    Config::read(Mode::Dev, &Sources { flags, ..Sources::default() }, "0.0.0.0:8080").expect("the settings are sound")
}

/// Values that the clients of one kind know to be stored.
fn acknowledged(history: &[Event], kind: &str) -> usize {
    history.iter().filter(|event| matches!(event, Event::Sent { client, offset: Some(_), .. } if client.starts_with(kind))).count()
}

/// Runs one world in this process. Each has a process of its own: tokio numbers its tasks through all of a process, and when a broker dies
/// they end in an order that depends on their numbers.
#[test]
#[ignore = "run by the tests below"]
fn one_world() {
    let seed = number("SEED").unwrap_or_default();
    let run = run(seed);
    let found: Vec<_> = run.histories.iter().flat_map(|history| check(history)).collect();
    let all = run.histories.concat();
    let sent = ["producer", "idempotent", "transactional"].map(|kind| acknowledged(&all, kind));
    let committed = all.iter().filter(|e| matches!(e, Event::Committed { .. })).count();
    let ended = |how: End| all.iter().filter(|e| matches!(e, Event::Transaction { end, .. } if *end == how)).count();
    let [done, aborted, unknown] = [End::Committed, End::Aborted, End::Unknown].map(ended);
    let trace = crc32c::crc32c(format!("{:?}", run.histories).as_bytes());
    println!(
        "seed {seed}: {} events, {sent:?} values acknowledged, {committed} commits, {done} + {aborted} + {unknown} transactions, {} crashes, {} moves, {} operations, trace {trace:08x}",
        all.len(),
        run.crashes,
        run.moves,
        run.operations
    );
    let text: Vec<String> = found.iter().take(20).map(ToString::to_string).collect();
    assert!(found.is_empty(), "SEED={seed}: {} anomalies\n{}", found.len(), text.join("\n"));
    assert!(
        sent.iter().all(|sent| *sent > 50) && committed > 10 && done > 10 && aborted > 0 && run.crashes > 1 && run.moves > 0,
        "SEED={seed}: too little happened"
    );
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

/// Runs a world, and gives the line that it says; its whole output where it fails.
fn world(seed: u64) -> Result<String, String> {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["one_world", "--exact", "--ignored", "--nocapture"]).env("SEED", seed.to_string());
    let output = command.output().expect("it runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find(|line| line.starts_with("seed ")).map(str::to_string);
    line.filter(|_| output.status.success()).ok_or(text)
}

#[test]
fn no_client_sees_anything_wrong_while_the_broker_crashes() {
    let left = Mutex::new(match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(8),
    });
    let next = || left.lock().expect("no panic").next();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = next() {
                    println!("{}", world(seed).unwrap_or_else(|output| panic!("SEED={seed}\n{output}")));
                }
            });
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let lines: Vec<String> = (1..=4).map(|seed| world(seed).expect("nothing is wrong")).collect();
    for (seed, line) in (1..=4).zip(&lines) {
        assert_eq!(world(seed).as_ref(), Ok(line));
    }
    let traces: BTreeSet<&str> = lines.iter().filter_map(|line| line.rsplit_once(' ')).map(|(_, trace)| trace).collect();
    assert_eq!(traces.len(), lines.len(), "other seeds, other worlds");
}

#[test]
fn the_checker_names_each_anomaly() {
    let sent = |value, offset| Event::Sent { client: "p".into(), partition: 0, value, offset };
    let polled = |records: &[(i64, u64)]| Event::Polled { client: "c".into(), partition: 0, records: records.to_vec() };
    let end = || Event::ReadToEnd { client: "c".into(), partition: 0 };
    let seek = |offset| Event::Seek { client: "c".into(), partition: 0, offset };
    let commit = |offset| Event::Committed { group: "g".into(), partition: 0, offset };
    let group_finds = |offset| Event::Found { group: "g".into(), partition: 0, offset };
    let names = |history: &[Event]| check(history).into_iter().map(|found| found.0).collect::<Vec<_>>();
    let numbered = |values: &[u64]| values.iter().map(|value| (0, *value)).collect::<Vec<_>>();
    let committing = |values: &[u64]| Event::Committing { values: numbered(values) };
    let ended = |values: &[u64], end| Event::Transaction { values: numbered(values), offset: None, end };
    let seen = |records: &[(i64, u64)]| Event::PolledCommitted { client: "r".into(), partition: 0, records: records.to_vec() };
    let all_seen = || Event::ReadCommittedToEnd { client: "r".into(), partition: 0 };
    let transactional = [
        sent(1, Some(0)),
        sent(2, Some(1)),
        committing(&[1, 2]),
        ended(&[1, 2], End::Committed),
        sent(3, Some(3)),
        ended(&[3], End::Aborted),
        sent(4, Some(5)),
        committing(&[4]),
        ended(&[4], End::Unknown),
        seen(&[(0, 1), (1, 2)]),
        seen(&[(5, 4)]),
        all_seen(),
    ];
    assert_eq!(names(&transactional), []);
    let good = [sent(1, Some(0)), sent(2, None), sent(3, Some(5)), polled(&[(0, 1), (3, 2)]), polled(&[(5, 3)]), end()];
    assert_eq!(names(&good), []);
    assert_eq!(names(&[commit(5), group_finds(5), commit(7), group_finds(9)]), []);
    assert_eq!(names(&[sent(1, Some(0)), polled(&[(0, 1)]), seek(0), polled(&[(0, 1)])]), [], "who seeks may read again");
    let cases = [
        (Anomaly::LostWrite, vec![sent(1, Some(0)), sent(2, Some(1)), polled(&[(1, 2)]), end()]),
        (Anomaly::Duplicate, vec![sent(1, Some(0)), polled(&[(0, 1), (1, 1)])]),
        (Anomaly::InconsistentOffsets, vec![sent(1, Some(0)), sent(2, None), polled(&[(0, 2)])]),
        (Anomaly::PollSkip, vec![sent(1, Some(0)), sent(2, Some(1)), sent(3, Some(2)), polled(&[(0, 1)]), polled(&[(2, 3)])]),
        (Anomaly::NonmonotonicPoll, vec![sent(1, Some(0)), sent(2, Some(1)), polled(&[(0, 1), (1, 2)]), polled(&[(0, 1)])]),
        (Anomaly::NonmonotonicSend, vec![sent(1, Some(1)), sent(2, Some(0))]),
        (Anomaly::LostCommit, vec![commit(5), commit(3), group_finds(4)]),
        (Anomaly::Phantom, vec![polled(&[(0, 1)])]),
        (Anomaly::AbortedRead, vec![sent(1, Some(0)), ended(&[1], End::Aborted), seen(&[(0, 1)])]),
        (
            Anomaly::AbortedRead,
            vec![Event::Transaction { values: vec![], offset: Some(("g".into(), 0, 7)), end: End::Aborted }, group_finds(7)],
        ),
        (Anomaly::PrecommittedRead, vec![sent(1, Some(0)), seen(&[(0, 1)]), committing(&[1]), ended(&[1], End::Committed)]),
        (
            Anomaly::TornTransaction,
            vec![sent(1, Some(0)), sent(2, Some(1)), committing(&[1, 2]), ended(&[1, 2], End::Unknown), seen(&[(1, 2)]), all_seen()],
        ),
        (Anomaly::LostWrite, vec![sent(1, Some(0)), committing(&[1]), ended(&[1], End::Committed), all_seen()]),
        (Anomaly::PollSkip, vec![sent(1, Some(0)), sent(2, Some(1)), sent(3, Some(2)), seen(&[(0, 1)]), seen(&[(2, 3)])]),
        (Anomaly::OutOfSequence, vec![Event::OutOfSequence { client: "p".into(), partition: 0, value: 1 }]),
    ];
    for (anomaly, history) in cases {
        assert_eq!(names(&history), [anomaly], "{history:?}");
    }
}
