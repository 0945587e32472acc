//! 802.11: frames whose header has a variable length, behind a radiotap header or alone.
//!
//! ```text
//!   radiotap header   frame control  duration  address 1  2  3  sequence  (4)  (QoS)  (pad)   802.2, SNAP, payload
//!   ◄─ its length ──► 0       1                4         10 16           24                    ◄─ if it is a data frame
//! ```
//!
//! The positions of the addresses, by type of frame, are those of libpcap (`gen_wlanhostop`, gencode.c).

use std::rc::Rc;

use super::{Layout, Lowered, beyond, number};
use crate::ast::{ArithOp, Side, Width, WlanAddress};
use crate::error::FilterError;
use crate::link_type::LinkType;
use crate::tree::{Compare, Condition, Value};

/// Bytes of the header of a data frame, without QoS.
const DATA_HEADER: u32 = 24;
/// Bits of the first byte of frame control.
const IS_CONTROL: u32 = 0x04;
const IS_DATA: u32 = 0x08;
const HAS_QOS: u32 = 0x80;
const TYPE: u32 = 0x0c;
const CONTROL: u32 = 0x04;
const CTS: u32 = 0xc4;
const ACK: u32 = 0xd4;
const TYPE_AND_SUBTYPE: u32 = 0xfc;
/// Bits of its second byte.
const TO_DS: u32 = 0x01;
const FROM_DS: u32 = 0x02;
const DIRECTION: u32 = 0x03;
/// Bits of radiotap's first word of what is present, as they are loaded: it is in little-endian order.
const HAS_TIME: u32 = 0x0100_0000;
const FLAGS_SHIFT: u32 = 25;
const MORE_WORDS_SHIFT: u32 = 7;
/// Radiotap's flag that the header of 802.11 is padded.
const PADDED_SHIFT: u32 = 5;

/// The header of 802.11.
#[derive(Debug, Clone)]
pub(super) struct Wireless {
    /// Where it begins; `None`: with the packet.
    start: Option<Rc<Value>>,
}

fn op(op: ArithOp, left: Rc<Value>, right: u32) -> Rc<Value> {
    Value::op(op, left, number(right))
}

fn byte(at: u32) -> Rc<Value> {
    Rc::new(Value::At(Width::Byte, at))
}

impl Wireless {
    /// The header of a packet of this link type, if it has one.
    pub(super) fn of(link: LinkType) -> Option<Self> {
        match link {
            LinkType::IEEE802_11 => Some(Self { start: None }),
            LinkType::IEEE802_11_RADIOTAP => {
                // The length of radiotap's header, in little-endian order.
                let high = op(ArithOp::Shl, byte(3), 8);
                Some(Self { start: Some(Value::op(ArithOp::Or, high, byte(2))) })
            }
            _ => None,
        }
    }

    /// Where the payload of a data frame begins.
    pub(super) fn payload(&self) -> Rc<Value> {
        // Two bytes more with QoS.
        let qos = op(ArithOp::And, self.at(Width::Byte, 0), HAS_QOS);
        let len = op(ArithOp::Add, op(ArithOp::Shr, qos, 6), DATA_HEADER);
        let Some(start) = &self.start else { return len };
        let end = Value::op(ArithOp::Add, len, Rc::clone(start));
        // To a multiple of four if radiotap's flags say so; they are behind a time, if there is one.
        let present = || Rc::new(Value::At(Width::Word, 4));
        let time = op(ArithOp::Shr, op(ArithOp::And, present(), HAS_TIME), 21);
        let is_padded = op(ArithOp::Shr, beyond(Width::Byte, &time, 8), PADDED_SHIFT);
        let has_flags = op(ArithOp::Shr, present(), FLAGS_SHIFT);
        let has_no_more = op(ArithOp::Xor, op(ArithOp::Shr, present(), MORE_WORDS_SHIFT), 1);
        let all =
            Value::op(ArithOp::And, Value::op(ArithOp::And, is_padded, has_flags), has_no_more);
        let missing = op(ArithOp::And, Rc::new(Value::Negated(Rc::clone(&end))), 3);
        let padding = Value::op(ArithOp::Mul, missing, op(ArithOp::And, all, 1));
        Value::op(ArithOp::Add, padding, end)
    }

    /// A load from the header.
    pub(super) fn at(&self, width: Width, offset: u32) -> Rc<Value> {
        match &self.start {
            None => Rc::new(Value::At(width, offset)),
            Some(start) => beyond(width, start, offset),
        }
    }

    /// The start of the header, for loads from a computed offset.
    pub(super) fn start(&self) -> Option<&Rc<Value>> {
        self.start.as_ref()
    }

