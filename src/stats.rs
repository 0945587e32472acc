//! Statistics: u64 totals that reading never resets.

/// What happened on a capture socket since it was opened.
///
/// The kernel clears its own counters whenever they are read (`PACKET_STATISTICS`, packet(7)); these
/// are running totals kept in one place, so any number of readers see the same growing figures.
///
/// `packets == delivered + drops + pending()`, exactly, whenever the socket is at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CaptureStats {
    /// Packets that passed the socket's filter, dropped ones included.
    pub packets: u64,
    /// Packets handed out in batches.
    pub delivered: u64,
    /// Packets the kernel dropped because the ring was full.
    pub drops: u64,
    /// How often the ring was full and stopped taking packets.
    pub freezes: u64,
    /// Batches handed out.
    pub batches: u64,
    /// Packets in a batch whose headers did not hold together and which iteration left out. Always
    /// 0 unless another process writes to the mapping.
    pub malformed: u64,
}

impl CaptureStats {
    /// What happened between `earlier` and this reading of the same socket.
    #[must_use]
    pub fn delta_since(&self, earlier: &Self) -> Self {
        self.zip(earlier, u64::saturating_sub)
    }

    /// These figures and another socket's, added up.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// Packets in the ring that no batch has handed out yet.
    pub fn pending(&self) -> u64 {
        self.packets.saturating_sub(self.delivered).saturating_sub(self.drops)
    }

    /// The dropped part of all packets, 0.0 ..= 1.0; 0.0 where there were none.
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

/// What happened on an injector since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct InjectorStats {
    /// Frames committed.
    pub committed: u64,
    /// Frames that the kernel refused: for their length, for their offload, or because it never took them
    /// (`InjectorBuilder::give_up_after`).
    pub rejected: u64,
    /// Frames taken back because the interface was down. Only a bridge does this.
    pub stale: u64,
    /// Frames that the kernel had not taken when the injector was closed or dropped; 0 until then.
    pub abandoned: u64,
    /// Times the kernel was told to look.
    pub kicks: u64,
    /// Kicks that ended because the socket's send buffer was full.
    pub buffer_full: u64,
    /// Kicks that ended because the interface's queue was full.
    pub queue_full: u64,
}

/// What happened on an AF_XDP socket since it was opened: ours, and the kernel's six (`XDP_STATISTICS`,
/// Documentation/networking/af_xdp.rst).
#[cfg(feature = "af-xdp")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct XdpStats {
    /// Packets handed out in batches.
    pub delivered: u64,
    /// Batches handed out.
    pub batches: u64,
    /// Frames committed to be sent.
    pub committed: u64,
    /// Those of them that the kernel took and did not send: too long for the far end, or without a carrier.
    pub send_failed: u64,
    /// Frames received to be sent on that were never committed: too long for the interface, or it took none.
    pub not_forwarded: u64,
    /// Frames that the kernel had not taken when the socket was closed or its sending half dropped; 0 until then.
    pub abandoned: u64,
    /// Kicks.
    pub kicks: u64,
    /// Entries of the kernel's that named no frame of ours. Always 0.
    pub malformed: u64,
    /// Packets dropped because there was no frame to receive into, or they were too long for one.
    pub rx_dropped: u64,
    /// Invalid entries of the fill ring.
    pub rx_invalid: u64,
    /// Invalid entries of the TX ring.
    pub tx_invalid: u64,
    /// Packets dropped because the RX ring was full.
    pub rx_ring_full: u64,
    /// Times that there was no frame to receive into; those packets are in `rx_dropped` too.
    pub fill_ring_empty: u64,
    /// Times that the TX ring was empty.
    pub tx_ring_empty: u64,
}

#[cfg(feature = "af-xdp")]
impl XdpStats {
    /// What happened between `earlier` and this reading of the same socket.
    #[must_use]
    pub fn delta_since(&self, earlier: &Self) -> Self {
        self.zip(earlier, u64::saturating_sub)
    }

    /// These figures and another socket's, added up.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// Packets that the kernel dropped, for whatever reason.
    ///
    /// veth, and other drivers that count what they could not redirect, have them in the interface's `rx_dropped`
    /// as well (`drivers/net/veth.c`): whoever adds both up counts those packets twice.
    pub fn drops(&self) -> u64 {
        self.rx_dropped + self.rx_ring_full
    }

    /// The receiving side, in a capture's terms: what was neither delivered nor dropped is not known of, and a
    /// freeze is a time without a frame to receive into.
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

/// What a reactor did since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReactorStats {
    /// Turns, parked ones included.
    pub turns: u64,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Returns from a blocking park, for whatever reason.
    pub wakeups: u64,
    /// Those of them that found neither a socket's news nor a timer that was due: another thread's doing, or nobody's.
    pub spurious: u64,
    /// Sleeps that were held back to gather more ([`Coalesce`](crate::reactor::Coalesce)).
    pub coalesced: u64,
    /// Completions reaped.
    pub completions: u64,
    /// Times the completion ring was full (the kernel kept the completions and lost none).
    pub overflows: u64,
}

impl ReactorStats {
    /// What happened between `earlier` and this reading of the same reactor.
    #[must_use]
    pub fn delta_since(&self, earlier: &Self) -> Self {
        self.zip(earlier, u64::saturating_sub)
    }

    /// These figures and another reactor's, added up.
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
