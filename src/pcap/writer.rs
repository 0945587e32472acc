//! Writing a capture file.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::compress::{CaptureFile, Compression};
use super::encode::{self, About, Bytes};
use super::layout::{FileFormat, FileInterface, InterfaceStatistics};
use crate::error::FileError;
use crate::{LinkType, Packet, PacketBatch, Result, Timestamp};

/// How much is collected before it is written.
const FULL: usize = 256 << 10;

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
    interfaces: Vec<(u32, InterfaceStatistics)>,
    stats: WriterStats,
}

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

/// What else to write of a packet; in pcapng only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PacketNote<'a> {
    /// The number of the interface it is of, counted from 0. Default 0.
    pub interface: u32,
    /// A comment.
    pub comment: Option<&'a str>,
    /// A hash: the number of its algorithm, and its bytes (`epb_hash`: 2 is CRC32, 3 MD5, 4 SHA-1).
    pub hash: Option<(u8, &'a [u8])>,
}

/// How a capture file is written; from [`CaptureWriter::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `create`, `append` or `to`"]
pub struct CaptureWriterBuilder {
    pub(super) format: FileFormat,
    pub(super) interfaces: Vec<FileInterface>,
    about: About,
    has_directions: bool,
    compression: Compression,
}

impl Default for CaptureWriterBuilder {
    fn default() -> Self {
        let application = Some(concat!("ringtap ", env!("CARGO_PKG_VERSION")).to_owned());
        let about = About { application, system: Some("Linux".to_owned()), ..About::default() };
        Self {
            format: FileFormat::default(),
            interfaces: Vec::new(),
            about,
            has_directions: true,
            compression: Compression::None,
        }
    }
}

impl CaptureWriterBuilder {
    /// The format. Default pcapng.
    pub fn format(mut self, format: FileFormat) -> Self {
        self.format = format;
        self
    }

    /// Adds an interface. The classic format has one; by default it is Ethernet, without a name.
    pub fn interface(mut self, interface: FileInterface) -> Self {
        self.interfaces.push(interface);
        self
    }

    /// A comment on the whole file; in pcapng only.
    pub fn comment(mut self, text: impl Into<String>) -> Self {
        self.about.comment = Some(text.into());
        self
    }

    /// The machine it was captured on; in pcapng only.
    pub fn hardware(mut self, text: impl Into<String>) -> Self {
        self.about.hardware = Some(text.into());
        self
    }

    /// The program that wrote it; in pcapng only. Default this crate and its version.
    pub fn application(mut self, text: impl Into<String>) -> Self {
        self.about.application = Some(text.into());
        self
    }

    /// Whether it is written of each packet which way it went, 12 bytes more; in pcapng only. Default true.
    pub fn directions(mut self, on: bool) -> Self {
        self.has_directions = on;
        self
    }

    /// How it is compressed. Default not.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Creates a file, in place of one that is there.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) where it cannot be written.
    pub fn create(self, path: impl AsRef<Path>) -> Result<CaptureWriter> {
        let path = path.as_ref();
        let file = File::create(path).map_err(|error| FileError::io(0, error).of(path))?;
        let out = CaptureFile::new(file, self.compression);
        Ok(self.start(out, true).map_err(|error| error.of(path))?)
    }

    /// Writes to anything; do not buffer it, the writer does.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn to<W: Write>(self, out: W) -> Result<CaptureWriter<W>> {
        Ok(self.start(out, true)?)
    }

    pub(super) fn start<W: Write>(
        mut self,
        out: W,
        has_header: bool,
    ) -> Result<CaptureWriter<W>, FileError> {
        if self.interfaces.is_empty() {
            self.interfaces.push(FileInterface::new(LinkType::ETHERNET));
        }
        let mut buffer = Vec::with_capacity(FULL + (64 << 10));
        match self.format {
            FileFormat::Pcapng => {
                encode::section(&mut buffer, &self.about);
                for interface in &self.interfaces {
                    encode::interface(&mut buffer, interface);
                }
            }
            format if has_header => {
                encode::file_header(&mut buffer, format, &self.interfaces[0]);
            }
            _ => {}
        }
        let interfaces = self.interfaces.iter().map(of_interface).collect();
        let (format, has_directions) = (self.format, self.has_directions);
        let (out, stats) = (Some(out), WriterStats::default());
        let mut writer = CaptureWriter { out, buffer, format, has_directions, interfaces, stats };
        // A file is a capture file from the start on.
        writer.drain()?;
        Ok(writer)
    }
}

fn of_interface(interface: &FileInterface) -> (u32, InterfaceStatistics) {
    let most = if interface.snap_len == 0 { u32::MAX } else { interface.snap_len };
    (most, interface.statistics)
}

impl CaptureWriter {
    /// Creates a pcapng file of one Ethernet interface.
    ///
    /// # Errors
    /// As [`CaptureWriterBuilder::create`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().create(path)
    }

    /// Goes on with a pcapng file; see [`CaptureWriterBuilder::append`].
    ///
    /// # Errors
    /// As there.
    pub fn append(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().append(path)
    }

    /// How it is to be written.
    pub fn builder() -> CaptureWriterBuilder {
        CaptureWriterBuilder::default()
    }
}

impl<W: Write> CaptureWriter<W> {
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
        if self.buffer.len() >= 2 * FULL {
            // It failed the last time, too.
            if let Err(error) = self.drain() {
                self.stats.dropped += 1;
                return Err(error.into());
            }
        }
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
    /// As [`write`](Self::write).
    pub fn write_block(&mut self, kind: u32, body: &[u8]) -> Result<()> {
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
        Ok(flushed.map_err(|error| FileError::io(self.stats.bytes, error))?)
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
        self.stats.bytes + self.buffer.len() as u64
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
        FileError::new(self.len(), crate::error::FileFault::NoInterface { id })
    }

    fn drain(&mut self) -> Result<(), FileError> {
        let Some(out) = &mut self.out else { return Ok(()) };
        let waiting = self.buffer.len();
        let outcome = encode::drain(&mut self.buffer, out);
        self.stats.bytes += (waiting - self.buffer.len()) as u64;
        outcome.map_err(|error| {
            self.stats.errors += 1;
            FileError::io(self.stats.bytes, error)
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
