//! What the driver and the kernel know about a packet besides its bytes: its time, its hash and its VLAN tag. An XDP
//! program leaves them before the packet.
//!
//! ```text
//!   … │ time (8) │ hash (4) │ TPID (2) │ TCI (2) │ which (4) │ magic (4) │ the packet …
//! ```

use bitflags::bitflags;

use crate::packet::{PacketMeta, PacketStatus, Timestamp, VlanTag};

/// Bytes before a packet.
pub(crate) const HINTS_LEN: usize = 24;
pub(crate) const HASH_AT: i16 = 8;
pub(crate) const TPID_AT: i16 = 12;
pub(crate) const TCI_AT: i16 = 14;
pub(crate) const WHICH_AT: i16 = 16;
pub(crate) const MAGIC_AT: i16 = 20;
/// Tells hints from bytes that nothing has been written to.
pub(crate) const MAGIC: i32 = 0x7269_6e68;

bitflags! {
    /// What an interface's XDP program can tell about a packet besides its bytes; from `XdpProgram::hints`.
    ///
    /// Whether a packet has each of these is up to the driver, packet by packet.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct XdpHints: u32 {
        /// A timestamp by the card's clock, which is not the system's: it may count another time.
        const TIMESTAMP = 1;
        /// A timestamp by the kernel's clock, for packets without one by the card's.
        const KERNEL_TIMESTAMP = 1 << 1;
        /// The hash by which the card chose the queue, or the kernel's.
        const HASH = 1 << 2;
        /// The VLAN tag that the card has stripped.
        const VLAN = 1 << 3;
    }
}

impl XdpHints {
    /// What programs ask for unless told otherwise: timestamps of different clocks should not mix unasked.
    pub(crate) fn by_default() -> Self {
        Self::all() - Self::TIMESTAMP
    }
}

/// Adds the hints in the bytes before a packet to its metadata. `tai_offset` is what `CLOCK_TAI` is ahead of
/// `CLOCK_REALTIME`, in nanoseconds.
#[inline]
pub(crate) fn read(before: &[u8], tai_offset: u64, meta: &mut PacketMeta) {
    let Some(hints) = before.first_chunk::<HINTS_LEN>() else { return };
    let word = |at: i16| {
        let at = at as usize;
        u32::from_ne_bytes([hints[at], hints[at + 1], hints[at + 2], hints[at + 3]])
    };
    if word(MAGIC_AT) != MAGIC as u32 {
        return;
    }
    let which = XdpHints::from_bits_truncate(word(WHICH_AT));
    let nanos = u64::from_ne_bytes(std::array::from_fn(|at| hints[at]));
    if which.contains(XdpHints::TIMESTAMP) {
        meta.timestamp = Timestamp::from_nanos(nanos);
        meta.status = PacketStatus::TIMESTAMP_RAW_HARDWARE;
    } else if which.contains(XdpHints::KERNEL_TIMESTAMP) {
        meta.timestamp = Timestamp::from_nanos(nanos.saturating_sub(tai_offset));
        meta.status = PacketStatus::TIMESTAMP_SOFTWARE;
    }
    if which.contains(XdpHints::HASH) {
        meta.rxhash = Some(word(HASH_AT));
    }
    if which.contains(XdpHints::VLAN) {
        let half = |at: i16| [hints[at as usize], hints[at as usize + 1]];
        // The type is in network byte order, the rest in the host's.
        let tpid = u16::from_be_bytes(half(TPID_AT));
        meta.vlan = Some(VlanTag { tpid, tci: u16::from_ne_bytes(half(TCI_AT)) });
        meta.status |= PacketStatus::VLAN_VALID | PacketStatus::VLAN_TPID_VALID;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(which: XdpHints, magic: i32) -> [u8; HINTS_LEN] {
        let mut bytes = [0; HINTS_LEN];
        bytes[..8].copy_from_slice(&1_700_000_037_000_000_042_u64.to_ne_bytes());
        bytes[8..12].copy_from_slice(&0xdead_beef_u32.to_ne_bytes());
        bytes[12..14].copy_from_slice(&0x88a8_u16.to_be_bytes());
        bytes[14..16].copy_from_slice(&0x2005_u16.to_ne_bytes());
        bytes[16..20].copy_from_slice(&which.bits().to_ne_bytes());
        bytes[20..].copy_from_slice(&magic.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_what_the_program_has_noted_is_read() {
        let plain = PacketMeta { rxhash: None, ..PacketMeta::plain(60) };
        let of = |which, magic| {
            let mut meta = plain;
            read(&hints(which, magic), 37_000_000_000, &mut meta);
            meta
        };
        assert_eq!(of(XdpHints::all(), MAGIC + 1), plain, "bytes that nobody wrote");
        assert_eq!(of(XdpHints::empty(), MAGIC), plain);
        let all = of(XdpHints::all(), MAGIC);
        assert_eq!(all.timestamp, Timestamp { secs: 1_700_000_037, nanos: 42 });
        assert!(all.status.contains(PacketStatus::TIMESTAMP_RAW_HARDWARE));
        assert_eq!(all.rxhash, Some(0xdead_beef));
        assert_eq!(all.vlan, Some(VlanTag { tpid: 0x88a8, tci: 0x2005 }));
        let kernels = of(XdpHints::KERNEL_TIMESTAMP, MAGIC);
        assert_eq!(kernels.timestamp, Timestamp { secs: 1_700_000_000, nanos: 42 });
        assert_eq!((kernels.status, kernels.vlan), (PacketStatus::TIMESTAMP_SOFTWARE, None));
    }
}
