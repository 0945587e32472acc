//! A capture in its own thread with a queue in front of it, for programs without an executor, and for tasks of any
//! executor that move from thread to thread.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_core::Stream;

use crate::afpacket::{CaptureBuilder, FilterHandle, StatsHandle};
use crate::error::{Error, Result, Step};
use crate::executor;
use crate::io::AsyncCapture;
use crate::ring::batch::PacketBatch;
use crate::stats::CaptureStats;
use crate::wait::StopHandle;

/// Number of batches in the queue that may stay in the ring. Further batches are copied out of it, so that a
/// slow reader occupies no more of the ring than that.
const IN_THE_RING: usize = 4;

/// The treatment of a batch for which the queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The thread waits for room. Packets that the ring cannot hold meanwhile are dropped and counted by the
    /// kernel.
    #[default]
    Block,
    /// The batch is dropped, and its packets are counted ([`ChannelStats::dropped`]). Every batch is copied out
    /// of the ring, so that a slow reader never stops the ring.
    Drop,
}

/// A builder for a capture in its own thread; returned by [`ChannelCapture::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct ChannelCaptureBuilder {
    capture: CaptureBuilder,
    capacity: usize,
    overflow: Overflow,
}

impl ChannelCaptureBuilder {
    /// Sets the number of batches that the queue holds, at least 1. Default: 64.
    pub fn capacity(mut self, batches: usize) -> Self {
        self.capacity = batches.max(1);
        self
    }

    /// Sets the treatment of batches when the queue is full. Default: [`Overflow::Block`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Opens the capture and starts its thread.
    ///
    /// # Errors
    /// As for [`CaptureBuilder::build`]; [`Error::Os`] if the thread cannot be started.
    pub fn build(self) -> Result<ChannelCapture> {
        let Self { capture, capacity, overflow } = self;
        let mut capture = capture.build()?;
        let (stop, stats) = (capture.stop_handle()?, capture.stats_handle());
        let (filter, interface) = (capture.filter_handle(), capture.interface().to_owned());
        let state = Mutex::new(State::default());
        let (filled, emptied) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state, filled, emptied, capacity, overflow });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(format!("ringtap-{interface}"))
            .spawn(move || {
                let _ended = Ended(&of_thread);
                let outcome = executor::Executor::new(crate::options::ReactorOptions::default())
                    .and_then(|executor| executor.block_on(run(capture, &of_thread)));
                of_thread.lock().error = outcome.err();
            })
            .map_err(|error| Error::os(Step::SpawnThread, error))?;
        Ok(ChannelCapture { shared, thread: Some(thread), stop, stats, filter, interface })
    }
}

async fn run(capture: crate::afpacket::Capture, shared: &Shared) -> Result<()> {
    let mut capture = AsyncCapture::new(capture)?;
    while let Some(batch) = capture.next_batch().await? {
        if !shared.put(batch) {
            break;
        }
    }
    Ok(())
}

/// A capture in its own thread, run by this crate's executor. Its batches come through a bounded queue.
///
/// ```no_run
/// use ringtap::Capture;
/// use ringtap::channel::ChannelCapture;
///
/// # fn main() -> ringtap::Result<()> {
/// let capture = ChannelCapture::builder(Capture::builder().interface("eth0")).build()?;
/// for batch in capture.iter() {
///     println!("{} packets", batch?.len());
/// }
/// # Ok(())
/// # }
/// ```
///
/// It is also a stream, which any executor can poll on any thread: nothing of this crate needs to be attached there.
///
/// ```no_run
/// use ringtap::channel::ChannelCapture;
///
/// # fn spawn(_: impl Future<Output = ringtap::Result<()>> + Send + 'static) {}
/// # fn main() -> ringtap::Result<()> {
/// let capture = ChannelCapture::open("eth0")?;
/// spawn(async move {
///     while let Some(batch) = capture.next_batch().await? {
///         println!("{} packets", batch.len());
///     }
///     Ok(())
/// });
/// # Ok(())
/// # }
/// ```
///
/// Any number of threads and tasks may receive. With [`Overflow::Block`], only batches behind the first four in the queue
/// are copied, each as a whole. Dropping the capture ends the thread, waits until it has ended, and discards the queue.
pub struct ChannelCapture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    stop: StopHandle,
    stats: StatsHandle,
    filter: FilterHandle,
    interface: String,
}

/// Statistics of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ChannelStats {
    /// Statistics of the socket.
    pub capture: CaptureStats,
    /// Packets received.
    pub received: u64,
    /// Packets in the queue.
    pub queued: u64,
    /// Packets dropped because the queue had no room.
    pub dropped: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signals that there is a batch, or that the end has come.
    filled: Condvar,
    /// Signals that there is room, or that the receiver is gone.
    emptied: Condvar,
    capacity: usize,
    overflow: Overflow,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<PacketBatch>,
    received: u64,
    queued: u64,
    dropped: u64,
    /// The tasks that wait for a batch or the end.
    waiting: Vec<Waker>,
    /// Whether the thread has ended.
    has_ended: bool,
    /// Whether the receiver is gone.
    is_abandoned: bool,
    error: Option<Error>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch to the queue. Returns false if the receiver is gone.
    fn put(&self, batch: PacketBatch) -> bool {
        let mut state = self.lock();
        let packets = batch.len() as u64;
        if state.queue.len() >= self.capacity && self.overflow == Overflow::Drop {
            state.dropped += packets;
            return !state.is_abandoned;
        }
        // The kernel fills blocks in order and stops at a held one. If it must not stop, copy the batch so that
        // none is held.
        let batch = if state.queue.len() >= IN_THE_RING || self.overflow == Overflow::Drop {
            drop(state);
            let batch = batch.detach();
            state = self.lock();
            batch
        } else {
            batch
        };
        while state.queue.len() >= self.capacity && !state.is_abandoned {
            state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_abandoned {
            return false;
        }
        state.queued += packets;
        state.queue.push_back(batch);
        self.filled.notify_one();
        wake_waiting(state);
        true
    }
}

