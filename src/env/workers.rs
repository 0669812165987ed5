//! Threads that serve connections: each runs an event loop of its own, and a connection stays on the one that it was given to.
//!
//! A runtime that shares its tasks among threads wakes a second thread for nearly every request (16 KB batches with five in flight cost it
//! half as much CPU again). Here a request is read, run and answered by one thread, which sleeps when its connections do.

use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{JoinError, spawn_blocking, yield_now};
use tokio::time::sleep;

use super::Entropy;

/// The threads; they end with the last clone.
#[derive(Clone)]
pub struct Workers(Kind);

#[derive(Clone)]
enum Kind {
    Caller,
    PerCore(Arc<Threads>),
    Inline(Option<Arc<Late>>),
}

/// How late something begins, by chance.
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
    /// Its thread ends when this goes.
    _stop: oneshot::Sender<()>,
}

impl Workers {
    /// No threads of their own: connections are served in the caller's runtime, as in a test.
    pub fn none() -> Workers {
        Workers(Kind::Caller)
    }

    /// As many threads as the machine has cores.
    pub fn per_core() -> io::Result<Workers> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let loops = (0..count).map(start).collect::<io::Result<_>>()?;
        Ok(Workers(Kind::PerCore(Arc::new(Threads { loops, next: AtomicUsize::new(0) }))))
    }

    /// One thread for everything, also for what may block: a simulation, in which nothing may depend on how fast another thread is.
    pub fn inline() -> Workers {
        Workers(Kind::Inline(None))
    }

    /// As [`Workers::inline`]; what may block begins later by chance, at `most` so much, as on a thread that is busy or waits for a disk.
    pub fn inline_late(entropy: Arc<dyn Entropy>, most: Duration) -> Workers {
        Workers(Kind::Inline(Some(Arc::new(Late { most, entropy }))))
    }

    /// How many things can be done at once.
    pub fn count(&self) -> usize {
        match &self.0 {
            Kind::PerCore(threads) => threads.loops.len(),
            Kind::Caller | Kind::Inline(_) => 1,
        }
    }

    /// The event loop of the next connection: each in turn.
    pub fn next(&self) -> Handle {
        match &self.0 {
            Kind::PerCore(threads) => threads.loops[threads.next.fetch_add(1, Ordering::Relaxed) % threads.loops.len()].handle.clone(),
            Kind::Caller | Kind::Inline(_) => Handle::current(),
        }
    }

    /// Does what may wait for a disk, on a thread that may. If it panics, so does the caller: the error says only that the process ends.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        match &self.0 {
            Kind::PerCore(_) | Kind::Caller => match spawn_blocking(work).await {
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                result => result,
            },
            Kind::Inline(late) => {
                // Others go first, as they may where it is another thread.
                match late {
                    Some(late) => sleep(late.by_chance()).await,
                    None => yield_now().await,
                }
                Ok(work())
            }
        }
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
        // An error says that the sender is gone.
        let _ = runtime.block_on(stopped);
    };
    std::thread::Builder::new().name(format!("connections-{number}")).spawn(body)?;
    Ok(EventLoop { handle, _stop: stop })
}
