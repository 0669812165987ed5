//! The metadata log of this node: a member of the quorum.
//!
//! A sole voter elects itself at once, in an epoch of its own for each start. Records that are appended and fsynced are then committed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::error::{ClientWriteError, Fatal, RaftError};
use openraft::metrics::{RaftMetrics, RaftServerMetrics};
use openraft::{Config, EmptyNode, Raft, ServerState, SnapshotPolicy};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::entry::raft_id;
use super::machine::Machine;
use super::network::Alone;
use super::store::Store;
use super::view::QuorumView;
use super::{LogFile, METADATA_TOPIC, Outcome, Quorum};
use crate::cluster::{
    Committed, CommittedStream, Error, Leadership, MetadataLog, NotCommitted, Pending, Proposal, Role, Snapshot, takeover,
};
use crate::env::{Disk, Env, Tasks};
use crate::model::NodeId;
use crate::storage;

/// The subdirectory of our log in the directory of Kafka's.
const BESIDE_KAFKA: &str = "dlog";
/// The file with the offset up to which Kafka's log was taken over.
const TAKEN_OVER: &str = "taken-over";

/// The metadata log of a node that is the only voter of its quorum.
pub struct QuorumLog {
    store: Store,
    raft: Arc<Raft<Quorum>>,
    leadership: Arc<watch::Sender<Leadership>>,
    tasks: Tasks,
    /// Keeps the stream open after a disk error: the driver serves what is committed, and its proposals are refused.
    _committed: mpsc::UnboundedSender<Committed>,
}

impl QuorumLog {
    /// What others may see of the quorum.
    pub fn view(&self) -> QuorumView {
        QuorumView::new(self.store.clone(), self.leadership.subscribe())
    }

    /// Opens the log in the log directory and elects `node`; everything that it contains is committed.
    pub async fn open(env: &Env, tasks: Tasks, directory: &Path, node: NodeId) -> Result<(QuorumLog, CommittedStream), Error> {
        QuorumLog::open_at(env, tasks, directory.join(format!("{METADATA_TOPIC}-0")), node).await
    }

    /// Opens the log of a directory that Apache Kafka created. Kafka's own metadata log is read once and never written; ours is in a subdirectory
    /// of it, which Kafka ignores.
    pub async fn open_beside_kafka(env: &Env, tasks: Tasks, directory: &Path, node: NodeId) -> Result<(QuorumLog, CommittedStream), Error> {
        let kafkas = directory.join(format!("{METADATA_TOPIC}-0"));
        let path = kafkas.join(BESIDE_KAFKA);
        take_over(env, directory, &kafkas, &path, node)?;
        QuorumLog::open_at(env, tasks, path, node).await
    }

    async fn open_at(env: &Env, tasks: Tasks, path: PathBuf, node: NodeId) -> Result<(QuorumLog, CommittedStream), Error> {
        let (committed, stream) = mpsc::unbounded_channel();
        let id = raft_id(node);
        let mut file = LogFile::open(env, &path, &committed)?;
        file.sole_voter(id);
        let voters: Vec<u64> = file.progress().voters().voter_ids().collect();
        if voters != [id] {
            let what = format!("{} belongs to a quorum of the nodes {voters:?}, and this is node {id}", path.display());
            return Err(Error::Storage(what));
        }
        let (applied, end) = (file.state().1, file.end());
        let store = Store::new(file, env.workers.clone(), id);
        let machine = Machine::new(store.clone(), committed.clone(), applied, end);
        let raft = Arc::new(Raft::new(id, Arc::new(config()), Alone, store.clone(), machine).await.map_err(fatal)?);
        let mut metrics = raft.server_metrics();
        let leadership = Arc::new(watch::Sender::new(leadership(&metrics.borrow_and_update())));
        raft.trigger().elect().await.map_err(fatal)?;
        let leads = leadership.clone();
        let (core, file) = (Arc::downgrade(&raft), store.clone());
        // It ends with the quorum. The sender stays: a log that is offline keeps its role, and refuses proposals.
        tasks.spawn("the metadata quorum", async move {
            while metrics.changed().await.is_ok() {
                let new = self::leadership(&metrics.borrow_and_update());
                leads.send_if_modified(|old| std::mem::replace(old, new) != new);
            }
            let Some(core) = core.upgrade() else { return };
            // openraft's tasks end by themselves if the broker stops or the disk fails, and else by a panic.
            match core.with_raft_state(|_| ()).await {
                Ok(()) | Err(Fatal::Stopped) => {}
                Err(error) => assert!(file.now(|file| file.has_failed()), "the metadata quorum ended: {error}"),
            }
        });
        // Before the first decision, the entry of the new epoch is committed.
        let ready = |metrics: &RaftMetrics<u64, EmptyNode>| {
            metrics.running_state.is_err() || (metrics.state == ServerState::Leader && metrics.last_applied > applied)
        };
        let metrics = raft.wait(None).metrics(ready, "this node leads").await.map_err(|error| Error::Storage(error.to_string()))?;
        metrics.running_state.map_err(fatal)?;
        let log = QuorumLog { store, raft, leadership, tasks, _committed: committed };
        log.leadership.subscribe().wait_for(|led| led.role == Role::Leader).await.map_err(|_| Error::NotController)?;
        Ok((log, stream))
    }
}

