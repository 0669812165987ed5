//! What each fuzz target does with hostile bytes, and what must hold whatever they are.
//!
//! Files of a log are damaged in a directory that was whole: what is read from it afterwards must be what was written.

pub mod coordinators;
#[path = "../../common/logs.rs"]
#[allow(dead_code)]
mod logs;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use dlog::env::{Disk, ManualClock, MemoryDisk, SystemEntropy};
use dlog::model::{LeaderEpoch, NodeId, Offset, TopicPartition, Uuid};
use dlog::records::{
    BatchBuilder, Codec, HorizonFor, KeyRule, Look, NewRecord, Retained, Rewrite, WhenEmpty, batches, check, compress, decompress, layout, retain,
};
use dlog::storage::{Committed, FirstBatch, JournalEntry, Log, LogConfig, LogDirectory, OpenFiles, Origin, Recovery};
use logs::{NOW, log_config, rules};

/// The most bytes that a block may decompress to.
const DECOMPRESSED_MAX: usize = 64 << 10;
const DATA: &str = "/data";
/// What [`checkpoint`] damages.
const CHECKPOINTS: [&str; 4] =
    ["recovery-point-offset-checkpoint", "log-start-offset-checkpoint", "cleaner-offset-checkpoint", "p-0/leader-epoch-checkpoint"];
/// Records of the log that is damaged, one in each batch.
const RECORDS: i64 = 24;
const PRODUCER: i64 = 9;

/// A kind of file of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damaged {
    /// A sealed segment's index.
    Index,
    /// A sealed segment's time index.
    TimeIndex,
    /// The last snapshot of producers.
    Snapshot,
}

/// A batch as a producer sends it: the first byte chooses rules, the rest is the batch. Its length and checksum are set right, or nothing
/// but the first check would ever run.
pub fn batch(data: &[u8]) {
    let Some((choice, batch)) = data.split_first() else { return };
    let mut batch = batch.to_vec();
    if choice & 1 == 0 && batch.len() >= layout::SIZE {
        let length = (batch.len() - layout::MAGIC + 4) as i32;
        batch[..8].fill(0);
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[layout::MAGIC] = 2;
        let crc = crc32c::crc32c(&batch[layout::ATTRIBUTES..]);
        batch[layout::CRC..layout::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    }
    let batch = Bytes::from(batch);
    let keys = if choice & 2 == 0 { KeyRule::Required } else { KeyRule::Optional };
    let mut rules = rules(keys, if choice & 4 == 0 { Look::Full } else { Look::Trusting });
    rules.codec = [None, Some(Codec::None), Some(Codec::Lz4), Some(Codec::Snappy)][usize::from(choice >> 3 & 3)];
    rules.decompressed_bytes_max = DECOMPRESSED_MAX;
    let Ok(mut checked) = check(&batch, &rules) else { return };
    let mut stored = checked.place(Offset(100), LeaderEpoch(1)).to_vec();
    stored.extend_from_slice(checked.body());
    let (header, whole) = batches(&stored).next().expect("what was checked is a batch").expect("and a whole one");
    header.check_crc(whole).expect("its checksum is right");
    assert!(header.base_offset == Offset(100) && header.records_count > 0);
    let Ok(opened) = header.open(whole, DECOMPRESSED_MAX) else {
        assert!(rules.look == Look::Trusting && header.codec() != Ok(Codec::None), "all of it was looked at");
        return;
    };
    let sound = opened.records().filter_map(Result::ok).count();
    if rules.look == Look::Full {
        assert_eq!(sound, header.records_count as usize);
    }
    let how = Rewrite { decompressed_bytes_max: DECOMPRESSED_MAX, horizon_ms: NOW, horizon_for: HorizonFor::Tombstones, when_empty: WhenEmpty::KeepHeader };
    let mut at = 0;
    let kept = retain(&header, whole, &how, |_| {
        at += 1;
        at % 2 == 0
    });
    if let Ok(Retained::Batch(header, bytes)) = kept {
        header.check_crc(&bytes).expect("what is rewritten is sound");
        assert_eq!(header.records_count, at / 2);
    }
}

/// A block of one codec: never more than the limit comes out, and what goes in comes back.
pub fn codec(codec: Codec, data: &[u8]) {
    if let Ok(opened) = decompress(codec, data, DECOMPRESSED_MAX) {
        assert!(opened.len() <= DECOMPRESSED_MAX);
    }
    let packed = compress(codec, data).expect("anything can be compressed");
    assert_eq!(decompress(codec, &packed, data.len()).expect("our own"), data);
}

/// Opens a log in which one file was damaged, as after a clean stop and as after a crash: its records are those that were written.
pub fn log_file(kind: Damaged, data: &[u8]) {
    let (files, (path, _)) = (whole(), sound(kind));
    let mut bytes = data.to_vec();
    if kind == Damaged::Snapshot && bytes.len() > 6 && bytes[0] & 1 == 0 {
        // With the right version and checksum, so that its entries are looked at.
        bytes[..2].copy_from_slice(&1_i16.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[6..]);
        bytes[2..6].copy_from_slice(&crc.to_be_bytes());
    }
    for how in [Recovery::Clean, Recovery::From(Offset(0)), Recovery::From(Offset(RECORDS / 2))] {
        let disk = disk_with(files, path, &bytes);
        let open_files = OpenFiles::new(disk, 4);
        let (log, _) = Log::open(&open_files, &log_path(), config(), how, NOW).expect("no damage to such a file keeps a log shut");
        assert_eq!(log.log_end(), Offset(RECORDS));
        read_all(&log);
        for at in [0, 1, RECORDS / 2, RECORDS - 1] {
            let found = log.reader().find_by_time(NOW + at).expect("a search");
            let found = found.expect("there is one");
            assert!(found.timestamp_ms >= NOW + at);
            assert_eq!(found.timestamp_ms, NOW + found.offset.0);
            if how == Recovery::From(Offset(0)) || kind == Damaged::Index {
                assert_eq!(found.offset, Offset(at));
            }
        }
    }
}

/// The file that a target damages.
fn sound(kind: Damaged) -> &'static (PathBuf, Vec<u8>) {
    let suffix = match kind {
        Damaged::Index => ".index",
        Damaged::TimeIndex => ".timeindex",
        Damaged::Snapshot => ".snapshot",
    };
    let mut of_kind = whole().iter().filter(|(path, _)| path.to_string_lossy().ends_with(suffix));
    // The first segment is sealed; the last snapshot is the one that counts.
    let found = if kind == Damaged::Snapshot { of_kind.last() } else { of_kind.next() };
    found.expect("the log has such a file")
}

