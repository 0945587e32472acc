//! VLAN tags.

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
    #[inline]
    pub fn id(self) -> u16 {
        self.tci & 0x0fff
    }

    /// Returns the priority code point, 0 ..= 7.
    #[inline]
    pub fn priority(self) -> u8 {
        (self.tci >> 13) as u8
    }

    /// Returns whether the frame may be dropped first under congestion.
    #[inline]
    pub fn drop_eligible(self) -> bool {
        self.tci & 0x1000 != 0
    }

    /// Returns the tag as it is stored in a frame.
    #[inline]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let ([a, b], [c, d]) = (self.tpid.to_be_bytes(), self.tci.to_be_bytes());
        [a, b, c, d]
    }

    /// Returns the tag at the beginning of these bytes, if there is one.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, d] = bytes.first_chunk()?;
        let tpid = u16::from_be_bytes([a, b]);
        let is_tag = matches!(tpid, 0x8100 | 0x88a8 | 0x9100);
        is_tag.then(|| Self { tci: u16::from_be_bytes([c, d]), tpid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_splits_into_id_priority_and_drop_eligibility() {
        let tag = VlanTag { tci: 0b1011_0000_0110_0100, tpid: 0x8100 };
        assert_eq!((tag.id(), tag.priority(), tag.drop_eligible()), (100, 5, true));
        assert_eq!(VlanTag::read(&tag.to_bytes()), Some(tag));
    }
}
