//! Received frames while they are leased.

#![allow(unsafe_code, reason = "shared memory, reached by pointer; each use names its invariant")]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::stack::{Sound, push};
use super::{Chunk, GATHERED, Umem};

/// A run of received frames, ours until dropped, on any thread.
#[derive(Debug)]
pub(crate) struct ChunkLease {
    pub(super) umem: Arc<Umem>,
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) count: u32,
    pub(super) gathered: Vec<u8>,
    pub(super) sequence: u64,
}

/// A position in a lease.
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

    /// Returns the frame at `place` and advances `place` to the next one.
    #[inline]
    pub(crate) fn frame(&self, place: &mut ChunkPlace) -> Option<&[u8]> {
        if place.left == 0 {
            return None;
        }
        let index = place.next as usize;
        let slot = &self.umem.slots[index];
        // Relaxed: written before the lease was created, and not again until it ends.
        let offset = slot.offset.load(Ordering::Relaxed) as usize;
        let len = slot.len.load(Ordering::Relaxed) as usize;
        *place = ChunkPlace { next: slot.next.load(Ordering::Relaxed), left: place.left - 1 };
        if offset & GATHERED as usize != 0 {
            return Some(&self.gathered[offset & !(GATHERED as usize)..][..len]);
        }
        let at = (index << self.umem.chunk_shift) + offset;
        // SAFETY: `push` has checked that the frame lies inside its chunk, and that the chunk lies inside the
        // mapping.
        let bytes = unsafe { self.umem.mapping.base().add(at) };
        // SAFETY: the stretch lies inside the mapping, which `umem` keeps alive. The kernel gave this chunk
        // to us and gets it back only when this lease has ended, nor does any code of ours write it
        // meanwhile.
        Some(unsafe { std::slice::from_raw_parts(bytes.as_ptr(), len) })
    }
}

impl ChunkLease {
    /// Returns the `len` bytes before the frame at `place`. Returns `None` if its chunk does not have that
    /// many, or if the frame was gathered from several chunks.
    pub(crate) fn before(&self, place: ChunkPlace, len: usize) -> Option<&[u8]> {
        if place.left == 0 {
            return None;
        }
        let index = place.next as usize;
        // Relaxed: as in `frame`. A gathered frame is in no chunk.
        let offset = self.umem.slots[index].offset.load(Ordering::Relaxed);
        if offset & GATHERED != 0 {
            return None;
        }
        let from = (offset as usize).checked_sub(len)?;
        let at = (index << self.umem.chunk_shift) + from;
        // SAFETY: before a frame that lies in its chunk, and not before the chunk itself.
        let bytes = unsafe { self.umem.mapping.base().add(at) };
        // SAFETY: as in `frame`: all of the chunk is ours.
        Some(unsafe { std::slice::from_raw_parts(bytes.as_ptr(), len) })
    }

    pub(crate) fn is_of(&self, umem: &Arc<Umem>) -> bool {
        Arc::ptr_eq(&self.umem, umem)
    }

    /// Returns the bytes of the first frame for reading and writing.
    pub(crate) fn first_mut(&mut self) -> Option<&mut [u8]> {
        if self.count == 0 {
            return None;
        }
        let slot = &self.umem.slots[self.first as usize];
        // Relaxed: as in `frame`.
        let (offset, len) = (slot.offset.load(Ordering::Relaxed), slot.len.load(Ordering::Relaxed));
        let (offset, len) = (offset as usize, len as usize);
        if offset & GATHERED as usize != 0 {
            return Some(&mut self.gathered[offset & !(GATHERED as usize)..][..len]);
        }
        let at = self.first as usize * self.umem.chunk_size as usize + offset;
        // SAFETY: as in `frame`.
        let bytes = unsafe { self.umem.mapping.base().add(at) };
        // SAFETY: as in `frame`; and the lease is borrowed exclusively, so nothing else accesses it.
        Some(unsafe { std::slice::from_raw_parts_mut(bytes.as_ptr(), len) })
    }

    /// Takes the first frame out of the lease, to be sent unchanged or put back.
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

    /// Returns whether the first frame lies in this lease's memory instead of in its chunk.
    pub(crate) fn is_first_gathered(&self) -> bool {
        // Relaxed: as in `frame`.
        self.count > 0
            && self.umem.slots[self.first as usize].offset.load(Ordering::Relaxed) & GATHERED != 0
    }

    /// Sends home a chunk that was taken out of this lease.
    pub(crate) fn put_back(&self, taken: Taken) {
        self.umem.put_back(taken.chunk);
    }
}

/// A frame that was taken out of a lease.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) chunk: Chunk,
    pub(crate) offset: u32,
    pub(crate) len: u32,
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
            return; // all frames were taken out
        }
        let last = &self.umem.slots[self.last as usize].next;
        // Relaxed: ordered by the push that makes it visible.
        push::<Sound>(self.umem.home(self.first), self.first, |head| {
            last.store(head, Ordering::Relaxed);
        });
    }
}
