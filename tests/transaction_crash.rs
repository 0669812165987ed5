//! Coordinators cut off at every operation on the disk: a script of transactions runs on a disk in memory, which stops in every state that a
//! transaction can be in; then coordinators and partitions are opened again, and what was decided must be so, and nothing may hang.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use common::logs::log_directory;
use common::tasks;
use common::transactions::{Style, transactional_batch, visible_of};
use dlog::coordinator::{
    ClusterMetadata, CommitRequest, GroupCoordinator, GroupSettings, Identity, InitRequest, NewProducerIds, OFFSETS_TOPIC, OffsetEntry,
    Pending, TRANSACTIONS_TOPIC, TransactionCoordinator, TransactionSettings, TransactionState,
};
use dlog::env::{Crash, Cut, Env, ManualClock, MemoryDisk, SystemEntropy, Workers};
use dlog::model::{LeaderEpoch, Offset, ProducerId, TopicPartition, Uuid};
use dlog::partition::{Durability, FirstBatch, Keeping, NewReplica, Origin, Partitions, TopicSettings};
use dlog::protocol::ErrorCode;
use dlog::records::EpochRule;
use dlog::records::TransactionResult::{self, Abort, Commit};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const NOW: i64 = 1_700_000_000_000;
const DATA: &str = "/data";
const TOPIC: &str = "t";
const GROUP: &str = "g";
const PARTITIONS: i32 = 2;
const TIMEOUT_MS: i32 = 5000;

/// A broker's partitions and coordinators, without a network.
struct Machine {
    partitions: Arc<Partitions>,
    groups: Arc<GroupCoordinator>,
    transactions: Arc<TransactionCoordinator>,
    /// They end with it.
    _tasks: JoinSet<()>,
}

/// Ids that no earlier machine gave.
struct Ids(AtomicI64);

impl NewProducerIds for Ids {
    fn next(&self) -> Pending<'_, ProducerId> {
        Box::pin(async { Ok(ProducerId(self.0.fetch_add(1, Ordering::Relaxed))) })
    }
}

/// No topic was ever deleted.
struct AllThere;

impl ClusterMetadata for AllThere {
    fn is_deleted(&self, _: &TopicPartition) -> bool {
        false
    }
}

fn open(disk: &MemoryDisk, durability: Durability, epoch: i32) -> Result<Machine, String> {
    let env = Env {
        clock: Arc::new(ManualClock::at(NOW)),
        entropy: Arc::new(SystemEntropy),
        disk: Arc::new(disk.clone()),
        workers: Workers::inline(),
        ..Env::real()
    };
    let directory = log_directory(&env, Path::new(DATA));
    let keeping = Keeping { durability, files_max: 100 };
    let partitions = Arc::new(Partitions::new(env.clone(), vec![directory.map_err(|e| e.to_string())?], Vec::new(), keeping));
    let new = |topic: &str, number: i32, own: &[(&str, &str)]| NewReplica {
        id: TopicPartition::new(topic, number),
        topic_id: Uuid::from_random([topic.len() as u8; 16]),
        leader_epoch: LeaderEpoch(epoch),
        settings: TopicSettings::of(&own.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(), &BTreeMap::new()),
        is_known: epoch > 0,
    };
    // Segments are small, so that transactions lie across them.
    let small = &[("segment.bytes", "400")];
    let mut replicas: Vec<NewReplica> = (0..PARTITIONS).map(|number| new(TOPIC, number, small)).collect();
    replicas.extend([new(OFFSETS_TOPIC, 0, &[]), new(TRANSACTIONS_TOPIC, 0, &[])]);
    let opened = partitions.lead(replicas);
    if opened.replicas < PARTITIONS as usize + 2 {
        return Err("a partition does not open".into());
    }
    let group_settings = GroupSettings {
        session_timeout_min_ms: 0,
        session_timeout_max_ms: 60_000,
        initial_rebalance_delay_ms: 0,
        members_max: 100,
        metadata_bytes_max: 100,
        offsets_retention_ms: i64::MAX >> 1,
        retention_check_ms: i64::MAX >> 1,
        partitions: 1,
    };
    let settings = TransactionSettings {
        timeout_max_ms: 60_000,
        expiration_ms: i64::MAX >> 1,
        abort_check_ms: 1000,
        expiration_check_ms: 1_000_000_000,
        verify_partitions: true,
        partitions: 1,
    };
    let groups = GroupCoordinator::new(env.clone(), partitions.clone(), group_settings);
    let ids = Box::new(Ids(AtomicI64::new(i64::from(epoch) * 1000)));
    let transactions = TransactionCoordinator::new(env, partitions.clone(), groups.clone(), ids, Box::new(AllThere), settings, tasks());
    let early = (groups.list().map(drop), transactions.list().map(drop));
    let loading = Err(ErrorCode::CoordinatorLoadInProgress);
    assert_eq!(early, (loading, loading), "a list would not be whole");
    groups.load();
    transactions.load();
    transactions.abort_orphans();
    let mut tasks = JoinSet::new();
    tasks.spawn(transactions.clone().run(CancellationToken::new()));
    if durability == Durability::Fsync {
        let committing = partitions.clone();
        tasks.spawn(async move {
            loop {
                committing.commit_due(0).await;
                // Without this everything else would wait for each other in one step.
                tokio::time::sleep(Duration::from_millis(1)).await;
                if committing.commit(0).is_err() {
                    return;
                }
            }
        });
    }
    Ok(Machine { partitions, groups, transactions, _tasks: tasks })
}

