//! A log directory: its identity, its partitions, and how the last broker left it.
//!
//! | file | content |
//! |---|---|
//! | `meta.properties` | node, cluster and directory id; `software=dlog` distinguishes our directories from Apache Kafka's |
//! | `.lock` | held while a broker runs |
//! | `.kafka_cleanshutdown` | exists after a clean stop, until the next start |
//! | `recovery-point-offset-checkpoint` | for each partition the offset below which everything is fsynced |
//! | `log-start-offset-checkpoint` | the log start offset of partitions whose records were deleted by DeleteRecords |
//! | `commit-journal.<number>` | under `durability.profile=fsync`, committed batches that may not be fsynced in the logs, see [`CommitJournal`] |
//! | `commit-journal-start-checkpoint` | for each truncated partition the number of the first use of a journal file that is valid for it |
//! | `cleaner-offset-checkpoint` | for each compacted partition the first offset that was never compacted |
//! | `topic-partition/` | one log each; `topic-partition.<uuid>-delete/` belongs to a deleted topic and is being removed, `topic-partition.<uuid>-stray/` to a topic that is not the one of this name; it is kept |
//!
//! A file system allows names of up to [`NAME_BYTES_MAX`] bytes. A topic's name has up to 249, so `topic-partition` fits for up to 100,000
//! partitions. In the name of a directory that is being removed the topic is shortened, as in Kafka (KAFKA-4893).
//!
//! Checkpoint files identify partitions by topic and number, not by the topic's id. An entry for a deleted topic must not be used for a new one
//! of the same name: that topic would lose records below the other log's start, or trust segments that were never fsynced. So a partition's entries
//! are [removed](LogDirectory::forget) durably before its directory is created, and an entry is only written while its partition exists,
//! which is checked under the file's lock ([`OffsetFile::change`]).

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{CommitJournal, Error, Recovery, Stored, checkpoint};
use crate::env::{Disk, Entropy, Lock};
use crate::model::{NodeId, Offset, TopicPartition, Uuid};

pub(super) const META: &str = "meta.properties";
pub(super) const LOCK: &str = ".lock";
pub(super) const CLEAN: &str = ".kafka_cleanshutdown";
const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const CLEANED: &str = "cleaner-offset-checkpoint";
const JOURNAL_STARTS: &str = "commit-journal-start-checkpoint";
const PARTITION_METADATA: &str = "partition.metadata";
const DELETED: &str = "-delete";
const STRAY: &str = "-stray";
/// The most bytes of a file name on the usual file systems.
const NAME_BYTES_MAX: usize = 255;
/// Hexadecimal digits of the id in the name of a directory that is being removed or is a stray.
const DELETED_ID_DIGITS: usize = 32;
/// The names that are kept when a directory is cleared.
const KEPT_BY_CLEARING: &[&str] = &[LOCK, "lost+found"];

/// How the last broker left the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It was empty.
    Fresh,
    /// It was stopped cleanly.
    Clean,
    /// It was killed.
    Crashed,
}

/// The software that created a log directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Software {
    /// This broker.
    Dlog,
    /// Apache Kafka, whose layout is the same except for the metadata log.
    Kafka,
}

/// An open, locked log directory.
#[derive(Debug)]
pub struct LogDirectory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// The software that created it.
    pub made_by: Software,
    /// The cluster that it belongs to.
    pub cluster_id: String,
    /// Its own id (KIP-858); none if its creator did not write one.
    pub id: Option<Uuid>,
    /// How the last broker left it.
    pub start: Start,
    /// The recovery points that the last broker left.
    found_points: BTreeMap<TopicPartition, Offset>,
    recovery_points: OffsetFile,
    log_starts: OffsetFile,
    cleaned: OffsetFile,
    journal_starts: OffsetFile,
    journal: CommitJournal,
    _lock: Lock,
}

/// Offsets of partitions, in one of Kafka's checkpoint files.
#[derive(Debug)]
pub struct OffsetFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    offsets: Mutex<BTreeMap<TopicPartition, Offset>>,
}

