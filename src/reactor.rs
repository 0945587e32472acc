//! One reactor a thread: it waits for descriptors and timers with one `io_uring_enter`.
//!
//! It knows descriptors and wakers, no socket types, and no packets: a completion is a hint to look
//! at a ring, never data. It is `!Send`, made and entered by one thread; only its `Unparker` and
//! its statistics cross threads.
//!
//! ```text
//!   Registration::poll_ready ──arm──► state (backlog) ──push──► uring ──enter──► kernel
//!         ▲                             │ op: pure state machine             │
//!         └────── waker ◄── state ◄─────┴──────────── completions ◄──────────┘
//! ```

mod alarm;
mod counters;
mod engine;
mod enter;
mod fallback;
mod fault;
mod host;
mod hosted;
mod kick;
mod moderator;
mod op;
mod ops;
mod registration;
mod signals;
mod state;
mod timer;
mod token;
mod turn;
mod unpark;
mod uring;
mod wake;
mod warning;

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::{Rc, Weak};

pub use self::counters::ReactorStatsHandle;
pub use self::hosted::{Driver, Hosted, Watch};
pub(crate) use self::kick::Kicker;
pub(crate) use self::ops::{AfterKick, Next, OnKick};
pub(crate) use self::registration::{Deadline, Registration};
use self::turn::Inner;
pub(crate) use self::unpark::Unparker;
use crate::error::{Error, Result};
pub use crate::options::{Coalesce, IoUringFeatures, ReactorOptions};
use crate::stats::ReactorStats;
use crate::sys::event::EventFd;

thread_local! {
    static CURRENT: RefCell<Weak<Attached>> = const { RefCell::new(Weak::new()) };
}

/// What a reactor works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// An io_uring.
    IoUring,
    /// `poll(2)` and `sendto`, where io_uring is refused.
    Poll,
}

/// Sets an io_uring up, asks what it uses, and closes it: first for a reactor that sleeps itself, then for one that is hosted.
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

/// This thread's reactor: a handle, cheap to clone, that cannot leave the thread.
///
/// [`executor::block_on`](crate::executor::block_on) and shards make one and end it; async sockets
/// find it by themselves.
#[derive(Debug, Clone)]
pub struct Reactor {
    shared: Rc<Inner>,
}

impl Reactor {
    /// The reactor of this thread.
    ///
    /// # Errors
    /// [`Error::NoReactor`] where none is attached.
    pub fn current() -> Result<Self> {
        Ok(Attached::current().ok_or(Error::NoReactor)?.reactor.clone())
    }

    /// One turn without waiting: submits what is queued, takes completions, wakes their tasks.
    ///
    /// The executor does this between tasks. Call it from a long computation that must not hold up
    /// the thread's other sockets; with nothing to do it costs a few
    /// nanoseconds and no system call (over `poll(2)`, which has to be asked, one).
    pub fn turn(&self) {
        self.shared.turn();
    }

    /// What does the work.
    ///
    /// # Errors
    /// Why nothing does, where io_uring was refused and required.
    pub fn backend(&self) -> Result<Backend> {
        self.shared.state.borrow().backend()
    }

    /// What this reactor uses of io_uring; nothing without one.
    pub fn io_uring_features(&self) -> IoUringFeatures {
        self.shared.state.borrow().features()
    }

    /// What this reactor did so far.
    pub fn stats(&self) -> ReactorStats {
        self.stats_handle().stats()
    }

    /// A handle to read the statistics from other threads.
    pub fn stats_handle(&self) -> ReactorStatsHandle {
        ReactorStatsHandle(self.shared.counters.clone())
    }

    /// A turn that sleeps, unless `has_news` says there is something to do.
    pub(crate) fn park(&self, has_news: impl FnOnce() -> bool) -> Result<()> {
        self.shared.park(has_news)
    }

    pub(crate) fn unparker(&self) -> &Unparker {
        &self.shared.unparker
    }
}

/// A reactor attached to its thread, for as long as somebody holds this: then its ops are cancelled,
/// and a bounded time is waited until the kernel has let go of their sockets.
#[derive(Debug)]
pub(crate) struct Attached {
    reactor: Reactor,
}

impl Attached {
    /// The thread's reactor, or a new one that is so from now on.
    ///
    /// A refused io_uring that is required is not an error here but at the first socket that needs it:
    /// timers and wake-ups work without.
    pub(crate) fn current_or_new(options: &ReactorOptions) -> Result<Rc<Self>> {
        if let Some(attached) = Self::current() {
            return Ok(attached);
        }
        Ok(Self::install(Rc::new(Inner::new(options, None)?)))
    }

    /// Makes a reactor the thread's.
    fn install(shared: Rc<Inner>) -> Rc<Self> {
        let attached = Rc::new(Self { reactor: Reactor { shared } });
        // A thread that is ending has no current reactor; the executor's own handle does.
        let _ = CURRENT.try_with(|current| current.replace(Rc::downgrade(&attached)));
        attached
    }

    fn current() -> Option<Rc<Self>> {
        CURRENT.try_with(|current| current.borrow().upgrade()).ok().flatten()
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
