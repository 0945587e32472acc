//! The AF_XDP rings (fill, completion, RX, TX): entries between two indices, one owned by each side.
//!
//! ```text
//!             consumer                producer
//!   … free … ├──── published ────────┤ … free …       indices count on for ever, wrapping at 2^32
//! ```
//!
//! The producer writes entries and then publishes its index; the consumer reads them and then publishes its
//! own. Each keeps a copy of the other's index, and looks again only if the copy says that there is nothing
//! to do. Our two halves mirror each other, so in tests each plays the kernel for the other.

#![allow(unsafe_code, reason = "shared memory, reached by pointer; each use names its invariant")]

#[cfg(all(test, not(miri)))]
mod model;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::word::Word;
use crate::sys::Mapping;

/// The orderings of the index protocol; see the table in `ring.rs`.
pub(crate) trait IndexOrders {
    const PUBLISH: Ordering;
    const OBSERVE: Ordering;
}

/// The orderings in use. `model.rs` has weaker ones that must fail.
#[derive(Debug)]
pub(crate) struct Sound;

impl IndexOrders for Sound {
    const PUBLISH: Ordering = Ordering::Release;
    const OBSERVE: Ordering = Ordering::Acquire;
}

/// One side's view of the two indices.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    /// The index of this side, published or not.
    own: u32,
    /// The index of the other side at the last look.
    other: u32,
}

impl Cursor {
    fn new(own: &impl Word, other: &impl Word) -> Self {
        // Relaxed: nothing has been written yet.
        Self { own: own.load(Ordering::Relaxed), other: other.load(Ordering::Relaxed) }
    }

    /// Updates the copy of the other side's index.
    #[inline]
    fn observe<O: IndexOrders>(&mut self, other: &impl Word) {
        self.other = other.load(O::OBSERVE);
    }

    /// Publishes this side's index to the other side.
    #[inline]
    fn publish<O: IndexOrders>(self, own: &impl Word) {
        own.store(self.own, O::PUBLISH);
    }

    /// Returns the number of entries that a producer may write.
    #[inline]
    fn vacant(self, size: u32) -> u32 {
        // A consumer ahead of its producer is not valid: nothing is vacant then.
        size.saturating_sub(self.own.wrapping_sub(self.other))
    }

    /// Returns the number of entries that a consumer may read.
    #[inline]
    fn filled(self, size: u32) -> u32 {
        let filled = self.other.wrapping_sub(self.own);
        if filled > size { 0 } else { filled }
    }
}

/// An entry of a ring: plain data for which every bit pattern is valid.
///
/// # Safety
/// Only for integers, and `repr(C)` structs of integers without padding.
pub(crate) unsafe trait Entry: Copy + 'static {}

// SAFETY: an integer: the address of a chunk.
unsafe impl Entry for u64 {}

/// The position of a frame in the UMEM (`struct xdp_desc`, linux/if_xdp.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub(crate) struct Descriptor {
    /// Offset from the start of the UMEM.
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) options: u32,
}

// SAFETY: a repr(C) struct of integers, 16 bytes, without padding.
unsafe impl Entry for Descriptor {}

const _: () = assert!(size_of::<Descriptor>() == size_of::<libc::xdp_desc>());

/// The positions of a ring's parts in its mapping (`struct xdp_ring_offset`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexLayout {
    pub(crate) producer: usize,
    pub(crate) consumer: usize,
    pub(crate) flags: usize,
    pub(crate) entries: usize,
    /// Number of entries: a power of two.
    pub(crate) size: u32,
}

/// A ring in shared memory.
#[derive(Debug)]
pub(crate) struct IndexRing<T> {
    mapping: Mapping,
    layout: IndexLayout,
    /// One less than the number of entries.
    mask: u32,
    entry: PhantomData<T>,
}

