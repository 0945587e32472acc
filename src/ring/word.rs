//! The one atomic type that ring protocols are written against, so that the same code runs over shared memory
//! and under loom.

use std::sync::atomic::{AtomicU32, Ordering};

/// A 32-bit atomic word.
pub(crate) trait Word {
    fn load(&self, ordering: Ordering) -> u32;
    fn store(&self, value: u32, ordering: Ordering);
}

impl Word for AtomicU32 {
    #[inline]
    fn load(&self, ordering: Ordering) -> u32 {
        AtomicU32::load(self, ordering)
    }

    #[inline]
    fn store(&self, value: u32, ordering: Ordering) {
        AtomicU32::store(self, value, ordering);
    }
}

#[cfg(all(test, not(miri)))]
impl Word for loom::sync::atomic::AtomicU32 {
    fn load(&self, ordering: Ordering) -> u32 {
        loom::sync::atomic::AtomicU32::load(self, ordering)
    }

    fn store(&self, value: u32, ordering: Ordering) {
        loom::sync::atomic::AtomicU32::store(self, value, ordering);
    }
}
