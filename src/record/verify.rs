//! What an archive lacks: proven by the accounts, which say how many packets there are, were, and are missing.

use std::fmt;
use std::path::{Path, PathBuf};

use super::archive::Query;
use super::parts::{Accounts, End, Found, Part, open, read};
use super::progress::Counted;
use crate::error::{FileError, Result};
use crate::packet::Timestamp;
use crate::ring::rewrite::pcapng::FINISHED;

/// Packets that are not in an archive; from [`Query::missing`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// The series.
    pub series: String,
    /// The time of the latest packet before; `None` at the beginning of the series.
    pub after: Option<Timestamp>,
    /// The time of the earliest packet behind; `None` at the end of the series.
    pub before: Option<Timestamp>,
    /// Why they are missing, and how many they are.
    pub why: Why,
}

/// Why packets are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The kernel has dropped this number, or the disk has lost them; the recorder has counted them.
    Dropped(u64),
    /// This number was recorded, and is in no file: files were removed, by the recorder itself at the beginning of a series, or
    /// by somebody.
    Removed(u64),
    /// A file was not ended, and a recorder was started anew: how many came in between is not known.
    Restarted,
    /// The last file is being written, or its recorder was killed: what is on its way is not known.
    Open,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped(packets) => write!(f, "{packets} packets were dropped"),
            Self::Removed(packets) => {
                write!(f, "{packets} packets were recorded and are in no file")
            }
            Self::Restarted => write!(f, "the recorder ended in the middle and was started anew"),
            Self::Open => write!(f, "the recorder is at work, or ended in the middle"),
        }
    }
}

/// A file that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// The fault.
    pub kind: FaultKind,
}

/// A kind of fault in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// It ends in the middle of a block.
    CutShort,
    /// An account tells of another number of packets than there are.
    Packets {
        /// As the account has it.
        told: u64,
        /// As they were counted.
        found: u64,
    },
    /// There are packets of other times than the account tells of.
    Times,
    /// The numbers of packets go back by this many: a file is there twice, or was put together.
    Backwards(u64),
    /// There are packets before any account: no recorder has written it.
    Foreign,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: ", self.path.display(), self.offset)?;
        match self.kind {
            FaultKind::CutShort => write!(f, "it ends in the middle of a block"),
            FaultKind::Packets { told, found } => {
                write!(f, "{found} packets where its account says {told}")
            }
            FaultKind::Times => write!(f, "packets of other times than its account says"),
            FaultKind::Backwards(packets) => {
                write!(f, "{packets} packets that were numbered before")
            }
            FaultKind::Foreign => write!(f, "no recorder has written it"),
        }
    }
}

/// What [`Query::verify`] has found in a series.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Verified {
    /// The series.
    pub series: String,
    /// Its files.
    pub files: u64,
    /// Their packets.
    pub packets: u64,
    /// How often a recorder was started.
    pub runs: u64,
    /// The times of the earliest and the latest packet.
    pub times: Option<(Timestamp, Timestamp)>,
    /// The gaps, in the order of time.
    pub missing: Vec<Missing>,
    /// Files that are not as they were written.
    pub faults: Vec<Fault>,
}

impl Verified {
    /// Returns whether every packet is there that came while a recorder was at work.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.faults.is_empty()
    }
}

/// What the accounts of a recording say that it has; from [`Query::held`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Held {
    /// Packets.
    pub packets: u64,
    /// The times of the earliest and the latest packet.
    pub times: Option<(Timestamp, Timestamp)>,
}

