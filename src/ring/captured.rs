//! A packet that keeps its batch alive.

use std::fmt;
use std::sync::Arc;

use super::batch::{PacketBatch, Place};
use crate::packet::{OwnedPacket, Packet, Timestamp};

/// A packet that owns a share of its batch, so it needs no lifetime. From
/// [`Capture::packets`](crate::Capture::packets).
///
/// The bytes stay in the ring, and the kernel gets the block back when its last packet is dropped: copy
/// packets that you keep for long ([`to_owned`](Self::to_owned)).
#[derive(Clone)]
pub struct CapturedPacket {
    batch: Arc<PacketBatch>,
    place: Place,
}

impl CapturedPacket {
    /// Returns the packet, with all its metadata.
    pub fn packet(&self) -> Packet<'_> {
        self.batch.iter_from(self.place).next().expect("it was there when it was captured")
    }

    /// Returns the captured bytes, from the link-layer header on, without a stripped VLAN tag.
    pub fn data(&self) -> &[u8] {
        self.packet().data()
    }

    /// Returns the number of captured bytes.
    pub fn len(&self) -> usize {
        self.data().len()
    }

    /// Returns whether no bytes were captured.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the time at which the packet was received.
    pub fn timestamp(&self) -> Timestamp {
        self.packet().timestamp()
    }

    /// Copies the packet into memory outside of the ring.
    pub fn to_owned(&self) -> OwnedPacket {
        self.packet().to_owned()
    }

    /// Returns the batch that contains the packet.
    pub fn batch(&self) -> &PacketBatch {
        &self.batch
    }
}

impl fmt::Debug for CapturedPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CapturedPacket").field(&self.packet()).finish()
    }
}

/// An iterator that hands out the packets of a batch.
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
