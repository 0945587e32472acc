//! Translates a filter's expression into loads and comparisons for a certain link type.
//!
//! The order is that of libpcap. A load beyond the packet's end rejects the packet, so the order of loads
//! decides about short packets. `vlan`, `mpls` and `pppoes` move the offsets of everything that follows them in
//! the text.

mod address;
mod arith;
mod chain;
mod label;
mod llc;
mod tunnel;
mod wireless;

use std::cell::Cell;
use std::rc::Rc;

use self::wireless::Wireless;
use super::FilterTarget;
use super::ast::{ArithOp, Expr, Family, Primitive, Protocol, Side, Transport, Width};
use super::tree::{Compare, Condition, Value};
use super::vm::ANCILLARY;
use crate::error::FilterError;
use crate::insn::MAX_INSTRUCTIONS;
use crate::link_type::LinkType;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
/// Bytes of an IPv6 header.
const IPV6_HEADER: u32 = 40;
/// Bytes of the header of Linux cooked captures, version 2.
const SLL2_HEADER: u32 = 20;
/// Offsets of packet metadata.
const PROTOCOL: u32 = ANCILLARY;
const PACKET_TYPE: u32 = ANCILLARY + 4;
const INTERFACE: u32 = ANCILLARY + 8;
const HARDWARE: u32 = ANCILLARY + 28;
const VLAN_TAG: u32 = ANCILLARY + 44;
const VLAN_PRESENT: u32 = ANCILLARY + 48;

/// The most values that all tests of a filter load and compute. What fits into a program computes fewer, also behind five
/// tunnels, and the later passes take longer the more there are.
const MAX_VALUES: usize = 1 << 20;

type Lowered = Result<Condition, FilterError>;

/// The offsets in a packet at the current position in the text.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    target: FilterTarget,
    /// The type of the packet's first header.
    outer: LinkType,
    /// The type of the link header at hand, which in a tunnel is that of the packet inside.
    link: LinkType,
    /// How the type of the next header is encoded.
    types: Types,
    /// Offset of that type.
    type_at: u32,
    /// Offset of the network layer, not counting labels.
    payload: u32,
    /// Bytes of labels before the network layer.
    labels: u32,
    /// Whether the next tag is in the packet's metadata instead of the frame.
    is_beside: bool,
    /// What all offsets are relative to, if that is not the packet's start: the start of the packet in a tunnel, or the
    /// payload of 802.11.
    base: Option<Rc<Value>>,
    /// The next header's Ethernet type, if it is not at `type_at`.
    told: Option<Rc<Value>>,
    /// Whether the packet came in a tunnel without a link header.
    is_bare: bool,
    /// Whether a tunnel was entered in a conjunction that is over.
    is_past_tunnel: bool,
    /// How often the tunnels on the way here have doubled the ways to a packet.
    doublings: u32,
    /// The header of 802.11, if the packet has one.
    wireless: Option<Wireless>,
    /// Number of values in the tests so far, of all ways and alternatives together.
    values: Rc<Cell<usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Types {
    /// As an Ethernet type.
    Ether,
    /// As an Ethernet type in the packet's metadata.
    Beside,
    /// As a PPP protocol.
    Ppp,
    /// As an address family in network byte order.
    Family,
    /// As an address family in the host's byte order.
    HostFamily,
    /// As the first bits of the packet.
    Version,
    /// Not encoded.
    None,
}

pub(super) fn lower(
    expr: &Expr,
    link: LinkType,
    target: FilterTarget,
    is_transparent: bool,
) -> Lowered {
    let mut layout = Layout::of(link, target);
    let has_tags = matches!(
        link,
        LinkType::ETHERNET
            | LinkType::LINUX_SLL2
            | LinkType::IEEE802_11
            | LinkType::IEEE802_11_RADIOTAP
    );
    if is_transparent && has_tags {
        return layout.behind(2, expr);
    }
    if layout.is_beside && expr.speaks_of_tags() {
        // Some tags stay in their frames: those of frames that this host sends, and those of other kinds.
        let is_beside = layout.is(Width::Byte, VLAN_PRESENT, 0).negated();
        let beside = is_beside.clone().and(layout.expr(expr)?);
        let mut layout = Layout { is_beside: false, ..Layout::of(link, target) };
        return Ok(beside.or(is_beside.negated().and(layout.expr(expr)?)));
    }
    layout.expr(expr)
}

