//! Builds a filter from terms. The method names are those of netring.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::BpfFilter;
use super::ast::{Expr, Family, HostScope, Network, Primitive, Protocol, Side, Transport};
use super::parse::{MAX_HEIGHT, MAX_PRIMITIVES};
use crate::error::FilterError;
use crate::link_type::LinkType;

/// A builder for a filter of terms, all of which must hold; returned by [`BpfFilter::builder`].
///
/// ```
/// use ringtap_filter::BpfFilter;
///
/// let filter = BpfFilter::builder().tcp().dst_port(443).or(|b| b.udp().dst_port(53)).build()?;
/// # Ok::<(), ringtap_filter::FilterError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct BpfFilterBuilder {
    terms: Vec<Expr>,
    /// Complete alternative conditions, added by `or`.
    others: Vec<Expr>,
    is_negated: bool,
    /// The first fault found.
    fault: Option<String>,
    /// Number of conditions and their depth of nesting, both bounded: the later passes recurse into them.
    count: usize,
    height: usize,
}

impl BpfFilterBuilder {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn with(mut self, primitive: Primitive) -> Self {
        if self.has_room(1) {
            self.terms.push(Expr::Is(primitive));
        }
        self
    }

    fn has_room(&mut self, conditions: usize) -> bool {
        self.count += conditions;
        if self.count > MAX_PRIMITIVES || self.height > MAX_HEIGHT {
            let bounds =
                format!("at most {MAX_PRIMITIVES} conditions, {MAX_HEIGHT} of them one in another");
            self.fault.get_or_insert(bounds);
            return false;
        }
        true
    }

    /// Matches packets of this Ethernet type, 1501 to 65535. A smaller number in that field is a length.
    pub fn eth_type(mut self, ether_type: u16) -> Self {
        if ether_type <= 1500 {
            self.fault.get_or_insert(format!("an Ethernet type, 1501 to 65535, not {ether_type}"));
        }
        self.with(Primitive::LinkType(ether_type))
    }

    /// Matches IPv4 packets.
    pub fn ipv4(self) -> Self {
        self.with(Primitive::Protocol(Protocol::Ip))
    }

    /// Matches IPv6 packets.
    pub fn ipv6(self) -> Self {
        self.with(Primitive::Protocol(Protocol::Ip6))
    }

    /// Matches ARP packets.
    pub fn arp(self) -> Self {
        self.with(Primitive::Protocol(Protocol::Arp))
    }

    /// Matches packets with a VLAN tag, stripped or not. Terms about later headers look for them behind the
    /// tag.
    pub fn vlan(self) -> Self {
        self.with(Primitive::Vlan(None))
    }

    /// Matches packets with a tag of this VLAN.
    pub fn vlan_id(mut self, id: u16) -> Self {
        if id > 0xfff {
            self.fault.get_or_insert(format!("a VLAN id, 0 to 4095, not {id}"));
        }
        self.with(Primitive::Vlan(Some(id & 0xfff)))
    }

    /// Matches packets of this IP protocol, in IPv4 or IPv6.
    pub fn ip_proto(self, protocol: u8) -> Self {
        self.with(Primitive::IpProtocol(None, protocol))
    }

    /// Matches TCP packets.
    pub fn tcp(self) -> Self {
        self.with(Primitive::Protocol(Protocol::Tcp))
    }

    /// Matches UDP packets.
    pub fn udp(self) -> Self {
        self.with(Primitive::Protocol(Protocol::Udp))
    }

    /// Matches ICMP packets of IPv4.
    pub fn icmp(self) -> Self {
        self.with(Primitive::IpProtocol(Some(Family::V4), 1))
    }