impl OffsetFile {
    fn read(disk: Arc<dyn Disk>, path: PathBuf) -> OffsetFile {
        let offsets = Mutex::new(checkpoint::read(&*disk, &path).iter().filter_map(|line| partition_offset(line)).collect());
        OffsetFile { disk, path, offsets }
    }

    /// The offset of a partition.
    pub fn get(&self, partition: &TopicPartition) -> Option<Offset> {
        self.offsets().get(partition).copied()
    }

    /// The largest offset in it, at least 0.
    fn largest(&self) -> u64 {
        self.offsets().values().map(|offset| offset.0.max(0) as u64).max().unwrap_or(0)
    }

    /// Stores changes durably; `None` removes an entry. `changes` is called under the file's lock, so that its result is still true when the file is
    /// written: it must omit deleted partitions, because another one of the same name may exist.
    pub fn change(&self, changes: impl FnOnce() -> Vec<(TopicPartition, Option<Offset>)>) -> Result<(), Error> {
        let mut all = self.offsets();
        let mut next = all.clone();
        for (partition, offset) in changes() {
            match offset {
                Some(offset) => next.insert(partition, offset),
                None => next.remove(&partition),
            };
        }
        if *all != next {
            self.write(&next)?;
            *all = next;
        }
        Ok(())
    }

    /// Stores exactly these entries durably; for `lines` see [`OffsetFile::change`].
    fn replace(&self, lines: impl FnOnce() -> Vec<(TopicPartition, Offset)>) -> Result<(), Error> {
        let mut all = self.offsets();
        let next = lines().into_iter().collect();
        self.write(&next)?;
        *all = next;
        Ok(())
    }

    fn write(&self, offsets: &BTreeMap<TopicPartition, Offset>) -> Result<(), Error> {
        if let Some((partition, offset)) = offsets.iter().find(|(_, offset)| offset.0 < 0) {
            panic!("{} would hold the offset {offset} for {partition}; offsets are not negative", self.path.display());
        }
        let lines = lines_of(offsets.iter());
        self.disk.replace(&self.path, checkpoint::text(&lines).as_bytes()).map_err(Error::io("write", &self.path))
    }

