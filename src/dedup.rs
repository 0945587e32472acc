//! Removal of duplicate packets.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;

use crate::error::Result;
use crate::packet::{Packet, PacketDirection};
use crate::ring::batch::PacketBatch;

/// Detects packets that have been seen before.
///
/// ```
/// use std::time::Duration;
///
/// use ringtap::dedup::Dedup;
///
/// # fn one(packet: &ringtap::Packet<'_>) {
/// let mut dedup = Dedup::content(Duration::from_millis(50), 100_000);
/// if dedup.keep(packet) {
///     // the first with this content in 50 ms
/// }
/// # }
/// ```
///
/// Two packets are the same if their bytes, their VLAN tag, and their length on the wire are equal. They are
/// compared by a 64-bit hash under a random key, so that nobody can craft a packet that hides another. Each
/// packet takes constant time, and memory is bounded by the capacity: some 100 bytes per packet remembered.
#[derive(Debug)]
pub struct Dedup {
    mode: DedupMode,
    window: u64,
    capacity: usize,
    hasher: RandomState,
    /// The packets remembered, oldest first.
    seen: VecDeque<Seen>,
    /// The number of the first entry of `seen`.
    first: u64,
    /// The newest entry of each key that still counts.
    last: HashMap<Key, u64, BuildHasherDefault<AsIs>>,
    stats: DedupStats,
}

/// Maximum number of packets remembered.
const MAX_CAPACITY: usize = 1 << 24;

/// Criterion by which a packet counts as a duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DedupMode {
    /// A packet is a duplicate if it was seen before, in either direction.
    Content,
    /// A packet is a duplicate if it was seen in the other direction. On loopback, each packet is seen once as it
    /// goes out and once as it comes in. A packet that is sent twice counts twice.
    Loopback,
}

/// Counters of a [`Dedup`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DedupStats {
    /// Packets examined.
    pub packets: u64,
    /// Packets found to be duplicates.
    pub duplicates: u64,
    /// Packets forgotten early because the capacity was reached; their duplicates were not detected. Packets
    /// forgotten because the clock stepped back are not counted.
    pub evicted: u64,
}

/// The identity of a packet, by its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    hash: u64,
    wire_len: usize,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// The hasher of keys, which are hashed already, under a random key.
#[derive(Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    key: Key,
    /// Nanoseconds since the epoch.
    time: u64,
    is_outgoing: bool,
    /// Whether the entry still counts, that is, no packet in the other direction has been matched to it.
    counts: bool,
    /// The number of the previous entry of the same key, if it counts and is still remembered.
    before: Option<u64>,
}

impl Dedup {
    /// Creates a deduplicator for loopback: a packet and the same packet in the other direction within 1 ms
    /// count as one. It has room for 65,536 packets.
    pub fn loopback() -> Self {
        Self::new(DedupMode::Loopback, Duration::from_millis(1), 1 << 16)
    }

    /// Creates a deduplicator for several taps of the same traffic: equal packets within `window` of the first
    /// count as one. `capacity` is the number of packets remembered; it should cover the packets of one window.
    pub fn content(window: Duration, capacity: usize) -> Self {
        Self::new(DedupMode::Content, window, capacity)
    }

    /// Creates a deduplicator with any mode, window and capacity. The capacity is limited to 16,777,216.
    pub fn new(mode: DedupMode, window: Duration, capacity: usize) -> Self {
        let capacity = capacity.clamp(1, MAX_CAPACITY);
        Self {
            mode,
            window: u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
            capacity,
            hasher: RandomState::new(),
            seen: VecDeque::with_capacity(capacity.min(1 << 16) + 1),
            first: 0,
            last: HashMap::with_capacity_and_hasher(capacity.min(1 << 16), Default::default()),
            stats: DedupStats::default(),
        }
    }

