//! IP, and the transport header above it.

use super::{Family, Fragment, Layers, Selector, TcpHeader, Walk};

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const DCCP: u8 = 33;
const ESP: u8 = 50;
const AH: u8 = 51;
const ICMP_V6: u8 = 58;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// Maximum number of extension headers of IPv6.
const MOST_EXTENSIONS: usize = 256;

impl Walk<'_> {
    pub(super) fn ip(&mut self, at: usize) -> Option<Layers> {
        match self.byte(at)? >> 4 {
            4 => self.ipv4(at),
            6 => self.ipv6(at),
            _ => None,
        }
    }

    fn ipv4(&mut self, at: usize) -> Option<Layers> {
        let header: &[u8; 20] = self.bytes.get(at..)?.first_chunk()?;
        let header_len = usize::from(header[0] & 15) * 4;
        // Length 0: longer than the field can express, or segmentation was left to the card.
        let end = match usize::from(u16::from_be_bytes([header[2], header[3]])) {
            0 => self.end,
            len if len < header_len => return None,
            len => self.end.min(at + len),
        };
        if header_len < 20 || at + header_len > end {
            return None;
        }
        let field = u16::from_be_bytes([header[6], header[7]]);
        let fragment = (field & 0x3fff != 0).then(|| Fragment {
            id: u16::from_be_bytes([header[4], header[5]]).into(),
            at: u32::from(field & 0x1fff) * 8,
            more: field & 0x2000 != 0,
        });
        let wide = |at: usize| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&header[at..at + 4]);
            bytes
        };
        self.until(end);
        let mut layers = self.layers(Family::V4, wide(12), wide(16), at, end);
        layers.fragment = fragment;
        self.above(layers, header[9], at + header_len)
    }

    fn ipv6(&mut self, at: usize) -> Option<Layers> {
        let header: &[u8; 40] = self.bytes.get(at..)?.first_chunk()?;
        let end = match usize::from(u16::from_be_bytes([header[4], header[5]])) {
            0 => self.end,
            len => self.end.min(at + 40 + len),
        };
        let address = |at: usize| std::array::from_fn(|byte| header[at + byte]);
        self.until(end);
        let mut layers = self.layers(Family::V6, address(8), address(24), at, end);
        let (mut next, mut at) = (header[6], at + 40);
        for _ in 0..MOST_EXTENSIONS {
            // Hop by hop, routing, destination options, mobility, host identity, shim.
            let len = match next {
                0 | 43 | 60 | 135 | 139 | 140 => 8 + usize::from(self.byte(at + 1)?) * 8,
                44 => {
                    let (field, id) = (self.half(at + 2)?, self.word(at + 4)?);
                    let place = u32::from(field & !7);
                    let more = field & 1 != 0;
                    layers.fragment =
                        (place > 0 || more).then_some(Fragment { id, at: place, more });
                    if place > 0 {
                        // What follows is a part of something.
                        return self.part(layers, self.byte(at)?, at + 8);
                    }
                    8
                }
                _ => break,
            };
            next = self.byte(at)?;
            at += len;
            if layers.fragment.is_some() {
                return self.above(layers, next, at);
            }
        }
        self.above(layers, next, at)
    }

    fn layers(
        &self,
        family: Family,
        source: [u8; 16],
        destination: [u8; 16],
        at: usize,
        end: usize,
    ) -> Layers {
        Layers {
            source,
            destination,
            family,
            protocol: 0,
            selector: Selector::None,
            vlans: self.vlans,
            tunnel: self.tunnel,
            tcp: None,
            fragment: None,
            network: at as u32,
            network_end: end as u32,
            transport: at as u32,
            payload: at as u32,
            payload_end: end as u32,
        }
    }

    /// A later fragment, which has no transport header.
    fn part(&self, mut layers: Layers, protocol: u8, at: usize) -> Option<Layers> {
        layers.protocol = protocol;
        layers.transport = at.min(layers.network_end as usize) as u32;
        layers.payload = layers.transport;
        Some(layers)
    }

    /// Reads the header above IP.
    fn above(&mut self, mut layers: Layers, mut protocol: u8, mut at: usize) -> Option<Layers> {
        if layers.fragment.is_some_and(|fragment| fragment.at > 0) {
            return self.part(layers, protocol, at);
        }
        let mut spi = None;
        // AH is before a transport header that can be read like any other (RFC 4302).
        while protocol == AH && layers.fragment.is_none() {
            let Some(index) = self.word(at + 4) else { break };
            spi.get_or_insert(index);
            let (next, len) = (self.byte(at)?, self.byte(at + 1)?);
            let inner = at + 8 + usize::from(len) * 4;
            if !matches!(next, TCP | UDP | SCTP | DCCP | UDP_LITE | AH | 4 | 41 | 47 | 60) {
                break;
            }
            (protocol, at) = (next, inner);
        }
        layers.protocol = protocol;
        layers.transport = at.min(layers.network_end as usize) as u32;
        layers.payload = layers.transport;
        let ports = || Some(Selector::Ports(self.half(at)?, self.half(at + 2)?));
        let (selector, header_len) = match protocol {
            TCP => {
                layers.tcp = self.tcp(at);
                (ports(), self.byte(at + 12).map_or(20, |byte| usize::from(byte >> 4) * 4).max(20))
            }
            UDP => {
                let end = match self.half(at + 4).map_or(0, usize::from) {
                    0..8 => layers.payload_end,
                    len => layers.payload_end.min((at + len) as u32),
                };
                layers.payload_end = end;
                (ports(), 8)
            }
            UDP_LITE => (ports(), 8),
            SCTP => (ports(), 12),
            DCCP => (ports(), self.byte(at + 4).map_or(12, |byte| usize::from(byte) * 4).max(12)),
            ICMP | ICMP_V6 => (self.icmp(protocol, at), 0),
            ESP => (self.word(at).map(Selector::Spi), 8),
            AH => (spi.map(Selector::Spi), 12),
            _ => (Some(Selector::None), 0),
        };
        // A packet cut before its ports has none; one too short for them is malformed.
        layers.selector = selector?;
        layers.payload = (at + header_len).min(layers.payload_end as usize) as u32;
        Some(layers)
    }

    fn tcp(&self, at: usize) -> Option<TcpHeader> {
        let header: &[u8; 20] = self.bytes.get(at..)?.first_chunk()?;
        let word = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        Some(TcpHeader {
            seq: word(4),
            ack: word(8),
            window: u16::from_be_bytes([header[14], header[15]]),
            flags: header[13],
        })
    }

    fn icmp(&self, protocol: u8, at: usize) -> Option<Selector> {
        let kind = self.byte(at)?;
        let (code, id) = (self.byte(at + 1).unwrap_or(0), self.half(at + 4).unwrap_or(0));
        let id = if is_query(protocol, kind) { id } else { 0 };
        Some(Selector::Icmp { kind, code, id })
    }
}

/// Returns whether ICMP messages of this type have an identifier: echo, timestamp, information, address mask.
pub(super) fn is_query(protocol: u8, kind: u8) -> bool {
    match protocol {
        ICMP => matches!(kind, 0 | 8 | 13..=18),
        _ => matches!(kind, 128 | 129),
    }
}
