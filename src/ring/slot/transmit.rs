//! Sending from a frame ring: fill, commit, reclaim, and the handling of refused frames.

#![allow(unsafe_code, reason = "shared memory, reached by pointer; each use names its invariant")]

#[cfg(all(test, not(miri)))]
mod model;
#[cfg(test)]
mod tests;

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use super::super::word::Word;
use super::{SlotLayout, Slots};
use crate::sys::Mapping;

/// `struct tpacket2_hdr` is 32 bytes long, and its first word is the status; a frame to send follows right
/// after it (`tpacket_parse_header`, net/packet/af_packet.c).
const TX_DATA_AT: usize = 32;
/// Offset of a frame's length in its header.
const LEN_AT: usize = 4;

const AVAILABLE: u32 = libc::TP_STATUS_AVAILABLE;
const SEND_REQUEST: u32 = libc::TP_STATUS_SEND_REQUEST;
const SENDING: u32 = libc::TP_STATUS_SENDING;
const WRONG_FORMAT: u32 = libc::TP_STATUS_WRONG_FORMAT;
/// The bits that say who owns a slot; a timestamp flag may be set as well.
const TX_STATE: u32 = SEND_REQUEST | SENDING | WRONG_FORMAT;

/// The orderings of the transmit protocol; see the table in `ring.rs`.
pub(crate) trait TxOrders {
    const COMMIT: Ordering;
    const RECLAIM: Ordering;
}

/// The orderings in use. `transmit/model.rs` has weaker ones that must fail.
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

/// Returns the bits that say who owns a slot.
#[inline]
fn tx_state<O: TxOrders>(status: &impl Word) -> u32 {
    status.load(O::RECLAIM) & TX_STATE
}

/// The sender's half of a frame ring.
///
/// Three counters, each at most the one before: `committed` ≥ `handed` ≥ `completed`; `refused` and
/// `discarded` are separate. The slots in use lie between `completed` and `committed`.
#[derive(Debug)]
pub(crate) struct TxRing {
    slots: Slots,
    committed: u64,
    handed: u64,
    completed: u64,
    refused: u64,
    discarded: u64,
}

/// The kernel's progress with a ring, in frames since the ring was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    pub(crate) handed: u64,
    pub(crate) completed: u64,
}

impl TxRing {
    pub(crate) fn new(mapping: Mapping, layout: SlotLayout) -> Self {
        let slots = Slots::new(mapping, layout);
        Self { slots, committed: 0, handed: 0, completed: 0, refused: 0, discarded: 0 }
    }

    /// Returns the size in bytes of a slot for frames of up to `longest` bytes.
    pub(crate) fn slot_size(longest: usize) -> usize {
        (TX_DATA_AT + longest).next_multiple_of(libc::TPACKET_ALIGNMENT)
    }

