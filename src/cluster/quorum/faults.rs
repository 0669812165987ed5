//! The metadata log on disks that are full, that fail, and that lose power; and a store that is not alone.

use std::path::Path;
use std::sync::Arc;

use openraft::entry::RaftEntry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::entry::{Note, Payload, Placed, VotersNote};
use super::{LogEntry, LogFile, Membership, QuorumLog, StoredMembership, Vote, log_id};
use crate::cluster::batches::{Content, content, note_batch};
use crate::cluster::{Committed, CommittedStream, Error, MetadataLog, MetadataRecord, NotCommitted, Proposal, Snapshot};
use crate::env::{Crash, Cut, Disk, Env, FailStop, MemoryDisk, Tasks, Workers};
use crate::model::{LeaderEpoch, NodeId, Offset};

const NODE: u64 = 1;

fn env(disk: &MemoryDisk) -> Env {
    Env { disk: Arc::new(disk.clone()), workers: Workers::inline(), ..Env::real() }
}

/// A disk with an empty log directory.
fn disk() -> MemoryDisk {
    let disk = MemoryDisk::new(Env::real().clock);
    disk.create_dir(path()).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn path() -> &'static Path {
    Path::new("/data")
}

fn no_ops(count: usize) -> Vec<MetadataRecord> {
    vec![MetadataRecord::NoOp(Default::default()); count]
}

async fn open(disk: &MemoryDisk) -> Result<(QuorumLog, CommittedStream), Error> {
    let tasks = Tasks::new(FailStop::new(CancellationToken::new()));
    QuorumLog::open(&env(disk), tasks, path(), NodeId(NODE as i32)).await
}

/// The offsets and epochs of all that was delivered.
fn delivered(stream: &mut CommittedStream) -> Vec<(i32, i64)> {
    std::iter::from_fn(|| stream.try_recv().ok())
        .map(|committed| match committed {
            Committed::Snapshot(snapshot) => (snapshot.epoch, snapshot.end - 1),
            Committed::Entry(entry) => (entry.epoch, entry.offset),
            Committed::LeaderChange(change) => (change.epoch, change.offset),
        })
        .collect()
}

fn proposal(epoch: i32, offset: i64) -> Proposal {
    Proposal { epoch, offset, records: no_ops(1) }
}

#[tokio::test]
async fn a_full_disk_refuses_a_proposal_and_nothing_else() {
    let disk = disk();
    let (log, mut stream) = open(&disk).await.unwrap();
    disk.set_capacity(Some(0));
    let refused = log.propose(proposal(1, 1)).await;
    assert!(matches!(&refused, Err(NotCommitted::Refused(Error::Storage(_)))), "{refused:?}");
    disk.set_capacity(None);
    assert_eq!(log.propose(proposal(1, 1)).await, Ok(1), "once there is space again");
    assert_eq!(delivered(&mut stream), [(1, 0), (1, 1)]);
}

#[tokio::test]
async fn a_failed_fsync_leaves_the_outcome_unknown_and_takes_the_log_offline() {
    let disk = disk();
    let (log, mut stream) = open(&disk).await.unwrap();
    assert_eq!(log.propose(proposal(1, 1)).await, Ok(1));
    disk.set_syncs_fail(true);
    let unknown = log.propose(proposal(1, 2)).await;
    assert!(matches!(unknown, Err(NotCommitted::Unknown(_))), "{unknown:?}");
    disk.set_syncs_fail(false);
    // A later fsync can succeed although the pages of the failed one are lost.
    let offline = log.propose(proposal(1, 2)).await;
    assert!(matches!(&offline, Err(NotCommitted::Refused(Error::Storage(what))) if what.contains("offline")), "{offline:?}");
    assert_eq!(delivered(&mut stream), [(1, 0), (1, 1)]);
    assert_eq!(stream.try_recv(), Err(mpsc::error::TryRecvError::Empty), "the stream is still open");
}

#[tokio::test]
async fn a_proposal_that_was_not_appended_is_refused_only_if_it_could_be_removed() {
    let disk = disk();
    let (log, _stream) = open(&disk).await.unwrap();
    log.close().await.unwrap();
    let refused = log.propose(proposal(1, 1)).await;
    assert!(matches!(refused, Err(NotCommitted::Refused(_))), "{refused:?}");
    disk.set_syncs_fail(true);
    // Its batch may still be in the file, where the next start commits it.
    let unknown = log.propose(proposal(1, 1)).await;
    assert!(matches!(unknown, Err(NotCommitted::Unknown(_))), "{unknown:?}");
}

