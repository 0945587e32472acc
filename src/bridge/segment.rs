//! Splits frames that the kernel cannot be asked to split: frames of a tunnel, because the header beside the
//! frame (`struct virtio_net_hdr`) can only describe the inner packet, and frames longer than a slot.
//!
//! ```text
//!   Ethernet ─ tags ─ IP ─┬─ TCP or UDP ─ payload              what is split
//!                         ├─ UDP ─ VXLAN, Geneve ─ Ethernet ─ tags ─ IP ─ …
//!                         └─ GRE, IP in IP ─ IP ─ …
//! ```
//! Each segment has all headers and its part of the payload, and its own lengths, numbers and checksums, as
//! when the kernel splits (`tcp_gso_segment`, net/ipv4/tcp_offload.c; `__skb_udp_tunnel_segment`,
//! net/ipv4/udp_offload.c).

use crate::packet::Offload;

/// Maximum number of headers with lengths of their own.
const MOST_LAYERS: usize = 8;

const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;
const IPV4_IN_IP: u8 = 4;
const IPV6_IN_IP: u8 = 41;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// A header that contains the length of what follows, and its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Ipv4(usize),
    Ipv6(usize),
    /// UDP of a tunnel.
    Udp(usize),
}

/// A frame to be split, and the offsets within it.
#[derive(Debug)]
pub(super) struct Splitting {
    frame: Vec<u8>,
    layers: Vec<Layer>,
    /// Offset of the TCP or UDP header, and which of the two it is.
    transport: usize,
    is_tcp: bool,
    /// Offset of the payload.
    payload: usize,
    size: usize,
    next: usize,
}

impl Splitting {
    /// Prepares a frame with an offload. Returns the frame if it cannot be split.
    pub(super) fn new(mut frame: Vec<u8>, offload: Offload) -> Result<Self, Vec<u8>> {
        let Some(size) = offload.segment_size().map(usize::from).filter(|&size| size > 0) else {
            return Err(frame);
        };
        let mut wanted = offload.checksum_at();
        let Some(splits_tcp) = offload.splits_tcp() else { return Err(frame) };
        if let Some(ip) = jumbo_packet(&frame) {
            // The segments are short enough for the normal length field.
            frame[ip + 6] = frame[ip + 40];
            frame.drain(ip + 40..ip + 48);
            wanted = wanted.map(|at| at.saturating_sub(8));
        }
        let layers = Vec::with_capacity(MOST_LAYERS);
        let mut walk = Walk { frame: &frame, wanted, splits_tcp, layers };
        let Some(transport) = walk.ethernet(0) else { return Err(frame) };
        let (layers, is_tcp) = (walk.layers, splits_tcp);
        let header = match is_tcp {
            true => frame.get(transport + 12).map_or(0, |byte| 4 * usize::from(byte >> 4)),
            false => 8,
        };
        let (payload, least) = (transport + header, if is_tcp { 20 } else { 8 });
        if header < least || payload >= frame.len() {
            return Err(frame);
        }
        Ok(Self { frame, layers, transport, is_tcp, payload, size, next: 0 })
    }

    /// Whether no segment has been made yet.
    pub(super) fn is_at_start(&self) -> bool {
        self.next == 0
    }

    /// Leaves out the next segment.
    pub(super) fn skip(&mut self) {
        self.next += 1;
    }

    /// Length of the longest segment.
    pub(super) fn longest(&self) -> usize {
        self.frame.len().min(self.payload + self.size)
    }

    /// Length of the next segment; `None` if no segments are left.
    pub(super) fn next_len(&self) -> Option<usize> {
        let done = self.next * self.size;
        let left = (self.frame.len() - self.payload).checked_sub(done).filter(|&left| left > 0)?;
        Some(self.payload + left.min(self.size))
    }

