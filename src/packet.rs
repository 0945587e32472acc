//! Captured packets, borrowed or owned, of the same type for every socket family.
//!
//! [`Packet`] borrows its bytes from the memory that the kernel wrote them to, and lives as long as its
//! [`PacketBatch`](crate::PacketBatch). Values that a socket family does not know are `None`.

#[cfg(any(feature = "flow-records", feature = "pcap", feature = "serde"))]
mod calendar;
mod layers;
mod link;
mod offload;
mod owned;
mod tags;
mod time;

use std::fmt;
use std::ops::Range;

use bitflags::bitflags;
use ringtap_filter::{Ancillary, BpfFilter};
pub use ringtap_filter::{LinkType, PacketDirection, VlanTag};

#[cfg(feature = "pcap")]
pub(crate) use self::calendar::Calendar;
#[cfg(any(feature = "flow-records", feature = "serde"))]
pub(crate) use self::calendar::Iso;
#[cfg(feature = "flow")]
pub(crate) use self::layers::{Family, Selector, dissect, dissect_ip};
pub use self::layers::{Layers, TcpHeader, Tunnel, TunnelKind, Tunnels};
pub use self::link::LinkAddress;
#[cfg(any(feature = "pcap", test))]
pub(crate) use self::link::hardware_of;
use self::link::link_type_of;
pub(crate) use self::link::{
    Framing, LinkLayer, NO_DIRECTION, SLL2_HEADER_LEN, hardware_of_cooked,
};
pub use self::offload::{Offload, Segments};
pub use self::owned::OwnedPacket;
use self::tags::FIRST_TAG_AT;
pub use self::time::{Clock, Timestamp, TxTimestamp};

bitflags! {
    /// The kernel's flags for a packet (`tp_status`, include/uapi/linux/if_packet.h).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct PacketStatus: u32 {
        /// The packet was longer than the frame or snap length that holds it.
        const COPY = 1 << 1;
        /// Packets were dropped since the statistics were last read.
        const LOSING = 1 << 2;
        /// The transport checksum is not filled in yet, because a local sender offloaded it.
        const CHECKSUM_NOT_READY = 1 << 3;
        /// A VLAN tag was stripped; [`Packet::vlan`] returns it.
        const VLAN_VALID = 1 << 4;
        /// The protocol id of the tag is known.
        const VLAN_TPID_VALID = 1 << 6;
        /// The transport checksum was verified.
        const CHECKSUM_VALID = 1 << 7;
        /// The packet is as large as TCP segmentation offload makes it.
        const GSO_TCP = 1 << 8;
        /// A clock in the network card stamped the packet.
        const TIMESTAMP_RAW_HARDWARE = 1 << 31;
        /// Hardware time, transformed to system time (deprecated in the kernel).
        const TIMESTAMP_SYSTEM_HARDWARE = 1 << 30;
        /// The kernel's software clock stamped the packet.
        const TIMESTAMP_SOFTWARE = 1 << 29;
        // A later kernel may set other bits; keep them.
        const _ = !0;
    }
}

/// Everything known about a packet except its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PacketMeta {
    pub(crate) wire_len: u32,
    pub(crate) timestamp: Timestamp,
    pub(crate) status: PacketStatus,
    pub(crate) rxhash: Option<u32>,
    pub(crate) vlan: Option<VlanTag>,
    pub(crate) link: Option<LinkLayer>,
    pub(crate) offload: Option<Offload>,
}

impl PacketMeta {
    /// Metadata of a packet of which only the bytes are known.
    #[inline]
    pub(crate) fn of_bytes(len: usize, timestamp: Timestamp) -> Self {
        Self {
            wire_len: len as u32,
            timestamp,
            status: PacketStatus::TIMESTAMP_SOFTWARE,
            rxhash: None,
            vlan: None,
            link: None,
            offload: None,
        }
    }

    /// Metadata of a frame that came without any. The time is that of the read.
    #[cfg(feature = "af-xdp")]
    #[inline]
    pub(crate) fn of_frame(data: &[u8], time: Timestamp, (hardware, index): (u16, u32)) -> Self {
        let link = LinkLayer::of_frame(data, hardware, index);
        let status = time::READ_BY_US;
        Self { status, link: Some(link), ..Self::of_bytes(data.len(), time) }
    }

    /// Metadata of a packet that was not captured.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn plain(len: usize) -> Self {
        Self {
            wire_len: len as u32,
            timestamp: Timestamp::default(),
            status: PacketStatus::empty(),
            rxhash: Some(0),
            vlan: None,
            link: Some(LinkLayer::sample()),
            offload: None,
        }
    }
}

