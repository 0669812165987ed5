//! Decides when appended batches of a log directory are committed, and by which thread.
//!
//! A commit contains all batches that wait. More are appended while the disk writes it: once they are large, a second commit begins concurrently,
//! else after the first has ended. So the disk and the processors do not wait for each other, and small amounts are committed together.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use tokio::sync::Notify;

use crate::model::TopicPartition;

/// The most concurrent commits.
pub(super) const COMMITTERS: usize = 2;
/// With at least this many waiting bytes a commit begins although another is in progress.
const WORTH_BYTES: u64 = 256 << 10;
/// A log is alone after this many commits in a row of no other log. Without this number, the first of many logs to be written would delay the others.
const ALONE_FROM: u32 = 8;

/// The commits of a directory.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// A request waits for a commit.
    due: Notify,
    /// Bytes that no commit has taken; if it is 0 there is nothing to commit.
    waiting_bytes: AtomicU64,
    /// The number of threads that commit or check whether there is something to commit.
    committers: AtomicUsize,
    running: Mutex<Running>,
    changed: Condvar,
}

/// The lock on it protects the choice of the batches of the next commit.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// Commits that have not ended.
    count: usize,
    /// The log of the last commits, if they had one and the same log; `alone_count` is their number.
    alone: Option<TopicPartition>,
    alone_count: u32,
    /// The number of threads that wait until no commit is in progress; meanwhile no commit begins.
    waiting: usize,
}

impl Running {
    /// Notes the log of the next commit if it is only one; returns whether the last commits were of this log only.
    pub(super) fn is_alone(&mut self, alone: Option<TopicPartition>) -> bool {
        self.alone_count = if alone.is_some() && alone == self.alone { self.alone_count.saturating_add(1) } else { 0 };
        self.alone = alone;
        self.alone_count >= ALONE_FROM
    }
}

/// A thread that commits; ends when it is dropped.
pub(super) struct Committer<'a>(&'a Commits);

/// A commit in progress; ends when it is dropped.
pub(super) struct InFlight<'a>(&'a Commits);

impl Commits {
    /// Notes bytes that were appended and can be read from the log.
    pub(super) fn appended(&self, bytes: u64) {
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::SeqCst);
        let is_much = before < WORTH_BYTES && before + bytes >= WORTH_BYTES;
        if is_much {
            self.changed.notify_all();
        }
        if is_much || self.committers.load(Ordering::SeqCst) == 0 {
            self.due.notify_one();
        }
    }

    /// Notes that batches wait again, because their commit failed. The next committing thread is woken when this one leaves.
    pub(super) fn put_back(&self) {
        self.waiting_bytes.fetch_add(1, Ordering::SeqCst);
    }

    /// Wakes a committing thread to check for the end: there will be no more commits.
    pub(super) fn end(&self) {
        self.due.notify_one();
    }

    /// Whether a commit is in progress. A flush calls this while it holds the directory's lock on fsyncs, so it must not block: the thread that
    /// chooses the batches of the next commit may wait for a log whose writer waits for that lock.
    pub(super) fn is_busy(&self) -> bool {
        match self.running.try_lock() {
            Ok(running) => running.count > 0,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().count > 0,
            Err(TryLockError::WouldBlock) => true,
        }
    }

    /// Waits until no commit is in progress; none begins while the result is held.
    pub(super) fn quiesce(&self) -> MutexGuard<'_, Running> {
        let mut running = self.running();
        running.waiting += 1;
        let mut running = self.changed.wait_while(running, |running| running.count > 0).unwrap_or_else(PoisonError::into_inner);
        running.waiting -= 1;
        self.changed.notify_all();
        running
    }

    /// Waits until a commit should run.
    pub(super) async fn due(&self) {
        self.due.notified().await;
    }

    /// Registers a committing thread.
    pub(super) fn committer(&self) -> Committer<'_> {
        self.committers.fetch_add(1, Ordering::SeqCst);
        Committer(self)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Committer<'a> {
    /// Waits until there is a reason to commit; none if there is nothing to commit. Later appends wait for the next call.
    pub(super) fn next(&self) -> Option<MutexGuard<'a, Running>> {
        let waiting_bytes = || self.0.waiting_bytes.load(Ordering::SeqCst);
        let is_early = |running: &mut Running| running.waiting > 0 || running.count > 0 && (1..WORTH_BYTES).contains(&waiting_bytes());
        let running = self.0.changed.wait_while(self.0.running(), is_early).unwrap_or_else(PoisonError::into_inner);
        (self.0.waiting_bytes.swap(0, Ordering::SeqCst) > 0).then_some(running)
    }

    /// Waits until no commit is in progress.
    pub(super) fn wait_for_all(&self, running: MutexGuard<'a, Running>) -> MutexGuard<'a, Running> {
        self.0.changed.wait_while(running, |running| running.count > 0).unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a commit; other threads may then begin theirs.
    pub(super) fn begin(&self, mut running: MutexGuard<'a, Running>) -> InFlight<'a> {
        assert!(running.count < COMMITTERS, "{} commits are on their way, and another one begins", running.count);
        running.count += 1;
        InFlight(self.0)
    }
}

impl Drop for Committer<'_> {
    fn drop(&mut self) {
        let committers = self.0.committers.fetch_sub(1, Ordering::SeqCst);
        assert!(committers > 0, "a committer leaves, and there is none");
        // A writer that appended before this did not send a wake-up, because there was a committing thread.
        if self.0.waiting_bytes.load(Ordering::SeqCst) > 0 {
            self.0.due.notify_one();
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut running = self.0.running();
        assert!(running.count > 0, "a commit ends, and none is on its way");
        running.count -= 1;
        drop(running);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Whether a commit was requested.
    async fn is_due(commits: &Commits) -> bool {
        tokio::time::timeout(Duration::ZERO, commits.due()).await.is_ok()
    }

    #[tokio::test]
    async fn beside_a_commit_another_begins_for_much_and_waits_for_its_end_with_little() {
        let commits = Commits::default();
        commits.appended(10);
        assert!(is_due(&commits).await);
        let one = commits.committer();
        let first = one.begin(one.next().unwrap());
        commits.appended(WORTH_BYTES - 1);
        assert!(!is_due(&commits).await, "little, and somebody is there who will look");
        commits.appended(1);
        assert!(is_due(&commits).await);
        let two = commits.committer();
        let second = two.begin(two.next().unwrap());
        assert_eq!(commits.running().count, 2);
        drop(second);
        assert!(two.next().is_none(), "all was taken");
        commits.appended(10);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| two.next().map(|running| running.count));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!waiting.is_finished());
            drop(first);
            assert_eq!(waiting.join().unwrap(), Some(0));
        });
    }

    #[tokio::test]
    async fn what_comes_while_the_last_one_leaves_is_not_forgotten() {
        let commits = Commits::default();
        let committer = commits.committer();
        assert!(committer.next().is_none());
        commits.appended(10);
        assert!(!is_due(&commits).await);
        drop(committer);
        assert!(is_due(&commits).await);
    }

    #[test]
    fn a_log_is_alone_after_some_commits_of_nothing_else() {
        let mut running = Running::default();
        let log = |partition| Some(TopicPartition::new("a", partition));
        let times = |running: &mut Running| (0..).find(|_| running.is_alone(log(0)));
        assert_eq!(times(&mut running), Some(ALONE_FROM));
        assert!(running.is_alone(log(0)) && !running.is_alone(log(1)) && !running.is_alone(None));
        assert_eq!(times(&mut running), Some(ALONE_FROM));
    }
}