    /// Writes the next segment, which has [`next_len`](Self::next_len) bytes.
    pub(super) fn write_next(&mut self, segment: &mut [u8]) {
        let start = self.payload + self.next * self.size;
        let part = segment.len() - self.payload;
        segment[..self.payload].copy_from_slice(&self.frame[..self.payload]);
        segment[self.payload..].copy_from_slice(&self.frame[start..start + part]);
        let is_last = start + part == self.frame.len();
        if self.is_tcp {
            self.finish_tcp(segment, is_last);
        } else {
            let len = (segment.len() - self.transport) as u16;
            put(segment, self.transport + 4, len);
        }
        // From the inside out, because an outer checksum covers the inner ones.
        let checksum_at = self.transport + if self.is_tcp { 16 } else { 6 };
        let protocol = if self.is_tcp { TCP } else { UDP };
        for at in (0..self.layers.len()).rev() {
            self.finish_layer(segment, self.layers[at]);
        }
        if let Some(ip) = self.ip_before(self.layers.len()) {
            fill_checksum(segment, ip, protocol, self.transport, checksum_at);
        }
        for at in (0..self.layers.len()).rev() {
            if let (Layer::Udp(udp), Some(ip)) = (self.layers[at], self.ip_before(at))
                && half(segment, udp + 6) != Some(0)
            {
                fill_checksum(segment, ip, UDP, udp, udp + 6);
            }
        }
        self.next += 1;
    }

    fn finish_tcp(&self, segment: &mut [u8], is_last: bool) {
        let at = self.transport;
        let first = u32::from_be_bytes(std::array::from_fn(|byte| segment[at + 4 + byte]));
        let seq = first.wrapping_add((self.next * self.size) as u32);
        segment[at + 4..at + 8].copy_from_slice(&seq.to_be_bytes());
        if !is_last {
            segment[at + 13] &= !(FIN | PSH);
        }
        if self.next > 0 {
            segment[at + 13] &= !CWR;
        }
    }

    /// Writes a header's length, and the fields that depend only on it.
    fn finish_layer(&self, segment: &mut [u8], layer: Layer) {
        let len = segment.len();
        match layer {
            Layer::Ipv4(at) => {
                put(segment, at + 2, (len - at) as u16);
                let id = half(segment, at + 4).unwrap_or(0).wrapping_add(self.next as u16);
                put(segment, at + 4, id);
                put(segment, at + 10, 0);
                let header = 4 * usize::from(segment[at] & 0x0f);
                let checksum = !fold(sum(&segment[at..at + header]));
                put(segment, at + 10, checksum);
            }
            Layer::Ipv6(at) => put(segment, at + 4, (len - at - 40) as u16),
            Layer::Udp(at) => put(segment, at + 4, (len - at) as u16),
        }
    }

    /// The last IP header before a layer.
    fn ip_before(&self, layer: usize) -> Option<Layer> {
        self.layers[..layer].iter().rev().find(|layer| !matches!(layer, Layer::Udp(_))).copied()
    }
}

/// A walk over the headers of a frame.
struct Walk<'a> {
    frame: &'a [u8],
    /// Offset of the transport header to split at, if known.
    wanted: Option<usize>,
    /// Whether TCP is to be split, rather than UDP.
    splits_tcp: bool,
    layers: Vec<Layer>,
}

