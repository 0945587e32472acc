//! Frames of IEEE 802.2: protocols that are told apart by service access points (SAPs) instead of Ethernet types.

use std::rc::Rc;

use super::{Layout, Lowered, PROTOCOL, Types, number};
use crate::FilterTarget;
use crate::ast::{ArithOp, LlcKind, Width};
use crate::error::FilterError;
use crate::link_type::LinkType;
use crate::tree::{Compare, Condition, Value};

/// The largest length of a frame; larger values of that field are types.
const LONGEST: u32 = 1500;
/// Bytes of a header of 802.2, and of one with SNAP.
const LLC_LEN: u32 = 3;
const SNAP_LEN: u32 = 8;
const ISO: u16 = 0xfe;
const IPX: u16 = 0xe0;
const IPX_TYPE: u32 = 0x8137;
const APPLE_TALK: u16 = 0x809b;
const APPLE_ARP: u16 = 0x80f3;
/// SAPs whose source and destination are both compared: IP, NetBEUI, ISO.
const IN_PAIRS: [u16; 3] = [0x06, 0xf0, ISO];
/// How Linux tells frames of 802.2, and those of 802.3 without it (linux/if_ether.h).
const LINUX_802_2: u32 = 4;
const LINUX_802_3: u32 = 1;

impl Layout {
    /// Tests the protocol of the link layer's payload: a type, or up to 1500 a SAP.
    pub(super) fn link_protocol(&self, protocol: u16) -> Lowered {
        if self.wireless.is_some() && self.labels == 0 && self.types == Types::Ether {
            return self.in_802_11(protocol);
        }
        match (self.types, protocol) {
            (Types::Ppp, _) if self.labels == 0 => {
                let protocol = match protocol {
                    ISO => 0x23,
                    0x6003 => 0x27,
                    APPLE_TALK => 0x29,
                    IPX => 0x2b,
                    0x42 => 0x31,
                    other => return self.link_type(other),
                };
                Ok(self.is(Width::Half, self.type_at, protocol))
            }
            (Types::Ether, ISO) if self.link == LinkType::C_HDLC => self.link_type(0xfefe),
            (Types::Ether | Types::Beside, 0..=1500 | APPLE_TALK | APPLE_ARP)
                if self.labels == 0 && self.told.is_none() && self.link != LinkType::C_HDLC =>
            {
                Ok(self.in_802_2(protocol))
            }
            // A type that a tunnel tells has no values that are lengths.
            (_, IPX) if self.labels == 0 && self.told.is_some() => Ok(self.type_is(IPX_TYPE)),
            (_, 0..=1500) if self.labels == 0 && self.told.is_some() => Ok(Condition::False),
            _ => self.link_type(protocol),
        }
    }

    /// Whether the type is in the header of cooked captures. Behind a tag, and in a tunnel, it is as on Ethernet.
    fn is_cooked(&self) -> bool {
        match (self.types, self.link) {
            (Types::Beside, _) => true,
            (Types::Ether, link @ (LinkType::LINUX_SLL | LinkType::LINUX_SLL2)) => {
                self.type_at == Self::of(link, FilterTarget::Offline).type_at
            }
            _ => false,
        }
    }

    /// Whether the frame is of 802.2, and the offset of its header.
    fn of_802_2(&self) -> (Condition, u32) {
        if self.is_cooked() {
            return (self.type_is(LINUX_802_2), self.payload);
        }
        let field = self.at(Width::Half, self.type_at);
        let is_type = Condition::test(field, Compare::Greater, number(LONGEST));
        (is_type.negated(), self.payload)
    }

    /// Tests the link layer's type field, or what stands for it.
    pub(super) fn type_is(&self, sought: u32) -> Condition {
        match (&self.told, self.types) {
            (Some(told), _) => Condition::equal(Rc::clone(told), number(sought)),
            (None, Types::Beside) => self.is(Width::Half, PROTOCOL, sought),
            (None, _) => self.is(Width::Half, self.type_at, sought),
        }
    }

    /// The payload of 802.11 begins with a header of 802.2, and of SNAP where types have more than a byte.
    fn in_802_11(&self, protocol: u16) -> Lowered {
        const NETBEUI: u16 = 0xf0;
        let (at, sap) = (self.payload - SNAP_LEN, u32::from(protocol));
        let found = match protocol {
            0x06 | NETBEUI | ISO => self.is(Width::Half, at, sap << 8 | sap),
            0..=1500 => self.is(Width::Byte, at, sap),
            APPLE_TALK => self.snap(at, 0x08_0007, sap),
            other => return self.link_type(other),
        };
        Ok(self.has_payload().and(found))
    }

