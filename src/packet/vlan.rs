//! VLAN tags.

/// Offset of the first tag in an Ethernet frame: behind the addresses.
pub(super) const FIRST_AT: usize = 12;

/// An 802.1Q VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VlanTag {
    /// Tag control information: priority (3 bits), drop eligible (1), id (12).
    pub tci: u16,
    /// Tag protocol id: 0x8100 (802.1Q), 0x88a8 (802.1ad), or 0x9100 from old equipment.
    pub tpid: u16,
}

impl VlanTag {
    /// Bytes that a tag adds to a frame.
    pub const LEN: usize = 4;

    /// Returns the VLAN id, 0 ..= 4095.
    pub fn id(self) -> u16 {
        self.tci & 0x0fff
    }

    /// Returns the priority code point, 0 ..= 7.
    pub fn priority(self) -> u8 {
        (self.tci >> 13) as u8
    }

    /// Returns whether the frame may be dropped first under congestion.
    pub fn drop_eligible(self) -> bool {
        self.tci & 0x1000 != 0
    }

    /// Returns the tag as it is stored in a frame.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let ([a, b], [c, d]) = (self.tpid.to_be_bytes(), self.tci.to_be_bytes());
        [a, b, c, d]
    }

    /// The tag at the beginning of these bytes, if there is one.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, d] = bytes.first_chunk()?;
        let tpid = u16::from_be_bytes([a, b]);
        let is_tag = matches!(tpid, 0x8100 | 0x88a8 | 0x9100);
        is_tag.then(|| Self { tci: u16::from_be_bytes([c, d]), tpid })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LinkLayer, Packet, PacketMeta};
    use super::*;

    #[test]
    fn a_tag_splits_into_id_priority_and_drop_eligibility() {
        let tag = VlanTag { tci: 0b1011_0000_0110_0100, tpid: 0x8100 };
        assert_eq!((tag.id(), tag.priority(), tag.drop_eligible()), (100, 5, true));
        assert_eq!(VlanTag::read(&tag.to_bytes()), Some(tag));
    }

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
