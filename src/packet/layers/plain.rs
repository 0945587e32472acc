//! The fast path: what most packets are.

use super::network::{TCP, UDP};
use super::{Family, Layers, Selector, TcpHeader};

/// Reads a whole TCP segment or UDP datagram directly behind Ethernet, at most one VLAN tag, and an IP header
/// without options, extensions and fragments. Anything else, and anything inconsistent, is `None` and read by
/// [`Walk`](super::Walk), with the same result for the packets that both read.
#[inline]
pub(super) fn read(frame: &[u8], wire_len: usize, stripped: u16) -> Option<Layers> {
    let (vlans, at) = match frame.get(12..14)? {
        [0x81, 0x00] => {
            let tag: &[u8; 4] = frame.get(14..)?.first_chunk()?;
            let id = u16::from_be_bytes([tag[0], tag[1]]) & 0xfff;
            if stripped != 0 || !matches!(tag[2..], [0x08, 0x00] | [0x86, 0xdd]) {
                return None;
            }
            ([id, 0], 18)
        }
        [0x08, 0x00] | [0x86, 0xdd] => ([stripped & 0xfff, 0], 14),
        _ => return None,
    };
    let end = wire_len.max(frame.len());
    match (frame[at - 2], *frame.get(at)?) {
        (0x08, 0x45) => v4(frame, at, end, vlans),
        (0x86, 0x60..=0x6f) => v6(frame, at, end, vlans),
        _ => None,
    }
}

#[inline]
fn v4(frame: &[u8], at: usize, end: usize, vlans: [u16; 2]) -> Option<Layers> {
    let ip: &[u8; 20] = frame.get(at..)?.first_chunk()?;
    if u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0 {
        return None;
    }
    let end = match usize::from(u16::from_be_bytes([ip[2], ip[3]])) {
        0 => end,
        len => end.min(at + len),
    };
    let [mut source, mut destination] = [[0; 16]; 2];
    source[..4].copy_from_slice(&ip[12..16]);
    destination[..4].copy_from_slice(&ip[16..20]);
    transport(frame, ip[9], [at, at + 20, end], (Family::V4, source, destination), vlans)
}

#[inline]
fn v6(frame: &[u8], at: usize, end: usize, vlans: [u16; 2]) -> Option<Layers> {
    let ip: &[u8; 40] = frame.get(at..)?.first_chunk()?;
    let end = match usize::from(u16::from_be_bytes([ip[4], ip[5]])) {
        0 => end,
        len => end.min(at + 40 + len),
    };
    let address = |at: usize| ip.get(at..)?.first_chunk::<16>().copied();
    transport(frame, ip[6], [at, at + 40, end], (Family::V6, address(8)?, address(24)?), vlans)
}

#[inline]
fn transport(
    frame: &[u8],
    protocol: u8,
    [network, at, end]: [usize; 3],
    (family, source, destination): (Family, [u8; 16], [u8; 16]),
    vlans: [u16; 2],
) -> Option<Layers> {
    let bytes = frame.get(at..frame.len().min(end))?;
    let half = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let (tcp, header_len, payload_end) = match protocol {
        TCP => {
            let header: &[u8; 20] = bytes.first_chunk()?;
            let word = |at: usize| Some(u32::from_be_bytes(*header.get(at..)?.first_chunk()?));
            let header_len = usize::from(header[12] >> 4) * 4;
            if header_len < 20 || at + header_len > end {
                return None;
            }
            let (seq, ack, window) = (word(4)?, word(8)?, half(14)?);
            (Some(TcpHeader { seq, ack, window, flags: header[13] }), header_len, end)
        }
        UDP => {
            let len = usize::from(half(4)?);
            bytes.get(..8)?;
            if len < 8 || at + len > end {
                return None;
            }
            (None, 8, at + len)
        }
        _ => return None,
    };
    Some(Layers {
        source,
        destination,
        family,
        protocol,
        selector: Selector::Ports(half(0)?, half(2)?),
        vlans,
        tunnel: None,
        tcp,
        fragment: None,
        network: network as u32,
        network_end: end as u32,
        transport: at as u32,
        payload: (at + header_len) as u32,
        payload_end: payload_end as u32,
    })
}
