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

mod counters;
mod fault;
mod op;
mod ops;
mod registration;
mod state;
mod timer;
mod token;
mod unpark;
mod uring;

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

pub use self::counters::ReactorStatsHandle;
pub(crate) use self::registration::Registration;
use self::state::Shared;
pub(crate) use self::timer::TimerId;
pub(crate) use self::unpark::Unparker;
use crate::{Error, ReactorOptions, ReactorStats, Result};

thread_local! {
    static CURRENT: RefCell<Option<Reactor>> = const { RefCell::new(None) };
}

/// This thread's reactor: a handle, cheap to clone, that cannot leave the thread.
///
/// [`executor::block_on`](crate::executor::block_on) and shards make one and end it; async sockets
/// find it by themselves.
#[derive(Debug, Clone)]
pub struct Reactor {
    shared: Rc<Shared>,
}

impl Reactor {
    /// The reactor of this thread.
    ///
    /// # Errors
    /// [`Error::NoReactor`] where none is attached.
    pub fn current() -> Result<Self> {
        CURRENT.with_borrow(Clone::clone).ok_or(Error::NoReactor)
    }

    /// One turn without waiting: submits what is queued, takes completions, wakes their tasks.
    ///
    /// The executor does this between tasks. Call it from a long computation that must not hold up
    /// the thread's other sockets; with nothing to do it costs a few nanoseconds and no system call.
    pub fn turn(&self) {
        self.shared.turn();
    }

    /// What this reactor did so far.
    pub fn stats(&self) -> ReactorStats {
        self.stats_handle().stats()
    }

    /// A handle to read the statistics from other threads.
    pub fn stats_handle(&self) -> ReactorStatsHandle {
        ReactorStatsHandle(self.shared.counters.clone())
    }

    pub(crate) fn park(&self, limit: Option<Duration>) -> Result<()> {
        self.shared.park(limit)
    }

    pub(crate) fn unparker(&self) -> &Unparker {
        &self.shared.unparker
    }

    pub(crate) fn insert_timer(&self, deadline: Instant, waker: &Waker) -> TimerId {
        self.shared.state.borrow_mut().timers.insert(deadline, waker.clone())
    }

    /// Changes whom a timer wakes; false if it has fired.
    pub(crate) fn set_timer_waker(&self, id: TimerId, waker: &Waker) -> bool {
        self.shared.state.borrow_mut().timers.set_waker(id, waker)
    }

    pub(crate) fn remove_timer(&self, id: TimerId) {
        self.shared.state.borrow_mut().timers.remove(id);
    }
}

/// A reactor attached to its thread; dropping it cancels its ops, waits a bounded time until the
/// kernel has let go of their sockets, and detaches it.
#[derive(Debug)]
pub(crate) struct Attached {
    reactor: Reactor,
}

impl Attached {
    /// Makes a reactor and attaches it to this thread, which has none.
    ///
    /// A refused io_uring is not an error here but at the first socket that needs it: timers and
    /// wake-ups work without.
    pub(crate) fn new(options: &ReactorOptions) -> Result<Self> {
        let reactor = Reactor { shared: Rc::new(Shared::new(options)?) };
        CURRENT.with_borrow_mut(|current| {
            debug_assert!(current.is_none(), "the caller looked");
            *current = Some(reactor.clone());
        });
        Ok(Self { reactor })
    }

    pub(crate) fn reactor(&self) -> &Reactor {
        &self.reactor
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.reactor.shared.shut_down();
        CURRENT.take();
    }
}
