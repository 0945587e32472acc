//! A reactor's statistics: written by its thread, readable from any.

use std::sync::Arc;

use crate::stats::{Counter, ReactorStats};

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

/// A handle for reading a reactor's statistics from any thread, without disturbing the reactor.
#[derive(Debug, Clone)]
pub struct ReactorStatsHandle(pub(super) Arc<Counters>);

impl ReactorStatsHandle {
    /// Returns the current totals. Makes no system call; after the reactor's end, returns its last totals.
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
