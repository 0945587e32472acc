//! The packets that a query asked for, read from the files of all its series at once.

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ringtap_filter::BpfFilter;

use super::parts::open;
use super::segments::{Scanned, Segments, Wanted};
use crate::error::{Error, FileFault, Result};
use crate::packet::{OwnedPacket, Timestamp};
use crate::pcap::{CaptureReader, CaptureWriter, FileInterface, InterfaceStatistics, PacketNote};

/// What a query has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// Packets that were returned.
    pub packets: u64,
    /// Packets that were looked at.
    pub looked_at: u64,
    /// Files that were opened.
    pub files: u64,
    /// Files that were there when the archive was opened, and were removed before they were read.
    pub gone: u64,
    /// Files that end in the middle of a packet or block, as after a kill, or that were empty.
    pub cut_short: u64,
    /// Bytes that were read.
    pub read: u64,
    /// Bytes that were passed over, because their packets are of other times, or have not what the filter asks for.
    pub passed_over: u64,
    /// Of the bytes that were passed over, those that an index has ruled out: no packet has all the hosts, ports, protocols
    /// and VLANs.
    pub ruled_out: u64,
    /// Of the files that were opened, those that have an index.
    pub indexed: u64,
}

/// The packets that a [`Query`](super::Query) asked for; from [`Query::packets`](super::Query::packets).
#[derive(Debug)]
pub struct Answer {
    sources: Vec<Source>,
    scanned: Arc<Scanned>,
    /// Of the packet that was returned last.
    interface: Option<Arc<FileInterface>>,
    /// Those of the packets that were written, and their numbers in the file.
    written: Vec<(Arc<FileInterface>, u32)>,
}

impl Answer {
    /// Of the files of some series, each oldest first.
    pub(super) fn new(
        series: impl Iterator<Item = Vec<PathBuf>>,
        wanted: Wanted,
        scanned: Scanned,
        filter: Option<BpfFilter>,
    ) -> Self {
        let (wanted, scanned) = (Arc::new(wanted), Arc::new(scanned));
        let sources = series.map(|files| Source {
            files: files.into(),
            reader: None,
            next: None,
            interfaces: Vec::new(),
            wanted: Arc::clone(&wanted),
            filter: filter.clone(),
            scanned: Arc::clone(&scanned),
            report: Report::default(),
        });
        Self { sources: sources.collect(), scanned, interface: None, written: Vec::new() }
    }

    /// Returns what was read so far.
    pub fn report(&self) -> Report {
        let mut all = Report::default();
        for Source { report, .. } in &self.sources {
            all.packets += report.packets;
            all.looked_at += report.looked_at;
            all.files += report.files;
            all.cut_short += report.cut_short;
            all.gone += report.gone;
        }
        all.read = self.scanned.read.load(Relaxed);
        all.ruled_out = self.scanned.without_terms.load(Relaxed);
        all.passed_over = self.scanned.of_other_times.load(Relaxed) + all.ruled_out;
        all.indexed = self.scanned.indexed.load(Relaxed);
        all
    }

    /// Returns the interface that the packet which was returned last was seen on, as its file describes it.
    pub fn interface(&self) -> Option<&FileInterface> {
        self.interface.as_deref()
    }

    /// Writes the next packet to a pcapng file, and says whether there was one. Each interface is described in the file before
    /// its first packet, once: all packets of an answer go to one file. Ask [`CaptureWriterBuilder`](crate::pcap::CaptureWriterBuilder) for a file with
    /// [`each_interface`](crate::pcap::CaptureWriterBuilder::each_interface): it has no other interface then.
    ///
    /// # Errors
    /// [`Error::File`]: a file of the archive cannot be read; or this one not be written, as for [`CaptureWriter::write`] and
    /// [`CaptureWriter::add_interface`], which refuses files in the classic format.
    pub fn write_next<W: Write>(&mut self, file: &mut CaptureWriter<W>) -> Result<bool> {
        let Some(packet) = self.next().transpose()? else { return Ok(false) };
        let number = match &self.interface {
            Some(interface) => Some(number_of(interface, &mut self.written, file)?),
            None => None,
        };
        let note = PacketNote { interface: number, ..PacketNote::default() };
        file.write_with(&packet.as_packet(), &note)?;
        Ok(true)
    }
}

impl Iterator for Answer {
    type Item = Result<OwnedPacket>;

