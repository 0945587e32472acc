//! A slot of an async injector's ring that is being filled.

use std::cell::RefMut;

use crate::reactor::Kicker;
use crate::{Injector, Offload, Result};

/// A free slot of an [`AsyncInjector`](crate::AsyncInjector); see [`TxSlot`](crate::TxSlot).
#[derive(Debug)]
pub struct AsyncTxSlot<'a> {
    injector: RefMut<'a, Injector>,
    kicker: &'a Kicker,
    len: usize,
    offload: Offload,
}

impl<'a> AsyncTxSlot<'a> {
    pub(super) fn new(injector: RefMut<'a, Injector>, kicker: &'a Kicker, len: usize) -> Self {
        Self { injector, kicker, len, offload: Offload::NONE }
    }

    /// The bytes of the frame, as many as were asked for.
    pub fn data(&self) -> &[u8] {
        self.injector.vacant_ref(self.len)
    }

    /// The same, to be written.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.injector.vacant_bytes(self.len)
    }

    /// Changes the length of the frame, up to [`Injector::frame_capacity`]; longer is cut to that.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.injector.frame_capacity());
    }

    pub(crate) fn offload(&self) -> Offload {
        self.offload
    }

    /// As [`TxSlot::set_offload`](crate::TxSlot::set_offload).
    pub fn set_offload(&mut self, offload: Offload) {
        self.offload = offload;
    }

    /// Commits the frame.
    ///
    /// # Errors
    /// As [`TxSlot::send`](crate::TxSlot::send).
    pub fn send(mut self) -> Result<()> {
        self.injector.commit(self.len, self.offload)?;
        self.kicker.mark()
    }
}
