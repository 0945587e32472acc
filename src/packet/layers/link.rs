//! Headers below IP.

use super::{Next, Walk};
use crate::packet::LinkType;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;
/// Numbers that were in use for outer tags before 802.1ad.
const OLD_SERVICE_VLANS: [u16; 3] = [0x9100, 0x9200, 0x9300];
const MPLS: u16 = 0x8847;
const MPLS_MULTICAST: u16 = 0x8848;
const PPPOE_SESSION: u16 = 0x8864;
const PPP: u16 = 0x880b;
const BACKBONE: u16 = 0x88e7;
/// Ethernet in GRE (`ETH_P_TEB`, linux/if_ether.h).
const BRIDGED: u16 = 0x6558;
/// Values up to this are lengths, not types (IEEE 802.3).
const LONGEST_LENGTH: u16 = 1500;

impl Walk<'_> {
    /// Returns the header behind a link header, or `None` for a link without IP.
    pub(super) fn link(&self, link: LinkType) -> Option<Next> {
        Some(match link {
            LinkType::ETHERNET => Next::Ethernet(0),
            LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD => Next::Ip(0),
            LinkType::IPV4 | LinkType::IPV6 => Next::Ip(0),
            // The family's number differs between systems; the version in the IP header does not.
            LinkType::NULL | LinkType::LOOP => Next::Ip(4),
            LinkType::LINUX_SLL => Next::EtherType(self.half(14)?, 16),
            LinkType::LINUX_SLL2 => Next::EtherType(self.half(0)?, 20),
            LinkType::PPP | LinkType::PPP_HDLC => Next::Ppp(0),
            LinkType::PPP_ETHER => Next::EtherType(PPPOE_SESSION, 0),
            // Cisco's header, or PPP in the framing of HDLC (RFC 1662).
            LinkType::C_HDLC if self.half(0)? == 0xff03 => Next::Ppp(0),
            LinkType::C_HDLC => Next::EtherType(self.half(2)?, 4),
            _ => return None,
        })
    }

    pub(super) fn ether_type(&mut self, kind: u16, at: usize) -> Option<Next> {
        match kind {
            IPV4 | IPV6 => Some(Next::Ip(at)),
            VLAN | SERVICE_VLAN => self.vlan(at),
            kind if OLD_SERVICE_VLANS.contains(&kind) => self.vlan(at),
            MPLS | MPLS_MULTICAST => Some(Next::Mpls(at)),
            PPPOE_SESSION => {
                // Version, type and code, the session, and the length from here on (RFC 2516).
                let (code, len) = (self.half(at)?, self.half(at + 4)?);
                self.until(at + 6 + usize::from(len));
                (code == 0x1100).then_some(Next::Ppp(at + 6))
            }
            PPP => Some(Next::Ppp(at)),
            // The instance tag, then a whole frame (802.1ah).
            BACKBONE => Some(Next::Ethernet(at + 4)),
            BRIDGED => Some(Next::Ethernet(at)),
            0..=LONGEST_LENGTH => self.llc(kind, at),
            _ => None,
        }
    }

    fn vlan(&mut self, at: usize) -> Option<Next> {
        self.tag(self.half(at)?);
        Some(Next::EtherType(self.half(at + 2)?, at + 4))
    }

    /// Reads the header of 802.2, with or without SNAP (RFC 1042).
    fn llc(&mut self, len: u16, at: usize) -> Option<Next> {
        self.until(at + usize::from(len));
        match (self.half(at)?, self.byte(at + 2)?) {
            (0xaaaa, 3) => {
                // The organization codes of RFC 1042 and of bridges (802.1H).
                let organization = self.word(at + 2)? & 0xff_ffff;
                let is_ethernet = organization == 0 || organization == 0xf8;
                is_ethernet.then_some(Next::EtherType(self.half(at + 6)?, at + 8))
            }
            (0x0606, 3) => Some(Next::Ip(at + 3)),
            _ => None,
        }
    }

    /// Reads a label of MPLS. Behind the last is IP, or an Ethernet frame (RFC 4448).
    pub(super) fn label(&mut self, at: usize) -> Option<Next> {
        let is_last = self.word(at)? & 0x100 != 0;
        if !is_last {
            return Some(Next::Mpls(at + 4));
        }
        match self.byte(at + 4)? >> 4 {
            4 | 6 => Some(Next::Ip(at + 4)),
            // The control word of a pseudowire.
            0 if self.word(at + 4)? >> 16 == 0 => Some(Next::Ethernet(at + 8)),
            _ => Some(Next::Ethernet(at + 4)),
        }
    }

    /// Reads the header of PPP, of which address, control and half of the protocol may be left out (RFC 1661,
    /// 6.5 and 6.6).
    pub(super) fn ppp(&mut self, mut at: usize) -> Option<Next> {
        if self.half(at)? == 0xff03 {
            at += 2;
        }
        let (protocol, at) = match self.byte(at)? {
            short if short & 1 == 1 => (u16::from(short), at + 1),
            _ => (self.half(at)?, at + 2),
        };
        match protocol {
            0x0021 | 0x0057 => Some(Next::Ip(at)),
            0x0281 | 0x0283 => Some(Next::Mpls(at)),
            _ => None,
        }
    }
}
