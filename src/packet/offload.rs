//! Work that a sender left to the network card.

/// The work that is left before a frame is ready for the wire: filling in its checksum and splitting it into
/// segments (`struct virtio_net_hdr`, linux/virtio_net.h; `PACKET_VNET_HDR`, packet(7)).
///
/// Hosts and virtual machines hand over frames of up to 64 KiB without a checksum, and cards merge received
/// segments, so this is how a tap sees TCP. If such a frame is sent with its offload, it goes on as it came. If
/// it is sent without, it is too long or has a wrong checksum, and is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    flags: u8,
    kind: u8,
    header_len: u16,
    segment_size: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

/// The kind of segments that a frame is split into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segments {
    /// TCP segments over IPv4.
    TcpV4,
    /// TCP segments over IPv6.
    TcpV6,
    /// UDP datagrams over either IP version (Linux 6.2).
    Udp,
}

const NEEDS_CHECKSUM: u8 = 1;
const TCP_V4_SEGMENTS: u8 = 1;
const TCP_V6_SEGMENTS: u8 = 4;
const UDP_SEGMENTS: u8 = 5;
/// Flag in `kind`: the segments use ECN.
const ECN: u8 = 0x80;
/// Bytes of an 802.1Q tag.
const TAG: u16 = 4;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The outermost transport header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Transport {
    /// Offset of the header.
    at: usize,
    /// IP version.
    version: u8,
    protocol: u8,
}

/// Finds the header behind Ethernet, up to two VLAN tags and IP; `None` for other frames and for fragments.
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
            // Hop-by-hop, routing and destination options carry their own length.
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
    /// Length of the header in bytes.
    pub(crate) const LEN: usize = 10;
    /// No work is left.
    pub const NONE: Self = Self {
        flags: 0,
        kind: 0,
        header_len: 0,
        segment_size: 0,
        checksum_start: 0,
        checksum_offset: 0,
    };

    /// Asks for a checksum over the frame from byte `start` to its end, to be stored `offset` bytes behind
    /// `start` (16 in TCP, 6 in UDP). The value already stored there is included in the sum; it should be the
    /// sum of the pseudo-header.
    pub fn checksum(start: u16, offset: u16) -> Self {
        let (checksum_start, checksum_offset) = (start, offset);
        Self { flags: NEEDS_CHECKSUM, checksum_start, checksum_offset, ..Self::NONE }
    }

    /// Also asks for the frame to be split. Each segment gets the headers and `size` bytes of the payload.
    #[must_use]
    pub fn split(self, into: Segments, size: u16) -> Self {
        let kind = match into {
            Segments::TcpV4 => TCP_V4_SEGMENTS,
            Segments::TcpV6 => TCP_V6_SEGMENTS,
            Segments::Udp => UDP_SEGMENTS,
        };
        Self { kind, segment_size: size, ..self }
    }

    /// Returns whether the transport checksum still has to be filled in.
    pub fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CHECKSUM != 0
    }

    /// Returns the bytes of payload per segment; `None` if the frame is not to be split.
    pub fn segment_size(&self) -> Option<u16> {
        (self.kind & !ECN != 0).then_some(self.segment_size)
    }

    /// Offset of the first byte covered by the transport checksum, if it has to be filled in.
    pub(crate) fn checksum_at(&self) -> Option<usize> {
        self.needs_checksum().then_some(self.checksum_start.into())
    }

    /// Whether the frame is split into TCP segments (true) or UDP datagrams (false); `None` if it is not to be
    /// split, or in an unknown way.
    pub(crate) fn splits_tcp(&self) -> Option<bool> {
        match self.kind & !ECN {
            TCP_V4_SEGMENTS | TCP_V6_SEGMENTS => Some(true),
            UDP_SEGMENTS => Some(false),
            _ => None,
        }
    }

    /// Returns the length of the longest frame on the wire that `frame` is turned into.
    pub fn wire_len(&self, frame: &[u8]) -> usize {
        match self.segment_size() {
            Some(size) => frame.len().min(self.headers(frame) + usize::from(size)),
            None => frame.len(),
        }
    }

    /// Returns this offload adjusted for a frame into which an 802.1Q tag was inserted.
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

    /// The header in the form in which the kernel takes it together with `frame`.
    ///
    /// When receiving, the kernel sets the header length to the bytes it had in one piece, which may be the
    /// whole frame. When sending, it copies that many bytes, which should be the headers only.
    pub(crate) fn for_sending(&self, frame: &[u8]) -> [u8; Self::LEN] {
        let header_len = match self.segment_size() {
            Some(_) => self.headers(frame).min(frame.len()) as u16,
            None => 0,
        };
        // The result of checking a received checksum must not be sent.
        Self { flags: self.flags & NEEDS_CHECKSUM, header_len, ..*self }.to_bytes()
    }

    /// Encodes the header in the format that [`read`](Self::read) reads.
    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [self.flags, self.kind, 0, 0, 0, 0, 0, 0, 0, 0];
        let halves =
            [self.header_len, self.segment_size, self.checksum_start, self.checksum_offset];
        for (at, half) in halves.into_iter().enumerate() {
            bytes[2 + 2 * at..][..2].copy_from_slice(&half.to_ne_bytes());
        }
        bytes
    }

    /// Whether a frame that is to be split matches its offload. For a tunnel's frames the kernel reports the
    /// offload of the inner packet, and it would get stuck at a frame that does not match.
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

    /// The work left for a frame without checksum whose offload was not reported.
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

    /// Returns an IPv4 frame with this protocol; its transport header is at 34 and has 32 bytes in TCP.
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
