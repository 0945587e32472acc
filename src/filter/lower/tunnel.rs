//! Tunnels of UDP: conditions behind `geneve` and `vxlan` are about the packet inside.
//!
//! Where the inner packet begins is not kept in scratch memory, but computed again for each load. So a conjunction behind a
//! tunnel is compiled once for each way to it: in IPv4 or IPv6, with an Ethernet frame inside or without.

use std::rc::Rc;

use super::{IPV4, IPV6, IPV6_HEADER, Layout, Lowered, Types, beyond, number};
use crate::ast::{ArithOp, Expr, Family, Primitive, TunnelKind, Width};
use crate::error::FilterError;
use crate::link_type::LinkType;
use crate::tree::{Condition, Value};

const UDP: u32 = 17;
/// Ethernet frames, as a type (`ETH_P_TEB`, linux/if_ether.h).
const BRIDGING: u32 = 0x6558;
/// Bytes of the headers of UDP and of both tunnels, without options.
const HEADERS: u32 = 8 + 8;

/// How often tunnels may double the ways to a packet; a program has no room for more.
const MAX_DOUBLINGS: u32 = 6;

/// The place of a header of UDP.
struct Transport {
    base: Rc<Value>,
    /// Its offset behind `base`.
    offset: u32,
}

impl Transport {
    fn load(&self, width: Width, offset: u32) -> Rc<Value> {
        beyond(width, &self.base, self.offset + offset)
    }
}

/// A packet inside a tunnel, and the condition that it is there.
struct Inside {
    condition: Condition,
    layout: Layout,
}

impl Layout {
    /// Matches all conditions. Those behind a tunnel are about the packet inside.
    pub(super) fn all(&mut self, all: &[Expr]) -> Lowered {
        let mut found = Vec::with_capacity(all.len());
        for (number, one) in all.iter().enumerate() {
            if let Expr::Is(Primitive::Tunnel(kind, id)) = one {
                found.push(self.tunnel(*kind, *id, &all[number + 1..])?);
                break;
            }
            found.push(self.expr(one)?);
        }
        Ok(Condition::All(found))
    }

    /// Matches packets of a tunnel whose inner packets match `rest`.
    pub(super) fn tunnel(&mut self, kind: TunnelKind, id: Option<u32>, rest: &[Expr]) -> Lowered {
        if self.is_past_tunnel {
            return Err(FilterError::whole("no second tunnel beside another"));
        }
        let mut ways = Vec::new();
        for family in [Family::V4, Family::V6] {
            let (is_there, transport) = self.datagram(family, kind)?;
            let header = |width, offset: u32| transport.load(width, 8 + offset);
            let is_header = match kind {
                // Version 0, and the bit that says that there is a number.
                TunnelKind::Geneve => bits(header(Width::Byte, 0), 0, 0xc0),
                TunnelKind::Vxlan => bits(header(Width::Byte, 0), 0x08, 0x08),
            };
            let mut condition = is_there.and(is_header);
            if let Some(id) = id {
                condition = condition.and(bits(header(Width::Word, 4), id << 8, 0xffff_ff00));
            }
            if rest.is_empty() {
                ways.push(condition);
                continue;
            }
            for mut inside in self.insides(kind, &transport, condition)? {
                let condition = self.counted(inside.condition)?;
                ways.push(condition.and(inside.layout.all(rest)?));
            }
        }
        self.is_past_tunnel = true;
        Ok(Condition::Any(ways))
    }

    /// Tests for a datagram to the tunnel's port. Also returns the offset of its header.
    fn datagram(
        &self,
        family: Family,
        kind: TunnelKind,
    ) -> Result<(Condition, Transport), FilterError> {
        let network = self.network();
        let (link, protocol_at) = match family {
            Family::V4 => (IPV4, network + 9),
            Family::V6 => (IPV6, network + 6),
        };
        let transport = match (family, &self.base) {
            (Family::V4, _) => Transport { base: self.v4_header_len(), offset: network },
            (Family::V6, None) => Transport { base: number(0), offset: network + IPV6_HEADER },
            (Family::V6, Some(base)) => {
                Transport { base: Rc::clone(base), offset: network + IPV6_HEADER }
            }
        };
        let mut condition = self.link_type(link)?.and(self.is(Width::Byte, protocol_at, UDP));
        if family == Family::V4 {
            condition = condition.and(self.is_no_later_fragment());
        }
        let port = transport.load(Width::Half, 2);
        let condition = condition.and(Condition::equal(port, number(kind.port())));
        Ok((condition, transport))
    }

    /// The packets that may be inside.
    fn insides(
        &self,
        kind: TunnelKind,
        transport: &Transport,
        is: Condition,
    ) -> Result<Vec<Inside>, FilterError> {
        let doublings = self.doublings + if kind == TunnelKind::Geneve { 2 } else { 1 };
        if doublings > MAX_DOUBLINGS {
            return Err(FilterError::whole(
                "no tunnels so deep in one another: a program has no room for them",
            ));
        }
        let add = |value, more| Value::op(ArithOp::Add, value, more);
        let mut start = add(Rc::clone(&transport.base), number(transport.offset + HEADERS));
        if kind == TunnelKind::Geneve {
            let words = Value::op(ArithOp::And, transport.load(Width::Byte, 8), number(0x3f));
            start = add(Value::op(ArithOp::Shl, words, number(2)), start);
        }
        let of = |(type_at, payload): (u32, u32), told: Option<Rc<Value>>| Self {
            link: LinkType::ETHERNET,
            types: Types::Ether,
            type_at,
            payload,
            labels: 0,
            is_beside: false,
            base: Some(Rc::clone(&start)),
            is_bare: told.is_some(),
            told,
            wireless: None,
            doublings,
            ..self.clone()
        };
        let frame = of((12, 14), None);
        Ok(match kind {
            TunnelKind::Vxlan => vec![Inside { condition: is, layout: frame }],
            TunnelKind::Geneve => {
                let protocol = transport.load(Width::Half, 8 + 2);
                let is_frame = Condition::equal(Rc::clone(&protocol), number(BRIDGING));
                let packet = of((0, 0), Some(protocol));
                let without = is.clone().and(is_frame.clone().negated());
                vec![
                    Inside { condition: is.and(is_frame), layout: frame },
                    Inside { condition: without, layout: packet },
                ]
            }
        })
    }
}

fn bits(value: Rc<Value>, sought: u32, mask: u32) -> Condition {
    Condition::equal(Value::op(ArithOp::And, value, number(mask)), number(sought))
}