fn number(number: u32) -> Rc<Value> {
    Rc::new(Value::Number(number))
}

/// A load from `offset` bytes behind `base`.
fn beyond(width: Width, base: &Rc<Value>, offset: u32) -> Rc<Value> {
    Rc::new(match base.number() {
        Some(base) => Value::At(width, base.wrapping_add(offset)),
        None => Value::Beyond(width, Rc::clone(base), offset),
    })
}

/// Tests the source, the destination, both or either, as `side` says; the source comes first.
fn sides(
    side: Side,
    source: impl FnOnce() -> Condition,
    destination: impl FnOnce() -> Condition,
) -> Condition {
    match side {
        Side::Source => source(),
        Side::Destination => destination(),
        Side::Both => source().and(destination()),
        Side::Either => source().or(destination()),
    }
}

impl Layout {
    fn of(link: LinkType, target: FilterTarget) -> Self {
        let (types, type_at, payload) = match link.compiled() {
            LinkType::LINUX_SLL2 if target == FilterTarget::Cooked => (Types::Beside, 0, 0),
            LinkType::ETHERNET => (Types::Ether, 12, 14),
            LinkType::LINUX_SLL => (Types::Ether, 14, 16),
            LinkType::LINUX_SLL2 => (Types::Ether, 0, 20),
            LinkType::NULL => (Types::HostFamily, 0, 4),
            LinkType::LOOP => (Types::Family, 0, 4),
            // Behind address and control, which are there in practice; as in libpcap.
            LinkType::PPP => (Types::Ppp, 2, 4),
            LinkType::C_HDLC => (Types::Ether, 2, 4),
            LinkType::RAW => (Types::Version, 0, 0),
            // In the header of SNAP that the payload begins with.
            LinkType::IEEE802_11 | LinkType::IEEE802_11_RADIOTAP => (Types::Ether, 6, 8),
            _ => (Types::None, 0, 0),
        };
        // No kernel removes a tag from 802.11.
        let is_beside = target != FilterTarget::Offline && Wireless::of(link).is_none();
        let wireless = Wireless::of(link);
        let base = wireless.as_ref().map(Wireless::payload);
        let (told, is_bare, is_past_tunnel) = (None, false, false);
        let (labels, doublings, values) = (0, 0, Rc::default());
        Self {
            target,
            outer: link,
            link,
            types,
            type_at,
            payload,
            labels,
            is_beside,
            base,
            told,
            is_bare,
            is_past_tunnel,
            doublings,
            wireless,
            values,
        }
    }

    /// Counts the values of a condition. A text of a few bytes can ask for millions of them.
    fn counted(&self, condition: Condition) -> Lowered {
        self.values.set(self.values.get() + condition.values());
        match self.values.get() <= MAX_VALUES {
            true => Ok(condition),
            false => {
                let why = format!(
                    "no program that computes {} values and more: the kernel takes {MAX_INSTRUCTIONS} instructions",
                    self.values.get()
                );
                Err(FilterError::whole(why))
            }
        }
    }

    /// A load from an offset; from `ANCILLARY` on, of metadata.
    fn at(&self, width: Width, offset: u32) -> Rc<Value> {
        match &self.base {
            Some(base) if offset < ANCILLARY => beyond(width, base, offset),
            _ => Rc::new(Value::At(width, offset)),
        }
    }

    fn is(&self, width: Width, offset: u32, value: u32) -> Condition {
        Condition::equal(self.at(width, offset), number(value))
    }

    fn masked(&self, width: Width, offset: u32, value: u32, mask: u32) -> Condition {
        let left = Value::op(ArithOp::And, self.at(width, offset), number(mask));
        Condition::equal(left, number(value & mask))
    }

    /// The offset of the header above IPv4, without [`network`](Self::network).
    fn v4_header_len(&self) -> Rc<Value> {
        let network = self.network();
        match &self.base {
            None => Rc::new(Value::HeaderLen(network)),
            Some(base) => {
                let low = Value::op(ArithOp::And, self.at(Width::Byte, network), number(0xf));
                let len = Value::op(ArithOp::Shl, low, number(2));
                Value::op(ArithOp::Add, len, Rc::clone(base))
            }
        }
    }