/// A captured packet: the bytes where the kernel wrote them, and the kernel's metadata.
///
/// A packet is cheap to copy. It borrows from the [`PacketBatch`](crate::PacketBatch) it came from:
///
/// ```compile_fail
/// # fn escape(capture: &mut ringtap::Capture) -> Option<ringtap::Packet<'static>> {
/// let batch = capture.next_batch()?;
/// batch.iter().next() // the packet cannot outlive its batch
/// # }
/// ```
///
/// To keep a packet longer, keep its batch, or copy the packet with [`to_owned`](Self::to_owned).
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    data: &'a [u8],
    meta: PacketMeta,
}

impl<'a> Packet<'a> {
    #[inline]
    pub(crate) fn new(data: &'a [u8], meta: PacketMeta) -> Self {
        Self { data, meta }
    }

    /// Creates a packet that no socket has delivered: complete, with an Ethernet header, and with the given
    /// time. Use it to write packets to a file or to pass them to code that takes packets.
    pub fn from_bytes(data: &'a [u8], timestamp: Timestamp) -> Self {
        Self::new(data, PacketMeta::of_bytes(data.len(), timestamp))
    }

    /// The packet's metadata.
    #[inline]
    pub(crate) fn meta(&self) -> &PacketMeta {
        &self.meta
    }

    /// Returns the captured bytes from the link-layer header on, without a stripped VLAN tag.
    #[inline]
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Returns the same packet with its length on the wire set to `len`, but at least the captured length.
    #[must_use]
    pub fn with_original_len(mut self, len: usize) -> Self {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.meta.wire_len = len.max(self.data.len() as u32);
        self
    }

    /// Returns the number of bytes captured.
    #[inline]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Returns whether no byte was captured.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Returns the packet's length on the wire, which a snap length or a small ring may have cut.
    #[inline]
    pub fn original_len(&self) -> usize {
        self.meta.wire_len as usize
    }

    /// Returns whether fewer bytes were captured than were on the wire.
    #[inline]
    pub fn is_truncated(&self) -> bool {
        self.data.len() < self.meta.wire_len as usize
    }

    /// Returns the packet's timestamp; [`clock`](Self::clock) tells which clock it is from.
    #[inline]
    pub fn timestamp(&self) -> Timestamp {
        self.meta.timestamp
    }

    /// Returns the clock that stamped this packet.
    ///
    /// A card may stamp only some packets, so this is a property of each packet, not of the socket.
    #[inline]
    pub fn clock(&self) -> Clock {
        Clock::from_status(self.meta.status)
    }

    /// Returns the kernel's flags for the packet.
    #[inline]
    pub fn status(&self) -> PacketStatus {
        self.meta.status
    }

    /// Returns the hash of the packet's flow: of a packet socket, that which fanout spreads packets by; of AF_XDP, the
    /// card's. `None` if the ring was not asked to fill it in, or the card does not tell.
    #[inline]
    pub fn rxhash(&self) -> Option<u32> {
        self.meta.rxhash
    }

    /// Returns the outermost VLAN tag, whether it is in the bytes or was stripped from them.
    #[inline]
    pub fn vlan(&self) -> Option<VlanTag> {
        self.meta.vlan.or_else(|| self.tag_inside(0))
    }

    /// Returns the tag behind the outermost one (802.1ad, QinQ), which is in the bytes.
    #[inline]
    pub fn inner_vlan(&self) -> Option<VlanTag> {
        match self.meta.vlan {
            Some(_) => self.tag_inside(0),
            None => self.vlan().and_then(|_| self.tag_inside(1)),
        }
    }

    /// Returns the VLAN tag that the kernel or the card stripped from the frame. [`data`](Self::data) does not
    /// contain it, unless it was put back
    /// ([`CaptureBuilder::vlan_reinsert`](crate::capture::CaptureBuilder::vlan_reinsert)).
    #[inline]
    pub fn stripped_vlan(&self) -> Option<VlanTag> {
        self.meta.vlan
    }

    /// Returns the tag in the bytes behind `before` others.
    #[inline]
    fn tag_inside(&self, before: usize) -> Option<VlanTag> {
        if self.has_ethernet_header() {
            VlanTag::read(self.data.get(FIRST_TAG_AT + before * VlanTag::LEN..)?)
        } else if self.is_cooked() {
            tags::of_cooked(self.data, before)
        } else {
            None
        }
    }

