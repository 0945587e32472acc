//! Writing to a series of files.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::builder::CaptureWriterBuilder;
use super::encode::PacketNote;
use super::layout::InterfaceStatistics;
use super::names::{Names, Written};
use super::sink::PacketSink;
use super::writer::CaptureWriter;
use crate::error::{FileError, FileFault, Result};
use crate::packet::Packet;

/// How long to wait before writing is tried again after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Writes packets to a series of files. A new file is begun when the current one is large, old or full enough,
/// and the oldest files are removed.
///
/// ```no_run
/// use ringtap::pcap::{PacketSink, RotatingWriter};
///
/// # fn all(mut capture: ringtap::Capture) -> ringtap::Result<()> {
/// let files = RotatingWriter::builder("/var/spool/capture", "eth0");
/// let mut files = files.max_bytes(100 << 20).keep_files(20).build()?;
/// while let Some(batch) = capture.next_batch() {
///     // An error is reported once, and counted; the next packets are tried again.
///     if let Err(error) = files.write_batch(&batch) {
///         eprintln!("{error}");
///     }
/// }
/// files.finish()?;
/// # Ok(())
/// # }
/// ```
///
/// Each file is complete: it is closed before the next one is opened, and no packet is split between files. If
/// the process is killed, at most the data that was not [flushed](PacketSink::flush) is lost, some 256 KiB; the
/// last file may then end inside a packet, which readers report after the complete packets. If the disk is
/// full, packets are dropped and counted ([`RotationStats::lost`]), the file ends with its last complete
/// packet, and another file is begun once there is room.
#[derive(Debug)]
pub struct RotatingWriter {
    options: RotatingWriterBuilder,
    names: Names,
    current: Option<Current>,
    /// No attempt is made before this time.
    wait_until: Option<Instant>,
    statistics: Option<InterfaceStatistics>,
    stats: RotationStats,
}

/// The file being written.
#[derive(Debug)]
struct Current {
    writer: CaptureWriter<Counted>,
    path: PathBuf,
    began: Instant,
    /// Packets given to the writer, and the number of them known to be in the file.
    packets: u64,
    flushed: u64,
}

