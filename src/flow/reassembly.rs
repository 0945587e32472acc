//! How much of streams may wait for what is missing, and what is done beyond.

use std::collections::VecDeque;

use super::half::Overlap;

/// What is done where segments that wait take more memory than all may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MemoryPolicy {
    /// The flow that waits longest gives up what is missing: a gap, and what waited is passed on.
    #[default]
    GiveUpOldest,
    /// The flow whose segment was too much gives up what is missing.
    PassThrough,
    /// The flow whose segment was too much ends, with [`EndReason::BufferOverflow`](super::EndReason).
    EndFlow,
}

/// How streams are put together.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct ReassemblyConfig {
    pub(super) side_cap: usize,
    pub(super) memory_cap: usize,
    pub(super) policy: MemoryPolicy,
    pub(super) overlap: Overlap,
}

impl ReassemblyConfig {
    /// A mebibyte for a side, 256 for all, and the first stands where segments overlap.
    pub const fn new() -> Self {
        Self {
            side_cap: 1 << 20,
            memory_cap: 256 << 20,
            policy: MemoryPolicy::GiveUpOldest,
            overlap: Overlap::First,
        }
    }

    /// Bytes that may wait in one direction of a flow; beyond, what is missing is given up.
    pub const fn side_cap(mut self, bytes: usize) -> Self {
        self.side_cap = bytes;
        self
    }

    /// Bytes that may wait in all flows, and what is done beyond.
    pub const fn memory_cap(mut self, bytes: usize, policy: MemoryPolicy) -> Self {
        self.memory_cap = bytes;
        self.policy = policy;
        self
    }

    /// Whose bytes stand where segments that wait overlap.
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

/// What became of the streams of all flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReassemblyStats {
    /// Bytes that wait now, with what keeping them costs.
    pub held: u64,
    /// The most that ever waited.
    pub high_watermark: u64,
    /// Bytes that were given up as missing.
    pub gap_bytes: u64,
    /// Bytes that were passed on.
    pub bytes: u64,
    /// Flows that gave up what is missing, or ended, for want of memory for all.
    pub short_of_memory: u64,
}

/// Flows whose segments wait, in the order in which they began to.
#[derive(Debug)]
pub(super) struct Waiting<K>(VecDeque<(K, u64)>);

impl<K> Waiting<K> {
    pub(super) fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(super) fn push(&mut self, key: K, serial: u64) {
        self.0.push_back((key, serial));
    }

    pub(super) fn pop(&mut self) -> Option<(K, u64)> {
        self.0.pop_front()
    }

    /// Forgets those that do not wait any more, where they are most.
    pub(super) fn tidy(&mut self, flows: usize, waits: impl Fn(&K, u64) -> bool) {
        if self.0.len() > 2 * flows + 1024 {
            self.0.retain(|(key, serial)| waits(key, *serial));
        }
    }
}
