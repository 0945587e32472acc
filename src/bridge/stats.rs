//! Statistics of a bridge, counted by its thread and readable from any.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::afpacket::StatsHandle;
use crate::error::Result;

/// Statistics of one direction of a bridge.
///
/// `received + segmented == forwarded + filtered + too_large + rejected + ring_full + stale`, whenever the
/// bridge is at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BridgeLaneStats {
    /// Packets taken from the capture.
    pub received: u64,
    /// Additional frames from splitting packets in the bridge, beyond the first of each packet. Packets in
    /// tunnels and packets over 64 KiB are split here. Each of these frames is also counted in one of the
    /// fields below.
    pub segmented: u64,
    /// Packets committed to the other side and neither refused there nor stale.
    pub forwarded: u64,
    /// Packets dropped by the filter.
    pub filtered: u64,
    /// Packets dropped because they exceed the other side's MTU or slots, or because the capture had truncated
    /// them.
    pub too_large: u64,
    /// Packets that the kernel refused to send, because their offload does not match them or the other side
    /// cannot carry it out.
    pub rejected: u64,
    /// Packets dropped because the other side accepted none.
    pub ring_full: u64,
    /// Packets dropped because the other side was down. A bridge must not send frames older than a second (IEEE
    /// 802.1D, bridge transit delay).
    pub stale: u64,
    /// Packets that the kernel dropped because the capture's ring was full.
    pub lost: u64,
}

/// Statistics of a bridge since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BridgeStats {
    /// From interface A to interface B.
    pub a_to_b: BridgeLaneStats,
    /// From interface B to interface A.
    pub b_to_a: BridgeLaneStats,
}

/// Counters of one direction, written by a single thread.
#[derive(Debug, Default)]
pub(super) struct Counters {
    received: AtomicU64,
    segmented: AtomicU64,
    forwarded: AtomicU64,
    filtered: AtomicU64,
    too_large: AtomicU64,
    rejected: AtomicU64,
    ring_full: AtomicU64,
    stale: AtomicU64,
}

/// The fate of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Forwarded,
    Filtered,
    TooLarge,
    Rejected,
    RingFull,
}

impl Counters {
    /// Counts a packet that was taken from the capture.
    pub(super) fn count(&self, fate: Fate) {
        add(&self.received, 1);
        self.count_fate(fate);
    }

    /// Counts a frame beyond the first of a packet that was split.
    pub(super) fn count_segment(&self, fate: Fate) {
        add(&self.segmented, 1);
        self.count_fate(fate);
    }

    fn count_fate(&self, fate: Fate) {
        let counter = match fate {
            Fate::Forwarded => &self.forwarded,
            Fate::Filtered => &self.filtered,
            Fate::TooLarge => &self.too_large,
            Fate::Rejected => &self.rejected,
            Fate::RingFull => &self.ring_full,
        };
        add(counter, 1);
    }

    /// Counts packets as rejected that were counted as forwarded before.
    pub(super) fn refused(&self, packets: u64) {
        add(&self.rejected, packets);
        add(&self.forwarded, packets.wrapping_neg());
    }

    /// Counts packets as stale that were counted as forwarded before.
    pub(super) fn taken_back(&self, packets: u64) {
        add(&self.stale, packets);
        add(&self.forwarded, packets.wrapping_neg());
    }

    fn read(&self) -> BridgeLaneStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BridgeLaneStats {
            received: read(&self.received),
            segmented: read(&self.segmented),
            forwarded: read(&self.forwarded),
            filtered: read(&self.filtered),
            too_large: read(&self.too_large),
            rejected: read(&self.rejected),
            ring_full: read(&self.ring_full),
            stale: read(&self.stale),
            lost: 0,
        }
    }
}

/// Relaxed and without read-modify-write, because there is a single writer.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

/// A handle that reads a bridge's statistics from any thread, even while the bridge runs.
#[derive(Debug, Clone)]
pub struct BridgeStatsHandle {
    counters: [Arc<Counters>; 2],
    captures: [StatsHandle; 2],
}

impl BridgeStatsHandle {
    pub(super) fn new(counters: [Arc<Counters>; 2], captures: [StatsHandle; 2]) -> Self {
        Self { counters, captures }
    }

    /// Returns the current totals. This takes two system calls.
    ///
    /// # Errors
    /// As for [`StatsHandle::stats`].
    pub fn stats(&self) -> Result<BridgeStats> {
        let lane = |number: usize| -> Result<BridgeLaneStats> {
            let lost = self.captures[number].stats()?.drops;
            Ok(BridgeLaneStats { lost, ..self.counters[number].read() })
        };
        Ok(BridgeStats { a_to_b: lane(0)?, b_to_a: lane(1)? })
    }
}
