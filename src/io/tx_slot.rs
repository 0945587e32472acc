//! A slot of an async sender's ring that is being filled.

use std::fmt;

use super::port::TxPort;
use super::transmit::AsyncSender;
use crate::afpacket::Injector;
use crate::error::Result;
use crate::packet::Offload;

/// A free slot of a sender on a reactor: write a frame into it and [`send`](Self::send) it. Dropped unsent, it
/// stays free.
pub struct AsyncTxSlot<'a, T: TxPort = Injector> {
    tx: &'a mut AsyncSender<T>,
    len: usize,
    extra: T::Extra,
}

impl<'a, T: TxPort> AsyncTxSlot<'a, T> {
    /// Of a sender whose port is lent.
    pub(super) fn new(tx: &'a mut AsyncSender<T>, len: usize) -> Self {
        Self { tx, len, extra: T::Extra::default() }
    }

    /// The bytes of the frame, as many as were asked for.
    pub fn data(&self) -> &[u8] {
        self.tx.lent().vacant_ref(self.len)
    }

    /// The same, to be written.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.tx.lent_mut().vacant_bytes(self.len)
    }

    /// Changes the length of the frame, up to the socket's `frame_capacity`; longer is cut to that.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.tx.lent().capacity());
    }

    /// Commits the frame.
    ///
    /// # Errors
    /// [`Error::FrameLength`](crate::Error::FrameLength), and what the setters here say; the slot stays free
    /// then.
    pub fn send(self) -> Result<()> {
        self.tx.lent_mut().commit(self.len, self.extra)?;
        self.tx.take_back();
        self.tx.mark()
    }

    pub(super) fn extra_mut(&mut self) -> &mut T::Extra {
        &mut self.extra
    }
}

impl AsyncTxSlot<'_, Injector> {
    pub(crate) fn offload(&self) -> Offload {
        self.extra
    }

    /// As [`TxSlot::set_offload`](crate::inject::TxSlot::set_offload).
    pub fn set_offload(&mut self, offload: Offload) {
        *self.extra_mut() = offload;
    }
}

impl<T: TxPort> Drop for AsyncTxSlot<'_, T> {
    fn drop(&mut self) {
        self.tx.take_back();
    }
}

impl<T: TxPort> fmt::Debug for AsyncTxSlot<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncTxSlot").field("len", &self.len).finish_non_exhaustive()
    }
}
