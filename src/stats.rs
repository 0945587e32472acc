//! Statistics, as u64 totals that are not reset by reading.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Statistics of a capture socket since it was opened.
///
/// The kernel clears its own counters whenever they are read (`PACKET_STATISTICS`, packet(7)). These are
/// running totals kept in one place, so any number of readers see the same growing numbers.
///
/// `packets == delivered + drops + pending()` holds exactly whenever the socket is at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CaptureStats {
    /// Packets that passed the socket's filter, including dropped ones.
    pub packets: u64,
    /// Packets handed out in batches.
    pub delivered: u64,
    /// Packets that the kernel dropped because the ring was full.
    pub drops: u64,
    /// Times that the ring was full and stopped accepting packets.
    pub freezes: u64,
    /// Batches handed out.
    pub batches: u64,
    /// Packets that iteration over a batch left out because their headers were inconsistent. Always 0 unless
    /// another process writes to the mapping.
    pub malformed: u64,
}

impl CaptureStats {
    /// Returns the difference between this reading and an `earlier` one of the same socket.
    #[must_use]
    pub fn delta_since(&self, earlier: &Self) -> Self {
        self.zip(earlier, u64::saturating_sub)
    }

    /// Returns the sum of these statistics and another socket's.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// Returns the number of packets in the ring that no batch has delivered yet.
    pub fn pending(&self) -> u64 {
        self.packets.saturating_sub(self.delivered).saturating_sub(self.drops)
    }

    /// Returns the proportion of packets that were dropped, 0.0 ..= 1.0; 0.0 if there were no packets.
    pub fn drop_ratio(&self) -> f64 {
        if self.packets == 0 { 0.0 } else { self.drops as f64 / self.packets as f64 }
    }

    fn zip(&self, other: &Self, combine: fn(u64, u64) -> u64) -> Self {
        Self {
            packets: combine(self.packets, other.packets),
            delivered: combine(self.delivered, other.delivered),
            drops: combine(self.drops, other.drops),
            freezes: combine(self.freezes, other.freezes),
            batches: combine(self.batches, other.batches),
            malformed: combine(self.malformed, other.malformed),
        }
    }
}

impl std::iter::Sum for CaptureStats {
    fn sum<I: Iterator<Item = Self>>(stats: I) -> Self {
        stats.fold(Self::default(), |sum, one| sum.plus(&one))
    }
}

/// Statistics of an injector since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct InjectorStats {
    /// Frames committed.
    pub committed: u64,
    /// Frames that the kernel refused because of their length or their offload, or because it never accepted
    /// them (`InjectorBuilder::give_up_after`).
    pub rejected: u64,
    /// Frames taken back because the interface was down. Only a bridge does this.
    pub stale: u64,
    /// Frames that the kernel had not accepted when the injector was closed or dropped; 0 until then.
    pub abandoned: u64,
    /// Times that the kernel was told to look at the ring.
    pub kicks: u64,
    /// Kicks that ended because the socket's send buffer was full.
    pub buffer_full: u64,
    /// Kicks that ended because the interface's queue was full.
    pub queue_full: u64,
}

/// Reads an injector's statistics from any thread, even after the injector is gone.
#[derive(Debug, Clone)]
pub struct InjectorStatsHandle(Arc<Mutex<InjectorStats>>);

impl InjectorStatsHandle {
    pub(crate) fn new(stats: InjectorStats) -> Self {
        Self(Arc::new(Mutex::new(stats)))
    }

    /// Returns the running totals, as of the injector's last kick or of its end.
    pub fn stats(&self) -> InjectorStats {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, stats: InjectorStats) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }
}

/// Statistics of an AF_XDP socket since it was opened: those of this crate, and the kernel's six
/// (`XDP_STATISTICS`, Documentation/networking/af_xdp.rst).
#[cfg(feature = "af-xdp")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct XdpStats {
    /// Packets handed out in batches.
    pub delivered: u64,
    /// Batches handed out.
    pub batches: u64,
    /// Frames committed for sending.
    pub committed: u64,
    /// Committed frames that the kernel accepted but did not send, because they were too long for the far end
    /// or there was no carrier.
    pub send_failed: u64,
    /// Received frames that were to be forwarded but never committed, because they were too long for the
    /// interface or it accepted none.
    pub not_forwarded: u64,
    /// Frames that the kernel had not accepted when the socket was closed or its sending half dropped; 0 until
    /// then.
    pub abandoned: u64,
    /// Times that the kernel was told to look at the TX ring.
    pub kicks: u64,
    /// Ring entries from the kernel that named no frame of this socket. Always 0.
    pub malformed: u64,
    /// Packets dropped because there was no frame to receive into, or because they were too long for one.
    pub rx_dropped: u64,
    /// Invalid entries of the fill ring.
    pub rx_invalid: u64,
    /// Invalid entries of the TX ring.
    pub tx_invalid: u64,
    /// Packets dropped because the RX ring was full.
    pub rx_ring_full: u64,
    /// Times that there was no frame to receive into. The packets concerned are also in `rx_dropped`.
    pub fill_ring_empty: u64,
    /// Times that the TX ring was empty.
    pub tx_ring_empty: u64,
}

