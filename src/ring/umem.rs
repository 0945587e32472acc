//! The UMEM: chunks of memory that packets are received into and sent from, and who has each.
//!
//! ```text
//!   free ──► fill ring ──► kernel ──► RX ring ──► leased ──drop, any thread──► returned ──► free
//!   free ──► reserved ──► TX ring ──► kernel ──► completion ring ──► free
//! ```
//!
//! A [`Chunk`] cannot be copied: whoever has it has the memory. The kernel is given its number and gives it
//! back, which is where chunks are made of numbers again; those are checked. What is leased comes back on a
//! stack that any thread may push to and that its owner takes as a whole, so it needs no bound of its own.
//!
//! Several sockets may use one UMEM: each has a share of the chunks, and a stack for those to come back on.
//! So a frame that one has received can be sent by another where it lies: its chunk goes home when it is sent.

#![allow(unsafe_code, reason = "shared memory, reached by pointer; each use names its invariant")]

mod completion;
#[cfg(all(test, not(miri)))]
mod model;
mod stack;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

pub(crate) use self::completion::{CompletionCounts, Completions};
use self::stack::{NONE, Sound, push, take_all};
use crate::sys::Mapping;

/// A chunk that is ours: nobody else knows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk(u32);

/// What is known of a chunk that was received: written by the socket's thread before it is lent.
#[derive(Debug)]
struct Slot {
    /// The next chunk of the same lease, or of the stack.
    next: AtomicU32,
    offset: AtomicU32,
    len: AtomicU32,
}

/// In a slot's offset: the frame was gathered from several chunks, and lies in the lease's own memory.
const GATHERED: u32 = 1 << 31;

/// The memory and what is known of it.
#[derive(Debug)]
pub(crate) struct Umem {
    mapping: Mapping,
    chunk_size: u32,
    /// Bytes of a chunk before a frame that is sent.
    prefix: u32,
    /// Chunks of a share.
    share_len: u32,
    shares_taken: AtomicU32,
    slots: Box<[Slot]>,
    /// What has come back of each share.
    returned: Box<[AtomicU32]>,
    /// The completion rings of its sockets.
    completions: Mutex<Vec<Weak<Completions>>>,
}

/// What one socket has of a UMEM, from [`Umem::take_share`].
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) number: u32,
    pub(crate) chunks: Vec<Chunk>,
}

impl Chunk {
    pub(crate) fn number(&self) -> u32 {
        self.0
    }
}

