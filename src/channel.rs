//! A capture in a thread of its own, and a queue to it: for programs without any executor.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::afpacket::{CaptureBuilder, FilterHandle, StatsHandle};
use crate::error::{Error, Result, Step};
use crate::executor;
use crate::io::AsyncCapture;
use crate::ring::batch::PacketBatch;
use crate::stats::CaptureStats;
use crate::wait::StopHandle;

/// Batches in the queue up to which they stay in the ring; what comes behind them is copied out of it, so that a slow
/// reader takes no more of the ring than that.
const IN_THE_RING: usize = 4;

/// What is done with a batch for which the queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The thread waits for room: what the ring cannot hold meanwhile, the kernel drops and counts.
    #[default]
    Block,
    /// It is dropped, and its packets counted ([`ChannelStats::dropped`]). Every batch is copied out of the ring, which
    /// so never stops for a slow reader.
    Drop,
}

/// How a capture in a thread is made; from [`ChannelCapture::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct ChannelCaptureBuilder {
    capture: CaptureBuilder,
    capacity: usize,
    overflow: Overflow,
}

impl ChannelCaptureBuilder {
    /// Batches that the queue holds, at least 1. Default 64.
    pub fn capacity(mut self, batches: usize) -> Self {
        self.capacity = batches.max(1);
        self
    }

    /// What is done where it is full. Default [`Overflow::Block`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Opens the capture and starts its thread.
    ///
    /// # Errors
    /// As [`CaptureBuilder::build`]; [`Error::Os`] where there can be no thread, or it no reactor.
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

/// Captures in a thread of its own, with this crate's executor; batches come through a bounded queue.
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
/// Any number of threads may receive. With [`Overflow::Block`], nothing is copied but what is behind four batches in the
/// queue, and that a batch at a time. Dropping it ends the thread, and what is in the queue is gone.
pub struct ChannelCapture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    stop: StopHandle,
    stats: StatsHandle,
    filter: FilterHandle,
    interface: String,
}

/// What went through a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ChannelStats {
    /// What the socket counted.
    pub capture: CaptureStats,
    /// Packets received.
    pub received: u64,
    /// Packets that are in the queue.
    pub queued: u64,
    /// Packets dropped for want of room in the queue.
    pub dropped: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is a batch, or the end has come.
    filled: Condvar,
    /// There is room, or nobody wants any more.
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
    /// The thread has ended.
    has_ended: bool,
    /// Nobody receives any more.
    is_abandoned: bool,
    error: Option<Error>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is anybody to receive more.
    fn put(&self, batch: PacketBatch) -> bool {
        let mut state = self.lock();
        let packets = batch.len() as u64;
        if state.queue.len() >= self.capacity && self.overflow == Overflow::Drop {
            state.dropped += packets;
            return !state.is_abandoned;
        }
        // The kernel fills blocks in order and stops at one that is held: where it must not, none is.
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
        true
    }
}

/// Tells of the thread's end, also by a panic.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if std::thread::panicking() {
            state.error = Some(Error::other("the capturing thread has panicked"));
        }
        state.has_ended = true;
        drop(state);
        self.0.filled.notify_all();
    }
}

impl ChannelCapture {
    /// Opens one with the default options.
    ///
    /// # Errors
    /// As [`ChannelCaptureBuilder::build`].
    pub fn open(interface: &str) -> Result<Self> {
        Self::builder(crate::afpacket::Capture::builder().interface(interface)).build()
    }

    /// With a capture's options, and then the queue's.
    pub fn builder(capture: CaptureBuilder) -> ChannelCaptureBuilder {
        ChannelCaptureBuilder { capture, capacity: 64, overflow: Overflow::default() }
    }

    /// Waits for the next batch; `None` once it was stopped and all is received.
    ///
    /// # Errors
    /// What the capture ended by, once, behind all batches before.
    pub fn recv(&self) -> Result<Option<PacketBatch>> {
        self.take(None)
    }

    /// Waits at most so long: `None` too when the time is up; see [`has_ended`](Self::has_ended).
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<PacketBatch>> {
        self.take(Instant::now().checked_add(timeout))
    }

    /// The next batch if there is one.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<PacketBatch>> {
        self.take(Some(Instant::now()))
    }

    /// The batches up to the end.
    pub fn iter(&self) -> Received<'_> {
        Received(self)
    }

    fn take(&self, until: Option<Instant>) -> Result<Option<PacketBatch>> {
        let mut state = self.shared.lock();
        loop {
            if let Some(batch) = state.queue.pop_front() {
                let packets = batch.len() as u64;
                state.queued -= packets;
                state.received += packets;
                self.shared.emptied.notify_one();
                return Ok(Some(batch));
            }
            if state.has_ended {
                return state.error.take().map_or(Ok(None), Err);
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

    /// Whether the thread has ended, and all is received, an error included.
    pub fn has_ended(&self) -> bool {
        let state = self.shared.lock();
        state.has_ended && state.queue.is_empty() && state.error.is_none()
    }

    /// Asks the capture to end: what its ring and the queue hold can be received.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// A handle to do so from elsewhere.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// A handle to change its filter.
    pub fn filter_handle(&self) -> FilterHandle {
        self.filter.clone()
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// What went through so far.
    ///
    /// # Errors
    /// As [`StatsHandle::stats`].
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

/// The batches of a [`ChannelCapture`] up to the end; from [`ChannelCapture::iter`].
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
