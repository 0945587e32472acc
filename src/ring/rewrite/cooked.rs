//! Puts a header before cooked packets, whose link-layer headers the kernel has removed: that of Linux cooked
//! captures, version 2 (<https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html>).
//!
//! ```text
//!   0        2        4                8        10    11      12              20
//!   protocol reserved interface index  hardware type, length  link address    the packet, or the rest of a tag
//! ```
//!
//! All of it is in the `sockaddr_ll` of the packet's own header. There is room for it without asking
//! (`PACKET_RESERVE`): the kernel leaves 28 bytes between its header and a cooked packet (`tpacket_rcv`,
//! net/packet/af_packet.c).

use super::super::header::Fields;
use super::{data_at, lengthen, u32_in};
use crate::packet::{LinkLayer, SLL2_HEADER_LEN, VlanTag, hardware_of_cooked};

/// Writes the header, with the stripped tag behind it if `retag` is set. Returns whether there was a tag, and there is one
/// in the packet now.
pub(super) fn put_header(
    packet: &mut [u8],
    stripped: Option<VlanTag>,
    fields: &Fields,
    retag: bool,
) -> bool {
    let mut link_layer = LinkLayer::read(&packet[fields.link_at..fields.header_len]);
    let [captured, wire_len] =
        [fields.captured, fields.wire_len].map(|at| u32_in(packet, at) as usize);
    let data = packet.get(data_at(packet, fields)..).unwrap_or_default();
    let data = &data[..captured.min(data.len())];
    link_layer.protocol = first_type(&link_layer, stripped.is_some(), data, wire_len);
    let tag = stripped.filter(|_| retag);
    let header = link_layer.sll2_header(tag.map_or(link_layer.protocol, |tag| tag.tpid));
    let old_at = data_at(packet, fields);
    let len = SLL2_HEADER_LEN + if tag.is_some() { VlanTag::LEN } else { 0 };
    let room = old_at.checked_sub(len).filter(|&at| at >= fields.header_len);
    // Without room, which the kernel always leaves, the bytes are of no known kind.
    link_layer.hardware = if room.is_some() { hardware_of_cooked() } else { libc::ARPHRD_VOID };
    if let Some(at) = room {
        packet[at..at + SLL2_HEADER_LEN].copy_from_slice(&header);
        if let Some(tag) = tag {
            let [high, low] = tag.tci.to_be_bytes();
            let [kind, of] = link_layer.protocol.to_be_bytes();
            packet[at + SLL2_HEADER_LEN..old_at].copy_from_slice(&[high, low, kind, of]);
        }
        lengthen(packet, fields, at, len);
    }
    link_layer.write(&mut packet[fields.link_at..fields.header_len]);
    tag.is_some() && room.is_some()
}

/// The types of the packets that have no other mark than their first bytes.
const IPV4: u16 = libc::ETH_P_IP as u16;
const IPV6: u16 = libc::ETH_P_IPV6 as u16;

/// Returns the type of what a packet's bytes begin with, where the kernel tells another one (net/packet/af_packet.c).
///
/// A received packet that had several tags begins with the second one, and the kernel tells the type behind all of them
/// (`vlan_get_protocol_dgram`, since 2024). A sent packet begins behind its tag, and older kernels tell the tag's type.
fn first_type(link: &LinkLayer, has_stripped_tag: bool, data: &[u8], wire_len: usize) -> u16 {
    let told = link.protocol;
    let is_sent = link.pkttype == libc::PACKET_OUTGOING;
    let is_ip = ip_version(data, wire_len);
    if !is_sent && has_stripped_tag && !is_tag(told) && is_ip != Some(told) {
        let begins_with_tag = behind_tags(data, wire_len) == Some(told);
        return if begins_with_tag { libc::ETH_P_8021Q as u16 } else { told };
    }
    if is_sent && !has_stripped_tag && is_tag(told) && behind_tags(data, wire_len) != is_ip {
        return is_ip.unwrap_or(told);
    }
    told
}

