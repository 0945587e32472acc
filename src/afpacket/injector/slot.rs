//! A slot of a transmit ring, to write a frame into.

use super::Injector;
use crate::error::Result;
use crate::packet::Offload;
use crate::port::Transmit;

/// A free slot of an [`Injector`]: write a frame into it and [`send`](Self::send) it.
///
/// If dropped without sending, it stays free.
#[derive(Debug)]
pub struct TxSlot<'a> {
    injector: &'a mut Injector,
    len: usize,
    offload: Offload,
}

impl<'a> TxSlot<'a> {
    /// Takes the next free slot, which must exist.
    #[inline]
    pub(crate) fn of(injector: &'a mut Injector, len: usize) -> Self {
        Self { injector, len, offload: Offload::NONE }
    }

    /// Returns the bytes of the frame, with the length requested.
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.injector.vacant_ref(self.len)
    }

    /// Returns the bytes of the frame for writing.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        self.injector.vacant_bytes(len)
    }

    /// Changes the length of the frame, limited to [`Injector::frame_capacity`].
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.injector.frame_capacity());
    }

    /// Sets the work that is left to the kernel or the card for this frame; see
    /// [`offloads`](crate::inject::InjectorBuilder::offloads). Default: none.
    pub fn set_offload(&mut self, offload: Offload) {
        self.offload = offload;
    }

    /// Commits the frame.
    ///
    /// # Errors
    /// [`Error::FrameLength`](crate::Error::FrameLength) or
    /// [`Error::OffloadsDisabled`](crate::Error::OffloadsDisabled); the slot then stays free.
    #[inline]
    pub fn send(self) -> Result<()> {
        self.injector.commit(self.len, self.offload)
    }
}
