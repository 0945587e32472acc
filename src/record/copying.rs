//! What is formatted and copied: the header and the end of a file, and packets that are not in a block of a ring.

use crate::error::{FileError, Result};
use crate::pcap::{CaptureWriter, CaptureWriterBuilder, InterfaceStatistics};
use crate::ring::batch::PacketBatch;
use crate::ring::rewrite::pcapng::filler;
use crate::sys::aligned::AlignedBuf;

/// A disk takes multiples of this many bytes, from memory that begins at one.
pub(super) const ALIGN: usize = 4096;
/// How much is gathered before it is written.
const ENOUGH: usize = 1 << 20;

/// Formats packets, and gathers what was formatted.
#[derive(Debug)]
pub(super) struct Copying {
    writer: CaptureWriter<Vec<u8>>,
    packets: u64,
}

impl Copying {
    /// Begins a file: its header is there already.
    pub(super) fn new(file: &CaptureWriterBuilder) -> Result<Self> {
        Ok(Self { writer: file.clone().to(Vec::new())?, packets: 0 })
    }

    /// Formats packets. Returns whether there is enough to be written.
    pub(super) fn push(&mut self, batch: &PacketBatch) -> Result<bool> {
        self.writer.write_batch(batch)?;
        self.packets += batch.len() as u64;
        Ok(self.writer.get_ref().len() >= ENOUGH)
    }

    /// Returns the packets that are not taken yet.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// Takes what was formatted, and the number of packets in it.
    pub(super) fn take(&mut self) -> Result<Option<(AlignedBuf, u64)>> {
        self.writer.flush()?;
        let bytes = std::mem::take(self.writer.get_mut());
        let packets = std::mem::take(&mut self.packets);
        Ok(aligned(&bytes)?.map(|buffer| (buffer, packets)))
    }

    /// Takes what was formatted, with the statistics at the end.
    pub(super) fn end(
        mut self,
        statistics: Option<InterfaceStatistics>,
    ) -> Result<Option<(AlignedBuf, u64)>> {
        if let Some(statistics) = statistics {
            self.writer.set_statistics(0, statistics);
        }
        let packets = self.packets;
        let bytes = self.writer.finish()?;
        Ok(aligned(&bytes)?.map(|buffer| (buffer, packets)))
    }
}

/// Copies bytes to the beginning of a page, and fills the last one with a block that says nothing.
fn aligned(bytes: &[u8]) -> Result<Option<AlignedBuf>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let len = bytes.len().next_multiple_of(ALIGN);
    let filler = filler(len - bytes.len(), ALIGN);
    let mut buffer =
        AlignedBuf::new(bytes.len() + filler.len()).map_err(|error| FileError::io(0, error))?;
    buffer.push(bytes);
    buffer.push(&filler);
    Ok(Some(buffer))
}
