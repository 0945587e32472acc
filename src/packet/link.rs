//! Link-layer metadata of a packet.

use std::fmt;

use ringtap_filter::LinkType;

/// The frame sizes that an interface accepts for sending, beyond its MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Framing {
    /// Bytes of the link-layer header, which every frame has and the MTU does not count (`hard_header_len`).
    pub(crate) header_len: usize,
    /// The least bytes of a frame; cached, because every frame is checked against it.
    pub(crate) least: usize,
    /// Whether a frame may be longer by an 802.1Q tag (`packet_extra_vlan_len_allowed`,
    /// net/packet/af_packet.c).
    pub(crate) takes_tags: bool,
}

impl Framing {
    /// Bytes of an 802.1Q tag.
    const TAG: usize = 4;

    /// Looks up the framing of an `ARPHRD_*` type. An unknown type counts as having no header, so that every
    /// accepted frame can be sent.
    pub(crate) fn of_hardware(kind: u16) -> Self {
        let header_len = match LinkType::of_hardware(kind) {
            // 802.11 monitor interfaces have an Ethernet device's length (`ieee80211_if_setup`,
            // net/mac80211/iface.c).
            Some(LinkType::ETHERNET | LinkType(105 | 119 | 127)) => 14,
            _ => 0,
        };
        Self { header_len, least: header_len.max(1), takes_tags: kind == libc::ARPHRD_ETHER }
    }

    /// The longest frame for this MTU, not counting a tag.
    #[inline]
    pub(crate) fn longest(self, mtu: usize) -> usize {
        mtu + self.header_len
    }

    /// The longest frame with an 802.1Q tag, if the interface takes tags.
    #[inline]
    pub(crate) fn longest_tagged(self, mtu: usize) -> usize {
        self.longest(mtu) + if self.takes_tags { Self::TAG } else { 0 }
    }
}

/// Value of `pkttype` for an unknown direction.
pub(crate) const NO_DIRECTION: u8 = 0xff;

/// Beginning of the values of `LinkLayer::hardware` for link types that only files have; the kernel uses none of
/// them. Its own values end at `0x0fff`, except for two at the very end (linux/if_arp.h).
const OF_FILES: u16 = 0xf000;
/// End of those values.
const OF_FILES_END: u16 = 0xff00;

/// Returns the value of `LinkLayer::hardware` for cooked packets, which begin with a header of [`SLL2_HEADER_LEN`] bytes.
pub(crate) fn hardware_of_cooked() -> u16 {
    hardware_of(LinkType::LINUX_SLL2)
}

/// Bytes of the header of Linux cooked captures, version 2.
pub(crate) const SLL2_HEADER_LEN: usize = 20;

/// Returns the value of `LinkLayer::hardware` for packets in a file of this link type.
pub(crate) fn hardware_of(link: LinkType) -> u16 {
    match link {
        LinkType::ETHERNET => libc::ARPHRD_ETHER,
        LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD => libc::ARPHRD_NONE,
        LinkType(number) if number < OF_FILES_END - OF_FILES => OF_FILES + number,
        _ => libc::ARPHRD_VOID,
    }
}

/// Whether this value of `LinkLayer::hardware` is not one of the kernel's.
pub(super) fn is_of_files(hardware: u16) -> bool {
    (OF_FILES..OF_FILES_END).contains(&hardware)
}

/// Returns the link type of packets with this value of `LinkLayer::hardware`, if it is known.
#[inline]
pub(super) fn link_type_of(hardware: u16) -> Option<LinkType> {
    match hardware {
        OF_FILES..OF_FILES_END => Some(LinkType(hardware - OF_FILES)),
        kind => LinkType::of_hardware(kind),
    }
}

/// The link layer's view of a packet (`struct sockaddr_ll`, packet(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkLayer {
    pub(crate) protocol: u16,
    pub(crate) interface_index: u32,
    /// The hardware type (`ARPHRD_…`, linux/if_arp.h).
    pub(crate) hardware: u16,
    pub(crate) pkttype: u8,
    pub(crate) address_len: u8,
    pub(crate) address: [u8; 8],
}

