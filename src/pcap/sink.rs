//! The trait of packet writers.

use std::io::Write;
use std::time::Instant;

use super::writer::CaptureWriter;
use crate::error::Result;
use crate::packet::Packet;
use crate::ring::batch::PacketBatch;

/// A destination for packets: a file, a series of files, or a thread that writes.
///
/// A sink accepts everything it is given, even if it returns an error: the packets are written later, or
/// counted as dropped. They must not be passed in again.
pub trait PacketSink {
    /// Accepts a packet.
    ///
    /// # Errors
    /// Fails if the sink cannot write.
    fn write_packet(&mut self, packet: &Packet<'_>) -> Result<()>;

    /// Accepts the packets of a batch.
    ///
    /// # Errors
    /// As for [`write_packet`](Self::write_packet): the error of the first packet that failed. The others are
    /// still written.
    fn write_batch(&mut self, batch: &PacketBatch) -> Result<()> {
        let mut outcome = Ok(());
        for packet in batch {
            outcome = outcome.and(self.write_packet(&packet));
        }
        outcome
    }

    /// Writes everything accepted so far.
    ///
    /// # Errors
    /// Fails if the data cannot be written.
    fn flush(&mut self) -> Result<()>;

    /// Returns when [`tick`](Self::tick) is due next even if no packet arrives, such as when a file reaches its age limit;
    /// `None` if never.
    fn next_due(&self) -> Option<Instant> {
        None
    }

    /// Performs the work that is due. The thread of a [`BackgroundWriter`](super::BackgroundWriter) and a
    /// [`PcapTap`](super::PcapTap) on a reactor call it when it is due; call it yourself if you write to a sink
    /// directly.
    ///
    /// # Errors
    /// Fails if the work that is due fails.
    fn tick(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<W: Write> PacketSink for CaptureWriter<W> {
    fn write_packet(&mut self, packet: &Packet<'_>) -> Result<()> {
        self.write(packet)
    }

    fn flush(&mut self) -> Result<()> {
        CaptureWriter::flush(self)
    }
}

impl<S: PacketSink + ?Sized> PacketSink for &mut S {
    fn write_packet(&mut self, packet: &Packet<'_>) -> Result<()> {
        (**self).write_packet(packet)
    }

    fn write_batch(&mut self, batch: &PacketBatch) -> Result<()> {
        (**self).write_batch(batch)
    }

    fn flush(&mut self) -> Result<()> {
        (**self).flush()
    }

    fn next_due(&self) -> Option<Instant> {
        (**self).next_due()
    }

    fn tick(&mut self) -> Result<()> {
        (**self).tick()
    }
}
