//! A batch: the packets of one lease, of the same type for every kind of ring.

use std::fmt;
use std::iter::FusedIterator;

use super::block::BlockLease;
use super::block_writer::BlockImage;
#[cfg(feature = "record")]
use super::disk::DiskBuffer;
#[cfg(feature = "record")]
use super::rewrite::pcapng::{Converted, Placed, Plan};
use super::rx_features::Extras;
use super::slot::FrameLease;
use super::tpacket_v2;
use super::tpacket_v3::{BlockHeader, Walk};
#[cfg(feature = "af-xdp")]
use super::umem::{ChunkLease, ChunkPlace, hints};
#[cfg(feature = "af-xdp")]
use crate::packet::PacketMeta;
use crate::packet::{Packet, Timestamp};

/// Packets that the kernel handed over together, in memory shared with it.
///
/// A batch owns its lease and borrows nothing: it may be kept, sent to another thread, and dropped in any
/// order with others, and it may outlive its socket. Dropping it returns the memory to the kernel without a
/// system call. While it is held, the kernel has one block less to fill, so hold few batches, or
/// [`detach`](Self::detach) a batch that is kept for long.
///
/// A batch that outlives its socket keeps its bytes in private memory; the socket itself closes and leaves
/// its fanout group at once (unless there was too little memory for that copy).
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
    Frames(FrameLease),
    #[cfg(feature = "af-xdp")]
    Chunks(ChunkLease, Seen),
    Arena(Arena),
}

/// An AF_XDP socket's information about all packets of a batch.
#[cfg(feature = "af-xdp")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// The time at which the batch was taken.
    pub(crate) time: Timestamp,
    /// The kind of interface (`ARPHRD_*`).
    pub(crate) hardware: u16,
    pub(crate) interface_index: u32,
    /// If the XDP program leaves hints before packets: what `CLOCK_TAI` is ahead of `CLOCK_REALTIME`, in nanoseconds.
    pub(crate) tai_offset: Option<u64>,
}

/// The body of a block, in its own memory.
struct Arena {
    body: Box<[u8]>,
    status: u32,
    extras: Extras,
}

impl PacketBatch {
    #[inline]
    pub(crate) fn from_block(lease: BlockLease) -> Self {
        Self { memory: Memory::Block(lease) }
    }

    #[inline]
    pub(crate) fn from_frames(lease: FrameLease) -> Self {
        Self { memory: Memory::Frames(lease) }
    }

    #[cfg(feature = "af-xdp")]
    pub(crate) fn from_chunks(lease: ChunkLease, seen: Seen) -> Self {
        Self { memory: Memory::Chunks(lease, seen) }
    }

    /// Returns the lease of an AF_XDP socket's batch, or any other batch unchanged.
    #[cfg(feature = "af-xdp")]
    pub(crate) fn into_chunks(self) -> Result<ChunkLease, Self> {
        match self.memory {
            Memory::Chunks(lease, _) => Ok(lease),
            memory => Err(Self { memory }),
        }
    }