impl Umem {
    /// Chunks of `chunk_size` bytes, a power of two, as many as `mapping` holds, in so many equal shares. Frames
    /// that are sent begin `prefix` bytes into their chunk.
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
        };
        let slots = (0..count).map(slot).collect();
        let returned = (0..shares).map(|_| AtomicU32::new(NONE)).collect();
        let (share_len, shares_taken) = (count / shares, AtomicU32::new(0));
        let completions = Mutex::default();
        Self { mapping, chunk_size, prefix, share_len, shares_taken, slots, returned, completions }
    }

    /// The next share, if one is left.
    pub(crate) fn take_share(&self) -> Option<Share> {
        let shares = self.returned.len() as u32;
        // Relaxed: a number; what it stands for was there before the UMEM was.
        let number =
            self.shares_taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < shares).then_some(taken + 1)
            });
        let number = number.ok()?;
        let first = number * self.share_len;
        Some(Share { number, chunks: (first..first + self.share_len).map(Chunk).collect() })
    }

    pub(crate) fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// Bytes of a chunk before a frame that is sent.
    pub(crate) fn prefix(&self) -> u32 {
        self.prefix
    }

    /// Chunks of a share.
    pub(crate) fn share_len(&self) -> u32 {
        self.share_len
    }

    /// The address of the first byte, for the kernel.
    pub(crate) fn base(&self) -> u64 {
        self.mapping.base().as_ptr() as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Gives a chunk away: where it begins, from the start of the UMEM.
    pub(crate) fn give(&self, chunk: Chunk) -> u64 {
        u64::from(chunk.0) * u64::from(self.chunk_size)
    }

    /// Takes back a chunk that was given away, of which the kernel names any byte; `None` where it is none of
    /// ours.
    pub(crate) fn take_back(&self, address: u64) -> Option<Chunk> {
        let index = address / u64::from(self.chunk_size);
        (index < self.slots.len() as u64).then_some(Chunk(index as u32))
    }

    /// Some bytes of a chunk; `None` where they are not inside of it.
    pub(crate) fn bytes<'a>(&'a self, chunk: &'a Chunk, from: u32, len: u32) -> Option<&'a [u8]> {
        if u64::from(from) + u64::from(len) > u64::from(self.chunk_size) {
            return None;
        }
        assert!((chunk.0 as usize) < self.slots.len(), "a chunk of this UMEM");
        let at = chunk.0 as usize * self.chunk_size as usize + from as usize;
        // SAFETY: chunks are made by `take_share` and `take_back`, inside the mapping; the rest was checked.
        let bytes = unsafe { self.mapping.base().add(at) };
        // SAFETY: the stretch lies inside the mapping, which `self` owns; and whoever has the chunk has its
        // bytes: neither the kernel nor a lease knows it.
        Some(unsafe { std::slice::from_raw_parts(bytes.as_ptr(), len as usize) })
    }

    /// A chunk's bytes, to be written.
    pub(crate) fn bytes_mut<'a>(&'a self, chunk: &'a mut Chunk) -> &'a mut [u8] {
        assert!((chunk.0 as usize) < self.slots.len(), "a chunk of this UMEM");
        let at = chunk.0 as usize * self.chunk_size as usize;
        // SAFETY: chunks are made by `take_share` and `take_back`, inside the mapping.
        let bytes = unsafe { self.mapping.base().add(at) };
        // SAFETY: the stretch lies inside the mapping, which `self` owns; and whoever has the chunk has its
        // bytes: neither the kernel nor a lease knows it, and the borrow of it keeps any other away.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_ptr(), self.chunk_size as usize) }
    }

    /// Sends a chunk home, to whichever share that is.
    pub(crate) fn put_back(&self, chunk: Chunk) {
        let next = &self.slots[chunk.0 as usize].next;
        // Relaxed: ordered by the push that makes it visible.
        push::<Sound>(self.home(chunk.0), chunk.0, |head| next.store(head, Ordering::Relaxed));
    }

    /// Where a chunk comes back.
    fn home(&self, index: u32) -> &AtomicU32 {
        &self.returned[(index / self.share_len) as usize]
    }

    /// Takes the chunks of a share that have come back since this was last asked.
    pub(crate) fn take_returned(&self, share: u32, mut put: impl FnMut(Chunk)) {
        let mut next = take_all::<Sound>(&self.returned[share as usize]);
        while next != NONE {
            let chunk = Chunk(next);
            // Relaxed: ordered by the swap.
            next = self.slots[next as usize].next.load(Ordering::Relaxed);
            put(chunk);
        }
    }
}

/// Received frames under construction to a lease.
#[derive(Debug)]
pub(crate) struct Lending {
    umem: Arc<Umem>,
    first: u32,
    last: u32,
    count: u32,
    gathered: Vec<u8>,
}

impl Lending {
    pub(crate) fn new(umem: &Arc<Umem>) -> Self {
        let (first, last, count, gathered) = (NONE, NONE, 0, Vec::new());
        Self { umem: Arc::clone(umem), first, last, count, gathered }
    }

    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    /// Adds the frame in a chunk; the chunk comes back where it has no such bytes.
    pub(crate) fn push(&mut self, chunk: Chunk, offset: u32, len: u32) -> Result<(), Chunk> {
        if self.umem.bytes(&chunk, offset, len).is_none() {
            return Err(chunk);
        }
        self.link(chunk, offset, len);
        Ok(())
    }

    /// Adds a frame that was gathered from several chunks, under the name of one of them.
    pub(crate) fn push_gathered(&mut self, chunk: Chunk, frame: &[u8]) {
        let offset = self.gathered.len() as u32 | GATHERED;
        self.gathered.extend_from_slice(frame);
        self.link(chunk, offset, frame.len() as u32);
    }

    fn link(&mut self, Chunk(index): Chunk, offset: u32, len: u32) {
        let slot = &self.umem.slots[index as usize];
        // Relaxed: whoever reads them has got the lease from this thread.
        slot.offset.store(offset, Ordering::Relaxed);
        slot.len.store(len, Ordering::Relaxed);
        slot.next.store(NONE, Ordering::Relaxed);
        match self.last {
            NONE => self.first = index,
            last => self.umem.slots[last as usize].next.store(index, Ordering::Relaxed),
        }
        self.last = index;
        self.count += 1;
    }

    /// A lease of what was pushed, if anything was.
    pub(crate) fn lend(self, sequence: u64) -> Option<ChunkLease> {
        let Self { umem, first, last, count, gathered } = self;
        (count > 0).then(|| ChunkLease { umem, first, last, count, gathered, sequence })
    }
}

