//! What the server allows a client to take.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// Answers of one connection that wait to be written; a client that sends more is not read.
pub(super) const PENDING_ANSWERS_MAX: usize = 64;
/// How long a frame may stand still half read before the connection is closed.
pub(super) const STALLED_FRAME: Duration = Duration::from_secs(30);
/// How long the write side may stand still before the connection is closed: a peer that never reads.
pub(super) const STALLED_ANSWER: Duration = Duration::from_secs(60);
/// How long a connection that ends may take for the answers that are due.
pub(super) const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How long a connection may be silent before it gives its read buffer back.
pub(super) const BUFFER_IDLE: Duration = Duration::from_secs(5);

/// Limits over all connections; names are Kafka's where it has them.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// `socket.request.max.bytes`: a longer frame closes its connection.
    pub frame_bytes_max: usize,
    /// `queued.max.request.bytes`: frames in memory over all connections.
    pub queued_bytes_max: usize,
    /// `max.connections`.
    pub connections_max: usize,
    /// `connections.max.idle.ms`.
    pub idle: Duration,
}

/// The budgets that those limits make.
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