/// Writes a snapshot of Kafka's metadata as the begin of our log, unless that was done before.
fn take_over(env: &Env, directory: &Path, kafkas: &Path, path: &Path, node: NodeId) -> Result<(), Error> {
    let disk: &dyn Disk = &*env.disk;
    if !disk.is_dir(kafkas) {
        return Err(Error::Storage(format!(
            "{} was written by Apache Kafka, and has no {METADATA_TOPIC}-0: it is of a broker with ZooKeeper, or with another metadata.log.dir; \
             choose another directory with --data",
            directory.display()
        )));
    }
    let unreadable = |e: std::io::Error| Error::Storage(e.to_string());
    let note = path.join(TAKEN_OVER);
    if disk.exists(&note) {
        let text = String::from_utf8_lossy(&disk.read(&note).map_err(unreadable)?).trim().to_string();
        let end = takeover::end(disk, kafkas)?;
        if text != end.to_string() {
            return Err(Error::Storage(format!(
                "Apache Kafka has written to {} since its metadata was migrated at offset {text}; remove {} to migrate it again \
                 (topics and settings that were created by dlog are then unknown, and their files are kept)",
                kafkas.display(),
                path.display()
            )));
        }
        return Ok(());
    }
    let taken = takeover::read(disk, kafkas, node)?;
    // Removes what an interrupted earlier start left here.
    if disk.is_dir(path) {
        disk.remove_dir_all(path).map_err(unreadable)?;
    }
    let mut file = LogFile::open(env, path, &mpsc::unbounded_channel().0)?;
    file.begin_with(raft_id(node), taken.image.to_records())?;
    disk.replace(&note, format!("{}\n", taken.end).as_bytes()).map_err(unreadable)?;
    disk.sync_dir(kafkas).map_err(unreadable)?;
    let (topics, offset) = (taken.image.topic_count(), taken.end.0);
    info!(topics, offset, directory = %directory.display(), "migrated the metadata of Apache Kafka");
    let held: Vec<String> = taken.image.held().kinds().iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
    if !held.is_empty() {
        warn!(what = held.join(", "), "migrated from Apache Kafka and kept, but not enforced by this broker");
    }
    if !taken.left_behind.is_empty() {
        let what: Vec<String> = taken.left_behind.into_iter().collect();
        warn!(what = what.join(", "), "not migrated from Apache Kafka");
    }
    Ok(())
}

/// A sole voter needs no timers: it elects itself when it starts, and has no followers. The driver decides when a snapshot is written.
fn config() -> Config {
    Config {
        cluster_name: METADATA_TOPIC.into(),
        enable_tick: false,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        ..Config::default()
    }
}

fn leadership(metrics: &RaftServerMetrics<u64, EmptyNode>) -> Leadership {
    let epoch = i32::try_from(metrics.vote.leader_id.term).expect("terms are counted by elections, far below 2^31");
    let role = match metrics.state {
        ServerState::Leader => Role::Leader,
        _ => Role::Follower(metrics.current_leader.map(|id| id as i32)),
    };
    Leadership { epoch, role }
}

fn fatal(error: Fatal<u64>) -> Error {
    Error::Storage(error.to_string())
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        Error::Storage(error.to_string())
    }
}

impl From<Error> for NotCommitted {
    fn from(error: Error) -> Self {
        NotCommitted::Refused(error)
    }
}

