//! Recorded packets, asked for.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ringtap_filter::{BpfFilter, Needs};

use super::explain::Explanation;
use super::segments::{Scanned, Segments, Wanted};
use crate::error::{Error, FileError, FileFault, Result};
use crate::packet::{OwnedPacket, Timestamp};
use crate::pcap::names::series;
use crate::pcap::{CaptureReader, FileInterface};

/// The files of a directory that [`Recorder`](super::Recorder)s have written, of all their series.
///
/// ```no_run
/// use ringtap::packet::Timestamp;
/// use ringtap::pcap::CaptureWriter;
/// use ringtap::record::Archive;
///
/// # fn main() -> ringtap::Result<()> {
/// let archive = Archive::open("/var/spool/capture")?;
/// let filter = "host 192.0.2.7 and tcp port 443".parse()?;
/// let [from, to] = [1_790_000_000, 1_790_003_600].map(|secs| Timestamp { secs, nanos: 0 });
/// let mut file = CaptureWriter::create("answer.pcapng")?;
/// let mut answer = archive.query().filter(filter).from(from).to(to).packets();
/// for packet in &mut answer {
///     file.write(&packet?.as_packet())?;
/// }
/// file.finish()?;
/// eprintln!("{:?}", answer.report());
/// # Ok(())
/// # }
/// ```
///
/// A recorder may go on writing meanwhile. Files that it removes while they are read are read to their end.
#[derive(Debug, Clone)]
pub struct Archive {
    /// The files of each series, oldest first.
    series: BTreeMap<String, Vec<PathBuf>>,
}

impl Archive {
    /// Lists the files of a directory. Others than those of recorders are left out.
    ///
    /// # Errors
    /// [`Error::File`] if the directory cannot be read.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let of = |error: std::io::Error| FileError::io(0, error).of(directory);
        let mut found: BTreeMap<String, Vec<(u64, PathBuf)>> = BTreeMap::new();
        for entry in std::fs::read_dir(directory).map_err(of)? {
            let entry = entry.map_err(of)?;
            let name = entry.file_name();
            if let Some((prefix, number)) = name.to_str().and_then(|name| series(name, "pcapng")) {
                found.entry(prefix.to_owned()).or_default().push((number, entry.path()));
            }
        }
        let sorted = |mut files: Vec<(u64, PathBuf)>| {
            files.sort();
            files.into_iter().map(|(_, path)| path).collect()
        };
        Ok(Self { series: found.into_iter().map(|(name, files)| (name, sorted(files))).collect() })
    }

    /// Returns the names of the series: a recorder's prefix each.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.series.keys().map(String::as_str)
    }

    /// Returns the files of a series, oldest first.
    pub fn files(&self, series: &str) -> &[PathBuf] {
        self.series.get(series).map_or(&[], Vec::as_slice)
    }

    /// Asks for packets: for all of them, unless the query is narrowed.
    pub fn query(&self) -> Query {
        Query { series: self.series.clone(), filter: None, range: (0, u64::MAX) }
    }
}

/// Which packets of an [`Archive`] are asked for.
#[derive(Debug, Clone)]
#[must_use = "a query does nothing until `packets`"]
pub struct Query {
    series: BTreeMap<String, Vec<PathBuf>>,
    filter: Option<BpfFilter>,
    /// In nanoseconds; the end is not part of it.
    range: (u64, u64),
}

impl Query {
    /// Asks for packets of this time or later. Writes that have only earlier ones are passed over without being read.
    pub fn from(mut self, time: Timestamp) -> Self {
        self.range.0 = time.as_nanos();
        self
    }

    /// Asks for packets before this time.
    pub fn to(mut self, time: Timestamp) -> Self {
        self.range.1 = time.as_nanos();
        self
    }

