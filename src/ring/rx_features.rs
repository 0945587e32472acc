//! What a receive ring holds beside packets, as the kernel was asked.

use crate::packet::Offload;

/// What else there is with each packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Extras {
    /// Its hash, in blocks only.
    pub(crate) rxhash: bool,
    /// Its offload, right before its bytes.
    pub(crate) offload: bool,
    /// Tags are put back into frames when they are taken ([`retag`](super::vlan_reinsert)).
    pub(crate) retag: bool,
}

impl Extras {
    /// The offload of the packet whose bytes begin at `data_at`; `header_len` bytes before are header.
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