impl Query {
    /// Reads all files of the query's series, whatever its time and filter. Returns for each series what is missing, and what
    /// is not as it was written.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if a file cannot be read.
    pub fn verify(&self) -> Result<Vec<Verified>> {
        let of_series = |(series, files): (&str, &[PathBuf])| {
            let mut ledger = Ledger::of(series);
            for path in files {
                let Some(file) = open(path)? else { continue };
                let mut check = Check::default();
                let file = Counted(file, self.progress().clone());
                let end = read(file, path, |found| match found {
                    Found::Part(part) => {
                        ledger.faults(path, check.end());
                        ledger.note(path, part);
                        check.part = Some(part);
                    }
                    Found::Packet(_, packet) => check.see(packet.timestamp()),
                    Found::Other => {}
                })?;
                ledger.faults(path, check.end());
                // The last one may be being written.
                let is_open = Some(path) == files.last() && !ledger.has_ended;
                if let End::CutShort(offset) = end
                    && !is_open
                {
                    ledger.fault(path, offset, FaultKind::CutShort);
                }
                ledger.verified.files += 1;
            }
            Ok(ledger.end())
        };
        self.files().map(of_series).collect()
    }

    /// Returns what is missing among the packets of the query's time and series, whatever its filter: what the kernel has
    /// dropped, what was removed, and where a recorder was started anew. Reads accounts alone.
    ///
    /// What the kernel drops is told with the first block that is written after it was counted: packets that came while the
    /// ring was full may be told of up to a ring's length later. Ask for some seconds around the time that matters.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if a file cannot be read.
    pub fn missing(&self) -> Result<Vec<Missing>> {
        let (from, to) = self.range();
        let mut all = Vec::new();
        for (series, files) in self.files() {
            all.extend(accounts_of(series, files)?.missing);
        }
        all.retain(|missing| {
            let is_before = missing.before.is_some_and(|before| before.as_nanos() < from);
            let is_behind = missing.after.is_some_and(|after| after.as_nanos() >= to);
            !is_before && !is_behind
        });
        Ok(all)
    }

    /// Returns how many packets there are in the query's series, and of what time, whatever its time and filter. Reads accounts
    /// alone.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if a file cannot be read.
    pub fn held(&self) -> Result<Held> {
        let mut held = Held::default();
        for (series, files) in self.files() {
            let Verified { packets, times, .. } = accounts_of(series, files)?;
            held.packets += packets;
            held.times = match (held.times, times) {
                (Some((from, to)), Some((also_from, also_to))) => {
                    Some((from.min(also_from), to.max(also_to)))
                }
                (times, others) => times.or(others),
            };
        }
        Ok(held)
    }
}

/// What the accounts of a series say.
fn accounts_of(series: &str, files: &[PathBuf]) -> Result<Verified> {
    let mut ledger = Ledger::of(series);
    for path in files {
        let Some(file) = open(path)? else { continue };
        let mut accounts = Accounts::of(&file);
        while let Some(part) = accounts.next().map_err(|error| FileError::io(0, error).of(path))? {
            ledger.note(path, part);
        }
    }
    Ok(ledger.end())
}

/// A part whose packets are counted.
#[derive(Debug, Default)]
struct Check {
    part: Option<Part>,
    packets: u64,
    times: Option<(u64, u64)>,
}

impl Check {
    fn see(&mut self, time: Timestamp) {
        let nanos = time.as_nanos();
        self.packets += 1;
        let (earliest, latest) = self.times.unwrap_or((nanos, nanos));
        self.times = Some((earliest.min(nanos), latest.max(nanos)));
    }

    /// Ends the part. Returns what is wrong with it.
    fn end(&mut self) -> Option<(u64, FaultKind)> {
        let Self { part, packets, times } = std::mem::take(self);
        let Some(Part { offset, told }) = part else {
            return (packets > 0).then_some((0, FaultKind::Foreign));
        };
        if u64::from(told.packets) != packets {
            let told = told.packets.into();
            return Some((offset, FaultKind::Packets { told, found: packets }));
        }
        let (earliest, latest) = times?;
        let is_within = told.times.0 <= earliest && latest <= told.times.1;
        (!is_within).then_some((offset, FaultKind::Times))
    }
}

/// What the next account of a run is expected to say.
#[derive(Debug, Clone, Copy)]
struct Next {
    run: u64,
    /// The number of the next packet, and how many were missing before it.
    number: u64,
    missing: u64,
}

/// The accounts of a series, one after another.
#[derive(Debug)]
struct Ledger {
    verified: Verified,
    next: Option<Next>,
    /// The time of the latest packet so far.
    latest: Option<Timestamp>,
    /// The last account was that of a recorder which was finished.
    has_ended: bool,
}

