//! The host runtime of a reactor, as the reactor sees it.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::Waker;
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
}

impl Host {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            event: EventFd::blocking()?,
            driver: RefCell::new(None),
            waits_since: Cell::new(Instant::now()),
            has_guessed: Cell::new(false),
        })
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