impl MetadataLog for QuorumLog {
    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn propose(&self, proposal: Proposal) -> Pending<i64, NotCommitted> {
        let (store, raft) = (self.store.clone(), self.raft.clone());
        let last = proposal.offset + proposal.records.len() as i64 - 1;
        // A task of its own: what is staged must be appended or removed, whatever becomes of the requester.
        let task = self.tasks.spawn("a proposal", async move {
            let placed = store.blocking(move |file| file.stage(&proposal)).await?;
            match raft.client_write(placed).await {
                Ok(written) if written.data == Outcome::Committed => Ok(last),
                Ok(_) => Err(NotCommitted::Refused(Error::NotController)),
                Err(error) => {
                    // If the batch cannot be removed, the next start may find it and commit it.
                    let unstaged = store.blocking(move |file| file.unstage(placed)).await;
                    let is_unknown = !unstaged.map_err(|error: Error| NotCommitted::Unknown(error.to_string()))?;
                    Err(match error {
                        error if is_unknown => NotCommitted::Unknown(error.to_string()),
                        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => NotCommitted::Refused(Error::NotController),
                        error => NotCommitted::Refused(Error::Storage(error.to_string())),
                    })
                }
            }
        });
        let lost = || NotCommitted::Unknown("the broker stops".into());
        Box::pin(async move { task.await.ok().flatten().ok_or_else(lost)? })
    }

    fn wants_snapshot(&self) -> bool {
        self.store.now(|file| file.wants_snapshot())
    }

    fn snapshot(&self, snapshot: Snapshot) -> Pending<()> {
        let (store, raft) = (self.store.clone(), self.raft.clone());
        Box::pin(async move {
            // Written before openraft is asked for it, because openraft ends when a snapshot cannot be written.
            let last = store.blocking(move |file| file.write_snapshot(&snapshot)).await?;
            raft.trigger().snapshot().await.map_err(fatal)?;
            let metrics = raft.wait(None);
            let purged = metrics.metrics(|metrics| metrics.purged >= Some(last), "the log before the snapshot is deleted").await;
            purged.map(drop).map_err(|error| Error::Storage(error.to_string()))
        })
    }

