//! Types, directions and addresses of 802.11 frames.

use super::{Parsed, Parser};
use crate::ast::{Primitive, WlanAddress};
use crate::lex::Token;
use crate::names;

/// The bits of a type, and those of a type and a subtype.
const TYPE: u8 = 0x0c;
const SUBTYPE: u8 = 0xf0;

impl Parser<'_> {
    /// Parses the name of an address that only 802.11 has, if one follows.
    pub(super) fn wlan_address(&mut self) -> Option<WlanAddress> {
        let which = WlanAddress::by_name(self.peek_word()?)?;
        self.at += 1;
        self.eat_word("host");
        Some(which)
    }

    /// Parses `type`, `subtype` and `dir`, if one of these follows.
    pub(super) fn wireless(&mut self) -> Parsed<Option<Primitive>> {
        let Some(word) = self.peek_word() else { return Ok(None) };
        self.at += 1;
        Ok(Some(match word {
            "type" => self.wlan_type()?,
            "subtype" => {
                let known = self.peek_word().and_then(names::wlan_subtype);
                let Some(value) = known else {
                    return Err(self.expected("the name of a subtype, such as `beacon`"));
                };
                self.at += 1;
                Primitive::WlanType { value, mask: TYPE | SUBTYPE }
            }
            "dir" => Primitive::WlanDirection(self.wlan_direction()?),
            _ => {
                self.at -= 1;
                return Ok(None);
            }
        }))
    }

    fn wlan_type(&mut self) -> Parsed<Primitive> {
        const WHAT: &str = "a type: `mgt`, `ctl`, `data`, or its bits";
        let kind = match self.peek().cloned() {
            Some(Token::Number(number)) => {
                u8::try_from(number).ok().filter(|bits| bits & !TYPE == 0)
            }
            Some(Token::Word(name)) => names::wlan_type(name),
            _ => None,
        };
        let Some(kind) = kind else { return Err(self.expected(WHAT)) };
        self.at += 1;
        if !self.eat_word("subtype") {
            return Ok(Primitive::WlanType { value: kind, mask: TYPE });
        }
        let subtype = match self.peek().cloned() {
            Some(Token::Number(number)) => {
                u8::try_from(number).ok().filter(|bits| bits & !SUBTYPE == 0)
            }
            Some(Token::Word(name)) => {
                // A name that several types have means that of this one.
                names::wlan_subtype_of(kind, name).map(|value| value & SUBTYPE)
            }
            _ => None,
        };
        let Some(subtype) = subtype else {
            return Err(self.expected("a subtype of that type, by name or by its bits"));
        };
        self.at += 1;
        Ok(Primitive::WlanType { value: kind | subtype, mask: TYPE | SUBTYPE })
    }

    fn wlan_direction(&mut self) -> Parsed<u8> {
        let direction = match self.peek().cloned() {
            Some(Token::Number(number)) => u8::try_from(number).ok(),
            Some(Token::Word(name)) => match name {
                "nods" => Some(0),
                "tods" => Some(1),
                "fromds" => Some(2),
                "dstods" => Some(3),
                _ => None,
            },
            _ => None,
        };
        let Some(direction) = direction.filter(|direction| *direction <= 3) else {
            return Err(self.expected("a direction: `nods`, `tods`, `fromds`, `dstods`, or 0 to 3"));
        };
        self.at += 1;
        Ok(direction)
    }
}