    /// Returns whether a packet is new. Time is taken from the packets' own timestamps; if it steps back,
    /// entries that are now in the future are forgotten.
    pub fn keep(&mut self, packet: &Packet<'_>) -> bool {
        self.stats.packets += 1;
        let time = packet.timestamp().as_nanos();
        let tag = packet.stripped_vlan().map(|tag| tag.to_bytes());
        let hash = self.hasher.hash_one((packet.data(), tag));
        let key = Key { hash, wire_len: packet.original_len() };
        let is_outgoing = packet.direction() == Some(PacketDirection::Outgoing);
        self.forget(time);
        let Some(before) = self.note(key, time, is_outgoing) else {
            self.stats.duplicates += 1;
            return false;
        };
        self.seen.push_back(Seen { key, time, is_outgoing, counts: true, before });
        if self.seen.len() > self.capacity && self.pop().counts {
            self.stats.evicted += 1;
        }
        true
    }

    /// Returns the counters so far.
    pub fn stats(&self) -> DedupStats {
        self.stats
    }

    /// Makes a packet the newest of its key, and returns the number of the one before it; `None` if it is a duplicate.
    fn note(&mut self, key: Key, time: u64, is_outgoing: bool) -> Option<Option<u64>> {
        let number = self.first + self.seen.len() as u64;
        let mut newest = match self.last.entry(key) {
            Entry::Vacant(place) => {
                place.insert(number);
                return Some(None);
            }
            Entry::Occupied(newest) => newest,
        };
        let last = &mut self.seen[(newest.get() - self.first) as usize];
        let is_recent = last.time.abs_diff(time) <= self.window;
        match self.mode {
            DedupMode::Content if is_recent => None,
            DedupMode::Loopback if is_recent && last.is_outgoing != is_outgoing => {
                // The pair is matched and complete.
                last.counts = false;
                match last.before.filter(|before| *before >= self.first) {
                    Some(before) => drop(newest.insert(before)),
                    None => drop(newest.remove()),
                }
                None
            }
            _ => Some(Some(newest.insert(number))),
        }
    }

    /// Forgets entries that are too old, and entries left in the future after time has stepped back.
    fn forget(&mut self, now: u64) {
        while self.seen.front().is_some_and(|oldest| oldest.time.abs_diff(now) > self.window) {
            self.pop();
        }
    }

    fn pop(&mut self) -> Seen {
        let oldest = self.seen.pop_front().expect("the caller has seen one");
        if oldest.counts
            && let Entry::Occupied(newest) = self.last.entry(oldest.key)
            && *newest.get() == self.first
        {
            newest.remove();
        }
        self.first += 1;
        oldest
    }
}

/// A batch together with the information which of its packets are new; from [`DedupExt::with_dedup`].
pub struct DedupedBatch {
    batch: PacketBatch,
    /// One bit per packet, set for duplicates.
    duplicates: Vec<u64>,
}

impl DedupedBatch {
    fn new(batch: PacketBatch, dedup: &mut Dedup) -> Self {
        let mut duplicates = Vec::new();
        for (number, packet) in batch.iter().enumerate() {
            if !dedup.keep(&packet) {
                duplicates.resize(duplicates.len().max(number / 64 + 1), 0);
                duplicates[number / 64] |= 1 << (number % 64);
            }
        }
        Self { batch, duplicates }
    }

    /// Returns the packets that are new.
    pub fn iter(&self) -> impl Iterator<Item = Packet<'_>> {
        let packets = self.batch.iter().enumerate();
        packets.filter(|(number, _)| !self.is_duplicate(*number)).map(|(_, packet)| packet)
    }

    /// Returns all packets, duplicates included.
    pub fn batch(&self) -> &PacketBatch {
        &self.batch
    }

    fn is_duplicate(&self, number: usize) -> bool {
        self.duplicates.get(number / 64).is_some_and(|bits| bits & 1 << (number % 64) != 0)
    }
}

