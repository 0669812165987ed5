//! The log under the metadata: where records become committed.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{Error, MetadataRecord, takeover};
use crate::env::{Clock, Disk, Env, Workers};
use crate::model::{LeaderEpoch, NodeId, Offset};
use crate::records::{
    self, BatchBuilder, BatchHeader, CheckedBatch, KeyRule, Look, NewRecord, Records, Rules, TimestampType, batches, check, layout,
};
use crate::storage::{self, Log, LogConfig, OpenFiles, Origin, Policy, Recovery};

/// The name of the metadata log, as in Kafka; its one partition lies beside the others.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Committed records. On disk an entry is a record batch: its base offset is the index, its leader epoch the term, and each record carries
/// the format version of its frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The term of the controller that proposed it.
    pub term: i32,
    /// The index of the first record.
    pub index: i64,
    /// What changes.
    pub records: Vec<MetadataRecord>,
}

/// What a log hands to those who follow it.
#[derive(Debug, Clone, PartialEq)]
pub enum Committed {
    /// Records that make the whole state: they take the place of everything before.
    Snapshot(Vec<MetadataRecord>),
    /// A change.
    Entry(Entry),
}

impl Committed {
    /// The records.
    pub fn records(&self) -> &[MetadataRecord] {
        match self {
            Committed::Snapshot(records) => records,
            Committed::Entry(entry) => &entry.records,
        }
    }
}

/// A call of a [`MetadataLog`] on its way.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// What is committed, in one order everywhere: first what the log holds when it is opened, then what follows. It has no bound of its own: who
/// follows takes each entry before the next one is proposed.
pub type CommittedStream = mpsc::UnboundedReceiver<Committed>;

/// What the controller needs of a log. Records that are proposed come back on the log's [`CommittedStream`]; so do those of others.
pub trait MetadataLog: Send + Sync {
    /// Proposes records in the controller's term. Answers the index of the first one once they are committed and in the stream, or
    /// [`Error::NotController`] where the term has passed.
    fn propose(&self, records: Vec<MetadataRecord>, term: i32) -> Pending<'_, i64>;

    /// Whether so much has been committed since the last snapshot that another one is worth its while.
    fn wants_snapshot(&self) -> bool;

    /// Stores the whole state as of the last committed record, so that what led there can go.
    fn snapshot(&self, state: Vec<MetadataRecord>) -> Pending<'_, ()>;

    /// Our term.
    fn term(&self) -> i32;

    /// Stops; what is committed stays.
    fn close(&self) -> Pending<'_, ()>;
}

/// Where our log lies within Kafka's.
const BESIDE_KAFKA: &str = "dlog";
/// Says up to which offset Kafka's log was taken over.
const TAKEN_OVER: &str = "taken-over";
/// Records after which a snapshot is taken.
const SNAPSHOT_AFTER_RECORDS: i64 = 10_000;
/// What a snapshot's file is named by, after its offset and term, as in Kafka.
pub(super) const SNAPSHOT_SUFFIX: &str = ".checkpoint";
/// Records of one batch of a snapshot.
const SNAPSHOT_BATCH_RECORDS: usize = 1000;

/// A log of one node: what is appended and synced is committed. A snapshot is a file of batches beside the segments.
pub struct LocalMetadataLog {
    file: Arc<Mutex<LogFile>>,
    term: i32,
    workers: Workers,
}

struct LogFile {
    log: Log,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    term: i32,
    committed: mpsc::UnboundedSender<Committed>,
    /// A sync has failed: what is in the file may not be on the disk, and nothing can be committed after it.
    failed: bool,
}

impl LocalMetadataLog {
    /// Opens the log below the log directory; everything that is there is committed. Each start is a new term.
    pub fn open(env: &Env, directory: &Path) -> Result<(LocalMetadataLog, CommittedStream), Error> {
        LocalMetadataLog::open_at(env, directory.join(format!("{METADATA_TOPIC}-0")))
    }