    fn offsets(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, Offset>> {
        self.offsets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lines_of<'a>(offsets: impl Iterator<Item = (&'a TopicPartition, &'a Offset)>) -> Vec<String> {
    offsets.map(|(p, offset)| format!("{} {} {offset}", p.topic, p.partition)).collect()
}

impl LogDirectory {
    /// The file that a broker locks while it uses a directory.
    pub fn lock_path(path: &Path) -> PathBuf {
        path.join(LOCK)
    }

    /// Whether a broker uses a directory. Changes nothing on the disk.
    pub fn is_locked(disk: &dyn Disk, path: &Path) -> bool {
        let lock = LogDirectory::lock_path(path);
        disk.exists(&lock) && matches!(disk.lock(&lock), Ok(None))
    }

    /// Opens or creates the directory for a node. A configured cluster id must be equal to the stored one; without a configured id the stored one is
    /// used, or a new one is generated.
    pub fn open(
        disk: Arc<dyn Disk>,
        entropy: &dyn Entropy,
        path: &Path,
        node: NodeId,
        cluster_id: Option<&str>,
    ) -> Result<LogDirectory, Error> {
        let is_new = !disk.is_dir(path);
        let above: Vec<&Path> = path.ancestors().skip(1).filter(|above| is_new && !above.as_os_str().is_empty()).collect();
        // The number of parent directories to fsync: the new ones, and the first existing one.
        let old = above.iter().position(|above| disk.is_dir(above)).map_or(above.len(), |at| at + 1);
        disk.create_dir(path).map_err(Error::io("create the directory", path))?;
        above[..old].iter().try_for_each(|above| disk.sync_dir(above).map_err(Error::io("sync", above)))?;
        let lock_path = path.join(LOCK);
        let lock = disk.lock(&lock_path).map_err(Error::io("write to", path))?.ok_or(Error::Locked(path.to_path_buf()))?;
        let names = disk.list(path).map_err(Error::io("list", path))?;
        let meta_path = path.join(META);
        let (made_by, cluster_id, id, start) = if disk.exists(&meta_path) {
            let (made_by, stored, id) = read_meta(&*disk, path, &meta_path, node)?;
            if let Some(configured) = cluster_id.filter(|id| *id != stored) {
                let (what, key) = ("cluster", "cluster.id");
                return Err(Error::Mismatch { path: path.to_path_buf(), what, key, stored, configured: configured.to_string() });
            }
            let clean = disk.exists(&path.join(CLEAN));
            (made_by, stored, id, if clean { Start::Clean } else { Start::Crashed })
        } else {
            if let Some(found) = names.iter().find(|n| *n != LOCK && *n != "lost+found" && !n.ends_with(".tmp")) {
                return Err(Error::Foreign { path: path.to_path_buf(), found: found.clone() });
            }
            let cluster_id = cluster_id.map_or_else(|| entropy.uuid().to_string(), str::to_string);
            let id = entropy.uuid();
            let text = format!("version=1\nsoftware=dlog\nnode.id={node}\ncluster.id={cluster_id}\ndirectory.id={id}\n");
            disk.replace(&meta_path, text.as_bytes()).map_err(Error::io("write", &meta_path))?;
            (Software::Dlog, cluster_id, Some(id), Start::Fresh)
        };
        let clean_path = path.join(CLEAN);
        if start == Start::Clean {
            disk.remove_file(&clean_path).map_err(Error::io("remove", &clean_path))?;
            // The file must not reappear after a power loss, when it is not true any more.
            disk.sync_dir(path).map_err(Error::io("sync", path))?;
        }
        let recovery_points = OffsetFile::read(disk.clone(), path.join(RECOVERY_POINTS));
        let found_points = recovery_points.offsets().clone();
        let log_starts = OffsetFile::read(disk.clone(), path.join(LOG_STARTS));
        let cleaned = OffsetFile::read(disk.clone(), path.join(CLEANED));
        let journal_starts = OffsetFile::read(disk.clone(), path.join(JOURNAL_STARTS));
        let journal = CommitJournal::open(&disk, path, journal_starts.largest())?;
        let path = path.to_path_buf();
        Ok(LogDirectory {
            disk,
            path,
            made_by,
            cluster_id,
            id,
            start,
            found_points,
            recovery_points,
            log_starts,
            cleaned,
            journal_starts,
            journal,
            _lock: lock,
        })
    }

    /// Removes everything in a log directory that is not in use; a directory that does not exist is clear already.
    pub fn clear(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
        if !disk.is_dir(path) {
            return Ok(());
        }
        let lock_path = path.join(LOCK);
        let _lock = disk.lock(&lock_path).map_err(Error::io("write to", path))?.ok_or(Error::Locked(path.to_path_buf()))?;
        let names = disk.list(path).map_err(Error::io("list", path))?;
        let has_meta = names.iter().any(|name| name == META);
        let mut others: Vec<&String> = names.iter().filter(|name| !KEPT_BY_CLEARING.contains(&name.as_str())).collect();
        if let Some(found) = others.first().filter(|_| !has_meta) {
            return Err(Error::Foreign { path: path.to_path_buf(), found: found.to_string() });
        }
        // The file that identifies the directory is removed last, so that an interrupted call can be repeated.
        others.sort_by_key(|name| *name == META);
        for name in others {
            let at = path.join(name);
            let removed = if disk.is_dir(&at) { disk.remove_dir_all(&at) } else { disk.remove_file(&at) };
            removed.map_err(Error::io("remove", &at))?;
        }
        disk.sync_dir(path).map_err(Error::io("sync", path))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a partition.
    pub fn partition_path(&self, partition: &TopicPartition) -> PathBuf {
        self.path.join(partition.to_string())
    }

    /// How the log of a partition must be opened.
    pub fn recovery(&self, partition: &TopicPartition) -> Recovery {
        match self.start {
            // Also for partitions that were created and deleted since this start.
            Start::Clean | Start::Fresh => Recovery::Clean,
            Start::Crashed => Recovery::From(self.found_points.get(partition).copied().unwrap_or(Offset(0))),
        }
    }

    /// The log end offset of a partition when it was cleanly closed; none if unknown.
    pub fn clean_end(&self, partition: &TopicPartition) -> Option<Offset> {
        (self.start == Start::Clean).then(|| self.found_points.get(partition).copied()).flatten()
    }

    /// Fsyncs the names of partition directories.
    pub fn sync_names(&self) -> Result<(), Error> {
        self.disk.sync_dir(&self.path).map_err(Error::io("sync", &self.path))
    }

    /// The partitions that have a directory.
    pub fn partitions(&self) -> Result<Vec<TopicPartition>, Error> {
        let names = self.disk.list(&self.path).map_err(Error::io("list", &self.path))?;
        Ok(names.iter().filter_map(|n| partition_of_directory(n)).collect())
    }

    /// Creates a partition's directory, with the file that stores its topic's id.
    pub fn create_partition(&self, partition: &TopicPartition, topic_id: Uuid) -> Result<(), Error> {
        let path = self.partition_path(partition);
        self.disk.create_dir(&path).map_err(Error::io("create the directory", &path))?;
        let file = path.join(PARTITION_METADATA);
        self.disk.write(&file, format!("version: 0\ntopic_id: {topic_id}\n").as_bytes()).map_err(Error::io("write", &file))
    }

    /// The topic id stored in a partition's directory; none if it contains none. If the file cannot be read now, the directory may belong to any
    /// topic.
    pub fn topic_id(&self, partition: &TopicPartition) -> Result<Option<Uuid>, Error> {
        let path = self.partition_path(partition).join(PARTITION_METADATA);
        let bytes = match self.disk.read(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory) => {
                return Ok(None);
            }
            bytes => bytes.map_err(Error::io("read", &path))?,
        };
        let id = |text: String| text.lines().find_map(|l| Uuid::parse(l.strip_prefix("topic_id: ")?));
        Ok(String::from_utf8(bytes).ok().and_then(id))
    }

    /// Frees a partition's name: renames its directory, which [`LogDirectory::remove_retired`] removes later. None if the partition has no
    /// directory.
    pub fn retire_partition(&self, partition: &TopicPartition, entropy: &dyn Entropy) -> Result<Option<PathBuf>, Error> {
        self.rename_partition(partition, DELETED, entropy)
    }

    /// Frees the name of a partition whose directory belongs to another topic: renames it, as Kafka does. It is never removed.
    pub fn set_stray_aside(&self, partition: &TopicPartition, entropy: &dyn Entropy) -> Result<Option<PathBuf>, Error> {
        self.rename_partition(partition, STRAY, entropy)
    }

    fn rename_partition(&self, partition: &TopicPartition, suffix: &str, entropy: &dyn Entropy) -> Result<Option<PathBuf>, Error> {
        let from = self.partition_path(partition);
        let to = self.path.join(renamed(partition, entropy.uuid(), suffix));
        match self.disk.rename(&from, &to) {
            Ok(()) => Ok(Some(to)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("rename", &from)(error)),
        }
    }

    /// The directories of deleted partitions that still exist.
    pub fn retired(&self) -> Result<Vec<PathBuf>, Error> {
        let names = self.disk.list(&self.path).map_err(Error::io("list", &self.path))?;
        Ok(names.iter().filter(|name| is_retired(name)).map(|name| self.path.join(name)).collect())
    }

    /// Removes the directory of a deleted partition. Concurrent and earlier removals of it are not errors.
    pub fn remove_retired(&self, path: &Path) -> Result<(), Error> {
        assert!(
            path.parent() == Some(&*self.path) && path.file_name().and_then(|name| name.to_str()).is_some_and(is_retired),
            "{} is not the directory of a deleted partition in {}",
            path.display(),
            self.path.display()
        );
        match self.disk.remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            // A file existed with the name of the partition's directory.
            Err(error) if error.kind() == ErrorKind::NotADirectory => self.disk.remove_file(path).map_err(Error::io("remove", path)),
            removed => removed.map_err(Error::io("remove", path)),
        }
    }

    /// Removes the entries of partitions from checkpoint files, durably: before such a partition is created, and after one was deleted. For
    /// `partitions` see [`OffsetFile::change`].
    pub fn forget(&self, partitions: impl Fn() -> Vec<TopicPartition>) -> Result<(), Error> {
        [&self.recovery_points, &self.log_starts, &self.cleaned, &self.journal_starts]
            .iter()
            .try_for_each(|file| file.change(|| partitions().into_iter().map(|partition| (partition, None)).collect()))
    }

    /// Writes the recovery points; for `points` see [`OffsetFile::change`].
    pub fn save_recovery_points(&self, points: impl FnOnce() -> Vec<(TopicPartition, Offset)>) -> Result<(), Error> {
        self.recovery_points.replace(points)
    }

    /// The log start offsets of partitions whose records were deleted.
    pub fn log_starts(&self) -> &OffsetFile {
        &self.log_starts
    }

    /// The first offsets that were never compacted.
    pub fn cleaned(&self) -> &OffsetFile {
        &self.cleaned
    }

    /// The batches of a partition's log in the commit journal, in the order of their append. Returns nothing if it is called again.
    pub fn committed_to(&self, partition: &TopicPartition, topic_id: Uuid) -> Vec<Stored> {
        let from = self.journal_starts.get(partition).map_or(0, |number| number.0.max(0) as u64);
        self.journal.take(topic_id, partition.partition, from)
    }

    /// Ensures durably that nothing outside a log claims the part that will be truncated. Everything below `offset` must be fsynced in the log, and
    /// no recovery points may be written until it is truncated.
    ///
    /// After a crash before the truncation the log is whole: recovery reads more of it than necessary, and the journal contains nothing that the log
    /// lacks. The journal's files are not rewritten: their batches of this log are ignored from now on, even if a file is reused late or never.
    pub fn truncating(&self, partition: &TopicPartition, offset: Offset) -> Result<(), Error> {
        for file in [&self.recovery_points, &self.cleaned] {
            if file.get(partition).is_some_and(|claimed| claimed > offset) {
                file.change(|| vec![(partition.clone(), Some(offset))])?;
            }
        }
        let number = self.journal.seal().next_number();
        self.journal_starts.change(|| vec![(partition.clone(), Some(Offset(number as i64)))])
    }

    /// The commit journal.
    pub fn journal(&self) -> &CommitJournal {
        &self.journal
    }

    /// The size of its file system in bytes, and how many of them are free for us.
    pub fn space(&self) -> Result<(u64, u64), Error> {
        self.disk.space(&self.path).map_err(Error::io("read", &self.path))
    }

    /// Marks that every log is closed.
    pub fn mark_clean(&self) -> Result<(), Error> {
        let path = self.path.join(CLEAN);
        self.disk.replace(&path, b"{\"version\":0,\"brokerEpoch\":-1}").map_err(Error::io("write", &path))
    }
}

/// The new name of a directory whose name is needed: `topic-3.<id>-delete`, or with another suffix. The topic is shortened if the name would be too
/// long; the id makes it unique.
fn renamed(partition: &TopicPartition, id: Uuid, suffix: &str) -> String {
    let end = format!("-{}.{}{suffix}", partition.partition, id.dashed().replace('-', ""));
    let topic: String = partition.topic.chars().take(NAME_BYTES_MAX - end.len()).collect();
    let name = format!("{topic}{end}");
    assert!(name.len() <= NAME_BYTES_MAX, "{name} is too long for the directory of a renamed partition");
    assert_eq!(is_retired(&name), suffix == DELETED, "{name} would be removed, or a deleted partition would not");
    name
}

/// Whether a directory of this name is being removed.
fn is_retired(name: &str) -> bool {
    let id = name.strip_suffix(DELETED).and_then(|rest| rest.rsplit_once('.')).map(|(_, id)| id);
    id.is_some_and(|id| id.len() == DELETED_ID_DIGITS && id.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// The partition of a directory's name such as `topic-3`; none for other names.
pub fn partition_of_directory(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.rsplit_once('-')?;
    let number: i32 = partition.parse().ok().filter(|n| *n >= 0)?;
    (crate::model::is_legal_topic_name(topic) && number.to_string() == partition).then(|| TopicPartition::new(topic, number))
}

fn partition_offset(line: &str) -> Option<(TopicPartition, Offset)> {
    let mut words = line.split(' ');
    let partition = TopicPartition::new(words.next()?, words.next()?.parse().ok()?);
    let offset = words.next()?.parse().ok().filter(|offset| *offset >= 0)?;
    Some((partition, Offset(offset)))
}

/// The creating software, the cluster id and the directory id, after checking that the file is complete and has the id of this node.
fn read_meta(disk: &dyn Disk, directory: &Path, path: &Path, node: NodeId) -> Result<(Software, String, Option<Uuid>), Error> {
    let bytes = disk.read(path).map_err(Error::io("read", path))?;
    let text = String::from_utf8_lossy(&bytes);
    let value = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('=').map(|v| v.trim().to_string()));
    let damaged = |what: &str| Error::Metadata { path: path.to_path_buf(), what: what.to_string() };
    let cluster_id = value("cluster.id").filter(|id| !id.is_empty()).ok_or_else(|| damaged("cluster.id is missing"))?;
    let stored: i32 = value("node.id").and_then(|v| v.parse().ok()).ok_or_else(|| damaged("node.id is missing or not a number"))?;
    if stored != node.0 {
        let (what, key) = ("node", "node.id");
        return Err(Error::Mismatch { path: directory.to_path_buf(), what, key, stored: stored.to_string(), configured: node.to_string() });
    }
    let made_by = if value("software").as_deref() == Some("dlog") { Software::Dlog } else { Software::Kafka };
    Ok((made_by, cluster_id, value("directory.id").and_then(|id| Uuid::parse(&id))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_is_made_of_a_topics_name_fits() {
        for topic in ["t", &"x".repeat(213), &"x".repeat(214), &"x".repeat(249)] {
            for number in [0, 9, 10_000, 99_999, i32::MAX] {
                let partition = TopicPartition::new(topic, number);
                let name = renamed(&partition, Uuid([7; 16]), DELETED);
                assert!(name.len() <= NAME_BYTES_MAX && is_retired(&name), "{name}");
                assert!(name.starts_with(&topic[..topic.len().min(200)]) && name.contains(&format!("-{number}.")), "{name}");
                // It is not the name of a partition's directory.
                assert_eq!(partition_of_directory(&name), None);
                let stray = renamed(&partition, Uuid([7; 16]), STRAY);
                assert!(stray.len() <= NAME_BYTES_MAX && !is_retired(&stray) && partition_of_directory(&stray).is_none(), "{stray}");
            }
        }
        // Kafka's own deleted directories are removed too; a topic can also have such a name.
        assert!(is_retired("t-0.5f0a1b2c3d4e5f60718293a4b5c6d7e8-delete"));
        for other in ["a-delete-0", "-delete", "a-delete", "t-0.xyz-delete", "t-0.5f0a1b2c3d4e5f60718293a4b5c6d7e8-delete-0"] {
            assert!(!is_retired(other), "{other}");
        }
    }
}
