//! A packet that keeps its batch alive.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use ringtap_filter::BpfFilter;

use super::batch::{PacketBatch, Place};
use crate::packet::{LinkAddress, OwnedPacket, Packet, PacketDirection, Timestamp, VlanTag};

/// A packet that owns a share of its batch, so it needs no lifetime. From
/// [`Capture::packets`](crate::Capture::packets) and [`PacketBatch::into_packets`].
///
/// It can go to other threads, and its bytes stay where they are until it and its clones are dropped: as an
/// `AsRef<[u8]> + Send + Sync + 'static` it is a buffer for a runtime's own I/O, such as `bytes::Bytes::from_owner(packet)`.
///
/// The bytes stay in the ring, and the kernel gets the block back when its last packet is dropped: copy
/// packets that you keep for long ([`to_owned`](Self::to_owned)).
#[derive(Clone)]
pub struct CapturedPacket {
    batch: Arc<PacketBatch>,
    place: Place,
}

impl CapturedPacket {
    /// Returns the packet, with everything that is known about it.
    pub fn packet(&self) -> Packet<'_> {
        self.batch.iter_from(self.place).next().expect("it was there when it was captured")
    }

    /// Returns the captured bytes, from the link-layer header on, without a stripped VLAN tag.
    pub fn data(&self) -> &[u8] {
        self.packet().data()
    }

    /// Returns the length of the packet before it was cut to the snap length.
    pub fn original_len(&self) -> usize {
        self.packet().original_len()
    }

    /// Returns the outer VLAN tag; see [`Packet::vlan`].
    pub fn vlan(&self) -> Option<VlanTag> {
        self.packet().vlan()
    }

    /// Returns the direction of the packet; see [`Packet::direction`].
    pub fn direction(&self) -> Option<PacketDirection> {
        self.packet().direction()
    }

    /// Returns the protocol of the link layer's payload; see [`Packet::ll_protocol`].
    pub fn ll_protocol(&self) -> Option<u16> {
        self.packet().ll_protocol()
    }

    /// Returns the sender's link-layer address; see [`Packet::source_ll_addr`].
    #[doc(alias = "mac")]
    pub fn source_ll_addr(&self) -> Option<LinkAddress> {
        self.packet().source_ll_addr()
    }

    /// Returns whether a filter matches the packet; see [`Packet::matches`].
    pub fn matches(&self, filter: &BpfFilter) -> bool {
        self.packet().matches(filter)
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

impl AsRef<[u8]> for CapturedPacket {
    fn as_ref(&self) -> &[u8] {
        self.data()
    }
}

impl fmt::Debug for CapturedPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CapturedPacket").field(&self.packet()).finish()
    }
}

/// An iterator over the packets of a batch, each of which keeps the batch; from [`PacketBatch::into_packets`].
#[derive(Debug)]
pub struct IntoPackets {
    batch: Arc<PacketBatch>,
    place: Place,
}

impl PacketBatch {
    /// Returns an iterator over packets that need no lifetime. The batch goes back to its ring when the iterator and all
    /// packets of it are dropped. One allocation for the whole batch.
    pub fn into_packets(self) -> IntoPackets {
        let place = self.iter().place();
        IntoPackets { batch: Arc::new(self), place }
    }
}

impl FusedIterator for IntoPackets {}

impl Iterator for IntoPackets {
    type Item = CapturedPacket;

    fn next(&mut self) -> Option<CapturedPacket> {
        let mut packets = self.batch.iter_from(self.place);
        let place = packets.next_place()?;
        self.place = packets.place();
        Some(CapturedPacket { batch: Arc::clone(&self.batch), place })
    }
}
