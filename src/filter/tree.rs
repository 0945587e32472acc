//! A filter for a certain link type, as tests of values that classic BPF can load.

use std::rc::Rc;

use super::ast::{ArithOp, Width};

/// A condition made of tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    True,
    False,
    Test(Test),
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    /// The second if the first holds, otherwise the third.
    Choice(Box<[Condition; 3]>),
}

/// A comparison of two values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Test {
    pub(super) left: Rc<Value>,
    pub(super) compare: Compare,
    pub(super) right: Rc<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Compare {
    Equal,
    Greater,
    AtLeast,
    /// True if any bit is common to both.
    Set,
}

/// A value that a program can load or compute. A load beyond the packet's end rejects the packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Value {
    Number(u32),
    /// A load from a fixed offset; from `ANCILLARY` on, from the kernel's metadata of the packet.
    At(Width, u32),
    /// A load from an offset relative to `base`.
    Beyond(Width, Rc<Value>, u32),
    /// Four times the low half of a byte: the length of an IPv4 header.
    HeaderLen(u32),
    /// The length of the packet on the wire.
    Len,
    Op(ArithOp, Rc<Value>, Rc<Value>),
    Negated(Rc<Value>),
}

impl Value {
    pub(super) fn number(&self) -> Option<u32> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Number of values that this one is computed from, and itself.
    fn values(&self) -> usize {
        match self {
            Self::Number(_) | Self::At(..) | Self::HeaderLen(_) | Self::Len => 1,
            Self::Beyond(_, base, _) => 1 + base.values(),
            Self::Op(_, left, right) => 1 + left.values() + right.values(),
            Self::Negated(inner) => 1 + inner.values(),
        }
    }

    /// `left op right`, folded if both are constants.
    pub(super) fn op(op: ArithOp, left: Rc<Self>, right: Rc<Self>) -> Rc<Self> {
        if let (Some(left), Some(right)) = (left.number(), right.number())
            && let Some(number) = compute(op, left, right)
        {
            return Rc::new(Self::Number(number));
        }
        match (op, right.number()) {
            (ArithOp::And, Some(u32::MAX)) => left,
            (ArithOp::And | ArithOp::Mul, Some(0)) => right,
            (ArithOp::Mul | ArithOp::Div, Some(1)) => left,
            (
                ArithOp::Add
                | ArithOp::Sub
                | ArithOp::Or
                | ArithOp::Xor
                | ArithOp::Shl
                | ArithOp::Shr,
                Some(0),
            ) => left,
            _ => Rc::new(Self::Op(op, left, right)),
        }
    }

    /// This value, simplified by the knowledge that `known` equals `number`.
    pub(super) fn given(self: &Rc<Self>, known: &Rc<Self>, number: u32) -> Rc<Self> {
        if self == known {
            return Rc::new(Self::Number(number));
        }
        match &**self {
            Self::Op(op, left, right) => {
                let given = [left, right].map(|part| part.given(known, number));
                let is_same = Rc::ptr_eq(&given[0], left) && Rc::ptr_eq(&given[1], right);
                let [left, right] = given;
                if is_same { Rc::clone(self) } else { Self::op(*op, left, right) }
            }
            _ => Rc::clone(self),
        }
    }
}

/// The kernel's arithmetic; `None` if it would reject the packet.
pub(super) fn compute(op: ArithOp, left: u32, right: u32) -> Option<u32> {
    Some(match op {
        ArithOp::Add => left.wrapping_add(right),
        ArithOp::Sub => left.wrapping_sub(right),
        ArithOp::Mul => left.wrapping_mul(right),
        ArithOp::Div => left.checked_div(right)?,
        ArithOp::Rem => left.checked_rem(right)?,
        ArithOp::And => left & right,
        ArithOp::Or => left | right,
        ArithOp::Xor => left ^ right,
        // A register shifts by the low five bits: classic BPF runs as extended BPF, with 32-bit operations.
        ArithOp::Shl => left.wrapping_shl(right),
        ArithOp::Shr => left.wrapping_shr(right),
    })
}

impl Compare {
    pub(super) fn holds(self, left: u32, right: u32) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Greater => left > right,
            Self::AtLeast => left >= right,
            Self::Set => left & right != 0,
        }
    }
}

