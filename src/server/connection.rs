//! One connection: reads request frames and writes responses.
//!
//! The length of a frame is checked before memory is allocated, and its bytes are charged to a budget that all connections share. Frames are slices
//! of the read buffer; the buffer is extended at once for a frame that does not fit.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::dispatch::{Answer, Refusal, Running, Waits, dispatch};
use super::limits::{BUFFER_IDLE, LAST_ANSWERS, PENDING_ANSWERS_MAX, STALLED_ANSWER, STALLED_FRAME};
use super::services::Caller;
use super::visits::Sent;
use crate::env::{ReadHalf, WriteHalf, panic_message};

/// The minimum free buffer space for a read.
const READ_BYTES: usize = 4096;
/// The buffer for a frame up to this size is reserved at once; for a longer frame it grows with the received bytes.
const RESERVED_AT_ONCE: usize = 4 << 20;
/// The number of bytes of a frame's length field.
const LENGTH_BYTES: usize = 4;

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The peer has closed the connection within a frame, or the connection was lost.
    Peer(std::io::Error),
    /// The peer has closed the connection between two frames.
    Closed,
    /// A frame with a length that is not allowed.
    Length(i32),
    /// The peer sends or reads nothing for too long.
    Stalled(&'static str),
    /// A request whose decoding panicked.
    Undecodable(String),
    /// A request that cannot be answered.
    Refused(Refusal),
    /// The broker is stopping.
    Stopping,
}

/// A response in the queue: ready or pending.
enum Queued {
    Ready(Answer),
    Waiting(Running, OwnedSemaphorePermit),
}

/// Pending responses, in the order of their requests. One task polls both sides of a connection, first reading and then writing, so that neither has
/// to wake the other: a wake-up would run the task once more for each request, on another worker.
#[derive(Default)]
struct Due(Mutex<DueAnswers>);

#[derive(Default)]
struct DueAnswers {
    queue: VecDeque<Queued>,
    /// No further responses will be added.
    closed: bool,
}

impl Due {
    fn answers(&self) -> std::sync::MutexGuard<'_, DueAnswers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self) -> bool {
        self.answers().queue.len() >= PENDING_ANSWERS_MAX
    }

    /// Adds a response once the queue has space for it. When the broker stops, the last response of the connection is added even if it has none.
    async fn push(&self, queued: Queued, stop: &CancellationToken) {
        tokio::select! {
            biased;
            () = poll_fn(|_| if self.is_full() { Poll::Pending } else { Poll::Ready(()) }) => {}
            () = stop.cancelled() => {}
        }
        self.answers().queue.push_back(queued);
    }

    /// The next response once there is one, or `None` at the end.
    async fn pop(&self) -> Option<Queued> {
        poll_fn(|_| {
            let mut answers = self.answers();
            match answers.queue.pop_front() {
                None if !answers.closed => Poll::Pending,
                next => Poll::Ready(next),
            }
        })
        .await
    }

    /// The next response if it is ready now: requests that were committed together are answered together.
    async fn pop_ready(&self) -> Option<Result<Answer, Refusal>> {
        poll_fn(|context| {
            let next = self.answers().queue.pop_front();
            Poll::Ready(match next {
                None => None,
                Some(Queued::Ready(answer)) => Some(Ok(answer)),
                Some(Queued::Waiting(mut work, permit)) => match work.as_mut().poll(context) {
                    Poll::Ready(answer) => Some(answer),
                    Poll::Pending => {
                        self.answers().queue.push_front(Queued::Waiting(work, permit));
                        None
                    }
                },
            })
        })
        .await
    }

    fn close(&self) {
        self.answers().closed = true;
    }
}

/// Serves a connection until it ends. A finding about the client is recorded before the client can see the end: `write` is dropped last.
pub(super) async fn run(read: ReadHalf, mut write: WriteHalf, caller: Caller, stop: CancellationToken) {
    let (peer, endpoint, services) = (caller.peer, caller.endpoint.clone(), caller.services.clone());
    let visits = &services.visits;
    let open = services.metrics.connection();
    let due = Due::default();
    let mut reader = Reader { half: read, buffer: BytesMut::new(), caller, due: &due };
    let reading = async {
        loop {
            if let Err(end) = reader.one(&stop).await {
                return end;
            }
        }
    };
    let writing = write_answers(&mut write, &due);
    tokio::pin!(reading, writing);
    // If the write side fails, the read side ends too.
    let (end, read_side) = poll_fn(|context| {
        loop {
            if let Poll::Ready(end) = reading.as_mut().poll(context) {
                return Poll::Ready((end, true));
            }
            let was_full = due.is_full();
            if let Poll::Ready(end) = writing.as_mut().poll(context) {
                return Poll::Ready((end, false));
            }
            if !was_full || due.is_full() {
                return Poll::Pending;
            }
        }
    })
    .await;
    if read_side && !matches!(end, End::Peer(_)) {
        // Pending responses are still sent.
        due.close();
        let _ = timeout(LAST_ANSWERS, &mut writing).await;
    }
    drop(open);
    match end {
        End::Closed | End::Stopping => debug!(%peer, "connection closed"),
        End::Peer(error) => debug!(%peer, %error, "connection lost"),
        End::Length(length) => {
            let sent = Sent::of_length(length);
            warn!(%peer, listener = %endpoint.name, "connection closed: it sent {sent}");
            visits.note(peer, &endpoint.name, sent, tokio::time::Instant::now());
        }
        End::Stalled(what) => warn!(%peer, "connection closed: {what}"),
        End::Undecodable(panic) => error!(%peer, panic, "connection closed: decoding a request panicked"),
        End::Refused(refusal) => {
            warn!(%peer, %refusal, "connection closed");
            if let Some(sent) = Sent::of_refusal(&refusal) {
                visits.note(peer, &endpoint.name, sent, tokio::time::Instant::now());
            }
        }
    }
}

