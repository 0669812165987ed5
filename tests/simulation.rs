//! A whole broker under simulated time, network and disk: clients produce, consume and rebalance while it crashes, its disk is cut off and
//! the network is torn; their histories are checked.
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
use dlog::env::{Accept, Accepted, Clock, Crash, Cut, Entropy, Env, Listener, MemoryDisk, Network, Pending, Workers};
use dlog::protocol::generated::find_coordinator::FindCoordinatorRequest;
use dlog::protocol::generated::heartbeat::HeartbeatRequest;
use dlog::protocol::generated::init_producer_id::InitProducerIdRequest;
use dlog::protocol::generated::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use dlog::protocol::generated::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use dlog::protocol::generated::offset_commit::{OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use dlog::protocol::generated::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use dlog::protocol::generated::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use dlog::protocol::{ErrorCode, Request};
use dlog::records::{BatchBuilder, NewRecord, TransactionResult};
use tokio::time::{sleep, timeout};

const BROKER: &str = "broker";
const PORT: u16 = 9092;
const TOPIC: &str = "t";
const GROUP: &str = "g";
/// Its offsets are committed in transactions alone.
const TRANSACTIONAL_GROUP: &str = "tg";
const TRANSACTIONAL: u64 = 3;
const TRANSACTION_TIMEOUT_MS: i32 = 2500;
const PARTITIONS: i32 = 3;
/// How long clients work under faults, in simulated time.
const FAULTS_FOR: Duration = Duration::from_secs(20);
/// How much later than it was asked something begins that waits for the disk, at most.
const DISK_LATENCY: Duration = Duration::from_millis(10);
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);
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

/// Simulated time since a date, which jumps when it is told to.
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
}

impl Accept for SimulatedListener {
    fn local_address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.0.local_addr()
    }

    fn accept(&self) -> Pending<'_, Accepted> {
        Box::pin(async move {
            let (stream, peer) = self.0.accept().await?;
            let local = stream.local_addr()?;
            Ok(Accepted::new(stream, peer, local))
        })
    }
}

/// What the simulation is about.
#[derive(Clone)]
struct World {
    chance: Chance,
    history: Rc<RefCell<Vec<Event>>>,
    /// Clients end when they see it.
    is_over: Rc<Cell<bool>>,
}

impl World {
    fn note(&self, event: Event) {
        self.history.borrow_mut().push(event);
    }
}

/// A client of the broker; a connection that fails is made anew with the next call.
struct Peer {
    name: String,
    connection: Option<Connection>,
}

impl Peer {
    fn new(name: &str) -> Peer {
        Peer { name: name.to_string(), connection: None }
    }

    /// The connection, taken out: it is put back where nothing went wrong with it.
    async fn connected(&mut self) -> Option<Connection> {
        if let Some(connection) = self.connection.take() {
            return Some(connection);
        }
        match timeout(PATIENCE, turmoil::net::TcpStream::connect((BROKER, PORT))).await {
            Ok(Ok(stream)) => Some(Connection::over(stream, &self.name)),
            _ => {
                sleep(Duration::from_millis(100)).await;
                None
            }
        }
    }

    /// The answer; none where none came.
    async fn call<R: Request>(&mut self, request: &R, version: i16) -> Option<R::Response> {
        let mut connection = self.connected().await?;
        let response = timeout(PATIENCE, connection.call(request, version)).await.ok()?.ok()?;
        self.connection = Some(connection);
        Some(response)
    }

    /// Asks, and is gone before there is an answer, or before it is read.
    async fn ask_and_leave<R: Request>(&mut self, request: &R, version: i16, after: Duration) {
        if let Some(mut connection) = self.connected().await
            && connection.send(request, version).await.is_ok()
        {
            sleep(after).await;
        }
    }

    /// The error and the offset of one batch.
    async fn produce(&mut self, partition: i32, batch: &Bytes) -> Option<(i16, i64)> {
        let response = self.call(&produce_request(TOPIC, partition, batch, -1), 9).await?;
        let answer = response.responses.first()?.partition_responses.first()?;
        Some((answer.error_code, answer.base_offset))
    }

