//! Registrations of descriptors and deadlines with a reactor.

use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::Reactor;
use super::deadlines::DeadlineId;
use super::op::Readiness;
use super::token::Token;
use super::turn::Inner;
use crate::error::{Error, Result};

/// A descriptor whose readiness the reactor watches.
///
/// Its owner keeps the descriptor open while it is registered. Dropping the registration cancels the poll in
/// the next turn. The owner may close the descriptor right away, but the kernel keeps the socket until the
/// poll is gone: [`release`](Self::release) and [`poll_released`](Self::poll_released) tell when that is.
#[derive(Debug)]
pub(crate) struct Registration {
    reactor: Weak<Inner>,
    token: Token,
    /// Whether the last poll returned ready and that has not proved useful yet.
    was_ready: Cell<bool>,
}

impl Registration {
    /// Registers `fd` for reading. The kernel is not involved until the first wait.
    pub(crate) fn new(reactor: &Reactor, fd: BorrowedFd<'_>) -> Result<Self> {
        Self::with(&reactor.shared, fd, libc::POLLIN)
    }

    /// Registers `fd` for writing: ready at the first wait if it is writable by then, and from then on for
    /// each frame sent.
    pub(crate) fn writable(reactor: &Reactor, fd: BorrowedFd<'_>) -> Result<Self> {
        Self::with(&reactor.shared, fd, libc::POLLOUT)
    }

    /// Registers another descriptor with the same reactor.
    pub(crate) fn sibling(&self, fd: BorrowedFd<'_>) -> Result<Self> {
        Self::with(&self.reactor.upgrade().ok_or(Error::ReactorGone)?, fd, libc::POLLIN)
    }

    fn with(shared: &Rc<Inner>, fd: BorrowedFd<'_>, events: i16) -> Result<Self> {
        let events = (events | libc::POLLERR) as u32;
        let token = shared.state.borrow_mut().register_poll(fd.as_raw_fd(), events)?;
        Ok(Self { reactor: Rc::downgrade(shared), token, was_ready: Cell::new(false) })
    }

    /// Records that the last readiness was useful, so there may be more right away.
    pub(crate) fn was_of_use(&self) {
        self.was_ready.set(false);
    }

    /// Returns ready if something has happened since this was last ready; arms the poll if needed.
    ///
    /// Readiness is a hint: look at the ring, and come back when it is empty.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<Readiness>> {
        let Some(shared) = self.reactor.upgrade() else {
            return Poll::Ready(Err(Error::ReactorGone));
        };
        let mut state = shared.state.borrow_mut();
        if let Some(taken) = state.take_ready(self.token) {
            self.was_ready.set(true);
            return Poll::Ready(taken);
        }
        let is_known = state.wakes(self.token, cx.waker());
        drop(state);
        let waker = (!is_known).then(|| cx.waker().clone());
        let found_nothing = self.was_ready.replace(false);
        let replaced = shared.change(|state| state.wait(self.token, waker, found_nothing));
        drop(replaced);
        Poll::Pending
    }

    /// Releases the descriptor: the poll is cancelled in the next turn. Calling it twice has no further
    /// effect.
    pub(crate) fn release(&self) {
        if let Some(shared) = self.reactor.upgrade() {
            let waker = shared.change(|state| state.release(self.token));
            drop(waker);
        }
    }

    /// Returns ready once the kernel has let go, after [`release`](Self::release).
    pub(crate) fn poll_released(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(shared) = self.reactor.upgrade() else { return Poll::Ready(()) };
        if shared.state.borrow_mut().is_released(self.token) {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        let replaced = shared.state.borrow_mut().set_waker(self.token, waker);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.release();
    }
}

/// A deadline that the reactor watches; dropping it removes the deadline.
#[derive(Debug)]
pub(crate) struct Deadline {
    reactor: Weak<Inner>,
    id: DeadlineId,
}

impl Deadline {
    pub(crate) fn new(reactor: &Reactor, deadline: Instant, waker: &Waker) -> Self {
        let shared = &reactor.shared;
        let waker = waker.clone();
        let id = shared.change(|state| state.timers.insert(deadline, waker));
        Self { reactor: Rc::downgrade(shared), id }
    }

    /// Returns the number of the reactor's turns, or 0 if the reactor has ended.
    pub(crate) fn turn(&self) -> u64 {
        self.reactor.upgrade().map_or(0, |shared| shared.counters.turns.get())
    }

    /// Changes the waker and returns the number of the reactor's turns. Returns `None` if the deadline has
    /// fired or the reactor is no longer turned.
    pub(crate) fn set_waker(&self, waker: &Waker) -> Option<u64> {
        let shared = self.reactor.upgrade()?;
        let state = shared.state.borrow();
        state.check().ok()?;
        let is_set = state.timers.get(self.id)?.will_wake(waker);
        drop(state);
        if !is_set {
            let waker = waker.clone();
            let replaced = shared.state.borrow_mut().timers.replace(self.id, waker);
            drop(replaced);
        }
        Some(shared.counters.turns.get())
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(shared) = self.reactor.upgrade() {
            let waker = shared.state.borrow_mut().timers.remove(self.id);
            drop(waker);
        }
    }
}
