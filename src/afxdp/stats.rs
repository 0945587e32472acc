//! A socket's figures, written by its halves and read from any thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use super::bound::Bound;
use crate::error::Result;
use crate::stats::XdpStats;
use crate::sys::xdp;

/// A figure that one thread counts and any reads.
#[derive(Debug, Default)]
pub(super) struct Figure(AtomicU64);

impl Figure {
    /// Only ever called by the half whose figure it is.
    #[inline]
    pub(super) fn add(&self, more: u64) {
        // Relaxed: figures order nothing. One writer, so nothing is lost between load and store.
        self.0.store(self.0.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the halves of a socket count.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) delivered: Figure,
    pub(super) batches: Figure,
    pub(super) rx_malformed: Figure,
    pub(super) committed: Figure,
    /// Frames that were never committed.
    pub(super) not_forwarded: Figure,
    /// Frames that were committed, and that the kernel took and did not send.
    pub(super) send_failed: Figure,
    /// Frames that were committed, and that the kernel had not taken at the end.
    pub(super) abandoned: Figure,
    pub(super) kicks: Figure,
    pub(super) tx_malformed: Figure,
    /// What the kernel had counted when the socket went.
    last: OnceLock<XdpStats>,
}

impl Figures {
    pub(super) fn with(&self, kernel: XdpStats) -> XdpStats {
        XdpStats {
            delivered: self.delivered.get(),
            batches: self.batches.get(),
            committed: self.committed.get(),
            send_failed: self.send_failed.get(),
            not_forwarded: self.not_forwarded.get(),
            abandoned: self.abandoned.get(),
            kicks: self.kicks.get(),
            malformed: self.rx_malformed.get() + self.tx_malformed.get(),
            ..kernel
        }
    }

    pub(super) fn keep(&self, kernel: XdpStats) {
        self.last.get_or_init(|| kernel);
    }

    /// Waits for the thread that drops the socket to have written them.
    fn last(&self) -> XdpStats {
        loop {
            match self.last.get() {
                Some(last) => return *last,
                None => std::thread::yield_now(),
            }
        }
    }
}

/// Reads an AF_XDP socket's statistics from any thread, also when the socket is gone.
#[derive(Debug, Clone)]
pub struct XdpStatsHandle {
    figures: Arc<Figures>,
    /// Weak: whoever only watches does not keep the queue in use.
    bound: Weak<Bound>,
}

impl XdpStatsHandle {
    pub(super) fn new(bound: &Arc<Bound>) -> Self {
        Self { figures: Arc::clone(&bound.figures), bound: Arc::downgrade(bound) }
    }

    /// Running totals of both halves. One system call; resets nothing.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) where the kernel refuses `XDP_STATISTICS`.
    pub fn stats(&self) -> Result<XdpStats> {
        match self.bound.upgrade() {
            Some(bound) => bound.stats(),
            None => Ok(self.figures.with(self.figures.last())),
        }
    }
}

impl Bound {
    pub(super) fn stats(&self) -> Result<XdpStats> {
        Ok(self.figures.with(self.kernel_stats()?))
    }

    pub(super) fn kernel_stats(&self) -> Result<XdpStats> {
        let kernel = xdp::statistics(self.fd())?;
        Ok(XdpStats {
            rx_dropped: kernel.rx_dropped,
            rx_invalid: kernel.rx_invalid_descs,
            tx_invalid: kernel.tx_invalid_descs,
            rx_ring_full: kernel.rx_ring_full,
            // Of a socket that only sends it is empty, always.
            fill_ring_empty: if self.receives { kernel.rx_fill_ring_empty_descs } else { 0 },
            tx_ring_empty: kernel.tx_ring_empty_descs,
            ..XdpStats::default()
        })
    }
}
