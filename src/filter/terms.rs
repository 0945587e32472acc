//! What an index can know of packets, and what a filter needs of it.
//!
//! An index keeps the terms of many packets. A filter is asked once which terms a packet must have that it matches; if the
//! index has not all of them, none of its packets matches, and none needs to be looked at. The opposite does not follow: the
//! terms may be those of different packets, and most filters ask for more than terms can say.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::BpfFilter;
use crate::ast::{Expr, Network, Primitive, Protocol};
use crate::link_type::LinkType;
use crate::vlan::VlanTag;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
const FRAGMENT: u8 = 44;
/// The networks of a host that are terms: those of this many bits.
const NET4: u32 = 24;
const NET6: u32 = 64;
/// The longest range of ports that is looked for port by port.
const MOST_PORTS: u16 = 16;

/// A fact about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Term {
    /// The Ethernet type behind the last VLAN tag.
    EtherType(u16),
    /// There is a VLAN tag.
    Tagged,
    /// The id of a VLAN tag.
    Vlan(u16),
    /// An address at either end, in IP or ARP.
    Host(IpAddr),
    /// The /24 (IPv4) or /64 (IPv6) network of such an address, with zeros behind it.
    Network(IpAddr),
    /// The protocol that an IP header names, or a fragment header behind it.
    Protocol(u8),
    /// A port at either end, of TCP, UDP or SCTP.
    Port(u16),
}

impl Term {
    /// Returns a number that stands for this term in an index, the same in each version and on each machine: all bits depend
    /// on all of the term.
    pub fn key(self) -> u64 {
        let (kind, high, low): (u64, u64, u64) = match self {
            Self::EtherType(kind) => (1, 0, kind.into()),
            Self::Tagged => (2, 0, 0),
            Self::Vlan(id) => (3, 0, id.into()),
            Self::Host(IpAddr::V4(address)) => (4, 0, address.to_bits().into()),
            Self::Network(IpAddr::V4(address)) => (5, 0, address.to_bits().into()),
            Self::Protocol(number) => (6, 0, number.into()),
            Self::Port(number) => (7, 0, number.into()),
            Self::Host(IpAddr::V6(address)) => halves(8, address),
            Self::Network(IpAddr::V6(address)) => halves(9, address),
        };
        mixed(mixed(kind.wrapping_shl(56) ^ high).wrapping_add(low))
    }

    /// The term for the network of an address.
    fn network(address: IpAddr) -> Self {
        Self::Network(match address {
            IpAddr::V4(address) => {
                Ipv4Addr::from_bits(address.to_bits() & u32::MAX << (32 - NET4)).into()
            }
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & u128::MAX << (128 - NET6)).into()
            }
        })
    }
}

fn halves(kind: u64, address: Ipv6Addr) -> (u64, u64, u64) {
    let bits = address.to_bits();
    (kind, (bits >> 64) as u64, bits as u64)
}

/// The finalizer of SplitMix64: a bijection.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// Written as a filter for the term.
impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EtherType(IPV4) => write!(f, "ip"),
            Self::EtherType(IPV6) => write!(f, "ip6"),
            Self::EtherType(ARP) => write!(f, "arp"),
            Self::EtherType(RARP) => write!(f, "rarp"),
            Self::EtherType(kind) => write!(f, "ether proto {kind:#06x}"),
            Self::Tagged => write!(f, "vlan"),
            Self::Vlan(id) => write!(f, "vlan {id}"),
            Self::Host(address) => write!(f, "host {address}"),
            Self::Network(address) => {
                write!(f, "net {address}/{}", if address.is_ipv4() { NET4 } else { NET6 })
            }
            Self::Protocol(6) => write!(f, "tcp"),
            Self::Protocol(17) => write!(f, "udp"),
            Self::Protocol(132) => write!(f, "sctp"),
            Self::Protocol(number) => write!(f, "proto {number}"),
            Self::Port(number) => write!(f, "port {number}"),
        }
    }
}