impl Test {
    /// The outcome, if it does not depend on the packet.
    pub(super) fn outcome(&self) -> Option<bool> {
        Some(self.compare.holds(self.left.number()?, self.right.number()?))
    }

    /// The outcome, if it follows from the `outcome` of `other`.
    pub(super) fn given(&self, other: &Self, outcome: bool) -> Option<bool> {
        if self == other {
            return Some(outcome);
        }
        let number = other.right.number()?;
        if other.compare == Compare::Equal && outcome {
            let left = self.left.given(&other.left, number);
            let right = self.right.given(&other.left, number);
            return Self { left, compare: self.compare, right }.outcome();
        }
        if self.left != other.left {
            return None;
        }
        let asked = self.right.number()?;
        // The range of values that the other test leaves open.
        let (low, high) = match (other.compare, outcome) {
            (Compare::Greater, true) => (number.checked_add(1)?, u32::MAX),
            (Compare::Greater, false) => (0, number),
            (Compare::AtLeast, true) => (number, u32::MAX),
            (Compare::AtLeast, false) => (0, number.checked_sub(1)?),
            _ => return None,
        };
        match self.compare {
            Compare::Equal if asked < low || asked > high => Some(false),
            Compare::Greater if low > asked => Some(true),
            Compare::Greater if high <= asked => Some(false),
            Compare::AtLeast if low >= asked => Some(true),
            Compare::AtLeast if high < asked => Some(false),
            _ => None,
        }
    }
}

impl Condition {
    /// `left == right`, in the form that is cheapest to test.
    pub(super) fn equal(left: Rc<Value>, right: Rc<Value>) -> Self {
        if let Value::Op(ArithOp::And, value, mask) = &*left
            && right.number() == Some(0)
            && mask.number().is_some()
        {
            let (left, right) = (Rc::clone(value), Rc::clone(mask));
            return Self::Not(Box::new(Self::test(left, Compare::Set, right)));
        }
        Self::test(left, Compare::Equal, right)
    }

    pub(super) fn test(left: Rc<Value>, compare: Compare, right: Rc<Value>) -> Self {
        let test = Test { left, compare, right };
        match test.outcome() {
            Some(true) => Self::True,
            Some(false) => Self::False,
            None => Self::Test(test),
        }
    }

    /// Whether a value is in one of the ranges, found by bisection.
    pub(super) fn one_of(value: &Rc<Value>, ranges: &[(u32, u32)]) -> Self {
        let mut sorted = ranges.to_vec();
        sorted.sort_unstable();
        sorted.dedup_by(|next, kept| {
            let touches = next.0 <= kept.1.saturating_add(1);
            kept.1 = if touches { kept.1.max(next.1) } else { kept.1 };
            touches
        });
        Self::bisect(value, &sorted)
    }

    fn bisect(value: &Rc<Value>, ranges: &[(u32, u32)]) -> Self {
        /// So few are compared one by one: a match then takes as few steps.
        const FEW: usize = 4;
        let test =
            |compare, number| Self::test(Rc::clone(value), compare, Rc::new(Value::Number(number)));
        if ranges.len() <= FEW {
            let is = |&(low, high): &(u32, u32)| match low == high {
                true => test(Compare::Equal, low),
                false => test(Compare::AtLeast, low).and(test(Compare::Greater, high).negated()),
            };
            return Self::Any(ranges.iter().map(is).collect());
        }
        let (below, above) = ranges.split_at(ranges.len() / 2);
        let is_above = test(Compare::AtLeast, above[0].0);
        let [above, below] = [above, below].map(|half| Self::bisect(value, half));
        Self::Choice(Box::new([is_above, above, below]))
    }

    /// Number of values that all tests load and compute.
    pub(super) fn values(&self) -> usize {
        match self {
            Self::True | Self::False => 0,
            Self::Test(test) => test.left.values() + test.right.values(),
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::values).sum(),
            Self::Not(inner) => inner.values(),
            Self::Choice(parts) => parts.iter().map(Self::values).sum(),
        }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self::All(vec![self, other])
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self::Any(vec![self, other])
    }

    pub(super) fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }
}