/// The same file's bytes before.
pub fn sound_file(kind: Damaged) -> &'static [u8] {
    &sound(kind).1
}

/// The same of [`checkpoint`]; none where a sound directory has no such file.
pub fn sound_checkpoint(choice: u8) -> Option<&'static [u8]> {
    let path = Path::new(DATA).join(CHECKPOINTS[usize::from(choice) % CHECKPOINTS.len()]);
    whole().iter().find(|(of, _)| *of == path).map(|(_, bytes)| &bytes[..])
}

/// Opens a data directory in which one checkpoint was damaged; the first byte chooses which.
pub fn checkpoint(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else { return };
    let name = CHECKPOINTS[usize::from(*choice) % CHECKPOINTS.len()];
    let disk = disk_with(whole(), &Path::new(DATA).join(name), text);
    let directory = LogDirectory::open(disk.clone(), &SystemEntropy, Path::new(DATA), NodeId(1), None).expect("the directory opens");
    let how = directory.recovery(&partition());
    let (log, _) = Log::open(&OpenFiles::new(disk, 4), &log_path(), config(), how, NOW).expect("the log opens");
    assert_eq!(log.log_end(), Offset(RECORDS));
    read_all(&log);
}

/// Opens a data directory that was not closed, with a commit journal of these bytes. With the right checksum, so that its entries are looked at: they
/// are appended, or end the log, and harm nothing that it has.
pub fn journal(data: &[u8]) {
    let mut bytes = data.to_vec();
    if let Some(length) = bytes.len().checked_sub(16) {
        bytes[12..16].copy_from_slice(&(length as u32).to_be_bytes());
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_be_bytes());
    }
    let disk = disk_with(whole(), &Path::new(DATA).join("commit-journal.1"), &bytes);
    let directory = LogDirectory::open(disk.clone(), &SystemEntropy, Path::new(DATA), NodeId(1), None).expect("the directory opens");
    let (mut log, mut report) = Log::open(&OpenFiles::new(disk, 4), &log_path(), config(), Recovery::From(Offset(0)), NOW).expect("the log opens");
    let stored = directory.committed_to(&partition(), topic_id());
    let _ = stored.iter().try_for_each(|batches| log.restore(batches, &mut report, NOW));
    assert!(log.log_end() >= Offset(RECORDS) && report.missing_records >= 0);
    read_all(&log);
}

