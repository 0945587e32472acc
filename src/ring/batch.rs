//! A batch: what one lease yields, the same type whatever it was leased from.

use std::fmt;
use std::iter::FusedIterator;

use super::block::BlockLease;
use super::walk::{BlockHeader, Walk};
use crate::packet::{Packet, Timestamp};

/// Packets that the kernel handed over together, in memory it shares with us.
///
/// A batch owns its lease: it borrows nothing, may be kept, sent to another thread, and dropped in
/// any order with others; it outlives its socket. Dropping it gives the memory back to the kernel,
/// without a system call. While it is held, the kernel has one block less to fill, so hold few, or
/// [`detach`](Self::detach) what is to be kept long.
///
/// A batch that outlives its socket keeps its bytes in private memory; the socket itself is gone
/// and out of its fanout group at once (unless memory was too short for that copy).
///
/// ```
/// # fn main() {
/// # #[cfg(feature = "testing")] {
/// let (mut ring, mut peer) = ringtap::testing::TestRing::new(4096, 2);
/// peer.retire([b"first".as_slice(), b"second"]);
/// let batch = ring.next_batch().unwrap();
/// let lengths: Vec<usize> = batch.iter().map(|packet| packet.len()).collect();
/// assert_eq!(lengths, [5, 6]);
/// # } }
/// ```
pub struct PacketBatch {
    memory: Memory,
}

enum Memory {
    Block(BlockLease),
    Arena(Arena),
}

/// The body of a block, copied out of its ring.
struct Arena {
    body: Box<[u8]>,
    status: u32,
    has_rxhash: bool,
}

impl PacketBatch {
    #[inline]
    pub(crate) fn from_block(lease: BlockLease) -> Self {
        Self { memory: Memory::Block(lease) }
    }

    /// Packets in this batch. May be 0: the kernel retires an empty block when a packet was too
    /// large for it.
    #[inline]
    pub fn len(&self) -> usize {
        self.header().packets as usize
    }

    /// Whether the batch holds no packet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The packets, in the order in which the kernel saw them.
    #[inline]
    pub fn iter(&self) -> Packets<'_> {
        Packets { walk: Walk::new(self.body(), self.has_rxhash()), memory: &self.memory }
    }

    /// The block's sequence number, counted by the kernel from 1 without gaps: drops leave none.
    #[inline]
    pub fn seq_num(&self) -> u64 {
        self.header().sequence
    }

    /// Whether packets had been dropped, and statistics not been read, when the block was closed.
    #[inline]
    pub fn is_losing(&self) -> bool {
        self.status() & libc::TP_STATUS_LOSING != 0
    }

    /// Whether the block was handed over because its time was up, not because it was full.
    #[inline]
    pub fn timed_out(&self) -> bool {
        self.status() & libc::TP_STATUS_BLK_TMO != 0
    }

    /// When the kernel opened the block, shortly before its first packet.
    #[inline]
    pub fn ts_first(&self) -> Timestamp {
        self.header().first_time
    }

    /// When the last packet was stamped.
    #[inline]
    pub fn ts_last(&self) -> Timestamp {
        self.header().last_time
    }

    /// Moves the packets out of the ring: one allocation and one copy for the whole batch, and the
    /// block goes back to the kernel. What is detached already is returned as it is.
    #[must_use]
    pub fn detach(self) -> Self {
        match &self.memory {
            Memory::Arena(_) => self,
            Memory::Block(lease) => {
                let used = self.header().used_len(lease.body());
                let arena = Arena {
                    body: lease.body()[..used].into(),
                    status: lease.status(),
                    has_rxhash: lease.has_rxhash(),
                };
                Self { memory: Memory::Arena(arena) }
            }
        }
    }

    /// Whether the packets are in memory of their own, not in the ring.
    pub fn is_detached(&self) -> bool {
        matches!(self.memory, Memory::Arena(_))
    }

    #[inline]
    fn body(&self) -> &[u8] {
        match &self.memory {
            Memory::Block(lease) => lease.body(),
            Memory::Arena(arena) => &arena.body,
        }
    }

    #[inline]
    fn header(&self) -> BlockHeader {
        BlockHeader::read(self.body())
    }

    #[inline]
    fn status(&self) -> u32 {
        match &self.memory {
            Memory::Block(lease) => lease.status(),
            Memory::Arena(arena) => arena.status,
        }
    }

    #[inline]
    fn has_rxhash(&self) -> bool {
        match &self.memory {
            Memory::Block(lease) => lease.has_rxhash(),
            Memory::Arena(arena) => arena.has_rxhash,
        }
    }
}

impl<'a> IntoIterator for &'a PacketBatch {
    type Item = Packet<'a>;
    type IntoIter = Packets<'a>;

    #[inline]
    fn into_iter(self) -> Packets<'a> {
        self.iter()
    }
}

impl fmt::Debug for PacketBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketBatch")
            .field("len", &self.len())
            .field("seq_num", &self.seq_num())
            .field("detached", &self.is_detached())
            .finish_non_exhaustive()
    }
}

/// Iterates over the packets of a [`PacketBatch`].
#[derive(Clone)]
pub struct Packets<'a> {
    walk: Walk<'a>,
    memory: &'a Memory,
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    #[inline]
    fn next(&mut self) -> Option<Packet<'a>> {
        let packet = self.walk.next();
        if packet.is_none() && self.walk.left() != 0 {
            self.give_up();
        }
        packet
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.walk.left() as usize))
    }
}

impl FusedIterator for Packets<'_> {}

impl Packets<'_> {
    /// Counts what a header that does not hold together left out, once.
    #[cold]
    fn give_up(&mut self) {
        let left = self.walk.abandon();
        if let Memory::Block(lease) = self.memory {
            lease.count_malformed(u64::from(left));
        }
    }
}

impl fmt::Debug for Packets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packets").field("left", &self.walk.left()).finish_non_exhaustive()
    }
}
