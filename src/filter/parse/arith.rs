//! Numbers computed from packets, and their comparisons.

use super::{MAX_HEIGHT, Parsed, Parser, protocol_of};
use crate::ast::{Arith, ArithOp, Expr, Protocol, Relation, Width};
use crate::lex::Token;
use crate::names;

impl Parser<'_> {
    /// Parses a comparison such as `a < b`, if one follows.
    pub(super) fn comparison(&mut self) -> Parsed<Option<Expr>> {
        let start = self.at;
        if !self.may_be_arith() {
            return Ok(None);
        }
        self.operations = 0;
        let depth = self.depth;
        let Ok(left) = self.arith() else {
            (self.at, self.depth) = (start, depth);
            // A load with brackets, or a length, can be nothing but a comparison, so report the error of that.
            let is_load = matches!(self.lexemes.get(start + 1), Some(lexeme) if lexeme.token == Token::Sign("["));
            return if is_load || matches!(self.peek_word(), Some("len" | "length")) {
                self.arith().map(|_| None)
            } else {
                Ok(None)
            };
        };
        let relation = [
            ("==", Relation::Equal),
            ("=", Relation::Equal),
            ("!=", Relation::NotEqual),
            ("<=", Relation::LessOrEqual),
            (">=", Relation::GreaterOrEqual),
            ("<", Relation::Less),
            (">", Relation::Greater),
        ];
        let Some((_, relation)) = relation.into_iter().find(|(sign, _)| self.eat_sign(sign)) else {
            let is_load = matches!(left, Arith::Load(..) | Arith::Op(..) | Arith::Len);
            if is_load {
                return Err(self.expected("a comparison, such as `= 1`"));
            }
            self.at = start;
            return Ok(None);
        };
        Ok(Some(Expr::Compare(relation, left, self.arith()?)))
    }

    fn may_be_arith(&self) -> bool {
        match self.peek() {
            Some(Token::Number(_) | Token::Sign("(" | "-")) => true,
            Some(Token::Word(word)) => {
                let next = self.lexemes.get(self.at + 1).map(|lexeme| &lexeme.token);
                *word == "len"
                    || *word == "length"
                    || names::constant(word).is_some()
                    || (protocol_of(word).is_some() && next == Some(&Token::Sign("[")))
            }
            _ => false,
        }
    }

    fn arith(&mut self) -> Parsed<Arith> {
        self.binary(0)
    }

    /// Parses operators of this level and of those that bind tighter, from the left.
    fn binary(&mut self, level: usize) -> Parsed<Arith> {
        const LEVELS: &[&[(&str, ArithOp)]] = &[
            &[("|", ArithOp::Or)],
            &[("^", ArithOp::Xor)],
            &[("&", ArithOp::And)],
            &[("<<", ArithOp::Shl), (">>", ArithOp::Shr)],
            &[("+", ArithOp::Add), ("-", ArithOp::Sub)],
            &[("*", ArithOp::Mul), ("/", ArithOp::Div), ("%", ArithOp::Rem)],
        ];
        let Some(operators) = LEVELS.get(level) else { return self.nested(Self::unary) };
        let mut left = self.binary(level + 1)?;
        loop {
            let found = operators.iter().find(|(sign, _)| self.eat_sign(sign));
            let Some(&(_, operator)) = found else { return Ok(left) };
            self.operations += 1;
            if self.operations > MAX_HEIGHT {
                return Err(
                    self.expected(format!("at most {MAX_HEIGHT} operations in a comparison"))
                );
            }
            let right = self.binary(level + 1)?;
            if matches!((operator, &right), (ArithOp::Div | ArithOp::Rem, Arith::Number(0))) {
                return Err(self.refused("a divisor that is not 0"));
            }
            if matches!((operator, &right), (ArithOp::Shl | ArithOp::Shr, Arith::Number(32..))) {
                return Err(self.refused("a shift by at most 31 bits"));
            }
            left = Arith::Op(operator, Box::new(left), Box::new(right));
        }
    }

    fn unary(&mut self) -> Parsed<Arith> {
        if self.eat_sign("-") {
            return Ok(Arith::Negated(Box::new(self.nested(Self::unary)?)));
        }
        if self.eat_sign("(") {
            let inner = self.arith()?;
            return match self.eat_sign(")") {
                true => Ok(inner),
                false => Err(self.expected("`)` or an operator")),
            };
        }
        if let Some(&Token::Number(number)) = self.peek() {
            self.at += 1;
            return Ok(Arith::Number(number));
        }
        let Some(word) = self.peek_word() else { return Err(self.expected("a number")) };
        self.at += 1;
        if let Some(number) = names::constant(word) {
            return Ok(Arith::Number(number));
        }
        if matches!(word, "len" | "length") {
            return Ok(Arith::Len);
        }
        match protocol_of(word) {
            Some(protocol) if self.eat_sign("[") => self.load(protocol),
            _ => Err(self.refused("a number, `len`, or a protocol with an offset in brackets")),
        }
    }

    fn load(&mut self, protocol: Protocol) -> Parsed<Arith> {
        if matches!(protocol, Protocol::Ah | Protocol::Esp) {
            return Err(self.refused("no offsets in encrypted or authenticated headers"));
        }
        let offset = self.arith()?;
        let mut width = Width::Byte;
        if self.eat_sign(":") {
            width = match self.number("1, 2 or 4 bytes")? {
                1 => Width::Byte,
                2 => Width::Half,
                4 => Width::Word,
                _ => return Err(self.refused("1, 2 or 4 bytes")),
            };
        }
        match self.eat_sign("]") {
            true => Ok(Arith::Load(protocol, Box::new(offset), width)),
            false => Err(self.expected("`:` and a width, or `]`")),
        }
    }
}
