//! Changes that packets undergo in place in the ring, when they are taken: headers of cooked packets, and VLAN tags.

mod cooked;
#[cfg(feature = "record")]
pub(crate) mod pcapng;
mod vlan_reinsert;

use super::header::Fields;
use super::rx_features::Extras;
use super::tpacket_v2;
use super::tpacket_v3::{self, Walk};
use crate::packet::{PacketStatus, VlanTag};

/// The bits of a status word that say that the tag is in the header, not in the frame.
pub(super) const BESIDE: u32 = PacketStatus::VLAN_VALID.union(PacketStatus::VLAN_TPID_VALID).bits();

/// Rewrites the packets of a block, whose bytes start after the status word.
pub(super) fn rewrite_block(body: &mut [u8], extras: Extras) {
    let walk = Walk::new(body, extras);
    let (mut at, mut left) = (walk.at(), walk.left());
    loop {
        let mut walk = Walk::new(body, extras);
        walk.go_to(at, left);
        let Some(packet) = walk.next() else { return };
        let (tag, next) = (packet.stripped_vlan(), (walk.at(), walk.left()));
        if rewrite(&mut body[at..], tag, &tpacket_v3::FIELDS, extras) {
            let status = u32_in(body, at + tpacket_v3::STATUS_AT) & !BESIDE;
            body[at + tpacket_v3::STATUS_AT..][..4].copy_from_slice(&status.to_ne_bytes());
        }
        (at, left) = next;
    }
}

/// Rewrites the packet of a slot, whose bytes start after the status word. Returns whether its tag is in the frame
/// now, so that [`BESIDE`] must be cleared.
pub(super) fn rewrite_frame(status: u32, body: &mut [u8], extras: Extras) -> bool {
    let Some(packet) = tpacket_v2::read(status, body, extras) else { return false };
    let tag = packet.stripped_vlan();
    rewrite(body, tag, &tpacket_v2::FIELDS, extras)
}

/// Rewrites the packet whose header starts at the beginning of `packet`. Returns whether its tag was put into the
/// frame.
fn rewrite(packet: &mut [u8], tag: Option<VlanTag>, fields: &Fields, extras: Extras) -> bool {
    if extras.cooked {
        return cooked::put_header(packet, tag, fields, extras.retag);
    }
    tag.filter(|_| extras.retag)
        .is_some_and(|tag| vlan_reinsert::insert(packet, tag, fields, extras))
}

fn u32_in(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The start of a packet's bytes, as an offset from the start of its header.
fn data_at(packet: &[u8], fields: &Fields) -> usize {
    let at = fields.data_at;
    usize::from(u16::from_ne_bytes([packet[at], packet[at + 1]])) - fields.origin
}

/// Notes that the packet's bytes begin `bytes` earlier than before, at `data_at`.
fn lengthen(packet: &mut [u8], fields: &Fields, data_at: usize, bytes: usize) {
    for field in [fields.captured, fields.wire_len] {
        let longer = u32_in(packet, field).wrapping_add(bytes as u32);
        packet[field..field + 4].copy_from_slice(&longer.to_ne_bytes());
    }
    let data_at = (data_at + fields.origin) as u16;
    packet[fields.data_at..fields.data_at + 2].copy_from_slice(&data_at.to_ne_bytes());
}
