//! Lays packets out as a block's body, as `tpacket_rcv` does.
//!
//! Batches that do not come from a block ring are detached into this form, so that all packets in detached
//! memory are read by [`walk`](super::tpacket_v3).

use super::block::BODY_AT;
use super::tpacket_v3::{BLOCK_HEADER_LEN, HEADER_LEN, LINK_AT, UNHASHED};
use crate::packet::{Offload, PacketMeta};

/// Offset of the first packet in a block: after the 48 bytes of `struct tpacket_block_desc`.
const FIRST_AT: usize = 48;
/// Offset of a packet's bytes from its header: where the kernel places an Ethernet frame, with its network
/// header 16-aligned. An offload, if there is one, is right before them.
const DATA_AT: usize = 82;

/// The body of a block under construction: the part after the status word.
#[derive(Debug)]
pub(crate) struct BlockImage {
    body: Vec<u8>,
    capacity: usize,
    packets: u32,
    /// Offset of the last packet's header.
    last_at: Option<usize>,
}

impl BlockImage {
    /// Creates an image of at most `block_size` bytes.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn new(block_size: usize) -> Self {
        let capacity = block_size - BODY_AT;
        Self { body: vec![0; FIRST_AT - BODY_AT], capacity, packets: 0, last_at: None }
    }

    /// Creates an image with room for `packets` packets with `bytes` bytes in total, in one allocation.
    pub(crate) fn with_room(packets: usize, bytes: usize) -> Self {
        let capacity = FIRST_AT - BODY_AT + bytes + packets * (DATA_AT + 8);
        let mut body = Vec::with_capacity(capacity);
        body.resize(FIRST_AT - BODY_AT, 0);
        Self { body, capacity, packets: 0, last_at: None }
    }

    /// Creates an image without a size limit.
    #[cfg(feature = "pcap")]
    pub(crate) fn growing() -> Self {
        let capacity = usize::MAX;
        Self { body: vec![0; FIRST_AT - BODY_AT], capacity, packets: 0, last_at: None }
    }

    /// Returns the length so far in bytes.
    #[cfg(feature = "pcap")]
    pub(crate) fn len(&self) -> usize {
        self.body.len()
    }

    /// Returns the number of packets so far.
    #[cfg(feature = "pcap")]
    pub(crate) fn packets(&self) -> usize {
        self.packets as usize
    }

    /// Adds a packet; returns false if the block is full.
    pub(crate) fn push(&mut self, data: &[u8], meta: &PacketMeta) -> bool {
        // Packets are 8-aligned from the block's start, as TOTAL_PKT_LEN_INCL_ALIGN aligns them.
        let at = self.body.len();
        let step = (DATA_AT + data.len()).next_multiple_of(8);
        if at + step > self.capacity {
            return false;
        }
        self.body.extend_from_slice(&header(data.len(), meta, step));
        self.body.resize(at + DATA_AT, 0);
        if let Some(offload) = meta.offload {
            self.body[at + DATA_AT - Offload::LEN..].copy_from_slice(&offload.to_bytes());
        }
        self.body.extend_from_slice(data);
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

    /// Records the time at which the block was opened and the timestamp of its last packet.
    pub(crate) fn set_times(
        body: &mut [u8],
        first: crate::packet::Timestamp,
        last: crate::packet::Timestamp,
    ) {
        for (at, word) in [(20, first.secs), (24, first.nanos), (28, last.secs), (32, last.nanos)] {
            body[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
    }
}

fn header(captured: usize, meta: &PacketMeta, step: usize) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let words = [
        (0, step as u32),
        (4, meta.timestamp.secs),
        (8, meta.timestamp.nanos),
        (12, captured as u32),
        (16, meta.wire_len),
        (20, meta.status.bits() | if meta.rxhash.is_none() { UNHASHED } else { 0 }),
        (28, meta.rxhash.unwrap_or(0)),
        (32, meta.vlan.map_or(0, |vlan| u32::from(vlan.tci))),
    ];
    for (at, word) in words {
        header[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    header[24..26].copy_from_slice(&(DATA_AT as u16).to_ne_bytes());
    header[36..38].copy_from_slice(&meta.vlan.map_or(0, |vlan| vlan.tpid).to_ne_bytes());
    if let Some(link) = &meta.link {
        link.write(&mut header[LINK_AT..]);
    }
    header
}