impl fmt::Debug for DedupedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let duplicates: u32 = self.duplicates.iter().map(|bits| bits.count_ones()).sum();
        f.debug_struct("DedupedBatch")
            .field("batch", &self.batch)
            .field("duplicates", &duplicates)
            .finish()
    }
}

/// Extension of streams of batches that marks duplicates.
pub trait DedupExt: Stream<Item = Result<PacketBatch>> + Sized {
    /// Marks duplicates in each batch of the stream.
    fn with_dedup(self, dedup: Dedup) -> DedupStream<Self> {
        DedupStream { stream: self, dedup }
    }
}

impl<St: Stream<Item = Result<PacketBatch>>> DedupExt for St {}

/// A stream of batches with duplicates marked; from [`DedupExt::with_dedup`].
#[derive(Debug)]
pub struct DedupStream<St> {
    stream: St,
    dedup: Dedup,
}

impl<St> DedupStream<St> {
    /// Returns the counters so far.
    pub fn stats(&self) -> DedupStats {
        self.dedup.stats()
    }

    /// Returns the inner stream.
    pub fn get_ref(&self) -> &St {
        &self.stream
    }

    /// Splits this into the inner stream and the deduplicator.
    pub fn into_parts(self) -> (St, Dedup) {
        (self.stream, self.dedup)
    }
}

