//! The metadata log of a cluster with one controller: segments and snapshots in the log directory, in Kafka's format.
//!
//! Records that are appended and fsynced are committed. Each start is an election with one voter. The new epoch is the stored one plus 1, and a
//! LeaderChange record with it is fsynced before any decision in that epoch.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::batches::{
    Content, Form, batch, batches_of_file, content, encode_snapshot, leader_change, read_snapshot, snapshot_name, snapshot_place,
};
use super::partition_image::UNASSIGNED_DIRECTORY;
use super::{
    Committed, CommittedStream, Entry, Error, LeaderChange, Leadership, MetadataImage, MetadataLog, MetadataRecord, NotCommitted, Pending,
    Proposal, Role, Snapshot, takeover,
};
use crate::env::{Clock, Disk, Env, Workers};
use crate::model::{LeaderEpoch, NodeId, Offset, Uuid};
use crate::protocol::generated::cluster_metadata::NoOpRecord;
use crate::records::BatchHeader;
use crate::storage::{self, Log, LogConfig, OpenFiles, Origin, Policy, Recovery};

/// The name of the metadata log, as in Kafka; its single partition is stored beside the others.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// The subdirectory of our log in the directory of Kafka's.
const BESIDE_KAFKA: &str = "dlog";
/// The file with the offset up to which Kafka's log was taken over.
const TAKEN_OVER: &str = "taken-over";
/// The number of records after which a snapshot is written, unless the last snapshot was larger.
const SNAPSHOT_AFTER_RECORDS: i64 = 10_000;

/// A log with one node. A snapshot is a file of batches beside the segments.
pub struct LocalMetadataLog {
    file: Arc<Mutex<LogFile>>,
    leadership: watch::Sender<Leadership>,
    workers: Workers,
}

struct LogFile {
    log: Log,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    epoch: i32,
    committed: mpsc::UnboundedSender<Committed>,
    /// An fsync has failed: the file's content may not be on disk, and nothing can be committed after it.
    failed: bool,
    /// End offset and number of records of the newest snapshot.
    snapshot: (i64, i64),
    /// The log was written by an early release; a snapshot replaces it.
    must_convert: bool,
    /// The time of the last record.
    last_ms: i64,
}

impl LocalMetadataLog {
    /// Opens the log in the log directory and elects `node`; everything that it contains is committed.
    pub fn open(env: &Env, directory: &Path, node: NodeId) -> Result<(LocalMetadataLog, CommittedStream), Error> {
        LocalMetadataLog::open_at(env, directory.join(format!("{METADATA_TOPIC}-0")), node)
    }

    /// Opens the log of a directory that Apache Kafka created. Kafka's own metadata log is read once and never written; ours is in a subdirectory
    /// of it, which Kafka ignores.
    pub fn open_beside_kafka(env: &Env, directory: &Path, node: NodeId) -> Result<(LocalMetadataLog, CommittedStream), Error> {
        let kafkas = directory.join(format!("{METADATA_TOPIC}-0"));
        let (path, disk) = (kafkas.join(BESIDE_KAFKA), &*env.disk);
        if !disk.is_dir(&kafkas) {
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
            let end = takeover::end(disk, &kafkas)?;
            if text != end.to_string() {
                return Err(Error::Storage(format!(
                    "Apache Kafka has written to {} since its metadata was migrated at offset {text}; remove {} to migrate it again \
                     (topics and settings that were created by dlog are then unknown, and their files are kept)",
                    kafkas.display(),
                    path.display()
                )));
            }
            return LocalMetadataLog::open_at(env, path, node);
        }
        let taken = takeover::read(disk, &kafkas, node)?;
        // Removes what an interrupted earlier start left here.
        if disk.is_dir(&path) {
            disk.remove_dir_all(&path).map_err(unreadable)?;
        }
        let (log, _) = LocalMetadataLog::open_at(env, path.clone(), node)?;
        let mut file = log.file();
        let (end, epoch) = (file.log.log_end().0, file.epoch);
        file.snapshot(&Snapshot { end, epoch, records: taken.image.to_records(), removed: Vec::new() })?;
        drop(file);
        disk.replace(&note, format!("{}\n", taken.end).as_bytes()).map_err(unreadable)?;
        disk.sync_dir(&kafkas).map_err(unreadable)?;
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
        drop(log);
        LocalMetadataLog::open_at(env, path, node)
    }