    /// Length of the packet, with the header that a cooked one is given later.
    fn len(&self) -> Rc<Value> {
        match self.target {
            FilterTarget::Cooked => {
                Value::op(ArithOp::Add, Rc::new(Value::Len), number(SLL2_HEADER))
            }
            _ => Rc::new(Value::Len),
        }
    }

    /// Offset of the network layer.
    fn network(&self) -> u32 {
        self.payload + self.labels
    }

    fn expr(&mut self, expr: &Expr) -> Lowered {
        self.check_reach()?;
        Ok(match expr {
            Expr::All(all) => self.all(all)?,
            Expr::Any(any) => self.any(any)?,
            Expr::Apart(any) => {
                let apart = any.iter().map(|one| self.clone().expr(one));
                Condition::Any(apart.collect::<Result<_, _>>()?)
            }
            Expr::Not(inner) => self.expr(inner)?.negated(),
            Expr::Is(primitive) => {
                let condition = self.primitive(primitive)?;
                self.counted(condition)?
            }
            Expr::Compare(relation, left, right) => {
                let condition = self.compare(*relation, left, right)?;
                self.counted(condition)?
            }
        })
    }

    /// Fails behind a conjunction with a tunnel: whether the next condition is about the packet inside depends on whether
    /// the conjunction holds.
    fn check_reach(&self) -> Result<(), FilterError> {
        match self.is_past_tunnel {
            false => Ok(()),
            true => Err(FilterError::whole(
                "no condition behind `geneve` or `vxlan` unless it is joined by `and` alone: write each way by itself",
            )),
        }
    }

    /// Matches any of the conditions. Ports, or hosts, that differ only in their numbers are tested together,
    /// first all sources and then all destinations, which makes the program three times smaller.
    fn any(&mut self, any: &[Expr]) -> Lowered {
        let (mut parts, mut rest) = (Vec::new(), any);
        while let Some((first, others)) = rest.split_first() {
            let alike = 1 + others.iter().take_while(|other| first.is_like(other)).count();
            let (run, behind) = rest.split_at(alike);
            self.check_reach()?;
            parts.push(match (first, alike) {
                (Expr::Is(Primitive::Ports(transport, side, ..)), 2..) => {
                    let ranges: Vec<_> = run.iter().filter_map(Expr::ports).collect();
                    self.counted(self.either_ports(*transport, *side, &ranges)?)?
                }
                (Expr::Is(Primitive::Host(scope, side, _)), 2..) => {
                    let networks: Vec<_> = run.iter().filter_map(Expr::network).collect();
                    self.counted(self.host(*scope, *side, &networks)?)?
                }
                _ => self.expr(first)?,
            });
            rest = behind;
        }
        Ok(Condition::Any(parts))
    }

    fn either_ports(
        &self,
        transport: Option<Transport>,
        side: Side,
        ranges: &[(u16, u16)],
    ) -> Lowered {
        // IPv6 comes first, as in libpcap.
        let v6 = self.ports(Family::V6, transport, side, ranges)?;
        Ok(v6.or(self.ports(Family::V4, transport, side, ranges)?))
    }

