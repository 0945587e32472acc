//! Options shared by several parts of the crate, each defined once.

use std::time::Duration;

use bitflags::bitflags;

/// Busy polling of the device queue by the waiting task (`SO_BUSY_POLL` and related options, socket(7)).
///
/// Busy polling trades CPU time for latency and needs a driver with NAPI. Raising it above the system default
/// needs `CAP_NET_ADMIN`. Unset fields keep the system's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BusyPoll {
    /// Microseconds to poll before sleeping (`SO_BUSY_POLL`).
    pub(crate) us: Option<u32>,
    /// Whether to prefer busy polling to interrupts (`SO_PREFER_BUSY_POLL`, Linux 5.11).
    pub(crate) prefer: Option<bool>,
    /// Maximum number of packets per poll (`SO_BUSY_POLL_BUDGET`, Linux 5.11).
    pub(crate) budget: Option<u16>,
}

/// The CPU cores that shards are pinned to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Cores {
    /// All cores this process may run on.
    #[default]
    All,
    /// The first `n` of the cores this process may run on.
    First(usize),
    /// The cores with these numbers.
    List(Vec<usize>),
    /// No pinning: the scheduler places the threads.
    Unpinned,
}

/// How wake-ups are coalesced under load, much as a network card coalesces its interrupts.
///
/// A wake-up costs the sleeper, and in a flood the sender too, far more than a packet does. With moderation,
/// a reactor that goes to sleep sleeps for at least the interval if anything arrives during it, and is then
/// woken once for all of it. If nothing arrives during the interval, the first event after it wakes the
/// reactor. The interval therefore bounds the latency *added under load*; at less than one event per
/// interval, no latency is added.
///
/// Wake-ups from other threads and stop requests are delayed just as long; timers never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Coalesce {
    /// Every event wakes the reactor.
    #[default]
    Off,
    /// A minimum sleep of this length under load. 50 to 200 µs are useful; a shorter sleep can cost more than
    /// it saves.
    ///
    /// Dozens of block captures on one reactor, whose blocks arrive one by one, share wake-ups if this is a
    /// quarter of their block timeout: 64 of them use half the CPU time.
    Fixed(Duration),
    /// No moderation until wake-ups follow each other quickly; then increasingly long sleeps of up to `max`,
    /// and shorter ones again when nothing arrives during them.
    Adaptive {
        /// The longest minimum sleep under load.
        max: Duration,
    },
}

bitflags! {
    /// Optional io_uring features that a reactor uses if the kernel has them and they work; from
    /// [`Reactor::io_uring_features`](crate::reactor::Reactor::io_uring_features).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct IoUringFeatures: u8 {
        /// Completions are posted only when the thread asks for them (`IORING_SETUP_DEFER_TASKRUN`, Linux
        /// 6.1). A reactor on another runtime's thread does not use this if the kernel fails to signal such
        /// completions, as 6.12.114 and later releases of that series do; a wake-up then takes the kernel a
        /// little longer.
        const DEFERRED_WORK = 1;
        /// Completions do not interrupt the thread while it runs (`IORING_SETUP_COOP_TASKRUN`, 5.19).
        const COOPERATIVE_WORK = 1 << 1;
        /// The ring is entered through a registered descriptor (`IORING_REGISTER_RING_FDS`, 5.18).
        const REGISTERED_RING = 1 << 2;
        /// Kicks post no completion (`IORING_FEAT_CQE_SKIP`, 5.17).
        const SILENT_KICKS = 1 << 3;
        /// A moderated wait takes a single call (`IORING_FEAT_MIN_TIMEOUT`, 6.12).
        const LEAST_WAITS = 1 << 4;
        /// Waits do not count as I/O wait (`IORING_FEAT_NO_IOWAIT`, 6.15).
        const NO_IO_WAIT = 1 << 5;
        /// The ring accepts only the requests that a reactor makes: polls, sends, timers and cancellations
        /// (`IORING_REGISTER_RESTRICTIONS`, 5.10). Whoever gets hold of its memory can do nothing else with it. With the
        /// feature `record`, that includes creating, writing and removing files.
        const RESTRICTED = 1 << 6;
    }
}

/// The sizes of a reactor, and when it wakes.
///
/// Ops are allocated when the reactor is created; registering more than fit is an error and does not grow the
/// reactor. Memory for timers grows with their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReactorOptions {
    max_ops: u32,
    sq_entries: u32,
    coalesce: Coalesce,
    requires_io_uring: bool,
    allowed: IoUringFeatures,
}

impl ReactorOptions {
    /// Creates the default options: 256 ops, 64 submission entries, no moderation.
    pub fn new() -> Self {
        Self {
            max_ops: 256,
            sq_entries: 64,
            coalesce: Coalesce::Off,
            requires_io_uring: false,
            allowed: IoUringFeatures::all(),
        }
    }

    /// Sets how wake-ups are coalesced under load. Default: not at all.
    #[must_use]
    pub fn coalesce(mut self, coalesce: Coalesce) -> Self {
        self.coalesce = coalesce;
        self
    }

    /// Sets whether a refused io_uring (by a container's seccomp profile, or `kernel.io_uring_disabled`) is
    /// an error. Default: it is not. The reactor then uses `poll(2)` instead, which costs one system call per
    /// turn, busy or not; [`Reactor::backend`](crate::reactor::Reactor::backend) returns which one is in use.
    #[must_use]
    pub fn require_io_uring(mut self, required: bool) -> Self {
        self.requires_io_uring = required;
        self
    }

    /// Makes the reactor behave as on a kernel that lacks these features, for tests.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn without(mut self, features: IoUringFeatures) -> Self {
        self.allowed -= features;
        self
    }

    /// Returns the io_uring features that may be used.
    pub(crate) fn allowed(&self) -> IoUringFeatures {
        self.allowed
    }

    pub(crate) fn requires_io_uring(&self) -> bool {
        self.requires_io_uring
    }

    pub(crate) fn moderation(&self) -> Coalesce {
        self.coalesce
    }

    /// Sets the maximum number of sockets and signals registered at once (1 ..= 16384; other values are
    /// clamped). A capture or an AF_XDP receiver takes one op, and a second one if
    /// it has a stop handle; a sender takes two.
    #[must_use]
    pub fn max_ops(mut self, ops: u32) -> Self {
        self.max_ops = ops.clamp(1, 16_384);
        self
    }

    /// Sets the number of submission ring entries (1 ..= 4096; other values are clamped). The completion ring
    /// holds two entries per op.
    #[must_use]
    pub fn sq_entries(mut self, entries: u32) -> Self {
        self.sq_entries = entries.clamp(1, 4096);
        self
    }

    pub(crate) fn op_limit(&self) -> u32 {
        self.max_ops
    }

    pub(crate) fn sq_size(&self) -> u32 {
        self.sq_entries.next_power_of_two()
    }

    pub(crate) fn cq_size(&self) -> u32 {
        // A multishot poll has at most one completion queued per wake-up, and its cancel another.
        (2 * (self.max_ops + 1)).next_power_of_two().max(2 * self.sq_size())
    }
}

impl Default for ReactorOptions {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_clamped_to_what_a_ring_can_hold() {
        let options = ReactorOptions::new().max_ops(0).sq_entries(1_000_000);
        assert_eq!((options.op_limit(), options.sq_size()), (1, 4096));
        assert!(options.cq_size() >= 2 * options.sq_size());
        assert!(ReactorOptions::new().max_ops(u32::MAX).cq_size() <= 65_536);
    }
}
