//! What has been sent comes back, for whoever needs it first.
//!
//! A frame that was received by one socket and sent on by another comes back on the completion ring of the
//! latter, which may have nothing to do for long, while the former runs out of chunks to receive into. So any
//! socket of a UMEM can empty every completion ring of it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Chunk, Holder, Umem};
use crate::ring::xsk_ring::Consumer;

/// A socket's completion ring.
#[derive(Debug)]
pub(crate) struct Completions {
    /// The numbers of the socket's own chunks to send from; others go home.
    own: Range<u32>,
    holder: Holder,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ring: Consumer<u64>,
    came_back: CameBack,
}

/// What has come back since the socket last asked.
#[derive(Debug, Default)]
struct CameBack {
    own: Vec<Chunk>,
    counts: CompletionCounts,
}

/// How many entries have come back.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct CompletionCounts {
    pub(crate) entries: u32,
    /// Those that name no chunk of ours that is out.
    pub(crate) malformed: u64,
}

impl Completions {
    pub(crate) fn new(ring: Consumer<u64>, own: Range<u32>, share: u32) -> Self {
        let holder = Holder::tx(share);
        Self { own, holder, state: Mutex::new(State { ring, came_back: CameBack::default() }) }
    }

    /// The numbers of the socket's own chunks.
    pub(crate) fn own(&self) -> &Range<u32> {
        &self.own
    }

    /// Empties the ring; what has come back of the socket's own is added to `free`.
    pub(crate) fn take(&self, umem: &Umem, free: &mut Vec<Chunk>) -> CompletionCounts {
        let mut state = self.lock();
        self.empty(umem, &mut state);
        free.append(&mut state.came_back.own);
        std::mem::take(&mut state.came_back.counts)
    }

    fn empty(&self, umem: &Umem, state: &mut State) {
        let State { ring, came_back } = state;
        ring.pop_each(u32::MAX, |address| {
            match umem.take_back(address, self.holder) {
                Some(chunk) if self.own.contains(&chunk.number()) => came_back.own.push(chunk),
                Some(chunk) => umem.put_back(chunk),
                None => came_back.counts.malformed += 1,
            }
            came_back.counts.entries += 1;
        });
        ring.release();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Umem {
    /// Has others empty this completion ring too.
    pub(crate) fn register(&self, completions: &Arc<Completions>) {
        let mut all = self.completions.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(completions));
    }

    /// Sends home what has come back on any socket's completion ring.
    pub(crate) fn gather_completions(&self) {
        let all = self.completions.lock().unwrap_or_else(PoisonError::into_inner);
        for completions in all.iter().filter_map(std::sync::Weak::upgrade) {
            completions.empty(self, &mut completions.lock());
        }
    }
}