    /// Opens the log of a directory that Apache Kafka made. Kafka's own metadata log is read once and never written; ours lies in a directory
    /// within its, where Kafka does not look.
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
                    "Apache Kafka has written to {} since its data was taken over at offset {text}; remove {} to take over what Kafka says now \
                     (topics and settings that were made here are then unknown, and their data stays)",
                    kafkas.display(),
                    path.display()
                )));
            }
            return LocalMetadataLog::open_at(env, path);
        }
        let taken = takeover::read(disk, &kafkas, node)?;
        // What a start left that was cut short here.
        if disk.is_dir(&path) {
            disk.remove_dir_all(&path).map_err(unreadable)?;
        }
        let (log, _) = LocalMetadataLog::open_at(env, path.clone())?;
        log.file().snapshot(&taken.image.to_records())?;
        disk.replace(&note, format!("{}\n", taken.end).as_bytes()).map_err(unreadable)?;
        disk.sync_dir(&kafkas).map_err(unreadable)?;
        let (topics, offset) = (taken.image.topic_count(), taken.end.0);
        info!(topics, offset, directory = %directory.display(), "took over the metadata of Apache Kafka");
        if !taken.left_behind.is_empty() {
            let what: Vec<String> = taken.left_behind.into_iter().collect();
            warn!(what = what.join(", "), "not taken over from Apache Kafka");
        }
        drop(log);
        LocalMetadataLog::open_at(env, path)
    }

    fn open_at(env: &Env, path: PathBuf) -> Result<(LocalMetadataLog, CommittedStream), Error> {
        let Env { disk, clock, workers, .. } = env.clone();
        disk.create_dir(&path).map_err(|e| Error::Storage(e.to_string()))?;
        refuse_damage(&*disk, &path)?;
        let (log, _) = Log::open(&OpenFiles::new(disk.clone(), 1), &path, config(), Recovery::From(Offset(0)), clock.wall_ms())?;
        let (mut from, mut term) = (log.log_start(), 0);
        let (committed, stream) = mpsc::unbounded_channel();
        // The stream's reader is still here.
        let commit = |new| drop(committed.send(new));
        let names = disk.list(&path).map_err(|e| Error::Storage(e.to_string()))?;
        if let Some((name, end, of_term)) = names.iter().filter_map(|n| snapshot_place(n)).max_by_key(|(_, end, term)| (*end, *term)) {
            let bytes = disk.read(&path.join(name)).map_err(|e| Error::Storage(e.to_string()))?;
            commit(Committed::Snapshot(read_snapshot(&bytes)?));
            if log.log_end() < end {
                return Err(Error::Storage(format!("the log ends at {}, before its snapshot at {end}", log.log_end())));
            }
            (from, term) = (end, of_term);
        }
        log.reader().replay(from, |header, batch| {
            let records = decode_records(batch.get(layout::SIZE..).unwrap_or_default(), header.records_count)?;
            commit(Committed::Entry(Entry { term: header.leader_epoch.0, index: header.base_offset.0, records }));
            Ok::<_, Error>(())
        })?;
        let term = log.epochs().latest().map_or(term, |epoch| epoch.0.max(term)) + 1;
        let file = Arc::new(Mutex::new(LogFile { log, disk, clock, term, committed, failed: false }));
        Ok((LocalMetadataLog { file, term, workers }, stream))
    }

    fn file(&self) -> MutexGuard<'_, LogFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the file where blocking is allowed.
    fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&mut LogFile) -> Result<T, Error> + Send + 'static) -> Pending<'_, T> {
        let file = self.file.clone();
        let work = move || work(&mut file.lock().unwrap_or_else(PoisonError::into_inner));
        Box::pin(async { self.workers.blocking(work).await.map_err(|e| Error::Storage(e.to_string()))? })
    }
}

/// Refuses a log that is damaged before its end: opening it would cut off what was committed behind the damage. A last batch that is torn
/// was never acknowledged, and may go.
fn refuse_damage(disk: &dyn Disk, directory: &Path) -> Result<(), Error> {
    let names = disk.list(directory).map_err(|e| Error::Storage(e.to_string()))?;
    let mut logs = names.iter().filter(|n| n.ends_with(".log"));
    logs.try_for_each(|name| batches_of_file(disk, &directory.join(name), |_, _| Ok(())))
}

/// Name, end offset and term of a snapshot's file.
pub(super) fn snapshot_place(name: &str) -> Option<(&str, Offset, i32)> {
    let (end, term) = name.strip_suffix(SNAPSHOT_SUFFIX)?.split_once('-')?;
    Some((name, Offset(end.parse().ok()?), term.parse().ok()?))
}

fn read_snapshot(bytes: &[u8]) -> Result<Vec<MetadataRecord>, Error> {
    let malformed = |error: records::Error| Error::Storage(format!("the snapshot: {error}"));
    let mut all = Vec::new();
    let mut read = 0;
    for batch in batches(bytes) {
        let (header, batch) = batch.map_err(malformed)?;
        header.check_crc(batch).map_err(malformed)?;
        all.extend(decode_records(batch.get(layout::SIZE..).unwrap_or_default(), header.records_count)?);
        read += batch.len();
    }
    if read == bytes.len() { Ok(all) } else { Err(Error::Storage("the snapshot ends in the middle of a batch".into())) }
}

