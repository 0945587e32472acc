//! The default extractor, and its key.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use flowscope::extract::{self as theirs};
use flowscope::{
    Extracted, FlowExtractor, KeyFields, L4Proto, Orientation, PacketView, TcpFlags, TcpInfo,
};

#[cfg(feature = "flow-records")]
use super::community_id;
use crate::flow::event::l4_of;
use crate::packet::{Family, Layers, LinkType, Selector, TcpHeader, Tunnels, dissect};

/// Identifies flows by protocol, addresses and ports.
///
/// The ports are those of TCP, UDP, SCTP, DCCP and UDP-Lite. Other flows are told apart by the identifier of
/// ICMP queries and by the security parameter index (SPI) of ESP and AH. Headers are read as by
/// [`Packet::layers`](crate::Packet::layers), for every link type: VLAN tags, MPLS and PPPoE are looked
/// through.
///
/// The kernel's fanout hash uses the same fields. Where the two differ, a flow may be on two shards, whose
/// counts add up: the hash does not use the identifier of ICMP, it looks into tunnels although the key does
/// not unless [`tunnels`](Self::tunnels) says so, and it tells apart both directions of ESP as the key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FiveTuple {
    is_bidirectional: bool,
    tunnels: Tunnels,
    has_vlan_ids: bool,
    has_tunnel_ids: bool,
}

impl FiveTuple {
    /// Treats each direction as a separate flow.
    pub const fn directional() -> Self {
        Self {
            is_bidirectional: false,
            tunnels: Tunnels::Outer,
            has_vlan_ids: false,
            has_tunnel_ids: false,
        }
    }

    /// Treats both directions as one flow; the key has the lesser endpoint first.
    pub const fn bidirectional() -> Self {
        Self { is_bidirectional: true, ..Self::directional() }
    }

    /// Returns whether both directions are one flow.
    pub const fn is_bidirectional(&self) -> bool {
        self.is_bidirectional
    }

    /// Sets how far tunnels are looked into. By default they are not: the outermost addresses count.
    #[must_use]
    pub const fn tunnels(mut self, tunnels: Tunnels) -> Self {
        self.tunnels = tunnels;
        self
    }

    /// Makes the ids of the two outermost VLAN tags part of the key, so that the same addresses in two VLANs are
    /// two flows. By default they are one.
    #[must_use]
    pub const fn vlan_ids(mut self, are_in_key: bool) -> Self {
        self.has_vlan_ids = are_in_key;
        self
    }

    /// Makes the number of the tunnel part of the key (the network identifier of VXLAN, the endpoint of GTP-U
    /// and so on), so that the same addresses in two tunnels are two flows. By default they are one.
    #[must_use]
    pub const fn tunnel_ids(mut self, are_in_key: bool) -> Self {
        self.has_tunnel_ids = are_in_key;
        self
    }

    /// Returns how far tunnels are looked into.
    pub(in crate::flow) fn depth(&self) -> Tunnels {
        self.tunnels
    }

    /// This extractor, if `extractor` is of its type.
    #[inline]
    pub(in crate::flow) fn of<E: FlowExtractor>(extractor: &E) -> Option<&Self> {
        (extractor as &dyn Any).downcast_ref()
    }

    /// Returns the key of a packet, and whether the sender is its first endpoint.
    #[inline]
    pub(in crate::flow) fn key(&self, layers: &Layers) -> (FiveTupleKey, Orientation) {
        let mut message = [0; 2];
        let (ports, is_ordered) = match layers.selector {
            Selector::Ports(source, destination) => ([source, destination], true),
            Selector::Icmp { kind, code, id } => {
                message = [kind, code & !FROM_SECOND];
                ([id, id], true)
            }
            Selector::Spi(spi) => ([(spi >> 16) as u16, spi as u16], false),
            Selector::None => ([0; 2], true),
        };
        let is_reverse = self.is_bidirectional
            && (layers.source, ports[0] * u16::from(is_ordered))
                > (layers.destination, ports[1] * u16::from(is_ordered));
        let mut key = FiveTupleKey {
            a: layers.source,
            b: layers.destination,
            ports,
            vlans: if self.has_vlan_ids { layers.vlans } else { [0; 2] },
            tunnel: match layers.tunnel {
                Some(tunnel) if self.has_tunnel_ids => tunnel.id,
                _ => 0,
            },
            protocol: layers.protocol,
            family: layers.family,
            message: Unkeyed(message),
        };
        if is_reverse {
            key.message.0[1] |= FROM_SECOND;
            (key.a, key.b) = (key.b, key.a);
            if is_ordered {
                key.ports = [ports[1], ports[0]];
            }
        }
        (key, if is_reverse { Orientation::Reverse } else { Orientation::Forward })
    }
}

