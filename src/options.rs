//! Knobs that more than one part shares, each defined once.

use std::time::Duration;

use bitflags::bitflags;

/// Busy polling of the device queue from the waiting task (`SO_BUSY_POLL` and its kin, socket(7)).
///
/// It spends CPU for latency, needs a driver with NAPI, and raising it above the system default
/// needs `CAP_NET_ADMIN`. Unset fields keep the system's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BusyPoll {
    /// Microseconds to poll before sleeping (`SO_BUSY_POLL`).
    pub(crate) us: Option<u32>,
    /// Prefer busy polling to interrupts (`SO_PREFER_BUSY_POLL`, Linux 5.11).
    pub(crate) prefer: Option<bool>,
    /// Packets a poll may process (`SO_BUSY_POLL_BUDGET`, Linux 5.11).
    pub(crate) budget: Option<u16>,
}

/// Which CPU cores shards are pinned to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Cores {
    /// Every core this process may run on.
    #[default]
    All,
    /// The first so many of the cores this process may run on.
    First(usize),
    /// These cores, by number.
    List(Vec<usize>),
    /// No pinning: the scheduler places the threads.
    Unpinned,
}

/// How far wake-ups are put together under load, as a network card does with its interrupts.
///
/// Each wake-up costs its sleeper, and in a flood the sender too, far more than a packet does. Moderated,
/// a reactor that goes to sleep sleeps for at least the interval if anything comes in it, and is then
/// woken once for all; if nothing comes in it, it is woken by the first thing that comes after it. So
/// the interval bounds the latency that is *added under load*: with fewer events than one an interval
/// there is none.
///
/// Wake-ups from other threads and stops wait just as long; timers never do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Coalesce {
    /// Each event wakes.
    #[default]
    Off,
    /// At least so long a sleep under load. 50 to 200 µs are of use; below that it can cost more than
    /// it saves.
    ///
    /// Dozens of block captures on one reactor, whose blocks come one by one, share wake-ups with a
    /// quarter of their block timeout: 64 of them take half the CPU.
    Fixed(Duration),
    /// Off until wake-ups come thick and fast, then longer and longer sleeps up to `max`, and shorter
    /// ones again when nothing comes in them.
    Adaptive {
        /// The longest sleep under load.
        max: Duration,
    },
}

bitflags! {
    /// Optional io_uring features that a reactor uses if the kernel has them and they work; from
    /// [`Reactor::io_uring_features`](crate::reactor::Reactor::io_uring_features).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct IoUringFeatures: u8 {
        /// Completions are posted only when the thread asks for them (`IORING_SETUP_DEFER_TASKRUN`, Linux 6.1). A reactor on
        /// another runtime's thread does without where the kernel does not signal them, as 6.12.114 and later of that
        /// series; a wake-up then takes the kernel a little longer.
        const DEFERRED_WORK = 1;
        /// Completions do not interrupt the thread while it runs (`IORING_SETUP_COOP_TASKRUN`, 5.19).
        const COOPERATIVE_WORK = 1 << 1;
        /// The ring is entered by a registered descriptor (`IORING_REGISTER_RING_FDS`, 5.18).
        const REGISTERED_RING = 1 << 2;
        /// Kicks post no completion (`IORING_FEAT_CQE_SKIP`, 5.17).
        const SILENT_KICKS = 1 << 3;
        /// A moderated wait is one call (`IORING_FEAT_MIN_TIMEOUT`, 6.12).
        const LEAST_WAITS = 1 << 4;
        /// Waits do not count as I/O wait (`IORING_FEAT_NO_IOWAIT`, 6.15).
        const NO_IO_WAIT = 1 << 5;
    }
}

/// The sizes of a reactor, and when it wakes.
///
/// Ops are allocated when the reactor is made, and one that does not fit is an error, not growth.
/// Timers grow with their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReactorOptions {
    max_ops: u32,
    sq_entries: u32,
    coalesce: Coalesce,
    requires_io_uring: bool,
    allowed: IoUringFeatures,
}

impl ReactorOptions {
    /// The defaults: 256 ops, 64 submission entries, no moderation.
    pub fn new() -> Self {
        Self {
            max_ops: 256,
            sq_entries: 64,
            coalesce: Coalesce::Off,
            requires_io_uring: false,
            allowed: IoUringFeatures::all(),
        }
    }

    /// How far wake-ups are put together under load. Default not at all.
    #[must_use]
    pub fn coalesce(mut self, coalesce: Coalesce) -> Self {
        self.coalesce = coalesce;
        self
    }

    /// Whether io_uring being refused (by a container's seccomp profile, or `kernel.io_uring_disabled`) is
    /// an error. Default not: the same is then done over `poll(2)`, for a system call a turn, busy or not, and
    /// [`Reactor::backend`](crate::reactor::Reactor::backend) says so.
    #[must_use]
    pub fn require_io_uring(mut self, required: bool) -> Self {
        self.requires_io_uring = required;
        self
    }

    /// As on a kernel that has not got these, to test what is done there.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn without(mut self, features: IoUringFeatures) -> Self {
        self.allowed -= features;
        self
    }

    /// What may be used of io_uring.
    pub(crate) fn allowed(&self) -> IoUringFeatures {
        self.allowed
    }

    pub(crate) fn requires_io_uring(&self) -> bool {
        self.requires_io_uring
    }

    pub(crate) fn moderation(&self) -> Coalesce {
        self.coalesce
    }

    /// The most sockets and signals that may be registered at once (1 ..= 16384; others are
    /// clamped). A capture takes one op, and a second one if it has a stop handle.
    #[must_use]
    pub fn max_ops(mut self, ops: u32) -> Self {
        self.max_ops = ops.clamp(1, 16_384);
        self
    }

    /// Entries of the submission ring (1 ..= 4096; others are clamped). The completion ring holds
    /// two for each op.
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
        // A multishot poll has at most one completion queued by a wake-up, and its cancel another.
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
