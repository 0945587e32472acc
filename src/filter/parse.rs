//! A recursive descent parser for the pcap-filter language (pcap-filter(7)).
//!
//! `and` and `or` have equal precedence and associate to the left, as in libpcap. An address or number without
//! qualifiers takes those of the previous one: `port 80 or 443`.

mod arith;
mod id;
mod wireless;

use super::ast::{
    Arith, ArithOp, Expr, Family, LlcKind, Primitive, Protocol, Relation, Side, TunnelKind, Width,
    WlanAddress,
};
use super::lex::{Lexeme, Token, split};
use super::names;
use super::resolver::Resolver;
use crate::error::FilterError;

/// The longest text that is parsed, in bytes.
const MAX_TEXT: usize = 64 << 10;
/// The maximum nesting of parentheses, negations and the like.
const MAX_DEPTH: usize = 64;
/// The maximum nesting of conditions, and of operations in a comparison, because the later passes recurse into
/// them.
pub(super) const MAX_HEIGHT: usize = 200;
/// The maximum number of conditions; a program has no room for more.
pub(super) const MAX_PRIMITIVES: usize = 4096;

/// Parses a filter; an empty one matches all packets.
pub(super) fn parse(text: &str, resolver: &dyn Resolver) -> Result<Expr, FilterError> {
    if text.len() > MAX_TEXT {
        return Err(FilterError::at("", 0, "a text of at most 64 KiB"));
    }
    let lexemes = split(text)?;
    if lexemes.is_empty() {
        return Ok(Expr::Is(Primitive::True));
    }
    let (at, depth, primitives, operations, last) = (0, 0, 0, 0, None);
    let mut parser = Parser { text, resolver, lexemes, at, depth, primitives, operations, last };
    let (expr, _) = parser.expr()?;
    match parser.peek() {
        None => Ok(expr),
        Some(_) => Err(parser.expected("`and`, `or`, or the end")),
    }
}

/// The way an address or number is interpreted.
#[derive(Debug, Clone, Copy)]
struct Qualifiers {
    protocol: Option<Protocol>,
    side: Side,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Host,
    Net,
    Port,
    PortRange,
    Proto,
    ProtoChain,
    Gateway,
    /// A protocol of ISO's.
    Iso,
    /// A type of IS-IS packet.
    Isis,
    /// An address that only 802.11 has.
    Wlan(WlanAddress),
}

struct Parser<'a> {
    text: &'a str,
    resolver: &'a dyn Resolver,
    lexemes: Vec<Lexeme<'a>>,
    at: usize,
    depth: usize,
    primitives: usize,
    /// Number of operators in the current comparison.
    operations: usize,
    /// Qualifiers of the previous primitive, used by one that has none.
    last: Option<Qualifiers>,
}

type Parsed<T> = Result<T, FilterError>;