impl Default for FiveTuple {
    /// Creates a bidirectional extractor.
    fn default() -> Self {
        Self::bidirectional()
    }
}

/// For code that has frames of Ethernet; flows of this crate read the headers themselves.
impl FlowExtractor for FiveTuple {
    type Key = FiveTupleKey;

    fn extract(&self, view: PacketView<'_>) -> Option<Extracted<FiveTupleKey>> {
        let frame = view.frame;
        let layers = dissect(LinkType::ETHERNET, frame, frame.len(), 0, self.tunnels)?;
        let (key, orientation) = self.key(&layers);
        let tcp = layers.tcp().map(|header| tcp_info(&header, &layers));
        Some(Extracted::new(key, orientation, Some(key.proto()), tcp))
    }
}

/// Returns a TCP header in flowscope's form.
fn tcp_info(header: &TcpHeader, layers: &Layers) -> TcpInfo {
    // Only flowscope can construct this type, but an existing value can be changed.
    static ANY: std::sync::LazyLock<TcpInfo> = std::sync::LazyLock::new(|| {
        let view = PacketView::new(&SEGMENT, flowscope::Timestamp::default());
        let extracted = theirs::FiveTuple::bidirectional().extract(view);
        extracted.and_then(|extracted| extracted.tcp).expect("it is a segment of TCP")
    });
    let mut info = *ANY;
    info.flags = TcpFlags::from_bits_retain(header.flags);
    (info.seq, info.ack, info.window) = (header.seq, header.ack, header.window);
    (info.payload_offset, info.payload_len) = (layers.payload().start, layers.payload().len());
    info
}

/// A frame with headers only.
const SEGMENT: [u8; 54] = {
    let mut frame = [0; 54];
    (frame[12], frame[14], frame[17], frame[23], frame[46]) = (0x08, 0x45, 40, 6, 0x50);
    frame
};

/// Identifies a flow; from [`FiveTuple`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FiveTupleKey {
    a: [u8; 16],
    b: [u8; 16],
    ports: [u16; 2],
    vlans: [u16; 2],
    tunnel: u32,
    protocol: u8,
    family: Family,
    /// Type and code of the ICMP message that the key is from.
    message: Unkeyed<[u8; 2]>,
}

/// In a code of ICMP, of which none is that high: the sender is the second endpoint.
const FROM_SECOND: u8 = 0x80;

/// Known of a flow's first packet, but not part of its identity.
#[derive(Clone, Copy)]
struct Unkeyed<T>(T);

impl<T> PartialEq for Unkeyed<T> {
    #[inline]
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Unkeyed<T> {}

const ICMPV6: u8 = 58;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;

impl FiveTupleKey {
    /// Creates the key of flows between two endpoints, outside of VLANs and tunnels. For flows of both
    /// directions the lesser endpoint must be `a`. The Community ID of ICMP, which has types in the place of ports, is that of
    /// an echo.
    ///
    /// # Panics
    /// If one address is of IPv4 and the other of IPv6.
    pub fn new(proto: L4Proto, a: SocketAddr, b: SocketAddr) -> Self {
        assert_eq!(a.is_ipv4(), b.is_ipv4(), "both addresses are of one version of IP");
        let bytes = |address: IpAddr| match address {
            IpAddr::V4(address) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&address.octets());
                bytes
            }
            IpAddr::V6(address) => address.octets(),
        };
        Self {
            a: bytes(a.ip()),
            b: bytes(b.ip()),
            ports: [a.port(), b.port()],
            vlans: [0; 2],
            tunnel: 0,
            protocol: proto.as_u8(),
            family: if a.is_ipv4() { Family::V4 } else { Family::V6 },
            message: Unkeyed([
                if proto.as_u8() == ICMPV6 { ECHO_REQUEST_V6 } else { ECHO_REQUEST },
                0,
            ]),
        }
    }

    /// Returns the first endpoint: the lesser one if both directions are one flow, or the sender. The port is 0
    /// if the protocol has none.
    pub fn a(&self) -> SocketAddr {
        SocketAddr::new(self.address(self.a), if self.has_ports() { self.ports[0] } else { 0 })
    }

    /// Returns the second endpoint.
    pub fn b(&self) -> SocketAddr {
        SocketAddr::new(self.address(self.b), if self.has_ports() { self.ports[1] } else { 0 })
    }

    /// Returns the transport protocol.
    #[inline]
    pub fn proto(&self) -> L4Proto {
        l4_of(self.protocol)
    }

    /// Returns whether one of the endpoints has this port.
    pub fn either_port(&self, port: u16) -> bool {
        self.has_ports() && self.ports.contains(&port)
    }

    /// Returns the identifier of an ICMP query, such as an echo.
    pub fn icmp_id(&self) -> Option<u16> {
        (matches!(self.protocol, 1 | 58) && self.ports[0] != 0).then_some(self.ports[0])
    }

    /// Returns the type and the code of the ICMP message that the key was made from: of a flow, its first. A key from
    /// [`new`](Self::new) is that of an echo.
    pub fn icmp_message(&self) -> Option<(u8, u8)> {
        let Unkeyed([kind, code]) = self.message;
        matches!(self.protocol, 1 | 58).then_some((kind, code & !FROM_SECOND))
    }

    /// Returns the security parameter index of ESP or AH.
    pub fn spi(&self) -> Option<u32> {
        let spi = u32::from(self.ports[0]) << 16 | u32::from(self.ports[1]);
        matches!(self.protocol, 50 | 51).then_some(spi)
    }

    /// Returns the ids of the two outermost VLAN tags, if [`FiveTuple::vlan_ids`] asked for them.
    pub fn vlan_ids(&self) -> (Option<u16>, Option<u16>) {
        let id = |id: u16| (id != 0).then_some(id);
        (id(self.vlans[0]), id(self.vlans[1]))
    }

    /// Returns the number of the tunnel, if [`FiveTuple::tunnel_ids`] asked for it and it is not 0.
    pub fn tunnel_id(&self) -> Option<u32> {
        (self.tunnel != 0).then_some(self.tunnel)
    }

    /// What its ports are, for its Community ID.
    #[cfg(feature = "flow-records")]
    fn community_ports(&self) -> community_id::Ports {
        let Unkeyed([kind, code]) = self.message;
        match self.protocol {
            1 | 58 => community_id::Ports::Icmp(kind, code & !FROM_SECOND, code & FROM_SECOND != 0),
            _ if self.has_ports() => community_id::Ports::OfEndpoints,
            _ => community_id::Ports::None,
        }
    }

    fn has_ports(&self) -> bool {
        matches!(self.protocol, 6 | 17 | 33 | 132 | 136)
    }

    fn address(&self, bytes: [u8; 16]) -> IpAddr {
        match self.family {
            Family::V4 => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
            Family::V6 => IpAddr::from(bytes),
        }
    }
}

