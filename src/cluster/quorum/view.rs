//! What others may see of the quorum.

use tokio::sync::watch;

use super::store::Store;
use crate::cluster::{Leadership, Role};

/// A view of the quorum, as this node sees it.
#[derive(Clone)]
pub struct QuorumView {
    store: Store,
    leadership: watch::Receiver<Leadership>,
}

/// The state of the quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumState {
    /// The leader; none while an election is going on.
    pub leader: Option<i32>,
    /// Its epoch.
    pub epoch: i32,
    /// Records below this offset are committed.
    pub high_watermark: i64,
    /// The end of this node's log.
    pub log_end: i64,
    /// The ids of the voters.
    pub voters: Vec<i32>,
}

impl QuorumView {
    pub(super) fn new(store: Store, leadership: watch::Receiver<Leadership>) -> QuorumView {
        QuorumView { store, leadership }
    }

    /// The state now.
    pub fn state(&self) -> QuorumState {
        let Leadership { epoch, role } = *self.leadership.borrow();
        let leader = match role {
            Role::Leader => Some(self.store.node()),
            Role::Follower(leader) => leader,
        };
        let voters = self.store.progress().voters().voter_ids().map(|id| id as i32).collect();
        let reached = self.store.progress().get();
        QuorumState { leader, epoch, high_watermark: reached.committed, log_end: reached.end, voters }
    }
}