    fn next(&mut self) -> Option<Self::Item> {
        for source in &mut self.sources {
            if let Err(error) = source.fill() {
                return Some(Err(error));
            }
        }
        let ready = self.sources.iter_mut().filter(|source| source.next.is_some());
        let earliest = ready.min_by_key(|source| source.next.as_ref().map(|next| next.time))?;
        let Next { packet, interface, .. } = earliest.next.take()?;
        earliest.report.packets += 1;
        self.interface = earliest.interfaces.get(interface).cloned();
        Some(Ok(packet))
    }
}

/// Returns the number of an interface in a file, where it is described if it was not yet.
fn number_of<W: Write>(
    interface: &Arc<FileInterface>,
    written: &mut Vec<(Arc<FileInterface>, u32)>,
    file: &mut CaptureWriter<W>,
) -> Result<u32> {
    if let Some((_, number)) = written.iter().find(|(known, _)| known == interface) {
        return Ok(*number);
    }
    let number = file.add_interface(interface)?;
    written.push((Arc::clone(interface), number));
    Ok(number)
}

/// The next packet of a series.
#[derive(Debug)]
struct Next {
    time: Timestamp,
    packet: OwnedPacket,
    /// Its number in the file.
    interface: usize,
}

/// The files of a series, read one after another.
#[derive(Debug)]
struct Source {
    files: VecDeque<PathBuf>,
    reader: Option<(CaptureReader, PathBuf)>,
    next: Option<Next>,
    /// Those that the file has described.
    interfaces: Vec<Arc<FileInterface>>,
    wanted: Arc<Wanted>,
    filter: Option<BpfFilter>,
    scanned: Arc<Scanned>,
    report: Report,
}

impl Source {
    /// Makes the next packet ready, if there is one and none is.
    fn fill(&mut self) -> Result<()> {
        while self.next.is_none() {
            let Some((reader, path)) = &mut self.reader else {
                match self.files.pop_front() {
                    Some(path) => self.open(path)?,
                    None => return Ok(()),
                }
                continue;
            };
            let record = match reader.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => {
                    self.reader = None;
                    continue;
                }
                Err(error) => {
                    let path = path.clone();
                    self.reader = None;
                    self.ended_by(error, &path)?;
                    continue;
                }
            };
            let (packet, interface) = (record.packet(), record.interface());
            self.report.looked_at += 1;
            let (from, to) = self.wanted.range;
            let is_in_range = (from..to).contains(&packet.timestamp().as_nanos());
            if is_in_range && self.filter.as_ref().is_none_or(|filter| packet.matches(filter)) {
                let (time, packet) = (packet.timestamp(), packet.to_owned());
                self.next = Some(Next { time, packet, interface });
                self.take_interfaces();
            }
        }
        Ok(())
    }

    /// Keeps those that the file has described since.
    fn take_interfaces(&mut self) {
        if let Some((reader, _)) = &self.reader {
            let of_file = reader.interfaces();
            let new = of_file.get(self.interfaces.len()..).unwrap_or_default();
            // What a file counts at its end is not of the packets that are asked for.
            let described = new.iter().map(|interface| FileInterface {
                statistics: InterfaceStatistics::default(),
                ..interface.clone()
            });
            self.interfaces.extend(described.map(Arc::new));
        }
    }

    fn open(&mut self, path: PathBuf) -> Result<()> {
        let Some(file) = open(&path)? else {
            self.report.gone += 1;
            return Ok(());
        };
        self.report.files += 1;
        self.interfaces.clear();
        let (wanted, scanned) = (Arc::clone(&self.wanted), Arc::clone(&self.scanned));
        let segments = Segments::new(file, &path, wanted, scanned);
        match CaptureReader::from_reader(segments) {
            Ok(reader) => self.reader = Some((reader, path)),
            Err(error) => self.ended_by(error, &path)?,
        }
        Ok(())
    }

    /// A file that ends early, or is empty, was being written when its recorder was killed; or is being written now.
    fn ended_by(&mut self, error: Error, path: &Path) -> Result<()> {
        match error {
            Error::File(file) if matches!(file.fault(), FileFault::Io(_)) => {
                Err(file.of(path).into())
            }
            Error::File(_) => {
                self.report.cut_short += 1;
                Ok(())
            }
            error => Err(error),
        }
    }
}
