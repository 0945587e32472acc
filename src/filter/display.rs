//! Writes a filter in the language it is parsed from.

use std::fmt::{self, Display, Formatter};

use super::ast::{
    Arith, ArithOp, Expr, Family, HostScope, Network, Primitive, Protocol, Relation, Side,
    Transport, TunnelKind, Width,
};
use super::names;

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match alone(self) {
            Self::All(all) => join(f, all, " and ", "0 = 0"),
            Self::Any(any) | Self::Apart(any) => join(f, any, " or ", "0 = 1"),
            Self::Not(inner) => write!(f, "not {}", Operand(inner)),
            Self::Is(primitive) => primitive.fmt(f),
            Self::Compare(relation, left, right) => write!(f, "{left} {} {right}", sign(*relation)),
        }
    }
}

/// Unwraps alternatives and conjunctions that have only one part.
fn alone(expr: &Expr) -> &Expr {
    match expr {
        Expr::All(one) | Expr::Any(one) | Expr::Apart(one) if one.len() == 1 => alone(&one[0]),
        expr => expr,
    }
}

fn join(f: &mut Formatter<'_>, parts: &[Expr], word: &str, nothing: &str) -> fmt::Result {
    if parts.is_empty() {
        return f.write_str(nothing);
    }
    // `and` and `or` associate to the left, so that the first part needs no parentheses. One pair is easier to read, but in a
    // row of alternating operators they would nest deeper than the parser allows.
    match alone(&parts[0]) {
        first if starts_with_joined(first) => first.fmt(f)?,
        first => Operand(first).fmt(f)?,
    }
    parts[1..].iter().try_for_each(|part| write!(f, "{word}{}", Operand(part)))
}

fn is_joined(expr: &Expr) -> bool {
    matches!(expr, Expr::All(_) | Expr::Any(_) | Expr::Apart(_))
}

/// Whether the first part of a conjunction or of alternatives is made of parts, too.
fn starts_with_joined(expr: &Expr) -> bool {
    match expr {
        Expr::All(parts) | Expr::Any(parts) | Expr::Apart(parts) => {
            parts.first().is_some_and(|first| is_joined(alone(first)))
        }
        _ => false,
    }
}

/// A condition as part of another. `and` and `or` have the same precedence, so either is parenthesized.
struct Operand<'a>(&'a Expr);

impl Display for Operand<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match alone(self.0) {
            expr if is_joined(expr) => write!(f, "({expr})"),
            expr => expr.fmt(f),
        }
    }
}