impl Walk<'_> {
    /// Returns the offset of the TCP or UDP header to split at.
    fn ethernet(&mut self, start: usize) -> Option<usize> {
        let mut at = start + 12;
        let mut kind = half(self.frame, at)?;
        while matches!(kind, 0x8100 | 0x88a8) {
            at += 4;
            kind = half(self.frame, at)?;
        }
        self.network(kind, at + 2)
    }

    fn network(&mut self, kind: u16, at: usize) -> Option<usize> {
        match kind {
            0x0800 => self.ipv4(at),
            0x86dd => self.ipv6(at),
            _ => None,
        }
    }

    /// Continues inside a tunnel whose header names the protocol: Ethernet or IP.
    fn within(&mut self, kind: u16, at: usize) -> Option<usize> {
        if kind == 0x6558 { self.ethernet(at) } else { self.network(kind, at) }
    }

    fn ipv4(&mut self, at: usize) -> Option<usize> {
        let header = 4 * usize::from(self.frame.get(at)? & 0x0f);
        let is_fragment = half(self.frame, at + 6)? & 0x3fff != 0;
        if header < 20 || is_fragment {
            return None;
        }
        self.enter(Layer::Ipv4(at))?;
        self.transport(*self.frame.get(at + 9)?, at + header)
    }

    fn ipv6(&mut self, at: usize) -> Option<usize> {
        self.enter(Layer::Ipv6(at))?;
        let (mut next, mut at) = (*self.frame.get(at + 6)?, at + 40);
        // Hop-by-hop, routing and destination options carry their own length.
        while matches!(next, 0 | 43 | 60) {
            if next == 0 && *self.frame.get(at + 2)? == JUMBO {
                return None; // such as in an inner packet: every segment would have the option and be dropped for it
            }
            let len = 8 * (1 + usize::from(*self.frame.get(at + 1)?));
            (next, at) = (*self.frame.get(at)?, at + len);
        }
        self.transport(next, at)
    }

    fn transport(&mut self, protocol: u8, at: usize) -> Option<usize> {
        let is_kind = protocol == if self.splits_tcp { TCP } else { UDP };
        if is_kind && self.wanted.is_none_or(|wanted| wanted == at) {
            return Some(at);
        }
        match protocol {
            UDP => self.tunnel(at),
            GRE => self.gre(at),
            IPV4_IN_IP => self.ipv4(at),
            IPV6_IN_IP => self.ipv6(at),
            _ => None,
        }
    }

    /// Enters a UDP tunnel: Geneve by its port, anything else as VXLAN.
    fn tunnel(&mut self, at: usize) -> Option<usize> {
        const GENEVE: u16 = 6081;
        self.enter(Layer::Udp(at))?;
        let within = at + 8;
        if half(self.frame, at + 2)? == GENEVE {
            let options = 4 * usize::from(self.frame.get(within)? & 0x3f);
            let kind = half(self.frame, within + 2)?;
            return self.within(kind, within + 8 + options);
        }
        self.ethernet(within + 8)
    }

    /// Enters GRE. A header with a checksum or a sequence number is not supported.
    fn gre(&mut self, at: usize) -> Option<usize> {
        const CHECKSUM: u16 = 0x8000;
        const KEY: u16 = 0x2000;
        const SEQUENCE: u16 = 0x1000;
        const VERSION: u16 = 0x0007;
        let flags = half(self.frame, at)?;
        if flags & (CHECKSUM | SEQUENCE | VERSION) != 0 {
            return None;
        }
        let header = if flags & KEY != 0 { 8 } else { 4 };
        self.within(half(self.frame, at + 2)?, at + header)
    }

    fn enter(&mut self, layer: Layer) -> Option<()> {
        (self.layers.len() < MOST_LAYERS).then(|| self.layers.push(layer))
    }
}

/// The option that contains the length of a packet over 64 KiB (RFC 2675).
const JUMBO: u8 = 0xc2;

