//! Where VLAN tags are.

use super::{SLL2_HEADER_LEN, VlanTag};

/// Offset of the first tag in an Ethernet frame: behind the addresses.
pub(super) const FIRST_TAG_AT: usize = 12;

/// Returns a tag in a packet with the header of Linux cooked captures, version 2, which begins with the type; `before`
/// is the number of tags before it. The rest of a tag and the next type follow the header.
pub(super) fn of_cooked(data: &[u8], before: usize) -> Option<VlanTag> {
    let rest = SLL2_HEADER_LEN + before * VlanTag::LEN;
    let tpid = if before == 0 { 0..2 } else { rest - 2..rest };
    let (tpid, tci) = (data.get(tpid)?, data.get(rest..rest + 2)?);
    if before > 0 {
        of_cooked(data, before - 1)?;
    }
    VlanTag::read(&[tpid[0], tpid[1], tci[0], tci[1]])
}

#[cfg(test)]
mod tests {
    use super::super::{LinkLayer, Packet, PacketMeta, VlanTag};

    #[test]
    fn tags_are_found_beside_the_bytes_and_in_them_outermost_first() {
        let tags = [(0x88a8, 7), (0x8100, 8), (0x8100, 9)].map(|(tpid, tci)| VlanTag { tci, tpid });
        let of = |inside: &[VlanTag], beside, hardware| {
            let mut data = vec![0; 60];
            let bytes = inside.iter().flat_map(|tag| tag.to_bytes());
            data.splice(12..12, bytes);
            let mut meta = PacketMeta::plain(data.len());
            meta.vlan = beside;
            meta.link = Some(LinkLayer { hardware, ..LinkLayer::sample() });
            let packet = Packet::new(&data, meta);
            (packet.vlan(), packet.inner_vlan())
        };
        let [a, b, c] = tags;
        assert_eq!(of(&[], None, 1), (None, None));
        assert_eq!(of(&[a], None, 1), (Some(a), None));
        assert_eq!(of(&[a, b, c], None, 772), (Some(a), Some(b)));
        assert_eq!(of(&[], Some(a), 1), (Some(a), None));
        assert_eq!(of(&[b, c], Some(a), 1), (Some(a), Some(b)));
        assert_eq!(of(&[a], None, libc::ARPHRD_NONE), (None, None), "an address in raw IP");
    }

    #[test]
    fn a_frame_cut_in_its_tag_has_none() {
        for len in 0..16 {
            let data = [[0; 12].as_slice(), &[0x81, 0, 0, 5]].concat();
            let packet = Packet::new(&data[..len], PacketMeta::plain(len));
            assert_eq!(packet.vlan(), None);
        }
    }
}
