//! The syntax tree of a filter, independent of the link type. The parser and the builder both produce it.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::link_type::LinkType;

/// A condition on a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    /// Any of the parts; tags and labels in one part do not move the offsets of the others.
    Apart(Vec<Expr>),
    Not(Box<Expr>),
    Is(Primitive),
    /// A comparison of numbers.
    Compare(Relation, Arith, Arith),
}

impl Expr {
    pub(super) fn speaks_of_tags(&self) -> bool {
        self.has(&|primitive| matches!(primitive, Primitive::Vlan(_)))
    }

    /// The link type that it must be about, if only packets of that have what it asks for.
    pub(super) fn link(&self) -> LinkType {
        let is_wireless = self.has(&|primitive| {
            matches!(
                primitive,
                Primitive::WlanType { .. }
                    | Primitive::WlanDirection(_)
                    | Primitive::WlanAddress(..)
            )
        });
        if self.loads_radio() {
            LinkType::IEEE802_11_RADIOTAP
        } else if is_wireless {
            LinkType::IEEE802_11
        } else {
            LinkType::ETHERNET
        }
    }

    fn loads_radio(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) | Self::Apart(parts) => {
                parts.iter().any(Self::loads_radio)
            }
            Self::Not(inner) => inner.loads_radio(),
            Self::Is(_) => false,
            Self::Compare(_, left, right) => left.loads_radio() || right.loads_radio(),
        }
    }

    /// Whether it asks for metadata that only a socket, or the header of a cooked packet, has.
    pub(super) fn speaks_of_metadata(&self) -> bool {
        self.has(&|primitive| {
            matches!(primitive, Primitive::Inbound | Primitive::Outbound | Primitive::Interface(_))
        })
    }

    /// Whether what follows it in the text is about other headers than what comes before.
    pub(super) fn moves_what_follows(&self) -> bool {
        self.has(&|primitive| {
            matches!(
                primitive,
                Primitive::Vlan(_)
                    | Primitive::Mpls(_)
                    | Primitive::PppoeSession(_)
                    | Primitive::Tunnel(..)
            )
        })
    }

    fn has(&self, sought: &impl Fn(&Primitive) -> bool) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) | Self::Apart(parts) => {
                parts.iter().any(|part| part.has(sought))
            }
            Self::Not(inner) => inner.has(sought),
            Self::Is(primitive) => sought(primitive),
            Self::Compare(..) => false,
        }
    }
}

impl Expr {
    /// Whether both are ports, or both hosts, that differ only in their numbers and can be tested as
    /// alternatives.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let (Self::Is(one), Self::Is(other)) = (self, other) else { return false };
        match (one, other) {
            (Primitive::Ports(one, side, ..), Primitive::Ports(other, other_side, ..)) => {
                one == other && side == other_side && *side != Side::Both
            }
            (Primitive::Host(one, side, a), Primitive::Host(other, other_side, b)) => {
                let is_like = one == other && side == other_side && *side != Side::Both;
                is_like && matches!(a, Network::V4(..)) == matches!(b, Network::V4(..))
            }
            _ => false,
        }
    }

    pub(super) fn ports(&self) -> Option<(u16, u16)> {
        match self {
            Self::Is(Primitive::Ports(_, _, low, high)) => Some((*low, *high)),
            _ => None,
        }
    }

    pub(super) fn network(&self) -> Option<Network> {
        match self {
            Self::Is(Primitive::Host(_, _, network)) => Some(*network),
            _ => None,
        }
    }
}

