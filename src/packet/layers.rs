//! What the headers of a packet say: link layer, tags, tunnels, IP and transport, read once into a compact
//! description.
//!
//! ```text
//!   Ethernet (II, 802.3 with LLC and SNAP), cooked, loopback, PPP, HDLC, raw IP
//!      └─ any number of VLAN tags, MPLS labels, PPPoE, provider backbone bridges
//!           └─ IPv4, IPv6 with extension headers, AH
//!                ├─ TCP, UDP, SCTP, DCCP, UDP-Lite, ICMP, ESP
//!                └─ a tunnel: IP in IP, GRE, ERSPAN, VXLAN, Geneve, GTP-U, MPLS, EtherIP ─► from the top again
//! ```

mod link;
mod network;
mod plain;
#[cfg(test)]
mod tests;
mod tunnel;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

pub use self::tunnel::{Tunnel, TunnelKind, Tunnels};
use super::{LinkType, Packet};

/// Maximum number of headers before and between IP headers, so that a packet of nothing but tags ends.
const MOST_HEADERS: usize = 32;

/// The version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

/// The fields of a TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TcpHeader {
    /// Sequence number of the first byte, or of the SYN.
    pub seq: u32,
    /// Next sequence number that the sender expects, if the flag ACK is set.
    pub ack: u32,
    /// The receive window as it is in the header, not scaled.
    pub window: u16,
    /// Flags, from the least significant bit: FIN, SYN, RST, PSH, ACK, URG, ECE, CWR.
    pub flags: u8,
}

/// The place of a fragment in its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// The identification that all fragments of a datagram share.
    pub(crate) id: u32,
    /// Offset of the payload in the datagram, in bytes.
    pub(crate) at: u32,
    /// Whether more fragments follow.
    pub(crate) more: bool,
}

/// The numbers that tell apart the flows of two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selector {
    /// The protocol has none, or they are not in the packet.
    None,
    /// Ports of the source and of the destination.
    Ports(u16, u16),
    /// Type and code of an ICMP message, and the identifier of a query, or 0.
    Icmp { kind: u8, code: u8, id: u16 },
    /// The security parameter index of ESP or AH.
    Spi(u32),
}

/// What the headers of a packet say about one of its IP layers; from [`Packet::layers`].
///
/// All offsets are relative to the packet's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layers {
    pub(crate) source: [u8; 16],
    pub(crate) destination: [u8; 16],
    pub(crate) family: Family,
    pub(crate) protocol: u8,
    pub(crate) selector: Selector,
    pub(crate) vlans: [u16; 2],
    pub(crate) tunnel: Option<Tunnel>,
    pub(crate) tcp: Option<TcpHeader>,
    pub(crate) fragment: Option<Fragment>,
    /// Offsets of the IP header, of its end, of the header above it, and of what that header carries. Ends are
    /// as the headers announce them, which is beyond the captured bytes if the packet was cut.
    pub(crate) network: u32,
    pub(crate) network_end: u32,
    pub(crate) transport: u32,
    pub(crate) payload: u32,
    pub(crate) payload_end: u32,
}

impl Layers {
    /// Returns the IP address of the sender.
    pub fn source(&self) -> IpAddr {
        address(self.family, self.source)
    }

    /// Returns the IP address of the receiver.
    pub fn destination(&self) -> IpAddr {
        address(self.family, self.destination)
    }

    /// Returns the number of the protocol above IP and its extension headers, as IANA assigns it.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Returns the ports of the source and the destination, for TCP, UDP, SCTP, DCCP and UDP-Lite.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.selector {
            Selector::Ports(source, destination) => Some((source, destination)),
            _ => None,
        }
    }

    /// Returns the identifier of an ICMP query or its reply, such as an echo.
    pub fn icmp_id(&self) -> Option<u16> {
        match self.selector {
            Selector::Icmp { kind, id, .. } => network::is_query(self.protocol, kind).then_some(id),
            _ => None,
        }
    }

    /// Returns the security parameter index of ESP, or of AH before an unknown protocol.
    pub fn spi(&self) -> Option<u32> {
        match self.selector {
            Selector::Spi(spi) => Some(spi),
            _ => None,
        }
    }

    /// Returns the TCP header, if its first 20 bytes were captured.
    pub fn tcp(&self) -> Option<TcpHeader> {
        self.tcp
    }

    /// Returns the ids of the two outermost VLAN tags before the IP header, including a stripped one. A tag
    /// with id 0, which has only a priority, is not returned.
    pub fn vlan_ids(&self) -> (Option<u16>, Option<u16>) {
        let id = |id: u16| (id != 0).then_some(id);
        (id(self.vlans[0]), id(self.vlans[1]))
    }

    /// Returns the tunnel that the IP header is in, if [`Packet::layers`] looked into one.
    pub fn tunnel(&self) -> Option<Tunnel> {
        self.tunnel
    }

    /// Returns whether this is a fragment of a datagram. Only the first has the ports.
    pub fn is_fragment(&self) -> bool {
        self.fragment.is_some()
    }

    /// Returns the offset of the IP header.
    pub fn network_offset(&self) -> usize {
        self.network as usize
    }

    /// Returns the offset of the header above IP and its extension headers.
    pub fn transport_offset(&self) -> usize {
        self.transport as usize
    }

    /// Returns the length of the IP packet with its header, in bytes, without the padding of Ethernet: what was
    /// on the wire, also if fewer bytes were captured. A total length of 0 (BIG TCP, segmentation left to the
    /// card) and a jumbogram are as long as their frame.
    pub fn ip_len(&self) -> usize {
        (self.network_end - self.network) as usize
    }

    /// Returns the place of what the transport header carries, as the headers announce it: it ends beyond the
    /// captured bytes if the packet was cut.
    pub fn payload(&self) -> Range<usize> {
        self.payload as usize..self.payload_end as usize
    }
}

