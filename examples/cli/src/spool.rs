//! Records on disk, until every sink has them: bounded, in order, and sound after a kill.
//!
//! ```text
//!   queues of shards ──► Spool::append ──► 00000001.seg 00000002.seg … ──► a Reader a sink ──► acknowledged
//!                        numbers records        frames with checksums           cursor-NAME
//! ```
//!
//! All records go through it, so there is one way for them whether a sink is there or not. A frame is handed to the
//! kernel with one system call: a process that is killed loses nothing that was appended. (A machine that loses its
//! power may lose what the kernel had not written yet.) A segment is removed when all sinks have it.

mod frame;
mod reader;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub(crate) use self::frame::Totals;
use self::frame::Version;
pub(crate) use self::reader::Reader;
use crate::ledger::{Counter, Ledger};
use crate::record::Body;

/// The maximum number of segments, which share the room equally.
const SEGMENTS: u64 = 16;
/// This part of the room is there for counts beside it.
const RESERVE: u64 = 64;

/// The end that is written.
#[derive(Debug)]
pub(crate) struct Spool {
    shared: Arc<Shared>,
    ledger: Ledger,
    tail: File,
    totals: Vec<Totals>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    most: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By number; the last is written to.
    segments: VecDeque<Segment>,
    /// The segment that each reader is at.
    readers: Vec<u64>,
    /// Records of each shard when it was opened.
    numbered: Vec<u64>,
    is_closed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    number: u64,
    /// Where its first frame is.
    header: u64,
    written: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:08}.seg"))
    }
}

impl State {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.written).sum()
    }
}

impl Spool {
    /// Opens a directory for the given number of shards; see [`open_as_it_is`](Self::open_as_it_is) and [`grow`](Self::grow).
    pub(crate) fn open(directory: &Path, most: u64, shards: u16) -> io::Result<Self> {
        let mut spool = Self::open_as_it_is(directory, most)?;
        spool.grow(shards)?;
        Ok(spool)
    }

    /// Opens a directory, with what an earlier process has left there: at most `most` bytes are kept in it.
    ///
    /// Counts what that process had made and not appended, for each shard, into the ledger. Takes no new shards: a start that
    /// is refused for another reason adds no shard that is then missed.
    pub(crate) fn open_as_it_is(directory: &Path, most: u64) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let ledger = Ledger::open(&directory.join("ledger"))?;
        let shared = Shared {
            directory: directory.to_owned(),
            most,
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        let mut numbers: Vec<u64> = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_suffix(".seg")?.parse::<u64>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        let mut last = None;
        while let Some(&number) = numbers.last() {
            match frame::recover(&shared.path(number))? {
                Some(found) => {
                    last = Some(found);
                    break;
                }
                None => {
                    // It was killed while it began the segment.
                    fs::remove_file(shared.path(number))?;
                    numbers.pop();
                }
            }
        }
        let mut totals = last.as_ref().map_or_else(Vec::new, |last| last.totals.clone());
        totals.resize(totals.len().max(ledger.shards()?.into()), Totals::default());
        shared.lock().numbered = totals.iter().map(|totals| totals.records).collect();
        for &number in &numbers {
            let (header, written) = frame::lengths(&shared.path(number))?;
            shared.lock().segments.push_back(Segment { number, header, written });
        }
        let tail = match last {
            Some(last) if last.version == Version::Current => last.file,
            // Of an earlier program: it is read as it is, and not written to.
            Some(_) => begin(&shared, numbers.last().map_or(1, |last| last + 1), &totals)?,
            None => begin(&shared, 1, &totals)?,
        };
        let mut spool =
            Self { shared: Arc::new(shared), ledger, tail, totals, scratch: Vec::new() };
        spool.leave_what_is_too_long()?;
        spool.count_lost()?;
        Ok(spool)
    }

    /// Takes in shards that it has not had yet.
    pub(crate) fn grow(&mut self, shards: u16) -> io::Result<()> {
        for shard in self.totals.len() as u16..shards {
            let entry = self.ledger.entry(shard)?;
            self.ledger.set(shard, Counter::Lost, entry.lost)?; // its room on the disk is taken now
            self.totals.push(Totals::default());
        }
        Ok(())
    }

    /// Begins another segment where the last is of a time when there was more room: only one that is not written to can
    /// be removed.
    fn leave_what_is_too_long(&mut self) -> io::Result<()> {
        let last = self.shared.lock().segments.back().copied();
        if let Some(last) = last.filter(|last| last.written > self.shared.most / SEGMENTS) {
            self.tail = begin(&self.shared, last.number + 1, &self.totals)?;
        }
        Ok(())
    }