/// A condition that is not made of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Primitive {
    /// Always true.
    True,
    /// A protocol by name.
    Protocol(Protocol),
    /// A value of the link layer's type field.
    LinkType(u16),
    /// A value of the IP header's protocol field, in IPv4, IPv6 or either.
    IpProtocol(Option<Family>, u8),
    Host(HostScope, Side, Network),
    Ether(Side, [u8; 6]),
    EtherBroadcast,
    EtherMulticast,
    IpMulticast(Family),
    Ports(Option<Transport>, Side, u16, u16),
    Vlan(Option<u16>),
    Mpls(Option<u32>),
    PppoeSession(Option<u16>),
    /// Length of the packet on the wire.
    LenAtLeast(u32),
    LenAtMost(u32),
    Inbound,
    Outbound,
    /// The index of the interface.
    Interface(u32),
    /// To all hosts of a network with this mask.
    IpBroadcast(u32),
    /// A protocol of ISO's, by the first byte of its packets.
    IsoProtocol(u8),
    /// A type of IS-IS packet.
    IsisPdu(u8),
    /// A frame of 802.2, of any kind or of one.
    Llc(Option<LlcKind>),
    /// A protocol anywhere in a chain of extension headers.
    ProtoChain(Option<Family>, u8),
    /// A tunnel of UDP, with a network identifier if one is asked for.
    Tunnel(TunnelKind, Option<u32>),
    /// The type of an 802.11 frame, and its subtype if the mask has it: the first byte of frame control.
    WlanType {
        value: u8,
        mask: u8,
    },
    /// Which way an 802.11 frame goes: the low bits of the second byte.
    WlanDirection(u8),
    WlanAddress(WlanAddress, [u8; 6]),
}

/// An address of an 802.11 frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WlanAddress {
    First,
    Second,
    Third,
    Fourth,
    Receiver,
    Transmitter,
}

impl WlanAddress {
    const ALL: [(Self, &'static str); 6] = [
        (Self::First, "addr1"),
        (Self::Second, "addr2"),
        (Self::Third, "addr3"),
        (Self::Fourth, "addr4"),
        (Self::Receiver, "ra"),
        (Self::Transmitter, "ta"),
    ];

    pub(super) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, of)| *of == name).map(|(address, _)| address)
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(address, _)| *address == self).map_or("", |(_, name)| name)
    }
}

/// A kind of 802.2 frame, by its control field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LlcKind {
    Information,
    Supervisory,
    Unnumbered,
    SupervisoryOf(u8),
    UnnumberedOf(u8),
}

/// A kind of tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TunnelKind {
    Geneve,
    Vxlan,
}

impl TunnelKind {
    pub(super) fn port(self) -> u32 {
        match self {
            Self::Geneve => 6081,
            Self::Vxlan => 4789,
        }
    }
}

/// The end of a packet that an address or port applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Side {
    Source,
    Destination,
    Both,
    #[default]
    Either,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl Transport {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// The headers in which an address is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum HostScope {
    /// IP, and for IPv4 addresses also ARP and RARP.
    #[default]
    Any,
    Ip,
    Arp,
    Rarp,
}

/// An address and the mask of its significant bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    V4(Ipv4Addr, u32),
    V6(Ipv6Addr, u128),
}

/// A protocol that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Ether,
    /// The header about the radio before a frame.
    Radio,
    Ip,
    Ip6,
    Arp,
    Rarp,
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmp6,
    Igmp,
    Pim,
    Vrrp,
    Ah,
    Esp,
}

/// A number computed from a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Arith {
    Number(u32),
    Len,
    /// A load of `Width` bytes from a protocol's header, at an offset.
    Load(Protocol, Box<Arith>, Width),
    Op(ArithOp, Box<Arith>, Box<Arith>),
    Negated(Box<Arith>),
}

impl Arith {
    fn loads_radio(&self) -> bool {
        match self {
            Self::Number(_) | Self::Len => false,
            Self::Load(protocol, offset, _) => *protocol == Protocol::Radio || offset.loads_radio(),
            Self::Op(_, left, right) => left.loads_radio() || right.loads_radio(),
            Self::Negated(inner) => inner.loads_radio(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Width {
    Byte,
    Half,
    Word,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ArithOp {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    And,
    Or,
    Xor,
    Shl,
    Shr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}
