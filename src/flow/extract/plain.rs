//! The default extractor, with a fast path for common packets.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use flowscope::extract::{self as theirs, FiveTupleKey};
use flowscope::{Extracted, FlowExtractor, L4Proto, Orientation, PacketView, TcpFlags, TcpInfo};

use crate::flow::frames::{self, Upper};

/// Identifies flows by protocol, addresses and ports.
///
/// It produces the same key as flowscope's extractor with a quarter of the instructions: complete TCP segments
/// and UDP datagrams that directly follow an IPv4 header without options, or an IPv6 header, are read here; all
/// other packets are left to flowscope. Unlike flowscope's, the key contains the ports of SCTP, DCCP and
/// UDP-Lite (RFC 9260, 4340, 3828), and IP packets with a length of 0, as hosts write them that leave
/// segmentation to the card, are taken to be as long as their frame.
///
/// The kernel's fanout hash uses the ports of the same protocols. It also uses the SPI of ESP and AH, which the
/// key does not contain: several security associations between two hosts are one flow here, and may be on
/// several shards.
#[derive(Debug, Clone, Copy)]
pub struct FiveTuple {
    whole: theirs::FiveTuple,
}

impl FiveTuple {
    /// Treats each direction as a separate flow.
    pub const fn directional() -> Self {
        Self { whole: theirs::FiveTuple::directional() }
    }

    /// Treats both directions as one flow; the key has the lesser endpoint first.
    pub const fn bidirectional() -> Self {
        Self { whole: theirs::FiveTuple::bidirectional() }
    }

    /// Returns whether both directions are one flow.
    pub const fn is_bidirectional(&self) -> bool {
        self.whole.is_bidirectional()
    }
}

impl Default for FiveTuple {
    /// Creates a bidirectional extractor.
    fn default() -> Self {
        Self::bidirectional()
    }
}

impl FlowExtractor for FiveTuple {
    type Key = FiveTupleKey;

    #[inline]
    fn extract(&self, view: PacketView<'_>) -> Option<Extracted<FiveTupleKey>> {
        let Some(plain) = Plain::read(view.frame) else { return self.extract_other(view) };
        let Plain { source, destination, l4, tcp } = plain;
        Some(self.extracted(l4, source, destination, tcp))
    }
}

impl FiveTuple {
    /// Uses flowscope's result, adding the ports that it leaves out.
    #[cold]
    fn extract_other(&self, view: PacketView<'_>) -> Option<Extracted<FiveTupleKey>> {
        let extracted = self.whole.extract(view)?;
        match extracted.l4 {
            Some(l4 @ (L4Proto::Sctp | L4Proto::Other(DCCP | UDP_LITE))) => {
                Some(self.with_ports(view.frame, l4).unwrap_or(extracted))
            }
            _ => Some(extracted),
        }
    }

    /// Returns `None` if the ports are not in the frame, or if it is a later fragment.
    fn with_ports(&self, frame: &[u8], l4: L4Proto) -> Option<Extracted<FiveTupleKey>> {
        let Upper { protocol, at, is_whole } = frames::upper(frame)?;
        let is_it = match l4 {
            L4Proto::Sctp => protocol == SCTP,
            L4Proto::Other(number) => protocol == number,
            _ => false,
        };
        let (source, destination) = frames::addresses(frame).filter(|_| is_it && is_whole)?;
        let source = SocketAddr::new(source, number(frame, at)?);
        let destination = SocketAddr::new(destination, number(frame, at + 2)?);
        Some(self.extracted(l4, source, destination, None))
    }

    #[inline]
    fn extracted(
        &self,
        l4: L4Proto,
        source: SocketAddr,
        destination: SocketAddr,
        tcp: Option<TcpInfo>,
    ) -> Extracted<FiveTupleKey> {
        let (a, b, orientation) = match self.is_bidirectional() && source > destination {
            true => (destination, source, Orientation::Reverse),
            false => (source, destination, Orientation::Forward),
        };
        Extracted::new(FiveTupleKey::new(l4, a, b), orientation, Some(l4), tcp)
    }
}

const SCTP: u8 = 132;
const DCCP: u8 = 33;
const UDP_LITE: u8 = 136;

/// A packet of the common form.
struct Plain {
    source: SocketAddr,
    destination: SocketAddr,
    l4: L4Proto,
    tcp: Option<TcpInfo>,
}