impl Display for Primitive {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self::True => f.write_str("0 = 0"),
            Self::Protocol(protocol) => f.write_str(protocol_name(protocol)),
            Self::LinkType(number) => write!(f, "ether proto {number:#06x}"),
            Self::IpProtocol(family, number) => {
                let family = family.map_or("", family_name);
                write!(f, "{family}proto {number}")
            }
            Self::Host(scope, side, network) => host(f, scope, side, network),
            Self::Ether(side, [a, b, c, d, e, g]) => {
                let side = side_name(side);
                write!(f, "ether {side}host {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
            Self::EtherBroadcast => f.write_str("broadcast"),
            Self::EtherMulticast => f.write_str("multicast"),
            Self::IpMulticast(family) => write!(f, "{}multicast", family_name(family)),
            Self::Ports(transport, side, low, high) => {
                let transport = match transport {
                    None => "",
                    Some(Transport::Tcp) => "tcp ",
                    Some(Transport::Udp) => "udp ",
                    Some(Transport::Sctp) => "sctp ",
                };
                let side = side_name(side);
                match low == high {
                    true => write!(f, "{transport}{side}port {low}"),
                    false => write!(f, "{transport}{side}portrange {low}-{high}"),
                }
            }
            Self::Vlan(id) => label(f, "vlan", id.map(u32::from)),
            Self::Mpls(number) => label(f, "mpls", number),
            Self::PppoeSession(session) => label(f, "pppoes", session.map(u32::from)),
            Self::LenAtLeast(len) => write!(f, "greater {len}"),
            Self::LenAtMost(len) => write!(f, "less {len}"),
            Self::IpBroadcast(mask) => {
                // There is no word for it with a mask.
                let host = !mask;
                write!(f, "(ip[16:4] & {host:#x} = 0 or ip[16:4] & {host:#x} = {host:#x})")
            }
            Self::IsoProtocol(protocol) => write!(f, "iso proto {protocol}"),
            Self::IsisPdu(kind) => write!(f, "isis proto {kind}"),
            Self::Llc(None) => f.write_str("llc"),
            Self::Llc(Some(kind)) => write!(f, "llc {}", names::llc_name(kind)),
            Self::ProtoChain(family, protocol) => {
                write!(f, "{}protochain {protocol}", family.map_or("", family_name))
            }
            Self::Tunnel(TunnelKind::Geneve, id) => label(f, "geneve", id),
            Self::Tunnel(TunnelKind::Vxlan, id) => label(f, "vxlan", id),
            Self::Interface(index) => write!(f, "ifindex {index}"),
            Self::Inbound => f.write_str("inbound"),
            Self::Outbound => f.write_str("outbound"),
            Self::WlanType { value, mask } => {
                const TYPE: u8 = 0x0c;
                write!(f, "type {:#x}", value & TYPE)?;
                match mask & !TYPE {
                    0 => Ok(()),
                    of_subtype => write!(f, " subtype {:#x}", value & of_subtype),
                }
            }
            Self::WlanDirection(direction) => write!(f, "dir {direction}"),
            Self::WlanAddress(which, [a, b, c, d, e, g]) => {
                let which = which.name();
                write!(f, "wlan {which} {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
        }
    }
}

fn label(f: &mut Formatter<'_>, word: &str, number: Option<u32>) -> fmt::Result {
    match number {
        Some(number) => write!(f, "{word} {number}"),
        None => f.write_str(word),
    }
}

fn host(f: &mut Formatter<'_>, scope: HostScope, side: Side, network: Network) -> fmt::Result {
    let scope = match (scope, network) {
        (HostScope::Any, _) => "",
        (HostScope::Ip, Network::V4(..)) => "ip ",
        (HostScope::Ip, Network::V6(..)) => "ip6 ",
        (HostScope::Arp, _) => "arp ",
        (HostScope::Rarp, _) => "rarp ",
    };
    write!(f, "{scope}{}", side_name(side))?;
    match network {
        Network::V4(address, u32::MAX) => write!(f, "host {address}"),
        Network::V4(address, mask) if mask.leading_ones() == mask.count_ones() => {
            write!(f, "net {address}/{}", mask.count_ones())
        }
        Network::V4(address, mask) => {
            write!(f, "net {address} mask {}", std::net::Ipv4Addr::from_bits(mask))
        }
        Network::V6(address, u128::MAX) => write!(f, "host {address}"),
        Network::V6(address, mask) => write!(f, "net {address}/{}", mask.count_ones()),
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip ",
        Family::V6 => "ip6 ",
    }
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Source => "src ",
        Side::Destination => "dst ",
        Side::Both => "src and dst ",
        Side::Either => "",
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Ether => "ether",
        Protocol::Radio => "radio",
        Protocol::Ip => "ip",
        Protocol::Ip6 => "ip6",
        Protocol::Arp => "arp",
        Protocol::Rarp => "rarp",
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
        Protocol::Icmp => "icmp",
        Protocol::Icmp6 => "icmp6",
        Protocol::Igmp => "igmp",
        Protocol::Pim => "pim",
        Protocol::Vrrp => "vrrp",
        Protocol::Ah => "ah",
        Protocol::Esp => "esp",
    }
}

impl Display for Arith {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Len => f.write_str("len"),
            Self::Load(protocol, offset, width) => {
                let width = match width {
                    Width::Byte => "",
                    Width::Half => ":2",
                    Width::Word => ":4",
                };
                write!(f, "{}[{offset}{width}]", protocol_name(*protocol))
            }
            Self::Op(op, left, right) => {
                write!(f, "{} {} {}", Factor(left), operator(*op), Factor(right))
            }
            Self::Negated(inner) => write!(f, "-{}", Factor(inner)),
        }
    }
}

/// A number as part of an arithmetic expression.
struct Factor<'a>(&'a Arith);

impl Display for Factor<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            arith @ (Arith::Op(..) | Arith::Negated(_)) => write!(f, "({arith})"),
            arith => arith.fmt(f),
        }
    }
}

fn operator(op: ArithOp) -> &'static str {
    match op {
        ArithOp::Add => "+",
        ArithOp::Sub => "-",
        ArithOp::Mul => "*",
        ArithOp::Div => "/",
        ArithOp::Rem => "%",
        ArithOp::And => "&",
        ArithOp::Or => "|",
        ArithOp::Xor => "^",
        ArithOp::Shl => "<<",
        ArithOp::Shr => ">>",
    }
}

fn sign(relation: Relation) -> &'static str {
    match relation {
        Relation::Equal => "=",
        Relation::NotEqual => "!=",
        Relation::Less => "<",
        Relation::LessOrEqual => "<=",
        Relation::Greater => ">",
        Relation::GreaterOrEqual => ">=",
    }
}
