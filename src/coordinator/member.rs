//! A member of a classic group.

use bytes::Bytes;

use super::shard::Token;

/// A member. Deadlines are monotonic milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    /// Names and metadata, the preferred one first.
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    pub(super) session_deadline_ms: i64,
    /// The JoinGroup request that waits for the end of the rebalance.
    pub(super) awaiting_join: Option<Token>,
    /// The SyncGroup request that waits for the leader.
    pub(super) awaiting_sync: Option<Token>,
}

impl Member {
    /// The member's metadata for a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map_or(Bytes::new(), |(_, metadata)| metadata.clone())
    }

    /// Restarts the session timeout.
    pub(super) fn refresh(&mut self, now_ms: i64) {
        self.session_deadline_ms = now_ms + i64::from(self.session_timeout_ms);
    }
}

/// A member as DescribeGroups returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Its id.
    pub id: String,
    /// Its static id.
    pub instance_id: Option<String>,
    /// The client id of the request's header.
    pub client_id: String,
    /// The host from which it connects, as `/127.0.0.1`.
    pub client_host: String,
    /// Its subscription.
    pub metadata: Bytes,
    /// Its partitions.
    pub assignment: Bytes,
}

/// A member that leaves: identified by member id, or by static id with an empty member id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeavingMember {
    /// Its id, or empty.
    pub id: String,
    /// Its static id.
    pub instance_id: Option<String>,
}
