//! Writing of a capture file.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::appearing::Appearing;
use super::compress::CaptureFile;
use super::encode::{self, Bytes, PacketNote};
use super::layout::{FileFormat, FileInterface, InterfaceStatistics, MAX_BLOCK};
use crate::error::{FileError, FileFault, Result};
use crate::packet::{Packet, Timestamp};
use crate::ring::batch::PacketBatch;

/// Number of bytes collected before they are written.
pub(super) const FULL: usize = 256 << 10;

/// Writes packets to a capture file.
///
/// ```no_run
/// use ringtap::pcap::CaptureWriter;
///
/// # fn all(mut capture: ringtap::Capture) -> ringtap::Result<()> {
/// let mut file = CaptureWriter::create("a.pcapng")?;
/// while let Some(batch) = capture.next_batch() {
///     file.write_batch(&batch)?;
/// }
/// file.set_statistics(0, capture.stats()?.into());
/// file.finish()?;
/// # Ok(())
/// # }
/// ```
///
/// Packets are written as they were on the wire: a VLAN tag that the kernel removed is put back. Packets are
/// buffered, up to some 256 KiB; [`flush`](Self::flush) writes what is buffered. If the disk is full, or
/// another error occurs, the data that could not be written stays buffered and is tried again: each packet is
/// either complete in the file or counted as dropped. Dropping the writer writes what is buffered and ignores
/// errors.
#[derive(Debug)]
pub struct CaptureWriter<W: Write = CaptureFile> {
    /// `None` after the output was returned.
    out: Option<W>,
    buffer: Vec<u8>,
    format: FileFormat,
    has_directions: bool,
    /// The interfaces, each with the number of bytes kept per packet and its statistics.
    interfaces: Vec<Interface>,
    /// The interfaces that are described when they appear, if that was asked for.
    appearing: Option<Appearing>,
    stats: WriterStats,
    /// Length of the file before this writer, and its path, for error messages.
    before: u64,
    path: Option<PathBuf>,
}

/// The number of bytes kept per packet of an interface, and its statistics.
pub(super) type Interface = (u32, InterfaceStatistics);

/// Counters of a [`CaptureWriter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WriterStats {
    /// Packets accepted: written, or buffered.
    pub packets: u64,
    /// Bytes written to the file, headers included.
    pub bytes: u64,
    /// Packets rejected because too much was buffered already.
    pub dropped: u64,
    /// Number of write errors.
    pub errors: u64,
}

pub(super) fn of_interface(interface: &FileInterface) -> Interface {
    (interface.kept_len(), interface.statistics)
}

impl<W: Write> CaptureWriter<W> {
    /// Creates a writer and writes the header in `buffer`.
    pub(super) fn begin(
        out: W,
        buffer: Vec<u8>,
        (format, has_directions): (FileFormat, bool),
        interfaces: Vec<Interface>,
        path: Option<&Path>,
    ) -> Result<Self, FileError> {
        let (stats, before, path) = (WriterStats::default(), 0, path.map(Path::to_owned));
        let out = Some(out);
        let appearing = None;
        let mut writer = Self {
            out,
            buffer,
            format,
            has_directions,
            interfaces,
            appearing,
            stats,
            before,
            path,
        };
        // Write the header at once, so that the file is a valid capture file from the start.
        writer.drain()?;
        Ok(writer)
    }

    /// Describes interfaces when they appear.
    pub(super) fn appearing(mut self, appearing: Option<Appearing>) -> Self {
        self.appearing = appearing;
        self
    }

    /// Writes a packet of the first interface, or of the one that it was seen on
    /// ([`each_interface`](super::CaptureWriterBuilder::each_interface)).
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if writing fails. The packet is accepted nevertheless and written
    /// later, unless too much is buffered already ([`WriterStats::dropped`]).
    pub fn write(&mut self, packet: &Packet<'_>) -> Result<()> {
        self.write_with(packet, &PacketNote::default())
    }

