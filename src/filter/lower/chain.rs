//! Protocols behind a chain of extension headers.

use std::rc::Rc;

use super::{IPV4, IPV6, IPV6_HEADER, Layout, Lowered, beyond, number};
use crate::ast::{ArithOp, Family, Width};
use crate::tree::{Condition, Value};

/// Extension headers that are looked through at most; a program has no loops.
const MOST: u32 = 6;
/// Those of them that may be authentication headers, whose length is counted differently.
const MOST_AH: u32 = 1;
const AH: u32 = 51;
/// Extension headers of IPv6: hop-by-hop options, destination options, routing, and the fragment header.
const EXTENSIONS: [u32; 4] = [0, 60, 43, 44];

/// The place that the chain has reached.
#[derive(Clone)]
struct Reached {
    protocol: Rc<Value>,
    /// Offset of the header of that protocol.
    at: Rc<Value>,
    left: u32,
    ah_left: u32,
}

impl Layout {
    pub(super) fn proto_chain(&self, family: Option<Family>, protocol: u8) -> Lowered {
        let network = self.network();
        match family {
            None => {
                let v4 = self.proto_chain(Some(Family::V4), protocol)?;
                Ok(v4.or(self.proto_chain(Some(Family::V6), protocol)?))
            }
            Some(Family::V4) => {
                let at = Value::op(ArithOp::Add, self.v4_header_len(), number(network));
                let protocol_at = self.at(Width::Byte, network + 9);
                let start = Reached { protocol: protocol_at, at, left: MOST_AH, ah_left: MOST_AH };
                Ok(self.link_type(IPV4)?.and(start.has(protocol, false)))
            }
            Some(Family::V6) => {
                let at = number(network + IPV6_HEADER);
                let at = match &self.base {
                    Some(base) => Value::op(ArithOp::Add, Rc::clone(base), at),
                    None => at,
                };
                let protocol_at = self.at(Width::Byte, network + 6);
                let start = Reached { protocol: protocol_at, at, left: MOST, ah_left: MOST_AH };
                Ok(self.link_type(IPV6)?.and(start.has(protocol, true)))
            }
        }
    }
}

impl Reached {
    /// Tests for the protocol here or further on.
    fn has(&self, protocol: u8, is_v6: bool) -> Condition {
        let is =
            |number_sought: u32| Condition::equal(Rc::clone(&self.protocol), number(number_sought));
        let mut found = vec![is(protocol.into())];
        if self.left > 0 && is_v6 {
            let is_extension = Condition::Any(EXTENSIONS.map(is).into_iter().collect());
            // In units of 8 bytes, without the first.
            found.push(is_extension.and(self.next(1, 8, self.ah_left).has(protocol, is_v6)));
        }
        if self.left > 0 && self.ah_left > 0 {
            // In units of 4 bytes, without the first two.
            found.push(is(AH).and(self.next(2, 4, self.ah_left - 1).has(protocol, is_v6)));
        }
        Condition::Any(found)
    }

    fn next(&self, first: u32, unit: u32, ah_left: u32) -> Self {
        let units = Value::op(ArithOp::Add, beyond(Width::Byte, &self.at, 1), number(first));
        let len = Value::op(ArithOp::Mul, units, number(unit));
        Self {
            protocol: beyond(Width::Byte, &self.at, 0),
            at: Value::op(ArithOp::Add, len, Rc::clone(&self.at)),
            left: self.left - 1,
            ah_left,
        }
    }
}
