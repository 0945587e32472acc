//! The index of a file on its way to the disk.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::output::file_error;
use crate::error::Result;
use crate::reactor::{FileOp, PendingFile, Reactor};
use crate::ring::disk::DiskBuffer;
use crate::sys::file;

/// A write costs as much whether it is of one entry or of many: it is a worker's of the kernel, as the file becomes longer.
const ENOUGH: usize = 16 << 10;
/// How long entries wait for more.
const LONG: Duration = Duration::from_secs(1);

/// An index that is written, some entries at a time, with one write in flight. It goes through the page cache: it is small, and
/// read sooner than what it is about.
#[derive(Debug)]
pub(super) struct IndexFile {
    pub(super) path: PathBuf,
    /// Its file is removed, and it goes as well once it is over: before, it may not have been created.
    pub(super) is_unwanted: bool,
    state: State,
    /// Bytes whose write has not begun.
    waiting: Vec<u8>,
    /// When the first of it came.
    since: Option<Instant>,
    /// Where the next write begins.
    offset: u64,
    is_ending: bool,
}

#[derive(Debug)]
enum State {
    Creating(PendingFile),
    Idle(Rc<OwnedFd>),
    Writing { file: Rc<OwnedFd>, op: PendingFile, len: u64 },
    Closing(PendingFile),
    Over,
}

impl IndexFile {
    /// Begins to create the file.
    pub(super) fn create(reactor: &Reactor, path: PathBuf) -> Result<Self> {
        let op = FileOp::Create { path: file::c_path(&path)?, is_direct: false };
        let op = PendingFile::start(reactor, op).map_err(|(error, _)| error)?;
        let (waiting, state) = (Vec::new(), State::Creating(op));
        Ok(Self {
            path,
            is_unwanted: false,
            state,
            waiting,
            since: None,
            offset: 0,
            is_ending: false,
        })
    }

    /// Where entries are appended that are to be written.
    pub(super) fn waiting(&mut self) -> &mut Vec<u8> {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            // One allocation for all that goes into a write.
            self.waiting.reserve(2 * ENOUGH);
        }
        &mut self.waiting
    }

    /// Nothing more is going to be appended.
    pub(super) fn end(&mut self) {
        self.is_ending = true;
    }

    /// Goes on. Returns ready once the file is closed, or cannot be written any further: what is in it can be read.
    pub(super) fn poll(&mut self, reactor: &Reactor, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let is_due = self.is_due();
            let next = match &mut self.state {
                State::Creating(op) => {
                    let created = ready!(op.poll(cx));
                    created.and_then(|created| match created {
                        Ok(fd) => Ok(State::Idle(Rc::new(file::adopt(fd as i32)))),
                        Err(error) => Err(file_error(0, error, &self.path)),
                    })
                }
                State::Idle(file) if is_due => {
                    let file = Rc::clone(file);
                    self.write(reactor, file)
                }
                State::Idle(_) if !self.is_ending => return Poll::Pending,
                State::Idle(_) => Ok(self.close(reactor)),
                State::Writing { file, op, len } => {
                    let (written, file, len) = (ready!(op.poll(cx)), Rc::clone(file), *len);
                    written.and_then(|written| {
                        match written {
                            Ok(written) if u64::from(written) == len => Ok(State::Idle(file)),
                            // A disk with room for a part takes that.
                            Ok(_) => Err(io::ErrorKind::StorageFull.into()),
                            Err(error) => Err(error),
                        }
                        .map_err(|error| file_error(self.offset, error, &self.path))
                    })
                }
                State::Closing(op) => ready!(op.poll(cx)).map(|_| State::Over),
                State::Over => {
                    self.waiting.clear();
                    return Poll::Ready(Ok(()));
                }
            };
            self.state = match next {
                Ok(state) => state,
                Err(error) => {
                    self.state = State::Over;
                    return Poll::Ready(Err(error));
                }
            };
        }
    }

    /// Whether what waits is to be written: it is enough, or the last, or has waited for long.
    fn is_due(&self) -> bool {
        let is_old = || self.since.is_some_and(|since| since.elapsed() >= LONG);
        !self.waiting.is_empty() && (self.waiting.len() >= ENOUGH || self.is_ending || is_old())
    }

    fn write(&mut self, reactor: &Reactor, file: Rc<OwnedFd>) -> Result<State> {
        let bytes = std::mem::take(&mut self.waiting);
        self.since = None;
        let (len, offset) = (bytes.len() as u64, self.offset);
        let buffer = DiskBuffer::Cached(bytes);
        let op = FileOp::Write { file: Rc::clone(&file), offset, buffer };
        let op = PendingFile::start(reactor, op).map_err(|(error, _)| error)?;
        self.offset += len;
        Ok(State::Writing { file, op, len })
    }

    /// Closes the file by the reactor; where that cannot be, here.
    fn close(&mut self, reactor: &Reactor) -> State {
        let State::Idle(file) = std::mem::replace(&mut self.state, State::Over) else {
            return State::Over;
        };
        let Some(file) = Rc::into_inner(file) else { return State::Over };
        match PendingFile::start(reactor, FileOp::Close { file: Some(file) }) {
            Ok(op) => State::Closing(op),
            Err(_) => State::Over,
        }
    }
}