    #[inline]
    fn interface_of(&mut self, packet: &Packet<'_>) -> Result<u32> {
        match &mut self.appearing {
            None => Ok(0),
            Some(appearing) => match appearing.number(packet) {
                Some(number) => Ok(number),
                None => self.describe(packet),
            },
        }
    }

    #[cold]
    fn describe(&mut self, packet: &Packet<'_>) -> Result<u32> {
        let Some(mut appearing) = self.appearing.take() else { return Ok(0) };
        let added = self.add_interface(&appearing.describe(packet));
        if let Ok(number) = added {
            appearing.add(packet, number);
        }
        self.appearing = Some(appearing);
        added.inspect_err(|_| self.stats.dropped += 1)
    }

    /// Writes a packet with additional data.
    ///
    /// # Errors
    /// As for [`write`](Self::write), and if the interface does not exist; nothing is written then.
    pub fn write_with(&mut self, packet: &Packet<'_>, note: &PacketNote<'_>) -> Result<()> {
        let interface = match note.interface {
            Some(number) => number,
            None => self.interface_of(packet)?,
        };
        let Some(&(most, _)) = self.interfaces.get(interface as usize) else {
            return Err(self.no_interface(interface).into());
        };
        self.make_room().inspect_err(|_| self.stats.dropped += 1)?;
        let bytes = Bytes::of(packet, most as usize);
        match self.format {
            FileFormat::Pcapng => {
                encode::packet(
                    &mut self.buffer,
                    packet,
                    &bytes,
                    (interface, note),
                    self.has_directions,
                );
            }
            format => encode::record(&mut self.buffer, format, packet.timestamp(), &bytes),
        }
        self.stats.packets += 1;
        if self.buffer.len() >= FULL { Ok(self.drain()?) } else { Ok(()) }
    }

    /// Writes the packets of a batch; see [`write`](Self::write) for the interface they are of.
    ///
    /// # Errors
    /// As for [`write`](Self::write): the error of the first packet that failed. The others are still written.
    pub fn write_batch(&mut self, batch: &PacketBatch) -> Result<()> {
        let mut outcome = Ok(());
        for packet in batch {
            outcome = outcome.and(self.write(&packet));
        }
        outcome
    }

    /// Adds an interface after packets have been written, and returns its number. The classic format has only
    /// one interface.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) in the classic format; otherwise as for [`write`](Self::write).
    pub fn add_interface(&mut self, interface: &FileInterface) -> Result<u32> {
        let number = self.interfaces.len() as u32;
        if self.format != FileFormat::Pcapng {
            return Err(self.no_interface(number).into());
        }
        self.make_room()?;
        encode::interface(&mut self.buffer, interface);
        self.interfaces.push(of_interface(interface));
        Ok(number)
    }

    /// Sets the statistics that [`finish`](Self::finish) writes for an interface; in pcapng only. It has no
    /// effect for an interface that was not added.
    pub fn set_statistics(&mut self, interface: u32, statistics: InterfaceStatistics) {
        if let Some((_, of)) = self.interfaces.get_mut(interface as usize) {
            *of = statistics;
        }
    }

    /// Writes the current statistics of an interface now; in pcapng only.
    ///
    /// # Errors
    /// As for [`write_with`](Self::write_with).
    pub fn write_statistics(
        &mut self,
        interface: u32,
        statistics: &InterfaceStatistics,
    ) -> Result<()> {
        if interface as usize >= self.interfaces.len() {
            return Err(self.no_interface(interface).into());
        }
        self.make_room()?;
        if self.format == FileFormat::Pcapng {
            encode::statistics(&mut self.buffer, interface, Timestamp::now(), statistics);
        }
        Ok(())
    }

