//! Names of the files in a series, and removal of the oldest.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{FileError, Result};
use crate::packet::Calendar;

/// A closed file.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Names {
    directory: PathBuf,
    prefix: String,
    extension: &'static str,
    /// The last number used.
    number: u64,
    /// Closed files, oldest first.
    written: VecDeque<Written>,
}

impl Names {
    /// Continues after the existing files of the series. A prefix must be the beginning of a file name.
    pub(crate) fn read(directory: &Path, prefix: &str, extension: &'static str) -> Result<Self> {
        if prefix.is_empty() || prefix.contains(['/', '\0']) {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "a prefix without `/`");
            return Err(FileError::io(0, error).of(Path::new(prefix)).into());
        }
        let of = |error: io::Error| FileError::io(0, error).of(directory);
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).map_err(of)? {
            let entry = entry.map_err(of)?;
            let name = entry.file_name();
            if let Some(number) = name.to_str().and_then(|name| number(name, prefix, extension)) {
                // A file that has disappeared meanwhile counts as empty.
                let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
                found.push((number, Written { path: entry.path(), bytes }));
            }
        }
        found.sort_by_key(|(number, _)| *number);
        let number = found.last().map_or(0, |(number, _)| *number);
        let written = found.into_iter().map(|(_, written)| written).collect();
        let (directory, prefix) = (directory.to_owned(), prefix.to_owned());
        Ok(Self { directory, prefix, extension, number, written })
    }

    pub(crate) fn next(&mut self, now: SystemTime) -> PathBuf {
        self.number += 1;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let Self { prefix, number, extension, .. } = self;
        self.directory.join(format!("{prefix}_{number:05}_{}.{extension}", text(now)))
    }

    /// Returns the last of the closed files.
    #[cfg(feature = "record")]
    pub(crate) fn last(&self, count: usize) -> impl Iterator<Item = &Path> {
        self.written.iter().rev().take(count).map(|written| written.path.as_path())
    }

    /// Notes a closed file. Several that were begun one after another may be closed in another order.
    pub(crate) fn wrote(&mut self, written: Written) {
        let at = self.written.iter().rposition(|older| older.path < written.path);
        self.written.insert(at.map_or(0, |at| at + 1), written);
    }

    /// Forgets the oldest file if there are more than `files`, or more than `bytes` bytes in them, and returns it: it is to be
    /// removed.
    pub(crate) fn excess(&mut self, files: Option<usize>, bytes: Option<u64>) -> Option<PathBuf> {
        let all: u64 = self.written.iter().map(|written| written.bytes).sum();
        let is_many = files.is_some_and(|most| self.written.len() > most);
        let is_much = bytes.is_some_and(|most| all > most);
        if is_many || is_much { Some(self.written.pop_front()?.path) } else { None }
    }

    /// Removes the oldest files until at most `files` files with at most `bytes` bytes are left. Returns how
    /// many were removed, and how many could not be removed.
    pub(crate) fn keep(&mut self, files: Option<usize>, bytes: Option<u64>) -> (u64, u64) {
        let (mut removed, mut failed) = (0, 0);
        while let Some(oldest) = self.excess(files, bytes) {
            match fs::remove_file(&oldest) {
                Ok(()) => removed += 1,
                // The file may no longer be ours; it is not tried again.
                Err(_) => failed += 1,
            }
        }
        (removed, failed)
    }
}

/// Returns the number in a name of this series.
fn number(name: &str, prefix: &str, extension: &str) -> Option<u64> {
    let (of, number) = series(name, extension)?;
    (of == prefix).then_some(number)
}

/// Returns the series that a name is of, and the number in it.
pub(crate) fn series<'a>(name: &'a str, extension: &str) -> Option<(&'a str, u64)> {
    let (rest, time) = name.strip_suffix(extension)?.strip_suffix('.')?.rsplit_once('_')?;
    let (prefix, number) = rest.rsplit_once('_')?;
    let is_time = time.len() == 15 && time.as_bytes()[8] == b'T';
    let is_number = number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    // Only a foreign file has a number this large, and it would leave no number for the next file.
    let number: u64 = number.parse().ok().filter(|number| *number < u64::MAX / 2)?;
    (is_time && is_number).then_some((prefix, number))
}

/// Formats a UTC time as `20260131T235959`.
fn text(secs: u64) -> String {
    let Calendar { year, month, day, hour, minute, second } = Calendar::of(secs);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(text(0), "19700101T000000");
        assert_eq!(text(951_782_399), "20000228T235959");
        assert_eq!(text(951_782_400), "20000229T000000");
        assert_eq!(text(1_772_323_199), "20260228T235959");
        assert_eq!(text(4_107_542_400), "21000301T000000");
    }

    #[test]
    fn only_names_of_this_series_are_its_own() {
        assert_eq!(number("a_00012_20260131T235959.pcap", "a", "pcap"), Some(12));
        assert_eq!(number("a_123456_20260131T235959.pcap", "a", "pcap"), Some(123_456));
        for other in [
            "a_00012_20260131T235959.pcapng",
            "ab_00012_20260131T235959.pcap",
            "a_b_00012_20260131T235959.pcap",
            "a_12_20260131T235959.pcap",
            "a_00012_.pcap",
            "a_00012.pcap",
            "a_+0012_20260131T235959.pcap",
            "a_18446744073709551615_20260131T235959.pcap",
            "notes.txt",
        ] {
            assert_eq!(number(other, "a", "pcap"), None, "{other}");
        }
    }
}
