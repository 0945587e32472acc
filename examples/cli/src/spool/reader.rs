//! A sink's place in the spool.

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::Shared;
use super::frame::{self, Version};
use crate::record::Record;

/// Reads records in order, and remembers on disk which of them were acknowledged.
#[derive(Debug)]
pub(crate) struct Reader {
    shared: Arc<Shared>,
    /// Which of the spool's readers it is.
    number: usize,
    numbered: Vec<u64>,
    cursor: File,
    at: Position,
    /// The segment that was read from last, by number.
    open: Option<(u64, Version, BufReader<File>)>,
}

/// Before a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Position {
    segment: u64,
    /// Of a frame; 0 for the segment's first.
    offset: u64,
    /// Records of the frame before it.
    index: u64,
}

/// Records to be delivered.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) records: Vec<Record>,
    /// Each frame's first record here, where that is, and where the next frame is.
    frames: Vec<(usize, Position, Position)>,
}

impl Reader {
    pub(super) fn open(shared: Arc<Shared>, name: &str) -> io::Result<Self> {
        let path = shared.directory.join(format!("cursor-{name}"));
        let cursor = super::options().create(true).truncate(false).open(path)?;
        let mut state = shared.lock();
        let there = state.segments.iter().map(|segment| segment.number);
        let first = there.min().unwrap_or(1);
        let is_there = |at: &Position| {
            let mut segments = state.segments.iter();
            segments.any(|of| of.number == at.segment && at.offset <= of.written)
        };
        // Otherwise it was not among the sinks for a while, or the machine lost its power.
        let at = Position::load(&cursor)?
            .filter(is_there)
            .unwrap_or(Position { segment: first, ..Position::default() });
        let number = state.readers.len();
        state.readers.push(at.segment);
        let numbered = state.numbered.clone();
        drop(state);
        at.store(&cursor)?; // a disk that is full is found now, and has room for it later
        Ok(Self { shared, number, numbered, cursor, at, open: None })
    }

    /// How many records of each shard there had been when it was opened.
    pub(crate) fn all_numbered(&self) -> &[u64] {
        &self.numbered
    }

    /// The next records: up to `most` of them where they come within a time, `None` where none came in a second, or
    /// none will come.
    pub(crate) fn next_batch(
        &mut self,
        most: usize,
        patience: Duration,
    ) -> io::Result<Option<Batch>> {
        let (mut batch, mut at) = (Batch::default(), self.at);
        let mut deadline = Instant::now() + Duration::from_secs(1);
        while batch.records.len() < most {
            match self.wait(&mut at, deadline) {
                Next::Nothing => break,
                Next::Segment => at = self.behind(at, &batch),
                Next::Frame => {
                    let Some((records, len)) = self.read(at)? else {
                        crate::say::note!(
                            "segment {} is damaged at {}: what follows in it is left out",
                            at.segment,
                            at.offset
                        );
                        at = self.behind(at, &batch);
                        continue;
                    };
                    if batch.records.is_empty() {
                        deadline = Instant::now() + patience;
                    }
                    let next = Position { offset: at.offset + len, index: 0, ..at };
                    batch.frames.push((batch.records.len(), at, next));
                    batch.records.extend(records.into_iter().skip(at.index as usize));
                    at = next;
                }
            }
        }
        Ok(Some(batch).filter(|batch| !batch.records.is_empty()))
    }

    /// The next segment's beginning; the one before it may go where nothing of it is to be acknowledged.
    fn behind(&mut self, at: Position, batch: &Batch) -> Position {
        let next = Position { segment: at.segment + 1, ..Position::default() };
        if batch.records.is_empty() {
            self.at = next;
            self.shared.lock().readers[self.number] = next.segment;
        }
        next
    }

    /// Waits until there is something at a position, which may be a segment's beginning.
    fn wait(&self, at: &mut Position, deadline: Instant) -> Next {
        let mut state = self.shared.lock();
        loop {
            for segment in state.segments.iter().filter(|segment| segment.number == at.segment) {
                at.offset = at.offset.max(segment.header);
                if at.offset < segment.written {
                    return Next::Frame;
                }
            }
            if state.segments.iter().any(|segment| segment.number > at.segment) {
                return Next::Segment;
            }
            let left = deadline.checked_duration_since(Instant::now());
            let Some(left) = left.filter(|_| !state.is_closed) else { return Next::Nothing };
            let woken = self.shared.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn read(&mut self, at: Position) -> io::Result<Option<(Vec<Record>, u64)>> {
        if self.open.as_ref().is_none_or(|(number, ..)| *number != at.segment) {
            let file = File::open(self.shared.path(at.segment))?;
            let mut file = BufReader::with_capacity(1 << 17, file);
            let Some(version) = Version::read(&mut file)? else { return Ok(None) };
            self.open = Some((at.segment, version, file));
        }
        let (_, version, file) = self.open.as_mut().expect("it was just opened");
        let here = file.stream_position()?;
        file.seek_relative(at.offset as i64 - here as i64)?;
        if let Some(frame) = frame::read(file, *version)? {
            return Ok(Some(frame));
        }
        // What is buffered may be of a frame that was cut off since: there was no room on the disk.
        file.seek(io::SeekFrom::Start(at.offset))?;
        frame::read(file, *version)
    }

    /// Says that the first `count` records of a batch were acknowledged, for good.
    pub(crate) fn acknowledge(&mut self, batch: &Batch, count: usize) -> io::Result<()> {
        let Some(&(first, start, next)) = batch.frames.iter().rfind(|(first, ..)| *first < count)
        else {
            return Ok(());
        };
        let end = batch.frames.iter().map(|(first, ..)| *first).find(|&other| other > first);
        self.at = match count < end.unwrap_or(batch.records.len()) {
            true => Position { index: start.index + (count - first) as u64, ..start },
            false => next,
        };
        self.store_cursor()
    }

    /// Says that all records of a batch were acknowledged; they may have been taken out of it.
    pub(crate) fn acknowledge_all(&mut self, batch: &Batch) -> io::Result<()> {
        let Some(&(_, _, next)) = batch.frames.last() else { return Ok(()) };
        self.at = next;
        self.store_cursor()
    }

    fn store_cursor(&mut self) -> io::Result<()> {
        self.at.store(&self.cursor)?;
        self.shared.lock().readers[self.number] = self.at.segment;
        Ok(())
    }

    /// Whether nothing is left, and nothing will come.
    pub(crate) fn is_done(&self) -> bool {
        let state = self.shared.lock();
        let is_at_end = state.segments.back().is_none_or(|last| {
            (last.number, last.written) <= (self.at.segment, self.at.offset.max(last.header))
        });
        state.is_closed && is_at_end
    }
}

enum Next {
    Frame,
    Segment,
    Nothing,
}

impl Position {
    fn store(self, file: &File) -> io::Result<()> {
        let mut bytes = [self.segment, self.offset, self.index].map(u64::to_be_bytes).concat();
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        file.write_all_at(&bytes, 0)
    }

    fn load(file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; 28];
        if file.read_at(&mut bytes, 0)? < bytes.len() {
            return Ok(None);
        }
        let (position, sum) = bytes.split_at(24);
        let number = |at: usize| u64::from_be_bytes(*position[at..].first_chunk().expect("of 24"));
        let is_sound = crc32fast::hash(position).to_be_bytes() == sum;
        let at = Self { segment: number(0), offset: number(8), index: number(16) };
        Ok(is_sound.then_some(at))
    }
}
