//! An eventfd, and waiting for descriptors with `poll(2)`.

#![allow(unsafe_code, reason = "system calls with pointers")]

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::pipe::PipeFlags;

use crate::error::{Error, Result, Step};

/// A counter that other threads may bump and a waiter may poll.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> Result<Self> {
        Self::with(EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
    }

    /// Creates an eventfd whose reads block, as needed by a host's ring that reads it.
    pub(crate) fn blocking() -> Result<Self> {
        Self::with(EventfdFlags::CLOEXEC)
    }

    fn with(flags: EventfdFlags) -> Result<Self> {
        rustix::event::eventfd(0, flags).map(Self).map_err(|errno| Error::os(Step::EventFd, errno))
    }

    /// Makes the descriptor readable and wakes all threads that poll it.
    pub(crate) fn signal(&self) {
        // EAGAIN means that the counter is full: the waiter has been woken 2^64 - 2 times already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable again.
    pub(crate) fn clear(&self) {
        clear(self.as_fd());
    }
}

/// Makes an eventfd unreadable again.
pub(crate) fn clear(eventfd: BorrowedFd<'_>) {
    let mut count = [0; 8];
    let _ = rustix::io::read(eventfd, &mut count);
}

/// Makes an eventfd whose reads block unreadable again, without waiting if it already is (since Linux 5.8).
pub(crate) fn clear_at_once(eventfd: BorrowedFd<'_>) {
    let mut count = [0; 8];
    let mut into = [IoSliceMut::new(&mut count)];
    let from_here = u64::MAX; // an eventfd has no offsets
    let read = rustix::io::preadv2(eventfd, &mut into, from_here, ReadWriteFlags::NOWAIT);
    if matches!(read, Err(Errno::OPNOTSUPP | Errno::NOSYS)) {
        clear(eventfd);
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A one-time signal, seen by all that poll for it then or later.
///
/// This is a pipe, not an eventfd. An eventfd whose write completes a poll of an io_uring cannot signal that
/// ring's own eventfd, that of a host, in the same call (`eventfd_signal_allowed`). The kernel defers the
/// signal by some milliseconds, and from 6.10 on does so only once in a ring's life (`__io_eventfd_signal`,
/// io_uring/eventfd.c, never clears `IO_EVENTFD_OP_SIGNAL_BIT`).
#[derive(Debug)]
pub(crate) struct Beacon {
    seen: OwnedFd,
    lit: OwnedFd,
}

impl Beacon {
    pub(crate) fn new() -> Result<Self> {
        let (seen, lit) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(|errno| Error::os(Step::EventFd, errno))?;
        Ok(Self { seen, lit })
    }

    /// Makes the descriptor readable permanently.
    pub(crate) fn light(&self) {
        // This fails if the pipe is full, but then it is readable already.
        let _ = rustix::io::write(&self.lit, &[1]);
    }
}

impl AsFd for Beacon {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.seen.as_fd()
    }
}

/// A pipe from and to this process: readable after a write until it is drained.
#[derive(Debug)]
pub(crate) struct SignalPipe(Beacon);

impl SignalPipe {
    pub(crate) fn new() -> Result<Self> {
        Beacon::new().map(Self)
    }

    /// Makes the pipe readable.
    pub(crate) fn write(&self) {
        self.0.light();
    }

    /// Makes the pipe unreadable again.
    pub(crate) fn drain(&self) {
        let mut bytes = [0; 16];
        let _ = rustix::io::read(&self.0.seen, &mut bytes);
    }
}

impl AsFd for SignalPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The events that a descriptor is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Polled {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) error: bool,
    /// Whether a signal ended the wait.
    pub(crate) interrupted: bool,
}

