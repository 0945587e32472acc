//! The TPACKET_V2 frame ring: fixed slots of one frame each, received ([`FrameRing`]) or sent
//! ([`TxRing`]).
//!
//! ```text
//!   receive: the lease protocol, slot by slot          (lease.rs)
//!   transmit: AVAILABLE ──commit──► SEND_REQUEST ──kick──► SENDING ──sent──► AVAILABLE
//!                  ▲                     ▲                │ refused
//!                  └── reclaim           └── moved up ◄── WRONG_FORMAT
//! ```
//!
//! Slots are used strictly in order. The kernel stops at the first slot that is not SEND_REQUEST, and
//! a frame it refuses stays at the head of its line until that very slot holds a better one: so the
//! frames behind a refused one move up by a slot each, and the refused one is counted.

#![allow(unsafe_code, reason = "shared memory, reached by pointer; each use names its invariant")]

#[cfg(all(test, not(miri)))]
mod model;
#[cfg(test)]
mod tests;

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::lease::Leases;
use super::word::Word;
use crate::sys::Mapping;

/// `struct tpacket2_hdr` is 32 bytes, its first word the status; a sent frame follows right behind
/// (`tpacket_parse_header`, net/packet/af_packet.c).
pub(crate) const TX_DATA_AT: usize = 32;
/// Where what we read of a slot begins: right behind the status word.
pub(super) const SLOT_BODY_AT: usize = 4;
/// Where a frame's length stands in its header.
const LEN_AT: usize = 4;

const AVAILABLE: u32 = libc::TP_STATUS_AVAILABLE;
const SEND_REQUEST: u32 = libc::TP_STATUS_SEND_REQUEST;
const SENDING: u32 = libc::TP_STATUS_SENDING;
const WRONG_FORMAT: u32 = libc::TP_STATUS_WRONG_FORMAT;
/// The bits that say whose a sent slot is; a timestamp flag may stand beside them.
const TX_STATE: u32 = SEND_REQUEST | SENDING | WRONG_FORMAT;

/// How slots lie in a mapping: a block holds whole slots, and what is left of it is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotLayout {
    pub(crate) block_size: usize,
    pub(crate) frame_size: usize,
    pub(crate) frame_count: usize,
}

/// Slots in shared memory.
#[derive(Debug)]
struct Slots {
    mapping: Mapping,
    layout: SlotLayout,
    /// Whole slots a block.
    a_block: usize,
}

impl Slots {
    fn new(mapping: Mapping, layout: SlotLayout) -> Self {
        let SlotLayout { block_size, frame_size, frame_count } = layout;
        assert!(frame_size.is_multiple_of(16) && frame_size > 80, "validated by the geometry");
        let a_block = block_size / frame_size;
        assert!(a_block > 0 && block_size.is_multiple_of(16), "validated by the geometry");
        assert!(frame_count > 0 && frame_count.is_multiple_of(a_block), "whole blocks");
        assert!(
            mapping.len() >= frame_count / a_block * block_size,
            "the mapping holds all blocks"
        );
        Self { mapping, layout, a_block }
    }

    fn offset(&self, index: usize) -> usize {
        let SlotLayout { block_size, frame_size, .. } = self.layout;
        index / self.a_block * block_size + index % self.a_block * frame_size
    }

    #[inline]
    fn slot(&self, index: usize) -> NonNull<u8> {
        assert!(index < self.layout.frame_count, "slot index within the ring");
        // SAFETY: the index is below the count, as just asserted, and the mapping holds all slots,
        // as `new` asserts.
        unsafe { self.mapping.base().add(self.offset(index)) }
    }

    #[inline]
    fn status(&self, index: usize) -> &AtomicU32 {
        // SAFETY: the word is the first of a slot, which is 16-aligned and lives as long as the
        // mapping, that is as `self`; it is only ever accessed atomically, by us and by the kernel.
        unsafe { AtomicU32::from_ptr(self.slot(index).as_ptr().cast()) }
    }

    #[inline]
    fn next(&self, index: usize) -> usize {
        if index + 1 == self.layout.frame_count { 0 } else { index + 1 }
    }
}

/// The reader's half of a frame ring.
#[derive(Debug)]
pub(crate) struct FrameRing {
    shared: Arc<RxShared>,
    cursor: usize,
    /// The most frames a lease takes.
    batch_limit: usize,
    /// Leases taken: the kernel numbers blocks, but not runs of frames.
    sequence: u64,
}

#[derive(Debug)]
struct RxShared {
    slots: Slots,
    leases: Leases,
    malformed: Arc<AtomicU64>,
}