/// A condition and its depth of nesting.
type Tree = (Expr, usize);

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&Token<'a>> {
        self.lexemes.get(self.at).map(|lexeme| &lexeme.token)
    }

    fn peek_word(&self) -> Option<&'a str> {
        match self.peek() {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let is_it = self.peek_word() == Some(word);
        self.at += usize::from(is_it);
        is_it
    }

    fn eat_sign(&mut self, sign: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.at += usize::from(is_it);
        is_it
    }

    fn expected(&self, what: impl Into<String>) -> FilterError {
        let at = self.lexemes.get(self.at).map_or(self.text.len(), |lexeme| lexeme.at);
        FilterError::at(self.text, at, what)
    }

    /// As [`expected`](Self::expected), but about the previous word.
    fn refused(&self, what: impl Into<String>) -> FilterError {
        let at = self.lexemes.get(self.at.saturating_sub(1)).map_or(0, |lexeme| lexeme.at);
        FilterError::at(self.text, at, what)
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.expected(format!("at most {MAX_DEPTH} levels of nesting")));
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn expr(&mut self) -> Parsed<Tree> {
        self.chain(Self::term)
    }

    /// Parses terms joined by `and` and `or`, from the left.
    fn chain(&mut self, mut term: impl FnMut(&mut Self) -> Parsed<Tree>) -> Parsed<Tree> {
        let (mut left, mut height) = term(self)?;
        loop {
            let is_and = self.eat_word("and") || self.eat_sign("&&");
            if !is_and && !self.eat_word("or") && !self.eat_sign("||") {
                return Ok((left, height));
            }
            let (right, right_height) = term(self)?;
            let is_same = matches!((is_and, &left), (true, Expr::All(_)) | (false, Expr::Any(_)));
            height = (height + usize::from(!is_same)).max(right_height + 1);
            if height > MAX_HEIGHT {
                return Err(self.expected(format!("at most {MAX_HEIGHT} levels of nesting")));
            }
            left = match (is_and, left) {
                (true, Expr::All(mut all)) => {
                    all.push(right);
                    Expr::All(all)
                }
                (false, Expr::Any(mut any)) => {
                    any.push(right);
                    Expr::Any(any)
                }
                (true, left) => Expr::All(vec![left, right]),
                (false, left) => Expr::Any(vec![left, right]),
            };
        }
    }

    fn term(&mut self) -> Parsed<Tree> {
        if self.eat_word("not") || self.eat_sign("!") {
            let (inner, height) = self.nested(Self::term)?;
            return Ok((Expr::Not(Box::new(inner)), height + 1));
        }
        if let Some(comparison) = self.comparison()? {
            self.count()?;
            self.last = None;
            return Ok((comparison, 1));
        }
        if self.eat_sign("(") {
            let inner = self.nested(Self::expr)?;
            return match self.eat_sign(")") {
                true => Ok(inner),
                false => Err(self.expected("`)`, `and` or `or`")),
            };
        }
        self.primitive()
    }

    /// Counts a condition against the limit.
    fn count(&mut self) -> Parsed<()> {
        self.primitives += 1;
        match self.primitives <= MAX_PRIMITIVES {
            true => Ok(()),
            false => Err(self.expected(format!("at most {MAX_PRIMITIVES} conditions"))),
        }
    }

    fn primitive(&mut self) -> Parsed<Tree> {
        let start = self.at;
        let Some(word) = self.peek_word() else {
            return match (self.peek(), self.last) {
                (Some(Token::Sign(_)) | None, _) => Err(self.expected("a condition")),
                (_, Some(last)) => self.id(last),
                (_, None) => Err(self.expected("a qualifier, such as `host` or `port`, before it")),
            };
        };
        if let Some(simple) = self.simple(word)? {
            self.count()?;
            self.last = None;
            return Ok((Expr::Is(simple), 1));
        }
        if let Some(special) = self.special(word)? {
            return Ok(special);
        }
        let protocol = protocol_of(word);
        self.at += usize::from(protocol.is_some());
        if matches!(protocol, None | Some(Protocol::Ether))
            && let Some(which) = self.wlan_address()
        {
            let (protocol, side, kind) = (None, Side::Either, Kind::Wlan(which));
            let qualifiers = Qualifiers { protocol, side, kind };
            self.last = Some(qualifiers);
            return self.ids(qualifiers);
        }
        if matches!(protocol, None | Some(Protocol::Ether))
            && let Some(wireless) = self.wireless()?
        {
            self.count()?;
            self.last = None;
            return Ok((Expr::Is(wireless), 1));
        }
        if let Some(qualifiers) = self.head(protocol)? {
            self.last = Some(qualifiers);
            return self.ids(qualifiers);
        }
        let cast = |primitive| Ok((Expr::Is(primitive), 1));
        if let Some(protocol) = protocol {
            self.count()?;
            self.last = None;
            return match (protocol, self.peek_word()) {
                (Protocol::Ether, Some("broadcast")) => {
                    self.at += 1;
                    cast(Primitive::EtherBroadcast)
                }
                (Protocol::Ether, Some("multicast")) => {
                    self.at += 1;
                    cast(Primitive::EtherMulticast)
                }
                (Protocol::Ip, Some("multicast")) => {
                    self.at += 1;
                    cast(Primitive::IpMulticast(Family::V4))
                }
                (Protocol::Ip6, Some("multicast")) => {
                    self.at += 1;
                    cast(Primitive::IpMulticast(Family::V6))
                }
                (Protocol::Ip, Some("broadcast")) => {
                    let Some(mask) = self.resolver.netmask() else {
                        let why =
                            "no `ip broadcast` without the network's mask (`Resolver::netmask`)";
                        return Err(self.expected(why));
                    };
                    self.at += 1;
                    cast(Primitive::IpBroadcast(mask.to_bits()))
                }
                (Protocol::Ether, _) => {
                    Err(self
                        .expected("`host`, `src`, `dst`, `proto`, `broadcast`, `multicast` or `[`"))
                }
                (Protocol::Radio, _) => Err(self.expected("`[` after `radio`")),
                (protocol, _) => cast(Primitive::Protocol(protocol)),
            };
        }
        self.at = start;
        match self.last {
            Some(last) => self.id(last),
            None => Err(self.expected(format!("a condition; `{word}` is not known"))),
        }
    }

    /// Parses a primitive that has no qualifiers.
    fn simple(&mut self, word: &str) -> Parsed<Option<Primitive>> {
        let start = self.at;
        self.at += 1;
        let primitive = match word {
            "broadcast" => Primitive::EtherBroadcast,
            "multicast" => Primitive::EtherMulticast,
            "inbound" => Primitive::Inbound,
            "outbound" => Primitive::Outbound,
            "ifname" => Primitive::Interface(self.interface()?),
            "geneve" => self.tunnel(TunnelKind::Geneve)?,
            "vxlan" => self.tunnel(TunnelKind::Vxlan)?,
            "igrp" => Primitive::IpProtocol(Some(Family::V4), 9),
            "llc" => Primitive::Llc(self.llc_kind()),
            "decnet" => self.decnet()?,
            word if names::link_protocol(word).is_some() && self.peek_word() != Some("proto") => {
                Primitive::LinkType(names::link_protocol(word).unwrap_or_default())
            }
            word if names::iso_protocol(word).is_some() && self.peek_word() != Some("proto") => {
                Primitive::IsoProtocol(names::iso_protocol(word).unwrap_or_default())
            }
            "ifindex" => Primitive::Interface(self.number("the index of an interface")?),
            "greater" => Primitive::LenAtLeast(self.number("a length in bytes")?),
            "less" => Primitive::LenAtMost(self.number("a length in bytes")?),
            "vlan" => Primitive::Vlan(self.optional(0xfff, "a VLAN id")?.map(|id| id as u16)),
            "carp" => Primitive::IpProtocol(Some(Family::V4), 112),
            "pppoed" => Primitive::LinkType(0x8863),
            "mpls" => Primitive::Mpls(self.optional(0xf_ffff, "an MPLS label")?),
            "pppoes" => {
                let session = self.optional(0xffff, "a PPPoE session")?;
                Primitive::PppoeSession(session.map(|session| session as u16))
            }
            _ => {
                self.at = start;
                return Ok(None);
            }
        };
        Ok(Some(primitive))
    }

    /// Parses what stands for several conditions, or has a form of its own.
    fn special(&mut self, word: &str) -> Parsed<Option<Tree>> {
        let start = self.at;
        self.at += 1;
        if let Some(kinds) = names::isis_pdus(word) {
            self.count()?;
            self.last = None;
            let kinds = kinds.iter().map(|&kind| Expr::Is(Primitive::IsisPdu(kind)));
            return Ok(Some((Expr::Any(kinds.collect()), 2)));
        }
        match word {
            "byte" => {
                self.count()?;
                self.last = None;
                return Ok(Some((self.byte()?, 1)));
            }
            "iso" | "isis" if self.eat_word("proto") => {
                let kind = if word == "iso" { Kind::Iso } else { Kind::Isis };
                let qualifiers = Qualifiers { protocol: None, side: Side::Either, kind };
                self.last = Some(qualifiers);
                return self.ids(qualifiers).map(Some);
            }
            _ => {}
        }
        self.at = start;
        Ok(None)
    }

    /// Parses the rest of `byte 8 & 5`: a byte of the packet, and what it is compared with.
    fn byte(&mut self) -> Parsed<Expr> {
        let at = Box::new(Arith::Number(self.number("the offset of a byte")?));
        let byte = Arith::Load(Protocol::Ether, at, Width::Byte);
        let signs = ["==", "=", "<", ">", "|", "&"];
        let Some(sign) = signs.into_iter().find(|sign| self.eat_sign(sign)) else {
            return Err(self.expected("`=`, `<`, `>`, `|` or `&`"));
        };
        let value = self.number("a number below 256")?;
        if value > 0xff {
            return Err(self.refused("a number below 256"));
        }
        let value = Arith::Number(value);
        let bits = |op, value| {
            let computed = Arith::Op(op, Box::new(byte.clone()), Box::new(value));
            Expr::Compare(Relation::NotEqual, computed, Arith::Number(0))
        };
        Ok(match sign {
            "<" => Expr::Compare(Relation::Less, byte, value),
            ">" => Expr::Compare(Relation::Greater, byte, value),
            "|" => bits(ArithOp::Or, value),
            "&" => bits(ArithOp::And, value),
            _ => Expr::Compare(Relation::Equal, byte, value),
        })
    }

    fn tunnel(&mut self, kind: TunnelKind) -> Parsed<Primitive> {
        let id = self.optional(0xff_ffff, "a network identifier")?;
        Ok(Primitive::Tunnel(kind, id))
    }

    fn llc_kind(&mut self) -> Option<LlcKind> {
        let kind = names::llc_kind(self.peek_word()?)?;
        self.at += 1;
        Some(kind)
    }

    /// Only the protocol itself: addresses of DECnet are in headers of several lengths.
    fn decnet(&mut self) -> Parsed<Primitive> {
        match self.peek_word() {
            Some("host" | "src" | "dst") => Err(self.expected("no addresses of DECnet")),
            _ => Ok(Primitive::LinkType(0x6003)),
        }
    }

    fn interface(&mut self) -> Parsed<u32> {
        let name = match self.lexemes.get(self.at) {
            Some(Lexeme { token: Token::Word(name), .. }) => name,
            // Interfaces may be named by digits alone.
            Some(&Lexeme { token: Token::Number(_), at, len }) => &self.text[at..at + len],
            _ => return Err(self.expected("the name of an interface")),
        };
        self.at += 1;
        self.resolver.interface(name).ok_or_else(|| {
            self.refused(format!(
                "an interface that is there (`Resolver::interface`), not `{name}`"
            ))
        })
    }

    fn number(&mut self, what: &str) -> Parsed<u32> {
        match self.peek() {
            Some(&Token::Number(number)) => {
                self.at += 1;
                Ok(number)
            }
            _ => Err(self.expected(what)),
        }
    }

    fn optional(&mut self, most: u32, what: &str) -> Parsed<Option<u32>> {
        let Some(&Token::Number(number)) = self.peek() else { return Ok(None) };
        self.at += 1;
        match number <= most {
            true => Ok(Some(number)),
            false => Err(self.refused(format!("{what}, 0 to {most}"))),
        }
    }

    /// Parses qualifiers such as `src` and `host`, if any follow.
    fn head(&mut self, protocol: Option<Protocol>) -> Parsed<Option<Qualifiers>> {
        let start = self.at;
        let side = self.side();
        let kind = match self.peek_word() {
            Some("host") => Kind::Host,
            Some("net") => Kind::Net,
            Some("port") => Kind::Port,
            Some("portrange") => Kind::PortRange,
            Some("proto") => Kind::Proto,
            Some("protochain") => Kind::ProtoChain,
            Some("gateway") => Kind::Gateway,
            _ if side.is_some() => {
                let side = side.unwrap_or_default();
                return Ok(Some(Qualifiers { protocol, side, kind: Kind::Host }));
            }
            _ => {
                self.at = start;
                return Ok(None);
            }
        };
        self.at += 1;
        if matches!(kind, Kind::Proto | Kind::ProtoChain | Kind::Gateway) && side.is_some() {
            return Err(self.refused("no direction for `proto`, `protochain` and `gateway`"));
        }
        Ok(Some(Qualifiers { protocol, side: side.unwrap_or_default(), kind }))
    }

    fn side(&mut self) -> Option<Side> {
        let (one, other) = match self.peek_word()? {
            "src" => (Side::Source, "dst"),
            "dst" => (Side::Destination, "src"),
            _ => return None,
        };
        self.at += 1;
        let start = self.at;
        for (signs, side) in [(["and", "&&"], Side::Both), (["or", "||"], Side::Either)] {
            if (self.eat_word(signs[0]) || self.eat_sign(signs[1])) && self.eat_word(other) {
                return Some(side);
            }
            self.at = start;
        }
        Some(one)
    }
}

fn protocol_of(word: &str) -> Option<Protocol> {
    Some(match word {
        // The names of other links all mean the one at hand.
        "ether" | "link" | "fddi" | "tr" | "wlan" | "ppp" | "slip" => Protocol::Ether,
        "radio" => Protocol::Radio,
        "ip" => Protocol::Ip,
        "ip6" => Protocol::Ip6,
        "arp" => Protocol::Arp,
        "rarp" => Protocol::Rarp,
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        "icmp" => Protocol::Icmp,
        "icmp6" => Protocol::Icmp6,
        "igmp" => Protocol::Igmp,
        "pim" => Protocol::Pim,
        "vrrp" => Protocol::Vrrp,
        "ah" => Protocol::Ah,
        "esp" => Protocol::Esp,
        _ => return None,
    })
}