/// The event to wait for on a descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Interest<'a> {
    /// No event: the entry is left out.
    Not,
    /// Readability, or an error.
    Readable(BorrowedFd<'a>),
    /// Writability, or an error.
    Writable(BorrowedFd<'a>),
    /// Only an error.
    Error(BorrowedFd<'a>),
}

impl<'a> Interest<'a> {
    fn poll_fd(self) -> Option<PollFd<'a>> {
        match self {
            Self::Not => None,
            Self::Readable(fd) => Some(PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            Self::Writable(fd) => Some(PollFd::from_borrowed_fd(fd, PollFlags::OUT)),
            // POLLERR is always reported.
            Self::Error(fd) => Some(PollFd::from_borrowed_fd(fd, PollFlags::empty())),
        }
    }
}

/// Waits until one of two descriptors is ready, for at most `limit`. A signal also ends the wait: the caller
/// looks at its clock and calls again.
pub(crate) fn poll(
    [first, second]: [Interest<'_>; 2],
    limit: Option<Duration>,
) -> io::Result<[Polled; 2]> {
    let mut result = [Polled::default(); 2];
    match (first.poll_fd(), second.poll_fd()) {
        (Some(first), Some(second)) => result = poll_these([first, second], limit)?,
        (Some(first), None) => [result[0]] = poll_these([first], limit)?,
        (None, Some(second)) => [result[1]] = poll_these([second], limit)?,
        (None, None) => [] = poll_these([], limit)?,
    }
    Ok(result)
}

fn poll_these<const N: usize>(
    mut fds: [PollFd<'_>; N],
    limit: Option<Duration>,
) -> io::Result<[Polled; N]> {
    match rustix::event::poll(&mut fds, limit.map(timespec).as_ref()) {
        Ok(_) => Ok(fds.map(|fd| polled(fd.revents()))),
        Err(Errno::INTR) => Ok([Polled { interrupted: true, ..Polled::default() }; N]),
        Err(errno) => Err(errno.into()),
    }
}

/// One of several descriptors to poll.
#[repr(transparent)]
pub(crate) struct Watched(libc::pollfd);

impl Watched {
    /// Waits for these `POLL*` bits. A descriptor that is closed meanwhile becomes ready with `POLLNVAL`.
    pub(crate) fn new(fd: RawFd, events: i16) -> Self {
        Self(libc::pollfd { fd, events, revents: 0 })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.fd
    }

    /// Returns the events that the descriptor is ready for.
    pub(crate) fn ready(&self) -> i16 {
        self.0.revents
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watched({}, {:#x})", self.0.fd, self.0.events)
    }
}

/// Waits until one of any number of descriptors is ready or `deadline` has passed; interrupted waits
/// continue.
pub(crate) fn poll_all(watched: &mut [Watched], deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| libc::timespec {
            tv_sec: left.as_secs().min(i32::MAX as u64) as libc::time_t,
            tv_nsec: left.subsec_nanos().into(),
        });
        let timeout = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let count = watched.len() as libc::nfds_t;
        // SAFETY: `Watched` is a transparent `pollfd`, and the slice has `count` of them; the timeout is
        // null or lives until the call returns.
        let ready =
            unsafe { libc::ppoll(watched.as_mut_ptr().cast(), count, timeout, std::ptr::null()) };
        match ready {
            0.. => return Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

/// Makes an eventfd unreadable, given only its number.
pub(crate) fn clear_fd(fd: RawFd) {
    let mut count = 0_u64;
    // SAFETY: eight writable bytes.
    let _ = unsafe { libc::read(fd, std::ptr::from_mut(&mut count).cast(), 8) };
}

fn polled(flags: PollFlags) -> Polled {
    Polled {
        readable: flags.contains(PollFlags::IN),
        writable: flags.contains(PollFlags::OUT),
        error: flags.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL),
        interrupted: false,
    }
}

fn timespec(duration: Duration) -> rustix::time::Timespec {
    rustix::time::Timespec {
        tv_sec: duration.as_secs().min(i32::MAX as u64) as i64,
        tv_nsec: duration.subsec_nanos().into(),
    }
}