/// Wakes all waiting tasks: one alone might be dropped before it takes the batch. Wakers are others' code, and run while
/// nothing is locked.
fn wake_waiting(mut state: MutexGuard<'_, State>) {
    let waiting = std::mem::take(&mut state.waiting);
    drop(state);
    waiting.into_iter().for_each(Waker::wake);
}

/// Signals the end of the thread, even if it panics.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if std::thread::panicking() {
            state.error = Some(Error::other("the capturing thread has panicked"));
        }
        state.has_ended = true;
        self.0.filled.notify_all();
        wake_waiting(state);
    }
}

impl ChannelCapture {
    /// Opens a capture with the default options.
    ///
    /// # Errors
    /// As for [`ChannelCaptureBuilder::build`].
    pub fn open(interface: &str) -> Result<Self> {
        Self::builder(crate::afpacket::Capture::builder().interface(interface)).build()
    }

    /// Returns a builder with the given capture options, on which the queue's options can be set.
    pub fn builder(capture: CaptureBuilder) -> ChannelCaptureBuilder {
        ChannelCaptureBuilder { capture, capacity: 64, overflow: Overflow::default() }
    }

    /// Waits for the next batch; `None` once the capture was stopped and everything is received.
    ///
    /// # Errors
    /// The error that ended the capture, reported once, after all batches before it.
    pub fn recv(&self) -> Result<Option<PacketBatch>> {
        self.take(None)
    }

    /// Waits for the next batch for at most `timeout`; `None` also if the time is up. To tell the two apart,
    /// see [`has_ended`](Self::has_ended).
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<PacketBatch>> {
        self.take(Instant::now().checked_add(timeout))
    }

    /// Returns the next batch without waiting; `None` if there is none.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<PacketBatch>> {
        self.take(Some(Instant::now()))
    }

    /// Returns an iterator over the batches up to the end.
    pub fn iter(&self) -> Received<'_> {
        Received(self)
    }

    /// Waits for the next batch, as a task of any executor; `None` once the capture was stopped and everything is received.
    /// Cancel-safe: a wait that is dropped has taken nothing.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    pub async fn next_batch(&self) -> Result<Option<PacketBatch>> {
        poll_fn(|cx| self.poll_next_batch(cx)).await
    }

    /// Polls for the next batch; see [`next_batch`](Self::next_batch).
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    pub fn poll_next_batch(&self, cx: &mut Context<'_>) -> Poll<Result<Option<PacketBatch>>> {
        let mut state = self.shared.lock();
        if let Some(taken) = self.take_now(&mut state) {
            return Poll::Ready(taken);
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Takes the next batch or the end, if there is one.
    fn take_now(&self, state: &mut State) -> Option<Result<Option<PacketBatch>>> {
        if let Some(batch) = state.queue.pop_front() {
            let packets = batch.len() as u64;
            state.queued -= packets;
            state.received += packets;
            self.shared.emptied.notify_one();
            return Some(Ok(Some(batch)));
        }
        state.has_ended.then(|| state.error.take().map_or(Ok(None), Err))
    }

    fn take(&self, until: Option<Instant>) -> Result<Option<PacketBatch>> {
        let mut state = self.shared.lock();
        loop {
            if let Some(taken) = self.take_now(&mut state) {
                return taken;
            }
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.shared.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return Ok(None),
                Some(left) => {
                    let waited = self.shared.filled.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Returns whether the thread has ended and everything is received, including an error.
    pub fn has_ended(&self) -> bool {
        let state = self.shared.lock();
        state.has_ended && state.queue.is_empty() && state.error.is_none()
    }

    /// Asks the capture to end. The packets in its ring and in the queue can still be received.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// Returns a handle that stops the capture from elsewhere.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Returns a handle that changes the capture's filter.
    pub fn filter_handle(&self) -> FilterHandle {
        self.filter.clone()
    }

    /// Returns the name of the interface.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Returns the totals so far.
    ///
    /// # Errors
    /// As for [`StatsHandle::stats`].
    pub fn stats(&self) -> Result<ChannelStats> {
        let capture = self.stats.stats()?;
        let State { received, queued, dropped, .. } = *self.shared.lock();
        Ok(ChannelStats { capture, received, queued, dropped })
    }
}

impl Drop for ChannelCapture {
    fn drop(&mut self) {
        self.stop.stop();
        {
            let mut state = self.shared.lock();
            state.is_abandoned = true;
            state.queue.clear();
        }
        self.shared.emptied.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Stream for ChannelCapture {
    type Item = Result<PacketBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_next_batch(cx).map(Result::transpose)
    }
}

/// An iterator over the batches of a [`ChannelCapture`] up to the end, from [`ChannelCapture::iter`].
#[derive(Debug)]
pub struct Received<'a>(&'a ChannelCapture);

impl Iterator for Received<'_> {
    type Item = Result<PacketBatch>;

    fn next(&mut self) -> Option<Result<PacketBatch>> {
        self.0.recv().transpose()
    }
}

impl<'a> IntoIterator for &'a ChannelCapture {
    type Item = Result<PacketBatch>;
    type IntoIter = Received<'a>;

    fn into_iter(self) -> Received<'a> {
        self.iter()
    }
}

impl fmt::Debug for ChannelCapture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelCapture")
            .field("interface", &self.interface)
            .field("capacity", &self.shared.capacity)
            .field("overflow", &self.shared.overflow)
            .finish_non_exhaustive()
    }
}
