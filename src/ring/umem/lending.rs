//! The construction of a lease, frame by frame.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::stack::NONE;
use super::{Chunk, ChunkLease, FillHolder, GATHERED, Slot, Umem};

/// Received frames under construction into a lease.
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

    pub(crate) fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    /// Takes back the chunk of a frame, and adds the frame; see [`Umem::take_received`]. Returns the chunk as
    /// an error if it does not contain these bytes.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        address: u64,
        len: u32,
        holder: &mut FillHolder,
    ) -> Result<(), Option<Chunk>> {
        let umem = &*self.umem;
        let (chunk, slot) = umem.receive(address, holder).ok_or(None)?;
        let offset = umem.offset_of(address);
        if !umem.holds(offset, len) {
            return Err(Some(chunk));
        }
        slot.hold(offset, len);
        self.link(chunk);
        Ok(())
    }

    /// Adds a frame that was gathered from several chunks, under the number of one of them.
    pub(crate) fn push_gathered(&mut self, chunk: Chunk, frame: &[u8]) {
        let offset = self.gathered.len() as u32 | GATHERED;
        self.gathered.extend_from_slice(frame);
        self.umem.slots[chunk.0 as usize].hold(offset, frame.len() as u32);
        self.link(chunk);
    }

    #[inline]
    fn link(&mut self, Chunk(index): Chunk) {
        match self.last {
            NONE => self.first = index,
            // Relaxed: as in `hold`.
            last => self.umem.slots[last as usize].next.store(index, Ordering::Relaxed),
        }
        self.last = index;
        self.count += 1;
    }

    /// Returns a lease of the frames added, if there are any.
    pub(crate) fn lend(self, sequence: u64) -> Option<ChunkLease> {
        let Self { umem, first, last, count, gathered } = self;
        if count > 0 {
            // Relaxed: as in `hold`.
            umem.slots[last as usize].next.store(NONE, Ordering::Relaxed);
        }
        (count > 0).then(|| ChunkLease { umem, first, last, count, gathered, sequence })
    }
}

impl Slot {
    /// Records the frame's position in the chunk.
    #[inline]
    fn hold(&self, offset: u32, len: u32) {
        // Relaxed: a reader of these values got the lease from this thread.
        self.offset.store(offset, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
    }
}
