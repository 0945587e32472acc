//! Packets in the form that extractors expect: complete Ethernet frames.

use std::net::IpAddr;
use std::ops::Range;

use flowscope::extractor::{TcpFlags, TcpInfo};

use super::fragments::{FragmentStats, Fragments, Taken, network};
use crate::packet::Packet;

/// Maximum bytes of fragments that wait for others.
const FRAGMENTS: usize = 4 << 20;

/// Maximum number of zeros added for bytes that were cut off, as files may claim any length.
const LONGEST: usize = 1 << 16;

/// Builds frames from packets that have no Ethernet header, were cut, or are fragments.
#[derive(Debug)]
pub(super) struct Frames {
    made: Vec<u8>,
    fragments: Fragments,
}

/// An Ethernet frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    /// All bytes of the frame; bytes that were cut off are zero.
    pub(super) bytes: &'a [u8],
    /// Number of bytes that were captured.
    pub(super) captured: usize,
    /// Whether `bytes` is the packet's own memory.
    pub(super) is_own: bool,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { made: Vec::new(), fragments: Fragments::new(FRAGMENTS) }
    }

    pub(super) fn fragment_stats(&self) -> FragmentStats {
        self.fragments.stats()
    }

    /// Returns the frame of a packet, or `None` for a fragment that waits for others.
    pub(super) fn of<'a>(&'a mut self, packet: &'a Packet<'_>, now: u64) -> Option<Frame<'a>> {
        let data = packet.data();
        let cut = packet.original_len().saturating_sub(data.len());
        let network = packet.network_at();
        if network.is_none() && cut == 0 {
            if let Some(unsaid) = unsaid_length(data) {
                self.made.clear();
                self.made.extend_from_slice(data);
                self.say(unsaid);
                return Some(self.made());
            }
            match self.fragments.take(data, now) {
                Taken::Whole => {}
                Taken::Waits => return None,
                Taken::Made(frame) => {
                    self.made = frame;
                    return Some(self.made());
                }
            }
            return Some(Frame { bytes: data, captured: data.len(), is_own: true });
        }
        self.made.clear();
        match network {
            None => self.made.extend_from_slice(data),
            Some(at) => ethernet(&mut self.made, data.get(at..).unwrap_or_default()),
        }
        if cut > 0 {
            let captured = self.made.len();
            self.made.resize(captured + cut.min(LONGEST), 0);
            if let Some(unsaid) = unsaid_length(&self.made) {
                self.say(unsaid);
            }
            return Some(Frame { captured, ..self.made() });
        }
        if let Some(unsaid) = unsaid_length(&self.made) {
            self.say(unsaid);
        }
        match self.fragments.take(&self.made, now) {
            Taken::Whole => {}
            Taken::Waits => return None,
            Taken::Made(frame) => self.made = frame,
        }
        Some(self.made())
    }

    /// Writes the missing length into the frame, for code that relies on it.
    fn say(&mut self, (at, len): (usize, u16)) {
        self.made[at..at + 2].copy_from_slice(&len.to_be_bytes());
    }

    /// Returns the frame that was built last.
    pub(super) fn made(&self) -> Frame<'_> {
        Frame { bytes: &self.made, captured: self.made.len(), is_own: false }
    }
}

/// Puts an Ethernet header before an IP packet.
fn ethernet(frame: &mut Vec<u8>, packet: &[u8]) {
    let ether_type = match packet.first().map(|first| first >> 4) {
        Some(6) => [0x86, 0xdd],
        _ => [0x08, 0x00],
    };
    frame.extend_from_slice(&[0; 12]);
    frame.extend_from_slice(&ether_type);
    frame.extend_from_slice(packet);
}

/// The fields of a TCP header that reassembly uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct TcpHeader {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: TcpFlags,
}

/// Returns the TCP header before the payload, which begins at `payload`. Returns `None` if no header with
/// sequence number `seq` is there.
pub(super) fn tcp_header(frame: &[u8], payload: usize, seq: u32) -> Option<TcpHeader> {
    [20, 32].into_iter().chain((24..=60).step_by(4)).find_map(|len| {
        let header = frame.get(payload.checked_sub(len)?..payload)?;
        let number = |at: usize| u32::from_be_bytes(*header[at..].first_chunk().expect("of 20"));
        let is_it = number(4) == seq && usize::from(header[12] >> 4) * 4 == len;
        let flags = TcpFlags::from_bits_retain(header[13]);
        is_it.then(|| TcpHeader { seq, ack: number(8), flags })
    })
}

/// Returns the range of a segment's payload in a frame. Extractors that look into tunnels report offsets in
/// their own inner frame; if the header is not at the reported place, it is searched for.
pub(super) fn tcp_payload(frame: &[u8], tcp: &TcpInfo) -> Option<Range<usize>> {
    let is_it = |payload: usize| {
        let header = tcp_header(frame, payload, tcp.seq)?;
        let fits = payload + tcp.payload_len <= frame.len();
        (fits && header.ack == tcp.ack && header.flags == tcp.flags).then_some(payload)
    };
    let start = is_it(tcp.payload_offset).or_else(|| (20..=frame.len()).find_map(is_it))?;
    Some(start..start + tcp.payload_len)
}

