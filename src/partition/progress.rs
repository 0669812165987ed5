//! Requests that wait for a partition, and how they are woken: without polling, and without checks of partitions that no request waits for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Wakes a waiting request; one value may subscribe to many partitions.
pub type Wake = Arc<Notify>;

/// The waiters of one partition.
#[derive(Debug, Default)]
pub(super) struct Progress {
    count: AtomicUsize,
    waiters: Mutex<Vec<Wake>>,
}

/// A subscription; ends when it is dropped.
#[derive(Debug)]
pub struct Subscription {
    progress: Arc<Progress>,
    wake: Wake,
}

impl Progress {
    /// Wakes `wake` at each step from now on.
    pub(super) fn subscribe(self: &Arc<Self>, wake: &Wake) -> Subscription {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.push(wake.clone());
        self.count.store(waiters.len(), Ordering::SeqCst);
        Subscription { progress: self.clone(), wake: wake.clone() }
    }

    /// Wakes all waiters. A waiter that subscribes after `count` was read checks the partition after subscribing, so it misses nothing.
    pub(super) fn step(&self) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.iter().for_each(|wake| wake.notify_one());
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut waiters = self.progress.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = waiters.iter().position(|wake| Arc::ptr_eq(wake, &self.wake)) {
            waiters.swap_remove(at);
        }
        self.progress.count.store(waiters.len(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_step_wakes_who_subscribed_and_no_one_after() {
        let progress = Arc::new(Progress::default());
        let wake = Wake::default();
        let subscription = progress.subscribe(&wake);
        progress.step();
        wake.notified().await;
        drop(subscription);
        progress.step();
        assert_eq!(progress.count.load(Ordering::SeqCst), 0);
        let nothing = tokio::time::timeout(std::time::Duration::ZERO, wake.notified()).await;
        assert!(nothing.is_err());
    }
}
