//! Limits of TCP reassembly.

use std::collections::VecDeque;

use super::half::Overlap;

/// Policy applied when waiting segments exceed the memory limit for all flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MemoryPolicy {
    /// The flow that has waited longest gives up its missing bytes: a gap is reported, and its waiting bytes
    /// are passed on.
    #[default]
    GiveUpOldest,
    /// The flow whose segment exceeded the limit gives up its missing bytes.
    PassThrough,
    /// The flow whose segment exceeded the limit ends with [`EndReason::BufferOverflow`](super::EndReason).
    EndFlow,
}

/// Configuration of TCP reassembly.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct ReassemblyConfig {
    pub(super) side_cap: usize,
    pub(super) memory_cap: usize,
    pub(super) policy: MemoryPolicy,
    pub(super) overlap: Overlap,
}

impl ReassemblyConfig {
    /// Creates the default configuration: 1 MiB per side, 256 MiB for all flows, and the first bytes are kept
    /// if segments overlap.
    pub const fn new() -> Self {
        Self {
            side_cap: 1 << 20,
            memory_cap: 256 << 20,
            policy: MemoryPolicy::GiveUpOldest,
            overlap: Overlap::First,
        }
    }

    /// Sets how many bytes may wait in one direction of a flow. Beyond that, missing bytes are given up.
    pub const fn side_cap(mut self, bytes: usize) -> Self {
        self.side_cap = bytes;
        self
    }

    /// Sets how many bytes may wait in all flows together, and what happens beyond that.
    pub const fn memory_cap(mut self, bytes: usize, policy: MemoryPolicy) -> Self {
        self.memory_cap = bytes;
        self.policy = policy;
        self
    }

    /// Sets which bytes are kept if waiting segments overlap.
    pub const fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }
}

impl Default for ReassemblyConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// Counters of TCP reassembly, for all flows together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReassemblyStats {
    /// Bytes waiting now, including overhead, and those that parsers hold of messages that are not complete.
    pub held: u64,
    /// Maximum of `held` so far.
    pub high_watermark: u64,
    /// Bytes given up as missing.
    pub gap_bytes: u64,
    /// Bytes passed on.
    pub bytes: u64,
    /// Number of times that a flow gave up missing bytes, or ended, because the memory limit for all flows was
    /// reached.
    pub short_of_memory: u64,
}

/// How many flows are compared for the one that holds most.
const LOOKED_AT: usize = 32;

/// Slots of flows with waiting segments, or whose consumers hold memory, in the order in which they began to.
#[derive(Debug)]
pub(super) struct Waiting(VecDeque<(u32, u64)>);

impl Waiting {
    pub(super) fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(super) fn push(&mut self, slot: u32, serial: u64) {
        self.0.push_back((slot, serial));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn pop(&mut self) -> Option<(u32, u64)> {
        self.0.pop_front()
    }

    /// Takes out the flow that holds most, of the first ones that `held` knows.
    pub(super) fn pop_most(&mut self, held: impl Fn(u32, u64) -> Option<usize>) -> Option<u32> {
        while let Some((slot, serial)) = self.0.front()
            && held(*slot, *serial).is_none()
        {
            self.0.pop_front();
        }
        let some = self.0.iter().take(LOOKED_AT).enumerate();
        let most = some.filter_map(|(at, (slot, serial))| Some((held(*slot, *serial)?, at)));
        let (_, at) = most.max_by_key(|(held, at)| (*held, usize::MAX - at))?;
        self.0.remove(at).map(|(slot, _)| slot)
    }

    /// Removes the flows that no longer wait.
    pub(super) fn tidy(&mut self, waits: impl Fn(u32, u64) -> bool) {
        self.0.retain(|(slot, serial)| waits(*slot, *serial));
    }
}
