//! Packets within packets.

use super::network::UDP;
use super::{Layers, Next, Walk};

/// How far [`Packet::layers`](crate::Packet::layers) and flows look into tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Tunnels {
    /// Not at all: the outermost IP header counts.
    #[default]
    Outer,
    /// Into one tunnel: what it carries counts, or the tunnel itself if that cannot be read.
    Inner,
    /// Into tunnels within tunnels, up to eight.
    Innermost,
}

impl Tunnels {
    pub(super) fn depth(self) -> usize {
        match self {
            Self::Outer => 0,
            Self::Inner => 1,
            Self::Innermost => 8,
        }
    }
}

/// The kind of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TunnelKind {
    /// IPv4 or IPv6 directly in IPv4 or IPv6 (RFC 2003, 4213, 2473).
    IpInIp,
    /// GRE, version 0 or 1 (RFC 2784, 2890, 2637).
    Gre,
    /// Mirrored frames in GRE, type I, II or III.
    Erspan,
    /// VXLAN (RFC 7348), also with a protocol field.
    Vxlan,
    /// Geneve (RFC 8926).
    Geneve,
    /// GTP-U, version 1 (3GPP TS 29.281).
    GtpU,
    /// Ethernet in IP (RFC 3378).
    EtherIp,
    /// MPLS in IP or in UDP (RFC 4023, 7510).
    Mpls,
    /// IPv6 in UDP (RFC 4380).
    Teredo,
}

/// A tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Tunnel {
    /// Its kind.
    pub kind: TunnelKind,
    /// Its number: the key of GRE, the session of ERSPAN, the network identifier of VXLAN and Geneve, the
    /// endpoint identifier of GTP-U; 0 if there is none.
    pub id: u32,
}

const VXLAN: u16 = 4789;
/// The port that Linux had before one was assigned.
const VXLAN_LINUX: u16 = 8472;
const VXLAN_GPE: u16 = 4790;
const GENEVE: u16 = 6081;
const GTP_U: u16 = 2152;
const MPLS_IN_UDP: u16 = 6635;
const TEREDO: u16 = 3544;
const TUNNEL_PORTS: [u16; 7] = [VXLAN, VXLAN_LINUX, VXLAN_GPE, GENEVE, GTP_U, MPLS_IN_UDP, TEREDO];

/// Whether a packet of the fast path, TCP or UDP, may carry another.
#[inline]
pub(super) fn may_carry(layers: &Layers) -> bool {
    layers.protocol == UDP
        && layers.ports().is_some_and(|(source, destination)| {
            TUNNEL_PORTS.contains(&destination) || TUNNEL_PORTS.contains(&source)
        })
}

