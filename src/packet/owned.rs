//! Packets in memory of their own.

use std::fmt;

use super::{Packet, PacketMeta};

/// A packet copied out of its ring. It borrows nothing, so it can be kept and sent to other threads.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedPacket {
    data: Box<[u8]>,
    meta: PacketMeta,
}

impl OwnedPacket {
    pub(super) fn new(data: &[u8], meta: PacketMeta) -> Self {
        Self { data: data.into(), meta }
    }

    /// Returns the packet as a borrowed [`Packet`], which has all the accessors.
    pub fn as_packet(&self) -> Packet<'_> {
        Packet::new(&self.data, self.meta)
    }

    /// Returns the captured bytes.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Returns the captured bytes without copying them again.
    pub fn into_data(self) -> Vec<u8> {
        self.data.into_vec()
    }
}

impl AsRef<[u8]> for OwnedPacket {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl fmt::Debug for OwnedPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedPacket").field(&self.as_packet()).finish()
    }
}
