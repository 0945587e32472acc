//! The kernel's half of a ring, played over plain memory.
//!
//! [`Peer`] retires [`BlockImage`]s into a block ring as `prb_close_block` does. Tests, Miri, and users' own
//! tests (feature `testing`) read them with the same code that reads the kernel's blocks.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::batch::PacketBatch;
use super::block::{BlockRing, KernelHalf};
use super::block_writer::BlockImage;
use super::rx_features::Extras;
#[cfg(test)]
use crate::packet::Offload;
use crate::packet::PacketMeta;
use crate::sys::Mapping;

/// A block ring in plain memory, read like one of the kernel's.
#[derive(Debug)]
pub struct TestRing {
    ring: BlockRing,
}

/// The kernel's half of a [`TestRing`].
#[derive(Debug)]
pub struct Peer {
    kernel: KernelHalf,
    cursor: usize,
    sequence: u64,
}

impl TestRing {
    /// Creates a ring of `block_count` blocks of `block_size` bytes (a multiple of 8, at least 256), and the
    /// peer that fills it.
    ///
    /// # Panics
    /// Panics if the sizes do not meet these conditions.
    pub fn new(block_size: usize, block_count: usize) -> (Self, Peer) {
        assert!(block_size >= 256 && block_size.is_multiple_of(8) && block_count >= 1);
        let malformed = Arc::new(AtomicU64::new(0));
        let mapping = Mapping::heap(block_size * block_count);
        let ring = BlockRing::new(
            mapping,
            block_size,
            Extras { rxhash: true, ..Extras::default() },
            malformed,
        );
        let peer = Peer { kernel: ring.kernel_half(), cursor: 0, sequence: 1 };
        (Self { ring }, peer)
    }

    /// Returns the next batch, if the peer has retired one.
    pub fn next_batch(&mut self) -> Option<PacketBatch> {
        self.ring.take().map(PacketBatch::from_block)
    }
}

impl Peer {
    /// Retires one block with as many of `packets` as fit and returns their number. Returns `None` if the
    /// reader still holds the next block (the kernel would drop the packets).
    pub fn retire<'a>(&mut self, packets: impl IntoIterator<Item = &'a [u8]>) -> Option<usize> {
        let mut image = BlockImage::new(self.kernel.block_size());
        let fitted = packets
            .into_iter()
            .take_while(|data| image.push(data, &PacketMeta::plain(data.len())))
            .count();
        let body = image.finish(self.sequence);
        if !self.kernel.retire(self.cursor, &body, 0) {
            return None;
        }
        self.cursor = (self.cursor + 1) % self.kernel.block_count();
        self.sequence += 1;
        Some(fitted)
    }
}

/// Returns a frame as `tpacket_rcv` writes it into a slot, starting after the status word.
#[cfg(test)]
pub(super) fn frame_image(data: &[u8], meta: &PacketMeta) -> Vec<u8> {
    let data_at = 76;
    let mut slot = vec![0; data_at];
    let (tci, tpid) = meta.vlan.map_or((0, 0), |vlan| (vlan.tci, vlan.tpid));
    let words = [
        (4, meta.wire_len),
        (8, data.len() as u32),
        (16, meta.timestamp.secs),
        (20, meta.timestamp.nanos),
    ];
    for (at, word) in words {
        slot[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    for (at, half) in [(12, data_at as u16), (24, tci), (26, tpid)] {
        slot[at..at + 2].copy_from_slice(&half.to_ne_bytes());
    }
    if let Some(link) = &meta.link {
        link.write(&mut slot[32..]);
    }
    if let Some(offload) = meta.offload {
        slot[data_at - Offload::LEN..].copy_from_slice(&offload.to_bytes());
    }
    slot.extend_from_slice(data);
    slot.split_off(super::slot::SLOT_BODY_AT)
}