    fn has(&self, offset: u32, bits: u32) -> Condition {
        Condition::test(self.at(Width::Byte, offset), Compare::Set, number(bits))
    }

    fn is(&self, offset: u32, value: u32, mask: u32) -> Condition {
        Condition::equal(op(ArithOp::And, self.at(Width::Byte, offset), mask), number(value))
    }

    pub(super) fn is_data(&self) -> Condition {
        self.has(0, IS_CONTROL).negated().and(self.has(0, IS_DATA))
    }

    fn mac_is(&self, at: u32, mac: [u8; 6]) -> Condition {
        let word = u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]);
        let head = u32::from(u16::from_be_bytes([mac[0], mac[1]]));
        let is = |width, offset, value| Condition::equal(self.at(width, offset), number(value));
        is(Width::Word, at + 2, word).and(is(Width::Half, at, head))
    }

    /// Tests what stands for a source, of management and data frames.
    fn source(&self, test: impl Fn(u32) -> Condition) -> Condition {
        let to = self.has(1, TO_DS);
        let relayed = to.clone().and(test(24)).or(to.negated().and(test(16)));
        let from = self.has(1, FROM_DS);
        let of_data = from.clone().and(relayed).or(from.negated().and(test(10)));
        self.addressed(of_data, test(10))
    }

    /// Tests what stands for a destination, of management and data frames.
    fn destination(&self, test: impl Fn(u32) -> Condition) -> Condition {
        let to = self.has(1, TO_DS);
        let of_data = to.clone().and(test(16)).or(to.negated().and(test(4)));
        self.addressed(of_data, test(4))
    }

    /// Control frames have neither.
    fn addressed(&self, of_data: Condition, of_management: Condition) -> Condition {
        let is_data = self.has(0, IS_DATA);
        let found = is_data.clone().and(of_data).or(is_data.negated().and(of_management));
        self.has(0, IS_CONTROL).negated().and(found)
    }

    pub(super) fn ether(&self, side: Side, mac: [u8; 6]) -> Condition {
        let source = || self.source(|at| self.mac_is(at, mac));
        let destination = || self.destination(|at| self.mac_is(at, mac));
        super::sides(side, source, destination)
    }

    pub(super) fn multicast(&self) -> Condition {
        self.destination(|at| self.has(at, 1))
    }

    fn address(&self, which: WlanAddress, mac: [u8; 6]) -> Condition {
        let has_second = || {
            let is_short = self.is(0, CTS, TYPE_AND_SUBTYPE).or(self.is(0, ACK, TYPE_AND_SUBTYPE));
            self.is(0, CONTROL, TYPE).negated().or(is_short.negated())
        };
        match which {
            WlanAddress::First => self.mac_is(4, mac),
            WlanAddress::Second => has_second().and(self.mac_is(10, mac)),
            WlanAddress::Third => self.is(0, CONTROL, TYPE).negated().and(self.mac_is(16, mac)),
            WlanAddress::Fourth => self.is(1, DIRECTION, DIRECTION).and(self.mac_is(24, mac)),
            WlanAddress::Receiver => self.has(0, IS_DATA).and(self.mac_is(4, mac)),
            WlanAddress::Transmitter => {
                self.has(0, IS_DATA).and(has_second()).and(self.mac_is(10, mac))
            }
        }
    }
}

impl Layout {
    /// The header of 802.11, which a condition needs.
    fn need_wireless(&self, what: &str) -> Result<&Wireless, FilterError> {
        self.wireless.as_ref().ok_or_else(|| {
            let why = format!("no `{what}` for link type {}, which is not 802.11", self.link.0);
            FilterError::whole(why)
        })
    }

    /// Tests the type of a frame, and the subtype if the mask has it.
    pub(super) fn wlan_type(&self, value: u8, mask: u8) -> Lowered {
        Ok(self.need_wireless("type")?.is(0, value.into(), mask.into()))
    }

    /// Tests which way a frame goes: to or from a distribution system.
    pub(super) fn wlan_direction(&self, direction: u8) -> Lowered {
        Ok(self.need_wireless("dir")?.is(1, direction.into(), DIRECTION))
    }

    pub(super) fn wlan_address(&self, which: WlanAddress, mac: [u8; 6]) -> Lowered {
        Ok(self.need_wireless(which.name())?.address(which, mac))
    }

    /// Fails if packets do not begin with a header about the radio.
    pub(super) fn check_radio(&self) -> Result<(), FilterError> {
        match self.outer {
            LinkType::IEEE802_11_RADIOTAP => Ok(()),
            link => Err(FilterError::whole(format!(
                "no `radio` for link type {}, whose packets have no radiotap header",
                link.0
            ))),
        }
    }
}