/// The terms of a packet. Packets of a flow have the same, which costs less to see than to add them again.
///
/// ```
/// use ringtap_filter::{BpfFilter, Headers, LinkType};
///
/// let needs = "host 192.0.2.7 and tcp port 443".parse::<BpfFilter>()?.needs();
/// assert_eq!(needs.to_string(), "host 192.0.2.7 and tcp and port 443");
/// let packet = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 7, 192, 0, 2, 8];
/// let headers = Headers::read(LinkType::RAW, &packet).expect("a link type that is known");
/// assert!(!needs.may_match(|term| headers.terms().any(|of| of == term))); // no ports
/// # Ok::<(), ringtap_filter::FilterError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers {
    ether_type: Option<u16>,
    is_tagged: bool,
    /// Ids of VLAN tags, and their number.
    vlans: [u16; Headers::TAGS],
    tags: u8,
    /// Source and destination.
    addresses: [Option<IpAddr>; 2],
    protocols: [Option<u8>; 2],
    ports: [Option<u16>; 2],
}

impl Headers {
    /// The most VLAN tags of a packet.
    const TAGS: usize = 4;

    /// Reads the headers of a frame, as far as they are there. Returns `None` if it has terms that are not known: frames of
    /// other link types than Ethernet, raw IP and Linux cooked captures, and with more than four VLAN tags.
    #[inline]
    pub fn read(link: LinkType, frame: &[u8]) -> Option<Self> {
        let mut headers = Self::default();
        let (type_at, mut payload) = match link.compiled() {
            LinkType::ETHERNET => (12, 14),
            LinkType::LINUX_SLL => (14, 16),
            LinkType::LINUX_SLL2 => (0, 20),
            LinkType::RAW => {
                headers.ether_type = match frame.first().map(|byte| byte >> 4) {
                    Some(4) => Some(IPV4),
                    Some(6) => Some(IPV6),
                    _ => return Some(headers),
                };
                headers.read_network(frame);
                return Some(headers);
            }
            _ => return None,
        };
        let Some(mut kind) = half(frame, type_at) else { return Some(headers) };
        while is_tag(kind) {
            headers.is_tagged = true;
            let Some(tci) = half(frame, payload) else { break };
            *headers.vlans.get_mut(usize::from(headers.tags))? = tci & 0x0fff;
            headers.tags += 1;
            let Some(next) = half(frame, payload + 2) else { break };
            kind = next;
            payload += VlanTag::LEN;
        }
        headers.ether_type = Some(kind);
        if let Some(packet) = frame.get(payload..) {
            headers.read_network(packet);
        }
        Some(headers)
    }

    /// Returns the headers of the same frame behind another tag, which was beside it. Returns `None` if it has too many then.
    pub fn behind(mut self, tag: VlanTag) -> Option<Self> {
        *self.vlans.get_mut(usize::from(self.tags))? = tag.id();
        self.tags += 1;
        self.is_tagged = true;
        Some(self)
    }

    /// Returns a number that is the same for packets of the same addresses and ports, and often another one for others.
    #[inline]
    pub fn spread(&self) -> u32 {
        let address = |at: usize| match self.addresses[at] {
            Some(IpAddr::V4(address)) => address.to_bits(),
            Some(IpAddr::V6(address)) => address.to_bits() as u32,
            None => 0,
        };
        let [source, destination] = self.ports.map(|port| u32::from(port.unwrap_or(0)));
        let ports = source << 16 | destination;
        let mixed = address(0) ^ address(1).rotate_left(7) ^ ports.rotate_left(3);
        mixed.wrapping_mul(0x9e37_79b1) >> 16
    }

    /// Returns what tells apart the packets of most flows, of a frame whose headers need no look at more: untagged, IPv4 without
    /// options, with its first bytes. Frames with the same gist have the same headers.
    #[inline]
    pub fn gist(link: LinkType, frame: &[u8]) -> Option<[u64; 2]> {
        const ETHERNET: usize = 14;
        let head: &[u8; ETHERNET + 24] = frame.first_chunk()?;
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        // Type, version and lengths; fragment offset; protocol.
        let is_plain = word(12) >> 8 == 0x0008_0045 && word(20) & 0x1fff_0000 == 0;
        let addresses = u64::from(word(26)) << 32 | u64::from(word(30));
        let rest = u64::from(head[23]) << 32 | u64::from(word(34));
        (link == LinkType::ETHERNET && is_plain).then_some([addresses, rest])
    }