/// A run of received frames, ours until dropped, in whatever thread.
#[derive(Debug)]
pub(crate) struct ChunkLease {
    umem: Arc<Umem>,
    first: u32,
    last: u32,
    count: u32,
    gathered: Vec<u8>,
    sequence: u64,
}

/// How far one has come in a lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkPlace {
    next: u32,
    left: u32,
}

impl ChunkLease {
    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn start(&self) -> ChunkPlace {
        ChunkPlace { next: self.first, left: self.count }
    }

    /// The frame at `place`, which goes on to the next one.
    #[inline]
    pub(crate) fn frame(&self, place: &mut ChunkPlace) -> Option<&[u8]> {
        if place.left == 0 {
            return None;
        }
        let index = place.next as usize;
        let slot = &self.umem.slots[index];
        // Relaxed: written before the lease was made, and not again until it ends.
        let offset = slot.offset.load(Ordering::Relaxed) as usize;
        let len = slot.len.load(Ordering::Relaxed) as usize;
        *place = ChunkPlace { next: slot.next.load(Ordering::Relaxed), left: place.left - 1 };
        if offset & GATHERED as usize != 0 {
            return Some(&self.gathered[offset & !(GATHERED as usize)..][..len]);
        }
        let at = index * self.umem.chunk_size as usize + offset;
        // SAFETY: `push` has checked that the frame lies inside its chunk, and that inside the mapping.
        let bytes = unsafe { self.umem.mapping.base().add(at) };
        // SAFETY: the stretch lies inside the mapping, which `umem` keeps alive. The kernel gave this chunk to
        // us and gets it back only when this lease has ended, nor does any code of ours write it meanwhile.
        Some(unsafe { std::slice::from_raw_parts(bytes.as_ptr(), len) })
    }
}

impl ChunkLease {
    pub(crate) fn is_of(&self, umem: &Arc<Umem>) -> bool {
        Arc::ptr_eq(&self.umem, umem)
    }

    /// Takes the first frame out of the lease, to be sent as it is or put back: its chunk, and where in it the
    /// frame lies. One that was gathered is only to be looked at.
    pub(crate) fn take_first(&mut self) -> Option<Taken> {
        if self.count == 0 {
            return None;
        }
        let index = self.first;
        let slot = &self.umem.slots[index as usize];
        // Relaxed: as in `frame`.
        let (offset, len) = (slot.offset.load(Ordering::Relaxed), slot.len.load(Ordering::Relaxed));
        self.first = slot.next.load(Ordering::Relaxed);
        self.count -= 1;
        Some(Taken { chunk: Chunk(index), offset, len })
    }

    /// Whether the first frame lies not in its chunk, but in this lease's memory.
    pub(crate) fn is_first_gathered(&self) -> bool {
        // Relaxed: as in `frame`.
        self.count > 0
            && self.umem.slots[self.first as usize].offset.load(Ordering::Relaxed) & GATHERED != 0
    }

    /// Sends home a chunk that was taken out of this lease.
    pub(crate) fn put_back(&self, taken: Taken) {
        self.umem.put_back(taken.chunk);
    }

    /// The bytes of a frame that was taken out of this lease, to be read and changed.
    pub(crate) fn bytes_of<'a>(&'a mut self, taken: &'a mut Taken) -> &'a mut [u8] {
        let (offset, len) = (taken.offset as usize, taken.len as usize);
        match taken.is_gathered() {
            true => &mut self.gathered[offset & !(GATHERED as usize)..][..len],
            false => &mut self.umem.bytes_mut(&mut taken.chunk)[offset..][..len],
        }
    }
}

/// A frame that was taken out of a lease.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) chunk: Chunk,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

impl Taken {
    /// Whether the frame is not in its chunk, but in the memory of the lease it was taken out of.
    pub(crate) fn is_gathered(&self) -> bool {
        self.offset & GATHERED != 0
    }
}

impl ChunkPlace {
    pub(crate) fn left(&self) -> usize {
        self.left as usize
    }
}

impl Drop for ChunkLease {
    #[inline]
    fn drop(&mut self) {
        if self.count == 0 {
            return; // all was taken out
        }
        let last = &self.umem.slots[self.last as usize].next;
        // Relaxed: ordered by the push that makes it visible.
        push::<Sound>(self.umem.home(self.first), self.first, |head| {
            last.store(head, Ordering::Relaxed);
        });
    }
}