    /// Offsets and values of committed records from an offset on, and where to go on.
    async fn fetch_committed(&mut self, partition: i32, offset: i64) -> Option<(Vec<(i64, u64)>, i64)> {
        let response = self.call(&committed_fetch(TOPIC, partition, offset, 100), 12).await?;
        response.responses.first()?.partitions.first().filter(|data| data.error_code == 0)?;
        Some(visible(&response, offset))
    }

    /// Offsets and values of all records from an offset on, and where to go on.
    async fn fetch(&mut self, partition: i32, offset: i64) -> Option<(Vec<(i64, u64)>, i64)> {
        let response = self.call(&fetch_request(TOPIC, &[(partition, offset)], 1, 100), 12).await?;
        let data = response.responses.first()?.partitions.first().filter(|data| data.error_code == 0)?;
        let bytes = data.records.as_ref().and_then(|records| records.bytes()).cloned().unwrap_or_default();
        Some(visible_of(&bytes, Vec::new(), offset))
    }

    async fn offset(&mut self, partition: i32, timestamp: i64) -> Option<i64> {
        let partition = ListOffsetsPartition { partition_index: partition, timestamp, ..Default::default() };
        let topics = vec![ListOffsetsTopic { name: TOPIC.into(), partitions: vec![partition] }];
        let response = self.call(&ListOffsetsRequest { replica_id: -1, topics, ..Default::default() }, 5).await?;
        let answer = response.topics.first()?.partitions.first().filter(|p| p.error_code == 0)?;
        Some(answer.offset)
    }

    /// The group's offset, -1 where there is none.
    async fn committed(&mut self, group: &str, partition: i32) -> Option<i64> {
        let topics = vec![OffsetFetchRequestTopic { name: TOPIC.into(), partition_indexes: vec![partition] }];
        let request = OffsetFetchRequest { group_id: group.into(), topics: Some(topics), ..Default::default() };
        let response = self.call(&request, 5).await.filter(|response| response.error_code == 0)?;
        let answer = response.topics.first()?.partitions.first().filter(|p| p.error_code == 0)?;
        Some(answer.committed_offset)
    }
}

fn batch(builder: BatchBuilder<'_>, value: &u64) -> Bytes {
    builder.record(NewRecord::value(&value.to_be_bytes())).build(BEGIN_MS)
}

