//! From what a filter says to what is loaded and compared, for a certain kind of link.
//!
//! In the order in which libpcap does it, since a load beyond the packet's end rejects the packet: which loads
//! come before which decides of short packets. `vlan`, `mpls` and `pppoes` move all offsets of what stands
//! behind them in the text.

use std::rc::Rc;

use super::syntax::{
    Arith, ArithOp, Expr, Family, HostScope, Network, Primitive, Protocol, Relation, Side,
    Transport, Width,
};
use super::tree::{Compare, Condition, Value};
use super::{FilterError, LinkType, Target};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
/// The header of an IPv6 packet.
const IPV6_HEADER: u32 = 40;
/// The first offset that stands for what the kernel knows of a packet (`SKF_AD_OFF`).
const ANCILLARY: u32 = 0xffff_f000;
const PACKET_TYPE: u32 = ANCILLARY + 4;
const VLAN_TAG: u32 = ANCILLARY + 44;
const VLAN_PRESENT: u32 = ANCILLARY + 48;

type Lowered = Result<Condition, FilterError>;

/// Where things are in a packet, as far as the text has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    target: Target,
    link: LinkType,
    /// How the type of what follows is told.
    types: Types,
    /// Where that stands.
    type_at: u32,
    /// Where the network layer begins, labels not counted.
    payload: u32,
    /// Bytes of labels before the network layer.
    labels: u32,
    /// Tags seen so far.
    tags: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Types {
    /// By an Ethernet type.
    Ether,
    /// By a PPP protocol.
    Ppp,
    /// By an address family in the host's byte order.
    Family,
    /// By the first bits of the packet.
    Version,
    /// Not at all.
    None,
}

pub(super) fn lower(expr: &Expr, link: LinkType, target: Target) -> Lowered {
    Layout::of(link, target).expr(expr)
}

fn number(number: u32) -> Rc<Value> {
    Rc::new(Value::Number(number))
}

fn at(width: Width, offset: u32) -> Rc<Value> {
    Rc::new(Value::At(width, offset))
}

fn is(width: Width, offset: u32, value: u32) -> Condition {
    Condition::equal(at(width, offset), number(value))
}

fn masked(width: Width, offset: u32, value: u32, mask: u32) -> Condition {
    let left = Value::op(ArithOp::And, at(width, offset), number(mask));
    Condition::equal(left, number(value & mask))
}

