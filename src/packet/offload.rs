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
const UDP_SEGMENTS: u8 = 5;
/// In `kind`, beside the kind: segments with ECN.
const ECN: u8 = 0x80;
/// An 802.1Q tag.
const TAG: u16 = 4;

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
            Segments::TcpV4 => 1,
            Segments::TcpV6 => 4,
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

    /// Bytes before the payload of a frame that is to be split.
    fn headers(&self, frame: &[u8]) -> usize {
        let transport = usize::from(self.checksum_start);
        if self.kind & !ECN == UDP_SEGMENTS {
            return transport + 8;
        }
        let words = frame.get(transport + 12).map_or(5, |byte| usize::from(byte >> 4));
        transport + 4 * words
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

    #[test]
    fn a_segment_has_the_headers_of_its_frame() {
        let mut frame = vec![0; 4000];
        frame[34 + 12] = 8 << 4; // TCP with 12 bytes of options
        assert_eq!(TCP.wire_len(&frame), 34 + 32 + 1448);
        assert_eq!(TCP.wire_len(&frame[..100]), 100);
        let sent = Offload::read(&TCP.for_sending(&frame));
        assert_eq!((sent.header_len, sent.flags), (66, NEEDS_CHECKSUM));
        let udp = Offload { kind: UDP_SEGMENTS, ..TCP };
        assert_eq!(udp.wire_len(&frame), 34 + 8 + 1448);
        assert_eq!(Offload::NONE.wire_len(&frame), 4000);
    }

    #[test]
    fn a_tag_moves_the_checksum_on() {
        let tagged = TCP.behind_tag();
        assert_eq!((tagged.checksum_start, tagged.header_len), (38, 4004));
        assert_eq!(Offload::NONE.behind_tag(), Offload::NONE);
    }
}