/// A commit journal as it is written, with batches that the log of the others does not have.
pub fn sound_journal() -> Vec<u8> {
    let disk = disk_with(whole(), &Path::new(DATA).join("none"), b"");
    let directory = LogDirectory::open(disk.clone(), &SystemEntropy, Path::new(DATA), NodeId(1), None).expect("the directory opens");
    let (mut log, _) = Log::open(&OpenFiles::new(disk.clone(), 4), &log_path(), config(), Recovery::Clean, NOW).expect("the log opens");
    for sent in [BatchBuilder::new().record(NewRecord::value(b"new")), BatchBuilder::new().producer(PRODUCER, 1, 0).record(NewRecord::value(b"newer"))] {
        let checked = check(&sent.build(NOW), &rules(KeyRule::Optional, Look::Full)).expect("a good batch");
        log.append(checked, Origin::Client, LeaderEpoch(9), NOW).expect("an append");
    }
    let batches = log.uncommitted().expect("it reads").expect("something is uncommitted");
    let entries = [JournalEntry { topic_id: topic_id(), partition: 0, batches }];
    let room = directory.journal().reserve(&entries).expect("a file").expect("room");
    assert_eq!(room.commit().expect("a commit"), Committed::Durable);
    let mut bytes = disk.read(&Path::new(DATA).join("commit-journal.1")).expect("the file");
    // Without what fills its last block.
    bytes.truncate(16 + u32::from_be_bytes(bytes[12..16].try_into().expect("four bytes")) as usize);
    bytes
}

fn topic_id() -> Uuid {
    Uuid::from_random([7; 16])
}

fn partition() -> TopicPartition {
    TopicPartition::new("p", 0)
}

fn log_path() -> PathBuf {
    Path::new(DATA).join("p-0")
}

fn config() -> LogConfig {
    log_config(800, 100)
}

/// Reads each record by its offset.
fn read_all(log: &Log) {
    for at in log.log_start().0..RECORDS {
        let slice = log.reader().read(Offset(at), log.log_end(), 1, FirstBatch::Whole).expect("a read").expect("something");
        let bytes = slice.check().expect("the segments are sound").read().expect("bytes");
        let (header, batch) = batches(&bytes).next().expect("a batch").expect("a whole one");
        header.check_crc(batch).expect("a sound one");
        assert_eq!((header.base_offset, header.max_timestamp), (Offset(at), NOW + at));
    }
}

/// The files of a data directory that was closed, with one log of several segments.
fn whole() -> &'static [(PathBuf, Vec<u8>)] {
    static FILES: OnceLock<Vec<(PathBuf, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(Arc::new(ManualClock::at(NOW))));
        let root = Path::new(DATA);
        let directory = LogDirectory::open(disk.clone(), &SystemEntropy, root, NodeId(1), Some("fuzz")).expect("a directory");
        directory.create_partition(&partition(), topic_id()).expect("a partition");
        let (mut log, _) = Log::open(&OpenFiles::new(disk.clone(), 4), &log_path(), config(), Recovery::New, NOW).expect("a log");
        for at in 0..RECORDS {
            let record = NewRecord { timestamp_ms: Some(NOW + at), ..NewRecord::value(&[7; 20]) };
            let sent = BatchBuilder::new().producer(PRODUCER, 0, at as i32).record(record).build(NOW);
            let checked = check(&sent, &rules(KeyRule::Optional, Look::Full)).expect("a good batch");
            log.append(checked, Origin::Client, LeaderEpoch(at as i32 / 8), NOW).expect("an append");
        }
        log.close().expect("it closes");
        directory.save_recovery_points(|| vec![(partition(), log.log_end())]).expect("a checkpoint");
        directory.mark_clean().expect("a marker");
        let names = |path: &Path| disk.list(path).expect("a list").into_iter().map(|name| path.join(name)).collect::<Vec<_>>();
        let paths = names(root).into_iter().chain(names(&log_path())).filter(|path| !disk.is_dir(path));
        paths.map(|path| (path.clone(), disk.read(&path).expect("a file"))).collect()
    })
}

/// The files with other bytes in one of them.
fn disk_with(files: &[(PathBuf, Vec<u8>)], damaged: &Path, bytes: &[u8]) -> Arc<dyn Disk> {
    let disk = MemoryDisk::new(Arc::new(ManualClock::at(NOW)));
    disk.create_dir(&log_path()).expect("a directory");
    for (path, whole) in files.iter().filter(|(path, _)| path != damaged) {
        disk.write(path, whole).expect("a file");
    }
    disk.write(damaged, bytes).expect("a file");
    Arc::new(disk)
}
