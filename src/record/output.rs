//! A file of a recording: its writes in flight, and how it ends.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use crate::error::{Error, FileError, FileFault, Result};
use crate::reactor::{FileOp, PendingFile, Reactor};
use crate::ring::disk::DiskBuffer;
use crate::sys::{file, fork};

/// A file that is written.
#[derive(Debug)]
pub(super) struct Output {
    /// `None` once it is being closed.
    file: Option<Rc<OwnedFd>>,
    pub(super) path: PathBuf,
    pub(super) began: Instant,
    is_direct: bool,
    /// Where the next write begins.
    offset: u64,
    /// The bytes up to the first write that is in flight or has failed.
    whole: u64,
    /// How far the page cache was told to forget, if the file is written through it.
    forgotten: u64,
    /// In the order of their places.
    flights: VecDeque<Flight>,
    failure: Option<Error>,
    /// Packets in the file.
    packets: u64,
    end: End,
    /// The error of syncing or closing it.
    end_error: Option<Error>,
    /// A forked child has the same descriptor, and the file is not its own.
    forks: u32,
}

/// A write.
#[derive(Debug)]
struct Flight {
    len: u64,
    packets: u64,
    state: FlightState,
}

#[derive(Debug)]
enum FlightState {
    Pending(PendingFile),
    Done,
    Failed,
}

/// How far a file has come with its end.
#[derive(Debug)]
enum End {
    /// It is written, or waits for the last writes.
    Open,
    Syncing(PendingFile),
    Closing(PendingFile),
    Closed,
}

/// Packets whose writes have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Landed {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// Writes that there is room for from the beginning: as many as are in flight by default, and as many that have ended behind them.
const FLIGHTS: usize = 16;

/// Room for what exceeds the length of a file: its last block, and its statistics.
const SLACK: u64 = 1 << 20;

/// The page cache is told to forget in steps of this many bytes.
const FORGET: u64 = 8 << 20;

impl Output {
    pub(super) fn new(file: OwnedFd, path: PathBuf, is_direct: bool) -> Self {
        // So that no recorder that is started meanwhile gives back what this one has reserved.
        file::lock(file.as_fd());
        Self {
            file: Some(Rc::new(file)),
            path,
            began: Instant::now(),
            is_direct,
            offset: 0,
            whole: 0,
            forgotten: 0,
            flights: VecDeque::with_capacity(FLIGHTS),
            failure: None,
            packets: 0,
            end: End::Open,
            end_error: None,
            forks: fork::generation(),
        }
    }

    /// Returns the operation that reserves room for `len` bytes; none for 0, and none in memory, where it would be written
    /// with zeros.
    pub(super) fn reserve(&self, len: u64) -> Option<FileOp> {
        let file =
            self.file.as_ref().filter(|file| len > 0 && !file::is_in_memory(file.as_fd()))?;
        Some(FileOp::Reserve { file: Rc::clone(file), len: len.saturating_add(SLACK) })
    }

    /// Gives back what was reserved and is not written. (A file system may keep what it had found before it ran out.)
    pub(super) fn give_back(&self) {
        if let Some(file) = &self.file
            && self.forks == fork::generation()
        {
            file::cut(file.as_fd(), self.whole);
        }
    }

    /// Returns whether there are packets in the file.
    pub(super) fn has_packets(&self) -> bool {
        self.packets > 0
    }

    /// Returns whether the file refuses to be written past the page cache, although it could be opened so.
    pub(super) fn refuses_direct(&self, error: &Error) -> bool {
        let Error::File(error) = error else { return false };
        let FileFault::Io(error) = error.fault() else { return false };
        self.is_direct && self.whole == 0 && error.raw_os_error() == Some(libc::EINVAL)
    }

    /// Returns the length of the file when all writes have ended.
    pub(super) fn len(&self) -> u64 {
        self.offset
    }

    /// Returns the length up to the first write that has not ended.
    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    /// Returns the writes in flight.
    pub(super) fn in_flight(&self) -> usize {
        let is_pending = |flight: &&Flight| matches!(flight.state, FlightState::Pending(_));
        self.flights.iter().filter(is_pending).count()
    }

    /// Returns the packets whose writes have not ended.
    pub(super) fn packets_in_flight(&self) -> u64 {
        self.flights.iter().map(|flight| flight.packets).sum()
    }