fn address(family: Family, bytes: [u8; 16]) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        Family::V6 => Ipv6Addr::from(bytes).into(),
    }
}

/// The header to be read next, and its offset.
#[derive(Debug, Clone, Copy)]
enum Next {
    Ethernet(usize),
    EtherType(u16, usize),
    Mpls(usize),
    Ppp(usize),
    Ip(usize),
}

/// The bytes of a packet and what was found on the way to the next IP header.
#[derive(Debug, Clone, Copy)]
struct Walk<'a> {
    bytes: &'a [u8],
    /// Where the bytes end that the headers so far announce; on the wire, not in the capture.
    end: usize,
    vlans: [u16; 2],
    tunnel: Option<Tunnel>,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8], wire_len: usize) -> Self {
        Self { bytes, end: wire_len.max(bytes.len()), vlans: [0; 2], tunnel: None }
    }

    /// Notes that a header announces this end. What is behind it, such as padding, is no header of this packet.
    fn until(&mut self, end: usize) {
        self.end = self.end.min(end);
        self.bytes = &self.bytes[..self.bytes.len().min(self.end)];
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    fn half(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }

    /// Notes a VLAN tag; those behind the second are only skipped.
    fn tag(&mut self, id: u16) {
        match self.vlans {
            [0, _] => self.vlans[0] = id & 0xfff,
            [_, 0] => self.vlans[1] = id & 0xfff,
            _ => {}
        }
    }

    /// Goes on to the next IP header.
    fn network(&mut self, mut next: Next) -> Option<Layers> {
        for _ in 0..MOST_HEADERS {
            next = match next {
                Next::Ip(at) => return self.ip(at),
                Next::EtherType(kind, at) => self.ether_type(kind, at)?,
                Next::Ethernet(at) => Next::EtherType(self.half(at + 12)?, at + 14),
                Next::Mpls(at) => self.label(at)?,
                Next::Ppp(at) => self.ppp(at)?,
            };
        }
        None
    }

    /// Reads all layers that are wanted, and returns the innermost that could be read.
    fn all(&mut self, start: Next, tunnels: Tunnels) -> Option<Layers> {
        let mut layers = self.network(start)?;
        for _ in 0..tunnels.depth() {
            // What only looks like a tunnel changes nothing.
            let mut inside = *self;
            let Some(next) = inside.enter(&layers) else { break };
            let Some(inner) = inside.network(next) else { break };
            (*self, layers) = (inside, inner);
        }
        Some(layers)
    }
}

/// Reads the headers of a packet that begins with this type of link header. `stripped` is the id of a VLAN tag
/// that is not in the bytes, or 0.
#[inline]
pub(crate) fn dissect(
    link: LinkType,
    bytes: &[u8],
    wire_len: usize,
    stripped: u16,
    tunnels: Tunnels,
) -> Option<Layers> {
    if link == LinkType::ETHERNET
        && let Some(plain) = plain::read(bytes, wire_len, stripped)
        && (tunnels == Tunnels::Outer || !tunnel::may_carry(&plain))
    {
        return Some(plain);
    }
    slow(link, bytes, wire_len, stripped, tunnels)
}

#[cold]
fn slow(
    link: LinkType,
    bytes: &[u8],
    wire_len: usize,
    stripped: u16,
    tunnels: Tunnels,
) -> Option<Layers> {
    let mut walk = Walk::new(bytes, wire_len);
    walk.tag(stripped);
    let start = walk.link(link)?;
    walk.all(start, tunnels)
}

/// Reads an IP packet that was put together from fragments, which were in `outer`.
#[cfg(feature = "flow")]
pub(crate) fn dissect_ip(bytes: &[u8], outer: &Layers, tunnels: Tunnels) -> Option<Layers> {
    let (vlans, tunnel) = (outer.vlans, outer.tunnel);
    Walk { vlans, tunnel, ..Walk::new(bytes, bytes.len()) }.all(Next::Ip(0), tunnels)
}

impl Packet<'_> {
    /// Reads the headers of the packet, up to the transport header of the IP layer that is wanted. Returns
    /// `None` if there is no IP header, or an unreadable one.
    ///
    /// VLAN tags, MPLS labels and PPPoE are looked through, however many. The bytes are read from the type of
    /// header that [`link_type`](Self::link_type) tells; if it tells none, from an Ethernet header.
    ///
    /// ```
    /// use ringtap::Packet;
    /// use ringtap::packet::Tunnels;
    ///
    /// fn is_dns(packet: &Packet<'_>) -> bool {
    ///     let Some(layers) = packet.layers(Tunnels::Outer) else { return false };
    ///     layers.ports().is_some_and(|(source, destination)| source == 53 || destination == 53)
    /// }
    /// ```
    pub fn layers(&self, tunnels: Tunnels) -> Option<Layers> {
        self.dissected(tunnels)
    }

    /// As [`layers`](Self::layers), for the one caller that has it in its loop.
    #[inline]
    pub(crate) fn dissected(&self, tunnels: Tunnels) -> Option<Layers> {
        let link = self.dissected_as()?;
        let stripped = self.stripped_vlan().map_or(0, |tag| tag.id());
        dissect(link, self.data(), self.original_len(), stripped, tunnels)
    }

    /// Returns the type of header that the bytes are read from. If the socket family does not tell, it is
    /// Ethernet.
    #[inline]
    pub(crate) fn dissected_as(&self) -> Option<LinkType> {
        match self.meta.link {
            None => Some(LinkType::ETHERNET),
            Some(link) if link.hardware == libc::ARPHRD_ETHER => Some(LinkType::ETHERNET),
            Some(_) => self.link_type(),
        }
    }
}
