//! A queue from a capture to the consumer of a flow's bytes, usable on any thread.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use flowscope::{EndReason, FlowSide};

use super::bytes::StreamBytes;
use super::consumer::{Data, Wanted};

/// Memory used per item beyond its bytes.
const OVERHEAD: usize = 64;

/// An item from the streams of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlowChunk {
    /// The next bytes sent by the initiator.
    Initiator(StreamBytes),
    /// The next bytes sent by the responder.
    Responder(StreamBytes),
    /// Missing bytes.
    Gap {
        /// Side whose bytes are missing.
        side: FlowSide,
        /// Number of missing bytes.
        bytes: u64,
    },
    /// The end of the flow; nothing follows it.
    Closed(EndReason),
}

use FlowChunk as Chunk;

/// Policy for a flow whose bytes are consumed too slowly, applied when the limit of waiting bytes is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BacklogPolicy {
    /// Bytes are left out, and a gap is reported.
    #[default]
    Gap,
    /// The flow is closed with [`EndReason::BufferOverflow`].
    Close,
    /// The whole stream waits: its ring fills up, and the kernel drops packets and counts them.
    Wait,
}

/// The limit of waiting bytes per flow, and the policy beyond it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backlog {
    pub(super) cap: usize,
    pub(super) policy: BacklogPolicy,
}

impl Backlog {
    pub(super) const DEFAULT: Self = Self { cap: 1 << 20, policy: BacklogPolicy::Gap };
}

/// Either end of a queue.
pub(super) struct Queue(Arc<Mutex<State>>);