impl Walk<'_> {
    /// Enters the tunnel above an IP header. Returns the first header within, or `None` if there is no tunnel.
    pub(super) fn enter(&mut self, outer: &Layers) -> Option<Next> {
        if outer.fragment.is_some() {
            return None;
        }
        self.until(outer.payload_end as usize);
        self.vlans = [0; 2];
        let (at, payload) = (outer.transport as usize, outer.payload as usize);
        let (kind, id, next) = match outer.protocol {
            4 | 41 => (TunnelKind::IpInIp, 0, Next::Ip(at)),
            47 => self.gre(at)?,
            97 => (
                TunnelKind::EtherIp,
                0,
                (self.half(at)? >> 12 == 3).then_some(Next::Ethernet(at + 2))?,
            ),
            137 => (TunnelKind::Mpls, 0, Next::Mpls(at)),
            UDP => {
                let (source, destination) = outer.ports()?;
                self.datagram(destination, payload).or_else(|| self.datagram(source, payload))?
            }
            _ => return None,
        };
        self.tunnel = Some(Tunnel { kind, id });
        Some(next)
    }

    /// Enters a tunnel in UDP.
    fn datagram(&self, port: u16, at: usize) -> Option<(TunnelKind, u32, Next)> {
        Some(match port {
            VXLAN | VXLAN_LINUX => {
                let is_vxlan = self.byte(at)? & 8 != 0;
                let id = self.word(at + 4)? >> 8;
                (TunnelKind::Vxlan, id, is_vxlan.then_some(Next::Ethernet(at + 8))?)
            }
            VXLAN_GPE => {
                let next = match self.byte(at + 3)? {
                    1 | 2 => Next::Ip(at + 8),
                    3 => Next::Ethernet(at + 8),
                    _ => return None,
                };
                (TunnelKind::Vxlan, self.word(at + 4)? >> 8, next)
            }
            GENEVE => {
                let first = self.byte(at)?;
                let len = 8 + usize::from(first & 0x3f) * 4;
                let next = Next::EtherType(self.half(at + 2)?, at + len);
                (TunnelKind::Geneve, self.word(at + 4)? >> 8, (first >> 6 == 0).then_some(next)?)
            }
            GTP_U => self.gtp_u(at)?,
            MPLS_IN_UDP => (TunnelKind::Mpls, 0, Next::Mpls(at)),
            TEREDO => (TunnelKind::Teredo, 0, self.teredo(at)?),
            _ => return None,
        })
    }

    /// Reads the header of GRE: version 0, or 1 as PPTP has it.
    fn gre(&self, at: usize) -> Option<(TunnelKind, u32, Next)> {
        let (flags, kind) = (self.half(at)?, self.half(at + 2)?);
        let [has_checksum, has_routing, has_key, has_sequence] =
            [0x8000, 0x4000, 0x2000, 0x1000].map(|bit| flags & bit != 0);
        let version = flags & 7;
        let mut inner = at + 4;
        if version == 0 && (has_checksum || has_routing) {
            inner += 4;
        }
        let mut id = 0;
        if has_key {
            id = self.word(inner)?;
            inner += 4;
        }
        if has_sequence {
            inner += 4;
        }
        match version {
            // The upper half of PPTP's key is a length, the lower the call.
            1 => {
                inner += if flags & 0x80 != 0 { 4 } else { 0 };
                return Some((TunnelKind::Gre, id & 0xffff, Next::EtherType(kind, inner)));
            }
            0 => {}
            _ => return None,
        }
        if has_routing {
            // Source routes, the last of which is empty (RFC 1701).
            for _ in 0..8 {
                let len = usize::from(self.byte(inner + 3)?);
                inner += 4 + len;
                if len == 0 {
                    break;
                }
            }
        }
        Some(match kind {
            // Type I has no header of its own, and no sequence number (draft-foschiano-erspan).
            0x88be if !has_sequence => (TunnelKind::Erspan, 0, Next::Ethernet(inner)),
            0x88be => (TunnelKind::Erspan, self.word(inner)? & 0x3ff, Next::Ethernet(inner + 8)),
            0x22eb => {
                let session = self.word(inner)? & 0x3ff;
                let has_more = self.half(inner + 10)? & 1 != 0;
                let len = if has_more { 20 } else { 12 };
                (TunnelKind::Erspan, session, Next::Ethernet(inner + len))
            }
            kind => (TunnelKind::Gre, id, Next::EtherType(kind, inner)),
        })
    }

    /// Reads the header of a GTP-U message that carries a packet, with its extension headers.
    fn gtp_u(&self, at: usize) -> Option<(TunnelKind, u32, Next)> {
        let (flags, message) = (self.byte(at)?, self.byte(at + 1)?);
        if flags >> 5 != 1 || flags & 0x10 == 0 || message != 255 {
            return None;
        }
        let id = self.word(at + 4)?;
        let mut inner = at + 8;
        if flags & 7 != 0 {
            let mut next = self.byte(inner + 3)?;
            inner += 4;
            for _ in 0..8 {
                if flags & 4 == 0 || next == 0 {
                    break;
                }
                let len = usize::from(self.byte(inner)?) * 4;
                if len == 0 {
                    return None;
                }
                next = self.byte(inner + len - 1)?;
                inner += len;
            }
        }
        Some((TunnelKind::GtpU, id, Next::Ip(inner)))
    }

    /// Skips the authentication and the origin that may precede the packet (RFC 4380, 5.1.1).
    fn teredo(&self, mut at: usize) -> Option<Next> {
        if self.half(at)? == 1 {
            let (client, value) = (self.byte(at + 2)?, self.byte(at + 3)?);
            at += 13 + usize::from(client) + usize::from(value);
        }
        if self.half(at)? == 0 {
            at += 8;
        }
        (self.byte(at)? >> 4 == 6).then_some(Next::Ip(at))
    }
}
