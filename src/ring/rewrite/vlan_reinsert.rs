//! Puts VLAN tags that the kernel took out of frames back into them, in place in the ring.
//!
//! There is room for this without asking for it (`PACKET_RESERVE`). The kernel aligns a frame's network
//! header to 16 bytes and keeps at least 16 bytes before it free of its own header. So before an Ethernet
//! frame, and before its offload if there is one, at least 10 bytes are unused (`tpacket_rcv`,
//! net/packet/af_packet.c). A frame without that room, or shorter than the addresses, keeps its tag in the
//! header.

use super::super::header::Fields;
use super::super::rx_features::Extras;
use super::{data_at, lengthen, u32_in};
use crate::packet::{Offload, VlanTag};

/// Bytes of the addresses, which precede the tag.
const ADDRESSES: usize = 12;
const TAG: usize = VlanTag::LEN;

/// Inserts `tag` into the frame whose header starts at the beginning of `packet`; returns false if there is
/// no room.
pub(super) fn insert(packet: &mut [u8], tag: VlanTag, fields: &Fields, extras: Extras) -> bool {
    let data_at = data_at(packet, fields);
    let beside = if extras.offload { Offload::LEN } else { 0 };
    let Some(from) = data_at.checked_sub(beside).filter(|from| *from >= fields.header_len + TAG)
    else {
        return false;
    };
    let captured = u32_in(packet, fields.captured) as usize;
    if captured < ADDRESSES {
        return false;
    }
    packet.copy_within(from..data_at + ADDRESSES, from - TAG);
    let end = data_at + ADDRESSES;
    packet[end - TAG..end].copy_from_slice(&tag.to_bytes());
    if let Some(offload) = extras.offload(packet, data_at - TAG, fields.header_len) {
        packet[from - TAG..data_at - TAG].copy_from_slice(&offload.behind_tag().to_bytes());
    }
    lengthen(packet, fields, data_at - TAG, TAG);
    true
}

#[cfg(test)]
mod tests {
    use super::super::super::block_writer::BlockImage;
    use super::super::super::fake_kernel::frame_image;
    use super::super::super::tpacket_v2;
    use super::super::super::tpacket_v3::{self, Walk};
    use super::super::{BESIDE, rewrite_block, rewrite_frame};
    use super::*;
    use crate::packet::{PacketMeta, PacketStatus};

    const OFFLOADED: Extras = Extras { rxhash: true, offload: true, retag: true, cooked: false };
    const TAGGED: VlanTag = VlanTag { tci: 0x6064, tpid: 0x88a8 };

    fn meta(len: usize) -> PacketMeta {
        let offload = Some(Offload::checksum(34, 16));
        let status = PacketStatus::from_bits_retain(BESIDE | 1);
        PacketMeta { status, vlan: Some(TAGGED), offload, ..PacketMeta::plain(len) }
    }

    fn bytes(len: u8) -> Vec<u8> {
        (0..len).collect()
    }

    fn with_tag(mut data: Vec<u8>) -> Vec<u8> {
        data.splice(12..12, [0x88, 0xa8, 0x60, 0x64]);
        data
    }

    #[test]
    fn in_a_block_tags_go_where_there_is_one_and_a_place_for_it() {
        let mut image = BlockImage::new(1 << 12);
        let untagged = PacketMeta { offload: Some(Offload::NONE), ..PacketMeta::plain(70) };
        assert!(image.push(&bytes(60), &meta(60)));
        assert!(image.push(&bytes(70), &untagged));
        assert!(image.push(&bytes(11), &meta(1000)));
        assert!(image.push(&bytes(12), &meta(1000)));
        let mut body = image.finish(1);
        rewrite_block(&mut body, OFFLOADED);
        let mut walk = Walk::new(&body, OFFLOADED);
        let packets: Vec<_> = std::iter::from_fn(|| walk.next()).collect();
        assert_eq!(packets[0].data(), with_tag(bytes(60)));
        assert_eq!((packets[0].original_len(), packets[0].is_truncated()), (64, false));
        assert_eq!((packets[0].stripped_vlan(), packets[0].vlan()), (None, Some(TAGGED)));
        assert_eq!(packets[0].offload(), Some(Offload::checksum(34, 16).behind_tag()));
        assert_eq!(packets[0].status().bits(), 1);
        assert_eq!((packets[1].data(), packets[1].vlan()), (&*bytes(70), None));
        assert_eq!((packets[2].data(), packets[2].stripped_vlan()), (&*bytes(11), Some(TAGGED)));
        assert_eq!(packets[3].data(), with_tag(bytes(12)));
        assert_eq!(packets[3].original_len(), 1004);
    }

    #[test]
    fn in_a_slot_too() {
        let mut body = frame_image(&bytes(60), &meta(60));
        let extras = Extras { offload: false, ..OFFLOADED };
        assert!(rewrite_frame(BESIDE | 1, &mut body, extras));
        let packet = tpacket_v2::read(1, &body, extras).unwrap();
        assert_eq!(packet.data(), with_tag(bytes(60)));
        assert_eq!((packet.original_len(), packet.vlan()), (64, Some(TAGGED)));
        assert!(!rewrite_frame(1, &mut body, extras));
    }

    #[test]
    fn where_the_header_reaches_up_to_the_frame_the_tag_stays_beside() {
        let mut image = BlockImage::new(1 << 12);
        assert!(image.push(&bytes(60), &meta(60)));
        let mut body = image.finish(1);
        let at = Walk::new(&body, OFFLOADED).at();
        body[at + tpacket_v3::FIELDS.data_at..][..2].copy_from_slice(&80_u16.to_ne_bytes());
        let before = body.clone();
        rewrite_block(&mut body, OFFLOADED);
        assert_eq!(body, before);
    }
}
