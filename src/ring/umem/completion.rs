//! Sent chunks come back to whichever socket needs them first.
//!
//! A frame that one socket received and another sent on comes back on the completion ring of the second. That
//! socket may have nothing to do for a long time, while the first runs out of chunks to receive into. So any
//! socket of a UMEM can empty all of its completion rings.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Chunk, Holder, Umem};
use crate::ring::xsk_ring::Consumer;

/// A socket's completion ring.
#[derive(Debug)]
pub(crate) struct Completions {
    /// The numbers of the socket's own chunks for sending; other chunks go home.
    own: Range<u32>,
    holder: Holder,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ring: Consumer<u64>,
    came_back: CameBack,
}

/// The chunks that have come back since the socket last asked.
#[derive(Debug, Default)]
struct CameBack {
    own: Vec<Chunk>,
    counts: CompletionCounts,
}

/// Counts of the entries that have come back.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct CompletionCounts {
    pub(crate) entries: u32,
    /// Entries that do not name a chunk of ours that is out.
    pub(crate) malformed: u64,
}

impl Completions {
    pub(crate) fn new(ring: Consumer<u64>, own: Range<u32>, share: u32) -> Self {
        let holder = Holder::tx(share);
        Self { own, holder, state: Mutex::new(State { ring, came_back: CameBack::default() }) }
    }

    /// Returns the numbers of the socket's own chunks.
    pub(crate) fn own(&self) -> &Range<u32> {
        &self.own
    }

    /// Empties the ring; the socket's own chunks that have come back are added to `free`.
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
    /// Registers a completion ring, so that other sockets empty it too.
    pub(crate) fn register(&self, completions: &Arc<Completions>) {
        let mut all = self.completions.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(completions));
    }

    /// Sends home the chunks that have come back on any socket's completion ring.
    pub(crate) fn gather_completions(&self) {
        let all = self.completions.lock().unwrap_or_else(PoisonError::into_inner);
        for completions in all.iter().filter_map(std::sync::Weak::upgrade) {
            completions.empty(self, &mut completions.lock());
        }
    }
}