    /// Returns whether a write has failed: nothing more is to be written.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Starts to write `buffer` at the end of the file.
    pub(super) fn write(
        &mut self,
        reactor: &Reactor,
        buffer: DiskBuffer,
        packets: u64,
    ) -> Result<()> {
        let Some(file) = &self.file else { return Err(Error::ReactorGone) };
        let len = buffer.bytes().len() as u64;
        let op = FileOp::Write { file: Rc::clone(file), offset: self.offset, buffer };
        let pending = PendingFile::start(reactor, op).map_err(|(error, _)| error)?;
        self.offset += len;
        self.flights.push_back(Flight { len, packets, state: FlightState::Pending(pending) });
        Ok(())
    }

    /// Takes the writes that have ended into account. Returns what is in the file since the last call.
    pub(super) fn poll_writes(&mut self, cx: &mut Context<'_>) -> Landed {
        for flight in &mut self.flights {
            let FlightState::Pending(pending) = &mut flight.state else { continue };
            let Poll::Ready(ended) = pending.poll(cx) else { continue };
            let failure = match ended {
                Ok(Ok(len)) if u64::from(len) == flight.len => {
                    flight.state = FlightState::Done;
                    continue;
                }
                // A disk with room for a part takes that.
                Ok(Ok(_)) => file_error(self.whole, io::ErrorKind::StorageFull.into(), &self.path),
                Ok(Err(error)) => file_error(self.whole, error, &self.path),
                Err(error) => error,
            };
            self.failure.get_or_insert(failure);
            flight.state = FlightState::Failed;
        }
        let mut landed = Landed::default();
        while let Some(Flight { len, packets, state: FlightState::Done }) = self.flights.front() {
            landed.packets += packets;
            self.packets += packets;
            landed.bytes += len;
            self.whole += len;
            self.flights.pop_front();
        }
        self.forget_pages();
        landed
    }

    /// Tells the page cache that what is written will not be read soon.
    fn forget_pages(&mut self) {
        let Some(file) = &self.file else { return };
        if !self.is_direct && self.whole - self.forgotten >= FORGET {
            file::forget_pages(file.as_fd(), self.forgotten, self.whole - self.forgotten);
            self.forgotten = self.whole;
        }
    }

    /// After a failure, once nothing is in flight: cuts the file behind its last whole write. Returns the error.
    pub(super) fn cut(&mut self) -> Option<Error> {
        if self.failure.is_none() || self.in_flight() > 0 {
            return None;
        }
        self.flights.clear();
        self.offset = self.whole;
        self.failure.take()
    }

    /// Goes on with the end of a file that nothing more is written to. Returns ready once it is closed, with the error of
    /// that.
    pub(super) fn poll_end(
        &mut self,
        reactor: &Reactor,
        syncs: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        loop {
            match &mut self.end {
                End::Open if !self.flights.is_empty() => return Poll::Pending,
                End::Open => {
                    let Some(file) = &self.file else { return Poll::Ready(Ok(())) };
                    self.give_back();
                    self.end = if syncs {
                        let op = FileOp::Sync { file: Rc::clone(file) };
                        End::Syncing(PendingFile::start(reactor, op).map_err(|(error, _)| error)?)
                    } else {
                        self.close(reactor)
                    };
                }
                End::Syncing(syncing) => {
                    let synced = ready!(syncing.poll(cx));
                    self.end = self.close(reactor);
                    self.end_error = self.error_of(synced);
                }
                End::Closing(closing) => {
                    let closed = ready!(closing.poll(cx));
                    self.end = End::Closed;
                    let error = self.error_of(closed);
                    self.end_error = self.end_error.take().or(error);
                }
                End::Closed => return Poll::Ready(self.end_error.take().map_or(Ok(()), Err)),
            }
        }
    }

    fn error_of(&self, result: Result<io::Result<u32>>) -> Option<Error> {
        match result {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(file_error(self.whole, error, &self.path)),
            Err(error) => Some(error),
        }
    }

    /// Closes the file by the reactor: to close the last descriptor of a file may take long. Where that cannot be, it is closed
    /// here.
    fn close(&mut self, reactor: &Reactor) -> End {
        let Some(file) = self.file.take().and_then(Rc::into_inner) else { return End::Closed };
        match PendingFile::start(reactor, FileOp::Close { file: Some(file) }) {
            Ok(closing) => End::Closing(closing),
            Err(_) => End::Closed,
        }
    }
}

impl Drop for Output {
    /// Gives back what was reserved, unless a write that is in flight would reach behind the end.
    fn drop(&mut self) {
        if self.in_flight() == 0 {
            self.give_back();
        }
    }
}

/// An error of a file.
pub(super) fn file_error(offset: u64, error: io::Error, path: &Path) -> Error {
    FileError::io(offset, error).of(path).into()
}
