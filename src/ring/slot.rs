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
//! Slots are used strictly in order. The kernel stops at the first slot that is not SEND_REQUEST, and a
//! refused frame stays at the head of its line until that very slot holds a better one. So the frames behind
//! a refused one each move up by one slot, and the refused one is counted.

#![allow(unsafe_code, reason = "shared memory, reached by pointer; each use names its invariant")]

mod receive;
mod transmit;

use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

pub(crate) use self::receive::{FrameLease, FrameRing};
pub(crate) use self::transmit::{Progress, TxRing};
use crate::sys::Mapping;

/// Offset of the readable part of a slot: right after the status word.
pub(super) const SLOT_BODY_AT: usize = 4;

/// The layout of slots in a mapping: a block holds whole slots, and the rest of it is unused.
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
    /// Number of whole slots per block.
    a_block: usize,
    /// Whether the slots fill a block exactly, so that locating a slot takes no division.
    is_dense: bool,
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
        let is_dense = a_block * frame_size == block_size;
        Self { mapping, layout, a_block, is_dense }
    }

    #[inline]
    fn offset(&self, index: usize) -> usize {
        let SlotLayout { block_size, frame_size, .. } = self.layout;
        if self.is_dense {
            return index * frame_size;
        }
        index / self.a_block * block_size + index % self.a_block * frame_size
    }

    #[inline]
    fn slot(&self, index: usize) -> NonNull<u8> {
        assert!(index < self.layout.frame_count, "slot index within the ring");
        // SAFETY: the index is below the count, as just asserted, and the mapping holds all slots, as `new`
        // asserts.
        unsafe { self.mapping.base().add(self.offset(index)) }
    }

    #[inline]
    fn status(&self, index: usize) -> &AtomicU32 {
        // SAFETY: the word is the first of a slot, which is 16-aligned and lives as long as the mapping, and
        // so as long as `self`; it is only ever accessed atomically, by us and by the kernel.
        unsafe { AtomicU32::from_ptr(self.slot(index).as_ptr().cast()) }
    }

    #[inline]
    fn next(&self, index: usize) -> usize {
        if index + 1 == self.layout.frame_count { 0 } else { index + 1 }
    }
}

/// Three slots of 1360 bytes per block, which do not fill the block.
#[cfg(test)]
const TEST_LAYOUT: SlotLayout = SlotLayout { block_size: 4096, frame_size: 1360, frame_count: 6 };
