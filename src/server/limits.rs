//! Limits of the resources that clients can use.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// The maximum number of responses of one connection that wait to be written; while it is reached, no further requests are read.
pub(super) const PENDING_ANSWERS_MAX: usize = 64;
/// How long an incomplete frame may make no progress before the connection is closed.
pub(super) const STALLED_FRAME: Duration = Duration::from_secs(30);
/// How long a write may make no progress before the connection is closed: the peer does not read.
pub(super) const STALLED_ANSWER: Duration = Duration::from_secs(60);
/// How long a connection that is closing may take to send its pending responses.
pub(super) const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How long a connection may be silent before its read buffer is freed.
pub(super) const BUFFER_IDLE: Duration = Duration::from_secs(5);

/// Limits over all connections; the names are Kafka's if Kafka has the setting.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// `socket.request.max.bytes`: a connection with a longer frame is closed.
    pub frame_bytes_max: usize,
    /// `queued.max.request.bytes`: the maximum bytes of request frames in memory over all connections.
    pub queued_bytes_max: usize,
    /// `max.connections`.
    pub connections_max: usize,
    /// `connections.max.idle.ms`.
    pub idle: Duration,
}

/// The budgets of those limits.
#[derive(Debug)]
pub(super) struct Budgets {
    pub(super) frame_bytes: Arc<Semaphore>,
    pub(super) connections: Arc<Semaphore>,
}

impl Budgets {
    pub(super) fn of(limits: &ServerLimits) -> Budgets {
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Budgets { frame_bytes: permits(limits.queued_bytes_max.max(limits.frame_bytes_max)), connections: permits(limits.connections_max) }
    }
}
