//! The host runtime of a reactor, as the reactor sees it.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::error::Result;
use crate::sys::event::EventFd;

/// How often a task that lets the host look may be polled unasked until it goes on: such a host runs everything in turn, and
/// does not wait for wakers.
const UNASKED: u32 = 64;

/// A turn that a task gives to the host.
#[derive(Debug)]
pub(crate) struct Turn {
    /// How often the host had looked before.
    since: u64,
    /// Polls until the task goes on in any case.
    left: u32,
}

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

    /// Waits until the host has looked at its own I/O since this was first polled; `turn` keeps when that was.
    pub(super) fn poll_look(&self, turn: &mut Option<Turn>, cx: &mut Context<'_>) -> Poll<()> {
        let looks = self.looks.get();
        match turn {
            Some(Turn { since, left }) if *since != looks || *left == 0 => {
                *turn = None;
                return Poll::Ready(());
            }
            Some(Turn { left, .. }) => *left -= 1,
            None => {
                *turn = Some(Turn { since: looks, left: UNASKED });
                // The host sees this only when it looks, and has nothing else to run for this task until then.
                self.event.signal();
            }
        }
        let mut yielding = self.yielding.borrow_mut();
        if !yielding.iter().any(|waker| waker.will_wake(cx.waker())) {
            yielding.push(cx.waker().clone());
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
