//! Receiving into a frame ring; a lease is a run of frames.

#![allow(unsafe_code, reason = "shared memory, reached by pointer; each use names its invariant")]

#[cfg(test)]
mod tests;

#[cfg(test)]
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::lease::Leases;
use super::super::rewrite::{BESIDE, rewrite_frame};
use super::super::rx_features::Extras;
use super::{SLOT_BODY_AT, SlotLayout, Slots};
use crate::sys::Mapping;

/// The reader's half of a frame ring.
#[derive(Debug)]
pub(crate) struct FrameRing {
    shared: Arc<RxShared>,
    cursor: usize,
    /// Maximum number of frames per lease.
    batch_limit: usize,
    /// Number of leases taken: the kernel numbers blocks, but not runs of frames.
    sequence: u64,
}

#[derive(Debug)]
struct RxShared {
    slots: Slots,
    extras: Extras,
    leases: Leases,
    malformed: Arc<AtomicU64>,
}

impl FrameRing {
    /// Creates a ring over `mapping`; a lease takes at most `batch_limit` frames, 1 to 64.
    pub(crate) fn new(
        mapping: Mapping,
        layout: SlotLayout,
        extras: Extras,
        batch_limit: usize,
        malformed: Arc<AtomicU64>,
    ) -> Self {
        let slots = Slots::new(mapping, layout);
        let leases = Leases::new(layout.frame_count);
        let shared = Arc::new(RxShared { slots, extras, leases, malformed });
        Self { shared, cursor: 0, batch_limit: batch_limit.clamp(1, 64), sequence: 0 }
    }

    /// Takes the run of frames that are ready, if there are any.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<FrameLease> {
        let RxShared { slots, leases, .. } = &*self.shared;
        let first = self.cursor;
        let (mut count, mut flags) = (0, 0);
        while count < self.batch_limit {
            let Some(status) = leases.try_take(self.cursor, slots.status(self.cursor)) else {
                break;
            };
            flags |= status;
            count += 1;
            self.cursor = slots.next(self.cursor);
        }
        if count == 0 {
            return None;
        }
        self.sequence += 1;
        let shared = Arc::clone(&self.shared);
        let (sequence, counted) = (self.sequence, AtomicU64::new(0));
        let mut lease = FrameLease { shared, first, count, flags, sequence, counted };
        if self.shared.extras.rewrites() {
            (0..count).for_each(|number| lease.rewrite(number));
        }
        Some(lease)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.shared.leases.is_ready(self.cursor, self.shared.slots.status(self.cursor))
    }

    pub(crate) fn has_leases(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    pub(crate) fn ring_len(&self) -> usize {
        self.shared.slots.mapping.len()
    }

    #[cfg(test)]
    pub(super) fn kernel_half(&self) -> FrameKernelHalf {
        FrameKernelHalf { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for FrameRing {
    /// Releases the socket even if leases are out, as a block ring does.
    fn drop(&mut self) {
        if !self.has_leases() {
            return;
        }
        let slots = &self.shared.slots;
        let kept = self.shared.leases.held().map(|index| {
            let start = slots.offset(index);
            start + SLOT_BODY_AT..start + slots.layout.frame_size
        });
        let _ = slots.mapping.detach(kept);
    }
}

/// A run of frames, ours until dropped, on any thread.
#[derive(Debug)]
pub(crate) struct FrameLease {
    shared: Arc<RxShared>,
    first: usize,
    count: usize,
    /// The combined status words of all frames.
    flags: u32,
    sequence: u64,
    /// One bit per frame that could not be read and has been counted.
    counted: AtomicU64,
}

impl FrameLease {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    #[inline]
    pub(crate) fn flags(&self) -> u32 {
        self.flags
    }

    #[inline]
    pub(crate) fn extras(&self) -> Extras {
        self.shared.extras
    }

    #[inline]
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Returns frame `number` of this run: its status word, and its slot after that word.
    #[inline]
    pub(crate) fn frame(&self, number: usize) -> (u32, &[u8]) {
        let index = self.index(number);
        let slots = &self.shared.slots;
        // Relaxed: taken with acquire, and nothing writes it until this lease ends.
        let status = slots.status(index).load(Ordering::Relaxed);
        // SAFETY: a slot is longer than its status word.
        let body = unsafe { slots.slot(index).add(SLOT_BODY_AT) };
        let len = slots.layout.frame_size - SLOT_BODY_AT;
        // SAFETY: the stretch lies inside the mapping, which `shared` keeps alive. The status word was USER
        // when this frame was taken, with acquire, and only our drop sets it back, so the kernel writes
        // nothing here meanwhile; nor does any code of ours. `Mapping::detach` may replace the pages with
        // private ones that hold the same bytes.
        (status, unsafe { std::slice::from_raw_parts(body.as_ptr(), len) })
    }

    /// Puts what frame `number` has beside its bytes into them, as the ring was asked to.
    fn rewrite(&mut self, number: usize) {
        let index = self.index(number);
        let slots = &self.shared.slots;
        // Relaxed: as in `frame`.
        let status = slots.status(index).load(Ordering::Relaxed);
        // SAFETY: a slot is longer than its status word.
        let body = unsafe { slots.slot(index).add(SLOT_BODY_AT) };
        let len = slots.layout.frame_size - SLOT_BODY_AT;
        // SAFETY: as in `frame`; and this is the only lease of this slot, borrowed exclusively.
        let body = unsafe { std::slice::from_raw_parts_mut(body.as_ptr(), len) };
        if rewrite_frame(status, body, self.shared.extras) {
            // Relaxed: the slot stays ours, and the kernel only checks whether it is.
            slots.status(index).store(status & !BESIDE, Ordering::Relaxed);
        }
    }

    /// Counts frame `number`, which could not be read, only once however often it is tried.
    pub(crate) fn count_malformed(&self, number: usize) {
        let bit = 1 << number;
        // Relaxed: statistics.
        if self.counted.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.shared.malformed.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[inline]
    fn index(&self, number: usize) -> usize {
        assert!(number < self.count, "a frame of this lease");
        let index = self.first + number;
        let count = self.shared.slots.layout.frame_count;
        if index >= count { index - count } else { index }
    }
}

impl Drop for FrameLease {
    #[inline]
    fn drop(&mut self) {
        for number in 0..self.count {
            let index = self.index(number);
            self.shared.leases.give_back(index, self.shared.slots.status(index));
        }
    }
}

/// The kernel's operations on a receive ring, for tests.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct FrameKernelHalf {
    shared: Arc<RxShared>,
}

#[cfg(test)]
impl FrameKernelHalf {
    /// Fills a slot after its status word and hands it over, if the kernel owns it.
    pub(super) fn retire(&mut self, index: usize, body: &[u8], status: u32) -> bool {
        let slots = &self.shared.slots;
        assert!(body.len() <= slots.layout.frame_size - SLOT_BODY_AT, "the body fits the slot");
        // Acquire: pairs with RETURN.
        if slots.status(index).load(Ordering::Acquire) != crate::ring::lease::STATUS_KERNEL {
            return false;
        }
        // SAFETY: a slot is longer than its status word.
        let target = unsafe { slots.slot(index).add(SLOT_BODY_AT) };
        let source = NonNull::from(body).cast::<u8>();
        // SAFETY: the body fits, as asserted; the slot belongs to the kernel, which we play with `&mut self`;
        // and `body` is not in the mapping.
        unsafe { source.copy_to_nonoverlapping(target, body.len()) };
        slots.status(index).store(crate::ring::lease::STATUS_USER | status, Ordering::Release);
        true
    }
}