impl<St: Stream<Item = Result<PacketBatch>> + Unpin> Stream for DedupStream<St> {
    type Item = Result<DedupedBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let next = ready!(Pin::new(&mut this.stream).poll_next(cx));
        Poll::Ready(next.map(|batch| batch.map(|batch| DedupedBatch::new(batch, &mut this.dedup))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{LinkLayer, PacketMeta, Timestamp, VlanTag};

    const OUT: u8 = libc::PACKET_OUTGOING;
    const IN: u8 = libc::PACKET_HOST;
    const MILLI: u64 = 1_000_000;

    /// Offers a one-byte packet with the given time and direction.
    fn keep(dedup: &mut Dedup, byte: u8, nanos: u64, pkttype: u8) -> bool {
        let data = [byte];
        let mut meta = PacketMeta::plain(1);
        meta.link = Some(LinkLayer { pkttype, ..LinkLayer::sample() });
        meta.timestamp = Timestamp {
            secs: 100 + (nanos / 1_000_000_000) as u32,
            nanos: (nanos % 1_000_000_000) as u32,
        };
        dedup.keep(&Packet::new(&data, meta))
    }

    #[test]
    fn on_loopback_each_packet_counts_once_however_often_it_is_sent() {
        let mut dedup = Dedup::loopback();
        assert!(keep(&mut dedup, 1, 0, OUT));
        assert!(!keep(&mut dedup, 1, 10, IN));
        // Sent twice before it comes in for the first time.
        assert!(keep(&mut dedup, 1, 20, OUT));
        assert!(keep(&mut dedup, 1, 30, OUT));
        assert!(!keep(&mut dedup, 1, 40, IN));
        assert!(!keep(&mut dedup, 1, 50, IN));
        assert!(keep(&mut dedup, 1, 60, IN), "of which none went out");
        assert!(keep(&mut dedup, 2, 0, OUT));
        assert!(keep(&mut dedup, 2, 2 * MILLI, IN), "too late to be the same");
        assert_eq!(dedup.stats(), DedupStats { packets: 9, duplicates: 3, evicted: 0 });
    }

    #[test]
    fn the_same_content_counts_once_a_window() {
        let mut dedup = Dedup::content(Duration::from_millis(5), 10);
        assert!(keep(&mut dedup, 1, 0, IN));
        assert!(!keep(&mut dedup, 1, 2 * MILLI, OUT));
        assert!(!keep(&mut dedup, 1, 5 * MILLI, IN));
        assert!(keep(&mut dedup, 1, 5 * MILLI + 1, IN), "counted from the first");
        assert!(!keep(&mut dedup, 1, 6 * MILLI, IN));
    }

    #[test]
    fn length_on_the_wire_and_tag_are_a_part_of_it() {
        let mut dedup = Dedup::content(Duration::from_secs(1), 10);
        let mut of = |wire_len, vlan| {
            let mut meta = PacketMeta { vlan, ..PacketMeta::plain(60) };
            meta.wire_len = wire_len;
            dedup.keep(&Packet::new(&[0; 60], meta))
        };
        let tag = |tci| Some(VlanTag { tci, tpid: 0x8100 });
        assert!(of(60, None) && of(61, None) && of(60, tag(1)) && of(60, tag(2)));
        assert!(!of(60, None) && !of(61, None) && !of(60, tag(1)) && !of(60, tag(2)));
    }

    #[test]
    fn where_time_steps_back_the_future_is_forgotten() {
        let mut dedup = Dedup::content(Duration::from_millis(1), 100);
        assert!(keep(&mut dedup, 1, 3_600_000 * MILLI, IN));
        assert!(keep(&mut dedup, 1, 0, IN));
        assert!(!keep(&mut dedup, 1, 10, IN));
        assert!(!keep(&mut dedup, 1, 5, IN), "a little back is the same window");
        assert_eq!(dedup.seen.len(), 1);
    }

    #[test]
    fn memory_is_bounded_and_what_it_costs_is_counted() {
        let mut dedup = Dedup::content(Duration::from_secs(1), 4);
        for byte in 0..10 {
            assert!(keep(&mut dedup, byte, 0, IN));
        }
        assert_eq!((dedup.seen.len(), dedup.last.len(), dedup.stats().evicted), (4, 4, 6));
        assert!(keep(&mut dedup, 0, 1, IN), "forgotten");
        assert!(!keep(&mut dedup, 9, 1, IN));
    }

    #[test]
    fn it_tells_as_a_slow_and_simple_one_does() {
        let mut state = 0x1234_5678_9abc_def1_u64;
        let mut roll = |sides: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % sides
        };
        for mode in [DedupMode::Content, DedupMode::Loopback] {
            let window = 40;
            let mut dedup = Dedup::new(mode, Duration::from_nanos(window), 1_000);
            let mut simple: Vec<(u8, u64, u8)> = Vec::new();
            let mut now = 0;
            for _ in 0..20_000 {
                now += roll(6);
                let (byte, way) = (roll(5) as u8, if roll(2) == 0 { OUT } else { IN });
                simple.retain(|(_, time, _)| now - time <= window);
                let found = simple
                    .iter()
                    .rposition(|(other, _, _)| *other == byte)
                    .filter(|at| mode == DedupMode::Content || simple[*at].2 != way);
                match (found, mode) {
                    (Some(at), DedupMode::Loopback) => drop(simple.remove(at)),
                    (Some(_), _) => {}
                    (None, _) => simple.push((byte, now, way)),
                }
                assert_eq!(keep(&mut dedup, byte, now, way), found.is_none());
            }
            assert!(dedup.stats().duplicates > 2_000, "{:?}", dedup.stats());
        }
    }

    #[test]
    fn a_batch_gives_each_packet_but_its_duplicates_in_order() {
        let (mut ring, mut peer) = crate::ring::fake_kernel::TestRing::new(1 << 16, 1);
        let mut dedup = Dedup::content(Duration::MAX, 1000);
        // Each content occurs three times in 200 packets, so that every word of bits has duplicates.
        let packets: Vec<[u8; 60]> = (0..200).map(|number| [number / 3; 60]).collect();
        peer.retire(packets.iter().map(<[u8; 60]>::as_slice)).unwrap();
        let batch = DedupedBatch::new(ring.next_batch().unwrap(), &mut dedup);
        assert_eq!(batch.batch().len(), 200);
        let kept: Vec<u8> = batch.iter().map(|packet| packet.data()[0]).collect();
        assert_eq!(kept, (0..67).collect::<Vec<u8>>());
        assert!(format!("{batch:?}").contains("duplicates: 133"), "{batch:?}");
    }
}
