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
    /// The JoinGroup that waits for the rebalance.
    pub(super) awaiting_join: Option<Token>,
    /// The SyncGroup that waits for the leader.
    pub(super) awaiting_sync: Option<Token>,
}

impl Member {
    /// What the member says for a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map_or(Bytes::new(), |(_, metadata)| metadata.clone())
    }

    /// Starts the session anew.
    pub(super) fn refresh(&mut self, now_ms: i64) {
        self.session_deadline_ms = now_ms + i64::from(self.session_timeout_ms);
    }
}

/// A member as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Its id.
    pub id: String,
    /// Its static id.
    pub instance_id: Option<String>,
    /// From the request's header.
    pub client_id: String,
    /// Where it connects from, as `/127.0.0.1`.
    pub client_host: String,
    /// Its subscription.
    pub metadata: Bytes,
    /// Its partitions.
    pub assignment: Bytes,
}

/// A member that leaves: by id, or by static id with an empty id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeavingMember {
    /// Its id, or empty.
    pub id: String,
    /// Its static id.
    pub instance_id: Option<String>,
}
