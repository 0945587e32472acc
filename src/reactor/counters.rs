//! A reactor's statistics: written by its thread, read by any.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::stats::ReactorStats;

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) turns: Counter,
    pub(super) enters: Counter,
    pub(super) wakeups: Counter,
    pub(super) spurious: Counter,
    pub(super) coalesced: Counter,
    pub(super) completions: Counter,
    pub(super) overflows: Counter,
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(super) fn add(&self, count: u64) {
        // Relaxed, and no read-modify-write: one writer; a statistic.
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Reads a reactor's statistics from any thread, without disturbing it.
#[derive(Debug, Clone)]
pub struct ReactorStatsHandle(pub(super) Arc<Counters>);

impl ReactorStatsHandle {
    /// The totals now. No system call; after the reactor's end, its last totals.
    pub fn stats(&self) -> ReactorStats {
        ReactorStats {
            turns: self.0.turns.get(),
            enters: self.0.enters.get(),
            wakeups: self.0.wakeups.get(),
            spurious: self.0.spurious.get(),
            coalesced: self.0.coalesced.get(),
            completions: self.0.completions.get(),
            overflows: self.0.overflows.get(),
        }
    }
}