impl LinkLayer {
    /// Reads a `struct sockaddr_ll` of 20 bytes.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let bytes: &[u8; 20] = bytes.first_chunk().expect("the caller has a whole header");
        Self {
            protocol: u16::from_be_bytes([bytes[2], bytes[3]]),
            interface_index: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            hardware: u16::from_ne_bytes([bytes[8], bytes[9]]),
            pkttype: bytes[10],
            address_len: bytes[11],
            address: std::array::from_fn(|at| bytes[12 + at]),
        }
    }

    /// Returns the header of Linux cooked captures, version 2, for a packet of this protocol.
    pub(crate) fn sll2_header(&self, protocol: u16) -> [u8; SLL2_HEADER_LEN] {
        let mut header = [0; SLL2_HEADER_LEN];
        header[..2].copy_from_slice(&protocol.to_be_bytes());
        header[4..8].copy_from_slice(&self.interface_index.to_be_bytes());
        header[8..10].copy_from_slice(&self.hardware.to_be_bytes());
        (header[10], header[11]) = (self.pkttype, self.address_len);
        header[12..].copy_from_slice(&self.address);
        header
    }

    /// Derives the metadata from the frame itself, on an interface of this hardware type.
    #[cfg(feature = "af-xdp")]
    #[inline]
    pub(crate) fn of_frame(data: &[u8], hardware: u16, interface_index: u32) -> Self {
        let protocol = match (hardware, data) {
            (
                libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK,
                [_, _, _, _, _, _, _, _, _, _, _, _, high, low, ..],
            ) => u16::from_be_bytes([*high, *low]),
            (_, [first, ..]) if first >> 4 == 4 => libc::ETH_P_IP as u16,
            (_, [first, ..]) if first >> 4 == 6 => libc::ETH_P_IPV6 as u16,
            _ => 0,
        };
        let (pkttype, address_len, address) = (NO_DIRECTION, 0, [0; 8]);
        Self { protocol, interface_index, hardware, pkttype, address_len, address }
    }

    /// Writes the format that [`read`](Self::read) reads.
    pub(crate) fn write(&self, bytes: &mut [u8]) {
        bytes[2..4].copy_from_slice(&self.protocol.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.interface_index.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.hardware.to_ne_bytes());
        bytes[10] = self.pkttype;
        bytes[11] = self.address_len;
        bytes[12..20].copy_from_slice(&self.address);
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn sample() -> Self {
        Self {
            protocol: 0x0800,
            interface_index: 1,
            hardware: libc::ARPHRD_ETHER,
            pkttype: libc::PACKET_HOST,
            address_len: 6,
            address: [2, 0, 0, 0, 0, 1, 0, 0],
        }
    }

    pub(super) fn address(&self) -> &[u8] {
        &self.address[..usize::from(self.address_len).min(self.address.len())]
    }
}

/// A link-layer address, such as a MAC address; dereferences to its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkAddress {
    /// Zero beyond `len`.
    bytes: [u8; 8],
    len: u8,
}

impl LinkAddress {
    /// The address in these bytes, as far as there is room for it.
    pub(super) fn new(address: &[u8]) -> Self {
        let len = address.len().min(8);
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&address[..len]);
        Self { bytes, len: len as u8 }
    }
}

impl std::ops::Deref for LinkAddress {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Fails if the address has another length than 6.
impl TryFrom<LinkAddress> for [u8; 6] {
    type Error = std::array::TryFromSliceError;

    fn try_from(address: LinkAddress) -> Result<Self, Self::Error> {
        (&*address).try_into()
    }
}

/// Writes `02:00:00:00:00:01`, padded to the width that is asked for.
impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<String> = self.iter().map(|byte| format!("{byte:02x}")).collect();
        f.pad(&bytes.join(":"))
    }
}

impl fmt::Debug for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_longer_than_its_field_is_cut_not_read_past() {
        let link =
            LinkLayer { address_len: 32, address: [1, 2, 3, 4, 5, 6, 7, 8], ..LinkLayer::sample() };
        let long = LinkAddress::new(link.address());
        assert_eq!((long.len(), &*long.to_string()), (8, "01:02:03:04:05:06:07:08"));
        assert!(<[u8; 6]>::try_from(long).is_err());
        let mac = LinkAddress::new(&[2, 0, 0, 0, 0, 1]);
        assert_eq!(<[u8; 6]>::try_from(mac).unwrap(), [2, 0, 0, 0, 0, 1]);
        assert_eq!(format!("{mac:>20}|{mac:<18}|"), "   02:00:00:00:00:01|02:00:00:00:00:01 |");
    }
}