    /// Returns whether a filter matches this packet, as the kernel would decide, for any link type.
    ///
    /// If the packet's VLAN tag is in its bytes, because it came from AF_XDP or the tag was put back by
    /// [`vlan_reinsert`](crate::capture::CaptureBuilder::vlan_reinsert), the result is that of
    /// [`BpfFilter::matches`]: a filter that does not mention tags matches only untagged frames, unless it is
    /// [`vlan_transparent`](BpfFilter::vlan_transparent).
    ///
    /// A filter made from a ready program sees a cooked packet without its header, as on a socket.
    pub fn matches(&self, filter: &BpfFilter) -> bool {
        let mut known = Ancillary::of_len(self.meta.wire_len);
        known.vlan = self.stripped_vlan();
        known.direction = self.direction();
        known.protocol = self.ll_protocol().unwrap_or_default();
        known.rxhash = self.rxhash().unwrap_or_default();
        known.ifindex = self.interface_index().unwrap_or_default();
        known.hatype = self.hardware_type().unwrap_or_default();
        if filter.is_program() && self.is_cooked() {
            // The kernel had no header yet when it ran the program.
            let header = SLL2_HEADER_LEN;
            known.wire_len = Some(self.meta.wire_len.saturating_sub(header as u32));
            return filter.matches_with(self.data.get(header..).unwrap_or_default(), &known);
        }
        match self.meta.link {
            Some(_) => filter.matches_on(self.link_type(), self.data, &known),
            None => filter.matches_with(self.data, &known),
        }
    }

    /// Returns the type of header that the bytes begin with; `None` if it is not known.
    pub fn link_type(&self) -> Option<LinkType> {
        link_type_of(self.meta.link.as_ref()?.hardware)
    }

    /// Whether the bytes begin with an Ethernet header. If the socket family does not tell, they do.
    pub(crate) fn has_ethernet_header(&self) -> bool {
        let link = self.meta.link.as_ref();
        link.is_none_or(|link| matches!(link.hardware, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK))
    }

    /// Whether the bytes begin with the header of Linux cooked captures, version 2.
    #[inline]
    pub(crate) fn is_cooked(&self) -> bool {
        self.meta.link.is_some_and(|link| link.hardware == hardware_of_cooked())
    }

    /// Returns the hardware type of the interface that the packet was seen on (`ARPHRD_*`, linux/if_arp.h), also if
    /// its bytes are [cooked](LinkType::LINUX_SLL2); `None` if it is not known.
    #[inline]
    pub fn hardware_type(&self) -> Option<u16> {
        if self.is_cooked() {
            return Some(u16::from_be_bytes(*self.data.get(8..)?.first_chunk()?));
        }
        self.meta.link.map(|link| link.hardware).filter(|&kind| !link::is_of_files(kind))
    }

    /// Returns the work that the packet's sender left to the card; `None` if the ring was not asked for it
    /// ([`CaptureBuilder::offloads`](crate::capture::CaptureBuilder::offloads)).
    #[inline]
    pub fn offload(&self) -> Option<Offload> {
        self.meta.offload
    }

    /// Returns whether the packet came in or went out, and how it was addressed; `None` if the family cannot
    /// tell.
    #[inline]
    pub fn direction(&self) -> Option<PacketDirection> {
        let pkttype = self.meta.link.as_ref()?.pkttype;
        (pkttype != NO_DIRECTION).then(|| PacketDirection::from_pkttype(pkttype))
    }

    /// Returns the direction and the kind of receiver as pcapng files have them (`epb_flags`); 0 if they are not known.
    #[cfg(feature = "pcap")]
    pub(crate) fn pcapng_flags(&self) -> u32 {
        match self.direction() {
            Some(PacketDirection::Outgoing) => 2,
            Some(PacketDirection::Host) => 1 | 1 << 2,
            Some(PacketDirection::Multicast) => 1 | 2 << 2,
            Some(PacketDirection::Broadcast) => 1 | 3 << 2,
            Some(PacketDirection::OtherHost) => 1 | 4 << 2,
            _ => 0,
        }
    }

    /// Whether this is the outgoing copy of the two that a loopback interface shows of each packet.
    #[cfg(feature = "flow")]
    pub(crate) fn is_loopback_copy(&self) -> bool {
        let is_outgoing = self.meta.link.is_some_and(|link| link.pkttype == libc::PACKET_OUTGOING);
        is_outgoing && self.hardware_type() == Some(libc::ARPHRD_LOOPBACK)
    }