/// Gives each sound batch of a file to `each`. A last one that is torn is left out; damage before it is an error.
pub(super) fn batches_of_file(
    disk: &dyn Disk,
    path: &Path,
    mut each: impl FnMut(&BatchHeader, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let bytes = disk.read(path).map_err(|e| Error::Storage(e.to_string()))?;
    let mut position = 0;
    for batch in batches(&bytes) {
        let size = match &batch {
            Ok((header, batch)) if header.check_crc(batch).is_ok() => {
                each(header, batch)?;
                position += batch.len();
                continue;
            }
            Ok((header, _)) => header.size(),
            Err(_) => bytes.len() - position,
        };
        if position + size < bytes.len() {
            return Err(Error::Storage(format!("{} is damaged at byte {position}; restore it from a copy", path.display())));
        }
        break;
    }
    Ok(())
}

fn decode_records(body: &[u8], count: i32) -> Result<Vec<MetadataRecord>, Error> {
    let body = Bytes::copy_from_slice(body);
    let one = |record: Result<records::Record<'_>, records::Error>| {
        let value = record.map_err(|e| Error::Storage(e.to_string()))?.value.map(|v| body.slice_ref(v));
        MetadataRecord::decode(value.ok_or_else(|| Error::Storage("a metadata record has no value".into()))?).map_err(Error::Storage)
    };
    Records::new(&body, count).map(one).collect()
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        Error::Storage(error.to_string())
    }
}

impl MetadataLog for LocalMetadataLog {
    fn propose(&self, records: Vec<MetadataRecord>, term: i32) -> Pending<'_, i64> {
        if term != self.term {
            return Box::pin(std::future::ready(Err(Error::NotController)));
        }
        self.blocking(|file| file.append(records))
    }

    fn wants_snapshot(&self) -> bool {
        let log = &self.file().log;
        log.log_end().0 - log.log_start().0 > SNAPSHOT_AFTER_RECORDS
    }

    fn snapshot(&self, state: Vec<MetadataRecord>) -> Pending<'_, ()> {
        self.blocking(move |file| file.snapshot(&state))
    }

    fn term(&self) -> i32 {
        self.term
    }

    fn close(&self) -> Pending<'_, ()> {
        self.blocking(|file| {
            file.log.close()?;
            Ok(file.log.flush()?)
        })
    }
}

impl LogFile {
    fn append(&mut self, records: Vec<MetadataRecord>) -> Result<i64, Error> {
        if self.failed {
            return Err(Error::Storage("the metadata log is offline after a disk error; mend the disk and start the broker again".into()));
        }
        let now_ms = self.clock.wall_ms();
        let batch = checked(&encode_batch(&records, now_ms), now_ms)?;
        let index = self.log.append(batch, Origin::Coordinator, LeaderEpoch(self.term), now_ms)?.base_offset.0;
        self.log.flush().inspect_err(|_| self.failed = true)?;
        // Who follows may have stopped; what is committed stands all the same.
        let _ = self.committed.send(Committed::Entry(Entry { term: self.term, index, records }));
        Ok(index)
    }

    fn snapshot(&mut self, state: &[MetadataRecord]) -> Result<(), Error> {
        let now_ms = self.clock.wall_ms();
        let bytes: Vec<u8> = state.chunks(SNAPSHOT_BATCH_RECORDS).flat_map(|chunk| encode_batch(chunk, now_ms)).collect();
        let directory = self.log.directory().to_path_buf();
        let end = self.log.log_end();
        let name = format!("{:020}-{:010}{SNAPSHOT_SUFFIX}", end.0, self.term);
        // The new snapshot is durable before anything that it stands for goes.
        self.disk.replace(&directory.join(&name), &bytes).map_err(|e| Error::Storage(e.to_string()))?;
        let all = Policy { retention_ms: None, retention_bytes: Some(0) };
        self.log.configure(LogConfig { retention: Some(all), ..config() });
        self.log.retain(end, now_ms)?;
        self.log.configure(config());
        self.disk.sync_dir(&directory).map_err(|e| Error::Storage(e.to_string()))?;
        let names = self.disk.list(&directory).map_err(|e| Error::Storage(e.to_string()))?;
        for (old, _, _) in names.iter().filter_map(|n| snapshot_place(n)).filter(|(old, _, _)| **old != name) {
            self.disk.remove_file(&directory.join(old)).map_err(|e| Error::Storage(e.to_string()))?;
        }
        Ok(())
    }
}

