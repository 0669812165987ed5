//! Limits of the resources that clients can use.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

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
    /// `max.connections`, if it is not changed while the broker runs.
    pub connections_max: usize,
    /// `connections.max.idle.ms`.
    pub idle: Duration,
}

/// The budgets of those limits.
#[derive(Debug)]
pub(super) struct Budgets {
    pub(super) frame_bytes: Arc<Semaphore>,
    pub(super) connections: Arc<Connections>,
}

impl Budgets {
    pub(super) fn of(limits: &ServerLimits) -> Budgets {
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Budgets { frame_bytes: permits(limits.queued_bytes_max.max(limits.frame_bytes_max)), connections: Arc::default() }
    }
}

/// How often a listener that has reached `max.connections` reads the limit again.
const LIMIT_READ_EVERY: Duration = Duration::from_millis(500);

/// The number of open connections. A semaphore would not do, because the limit can change while the broker runs.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: AtomicUsize,
    closed: Notify,
}

/// One open connection.
#[derive(Debug)]
pub(super) struct OpenConnectionPermit(Arc<Connections>);

impl Connections {
    /// Waits until fewer connections are open than `limit` returns. Cancelling loses nothing.
    pub(super) async fn acquire(self: &Arc<Self>, limit: impl Fn() -> usize) -> OpenConnectionPermit {
        loop {
            let mut closed = pin!(self.closed.notified());
            // A connection that closes after the check below is not missed.
            closed.as_mut().enable();
            let max = limit();
            if self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < max).then_some(open + 1)).is_ok() {
                return OpenConnectionPermit(self.clone());
            }
            // On a time-out the limit may have been raised.
            let _ = tokio::time::timeout(LIMIT_READ_EVERY, closed).await;
        }
    }
}

impl Drop for OpenConnectionPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.closed.notify_one();
    }
}
