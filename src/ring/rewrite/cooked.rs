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
use super::{data_at, lengthen};
use crate::packet::{LinkLayer, SLL2_HEADER_LEN, VlanTag, hardware_of_cooked};

/// Writes the header, with `tag` behind it. Returns whether there was a tag, and there is one in the packet now.
pub(super) fn put_header(packet: &mut [u8], tag: Option<VlanTag>, fields: &Fields) -> bool {
    let link = &packet[fields.link_at..fields.header_len];
    let mut link_layer = LinkLayer::read(link);
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
