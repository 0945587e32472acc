//! The host runtime of a reactor, as the reactor sees it.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::error::Result;
use crate::sys::event::EventFd;

/// A reactor's knowledge of its host.
#[derive(Debug)]
pub(super) struct Host {
    event: EventFd,
    /// The waker of the task that turns the reactor, until it was woken for the next turn.
    pub(super) driver: RefCell<Option<Waker>>,
    /// The time at which something last arrived.
    pub(super) waits_since: Cell<Instant>,
    /// Whether the waiting tasks were woken ahead of the next turn.
    pub(super) has_guessed: Cell<bool>,
    /// How often the host has reported the eventfd, and has therefore looked at its own I/O.
    looks: Cell<u64>,
    /// The tasks that let it look.
    yielding: RefCell<Vec<Waker>>,
}

impl Host {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            event: EventFd::blocking()?,
            driver: RefCell::new(None),
            waits_since: Cell::new(Instant::now()),
            has_guessed: Cell::new(false),
            looks: Cell::new(0),
            yielding: RefCell::default(),
        })
    }

    /// Waits until the host has looked at its own I/O since this was first polled; `since` keeps when that was.
    pub(super) fn poll_look(&self, since: &mut Option<u64>, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.looks.get();
        if since.is_some_and(|since| since != now) {
            *since = None;
            return Poll::Ready(());
        }
        let mut yielding = self.yielding.borrow_mut();
        if !yielding.iter().any(|waker| waker.will_wake(cx.waker())) {
            yielding.push(cx.waker().clone());
        }
        drop(yielding);
        if since.replace(now).is_none() {
            // The host sees this only when it looks, and has nothing else to run for this task until then.
            self.event.signal();
        }
        Poll::Pending
    }

    /// Notes that the host has looked at its own I/O. Returns the tasks to wake for that.
    pub(super) fn looked(&self) -> Vec<Waker> {
        self.looks.set(self.looks.get() + 1);
        self.yielding.take()
    }

    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Wakes the driver for a turn, unless it was woken since its last turn began.
    pub(super) fn wake_driver(&self) {
        let driver = self.driver.take();
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}
