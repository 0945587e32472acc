//! A queue from a capture to whoever takes the bytes of a flow, on any thread.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use flowscope::{EndReason, FlowSide};

use super::bytes::StreamBytes;
use super::consumer::{Data, Wanted};

/// What keeping an item costs beyond its bytes.
const OVERHEAD: usize = 64;

/// What comes of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlowChunk {
    /// The next bytes of who began the flow.
    Initiator(StreamBytes),
    /// The next bytes of who was asked.
    Responder(StreamBytes),
    /// Bytes are missing here.
    Gap {
        /// Whose.
        side: FlowSide,
        /// How many.
        bytes: u64,
    },
    /// It is over, and this is the last of it.
    Closed(EndReason),
}

use FlowChunk as Chunk;

/// What is done where a flow's bytes are not taken as fast as they come, and as many wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BacklogPolicy {
    /// Bytes are left out: a gap.
    #[default]
    Gap,
    /// The flow is closed, with [`EndReason::BufferOverflow`].
    Close,
    /// The whole stream waits, so its ring backs up, and the kernel drops and counts.
    Wait,
}

/// How many bytes of a flow may wait, and what is done beyond.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backlog {
    pub(super) cap: usize,
    pub(super) policy: BacklogPolicy,
}

impl Backlog {
    pub(super) const DEFAULT: Self = Self { cap: 1 << 20, policy: BacklogPolicy::Gap };
}

/// Both ends of a queue.
pub(super) struct Queue(Arc<Mutex<State>>);

struct State {
    items: VecDeque<(Chunk, usize)>,
    weight: usize,
    ended: Option<EndReason>,
    /// Whether the end that takes is gone.
    is_left: bool,
    /// Who waits for an item, and who for room.
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

    /// The other end of the same queue.
    pub(super) fn other(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Whether the end that takes is gone.
    pub(super) fn is_left(&self) -> bool {
        self.lock().is_left
    }

    /// Bytes that wait, with what keeping them costs.
    pub(super) fn weight(&self) -> usize {
        self.lock().weight
    }

    /// Adds a chunk of so many bytes; gaps that follow each other are one.
    pub(super) fn push(&self, chunk: Chunk, bytes: usize) {
        let mut state = self.lock();
        if state.is_left {
            drop(state);
            return; // nobody will take it
        }
        if let Chunk::Gap { side, bytes: more } = &chunk {
            // Behind the last bytes there is a gap of each side at most.
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

    /// Nothing more will come.
    pub(super) fn end(&self, reason: EndReason) {
        let mut state = self.lock();
        state.ended.get_or_insert(reason);
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Why nothing more will come.
    pub(super) fn ended(&self) -> Option<EndReason> {
        self.lock().ended
    }

    /// The next item, and what remains is taken of the weight; `None` at the end.
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

    /// Whether less than so much waits, or nobody will take it.
    pub(super) fn poll_room(&self, cap: usize, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.weight < cap || state.is_left {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Has all that wait hold no batch.
    fn detach(&self) {
        for (chunk, _) in &mut self.lock().items {
            if let Chunk::Initiator(bytes) | Chunk::Responder(bytes) = chunk {
                bytes.detach();
            }
        }
    }

    /// The end that takes is gone: whoever waits for room need not.
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

/// The end of a queue that a flow's bytes come in by.
pub(super) struct Inlet {
    pub(super) queue: Queue,
    /// The batch that bytes came of last.
    batch: u64,
}

impl Inlet {
    pub(super) fn new() -> Self {
        Self { queue: Queue::new(), batch: 0 }
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.queue.end(EndReason::ForceClosed); // unless it has ended for another reason
    }
}

/// Fills queues, and bounds what is in them.
pub(super) struct Inlets {
    pub(super) backlog: Backlog,
    /// Those that have bytes of the batch that is looked at, and its number.
    touched: Vec<Queue>,
    batch: u64,
    /// Those that have as much as they may, where the stream is to wait.
    full: Vec<Queue>,
    /// Bytes that came in since those who take them had a turn.
    pushed: usize,
}

/// After so many bytes, those who take them have a turn.
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

    /// Has what waits hold the batch no longer: who is slow takes nothing of the ring.
    pub(super) fn batch_done(&mut self) {
        self.touched.drain(..).for_each(|queue| queue.detach());
        self.batch += 1;
    }

    /// Whether those who take bytes are to have a turn before more come.
    pub(super) fn wants_turn(&self) -> bool {
        self.pushed >= TURN.min(self.backlog.cap / 2).max(1)
    }

    /// Whether there is room where the stream is to wait for it; now and then, others have a turn first.
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
