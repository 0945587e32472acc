//! The data that the kernel was asked to add to the packets of a receive ring.

use crate::packet::Offload;

/// Additional data stored with each packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Extras {
    /// The packet's hash, in blocks only.
    pub(crate) rxhash: bool,
    /// The packet's offload, right before its bytes.
    pub(crate) offload: bool,
    /// Whether tags are put back into frames when these are taken ([`rewrite`](super::rewrite)).
    pub(crate) retag: bool,
    /// Whether the kernel has removed the link-layer headers, so that packets are given one of ours.
    pub(crate) cooked: bool,
}

impl Extras {
    /// Returns whether packets are changed when they are taken.
    #[inline]
    pub(crate) fn rewrites(self) -> bool {
        self.retag || self.cooked
    }

    /// Returns the offload of the packet whose bytes begin at `data_at`; the first `header_len` bytes are the
    /// header.
    #[inline]
    pub(crate) fn offload(
        self,
        bytes: &[u8],
        data_at: usize,
        header_len: usize,
    ) -> Option<Offload> {
        if !self.offload {
            return None;
        }
        let at = data_at.checked_sub(Offload::LEN).filter(|&at| at >= header_len)?;
        bytes.get(at..)?.first_chunk().map(Offload::read)
    }
}
