//! Recorded packets, asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ringtap_filter::{BpfFilter, Needs};

use super::answer::Answer;
use super::batches::Batches;
use super::explain::Explanation;
use super::parts::open;
use super::progress::Progress;
use super::segments::{Scanned, Segments, Wanted};
use crate::error::{FileError, Result};
use crate::packet::Timestamp;
use crate::pcap::names::series;

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
/// let mut file = CaptureWriter::builder().each_interface().create("answer.pcapng")?;
/// let mut answer = archive.query().filter(filter).from(from).to(to).packets();
/// while answer.write_next(&mut file)? {}
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
    progress: Progress,
}

impl Archive {
    /// Lists the files of a directory. Others than those of recorders are left out.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if the directory cannot be read.
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
        let series = found.into_iter().map(|(name, files)| (name, sorted(files))).collect();
        Ok(Self { series, progress: Progress::default() })
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
        let (series, progress) = (self.series.clone(), self.progress());
        Query { series, filter: None, range: (0, u64::MAX), progress }
    }

    /// Returns the length of all files together, as it is now.
    pub fn bytes(&self) -> u64 {
        let lens = self.series.values().flatten().flat_map(std::fs::metadata);
        lens.map(|metadata| metadata.len()).sum()
    }

    /// Returns a counter of the bytes that this archive, and queries of it, have read or passed over so far: packets that are
    /// asked for, [`Query::verify`] and [`index`](Self::index).
    pub fn progress(&self) -> Progress {
        self.progress.clone()
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
    progress: Progress,
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
    /// [`Error::File`](crate::Error::File) if a file cannot be read.
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

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    fn wanted(&self) -> Wanted {
        let needs = self.filter.as_ref().map_or(Needs::Nothing, BpfFilter::needs);
        Wanted { range: self.range, needs }
    }

    /// Returns an iterator over the packets, of all series in the order of their times; within a series, in the order in which
    /// they were recorded. Files are opened when they are needed.
    pub fn packets(self) -> Answer {
        let wanted = self.wanted();
        let scanned = Scanned { progress: self.progress, ..Scanned::default() };
        Answer::new(self.series.into_values(), wanted, scanned, self.filter)
    }

    /// Returns the packets as batches: as the stream that a capture would be, so that any code for batches, flows among it,
    /// works on what was recorded. Of which interface each packet is, [`packets`](Self::packets) tells:
    /// [`Packet::interface_index`](crate::Packet::interface_index) is a number within its file.
    pub fn batches(self) -> Batches {
        Batches::new(self.packets())
    }
}