impl Plain {
    /// Returns `None` for any packet that does not have the common form or is inconsistent; it is left to
    /// flowscope.
    #[inline]
    fn read(frame: &[u8]) -> Option<Self> {
        match (frame.get(12..14)?, frame.get(14)?) {
            ([0x08, 0x00], 0x45) => Self::v4(frame),
            ([0x86, 0xdd], 0x60..=0x6f) => Self::v6(frame),
            _ => None,
        }
    }

    #[inline]
    fn v4(frame: &[u8]) -> Option<Self> {
        let ip: &[u8; 20] = frame.get(14..34)?.first_chunk()?;
        let is_fragment = number(ip, 6)? & 0x3fff != 0;
        // Length 0: longer than the field can express, or segmentation was left to the card.
        let end = match number(ip, 2)? {
            0 => frame.len(),
            len => 14 + usize::from(len),
        };
        let rest = frame.get(34..end)?;
        let address = |at: usize| Some(IpAddr::from(*ip[at..].first_chunk::<4>()?));
        if is_fragment {
            return None;
        }
        Self::transport(ip[9], rest, 34, address(12)?, address(16)?)
    }

    #[inline]
    fn v6(frame: &[u8]) -> Option<Self> {
        let ip: &[u8; 40] = frame.get(14..54)?.first_chunk()?;
        let end = match number(ip, 4)? {
            0 => frame.len(),
            len => 54 + usize::from(len),
        };
        let rest = frame.get(54..end)?;
        let address = |at: usize| Some(IpAddr::from(*ip[at..].first_chunk::<16>()?));
        Self::transport(ip[6], rest, 54, address(8)?, address(24)?)
    }

    /// Reads the transport header of an IP packet's payload, which begins at `at` in the frame.
    #[inline]
    fn transport(protocol: u8, rest: &[u8], at: usize, from: IpAddr, to: IpAddr) -> Option<Self> {
        let (l4, tcp) = match protocol {
            6 => (L4Proto::Tcp, Some(segment(rest, at)?)),
            17 if (8..=rest.len()).contains(&usize::from(number(rest, 4)?)) => (L4Proto::Udp, None),
            _ => return None,
        };
        let source = SocketAddr::new(from, number(rest, 0)?);
        let destination = SocketAddr::new(to, number(rest, 2)?);
        Some(Self { source, destination, l4, tcp })
    }
}

/// Reads the header of a TCP segment.
#[inline]
fn segment(segment: &[u8], at: usize) -> Option<TcpInfo> {
    // Only flowscope can construct this type, but an existing value can be changed.
    static ANY: LazyLock<TcpInfo> = LazyLock::new(|| {
        let view = PacketView::new(&SEGMENT, flowscope::Timestamp::default());
        let extracted = theirs::FiveTuple::bidirectional().extract(view);
        extracted.and_then(|extracted| extracted.tcp).expect("it is a segment of TCP")
    });
    let header: &[u8; 20] = segment.first_chunk()?;
    let len = usize::from(header[12] >> 4) * 4;
    let payload = segment.len().checked_sub(len).filter(|_| len >= 20)?;
    let word = |at: usize| Some(u32::from_be_bytes(*header[at..].first_chunk()?));
    let mut info = *ANY;
    info.flags = TcpFlags::from_bits_retain(header[13]);
    (info.seq, info.ack) = (word(4)?, word(8)?);
    (info.payload_offset, info.payload_len) = (at + len, payload);
    info.window = number(header, 14)?;
    Some(info)
}

/// A frame with headers only.
const SEGMENT: [u8; 54] = {
    let mut frame = [0; 54];
    (frame[12], frame[14], frame[17], frame[23], frame[46]) = (0x08, 0x45, 40, 6, 0x50);
    frame
};