    /// Returns the number of packets in this batch. It may be 0: the kernel retires an empty block if a
    /// packet was too large for it.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.memory {
            Memory::Block(lease) => BlockHeader::read(lease.body()).packets as usize,
            Memory::Frames(lease) => lease.len(),
            #[cfg(feature = "af-xdp")]
            Memory::Chunks(lease, _) => lease.len(),
            Memory::Arena(arena) => BlockHeader::read(&arena.body).packets as usize,
        }
    }

    /// Returns whether the batch holds no packets.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns an iterator over the packets, in the order in which the kernel saw them.
    #[inline]
    pub fn iter(&self) -> Packets<'_> {
        let source = match &self.memory {
            Memory::Block(lease) => Walked::Block(Walk::new(lease.body(), lease.extras())),
            Memory::Frames(lease) => Walked::Frames { lease, next: 0 },
            #[cfg(feature = "af-xdp")]
            Memory::Chunks(lease, seen) => {
                Walked::Chunks { lease, place: lease.start(), seen: *seen }
            }
            Memory::Arena(arena) => Walked::Block(Walk::new(&arena.body, arena.extras)),
        };
        Packets { source, memory: &self.memory }
    }

    /// Returns an iterator over the packets, each with the `len` bytes before it, where a custom XDP program
    /// may have left its metadata (`bpf_xdp_adjust_meta`). The kernel copies these bytes along. There is no
    /// way to tell whether the program wrote them: bytes that were not written hold whatever was there
    /// before.
    ///
    /// The bytes are `None` for packets of other sockets, for packets that took several frames of the UMEM,
    /// for detached packets, and if there are fewer than `len` bytes: the kernel leaves 256, plus the
    /// [`headroom`](crate::xdp::XdpSocketBuilder::headroom).
    #[cfg(feature = "af-xdp")]
    pub fn iter_with_metadata(
        &self,
        len: usize,
    ) -> impl Iterator<Item = (Option<&[u8]>, Packet<'_>)> {
        let mut packets = self.iter();
        std::iter::from_fn(move || {
            let before = match &packets.source {
                Walked::Chunks { lease, place, .. } => lease.before(*place, len),
                _ => None,
            };
            packets.next().map(|packet| (before, packet))
        })
    }

    /// Returns an iterator that starts at a place reached by another iterator over this batch.
    pub(crate) fn iter_from(&self, place: Place) -> Packets<'_> {
        let mut packets = self.iter();
        match (&mut packets.source, place) {
            (Walked::Block(walk), Place::Block { at, left }) => walk.go_to(at, left),
            (Walked::Frames { next, .. }, Place::Frame(number)) => *next = number,
            #[cfg(feature = "af-xdp")]
            (Walked::Chunks { place, .. }, Place::Chunk(at)) => *place = at,
            _ => unreachable!("a place of another batch"),
        }
        packets
    }

    /// Returns the batch's number, counted from 1 without gaps: drops leave none. The kernel numbers blocks;
    /// the capture numbers runs of frames.
    #[inline]
    pub fn seq_num(&self) -> u64 {
        match &self.memory {
            Memory::Block(lease) => BlockHeader::read(lease.body()).sequence,
            Memory::Frames(lease) => lease.sequence(),
            #[cfg(feature = "af-xdp")]
            Memory::Chunks(lease, _) => lease.sequence(),
            Memory::Arena(arena) => BlockHeader::read(&arena.body).sequence,
        }
    }

    /// Returns whether, when the batch was filled, packets had been dropped and the statistics had not been
    /// read since.
    #[inline]
    pub fn is_losing(&self) -> bool {
        self.status() & libc::TP_STATUS_LOSING != 0
    }

    /// Returns whether the block was handed over because its timeout expired, not because it was full.
    #[inline]
    pub fn timed_out(&self) -> bool {
        matches!(self.memory, Memory::Block(_) | Memory::Arena(_))
            && self.status() & libc::TP_STATUS_BLK_TMO != 0
    }

    /// Returns the time at which the kernel opened the block, shortly before its first packet; for a run of
    /// frames, and of AF_XDP, the timestamp of the first packet.
    pub fn ts_first(&self) -> Timestamp {
        match &self.memory {
            Memory::Block(lease) => BlockHeader::read(lease.body()).first_time,
            Memory::Frames(lease) => stamp(lease, 0),
            #[cfg(feature = "af-xdp")]
            Memory::Chunks(_, seen) => {
                self.iter().next().map_or(seen.time, |packet| packet.timestamp())
            }
            Memory::Arena(arena) => BlockHeader::read(&arena.body).first_time,
        }
    }

    /// Returns the timestamp of the last packet.
    pub fn ts_last(&self) -> Timestamp {
        match &self.memory {
            Memory::Block(lease) => BlockHeader::read(lease.body()).last_time,
            Memory::Frames(lease) => stamp(lease, lease.len() - 1),
            #[cfg(feature = "af-xdp")]
            Memory::Chunks(_, seen) if seen.tai_offset.is_none() => seen.time,
            #[cfg(feature = "af-xdp")]
            Memory::Chunks(_, seen) => {
                self.iter().last().map_or(seen.time, |packet| packet.timestamp())
            }
            Memory::Arena(arena) => BlockHeader::read(&arena.body).last_time,
        }
    }

    /// Moves the packets out of the ring: one allocation and one copy for the whole batch, and its memory
    /// returns to the kernel. A batch that is already detached is returned unchanged.
    #[must_use]
    pub fn detach(self) -> Self {
        match &self.memory {
            Memory::Arena(_) => self,
            _ => self.to_detached(),
        }
    }

    /// Copies the packets into their own memory: one allocation for the whole batch.
    #[must_use]
    pub fn to_detached(&self) -> Self {
        let (body, extras) = match &self.memory {
            Memory::Arena(arena) => (arena.body.clone(), arena.extras),
            Memory::Block(lease) => {
                let body = lease.body();
                (body[..BlockHeader::read(body).used_len(body)].into(), lease.extras())
            }
            Memory::Frames(lease) => (self.lay_out(), lease.extras()),
            #[cfg(feature = "af-xdp")]
            Memory::Chunks(..) => {
                let rxhash = self.iter().any(|packet| packet.rxhash().is_some());
                (self.lay_out(), Extras { rxhash, ..Extras::default() })
            }
        };
        Self { memory: Memory::Arena(Arena { body, status: self.status(), extras }) }
    }

    /// Returns whether this is a block of a ring that can be turned into pcapng where it lies.
    #[cfg(feature = "record")]
    pub(crate) fn suits_disk(&self, align: usize) -> bool {
        matches!(&self.memory, Memory::Block(lease) if !lease.extras().cooked && lease.size().is_multiple_of(align))
    }

    /// Turns a block of a ring into pcapng where it lies. `see` is given each packet. Returns any other batch
    /// unchanged.
    #[cfg(feature = "record")]
    pub(crate) fn into_disk(
        self,
        plan: &Plan<'_>,
        see: impl FnMut(Placed<'_>),
    ) -> Result<(DiskBuffer, Converted), Self> {
        if !self.suits_disk(plan.align) {
            return Err(self);
        }
        match self.memory {
            Memory::Block(mut lease) => {
                let converted = lease.convert(plan, see);
                Ok((DiskBuffer::Block { lease, len: converted.len }, converted))
            }
            memory => Err(Self { memory }),
        }
    }

    /// Creates a batch from a block's body.
    #[cfg(feature = "pcap")]
    pub(crate) fn of_body(body: Box<[u8]>) -> Self {
        Self { memory: Memory::Arena(Arena { body, status: 0, extras: Extras::default() }) }
    }

    /// Returns the bytes of memory that the batch takes when detached.
    #[cfg(feature = "pcap")]
    pub(crate) fn memory(&self) -> usize {
        match &self.memory {
            Memory::Arena(arena) => arena.body.len(),
            Memory::Block(lease) => BlockHeader::read(lease.body()).used_len(lease.body()),
            _ => self.iter().map(|packet| packet.len() + 90).sum(),
        }
    }

    /// Returns whether the packets are in their own memory, not in the ring.
    pub fn is_detached(&self) -> bool {
        matches!(self.memory, Memory::Arena(_))
    }

    /// Lays the packets out as a block's body.
    fn lay_out(&self) -> Box<[u8]> {
        let bytes = self.iter().map(|packet| packet.len()).sum();
        let mut image = BlockImage::with_room(self.len(), bytes);
        for packet in self {
            image.push(packet.data(), packet.meta());
        }
        let mut body = image.finish(self.seq_num());
        BlockImage::set_times(&mut body, self.ts_first(), self.ts_last());
        body.into()
    }

    #[inline]
    fn status(&self) -> u32 {
        match &self.memory {
            Memory::Block(lease) => lease.status(),
            Memory::Frames(lease) => lease.flags(),
            #[cfg(feature = "af-xdp")]
            Memory::Chunks(..) => 0,
            Memory::Arena(arena) => arena.status,
        }
    }
}

