//! One received frame of a frame ring: safe code over the bytes of a lease.
//!
//! As in [`walk`](super::tpacket_v3), every length is checked although the kernel is trusted.

use super::header::Fields;
use super::rx_features::Extras;
use super::slot::SLOT_BODY_AT;
use crate::packet::{LinkLayer, Packet, PacketMeta, PacketStatus, Timestamp, VlanTag};

/// `struct tpacket2_hdr` (32 bytes) and the `struct sockaddr_ll` (20 bytes) after it.
const HEADER_LEN: usize = 52;
const LINK_AT: usize = 32;
/// Length of the header after the status word.
pub(super) const BODY_HEADER_LEN: usize = HEADER_LEN - SLOT_BODY_AT;

pub(super) const FIELDS: Fields = Fields {
    wire_len: 4 - SLOT_BODY_AT,
    captured: 8 - SLOT_BODY_AT,
    data_at: 12 - SLOT_BODY_AT,
    link_at: LINK_AT - SLOT_BODY_AT,
    header_len: BODY_HEADER_LEN,
    origin: SLOT_BODY_AT,
};

const _: () = assert!(size_of::<libc::tpacket2_hdr>() == LINK_AT);
const _: () = assert!(libc::TPACKET2_HDRLEN == HEADER_LEN);

/// Reads the packet in a slot from its status word and the bytes after that word. Returns `None` if the
/// header is inconsistent.
#[inline]
pub(super) fn read(status: u32, body: &[u8], extras: Extras) -> Option<Packet<'_>> {
    let header: &[u8; BODY_HEADER_LEN] = body.first_chunk()?;
    let captured = u32_at(header, 8) as usize;
    let data_at = usize::from(u16_at(header, 12));
    if data_at < HEADER_LEN {
        return None;
    }
    let data = body.get(data_at - SLOT_BODY_AT..)?.get(..captured)?;
    let status = PacketStatus::from_bits_retain(status);
    let vlan = status.contains(PacketStatus::VLAN_VALID).then(|| VlanTag {
        tci: u16_at(header, 24),
        tpid: if status.contains(PacketStatus::VLAN_TPID_VALID) {
            u16_at(header, 26)
        } else {
            libc::ETH_P_8021Q as u16
        },
    });
    let meta = PacketMeta {
        wire_len: u32_at(header, 4),
        timestamp: Timestamp { secs: u32_at(header, 16), nanos: u32_at(header, 20) },
        status,
        rxhash: None,
        vlan,
        link: Some(LinkLayer::read(&header[LINK_AT - SLOT_BODY_AT..])),
        offload: extras.offload(body, data_at - SLOT_BODY_AT, BODY_HEADER_LEN),
    };
    Some(Packet::new(data, meta))
}

/// Reads at an offset into the whole header, including the status word.
#[inline]
fn u32_at(header: &[u8; BODY_HEADER_LEN], at: usize) -> u32 {
    let at = at - SLOT_BODY_AT;
    u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

#[inline]
fn u16_at(header: &[u8; BODY_HEADER_LEN], at: usize) -> u16 {
    let at = at - SLOT_BODY_AT;
    u16::from_ne_bytes([header[at], header[at + 1]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fake_kernel::frame_image;
    use super::*;
    use crate::packet::Offload;

    const OFFLOAD: Extras = Extras { rxhash: false, offload: true, retag: false, cooked: false };

    #[test]
    fn every_field_of_a_header_is_read_from_its_place() {
        let meta = PacketMeta {
            wire_len: 1500,
            timestamp: Timestamp { secs: 11, nanos: 22 },
            status: PacketStatus::empty(),
            rxhash: None,
            vlan: Some(VlanTag { tci: 0x6064, tpid: 0x88a8 }),
            link: Some(LinkLayer::sample()),
            offload: Some(Offload::read(&[1, 4, 66, 0, 8, 7, 34, 0, 16, 0])),
        };
        let status = (PacketStatus::VLAN_VALID | PacketStatus::VLAN_TPID_VALID).bits();
        let body = frame_image(&[9; 60], &meta);
        let packet = read(status, &body, OFFLOAD).unwrap();
        assert_eq!(packet.data(), [9; 60]);
        assert_eq!(packet.original_len(), 1500);
        assert_eq!(packet.timestamp(), meta.timestamp);
        assert_eq!(packet.vlan(), meta.vlan);
        assert_eq!(packet.rxhash(), None);
        assert_eq!(packet.ll_protocol(), Some(0x0800));
        assert_eq!(&*packet.source_ll_addr().unwrap(), &[2, 0, 0, 0, 0, 1]);
        assert_eq!(packet.offload(), meta.offload);
        let plain = read(0, &body, Extras::default()).unwrap();
        assert_eq!((plain.vlan(), plain.offload()), (None, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 512 }))]

        #[test]
        fn any_bytes_are_read_without_a_panic_and_inside_the_slot(
            status in any::<u32>(),
            body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Some(packet) = read(status, &body, OFFLOAD) {
                prop_assert!(packet.len() <= body.len());
            }
        }
    }
}
