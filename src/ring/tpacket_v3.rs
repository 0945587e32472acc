//! The packets of one block: safe code over the bytes of a lease.
//!
//! The kernel is trusted to write sound headers, and still every length is checked: a forked child can write
//! to the same mapping, and a sniffer must not be crashed by its own input. An inconsistent header ends the
//! walk, and the packets left out are counted.

use super::block::BODY_AT;
use super::header::Fields;
use super::rx_features::Extras;
use crate::packet::{LinkLayer, Packet, PacketMeta, PacketStatus, Timestamp, VlanTag};

/// `struct tpacket3_hdr` (48 bytes) and the `struct sockaddr_ll` (20 bytes) after it.
pub(super) const HEADER_LEN: usize = 68;
pub(super) const LINK_AT: usize = 48;

/// Offset of the status word in a packet's header.
pub(super) const STATUS_AT: usize = 20;
/// In the status of a packet of an image: it has no hash. The kernel does not use this bit.
pub(super) const UNHASHED: u32 = 1 << 24;
pub(super) const FIELDS: Fields = Fields {
    wire_len: 16,
    captured: 12,
    data_at: 24,
    link_at: LINK_AT,
    header_len: HEADER_LEN,
    origin: 0,
};

const _: () = assert!(size_of::<libc::tpacket3_hdr>() == LINK_AT);
const _: () = assert!(LINK_AT + size_of::<libc::sockaddr_ll>() == HEADER_LEN);
const _: () = assert!(libc::TPACKET3_HDRLEN == HEADER_LEN);

/// A block's header (`struct tpacket_hdr_v1`, without the status word).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) packets: u32,
    pub(crate) first_at: u32,
    used: u32,
    pub(crate) sequence: u64,
    pub(crate) first_time: Timestamp,
    pub(crate) last_time: Timestamp,
}

/// Bytes of a block's body that the [`BlockHeader`] takes.
pub(super) const BLOCK_HEADER_LEN: usize = 36;

impl BlockHeader {
    /// Reads the header at the start of a block's body.
    #[inline]
    pub(crate) fn read(body: &[u8]) -> Self {
        // Offsets are those of `tpacket_block_desc` minus BODY_AT.
        let header: &[u8; BLOCK_HEADER_LEN] = body.first_chunk().expect("a block has a header");
        Self {
            packets: u32_at(header, 0),
            first_at: u32_at(header, 4),
            used: u32_at(header, 8),
            sequence: u64::from_ne_bytes(std::array::from_fn(|at| header[12 + at])),
            first_time: Timestamp { secs: u32_at(header, 20), nanos: u32_at(header, 24) },
            last_time: Timestamp { secs: u32_at(header, 28), nanos: u32_at(header, 32) },
        }
    }

    /// Returns the number of bytes in use (`blk_len`) of `body`, the block that this header is from.
    pub(crate) fn used_len(&self, body: &[u8]) -> usize {
        (self.used as usize).saturating_sub(BODY_AT).clamp(BLOCK_HEADER_LEN, body.len())
    }
}

/// A walk over the packets of a block.
#[derive(Debug, Clone)]
pub(crate) struct Walk<'a> {
    body: &'a [u8],
    /// The body from the next header on.
    rest: &'a [u8],
    left: u32,
    extras: Extras,
}

impl<'a> Walk<'a> {
    #[inline]
    pub(crate) fn new(body: &'a [u8], extras: Extras) -> Self {
        let header = BlockHeader::read(body);
        // An offset into or before the status word wraps to one far outside, which is caught below.
        let at = (header.first_at as usize).wrapping_sub(BODY_AT);
        Self { body, rest: body.get(at..).unwrap_or_default(), left: header.packets, extras }
    }

    /// Returns the number of packets that the block announces and the walk has not reached yet.
    #[inline]
    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    /// Returns the offset of the next packet.
    pub(crate) fn at(&self) -> usize {
        self.body.len() - self.rest.len()
    }

    /// Continues where another walk of this block, which returned these values, would.
    pub(crate) fn go_to(&mut self, at: usize, left: u32) {
        (self.rest, self.left) = (self.body.get(at..).unwrap_or_default(), left);
    }

    /// Ends the walk and returns the number of announced packets left out.
    pub(crate) fn abandon(&mut self) -> u32 {
        std::mem::take(&mut self.left)
    }

