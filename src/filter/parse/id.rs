//! Addresses, ports and protocols, interpreted by their qualifiers.

use std::net::{IpAddr, Ipv4Addr};

use super::{Kind, Parsed, Parser, Qualifiers, Tree};
use crate::ast::{Expr, Family, HostScope, Network, Primitive, Protocol, Transport};
use crate::lex::Token;
use crate::names;

const ONLY_IP: &str = "`ip` or `ip6` before `protochain`, or nothing";

impl Parser<'_> {
    /// Parses one address or number, or several in parentheses.
    pub(super) fn ids(&mut self, qualifiers: Qualifiers) -> Parsed<Tree> {
        if self.eat_word("not") || self.eat_sign("!") {
            let (inner, height) = self.nested(|parser| parser.ids(qualifiers))?;
            return Ok((Expr::Not(Box::new(inner)), height + 1));
        }
        if !self.eat_sign("(") {
            return self.id(qualifiers);
        }
        let inner = self.nested(|parser| parser.chain(|parser| parser.ids(qualifiers)))?;
        match self.eat_sign(")") {
            true => Ok(inner),
            false => Err(self.expected("`)`, `and` or `or`")),
        }
    }

    pub(super) fn id(&mut self, qualifiers: Qualifiers) -> Parsed<Tree> {
        self.count()?;
        if let (Kind::Host | Kind::Net, Some(name)) = (qualifiers.kind, self.peek_word())
            && qualifiers.protocol != Some(Protocol::Ether)
        {
            return self.named(name, qualifiers);
        }
        let primitive = match qualifiers.kind {
            Kind::Host | Kind::Net => self.address(qualifiers)?,
            Kind::Port => {
                let (low, transport) = self.port(qualifiers)?;
                Primitive::Ports(transport, qualifiers.side, low, low)
            }
            Kind::PortRange => self.port_range(qualifiers)?,
            Kind::Proto => self.proto(qualifiers)?,
            Kind::ProtoChain => match self.proto(qualifiers)? {
                Primitive::IpProtocol(family, protocol) => Primitive::ProtoChain(family, protocol),
                _ => return Err(self.refused(ONLY_IP)),
            },
            Kind::Iso => Primitive::IsoProtocol(self.byte_by_name(names::iso_protocol)?),
            Kind::Isis if self.peek_word().is_some() => {
                return Err(self.expected("a number: names of types, such as `lsp`, stand alone"));
            }
            Kind::Isis => match self.byte_by_name(|_| None)? {
                kind @ 0..=31 => Primitive::IsisPdu(kind),
                _ => return Err(self.refused("a type of IS-IS packet, 0 to 31")),
            },
            Kind::Wlan(which) => match self.mac_address() {
                Some(mac) => Primitive::WlanAddress(which, mac),
                None => return Err(self.expected("a MAC address, such as 02:00:00:00:00:01")),
            },
            Kind::Gateway => return self.gateway(qualifiers),
        };
        Ok((Expr::Is(primitive), 1))
    }

    fn byte_by_name(&mut self, known: impl Fn(&str) -> Option<u8>) -> Parsed<u8> {
        let token = self.peek().cloned();
        self.at += 1;
        match token {
            Some(Token::Number(number)) => {
                u8::try_from(number).map_err(|_| self.refused("a number below 256"))
            }
            Some(Token::Word(name)) => {
                known(name).ok_or_else(|| self.refused("a number, or a name that is known here"))
            }
            _ => {
                self.at -= 1;
                Err(self.expected("a number"))
            }
        }
    }

    /// Parses the name of a gateway: packets that it passes on have its MAC address, but not its IP address.
    fn gateway(&mut self, qualifiers: Qualifiers) -> Parsed<Tree> {
        let Some(name) = self.peek_word() else {
            return Err(self.expected("the name of a host"));
        };
        self.at += 1;
        let is_of_v4 = |protocol| matches!(protocol, Protocol::Ip | Protocol::Arp | Protocol::Rarp);
        if qualifiers.protocol.is_some_and(|protocol| !is_of_v4(protocol)) {
            return Err(self.refused("`ip`, `arp` or `rarp` before `gateway`, or nothing"));
        }
        let scope = self.scope(qualifiers.protocol)?;
        let Some(mac) = self.resolver.ether(name) else {
            let why =
                format!("a host whose MAC address is known (`Resolver::ether`), not `{name}`");
            return Err(self.refused(why));
        };
        let addresses = self.resolver.host(name).into_iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(Network::V4(address, u32::MAX)),
            IpAddr::V6(_) => None,
        });
        let of = |network| Expr::Is(Primitive::Host(scope, qualifiers.side, network));
        let hosts: Vec<Expr> = addresses.map(of).collect();
        if hosts.is_empty() {
            let why =
                format!("a host whose IPv4 address is known (`Resolver::host`), not `{name}`");
            return Err(self.refused(why));
        }
        let passes = Expr::Is(Primitive::Ether(qualifiers.side, mac));
        Ok((Expr::All(vec![passes, Expr::Not(Box::new(Expr::Any(hosts)))]), 4))
    }

    /// Where addresses are looked for.
    fn scope(&self, protocol: Option<Protocol>) -> Parsed<HostScope> {
        match protocol {
            None => Ok(HostScope::Any),
            Some(Protocol::Ip | Protocol::Ip6) => Ok(HostScope::Ip),
            Some(Protocol::Arp) => Ok(HostScope::Arp),
            Some(Protocol::Rarp) => Ok(HostScope::Rarp),
            Some(_) => Err(self.refused("no transport protocol before an address")),
        }
    }

    /// Looks up a host or network by name: any of its addresses.
    fn named(&mut self, name: &str, qualifiers: Qualifiers) -> Parsed<Tree> {
        let Qualifiers { protocol, side, kind } = qualifiers;
        self.at += 1;
        let scope = self.scope(protocol)?;
        let networks: Vec<Network> = match kind {
            Kind::Net => self.resolver.network(name).into_iter().map(in_v4).collect(),
            _ => self.resolver.host(name).into_iter().map(in_any).collect(),
        };
        let fits = |network: &Network| match (protocol, network) {
            (None, _) => true,
            (Some(Protocol::Ip6), network) => matches!(network, Network::V6(..)),
            (_, network) => matches!(network, Network::V4(..)),
        };
        let of = |network| Expr::Is(Primitive::Host(scope, side, network));
        let mut hosts: Vec<Expr> = networks.into_iter().filter(fits).map(of).collect();
        match hosts.len() {
            0 => {
                let what = if kind == Kind::Net { "network" } else { "host" };
                Err(self.refused(format!(
                    "an address: names are looked up by a `Resolver` alone (`parse_with`), and it knows no {what} `{name}`"
                )))
            }
            1 => Ok((hosts.remove(0), 1)),
            _ => Ok((Expr::Any(hosts), 2)),
        }
    }

    /// Parses two ports with a `-` in between, or one.
    fn port_range(&mut self, qualifiers: Qualifiers) -> Parsed<Primitive> {
        // Names may contain the sign, so that two of them are one word.
        if let Some(Token::Word(word)) = self.peek()
            && names::port(word).is_none()
        {
            let asked = self.transport(qualifiers)?;
            let port = |word: &str| match word.parse() {
                Ok(port) => Some((port, asked)),
                Err(_) => names::port(word).map(|(port, known)| (port, asked.or(known))),
            };
            let mut signs = word.match_indices('-');
            let ends = signs.find_map(|(at, _)| Some((port(&word[..at])?, port(&word[at + 1..])?)));
            if let Some(((low, transport), (high, other))) = ends {
                self.at += 1;
                let transport = if transport == other { transport } else { asked };
                let (low, high) = (low.min(high), low.max(high));
                return Ok(Primitive::Ports(transport, qualifiers.side, low, high));
            }
        }
        let (low, transport) = self.port(qualifiers)?;
        let high = if self.eat_sign("-") { self.port(qualifiers)?.0 } else { low };
        Ok(Primitive::Ports(transport, qualifiers.side, low.min(high), low.max(high)))
    }

    /// The transport protocol before a port.
    fn transport(&self, qualifiers: Qualifiers) -> Parsed<Option<Transport>> {
        Ok(match qualifiers.protocol {
            None => None,
            Some(Protocol::Tcp) => Some(Transport::Tcp),
            Some(Protocol::Udp) => Some(Transport::Udp),
            Some(Protocol::Sctp) => Some(Transport::Sctp),
            Some(_) => {
                return Err(self.expected("`tcp`, `udp` or `sctp` before `port`, or nothing"));
            }
        })
    }

    fn port(&mut self, qualifiers: Qualifiers) -> Parsed<(u16, Option<Transport>)> {
        let asked = self.transport(qualifiers)?;
        let token = self.peek().cloned();
        self.at += 1;
        match token {
            Some(Token::Number(number)) => match u16::try_from(number) {
                Ok(port) => Ok((port, asked)),
                Err(_) => Err(self.refused("a port, 0 to 65535")),
            },
            Some(Token::Word(name)) => {
                match names::port(name) {
                    Some((_, Some(known))) if asked.is_some_and(|asked| asked != known) => {
                        Err(self.refused(format!("a port of that protocol: `{name}` is none")))
                    }
                    Some((port, known)) => Ok((port, asked.or(known))),
                    None => Err(self
                        .refused(format!("a port: no `{name}` is known here, write its number"))),
                }
            }
            _ => {
                self.at -= 1;
                Err(self.expected("a port"))
            }
        }
    }

    fn proto(&mut self, qualifiers: Qualifiers) -> Parsed<Primitive> {
        let token = self.peek().cloned();
        self.at += 1;
        let is_link = qualifiers.protocol == Some(Protocol::Ether);
        let number = match token {
            Some(Token::Number(number)) => number,
            Some(Token::Word(name)) => {
                let known = match is_link {
                    true => names::ether_type(name).map(u32::from),
                    false => names::ip_protocol(name).map(u32::from),
                };
                known.ok_or_else(|| {
                    self.refused(format!("a protocol: no `{name}` is known here, write its number"))
                })?
            }
            _ => {
                self.at -= 1;
                return Err(self.expected("a protocol"));
            }
        };
        let family = match qualifiers.protocol {
            Some(Protocol::Ether) => {
                let number = u16::try_from(number);
                return match number {
                    // In between are lengths.
                    Ok(number) if !(256..=1500).contains(&number) => {
                        Ok(Primitive::LinkType(number))
                    }
                    _ => Err(self
                        .refused("an Ethernet type, 1501 to 65535, or a SAP of 802.2, 0 to 255")),
                };
            }
            None => None,
            Some(Protocol::Ip) => Some(Family::V4),
            Some(Protocol::Ip6) => Some(Family::V6),
            Some(_) => {
                return Err(self.refused(match qualifiers.kind {
                    Kind::ProtoChain => ONLY_IP,
                    _ => "`ether`, `ip` or `ip6` before `proto`, or nothing",
                }));
            }
        };
        match u8::try_from(number) {
            Ok(number) => Ok(Primitive::IpProtocol(family, number)),
            Err(_) => Err(self.refused("a protocol, 0 to 255")),
        }
    }

    /// Parses a MAC address, or a name that has one.
    pub(super) fn mac_address(&mut self) -> Option<[u8; 6]> {
        let mac = match self.peek()? {
            Token::Mac(mac) => *mac,
            Token::Word(name) => mac_of_digits(name).or_else(|| self.resolver.ether(name))?,
            _ => return None,
        };
        self.at += 1;
        Some(mac)
    }

    fn address(&mut self, qualifiers: Qualifiers) -> Parsed<Primitive> {
        let Qualifiers { protocol, side, kind } = qualifiers;
        let token = self.peek().cloned();
        self.at += 1;
        if protocol == Some(Protocol::Ether) {
            self.at -= 1;
            let mac = (kind == Kind::Host).then(|| self.mac_address()).flatten();
            self.at += usize::from(mac.is_none());
            let mac = mac.ok_or_else(|| {
                self.refused(
                    "a MAC address, such as 02:00:00:00:00:01, or a name that a `Resolver` knows",
                )
            })?;
            return Ok(Primitive::Ether(side, mac));
        }
        let scope = self.scope(protocol)?;
        let network = match token {
            Some(Token::Number(number)) => self.v4(number, 32, kind)?,
            Some(Token::V4(value, bits)) => self.v4(value, bits, kind)?,
            Some(Token::V6(address)) => {
                let prefix = match (self.eat_sign("/"), self.peek()) {
                    (false, _) => 128,
                    (true, Some(Token::Number(128))) => {
                        self.at += 1;
                        128
                    }
                    (true, _) => self.prefix(kind, 128)?,
                };
                let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
                if address.to_bits() & !mask != 0 {
                    return Err(self.refused("a network: bits behind the prefix are set"));
                }
                Network::V6(address, mask)
            }
            Some(Token::Mac(_)) => return Err(self.refused("`ether` before a MAC address")),
            _ => {
                self.at -= 1;
                return Err(self.expected("an address"));
            }
        };
        let is_v6 = matches!(network, Network::V6(..));
        match protocol {
            Some(Protocol::Ip6) if !is_v6 => Err(self.refused("an IPv6 address")),
            Some(Protocol::Ip | Protocol::Arp | Protocol::Rarp) if is_v6 => {
                Err(self.refused("an IPv4 address"))
            }
            _ => Ok(Primitive::Host(scope, side, network)),
        }
    }

    /// Converts an IPv4 address of which `bits` bits were given, and its mask.
    fn v4(&mut self, value: u32, bits: u32, kind: Kind) -> Parsed<Network> {
        let full = value.checked_shl(32 - bits).unwrap_or(0);
        let written = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        let (address, mask) = if self.eat_sign("/") {
            let prefix = self.prefix(kind, 32)?;
            (full, u32::MAX.checked_shl(32 - prefix).unwrap_or(0))
        } else if kind == Kind::Net && self.eat_word("mask") {
            match self.peek() {
                Some(&Token::V4(mask, bits)) => {
                    self.at += 1;
                    (full, mask.checked_shl(32 - bits).unwrap_or(0))
                }
                _ => return Err(self.expected("a mask, such as 255.255.0.0")),
            }
        } else if kind == Kind::Net {
            // A network with fewer than four bytes, as in `net 10`: the mask covers the given bytes.
            let (mut address, mut mask) = (value, u32::MAX);
            while address != 0 && address & 0xff00_0000 == 0 {
                (address, mask) = (address << 8, mask << 8);
            }
            (address, mask)
        } else {
            (full, written)
        };
        match address & !mask {
            0 => Ok(Network::V4(Ipv4Addr::from_bits(address), mask)),
            _ => Err(self.refused("a network: bits behind the mask are set")),
        }
    }

    fn prefix(&mut self, kind: Kind, most: u32) -> Parsed<u32> {
        if kind != Kind::Net {
            return Err(self.refused("`net` before an address with a prefix"));
        }
        let prefix = self.number("the length of a prefix")?;
        match prefix <= most {
            true => Ok(prefix),
            false => Err(self.refused(format!("a prefix of at most {most} bits"))),
        }
    }
}

/// Reads a MAC address of twelve digits in a row.
fn mac_of_digits(word: &str) -> Option<[u8; 6]> {
    if word.len() != 12 || !word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut mac = [0; 6];
    for (at, byte) in mac.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&word[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(mac)
}

fn in_v4((address, mask): (Ipv4Addr, Ipv4Addr)) -> Network {
    let mask = mask.to_bits();
    Network::V4(Ipv4Addr::from_bits(address.to_bits() & mask), mask)
}

fn in_any(address: IpAddr) -> Network {
    match address {
        IpAddr::V4(address) => Network::V4(address, u32::MAX),
        IpAddr::V6(address) => Network::V6(address, u128::MAX),
    }
}