impl Hash for FiveTupleKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Whole words: a hasher takes them in at once, and bytes one by one.
        let half = |bytes: &[u8; 16], at: usize| {
            u64::from_ne_bytes(std::array::from_fn(|byte| bytes[at + byte]))
        };
        let [from, to] = self.ports.map(u64::from);
        let [outer, inner] = self.vlans.map(u64::from);
        let kind = u64::from(self.protocol) << 8 | u64::from(self.family == Family::V6);
        state.write_u64(half(&self.a, 0));
        state.write_u64(half(&self.b, 0));
        state.write_u64(from << 48 | to << 32 | kind << 16 ^ outer << 24 ^ inner << 40);
        if self.family == Family::V6 {
            state.write_u64(half(&self.a, 8));
            state.write_u64(half(&self.b, 8));
        }
        if self.tunnel != 0 {
            state.write_u32(self.tunnel);
        }
    }
}

impl KeyFields for FiveTupleKey {
    fn src_ip(&self) -> Option<IpAddr> {
        Some(self.a().ip())
    }

    fn src_port(&self) -> Option<u16> {
        self.has_ports().then_some(self.ports[0])
    }

    fn dest_ip(&self) -> Option<IpAddr> {
        Some(self.b().ip())
    }

    fn dest_port(&self) -> Option<u16> {
        self.has_ports().then_some(self.ports[1])
    }

    fn proto_str(&self) -> Option<&'static str> {
        self.proto().proto_str()
    }

    fn protocol_identifier(&self) -> Option<u8> {
        Some(self.protocol)
    }

    #[cfg(feature = "flow-records")]
    fn community_id_seeded(&self, seed: u16) -> Option<String> {
        let (endpoints, ports) = ([self.a(), self.b()], self.community_ports());
        Some(community_id::of(self.protocol, endpoints, ports, seed))
    }
}

/// Writes `tcp 192.0.2.1:40000 - 198.51.100.2:80`.
impl fmt::Display for FiveTupleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.proto() {
            L4Proto::Other(number) => write!(f, "protocol {number}")?,
            proto => f.write_str(proto.canonical_name())?,
        }
        match self.has_ports() {
            true => write!(f, " {} - {}", self.a(), self.b()),
            false => write!(f, " {} - {}", self.a().ip(), self.b().ip()),
        }
    }
}

impl fmt::Debug for FiveTupleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FiveTupleKey({self})")
    }
}

/// The key in flowscope's form, without what that does not have.
impl From<FiveTupleKey> for theirs::FiveTupleKey {
    fn from(key: FiveTupleKey) -> Self {
        Self::new(key.proto(), key.a(), key.b())
    }
}