fn is_tag(kind: u16) -> bool {
    let [high, low] = kind.to_be_bytes();
    VlanTag::read(&[high, low, 0, 0]).is_some()
}

/// Returns the type of the packet behind the tags, if the bytes begin with the rest of a tag. They do not if it is IP and no IP
/// packet follows.
fn behind_tags(data: &[u8], wire_len: usize) -> Option<u16> {
    let mut at = 0;
    loop {
        let kind = u16::from_be_bytes([*data.get(at + 2)?, *data.get(at + 3)?]);
        at += VlanTag::LEN;
        match kind {
            IPV4 | IPV6 => {
                let found = ip_version(&data[at..], wire_len.saturating_sub(at));
                return found.filter(|found| *found == kind);
            }
            _ if is_tag(kind) => {}
            _ => return Some(kind),
        }
    }
}

/// Returns the type of the IP packet that the bytes are, as far as their beginning shows it.
fn ip_version(data: &[u8], wire_len: usize) -> Option<u16> {
    match *data {
        [0x45..=0x4f, _, high, low, ..] => {
            let total = usize::from(u16::from_be_bytes([high, low]));
            (total <= wire_len).then_some(IPV4)
        }
        [0x60..=0x6f, _, _, _, high, low, ..] => {
            let payload = usize::from(u16::from_be_bytes([high, low]));
            (payload + 40 <= wire_len).then_some(IPV6)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pkttype: u8, told: u16, has_stripped_tag: bool, data: &[u8]) -> u16 {
        let link = LinkLayer { pkttype, protocol: told, ..LinkLayer::sample() };
        first_type(&link, has_stripped_tag, data, data.len())
    }

    #[test]
    fn the_type_is_that_of_the_first_bytes() {
        let (host, sent) = (libc::PACKET_HOST, libc::PACKET_OUTGOING);
        let mut v4 = [0; 40];
        (v4[0], v4[3]) = (0x45, 40);
        let mut v6 = [0; 40];
        v6[0] = 0x60;
        let tag = |tci: u16, kind: u16, rest: &[u8]| {
            [&tci.to_be_bytes()[..], &kind.to_be_bytes(), rest].concat()
        };
        for (kind, ip) in [(IPV4, &v4), (IPV6, &v6)] {
            for is_stripped in [false, true] {
                assert_eq!(of(host, kind, is_stripped, ip), kind);
                assert_eq!(of(sent, kind, is_stripped, ip), kind);
            }
            // The second of two tags, and of three; the TCI of the last one looks like IP.
            for tci in [8, 0x4508, 0x6008] {
                let two = tag(tci, kind, ip);
                assert_eq!(of(host, kind, true, &two), 0x8100, "{tci:x}");
                assert_eq!(of(host, kind, true, &tag(9, 0x8100, &two)), 0x8100);
                assert_eq!(of(host, 0x88a8, false, &two), 0x88a8, "told as it is");
            }
            // Sent, by a kernel that tells the tag's type.
            assert_eq!(of(sent, 0x8100, false, ip), kind);
            assert_eq!(of(sent, 0x8100, false, &tag(8, kind, ip)), 0x8100);
        }
        let arp = [0, 1, 8, 0, 6, 4, 0, 1];
        assert_eq!(of(host, 0x0806, true, &arp), 0x0806);
        assert_eq!(of(host, 0x0806, true, &tag(8, 0x0806, &arp)), 0x8100);
        assert_eq!(of(sent, 0x8100, false, &tag(8, 0x0806, &arp)), 0x8100);
        for len in 0..8 {
            assert_eq!(of(host, IPV4, true, &v4[..len]), IPV4);
        }
        // A packet as long as the number of its type.
        let mut long = vec![0; 2048];
        (long[0], long[2]) = (0x45, 8);
        assert_eq!(of(host, IPV4, true, &long), IPV4);
    }
}