    fn address(self, side: Side, address: IpAddr, prefix: Option<u8>) -> Self {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(most);
        let mut this = self;
        if prefix > most {
            this.fault.get_or_insert(format!("a prefix of at most {most} bits, not {prefix}"));
            return this;
        }
        let off = u32::from(most - prefix);
        let network = match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(off).unwrap_or(0);
                Network::V4(Ipv4Addr::from_bits(address.to_bits() & mask), mask)
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(off).unwrap_or(0);
                Network::V6((address.to_bits() & mask).into(), mask)
            }
        };
        this.with(Primitive::Host(HostScope::Ip, side, network))
    }

    /// Matches packets from this address.
    pub fn src_host(self, address: impl Into<IpAddr>) -> Self {
        self.address(Side::Source, address.into(), None)
    }

    /// Matches packets to this address.
    pub fn dst_host(self, address: impl Into<IpAddr>) -> Self {
        self.address(Side::Destination, address.into(), None)
    }

    /// Matches packets from or to this address.
    pub fn host(self, address: impl Into<IpAddr>) -> Self {
        self.address(Side::Either, address.into(), None)
    }

    /// Matches packets from this network. Address bits beyond the prefix are ignored.
    pub fn src_net(self, address: impl Into<IpAddr>, prefix: u8) -> Self {
        self.address(Side::Source, address.into(), Some(prefix))
    }

    /// Matches packets to this network.
    pub fn dst_net(self, address: impl Into<IpAddr>, prefix: u8) -> Self {
        self.address(Side::Destination, address.into(), Some(prefix))
    }

    /// Matches packets from or to this network.
    pub fn net(self, address: impl Into<IpAddr>, prefix: u8) -> Self {
        self.address(Side::Either, address.into(), Some(prefix))
    }

    /// The transport named by the latest term that names one; ports are looked for in it.
    fn transport(&self) -> Option<Transport> {
        self.terms.iter().rev().find_map(|term| match term {
            Expr::Is(Primitive::Protocol(Protocol::Tcp)) => Some(Transport::Tcp),
            Expr::Is(Primitive::Protocol(Protocol::Udp)) => Some(Transport::Udp),
            _ => None,
        })
    }

    fn range(self, side: Side, low: u16, high: u16) -> Self {
        let transport = self.transport();
        self.with(Primitive::Ports(transport, side, low.min(high), low.max(high)))
    }

    /// Matches packets from this port of TCP, UDP or SCTP.
    pub fn src_port(self, port: u16) -> Self {
        self.range(Side::Source, port, port)
    }

    /// Matches packets to this port.
    pub fn dst_port(self, port: u16) -> Self {
        self.range(Side::Destination, port, port)
    }

    /// Matches packets from or to this port.
    pub fn port(self, port: u16) -> Self {
        self.range(Side::Either, port, port)
    }

    /// Matches packets from or to any of these ports.
    pub fn ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        let transport = self.transport();
        let any: Vec<Expr> = ports
            .into_iter()
            .take(MAX_PRIMITIVES + 1)
            .map(|port| Expr::Is(Primitive::Ports(transport, Side::Either, port, port)))
            .collect();
        if any.is_empty() {
            self.fault.get_or_insert("at least one port".to_owned());
        }
        if self.has_room(any.len()) {
            self.terms.push(Expr::Any(any));
        }
        self
    }

    /// Negates the whole builder, including terms that are added later.
    pub fn negate(mut self) -> Self {
        self.is_negated = !self.is_negated;
        self
    }

    /// Adds an alternative: a packet also matches if it meets all terms of `other`, whatever this builder's own
    /// terms are. A tag or label that one alternative asks for does not affect the offsets in the other.
    pub fn or(mut self, other: impl FnOnce(Self) -> Self) -> Self {
        let other = other(Self::new());
        if let Some(fault) = &other.fault {
            self.fault.get_or_insert(fault.clone());
        }
        if other.terms.is_empty() && other.others.is_empty() {
            self.fault.get_or_insert("at least one term in `or`".to_owned());
        }
        self.height = self.height.max(other.height + 1);
        if self.has_room(other.count) {
            self.others.push(other.expr());
        }
        self
    }

    fn expr(self) -> Expr {
        // Without own terms, only the alternatives count.
        let is_empty = self.terms.is_empty() && !self.others.is_empty();
        let own = (!is_empty).then_some(Expr::All(self.terms));
        let expr = Expr::Apart(own.into_iter().chain(self.others).collect());
        if self.is_negated { Expr::Not(Box::new(expr)) } else { expr }
    }

    /// Compiles the filter; without terms it matches all packets.
    ///
    /// # Errors
    /// An error for a number out of range, an `or` or `negate` without terms,
    /// more terms than the limit, or terms that no packet can match.
    pub fn build(self) -> Result<BpfFilter, FilterError> {
        if let Some(fault) = self.fault {
            return Err(FilterError::whole(fault));
        }
        let is_empty = self.terms.is_empty() && self.others.is_empty();
        if self.is_negated && is_empty {
            return Err(FilterError::whole("at least one term with `negate`"));
        }
        let filter = BpfFilter::of(Arc::new(self.expr()), LinkType::ETHERNET, false)?;
        let is_never = |program: &[crate::BpfInsn]| matches!(program, [only] if only.k == 0);
        if !is_empty && is_never(filter.program(super::FilterTarget::Socket)) {
            let why = "terms that can hold together: these never do";
            return Err(FilterError::whole(why));
        }
        Ok(filter)
    }
}
