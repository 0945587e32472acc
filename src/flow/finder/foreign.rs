//! Packets in the form that extractors of others expect: whole frames of Ethernet.

use std::ops::Range;

use flowscope::extractor::TcpInfo;
use flowscope::{Extracted, L4Proto};

use crate::flow::extract::ethernet;
use crate::packet::{Layers, LinkType, Packet, Tunnels, dissect};

/// Maximum number of zeros added for bytes that were cut off, as files may claim any length.
const LONGEST: usize = 1 << 16;

/// A frame of Ethernet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    /// All bytes of the frame; bytes that were cut off are zero.
    pub(super) bytes: &'a [u8],
    /// Number of bytes that were captured.
    pub(super) captured: usize,
    /// Whether `bytes` is the packet's own memory.
    pub(super) is_own: bool,
}

/// Returns the frame of a packet. It is the packet itself if that is a whole frame with the lengths that extractors
/// rely on; otherwise it is built in `made`.
pub(super) fn frame<'a>(
    packet: &'a Packet<'_>,
    layers: Option<&Layers>,
    made: &'a mut Vec<u8>,
) -> Frame<'a> {
    let data = packet.data();
    let cut = packet.original_len().saturating_sub(data.len());
    let unsaid = layers.and_then(|layers| unsaid_length(data, layers));
    let has_header = packet.dissected_as() == Some(LinkType::ETHERNET);
    match layers {
        Some(layers) if !has_header => {
            let at = layers.network_offset();
            *made = ethernet(layers.family, &data[at..]);
            if let Some((place, len)) = unsaid {
                made[14 + place - at..][..2].copy_from_slice(&len.to_be_bytes());
            }
        }
        _ if cut == 0 && unsaid.is_none() => {
            return Frame { bytes: data, captured: data.len(), is_own: true };
        }
        _ => {
            made.clear();
            made.extend_from_slice(data);
            if let Some((place, len)) = unsaid {
                made[place..place + 2].copy_from_slice(&len.to_be_bytes());
            }
        }
    }
    let captured = made.len();
    made.resize(captured + cut.min(LONGEST), 0);
    Frame { bytes: made, captured, is_own: false }
}

/// Returns the position of an IPv4 total length of 0 and the length to write there (segmentation left to the
/// card, BIG TCP).
fn unsaid_length(data: &[u8], layers: &Layers) -> Option<(usize, u16)> {
    let at = layers.network_offset();
    let is_unsaid = data.get(at)? >> 4 == 4 && data.get(at + 2..at + 4)? == [0, 0];
    is_unsaid.then(|| (at + 2, u16::try_from(layers.ip_len()).unwrap_or(u16::MAX)))
}

/// Returns where IP begins in a frame, and the bytes of it.
pub(super) fn network(frame: &[u8]) -> Option<(u32, usize)> {
    let layers = outer(frame)?;
    Some((layers.network, layers.ip_len()))
}

fn outer(frame: &[u8]) -> Option<Layers> {
    dissect(LinkType::ETHERNET, frame, frame.len(), 0, Tunnels::Outer)
}

/// Returns the place of the payload in a frame, as the transport header that the extractor found carries it. It is
/// empty if there is none.
pub(super) fn place<K>(frame: &[u8], extracted: &Extracted<K>) -> Range<usize> {
    let found = match (&extracted.tcp, extracted.l4) {
        (Some(tcp), _) => tcp_payload(frame, tcp),
        (None, Some(L4Proto::Udp | L4Proto::Icmp | L4Proto::IcmpV6)) => {
            let innermost = dissect(LinkType::ETHERNET, frame, frame.len(), 0, Tunnels::Innermost);
            let is_it =
                |layers: &Layers| Some(layers.protocol()) == extracted.l4.map(|l4| l4.as_u8());
            outer(frame).filter(is_it).or(innermost.filter(is_it)).map(|layers| layers.payload())
        }
        _ => None,
    };
    found.unwrap_or(0..0)
}

/// Returns the range of a segment's payload in a frame. Extractors that look into tunnels report offsets in
/// their own inner frame; if the header is not at the reported place, it is searched for.
fn tcp_payload(frame: &[u8], tcp: &TcpInfo) -> Option<Range<usize>> {
    let is_it = |payload: usize| {
        let fits = payload + tcp.payload_len <= frame.len();
        (fits && has_header(frame, payload, tcp)).then_some(payload)
    };
    let start = is_it(tcp.payload_offset).or_else(|| (20..=frame.len()).find_map(is_it))?;
    Some(start..start + tcp.payload_len)
}

/// Returns whether this TCP header is before the payload, which begins at `payload`.
fn has_header(frame: &[u8], payload: usize, tcp: &TcpInfo) -> bool {
    (20..=60).step_by(4).any(|len| {
        let header = payload.checked_sub(len).and_then(|start| frame.get(start..payload));
        header.is_some_and(|header| {
            header[4..8] == tcp.seq.to_be_bytes()
                && header[8..12] == tcp.ack.to_be_bytes()
                && usize::from(header[12] >> 4) * 4 == len
                && header[13] == tcp.flags.bits()
        })
    })
}