    fn open_at(env: &Env, path: PathBuf, node: NodeId) -> Result<(LocalMetadataLog, CommittedStream), Error> {
        let Env { disk, clock, workers, .. } = env.clone();
        disk.create_dir(&path).map_err(|e| Error::Storage(e.to_string()))?;
        refuse_damage(&*disk, &path)?;
        let (log, _) = Log::open(&OpenFiles::new(disk.clone(), 1), &path, config(), Recovery::From(Offset(0)), clock.wall_ms())?;
        let (committed, stream) = mpsc::unbounded_channel();
        let mut replay = Replay { committed: committed.clone(), implied: Some(Implied::default()), last_ms: 0, must_convert: false };
        let (mut from, mut epoch, mut snapshot) = (Offset(0), 0, (0, 0));
        let names = disk.list(&path).map_err(|e| Error::Storage(e.to_string()))?;
        if let Some((name, end, of_epoch)) = names.iter().filter_map(|n| snapshot_place(n)).max_by_key(|(_, end, epoch)| (*end, *epoch)) {
            let bytes = disk.read(&path.join(name)).map_err(|e| Error::Storage(e.to_string()))?;
            let (records, form) = read_snapshot(&bytes)?;
            if log.log_end() < end {
                return Err(Error::Storage(format!("the log ends at {}, before its snapshot at {end}", log.log_end())));
            }
            snapshot = (end.0, records.len() as i64);
            replay.snapshot(Snapshot { end: end.0, epoch: of_epoch, records, removed: Vec::new() }, form);
            (from, epoch) = (end, of_epoch);
        }
        if log.log_start() > from {
            return Err(Error::Storage(format!("the log begins at {}, and the snapshot before it is missing", log.log_start())));
        }
        log.reader().replay(from, |header, batch| replay.batch(header, content(header, batch)?))?;
        replay.convert();
        let (last_ms, must_convert) = (replay.last_ms, replay.must_convert);
        let stored = log.epochs().latest().map_or(epoch, |latest| latest.0.max(epoch));
        let mut file = LogFile { log, disk, clock, epoch: stored, committed, failed: false, snapshot, must_convert, last_ms };
        file.elect(node)?;
        let leadership = watch::Sender::new(Leadership { epoch: file.epoch, role: Role::Leader });
        Ok((LocalMetadataLog { file: Arc::new(Mutex::new(file)), leadership, workers }, stream))
    }

    fn file(&self) -> MutexGuard<'_, LogFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs work on the file on a thread that may block.
    fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&mut LogFile) -> Result<T, Error> + Send + 'static) -> Pending<T> {
        let (file, workers) = (self.file.clone(), self.workers.clone());
        let work = move || work(&mut file.lock().unwrap_or_else(PoisonError::into_inner));
        Box::pin(async move { workers.blocking(work).await.map_err(|e| Error::Storage(e.to_string()))? })
    }
}

/// Rejects a log that is damaged before its end: opening it would truncate records that were committed after the damage. An incomplete last
/// batch was never acknowledged, and may be truncated.
fn refuse_damage(disk: &dyn Disk, directory: &Path) -> Result<(), Error> {
    let names = disk.list(directory).map_err(|e| Error::Storage(e.to_string()))?;
    let mut logs = names.iter().filter(|n| n.ends_with(".log"));
    logs.try_for_each(|name| batches_of_file(disk, &directory.join(name), |_, _| Ok(())))
}

/// Converts the stored batches to the delivered items.
struct Replay {
    committed: mpsc::UnboundedSender<Committed>,
    /// The state of a log of an early release, up to the first recorded change of the leader.
    implied: Option<Implied>,
    last_ms: i64,
    must_convert: bool,
}

/// The result of an early release's records: in those, a broker's registration started a new leader epoch in every partition that it led.
#[derive(Default)]
struct Implied {
    image: MetadataImage,
    end: i64,
    epoch: i32,
    removed: Vec<Uuid>,
}

impl Replay {
    fn deliver(&self, committed: Committed) {
        // The stream's reader is still here, in `LocalMetadataLog::open_at`.
        let _ = self.committed.send(committed);
    }

    fn snapshot(&mut self, snapshot: Snapshot, form: Form) {
        match (form, &mut self.implied) {
            (Form::Implied, Some(implied)) => {
                snapshot.records.into_iter().for_each(|record| implied.apply(record));
                (implied.end, implied.epoch) = (snapshot.end, snapshot.epoch);
            }
            _ => {
                self.implied = None;
                self.deliver(Committed::Snapshot(snapshot));
            }
        }
    }

    fn batch(&mut self, header: &BatchHeader, content: Content) -> Result<(), Error> {
        let (epoch, offset) = (header.leader_epoch.0, header.base_offset.0);
        self.last_ms = header.max_timestamp;
        match (content, &mut self.implied) {
            (Content::Records(records), Some(implied)) => {
                records.into_iter().for_each(|record| implied.apply(record));
                (implied.end, implied.epoch) = (header.next_offset().0, epoch);
            }
            (Content::Records(records), None) => self.deliver(Committed::Entry(Entry { epoch, offset, records })),
            (Content::LeaderChange(leader), _) => {
                self.convert();
                self.deliver(Committed::LeaderChange(LeaderChange { epoch, offset, leader }));
            }
            _ => {
                let records = vec![MetadataRecord::NoOp(NoOpRecord::default()); header.records_count.max(0) as usize];
                self.deliver(Committed::Entry(Entry { epoch, offset, records }));
            }
        }
        Ok(())
    }