    fn read_network(&mut self, packet: &[u8]) {
        match self.ether_type {
            Some(IPV4) => self.read_v4(packet),
            Some(IPV6) => self.read_v6(packet),
            Some(ARP | RARP) => self.addresses = [14, 24].map(|at| v4(packet, at)),
            _ => {}
        }
    }

    /// As a filter reads it: the length of the header is believed.
    #[inline]
    fn read_v4(&mut self, packet: &[u8]) {
        self.addresses = [12, 16].map(|at| v4(packet, at));
        let Some(&protocol) = packet.get(9) else { return };
        self.protocols[0] = Some(protocol);
        let is_later = half(packet, 6).is_some_and(|fragment| fragment & 0x1fff != 0);
        if has_ports(protocol) && !is_later {
            let ports_at = 4 * usize::from(packet[0] & 0xf);
            self.ports = [0, 2].map(|at| half(packet, ports_at + at));
        }
    }

    fn read_v6(&mut self, packet: &[u8]) {
        self.addresses = [8, 24].map(|at| v6(packet, at));
        let Some(&protocol) = packet.get(6) else { return };
        self.protocols[0] = Some(protocol);
        if protocol == FRAGMENT {
            self.protocols[1] = packet.get(40).copied();
        }
        if has_ports(protocol) {
            self.ports = [40, 42].map(|at| half(packet, at));
        }
    }

    /// Returns the terms, some perhaps more than once.
    pub fn terms(&self) -> impl Iterator<Item = Term> {
        let vlans = self.vlans.into_iter().take(self.tags.into());
        let hosts = self.addresses.into_iter().flatten();
        let tagged = self.is_tagged.then_some(Term::Tagged);
        self.ether_type
            .map(Term::EtherType)
            .into_iter()
            .chain(tagged)
            .chain(vlans.map(Term::Vlan))
            .chain(hosts.clone().map(Term::Host))
            .chain(hosts.map(Term::network))
            .chain(self.protocols.into_iter().flatten().map(Term::Protocol))
            .chain(self.ports.into_iter().flatten().map(Term::Port))
    }
}

fn is_tag(kind: u16) -> bool {
    matches!(kind, 0x8100 | 0x88a8 | 0x9100)
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132)
}

#[inline]
fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|half| u16::from_be_bytes(*half))
}

#[inline]
fn v4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    bytes.get(at..)?.first_chunk::<4>().map(|address| IpAddr::from(*address))
}

#[inline]
fn v6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    bytes.get(at..)?.first_chunk::<16>().map(|address| IpAddr::from(*address))
}

/// What a packet must have that a filter matches; from [`BpfFilter::needs`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Needs {
    /// Nothing that terms can say.
    Nothing,
    /// This term.
    Term(Term),
    /// All of these.
    All(Vec<Needs>),
    /// One of these.
    Any(Vec<Needs>),
}

impl Needs {
    /// Returns whether a packet may match, given which terms there are. If this is false, none does.
    pub fn may_match(&self, mut has: impl FnMut(Term) -> bool) -> bool {
        self.holds(&mut has)
    }

    fn holds(&self, has: &mut impl FnMut(Term) -> bool) -> bool {
        match self {
            Self::Nothing => true,
            Self::Term(term) => has(*term),
            Self::All(all) => all.iter().all(|needs| needs.holds(has)),
            Self::Any(any) => any.iter().any(|needs| needs.holds(has)),
        }
    }