/// Returns whether a frame is a TCP segment without payload and without SYN, FIN or RST.
pub(super) fn only_acknowledges(frame: &[u8]) -> bool {
    let Some(Upper { protocol: 6, at, .. }) = upper(frame) else { return false };
    let Some(header) = frame.get(at..at + 20) else { return false };
    let ends = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST;
    let is_it = TcpFlags::from_bits_retain(header[13]).intersection(ends).is_empty();
    is_it && layer_3(frame).is_some_and(|ip| ip.end <= at + usize::from(header[12] >> 4) * 4)
}

/// Returns the range of a datagram's payload in a frame. As the datagram may be inside tunnels, this is the
/// first UDP datagram between the given ports.
pub(super) fn udp_payload(frame: &[u8], ports: Option<(u16, u16)>) -> Option<Range<usize>> {
    let header = |at: usize| {
        let header = frame.get(at..at + 8)?;
        let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let (source, destination, len) = (number(0), number(2), usize::from(number(4)));
        let is_it = ports.is_none_or(|(a, b)| {
            (source, destination) == (a, b) || (source, destination) == (b, a)
        });
        // Length 0: a jumbogram, or a packet that the card is to segment.
        let end = if len == 0 { frame.len() } else { at + len };
        (is_it && end >= at + 8 && end <= frame.len()).then_some(at + 8..end)
    };
    let Upper { protocol, at, .. } = upper(frame)?;
    if protocol == 17
        && let Some(found) = header(at)
    {
        return Some(found);
    }
    ports?;
    (at..frame.len().saturating_sub(7)).find_map(header)
}

/// Returns the range of an ICMP message in a frame.
pub(super) fn icmp_message(frame: &[u8]) -> Option<Range<usize>> {
    let Upper { protocol, at, .. } = upper(frame)?;
    let end = layer_3(frame)?.end;
    (matches!(protocol, 1 | 58) && at <= end).then_some(at..end)
}

/// Returns the range of the IP packet in a frame, without the padding of Ethernet.
pub(super) fn layer_3(frame: &[u8]) -> Option<Range<usize>> {
    let (protocol, at) = network(frame)?;
    let number = |place: usize| Some(u16::from_be_bytes(*frame.get(at + place..)?.first_chunk()?));
    let (fixed, len) = match protocol {
        0x0800 => (0, number(2)?),
        0x86dd => (40, number(4)?),
        _ => return None,
    };
    // Length 0: longer than the field can express.
    let end = if len == 0 { frame.len() } else { frame.len().min(at + fixed + usize::from(len)) };
    Some(at..end)
}

/// The transport protocol above IP.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upper {
    pub(super) protocol: u8,
    /// Offset at which it begins.
    pub(super) at: usize,
    /// Whether the header is there, that is, this is not a later fragment.
    pub(super) is_whole: bool,
}

/// Finds the protocol above IP.
pub(super) fn upper(frame: &[u8]) -> Option<Upper> {
    let (protocol, at) = network(frame)?;
    let number = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    match protocol {
        0x0800 => {
            let header = frame.get(at..at + 20)?;
            let is_whole = number(at + 6)? & 0x1fff == 0;
            let at = at + usize::from(header[0] & 15) * 4;
            Some(Upper { protocol: header[9], at, is_whole })
        }
        0x86dd => {
            let mut next = *frame.get(at + 6)?;
            let mut at = at + 40;
            let mut is_whole = true;
            // Hop by hop, routing, fragment, destination, authentication.
            for _ in 0..8 {
                let len = match next {
                    0 | 43 | 60 => 8 + usize::from(*frame.get(at + 1)?) * 8,
                    44 => {
                        is_whole &= number(at + 2)? >> 3 == 0;
                        8
                    }
                    51 => 8 + usize::from(*frame.get(at + 1)?) * 4,
                    _ => break,
                };
                next = *frame.get(at)?;
                at += len;
            }
            Some(Upper { protocol: next, at, is_whole })
        }
        _ => None,
    }
}

/// Returns the source and the destination of an IP packet.
pub(super) fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (protocol, at) = network(frame)?;
    let narrow = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<4>()?));
    let wide = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<16>()?));
    match protocol {
        0x0800 => Some((narrow(at + 12)?, narrow(at + 16)?)),
        0x86dd => Some((wide(at + 8)?, wide(at + 24)?)),
        _ => None,
    }
}

/// Returns the position of an IPv4 total length of 0 and the length to write there (segmentation left to the
/// card, BIG TCP). Returns `None` if [`FiveTuple`](super::extract::FiveTuple) can read the packet as it is.
fn unsaid_length(frame: &[u8]) -> Option<(usize, u16)> {
    let (0x0800, at) = network(frame)? else { return None };
    if frame.get(at + 2..at + 4)? != [0, 0] {
        return None;
    }
    let is_readable = (at, frame[at]) == (14, 0x45);
    match u16::try_from(frame.len() - at) {
        Ok(len) => Some((at + 2, len)),
        Err(_) if is_readable => None,
        Err(_) => Some((at + 2, u16::MAX)),
    }
}
