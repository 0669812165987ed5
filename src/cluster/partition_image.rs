//! The state of a partition: its replicas, its leader, and its epochs.

use super::MetadataRecord;
use crate::model::Uuid;
use crate::protocol::generated::cluster_metadata::{PartitionChangeRecord, PartitionRecord};

/// A leader in a [`PartitionChangeRecord`] that means that leader and leader epoch do not change.
pub(super) const SAME_LEADER: i32 = -2;
/// A recovery state in a [`PartitionChangeRecord`] that means that it does not change.
const SAME_RECOVERY_STATE: i8 = -1;
/// The directory of a replica whose broker has not reported it (KIP-858).
pub(super) const UNASSIGNED_DIRECTORY: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// A partition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PartitionImage {
    /// The broker that leads it; -1 if it has no leader.
    pub leader: i32,
    /// Increases whenever a leader starts, even if the same broker led before.
    pub leader_epoch: i32,
    /// Increases with every change.
    pub partition_epoch: i32,
    /// 1 while a leader that was elected uncleanly recovers, else 0.
    pub leader_recovery_state: i8,
    /// The brokers that store it, the preferred leader first.
    pub replicas: Vec<i32>,
    /// The in-sync replicas.
    pub isr: Vec<i32>,
    /// Eligible leader replicas: not in sync, but with every committed record (KIP-966).
    pub elr: Vec<i32>,
    /// The last known members of an ELR that had an unclean shutdown (KIP-966).
    pub last_known_elr: Vec<i32>,
    /// Replicas that a reassignment adds.
    pub adding: Vec<i32>,
    /// Replicas that a reassignment removes.
    pub removing: Vec<i32>,
    /// The log directory of each replica, in the order of the replicas; empty if the log does not contain them.
    pub directories: Vec<Uuid>,
}

impl PartitionImage {
    /// A new partition: its first replica leads, and all are in sync.
    pub(super) fn new(replicas: &[i32]) -> PartitionImage {
        PartitionImage {
            leader: replicas.first().copied().unwrap_or(-1),
            replicas: replicas.to_vec(),
            isr: replicas.to_vec(),
            directories: vec![UNASSIGNED_DIRECTORY; replicas.len()],
            ..PartitionImage::default()
        }
    }

    /// The partition of a record.
    pub(super) fn of(record: &PartitionRecord) -> PartitionImage {
        PartitionImage {
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            leader_recovery_state: record.leader_recovery_state,
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
            elr: record.eligible_leader_replicas.clone().unwrap_or_default(),
            last_known_elr: record.last_known_elr.clone().unwrap_or_default(),
            adding: record.adding_replicas.clone(),
            removing: record.removing_replicas.clone(),
            directories: record.directories.clone(),
        }
    }

    /// The record that creates partition `number` of a topic.
    pub(super) fn to_record(&self, topic_id: Uuid, number: i32) -> MetadataRecord {
        let unless_empty = |list: &Vec<i32>| (!list.is_empty()).then(|| list.clone());
        MetadataRecord::Partition(PartitionRecord {
            partition_id: number,
            topic_id,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            removing_replicas: self.removing.clone(),
            adding_replicas: self.adding.clone(),
            leader: self.leader,
            leader_recovery_state: self.leader_recovery_state,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            directories: self.directories.clone(),
            eligible_leader_replicas: unless_empty(&self.elr),
            last_known_elr: unless_empty(&self.last_known_elr),
        })
    }

    /// The record with which `leader` becomes leader, or leader again.
    pub(super) fn leader_record(topic_id: Uuid, number: i32, leader: i32) -> MetadataRecord {
        MetadataRecord::PartitionChange(PartitionChangeRecord { partition_id: number, topic_id, leader, ..Default::default() })
    }