    fn primitive(&mut self, primitive: &Primitive) -> Lowered {
        Ok(match *primitive {
            Primitive::True => Condition::True,
            Primitive::Protocol(protocol) => self.protocol(protocol)?,
            Primitive::LinkType(number) => self.link_protocol(number)?,
            Primitive::IpProtocol(family, number) => self.ip_protocol(family, number)?,
            Primitive::Host(scope, side, network) => self.host(scope, side, &[network])?,
            Primitive::WlanType { value, mask } => self.wlan_type(value, mask)?,
            Primitive::WlanDirection(direction) => self.wlan_direction(direction)?,
            Primitive::WlanAddress(which, mac) => self.wlan_address(which, mac)?,
            Primitive::Ether(side, mac) => match &self.wireless {
                Some(wireless) => wireless.ether(side, mac),
                None => {
                    let is_there = self.ethernet("ether host")?;
                    is_there.and(sides(side, || self.mac_is(6, mac), || self.mac_is(0, mac)))
                }
            },
            Primitive::EtherBroadcast => match &self.wireless {
                Some(wireless) => wireless.ether(Side::Destination, [0xff; 6]),
                None => self.ethernet("broadcast")?.and(self.mac_is(0, [0xff; 6])),
            },
            Primitive::EtherMulticast => match &self.wireless {
                Some(wireless) => wireless.multicast(),
                None => {
                    let is_multicast =
                        Condition::test(self.at(Width::Byte, 0), Compare::Set, number(1));
                    self.ethernet("multicast")?.and(is_multicast)
                }
            },
            Primitive::IpMulticast(Family::V4) => {
                let last = self.at(Width::Byte, self.network() + 16);
                let is_multicast = Condition::test(last, Compare::AtLeast, number(224));
                self.link_type(IPV4)?.and(is_multicast)
            }
            Primitive::IpMulticast(Family::V6) => {
                self.link_type(IPV6)?.and(self.is(Width::Byte, self.network() + 24, 255))
            }
            Primitive::IpBroadcast(mask) => self.ip_broadcast(mask)?,
            Primitive::IsoProtocol(protocol) => self.iso(protocol)?,
            Primitive::IsisPdu(kind) => self.isis_pdu(kind)?,
            Primitive::Llc(kind) => self.llc(kind)?,
            Primitive::ProtoChain(family, protocol) => self.proto_chain(family, protocol)?,
            Primitive::Tunnel(tunnel, id) => self.tunnel(tunnel, id, &[])?,
            Primitive::Ports(transport, side, low, high) => {
                self.either_ports(transport, side, &[(low, high)])?
            }
            Primitive::Vlan(id) => self.vlan(id)?,
            Primitive::Mpls(label) => self.mpls(label)?,
            Primitive::PppoeSession(session) => self.pppoe(session)?,
            Primitive::LenAtLeast(len) => {
                Condition::test(self.len(), Compare::AtLeast, number(len))
            }
            Primitive::LenAtMost(len) => {
                Condition::test(self.len(), Compare::Greater, number(len)).negated()
            }
            Primitive::Outbound => self.outbound()?,
            Primitive::Inbound => self.outbound()?.negated(),
            Primitive::Interface(index) => self.interface(index)?,
        })
    }

    /// Whether there is a header of Ethernet, which a packet in a tunnel may lack.
    fn ethernet(&self, what: &str) -> Lowered {
        match self.link {
            LinkType::ETHERNET if self.is_bare => Ok(Condition::False),
            LinkType::ETHERNET => Ok(Condition::True),
            link => Err(FilterError::whole(format!("no `{what}` for link type {}", link.0))),
        }
    }

    /// Tests whether the link layer's payload is of this Ethernet type.
    fn link_type(&self, ether_type: u16) -> Lowered {
        Ok(self.has_payload().and(self.payload_type(ether_type)?))
    }

    /// Whether the frame is of a kind that has a payload.
    fn has_payload(&self) -> Condition {
        self.wireless.as_ref().map_or(Condition::True, Wireless::is_data)
    }

