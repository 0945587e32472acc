//! Keeping recent packets until an event.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::sink::PacketSink;
use crate::error::Result;
use crate::packet::Packet;
use crate::ring::batch::PacketBatch;

/// Keeps recent packets in memory, and writes them and all later packets once it is [fired](Self::fire). The
/// file then contains only the packets that led to an event and those that followed it.
///
/// ```no_run
/// use std::time::Duration;
///
/// use ringtap::pcap::{CaptureWriter, PacketSink, PreTrigger};
///
/// # fn all(mut capture: ringtap::Capture, is_event: impl Fn(&ringtap::Packet) -> bool) -> ringtap::Result<()> {
/// let file = CaptureWriter::create("event.pcapng")?;
/// let mut last = PreTrigger::new(file, 64 << 20).keep_for(Duration::from_secs(10));
/// while let Some(batch) = capture.next_batch() {
///     last.write_batch(&batch)?;
///     if batch.iter().any(|packet| is_event(&packet)) {
///         last.fire()?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PreTrigger<S> {
    sink: S,
    /// The batches kept, oldest first.
    kept: VecDeque<PacketBatch>,
    bytes: usize,
    max_bytes: usize,
    max_time: Option<Duration>,
    has_fired: bool,
    forgotten: u64,
}

impl<S: PacketSink> PreTrigger<S> {
    /// Keeps at most `max_bytes` bytes, including some 90 bytes of metadata per packet, and writes to `sink`.
    ///
    /// Packets are kept and forgotten in whole batches; a batch larger than `max_bytes` is not kept at all.
    /// Batches are copied out of their ring.
    pub fn new(sink: S, max_bytes: usize) -> Self {
        let (kept, bytes, max_time) = (VecDeque::new(), 0, None);
        Self { sink, kept, bytes, max_bytes, max_time, has_fired: false, forgotten: 0 }
    }

    /// Sets how long packets are kept, by their own timestamps. By default they are kept as long as there is
    /// room.
    #[must_use]
    pub fn keep_for(mut self, time: Duration) -> Self {
        self.max_time = Some(time);
        self
    }

    /// Writes the packets kept; later packets are written at once. Firing again has no effect.
    ///
    /// # Errors
    /// The first error of the sink, which has accepted all packets nevertheless; see [`PacketSink`].
    pub fn fire(&mut self) -> Result<()> {
        self.has_fired = true;
        self.bytes = 0;
        let mut outcome = Ok(());
        for batch in std::mem::take(&mut self.kept) {
            outcome = outcome.and(self.sink.write_batch(&batch));
        }
        outcome
    }

    /// Goes back to keeping packets instead of writing them.
    pub fn rearm(&mut self) {
        self.has_fired = false;
    }

    /// Returns whether it was fired and not rearmed since.
    pub fn has_fired(&self) -> bool {
        self.has_fired
    }

    /// Returns the number of packets kept now.
    pub fn kept(&self) -> usize {
        self.kept.iter().map(PacketBatch::len).sum()
    }

    /// Returns the number of packets that were kept and then forgotten.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Returns the sink.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Returns the sink, discarding the packets kept.
    pub fn into_inner(self) -> S {
        self.sink
    }

    fn keep(&mut self, batch: PacketBatch) {
        let newest = batch.ts_last();
        self.bytes += batch.memory();
        self.kept.push_back(batch);
        while let Some(oldest) = self.kept.front() {
            let age = newest.as_nanos().saturating_sub(oldest.ts_last().as_nanos());
            let is_old = self.max_time.is_some_and(|most| Duration::from_nanos(age) > most);
            if self.bytes <= self.max_bytes && !is_old {
                break;
            }
            self.bytes -= oldest.memory();
            self.forgotten += oldest.len() as u64;
            self.kept.pop_front();
        }
    }
}

impl<S: PacketSink> PacketSink for PreTrigger<S> {
    /// Accepts a packet; many packets are better written as a batch.
    fn write_packet(&mut self, packet: &Packet<'_>) -> Result<()> {
        if self.has_fired {
            return self.sink.write_packet(packet);
        }
        self.keep(PacketBatch::of_packets(&[*packet]));
        Ok(())
    }

    fn write_batch(&mut self, batch: &PacketBatch) -> Result<()> {
        if self.has_fired {
            return self.sink.write_batch(batch);
        }
        self.keep(batch.to_detached());
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.sink.flush()
    }

    fn next_due(&self) -> Option<Instant> {
        self.sink.next_due()
    }

    fn tick(&mut self) -> Result<()> {
        self.sink.tick()
    }
}
