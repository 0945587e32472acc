//! Plays the kernel's half of a block ring, over plain memory.
//!
//! [`BlockImage`] lays packets out as `tpacket_rcv` does, and [`Peer`] retires such images into a
//! ring as `prb_close_block` does. Tests, Miri and users' own tests (feature `testing`) read them
//! through the same code that reads the kernel's.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::batch::PacketBatch;
use super::block::{BODY_AT, BlockRing, KernelHalf};
use super::walk::{BLOCK_HEADER_LEN, HEADER_LEN};
use crate::packet::{Timestamp, VlanTag};
use crate::sys::Mapping;

/// Where packets start in a block: behind the 48 bytes of `struct tpacket_block_desc`.
const FIRST_AT: usize = 48;
/// Where a packet's bytes start behind its header: 16-aligned and with room for what precedes the
/// network header, as the kernel places an Ethernet frame.
const DATA_AT: usize = 82;

/// A packet to put into a block, with all that the kernel would say of it.
#[derive(Debug, Clone)]
pub(crate) struct PeerPacket<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) wire_len: u32,
    pub(crate) timestamp: Timestamp,
    pub(crate) status: u32,
    pub(crate) rxhash: u32,
    pub(crate) vlan: VlanTag,
    pub(crate) pkttype: u8,
}

impl<'a> PeerPacket<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            wire_len: data.len() as u32,
            timestamp: Timestamp::default(),
            status: 0,
            rxhash: 0,
            vlan: VlanTag { tci: 0, tpid: 0 },
            pkttype: libc::PACKET_HOST,
        }
    }

    fn header(&self, step: usize) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        let words = [
            (0, step as u32),
            (4, self.timestamp.secs),
            (8, self.timestamp.nanos),
            (12, self.data.len() as u32),
            (16, self.wire_len),
            (20, self.status),
            (28, self.rxhash),
            (32, u32::from(self.vlan.tci)),
            (52, 1), // sll_ifindex
        ];
        for (at, word) in words {
            header[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        header[24..26].copy_from_slice(&(DATA_AT as u16).to_ne_bytes());
        header[36..38].copy_from_slice(&self.vlan.tpid.to_ne_bytes());
        header[50..52].copy_from_slice(&0x0800_u16.to_be_bytes());
        header[58] = self.pkttype;
        header[59] = 6;
        header[60..66].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        header
    }
}

/// The body of a block under construction: what lies behind the status word.
#[derive(Debug)]
pub(crate) struct BlockImage {
    body: Vec<u8>,
    capacity: usize,
    packets: u32,
    /// Where the last packet's header starts.
    last_at: Option<usize>,
}

impl BlockImage {
    pub(crate) fn new(block_size: usize) -> Self {
        let capacity = block_size - BODY_AT;
        Self { body: vec![0; FIRST_AT - BODY_AT], capacity, packets: 0, last_at: None }
    }

    /// Adds a packet; false where the block is full.
    pub(crate) fn push(&mut self, packet: &PeerPacket<'_>) -> bool {
        // Packets are 8-aligned from the block's start, as BLK_PLUS_PRIV and TOTAL_PKT_LEN make them.
        let at = self.body.len();
        let step = (DATA_AT + packet.data.len()).next_multiple_of(8);
        if at + step > self.capacity {
            return false;
        }
        self.body.extend_from_slice(&packet.header(step));
        self.body.resize(at + DATA_AT, 0);
        self.body.extend_from_slice(packet.data);
        self.body.resize(at + step, 0);
        self.packets += 1;
        self.last_at = Some(at);
        true
    }

    /// Closes the block: writes its header and ends the chain of packets.
    pub(crate) fn finish(mut self, sequence: u64) -> Vec<u8> {
        if let Some(last) = self.last_at {
            self.body[last..last + 4].fill(0);
        }
        let len = (self.body.len() + BODY_AT) as u32;
        let mut header = [0; BLOCK_HEADER_LEN];
        header[..4].copy_from_slice(&self.packets.to_ne_bytes());
        header[4..8].copy_from_slice(&(FIRST_AT as u32).to_ne_bytes());
        header[8..12].copy_from_slice(&len.to_ne_bytes());
        header[12..20].copy_from_slice(&sequence.to_ne_bytes());
        self.body[..BLOCK_HEADER_LEN].copy_from_slice(&header);
        self.body
    }
}

/// A block ring in plain memory, read like a kernel's.
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
    /// A ring of `block_count` blocks of `block_size` bytes (a multiple of 8, at least 256), and
    /// the peer that fills it.
    ///
    /// # Panics
    /// Where the sizes are not as said.
    pub fn new(block_size: usize, block_count: usize) -> (Self, Peer) {
        assert!(block_size >= 256 && block_size.is_multiple_of(8) && block_count >= 1);
        let malformed = Arc::new(AtomicU64::new(0));
        let mapping = Mapping::heap(block_size * block_count);
        let ring = BlockRing::new(mapping, block_size, true, malformed);
        let peer = Peer { kernel: ring.kernel_half(), cursor: 0, sequence: 1 };
        (Self { ring }, peer)
    }

    /// The next batch, if the peer has retired one.
    pub fn next_batch(&mut self) -> Option<PacketBatch> {
        self.ring.take().map(PacketBatch::from_block)
    }
}

impl Peer {
    /// Retires one block holding as many of `packets` as fit: how many that were, or `None` where
    /// the next block is still the reader's (the kernel would drop the packets).
    pub fn retire<'a>(&mut self, packets: impl IntoIterator<Item = &'a [u8]>) -> Option<usize> {
        let mut image = BlockImage::new(self.kernel.block_size());
        let fitted =
            packets.into_iter().take_while(|data| image.push(&PeerPacket::new(data))).count();
        let body = image.finish(self.sequence);
        if !self.kernel.retire(self.cursor, &body, 0) {
            return None;
        }
        self.cursor = (self.cursor + 1) % self.kernel.block_count();
        self.sequence += 1;
        Some(fitted)
    }
}
