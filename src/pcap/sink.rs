//! What takes packets to be kept.

use std::io::Write;
use std::time::Instant;

use super::writer::CaptureWriter;
use crate::error::Result;
use crate::packet::Packet;
use crate::ring::batch::PacketBatch;

/// What packets are written to: a file, a series of files, a thread that writes.
///
/// What is given is taken, also where an error is returned: it is written later, or counted as dropped. It is not to be
/// given again.
pub trait PacketSink {
    /// Takes a packet.
    ///
    /// # Errors
    /// Where it cannot.
    fn write_packet(&mut self, packet: &Packet<'_>) -> Result<()>;

    /// Takes the packets of a batch.
    ///
    /// # Errors
    /// As [`write_packet`](Self::write_packet), of the first that failed; the others are tried all the same.
    fn write_batch(&mut self, batch: &PacketBatch) -> Result<()> {
        let mut outcome = Ok(());
        for packet in batch {
            outcome = outcome.and(self.write_packet(&packet));
        }
        outcome
    }

    /// Has what was taken written.
    ///
    /// # Errors
    /// Where that fails.
    fn flush(&mut self) -> Result<()>;

    /// Returns when [`tick`](Self::tick) is due next even if no packet arrives, such as when a file reaches its age limit;
    /// `None` if never.
    fn next_due(&self) -> Option<Instant> {
        None
    }

    /// Does what is due. A [`BackgroundWriter`](super::BackgroundWriter)'s thread and a
    /// [`PcapTap`](super::PcapTap) on a reactor call it when it is due; call it yourself if you write to a sink directly.
    ///
    /// # Errors
    /// Where that fails.
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