/// A start, two proposals, a snapshot, a proposal; stopped at each operation of the disk.
#[tokio::test]
async fn at_each_operation_a_power_cut_loses_nothing_that_was_committed_and_no_epoch_comes_twice() {
    async fn run(disk: &MemoryDisk) -> (Vec<i32>, i64) {
        let (mut epochs, mut committed) = (Vec::new(), -1);
        for start in 0..2 {
            let Ok((log, _stream)) = open(disk).await else { break };
            let epoch = log.leadership().borrow().epoch;
            epochs.push(epoch);
            let mut offset = log.view().state().log_end;
            for _ in 0..2 {
                let Ok(last) = log.propose(Proposal { epoch, offset, records: no_ops(2) }).await else { break };
                (committed, offset) = (last, last + 1);
            }
            if start == 0 {
                let _ = log.snapshot(Snapshot { end: offset, epoch, records: no_ops(1), removed: Vec::new() }).await;
            }
            let _ = log.close().await;
        }
        (epochs, committed)
    }
    let whole = disk();
    assert_eq!(run(&whole).await.0, [1, 2]);
    let operations = whole.operations();
    assert!(operations > 30, "{operations}");
    for at in 0..operations {
        let cut = disk();
        cut.cut_at(Cut { operation: at, torn: None });
        let (epochs, committed) = run(&cut).await;
        for crash in [Crash::Process, Crash::Power, Crash::PowerPartly(at)] {
            let (log, mut stream) = open(&cut.after(crash)).await.unwrap();
            let (epoch, end) = (log.leadership().borrow().epoch, log.view().state().log_end);
            assert!(epochs.iter().all(|used| *used < epoch), "cut at {at}, {crash:?}: epoch {epoch} after {epochs:?}");
            assert!(end > committed + 1, "cut at {at}, {crash:?}: the log ends at {end}, and {committed} was committed");
            let offsets = delivered(&mut stream);
            assert!(offsets.is_sorted(), "cut at {at}, {crash:?}: {offsets:?}");
            assert_eq!(offsets.last(), Some(&(epoch, end - 1)), "cut at {at}, {crash:?}: the new leader's entry comes last");
        }
    }
}

fn file(disk: &MemoryDisk) -> (LogFile, CommittedStream) {
    let (deliver, stream) = mpsc::unbounded_channel();
    (LogFile::open(&env(disk), path(), &deliver).unwrap(), stream)
}

fn records(epoch: i32, index: u64, count: usize) -> LogEntry {
    LogEntry { id: log_id(epoch, index), time_ms: Some(5), payload: Payload::Records(no_ops(count)) }
}

#[test]
fn what_is_staged_is_no_entry_until_it_is_appended() {
    let disk = disk();
    let (mut file, _) = file(&disk);
    file.save_vote(NODE, &Vote::new_committed(3, NODE)).unwrap();
    file.append(NODE, vec![LogEntry::new_blank(log_id(3, 0))]).unwrap();
    let staged = file.stage(&proposal(3, 1)).unwrap();
    assert_eq!(file.state().1, Some(log_id(3, 0)));
    assert_eq!(file.read(0, 9).unwrap().len(), 1);
    assert!(matches!(file.stage(&proposal(3, 1)), Err(NotCommitted::Refused(Error::NotController))), "one is staged");
    // Another leader's entry takes the place, and then the proposal has none.
    file.append(NODE, vec![records(4, 1, 2)]).unwrap();
    assert!(!file.unstage(staged).unwrap());
    let late = LogEntry { id: log_id(5, 2), time_ms: None, payload: Payload::Staged(staged) };
    file.append(NODE, vec![late]).unwrap();
    let read = file.read(0, 9).unwrap();
    assert_eq!(read[0].payload, Payload::LeaderChange(Some(NODE as i32)));
    assert_eq!((&read[1].payload, read[1].time_ms), (&Payload::Records(no_ops(2)), Some(5)));
    assert_eq!((&read[2].payload, file.end()), (&Payload::Refused, 4));
}

#[test]
fn a_proposal_is_staged_in_the_epoch_of_the_vote_only() {
    let disk = disk();
    let (mut file, _) = file(&disk);
    file.save_vote(NODE, &Vote::new_committed(3, NODE)).unwrap();
    file.append(NODE, vec![LogEntry::new_blank(log_id(3, 0))]).unwrap();
    for (epoch, offset) in [(2, 1), (4, 1), (3, 0), (3, 2)] {
        let refused = file.stage(&proposal(epoch, offset));
        assert_eq!(refused, Err(NotCommitted::Refused(Error::NotController)), "epoch {epoch}, offset {offset}");
    }
    let staged = file.stage(&proposal(3, 1)).unwrap();
    assert_eq!((staged, file.unstage(staged), file.unstage(staged)), (Placed { epoch: 3, offset: 1 }, Ok(true), Ok(false)));
    assert_eq!(file.end(), 1);
}

#[test]
fn a_truncated_entry_is_gone_and_another_takes_its_index_and_its_offset() {
    let disk = disk();
    let (mut file, _) = self::file(&disk);
    file.append(NODE, vec![LogEntry::new_blank(log_id(1, 0)), records(1, 1, 2), records(1, 2, 1)]).unwrap();
    file.truncate(1).unwrap();
    assert_eq!((file.state().1, file.end()), (Some(log_id(1, 0)), 1));
    file.append(NODE, vec![records(2, 1, 5)]).unwrap();
    drop(file);
    let (file, mut stream) = self::file(&disk.after(Crash::Power));
    assert_eq!((file.state().1, file.end()), (Some(log_id(2, 1)), 6));
    assert_eq!(delivered(&mut stream), [(1, 0), (2, 1)]);
}