struct Reader<'a> {
    half: ReadHalf,
    buffer: BytesMut,
    caller: Caller,
    due: &'a Due,
}

impl Reader<'_> {
    /// Reads one request and runs it up to its first wait. Every wait here ends when the broker stops.
    async fn one(&mut self, stop: &CancellationToken) -> Result<(), End> {
        // First the token: a client that never stops sending has the next frame always in the buffer. Cancelling loses what was read of a frame, and
        // the connection ends.
        let (frame, permit) = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(End::Stopping),
            frame = self.frame() => frame?,
        };
        // Decoding a request changes no state of the broker, so a panic there ends only this connection.
        let decoded = catch_unwind(AssertUnwindSafe(|| dispatch(self.caller.clone(), frame)));
        let (mut work, waits) = decoded.map_err(|panic| End::Undecodable(panic_message(&*panic).to_string()))?.map_err(End::Refused)?;
        let first = std::future::poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
        let queued = match first {
            Poll::Ready(Ok(Answer::None)) => return Ok(()),
            Poll::Ready(Ok(answer)) => Queued::Ready(answer),
            Poll::Ready(Err(refusal)) => return Err(End::Refused(refusal)),
            Poll::Pending if waits == Waits::InLine => match stop.run_until_cancelled(&mut work).await {
                Some(answer) => Queued::Ready(answer.map_err(End::Refused)?),
                // It is answered as one of the last: a coordinator that resigns answers everyone who waits for it.
                None => Queued::Waiting(work, permit),
            },
            Poll::Pending => Queued::Waiting(work, permit),
        };
        self.due.push(queued, stop).await;
        Ok(())
    }

    async fn frame(&mut self) -> Result<(Bytes, OwnedSemaphorePermit), End> {
        while self.buffer.len() < LENGTH_BYTES {
            self.first_bytes().await?;
        }
        let services = &self.caller.services;
        let length = self.buffer.get_i32();
        let size =
            usize::try_from(length).ok().filter(|size| *size <= services.settings.limits.frame_bytes_max).ok_or(End::Length(length))?;
        let budget = services.budgets.frame_bytes.clone();
        // The budget is charged for received bytes, not for the announced length: a client that announces a long frame and sends nothing uses no
        // budget.
        let mut permit = charge(&budget, self.buffer.len().min(size)).await?;
        while self.buffer.len() < size {
            let before = self.buffer.len();
            let room = if size <= RESERVED_AT_ONCE { size - before } else { (size - before).min(before.max(RESERVED_AT_ONCE)) };
            self.buffer.reserve(room);
            self.read(STALLED_FRAME, "a request was incomplete").await?;
            permit.merge(charge(&budget, self.buffer.len().min(size) - before).await?);
        }
        Ok((self.buffer.split_to(size).freeze(), permit))
    }

    /// Waits for the next frame. A connection that is silent for a while frees its buffer (a new connection has none yet), and one that stays silent
    /// is closed.
    async fn first_bytes(&mut self) -> Result<(), End> {
        let idle = self.caller.services.settings.limits.idle;
        if self.buffer.is_empty() {
            let readable = match timeout(BUFFER_IDLE, self.half.readable()).await {
                Ok(readable) => readable,
                Err(_) => {
                    self.buffer = BytesMut::new();
                    timeout(idle, self.half.readable()).await.map_err(|_| End::Stalled("it was idle"))?
                }
            };
            readable.map_err(End::Peer)?;
        }
        self.read(idle, "it was idle").await
    }

    async fn read(&mut self, patience: Duration, stalled: &'static str) -> Result<(), End> {
        self.buffer.reserve(READ_BYTES);
        match timeout(patience, self.half.read(&mut self.buffer)).await {
            Err(_) => Err(End::Stalled(stalled)),
            Ok(Err(error)) => Err(End::Peer(error)),
            Ok(Ok(0)) if self.buffer.is_empty() => Err(End::Closed),
            Ok(Ok(0)) => Err(End::Peer(ErrorKind::UnexpectedEof.into())),
            Ok(Ok(_)) => Ok(()),
        }
    }
}

/// Acquires bytes from the budget of all connections; waits for them at most as long as for an incomplete frame.
async fn charge(budget: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, End> {
    // Usually enough bytes are free, and then no timer is needed.
    if let Ok(permit) = budget.clone().try_acquire_many_owned(bytes as u32) {
        return Ok(permit);
    }
    match timeout(STALLED_FRAME, budget.clone().acquire_many_owned(bytes as u32)).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) => Err(End::Stopping),
        Err(_) => Err(End::Stalled("queued.max.request.bytes is used up by other requests")),
    }
}

/// Writes responses in the order of their requests; responses that are ready together are sent together.
async fn write_answers(half: &mut WriteHalf, due: &Due) -> End {
    while let Some(queued) = due.pop().await {
        let mut next = Some(match queued {
            Queued::Ready(answer) => Ok(answer),
            Queued::Waiting(work, _permit) => work.await,
        });
        let (mut together, mut refused) = (Vec::new(), None);
        while let Some(answer) = next {
            match answer {
                Ok(Answer::Parts(parts)) => together.extend(parts),
                Ok(Answer::None) => {}
                Err(refusal) => {
                    refused = Some(refusal);
                    break;
                }
            }
            next = due.pop_ready().await;
        }
        match half.write(&together, STALLED_ANSWER).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::TimedOut => return End::Stalled("the peer does not read its responses"),
            Err(error) => return End::Peer(error),
        }
        if let Some(refusal) = refused {
            return End::Refused(refusal);
        }
    }
    End::Closed
}