struct State {
    items: VecDeque<(Chunk, usize)>,
    weight: usize,
    ended: Option<EndReason>,
    /// Whether the receiving end is gone.
    is_left: bool,
    /// The wakers of the task that waits for an item, and of the one that waits for room.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Queue {
    pub(super) fn new() -> Self {
        let (items, weight, ended, is_left) = (VecDeque::new(), 0, None, false);
        let state = State { items, weight, ended, is_left, reader: None, writer: None };
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the other end of the queue.
    pub(super) fn other(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Returns whether the receiving end is gone.
    pub(super) fn is_left(&self) -> bool {
        self.lock().is_left
    }

    /// Returns the number of waiting bytes, including overhead.
    pub(super) fn weight(&self) -> usize {
        self.lock().weight
    }

    /// Adds a chunk of `bytes` bytes, merging consecutive gaps.
    pub(super) fn push(&self, chunk: Chunk, bytes: usize) {
        let mut state = self.lock();
        if state.is_left {
            drop(state);
            return; // there is no receiver
        }
        if let Chunk::Gap { side, bytes: more } = &chunk {
            // After the last bytes there is at most one gap per side.
            for (chunk, _) in state.items.iter_mut().rev().take(2) {
                match chunk {
                    Chunk::Gap { side: of, bytes } if of == side => {
                        *bytes += more;
                        return;
                    }
                    Chunk::Gap { .. } => {}
                    _ => break,
                }
            }
        }
        state.weight += bytes + OVERHEAD;
        state.items.push_back((chunk, bytes + OVERHEAD));
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Ends the queue: nothing more will be added.
    pub(super) fn end(&self, reason: EndReason) {
        let mut state = self.lock();
        state.ended.get_or_insert(reason);
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Returns why the queue has ended, if it has.
    pub(super) fn ended(&self) -> Option<EndReason> {
        self.lock().ended
    }

    /// Polls for the next item. Returns `None` at the end.
    pub(super) fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<Chunk>> {
        let mut state = self.lock();
        let Some((item, weight)) = state.items.pop_front() else {
            if state.ended.is_some() {
                return Poll::Ready(None);
            }
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        state.weight -= weight;
        let writer = state.writer.take();
        drop(state);
        writer.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(item))
    }

    /// Is ready once less than `cap` bytes wait, or the receiving end is gone.
    pub(super) fn poll_room(&self, cap: usize, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.weight < cap || state.is_left {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Detaches all waiting bytes from their batches.
    fn detach(&self) {
        for (chunk, _) in &mut self.lock().items {
            if let Chunk::Initiator(bytes) | Chunk::Responder(bytes) = chunk {
                bytes.detach();
            }
        }
    }

    /// Closes the receiving end, and wakes a sender that waits for room.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.is_left = true;
        state.items.clear();
        state.weight = 0;
        let writer = state.writer.take();
        drop(state);
        writer.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("weight", &self.weight()).finish_non_exhaustive()
    }
}

/// The sending end of a queue, for the bytes of a flow.
#[derive(Debug)]
pub struct Inlet {
    pub(super) queue: Queue,
    /// The number of the batch that last contributed bytes.
    batch: u64,
}

impl Inlet {
    pub(super) fn new() -> Self {
        Self { queue: Queue::new(), batch: 0 }
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.queue.end(EndReason::ForceClosed); // has no effect if the queue has already ended
    }
}

/// Fills queues and limits their contents.
pub(super) struct Inlets {
    pub(super) backlog: Backlog,
    /// Queues that hold bytes of the current batch, and the number of that batch.
    touched: Vec<Queue>,
    batch: u64,
    /// Queues that have reached their limit, if the stream is to wait for them.
    full: Vec<Queue>,
    /// Bytes added since the consumers last had a turn.
    pushed: usize,
}

/// Number of bytes after which the consumers get a turn.
const TURN: usize = 128 << 10;

impl Inlets {
    pub(super) fn new() -> Self {
        Self {
            backlog: Backlog::DEFAULT,
            touched: Vec::new(),
            batch: 1,
            full: Vec::new(),
            pushed: 0,
        }
    }

    pub(super) fn put(&mut self, inlet: &mut Inlet, side: FlowSide, data: Data<'_>) -> Wanted {
        if inlet.queue.is_left() {
            return Wanted::Nothing;
        }
        let Backlog { cap, policy } = self.backlog;
        let has_room = policy == BacklogPolicy::Wait || inlet.queue.weight() < cap;
        let (chunk, len) = match data {
            Data::Fin => return Wanted::More,
            Data::Gap(bytes) => (Chunk::Gap { side, bytes }, 0),
            Data::Bytes(bytes) if has_room => {
                let bytes = bytes.keep();
                let len = bytes.len();
                if !bytes.is_detached() && inlet.batch != self.batch {
                    inlet.batch = self.batch;
                    self.touched.push(inlet.queue.other());
                }
                match side {
                    FlowSide::Initiator => (Chunk::Initiator(bytes), len),
                    FlowSide::Responder => (Chunk::Responder(bytes), len),
                }
            }
            Data::Bytes(_) if policy == BacklogPolicy::Close => {
                return Wanted::Over(EndReason::BufferOverflow);
            }
            Data::Bytes(bytes) => (Chunk::Gap { side, bytes: bytes.as_slice().len() as u64 }, 0),
        };
        inlet.queue.push(chunk, len);
        self.pushed += len;
        if policy == BacklogPolicy::Wait && inlet.queue.weight() >= cap {
            self.full.push(inlet.queue.other());
        }
        Wanted::More
    }

    /// Detaches waiting bytes from the finished batch, so that a slow consumer does not hold part of the ring.
    pub(super) fn batch_done(&mut self) {
        self.touched.drain(..).for_each(|queue| queue.detach());
        self.batch += 1;
    }

    /// Returns whether the consumers must get a turn before more bytes are added.
    pub(super) fn wants_turn(&self) -> bool {
        self.pushed >= TURN.min(self.backlog.cap / 2).max(1)
    }

    /// Is ready once all queues that the stream waits for have room. From time to time other tasks get a turn
    /// first.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.wants_turn() {
            self.pushed = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let cap = self.backlog.cap;
        self.full.retain(|queue| queue.poll_room(cap, cx).is_pending());
        if self.full.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}