#[inline]
fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    /// Returns whether the fast path was taken; the result must equal flowscope's either way.
    fn same(frame: &[u8]) -> bool {
        let view = || PacketView::new(frame, flowscope::Timestamp::default());
        let told = |extracted: Option<Extracted<FiveTupleKey>>| format!("{extracted:?}");
        let is_ours = frames::upper(frame)
            .is_some_and(|upper| matches!(upper.protocol, SCTP | DCCP | UDP_LITE))
            || matches!(frame.get(12..18), Some([0x08, 0x00, _, _, 0, 0]))
            || matches!(frame.get(12..20), Some([0x86, 0xdd, _, _, _, _, 0, 0]));
        if is_ours {
            FiveTuple::bidirectional().extract(view());
            return Plain::read(frame).is_some();
        }
        for (ours, theirs) in [
            (FiveTuple::bidirectional(), theirs::FiveTuple::bidirectional()),
            (FiveTuple::directional(), theirs::FiveTuple::directional()),
        ] {
            assert_eq!(told(ours.extract(view())), told(theirs.extract(view())), "{frame:02x?}");
        }
        Plain::read(frame).is_some()
    }

    fn frame(is_v6: bool, is_tcp: bool, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let builder = match is_v6 {
            true => builder.ipv6([3; 16], [2; 16], 9),
            false => builder.ipv4([10, 0, 0, 9], [10, 0, 0, 2], 9),
        };
        let mut frame = Vec::new();
        match is_tcp {
            true => {
                let tcp = builder.tcp(ports.0, ports.1, 0x0102_0304, 4097).ack(77).fin().psh();
                let options = [etherparse::TcpOptionElement::MaximumSegmentSize(1400)];
                let tcp =
                    if ports.0.is_multiple_of(2) { tcp.options(&options).unwrap() } else { tcp };
                tcp.write(&mut frame, payload).unwrap();
            }
            false => builder.udp(ports.0, ports.1).write(&mut frame, payload).unwrap(),
        }
        frame
    }

    #[test]
    fn what_most_packets_are_is_read_the_short_way() {
        for kind in 0..16_u16 {
            let (is_v6, is_tcp, is_empty) = (kind & 1 == 0, kind & 2 == 0, kind & 4 == 0);
            let payload: &[u8] = if is_empty { &[] } else { b"some bytes" };
            let ports = if kind & 8 == 0 { (7, 80) } else { (80, 7) };
            let mut frame = frame(is_v6, is_tcp, ports, payload);
            assert!(same(&frame));
            frame.extend([0; 6]); // padding of Ethernet
            assert!(same(&frame));
        }
    }

    #[test]
    fn ports_are_told_of_all_protocols_that_the_kernels_hash_takes_them_of() {
        let keys = |protocol: u8, source: u16, is_v6: bool| {
            let mut frame = frame(is_v6, false, (source, 9), b"payload");
            frame[if is_v6 { 20 } else { 23 }] = protocol;
            let view = PacketView::new(&frame, flowscope::Timestamp::default());
            FiveTuple::bidirectional().extract(view).expect("it is of a flow").key
        };
        for protocol in [SCTP, DCCP, UDP_LITE] {
            for is_v6 in [false, true] {
                let [one, other] = [7, 8].map(|source| keys(protocol, source, is_v6));
                assert_ne!(one, other, "{protocol}");
                assert_eq!((one.a.port(), one.b.port()), (9, 7));
            }
        }
        // ESP: no ports.
        assert_eq!(keys(50, 7, false), keys(50, 8, false));
    }

    #[test]
    fn a_length_of_none_is_that_of_the_frame() {
        for (is_v6, at) in [(false, 16), (true, 18)] {
            let whole = frame(is_v6, true, (7, 80), &[1; 3000]);
            let mut unsaid = whole.clone();
            unsaid[at..at + 2].copy_from_slice(&[0, 0]);
            let told = |frame: &[u8]| {
                let view = PacketView::new(frame, flowscope::Timestamp::default());
                let extracted = FiveTuple::bidirectional().extract(view).expect("it is of a flow");
                (extracted.key, extracted.tcp.expect("it is a segment").payload_len)
            };
            assert_eq!(told(&unsaid), told(&whole));
        }
    }

    #[test]
    fn fragments_options_and_lengths_that_do_not_fit_are_flowscopes() {
        let whole = frame(false, true, (7, 80), b"x");
        let changed = |at: usize, to: u8| {
            let mut frame = whole.clone();
            frame[at] = to;
            frame
        };
        for (at, to) in [(20, 0x20), (21, 1), (14, 0x46), (17, 255), (17, 30), (46, 0x40), (23, 1)]
        {
            assert!(!same(&changed(at, to)), "byte {at}");
        }
        (0..whole.len()).for_each(|len| assert!(!same(&whole[..len])));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_frame_is_read_otherwise_than_by_flowscope(
            kind in 0..4_u8,
            ports: (u16, u16),
            payload in prop::collection::vec(any::<u8>(), 0..40),
            changes in prop::collection::vec((0..74_usize, any::<u8>()), 0..4),
            len in 0..120_usize,
        ) {
            let mut frame = frame(kind & 1 == 0, kind & 2 == 0, ports, &payload);
            for (at, to) in changes {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = to;
                }
            }
            same(&frame);
            same(&frame[..len.min(frame.len())]);
        }
    }
}
