//! A slot of an async sender's ring that is being filled.

use std::cell::RefMut;
use std::fmt;

use super::port::TxPort;
use crate::reactor::Kicker;
use crate::{Injector, Offload, Result};

/// A free slot of a sender on a reactor: write a frame into it and [`send`](Self::send) it. Dropped unsent, it
/// stays free.
pub struct AsyncTxSlot<'a, T: TxPort = Injector> {
    port: RefMut<'a, T>,
    kicker: &'a Kicker,
    len: usize,
    extra: T::Extra,
}

impl<'a, T: TxPort> AsyncTxSlot<'a, T> {
    pub(super) fn new(port: RefMut<'a, T>, kicker: &'a Kicker, len: usize) -> Self {
        Self { port, kicker, len, extra: T::Extra::default() }
    }

    /// The bytes of the frame, as many as were asked for.
    pub fn data(&self) -> &[u8] {
        self.port.vacant_ref(self.len)
    }

    /// The same, to be written.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.port.vacant_bytes(self.len)
    }

    /// Changes the length of the frame, up to the socket's `frame_capacity`; longer is cut to that.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.port.capacity());
    }

    /// Commits the frame.
    ///
    /// # Errors
    /// [`Error::FrameLength`](crate::Error::FrameLength), and what the setters here say; the slot stays free
    /// then.
    pub fn send(mut self) -> Result<()> {
        self.port.commit(self.len, self.extra)?;
        self.kicker.mark()
    }

    pub(super) fn extra_mut(&mut self) -> &mut T::Extra {
        &mut self.extra
    }
}

impl AsyncTxSlot<'_, Injector> {
    pub(crate) fn offload(&self) -> Offload {
        self.extra
    }

    /// As [`TxSlot::set_offload`](crate::TxSlot::set_offload).
    pub fn set_offload(&mut self, offload: Offload) {
        *self.extra_mut() = offload;
    }
}

impl<T: TxPort> fmt::Debug for AsyncTxSlot<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncTxSlot").field("len", &self.len).finish_non_exhaustive()
    }
}
