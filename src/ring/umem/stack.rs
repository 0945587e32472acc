//! The stack on which chunks come back: any thread pushes a chain, its owner takes all.

use std::sync::atomic::{AtomicU32, Ordering};

/// The end of a chain of chunks.
pub(super) const NONE: u32 = u32::MAX;

/// The orderings of the stack of returned chunks; see the table in `ring.rs`.
pub(in crate::ring) trait ReturnOrders {
    const PUSH: Ordering;
    const TAKE: Ordering;
}

/// The orderings in use. `model.rs` has weaker ones that must fail.
#[derive(Debug)]
pub(in crate::ring) struct Sound;

impl ReturnOrders for Sound {
    const PUSH: Ordering = Ordering::Release;
    const TAKE: Ordering = Ordering::Acquire;
}

/// The head of a stack that any thread may push to.
pub(in crate::ring) trait Head {
    fn look(&self) -> u32;
    fn swap(&self, value: u32, ordering: Ordering) -> u32;
    /// Replaces `current`, or returns the head found instead.
    fn replace(&self, current: u32, new: u32, ordering: Ordering) -> Result<u32, u32>;
}

impl Head for AtomicU32 {
    fn look(&self) -> u32 {
        // Relaxed: a guess, which `replace` checks.
        self.load(Ordering::Relaxed)
    }

    fn swap(&self, value: u32, ordering: Ordering) -> u32 {
        AtomicU32::swap(self, value, ordering)
    }

    fn replace(&self, current: u32, new: u32, ordering: Ordering) -> Result<u32, u32> {
        self.compare_exchange_weak(current, new, ordering, Ordering::Relaxed)
    }
}

/// Pushes a chain that begins with `first`; `link` makes its last chunk point to the chunk passed in.
///
/// If the head changes and returns to the same value between look and replace, that does no harm: the chain
/// is linked to it, whatever has been taken meanwhile.
pub(super) fn push<O: ReturnOrders>(head: &impl Head, first: u32, link: impl Fn(u32)) {
    let mut current = head.look();
    loop {
        link(current);
        match head.replace(current, first, O::PUSH) {
            Ok(_) => return,
            Err(other) => current = other,
        }
    }
}

/// Takes everything that was pushed; returns the first chunk of a chain.
pub(super) fn take_all<O: ReturnOrders>(head: &impl Head) -> u32 {
    head.swap(NONE, O::TAKE)
}
