//! An eventfd, and waiting for descriptors with `poll(2)`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};

use crate::{Error, Result, Step};

/// A counter that other threads may bump and a waiter may poll.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> Result<Self> {
        rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(Self)
            .map_err(|errno| Error::os(Step::EventFd, errno))
    }

    /// Makes the descriptor readable and wakes whoever polls it.
    pub(crate) fn signal(&self) {
        // EAGAIN means that the counter is full: the waiter has been woken 2^64 - 2 times already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable again.
    pub(crate) fn clear(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.0, &mut count);
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a descriptor turned out to be ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Polled {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) error: bool,
}

/// What to wait for on a descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Interest<'a> {
    /// Nothing: it is left out.
    Not,
    /// That it becomes readable, or an error.
    Readable(BorrowedFd<'a>),
    /// That it becomes writable, or an error.
    Writable(BorrowedFd<'a>),
    /// An error only.
    Error(BorrowedFd<'a>),
}

impl<'a> Interest<'a> {
    fn poll_fd(self) -> Option<PollFd<'a>> {
        match self {
            Self::Not => None,
            Self::Readable(fd) => Some(PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            Self::Writable(fd) => Some(PollFd::from_borrowed_fd(fd, PollFlags::OUT)),
            // POLLERR is reported unasked.
            Self::Error(fd) => Some(PollFd::from_borrowed_fd(fd, PollFlags::empty())),
        }
    }
}

/// Waits until one of two descriptors is ready or `deadline` has passed; interrupted waits go on.
pub(crate) fn poll(
    [first, second]: [Interest<'_>; 2],
    deadline: Option<Instant>,
) -> io::Result<[Polled; 2]> {
    let mut result = [Polled::default(); 2];
    match (first.poll_fd(), second.poll_fd()) {
        (Some(first), Some(second)) => result = poll_these([first, second], deadline)?,
        (Some(first), None) => [result[0]] = poll_these([first], deadline)?,
        (None, Some(second)) => [result[1]] = poll_these([second], deadline)?,
        (None, None) => [] = poll_these([], deadline)?,
    }
    Ok(result)
}

fn poll_these<const N: usize>(
    mut fds: [PollFd<'_>; N],
    deadline: Option<Instant>,
) -> io::Result<[Polled; N]> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match rustix::event::poll(&mut fds, left.map(timespec).as_ref()) {
            Ok(_) => return Ok(fds.map(|fd| polled(fd.revents()))),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn polled(flags: PollFlags) -> Polled {
    Polled {
        readable: flags.contains(PollFlags::IN),
        writable: flags.contains(PollFlags::OUT),
        error: flags.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL),
    }
}

fn timespec(duration: Duration) -> rustix::time::Timespec {
    rustix::time::Timespec {
        tv_sec: duration.as_secs().min(i32::MAX as u64) as i64,
        tv_nsec: duration.subsec_nanos().into(),
    }
}
