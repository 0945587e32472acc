//! Keeping the last packets until they are wanted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::sink::PacketSink;
use crate::error::Result;
use crate::packet::Packet;
use crate::ring::batch::PacketBatch;

/// Keeps the last packets in memory, and writes them and what follows once it is [fired](Self::fire): what led to an
/// event is in the file, and nothing else.
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
    /// The oldest first.
    kept: VecDeque<PacketBatch>,
    bytes: usize,
    max_bytes: usize,
    max_time: Option<Duration>,
    has_fired: bool,
    forgotten: u64,
}

impl<S: PacketSink> PreTrigger<S> {
    /// Keeps at most so many bytes, a packet's header of some 90 bytes included, and writes to `sink`.
    ///
    /// What is kept goes a batch at a time: of batches larger than that, nothing is kept. A batch is copied out of its
    /// ring.
    pub fn new(sink: S, max_bytes: usize) -> Self {
        let (kept, bytes, max_time) = (VecDeque::new(), 0, None);
        Self { sink, kept, bytes, max_bytes, max_time, has_fired: false, forgotten: 0 }
    }

    /// Keeps nothing longer than this, by the packets' own times. Default as long as there is room.
    #[must_use]
    pub fn keep_for(mut self, time: Duration) -> Self {
        self.max_time = Some(time);
        self
    }

    /// Writes what is kept; what comes later is written at once. Once fired, it does nothing.
    ///
    /// # Errors
    /// The first of the sink's, which has taken all, as [`PacketSink`] says.
    pub fn fire(&mut self) -> Result<()> {
        self.has_fired = true;
        self.bytes = 0;
        let mut outcome = Ok(());
        for batch in std::mem::take(&mut self.kept) {
            outcome = outcome.and(self.sink.write_batch(&batch));
        }
        outcome
    }

    /// Keeps again, instead of writing.
    pub fn rearm(&mut self) {
        self.has_fired = false;
    }

    /// Whether it was fired, and not rearmed.
    pub fn has_fired(&self) -> bool {
        self.has_fired
    }

    /// Packets kept now.
    pub fn kept(&self) -> usize {
        self.kept.iter().map(PacketBatch::len).sum()
    }

    /// Packets that were kept and are no longer.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The sink.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    /// The sink; what is kept is forgotten.
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
    /// Takes a packet; many together are better taken as a batch.
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
