//! A frame of a sender's that is being filled.

use super::sender::XdpSender;
use crate::error::Result;

/// A checksum that is left to the kernel or the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    pub(super) start: u16,
    pub(super) offset: u16,
}

/// A free frame of an [`XdpSender`]: write into it and [`send`](Self::send) it. Dropped unsent, it stays free.
#[derive(Debug)]
pub struct XdpTxSlot<'a> {
    sender: &'a mut XdpSender,
    len: usize,
    checksum: Option<Checksum>,
}

impl<'a> XdpTxSlot<'a> {
    #[inline]
    pub(super) fn new(sender: &'a mut XdpSender, len: usize) -> Self {
        Self { sender, len, checksum: None }
    }

    /// The bytes of the frame, as many as were asked for.
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.sender.vacant_ref(self.len)
    }

    /// The same, to be written.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.sender.vacant_bytes(self.len)
    }

    /// Changes the length of the frame, up to [`XdpSender::frame_capacity`]; longer is cut to that.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.sender.frame_capacity());
    }

    /// Leaves a checksum to the card or the kernel: of all bytes from `start` on, written `offset` bytes behind
    /// `start`, where the pseudo-header's part of it is already. Needs
    /// [`tx_checksum`](crate::xdp::XdpSocketBuilder::tx_checksum).
    pub fn set_checksum(&mut self, start: u16, offset: u16) {
        self.checksum = Some(Checksum { start, offset });
    }

    /// Commits the frame.
    ///
    /// # Errors
    /// [`Error::FrameLength`](crate::Error::FrameLength), [`Error::OffloadsDisabled`](crate::Error::OffloadsDisabled),
    /// [`Error::ChecksumOutside`](crate::Error::ChecksumOutside); the frame stays free then.
    #[inline]
    pub fn send(self) -> Result<()> {
        self.sender.commit(self.len, self.checksum)
    }
}

impl Checksum {
    /// For the setter of the async slot.
    pub(crate) fn new(start: u16, offset: u16) -> Self {
        Self { start, offset }
    }
}