/// One transaction of the script, as its client knows it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    /// What was sent to each partition, acknowledged or not.
    values: BTreeMap<i32, Vec<u64>>,
    /// What it commits for the group; none where it does not get there.
    offset: Option<i64>,
    /// How it is asked to end.
    asked: Option<TransactionResult>,
    /// Whether that was acknowledged.
    is_acknowledged: bool,
}

/// Transactions in order; the value of each record is its transaction's number times ten, and a count.
type Model = Vec<Known>;

type Step<T> = Result<T, ErrorCode>;

async fn transaction(
    machine: &Machine,
    model: &mut Model,
    id: &str,
    style: Style,
    me: Identity,
    sequence: i32,
    how: Option<TransactionResult>,
) -> Step<Identity> {
    let number = model.len() as u64;
    model.push(Known::default());
    let rule = if style == Style::Bumping { EpochRule::Grows } else { EpochRule::Stays };
    let origin = if style == Style::Bumping { Origin::BumpingClient } else { Origin::Client };
    for partition in 0..PARTITIONS {
        let replica = machine.partitions.get(TOPIC, partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let place = TopicPartition::new(TOPIC, partition);
        if style == Style::Adding {
            machine.transactions.add(id, me, std::slice::from_ref(&place), EpochRule::Stays).await?;
        }
        let verification = replica.begin_verification(me.id);
        if verification.is_some() {
            let codes = machine.transactions.admit(id, me, std::slice::from_ref(&place), rule).await?;
            assert_eq!(codes, [ErrorCode::None]);
        }
        let values: Vec<u64> = (0..2).map(|at| number * 10 + partition as u64 * 2 + at).collect();
        model[number as usize].values.insert(partition, values.clone());
        let batch = transactional_batch(me, sequence, &values, NOW);
        let appended = replica.produce(&batch, origin, verification.as_ref(), NOW).map_err(|_| ErrorCode::KafkaStorageError)?;
        replica.committed(appended.position).await.map_err(|_| ErrorCode::KafkaStorageError)?;
    }
    if number.is_multiple_of(2) {
        let place = machine.groups.partition_for(GROUP);
        if style == Style::Adding {
            machine.transactions.add(id, me, std::slice::from_ref(&place), EpochRule::Stays).await?;
        }
        let verification = machine.groups.begin_verification(GROUP, me.id)?;
        if verification.is_some() {
            machine.transactions.admit(id, me, &[place], rule).await?;
        }
        let offset = number as i64 + 1;
        let entry = OffsetEntry { topic: TOPIC.into(), partition: 0, offset, leader_epoch: -1, metadata: String::new() };
        let commit = CommitRequest {
            group: GROUP.into(),
            member_id: String::new(),
            instance_id: None,
            generation: -1,
            missing_group: ErrorCode::IllegalGeneration,
            retention_ms: None,
            offsets: vec![entry],
        };
        model[number as usize].offset = Some(offset);
        machine.groups.commit_in_transaction(&commit, me, verification.as_ref()).await?;
    }
    let Some(how) = how else { return Ok(me) };
    model[number as usize].asked = Some(how);
    let next = machine.transactions.end(id, me, how, rule).await?;
    model[number as usize].is_acknowledged = true;
    Ok(next)
}

/// Transactions of both kinds, one after the other, committed, aborted, left open and taken over. Ends with the first error.
async fn script(machine: &Machine, model: &mut Model) -> Step<()> {
    let init = |id: &str| InitRequest { transactional_id: id.into(), timeout_ms: TIMEOUT_MS, expected: None };
    let mut bumping = machine.transactions.init(init("bumping")).await?;
    let adding = machine.transactions.init(init("adding")).await?;
    for (round, how) in [Commit, Abort, Commit].into_iter().enumerate() {
        bumping = transaction(machine, model, "bumping", Style::Bumping, bumping, 0, Some(how)).await?;
        transaction(machine, model, "adding", Style::Adding, adding, round as i32 * 2, Some(how)).await?;
    }
    // It is left open, and another producer takes over.
    transaction(machine, model, "bumping", Style::Bumping, bumping, 0, None).await?;
    bumping = machine.transactions.init(init("bumping")).await?;
    transaction(machine, model, "bumping", Style::Bumping, bumping, 0, Some(Commit)).await?;
    // And one that nobody ends.
    transaction(machine, model, "adding", Style::Adding, adding, 6, None).await.map(|_| ())
}

/// Committed values of a partition; an error where something in it stays open.
fn committed(machine: &Machine, partition: i32) -> Result<BTreeSet<u64>, String> {
    let replica = machine.partitions.get(TOPIC, partition).ok_or("no replica")?;
    let view = replica.view();
    if view.last_stable != view.log_end {
        return Err(format!("partition {partition} is stable to {} and ends at {}", view.last_stable, view.log_end));
    }
    let (mut found, mut offset) = (BTreeSet::new(), 0);
    while let Some(slice) = replica.read_committed(Offset(offset), 1 << 20, FirstBatch::Whole).map_err(|e| e.to_string())? {
        let bytes = slice.slice.check().map_err(|e| e.to_string())?.read().map_err(|e| e.to_string())?;
        let aborted = slice.aborted.iter().map(|a| (a.first_offset.0, a.producer_id.0)).collect();
        let (some, next) = visible_of(&bytes, aborted, offset);
        for (_, value) in some {
            if !found.insert(value) {
                return Err(format!("{value} is in partition {partition} twice"));
            }
        }
        offset = next;
    }
    Ok(found)
}

/// What is wrong after a crash, once everything had time to end.
async fn compare(machine: &Machine, model: &Model) -> Result<(), String> {
    tokio::time::sleep(Duration::from_millis(3 * TIMEOUT_MS as u64)).await;
    for view in machine.transactions.list().map_err(|e| e.name().to_string())? {
        if !matches!(view.state, TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort) {
            return Err(format!("{} hangs in {:?}", view.id, view.state));
        }
    }
    let found: Vec<BTreeSet<u64>> = (0..PARTITIONS).map(|partition| committed(machine, partition)).collect::<Result<_, _>>()?;
    let mut offset = -1;
    let offsets = machine.groups.committed(GROUP, TOPIC, &[0]).map_err(|e| e.name().to_string())?;
    let stored = offsets[0].as_ref().map_or(-1, |committed| committed.offset);
    let mut expected = BTreeSet::new();
    for (number, known) in model.iter().enumerate() {
        let there = |(partition, values): (&i32, &Vec<u64>)| values.iter().filter(|v| found[*partition as usize].contains(v)).count();
        let (all, seen): (usize, usize) = (known.values.values().map(Vec::len).sum(), known.values.iter().map(there).sum());
        let is_committed = match (known.asked, known.is_acknowledged) {
            (Some(Commit), true) if seen != all => return Err(format!("transaction {number} is committed, and {seen} of {all} are there")),
            (Some(Abort) | None, _) if seen > 0 => return Err(format!("transaction {number} is aborted, and {seen} are there")),
            _ if seen != 0 && seen != all => return Err(format!("transaction {number} is torn: {seen} of {all}")),
            _ => seen == all && all > 0,
        };
        if is_committed {
            expected.extend(known.values.values().flatten().copied());
            offset = known.offset.unwrap_or(offset);
        }
    }
    if stored != offset {
        return Err(format!("the group is at {stored}, and committed with its transactions is {offset}"));
    }
    let found: BTreeSet<u64> = found.into_iter().flatten().collect();
    if found == expected { Ok(()) } else { Err(format!("found {found:?}, expected {expected:?}")) }
}

async fn reopen(disk: &MemoryDisk, durability: Durability, model: &Model) -> Result<(), String> {
    for epoch in 1..3 {
        let machine = open(disk, durability, epoch)?;
        compare(&machine, model).await.map_err(|what| format!("start {epoch}: {what}"))?;
        // And it goes on.
        let init = InitRequest { transactional_id: "bumping".into(), timeout_ms: TIMEOUT_MS, expected: None };
        let me = machine.transactions.init(init).await.map_err(|e| e.name().to_string())?;
        let mut more = Model::new();
        if epoch == 2 {
            transaction(&machine, &mut more, "bumping", Style::Bumping, me, 0, Some(Commit)).await.map_err(|e| e.name().to_string())?;
        }
        machine.partitions.close().map_err(|e| e.to_string())?;
        drop(machine);
        // The tasks that it ends need a turn for that.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

fn in_simulated_time<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(work)
}

/// Runs the script on a disk that is cut.
fn run_cut(durability: Durability, cut: Option<Cut>) -> (MemoryDisk, Model, Result<(), String>) {
    let disk = MemoryDisk::new(Arc::new(ManualClock::at(NOW)));
    cut.into_iter().for_each(|cut| disk.cut_at(cut));
    let mut model = Model::new();
    let done = in_simulated_time(async {
        let machine = open(&disk, durability, 0)?;
        // Where the disk is gone nothing answers any more.
        let script = tokio::time::timeout(Duration::from_secs(30), script(&machine, &mut model)).await;
        script.map_err(|e| e.to_string())?.map_err(|e| e.name().to_string())
    });
    (disk, model, done)
}

fn cut_everywhere(durability: Durability) {
    let (disk, model, done) = run_cut(durability, None);
    done.expect("without a crash all goes well");
    let operations = disk.operations();
    in_simulated_time(reopen(&disk.after(Crash::Process), durability, &model)).expect("nothing was cut");
    assert!(operations >= 80, "{operations} operations");
    let mut failures = Vec::new();
    for operation in 0..=operations {
        for torn in [None, Some(512)] {
            let (disk, model, _) = run_cut(durability, Some(Cut { operation, torn }));
            let by_chance = Crash::PowerPartly(operation * 31 + 1);
            let crashes: &[Crash] = match durability {
                // What a power cut leaves of several logs is not of one moment.
                Durability::Default => &[Crash::Process],
                Durability::Fsync => &[Crash::Process, Crash::Power, by_chance],
            };
            for crash in crashes {
                if let Err(what) = in_simulated_time(reopen(&disk.after(*crash), durability, &model)) {
                    failures.push(format!("operation {operation}, torn {torn:?}, {crash:?}: {what}"));
                }
            }
        }
    }
    println!("{operations} operations");
    assert!(failures.is_empty(), "{} failures, the first: {}", failures.len(), failures[..failures.len().min(8)].join("\n"));
}

#[test]
fn transactions_end_as_decided_wherever_the_coordinator_is_killed() {
    cut_everywhere(Durability::Default);
}

#[test]
fn transactions_end_as_decided_wherever_the_power_is_cut() {
    cut_everywhere(Durability::Fsync);
}
