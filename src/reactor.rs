//! The reactor, one per thread: it waits for descriptors and timers with one `io_uring_enter`.
//!
//! It deals with descriptors and wakers, not with socket types or packets: a completion is a hint to look at
//! a ring, never data. It is `!Send` and is created and entered by a single thread; only its `Unparker` and
//! its statistics cross threads.
//!
//! ```text
//!   Registration::poll_ready ──arm──► state (backlog) ──push──► uring ──enter──► kernel
//!         ▲                             │ op: pure state machine             │
//!         └────── waker ◄── state ◄─────┴──────────── completions ◄──────────┘
//! ```

mod backlog;
mod counters;
mod deadlines;
mod engine;
mod enter;
mod fallback;
mod fault;
#[cfg(feature = "record")]
mod file_op;
mod host;
mod hosted;
mod kick;
mod moderator;
mod op;
mod ops;
#[cfg(feature = "record")]
mod pending_file;
mod registration;
mod ring_timer;
mod signals;
mod state;
mod submit;
mod thread_watch;
mod token;
mod turn;
mod unpark;
mod uring;
mod wake;
mod warning;

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

pub use self::counters::ReactorStatsHandle;
#[cfg(feature = "record")]
pub(crate) use self::file_op::FileOp;
pub(crate) use self::host::Turn;
pub use self::hosted::{Driver, Hosted, Watch};
pub(crate) use self::kick::Kicker;
pub(crate) use self::ops::{AfterKick, Next, OnKick};
#[cfg(feature = "record")]
pub(crate) use self::pending_file::PendingFile;
pub(crate) use self::registration::{Deadline, Registration};
pub use self::thread_watch::{ThreadWatch, run_anywhere};
use self::turn::Inner;
pub(crate) use self::unpark::Unparker;
use crate::error::{Error, Result};
pub use crate::options::{Coalesce, IoUringFeatures, ReactorOptions};
use crate::stats::ReactorStats;
use crate::sys::event::EventFd;

thread_local! {
    static CURRENT: RefCell<Weak<Attached>> = const { RefCell::new(Weak::new()) };
}

/// The mechanism a reactor uses to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// io_uring.
    IoUring,
    /// `poll(2)` and `sendto`, used if io_uring is refused.
    Poll,
}

/// Sets up an io_uring, queries the features it uses, and closes it: first for a reactor that sleeps itself,
/// then for a hosted one.
pub(crate) fn probe() -> Result<[Result<IoUringFeatures>; 2]> {
    let of = |event| {
        let ring = signals::best_ring(&ReactorOptions::default(), event)?;
        let features = ring.features();
        ring.close();
        Ok(features)
    };
    let host = EventFd::new()?;
    Ok([of(None), of(Some(host.as_fd().as_raw_fd()))])
}

/// A handle to this thread's reactor: cheap to clone, and bound to the thread.
///
/// [`executor::block_on`](crate::executor::block_on) and shards create a reactor and end it; async sockets
/// find it by themselves.
#[derive(Debug, Clone)]
pub struct Reactor {
    shared: Rc<Inner>,
}

impl Reactor {
    /// Returns the reactor of this thread.
    ///
    /// # Errors
    /// [`Error::NoReactor`] if none is attached.
    pub fn current() -> Result<Self> {
        Ok(Attached::current().ok_or(Error::NoReactor)?.reactor.clone())
    }

    /// Turns the reactor once without waiting: submits queued requests, takes completions, and wakes their
    /// tasks.
    ///
    /// The executor does this between tasks. Call it from a long computation that must not hold up the
    /// thread's other sockets. With nothing to do, it costs a few nanoseconds and no system call (one over
    /// `poll(2)`, which has to be asked).
    pub fn turn(&self) {
        self.shared.turn();
    }

    /// Returns the backend in use.
    ///
    /// # Errors
    /// The reason why no backend is in use, if io_uring was refused and required.
    pub fn backend(&self) -> Result<Backend> {
        self.shared.state.borrow().backend()
    }

    /// Returns the io_uring features this reactor uses; none without io_uring.
    pub fn io_uring_features(&self) -> IoUringFeatures {
        self.shared.state.borrow().features()
    }

    /// Returns this reactor's statistics so far.
    pub fn stats(&self) -> ReactorStats {
        self.stats_handle().stats()
    }

    /// Returns a handle for reading the statistics from other threads.
    pub fn stats_handle(&self) -> ReactorStatsHandle {
        ReactorStatsHandle(self.shared.counters.clone())
    }

    /// Waits until another runtime that runs this thread has looked at its own I/O; `turn` keeps the beginning of the wait.
    /// Returns `None` if there is no such runtime.
    pub(crate) fn poll_look(
        &self,
        turn: &mut Option<Turn>,
        cx: &mut Context<'_>,
    ) -> Option<Poll<()>> {
        let host = self.shared.host.as_ref()?;
        let is_running = self.shared.state.borrow().check().is_ok();
        is_running.then(|| host.poll_look(turn, cx))
    }

    /// Returns whether the reactor works, in this process, or can say itself why it does not.
    fn is_alive(&self) -> bool {
        !matches!(self.shared.state.borrow().check(), Err(Error::ReactorGone | Error::Forked))
    }

    /// Turns the reactor once and sleeps, unless `has_news` returns true.
    pub(crate) fn park(&self, has_news: impl FnOnce() -> bool) -> Result<()> {
        self.shared.park(has_news)
    }

    pub(crate) fn unparker(&self) -> &Unparker {
        &self.shared.unparker
    }
}

/// A reactor attached to its thread for as long as this is held. On drop, its ops are cancelled, and it waits
/// a bounded time for the kernel to release their sockets.
#[derive(Debug)]
pub(crate) struct Attached {
    reactor: Reactor,
}

impl Attached {
    /// Returns the thread's reactor, or creates and attaches a new one.
    ///
    /// If io_uring is required and refused, that is not an error here but at the first socket that needs it:
    /// timers and wake-ups work without it.
    pub(crate) fn current_or_new(options: &ReactorOptions) -> Result<Rc<Self>> {
        if let Some(attached) = Self::current_alive() {
            return Ok(attached);
        }
        Ok(Self::install(Rc::new(Inner::new(options, None)?)))
    }

    /// Makes a reactor the thread's current one.
    fn install(shared: Rc<Inner>) -> Rc<Self> {
        let attached = Rc::new(Self { reactor: Reactor { shared } });
        // A thread that is terminating has no current reactor, but the executor's own handle still works.
        let _ = CURRENT.try_with(|current| current.replace(Rc::downgrade(&attached)));
        attached
    }

    fn current() -> Option<Rc<Self>> {
        CURRENT.try_with(|current| current.borrow().upgrade()).ok().flatten()
    }

    /// Returns the thread's reactor, unless it has ended with its host while its guard is still held.
    fn current_alive() -> Option<Rc<Self>> {
        Self::current().filter(|attached| attached.reactor.is_alive())
    }

    pub(crate) fn reactor(&self) -> &Reactor {
        &self.reactor
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.reactor.shared.shut_down();
    }
}
