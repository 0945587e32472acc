//! A slot of a transmit ring that is being filled.

use super::injector::Injector;
use crate::error::Result;
use crate::packet::Offload;

/// A free slot of an [`Injector`]: write a frame into it and [`send`](Self::send) it. Dropped unsent,
/// it stays free.
#[derive(Debug)]
pub struct TxSlot<'a> {
    injector: &'a mut Injector,
    len: usize,
    offload: Offload,
}

impl<'a> TxSlot<'a> {
    /// The next free slot, which there is.
    #[inline]
    pub(crate) fn of(injector: &'a mut Injector, len: usize) -> Self {
        Self { injector, len, offload: Offload::NONE }
    }

    /// The bytes of the frame, as many as were asked for.
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.injector.vacant_ref(self.len)
    }

    /// The same, to be written.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        self.injector.vacant_bytes(len)
    }

    /// Changes the length of the frame, up to [`Injector::frame_capacity`]; longer is cut to that.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.injector.frame_capacity());
    }

    /// Says what is left to be done to the frame, by the kernel or the card; see
    /// [`offloads`](crate::inject::InjectorBuilder::offloads). Default nothing.
    pub fn set_offload(&mut self, offload: Offload) {
        self.offload = offload;
    }

    /// Commits the frame.
    ///
    /// # Errors
    /// [`Error::FrameLength`](crate::Error::FrameLength),
    /// [`Error::OffloadsDisabled`](crate::Error::OffloadsDisabled); the slot stays free then.
    #[inline]
    pub fn send(self) -> Result<()> {
        self.injector.commit(self.len, self.offload)
    }
}
