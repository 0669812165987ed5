//! Stops a broker when a part of it panics, and nothing else in the process.
//!
//! A panic means that an invariant is broken: the broker's memory cannot be trusted any more. The broker stops serving requests and does not
//! mark its logs as cleanly closed, so that the next start recovers them as after a crash.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use tokio_util::sync::CancellationToken;
use tracing::error;

/// Watches the parts of one broker. Clones share their state.
#[derive(Debug, Clone)]
pub struct FailStop {
    /// Stops the broker's parts.
    stop: CancellationToken,
    failed: CancellationToken,
    reason: Arc<OnceLock<String>>,
}

impl FailStop {
    /// Cancels `stop` when a part fails.
    pub fn new(stop: CancellationToken) -> FailStop {
        FailStop { stop, failed: CancellationToken::new(), reason: Arc::default() }
    }

    /// Runs a part of the broker. If it panics, the broker stops and the result is none. The part is on the heap: as a plain argument, this future
    /// would contain it twice, which matters with ten thousand connections.
    pub(super) async fn guard<T>(&self, part: &str, mut work: Pin<Box<impl Future<Output = T> + ?Sized>>) -> Option<T> {
        let outcome = std::future::poll_fn(|context| {
            // A future that has panicked is not polled again, so its inconsistent state is never used.
            match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(result)) => Poll::Ready(Ok(result)),
                Err(panic) => Poll::Ready(Err(panic)),
            }
        });
        outcome.await.map_err(|panic| self.fail(part, &*panic)).ok()
    }

    /// Stops the broker because a part of it has panicked. Only the first reason is kept.
    pub(super) fn fail(&self, part: &str, panic: &(dyn Any + Send)) {
        let reason = format!("{part}: {}", panic_message(panic));
        error!(part, reason, "an invariant of the broker is violated: the broker stops");
        let _ = self.reason.set(reason);
        self.failed.cancel();
        self.stop.cancel();
    }

    /// Cancelled when the broker has failed.
    pub(super) fn failed_token(&self) -> &CancellationToken {
        &self.failed
    }

    /// The reason why the broker has failed; none if it has not failed.
    pub fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// Waits until the broker has failed, and returns the reason.
    pub async fn failed(&self) -> String {
        self.failed.cancelled().await;
        self.reason().unwrap_or_default().to_string()
    }
}

/// The message of a panic.
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_stops_the_broker_and_the_first_reason_stays() {
        let stop = CancellationToken::new();
        let watch = FailStop::new(stop.clone());
        assert_eq!(watch.guard("a part", Box::pin(async { 5 })).await, Some(5));
        assert!(!stop.is_cancelled() && watch.reason().is_none());
        assert_eq!(watch.guard("one part", Box::pin(async { panic!("{} is not {}", 1, 2) })).await, None::<()>);
        assert!(stop.is_cancelled());
        assert_eq!(watch.guard("another part", Box::pin(async { panic!("it too") })).await, None::<()>);
        assert_eq!(watch.failed().await, "one part: 1 is not 2");
    }
}