fn encode_batch(records: &[MetadataRecord], now_ms: i64) -> Bytes {
    let values: Vec<Bytes> = records.iter().map(MetadataRecord::encode).collect();
    values.iter().fold(BatchBuilder::new(), |builder, value| builder.record(NewRecord::value(value))).build(now_ms)
}

/// Our own batch passes the same door as a producer's.
fn checked(bytes: &Bytes, now_ms: i64) -> Result<CheckedBatch, Error> {
    let rules = Rules {
        now_ms,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: i64::MAX,
        message_bytes_max: usize::MAX,
        codec: None,
        keys: KeyRule::Optional,
        look: Look::Trusting,
        decompressed_bytes_max: usize::MAX,
    };
    check(bytes, &rules).map_err(|e| Error::Storage(e.to_string()))
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
    use crate::cluster::{Controller, ControllerSettings, Event, MetadataImage, NewTopic, Replication};
    use crate::model::Uuid;

    fn open(directory: &Path) -> (LocalMetadataLog, CommittedStream) {
        LocalMetadataLog::open(&Env::real(), directory).unwrap()
    }

    fn image(stream: &mut CommittedStream) -> MetadataImage {
        let mut image = MetadataImage::default();
        while let Ok(committed) = stream.try_recv() {
            image.apply_committed(&committed);
        }
        image
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
        let mut controller = Controller::new(MetadataImage::default(), settings);
        let start = Event::RegisterBroker { id: 1, incarnation: Uuid::ZERO };
        for event in [start.clone(), topic(1), start, topic(2), Event::AllocateProducerIds { broker: 1 }] {
            let (records, _) = controller.handle(&event);
            log.propose(records, log.term()).await.unwrap();
        }
        let before = image(&mut stream);
        log.snapshot(before.to_records()).await.unwrap();
        let (records, _) = controller.handle(&topic(3));
        log.propose(records.clone(), log.term()).await.unwrap();
        let term = log.term();
        assert_eq!(log.propose(records, term + 1).await, Err(Error::NotController));
        drop(log);
        for _ in 0..2 {
            let (log, mut stream) = open(folder.path());
            assert!(log.term() > term);
            let after = image(&mut stream);
            assert_eq!(after.topic("t1"), before.topic("t1"), "epochs and settings are as they were");
            assert_eq!((after.topic_count(), after.next_producer_id, after.brokers()), (3, 1000, &[1][..]));
            assert!(log.file().log.log_start().0 > 0, "what led to the snapshot is gone");
            let state = after.to_records();
            log.snapshot(state).await.unwrap();
        }
        let snapshots = std::fs::read_dir(folder.path().join("__cluster_metadata-0")).unwrap();
        let count = snapshots.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(SNAPSHOT_SUFFIX)).count();
        assert_eq!(count, 1, "older snapshots go");
    }

    #[tokio::test]
    async fn damage_before_the_end_is_refused_and_a_torn_end_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = open(folder.path());
        for _ in 0..3 {
            log.propose(vec![MetadataRecord::Topic(Default::default())], log.term()).await.unwrap();
        }
        drop(log);
        let file = folder.path().join("__cluster_metadata-0/00000000000000000000.log");
        let bytes = std::fs::read(&file).unwrap();
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 2] ^= 1;
        std::fs::write(&file, &damaged).unwrap();
        let refused = LocalMetadataLog::open(&Env::real(), folder.path()).err().unwrap().to_string();
        assert!(refused.contains("is damaged at byte"), "{refused}");
        assert_eq!(std::fs::read(&file).unwrap(), damaged, "nothing was cut off");
        std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(open(folder.path()).1.len(), 2);
    }

    #[tokio::test]
    async fn a_damaged_snapshot_is_an_error_and_not_a_guess() {
        let folder = tempfile::tempdir().unwrap();
        let (log, mut stream) = open(folder.path());
        log.propose(vec![MetadataRecord::Topic(Default::default())], log.term()).await.unwrap();
        let state = image(&mut stream).to_records();
        log.snapshot(state).await.unwrap();
        drop(log);
        let directory = folder.path().join("__cluster_metadata-0");
        let names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path()).collect();
        let snapshot = names.iter().find(|p| p.to_string_lossy().ends_with(SNAPSHOT_SUFFIX)).unwrap();
        let bytes = std::fs::read(snapshot).unwrap();
        for damaged in [&bytes[..bytes.len() - 1], &[&bytes[..70], &[0xff], &bytes[71..]].concat()] {
            std::fs::write(snapshot, damaged).unwrap();
            assert!(LocalMetadataLog::open(&Env::real(), folder.path()).is_err());
        }
    }
}