    fn payload_type(&self, ether_type: u16) -> Lowered {
        if self.labels > 0 {
            // Behind the last label of the stack, the type is told by the packet's first bits.
            let version = match ether_type {
                IPV4 => 0x40,
                IPV6 => 0x60,
                _ => {
                    return Err(FilterError::whole("no protocol but `ip` and `ip6` behind `mpls`"));
                }
            };
            let bottom = self.masked(Width::Byte, self.network() - 2, 1, 1);
            return Ok(bottom.and(self.masked(Width::Byte, self.network(), version, 0xf0)));
        }
        if let Some(told) = &self.told {
            return Ok(Condition::equal(Rc::clone(told), number(ether_type.into())));
        }
        Ok(match self.types {
            Types::Ether => self.is(Width::Half, self.type_at, ether_type.into()),
            Types::Beside => self.is(Width::Half, PROTOCOL, ether_type.into()),
            Types::Ppp => {
                let protocol = match ether_type {
                    IPV4 => 0x21,
                    IPV6 => 0x57,
                    0x8847 => 0x281,
                    other => other,
                };
                self.is(Width::Half, self.type_at, protocol.into())
            }
            Types::Family | Types::HostFamily => {
                // Each BSD has its own number for IPv6.
                let families: &[u32] = match ether_type {
                    IPV4 => &[2],
                    IPV6 => &[30, 24, 28],
                    _ => return Ok(Condition::False),
                };
                let is_family = |&family: &u32| {
                    // The writing host uses its own byte order, assumed to be that of this host.
                    let is_hosts = self.types == Types::HostFamily;
                    let family = if is_hosts { family.to_be() } else { family };
                    self.is(Width::Word, self.type_at, family)
                };
                Condition::Any(families.iter().map(is_family).collect())
            }
            Types::Version => {
                let version = match ether_type {
                    IPV4 => 0x40,
                    IPV6 => 0x60,
                    _ => return Ok(Condition::False),
                };
                self.masked(Width::Byte, self.network(), version, 0xf0)
            }
            Types::None => {
                let link = self.link.0;
                let why = format!(
                    "no protocols on link type {link}, which is not known: only `link[…]`, `len` and the like"
                );
                return Err(FilterError::whole(why));
            }
        })
    }

    fn protocol(&self, protocol: Protocol) -> Lowered {
        let both = |number| -> Lowered { self.ip_protocol(None, number) };
        match protocol {
            Protocol::Ether | Protocol::Radio => Ok(Condition::True),
            Protocol::Ip => self.link_type(IPV4),
            Protocol::Ip6 => self.link_type(IPV6),
            Protocol::Arp => self.link_type(ARP),
            Protocol::Rarp => self.link_type(RARP),
            Protocol::Tcp => both(6),
            Protocol::Udp => both(17),
            Protocol::Sctp => both(132),
            Protocol::Pim => both(103),
            Protocol::Ah => both(51),
            Protocol::Esp => both(50),
            Protocol::Icmp => self.ip_protocol(Some(Family::V4), 1),
            Protocol::Igmp => self.ip_protocol(Some(Family::V4), 2),
            Protocol::Vrrp => self.ip_protocol(Some(Family::V4), 112),
            Protocol::Icmp6 => self.ip_protocol(Some(Family::V6), 58),
        }
    }

    fn ip_protocol(&self, family: Option<Family>, protocol: u8) -> Lowered {
        let (network, wanted) = (self.network(), u32::from(protocol));
        match family {
            None => {
                let v4 = self.ip_protocol(Some(Family::V4), protocol)?;
                Ok(v4.or(self.ip_protocol(Some(Family::V6), protocol)?))
            }
            Some(Family::V4) => {
                Ok(self.link_type(IPV4)?.and(self.is(Width::Byte, network + 9, wanted)))
            }
            Some(Family::V6) => {
                // The protocol follows the IPv6 header, or a fragment header that follows the IPv6 header.
                let is_fragment = self.is(Width::Byte, network + 6, 44);
                let behind = is_fragment.and(self.is(Width::Byte, network + IPV6_HEADER, wanted));
                let found = self.is(Width::Byte, network + 6, wanted).or(behind);
                Ok(self.link_type(IPV6)?.and(found))
            }
        }
    }
}

impl Layout {
    /// Tests a MAC address, starting with its last bytes, which differ most.
    fn mac_is(&self, at: u32, mac: [u8; 6]) -> Condition {
        let word = |from: usize| {
            u32::from_be_bytes([mac[from], mac[from + 1], mac[from + 2], mac[from + 3]])
        };
        let head = u32::from(u16::from_be_bytes([mac[0], mac[1]]));
        self.is(Width::Word, at + 2, word(2)).and(self.is(Width::Half, at, head))
    }

    /// Tests whether a packet goes to all hosts of its network.
    fn ip_broadcast(&self, mask: u32) -> Lowered {
        let (at, host) = (self.network() + 16, !mask);
        let none = self.masked(Width::Word, at, 0, host);
        Ok(self.link_type(IPV4)?.and(none.or(self.masked(Width::Word, at, host, host))))
    }
}
