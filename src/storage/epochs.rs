//! The start offset of each leader epoch in a log (KIP-101).

use std::path::{Path, PathBuf};

use super::{Error, checkpoint};
use crate::env::Disk;
use crate::model::{LeaderEpoch, Offset};

/// The name of the checkpoint file.
const FILE: &str = "leader-epoch-checkpoint";

/// The path of the checkpoint in a partition's directory.
pub(super) fn epochs_path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// Kafka's number for an unknown epoch. Other negative numbers are treated as epochs below all known ones.
const UNDEFINED: i32 = -1;

/// Epochs with their start offsets, both ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaderEpochs(Vec<(LeaderEpoch, Offset)>);

impl LeaderEpochs {
    /// Reads the checkpoint of a partition's directory.
    pub(super) fn load(disk: &dyn Disk, directory: &Path) -> Self {
        let mut epochs = LeaderEpochs::default();
        for line in checkpoint::read(disk, &epochs_path(directory)) {
            if let Some((epoch, start)) = line.split_once(' ').and_then(|(e, s)| Some((e.parse().ok()?, s.parse().ok()?))) {
                epochs.note(LeaderEpoch(epoch), Offset(start));
            }
        }
        epochs
    }

    /// Writes the checkpoint.
    pub(super) fn save(&self, disk: &dyn Disk, directory: &Path) -> Result<(), Error> {
        let lines: Vec<String> = self.0.iter().map(|(epoch, start)| format!("{epoch} {start}")).collect();
        checkpoint::write(disk, &epochs_path(directory), &lines)
    }

    /// Notes that a batch of `epoch` is at `offset`; only a newer epoch changes anything.
    pub fn note(&mut self, epoch: LeaderEpoch, offset: Offset) {
        if epoch.0 >= 0 && self.0.last().is_none_or(|(last, start)| *last < epoch && *start <= offset) {
            // An epoch in which nothing was written is removed, because the new epoch begins at the same offset.
            self.0.retain(|(_, start)| *start < offset);
            let last = self.0.last().copied();
            assert!(last.is_none_or(|last| last < (epoch, offset)), "epoch {epoch} from {offset} on follows {last:?}");
            self.0.push((epoch, offset));
        }
    }

    /// Removes the epochs that begin at or after the end of a truncated log.
    pub(super) fn truncate_end(&mut self, log_end: Offset) {
        self.0.retain(|(_, start)| *start < log_end);
    }

    /// Removes the epochs that end at or before the log start.
    pub(super) fn truncate_start(&mut self, log_start: Offset) {
        let first_kept = self.0.partition_point(|(_, start)| *start <= log_start).saturating_sub(1);
        self.0.drain(..first_kept);
        if let Some(first) = self.0.first_mut() {
            first.1 = first.1.max(log_start);
        }
    }

    /// The newest epoch.
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.0.last().map(|(epoch, _)| *epoch)
    }

    /// The result of OffsetForLeaderEpoch: the largest known epoch that is not above `epoch`, and the start offset of the next one.
    /// `current` is the leader's own epoch, which ends at `log_end`. None if no such epoch is known.
    pub fn end_offset(&self, epoch: LeaderEpoch, current: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        if epoch == current {
            return Some((epoch, log_end));
        }
        if epoch.0 == UNDEFINED || epoch > current || self.0.is_empty() {
            return None;
        }
        let next = self.0.partition_point(|(known, _)| *known <= epoch);
        let end = self.0.get(next).map_or(log_end, |(_, start)| *start);
        let known = next.checked_sub(1).and_then(|at| self.0.get(at)).map_or(epoch, |(known, _)| *known);
        Some((known, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for (epoch, start) in [(1, 0), (3, 10), (4, 20)] {
            epochs.note(LeaderEpoch(epoch), Offset(start));
        }
        epochs
    }

    #[test]
    fn end_offsets_are_kafkas() {
        let end = |epoch| three().end_offset(LeaderEpoch(epoch), LeaderEpoch(6), Offset(30)).map(|(e, o)| (e.0, o.0));
        assert_eq!(end(0), Some((0, 0)));
        assert_eq!(end(1), Some((1, 10)));
        assert_eq!(end(2), Some((1, 10)));
        assert_eq!(end(3), Some((3, 20)));
        assert_eq!(end(4), Some((4, 30)));
        assert_eq!(end(6), Some((6, 30)));
        assert_eq!(end(7), None);
        assert_eq!(end(-1), None);
        assert_eq!(end(-5), Some((-5, 0)));
    }

    #[test]
    fn an_epoch_that_wrote_nothing_is_replaced() {
        let mut epochs = three();
        epochs.note(LeaderEpoch(5), Offset(20));
        assert_eq!(epochs.0.last(), Some(&(LeaderEpoch(5), Offset(20))));
        assert_eq!(epochs.0.len(), 3);
        epochs.note(LeaderEpoch(2), Offset(99));
        assert_eq!(epochs.latest(), Some(LeaderEpoch(5)));
    }

    #[test]
    fn truncation_keeps_the_epoch_of_the_log_start() {
        let mut epochs = three();
        epochs.truncate_start(Offset(15));
        assert_eq!(epochs.0, [(LeaderEpoch(3), Offset(15)), (LeaderEpoch(4), Offset(20))]);
        epochs.truncate_end(Offset(20));
        assert_eq!(epochs.0, [(LeaderEpoch(3), Offset(15))]);
    }
}
