//! A packet that keeps its batch.

use std::fmt;
use std::sync::Arc;

use super::batch::{PacketBatch, Place};
use crate::packet::{OwnedPacket, Packet, Timestamp};

/// A packet that owns a share of its batch, so it needs no lifetime. From [`Capture::packets`](crate::Capture::packets).
///
/// The bytes stay in the ring, and the kernel gets the block back when the last packet of it is dropped: copy what you keep
/// for long ([`to_owned`](Self::to_owned)).
#[derive(Clone)]
pub struct CapturedPacket {
    batch: Arc<PacketBatch>,
    place: Place,
}

impl CapturedPacket {
    /// The packet, with everything that is known of it.
    pub fn packet(&self) -> Packet<'_> {
        self.batch.iter_from(self.place).next().expect("it was there when it was captured")
    }

    /// The captured bytes, from the link-layer header on, without a stripped VLAN tag.
    pub fn data(&self) -> &[u8] {
        self.packet().data()
    }

    /// Number of captured bytes.
    pub fn len(&self) -> usize {
        self.data().len()
    }

    /// Whether no byte was captured.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the packet was received.
    pub fn timestamp(&self) -> Timestamp {
        self.packet().timestamp()
    }

    /// A copy that keeps nothing in the ring.
    pub fn to_owned(&self) -> OwnedPacket {
        self.packet().to_owned()
    }

    /// The batch that the packet is in.
    pub fn batch(&self) -> &PacketBatch {
        &self.batch
    }
}

impl fmt::Debug for CapturedPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CapturedPacket").field(&self.packet()).finish()
    }
}

/// How far the packets of a batch were handed out.
#[derive(Debug)]
pub(crate) struct HandingOut {
    batch: Arc<PacketBatch>,
    place: Place,
}

impl HandingOut {
    pub(crate) fn new(batch: PacketBatch) -> Self {
        let place = batch.iter().place();
        Self { batch: Arc::new(batch), place }
    }
}

impl Iterator for HandingOut {
    type Item = CapturedPacket;

    fn next(&mut self) -> Option<CapturedPacket> {
        let mut packets = self.batch.iter_from(self.place);
        let place = packets.next_place()?;
        self.place = packets.place();
        Some(CapturedPacket { batch: Arc::clone(&self.batch), place })
    }
}