impl<T: Entry> IndexRing<T> {
    pub(crate) fn new(mapping: Mapping, layout: IndexLayout) -> Self {
        let IndexLayout { producer, consumer, flags, entries, size } = layout;
        assert!(size.is_power_of_two() && size <= 1 << 16, "validated by the geometry");
        for word in [producer, consumer, flags] {
            assert!(word.is_multiple_of(4) && word + 4 <= mapping.len(), "inside the mapping");
        }
        let len = size as usize * size_of::<T>();
        assert!(entries.is_multiple_of(align_of::<T>()) && entries + len <= mapping.len());
        Self { mapping, layout, mask: size - 1, entry: PhantomData }
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `at` is one of the three offsets that `new` has checked to lie inside the mapping.
        let word = unsafe { self.mapping.base().add(at) };
        // SAFETY: aligned, as `new` has checked; it lives as long as the mapping, and so as long as `self`;
        // and it is only ever accessed atomically, by us and by the kernel.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
    }

    #[inline]
    fn entry(&self, index: u32) -> NonNull<T> {
        let at = (index & self.mask) as usize;
        // SAFETY: the array of `size` entries lies inside the mapping, as `new` has checked.
        let entries = unsafe { self.mapping.base().add(self.layout.entries) }.cast::<T>();
        // SAFETY: masked, and so below `size`.
        unsafe { entries.add(at) }
    }

    /// Returns whether the kernel sleeps and must be told of new entries (`XDP_RING_NEED_WAKEUP`).
    pub(crate) fn needs_wakeup(&self) -> bool {
        // The caller's publish must be visible before this flag is read, just as the kernel sets the flag
        // before it looks at the ring again: otherwise both could see the other's old value.
        fence(Ordering::SeqCst);
        self.word(self.layout.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    fn producer(&self) -> &AtomicU32 {
        self.word(self.layout.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.word(self.layout.consumer)
    }
}

/// The side that writes entries, for the fill and TX rings.
#[derive(Debug)]
pub(crate) struct Producer<T> {
    ring: Arc<IndexRing<T>>,
    cursor: Cursor,
}

impl<T: Entry> Producer<T> {
    pub(crate) fn new(ring: Arc<IndexRing<T>>) -> Self {
        let cursor = Cursor::new(ring.producer(), ring.consumer());
        Self { ring, cursor }
    }

    /// Returns the number of entries that may be pushed: at least `want`, if there is that much room.
    #[inline]
    pub(crate) fn vacant(&mut self, want: u32) -> u32 {
        let size = self.ring.layout.size;
        if self.cursor.vacant(size) < want {
            self.cursor.observe::<Sound>(self.ring.consumer());
        }
        self.cursor.vacant(size)
    }

    /// Returns room for up to `want` entries, limited by the room there is; looks at the other side once.
    #[inline]
    pub(crate) fn places(&mut self, want: u32) -> Places<'_, T> {
        let room = self.vacant(want).min(want);
        Places { producer: self, room }
    }

    /// Writes the next entry, for which there must be room. The other side sees it after the next
    /// [`publish`](Self::publish).
    #[inline]
    pub(crate) fn push(&mut self, entry: T) {
        self.places(1).another().expect("asked before").fill(entry);
    }

    /// Returns the number of entries ever pushed, modulo 2^32.
    #[inline]
    pub(crate) fn pushed(&self) -> u32 {
        self.cursor.own
    }

    #[inline]
    pub(crate) fn publish(&mut self) {
        self.cursor.publish::<Sound>(self.ring.producer());
    }

    /// Returns the value of [`outstanding`](Self::outstanding) as of the last look.
    pub(crate) fn known_outstanding(&self) -> u32 {
        self.cursor.own.wrapping_sub(self.cursor.other)
    }

    /// Returns the number of entries, published or not, that the other side has not taken yet.
    pub(crate) fn outstanding(&mut self) -> u32 {
        self.cursor.observe::<Sound>(self.ring.consumer());
        self.cursor.own.wrapping_sub(self.cursor.other)
    }

    pub(crate) fn ring(&self) -> &IndexRing<T> {
        &self.ring
    }
}

impl Producer<Descriptor> {
    /// Returns the number of frames, published or not, that the other side has not taken completely yet; a
    /// frame of several pieces counts once.
    pub(crate) fn outstanding_frames(&mut self) -> u32 {
        let left = self.outstanding().min(self.ring.layout.size);
        let is_last = |back: &u32| {
            let entry = self.ring.entry(self.cursor.own.wrapping_sub(*back));
            // SAFETY: inside the array, and initialised by the kernel; only this side ever writes there.
            let Descriptor { options, .. } = unsafe { entry.read() };
            options & libc::XDP_PKT_CONTD == 0
        };
        (1..=left).filter(is_last).count() as u32
    }
}

/// Room for one entry.
#[derive(Debug)]
pub(crate) struct Place<'a, T>(&'a mut Producer<T>);

impl<T: Entry> Place<'_, T> {
    /// Writes the entry; see [`Producer::push`].
    #[inline]
    pub(crate) fn fill(self, entry: T) {
        let Producer { ring, cursor } = self.0;
        // SAFETY: the entry lies between producer and consumer, the latter seen with acquire: the other side
        // has read its old content and looks at it again only once it is published.
        unsafe { ring.entry(cursor.own).write(entry) };
        cursor.own = cursor.own.wrapping_add(1);
    }
}

