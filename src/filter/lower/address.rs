//! Hosts and ports.

use super::{ARP, IPV4, IPV6, IPV6_HEADER, Layout, Lowered, RARP, beyond, number, sides};
use crate::ast::{Family, HostScope, Network, Side, Transport, Width};
use crate::tree::{Compare, Condition};

impl Layout {
    /// Matches any of the given addresses, which are all of one family.
    pub(super) fn host(&self, scope: HostScope, side: Side, sought: &[Network]) -> Lowered {
        if let Some(Network::V6(..)) = sought.first() {
            return self.host6(side, sought);
        }
        let network = self.network();
        let within = |ether_type, source: u32, destination: u32| -> Lowered {
            let link = self.link_type(ether_type)?;
            let one = |offset: u32| {
                let is = |sought: &Network| match *sought {
                    Network::V4(address, mask) => {
                        self.masked(Width::Word, network + offset, address.to_bits(), mask)
                    }
                    Network::V6(..) => Condition::False,
                };
                let found = match ranges(sought) {
                    Some(ranges) => {
                        Condition::one_of(&self.at(Width::Word, network + offset), &ranges)
                    }
                    None => Condition::Any(sought.iter().map(is).collect()),
                };
                link.clone().and(found)
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

    fn host6(&self, side: Side, sought: &[Network]) -> Lowered {
        let link = self.link_type(IPV6)?;
        let network = self.network();
        let one = |offset: u32| {
            let is = |sought: &Network| {
                let &Network::V6(address, mask) = sought else { return Condition::False };
                let word = |at: u32| {
                    let shift = 96 - 8 * at;
                    let (value, mask) =
                        ((address.to_bits() >> shift) as u32, (mask >> shift) as u32);
                    self.masked(Width::Word, network + offset + at, value, mask)
                };
                Condition::All(vec![word(0), word(4), word(8), word(12)])
            };
            link.clone().and(Condition::Any(sought.iter().map(is).collect()))
        };
        Ok(sides(side, || one(8), || one(24)))
    }

    /// Matches any of the given ranges of ports.
    pub(super) fn ports(
        &self,
        family: Family,
        transport: Option<Transport>,
        side: Side,
        ranges: &[(u16, u16)],
    ) -> Lowered {
        let network = self.network();
        let port = |offset: u32| {
            let value = match family {
                // The ports follow a header of variable length.
                Family::V4 => beyond(Width::Half, &self.v4_header_len(), network + offset),
                Family::V6 => self.at(Width::Half, network + IPV6_HEADER + offset),
            };
            let ranges: Vec<_> =
                ranges.iter().map(|&(low, high)| (low.into(), high.into())).collect();
            Condition::one_of(&value, &ranges)
        };
        let ports = || sides(side, || port(0), || port(2));
        let of = |transport: Transport| {
            let protocol_at = network + if family == Family::V4 { 9 } else { 6 };
            let is_protocol = self.is(Width::Byte, protocol_at, transport.number().into());
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

    /// Tests for a whole IPv4 packet or its first fragment; only these have the transport header.
    pub(super) fn is_no_later_fragment(&self) -> Condition {
        let fragment = self.at(Width::Half, self.network() + 6);
        Condition::test(fragment, Compare::Set, number(0x1fff)).negated()
    }
}

/// Returns networks as ranges of addresses; `None` if they are too few to be worth a search, or if a mask has holes.
fn ranges(networks: &[Network]) -> Option<Vec<(u32, u32)>> {
    const FEW: usize = 4;
    let range = |network: &Network| match *network {
        Network::V4(address, mask) if mask.leading_ones() == mask.count_ones() => {
            Some((address.to_bits(), address.to_bits() | !mask))
        }
        _ => None,
    };
    if networks.len() <= FEW { None } else { networks.iter().map(range).collect() }
}