    /// The partition after a change. If the change has a leader, a new leader epoch starts, even if the same broker led before.
    pub(super) fn changed(&self, change: &PartitionChangeRecord) -> PartitionImage {
        let list = |new: &Option<Vec<i32>>, now: &Vec<i32>| new.as_ref().unwrap_or(now).clone();
        let begins = change.leader != SAME_LEADER;
        let recovers = change.leader_recovery_state != SAME_RECOVERY_STATE;
        PartitionImage {
            leader: if begins { change.leader } else { self.leader },
            leader_epoch: self.leader_epoch + i32::from(begins),
            partition_epoch: self.partition_epoch + 1,
            leader_recovery_state: if recovers { change.leader_recovery_state } else { self.leader_recovery_state },
            replicas: list(&change.replicas, &self.replicas),
            isr: list(&change.isr, &self.isr),
            elr: list(&change.eligible_leader_replicas, &self.elr),
            last_known_elr: list(&change.last_known_elr, &self.last_known_elr),
            adding: list(&change.adding_replicas, &self.adding),
            removing: list(&change.removing_replicas, &self.removing),
            directories: self.directories_of(change),
        }
    }

    /// The directories in the change, if it has any; otherwise each replica keeps its own.
    fn directories_of(&self, change: &PartitionChangeRecord) -> Vec<Uuid> {
        let Some(replicas) = change.replicas.as_ref().filter(|_| change.directories.is_none() && !self.directories.is_empty()) else {
            return change.directories.as_ref().unwrap_or(&self.directories).clone();
        };
        let known = |id: &i32| self.replicas.iter().position(|known| known == id).and_then(|at| self.directories.get(at));
        replicas.iter().map(|id| known(id).copied().unwrap_or(UNASSIGNED_DIRECTORY)).collect()
    }

    /// Clears the eligible leader replicas.
    pub(super) fn clear_elr(&mut self) {
        if !(self.elr.is_empty() && self.last_known_elr.is_empty()) {
            (self.elr, self.last_known_elr) = (Vec::new(), Vec::new());
            self.partition_epoch += 1;
        }
    }

    /// Asserts what is true of every partition.
    pub(super) fn check(&self, topic: &str, number: i32) {
        let PartitionImage { leader, replicas, isr, elr, .. } = self;
        let within = |list: &[i32]| list.iter().all(|id| replicas.contains(id));
        assert!(*leader == -1 || replicas.contains(leader), "{topic}-{number}: the leader {leader} is none of the replicas {replicas:?}");
        assert!(*leader == -1 || isr.contains(leader), "{topic}-{number}: the leader {leader} is not in sync: {isr:?}");
        assert!(within(isr), "{topic}-{number}: in sync are {isr:?}, the replicas are {replicas:?}");
        assert!(within(elr), "{topic}-{number}: eligible to lead are {elr:?}, the replicas are {replicas:?}");
        assert!(!elr.iter().any(|id| isr.contains(id)), "{topic}-{number}: both in sync {isr:?} and eligible to lead {elr:?}");
        assert!(
            within(&self.adding) && within(&self.removing),
            "{topic}-{number}: a reassignment adds {:?} and removes {:?}, the replicas are {replicas:?}",
            self.adding,
            self.removing
        );
        let (directories, count) = (self.directories.len(), replicas.len());
        assert!(directories == 0 || directories == count, "{topic}-{number}: {directories} directories for {count} replicas");
    }