    fn in_802_2(&self, protocol: u16) -> Condition {
        let (is_llc, at) = self.of_802_2();
        let sap = u32::from(protocol);
        match protocol {
            APPLE_TALK => self.type_is(sap).or(is_llc.and(self.snap(at, 0x08_0007, sap))),
            APPLE_ARP => self.type_is(sap).or(is_llc.and(self.snap(at, 0, sap))),
            IPX => {
                let raw = match self.is_cooked() {
                    false => is_llc.clone().and(self.is(Width::Half, at, 0xffff)),
                    true => self.type_is(LINUX_802_3),
                };
                let by_sap = is_llc.clone().and(self.is(Width::Byte, at, sap));
                let by_snap = is_llc.and(self.snap(at, 0, IPX_TYPE));
                Condition::Any(vec![self.type_is(IPX_TYPE), by_sap, raw, by_snap])
            }
            _ if IN_PAIRS.contains(&protocol) => {
                is_llc.and(self.is(Width::Half, at, sap << 8 | sap))
            }
            _ => is_llc.and(self.is(Width::Byte, at, sap)),
        }
    }

    /// Tests for a header of SNAP (RFC 1042) with an organization's number and a type.
    fn snap(&self, at: u32, organization: u32, kind: u32) -> Condition {
        let first = self.is(Width::Word, at, 0xaaaa_0300 | organization >> 16);
        first.and(self.is(Width::Word, at + 4, (organization & 0xffff) << 16 | kind))
    }

    /// Tests the first byte of a packet of ISO's protocols, which says which one it is.
    pub(super) fn iso(&self, protocol: u8) -> Lowered {
        let fudge = u32::from(self.link == LinkType::C_HDLC);
        let at = self.network().wrapping_add(self.llc_len()) + fudge;
        Ok(self.link_protocol(ISO)?.and(self.is(Width::Byte, at, protocol.into())))
    }

    /// Tests the type of an IS-IS packet.
    pub(super) fn isis_pdu(&self, kind: u8) -> Lowered {
        const ISIS: u8 = 0x83;
        let at = self.network().wrapping_add(self.llc_len()) + 4;
        Ok(self.iso(ISIS)?.and(self.is(Width::Byte, at, kind.into())))
    }

    /// Bytes from the network layer, or where SNAP has it, to that behind a header of 802.2 alone.
    fn llc_len(&self) -> u32 {
        match self.types {
            Types::Ether if self.wireless.is_some() => LLC_LEN.wrapping_sub(SNAP_LEN),
            Types::Ether | Types::Beside if self.link != LinkType::C_HDLC => LLC_LEN,
            _ => 0,
        }
    }

    pub(super) fn llc(&self, kind: Option<LlcKind>) -> Lowered {
        if self.types == Types::Ppp && self.link != LinkType::PPP {
            return Err(FilterError::whole("no `llc` behind `pppoes`"));
        }
        if !matches!(self.types, Types::Ether | Types::Beside) || self.link == LinkType::C_HDLC {
            let why = format!("no `llc` for link type {}", self.link.0);
            return Err(FilterError::whole(why));
        }
        if self.told.is_some() {
            return Ok(Condition::False);
        }
        let (is_llc, at) = match self.wireless {
            Some(_) => (self.has_payload(), self.payload - SNAP_LEN),
            None => self.of_802_2(),
        };
        let is_raw = self.is(Width::Half, at, 0xffff);
        let is_llc = match self.is_cooked() || self.wireless.is_some() {
            false => is_llc.and(is_raw.negated()), // IPX without 802.2
            true => is_llc,
        };
        let control = |mask, sought: u32| {
            let control = Value::op(ArithOp::And, self.at(Width::Byte, at + 2), number(mask));
            Condition::equal(control, number(sought))
        };
        Ok(match kind {
            None => is_llc,
            Some(LlcKind::Information) => is_llc.and(control(0x01, 0)),
            Some(LlcKind::Supervisory) => is_llc.and(control(0x03, 1)),
            Some(LlcKind::Unnumbered) => is_llc.and(control(0x03, 3)),
            Some(LlcKind::SupervisoryOf(kind)) => is_llc.and(control(0x0f, kind.into())),
            Some(LlcKind::UnnumberedOf(kind)) => is_llc.and(control(0xef, kind.into())),
        })
    }
}