/// Room for some entries.
#[derive(Debug)]
pub(crate) struct Places<'a, T> {
    producer: &'a mut Producer<T>,
    room: u32,
}

impl<T: Entry> Places<'_, T> {
    /// Returns room for one more entry, unless the room is used up.
    #[inline]
    pub(crate) fn another(&mut self) -> Option<Place<'_, T>> {
        self.room = self.room.checked_sub(1)?;
        Some(Place(self.producer))
    }
}

/// The side that reads entries, for the RX and completion rings.
#[derive(Debug)]
pub(crate) struct Consumer<T> {
    ring: Arc<IndexRing<T>>,
    cursor: Cursor,
}

impl<T: Entry> Consumer<T> {
    pub(crate) fn new(ring: Arc<IndexRing<T>>) -> Self {
        let cursor = Cursor::new(ring.consumer(), ring.producer());
        Self { ring, cursor }
    }

    /// Takes the available entries, at most `most`. The other side may overwrite them after the next
    /// [`release`](Self::release).
    #[inline]
    pub(crate) fn pop_each(&mut self, most: u32, mut take: impl FnMut(T)) {
        let size = self.ring.layout.size;
        if self.cursor.filled(size) < most {
            self.cursor.observe::<Sound>(self.ring.producer());
        }
        for _ in 0..self.cursor.filled(size).min(most) {
            // SAFETY: the entry lies between consumer and producer, the latter seen with acquire: the other
            // side has written it, and does so again only once it is released.
            let entry = unsafe { self.ring.entry(self.cursor.own).read() };
            self.cursor.own = self.cursor.own.wrapping_add(1);
            take(entry);
        }
    }

    /// Returns the next entry, if there is one.
    #[cfg(test)]
    pub(crate) fn pop(&mut self) -> Option<T> {
        let mut popped = None;
        self.pop_each(1, |entry| popped = Some(entry));
        popped
    }

    #[inline]
    pub(crate) fn release(&mut self) {
        self.cursor.publish::<Sound>(self.ring.consumer());
    }

    /// Returns the number of entries available to pop.
    pub(crate) fn filled(&mut self) -> u32 {
        self.cursor.observe::<Sound>(self.ring.producer());
        self.cursor.filled(self.ring.layout.size)
    }

    /// Returns whether [`pop_each`](Self::pop_each) would find an entry.
    pub(crate) fn is_ready(&self) -> bool {
        // Relaxed: a hint; `pop_each` looks again.
        let other = self.ring.producer().load(Ordering::Relaxed);
        Cursor { other, ..self.cursor }.filled(self.ring.layout.size) > 0
    }
}
