//! The role of a replica in its partition, and its high watermark. Only decisions: [`Replica`](super::Replica) executes them, under the
//! lock of its log.

use std::collections::BTreeMap;

use super::Error;
use crate::model::{LeaderEpoch, NodeId, Offset, TopicPartition};

/// A replica's role, with the leader epoch in which it got the role. Epochs never fall, and within one epoch the leader stays the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It appends producers' batches, and decides what is committed.
    Leader {
        /// This replica's leader epoch.
        epoch: LeaderEpoch,
        /// The other members of the maximal in-sync set, with the log end offsets that they reported in this epoch, or 0.
        others: BTreeMap<NodeId, Offset>,
    },
    /// It copies the leader's log.
    Follower {
        /// The leader's epoch.
        epoch: LeaderEpoch,
    },
    /// Its log is not in use: not yet, or not any more.
    Offline {
        /// The last known epoch.
        epoch: LeaderEpoch,
    },
}

impl Role {
    /// The leader epoch.
    pub fn epoch(&self) -> LeaderEpoch {
        match self {
            Role::Leader { epoch, .. } | Role::Follower { epoch } | Role::Offline { epoch } => *epoch,
        }
    }

    /// Whether this replica is the leader.
    pub fn is_leader(&self) -> bool {
        matches!(self, Role::Leader { .. })
    }

    /// The role of the leader of `epoch`, with these other members of the in-sync set. If this replica already leads in the epoch, the set changes,
    /// and the reported offsets of members that stay are kept. Rejected: an older epoch, and an epoch in which another replica leads.
    pub(super) fn lead(&self, id: &TopicPartition, epoch: LeaderEpoch, others: &[NodeId]) -> Result<Role, Error> {
        let ends = match self {
            Role::Leader { epoch: current, others } if *current == epoch => Some(others),
            Role::Follower { epoch: current } if *current == epoch => return Err(Error::NotLeader(id.clone())),
            _ => None,
        };
        self.check_epoch(epoch)?;
        let end = |node: &NodeId| ends.and_then(|ends| ends.get(node)).copied().unwrap_or(Offset(0));
        Ok(Role::Leader { epoch, others: others.iter().map(|node| (*node, end(node))).collect() })
    }

    /// The role of a follower in `epoch`. Rejected: an older epoch, and an epoch in which this replica leads.
    pub(super) fn follow(&self, epoch: LeaderEpoch) -> Result<Role, Error> {
        match self {
            Role::Leader { epoch: current, .. } if *current == epoch => Err(Error::FencedLeaderEpoch { got: epoch, current: *current }),
            _ => self.check_epoch(epoch).map(|()| Role::Follower { epoch }),
        }
    }

    /// The role of a replica whose log is not in use any more.
    pub(super) fn retire(&self) -> Role {
        Role::Offline { epoch: self.epoch() }
    }

    fn check_epoch(&self, got: LeaderEpoch) -> Result<(), Error> {
        let current = self.epoch();
        if got < current { Err(Error::FencedLeaderEpoch { got, current }) } else { Ok(()) }
    }

    /// The high watermark after `now`, where `own_end` is the end of the records that this replica has stored for good. A leader's is the smallest
    /// end in the maximal in-sync set, and never falls; other roles keep `now`, because the leader determines it.
    pub(super) fn high_watermark(&self, now: Offset, own_end: Offset) -> Offset {
        match self {
            Role::Leader { others, .. } => others.values().fold(own_end, |least, end| least.min(*end)).max(now),
            Role::Follower { .. } | Role::Offline { .. } => now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(epoch: i32, others: &[(i32, i64)]) -> Role {
        let others = others.iter().map(|(node, end)| (NodeId(*node), Offset(*end))).collect();
        Role::Leader { epoch: LeaderEpoch(epoch), others }
    }

    #[test]
    fn epochs_never_fall_and_each_has_one_leader() {
        let id = TopicPartition::new("a", 0);
        let (follower, offline) = (Role::Follower { epoch: LeaderEpoch(5) }, Role::Offline { epoch: LeaderEpoch(5) });
        let lead = |role: &Role, epoch| role.lead(&id, LeaderEpoch(epoch), &[]).map(|role| role.epoch().0).ok();
        let follow = |role: &Role, epoch| role.follow(LeaderEpoch(epoch)).map(|role| role.epoch().0).ok();
        // The role, and the roles that result from it in epochs 4, 5 and 6 as a leader and as a follower.
        let cases = [
            (leader(5, &[]), [None, Some(5), Some(6)], [None, None, Some(6)]),
            (follower, [None, None, Some(6)], [None, Some(5), Some(6)]),
            (offline, [None, Some(5), Some(6)], [None, Some(5), Some(6)]),
        ];
        for (role, leads, follows) in cases {
            assert_eq!(
                ([4, 5, 6].map(|epoch| lead(&role, epoch)), [4, 5, 6].map(|epoch| follow(&role, epoch))),
                (leads, follows),
                "{role:?}"
            );
            assert_eq!(role.retire(), Role::Offline { epoch: LeaderEpoch(5) });
        }
    }

    #[test]
    fn a_new_leader_knows_nothing_of_its_followers_and_one_whose_set_changes_keeps_what_it_knows() {
        let id = TopicPartition::new("a", 0);
        let role = leader(5, &[(2, 70), (3, 80)]);
        let lead = |epoch| role.lead(&id, LeaderEpoch(epoch), &[NodeId(3), NodeId(4)]).unwrap();
        assert_eq!([lead(5), lead(6)], [leader(5, &[(3, 80), (4, 0)]), leader(6, &[(3, 0), (4, 0)])]);
    }

    #[test]
    fn the_high_watermark_is_the_least_end_in_the_in_sync_set_and_never_falls() {
        let high_watermark = |role: Role, now, own_end| role.high_watermark(Offset(now), Offset(own_end)).0;
        let follower = Role::Follower { epoch: LeaderEpoch(5) };
        let cases = [
            ("alone", leader(5, &[]), 10, 50, 50),
            ("alone, and not durable yet", leader(5, &[]), 10, 10, 10),
            ("a follower is behind", leader(5, &[(2, 30), (3, 40)]), 10, 50, 30),
            ("all followers are ahead of what is durable here", leader(5, &[(2, 60), (3, 70)]), 10, 50, 50),
            ("a follower has not fetched yet", leader(5, &[(2, 0)]), 10, 50, 10),
            ("a follower does not report its end", follower, 10, 50, 10),
        ];
        for (what, role, now, own_end, expected) in cases {
            assert_eq!(high_watermark(role, now, own_end), expected, "{what}");
        }
    }
}