#[cfg(feature = "af-xdp")]
impl XdpStats {
    /// Returns the difference between this reading and an `earlier` one of the same socket.
    #[must_use]
    pub fn delta_since(&self, earlier: &Self) -> Self {
        self.zip(earlier, u64::saturating_sub)
    }

    /// Returns the sum of these statistics and another socket's.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// Returns the number of packets that the kernel dropped, for any reason.
    ///
    /// Drivers that count packets they could not redirect, such as veth, include them in the interface's
    /// `rx_dropped` as well (`drivers/net/veth.c`). Adding both numbers counts those packets twice.
    pub fn drops(&self) -> u64 {
        self.rx_dropped + self.rx_ring_full
    }

    /// Returns the receiving side in the form of a capture's statistics. Packets that were neither delivered
    /// nor dropped are not known, and each time without a frame to receive into counts as a freeze.
    pub fn as_capture(&self) -> CaptureStats {
        let Self { delivered, batches, malformed, fill_ring_empty: freezes, .. } = *self;
        let drops = self.drops();
        CaptureStats { packets: delivered + drops, delivered, drops, freezes, batches, malformed }
    }

    fn zip(&self, other: &Self, combine: fn(u64, u64) -> u64) -> Self {
        Self {
            delivered: combine(self.delivered, other.delivered),
            batches: combine(self.batches, other.batches),
            committed: combine(self.committed, other.committed),
            send_failed: combine(self.send_failed, other.send_failed),
            not_forwarded: combine(self.not_forwarded, other.not_forwarded),
            abandoned: combine(self.abandoned, other.abandoned),
            kicks: combine(self.kicks, other.kicks),
            malformed: combine(self.malformed, other.malformed),
            rx_dropped: combine(self.rx_dropped, other.rx_dropped),
            rx_invalid: combine(self.rx_invalid, other.rx_invalid),
            tx_invalid: combine(self.tx_invalid, other.tx_invalid),
            rx_ring_full: combine(self.rx_ring_full, other.rx_ring_full),
            fill_ring_empty: combine(self.fill_ring_empty, other.fill_ring_empty),
            tx_ring_empty: combine(self.tx_ring_empty, other.tx_ring_empty),
        }
    }
}

/// Statistics of a reactor since it was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReactorStats {
    /// Turns, including parked ones.
    pub turns: u64,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Returns from a blocking park, for any reason.
    pub wakeups: u64,
    /// Wakeups that found neither an event on a socket nor an expired timer, but were caused by another thread
    /// or by nothing.
    pub spurious: u64,
    /// Sleeps that were prolonged to gather more events ([`Coalesce`](crate::reactor::Coalesce)).
    pub coalesced: u64,
    /// Completions reaped.
    pub completions: u64,
    /// Times that the completion ring was full. The kernel kept the completions and lost none.
    pub overflows: u64,
}

impl ReactorStats {
    /// Returns the difference between this reading and an `earlier` one of the same reactor.
    #[must_use]
    pub fn delta_since(&self, earlier: &Self) -> Self {
        self.zip(earlier, u64::saturating_sub)
    }

    /// Returns the sum of these statistics and another reactor's.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    fn zip(&self, other: &Self, combine: fn(u64, u64) -> u64) -> Self {
        Self {
            turns: combine(self.turns, other.turns),
            enters: combine(self.enters, other.enters),
            wakeups: combine(self.wakeups, other.wakeups),
            spurious: combine(self.spurious, other.spurious),
            coalesced: combine(self.coalesced, other.coalesced),
            completions: combine(self.completions, other.completions),
            overflows: combine(self.overflows, other.overflows),
        }
    }
}

/// A counter that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        // Relaxed: counters order nothing. There is one writer, so nothing is lost between load and store.
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CaptureStats {
        CaptureStats { packets: 10, delivered: 6, drops: 3, freezes: 1, batches: 2, malformed: 0 }
    }

    #[test]
    fn what_is_neither_delivered_nor_dropped_is_pending() {
        assert_eq!(sample().pending(), 1);
        assert_eq!(CaptureStats::default().pending(), 0);
    }

    #[test]
    fn the_drop_ratio_of_nothing_is_zero() {
        assert_eq!(CaptureStats::default().drop_ratio(), 0.0);
        assert!((sample().drop_ratio() - 0.3).abs() < 1e-12);
    }

    #[test]
    fn deltas_and_sums_are_inverse() {
        let twice: CaptureStats = [sample(), sample()].into_iter().sum();
        assert_eq!(twice.packets, 20);
        assert_eq!(twice.delta_since(&sample()), sample());
    }
}
