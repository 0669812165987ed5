//! Threads that serve connections: each runs its own event loop, and a connection stays on the thread that it was assigned to.
//!
//! A runtime that shares its tasks among threads wakes a second thread for nearly every request (that costs half as much CPU again for 16 KB
//! batches with five in flight). Here one thread reads, runs and answers a request, and sleeps when its connections are idle.

use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{JoinError, spawn_blocking, yield_now};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tracing::Span;

use super::Entropy;

/// The threads; they end with the last clone.
#[derive(Clone)]
pub struct Workers {
    kind: Kind,
    /// The blocking work in progress.
    blocking: TaskTracker,
}

#[derive(Clone)]
enum Kind {
    Caller,
    PerCore(Arc<Threads>),
    Inline(Option<Arc<Late>>),
}

/// A random delay before work starts.
struct Late {
    most: Duration,
    entropy: Arc<dyn Entropy>,
}

#[derive(Debug)]
struct Threads {
    loops: Vec<EventLoop>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct EventLoop {
    handle: Handle,
    /// Dropping this ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Workers {
    fn new(kind: Kind) -> Workers {
        Workers { kind, blocking: TaskTracker::new() }
    }

    /// No separate threads: connections are served in the caller's runtime, as in a test.
    pub fn none() -> Workers {
        Workers::new(Kind::Caller)
    }

    /// One thread per core of the machine.
    pub fn per_core() -> io::Result<Workers> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let loops = (0..count).map(start).collect::<io::Result<_>>()?;
        Ok(Workers::new(Kind::PerCore(Arc::new(Threads { loops, next: AtomicUsize::new(0) }))))
    }

    /// One thread for everything, including blocking work: for a simulation, in which nothing may depend on the speed of another thread.
    pub fn inline() -> Workers {
        Workers::new(Kind::Inline(None))
    }

    /// Like [`Workers::inline`], but blocking work starts after a random delay of at most `most`, as on a thread that is busy or waits for a disk.
    pub fn inline_late(entropy: Arc<dyn Entropy>, most: Duration) -> Workers {
        Workers::new(Kind::Inline(Some(Arc::new(Late { most, entropy }))))
    }

    /// The number of threads.
    pub fn count(&self) -> usize {
        match &self.kind {
            Kind::PerCore(threads) => threads.loops.len(),
            Kind::Caller | Kind::Inline(_) => 1,
        }
    }

    /// The event loop of the next connection, round robin.
    pub fn next(&self) -> Handle {
        match &self.kind {
            Kind::PerCore(threads) => threads.loops[threads.next.fetch_add(1, Ordering::Relaxed) % threads.loops.len()].handle.clone(),
            Kind::Caller | Kind::Inline(_) => Handle::current(),
        }
    }

    /// Runs blocking work on a thread that may block. If the work panics, so does the caller: an error only means that the process ends.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        match &self.kind {
            Kind::PerCore(_) | Kind::Caller => {
                let in_progress = self.blocking.token();
                let span = Span::current();
                let work = move || {
                    let _in_progress = in_progress;
                    span.in_scope(work)
                };
                match spawn_blocking(work).await {
                    Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                    result => result,
                }
            }
            Kind::Inline(late) => {
                // Lets other tasks run first, as they might if this were another thread.
                match late {
                    Some(late) => sleep(late.by_chance()).await,
                    None => yield_now().await,
                }
                Ok(work())
            }
        }
    }

    /// Waits until no blocking work is in progress. It goes on after the task that waited for it was dropped.
    pub async fn idle(&self) {
        self.blocking.close();
        self.blocking.wait().await;
        self.blocking.reopen();
    }
}

impl Late {
    fn by_chance(&self) -> Duration {
        let mut bytes = [0; 4];
        self.entropy.fill(&mut bytes);
        self.most.mul_f64(f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX))
    }
}

fn start(number: usize) -> io::Result<EventLoop> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let body = move || {
        // An error means that the sender was dropped.
        let _ = runtime.block_on(stopped);
    };
    std::thread::Builder::new().name(format!("connections-{number}")).spawn(body)?;
    Ok(EventLoop { handle, _stop: stop })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn blocking_work_of_a_dropped_task_is_waited_for() {
        let workers = Workers::none();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let mut work = Box::pin(workers.blocking(move || ended.recv().is_err()));
        assert!(std::future::poll_fn(|context| std::task::Poll::Ready(work.as_mut().poll(context).is_pending())).await);
        drop(work);
        assert!(tokio::time::timeout(Duration::from_millis(20), workers.idle()).await.is_err());
        drop(end);
        workers.idle().await;
    }
}