    /// Returns the next packet, or `None` at the end or at an inconsistent header ([`left`] is then not 0).
    ///
    /// [`left`]: Self::left
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Packet<'a>> {
        if self.left == 0 {
            return None;
        }
        let rest = self.rest;
        let (header, behind) = rest.split_first_chunk::<HEADER_LEN>()?;
        let captured = u32_at(header, 12) as usize;
        let data_at = usize::from(u16_at(header, 24));
        if data_at < HEADER_LEN {
            return None;
        }
        let data = rest.get(data_at..data_at.checked_add(captured)?)?;
        let mut meta = self.meta(header);
        meta.offload = self.extras.offload(rest, data_at, HEADER_LEN);
        let packet = Packet::new(data, meta);
        self.left -= 1;
        // 0 is valid only after the last packet; elsewhere the walk would not advance, so 0 counts as
        // outside, too.
        let step = u32_at(header, 0) as usize;
        match behind.get(step.wrapping_sub(HEADER_LEN)..) {
            Some(next) => self.rest = next,
            None => self.rest = nothing_of(rest),
        }
        Some(packet)
    }

    #[inline]
    fn meta(&self, header: &[u8; HEADER_LEN]) -> PacketMeta {
        let word = u32_at(header, STATUS_AT);
        let status = PacketStatus::from_bits_retain(word & !UNHASHED);
        let vlan = status.contains(PacketStatus::VLAN_VALID).then(|| VlanTag {
            tci: u32_at(header, 32) as u16,
            tpid: if status.contains(PacketStatus::VLAN_TPID_VALID) {
                u16_at(header, 36)
            } else {
                libc::ETH_P_8021Q as u16 // kernels before 3.14 stripped only this one
            },
        });
        PacketMeta {
            wire_len: u32_at(header, 16),
            timestamp: Timestamp { secs: u32_at(header, 4), nanos: u32_at(header, 8) },
            status,
            rxhash: (self.extras.rxhash && word & UNHASHED == 0).then(|| u32_at(header, 28)),
            vlan,
            link: Some(LinkLayer::read(&header[LINK_AT..])),
            offload: None,
        }
    }
}

/// Returns the empty rest after the last packet.
#[cold] // once per block: avoids conditional moves for each packet
fn nothing_of(rest: &[u8]) -> &[u8] {
    &rest[..0]
}