    /// Returns the maximum length of a frame in bytes.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.slots.layout.frame_size - TX_DATA_AT
    }

    #[inline]
    pub(crate) fn frame_count(&self) -> usize {
        self.slots.layout.frame_count
    }

    /// Returns the number of frames committed so far, without refused and discarded ones.
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    /// Returns the number of frames that the kernel has refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Returns the number of frames taken back before the kernel took them.
    pub(crate) fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Returns the number of committed frames that the kernel has not begun to send, as of the last
    /// [`look`](Self::look).
    pub(crate) fn pending(&self) -> usize {
        (self.committed - self.handed) as usize
    }

    /// Returns the kernel's progress as of the last [`look`](Self::look).
    pub(crate) fn progress(&self) -> Progress {
        Progress { handed: self.handed, completed: self.completed }
    }

    /// Returns the number of committed frames that have not been sent yet, as of the last
    /// [`look`](Self::look).
    #[inline]
    pub(crate) fn in_use(&self) -> usize {
        (self.committed - self.completed) as usize
    }

    #[inline]
    pub(crate) fn available(&self) -> usize {
        self.frame_count() - self.in_use()
    }

    /// Returns the bytes of the next free slot, to write a frame into; `None` if no slot is free.
    #[inline]
    pub(crate) fn vacant(&mut self) -> Option<&mut [u8]> {
        if self.available() == 0 {
            return None;
        }
        let index = self.index(self.committed);
        Some(self.bytes(index))
    }

    /// Returns the bytes of the next free slot for reading only.
    #[inline]
    pub(crate) fn vacant_ref(&self) -> Option<&[u8]> {
        if self.available() == 0 {
            return None;
        }
        let data = self.data(self.index(self.committed));
        // SAFETY: as in `bytes`; and `&self` keeps any mutable reference away.
        Some(unsafe { std::slice::from_raw_parts(data.as_ptr(), self.capacity()) })
    }

    /// Publishes the next free slot, holding a frame of `len` bytes.
    #[inline]
    pub(crate) fn commit(&mut self, len: usize) {
        assert!(self.available() > 0 && len <= self.capacity(), "checked by the injector");
        let index = self.index(self.committed);
        self.set_len(index, len as u32);
        commit::<Sound>(self.slots.status(index));
        self.committed += 1;
    }

    /// Updates the kernel's progress: frames it has begun to send, frames it has sent, and whether it refused
    /// its current frame, which is then taken out of the line.
    ///
    /// The kernel must not be at work on the ring; it is only during a kick, so no kick may be in progress.
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

    /// Returns up to `len` of the first bytes of the frame that the kernel will take next, if one has been
    /// committed.
    pub(crate) fn head(&self, len: usize) -> Option<&[u8]> {
        if self.handed == self.committed {
            return None;
        }
        let data = self.data(self.index(self.handed));
        // SAFETY: the stretch lies inside the mapping; the kernel only ever reads a committed frame; and
        // `&self` keeps any mutable reference away.
        Some(unsafe { std::slice::from_raw_parts(data.as_ptr(), len.min(self.capacity())) })
    }

    /// Returns the length in bytes of the frame that the kernel will take next.
    pub(crate) fn head_len(&self) -> Option<usize> {
        (self.handed < self.committed).then(|| self.len(self.index(self.handed)) as usize)
    }

    /// Refuses, in the kernel's place, the frame that the kernel would take next.
    pub(crate) fn refuse_head(&mut self) {
        if self.handed < self.committed {
            self.move_up();
        }
    }

    /// Takes back all frames that the kernel has not taken and returns their number. The kernel must not be
    /// inside a kick.
    pub(crate) fn discard(&mut self) -> u64 {
        let discarded = self.abandon();
        self.discarded += discarded;
        discarded
    }

    /// Does what [`discard`](Self::discard) does, but leaves the counting to the caller.
    pub(crate) fn abandon(&mut self) -> u64 {
        let discarded = self.committed - self.handed;
        for position in self.handed..self.committed {
            // Relaxed: only we look at it before it is committed again.
            self.slots.status(self.index(position)).store(AVAILABLE, Ordering::Relaxed);
        }
        self.committed = self.handed;
        discarded
    }

    /// Removes the refused frame at `handed`; each frame behind it moves up by one slot.
    fn move_up(&mut self) {
        self.refused += 1;
        self.committed -= 1;
        for position in self.handed..self.committed {
            let (to, from) = (self.index(position), self.index(position + 1));
            let len = self.len(from);
            self.copy(from, to, len as usize);
            self.set_len(to, len);
            // In line order: the kernel, which is kicked only later, finds no hole.
            commit::<Sound>(self.slots.status(to));
        }
        // Relaxed: only we look at it before it is committed again.
        self.slots.status(self.index(self.committed)).store(AVAILABLE, Ordering::Relaxed);
    }

    #[inline]
    fn index(&self, position: u64) -> usize {
        let count = self.slots.layout.frame_count as u64;
        // Usually a power of two: a division would cost more than the rest of a commit.
        let index = if count.is_power_of_two() { position & (count - 1) } else { position % count };
        index as usize
    }

    /// Returns a slot's bytes for a frame. The slot must be ours.
    #[inline]
    fn bytes(&mut self, index: usize) -> &mut [u8] {
        let (data, capacity) = (self.data(index), self.capacity());
        // SAFETY: the stretch lies inside the mapping, which `self` owns; the slot was seen
        // AVAILABLE with acquire, or never used, so the kernel is done with it; and `&mut self`
        // keeps any other reference away.
        unsafe { std::slice::from_raw_parts_mut(data.as_ptr(), capacity) }
    }

    /// Returns the start of a slot's bytes for a frame.
    #[inline]
    fn data(&self, index: usize) -> NonNull<u8> {
        // SAFETY: a slot is longer than its header.
        unsafe { self.slots.slot(index).add(TX_DATA_AT) }
    }

    fn copy(&mut self, from: usize, to: usize, len: usize) {
        let len = len.min(self.capacity());
        let (source, target) = (self.data(from), self.data(to));
        // SAFETY: both stretches lie in different slots of our mapping. The kernel stands at or before them,
        // outside of any kick, so it neither reads the target nor writes the source.
        unsafe { source.copy_to_nonoverlapping(target, len) };
    }

    #[inline]
    fn len_word(&self, index: usize) -> NonNull<u32> {
        // SAFETY: a slot is longer than its header, and 16-aligned, so the word is aligned.
        unsafe { self.slots.slot(index).add(LEN_AT) }.cast()
    }

    fn len(&self, index: usize) -> u32 {
        // SAFETY: inside our mapping; the kernel does not write this word of a slot it has not sent.
        unsafe { self.len_word(index).read() }
    }

    #[inline]
    fn set_len(&mut self, index: usize, len: u32) {
        // SAFETY: inside our mapping; the slot is ours, so nothing reads the word meanwhile.
        unsafe { self.len_word(index).write(len) };
    }

    #[cfg(test)]
    pub(super) fn play_kernel(&self, index: usize, state: u32) -> Option<Vec<u8>> {
        let status = self.slots.status(index);
        if status.load(Ordering::Acquire) & TX_STATE != SEND_REQUEST {
            return None;
        }
        let len = self.len(index) as usize;
        let data = self.data(index);
        // SAFETY: a committed slot belongs to the kernel, which the test plays on the owner's thread.
        let frame = unsafe { std::slice::from_raw_parts(data.as_ptr(), len) }.to_vec();
        status.store(state, Ordering::Release);
        Some(frame)
    }
}
