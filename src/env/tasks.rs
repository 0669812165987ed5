//! The tasks of a broker. Each task is watched by the broker's [`FailStop`], and each ends with the broker: only this room starts tasks.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::FailStop;

/// A group of tasks of one broker. Clones share the group.
///
/// A task that panics stops the broker. When the broker has failed, every task is dropped at its next wait, because its memory cannot be trusted:
/// nothing is acknowledged after the failure.
#[derive(Debug, Clone)]
pub struct Tasks {
    fail_stop: FailStop,
    tracker: TaskTracker,
    /// Drops the tasks; also cancelled by a failure of the broker.
    dropped: CancellationToken,
}

impl Tasks {
    /// A group without tasks.
    pub fn new(fail_stop: FailStop) -> Tasks {
        let dropped = fail_stop.failed_token().child_token();
        Tasks { fail_stop, tracker: TaskTracker::new(), dropped }
    }

    /// Another group of the same broker, which ends at another time.
    pub fn another(&self) -> Tasks {
        Tasks::new(self.fail_stop.clone())
    }

    /// Starts a task in the caller's runtime. Its result is none if it panicked or was dropped.
    pub fn spawn<T: Send + 'static>(&self, part: &'static str, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<Option<T>> {
        self.tracker.spawn(self.watched(part, work))
    }

    /// Starts a task in another event loop.
    pub fn spawn_in(&self, event_loop: &Handle, part: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(self.watched(part, work), event_loop);
    }

    fn watched<T, W: Future<Output = T>>(&self, part: &'static str, work: W) -> impl Future<Output = Option<T>> + use<T, W> {
        // A token of its own, so that tasks on different threads do not share its lock.
        let (fail_stop, dropped, work) = (self.fail_stop.clone(), self.dropped.child_token(), Box::pin(work));
        async move {
            // First the token: a task that is woken after a failure does nothing more. Cancelling drops the work as a lost connection does.
            tokio::select! {
                biased;
                () = dropped.cancelled() => None,
                result = fail_stop.guard(part, work) => result,
            }
        }
        .in_current_span()
    }

    /// Waits until all tasks have ended.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Drops each task at its next wait. Work that a task has handed over to a blocking thread goes on: see [`Workers::idle`](super::Workers::idle).
    pub fn abort(&self) {
        self.dropped.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_failure_drops_every_task_and_an_abort_only_its_group() {
        let stop = CancellationToken::new();
        let one = Tasks::new(FailStop::new(stop.clone()));
        let (two, three) = (one.another(), one.another());
        assert_eq!(one.spawn("a part", async { 5 }).await.unwrap(), Some(5));
        let [waits, waits_too, aborted] = [&one, &two, &three].map(|tasks| tasks.spawn("a part", pending::<()>()));
        three.abort();
        assert_eq!(aborted.await.unwrap(), None);
        assert!(!waits.is_finished() && !waits_too.is_finished() && !stop.is_cancelled());
        assert_eq!(two.spawn("a broken part", async { panic!("1 is not 2") }).await.unwrap(), None::<()>);
        one.ended().await;
        two.ended().await;
        assert_eq!((waits.await.unwrap(), waits_too.await.unwrap()), (None, None));
        assert!(stop.is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_is_ready_does_nothing_after_a_failure() {
        let tasks = Tasks::new(FailStop::new(CancellationToken::new()));
        let (ready, acts) = (Arc::new(tokio::sync::Notify::new()), Arc::<AtomicBool>::default());
        let (is_ready, acted) = (ready.clone(), acts.clone());
        let task = tasks.spawn("a part", async move {
            is_ready.notified().await;
            acted.store(true, Ordering::Relaxed);
        });
        tokio::task::yield_now().await;
        ready.notify_one();
        tasks.fail_stop.fail("another part", &"1 is not 2");
        assert_eq!((task.await.unwrap(), acts.load(Ordering::Relaxed)), (None, false));
    }
}