/// Offset of the outermost IPv6 header, if it is followed by a hop-by-hop header that contains nothing but the
/// packet's length. Linux writes packets over 64 KiB in this form.
fn jumbo_packet(frame: &[u8]) -> Option<usize> {
    let mut at = 12;
    while matches!(half(frame, at)?, 0x8100 | 0x88a8) {
        at += 4;
    }
    let ip = at + 2;
    let is_ipv6 = half(frame, at)? == 0x86dd && *frame.get(ip + 6)? == 0;
    let option = frame.get(ip + 40..ip + 48)?;
    (is_ipv6 && option[1..4] == [0, JUMBO, 4]).then_some(ip)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn put(bytes: &mut [u8], at: usize, half: u16) {
    bytes[at..at + 2].copy_from_slice(&half.to_be_bytes());
}

/// Fills in the checksum from offset `from` on, with the pseudo-header of the IP header before it.
fn fill_checksum(segment: &mut [u8], ip: Layer, protocol: u8, from: usize, checksum_at: usize) {
    put(segment, checksum_at, 0);
    let addresses = match ip {
        Layer::Ipv4(at) => at + 12..at + 20,
        Layer::Ipv6(at) => at + 8..at + 40,
        Layer::Udp(_) => return,
    };
    let len = (segment.len() - from) as u64;
    let total = sum(&segment[addresses]) + u64::from(protocol) + len + sum(&segment[from..]);
    let checksum = match !fold(total) {
        0 if protocol == UDP => 0xffff, // 0 means no checksum (RFC 768)
        checksum => checksum,
    };
    put(segment, checksum_at, checksum);
}

/// Sums 16-bit words in network byte order; an odd byte at the end is the upper half.
fn sum(bytes: &[u8]) -> u64 {
    let (halves, rest) = bytes.as_chunks::<2>();
    let sum: u64 = halves.iter().map(|half| u64::from(u16::from_be_bytes(*half))).sum();
    sum + rest.first().map_or(0, |&byte| u64::from(byte) << 8)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Segments;

    /// Whether the checksum of a header, or of a segment including its pseudo-header, is correct.
    fn holds(total: u64) -> bool {
        fold(total) == 0xffff
    }

    fn ipv4(protocol: u8, len: usize) -> Vec<u8> {
        let mut header = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, protocol, 0, 0];
        header.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        put(&mut header, 2, len.min(0xffff) as u16);
        header
    }

    fn ethernet(kind: u16) -> Vec<u8> {
        [&[2; 6][..], &[4; 6], &kind.to_be_bytes()].concat()
    }

    /// Returns a TCP segment with FIN, PSH and CWR, without a complete checksum.
    fn tcp(payload: &[u8]) -> Vec<u8> {
        let mut header = vec![0, 80, 0x1f, 0x90, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 9, 0x50];
        header.extend([FIN | PSH | CWR | 0x10, 1, 0, 0xab, 0xcd, 0, 0]);
        [&header, payload].concat()
    }

    fn payload(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    fn split(frame: &[u8], offload: Offload) -> Vec<Vec<u8>> {
        let mut splitting = Splitting::new(frame.to_vec(), offload).expect("it can be split");
        let mut segments = Vec::new();
        while let Some(len) = splitting.next_len() {
            assert!(len <= splitting.longest());
            let mut segment = vec![0xee; len];
            splitting.write_next(&mut segment);
            segments.push(segment);
        }
        segments
    }

    /// Checks an IPv4 TCP packet that begins at `at`. Returns its payload, sequence number and flags.
    fn check(segment: &[u8], at: usize) -> (Vec<u8>, u32, u8) {
        assert_eq!(half(segment, at + 2), Some((segment.len() - at) as u16));
        assert!(holds(sum(&segment[at..at + 20])), "the header's checksum");
        let tcp = &segment[at + 20..];
        let pseudo = sum(&segment[at + 12..at + 20]) + u64::from(TCP) + tcp.len() as u64;
        assert!(holds(pseudo + sum(tcp)), "the segment's checksum");
        let seq = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
        (tcp[20..].to_vec(), seq, tcp[13])
    }

    #[test]
    fn a_frame_longer_than_its_header_can_say_becomes_segments_with_all_its_bytes() {
        let bytes = payload(180_001);
        let tcp = tcp(&bytes);
        let mut frame = [ethernet(0x0800), ipv4(TCP, 0), tcp].concat();
        put(&mut frame, 16, 0); // no length in the header
        let offload = Offload::checksum(34, 16).split(Segments::TcpV4, 1448);
        let segments = split(&frame, offload);
        assert_eq!(segments.len(), 180_001_usize.div_ceil(1448));
        let mut all = Vec::new();
        for (number, segment) in segments.iter().enumerate() {
            let (part, seq, flags) = check(segment, 14);
            assert_eq!(seq, 0xffff_fff0_u32.wrapping_add(all.len() as u32));
            assert_eq!(half(segment, 18), Some(0x1234 + number as u16));
            let (is_first, is_last) = (number == 0, number + 1 == segments.len());
            assert_eq!((flags & CWR != 0, flags & (FIN | PSH) == FIN | PSH), (is_first, is_last));
            all.extend(part);
        }
        assert!(all == bytes);
    }

    #[test]
    fn frames_of_tunnels_are_split_within_and_their_outer_headers_are_right() {
        let bytes = payload(4_000);
        let inner = [ethernet(0x0800), ipv4(TCP, 4_040), tcp(&bytes)].concat();
        let udp = |checksum: u16, port: u16| {
            let mut header = vec![0x30, 0x39, 0, 0, 0, 0, 0, 0];
            put(&mut header, 2, port);
            put(&mut header, 6, checksum);
            header
        };
        let vxlan = [&[8, 0, 0, 0, 0, 0, 5, 0][..], &inner].concat();
        let geneve = [&[1, 0, 0x65, 0x58, 0, 0, 5, 0, 0, 0, 0, 0][..], &inner].concat();
        let gre = [&[0x20, 0, 0x65, 0x58, 0, 0, 0, 5][..], &inner].concat();
        let cases = [
            (UDP, [udp(0, 4789), vxlan.clone()].concat()),
            (UDP, [udp(0xbeef, 4789), vxlan].concat()),
            (UDP, [udp(0xbeef, 6081), geneve].concat()),
            (GRE, gre),
            (IPV4_IN_IP, inner[14..].to_vec()),
        ];
        for (protocol, within) in cases {
            let outer = [ethernet(0x0800), ipv4(protocol, 20 + within.len())].concat();
            let frame = [outer, within].concat();
            let start = frame.len() - bytes.len() - 20;
            let offload = Offload::checksum(start as u16, 16).split(Segments::TcpV4, 1400);
            assert!(!offload.fits(&frame), "the kernel could not be told");
            let segments = split(&frame, offload);
            assert_eq!(segments.len(), 3, "{protocol}");
            let mut all = Vec::new();
            for segment in &segments {
                assert_eq!(half(segment, 16), Some((segment.len() - 14) as u16));
                assert!(holds(sum(&segment[14..34])), "the outer header");
                if protocol == UDP {
                    assert_eq!(half(segment, 38), Some((segment.len() - 34) as u16));
                    let pseudo = sum(&segment[26..34]) + u64::from(UDP);
                    let total = pseudo + (segment.len() - 34) as u64 + sum(&segment[34..]);
                    assert!(half(segment, 40) == Some(0) || holds(total), "the outer checksum");
                    assert_eq!(half(segment, 40) == Some(0), half(&frame, 40) == Some(0));
                }
                all.extend(check(segment, start - 20).0);
            }
            assert!(all == bytes);
        }
    }

    #[test]
    fn datagrams_and_ipv6_with_a_jumbo_option_are_split() {
        let bytes = payload(3_001);
        let mut udp = vec![0, 53, 0, 54, 0, 0, 0, 0];
        udp.extend(&bytes);
        let mut ipv6 = vec![0x60, 0, 0, 0, 0, 0, 0, 64];
        ipv6.extend([3; 32]);
        let jumbo = [UDP, 0, 0xc2, 4, 0, 0, 0x0b, 0xc9];
        let frame = [ethernet(0x86dd), ipv6, jumbo.to_vec(), udp].concat();
        let offload = Offload::checksum(62, 6).split(Segments::Udp, 1000);
        let mut tagged = frame.clone();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        for segment in split(&tagged, offload.behind_tag()) {
            assert_eq!((segment[24], half(&segment, 22)), (UDP, Some((segment.len() - 58) as u16)));
        }
        let segments = split(&frame, offload);
        assert_eq!(segments.iter().map(Vec::len).collect::<Vec<_>>(), [1062, 1062, 1062, 63]);
        let mut all: Vec<u8> = Vec::new();
        for segment in &segments {
            assert_eq!((segment[20], half(segment, 18)), (UDP, Some((segment.len() - 54) as u16)));
            assert_eq!(half(segment, 58), Some((segment.len() - 54) as u16));
            let pseudo = sum(&segment[22..54]) + u64::from(UDP) + (segment.len() - 54) as u64;
            assert!(holds(pseudo + sum(&segment[54..])));
            all.extend(&segment[62..]);
        }
        assert!(all == bytes);
    }

    #[test]
    fn what_is_not_understood_comes_back_and_nothing_is_read_past_its_end() {
        let bytes = payload(3_000);
        let whole = [ethernet(0x0800), ipv4(TCP, 3_040), tcp(&bytes)].concat();
        let offload = Offload::checksum(34, 16).split(Segments::TcpV4, 1000);
        for len in 0..60 {
            if let Ok(mut splitting) = Splitting::new(whole[..len].to_vec(), offload) {
                while let Some(len) = splitting.next_len() {
                    splitting.write_next(&mut vec![0; len]);
                }
            }
        }
        let not_there = Offload::checksum(40, 16).split(Segments::TcpV4, 1000);
        assert_eq!(Splitting::new(whole.clone(), not_there).unwrap_err(), whole);
        assert!(
            Splitting::new(whole.clone(), Offload::checksum(34, 16)).is_err(),
            "not to be split"
        );
        let mut fragment = whole;
        fragment[21] = 1;
        assert!(Splitting::new(fragment, offload).is_err());
    }
}