    fn close(&self) -> Pending<()> {
        let (store, raft) = (self.store.clone(), self.raft.clone());
        Box::pin(async move {
            let stopped = raft.shutdown().await;
            store.blocking(|file| file.close()).await?;
            stopped.map_err(|error| Error::Storage(error.to_string()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::SNAPSHOT_AFTER_RECORDS;
    use super::*;
    use crate::cluster::batches::SNAPSHOT_SUFFIX;
    use crate::cluster::{
        Controller, ControllerSettings, Event, LeaderChange, MetadataImage, MetadataRecord, NewTopic, Registration, Replication,
    };
    use crate::env::FailStop;
    use crate::model::Uuid;
    use tokio_util::sync::CancellationToken;

    fn tasks() -> Tasks {
        Tasks::new(FailStop::new(CancellationToken::new()))
    }

    async fn open(directory: &Path) -> (QuorumLog, CommittedStream) {
        QuorumLog::open(&Env::real(), tasks(), directory, NodeId(1)).await.unwrap()
    }

    /// Proposes at the end of the log.
    async fn propose(log: &QuorumLog, records: Vec<MetadataRecord>) -> Result<i64, NotCommitted> {
        let (epoch, offset) = (log.leadership.borrow().epoch, log.view().state().log_end);
        log.propose(Proposal { epoch, offset, records }).await
    }

    async fn snapshot(log: &QuorumLog, image: &MetadataImage) {
        let (end, epoch, records) = (image.offset + 1, image.epoch, image.to_records());
        log.snapshot(Snapshot { end, epoch, records, removed: Vec::new() }).await.unwrap();
    }

    fn image(stream: &mut CommittedStream) -> MetadataImage {
        let mut image = MetadataImage::default();
        follow(&mut image, stream);
        image
    }

    fn follow(image: &mut MetadataImage, stream: &mut CommittedStream) {
        while let Ok(committed) = stream.try_recv() {
            image.apply_committed(&committed);
        }
    }

    fn topic(number: u8) -> Event {
        let configs = vec![("retention.ms".to_string(), Some("5".to_string()))];
        let topic = NewTopic {
            name: format!("t{number}"),
            id: Uuid([number; 16]),
            partitions: 3,
            replication_factor: 1,
            configs,
            ..NewTopic::default()
        };
        Event::CreateTopics { topics: vec![topic], validate_only: false }
    }

    #[tokio::test]
    async fn a_snapshot_takes_the_place_of_what_led_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let (log, mut stream) = open(folder.path()).await;
        let settings = ControllerSettings {
            num_partitions: 1,
            default_replication_factor: 1,
            replication: Replication::Clamp,
            topic_defaults: Default::default(),
        };
        let mut controller = Controller::new(settings);
        let mut before = image(&mut stream);
        controller.lead(before.clone());
        let start = Event::RegisterBroker(Registration { id: 1, ..Registration::default() });
        for event in [start.clone(), topic(1), start, topic(2), Event::AllocateProducerIds { broker: 1 }] {
            propose(&log, controller.handle(&event).unwrap().records).await.unwrap();
        }
        follow(&mut before, &mut stream);
        assert_eq!(controller.position(), Some((1, before.offset + 1)));
        snapshot(&log, &before).await;
        propose(&log, controller.handle(&topic(3)).unwrap().records).await.unwrap();
        let mut after = before.clone();
        follow(&mut after, &mut stream);
        drop(log);
        for start in 2..4 {
            let (log, mut stream) = open(folder.path()).await;
            assert_eq!(*log.leadership.borrow(), Leadership { epoch: start, role: Role::Leader });
            after.apply_committed(&Committed::LeaderChange(LeaderChange { epoch: start, offset: after.offset + 1, leader: 1 }));
            assert_eq!(image(&mut stream), after, "nothing but the epoch is another");
            assert!(log.store.now(|file| file.state().0).is_some(), "what led to the snapshot is gone");
            snapshot(&log, &after).await;
        }
        assert_eq!(after.topic("t1"), before.topic("t1"), "epochs and settings are as they were");
        assert_eq!((after.topic_count(), after.next_producer_id, after.brokers().len()), (3, 1000, 1));
        let snapshots = std::fs::read_dir(folder.path().join("__cluster_metadata-0")).unwrap();
        let count = snapshots.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(SNAPSHOT_SUFFIX)).count();
        assert_eq!(count, 1, "older snapshots go");
    }

    #[tokio::test]
    async fn damage_before_the_end_is_refused_and_a_torn_end_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = open(folder.path()).await;
        for _ in 0..3 {
            propose(&log, vec![MetadataRecord::NoOp(Default::default())]).await.unwrap();
        }
        drop(log);
        let file = folder.path().join("__cluster_metadata-0/00000000000000000000.log");
        let bytes = std::fs::read(&file).unwrap();
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 2] ^= 1;
        std::fs::write(&file, &damaged).unwrap();
        let refused = QuorumLog::open(&Env::real(), tasks(), folder.path(), NodeId(1)).await.err().unwrap().to_string();
        assert!(refused.contains("is damaged at byte"), "{refused}");
        assert_eq!(std::fs::read(&file).unwrap(), damaged, "nothing was cut off");
        std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        // Two changes of the leader, and two of three entries.
        assert_eq!(open(folder.path()).await.1.len(), 4);
    }

    #[tokio::test]
    async fn a_damaged_snapshot_is_an_error_and_not_a_guess() {
        let folder = tempfile::tempdir().unwrap();
        let (log, mut stream) = open(folder.path()).await;
        propose(&log, vec![MetadataRecord::NoOp(Default::default())]).await.unwrap();
        snapshot(&log, &image(&mut stream)).await;
        drop(log);
        let directory = folder.path().join("__cluster_metadata-0");
        let names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path()).collect();
        let snapshot = names.iter().find(|p| p.to_string_lossy().ends_with(SNAPSHOT_SUFFIX)).unwrap();
        let bytes = std::fs::read(snapshot).unwrap();
        let footer = crate::records::batches(&bytes).last().unwrap().unwrap().1.len();
        for damaged in [&bytes[..bytes.len() - 1], &bytes[..bytes.len() - footer], &[&bytes[..70], &[0xff], &bytes[71..]].concat()] {
            std::fs::write(snapshot, damaged).unwrap();
            assert!(QuorumLog::open(&Env::real(), tasks(), folder.path(), NodeId(1)).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_proposal_of_another_epoch_or_for_another_place_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (log, mut stream) = open(folder.path()).await;
        let records = vec![MetadataRecord::NoOp(Default::default())];
        for (epoch, offset) in [(0, 1), (2, 1), (1, 0), (1, 2)] {
            let proposal = Proposal { epoch, offset, records: records.clone() };
            assert_eq!(log.propose(proposal).await, Err(NotCommitted::Refused(Error::NotController)), "epoch {epoch}, offset {offset}");
        }
        let proposal = Proposal { epoch: 1, offset: 1, records };
        assert_eq!(log.propose(proposal.clone()).await, Ok(1));
        assert_eq!(log.propose(proposal).await, Err(NotCommitted::Refused(Error::NotController)), "it is repeated");
        assert_eq!(image(&mut stream).offset, 1);
    }

    #[tokio::test]
    async fn a_log_whose_begin_is_gone_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (log, mut stream) = open(folder.path()).await;
        snapshot(&log, &image(&mut stream)).await;
        drop(log);
        let directory = folder.path().join("__cluster_metadata-0");
        let names = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path());
        names.filter(|p| p.to_string_lossy().ends_with(SNAPSHOT_SUFFIX)).for_each(|p| std::fs::remove_file(p).unwrap());
        let refused = QuorumLog::open(&Env::real(), tasks(), folder.path(), NodeId(1)).await.err().unwrap().to_string();
        assert!(refused.contains("the log begins at 1"), "{refused}");
    }

