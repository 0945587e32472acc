//! The UMEM: chunks of memory that packets are received into and sent from, and the owner of each.
//!
//! ```text
//!   free ──► fill ring ──► kernel ──► RX ring ──► leased ──drop, any thread──► returned ──► free
//!   free ──► reserved ──► TX ring ──► kernel ──► completion ring ──► free
//! ```
//!
//! A [`Chunk`] cannot be copied: the owner of a chunk owns its memory. The kernel is given a chunk's number
//! and gives the number back; only at that point are chunks created from numbers again, and the numbers are
//! checked. Leased chunks come back on a stack that any thread may push to and that its owner takes as a
//! whole, so the stack needs no bound of its own.
//!
//! Several sockets may use one UMEM: each has a share of the chunks, and a stack on which these come back. So
//! one socket can send a frame that another has received without moving it: its chunk goes home (back to its
//! own share) once it has been sent.

#![allow(unsafe_code, reason = "shared memory, reached by pointer; each use names its invariant")]

mod completion;
mod given;
pub(crate) mod hints;
mod lease;
mod lending;
#[cfg(all(test, not(miri)))]
mod model;
mod stack;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

pub(crate) use self::completion::{CompletionCounts, Completions};
use self::given::NOBODY;
pub(crate) use self::given::{FillHolder, Holder};
pub(crate) use self::lease::{ChunkLease, ChunkPlace, Taken};
pub(crate) use self::lending::Lending;
use self::stack::{NONE, Sound, push, take_all};
use crate::sys::Mapping;

/// A chunk that is ours: nothing else knows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk(u32);

/// Information about a received chunk, written by the socket's thread before it is lent.
#[derive(Debug)]
struct Slot {
    /// The next chunk of the same lease, or of the stack.
    next: AtomicU32,
    offset: AtomicU32,
    len: AtomicU32,
    /// The ring by which the chunk was given to the kernel; [`NOBODY`] while the chunk is ours.
    given: AtomicU32,
}

/// Flag in a slot's offset: the frame was gathered from several chunks, and lies in the lease's own memory.
const GATHERED: u32 = 1 << 31;

/// The memory and the state of its chunks.
#[derive(Debug)]
pub(crate) struct Umem {
    mapping: Mapping,
    chunk_size: u32,
    /// Base-2 logarithm of the chunk size: addresses are split by shifts.
    chunk_shift: u32,
    /// Bytes of a chunk before a frame to send.
    prefix: u32,
    /// Number of chunks per share.
    share_len: u32,
    shares_taken: AtomicU32,
    /// Shares that were taken and given back unused.
    spare: Mutex<Vec<Share>>,
    slots: Box<[Slot]>,
    /// The chunks of each share that have come back.
    returned: Box<[AtomicU32]>,
    /// The completion rings of the sockets that use this UMEM.
    completions: Mutex<Vec<Weak<Completions>>>,
}

/// One socket's part of a UMEM, from [`Umem::take_share`].
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) number: u32,
    pub(crate) chunks: Vec<Chunk>,
    /// The holder of the share's fill ring.
    pub(crate) holder: FillHolder,
}

impl Chunk {
    pub(crate) fn number(&self) -> u32 {
        self.0
    }
}

impl Umem {
    /// Creates a UMEM with as many chunks of `chunk_size` bytes (a power of two) as `mapping` holds, divided
    /// into `shares` equal shares. Frames to send begin `prefix` bytes into their chunk.
    pub(crate) fn new(mapping: Mapping, chunk_size: u32, prefix: u32, shares: u32) -> Self {
        assert!(chunk_size.is_power_of_two() && prefix < chunk_size, "validated by the geometry");
        let count = u32::try_from(mapping.len() / chunk_size as usize).expect("bounded by it");
        assert!(
            shares > 0 && count > 0 && count.is_multiple_of(shares),
            "validated by the geometry"
        );
        let slot = |_| Slot {
            next: AtomicU32::new(NONE),
            offset: AtomicU32::new(0),
            len: AtomicU32::new(0),
            given: AtomicU32::new(NOBODY),
        };
        let slots = (0..count).map(slot).collect();
        let returned = (0..shares).map(|_| AtomicU32::new(NONE)).collect();
        let (share_len, shares_taken) = (count / shares, AtomicU32::new(0));
        let (completions, spare) = Default::default();
        let chunk_shift = chunk_size.trailing_zeros();
        Self {
            mapping,
            chunk_size,
            chunk_shift,
            prefix,
            share_len,
            shares_taken,
            spare,
            slots,
            returned,
            completions,
        }
    }

