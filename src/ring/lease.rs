//! The right to read a block or a frame: taking it, and giving it back.
//!
//! Each block or frame belongs to the kernel or to us, as its status word says. We add one word of our own,
//! `leased`: the kernel's word alone does not distinguish a block that waits to be read from one that a lease
//! still holds, and the cursor must not lend anything twice.
//!
//! ```text
//!   kernel owns ──retire──► ready ──take──► leased ──drop──► kernel owns
//!     status 0              USER             USER, leased 1    status 0, then leased 0
//! ```
//!
//! Only the thread with a `&mut` to the ring takes; any thread may give back.

#[cfg(all(test, not(miri)))]
mod model;

use std::sync::atomic::{AtomicU32, Ordering};

use super::word::Word;

pub(crate) const STATUS_KERNEL: u32 = libc::TP_STATUS_KERNEL;
pub(crate) const STATUS_USER: u32 = libc::TP_STATUS_USER;

/// The orderings of the lease protocol; see the table in `ring.rs`.
pub(crate) trait LeaseOrders {
    const CHECK_LEASE: Ordering;
    const TAKE: Ordering;
    const RETURN: Ordering;
    const END_LEASE: Ordering;
}

/// The orderings in use. `model.rs` has weaker ones that must fail.
#[derive(Debug)]
pub(crate) struct Sound;

impl LeaseOrders for Sound {
    const CHECK_LEASE: Ordering = Ordering::Acquire;
    const TAKE: Ordering = Ordering::Acquire;
    const RETURN: Ordering = Ordering::Release;
    const END_LEASE: Ordering = Ordering::Release;
}

/// Takes a block or frame if it is ready and not leased; returns its status word at that time.
#[inline]
fn try_take<O: LeaseOrders>(status: &impl Word, leased: &impl Word) -> Option<u32> {
    // In this order: a thread that gives one back frees the status first and ends the lease last, so a thread
    // that sees the lease ended sees no stale USER.
    if leased.load(O::CHECK_LEASE) != 0 {
        return None;
    }
    let taken = status.load(O::TAKE);
    if taken & STATUS_USER == 0 {
        return None;
    }
    // Relaxed: only this thread reads it before the lease is handed on, and the hand-over orders it.
    leased.store(1, Ordering::Relaxed);
    Some(taken)
}

/// Gives a taken block or frame back to the kernel.
#[inline]
fn give_back<O: LeaseOrders>(status: &impl Word, leased: &impl Word) {
    status.store(STATUS_KERNEL, O::RETURN);
    leased.store(0, O::END_LEASE);
}

/// The `leased` words of a ring.
#[derive(Debug)]
pub(super) struct Leases {
    words: Box<[AtomicU32]>,
}

impl Leases {
    pub(super) fn new(count: usize) -> Self {
        Self { words: (0..count).map(|_| AtomicU32::new(0)).collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// Takes entry `index` if it is ready and not leased; returns its status word at that time.
    #[inline]
    pub(super) fn try_take(&self, index: usize, status: &AtomicU32) -> Option<u32> {
        try_take::<Sound>(status, &self.words[index])
    }

    /// Gives entry `index`, which must have been taken, back to the kernel.
    #[inline]
    pub(super) fn give_back(&self, index: usize, status: &AtomicU32) {
        give_back::<Sound>(status, &self.words[index]);
    }

    /// Returns whether [`try_take`](Self::try_take) would succeed.
    pub(super) fn is_ready(&self, index: usize, status: &AtomicU32) -> bool {
        // Relaxed: a hint; `try_take` looks again.
        self.words[index].load(Ordering::Relaxed) == 0
            && status.load(Ordering::Relaxed) & STATUS_USER != 0
    }

    /// Returns the entries that are leased now. An entry whose lease ends after this check is still included.
    pub(super) fn held(&self) -> impl Iterator<Item = usize> {
        // Acquire: pairs with END_LEASE.
        let held = |word: &AtomicU32| word.load(Ordering::Acquire) != 0;
        self.words.iter().enumerate().filter_map(move |(index, word)| held(word).then_some(index))
    }
}