#[test]
fn the_snapshot_of_another_node_replaces_a_log_that_is_behind() {
    let membership = Membership::new(vec![[1, 2, 3].into()], ());
    let voters = LogEntry::new_membership(log_id(1, 1), membership.clone());
    let (ours, theirs) = (disk(), disk());
    let (mut leader, _) = file(&theirs);
    leader.append(2, vec![records(1, 0, 3), voters, records(1, 2, 7)]).unwrap();
    leader.progress().get().voters.push(StoredMembership::new(Some(log_id(1, 1)), membership.clone()));
    leader.write_snapshot(&Snapshot { end: 11, epoch: 1, records: no_ops(4), removed: Vec::new() }).unwrap();
    let (meta, snapshot) = leader.newest().unwrap().unwrap();
    let (mut follower, _) = file(&ours);
    follower.append(NODE, vec![records(1, 0, 3)]).unwrap();
    assert_eq!(follower.install(&meta, &snapshot).unwrap().records, no_ops(4));
    // A crash before the log is purged changes nothing.
    let (crashed, mut stream) = file(&ours.after(Crash::Power));
    assert_eq!((crashed.state(), crashed.end()), ((Some(log_id(1, 2)), Some(log_id(1, 2))), 11));
    assert_eq!(delivered(&mut stream), [(1, 10)]);
    follower.purge(log_id(1, 2)).unwrap();
    follower.append(NODE, vec![records(2, 3, 1)]).unwrap();
    drop(follower);
    let (follower, mut stream) = file(&ours.after(Crash::Power));
    assert_eq!((follower.state(), follower.end()), ((Some(log_id(1, 2)), Some(log_id(2, 3))), 12));
    assert_eq!(follower.progress().voters(), StoredMembership::new(Some(log_id(1, 1)), membership));
    assert_eq!(delivered(&mut stream), [(1, 10), (2, 11)]);
}

#[tokio::test]
async fn a_quorum_of_several_nodes_is_not_opened_by_one_that_would_lead_it_alone() {
    let disk = disk();
    let voters = LogEntry::new_membership(log_id(1, 0), Membership::new(vec![[1, 2, 3].into()], ()));
    let (deliver, _stream) = mpsc::unbounded_channel();
    let mut file = LogFile::open(&env(&disk), &path().join("__cluster_metadata-0"), &deliver).unwrap();
    file.append(NODE, vec![voters]).unwrap();
    drop(file);
    let refused = open(&disk).await.err().unwrap().to_string();
    assert!(refused.contains("belongs to a quorum of the nodes [1, 2, 3], and this is node 1"), "{refused}");
}

#[test]
fn votes_survive_except_that_an_own_election_is_never_continued() {
    let disk = disk();
    let (mut file, _) = file(&disk);
    assert_eq!(file.vote(NODE), None);
    for (vote, stored) in [
        (Vote::new(1, NODE), Vote::new(1, NODE)),
        (Vote::new_committed(1, NODE), Vote::new(1, NODE)),
        (Vote::new(2, 7), Vote::new(2, 7)),
        (Vote::new_committed(2, 7), Vote::new_committed(2, 7)),
    ] {
        file.save_vote(NODE, &vote).unwrap();
        assert_eq!(self::file(&disk.after(Crash::Power)).0.vote(NODE), Some(stored), "{vote}");
    }
    let state = path().join("quorum-state");
    disk.replace(&state, b"{\"leaderId\":").unwrap();
    let damaged = LogFile::open(&env(&disk), path(), &mpsc::unbounded_channel().0).err().unwrap().to_string();
    assert!(damaged.contains("quorum-state is damaged"), "{damaged}");
}

#[test]
fn a_note_is_a_no_op_record_to_kafka() {
    let membership = Membership::new(vec![[1, 2].into(), [2, 3].into()], ());
    let voters = VotersNote::of(&membership);
    assert_eq!(voters.membership(), membership);
    for note in [Note::Refused, Note::Voters(voters.clone()), Note::Snapshot { index: 7, voters: Some((5, 2, voters)) }] {
        let mut batch = note_batch(&note, 5);
        let bytes = [&batch.place(Offset(3), LeaderEpoch(1))[..], batch.body()].concat();
        let (header, bytes) = crate::records::batches(&bytes).next().unwrap().unwrap();
        let Content::Note(read) = content(&header, bytes).unwrap() else { panic!("{note:?} is not read") };
        assert_eq!((read, header.records_count), (note, 1));
        let record = crate::records::Records::new(&bytes[crate::records::layout::SIZE..], 1).next().unwrap().unwrap();
        let value = bytes::Bytes::copy_from_slice(record.value.unwrap());
        assert_eq!(MetadataRecord::decode(value), Ok(MetadataRecord::NoOp(Default::default())));
    }
}