    /// Asserts that epochs never decrease and that one epoch never has two leaders.
    pub(super) fn check_epochs(&self, before: &PartitionImage, topic: &str, number: i32) {
        assert!(
            self.leader_epoch >= before.leader_epoch && self.partition_epoch >= before.partition_epoch,
            "{topic}-{number}: leader epoch and partition epoch fell from {} and {} to {} and {}",
            before.leader_epoch,
            before.partition_epoch,
            self.leader_epoch,
            self.partition_epoch
        );
        assert!(
            self.leader == before.leader || self.leader_epoch > before.leader_epoch,
            "{topic}-{number}: {} and {} both lead in epoch {}",
            before.leader,
            self.leader,
            self.leader_epoch
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> PartitionImage {
        PartitionImage { leader_epoch: 4, partition_epoch: 9, ..PartitionImage::new(&[1, 2, 3]) }
    }

    fn change() -> PartitionChangeRecord {
        PartitionChangeRecord::default()
    }

    #[test]
    fn a_leader_that_is_named_begins_an_epoch_and_other_changes_do_not() {
        let cases = [
            (change(), (1, 4)),
            (PartitionChangeRecord { leader: 1, ..change() }, (1, 5)),
            (PartitionChangeRecord { leader: 2, ..change() }, (2, 5)),
            (PartitionChangeRecord { leader: -1, ..change() }, (-1, 5)),
            (PartitionChangeRecord { isr: Some(vec![1]), ..change() }, (1, 4)),
        ];
        for (change, expected) in cases {
            let changed = partition().changed(&change);
            assert_eq!((changed.leader, changed.leader_epoch, changed.partition_epoch), (expected.0, expected.1, 10), "{change:?}");
        }
    }

    #[test]
    fn replicas_keep_their_directories() {
        let (a, b, c) = (Uuid([1; 16]), Uuid([2; 16]), Uuid([3; 16]));
        let partition = PartitionImage { directories: vec![a, b, c], ..partition() };
        let moved = PartitionChangeRecord { replicas: Some(vec![3, 1, 4]), isr: Some(vec![1]), ..change() };
        assert_eq!(partition.changed(&moved).directories, [c, a, UNASSIGNED_DIRECTORY]);
        let listed = PartitionChangeRecord { directories: Some(vec![b; 3]), ..moved };
        assert_eq!(partition.changed(&listed).directories, [b; 3]);
        assert_eq!(partition.changed(&change()).directories, [a, b, c]);
    }

    #[test]
    fn what_cannot_be_is_not_applied() {
        let broken = [
            PartitionChangeRecord { leader: 7, ..change() },
            PartitionChangeRecord { isr: Some(vec![2]), ..change() },
            PartitionChangeRecord { isr: Some(vec![1, 7]), ..change() },
            PartitionChangeRecord { eligible_leader_replicas: Some(vec![2]), ..change() },
            PartitionChangeRecord { isr: Some(vec![1]), eligible_leader_replicas: Some(vec![7]), ..change() },
            PartitionChangeRecord { adding_replicas: Some(vec![7]), ..change() },
            PartitionChangeRecord { removing_replicas: Some(vec![7]), ..change() },
            PartitionChangeRecord { directories: Some(vec![Uuid::ZERO]), ..change() },
        ];
        for change in broken {
            let changed = partition().changed(&change);
            assert!(std::panic::catch_unwind(|| changed.check("t", 0)).is_err(), "{change:?}");
        }
        partition().check("t", 0);
        let older = PartitionImage { leader_epoch: 3, ..partition() };
        let older_partition = PartitionImage { partition_epoch: 8, ..partition() };
        let second_leader = PartitionImage { leader: 2, ..partition() };
        for next in [older, older_partition, second_leader] {
            assert!(std::panic::catch_unwind(|| next.check_epochs(&partition(), "t", 0)).is_err(), "{next:?}");
        }
    }

    #[test]
    fn a_partition_comes_back_from_its_record() {
        let partition = PartitionImage {
            leader: 1,
            leader_epoch: 4,
            partition_epoch: 9,
            leader_recovery_state: 1,
            replicas: vec![1, 2, 3, 4, 5],
            isr: vec![1],
            elr: vec![2],
            last_known_elr: vec![3],
            adding: vec![4],
            removing: vec![5],
            directories: vec![Uuid([1; 16]); 5],
        };
        let record = MetadataRecord::decode(partition.to_record(Uuid([7; 16]), 6).encode()).unwrap();
        let MetadataRecord::Partition(record) = record else { panic!("{record:?}") };
        assert_eq!((PartitionImage::of(&record), record.partition_id, record.topic_id), (partition, 6, Uuid([7; 16])));
    }
}