    fn count_lost(&self) -> io::Result<()> {
        for (shard, totals) in (0..).zip(&self.totals) {
            let entry = self.ledger.entry(shard)?;
            let known = totals.flows + entry.overflowed + entry.refused + entry.lost;
            if let Some(lost) = entry.made.checked_sub(known).filter(|&lost| lost > 0) {
                crate::say::note!(
                    "shard {shard}: {lost} flows had not been spooled when the sensor was killed"
                );
                self.ledger.set(shard, Counter::Lost, entry.lost + lost)?;
            }
        }
        Ok(())
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What a shard has in it, and had.
    pub(crate) fn totals(&self, shard: u16) -> Totals {
        self.totals[usize::from(shard)]
    }

    /// Shards of now and of earlier.
    pub(crate) fn shards(&self) -> u16 {
        self.totals.len() as u16
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.shared.lock().bytes()
    }

    /// A reader under a name, which goes on where one of that name has stopped.
    pub(crate) fn reader(&self, name: &str) -> io::Result<Reader> {
        Reader::open(Arc::clone(&self.shared), name)
    }

    /// Numbers records and appends them; false where there is no room.
    pub(crate) fn append(&mut self, shard: u16, bodies: &[Body]) -> io::Result<bool> {
        let totals = self.totals[usize::from(shard)];
        frame::encode(&mut self.scratch, shard, totals.records, bodies);
        let len = self.scratch.len() as u64;
        let flows = bodies.iter().filter(|body| matches!(body, Body::Flow(_))).count() as u64;
        // Counts are let in where flows are not: they tell of those.
        let reserve = if flows == 0 { self.shared.most / RESERVE } else { 0 };
        if !self.has_room(len, self.shared.most + reserve)? {
            return Ok(false);
        }
        if let Err(error) = self.tail.write_all(&self.scratch) {
            // What was written of the frame goes again.
            let state = self.shared.lock();
            self.tail.set_len(state.segments.back().expect("one is written to").written)?;
            return if is_full(&error) { Ok(false) } else { Err(error) };
        }
        let totals = &mut self.totals[usize::from(shard)];
        totals.records += bodies.len() as u64;
        totals.flows += flows;
        let mut state = self.shared.lock();
        if let Some(segment) = state.segments.back_mut() {
            segment.written += len;
        }
        drop(state);
        self.shared.changed.notify_all();
        Ok(true)
    }

    /// Begins another segment where it is time to; removes those that all have.
    fn has_room(&mut self, len: u64, most: u64) -> io::Result<bool> {
        let mut state = self.shared.lock();
        let done = state.readers.iter().copied().min().unwrap_or(0);
        while state.segments.len() > 1 && state.segments[0].number < done {
            let gone = state.segments.pop_front().expect("there are two");
            fs::remove_file(self.shared.path(gone.number))?;
        }
        let Segment { number, written, header } =
            *state.segments.back().expect("one is written to");
        let (is_alone, has_room) = (state.segments.len() == 1, state.bytes() + len <= most);
        drop(state);
        if !has_room {
            if is_alone && written > header {
                self.begin_behind(number)?; // so that this one can go once all have it
            }
            return Ok(false);
        }
        Ok(written + len <= self.shared.most / SEGMENTS || self.begin_behind(number)?)
    }

    /// Begins the segment behind one; false where the disk has no room for it.
    fn begin_behind(&mut self, number: u64) -> io::Result<bool> {
        match begin(&self.shared, number + 1, &self.totals) {
            Ok(tail) => self.tail = tail,
            Err(error) if is_full(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Says that nothing more will come: readers end when they have all. A spool that is dropped is closed as well.
    pub(crate) fn close(self) {
        drop(self);
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

/// Whether the disk has less room than was asked for.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// For files in a directory that may be another user's: no link is followed out of it.
fn options() -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).custom_flags(nix::libc::O_NOFOLLOW);
    options
}

/// Begins a segment.
fn begin(shared: &Shared, number: u64, totals: &[Totals]) -> io::Result<File> {
    let (header, path) = (frame::header(totals), shared.path(number));
    let mut file = File::options().append(true).read(true).create_new(true).open(&path)?;
    // Earlier ones may go once this is there, and numbers go on from its header: it has to outlast a power cut.
    let kept = file.write_all(&header).and_then(|()| file.sync_data());
    if let Err(error) = kept.and_then(|()| File::open(&shared.directory)?.sync_all()) {
        fs::remove_file(&path)?;
        return Err(error);
    }
    let header = header.len() as u64;
    shared.lock().segments.push_back(Segment { number, header, written: header });
    Ok(file)
}

#[cfg(test)]
mod tests;
