//! Writing a capture file.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::compress::CaptureFile;
use super::encode::{self, Bytes, PacketNote};
use super::layout::{FileFormat, FileInterface, InterfaceStatistics, MAX_BLOCK};
use crate::error::{FileError, FileFault, Result};
use crate::packet::{Packet, Timestamp};
use crate::ring::batch::PacketBatch;

/// How much is collected before it is written.
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
/// Packets are written as they were on the wire: a tag that the kernel took out goes back in. They are collected,
/// some 256 KiB at a time; [`flush`](Self::flush) writes what is there. Where the disk is full, or anything else is
/// wrong, what could not be written stays and is tried again: each packet is in the file whole, or counted as dropped.
/// Dropping the writer writes what is there, and says nothing of errors.
#[derive(Debug)]
pub struct CaptureWriter<W: Write = CaptureFile> {
    /// `None` once it was given back.
    out: Option<W>,
    buffer: Vec<u8>,
    format: FileFormat,
    has_directions: bool,
    /// Of each interface, how much of a packet is kept, and what it counted.
    interfaces: Vec<Interface>,
    stats: WriterStats,
    /// Bytes that the file had before, and its path: for errors.
    before: u64,
    path: Option<PathBuf>,
}

/// How much of a packet of an interface is kept, and what it counted.
pub(super) type Interface = (u32, InterfaceStatistics);

/// What a writer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WriterStats {
    /// Packets taken: in the file, or soon.
    pub packets: u64,
    /// Bytes given to the file, headers included.
    pub bytes: u64,
    /// Packets that were not taken, as too much was waiting already.
    pub dropped: u64,
    /// Times that writing failed.
    pub errors: u64,
}

impl CaptureWriter {}

pub(super) fn of_interface(interface: &FileInterface) -> Interface {
    (interface.kept_len(), interface.statistics)
}

impl<W: Write> CaptureWriter<W> {
    /// One that has a header to write.
    pub(super) fn begin(
        out: W,
        buffer: Vec<u8>,
        (format, has_directions): (FileFormat, bool),
        interfaces: Vec<Interface>,
        path: Option<&Path>,
    ) -> Result<Self, FileError> {
        let (stats, before, path) = (WriterStats::default(), 0, path.map(Path::to_owned));
        let out = Some(out);
        let mut writer =
            Self { out, buffer, format, has_directions, interfaces, stats, before, path };
        // A file is a capture file from the start on.
        writer.drain()?;
        Ok(writer)
    }

    /// Writes a packet, of the first interface.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) where writing failed. The packet is taken all the same and written later,
    /// unless too much is waiting already ([`WriterStats::dropped`]).
    pub fn write(&mut self, packet: &Packet<'_>) -> Result<()> {
        self.write_with(packet, &PacketNote::default())
    }

    /// Writes a packet, and what else is to be said of it.
    ///
    /// # Errors
    /// As [`write`](Self::write); where no such interface was added, which writes nothing.
    pub fn write_with(&mut self, packet: &Packet<'_>, note: &PacketNote<'_>) -> Result<()> {
        let Some(&(most, _)) = self.interfaces.get(note.interface as usize) else {
            return Err(self.no_interface(note.interface).into());
        };
        self.make_room().inspect_err(|_| self.stats.dropped += 1)?;
        let bytes = Bytes::of(packet, most as usize);
        match self.format {
            FileFormat::Pcapng => {
                encode::packet(&mut self.buffer, packet, &bytes, note, self.has_directions);
            }
            format => encode::record(&mut self.buffer, format, packet.timestamp(), &bytes),
        }
        self.stats.packets += 1;
        if self.buffer.len() >= FULL { Ok(self.drain()?) } else { Ok(()) }
    }

    /// Writes the packets of a batch, of the first interface.
    ///
    /// # Errors
    /// As [`write`](Self::write), of the first that failed; the others are written all the same.
    pub fn write_batch(&mut self, batch: &PacketBatch) -> Result<()> {
        let mut outcome = Ok(());
        for packet in batch {
            outcome = outcome.and(self.write(&packet));
        }
        outcome
    }

    /// Adds an interface while packets are written: its number. In the classic format there is one only.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) in the classic format; as [`write`](Self::write).
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

    /// What [`finish`](Self::finish) is to write of an interface; in pcapng only. Of an interface that was not added,
    /// nothing.
    pub fn set_statistics(&mut self, interface: u32, statistics: InterfaceStatistics) {
        if let Some((_, of)) = self.interfaces.get_mut(interface as usize) {
            *of = statistics;
        }
    }

    /// Writes what an interface has counted so far, now; in pcapng only.
    ///
    /// # Errors
    /// As [`write_with`](Self::write_with).
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

    /// Writes any block as it is; in pcapng only. Names and keys read by
    /// [`CaptureReader::next_block`](super::CaptureReader::next_block) pass so, where both files have this machine's
    /// byte order.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) where it is longer than readers take, or writing failed before and too much
    /// is waiting: then it is not written.
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

    /// Writes what is there.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) where that failed; call it again to go on.
    pub fn flush(&mut self) -> Result<()> {
        self.drain()?;
        let flushed = self.out.as_mut().map_or(Ok(()), Write::flush);
        Ok(flushed.map_err(|error| {
            self.stats.errors += 1;
            self.fault(FileFault::Io(error))
        })?)
    }

    /// Writes the statistics and what is there, and gives the output back.
    ///
    /// # Errors
    /// As [`flush`](Self::flush); the output is dropped then.
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

    /// What it did so far.
    pub fn stats(&self) -> WriterStats {
        self.stats
    }

    /// How the file is written.
    pub fn format(&self) -> FileFormat {
        self.format
    }

    /// Bytes of the file, those included that wait.
    pub fn len(&self) -> u64 {
        self.before + self.stats.bytes + self.buffer.len() as u64
    }

    /// Whether nothing was written yet, which is so of no file: it has a header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the output, with what is in it.
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

    /// The same of a file that had so many bytes.
    pub(super) fn behind(mut self, bytes: u64) -> Self {
        self.before = bytes;
        self
    }

    /// Where too much waits, as writing failed the last time, tries again before more is taken.
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