    /// Writes any block unchanged; in pcapng only. This copies blocks such as names and keys from
    /// [`CaptureReader::next_block`](super::CaptureReader::next_block), provided that both files are in this
    /// machine's byte order.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if the block is longer than readers accept, or if writing failed
    /// before and too much is buffered; in both cases it is not written.
    pub fn write_block(&mut self, kind: u32, body: &[u8]) -> Result<()> {
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        if len > MAX_BLOCK - 16 {
            return Err(self.fault(FileFault::TooLong { len }).into());
        }
        self.make_room()?;
        if self.format == FileFormat::Pcapng {
            encode::raw(&mut self.buffer, kind, body);
        }
        if self.buffer.len() >= FULL { Ok(self.drain()?) } else { Ok(()) }
    }

    /// Writes all buffered data.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if writing fails; call it again to continue.
    pub fn flush(&mut self) -> Result<()> {
        self.drain()?;
        let flushed = self.out.as_mut().map_or(Ok(()), Write::flush);
        Ok(flushed.map_err(|error| {
            self.stats.errors += 1;
            self.fault(FileFault::Io(error))
        })?)
    }

    /// Writes the statistics and all buffered data, and returns the output.
    ///
    /// # Errors
    /// As for [`flush`](Self::flush); the output is then dropped.
    pub fn finish(mut self) -> Result<W> {
        if self.format == FileFormat::Pcapng {
            for (number, (_, statistics)) in self.interfaces.iter().enumerate() {
                if *statistics != InterfaceStatistics::default() {
                    let now = Timestamp::now();
                    encode::statistics(&mut self.buffer, number as u32, now, statistics);
                }
            }
        }
        self.flush()?;
        Ok(self.out.take().expect("it is given back once"))
    }

    /// Returns the output, without what is still buffered.
    pub fn get_ref(&self) -> &W {
        self.out.as_ref().expect("it is given back once")
    }

    /// Returns the output, without what is still buffered ([`flush`](Self::flush) writes that).
    ///
    /// A writer into a `Vec<u8>` makes the bytes of a file for a runtime that writes files itself: flush, take the bytes
    /// out with `std::mem::take`, and write them behind those before. What else is written into the output ends up
    /// between two blocks.
    pub fn get_mut(&mut self) -> &mut W {
        self.out.as_mut().expect("it is given back once")
    }

    /// Returns the counters so far.
    pub fn stats(&self) -> WriterStats {
        self.stats
    }

    /// Returns the format of the file.
    pub fn format(&self) -> FileFormat {
        self.format
    }

    /// Returns whether interfaces are described as they appear, so that none of them is the capture's.
    pub(super) fn describes_each(&self) -> bool {
        self.appearing.is_some()
    }

    /// Returns the length of the file in bytes, including buffered bytes.
    pub fn len(&self) -> u64 {
        self.before + self.stats.bytes + self.buffer.len() as u64
    }

    /// Returns whether the file is empty. This is always false, as a file begins with a header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the output without writing the buffered data.
    pub(super) fn abandon(mut self) {
        self.out = None;
    }

    fn no_interface(&self, id: u32) -> FileError {
        self.fault(FileFault::NoInterface { id })
    }

    fn fault(&self, fault: FileFault) -> FileError {
        let error = FileError::new(self.before + self.stats.bytes, fault);
        match &self.path {
            Some(path) => error.of(path),
            None => error,
        }
    }

    /// Sets the length that the file had before this writer.
    pub(super) fn behind(mut self, bytes: u64) -> Self {
        self.before = bytes;
        self
    }

    /// If too much is buffered after a failed write, tries to write before more is accepted.
    fn make_room(&mut self) -> Result<(), FileError> {
        if self.buffer.len() >= 2 * FULL { self.drain() } else { Ok(()) }
    }

    fn drain(&mut self) -> Result<(), FileError> {
        let Some(out) = &mut self.out else { return Ok(()) };
        let waiting = self.buffer.len();
        let outcome = encode::drain(&mut self.buffer, out);
        self.stats.bytes += (waiting - self.buffer.len()) as u64;
        outcome.map_err(|error| {
            self.stats.errors += 1;
            self.fault(FileFault::Io(error))
        })
    }
}

impl<W: Write> Drop for CaptureWriter<W> {
    fn drop(&mut self) {
        if self.out.is_some() {
            let _ = self.flush();
        }
    }
}