fn stamp(lease: &FrameLease, number: usize) -> Timestamp {
    let (status, body) = lease.frame(number);
    tpacket_v2::read(status, body, lease.extras())
        .map(|packet| packet.timestamp())
        .unwrap_or_default()
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

/// The position of an iterator over a batch, for code that keeps the batch but not the iterator.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    Block {
        at: usize,
        left: u32,
    },
    Frame(usize),
    #[cfg(feature = "af-xdp")]
    Chunk(ChunkPlace),
}

/// An iterator over the packets of a [`PacketBatch`].
#[derive(Clone)]
pub struct Packets<'a> {
    source: Walked<'a>,
    memory: &'a Memory,
}

#[derive(Clone)]
enum Walked<'a> {
    Block(Walk<'a>),
    Frames {
        lease: &'a FrameLease,
        next: usize,
    },
    #[cfg(feature = "af-xdp")]
    Chunks {
        lease: &'a ChunkLease,
        place: ChunkPlace,
        seen: Seen,
    },
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    #[inline]
    fn next(&mut self) -> Option<Packet<'a>> {
        match &mut self.source {
            Walked::Block(walk) => {
                let packet = walk.next();
                if packet.is_none() && walk.left() != 0 {
                    let left = walk.abandon();
                    self.give_up(left.into());
                }
                packet
            }
            Walked::Frames { lease, next } => {
                while *next < lease.len() {
                    let number = *next;
                    let (status, body) = lease.frame(number);
                    *next += 1;
                    match tpacket_v2::read(status, body, lease.extras()) {
                        Some(packet) => return Some(packet),
                        None => lease.count_malformed(number),
                    }
                }
                None
            }
            #[cfg(feature = "af-xdp")]
            Walked::Chunks { lease, place, seen } => {
                let before = *place;
                let data = lease.frame(place)?;
                let Seen { time, hardware, interface_index, tai_offset } = *seen;
                let mut meta = PacketMeta::of_frame(data, time, (hardware, interface_index));
                if let Some(tai_offset) = tai_offset
                    && let Some(bytes) = lease.before(before, hints::HINTS_LEN)
                {
                    hints::read(bytes, tai_offset, &mut meta);
                }
                Some(Packet::new(data, meta))
            }
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left()))
    }
}

