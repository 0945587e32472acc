//! Ownership of the chunks that the kernel has: which ring gave each away, and who may take it back.
//!
//! A chunk that was given away by a TX ring is taken back by the first that hears of it: its socket, another
//! socket of the UMEM that looks through the completion ring, or, if its socket has ended, the sweep for
//! chunks left behind. So taking one back is an atomic exchange. A chunk that was given away by a fill ring
//! comes back by one RX ring alone; the right to take it from there is a value that cannot be copied, and
//! costs no exchange.

use std::sync::atomic::{AtomicU32, Ordering};

/// Value of a chunk's word if the kernel does not have the chunk.
pub(super) const NOBODY: u32 = 0;

/// A ring by which chunks are given to the kernel: that of a socket, identified by its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder(u32);

/// A fill ring, and the right to take back the chunks given away by it: there is one of each.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FillHolder(Holder);

impl Holder {
    pub(crate) fn tx(share: u32) -> Self {
        Self(2 * share + 2)
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// Returns whether a chunk's word says that this ring has the chunk.
    pub(super) fn has(self, word: u32) -> bool {
        self.0 == word
    }
}

impl FillHolder {
    /// Creates the holder of a share's fill ring. Called once for each share.
    pub(super) fn new(share: u32) -> Self {
        Self(Holder(2 * share + 1))
    }

    pub(crate) fn holder(&self) -> Holder {
        self.0
    }

    /// Takes a chunk back by its word; returns whether this ring had it.
    #[inline]
    pub(super) fn claim(&mut self, word: &AtomicU32) -> bool {
        // Relaxed, and no exchange: only the holder of this `&mut self` takes back chunks that this ring was
        // given.
        if !self.0.has(word.load(Ordering::Relaxed)) {
            return false;
        }
        word.store(NOBODY, Ordering::Relaxed);
        true
    }
}

/// The operations on a chunk's word; loom has its own, and one that is too weak.
pub(super) trait Claimable {
    /// Replaces `current` by `new`; returns whether the word was `current`.
    fn replace(&self, current: u32, new: u32) -> bool;
}

impl Claimable for AtomicU32 {
    #[inline]
    fn replace(&self, current: u32, new: u32) -> bool {
        // Relaxed: the bytes are ordered by the ring, or by the lock of the list of closed sockets.
        self.compare_exchange(current, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Takes a chunk back by its word, on any thread; returns whether that ring had it and no other caller was
/// first.
#[inline]
pub(super) fn claim(word: &impl Claimable, holder: Holder) -> bool {
    word.replace(holder.0, NOBODY)
}