/// Sends each value once.
async fn plain_producer(world: World, number: u64) {
    let mut peer = Peer::new(&format!("producer-{number}"));
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
    let mut peer = Peer::new(&format!("idempotent-{number}"));
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
                peer.ask_and_leave(&produce_request(TOPIC, partition, &batch, -1), 9, world.chance.ms(0, 30)).await;
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
    let mut peer = Peer::new(&format!("transactional-{number}"));
    let id = peer.name.clone();
    let mut value = (20 + number) << 32;
    let mut round = 0;
    let style = if number.is_multiple_of(2) { Style::Adding } else { Style::Bumping };
    while !world.is_over.get() {
        let request = init_request(&id, TRANSACTION_TIMEOUT_MS, None);
        let Some(answer) = peer.call(&request, 4).await.filter(|answer| answer.error_code == 0) else {
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
            let added = peer.call(&add_partitions_request(id, me, TOPIC, &[partition]), 3).await?;
            let result = added.results_by_topic_v3_and_below.first()?.results_by_partition.first()?;
            (result.partition_error_code == 0).then_some(())?;
        }
        let sequence = &mut sequences[partition as usize];
        let batch = transactional_batch(me, *sequence, &[*value], BEGIN_MS);
        open.values.push((partition, *value));
        let answer = peer.call(&transactional_produce(id, TOPIC, partition, &batch), produce).await;
        let answer = answer.and_then(|answer| answer.responses.first()?.partition_responses.first().cloned());
        let offset = answer.filter(|answer| answer.error_code == 0).map(|answer| answer.base_offset);
        world.note(Event::Sent { client: peer.name.clone(), partition, value: *value, offset });
        offset?;
        *sequence += 1;
    }
    if world.chance.below(3) == 0 {
        if style == Style::Adding {
            let added = peer.call(&add_offsets_request(id, me, TRANSACTIONAL_GROUP), 3).await?;
            (added.error_code == 0).then_some(())?;
        }
        // A partition of the group for each producer, so that its offsets grow.
        let partition = peer.name.bytes().last().map_or(0, |digit| i32::from(digit - b'0') % PARTITIONS);
        open.offset = Some((TRANSACTIONAL_GROUP.into(), partition, round));
        let request = offsets_request(id, me, TRANSACTIONAL_GROUP, TOPIC, &[(partition, round)]);
        let answer = peer.call(&request, offsets).await?;
        (answer.topics.first()?.partitions.first()?.error_code == 0).then_some(())?;
    }
    let result = if world.chance.below(5) == 0 { TransactionResult::Abort } else { TransactionResult::Commit };
    if result == TransactionResult::Commit {
        world.note(Event::Committing { values: open.values.clone() });
        open.end = End::Unknown;
    }
    let answer = loop {
        match peer.call(&end_request(id, me, result), end).await {
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
    let mut peer = Peer::new("committed-reader");
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
    let mut peer = Peer::new("reader");
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
    let mut peer = Peer::new(&format!("member-{number}"));
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
    let joined = peer.call(&join, 5).await?;
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
    let synced = peer.call(&sync, 3).await.filter(|synced| synced.error_code == 0)?;
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
        for answer in &peer.call(&commit, 7).await?.topics.first()?.partitions {
            if answer.error_code != 0 {
                return None;
            }
            let partition = answer.partition_index;
            world.note(Event::Committed { group: GROUP.into(), partition, offset: positions[&partition] });
        }
        let beat =
            HeartbeatRequest { group_id: GROUP.into(), generation_id: joined.generation_id, member_id: id.clone(), ..Default::default() };
        peer.call(&beat, 3).await.filter(|beat| beat.error_code == 0)?;
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

/// Makes the topic; tries until it is there.
async fn create_topic() {
    let mut peer = Peer::new("administrator");
    // Segments are many, so that rolls, indexes and snapshots are in play. The clients' clock stands while the broker's jumps.
    let configs = [("segment.ms", "1000"), ("message.timestamp.after.max.ms", "9223372036854775807")];
    let request = create_topic_request(TOPIC, PARTITIONS, &configs);
    while peer.call(&request, 7).await.is_none_or(|answer| answer.topics[0].error_code != 0) {}
    // Who looks for the coordinator makes the offsets topic.
    for key_type in [0, 1] {
        let request = FindCoordinatorRequest { key_type, coordinator_keys: vec![GROUP.into()], ..Default::default() };
        while peer.call(&request, 4).await.is_none_or(|answer| answer.coordinators[0].error_code != 0) {}
    }
}

/// Reads everything when all is over, and asks for the group's offsets.
async fn last_reader(world: World) {
    let mut peer = Peer::new("last-reader");
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
    history: Vec<Event>,
    /// Operations on all disks, and the crashes.
    operations: u64,
    crashes: u64,
}

/// The broker's machine: its disk outlives it.
struct Machine {
    disk: Arc<Mutex<MemoryDisk>>,
    clock: Arc<SimulatedClock>,
    is_synced: bool,
    operations: u64,
    crashes: u64,
}

impl Machine {
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
        sim.crash(BROKER);
    }
}

fn run(seed: u64) -> Run {
    let chance = Chance::new(seed);
    let is_synced = seed % 2 == 1;
    let clock = Arc::new(SimulatedClock::default());
    let disk = Arc::new(Mutex::new(MemoryDisk::new(clock.clone())));
    let mut builder = turmoil::Builder::new();
    builder
        .simulation_duration(Duration::from_secs(600))
        .tick_duration(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .tcp_capacity(1 << 16)
        .rng_seed(seed);
    let mut sim = builder.build();
    let (machine_disk, machine_clock) = (disk.clone(), clock.clone());
    let entropy = Arc::new(SimulatedEntropy(AtomicU64::new(seed << 32)));
    sim.host(BROKER, move || {
        let disk = machine_disk.lock().expect("no panic").clone();
        let env = Env {
            clock: machine_clock.clone(),
            entropy: entropy.clone(),
            disk: Arc::new(disk),
            network: Arc::new(SimulatedNetwork),
            workers: Workers::inline_late(entropy.clone(), DISK_LATENCY),
        };
        async move {
            let _broker = Broker::start(config(is_synced), env).await?;
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    let world = World { chance: chance.clone(), history: Rc::default(), is_over: Rc::default() };
    let client = |sim: &mut turmoil::Sim<'_>, name: &str, work: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
        sim.client(name, async move {
            work.await;
            Ok(())
        })
    };
    client(&mut sim, "administrator", Box::pin(create_topic()));
    while !sim.step().expect("no client fails") {}
    for number in 1..=2 {
        client(&mut sim, &format!("plain-{number}"), Box::pin(plain_producer(world.clone(), number)));
        client(&mut sim, &format!("idempotent-{number}"), Box::pin(idempotent_producer(world.clone(), 10 + number)));
        client(&mut sim, &format!("member-{number}"), Box::pin(member(world.clone(), number)));
    }
    for number in 1..=TRANSACTIONAL {
        client(&mut sim, &format!("transactional-{number}"), Box::pin(transactional_producer(world.clone(), number)));
    }
    client(&mut sim, "reader", Box::pin(reader(world.clone())));
    client(&mut sim, "committed-reader", Box::pin(committed_reader(world.clone())));
    let mut machine = Machine { disk, clock, is_synced, operations: 0, crashes: 0 };
    let names = [
        "plain-1",
        "idempotent-1",
        "idempotent-2",
        "member-1",
        "member-2",
        "reader",
        "transactional-1",
        "transactional-2",
        "committed-reader",
    ];
    let go_on = |sim: &mut turmoil::Sim<'_>, time: Duration| {
        let until = sim.elapsed() + time;
        while sim.elapsed() < until {
            sim.step().expect("no client fails");
        }
    };
    let end = sim.elapsed() + FAULTS_FOR;
    while sim.elapsed() < end || machine.crashes == 0 {
        go_on(&mut sim, chance.ms(100, 2000));
        match chance.below(4) {
            0 => {
                // One client, or all.
                let first = chance.below(2 * names.len() as u64) as usize;
                let cut_off = names.get(first..=first).unwrap_or(&names);
                cut_off.iter().for_each(|name| sim.partition(BROKER, *name));
                go_on(&mut sim, chance.ms(50, 3000));
                cut_off.iter().for_each(|name| sim.repair(BROKER, *name));
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
        sim.bounce(BROKER);
    }
    world.is_over.set(true);
    while !sim.step().expect("no client fails") {}
    // Once more: what was served at the last must be there after the next start.
    machine.crash(&mut sim, &chance);
    sim.bounce(BROKER);
    client(&mut sim, "last-reader", Box::pin(last_reader(world.clone())));
    while !sim.step().expect("no client fails") {}
    let history = world.history.borrow().clone();
    Run { history, operations: machine.operations, crashes: machine.crashes }
}

fn config(is_synced: bool) -> Config {
    let settings = [
        ("log.dirs", "/data"),
        ("listeners", "PLAINTEXT://0.0.0.0:9092"),
        ("offsets.topic.num.partitions", "2"),
        ("transaction.state.log.num.partitions", "2"),
        ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "300"),
        ("group.initial.rebalance.delay.ms", "0"),
        ("group.min.session.timeout.ms", "1000"),
        ("durability.profile", if is_synced { "fsync" } else { "default" }),
    ];
    let flags = settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
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
    let found = check(&run.history);
    let sent = ["producer", "idempotent", "transactional"].map(|kind| acknowledged(&run.history, kind));
    let committed = run.history.iter().filter(|e| matches!(e, Event::Committed { .. })).count();
    let ended = |how: End| run.history.iter().filter(|e| matches!(e, Event::Transaction { end, .. } if *end == how)).count();
    let [done, aborted, unknown] = [End::Committed, End::Aborted, End::Unknown].map(ended);
    let trace = crc32c::crc32c(format!("{:?}", run.history).as_bytes());
    println!(
        "seed {seed}: {} events, {sent:?} values acknowledged, {committed} commits, {done} + {aborted} + {unknown} transactions, {} crashes, {} operations, trace {trace:08x}",
        run.history.len(),
        run.crashes,
        run.operations
    );
    let text: Vec<String> = found.iter().take(20).map(ToString::to_string).collect();
    assert!(found.is_empty(), "SEED={seed}: {} anomalies\n{}", found.len(), text.join("\n"));
    assert!(
        sent.iter().all(|sent| *sent > 50) && committed > 10 && done > 10 && aborted > 0 && run.crashes > 1,
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