    #[tokio::test]
    async fn snapshots_grow_rarer_with_their_size() {
        let folder = tempfile::tempdir().unwrap();
        let (log, mut stream) = open(folder.path()).await;
        let fill = async |count: usize| {
            propose(&log, vec![MetadataRecord::NoOp(Default::default()); count]).await.unwrap();
        };
        fill(SNAPSHOT_AFTER_RECORDS as usize - 1).await;
        assert!(!log.wants_snapshot());
        fill(1).await;
        assert!(log.wants_snapshot());
        let at = image(&mut stream);
        let records = vec![MetadataRecord::NoOp(Default::default()); 2 * SNAPSHOT_AFTER_RECORDS as usize];
        log.snapshot(Snapshot { end: at.offset + 1, epoch: at.epoch, records, removed: Vec::new() }).await.unwrap();
        fill(SNAPSHOT_AFTER_RECORDS as usize + 1).await;
        assert!(!log.wants_snapshot());
        fill(SNAPSHOT_AFTER_RECORDS as usize).await;
        assert!(log.wants_snapshot());
    }

    #[tokio::test]
    async fn a_crash_between_the_first_start_and_the_conversion_loses_nothing() {
        for golden in ["log", "snapshot"] {
            let folder = tempfile::tempdir().unwrap();
            let directory = folder.path().join("__cluster_metadata-0");
            std::fs::create_dir(&directory).unwrap();
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dlog-0.1.0").join(golden).join("__cluster_metadata-0");
            for file in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
                std::fs::copy(file.path(), directory.join(file.file_name())).unwrap();
            }
            let mut known: Option<MetadataImage> = None;
            for start in 0..3 {
                let (log, mut stream) = open(folder.path()).await;
                assert_eq!(log.wants_snapshot(), start < 2, "{golden}");
                let Some(Committed::Snapshot(first)) = stream.try_recv().ok() else { panic!("{golden}: no snapshot comes first") };
                assert_eq!(first.removed.len(), usize::from(start < 2), "{golden}: topics that may have left directories");
                let mut state = MetadataImage::default();
                state.apply_committed(&Committed::Snapshot(first));
                follow(&mut state, &mut stream);
                if let Some(known) = &mut known {
                    known.apply_committed(&Committed::LeaderChange(LeaderChange {
                        epoch: state.epoch,
                        offset: known.offset + 1,
                        leader: 1,
                    }));
                    assert_eq!(*known, state, "{golden}");
                }
                assert_eq!(state.topic("kept").unwrap().partitions.iter().map(|p| p.leader_epoch).collect::<Vec<_>>(), [2, 2, 2, 0]);
                if start == 1 {
                    snapshot(&log, &state).await;
                }
                known = Some(state);
            }
        }
    }
}