    /// Returns the EtherType as the kernel sees it (after a stripped tag), in host byte order.
    #[inline]
    pub fn ll_protocol(&self) -> Option<u16> {
        self.meta.link.as_ref().map(|link| link.protocol)
    }

    /// Returns the sender's link-layer address, 6 bytes on Ethernet, at most 8; `None` if the link has none or the socket
    /// was not told. On Ethernet it is then read from the packet's bytes.
    #[doc(alias = "mac")]
    pub fn source_ll_addr(&self) -> Option<LinkAddress> {
        match self.meta.link.as_ref().map(LinkLayer::address) {
            Some(address) if !address.is_empty() => Some(LinkAddress::new(address)),
            _ => self.hardware_address(6..12),
        }
    }

    /// Returns the receiver's link-layer address; `None` on other links than Ethernet.
    #[doc(alias = "mac")]
    pub fn destination_ll_addr(&self) -> Option<LinkAddress> {
        self.hardware_address(0..6)
    }

    fn hardware_address(&self, place: Range<usize>) -> Option<LinkAddress> {
        if self.has_ethernet_header() {
            Some(LinkAddress::new(self.data.get(place)?))
        } else {
            None
        }
    }

    /// Returns the index of the interface that the packet was seen on.
    #[inline]
    pub fn interface_index(&self) -> Option<u32> {
        self.meta.link.as_ref().map(|link| link.interface_index)
    }

    /// Copies this packet with all its metadata into memory of its own.
    ///
    /// This takes one allocation. To copy many packets, copy their batch:
    /// [`PacketBatch::detach`](crate::PacketBatch::detach) takes one allocation for all of them.
    pub fn to_owned(&self) -> OwnedPacket {
        OwnedPacket::new(self.data, self.meta)
    }
}

impl AsRef<[u8]> for Packet<'_> {
    fn as_ref(&self) -> &[u8] {
        self.data
    }
}

impl fmt::Debug for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("len", &self.data.len())
            .field("original_len", &self.meta.wire_len)
            .field("timestamp", &format_args!("{}", self.meta.timestamp))
            .field("status", &self.meta.status)
            .field("rxhash", &self.meta.rxhash)
            .field("vlan", &self.meta.vlan)
            .field("direction", &self.direction())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_program_sees_a_cooked_packet_as_the_kernel_showed_it() {
        use ringtap_filter::BpfInsn;
        let insn = |code, jt, jf, k| BpfInsn { code, jt, jf, k };
        let (no, yes) = (insn(6, 0, 0, 0), insn(6, 0, 0, 1));
        let udp = [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17][..], &[0; 18]].concat();
        let link = LinkLayer { hardware: libc::ARPHRD_PPP, ..LinkLayer::sample() };
        let data = [&link.sll2_header(0x0800)[..], &udp].concat();
        let link = Some(LinkLayer { hardware: hardware_of_cooked(), ..link });
        let packet = Packet::new(&data, PacketMeta { link, ..PacketMeta::plain(data.len()) });
        assert_eq!(packet.hardware_type(), Some(libc::ARPHRD_PPP));
        // The IP header's protocol, the length, and the interface's hardware type.
        for load in [insn(0x30, 0, 0, 9), insn(0x80, 0, 0, 0), insn(0x28, 0, 0, 0xffff_f01c)] {
            let sought = match load.code {
                0x30 => 17,
                0x80 => udp.len() as u32,
                _ => libc::ARPHRD_PPP.into(),
            };
            let is_sought = |k| BpfFilter::new([load, insn(0x15, 1, 0, k), no, yes]).unwrap();
            assert!(packet.matches(&is_sought(sought)), "{load:?}");
            assert!(!packet.matches(&is_sought(sought + 1)), "{load:?}");
        }
        // A text is compiled for the header, also if it was compiled without one before.
        let by_text: BpfFilter = "udp and len = 48 and link[8:2] = 512".parse().unwrap();
        assert!(packet.matches(&by_text) && packet.matches(&by_text.on_cooked().unwrap()));
        let cut = Packet::new(&data[..10], *packet.meta());
        assert!(!cut.matches(&BpfFilter::new([insn(0x30, 0, 0, 9), yes]).unwrap()));
    }

    #[test]
    fn a_status_bit_that_is_not_known_yet_survives() {
        let status = PacketStatus::from_bits_retain(1 << 20 | 1 << 2);
        assert_eq!(status.bits(), 1 << 20 | 1 << 2);
        assert!(status.contains(PacketStatus::LOSING));
    }
}