    /// Delivers the state of an early release, if there is one, as a snapshot. After it, each change is a record.
    fn convert(&mut self) {
        let Some(Implied { image, end, epoch, removed }) = self.implied.take().filter(|implied| implied.end > 0) else { return };
        self.must_convert = true;
        self.deliver(Committed::Snapshot(Snapshot { end, epoch, records: image.to_records(), removed }));
    }
}

impl Implied {
    fn apply(&mut self, mut record: MetadataRecord) {
        match &mut record {
            MetadataRecord::RegisterBroker(broker) => {
                broker.rack = broker.rack.take().filter(|rack| !rack.is_empty());
                self.image.apply_implied(broker.broker_id);
            }
            MetadataRecord::Partition(partition) => {
                let unassigned = partition.directories.iter_mut().filter(|id| **id == Uuid::ZERO);
                unassigned.for_each(|id| *id = UNASSIGNED_DIRECTORY);
            }
            MetadataRecord::RemoveTopic(topic) => self.removed.push(topic.topic_id),
            _ => {}
        }
        self.image.apply(&record);
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        Error::Storage(error.to_string())
    }
}

impl MetadataLog for LocalMetadataLog {
    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn propose(&self, proposal: Proposal) -> Pending<i64, NotCommitted> {
        let (file, workers) = (self.file.clone(), self.workers.clone());
        let work = move || file.lock().unwrap_or_else(PoisonError::into_inner).append(proposal);
        Box::pin(async move { workers.blocking(work).await.map_err(|error| NotCommitted::Unknown(error.to_string()))? })
    }

    fn wants_snapshot(&self) -> bool {
        let file = self.file();
        let (end, records) = file.snapshot;
        file.must_convert || file.log.log_end().0 - end > SNAPSHOT_AFTER_RECORDS.max(records)
    }

    fn snapshot(&self, snapshot: Snapshot) -> Pending<()> {
        self.blocking(move |file| file.snapshot(&snapshot))
    }

    fn close(&self) -> Pending<()> {
        self.blocking(|file| {
            file.log.close()?;
            Ok(file.log.flush()?)
        })
    }
}

impl LogFile {
    /// The only voter elects itself: it leads in the next epoch once the LeaderChange record is fsynced.
    fn elect(&mut self, node: NodeId) -> Result<(), Error> {
        let now_ms = self.clock.wall_ms();
        let epoch = self.epoch + 1;
        let batch = leader_change(node.0, now_ms);
        let offset = self.log.append(batch, Origin::Coordinator, LeaderEpoch(epoch), now_ms)?.base_offset.0;
        self.log.flush()?;
        (self.epoch, self.last_ms) = (epoch, now_ms);
        let _ = self.committed.send(Committed::LeaderChange(LeaderChange { epoch, offset, leader: node.0 }));
        Ok(())
    }

    fn append(&mut self, proposal: Proposal) -> Result<i64, NotCommitted> {
        let refused = |error: Error| Err(NotCommitted::Refused(error));
        if self.failed {
            let what = "the metadata log is offline after a disk error; repair the disk and restart the broker";
            return refused(Error::Storage(what.into()));
        }
        let Proposal { epoch, offset, records } = proposal;
        if epoch != self.epoch || offset != self.log.log_end().0 {
            return refused(Error::NotController);
        }
        assert!(!records.is_empty(), "a proposal without records at offset {offset}");
        let now_ms = self.clock.wall_ms();
        match self.log.append(batch(&records, now_ms), Origin::Coordinator, LeaderEpoch(epoch), now_ms) {
            Ok(appended) => assert_eq!(appended.base_offset.0, offset, "the metadata log wrote an entry at another offset"),
            Err(error) => return refused(error.into()),
        }
        if let Err(error) = self.log.flush() {
            // The next start shows whether the entry is on disk.
            self.failed = true;
            return Err(NotCommitted::Unknown(error.to_string()));
        }
        self.last_ms = now_ms;
        let last = offset + records.len() as i64 - 1;
        // The reader of the stream may have stopped; the entry is committed all the same.
        let _ = self.committed.send(Committed::Entry(Entry { epoch, offset, records }));
        Ok(last)
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let now_ms = self.clock.wall_ms();
        let Snapshot { end, epoch, records, .. } = snapshot;
        let log_end = self.log.log_end().0;
        assert!(
            *end <= log_end && *end >= self.snapshot.0,
            "a snapshot up to {end}; the last was up to {}, the log ends at {log_end}",
            self.snapshot.0
        );
        let bytes = encode_snapshot(records, *epoch, self.last_ms, now_ms);
        let directory = self.log.directory().to_path_buf();
        let name = snapshot_name(*end, *epoch);
        // The new snapshot is fsynced before the records and snapshots that it replaces are deleted.
        self.disk.replace(&directory.join(&name), &bytes).map_err(|e| Error::Storage(e.to_string()))?;
        (self.snapshot, self.must_convert) = ((*end, records.len() as i64), false);
        let all = Policy { retention_ms: None, retention_bytes: Some(0) };
        self.log.configure(LogConfig { retention: Some(all), ..config() });
        self.log.retain(Offset(*end), now_ms)?;
        self.log.configure(config());
        self.disk.sync_dir(&directory).map_err(|e| Error::Storage(e.to_string()))?;
        let names = self.disk.list(&directory).map_err(|e| Error::Storage(e.to_string()))?;
        for (old, _, _) in names.iter().filter_map(|n| snapshot_place(n)).filter(|(old, _, _)| **old != name) {
            self.disk.remove_file(&directory.join(old)).map_err(|e| Error::Storage(e.to_string()))?;
        }
        Ok(())
    }
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1 << 30,
        segment_ms: i64::MAX,
        segment_jitter_ms: 0,
        index_bytes_max: 10 << 20,
        index_interval_bytes: 4096,
        retention: None,
        flush_messages: i64::MAX,
        flush_ms: i64::MAX,
        compaction: None,
        decompressed_bytes_max: usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::batches::SNAPSHOT_SUFFIX;
    use crate::cluster::{Controller, ControllerSettings, Event, NewTopic, Registration, Replication};