    /// Asks for packets that the filter accepts. What an index says has none of the filter's hosts, ports, protocols or VLANs
    /// is passed over; see [`explain`](Self::explain).
    pub fn filter(mut self, filter: BpfFilter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Asks for packets of one series.
    pub fn series(mut self, name: &str) -> Self {
        self.series.retain(|series, _| series == name);
        self
    }

    /// Returns what can be passed over, without looking at packets: by the times of what was written, and by which terms of the
    /// filter the indexes know.
    ///
    /// # Errors
    /// [`Error::File`] if a file cannot be read.
    pub fn explain(&self) -> Result<Explanation> {
        let (wanted, scanned) = (Arc::new(self.wanted()), Arc::new(Scanned::default()));
        let mut explanation = Explanation::new(wanted.needs.clone());
        for path in self.series.values().flatten() {
            let Some(file) = open(path)? else { continue };
            let of = |error| FileError::io(0, error).of(path);
            explanation.bytes += file.metadata().map_err(of)?.len();
            explanation.files += 1;
            let segments = Segments::new(file, path, Arc::clone(&wanted), Arc::clone(&scanned));
            explanation.to_read += segments.survey().map_err(of)?;
        }
        explanation.indexed = scanned.indexed.load(Relaxed);
        explanation.of_other_times = scanned.of_other_times.load(Relaxed);
        explanation.without_terms = scanned.without_terms.load(Relaxed);
        Ok(explanation)
    }

    /// The files of each series that is asked for.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[PathBuf])> {
        self.series.iter().map(|(series, files)| (series.as_str(), files.as_slice()))
    }

    /// In nanoseconds; the end is not part of it.
    pub(super) fn range(&self) -> (u64, u64) {
        self.range
    }

    fn wanted(&self) -> Wanted {
        let needs = self.filter.as_ref().map_or(Needs::Nothing, BpfFilter::needs);
        Wanted { range: self.range, needs }
    }

    /// Returns an iterator over the packets, of all series in the order of their times; within a series, in the order in which
    /// they were recorded. Files are opened when they are needed.
    pub fn packets(self) -> Answer {
        let (wanted, scanned) = (Arc::new(self.wanted()), Arc::new(Scanned::default()));
        let sources = self.series.into_values().map(|files| Source {
            files: files.into(),
            reader: None,
            next: None,
            wanted: Arc::clone(&wanted),
            filter: self.filter.clone(),
            scanned: Arc::clone(&scanned),
            report: Report::default(),
        });
        Answer { sources: sources.collect(), scanned }
    }
}

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

/// The packets that a [`Query`] asked for; from [`Query::packets`].
#[derive(Debug)]
pub struct Answer {
    sources: Vec<Source>,
    scanned: Arc<Scanned>,
}

impl Answer {
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

    /// Returns the interfaces that the files which are being read have described.
    pub fn interfaces(&self) -> impl Iterator<Item = &FileInterface> {
        let readers = self.sources.iter().filter_map(|source| source.reader.as_ref());
        readers.flat_map(|(reader, _)| reader.interfaces())
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
        let earliest = ready.min_by_key(|source| source.next.as_ref().map(|(time, _)| *time))?;
        let (_, packet) = earliest.next.take()?;
        earliest.report.packets += 1;
        Some(Ok(packet))
    }
}

/// Opens a file, unless the recorder has removed it since the directory was read.
pub(super) fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::io(0, error).of(path).into()),
    }
}

/// The files of a series, read one after another.
#[derive(Debug)]
struct Source {
    files: VecDeque<PathBuf>,
    reader: Option<(CaptureReader, PathBuf)>,
    /// The next packet, and its time.
    next: Option<(Timestamp, OwnedPacket)>,
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
            let packet = record.packet();
            self.report.looked_at += 1;
            let (from, to) = self.wanted.range;
            let is_in_range = (from..to).contains(&packet.timestamp().as_nanos());
            if is_in_range && self.filter.as_ref().is_none_or(|filter| packet.matches(filter)) {
                self.next = Some((packet.timestamp(), packet.to_owned()));
            }
        }
        Ok(())
    }

    fn open(&mut self, path: PathBuf) -> Result<()> {
        let Some(file) = open(&path)? else {
            self.report.gone += 1;
            return Ok(());
        };
        self.report.files += 1;
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
