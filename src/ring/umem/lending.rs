//! How a lease is made, frame by frame.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::stack::NONE;
use super::{Chunk, ChunkLease, GATHERED, Umem};

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