/// A file, and its length up to the last complete write.
#[derive(Debug)]
struct Counted {
    file: File,
    whole: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // All or nothing: a partial write, as on a full disk, is cut off again.
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.whole += bytes.len() as u64;
                Ok(bytes.len())
            }
            Err(error) => {
                self.file.set_len(self.whole)?;
                self.file.seek(SeekFrom::Start(self.whole))?;
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Counters of a [`RotatingWriter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RotationStats {
    /// Packets accepted.
    pub packets: u64,
    /// Packets that are in no file because writing failed.
    pub lost: u64,
    /// Files begun.
    pub files: u64,
    /// Oldest files removed.
    pub removed: u64,
    /// Number of failures.
    pub errors: u64,
}

/// Configures a series of files; from [`RotatingWriter::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct RotatingWriterBuilder {
    directory: PathBuf,
    prefix: String,
    file: CaptureWriterBuilder,
    max_bytes: u64,
    max_time: Option<Duration>,
    max_packets: u64,
    keep_files: Option<usize>,
    keep_bytes: Option<u64>,
}

impl RotatingWriterBuilder {
    /// Sets the format, interfaces and texts of each file. The compression setting is ignored.
    pub fn file(mut self, file: CaptureWriterBuilder) -> Self {
        self.file = file;
        self
    }

    /// Sets the size at which a file is closed; a file may exceed it by one packet. Default: 100 MiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the age at which a file is closed. The age is checked with each packet; a
    /// [`BackgroundWriter`](super::BackgroundWriter), or a tap on a reactor, also closes the file on time if no
    /// packet arrives ([`PacketSink::tick`]). No limit by default.
    pub fn max_time(mut self, time: Duration) -> Self {
        self.max_time = Some(time);
        self
    }

    /// Sets the maximum number of packets per file. No limit by default.
    pub fn max_packets(mut self, packets: u64) -> Self {
        self.max_packets = packets;
        self
    }

    /// Sets the maximum number of files, including the one being written; the oldest is removed. No limit by
    /// default.
    pub fn keep_files(mut self, files: usize) -> Self {
        self.keep_files = Some(files.max(1));
        self
    }

    /// Sets the maximum total size of all files, in bytes. The file being written counts with its maximum size,
    /// and the oldest files are removed before it is begun. No limit by default.
    pub fn keep_bytes(mut self, bytes: u64) -> Self {
        self.keep_bytes = Some(bytes);
        self
    }

    /// Opens the first file. Existing files with the same prefix, from an earlier run, count as the oldest.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if the directory cannot be read, the file cannot be written, or the
    /// prefix is not valid as the beginning of a file name.
    pub fn build(self) -> Result<RotatingWriter> {
        let extension = match self.file.format {
            super::FileFormat::Pcapng => "pcapng",
            _ => "pcap",
        };
        let names = Names::read(&self.directory, &self.prefix, extension)?;
        let (current, wait_until, statistics) = (None, None, None);
        let stats = RotationStats::default();
        let mut files =
            RotatingWriter { options: self, names, current, wait_until, statistics, stats };
        files.open()?;
        Ok(files)
    }
}

impl RotatingWriter {
    /// Returns a builder for a series of files in `directory`. Each name consists of `prefix`, an increasing
    /// number, the time, and `.pcapng` or `.pcap`: `eth0_00001_20260131T235959.pcapng`.
    pub fn builder(
        directory: impl Into<PathBuf>,
        prefix: impl Into<String>,
    ) -> RotatingWriterBuilder {
        RotatingWriterBuilder {
            directory: directory.into(),
            prefix: prefix.into(),
            file: CaptureWriterBuilder::default(),
            max_bytes: 100 << 20,
            max_time: None,
            max_packets: u64::MAX,
            keep_files: None,
            keep_bytes: None,
        }
    }

    /// Writes a packet with additional data.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if writing fails. A failure is reported once, and writing is tried
    /// again after a second; meanwhile packets are dropped and counted.
    pub fn write_with(&mut self, packet: &Packet<'_>, note: &PacketNote<'_>) -> Result<()> {
        if let Some(id) = note.interface.filter(|&number| !self.options.file.has_interface(number))
        {
            // This is the caller's mistake, not a fault of the file.
            return Err(FileError::new(0, FileFault::NoInterface { id }).into());
        }
        self.stats.packets += 1;
        if self.wait_until.is_some_and(|until| Instant::now() < until) {
            self.stats.lost += 1;
            return Ok(());
        }
        if let Err(error) = self.turn() {
            self.failed();
            self.stats.lost += 1;
            return Err(error);
        }
        self.put(packet, note).inspect_err(|_| self.failed())
    }

    /// Closes the file and begins the next one.
    ///
    /// # Errors
    /// As for [`write_with`](Self::write_with).
    pub fn rotate(&mut self) -> Result<()> {
        self.close().and_then(|()| self.open()).inspect_err(|_| self.failed())
    }

    /// Sets the statistics written for the first interface at the end of each file from now on. They are totals
    /// of the whole capture, and therefore not written where each interface is described.
    pub fn set_statistics(&mut self, statistics: InterfaceStatistics) {
        self.statistics = Some(statistics);
    }

    /// Returns the path of the file being written.
    pub fn path(&self) -> Option<&Path> {
        self.current.as_ref().map(|current| &*current.path)
    }

    /// Returns the counters so far.
    pub fn stats(&self) -> RotationStats {
        self.stats
    }

    /// Closes the last file.
    ///
    /// # Errors
    /// As for [`write_with`](Self::write_with).
    pub fn finish(mut self) -> Result<RotationStats> {
        self.close()?;
        Ok(self.stats)
    }

    fn put(&mut self, packet: &Packet<'_>, note: &PacketNote<'_>) -> Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let waiting = current.writer.stats().bytes;
        current.packets += 1;
        current.writer.write_with(packet, note)?;
        if current.writer.stats().bytes > waiting {
            current.flushed = current.packets;
        }
        Ok(())
    }

    /// Begins the next file if it is due.
    fn turn(&mut self) -> Result<()> {
        let options = &self.options;
        let is_done = self.current.as_ref().is_none_or(|current| {
            let is_old = current.due(options).is_some_and(|due| due <= Instant::now());
            let is_full =
                current.packets >= options.max_packets || current.writer.len() >= options.max_bytes;
            current.packets > 0 && (is_old || is_full)
        });
        if is_done { self.close().and_then(|()| self.open()) } else { Ok(()) }
    }

    /// Handles a failure: buffered packets are lost, and the file ends with what it has.
    fn failed(&mut self) {
        self.stats.errors += 1;
        self.wait_until = Some(Instant::now() + RETRY);
        if let Some(current) = self.current.take() {
            self.stats.lost += current.packets - current.flushed;
            let bytes = current.writer.stats().bytes;
            current.writer.abandon();
            self.names.wrote(Written { path: current.path, bytes });
        }
    }

    fn close(&mut self) -> Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if let Some(statistics) = self.statistics.filter(|_| !current.writer.describes_each()) {
            current.writer.write_statistics(0, &statistics)?;
        }
        current.writer.flush()?;
        current.flushed = current.packets;
        let Some(Current { writer, path, .. }) = self.current.take() else { return Ok(()) };
        let bytes = writer.stats().bytes;
        drop(writer);
        self.names.wrote(Written { path, bytes });
        Ok(())
    }

    fn open(&mut self) -> Result<()> {
        // Remove old files first, so that a full disk has room again.
        let (files, bytes) = (self.options.keep_files, self.options.keep_bytes);
        let room = bytes.map(|most| most.saturating_sub(self.options.max_bytes));
        let (removed, failed) = self.names.keep(files.map(|files| files - 1), room);
        self.stats.removed += removed;
        self.stats.errors += failed;
        let (file, path) = self.create()?;
        let out = Counted { file, whole: 0 };
        let options = self.options.file.clone();
        let writer = options.start(out, true, Some(&path)).inspect_err(|_| {
            let _ = fs::remove_file(&path); // useless without its header
        })?;
        let (began, packets, flushed) = (Instant::now(), 0, 0);
        self.current = Some(Current { writer, path, began, packets, flushed });
        self.stats.files += 1;
        self.wait_until = None;
        Ok(())
    }

    /// Creates the file with the next number not yet taken: another process may write the same series.
    fn create(&mut self) -> Result<(File, PathBuf)> {
        const TRIES: usize = 1000;
        let mut tries = 0;
        loop {
            let path = self.names.next(SystemTime::now());
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((file, path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < TRIES => {
                    tries += 1;
                }
                Err(error) => return Err(FileError::io(0, error).of(&path).into()),
            }
        }
    }
}

impl Current {
    /// Returns when the file reaches its age limit.
    fn due(&self, options: &RotatingWriterBuilder) -> Option<Instant> {
        self.began.checked_add(options.max_time?)
    }
}

impl PacketSink for RotatingWriter {
    fn next_due(&self) -> Option<Instant> {
        let current = self.current.as_ref().filter(|current| current.packets > 0)?;
        current.due(&self.options)
    }

    /// Closes a file that has reached its age limit; the next packet begins another.
    fn tick(&mut self) -> Result<()> {
        match self.next_due() {
            Some(due) if due <= Instant::now() => self.close().inspect_err(|_| self.failed()),
            _ => Ok(()),
        }
    }

    fn write_packet(&mut self, packet: &Packet<'_>) -> Result<()> {
        self.write_with(packet, &PacketNote::default())
    }

    fn flush(&mut self) -> Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let outcome = current.writer.flush();
        match outcome {
            Ok(()) => current.flushed = current.packets,
            Err(_) => self.failed(),
        }
        outcome
    }
}

impl Drop for RotatingWriter {
    fn drop(&mut self) {
        let _ = self.close();
    }
}
