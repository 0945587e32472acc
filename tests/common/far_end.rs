//! The far end of a veth pair, for tests of transmission.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringtap::capture::StatsHandle;
use ringtap::{Capture, StopHandle};
use ringtap_lab::{Tally, Veth};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A thread that captures all that arrives on the right end and records it.
pub(crate) struct FarEnd {
    received: Arc<AtomicU64>,
    stats: StatsHandle,
    stop: StopHandle,
    thread: JoinHandle<Tally>,
}

impl FarEnd {
    pub(crate) fn new(veth: &Veth, mut tally: Tally) -> Self {
        // Many blocks: each timeout takes one, however long this thread is kept from its core.
        let ring = Capture::builder().interface(&veth.right).block_size(1 << 16).block_count(2048);
        let ring = ring.block_timeout_ms(2).ignore_outgoing(true);
        let mut capture = ring.build().unwrap();
        let stop = capture.stop_handle().unwrap();
        let stats = capture.stats_handle();
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        let thread = std::thread::spawn(move || {
            for batch in capture.batches() {
                for packet in &batch.unwrap() {
                    tally.record(packet.data());
                }
                counter.store(tally.received(), Ordering::Relaxed);
            }
            let stats = capture.stats().unwrap();
            assert_eq!((stats.drops, stats.malformed), (0, 0), "the far end saw all");
            tally
        });
        Self { received, stats, stop, thread }
    }

    /// Frames that have arrived.
    #[allow(dead_code, reason = "not every test binary asks")]
    pub(crate) fn count(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Keeps the sender from outrunning the receiver's ring.
    pub(crate) fn wait_until(&self, count: u64) {
        let start = Instant::now();
        while self.received.load(Ordering::Relaxed) < count {
            let stats = self.stats.stats();
            assert!(start.elapsed() < PATIENCE, "{count} frames are expected: {stats:?}");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub(crate) fn finish(self) -> Tally {
        self.stop.stop();
        self.thread.join().unwrap()
    }
}
