//! Comparisons of numbers computed from a packet.

use std::rc::Rc;

use super::{
    HARDWARE, INTERFACE, IPV4, IPV6, IPV6_HEADER, Layout, Lowered, PACKET_TYPE, PROTOCOL, beyond,
    number,
};
use crate::FilterTarget;
use crate::ast::{Arith, ArithOp, Protocol, Relation, Width};
use crate::error::FilterError;
use crate::tree::{Compare, Condition, Value};

/// The largest fixed offset. Much larger ones stand for the kernel's metadata of the packet.
const MAX_OFFSET: u32 = 0xffff;

impl Layout {
    /// Lowers a comparison, preceded by the conditions under which its values are meaningful.
    pub(super) fn compare(&mut self, relation: Relation, left: &Arith, right: &Arith) -> Lowered {
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
            Arith::Len => self.len(),
            Arith::Negated(inner) => {
                let inner = self.arith(inner, guards)?;
                match inner.number() {
                    Some(value) => number(value.wrapping_neg()),
                    None => Rc::new(Value::Negated(inner)),
                }
            }
            Arith::Op(op, left, right) => {
                let left = self.arith(left, guards)?;
                let right = self.arith(right, guards)?;
                let fault = match (op, right.number()) {
                    (ArithOp::Div | ArithOp::Rem, Some(0)) => "a divisor that is not 0",
                    (ArithOp::Shl | ArithOp::Shr, Some(32..)) => "a shift by at most 31 bits",
                    _ => return Ok(Value::op(*op, left, right)),
                };
                return Err(FilterError::whole(fault));
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
        if offset.number().is_some_and(|offset| offset > MAX_OFFSET) {
            let why = "an offset inside of a packet: it counts from 0 on, and is less than 64 KiB";
            return Err(FilterError::whole(why));
        }
        let fixed = |base: u32| match (offset.number(), &self.base) {
            (Some(offset), _) => self.at(width, base.wrapping_add(offset)),
            (None, None) => beyond(width, &offset, base),
            (None, Some(start)) => {
                let from = Value::op(ArithOp::Add, Rc::clone(&offset), Rc::clone(start));
                beyond(width, &from, base)
            }
        };
        Ok(match protocol {
            Protocol::Ether if self.target == FilterTarget::Cooked && self.base.is_none() => {
                self.cooked_header(&offset, width)?
            }
            Protocol::Radio => {
                self.check_radio()?;
                from(width, &offset, None)
            }
            Protocol::Ether => match &self.wireless {
                Some(wireless) => from(width, &offset, wireless.start()),
                None => fixed(0),
            },
            Protocol::Ip | Protocol::Ip6 | Protocol::Arp | Protocol::Rarp => {
                guards.push(self.protocol(protocol)?);
                fixed(network)
            }
            Protocol::Icmp6 => {
                guards.push(self.link_type(IPV6)?);
                guards.push(self.is(Width::Byte, network + 6, 58));
                fixed(network + IPV6_HEADER)
            }
            _ => {
                guards.push(self.link_type(IPV4)?);
                guards.push(self.protocol(protocol)?);
                guards.push(self.is_no_later_fragment());
                let header = self.v4_header_len();
                match offset.number() {
                    Some(offset) => beyond(width, &header, network.wrapping_add(offset)),
                    None => {
                        let base = Value::op(ArithOp::Add, offset, header);
                        beyond(width, &base, network)
                    }
                }
            }
        })
    }
}

/// A load from a computed offset behind `start`, or behind the packet's start.
fn from(width: Width, offset: &Rc<Value>, start: Option<&Rc<Value>>) -> Rc<Value> {
    match (start, offset.number()) {
        (None, Some(offset)) => Rc::new(Value::At(width, offset)),
        (None, None) => beyond(width, offset, 0),
        (Some(start), Some(offset)) => beyond(width, start, offset),
        (Some(start), None) => {
            beyond(width, &Value::op(ArithOp::Add, Rc::clone(offset), Rc::clone(start)), 0)
        }
    }
}

impl Layout {
    /// Loads a field of the header that a cooked packet is given later, from the packet's metadata.
    fn cooked_header(&self, offset: &Value, width: Width) -> Result<Rc<Value>, FilterError> {
        let at = match (offset.number(), width) {
            (Some(0), Width::Half) => PROTOCOL,
            (Some(4), Width::Word) => INTERFACE,
            (Some(8), Width::Half) => HARDWARE,
            (Some(10), Width::Byte) => PACKET_TYPE,
            _ => {
                let why = "a field of the header that is known in the kernel: `link[0:2]` (the protocol), `link[4:4]` \
                           (the interface), `link[8:2]` (its hardware type), `link[10]` (the direction)";
                return Err(FilterError::whole(why));
            }
        };
        // The kernel keeps all of these as whole numbers.
        Ok(Rc::new(Value::At(width, at)))
    }
}

/// `left == right`, with constants moved to the right.
fn equal(left: Rc<Value>, right: Rc<Value>) -> Condition {
    match (left.number(), right.number()) {
        (Some(_), None) => Condition::equal(right, left),
        _ => Condition::equal(left, right),
    }
}