    /// All of these; simplified.
    fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Vec::new();
        for part in parts {
            match part {
                Self::Nothing => {}
                Self::All(more) => all.extend(more),
                one if all.contains(&one) => {}
                one => all.push(one),
            }
        }
        match all.len() {
            0 => Self::Nothing,
            1 => all.remove(0),
            _ => Self::All(all),
        }
    }

    /// One of these; simplified.
    fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut any = Vec::new();
        for part in parts {
            match part {
                Self::Nothing => return Self::Nothing,
                Self::Any(more) => any.extend(more),
                one if any.contains(&one) => {}
                one => any.push(one),
            }
        }
        match any.len() {
            1 => any.remove(0),
            _ => Self::Any(any),
        }
    }

    /// What the parts of a conjunction need, in their order. Returns false behind a condition that moves all that follow to
    /// other headers: these are not asked for.
    fn of_spine(expr: &Expr, needs: &mut Vec<Self>) -> bool {
        match expr {
            Expr::All(parts) => parts.iter().all(|part| Self::of_spine(part, needs)),
            // The headers behind a tag are those that terms are about, however many tags there are.
            Expr::Is(Primitive::Vlan(id)) => {
                needs.push(Self::Term(id.map_or(Term::Tagged, Term::Vlan)));
                true
            }
            other if other.moves_what_follows() => false,
            other => {
                needs.push(Self::of(other));
                true
            }
        }
    }

    /// What an expression needs that is about the packet's first network header.
    fn of(expr: &Expr) -> Self {
        match expr {
            Expr::All(parts) => Self::all(parts.iter().map(Self::of)),
            Expr::Any(parts) | Expr::Apart(parts) => Self::any(parts.iter().map(Self::of)),
            Expr::Is(primitive) => Self::of_primitive(primitive),
            Expr::Not(_) | Expr::Compare(..) => Self::Nothing,
        }
    }

    fn of_primitive(primitive: &Primitive) -> Self {
        Self::Term(match *primitive {
            Primitive::LinkType(kind @ (IPV4 | IPV6 | ARP | RARP)) => Term::EtherType(kind),
            Primitive::IpProtocol(_, number) => Term::Protocol(number),
            Primitive::Protocol(protocol) => match of_protocol(protocol) {
                Some(term) => term,
                None => return Self::Nothing,
            },
            Primitive::Host(_, _, network) => match of_network(network) {
                Some(term) => term,
                None => return Self::Nothing,
            },
            Primitive::Ports(transport, _, low, high) => {
                let transport = transport.map(|of| Self::Term(Term::Protocol(of.number())));
                let ports = match high.checked_sub(low) {
                    Some(0..MOST_PORTS) => {
                        Self::any((low..=high).map(|port| Self::Term(Term::Port(port))))
                    }
                    _ => Self::Nothing,
                };
                return Self::all(transport.into_iter().chain([ports]));
            }
            _ => return Self::Nothing,
        })
    }
}

fn of_protocol(protocol: Protocol) -> Option<Term> {
    Some(match protocol {
        Protocol::Ether | Protocol::Radio => return None,
        Protocol::Ip => Term::EtherType(IPV4),
        Protocol::Ip6 => Term::EtherType(IPV6),
        Protocol::Arp => Term::EtherType(ARP),
        Protocol::Rarp => Term::EtherType(RARP),
        Protocol::Tcp => Term::Protocol(6),
        Protocol::Udp => Term::Protocol(17),
        Protocol::Sctp => Term::Protocol(132),
        Protocol::Icmp => Term::Protocol(1),
        Protocol::Icmp6 => Term::Protocol(58),
        Protocol::Igmp => Term::Protocol(2),
        Protocol::Pim => Term::Protocol(103),
        Protocol::Vrrp => Term::Protocol(112),
        Protocol::Ah => Term::Protocol(51),
        Protocol::Esp => Term::Protocol(50),
    })
}

/// The term for a network, or for a larger one that it is part of.
fn of_network(network: Network) -> Option<Term> {
    match network {
        Network::V4(address, u32::MAX) => Some(Term::Host(address.into())),
        Network::V4(address, mask) if mask.leading_ones() >= NET4 => {
            Some(Term::network(address.into()))
        }
        Network::V6(address, u128::MAX) => Some(Term::Host(address.into())),
        Network::V6(address, mask) if mask.leading_ones() >= NET6 => {
            Some(Term::network(address.into()))
        }
        _ => None,
    }
}

/// Written as a filter.
impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Self], word: &str| {
            for (at, part) in parts.iter().enumerate() {
                if at > 0 {
                    write!(f, " {word} ")?;
                }
                match part {
                    Self::All(_) | Self::Any(_) => write!(f, "({part})")?,
                    one => write!(f, "{one}")?,
                }
            }
            Ok(())
        };
        match self {
            Self::Nothing => write!(f, "nothing"),
            Self::Term(term) => write!(f, "{term}"),
            Self::All(parts) => joined(f, parts, "and"),
            Self::Any(parts) => joined(f, parts, "or"),
        }
    }
}