impl FrameRing {
    /// A ring over `mapping`; a lease takes `batch_limit` frames at most.
    pub(crate) fn new(
        mapping: Mapping,
        layout: SlotLayout,
        batch_limit: usize,
        malformed: Arc<AtomicU64>,
    ) -> Self {
        let slots = Slots::new(mapping, layout);
        let leases = Leases::new(layout.frame_count);
        let shared = Arc::new(RxShared { slots, leases, malformed });
        Self { shared, cursor: 0, batch_limit: batch_limit.max(1), sequence: 0 }
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
        Some(FrameLease {
            shared: Arc::clone(&self.shared),
            first,
            count,
            flags,
            sequence: self.sequence,
            is_counted: AtomicBool::new(false),
        })
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
    /// Lets go of the socket although leases are out, as a block ring does.
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

/// A run of frames, ours until dropped, in whatever thread.
#[derive(Debug)]
pub(crate) struct FrameLease {
    shared: Arc<RxShared>,
    first: usize,
    count: usize,
    /// The status words of all frames, put together.
    flags: u32,
    sequence: u64,
    is_counted: AtomicBool,
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
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Frame `number` of this run: its status word, and its slot from behind that word on.
    #[inline]
    pub(crate) fn frame(&self, number: usize) -> (u32, &[u8]) {
        let index = self.index(number);
        let slots = &self.shared.slots;
        // Relaxed: taken with acquire, and nobody writes it until this lease ends.
        let status = slots.status(index).load(Ordering::Relaxed);
        // SAFETY: a slot is longer than its status word.
        let body = unsafe { slots.slot(index).add(SLOT_BODY_AT) };
        let len = slots.layout.frame_size - SLOT_BODY_AT;
        // SAFETY: the stretch lies inside the mapping, which `shared` keeps alive. The status word
        // was USER when this frame was taken, with acquire, and only our drop sets it back, so the
        // kernel writes nothing here meanwhile; nor does any code of ours. `Mapping::detach` may
        // swap the pages for private ones with the same bytes.
        (status, unsafe { std::slice::from_raw_parts(body.as_ptr(), len) })
    }

    /// Counts a frame that could not be read, once a lease.
    pub(crate) fn count_malformed(&self, packets: u64) {
        // Relaxed: statistics.
        if !self.is_counted.swap(true, Ordering::Relaxed) {
            self.shared.malformed.fetch_add(packets, Ordering::Relaxed);
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

/// The orderings of the transmit protocol; see the table in `ring.rs`.
pub(crate) trait TxOrders {
    const COMMIT: Ordering;
    const RECLAIM: Ordering;
}

/// The orderings we use. `slot/model.rs` has weaker ones that must fail.
#[derive(Debug)]
pub(crate) struct Sound;

impl TxOrders for Sound {
    const COMMIT: Ordering = Ordering::Release;
    const RECLAIM: Ordering = Ordering::Acquire;
}

/// Publishes a filled slot.
#[inline]
fn commit<O: TxOrders>(status: &impl Word) {
    status.store(SEND_REQUEST, O::COMMIT);
}

/// Whose a slot is.
#[inline]
fn tx_state<O: TxOrders>(status: &impl Word) -> u32 {
    status.load(O::RECLAIM) & TX_STATE
}

/// The sender's half of a frame ring.
///
/// Four counters, each at most the one before: `committed` ≥ `handed` ≥ `completed`, and `refused`
/// beside them. Between `completed` and `committed` lie the slots in use.
#[derive(Debug)]
pub(crate) struct TxRing {
    slots: Slots,
    committed: u64,
    handed: u64,
    completed: u64,
    refused: u64,
}

impl TxRing {
    pub(crate) fn new(mapping: Mapping, layout: SlotLayout) -> Self {
        let slots = Slots::new(mapping, layout);
        Self { slots, committed: 0, handed: 0, completed: 0, refused: 0 }
    }

    /// The most bytes a frame may have.
    pub(crate) fn capacity(&self) -> usize {
        self.slots.layout.frame_size - TX_DATA_AT
    }

    pub(crate) fn frame_count(&self) -> usize {
        self.slots.layout.frame_count
    }

    /// Frames committed so far, refused ones not counted.
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    /// Frames the kernel has refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Frames committed that the kernel has not begun to send, as of the last [`look`](Self::look).
    pub(crate) fn pending(&self) -> usize {
        (self.committed - self.handed) as usize
    }

    /// Frames committed that are not sent yet, as of the last [`look`](Self::look).
    pub(crate) fn in_use(&self) -> usize {
        (self.committed - self.completed) as usize
    }

    pub(crate) fn available(&self) -> usize {
        self.frame_count() - self.in_use()
    }

    /// The bytes of the next free slot, for a frame to be written into; `None` where none is free.
    pub(crate) fn vacant(&mut self) -> Option<&mut [u8]> {
        if self.available() == 0 {
            return None;
        }
        let index = self.index(self.committed);
        Some(self.bytes(index))
    }

    /// Publishes the next free slot, holding a frame of `len` bytes.
    pub(crate) fn commit(&mut self, len: usize) {
        assert!(self.available() > 0 && len <= self.capacity(), "checked by the injector");
        let index = self.index(self.committed);
        self.set_len(index, len as u32);
        commit::<Sound>(self.slots.status(index));
        self.committed += 1;
    }

    /// Looks how far the kernel has come: frames it has begun to send, frames it has sent, and
    /// whether it refused the one it stands at, which is then taken out of the line.
    ///
    /// The kernel must not be at work on the ring: it is only inside a kick, which is over.
    pub(crate) fn look(&mut self) {
        while self.handed < self.committed {
            match tx_state::<Sound>(self.slots.status(self.index(self.handed))) {
                SEND_REQUEST => break,
                WRONG_FORMAT => self.move_up(),
                _ => self.handed += 1,
            }
        }
        while self.completed < self.handed {
            let state = tx_state::<Sound>(self.slots.status(self.index(self.completed)));
            if state != AVAILABLE {
                break;
            }
            self.completed += 1;
        }
    }

    /// Takes the refused frame at `handed` out: each frame behind it moves one slot up.
    fn move_up(&mut self) {
        self.refused += 1;
        self.committed -= 1;
        for position in self.handed..self.committed {
            let (to, from) = (self.index(position), self.index(position + 1));
            let len = self.len(from);
            self.copy(from, to, len as usize);
            self.set_len(to, len);
            // In line order: the kernel, kicked only later, finds no hole.
            commit::<Sound>(self.slots.status(to));
        }
        // Relaxed: nobody but us looks at it before it is committed again.
        self.slots.status(self.index(self.committed)).store(AVAILABLE, Ordering::Relaxed);
    }

    fn index(&self, position: u64) -> usize {
        (position % self.slots.layout.frame_count as u64) as usize
    }

    /// A slot's bytes for a frame. The slot must be ours.
    fn bytes(&mut self, index: usize) -> &mut [u8] {
        let capacity = self.capacity();
        // SAFETY: a slot is longer than its header.
        let data = unsafe { self.slots.slot(index).add(TX_DATA_AT) };
        // SAFETY: the stretch lies inside the mapping, which `self` owns; the slot was seen
        // AVAILABLE with acquire, or never used, so the kernel is done with it; and `&mut self`
        // keeps any other reference away.
        unsafe { std::slice::from_raw_parts_mut(data.as_ptr(), capacity) }
    }

    fn copy(&mut self, from: usize, to: usize, len: usize) {
        let len = len.min(self.capacity());
        // SAFETY: a slot is longer than its header.
        let source = unsafe { self.slots.slot(from).add(TX_DATA_AT) };
        // SAFETY: a slot is longer than its header.
        let target = unsafe { self.slots.slot(to).add(TX_DATA_AT) };
        // SAFETY: both stretches lie in different slots of our mapping. The kernel stands at or
        // before them, outside of any kick, so it neither reads the target nor writes the source.
        unsafe { source.copy_to_nonoverlapping(target, len) };
    }

    fn len_word(&self, index: usize) -> NonNull<u32> {
        // SAFETY: a slot is longer than its header, and 16-aligned, so the word is aligned.
        unsafe { self.slots.slot(index).add(LEN_AT) }.cast()
    }

    fn len(&self, index: usize) -> u32 {
        // SAFETY: inside our mapping; the kernel does not write this word of a slot it has not sent.
        unsafe { self.len_word(index).read() }
    }

    fn set_len(&mut self, index: usize, len: u32) {
        // SAFETY: inside our mapping; the slot is ours, so nobody reads the word meanwhile.
        unsafe { self.len_word(index).write(len) };
    }

    #[cfg(test)]
    pub(super) fn play_kernel(&self, index: usize, state: u32) -> Option<Vec<u8>> {
        let status = self.slots.status(index);
        if status.load(Ordering::Acquire) & TX_STATE != SEND_REQUEST {
            return None;
        }
        let len = self.len(index) as usize;
        // SAFETY: a slot is longer than its header.
        let data = unsafe { self.slots.slot(index).add(TX_DATA_AT) };
        // SAFETY: a committed slot is the kernel's, whom the test plays on the owner's thread.
        let frame = unsafe { std::slice::from_raw_parts(data.as_ptr(), len) }.to_vec();
        status.store(state, Ordering::Release);
        Some(frame)
    }
}

/// What the kernel does to a receive ring, for tests.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct FrameKernelHalf {
    shared: Arc<RxShared>,
}

#[cfg(test)]
impl FrameKernelHalf {
    /// Fills a slot from behind its status word and hands it over, if the kernel owns it.
    pub(super) fn retire(&mut self, index: usize, body: &[u8], status: u32) -> bool {
        let slots = &self.shared.slots;
        assert!(body.len() <= slots.layout.frame_size - SLOT_BODY_AT, "the body fits the slot");
        // Acquire: pairs with RETURN.
        if slots.status(index).load(Ordering::Acquire) != super::lease::STATUS_KERNEL {
            return false;
        }
        // SAFETY: a slot is longer than its status word.
        let target = unsafe { slots.slot(index).add(SLOT_BODY_AT) };
        let source = NonNull::from(body).cast::<u8>();
        // SAFETY: the body fits, as asserted; the slot is the kernel's, whom we play with
        // `&mut self`; and `body` is not in the mapping.
        unsafe { source.copy_to_nonoverlapping(target, body.len()) };
        slots.status(index).store(super::lease::STATUS_USER | status, Ordering::Release);
        true
    }
}