    /// Returns the next share, if one is left.
    pub(crate) fn take_share(&self) -> Option<Share> {
        if let Some(spare) = self.spare().pop() {
            return Some(spare);
        }
        let shares = self.returned.len() as u32;
        // Relaxed: only a number; the share it stands for has existed as long as the UMEM.
        let number =
            self.shares_taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < shares).then_some(taken + 1)
            });
        let number = number.ok()?;
        let first = number * self.share_len;
        let chunks = (first..first + self.share_len).map(Chunk).collect();
        Some(Share { number, chunks, holder: FillHolder::new(number) })
    }

    /// Makes a share that no socket uses available again.
    pub(crate) fn return_share(&self, mut share: Share) {
        share.chunks.sort_by_key(Chunk::number); // in the order in which it was taken
        self.spare().push(share);
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Share>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes back all chunks that a fill ring was given. Its socket was never bound, so the kernel has none
    /// of them.
    pub(crate) fn take_unseen(&self, share: u32, holder: &mut FillHolder, free: &mut Vec<Chunk>) {
        let first = share * self.share_len;
        for index in first..first + self.share_len {
            if holder.claim(&self.slots[index as usize].given) {
                free.push(Chunk(index));
            }
        }
    }

    pub(crate) fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// Returns the bytes of a chunk before a frame to send.
    pub(crate) fn prefix(&self) -> u32 {
        self.prefix
    }

    /// Returns the number of chunks per share.
    pub(crate) fn share_len(&self) -> u32 {
        self.share_len
    }

    /// Returns the address of the first byte, for the kernel.
    pub(crate) fn base(&self) -> u64 {
        self.mapping.base().as_ptr() as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Returns the offset of an address in its chunk.
    #[inline]
    pub(crate) fn offset_of(&self, address: u64) -> u32 {
        address as u32 & (self.chunk_size - 1)
    }

    /// Gives a chunk away by a ring; returns the chunk's offset from the start of the UMEM.
    #[inline]
    pub(crate) fn give(&self, chunk: Chunk, holder: Holder) -> u64 {
        let slot = &self.slots[chunk.0 as usize];
        Returned { umem: self, chunk, slot }.give(holder)
    }

    /// Takes back a chunk that was given away by a TX ring and that the kernel names by the address of any of
    /// its bytes. Returns `None` if the chunk is not one of ours or was not given away by that ring: the
    /// kernel can name a frame twice if it did not send it.
    ///
    /// Any thread may call this, and several at once: one of them gets the chunk.
    #[inline]
    pub(crate) fn take_back(&self, address: u64, holder: Holder) -> Option<Chunk> {
        let (index, slot) = self.slot_at(address)?;
        given::claim(&slot.given, holder).then_some(Chunk(index))
    }

    /// Takes back a chunk that was given away by a fill ring, as [`take_back`](Self::take_back) does.
    #[inline]
    pub(crate) fn take_received(&self, address: u64, holder: &mut FillHolder) -> Option<Chunk> {
        self.receive(address, holder).map(|(chunk, _)| chunk)
    }

    /// Does what [`take_received`](Self::take_received) does, and also returns the information about the
    /// chunk.
    #[inline]
    fn receive(&self, address: u64, holder: &mut FillHolder) -> Option<(Chunk, &Slot)> {
        let (index, slot) = self.slot_at(address)?;
        holder.claim(&slot.given).then_some((Chunk(index), slot))
    }

    /// Returns the chunk that contains an address.
    #[inline]
    fn slot_at(&self, address: u64) -> Option<(u32, &Slot)> {
        let index = usize::try_from(address >> self.chunk_shift).ok()?;
        self.slots.get(index).map(|slot| (index as u32, slot)) // there are fewer than 2^32
    }

    /// Sends home the chunks of other shares that a socket's TX ring still has: the kernel has let go of
    /// them.
    pub(crate) fn bring_home(&self, share: u32) {
        for index in self.foreign(share) {
            if let Some(chunk) =
                self.take_back(u64::from(index) << self.chunk_shift, Holder::tx(share))
            {
                self.put_back(chunk);
            }
        }
        // Chunks of the socket's own share are ones that it received itself: no socket is left to send them
        // home to.
    }

    /// Returns whether a socket's TX ring has chunks of other shares.
    pub(crate) fn has_foreign(&self, share: u32) -> bool {
        let holder = Holder::tx(share);
        // Relaxed: the caller owns the socket that gave these chunks away.
        self.foreign(share)
            .any(|index| holder.has(self.slots[index as usize].given.load(Ordering::Relaxed)))
    }

    /// Returns whether more than one socket can use this UMEM.
    pub(crate) fn is_shared(&self) -> bool {
        self.returned.len() > 1
    }

    fn foreign(&self, share: u32) -> impl Iterator<Item = u32> {
        let share_len = self.share_len;
        (0..self.slots.len() as u32).filter(move |index| index / share_len != share)
    }

    /// Returns whether these bytes lie inside a chunk.
    #[inline]
    pub(crate) fn holds(&self, from: u32, len: u32) -> bool {
        u64::from(from) + u64::from(len) <= u64::from(self.chunk_size)
    }

    /// Returns some bytes of a chunk, or `None` if they are not inside of it.
    #[inline]
    pub(crate) fn bytes<'a>(&'a self, chunk: &'a Chunk, from: u32, len: u32) -> Option<&'a [u8]> {
        if !self.holds(from, len) {
            return None;
        }
        assert!((chunk.0 as usize) < self.slots.len(), "a chunk of this UMEM");
        let at = chunk.0 as usize * self.chunk_size as usize + from as usize;
        // SAFETY: chunks are created by `take_share` and `take_back`, inside the mapping; the rest was
        // checked.
        let bytes = unsafe { self.mapping.base().add(at) };
        // SAFETY: the stretch lies inside the mapping, which `self` owns; and the owner of the chunk owns its
        // bytes: neither the kernel nor a lease knows it.
        Some(unsafe { std::slice::from_raw_parts(bytes.as_ptr(), len as usize) })
    }

    /// Returns a chunk's bytes for writing.
    #[inline]
    pub(crate) fn bytes_mut<'a>(&'a self, chunk: &'a mut Chunk) -> &'a mut [u8] {
        assert!((chunk.0 as usize) < self.slots.len(), "a chunk of this UMEM");
        let at = chunk.0 as usize * self.chunk_size as usize;
        // SAFETY: chunks are created by `take_share` and `take_back`, inside the mapping.
        let bytes = unsafe { self.mapping.base().add(at) };
        // SAFETY: the stretch lies inside the mapping, which `self` owns; and the owner of the chunk owns its
        // bytes: neither the kernel nor a lease knows it, and the borrow of it keeps any other away.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_ptr(), self.chunk_size as usize) }
    }

    /// Sends a chunk home, whichever share it belongs to.
    pub(crate) fn put_back(&self, chunk: Chunk) {
        let next = &self.slots[chunk.0 as usize].next;
        // Relaxed: ordered by the push that makes it visible.
        push::<Sound>(self.home(chunk.0), chunk.0, |head| next.store(head, Ordering::Relaxed));
    }

    /// Returns the stack on which a chunk comes back.
    fn home(&self, index: u32) -> &AtomicU32 {
        &self.returned[(index / self.share_len) as usize]
    }

    /// Takes the chunks of a share that have come back since the last call.
    #[inline]
    pub(crate) fn take_returned(&self, share: u32, mut put: impl FnMut(Returned<'_>)) {
        let mut next = take_all::<Sound>(&self.returned[share as usize]);
        while next != NONE {
            let (chunk, slot) = (Chunk(next), &self.slots[next as usize]);
            // Relaxed: ordered by the swap.
            next = slot.next.load(Ordering::Relaxed);
            put(Returned { umem: self, chunk, slot });
        }
    }
}

/// A chunk that has come back, and the information about it.
#[derive(Debug)]
pub(crate) struct Returned<'a> {
    umem: &'a Umem,
    chunk: Chunk,
    slot: &'a Slot,
}

impl Returned<'_> {
    /// Does what [`Umem::give`] does.
    #[inline]
    pub(crate) fn give(self, holder: Holder) -> u64 {
        // Relaxed: a thread that takes the chunk back has learned of it through the ring.
        self.slot.given.store(holder.number(), Ordering::Relaxed);
        u64::from(self.chunk.0) << self.umem.chunk_shift
    }

    pub(crate) fn keep(self) -> Chunk {
        self.chunk
    }
}