    fn open(directory: &Path) -> (LocalMetadataLog, CommittedStream) {
        LocalMetadataLog::open(&Env::real(), directory, NodeId(1)).unwrap()
    }

    /// Proposes at the end of the log.
    async fn propose(log: &LocalMetadataLog, records: Vec<MetadataRecord>) -> Result<i64, NotCommitted> {
        let (epoch, offset) = (log.leadership.borrow().epoch, log.file().log.log_end().0);
        log.propose(Proposal { epoch, offset, records }).await
    }

    async fn snapshot(log: &LocalMetadataLog, image: &MetadataImage) {
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
        let (log, mut stream) = open(folder.path());
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
            let (log, mut stream) = open(folder.path());
            assert_eq!(*log.leadership.borrow(), Leadership { epoch: start, role: Role::Leader });
            after.apply_committed(&Committed::LeaderChange(LeaderChange { epoch: start, offset: after.offset + 1, leader: 1 }));
            assert_eq!(image(&mut stream), after, "nothing but the epoch is another");
            assert!(log.file().log.log_start().0 > 0, "what led to the snapshot is gone");
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
        let (log, _) = open(folder.path());
        for _ in 0..3 {
            propose(&log, vec![MetadataRecord::NoOp(Default::default())]).await.unwrap();
        }
        drop(log);
        let file = folder.path().join("__cluster_metadata-0/00000000000000000000.log");
        let bytes = std::fs::read(&file).unwrap();
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 2] ^= 1;
        std::fs::write(&file, &damaged).unwrap();
        let refused = LocalMetadataLog::open(&Env::real(), folder.path(), NodeId(1)).err().unwrap().to_string();
        assert!(refused.contains("is damaged at byte"), "{refused}");
        assert_eq!(std::fs::read(&file).unwrap(), damaged, "nothing was cut off");
        std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        // Two changes of the leader, and two of three entries.
        assert_eq!(open(folder.path()).1.len(), 4);
    }

    #[tokio::test]
    async fn a_damaged_snapshot_is_an_error_and_not_a_guess() {
        let folder = tempfile::tempdir().unwrap();
        let (log, mut stream) = open(folder.path());
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
            assert!(LocalMetadataLog::open(&Env::real(), folder.path(), NodeId(1)).is_err());
        }
    }

    #[tokio::test]
    async fn a_proposal_of_another_epoch_or_for_another_place_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (log, mut stream) = open(folder.path());
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
        let (log, mut stream) = open(folder.path());
        snapshot(&log, &image(&mut stream)).await;
        drop(log);
        let directory = folder.path().join("__cluster_metadata-0");
        let names = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path());
        names.filter(|p| p.to_string_lossy().ends_with(SNAPSHOT_SUFFIX)).for_each(|p| std::fs::remove_file(p).unwrap());
        let refused = LocalMetadataLog::open(&Env::real(), folder.path(), NodeId(1)).err().unwrap().to_string();
        assert!(refused.contains("the log begins at 1"), "{refused}");
    }

    #[tokio::test]
    async fn snapshots_grow_rarer_with_their_size() {
        let folder = tempfile::tempdir().unwrap();
        let (log, mut stream) = open(folder.path());
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
                let (log, mut stream) = open(folder.path());
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