impl Ledger {
    fn of(series: &str) -> Self {
        let verified = Verified { series: series.to_owned(), ..Verified::default() };
        Self { verified, next: None, latest: None, has_ended: false }
    }

    fn note(&mut self, path: &Path, Part { offset, told }: Part) {
        let times = (told.packets > 0).then_some(told.times);
        let [earliest, latest] = [times.map(|of| of.0), times.map(|of| of.1)].map(|nanos| {
            nanos.filter(|nanos| (1..u64::MAX).contains(nanos)).map(Timestamp::from_nanos)
        });
        // What was missing behind the packets before was missing before these.
        let untimed = self.verified.missing.iter_mut().rev();
        untimed.take_while(|missing| missing.before.is_none()).for_each(|of| of.before = earliest);
        match self.next {
            Some(next) if next.run == told.run => {
                // A write that fails takes its packets from those before to those missing: the sum never goes back.
                let sum = told.before.saturating_add(told.missing);
                let sum_before = next.number.saturating_add(next.missing);
                match (sum.checked_sub(sum_before), told.missing.checked_sub(next.missing)) {
                    (Some(all), Some(dropped)) => {
                        let told_before = self.failed_after_all(dropped.saturating_sub(all));
                        self.miss(all.saturating_sub(dropped), Why::Removed, earliest);
                        self.miss(dropped.saturating_sub(told_before), Why::Dropped, earliest);
                    }
                    _ => {
                        let back = sum_before.saturating_sub(sum);
                        self.fault(path, offset, FaultKind::Backwards(back));
                    }
                }
            }
            former => {
                if former.is_some() && !self.has_ended {
                    self.miss(1, |_| Why::Restarted, earliest);
                }
                self.verified.runs += 1;
                self.miss(told.before, Why::Removed, earliest);
                self.miss(told.missing, Why::Dropped, earliest);
            }
        }
        self.has_ended = told.packets == 0 && told.sequence == FINISHED;
        let number = told.before.saturating_add(told.packets.into());
        self.next = Some(Next { run: told.run, number, missing: told.missing });
        self.verified.packets += u64::from(told.packets);
        self.latest = self.latest.max(latest);
        if let (Some(earliest), Some(latest)) = (earliest, latest) {
            let (first, last) = self.verified.times.unwrap_or((earliest, latest));
            self.verified.times = Some((first.min(earliest), last.max(latest)));
        }
    }

    /// Takes back that packets were removed: an account had counted them as recorded, and a later one counts them as missing.
    /// Returns how many of them are told of as dropped now.
    fn failed_after_all(&mut self, packets: u64) -> u64 {
        let mut told = self.verified.missing.iter_mut().rev();
        match told.find(|of| packets > 0 && matches!(of.why, Why::Removed(_))) {
            Some(missing) if missing.why == Why::Removed(packets) => {
                missing.why = Why::Dropped(packets);
                packets
            }
            Some(Missing { why: Why::Removed(removed), .. }) => {
                *removed = removed.saturating_sub(packets);
                0
            }
            _ => 0,
        }
    }

    fn miss(&mut self, packets: u64, why: impl FnOnce(u64) -> Why, before: Option<Timestamp>) {
        if packets > 0 {
            let series = self.verified.series.clone();
            let missing = Missing { series, after: self.latest, before, why: why(packets) };
            self.verified.missing.push(missing);
        }
    }

    fn fault(&mut self, path: &Path, offset: u64, kind: FaultKind) {
        self.verified.faults.push(Fault { path: path.to_owned(), offset, kind });
    }

    fn faults(&mut self, path: &Path, fault: Option<(u64, FaultKind)>) {
        if let Some((offset, kind)) = fault {
            self.fault(path, offset, kind);
        }
    }

    fn end(mut self) -> Verified {
        if self.next.is_some() && !self.has_ended {
            self.miss(1, |_| Why::Open, None);
        }
        self.verified
    }
}