impl BpfFilter {
    /// Returns which terms a packet has at least that this filter matches. A filter made from a ready program needs nothing,
    /// and neither does what is negated, or about lengths, bytes, or headers within tunnels.
    ///
    /// For packets whose VLAN tags are in their bytes, as in files.
    pub fn needs(&self) -> Needs {
        let mut needs = Vec::new();
        if let Some(expr) = &self.expr {
            Needs::of_spine(expr, &mut needs);
        }
        Needs::all(needs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(text: &str) -> String {
        BpfFilter::parse(text).unwrap().needs().to_string()
    }

    #[test]
    fn a_filter_needs_the_terms_that_each_of_its_matches_has() {
        for (text, expected) in [
            ("", "nothing"),
            ("host 192.0.2.7", "host 192.0.2.7"),
            ("src 2001:db8::1", "host 2001:db8::1"),
            ("net 192.0.2.0/24", "net 192.0.2.0/24"),
            ("net 192.0.2.128/25", "net 192.0.2.0/24"),
            ("net 192.0.0.0/16", "nothing"),
            ("net 2001:db8::/64", "net 2001:db8::/64"),
            ("net 2001:db8::/48", "nothing"),
            ("tcp port 80", "tcp and port 80"),
            ("port 80 or 443", "port 80 or port 443"),
            ("portrange 80-82", "port 80 or port 81 or port 82"),
            ("portrange 80-8000", "nothing"),
            ("tcp portrange 80-8000", "tcp"),
            ("arp or icmp", "arp or proto 1"),
            ("ether proto 0x0806", "arp"),
            ("ether proto 0x88cc", "nothing"),
            ("not host 192.0.2.7", "nothing"),
            ("tcp and not port 22", "tcp"),
            ("host 192.0.2.7 or len > 100", "nothing"),
            ("(udp or tcp) and host 192.0.2.7", "(udp or tcp) and host 192.0.2.7"),
            ("vlan 5 and host 192.0.2.7", "vlan 5 and host 192.0.2.7"),
            ("vlan and vlan 7 and tcp", "vlan and vlan 7 and tcp"),
            // Where a tag moves what follows for packets that have none, terms say nothing.
            ("(vlan 5 or udp) and host 192.0.2.7", "nothing"),
            ("udp and not vlan and host 192.0.2.7", "udp"),
            ("host 192.0.2.7 and mpls and host 192.0.2.8", "host 192.0.2.7"),
            ("udp and vxlan and host 192.0.2.8", "udp"),
            ("pppoes and host 192.0.2.8", "nothing"),
        ] {
            assert_eq!(needs(text), expected, "{text}");
        }
        let program = BpfFilter::new([crate::BpfInsn::ret(1)]).unwrap();
        assert_eq!(program.needs(), Needs::Nothing);
    }

    #[test]
    fn keys_are_those_of_the_files_that_exist() {
        let host = |text: &str| Term::Host(text.parse().unwrap()).key();
        assert_eq!(host("192.0.2.7"), 0x4a5f_eb5e_7a72_26d2);
        assert_eq!(host("2001:db8::1"), 0x8730_13ea_8968_451c);
        assert_eq!(Term::Port(443).key(), 0xefd5_078f_8804_37e6);
    }

    #[test]
    fn headers_that_are_cut_have_the_terms_that_are_there() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0, 0, 5, 0x88, 0xa8, 0, 6, 8, 0]);
        frame.extend([0x46, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 7, 192, 0, 2, 8]);
        frame.extend([1, 1, 1, 1, 0, 80, 1, 187]);
        let mut before = 0;
        for len in 0..=frame.len() {
            let terms: Vec<Term> =
                Headers::read(LinkType::ETHERNET, &frame[..len]).unwrap().terms().collect();
            assert!(terms.len() >= before, "{len}: {terms:?}");
            before = terms.len();
        }
        assert_eq!(before, 11);
        let five: Vec<u8> = [vec![0; 12], [0x81, 0, 0, 5].repeat(5)].concat();
        assert_eq!(Headers::read(LinkType::ETHERNET, &five), None);
        assert_eq!(Headers::read(LinkType::PPP, &frame), None);
    }
}