#[inline]
fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::block_writer::BlockImage;
    use super::*;
    use crate::packet::Offload;

    const HASHED: Extras = Extras { rxhash: true, offload: false, retag: false, cooked: false };

    fn walk_all(body: &[u8]) -> (Vec<Vec<u8>>, u32) {
        let mut walk = Walk::new(body, HASHED);
        let mut packets = Vec::new();
        while let Some(packet) = walk.next() {
            packets.push(packet.data().to_vec());
        }
        (packets, walk.left())
    }

    fn image(packets: &[Vec<u8>]) -> Vec<u8> {
        let mut image = BlockImage::new(1 << 16);
        for data in packets {
            assert!(image.push(data, &PacketMeta::plain(data.len())));
        }
        image.finish(7)
    }

    #[test]
    fn a_block_without_packets_is_walked_in_no_step() {
        assert_eq!(walk_all(&image(&[])), (vec![], 0));
    }

    #[test]
    fn every_field_of_a_header_is_read_from_its_place() {
        let sent = PacketMeta {
            wire_len: 1500,
            timestamp: Timestamp { secs: 11, nanos: 22 },
            status: PacketStatus::VLAN_VALID | PacketStatus::VLAN_TPID_VALID,
            rxhash: Some(0xdead_beef),
            vlan: Some(VlanTag { tci: 0x6064, tpid: 0x88a8 }),
            link: Some(LinkLayer { pkttype: libc::PACKET_OUTGOING, ..LinkLayer::sample() }),
            offload: Some(Offload::read(&[1, 4, 66, 0, 8, 7, 34, 0, 16, 0])),
        };
        let mut image = BlockImage::new(4096);
        assert!(image.push(&[9; 60], &sent));
        let body = image.finish(41);
        let header = BlockHeader::read(&body);
        assert_eq!((header.packets, header.sequence), (1, 41));
        let packet = Walk::new(&body, Extras { offload: true, ..HASHED }).next().unwrap();
        assert_eq!(packet.data(), [9; 60]);
        assert_eq!(packet.original_len(), 1500);
        assert!(packet.is_truncated());
        assert_eq!(packet.timestamp(), sent.timestamp);
        assert_eq!(packet.rxhash(), Some(0xdead_beef));
        assert_eq!(packet.vlan(), sent.vlan);
        assert_eq!(packet.direction(), Some(crate::packet::PacketDirection::Outgoing));
        assert_eq!(packet.ll_protocol(), Some(0x0800));
        assert_eq!(packet.interface_index(), Some(1));
        assert_eq!(&*packet.source_ll_addr().unwrap(), &[2, 0, 0, 0, 0, 1]);
        assert_eq!(packet.offload(), sent.offload);
        let plain = Walk::new(&body, Extras::default()).next().unwrap();
        assert_eq!((plain.rxhash(), plain.offload()), (None, None));
    }

    #[test]
    fn a_packet_without_a_hash_has_none_beside_one_that_has() {
        let mut image = BlockImage::new(4096);
        for rxhash in [Some(7), None, Some(0)] {
            assert!(image.push(&[1; 60], &PacketMeta { rxhash, ..PacketMeta::plain(60) }));
        }
        let body = image.finish(1);
        let mut walk = Walk::new(&body, HASHED);
        for rxhash in [Some(7), None, Some(0)] {
            let packet = walk.next().unwrap();
            assert_eq!(packet.rxhash(), rxhash);
            assert_eq!(packet.status(), PacketMeta::plain(60).status, "the mark is ours alone");
        }
    }

    #[test]
    fn a_header_that_points_outside_ends_the_walk_and_tells_how_many_are_left() {
        let body = image(&[vec![1; 60], vec![2; 60], vec![3; 60]]);
        let first = (BlockHeader::read(&body).first_at as usize) - BODY_AT;
        let second =
            first + u32::from_ne_bytes(body[first..first + 4].try_into().unwrap()) as usize;
        for (field, value) in [(12, u32::MAX), (12, 1 << 20), (24, 0)] {
            let mut bad = body.clone();
            bad[second + field..second + field + 4].copy_from_slice(&value.to_ne_bytes());
            assert_eq!(walk_all(&bad), (vec![vec![1; 60]], 2));
        }
        let len = HEADER_LEN as u32;
        for step in [0, 1, len - 1, (body.len() - first) as u32, body.len() as u32, u32::MAX] {
            let mut bad = body.clone();
            bad[first..first + 4].copy_from_slice(&step.to_ne_bytes());
            assert_eq!(walk_all(&bad), (vec![vec![1; 60]], 2), "a step of {step}");
        }
        for data_at in [1, HEADER_LEN as u16 - 1, u16::MAX] {
            let mut bad = body.clone();
            bad[first + 24..first + 26].copy_from_slice(&data_at.to_ne_bytes());
            assert_eq!(walk_all(&bad), (vec![], 3), "data at {data_at}");
        }
        let mut bad = body;
        bad[4..8].copy_from_slice(&3_u32.to_ne_bytes());
        assert_eq!(walk_all(&bad), (vec![], 3), "a first offset inside the status word");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

        #[test]
        fn what_the_peer_writes_is_what_the_walk_reads(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..50)
        ) {
            prop_assert_eq!(walk_all(&image(&packets)), (packets, 0));
        }

        #[test]
        fn any_bytes_are_walked_without_a_panic_and_inside_the_block(
            mut body in prop::collection::vec(any::<u8>(), BLOCK_HEADER_LEN..2000),
            packets in 0_u32..50, first in 0_u32..100,
        ) {
            body[..4].copy_from_slice(&packets.to_ne_bytes());
            body[4..8].copy_from_slice(&first.to_ne_bytes());
            let (walked, left) = walk_all(&body);
            prop_assert_eq!(walked.len() as u32 + left, packets);
        }

        #[test]
        fn one_flipped_byte_never_makes_more_packets_than_announced(
            at in 8_usize..3000, value in any::<u8>()
        ) {
            let mut body = image(&vec![vec![5; 40]; 20]);
            let at = at % body.len();
            if at >= 8 {
                body[at] = value;
            }
            let (walked, left) = walk_all(&body);
            prop_assert!(walked.len() as u32 + left == 20 || at < 8);
        }
    }
}
