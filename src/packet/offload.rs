//! Work that a sender left to the network card.

/// What is left to be done to a frame before it is one for the wire: its checksum, its splitting into
/// segments (`struct virtio_net_hdr`, linux/virtio_net.h; `PACKET_VNET_HDR`, packet(7)).
///
/// Hosts and virtual machines hand over frames of up to 64 KiB without checksum, and cards put received
/// segments together, so this is how TCP looks to a tap. Sent with its offload, such a frame goes on as
/// it came; sent without, it is too long or has a wrong checksum, and is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    flags: u8,
    kind: u8,
    header_len: u16,
    segment_size: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

/// What a frame is split into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segments {
    /// TCP segments over IPv4.
    TcpV4,
    /// TCP segments over IPv6.
    TcpV6,
    /// UDP datagrams over either (Linux 6.2).
    Udp,
}

const NEEDS_CHECKSUM: u8 = 1;
const TCP_V4_SEGMENTS: u8 = 1;
const TCP_V6_SEGMENTS: u8 = 4;
const UDP_SEGMENTS: u8 = 5;
/// In `kind`, beside the kind: segments with ECN.
const ECN: u8 = 0x80;
/// An 802.1Q tag.
const TAG: u16 = 4;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The outermost transport header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Transport {
    /// Where it begins.
    at: usize,
    /// Of IP.
    version: u8,
    protocol: u8,
}

/// Finds it behind Ethernet, up to two VLAN tags and IP; `None` for other frames, and for fragments.
fn transport(frame: &[u8]) -> Option<Transport> {
    let half = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let mut at = 12;
    let mut kind = half(at)?;
    for _ in 0..2 {
        if matches!(kind, 0x8100 | 0x88a8) {
            at += 4;
            kind = half(at)?;
        }
    }
    let at = at + 2;
    match kind {
        0x0800 if half(at + 6)? & 0x3fff == 0 => {
            let header = 4 * usize::from(frame.get(at)? & 0x0f);
            Some(Transport { at: at + header, version: 4, protocol: *frame.get(at + 9)? })
        }
        0x86dd => {
            let (mut next, mut at) = (*frame.get(at + 6)?, at + 40);
            // Hop-by-hop, routing and destination options say how long they are.
            for _ in 0..4 {
                if !matches!(next, 0 | 43 | 60) {
                    break;
                }
                let len = 8 * (1 + usize::from(*frame.get(at + 1)?));
                (next, at) = (*frame.get(at)?, at + len);
            }
            Some(Transport { at, version: 6, protocol: next })
        }
        _ => None,
    }
}

impl Offload {
    /// Bytes of the header.
    pub(crate) const LEN: usize = 10;
    /// Nothing is left to be done.
    pub const NONE: Self = Self {
        flags: 0,
        kind: 0,
        header_len: 0,
        segment_size: 0,
        checksum_start: 0,
        checksum_offset: 0,
    };

    /// The checksum from byte `start` of the frame to its end is to be filled in, `offset` bytes behind
    /// `start` (16 in TCP, 6 in UDP). What stands there already counts as a part of it, as the sum of the
    /// pseudo-header does.
    pub fn checksum(start: u16, offset: u16) -> Self {
        let (checksum_start, checksum_offset) = (start, offset);
        Self { flags: NEEDS_CHECKSUM, checksum_start, checksum_offset, ..Self::NONE }
    }

    /// The frame is also to be split: each segment gets the headers, and so many bytes of the payload.
    #[must_use]
    pub fn split(self, into: Segments, size: u16) -> Self {
        let kind = match into {
            Segments::TcpV4 => TCP_V4_SEGMENTS,
            Segments::TcpV6 => TCP_V6_SEGMENTS,
            Segments::Udp => UDP_SEGMENTS,
        };
        Self { kind, segment_size: size, ..self }
    }