/// One of two ends, both, or either, as a side says; the source first.
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
    fn of(link: LinkType, target: Target) -> Self {
        let (types, type_at, payload) = match link {
            LinkType::ETHERNET => (Types::Ether, 12, 14),
            LinkType::LINUX_SLL => (Types::Ether, 14, 16),
            LinkType::LINUX_SLL2 => (Types::Ether, 0, 20),
            LinkType::NULL => (Types::Family, 0, 4),
            LinkType::RAW | LinkType::RAW_BSD => (Types::Version, 0, 0),
            _ => (Types::None, 0, 0),
        };
        Self { target, link, types, type_at, payload, labels: 0, tags: 0 }
    }

    /// Where the network layer begins.
    fn network(&self) -> u32 {
        self.payload + self.labels
    }

    fn expr(&mut self, expr: &Expr) -> Lowered {
        Ok(match expr {
            Expr::All(all) => {
                Condition::All(all.iter().map(|one| self.expr(one)).collect::<Result<_, _>>()?)
            }
            Expr::Any(any) => {
                Condition::Any(any.iter().map(|one| self.expr(one)).collect::<Result<_, _>>()?)
            }
            Expr::Not(inner) => self.expr(inner)?.negated(),
            Expr::Is(primitive) => self.primitive(primitive)?,
            Expr::Compare(relation, left, right) => self.compare(*relation, left, right)?,
        })
    }

    fn primitive(&mut self, primitive: &Primitive) -> Lowered {
        Ok(match *primitive {
            Primitive::True => Condition::True,
            Primitive::Protocol(protocol) => self.protocol(protocol)?,
            Primitive::LinkType(number) => self.link_type(number)?,
            Primitive::IpProtocol(family, number) => self.ip_protocol(family, number)?,
            Primitive::Host(scope, side, network) => self.host(scope, side, network)?,
            Primitive::Ether(side, mac) => {
                self.ethernet("ether host")?;
                sides(side, || mac_is(6, mac), || mac_is(0, mac))
            }
            Primitive::EtherBroadcast => {
                self.ethernet("broadcast")?;
                mac_is(0, [0xff; 6])
            }
            Primitive::EtherMulticast => {
                self.ethernet("multicast")?;
                Condition::test(at(Width::Byte, 0), Compare::Set, number(1))
            }
            Primitive::IpMulticast(Family::V4) => {
                let last = at(Width::Byte, self.network() + 16);
                let is_multicast = Condition::test(last, Compare::AtLeast, number(224));
                self.link_type(IPV4)?.and(is_multicast)
            }
            Primitive::IpMulticast(Family::V6) => {
                self.link_type(IPV6)?.and(is(Width::Byte, self.network() + 24, 255))
            }
            Primitive::Ports(transport, side, low, high) => {
                // IPv6 first: as libpcap has it.
                let v6 = self.ports(Family::V6, transport, side, low, high)?;
                v6.or(self.ports(Family::V4, transport, side, low, high)?)
            }
            Primitive::Vlan(id) => self.vlan(id)?,
            Primitive::Mpls(label) => self.mpls(label)?,
            Primitive::PppoeSession(session) => self.pppoe(session)?,
            Primitive::LenAtLeast(len) => {
                Condition::test(Rc::new(Value::Len), Compare::AtLeast, number(len))
            }
            Primitive::LenAtMost(len) => {
                Condition::test(Rc::new(Value::Len), Compare::Greater, number(len)).negated()
            }
            Primitive::Outbound => self.outbound()?,
            Primitive::Inbound => self.outbound()?.negated(),
        })
    }

    fn ethernet(&self, what: &str) -> Result<(), FilterError> {
        match self.link {
            LinkType::ETHERNET => Ok(()),
            link => Err(FilterError::whole(format!("no `{what}` for link type {}", link.0))),
        }
    }

    /// Whether what follows the link layer is of this Ethernet type.
    fn link_type(&self, ether_type: u16) -> Lowered {
        if self.labels > 0 {
            // What is behind a label is told by its first bits, at the bottom of the stack.
            let version = match ether_type {
                IPV4 => 0x40,
                IPV6 => 0x60,
                _ => return Err(FilterError::whole("nothing but `ip` and `ip6` behind `mpls`")),
            };
            let bottom = masked(Width::Byte, self.network() - 2, 1, 1);
            return Ok(bottom.and(masked(Width::Byte, self.network(), version, 0xf0)));
        }
        Ok(match self.types {
            Types::Ether => is(Width::Half, self.type_at, ether_type.into()),
            Types::Ppp => {
                let protocol = match ether_type {
                    IPV4 => 0x21,
                    IPV6 => 0x57,
                    0x8847 => 0x281,
                    other => other,
                };
                is(Width::Half, self.type_at, protocol.into())
            }
            Types::Family => {
                // By a host in its own byte order, taken for ours; every BSD has its own number for IPv6.
                let families: &[u32] = match ether_type {
                    IPV4 => &[2],
                    IPV6 => &[30, 24, 28],
                    _ => return Ok(Condition::False),
                };
                let is_family = |family: &u32| is(Width::Word, self.type_at, family.to_be());
                Condition::Any(families.iter().map(is_family).collect())
            }
            Types::Version => {
                let version = match ether_type {
                    IPV4 => 0x40,
                    IPV6 => 0x60,
                    _ => return Ok(Condition::False),
                };
                masked(Width::Byte, self.network(), version, 0xf0)
            }
            Types::None => {
                let link = self.link.0;
                let why =
                    format!("link type {link} is not known: only `link[…]`, `len` and the like");
                return Err(FilterError::whole(why));
            }
        })
    }

    fn protocol(&self, protocol: Protocol) -> Lowered {
        let both = |number| -> Lowered { self.ip_protocol(None, number) };
        match protocol {
            Protocol::Ether => Ok(Condition::True),
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
            Some(Family::V4) => Ok(self.link_type(IPV4)?.and(is(Width::Byte, network + 9, wanted))),
            Some(Family::V6) => {
                // Behind the header, or behind a fragment's header that is behind the header.
                let is_fragment = is(Width::Byte, network + 6, 44);
                let behind = is_fragment.and(is(Width::Byte, network + IPV6_HEADER, wanted));
                let found = is(Width::Byte, network + 6, wanted).or(behind);
                Ok(self.link_type(IPV6)?.and(found))
            }
        }
    }

    fn host(&self, scope: HostScope, side: Side, sought: Network) -> Lowered {
        let (address, mask) = match sought {
            Network::V6(address, mask) => return self.host6(side, address.to_bits(), mask),
            Network::V4(address, mask) => (address.to_bits(), mask),
        };
        let network = self.network();
        let within = |ether_type, source: u32, destination: u32| -> Lowered {
            let link = self.link_type(ether_type)?;
            let one = |offset: u32| {
                link.clone().and(masked(Width::Word, network + offset, address, mask))
            };
            Ok(sides(side, || one(source), || one(destination)))
        };
        let ip = || within(IPV4, 12, 16);
        match scope {
            HostScope::Ip => ip(),
            HostScope::Arp => within(ARP, 14, 24),
            HostScope::Rarp => within(RARP, 14, 24),
            HostScope::Any if self.labels > 0 => ip(),
            HostScope::Any => {
                Ok(Condition::Any(vec![ip()?, within(ARP, 14, 24)?, within(RARP, 14, 24)?]))
            }
        }
    }

    fn host6(&self, side: Side, address: u128, mask: u128) -> Lowered {
        let link = self.link_type(IPV6)?;
        let network = self.network();
        let one = |offset: u32| {
            let word = |at: u32| {
                let shift = 96 - 8 * at;
                let (value, mask) = ((address >> shift) as u32, (mask >> shift) as u32);
                masked(Width::Word, network + offset + at, value, mask)
            };
            Condition::All(vec![link.clone(), word(0), word(4), word(8), word(12)])
        };
        Ok(sides(side, || one(8), || one(24)))
    }

    fn ports(
        &self,
        family: Family,
        transport: Option<Transport>,
        side: Side,
        low: u16,
        high: u16,
    ) -> Lowered {
        let network = self.network();
        let port = |offset: u32| {
            let value = match family {
                // Behind a header of any length.
                Family::V4 => {
                    Value::Beyond(Width::Half, Rc::new(Value::HeaderLen(network)), network + offset)
                }
                Family::V6 => Value::At(Width::Half, network + IPV6_HEADER + offset),
            };
            let value = Rc::new(value);
            if low == high {
                return Condition::equal(value, number(low.into()));
            }
            let above = Condition::test(Rc::clone(&value), Compare::AtLeast, number(low.into()));
            let beyond = Condition::test(value, Compare::Greater, number(high.into()));
            above.and(beyond.negated())
        };
        let ports = || sides(side, || port(0), || port(2));
        let of = |transport: Transport| {
            let protocol_at = network + if family == Family::V4 { 9 } else { 6 };
            let is_protocol = is(Width::Byte, protocol_at, transport.number().into());
            match family {
                Family::V4 => {
                    Condition::All(vec![is_protocol, self.is_no_later_fragment(), ports()])
                }
                Family::V6 => is_protocol.and(ports()),
            }
        };
        let found = match transport {
            Some(transport) => of(transport),
            None => Condition::Any(
                [Transport::Sctp, Transport::Tcp, Transport::Udp].map(of).into_iter().collect(),
            ),
        };
        let link = if family == Family::V4 { IPV4 } else { IPV6 };
        Ok(self.link_type(link)?.and(found))
    }

    /// The first fragment of an IPv4 packet, or all of it: only that has the transport's header.
    fn is_no_later_fragment(&self) -> Condition {
        let fragment = at(Width::Half, self.network() + 6);
        Condition::test(fragment, Compare::Set, number(0x1fff)).negated()
    }

    fn vlan(&mut self, id: Option<u16>) -> Lowered {
        self.ethernet("vlan")?;
        if self.labels > 0 || self.types != Types::Ether {
            return Err(FilterError::whole("no `vlan` behind `mpls` or `pppoes`"));
        }
        self.tags += 1;
        if self.target == Target::Socket && self.tags == 1 {
            // The kernel has taken the tag out of the frame, and nothing has moved.
            let is_tagged = is(Width::Byte, VLAN_PRESENT, 0).negated();
            return Ok(match id {
                Some(id) => is_tagged.and(masked(Width::Half, VLAN_TAG, id.into(), 0x0fff)),
                None => is_tagged,
            });
        }
        let kinds = [0x8100, 0x88a8, 0x9100].map(|kind| is(Width::Half, self.type_at, kind));
        let is_tagged = Condition::Any(kinds.into_iter().collect());
        let found = match id {
            Some(id) => is_tagged.and(masked(Width::Half, self.payload, id.into(), 0x0fff)),
            None => is_tagged,
        };
        self.type_at += 4;
        self.payload += 4;
        Ok(found)
    }

    fn mpls(&mut self, label: Option<u32>) -> Lowered {
        let is_label = match self.labels {
            0 => self.link_type(0x8847)?,
            // Another label follows where this one is not the last.
            _ => masked(Width::Byte, self.network() - 2, 0, 1),
        };
        let found = match label {
            Some(label) => {
                is_label.and(masked(Width::Word, self.network(), label << 12, 0xffff_f000))
            }
            None => is_label,
        };
        self.labels += 4;
        Ok(found)
    }

    fn pppoe(&mut self, session: Option<u16>) -> Lowered {
        let is_session = self.link_type(0x8864)?;
        let found = match session {
            Some(session) => {
                is_session.and(masked(Width::Word, self.network(), session.into(), 0xffff))
            }
            None => is_session,
        };
        self.type_at = self.network() + 6;
        self.payload = self.type_at + 2;
        self.labels = 0;
        self.types = Types::Ppp;
        Ok(found)
    }

    fn outbound(&self) -> Lowered {
        const OUTGOING: u32 = 4;
        match (self.target, self.link) {
            (Target::Socket, _) => Ok(is(Width::Byte, PACKET_TYPE, OUTGOING)),
            (_, LinkType::LINUX_SLL) => Ok(is(Width::Half, 0, OUTGOING)),
            (_, LinkType::LINUX_SLL2) => Ok(is(Width::Byte, 10, OUTGOING)),
            (_, link) => {
                let why =
                    format!("a packet of link type {} does not say which way it went", link.0);
                Err(FilterError::whole(why))
            }
        }
    }

    /// A comparison, behind the conditions under which its values are what they say.
    fn compare(&mut self, relation: Relation, left: &Arith, right: &Arith) -> Lowered {
        let mut guards = Vec::new();
        let (left, right) = (self.arith(left, &mut guards)?, self.arith(right, &mut guards)?);
        let compared = match relation {
            Relation::Equal => equal(left, right),
            Relation::NotEqual => equal(left, right).negated(),
            Relation::Greater => Condition::test(left, Compare::Greater, right),
            Relation::GreaterOrEqual => Condition::test(left, Compare::AtLeast, right),
            Relation::Less => Condition::test(left, Compare::AtLeast, right).negated(),
            Relation::LessOrEqual => Condition::test(left, Compare::Greater, right).negated(),
        };
        guards.push(compared);
        Ok(Condition::All(guards))
    }

    fn arith(
        &mut self,
        arith: &Arith,
        guards: &mut Vec<Condition>,
    ) -> Result<Rc<Value>, FilterError> {
        Ok(match arith {
            Arith::Number(value) => number(*value),
            Arith::Len => Rc::new(Value::Len),
            Arith::Negated(inner) => {
                let inner = self.arith(inner, guards)?;
                match inner.number() {
                    Some(value) => number(value.wrapping_neg()),
                    None => Rc::new(Value::Negated(inner)),
                }
            }
            Arith::Op(op, left, right) => {
                let left = self.arith(left, guards)?;
                Value::op(*op, left, self.arith(right, guards)?)
            }
            Arith::Load(protocol, offset, width) => {
                let offset = self.arith(offset, guards)?;
                self.load(*protocol, offset, *width, guards)?
            }
        })
    }

    fn load(
        &self,
        protocol: Protocol,
        offset: Rc<Value>,
        width: Width,
        guards: &mut Vec<Condition>,
    ) -> Result<Rc<Value>, FilterError> {
        let network = self.network();
        let fixed = |base: u32| {
            Rc::new(match offset.number() {
                Some(offset) => Value::At(width, base.wrapping_add(offset)),
                None => Value::Beyond(width, Rc::clone(&offset), base),
            })
        };
        Ok(match protocol {
            Protocol::Ether => fixed(0),
            Protocol::Ip | Protocol::Ip6 | Protocol::Arp | Protocol::Rarp => {
                guards.push(self.protocol(protocol)?);
                fixed(network)
            }
            Protocol::Icmp6 => {
                guards.push(self.link_type(IPV6)?);
                guards.push(is(Width::Byte, network + 6, 58));
                fixed(network + IPV6_HEADER)
            }
            _ => {
                guards.push(self.link_type(IPV4)?);
                guards.push(self.protocol(protocol)?);
                guards.push(self.is_no_later_fragment());
                let header = Rc::new(Value::HeaderLen(network));
                Rc::new(match offset.number() {
                    Some(offset) => Value::Beyond(width, header, network.wrapping_add(offset)),
                    None => {
                        let base = Value::op(ArithOp::Add, offset, header);
                        Value::Beyond(width, base, network)
                    }
                })
            }
        })
    }
}

/// `left == right`, with numbers brought to the right.
fn equal(left: Rc<Value>, right: Rc<Value>) -> Condition {
    match (left.number(), right.number()) {
        (Some(_), None) => Condition::equal(right, left),
        _ => Condition::equal(left, right),
    }
}

/// A MAC address, its end first, which differs most.
fn mac_is(at: u32, mac: [u8; 6]) -> Condition {
    let word =
        |from: usize| u32::from_be_bytes([mac[from], mac[from + 1], mac[from + 2], mac[from + 3]]);
    let head = u32::from(u16::from_be_bytes([mac[0], mac[1]]));
    is(Width::Word, at + 2, word(2)).and(is(Width::Half, at, head))
}