impl FusedIterator for Packets<'_> {}

impl Packets<'_> {
    /// Returns the place at which [`PacketBatch::iter_from`] would go on.
    pub(crate) fn place(&self) -> Place {
        match &self.source {
            Walked::Block(walk) => Place::Block { at: walk.at(), left: walk.left() },
            Walked::Frames { next, .. } => Place::Frame(*next),
            #[cfg(feature = "af-xdp")]
            Walked::Chunks { place, .. } => Place::Chunk(*place),
        }
    }

    /// Advances by one packet and returns the place at which an iterator would start with that packet.
    pub(crate) fn next_place(&mut self) -> Option<Place> {
        let before = self.place();
        self.next()?;
        Some(match self.place() {
            Place::Frame(next) => Place::Frame(next - 1), // earlier frames may have been left out
            _ => before,
        })
    }

    #[inline]
    fn left(&self) -> usize {
        match &self.source {
            Walked::Block(walk) => walk.left() as usize,
            Walked::Frames { lease, next } => lease.len() - next,
            #[cfg(feature = "af-xdp")]
            Walked::Chunks { place, .. } => place.left(),
        }
    }

    /// Counts, once, the packets left out because of an inconsistent header.
    #[cold]
    fn give_up(&self, left: u64) {
        if let Memory::Block(lease) = self.memory {
            lease.count_malformed(left);
        }
    }
}

impl fmt::Debug for Packets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packets").field("left", &self.left()).finish_non_exhaustive()
    }
}