    /// Whether the transport checksum is to be filled in.
    pub fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CHECKSUM != 0
    }

    /// Bytes of payload that each segment is to have; `None` where the frame is not to be split.
    pub fn segment_size(&self) -> Option<u16> {
        (self.kind & !ECN != 0).then_some(self.segment_size)
    }

    /// Where what is summed for the transport checksum begins, if that is to be filled in.
    pub(crate) fn checksum_at(&self) -> Option<usize> {
        self.needs_checksum().then_some(self.checksum_start.into())
    }

    /// Whether segments of TCP are to be made, or datagrams of UDP; `None` where the frame is not to be split, or in a way
    /// that is not known.
    pub(crate) fn splits_tcp(&self) -> Option<bool> {
        match self.kind & !ECN {
            TCP_V4_SEGMENTS | TCP_V6_SEGMENTS => Some(true),
            UDP_SEGMENTS => Some(false),
            _ => None,
        }
    }

    /// Bytes of the longest frame that `frame` becomes on the wire.
    pub fn wire_len(&self, frame: &[u8]) -> usize {
        match self.segment_size() {
            Some(size) => frame.len().min(self.headers(frame) + usize::from(size)),
            None => frame.len(),
        }
    }

    /// The same for a frame into which an 802.1Q tag was put.
    #[must_use]
    pub fn behind_tag(self) -> Self {
        if self.checksum_start == 0 {
            return self;
        }
        let checksum_start = self.checksum_start.saturating_add(TAG);
        Self { header_len: self.header_len.saturating_add(TAG), checksum_start, ..self }
    }

    /// Reads a header.
    #[inline]
    pub(crate) fn read(bytes: &[u8; Self::LEN]) -> Self {
        let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            kind: bytes[1],
            header_len: half(2),
            segment_size: half(4),
            checksum_start: half(6),
            checksum_offset: half(8),
        }
    }

    /// The header as the kernel takes it together with `frame`.
    ///
    /// What it gives as the length of the headers is how much it had in one piece, which may be all; as
    /// what it takes it is how much to copy, which should be the headers and no more.
    pub(crate) fn for_sending(&self, frame: &[u8]) -> [u8; Self::LEN] {
        let header_len = match self.segment_size() {
            Some(_) => self.headers(frame).min(frame.len()) as u16,
            None => 0,
        };
        // The verdict on a received checksum is nothing to send.
        Self { flags: self.flags & NEEDS_CHECKSUM, header_len, ..*self }.to_bytes()
    }

    /// What [`read`](Self::read) reads.
    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [self.flags, self.kind, 0, 0, 0, 0, 0, 0, 0, 0];
        let halves =
            [self.header_len, self.segment_size, self.checksum_start, self.checksum_offset];
        for (at, half) in halves.into_iter().enumerate() {
            bytes[2 + 2 * at..][..2].copy_from_slice(&half.to_ne_bytes());
        }
        bytes
    }

    /// Whether a frame that is to be split is what its offload says: the kernel says of a tunnel's frames
    /// what is true of the inner packet, and would keep at a frame that is not what it is said to be.
    pub(crate) fn fits(&self, frame: &[u8]) -> bool {
        if self.segment_size().is_none() {
            return true;
        }
        let expected = match self.kind & !ECN {
            TCP_V4_SEGMENTS => (4, TCP),
            TCP_V6_SEGMENTS => (6, TCP),
            UDP_SEGMENTS => {
                return transport(frame)
                    .is_some_and(|found| found.protocol == UDP && self.begins_at(found.at));
            }
            _ => return false,
        };
        transport(frame).is_some_and(|found| {
            (found.version, found.protocol) == expected && self.begins_at(found.at)
        })
    }

    fn begins_at(&self, at: usize) -> bool {
        !self.needs_checksum() || usize::from(self.checksum_start) == at
    }

    /// What is left to be done to a frame whose checksum is not filled in, where nobody said where it is.
    pub(crate) fn unfinished(frame: &[u8]) -> Self {
        match transport(frame) {
            Some(Transport { at, protocol: TCP, .. }) => Self::checksum(at as u16, 16),
            Some(Transport { at, protocol: UDP, .. }) => Self::checksum(at as u16, 6),
            _ => Self::NONE,
        }
    }

    /// Bytes before the payload of a frame that is to be split.
    fn headers(&self, frame: &[u8]) -> usize {
        let Some(Transport { at, protocol, .. }) = transport(frame) else { return 0 };
        match protocol {
            TCP => at + 4 * frame.get(at + 12).map_or(5, |byte| usize::from(byte >> 4)),
            _ => at + 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_is_read() {
        let asked = Offload::checksum(34, 16).split(Segments::TcpV4, 1448);
        assert_eq!(Offload { kind: 1, flags: 1, header_len: 0, ..TCP }, asked);
    }

    const TCP: Offload = Offload {
        flags: 3,
        kind: 1 | ECN,
        header_len: 4000,
        segment_size: 1448,
        checksum_start: 34,
        checksum_offset: 16,
    };

    #[test]
    fn a_header_is_read_as_it_was_written() {
        assert_eq!(Offload::read(&TCP.to_bytes()), TCP);
        assert!(TCP.needs_checksum());
        assert_eq!(TCP.segment_size(), Some(1448));
        assert_eq!((Offload::NONE.needs_checksum(), Offload::NONE.segment_size()), (false, None));
    }

    /// A frame of IPv4 with this protocol, its transport header at 34, of 32 bytes in TCP.
    fn frame_of(protocol: u8, len: usize) -> Vec<u8> {
        let mut frame = vec![0; len];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[23] = protocol;
        frame[34 + 12] = 8 << 4;
        frame
    }

    #[test]
    fn a_segment_has_the_headers_of_its_frame() {
        let frame = frame_of(super::TCP, 4000);
        assert_eq!(TCP.wire_len(&frame), 34 + 32 + 1448);
        assert_eq!(TCP.wire_len(&frame[..100]), 100);
        let sent = Offload::read(&TCP.for_sending(&frame));
        assert_eq!((sent.header_len, sent.flags), (66, NEEDS_CHECKSUM));
        let udp = Offload { kind: UDP_SEGMENTS, ..TCP };
        assert_eq!(udp.wire_len(&frame_of(UDP, 4000)), 34 + 8 + 1448);
        assert_eq!(Offload::NONE.wire_len(&frame), 4000);
    }

    #[test]
    fn an_offload_fits_only_the_frame_that_it_is_of() {
        let (tcp, udp) = (frame_of(super::TCP, 3000), frame_of(UDP, 3000));
        assert!(TCP.fits(&tcp) && !TCP.fits(&udp));
        let wide = Offload { kind: TCP_V6_SEGMENTS, ..TCP };
        assert!(!wide.fits(&tcp));
        let datagrams = Offload { kind: UDP_SEGMENTS, ..TCP };
        assert!(datagrams.fits(&udp) && !datagrams.fits(&tcp));
        let inner = Offload { checksum_start: 84, ..TCP };
        assert!(!inner.fits(&tcp), "of a tunnel's inner packet");
        assert!(!Offload { kind: 3, ..TCP }.fits(&udp), "whole datagrams to be fragmented");
        assert!(Offload::checksum(84, 16).fits(&udp), "a checksum may be anywhere");
        for len in 0..60 {
            let _ = (TCP.fits(&tcp[..len]), TCP.wire_len(&tcp[..len]));
        }
    }

    #[test]
    fn an_unfinished_checksum_is_found_behind_tags_and_options() {
        let plain = frame_of(super::TCP, 100);
        assert_eq!(Offload::unfinished(&plain), Offload::checksum(34, 16));
        let mut tagged = plain.clone();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(Offload::unfinished(&tagged), Offload::checksum(38, 16));
        let mut wide = vec![0; 100];
        wide[12..14].copy_from_slice(&[0x86, 0xdd]);
        wide[20] = 60; // destination options of 16 bytes, then UDP
        wide[54..56].copy_from_slice(&[UDP, 1]);
        assert_eq!(Offload::unfinished(&wide), Offload::checksum(70, 6));
        let mut fragment = plain;
        fragment[21] = 1;
        assert_eq!(Offload::unfinished(&fragment), Offload::NONE);
    }

    #[test]
    fn a_tag_moves_the_checksum_on() {
        let tagged = TCP.behind_tag();
        assert_eq!((tagged.checksum_start, tagged.header_len), (38, 4004));
        assert_eq!(Offload::NONE.behind_tag(), Offload::NONE);
    }
}
